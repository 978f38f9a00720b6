package node

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vecino/catalog"
	"vecino/engine"
	"vecino/internal/pace"
	"vecino/journal"
	"vecino/keyspace"
	"vecino/tier"
	"vecino/value"
)

// store is the tier as the databases of a node use it. A database has one session
// with it at a time; what a session has written counts when it is committed.
//
// There are two kinds. A sweep writes all that changed since the last sweep began,
// and is a checkpoint: the journal behind where it began isn't needed any more. A
// plain session writes some keys, so that their values can leave memory. Both keep
// the meta record true; see meta.
//
// Nothing is committed that is newer than the journal on disk: after a power cut
// the journal would have forgotten writes whose values the tier shows.
type store struct {
	node *Node
	tier *tier.Tier

	sweeps, rested atomic.Int64 // how many were begun, and for how many nanoseconds they have rested
	sweeping       atomic.Int64 // how many are under way

	mu  sync.Mutex
	dbs map[*engine.DB]*stored
}

// stored is what is known of a database's content in the tier.
type stored struct {
	mu    sync.Mutex         // held for a session
	of    *keyspace.Keyspace // that the rest is about; the tier holds something else, or nothing, while the database has another
	since uint64             // from where the next complete sweep goes on
	swept catalog.Position   // where the last one ended, if nothing came in between

	sweeping journal.Offset // FirstUnsaved when the sweep that is under way began; under the database's lock
}

// holds is the offset of the oldest entry that is in the journal only, 0 if there
// is none. The lock of the database is held.
func (st *store) holds(db *engine.DB) journal.Offset {
	off, sweeping := db.FirstUnsaved(), st.of(db).sweeping
	if sweeping != 0 && (off == 0 || sweeping < off) {
		return sweeping
	}
	return off
}

func openStore(n *Node, b budget) (*store, error) {
	t, err := tier.Open(filepath.Join(n.cfg.State, "tier"), tier.Options{FS: tier.Over(n.fs), CacheBytes: b.cache, MemBytes: b.writes, Quiet: true, Log: n.log})
	if err != nil {
		return nil, err
	}
	return &store{node: n, tier: t, dbs: make(map[*engine.DB]*stored)}, nil
}

func (st *store) close() error { return st.tier.Close() }

func (st *store) of(db *engine.DB) *stored {
	st.mu.Lock()
	defer st.mu.Unlock()
	d := st.dbs[db]
	if d == nil {
		d = new(stored)
		st.dbs[db] = d
	}
	return d
}

// forget ends what is known of a database that is no tenant any more.
func (st *store) forget(db *engine.DB) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.dbs, db)
}

// fit gives back room that there is for many more databases.
func (st *store) fit() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.dbs = fitted(st.dbs)
}

// since is the write from which the next complete sweep goes on. It is not for
// inside a session.
func (st *store) since(p *placed) uint64 {
	d := st.of(p.Engine)
	d.mu.Lock()
	defer d.mu.Unlock()
	p.Engine.Lock()
	defer p.Engine.Unlock()
	if d.of != p.Engine.Keyspace() {
		return 0 // the tier has something else
	}
	return d.since
}

// lock keeps sessions of a database from beginning, once none is under way.
func (st *store) lock(db *engine.DB) (unlock func()) {
	d := st.of(db)
	d.mu.Lock()
	return d.mu.Unlock
}

// complete reports whether the tier holds all that the database is now. The lock of
// the database is held, and lock.
func (st *store) complete(db *engine.DB) bool {
	return st.of(db).complete(db)
}

func (d *stored) complete(db *engine.DB) bool {
	return d.of == db.Keyspace() && d.swept == db.Position() && db.FirstUnsaved() == 0 && db.Keyspace().Buried() == 0
}

// read reads one value, or what is needed of it, and makes it ready; or sunk keys. bytes is
// how much was read. w is nil if the tier has no such key.
func (st *store) read(db *engine.DB, k keyspace.ColdKey) (w *keyspace.Warm, bytes int, err error) {
	key := tier.Key{DB: uint64(db.ID()), Space: uint8(k.DB), Hash: k.Hash, Key: k.Key}
	switch {
	case k.Last != 0:
		return st.heads(db, k)
	case k.Bare:
		head, found, err := st.tier.Head(key)
		if found {
			return keyspace.Surfacing([]keyspace.Head{{Hash: k.Hash, Key: k.Key, Head: head}}, 0), len(head), nil
		}
		if err != nil {
			return nil, 0, err
		}
		return st.heads(db, k.SamePrint())
	}
	if w, bytes, err = st.value(db, k, key); w == nil && err == nil && k.Seq == 0 {
		return st.heads(db, k.SamePrint())
	}
	return w, bytes, err
}

