// Package loop runs event loops: bytes of many connections in, batches of
// work out to a Handler, replies back. Nothing that runs on a loop may wait.
//
// The node makes one Loop a core and gives it connections; the engine's databases
// live on loops, and run their commands in Handler.Data. What would have to
// wait (for another node, for a key on disk) pauses its connection, does so on a
// goroutine, and comes back through the mailbox, Post.
//
// A loop goes round in batches:
//
//	wait until sockets are ready, the mailbox has mail or a timer is due
//	│
//	├─ the mailbox, then the timers
//	├─ each owner in turn, for a slice of time:
//	│    its ready sockets: one read into a buffer that all connections share, Handler.Data
//	│    its letters and timers
//	├─ Options.BeforeFlush, once: what must be safe before a client hears of it
//	├─ each connection with replies: one write of them all
//	└─ closings and moves
//
// So the cost of a system call, of a journal write and of a cache miss is shared
// by as many commands as came together, and a loop that has little to do answers at
// once. A connection owns memory only for an incomplete command and for replies
// that its client doesn't take; an idle one holds none.
//
// Connections belong to Owners, databases as a rule. Between slices the sockets are
// looked at again, so whoever asks for little is served soon, however much
// another asks for; and a call that doesn't end has the loop go on without its owner. See
// Owner, and watchdog.go.
//
// Except where it says otherwise, everything here is for the loop's own
// thread: inside Handler's methods, BeforeFlush, timers and posted functions.
//
// On Linux a loop is an epoll instance on a locked thread; DESIGN.md beside
// this file has reasons and figures. Elsewhere (and with the build tag portableloop, to test it)
// the same Loop is fed by two goroutines a connection.
package loop

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vecino/internal/fifo"
)

// ErrClosed is what connections are closed with when their loop is closed.
var ErrClosed = errors.New("loop is closed")

// A Handler is given what a connection receives. Both methods are called on
// the thread of the loop that the connection is on.
type Handler interface {
	// Data is given all bytes received and not used before, never none, and
	// returns how many of them it has used. What it leaves is kept and offered again
	// when more has come, or after Resume or Again. It appends replies to c.Out.
	// in is good only until Data returns.
	Data(c *Conn, in []byte) (used int)

	// Closed is called exactly once, when the connection is no more. err is nil when it
	// was closed from this side, io.EOF when the peer closed it.
	Closed(c *Conn, err error)
}

// Options are what a loop is made with.
type Options struct {
	// BeforeFlush, if set, is called once in each batch that did anything, after
	// all its work and before any of its replies is written. Replies that it
	// appends itself are written too. What may take long in it goes through Wait.
	BeforeFlush func(l *Loop)

	// Scratch, if set, makes what Conn.Scratch returns: memory for the calls of
	// a loop. There is one for each goroutine that calls handlers.
	Scratch func() any

	// AcceptError, if set, is told when a listener can't accept for want of
	// file descriptors or memory; it tries again after a while.
	AcceptError func(err error)
}

const (
	readSize      = 64 << 10  // the shared buffer: the most that is read for a connection in a batch
	ownReadSize   = 256 << 10 // the same into a connection's own buffer, for a long command
	stagedInput   = 32 << 10  // input left over up to this size is copied to the shared buffer's head and read behind
	maxInput      = 1 << 30   // a connection with more unused input is closed, as in Redis
	softOutput    = 1 << 20   // with more unsent output a connection isn't read
	resumedOutput = softOutput / 2
	batchSize     = 512       // sockets in a batch
	mostWritten   = 256 << 10 // by one call: longer ones hold others up

	// slice is how long an owner is served before the sockets are looked at
	// again. Shorter is fairer; looking costs a third of a microsecond.
	slice = 100 * time.Microsecond
	// patience is how long a batch goes on that serves several owners before
	// their replies are sent.
	patience = 2 * slice
	// stint is how long a loop goes on before it passes through Go's scheduler; see
	// Loop.pass.
	stint = 8 * time.Millisecond
	// unhurried is how much work may be done before the clock is read, in
	// units of about a microsecond; see Loop.spend.
	unhurried = 24
	// lightest is the least that a call counts for, so that calls which have become
	// heavy are soon noticed.
	lightest = 3
)

