//go:build linux && !portableloop

package loop

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"vecino/internal/epoll"
)

// readiness is what a socket is ready for.
type readiness uint32

const (
	canRead  readiness = epoll.Readable
	canWrite readiness = epoll.Writable
	peerDone readiness = epoll.PeerDone
	broken   readiness = epoll.Broken | epoll.HungUp
)

// status is how a read or write ended.
type status uint8

const (
	moved status = iota // bytes, all or as many as there was room for
	again               // nothing now
	ended               // the peer sends no more
	failed
)

// A poller tells which sockets are ready, by epoll, edge-triggered: it tells
// what has changed, once, so that looking again costs nothing for those that are known to be ready.
// An event carries the slot of its connection, or one of the tags below.
type poller struct {
	ep, wakeFD int
	events     []epoll.Event
	listeners  []*Listener // by listenerTag - tag
}

const (
	wakeTag     = -1
	listenerTag = -2 // and downwards
)

func (p *poller) open() error {
	var errno syscall.Errno
	if p.ep, errno = epoll.Create(); errno != 0 {
		return fmt.Errorf("create an epoll instance: %w", errno)
	}
	if p.wakeFD, errno = epoll.EventFD(); errno != 0 {
		epoll.Close(p.ep)
		return fmt.Errorf("create an eventfd: %w", errno)
	}
	if errno := epoll.Add(p.ep, p.wakeFD, epoll.Readable, wakeTag); errno != 0 {
		epoll.Close(p.wakeFD)
		epoll.Close(p.ep)
		return fmt.Errorf("watch an eventfd: %w", errno)
	}
	p.events = make([]epoll.Event, batchSize)
	return nil
}

func (p *poller) close() {
	for _, ln := range p.listeners {
		if ln != nil {
			p.removeListener(ln)
		}
	}
	epoll.Close(p.wakeFD)
	epoll.Close(p.ep)
}

// poll tells how many sockets are ready, at once.
func (p *poller) poll() (int, error) {
	n, errno := epoll.Poll(p.ep, p.events)
	return p.polled(n, errno)
}

// wait waits until a socket is ready, or for as long as timeout if it isn't
// negative, or for wake. A timeout is rounded up to a millisecond, so that
// the timer it is for is then due.
func (p *poller) wait(timeout time.Duration) (int, error) {
	ms := -1
	if timeout >= 0 {
		ms = int(min((timeout+time.Millisecond-1)/time.Millisecond, time.Hour/time.Millisecond))
	}
	n, errno := epoll.Wait(p.ep, p.events, ms)
	return p.polled(n, errno)
}

func (p *poller) polled(n int, errno syscall.Errno) (int, error) {
	if errno != 0 && errno != syscall.EINTR {
		return 0, fmt.Errorf("wait for sockets: %w", errno)
	}
	return n, nil
}

// wake ends a wait, from any goroutine. The loop's sleeping flag says who
// calls it, so it isn't called once the loop has ended.
func (p *poller) wake() { epoll.Notify(p.wakeFD) }

// dispatch hands out the n events of the last poll or wait.
func (p *poller) dispatch(l *Loop, n int) {
	for i := range p.events[:n] {
		event := &p.events[i]
		if event.Pad >= 0 {
			if c := l.conns.slots[event.Pad]; c != nil {
				l.ready(c, readiness(event.Events))
			}
			continue
		}
		if event.Pad == wakeTag {
			epoll.Drain(p.wakeFD)
			continue
		}
		if ln := p.listeners[listenerTag-event.Pad]; ln != nil {
			ln.acceptAll()
		}
	}
}

func (p *poller) add(c *Conn) error {
	const all = epoll.Readable | epoll.Writable | epoll.PeerDone | epoll.Edge
	if errno := epoll.Add(p.ep, c.socket.fd, all, int32(c.slot)); errno != 0 {
		return fmt.Errorf("watch a socket: %w", errno)
	}
	return nil
}

func (p *poller) remove(c *Conn) error {
	if errno := epoll.Remove(p.ep, c.socket.fd); errno != 0 {
		return fmt.Errorf("leave a socket: %w", errno)
	}
	return nil
}

// A socket is a connection's file descriptor.
type socket struct {
	fd int
}

func (s *socket) open(_ *Conn, fd int) error {
	if err := epoll.SetNonblock(fd); err != nil {
		return err
	}
	epoll.Tune(fd)
	s.fd = fd
	return nil
}

