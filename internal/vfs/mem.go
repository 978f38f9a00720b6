package vfs

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
)

// sectorBytes is what a disk writes whole or not at all.
const sectorBytes = 512

// Mem is a file system in memory that knows what of it is on disk. Make one
// with NewMem.
type Mem struct {
	mu struct {
		sync.Mutex
		dirs map[string]*memDir
	}
}

// A memDir holds its names twice: as programs see them, and as they are on
// disk. pending leads from the second to the first.
type memDir struct {
	now     map[string]*memFile
	synced  map[string]*memFile
	pending []func(names map[string]*memFile) // each one atomic change
}

// A memFile is an inode. Mem's lock guards it.
type memFile struct {
	now    []byte
	synced []byte
}

// NewMem returns an empty file system.
func NewMem() *Mem {
	m := &Mem{}
	m.mu.dirs = map[string]*memDir{}
	return m
}

// CrashClone returns the disk as it may be found after a power cut now; m
// itself goes on. All that was synced is there. Of the rest, keep decides: it
// is asked once for each unsynced change of a directory, each unsynced sector
// and each unsynced size. With a nil keep nothing unsynced survives.
func (m *Mem) CrashClone(keep func() bool) *Mem {
	if keep == nil {
		keep = func() bool { return false }
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	clone := NewMem()
	inodes := map[*memFile]*memFile{} // two names may lead to one file
	for _, path := range slices.Sorted(maps.Keys(m.mu.dirs)) {
		dir := m.mu.dirs[path]
		names := maps.Clone(dir.synced)
		for _, change := range dir.pending {
			if keep() {
				change(names)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			f := names[name]
			if inodes[f] == nil {
				data := f.afterCrash(keep)
				inodes[f] = &memFile{now: data, synced: bytes.Clone(data)}
			}
			names[name] = inodes[f]
		}
		clone.mu.dirs[path] = &memDir{now: names, synced: maps.Clone(names)}
	}
	return clone
}

// afterCrash returns what of a file's contents is found after a power cut.
func (f *memFile) afterCrash(keep func() bool) []byte {
	size := len(f.synced)
	if len(f.now) != size && keep() {
		size = len(f.now)
	}
	data := make([]byte, size)
	copy(data, f.synced)
	for at := 0; at < min(size, len(f.now)); at += sectorBytes {
		fresh := f.now[at:min(at+sectorBytes, size, len(f.now))]
		if !bytes.Equal(data[at:at+len(fresh)], fresh) && keep() {
			copy(data[at:], fresh)
		}
	}
	return data
}

func notExist(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// lookupLocked returns the directory of a name, and the name in it.
func (m *Mem) lookupLocked(op, name string) (*memDir, string, error) {
	dir := m.mu.dirs[filepath.Dir(name)]
	if dir == nil {
		return nil, "", notExist(op, name)
	}
	return dir, filepath.Base(name), nil
}

func (d *memDir) applyLocked(change func(names map[string]*memFile)) {
	change(d.now)
	d.pending = append(d.pending, change)
}

func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.lookupLocked("create", name)
	if err != nil {
		return nil, err
	}
	f := dir.now[base]
	if f == nil {
		f = &memFile{}
		dir.applyLocked(func(names map[string]*memFile) { names[base] = f })
	}
	f.now = nil
	return &memHandle{fs: m, file: f, name: name, writable: true}, nil
}

func (m *Mem) Open(name string) (File, error)   { return m.open(name, false) }
func (m *Mem) OpenRW(name string) (File, error) { return m.open(name, true) }

func (m *Mem) open(name string, writable bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.lookupLocked("open", name)
	if err != nil {
		return nil, err
	}
	f := dir.now[base]
	if f == nil {
		return nil, notExist("open", name)
	}
	return &memHandle{fs: m, file: f, name: name, writable: writable}, nil
}

// Rename moves a file within one directory; nothing here needs more.
func (m *Mem) Rename(oldName, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, from, err := m.lookupLocked("rename", oldName)
	if err != nil {
		return err
	}
	if filepath.Dir(newName) != filepath.Dir(oldName) {
		return fmt.Errorf("rename %s to %s: vfs.Mem renames within one directory only", oldName, newName)
	}
	to, f := filepath.Base(newName), dir.now[from]
	if f == nil {
		return notExist("rename", oldName)
	}
	dir.applyLocked(func(names map[string]*memFile) {
		if names[from] == f {
			delete(names, from)
		}
		names[to] = f
	})
	return nil
}

func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.lookupLocked("remove", name)
	if err != nil {
		return err
	}
	f := dir.now[base]
	if f == nil {
		return notExist("remove", name)
	}
	dir.applyLocked(func(names map[string]*memFile) {
		if names[base] == f {
			delete(names, base)
		}
	})
	return nil
}

func (m *Mem) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.mu.dirs[filepath.Clean(dir)]
	if d == nil {
		return nil, notExist("list", dir)
	}
	return slices.Sorted(maps.Keys(d.now)), nil
}

