package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"vecino/internal/vfs"
)

// A ledger is what a program knows of the entries that it has written, all by
// their seq.
type ledger struct {
	sync.Mutex
	appended  uint64
	committed uint64 // in the kernel
	synced    uint64 // on disk
	trimmed   uint64 // may be gone
}

func (l *ledger) set(change func()) {
	l.Lock()
	defer l.Unlock()
	change()
}

// check fails unless the replayed seqs are without a hole, reach at least to
// atLeast, and begin where nothing is missed.
func (l *ledger) check(seqs []uint64, atLeast uint64) error {
	if len(seqs) == 0 {
		if atLeast > l.trimmed {
			return fmt.Errorf("nothing replayed, want up to %d", atLeast)
		}
		return nil
	}
	for i, seq := range seqs {
		if seq != seqs[0]+uint64(i) {
			return fmt.Errorf("%d follows %d", seq, seqs[i-1])
		}
	}
	if first, last := seqs[0], seqs[len(seqs)-1]; first > l.trimmed+1 || last < atLeast || last > l.appended {
		return fmt.Errorf("replayed %d to %d; want the first up to %d, the last between %d and %d", first, last, l.trimmed+1, atLeast, l.appended)
	}
	return nil
}

// workload writes, commits, syncs, trims, closes and opens again, enough to go
// through a few segments and to use some again. It stops at the first error.
func workload(fs vfs.FS, l *ledger) error {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3 {
		j, seqs, err := tryOpen(fs, testOptions())
		if err != nil {
			return err
		}
		var checkErr error
		l.set(func() { checkErr = l.check(seqs, l.committed) })
		if checkErr != nil {
			return errors.Join(checkErr, j.Close())
		}
		if err := session(j, l, r); err != nil {
			return errors.Join(err, j.Close())
		}
		if err := j.Close(); err != nil {
			return err
		}
		l.set(func() { l.synced = l.appended })
	}
	return nil
}

// session is the part between open and close.
func session(j *Journal, l *ledger, r *rand.Rand) error {
	var offsets []Offset // of the session's entries
	base := l.appended
	for range 50 {
		for range r.IntN(12) {
			var seq uint64
			l.set(func() { l.appended++; seq = l.appended })
			offsets = append(offsets, appendSeq(j, seq))
		}
		if err := j.Commit(); err != nil {
			return err
		}
		l.set(func() { l.committed = l.appended })
		switch r.IntN(8) {
		case 0:
			if err := j.Sync(); err != nil {
				return err
			}
			l.set(func() { l.synced = l.appended })
		case 1:
			if len(offsets) == 0 {
				continue
			}
			at := r.IntN(len(offsets))
			if err := j.CommitSync(offsets[at]); err != nil {
				return err
			}
			l.set(func() { l.synced = max(l.synced, base+uint64(at)+1) })
		case 2:
			if len(offsets) == 0 {
				continue
			}
			at := r.IntN(len(offsets))
			l.set(func() { l.trimmed = max(l.trimmed, base+uint64(at)) })
			if err := j.TrimBefore(offsets[at]); err != nil {
				return err
			}
			l.set(func() { l.synced = l.appended })
		case 3:
			if err := j.syncBackground(); err != nil {
				return err
			}
			l.set(func() { l.synced = l.appended })
		}
	}
	return nil
}

// Whatever a power cut at any time leaves of what was not synced: all that was
// synced is there, and no entry is without those before it. The journal goes on
// from there, and a second crash doesn't bring back what the first had lost.
func TestPowerCutBeforeEachCall(t *testing.T) {
	for _, mode := range []string{"keeps nothing unsynced", "keeps everything", "keeps anything", "keeps most"} {
		t.Run(mode, func(t *testing.T) {
			mem := vfs.NewMem()
			l := &ledger{}
			var mu sync.Mutex // calls come from the preparer too
			r := rand.New(rand.NewPCG(3, 4))
			keep := map[string]func() bool{
				"keeps nothing unsynced": nil,
				"keeps everything":       func() bool { return true },
				"keeps anything":         func() bool { return r.IntN(2) == 0 },
				"keeps most":             func() bool { return r.IntN(20) != 0 },
			}[mode]
			calls, cuts := 0, 0
			fs := vfs.Hooked(mem, func(op vfs.Op, _ string) error {
				mu.Lock()
				defer mu.Unlock()
				if calls++; op == vfs.OpRead || op == vfs.OpOpen || op == vfs.OpList {
					return nil // these change nothing
				}
				l.Lock()
				defer l.Unlock()
				cut, err := crashTwice(mem.CrashClone(keep), l, keep)
				if err != nil {
					t.Errorf("power cut before call %d, a %s: %v", calls, op, err)
				}
				if cut {
					cuts++
				}
				return err
			})
			if err := workload(fs, l); err != nil {
				t.Fatal(err)
			}
			if calls < 300 || l.trimmed < 100 {
				t.Fatalf("only %d calls, %d entries trimmed: the workload is too small", calls, l.trimmed)
			}
			if mode == "keeps anything" && cuts == 0 {
				t.Fatal("no crash ever left a hole: the test doesn't test")
			}
		})
	}
}

