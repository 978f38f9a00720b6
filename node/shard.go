package node

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vecino/catalog"
	"vecino/engine"
	"vecino/journal"
	"vecino/loop"
	"vecino/session"
)

// shard is a loop, its journal, and the tenants that are pinned to it.
type shard struct {
	node    *Node
	index   int
	loop    *loop.Loop
	journal *journal.Journal

	// For the loop's thread.
	tenants map[catalog.ID]*session.Tenant
	dirty   []*session.Tenant
	unsafe  map[*session.Tenant]struct{}   // whose last changes could not be committed
	syncing map[*session.Tenant]struct{}   // whose last changes are to be on disk
	parting map[catalog.ID]*session.Tenant // that are to be closed
	order   []*session.Tenant              // all, to be ticked in turn
	at      map[*session.Tenant]int        // in order
	turn    int
	lively  map[*session.Tenant]int64 // those that did something lately, and when
	failed  bool                      // the last commit failed

	want journal.Offset // that the journal is to sync in its time
	kick bool           // or now

	synced  atomic.Uint64 // what OnSync said last
	telling atomic.Bool   // the loop will look at it, or whoever is in syncHere
	waiting bool          // somebody is in syncHere
	crowded int64         // when somebody else than those who wait for a sync was last served

	recovering sync.Mutex
	recovered  map[catalog.ID]*recovered // until the node knows what lives here; under recovering while journals are replayed
}

func defaultLoops() int { return runtime.GOMAXPROCS(0) }

func newShard(n *Node, index int) (s *shard, err error) {
	s = &shard{node: n, index: index, tenants: make(map[catalog.ID]*session.Tenant), unsafe: make(map[*session.Tenant]struct{}), lively: make(map[*session.Tenant]int64), at: make(map[*session.Tenant]int), syncing: make(map[*session.Tenant]struct{}), parting: make(map[catalog.ID]*session.Tenant), recovered: make(map[catalog.ID]*recovered)}
	if s.journal, err = journal.Open(n.fs, n.journalDir(index), journal.Options{
		SegmentBytes: n.cfg.SegmentBytes, Log: n.log, OnlyWanted: true, OnSync: s.onSync, OnSyncFailed: s.onSyncFailed,
	}); err != nil {
		return nil, err
	}
	s.loop, err = loop.New(loop.Options{
		BeforeFlush: s.beforeFlush,
		Scratch:     func() any { return new(session.Scratch) },
		AcceptError: func(err error) { n.log.Error("can't accept connections", "err", err.Error()) },
	})
	if err != nil {
		return nil, fmt.Errorf("shard %d: %w", index, err)
	}
	return s, nil
}

// tickEvery is how often lively tenants are told that time has passed; the
// others are told once in idleTicks, and a tenant is lively for as long after
// it did something.
const (
	tickEvery = 100 * time.Millisecond
	idleTicks = 10
)

func (s *shard) run(ctx context.Context) {
	s.loop.Post(s.tick)
	if err := s.loop.Run(ctx); err != nil {
		s.node.log.Error("loop ended", "shard", s.index, "err", err.Error())
	}
}

func (s *shard) tick() {
	now := s.loop.NowMS()
	for t, since := range s.lively {
		if now-since > idleTicks*tickEvery.Milliseconds() || s.tenants[t.Engine.ID()] != t {
			delete(s.lively, t)
			continue
		}
		t.Do(t.Tick)
	}
	for range (len(s.order) + idleTicks - 1) / idleTicks { // a turn doesn't take anybody off the list
		s.turn++
		if s.turn >= len(s.order) {
			s.turn = 0
		}
		t := s.order[s.turn]
		t.Do(t.Tick)
	}
	s.loop.After(tickEvery, s.tick)
}

// beforeFlush makes what a batch wrote safe before anybody hears of it: one
// write of the journal for all databases, then the entries to the replicas,
// then the replies. Where a database's durability is "always", these two wait
// for a sync, which goes on in the background unless all wait for it; see session/durable.go.
func (s *shard) beforeFlush(*loop.Loop) {
	if len(s.dirty)+len(s.unsafe) == 0 {
		return
	}
	err := s.journal.Commit()
	here := err == nil && s.onlyWaiters()
	if here && !s.syncHere() {
		return
	}
	var written journal.Offset
	if err != nil {
		written = s.journal.Written()
		if !s.failed {
			s.node.log.Error("journal can't be written; writes are refused", "shard", s.index, "err", err.Error())
		}
	}
	s.failed = err != nil
	now := s.loop.NowMS()
	later := s.dirty[:0]
	for _, t := range s.dirty {
		if !t.Here() {
			later = append(later, t) // nothing of it leaves before it is back
			continue
		}
		if since := s.lively[t]; now-since > tickEvery.Milliseconds() {
			s.lively[t] = now
		}
		if err != nil && t.Unsynced() > written {
			// Nothing of this batch may be answered as if it were safe, nor may
			// a replica have it before this node is sure to keep it.
			t.Fail(err)
			s.unsafe[t] = struct{}{}
			continue
		}
		t.Flush()
		s.await(t)
	}
	clear(s.dirty[len(later):])
	s.dirty = later
	if err == nil && len(s.unsafe) > 0 {
		for t := range s.unsafe {
			if t.Here() {
				delete(s.unsafe, t)
				t.Flush()
				s.await(t)
			}
		}
	}
	if here && len(s.syncing) > 0 {
		s.kick = false
		s.tellSynced()
	}
	if s.want > 0 {
		s.journal.Want(s.want)
		s.want = 0
	}
	if s.kick {
		s.journal.KickSync()
		s.kick = false
	}
}

