package loop

import (
	"errors"
	"io"
	"net/netip"
	"slices"
	"sync/atomic"
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

	in    []byte // received and not used, in inBuf
	inBuf []byte // what in is part of
	need  int    // as told by Expect
	sent  int    // how much of Out has gone
	usual uint8  // size class of the buffer that it last needed for Out

	state   state
	err     error // why it closes
	target  *Loop // where it moves
	pausing pausing

	dirty      bool // is in Loop.dirty
	inAgain    bool // is in Loop.again
	blocked    bool // the kernel takes no more; told when it does
	throttled  bool // not read because its client doesn't read
	finished   bool // the peer sends no more, and the end of what it sent has been seen
	corked     bool // what is in Out stays there
	flushFirst bool // close when all is sent
	deaf       bool // the poller is to be silent about input
	awaited    bool // the poller is to tell when the kernel takes more
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

// Post is Loop.Post on the loop that the connection is on when fn runs,
// wherever it moves in between. Any goroutine may call it. fn also runs when the connection
// has been closed; Closed tells. It returns false when the loop is closed.
func (c *Conn) Post(fn func()) bool {
	l := c.loop.Load()
	return l.Post(func() {
		// On l's thread. If c is elsewhere by now, it was sent there before, so
		// a letter to the same place arrives after it.
		if c.loop.Load() != l {
			c.Post(fn)
			return
		}
		fn()
	})
}

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

// Pause stops offering input, and soon reading it, until Resume. When the
// peer closes its end meanwhile, the connection is closed at once, unread input
// and all: a client that is gone waits for nothing.
func (c *Conn) Pause() {
	c.pausing = paused
	if c.deaf {
		c.watch() // of the peer's end it wants to hear
	}
}

// Hold is Pause for what ends by itself and soon. A peer that has only
// finished sending, as in `printf ... | nc`, still gets its replies, and what it has sent is
// read after Resume. A peer that has broken the connection is noticed all the same.
func (c *Conn) Hold() { c.pausing = held }

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
		c.listen()
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
		c.markDirty()
	}
	if c.state == open {
		c.Again()
		c.listen()
	}
}

// Again has the input that Data leaves offered again in the next batch, though no
// more has come: for a handler that has had its share of this one.
func (c *Conn) Again() {
	if !c.inAgain {
		c.inAgain = true
		l := c.loop.Load()
		l.again = append(l.again, c)
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
		c.Out = c.loop.Load().buffers.get(c.usual)
	}
}

// Flush has Out written at the end of the batch. Inside Data there is no need.
func (c *Conn) Flush() {
	if c.state < closing {
		c.markDirty()
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
		l.leaving = append(l.leaving, c)
	}
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
	if l := c.loop.Load(); c.state != moving {
		l.leaving = append(l.leaving, c)
	}
	c.state, c.err = closing, err
}

// deafTo tells whether input is to stay where it is.
func (c *Conn) deafTo() bool {
	return c.pausing != running || c.corked || c.throttled || c.flushFirst || c.finished
}

// readable handles input, or the peer's end. Pausing costs no system call if
// no input comes meanwhile: only when some does, the poller is silenced.
func (c *Conn) readable(what readiness) {
	if c.deafTo() {
		switch {
		case what&broken != 0:
			err := c.socket.broken()
			if err == nil {
				err = io.EOF
			}
			c.fail(err)
		case what&peerDone != 0 && c.pausing == paused:
			c.fail(io.EOF)
		default:
			c.deaf = true
			c.watch()
		}
		return
	}
	if c.inAgain {
		return // what is there comes first, even before the peer's end
	}
	if c.in == nil {
		c.readShared(nil)
		return
	}
	if max(len(c.in), c.need) <= stagedInput {
		c.readShared(c.in)
		return
	}
	c.readOwn()
}

// readShared reads into the loop's buffer, behind a copy of what was left.
func (c *Conn) readShared(left []byte) {
	shared := c.loop.Load().shared
	start := copy(shared, left)
	n, ok := c.read(shared[start:])
	if !ok {
		return
	}
	in := shared[:start+n]
	if len(in) >= c.need {
		in = in[c.data(in):]
	}
	c.keep(in)
}

// readOwn reads into the connection's own buffer, where a long command gathers.
func (c *Conn) readOwn() {
	c.makeRoom()
	start := len(c.in)
	n, ok := c.read(c.in[start:min(cap(c.in), start+ownReadSize)])
	if !ok {
		return
	}
	c.in = c.in[:start+n]
	if len(c.in) > maxInput {
		c.fail(ErrInputLimit)
		return
	}
	if len(c.in) >= c.need {
		c.use(c.data(c.in))
	}
}

