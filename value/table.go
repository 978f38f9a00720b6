package value

import (
	"bytes"
	"unsafe"
)

// A Table is a hash table that never stops the world and whose elements can
// be walked in the order of their hashes.
//
// The problem. A table that doubles by moving everything stalls its loop for
// as long as the move takes, and one that moves little by little looks up in
// two places meanwhile. SCAN needs a cursor that survives growth, that keeps
// no state here, and that another copy of the database understands.
//
// The idea is extendible hashing, with order kept all the way down. The top
// bits of the hash choose a segment through a directory; the bits below them
// choose the home slot inside the segment:
//
//	hash   | depth bits: directory | slotBits: home slot | rest ...      |
//
//	dir    [ 00 | 01 | 10 | 11 ]         a segment less deep than the
//	          \   /     |    |           directory has several entries
//	         depth 1    2    2
//
// A segment has at most 512 slots. A full one splits in two by its next bit,
// which moves a few hundred elements, some tens of microseconds. Only the
// directory doubles as a whole, 8 bytes for each segment.
//
// Inside a segment, collisions go to the next slot, Robin Hood fashion, which
// keeps elements in the order of their home slots. Each slot has a 16-bit tag
// in an array of its own: 9 bits how far the element is from home, plus one,
// so that 0 means empty, and 7 bits of its hash.
//
//	tag    | distance+1 (9) | hash bits (7) |
//
// Tags fall off along a run of equal homes, so one comparison tells a hit
// (equal), a miss (less) or that the search goes on (greater), and elements
// that aren't wanted are hardly ever touched. Removal moves the rest of the
// run back by one; there are no tombstones.
//
// So home slots in order, through all segments in order, are the elements in
// the order of their hashes, whatever the shape. A cursor is a position among
// the hashes: all below it has been given. Growth, shrinking, and a copy that
// grew another way don't disturb it.
//
// Limits. Hashes must be spread evenly, as those of Hash64 are. If they
// aren't, the directory would grow without bound; instead its size is bounded
// by that of the content (roomToDouble), and what doesn't fit in a segment
// goes into further ones chained behind it. All stays right, but slow.
type Table[E any] struct {
	seed  uint64
	key   func(*E) []byte
	dir   []*segment[E] // 1<<depth entries; nil while nothing was inserted
	n     int
	bytes int   // memory of segments
	deeps []int // segments of each depth; none as deep as the directory: it can be halved
	depth uint8 // bits of hash that choose in dir
	wide  uint8 // the most slotBits a segment ever had: Random draws from so many
}

// segment holds the elements whose hashes begin with the same depth bits.
type segment[E any] struct {
	tags     []uint16 // 1<<slotBits of them
	elems    []*E     // as long
	n        int
	depth    uint8
	slotBits uint8
	more     *segment[E] // overflow, when this can't be split; see Limits
}

const (
	minSlotBits = 2
	maxSlotBits = 9
	tagBits     = 7
	oneFurther  = 1 << tagBits // added to a tag, one slot further from home

	// CursorBits is how many bits a scan cursor has. It is less than 53 since
	// there are clients that keep cursors in floating point.
	CursorBits = 48
	maxDepth   = CursorBits - maxSlotBits // so that every home slot begins at a cursor
)

// NewTable makes an empty table. key tells an element's key, which must not
// change while the element is in the table; hashes are Hash64(seed, key).
func NewTable[E any](seed uint64, key func(*E) []byte) *Table[E] {
	return &Table[E]{seed: seed, key: key}
}

// Hash is the hash by which key is looked up here.
func (t *Table[E]) Hash(key []byte) uint64 { return Hash64(t.seed, key) }

// Len is the number of elements.
func (t *Table[E]) Len() int { return t.n }

// Size is the memory of the table in bytes, without the elements.
func (t *Table[E]) Size() int {
	return int(unsafe.Sizeof(*t)) + 8*cap(t.dir) + 8*cap(t.deeps) + t.bytes
}

// Find returns the element with that key, or nil. hash is Hash(key), here and
// below: a caller computes it once.
func (t *Table[E]) Find(hash uint64, key []byte) *E {
	if t.n == 0 {
		return nil
	}
	for s := t.segment(hash); s != nil; s = s.more {
		if i := t.find(s, hash, key); i >= 0 {
			return s.elems[i]
		}
	}
	return nil
}

// Approach loads the tag where Touch and Find begin. Called for many keys before
// Touch is, cache misses overlap instead of following each other: nothing here
// depends on what the tag is, so the processor never has to wait for it to know how to
// go on. What it returns means nothing, but only a caller that uses it, adding all
// up for instance, makes the loads happen.
func (t *Table[E]) Approach(hash uint64) uint16 {
	if t.n == 0 {
		return 0
	}
	s := t.segment(hash)
	return s.tags[s.home(hash)]
}

