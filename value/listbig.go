package value

import (
	"slices"
	"unsafe"
)

// bigList is a list that isn't small any more: chunks of at most 128 elements
// and 8 KiB (an element that is larger has a chunk to itself), in blocks of at
// most 128 chunks or some 64 KiB, so that no slice gets long enough for its
// growth to be felt, and a block can be stored as a part (listparts.go).
//
// An end is reached at once; an element in the middle by counting blocks from
// the nearer end, then chunks, then elements. What changes in the middle moves
// the bytes of one chunk at most.
type bigList struct {
	blocks []block // none is empty
	n      int
	chunks int
	bytes  int // memory of the chunks' buffers

	parts  bool      // some are stored: only what is dirty must be
	serial PartID    // the last one that a block got
	gone   []PartID  // stored, and no block's any more
	saving *listSave // that is under way
}

type block struct {
	chunks []chunk
	n      int // elements
	bytes  int // memory of the buffers
	part   PartID
	dirty  bool // changed since the last Save began
	due    bool // the Save under way has not come to it
	absent bool // its chunks aren't in memory
}

// full says whether a block takes no more chunks.
func (b *block) full() bool { return b.absent || len(b.chunks) >= blockLen || b.bytes >= blockBytes }

// place is where a chunk is, or would be put in.
type place struct{ block, chunk int }

const (
	blockLen  = 128
	blockCost = int(unsafe.Sizeof(block{}))
	chunkCost = int(unsafe.Sizeof(chunk{})) * 4 / 3 // slices of them are filled so far
)

func (l *bigList) size() int {
	return int(unsafe.Sizeof(*l)) + cap(l.blocks)*blockCost + l.chunks*chunkCost + l.bytes
}

func (l *bigList) at(p place) *chunk { return &l.blocks[p.block].chunks[p.chunk] }

// touch says that a block is about to be changed.
func (l *bigList) touch(block int) {
	l.keep(block)
	l.blocks[block].dirty = true
}

// keep sees to it that the Save under way has a block as it was when it began.
func (l *bigList) keep(block int) {
	if b := &l.blocks[block]; b.due {
		l.saving.keep(b)
	}
}

// count adds to the number of elements in a chunk, whose block has been touched.
func (l *bigList) count(p place, n int) {
	l.at(p).n += n
	l.blocks[p.block].n += n
	l.n += n
}

// last is the place of the last chunk.
func (l *bigList) last() place {
	b := len(l.blocks) - 1
	return place{b, len(l.blocks[b].chunks) - 1}
}

// behind is the place right behind p, in the same block.
func (p place) behind() place { return place{p.block, p.chunk + 1} }

// before returns the chunk before p, if there is one.
func (l *bigList) before(p place) (place, bool) {
	if p.chunk > 0 {
		return place{p.block, p.chunk - 1}, true
	}
	if p.block > 0 {
		return place{p.block - 1, len(l.blocks[p.block-1].chunks) - 1}, true
	}
	return p, false
}

// after returns the chunk after p, if there is one.
func (l *bigList) after(p place) (place, bool) {
	if p.chunk+1 < len(l.blocks[p.block].chunks) {
		return p.behind(), true
	}
	return place{p.block + 1, 0}, p.block+1 < len(l.blocks)
}

func (l *bigList) add(v []byte) {
	var p place
	if l.n == 0 {
		p = l.openChunk(p)
	} else if p = l.last(); !l.at(p).fits(len(v)) {
		p = l.openChunk(p.behind())
	}
	l.pushBack(p, v)
}

func (l *bigList) prepend(v []byte) {
	var p place
	if l.n == 0 || !l.at(p).fits(len(v)) {
		p = l.openChunk(p)
	}
	l.pushFront(p, v)
}

func (l *bigList) popBack() []byte {
	l.touch(len(l.blocks) - 1)
	b := &l.blocks[len(l.blocks)-1]
	c := &b.chunks[len(b.chunks)-1]
	v, begin := c.prev(c.hi)
	c.hi = begin
	c.n--
	b.n--
	l.n--
	if c.n == 0 {
		l.closeChunk(l.last())
	}
	return v
}

func (l *bigList) popFront() []byte {
	l.touch(0)
	b := &l.blocks[0]
	c := &b.chunks[0]
	v, end := c.next(c.lo)
	c.lo = end
	c.n--
	b.n--
	l.n--
	if c.n == 0 {
		l.closeChunk(place{})
	}
	return v
}

