package tier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	ourfs "vecino/internal/vfs"
)

// After a power cut a tier holds what some number of sessions wrote, those up to
// the last that was synced among them. What was not synced the disk may hold in
// parts.
func TestCrashLeavesAPrefixOfSessions(t *testing.T) {
	const dbs = 3
	for seed := range uint64(16) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			// Pebble's disk keeps blocks of 4 KiB, ours sectors.
			theirs, ours := vfs.NewCrashableMem(), ourfs.NewMem()
			fs, cut := vfs.FS(theirs), func() vfs.FS {
				return theirs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: int(rng.IntN(3) * 50), RNG: rng})
			}
			if seed%2 == 1 {
				fs, cut = Over(ours), func() vfs.FS {
					percent := rng.IntN(3) * 50
					return Over(ours.CrashClone(func() bool { return rng.IntN(100) < percent }))
				}
			}
			opts := Options{BulkBytes: []int{1, 800, 1 << 20}[seed%3], MemBytes: 16 << 10}
			tier := open(t, fs, opts)
			history := []*model{newModel()} // after each session
			synced := 0
			crash := func() {
				after := open(t, cut(), opts)
				defer closeTier(t, after)
				var diffs []string
				for n := len(history) - 1; n >= synced; n-- {
					d, err := history[n].differs(after, dbs)
					if err != nil {
						t.Fatal(err)
					}
					if d == "" {
						if err := after.Check(context.Background()); err != nil {
							t.Fatal(err)
						}
						return
					}
					diffs = append(diffs, fmt.Sprintf("after %d: %s", n, d))
				}
				t.Fatalf("of %d sessions, %d synced, there is no prefix:\n%s", len(history)-1, synced, strings.Join(diffs, "\n"))
			}
			for range 40 {
				m := history[len(history)-1].clone()
				sync := rng.IntN(4) == 0
				if db := rng.Uint64N(dbs); rng.IntN(10) == 0 {
					if err := tier.Drop(db); err != nil {
						t.Fatal(err)
					}
					m.drop(db)
					sync = false
				} else {
					w := tier.Begin(db)
					m.session(w, db, rng, 40)
					bulk := w.bulk != nil
					if err := w.Commit(sync); err != nil {
						t.Fatal(err)
					}
					sync = sync || bulk // tables are always durable
				}
				history = append(history, m)
				if sync {
					synced = len(history) - 1
				}
				if rng.IntN(4) == 0 {
					crash()
				}
			}
			crash()
			closeTier(t, tier)
			synced = len(history) - 1
			crash()
		})
	}
}

// Every call of the file system fails once, in turn. What is told to have worked
// has worked, now and after a restart; what fails says so; and nothing ends the
// process.
func TestEveryCallFailsOnce(t *testing.T) {
	work := func(tier *Tier, rng *rand.Rand, m *model) (history []*model, synced int, err error) {
		history = []*model{m}
		for i := range 8 {
			m = history[len(history)-1].clone()
			w := tier.Begin(1)
			m.session(w, 1, rng, 60)
			bulk := w.bulk != nil
			if err := w.Commit(i%2 == 0); err != nil {
				// It may still be there, when that couldn't be told.
				return append(history, m), synced, err
			}
			history = append(history, m)
			if bulk || i%2 == 0 {
				synced = len(history) - 1
			}
			if i == 5 {
				if err := tier.Flush(); err != nil {
					return append(history, m), synced, err
				}
			}
		}
		return history, synced, nil
	}
	for n := int32(0); ; n++ {
		rng := rand.New(rand.NewPCG(7, 7))
		inner := vfs.NewCrashableMem()
		var calls atomic.Int32
		broke := errors.New("the disk is broken")
		fs := errorfs.Wrap(inner, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && calls.Add(1)-1 == n {
				return broke
			}
			return nil
		}))
		opts := Options{FS: fs, BulkBytes: 900, MemBytes: 16 << 10}
		history, synced := []*model{newModel()}, 0
		tier, err := Open("state/tier", opts)
		if err == nil {
			if history, synced, err = work(tier, rng, newModel()); err != nil {
				committed := len(history) - 2
				if !errors.Is(err, ErrBroken) {
					// Nothing of a session that failed is there, and the next works.
					history[committed].check(t, tier, 2)
					w := tier.Begin(1)
					w.Meta([]byte("again"))
					if err := w.Commit(true); err != nil {
						t.Fatalf("call %d: a session failed, and so did the next: %v", n, err)
					}
					last := history[committed].clone()
					last.metas[1] = "again"
					history = append(history, last)
					synced = len(history) - 1
				} else if tier.Stats().Broken == nil {
					t.Fatalf("call %d: Stats don't say that the tier is broken", n)
				}
			}
			if e := tier.Close(); err == nil && e == nil && calls.Load() <= n {
				return // there are no more calls
			}
		} else if !strings.Contains(err.Error(), "disk is broken") {
			t.Fatalf("call %d: Open = %v", n, err)
		}
		// The process dies; what it gave to the kernel is there. A clone, because a
		// broken tier still holds its files.
		after := open(t, inner.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}), Options{})
		found := false
		var diffs []string
		for i := len(history) - 1; i >= synced && !found; i-- {
			d, err := history[i].differs(after, 2)
			if err != nil {
				t.Fatalf("call %d: %v", n, err)
			}
			found = d == ""
			diffs = append(diffs, d)
		}
		if !found {
			t.Fatalf("call %d failed; of %d sessions, %d synced, there is no prefix:\n%s", n, len(history)-1, synced, strings.Join(diffs, "\n"))
		}
		closeTier(t, after)
	}
}

