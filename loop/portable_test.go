//go:build portableloop || !linux

package loop

const portableLoop = true
