package slab

import (
	"time"

	"golang.org/x/sys/unix"
)

// threadTime is how long this thread has run.
func threadTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano())
}