// A full disk loses nothing: sessions wait or fail, reads go on, and when there
// is room all is as if it had never been full.
func TestFullDiskRecovers(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 3))
		inner := vfs.NewCrashableMem()
		var full atomic.Bool
		var refused atomic.Int32
		hit := make(chan struct{}, 1)
		fs := errorfs.Wrap(inner, errorfs.InjectorFunc(func(op errorfs.Op) error {
			switch op.Kind {
			case errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpReuseForWrite, errorfs.OpLink:
				if full.Load() && refused.Add(1) > int32(seed%4) {
					select {
					case hit <- struct{}{}:
					default:
					}
					return syscall.ENOSPC
				}
			}
			return nil
		}))
		tier, err := Open("state/tier", Options{FS: fs, BulkBytes: []int{1, 1 << 20}[seed%2], MemBytes: 16 << 10})
		if err != nil {
			t.Fatal(err)
		}
		m := newModel()
		write := func() error {
			next := m.clone()
			w := tier.Begin(1)
			next.session(w, 1, rng, 200)
			w.Put(3, 0, []byte("k"), []byte("v"), nil)
			next.recs[string(appendKey(nil, headPrefix, 1, 3, 0, []byte("k")))] = modelRec{head: "v"}
			err := w.Commit(true)
			if err == nil {
				m = next
			}
			return err
		}
		for range 3 {
			if err := write(); err != nil {
				t.Fatal(err)
			}
		}
		full.Store(true)
		done := make(chan error, 1)
		go func() {
			var err error
			for range 5 {
				if e := write(); e != nil {
					err = e
				}
			}
			done <- err
		}()
		<-hit
		// Whatever state it is in, reads work.
		if _, _, found, err := tier.Get(Key{1, 3, 0, []byte("k")}); err != nil || !found {
			t.Fatalf("Get on a full disk = %v, %v", found, err)
		}
		full.Store(false)
		if err := <-done; err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if err := write(); err != nil {
			t.Fatalf("there is room again, but %v", err)
		}
		m.check(t, tier, 2)
		if err := tier.Flush(); err != nil {
			t.Fatal(err)
		}
		if s := tier.Stats(); s.Full || s.Background != nil || s.Broken != nil {
			t.Fatalf("there is room again, but %+v", s)
		}
		closeTier(t, tier)
		tier = open(t, inner, Options{})
		m.check(t, tier, 2)
		closeTier(t, tier)
	}
}