// crowdedFor is for how many milliseconds a loop leaves syncs to the background
// after it has served somebody who doesn't wait for them, or was taken over during one.
const crowdedFor = 100

// onlyWaiters reports whether the batch made something that must be on disk, and
// whoever the loop has served lately waits for that. Then nobody loses anything if the loop waits
// too: nothing wakes it in between, and nothing has to be held and let go. What comes meanwhile, it
// finds together when it is back.
func (s *shard) onlyWaiters() bool {
	waiters := 0
	for _, t := range s.dirty {
		n, ok := 0, false
		if t.Here() {
			n, ok = t.Waiters()
		}
		if !ok {
			s.crowded = s.loop.NowMS()
			return false
		}
		waiters += n
	}
	if s.loop.Heard() > waiters {
		s.crowded = s.loop.NowMS()
		return false
	}
	return waiters > 0 && !s.waiting && s.loop.NowMS()-s.crowded > crowdedFor
}

// syncHere syncs what has been committed, on the loop. If that fails, the batch is
// as one whose sync has failed in the background. If it takes long, the loop is taken over, syncHere returns
// false, and the batch waits in the background.
func (s *shard) syncHere() (mine bool) {
	s.waiting = true
	s.telling.Store(true)
	mine = s.loop.Wait(func() { _ = s.journal.Sync() }) // onSyncFailed has the error
	s.telling.Store(false)
	if !mine {
		s.loop.Post(func() {
			s.waiting, s.crowded = false, s.loop.NowMS()
			s.tellSynced()
		})
		return false
	}
	s.waiting = false
	synced := journal.Offset(s.synced.Load())
	for _, t := range s.dirty {
		t.OnDisk(synced)
	}
	return true
}

// await has what a tenant has committed synced when its durability says so, and
// the tenant told.
func (s *shard) await(t *session.Tenant) {
	off := t.Unsynced()
	if off == 0 {
		return
	}
	switch t.Durability() {
	case catalog.SyncAlways:
		s.kick = true
	case catalog.SyncEverySec:
		s.want = max(s.want, off)
	}
	s.syncing[t] = struct{}{}
}

// onSync is called by the journal, on any goroutine. However often that is before
// the loop comes to it, one letter does.
func (s *shard) onSync(off journal.Offset) {
	s.synced.Store(uint64(off))
	if s.telling.CompareAndSwap(false, true) {
		s.loop.Post(s.tellSynced)
	}
}

func (s *shard) tellSynced() {
	s.telling.Store(false)
	for t := range s.syncing {
		if s.tenants[t.Engine.ID()] != t {
			delete(s.syncing, t)
			continue
		}
		t.Do(func() {
			t.Synced(journal.Offset(s.synced.Load()))
			t.Owner.Settle(func() {
				if t.Unsynced() == 0 {
					delete(s.syncing, t)
				}
			})
		})
	}
}

func (s *shard) onSyncFailed(err error) {
	s.loop.Post(func() {
		for t := range s.syncing {
			t.Do(func() { t.SyncFailed(err) })
		}
	})
}

func (s *shard) close() error {
	s.loop.Close()
	if err := s.journal.Close(); err != nil {
		return fmt.Errorf("close journal %d: %w", s.index, err)
	}
	return nil
}

// place makes or updates the tenant of a record, from any goroutine; it
// returns when the tenant serves.
func (n *Node) place(rec *catalog.Database) {
	if s := n.placeSoon(rec); s != nil {
		s.catchUp()
	}
}

// placeSoon is place, but for a new tenant it doesn't wait: it returns the shard on
// which that is going to serve.
func (n *Node) placeSoon(rec *catalog.Database) *shard {
	// The seed of its hashes must be known before its first entry is written.
	rec, changed := n.records.put(rec)
	p := n.find(rec.ID)
	if p == nil && !changed && n.sleeps(rec.ID) {
		n.index(rec, nil)
		return nil
	}
	if p != nil {
		n.index(rec, p)
		p.do(func() {
			if p.Record().Revision <= rec.Revision {
				p.Update(*rec)
			}
		})
		return nil
	}
	s := n.shardOf(rec.ID)
	s.loop.Post(func() {
		if old := s.parting[rec.ID]; old != nil {
			old.Do(func() { old.Owner.Settle(func() { s.settleIn(rec) }) })
			return
		}
		s.settleIn(rec)
	})
	return s
}

// catchUp returns when the shard has done what it was asked for before.
func (s *shard) catchUp() { s.do(func() {}) }

