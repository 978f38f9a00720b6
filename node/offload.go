package node

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vecino/engine"
	"vecino/internal/pace"
	"vecino/keyspace"
	"vecino/session"
	"vecino/slab"
)

// keeper keeps the node within its memory. Two goroutines do that. One looks how
// much there is, often when there is much, and has who adds something wait when
// it comes in faster than it can go. The other lets values leave: it decides who
// gives (shares), has written to the tier what the tier hasn't got, and lets go
// the coldest of what it has.
//
//	bytes in memory
//	  total      crowded from here on: connections that add something wait
//	  data       above it values leave ...
//	  data - 2%  ... down to here
//
// It takes a database's lock for slices that are shorter than what a loop
// notices, and rests between them.
type keeper struct {
	node *Node
	budget
	rng  *rand.Rand
	wake chan struct{}

	target   atomic.Int64 // data, or less while the process takes more than it should
	resident atomic.Int64 // when last looked
	process  atomic.Int64 // what the whole process took when last looked
	crowded  atomic.Bool
	stuck    atomic.Bool // nothing can leave any more

	offloads, offloaded, sunk, relieves, stalls, sleeps atomic.Int64
	rested                                              atomic.Int64 // nanoseconds

	mu     sync.Mutex
	barren map[*engine.DB]barren
}

// barren is a database of which nothing could leave.
type barren struct {
	stays int64 // bytes in memory
	at    time.Time
}

// barrenFor is after how long it is tried again: what was needed may not be any more.
const barrenFor = time.Second

func newKeeper(n *Node, total int64) *keeper {
	k := &keeper{
		node: n, budget: divide(total), rng: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
		wake: make(chan struct{}, 1), barren: make(map[*engine.DB]barren),
	}
	if n.cfg.data > 0 {
		k.data = n.cfg.data
	}
	k.target.Store(k.data)
	return k
}

const (
	lookOften  = 10 * time.Millisecond
	lookRarely = 250 * time.Millisecond
)

// watch looks how much is in memory until ctx ends.
func (k *keeper) watch(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var process time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		if began.Sub(process) > lookRarely {
			process = began
			k.lookAtProcess()
		}
		total, databases := k.look()
		target := k.target.Load()
		if total > target {
			select {
			case k.wake <- struct{}{}:
			default:
			}
		}
		next := lookRarely
		if total > target*8/10 {
			next = lookOften
		}
		if databases > manyDatabases { // looking itself must not take much
			next = max(next, 50*time.Since(began))
		}
		timer.Reset(next)
	}
}

// manyDatabases are so many that looking at all takes a while. With fewer it is
// only a lock that does.
const manyDatabases = 1000

// relieveShare is how much of a core letting values leave takes, unless they come in
// faster than they can go then: they don't leave one by one as others come, but some
// thousands at a time, which without rests is tens of milliseconds.
const relieveShare = 0.25

// newPace is how whoever lets values leave rests, until ctx ends.
func (k *keeper) newPace(ctx context.Context) *pace.Pace {
	return restingPace(ctx, relieveShare, &k.rested, k.hurried)
}

// restingPace is the pace of a worker that rests until ctx ends, and counts in rested for how many
// nanoseconds it has.
func restingPace(ctx context.Context, share float64, rested *atomic.Int64, hurry func() bool) *pace.Pace {
	return pace.New(share, func(d time.Duration) {
		began := time.Now()
		wait(ctx, d)
		rested.Add(int64(time.Since(began)))
	}, hurry)
}

// hurried reports whether letting values leave falls behind.
func (k *keeper) hurried() bool {
	target := k.target.Load()
	return k.resident.Load() > target+target/50
}

// pressed reports whether more is in memory than should be.
func (k *keeper) pressed() bool { return k.resident.Load() > k.target.Load() }

