package slab

import "math/bits"

const (
	exact      = 2048      // up to so many bytes blocks differ by 8
	maxBlock   = 128 << 10 // what is larger has its memory for itself
	classes    = exact/8 + 16*6 + 1
	chunkHead  = 16       // of a unit: its place in holdings.units
	deadFloor  = 8 << 10  // so much may lie idle before anything is moved
	shortFloor = 1 << 20  // or so much, where there is no more memory to be had
	freshFloor = 16 << 10 // and so much be new
)

// roundUp is the size of the block for n bytes: the next multiple of 8, and
// above 2 KiB of a sixteenth of the power of two below, so that there are few
// sizes. What is larger than maxBlock is rounded by pool.
func roundUp(n int) int {
	if n <= exact {
		return (n + 7) &^ 7
	}
	if n > maxBlock {
		return int(spanSize(uint64(n)))
	}
	step := 1 << (bits.Len(uint(n-1)) - 5)
	return (n + step - 1) &^ (step - 1)
}

// class is the free list for blocks of n bytes or slightly more: the largest
// size of block that n bytes suffice for.
func class(n int) int {
	if n <= exact {
		return n / 8
	}
	k := bits.Len(uint(n)) - 1
	return exact/8 + (k-11)*16 + (n-1<<k)>>(k-4)
}

// classSize is the size of the blocks in a free list.
func classSize(c int) int {
	if c <= exact/8 {
		return c * 8
	}
	k := 11 + (c-exact/8)/16
	return 1<<k + (c-exact/8)%16<<(k-4)
}

// holdings is the memory that a space holds. It stands apart from the space
// so that it outlives it.
type holdings struct {
	units  []chunk // of 1 MiB; each knows its place here
	small  []chunk // fewer than fifty
	owns   map[uint64]own
	spares []uint64 // units that are empty, for the next chunk
	ready  *ready   // see Space.Prepare
}

// chunk is memory that blocks are cut from.
type chunk struct {
	base uint64
	live uint32 // bytes of blocks in use
	size uint32
}

// own is the memory of one large block.
type own struct {
	span uint64 // address space
	used uint64 // what was ever written of it, in pages
}

func (h *holdings) giveAll() {
	for _, c := range h.units {
		process.give(c.base, uint64(c.size))
	}
	for _, c := range h.small {
		process.give(c.base, uint64(c.size))
	}
	for base, o := range h.owns {
		process.unwritten.Add(-int64(o.span - o.used))
		process.give(base, o.span)
	}
	for _, base := range h.spares {
		process.give(base, unitSize)
	}
	h.ready.giveAll()
}

// An arena cuts the memory of a space into blocks. A block that is free goes
// to the list of its size and from there to the next that wants this size. Else
// blocks are cut from the one end of the *bump region*: what is left of the
// newest chunk or, before another chunk is taken, the largest free block.
//
//	chunk    | block | free | block | block | bump ....................... |
//
// Blocks are never joined again. What gets lost that way is bounded by
// compaction: when more than a quarter of all memory is free, the chunk with
// the least in use is emptied, a few blocks at a time. All references to
// a block are known from what it holds (see Space.move), so a block can go
// anywhere. Its free blocks are first taken off their lists, so that nothing
// is moved into it.
type arena struct {
	held *holdings

	cur, end uint64 // the bump region
	curSmall uint64 // smallBit if that lies in a small chunk
	curChunk int    // its place in holdings.units or small

	free []uint64 // the first block of each free list
	some [classes/64 + 1]uint64

	total int64 // bytes of all chunks
	live  int64 // bytes of blocks in use that lie in chunks
	large int64 // bytes of blocks that have their memory for themselves

	patient bool // what is done now can be left, and draws on nothing that is kept back

	// The chunk that is being emptied.
	victim struct {
		base   uint64 // 0 if there is none
		pos    uint64
		end    uint64
		moving bool // its free blocks are off their lists
	}
}

// wasted is how many bytes are free, but not new and not spare.
func (a *arena) wasted() int64 {
	return a.total - a.live - int64(a.end-a.cur) - int64(len(a.held.spares))*unitSize
}

