package value

import (
	"iter"
	"unsafe"
)

// List is a sequence of elements, quick at both ends.
//
// Elements are packed into chunks of at most 128 elements and 8 KiB (one that
// is larger has a chunk to itself). An end is reached at once; an element in
// the middle by counting chunks from the nearer end, then elements. What
// changes in the middle moves the bytes of one chunk at most.
type List struct {
	all   []chunk // those before first are empty, room for chunks to come
	first int
	n     int
	bytes int // memory of the chunks' buffers
}

// NewList makes an empty list.
func NewList() *List { return &List{} }

// Len is the number of elements.
func (l *List) Len() int { return l.n }

// Encoding is the name of the form that lists have.
func (l *List) Encoding() string { return encodingList }

// Size is the memory that the list takes, in bytes.
func (l *List) Size() int {
	return int(unsafe.Sizeof(*l)) + cap(l.all)*int(unsafe.Sizeof(chunk{})) + l.bytes
}

func (l *List) chunks() []chunk { return l.all[l.first:] }

// PushBack appends v. It may be what was just popped from this list, as when
// a list is rotated.
func (l *List) PushBack(v []byte) {
	if c := l.chunks(); len(c) == 0 || !c[len(c)-1].fits(len(v)) {
		l.openChunk(len(c))
	}
	l.pushBack(len(l.chunks())-1, v)
}

// PushFront puts v before all others. It may be what was just popped.
func (l *List) PushFront(v []byte) {
	if c := l.chunks(); len(c) == 0 || !c[0].fits(len(v)) {
		l.openChunk(0)
	}
	l.pushFront(0, v)
}

// PopBack removes the last element and returns it.
func (l *List) PopBack() ([]byte, bool) {
	if l.n == 0 {
		return nil, false
	}
	last := len(l.chunks()) - 1
	c := &l.chunks()[last]
	v, begin := c.prev(c.hi)
	c.hi = begin
	c.n--
	l.n--
	if c.n == 0 {
		l.closeChunk(last)
	}
	return v, true
}

// PopFront removes the first element and returns it.
func (l *List) PopFront() ([]byte, bool) {
	if l.n == 0 {
		return nil, false
	}
	c := &l.chunks()[0]
	v, end := c.next(c.lo)
	c.lo = end
	c.n--
	l.n--
	if c.n == 0 {
		l.closeChunk(0)
	}
	return v, true
}

// Index returns element i, or false if there is none.
func (l *List) Index(i int) ([]byte, bool) {
	if i < 0 || i >= l.n {
		return nil, false
	}
	at, off := l.locate(i)
	v, _ := l.chunks()[at].next(off)
	return v, true
}

// SetAt replaces element i, which is in [0, Len).
func (l *List) SetAt(i int, v []byte) {
	at, off := l.locate(i)
	c := &l.chunks()[at]
	old, end := c.next(off)
	switch room := entrySize(len(v)); {
	case len(old) == len(v):
		copy(old, v)
	case c.n == 1 || c.hi-c.lo-(end-off)+room <= chunkBytes:
		c.put(l.open(c, off, end, room), v)
	default:
		l.RemoveAt(i)
		l.InsertAt(i, v)
	}
}

// InsertAt puts v before element i, or behind all others if i is Len.
func (l *List) InsertAt(i int, v []byte) {
	switch i {
	case 0:
		l.PushFront(v)
		return
	case l.n:
		l.PushBack(v)
		return
	}
	at, off := l.locate(i)
	c := &l.chunks()[at]
	if c.fits(len(v)) {
		c.put(l.open(c, off, off, entrySize(len(v))), v)
		c.n++
		l.n++
		return
	}
	if off > c.lo {
		l.cut(at, off)
		at++
	}
	switch c := l.chunks(); { // v belongs between at-1 and at
	case at > 0 && c[at-1].fits(len(v)):
		l.pushBack(at-1, v)
	case c[at].fits(len(v)):
		l.pushFront(at, v)
	default:
		l.openChunk(at)
		l.pushBack(at, v)
	}
}

// RemoveAt removes element i, which is in [0, Len).
func (l *List) RemoveAt(i int) {
	at, off := l.locate(i)
	c := &l.chunks()[at]
	_, end := c.next(off)
	l.open(c, off, end, 0)
	c.n--
	l.n--
	l.tidy(at)
}

