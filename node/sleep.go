package node

import (
	"cmp"
	"container/heap"
	"context"
	"maps"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vecino/api"
	"vecino/catalog"
	"vecino/engine"
	"vecino/loop"
)

// A database that nobody uses goes to sleep in two steps. First its content: all of
// it is in the tier, and its tenant stays for those who are connected. When nobody
// is, the tenant goes as well, and what is left is its record and a sleeper, which
// hold no pointers and cost next to nothing. A node begins with sleepers too.
//
//	tenant, awake ── idle ──> tenant, asleep ── nobody connected ──> sleeper
//	     ^                       |       ^                              |
//	     +── command or frame ───+       +── connection or frame ───────+
//	                                         deadline, change of its record
//
// A sleeper that is needed becomes a tenant on its loop at once, without any look
// at the disk; who then needs its content waits for that as always.
type sleeper struct {
	pos, complete catalog.Position
	hash          uint64
	clock, next   int64 // next deadline, 0 for none
	keys, used    int64
}

// bedroom is the sleepers of a node, and when they are to be woken.
type bedroom struct {
	sleepers map[catalog.ID]sleeper
	alarms   alarms
	news     []catalog.ID // that the fleet hasn't heard of
	turn     []catalog.ID // that it is still to hear of again, in this round
}

// alarm is a deadline of a sleeper. It is void if the sleeper has another by then,
// or isn't one any more.
type alarm struct {
	at int64
	id catalog.ID
}

type alarms []alarm

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].at < a[j].at }
func (a alarms) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *alarms) Push(x any)        { *a = append(*a, x.(alarm)) }
func (a *alarms) Pop() any {
	old := *a
	x := old[len(old)-1]
	*a = old[:len(old)-1]
	return x
}

// putAsleep makes a database a sleeper.
func (n *Node) putAsleep(id catalog.ID, s sleeper) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bed(id, s)
}

// bed is putAsleep with the lock held.
func (n *Node) bed(id catalog.ID, s sleeper) {
	b := &n.mu.bedroom
	b.sleepers[id] = s
	if len(b.news) <= len(b.sleepers) { // else they come and go faster than can be told
		b.news = append(b.news, id)
	}
	if s.next != 0 {
		heap.Push(&b.alarms, alarm{s.next, id})
	}
}

// takeSleeper ends that a database is a sleeper.
func (n *Node) takeSleeper(id catalog.ID) (s sleeper, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s, ok = n.mu.bedroom.sleepers[id]; ok {
		delete(n.mu.bedroom.sleepers, id)
	}
	return s, ok
}

func (n *Node) sleeps(id catalog.ID) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	_, ok := n.mu.bedroom.sleepers[id]
	return ok
}

// rouse makes a sleeper a tenant again, on its loop's thread. It returns nil if the
// database doesn't live here.
func (s *shard) rouse(id catalog.ID) *placed {
	n := s.node
	if p := n.find(id); p != nil {
		return p
	}
	if !n.sleeps(id) || s.parting[id] != nil {
		return nil
	}
	rec, ok := n.records.database(id)
	if !ok {
		return nil
	}
	s.settleIn(rec)
	return n.find(id)
}

// due are the sleepers that have a deadline in the past, at most so many.
func (n *Node) due(now int64, most int) (ids []catalog.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := &n.mu.bedroom
	for len(b.alarms) > 0 && b.alarms[0].at < now && len(ids) < most {
		a := heap.Pop(&b.alarms).(alarm)
		if s, ok := b.sleepers[a.id]; ok && s.next == a.at {
			ids = append(ids, a.id)
		}
	}
	return ids
}

// wakesAtOnce is how many databases are woken in a tenth of a second because one of
// their keys has expired: what nobody asks for must not hold up what somebody does.
const wakesAtOnce = 32

// ring wakes the databases whose keys expire, until ctx ends.
func (n *Node) ring(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, id := range n.due(time.Now().UnixMilli(), wakesAtOnce) {
			s := n.shardOf(id)
			s.loop.Post(func() { s.rouse(id) }) // and its first tick sees the deadline
		}
	}
}

