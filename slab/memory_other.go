//go:build !linux

package slab

import (
	"sync"
	"unsafe"
)

// most is how much memory is taken at once, other than for what needs more.
const most = 16 << 20

// taken holds what was ever taken, for nothing else points to it.
var taken struct {
	sync.Mutex
	blocks [][]byte
}

func reserve(size, _ uint64) (base uint64, err error) {
	b := make([]byte, size)
	taken.Lock()
	taken.blocks = append(taken.blocks, b)
	taken.Unlock()
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), nil
}

func commit(base, size, beyond uint64) error { return nil }

func release(base, size uint64) { clear(bytesAt(base, int(size))) }

// mem makes a pointer of an address, of memory that taken keeps alive.
//
//go:nocheckptr
func mem(addr uint64) unsafe.Pointer { return unsafe.Add(unsafe.Pointer(nil), int(addr)) }
