package journal

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vecino/internal/vfs"
)

// chain appends entries that carry the hash of those before.
type chain struct {
	seq, prev uint64
}

func (c *chain) add(t testing.TB, j *Journal, n int) {
	t.Helper()
	for range n {
		c.seq++
		e := testEntry(c.seq)
		e.Prev = c.prev
		raw := AppendEntry(nil, e)
		c.prev = Hash(c.prev, raw)
		j.Append(raw)
	}
	if err := j.Commit(); err != nil {
		t.Fatal(err)
	}
}

// smallJournal is one of a few short segments, all but the first in files that are
// full of frames of a former life.
func smallJournal(t *testing.T, mend bool) *vfs.Mem {
	mem := vfs.NewMem()
	opts := testOptions()
	opts.SpareSegments = 4
	var c chain
	j, _ := open(t, mem, opts)
	for j.Stats().Segments < 5 {
		c.add(t, j, 3)
	}
	if err := errors.Join(j.TrimBefore(j.Tail()), j.Close()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		failing := &syncFailer{FS: mem, t: t}
		j, _ := open(t, failing, opts)
		c.add(t, j, 2)
		if err := j.Sync(); err != nil {
			t.Fatal(err)
		}
		c.add(t, j, 2)
		if mend {
			failing.failAt(1)
			if err := j.Sync(); err == nil {
				t.Fatal("it doesn't fail")
			}
			if err := j.syncBackground(); err != nil {
				t.Fatal(err)
			}
			c.add(t, j, 1)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return mem
}

// The rule of the package doc, bit for bit. A flipped bit is damage, reported with
// the file and a place at or before it, and what comes before that is whole.
// Only the last word of Close guards all but itself, and what means nothing any
// more may be anything.
func TestEveryBitOfAClosedJournal(t *testing.T) {
	for _, mend := range []bool{false, true} {
		t.Run(fmt.Sprintf("mended=%v", mend), func(t *testing.T) {
			mem := smallJournal(t, mend)
			all, h, err := walkSeqs(mem)
			if err != nil || h.cut != nil {
				t.Fatal(err, h)
			}
			newest := h.segments[len(h.segments)-1]
			found, unimportant := 0, 0
			for name, good := range readFiles(t, mem) {
				f, err := mem.OpenRW("j/" + name)
				if err != nil {
					t.Fatal(err)
				}
				var s *segment
				if i := slices.IndexFunc(h.segments, func(s *segment) bool { return s.name == "j/"+name }); i >= 0 {
					s = h.segments[i]
				}
				used := int64(0)
				if s != nil && !s.superseded {
					used = s.place(s.end)
				}
				for bit := range len(good) * 8 {
					at := int64(bit / 8)
					if at > used+64 && at%509 != 0 {
						continue // enough of what means nothing
					}
					if (at >= 32 && at < 504 || at >= 560 && at < headerBytes-8) && bit%8 != int(at%8) {
						continue // zeros under one check sum: a bit of each byte
					}
					if _, err := f.WriteAt([]byte{good[at] ^ 1<<(bit%8)}, at); err != nil {
						t.Fatal(err)
					}
					seqs, now, err := walkSeqs(mem)
					if _, err := f.WriteAt(good[at:at+1], at); err != nil {
						t.Fatal(err)
					}
					var damage *DamageError
					switch {
					case s == newest && at >= used-frameHead && at < used:
						if err != nil || !slices.Equal(seqs, all) {
							t.Fatalf("bit %d of Close's last word flipped: %d of %d entries, %v", bit, len(seqs), len(all), err)
						}
					case at >= used && (s == nil || !s.superseded || at >= recordAt):
						if err != nil || !slices.Equal(seqs, all) || now.cut != nil {
							t.Fatalf("bit %d of %s flipped, where nothing is: %d of %d entries, %v, %v", bit, name, len(seqs), len(all), now, err)
						}
						unimportant++
					case !errors.As(err, &damage):
						t.Fatalf("bit %d of byte %d of %s flipped: %d of %d entries, error %v", bit%8, at, name, len(seqs), len(all), err)
					case damage.File != "j/"+name || damage.At > at || !slices.Equal(seqs, all[:len(seqs)]):
						t.Fatalf("bit %d of byte %d of %s flipped, but after %d of %d entries the error says: %v", bit%8, at, name, len(seqs), len(all), err)
					default:
						found++
					}
				}
			}
			if found < 10_000 || unimportant < 1000 {
				t.Fatalf("%d flipped bits found, %d unimportant", found, unimportant)
			}
		})
	}
}

// What a program of version 1 has left is read, guarded as well as before, and
// goes on in version 2 with an unbroken history.
func TestJournalOfVersion1IsReadAndContinued(t *testing.T) {
	fl := files{}
	names, _ := filepath.Glob("testdata/v1-*.gz")
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		fl[strings.TrimSuffix(strings.TrimPrefix(filepath.Base(name), "v1-"), ".gz")] = b
	}
	mem := fl.fs(t)
	report, err := Verify(mem, "j")
	if err != nil || len(report.Segments) != 3 || len(report.Breaks) > 0 || report.Cut != nil {
		t.Fatalf("%+v, %v", report, err)
	}
	flipped := 0
	for i, name := range slices.Sorted(maps.Keys(fl)) {
		good, s := fl[name], report.Segments[i]
		end := headerBytes + int(s.End-s.Start)
		if i == 2 {
			end -= frameHead // Close's own last word
		}
		for at := 0; at < end; at += 7 {
			bad := bytes.Clone(good)
			bad[at] ^= 1 << (at % 8)
			var damage *DamageError
			if _, _, err := walkSeqs(fl.with(name, bad).fs(t)); !errors.As(err, &damage) || damage.File != "j/"+name {
				t.Fatalf("byte %d of %s flipped: %v", at, name, err)
			}
			flipped++
		}
	}
	if flipped < 4000 {
		t.Fatalf("%d flipped", flipped)
	}

	var c chain
	j, _, err := tryOpenWith(mem, testOptions(), func(e *Entry) error { c.seq, c.prev = e.Seq, e.Hash(); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if c.seq != 596 || c.prev != 398497155285956506 { // as its writer said
		t.Fatalf("it ends with entry %d, hash %d", c.seq, c.prev)
	}
	c.add(t, j, 400)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	was := report
	if report, err = Verify(mem, "j"); err != nil || len(report.Breaks) > 0 || report.Entries != was.Entries+400 {
		t.Fatalf("%d entries became %d, breaks %v, %v", was.Entries, report.Entries, report.Breaks, err)
	}
}