// look adds up what databases hold, and says who may add more.
func (k *keeper) look() (total int64, databases int) {
	list := k.demands()
	for i := range list {
		total += list[i].resident
	}
	k.resident.Store(total)
	target := k.target.Load()
	crowded := k.crowded.Load()
	switch {
	case total > target+target/10:
		crowded = true
	case total <= target+target/50:
		crowded = false
		k.stuck.Store(false)
	}
	if crowded && !k.crowded.Load() {
		k.stalls.Add(1)
	}
	was := k.crowded.Swap(crowded)
	if !was && !crowded {
		return total, len(list)
	}
	room := session.Roomy
	if crowded {
		room = session.Crowded
		if k.stuck.Load() {
			room = session.Full
		}
	}
	demands := make([]demand, len(list))
	for i := range list {
		demands[i] = list[i].demand
	}
	give := shares(demands, target)
	rooms := make(map[*placed]session.Room, len(list))
	for i, d := range list {
		rooms[d.p] = room
		if give[i] == 0 && room == session.Crowded {
			rooms[d.p] = session.Roomy // it pays for nobody
		}
	}
	for _, p := range k.node.all() {
		p.wantRoom(rooms[p]) // of those that fell asleep meanwhile: Roomy
	}
	return total, len(list)
}

// wantRoom has a tenant told how much room there is. Its loop may come to that late, when
// something else is wanted already: then it is told that.
func (p *placed) wantRoom(r session.Room) {
	p.room.Store(uint32(r))
	p.Engine.Lock()
	changes := p.Room() != r
	p.Engine.Unlock()
	if changes {
		p.Owner.Post(func() {
			p.Engine.Lock()
			defer p.Engine.Unlock()
			p.SetRoom(session.Room(p.room.Load()))
		})
	}
}

// lookAtProcess lowers the target when the process as a whole takes more than
// its budget: what was set aside for all the rest doesn't suffice then.
func (k *keeper) lookAtProcess() {
	takes, live := processMemory()
	k.process.Store(takes)
	target := k.target.Load()
	switch over := takes - k.total - k.total/20; {
	case over > 0:
		target = max(target-over/4, k.data*3/4)
	default:
		target = min(target+k.data/50, k.data)
	}
	k.target.Store(target)
	if k.node.cfg.OwnProcess {
		limitProcess(k.total, slab.Held(), live)
	}
}

var processSamples = []string{"/memory/classes/total:bytes", "/memory/classes/heap/released:bytes", "/gc/heap/live:bytes"}

// processMemory is what the process takes of the machine, as far as the runtime
// and slabs know, and how much of it the collector found in use.
func processMemory() (takes, live int64) {
	samples := make([]metrics.Sample, len(processSamples))
	for i, name := range processSamples {
		samples[i].Name = name
	}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64()) - int64(samples[1].Value.Uint64()) + slab.Held(), int64(samples[2].Value.Uint64())
}

// asking is a database that holds memory.
type asking struct {
	demand
	p *placed
}

func (k *keeper) demands() []asking {
	all := k.node.all()
	list := make([]asking, 0, len(all))
	now := time.Now().UnixMilli()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range all {
		db := p.Engine
		db.Lock()
		if db.State() == engine.Awake {
			a := asking{p: p, demand: demand{resident: db.Keyspace().Resident(), idle: time.Duration(now-p.Active()) * time.Millisecond}}
			if b, ok := k.barren[db]; ok {
				if a.fixed = min(b.stays, a.resident); a.resident > b.stays+b.stays/20 || time.Since(b.at) > barrenFor {
					delete(k.barren, db) // it has grown, or time has passed: perhaps something can leave
					a.fixed = 0
				}
			}
			list = append(list, a)
		}
		db.Unlock()
	}
	return list
}

// forget ends what is known of a database that is no tenant any more.
func (k *keeper) forget(db *engine.DB) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.barren, db)
}

// relieve has values leave until enough have, whenever there is too much.
func (k *keeper) relieve(ctx context.Context) {
	rests := k.newPace(ctx)
	fruitless := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		}
		for ctx.Err() == nil {
			list := k.demands()
			total := int64(0)
			demands := make([]demand, len(list))
			for i, a := range list {
				demands[i] = a.demand
				total += a.resident
			}
			target := k.target.Load()
			if total <= target {
				fruitless = 0
				break
			}
			k.relieves.Add(1)
			give := shares(demands, target-target/64)
			freed, order := int64(0), make([]int, len(list))
			for i := range order {
				order[i] = i
			}
			slices.SortFunc(order, func(a, b int) int { return cmp.Compare(give[b], give[a]) })
			for _, i := range order {
				if give[i] == 0 || ctx.Err() != nil {
					break
				}
				// Not all at once: who came to be above its share meanwhile gives too.
				got, err := k.take(ctx, rests, list[i].p, min(give[i], k.data/8+1))
				if err != nil && ctx.Err() == nil {
					k.node.log.Error("values can't leave memory", "db", uint64(list[i].p.Engine.ID()), "err", err.Error())
				}
				freed += got
			}
			if freed > 0 {
				fruitless = 0
				continue
			}
			if k.node.sleepOldest(ctx) {
				fruitless = 0
				continue
			}
			if fruitless++; fruitless >= 3 {
				if k.stuck.CompareAndSwap(false, true) {
					k.node.log.Error("memory is full and nothing more can leave it; writes are refused where databases are above their share", "bytes", total, "budget", k.data, "next", "raise --memory, or move databases to other nodes")
				}
				wait(ctx, time.Second)
				break
			}
			wait(ctx, 50*time.Millisecond)
		}
	}
}

