package value

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// byParts is a big collection of which some may not be in memory.
type byParts interface {
	inParts
	Partly() bool
	LacksNext(need *Need)
	Satisfies(need *Need) bool
}

// lacks adds to need what isn't in memory of some elements.
func lacks(c byParts, need *Need, names [][]byte, spans []Span) {
	switch c := c.(type) {
	case *Hash:
		c.Lacks(need, names)
	case *Set:
		c.Lacks(need, names)
	case *ZSet:
		c.Lacks(need, names)
	case *List:
		c.Lacks(need, spans)
	}
}

func take(to, from byParts) error {
	switch c := to.(type) {
	case *Hash:
		return c.Take(from.(*Hash))
	case *Set:
		return c.Take(from.(*Set))
	case *ZSet:
		return c.Take(from.(*ZSet))
	default:
		return c.(*List).Take(from.(*List))
	}
}

// A collection comes into memory part by part, as elements are asked for, and is
// changed and saved meanwhile. It has the length, and at each save what is stored is
// the content, of one that is in memory wholly and went through the same changes.
func TestPartsComeOneByOne(t *testing.T) {
	for _, kind := range partKinds {
		t.Run(kind, func(t *testing.T) {
			for seed := range uint64(3) {
				rng := rand.New(rand.NewPCG(seed, 7))
				whole := newInParts(kind)
				for range 20000 {
					change(rng, whole, true)
				}
				var stored partStore
				stored.save(t, whole, nil)
				comeOneByOne(t, rng, kind, whole, &stored)
			}
		})
	}
}

func comeOneByOne(t *testing.T, rng *rand.Rand, kind string, whole inParts, stored *partStore) {
	t.Helper()
	was := partStore{stored.head, cloneParts(stored.parts)}
	load := func(need *Need) byParts {
		c, err := loadParts(kind, was.head, inOrder(was.parts), need)
		if err != nil {
			t.Fatal(err)
		}
		return c.(byParts)
	}
	part := load(&Need{})
	if !part.Partly() {
		t.Fatal("nothing is absent of what wasn't loaded")
	}
	fetch := func(need *Need) {
		if need.Empty() {
			return
		}
		if part.Satisfies(need) {
			t.Fatalf("%+v is needed, and is there", need)
		}
		if err := take(part, load(need)); err != nil {
			t.Fatal(err)
		}
		if !part.Satisfies(need) {
			t.Fatalf("%+v was loaded and isn't there", need)
		}
	}
	for step := range 200 {
		var need Need
		name := fmt.Appendf(nil, "name:%d", rng.IntN(30000))
		at := rng.IntN(whole.Len())
		lacks(part, &need, [][]byte{name}, []Span{{int64(at) - 1, int64(at) + 1}})
		fetch(&need)
		v := bytes.Repeat([]byte("v"), rng.IntN(60))
		for _, c := range []inParts{whole, part} {
			switch c := c.(type) {
			case *Hash:
				if step%3 == 0 {
					c.Del(name)
				} else {
					c.Set(name, v)
				}
			case *Set:
				if !c.Add(name) {
					c.Del(name)
				}
			case *ZSet:
				if step%3 == 0 {
					c.Del(name)
				} else {
					c.Set(name, float64(len(v)))
				}
			case *List:
				switch step % 5 {
				case 0:
					c.RemoveAt(at)
				case 1:
					c.SetAt(at, v)
				case 2:
					c.InsertAt(at, v)
				case 3:
					if at > 0 {
						c.RemoveAt(at - 1)
					}
				default:
					if at == 0 {
						c.PushFront(v)
					} else if at == c.Len()-1 {
						c.PushBack(v)
					}
				}
			}
		}
		if part.Len() != whole.Len() {
			t.Fatalf("it has %d elements, and should have %d", part.Len(), whole.Len())
		}
		switch rng.IntN(25) {
		case 0:
			save := part.Save()
			if save.Whole {
				t.Fatal("all of what isn't there is to be written")
			}
			more := save.Next(1, func(PartID, []byte, bool) {})
			var need Need
			if part.LacksNext(&need); rng.IntN(2) == 0 {
				fetch(&need) // in the middle of it
			}
			for more && rng.IntN(2) == 0 {
				more = save.Next(1, func(PartID, []byte, bool) {})
			}
			save.Fail()
		case 1:
			save := part.Save()
			once := true
			for save.Next(1, func(id PartID, data []byte, gone bool) {
				if delete(stored.parts, id); !gone {
					stored.parts[id] = bytes.Clone(data)
				}
			}) {
				if once && rng.IntN(2) == 0 {
					var need Need
					part.LacksNext(&need)
					fetch(&need)
				}
				once = false
			}
			stored.head = save.Head()
			again, err := loadParts(kind, stored.head, inOrder(stored.parts), nil)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again.AppendDump(nil), whole.AppendDump(nil)) {
				t.Fatal("what is stored is something else")
			}
		}
	}
	for part.Partly() {
		var need Need
		part.LacksNext(&need)
		if kind != "list" {
			need.More = rng.IntN(3)
		}
		fetch(&need)
	}
	if !bytes.Equal(part.AppendDump(nil), whole.AppendDump(nil)) {
		t.Fatal("what came part by part is something else")
	}
	switch c := part.(type) {
	case *ZSet:
		checkNode(t, c.big.tree.root, nil, nil)
	case *List:
		checkBigList(t, c.big)
	}
	stored.parts = map[PartID][]byte{}
	part.DropParts()
	stored.save(t, part, nil)
	checkPartMap(t, part, stored.parts)
}