// Touch returns the element that Find will most likely find, or nil. A caller that
// goes on to read a field of many elements has those cache misses overlap as well.
func (t *Table[E]) Touch(hash uint64) *E {
	if t.n == 0 {
		return nil
	}
	s := t.segment(hash)
	i := s.home(hash)
	tags, elems := s.tags, s.elems
	mask := len(tags) - 1
	for want := tagOf(hash); ; want += oneFurther {
		if tag := tags[i&mask]; tag == want {
			return elems[i&mask]
		} else if tag < want {
			return nil
		}
		i++
	}
}

// Insert adds an element whose key isn't in the table.
func (t *Table[E]) Insert(hash uint64, e *E) {
	if t.dir == nil {
		s := t.newSegment(0, minSlotBits)
		t.dir = []*segment[E]{s}
		t.deeps = append(t.deeps[:0], 1)
	}
	s := t.segment(hash)
	for s.n >= s.limit() {
		if s.slotBits < maxSlotBits {
			s = t.resize(s, s.slotBits+1, hash)
		} else if t.split(s, hash) {
			s = t.segment(hash)
		} else {
			s = t.roomInChain(s)
		}
	}
	s.insert(hash, e)
	t.n++
}

// Replace puts new in the place of old, which is in the table and has the
// same key.
func (t *Table[E]) Replace(hash uint64, old, new *E) {
	key := t.key(old)
	for s := t.segment(hash); s != nil; s = s.more {
		if i := t.find(s, hash, key); i >= 0 {
			s.elems[i] = new
			return
		}
	}
	panic("value: Replace of an element that is not in the table")
}

// Remove takes out the element with that key and returns it, or nil if there
// is none.
func (t *Table[E]) Remove(hash uint64, key []byte) *E {
	if t.n == 0 {
		return nil
	}
	head := t.segment(hash)
	for s := head; s != nil; s = s.more {
		i := t.find(s, hash, key)
		if i < 0 {
			continue
		}
		e := s.elems[i]
		s.removeAt(i)
		t.n--
		if head.n <= len(head.tags)/8 {
			t.shrink(head, hash)
		}
		return e
	}
	return nil
}

// Range calls fn for all elements in the order of segments until it returns
// false. fn must not insert or remove; ScanFrom is there for that.
func (t *Table[E]) Range(fn func(*E) bool) {
	for i := 0; i < len(t.dir); {
		head := t.dir[i]
		for s := head; s != nil; s = s.more {
			for _, e := range s.elems {
				if e != nil && !fn(e) {
					return
				}
			}
		}
		i += 1 << (t.depth - head.depth)
	}
}

// ScanFrom calls fn for elements in the order of their hashes, from cursor on
// (0 to begin), and returns the cursor to go on with, 0 when all has been
// given. It stops after count elements, or slightly more when several have
// the same home slot, or fewer when it came through much emptiness. An element
// that is in the table from the first call to the last is given, and only
// once.
//
// fn may insert and remove. An element that it removes may still be given.
func (t *Table[E]) ScanFrom(cursor uint64, count int, fn func(*E)) (next uint64) {
	if cursor >= 1<<CursorBits {
		return 0
	}
	var room [8]hashed[E]
	pos := cursor << (64 - CursorBits)
	count = min(count, 1<<24) // so that patience stays in range
	given, passed, patience := 0, 0, 8*count+1<<maxSlotBits
	for t.n > 0 { // fn may have removed all
		group, end, slots := t.collect(pos, room[:0])
		for _, g := range group {
			fn(g.elem)
		}
		given += len(group)
		passed += slots
		pos = end
		if pos == 0 {
			return 0
		}
		if given >= count || passed > patience {
			return pos >> (64 - CursorBits)
		}
	}
	return 0
}

// InOrder calls fn for all elements in the order of their hashes. fn must not
// insert or remove.
func (t *Table[E]) InOrder(fn func(*E)) {
	t.InRange(0, ^uint64(0), func(e *E) bool {
		fn(e)
		return true
	})
}

// InRange calls fn for elements in the order of their hashes, from first up to
// and including last, until it returns false. fn must not insert or remove.
func (t *Table[E]) InRange(first, last uint64, fn func(*E) bool) {
	var room [8]hashed[E]
	var touched *segment[E]
	for pos := first; t.n > 0; {
		if s := t.segment(pos); s != touched {
			touched = s
			for _, e := range s.elems { // they lie anywhere: so cache misses overlap
				if e != nil {
					t.key(e)
				}
			}
		}
		group, end, _ := t.collect(pos, room[:0])
		for _, g := range group {
			if g.hash > last || !fn(g.elem) {
				return
			}
		}
		if end == 0 || end > last {
			return
		}
		pos = end
	}
}

type hashed[E any] struct {
	hash uint64
	elem *E
}

