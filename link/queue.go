package link

import (
	"encoding/binary"
	"sync"

	"vecino/catalog"
)

// The fair queue of a lane.
//
// Each database has a queue of segments: byte buffers that hold encoded wire
// frames, whole ones only. Queues that aren't empty stand in a ring and take
// turns. On its turn a queue may send its deficit, which grows by one quantum
// a turn, and what it doesn't use is kept as long as it has something to
// send. This is deficit round robin (Shreedhar and Varghese, 1995): over time
// each busy database gets the same bytes, whatever the sizes of its frames,
// and the cost of a turn doesn't depend on how many databases there are.
//
// A segment never is larger than the quantum, so every turn sends at least
// one, and a frame of a quiet database waits for one quantum of each busy
// one at most. To queue a frame is one copy into the last segment; nothing
// that is queued is moved again, so the longest time under the lane's lock
// is bounded too.
const (
	quantum      = 16 << 10
	largeSegment = quantum
	smallSegment = 2 << 10 // the first of a queue: most databases have a frame or two waiting

	largestChunk = largeSegment - headerSize

	batchSize = 128 << 10 // about what one write carries; a turn may go over it by its deficit

	keepQueues = 1024 // queues of quiet databases a lane keeps, to have no map churn
)

type segment struct {
	buf  []byte
	next *segment
}

type dbQueue struct {
	db         catalog.ID
	head, tail *segment
	bytes      int
	deficit    int
	next       *dbQueue      // in the ring of busy queues
	room       chan struct{} // closed when bytes has fallen to half of what SendWait allows; nil when nobody waits
}

// A fairQueue has no lock: its lane's guards it.
type fairQueue struct {
	queues      map[catalog.ID]*dbQueue
	last        *dbQueue // what queue returned last; loops send in runs
	first, back *dbQueue // the busy ones, in order of their turns
	bytes       int
}

// Free segments of all lanes. The sender takes them and the writer, on another
// thread, gives them back; what isn't used for two collections is freed.
var (
	smallSegments = sync.Pool{New: func() any { return &segment{buf: make([]byte, 0, smallSegment)} }}
	largeSegments = sync.Pool{New: func() any { return &segment{buf: make([]byte, 0, largeSegment)} }}
)

func newSegment(small bool) *segment {
	if small {
		return smallSegments.Get().(*segment)
	}
	return largeSegments.Get().(*segment)
}

// recycle takes back segments whose bytes have been written.
func recycle(batch []*segment) {
	for _, s := range batch {
		s.buf = s.buf[:0]
		if cap(s.buf) == smallSegment {
			smallSegments.Put(s)
		} else {
			largeSegments.Put(s)
		}
	}
}

// queue returns a database's queue. It stays the same at least while it isn't empty.
func (q *fairQueue) queue(db catalog.ID) *dbQueue {
	if q.last != nil && q.last.db == db {
		return q.last
	}
	d := q.queues[db]
	if d == nil {
		if q.queues == nil {
			q.queues = make(map[catalog.ID]*dbQueue)
		}
		d = &dbQueue{db: db}
		q.queues[db] = d
	}
	q.last = d
	return d
}

// push queues a frame that fits in one chunk.
func (q *fairQueue) push(f Frame) {
	d := q.queue(f.DB)
	need := headerSize + len(f.Payload)
	s := d.tail
	if s == nil || cap(s.buf)-len(s.buf) < need {
		s = newSegment(s == nil && need <= smallSegment)
		if d.tail == nil {
			d.head = s
		} else {
			d.tail.next = s
		}
		d.tail = s
	}
	s.buf = appendHeader(s.buf, f.Kind, 0, len(f.Payload), f.DB)
	s.buf = append(s.buf, f.Payload...)
	q.grow(d, need)
}

// A chain is the chunks of one long frame, made before the lock is taken.
type chain struct {
	head, tail *segment
	bytes      int
}

// chop copies a frame that is longer than one chunk into a chain.
func chop(f Frame) chain {
	var c chain
	rest := f.Payload
	for first := true; first || len(rest) > 0; first = false {
		s := newSegment(false)
		n, size, flags := largestChunk, largestChunk, uint8(flagMore|flagContinues)
		if first {
			n, flags = largestChunk-wholeSize, flagMore
		} else if len(rest) <= largestChunk {
			n, size, flags = len(rest), len(rest), flagContinues
		}
		s.buf = appendHeader(s.buf, f.Kind, flags, size, f.DB)
		if first {
			s.buf = binary.LittleEndian.AppendUint32(s.buf, uint32(len(f.Payload)))
		}
		s.buf = append(s.buf, rest[:n]...)
		rest = rest[n:]
		if c.tail == nil {
			c.head = s
		} else {
			c.tail.next = s
		}
		c.tail = s
		c.bytes += len(s.buf)
	}
	return c
}

// splice queues a chain.
func (q *fairQueue) splice(db catalog.ID, c chain) {
	d := q.queue(db)
	if d.tail == nil {
		d.head = c.head
	} else {
		d.tail.next = c.head
	}
	d.tail = c.tail
	q.grow(d, c.bytes)
}

// grow accounts for n more bytes in d and gives it a place in the ring.
func (q *fairQueue) grow(d *dbQueue, n int) {
	if d.bytes == 0 {
		if q.back == nil {
			q.first = d
		} else {
			q.back.next = d
		}
		q.back = d
	}
	d.bytes += n
	q.bytes += n
}

// take removes what one write shall carry and appends it to batch.
func (q *fairQueue) take(batch []*segment) []*segment {
	for taken := 0; q.first != nil && taken < batchSize; {
		d := q.first
		d.deficit += quantum
		for d.head != nil && len(d.head.buf) <= d.deficit {
			s := d.head
			d.head, s.next = s.next, nil
			n := len(s.buf)
			d.deficit -= n
			d.bytes -= n
			q.bytes -= n
			taken += n
			batch = append(batch, s)
		}
		if d.room != nil && d.bytes <= waitBytes/2 {
			close(d.room)
			d.room = nil
		}
		q.first, d.next = d.next, nil
		if q.first == nil {
			q.back = nil
		}
		if d.head == nil {
			d.tail, d.deficit = nil, 0
			q.forget(d)
		} else if q.back == nil {
			q.first, q.back = d, d
		} else {
			q.back.next, q.back = d, d
		}
	}
	return batch
}

// forget drops an empty queue when there are many.
func (q *fairQueue) forget(d *dbQueue) {
	if len(q.queues) > keepQueues {
		delete(q.queues, d.db)
		if q.last == d {
			q.last = nil
		}
	}
}
