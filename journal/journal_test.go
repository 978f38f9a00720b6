package journal

import (
	"errors"
	"fmt"
	"testing"

	"vecino/internal/vfs"
)

const testSegment = 16 << 10

func testOptions() Options { return Options{SegmentBytes: testSegment, SyncEvery: -1} }

// open opens the journal in "j" and replays it into a list of seqs.
func open(t testing.TB, fs vfs.FS, opts Options) (*Journal, []uint64) {
	t.Helper()
	j, seqs, err := tryOpen(fs, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j, seqs
}

func tryOpen(fs vfs.FS, opts Options) (*Journal, []uint64, error) {
	return tryOpenWith(fs, opts, func(e *Entry) error {
		if want := testEntry(e.Seq); string(e.Effects) != string(want.Effects) {
			return fmt.Errorf("entry %d has effects %q", e.Seq, e.Effects)
		}
		return nil
	})
}

func tryOpenWith(fs vfs.FS, opts Options, check func(e *Entry) error) (*Journal, []uint64, error) {
	j, err := Open(fs, "j", opts)
	if err != nil {
		return nil, nil, err
	}
	var seqs []uint64
	err = j.Replay(func(_ Offset, e *Entry) error {
		seqs = append(seqs, e.Seq)
		return check(e)
	})
	if err != nil {
		return nil, nil, errors.Join(err, j.Close())
	}
	return j, seqs, nil
}

// testEntry is the entry that tests write at seq: from its effects one can tell
// that it is whole.
func testEntry(seq uint64) *Entry {
	effects := fmt.Appendf(nil, "effects of %d ", seq)
	for i := uint64(0); i < seq*31%97; i++ {
		effects = append(effects, byte(seq+i))
	}
	return &Entry{DB: 7, Epoch: 3, Seq: seq, TimeMS: 1700000000000 + int64(seq), Origin: Origin{seq << 40, uint32(seq)}, Effects: effects}
}

func appendSeq(j *Journal, seq uint64) Offset { return j.Append(AppendEntry(nil, testEntry(seq))) }

// wantSeqs fails unless seqs is first, first+1 … last.
func wantSeqs(t testing.TB, seqs []uint64, first, last uint64) {
	t.Helper()
	if uint64(len(seqs)) != last+1-first {
		t.Fatalf("%d entries replayed, want %d to %d", len(seqs), first, last)
	}
	for i, seq := range seqs {
		if seq != first+uint64(i) {
			t.Fatalf("entry %d has seq %d, want %d", i, seq, first+uint64(i))
		}
	}
}

func TestEntriesComeBackInOrderAfterReopen(t *testing.T) {
	mem := vfs.NewMem()
	next := uint64(1)
	for round := 0; round < 5; round++ {
		j, seqs := open(t, mem, testOptions())
		wantSeqs(t, seqs, 1, next-1)
		for range 300 {
			appendSeq(j, next)
			if next%3 == 0 {
				if err := j.Commit(); err != nil {
					t.Fatal(err)
				}
			}
			next++
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, seqs := open(t, mem, testOptions())
	wantSeqs(t, seqs, 1, next-1)
}