// headsAtOnce is how many heads are read at a time. They take a turn of the database.
const headsAtOnce = 128

// heads reads some heads of a range.
func (st *store) heads(db *engine.DB, k keyspace.ColdKey) (w *keyspace.Warm, bytes int, err error) {
	var heads []keyspace.Head
	next := uint64(0)
	err = st.tier.HeadsBetween(uint64(db.ID()), uint8(k.DB), k.Hash, k.Last, func(hash uint64, key, head []byte) bool {
		if len(heads) >= headsAtOnce && hash > k.Hash {
			next = hash
			return false
		}
		heads = append(heads, keyspace.Head{Hash: hash, Key: slices.Clone(key), Head: slices.Clone(head)})
		bytes += len(key) + len(head) + bytesATurn/headsAtOnce
		return true
	})
	if err != nil {
		return nil, 0, err
	}
	return keyspace.Surfacing(heads, next), bytes, nil
}

// value is read for a value.
func (st *store) value(db *engine.DB, k keyspace.ColdKey, key tier.Key) (w *keyspace.Warm, bytes int, err error) {
	body, found, err := st.tier.Body(key)
	if err != nil {
		return nil, 0, err
	}
	if found {
		if w, whole, err := keyspace.ThawBody(db.HashSeed(), body); whole || err != nil {
			return w, len(body), err
		}
	}
	if !keyspace.InParts(body) { // it stands in the head, or the body is of an older kind
		head, body, found, err := st.tier.Get(key)
		if !found {
			return nil, 0, err
		}
		w, err = keyspace.Thaw(db.HashSeed(), head, body, nil, nil)
		return w, len(head) + len(body), err
	}
	found, err = st.tier.Parts(key, func(head, body []byte, parts *tier.Parts) (err error) {
		src := &source{parts: parts, bytes: len(head) + len(body)}
		w, err = keyspace.Thaw(db.HashSeed(), head, body, src, k.Need)
		bytes = src.bytes
		return err
	})
	if !found || err != nil {
		return nil, bytes, err
	}
	return w, bytes, nil
}

// source is a record's parts in the tier, and counts their bytes.
type source struct {
	parts *tier.Parts
	bytes int
}

func (s *source) From(id value.PartID) (got value.PartID, data []byte, ok bool) {
	n, data, ok := s.parts.From(uint64(id))
	s.bytes += len(data)
	return value.PartID(n), data, ok
}

func (s *source) Before(id value.PartID) (got value.PartID, data []byte, ok bool) {
	n, data, ok := s.parts.Before(uint64(id))
	s.bytes += len(data)
	return value.PartID(n), data, ok
}

// whole reads a database that sleeps.
func (st *store) whole(db *engine.DB) (*keyspace.Keyspace, error) {
	d := st.of(db)
	d.mu.Lock()
	defer d.mu.Unlock()
	ks := db.NewKeyspace()
	if err := st.load(db, ks, st.deep(db)); err != nil {
		ks.Clear()
		return nil, err
	}
	db.Lock()
	d.of, d.since, d.swept = ks, db.Position().Seq, db.Position()
	db.Unlock()
	return ks, nil
}

// deep reports whether a database has so many keys that those stay sunk whose values
// don't stand in their heads.
func (st *store) deep(db *engine.DB) bool {
	p := st.node.find(db.ID())
	if p == nil || p.Engine != db {
		return false
	}
	db.Lock()
	defer db.Unlock()
	return p.IsPrimary() && db.MaySink() && db.Sizes().Keys*stubBytes > st.node.keeper.data/4
}

