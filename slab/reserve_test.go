package slab

import (
	"bytes"
	"errors"
	"testing"
)

// withReserve lets the pool have a reserve of that size until the test ends.
func withReserve(t *testing.T, size int64) {
	Drain()
	before := SetReserve(size)
	t.Cleanup(func() {
		SetSupply(nil)
		Drain()
		SetReserve(before)
	})
}

// dry is a supply that has nothing while it is true.
type dry bool

func (d *dry) Grant(bytes uint64) bool { return !bool(*d) || bytes == 0 }

// A change that has begun goes on with what was kept back; who asks is told so,
// and that there is memory again.
func TestReserveIsDrawnOnAndFilledAgain(t *testing.T) {
	withReserve(t, 2<<20)
	var none dry
	SetSupply(&none)
	s := New(1)
	defer func() { s.Close(); Drain() }()
	if got := Reserve(); got != Ample {
		t.Fatalf("reserve %d at first", got)
	}
	none = true
	val := make([]byte, 1000)
	inserted := 0
	levels := map[Reserved]int{}
	for ; ; inserted++ {
		levels[Reserve()]++
		k := key(inserted)
		if _, err := s.Insert(s.Hash(k), k, val, 0, 1, 0); err != nil {
			if !errors.Is(err, ErrNoMemory) {
				t.Fatal(err)
			}
			break
		}
	}
	if inserted < 1<<20/1000 || inserted > 2<<20/1000 {
		t.Errorf("%d records of 1000 bytes fit into a reserve of 2 MiB", inserted)
	}
	if levels[Drawn] < inserted/3 || levels[Spent] < inserted/3 {
		t.Errorf("told to be drawn on %d times, spent %d times, of %d", levels[Drawn], levels[Spent], inserted)
	}
	for i := range inserted {
		k := key(i)
		s.Remove(s.Hash(k), s.Find(s.Hash(k), k))
	}
	if got := Reserve(); got != Spent {
		t.Errorf("reserve %d while the space holds what it has drawn", got)
	}
	if !s.Fits(1000) || s.Fits(2<<20) {
		t.Error("an empty space doesn't know for what it has room")
	}
	none = false
	if got := Reserve(); got != Ample {
		t.Errorf("reserve %d when there is memory again", got)
	}
}

// What is given back pays what was drawn.
func TestReserveIsFilledByWhatIsGivenBack(t *testing.T) {
	withReserve(t, 1<<20)
	Limit(Held() + 1)
	defer Limit(0)
	s := New(1)
	for i := range 500 {
		if _, err := s.Insert(s.Hash(key(i)), key(i), make([]byte, 1000), 0, 1, 0); err != nil {
			t.Fatal(err)
		}
	}
	if got := Reserve(); got == Ample {
		t.Error("as if nothing had been drawn")
	}
	s.Close()
	Drain()
	if got := Reserve(); got != Ample {
		t.Errorf("reserve %d when all has been given back", got)
	}
}

// What was prepared for suffices, without the reserve, for small and for large
// records; the rest goes back.
func TestPreparedChangeNeedsNoReserve(t *testing.T) {
	withReserve(t, 0)
	var none dry
	SetSupply(&none)
	s := New(1)
	defer func() { s.Close(); Drain() }()
	before := Held()
	if err := s.Prepare(6 << 20); err != nil {
		t.Fatal(err)
	}
	none = true
	if err := s.Prepare(9 << 20); !errors.Is(err, ErrNoMemory) {
		t.Errorf("more was prepared for: %v", err)
	}
	sizes := []int{3 << 20, 200 << 10, 100 << 10, 10, 1000}
	for i, n := range sizes {
		val := bytes.Repeat([]byte{byte(i)}, n)
		r, err := s.Insert(s.Hash(key(i)), key(i), val, 0, 1, 0)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if !bytes.Equal(r.Value(), val) {
			t.Fatalf("%d bytes: another value", n)
		}
	}
	s.Release()
	if err := s.check(); err != nil {
		t.Fatal(err)
	}
	s.Close()
	Drain()
	if got := Held(); got != before {
		t.Errorf("%d bytes are held that nobody has", got-before)
	}
}

// However long the words of a change are, what was prepared by the sum of Needs
// suffices for them, in any order.
func TestNeedsAreEnough(t *testing.T) {
	withReserve(t, 0)
	rng := random(t, 5)
	var none dry
	SetSupply(&none)
	longest := []int{100, 5 << 10, 80 << 10, 200 << 10, 700 << 10, 3 << 20}
	for round := range 24 {
		s, all := New(1), 0
		type pair struct{ key, val []byte }
		var pairs []pair
		for i := range 1 + rng.IntN(60) {
			k := append(key(i), make([]byte, rng.IntN(longest[rng.IntN(4)]))...)
			v := make([]byte, rng.IntN(longest[rng.IntN(1+round%len(longest))]))
			pairs = append(pairs, pair{k, v})
			all += Needs(len(k)) + Needs(len(v))
		}
		none = false
		if err := s.Prepare(all); err != nil {
			t.Fatal(err)
		}
		none = true
		for i, p := range pairs {
			if _, err := s.Insert(s.Hash(p.key), p.key, p.val, 0, 1, 0); err != nil {
				t.Fatalf("record %d of %d, %d and %d bytes: %v", i, len(pairs), len(p.key), len(p.val), err)
			}
		}
		if err := s.check(); err != nil {
			t.Fatal(err)
		}
		s.Release()
		s.Close()
		Drain()
		if held := Held(); held != 0 {
			t.Fatalf("%d bytes are held by nobody", held)
		}
	}
}

// Where there is no more memory to be had, less that lies idle is put together, so
// that what was deleted is of use to others.
func TestWithoutMemoryIdleBlocksAreCollectedSooner(t *testing.T) {
	withReserve(t, 2<<20)
	var none dry
	SetSupply(&none)
	s := New(1)
	defer func() { s.Close(); Drain() }()
	val := make([]byte, 1000)
	for i := range 12 << 10 {
		if _, err := s.Insert(s.Hash(key(i)), key(i), val, 0, 1, 0); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < 12<<10; i += 6 {
		s.Remove(s.Hash(key(i)), s.Find(s.Hash(key(i)), key(i)))
	}
	if s.Loose() {
		t.Error("a sixth is put together though there is memory")
	}
	none = true
	for i := 20_000; Reserve() != Spent; i++ {
		if _, err := s.Insert(s.Hash(key(i)), key(i), bytes.Repeat(val, 50), 0, 1, 0); err != nil {
			t.Fatal(err)
		}
	}
	for s.Compact(1000) {
	}
	Drain()
	if got := Reserve(); got == Spent {
		t.Errorf("reserve %d though a sixth of 12 MiB was deleted", got)
	}
}
