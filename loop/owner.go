package loop

import (
	"slices"
	"time"

	"vecino/internal/fifo"
)

// An Owner is whose connections some of a loop's are: a database and its
// clients. It is what the loop is fair to, and what it can do without for a while.
//
// All that concerns an owner, input of its connections, letters, timers, goes
// through its queue and is carried out in its turns. So the owner's affairs happen one
// after another, and a loop defers all of them by giving no turns:
//
//	        turn              a call takes too long: the watchdog
//	  ┌──────────────┐        has another runner drive the loop
//	  ▼              │                    │
//	here ────────► served ────────────────┴────────────► away
//	│  ▲             ▲                                    │
//	│  │             └─ inside one call at a time         │
//	│  └──────────────────────────────────────────────────┘
//	│             the call has ended: a letter
//	│ ▲
//	▼ │ the note
//	out: Ready said no
//
// Who may touch what follows from that:
//
//	                          while here       inside a call    while away
//	the owner's own things,   the loop         the call         the call
//	c.Out, c.pausing, …
//	its queue, c.seen, lists  the loop         nobody           the loop
//
// A call never knows whether the loop is still under it. So what it asks of the loop (to
// flush a connection, to offer it again, to set a timer) is noted in ops, and carried out when
// the call has ended and the loop has the owner back: nearly always at once.
type Owner struct {
	loop  *Loop
	ready func(note func()) bool
	note  func()

	// For the loop.
	state   ownerState
	queue   fifo.Queue[item]
	later   []*Conn // have had their share of this batch
	out     []*Conn // have replies that may be written
	dirty   []*Conn // were in Loop.dirty when it went away
	leaving []*Conn // the same of Loop.leaving
	queued  bool    // is in Loop.turns, or has its turn
	writing bool    // is in Loop.writers
	turn    uint64  // the batch of its last turn
	owes    time.Duration
	weight  int // of one of its calls; see Loop.spend
	slow    int // how many of its next calls are made elsewhere

	// For its calls.
	calling bool
	runner  *runner
	now     time.Time
	ops     []op
}

type ownerState uint8

const (
	here ownerState = iota
	out             // something else holds what its calls need
	away            // one of its calls goes on elsewhere
)

// An item is something to be done in an owner's turn: serve a connection, say
// that it is gone, fire a timer, or call fn.
type item struct {
	conn   *Conn
	closed bool // say that conn is gone
	timer  *Timer
	fn     func()
}

// An op is what a call asked of the loop.
type op struct {
	kind  opKind
	conn  *Conn
	timer *Timer
	fn    func()
}

type opKind uint8

const (
	opFlush opKind = iota
	opAgain
	opCheck // whether the connection has something to be served
	opLeave
	opSetTimer
	opUnsetTimer
	opSettle
)

// NewOwner makes an owner on a loop, from any goroutine. ready, if set, is
// asked before each turn whether calls could go on without waiting for a lock; if it says no,
// it calls note, once, from any goroutine, when it is worth asking again.
func (l *Loop) NewOwner(ready func(note func()) bool) *Owner {
	o := &Owner{loop: l, ready: ready, now: time.Now(), weight: lightest}
	o.note = func() { l.Post(o.returned) }
	return o
}

// Loop is where the owner is.
func (o *Owner) Loop() *Loop { return o.loop }

// Do has fn called in one of the owner's turns, after what is queued already.
// It is for the loop's own functions, also while the owner is away, and not for its calls.
func (o *Owner) Do(fn func()) { o.push(item{fn: fn}) }

// Post is Do from any goroutine. It returns false, and fn will not be called,
// when the loop is closed.
func (o *Owner) Post(fn func()) bool {
	return o.loop.Post(func() { o.Do(fn) })
}

// Settle has fn called on the loop, outside of the owner's calls: at the end
// of the call in which it is asked for, or else at once. There the owner may touch what it
// shares with others.
func (o *Owner) Settle(fn func()) { o.ask(op{kind: opSettle, fn: fn}) }

// Here reports whether what belongs to the owner may be touched outside of
// its turns: from the loop's own functions, such as BeforeFlush.
func (o *Owner) Here() bool { return o.state != away }

// Backlog is how much waits for the owner's turn. It is for the loop's thread.
func (o *Owner) Backlog() int { return o.queue.Len() }

// Now is the time, as Loop.Now is, for the owner's calls.
func (o *Owner) Now() time.Time {
	if o.calling {
		return o.now
	}
	return o.loop.now
}

// NowMS is Now in milliseconds since 1970.
func (o *Owner) NowMS() int64 { return o.Now().UnixMilli() }

// After has fn called in a turn of the owner, d after Now. It and Settle are
// for the owner's calls, and for the loop's own functions while it is here.
func (o *Owner) After(d time.Duration, fn func()) *Timer {
	t := &Timer{when: o.Now().Add(d), fn: fn, owner: o, heap: &o.loop.timers, index: -1}
	o.ask(op{kind: opSetTimer, timer: t})
	return t
}

// push queues an item.
func (o *Owner) push(i item) {
	o.queue.Push(i)
	o.wake()
}

// wake gives the owner a turn, if it can take one.
func (o *Owner) wake() {
	if o.state == here && !o.queued && (o.queue.Len() > 0 || len(o.out) > 0) {
		o.queued = true
		o.loop.turns.Push(o)
	}
}

// returned is the end of being out.
func (o *Owner) returned() {
	if o.state == out {
		o.state = here
		o.loop.missing--
		o.wake()
	}
}

// ask asks something of the loop: now, or when the call that asks has ended.
func (o *Owner) ask(p op) {
	if o.calling {
		o.ops = append(o.ops, p)
		return
	}
	o.carryOut(p)
}

// settle ends a call: what it has asked for is carried out.
func (o *Owner) settle() {
	o.calling = false
	if len(o.ops) == 0 {
		return
	}
	for i, p := range o.ops {
		o.ops[i] = op{}
		o.carryOut(p)
	}
	o.ops = o.ops[:0]
	if cap(o.ops) > keptOps {
		o.ops = nil
	}
}

func (o *Owner) carryOut(p op) {
	switch p.kind {
	case opFlush:
		p.conn.markDirty()
	case opAgain:
		p.conn.again()
	case opCheck:
		p.conn.settled()
	case opLeave:
		o.loop.leaving = append(o.loop.leaving, p.conn)
	case opSetTimer:
		if !p.timer.over {
			o.loop.timers.insert(p.timer)
		}
	case opUnsetTimer:
		p.timer.heap.remove(p.timer)
	case opSettle:
		p.fn()
	}
}

// home brings the owner back from a call that ended on another goroutine, the
// rest of which is done by rest.
func (o *Owner) home(rest func()) {
	l := o.loop
	o.state, o.queued = here, false
	l.missing--
	guard.away.Add(-1)
	l.dirty = append(l.dirty, o.dirty...)
	l.leaving = append(l.leaving, o.leaving...)
	o.dirty, o.leaving = nil, nil
	o.settle()
	if rest != nil {
		rest()
	}
	o.wake()
}

// forget takes a connection off the owner's lists.
func (o *Owner) forget(c *Conn) {
	if c.queued {
		o.queue.Drop(func(i item) bool { return i.conn == c && !i.closed })
		o.later = slices.DeleteFunc(o.later, func(other *Conn) bool { return other == c })
		c.queued = false
	}
	if c.writing {
		o.out = slices.DeleteFunc(o.out, func(other *Conn) bool { return other == c })
		c.writing = false
	}
}

// keptOps bounds the memory that an owner keeps for what its calls ask.
const keptOps = 64
