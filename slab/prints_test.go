package slab

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"vecino/value"
)

// prints is what a space should have of fingerprints.
type printModel struct {
	t      *testing.T
	s      *Space
	prints map[uint64]bool
}

const printBits = ^uint64(1<<printDrop - 1)

func (m *printModel) imprint(hash uint64) {
	p := hash & printBits
	if m.s.Imprint(hash) == m.prints[p] {
		m.t.Fatalf("Imprint(%x) is %v", hash, m.prints[p])
	}
	m.prints[p] = true
}

func (m *printModel) erase(hash uint64) {
	p := hash & printBits
	if m.s.Erase(hash) != m.prints[p] {
		m.t.Fatalf("Erase(%x) is not %v", hash, m.prints[p])
	}
	delete(m.prints, p)
}

func (m *printModel) check(from uint64, rng value.Rand) {
	m.t.Helper()
	if err := m.s.check(); err != nil {
		m.t.Fatal(err)
	}
	var got, want []uint64
	m.s.EachPrint(from, func(h uint64) bool { got = append(got, h); return true })
	for p := range m.prints {
		if p >= from&printBits {
			want = append(want, p)
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) || m.s.Prints() != len(m.prints) {
		m.t.Fatalf("from %x: %d fingerprints, want %d of %d", from, len(got), len(want), len(m.prints))
	}
	if h, ok := m.s.RandomPrint(rng); ok != (len(m.prints) > 0) || ok && !m.prints[h] {
		m.t.Fatalf("RandomPrint is %x %v of %d", h, ok, len(m.prints))
	}
}

// Fingerprints come and go, among records that come, go and are moved.
func TestPrintsEqualAMap(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rng := random(t, seed)
			m := &printModel{t, New(seed), map[uint64]bool{}}
			defer m.s.Close()
			few := seed%4 == 0 // bits by which they differ
			hash := func() uint64 {
				h := rng.Uint64()
				if few {
					h = h>>54<<54 | h>>54<<20
				}
				return h
			}
			for i := range 40_000 {
				grow := i/10_000%2 == 0
				h := hash()
				switch {
				case rng.IntN(8) > 0 == grow:
					m.imprint(h)
				case rng.IntN(3) > 0 || len(m.prints) == 0:
					m.s.EachPrint(h, func(p uint64) bool { h = p | h&^printBits; return false })
					m.erase(h)
				default:
					m.erase(h)
				}
				if m.s.Imprinted(h) != m.prints[h&printBits] {
					t.Fatalf("op %d: Imprinted(%x) is not %v", i, h, m.prints[h&printBits])
				}
				k := key(rng.IntN(2000))
				if kh := m.s.Hash(k); rng.IntN(4) == 0 {
					if r := m.s.Find(kh, k); r != 0 {
						m.s.Remove(kh, r)
					} else if _, err := m.s.Insert(kh, k, make([]byte, rng.IntN(300)), 0, 1, 0); err != nil {
						t.Fatal(err)
					}
				}
				m.s.Compact(rng.IntN(20))
				if i%4000 == 0 {
					m.check(hash(), rng)
				}
			}
			for p := range maps.Clone(m.prints) {
				m.erase(p)
			}
			m.check(0, rng)
			if st := m.s.Stats(); m.s.prints.dir != nil || m.s.prints.bytes != 0 || st.Index != m.s.index+int64(8*cap(m.s.dir)) {
				t.Errorf("something is left: %+v", st)
			}
		})
	}
}

// What isn't spread evenly is refused rather than given a directory without end.
func TestPrintsThatAreAllAlike(t *testing.T) {
	s := New(1)
	defer s.Close()
	n := 0
	for i := range uint64(5000) {
		if s.Imprint(0xab<<56 | i<<printDrop) {
			n++
		}
	}
	if err := s.check(); err != nil || n < mostPrints || len(s.prints.dir) > 2048 {
		t.Errorf("%d fingerprints, a directory of %d: %v", n, len(s.prints.dir), err)
	}
}

func TestPrintsWithoutMemory(t *testing.T) {
	s := New(1)
	defer s.Close()
	rng := random(t, 1)
	n := 0
	for i := range 100_000 {
		if i == 1000 {
			defer Limit(Limit(1))
		}
		if s.Imprint(rng.Uint64()) {
			n++
		}
	}
	if err := s.check(); err != nil || n != s.Prints() || n < 1000 || n == 100_000 {
		t.Errorf("%d fingerprints: %v", n, err)
	}
}

func TestAMillionPrintsAreSmall(t *testing.T) {
	s := New(1)
	defer s.Close()
	rng := random(t, 7)
	const n = 1_000_000
	for range n {
		s.Imprint(rng.Uint64())
		s.Compact(4)
	}
	if st := s.Stats(); st.Live > 6*n || st.Held > 8*n {
		t.Errorf("%d fingerprints take %+v", n, st)
	}
}

// FuzzPrints has fingerprints come and go as the fuzzer wishes: close together, too.
func FuzzPrints(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		m := &printModel{t, New(1), map[uint64]bool{}}
		defer m.s.Close()
		for i := 0; i+2 < len(ops) && i < 3000; i += 3 {
			first := uint64(ops[i+1])<<56 | uint64(ops[i+2])<<24
			for j := range uint64(ops[i] >> 1) {
				if h := first + j<<printDrop; ops[i]&1 == 0 {
					m.imprint(h)
				} else {
					m.erase(h)
				}
			}
		}
		m.check(0, rand.New(rand.NewPCG(1, 1)))
	})
}

func BenchmarkPrints(b *testing.B) {
	s := New(1)
	defer s.Close()
	rng := rand.New(rand.NewPCG(1, 1))
	hashes := make([]uint64, 5_000_000)
	for i := range hashes {
		hashes[i] = rng.Uint64()
		s.Imprint(hashes[i])
	}
	b.Run("hit", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if !s.Imprinted(hashes[i*7919%len(hashes)]) {
				b.Fatal("it isn't there")
			}
		}
	})
	b.Run("miss", func(b *testing.B) {
		for b.Loop() {
			s.Imprinted(rng.Uint64())
		}
	})
	b.Run("erase and imprint", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			h := hashes[i*7919%len(hashes)]
			s.Erase(h)
			s.Imprint(h)
		}
	})
	b.ReportMetric(float64(s.Stats().Held)/float64(s.Prints()), "B/key")
}
