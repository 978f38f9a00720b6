package value

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

// A big collection is stored in parts of some 64 KiB, so that a change of one
// element never rewrites all of them. What is stored is a head, and parts by
// their PartID:
//
//	head | version (1) | form (1) | elements (uvarint) |                      and of a list what listparts.go says
//	part | version (1) | form (1) | elements (4) | element | element | ...    elements as in dumps (dump.go)
//
// Forms are those of dumps of big collections.
//
// Of hashes, sets and sorted sets a part is the elements whose hashes begin
// with the same bits, in the order of hashes. Its PartID is these bits and,
// behind them, a one and zeroes:
//
//	| bits of the hash | 1 | 0 ... 0 |
//
// So parts in the order of their numbers are elements in the order of hashes.
// A part that has grown too large is divided by the next bit; two that came
// from one division and are small by now are one again. All parts together
// are all hashes, with nothing stored where there are no elements. A sorted
// set's tree is not stored: it is made again.
//
// What is dirty is known by granules: parts of the hashes, all of one size, of
// a few dozen elements each, and a bit for each. They have nothing to do with
// the parts, which can so be divided while marking stays a shift and an or.
//
// How dirty parts are written while the collection goes on changing is told at
// Save, which is why each counts its elements by itself.
type partMap struct {
	parts  []storedPart // in order, together all hashes
	away   int          // elements of those that are absent
	dirty  []uint64     // a bit a granule
	shift  uint8        // of a hash, to get its granule
	saving *cellSave    // that is under way
	undo   *partMap     // parts and marks as they were when the last Save began, for its Fail
}

// PartID says which part of a collection something is. None is 0. Numbers in
// ascending order, as a store has them by their bytes, big-endian, are the
// order for loading.
//
// A collection that is small, again or another of the same name, is stored as
// its bytes, and has its parts deleted. Loading, from the head and all parts
// there are, or some (Need), is LoadParts; what is loaded counts as stored. So it
// must be a state that was stored as a whole: parts of one head aren't those of
// another.
type PartID uint64

type storedPart struct {
	id     PartID
	elems  int  // when it was last stored
	bytes  int  // likewise, or of what it was joined from
	stored bool // false if there is nothing to store
	dirty  bool // it is to be written; only while a Save is under way
	absent bool // it isn't in memory; what is stored there may be in several parts
}

const (
	partVersion  = 1
	partHeader   = 2 + 4
	deepestPart  = 40 // bits
	granuleElems = 32
	leastGranule = 6 // bits of hash that choose it, at least: one word of marks
)

var (
	partBytes   = 64 << 10 // beyond, a part is divided
	joinedBytes = 24 << 10 // of two parts that are joined, at most
	blockBytes  = 64 << 10 // beyond, a block of a list takes no more chunks
)

// SetPartBytes says how large parts become, and returns how large they did before. It is
// for tests, in which collections of a few hundred elements are to have several.
func SetPartBytes(n int) (before int) {
	before = partBytes
	partBytes, joinedBytes, blockBytes = n, n*3/8, n
	return before
}

// partOf is the part of hashes that begin with that many bits of first.
func partOf(first uint64, depth int) PartID {
	return PartID(first&^(1<<(64-depth)-1) | 1<<(63-depth))
}

func (id PartID) depth() int    { return 63 - bits.TrailingZeros64(uint64(id)) }
func (id PartID) first() uint64 { return uint64(id & (id - 1)) }
func (id PartID) last() uint64  { return uint64(id | (id - 1)) }

// halves divides a part by the next bit.
func (id PartID) halves() (left, right PartID) {
	depth := id.depth() + 1
	return partOf(id.first(), depth), partOf(id.last(), depth)
}

// whole is the part that id was divided from. It has none if it is all.
func (id PartID) whole() PartID { return partOf(id.first(), id.depth()-1) }

// newPartMap makes one of parts with that many bits each, where nothing is stored.
func newPartMap(depth int) *partMap {
	p := &partMap{}
	for i := range uint64(1) << depth {
		p.parts = append(p.parts, storedPart{id: partOf(i<<(64-depth), depth)})
	}
	return p
}