func (l *bigList) index(i int) []byte {
	p, off := l.locate(i)
	v, _ := l.at(p).next(off)
	return v
}

func (l *bigList) setAt(i int, v []byte) {
	p, off := l.locate(i)
	c := l.at(p)
	old, end := c.next(off)
	switch room := entrySize(len(v)); {
	case len(old) == len(v):
		l.touch(p.block)
		copy(old, v)
	case c.n == 1 || c.hi-c.lo-(end-off)+room <= chunkBytes:
		off = l.open(p, off, end, room)
		l.at(p).put(off, v)
	default:
		l.removeAt(i)
		l.insertAt(i, v)
	}
}

func (l *bigList) insertAt(i int, v []byte) {
	switch i {
	case 0:
		l.prepend(v)
		return
	case l.n:
		l.add(v)
		return
	}
	p, off := l.locate(i)
	if c := l.at(p); c.fits(len(v)) {
		off = l.open(p, off, off, entrySize(len(v)))
		l.at(p).put(off, v)
		l.count(p, 1)
		return
	} else if off > c.lo {
		p = l.cut(p, off)
	}
	// v belongs before p and behind all before it.
	if prev, ok := l.before(p); ok && l.at(prev).fits(len(v)) {
		l.pushBack(prev, v)
	} else if l.at(p).fits(len(v)) {
		l.pushFront(p, v)
	} else {
		l.pushBack(l.openChunk(p), v)
	}
}

func (l *bigList) removeAt(i int) {
	p, off := l.locate(i)
	_, end := l.at(p).next(off)
	l.open(p, off, end, 0)
	l.count(p, -1)
	l.tidy(p)
}

func (l *bigList) walk(start int, fn func(v []byte) bool) {
	p, off := l.locate(start)
	for ok := true; ok; {
		c := l.at(p)
		if off < 0 {
			off = c.lo
		}
		for off < c.hi {
			var v []byte
			if v, off = c.next(off); !fn(v) {
				return
			}
		}
		off = -1
		p, ok = l.after(p)
	}
}

func (l *bigList) walkBack(start int, fn func(v []byte) bool) {
	p, off := l.locate(start)
	_, off = l.at(p).next(off)
	for ok := true; ok; {
		c := l.at(p)
		if off < 0 {
			off = c.hi
		}
		for off > c.lo {
			var v []byte
			if v, off = c.prev(off); !fn(v) {
				return
			}
		}
		off = -1
		p, ok = l.before(p)
	}
}

// trimTo keeps the elements from start to stop, which are there. Whole blocks
// go at once.
func (l *bigList) trimTo(start, stop int) {
	behind := l.n - 1 - stop
	for last := len(l.blocks) - 1; behind >= l.blocks[last].n; last-- {
		behind -= l.blocks[last].n
		l.closeBlocks(last, last+1)
	}
	whole := 0
	for start >= l.blocks[whole].n {
		start -= l.blocks[whole].n
		whole++
	}
	l.closeBlocks(0, whole)
	for p := l.last(); behind >= l.at(p).n; p = l.last() {
		l.touch(p.block)
		behind -= l.at(p).n
		l.count(p, -l.at(p).n)
		l.closeChunk(p)
	}
	for p := (place{}); start >= l.at(p).n; {
		l.touch(p.block)
		start -= l.at(p).n
		l.count(p, -l.at(p).n)
		l.closeChunk(p)
	}
	if start > 0 {
		l.touch(0)
	}
	c := l.at(place{})
	for range start {
		_, c.lo = c.next(c.lo)
	}
	l.count(place{}, -start)
	if behind > 0 {
		l.touch(l.last().block)
	}
	c = l.at(l.last())
	for range behind {
		_, c.hi = c.prev(c.hi)
	}
	l.count(l.last(), -behind)
}

// closeBlocks takes out blocks with all that is in them.
func (l *bigList) closeBlocks(from, to int) {
	for i := from; i < to; i++ {
		l.keep(i)
		b := &l.blocks[i]
		l.n -= b.n
		l.bytes -= b.bytes
		l.chunks -= len(b.chunks)
		l.lose(b.part)
	}
	l.blocks = slices.Delete(l.blocks, from, to)
}

