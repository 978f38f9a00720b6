package vfs

import "sync/atomic"

// Op names a call of FS or File, for hooks.
type Op string

const (
	OpCreate      Op = "create"
	OpOpen        Op = "open" // Open and OpenRW
	OpRename      Op = "rename"
	OpRemove      Op = "remove"
	OpList        Op = "list"
	OpMkdirAll    Op = "mkdir"
	OpSyncDir     Op = "syncdir"
	OpRead        Op = "read"  // Read and ReadAt
	OpWrite       Op = "write" // Write and WriteAt
	OpSync        Op = "sync"
	OpTruncate    Op = "truncate"
	OpPreallocate Op = "preallocate"
)

// Hook is called before every call that reaches the disk; name is the file's
// or directory's. If it returns an error the call fails with it, and a write
// that fails so has written half of its bytes, as a full disk may. It is called
// from many goroutines at once.
type Hook func(op Op, name string) error

// Hooked returns a file system that asks hook before each call to under.
func Hooked(under FS, hook Hook) FS { return &hookedFS{under, hook} }

// FailNth returns a hook that fails the n-th call, counted from 1, with err and
// lets all others pass.
func FailNth(n int64, err error) Hook {
	var calls atomic.Int64
	return func(Op, string) error {
		if calls.Add(1) == n {
			return err
		}
		return nil
	}
}

type hookedFS struct {
	under FS
	hook  Hook
}

type hookedFile struct {
	under File
	name  string
	hook  Hook
}

func (h *hookedFS) file(op Op, name string, open func(string) (File, error)) (File, error) {
	if err := h.hook(op, name); err != nil {
		return nil, err
	}
	f, err := open(name)
	if err != nil {
		return nil, err
	}
	return &hookedFile{f, name, h.hook}, nil
}

func (h *hookedFS) Create(name string) (File, error) {
	return h.file(OpCreate, name, h.under.Create)
}
func (h *hookedFS) Open(name string) (File, error)   { return h.file(OpOpen, name, h.under.Open) }
func (h *hookedFS) OpenRW(name string) (File, error) { return h.file(OpOpen, name, h.under.OpenRW) }

func (h *hookedFS) Rename(oldName, newName string) error {
	if err := h.hook(OpRename, oldName); err != nil {
		return err
	}
	return h.under.Rename(oldName, newName)
}

func (h *hookedFS) Remove(name string) error {
	if err := h.hook(OpRemove, name); err != nil {
		return err
	}
	return h.under.Remove(name)
}

func (h *hookedFS) List(dir string) ([]string, error) {
	if err := h.hook(OpList, dir); err != nil {
		return nil, err
	}
	return h.under.List(dir)
}

func (h *hookedFS) MkdirAll(dir string) error {
	if err := h.hook(OpMkdirAll, dir); err != nil {
		return err
	}
	return h.under.MkdirAll(dir)
}

func (h *hookedFS) SyncDir(dir string) error {
	if err := h.hook(OpSyncDir, dir); err != nil {
		return err
	}
	return h.under.SyncDir(dir)
}

func (f *hookedFile) Read(p []byte) (int, error) {
	if err := f.hook(OpRead, f.name); err != nil {
		return 0, err
	}
	return f.under.Read(p)
}

func (f *hookedFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.hook(OpRead, f.name); err != nil {
		return 0, err
	}
	return f.under.ReadAt(p, off)
}

func (f *hookedFile) Write(p []byte) (int, error) {
	if err := f.hook(OpWrite, f.name); err != nil {
		n, _ := f.under.Write(p[:len(p)/2])
		return n, err
	}
	return f.under.Write(p)
}

func (f *hookedFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.hook(OpWrite, f.name); err != nil {
		n, _ := f.under.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return f.under.WriteAt(p, off)
}

func (f *hookedFile) Sync() error {
	if err := f.hook(OpSync, f.name); err != nil {
		return err
	}
	return f.under.Sync()
}

func (f *hookedFile) Truncate(size int64) error {
	if err := f.hook(OpTruncate, f.name); err != nil {
		return err
	}
	return f.under.Truncate(size)
}

func (f *hookedFile) Preallocate(size int64) error {
	if err := f.hook(OpPreallocate, f.name); err != nil {
		return err
	}
	return f.under.Preallocate(size)
}

func (f *hookedFile) Size() (int64, error) { return f.under.Size() }
func (f *hookedFile) Close() error         { return f.under.Close() }