// sliceTime is how long a database's lock is held at a time.
const sliceTime = 200 * time.Microsecond

// take lets want bytes of a database go, if so many can.
func (k *keeper) take(ctx context.Context, rests *pace.Pace, p *placed, want int64) (freed int64, err error) {
	db := p.Engine
	batch, looks := 16, 256
	swept := false
	for misses := 0; freed < want && misses < 8 && ctx.Err() == nil; {
		since := k.node.store.since(p)
		var dirty []candidate
		db.Lock()
		began := time.Now()
		if db.State() != engine.Awake || db.Err() != nil {
			db.Unlock()
			break
		}
		ks := db.Keyspace()
		beyond, gone := k.leave(p, since, looks)
		if !beyond {
			var sunk int
			sunk, gone = k.sink(p, since, looks, false)
			beyond = sunk > 0
		}
		if beyond { // its share
			took := time.Since(began)
			db.Unlock()
			freed += gone
			misses = 0
			looks = paced(looks, took, 32, 2048)
			rests.Rest()
			continue
		}
		ks.Coldest(batch, since, k.rng, func(c *keyspace.Candidate) {
			if !c.Clean {
				dirty = append(dirty, candidate{c.DB, c.Hash, slices.Clone(c.Key), c.Seq})
				return
			}
			if bytes := db.Offload(c.DB, c.Hash, c.Key, c.Seq); bytes > 0 {
				gone += bytes
				k.offloads.Add(1)
			}
		})
		if gone == 0 && len(dirty) == 0 { // what is left are small values, which can go with their keys
			_, gone = k.sink(p, since, looks, true)
		}
		keys, behind := uint64(ks.Keys()), db.Position().Seq-since
		took := time.Since(began)
		db.Unlock()
		freed += gone
		batch = paced(batch, took, 4, 64)
		// What isn't in the tier yet may leave another time, unless it is most, or all there is.
		write := len(dirty) > batch/2 || gone == 0
		switch {
		case gone == 0 && len(dirty) == 0 && behind > keys/8 && !swept:
			swept = true // so that small values can sink
			if err := k.node.store.sweep(ctx, p); err != nil {
				return freed, err
			}
		case gone == 0 && len(dirty) == 0:
			misses++
		case write && behind > keys/8 && !swept:
			// Much of it is not in the tier. All at once is cheaper then than one by
			// one.
			swept = true
			if err := k.node.store.sweep(ctx, p); err != nil {
				return freed, err
			}
		case write:
			got, err := k.write(ctx, rests, p, dirty, want-freed)
			freed += got
			if err != nil {
				return freed, err
			}
			if got == 0 {
				misses++
			}
		default:
			misses = 0
		}
		rests.Rest()
	}
	k.offloaded.Add(freed)
	if freed == 0 && ctx.Err() == nil {
		db.Lock()
		stays := db.Keyspace().Resident()
		db.Unlock()
		k.mu.Lock()
		k.barren[db] = barren{stays, time.Now()}
		k.mu.Unlock()
	}
	return freed, nil
}

// stubBytes is about how much a record takes in memory whose value is on disk, with its
// place in the table.
const stubBytes = 64

// stubShare is which part of what a database holds in memory may be records whose
// values are on disk. Beyond, those sink that weren't used for longest.
const stubShare = 1.0 / 32

// guestShare is which part may be values that came back from the tier and weren't used
// again. Beyond, those leave first that came first.
const guestShare = 1.0 / 32

