package keyspace

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"vecino/slab"
	"vecino/value"
)

// fakeTier is a tier in a map. What a session does is there when it commits.
type fakeTier struct {
	records map[tierKey]Stored
	staged  []func(map[tierKey]Stored)
	saves   []*value.Save // of this session
}

type tierKey struct {
	db   int
	hash uint64
	key  string
}

func (f *fakeTier) begin(g Graves) {
	f.staged, f.saves = nil, nil
	for db := range g.Flushed() {
		f.staged = append(f.staged, func(m map[tierKey]Stored) {
			maps.DeleteFunc(m, func(k tierKey, _ Stored) bool { return k.db == db })
		})
	}
	for grave := range g.Keys() {
		k := tierKey{grave.DB, grave.Hash, string(grave.Key)}
		f.staged = append(f.staged, func(m map[tierKey]Stored) { delete(m, k) })
	}
}

func (f *fakeTier) put(r *Record) {
	k := tierKey{r.DB, r.Hash, string(r.Key)}
	put := *r
	put.Head, put.Body = bytes.Clone(r.Head), bytes.Clone(r.Body)
	if r.Parts != nil {
		f.saves = append(f.saves, r.Parts)
	}
	// Parts are written when much may have happened to the collection.
	f.staged = append(f.staged, func(m map[tierKey]Stored) { m[k] = m[k].Put(&put) })
}

// abort ends a session that wasn't committed. Of what it would have written some may
// have been made.
func (f *fakeTier) abort() {
	for i, s := range f.saves {
		if i%2 == 0 {
			s.Next(1, func(value.PartID, []byte, bool) {})
		}
		s.Fail()
	}
	f.staged, f.saves = nil, nil
}

func (f *fakeTier) commit() {
	for _, do := range f.staged {
		do(f.records)
	}
	f.staged, f.saves = nil, nil
}

// of are the records of a logical database.
func (f *fakeTier) of(db int) iter.Seq2[string, Stored] {
	return func(yield func(string, Stored) bool) {
		for k, s := range f.records {
			if k.db == db && !yield(k.key, s) {
				return
			}
		}
	}
}

func (f *fakeTier) get(k ColdKey) Stored { return f.records[tierKey{k.DB, k.Hash, string(k.Key)}] }

// copyOnDisk is a copy of a database over a fake tier, and does at random what
// a node does.
type copyOnDisk struct {
	t    *testing.T
	rng  *rand.Rand
	ks   *Keyspace
	tier fakeTier

	since   uint64 // where the last complete sweep began
	born    uint64 // when this keyspace was made
	log     *[][]byte
	session *sweepSession
	loads   []load_   // under way
	sinks   bool      // keys do
	later   []ColdKey // committed, and to be let go when there is time
}

type sweepSession struct {
	graves Graves
	cursor Cursor
	start  uint64
	last   struct {
		db   int
		hash uint64
	}
	swept []ColdKey
}

type load_ struct {
	key    ColdKey
	record Stored
	answer *Warm // of a sunk key
}

func newCopyOnDisk(t *testing.T, rng *rand.Rand, ks *Keyspace, log *[][]byte) *copyOnDisk {
	return &copyOnDisk{t: t, rng: rng, ks: ks, log: log, tier: fakeTier{records: map[tierKey]Stored{}}}
}

func (c *copyOnDisk) restore(k ColdKey, r Stored) {
	c.t.Helper()
	w, err := r.Thaw(testSeed, k.Need)
	if err == nil {
		err = c.ks.Restore(k, w)
	}
	if err != nil {
		c.t.Fatalf("restore %q: %v", k.Key, err)
	}
}

// load restores all that is wanted.
func (c *copyOnDisk) load() {
	c.t.Helper()
	for _, k := range slices.Clone(c.ks.Wanted()) {
		if k.Seq == 0 {
			c.surface(k)
			continue
		}
		c.restore(k, c.tier.get(k))
		if c.ks.Needs(&k) {
			c.t.Fatalf("%q lacks %+v after that was restored", k.Key, k.Need)
		}
	}
}

// answer is what the tier says about sunk keys.
func (c *copyOnDisk) answer(k ColdKey) *Warm {
	c.t.Helper()
	w, err := Answer(testSeed, k, c.tier.of(k.DB))
	if err != nil {
		c.t.Fatalf("%+v: %v", k, err)
	}
	return w
}

// surface has those surface that were asked for.
func (c *copyOnDisk) surface(k ColdKey) {
	c.t.Helper()
	for all := k; ; {
		w := c.answer(k)
		if err := c.ks.Restore(k, w); err != nil {
			c.t.Fatal(err)
		}
		if k.Hash = w.Next(); k.Hash == 0 {
			if c.ks.Needs(&all) {
				c.t.Fatalf("%+v isn't there after it was asked for", all)
			}
			return
		}
	}
}

// sink has some keys sink.
func (c *copyOnDisk) sink() {
	c.ks.Sink(Sinking{Looks: 1 + c.rng.IntN(30), Part: c.rng.Float64() + 0.2, Since: c.since, Small: c.rng.IntN(2) == 0, May: c.maySink})
}

func (c *copyOnDisk) maySink(db int, hash uint64, key []byte) bool {
	for i := range c.loads {
		k := &c.loads[i].key
		if k.DB == db && k.Seq == 0 && (k.Last != 0 && k.Hash <= samePrint(hash) && printOf(hash) <= k.Last || k.Last == 0 && printOf(k.Hash) == printOf(hash)) {
			return false
		}
	}
	return true
}

