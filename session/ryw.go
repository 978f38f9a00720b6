package session

import (
	"vecino/catalog"
)

// A Tracker decides, for one connection on a replica, where each command is
// answered and when each reply leaves. It is read-your-writes as a state
// machine: it has no clock and does no I/O, and the simulator runs it as it is.
//
// W is the highest write that the connection has seen. A reply from the
// primary carries the primary's head H at that moment, and raises W, whether
// or not the command wrote: it has observed that state.
//
//	read   nothing in flight, and the copy covers W: here. Else at the primary.
//	write  at the primary. Its reply is held until the copy covers W, or
//	       patience has passed since the command was sent; then it leaves all
//	       the same, and the next read goes to the primary.
//
// Replies leave in the order of their commands. While any command is in
// flight all that follow are sent behind it, so a pipeline keeps its order and
// costs one round trip. Correctness never depends on patience: it only
// decides whether to wait at the write or to pay at the read.
type Tracker struct {
	Patience int64 // milliseconds; negative: a write's reply is never held

	w        catalog.Position
	queue    []flight // oldest first
	nextReq  uint32
	inFlight int // commands in queue whose reply has not come
}

// flight is a command whose reply has not left.
type flight struct {
	req     uint32
	sentAt  int64
	what    Sent
	arrived bool
	w       catalog.Position
	reply   []byte
	held    bool // it has been counted as held
	muted   bool // the client doesn't want the reply
}

// Sent says what kind of command was sent to the primary.
type Sent uint8

const (
	SentRead Sent = iota
	SentWrite
	SentBlocking // may take as long as its own timeout
	answeredHere
)

// Counters count what became of commands on a replica.
type Counters struct {
	LocalReads      uint64
	ForwardedReads  uint64
	ForwardedWrites uint64
	Held            uint64 // write replies that had to wait for their entries
	ReleasedLate    uint64 // write replies that left before their entries came
	Failed          uint64 // commands that the primary didn't answer in time
}

// W is the highest write that this connection has seen.
func (t *Tracker) W() catalog.Position { return t.w }

// Raise says that the connection has seen the write w.
func (t *Tracker) Raise(w catalog.Position) {
	if !t.w.Covers(w) {
		t.w = w
	}
}

// ReadHere reports whether a read may be answered from a copy that has
// applied all up to that position.
func (t *Tracker) ReadHere(applied catalog.Position) bool {
	return len(t.queue) == 0 && applied.Covers(t.w)
}

// Busy reports whether replies have yet to leave. A command that is answered
// here must then queue its reply with Answered.
func (t *Tracker) Busy() bool { return len(t.queue) > 0 }

// Owes reports whether a reply has yet to leave that will do so soon: the first
// isn't that of a command which waits for something to happen.
func (t *Tracker) Owes() bool {
	return len(t.queue) > 0 && (t.queue[0].arrived || t.queue[0].what != SentBlocking)
}

// InFlight is how many commands the primary has not answered.
func (t *Tracker) InFlight() int { return t.inFlight }

// Queued is how many replies have yet to leave.
func (t *Tracker) Queued() int { return len(t.queue) }

// Send says that a command is sent to the primary now, and numbers it.
func (t *Tracker) Send(what Sent, now int64) (req uint32) {
	t.nextReq++
	t.inFlight++
	t.queue = append(t.queue, flight{req: t.nextReq, sentAt: now, what: what})
	return t.nextReq
}

// Blocked is the request that the connection waits for, if it is one that blocks and
// all before it have been answered.
func (t *Tracker) Blocked() (req uint32, ok bool) {
	if len(t.queue) == 0 || t.queue[0].arrived || t.queue[0].what != SentBlocking {
		return 0, false
	}
	return t.queue[0].req, true
}

// Mute says that the client doesn't want the reply to a request. What it tells is
// seen all the same.
func (t *Tracker) Mute(req uint32) { t.find(req).muted = true }

// Answered queues the reply of a command that was answered here, behind those
// that are still to leave. reply is kept.
func (t *Tracker) Answered(reply []byte) {
	t.queue = append(t.queue, flight{what: answeredHere, arrived: true, reply: reply})
}

// Reply takes the primary's reply to a request, with its head h. reply is
// kept. It reports false for a request that nobody waits for any more.
func (t *Tracker) Reply(req uint32, h catalog.Position, reply []byte) bool {
	f := t.find(req)
	if f == nil || f.arrived {
		return false
	}
	f.arrived, f.reply, f.w = true, reply, h
	t.inFlight--
	t.Raise(h)
	return true
}

// Waits reports whether the reply to a request is still awaited.
func (t *Tracker) Waits(req uint32) bool {
	f := t.find(req)
	return f != nil && !f.arrived
}

// Sent is what kind of command a request is whose reply is awaited.
func (t *Tracker) Sent(req uint32) Sent {
	if f := t.find(req); f != nil {
		return f.what
	}
	return answeredHere
}

func (t *Tracker) find(req uint32) *flight {
	for i := range t.queue {
		if f := &t.queue[i]; f.req == req && f.what != answeredHere {
			return f
		}
	}
	return nil
}

// Release appends to dst the replies that may leave now. When a reply is held,
// until is when patience with it ends, else 0.
func (t *Tracker) Release(dst []byte, applied catalog.Position, now int64, c *Counters) (_ []byte, until int64) {
	n := 0
	for n < len(t.queue) && t.queue[n].arrived {
		f := &t.queue[n]
		if f.what == SentWrite && t.Patience >= 0 && !applied.Covers(f.w) {
			until = f.sentAt + t.Patience
			if now < until {
				if !f.held {
					f.held = true
					c.Held++
				}
				break
			}
			c.ReleasedLate++
			until = 0
		}
		if !f.muted {
			dst = append(dst, f.reply...)
		}
		n++
	}
	clear(t.queue[:n])
	if n < len(t.queue) {
		t.queue = t.queue[n:]
	} else {
		t.queue = t.queue[:0]
	}
	if len(t.queue) == 0 || !t.queue[0].arrived {
		until = 0
	}
	return dst, until
}

// LinkDown says that the link to the primary broke now: the time that a
// blocking command may be without an answer begins.
func (t *Tracker) LinkDown(now int64) {
	for i := range t.queue {
		if f := &t.queue[i]; !f.arrived && f.what == SentBlocking {
			f.sentAt = now
		}
	}
}

// Oldest is the first request that is in flight, or the next one.
func (t *Tracker) Oldest() uint32 {
	for i := range t.queue {
		if f := &t.queue[i]; !f.arrived {
			return f.req
		}
	}
	return t.nextReq + 1
}

// Overdue calls fn for each request that has been in flight since before a
// moment, oldest first; fn answers it with Reply or leaves it. Blocking
// commands are overdue only when the link to the primary is down.
func (t *Tracker) Overdue(before int64, down bool, fn func(req uint32, what Sent)) (next int64) {
	for i := 0; i < len(t.queue); i++ {
		f := &t.queue[i]
		if f.arrived || f.what == SentBlocking && !down {
			continue
		}
		if f.sentAt > before {
			return f.sentAt
		}
		fn(f.req, f.what)
	}
	return 0
}
