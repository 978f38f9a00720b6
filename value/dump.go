package value

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Dumps, as snapshots and effects carry them:
//
//	| version (1) | form (1) | count (uvarint) | body
//
//	form                       body
//	'h' 'H'   hash             count times field, value
//	's' 'S'   set of strings   count times member
//	'i'       set of integers  width (1), count times an integer of that width
//	'z' 'Z'   sorted set       count times member, score (8), in order
//	'l'       list             count times element
//
// Small letters are packed forms. A string is its length (uvarint) and its
// bytes; numbers are little-endian. What is packed keeps its order, what is
// hashed comes in the order of hashes. So copies that went through the same
// changes have the same dumps, whatever shape their tables have.
//
// Version 1 is the first. Whoever reads must refuse what it doesn't know.
const dumpVersion = 1

// ErrBadDump is the cause of each error of loading.
var ErrBadDump = errors.New("bad dump of a value")

func appendHeader(dst []byte, form byte, count int) []byte {
	return binary.AppendUvarint(append(dst, dumpVersion, form), uint64(count))
}

func appendString(dst, s []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// dumpReader takes a dump apart. The first error stays; whatever is read after
// it is empty.
type dumpReader struct {
	rest []byte
	err  error
}

func (r *dumpReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrBadDump}, args...)...)
	}
	r.rest = nil
}

// header returns the form and the count, of which each takes each bytes of the
// body at least.
func (r *dumpReader) header(each int) (form byte, count int) {
	if len(r.rest) < 2 {
		r.fail("no header")
		return 0, 0
	}
	version, form := r.rest[0], r.rest[1]
	if version != dumpVersion {
		r.fail("version %d", version)
		return 0, 0
	}
	r.rest = r.rest[2:]
	n := r.uvarint()
	if n > uint64(len(r.rest)/each) {
		r.fail("%d elements in %d bytes", n, len(r.rest))
		return 0, 0
	}
	return form, int(n)
}

func (r *dumpReader) uvarint() uint64 {
	v, width := binary.Uvarint(r.rest)
	if width <= 0 {
		r.fail("cut short in a length")
		return 0
	}
	r.rest = r.rest[width:]
	return v
}

func (r *dumpReader) string() []byte {
	return r.take(r.uvarint())
}

func (r *dumpReader) take(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.fail("%d bytes announced, %d left", n, len(r.rest))
		return nil
	}
	s := r.rest[:n:n]
	r.rest = r.rest[n:]
	return s
}

// small checks what a packed form may have.
func (r *dumpReader) small(strings ...[]byte) {
	for _, s := range strings {
		if len(s) > maxPackedBytes {
			r.fail("%d bytes in a packed string", len(s))
		}
	}
}

func (r *dumpReader) smallCount(count int) {
	if count > maxPackedLen {
		r.fail("%d packed elements", count)
	}
}

// end returns the error, which there also is if something is left.
func (r *dumpReader) end() error {
	if r.err == nil && len(r.rest) > 0 {
		r.fail("%d bytes too many", len(r.rest))
	}
	return r.err
}

// AppendDump appends the hash as LoadHash reads it.
func (h *Hash) AppendDump(dst []byte) []byte {
	if h.big == nil {
		return append(appendHeader(dst, 'h', h.Len()), h.small...)
	}
	dst = appendHeader(dst, 'H', h.Len())
	h.big.table.InOrder(func(c *cell) {
		dst = appendString(appendString(dst, c.key()), c.value())
	})
	return dst
}

