package slab

import (
	"bytes"
	"math"
	"runtime"
	"unsafe"

	"vecino/value"
)

// A Space is the records of one logical database: a table of keys in the
// order of their hashes, whose memory is all its own. One goroutine uses it
// at a time.
//
// The table is value.Table in other clothes; its comment explains the idea
// and what a cursor means, which is the same here. What differs:
//
//   - Nothing is a pointer. Segments are blocks, as records are.
//
//   - A slot is 8 bytes, tag and reference, so a lookup that has found its
//     directory entry reads one line of slots and then the record.
//
//   - The directory entry has the shape of its segment, not only its place.
//
//   - A segment's number of slots need not be a power of two, so segments
//     are five sixths full at any number of keys, not half after they have split.
//     The home slot is the hash as a fraction of the segment, times the slots. Homes
//     begin at cursors: only CursorBits of the hash choose.
//
//     directory  | depth 6 | chain 1 | slots 9 | segment 48 |      1<<Space.depth of them
//
//     segment    word 0  | kind | small | first bits of the hashes in it 48 |
//     word 1  | block/8 11 | depth 6 | slots 10 | elements 10 |
//     word 2  | 0 | the next of the chain 48 |
//     slots   | distance+1 (9) | hash bits (7) | record 48 |
type Space struct {
	arena
	seed    uint64
	dir     []uint64
	one     [1]uint64 // the first directory
	n       int
	deep    int    // segments as deep as the directory
	index   int64  // bytes of segments
	changes uint32 // counts what may disturb a scan
	depth   uint8
	wide    uint16 // the most slots a segment ever had
	expiry  expiry
	prints  prints
	cleanup runtime.Cleanup
}

const (
	segmentHead = 24
	tagShift    = 48
	tagBits     = 7
	oneFurther  = 1 << tagBits
	maxSlots    = (4096 - segmentHead) / 8
	maxDepth    = value.CursorBits - 9 // so that each home slot begins at a cursor
	lowBits     = 1<<(64-value.CursorBits) - 1

	entrySlots = 48
	entryDepth = 58
	chainBit   = 1 << 57 // the segment is the first of a chain
)

// steps are the numbers of slots that segments have, small to large. The last
// three are what segments of a large table go through between two splits.
var steps = [...]uint16{4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 192, 253, 333, 413, maxSlots}

// New makes an empty space, whose hashes are value.Hash64(seed, key). It takes memory with
// its first record and gives it back when closed, or when nobody
// refers to it any more.
func New(seed uint64) *Space {
	s := &Space{seed: seed}
	s.held = new(holdings)
	s.cleanup = runtime.AddCleanup(s, reap, s.held)
	return s
}

// Close gives back all memory, soon and on another goroutine. The space is
// empty then and can be used again.
func (s *Space) Close() {
	s.cleanup.Stop()
	reap(s.held)
	*s = Space{seed: s.seed, changes: s.changes + 1}
	s.held = new(holdings)
	s.cleanup = runtime.AddCleanup(s, reap, s.held)
}

// Hash is the hash by which key is looked up here.
func (s *Space) Hash(key []byte) uint64 { return value.Hash64(s.seed, key) }

// Len is the number of records.
func (s *Space) Len() int { return s.n }

// Stats is what memory a space has.
type Stats struct {
	Held  int64 // all of it
	Live  int64 // of which records and table
	Index int64 // of which the table, and fingerprints
	Dead  int64 // of Held: free blocks that wait for use or compaction
}

// Stats tells what memory the space has.
func (s *Space) Stats() Stats {
	goHeap := int64(8*cap(s.dir) + 8*cap(s.free) + 8*cap(s.expiry.pages) + 8*cap(s.prints.dir) + 16*cap(s.held.units) + 16*cap(s.held.small) + 400)
	return Stats{
		Held:  s.total + s.large + goHeap,
		Live:  s.live + s.large + goHeap,
		Index: s.index + s.prints.bytes + int64(8*cap(s.dir)+8*cap(s.prints.dir)),
		Dead:  s.wasted(),
	}
}

func shape(depth uint8, slots int, ref uint64) uint64 {
	return uint64(depth)<<entryDepth | uint64(slots)<<entrySlots | ref
}

// home is the home slot of a hash in the segment of a directory entry.
func home(entry, hash uint64) int {
	return int((hash &^ lowBits << (entry >> entryDepth) >> 16) * (entry >> entrySlots & 511) >> 48)
}

func tagOf(hash uint64) uint64 { return oneFurther | hash&(oneFurther-1) }

func slotsOf(entry uint64) int { return int(entry >> entrySlots & 511) }

func slot(entry uint64, i int) *uint64 { return word(entry&refMask + segmentHead + uint64(i)*8) }

