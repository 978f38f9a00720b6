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

// at returns the string at off and the offset behind it.
func (p packed) at(off int) (s []byte, next int) {
	n := int(p[off])
	off++
	if n >= 0x80 {
		v, width := binary.Uvarint(p[off-1:])
		n, off = int(v), off-1+width
	}
	return p[off : off+n : off+n], off + n
}

// skip returns the offset behind the n-th string after off.
func (p packed) skip(off, n int) int {
	for range n {
		_, off = p.at(off)
	}
	return off
}

// find returns the offset of the first string that is s, looking at every
// stride-th from the first, or -1.
func (p packed) find(s []byte, stride int) int {
	for off := 0; off < len(p); {
		got, next := p.at(off)
		if bytes.Equal(got, s) {
			return off
		}
		off = p.skip(next, stride-1)
	}
	return -1
}

// open replaces the bytes from off to end by n bytes for the caller to fill.
// It keeps an eighth of its length in reserve when it has to grow: less
// reserve than append has, since most small collections stop growing.
func (p packed) open(off, end, n int) packed {
	size := len(p) + n - (end - off)
	if size <= cap(p) {
		old := p
		p = p[:size]
		copy(p[off+n:], old[end:])
		return p
	}
	grown := append(packed(nil), make(packed, size+size/8)...)[:size]
	copy(grown, p[:off])
	copy(grown[off+n:], p[end:])
	return grown
}

// put writes s at off, where open made room, and returns the offset behind.
func (p packed) put(off int, s []byte) int {
	off += binary.PutUvarint(p[off:], uint64(len(s)))
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
