package value

import (
	"encoding/binary"
	"slices"
	"unsafe"
)

// A cell is an element of a big hash, set or sorted set: its key and what
// belongs to it, in one allocation without pointers, so that the collector
// has nothing to follow and a small element costs no slice headers.
//
//	| key length (1) | length (1) | room (1) | key | value ... spare |
//	| 255 | key length (4) | length (4) | room (4) | key | value ... spare |   if one of the first three wouldn't fit
//
// room is the space that there is for the value: what the allocator rounded
// up is used when a value grows. A *cell points to the first byte of such an
// allocation, never to a cell of its own; newCell is the only source.
type cell byte

const (
	narrowHeader = 3
	wideHeader   = 13
	wideMark     = 255
	maxNarrow    = 254
)

func newCell(key, val []byte) *cell {
	if len(key) <= maxNarrow && len(val) <= maxNarrow {
		b := slices.Grow([]byte(nil), narrowHeader+len(key)+len(val))
		b = b[:cap(b)]
		room := min(len(b)-narrowHeader-len(key), maxNarrow)
		b[0], b[1], b[2] = byte(len(key)), byte(len(val)), byte(room)
		copy(b[narrowHeader:], key)
		copy(b[narrowHeader+len(key):], val)
		return (*cell)(&b[0])
	}
	b := slices.Grow([]byte(nil), wideHeader+len(key)+len(val))
	b = b[:cap(b)]
	b[0] = wideMark
	binary.LittleEndian.PutUint32(b[1:], uint32(len(key)))
	binary.LittleEndian.PutUint32(b[5:], uint32(len(val)))
	binary.LittleEndian.PutUint32(b[9:], uint32(len(b)-wideHeader-len(key)))
	copy(b[wideHeader:], key)
	copy(b[wideHeader+len(key):], val)
	return (*cell)(&b[0])
}

// bytes is the first n bytes of the allocation.
func (c *cell) bytes(n int) []byte { return unsafe.Slice((*byte)(c), n) }

// layout tells where the key begins and ends, and the length of the value and
// the room that it has.
func (c *cell) layout() (key, val, length, room int) {
	if *c != wideMark {
		b := c.bytes(narrowHeader)
		return narrowHeader, narrowHeader + int(b[0]), int(b[1]), int(b[2])
	}
	b := c.bytes(wideHeader)
	return wideHeader, wideHeader + int(binary.LittleEndian.Uint32(b[1:])),
		int(binary.LittleEndian.Uint32(b[5:])), int(binary.LittleEndian.Uint32(b[9:]))
}

func (c *cell) key() []byte {
	if n := int(*c); n != wideMark {
		return c.bytes(narrowHeader + n)[narrowHeader : narrowHeader+n : narrowHeader+n]
	}
	key, val, _, _ := c.layout()
	return c.bytes(val)[key:val:val]
}

func (c *cell) value() []byte {
	_, val, length, _ := c.layout()
	return c.bytes(val + length)[val : val+length : val+length]
}

// set changes the value in place if there is room and not too much of it.
func (c *cell) set(v []byte) bool {
	_, val, _, room := c.layout()
	if len(v) > room || (room > 128 && len(v) < room/2) {
		return false
	}
	copy(c.bytes(val + room)[val:], v)
	if *c != wideMark {
		c.bytes(narrowHeader)[1] = byte(len(v))
	} else {
		binary.LittleEndian.PutUint32(c.bytes(wideHeader)[5:], uint32(len(v)))
	}
	return true
}

// size is the memory of the cell.
func (c *cell) size() int {
	_, val, _, room := c.layout()
	return val + room
}

// cells is a table of them that knows its memory.
type cells struct {
	table Table[cell]
	bytes int
	parts *partMap // nil while nothing of it is stored
}

func newCells(seed uint64) *cells {
	return &cells{table: *NewTable(seed, (*cell).key)}
}

// len is the number of elements, wherever they are.
func (c *cells) len() int {
	if c.parts != nil {
		return c.table.Len() + c.parts.away
	}
	return c.table.Len()
}

func (c *cells) find(key []byte) *cell {
	return c.table.Find(c.table.Hash(key), key)
}

// A Lookup is a look-up in a big collection that is about to be made. What it needs
// is loaded in two steps; when each is taken for many look-ups before the next, cache
// misses overlap instead of following each other. What the steps return means
// nothing, but only a caller that uses it, adding all up for instance, makes the
// loads happen. The zero Lookup needs nothing.
type Lookup struct {
	table *Table[cell]
	hash  uint64
}

func (c *cells) lookup(key []byte) Lookup {
	return Lookup{&c.table, c.table.Hash(key)}
}

// Approach is the first step, to where the search will begin.
func (l Lookup) Approach() byte {
	if l.table == nil {
		return 0
	}
	return byte(l.table.Approach(l.hash))
}

// Touch is the second step, to the element.
func (l Lookup) Touch() byte {
	if l.table == nil {
		return 0
	}
	if e := l.table.Touch(l.hash); e != nil {
		return byte(*e)
	}
	return 0
}

// add puts in a key that isn't there.
func (c *cells) add(key, val []byte) *cell {
	return c.addHashed(c.table.Hash(key), key, val)
}

func (c *cells) addHashed(hash uint64, key, val []byte) *cell {
	e := newCell(key, val)
	c.bytes += e.size()
	c.table.Insert(hash, e)
	c.mark(hash)
	return e
}

// put gives key a value and reports whether the key is new.
func (c *cells) put(key, val []byte) bool {
	hash := c.table.Hash(key)
	old := c.table.Find(hash, key)
	if old == nil {
		c.addHashed(hash, key, val)
		return true
	}
	c.mark(hash)
	if !old.set(val) {
		e := newCell(key, val)
		c.bytes += e.size() - old.size()
		c.table.Replace(hash, old, e)
	}
	return false
}

func (c *cells) remove(key []byte) *cell {
	hash := c.table.Hash(key)
	e := c.table.Remove(hash, key)
	if e != nil {
		c.bytes -= e.size()
		c.mark(hash)
	}
	return e
}

// mark notes for the next Save that something has changed there.
func (c *cells) mark(hash uint64) {
	if c.parts != nil {
		c.parts.mark(hash)
	}
}

// size leaves out what is known of parts, a thousandth of the rest: it comes and goes
// without a change.
func (c *cells) size() int {
	return int(unsafe.Sizeof(*c)-unsafe.Sizeof(c.table)) + c.table.Size() + c.bytes
}

// sample calls fn for n distinct cells, or all if there are fewer.
func (c *cells) sample(rng Rand, n int, fn func(*cell)) {
	total := c.table.Len()
	if n >= total/3 {
		left := newLottery(rng, n, total)
		c.table.Range(func(e *cell) bool {
			if left.draw() {
				fn(e)
			}
			return left.winners > 0
		})
		return
	}
	seen := make(map[*cell]struct{}, n)
	for len(seen) < n {
		e := c.table.Random(rng)
		if _, again := seen[e]; !again {
			seen[e] = struct{}{}
			fn(e)
		}
	}
}