// hibernate puts databases to sleep that have been idle for long, until ctx ends.
func (n *Node) hibernate(ctx context.Context) {
	if n.cfg.Idle <= 0 {
		return
	}
	tick := time.NewTicker(min(max(n.cfg.Idle/10, 20*time.Millisecond), 10*time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n.layDownIdle(ctx, time.Now().Add(-n.cfg.Idle).UnixMilli())
		n.giveBack()
	}
}

// sleepsAtOnce is how many databases fall asleep at a time. Each waits for the disk, and
// those that wait at the same time share a sync.
const sleepsAtOnce = 16

// layDownIdle puts to sleep who has been idle since before.
func (n *Node) layDownIdle(ctx context.Context, before int64) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	slots := make(chan struct{}, sleepsAtOnce)
	for _, p := range n.all() {
		if ctx.Err() != nil {
			return
		}
		if p.Active() > before {
			continue
		}
		slots <- struct{}{}
		tasks.Go(func() {
			n.layDown(ctx, p, before)
			<-slots
		})
	}
}

// leftovers is what databases that fell asleep have left behind: garbage, and room in
// maps, which keep what they ever had.
type leftovers struct {
	of   atomic.Int64 // databases since memory was given back
	seen int64        // of them, when last looked
	gave time.Time
}

const (
	manyLeftovers = 1000             // with fewer it isn't worth a collection
	giveBackEvery = 10 * time.Second // while more and more fall asleep
)

// giveBack returns to the system what many have left behind, once no more fall asleep or
// from time to time. The runtime alone would take minutes, and maps would keep it.
func (n *Node) giveBack() {
	l := &n.leftovers
	of := l.of.Load()
	more := of != l.seen
	l.seen = of
	if of < manyLeftovers || more && time.Since(l.gave) < giveBackEvery {
		return
	}
	l.of.Add(-of)
	l.seen, l.gave = l.of.Load(), time.Now()
	n.mu.Lock()
	fits := 4*len(n.mu.byID) > n.mu.most
	if !fits {
		n.mu.byID, n.mu.most = fitted(n.mu.byID), len(n.mu.byID)
	}
	n.mu.Unlock()
	if !fits { // few tenants are left
		n.store.fit()
		for _, s := range n.shards {
			s.do(s.fit)
		}
	}
	if n.cfg.OwnProcess {
		debug.FreeOSMemory()
	}
}

// fitted is a map with no more room than it needs.
func fitted[K comparable, V any](m map[K]V) map[K]V {
	n := make(map[K]V, len(m))
	maps.Copy(n, m)
	return n
}

// sleepOldest puts the database to sleep that has been idle for longest, though not
// for as long as usual: its keys alone are too much now.
func (n *Node) sleepOldest(ctx context.Context) bool {
	all := n.all()
	slices.SortFunc(all, func(a, b *placed) int { return cmp.Compare(a.Active(), b.Active()) })
	before := time.Now().Add(-leastIdle).UnixMilli()
	for _, p := range all {
		if p.Active() > before || ctx.Err() != nil {
			return false
		}
		if n.layDown(ctx, p, before) {
			return true
		}
	}
	return false
}

// leastIdle is how long a database has been idle before it is put to sleep for want
// of memory.
const leastIdle = 2 * time.Second

// layDown puts one database to sleep if it has been idle since before, and reports
// whether its content left memory.
func (n *Node) layDown(ctx context.Context, p *placed, before int64) (slept bool) {
	db := p.Engine
	db.Lock()
	state := db.State()
	db.Unlock()
	if state == engine.Waking || !n.saver.try(ctx, p) {
		return false
	}
	// No session with the tier may be under way: the database is only asleep when
	// what it last wrote has been committed.
	unlock := n.store.lock(db)
	defer unlock()
	done := make(chan bool, 1)
	if !p.Owner.Post(func() {
		db.Lock()
		defer db.Unlock()
		if p.Active() > before || n.find(db.ID()) != p {
			done <- false
			return
		}
		slept := db.State() == engine.Awake && n.store.complete(db) && p.Sleep()
		if !n.cfg.Standalone && p.Vacant() {
			p.Owner.Settle(func() { p.shard.layOff(p, before) })
		}
		done <- slept
	}) {
		return false
	}
	select {
	case slept = <-done:
	case <-ctx.Done():
		return false
	}
	if slept {
		n.slept.Add(1)
		n.leftovers.of.Add(1)
	}
	return slept
}

