package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vecino/api"
	"vecino/catalog"
	"vecino/engine"
	"vecino/internal/vfs"
	"vecino/journal/snapshot"
	"vecino/keyspace"
	"vecino/tier"
)

// recoverOn is what a start would find on a disk: where the database's history
// stands and all that it holds.
func recoverOn(t *testing.T, was *Node, fs vfs.FS, id catalog.ID) (pos catalog.Position, content string) {
	t.Helper()
	n := &Node{cfg: was.cfg, log: slog.New(slog.DiscardHandler), fs: fs, records: was.records}
	n.saver = newCheckpointer(n)
	n.mu.byAddr, n.mu.byID = make(map[address]catalog.ID), make(map[catalog.ID]*placed)
	n.mu.bedroom.sleepers = make(map[catalog.ID]sleeper)
	n.keeper = newKeeper(n, 64<<20)
	var err error
	if n.store, err = openStore(n, n.keeper.budget); err != nil {
		t.Fatal(err)
	}
	n.fetcher = newFetcher(n, 1)
	for i := range n.cfg.Loops {
		s, err := newShard(n, i)
		if err != nil {
			t.Fatal(err)
		}
		n.shards = append(n.shards, s)
	}
	defer func() {
		n.fetcher.close()
		for _, s := range n.shards {
			s.close()
		}
		if err := n.store.close(); err != nil {
			t.Fatal(err)
		}
	}()
	if err := n.recover(); err != nil {
		t.Fatal(err)
	}
	s := n.shardOf(id)
	r := s.recovered[id]
	if r == nil {
		sl, ok := n.takeSleeper(id)
		if !ok {
			return pos, "" // nothing at all
		}
		r = &recovered{m: meta{from: sl.pos}, pos: sl.pos, hash: sl.hash, clock: sl.clock, complete: sl.complete}
	}
	if r.lost != nil {
		t.Fatal(r.lost)
	}
	if r.db == nil || r.db.State() == engine.Asleep {
		r.db = nil
		if err := s.loadRecovered(id, r); err != nil {
			t.Fatal(err)
		}
	}
	if pos = r.db.Position(); !pos.Covers(r.complete) {
		t.Fatalf("it stands at %v, and is only exact at %v", pos, r.complete)
	}
	return pos, contentOf(t, n, r.db)
}