// A segment's words.
func segCount(ref uint64) int           { return int(*word(ref + 8) & 1023) }
func segAdd(ref uint64, n int)          { *word(ref + 8) += uint64(n) }
func segMore(ref uint64) uint64         { return *word(ref + 16) & refMask }
func segSetMore(ref, more uint64)       { *word(ref + 16) = more }
func segLimit(slots int) int            { return slots - max(1, slots/12) }
func entryOf(s *Space, h uint64) uint64 { return s.dir[h>>(64-s.depth)] }

// segEntry is the directory entry of a segment.
func segEntry(ref uint64) uint64 {
	w := *word(ref + 8)
	e := shape(uint8(w>>47&63), int(w>>37&1023), ref)
	if segMore(ref) != 0 {
		e |= chainBit
	}
	return e
}

// chained is the entry of the segment behind that of e, 0 if there is none.
func chained(e uint64) uint64 {
	if e&chainBit == 0 {
		return 0
	}
	return segEntry(segMore(e & refMask))
}

// Find returns the record with that key, or 0. hash is Hash(key), here and
// below: a caller computes it once.
func (s *Space) Find(hash uint64, key []byte) Rec {
	if s.n == 0 {
		return 0
	}
	for e := entryOf(s, hash); ; {
		slots := slotsOf(e)
		i := home(e, hash)
		base := mem(e&refMask + segmentHead)
		for want := tagOf(hash); ; want += oneFurther {
			v := *(*uint64)(unsafe.Add(base, 8*i))
			if tag := v >> tagShift; tag == want {
				// As bytes.Equal(r.Key(), key), with the common case in line.
				r := Rec(v & refMask)
				if w0 := *r.word(0); w0&(wideBit|timedBit) != 0 {
					if bytes.Equal(r.Key(), key) {
						return r
					}
				} else if n := int(uint8(*r.word(1) >> 40)); n == len(key) && string(bytesAt(uint64(r)+narrowHead, n)) == string(key) {
					return r
				}
			} else if tag < want {
				break
			}
			if i++; i == slots {
				i = 0
			}
		}
		if e = chained(e); e == 0 {
			return 0
		}
	}
}

// Approach loads the slot where Touch and Find begin. Called for many keys before
// Touch is, cache misses overlap instead of following each other: nothing here
// depends on what the slot holds, so the processor never has to wait for it to know
// how to go on. What it returns means nothing, but only a caller that uses it,
// adding all up for instance, makes the loads happen.
func (s *Space) Approach(hash uint64) uint64 {
	if s.n == 0 {
		return 0
	}
	e := entryOf(s, hash)
	return *slot(e, home(e, hash))
}

// ApproachInsert reads what an Insert of that hash reads first, beside what Approach
// does. The result means nothing.
func (s *Space) ApproachInsert(hash uint64) uint64 {
	if s.n == 0 {
		return 0
	}
	return uint64(segCount(entryOf(s, hash) & refMask))
}

// Touch returns the record that Find will most likely find, or 0. A caller that
// goes on to read the Seq and then the Key of many records has those cache misses
// overlap as well.
func (s *Space) Touch(hash uint64) Rec {
	if s.n == 0 {
		return 0
	}
	e := entryOf(s, hash)
	slots := slotsOf(e)
	i := home(e, hash)
	base := mem(e&refMask + segmentHead)
	for want := tagOf(hash); ; want += oneFurther {
		v := *(*uint64)(unsafe.Add(base, 8*i))
		if tag := v >> tagShift; tag == want {
			return Rec(v & refMask)
		} else if tag < want {
			return 0
		}
		if i++; i == slots {
			i = 0
		}
	}
}

// Insert makes a record for a key that is not here. Its value is a copy of
// val, and can become room bytes long in place. A deadline of 0 is none. kind is
// from 1 to MaxKind; flags, seq and clock are zero. The error is ErrNoMemory.
func (s *Space) Insert(hash uint64, key, val []byte, room int, kind uint8, deadline int64) (Rec, error) {
	if deadline != 0 {
		if err := s.expiry.reserve(s); err != nil {
			return 0, err
		}
	}
	r, err := s.newRecord(key, val, len(val), room, uint64(kind)<<kindShift, 0, deadline != 0)
	if err != nil {
		return 0, err
	}
	if err := s.enter(hash, r); err != nil {
		s.dealloc(uint64(r), r.Size())
		return 0, err
	}
	s.n++
	s.changes++
	if deadline != 0 {
		s.expiry.add(r, deadline)
	}
	return r, nil
}

