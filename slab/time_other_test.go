//go:build !linux

package slab

import "time"

var begun = time.Now()

// threadTime is the time, where that of a thread can't be had.
func threadTime() time.Duration { return time.Since(begun) }
