package value

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// inParts is a big collection of any kind, and how to change it.
type inParts interface {
	Len() int
	AppendDump(dst []byte) []byte
	HasParts() bool
	Save() *Save
	DropParts()
}

// partStore is what a collection has been saved as.
type partStore struct {
	head  []byte
	parts map[PartID][]byte
}

// save saves a collection, with meanwhile called between any two parts, and
// checks that what is stored is the collection as it was in the beginning, or can be
// loaded at least, if it isn't a list and has changed. It returns how many parts were
// written.
func (s *partStore) save(t *testing.T, c inParts, meanwhile func()) (written, deleted int) {
	t.Helper()
	dump := c.AppendDump(nil)
	had := c.HasParts()
	save := c.Save()
	if save.Whole == had {
		t.Fatalf("it had parts: %v, all are given: %v", had, save.Whole)
	}
	if !c.HasParts() {
		t.Fatal("has no parts")
	}
	if save.Whole {
		s.parts = map[PartID][]byte{}
	}
	last := PartID(0)
	for save.Next(1, func(id PartID, data []byte, gone bool) {
		if id <= last {
			t.Fatalf("part %x after %x", id, last)
		}
		if last = id; gone != (data == nil) {
			t.Fatalf("part %x: gone %v, %d bytes", id, gone, len(data))
		}
		if delete(s.parts, id); gone {
			deleted++
		} else {
			written++
			s.parts[id] = bytes.Clone(data)
		}
	}) {
		if meanwhile != nil {
			meanwhile()
		}
	}
	s.head = save.Head()
	again, err := loadParts(kindOf(c), s.head, inOrder(s.parts), nil)
	if err != nil {
		t.Fatal(err)
	}
	if kindOf(c) != "list" && meanwhile != nil {
		return written, deleted
	}
	if !bytes.Equal(again.AppendDump(nil), dump) {
		t.Fatal("what is stored is something else")
	}
	return written, deleted
}

func kindOf(c inParts) string {
	switch c.(type) {
	case *Hash:
		return "hash"
	case *Set:
		return "set"
	case *ZSet:
		return "zset"
	}
	return "list"
}

// inOrder gives what is stored.
type inOrder map[PartID][]byte

func (m inOrder) From(id PartID) (PartID, []byte, bool) {
	ids := slices.Sorted(maps.Keys(m))
	i, _ := slices.BinarySearch(ids, id)
	if i == len(ids) {
		return 0, nil, false
	}
	return ids[i], m[ids[i]], true
}

func (m inOrder) Before(id PartID) (PartID, []byte, bool) {
	ids := slices.Sorted(maps.Keys(m))
	i, _ := slices.BinarySearch(ids, id)
	if i == 0 {
		return 0, nil, false
	}
	return ids[i-1], m[ids[i-1]], true
}

func loadParts(kind string, head []byte, src Source, need *Need) (inParts, error) {
	switch kind {
	case "hash":
		h := new(Hash)
		return h, h.LoadParts(1, head, src, need)
	case "set":
		s := new(Set)
		return s, s.LoadParts(1, head, src, need)
	case "zset":
		z := new(ZSet)
		return z, z.LoadParts(1, head, src, need)
	default:
		l := new(List)
		return l, l.LoadParts(head, src, need)
	}
}

// newInParts makes a big collection of some elements.
func newInParts(kind string) inParts {
	switch kind {
	case "hash":
		h := NewHash(1)
		h.grow()
		h.Set([]byte("first"), nil)
		return h
	case "set":
		s := NewSet(1)
		s.grow()
		s.Add([]byte("first"))
		return s
	case "zset":
		z := NewZSet(1)
		z.grow()
		z.Set([]byte("first"), 1)
		return z
	default:
		l := NewList()
		l.PushBack([]byte("first"))
		l.grow()
		return l
	}
}

var partKinds = []string{"hash", "set", "zset", "list"}

