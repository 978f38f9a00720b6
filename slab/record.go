package slab

import "unsafe"

// A Rec is a record: a key, its value, and what is known of both. It is the
// address of a block, so it is good until the record is moved: by Set,
// Resize, SetDeadline or Remove of this record, which return where it has
// gone, or by Compact. Insert and changes of other records never move it. Zero is no record.
//
//	word 0   | kind 4 | small 1 | wide 1 | timed 1 | flags 9 | seq 48 |
//	word 1   | block/8 11 | 5 free | key length 8 | slack 8 | clock 32 |
//	         | deadline 64 | heap place 32 |               if it is timed
//	         key, value, slack
//
// A record with a long key, much slack or more than 8 KiB is wide:
//
//	word 2   | key length 32 | value length 32 |
//	word 3   | own 1 | block 63 |
//	         | deadline 64 | heap place 32 | 32 free |     always
//	         key, value, slack
type Rec uint64

const (
	kindShift = 60
	smallBit  = 1 << 59 // the block lies in a chunk of less than a unit
	wideBit   = 1 << 58
	timedBit  = 1 << 57
	flagShift = 48
	flagMask  = 1<<9 - 1
	seqMask   = 1<<48 - 1
	refMask   = 1<<48 - 1

	ownBit = 1 << 63 // of word 3: the block has its memory for itself

	narrowHead = 16
	timedHead  = narrowHead + 12
	wideHead   = 48
	maxNarrow  = 8 << 10
)

// Kinds of blocks. Those from 1 to MaxKind are records.
const (
	kindFree    = 0 // in a free list
	MaxKind     = 10
	kindPrints  = 11 // a bucket of fingerprints
	kindDead    = 12 // free, but in no list
	kindPad     = 13 // 8 bytes that are of no use
	kindPage    = 14 // of the expiry heap
	kindSegment = 15 // of the index
)

// MaxSeq is the largest number that fits a record.
const MaxSeq = seqMask

// MaxFlags are all flags that a record can have. They are the caller's.
const MaxFlags = flagMask

func word(addr uint64) *uint64 { return (*uint64)(mem(addr)) }

func bytesAt(addr uint64, n int) []byte { return unsafe.Slice((*byte)(mem(addr)), n) }

func (r Rec) word(i uint64) *uint64 { return word(uint64(r) + 8*i) }

// Kind is the kind of value that the record was given.
func (r Rec) Kind() uint8 { return uint8(*r.word(0) >> kindShift) }

// SetKind changes the kind, to one of 1 to MaxKind.
func (r Rec) SetKind(kind uint8) {
	w := r.word(0)
	*w = *w&^(15<<kindShift) | uint64(kind)<<kindShift
}

// Flags are the flags of a record, of which there are nine.
func (r Rec) Flags() uint16 { return uint16(*r.word(0)>>flagShift) & flagMask }

// Has reports whether a record has any of those flags.
func (r Rec) Has(flags uint16) bool { return *r.word(0)>>flagShift&uint64(flags) != 0 }

// Mark sets flags.
func (r Rec) Mark(flags uint16) { *r.word(0) |= uint64(flags&flagMask) << flagShift }

// Unmark takes flags away.
func (r Rec) Unmark(flags uint16) { *r.word(0) &^= uint64(flags&flagMask) << flagShift }

// Seq is the number that SetSeq has set.
func (r Rec) Seq() uint64 { return *r.word(0) & seqMask }

// SetSeq sets a number of up to MaxSeq.
func (r Rec) SetSeq(seq uint64) {
	w := r.word(0)
	*w = *w&^uint64(seqMask) | seq&seqMask
}

// Clock is what SetClock has set.
func (r Rec) Clock() uint32 { return uint32(*r.word(1)) }

// SetClock sets when, or how often, the record was used.
func (r Rec) SetClock(c uint32) {
	w := r.word(1)
	*w = *w&^uint64(1<<32-1) | uint64(c)
}

// Deadline is when the record expires, 0 for never.
func (r Rec) Deadline() int64 {
	if *r.word(0)&timedBit == 0 {
		return 0
	}
	return *r.deadline()
}

func (r Rec) deadline() *int64 {
	if *r.word(0)&wideBit != 0 {
		return (*int64)(mem(uint64(r) + 32))
	}
	return (*int64)(mem(uint64(r) + 16))
}

