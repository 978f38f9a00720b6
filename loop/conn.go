package loop

import (
	"cmp"
	"errors"
	"io"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Errors that a connection can be closed with.
var (
	ErrOutputLimit = errors.New("client doesn't read its replies") // more than Conn.OutLimit are unsent
	ErrInputLimit  = errors.New("client sent too much at once")    // 1 GiB without a complete command in it
)

// A Conn is one connection. It is on one loop at a time, and its methods are
// for that loop's thread, except Loop and Post.
//
//	       Close, the peer, an error
//	open ────────────────────────────► closing ──► gone: Handler.Closed
//	│  ▲
//	│  └── the other loop, from its mailbox
//	└─────► moving
//	 Move
//
// The handler may call any method inside Data. Closing and moving take place at
// the end of the batch, after replies have been written.
type Conn struct {
	// Out is what is still to be sent. Append replies to it and nothing else:
	// its head may be on its way. Outside of Data call Flush after appending.
	Out []byte

	// Data is the handler's own.
	Data any

	// OutLimit closes the connection with ErrOutputLimit when more bytes than
	// this are unsent at the end of a batch. 0 is no limit.
	OutLimit int

	handler Handler
	socket  socket
	peer    netip.AddrPort
	loop    atomic.Pointer[Loop] // changed on the loop's own thread only
	slot    int                  // in the loop's connSet
	owner   *Owner               // of that loop; changed outside of its calls only

	// For the loop, also while the owner is away.
	seen    readiness // what the poller has told and hasn't been dealt with
	turn    uint64    // the last batch in which it was served
	queued  bool      // is in the owner's queue, or in later
	writing bool      // is in Owner.out
	dirty   bool      // is in Loop.dirty

	// For the owner.
	in    []byte // received and not used, in inBuf
	inBuf []byte // what in is part of
	need  int    // as told by Expect
	sent  int    // how much of Out has gone
	safe  int    // how much of it may go
	usual uint8  // size class of the buffer that it last needed for Out

	state   state
	err     error  // why it closes
	target  *Loop  // where it moves
	toOwner *Owner // and to whom
	pausing pausing

	offered    bool // what is in in is to be offered
	blocked    bool // the kernel takes no more; told when it does
	throttled  bool // not read because its client doesn't read
	finished   bool // the peer sends no more, and the end of what it sent has been seen
	owing      bool // replies to what it sent are still to come
	corked     bool // what is in Out stays there
	flushFirst bool // close when all is sent
}

type state uint8

const (
	open state = iota
	moving
	closing
	gone
)

type pausing uint8

const (
	running pausing = iota
	paused          // ends when the peer goes away
	held            // waits for what is under way, whatever the peer does
)

// Loop is the loop that the connection is on. Any goroutine may ask, and
// should then use Post, as the answer may be old.
func (c *Conn) Loop() *Loop { return c.loop.Load() }

// Post has fn called in a turn of the connection's owner, on the loop that the
// connection is on by then, wherever it moves in between. Any goroutine may call it. fn also runs
// when the connection has been closed; Closed tells. It returns false when the loop is closed.
func (c *Conn) Post(fn func()) bool {
	return c.post(func() {
		if c.owner == c.owner.loop.common {
			c.follow(fn)
			return
		}
		c.owner.push(item{fn: func() { c.follow(fn) }})
	})
}

// follow calls fn, or has it called where the connection is to move: when the loop was
// taken over in the batch in which that was asked for, mail is read once more before it goes.
func (c *Conn) follow(fn func()) {
	if c.state == moving {
		c.Post(fn)
		return
	}
	fn()
}

// post is Loop.Post on the loop that the connection is on by then.
func (c *Conn) post(fn func()) bool {
	l := c.loop.Load()
	return l.Post(func() {
		// On l's thread. If c is elsewhere by now, it was sent there before, so
		// a letter to the same place arrives after it.
		if c.loop.Load() != l {
			c.post(fn)
			return
		}
		fn()
	})
}

// Owner is whose the connection is; what Loop.NewOwner hasn't made is the
// loop's own.
func (c *Conn) Owner() *Owner { return c.owner }

// SetOwner gives the connection to an owner on its loop. From then on it and
// its handler are for the owner's turns only. It is not for an owner's calls: who has a connection
// keeps it until it moves.
func (c *Conn) SetOwner(o *Owner) {
	queued, writing := c.queued, c.writing
	c.owner.forget(c)
	c.owner = o
	if queued {
		c.enqueue()
	}
	if writing {
		o.mayWrite(c)
	}
}

// Scratch is what Options.Scratch made for the goroutine that now calls the
// handler. It is for inside Data.
func (c *Conn) Scratch() any {
	if c.owner.calling {
		return c.owner.runner.scratch
	}
	return c.loop.Load().runner.scratch
}

// TurnOver reports, inside Data, whether the owner has had its slice of time.
// A handler that has a lot of input left then leaves it, with Again, so that others are served.
func (c *Conn) TurnOver() bool {
	if o := c.owner; o.calling {
		return time.Since(o.runner.began) >= slice
	}
	return time.Since(c.loop.Load().runner.began) >= slice
}

// ask asks something of the loop, now or when the owner's call has ended.
func (c *Conn) ask(what opKind) { c.owner.ask(op{kind: what, conn: c}) }

// Peer is the address of the other end; not valid if it has none.
func (c *Conn) Peer() netip.AddrPort { return c.peer }

// Local is the address of this end.
func (c *Conn) Local() netip.AddrPort { return c.socket.local() }

// Handler is who gets the connection's data.
func (c *Conn) Handler() Handler { return c.handler }

// SetHandler gives the connection to another handler, from the next call on.
func (c *Conn) SetHandler(h Handler) { c.handler = h }

// Closed tells whether the connection is closing or has been closed.
func (c *Conn) Closed() bool { return c.state >= closing }

// OutPending is how many bytes of Out have not been given to the kernel.
func (c *Conn) OutPending() int { return len(c.Out) - c.sent }

// InPending is how many received bytes are kept because they were not used.
func (c *Conn) InPending() int { return len(c.in) }

// Unread reports whether something has come of which the handler hasn't heard. It is for
// the loop's own functions, such as timers.
func (c *Conn) Unread() bool { return c.seen != 0 }

// Pause stops offering input, and soon reading it, until Resume. When the
// peer closes its end meanwhile, the connection is closed at once, unread input
// and all: a client that is gone waits for nothing.
func (c *Conn) Pause() {
	c.pausing = paused
	c.ask(opCheck) // the peer's end may be known
}

// Hold is Pause for what ends by itself and soon. A peer that has only
// finished sending, as in `printf ... | nc`, still gets its replies, and what it has sent is
// read after Resume. A peer that has broken the connection is noticed all the same.
func (c *Conn) Hold() { c.pausing = held }

// Owe says whether replies are still to come for what was offered, though no input
// is kept back for them. While they are, the peer's end doesn't close the
// connection: one that has only finished sending gets them first. One that has
// broken the connection is noticed all the same.
func (c *Conn) Owe(replies bool) {
	c.owing = replies
	if c.finished && !replies && !c.flushFirst {
		c.part()
	}
}

// Paused tells whether Pause or Hold is in force.
func (c *Conn) Paused() bool { return c.pausing != running }

// Resume ends Pause or Hold. Input that was left is offered in this batch, or
// in the next if its turn is over.
func (c *Conn) Resume() {
	if c.pausing == running {
		return
	}
	c.pausing = running
	if c.state == open {
		c.Again()
	}
}

// Cork keeps what is in Out, and what is appended, from being sent until Uncork:
// something must be on disk before the client hears of it. Nor is input offered
// meanwhile, so replies keep their order and no more gather than one batch made.
// A peer that breaks the connection is noticed all the same. Cork beside Pause or
// Hold: each is ended by its own.
func (c *Conn) Cork() { c.corked = true }

// Uncork ends Cork: Out is sent in this batch.
func (c *Conn) Uncork() {
	if !c.corked {
		return
	}
	c.corked = false
	if c.state >= closing {
		return
	}
	if c.OutPending() > 0 || c.flushFirst {
		c.ask(opFlush)
	}
	if c.state == open {
		c.Again()
	}
}

// Again has the input that Data leaves offered again in the next batch, though no
// more has come: for a handler that has had its share of this one.
func (c *Conn) Again() { c.ask(opAgain) }

func (c *Conn) again() {
	c.offered = true
	c.enqueue()
}

// enqueue has the connection served in a turn of its owner.
func (c *Conn) enqueue() {
	if !c.queued {
		c.queued = true
		c.owner.push(item{conn: c})
	}
}

// Expect is called inside Data, which will use nothing more until it is
// offered n bytes, counted from the first that it leaves (0: any more). Memory
// for a long command can then be had at once and its bytes be read to where they
// stay, and Data isn't called before they are there.
func (c *Conn) Expect(n int) { c.need = n }

// Prepare gives Out a buffer of the loop's if it has none, as it always has
// inside Data.
func (c *Conn) Prepare() {
	if c.Out == nil {
		c.Out = c.buffers().get(c.usual)
	}
}

// buffers is the pool of whoever may touch the connection now.
func (c *Conn) buffers() *bufPool {
	if c.owner.calling {
		return &c.owner.runner.buffers
	}
	return &c.loop.Load().runner.buffers
}

// Flush has Out written at the end of the batch. Inside Data there is no need.
func (c *Conn) Flush() {
	if c.state < closing {
		c.ask(opFlush)
	}
}

// Close closes the connection at the end of the batch; what is unsent then is lost.
func (c *Conn) Close() { c.fail(nil) }

// CloseAfterFlush closes the connection when all of Out has been sent. No more
// input is offered.
func (c *Conn) CloseAfterFlush() {
	c.flushFirst = true
	c.Flush()
}

// Move takes the connection to another loop at the end of the batch, with its
// unused input, which is offered there, and its unsent output. Until it has
// arrived it may only be reached by Post.
func (c *Conn) Move(to *Loop) {
	if l := c.loop.Load(); c.state == open && to != l {
		c.state, c.target = moving, to
		c.ask(opLeave)
	}
}

// GiveTo takes the connection to an owner, and to its loop if that is another.
// Its input is offered there. As SetOwner it is not for an owner's calls.
func (c *Conn) GiveTo(o *Owner) {
	if o.loop == c.loop.Load() {
		c.SetOwner(o)
		c.again() // not Again: o may be away, and what is asked then is for its call
		return
	}
	c.toOwner = o
	c.Move(o.loop)
}

func (c *Conn) markDirty() {
	if !c.dirty {
		c.dirty = true
		l := c.loop.Load()
		l.dirty = append(l.dirty, c)
	}
}

// fail closes the connection for the reason given, unless it has one already.
func (c *Conn) fail(err error) {
	if c.state >= closing {
		return
	}
	leaves := c.state == moving
	c.state, c.err = closing, err
	if !leaves {
		c.ask(opLeave)
	}
}

// deafTo tells whether input is to stay where it is.
func (c *Conn) deafTo() bool {
	return c.pausing != running || c.corked || c.throttled || c.flushFirst || c.finished
}

// serve offers the connection's input in its owner's turn, what is kept and
// what has come.
func (c *Conn) serve(r *runner) outcome {
	if c.state != open {
		return done
	}
	if c.offered {
		c.offered = false
		if len(c.in) > 0 && len(c.in) >= c.need && !c.deafTo() {
			if end := c.data(r, c.in, false); end != done {
				return end
			}
		}
	}
	// What is there comes first, even before the peer's end.
	if c.state == open && c.seen != 0 && !c.offered {
		if end := c.readable(r); end != done {
			return end
		}
	}
	c.settled()
	return done
}

// settled has the connection served again if there is more to do for it.
func (c *Conn) settled() {
	switch {
	case c.state != open:
	case c.deafTo():
		if c.seen&broken != 0 || c.seen&peerDone != 0 && c.pausing == paused {
			c.enqueue()
		}
	case c.offered || c.seen != 0:
		c.enqueue()
	}
}

// readable handles input, or the peer's end. While input is to stay where it
// is, what the poller has told is remembered, and it won't tell it again.
func (c *Conn) readable(r *runner) outcome {
	switch {
	case !c.deafTo():
	case c.seen&broken != 0:
		err := c.socket.broken()
		if err == nil {
			err = io.EOF
		}
		c.fail(err)
		return done
	case c.seen&peerDone != 0 && c.pausing == paused:
		c.finish()
		return done
	default:
		return done
	}
	if c.in == nil {
		return c.readShared(r, nil)
	}
	if max(len(c.in), c.need) <= stagedInput {
		return c.readShared(r, c.in)
	}
	return c.readOwn(r)
}

// readShared reads into the loop's buffer, behind a copy of what was left.
func (c *Conn) readShared(r *runner, left []byte) outcome {
	start := copy(r.shared, left)
	n := c.read(r.shared[start:])
	if n == 0 {
		return done
	}
	in := r.shared[:start+n]
	if len(in) < c.need {
		c.keep(in)
		return done
	}
	return c.data(r, in, true)
}

// readOwn reads into the connection's own buffer, where a long command gathers.
func (c *Conn) readOwn(r *runner) outcome {
	c.makeRoom()
	start := len(c.in)
	n := c.read(c.in[start:min(cap(c.in), start+ownReadSize)])
	if n == 0 {
		return done
	}
	c.in = c.in[:start+n]
	if len(c.in) > maxInput {
		c.fail(ErrInputLimit)
		return done
	}
	if len(c.in) >= c.need {
		return c.data(r, c.in, false)
	}
	return done
}

// read is one read from the socket; it sees to errors and the end. When it
// gets less than it has room for, nothing is left: the poller tells of more.
func (c *Conn) read(b []byte) (n int) {
	n, status, err := c.socket.read(b)
	if n < len(b) && c.seen&(peerDone|broken) == 0 {
		c.seen = 0
	}
	switch status {
	case moved:
		return n
	case again:
		c.seen = 0
	case ended:
		c.finish()
	case failed:
		c.fail(err)
	}
	return 0
}

// finish is the end of what the peer sends. It still gets its replies.
func (c *Conn) finish() {
	c.finished = true
	c.seen = 0
	if !c.owing {
		c.part()
	}
}

// part closes the connection, whose peer has finished, when all has been sent.
func (c *Conn) part() {
	if c.OutPending() == 0 {
		c.fail(io.EOF)
	} else {
		c.flushFirst, c.err = true, io.EOF
		c.ask(opFlush)
	}
}

// data gives the handler input, in the shared buffer or in the connection's
// own.
func (c *Conn) data(r *runner, in []byte, shared bool) outcome {
	if c.Out == nil {
		c.Out = r.buffers.get(c.usual)
	}
	c.need = 0
	l, o := r.loop, c.owner
	if l.hearing != c {
		l.hearing = c
		l.heard++
	}
	if o == l.common {
		used := c.handler.Data(c, in)
		c.used(in, used, shared)
		return done
	}
	if o.slow > 0 && !l.ending {
		l.sendAway(r, o, func() (rest func()) {
			used := c.handler.Data(c, in)
			return func() {
				c.used(in, used, shared)
				c.settled()
			}
		})
		return elsewhere
	}
	call := l.enter(r, o)
	used := c.handler.Data(c, in)
	if !l.exit(call) {
		l.Post(func() {
			o.home(func() {
				c.used(in, used, shared)
				c.settled()
			})
		})
		return lost
	}
	o.settle()
	c.used(in, used, shared)
	return done
}

// used ends data.
func (c *Conn) used(in []byte, used int, shared bool) {
	if c.OutPending() > 0 {
		c.markDirty()
	} else {
		c.releaseOut()
	}
	if shared {
		c.keep(in[used:])
	} else {
		c.use(used)
	}
}

// keep puts away what is left in the shared buffer.
func (c *Conn) keep(rest []byte) {
	if len(rest) == 0 {
		c.releaseIn()
		return
	}
	if room := c.roomFor(len(rest)); room > cap(c.inBuf) || room < cap(c.inBuf)/4 {
		c.releaseIn()
		c.inBuf = c.buffers().getFor(room)
	}
	c.in = c.inBuf[:copy(c.inBuf[:len(rest)], rest)]
}

// use drops the used head of what is kept.
func (c *Conn) use(used int) {
	if used == len(c.in) {
		c.releaseIn()
		return
	}
	c.in = c.in[used:]
	if room := c.roomFor(len(c.in)); used > 0 && room < cap(c.inBuf)/4 {
		c.rehouse(room)
	}
}

// roomFor is the size of buffer for so much input with more to come.
func (c *Conn) roomFor(have int) int {
	// What comes behind a long argument (SET key value EX 10) should not make all move again.
	const slack = 4 << 10
	if room := max(have, c.need); room > stagedInput {
		return room + slack
	}
	return have // the next read goes through the shared buffer
}

// makeRoom lets the connection's own buffer have room for a useful read.
func (c *Conn) makeRoom() {
	const useful = 4 << 10
	have := len(c.in)
	if missing := c.need - have; cap(c.in)-have >= useful || missing > 0 && cap(c.in)-have >= missing {
		return
	}
	c.rehouse(max(c.roomFor(have), 2*have))
}

// rehouse moves the kept input to a buffer of another size.
func (c *Conn) rehouse(room int) {
	buffers := c.buffers()
	fitting := buffers.getFor(room)
	c.in = fitting[:copy(fitting[:len(c.in)], c.in)]
	buffers.putMapped(c.inBuf)
	c.inBuf = fitting
}

// write sends what is to be sent, and judges the client by what is left.
func (c *Conn) write() {
	if c.state >= closing {
		return
	}
	if c.blocked || c.corked {
		c.judge()
		return
	}
	c.safe = min(c.safe, len(c.Out)) // what was corked may have been taken back
	if c.safe > c.sent {
		end := min(c.safe, c.sent+mostWritten)
		n, status, err := c.socket.write(c.Out[c.sent:end])
		if status == failed {
			c.fail(err)
			return
		}
		c.sent += n
		if c.sent < end {
			c.blocked = true
			if c.sent > len(c.Out)/2 {
				c.Out = c.Out[:copy(c.Out, c.Out[c.sent:])]
				c.safe -= c.sent
				c.sent = 0
			}
		}
	}
	if c.OutPending() > 0 {
		if c.sent < c.safe && !c.blocked {
			c.owner.mayWrite(c)
		}
		c.judge()
		return
	}
	c.usual = max(classOf(c.sent), c.usual-min(c.usual, 1)) // by steps, since they vary
	c.releaseOut()
	if c.flushFirst && c.state == open {
		c.socket.drain(c.loop.Load().runner.shared)
		c.fail(c.err)
		return
	}
	c.judge()
}

// judge stops reading from a client that doesn't read, starts again when it
// does, and closes it when it is hopeless.
func (c *Conn) judge() {
	pending := c.OutPending()
	switch {
	case c.OutLimit > 0 && pending > c.OutLimit:
		c.fail(ErrOutputLimit)
	case pending > softOutput:
		c.throttled = true
	case c.throttled && pending <= resumedOutput:
		c.throttled = false
		if c.state == open {
			c.Again()
		}
	}
}

func (c *Conn) releaseIn() {
	if c.inBuf != nil {
		c.buffers().putMapped(c.inBuf)
		c.in, c.inBuf = nil, nil
	}
}

func (c *Conn) releaseOut() {
	if c.Out != nil {
		c.buffers().put(c.Out)
		c.Out, c.sent, c.safe = nil, 0, 0
	}
}

// end is the end of a connection.
func (c *Conn) end() {
	l := c.loop.Load()
	c.state = gone
	c.socket.close(l)
	l.forget(c)
	c.releaseIn()
	c.releaseOut()
	c.owner.forget(c)
	if c.owner == l.common {
		c.handler.Closed(c, c.err)
		return
	}
	c.owner.push(item{conn: c, closed: true})
}

// depart sends the connection to its new loop.
func (c *Conn) depart() {
	from, to := c.loop.Load(), c.target
	if err := from.poller.remove(c); err != nil {
		c.state, c.err = closing, err
		c.end()
		return
	}
	from.forget(c)
	// Whoever still has it in a list would touch what is another thread's.
	c.owner.forget(c)
	if c.dirty {
		from.dirty = slices.DeleteFunc(from.dirty, func(other *Conn) bool { return other == c })
		c.dirty = false
	}
	// Whoever reads the new loop from here on posts behind this letter.
	if !to.post(func() { c.arrive(to) }, func() { c.loop.Store(to) }) {
		from.know(c)
		c.state, c.err = closing, ErrClosed
		c.end()
	}
}

// arrive is the other half of depart, on the new loop's thread. The owner may be away:
// nothing is asked of it.
func (c *Conn) arrive(l *Loop) {
	c.state, c.target = open, nil
	c.owner, c.toOwner = cmp.Or(c.toOwner, l.common), nil
	c.blocked, c.seen = false, 0
	if err := l.admit(c); err != nil {
		l.know(c)
		c.state, c.err = closing, err
		l.leaving = append(l.leaving, c)
		return
	}
	if c.OutPending() > 0 || c.flushFirst {
		c.markDirty()
	}
	c.again()
}