// read is one read from the socket; it sees to errors and the end.
func (c *Conn) read(b []byte) (n int, ok bool) {
	n, status, err := c.socket.read(b)
	switch status {
	case done:
		return n, true
	case ended:
		c.finished = true
		if c.OutPending() == 0 {
			c.fail(io.EOF)
		} else {
			c.flushFirst, c.err = true, io.EOF
			c.deaf = true
			c.watch()
		}
	case failed:
		c.fail(err)
	}
	return 0, false
}

// data calls the handler and returns how much it used.
func (c *Conn) data(in []byte) int {
	if c.Out == nil {
		c.Out = c.loop.Load().buffers.get(c.usual)
	}
	c.need = 0
	used := c.handler.Data(c, in)
	if c.OutPending() > 0 {
		c.markDirty()
	} else {
		c.releaseOut()
	}
	return used
}

// keep puts away what is left in the shared buffer.
func (c *Conn) keep(rest []byte) {
	if len(rest) == 0 {
		c.releaseIn()
		return
	}
	l := c.loop.Load()
	if room := c.roomFor(len(rest)); room > cap(c.inBuf) || room < cap(c.inBuf)/4 {
		c.releaseIn()
		c.inBuf = l.buffers.getFor(room)
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
	buffers := &c.loop.Load().buffers
	fitting := buffers.getFor(room)
	c.in = fitting[:copy(fitting[:len(c.in)], c.in)]
	buffers.putMapped(c.inBuf)
	c.inBuf = fitting
}

// offer gives the handler the input that was kept.
func (c *Conn) offer() {
	if c.state != open || c.deafTo() {
		return
	}
	if len(c.in) > 0 && len(c.in) >= c.need {
		c.use(c.data(c.in))
	}
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
	if c.OutPending() > 0 {
		n, status, err := c.socket.write(c.Out[c.sent:])
		if status == failed {
			c.fail(err)
			return
		}
		c.sent += n
		if c.OutPending() > 0 {
			c.blocked = true
			c.watch()
			if c.sent > len(c.Out)/2 {
				c.Out = c.Out[:copy(c.Out, c.Out[c.sent:])]
				c.sent = 0
			}
			c.judge()
			return
		}
	}
	c.usual = classOf(c.sent)
	c.releaseOut()
	if c.awaited {
		c.watch()
	}
	if c.flushFirst && c.state == open {
		c.socket.drain(c.loop.Load().shared)
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
			c.listen()
		}
	}
}

// watch tells the poller what the connection now wants to hear of.
func (c *Conn) watch() {
	what := canRead | peerDone
	if c.deaf {
		what = 0
		if c.pausing == paused {
			what = peerDone
		}
	}
	c.awaited = c.blocked
	if c.blocked {
		what |= canWrite
	}
	if err := c.loop.Load().poller.watch(c, what); err != nil {
		c.fail(err)
	}
}

// listen hears of input again.
func (c *Conn) listen() {
	if c.deaf && !c.deafTo() {
		c.deaf = false
		c.watch()
	}
}

func (c *Conn) releaseIn() {
	if c.inBuf != nil {
		c.loop.Load().buffers.putMapped(c.inBuf)
		c.in, c.inBuf = nil, nil
	}
}

func (c *Conn) releaseOut() {
	if c.Out != nil {
		c.loop.Load().buffers.put(c.Out)
		c.Out, c.sent = nil, 0
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
	c.handler.Closed(c, c.err)
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
	if c.inAgain {
		from.again = slices.DeleteFunc(from.again, func(other *Conn) bool { return other == c })
		c.inAgain = false
	}
	if c.dirty {
		from.dirty = slices.DeleteFunc(from.dirty, func(other *Conn) bool { return other == c })
		c.dirty = false
	}
	if !to.Post(func() { c.arrive(to) }) {
		from.know(c)
		c.state, c.err = closing, ErrClosed
		c.end()
		return
	}
	// After the letter, so that whoever reads the new loop here posts behind it.
	// If c has already been there and gone on, this is too late and does nothing.
	c.loop.CompareAndSwap(from, to)
}

// arrive is the other half of depart, on the new loop's thread.
func (c *Conn) arrive(l *Loop) {
	c.loop.Store(l)
	c.state, c.target = open, nil
	c.blocked, c.awaited, c.deaf = false, false, false
	if err := l.enter(c); err != nil {
		l.know(c)
		c.fail(err)
		return
	}
	if c.OutPending() > 0 || c.flushFirst {
		c.markDirty()
	}
	c.Again()
}