// sink has keys of a primary sink, and returns how many bytes that frees: of records
// whose values are on disk, if there are more than may stay; or with small, of
// those, too, that are so small that their values don't leave memory otherwise. The lock of
// the database is held.
func (k *keeper) sink(p *placed, since uint64, looks int, small bool) (keys int, freed int64) {
	if !p.IsPrimary() {
		return 0, 0
	}
	ks := p.Engine.Keyspace()
	stubs, stay := float64(ks.Stubs())*stubBytes, float64(ks.Resident())*stubShare
	part := 0.25
	if !small {
		if stubs <= stay {
			return 0, 0
		}
		part = max((stubs-stay)/stubs, part)
	}
	keys, freed = p.Engine.Sink(keyspace.Sinking{Looks: looks, Part: part, Since: since, Small: small}, time.Now().UnixMilli())
	k.sunk.Add(int64(keys))
	return keys, freed
}

// leave has guests leave of the first n that came, if there are more than may stay, and
// returns how many bytes that frees. The lock of the database is held.
func (k *keeper) leave(p *placed, since uint64, n int) (beyond bool, freed int64) {
	if ks := p.Engine.Keyspace(); float64(ks.Guests()) <= float64(ks.Resident())*guestShare {
		return false, 0
	}
	values, keys, freed := p.Engine.Leave(n, since, p.IsPrimary(), time.Now().UnixMilli())
	k.offloads.Add(int64(values))
	k.sunk.Add(int64(keys))
	return true, freed
}

// paced is how much to do the next time with a lock held, when n took so long.
func paced(n int, took time.Duration, least, most int) int {
	switch {
	case took > sliceTime && n > least:
		return n / 2
	case took < sliceTime/3 && n < most:
		return n * 2
	}
	return n
}

// candidate is a key whose value is to leave and isn't in the tier.
type candidate struct {
	db   int
	hash uint64
	key  []byte
	seq  uint64
}

// writeBytes is about how much one session for single keys writes.
const writeBytes = 4 << 20

// write brings single keys to the tier and lets go their values.
func (k *keeper) write(ctx context.Context, rests *pace.Pace, p *placed, keys []candidate, want int64) (freed int64, err error) {
	db := p.Engine
	more := func(limit int) {
		since := k.node.store.since(p)
		db.Lock()
		defer db.Unlock()
		if db.State() == engine.Awake {
			db.Keyspace().Coldest(limit, since, k.rng, func(c *keyspace.Candidate) {
				if !c.Clean {
					keys = append(keys, candidate{c.DB, c.Hash, slices.Clone(c.Key), c.Seq})
				}
			})
		}
	}
	for range 64 {
		more(32)
	}
	slices.SortFunc(keys, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.db, b.db), cmp.Compare(a.hash, b.hash), slices.Compare(a.key, b.key))
	})
	keys = slices.CompactFunc(keys, func(a, b candidate) bool { return a.db == b.db && a.hash == b.hash && string(a.key) == string(b.key) })
	written := keys[:0]
	var some sweptRecords
	err = k.node.store.session(p, func(s *writing) error {
		bytes := 0
		for len(keys) > 0 && bytes < writeBytes && ctx.Err() == nil {
			some.clear()
			db.Lock()
			if db.Keyspace() != s.ks {
				db.Unlock()
				return fmt.Errorf("the content of database %d was replaced", db.ID())
			}
			for began := time.Now(); len(keys) > 0 && bytes < writeBytes && time.Since(began) < sliceTime; keys = keys[1:] {
				c := keys[0]
				if s.ks.SweepKey(c.db, c.hash, c.key, func(r *keyspace.Record) {
					if r.KeepBody {
						return
					}
					s.note(some.add(r))
					bytes += len(r.Body)
					c.seq = r.Seq
				}) {
					written = append(written, c)
				}
			}
			db.Unlock()
			for i := range some.list {
				if err := s.put(ctx, &some.list[i]); err != nil {
					return err
				}
			}
			rests.Rest()
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for len(written) > 0 {
		db.Lock()
		for began := time.Now(); len(written) > 0 && time.Since(began) < sliceTime; written = written[1:] {
			c := written[0]
			if bytes := db.Offload(c.db, c.hash, c.key, c.seq); bytes > 0 {
				freed += bytes
				k.offloads.Add(1)
			}
		}
		db.Unlock()
		rests.Rest()
	}
	return freed, nil
}
