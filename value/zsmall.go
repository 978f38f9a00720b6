package value

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
)

// The elements of a small sorted set are in order, which lets a score be told
// by how much it is greater than the one before. Each begins with a byte that
// has the length of the member and says how its score is told:
//
//	| class (2 bits) | length (6 bits) | further length | score | member |
//
//	further length  one byte, what is beyond 63, if the length bits are all ones
//	class 0         the base itself; no bytes
//	class 1         the base and one; no bytes
//	class 2         the base and two and this byte
//	class 3         a uvarint: 0, and then the eight bytes of any score, or one
//	                more than the difference to the base, zigzag
//
// The base is the score of the element before if that is an integer, and 0
// before the first element and behind any other score. Integers here are those
// of at most 53 bits, which floating point has exactly, without -0. A score is
// told in the shortest way, so equal sorted sets are equal bytes.
const (
	classShift = 6
	lengthMask = 1<<classShift - 1

	scoreSame = 0
	scoreNext = 1
	scoreNear = 2
	scoreFar  = 3

	maxExact = 1 << 53
)

// scoredAt is an element of a small sorted set and where it is. read fills
// what is below base.
type scoredAt struct {
	off  int
	base int64

	score float64
	after int64 // base of the next element
	begin int   // of the member
	end   int
}

// follow goes to the element after e.
func (e *scoredAt) follow() { e.off, e.base = e.end, e.after }

func (p packed) member(e *scoredAt) []byte { return p[e.begin:e.end:e.end] }

// step takes apart what comes before the member of the element at off, which
// is in one of the first three classes; if it is far it is for far to read on.
// It has no branch on the class: those of neighbours differ too often to be
// guessed.
func (p packed) step(off int, base int64) (begin, n int, after int64, far bool) {
	head := int(p[off])
	n = head & lengthMask
	off += head >> (classShift + 1) // the last byte before the member
	if n == lengthMask {
		n += int(p[off+1-head>>(classShift+1)])
		off++
	}
	after = base + int64(head>>classShift+int(p[off])&-(head>>(classShift+1)))
	return off + 1, n, after, head>>classShift == scoreFar
}

// read reads the element at e.off.
func (e *scoredAt) read(p packed) {
	begin, n, after, far := p.step(e.off, e.base)
	if far {
		exact := false
		if begin, after, exact = p.far(begin-1, e.base); !exact {
			e.begin, e.end, e.after = begin, begin+n, 0
			e.score = getScore(p[begin-scoreSize:])
			return
		}
	}
	e.begin, e.end, e.after = begin, begin+n, after
	e.score = float64(after)
}

// far reads a score of class 3 at begin, which it moves behind it. If it isn't
// exact it is the eight bytes before that.
func (p packed) far(begin int, base int64) (_ int, after int64, exact bool) {
	far, width := p.uvarint(begin)
	begin += width
	if far == 0 {
		return begin + scoreSize, 0, false
	}
	far--
	return begin, base + (int64(far>>1) ^ -int64(far&1)), true
}

// uvarint reads the number at off, all its bytes at once if there are eight to
// read and it is in them.
func (p packed) uvarint(off int) (v uint64, width int) {
	const last = 0x8080808080808080 // the bit that isn't set in the last byte
	if off+8 <= len(p) {
		v = load64(p[off:])
		if end := ^v & last; end != 0 {
			v &= end ^ (end - 1) // the last byte and those before
			v &^= last
			v = v&0x007f007f007f007f | v>>1&0x3f803f803f803f80
			v = v&0x00003fff00003fff | v>>2&0x0fffc0000fffc000
			v = v&0x000000000fffffff | v>>4&0x00fffffff0000000
			return v, (bits.TrailingZeros64(end) + 1) / 8
		}
	}
	return binary.Uvarint(p[off:])
}

// exact returns the integer that a score is, if it is one of at most 53 bits
// and not -0.
func exact(score float64) (v int64, ok bool) {
	if !(score >= -maxExact && score <= maxExact) {
		return 0, false
	}
	v = int64(score)
	return v, float64(v) == score && (v != 0 || !math.Signbit(score))
}

// scoredHead is all of an element but the member.
type scoredHead struct {
	room [2 + 1 + 8]byte // a difference takes 8 bytes at most
	n    int
}

func (h *scoredHead) bytes() []byte { return h.room[:h.n] }

