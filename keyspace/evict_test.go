package keyspace

import (
	"bytes"
	"container/list"
	"fmt"
	"math/rand/v2"
	"testing"

	"vecino/eviction"
)

// cache is a keyspace used as one, by the access pattern of a trace: a read,
// and a write where that finds nothing, with room for so many keys.
type cache struct {
	ks   *Keyspace
	rng  *rand.Rand
	room int
	now  int64
	seq  uint64
	hits int
}

func newCache(policy eviction.Policy, samples, room int) *cache {
	c := &cache{ks: New(testSeed), rng: rand.New(rand.NewPCG(7, 7)), room: room, now: 1_000_000_000_000}
	c.ks.SetEviction(policy, samples)
	return c
}

func (c *cache) use(key []byte) {
	view := c.ks.View(0, c.now, c.rng)
	if _, found, _ := view.String(key); found {
		c.hits++
		return
	}
	c.seq++
	tx := c.ks.Begin(0, c.now, c.seq, c.rng, false)
	for c.ks.Len(0) >= c.room {
		if !tx.Evict() {
			panic("nothing can be evicted")
		}
	}
	tx.SetString(key, []byte("some value"), c.now+1_000_000_000)
	tx.End()
}

// trace calls fn for n keys as clients ask for them: a few often, most hardly
// ever, and what is popular changes.
func trace(n int, fn func(key int)) {
	rng := rand.New(rand.NewPCG(11, 12))
	zipf := rand.NewZipf(rng, 1.1, 10, 20_000-1)
	for i := range n {
		fn((int(zipf.Uint64()) + i/200) % 20_000)
	}
}

// play gives the hit ratio of a trace under a policy.
func play(policy eviction.Policy, samples, n, room int, perMS int) float64 {
	c := newCache(policy, samples, room)
	var key []byte
	i := 0
	trace(n, func(k int) {
		if i++; i%perMS == 0 {
			c.now++
		}
		key = fmt.Appendf(key[:0], "key:%d", k)
		c.use(key)
	})
	return float64(c.hits) / float64(n)
}

// exactLRU gives the hit ratio of a cache that always gives up the key that
// was not used for longest.
func exactLRU(n, room int) float64 {
	order, where, hits := list.New(), map[int]*list.Element{}, 0
	trace(n, func(k int) {
		if e := where[k]; e != nil {
			hits++
			order.MoveToFront(e)
			return
		}
		if order.Len() >= room {
			delete(where, order.Remove(order.Back()).(int))
		}
		where[k] = order.PushFront(k)
	})
	return float64(hits) / float64(n)
}

// The clock's unit is 16 ms. At 10 commands a millisecond, 160 share a stamp.
func TestApproximateLRUIsNearlyExact(t *testing.T) {
	const n, room = 150_000, 2_000
	exact := exactLRU(n, room)
	random := play(eviction.AllKeysRandom, 0, n, room, 10)
	for samples, within := range map[int]float64{5: 0.02, 10: 0.01} {
		got := play(eviction.AllKeysLRU, samples, n, room, 10)
		t.Logf("hit ratio %.4f with %d samples; exact %.4f, random %.4f", got, samples, exact, random)
		if got < exact-within {
			t.Errorf("hit ratio %.4f with %d samples, exact LRU has %.4f", got, samples, exact)
		}
		if got < random+0.02 {
			t.Errorf("hit ratio %.4f with %d samples is no better than random, %.4f", got, samples, random)
		}
	}
	if got := play(eviction.VolatileLRU, 10, n, room, 10); got < exact-0.01 {
		t.Errorf("hit ratio %.4f among keys with a deadline, exact LRU has %.4f", got, exact)
	}
}

func BenchmarkEvict(b *testing.B) {
	for _, policy := range []eviction.Policy{eviction.AllKeysLRU, eviction.AllKeysLFU, eviction.AllKeysRandom, eviction.VolatileTTL, eviction.OptimisticVolatile} {
		b.Run(policy.String(), func(b *testing.B) {
			c := newCache(policy, 0, 100_000)
			var key []byte
			n := 0
			fill := func() {
				c.now++
				n++
				key = fmt.Appendf(key[:0], "key:%d", n)
				c.use(key)
			}
			for range c.room {
				fill()
			}
			b.ReportAllocs()
			for b.Loop() {
				fill()
			}
		})
	}
}

