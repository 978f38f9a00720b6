package value

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
)

func TestSetAgreesWithAMap(t *testing.T) {
	for seed := range uint64(18) {
		rng := random(t, seed)
		members := 1 + rng.IntN([]int{20, 150, 3000}[seed%3])
		begin := rng.IntN(6000) // when strings come, if they do
		member := func(step int) []byte {
			i := rng.IntN(members)
			if seed%2 == 0 || step < begin {
				shift := []uint{0, 8, 20, 45}[min(step/200, 3)] // wider and wider
				return strconv.AppendInt(nil, int64(i-members/2)<<shift, 10)
			}
			if seed%5 == 1 {
				return text(i)
			}
			return short(i)
		}
		s, model := NewSet(seed), map[string]bool{}
		for step := range 6000 {
			m := member(step)
			was := model[string(m)]
			if s.Has(m) != was {
				t.Fatalf("Has(%q) = %v", m, !was)
			}
			if rng.IntN(4) == 0 {
				if s.Del(m) != was {
					t.Fatalf("Del(%q) = %v", m, !was)
				}
				delete(model, string(m))
			} else {
				if s.Add(m) == was {
					t.Fatalf("Add(%q) = %v", m, was)
				}
				model[string(m)] = true
			}
			if s.Len() != len(model) {
				t.Fatalf("Len %d, want %d", s.Len(), len(model))
			}
			if step%500 == 0 {
				checkSet(t, s, model)
				loaded, err := LoadSet(seed, s.AppendDump(nil))
				if err != nil {
					t.Fatal(err)
				}
				if loaded.Encoding() != s.Encoding() || (loaded.big == nil) != (s.big == nil) {
					t.Fatalf("loaded as %s, was %s", loaded.Encoding(), s.Encoding())
				}
				checkSet(t, loaded, model)
				if step%1000 == 0 {
					s = loaded
				}
			}
		}
	}
}

func checkSet(t *testing.T, s *Set, model map[string]bool) {
	t.Helper()
	all := map[string]bool{}
	var kept [][]byte
	for m := range s.All() {
		kept = append(kept, m)
	}
	last := int64(math.MinInt64)
	for _, m := range kept { // still good after the loop
		all[string(m)] = true
		if !model[string(m)] {
			t.Fatalf("All gave %q", m)
		}
		if s.IsIntset() {
			v, _ := strconv.ParseInt(string(m), 10, 64)
			if v < last {
				t.Fatalf("%d after %d", v, last)
			}
			last = v
		}
	}
	scanned := map[string]bool{}
	for cursor := uint64(0); ; {
		if cursor = s.Scan(cursor, 7, func(m []byte) { scanned[string(m)] = true }); cursor == 0 {
			break
		}
	}
	if len(kept) != len(model) || len(all) != len(model) || len(scanned) != len(model) {
		t.Fatalf("All gave %d, %d of them distinct, Scan %d; want %d", len(kept), len(all), len(scanned), len(model))
	}
}

func TestSetLeavesIntsetWhereRedisDoes(t *testing.T) {
	s := NewSet(1)
	for i := range 512 {
		s.Add(strconv.AppendInt(nil, int64(i), 10))
	}
	if s.Encoding() != "intset" || !s.IsIntset() {
		t.Errorf("512 integers: %s", s.Encoding())
	}
	s.Add([]byte("5"))
	if s.Encoding() != "intset" {
		t.Errorf("one of them again: %s", s.Encoding())
	}
	s.Add([]byte("512"))
	if s.Encoding() != "hashtable" || s.Len() != 513 {
		t.Errorf("513 integers: %s", s.Encoding())
	}
	for _, m := range []string{"", "a", "-", "-0", "01", "+1", " 1", "1 ", "1.0", "9223372036854775808", "-9223372036854775809", "99999999999999999999", "123456789012345678901"} {
		s := NewSet(1)
		s.Add([]byte("7"))
		s.Add([]byte(m))
		if s.Encoding() != "hashtable" || s.Len() != 2 || !s.Has([]byte("7")) || !s.Has([]byte(m)) {
			t.Errorf("%q: %s", m, s.Encoding())
		}
	}
	for _, m := range []string{"0", "-1", "9223372036854775807", "-9223372036854775808", "10", "-32769", "2147483648"} {
		s := NewSet(1)
		s.Add([]byte("7"))
		s.Add([]byte(m))
		if s.Encoding() != "intset" || !s.Has([]byte(m)) || !slices.ContainsFunc(slices.Collect(s.All()), func(got []byte) bool { return string(got) == m }) {
			t.Errorf("%q: %s", m, s.Encoding())
		}
	}
}

func TestSmallSetOfStringsIsPacked(t *testing.T) {
	s := NewSet(1)
	for i := range 128 {
		s.Add(key(i))
	}
	i := 0
	for m := range s.All() {
		if string(m) != string(key(i)) {
			t.Fatalf("member %d is %s", i, m)
		}
		i++
	}
	packedSize := s.Size()
	s.Add(key(128))
	if s.big == nil || s.Size() < 2*packedSize {
		t.Errorf("129 strings: %d bytes, 128: %d", s.Size(), packedSize)
	}
}

func BenchmarkSet(b *testing.B) {
	for _, n := range []int{5, 100, 500, 100000} {
		for _, kind := range []string{"int", "string"} {
			s := NewSet(1)
			var members [][]byte
			for i := range n {
				m := key(i)
				if kind == "int" {
					m = strconv.AppendInt(nil, int64(i)*1000, 10)
				}
				members = append(members, m)
				s.Add(m)
			}
			rng := rand.New(rand.NewPCG(1, 1))
			b.Run(fmt.Sprintf("Has/%s/%d", kind, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					s.Has(members[rng.IntN(n)])
				}
				b.ReportMetric(float64(s.Size())/float64(n), "B/member")
			})
			b.Run(fmt.Sprintf("AddDel/%s/%d", kind, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					m := members[rng.IntN(n)]
					s.Del(m)
					s.Add(m)
				}
			})
		}
	}
}