// set makes h the head of an element, and returns the base of the next one.
func (h *scoredHead) set(base int64, score float64, length int) (after int64) {
	h.room[0], h.n = byte(length), 1
	if length >= lengthMask {
		h.room[0], h.room[1], h.n = lengthMask, byte(length-lengthMask), 2
	}
	v, ok := exact(score)
	if !ok {
		h.room[0] |= scoreFar << classShift
		h.room[h.n] = 0
		binary.LittleEndian.PutUint64(h.room[h.n+1:], math.Float64bits(score))
		h.n += 1 + scoreSize
		return 0
	}
	switch d := v - base; {
	case d == 0:
	case d == 1:
		h.room[0] |= scoreNext << classShift
	case d >= 2 && d < 2+256:
		h.room[0] |= scoreNear << classShift
		h.room[h.n] = byte(d - 2)
		h.n++
	default:
		h.room[0] |= scoreFar << classShift
		h.n += binary.PutUvarint(h.room[h.n:], (uint64(d)<<1^uint64(d>>63))+1)
	}
	return v
}

// scoredPlace is where an element of a small sorted set is, or would be.
type scoredPlace struct {
	off  int
	base int64
}

// firstScored is where the first element is.
var firstScored = scoredPlace{off: headSize}

// element reads the element there, if there is one.
func (p packed) element(at scoredPlace) (e scoredAt) {
	e.off, e.base = at.off, at.base
	if e.off < len(p) {
		e.read(p)
	}
	return e
}

// findScored finds member, from at on, whose rank it takes for 0. It returns
// the rank, too.
func (p packed) findScored(member []byte, at scoredPlace) (rank int, _ scoredPlace, ok bool) {
	for at.off < len(p) {
		begin, n, after, far := p.step(at.off, at.base)
		if far {
			begin, after, _ = p.far(begin-1, at.base)
		}
		if n == len(member) && same(p[begin:begin+n], member) {
			return rank, at, true
		}
		at.off, at.base = begin+n, after
		rank++
	}
	return rank, at, false
}

// scoredByRank finds the element of a rank.
func (p packed) scoredByRank(rank int) (at scoredPlace) {
	at = firstScored
	for range rank {
		begin, n, after, far := p.step(at.off, at.base)
		if far {
			begin, after, _ = p.far(begin-1, at.base)
		}
		at.off, at.base = begin+n, after
	}
	return at
}

// placeScored finds member, and the first element that it would come before
// with that score: at is where it is to be put. It goes no further than it
// has to.
func (p packed) placeScored(member []byte, score float64) (e, at scoredPlace, found bool) {
	for at = firstScored; at.off < len(p); {
		begin, n, after, far := p.step(at.off, at.base)
		s := float64(after)
		if far {
			exact := false
			if begin, after, exact = p.far(begin-1, at.base); exact {
				s = float64(after)
			} else {
				s = getScore(p[begin-scoreSize:])
			}
		}
		if n == len(member) && same(p[begin:begin+n], member) {
			e = at
			if s < score {
				_, at = p.seekScored(scoredPlace{begin + n, after}, score, tieByMember, member)
			}
			return e, at, true
		}
		if s >= score && (s > score || bytes.Compare(p[begin:begin+n], member) > 0) {
			_, e, found = p.findScored(member, at)
			return e, at, found
		}
		at.off, at.base = begin+n, after
	}
	return at, at, false
}

// Which elements of the score of a bound are before it.
type tie uint8

const (
	tieNone tie = iota
	tieAll
	tieByMember // those whose bytes are
)

// seekScored returns how many elements, from at on, come before a bound, and
// where the first is that doesn't.
func (p packed) seekScored(at scoredPlace, score float64, ties tie, member []byte) (rank int, _ scoredPlace) {
	for at.off < len(p) {
		begin, n, after, far := p.step(at.off, at.base)
		s := float64(after)
		if far {
			exact := false
			if begin, after, exact = p.far(begin-1, at.base); exact {
				s = float64(after)
			} else {
				s = getScore(p[begin-scoreSize:])
			}
		}
		if s >= score {
			if s > score || ties == tieNone || ties == tieByMember && bytes.Compare(p[begin:begin+n], member) >= 0 {
				break
			}
		}
		at.off, at.base = begin+n, after
		rank++
	}
	return rank, at
}

// insertScored puts a member in before the element at, which it gives a new
// head.
func (s *small) insertScored(at scoredPlace, member []byte, score float64) {
	var head, next scoredHead
	after := head.set(at.base, score, len(member))
	off, end := at.off, at.off
	if off < len(s.b) {
		e := s.b.element(at)
		next.set(after, e.score, e.end-e.begin)
		end = e.begin
	}
	s.open(off, end, head.n+len(member)+next.n)
	off = s.putHead(off, &head)
	off += copy(s.b[off:], member)
	s.putHead(off, &next)
	s.b[1]++
}