func (s *socket) read(b []byte) (int, status, error) {
	n, errno := epoll.Read(s.fd, b)
	for errno == syscall.EINTR {
		n, errno = epoll.Read(s.fd, b)
	}
	switch {
	case n > 0:
		return n, moved, nil
	case errno == 0:
		return 0, ended, nil
	case errno == syscall.EAGAIN:
		return 0, again, nil
	}
	return 0, failed, fmt.Errorf("read from a client: %w", errno)
}

func (s *socket) write(b []byte) (int, status, error) {
	n, errno := epoll.Write(s.fd, b)
	for errno == syscall.EINTR {
		n, errno = epoll.Write(s.fd, b)
	}
	switch errno {
	case 0:
		return n, moved, nil
	case syscall.EAGAIN:
		return 0, again, nil
	}
	return 0, failed, fmt.Errorf("write to a client: %w", errno)
}

// broken is the error of a socket that is said to be broken.
func (s *socket) broken() error {
	if errno := epoll.SocketError(s.fd); errno != 0 {
		return fmt.Errorf("connection broken: %w", errno)
	}
	return nil
}

// drain takes what has arrived, up to a bound. Closing a socket with unread
// bytes makes the kernel reset the connection, and that may overtake the reply that
// tells the client why.
func (s *socket) drain(scratch []byte) {
	for range 16 {
		if n, _ := epoll.Read(s.fd, scratch); n == 0 {
			return
		}
	}
}

func (s *socket) local() netip.AddrPort { return epoll.LocalAddr(s.fd) }

func (s *socket) close(*Loop) { epoll.Close(s.fd) }

func closeFD(fd int) { epoll.Close(fd) }

// A Listener accepts connections on a loop.
type Listener struct {
	loop   *Loop
	fd     int
	tag    int32
	addr   net.Addr
	accept func(fd int, peer netip.AddrPort)
	closed bool
}

// acceptAll takes the connections that wait, up to a bound, for there may be
// more where they come from.
func (ln *Listener) acceptAll() {
	for range 128 {
		if ln.closed {
			return
		}
		fd, peer, errno := epoll.Accept(ln.fd)
		switch errno {
		case 0:
			ln.accept(fd, peer)
		case syscall.EINTR, syscall.ECONNABORTED, syscall.EPROTO, syscall.EPERM:
			// This one is gone; the next may not be.
		case syscall.EAGAIN:
			return
		default:
			ln.rest(errno)
			return
		}
	}
}

// rest stops accepting for a while: with no descriptors to be had, the loop
// would be told of the waiting client again and again.
func (ln *Listener) rest(errno syscall.Errno) {
	const pause = 100 * time.Millisecond
	if ln.loop.options.AcceptError != nil {
		ln.loop.options.AcceptError(fmt.Errorf("accept on %v: %w", ln.addr, errno))
	}
	ep := ln.loop.poller.ep
	epoll.Modify(ep, ln.fd, 0, ln.tag)
	ln.loop.After(pause, func() {
		if !ln.closed {
			epoll.Modify(ep, ln.fd, epoll.Readable, ln.tag)
		}
	})
}

// startListener has the loop's thread accept on a copy of ln's descriptor.
func (l *Loop) startListener(ln net.Listener, listener *Listener) error {
	fd, err := DupFD(ln)
	ln.Close()
	if err != nil {
		return err
	}
	listener.fd = fd
	started := l.Post(func() {
		p := &l.poller
		listener.tag = int32(listenerTag - len(p.listeners))
		p.listeners = append(p.listeners, listener)
		if errno := epoll.Add(p.ep, fd, epoll.Readable, listener.tag); errno != 0 {
			p.removeListener(listener)
			if l.options.AcceptError != nil {
				l.options.AcceptError(fmt.Errorf("listen on %v: %w", listener.addr, errno))
			}
		}
	})
	if !started {
		epoll.Close(fd)
		return ErrClosed
	}
	return nil
}

func (l *Loop) stopListener(listener *Listener) {
	l.Post(func() { l.poller.removeListener(listener) })
}

func (p *poller) removeListener(ln *Listener) {
	if ln.closed {
		return
	}
	ln.closed = true
	p.listeners[listenerTag-ln.tag] = nil
	epoll.Close(ln.fd)
}
