package slab

import (
	"math/bits"
	"runtime"
	"sync/atomic"
)

// The pool keeps a reserve of memory for changes that have begun: when the
// system, or Limit, gives no more, what a command still needs comes out of
// it. So nothing is left half done for want of memory, if its owner asks
// before it begins:
//
//	Reserve() == Ample     any change that is Modest
//	Space.Prepare(n)       one that is larger, whatever the reserve has
//	Space.Fits(n)          when the reserve was drawn on: one of n bytes for which the space has room
//
// What was drawn is a debt. It is paid when memory is given back, or when there is
// more to be had; whoever asks for Reserve has that looked into.

// Reserved says how much of the reserve is there.
type Reserved uint8

const (
	// Spent: less than half. Only what takes no memory should begin.
	Spent Reserved = iota
	// Drawn: some was drawn. What makes data grow should not begin, but in a space
	// that has room for it in its own memory.
	Drawn
	// Ample: all of it.
	Ample
)

// Modest is for how large a change the reserve vouches without Prepare, by the sum of Needs.
const Modest = 512 << 10

// Needs is how much memory a record can take with n bytes of key and value, rounding
// and its place in the table included; or what n bytes of it add to that.
func Needs(n int) int {
	const around = wideHead + 32
	if n += around; n <= unitSize {
		return 2 * n
	}
	return n + unitSize
}

// stock is the memory that is kept back. It is guarded by the pool's mutex.
type stock struct {
	units []uint64 // usable, and nobody's
	size  int64    // bytes when all is there
	debt  int64    // bytes that were handed out although there was no more to be had
	level atomic.Uint32
}

func newStock() stock {
	return stock{size: unitSize * int64(max(8, runtime.GOMAXPROCS(0)))}
}

// Reserve tells how much of the reserve is there.
func Reserve() Reserved {
	p := &process
	level := Reserved(p.kept.level.Load())
	if level != Ample {
		p.mu.Lock()
		p.settle()
		level = Reserved(p.kept.level.Load())
		p.mu.Unlock()
	}
	return level
}

// SetReserve sets how many bytes are kept back, and returns how many were. At first it
// is a MiB for each goroutine that runs at once, and at least eight: half of that suffices
// for the changes that can have begun when it is found out that no more should.
func SetReserve(bytes int64) (before int64) {
	p := &process
	p.mu.Lock()
	defer p.mu.Unlock()
	k := &p.kept
	before, k.size = k.size, bytes
	for last := len(k.units) - 1; last >= 0 && int64(last)*unitSize >= bytes; last-- {
		p.free(k.units[last], unitSize)
		k.units = k.units[:last]
	}
	p.settle()
	return before
}

// A Supply is asked before memory is handed out, so that tests can refuse it.
type Supply interface {
	// Grant reports whether there are so many bytes more.
	Grant(bytes uint64) bool
}

// SetSupply sets who is asked, nil for nobody, and returns who was before.
func SetSupply(s Supply) (before Supply) {
	process.mu.Lock()
	defer process.mu.Unlock()
	before, process.supply = process.supply, s
	return before
}

// granted reports whether Limit and the Supply allow for so much more.
func (p *pool) granted(size uint64) bool {
	return (p.limit == 0 || p.out+int64(size) <= p.limit) && (p.supply == nil || p.supply.Grant(size))
}

// draw hands out memory that couldn't be had otherwise.
func (p *pool) draw(size uint64) (addr uint64, err error) {
	k := &p.kept
	if k.debt+int64(size) > k.size {
		return 0, ErrNoMemory
	}
	for {
		if addr, err = p.find(size); err == nil {
			k.debt += int64(size)
			break
		}
		last := len(k.units) - 1
		if last < 0 {
			break
		}
		p.free(k.units[last], unitSize)
		k.units = k.units[:last]
	}
	p.weigh()
	return addr, err
}

// settle pays the debt, if there is memory to be had for it, and fills the
// reserve.
func (p *pool) settle() {
	k := &p.kept
	if k.debt > 0 && p.granted(0) && (p.supply == nil || p.supply.Grant(uint64(k.debt))) {
		k.debt = 0
	}
	for k.debt == 0 && int64(len(k.units))*unitSize < k.size {
		base, err := p.takeUnits(1)
		if err != nil {
			break
		}
		k.units = append(k.units, base)
	}
	p.weigh()
}

// repaid says that so many bytes were given back.
func (p *pool) repaid(size uint64) {
	if k := &p.kept; p.short() {
		k.debt = max(0, k.debt-int64(size))
		p.settle()
	}
}

// short reports whether the reserve was drawn on.
func (p *pool) short() bool { return Reserved(p.kept.level.Load()) != Ample }

// weigh finds out how much of the reserve is there.
func (p *pool) weigh() {
	k := &p.kept
	level := Spent
	switch left := min(k.size-k.debt, int64(len(k.units))*unitSize); {
	case left >= k.size:
		level = Ample
	case left >= k.size/2:
		level = Drawn
	}
	k.level.Store(uint32(level))
}

// Prepare takes memory for a change that is about to begin, n bytes by the sum of
// Needs, and keeps it until Release. The error is ErrNoMemory.
func (s *Space) Prepare(n int) error {
	size := spanSize(max(uint64(n), unitSize)) + unitSize // one more, for what small pieces leave of units
	if r := s.held.ready; r != nil && size <= r.span {
		return nil
	}
	base, err := process.take(size, false)
	if err != nil {
		return err
	}
	s.Release()
	s.held.ready = &ready{base: base, span: size}
	return nil
}

// Release gives back what Prepare took and the change didn't need.
func (s *Space) Release() {
	if r := s.held.ready; r != nil {
		s.held.ready = nil
		r.giveAll()
	}
}

// Fits reports whether the space has room for a record with n bytes of key and value
// in its own memory, of which something was deleted then.
func (s *Space) Fits(n int) bool {
	if n = roundUp(n + wideHead); n > maxBlock {
		return false
	}
	return s.end-s.cur >= uint64(n) || len(s.held.spares) > 0 || s.largest() >= class(n)
}

// ready is memory for what is about to be done: whole units and, of one that was cut
// into chunks, what is left, which is never two of one size.
type ready struct {
	base, span uint64
	chunks     [unitOrder]uint64 // by order; 0 for none
}

// take takes size bytes, as spanSize has given, off what is ready.
func (r *ready) take(size uint64) (addr uint64, ok bool) {
	if r == nil {
		return 0, false
	}
	if size >= unitSize {
		return r.units(size)
	}
	order := bits.TrailingZeros64(size)
	o := order
	for o < unitOrder && r.chunks[o] == 0 {
		o++
	}
	if o < unitOrder {
		addr, r.chunks[o] = r.chunks[o], 0
	} else if addr, ok = r.units(unitSize); ok {
		process.open(addr)
	} else {
		return 0, false
	}
	for ; o > order; o-- {
		r.chunks[o-1] = addr + 1<<(o-1)
	}
	return addr, true
}

func (r *ready) units(size uint64) (addr uint64, ok bool) {
	if r.span < size {
		return 0, false
	}
	addr = r.base
	r.base += size
	r.span -= size
	return addr, true
}

func (r *ready) giveAll() {
	if r == nil {
		return
	}
	for o, addr := range r.chunks {
		if addr != 0 {
			process.give(addr, 1<<o)
		}
	}
	if r.span > 0 {
		process.give(r.base, r.span)
	}
}