// setGranules makes marks for a collection of so many elements. None is set.
func (p *partMap) setGranules(elems int) {
	depth := max(leastGranule, bits.Len(uint(elems/granuleElems)))
	if n := 1 << (depth - 6); n == len(p.dirty) {
		clear(p.dirty)
	} else {
		p.dirty = make([]uint64, n)
	}
	p.shift = uint8(64 - depth)
}

// mark marks the granule of that hash.
func (p *partMap) mark(hash uint64) {
	i := hash >> (p.shift & 63)
	p.dirty[i>>6] |= 1 << (i & 63)
}

// markAll marks all granules that have to do with a part.
func (p *partMap) markAll(id PartID) {
	for i := id.first() >> p.shift; i <= id.last()>>p.shift; i++ {
		p.dirty[i>>6] |= 1 << (i & 63)
	}
}

// markLike marks what is marked in another map.
func (p *partMap) markLike(q *partMap) {
	for i := range uint64(len(q.dirty)) * 64 {
		if q.dirty[i>>6]&(1<<(i&63)) == 0 {
			continue
		}
		first := i << q.shift
		for j := first >> p.shift; j <= (first|(1<<q.shift-1))>>p.shift; j++ {
			p.dirty[j>>6] |= 1 << (j & 63)
		}
	}
}

// marked says whether one of these granules is.
func (p *partMap) marked(id PartID) bool {
	from, to := id.first()>>p.shift, id.last()>>p.shift
	first, last := ^uint64(0)<<(from&63), ^uint64(0)>>(63-to&63)
	from, to = from>>6, to>>6
	if from == to {
		return p.dirty[from]&first&last != 0
	}
	if p.dirty[from]&first != 0 || p.dirty[to]&last != 0 {
		return true
	}
	for _, word := range p.dirty[from+1 : to] {
		if word != 0 {
			return true
		}
	}
	return false
}

// join puts parts together that were divided and are small now. One of them
// has to be dirty, so that nothing is written but for its sake, or both empty.
// It marks those that are dirty, and returns what isn't to be stored any more,
// unless it is stored anew.
func (p *partMap) join() (stale []PartID) {
	kept := p.parts[:0]
	for _, s := range p.parts {
		s.dirty = !s.absent && p.marked(s.id)
		for len(kept) > 0 && s.id.depth() > 0 && !s.absent {
			left := kept[len(kept)-1]
			if left.absent || left.id.depth() != s.id.depth() || left.id.whole() != s.id.whole() {
				break
			}
			if left.bytes+s.bytes > joinedBytes || !left.dirty && !s.dirty && left.bytes+s.bytes > 0 {
				break
			}
			if left.stored {
				stale = append(stale, left.id)
			}
			if s.stored {
				stale = append(stale, s.id)
			}
			kept = kept[:len(kept)-1]
			s = storedPart{id: s.id.whole(), dirty: left.dirty || s.dirty, bytes: left.bytes + s.bytes}
		}
		kept = append(kept, s)
	}
	p.parts = kept
	slices.Sort(stale)
	return stale
}

// partial is how a kind of collection has its elements in parts.
type partial struct {
	form byte
	add  func(dst []byte, c *cell) []byte
}

var (
	partialHash = partial{formBigHash, func(dst []byte, c *cell) []byte {
		return appendString(appendString(dst, c.key()), c.value())
	}}
	partialSet = partial{formBigSet, func(dst []byte, c *cell) []byte {
		return appendString(dst, c.key())
	}}
	partialZSet = partial{formBigZSet, func(dst []byte, c *cell) []byte {
		return append(appendString(dst, c.key()), c.value()...)
	}}
)

func appendHead(dst []byte, form byte, elems int) []byte {
	return binary.AppendUvarint(append(dst, partVersion, form), uint64(elems))
}

func appendPartHeader(dst []byte, form byte) []byte {
	return append(dst, partVersion, form, 0, 0, 0, 0)
}

// countPart says in a part how many elements it has.
func countPart(part []byte, elems int) {
	binary.LittleEndian.PutUint32(part[2:], uint32(elems))
}

// appendPart appends a part. It stops, and says so, when that is too large and
// could be divided.
func (c *cells) appendPart(dst []byte, id PartID, kind partial, divide bool) (_ []byte, elems int, large bool) {
	dst = appendPartHeader(dst, kind.form)
	c.table.InRange(id.first(), id.last(), func(e *cell) bool {
		dst = kind.add(dst, e)
		elems++
		large = divide && len(dst) > partBytes && elems > 1 && id.depth() < deepestPart
		return !large
	})
	countPart(dst, elems)
	return dst, elems, large
}