// LoadHash makes a hash of a dump, whose scans are ordered under that seed.
func LoadHash(seed uint64, dump []byte) (*Hash, error) {
	r := dumpReader{rest: dump}
	form, count := r.header(2)
	h := NewHash(seed)
	switch form {
	case 'h':
		r.smallCount(count)
	case 'H':
		h.big = newCells(seed)
	default:
		r.fail("form %q of a hash", form)
	}
	for i := 0; i < count && r.err == nil; i++ {
		field, val := r.string(), r.string()
		if form == 'h' {
			r.small(field, val)
		}
		if r.err == nil && !h.Set(field, val) {
			r.fail("a field twice")
		}
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return h, nil
}

// AppendDump appends the set as LoadSet reads it.
func (s *Set) AppendDump(dst []byte) []byte {
	switch {
	case s.IsIntset():
		return append(append(appendHeader(dst, 'i', s.Len()), s.width), s.data...)
	case s.big == nil:
		return append(appendHeader(dst, 's', s.Len()), s.data...)
	}
	dst = appendHeader(dst, 'S', s.Len())
	s.big.table.InOrder(func(c *cell) { dst = appendString(dst, c.key()) })
	return dst
}

// LoadSet makes a set of a dump, whose scans are ordered under that seed.
func LoadSet(seed uint64, dump []byte) (*Set, error) {
	r := dumpReader{rest: dump}
	form, count := r.header(1)
	s := NewSet(seed)
	s.width = 0
	switch form {
	case 'i':
		r.loadInts(s, count)
		count = 0
	case 's':
		r.smallCount(count)
	case 'S':
		s.big = newCells(seed)
	default:
		r.fail("form %q of a set", form)
	}
	for i := 0; i < count && r.err == nil; i++ {
		member := r.string()
		if form == 's' {
			r.small(member)
		}
		if r.err == nil && !s.Add(member) {
			r.fail("a member twice")
		}
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return s, nil
}

func (r *dumpReader) loadInts(s *Set, count int) {
	width := r.take(1)
	if r.err != nil || width[0] != 2 && width[0] != 4 && width[0] != 8 || count > maxIntsLen {
		r.fail("%d integers of width %d", count, width)
		return
	}
	data := r.take(uint64(count) * uint64(width[0]))
	ints := intset{append([]byte(nil), data...), width[0]}
	for i := 1; i < ints.len(); i++ {
		if ints.at(i-1) >= ints.at(i) {
			r.fail("integers out of order")
		}
	}
	s.setInts(ints)
}

// AppendDump appends the sorted set as LoadZSet reads it.
func (z *ZSet) AppendDump(dst []byte) []byte {
	if z.big == nil {
		return append(appendHeader(dst, 'z', z.Len()), z.small...)
	}
	dst = appendHeader(dst, 'Z', z.Len())
	for member, score := range z.All() {
		dst = appendString(dst, member)
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(score))
	}
	return dst
}

// LoadZSet makes a sorted set of a dump, whose scans are ordered under that
// seed.
func LoadZSet(seed uint64, dump []byte) (*ZSet, error) {
	r := dumpReader{rest: dump}
	form, count := r.header(1 + scoreSize)
	z := NewZSet(seed)
	switch form {
	case 'z':
		r.smallCount(count)
	case 'Z':
		z.big = newBigZSet(seed)
	default:
		r.fail("form %q of a sorted set", form)
	}
	var last []byte
	lastScore := math.Inf(-1)
	for i := 0; i < count && r.err == nil; i++ {
		member, bits := r.string(), r.take(scoreSize)
		if form == 'z' {
			r.small(member)
		}
		if r.err != nil {
			break
		}
		score := getScore(bits)
		if math.IsNaN(score) {
			r.fail("a score that is not a number")
			break
		}
		if score < lastScore || i > 0 && score == lastScore && bytes.Compare(member, last) <= 0 {
			r.fail("members out of order")
		} else if added, _ := z.Set(member, score); !added {
			r.fail("a member twice")
		}
		last, lastScore = member, score
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return z, nil
}

// AppendDump appends the list as LoadList reads it.
func (l *List) AppendDump(dst []byte) []byte {
	dst = appendHeader(dst, 'l', l.Len())
	for v := range l.All() {
		dst = appendString(dst, v)
	}
	return dst
}

// LoadList makes a list of a dump.
func LoadList(dump []byte) (*List, error) {
	r := dumpReader{rest: dump}
	form, count := r.header(1)
	if form != 'l' {
		r.fail("form %q of a list", form)
	}
	l := NewList()
	for i := 0; i < count && r.err == nil; i++ {
		if v := r.string(); r.err == nil {
			l.PushBack(v)
		}
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return l, nil
}
