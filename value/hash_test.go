package value

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// text is a string of one of many lengths, the same for the same number.
func text(i int) []byte {
	lengths := []int{0, 1, 7, 20, 63, 64, 127, 128, 250, 256, 300, 5000}
	return fmt.Appendf(nil, "%d%s", i, strings.Repeat("x", lengths[i%len(lengths)]))
}

// short is one that stays packed.
func short(i int) []byte { return fmt.Appendf(nil, "%d%s", i, strings.Repeat("x", i%40)) }

func TestHashAgreesWithAMap(t *testing.T) {
	for seed := range uint64(18) {
		rng := random(t, seed)
		fields := 1 + rng.IntN([]int{20, 120, 3000}[seed%3])
		content := short
		if seed%2 == 1 {
			content = text
		}
		h, model := NewHash(seed), map[string][]byte{}
		var order []string // of fields while packed
		for step := range 6000 {
			i := rng.IntN(fields)
			field := short(i)
			switch rng.IntN(8) {
			case 0:
				_, was := model[string(field)]
				if got := h.Del(field); got != was {
					t.Fatalf("Del(%q) = %v", field, got)
				}
				delete(model, string(field))
				order = slices.DeleteFunc(order, func(f string) bool { return f == string(field) })
			case 1:
				val, ok := h.Get(field)
				want, was := model[string(field)]
				if ok != was || !bytes.Equal(val, want) || h.Has(field) != was {
					t.Fatalf("Get(%q) = %q, %v; want %q, %v", field, val, ok, want, was)
				}
			default:
				val := content(rng.IntN(500))
				_, was := model[string(field)]
				if got := h.Set(field, val); got == was {
					t.Fatalf("Set(%q) = %v", field, got)
				}
				model[string(field)] = bytes.Clone(val)
				if !was {
					order = append(order, string(field))
				}
				clear(val) // ours no more
			}
			if h.Len() != len(model) {
				t.Fatalf("Len %d, want %d", h.Len(), len(model))
			}
			if step%500 == 0 {
				checkHash(t, h, model, order)
				loaded, err := LoadHash(seed, h.AppendDump(nil))
				if err != nil {
					t.Fatal(err)
				}
				if loaded.Encoding() != h.Encoding() {
					t.Fatalf("loaded as %s, was %s", loaded.Encoding(), h.Encoding())
				}
				checkHash(t, loaded, model, order)
				if step%1000 == 0 {
					h = loaded
				}
			}
		}
	}
}

func checkHash(t *testing.T, h *Hash, model map[string][]byte, order []string) {
	t.Helper()
	got := map[string][]byte{}
	var fields []string
	for f, v := range h.All() {
		fields = append(fields, string(f))
		got[string(f)] = bytes.Clone(v)
	}
	same := func(a, b []byte) bool { return bytes.Equal(a, b) }
	if len(fields) != len(model) || !maps.EqualFunc(got, model, same) {
		t.Fatalf("All gave %d fields, want %d", len(fields), len(model))
	}
	if h.Encoding() == "listpack" && !slices.Equal(fields, order) {
		t.Fatalf("fields in order %q, want %q", fields, order)
	}
	clear(got)
	for cursor := uint64(0); ; {
		if cursor = h.Scan(cursor, 7, func(f, v []byte) { got[string(f)] = bytes.Clone(v) }); cursor == 0 {
			break
		}
	}
	if !maps.EqualFunc(got, model, same) {
		t.Fatalf("Scan gave %d fields, want %d", len(got), len(model))
	}
	bytes := 0
	if h.big != nil {
		h.big.table.Range(func(c *cell) bool { bytes += c.size(); return true })
		if bytes != h.big.bytes {
			t.Fatalf("%d bytes in cells, says %d", bytes, h.big.bytes)
		}
	}
	content := 0
	for f, v := range model {
		content += len(f) + len(v)
	}
	if size := h.Size(); size < content || size > 300+4*content+120*len(model) {
		t.Fatalf("size %d for %d bytes in %d fields", size, content, len(model))
	}
}

func TestHashLeavesListpackWhereRedisDoes(t *testing.T) {
	fill := func(n int) *Hash {
		h := NewHash(1)
		for i := range n {
			h.Set(key(i), []byte("v"))
		}
		return h
	}
	long := bytes.Repeat([]byte("x"), 65)
	for _, c := range []struct {
		name string
		do   func(h *Hash)
		n    int
		want string
	}{
		{"128 fields", func(h *Hash) {}, 128, "listpack"},
		{"129 fields", func(h *Hash) {}, 129, "hashtable"},
		{"a field set again at 128", func(h *Hash) { h.Set(key(5), long[:64]) }, 128, "listpack"},
		{"64 bytes", func(h *Hash) { h.Set(long[:64], long[:64]) }, 0, "listpack"},
		{"a field of 65 bytes", func(h *Hash) { h.Set(long, nil) }, 0, "hashtable"},
		{"a value of 65 bytes", func(h *Hash) { h.Set(nil, long) }, 0, "hashtable"},
		{"an old field with a new value of 65 bytes", func(h *Hash) { h.Set(key(0), long) }, 1, "hashtable"},
		{"grown and shrunk", func(h *Hash) {
			for i := range 130 {
				h.Del(key(i))
			}
		}, 130, "hashtable"},
	} {
		h := fill(c.n)
		if c.do(h); h.Encoding() != c.want {
			t.Errorf("%s: %s, want %s", c.name, h.Encoding(), c.want)
		}
	}
}

