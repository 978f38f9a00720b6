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
//	| version (1) | form (1) | count or width (1) | body        small forms: behind the version, their own bytes (small.go)
//	| version (1) | form (1) | count (uvarint)    | body        big forms
//
//	form                       body
//	'H'   hash                 count times field, value
//	'S'   set of strings       count times member
//	'Z'   sorted set           count times member, score (8), in order
//	'L'   list                 count times element
//
// A string is its length (uvarint) and its bytes; numbers are little-endian.
// What is packed keeps its order, what is hashed comes in the order of hashes.
// So copies that went through the same changes have the same dumps, whatever
// shape their tables have.
//
// Version 2 is written. Version 1, which is read as well, had a count (uvarint)
// in front of every body; the width of 'i' was the first byte of its body;
// elements of 'z' were as those of 'Z'; and 'l' was any list. Whoever reads
// must refuse what it doesn't know.
const (
	dumpVersion = 2
	oldVersion  = 1
)

const (
	formBigHash = 'H'
	formBigSet  = 'S'
	formBigZSet = 'Z'
	formBigList = 'L'
)

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

// small returns a small form if the dump is one of version 2, and in one piece.
func (r *dumpReader) small() packed {
	b := packed(r.rest)
	if len(b) < 1+headSize || b[0] != dumpVersion {
		return nil
	}
	b = b[1:len(b):len(b)]
	wrong := ""
	switch b[0] {
	case formHash:
		wrong = b.checkStrings(2)
	case formStrings:
		wrong = b.checkStrings(1)
	case formInts:
		wrong = b.checkInts()
	case formZSet:
		if wrong = b.checkScored(); wrong == "" {
			wrong = b.checkDistinct()
		}
	case formList:
		wrong = b.checkList()
	default:
		return nil
	}
	if wrong != "" {
		r.fail("%s", wrong)
	}
	return b
}

// header returns the version, the form and the count, of which each takes each
// bytes of the body at least.
func (r *dumpReader) header(each int) (version, form byte, count int) {
	if len(r.rest) < 2 {
		r.fail("no header")
		return 0, 0, 0
	}
	version, form = r.rest[0], r.rest[1]
	if version != dumpVersion && version != oldVersion {
		r.fail("version %d", version)
		return 0, 0, 0
	}
	r.rest = r.rest[2:]
	n := r.uvarint()
	if n > uint64(len(r.rest)/each) {
		r.fail("%d elements in %d bytes", n, len(r.rest))
		return 0, 0, 0
	}
	return version, form, int(n)
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

// end fails if something is left.
func (r *dumpReader) end() {
	if r.err == nil && len(r.rest) > 0 {
		r.fail("%d bytes too many", len(r.rest))
	}
}

// appendDump appends a small collection; none at all is an empty one.
func (s *small) appendDump(dst []byte, form, second byte) []byte {
	dst = append(dst, dumpVersion)
	if len(s.b) == 0 {
		return append(dst, form, second)
	}
	return append(dst, s.b...)
}

// AppendDump appends the hash as LoadHash reads it.
func (h *Hash) AppendDump(dst []byte) []byte {
	if h.big == nil {
		return h.small.appendDump(dst, formHash, 0)
	}
	dst = appendHeader(dst, formBigHash, h.Len())
	h.big.table.InOrder(func(c *cell) {
		dst = appendString(appendString(dst, c.key()), c.value())
	})
	return dst
}

// LoadHash makes a hash of a dump, whose scans are ordered under that seed.
func LoadHash(seed uint64, dump []byte) (*Hash, error) {
	h := new(Hash)
	if err := h.Load(seed, dump, nil); err != nil {
		return nil, err
	}
	h.small.own()
	return h, nil
}

// Load makes h what a dump says, as if it had been borrowed and changed: then
// Small gives the bytes to keep, or Big the hash. A small one lies in the dump
// itself, which must not change until then. After an error h is empty.
func (h *Hash) Load(seed uint64, dump []byte, scratch *Scratch) error {
	h.Borrow(seed, nil, scratch)
	h.small.moved = true
	r := dumpReader{rest: dump}
	if b := r.small(); b != nil {
		if b[0] != formHash {
			r.fail("form %q of a hash", b[0])
		}
		h.small.b = b
	} else {
		h.load(&r)
	}
	if r.err != nil {
		*h = Hash{seed: seed}
	}
	return r.err
}

func (h *Hash) load(r *dumpReader) {
	version, form, count := r.header(2)
	if form == formBigHash {
		h.big = newCells(h.seed)
	} else if form != formHash || version != oldVersion {
		r.fail("form %q of a hash", form)
	}
	for i := 0; i < count && r.err == nil; i++ {
		field, val := r.string(), r.string()
		if r.err == nil && !h.Set(field, val) {
			r.fail("a field twice")
		}
	}
	r.stayedSmall(form == formHash, h.big == nil)
	r.end()
}

// stayedSmall fails if what was dumped as small isn't.
func (r *dumpReader) stayedSmall(was, is bool) {
	if was && !is {
		r.fail("a packed form with more than fits in one")
	}
}

// AppendDump appends the set as LoadSet reads it.
func (s *Set) AppendDump(dst []byte) []byte {
	if s.big == nil {
		return s.small.appendDump(dst, formInts, 2)
	}
	dst = appendHeader(dst, formBigSet, s.Len())
	s.big.table.InOrder(func(c *cell) { dst = appendString(dst, c.key()) })
	return dst
}

// LoadSet makes a set of a dump, whose scans are ordered under that seed.
func LoadSet(seed uint64, dump []byte) (*Set, error) {
	s := new(Set)
	if err := s.Load(seed, dump, nil); err != nil {
		return nil, err
	}
	s.small.own()
	return s, nil
}

// Load makes s what a dump says: see Hash.Load.
func (s *Set) Load(seed uint64, dump []byte, scratch *Scratch) error {
	s.Borrow(seed, nil, scratch)
	s.small.moved = true
	r := dumpReader{rest: dump}
	if b := r.small(); b != nil {
		if b[0] != formStrings && b[0] != formInts {
			r.fail("form %q of a set", b[0])
		}
		s.small.b = b
	} else {
		s.load(&r)
	}
	if r.err != nil {
		*s = Set{seed: s.seed}
	}
	return r.err
}

func (s *Set) load(r *dumpReader) {
	version, form, count := r.header(1)
	switch {
	case form == formBigSet:
		s.big = newCells(s.seed)
	case form == formInts && version == oldVersion:
		s.loadInts(r, count)
		return
	case form == formStrings && version == oldVersion:
		s.small.begin(formStrings, 0, 0)
	default:
		r.fail("form %q of a set", form)
	}
	for i := 0; i < count && r.err == nil; i++ {
		member := r.string()
		if r.err == nil && !s.Add(member) {
			r.fail("a member twice")
		}
	}
	r.stayedSmall(form == formStrings, s.big == nil)
	r.end()
}

// loadInts reads the integers of version 1.
func (s *Set) loadInts(r *dumpReader, count int) {
	width := r.take(1)
	if r.err != nil || count > maxIntsLen {
		r.fail("%d integers", count)
		return
	}
	s.small.begin(formInts, width[0], len(r.rest))
	s.small.open(headSize, headSize, len(r.rest))
	copy(s.small.b[headSize:], r.rest)
	if wrong := s.small.b.checkInts(); wrong != "" {
		r.fail("%s", wrong)
	} else if s.Len() != count {
		r.fail("%d integers announced, %d there", count, s.Len())
	}
}

// AppendDump appends the sorted set as LoadZSet reads it.
func (z *ZSet) AppendDump(dst []byte) []byte {
	if z.big == nil {
		return z.small.appendDump(dst, formZSet, 0)
	}
	dst = appendHeader(dst, formBigZSet, z.Len())
	for member, score := range z.All() {
		dst = appendString(dst, member)
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(score))
	}
	return dst
}

