package value

import (
	"bytes"
	"encoding/binary"
)

// packed is a sequence of byte strings in one slice, each as its length and
// its bytes:
//
//	| uvarint length | bytes | uvarint length | bytes | ...
//
// It is walked from the front, by offsets. Who holds one knows how many there
// are and what they mean.
type packed []byte

// head returns where the string at off begins and how long it is.
func (p packed) head(off int) (begin, n int) {
	if n = int(p[off]); n < 0x80 {
		return off + 1, n
	}
	return p.longHead(off)
}

func (p packed) longHead(off int) (begin, n int) {
	v, width := binary.Uvarint(p[off:])
	return off + width, int(v)
}

// at returns the string at off and the offset behind it.
func (p packed) at(off int) (s []byte, next int) {
	begin, n := p.head(off)
	return p[begin : begin+n : begin+n], begin + n
}

// skip returns the offset behind the n-th string after off.
func (p packed) skip(off, n int) int {
	for range n {
		begin, n := p.head(off)
		off = begin + n
	}
	return off
}

// find returns the offset of the first string that is s, looking at every
// stride-th behind the head of a small collection, or -1.
func (p packed) find(s []byte, stride int) int {
	for off := headSize; off < len(p); {
		begin, n := p.head(off)
		if n == len(s) && same(p[begin:begin+n], s) {
			return off
		}
		off = p.skip(begin+n, stride-1)
	}
	return -1
}

// same compares strings of the same length: the last bytes first, for keys
// that were counted differ there.
func same(a, b []byte) bool {
	last := len(a) - 1
	return last < 0 || a[last] == b[last] && bytes.Equal(a, b)
}

// put writes s at off, where open made room, and returns the offset behind.
func (p packed) put(off int, s []byte) int {
	if len(s) < 0x80 {
		p[off] = byte(len(s))
		off++
	} else {
		off += binary.PutUvarint(p[off:], uint64(len(s)))
	}
	return off + copy(p[off:], s)
}

// packedSize is the room that a string of n bytes takes.
func packedSize(n int) int { return uvarintSize(n) + n }

func uvarintSize(n int) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}