// evictable makes a keyspace with keys 0 to n, of which those below volatile
// have a deadline, the earlier the lower. Each is used once, in that order.
func evictable(t *testing.T, policy eviction.Policy, n, volatile int) *Keyspace {
	t.Helper()
	ks := New(testSeed)
	ks.SetEviction(policy, eviction.MaxSamples)
	for i := range n {
		tx := ks.Begin(i%3, int64(i)*minute, uint64(i)+1, nil, false)
		deadline := int64(0)
		if i < volatile {
			deadline = int64(n+i) * 100 * minute
		}
		tx.SetString(fmt.Append(nil, i), []byte("v"), deadline)
		tx.End()
	}
	return ks
}

const minute = 60_000

// evictAll evicts until nothing can be, and tells which keys went, in order.
func evictAll(ks *Keyspace, n int) (gone []int) {
	rng := rand.New(rand.NewPCG(1, 1))
	for {
		tx := ks.Begin(0, int64(n)*minute, uint64(n)+uint64(len(gone))+1, rng, false)
		if !tx.Evict() {
			return gone
		}
		effects, _ := tx.End()
		r := effectReader{b: bytes.Clone(effects)}
		for op := r.op(); op == opSelect; op = r.op() {
			r.byte()
		}
		var k int
		fmt.Sscan(string(r.key), &k)
		gone = append(gone, k)
	}
}

func TestPoliciesChooseTheirKeys(t *testing.T) {
	const n, volatile = 30, 12
	for _, c := range []struct {
		policy  eviction.Policy
		evicted int
		ordered bool // the keys go in the order of their numbers, nearly
	}{
		{eviction.NoEviction, 0, false},
		{eviction.AllKeysLRU, n, true},
		{eviction.AllKeysLFU, n, false},
		{eviction.AllKeysRandom, n, false},
		{eviction.VolatileLRU, volatile, true},
		{eviction.VolatileLFU, volatile, false},
		{eviction.VolatileRandom, volatile, false},
		{eviction.VolatileTTL, volatile, true},
		{eviction.OptimisticVolatile, n, false},
	} {
		t.Run(c.policy.String(), func(t *testing.T) {
			ks := evictable(t, c.policy, n, volatile)
			gone := evictAll(ks, n)
			if len(gone) != c.evicted || ks.Keys() != n-c.evicted || ks.Stats.Evicted != uint64(c.evicted) {
				t.Fatalf("evicts %v and leaves %d of %d", gone, ks.Keys(), n)
			}
			for i, k := range gone {
				if away := max(k-i, i-k); c.ordered && away > 6 || c.policy == eviction.VolatileTTL && away > 0 {
					t.Fatalf("evicts %v", gone)
				}
			}
			if c.policy == eviction.OptimisticVolatile {
				for i, k := range gone {
					if (k < volatile) != (i < volatile) {
						t.Fatalf("evicts %v, of which those below %d have a deadline", gone, volatile)
					}
				}
			}
			checkAccounts(t, ks)
		})
	}
}

func TestLFUKeepsWhatIsUsedOften(t *testing.T) {
	ks := evictable(t, eviction.AllKeysLFU, 30, 0)
	rng := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		for i := range 10 {
			view := ks.View(i%3, 30*minute, rng)
			if !view.Touch(fmt.Append(nil, i)) {
				t.Fatal("not there")
			}
		}
	}
	gone := evictAll(ks, 30)
	for _, k := range gone[:20] {
		if k < 10 {
			t.Fatalf("%d was used often; evicted are %v", k, gone)
		}
	}
}

// A key that is evicted while its value is in the tier goes from there, too.
func TestColdKeysAreEvictedFromTheTier(t *testing.T) {
	ks, _ := coldKeys(t)
	ks.SetEviction(eviction.AllKeysLRU, 0)
	if gone := evictAll(ks, 30); len(gone) != 5 {
		t.Fatalf("%d evicted", len(gone))
	}
	if n, _ := ks.Cold(); n != 0 || ks.Used() != 0 || ks.Resident() != 0 || ks.Buried() != 5 {
		t.Errorf("%d cold keys, %d bytes, %d graves", n, ks.Used(), ks.Buried())
	}
}

