// Package vfs is the part of a file system that Vecino's storage needs, so
// that it can be tested on one that crashes.
//
// There are three. OS is the real one. Mem lives in memory and remembers
// apart what was synced, file contents and directory entries each for
// themselves: its CrashClone is the disk as it may look after a power cut.
// Hooked wraps another and lets a test look at, count or fail every call.
//
// The contract is that of POSIX, no more: a write is durable when the file was
// synced, a name (created, renamed or removed) when its directory was synced,
// a rename is atomic, and without a sync the order in which changes reach the
// disk is anybody's guess.
package vfs

import "io"

// FS is a file system. Names are paths as package filepath makes them. All
// implementations are safe for concurrent use, and report a missing file by an
// error that wraps fs.ErrNotExist.
type FS interface {
	// Create makes an empty file for reading and writing; one that exists is
	// emptied.
	Create(name string) (File, error)
	// Open opens a file for reading.
	Open(name string) (File, error)
	// OpenRW opens a file that exists for reading and writing, at its start.
	OpenRW(name string) (File, error)
	// Rename moves a file, in place of one that already has the new name.
	Rename(oldName, newName string) error
	Remove(name string) error
	// List returns the names, without the directory, of the files in dir,
	// sorted. Directories in it are left out.
	List(dir string) ([]string, error)
	// MkdirAll makes a directory and those above it, and makes them durable.
	MkdirAll(dir string) error
	// SyncDir makes durable which names dir holds.
	SyncDir(dir string) error
}

// File is an open file. ReadAt, WriteAt and Sync may run concurrently.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	io.Closer
	// Sync makes the contents and the size durable (fdatasync).
	Sync() error
	Truncate(size int64) error
	// Preallocate makes the file at least size bytes long, as zeros, and
	// reserves the room where the file system can, so that a full disk is
	// found here rather than at a later write.
	Preallocate(size int64) error
	Size() (int64, error)
}
