package slab

import (
	"unsafe"

	"vecino/value"
)

// prints are fingerprints of keys that have no record here: for each the first
// CursorBits bits of its hash, in order. Who knows where such keys' records are
// learns from them that a key is perhaps there, or for certain is not; with so many
// bits, one key in some fifty million is taken for one of five million others.
//
// As in the table the first bits of a hash choose a bucket through a directory, of
// which a bucket that is less deep has several entries, and a full bucket splits in
// two. What differs is that hashes alone have no places of their own: a bucket is a
// sorted array without gaps, in which one is found by interpolation. An entry of the
// directory has how many there are, so a lookup reads the entry, and a line or two of the array.
//
//	directory  | depth 6 | count 10 | bucket 48 |      1<<prints.depth of them; no bucket: none
//
//	bucket     word 0  | kind | small | first bits of the hashes in it 48 |
//	           word 1  | block/8 11 | 0 |
//	           prints  | the last 40 of the 48 bits |
//
// The directory tells at least the first eight bits, so forty make the rest. A bucket
// has room for an eighth more than it holds, and less than 2 KiB: some 5.6 bytes for a key.
type prints struct {
	dir   []uint64 // nil while there is none
	n     int
	bytes int64 // of buckets
	depth uint8
}

const (
	printHead  = 16
	printBytes = 5
	printDrop  = 64 - value.CursorBits // bits of a hash that a print doesn't have
	printMask  = 1<<(8*printBytes) - 1
	printTop   = value.CursorBits - 8*printBytes // bits that the directory always tells

	mostPrints = 384 // in a bucket
	joinPrints = mostPrints / 3

	countShift = 48
	countMask  = 1<<10 - 1
	printDepth = 58
)

func printCount(e uint64) int { return int(e >> countShift & countMask) }

// printRoom is how many fit into the bucket of an entry. One is read as eight bytes,
// so behind the last there are three.
func printRoom(e uint64) int { return (blockSize(e&refMask) - printHead - 3) / printBytes }

func printAt(ref uint64, i int) uint64 {
	return *(*uint64)(mem(ref + printHead + uint64(i)*printBytes)) & printMask
}

func setPrint(ref uint64, i int, v uint64) {
	p := mem(ref + printHead + uint64(i)*printBytes)
	*(*uint32)(p) = uint32(v)
	*(*uint8)(unsafe.Add(p, 4)) = uint8(v >> 32)
}

func printsAt(ref uint64, from, to int) []byte {
	return bytesAt(ref+printHead+uint64(from)*printBytes, (to-from)*printBytes)
}

func (p *prints) entry(hash uint64) uint64 { return p.dir[hash>>(64-p.depth)] }

// setEntry lets all directory entries of the bucket of that hash, as deep as e says,
// be e.
func (p *prints) setEntry(hash, e uint64) {
	span := 1 << (p.depth - uint8(e>>printDepth))
	first := int(hash>>(64-p.depth)) &^ (span - 1)
	for i := range span {
		p.dir[first+i] = e
	}
}

// seekPrint returns the place of a hash's print in the bucket of e, and whether it is
// there.
func seekPrint(e, hash uint64) (i int, found bool) {
	n, ref := printCount(e), e&refMask
	if n == 0 {
		return 0, false
	}
	v := hash >> printDrop & printMask
	i = int(hash << (e >> printDepth) >> 32 * uint64(n) >> 32)
	for i > 0 && printAt(ref, i-1) >= v {
		i--
	}
	for i < n && printAt(ref, i) < v {
		i++
	}
	return i, i < n && printAt(ref, i) == v
}

// Prints is the number of fingerprints.
func (s *Space) Prints() int { return s.prints.n }

// Imprinted reports whether there is the fingerprint of a hash.
func (s *Space) Imprinted(hash uint64) bool {
	if s.prints.n == 0 {
		return false
	}
	_, found := seekPrint(s.prints.entry(hash), hash)
	return found
}