// leave has some guests leave.
func (c *copyOnDisk) leave() {
	c.ks.Leave(1+c.rng.IntN(20), c.since, func(g *Candidate, sunk bool) {
		if g.Clean {
			c.ks.Offload(g.DB, g.Hash, g.Key, g.Seq)
		}
		if sunk && c.sinks {
			c.ks.SinkKey(Sinking{Since: ^uint64(0), Small: true, May: c.maySink}, g.DB, g.Hash, g.Key)
		}
	})
}

// lookDown begins to ask the tier for keys that are perhaps sunk.
func (c *copyOnDisk) lookDown() {
	c.ks.View(0, int64(c.ks.clock)<<4, nil) // forgets what was wanted
	for range 2 {
		db, key := c.rng.IntN(3)*7, fmt.Appendf(nil, "k%d", c.rng.IntN(25))
		if c.rng.IntN(2) == 0 {
			c.ks.WantSunk(db, key)
		} else {
			c.ks.WantCold(db, key)
		}
	}
	if c.rng.IntN(4) == 0 {
		first := c.rng.Uint64()
		c.ks.wantRange(c.rng.IntN(3)*7, printOf(first), samePrint(first+c.rng.Uint64N(^first)))
	}
	for _, k := range c.ks.Wanted() {
		if k.Seq != 0 {
			c.loads = append(c.loads, load_{key: k, record: c.tier.get(k)})
		} else {
			c.loads = append(c.loads, load_{key: k, answer: c.answer(k)})
		}
	}
}

// some is about so many keys, chosen at random.
func (c *copyOnDisk) some(n int) (keys []ColdKey) {
	for range n {
		if db, r := c.ks.random(c.rng, false); r != 0 {
			keys = append(keys, ColdKey{DB: db, Hash: c.ks.Hash(r.Key()), Key: bytes.Clone(r.Key()), Seq: r.Seq()})
		}
	}
	return keys
}

// step does one thing, as a node would between commands.
func (c *copyOnDisk) step() {
	c.t.Helper()
	most := 13
	if c.sinks {
		most = 18
	}
	if c.rng.IntN(6) == 0 {
		c.leave()
	}
	switch c.rng.IntN(most) {
	case 13, 14, 15:
		c.sink()
	case 16, 17:
		c.lookDown()
	case 12:
		c.ks.Tidy(1 << c.rng.IntN(12))
	case 0, 1, 2, 3:
		c.sweep()
	case 4:
		if c.session == nil {
			c.sweepSome()
		}
	case 5, 6:
		c.ks.Coldest(1+c.rng.IntN(5), c.since, c.rng, func(cand *Candidate) {
			if !cand.Clean {
				return
			}
			about := int64(0)
			if c.ks.IsCold(cand.DB, cand.Key) {
				about = 8 // what its record then takes may be the same
			}
			if freed := c.ks.Offload(cand.DB, cand.Hash, cand.Key, cand.Seq); freed > cand.Bytes || freed < cand.Bytes-about {
				c.t.Fatalf("offload of %q frees %d, not %d", cand.Key, freed, cand.Bytes)
			}
		})
	case 7: // a load begins that ends whenever
		for _, k := range c.some(3) {
			c.ks.WantCold(k.DB, k.Key)
		}
		for _, k := range c.ks.Wanted() {
			if k.Seq == 0 {
				continue
			}
			if c.rng.IntN(2) == 0 {
				k.Need = &value.Need{Hashes: []uint64{c.rng.Uint64()}, More: c.rng.IntN(2), Spans: []value.Span{{From: 0, To: c.rng.Int64N(50)}}}
			}
			c.loads = append(c.loads, load_{key: k, record: c.tier.get(k)})
		}
	case 8:
		for range min(len(c.loads), c.rng.IntN(3)) {
			i := c.rng.IntN(len(c.loads))
			if l := c.loads[i]; l.key.Seq != 0 {
				c.restore(l.key, l.record)
			} else if err := c.ks.Restore(l.key, l.answer); err != nil {
				c.t.Fatal(err)
			}
			c.loads = slices.Delete(c.loads, i, i+1)
		}
		for range min(len(c.later), c.rng.IntN(10)) {
			i := c.rng.IntN(len(c.later))
			k := c.later[i]
			c.ks.Offload(k.DB, k.Hash, k.Key, k.Seq)
			c.later = slices.Delete(c.later, i, i+1)
		}
	case 9:
		if c.rng.IntN(6) == 0 {
			c.restart()
		}
	case 10:
		if c.rng.IntN(6) == 0 {
			c.hibernate()
		}
	}
}

// sweep goes on with the sweep under way, or begins one.
func (c *copyOnDisk) sweep() {
	s := c.session
	if s == nil {
		s = &sweepSession{graves: c.ks.TakeGraves(), start: uint64(len(*c.log))}
		s.last.db = -1
		c.session = s
		c.tier.begin(s.graves)
	}
	c.ks.Sweep(&s.cursor, c.since, 1+c.rng.IntN(20), func(r *Record) {
		if cmp.Or(cmp.Compare(s.last.db, r.DB), cmp.Compare(s.last.hash, r.Hash)) >= 0 {
			c.t.Fatalf("%d %x comes after %v", r.DB, r.Hash, s.last)
		}
		s.last.db, s.last.hash = r.DB, r.Hash
		c.tier.put(r)
		s.swept = append(s.swept, ColdKey{DB: r.DB, Hash: r.Hash, Key: bytes.Clone(r.Key), Seq: r.Seq})
	})
	if c.rng.IntN(3) == 0 {
		c.seeBlind()
	}
	if s.cursor.Done() {
		if c.end(s) {
			c.since = s.start
		}
	}
}

