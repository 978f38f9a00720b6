package journal

import (
	"fmt"
	"testing"

	"vecino/internal/vfs"
)

// smallSet is about what a SET of a short key and value leaves.
var smallSet = Entry{DB: 12345, Epoch: 4, Seq: 9_876_543, TimeMS: 1_760_000_000_000, Prev: 0x0123456789abcdef, Effects: []byte("\x01\x00\x10key:000000123456\x03xxx")}

func BenchmarkAppendEntry(b *testing.B) {
	b.ReportAllocs()
	buf := AppendEntry(nil, &smallSet)
	for b.Loop() {
		buf = AppendEntry(buf[:0], &smallSet)
	}
}

func BenchmarkHash(b *testing.B) {
	b.ReportAllocs()
	buf := AppendEntry(nil, &smallSet)
	h := uint64(0)
	for b.Loop() {
		h = Hash(h, buf)
	}
}

func BenchmarkDecodeEntry(b *testing.B) {
	b.ReportAllocs()
	buf := AppendEntry(nil, &smallSet)
	for b.Loop() {
		if _, _, err := DecodeEntry(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// nowhere is a file system whose files take writes and keep none, so that what
// is measured is the journal's own share.
type nowhere struct{ vfs.FS }

type nowhereFile struct{ vfs.File }

func (f nowhereFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

func (n nowhere) Create(name string) (vfs.File, error) {
	f, err := n.FS.Create(name)
	return nowhereFile{f}, err
}

func (n nowhere) OpenRW(name string) (vfs.File, error) {
	f, err := n.FS.OpenRW(name)
	return nowhereFile{f}, err
}

// BenchmarkHotPath is all that a small write costs in the journal but write(2):
// encode, hash, append, and its share of a commit of so many.
func BenchmarkHotPath(b *testing.B) {
	for _, batch := range []int{1, 10, 50, 800} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			benchmarkWrites(b, nowhere{vfs.NewMem()}, Options{SegmentBytes: 1 << 20, SyncEvery: -1}, batch)
		})
	}
}

// BenchmarkCommit is the same with the operating system's files, synced each
// second.
func BenchmarkCommit(b *testing.B) {
	for _, batch := range []int{1, 10, 50, 800} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			b.Chdir(b.TempDir())
			benchmarkWrites(b, vfs.OS, Options{}, batch)
		})
	}
}

func benchmarkWrites(b *testing.B, fs vfs.FS, opts Options, batch int) {
	j, err := Open(fs, "j", opts)
	if err == nil {
		err = j.Replay(nil)
	}
	if err != nil {
		b.Fatal(err)
	}
	e, n := smallSet, 0
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		e.Seq++
		buf = AppendEntry(buf[:0], &e)
		e.Prev = Hash(e.Prev, buf)
		j.Append(buf)
		if n++; n%batch == 0 {
			if err := j.Commit(); err != nil {
				b.Fatal(err)
			}
			if n%65536 < batch {
				if err := j.TrimBefore(j.Tail()); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.StopTimer()
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkCommitSync is the durability "always": writers that wait for a sync
// each.
func BenchmarkCommitSync(b *testing.B) {
	for _, writers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			b.Chdir(b.TempDir())
			j, err := Open(vfs.OS, "j", Options{})
			if err == nil {
				err = j.Replay(nil)
			}
			if err != nil {
				b.Fatal(err)
			}
			b.SetParallelism(writers) // times GOMAXPROCS
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				raw := AppendEntry(nil, &smallSet)
				for pb.Next() {
					if err := j.CommitSync(j.Append(raw)); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.StopTimer()
			b.ReportMetric(float64(j.Stats().Syncs)/float64(b.N), "syncs/op")
			if err := j.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func BenchmarkReplay(b *testing.B) {
	b.Chdir(b.TempDir())
	const entries = 500_000
	j, err := Open(vfs.OS, "j", Options{})
	if err == nil {
		err = j.Replay(nil)
	}
	if err != nil {
		b.Fatal(err)
	}
	raw := AppendEntry(nil, &smallSet)
	for i := range entries {
		j.Append(raw)
		if i%16 == 0 {
			if err := j.Commit(); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if _, err := walk(vfs.OS, "j", func(*segment, Offset, []byte, *Entry) error { n++; return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/entry")
}
