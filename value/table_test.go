package value

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

type word struct{ key []byte }

func newWordTable(seed uint64) *Table[word] {
	return NewTable(seed, func(w *word) []byte { return w.key })
}

// random returns a source and prints its seed if the test fails.
func random(t testing.TB, seed uint64) *rand.Rand {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

// check verifies all that the comment above Table promises about its shape.
func (t *Table[E]) check() error {
	n, bytes := 0, 0
	deeps := make([]int, len(t.deeps))
	for i := 0; i < len(t.dir); {
		head := t.dir[i]
		span := 1 << (t.depth - head.depth)
		if i&(span-1) != 0 {
			return fmt.Errorf("segment of depth %d begins at %d of %d", head.depth, i, len(t.dir))
		}
		deeps[head.depth]++
		for j := range span {
			if t.dir[i+j] != head {
				return fmt.Errorf("directory entry %d is not that of %d", i+j, i)
			}
		}
		for s := head; s != nil; s = s.more {
			bytes += s.size()
			here := 0
			for at, tag := range s.tags {
				if (tag == 0) != (s.elems[at] == nil) {
					return fmt.Errorf("slot %d: tag %x with element %v", at, tag, s.elems[at])
				}
				if tag == 0 {
					continue
				}
				here++
				h := t.Hash(t.key(s.elems[at]))
				if int(h>>(64-t.depth))&^(span-1) != i {
					return fmt.Errorf("hash %x in the segment of directory entry %d", h, i)
				}
				away := (at - s.home(h)) & (len(s.tags) - 1)
				if want := tagOf(h) + uint16(away)*oneFurther; tag != want {
					return fmt.Errorf("slot %d: tag %x, want %x", at, tag, want)
				}
				if prev := s.tags[(at-1)&(len(s.tags)-1)]; away > 0 && prev < tag-oneFurther {
					return fmt.Errorf("slot %d: tag %x after %x", at, tag, prev)
				}
			}
			if here != s.n || here > s.limit() {
				return fmt.Errorf("segment has %d elements, says %d, may have %d", here, s.n, s.limit())
			}
			n += here
		}
		i += span
	}
	if n != t.n || bytes != t.bytes || (t.dir != nil && (!slices.Equal(deeps, t.deeps) || len(deeps) != int(t.depth)+1 || len(t.dir) != 1<<t.depth)) {
		return fmt.Errorf("%d elements, %d bytes, %d deep, directory of %d; says %d, %d, %d, depth %d",
			n, bytes, deeps, len(t.dir), t.n, t.bytes, t.deeps, t.depth)
	}
	return nil
}

func key(i int) []byte { return fmt.Appendf(nil, "key:%d", i) }

func TestTableAgreesWithAMap(t *testing.T) {
	for _, size := range []int{3, 10, 100, 700, 5000, 40000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			rng := random(t, uint64(size))
			table, model := newWordTable(7), map[string]*word{}
			check := func() {
				t.Helper()
				if err := table.check(); err != nil {
					t.Fatal(err)
				}
				if table.Len() != len(model) {
					t.Fatalf("Len %d, want %d", table.Len(), len(model))
				}
			}
			for round := range 6 {
				grow := round%2 == 0 // fill, then empty, and again
				for i := range 3 * size {
					k := key(rng.IntN(size))
					h := table.Hash(k)
					if got := table.Find(h, k); got != model[string(k)] {
						t.Fatalf("Find(%s) = %v, want %v", k, got, model[string(k)])
					}
					put := rng.IntN(10) < 9
					if !grow {
						put = !put
					}
					switch old := model[string(k)]; {
					case put && old == nil:
						w := &word{k}
						table.Insert(h, w)
						model[string(k)] = w
					case put:
						w := &word{k}
						table.Replace(h, old, w)
						model[string(k)] = w
					default:
						if got := table.Remove(h, k); got != old {
							t.Fatalf("Remove(%s) = %v, want %v", k, got, old)
						}
						delete(model, string(k))
					}
					if i%(size/3) == 0 {
						check()
					}
				}
				check()
				seen := map[*word]bool{}
				table.Range(func(w *word) bool { seen[w] = true; return true })
				if len(seen) != len(model) {
					t.Fatalf("Range gave %d, want %d", len(seen), len(model))
				}
			}
			for k := range model {
				if table.Remove(table.Hash([]byte(k)), []byte(k)) == nil {
					t.Fatalf("%s is gone", k)
				}
			}
			clear(model)
			check()
			if table.Size() > 300 {
				t.Errorf("an emptied table keeps %d bytes", table.Size())
			}
		})
	}
}

