package value

import "bytes"

// Small collections that come from outside are checked before anything walks
// through them: what follows says what is wrong, or nothing. All take a head
// of two bytes for granted.

// checkStrings is for hashes (two strings an element) and sets of strings.
func (p packed) checkStrings(each int) (wrong string) {
	if p[1] > maxPackedLen {
		return "too many packed elements"
	}
	off := headSize
	for range each * int(p[1]) {
		if off >= len(p) {
			return "cut short"
		}
		n := int(p[off]) // of one byte: packed ones are no longer than 64
		if n > maxPackedBytes {
			return "a packed string that is too long"
		}
		off += 1 + n
	}
	if off != len(p) {
		return "cut short, or something left"
	}
	return p.checkDistinct()
}

// checkInts is for sets of integers.
func (p packed) checkInts() (wrong string) {
	width := p[1]
	if width != 2 && width != 4 && width != 8 || (len(p)-headSize)%int(width) != 0 {
		return "integers of a width that can't be"
	}
	ints := intset{p[headSize:], width}
	if ints.len() > maxIntsLen {
		return "too many integers"
	}
	for i := 1; i < ints.len(); i++ {
		if ints.at(i-1) >= ints.at(i) {
			return "integers out of order"
		}
	}
	return ""
}

// checkList is for lists, whose elements may be longer.
func (p packed) checkList() (wrong string) {
	if len(p) > maxListBytes {
		return "a packed list that is too long"
	}
	off := headSize
	for range p[1] {
		n, width := uint64(0), 1
		switch {
		case off >= len(p):
			return "cut short"
		case p[off] < 0x80:
			n = uint64(p[off])
		case off+1 < len(p) && p[off+1] > 0 && p[off+1] < 0x80: // two bytes are enough for 8 KiB
			n, width = uint64(p[off]&0x7f)|uint64(p[off+1])<<7, 2
		default:
			return "a length that can't be read"
		}
		if n > uint64(len(p)-off-width) {
			return "cut short"
		}
		off += width + int(n)
	}
	if off != len(p) {
		return "something left"
	}
	return ""
}

// checkDistinct is for what has passed all other checks: no field or member
// may be there twice.
func (p packed) checkDistinct() (wrong string) {
	const twice = "a field or member twice"
	if p[1] <= 8 {
		var keys [8][]byte
		n := 0
		p.keys(func(key []byte) bool {
			for _, other := range keys[:n] {
				if bytes.Equal(key, other) {
					wrong = twice
				}
			}
			keys[n] = key
			n++
			return wrong == ""
		})
		return wrong
	}
	// A table of offsets. There are at most 128 keys in 256 slots, so that
	// even hashes that were chosen to collide cost little.
	var slots [256]struct{ off, end uint16 }
	at := 0
	p.keys(func(key []byte) bool {
		i := int(Hash64(0, key)) & 255
		for ; slots[i].off > 0; i = (i + 1) & 255 {
			if bytes.Equal(p[slots[i].off:slots[i].end], key) {
				wrong = twice
				return false
			}
		}
		at = cap(p) - cap(key) // keys are parts of p
		slots[i].off, slots[i].end = uint16(at), uint16(at+len(key))
		return true
	})
	return wrong
}

// keys calls fn for what has to be distinct, until it returns false.
func (p packed) keys(fn func(key []byte) bool) {
	if p[0] == formZSet {
		for e := (scoredAt{off: headSize}); e.off < len(p); e.follow() {
			e.read(p)
			if !fn(p[e.begin:e.end]) {
				return
			}
		}
		return
	}
	for off := headSize; off < len(p); {
		begin, n := p.head(off)
		if !fn(p[begin : begin+n]) {
			return
		}
		off = begin + n
		if p[0] == formHash {
			off = p.skip(off, 1)
		}
	}
}
