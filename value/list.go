package value

import (
	"bytes"
	"iter"
	"unsafe"
)

// List is a sequence of elements, quick at both ends.
//
// While it is small its elements are packed, one after the other: an end is
// reached by walking there. A big one has them in chunks (listbig.go).
type List struct {
	small small
	big   *bigList // nil while small
}

// NewList makes an empty list.
func NewList() *List { return &List{} }

// Borrow sets l around the bytes of a small list, or around none, to be an
// empty one. It changes them in place as far as their capacity goes, and goes
// on in the scratch if that isn't enough.
func (l *List) Borrow(blob []byte, scratch *Scratch) {
	l.small.borrow(blob, scratch)
	l.big = nil
}

// Small is the bytes of a small list, and whether they are other ones than it
// was borrowed around. ok is false if it has become big.
func (l *List) Small() (blob []byte, moved, ok bool) {
	return l.small.b, l.small.moved, l.big == nil
}

// Big moves a big list, which l no longer is then, into one of its own.
func (l *List) Big() *List {
	big := &List{big: l.big}
	*l = List{}
	return big
}

// Len is the number of elements.
func (l *List) Len() int {
	if l.big != nil {
		return l.big.n
	}
	return l.small.count()
}

// Encoding is the name that both forms of a list have in Redis 7.0.
func (l *List) Encoding() string { return encodingList }

// Size is the memory that the list takes, in bytes.
func (l *List) Size() int {
	size := int(unsafe.Sizeof(*l)) + cap(l.small.b)
	if l.big != nil {
		size += l.big.size()
	}
	return size
}

// PushBack appends v. It may be what was just popped from this list, as when
// a list is rotated.
func (l *List) PushBack(v []byte) {
	if l.room(len(v), 1) {
		l.small.begin(formList, 0, packedSize(len(v)))
		l.insertSmall(len(l.small.b), v)
		return
	}
	l.big.add(v)
}

// PushFront puts v before all others. It may be what was just popped.
func (l *List) PushFront(v []byte) {
	if l.room(len(v), 1) {
		l.small.begin(formList, 0, packedSize(len(v)))
		l.insertSmall(headSize, v)
		return
	}
	l.big.prepend(v)
}

// PopBack removes the last element and returns it.
func (l *List) PopBack() ([]byte, bool) {
	if l.big != nil {
		v := l.big.popBack()
		l.settle()
		return v, true
	}
	n := l.small.count()
	if n == 0 {
		return nil, false
	}
	off := l.locateSmall(n - 1)
	v, _ := l.small.b.at(off) // stays there until the next change
	l.small.b = l.small.b[:off]
	l.small.b[1]--
	return v, true
}

// PopFront removes the first element and returns it.
func (l *List) PopFront() ([]byte, bool) {
	if l.big != nil {
		v := l.big.popFront()
		l.settle()
		return v, true
	}
	if l.small.count() == 0 {
		return nil, false
	}
	// The others move to the front, the element to behind them.
	var room [maxPackedBytes]byte
	v, next := l.small.b.at(headSize)
	v = append(room[:0], v...)
	l.small.open(headSize, next, 0)
	l.small.b[1]--
	end := len(l.small.b)
	return append(l.small.b[end:end:end+len(v)], v...), true
}

// Drop removes count elements, which are there, from an end.
func (l *List) Drop(count int, fromBack bool) {
	first, last := count, l.Len()-1
	if fromBack {
		first, last = 0, last-count
	}
	l.TrimTo(first, last)
}

// Index returns element i, or false if there is none.
func (l *List) Index(i int) ([]byte, bool) {
	if i < 0 || i >= l.Len() {
		return nil, false
	}
	if l.big != nil {
		return l.big.index(i), true
	}
	v, _ := l.small.b.at(l.locateSmall(i))
	return v, true
}

// SetAt replaces element i, which is in [0, Len).
func (l *List) SetAt(i int, v []byte) {
	if !l.room(len(v), 0) {
		l.big.setAt(i, v)
		return
	}
	off := l.locateSmall(i)
	old, end := l.small.b.at(off)
	if len(old) == len(v) {
		copy(old, v)
		return
	}
	l.small.open(off, end, packedSize(len(v)))
	l.small.put(off, v)
}

// InsertAt puts v before element i, or behind all others if i is Len.
func (l *List) InsertAt(i int, v []byte) {
	if l.room(len(v), 1) {
		l.small.begin(formList, 0, packedSize(len(v)))
		l.insertSmall(l.locateSmall(i), v)
		return
	}
	l.big.insertAt(i, v)
}

// RemoveAt removes element i, which is in [0, Len).
func (l *List) RemoveAt(i int) {
	if l.big != nil {
		l.big.removeAt(i)
		l.settle()
		return
	}
	off := l.locateSmall(i)
	l.small.open(off, l.small.b.skip(off, 1), 0)
	l.small.b[1]--
}