// removeValue removes at most limit elements equal to v, the first or the last
// ones.
func (l *bigList) removeValue(v []byte, limit int, fromBack bool) (removed int) {
	p, ok := place{}, true
	if fromBack {
		p = l.last()
	}
	for ok && removed < limit {
		l.keep(p.block)
		n := l.at(p).removeValue(v, limit-removed, fromBack)
		if n > 0 {
			l.blocks[p.block].dirty = true
		}
		l.blocks[p.block].n -= n
		l.n -= n
		removed += n
		if fromBack {
			p, ok = l.before(p)
		} else {
			p, ok = l.after(p)
		}
	}
	if removed == 0 || l.n == 0 {
		return removed
	}
	for p, ok = l.last(), true; ok; {
		l.tidy(p)
		p, ok = l.before(p)
	}
	return removed
}

// locate finds element i, which is in [0, n): its chunk and its offset there.
func (l *bigList) locate(i int) (p place, off int) {
	if i < l.n/2 {
		for i >= l.blocks[p.block].n {
			i -= l.blocks[p.block].n
			p.block++
		}
	} else {
		p.block = len(l.blocks) - 1
		rest := l.n - i // elements from i to the end of the block
		for rest > l.blocks[p.block].n {
			rest -= l.blocks[p.block].n
			p.block--
		}
		i = l.blocks[p.block].n - rest
	}
	c := l.blocks[p.block].chunks
	for i >= c[p.chunk].n {
		i -= c[p.chunk].n
		p.chunk++
	}
	return p, c[p.chunk].locate(i)
}

func (l *bigList) pushBack(p place, v []byte) {
	l.touch(p.block)
	b := &l.blocks[p.block]
	c := &b.chunks[p.chunk]
	size := entrySize(len(v))
	if c.hi+size > len(c.buf) {
		l.makeRoom(p, size, false, v)
	}
	c.put(c.hi, v)
	c.hi += size
	c.n++
	b.n++
	l.n++
}

func (l *bigList) pushFront(p place, v []byte) {
	l.touch(p.block)
	b := &l.blocks[p.block]
	c := &b.chunks[p.chunk]
	size := entrySize(len(v))
	if size > c.lo {
		l.makeRoom(p, size, true, v)
	}
	c.lo -= size
	c.put(c.lo, v)
	c.n++
	b.n++
	l.n++
}

// makeRoom makes room for size bytes before or behind what a chunk has. It
// moves that inside its buffer only if a quarter of the buffer is unused, so
// that a queue doesn't move all for each element. v, which may lie in the
// unused part, is left as it is.
func (l *bigList) makeRoom(p place, size int, before bool, v []byte) {
	c := l.at(p)
	used := c.hi - c.lo
	buf := c.buf
	if used+size > len(buf)*3/4 || overlap(buf, v) {
		room := used + size
		if room <= chunkBytes*3/4 {
			room = min(max(2*used, room*3/2), chunkBytes)
		} else {
			room = max(room, min(2*used, chunkBytes*3/2))
		}
		if used == 0 && l.chunks > 1 {
			// Others like it will follow: they get all their room at once, since
			// growing copies, and touches fresh memory, several times over.
			room = max(min(chunkLen*size, chunkBytes), chunkBytes/16)
			if size > chunkBytes/2 {
				room = size
			}
		}
		buf = append([]byte(nil), make([]byte, room)...)
		buf = buf[:cap(buf)]
		l.addBytes(p, len(buf)-len(c.buf))
	}
	lo := 0
	if before {
		lo = len(buf) - used
	}
	copy(buf[lo:], c.buf[c.lo:c.hi])
	c.buf, c.lo, c.hi = buf, lo, lo+used
}

func (l *bigList) addBytes(p place, n int) {
	l.blocks[p.block].bytes += n
	l.bytes += n
}

// open replaces the bytes of a chunk from off to end by room for n, and
// returns where off is now: it moves when the chunk has to.
func (l *bigList) open(p place, off, end, n int) int {
	l.touch(p.block)
	c := l.at(p)
	if more := n - (end - off); c.hi+more > len(c.buf) {
		was := c.lo
		l.makeRoom(p, more, false, nil)
		off, end = off+c.lo-was, end+c.lo-was
	}
	copy(c.buf[off+n:], c.buf[end:c.hi])
	c.hi += n - (end - off)
	return off
}

