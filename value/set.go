package value

import (
	"iter"
	"strconv"
	"unsafe"
)

// Set is a set of members.
//
// It begins as a set of integers, in ascending order. With the first member
// that isn't one it is packed while it is small, in the order in which members
// were added. That form has no name in Redis 7.0: Encoding calls it by that of
// the big one, which a set of the same members would have there.
type Set struct {
	small small
	big   *cells // nil while small
	seed  uint64
}

// NewSet makes an empty set whose scans are ordered under that seed.
func NewSet(seed uint64) *Set { return &Set{seed: seed} }

// Borrow sets s around the bytes of a small set, or around none, to be an
// empty one. It changes them in place as far as their capacity goes, and goes
// on in the scratch if that isn't enough.
func (s *Set) Borrow(seed uint64, blob []byte, scratch *Scratch) {
	s.small.borrow(blob, scratch)
	s.big, s.seed = nil, seed
}

// Small is the bytes of a small set, and whether they are other ones than it
// was borrowed around. ok is false if it has become big.
func (s *Set) Small() (blob []byte, moved, ok bool) {
	return s.small.b, s.small.moved, s.big == nil
}

// Big moves a big set, which s no longer is then, into one of its own.
func (s *Set) Big() *Set {
	big := &Set{big: s.big, seed: s.seed}
	*s = Set{}
	return big
}

// IsIntset says whether the set has the form for integers.
func (s *Set) IsIntset() bool {
	return s.big == nil && (len(s.small.b) == 0 || s.small.b[0] == formInts)
}

func (s *Set) ints() intset {
	if len(s.small.b) == 0 {
		return intset{width: 2}
	}
	return intset{s.small.b[headSize:], s.small.b[1]}
}

// Len is the number of members.
func (s *Set) Len() int {
	switch {
	case s.big != nil:
		return s.big.len()
	case s.IsIntset():
		return s.ints().len()
	}
	return s.small.count()
}

// Encoding is the name of the form the set has.
func (s *Set) Encoding() string {
	if s.IsIntset() {
		return encodingInts
	}
	return encodingTable
}

// Size is the memory that the set takes, in bytes.
func (s *Set) Size() int {
	size := int(unsafe.Sizeof(*s)) + cap(s.small.b)
	if s.big != nil {
		size += s.big.size()
	}
	return size
}

// Lookup is the look-up of member that is about to be made, if it needs one: a small
// collection doesn't.
func (s *Set) Lookup(member []byte) Lookup {
	if s.big != nil {
		return s.big.lookup(member)
	}
	return Lookup{}
}

// Has says whether member is in the set.
func (s *Set) Has(member []byte) bool {
	switch {
	case s.big != nil:
		return s.big.find(member) != nil
	case s.IsIntset():
		v, ok := asInt(member)
		if ok {
			_, ok = s.ints().search(v)
		}
		return ok
	}
	return s.small.b.find(member, 1) >= 0
}

// Add puts member into the set and reports whether it is new.
func (s *Set) Add(member []byte) (added bool) {
	if s.IsIntset() {
		if v, ok := asInt(member); ok {
			return s.addInt(v)
		}
		s.leaveInts(member)
	}
	if s.big != nil {
		hash := s.big.table.Hash(member)
		if s.big.table.Find(hash, member) != nil {
			return false
		}
		s.big.addHashed(hash, member, nil)
		return true
	}
	if s.small.b.find(member, 1) >= 0 {
		return false
	}
	if s.small.count() == maxPackedLen || len(member) > maxPackedBytes {
		s.grow()
		s.big.add(member, nil)
		return true
	}
	s.packMember(member)
	return true
}

func (s *Set) packMember(member []byte) {
	size := packedSize(len(member))
	s.small.begin(formStrings, 0, size)
	off := len(s.small.b)
	s.small.open(off, off, size)
	s.small.put(off, member)
	s.small.b[1]++
}

func (s *Set) addInt(v int64) (added bool) {
	i, found := s.ints().search(v)
	if found {
		return false
	}
	s.small.begin(formInts, 2, int(widthOf(v)))
	if width := widthOf(v); width > s.ints().width {
		s.widen(width)
	}
	ints := s.ints()
	at := headSize + i*int(ints.width)
	s.small.open(at, at, int(ints.width))
	ints = s.ints()
	ints.setAt(i, v)
	if ints.len() > maxIntsLen {
		s.leaveInts(nil)
	}
	return true
}

