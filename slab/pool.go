package slab

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
)

// ErrNoMemory is returned when the system, or Limit, gives no more memory.
// Nothing has been changed by what returns it.
var ErrNoMemory = errors.New("no more memory can be had: raise the limit of the process (ulimit -v, vm.overcommit_memory, the node's memory budget), or delete something")

const (
	minOrder  = 9  // the smallest chunk has 512 bytes
	unitOrder = 20 // the largest 1 MiB, which is a unit
	unitSize  = 1 << unitOrder
	pageSize  = 4096

	// From so many bytes on, memory that is given back goes to the system,
	// which zeroes it; less is cleared and kept.
	releaseFrom = 64 << 10

	// Where the system doesn't allow to reserve much, others need what it
	// allows, so little is reserved at once.
	modest = 64 << 20

	// The last that the system has isn't taken: the rest of the process needs some
	// as well, and the Go runtime ends it when it gets none. So much, and an eighth of
	// what the spaces hold, is left.
	left = 256 << 20
)

// A pool hands out zeroed memory: chunks, whose size is a power of two from
// 512 bytes to 512 KiB, by the buddy system; and from 1 MiB on runs of whole
// units. There is one pool for the process, and its lock is taken for a chunk,
// not for a record.
//
//	region   | unit | unit | unit ............... usable | reserved ........ |
//	unit     |   512 KiB     |   256K  | 128K |  ...  |     cut by halves, or whole
//
// Whatever is free reads as zeroes: give sees to it before anybody else can
// get the memory.
type pool struct {
	mu      sync.Mutex
	regions []*region
	cut     map[uint64]*unit   // the units that are cut into chunks, by address
	lists   [unitOrder][]*unit // by order: units that may have a free chunk of it
	out     int64              // bytes handed out
	limit   int64              // the most that may be; 0 for no limit
	supply  Supply             // nil: only the system is asked
	kept    stock

	unwritten atomic.Int64 // bytes of large blocks that were never written
}

var process = pool{cut: map[uint64]*unit{}, kept: newStock()}

// Held is the memory that all spaces of the process hold, in bytes. Of large
// blocks it counts what was ever written: the rest is address space.
func Held() int64 {
	process.mu.Lock()
	defer process.mu.Unlock()
	return process.out - process.unwritten.Load()
}

// Limit sets how many bytes the spaces of the process may hold together, 0
// for as many as the system gives, and returns the limit before. Address space
// counts.
func Limit(bytes int64) (before int64) {
	process.mu.Lock()
	defer process.mu.Unlock()
	before, process.limit = process.limit, bytes
	return before
}

// region is a range of address space. Its units are usable up to a mark.
type region struct {
	base   uint64
	units  int
	usable int
	low    int      // no unit below is free
	free   []uint64 // a bit for each unit
}

// unit is a unit that is cut into chunks: for each order a bit for each chunk
// that is free. The bits of order k begin at bit 1<<(unitOrder-k), as in a
// tree laid out by levels.
type unit struct {
	base   uint64
	free   [64]uint64
	count  [unitOrder]uint16 // free chunks, by order
	listed uint32            // the lists it stands in, as bits
}

// spanSize is how large the memory is that take gives for size bytes.
func spanSize(size uint64) uint64 {
	switch {
	case size <= 1<<minOrder:
		return 1 << minOrder
	case size <= unitSize/2:
		return 1 << bits.Len64(size-1)
	}
	return (size + unitSize - 1) &^ (unitSize - 1)
}

// take hands out zeroed memory of a size that spanSize has given. What is
// pressing may come out of the reserve.
func (p *pool) take(size uint64, pressing bool) (addr uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err = ErrNoMemory; p.granted(size) {
		addr, err = p.find(size)
	}
	if err != nil && pressing {
		addr, err = p.draw(size)
	}
	if err == nil {
		p.out += int64(size)
	}
	return addr, err
}

func (p *pool) find(size uint64) (uint64, error) {
	if size >= unitSize {
		return p.takeUnits(int(size / unitSize))
	}
	return p.takeChunk(bits.TrailingZeros64(size))
}