// collect appends to group, in order, the elements at or after pos of the
// first home slot that has any, looking no further than the end of the
// segment. It returns the position behind that slot, 0 when that is the end
// of all, and how many slots it looked at.
func (t *Table[E]) collect(pos uint64, group []hashed[E]) (_ []hashed[E], end uint64, slots int) {
	head := t.segment(pos)
	first := head.home(pos)
	slot := first
	for ; slot < len(head.tags) && len(group) == 0; slot++ {
		for s := head; s != nil; s = s.more {
			for away := 0; away < len(s.tags); away++ {
				i := (slot + away) & (len(s.tags) - 1)
				distance := int(s.tags[i] >> tagBits)
				if distance <= away {
					break
				}
				if distance == away+1 {
					group = t.addInOrder(group, s.elems[i], pos)
				}
			}
		}
	}
	begin := pos &^ (1<<(64-head.depth) - 1)
	width := uint64(1) << (64 - head.depth - head.slotBits)
	return group, begin + uint64(slot)*width, slot - first
}

// addInOrder adds e to group, which is and stays ordered by hash, unless it
// comes before pos.
func (t *Table[E]) addInOrder(group []hashed[E], e *E, pos uint64) []hashed[E] {
	g := hashed[E]{t.Hash(t.key(e)), e}
	if g.hash < pos {
		return group
	}
	group = append(group, g)
	for i := len(group) - 1; i > 0 && group[i-1].hash > g.hash; i-- {
		group[i-1], group[i] = group[i], group[i-1]
	}
	return group
}

// Random returns an element, each as likely as any other, or nil if there is
// none.
func (t *Table[E]) Random(rng Rand) *E {
	if t.n == 0 {
		return nil
	}
	// Choose a segment, then a slot, and all over again if that is empty. A
	// directory entry counts only if it is the first for its segment. The
	// rules of shrinking keep a fair part of both in use; should they not,
	// as when hashes are not spread evenly, the search ends by walking on.
	for range 256 {
		r := rng.Uint64()
		i := int(r >> maxSlotBits & (1<<t.depth - 1))
		s := t.dir[i]
		if i&(1<<(t.depth-s.depth)-1) != 0 {
			continue
		}
		for slot := int(r & (1<<t.wide - 1)); s != nil; s = s.more {
			if slot < len(s.elems) && s.elems[slot] != nil {
				return s.elems[slot]
			}
		}
	}
	var found *E
	t.ScanFrom(rng.Uint64()>>(64-CursorBits), 1, func(e *E) { found = e })
	if found == nil {
		t.Range(func(e *E) bool { found = e; return false })
	}
	return found
}

func (t *Table[E]) segment(hash uint64) *segment[E] {
	return t.dir[hash>>(64-t.depth)]
}

func (t *Table[E]) newSegment(depth, slotBits uint8) *segment[E] {
	s := &segment[E]{
		tags:     make([]uint16, 1<<slotBits),
		elems:    make([]*E, 1<<slotBits),
		depth:    depth,
		slotBits: slotBits,
	}
	t.bytes += s.size()
	t.wide = max(t.wide, slotBits)
	return s
}

// find returns the slot of the element with that key, or -1.
func (t *Table[E]) find(s *segment[E], hash uint64, key []byte) int {
	i := s.home(hash)
	tags := s.tags
	mask := len(tags) - 1
	for want := tagOf(hash); ; want += oneFurther {
		i &= mask
		if tag := tags[i]; tag == want {
			if bytes.Equal(t.key(s.elems[i]), key) {
				return i
			}
		} else if tag < want {
			return -1
		}
		i++
	}
}

// resize gives the segment of that hash another number of slots.
func (t *Table[E]) resize(old *segment[E], slotBits uint8, hash uint64) *segment[E] {
	s := t.newSegment(old.depth, slotBits)
	t.moveAll(old, s)
	t.setDir(hash, s)
	return s
}

// split puts two segments in the place of s, the segment of that hash. It
// reports false, having done nothing, if that would need too large a
// directory.
func (t *Table[E]) split(s *segment[E], hash uint64) bool {
	if s.depth == t.depth {
		if !t.roomToDouble() {
			return false
		}
		dir := make([]*segment[E], 2*len(t.dir))
		for i, s := range t.dir {
			dir[2*i], dir[2*i+1] = s, s
		}
		t.dir = dir
		t.depth++
		t.deeps = append(t.deeps, 0)
	}
	bit := uint64(1) << (63 - s.depth)
	halves := [2]*segment[E]{t.newSegment(s.depth+1, maxSlotBits), t.newSegment(s.depth+1, maxSlotBits)}
	for s := s; s != nil; s = s.more {
		for _, e := range s.elems {
			if e == nil {
				continue
			}
			h := t.Hash(t.key(e))
			half := halves[0]
			if h&bit != 0 {
				half = halves[1]
			}
			t.roomInChain(half).insert(h, e) // s may have been a chain
		}
		t.bytes -= s.size()
	}
	t.setDir(hash&^bit, halves[0])
	t.setDir(hash|bit, halves[1])
	t.deeps[s.depth]--
	t.deeps[s.depth+1] += 2
	return true
}