// alloc makes a block of n bytes, which roundUp has given, with small set in
// small if it lies in a small chunk. What is in it is anything of this space.
func (a *arena) alloc(n int) (addr, small uint64, err error) {
	if n > maxBlock {
		return a.allocOwn(uint64(n))
	}
	c := class(n)
	if c < len(a.free) && a.free[c] != 0 {
		addr = a.free[c]
		small = *word(addr) & smallBit
		if scrambling {
			checkScrambled(addr, classSize(c))
		}
		a.unlink(addr, c)
		a.account(a.chunkOf(addr, small), n)
		return addr, small, nil
	}
	if a.end-a.cur < uint64(n) {
		if err := a.refill(n, c); err != nil {
			return 0, 0, err
		}
	}
	addr = a.cur
	a.cur += uint64(n)
	chunks := a.held.units
	if a.curSmall != 0 {
		chunks = a.held.small
	}
	a.account(&chunks[a.curChunk], n)
	return addr, a.curSmall, nil
}

func (a *arena) account(c *chunk, n int) {
	c.live = uint32(int(c.live) + n)
	a.live += int64(n)
}

// refill finds a bump region for n bytes, whose list is c.
func (a *arena) refill(n, c int) error {
	if big := a.largest(); big >= c {
		addr := a.free[big]
		small := *word(addr) & smallBit
		size := freeSize(addr)
		a.unlink(addr, big)
		a.retire()
		a.bump(addr, uint64(size), small)
		return nil
	}
	if len(a.held.spares) > 0 {
		last := len(a.held.spares) - 1
		base := a.held.spares[last]
		a.held.spares = a.held.spares[:last]
		a.retire()
		a.adopt(base, unitSize)
		return nil
	}
	// A quarter of what there is, so that little of it is new.
	size := max(1<<minOrder, spanSize(uint64(n+chunkHead)))
	for size < unitSize && int64(size)*8 <= a.total {
		size *= 2
	}
	base, err := process.take(size, false)
	if err != nil {
		if unit, ok := a.readied(unitSize); ok {
			base, size = unit, unitSize
		} else {
			size = spanSize(uint64(n + chunkHead))
			if base, err = process.take(size, !a.patient); err != nil {
				return err
			}
		}
	}
	a.total += int64(size)
	a.retire()
	a.adopt(base, size)
	return nil
}

// readied takes so much of what is ready, if what is done now is what it is for.
func (a *arena) readied(size uint64) (addr uint64, ok bool) {
	if a.patient {
		return 0, false
	}
	return a.held.ready.take(size)
}

// adopt makes a chunk the bump region.
func (a *arena) adopt(base, size uint64) {
	if size == unitSize {
		*word(base) = uint64(len(a.held.units))
		a.held.units = append(a.held.units, chunk{base, 0, unitSize})
		a.live += chunkHead
		a.held.units[len(a.held.units)-1].live = chunkHead
		a.bump(base+chunkHead, size-chunkHead, 0)
		return
	}
	a.held.small = append(a.held.small, chunk{base, 0, uint32(size)})
	a.bump(base, size, smallBit)
}

func (a *arena) bump(addr, size, small uint64) {
	a.cur, a.end, a.curSmall = addr, addr+size, small
	a.curChunk = a.chunkIndex(addr, small)
}

// retire makes free blocks of what is left of the bump region.
func (a *arena) retire() {
	kind := uint64(kindFree)
	if a.cur-a.victim.base < a.victim.end-a.victim.base {
		kind = kindDead
	}
	for a.end-a.cur >= 16 {
		size := min(a.end-a.cur, maxBlock)
		size = uint64(classSize(class(int(size))))
		a.setFree(a.cur, int(size), a.curSmall, kind)
		a.cur += size
	}
	if a.end-a.cur == 8 {
		*word(a.cur) = kindPad<<kindShift | a.curSmall
	}
	a.cur, a.end = 0, 0
}

// setFree makes a free block, in its list if kind is kindFree.
func (a *arena) setFree(addr uint64, size int, small, kind uint64) {
	*word(addr) = kind<<kindShift | small
	*word(addr + 8) = uint64(size/8) << 48
	if scrambling {
		b := bytesAt(addr+16, size-16)
		for i := range b {
			b[i] = scrambled
		}
	}
	if kind == kindFree {
		a.link(addr, class(size))
	}
}

// chunkIndex is the place of the chunk in which a block lies.
func (a *arena) chunkIndex(addr, small uint64) int {
	if small == 0 {
		return int(*word(addr &^ (unitSize - 1)))
	}
	for i := range a.held.small {
		if c := &a.held.small[i]; addr-c.base < uint64(c.size) {
			return i
		}
	}
	panic("slab: a block in no chunk")
}

