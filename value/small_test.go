package value

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
)

// record is an owner of a collection, as the keyspace will be: it has the bytes
// of a small one, with some room, or the object.
type record struct {
	blob    []byte
	whole   []byte // with the guard behind the room
	hash    *Hash
	set     *Set
	zset    *ZSet
	list    *List
	scratch Scratch
	moves   int
}

// keep does what owners do after a change. Bytes have a guard behind them.
func (r *record) keep(t *testing.T, blob []byte, moved bool) {
	t.Helper()
	const guard = 0xa5
	if len(r.whole) > 0 && r.whole[len(r.whole)-1] != guard {
		t.Fatal("bytes behind the room were changed")
	}
	if !moved {
		if len(blob) > 0 && len(r.blob) > 0 && &blob[0] != &r.blob[0] {
			t.Fatal("bytes have moved, and it isn't said")
		}
		r.blob = r.blob[:len(blob)]
	} else {
		r.moves++
		room := len(blob) + Reserve(len(blob))
		fresh := make([]byte, room+1)
		fresh[room] = guard
		copy(fresh, blob)
		clear(blob) // it is the scratch's
		r.whole, r.blob = fresh, fresh[:len(blob):room]
	}
	r.scratch.Reset()
}

// A collection that is borrowed around bytes for each operation goes the same
// way as one that is an object all the time.
func TestBorrowedCollectionsAgreeWithObjects(t *testing.T) {
	for seed := range uint64(12) {
		rng := random(t, seed)
		elements := []int{6, 60, 140}[seed%3]
		elem := func() []byte {
			switch i := rng.IntN(elements); rng.IntN(3) {
			case 0:
				return strconv.AppendInt(nil, int64(i)<<(rng.IntN(4)*20), 10)
			default:
				return short(i)
			}
		}
		t.Run(fmt.Sprint("hash ", seed), func(t *testing.T) {
			r, want := new(record), NewHash(seed)
			for range 3000 {
				h := r.hash
				if h == nil {
					h = new(Hash)
					h.Borrow(seed, r.blob, &r.scratch)
				}
				f, v := elem(), short(rng.IntN(40))
				if rng.IntN(4) == 0 {
					if h.Del(f) != want.Del(f) {
						t.Fatalf("Del(%q)", f)
					}
				} else if h.Set(f, v) != want.Set(f, v) {
					t.Fatalf("Set(%q)", f)
				}
				if !bytes.Equal(h.AppendDump(nil), want.AppendDump(nil)) {
					t.Fatalf("is %x", h.AppendDump(nil))
				}
				if blob, moved, ok := h.Small(); ok {
					r.keep(t, blob, moved)
				} else if r.hash == nil {
					if r.hash = h.Big(); h.Len() != 0 || h.Encoding() != "listpack" {
						t.Fatal("it was moved, and is still there")
					}
				}
			}
		})
		t.Run(fmt.Sprint("set ", seed), func(t *testing.T) {
			r, want := new(record), NewSet(seed)
			for step := range 3000 {
				s := r.set
				if s == nil {
					s = new(Set)
					s.Borrow(seed, r.blob, &r.scratch)
				}
				m := elem()
				if step < 1000 {
					m = strconv.AppendInt(nil, int64(rng.IntN(elements)-50)<<(uint(step)/250*15), 10)
				}
				if rng.IntN(4) == 0 {
					if s.Del(m) != want.Del(m) {
						t.Fatalf("Del(%q)", m)
					}
				} else if s.Add(m) != want.Add(m) {
					t.Fatalf("Add(%q)", m)
				}
				if !bytes.Equal(s.AppendDump(nil), want.AppendDump(nil)) {
					t.Fatalf("is %x", s.AppendDump(nil))
				}
				if blob, moved, ok := s.Small(); ok {
					r.keep(t, blob, moved)
				} else if r.set == nil {
					r.set = s.Big()
				}
			}
		})
		t.Run(fmt.Sprint("zset ", seed), func(t *testing.T) {
			r, want := new(record), NewZSet(seed)
			for range 3000 {
				z := r.zset
				if z == nil {
					z = new(ZSet)
					z.Borrow(seed, r.blob, &r.scratch)
				}
				m, score := elem(), anyScore(rng)
				switch rng.IntN(12) {
				case 0, 1, 2:
					if z.Del(m) != want.Del(m) {
						t.Fatalf("Del(%q)", m)
					}
				case 3:
					from := rng.IntN(want.Len() + 1)
					z.RemoveRange(from, from+3, nil)
					want.RemoveRange(from, from+3, nil)
				default:
					if a, _ := z.Set(m, score); a {
						want.Set(m, score)
					} else if _, c := want.Set(m, score); c {
						if s, _ := z.Score(m); s != score {
							t.Fatalf("Set(%q, %v)", m, score)
						}
					}
				}
				if !bytes.Equal(z.AppendDump(nil), want.AppendDump(nil)) {
					t.Fatalf("is\n%x, want\n%x", z.AppendDump(nil), want.AppendDump(nil))
				}
				if blob, moved, ok := z.Small(); ok {
					if len(blob) > 0 && packed(blob).checkScored() != "" {
						t.Fatalf("%x: %s", blob, packed(blob).checkScored())
					}
					r.keep(t, blob, moved)
				} else if r.zset == nil {
					r.zset = z.Big()
				}
			}
		})
		t.Run(fmt.Sprint("list ", seed), func(t *testing.T) {
			r, want := new(record), NewList()
			for range 3000 {
				l := r.list
				if l == nil {
					l = new(List)
					l.Borrow(r.blob, &r.scratch)
				}
				v := elem()
				if rng.IntN(50) == 0 {
					v = text(rng.IntN(12))
				}
				op, n := rng.IntN(9), want.Len()
				if n == 0 {
					op = 0
				} else if n > 2*elements {
					op = 5
				}
				for _, l := range []*List{l, want} {
					switch op {
					case 0, 1:
						l.PushBack(v)
					case 2, 3:
						l.PushFront(v)
					case 4:
						l.SetAt(n/2, v)
					case 5:
						l.Drop(n/3, len(v)%2 == 0)
					case 6:
						l.InsertAt(n/3, v)
					case 7:
						l.RemoveValue(v, len(v)%5-2)
					case 8: // round, once each way
						w, _ := l.PopFront()
						l.PushBack(w)
						w, _ = l.PopBack()
						l.PushFront(w)
						w, _ = l.PopBack()
						l.PushFront(w)
					}
				}
				if !bytes.Equal(l.AppendDump(nil), want.AppendDump(nil)) {
					t.Fatalf("op %d: is\n%x, want\n%x", op, l.AppendDump(nil), want.AppendDump(nil))
				}
				if blob, moved, ok := l.Small(); ok {
					r.list = nil // emptied, perhaps
					r.keep(t, blob, moved)
				} else if r.list == nil {
					r.list = l.Big()
				}
			}
		})
	}
}

