//go:build linux && !portableloop

package loop

const portableLoop = false