// A candidate that was used after it came into the pool is not given up.
func TestACandidateThatIsUsedStays(t *testing.T) {
	ks := evictable(t, eviction.AllKeysLRU, 30, 0)
	rng := rand.New(rand.NewPCG(1, 1))
	tx := ks.Begin(0, 30*minute, 100, rng, false)
	tx.Evict()
	tx.End() // the pool is full of old keys now
	var used []int
	for i := range 15 {
		view := ks.View(i%3, 31*minute, rng)
		if view.Touch(fmt.Append(nil, i)) {
			used = append(used, i)
		}
	}
	for i := range 6 {
		tx := ks.Begin(0, 31*minute, 101+uint64(i), rng, false)
		tx.Evict()
		tx.End()
	}
	for _, i := range used {
		if !ks.Has(i%3, fmt.Append(nil, i), 31*minute) {
			t.Errorf("%d was just used", i)
		}
	}
}

func TestWhatCountsAsUse(t *testing.T) {
	k := []byte("k")
	const begin, later = 1_000_000, 1_000_000 + 10*minute
	for name, c := range map[string]struct {
		do   func(ks *Keyspace)
		used bool
	}{
		"get":      {func(ks *Keyspace) { v := ks.View(0, later, nil); _, _, _ = v.String(k) }, true},
		"touch":    {func(ks *Keyspace) { v := ks.View(0, later, nil); v.Touch(k) }, true},
		"wrong":    {func(ks *Keyspace) { v := ks.View(0, later, nil); _, _ = v.Hash(k) }, true},
		"exists":   {func(ks *Keyspace) { v := ks.View(0, later, nil); v.Exists(k) }, false},
		"type":     {func(ks *Keyspace) { v := ks.View(0, later, nil); v.Kind(k) }, false},
		"ttl":      {func(ks *Keyspace) { v := ks.View(0, later, nil); v.Deadline(k) }, false},
		"encoding": {func(ks *Keyspace) { v := ks.View(0, later, nil); _, _ = v.Encoding(k) }, false},
		"size":     {func(ks *Keyspace) { v := ks.View(0, later, nil); v.Size(k) }, false},
		"scan":     {func(ks *Keyspace) { v := ks.View(0, later, nil); v.Scan(0, 10, func([]byte, Kind) {}) }, false},
		"set":      {func(ks *Keyspace) { ks.Begin(0, later, 2, nil, false).SetString(k, nil, 0) }, true},
		"append":   {func(ks *Keyspace) { _, _ = ks.Begin(0, later, 2, nil, false).PatchString(k, 0, k) }, true},
		"expire":   {func(ks *Keyspace) { ks.Begin(0, later, 2, nil, false).SetDeadline(k, 2*later) }, true},
		"copy":     {func(ks *Keyspace) { _, _ = ks.Begin(0, later, 2, nil, false).Copy(k, 0, []byte("to")) }, true},
	} {
		ks := New(testSeed)
		tx := ks.Begin(0, begin, 1, nil, false)
		tx.SetString(k, []byte("v"), 0)
		tx.End()
		c.do(ks)
		ks.tx.End()
		v := ks.View(0, later, nil)
		idle, _ := v.Idle(k)
		if used := idle < minute; used != c.used {
			t.Errorf("%s: idle for %d ms", name, idle)
		}
	}
}

// Stamps of one policy must not mislead the other.
func TestAChangeOfPolicyKeepsTheClocks(t *testing.T) {
	ks := evictable(t, eviction.AllKeysLRU, 30, 0)
	now := int64(30 * minute)
	ks.Tick(now)
	ks.SetEviction(eviction.AllKeysLFU, 0)
	for i := range 30 {
		v := ks.View(i%3, now, nil)
		count, _ := v.Freq(fmt.Append(nil, i))
		idle, _ := v.Idle(fmt.Append(nil, i))
		if count > 5 || idle < int64(29-i)*minute || idle > int64(31-i)*minute {
			t.Errorf("key %d has count %d and is idle for %d ms", i, count, idle)
		}
	}
	ks.SetEviction(eviction.AllKeysLRU, 0)
	for i := range 30 {
		v := ks.View(i%3, now, nil)
		if idle, _ := v.Idle(fmt.Append(nil, i)); idle < int64(29-i)*minute || idle > int64(31-i)*minute {
			t.Errorf("back, key %d is idle for %d ms", i, idle)
		}
	}
}