// load reads the keys of a database, and the values that stand in their heads; with
// deep, it reads those without only to know that they are there.
func (st *store) load(db *engine.DB, ks *keyspace.Keyspace, deep bool) error {
	if m, there, err := st.meta(db.ID()); !deep && err == nil && there {
		for _, s := range m.spaces {
			ks.Expect(s.DB, s.Keys)
		}
	}
	const told = 1024 // keys at a time
	keys := int64(0)
	defer func() { st.node.loaded.Add(keys % told) }()
	return st.tier.Heads(uint64(db.ID()), func(space uint8, hash uint64, key, head []byte) error {
		if keys++; keys%told == 0 {
			st.node.loaded.Add(told)
		}
		if deep && ks.LoadSunk(int(space), hash, key, head) {
			return nil
		}
		return ks.LoadHead(int(space), key, head)
	})
}

// meta reads the meta record of a database; there is false if it has none.
func (st *store) meta(id catalog.ID) (m meta, there bool, err error) {
	b, err := st.tier.Meta(uint64(id))
	if err != nil || b == nil {
		return m, false, err
	}
	m, err = parseMeta(b)
	return m, err == nil, err
}

// writing is a session under way.
type writing struct {
	*stored
	st     *store
	p      *placed
	w      *tier.Writer
	ks     *keyspace.Keyspace
	fresh  bool // the tier holds something else than this content
	graves keyspace.Graves
	saves  []*value.Save // of collections that are stored in parts
	pace   *pace.Pace    // of a sweep
}

// rest lets others go on, for a while if the session may take its time. No lock of a database
// is held.
func (s *writing) rest() {
	if s.pace != nil {
		s.pace.Rest()
	} else {
		runtime.Gosched()
	}
}

// begin opens a session. The lock of the database is held, and d's.
func (st *store) begin(d *stored, p *placed) *writing {
	ks := p.Engine.Keyspace()
	if ks != d.of {
		ks.DropParts()
	}
	return &writing{stored: d, st: st, p: p, w: st.tier.Begin(uint64(p.Engine.ID())), ks: ks, fresh: ks != d.of, graves: ks.TakeGraves()}
}

// bury deletes from the tier what isn't there any more, first of all. The lock of
// the database is not held.
func (s *writing) bury() error {
	if s.fresh {
		there, err := s.st.tier.Has(uint64(s.p.Engine.ID()))
		if err != nil {
			return err
		}
		if there {
			s.w.DeleteAll()
			s.w.Meta(nil)
		}
	}
	for space := range s.graves.Flushed() {
		s.w.DeleteSpace(uint8(space))
	}
	for g := range s.graves.Keys() {
		s.w.Delete(uint8(g.DB), g.Hash, g.Key)
	}
	return nil
}

// seeAll asks the tier for the keys that were written blindly, of those that the session
// puts or that were deleted. It is done before a session commits, and now and then before
// that, so that they don't gather.
func (s *writing) seeAll() error {
	db := s.p.Engine
	db.Lock()
	blind := s.ks.Blind()
	db.Unlock()
	keys := make([]tier.Key, len(blind))
	for i, k := range blind {
		keys[i] = tier.Key{Space: uint8(k.DB), Hash: k.Hash, Key: k.Key}
	}
	const atOnce = 128
	heads := make([][]byte, 0, atOnce)
	for len(blind) > 0 {
		n := min(atOnce, len(blind))
		heads = heads[:0]
		if err := s.st.tier.HeadsOf(uint64(db.ID()), keys[:n], func(_ int, head []byte) error {
			heads = append(heads, bytes.Clone(head))
			return nil
		}); err != nil {
			return err
		}
		db.Lock()
		for i, head := range heads {
			if err := s.ks.Seen(blind[i], head); err != nil {
				db.Unlock()
				return err
			}
		}
		db.Unlock()
		keys, blind = keys[n:], blind[n:]
	}
	return nil
}

// end commits a session, unless err says that it failed.
func (s *writing) end(err error, sync bool) error {
	if err == nil {
		err = s.seeAll()
	}
	if err == nil {
		err = s.p.shard.journal.Sync()
	}
	if err == nil {
		err = s.w.Commit(sync)
	} else {
		s.w.Abort()
	}
	db := s.p.Engine
	db.Lock()
	if err == nil {
		s.ks.Committed()
	} else {
		s.ks.Rebury(s.graves)
		for _, save := range s.saves {
			save.Fail()
		}
	}
	db.Unlock()
	if err != nil {
		return err
	}
	if s.fresh {
		s.of, s.since, s.swept = s.ks, 0, catalog.Position{}
	}
	return nil
}

