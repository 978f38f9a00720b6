//go:build linux

package loop

import "syscall"

// mapBuffer makes a buffer of at least n bytes that takes memory only as it is filled.
func mapBuffer(n int) []byte {
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return make([]byte, 0, n) // the heap may still have it; unmapBuffer finds that it isn't a mapping
	}
	return b[:0]
}

func unmapBuffer(b []byte) {
	_ = syscall.Munmap(b[:cap(b)]) // fails only for a buffer that came from the heap
}