// A Loop is one event loop. Its methods are for its own thread, except Post, Add,
// Accept, Listen, Len, Run and Close.
type Loop struct {
	options Options
	poller  poller
	runner  *runner // who drives it
	common  *Owner  // of connections that have no other; its calls can't be taken over from
	conns   connSet // all that are on this loop
	now     time.Time
	timers  timerHeap
	count   atomic.Int64

	batch    uint64             // the number of the batch
	turns    fifo.Queue[*Owner] // have something to be done
	held     []*Owner           // have connections in later
	writers  []*Owner           // have replies that may be written
	dirty    []*Conn            // have replies to write at the end of the batch
	leaving  []*Conn            // to be closed or moved at the end of the batch
	served   int                // connections, in this batch
	heard    int                // connections that had input, in this batch
	hearing  *Conn              // the last of them
	units    int                // of work since the clock was read
	looked   time.Time          // when the sockets were last looked at
	passed   time.Time          // when the loop last passed through Go's scheduler, or was idle
	calls    int                // the same
	lastLook uint32             // of the watchdog, when the clock was read
	missing  int                // owners that aren't here
	last     *Owner             // whose connection was served last
	ending   bool

	watched  watched
	sleeping atomic.Bool
	waking   atomic.Int32

	mailbox struct {
		sync.Mutex
		mail   []func()
		closed bool
		full   atomic.Bool // whether there is mail, to be read without the lock
	}
	letters []func() // the mailbox's other array

	stop struct {
		sync.Mutex
		running bool
		asked   atomic.Bool
		err     error         // of the system; read after over
		over    chan struct{} // closed when the loop has ended
		ended   chan struct{} // closed when Run has returned, or never will run
	}
	runners  sync.WaitGroup
	spare    []*runner      // for calls elsewhere
	portable sync.WaitGroup // goroutines of listeners and of the portable poller
}

// New makes a loop. Run it, or Close it.
func New(options Options) (*Loop, error) {
	l := &Loop{options: options, now: time.Now()}
	l.runner = l.newRunner()
	l.common = l.NewOwner(nil)
	l.stop.over, l.stop.ended = make(chan struct{}), make(chan struct{})
	if err := l.poller.open(); err != nil {
		return nil, fmt.Errorf("make an event loop: %w", err)
	}
	return l, nil
}

// A runner is a goroutine that drives a loop, on a thread of its own, and the
// memory that its calls use. It drives until the loop ends, or until the loop is taken from it;
// then it ends the call that it is in, and itself.
type runner struct {
	loop    *Loop
	shared  []byte    // what is read goes here first
	buffers bufPool   // for what connections keep
	scratch any       // of Options.Scratch
	calls   uint64    // odd; see watched
	began   time.Time // the turn
	lost    bool      // the loop was taken from it in Loop.Wait
}

func (l *Loop) newRunner() *runner {
	r := &runner{loop: l, shared: make([]byte, readSize), calls: 1}
	if l.options.Scratch != nil {
		r.scratch = l.options.Scratch()
	}
	return r
}

// Run runs the loop, on goroutines that are locked to their threads, until ctx
// is done or Close is called. It then closes all connections and returns nil;
// it returns an error when the system fails it, after doing the same.
func (l *Loop) Run(ctx context.Context) error {
	l.stop.Lock()
	if l.stop.running || l.stop.asked.Load() {
		l.stop.Unlock()
		return ErrClosed
	}
	l.stop.running = true
	l.stop.Unlock()
	defer close(l.stop.ended)
	defer context.AfterFunc(ctx, l.askToStop)()

	guard.watch(l)
	l.start(l.runner)
	<-l.stop.over
	l.runners.Wait()
	guard.leave(l)
	return l.stop.err
}

// start has a runner drive the loop.
func (l *Loop) start(r *runner) {
	l.runners.Go(func() {
		// The thread ends with the goroutine: nobody else is to have it.
		runtime.LockOSThread()
		l.drive(r)
	})
}

// drive goes round until the loop ends or another drives it.
func (l *Loop) drive(r *runner) {
	l.runner = r
	var err error
	for err == nil && !l.stop.asked.Load() {
		mine := true
		if mine, err = l.once(r); !mine {
			return
		}
	}
	l.stop.err = err
	l.end(r)
	close(l.stop.over)
}