// Range calls fn for the elements from start on until it returns false.
func (l *List) Range(start int, fn func(v []byte) bool) {
	start = max(start, 0)
	if start >= l.n {
		return
	}
	at, off := l.locate(start)
	for c := l.chunks(); at < len(c); at++ {
		if off < 0 {
			off = c[at].lo
		}
		for off < c[at].hi {
			var v []byte
			if v, off = c[at].next(off); !fn(v) {
				return
			}
		}
		off = -1
	}
}

// RangeBack calls fn for element start and those before it, backwards, until
// it returns false.
func (l *List) RangeBack(start int, fn func(v []byte) bool) {
	start = min(start, l.n-1)
	if start < 0 {
		return
	}
	at, off := l.locate(start)
	_, off = l.chunks()[at].next(off)
	for c := l.chunks(); at >= 0; at-- {
		if off < 0 {
			off = c[at].hi
		}
		for off > c[at].lo {
			var v []byte
			if v, off = c[at].prev(off); !fn(v) {
				return
			}
		}
		off = -1
	}
}

// All gives the elements in order.
func (l *List) All() iter.Seq[[]byte] {
	return func(yield func(v []byte) bool) { l.Range(0, yield) }
}

// TrimTo keeps the elements from start up to and including stop, and removes
// all others.
func (l *List) TrimTo(start, stop int) {
	start, stop = max(start, 0), min(stop, l.n-1)
	if start > stop {
		*l = List{}
		return
	}
	behind := l.n - 1 - stop
	for c := l.chunks(); behind >= c[len(c)-1].n; c = l.chunks() {
		behind -= c[len(c)-1].n
		l.n -= c[len(c)-1].n
		l.closeChunk(len(c) - 1)
	}
	for c := l.chunks(); start >= c[0].n; c = l.chunks() {
		start -= c[0].n
		l.n -= c[0].n
		l.closeChunk(0)
	}
	c := &l.chunks()[0]
	for range start {
		_, c.lo = c.next(c.lo)
	}
	c.n -= start
	c = &l.chunks()[len(l.chunks())-1]
	for range behind {
		_, c.hi = c.prev(c.hi)
	}
	c.n -= behind
	l.n -= start + behind
}

// RemoveValue removes elements equal to v: the first count of them, or the
// last -count, or all if count is 0. It returns how many it removed.
func (l *List) RemoveValue(v []byte, count int) (removed int) {
	limit := count
	if count == 0 {
		limit = l.n
	} else if count < 0 {
		limit = -count
	}
	for i := 0; i < len(l.chunks()) && removed < limit; i++ {
		at := i
		if count < 0 {
			at = len(l.chunks()) - 1 - i
		}
		removed += l.chunks()[at].removeValue(v, limit-removed, count < 0)
	}
	if removed == 0 {
		return 0
	}
	l.n -= removed
	if l.n == 0 {
		*l = List{}
		return removed
	}
	for at := len(l.chunks()) - 1; at >= 0; at-- {
		l.tidy(at)
	}
	return removed
}

// locate finds element i, which is in [0, Len): its chunk and its offset there.
func (l *List) locate(i int) (at, off int) {
	c := l.chunks()
	if i < l.n/2 {
		for i >= c[at].n {
			i -= c[at].n
			at++
		}
	} else {
		at = len(c) - 1
		rest := l.n - i // elements from i to the end of chunk at
		for rest > c[at].n {
			rest -= c[at].n
			at--
		}
		i = c[at].n - rest
	}
	return at, c[at].locate(i)
}

func (l *List) pushBack(at int, v []byte) {
	c := &l.chunks()[at]
	size := entrySize(len(v))
	if c.hi+size > len(c.buf) {
		l.makeRoom(c, size, false, v)
	}
	c.put(c.hi, v)
	c.hi += size
	c.n++
	l.n++
}

func (l *List) pushFront(at int, v []byte) {
	c := &l.chunks()[at]
	size := entrySize(len(v))
	if size > c.lo {
		l.makeRoom(c, size, true, v)
	}
	c.lo -= size
	c.put(c.lo, v)
	c.n++
	l.n++
}

