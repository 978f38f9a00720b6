package vfs

import (
	"errors"
	"os"
	"syscall"
)

func (f osFile) Sync() error {
	return f.control("fdatasync", syscall.Fdatasync)
}

func (f osFile) Preallocate(size int64) error {
	err := f.control("fallocate", func(fd int) error { return syscall.Fallocate(fd, 0, 0, size) })
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return growTo(f, size) // no reservation here, but the size is right
	}
	return err
}

// control runs a system call on the file's descriptor, again while a signal
// interrupts it. It may not use File.Fd, which would race with Close.
func (f osFile) control(op string, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	err = raw.Control(func(fd uintptr) {
		for {
			if callErr = call(int(fd)); callErr != syscall.EINTR {
				return
			}
		}
	})
	if err == nil && callErr != nil {
		err = &os.PathError{Op: op, Path: f.Name(), Err: callErr}
	}
	return err
}