// Close ends the loop and waits until Run has returned, all connections have
// been closed and their handlers told. Any goroutine but the loop's own may call it.
func (l *Loop) Close() {
	l.stop.Lock()
	running, asked := l.stop.running, l.stop.asked.Load()
	l.askToStop()
	l.stop.Unlock()
	if !running && !asked {
		l.end(l.runner)
		close(l.stop.ended)
	}
	<-l.stop.ended
}

func (l *Loop) askToStop() {
	l.stop.asked.Store(true)
	l.wake()
}

// end closes everything, and runs mail until there is none: posted functions
// may carry connections that moved here, or waiters who must be told. It waits for
// owners that are away, and then closes theirs.
func (l *Loop) end(r *runner) {
	l.ending = true
	for {
		l.readMail()
		l.newBatch()
		l.takeTurns(r)
		l.flush(r)
		l.conns.each(func(c *Conn) {
			if c.owner.state != away {
				c.fail(ErrClosed)
			}
		})
		l.leave()
		if l.turns.Len()+len(l.held)+len(l.leaving) > 0 {
			continue
		}
		l.mailbox.Lock()
		if len(l.mailbox.mail) == 0 && l.missing == 0 {
			l.mailbox.closed = true
			l.mailbox.Unlock()
			break
		}
		l.mailbox.Unlock()
		l.awaitMail()
	}
	for l.waking.Load() > 0 {
		runtime.Gosched()
	}
	l.poller.close()
	l.portable.Wait()
	r.buffers.close()
}

// awaitMail waits for mail and nothing else.
func (l *Loop) awaitMail() {
	l.sleeping.Store(true)
	if !l.mailbox.full.Load() {
		if n, err := l.poller.wait(-1); err == nil {
			l.poller.dispatch(l, n)
		}
	}
	l.sleeping.Store(false)
}

// once is once round. It returns false when the loop has been taken from the
// runner.
func (l *Loop) once(r *runner) (mine bool, err error) {
	n, err := l.await()
	if err != nil {
		return true, err
	}
	before := l.now
	l.now = time.Now()
	l.looked = l.now
	if l.now.Sub(before) >= stint {
		l.passed = l.now // it was idle: Go may have its processor already
	}
	l.newBatch()
	if n > 0 {
		l.poller.dispatch(l, n)
	}
	if l.mailbox.full.Load() {
		l.readMail()
	}
	if len(l.timers) > 0 {
		l.timers.run(l.now)
	}
	if l.turns.Len() > 0 && !l.takeTurns(r) {
		return false, nil
	}
	if !l.flush(r) {
		return false, nil
	}
	if len(l.leaving) > 0 {
		l.leave()
	}
	l.pass()
	return true, nil
}

// pass has the loop pass through Go's scheduler when it hasn't for a while. Go's
// monitor takes the processor from a goroutine that it has seen on it for 10 ms, and all
// that a loop does, its system calls included, is one stay to it. When it takes it from a
// loop that waits for sockets, it looks for more to take, every 20 µs for a millisecond
// and ever less often for some more: thousands of sleeps and wake-ups a second, for nothing. Who
// has passed lately is left alone.
func (l *Loop) pass() {
	if l.now.Sub(l.passed) >= stint {
		l.passed = l.now
		runtime.Gosched()
	}
}

// newBatch lets connections be served that have had their share of the last.
func (l *Loop) newBatch() {
	l.batch++
	l.served, l.units, l.calls = 0, 0, 0
	l.heard, l.hearing = 0, nil
	for i, o := range l.held {
		for _, c := range o.later {
			o.queue.Push(item{conn: c})
		}
		clear(o.later)
		o.later = o.later[:0]
		o.wake()
		l.held[i] = nil
	}
	l.held = l.held[:0]
}

// takeTurns serves owners: each for a slice, and one that is alone until there is
// nothing left to do for it, or enough for a batch.
func (l *Loop) takeTurns(r *runner) (mine bool) {
	start := l.now
	var first *Owner
	several := false
	for l.turns.Len() > 0 && l.served < batchSize {
		if several && !l.ending && (l.turns.First().turn == l.batch || l.now.Sub(start) >= patience) {
			break
		}
		o := l.turns.Pop()
		if o.owes >= slice && l.turns.Len() > 0 {
			o.owes -= slice
			o.queued = false
			o.wake()
			continue
		}
		if first == nil {
			first = o
		}
		several = several || o != first
		o.turn = l.batch
		switch l.serve(r, o) {
		case lost:
			return false
		case done:
			o.queued = false
			o.wake()
		}
		if l.turns.Len() > 0 && l.now.Sub(l.looked) >= slice && !l.ending && l.look() {
			break
		}
	}
	return true
}