// makeRoom makes room for size bytes before or behind what a chunk has. It
// moves that inside its buffer only if a quarter of the buffer is unused, so
// that a queue doesn't move all for each element. v, which may lie in the
// unused part, is left as it is.
func (l *List) makeRoom(c *chunk, size int, before bool, v []byte) {
	used := c.hi - c.lo
	buf := c.buf
	if used+size > len(buf)*3/4 || overlap(buf, v) {
		room := used + size
		if room <= chunkBytes*3/4 {
			room = min(max(2*used, room*3/2), chunkBytes)
		} else {
			room = max(room, min(2*used, chunkBytes*3/2))
		}
		if used == 0 && len(l.chunks()) > 1 {
			// Others like it will follow: they get all their room at once, since
			// growing copies, and touches fresh memory, several times over.
			room = max(min(chunkLen*size, chunkBytes), chunkBytes/4)
			if size > chunkBytes/2 {
				room = size
			}
		}
		buf = append([]byte(nil), make([]byte, room)...)
		buf = buf[:cap(buf)]
		l.bytes += len(buf) - len(c.buf)
	}
	lo := 0
	if before {
		lo = len(buf) - used
	}
	copy(buf[lo:], c.buf[c.lo:c.hi])
	c.buf, c.lo, c.hi = buf, lo, lo+used
}

// overlap says whether v lies in buf.
func overlap(buf, v []byte) bool {
	if len(buf) == 0 || len(v) == 0 {
		return false
	}
	at := uintptr(unsafe.Pointer(unsafe.SliceData(v)))
	begin := uintptr(unsafe.Pointer(unsafe.SliceData(buf)))
	return at+uintptr(len(v)) > begin && at < begin+uintptr(len(buf))
}

// open replaces the bytes of c from off to end by room for n, and returns
// where off is now: it moves when the chunk has to.
func (l *List) open(c *chunk, off, end, n int) int {
	if more := n - (end - off); c.hi+more > len(c.buf) {
		was := c.lo
		l.makeRoom(c, more, false, nil)
		off, end = off+c.lo-was, end+c.lo-was
	}
	copy(c.buf[off+n:], c.buf[end:c.hi])
	c.hi += n - (end - off)
	return off
}

// openChunk puts an empty chunk before chunk at.
func (l *List) openChunk(at int) {
	if at == 0 {
		if l.first == 0 {
			room := len(l.all)/2 + 1
			if len(l.all) == 0 {
				room = 0
			}
			all := make([]chunk, room+max(len(l.all), 1))
			if room == 0 {
				l.all = all
				return
			}
			copy(all[room:], l.all)
			l.all, l.first = all, room
		}
		l.first--
		return
	}
	l.all = append(l.all, chunk{})
	c := l.chunks()
	copy(c[at+1:], c[at:])
	c[at] = chunk{}
}

// closeChunk takes chunk at out.
func (l *List) closeChunk(at int) {
	c := l.chunks()
	if len(c) == 1 && len(c[0].buf) <= chunkBytes {
		c[0].lo, c[0].hi, c[0].n = 0, 0, 0 // an only one may as well be used again
		return
	}
	l.bytes -= len(c[at].buf)
	if at == 0 {
		c[0] = chunk{}
		l.first++
		if l.first > 16 && l.first > len(l.all)*3/4 {
			l.all = append([]chunk(nil), l.chunks()...)
			l.first = 0
		}
		return
	}
	copy(c[at:], c[at+1:])
	c[len(c)-1] = chunk{}
	l.all = l.all[:len(l.all)-1]
}

// cut divides chunk at, whose elements from off on go to a new one behind it.
func (l *List) cut(at, off int) {
	l.openChunk(at + 1)
	c := l.chunks()
	left, right := &c[at], &c[at+1]
	right.buf = append([]byte(nil), left.buf[off:left.hi]...)
	right.hi = len(right.buf)
	right.buf = right.buf[:cap(right.buf)]
	l.bytes += len(right.buf)
	for o := off; o < left.hi; {
		_, o = left.next(o)
		right.n++
	}
	left.n -= right.n
	left.hi = off
}

// tidy closes chunk at if it is empty, or joins it with the next if both are
// small.
func (l *List) tidy(at int) {
	c := l.chunks()
	if c[at].n == 0 {
		l.closeChunk(at)
		return
	}
	if at == len(c)-1 {
		return
	}
	left, right := &c[at], &c[at+1]
	size := right.hi - right.lo
	if left.n+right.n > chunkLen/2 || left.hi-left.lo+size > chunkBytes/2 {
		return
	}
	l.open(left, left.hi, left.hi, size)
	copy(left.buf[left.hi-size:], right.buf[right.lo:right.hi])
	left.n += right.n
	right.n = 0
	l.closeChunk(at + 1)
}
