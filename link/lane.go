package link

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"vecino/catalog"
)

// Lane names one of the three connections of a link. Order is kept within a
// lane for each database, and nowhere else.
type Lane uint8

const (
	Live     Lane = iota // entries as they happen, forwarded commands and replies, publishes
	CatchUp              // entries that a replica missed
	Snapshot             // whole databases
	numLanes
)

func (l Lane) String() string {
	switch l {
	case Live:
		return "live"
	case CatchUp:
		return "catch-up"
	case Snapshot:
		return "snapshot"
	}
	return fmt.Sprintf("lane %d", uint8(l))
}

// waitBytes is how much one database may have queued before SendWait blocks:
// enough to keep a long link busy for a turn, little enough that a thousand
// databases catching up at once fit in memory.
const waitBytes = 1 << 20

// readBuffer holds the longest wire frame, so none is read in two halves.
const readBuffer = maxWire

// A lane is one connection of a link: a fair queue, a writer that empties it
// and a reader that calls the handler.
type lane struct {
	id   Lane
	link *link
	conn net.Conn // TLS, when there is
	raw  net.Conn // what is closed to break the lane at once

	wake chan struct{} // one token, put in by who finds the writer idle

	mu struct {
		sync.Mutex
		queue  fairQueue
		room   chan struct{} // closed when the queue is half empty again; nil when nobody waits
		idle   bool          // the writer sleeps until it gets the token
		closed bool
		ping   int64 // to be sent, ahead of everything; zero for none
		pong   int64
	}

	written atomic.Int64 // when the writer last wrote, on the hub's clock
	waiting atomic.Int64 // since when the reader waits for bytes; zero while it doesn't
}

func newLane(id Lane, l *link, c laneConn) *lane {
	ln := &lane{id: id, link: l, conn: c.conn, raw: c.raw, wake: make(chan struct{}, 1)}
	ln.written.Store(l.hub.now())
	return ln
}

// send queues a copy of f, or says why not.
func (l *lane) send(f Frame) error {
	var c chain
	if len(f.Payload) > largestChunk {
		if len(f.Payload) > MaxFrame {
			return ErrFrameTooLarge
		}
		c = chop(f) // megabytes perhaps: not under the lock
	}
	l.mu.Lock()
	if l.mu.closed {
		l.mu.Unlock()
		return ErrDown
	}
	if l.mu.queue.bytes >= l.link.hub.cfg.QueueBytes {
		l.mu.Unlock()
		return ErrQueueFull
	}
	l.queueLocked(f, c)
	return nil
}

// sendWait is send that waits for room instead.
func (l *lane) sendWait(ctx context.Context, f Frame) error {
	if len(f.Payload) > MaxFrame {
		return ErrFrameTooLarge
	}
	limit := l.link.hub.cfg.QueueBytes / 2 // so that who waits never makes send fail
	for {
		l.mu.Lock()
		if l.mu.closed {
			l.mu.Unlock()
			return ErrDown
		}
		d := l.mu.queue.queue(f.DB)
		var room *chan struct{}
		switch {
		case d.bytes >= waitBytes || d.room != nil: // nobody overtakes who waits already
			room = &d.room
		case l.mu.queue.bytes >= limit || l.mu.room != nil:
			room = &l.mu.room
		}
		if room == nil {
			break
		}
		if *room == nil {
			*room = make(chan struct{})
		}
		ready := *room
		l.mu.Unlock()
		select {
		case <-ready:
		case <-l.link.broken:
			return ErrDown
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	var c chain
	if len(f.Payload) > largestChunk {
		// There is room now, so the copy may be made; another may take the room
		// meanwhile, and the queue is over its bound by this frame then.
		l.mu.Unlock()
		c = chop(f)
		l.mu.Lock()
		if l.mu.closed {
			l.mu.Unlock()
			return ErrDown
		}
	}
	l.queueLocked(f, c)
	return nil
}

// queueLocked queues f, or the chain made of it, and unlocks.
func (l *lane) queueLocked(f Frame, c chain) {
	if c.head != nil {
		l.mu.queue.splice(f.DB, c)
	} else {
		l.mu.queue.push(f)
	}
	l.unlockAndWake()
}

func (l *lane) unlockAndWake() {
	idle := l.mu.idle
	l.mu.idle = false
	l.mu.Unlock()
	if idle {
		l.wake <- struct{}{} // has room: only one finds it idle
	}
}

// control has a ping or a pong written next. A second one before that
// replaces the first, so they need no queue.
func (l *lane) control(kind uint8, t int64) {
	l.mu.Lock()
	if kind == ping {
		l.mu.ping = t
	} else {
		l.mu.pong = t
	}
	l.unlockAndWake()
}

func (l *lane) queued(db catalog.ID) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := l.mu.queue.queues[db]; d != nil {
		return d.bytes
	}
	return 0
}

func (l *lane) queuedAll() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.queue.bytes
}