// look looks at the sockets once more, in the middle of a batch. It reports
// true if the batch should end, because there is something else to do first.
func (l *Loop) look() bool {
	n, err := l.poller.poll()
	if err != nil {
		return true // the next poll will say so
	}
	l.looked = l.now
	l.poller.dispatch(l, n)
	return l.mailbox.full.Load() || l.timers.due(l.now)
}

// An outcome is how a call ended, or a turn with a call in it.
type outcome uint8

const (
	done      outcome = iota
	elsewhere         // it goes on on another goroutine: the owner is away
	lost              // it was taken over: the loop isn't the runner's any more
)

// serve is a turn of an owner.
func (l *Loop) serve(r *runner, o *Owner) (end outcome) {
	if o.ready != nil && !o.ready(o.note) {
		o.state = out
		l.missing++
		return done
	}
	r.began = l.now
	l.writeFor(o)
	for over := len(o.out) > 0; !over && o.queue.Len() > 0 && l.served < batchSize; over = l.over(r) {
		i := o.queue.Pop()
		switch c := i.conn; {
		case i.closed:
			end = l.call(r, o, func() { c.handler.Closed(c, c.err) })
		case c != nil && c.turn == l.batch:
			if len(o.later) == 0 {
				l.held = append(l.held, o)
			}
			o.later = append(o.later, c)
			end = done
		case c != nil:
			c.turn, c.queued = l.batch, false
			l.served++
			if o != l.last {
				l.last = o
				l.watched.shared.Store(guard.looks.Load())
			}
			end = c.serve(r)
		case i.timer == nil:
			end = l.call(r, o, i.fn)
		case i.timer.over:
			end = done
		default:
			end = l.call(r, o, i.timer.fire)
		}
		if end != done {
			return end
		}
		l.calls++
		if took := l.spend(o.weight); took > 0 {
			o.weight = max(lightest, min(int(took/time.Microsecond)/l.calls, unhurried))
			l.calls = 0
		}
	}
	if o != l.common { // which is everybody's: new connections wait in it
		o.owes = min(max(0, o.owes+l.now.Sub(r.began)-slice), mostOwed)
	}
	return done
}

// over reports whether the turn has taken its slice.
func (l *Loop) over(r *runner) bool { return l.now.Sub(r.began) >= slice && !l.ending }

// mostOwed bounds for how many turns an owner pays that had too long a one.
const mostOwed = 10 * slice

// spend notes work of about so many microseconds. When enough has come
// together, or the watchdog has looked meanwhile, it reads the clock, and returns how long all
// that has taken.
func (l *Loop) spend(units int) (took time.Duration) {
	look := guard.looks.Load()
	if l.units += units; l.units < unhurried && look == l.lastLook {
		return 0
	}
	before := l.now
	l.units, l.lastLook, l.now = 0, look, time.Now()
	return l.now.Sub(before)
}

// call calls fn for an owner, so that the loop can be taken over meanwhile.
func (l *Loop) call(r *runner, o *Owner, fn func()) outcome {
	if o == l.common {
		fn()
		return done
	}
	call := l.enter(r, o)
	fn()
	if !l.exit(call) {
		l.Post(func() { o.home(nil) })
		return lost
	}
	o.settle()
	return done
}

// sendAway makes a call for an owner whose calls have been slow on a goroutine
// of its own, with the memory that the input is in. Nobody waits then for the watchdog.
func (l *Loop) sendAway(r *runner, o *Owner, call func() (rest func())) {
	var other *runner
	if n := len(l.spare); n > 0 {
		other = l.spare[n-1]
		l.spare = l.spare[:n-1]
	} else {
		other = l.newRunner()
	}
	r.shared, other.shared = other.shared, r.shared
	other.began = l.now
	o.calling, o.runner, o.now = true, other, l.now
	o.state = away
	l.missing++
	guard.away.Add(1)
	l.runners.Go(func() {
		begun := time.Now()
		rest := call()
		took := time.Since(begun)
		l.Post(func() {
			if o.slow = max(0, o.slow-1); took >= shortLook {
				o.slow = suspicion
			}
			o.home(rest)
			const kept = 4
			if len(l.spare) < kept {
				l.spare = append(l.spare, other)
			}
		})
	})
}

