package tier

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	pebblefs "github.com/cockroachdb/pebble/v2/vfs"

	"vecino/internal/vfs"
)

// Over makes a file system of ours one that a tier can live on, so that a test
// can crash a tier and a journal at the same moment.
func Over(fsys vfs.FS) pebblefs.FS {
	if fsys == vfs.OS {
		return pebblefs.Default
	}
	return over{fsys}
}

type over struct{ fs vfs.FS }

type overFile struct {
	vfs.File
	name string
}

func wrapped(f vfs.File, err error, name string, opts []pebblefs.OpenOption) (pebblefs.File, error) {
	if err != nil {
		return nil, err
	}
	of := overFile{f, name}
	for _, o := range opts {
		o.Apply(of)
	}
	return of, nil
}

func (o over) Create(name string, _ pebblefs.DiskWriteCategory) (pebblefs.File, error) {
	f, err := o.fs.Create(name)
	return wrapped(f, err, name, nil)
}

// Link fails: Pebble copies instead.
func (o over) Link(oldname, newname string) error {
	return &os.LinkError{Op: "link", Old: oldname, New: newname, Err: errors.ErrUnsupported}
}

func (o over) Open(name string, opts ...pebblefs.OpenOption) (pebblefs.File, error) {
	f, err := o.fs.Open(name)
	return wrapped(f, err, name, opts)
}

func (o over) OpenReadWrite(name string, category pebblefs.DiskWriteCategory, opts ...pebblefs.OpenOption) (pebblefs.File, error) {
	f, err := o.fs.OpenRW(name)
	if errors.Is(err, fs.ErrNotExist) {
		return o.Create(name, category)
	}
	return wrapped(f, err, name, opts)
}

func (o over) OpenDir(name string) (pebblefs.File, error) {
	if _, err := o.fs.List(name); err != nil {
		return nil, err
	}
	return overDir{o.fs, name}, nil
}

func (o over) Remove(name string) error { return o.fs.Remove(name) }

func (o over) RemoveAll(name string) error {
	names, err := o.fs.List(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, n := range names {
		err = errors.Join(err, o.fs.Remove(filepath.Join(name, n)))
	}
	return err // an empty directory stays
}

func (o over) Rename(oldname, newname string) error { return o.fs.Rename(oldname, newname) }

func (o over) ReuseForWrite(oldname, newname string, category pebblefs.DiskWriteCategory) (pebblefs.File, error) {
	if err := o.fs.Rename(oldname, newname); err != nil {
		return nil, err
	}
	f, err := o.fs.OpenRW(newname)
	return wrapped(f, err, newname, nil)
}

func (o over) MkdirAll(dir string, _ os.FileMode) error { return o.fs.MkdirAll(dir) }

// Lock takes nothing: the node holds a lock on the whole directory.
func (o over) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

func (o over) List(dir string) ([]string, error) { return o.fs.List(dir) }

func (o over) Stat(name string) (pebblefs.FileInfo, error) {
	f, err := o.fs.Open(name)
	if err != nil {
		if _, e := o.fs.List(name); e == nil {
			return overInfo{name, 0, true}, nil
		}
		return nil, err
	}
	defer f.Close()
	return overFile{f, name}.Stat()
}

func (o over) PathBase(path string) string        { return filepath.Base(path) }
func (o over) PathJoin(elements ...string) string { return filepath.Join(elements...) }
func (o over) PathDir(path string) string         { return filepath.Dir(path) }
func (o over) GetDiskUsage(string) (pebblefs.DiskUsage, error) {
	return pebblefs.DiskUsage{}, pebblefs.ErrUnsupported
}
func (o over) Unwrap() pebblefs.FS { return nil }

func (f overFile) Preallocate(offset, length int64) error { return nil }
func (f overFile) SyncTo(int64) (bool, error)             { return true, f.Sync() }
func (f overFile) SyncData() error                        { return f.Sync() }
func (f overFile) Prefetch(int64, int64) error            { return nil }
func (f overFile) Fd() uintptr                            { return pebblefs.InvalidFd }

func (f overFile) Stat() (pebblefs.FileInfo, error) {
	size, err := f.Size()
	return overInfo{f.name, size, false}, err
}

// overDir is a directory that is open to be synced.
type overDir struct {
	fs   vfs.FS
	name string
}

func (d overDir) Sync() error                        { return d.fs.SyncDir(d.name) }
func (d overDir) SyncData() error                    { return d.Sync() }
func (d overDir) SyncTo(int64) (bool, error)         { return true, d.Sync() }
func (d overDir) Close() error                       { return nil }
func (d overDir) Read([]byte) (int, error)           { return 0, fs.ErrInvalid }
func (d overDir) ReadAt([]byte, int64) (int, error)  { return 0, fs.ErrInvalid }
func (d overDir) Write([]byte) (int, error)          { return 0, fs.ErrInvalid }
func (d overDir) WriteAt([]byte, int64) (int, error) { return 0, fs.ErrInvalid }
func (d overDir) Preallocate(int64, int64) error     { return fs.ErrInvalid }
func (d overDir) Prefetch(int64, int64) error        { return nil }
func (d overDir) Fd() uintptr                        { return pebblefs.InvalidFd }
func (d overDir) Stat() (pebblefs.FileInfo, error)   { return overInfo{d.name, 0, true}, nil }

type overInfo struct {
	name string
	size int64
	dir  bool
}

func (i overInfo) Name() string                { return filepath.Base(i.name) }
func (i overInfo) Size() int64                 { return i.size }
func (i overInfo) ModTime() time.Time          { return time.Time{} }
func (i overInfo) IsDir() bool                 { return i.dir }
func (i overInfo) Sys() any                    { return nil }
func (i overInfo) DeviceID() pebblefs.DeviceID { return pebblefs.DeviceID{} }

func (i overInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}
