package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"vecino/internal/vfs"
)

// files is a journal's directory as bytes, to be spoilt.
type files map[string][]byte

func readFiles(t testing.TB, fs vfs.FS) files {
	t.Helper()
	names, err := fs.List("j")
	if err != nil {
		t.Fatal(err)
	}
	out := files{}
	for _, name := range names {
		f, err := fs.Open("j/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if out[name], err = io.ReadAll(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return out
}

func (fl files) fs(t testing.TB) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	err := mem.MkdirAll("j")
	for name, b := range fl {
		var f vfs.File
		if err == nil {
			f, err = mem.Create("j/" + name)
		}
		if err == nil {
			_, err = f.Write(b)
		}
		if err == nil {
			err = f.Sync()
		}
	}
	if err == nil {
		err = mem.SyncDir("j")
	}
	if err != nil {
		t.Fatal(err)
	}
	return mem
}

// with returns a copy in which one file has other contents.
func (fl files) with(name string, b []byte) files {
	out := maps.Clone(fl)
	out[name] = b
	return out
}

// threeSegments returns a journal of entries 1 to last in three segments, on a
// disk of its own. Where a segment's entries end, stale frames of a former life
// of the file follow.
func threeSegments(t testing.TB) (fs *vfs.Mem, j *Journal, last uint64) {
	mem := vfs.NewMem()
	j, _ = open(t, mem, testOptions())
	last = 1
	fill := func(segments int) {
		for j.Stats().Segments < segments {
			appendSeq(j, last)
			last++
			if last%4 == 0 {
				if err := j.Commit(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	fill(4)
	first := j.Tail()
	firstSeq := last
	if err := j.TrimBefore(first); err != nil {
		t.Fatal(err)
	}
	if st := j.Stats(); st.Segments != 1 || st.Spare == 0 {
		t.Fatalf("nothing to be used again: %+v", st)
	}
	last = firstSeq
	fill(3)
	for range 7 {
		appendSeq(j, last)
		last++
	}
	if err := j.Commit(); err != nil {
		t.Fatal(err)
	}
	return mem, j, last - 1
}

// walkSeqs returns the seqs that a walk sees, without changing anything.
func walkSeqs(fs vfs.FS) (seqs []uint64, h *history, err error) {
	h, err = walk(fs, "j", func(_ *segment, _ Offset, _ []byte, e *Entry) error {
		seqs = append(seqs, e.Seq)
		return nil
	})
	return seqs, h, err
}

// usedBytes returns how many bytes of a segment file mean something.
func usedBytes(h *history, name string) int {
	for _, s := range h.segments {
		if s.name == "j/"+name {
			return int(s.place(s.end))
		}
	}
	return 0
}

func TestFlippedBitAnywhereIsReported(t *testing.T) {
	mem, j, last := threeSegments(t)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	good := readFiles(t, mem)
	all, h, err := walkSeqs(mem)
	if err != nil || all[len(all)-1] != last || len(h.segments) != 3 {
		t.Fatalf("%d segments, %v", len(h.segments), err)
	}
	newest := slices.Max(slices.DeleteFunc(slices.Collect(maps.Keys(good)), func(name string) bool { return usedBytes(h, name) == 0 }))
	flips := 0
	for name, b := range good {
		f, err := mem.OpenRW("j/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for at := range usedBytes(h, name) {
			if name == newest && at >= usedBytes(h, name)-frameHead {
				continue // Close's own last word, which guards all but itself
			}
			if at > 700 && at < headerBytes-8 && at%97 != 0 || at > headerBytes+500 && at%5 != 0 {
				continue // unused parts of the header, or enough of the same
			}
			if _, err := f.WriteAt([]byte{b[at] ^ 1<<(at%8)}, int64(at)); err != nil {
				t.Fatal(err)
			}
			seqs, _, err := walkSeqs(mem)
			if _, err := f.WriteAt(b[at:at+1], int64(at)); err != nil {
				t.Fatal(err)
			}
			var damage *DamageError
			if !errors.As(err, &damage) {
				t.Fatalf("byte %d of %s flipped: %d of %d entries, error %v", at, name, len(seqs), len(all), err)
			}
			if damage.File != "j/"+name || damage.At > int64(at) {
				t.Fatalf("byte %d of %s flipped, but the error says: %v", at, name, err)
			}
			if !slices.Equal(seqs, all[:len(seqs)]) {
				t.Fatalf("byte %d of %s flipped: entries before the damage are not a prefix", at, name)
			}
			flips++
		}
	}
	if flips < 5_000 {
		t.Fatalf("only %d bits flipped", flips)
	}
}

// Until something says that it was on disk, a damaged byte can't be told from
// one that a power cut took; what lies before it must still be whole.
func TestFlippedBitInWhatWasNotSyncedCutsThere(t *testing.T) {
	mem, j, last := threeSegments(t) // synced when trimmed, in the first of three
	good := readFiles(t, mem)
	all, h, err := walkSeqs(mem)
	if err != nil || all[len(all)-1] != last {
		t.Fatal(err)
	}
	synced, cuts := j.Synced(), 0
	for _, s := range h.segments {
		name := strings.TrimPrefix(s.name, "j/")
		for at := s.place(max(s.record.start, synced)); at < s.place(s.end); at += 13 {
			bad := bytes.Clone(good[name])
			bad[at] ^= 1 << (at % 8)
			fs := good.with(name, bad).fs(t)
			seqs, h, err := walkSeqs(fs)
			if err != nil || !slices.Equal(seqs, all[:len(seqs)]) || len(seqs) == len(all) {
				t.Fatalf("byte %d of %s flipped: %d entries, %v", at, name, len(seqs), err)
			}
			if h.cut != nil {
				cuts++
				if h.cut.File != s.name || h.cut.At > at {
					t.Fatalf("byte %d of %s flipped, but cut is: %v", at, name, h.cut)
				}
			}
			if cuts%20 == 0 { // and it goes on from there
				j, seqs2, err := tryOpen(fs, testOptions())
				if err != nil || !slices.Equal(seqs2, seqs) {
					t.Fatal(err)
				}
				appendSeq(j, seqs[len(seqs)-1]+1)
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
				seqs3, h, err := walkSeqs(fs)
				if err != nil || len(seqs3) != len(seqs)+1 || h.cut != nil {
					t.Fatalf("after the cut: %d entries, then %d, %v, %v", len(seqs), len(seqs3), h, err)
				}
			}
		}
	}
	if cuts < 100 {
		t.Fatalf("only %d cuts", cuts)
	}
}

func TestTornTailIsCutAtEveryLength(t *testing.T) {
	mem := vfs.NewMem()
	j, _ := open(t, mem, testOptions())
	for seq := uint64(1); seq <= 3; seq++ {
		appendSeq(j, seq)
		if err := j.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	before := j.Tail()
	appendSeq(j, 4)
	if err := j.Commit(); err != nil {
		t.Fatal(err)
	}
	s := j.mu.segments[0]
	name := strings.TrimPrefix(s.name, "j/")
	good := readFiles(t, mem)
	end := s.place(before) + frameHead + int64(len(AppendEntry(nil, testEntry(4)))) // only padding follows
	for n := s.place(before); n < end; n++ {
		for what, b := range map[string][]byte{
			"the file ends":  good[name][:n],
			"zeros follow":   append(bytes.Clone(good[name][:n]), make([]byte, testSegment-n)...),
			"garbage follow": append(bytes.Clone(good[name][:n]), bytes.Repeat([]byte{0xa5}, testSegment-int(n))...),
		} {
			j, seqs := open(t, files{name: b}.fs(t), testOptions())
			wantSeqs(t, seqs, 1, 3)
			cut := j.Recovered().Cut
			if cut == nil && n >= s.place(before)+frameHead || cut != nil && (cut.Offset != before || cut.Frames != 0) {
				t.Fatalf("%s after %d bytes: cut is %v", what, n, cut)
			}
			if got := j.Recovered(); got.Entries != 3 || got.Tail < before {
				t.Fatalf("%+v", got)
			}
		}
	}
}

func TestMissingOrForeignSegmentIsDamage(t *testing.T) {
	mem, j, _ := threeSegments(t)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	good := readFiles(t, mem)
	_, h, err := walkSeqs(mem)
	if err != nil {
		t.Fatal(err)
	}
	name := func(i int) string { return strings.TrimPrefix(h.segments[i].name, "j/") }
	gap := maps.Clone(good)
	delete(gap, name(1))
	for what, fl := range map[string]files{
		"missing":    gap,
		"swapped":    good.with(name(0), good[name(1)]).with(name(1), good[name(0)]),
		"doubled":    good.with(name(1), good[name(0)]),
		"empty":      good.with(name(1), nil),
		"cut":        good.with(name(1), good[name(1)][:8000]),
		"first gone": good.with(name(0), make([]byte, testSegment)),
	} {
		var damage *DamageError
		if _, _, err := walkSeqs(fl.fs(t)); !errors.As(err, &damage) || !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := Verify(fl.fs(t), "j"); !errors.As(err, &damage) {
			t.Errorf("%s: verify: %v", what, err)
		}
		before := fl.fs(t)
		if _, _, err := tryOpen(before, testOptions()); !errors.As(err, &damage) {
			t.Errorf("%s: replay: %v", what, err)
		}
		if after := readFiles(t, before); !maps.EqualFunc(after, fl, bytes.Equal) {
			t.Errorf("%s: a damaged journal was changed", what)
		}
	}
}

func TestMissingSegmentIsNamedThoughNothingWasSynced(t *testing.T) {
	mem, j, _ := threeSegments(t)
	fl := readFiles(t, mem)
	gone := segmentName(j.mu.segments[1].number)
	delete(fl, gone)
	var damage *DamageError
	if _, _, err := walkSeqs(fl.fs(t)); !errors.As(err, &damage) || damage.File != "j/"+gone {
		t.Fatal(err)
	}
}

// Without its begin record, offsets would start from nothing.
func TestFirstSegmentWithoutBeginRecordIsDamageThoughNothingWasSynced(t *testing.T) {
	mem := vfs.NewMem()
	j, _ := open(t, mem, testOptions())
	appendSeq(j, 1)
	if err := j.Commit(); err != nil {
		t.Fatal(err)
	}
	fl := readFiles(t, mem)
	clear(fl[segmentName(1)][recordAt:headerBytes])
	if _, _, err := walkSeqs(fl.fs(t)); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
}

func TestUnknownVersionIsRefusedAndLeftAlone(t *testing.T) {
	mem := vfs.NewMem()
	j, _ := open(t, mem, testOptions())
	appendSeq(j, 1)
	name := strings.TrimPrefix(j.mu.segments[0].name, "j/")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	fl := readFiles(t, mem)
	head := appendHeader(nil, 1, 99)
	head[8] = Version + 1
	binary.LittleEndian.PutUint32(head[recordAt-4:], crc32.Checksum(head[:recordAt-4], castagnoli))
	fl = fl.with(name, append(head, fl[name][recordAt:]...))
	fs := fl.fs(t)
	if _, _, err := tryOpen(fs, testOptions()); !errors.Is(err, ErrVersion) || errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
	if !maps.EqualFunc(readFiles(t, fs), fl, bytes.Equal) {
		t.Fatal("a journal of another version was changed")
	}
}

// Used again, a file is full of whole frames of its former life, at the very
// places where new ones go. None of them may come back.
func TestStaleEntriesOfAUsedFileNeverComeBack(t *testing.T) {
	mem := vfs.NewMem()
	j, _ := open(t, mem, testOptions())
	same := func(seq uint64) []byte { // all of one size, so that frames fall on frames
		return AppendEntry(nil, &Entry{DB: 1, Epoch: 1, Seq: 1000 + seq, Effects: make([]byte, 100)})
	}
	seq := uint64(0)
	for j.Stats().Segments < 5 {
		seq++
		j.Append(same(seq))
		if err := j.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.TrimBefore(j.Tail()); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, f := range j.mu.free {
		used[f] = true
	}
	if len(used) != 2 {
		t.Fatalf("%d files to be used again", len(used))
	}
	from := seq
	for j.Stats().Segments < 3 || len(j.mu.free) > 0 {
		seq++
		j.Append(same(seq))
		if err := j.Commit(); err != nil {
			t.Fatal(err)
		}
		// All that a crash now would leave must be what was written since.
		var got []uint64
		if _, err := walk(mem.CrashClone(func() bool { return true }), "j", func(_ *segment, _ Offset, _ []byte, e *Entry) error {
			got = append(got, e.Seq-1000)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		wantSeqs(t, got, got[0], seq)
		if got[0] > from {
			t.Fatalf("%d is missing", from)
		}
	}
}

func FuzzReplay(f *testing.F) {
	mem, j, _ := threeSegments(f)
	if err := j.Close(); err != nil {
		f.Fatal(err)
	}
	good := readFiles(f, mem)
	all, h, err := walkSeqs(mem)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(0), uint32(0), []byte("x"), uint32(0))
	f.Add(uint8(2), uint32(4096), []byte{}, uint32(100))
	f.Add(uint8(1), uint32(4100), []byte{255, 255, 255, 255}, uint32(0))
	f.Add(uint8(1), uint32(520), make([]byte, 8), uint32(8000))
	f.Fuzz(func(t *testing.T, which uint8, at uint32, put []byte, cut uint32) {
		name := strings.TrimPrefix(h.segments[int(which)%3].name, "j/")
		b := bytes.Clone(good[name])
		if int(at) < len(b) {
			copy(b[at:], put)
		}
		b = b[:len(b)-int(cut)%len(b)]
		fs := good.with(name, b).fs(t)
		seqs, _, err := walkSeqs(fs)
		if len(seqs) > len(all) || !slices.Equal(seqs, all[:len(seqs)]) {
			t.Fatalf("%d entries of %d, not a prefix", len(seqs), len(all))
		}
		if err != nil {
			return
		}
		// What can be walked can be opened, and then has the same entries.
		j, again, err := tryOpen(fs, testOptions())
		if err == nil {
			err = j.Close()
		}
		if err != nil || len(again) != len(seqs) {
			t.Fatalf("%d entries walked, %d replayed, %v", len(seqs), len(again), err)
		}
	})
}
