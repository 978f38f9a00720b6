package value

import (
	"iter"
	"unsafe"
)

// Hash maps fields to values.
//
// While it is small it is packed: field, value, field, value, in the order in
// which fields were first set.
type Hash struct {
	small small
	big   *cells // nil while small
	seed  uint64
}

// NewHash makes an empty hash whose scans are ordered under that seed.
func NewHash(seed uint64) *Hash { return &Hash{seed: seed} }

// Borrow sets h around the bytes of a small hash, or around none, to be an
// empty one. It changes them in place as far as their capacity goes, and goes
// on in the scratch if that isn't enough.
func (h *Hash) Borrow(seed uint64, blob []byte, scratch *Scratch) {
	h.small.borrow(blob, scratch)
	h.big, h.seed = nil, seed
}

// Small is the bytes of a small hash, and whether they are other ones than it
// was borrowed around. ok is false if it has become big.
func (h *Hash) Small() (blob []byte, moved, ok bool) {
	return h.small.b, h.small.moved, h.big == nil
}

// Big moves a big hash, which h no longer is then, into one of its own.
func (h *Hash) Big() *Hash {
	big := &Hash{big: h.big, seed: h.seed}
	*h = Hash{}
	return big
}

// Len is the number of fields.
func (h *Hash) Len() int {
	if h.big != nil {
		return h.big.len()
	}
	return h.small.count()
}

// Encoding is the name of the form the hash has.
func (h *Hash) Encoding() string {
	if h.big != nil {
		return encodingTable
	}
	return encodingPacked
}

// Size is the memory that the hash takes, in bytes.
func (h *Hash) Size() int {
	size := int(unsafe.Sizeof(*h)) + cap(h.small.b)
	if h.big != nil {
		size += h.big.size()
	}
	return size
}

// Lookup is the look-up of field that is about to be made, if it needs one: a small
// collection doesn't.
func (h *Hash) Lookup(field []byte) Lookup {
	if h.big != nil {
		return h.big.lookup(field)
	}
	return Lookup{}
}

// Get returns the value of field.
func (h *Hash) Get(field []byte) ([]byte, bool) {
	if h.big != nil {
		if c := h.big.find(field); c != nil {
			return c.value(), true
		}
		return nil, false
	}
	off := h.small.b.find(field, 2)
	if off < 0 {
		return nil, false
	}
	_, off = h.small.b.at(off)
	val, _ := h.small.b.at(off)
	return val, true
}

// Has says whether there is such a field.
func (h *Hash) Has(field []byte) bool {
	_, ok := h.Get(field)
	return ok
}

// Set gives field a value and reports whether the field is new.
func (h *Hash) Set(field, val []byte) (added bool) {
	if h.big == nil && (len(field) > maxPackedBytes || len(val) > maxPackedBytes) {
		h.grow()
	}
	if h.big != nil {
		return h.big.put(field, val)
	}
	if off := h.small.b.find(field, 2); off >= 0 {
		_, off = h.small.b.at(off)
		old, end := h.small.b.at(off)
		if len(old) == len(val) {
			copy(old, val)
			return false
		}
		h.small.open(off, end, packedSize(len(val)))
		h.small.put(off, val)
		return false
	}
	if h.small.count() == maxPackedLen {
		h.grow()
		return h.big.put(field, val)
	}
	size := packedSize(len(field)) + packedSize(len(val))
	h.small.begin(formHash, 0, size)
	off := len(h.small.b)
	h.small.open(off, off, size)
	h.small.put(h.small.put(off, field), val)
	h.small.b[1]++
	return true
}

// Del removes field and reports whether it was there.
func (h *Hash) Del(field []byte) bool {
	if h.big != nil {
		return h.big.remove(field) != nil
	}
	off := h.small.b.find(field, 2)
	if off < 0 {
		return false
	}
	h.small.open(off, h.small.b.skip(off, 2), 0)
	h.small.b[1]--
	return true
}

// grow changes the hash to its big form.
func (h *Hash) grow() {
	big := newCells(h.seed)
	for field, val := range h.All() {
		big.add(field, val)
	}
	h.small, h.big = small{}, big
}

// All gives the fields and their values: of a small hash in the order in
// which they were first set.
func (h *Hash) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(field, val []byte) bool) {
		if h.big != nil {
			h.big.table.Range(func(c *cell) bool { return yield(c.key(), c.value()) })
			return
		}
		for off := headSize; off < len(h.small.b); {
			var field, val []byte
			field, off = h.small.b.at(off)
			val, off = h.small.b.at(off)
			if !yield(field, val) {
				return
			}
		}
	}
}

// Scan calls fn for some fields, about count, from cursor on (0 to begin),
// and returns the cursor to go on with, 0 at the end. A field that is there
// from the first call to the last is given. A small hash is given whole.
func (h *Hash) Scan(cursor uint64, count int, fn func(field, val []byte)) (next uint64) {
	if h.big != nil {
		return h.big.table.ScanFrom(cursor, count, func(c *cell) { fn(c.key(), c.value()) })
	}
	for field, val := range h.All() {
		fn(field, val)
	}
	return 0
}

// Random returns a field and its value, or nil if the hash is empty.
func (h *Hash) Random(rng Rand) (field, val []byte) {
	if h.Len() == 0 {
		return nil, nil
	}
	if h.big != nil {
		c := h.big.table.Random(rng)
		return c.key(), c.value()
	}
	field, off := h.small.b.at(h.small.b.skip(headSize, 2*below(rng, h.small.count())))
	val, _ = h.small.b.at(off)
	return field, val
}

// Sample calls fn for n fields, none twice, or all if there are fewer.
func (h *Hash) Sample(rng Rand, n int, fn func(field, val []byte)) {
	if h.big != nil {
		h.big.sample(rng, n, func(c *cell) { fn(c.key(), c.value()) })
		return
	}
	left := newLottery(rng, n, h.small.count())
	for field, val := range h.All() {
		if left.winners == 0 {
			return
		}
		if left.draw() {
			fn(field, val)
		}
	}
}