// widen makes all integers as wide as that: the last first, since they move
// backwards.
func (s *Set) widen(width uint8) {
	n, old := s.ints().len(), s.ints().width
	end := len(s.small.b)
	s.small.open(end, end, n*int(width-old))
	s.small.b[1] = width
	wide := s.ints()
	narrow := intset{wide.data, old}
	for i := n - 1; i >= 0; i-- {
		wide.setAt(i, narrow.at(i))
	}
}

// Del removes member and reports whether it was there.
func (s *Set) Del(member []byte) bool {
	switch {
	case s.big != nil:
		return s.big.remove(member) != nil
	case s.IsIntset():
		v, ok := asInt(member)
		if !ok {
			return false
		}
		ints := s.ints()
		i, found := ints.search(v)
		if found {
			at := headSize + i*int(ints.width)
			s.small.open(at, at+int(ints.width), 0)
		}
		return found
	}
	off := s.small.b.find(member, 1)
	if off < 0 {
		return false
	}
	s.small.open(off, s.small.b.skip(off, 1), 0)
	s.small.b[1]--
	return true
}

// leaveInts changes a set of integers to the form that it has once next, a
// string, is added too.
func (s *Set) leaveInts(next []byte) {
	ints := s.ints()
	n := ints.len()
	var room [20]byte
	if n >= maxPackedLen || len(next) > maxPackedBytes {
		s.big = newCells(s.seed)
		for i := range n {
			s.big.add(strconv.AppendInt(room[:0], ints.at(i), 10), nil)
		}
		s.small = small{}
		return
	}
	var all [maxPackedLen]int64 // as strings they go where they are now
	for i := range n {
		all[i] = ints.at(i)
	}
	s.small.b = s.small.b[:0]
	for _, v := range all[:n] {
		s.packMember(strconv.AppendInt(room[:0], v, 10))
	}
	s.small.begin(formStrings, 0, 0)
}

// text is an integer as a member.
func (s *Set) text(v int64) []byte {
	var digits [20]byte
	b := strconv.AppendInt(digits[:0], v, 10)
	return append(s.small.textRoom(len(b)), b...)
}

// grow changes a packed set to the big form.
func (s *Set) grow() {
	big := newCells(s.seed)
	for member := range s.All() {
		big.add(member, nil)
	}
	s.small, s.big = small{}, big
}

// All gives the members: integers in ascending order, a packed set in the
// order in which members were added.
func (s *Set) All() iter.Seq[[]byte] {
	return func(yield func(member []byte) bool) {
		switch {
		case s.big != nil:
			s.big.table.Range(func(c *cell) bool { return yield(c.key()) })
		case s.IsIntset():
			// Nothing is written over, so members may be kept like those of
			// other forms.
			ints := s.ints()
			text := s.small.textRoom(2 * len(ints.data))
			for i := range ints.len() {
				begin := len(text)
				text = strconv.AppendInt(text, ints.at(i), 10)
				if !yield(text[begin:len(text):len(text)]) {
					return
				}
			}
		default:
			p := s.small.b
			for off := headSize; off < len(p); {
				var member []byte
				if member, off = p.at(off); !yield(member) {
					return
				}
			}
		}
	}
}

// Scan calls fn for some members, about count, from cursor on (0 to begin),
// and returns the cursor to go on with, 0 at the end. A member that is there
// from the first call to the last is given. A small set is given whole.
func (s *Set) Scan(cursor uint64, count int, fn func(member []byte)) (next uint64) {
	if s.big != nil {
		return s.big.table.ScanFrom(cursor, count, func(c *cell) { fn(c.key()) })
	}
	for member := range s.All() {
		fn(member)
	}
	return 0
}

// Random returns a member, or nil if the set is empty.
func (s *Set) Random(rng Rand) []byte {
	switch {
	case s.Len() == 0:
		return nil
	case s.big != nil:
		return s.big.table.Random(rng).key()
	case s.IsIntset():
		ints := s.ints()
		return s.text(ints.at(below(rng, ints.len())))
	}
	p := s.small.b
	member, _ := p.at(p.skip(headSize, below(rng, s.small.count())))
	return member
}

// Sample calls fn for n members, none twice, or all if there are fewer.
func (s *Set) Sample(rng Rand, n int, fn func(member []byte)) {
	if s.big != nil {
		s.big.sample(rng, n, func(c *cell) { fn(c.key()) })
		return
	}
	left := newLottery(rng, n, s.Len())
	for member := range s.All() {
		if left.winners == 0 {
			return
		}
		if left.draw() {
			fn(member)
		}
	}
}
