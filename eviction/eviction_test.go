package eviction

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestPoliciesHaveNames(t *testing.T) {
	for p, name := range Names() {
		got, err := Parse(strings.ToUpper(name))
		if err != nil || got != Policy(p) || got.String() != name {
			t.Errorf("%q is %v, %v", name, got, err)
		}
	}
	_, err := Parse("lru")
	if err == nil {
		t.Fatal("lru is no policy")
	}
	for _, name := range append(Names(), `"lru"`) {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("the error doesn't name %s: %v", name, err)
		}
	}
	for _, c := range []struct {
		evicts bool
		name   string
		want   Policy
	}{
		{false, "", NoEviction}, {false, "allkeys-lru", NoEviction}, {true, "", OptimisticVolatile},
		{true, "allkeys-lru", AllKeysLRU}, {true, "by-the-moon", OptimisticVolatile}, {true, "noeviction", OptimisticVolatile},
	} {
		if got := Of(c.evicts, c.name); got != c.want {
			t.Errorf("a database that evicts: %v, by %q, has %v", c.evicts, c.name, got)
		}
	}
}

const second, minute, day = 1000, 60_000, 86_400_000

func TestIdleTime(t *testing.T) {
	const now = 1_800_000_000_123
	for _, idle := range []int64{0, 16, second, minute, day, 300 * day} {
		if got := At(now - idle).Idle(At(now)); got > idle+16 || got < idle-16 {
			t.Errorf("idle for %d ms is %d", idle, got)
		}
		if got := NewLFU(At(now - idle)).IdleLFU(At(now)); got > idle+4096 || got < idle-4096 {
			t.Errorf("idle for %d ms is %d under LFU", idle, got)
		}
	}
	if got := At(now + minute).Idle(At(now)); got != 0 {
		t.Errorf("a clock that was put back makes a key idle for %d ms", got)
	}
	wraps := int64(1)<<32*unitMS - 5*second // the clock is about to wrap
	if got := At(wraps).Idle(At(wraps + 20*second)); got/second != 20 && got/second != 19 {
		t.Errorf("across the wrap it is %d ms", got)
	}
}

// The documents of Redis tell what its counter comes to with a factor of 10.
func TestTheCounterGrowsLikeRediss(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	now := At(1_800_000_000_000)
	for hits, want := range map[int][2]int{100: {8, 13}, 1000: {15, 22}, 100_000: {130, 155}, 1_000_000: {250, 255}} {
		s := NewLFU(now)
		for range hits {
			s = s.Used(now, rng.Uint64())
		}
		if c := s.Count(now); c < want[0] || c > want[1] {
			t.Errorf("after %d uses it is %d, want %v", hits, c, want)
		}
	}
}

func TestTheCounterDecays(t *testing.T) {
	const now = 1_800_000_000_000
	s := At(now)&^0xff | 100
	for minutes, want := range map[int64]int{0: 100, 1: 99, 50: 50, 99: 1, 100: 0, 1000: 0} {
		if c := s.Count(At(now + minutes*minute)); c < want-1 || c > want {
			t.Errorf("after %d minutes it is %d, want %d", minutes, c, want)
		}
	}
	if c := s.Count(At(now - 10*minute)); c != 100 {
		t.Errorf("with the clock put back it is %d", c)
	}
	wraps := int64(1)<<32*unitMS - minute
	if c := (At(wraps)&^0xff | 100).Count(At(wraps + 5*minute)); c < 94 || c > 96 {
		t.Errorf("across the wrap it is %d", c)
	}
	total := 100
	for step := int64(0); step < 60; step++ { // looked at every ten seconds
		at := At(now + step*10*second)
		s = at&^0xff | Stamp(s.Count(at))
		total = s.Count(at)
	}
	if total < 89 || total > 91 {
		t.Errorf("after ten minutes of being looked at it is %d", total)
	}
}

func TestThePoolKeepsTheBest(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		var p Pool
		scores := map[string]int64{}
		key := make([]byte, 0, 8)
		for range rng.IntN(60) {
			key = fmt.Appendf(key[:0], "k%d", rng.IntN(60)) // the pool must copy it
			score := int64(rng.IntN(1000))
			if _, twice := scores[string(key)]; twice {
				continue
			}
			scores[string(key)] = score
			p.Offer(3, uint64(key[1]), key, score)
		}
		var best []int64
		for _, s := range scores {
			best = append(best, s)
		}
		slices.SortFunc(best, func(a, b int64) int { return cmp.Compare(b, a) })
		best = best[:min(16, len(best))]
		if p.Len() != len(best) {
			t.Fatalf("%d candidates, want %d", p.Len(), len(best))
		}
		for _, want := range best {
			c, found := p.Take()
			if !found || c.Score != want || scores[string(c.Key)] != want || c.DB != 3 {
				t.Fatalf("takes %+v (%v), want score %d", c, found, want)
			}
		}
		if _, found := p.Take(); found {
			t.Fatal("more than there were")
		}
	}
}

func TestAKeyThatIsOfferedAgainCountsOnce(t *testing.T) {
	var p Pool
	p.Offer(0, 1, []byte("a"), 10)
	p.Offer(0, 2, []byte("b"), 20)
	p.Offer(0, 1, []byte("a"), 30)
	p.Offer(1, 1, []byte("a"), 5) // another logical database
	want := []string{"0 a 30", "0 b 20", "1 a 5"}
	for _, w := range want {
		c, _ := p.Take()
		if got := fmt.Sprintf("%d %s %d", c.DB, c.Key, c.Score); got != w {
			t.Errorf("got %s, want %s", got, w)
		}
	}
	if p.Len() != 0 {
		t.Errorf("%d are left", p.Len())
	}
}

func TestThePoolDoesNotAllocateForever(t *testing.T) {
	var p Pool
	key := []byte("some-key-of-usual-length")
	n := uint64(0)
	step := func() {
		for range 20 {
			n++
			p.Offer(0, n, key, int64(n))
		}
		for range 10 {
			p.Take()
		}
	}
	for range 20 {
		step()
	}
	if allocs := testing.AllocsPerRun(100, step); allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}