// change does something to a collection. growing says which way it goes.
func change(rng *rand.Rand, c inParts, growing bool) {
	const elements = 30000
	name := func() []byte {
		switch i := rng.IntN(elements); rng.IntN(3000) {
		case 0:
			return fmt.Appendf(nil, "%0100000d", i) // too large for any part
		case 1, 2, 3:
			return fmt.Appendf(nil, "%05000d", i)
		default:
			return fmt.Appendf(nil, "name:%d", i)
		}
	}
	val := func() []byte { return bytes.Repeat([]byte("v"), rng.IntN(60)) }
	remove := rng.IntN(4) == 0
	if !growing {
		remove = !remove
	}
	switch c := c.(type) {
	case *Hash:
		if remove {
			if f, _ := c.Random(rng); f != nil {
				c.Del(bytes.Clone(f))
			}
		} else {
			c.Set(name(), val())
		}
	case *Set:
		if remove {
			if m := c.Random(rng); m != nil {
				c.Del(bytes.Clone(m))
			}
		} else {
			c.Add(name())
		}
	case *ZSet:
		switch {
		case !remove:
			c.Set(name(), anyScore(rng))
		case rng.IntN(100) == 0 && c.Len() > 0:
			from := rng.IntN(c.Len())
			c.RemoveRange(from, from+rng.IntN(100), nil)
		case c.Len() > 0:
			m, score := c.ByRank(rng.IntN(c.Len()))
			if rng.IntN(3) == 0 {
				c.Set(bytes.Clone(m), score+1)
			} else {
				c.Del(bytes.Clone(m))
			}
		}
	case *List:
		changeList(rng, c, remove, val())
	}
}

func changeList(rng *rand.Rand, l *List, remove bool, v []byte) {
	i := rng.IntN(l.Len())
	if rng.IntN(1000) == 0 {
		v = make([]byte, rng.IntN(100000))
	}
	if !remove {
		switch rng.IntN(8) {
		case 0, 1:
			l.PushFront(v)
		case 2, 3:
			l.PushBack(v)
		case 4:
			l.SetAt(i, v)
		case 5:
			w, _ := l.Index(i)
			l.SetAt(i, bytes.Repeat([]byte("w"), len(w)))
		default:
			l.InsertAt(i, v)
		}
		return
	}
	if l.Len() < 100 {
		return
	}
	switch rng.IntN(400) {
	case 0:
		l.TrimTo(l.Len()/10, l.Len()-l.Len()/8)
	case 1, 2:
		l.RemoveValue(v, rng.IntN(20)-10)
	default:
		switch rng.IntN(3) {
		case 0:
			l.PopFront()
		case 1:
			l.PopBack()
		default:
			l.RemoveAt(i)
		}
	}
}

// A collection that is saved now and then, also while it changes, is what is
// stored after a save during which nothing happens, whatever became of the saves before.
func TestPartsAgreeWithTheCollection(t *testing.T) {
	for _, kind := range partKinds {
		t.Run(kind, func(t *testing.T) {
			rng := random(t, 5)
			live := newInParts(kind)
			var stored partStore
			for round := range 120 {
				steps := []int{1, 20, 500, 4000}[rng.IntN(4)]
				some := func(n int) {
					for range n {
						change(rng, live, round%60 < 40)
					}
				}
				some(steps)
				switch rng.IntN(12) {
				case 0: // is written, and then isn't
					save := live.Save()
					for save.Next(100<<10, func(PartID, []byte, bool) {}) {
						some(3)
					}
					some(steps)
					save.Fail()
				case 1: // fails half-way
					save := live.Save()
					save.Next(1, func(PartID, []byte, bool) {})
					some(3)
					save.Fail()
				case 2: // nobody goes on with it
					save := live.Save()
					if save.Next(1, func(PartID, []byte, bool) {}) {
						save = live.Save()
					}
					save.Fail()
				case 3: // gets another name
					live.DropParts()
				case 4: // gets another name while it is saved
					save := live.Save()
					more := save.Next(1, func(PartID, []byte, bool) {})
					live.DropParts()
					for more {
						more = save.Next(1, func(PartID, []byte, bool) {})
					}
				}
				quiet := rng.IntN(2) == 0
				if quiet {
					stored.save(t, live, nil)
				} else {
					stored.save(t, live, func() { some(rng.IntN(8)) })
				}
				if quiet {
					checkPartMap(t, live, stored.parts)
					if written, deleted := stored.save(t, live, nil); written+deleted > 0 {
						t.Fatalf("%d parts are written, %d deleted, and nothing has happened", written, deleted)
					}
					if rng.IntN(4) == 0 { // went away and came back
						live = checkLoaded(t, live, stored)
					}
				}
			}
		})
	}
}

