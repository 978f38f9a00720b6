package privnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"vecino/internal/epoll"
)

// acceptsAtOnce bounds how long one busy listener can keep the others waiting.
const acceptsAtOnce = 64

type loopbackState struct {
	ep, wake int

	mu struct {
		sync.Mutex
		listeners map[netip.Addr]*loopbackListener // by database
		byFD      map[int]*loopbackListener
		tag       int32 // of the last listener; tells it from an earlier one of the same descriptor
		reserve   int   // a descriptor to be closed when there are no more
		closed    bool
	}
}

type loopbackListener struct {
	fd       int
	tag      int32
	addr     netip.AddrPort
	database netip.Addr
}

// NewLoopback makes a Loopback without listeners. Clients will appear as the
// machine with this host number, which must not be Databases.
func NewLoopback(host Host) (*Loopback, error) {
	if host == Databases {
		return nil, errors.New("open loopback: clients can't appear as databases")
	}
	l := &Loopback{host: host}
	l.mu.listeners = make(map[netip.Addr]*loopbackListener)
	l.mu.byFD = make(map[int]*loopbackListener)
	l.mu.reserve = openReserve()
	var errno syscall.Errno
	if l.ep, errno = epoll.Create(); errno != 0 {
		return nil, fmt.Errorf("open loopback: %w", errno)
	}
	if l.wake, errno = epoll.EventFD(); errno == 0 {
		errno = epoll.Add(l.ep, l.wake, epoll.Readable, 0)
	}
	if errno != 0 {
		return nil, fmt.Errorf("open loopback: %w", errno)
	}
	return l, nil
}

func openReserve() int {
	fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// Set makes a database answer at one address, host:port, and no other; "" is
// nowhere. When it fails the database answers nowhere.
func (l *Loopback) Set(database netip.Addr, address string) error {
	var addr netip.AddrPort
	if address != "" {
		var err error
		if addr, err = netip.ParseAddrPort(address); err != nil {
			return fmt.Errorf("listen for %v: %w", database, err)
		}
		if !IsDatabase(database) {
			return fmt.Errorf("listen for %v: not a database's address", database)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if old := l.mu.listeners[database]; old != nil {
		if old.addr == addr {
			return nil
		}
		l.dropLocked(old)
	}
	if !addr.IsValid() || l.mu.closed {
		return nil
	}
	fd, err := listen(addr)
	if err != nil {
		return fmt.Errorf("listen on %v: %w", addr, err)
	}
	l.mu.tag++
	ln := &loopbackListener{fd, l.mu.tag, addr, database}
	if errno := epoll.Add(l.ep, fd, epoll.Readable, ln.tag); errno != 0 {
		epoll.Close(fd)
		return fmt.Errorf("listen on %v: %w", addr, errno)
	}
	l.mu.listeners[database] = ln
	l.mu.byFD[fd] = ln
	return nil
}

// Addr is where a database answers now. It is for tests, whose addresses have
// port 0.
func (l *Loopback) Addr(database netip.Addr) netip.AddrPort {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ln := l.mu.listeners[database]; ln != nil {
		return epoll.LocalAddr(ln.fd)
	}
	return netip.AddrPort{}
}

func (l *Loopback) dropLocked(ln *loopbackListener) {
	epoll.Close(ln.fd)
	delete(l.mu.byFD, ln.fd)
	delete(l.mu.listeners, ln.database)
}

// backlog is how many connections the kernel keeps for us; it has a limit of
// its own below that.
const backlog = 4096

func listen(addr netip.AddrPort) (fd int, err error) {
	family, sockaddr := syscall.AF_INET6, syscall.Sockaddr(&syscall.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	if addr.Addr().Is4() {
		family, sockaddr = syscall.AF_INET, &syscall.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	fd, err = syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err == nil {
		if err = syscall.Bind(fd, sockaddr); err == nil {
			err = syscall.Listen(fd, backlog)
		}
	}
	if err != nil {
		epoll.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Serve implements Source.
func (l *Loopback) Serve(ctx context.Context, accept func(Conn)) error {
	stop := context.AfterFunc(ctx, func() { epoll.Notify(l.wake) })
	defer stop()
	events := make([]epoll.Event, 128)
	for {
		n, errno := epoll.Wait(l.ep, events, -1)
		if errno != 0 && errno != syscall.EINTR {
			return fmt.Errorf("wait for connections: %w", errno)
		}
		if ctx.Err() != nil {
			return nil
		}
		for _, ev := range events[:n] {
			if int(ev.Fd) != l.wake {
				l.acceptFrom(int(ev.Fd), ev.Pad, accept)
			}
		}
	}
}

func (l *Loopback) acceptFrom(fd int, tag int32, accept func(Conn)) {
	for range acceptsAtOnce {
		l.mu.Lock()
		ln := l.mu.byFD[fd]
		if ln == nil || ln.tag != tag { // closed since it was reported
			l.mu.Unlock()
			return
		}
		conn, peer, errno := epoll.Accept(fd)
		if errno == syscall.EMFILE || errno == syscall.ENFILE {
			l.turnAwayLocked(fd)
		}
		l.mu.Unlock()
		switch errno {
		case 0:
			source, destination := l.ends(ln.database, peer)
			accept(Conn{Source: source, Destination: destination, FD: conn})
		case syscall.EINTR, syscall.ECONNABORTED:
		default:
			return
		}
	}
}

// turnAwayLocked resets one connection when there are no descriptors to serve
// it with. Left in the backlog it would wake the loop for ever.
func (l *Loopback) turnAwayLocked(listener int) {
	if l.mu.reserve < 0 {
		return
	}
	epoll.Close(l.mu.reserve)
	if fd, _, errno := epoll.Accept(listener); errno == 0 {
		Conn{FD: fd}.Reset()
	}
	l.mu.reserve = openReserve()
}

// Close closes all listeners. Call it when Serve has returned.
func (l *Loopback) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return nil
	}
	l.mu.closed = true
	for _, ln := range l.mu.listeners {
		l.dropLocked(ln)
	}
	for _, fd := range []int{l.ep, l.wake, l.mu.reserve} {
		if fd >= 0 {
			epoll.Close(fd)
		}
	}
	return nil
}

// resetFD closes a socket with a reset. That it can't be set to do so leaves
// closing it.
func resetFD(fd int) {
	_ = syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	epoll.Close(fd)
}