// close lets nothing more be queued, and the writer end. That the reader ends
// too, the link closes the connection.
func (l *lane) close() {
	l.mu.Lock()
	l.mu.closed = true
	l.unlockAndWake()
}

// write is the writer: it gives everything that is queued, up to a batch, to
// the connection in one call. A batch is bounded so that a frame queued
// meanwhile waits for one of them only.
func (l *lane) write() {
	var (
		out   []byte
		batch []*segment
	)
	for {
		out = out[:0]
		l.mu.Lock()
		for l.mu.queue.first == nil && l.mu.ping == 0 && l.mu.pong == 0 && !l.mu.closed {
			l.mu.idle = true
			l.mu.Unlock()
			<-l.wake
			l.mu.Lock()
		}
		if l.mu.closed {
			l.mu.Unlock()
			return
		}
		if l.mu.ping != 0 {
			out = appendControl(out, ping, l.mu.ping)
		}
		if l.mu.pong != 0 {
			out = appendControl(out, pong, l.mu.pong)
		}
		l.mu.ping, l.mu.pong = 0, 0
		batch = l.mu.queue.take(batch[:0])
		if l.mu.room != nil && l.mu.queue.bytes <= l.link.hub.cfg.QueueBytes/4 {
			close(l.mu.room)
			l.mu.room = nil
		}
		l.mu.Unlock()

		bytes := out
		if len(out) == 0 && len(batch) == 1 {
			bytes = batch[0].buf
		} else {
			for _, s := range batch {
				out = append(out, s.buf...)
			}
			bytes = out
		}
		if _, err := l.conn.Write(bytes); err != nil {
			l.link.fail(fmt.Errorf("write %s lane: %w", l.id, err))
			return
		}
		l.written.Store(l.link.hub.now())
		l.link.peer.bytesOut.Add(uint64(len(bytes)))
		recycle(batch)
		clear(batch)
	}
}

// read is the reader: it calls the handler for every frame.
func (l *lane) read() {
	var (
		hub   = l.link.hub
		node  = l.link.peer.id
		buf   = make([]byte, readBuffer)
		have  = 0
		parts assembler
	)
	for {
		l.waiting.Store(hub.now())
		n, err := l.conn.Read(buf[have:])
		l.waiting.Store(0)
		have += n
		l.link.peer.bytesIn.Add(uint64(n))

		used := 0
		for {
			f, what, n, err := parts.next(buf[used:have])
			if err != nil {
				l.link.fail(fmt.Errorf("read %s lane: %w", l.id, err))
				return
			}
			switch what {
			case whole:
				hub.cfg.Handler.Frame(node, l.id, f)
			case control:
				if f.Kind == ping {
					l.control(pong, int64(f.DB))
				} else {
					l.link.peer.measured(time.Duration(hub.now() - int64(f.DB)))
				}
			}
			if n == 0 {
				break
			}
			used += n
		}
		if err != nil {
			l.link.fail(fmt.Errorf("read %s lane: %w", l.id, err))
			return
		}
		if used > 0 {
			have = copy(buf, buf[used:have])
		}
	}
}