// crashTwice recovers a clone, goes on with it, and recovers a clone of that.
func crashTwice(clone *vfs.Mem, l *ledger, keep func() bool) (cut bool, err error) {
	j, seqs, err := tryOpen(clone, testOptions())
	if err != nil {
		return false, fmt.Errorf("first recovery: %w", err)
	}
	defer j.Close()
	if err := l.check(seqs, l.synced); err != nil {
		return false, fmt.Errorf("first recovery: %w", err)
	}
	last := l.trimmed
	if len(seqs) > 0 {
		last = seqs[len(seqs)-1]
	}
	for seq := last + 1; seq < last+4; seq++ {
		appendSeq(j, seq)
	}
	if err := j.Commit(); err != nil {
		return false, err
	}
	k, again, err := tryOpen(clone.CrashClone(keep), testOptions())
	after := ledger{appended: last + 3, trimmed: l.trimmed}
	if err == nil {
		err = errors.Join(after.check(again, last), k.Close())
	}
	if err != nil {
		return false, fmt.Errorf("second recovery, after %v: %w", j.Recovered().Cut, err)
	}
	return j.Recovered().Cut != nil, nil
}

// Each call in turn fails once. The error comes out, unless it was one that the
// journal may try again by itself, and once the journal is opened anew all is
// there that Commit had taken.
func TestEachCallFailsOnce(t *testing.T) {
	injected := errors.New("injected")
	surfaced := 0
	for n := int64(1); ; n++ {
		mem := vfs.NewMem()
		l := &ledger{}
		var fired atomic.Bool
		hook := vfs.FailNth(n, injected)
		err := workload(vfs.Hooked(mem, func(op vfs.Op, name string) error {
			err := hook(op, name)
			if err != nil {
				fired.Store(true)
			}
			return err
		}), l)
		if err != nil {
			surfaced++
			if !errors.Is(err, injected) {
				t.Fatalf("call %d failed: %v", n, err)
			}
		}
		j, seqs, openErr := tryOpen(mem, testOptions())
		if openErr == nil {
			openErr = errors.Join(l.check(seqs, l.committed), j.Close())
		}
		if openErr != nil {
			t.Fatalf("after call %d had failed with %v: %v", n, err, openErr)
		}
		if !fired.Load() { // there are no more calls
			if surfaced < 150 {
				t.Fatalf("only %d of %d failures came out", surfaced, n)
			}
			return
		}
	}
}

// The same, but the program goes on with the journal that it has, as a node
// does, and the disk loses power later.
func TestFailedCommitIsMadeUpByALaterOne(t *testing.T) {
	injected := errors.New("injected")
	for n := int64(1); n < 200; n++ {
		mem := vfs.NewMem()
		failed := 0
		hook := vfs.FailNth(n, injected)
		armed := false
		fs := vfs.Hooked(mem, func(op vfs.Op, name string) error {
			if armed && (op == vfs.OpWrite || op == vfs.OpPreallocate || op == vfs.OpRename || op == vfs.OpCreate) {
				return hook(op, name)
			}
			return nil
		})
		opts := testOptions()
		j, _ := open(t, fs, opts)
		armed = true
		seq := uint64(0)
		for range 200 {
			for range 5 {
				seq++
				appendSeq(j, seq)
			}
			if err := j.Commit(); err != nil {
				if failed++; !errors.Is(err, injected) || !errors.Is(j.Err(), injected) {
					t.Fatal(err, j.Err())
				}
			}
		}
		if failed > 1 {
			t.Fatalf("one call failed, but %d commits", failed)
		}
		if err := j.Sync(); err != nil || j.Err() != nil {
			t.Fatal(err, j.Err())
		}
		_, seqs := open(t, mem.CrashClone(nil), testOptions())
		wantSeqs(t, seqs, 1, seq)
	}
}