// Blocks of a list that are divided and joined are dirty, even if nothing else
// is: large elements make both happen often.
func TestListPartsAfterEachChange(t *testing.T) {
	rng := random(t, 9)
	l := newInParts("list").(*List)
	var stored partStore
	elem := func() []byte { return bytes.Repeat([]byte{byte('a' + rng.IntN(20))}, 1500) }
	change := func(step int) {
		i := rng.IntN(l.Len())
		grow := step%500 < 300 && l.Len() < 250 || l.Len() < 3
		switch op := rng.IntN(8); {
		case op == 0:
			l.RemoveValue(elem(), 1)
		case op == 1:
			l.SetAt(i, elem()[rng.IntN(2):])
		case op == 2 && l.Len() > 20:
			l.TrimTo(rng.IntN(2), l.Len()-2)
		case grow:
			l.InsertAt(i, elem())
			l.InsertAt(i, elem())
		default:
			l.RemoveAt(i)
		}
		if l.Len() == 0 {
			t.Fatal("the test has emptied the list")
		}
	}
	for step := range 1500 {
		change(step)
		stored.save(t, l, nil)
		if len(stored.parts) != len(l.big.blocks) {
			t.Fatalf("%d parts of %d blocks", len(stored.parts), len(l.big.blocks))
		}
		if step%50 == 0 { // and all at once, changed while they are written
			l.DropParts()
			stored.save(t, l, func() { change(step) })
		}
	}
}

func checkLoaded(t *testing.T, live inParts, stored partStore) inParts {
	t.Helper()
	again, err := loadParts(kindOf(live), stored.head, inOrder(stored.parts), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.AppendDump(nil), live.AppendDump(nil)) {
		t.Fatal("what is stored is something else")
	}
	switch c := again.(type) {
	case *ZSet:
		if root := c.big.tree.root; root != nil {
			checkNode(t, root, nil, nil)
		}
	case *List:
		checkBigList(t, c.big)
	}
	return again
}

// checkPartMap looks at the sizes of parts, and that together they are all.
func checkPartMap(t *testing.T, c inParts, stored map[PartID][]byte) {
	t.Helper()
	var p *partMap
	switch c := c.(type) {
	case *Hash:
		p = c.big.parts
	case *Set:
		p = c.big.parts
	case *ZSet:
		p = c.big.index.parts
	default:
		return
	}
	at, n := uint64(0), 0
	for i, s := range p.parts {
		if s.id.first() != at {
			t.Fatalf("part %x after %x", s.id, at)
		}
		if at = s.id.last() + 1; at == 0 && i < len(p.parts)-1 {
			t.Fatal("parts beyond the last")
		}
		data, ok := stored[s.id]
		if ok != s.stored || ok && len(data) != s.bytes {
			t.Fatalf("part %x: stored %v with %d bytes, not %v with %d", s.id, ok, len(data), s.stored, s.bytes)
		}
		if ok {
			n++
			// An element more than is allowed, of 100 KB at most, but only if
			// there is no other in the part.
			if r := (dumpReader{rest: data}); len(data) > 2*partBytes && r.partHeader(data[1]) > 1 {
				t.Fatalf("part %x has %d bytes", s.id, len(data))
			}
		}
	}
	if at != 0 || n != len(stored) {
		t.Fatalf("parts end at %x, %d of %d known", at, n, len(stored))
	}
}

// One changed element of many costs one part, of 64 KiB at most, and a
// collection that has become small has few.
func TestOneChangeIsOnePart(t *testing.T) {
	for _, kind := range partKinds {
		t.Run(kind, func(t *testing.T) {
			const n = 100000
			live := newInParts(kind)
			set := func(i int, v string) {
				switch c := live.(type) {
				case *Hash:
					c.Set(key(i), []byte(v))
				case *Set:
					if !c.Add(key(i)) {
						c.Del(key(i))
					}
				case *ZSet:
					c.Set(key(i), float64(len(v)))
				case *List:
					if i == c.Len() {
						c.PushBack([]byte(v))
					} else {
						c.SetAt(i, []byte(v))
					}
				}
			}
			for i := 1; i < n; i++ {
				set(i, "0123456789")
			}
			var stored partStore
			parts, _ := stored.save(t, live, nil)
			total, largest := 0, 0
			for _, data := range stored.parts {
				total += len(data)
				largest = max(largest, len(data))
			}
			if total/parts < 16<<10 || largest > partBytes+100 {
				t.Errorf("%d parts, on average %d bytes, at most %d", parts, total/parts, largest)
			}
			for i := 1; i < n; i += 9999 {
				set(i, "ten bytes!!")
				if parts, deleted := stored.save(t, live, nil); parts != 1 || deleted != 0 {
					t.Fatalf("%d parts, %d deleted", parts, deleted)
				}
			}
			t.Logf("head of %d bytes, %d dumped", len(stored.head), total)

			if c, ok := live.(*Hash); ok {
				for i := 1; i < n; i++ {
					c.Del(key(i))
				}
				for range 2 {
					c.Set([]byte("first"), nil)
					stored.save(t, c, nil)
				}
				if n := len(c.big.parts.parts); n != 1 {
					t.Errorf("%d parts of one field", n)
				}
			}
		})
	}
}