func cloneParts(parts map[PartID][]byte) map[PartID][]byte {
	c := make(map[PartID][]byte, len(parts))
	for id, data := range parts {
		c[id] = data
	}
	return c
}

// What happens at the border of what is in memory of a list leaves alone what lies
// beyond.
func TestABlockWhoseNeighbourIsAbsent(t *testing.T) {
	whole := newInParts("list").(*List)
	for i := range 20000 {
		whole.PushBack(key(i))
	}
	var stored partStore
	stored.save(t, whole, nil)
	c, err := loadParts("list", stored.head, inOrder(stored.parts), &Need{Spans: []Span{{0, 0}}})
	if err != nil {
		t.Fatal(err)
	}
	part := c.(*List)
	n := part.big.blocks[0].n
	if len(part.big.blocks) < 3 || !part.big.blocks[1].absent {
		t.Fatal("the list is too short: the test doesn't test")
	}
	both := func(do func(l *List)) {
		do(whole)
		do(part)
	}
	for i := range 600 { // until chunks are cut and the block is full
		both(func(l *List) { l.InsertAt(n-2, key(i)) })
		n++
	}
	for range n - 1 { // until hardly anything is left of it
		both(func(l *List) { l.PopFront() })
	}
	all, err := loadParts("list", stored.head, inOrder(stored.parts), nil)
	if err == nil {
		err = part.Take(all.(*List))
	}
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(part.AppendDump(nil), whole.AppendDump(nil)) {
		t.Error("it is another list")
	}
	checkBigList(t, part.big)
}

// What doesn't fit is refused, and changes nothing.
func TestPartsOfSomethingElseAreNotTaken(t *testing.T) {
	for _, kind := range partKinds {
		t.Run(kind, func(t *testing.T) {
			rng := random(t, 3)
			whole := newInParts(kind)
			for range 20000 {
				change(rng, whole, true)
			}
			var stored partStore
			stored.save(t, whole, nil)
			half := partStore{stored.head, cloneParts(stored.parts)}
			for range 10000 {
				change(rng, whole, false)
			}
			if kind == "list" {
				for whole.(*List).Len() > 100 {
					whole.(*List).PopFront()
				}
				whole.(*List).RemoveAt(50)
			}
			stored.save(t, whole, nil)
			c, err := loadParts(kind, half.head, inOrder(half.parts), &Need{})
			if err != nil {
				t.Fatal(err)
			}
			part := c.(byParts)
			length := part.Len()
			other, err := loadParts(kind, stored.head, inOrder(stored.parts), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := take(part, other.(byParts)); err == nil {
				t.Error("it was taken")
			}
			if part.Len() != length || !part.Partly() {
				t.Errorf("%d elements, were %d", part.Len(), length)
			}
		})
	}
}