// newRecord makes a block for a record with a value of n bytes, which begins
// with val and goes on with zeroes.
func (s *Space) newRecord(key, val []byte, n, room int, w0, clock uint64, timed bool) (Rec, error) {
	block, wide := blockFor(len(key), n, room, timed)
	addr, small, err := s.alloc(block)
	if err != nil {
		return 0, err
	}
	w0 = w0&^(smallBit|wideBit|timedBit) | small
	if timed {
		w0 |= timedBit
	}
	head := narrowHead
	if wide {
		head = wideHead
		w0 |= wideBit
		*word(addr + 8) = clock
		*word(addr + 16) = uint64(len(key))<<32 | uint64(n)
		*word(addr + 24) = uint64(block)
		if block > maxBlock {
			*word(addr + 24) |= ownBit
			s.wrote(addr, head+len(key)+n)
		}
	} else {
		if timed {
			head = timedHead
		}
		slack := block - head - len(key) - n
		*word(addr + 8) = uint64(block/8)<<53 | uint64(len(key))<<40 | uint64(slack)<<32 | clock
	}
	*word(addr) = w0
	b := bytesAt(addr+uint64(head), len(key)+n)
	copy(b, key)
	if k := copy(b[len(key):], val); k < n && block <= maxBlock { // own memory comes zeroed
		clear(b[len(key)+k:])
	}
	return Rec(addr), nil
}

// Remove takes a record out of the space.
func (s *Space) Remove(hash uint64, r Rec) {
	if *r.word(0)&timedBit != 0 {
		s.expiry.remove(s, int(*r.place()))
	}
	s.leave(hash, r)
	s.n--
	s.changes++
	s.dealloc(uint64(r), blockSize(uint64(r)))
}

// Set gives a record another value and returns where it is now. There is
// room to grow to room bytes. val may be part of the record itself. After an error all is as before.
func (s *Space) Set(hash uint64, r Rec, val []byte, room int) (Rec, error) {
	l := r.layout()
	if s.fits(r, l, len(val), room) {
		if l.block > maxBlock {
			s.wrote(uint64(r), l.head+l.key+len(val))
		}
		r.setLength(l, len(val))
		copy(bytesAt(uint64(r)+uint64(l.head+l.key), len(val)), val)
		return r, nil
	}
	to, err := s.replace(hash, r, val, len(val), room, r.Deadline() != 0)
	if err != nil && l.head+l.key+len(val) <= l.block {
		s.keep(r, l, val) // it wastes some, but is true
		return r, nil
	}
	return to, err
}

// keep gives a record a value that fits where it is, though it may leave much
// room behind it.
func (s *Space) keep(r Rec, l layout, val []byte) {
	if l.head != wideHead && l.block-l.head-l.key-len(val) > 255 {
		widen(r, l, val)
		return
	}
	copy(bytesAt(uint64(r)+uint64(l.head+l.key), len(val)), val)
	if l.block > maxBlock {
		s.wrote(uint64(r), l.head+l.key+len(val))
	}
	r.setLength(l, len(val))
}

// widen makes a narrow record wide where it is, with that value, for which there
// is room: a narrow one can't say that more than 255 bytes are empty.
func widen(r Rec, l layout, val []byte) {
	timed := *r.word(0)&timedBit != 0
	deadline, place, clock := r.Deadline(), uint32(0), r.Clock()
	if timed {
		place = *r.place()
	}
	b := bytesAt(uint64(r), l.block)
	copy(b[wideHead+l.key:], val) // which may be part of b, so it comes first
	copy(b[wideHead:], b[l.head:l.head+l.key])
	*r.word(0) |= wideBit
	*r.word(1) = uint64(clock)
	*r.word(2) = uint64(l.key)<<32 | uint64(len(val))
	*r.word(3) = uint64(l.block)
	if timed {
		*r.deadline(), *r.place() = deadline, place
	}
}

// Resize makes the value n bytes long, cutting it or adding zeroes, with room
// to grow to room bytes, and returns where the record is now. After an error
// all is as before.
func (s *Space) Resize(hash uint64, r Rec, n, room int) (Rec, error) {
	l := r.layout()
	if s.fits(r, l, n, room) {
		if n > l.val {
			clear(bytesAt(uint64(r)+uint64(l.head+l.key+l.val), n-l.val))
		}
		if l.block > maxBlock {
			s.wrote(uint64(r), l.head+l.key+n)
		}
		r.setLength(l, n)
		return r, nil
	}
	v := r.Value()
	return s.replace(hash, r, v[:min(n, len(v))], n, room, r.Deadline() != 0)
}

func (s *Space) fits(r Rec, l layout, n, room int) bool {
	if l.block <= maxBlock {
		return l.fits(n, room) && !scrambling
	}
	need := l.head + l.key + max(n, room)
	return need <= l.block && (need > maxBlock && uint64(need)*2 >= s.held.owns[uint64(r)].used)
}

// replace moves a record to a block of another size.
func (s *Space) replace(hash uint64, r Rec, val []byte, n, room int, timed bool) (Rec, error) {
	to, err := s.newRecord(r.Key(), val, n, room, *r.word(0), uint64(r.Clock()), timed)
	if err != nil {
		return r, err
	}
	if at := r.Deadline(); timed && at != 0 {
		*to.deadline() = at
		*to.place() = *r.place()
		s.expiry.moved(to)
	}
	s.setSlot(hash, r, to)
	s.changes++
	s.dealloc(uint64(r), blockSize(uint64(r)))
	return to, nil
}