// A flipped bit in any file is reported, or did no harm.
func TestFlippedBitIsReported(t *testing.T) {
	damagePause = time.Millisecond
	defer func() { damagePause = 50 * time.Millisecond }()
	for _, kind := range []string{"closed", "killed"} {
		t.Run(kind, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 4))
			fs := vfs.NewCrashableMem()
			tier := open(t, fs, Options{BulkBytes: 1200, MemBytes: 16 << 10})
			m := newModel()
			for i := range 30 {
				w := tier.Begin(rng.Uint64N(3))
				m.session(w, w.db, rng, 60)
				if err := w.Commit(i == 29); err != nil {
					t.Fatal(err)
				}
			}
			if kind == "closed" {
				closeTier(t, tier)
			}
			image := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
			if kind != "closed" {
				closeTier(t, tier)
			}
			reported, total := make(map[string]int), 0
			files := tree(t, image, "state/tier")
			for _, name := range files {
				data, err := readFile(image, name)
				if err != nil {
					t.Fatal(err)
				}
				step := max(1, len(data)/30)
				if filepath.Base(name) == stateName {
					data, step = data[:stateHead], 1
				}
				for at := rng.IntN(step); at < len(data); at += step {
					bit := byte(1) << rng.IntN(8)
					clone := image.CrashClone(vfs.CrashCloneCfg{})
					f, err := clone.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := f.WriteAt([]byte{data[at] ^ bit}, int64(at)); err != nil {
						t.Fatal(err)
					}
					f.Close()
					total++
					d, err := contentOrDamage(clone, m)
					if d != "" {
						t.Errorf("%s: bit %#x of byte %d of %d flipped: %s", name, bit, at, len(data), d)
					}
					if err != nil {
						reported[strings.TrimRight(filepath.Base(name), "0123456789-")]++
						reported[filepath.Ext(name)]++
						var damage *DamageError
						if !errors.As(err, &damage) {
							t.Errorf("%s: bit %#x of byte %d of %d flipped: reported as %v", name, bit, at, len(data), err)
						}
					}
				}
			}
			t.Logf("of %d flipped bits in %d files were reported, by kind of file: %v; the others did no harm", total, len(files), reported)
			want := []string{".sst", "MANIFEST", "TIER"}
			if kind == "killed" {
				want = append(want, ".log")
			}
			for _, file := range want {
				if reported[file] == 0 {
					t.Errorf("no flipped bit of %s was reported", file)
				}
			}
		})
	}
}

// Pebble's OPTIONS have no checksum, and some of its complaints about them are
// about the caller's options: they are damage, too, and name the file.
func TestDamagedOptionsAreNamed(t *testing.T) {
	fs := vfs.NewMem()
	closeTier(t, open(t, fs, Options{}))
	var name string
	for _, file := range tree(t, fs, "state/tier") {
		if strings.HasPrefix(filepath.Base(file), "OPTIONS") {
			name = file
		}
	}
	sound, err := readFile(fs, name)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		if err == nil {
			_, err = f.Write([]byte(text))
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ old, new string }{
		{"  comparer=l", "  comparer=m"},
		{"  merger=p", "  merger=q"},
		{"  wal_dir=\n", "  wal_dir=*"},
		{"  wal_dir=", "  wal_dir5"},
		{"[Options]", "[Options}"},
	} {
		b := strings.Replace(string(sound), c.old, c.new, 1)
		if b == string(sound) {
			t.Fatalf("%s has no %q:\n%s", name, c.old, sound)
		}
		write(b)
		_, err := Open("state/tier", Options{FS: fs})
		var damage *DamageError
		if !errors.As(err, &damage) || damage.File != name {
			t.Errorf("%q for %q: Open says %v", c.new, c.old, err)
		}
	}
	write(string(sound))
	closeTier(t, open(t, fs, Options{}))
}

// contentOrDamage opens a tier and reads it all.
func contentOrDamage(fs vfs.FS, m *model) (differs string, err error) {
	tier, err := Open("state/tier", Options{FS: fs})
	if err != nil {
		return "", err
	}
	defer tier.Close()
	if differs, err = m.differs(tier, 3); err != nil || differs != "" {
		return differs, err
	}
	return "", tier.Check(context.Background())
}

func tree(t *testing.T, fs vfs.FS, dir string) (files []string) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		name = fs.PathJoin(dir, name)
		info, err := fs.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			files = append(files, tree(t, fs, name)...)
		} else if info.Size() > 0 {
			files = append(files, name)
		}
	}
	return files
}
