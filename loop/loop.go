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
//	├─ each ready socket: one read into a buffer that all connections share, Handler.Data
//	├─ the mailbox, then the timers, then connections to be offered their input again
//	├─ Options.BeforeFlush, once: what must be safe before a client hears of it
//	├─ each connection with replies: one write of them all
//	└─ closings and moves
//
// So the cost of a system call, of a journal write and of a cache miss is shared
// by as many commands as came together, and a loop that has little to do answers at
// once. A connection owns memory only for an incomplete command and for replies
// that its client doesn't take; an idle one holds none.
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
	"sync"
	"sync/atomic"
	"time"
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
	// appends itself are written too.
	BeforeFlush func(l *Loop)

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
	batchSize     = 512 // sockets in a batch
)

// A Loop is one event loop. Its methods are for its own thread, except Post, Add,
// Accept, Listen, Len, Run and Close.
type Loop struct {
	options Options
	poller  poller
	shared  []byte  // what is read goes here first
	buffers bufPool // for what connections keep
	conns   connSet // all that are on this loop
	now     time.Time
	timers  timerHeap
	count   atomic.Int64

	dirty    []*Conn // have replies to write at the end of the batch
	again    []*Conn // to be offered their input in this batch, or if found empty, the next
	spare    []*Conn // the other array of again
	leaving  []*Conn // to be closed or moved at the end of the batch
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
		ended   chan struct{} // closed when Run has returned, or never will run
	}
	portable sync.WaitGroup // goroutines of listeners and of the portable poller
}

// New makes a loop. Run it, or Close it.
func New(options Options) (*Loop, error) {
	l := &Loop{options: options, shared: make([]byte, readSize), now: time.Now()}
	l.stop.ended = make(chan struct{})
	if err := l.poller.open(); err != nil {
		return nil, fmt.Errorf("make an event loop: %w", err)
	}
	return l, nil
}

// Run runs the loop on this goroutine, which it locks to its thread, until ctx
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

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer context.AfterFunc(ctx, l.askToStop)()

	var err error
	for err == nil && !l.stop.asked.Load() {
		err = l.batch()
	}
	l.end()
	return err
}

// Close ends the loop and waits until Run has returned, all connections have
// been closed and their handlers told. Any goroutine but the loop's own may call it.
func (l *Loop) Close() {
	l.stop.Lock()
	running, asked := l.stop.running, l.stop.asked.Load()
	l.askToStop()
	l.stop.Unlock()
	if !running && !asked {
		l.end()
		close(l.stop.ended)
	}
	<-l.stop.ended
}

func (l *Loop) askToStop() {
	l.stop.asked.Store(true)
	l.wake()
}

// end closes everything, and runs mail until there is none: posted functions
// may carry connections that moved here, or waiters who must be told.
func (l *Loop) end() {
	for {
		l.readMail()
		l.flush()
		l.conns.each(func(c *Conn) { c.fail(ErrClosed) })
		l.leave()
		l.mailbox.Lock()
		if len(l.mailbox.mail) == 0 {
			l.mailbox.closed = true
			l.mailbox.Unlock()
			break
		}
		l.mailbox.Unlock()
	}
	for l.waking.Load() > 0 {
		runtime.Gosched()
	}
	l.poller.close()
	l.portable.Wait()
	l.buffers.close()
}

// batch is once round.
func (l *Loop) batch() error {
	n, err := l.poller.poll()
	if err != nil {
		return err
	}
	if n == 0 && !l.due() {
		if n, err = l.sleep(); err != nil {
			return err
		}
	}
	l.now = time.Now()
	if n > 0 {
		l.poller.dispatch(l, n)
	}
	if l.mailbox.full.Load() {
		l.readMail()
	}
	if len(l.timers) > 0 {
		l.timers.run(l.now)
	}
	if len(l.again) > 0 {
		l.offerAgain()
	}
	l.flush()
	if len(l.leaving) > 0 {
		l.leave()
	}
	return nil
}

// due tells whether there is something to do without any socket being ready.
func (l *Loop) due() bool {
	return l.mailbox.full.Load() || len(l.again) > 0 || len(l.dirty) > 0 || len(l.leaving) > 0 || l.stop.asked.Load()
}

// sleep waits for sockets, mail and the next timer. Whoever posts finds
// sleeping set and wakes the loop, or else due finds the mail.
func (l *Loop) sleep() (n int, err error) {
	l.sleeping.Store(true)
	if !l.due() {
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
func (l *Loop) Post(fn func()) bool {
	l.mailbox.Lock()
	if l.mailbox.closed {
		l.mailbox.Unlock()
		return false
	}
	l.mailbox.mail = append(l.mailbox.mail, fn)
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

// Now is the time, read once a batch.
func (l *Loop) Now() time.Time { return l.now }

// NowMS is Now in milliseconds since 1970.
func (l *Loop) NowMS() int64 { return l.now.UnixMilli() }

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
	c := &Conn{handler: h, peer: peer}
	c.loop.Store(l)
	if err := c.socket.open(c, fd); err != nil {
		return nil, fmt.Errorf("adopt a connection: %w", err)
	}
	if err := l.enter(c); err != nil {
		return nil, fmt.Errorf("adopt a connection: %w", err)
	}
	if opener, ok := h.(Opener); ok {
		opener.Opened(c)
	}
	return c, nil
}

// enter puts a connection under the loop's watch.
func (l *Loop) enter(c *Conn) error {
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

// ready is called by the poller for a socket in a batch.
func (l *Loop) ready(c *Conn, what readiness) {
	if c.state != open {
		return
	}
	if what&canWrite != 0 && c.blocked {
		c.blocked = false
		c.markDirty()
	}
	if what&(canRead|peerDone|broken) != 0 {
		c.readable(what)
	}
}

// offerAgain offers input to those that asked for it.
func (l *Loop) offerAgain() {
	list := l.again
	l.again = l.spare[:0]
	for i, c := range list {
		list[i] = nil
		c.inAgain = false
		c.offer()
	}
	l.spare = list
}

// flush ends the work of a batch: it makes it safe, and then lets it be seen.
func (l *Loop) flush() {
	if l.options.BeforeFlush != nil {
		l.options.BeforeFlush(l)
	}
	// What is written here can make connections fail, but not dirty: their
	// handlers hear of it in leave, and what they then write is for the next batch.
	for i, c := range l.dirty {
		l.dirty[i] = nil
		c.dirty = false
		c.write()
	}
	l.dirty = l.dirty[:0]
}

// leave closes and moves the connections that are to leave the loop.
func (l *Loop) leave() {
	for i := 0; i < len(l.leaving); i++ { // Closed may close others
		c := l.leaving[i]
		l.leaving[i] = nil
		if c.state == moving {
			c.depart()
			continue
		}
		c.end()
	}
	l.leaving = l.leaving[:0]
}