// SetDeadline gives a record a deadline, or takes it away with 0, and returns
// where the record is now. After an error all is as before.
func (s *Space) SetDeadline(hash uint64, r Rec, deadline int64) (Rec, error) {
	had := *r.word(0)&timedBit != 0
	switch {
	case had && deadline != 0:
		s.expiry.change(r, deadline)
		return r, nil
	case !had && deadline == 0:
		return r, nil
	}
	l := r.layout()
	if had {
		place := int(*r.place())
		if l.head == wideHead {
			s.expiry.remove(s, place)
			*r.word(0) &^= timedBit
			return r, nil
		}
		if slack := l.block - l.head - l.key - l.val + 12; slack <= 255 {
			s.expiry.remove(s, place)
			*r.word(0) &^= timedBit
			s.shift(r, l, narrowHead)
			return r, nil
		}
		to, err := s.replace(hash, r, r.Value(), l.val, l.val, false)
		if err != nil {
			widen(r, l, r.Value())
			*r.word(0) &^= timedBit
			to = r
		}
		s.expiry.remove(s, place)
		return to, nil
	}
	if err := s.expiry.reserve(s); err != nil {
		return r, err
	}
	if l.head == wideHead || l.head+l.key+l.val+12 <= l.block {
		*r.word(0) |= timedBit
		if l.head != wideHead {
			s.shift(r, l, timedHead)
		}
	} else {
		to, err := s.replace(hash, r, r.Value(), l.val, l.val, true)
		if err != nil {
			return r, err
		}
		r = to
	}
	s.expiry.add(r, deadline)
	return r, nil
}

// shift moves key and value of a narrow record within its block, to head.
func (s *Space) shift(r Rec, l layout, head int) {
	b := bytesAt(uint64(r), l.block)
	copy(b[head:], b[l.head:l.head+l.key+l.val])
	l.head = head
	r.setLength(l, l.val)
}

// Range calls fn for all records until it returns false. fn must not insert
// or remove, or move records; ScanFrom is there for that.
func (s *Space) Range(fn func(Rec) bool) {
	for i := 0; i < len(s.dir); {
		e := s.dir[i]
		depth := uint8(e >> entryDepth)
		for {
			for j := range slotsOf(e) {
				if v := *slot(e, j); v != 0 && !fn(Rec(v&refMask)) {
					return
				}
			}
			if e = chained(e); e == 0 {
				break
			}
		}
		i += 1 << (s.depth - depth)
	}
}

// ScanFrom calls fn for records in the order of their hashes, from cursor on
// (0 to begin), and returns the cursor to go on with, 0 when all has been
// given. It stops after count records, or slightly more when several have
// the same home slot, or fewer when it came through much emptiness. A record
// that is here from the first call to the last is given, and only once.
//
// fn may insert, remove, and change records.
func (s *Space) ScanFrom(cursor uint64, count int, fn func(hash uint64, r Rec)) (next uint64) {
	if cursor >= 1<<value.CursorBits {
		return 0
	}
	var room [8]hashed
	pos := cursor << (64 - value.CursorBits)
	count = min(count, 1<<24) // so that patience stays in range
	given, passed, patience := 0, 0, 8*count+1<<9
	last, same := pos, 0 // the hash given last, and how many of it
	limited, until := false, uint64(0)
	for ahead := pos; s.n > 0; {
		if pos >= ahead && ahead != 0 {
			ahead, _ = s.glance(pos, min(count, mostGlanced))
		}
		group, end, slots := s.collect(pos, room[:0])
		if limited && until != 0 && (end == 0 || end > until) {
			end = until
		}
		changes, ties, again := s.changes, 0, false
		for _, g := range group {
			if end != 0 && g.hash >= end {
				break
			}
			if g.hash == last {
				if ties++; ties <= same {
					continue
				}
			} else if g.hash < last {
				continue
			} else {
				last, same, ties = g.hash, 0, 1
			}
			same++
			given++
			fn(g.hash, g.rec)
			if s.changes != changes {
				again = true // the others of the group may be elsewhere now
				break
			}
		}
		if again {
			if !limited {
				limited, until = true, end
			}
			continue
		}
		if end == until {
			limited = false
		}
		passed += slots
		pos = end
		if pos == 0 {
			return 0
		}
		last, same = pos, 0
		if given >= count || passed > patience {
			return pos >> (64 - value.CursorBits)
		}
	}
	return 0
}

// mostGlanced is at how many slots ScanFrom glances at a time: their records' lines fit in a
// processor's first cache.
const mostGlanced = 64