// suspicion is how many calls of an owner are made elsewhere after a slow one.
const suspicion = 8

// due tells whether there is something to do without any socket being ready.
func (l *Loop) due() bool {
	return l.mailbox.full.Load() || l.turns.Len()+len(l.held)+len(l.dirty)+len(l.writers)+len(l.leaving) > 0 || l.stop.asked.Load()
}

// await returns how many sockets are ready: at once if there is something else
// to do, or else when there is something to do at all. Whoever posts finds sleeping
// set and wakes the loop, or else the loop finds the mail. It asks the system once. A loop
// that isn't pressed has nothing to do before most of its batches, so to ask without waiting
// first would be one more system call for each.
func (l *Loop) await() (n int, err error) {
	if l.due() {
		return l.poller.poll()
	}
	l.sleeping.Store(true)
	if !l.mailbox.full.Load() && !l.stop.asked.Load() {
		n, err = l.poller.wait(l.timers.wait(time.Now))
	}
	l.sleeping.Store(false)
	return n, err
}

// wake ends the loop's sleep, if it sleeps. The count of who is about to
// keeps the poller open for as long: it must not write to a descriptor that
// has been closed and become something else.
func (l *Loop) wake() {
	if !l.sleeping.Load() {
		return
	}
	l.waking.Add(1)
	if l.sleeping.CompareAndSwap(true, false) {
		l.poller.wake()
	}
	l.waking.Add(-1)
}

// Post has fn run on the loop's thread, after those posted before it. It may be
// called from any goroutine and doesn't wait for fn. It returns false, and fn
// will not run, when the loop is closed.
func (l *Loop) Post(fn func()) bool { return l.post(fn, nil) }

// post is Post; sent, if set, is called before the letter can have been read
// or another be posted.
func (l *Loop) post(fn, sent func()) bool {
	l.mailbox.Lock()
	if l.mailbox.closed {
		l.mailbox.Unlock()
		return false
	}
	l.mailbox.mail = append(l.mailbox.mail, fn)
	if sent != nil {
		sent()
	}
	l.mailbox.full.Store(true)
	l.mailbox.Unlock()
	l.wake()
	return true
}

// readMail runs what has been posted up to now; what that posts in turn is
// for the next batch, so that sockets get their turn.
func (l *Loop) readMail() {
	l.mailbox.Lock()
	letters := l.mailbox.mail
	l.mailbox.mail = l.letters[:0]
	l.mailbox.full.Store(false)
	l.mailbox.Unlock()
	for i, fn := range letters {
		fn()
		letters[i] = nil
	}
	const kept = 4096
	if cap(letters) > kept {
		letters = nil
	}
	l.letters = letters
}

// Now is the time, read once a batch, and now and then in a long one.
func (l *Loop) Now() time.Time { return l.now }

// NowMS is Now in milliseconds since 1970.
func (l *Loop) NowMS() int64 { return l.now.UnixMilli() }

// Heard is how many connections have had input in this batch.
func (l *Loop) Heard() int { return l.heard }

// Len is how many connections are on the loop. Any goroutine may ask.
func (l *Loop) Len() int { return int(l.count.Load()) }

// Each calls fn for every connection on the loop, in no particular order.
func (l *Loop) Each(fn func(c *Conn)) { l.conns.each(fn) }

// Add has the loop Adopt fd, from any goroutine. When it returns false the loop
// is closed, and so is fd.
func (l *Loop) Add(fd int, h Handler, peer netip.AddrPort) bool {
	if l.Post(func() { l.adoptOrClose(fd, h, peer) }) {
		return true
	}
	closeFD(fd)
	return false
}

func (l *Loop) adoptOrClose(fd int, h Handler, peer netip.AddrPort) {
	if _, err := l.Adopt(fd, h, peer); err != nil {
		closeFD(fd)
	}
}

// An Opener is a Handler that wants to know of each connection that the loop
// has adopted, before it has received anything. A connection that is moved to
// another loop isn't opened again.
type Opener interface {
	Opened(c *Conn)
}

