// Package dirlock makes sure that one process at a time uses a directory.
package dirlock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ErrHeld is returned by Take for a directory that another process uses.
var ErrHeld = errors.New("in use by another process")

// Lock is a directory in use. The kernel lets go of it when its process ends,
// however that happens.
type Lock struct{ f *os.File }

// Take takes a directory, which exists. If another process has it, the error
// is ErrHeld and pid is that process, or 0 if that can't be told.
func Take(dir string) (l *Lock, pid int, err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if err != syscall.EWOULDBLOCK {
			return nil, 0, fmt.Errorf("lock %s: %w", dir, err)
		}
		b := make([]byte, 32)
		n, _ := f.Read(b)
		pid, _ := strconv.Atoi(strings.TrimSpace(string(b[:n])))
		return nil, pid, fmt.Errorf("%s: %w (pid %d)", dir, ErrHeld, pid)
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	}
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("lock %s: %w", dir, err)
	}
	return &Lock{f}, 0, nil
}

// Close lets go of the directory.
func (l *Lock) Close() error { return l.f.Close() }