// session writes to the tier what put puts, behind the graves of the database.
func (st *store) session(p *placed, put func(s *writing) error) error {
	d := st.of(p.Engine)
	d.mu.Lock()
	defer d.mu.Unlock()
	db := p.Engine
	db.Lock()
	if db.State() != engine.Awake || !p.Savable() {
		db.Unlock()
		return errNotSavable
	}
	s := st.begin(d, p)
	db.Unlock()
	err := s.bury()
	if err == nil {
		err = put(s)
	}
	if err == nil {
		err = s.extend()
	}
	return s.end(err, false)
}

// extend says in the meta record that the records are newer now than when they were
// swept.
func (s *writing) extend() error {
	if s.fresh {
		return nil // no sweep yet, no record
	}
	db := s.p.Engine
	m, there, err := s.st.meta(db.ID())
	if err != nil || !there {
		return err
	}
	db.Lock()
	m.end = db.Position()
	db.Unlock()
	s.w.Meta(m.encode())
	return nil
}

// sweep writes to the tier all that has changed since the last complete sweep.
func (st *store) sweep(ctx context.Context, p *placed) (err error) {
	d := st.of(p.Engine)
	d.mu.Lock()
	defer d.mu.Unlock()
	db := p.Engine
	db.Lock()
	if !p.Savable() || db.State() == engine.Waking {
		db.Unlock()
		return errNotSavable
	}
	asleep := db.State() == engine.Asleep
	if asleep && db.FirstUnsaved() == 0 || !asleep && d.complete(db) {
		db.Unlock()
		return nil
	}
	unsaved := db.FirstUnsaved()
	db.SetUnsaved(0)
	d.sweeping = unsaved
	m := meta{from: db.Position(), hash: db.HistoryHash(), clock: db.Clock(), offset: p.shard.journal.Tail(), shards: len(st.node.shards)}
	m.end = m.from
	if complete := p.Complete(); complete.Seq > m.end.Seq {
		m.end = complete
	}
	s := &writing{stored: d, st: st, p: p, ks: db.Keyspace()}
	if !asleep {
		s = st.begin(d, p)
	}
	db.Unlock()
	defer func() {
		db.Lock()
		defer db.Unlock()
		d.sweeping = 0
		if err != nil && unsaved != 0 { // else what was made meanwhile is the oldest
			db.SetUnsaved(unsaved)
		}
	}()
	if asleep {
		return s.moveOn(m)
	}
	st.sweeps.Add(1)
	st.sweeping.Add(1)
	defer st.sweeping.Add(-1)
	if err = s.bury(); err == nil {
		err = s.sweep(ctx, &m)
	}
	if err == nil {
		s.w.Meta(m.encode())
	}
	if err = s.end(err, true); err != nil {
		return err
	}
	d.since, d.swept = m.from.Seq, catalog.Position{}
	if m.from == m.end {
		d.swept = m.end
	}
	p.Owner.Post(func() { p.Saved(m.from) })
	return nil
}

// moveOn writes where the history of a database stands that sleeps: it may have
// become the primary of a new epoch, which changes no key.
func (s *writing) moveOn(m meta) error {
	old, there, err := s.st.meta(s.p.Engine.ID())
	if err != nil {
		return err
	}
	if !there {
		return fmt.Errorf("database %d sleeps, and the tier has no record of it", s.p.Engine.ID())
	}
	m.next, m.keys, m.used, m.spaces = old.next, old.keys, old.used, old.spaces
	if err := s.p.shard.journal.Sync(); err != nil {
		return err
	}
	w := s.st.tier.Begin(uint64(s.p.Engine.ID()))
	w.Meta(m.encode())
	return w.Commit(true)
}

// A sweep takes a database's lock for at most about sliceTime at a time, and looks
// at so many keys before it looks at the clock.
const (
	fewestLooks = 16
	mostLooks   = 4096
)

// sweepShare is how much of a core a sweep takes at most, unless it is in a hurry; putsAtOnce how many
// small records it writes at a stretch; and longJournal how many times the journal that calls
// for a checkpoint there may be before it hurries.
const (
	sweepShare  = 0.5
	putsAtOnce  = 128
	longJournal = 4
)

// hurry reports whether a sweep may not take its time: the tier has nothing of this content yet, memory must be had, or the
// journal gets long.
func (s *writing) hurry() bool {
	n, from := s.st.node, s.sweeping
	return s.fresh || n.keeper.pressed() || from != 0 && s.p.shard.journal.Tail()-from > longJournal*journal.Offset(n.cfg.CheckpointBytes)
}