// roomInChain returns s, or what is chained behind it, whichever has room.
func (t *Table[E]) roomInChain(s *segment[E]) *segment[E] {
	for s.n >= s.limit() {
		if s.more == nil {
			s.more = t.newSegment(s.depth, maxSlotBits)
		}
		s = s.more
	}
	return s
}

// roomToDouble says whether a directory twice as large is in proportion to
// the content. With hashes spread evenly it always is, by a factor of five.
func (t *Table[E]) roomToDouble() bool {
	return t.depth < maxDepth && len(t.dir) <= 64+t.n/32
}

// shrink makes s, the segment of that hash, smaller, or joins it with the one
// it was once split from. Both happen far below the filling at which they are
// undone, so that removing and inserting in turns moves nothing.
func (t *Table[E]) shrink(s *segment[E], hash uint64) {
	for more := s.more; more != nil; more = s.more { // empty ones go, others stay
		if more.n > 0 {
			return
		}
		s.more = more.more
		t.bytes -= more.size()
	}
	if s.depth == 0 {
		slotBits := s.slotBits
		for slotBits > minSlotBits && s.n <= 1<<slotBits/8 {
			slotBits--
		}
		if slotBits < s.slotBits {
			t.wide = 0
			t.resize(s, slotBits, hash)
		}
		return
	}
	bit := uint64(1) << (64 - s.depth)
	other := t.segment(hash ^ bit)
	if other.depth != s.depth || other.more != nil || s.n+other.n > s.limit()/2 {
		return
	}
	joined := t.newSegment(s.depth-1, maxSlotBits)
	t.moveAll(s, joined)
	t.moveAll(other, joined)
	t.setDir(hash, joined)
	t.deeps[s.depth] -= 2
	t.deeps[s.depth-1]++
	for t.deeps[t.depth] == 0 && t.depth > 0 {
		t.halveDir()
	}
	if joined.n <= len(joined.tags)/8 {
		t.shrink(joined, hash)
	}
}

func (t *Table[E]) halveDir() {
	dir := make([]*segment[E], len(t.dir)/2)
	for i := range dir {
		dir[i] = t.dir[2*i]
	}
	t.depth--
	t.deeps = t.deeps[:t.depth+1]
	t.dir = dir
}

// moveAll puts the elements of old into s and forgets old.
func (t *Table[E]) moveAll(old, s *segment[E]) {
	for _, e := range old.elems {
		if e != nil {
			s.insert(t.Hash(t.key(e)), e)
		}
	}
	t.bytes -= old.size()
}

// setDir lets all directory entries of the segment of that hash, as deep as s
// says, point to s.
func (t *Table[E]) setDir(hash uint64, s *segment[E]) {
	span := 1 << (t.depth - s.depth)
	first := int(hash>>(64-t.depth)) &^ (span - 1)
	for i := range span {
		t.dir[first+i] = s
	}
}

// tagOf is the tag of an element in its home slot.
func tagOf(hash uint64) uint16 {
	return oneFurther | uint16(hash)&(oneFurther-1)
}

func (s *segment[E]) home(hash uint64) int {
	return int(hash << s.depth >> (64 - s.slotBits))
}

// limit is how many elements are too many. One slot at least stays empty,
// which is where a search ends.
func (s *segment[E]) limit() int {
	return len(s.tags) - max(1, len(s.tags)/8)
}

func (s *segment[E]) size() int {
	var slot *E
	return int(unsafe.Sizeof(*s)) + len(s.tags)*int(2+unsafe.Sizeof(slot))
}

func (s *segment[E]) insert(hash uint64, e *E) {
	i, tag := s.home(hash), tagOf(hash)
	mask := len(s.tags) - 1
	for s.tags[i] >= tag {
		i = (i + 1) & mask
		tag += oneFurther
	}
	for tag != 0 { // from here on each moves by one, up to the first empty slot
		e, s.elems[i] = s.elems[i], e
		tag, s.tags[i] = s.tags[i], tag
		i = (i + 1) & mask
		if tag != 0 {
			tag += oneFurther
		}
	}
	s.n++
}

func (s *segment[E]) removeAt(i int) {
	mask := len(s.tags) - 1
	for {
		next := (i + 1) & mask
		if s.tags[next] < 2*oneFurther { // empty, or at home
			break
		}
		s.tags[i] = s.tags[next] - oneFurther
		s.elems[i] = s.elems[next]
		i = next
	}
	s.tags[i], s.elems[i] = 0, nil
	s.n--
}