// settleIn makes the tenant of a record, unless there is one.
func (s *shard) settleIn(rec *catalog.Database) {
	if t := s.tenants[rec.ID]; t != nil {
		t.Do(func() {
			if t.Record().Revision < rec.Revision {
				t.Update(*rec)
			}
		})
		return
	}
	slept := s.node.sleeps(rec.ID) // then the fleet knows its state
	t := s.newTenant(rec)
	s.tenants[rec.ID] = t
	s.at[t] = len(s.order)
	s.order = append(s.order, t)
	t.Update(*rec)
	s.node.index(rec, &placed{Tenant: t, shard: s})
	if !slept {
		s.node.Changed(t)
	}
}

// newTenant makes a tenant of what recovery found, or an empty one.
func (s *shard) newTenant(rec *catalog.Database) *session.Tenant {
	r := s.recovered[rec.ID]
	delete(s.recovered, rec.ID)
	if r == nil {
		r = &recovered{db: s.newEngine(rec.ID, rec.HashSeed)}
		if sl, ok := s.node.takeSleeper(rec.ID); ok {
			r.db.Put(sl.pos, sl.hash, sl.clock, sl.next, engine.Sizes{Keys: sl.keys, Used: sl.used, ColdKeys: int(sl.keys), ColdBytes: sl.used})
			r.complete = sl.complete
		}
	}
	t := session.NewTenant(s.node, r.db, s.loop, s.node.log, *rec, r.complete, r.db.Position().Seq > 0)
	t.Lost = r.lost != nil
	return t
}

func (s *shard) newEngine(id catalog.ID, seed uint64) *engine.DB {
	return engine.New(engine.Config{ID: id, HashSeed: seed, Log: s.journal, Logger: s.node.log, Storage: s.node.fetcher})
}

// index lets connections find a tenant, or a sleeper if p is nil.
func (n *Node) index(rec *catalog.Database, p *placed) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p != nil {
		n.mu.byID[rec.ID] = p
		n.mu.most = max(n.mu.most, len(n.mu.byID))
	}
	n.mu.byAddr[rec.Address.As16()] = rec.ID
}

// remove ends a tenant that doesn't live here any more, with its data.
func (n *Node) remove(id catalog.ID) {
	n.retire(id)
	n.saver.forget(id)
	if err := n.store.tier.Drop(uint64(id)); err != nil {
		n.log.Warn("can't remove a database from the tier", "db", uint64(id), "err", err.Error())
	}
	n.records.remove(id)
}

// retire ends a tenant and leaves its data.
func (n *Node) retire(id catalog.ID) {
	if rec, ok := n.records.database(id); ok {
		n.shardOf(id).do(func() { // where sleepers get up
			n.mu.Lock()
			delete(n.mu.bedroom.sleepers, id)
			if addr := rec.Address.As16(); n.mu.byAddr[addr] == id {
				delete(n.mu.byAddr, addr)
			}
			n.mu.Unlock()
		})
	}
	p := n.find(id)
	if p == nil {
		return
	}
	n.mu.Lock()
	delete(n.mu.byID, id)
	n.mu.Unlock()
	p.shard.do(func() { p.shard.forget(p.Tenant) })
	p.do(func() {
		p.Close()
		p.Owner.Settle(func() { delete(p.shard.parting, id) })
		n.store.forget(p.Engine)
		n.keeper.forget(p.Engine)
	})
}

// forget takes a tenant off the shard's lists.
func (s *shard) forget(t *session.Tenant) {
	s.parting[t.Engine.ID()] = t
	s.strike(t)
}

// strike is forget for a tenant that need not be waited for.
func (s *shard) strike(t *session.Tenant) {
	delete(s.tenants, t.Engine.ID())
	delete(s.lively, t)
	i, ok := s.at[t]
	if !ok {
		return
	}
	delete(s.at, t)
	last := len(s.order) - 1
	if s.order[i] = s.order[last]; i < last {
		s.at[s.order[i]] = i
	}
	s.order[last] = nil
	s.order = s.order[:last]
}

// fit gives back room that there is for many more tenants. It is for the loop's thread.
func (s *shard) fit() {
	s.tenants, s.at, s.lively = fitted(s.tenants), fitted(s.at), fitted(s.lively)
	s.unsafe, s.syncing, s.parting = fitted(s.unsafe), fitted(s.syncing), fitted(s.parting)
	s.order = slices.Clip(slices.Clone(s.order))
	if len(s.dirty) == 0 {
		s.dirty = nil
	}
}

// do runs fn on the shard's loop and waits for it. It returns at once when
// the loop has ended.
func (s *shard) do(fn func()) {
	done := make(chan struct{})
	if s.loop.Post(func() { defer close(done); fn() }) {
		<-done
	}
}

// do runs fn in a turn of the tenant and waits for it, or at once returns if
// one of the tenant's commands holds that up: fn then runs behind it.
func (p *placed) do(fn func()) {
	ended := make(chan struct{})
	done := sync.OnceFunc(func() { close(ended) })
	if p.shard.loop.Post(func() {
		p.Do(func() { defer done(); fn() })
		if !p.Here() {
			done()
		}
	}) {
		<-ended
	}
}
