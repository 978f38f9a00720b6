package value

import "bytes"

// chunk is a run of elements of a list, which can be walked both ways: each
// has its length before it and, mirrored, behind it.
//
//	         lo                                                      hi
//	| unused | uvarint length | bytes | length, backwards | ... | ... | unused |
//
// Popping only moves lo or hi, so what was popped stays readable until the
// room is used again.
type chunk struct {
	buf    []byte
	lo, hi int
	n      int // elements
}

const (
	chunkLen   = 128
	chunkBytes = 8 << 10
)

// entrySize is the room that an element of n bytes takes.
func entrySize(n int) int { return 2*uvarintSize(n) + n }

// fits says whether an element of n bytes may be added.
func (c *chunk) fits(n int) bool {
	return c.n == 0 || c.n < chunkLen && c.hi-c.lo+entrySize(n) <= chunkBytes
}

// next returns the element at off and where the next one begins.
func (c *chunk) next(off int) (v []byte, end int) {
	v, end = packed(c.buf).at(off)
	return v, end + (end - len(v) - off)
}

// prev returns the element that ends at end and where it begins.
func (c *chunk) prev(end int) (v []byte, begin int) {
	width, n := 1, int(c.buf[end-1]&0x7f)
	for c.buf[end-width]&0x80 != 0 {
		width++
		n |= int(c.buf[end-width]&0x7f) << (7 * (width - 1))
	}
	end -= width
	return c.buf[end-n : end : end], end - n - width
}

// put writes an element at off. The bytes go first: they may come from where
// the lengths will be.
func (c *chunk) put(off int, v []byte) {
	if n := len(v); n < 0x80 {
		b := c.buf[off : off+n+2]
		copy(b[1:], v)
		b[0], b[n+1] = byte(n), byte(n)
		return
	}
	width := uvarintSize(len(v))
	copy(c.buf[off+width:], v)
	last := off + 2*width + len(v) - 1
	for i, n := 0, len(v); i < width; i++ {
		b := byte(n & 0x7f)
		if n >>= 7; n > 0 {
			b |= 0x80
		}
		c.buf[off+i] = b
		c.buf[last-i] = b
	}
}

// locate returns the offset of element i, which is in [0, n).
func (c *chunk) locate(i int) int {
	if i < c.n/2 {
		off := c.lo
		for range i {
			_, off = c.next(off)
		}
		return off
	}
	off := c.hi
	for range c.n - i {
		_, off = c.prev(off)
	}
	return off
}

// removeValue removes at most limit elements equal to v, the first or the last
// ones, and returns how many.
func (c *chunk) removeValue(v []byte, limit int, fromEnd bool) (removed int) {
	skip := 0
	if fromEnd { // the first ones of all that are equal stay
		for off := c.lo; off < c.hi; {
			var got []byte
			if got, off = c.next(off); bytes.Equal(got, v) {
				skip++
			}
		}
		skip = max(0, skip-limit)
	}
	to := c.lo
	for off := c.lo; off < c.hi; {
		got, end := c.next(off)
		if removed < limit && bytes.Equal(got, v) {
			if skip--; skip < 0 {
				removed++
				off = end
				continue
			}
		}
		if to < off {
			copy(c.buf[to:], c.buf[off:end])
		}
		to += end - off
		off = end
	}
	c.hi = to
	c.n -= removed
	return removed
}
