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
	data  []byte // of an intset or packed; nil when big
	big   *cells
	seed  uint64
	n     uint16 // members while packed
	width uint8  // of the intset; 0: it isn't one
}

// NewSet makes an empty set whose scans are ordered under that seed.
func NewSet(seed uint64) *Set {
	return &Set{seed: seed, width: 2}
}

// IsIntset says whether the set has the form for integers.
func (s *Set) IsIntset() bool { return s.width > 0 }

func (s *Set) ints() intset { return intset{s.data, s.width} }

func (s *Set) setInts(ints intset) { s.data, s.width = ints.data, ints.width }

func (s *Set) pack() packed { return s.data }

// Len is the number of members.
func (s *Set) Len() int {
	switch {
	case s.big != nil:
		return s.big.table.Len()
	case s.IsIntset():
		return s.ints().len()
	}
	return int(s.n)
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
	size := int(unsafe.Sizeof(*s)) + cap(s.data)
	if s.big != nil {
		size += s.big.size()
	}
	return size
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
	return s.pack().find(member, 1) >= 0
}

// Add puts member into the set and reports whether it is new.
func (s *Set) Add(member []byte) (added bool) {
	if s.IsIntset() {
		if v, ok := asInt(member); ok {
			ints := s.ints()
			added = ints.add(v)
			s.setInts(ints)
			if ints.len() > maxIntsLen {
				s.leaveInts(nil)
			}
			return added
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
	if s.pack().find(member, 1) >= 0 {
		return false
	}
	if s.n == maxPackedLen || len(member) > maxPackedBytes {
		s.grow()
		s.big.add(member, nil)
		return true
	}
	s.packMember(member)
	return true
}

func (s *Set) packMember(member []byte) {
	p, off := s.pack(), len(s.data)
	p = p.open(off, off, packedSize(len(member)))
	p.put(off, member)
	s.data = p
	s.n++
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
		ok = ints.del(v)
		s.setInts(ints)
		return ok
	}
	p := s.pack()
	off := p.find(member, 1)
	if off < 0 {
		return false
	}
	s.data = p.open(off, p.skip(off, 1), 0)
	s.n--
	return true
}

// leaveInts changes a set of integers to the form that it has once next, a
// string, is added too.
func (s *Set) leaveInts(next []byte) {
	ints := s.ints()
	s.setInts(intset{})
	if ints.len() >= maxPackedLen || len(next) > maxPackedBytes {
		s.big = newCells(s.seed)
	}
	var room [20]byte
	for i := range ints.len() {
		member := strconv.AppendInt(room[:0], ints.at(i), 10)
		if s.big != nil {
			s.big.add(member, nil)
		} else {
			s.packMember(member)
		}
	}
}

// grow changes a packed set to the big form.
func (s *Set) grow() {
	big := newCells(s.seed)
	for member := range s.All() {
		big.add(member, nil)
	}
	s.data, s.n, s.big = nil, 0, big
}

// All gives the members: integers in ascending order, a packed set in the
// order in which members were added.
func (s *Set) All() iter.Seq[[]byte] {
	return func(yield func(member []byte) bool) {
		switch {
		case s.big != nil:
			s.big.table.Range(func(c *cell) bool { return yield(c.key()) })
		case s.IsIntset():
			// All in one allocation or two; nothing is written over, so
			// members may be kept like those of other forms.
			ints := s.ints()
			text := make([]byte, 0, 2*len(s.data))
			for i := range ints.len() {
				begin := len(text)
				text = strconv.AppendInt(text, ints.at(i), 10)
				if !yield(text[begin:len(text):len(text)]) {
					return
				}
			}
		default:
			p := s.pack()
			for off := 0; off < len(p); {
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
		return strconv.AppendInt(nil, ints.at(below(rng, ints.len())), 10)
	}
	p := s.pack()
	member, _ := p.at(p.skip(0, below(rng, int(s.n))))
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
