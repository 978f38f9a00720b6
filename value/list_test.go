package value

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestListAgreesWithASlice(t *testing.T) {
	for seed := range uint64(18) {
		rng := random(t, seed)
		bound := []int{5, 300, 3000}[seed%3]
		content := short
		if seed%2 == 1 {
			content = text
		}
		elem := func() []byte { return content(rng.IntN(40)) }
		l, model := NewList(), [][]byte{}
		for step := range 4000 {
			n := len(model)
			v := elem()
			op := rng.IntN(14)
			if n > bound {
				op = 4 + rng.IntN(2)
			} else if n == 0 {
				op = rng.IntN(2)
			}
			switch op {
			case 0, 6, 7:
				l.PushBack(v)
				model = append(model, v)
			case 1, 8, 9:
				l.PushFront(v)
				model = slices.Insert(model, 0, v)
			case 2:
				i := rng.IntN(n + 1)
				l.InsertAt(i, v)
				model = slices.Insert(model, i, v)
			case 3:
				i := rng.IntN(n)
				l.SetAt(i, v)
				model[i] = v
			case 4:
				got, ok := l.PopFront()
				if !ok || !bytes.Equal(got, model[0]) {
					t.Fatalf("PopFront = %q, want %q", got, model[0])
				}
				model = model[1:]
			case 5:
				got, ok := l.PopBack()
				if !ok || !bytes.Equal(got, model[n-1]) {
					t.Fatalf("PopBack = %q, want %q", got, model[n-1])
				}
				model = model[:n-1]
			case 10:
				i := rng.IntN(n)
				l.RemoveAt(i)
				model = slices.Delete(model, i, i+1)
			case 11: // turned round, by what was popped
				if rng.IntN(2) == 0 {
					got, _ := l.PopBack()
					l.PushFront(got)
					model = slices.Insert(model[:n-1], 0, model[n-1])
				} else {
					got, _ := l.PopFront()
					l.PushBack(got)
					model = append(model[1:], model[0])
				}
			case 12:
				if rng.IntN(20) > 0 {
					break
				}
				count := rng.IntN(7) - 3
				want := 0
				drop := func(w []byte) bool {
					if bytes.Equal(w, v) && (count == 0 || want < max(count, -count)) {
						want++
						return true
					}
					return false
				}
				if count < 0 {
					slices.Reverse(model)
				}
				model = slices.DeleteFunc(model, drop)
				if count < 0 {
					slices.Reverse(model)
				}
				if got := l.RemoveValue(v, count); got != want {
					t.Fatalf("RemoveValue(%q, %d) = %d, want %d", v, count, got, want)
				}
			case 13:
				if rng.IntN(200) > 0 {
					break
				}
				start, stop := rng.IntN(n+2)-1, rng.IntN(n+2)-1
				l.TrimTo(start, stop)
				model = model[min(n, max(start, 0)):max(min(n, max(start, 0)), min(stop+1, n))]
			}
			clear(v[:0])
			model = slices.Clone(model)
			if l.Len() != len(model) {
				t.Fatalf("step %d, op %d: Len %d, want %d", step, op, l.Len(), len(model))
			}
			if step%100 == 0 || len(model) < 10 {
				checkList(t, rng, l, model)
			}
			if step%1000 == 0 {
				loaded, err := LoadList(l.AppendDump(nil))
				if err != nil {
					t.Fatal(err)
				}
				checkList(t, rng, loaded, model)
				l = loaded
			}
		}
	}
}

func checkList(t *testing.T, rng *rand.Rand, l *List, model [][]byte) {
	t.Helper()
	equal := func(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }
	if got := slices.Collect(l.All()); !equal(got, model) {
		t.Fatalf("has %q, want %q", got, model)
	}
	if l.big != nil {
		checkBigList(t, l.big)
	} else if b := l.small.b; len(b) > 0 && (b[1] != byte(len(model)) || b.checkList() != "" || len(b) > maxListBytes) {
		t.Fatalf("a small list of %d elements in %d bytes, says %d: %s", len(model), len(b), b[1], b.checkList())
	}
	for range 5 {
		i := rng.IntN(len(model)+4) - 2
		got, ok := l.Index(i)
		if ok != (i >= 0 && i < len(model)) || ok && !bytes.Equal(got, model[i]) {
			t.Fatalf("Index(%d) = %q, %v", i, got, ok)
		}
		limit := 1 + rng.IntN(200)
		var up, down [][]byte
		l.Range(i, func(v []byte) bool { up = append(up, v); return len(up) < limit })
		l.RangeBack(i, func(v []byte) bool { down = append(down, v); return len(down) < limit })
		begin := max(0, min(i, len(model)))
		if !equal(up, model[begin:min(len(model), begin+limit)]) {
			t.Fatalf("Range(%d) of %d gave %q", i, len(model), up)
		}
		end := max(-1, min(i, len(model)-1)) + 1
		back := slices.Clone(model[max(0, end-limit):end])
		slices.Reverse(back)
		if !equal(down, back) {
			t.Fatalf("RangeBack(%d) of %d gave %q, want %q", i, len(model), down, back)
		}
	}
}