// sweep puts what changed, and notes in m how the database is at the end.
func (s *writing) sweep(ctx context.Context, m *meta) error {
	db, since := s.p.Engine, s.since
	if s.fresh {
		since = 0
	}
	var at keyspace.Cursor
	var some sweptRecords
	s.pace = restingPace(ctx, sweepShare, &s.st.rested, s.hurry)
	for looks := 64; !at.Done(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		db.Lock()
		if db.Keyspace() != s.ks || db.Err() != nil {
			db.Unlock()
			return fmt.Errorf("the content of database %d was replaced", db.ID())
		}
		began := time.Now()
		some.clear()
		s.ks.Sweep(&at, since, looks, func(r *keyspace.Record) { s.note(some.add(r)) })
		took := time.Since(began)
		if at.Done() {
			m.measure(db)
		}
		db.Unlock()
		s.rest()
		// Without the lock: this may wait for the disk.
		if err := s.seeAll(); err != nil {
			return err
		}
		for i := range some.list {
			if err := s.put(ctx, &some.list[i]); err != nil {
				return err
			}
			if i%putsAtOnce == putsAtOnce-1 {
				s.rest()
			}
		}
		switch {
		case took > sliceTime && looks > fewestLooks:
			looks /= 2
		case took < sliceTime/3 && looks < mostLooks:
			looks *= 2
		}
		s.rest()
	}
	// Parts show also what was written after their record was swept.
	db.Lock()
	defer db.Unlock()
	if pos := db.Position(); pos.Seq > m.end.Seq {
		m.end = pos
	}
	return nil
}

// sweptRecords are some that were copied under a database's lock.
type sweptRecords struct {
	list []keyspace.Record
	buf  []byte
}

func (r *sweptRecords) clear() {
	clear(r.list)
	r.list, r.buf = r.list[:0], r.buf[:0]
	const keep = 4 << 20
	if cap(r.buf) > keep {
		r.buf = nil
	}
}

func (r *sweptRecords) add(rec *keyspace.Record) *keyspace.Record {
	c := *rec
	c.Key, c.Head = r.keep(rec.Key), r.keep(rec.Head)
	if rec.Body != nil {
		c.Body = r.keep(rec.Body)
	}
	r.list = append(r.list, c)
	return &r.list[len(r.list)-1]
}

// keep copies b. When the buffer moves, what was copied before stays where it was.
func (r *sweptRecords) keep(b []byte) []byte {
	at := len(r.buf)
	r.buf = append(r.buf, b...)
	return r.buf[at:len(r.buf):len(r.buf)]
}

// note takes note of what a record of the session needs until the end. The lock of the
// database is held.
func (s *writing) note(r *keyspace.Record) {
	if r.Parts != nil {
		s.saves = append(s.saves, r.Parts)
	}
}

// put writes a record that was noted. The lock of the database is not held.
func (s *writing) put(ctx context.Context, r *keyspace.Record) error {
	switch {
	case r.KeepBody:
		s.w.PutHead(uint8(r.DB), r.Hash, r.Key, r.Head)
		return nil
	case r.Parts != nil:
		if err := s.putParts(ctx, r); err != nil {
			return err
		}
	}
	s.w.Put(uint8(r.DB), r.Hash, r.Key, r.Head, r.Body)
	return nil
}

// partsATurn is about how many bytes of parts are made with the lock held at a time.
const partsATurn = 128 << 10

// putParts writes the parts of a record.
func (s *writing) putParts(ctx context.Context, r *keyspace.Record) error {
	s.w.BeginParts(uint8(r.DB), r.Hash, r.Key, r.Parts.Whole)
	type part struct {
		id   value.PartID
		data []byte
	}
	var some []part
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		some = some[:0]
		db := s.p.Engine
		db.Lock()
		more = r.Parts.Next(partsATurn, func(id value.PartID, data []byte, gone bool) {
			some = append(some, part{id, bytes.Clone(data)}) // nil if it is gone
		})
		db.Unlock()
		for _, p := range some {
			s.w.Part(uint64(p.id), p.data)
		}
		s.rest()
	}
	r.Body = append(slices.Clip(r.Body), r.Parts.Head()...)
	return nil
}
