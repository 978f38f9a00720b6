//go:build unix && (!linux || portableloop)

package loop

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// readiness is what a socket is ready for.
type readiness uint32

const (
	canRead readiness = 1 << iota
	canWrite
	peerDone
	broken
)

// status is how a read or write ended.
type status uint8

const (
	moved status = iota // bytes, all or as many as there was room for
	again               // nothing now
	ended               // the peer sends no more
	failed
)

// A poller here only sleeps. Sockets are read and written by two goroutines
// each, which tell the loop by mail; to the rest of the package that looks like a
// non-blocking socket. It is for development on other systems, not for speed.
type poller struct {
	woken chan struct{}

	listening struct {
		sync.Mutex
		all map[*Listener]bool
	}
}

func (p *poller) open() error {
	p.woken = make(chan struct{}, 1)
	p.listening.all = map[*Listener]bool{}
	return nil
}

func (p *poller) close() {
	p.listening.Lock()
	defer p.listening.Unlock()
	for ln := range p.listening.all {
		ln.ln.Close()
	}
}

func (p *poller) poll() (int, error) { return 0, nil }

func (p *poller) wait(timeout time.Duration) (int, error) {
	if timeout < 0 {
		<-p.woken
		return 0, nil
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.woken:
	case <-timer.C:
	}
	return 0, nil
}

func (p *poller) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

func (p *poller) dispatch(*Loop, int) {}

func (p *poller) add(c *Conn) error {
	s := c.socket.shared
	s.Lock()
	defer s.Unlock()
	s.watched = true
	s.tellLocked()
	return nil
}

func (p *poller) remove(c *Conn) error {
	c.socket.shared.Lock()
	defer c.socket.shared.Unlock()
	c.socket.shared.watched = false
	return nil
}

// A socket is a net.Conn with a goroutine that reads and one that writes.
type socket struct {
	conn   net.Conn
	shared *portable
}

// portable is what a connection's loop and its two goroutines share.
type portable struct {
	sync.Mutex
	conn    *Conn
	watched bool
	told    bool // a letter about readiness is under way
	in      []byte
	inErr   error // after in
	out     []byte
	outErr  error
	closed  bool
	change  *sync.Cond // of in, out or closed
}

// tellLocked sends the loop a letter when something has changed.
func (s *portable) tellLocked() {
	if !s.watched || s.told || s.closed {
		return
	}
	s.told = true
	c := s.conn
	c.post(func() {
		s.Lock()
		s.told = false
		what := s.readyLocked()
		gone := s.closed || !s.watched
		s.Unlock()
		if !gone {
			c.loop.Load().ready(c, what)
		}
	})
}

func (s *portable) readyLocked() (what readiness) {
	if len(s.in) > 0 || s.inErr != nil {
		what |= canRead
	}
	if len(s.in) == 0 && s.inErr == io.EOF {
		what |= peerDone
	}
	if len(s.out) == 0 {
		what |= canWrite
	}
	if s.outErr != nil || s.inErr != nil && s.inErr != io.EOF {
		what |= broken
	}
	return what
}

func (s *socket) open(c *Conn, fd int) error {
	file := os.NewFile(uintptr(fd), "socket")
	conn, err := net.FileConn(file)
	if err != nil {
		return err
	}
	file.Close()
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetKeepAlive(true)
		tcp.SetKeepAlivePeriod(300 * time.Second)
	}
	shared := &portable{conn: c}
	shared.change = sync.NewCond(shared)
	s.conn, s.shared = conn, shared
	// They end when the connection is closed, for which its loop sees to, and
	// the loop that it began on waits for them.
	l := c.loop.Load()
	l.portable.Go(func() { shared.readAll(conn) })
	l.portable.Go(func() { shared.writeAll(conn) })
	return nil
}

func (s *portable) readAll(conn net.Conn) {
	b := make([]byte, 16<<10)
	for {
		n, err := conn.Read(b)
		s.Lock()
		s.in, s.inErr = b[:n], err
		s.tellLocked()
		for len(s.in) > 0 && !s.closed {
			s.change.Wait()
		}
		closed := s.closed
		s.tellLocked() // of inErr
		s.Unlock()
		if err != nil || closed {
			return
		}
	}
}

func (s *portable) writeAll(conn net.Conn) {
	for {
		s.Lock()
		for len(s.out) == 0 && !s.closed {
			s.change.Wait()
		}
		out, closed := s.out, s.closed
		s.Unlock()
		if len(out) > 0 {
			_, err := conn.Write(out)
			s.Lock()
			s.out, s.outErr = s.out[:0], err
			s.tellLocked()
			s.Unlock()
			if err != nil {
				return
			}
		}
		if closed {
			conn.Close()
			return
		}
	}
}

func (s *socket) read(b []byte) (int, status, error) {
	p := s.shared
	p.Lock()
	defer p.Unlock()
	if len(p.in) > 0 {
		n := copy(b, p.in)
		p.in = p.in[n:]
		p.change.Broadcast()
		return n, moved, nil
	}
	switch {
	case p.inErr == nil:
		return 0, again, nil
	case p.inErr == io.EOF:
		return 0, ended, nil
	}
	return 0, failed, fmt.Errorf("read from a client: %w", p.inErr)
}

func (s *socket) write(b []byte) (int, status, error) {
	const most = 64 << 10
	p := s.shared
	p.Lock()
	defer p.Unlock()
	if p.outErr != nil {
		return 0, failed, fmt.Errorf("write to a client: %w", p.outErr)
	}
	if len(p.out) > 0 {
		return 0, again, nil
	}
	p.out = append(p.out, b[:min(len(b), most)]...)
	p.change.Broadcast()
	return len(p.out), moved, nil
}

func (s *socket) broken() error {
	s.shared.Lock()
	defer s.shared.Unlock()
	if s.shared.outErr != nil {
		return fmt.Errorf("connection broken: %w", s.shared.outErr)
	}
	return fmt.Errorf("connection broken: %w", s.shared.inErr)
}

func (s *socket) drain([]byte) {}

func (s *socket) local() netip.AddrPort {
	addr, _ := netip.ParseAddrPort(s.conn.LocalAddr().String())
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}

// close leaves what is still being written to the writer, which closes the
// connection behind it, within a bound.
func (s *socket) close(*Loop) {
	const patience = time.Second
	p := s.shared
	p.Lock()
	p.closed = true
	p.change.Broadcast()
	p.Unlock()
	s.conn.SetReadDeadline(time.Unix(1, 0))
	s.conn.SetWriteDeadline(time.Now().Add(patience))
}

func closeFD(fd int) { syscall.Close(fd) }

// A Listener accepts connections for a loop.
type Listener struct {
	loop   *Loop
	ln     net.Listener
	addr   net.Addr
	accept func(fd int, peer netip.AddrPort)
}

func (l *Loop) startListener(ln net.Listener, listener *Listener) error {
	listener.ln = ln
	p := &l.poller
	p.listening.Lock()
	p.listening.all[listener] = true
	p.listening.Unlock()
	l.portable.Go(func() {
		for {
			conn, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				if l.options.AcceptError != nil {
					l.options.AcceptError(err)
				}
				time.Sleep(100 * time.Millisecond)
				continue
			}
			fd, err := DupFD(conn)
			peer, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
			conn.Close()
			if err != nil {
				continue
			}
			if !l.Post(func() { listener.accept(fd, peer) }) {
				closeFD(fd)
			}
		}
	})
	return nil
}

func (l *Loop) stopListener(listener *Listener) {
	listener.ln.Close()
	p := &l.poller
	p.listening.Lock()
	delete(p.listening.all, listener)
	p.listening.Unlock()
}