// startDepth is how many bits parts have while nothing is stored: so that
// they are half full.
func (c *cells) startDepth() int {
	return min(bits.Len(uint(c.bytes/(partBytes*3/4))), 24)
}

// fill appends parts where nothing is stored, for the hashes from first on up
// to before end, which is 0 for the end of all. There is one at least.
func (p *partMap) fill(first, end uint64, absent bool) {
	for {
		width := bits.TrailingZeros64(first) // the largest part that begins here
		if rest := end - first; rest > 0 {
			width = min(width, bits.Len64(rest)-1)
		}
		p.parts = append(p.parts, storedPart{id: partOf(first, 64-width), absent: absent})
		if first += 1 << width; first == end {
			return
		}
	}
}

// partLoader reads a head and then parts, in the order of their numbers.
type partLoader struct {
	dumpReader
	c    *cells
	p    *partMap
	form byte
	add  func(r *dumpReader) (key []byte) // reads an element, and puts it in
	at   uint64                           // hashes before have been seen to
	done bool                             // and so have all
}

// loadParts loads what is needed of what is stored.
func (c *cells) loadParts(form byte, head []byte, src Source, need *Need, add func(r *dumpReader) (key []byte)) error {
	l := partLoader{dumpReader: dumpReader{rest: head}, c: c, p: &partMap{}, form: form, add: add}
	elems := l.partHead(form)
	l.end()
	if need == nil {
		l.all(src)
	} else {
		l.some(src, need)
	}
	away := elems - uint64(c.table.Len())
	if l.err == nil && away != 0 && (need == nil || elems > math.MaxInt32 || int(away) < 0 || !l.p.partly()) {
		l.fail("%d elements announced, %d there", elems, c.table.Len())
	}
	if l.err != nil {
		return l.err
	}
	l.p.away = int(away)
	l.p.setGranules(int(elems))
	c.parts = l.p
	return nil
}

func (l *partLoader) all(src Source) {
	for id, data, ok := src.From(0); ok && l.err == nil; id, data, ok = src.From(id + 1) {
		if l.at != id.first() && !l.done {
			l.upTo(id.first(), false)
		}
		l.part(id, data)
	}
	l.tail(false)
}

func (l *partLoader) some(src Source, need *Need) {
	load := func(hash uint64) {
		if l.err != nil || l.done || hash < l.at {
			return
		}
		id, data, found := src.From(PartID(hash))
		end := uint64(0) // of what is known
		if found && id.first() > hash {
			end, found = id.first(), false
		}
		begin := l.at
		if !found {
			var before bool
			if id, data, before = src.Before(PartID(hash)); before {
				found, begin = id.last() >= hash, max(begin, id.last()+1)
			}
		}
		if !found { // there is nothing
			if l.upTo(begin, true); end == 0 {
				l.tail(false)
			} else {
				l.upTo(end, false)
			}
			return
		}
		l.upTo(id.first(), true)
		l.part(id, data)
	}
	for _, hash := range need.Hashes {
		load(hash)
	}
	for range need.More {
		load(l.at)
	}
	l.tail(true)
}

// upTo says that nothing is loaded up to before end.
func (l *partLoader) upTo(end uint64, absent bool) {
	if l.at != end {
		l.p.fill(l.at, end, absent)
		l.at = end
	}
}

// tail says that nothing is loaded up to the end of all.
func (l *partLoader) tail(absent bool) {
	if l.err == nil && !l.done {
		l.p.fill(l.at, 0, absent)
		l.done = true
	}
}

func (l *partLoader) part(id PartID, data []byte) {
	if l.done || id == 0 || id.depth() > deepestPart || id.first() != l.at {
		l.fail("part %x out of order", id)
		return
	}
	l.at = id.last() + 1
	l.done = l.at == 0
	l.rest = data
	count := l.partHeader(l.form)
	if count == 0 {
		l.fail("part %x is empty", id)
	}
	l.p.parts = append(l.p.parts, storedPart{id: id, elems: count, bytes: len(data), stored: true})
	for i := 0; i < count && l.err == nil; i++ {
		key := l.add(&l.dumpReader)
		if l.err != nil {
			break
		}
		if hash := l.c.table.Hash(key); hash < id.first() || hash > id.last() {
			l.fail("part %x has what belongs to another", id)
		}
	}
	l.end()
}