// Numbers of parts are what is stored under, so their meaning stays.
func TestPartIDs(t *testing.T) {
	for _, c := range []struct {
		first uint64
		depth int
		id    PartID
		last  uint64
	}{
		{0, 0, 0x8000000000000000, 0xffffffffffffffff},
		{0, 1, 0x4000000000000000, 0x7fffffffffffffff},
		{0xffffffffffffffff, 1, 0xc000000000000000, 0xffffffffffffffff},
		{0xabcdef0123456789, 16, 0xabcd800000000000, 0xabcdffffffffffff},
		{0xabcdef0123456789, 40, 0xabcdef0123800000, 0xabcdef0123ffffff},
	} {
		id := partOf(c.first, c.depth)
		if id != c.id || id.depth() != c.depth || id.last() != c.last || id.first() != c.last&^(1<<(64-c.depth)-1) {
			t.Errorf("part of %x, %d bits: %x from %x to %x", c.first, c.depth, id, id.first(), id.last())
		}
		if c.depth < 40 {
			if left, right := id.halves(); left.whole() != id || right.whole() != id || left.last()+1 != right.first() {
				t.Errorf("halves of %x are %x and %x", id, left, right)
			}
		}
	}
	l := NewList()
	for i := range 40000 {
		l.PushBack(key(i))
		l.PushFront(key(i))
		if i == 20000 {
			new(partStore).save(t, l, nil)
		}
	}
	if head := l.Save().Head(); len(head) > 40 {
		t.Errorf("%d bytes are the head of a list that grew at both ends", len(head))
	}
}

func TestBadPartsAreRefused(t *testing.T) {
	for _, kind := range partKinds {
		t.Run(kind, func(t *testing.T) {
			rng := random(t, 1)
			live := newInParts(kind)
			for range 20000 {
				change(rng, live, true)
			}
			var stored partStore
			stored.save(t, live, nil)
			head, all := stored.head, stored.parts
			ids := slices.Sorted(maps.Keys(all))
			bad := func(what string, head []byte, parts map[PartID][]byte) {
				t.Helper()
				got, err := loadParts(kind, head, inOrder(parts), nil)
				if !errors.Is(err, ErrBadDump) || got.Len() > 0 {
					t.Errorf("%s: %v, %d elements", what, err, got.Len())
				}
			}
			bad("no head", nil, all)
			bad("cut head", head[:len(head)-1], all)
			bad("longer head", append(bytes.Clone(head), 0), all)
			bad("other version", append([]byte{partVersion + 1}, head[1:]...), all)
			bad("other kind", append([]byte{partVersion, 'X'}, head[2:]...), all)
			without := maps.Clone(all)
			delete(without, ids[1])
			bad("a part is missing", head, without)
			moved := maps.Clone(all)
			moved[ids[0]], moved[ids[1]] = all[ids[1]], all[ids[0]]
			if kind != "list" { // where only the number says which is which
				bad("parts changed places", head, moved)
				moved[ids[0]] = all[ids[1]]
				bad("a part twice", head, moved)
			}
			cut := maps.Clone(all)
			cut[ids[0]] = all[ids[0]][:len(all[ids[0]])-1]
			bad("cut part", head, cut)
			cut[ids[0]] = append(bytes.Clone(all[ids[0]]), 0)
			bad("longer part", head, cut)
			cut[ids[0]] = append([]byte{partVersion + 1}, all[ids[0]][1:]...)
			bad("part of another version", head, cut)
			more := maps.Clone(all)
			more[ids[len(ids)-1]+1] = all[ids[0]]
			bad("a part too many", head, more)
		})
	}
}

