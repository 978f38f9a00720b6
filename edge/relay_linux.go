package edge

import (
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"vecino/internal/epoll"
)

// The relay moves bytes between clients and nodes on event loops. A loop is one
// thread with one epoll instance and one read buffer for all its connections:
// what it reads from one side it writes to the other at once. Only what the
// other side doesn't take is kept, and then nothing more is read from the first
// until it's gone; so an idle or a fast connection has no memory but its
// session, and a slow one at most one buffer more.
//
// A session is drawn with its two sides' states:
//
//	dialling ──▶ open ──▶ half closed ──▶ over
//	    │          │           │            ▲
//	    ▼          └───────────┴── reset ───┘
//	 failed: the call goes back
//
// An end of stream on one side is passed on behind the bytes as a half-close of
// the other. An error on one side, or the node's death, resets both.
type relay struct {
	loops []*relayLoop
	next  atomic.Uint32 // the loop that gets the next call
}

const (
	relayBuffer  = 64 << 10
	readsAtOnce  = 4                      // buffers from one connection before the others' turn
	sweepPause   = 100 * time.Millisecond // between looks at those with a deadline
	relayedEvent = 256
)

func newRelay(e *Edge, loops int) (carrier, error) {
	r := &relay{}
	for range loops {
		l, err := newRelayLoop(e)
		if err != nil {
			r.close()
			return nil, fmt.Errorf("start relay: %w", err)
		}
		r.loops = append(r.loops, l)
	}
	return r, nil
}

func (r *relay) carry(c *call) {
	l := r.loops[r.next.Add(1)%uint32(len(r.loops))]
	if !l.post(func() { l.dial(c) }) {
		l.edge.nodes.ended(c.target.Node)
		l.edge.refuse(c, closing)
	}
}

func (r *relay) resetNode(id string) {
	for _, l := range r.loops {
		l.post(func() { l.resetNode(id) })
	}
}

func (r *relay) close() {
	for _, l := range r.loops {
		l.close()
	}
}

// relayLoop is one of the relay's threads. All but mail belongs to it alone.
type relayLoop struct {
	edge     *Edge
	ep, wake int
	done     chan struct{}
	buf      []byte

	sides    []*side                // by descriptor
	tag      int32                  // of the last side; tells it from an earlier one of the same descriptor
	sessions map[*session]struct{}  // all
	deadline map[*session]time.Time // those that dial or linger
	swept    time.Time
	stopping bool

	mail struct {
		sync.Mutex
		fns    []func()
		closed bool
	}
}

type session struct {
	call         *call
	client, node side
	state        sessionState
}

type sessionState uint8

const (
	dialling sessionState = iota
	open
	over
)

// side is one of a session's two connections.
type side struct {
	session *session
	fd      int
	tag     int32
	watched uint32 // what epoll was told to watch; 0: it doesn't have the descriptor
	out     []byte // what this side hasn't taken yet; while there is some, the other isn't read
	ended   bool   // the end of its stream was read
	shut    bool   // the end of the other's stream was passed on
}

func (s *session) other(one *side) *side {
	if one == &s.client {
		return &s.node
	}
	return &s.client
}

func newRelayLoop(e *Edge) (*relayLoop, error) {
	l := &relayLoop{
		edge:     e,
		done:     make(chan struct{}),
		buf:      make([]byte, relayBuffer),
		sessions: make(map[*session]struct{}),
		deadline: make(map[*session]time.Time),
	}
	var errno syscall.Errno
	if l.ep, errno = epoll.Create(); errno != 0 {
		return nil, errno
	}
	if l.wake, errno = epoll.EventFD(); errno != 0 {
		epoll.Close(l.ep)
		return nil, errno
	}
	if errno = epoll.Add(l.ep, l.wake, epoll.Readable, 0); errno != 0 {
		epoll.Close(l.ep)
		epoll.Close(l.wake)
		return nil, errno
	}
	go l.run() // ends in close
	return l, nil
}