// end commits a session, or lets it fail.
func (c *copyOnDisk) end(s *sweepSession) bool {
	c.session = nil
	if c.rng.IntN(4) == 0 {
		c.tier.abort()
		c.ks.Rebury(s.graves)
		return false
	}
	c.seeBlind()
	c.tier.commit()
	for _, k := range s.swept {
		switch c.rng.IntN(3) {
		case 0:
			c.ks.Offload(k.DB, k.Hash, k.Key, k.Seq)
		case 1:
			c.later = append(c.later, k)
		}
	}
	return true
}

// seeBlind tells of the keys that were written blindly what the tier has.
func (c *copyOnDisk) seeBlind() {
	for _, k := range c.ks.Blind() {
		if err := c.ks.Seen(k, c.tier.get(k).Head); err != nil {
			c.t.Fatal(err)
		}
	}
}

// sweepSome writes some keys only.
func (c *copyOnDisk) sweepSome() {
	s := &sweepSession{graves: c.ks.TakeGraves()}
	c.tier.begin(s.graves)
	for _, k := range c.some(4) {
		c.ks.SweepKey(k.DB, k.Hash, k.Key, func(r *Record) {
			c.tier.put(r)
			s.swept = append(s.swept, k)
		})
	}
	c.end(s)
}

// rebuild makes the keyspace that a start of the node would make; with deep, some of
// its keys are sunk.
func (c *copyOnDisk) rebuild(deep bool) *Keyspace {
	c.t.Helper()
	ks := New(testSeed)
	ks.tier.apart = c.ks.tier.apart
	ks.SetEviction(c.ks.Eviction(), 0)
	for k, r := range c.tier.records {
		if ks.Hash([]byte(k.key)) != k.hash {
			c.t.Fatalf("key %q has another hash", k.key)
		}
		if deep && c.rng.IntN(2) == 0 && ks.LoadSunk(k.db, k.hash, []byte(k.key), r.Head) {
			continue
		}
		if err := ks.LoadHead(k.db, []byte(k.key), r.Head); err != nil {
			c.t.Fatal(err)
		}
	}
	for seq := c.since + 1; seq <= uint64(len(*c.log)); seq++ {
		if err := ks.ApplyNewer((*c.log)[seq-1], seq); err != nil {
			c.t.Fatal(err)
		}
	}
	ks.BornAt(uint64(len(*c.log)))
	return ks
}

// restart is a crash: whatever was under way is lost.
func (c *copyOnDisk) restart() {
	c.session, c.tier.staged, c.loads, c.later = nil, nil, nil, nil
	c.ks = c.rebuild(false)
	c.born = uint64(len(*c.log))
}

// hibernate writes all that the tier doesn't have, and begins again from that
// alone.
func (c *copyOnDisk) hibernate() {
	if c.session != nil {
		c.tier.abort()
		c.ks.Rebury(c.session.graves)
		c.session = nil
	}
	c.tier.begin(c.ks.TakeGraves())
	for at := (Cursor{}); !at.Done(); {
		c.ks.Sweep(&at, c.since, 100, c.tier.put)
	}
	c.seeBlind()
	c.tier.commit()
	c.since = uint64(len(*c.log))
	c.loads, c.later = nil, nil
	c.ks = c.rebuild(c.sinks)
	c.born = c.since
	if !c.ks.tier.graves.Empty() {
		c.t.Fatal("a database that woke has something to delete")
	}
}

