package value

import (
	"bytes"
	"encoding/binary"
	"math"
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

// firstScored is where the first element is.
func firstScored() scoredAt { return scoredAt{off: headSize} }

// follow goes to the element after e.
func (e *scoredAt) follow() { e.off, e.base = e.end, e.after }

func (p packed) member(e *scoredAt) []byte { return p[e.begin:e.end:e.end] }

// read reads the element at e.off.
func (e *scoredAt) read(p packed) {
	head := p[e.off]
	n := int(head & lengthMask)
	begin := e.off + 1
	if n == lengthMask {
		n += int(p[begin])
		begin++
	}
	exact := true
	switch head >> classShift {
	case scoreSame:
		e.after = e.base
	case scoreNext:
		e.after = e.base + 1
	case scoreNear:
		e.after = e.base + 2 + int64(p[begin])
		begin++
	default:
		begin, e.after, exact = p.far(begin, e.base)
	}
	e.begin, e.end = begin, begin+n
	e.score = float64(e.after)
	if !exact {
		e.score = getScore(p[begin-scoreSize:])
	}
}

// far reads a score of class 3 at begin, which it moves behind it. If it isn't
// exact it is the eight bytes before that.
func (p packed) far(begin int, base int64) (_ int, after int64, exact bool) {
	far, width := binary.Uvarint(p[begin:])
	begin += width
	if far == 0 {
		return begin + scoreSize, 0, false
	}
	far--
	return begin, base + (int64(far>>1) ^ -int64(far&1)), true
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

// headOf makes the head of an element, and returns the base of the next one.
func headOf(base int64, score float64, length int) (h scoredHead, after int64) {
	b := h.room[:1]
	h.room[0] = byte(min(length, lengthMask))
	if length >= lengthMask {
		b = append(b, byte(length-lengthMask))
	}
	if v, ok := exact(score); ok {
		after = v
		switch d := v - base; {
		case d == 0:
		case d == 1:
			h.room[0] |= scoreNext << classShift
		case d >= 2 && d < 2+256:
			h.room[0] |= scoreNear << classShift
			b = append(b, byte(d-2))
		default:
			h.room[0] |= scoreFar << classShift
			b = binary.AppendUvarint(b, (uint64(d)<<1^uint64(d>>63))+1)
		}
	} else {
		h.room[0] |= scoreFar << classShift
		b = binary.LittleEndian.AppendUint64(append(b, 0), math.Float64bits(score))
	}
	h.n = len(b)
	return h, after
}

// findScored finds the element of rank at, or, if at is -1, member. It returns
// the rank, too.
func (p packed) findScored(member []byte, at int) (rank int, e scoredAt, ok bool) {
	// What read does, but for the score: this is where time goes.
	off, base := headSize, int64(0)
	for off < len(p) {
		head := p[off]
		n := int(head & lengthMask)
		begin := off + 1
		if n == lengthMask {
			n += int(p[begin])
			begin++
		}
		after := base
		switch head >> classShift {
		case scoreSame:
		case scoreNext:
			after++
		case scoreNear:
			after += 2 + int64(p[begin])
			begin++
		default:
			begin, after, _ = p.far(begin, base)
		}
		if rank == at || at < 0 && n == len(member) && same(p[begin:begin+n], member) {
			e = scoredAt{off: off, base: base}
			e.read(p)
			return rank, e, true
		}
		off, base = begin+n, after
		rank++
	}
	return rank, scoredAt{off: off, base: base}, false
}

// Which elements of the score of a bound are before it.
type tie uint8

const (
	tieNone tie = iota
	tieAll
	tieByMember // those whose bytes are
)

// seekScored returns how many elements come before a bound, and where the
// first is that doesn't.
func (p packed) seekScored(score float64, ties tie, member []byte) (rank int, e scoredAt) {
	for e = firstScored(); e.off < len(p); e.follow() {
		e.read(p)
		if e.score >= score {
			if e.score > score || ties == tieNone || ties == tieByMember && bytes.Compare(p[e.begin:e.end], member) >= 0 {
				break
			}
		}
		rank++
	}
	return rank, e
}

// insertScored puts a member in before the element at, which it gives a new
// head.
func (s *small) insertScored(at scoredAt, member []byte, score float64) {
	head, after := headOf(at.base, score, len(member))
	off, end := at.off, at.off
	var next scoredHead
	if off < len(s.b) {
		at.read(s.b)
		next, _ = headOf(after, at.score, at.end-at.begin)
		end = at.begin
	}
	s.open(off, end, head.n+len(member)+next.n)
	off += copy(s.b[off:], head.bytes())
	off += copy(s.b[off:], member)
	copy(s.b[off:], next.bytes())
	s.b[1]++
}

// cutScored takes out n elements, from first to last, and gives the one behind
// them a new head.
func (s *small) cutScored(first, last scoredAt, n int) {
	end := last.end
	var next scoredHead
	if end < len(s.b) {
		e := last
		e.follow()
		e.read(s.b)
		next, _ = headOf(first.base, e.score, e.end-e.begin)
		end = e.begin
	}
	s.open(first.off, end, next.n)
	copy(s.b[first.off:], next.bytes())
	s.b[1] -= byte(n)
}

// checkScored says what is wrong with the elements of a small sorted set, in
// bytes that anybody may have written.
func (p packed) checkScored() (wrong string) {
	if p[1] > maxPackedLen {
		return "too many packed elements"
	}
	e := firstScored()
	var last []byte
	lastScore := math.Inf(-1)
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
		if head, _ := headOf(e.base, e.score, len(member)); !bytes.Equal(head.bytes(), p[e.off:e.begin]) {
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
