//go:build !linux

package vfs

func (f osFile) Sync() error                  { return f.File.Sync() }
func (f osFile) Preallocate(size int64) error { return growTo(f, size) }
