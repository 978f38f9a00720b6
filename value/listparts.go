package value

import (
	"encoding/binary"
	"slices"
)

// A part of a big list is a block, and its PartID a serial number, never given
// twice in one list. Their order is in the head, as runs of numbers that go up
// or down by one, which is how blocks come into being at the ends of a list:
//
//	head | version (1) | form (1) | elements (uvarint) | last number given (uvarint) | run | run | ...
//	run  | first number (uvarint) | how many more (zigzag varint, less than 0 if they go down) |

// number gives all blocks parts that have none yet.
func (l *bigList) number() {
	for i := range l.blocks {
		if b := &l.blocks[i]; b.part == 0 {
			l.serial++
			b.part, b.dirty = l.serial, true
		}
	}
}

// head appends the head of a list.
func (l *bigList) head(dst []byte) []byte {
	l.number()
	dst = appendHead(dst, formBigList, l.n)
	dst = binary.AppendUvarint(dst, uint64(l.serial))
	for i := 0; i < len(l.blocks); {
		first := l.blocks[i].part
		more := int64(0)
		step := int64(1)
		for i++; i < len(l.blocks); i++ {
			got := int64(l.blocks[i].part) - int64(first)
			if more == 0 && got == -1 {
				step = -1
			}
			if got != more+step {
				break
			}
			more = got
		}
		dst = binary.AppendVarint(binary.AppendUvarint(dst, uint64(first)), more)
	}
	return dst
}

// appendPart appends a block as it is stored.
func (b *block) appendPart(dst []byte) []byte {
	dst = slices.Grow(dst, partHeader+b.bytes)
	dst = appendPartHeader(dst, formBigList)
	for i := range b.chunks {
		c := &b.chunks[i]
		for off := c.lo; off < c.hi; {
			var v []byte
			v, off = c.next(off)
			dst = appendString(dst, v)
		}
	}
	countPart(dst, b.n)
	return dst
}

// loadParts reads a head and then parts, in any order.
func (l *bigList) loadParts(head []byte, next func() (id PartID, data []byte, ok bool)) error {
	r := dumpReader{rest: head}
	elems := r.partHead(formBigList)
	l.serial = PartID(r.uvarint())
	at := map[PartID]int{}
	for r.err == nil && len(r.rest) > 0 {
		id := PartID(r.uvarint())
		more, width := binary.Varint(r.rest)
		if width <= 0 {
			r.fail("cut short in a run of parts")
			break
		}
		r.rest = r.rest[width:]
		step := PartID(1)
		if more < 0 {
			step, more = -step, -more
		}
		if uint64(more) >= elems {
			r.fail("more parts than elements")
		}
		for ; more >= 0 && r.err == nil; more-- {
			if _, twice := at[id]; twice || id == 0 || id > l.serial || uint64(len(at)) >= elems {
				r.fail("part %d in a list of %d, where the last is %d", id, elems, l.serial)
			}
			at[id] = len(at)
			id += step
		}
	}
	if r.err == nil && len(at) == 0 {
		r.fail("a list without parts")
	}
	if r.err != nil {
		return r.err
	}
	l.blocks = make([]block, len(at))
	for left := len(at); ; left-- {
		id, data, ok := next()
		if !ok {
			if left > 0 {
				r.fail("%d parts are missing", left)
			}
			break
		}
		i, known := at[id]
		if !known || l.blocks[i].n > 0 {
			r.fail("part %d, which there isn't, or twice", id)
			break
		}
		r.rest = data
		if l.loadBlock(&l.blocks[i], &r); r.err != nil {
			break
		}
		l.blocks[i].part = id
	}
	if r.err == nil && uint64(l.n) != elems {
		r.fail("%d elements announced, %d there", elems, l.n)
	}
	l.parts = true
	return r.err
}

// loadBlock reads a part into an empty block.
func (l *bigList) loadBlock(b *block, r *dumpReader) {
	count := r.partHeader(formBigList)
	if r.err == nil && count == 0 {
		r.fail("a part is empty")
	}
	one := bigList{}
	for range count {
		v := r.string()
		if r.err != nil {
			return
		}
		one.add(v)
	}
	r.end()
	if r.err != nil {
		return
	}
	*b = one.blocks[0]
	for _, more := range one.blocks[1:] { // chunks are filled another way now
		b.chunks = append(b.chunks, more.chunks...)
		b.n += more.n
		b.bytes += more.bytes
	}
	b.dirty = false
	l.n += b.n
	l.chunks += len(b.chunks)
	l.bytes += b.bytes
}

// HasParts is Hash.HasParts of a list.
func (l *List) HasParts() bool { return l.big != nil && l.big.parts }

// Save is Hash.Save of a list.
func (l *List) Save() *Save { return l.big.save() }

// DropParts is Hash.DropParts of a list.
func (l *List) DropParts() {
	if l.big != nil {
		l.big.dropParts()
	}
}

// LoadParts makes l the big list that a head and parts say, in any order.
// After an error l is empty.
func (l *List) LoadParts(head []byte, next func() (id PartID, data []byte, ok bool)) error {
	*l = List{big: &bigList{}}
	err := l.big.loadParts(head, next)
	if err != nil {
		*l = List{}
	}
	return err
}