func (a *arena) chunkOf(addr, small uint64) *chunk {
	i := a.chunkIndex(addr, small)
	if small == 0 {
		return &a.held.units[i]
	}
	return &a.held.small[i]
}

// scrambling is for tests: see Scramble.
var scrambling bool

const scrambled = 0xdb // what is free is full of it then

// Scramble lets all spaces move each record that is changed, write over what
// was freed, and panic if somebody else did that, so that tests find those who
// keep what they may not. Only a process that has no spaces yet may call it.
func Scramble(on bool) (before bool) {
	before, scrambling = scrambling, on
	return before
}

// checkScrambled panics if a block was written to since it was freed.
func checkScrambled(addr uint64, n int) {
	bad := *word(addr)>>flagShift&(flagMask|3<<9) != 0 // flags, and what makes a record wide or timed
	for _, b := range bytesAt(addr+16, n-16) {
		bad = bad || b != scrambled
	}
	if bad {
		panic("slab: a record was written to after it was freed")
	}
}

// dealloc frees a block of n bytes.
func (a *arena) dealloc(addr uint64, n int) {
	if n > maxBlock {
		a.deallocOwn(addr)
		return
	}
	small := *word(addr) & smallBit
	c := a.chunkOf(addr, small)
	a.account(c, -n)
	if addr+uint64(n) == a.cur && a.cur-c.base < uint64(c.size) && a.end > a.cur && c.base != a.victim.base {
		a.cur = addr // the newest
		return
	}
	kind := uint64(kindFree)
	if c.base == a.victim.base {
		kind = kindDead
	}
	a.setFree(addr, n, small, kind)
}

func freeSize(addr uint64) int { return int(*word(addr + 8)>>48) * 8 }

// link puts a free block at the head of its list. Its first word holds the
// next of the list, the second the one before.
func (a *arena) link(addr uint64, c int) {
	if c >= len(a.free) {
		n := 16
		for n <= c {
			n *= 2
		}
		a.free = append(make([]uint64, 0, min(n, classes)), a.free...)[:min(n, classes)]
	}
	next := a.free[c]
	if next == 0 {
		a.some[c/64] |= 1 << (c % 64)
	} else {
		*word(next + 8) |= addr
	}
	*word(addr) |= next
	a.free[c] = addr
}

func (a *arena) unlink(addr uint64, c int) {
	next, prev := *word(addr)&refMask, *word(addr + 8)&refMask
	if next != 0 {
		*word(next + 8) = *word(next + 8)&^refMask | prev
	}
	if prev != 0 {
		*word(prev) = *word(prev)&^refMask | next
		return
	}
	a.free[c] = next
	if next == 0 {
		a.some[c/64] &^= 1 << (c % 64)
	}
}

// largest is the last free list with anything in it, 0 if there is none.
func (a *arena) largest() int {
	for i := len(a.some) - 1; i >= 0; i-- {
		if a.some[i] != 0 {
			return i*64 + bits.Len64(a.some[i]) - 1
		}
	}
	return 0
}

// allocOwn makes a block that has its memory for itself.
func (a *arena) allocOwn(n uint64) (addr, small uint64, err error) {
	addr, ok := a.readied(n)
	if !ok {
		if addr, err = process.take(n, !a.patient); err != nil {
			return 0, 0, err
		}
	}
	if a.held.owns == nil {
		a.held.owns = map[uint64]own{}
	}
	a.held.owns[addr] = own{span: n}
	process.unwritten.Add(int64(n))
	return addr, 0, nil
}

// wrote says that n bytes of such a block are in use now.
func (a *arena) wrote(addr uint64, n int) {
	o := a.held.owns[addr]
	if used := (uint64(n) + pageSize - 1) &^ (pageSize - 1); used > o.used {
		a.large += int64(used - o.used)
		process.unwritten.Add(-int64(used - o.used))
		o.used = used
		a.held.owns[addr] = o
	}
}

func (a *arena) deallocOwn(addr uint64) {
	o := a.held.owns[addr]
	a.large -= int64(o.used)
	delete(a.held.owns, addr)
	reap(&holdings{owns: map[uint64]own{addr: o}})
}

// Loose reports whether Compact has something to do, most probably: it costs
// nothing to ask.
func (a *arena) Loose() bool {
	if a.victim.base != 0 {
		return true
	}
	return a.tooMuch(a.wasted())
}

