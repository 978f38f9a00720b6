package keyspace

import (
	"cmp"
	"slices"

	"vecino/eviction"
	"vecino/slab"
	"vecino/value"
)

// evictor is how a database gives up keys when it is full.
type evictor struct {
	policy  eviction.Policy
	samples int
	lfu     eviction.Stamp // since when an LFU policy counts
	pool    *eviction.Pool // nil until needed
}

// SetEviction says which keys go when the database is full, and of how many
// samples each is chosen, 0 for eviction.Samples.
func (ks *Keyspace) SetEviction(policy eviction.Policy, samples int) {
	if policy.LFU() && !ks.evict.policy.LFU() {
		ks.evict.lfu = ks.clock
	}
	if policy != ks.evict.policy {
		ks.evict.pool = nil
	}
	ks.evict.policy = policy
	ks.evict.samples = min(cmp.Or(max(samples, 0), eviction.Samples), eviction.MaxSamples)
}

// Eviction is the policy.
func (ks *Keyspace) Eviction() eviction.Policy { return ks.evict.policy }

// newStamp is the access stamp of a key that comes to be.
func (ks *Keyspace) newStamp() eviction.Stamp {
	if ks.evict.policy.LFU() {
		return eviction.NewLFU(ks.clock)
	}
	return ks.clock
}

// stamp is a record's access stamp under an LFU policy: one from before there was
// one says nothing of how often.
func (ks *Keyspace) stamp(r slab.Rec) eviction.Stamp {
	access := eviction.Stamp(r.Clock())
	if int32(access-ks.evict.lfu) < 0 && access&^0xff != ks.evict.lfu&^0xff {
		return eviction.NewLFU(access)
	}
	return access
}

// Evict deletes one key to make room, as the policy says. It reports false
// when the policy knows of none that may go.
func (tx *Tx) Evict() bool {
	home := tx.db
	defer func() { tx.db = home }()
	db, r := tx.ks.victim(tx.rng)
	if r == 0 {
		return false
	}
	tx.db = db
	tx.ks.Stats.Evicted++
	tx.remove(tx.ks.spaces[db].at(r), byEviction)
	return true
}

// victim chooses the key that goes.
func (ks *Keyspace) victim(rng value.Rand) (db int, r slab.Rec) {
	switch policy := ks.evict.policy; {
	case policy == eviction.NoEviction:
		return 0, 0
	case policy == eviction.VolatileTTL:
		return ks.soonest()
	case policy == eviction.OptimisticVolatile:
		if db, r = ks.random(rng, true); r != 0 {
			return db, r
		}
		return ks.random(rng, false)
	case policy.LRU() || policy.LFU():
		return ks.best(rng)
	default:
		return ks.random(rng, policy.Volatile())
	}
}

// population is how many keys of a logical database may be chosen.
func (sp *space) population(volatile bool) int {
	switch {
	case sp == nil:
		return 0
	case volatile:
		return sp.slab.Timed()
	}
	return sp.slab.Len()
}

// sample is a key of a logical database that has some, each as likely as any
// other.
func (sp *space) sample(rng value.Rand, volatile bool) slab.Rec {
	if volatile {
		return sp.slab.RandomTimed(rng)
	}
	return sp.slab.Random(rng)
}

// random chooses among the keys of all logical databases.
func (ks *Keyspace) random(rng value.Rand, volatile bool) (db int, r slab.Rec) {
	all := 0
	for _, sp := range ks.spaces {
		all += sp.population(volatile)
	}
	if all == 0 {
		return 0, 0
	}
	at := int(rng.Uint64() % uint64(all))
	for db, sp := range ks.spaces {
		if n := sp.population(volatile); at >= n {
			at -= n
		} else {
			return db, sp.sample(rng, volatile)
		}
	}
	return 0, 0
}

// soonest is the key with the earliest deadline.
func (ks *Keyspace) soonest() (db int, r slab.Rec) {
	least := int64(0)
	for i, sp := range ks.spaces {
		if sp == nil {
			continue
		}
		if next, at := sp.slab.Next(); next != 0 && (r == 0 || at < least) {
			db, r, least = i, next, at
		}
	}
	return db, r
}

// score says how good a candidate a key is under the policy.
func (ks *Keyspace) score(r slab.Rec) int64 {
	if ks.evict.policy.LFU() {
		return int64(0xff - ks.stamp(r).Count(ks.clock))
	}
	return eviction.Stamp(r.Clock()).Idle(ks.clock)
}