// post has fn called on the loop's thread. It is false when the loop is closed.
func (l *relayLoop) post(fn func()) bool {
	l.mail.Lock()
	defer l.mail.Unlock()
	if l.mail.closed {
		return false
	}
	l.mail.fns = append(l.mail.fns, fn)
	if len(l.mail.fns) == 1 {
		epoll.Notify(l.wake)
	}
	return true
}

func (l *relayLoop) close() {
	l.mail.Lock()
	closed := l.mail.closed
	l.mail.closed = true
	l.mail.Unlock()
	if !closed {
		epoll.Notify(l.wake)
	}
	<-l.done
}

func (l *relayLoop) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(l.done)
	events := make([]epoll.Event, relayedEvent)
	for {
		// What is ready already is taken without the scheduler's knowing; only
		// when nothing is it's told that this thread will wait.
		n, errno := epoll.Poll(l.ep, events)
		if n == 0 && errno == 0 {
			n, errno = epoll.Wait(l.ep, events, l.patience())
		}
		if errno != 0 && errno != syscall.EINTR {
			l.edge.log.Error("relay stops", "err", errno) // can't happen with a valid descriptor
			n, l.stopping = 0, true
		}
		for _, ev := range events[:n] {
			if int(ev.Fd) == l.wake {
				epoll.Drain(l.wake)
				l.readMail()
				continue
			}
			if s := l.side(int(ev.Fd)); s != nil && s.tag == ev.Pad {
				l.ready(s, ev.Events)
			}
		}
		if len(l.deadline) > 0 {
			l.sweep()
		}
		if l.stopping {
			l.stop()
			return
		}
	}
}

// patience is for how many milliseconds the loop may wait.
func (l *relayLoop) patience() int {
	if len(l.deadline) == 0 {
		return -1
	}
	return int(sweepPause / time.Millisecond)
}

func (l *relayLoop) readMail() {
	l.mail.Lock()
	fns, closed := l.mail.fns, l.mail.closed
	l.mail.fns = nil
	l.mail.Unlock()
	for _, fn := range fns {
		fn()
	}
	l.stopping = closed
}

// stop resets all that there is.
func (l *relayLoop) stop() {
	l.mail.Lock()
	l.mail.closed = true
	l.mail.Unlock()
	l.readMail() // that fell between
	for s := range maps.Clone(l.sessions) {
		l.reset(s, edgeClosing)
	}
	epoll.Close(l.ep)
	epoll.Close(l.wake)
}

// dial begins a session.
func (l *relayLoop) dial(c *call) {
	fd, errno := connect(c.proxy())
	if errno != 0 {
		l.edge.failed(c, errno)
		return
	}
	s := &session{call: c}
	s.client = side{session: s, fd: c.conn.FD}
	s.node = side{session: s, fd: fd}
	l.sessions[s] = struct{}{}
	l.deadline[s] = time.Now().Add(connectTimeout)
	l.watch(&s.node, epoll.Writable)
	l.watch(&s.client, epoll.PeerDone) // it may lose its patience
}

