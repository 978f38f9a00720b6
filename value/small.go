package value

import "unsafe"

// A small collection is one run of bytes that says by itself what it is:
//
//	| form (1) | count (1) | element | element | ...       'h' hash, 's' set, 'z' sorted set, 'l' list
//	| form (1) | width (1) | integer | integer | ...       'i' set of integers
//
// Elements of 'h', 's' and 'l' are packed strings (packed.go), those of 'z'
// are drawn in zsmall.go, integers in intset.go, as many as the bytes hold. No bytes at all are an empty
// collection too: one that nothing was put in yet.
//
// The bytes belong to whoever keeps the collection: a record of the keyspace,
// say. Hash, List, Set and ZSet are borrowed around them while a command runs:
//
//	var scratch value.Scratch            // one a database, say
//	h.Borrow(seed, blob, &scratch)       // len(blob) is what is used, cap(blob) the room
//	h.Set(field, val)                    // in place, or moved to the scratch if there is no room
//	if blob, moved, ok := h.Small(); !ok {
//		big := h.Big()               // it has changed to the big form: big is to be kept, h is free again
//	} else if moved {
//		copy(room for len(blob)+Reserve(len(blob)), blob)
//	} else {                             // the same bytes, perhaps more or fewer of them
//		used = len(blob)
//	}
//	scratch.Reset()                      // when nothing is borrowed any more
//
// None of this allocates once the scratch has its buffers.
type small struct {
	b       packed
	scratch *Scratch // nil: b is on the heap, the collection's own
	buffer  int16    // of the scratch that b lies in, plus one; 0: it is in none
	moved   bool     // since it was borrowed
}

// The forms.
const (
	formHash    = 'h'
	formStrings = 's'
	formInts    = 'i'
	formZSet    = 'z'
	formList    = 'l'
)

// headSize is what comes before the elements.
const headSize = 2

// borrow sets s around b.
func (s *small) borrow(b []byte, scratch *Scratch) {
	*s = small{b: b, scratch: scratch}
}

// count is the second byte of the head.
func (s *small) count() int {
	if len(s.b) == 0 {
		return 0
	}
	return int(s.b[1])
}

// begin writes the head of a collection that has none yet, and makes room for
// so many bytes more.
func (s *small) begin(form, second byte, more int) {
	if len(s.b) == 0 {
		s.open(0, 0, headSize+more)
		s.b = s.b[:headSize]
		s.b[0], s.b[1] = form, second
	}
}

// open replaces the bytes from off to end by n bytes for the caller to fill.
func (s *small) open(off, end, n int) {
	size := len(s.b) + n - (end - off)
	old := s.b
	if size <= cap(s.b) {
		s.b = s.b[:size]
		copy(s.b[off+n:], old[end:])
		return
	}
	if s.scratch == nil {
		s.b = append(packed(nil), make(packed, size+size/8)...)[:size]
	} else {
		s.b = s.scratch.take(&s.buffer, size)
	}
	s.moved = true
	copy(s.b, old[:off])
	copy(s.b[off+n:], old[end:])
}

// openTwo replaces the bytes from off1 to end1 by n1 and those from off2 to
// end2, behind them, by n2 bytes for the caller to fill.
func (s *small) openTwo(off1, end1, n1, off2, end2, n2 int) {
	move1 := n1 - (end1 - off1)         // of what is between the two
	move2 := move1 + n2 - (end2 - off2) // of what is behind
	size := len(s.b) + move2
	if size > cap(s.b) {
		s.open(off2, end2, n2)
		s.open(off1, end1, n1)
		return
	}
	old := s.b
	s.b = s.b[:size]
	if move1 > 0 { // what is between might go over what is behind
		s.move(old, end2, len(old), move2)
		s.move(old, end1, off2, move1)
		return
	}
	s.move(old, end1, off2, move1)
	s.move(old, end2, len(old), move2)
}

// move moves the bytes of old from off to end by that much.
func (s *small) move(old packed, off, end, by int) {
	if by != 0 {
		copy(s.b[off+by:], old[off:end])
	}
}

// own makes the bytes the collection's own, on the heap.
func (s *small) own() {
	*s = small{b: append(packed(nil), s.b...)}
}

// put writes str at off, where open made room, and returns the offset behind.
func (s *small) put(off int, str []byte) int { return s.b.put(off, str) }

// Reserve is the room for growth that is worth having behind a small
// collection of n bytes that has outgrown its place: an eighth, so that a
// collection that goes on growing is moved for every eighth only. It is none
// below 128 bytes, where moving costs next to nothing and most collections
// stop growing, and 64 at most. A collection that is new, or read from a dump,
// needs none.
func Reserve(n int) int {
	if n < 128 {
		return 0
	}
	return min(n/8, 64)
}

// Scratch is where small collections go on when they outgrow the bytes that
// they were borrowed around, and where they write what they hand out if they
// don't have it as bytes. Each gets a buffer to itself. Buffers are used again
// after Reset, so that they cost nothing in the long run; none is larger than
// the largest small collection, some 17 KiB, rounded up.
//
// The zero Scratch is ready. It is for one goroutine at a time.
type Scratch struct {
	buffers []packed
	used    int
	text    []byte
}

const (
	leastBuffer = 2 << 10
	keptBuffers = 16
	keptText    = 16 << 10
)

// Reset makes all buffers free. Whatever lay in them must be of no interest
// any more: bytes of Small, and bytes that collections handed out.
func (s *Scratch) Reset() {
	s.used = 0
	s.text = s.text[:0]
	if len(s.buffers) > keptBuffers {
		clear(s.buffers[keptBuffers:])
		s.buffers = s.buffers[:keptBuffers]
	}
	if cap(s.text) > keptText {
		s.text = nil
	}
}

// take returns size bytes for a collection that has that buffer, or none yet:
// not the same bytes as before.
func (s *Scratch) take(buffer *int16, size int) packed {
	if *buffer == 0 {
		if s.used == len(s.buffers) {
			s.buffers = append(s.buffers, nil)
		}
		s.used++
		*buffer = int16(s.used)
	} else {
		s.buffers[*buffer-1] = nil // too small, and still to be copied from
	}
	b := s.buffers[*buffer-1]
	if cap(b) < size {
		room := leastBuffer
		for room < size {
			room *= 2
		}
		b = make(packed, room)
		s.buffers[*buffer-1] = b
	}
	return b[:size]
}

// textRoom is room for bytes to be handed out, which stay valid until Reset.
func (s *small) textRoom(size int) []byte {
	if s.scratch == nil {
		return make([]byte, 0, size)
	}
	t := &s.scratch.text
	if cap(*t)-len(*t) < size {
		*t = make([]byte, 0, max(2*cap(*t), size, 512)) // what was handed out stays where it is
	}
	n := len(*t)
	*t = (*t)[:n+size]
	return (*t)[n : n : n+size]
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