// moveScored gives the element e another score and, with it, the place before
// at, which may be e itself or the one behind it. What is between moves, at
// once, and the elements behind both places get new heads.
func (s *small) moveScored(e *scoredAt, at scoredPlace, score float64) {
	size := e.end - e.begin
	behind := s.b.element(scoredPlace{e.end, e.after}) // the element after e
	nextEnd := max(behind.begin, behind.off)
	var head, next scoredHead // next: the new one of the element behind
	if at.off == e.off || at.off == behind.off {
		after := head.set(e.base, score, size)
		if behind.off < len(s.b) {
			next.set(after, behind.score, behind.end-behind.begin)
		}
		s.openTwo(e.off, e.begin, head.n, behind.off, nextEnd, next.n)
		s.putHead(s.putHead(e.off, &head)+size, &next)
		return
	}
	var member [maxPackedBytes]byte
	copy(member[:], s.b[e.begin:e.end])
	if behind.off < len(s.b) {
		next.set(e.base, behind.score, behind.end-behind.begin)
	}
	var pushed scoredHead // the new one of the element at
	after := head.set(at.base, score, size)
	old := s.b.element(at)
	pushedEnd := max(old.begin, old.off)
	if at.off < len(s.b) {
		pushed.set(after, old.score, old.end-old.begin)
	}
	room := head.n + size + pushed.n
	to := at.off
	if at.off < e.off {
		s.openTwo(at.off, pushedEnd, room, e.off, nextEnd, next.n)
		s.putHead(e.off+room-(pushedEnd-at.off), &next)
	} else {
		s.openTwo(e.off, nextEnd, next.n, at.off, pushedEnd, room)
		s.putHead(e.off, &next)
		to += next.n - (nextEnd - e.off)
	}
	to = s.putHead(to, &head)
	to += copy(s.b[to:], member[:size])
	s.putHead(to, &pushed)
}

// cutScored takes out n elements, from first up to where last ends, and gives
// the one behind them a new head.
func (s *small) cutScored(first scoredPlace, last *scoredAt, n int) {
	end := last.end
	var next scoredHead
	if end < len(s.b) {
		e := s.b.element(scoredPlace{end, last.after})
		next.set(first.base, e.score, e.end-e.begin)
		end = e.begin
	}
	s.open(first.off, end, next.n)
	s.putHead(first.off, &next)
	s.b[1] -= byte(n)
}

// putHead writes a head, or none, and returns the offset behind it.
func (s *small) putHead(off int, h *scoredHead) int {
	for i, b := range h.room[:h.n] { // few
		s.b[off+i] = b
	}
	return off + h.n
}

// checkScored says what is wrong with the elements of a small sorted set, in
// bytes that anybody may have written.
func (p packed) checkScored() (wrong string) {
	if p[1] > maxPackedLen {
		return "too many packed elements"
	}
	e := scoredAt{off: headSize}
	var last []byte
	lastScore := math.Inf(-1)
	var head scoredHead
	for i := range int(p[1]) {
		if e.off >= len(p) {
			return "cut short"
		}
		if wrong = p.checkHead(e.off); wrong != "" {
			return wrong
		}
		e.read(p)
		member := p.member(&e)
		if math.IsNaN(e.score) {
			return "a score that is not a number"
		}
		head.set(e.base, e.score, len(member))
		if !bytes.Equal(head.bytes(), p[e.off:e.begin]) {
			return "a score told in a longer way"
		}
		if e.score < lastScore || i > 0 && e.score == lastScore && bytes.Compare(member, last) <= 0 {
			return "members out of order"
		}
		last, lastScore = member, e.score
		e.follow()
	}
	if e.off != len(p) {
		return "something left"
	}
	return ""
}

// checkHead says whether an element can be read without leaving the bytes.
func (p packed) checkHead(off int) (wrong string) {
	rest := p[off+1:]
	n := int(p[off] & lengthMask)
	if n == lengthMask {
		if len(rest) == 0 {
			return "cut short in a length"
		}
		n += int(rest[0])
		rest = rest[1:]
	}
	if n > maxPackedBytes {
		return "a packed member that is too long"
	}
	switch p[off] >> classShift {
	case scoreNear:
		n++
	case scoreFar:
		far, width := binary.Uvarint(rest)
		if width <= 0 || far > 4*maxExact+1 {
			return "a score that can't be read"
		}
		n += width
		if far == 0 {
			n += scoreSize
		}
	}
	if n > len(rest) {
		return "cut short"
	}
	return ""
}