// Range calls fn for the elements from start on until it returns false.
func (l *List) Range(start int, fn func(v []byte) bool) {
	start = max(start, 0)
	if start >= l.Len() {
		return
	}
	if l.big != nil {
		l.big.walk(start, fn)
		return
	}
	for off := l.locateSmall(start); off < len(l.small.b); {
		var v []byte
		if v, off = l.small.b.at(off); !fn(v) {
			return
		}
	}
}

// RangeBack calls fn for element start and those before it, backwards, until
// it returns false.
func (l *List) RangeBack(start int, fn func(v []byte) bool) {
	start = min(start, l.Len()-1)
	if start < 0 {
		return
	}
	if l.big != nil {
		l.big.walkBack(start, fn)
		return
	}
	var offs [maxListLen]uint16
	off := headSize
	for i := range start + 1 {
		offs[i] = uint16(off)
		off = l.small.b.skip(off, 1)
	}
	for i := start; i >= 0; i-- {
		if v, _ := l.small.b.at(int(offs[i])); !fn(v) {
			return
		}
	}
}

// All gives the elements in order.
func (l *List) All() iter.Seq[[]byte] {
	return func(yield func(v []byte) bool) { l.Range(0, yield) }
}

// TrimTo keeps the elements from start up to and including stop, and removes
// all others.
func (l *List) TrimTo(start, stop int) {
	start, stop = max(start, 0), min(stop, l.Len()-1)
	if l.big != nil {
		if start > stop {
			l.big = nil
			return
		}
		l.big.trimTo(start, stop)
		return
	}
	if l.small.count() == 0 {
		return
	}
	if start > stop {
		l.small.b = l.small.b[:headSize]
		l.small.b[1] = 0
		return
	}
	off := l.locateSmall(start)
	l.small.b = l.small.b[:l.small.b.skip(off, stop-start+1)]
	l.small.open(headSize, off, 0)
	l.small.b[1] = byte(stop - start + 1)
}

// RemoveValue removes elements equal to v: the first count of them, or the
// last -count, or all if count is 0. It returns how many it removed.
func (l *List) RemoveValue(v []byte, count int) (removed int) {
	limit, fromBack := count, false
	if count == 0 {
		limit = l.Len()
	} else if count < 0 {
		limit, fromBack = -count, true
	}
	if l.big != nil {
		removed = l.big.removeValue(v, limit, fromBack)
		l.settle()
		return removed
	}
	skip := 0 // so many of those that are equal stay
	if fromBack {
		for w := range l.All() {
			if bytes.Equal(w, v) {
				skip++
			}
		}
		skip = max(0, skip-limit)
	}
	b := l.small.b
	to := headSize
	for off := headSize; off < len(b); {
		got, end := b.at(off)
		if removed < limit && bytes.Equal(got, v) {
			if skip--; skip < 0 {
				removed++
				off = end
				continue
			}
		}
		to += copy(b[to:], b[off:end])
		off = end
	}
	if removed > 0 {
		l.small.b = b[:to]
		b[1] -= byte(removed)
	}
	return removed
}

// locateSmall returns the offset of element i of a small list, or the end.
//
// Walking there waits for each length before it can read the next. Elements
// are often equally long, though, and then the length of the whole says so:
// that is where they would be, and whether they are is seen without waiting.
func (l *List) locateSmall(i int) int {
	b := l.small.b
	if len(b) == headSize {
		return headSize
	}
	each := 1 + int(b[headSize])
	if each > 0x80 || headSize+int(b[1])*each != len(b) {
		return b.skip(headSize, i)
	}
	end := headSize + i*each
	for off := headSize; off < end; off += each {
		if int(b[off]) != each-1 {
			return b.skip(headSize, i)
		}
	}
	return end
}

// insertSmall puts v in at an offset.
func (l *List) insertSmall(off int, v []byte) {
	if overlap(l.small.b[:cap(l.small.b)], v) {
		l.insertOwn(off, v)
		return
	}
	l.small.open(off, off, packedSize(len(v)))
	l.small.put(off, v)
	l.small.b[1]++
}

// insertOwn is insertSmall for what lies in the list's own bytes: what moves
// would move it.
func (l *List) insertOwn(off int, v []byte) {
	var room [maxPackedBytes]byte
	l.insertSmall(off, append(room[:0], v...))
}

// room says whether the list is small and stays so with that many more
// elements, and bytes in them. If it doesn't, it is big from now on.
func (l *List) room(size, more int) bool {
	if l.big != nil {
		return false
	}
	if l.small.count()+more <= maxListLen && len(l.small.b)+packedSize(size) <= maxListBytes {
		return true
	}
	l.grow()
	return false
}

// settle makes a big list that is empty a small one.
func (l *List) settle() {
	if l.big.n == 0 {
		l.big = nil
	}
}

// grow changes the list to its big form.
func (l *List) grow() {
	big := &bigList{}
	for v := range l.All() {
		big.add(v)
	}
	l.small, l.big = small{}, big
}