// anyScore is a score of any sort that there is.
func anyScore(rng *rand.Rand) float64 {
	switch rng.IntN(12) {
	case 0:
		return math.Inf(1)
	case 1:
		return math.Inf(-1)
	case 2:
		return math.Copysign(0, -1)
	case 3:
		return rng.NormFloat64()
	case 4:
		return math.Float64frombits(rng.Uint64() &^ (1 << 62)) // not NaN
	case 5:
		return float64([]int64{1 << 53, 1<<53 - 1, 1<<53 + 2, -1 << 53, -1<<53 - 2, 1<<62 + 5}[rng.IntN(6)])
	case 6:
		return 1.7e12 + float64(rng.IntN(1000000))
	default:
		return float64(rng.IntN(700) - 20)
	}
}

// Each score of a small sorted set comes back to the bit, wherever it stands.
func TestSmallScoresAreExact(t *testing.T) {
	rng := random(t, 1)
	for range 2000 {
		z := NewZSet(1)
		scores := map[string]float64{}
		for i := range 1 + rng.IntN(20) {
			m := key(i)
			scores[string(m)] = anyScore(rng)
			z.Set(m, scores[string(m)])
		}
		for m, want := range scores {
			if got, _ := z.Score([]byte(m)); math.Float64bits(got) != math.Float64bits(want) {
				t.Fatalf("%v is %v", want, got)
			}
		}
	}
}