// LoadZSet makes a sorted set of a dump, whose scans are ordered under that
// seed.
func LoadZSet(seed uint64, dump []byte) (*ZSet, error) {
	z := new(ZSet)
	if err := z.Load(seed, dump, nil); err != nil {
		return nil, err
	}
	z.small.own()
	return z, nil
}

// Load makes z what a dump says: see Hash.Load.
func (z *ZSet) Load(seed uint64, dump []byte, scratch *Scratch) error {
	z.Borrow(seed, nil, scratch)
	z.small.moved = true
	r := dumpReader{rest: dump}
	if b := r.small(); b != nil {
		if b[0] != formZSet {
			r.fail("form %q of a sorted set", b[0])
		}
		z.small.b = b
	} else {
		z.load(&r)
	}
	if r.err != nil {
		*z = ZSet{seed: z.seed}
	}
	return r.err
}

func (z *ZSet) load(r *dumpReader) {
	version, form, count := r.header(1 + scoreSize)
	if form == formBigZSet {
		z.big = newBigZSet(z.seed)
	} else if form != formZSet || version != oldVersion {
		r.fail("form %q of a sorted set", form)
	}
	var last []byte
	lastScore := math.Inf(-1)
	for i := 0; i < count; i++ {
		member, bits := r.string(), r.take(scoreSize)
		if r.err != nil {
			return
		}
		score := getScore(bits)
		if math.IsNaN(score) {
			r.fail("a score that is not a number")
			return
		}
		if score < lastScore || i > 0 && score == lastScore && bytes.Compare(member, last) <= 0 {
			r.fail("members out of order")
		} else if added, _ := z.Set(member, score); !added {
			r.fail("a member twice")
		}
		last, lastScore = member, score
	}
	r.stayedSmall(form == formZSet, z.big == nil)
	r.end()
}

// AppendDump appends the list as LoadList reads it.
func (l *List) AppendDump(dst []byte) []byte {
	if l.big == nil {
		return l.small.appendDump(dst, formList, 0)
	}
	dst = appendHeader(dst, formBigList, l.Len())
	for v := range l.All() {
		dst = appendString(dst, v)
	}
	return dst
}

// LoadList makes a list of a dump.
func LoadList(dump []byte) (*List, error) {
	l := new(List)
	if err := l.Load(dump, nil); err != nil {
		return nil, err
	}
	l.small.own()
	return l, nil
}

// Load makes l what a dump says: see Hash.Load.
func (l *List) Load(dump []byte, scratch *Scratch) error {
	l.Borrow(nil, scratch)
	l.small.moved = true
	r := dumpReader{rest: dump}
	if b := r.small(); b != nil {
		if b[0] != formList {
			r.fail("form %q of a list", b[0])
		}
		l.small.b = b
	} else {
		l.load(&r)
	}
	if r.err != nil {
		*l = List{}
	}
	return r.err
}

func (l *List) load(r *dumpReader) {
	version, form, count := r.header(1)
	if form == formBigList && count > 0 {
		l.big = &bigList{}
	} else if form != formList || version != oldVersion {
		r.fail("form %q of a list of %d", form, count)
	}
	for i := 0; i < count && r.err == nil; i++ {
		if v := r.string(); r.err == nil {
			l.PushBack(v)
		}
	}
	r.end()
}