func thawed(t *testing.T, r Stored) *Warm {
	t.Helper()
	w, err := r.Thaw(testSeed, nil)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// content is all keys with their values, cold ones from the tier.
func content(t *testing.T, ks *Keyspace, tier *fakeTier) map[tierKey]string {
	t.Helper()
	all := map[tierKey]string{}
	put := func(db int, e entry) {
		k := ColdKey{DB: db, Hash: e.hash, Key: e.Key()}
		var w *Warm
		if e.cold() {
			w = thawed(t, tier.get(k))
		}
		record, ok, err := ks.DumpCold(nil, k, w)
		if err != nil || !ok {
			t.Fatalf("dump of cold key %q: %v, %v", e.Key(), ok, err)
		}
		all[tierKey{db, k.Hash, string(e.Key())}] = string(record)
	}
	for db, sp := range ks.spaces {
		if sp != nil {
			sp.slab.Range(func(r slab.Rec) bool { put(db, sp.at(r)); return true })
		}
	}
	eachSunk(ks, tier, func(k tierKey, s Stored) {
		record, ok, err := ks.DumpCold(nil, ColdKey{DB: k.db, Hash: k.hash, Key: []byte(k.key)}, thawed(t, s))
		if err != nil || !ok {
			t.Fatalf("dump of sunk key %q: %v, %v", k.key, ok, err)
		}
		all[k] = string(record)
	})
	return all
}

// eachSunk calls fn for the records of sunk keys.
func eachSunk(ks *Keyspace, tier *fakeTier, fn func(k tierKey, s Stored)) {
	if tier == nil {
		return
	}
	for k, s := range tier.records {
		if sp := ks.spaces[k.db]; sp != nil && sp.slab.Find(k.hash, []byte(k.key)) == 0 && ks.maybe(sp, k.db, k.hash, []byte(k.key)) {
			fn(k, s)
		}
	}
}

func compareContent(t *testing.T, what string, got, want map[tierKey]string) {
	t.Helper()
	for k, record := range want {
		if got[k] != record {
			t.Fatalf("%s: key %q of database %d\n got %q\nwant %q", what, k.key, k.db, got[k], record)
		}
	}
	for k := range got {
		if _, there := want[k]; !there {
			t.Fatalf("%s: key %q of database %d should not be there", what, k.key, k.db)
		}
	}
}

// check compares with a copy that has everything in memory.
func (c *copyOnDisk) check(hot *Keyspace, want map[tierKey]string, now int64) {
	c.t.Helper()
	compareContent(c.t, "cold and hot", content(c.t, c.ks, &c.tier), want)
	checkAll(c.t, c.ks, &c.tier, false)
	if c.ks.NextExpiry() != hot.NextExpiry() {
		c.t.Fatalf("next expiry is %d, hot %d", c.ks.NextExpiry(), hot.NextExpiry())
	}
	for db := range Databases {
		view, other := c.ks.View(db, now, c.rng), hot.View(db, now, c.rng)
		if view.Len() != other.Len() && (blur < manyAlike || c.ks.account.blind == 0) {
			c.t.Fatalf("%d keys, hot %d", view.Len(), other.Len())
		}
		var scanned, want []string
		if c.ks.SunkIn(db) > 0 && c.rng.IntN(10) > 0 {
			continue // it would have them surface
		}
		for cursor := uint64(0); ; {
			n, from := len(scanned), cursor
			cursor = view.Scan(cursor, 1+c.rng.IntN(10), func(key []byte, kind Kind) { scanned = append(scanned, fmt.Sprint(string(key), kind)) })
			if c.ks.Unsure() {
				scanned, cursor = scanned[:n], from
				c.load()
				view = c.ks.View(db, now, c.rng)
				continue
			}
			if cursor == 0 {
				break
			}
		}
		if c.ks.SunkIn(db) > 0 {
			c.t.Fatalf("%d keys are sunk after SCAN", c.ks.SunkIn(db))
		}
		other.Scan(0, 1000, func(key []byte, kind Kind) { want = append(want, fmt.Sprint(string(key), kind)) })
		if !slices.Equal(scanned, want) {
			c.t.Fatalf("SCAN gives %v, hot %v", scanned, want)
		}
	}
	for range 5 {
		db, key := c.rng.IntN(3)*7, fmt.Appendf(nil, "k%d", c.rng.IntN(25))
		if c.ks.WantSunk(db, key) {
			if c.rng.IntN(3) > 0 {
				continue
			}
			c.ks.View(db, now, c.rng)
			c.ks.WantSunk(db, key)
			c.load()
		}
		seq := c.born + c.rng.Uint64N(uint64(len(*c.log))-c.born+1)
		if got, want := c.ks.ChangedSince(db, key, seq), hot.ChangedSince(db, key, seq); got != want {
			c.t.Fatalf("%q of %d changed since %d: %v, hot %v", key, db, seq, got, want)
		}
		if got, want := c.ks.AppearedSince(db, key, seq), hot.AppearedSince(db, key, seq); got != want && !(got && c.ks.Stats.Blind > 0) {
			c.t.Fatalf("%q of %d appeared since %d: %v, hot %v", key, db, seq, got, want)
		}
		view, other := c.ks.View(db, now, c.rng), hot.View(db, now, c.rng)
		at, found := view.Deadline(key)
		if want, there := other.Deadline(key); at != want || found != there || view.Kind(key) != other.Kind(key) {
			c.t.Fatalf("%q has deadline %d (%v), hot %d (%v)", key, at, found, want, there)
		}
	}
}

// Values leave memory and come back, databases sleep and crash, sweeps fail:
// on a primary and on a replica, and the content is what plain maps hold.
func TestColdEqualsHot(t *testing.T) {
	seeds := uint64(200)
	if testing.Short() {
		seeds = 40
	}
	if n, err := strconv.ParseUint(os.Getenv("VECINO_SEEDS"), 10, 32); err == nil {
		seeds = n
	}
	var runs, colds, partly, pendings, restores, sinks, blinds int
	defer func(was uint64) { blur = was }(blur)
	for seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			runs++
			w := newWorld(t, seed)
			w.long = true
			if seed%4 == 0 {
				before := value.SetPartBytes(400)
				defer value.SetPartBytes(before)
			}
			primary := newCopyOnDisk(t, w.rng, w.ks, &w.log)
			w.load = func() { primary.load() }
			replica, hot := newCopyOnDisk(t, w.rng, New(testSeed), &w.log), New(testSeed)
			primary.sinks = seed%3 > 0
			blur = 1<<16 - 1
			if seed%5 == 0 { // keys are taken for each other
				blur = manyAlike
			}
			if seed%2 == 0 {
				primary.ks.KeepApart()
				replica.ks.KeepApart()
			}
			applied := 0
			for i := range 80 {
				w.write()
				for ; applied < len(w.log); applied++ {
					for _, ks := range []*Keyspace{hot, replica.ks} {
						if err := ks.Apply(w.log[applied], uint64(applied)+1); err != nil {
							t.Fatal(err)
						}
					}
					if w.rng.IntN(2) == 0 {
						replica.load()
					}
				}
				primary.step()
				replica.step()
				w.ks = primary.ks
				for range 2 {
					w.lookAtSome(primary)
					w.lookAtSome(replica)
				}
				partly += partlyCold(primary.ks)
				want := content(t, hot, nil)
				primary.check(hot, want, w.now)
				replica.check(hot, want, w.now)
				restores += int(primary.ks.Stats.Restored)
				colds += primary.ks.account.coldKeys
				sinks += primary.ks.account.sunk
				blinds += primary.ks.account.blind
				pendings += int(replica.ks.account.pending)
				if i%20 == 0 {
					for _, c := range []*copyOnDisk{primary, replica} {
						compareContent(t, "tier and log", content(t, c.rebuild(false), &c.tier), want)
					}
				}
			}
			w.ks = hot
			w.check()
		})
	}
	if runs < 20 {
		return // so few may not come to everything
	}
	if colds == 0 || partly == 0 || pendings == 0 || restores == 0 || sinks == 0 || blinds == 0 {
		t.Errorf("in all runs together: %d cold keys, %d partly, %d sunk, %d written blindly, %d bytes pending, %d restored", colds, partly, sinks, blinds, pendings, restores)
	}
	t.Logf("%d cold keys, %d partly, %d sunk, %d written blindly, %d bytes pending", colds, partly, sinks, blinds, pendings)
}