func TestDiskFullAndRoomAgain(t *testing.T) {
	mem := vfs.NewMem()
	var full bool
	var mu sync.Mutex
	fs := vfs.Hooked(mem, func(op vfs.Op, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		if full && (op == vfs.OpWrite || op == vfs.OpPreallocate || op == vfs.OpCreate) {
			return syscall.ENOSPC
		}
		return nil
	})
	setFull := func(f bool) { mu.Lock(); full = f; mu.Unlock() }

	j, _ := open(t, fs, testOptions())
	for seq := uint64(1); seq <= 100; seq++ {
		appendSeq(j, seq)
	}
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	setFull(true)
	for seq := uint64(101); seq <= 110; seq++ {
		off := appendSeq(j, seq)
		if err := j.CommitSync(off); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	if err := j.Err(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal("Err doesn't tell:", err)
	}
	_, seqs := open(t, mem.CrashClone(func() bool { return true }), testOptions())
	// Some of those that Commit was refused for may be whole by chance, which
	// is as good as later: they are first in line. But half an entry is none.
	wantSeqs(t, seqs, 1, max(100, min(uint64(len(seqs)), 109)))
	n := 0
	if _, err := j.Read(0, func(Offset, []byte, *Entry) error { n++; return nil }); err != nil || n != 100 {
		t.Fatalf("a full disk can't be read: %d entries, %v", n, err)
	}
	setFull(false)
	if err := j.syncBackground(); err != nil || j.Err() != nil {
		t.Fatal(err, j.Err())
	}
	_, seqs = open(t, mem.CrashClone(nil), testOptions())
	wantSeqs(t, seqs, 1, 110)
}

// syncFailer is a file system whose n-th sync of a file fails, and which then does
// what kernels do: what that file held unsynced never reaches the disk. That a
// later sync of it would say that all is well is why nobody may ask for one.
type syncFailer struct {
	vfs.FS
	t  *testing.T
	mu sync.Mutex
	n  int // syncs until one fails
}

type syncFailerFile struct {
	vfs.File
	fs     *syncFailer
	failed bool
}

var errInjected = errors.New("injected")

func (f *syncFailer) wrap(file vfs.File, err error) (vfs.File, error) {
	return &syncFailerFile{File: file, fs: f}, err
}

func (f *syncFailer) Create(name string) (vfs.File, error) { return f.wrap(f.FS.Create(name)) }
func (f *syncFailer) OpenRW(name string) (vfs.File, error) { return f.wrap(f.FS.OpenRW(name)) }

func (f *syncFailer) failAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n = n
}

func (f *syncFailerFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.failed {
		f.fs.t.Error("a file is synced again after its sync failed")
	}
	if f.fs.n--; f.fs.n == 0 {
		f.failed = true
		return errInjected
	}
	return f.File.Sync()
}