// Imprint adds the fingerprint of a hash. It reports false, and nothing has been
// changed, if there is one like it, or no memory.
func (s *Space) Imprint(hash uint64) bool {
	p := &s.prints
	if p.dir == nil {
		p.depth = printTop
		p.dir = make([]uint64, 1<<p.depth)
		for i := range p.dir {
			p.dir[i] = uint64(p.depth) << printDepth
		}
	}
	for {
		e := p.entry(hash)
		i, found := seekPrint(e, hash)
		if found {
			return false
		}
		n := printCount(e)
		if n == mostPrints {
			if !s.splitPrints(e, hash) {
				return false
			}
			continue
		}
		if e&refMask == 0 || n == printRoom(e) {
			to, ok := s.newBucket(uint8(e>>printDepth), hash, n+1)
			if !ok {
				s.endPrints()
				return false
			}
			if n > 0 {
				copy(printsAt(to&refMask, 0, n), printsAt(e&refMask, 0, n))
				s.freeBucket(e)
			}
			e = to + uint64(n)<<countShift
		}
		ref := e & refMask
		copy(printsAt(ref, i+1, n+1), printsAt(ref, i, n))
		setPrint(ref, i, hash>>printDrop)
		p.setEntry(hash, e+1<<countShift)
		p.n++
		return true
	}
}

// Erase takes the fingerprint of a hash away, and reports whether there was one.
func (s *Space) Erase(hash uint64) bool {
	p := &s.prints
	if p.n == 0 {
		return false
	}
	e := p.entry(hash)
	i, found := seekPrint(e, hash)
	if !found {
		return false
	}
	n, ref := printCount(e), e&refMask
	copy(printsAt(ref, i, n-1), printsAt(ref, i+1, n))
	e -= 1 << countShift
	n--
	p.n--
	if n == 0 {
		s.freeBucket(e)
		e &^= refMask
	} else if room := printRoom(e); room > 8 && n < room/2 {
		if to, ok := s.newBucket(uint8(e>>printDepth), hash, n); ok {
			copy(printsAt(to&refMask, 0, n), printsAt(ref, 0, n))
			s.freeBucket(e)
			e = to + uint64(n)<<countShift
		}
	}
	p.setEntry(hash, e)
	s.joinPrints(e, hash)
	s.endPrints()
	return true
}

// endPrints lets the directory go when nothing is in it.
func (s *Space) endPrints() {
	if s.prints.n == 0 {
		s.prints = prints{}
	}
}

// newBucket makes a bucket for n prints, and some more, and returns its entry, with
// none in it.
func (s *Space) newBucket(depth uint8, hash uint64, n int) (e uint64, ok bool) {
	n = min(n+n/8+3, mostPrints)
	size := roundUp(printHead + n*printBytes + 3)
	s.patient = true
	addr, small, err := s.alloc(size)
	s.patient = false
	if err != nil {
		return 0, false
	}
	*word(addr) = kindPrints<<kindShift | small | hash>>printDrop
	*word(addr + 8) = uint64(size/8) << 53
	s.prints.bytes += int64(size)
	return uint64(depth)<<printDepth | addr, true
}

func (s *Space) freeBucket(e uint64) {
	if ref := e & refMask; ref != 0 {
		size := blockSize(ref)
		s.prints.bytes -= int64(size)
		s.dealloc(ref, size)
	}
}

// splitPrints puts two buckets in the place of e, that of hash. It reports false,
// having done nothing, if there is no memory, or if that would need too large a
// directory, as it never does where hashes are spread evenly.
func (s *Space) splitPrints(e, hash uint64) bool {
	p := &s.prints
	depth := uint8(e >> printDepth)
	if depth == p.depth && (depth >= maxDepth || len(p.dir) > 1<<printTop+p.n/32) {
		return false
	}
	bit := uint64(1) << (63 - depth)
	n, ref := printCount(e), e&refMask
	at := n / 2
	for at > 0 && printAt(ref, at-1)<<printDrop&bit != 0 {
		at--
	}
	for at < n && printAt(ref, at)<<printDrop&bit == 0 {
		at++
	}
	halves := [2]struct {
		hash     uint64
		from, to int
		entry    uint64
	}{{hash: hash &^ bit, from: 0, to: at}, {hash: hash | bit, from: at, to: n}}
	for i := range halves {
		h := &halves[i]
		h.entry = uint64(depth+1) << printDepth
		if h.from == h.to {
			continue
		}
		to, ok := s.newBucket(depth+1, h.hash, h.to-h.from)
		if !ok {
			s.freeBucket(halves[0].entry)
			return false
		}
		copy(printsAt(to&refMask, 0, h.to-h.from), printsAt(ref, h.from, h.to))
		h.entry = to + uint64(h.to-h.from)<<countShift
	}
	if depth == p.depth {
		dir := make([]uint64, 2*len(p.dir))
		for i, e := range p.dir {
			dir[2*i], dir[2*i+1] = e, e
		}
		p.dir = dir
		p.depth++
	}
	for _, h := range halves {
		p.setEntry(h.hash, h.entry)
	}
	s.freeBucket(e)
	return true
}