type hashed struct {
	hash uint64
	rec  Rec
}

// collect appends to group, in order, the records at or after pos of the
// first home slot that has any, looking no further than the end of the
// segment. It returns the position behind that slot, 0 when that is the end
// of all, and how many slots it looked at.
func (s *Space) collect(pos uint64, group []hashed) (_ []hashed, end uint64, looked int) {
	head := entryOf(s, pos)
	slots := slotsOf(head)
	first := home(head, pos)
	at := first
	for ; at < slots && len(group) == 0; at++ {
		for e := head; ; {
			// All of a chain have as many slots, or this couldn't go by slots.
			for away := 0; away < slots; away++ {
				i := at + away
				if i >= slots {
					i -= slots
				}
				v := *slot(e, i)
				distance := int(v >> (tagShift + tagBits))
				if distance <= away {
					break
				}
				if distance == away+1 {
					group = s.addInOrder(group, Rec(v&refMask), pos)
				}
			}
			if e = chained(e); e == 0 {
				break
			}
		}
	}
	return group, position(head, pos, at), at - first
}

// position is the first whose home is that slot of the segment of pos: home() the other way round. Behind
// the last slot it is where the next segment begins, 0 if there is none.
func position(e, pos uint64, at int) uint64 {
	depth, slots := e>>entryDepth, slotsOf(e)
	begin := pos &^ (1<<(64-depth) - 1)
	if at == slots {
		if depth == 0 {
			return 0
		}
		return begin + 1<<(64-depth)
	}
	offset := (uint64(at)<<48 + uint64(slots)<<depth - 1) / (uint64(slots) << depth)
	return begin + offset<<16
}

// glance reads the records in the next slots of the segment of pos, and returns the position
// behind those. They are in no cache as a rule; so the processor waits for many of them at a time, and
// not for one after the other when they are looked at.
// The second result means nothing.
func (s *Space) glance(pos uint64, slots int) (end, lines uint64) {
	e := entryOf(s, pos)
	first := home(e, pos)
	last := min(first+slots, slotsOf(e))
	for i := first; i < last; i++ {
		if v := *slot(e, i); v != 0 {
			lines += *Rec(v & refMask).word(0)
		}
	}
	for i := first; i < last; i++ { // the ends of keys may be in the next line
		if v := *slot(e, i); v != 0 {
			if key := Rec(v & refMask).Key(); len(key) > 0 {
				lines += uint64(key[len(key)-1])
			}
		}
	}
	return position(e, pos, last), lines
}

// addInOrder adds r to group, which is and stays ordered by hash, unless it
// comes before pos.
func (s *Space) addInOrder(group []hashed, r Rec, pos uint64) []hashed {
	g := hashed{s.Hash(r.Key()), r}
	if g.hash < pos {
		return group
	}
	group = append(group, g)
	for i := len(group) - 1; i > 0 && group[i-1].hash > g.hash; i-- {
		group[i-1], group[i] = group[i], group[i-1]
	}
	return group
}

// Random returns a record, each as likely as any other, or 0 if there is
// none.
func (s *Space) Random(rng value.Rand) Rec {
	if s.n == 0 {
		return 0
	}
	for range 256 { // as value.Table does
		r := rng.Uint64()
		i := int(r >> 32 & (1<<s.depth - 1))
		e := s.dir[i]
		if i&(1<<(s.depth-uint8(e>>entryDepth))-1) != 0 {
			continue
		}
		for at := int(uint64(uint32(r)) * uint64(s.wide) >> 32); ; {
			if at < slotsOf(e) {
				if v := *slot(e, at); v != 0 {
					return Rec(v & refMask)
				}
			}
			if e = chained(e); e == 0 {
				break
			}
		}
	}
	var found Rec
	s.ScanFrom(rng.Uint64()>>(64-value.CursorBits), 1, func(_ uint64, r Rec) { found = r })
	if found == 0 {
		s.Range(func(r Rec) bool { found = r; return false })
	}
	return found
}

// enter puts a record into the table.
func (s *Space) enter(hash uint64, r Rec) error {
	if s.dir == nil {
		e, err := s.newSegment(0, int(steps[0]), 0)
		if err != nil {
			return err
		}
		s.one[0] = e
		s.dir = s.one[:]
		s.deep = 1
	}
	e := entryOf(s, hash)
	for n := segCount(e & refMask); n >= segLimit(slotsOf(e)); n = segCount(e & refMask) {
		to, err := s.makeRoom(e, hash)
		if err != nil {
			if n < slotsOf(e)-1 {
				break // it does for now
			}
			return err
		}
		e = to
	}
	s.put(e, hash, uint64(r))
	return nil
}