func TestHashSetInPlaceDoesNotAllocate(t *testing.T) {
	for _, n := range []int{10, 1000} {
		h := NewHash(1)
		for i := range n {
			h.Set(key(i), []byte("0000"))
		}
		a, b, field := []byte("1111"), []byte("2222"), key(n/2)
		if got := testing.AllocsPerRun(100, func() {
			h.Set(field, a)
			h.Set(field, b)
			h.Get(field)
		}); got > 0 {
			t.Errorf("%d fields: %v allocations", n, got)
		}
	}
}

// Samples have no member twice, and each comes about equally often, whatever
// the form and however they are drawn.
func TestSamplesAreEven(t *testing.T) {
	type sampler struct {
		name   string
		random func(rng *rand.Rand) []byte
		sample func(rng *rand.Rand, n int, fn func([]byte))
	}
	for _, size := range []int{1, 10, 100, 600} {
		h, strs, ints, z := NewHash(1), NewSet(1), NewSet(1), NewZSet(1)
		for i := range size {
			h.Set(key(i), nil)
			strs.Add(key(i))
			ints.Add(fmt.Append(nil, i))
			z.Set(key(i), float64(i))
		}
		for _, s := range []sampler{
			{"hash", func(rng *rand.Rand) []byte { f, _ := h.Random(rng); return f },
				func(rng *rand.Rand, n int, fn func([]byte)) { h.Sample(rng, n, func(f, _ []byte) { fn(f) }) }},
			{"strings", func(rng *rand.Rand) []byte { return strs.Random(rng) },
				func(rng *rand.Rand, n int, fn func([]byte)) { strs.Sample(rng, n, fn) }},
			{"integers", func(rng *rand.Rand) []byte { return ints.Random(rng) },
				func(rng *rand.Rand, n int, fn func([]byte)) { ints.Sample(rng, n, fn) }},
			{"sorted", func(rng *rand.Rand) []byte { m, _ := z.Random(rng); return m },
				func(rng *rand.Rand, n int, fn func([]byte)) {
					z.Sample(rng, n, func(m []byte, _ float64) { fn(m) })
				}},
		} {
			t.Run(fmt.Sprintf("%s of %d", s.name, size), func(t *testing.T) {
				rng := random(t, 5)
				for _, n := range []int{0, 1, size / 10, size / 2, size - 1, size, size + 5, -3} {
					counts := map[string]int{}
					const rounds = 100
					for range rounds {
						once := map[string]bool{}
						s.sample(rng, n, func(m []byte) {
							once[string(m)] = true
							counts[string(m)]++
						})
						if len(once) != max(0, min(n, size)) {
							t.Fatalf("sample of %d: %d distinct", n, len(once))
						}
					}
					share := float64(max(0, min(n, size))) / float64(size)
					for m, c := range counts {
						if want := share * rounds; float64(c) < want-40 || float64(c) > want+40 {
							t.Errorf("sample of %d: %q came %d times, want about %.0f", n, m, c, want)
						}
					}
				}
				seen := map[string]bool{}
				for range 20 * size {
					seen[string(s.random(rng))] = true
				}
				if len(seen) != size {
					t.Errorf("%d of %d were ever chosen", len(seen), size)
				}
			})
		}
	}
	if f, _ := NewHash(1).Random(nil); f != nil {
		t.Error("an empty hash gives a field")
	}
	if NewSet(1).Random(nil) != nil {
		t.Error("an empty set gives a member")
	}
	if m, _ := NewZSet(1).Random(nil); m != nil {
		t.Error("an empty sorted set gives a member")
	}
}

func BenchmarkHash(b *testing.B) {
	for _, n := range []int{5, 100, 100000} {
		h := NewHash(1)
		var fields [][]byte
		for i := range n {
			fields = append(fields, key(i))
			h.Set(fields[i], []byte("0123456789"))
		}
		rng := rand.New(rand.NewPCG(1, 1))
		v := []byte("9876543210")
		b.Run(fmt.Sprintf("Set/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.Set(fields[rng.IntN(n)], v)
			}
			b.ReportMetric(float64(h.Size())/float64(n), "B/field")
		})
		b.Run(fmt.Sprintf("Get/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.Get(fields[rng.IntN(n)])
			}
		})
		b.Run(fmt.Sprintf("Build/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h := NewHash(1)
				for _, f := range fields {
					h.Set(f, v)
				}
			}
		})
	}
}