// joinPrints puts the bucket of that hash and the one that it was once split from
// together, while both have few. The directory stays as it is until it is empty.
func (s *Space) joinPrints(e, hash uint64) {
	p := &s.prints
	for {
		depth := uint8(e >> printDepth)
		if depth == printTop {
			return
		}
		bit := uint64(1) << (64 - depth)
		lower, upper := p.entry(hash&^bit), p.entry(hash|bit)
		n, m := printCount(lower), printCount(upper)
		if uint8(lower>>printDepth) != depth || uint8(upper>>printDepth) != depth || n+m > joinPrints {
			return
		}
		e = uint64(depth-1) << printDepth
		if n+m > 0 {
			to, ok := s.newBucket(depth-1, hash, n+m)
			if !ok {
				return
			}
			if n > 0 {
				copy(printsAt(to&refMask, 0, n), printsAt(lower&refMask, 0, n))
			}
			if m > 0 {
				copy(printsAt(to&refMask, n, n+m), printsAt(upper&refMask, 0, m))
			}
			e = to + uint64(n+m)<<countShift
		}
		s.freeBucket(lower)
		s.freeBucket(upper)
		p.setEntry(hash, e)
	}
}

// EachPrint calls fn for the fingerprints in their order, from that of a hash on,
// until it returns false. One is given as a hash whose other bits are zero. fn must
// not change any.
func (s *Space) EachPrint(from uint64, fn func(hash uint64) bool) {
	p := &s.prints
	if p.n == 0 {
		return
	}
	i, first := int(from>>(64-p.depth)), true
	for i < len(p.dir) {
		e := p.dir[i]
		at := 0
		if first {
			at, _ = seekPrint(e, from)
			first = false
		}
		top := uint64(i) >> (p.depth - printTop) << (64 - printTop)
		for n := printCount(e); at < n; at++ {
			if !fn(top | printAt(e&refMask, at)<<printDrop) {
				return
			}
		}
		span := 1 << (p.depth - uint8(e>>printDepth))
		i = i&^(span-1) + span
	}
}

// RandomPrint is a fingerprint, each as likely as any other. ok is false if there is
// none.
func (s *Space) RandomPrint(rng value.Rand) (hash uint64, ok bool) {
	p := &s.prints
	if p.n == 0 {
		return 0, false
	}
	for range 256 {
		r := rng.Uint64()
		i := int(r >> 32 & (1<<p.depth - 1))
		e := p.dir[i]
		if i&(1<<(p.depth-uint8(e>>printDepth))-1) != 0 {
			continue // so that each bucket has one entry that counts
		}
		if at := int(uint64(uint32(r)) * mostPrints >> 32); at < printCount(e) {
			return uint64(i)>>(p.depth-printTop)<<(64-printTop) | printAt(e&refMask, at)<<printDrop, true
		}
	}
	for from := rng.Uint64(); ; from = 0 {
		s.EachPrint(from, func(h uint64) bool { hash, ok = h, true; return false })
		if ok {
			return hash, true
		}
	}
}

// movedPrints says that a bucket is elsewhere now.
func (s *Space) movedPrints(w0, to uint64) {
	hash := w0 << printDrop
	s.prints.setEntry(hash, s.prints.entry(hash)&^refMask|to)
}