// give takes memory back, all that take has given at addr. It zeroes it,
// which for much memory takes long: about 30 µs a unit. See reaper.
func (p *pool) give(addr, size uint64) {
	if size >= releaseFrom {
		release(addr, size)
	} else {
		clear(bytesAt(addr, int(size)))
	}
	given := size
	p.mu.Lock()
	p.out -= int64(size)
	if size < unitSize {
		base := p.giveChunk(addr, bits.TrailingZeros64(size))
		if base == 0 {
			p.repaid(given)
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		addr, size = base, unitSize
		release(addr, size) // its small chunks were only cleared
		p.mu.Lock()
	}
	p.free(addr, size)
	p.repaid(given)
	p.mu.Unlock()
}

// free marks units as free.
func (p *pool) free(addr, size uint64) {
	for _, r := range p.regions {
		if addr-r.base < uint64(r.units)*unitSize {
			first := int((addr - r.base) / unitSize)
			for i := range int(size / unitSize) {
				r.free[(first+i)/64] |= 1 << ((first + i) % 64)
			}
			r.low = min(r.low, first)
		}
	}
}

func (p *pool) takeUnits(n int) (uint64, error) {
	beyond := uint64(left + p.out/8)
	for _, r := range p.regions {
		if i, ok := r.find(n); ok {
			return r.take(i, n, beyond)
		}
	}
	r, err := newRegion(n, beyond)
	if err != nil {
		return 0, err
	}
	p.regions = append(p.regions, r)
	return r.take(0, n, beyond)
}

// newRegion reserves a region of at least n units, if there is so much left beyond.
func newRegion(n int, beyond uint64) (*region, error) {
	need := uint64(n) * unitSize
	for size := max(most, need); ; size = max(min(size/2, modest), need) {
		base, err := reserve(size+unitSize, beyond) // one more, to align
		if err == nil {
			r := &region{base: (base + unitSize - 1) &^ (unitSize - 1), units: int(size / unitSize)}
			r.free = make([]uint64, (r.units+63)/64)
			for i := range r.units {
				r.free[i/64] |= 1 << (i % 64)
			}
			return r, nil
		}
		if size == need {
			return nil, fmt.Errorf("reserve %d MiB: %w: %w", need>>20, ErrNoMemory, err)
		}
	}
}

// find returns the first of n free units in a row.
func (r *region) find(n int) (first int, ok bool) {
	run := 0
	for i := r.low; i < r.units; i++ {
		word := r.free[i/64]
		if i%64 == 0 && word == 0 {
			run = 0
			i += 63
			continue
		}
		if word>>(i%64)&1 == 0 {
			run = 0
			continue
		}
		if run++; run == n {
			return i - n + 1, true
		}
	}
	return 0, false
}

func (r *region) take(first, n int, beyond uint64) (uint64, error) {
	if end := first + n; end > r.usable {
		const step = 64 // units at once, if they can be had
		more := min((end-r.usable+step-1)/step*step, r.units-r.usable)
		from := r.base + uint64(r.usable)*unitSize
		if commit(from, uint64(more)*unitSize, beyond) != nil {
			more = end - r.usable
			if err := commit(from, uint64(more)*unitSize, beyond); err != nil {
				return 0, fmt.Errorf("use %d MiB: %w: %w", more, ErrNoMemory, err)
			}
		}
		r.usable += more
	}
	for i := first; i < first+n; i++ {
		r.free[i/64] &^= 1 << (i % 64)
	}
	if n == 1 {
		r.low = first + 1 // find has passed all below
	}
	return r.base + uint64(first)*unitSize, nil
}

func (p *pool) takeChunk(order int) (uint64, error) {
	for o := order; o < unitOrder; o++ {
		for len(p.lists[o]) > 0 {
			last := len(p.lists[o]) - 1
			u := p.lists[o][last]
			if u.count[o] == 0 {
				u.listed &^= 1 << o
				p.lists[o][last] = nil
				p.lists[o] = p.lists[o][:last]
				continue
			}
			return p.cutDown(u, u.first(o), o, order), nil
		}
	}
	base, err := p.takeUnits(1)
	if err != nil {
		return 0, err
	}
	return p.cutDown(p.cutUp(base), 1, unitOrder, order), nil
}

// cutUp says that a unit is cut into chunks, none of which is free.
func (p *pool) cutUp(base uint64) *unit {
	u := &unit{base: base}
	p.cut[base] = u
	return u
}

// open is for who has a unit and will give it back in chunks.
func (p *pool) open(base uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutUp(base)
}

// cutDown halves chunk i of order o, which is not marked free any more, until
// it has the order asked for. The other halves become free.
func (p *pool) cutDown(u *unit, i, o, order int) uint64 {
	for ; o > order; o-- {
		i *= 2
		p.mark(u, i+1, o-1)
	}
	return u.base + uint64(i-1<<(unitOrder-order))<<order
}

func (p *pool) mark(u *unit, i, o int) {
	u.free[i/64] |= 1 << (i % 64)
	u.count[o]++
	if u.listed>>o&1 == 0 {
		u.listed |= 1 << o
		p.lists[o] = append(p.lists[o], u)
	}
}

// first unmarks a free chunk of order o and returns it.
func (u *unit) first(o int) int {
	for i := 1 << (unitOrder - o); ; i = (i + 64) &^ 63 {
		if word := u.free[i/64] >> (i % 64); word != 0 {
			i += bits.TrailingZeros64(word)
			u.free[i/64] &^= 1 << (i % 64)
			u.count[o]--
			return i
		}
	}
}

// giveChunk takes a chunk back and joins it with its other half, if that is
// free as well, and so on. It returns the address of the unit if all of it is
// free now, and then the unit is no longer cut; else 0.
func (p *pool) giveChunk(addr uint64, o int) (base uint64) {
	u := p.cut[addr&^(unitSize-1)]
	i := 1<<(unitOrder-o) + int((addr-u.base)>>o)
	for o < unitOrder && u.free[(i^1)/64]>>((i^1)%64)&1 == 1 {
		u.free[(i^1)/64] &^= 1 << ((i ^ 1) % 64)
		u.count[o]--
		i /= 2
		o++
	}
	if o == unitOrder {
		delete(p.cut, u.base)
		return u.base
	}
	p.mark(u, i, o)
	return 0
}