// A checkpoint is made while the database changes, and at each step of it the
// power is cut, or the process is killed. What is found is the database as it was
// after some write; after a kill, after the last that was answered.
func TestCheckpointThatIsCutShortAnywhere(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			mem := vfs.NewMem()
			type image struct {
				disk     *vfs.Mem
				answered uint64
				killed   bool
				at       string
			}
			var mu sync.Mutex // guards what follows; who finds it taken is a step of a write made here
			var images []image
			var armed bool
			var write func()
			var answered uint64
			n := startOn(t, vfs.Hooked(mem, func(op vfs.Op, name string) error {
				if !mu.TryLock() {
					return nil
				}
				defer mu.Unlock()
				if !armed {
					return nil
				}
				// A third of the steps: there are hundreds, and each is recovered from.
				switch at := fmt.Sprint(op, " ", filepath.Base(name)); rng.IntN(9) {
				case 0:
					images = append(images, image{mem.CrashClone(func() bool { return true }), answered, true, at})
				case 1:
					images = append(images, image{mem.CrashClone(nil), answered, false, at})
				case 2:
					images = append(images, image{mem.CrashClone(func() bool { return rng.IntN(2) == 0 }), answered, false, at})
				}
				if strings.Contains(name, "tier") && rng.IntN(2) == 0 {
					// Not under the journal's feet: it is not the loop that waits here.
					write()
				}
				return nil
			}), catalog.SyncEverySec)
			cl := dialNode(t, n.Addr())
			p := n.find(1)
			history := make(map[uint64]uint64) // after each write, the hash of the content
			note := func() {
				p.Engine.Lock()
				answered = p.Engine.Position().Seq
				p.Engine.Unlock()
				history[answered] = sum(contentOf(t, n, p.Engine))
			}
			write = func() {
				key := fmt.Sprint(rng.IntN(60))
				switch rng.IntN(12) {
				case 9:
					cl.do("HSET", "bigh", fmt.Sprint(rng.IntN(400)), strings.Repeat("v", rng.IntN(2000)))
				case 10:
					cl.do("ZADD", "bigz", fmt.Sprint(rng.IntN(99)), key+strings.Repeat("m", rng.IntN(300)))
					cl.do("ZREMRANGEBYRANK", "bigz", "300", "-1")
				case 11:
					cl.do("RPUSH", "bigl", strings.Repeat("x", rng.IntN(2000)))
					cl.do("LINSERT", "bigl", "BEFORE", "anchor", strings.Repeat("y", rng.IntN(2000)))
				case 0:
					cl.do("DEL", "s"+key, "l"+key)
				case 1:
					cl.do("SET", "s"+key, strings.Repeat("v", rng.IntN(600)))
				case 2:
					cl.do("APPEND", "s"+key, strings.Repeat("w", rng.IntN(300)))
				case 3:
					cl.do("RPUSH", "l"+key, strings.Repeat("x", rng.IntN(100)), key)
				case 4:
					cl.do("LPOP", "l"+key)
				case 5:
					cl.do("HINCRBY", "h"+key, fmt.Sprint(rng.IntN(20)), "1")
				case 6:
					cl.do("PEXPIRE", "s"+key, fmt.Sprint(1_000_000+rng.IntN(1000)))
				case 7:
					cl.do("ZADD", "z"+key, fmt.Sprint(rng.IntN(99)), fmt.Sprint(rng.IntN(50)))
				case 8:
					if rng.IntN(10) == 0 {
						cl.do("FLUSHDB")
					} else {
						cl.do("INCR", "n"+key)
					}
				}
				note()
			}
			p.Engine.Lock()
			p.Engine.Keyspace().KeepApart()
			p.Engine.Unlock()
			for i := range 300 { // what is stored in parts
				field := fmt.Sprint(i)
				cl.do("HSET", "bigh", field, strings.Repeat("v", 500))
				cl.do("ZADD", "bigz", field, field+strings.Repeat("m", 100))
				cl.do("RPUSH", "bigl", strings.Repeat("x", 500))
			}
			cl.do("RPUSH", "bigl", "anchor")
			note()
			arm := func(on bool) {
				mu.Lock()
				armed = on
				mu.Unlock()
			}
			defer arm(false)
			for round := range 5 {
				for range 60 {
					write()
				}
				large := 100
				if round == 1 || round == 4 {
					large = 4000 // so that they are written as tables
				}
				for k := range 20 {
					cl.do("SET", fmt.Sprint("s", k), strings.Repeat("large", large))
					note()
				}
				arm(true)
				if round == 3 {
					// Values leave memory: single keys are written and let go, unless what
					// is written meanwhile has changed or deleted them all.
					for tries := 0; !offload(t, n, p); tries++ {
						if tries == 10 {
							t.Fatal("nothing left memory: the test doesn't test")
						}
						mu.Lock()
						write()
						mu.Unlock()
					}
				} else if err := n.saver.save(context.Background(), p); err != nil {
					t.Fatal(err)
				}
				arm(false)
				n.saver.round(context.Background())
			}
			t.Logf("%d images", len(images))
			for _, i := range images {
				pos, got := recoverOn(t, n, i.disk, 1)
				want, known := history[pos.Seq]
				switch {
				case pos.Seq > i.answered+1 || i.killed && pos.Seq < i.answered:
					t.Fatalf("at %q (killed %v): recovered to write %d, %d were answered", i.at, i.killed, pos.Seq, i.answered)
				case known && sum(got) != want:
					t.Fatalf("at %q (killed %v): after write %d the content is another, of %d bytes", i.at, i.killed, pos.Seq, len(got))
				}
			}
			if len(images) < 30 {
				t.Errorf("only %d images: the test doesn't test", len(images))
			}
		})
	}
}

// meddler is a context that does something each time that somebody asks whether it has
// ended.
type meddler struct {
	context.Context
	do func()
}

func (m meddler) Err() error {
	m.do()
	return nil
}

// Fields go while the parts are written that they were in, after all records have been
// looked at. Whoever recovers from that takes it that they may be gone already.
func TestASweepEndsWhenItsLastPartIsWritten(t *testing.T) {
	mem := vfs.NewMem()
	n := startOn(t, mem, catalog.SyncEverySec)
	cl := dialNode(t, n.Addr())
	const fields = 4000
	for i := range fields {
		cl.do("HSET", "h", fmt.Sprint(i), strings.Repeat("v", 300))
	}
	p := n.find(1)
	turns := 0
	meddle := func() {
		turns++
		for i := range 20 {
			cl.do("HDEL", "h", fmt.Sprint((20*turns+i)%fields))
		}
	}
	if err := n.saver.save(meddler{t.Context(), meddle}, p); err != nil {
		t.Fatal(err)
	}
	if turns < 5 {
		t.Fatalf("written in %d turns: the test doesn't test", turns)
	}
	want := contentOf(t, n, p.Engine)
	if _, got := recoverOn(t, n, mem.CrashClone(func() bool { return true }), 1); got != want {
		t.Errorf("recovered are %d bytes, were %d", len(got), len(want))
	}
}