// Expect readies an empty space for about n records, so that the table need not
// grow step by step while they come: a third of what it takes to put them in. Too
// many or too few are no harm, but for the memory of n slots.
func (s *Space) Expect(n int) {
	if s.dir != nil || n < segLimit(maxSlots) {
		return
	}
	depth := uint8(1)
	for n>>depth > expectMost && depth < maxDepth {
		depth++
	}
	// Room for what a segment gets on average, and as much more as most of them
	// get by chance; the others grow once.
	each := n >> depth
	each += int(math.Sqrt(float64(each)))
	slots := maxSlots
	for _, step := range steps {
		if segLimit(int(step)) >= each {
			slots = int(step)
			break
		}
	}
	s.patient = true
	defer func() { s.patient = false }()
	dir := make([]uint64, 1<<depth)
	for i := range dir {
		e, err := s.newSegment(depth, slots, uint64(i)<<(64-depth))
		if err != nil { // it grows step by step, then, as far as it can
			for _, made := range dir[:i] {
				s.freeSegment(made & refMask)
			}
			return
		}
		dir[i] = e
	}
	s.dir, s.depth, s.deep = dir, depth, len(dir)
}

// expectMost is for how many records at most Expect makes a segment.
const expectMost = 400

// makeRoom returns a segment for that hash that has more room than e, which
// is full.
func (s *Space) makeRoom(e, hash uint64) (uint64, error) {
	if slots := slotsOf(e); slots < maxSlots {
		i := 0
		for int(steps[i]) <= slots {
			i++
		}
		return s.resize(e, int(steps[i]), hash)
	}
	done, err := s.split(e, hash)
	if err != nil {
		return 0, err
	}
	if done {
		return entryOf(s, hash), nil
	}
	to, err := s.roomInChain(e)
	s.setDir(hash, segEntry(e&refMask))
	return to, err
}

func (s *Space) newSegment(depth uint8, slots int, hash uint64) (entry uint64, err error) {
	size := segmentHead + 8*slots
	if size > exact {
		size = roundUp(size)
	}
	addr, small, err := s.alloc(size)
	if err != nil {
		return 0, err
	}
	*word(addr) = kindSegment<<kindShift | small | hash>>16
	*word(addr + 8) = uint64(size/8)<<53 | uint64(depth)<<47 | uint64(slots)<<37
	clear(bytesAt(addr+16, size-16))
	s.index += int64(size)
	s.wide = max(s.wide, uint16(slots))
	return shape(depth, slots, addr), nil
}

func (s *Space) freeSegment(ref uint64) {
	size := blockSize(ref)
	s.index -= int64(size)
	s.dealloc(ref, size)
}

// put inserts a record into a segment that has room.
func (s *Space) put(e, hash, ref uint64) {
	slots := slotsOf(e)
	i := home(e, hash)
	tag := tagOf(hash)
	for *slot(e, i)>>tagShift >= tag {
		if i++; i == slots {
			i = 0
		}
		tag += oneFurther
	}
	for v := tag<<tagShift | ref; ; v += oneFurther << tagShift { // each moves by one, up to the first empty slot
		p := slot(e, i)
		v, *p = *p, v
		if v == 0 {
			break
		}
		if i++; i == slots {
			i = 0
		}
	}
	segAdd(e&refMask, 1)
}

// seek returns the segment and slot where a record stands.
func (s *Space) seek(hash uint64, r Rec) (e uint64, i int) {
	for e = entryOf(s, hash); ; {
		slots := slotsOf(e)
		i := home(e, hash)
		for want := tagOf(hash); ; want += oneFurther {
			v := *slot(e, i)
			if v&refMask == uint64(r) && v != 0 {
				return e, i
			}
			if v>>tagShift < want {
				break
			}
			if i++; i == slots {
				i = 0
			}
		}
		if e = chained(e); e == 0 {
			panic("slab: a record that is not in the table")
		}
	}
}

func (s *Space) setSlot(hash uint64, r, to Rec) {
	p := slot(s.seek(hash, r))
	*p = *p&^refMask | uint64(to)
}

// leave takes a record out of the table.
func (s *Space) leave(hash uint64, r Rec) {
	e, i := s.seek(hash, r)
	slots := slotsOf(e)
	for {
		next := i + 1
		if next == slots {
			next = 0
		}
		v := *slot(e, next)
		if v>>tagShift < 2*oneFurther { // empty, or at home
			break
		}
		*slot(e, i) = v - oneFurther<<tagShift
		i = next
	}
	*slot(e, i) = 0
	segAdd(e&refMask, -1)
	head := entryOf(s, hash)
	if segCount(head&refMask) <= slotsOf(head)/8 {
		s.shrink(head, hash)
	}
}