// While there is room, or the scratch has its buffers, nothing allocates.
func TestBorrowedCollectionsDoNotAllocate(t *testing.T) {
	var scratch Scratch
	var h Hash
	var s Set
	var ints Set
	var z ZSet
	var l List
	names := make([][]byte, 40)
	for i := range names {
		names[i] = key(i)
	}
	got, digits := 0, make([]byte, 20)
	if n := testing.AllocsPerRun(100, func() {
		h.Borrow(1, nil, &scratch)
		s.Borrow(1, nil, &scratch)
		ints.Borrow(1, nil, &scratch)
		z.Borrow(1, nil, &scratch)
		l.Borrow(nil, &scratch)
		for i, name := range names {
			h.Set(name, name)
			s.Add(name)
			ints.Add(strconv.AppendInt(digits[:0], int64(i), 10))
			z.Set(name, float64(i))
			l.PushFront(name)
		}
		got = 0
		for range ints.All() {
			got++
		}
		scratch.Reset()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
	if got != 40 {
		t.Errorf("%d integers", got)
	}
}

// What small collections take all told in the keyspace, beside what Redis 7.0
// takes for the same (7.0.15: its MEMORY USAGE and what used_memory grows by agree within 20).
func TestSizesBesideRedis(t *testing.T) {
	const header, key, index = 16, 16, 13 // of a record, its name, and its place in the index
	hash, zset, list := NewHash(1), NewZSet(1), NewList()
	for i := range 5 {
		hash.Set(fmt.Appendf(nil, "field%d", i+1), []byte("ten bytes."))
	}
	for i := range 100 {
		zset.Set(fmt.Appendf(nil, "member:%04d", i), float64(i))
		list.PushBack(fmt.Appendf(nil, "element %08d", i))
	}
	spread := NewZSet(1)
	for i := range 100 {
		spread.Set(fmt.Appendf(nil, "member:%04d", i), float64(i*7919%1000000))
	}
	for _, c := range []struct {
		name   string
		blob   []byte
		redis  int
		atMost float64
	}{
		// 2 of head + 5*(1+6 + 1+10) = 92
		{"hash of 5 fields", hash.small.b, 185, 0.8},
		// 2 of head + 100*(1+11): scores that go up by one take no byte of their own
		{"sorted set of 100", zset.small.b, 1620, 0.8},
		// 2 of head + 100*(1+11 + about 2): Redis takes four bytes more for each
		{"sorted set of 100, scores far apart", spread.small.b, 2130, 0.8},
		// 2 of head + 100*(1+16)
		{"list of 100 elements of 16 bytes", list.small.b, 2210, 0.8},
	} {
		all := (header+key+len(c.blob)+7)&^7 + index
		ratio := float64(all) / float64(c.redis)
		t.Logf("%s: %d bytes, %d all told, %.2f of Redis", c.name, len(c.blob), all, ratio)
		if ratio > c.atMost {
			t.Errorf("%s: %d bytes are %.2f of Redis, more than %.2f", c.name, all, ratio, c.atMost)
		}
	}
}

// BenchmarkTouch is 16 look-ups in a collection of a million.
func BenchmarkTouch(b *testing.B) {
	const n, batch = 1000000, 16
	rng := rand.New(rand.NewPCG(1, 1))
	h, z := NewHash(1), NewZSet(1)
	for i := range n {
		h.Set(key(i), []byte("xxx"))
		z.Set(key(i), float64(i))
	}
	var names [batch][]byte
	var lookups [batch]Lookup
	sum := byte(0)
	for name, touch := range map[string]bool{"without": false, "with": true} {
		b.Run("HGET/"+name, func(b *testing.B) {
			for b.Loop() {
				for i := range names {
					names[i] = key(rng.IntN(n))
				}
				if touch {
					for i, name := range names {
						lookups[i] = h.Lookup(name)
						sum += lookups[i].Approach()
					}
					for _, l := range lookups {
						sum += l.Touch()
					}
				}
				for _, name := range names {
					h.Get(name)
				}
			}
		})
		b.Run("ZSCORE/"+name, func(b *testing.B) {
			for b.Loop() {
				for i := range names {
					names[i] = key(rng.IntN(n))
				}
				if touch {
					for i, name := range names {
						lookups[i] = z.Lookup(name)
						sum += lookups[i].Approach()
					}
					for _, l := range lookups {
						sum += l.Touch()
					}
				}
				for _, name := range names {
					z.Score(name)
				}
			}
		})
	}
	_ = sum
}

// BenchmarkCommands is one command each on a big collection, as redis-benchmark
// sends them: random names of a million, scores that are all 0.
func BenchmarkCommands(b *testing.B) {
	const n = 1000000
	rng := rand.New(rand.NewPCG(1, 1))
	name := make([]byte, 0, 32)
	elem := func() []byte { return fmt.Appendf(name, "element:%012d", rng.IntN(n)) }
	v := []byte("xxx")
	b.Run("HSET", func(b *testing.B) {
		h := NewHash(1)
		for i := range n {
			h.Set(fmt.Appendf(name, "element:%012d", i), v)
		}
		for b.Loop() {
			h.Set(elem(), v)
		}
	})
	b.Run("SADD", func(b *testing.B) {
		s := NewSet(1)
		for i := range n {
			s.Add(fmt.Appendf(name, "element:%012d", 2*i))
		}
		for b.Loop() {
			s.Add(elem())
		}
	})
	b.Run("ZADD", func(b *testing.B) {
		z := NewZSet(1)
		for b.Loop() {
			z.Set(elem(), 0)
		}
		b.ReportMetric(float64(z.Size())/float64(z.Len()), "B/member")
	})
	b.Run("ZADDrandom", func(b *testing.B) {
		z := NewZSet(1)
		for b.Loop() {
			z.Set(elem(), float64(rng.IntN(n)))
		}
		b.ReportMetric(float64(z.Size())/float64(z.Len()), "B/member")
	})
	b.Run("ZREMADD", func(b *testing.B) {
		z := NewZSet(1)
		for i := range n {
			z.Set(fmt.Appendf(name, "element:%012d", i), 0)
		}
		for b.Loop() {
			m := elem()
			z.Del(m)
			z.Set(m, 0)
		}
	})
	b.Run("LPUSH", func(b *testing.B) {
		l := NewList()
		for b.Loop() {
			l.PushFront(v)
		}
	})
}