// place is where a timed record stands in the expiry heap.
func (r Rec) place() *uint32 {
	if *r.word(0)&wideBit != 0 {
		return (*uint32)(mem(uint64(r) + 40))
	}
	return (*uint32)(mem(uint64(r) + 24))
}

// layout is where the parts of a record are.
type layout struct {
	head  int // bytes before the key
	key   int // its length
	val   int
	block int
}

func (r Rec) layout() layout {
	w0, w1 := *r.word(0), *r.word(1)
	if w0&wideBit != 0 {
		w2 := *r.word(2)
		return layout{wideHead, int(w2 >> 32), int(uint32(w2)), int(*r.word(3) &^ ownBit)}
	}
	head := narrowHead
	if w0&timedBit != 0 {
		head = timedHead
	}
	block, key := int(w1>>53)*8, int(uint8(w1>>40))
	return layout{head, key, block - head - key - int(uint8(w1>>32)), block}
}

// Key is the key, until the record is moved. It must not be changed.
func (r Rec) Key() []byte {
	w0 := *r.word(0)
	if w0&(wideBit|timedBit) == 0 {
		n := int(uint8(*r.word(1) >> 40))
		return bytesAt(uint64(r)+narrowHead, n)[:n:n]
	}
	l := r.layout()
	return bytesAt(uint64(r)+uint64(l.head), l.key)
}

// Value is the value, until the record is moved. It may be changed in place.
func (r Rec) Value() []byte {
	w0, w1 := *r.word(0), *r.word(1)
	if w0&(wideBit|timedBit) == 0 {
		head := narrowHead + int(uint8(w1>>40))
		return bytesAt(uint64(r)+uint64(head), int(w1>>53)*8-head-int(uint8(w1>>32)))
	}
	l := r.layout()
	return bytesAt(uint64(r)+uint64(l.head+l.key), l.val)
}

// Room is how long the value can become without being moved.
func (r Rec) Room() int {
	l := r.layout()
	return l.block - l.head - l.key
}

// Size is how many bytes the record takes, slack included.
func (r Rec) Size() int { return r.layout().block }

// Cost is how many bytes a record takes with a key and value of those
// lengths.
func Cost(key, val int, timed bool) int {
	block, _ := blockFor(key, val, val, timed)
	return block
}

// blockFor says how large a block is needed, and whether it must be wide.
func blockFor(key, val, room int, timed bool) (block int, wide bool) {
	head := narrowHead
	if timed {
		head = timedHead
	}
	room = max(room, val)
	block = roundUp(head + key + room)
	if key <= 255 && block <= maxNarrow && block-head-key-val <= 255 {
		return block, false
	}
	return roundUp(wideHead + key + room), true
}

// setLength notes the length of the value, which fits.
func (r Rec) setLength(l layout, val int) {
	if l.head == wideHead {
		*r.word(2) = uint64(l.key)<<32 | uint64(val)
		return
	}
	w := r.word(1)
	*w = *w&^uint64(255<<32) | uint64(l.block-l.head-l.key-val)<<32
}

// fits reports whether the value may have val bytes where it is, with so much
// room. What would leave more than a quarter empty doesn't: it gets a
// smaller block.
func (l layout) fits(val, room int) bool {
	slack := l.block - l.head - l.key - val
	if slack < 0 || l.head+l.key+room > l.block {
		return false
	}
	if l.head != wideHead && slack > 255 {
		return false
	}
	return l.block-l.head-l.key-max(val, room) <= max(l.block/4, 8)
}

// Borrow is the value, with a capacity of all the room there is behind it. What
// is written there becomes part of the value by Set, given the same memory.
func (r Rec) Borrow() []byte {
	l := r.layout()
	return bytesAt(uint64(r)+uint64(l.head+l.key), l.block-l.head-l.key)[:l.val]
}

// Occupied is how many bytes the record takes of the memory of the machine:
// as Size, but of a block that has its memory for itself only what key and
// value are long, in pages.
func (r Rec) Occupied() int {
	l := r.layout()
	return occupies(l.block, l.head+l.key+l.val)
}

// Occupies is what a record occupies that has a key and value of those lengths, and
// no room.
func Occupies(key, val int, timed bool) int {
	return occupies(Cost(key, val, timed), wideHead+key+val)
}

func occupies(block, used int) int {
	if block > maxBlock {
		return (used + pageSize - 1) &^ (pageSize - 1)
	}
	return block
}