// openChunk puts an empty chunk in at p, before what is there, and returns its
// place.
func (l *bigList) openChunk(p place) place {
	switch {
	case len(l.blocks) == 0:
		l.blocks = append(l.blocks, block{})
	case !l.blocks[p.block].full():
	case p.chunk == 0 && p.block > 0 && !l.blocks[p.block-1].full():
		p = place{p.block - 1, len(l.blocks[p.block-1].chunks)}
	case p.chunk == 0:
		l.blocks = slices.Insert(l.blocks, p.block, block{})
	case p.chunk == len(l.blocks[p.block].chunks):
		p = place{p.block + 1, 0}
		if p.block == len(l.blocks) || l.blocks[p.block].full() {
			l.blocks = slices.Insert(l.blocks, p.block, block{})
		}
	default:
		half := len(l.blocks[p.block].chunks) / 2
		l.cutBlock(p.block, half)
		if p.chunk > half {
			p = place{p.block + 1, p.chunk - half}
		}
	}
	b := &l.blocks[p.block]
	b.chunks = slices.Insert(b.chunks, p.chunk, chunk{})
	l.chunks++
	return p
}

// cutBlock moves the chunks of a block from half on to a new one behind it.
func (l *bigList) cutBlock(i, half int) {
	l.touch(i)
	l.blocks = slices.Insert(l.blocks, i+1, block{})
	left, right := &l.blocks[i], &l.blocks[i+1]
	right.chunks = append([]chunk(nil), left.chunks[half:]...)
	clear(left.chunks[half:])
	left.chunks = left.chunks[:half]
	right.dirty = true
	for i := range right.chunks {
		right.n += right.chunks[i].n
		right.bytes += len(right.chunks[i].buf)
	}
	left.n -= right.n
	left.bytes -= right.bytes
}

// closeChunk takes out a chunk, which is empty, and its block if there is
// nothing else in it.
func (l *bigList) closeChunk(p place) {
	l.addBytes(p, -len(l.at(p).buf))
	l.chunks--
	b := &l.blocks[p.block]
	b.chunks = slices.Delete(b.chunks, p.chunk, p.chunk+1)
	if len(b.chunks) == 0 {
		l.lose(b.part)
		l.blocks = slices.Delete(l.blocks, p.block, p.block+1)
		return
	}
	if p.block+1 == len(l.blocks) {
		return
	}
	next := &l.blocks[p.block+1]
	if !next.absent && len(b.chunks)+len(next.chunks) < blockLen/2 && b.bytes+next.bytes < blockBytes/2 {
		l.touch(p.block)
		l.keep(p.block + 1)
		b.chunks = append(b.chunks, next.chunks...)
		b.n += next.n
		b.bytes += next.bytes
		l.lose(next.part)
		l.blocks = slices.Delete(l.blocks, p.block+1, p.block+2)
	}
}

// lose notes that a block is gone that had that part.
func (l *bigList) lose(part PartID) {
	if part != 0 {
		l.gone = append(l.gone, part)
	}
}

// cut divides a chunk, whose elements from off on go to a new one behind it.
// It returns the place of that one.
func (l *bigList) cut(p place, off int) place {
	behind := l.openChunk(p.behind())
	p, _ = l.before(behind)
	l.touch(p.block)
	l.touch(behind.block)
	left, right := l.at(p), l.at(behind)
	right.buf = append([]byte(nil), left.buf[off:left.hi]...)
	right.hi = len(right.buf)
	right.buf = right.buf[:cap(right.buf)]
	n := 0
	for o := off; o < left.hi; n++ {
		_, o = left.next(o)
	}
	left.hi = off
	l.addBytes(behind, len(right.buf))
	l.count(p, -n)
	l.count(behind, n)
	return behind
}

// tidy closes a chunk if it is empty, or joins it with the next in its block if
// both are small.
func (l *bigList) tidy(p place) {
	left := l.at(p)
	if left.n == 0 {
		l.closeChunk(p)
		return
	}
	next := p.behind()
	if next.chunk == len(l.blocks[p.block].chunks) {
		return
	}
	right := l.at(next)
	size := right.hi - right.lo
	if left.n+right.n > chunkLen/2 || left.hi-left.lo+size > chunkBytes/2 {
		return
	}
	l.open(p, left.hi, left.hi, size)
	copy(left.buf[left.hi-size:], right.buf[right.lo:right.hi])
	n := right.n
	l.count(p, n)
	l.count(next, -n)
	l.closeChunk(next)
}