// tooMuch reports whether so much is wasted that it should be collected. Where
// there is no more memory to be had, that is sooner.
func (a *arena) tooMuch(wasted int64) bool {
	return wasted > deadFloor && (wasted*4 > a.total || wasted > shortFloor && wasted*16 > a.total && process.short())
}

// chooseVictim picks the chunk to empty, if it is worth it.
func (a *arena) chooseVictim() bool {
	fresh := int64(a.end - a.cur)
	alone := fresh > freshFloor && fresh*2 > a.total // others have gone, and what is new is too much now
	if !alone && !a.tooMuch(a.wasted()) {
		return false
	}
	var best, bump chunk
	least := uint64(1<<20) * 7 / 8
	for _, chunks := range [2][]chunk{a.held.small, a.held.units} {
		for _, c := range chunks {
			if a.cur-c.base < uint64(c.size) {
				bump = c
			} else if share := uint64(c.live) << 20 / uint64(c.size); share < least {
				best, least = c, share
			}
		}
	}
	if best.base == 0 || alone {
		if bump.base == 0 || bump.live > bump.size/8*7 {
			return false
		}
		best = bump
		a.retire()
	}
	a.victim.base, a.victim.end = best.base, best.base+uint64(best.size)
	a.victim.pos = best.base
	if best.size == unitSize {
		a.victim.pos += chunkHead
	}
	a.victim.moving = false
	return true
}

// unlinkVictim takes free blocks of the chunk that is to be emptied off their
// lists, looking at up to n blocks, and returns how many it didn't need.
func (a *arena) unlinkVictim(n int) int {
	v := &a.victim
	for ; n > 0 && v.pos < v.end; n-- {
		if v.pos == a.cur && a.end > a.cur {
			v.pos = a.end
			continue
		}
		if *word(v.pos)>>kindShift == kindFree {
			size := freeSize(v.pos)
			a.unlink(v.pos, class(size))
			*word(v.pos) = kindDead<<kindShift | *word(v.pos)&smallBit
			*word(v.pos + 8) &^= refMask
		}
		v.pos += uint64(blockSize(v.pos))
	}
	if v.pos >= v.end {
		if a.cur-v.base < v.end-v.base {
			a.retire()
		}
		v.moving = true
		v.pos = v.base
		if v.end-v.base == unitSize {
			v.pos += chunkHead
		}
	}
	return n
}

// dropVictim lets the chunk go that was emptied.
func (a *arena) dropVictim() {
	h, v := a.held, &a.victim
	base, size := v.base, v.end-v.base
	v.base = 0
	if size == unitSize {
		i := int(*word(base))
		last := len(h.units) - 1
		if h.units[i].live != chunkHead {
			panic("slab: a chunk that isn't empty was emptied")
		}
		h.units[i] = h.units[last]
		h.units = h.units[:last]
		if i != last {
			*word(h.units[i].base) = uint64(i)
		}
		a.live -= chunkHead
		if a.curSmall == 0 && a.curChunk == last {
			a.curChunk = i
		}
		if len(h.spares) == 0 && len(h.units) >= 8 {
			h.spares = append(h.spares, base) // for this space alone, so there is no need to zero it
			return
		}
		a.total -= unitSize
		reap(&holdings{units: []chunk{{base, 0, unitSize}}})
		if len(h.units) < 8 && len(h.spares) > 0 {
			a.total -= int64(len(h.spares)) * unitSize
			reap(&holdings{spares: h.spares})
			h.spares = nil
		}
		return
	}
	for i, c := range h.small {
		if c.base == base {
			last := len(h.small) - 1
			if c.live != 0 {
				panic("slab: a chunk that isn't empty was emptied")
			}
			h.small[i] = h.small[last]
			h.small = h.small[:last]
			if a.curSmall != 0 && a.curChunk == last {
				a.curChunk = i
			}
			break
		}
	}
	a.total -= int64(size)
	if size >= releaseFrom {
		reap(&holdings{small: []chunk{{base, 0, uint32(size)}}})
	} else {
		process.give(base, size)
	}
}

// blockSize is the size of the block at addr, whatever it is.
func blockSize(addr uint64) int {
	w0 := *word(addr)
	switch kind := w0 >> kindShift; kind {
	case kindFree, kindDead:
		return freeSize(addr)
	case kindPad:
		return 8
	case kindPage, kindSegment, kindPrints:
		return int(*word(addr + 8)>>53) * 8
	default:
		if w0&wideBit != 0 {
			return int(*word(addr + 24) &^ ownBit)
		}
		return int(*word(addr + 8)>>53) * 8
	}
}