func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for dir = filepath.Clean(dir); m.mu.dirs[dir] == nil; dir = filepath.Dir(dir) {
		m.mu.dirs[dir] = &memDir{now: map[string]*memFile{}, synced: map[string]*memFile{}}
	}
	return nil
}

func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.mu.dirs[filepath.Clean(dir)]
	if d == nil {
		return notExist("sync", dir)
	}
	d.synced, d.pending = maps.Clone(d.now), nil
	return nil
}

// A memHandle is an open memFile. It goes on working when the name is gone.
type memHandle struct {
	fs       *Mem
	file     *memFile
	name     string
	writable bool
	pos      int64
	closed   bool
}

// useLocked says whether the handle may be used, for writing too if write.
func (h *memHandle) useLocked(op string, write bool) error {
	if h.closed {
		return &fs.PathError{Op: op, Path: h.name, Err: fs.ErrClosed}
	}
	if write && !h.writable {
		return &fs.PathError{Op: op, Path: h.name, Err: fs.ErrPermission}
	}
	return nil
}

func (h *memHandle) Read(p []byte) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	n, err := h.readLocked(p, h.pos)
	h.pos += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (h *memHandle) ReadAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return h.readLocked(p, off)
}

func (h *memHandle) readLocked(p []byte, off int64) (int, error) {
	if err := h.useLocked("read", false); err != nil {
		return 0, err
	}
	if off >= int64(len(h.file.now)) {
		return 0, io.EOF
	}
	n := copy(p, h.file.now[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *memHandle) Write(p []byte) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	n, err := h.writeLocked(p, h.pos)
	h.pos += int64(n)
	return n, err
}

func (h *memHandle) WriteAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return h.writeLocked(p, off)
}

func (h *memHandle) writeLocked(p []byte, off int64) (int, error) {
	if err := h.useLocked("write", true); err != nil {
		return 0, err
	}
	h.file.resize(max(int64(len(h.file.now)), off+int64(len(p))))
	return copy(h.file.now[off:], p), nil
}

func (h *memHandle) Sync() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.useLocked("sync", false); err != nil {
		return err
	}
	h.file.synced = append(h.file.synced[:0], h.file.now...)
	return nil
}

func (h *memHandle) Truncate(size int64) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.useLocked("truncate", true); err != nil {
		return err
	}
	h.file.resize(size)
	return nil
}

func (h *memHandle) Preallocate(size int64) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.useLocked("preallocate", true); err != nil {
		return err
	}
	h.file.resize(max(size, int64(len(h.file.now))))
	return nil
}

func (h *memHandle) Size() (int64, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.useLocked("size", false); err != nil {
		return 0, err
	}
	return int64(len(h.file.now)), nil
}

func (h *memHandle) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.useLocked("close", false); err != nil {
		return err
	}
	h.closed = true
	return nil
}

// resize cuts the file or lengthens it by zeros.
func (f *memFile) resize(size int64) {
	if size <= int64(len(f.now)) {
		f.now = f.now[:size:size] // what is cut off must not come back
		return
	}
	f.now = append(f.now, make([]byte, size-int64(len(f.now)))...)
}