// best samples keys and takes the best candidate of the pool that is still as
// good as it was.
func (ks *Keyspace) best(rng value.Rand) (db int, r slab.Rec) {
	if ks.evict.pool == nil {
		ks.evict.pool = new(eviction.Pool)
	}
	pool, volatile := ks.evict.pool, ks.evict.policy.Volatile()
	for {
		any := false
		for db, sp := range ks.spaces {
			n := sp.population(volatile)
			for range min(n, ks.evict.samples) {
				any = true
				r := sp.sample(rng, volatile)
				if score := ks.score(r); pool.Takes(score) {
					pool.Offer(db, ks.Hash(r.Key()), r.Key(), score)
				}
			}
		}
		if !any {
			pool.Clear()
			return 0, 0
		}
		for {
			c, found := pool.Take()
			if !found {
				break
			}
			sp := ks.spaces[c.DB]
			if sp == nil {
				continue
			}
			r := sp.slab.Find(c.Hash, c.Key)
			if r == 0 || volatile && r.Deadline() == 0 || ks.score(r) < c.Score {
				continue // it is gone, or was used since
			}
			return c.DB, r
		}
	}
}

// Candidate is a key whose value could leave memory.
type Candidate struct {
	DB    int
	Hash  uint64
	Key   []byte // valid during the call
	Seq   uint64
	Bytes int64 // that this would free
	Idle  int64 // milliseconds since it was used
	// Clean says that the tier has it, so that Offload can be called at once.
	// Else SweepKey and a commit come before.
	Clean bool
}

// samplesPerVictim is how many keys are looked at for each that leaves. Where nearly all that is in
// memory is used always, those that are not are few among the samples: where they are one of
// twenty, most fours have none of them.
const samplesPerVictim = 16

// sampled is a key that Coldest looked at.
type sampled struct {
	rec   slab.Rec
	db    int
	score float64
}

// Coldest samples keys and calls fn for up to n of those whose values are best
// let go, by size and by how long they weren't used, the best first. Values
// that would free little are never among them. since is the write from which
// the next complete sweep goes on. fn may call Offload and SweepKey.
func (ks *Keyspace) Coldest(n int, since uint64, rng value.Rand, fn func(*Candidate)) {
	ks.Tidy(512) // what was offloaded before leaves gaps
	all := 0
	for _, sp := range ks.spaces {
		all += sp.population(false)
	}
	n = min(n, all)
	found := ks.sample(samplesPerVictim*n, rng)
	var key []byte // Offload moves the record
	last := slab.Rec(0)
	for i := 0; i < len(found) && n > 0; i++ {
		s := &found[i]
		if s.rec == last { // sampled twice
			continue
		}
		last = s.rec
		n--
		e := entry{Rec: s.rec, sp: ks.spaces[s.db]}
		key = append(key[:0], e.Key()...)
		fn(&Candidate{
			DB: s.db, Hash: ks.Hash(key), Key: key, Seq: e.Seq(), Bytes: e.bytes(), Idle: e.access().Idle(ks.clock),
			Clean: e.clean(since),
		})
	}
}

// sample returns about n keys whose values can leave, the best first; some may be there more than once,
// one behind the other.
func (ks *Keyspace) sample(n int, rng value.Rand) []sampled {
	found := make([]sampled, 0, n)
	lfu := ks.evict.policy.LFU()
	for tries := 4 * n; tries > 0 && len(found) < n; {
		// Where records lie is found out for some of them before they are looked
		// at, so that the cache misses overlap.
		from := len(found)
		for range min(32, n-from) {
			tries--
			if db, r := ks.random(rng, false); r != 0 {
				found = append(found, sampled{r, db, float64(r.Clock())})
			}
		}
		if from == len(found) {
			break
		}
		some := found[from:]
		found = found[:from]
		for _, s := range some {
			e := entry{Rec: s.rec, sp: ks.spaces[s.db]}
			if e.cold() && !e.Has(objectFlag) || e.stored() == inlined || e.Has(openFlag) || e.bytes() <= MaxInline {
				continue
			}
			idle := e.access().Idle(ks.clock)
			if lfu {
				idle = e.access().IdleLFU(ks.clock)
			}
			s.score = float64(e.bytes()) * float64(idle+1)
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b sampled) int { return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.rec, b.rec)) })
	return found
}

// bytes is how many a key would count for less in memory without its value.
func (e entry) bytes() int64 {
	n := e.fit()
	if e.cold() {
		n -= e.stub().away
	}
	return n - int64(slab.Cost(len(e.Key()), stubSize, e.expire() != 0)) - slotSize
}