// Adopt makes a connection of the socket fd, which from now on belongs to
// the loop. On an error it doesn't.
func (l *Loop) Adopt(fd int, h Handler, peer netip.AddrPort) (*Conn, error) {
	c := &Conn{handler: h, peer: peer, owner: l.common}
	c.loop.Store(l)
	if err := c.socket.open(c, fd); err != nil {
		return nil, fmt.Errorf("adopt a connection: %w", err)
	}
	if err := l.admit(c); err != nil {
		return nil, fmt.Errorf("adopt a connection: %w", err)
	}
	if opener, ok := h.(Opener); ok {
		opener.Opened(c)
	}
	return c, nil
}

// admit puts a connection under the loop's watch.
func (l *Loop) admit(c *Conn) error {
	l.know(c)
	if err := l.poller.add(c); err != nil {
		l.forget(c)
		return err
	}
	return nil
}

func (l *Loop) know(c *Conn) {
	l.conns.add(c)
	l.count.Add(1)
}

func (l *Loop) forget(c *Conn) {
	l.conns.remove(c)
	l.count.Add(-1)
}

// ready is called by the poller when something has changed about a socket.
func (l *Loop) ready(c *Conn, what readiness) {
	o := c.owner
	if what&canWrite != 0 && c.blocked {
		c.blocked = false
		o.mayWrite(c)
		o.wake()
	}
	if what &= canRead | peerDone | broken; what != 0 {
		c.seen |= what
		c.enqueue()
	}
}

// flush ends the work of a batch: it makes it safe, and then lets it be seen. It
// returns false when the loop was taken over while BeforeFlush waited; the next
// runner's batch then ends for both.
func (l *Loop) flush(r *runner) (mine bool) {
	if l.options.BeforeFlush != nil {
		if l.options.BeforeFlush(l); r.lost {
			return false
		}
	}
	for i, c := range l.dirty {
		l.dirty[i] = nil
		o := c.owner
		if o.state == away {
			o.dirty = append(o.dirty, c)
			continue
		}
		c.dirty = false
		if !c.corked {
			c.safe = len(c.Out)
		}
		o.mayWrite(c)
	}
	l.dirty = l.dirty[:0]
	l.write()
	return true
}

// mayWrite notes a connection that has something to be written.
func (o *Owner) mayWrite(c *Conn) {
	if !c.writing {
		c.writing = true
		o.out = append(o.out, c)
	}
	if !o.writing {
		o.writing = true
		o.loop.writers = append(o.loop.writers, o)
	}
}

// write writes what may be written, of owners with little of it first, until
// there is somebody else to be served.
func (l *Loop) write() {
	if len(l.writers) > 1 {
		slices.SortStableFunc(l.writers, func(a, b *Owner) int { return len(a.out) - len(b.out) })
	}
	for len(l.writers) > 0 {
		left := l.writers[:0]
		for _, o := range l.writers {
			if o.state == away {
				o.writing = false // it gets a turn when it is back
				continue
			}
			l.runner.began = l.now
			if l.writeFor(o); len(o.out) > 0 {
				left = append(left, o)
			} else {
				o.writing = false
			}
		}
		clear(l.writers[len(left):])
		l.writers = left
		if len(left) > 0 && !l.ending && (l.look() || l.others()) {
			for _, o := range left {
				o.wake()
			}
			return
		}
	}
}

// others reports whether somebody wants a turn who has nothing to be written.
func (l *Loop) others() bool {
	return slices.ContainsFunc(l.turns.All(), func(o *Owner) bool { return !o.writing })
}

// writeFor writes for an owner, for as long as a slice.
func (l *Loop) writeFor(o *Owner) {
	// What is written here can make connections fail, but not dirty: their
	// handlers hear of it in leave, and what they then write is for the next batch.
	n := 0
	for n < len(o.out) {
		c := o.out[n]
		n++
		c.writing = false
		c.write()
		if l.spend(4); l.over(l.runner) {
			break
		}
	}
	if n < len(o.out) {
		n = copy(o.out, o.out[n:])
	} else {
		n = 0
	}
	clear(o.out[n:])
	o.out = o.out[:n]
}

// leave closes and moves the connections that are to leave the loop.
func (l *Loop) leave() {
	list := l.leaving
	l.leaving = nil
	for i, c := range list {
		list[i] = nil
		switch {
		case c.owner.state == away:
			c.owner.leaving = append(c.owner.leaving, c)
		case c.state == moving:
			c.depart()
		default:
			c.end()
		}
	}
	if l.leaving == nil {
		l.leaving = list[:0]
	}
}