// manyAlike is the blur with which fingerprints have four bits.
const manyAlike = 1<<60 - 1

// coldKeys makes a keyspace with one cold key of each kind, and its tier.
func coldKeys(t *testing.T) (*Keyspace, *fakeTier) {
	t.Helper()
	ks, tier := New(testSeed), &fakeTier{records: map[tierKey]Stored{}}
	long := bytes.Repeat([]byte("v"), MaxInline+1)
	tx := ks.Begin(0, 10, 1, nil, false)
	tx.SetString([]byte("string"), long, 0)
	h, _ := tx.Hash([]byte("hash"))
	h.Set([]byte("f"), long)
	l, _ := tx.List([]byte("list"))
	l.Push(Back, long)
	s, _ := tx.Set([]byte("set"))
	s.Add(long)
	z, _ := tx.ZSet([]byte("zset"))
	z.Set(long, 1)
	tx.End()
	tier.begin(ks.TakeGraves())
	var keys []ColdKey
	for c := (Cursor{}); !c.Done(); {
		ks.Sweep(&c, 0, 100, func(r *Record) {
			tier.put(r)
			keys = append(keys, ColdKey{DB: r.DB, Hash: r.Hash, Key: bytes.Clone(r.Key), Seq: r.Seq})
		})
	}
	tier.commit()
	for _, k := range keys {
		if ks.Offload(k.DB, k.Hash, k.Key, k.Seq) == 0 {
			t.Fatalf("%q can't be offloaded", k.Key)
		}
	}
	if n, saved := ks.Cold(); n != 5 || saved < 5*MaxInline || ks.Resident() != ks.Used()-saved {
		t.Fatalf("%d keys and %d bytes cold, %d of %d resident", n, saved, ks.Resident(), ks.Used())
	}
	return ks, tier
}

var kindNames = map[string]Kind{"string": String, "hash": HashKind, "list": ListKind, "set": SetKind, "zset": ZSetKind}

// Who only reads causes no writes: what came back leaves as it came.
func TestWhatCameBackLeavesWithoutBeingWritten(t *testing.T) {
	ks, tier := coldKeys(t)
	for name := range kindNames {
		k := ColdKey{Key: []byte(name), Hash: ks.Hash([]byte(name))}
		e := ks.findCold(0, k.Hash, k.Key)
		k.Seq = e.stub().base
		w, err := tier.get(k).Thaw(testSeed, nil)
		if err == nil {
			err = ks.Restore(k, w)
		}
		if err != nil {
			t.Fatal(err)
		}
		if ks.IsCold(0, k.Key) || ks.Offload(0, k.Hash, k.Key, k.Seq) == 0 {
			t.Errorf("a %s that was read would have to be written before it could leave", name)
		}
	}
}