// partHead reads a head as far as all have it.
func (r *dumpReader) partHead(form byte) (elems uint64) {
	r.partForm(form)
	return r.uvarint()
}

func (r *dumpReader) partHeader(form byte) (elems int) {
	r.partForm(form)
	b := r.take(4)
	if r.err != nil {
		return 0
	}
	return int(binary.LittleEndian.Uint32(b))
}

func (r *dumpReader) partForm(form byte) {
	b := r.take(2)
	if r.err != nil {
		return
	}
	if b[0] != partVersion {
		r.fail("version %d of parts", b[0])
	} else if b[1] != form {
		r.fail("form %q instead of %q", b[1], form)
	}
}

// HasParts says whether a Save gives only what has changed since the last one, or
// since the hash was loaded from parts. It does when some of it isn't in memory.
func (h *Hash) HasParts() bool { return h.big != nil && h.big.parts != nil }

// Save begins to write a big hash.
func (h *Hash) Save() *Save { return h.big.save(partialHash) }

// DropParts says that what is stored in parts is of another hash, or not there.
func (h *Hash) DropParts() {
	if h.big != nil {
		h.big.dropParts()
	}
}

// LoadParts makes h the big hash that a head and parts say, or as much of it as is
// needed. After an error h is empty.
func (h *Hash) LoadParts(seed uint64, head []byte, src Source, need *Need) error {
	*h = Hash{seed: seed, big: newCells(seed)}
	err := h.big.loadParts(formBigHash, head, src, need, func(r *dumpReader) []byte {
		field, val := r.string(), r.string()
		if r.err == nil && !h.big.put(field, val) {
			r.fail("a field twice")
		}
		return field
	})
	if err != nil {
		*h = Hash{seed: seed}
	}
	return err
}

// HasParts is Hash.HasParts of a set.
func (s *Set) HasParts() bool { return s.big != nil && s.big.parts != nil }

// Save is Hash.Save of a set.
func (s *Set) Save() *Save { return s.big.save(partialSet) }

// DropParts is Hash.DropParts of a set.
func (s *Set) DropParts() {
	if s.big != nil {
		s.big.dropParts()
	}
}

// LoadParts is Hash.LoadParts of a set.
func (s *Set) LoadParts(seed uint64, head []byte, src Source, need *Need) error {
	*s = Set{seed: seed, big: newCells(seed)}
	err := s.big.loadParts(formBigSet, head, src, need, func(r *dumpReader) []byte {
		member := r.string()
		if r.err == nil && !s.big.put(member, nil) {
			r.fail("a member twice")
		}
		return member
	})
	if err != nil {
		*s = Set{seed: seed}
	}
	return err
}

// HasParts is Hash.HasParts of a sorted set.
func (z *ZSet) HasParts() bool { return z.big != nil && z.big.index.parts != nil }

// Save is Hash.Save of a sorted set.
func (z *ZSet) Save() *Save { return z.big.index.save(partialZSet) }

// DropParts is Hash.DropParts of a sorted set.
func (z *ZSet) DropParts() {
	if z.big != nil {
		z.big.index.dropParts()
	}
}

// LoadParts is Hash.LoadParts of a sorted set.
func (z *ZSet) LoadParts(seed uint64, head []byte, src Source, need *Need) error {
	*z = ZSet{seed: seed, big: newBigZSet(seed)}
	index := &z.big.index
	var items []zitem
	err := index.loadParts(formBigZSet, head, src, need, func(r *dumpReader) []byte {
		member, bits := r.string(), r.take(scoreSize)
		if r.err != nil {
			return nil
		}
		score := getScore(bits)
		if score != score {
			r.fail("a score that is not a number")
			return nil
		}
		hash := index.table.Hash(member)
		if index.table.Find(hash, member) != nil {
			r.fail("a member twice")
			return nil
		}
		items = append(items, zitem{score, prefixOf(member), index.addHashed(hash, member, bits)})
		return member
	})
	if err != nil {
		*z = ZSet{seed: seed}
		return err
	}
	z.big.tree.fill(items)
	return nil
}