// Whatever bytes are loaded as parts, what is accepted is sound: it can be
// stored, and comes back.
func FuzzLoadParts(f *testing.F) {
	for i, kind := range partKinds {
		live := newInParts(kind)
		for i := range 300 {
			switch c := live.(type) {
			case *Hash:
				c.Set(key(i), key(i))
			case *Set:
				c.Add(key(i))
			case *ZSet:
				c.Set(key(i), float64(i))
			case *List:
				c.PushBack(key(i))
			}
		}
		save := live.Save()
		save.Next(1<<20, func(id PartID, data []byte, _ bool) {
			part := bytes.Clone(data)
			f.Add(uint8(i), save.Head(), uint64(id), part, uint64(0), []byte(nil))
			f.Add(uint8(i), save.Head(), uint64(partOf(0, 1)), part[:len(part)/2], uint64(partOf(1<<63, 1)), part)
		})
	}
	f.Fuzz(func(t *testing.T, kind uint8, head []byte, id1 uint64, data1 []byte, id2 uint64, data2 []byte) {
		name := partKinds[int(kind)%len(partKinds)]
		stored := map[PartID][]byte{PartID(id1): data1}
		if data2 != nil {
			stored[PartID(id2)] = data2
		}
		c, err := loadParts(name, head, inOrder(stored), nil)
		if err != nil {
			if !errors.Is(err, ErrBadDump) {
				t.Fatal(err)
			}
			return
		}
		if _, err := loadParts(name, head, inOrder(stored), &Need{Hashes: []uint64{id1}, More: 1, Blocks: []PartID{PartID(id2)}}); err != nil {
			t.Fatalf("all of it can be loaded, some not: %v", err)
		}
		if c.Len() > 0 && c.HasParts() {
			again := partStore{head, stored}
			if written, deleted := again.save(t, c, nil); written+deleted > 0 {
				t.Fatalf("%d parts are written, %d deleted, and nothing has happened", written, deleted)
			}
			c.DropParts()
			again.save(t, c, nil)
			checkLoaded(t, c, again)
		}
	})
}

// saveAll saves a collection at once, and returns how long what it wrote is.
func saveAll(c inParts) (written int) {
	c.Save().Next(1<<62, func(_ PartID, data []byte, _ bool) { written += len(data) })
	return written
}

// BenchmarkDirty is what marking costs, beside the same without parts.
func BenchmarkDirty(b *testing.B) {
	const n = 1000000
	for _, kind := range partKinds {
		live := newInParts(kind)
		rng := rand.New(rand.NewPCG(1, 1))
		names := make([][]byte, n)
		for i := range names {
			names[i] = key(i)
		}
		v := []byte("xxx")
		op := func(i int) {
			switch c := live.(type) {
			case *Hash:
				c.Set(names[i], v)
			case *Set:
				if !c.Add(names[i]) {
					c.Del(names[i])
				}
			case *ZSet:
				c.Set(names[i], float64(rng.IntN(n)))
			case *List:
				c.PushFront(v)
				c.PopBack()
			}
		}
		for i := range n {
			op(i)
		}
		for _, with := range []string{"without", "with"} {
			if with == "with" {
				saveAll(live)
			}
			b.Run(kind+"/"+with, func(b *testing.B) {
				for b.Loop() {
					op(rng.IntN(n))
				}
			})
		}
	}
}

// BenchmarkParts is taking all parts of a million, one after a change, and
// loading them.
func BenchmarkParts(b *testing.B) {
	const n = 1000000
	for _, kind := range partKinds {
		live := newInParts(kind)
		for i := range n {
			switch c := live.(type) {
			case *Hash:
				c.Set(key(i), []byte("0123456789"))
			case *Set:
				c.Add(key(i))
			case *ZSet:
				c.Set(key(i), float64(bits.Reverse32(uint32(i))))
			case *List:
				c.PushBack(key(i))
			}
		}
		b.Run("All/"+kind, func(b *testing.B) {
			for b.Loop() {
				live.DropParts()
				saveAll(live)
			}
		})
		b.Run("One/"+kind, func(b *testing.B) {
			bytes, round := 0, 0
			for b.Loop() {
				round++
				switch c := live.(type) {
				case *Hash:
					c.Set(key(5), []byte("0123456780"))
				case *Set:
					c.Del(key(5))
					c.Add(key(5))
				case *ZSet:
					c.Set(key(5), float64(round)+0.5)
				case *List:
					c.SetAt(n/2, key(5))
				}
				bytes += saveAll(live)
			}
			b.ReportMetric(float64(bytes)/float64(b.N), "B/flush")
		})
		live.DropParts()
		all, save := map[PartID][]byte{}, live.Save()
		save.Next(1<<62, func(id PartID, data []byte, _ bool) { all[id] = bytes.Clone(data) })
		head := save.Head()
		b.Run("Load/"+kind, func(b *testing.B) {
			for b.Loop() {
				if _, err := loadParts(kind, head, inOrder(all), nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