func TestWhatAsksOnlyForTheRecordWorksOnColdKeys(t *testing.T) {
	ks, _ := coldKeys(t)
	used := ks.Used()
	view := ks.View(0, 20, rand.New(rand.NewPCG(1, 1)))
	n := 0
	view.Scan(0, 100, func([]byte, Kind) { n++ })
	view.Range(func([]byte, Kind) bool { n++; return true })
	if n != 10 || view.Len() != 5 || view.Random() == nil {
		t.Errorf("%d keys seen, %d are there", n, view.Len())
	}
	for name, kind := range kindNames {
		key := []byte(name)
		if size, found := view.Size(key); !view.Exists(key) || view.Kind(key) != kind || !found || size <= MaxInline || !ks.IsCold(0, key) {
			t.Errorf("%s: kind %v, size %d", name, view.Kind(key), size)
		}
	}
	for _, cold := range []func() error{
		func() error { _, _, err := view.String([]byte("string")); return err },
		func() error { _, err := view.Hash([]byte("hash")); return err },
		func() error { _, err := view.List([]byte("list")); return err },
		func() error { _, err := view.Set([]byte("set")); return err },
		func() error { _, err := view.ZSet([]byte("zset")); return err },
		func() error { _, err := view.Encoding([]byte("set")); return err },
	} {
		if err := cold(); err != ErrCold {
			t.Errorf("error is %v", err)
		}
	}
	if len(ks.Wanted()) != 5 {
		t.Errorf("wanted: %v", ks.Wanted())
	}
	if _, err := view.Hash([]byte("string")); err != ErrWrongType {
		t.Errorf("to find that the type is wrong needs no value: %v", err)
	}

	tx := ks.Begin(0, 20, 2, nil, false)
	if len(ks.Wanted()) != 0 {
		t.Error("the next command still wants what the last did")
	}
	tx.SetDeadline([]byte("hash"), 1000)
	tx.Delete([]byte("list"))
	tx.SetString([]byte("string"), []byte("v"), KeepDeadline)
	tx.SetDeadline([]byte("set"), 15) // has passed
	tx.End()
	if n, _ := ks.Cold(); n != 2 || ks.Len(0) != 3 || ks.Expires(0) != 1 || ks.Used() >= used {
		t.Errorf("%d cold keys of %d, %d with a deadline", n, ks.Len(0), ks.Expires(0))
	}
	checkAccounts(t, ks)
	got := map[string]bool{}
	g := ks.TakeGraves()
	for grave := range g.Keys() {
		got[string(grave.Key)] = true
	}
	if !maps.Equal(got, map[string]bool{"list": true, "set": true}) {
		t.Errorf("graves are %v", got)
	}
	tx = ks.Begin(0, 2000, 3, nil, false)
	if tx.Expire(10) != 1 || ks.Len(0) != 2 {
		t.Error("a cold key doesn't expire")
	}
	tx.End()
}

// A value that has left memory must not be needed when it is too late to run
// the command again.
func TestATransactionThatHasChangedSomethingMayNotMeetAColdKey(t *testing.T) {
	ks, _ := coldKeys(t)
	tx := ks.Begin(0, 20, 2, nil, false)
	if _, err := tx.Hash([]byte("hash")); err != ErrCold {
		t.Fatal(err)
	}
	tx.SetString([]byte("other"), nil, 0)
	defer func() {
		if recover() == nil {
			t.Error("nobody noticed")
		}
	}()
	_, _ = tx.Hash([]byte("hash"))
}

