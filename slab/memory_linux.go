package slab

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// most is how much address space is reserved at once, if the system allows it. Reserved space costs nothing.
const most = 64 << 30

// reserve sets aside address space, which can't be used yet, if the system has so
// much and more beyond it.
func reserve(size, beyond uint64) (base uint64, err error) {
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(size+beyond), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return 0, err
	}
	if err := unix.MunmapPtr(unsafe.Add(p, size), uintptr(beyond)); err != nil {
		return 0, err
	}
	return uint64(uintptr(p)), nil
}

// commit makes reserved space usable, if the system has so much memory, and more
// beyond it. It reads as zeroes and takes memory page by page, when written.
func commit(base, size, beyond uint64) error {
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(size+beyond), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	if err := unix.MunmapPtr(p, uintptr(size+beyond)); err != nil {
		return err
	}
	return unix.Mprotect(bytesAt(base, int(size)), unix.PROT_READ|unix.PROT_WRITE)
}

// release gives the memory behind usable space back to the system: it reads
// as zeroes again.
func release(base, size uint64) {
	b := bytesAt(base, int(size))
	if unix.Madvise(b, unix.MADV_DONTNEED) != nil { // as for locked memory
		clear(b)
	}
}

// mem makes a pointer of an address. The memory isn't the collector's.
//
//go:nocheckptr
func mem(addr uint64) unsafe.Pointer { return unsafe.Add(unsafe.Pointer(nil), int(addr)) }