func TestTableScanGivesOrderOfHashes(t *testing.T) {
	table := newWordTable(3)
	for i := range 20000 {
		k := key(i)
		table.Insert(table.Hash(k), &word{k})
	}
	last, n := uint64(0), 0
	for cursor := uint64(0); ; {
		given := 0
		cursor = table.ScanFrom(cursor, 10, func(w *word) {
			h := table.Hash(w.key)
			if h < last {
				t.Fatalf("%x after %x", h, last)
			}
			last = h
			given++
		})
		n += given
		if given > 10+8 {
			t.Fatalf("%d elements for a count of 10", given)
		}
		if cursor == 0 {
			break
		}
	}
	if n != 20000 {
		t.Fatalf("%d elements, want 20000", n)
	}
}

// Elements come and go between the calls of a scan, and from inside them, and
// each call asks one of three copies that grew in different ways.
func TestTableScanMissesNothingThatStays(t *testing.T) {
	for seed := range uint64(10) {
		rng := random(t, seed)
		copies := []*Table[word]{newWordTable(9), newWordTable(9), newWordTable(9)}
		insert := func(w *word) {
			for _, c := range copies {
				if c.Find(c.Hash(w.key), w.key) == nil {
					c.Insert(c.Hash(w.key), w)
				}
			}
		}
		remove := func(k []byte) {
			for _, c := range copies {
				c.Remove(c.Hash(k), k)
			}
		}
		for i := range 30000 { // the last copy was large once
			copies[2].Insert(copies[2].Hash(key(-i)), &word{key(-i)})
		}
		stays := map[string]int{}
		for i := range 1 + rng.IntN(3000) {
			k := key(i)
			insert(&word{k})
			stays[string(k)] = 0
		}
		for i := range 30000 {
			if _, ok := stays[string(key(-i))]; !ok {
				copies[2].Remove(copies[2].Hash(key(-i)), key(-i))
			}
		}
		churn := 10000
		calls := 0
		for cursor := uint64(0); ; {
			if calls++; calls > 100000 {
				t.Fatal("scan doesn't end")
			}
			size := rng.IntN(400)
			for range size {
				k := key(churn + rng.IntN(20000))
				if rng.IntN(2000) < copies[0].Len()/4 {
					remove(k)
				} else {
					insert(&word{k})
				}
			}
			cursor = copies[rng.IntN(3)].ScanFrom(cursor, 1+rng.IntN(200), func(w *word) {
				if n, ok := stays[string(w.key)]; ok {
					stays[string(w.key)] = n + 1
				} else if rng.IntN(2) == 0 {
					remove(w.key)
				} else {
					insert(&word{key(churn + rng.IntN(20000))})
				}
			})
			if cursor == 0 {
				break
			}
		}
		for k, n := range stays {
			if n != 1 {
				t.Fatalf("%s was given %d times", k, n)
			}
		}
		for _, c := range copies {
			if err := c.check(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestTableScanOfNothingAndBeyondTheEnd(t *testing.T) {
	table := newWordTable(1)
	none := func(*word) { t.Error("gave an element") }
	if table.ScanFrom(0, 10, none) != 0 || table.ScanFrom(77, 10, none) != 0 {
		t.Error("an empty table has more")
	}
	table.Insert(table.Hash([]byte("a")), &word{[]byte("a")})
	for _, cursor := range []uint64{1 << CursorBits, 1<<64 - 1} {
		if table.ScanFrom(cursor, 10, none) != 0 {
			t.Error("there is something beyond the end")
		}
	}
	n := 0
	if next := table.ScanFrom(0, 1<<62, func(*word) { n++ }); next != 0 || n != 1 {
		t.Errorf("next %d after %d elements, with a count of almost everything", next, n)
	}
}

func TestTableScanStopsInEmptiness(t *testing.T) {
	table := newWordTable(1)
	for i := range 100000 {
		table.Insert(table.Hash(key(i)), &word{key(i)})
	}
	for i := range 100000 { // one in 200 stays, but segments don't all join
		if i%200 != 0 {
			table.Remove(table.Hash(key(i)), key(i))
		}
	}
	n := 0
	for cursor := uint64(0); ; {
		if cursor = table.ScanFrom(cursor, 10, func(*word) { n++ }); cursor == 0 {
			break
		}
	}
	if n != 500 {
		t.Errorf("%d elements, want 500", n)
	}
}

// Keys whose hashes are all the same, which takes the seed to find, or begin
// alike, must make the table slow, not large or wrong.
func TestTableSurvivesUnevenHashes(t *testing.T) {
	const seed = 1
	same := binary.LittleEndian.AppendUint64(nil, seed<<32^root3) // the mask, which makes a product of zero
	keys := map[string]func(i int) []byte{
		"all the same": func(i int) []byte { return fmt.Appendf(same[:8:8], "%8d", i) },
		"begin alike": func(i int) []byte {
			for j := i << 32; ; j++ {
				if k := key(j); Hash64(seed, k)>>55 == 77 {
					return k
				}
			}
		},
	}
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			table := newWordTable(seed)
			var words []*word
			for i := range 3000 {
				w := &word{key(i)}
				words = append(words, w)
				table.Insert(table.Hash(w.key), w)
			}
			if err := table.check(); err != nil {
				t.Fatal(err)
			}
			if len(table.dir) > 512 || len(table.dir) < 2 {
				t.Errorf("directory of %d for %d elements", len(table.dir), len(words))
			}
			for range 20 {
				if table.Random(random(t, 1)) == nil {
					t.Error("no random element")
				}
			}
			n := 0
			for cursor := uint64(0); ; {
				if cursor = table.ScanFrom(cursor, 10, func(*word) { n++ }); cursor == 0 {
					break
				}
			}
			if n != len(words) {
				t.Errorf("scan gave %d of %d", n, len(words))
			}
			for _, w := range words {
				h := table.Hash(w.key)
				table.Replace(h, w, w)
				if table.Find(h, w.key) != w || table.Remove(h, w.key) != w {
					t.Fatalf("%s is lost", w.key)
				}
			}
			if err := table.check(); err != nil {
				t.Fatal(err)
			}
			if table.Size() > 40000 {
				t.Errorf("an emptied table keeps %d bytes", table.Size())
			}
		})
	}
}

func TestTableRandomIsEven(t *testing.T) {
	for _, n := range []int{1, 2, 10, 900, 5000} {
		rng := random(t, uint64(n))
		table := newWordTable(5)
		for i := range n {
			table.Insert(table.Hash(key(i)), &word{key(i)})
		}
		const each = 200
		counts := map[*word]int{}
		for range n * each {
			counts[table.Random(rng)]++
		}
		if len(counts) != n {
			t.Errorf("%d of %d were ever chosen", len(counts), n)
		}
		chi := 0.0
		for _, c := range counts {
			chi += float64((c-each)*(c-each)) / each
		}
		if n > 100 && (chi/float64(n) < 0.8 || chi/float64(n) > 1.2) {
			t.Errorf("%d elements: chi-square %.2f a degree of freedom", n, chi/float64(n))
		}
	}
}

func TestTinyTableIsTiny(t *testing.T) {
	table := newWordTable(1)
	if table.Size() > 100 {
		t.Errorf("empty: %d bytes", table.Size())
	}
	for i := range 8 {
		table.Insert(table.Hash(key(i)), &word{key(i)})
	}
	if table.Size() > 350 {
		t.Errorf("8 elements: %d bytes", table.Size())
	}
}

func TestTableLookupsDontAllocate(t *testing.T) {
	table := newWordTable(1)
	for i := range 1000 {
		table.Insert(table.Hash(key(i)), &word{key(i)})
	}
	k, rng := key(500), random(t, 1)
	sum := 0
	if n := testing.AllocsPerRun(100, func() {
		h := table.Hash(k)
		table.Approach(h)
		w := table.Touch(h)
		w = table.Find(h, k)
		table.Remove(h, k)
		table.Insert(h, w)
		table.ScanFrom(100, 10, func(w *word) { sum += len(w.key) })
		sum += len(table.Random(rng).key)
	}); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

func TestHash64Golden(t *testing.T) {
	// The first bytes of a counting sequence, by length, under two seeds.
	input := make([]byte, 200)
	for i := range input {
		input[i] = byte(i*7 + 1)
	}
	var got bytes.Buffer
	for _, n := range []int{0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 47, 48, 49, 63, 64, 65, 95, 96, 97, 128, 200} {
		fmt.Fprintf(&got, "%d %016x %016x\n", n, Hash64(0, input[:n]), Hash64(0x123456789abcdef, input[:n]))
	}
	golden(t, "hash64.txt", got.Bytes())
}

func TestHash64Spreads(t *testing.T) {
	// Over near and far keys, and flips of each bit of the key or the seed,
	// every bit of the hash changes about half of the time.
	for _, n := range []int{1, 3, 4, 6, 8, 12, 16, 17, 40, 49, 100} {
		rng := random(t, uint64(n))
		var flips [64]int
		total := 0
		for range 300 {
			k := make([]byte, n)
			for i := range k {
				k[i] = byte(rng.Uint64())
			}
			seed := rng.Uint64()
			h := Hash64(seed, k)
			for bit := range 8 * n {
				k[bit/8] ^= 1 << (bit % 8)
				diff := h ^ Hash64(seed, k)
				k[bit/8] ^= 1 << (bit % 8)
				for out := range 64 {
					flips[out] += int(diff >> out & 1)
				}
				total++
			}
			for bit := range 64 {
				diff := h ^ Hash64(seed^1<<bit, k)
				for out := range 64 {
					flips[out] += int(diff >> out & 1)
				}
				total++
			}
		}
		for out, f := range flips {
			if share := float64(f) / float64(total); share < 0.47 || share > 0.53 {
				t.Errorf("length %d: bit %d changes in %.3f of flips", n, out, share)
			}
		}
	}
	// Counters are the commonest keys.
	seen := map[uint64]bool{}
	var top [1 << 10]int
	const n = 1 << 18
	for i := range uint64(n) {
		h := Hash64(42, binary.BigEndian.AppendUint64(nil, i))
		seen[h] = true
		top[h>>54]++
	}
	if len(seen) != n {
		t.Errorf("%d collisions", n-len(seen))
	}
	for i, c := range top {
		if c < 256-110 || c > 256+110 {
			t.Errorf("%d of the hashes begin with %x", c, i)
		}
	}
}

func BenchmarkHash64(b *testing.B) {
	for _, n := range []int{8, 16, 32, 64, 256, 4096} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			k := make([]byte, n)
			b.SetBytes(int64(n))
			for b.Loop() {
				k[0] = byte(Hash64(1, k))
			}
		})
	}
}