// A large collection is written once, and then what changes of it; it leaves memory
// and comes back, and when it goes nothing stays.
func TestALargeCollectionIsStoredInParts(t *testing.T) {
	const fields = 20000
	for name, kind := range map[string]struct{ fill, change, look, want []string }{
		"hash": {[]string{"HSET", "k", "field %d", "value of %d"}, []string{"HSET", "k", "field 77", "changed"}, []string{"HGET", "k", "field 77"}, []string{`"changed"`}},
		"set":  {[]string{"SADD", "k", "a member of the set: %d"}, []string{"SREM", "k", "a member of the set: 77"}, []string{"SCARD", "k"}, []string{"(integer) 19999"}},
		"zset": {[]string{"ZADD", "k", "%d", "a member of the sorted set: %d"}, []string{"ZINCRBY", "k", "0.5", "a member of the sorted set: 77"}, []string{"ZRANGEBYSCORE", "k", "77.5", "77.5"}, []string{`1) "a member of the sorted set: 77"`}},
		"list": {[]string{"RPUSH", "k", "an element of the list: %d"}, []string{"LSET", "k", "77", "changed"}, []string{"LINDEX", "k", "77"}, []string{`"changed"`}},
	} {
		t.Run(name, func(t *testing.T) {
			n := startOn(t, vfs.NewMem(), catalog.SyncEverySec)
			cl := dialNode(t, n.Addr())
			p := n.find(1)
			for i := range fields {
				var args []string
				for _, a := range kind.fill {
					args = append(args, strings.ReplaceAll(a, "%d", fmt.Sprint(i)))
				}
				cl.do(args...)
			}
			parts := func() int64 {
				before := n.store.tier.Stats().Parts
				if err := n.saver.save(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				return n.store.tier.Stats().Parts - before
			}
			if got := parts(); got < 5 {
				t.Fatalf("%d parts were written", got)
			}
			cl.do(kind.change...)
			if got := parts(); got != 1 {
				t.Errorf("%d parts were written for one change", got)
			}
			p.Engine.Lock()
			ks := p.Engine.Keyspace()
			p.Engine.Offload(0, ks.Hash([]byte("k")), []byte("k"), p.Engine.Position().Seq)
			cold := ks.IsCold(0, []byte("k"))
			p.Engine.Unlock()
			if !cold {
				t.Fatal("it stays in memory")
			}
			before := n.fetcher.fetchedBytes.Load()
			if got := cl.do(kind.look...); got != kind.want[0] {
				t.Errorf("%q answers %s", kind.look, got)
			}
			if came := n.fetcher.fetchedBytes.Load() - before; name != "zset" && came > 200<<10 {
				t.Errorf("%d bytes were read for one element", came)
			}
			cl.do("SET", "other", "1")
			if got := parts(); got != 0 {
				t.Errorf("%d parts were written of what came back from the tier", got)
			}
			cl.do("RENAME", "k", "l")
			if got := parts(); got < 5 {
				t.Errorf("%d parts were written under another name", got)
			}
			cl.do("DEL", "l")
			parts()
			for _, key := range []string{"k", "l"} {
				found, err := n.store.tier.Parts(tier.Key{DB: 1, Hash: ks.Hash([]byte(key)), Key: []byte(key)}, nil)
				if found || err != nil {
					t.Errorf("%q is still in the tier: %v", key, err)
				}
			}
		})
	}
}

func sum(content string) uint64 { return maphash.String(sumSeed, content) }

var sumSeed = maphash.MakeSeed()

// offload writes some keys to the tier by themselves and lets their values go. It
// returns false when none has.
func offload(t *testing.T, n *Node, p *placed) bool {
	t.Helper()
	var some sweptRecords
	err := n.store.session(p, func(s *writing) error {
		p.Engine.Lock()
		for at := (keyspace.Cursor{}); !at.Done(); {
			s.ks.Sweep(&at, 0, 1000, func(r *keyspace.Record) { s.note(some.add(r)) })
		}
		p.Engine.Unlock()
		for i := range some.list {
			if err := s.put(t.Context(), &some.list[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Engine.Lock()
	defer p.Engine.Unlock()
	for i, r := range some.list {
		if i%2 == 0 {
			p.Engine.Offload(r.DB, r.Hash, r.Key, r.Seq)
		}
	}
	if p.IsPrimary() {
		p.Engine.Sink(keyspace.Sinking{Looks: 1000, Part: 0.5, Small: true}, time.Now().UnixMilli())
	}
	cold, _ := p.Engine.Keyspace().Cold()
	return cold > 0
}

// A checkpoint of much leaves the processors to others now and then, but not when there is far more
// journal than should be.
func TestACheckpointRestsUnlessTheJournalIsLong(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes int64
		rests bool
	}{{"short", 64 << 20, true}, {"long", 1, false}} {
		t.Run(c.name, func(t *testing.T) {
			n, err := Start(Config{State: t.TempDir(), Proxy: "127.0.0.1:0", Standalone: true, Loops: 1, SegmentBytes: 1 << 20, CheckpointBytes: c.bytes, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			for i := range 2 {
				dialNode(t, n.Addr()).fill(0, 2000)
				if err := n.store.sweep(t.Context(), n.find(1)); err != nil {
					t.Fatal(err)
				}
				if rested := n.store.rested.Load(); i == 0 && rested != 0 {
					t.Errorf("the first checkpoint of a content rested for %d ns", rested)
				}
			}
			if rested := n.store.rested.Load(); rested > 0 != c.rests || n.store.sweeps.Load() == 0 {
				t.Errorf("it rested for %d ns in %d checkpoints, want any: %v", rested, n.store.sweeps.Load(), c.rests)
			}
		})
	}
}

// A state directory of the time before the tier, with a checkpoint file, is read
// and rewritten.
func TestOldCheckpointFilesMoveToTheTier(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{State: dir, Proxy: "127.0.0.1:0", Standalone: true, Loops: 2, SegmentBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler)}
	start := func() *Node {
		t.Helper()
		n, err := Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	n := start()
	cl := dialNode(t, n.Addr())
	cl.fill(0, 300)
	p := n.find(1)
	// What a node of then would have written.
	p.Engine.Lock()
	h := snapshot.Header{DB: 1, Position: p.Engine.Position(), JournalOffset: p.shard.journal.Tail(), Meta: oldMeta(p, 2)}
	p.Engine.Unlock()
	w, err := snapshot.Create(n.fs, n.snapshotDir(), h)
	if err != nil {
		t.Fatal(err)
	}
	end, err := n.dump(context.Background(), p.Engine, func(b []byte) error { return w.Write(append([]byte{oldRecords}, b...)) })
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(oldEndChunk(end)); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if err := p.shard.journal.TrimBefore(h.JournalOffset); err != nil {
		t.Fatal(err)
	}
	cl.fill(250, 320) // behind the checkpoint
	want, at := contentOf(t, n, p.Engine), position(p)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "tier")); err != nil {
		t.Fatal(err)
	}

	for round := range 3 {
		n = start()
		p = n.find(1)
		awake(t, p)
		if got := contentOf(t, n, p.Engine); got != want || position(p) != at {
			t.Fatalf("round %d: at %v with %d bytes, was at %v with %d", round, position(p), len(got), at, len(want))
		}
		if round == 1 {
			n.saver.round(context.Background())
		}
		if round > 0 {
			if names, err := n.fs.List(n.snapshotDir()); err != nil || len(names) > 0 {
				t.Errorf("round %d: %v is still there (%v)", round, names, err)
			}
			if _, there, err := n.store.meta(1); !there || err != nil {
				t.Errorf("round %d: the tier hasn't got it (%v)", round, err)
			}
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func position(p *placed) catalog.Position {
	p.Engine.Lock()
	defer p.Engine.Unlock()
	return p.Engine.Position()
}

// awake waits until a database is in memory.
func awake(t *testing.T, p *placed) {
	t.Helper()
	told := make(chan error, 1)
	p.Engine.Lock()
	waits := p.Engine.Await(toldBy(func(err error) { told <- err })) != nil
	p.Engine.Unlock()
	if waits {
		if err := <-told; err != nil {
			t.Fatal(err)
		}
	}
}

type toldBy func(err error)

func (f toldBy) Loaded(err error) { f(err) }

// A database of which the journal has nothing newer isn't read at the start. An
// entry that changes no key doesn't wake it, nor is it lost when the journal goes.
func TestDatabaseThatTheTierHoldsSleepsAtTheStart(t *testing.T) {
	mem := vfs.NewMem()
	n := startOn(t, mem, catalog.SyncEverySec)
	cl := dialNode(t, n.Addr())
	cl.fill(0, 50)
	p := n.find(1)
	if err := n.saver.save(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	want := contentOf(t, n, p.Engine)
	saved := position(p)
	again := func(at catalog.Position) {
		t.Helper()
		disk := mem.CrashClone(func() bool { return true })
		if pos, got := recoverOn(t, n, disk, 1); pos != at || got != want {
			t.Errorf("recovered at %v with %d bytes, want %v with %d", pos, len(got), at, len(want))
		}
	}
	again(saved)
	// The first entry of an epoch, while it sleeps.
	p.do(func() {
		p.Engine.Lock()
		defer p.Engine.Unlock()
		if !p.Sleep() {
			t.Fatal("it doesn't sleep")
		}
		if err := p.Engine.OpenEpoch(9, p.Now()); err != nil {
			t.Fatal(err)
		}
	})
	moved := position(p)
	if moved == saved {
		t.Fatal("no entry was made")
	}
	if err := p.shard.journal.Commit(); err != nil {
		t.Fatal(err)
	}
	again(moved)
	if err := n.saver.save(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	p.Engine.Lock()
	if p.Engine.State() != engine.Asleep || p.Engine.FirstUnsaved() != 0 {
		t.Errorf("it is %v, unsaved from %d", p.Engine.State(), p.Engine.FirstUnsaved())
	}
	p.Engine.Unlock()
	again(moved)
	cl.want(`"value of 40"`, "GET", "s40")
}

func FuzzMeta(f *testing.F) {
	m := meta{from: catalog.Position{Epoch: 1, Seq: 2}, end: catalog.Position{Epoch: 3, Seq: 4}, hash: 5, clock: 6, offset: 7, shards: 8, next: 9, keys: 10, used: 11, spaces: []engine.Space{{DB: 3, Keys: 4, Expires: 5}}}
	f.Add(m.encode())
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMeta(b)
		if err == nil && string(m.encode()) != string(b) {
			t.Fatalf("%x read as %+v", b, m)
		}
	})
}

func oldMeta(p *placed, shards uint32) []byte {
	b := binary.LittleEndian.AppendUint64(nil, p.Engine.HistoryHash())
	b = binary.LittleEndian.AppendUint64(b, uint64(p.Engine.Clock()))
	return binary.LittleEndian.AppendUint32(b, shards)
}

func oldEndChunk(p catalog.Position) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{oldEnd}, p.Epoch)
	return binary.LittleEndian.AppendUint64(b, p.Seq)
}

// A fresh copy is made of a database whose values are mostly on disk only, while
// it changes; they don't come into memory by that.
func TestFreshCopyOfValuesThatAreOnDisk(t *testing.T) {
	c := newCluster(t, "mad", "scl")
	db := c.create("mad")
	cl := db.client("mad")
	for i := range 400 {
		cl.want("OK", "SET", fmt.Sprint("large", i), strings.Repeat(fmt.Sprint(i), 200))
	}
	cl.fill(0, 300)
	p := db.up("mad")
	if !offload(t, c.nodes["mad"], p) {
		t.Fatal("nothing left memory: the test doesn't test")
	}
	cold := func() int {
		p.Engine.Lock()
		defer p.Engine.Unlock()
		n, _ := p.Engine.Keyspace().Cold()
		return n
	}
	before := cold()
	if before < 100 {
		t.Fatalf("only %d values are on disk: the test doesn't test", before)
	}
	if _, err := c.api.UpdateDatabase(context.Background(), db.id, api.FleetUpdate{ReplicaRegions: &[]api.Region{"scl"}}); err != nil {
		t.Fatal(err)
	}
	cl.fill(250, 350)
	cl.want("OK", "SET", "large1", "small now")
	cl.want("(integer) 1", "DEL", "large3")
	db.live()
	db.applied("scl", "mad")
	if db.contents("scl") != db.contents("mad") {
		t.Error("the copies differ")
	}
	if after := cold(); after < before-10 {
		t.Errorf("%d values are on disk, there were %d", after, before)
	}
}