// each calls fn for the records of a chain, with their hashes, until it returns false.
// What a hash is made of lies anywhere in memory: the records of a batch are read before
// any of them is hashed, so that the cache misses overlap.
func (s *Space) each(from uint64, fn func(hash uint64, r Rec) bool) {
	var batch [64]hashed
	for ; from != 0; from = chained(from) {
		slots := slotsOf(from)
		for i := 0; i < slots; {
			n := 0
			for ; i < slots && n < len(batch); i++ {
				if v := *slot(from, i); v != 0 {
					r := Rec(v & refMask)
					batch[n] = hashed{*r.word(0), r}
					n++
				}
			}
			for k := range batch[:n] { // the ends of keys may be in the next line
				g := &batch[k]
				if key := g.rec.Key(); len(key) > 0 {
					g.hash += uint64(key[len(key)-1])
				}
			}
			for k := range batch[:n] {
				if g := &batch[k]; !fn(s.Hash(g.rec.Key()), g.rec) {
					return
				}
			}
		}
	}
}

// moveAll puts the records of a chain into a segment that has room for them.
func (s *Space) moveAll(from, to uint64) {
	s.each(from, func(hash uint64, r Rec) bool {
		s.put(to, hash, uint64(r))
		return true
	})
}

func (s *Space) freeChain(ref uint64) {
	for ref != 0 {
		more := segMore(ref)
		s.freeSegment(ref)
		ref = more
	}
}

// resize gives the segment of that hash, which has no chain, another number
// of slots.
func (s *Space) resize(e uint64, slots int, hash uint64) (uint64, error) {
	depth := uint8(e >> entryDepth)
	to, err := s.newSegment(depth, slots, hash)
	if err != nil {
		return 0, err
	}
	s.moveAll(e, to)
	s.setDir(hash, to)
	s.freeSegment(e & refMask)
	return to, nil
}

// split puts two segments in the place of e, the segment of that hash. It
// reports false, having done nothing, if that would need too large a
// directory.
func (s *Space) split(e, hash uint64) (bool, error) {
	depth := uint8(e >> entryDepth)
	if depth == s.depth && (s.depth >= maxDepth || len(s.dir) > 64+s.n/32) {
		return false, nil // with hashes spread evenly this is far away
	}
	if segMore(e&refMask) != 0 {
		return s.splitChain(e, hash)
	}
	// As many slots as the halves need.
	bit := uint64(1) << (63 - depth)
	upper := 0
	s.each(e, func(hash uint64, _ Rec) bool {
		if hash&bit != 0 {
			upper++
		}
		return true
	})
	return s.splitInto(e, hash, slotsFor(segCount(e&refMask)-upper), slotsFor(upper))
}

func (s *Space) splitChain(e, hash uint64) (bool, error) {
	return s.splitInto(e, hash, maxSlots, maxSlots)
}

// slotsFor is how many slots n records get, with room for some more.
func slotsFor(n int) int {
	for _, slots := range steps {
		if n+n/8 < segLimit(int(slots)) {
			return int(slots)
		}
	}
	return maxSlots
}

func (s *Space) splitInto(e, hash uint64, slots0, slots1 int) (bool, error) {
	depth := uint8(e >> entryDepth)
	bit := uint64(1) << (63 - depth)
	lower, err := s.newSegment(depth+1, slots0, hash&^bit)
	if err != nil {
		return false, err
	}
	upper, err := s.newSegment(depth+1, slots1, hash|bit)
	if err != nil {
		s.freeSegment(lower & refMask)
		return false, err
	}
	if depth == s.depth {
		dir := make([]uint64, 2*len(s.dir))
		for i, e := range s.dir {
			dir[2*i], dir[2*i+1] = e, e
		}
		s.dir = dir
		s.depth++
		s.deep = 0
	}
	ends := [2]uint64{lower, upper}
	failed := false
	s.each(e, func(h uint64, r Rec) bool {
		half := 0
		if h&bit != 0 {
			half = 1
		}
		to, err := s.roomInChain(ends[half])
		if err != nil {
			failed = true
			return false
		}
		s.put(to, h, uint64(r))
		return true
	})
	if failed { // a chain, and no memory for what it becomes: all stays
		s.freeChain(lower & refMask)
		s.freeChain(upper & refMask)
		s.recountDeep()
		return false, ErrNoMemory
	}
	s.setDir(hash&^bit, segEntry(lower&refMask)) // they may be chains now
	s.setDir(hash|bit, segEntry(upper&refMask))
	if depth+1 == s.depth {
		s.deep += 2
	}
	s.freeChain(e & refMask)
	return true, nil
}

func (s *Space) recountDeep() {
	s.deep = 0
	for _, e := range s.dir {
		if uint8(e>>entryDepth) == s.depth {
			s.deep++
		}
	}
	for s.deep == 0 && s.depth > 0 {
		s.halveDir()
	}
}