func TestADamagedValueLeavesTheKeyAsItWas(t *testing.T) {
	ks, tier := coldKeys(t)
	tx := ks.Begin(0, 20, 2, nil, false)
	_, err := tx.Hash([]byte("hash"))
	tx.End()
	if err != ErrCold {
		t.Fatal(err)
	}
	k := ks.Wanted()[0]
	r := tier.get(k)
	for name, bad := range map[string]Stored{
		"no body":      {Head: r.Head},
		"its head cut": {Head: r.Head, Body: r.Body[:4]},
		"nothing":      {},
		"cut":          {Head: r.Head, Body: r.Body[:len(r.Body)-1]},
		"a newer form": {Head: r.Head, Body: append([]byte{0x20}, r.Body[1:]...)},
	} {
		w, err := bad.Thaw(testSeed, nil)
		if err == nil {
			err = ks.Restore(k, w)
		}
		if err == nil || !ks.IsCold(0, []byte("hash")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	checkAccounts(t, ks)
	if err := ks.Restore(k, thawed(t, r)); err != nil || ks.IsCold(0, []byte("hash")) {
		t.Error(err)
	}
}

// A body alone is enough to have a value, but for one of the kind that was written before
// bodies had what the head has: to that the head is needed.
func TestABodyIsAllThatAValueNeeds(t *testing.T) {
	ks, tier := coldKeys(t)
	ks.WantCold(0, []byte("hash"))
	k := ks.Wanted()[0]
	r := tier.get(k)
	whole, ok, err := ThawBody(testSeed, r.Body)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	withHead, err := Thaw(testSeed, r.Head, r.Body, nil, nil)
	if err != nil || !bytes.Equal(whole.head, withHead.head) || whole.base != withHead.base || whole.size != withHead.size {
		t.Errorf("a body gives %x, %d, %d; with its head %x, %d, %d; %v", whole.head, whole.base, whole.size, withHead.head, withHead.base, withHead.size, err)
	}
	_, dump, err := readBody(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	old := append(binary.AppendUvarint([]byte{tierVersion}, whole.base), dump...)
	if _, ok, err := ThawBody(testSeed, old); ok || err != nil {
		t.Errorf("an old body needs no head: %v, %v", ok, err)
	}
	w, err := Stored{Head: r.Head, Body: old}.Thaw(testSeed, nil)
	if err == nil {
		err = ks.Restore(k, w)
	}
	if err != nil || ks.IsCold(0, []byte("hash")) {
		t.Errorf("an old body with its head is not restored: %v", err)
	}
}

// The keys of a flushed database that were written again before the tier knew
// of the flush can't be let go: the tier will flush them, too.
func TestAFlushGoesToTheTierBeforeWhatFollowsIt(t *testing.T) {
	ks, tier := coldKeys(t)
	long := bytes.Repeat([]byte("w"), MaxInline+1)
	var at Cursor
	tier.begin(ks.TakeGraves())
	ks.Sweep(&at, 1, 1, tier.put)
	tx := ks.Begin(0, 20, 2, nil, false)
	tx.FlushAll()
	tx.End()
	tx = ks.Begin(0, 20, 3, nil, false)
	tx.SetString([]byte("new"), long, 0)
	tx.End()
	sweep := func(since uint64) (new ColdKey) {
		for c := (Cursor{}); !c.Done(); {
			ks.Sweep(&c, since, 100, func(r *Record) {
				tier.put(r)
				new = ColdKey{DB: r.DB, Hash: r.Hash, Key: bytes.Clone(r.Key), Seq: r.Seq}
			})
		}
		tier.commit()
		return new
	}
	new := sweep(1)
	if ks.Offload(0, new.Hash, new.Key, new.Seq) != 0 {
		t.Error("a key is let go that the next session deletes")
	}
	g := ks.TakeGraves()
	if flushed := slices.Collect(g.Flushed()); !slices.Equal(flushed, []int{0}) || g.Len() != 0 {
		t.Errorf("flushed are %v, and %d graves", flushed, g.Len())
	}
	// The session that flushes fails: the tier still has the key, and the next one
	// flushes, too.
	sweepOnly := func() {
		for c := (Cursor{}); !c.Done(); {
			ks.Sweep(&c, 1, 100, tier.put)
		}
	}
	tier.begin(g)
	sweepOnly()
	if ks.Offload(0, new.Hash, new.Key, new.Seq) != 0 {
		t.Error("a key is let go while it isn't known whether it will be in the tier")
	}
	tier.abort()
	ks.Rebury(g)
	if ks.Offload(0, new.Hash, new.Key, new.Seq) != 0 {
		t.Error("a key is let go that wasn't written behind the flush")
	}
	tier.begin(ks.TakeGraves())
	sweepOnly()
	tier.commit()
	ks.TakeGraves()
	if ks.Offload(0, new.Hash, new.Key, new.Seq) == 0 || len(tier.records) != 1 {
		t.Errorf("the tier has %d records", len(tier.records))
	}
}

// A key is written behind a flush that the tier doesn't know of; the next session flushes
// and leaves the key out; the one after it writes the key and fails. Whoever still
// goes by the first session must not let it go.
func TestAKeyBehindAFlushIsNotInTheTierBeforeItIsWrittenAgain(t *testing.T) {
	ks, tier := coldKeys(t)
	tier.begin(ks.TakeGraves())
	tx := ks.Begin(0, 20, 2, nil, false)
	tx.FlushAll()
	tx.End()
	tx = ks.Begin(0, 20, 3, nil, false)
	tx.SetString([]byte("new"), bytes.Repeat([]byte("w"), MaxInline+1), 0)
	tx.End()
	key, hash := []byte("new"), ks.Hash([]byte("new"))
	write := func() {
		if !ks.SweepKey(0, hash, key, tier.put) {
			t.Fatal("the key isn't there")
		}
	}
	write()
	tier.commit()
	ks.Committed()

	tier.begin(ks.TakeGraves())
	tier.commit()
	ks.Committed()

	g := ks.TakeGraves()
	tier.begin(g)
	write()
	tier.abort()
	ks.Rebury(g)
	if len(tier.records) != 0 {
		t.Fatalf("the tier has %d records: the test doesn't test", len(tier.records))
	}
	if ks.Offload(0, hash, key, 3) != 0 {
		t.Error("it is let go, and the tier hasn't got it")
	}
}

func TestAFlushIsSeenByThoseWhoWatch(t *testing.T) {
	k, other := []byte("k"), []byte("other")
	ks := New(testSeed)
	set := func(seq uint64, key []byte) {
		tx := ks.Begin(0, 10, seq, nil, false)
		tx.SetString(key, nil, 0)
		tx.End()
	}
	flush := func(seq uint64) {
		tx := ks.Begin(0, 10, seq, nil, false)
		tx.Flush()
		tx.End()
	}
	set(1, other)
	flush(2)
	if ks.AppearedSince(0, k, 1) {
		t.Error("a flush touches a key that wasn't there")
	}
	set(3, k)
	flush(4)
	if !ks.AppearedSince(0, k, 2) {
		t.Error("a key that came and was flushed isn't seen")
	}
	if !ks.ChangedSince(0, k, 3) {
		t.Error("a flush isn't seen")
	}
	if ks.ChangedSince(0, k, 4) || ks.AppearedSince(0, k, 4) {
		t.Error("a flush is seen afterwards")
	}
}

// pendingField gives the cold hash an effect that waits: a field set to v, or
// deleted where that is empty.
func pendingField(ks *Keyspace, seq uint64, v string) []byte {
	tx := &Tx{View: View{ks: ks}, seq: seq}
	if v == "" {
		tx.emit(opHashDel, []byte("hash"))
		tx.emitBytes([]byte("none"))
	} else {
		tx.emit(opHashSet, []byte("hash"))
		tx.emitBytes([]byte("g"))
		tx.emitBytes([]byte(v))
	}
	return tx.effects
}

// The tier has a value and the effects on it apart. When the value has come
// back and took the effects, its seq alone would say that the tier has it.
func TestAValueThatTookItsEffectsIsWrittenBeforeItIsLetGo(t *testing.T) {
	ks, tier := coldKeys(t)
	key := []byte("hash")
	hash := ks.Hash(key)
	if err := ks.Apply(pendingField(ks, 2, "v"), 2); err != nil {
		t.Fatal(err)
	}
	if ks.Resident() <= ks.Used()-ks.account.away || len(ks.Wanted()) != 1 {
		t.Errorf("nothing is pending; wanted are %v", ks.Wanted())
	}
	wanted := ks.Wanted()[0]
	sweep := func(since uint64) (bodies int) {
		tier.begin(ks.TakeGraves())
		for c := (Cursor{}); !c.Done(); {
			ks.Sweep(&c, since, 100, func(r *Record) {
				tier.put(r)
				if r.Body != nil {
					bodies++
				}
			})
		}
		return bodies
	}
	if sweep(1) != 0 {
		t.Error("a cold key is written with a body")
	}
	tier.commit()
	r := tier.get(wanted)
	if err := ks.Restore(wanted, thawed(t, r)); err != nil || ks.IsCold(0, key) {
		t.Fatal("it doesn't come back", err)
	}
	const since = 2
	ks.Coldest(100, since, rand.New(rand.NewPCG(1, 1)), func(c *Candidate) {
		if c.Clean {
			t.Errorf("%q is said to be clean", c.Key)
		}
	})
	if ks.Offload(0, hash, key, 2) != 0 {
		t.Error("it is let go, and the tier has it in two parts")
	}
	if sweep(since) != 1 || ks.Offload(0, hash, key, 2) != 0 {
		t.Error("it is let go before the sweep is committed")
	}
	ks.Rebury(Graves{})
	if ks.Offload(0, hash, key, 2) != 0 {
		t.Error("it is let go after a sweep that failed")
	}
	if sweep(since) != 1 {
		t.Error("after a sweep that failed it isn't swept again")
	}
	tier.commit()
	if sweep(since) != 0 || ks.Offload(0, hash, key, 2) == 0 {
		t.Error("it is written and can't be let go")
	}
	view := ks.View(0, 10, nil)
	_, _ = view.Hash(key)
	k := ks.Wanted()[0]
	r = tier.get(k)
	if err := ks.Restore(k, thawed(t, r)); err != nil {
		t.Fatal(err)
	}
	h, err := view.Hash(key)
	if v, _ := h.Get([]byte("g")); err != nil || string(v) != "v" || h.Len() != 2 {
		t.Errorf("field is %q: %v", v, err)
	}
}

// Effects that don't fit mean that the copy is wrong, unless it is one that is
// on the way through states it never had.
func TestPendingEffectsThatDoNotFit(t *testing.T) {
	for _, newer := range []bool{false, true} {
		ks, tier := coldKeys(t)
		if err := ks.apply(pendingField(ks, 2, ""), 2, newer); err != nil {
			t.Fatal(err)
		}
		k := ks.Wanted()[0]
		r := tier.get(k)
		err := ks.Restore(k, thawed(t, r))
		if (err == nil) != newer || ks.IsCold(0, k.Key) == newer {
			t.Errorf("newer %v: %v", newer, err)
		}
		checkAccounts(t, ks)
	}
}

// Where nearly all values are used always, those that aren't are found among them.
func TestTheFewThatNobodyUsesLeaveFirst(t *testing.T) {
	const all, unused = 8000, 400
	ks := New(testSeed)
	value := bytes.Repeat([]byte("v"), 1000)
	key := func(i int) []byte { return fmt.Appendf(nil, "key:%d", i) }
	for i := range all {
		tx := ks.Begin(0, 1000, uint64(i+1), nil, false)
		tx.SetString(key(i), value, 0)
		tx.End()
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for now := int64(2000); now <= 60_000; now += 1000 { // each of the others once in some ten seconds
		for i := unused; i < all; i++ {
			if rng.IntN(10) == 0 {
				v := ks.View(0, now, nil)
				if _, found, err := v.String(key(i)); !found || err != nil {
					t.Fatal(i, found, err)
				}
			}
		}
	}
	few, total := 0, 0
	for range 10 {
		ks.Coldest(16, 0, rng, func(c *Candidate) {
			total++
			if c.Idle > 55_000 {
				few++
			}
		})
	}
	if total != 160 || few < 100 {
		t.Errorf("of %d that would leave first %d are of the %d that nobody uses, of %d", total, few, unused, all)
	}
}

func TestLoadingASmallKeyAllocatesNothing(t *testing.T) {
	ks := New(testSeed)
	tx := ks.Begin(0, 1000, 1, nil, false)
	tx.SetString([]byte("string"), []byte("value"), 0)
	h, err := tx.Hash([]byte("hash"))
	if err != nil {
		t.Fatal(err)
	}
	h.Set([]byte("field"), []byte("value"))
	tx.End()
	var records []Record
	for c := (Cursor{}); !c.Done(); {
		ks.Sweep(&c, 0, 100, func(r *Record) {
			records = append(records, Record{Key: bytes.Clone(r.Key), Head: bytes.Clone(r.Head)})
		})
	}
	if len(records) != 2 {
		t.Fatalf("%d records", len(records))
	}
	into := New(testSeed)
	for _, r := range records {
		if n := testing.AllocsPerRun(1000, func() {
			if err := into.LoadHead(0, r.Key, r.Head); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %.0f allocations", r.Key, n)
		}
	}
	tier := &fakeTier{records: map[tierKey]Stored{}}
	if got, want := content(t, into, tier), content(t, ks, tier); !maps.Equal(got, want) {
		t.Errorf("%v was loaded, not %v", got, want)
	}
}