// layOff makes a sleeper of a tenant whose database sleeps and that nobody needs.
// It is for the loop's thread.
func (s *shard) layOff(p *placed, before int64) {
	n, db, id := s.node, p.Engine, p.Engine.ID()
	if n.find(id) != p || !p.Here() || s.tenants[id] != p.Tenant {
		return
	}
	db.Lock()
	if p.Active() > before || !p.Vacant() || s.isDirty(p) {
		db.Unlock()
		return
	}
	sizes := db.Sizes()
	sl := sleeper{
		pos: db.Position(), complete: p.Complete(), hash: db.HistoryHash(), clock: db.Clock(), next: db.NextExpiry(),
		keys: sizes.Keys, used: sizes.Used,
	}
	db.Unlock()
	s.strike(p.Tenant)
	p.Close()
	n.store.forget(db)
	n.keeper.forget(db)
	n.leftovers.of.Add(1)
	n.mu.Lock()
	delete(n.mu.byID, id)
	n.bed(id, sl)
	n.mu.Unlock()
}

// isDirty reports whether the shard is still to do something for a tenant.
func (s *shard) isDirty(p *placed) bool {
	if _, unsafe := s.unsafe[p.Tenant]; unsafe {
		return true
	}
	if _, syncing := s.syncing[p.Tenant]; syncing {
		return true
	}
	return slices.Contains(s.dirty, p.Tenant)
}

// moveIn brings a connection to a database that was a sleeper when the header named
// it. c is on shard 0, with no owner.
func (n *Node) moveIn(c *loop.Conn, id catalog.ID, client netip.AddrPort) {
	a := &arrival{node: n, client: client}
	c.SetHandler(&inLobby{})
	c.Hold()
	s := n.shardOf(id)
	s.loop.Post(func() {
		p := s.rouse(id)
		c.Post(func() {
			if c.Closed() {
				return
			}
			if p == nil {
				n.refused.unknown.Add(1)
				c.Close()
				return
			}
			a.to = p
			c.SetHandler(a)
			c.Resume()
			c.GiveTo(p.Owner)
			c.Post(func() { a.open(c) })
		})
	})
}

// inLobby is a connection whose database is getting up.
type inLobby struct{}

func (inLobby) Data(*loop.Conn, []byte) int { return 0 }
func (inLobby) Closed(*loop.Conn, error)    {}

// address is how an address is written in the maps of many: without pointers.
type address [16]byte

// statusOfSleepers lists what the fleet is to hear of sleepers: at once of those that
// just became some, of the others in turn, so that a fleet that was started anew hears
// of all within some minutes and a hundred thousand cost little.
func (n *Node) statusOfSleepers(most int) (list []api.CopyStatus) {
	for _, st := range n.toldNext(most) {
		rec, ok := n.records.database(st.id)
		if !ok {
			continue
		}
		c := rec.CopyOn(n.cfg.ID)
		if c == nil {
			continue
		}
		list = append(list, api.CopyStatus{
			Database: st.id, Generation: c.Generation, Role: c.Role, State: catalog.Live, Applied: st.pos, Head: st.pos, Bytes: st.used, Keys: st.keys,
			Asleep: true, ColdKeys: st.keys, ColdBytes: st.used, HitRatio: 1,
		})
	}
	return list
}

// remindersASecond is of how many sleepers the fleet hears again in a second.
const remindersASecond = 200

type namedSleeper struct {
	id catalog.ID
	sleeper
}

// toldNext takes from the lists the sleepers that the fleet hears of next.
func (n *Node) toldNext(most int) (list []namedSleeper) {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := &n.mu.bedroom
	if len(b.news) == 0 {
		most = min(most, remindersASecond)
		if len(b.turn) == 0 {
			for id := range b.sleepers {
				b.turn = append(b.turn, id)
			}
			if len(b.turn) < most {
				most = min(most, len(b.turn)/10+1) // a few sleepers needn't be told every second
			}
		}
	}
	for len(list) < most && len(b.news)+len(b.turn) > 0 {
		from := &b.news
		if len(b.news) == 0 {
			from = &b.turn
		}
		id := (*from)[len(*from)-1]
		*from = (*from)[:len(*from)-1]
		if s, ok := b.sleepers[id]; ok {
			list = append(list, namedSleeper{id, s})
		}
	}
	return list
}
