package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vecino/catalog"
	"vecino/internal/vfs"
)

func TestEverySecondWhatWasCommittedIsSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		var told []Offset
		opts := Options{SegmentBytes: testSegment, OnSync: func(off Offset) { told = append(told, off) }}
		j, _ := open(t, mem, opts)
		onDisk := func() int {
			seqs, _, err := walkSeqs(mem.CrashClone(nil))
			if err != nil {
				t.Fatal(err)
			}
			return len(seqs)
		}
		appendSeq(j, 1)
		if err := j.Commit(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		if onDisk() != 0 {
			t.Fatal("synced too early: the test can't tell")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if onDisk() != 1 || len(told) != 1 {
			t.Fatalf("after a second %d entries are on disk, OnSync called with %v", onDisk(), told)
		}

		// An idle journal leaves the disk alone, but for a word that all is well.
		tail := j.Tail()
		syncs := j.Stats().Syncs
		time.Sleep(time.Hour)
		synctest.Wait()
		if st := j.Stats(); st.Syncs != syncs || st.Tail != tail || st.Commits != 2 {
			t.Fatalf("idle for an hour: %d syncs more, %d bytes more, %d commits", st.Syncs-syncs, st.Tail-tail, st.Commits)
		}
		fl := readFiles(t, mem)
		name := strings.TrimPrefix(j.mu.segments[0].name, "j/")
		fl[name][headerBytes+frameHead+20] ^= 1
		if _, _, err := walkSeqs(fl.fs(t)); !errors.Is(err, ErrDamaged) {
			t.Fatalf("the last entry of an idle journal is damaged: %v", err)
		}

		// Appended and not committed: the same goroutine sees to it.
		appendSeq(j, 2)
		time.Sleep(time.Second)
		synctest.Wait()
		if onDisk() != 2 {
			t.Fatalf("%d entries on disk", onDisk())
		}

		// And it can be had at once.
		appendSeq(j, 3)
		if err := j.Commit(); err != nil {
			t.Fatal(err)
		}
		j.KickSync()
		j.KickSync()
		synctest.Wait()
		if onDisk() != 3 || told[len(told)-1] != j.Synced() {
			t.Fatalf("after a kick %d entries are on disk, told %v", onDisk(), told)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Many goroutines append, commit and wait for syncs at once.
func TestConcurrentWritersShareWritesAndSyncs(t *testing.T) {
	mem := vfs.NewMem()
	j, _ := open(t, mem, testOptions())
	const writers, each = 8, 200
	var wg sync.WaitGroup
	for w := range uint64(writers) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(w, 0))
			var raw []byte
			for i := range uint64(each) {
				raw = AppendEntry(raw[:0], &Entry{DB: catalog.ID(w), Epoch: 1, Seq: i + 1, Effects: make([]byte, r.IntN(200))})
				off := j.Append(raw)
				var err error
				switch r.IntN(3) {
				case 0:
					err = j.CommitSync(off)
					if err == nil && j.Synced() <= off {
						err = fmt.Errorf("entry at %d is not on disk, only %d is", off, j.Synced())
					}
				case 1:
					err = j.Commit()
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			if _, err := j.Read(0, func(Offset, []byte, *Entry) error { return nil }); err != nil {
				t.Error(err)
			}
			if err := j.TrimBefore(1); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	last := map[catalog.ID]uint64{}
	_, err := walk(mem.CrashClone(nil), "j", func(_ *segment, _ Offset, _ []byte, e *Entry) error {
		if e.Seq != last[e.DB]+1 {
			return fmt.Errorf("database %d: %d follows %d", e.DB, e.Seq, last[e.DB])
		}
		last[e.DB] = e.Seq
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for w := range catalog.ID(writers) {
		if last[w] != each {
			t.Errorf("writer %d ends at %d", w, last[w])
		}
	}
}

func TestWritersThatWaitShareOneSync(t *testing.T) {
	mem := vfs.NewMem()
	gate := make(chan struct{})
	var waiting bool
	fs := vfs.Hooked(mem, func(op vfs.Op, _ string) error {
		if op == vfs.OpSync && waiting {
			<-gate
		}
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		gate = make(chan struct{})
		j, _ := open(t, fs, testOptions())
		waiting = true
		var wg sync.WaitGroup
		for seq := range uint64(64) {
			wg.Go(func() {
				if err := j.CommitSync(appendSeq(j, seq+1)); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // one syncs, all others wait
		close(gate)
		wg.Wait()
		if n := j.Stats().Syncs; n > 2 {
			t.Fatalf("64 writers took %d syncs", n)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A journal that is synced often goes over to segments whose room was filled, and
// no power cut takes that for entries or entries for it.
func TestSegmentsThatAreSyncedOftenAreFilled(t *testing.T) {
	mem := vfs.NewMem()
	opts := testOptions()
	opts.SegmentBytes = 1 << 18 // half of it takes longer to be full than it takes to see that it pays
	j, _ := open(t, mem, opts)
	current := func() *segment {
		j.mu.Lock()
		defer j.mu.Unlock()
		for j.mu.preparing {
			j.mu.changed.Wait()
		}
		return j.mu.segments[len(j.mu.segments)-1]
	}
	first := current()
	if first.filled {
		t.Error("filled, though nobody has asked for a sync")
	}
	r := rand.New(rand.NewPCG(3, 0))
	seq, left := uint64(0), false
	for range 60 * paysAfter {
		seq++
		off := appendSeq(j, seq)
		if err := j.CommitSync(off); err != nil {
			t.Fatal(err)
		}
		s := current()
		if s != first && !s.filled {
			t.Fatalf("segment %d isn't filled", s.number)
		}
		if s != first && !left {
			left = true
			if end := first.place(first.end); end > opts.SegmentBytes/2 {
				t.Errorf("the first segment was left at %d only", end)
			}
		}
		if seq%250 == 0 {
			appendSeq(j, seq+1)
			if err := j.Commit(); err != nil {
				t.Fatal(err)
			}
			seq++
			_, seqs := open(t, mem.CrashClone(func() bool { return r.IntN(2) == 0 }), opts)
			if n := uint64(len(seqs)); n < seq-1 {
				t.Fatalf("%d of %d entries", n, seq)
			}
			wantSeqs(t, seqs, 1, uint64(len(seqs)))
		}
	}
	if !left {
		t.Error("never in a filled segment")
	}
}

func TestSyncCountsOnlyWhatWasWrittenBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		hold := false
		mem := vfs.NewMem()
		j, _ := open(t, vfs.Hooked(mem, func(op vfs.Op, _ string) error {
			if op == vfs.OpWrite && hold {
				<-gate
			}
			return nil
		}), testOptions())
		first := appendSeq(j, 1)
		if err := j.Commit(); err != nil {
			t.Fatal(err)
		}
		hold = true
		second := appendSeq(j, 2)
		done := make(chan error)
		go func() { done <- j.Commit() }()
		synctest.Wait() // it is writing
		if err := j.CommitSync(first); err != nil {
			t.Fatal(err)
		}
		if j.Synced() > second {
			t.Fatal("what is being written is called synced")
		}
		close(gate)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := j.CommitSync(second); err != nil {
			t.Fatal(err)
		}
		_, seqs := open(t, mem.CrashClone(nil), testOptions())
		wantSeqs(t, seqs, 1, 2)
	})
}

func TestReadFromEachOffset(t *testing.T) {
	mem, j, last := threeSegments(t)
	type item struct {
		off Offset
		seq uint64
	}
	var all []item
	next, err := j.Read(j.Stats().First, func(off Offset, raw []byte, e *Entry) error {
		if d, n, err := DecodeEntry(raw); err != nil || n != len(raw) || d.Seq != e.Seq {
			return fmt.Errorf("raw bytes of %d: %w", e.Seq, err)
		}
		all = append(all, item{off, e.Seq})
		return nil
	})
	if err != nil || next != j.Tail() || all[len(all)-1].seq != last {
		t.Fatalf("read to %d of %d, %v", next, j.Tail(), err)
	}
	check := func(j *Journal) {
		for i, it := range all {
			var got []uint64
			stop := errors.New("stop")
			next, err := j.Read(it.off, func(_ Offset, _ []byte, e *Entry) error {
				if len(got) == 3 {
					return stop
				}
				got = append(got, e.Seq)
				return nil
			})
			want := min(3, len(all)-i)
			if err != nil && err != stop || len(got) != want || got[0] != it.seq {
				t.Fatalf("from %d: %v, %v; want %d more from %d", it.off, got, err, want, it.seq)
			}
			if err == stop && i+3 < len(all) && next > all[i+3].off {
				t.Fatalf("stopped before %d, but to be continued from %d", all[i+3].off, next)
			}
		}
		if next, err := j.Read(j.Tail()+100, nil); err != nil || next != j.Tail()+100 {
			t.Fatalf("from behind the end: %d, %v", next, err)
		}
	}
	check(j)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Read(0, nil); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	j, _ = open(t, mem, testOptions())
	check(j)
}

func TestReadIsUndisturbedByATrim(t *testing.T) {
	_, j, last := threeSegments(t)
	first := j.Stats().First
	var got []uint64
	_, err := j.Read(first, func(_ Offset, _ []byte, e *Entry) error {
		if len(got) == 0 {
			if err := j.TrimBefore(j.Tail()); err != nil {
				return err
			}
			if j.Stats().Segments != 1 {
				t.Fatal("nothing trimmed")
			}
		}
		got = append(got, e.Seq)
		return nil
	})
	// The segment being read is read to its end; those behind it are gone.
	if err == nil || !errors.Is(err, ErrTrimmed) || len(got) < 20 || got[len(got)-1] == last {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	wantSeqs(t, got, got[0], got[len(got)-1])
	if _, err := j.Read(first, nil); !errors.Is(err, ErrTrimmed) {
		t.Fatal(err)
	}
}

func TestTrimKeepsWhatIsNotBeforeTheOffset(t *testing.T) {
	mem, j, last := threeSegments(t)
	var offs []Offset
	var seqs []uint64
	if _, err := j.Read(j.Stats().First, func(off Offset, _ []byte, e *Entry) error {
		offs, seqs = append(offs, off), append(seqs, e.Seq)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(offs); i += 5 {
		if err := j.TrimBefore(offs[i]); err != nil {
			t.Fatal(err)
		}
		left, _, err := walkSeqs(mem.CrashClone(nil))
		if err != nil || left[0] > seqs[i] || left[len(left)-1] != last {
			t.Fatalf("trimmed before %d: %d to %d are left, %v", seqs[i], left[0], left[len(left)-1], err)
		}
	}
	if st := j.Stats(); st.Segments != 1 || st.Spare != 2 {
		t.Fatalf("%+v", st)
	}
	names, err := mem.List("j")
	if err != nil || len(names) > 4 { // the current one, a prepared one and two spares
		t.Fatal(names, err)
	}
}

func TestEntryLargerThanASegment(t *testing.T) {
	mem := vfs.NewMem()
	j, _ := open(t, mem, testOptions())
	big := bytes.Repeat([]byte("big"), 3*testSegment)
	put := func(j *Journal, seq uint64, effects []byte) Offset {
		return j.Append(AppendEntry(nil, &Entry{DB: 1, Epoch: 1, Seq: seq, Effects: effects}))
	}
	put(j, 1, []byte("small"))
	if err := j.Commit(); err != nil {
		t.Fatal(err)
	}
	put(j, 2, big)
	put(j, 3, []byte("small"))
	if err := j.Commit(); err != nil {
		t.Fatal(err)
	}
	put(j, 4, big)
	off := put(j, 5, []byte("small"))
	if err := j.CommitSync(off); err != nil {
		t.Fatal(err)
	}
	check := func(fs vfs.FS) {
		var sizes []int
		if _, err := walk(fs, "j", func(_ *segment, _ Offset, _ []byte, e *Entry) error {
			sizes = append(sizes, len(e.Effects))
			return nil
		}); err != nil || !slices.Equal(sizes, []int{5, len(big), 5, len(big), 5}) {
			t.Fatal(sizes, err)
		}
	}
	check(mem.CrashClone(nil))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, _, err := tryOpenWith(mem, testOptions(), func(*Entry) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	check(mem)
	// Used again, the long files get the usual size.
	if err := j.TrimBefore(j.Tail()); err != nil {
		t.Fatal(err)
	}
	for j.Stats().Spare > 0 {
		put(j, 6, make([]byte, 1000))
		if err := j.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for name, b := range readFiles(t, mem) {
		if len(b) > testSegment {
			t.Errorf("%s has %d bytes", name, len(b))
		}
	}
}

func TestOffsetsGrowOverRestartsWithoutEntries(t *testing.T) {
	mem := vfs.NewMem()
	tail := Offset(0)
	for range 10 {
		j, seqs := open(t, mem, testOptions())
		wantSeqs(t, seqs, 1, 0)
		if j.Tail() < tail {
			t.Fatalf("tail goes back from %d to %d", tail, j.Tail())
		}
		tail = j.Tail()
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	names, err := mem.List("j")
	if err != nil || len(names) != 1 {
		t.Fatalf("ten empty restarts leave %v, %v", names, err)
	}

	// And one entry a restart doesn't cost a whole segment each.
	for seq := range uint64(10) {
		j, seqs := open(t, mem, testOptions())
		wantSeqs(t, seqs, 1, seq)
		appendSeq(j, seq+1)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	total := 0
	for _, b := range readFiles(t, mem) {
		total += len(b)
	}
	if total > 10*(headerBytes+1000)+testSegment {
		t.Fatalf("ten restarts with an entry each leave %d bytes", total)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, size := range []int64{1, headerBytes, testSegment + 1, -testSegment} {
		if _, err := Open(vfs.NewMem(), "j", Options{SegmentBytes: size}); err == nil {
			t.Errorf("segments of %d bytes are accepted", size)
		}
	}
}

func TestReplayStopsWhenToldAndMayBeRepeated(t *testing.T) {
	mem, j, last := threeSegments(t)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	before := readFiles(t, mem)
	j, err := Open(mem, "j", testOptions())
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	if err := j.Replay(func(Offset, *Entry) error { return stop }); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if after := readFiles(t, mem); len(after) != len(before) {
		t.Fatal("an interrupted replay has changed files")
	}
	got := uint64(0)
	if err := j.Replay(func(_ Offset, e *Entry) error { got = e.Seq; return nil }); err != nil || got != last {
		t.Fatal(got, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal("second close:", err)
	}
	if err := j.Sync(); err != nil {
		t.Fatal("nothing to sync, but:", err)
	}
	if err := j.Err(); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestAppendBeforeReplayIsABug(t *testing.T) {
	j, err := Open(vfs.NewMem(), "j", testOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() == nil {
			t.Fatal("no panic")
		}
	}()
	appendSeq(j, 1)
}

func TestVerifyAndDump(t *testing.T) {
	mem := vfs.NewMem()
	j, _ := open(t, mem, testOptions())
	hash := map[catalog.ID]uint64{}
	put := func(db catalog.ID, epoch uint32, seq uint64) {
		raw := AppendEntry(nil, &Entry{DB: db, Epoch: epoch, Seq: seq, TimeMS: 1700000000000, Prev: hash[db], Origin: Origin{0xab, 2}, Effects: []byte("secret")})
		hash[db] = Hash(hash[db], raw)
		j.Append(raw)
	}
	put(1, 1, 1)
	put(2, 5, 1)
	put(1, 1, 2)
	put(1, 2, 9) // a new epoch may skip
	put(2, 5, 3) // the same one may not
	hash[1]++
	put(1, 2, 10)
	put(2, 4, 4)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Verify(mem, "j")
	if err != nil {
		t.Fatal(err)
	}
	if r.Entries != 7 || r.Databases != 2 || len(r.Segments) != 1 || r.Segments[0].Entries != 7 || r.Cut != nil || r.Tail != r.Segments[0].End {
		t.Fatalf("%+v", r)
	}
	var breaks []string
	for _, b := range r.Breaks {
		breaks = append(breaks, fmt.Sprintf("%d at %d/%d: %s", b.DB, b.Position.Epoch, b.Position.Seq, b.Why))
	}
	want := []string{"2 at 5/3: seq 3 follows 1", "1 at 2/10: it continues another history", "2 at 4/4: epoch 4 follows 5"}
	if !slices.Equal(breaks, want) {
		t.Fatalf("breaks:\n%s", strings.Join(breaks, "\n"))
	}

	var out strings.Builder
	if err := Dump(&out, mem, "j", 0, 1); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	wantLine := "16 0000000000000001.seg:4112 db=1 epoch=1 seq=1 time=2023-11-14T22:13:20.000Z prev=0000000000000000 hash="
	wantEnd := "# the end, at offset 280; before offset 264 all had been synced"
	if len(lines) != 5 || lines[4] != wantEnd || r.OnDisk != 264 || !strings.HasPrefix(lines[0], wantLine) || !strings.HasSuffix(lines[0], "origin=ab/2 effects=6") || strings.Contains(out.String(), "secret") {
		t.Fatal(out.String())
	}
}

// What can't be verified says so, and what is whole of a damaged journal is shown.
func TestVerifyAndDumpOfWhatIsNoGoodJournal(t *testing.T) {
	mem := vfs.NewMem()
	if err := mem.MkdirAll("empty"); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"empty", "absent"} {
		_, err := Verify(mem, dir)
		if dumpErr := Dump(io.Discard, mem, dir, 0, 0); !errors.Is(err, ErrNoJournal) || !errors.Is(dumpErr, ErrNoJournal) || !strings.Contains(err.Error(), "journal-0") {
			t.Errorf("%s: %v, %v", dir, err, dumpErr)
		}
	}

	mem = smallJournal(t, true)
	whole, err := Verify(mem, "j")
	if err != nil || len(whole.Breaks) > 0 {
		t.Fatal(err, whole)
	}
	superseded := 0
	for _, s := range whole.Segments {
		if s.Superseded {
			superseded++
		}
	}
	last := whole.Segments[len(whole.Segments)-2]
	fl := readFiles(t, mem)
	fl[last.Name][headerBytes+frameHead+20] ^= 1
	r, err := Verify(fl.fs(t), "j")
	var damage *DamageError
	if !errors.As(err, &damage) || damage.File != "j/"+last.Name || damage.Offset != last.Start || r.Entries == 0 || r.Entries >= whole.Entries {
		t.Fatalf("%v, %+v", err, r)
	}
	var out strings.Builder
	if err := Dump(&out, fl.fs(t), "j", 0, 0); !errors.As(err, &damage) || strings.Count(out.String(), "\n") != int(r.Entries) {
		t.Fatalf("%v\n%s", err, out.String())
	}
}
