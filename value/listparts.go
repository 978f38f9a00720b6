package value

import (
	"encoding/binary"
	"slices"
)

// A part of a big list is a block, and its PartID a serial number, never given
// twice in one list. Their order is in the head, as runs of numbers that go up
// or down by one, which is how blocks come into being at the ends of a list:
//
//	head | version (1) | form (1) | elements (uvarint) | last number given (uvarint) | run | run | ... | 0 | length | length | ...
//	run    | first number (uvarint) | how many more (zigzag varint, less than 0 if they go down) |
//	length | elements in a block (uvarint) | how many more blocks have as many (uvarint) |
//
// The lengths are in the order of the blocks.

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
	dst = append(dst, 0)
	for i := 0; i < len(l.blocks); {
		n, from := l.blocks[i].n, i
		for i++; i < len(l.blocks) && l.blocks[i].n == n; i++ {
		}
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, uint64(n)), uint64(i-from-1))
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

// mostBlocks is more than lists have, whose blocks have some 64 KiB.
const mostBlocks = 1 << 20

// loadHead reads a head, after which all blocks are absent. It tells where each is.
func (l *bigList) loadHead(r *dumpReader) (at map[PartID]int) {
	elems := r.partHead(formBigList)
	l.serial = PartID(r.uvarint())
	at = map[PartID]int{}
	for r.err == nil {
		id := PartID(r.uvarint())
		if id == 0 {
			break
		}
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
		if uint64(more) >= min(elems, mostBlocks) {
			r.fail("more parts than elements, or than there can be")
		}
		for ; more >= 0 && r.err == nil; more-- {
			if _, twice := at[id]; twice || id == 0 || id > l.serial || uint64(len(at)) >= min(elems, mostBlocks) {
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
		return nil
	}
	l.blocks = make([]block, len(at))
	for id, i := range at {
		l.blocks[i].part, l.blocks[i].absent = id, true
	}
	for i := 0; i < len(l.blocks) && r.err == nil; {
		n, more := r.uvarint(), r.uvarint()
		if n == 0 || n > elems-uint64(l.n) || more >= uint64(len(l.blocks)-i) {
			r.fail("%d parts of %d elements in a list of %d", more, n, elems)
			break
		}
		for last := i + int(more); i <= last && r.err == nil; i++ {
			if l.n += int(n); uint64(l.n) > elems {
				r.fail("more elements in parts than %d", elems)
			}
			l.blocks[i].n = int(n)
		}
	}
	r.end()
	if r.err == nil && uint64(l.n) != elems {
		r.fail("%d elements announced, %d in parts", elems, l.n)
	}
	l.parts = true
	return at
}

// loadParts loads what is needed of what is stored.
func (l *bigList) loadParts(head []byte, src Source, need *Need) error {
	r := dumpReader{rest: head}
	at := l.loadHead(&r)
	if r.err != nil {
		return r.err
	}
	load := func(i int, data []byte) {
		r.rest = data
		l.loadBlock(&l.blocks[i], &r)
	}
	if need == nil {
		left := len(at)
		for id, data, ok := src.From(0); ok && r.err == nil; id, data, ok = src.From(id + 1) {
			i, known := at[id]
			if left--; !known || !l.blocks[i].absent {
				r.fail("part %d, which there isn't, or twice", id)
				break
			}
			load(i, data)
		}
		if r.err == nil && left > 0 {
			r.fail("%d parts are missing", left)
		}
		return r.err
	}
	wanted := Need{Blocks: slices.Clone(need.Blocks)}
	l.lacks(&wanted, need.Spans)
	slices.Sort(wanted.Blocks)
	for _, id := range slices.Compact(wanted.Blocks) {
		i, known := at[id]
		if !known {
			continue // what wants it knows of another state
		}
		got, data, ok := src.From(id)
		if !ok || got != id {
			r.fail("part %d is missing", id)
			break
		}
		load(i, data)
	}
	return r.err
}

// loadBlock reads a part into a block that is absent.
func (l *bigList) loadBlock(b *block, r *dumpReader) {
	count := r.partHeader(formBigList)
	if r.err == nil && count != b.n {
		r.fail("a part of %d elements where %d are announced", count, b.n)
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
	id := b.part
	*b = one.blocks[0]
	for _, more := range one.blocks[1:] { // chunks are filled another way now
		b.chunks = append(b.chunks, more.chunks...)
		b.n += more.n
		b.bytes += more.bytes
	}
	b.part, b.dirty = id, false
	l.chunks += len(b.chunks)
	l.bytes += b.bytes
}

func (l *bigList) partly() bool {
	return l != nil && slices.ContainsFunc(l.blocks, func(b block) bool { return b.absent })
}

// lacks adds to need the blocks of elements that aren't in memory.
func (l *bigList) lacks(need *Need, spans []Span) {
	for _, s := range spans {
		from, to := s.From, s.To
		if from < 0 {
			from = max(from+int64(l.n), 0)
		}
		if to < 0 {
			to += int64(l.n)
		}
		at := int64(0)
		for i := range l.blocks {
			b := &l.blocks[i]
			if at > to {
				break
			}
			if at += int64(b.n); b.absent && at > from {
				need.Blocks = append(need.Blocks, b.part)
			}
		}
	}
}

// take moves blocks that from has to where l lacks them.
func (l *bigList) take(from *bigList) error {
	has := make(map[PartID]*block, len(from.blocks))
	for i := range from.blocks {
		if b := &from.blocks[i]; !b.absent {
			has[b.part] = b
		}
	}
	var r dumpReader
	for i := range l.blocks {
		if b, ok := has[l.blocks[i].part]; l.blocks[i].absent && ok && b.n != l.blocks[i].n {
			r.fail("part %d comes with %d elements and should have %d", b.part, b.n, l.blocks[i].n)
			return r.err
		}
	}
	for i := range l.blocks {
		if b, ok := has[l.blocks[i].part]; l.blocks[i].absent && ok {
			l.blocks[i].chunks, l.blocks[i].bytes, l.blocks[i].absent = b.chunks, b.bytes, false
			l.chunks += len(b.chunks)
			l.bytes += b.bytes
		}
	}
	return nil
}

// Partly is Hash.Partly of a list.
func (l *List) Partly() bool { return l.big.partly() }

// Lacks adds to need what isn't in memory of these elements.
func (l *List) Lacks(need *Need, spans []Span) {
	l.big.lacks(need, spans)
	slices.Sort(need.Blocks)
	need.Blocks = slices.Compact(need.Blocks)
}

// LacksNext is Hash.LacksNext of a list.
func (l *List) LacksNext(need *Need) {
	for i := range l.big.blocks {
		if b := &l.big.blocks[i]; b.absent {
			need.Blocks = append(need.Blocks, b.part)
			return
		}
	}
}

// Satisfies reports whether all that is needed is in memory.
func (l *List) Satisfies(need *Need) bool {
	var lacks Need
	l.big.lacks(&lacks, need.Spans)
	if len(lacks.Blocks) > 0 {
		return false
	}
	return !slices.ContainsFunc(l.big.blocks, func(b block) bool { return b.absent && slices.Contains(need.Blocks, b.part) })
}

// Take is Hash.Take of a list.
func (l *List) Take(from *List) error { return l.big.take(from.big) }

// With is Hash.With of a list.
func (l *List) With(from *List) *List {
	all := &bigList{blocks: slices.Clone(l.big.blocks), n: l.big.n, chunks: l.big.chunks, bytes: l.big.bytes}
	all.take(from.big) // after an error it lacks something still
	return &List{big: all}
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

// LoadParts is Hash.LoadParts of a list.
func (l *List) LoadParts(head []byte, src Source, need *Need) error {
	*l = List{big: &bigList{}}
	err := l.big.loadParts(head, src, need)
	if err != nil {
		*l = List{}
	}
	return err
}