// connect begins to connect. Its success is 0, and known when fd is writable.
func connect(to netip.AddrPort) (fd int, errno syscall.Errno) {
	family, sockaddr := syscall.AF_INET6, syscall.Sockaddr(&syscall.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if to.Addr().Is4() {
		family, sockaddr = syscall.AF_INET, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, asErrno(err)
	}
	if err := syscall.Connect(fd, sockaddr); err != nil && err != syscall.EINPROGRESS {
		epoll.Close(fd)
		return -1, asErrno(err)
	}
	return fd, 0
}

func asErrno(err error) syscall.Errno {
	if errno, ok := err.(syscall.Errno); ok {
		return errno
	}
	return syscall.EINVAL
}

// watch tells epoll what of a side matters now. Nothing takes it out, or its
// errors, which are always told, would wake the loop for ever.
func (l *relayLoop) watch(s *side, events uint32) {
	if events == s.watched {
		return
	}
	var errno syscall.Errno
	switch {
	case s.watched == 0:
		l.tag++
		s.tag = l.tag
		l.setSide(s.fd, s)
		errno = epoll.Add(l.ep, s.fd, events, s.tag)
	case events == 0:
		l.setSide(s.fd, nil)
		errno = epoll.Remove(l.ep, s.fd)
	default:
		errno = epoll.Modify(l.ep, s.fd, events, s.tag)
	}
	s.watched = events
	if errno != 0 { // out of kernel memory; the session would hang
		l.edge.log.Warn("relay can't watch a connection", "err", errno)
		l.reset(s.session, nodeError)
	}
}

func (l *relayLoop) side(fd int) *side {
	if fd < len(l.sides) {
		return l.sides[fd]
	}
	return nil
}

func (l *relayLoop) setSide(fd int, s *side) {
	for fd >= len(l.sides) { // descriptors are small numbers
		l.sides = append(l.sides, nil)
	}
	l.sides[fd] = s
}

// rewatch derives what matters of both sides from their states.
func (l *relayLoop) rewatch(s *session) {
	for _, one := range []*side{&s.client, &s.node} {
		if s.state != open {
			return
		}
		events := uint32(0)
		if !one.ended && len(s.other(one).out) == 0 {
			events |= epoll.Readable
		}
		if len(one.out) > 0 {
			events |= epoll.Writable
		}
		l.watch(one, events)
	}
}

// ready handles what epoll tells of a side.
func (l *relayLoop) ready(s *side, events uint32) {
	if s.session.state == dialling {
		l.readyDialling(s, events)
		return
	}
	if events&epoll.Writable != 0 && len(s.out) > 0 {
		if !l.flush(s) {
			return
		}
		l.rewatch(s.session)
	}
	if events&^epoll.Writable != 0 && s.session.state == open && s.watched&epoll.Readable != 0 {
		l.pump(s)
	}
}

func (l *relayLoop) readyDialling(s *side, events uint32) {
	session := s.session
	if s == &session.client {
		if events&(epoll.Broken|epoll.HungUp) != 0 {
			l.finish(session)
			epoll.Close(session.client.fd)
			l.edge.abandoned(session.call)
			return
		}
		l.watch(s, 0) // it has only ended its stream, which will be read in its turn
		return
	}
	if errno := epoll.SocketError(s.fd); errno != 0 {
		l.dialFailed(session, errno)
		return
	}
	session.state = open
	delete(l.deadline, session)
	epoll.Tune(session.client.fd)
	epoll.Tune(session.node.fd)
	l.edge.connected(session.call)
	// A new socket's buffer takes the header whole.
	header := l.edge.header(session.call)
	if n, errno := epoll.Write(session.node.fd, header); errno != 0 || n < len(header) {
		l.reset(session, nodeError)
		return
	}
	l.rewatch(session)
}

// dialFailed gives a call back.
func (l *relayLoop) dialFailed(s *session, errno syscall.Errno) {
	l.watch(&s.client, 0)
	l.watch(&s.node, 0)
	epoll.Close(s.node.fd)
	l.forget(s)
	l.edge.failed(s.call, errno)
}

// pump moves what one side has sent to the other.
func (l *relayLoop) pump(from *side) {
	s := from.session
	to := s.other(from)
	bytes := &l.edge.counters.toNodes
	if from == &s.node {
		bytes = &l.edge.counters.toClients
	}
	for range readsAtOnce {
		n, errno := epoll.Read(from.fd, l.buf)
		switch {
		case errno == syscall.EAGAIN:
			return
		case errno == syscall.EINTR:
			continue
		case errno != 0:
			l.resetBy(from)
			return
		case n == 0:
			from.ended = true
			l.passEnd(s, from, to)
			return
		}
		bytes.Add(int64(n))
		rest := l.buf[:n]
		for len(rest) > 0 {
			written, errno := epoll.Write(to.fd, rest)
			if errno == syscall.EINTR {
				continue
			}
			if errno == syscall.EAGAIN {
				break
			}
			if errno != 0 {
				l.resetBy(to)
				return
			}
			rest = rest[written:]
		}
		if len(rest) > 0 {
			to.out = append([]byte(nil), rest...)
			l.edge.counters.blocked.Add(1)
			l.rewatch(s)
			return
		}
		if n < len(l.buf) {
			return // most likely there's no more, and if there is we'll be told
		}
	}
}

// flush writes what a side hasn't taken yet. It is false when the session is
// over by that.
func (l *relayLoop) flush(s *side) bool {
	for len(s.out) > 0 {
		n, errno := epoll.Write(s.fd, s.out)
		switch {
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EAGAIN:
			return true
		case errno != 0:
			l.resetBy(s)
			return false
		}
		s.out = s.out[n:]
	}
	s.out = nil
	if other := s.session.other(s); other.ended {
		l.passEnd(s.session, other, s)
		return s.session.state == open
	}
	return true
}

// passEnd tells one side that the other has ended its stream, when all of that
// has been written, and ends the session when both have.
func (l *relayLoop) passEnd(s *session, from, to *side) {
	if len(to.out) == 0 && !to.shut {
		to.shut = true
		if err := syscall.Shutdown(to.fd, syscall.SHUT_WR); err != nil { // it is broken, then
			l.resetBy(to)
			return
		}
	}
	if s.client.shut && s.node.shut {
		l.finish(s)
		epoll.Close(s.client.fd)
		l.edge.ended(s.call)
		return
	}
	if from == &s.node {
		l.deadline[s] = time.Now().Add(lingerTime)
	}
	l.rewatch(s)
}

// sweep looks after sessions that have a deadline.
func (l *relayLoop) sweep() {
	now := time.Now()
	if now.Sub(l.swept) < sweepPause {
		return
	}
	l.swept = now
	for s, deadline := range l.deadline {
		switch {
		case now.Before(deadline):
		case s.state == dialling:
			l.dialFailed(s, syscall.ETIMEDOUT)
		default:
			l.reset(s, clientError)
		}
	}
}

func (l *relayLoop) resetNode(id string) {
	for s := range maps.Clone(l.sessions) {
		switch {
		case s.call.target.Node != id || s.state == over:
		case s.state == dialling:
			l.dialFailed(s, syscall.EHOSTDOWN)
		default:
			l.reset(s, nodeGone)
		}
	}
}

// resetBy resets a session whose one side is broken.
func (l *relayLoop) resetBy(broken *side) {
	why := nodeError
	if broken == &broken.session.client {
		why = clientError
	}
	l.reset(broken.session, why)
}

// reset ends a session so that both sides see a reset.
func (l *relayLoop) reset(s *session, why reset) {
	if s.state == over {
		return
	}
	l.edge.counters.reset[why].Add(1)
	setLinger0(s.node.fd)
	l.finish(s)
	s.call.conn.Reset()
	l.edge.ended(s.call)
}

// finish closes a session's connection to the node, and leaves the client's to
// the caller.
func (l *relayLoop) finish(s *session) {
	l.forget(s)
	for _, one := range []*side{&s.client, &s.node} {
		if one.watched != 0 {
			l.setSide(one.fd, nil)
			epoll.Remove(l.ep, one.fd)
			one.watched = 0
		}
	}
	epoll.Close(s.node.fd)
}

func (l *relayLoop) forget(s *session) {
	s.state = over
	delete(l.sessions, s)
	delete(l.deadline, s)
}

// setLinger0 makes closing a socket a reset.
func setLinger0(fd int) {
	_ = syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
}