func checkBigList(t *testing.T, l *bigList) {
	t.Helper()
	n, chunks, size := 0, 0, 0
	for i, b := range l.blocks {
		bn, bsize := 0, 0
		for j, c := range b.chunks {
			bn += c.n
			bsize += len(c.buf)
			if c.n > chunkLen || c.hi-c.lo > chunkBytes && c.n > 1 || c.lo < 0 || c.hi > len(c.buf) || c.n == 0 {
				t.Fatalf("chunk %d of %d: %d elements, bytes %d to %d of %d", j, i, c.n, c.lo, c.hi, len(c.buf))
			}
		}
		if bn != b.n || bsize != b.bytes || len(b.chunks) == 0 || len(b.chunks) > blockLen {
			t.Fatalf("block %d of %d chunks, %d elements, %d bytes; says %d, %d", i, len(b.chunks), bn, bsize, b.n, b.bytes)
		}
		n, size, chunks = n+bn, size+bsize, chunks+len(b.chunks)
	}
	if n != l.n || size != l.bytes || chunks != l.chunks {
		t.Fatalf("%d elements, %d bytes, %d chunks; says %d, %d, %d", n, size, chunks, l.n, l.bytes, l.chunks)
	}
}

func TestListEmpty(t *testing.T) {
	l := NewList()
	for range 2 {
		if _, ok := l.PopBack(); ok {
			t.Error("PopBack of nothing")
		}
		if _, ok := l.PopFront(); ok {
			t.Error("PopFront of nothing")
		}
		if l.RemoveValue(nil, 0) != 0 || l.Len() != 0 || l.Encoding() != "quicklist" {
			t.Error("not empty")
		}
		l.TrimTo(0, -1)
		l.PushFront(bytes.Repeat([]byte("x"), 100000)) // larger than a chunk
		l.PopBack()
		if l.Size() > 500 {
			t.Errorf("an emptied list keeps %d bytes", l.Size())
		}
	}
}

// Tiny elements fill few bytes of a chunk before its number of them is reached.
func TestListOfTinyElements(t *testing.T) {
	l := NewList()
	for range 100_000 {
		l.PushFront([]byte("tic"))
	}
	if most := l.Len() * (entrySize(3) + 1); l.Size() > most {
		t.Errorf("%d elements of 3 bytes take %d, more than %d", l.Len(), l.Size(), most)
	}
}

func TestListRemoveValueOfAll(t *testing.T) {
	for _, count := range []int{0, 1000, -1000, 1000000, -1000000} {
		l := NewList()
		for range 1000 {
			l.PushBack([]byte("same"))
		}
		if n := l.RemoveValue([]byte("same"), count); n != 1000 || l.Len() != 0 || l.Size() > 200 {
			t.Errorf("count %d removed %d, %d bytes left", count, n, l.Size())
		}
		l.PushFront([]byte("next"))
		if v, ok := l.Index(0); !ok || string(v) != "next" {
			t.Errorf("then has %q", v)
		}
	}
	l := NewList()
	for i := range 1000 {
		l.PushBack([]byte{byte(min(i%10, 1))})
	}
	if n := l.RemoveValue([]byte{1}, -890); n != 890 || l.big.chunks > 4 {
		t.Errorf("removed %d, leaving %d chunks", n, l.big.chunks)
	}
	ones := 0
	l.Range(0, func(v []byte) bool { ones += int(v[0]); return ones < 10 })
	if ones != 10 || l.Len() != 110 {
		t.Errorf("%d ones in a list of %d", ones, l.Len())
	}
}

func TestListAsAQueueStaysSmallAndDoesNotAllocate(t *testing.T) {
	for _, depth := range []int{1, 10, 100} {
		for _, dir := range []string{"in at the front", "in at the back"} {
			l := NewList()
			v := []byte("a message of some length")
			turn := func() {
				if dir == "in at the front" {
					l.PushFront(v)
				} else {
					l.PushBack(v)
				}
				if l.Len() <= depth {
					return
				}
				if dir == "in at the front" {
					l.PopBack()
				} else {
					l.PopFront()
				}
			}
			for range 100000 {
				turn()
			}
			if l.Size() > 1000+60*depth {
				t.Errorf("%d elements, %s: %d bytes", depth, dir, l.Size())
			}
			if n := testing.AllocsPerRun(1000, turn); n > 0 && depth < 100 {
				t.Errorf("%d elements, %s: %v allocations", depth, dir, n)
			}
		}
	}
}

func BenchmarkList(b *testing.B) {
	v := []byte("0123456789")
	for _, n := range []int{0, 10, 1000, 1000000} {
		l := NewList()
		for range n {
			l.PushBack(v)
		}
		rng := rand.New(rand.NewPCG(1, 1))
		b.Run(fmt.Sprintf("PushFrontPopBack/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l.PushFront(v)
				l.PopBack()
			}
		})
		if n > 0 {
			b.Run(fmt.Sprintf("Index/%d", n), func(b *testing.B) {
				for b.Loop() {
					l.Index(rng.IntN(n))
				}
				b.ReportMetric(float64(l.Size())/float64(n), "B/elem")
			})
		}
	}
	b.Run("PushFront", func(b *testing.B) {
		b.ReportAllocs()
		l := NewList()
		for b.Loop() {
			l.PushFront(v)
		}
	})
	b.Run("PushFront1KiB", func(b *testing.B) {
		b.ReportAllocs()
		l := NewList()
		v := make([]byte, 1024)
		for b.Loop() {
			if l.PushFront(v); l.Len() == 10000 {
				b.ReportMetric(float64(l.Size())/float64(l.Len()), "B/elem")
				l = NewList()
			}
		}
	})
	b.Run("InsertMiddle/100000", func(b *testing.B) {
		b.ReportAllocs()
		l := NewList()
		for range 100000 {
			l.PushBack(v)
		}
		for b.Loop() {
			l.InsertAt(l.Len()/2, v)
		}
	})
}