// roomInChain returns e, or what is chained behind it, whichever has room.
func (s *Space) roomInChain(e uint64) (uint64, error) {
	for segCount(e&refMask) >= segLimit(slotsOf(e)) {
		more := segMore(e & refMask)
		if more == 0 {
			if slotsOf(e) < maxSlots {
				return e, nil // it was measured for what it gets
			}
			made, err := s.newSegment(uint8(e>>entryDepth), maxSlots, *word(e & refMask)<<16)
			if err != nil {
				return 0, err
			}
			more = made & refMask
			segSetMore(e&refMask, more)
			e |= chainBit
		}
		e = segEntry(more)
	}
	return e, nil
}

// shrink makes the segment of that hash smaller, or joins it with the one it
// was once split from. Both happen far below the filling at which they are
// undone. Without memory for it, it stays.
func (s *Space) shrink(e, hash uint64) {
	for prev, more := e&refMask, segMore(e&refMask); more != 0; more = segMore(prev) {
		if segCount(more) > 0 {
			return
		}
		segSetMore(prev, segMore(more))
		s.freeSegment(more)
		e = segEntry(e & refMask)
		s.setDir(hash, e)
	}
	n := segCount(e & refMask)
	depth := uint8(e >> entryDepth)
	if depth == 0 {
		if slots := slotsFor(n); slots < slotsOf(e) {
			if _, err := s.resize(e, slots, hash); err == nil {
				s.wide = uint16(slots)
			}
		}
		return
	}
	other := entryOf(s, hash^1<<(64-depth))
	both := n + segCount(other&refMask)
	if uint8(other>>entryDepth) != depth || segMore(other&refMask) != 0 || both > segLimit(maxSlots)/2 {
		return
	}
	joined, err := s.newSegment(depth-1, slotsFor(both), hash&^(1<<(64-depth)))
	if err != nil {
		return
	}
	s.moveAll(e, joined)
	s.moveAll(other, joined)
	s.setDir(hash, joined)
	s.freeSegment(e & refMask)
	s.freeSegment(other & refMask)
	if depth == s.depth {
		s.deep -= 2
	}
	for s.deep == 0 && s.depth > 0 {
		s.halveDir()
	}
	if segCount(joined&refMask) <= slotsOf(joined)/8 {
		s.shrink(joined, hash)
	}
}

func (s *Space) halveDir() {
	s.depth--
	s.deep = 0
	dir := s.one[:]
	if s.depth > 0 {
		dir = make([]uint64, len(s.dir)/2)
	}
	for i := range dir {
		dir[i] = s.dir[2*i]
		if uint8(dir[i]>>entryDepth) == s.depth {
			s.deep++
		}
	}
	s.dir = dir
}

// setDir lets all directory entries of the segment of that hash, as deep as e
// says, be e.
func (s *Space) setDir(hash, e uint64) {
	depth := uint8(e >> entryDepth)
	span := 1 << (s.depth - depth)
	first := int(hash>>(64-s.depth)) &^ (span - 1)
	for i := range span {
		s.dir[first+i] = e
	}
}

// Compact moves some blocks, if much of the memory is free and lies
// scattered, and reports whether there is more to do. It looks at about so many blocks,
// a large one counting for several; 256 take some 20 µs. All Recs are void
// afterwards.
func (s *Space) Compact(blocks int) (more bool) {
	v := &s.victim
	for blocks > 0 {
		if v.base == 0 && !s.chooseVictim() {
			return false
		}
		if !v.moving {
			blocks = s.unlinkVictim(blocks)
			continue
		}
		for blocks > 0 && v.pos < v.end {
			size := blockSize(v.pos)
			if kind := *word(v.pos) >> kindShift; kind != kindDead && kind != kindPad {
				if !s.move(v.pos, size) { // without memory, another time
					v.base = 0
					return false
				}
				blocks -= 2 + size/256
			}
			blocks--
			v.pos += uint64(size)
		}
		if v.pos >= v.end {
			s.dropVictim()
		}
	}
	return true
}

// move moves a block elsewhere, and lets what refers to it do so there.
func (s *Space) move(addr uint64, size int) bool {
	s.patient = true
	to, small, err := s.alloc(size)
	s.patient = false
	if err != nil {
		return false
	}
	s.changes++
	copy(bytesAt(to, size), bytesAt(addr, size))
	w0 := *word(addr)
	*word(to) = w0&^smallBit | small
	switch w0 >> kindShift {
	case kindPage:
		s.expiry.pages[w0&refMask] = to
	case kindPrints:
		s.movedPrints(w0, to)
	case kindSegment:
		hash := w0 << 16
		if e := entryOf(s, hash); e&refMask == addr {
			s.setDir(hash, segEntry(to))
		} else {
			ref := e & refMask
			for segMore(ref) != addr {
				ref = segMore(ref)
			}
			segSetMore(ref, to)
		}
	default:
		r := Rec(to)
		s.setSlot(s.Hash(r.Key()), Rec(addr), r)
		if w0&timedBit != 0 {
			s.expiry.moved(r)
		}
	}
	s.dealloc(addr, size)
	return true
}