func TestFailedSyncIsRefusedThenMended(t *testing.T) {
	mem := vfs.NewMem()
	f := &syncFailer{FS: mem, t: t}
	opts := testOptions()
	var told []Offset
	var failures []error
	opts.OnSync = func(off Offset) { told = append(told, off) }
	opts.OnSyncFailed = func(err error) { failures = append(failures, err) }
	j, _ := open(t, f, opts)
	appendSeq(j, 1)
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	off := appendSeq(j, 2)
	f.failAt(1)
	if err := j.Sync(); !errors.Is(err, ErrSyncFailed) || !errors.Is(err, errInjected) || len(failures) != 1 {
		t.Fatal(err, failures)
	}
	for what, err := range map[string]error{"sync": j.Sync(), "wait": j.CommitSync(off), "err": j.Err()} {
		if !errors.Is(err, ErrSyncFailed) {
			t.Errorf("%s after a failed sync: %v", what, err)
		}
	}
	last := appendSeq(j, 3)
	if err := j.Commit(); !errors.Is(err, ErrSyncFailed) {
		t.Errorf("commit after a failed sync: %v", err)
	}
	if err := j.syncBackground(); err != nil || j.Err() != nil {
		t.Fatal(err, j.Err())
	}
	if st := j.Stats(); st.Mended != 1 || told[len(told)-1] != j.Synced() || j.Synced() <= last {
		t.Fatalf("%+v, told %v", st, told)
	}
	_, seqs := open(t, mem.CrashClone(nil), testOptions())
	wantSeqs(t, seqs, 1, 3)
	n := 0
	if _, err := j.Read(0, func(at Offset, _ []byte, e *Entry) error {
		if n++; e.Seq == 2 && at != off || e.Seq != uint64(n) {
			t.Errorf("entry %d is seq %d at %d", n, e.Seq, at)
		}
		return nil
	}); err != nil || n != 3 {
		t.Fatalf("%d entries read, %v", n, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	_, seqs = open(t, mem, testOptions())
	wantSeqs(t, seqs, 1, 3)
}

// The n-th sync fails, for every n, in journals of many segments, and the journal
// goes on. Before each call that follows the power may go; and the program that
// was killed instead finds all that it had committed.
func TestPowerCutAfterAFailedSync(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	most, crossed := 0, 0
	for n := 1; n < 40; n++ {
		mem := vfs.NewMem()
		l := &ledger{}
		f := &syncFailer{t: t}
		whims := rand.New(rand.NewPCG(uint64(n), 9)) // with the ledger's lock: calls come from the preparer too
		f.FS = vfs.Hooked(mem, func(op vfs.Op, name string) error {
			l.Lock()
			defer l.Unlock()
			if op != vfs.OpRead && op != vfs.OpOpen && op != vfs.OpList && whims.IntN(10) == 0 {
				_, err := crashTwice(mem.CrashClone(func() bool { return whims.IntN(2) == 0 }), l, nil)
				if err != nil {
					t.Errorf("sync %d fails, power cut before %s of %s: %v", n, op, name, err)
				}
				k, seqs, err := tryOpen(mem.CrashClone(func() bool { return true }), testOptions())
				if err == nil {
					err = errors.Join(l.check(seqs, l.committed), k.Close())
				}
				if err != nil {
					t.Errorf("sync %d fails, killed before %s of %s: %v", n, op, name, err)
				}
			}
			return nil
		})
		j, _ := open(t, f, testOptions())
		f.failAt(n)
		seq := uint64(0)
		for round := range 40 {
			for range 1 + r.IntN(25) {
				seq++
				l.set(func() { l.appended = seq })
				appendSeq(j, seq)
				if err := j.Commit(); err != nil {
					continue
				}
				l.set(func() { l.committed = seq })
			}
			if round%4 == 0 {
				most = max(most, len(j.mu.segments))
			}
			if r.IntN(3) > 0 {
				continue
			}
			err := j.Sync()
			if err != nil {
				if j.mu.segments[len(j.mu.segments)-1].record.start > j.Synced() {
					crossed++
				}
				err = j.syncBackground()
			}
			if err != nil {
				t.Fatal(err)
			}
			l.set(func() { l.committed, l.synced = seq, seq })
		}
		if off := j.Tail(); n%2 == 0 {
			l.set(func() { l.trimmed = seq })
			if err := j.TrimBefore(off); err != nil && !errors.Is(err, errInjected) {
				t.Fatal(err)
			}
		}
		if err := j.Close(); err != nil && !errors.Is(err, errInjected) {
			t.Fatal(err)
		}
		k, seqs, err := tryOpen(mem, testOptions())
		if err == nil {
			err = errors.Join(l.check(seqs, seq), k.Close())
		}
		if err != nil {
			t.Fatalf("sync %d failed: %v", n, err)
		}
	}
	if most < 4 || crossed < 3 {
		t.Fatalf("%d segments at most, %d failures over several: too small", most, crossed)
	}
}

// What the kernel has dropped can't be written again: then the journal says so
// and takes nothing.
func TestFailedSyncThatCannotBeMended(t *testing.T) {
	mem := vfs.NewMem()
	f := &syncFailer{FS: mem, t: t}
	j, _ := open(t, f, testOptions())
	appendSeq(j, 1)
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	off := appendSeq(j, 2)
	f.failAt(1)
	if err := j.Sync(); err == nil {
		t.Fatal("it doesn't fail")
	}
	s := j.mu.segments[0]
	file, err := mem.OpenRW(s.name)
	if err == nil {
		_, err = file.WriteAt([]byte{0xff}, s.place(off)+20)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := j.syncBackground(); !errors.Is(err, ErrSyncFailed) || !errors.Is(j.Err(), ErrSyncFailed) {
		t.Fatal(err, j.Err())
	}
	if err := j.Close(); !errors.Is(err, ErrSyncFailed) {
		t.Fatal(err)
	}
	_, seqs := open(t, mem.CrashClone(nil), testOptions())
	wantSeqs(t, seqs, 1, 1)
}

// When no segment can be prepared, Err refuses in time, before anything fails;
// and it takes the preparation alone to have it say that there is room again.
func TestNoRoomIsToldBeforeAnythingFails(t *testing.T) {
	mem := vfs.NewMem()
	var full atomic.Bool
	fs := vfs.Hooked(mem, func(op vfs.Op, _ string) error {
		if full.Load() && (op == vfs.OpPreallocate || op == vfs.OpCreate) {
			return syscall.ENOSPC
		}
		return nil
	})
	j, _ := open(t, fs, testOptions())
	full.Store(true)
	seq := uint64(0)
	for ; j.Err() == nil; seq++ {
		appendSeq(j, seq+1)
		if err := j.Commit(); err != nil {
			t.Fatalf("after %d entries: %v", seq, err)
		}
		j.mu.Lock()
		for j.mu.preparing {
			j.mu.changed.Wait()
		}
		j.mu.Unlock()
	}
	if err := j.Err(); !errors.Is(err, syscall.ENOSPC) || seq < 50 {
		t.Fatalf("after %d entries: %v", seq, err)
	}
	if err := errors.Join(j.Sync(), j.syncBackground()); err != nil {
		t.Fatal(err)
	}
	full.Store(false)
	if err := j.syncBackground(); err != nil || j.Err() != nil {
		t.Fatal(err, j.Err())
	}
	_, seqs := open(t, mem.CrashClone(nil), testOptions())
	wantSeqs(t, seqs, 1, seq)
}

// A process dies, its data still only in the kernel. The next one builds on it
// and syncs: then that is on disk too.
func TestWhatRecoveryFoundIsSyncedWithWhatFollows(t *testing.T) {
	mem := vfs.NewMem()
	dead, _ := open(t, mem, testOptions())
	for seq := uint64(1); seq <= 200; seq++ {
		appendSeq(dead, seq)
	}
	if err := dead.Commit(); err != nil {
		t.Fatal(err)
	}
	j, seqs := open(t, mem.CrashClone(func() bool { return true }), testOptions())
	wantSeqs(t, seqs, 1, 200)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}

	j, seqs = open(t, mem, testOptions()) // dead has not closed it
	wantSeqs(t, seqs, 1, 200)
	if err := j.CommitSync(appendSeq(j, 201)); err != nil {
		t.Fatal(err)
	}
	_, seqs = open(t, mem.CrashClone(nil), testOptions())
	wantSeqs(t, seqs, 1, 201)
}

// Recovery from a hole gives up segments. If the power goes again on the way,
// the next recovery comes to the same result.
func TestPowerCutDuringRecovery(t *testing.T) {
	mem := vfs.NewMem()
	j, _ := open(t, mem, testOptions())
	for seq := uint64(1); j.Stats().Segments < 5; seq++ {
		appendSeq(j, seq)
		if err := j.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	disk := readFiles(t, mem)
	clear(disk[segmentName(1)][testSegment/2:]) // never reached it
	fs := disk.fs(t)
	want, h, err := walkSeqs(fs)
	if err != nil || h.cut == nil || len(h.lost) < 4 || len(want) == 0 {
		t.Fatalf("%d entries, %+v, %v", len(want), h, err)
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 30 {
		fs := disk.fs(t)
		calls := 0
		hooked := vfs.Hooked(fs, func(op vfs.Op, name string) error {
			calls++
			clone := fs.CrashClone(func() bool { return r.IntN(2) == 0 })
			got, _, err := walkSeqs(clone)
			if err == nil {
				_, got, err = tryOpen(clone, testOptions())
			}
			if err != nil || len(got) != len(want) {
				t.Fatalf("power cut before call %d, %s %s: %d of %d entries, %v", calls, op, name, len(got), len(want), err)
			}
			return nil
		})
		j, seqs, err := tryOpen(hooked, testOptions())
		if err != nil || len(seqs) != len(want) {
			t.Fatal(len(seqs), err)
		}
		if got := j.Recovered(); got.Cut == nil || got.Cut.Frames == 0 || got.Tail != h.tail {
			t.Fatalf("%+v", got)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