func BenchmarkTable(b *testing.B) {
	for _, n := range []int{8, 1000, 1000000} {
		table := newWordTable(1)
		words := make([]*word, n)
		for i := range words {
			words[i] = &word{key(i)}
			table.Insert(table.Hash(words[i].key), words[i])
		}
		rng := rand.New(rand.NewPCG(1, 1))
		b.Run(fmt.Sprintf("Find/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k := words[rng.IntN(n)].key
				if table.Find(table.Hash(k), k) == nil {
					b.Fatal("lost")
				}
			}
		})
		b.Run(fmt.Sprintf("RemoveInsert/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k := words[rng.IntN(n)].key
				h := table.Hash(k)
				table.Insert(h, table.Remove(h, k))
			}
		})
		b.Run(fmt.Sprintf("Scan10/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			cursor, sum := uint64(0), 0
			for b.Loop() {
				cursor = table.ScanFrom(cursor, 10, func(w *word) { sum++ })
			}
		})
	}
	b.Run("Fill", func(b *testing.B) {
		b.ReportAllocs()
		table := newWordTable(1)
		ws := make([]word, b.N)
		ks := make([]byte, 8*b.N)
		b.ResetTimer()
		for i := range b.N {
			ws[i].key = binary.LittleEndian.AppendUint64(ks[8*i:8*i], uint64(i))
			table.Insert(table.Hash(ws[i].key), &ws[i])
		}
		b.ReportMetric(float64(table.Size())/float64(b.N), "B/elem")
	})
}
