//go:build !linux

package privnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// loopbackState has a goroutine for each listener.
type loopbackState struct {
	conns chan Conn
	done  chan struct{}
	tasks sync.WaitGroup

	mu struct {
		sync.Mutex
		listeners map[netip.Addr]*loopbackListener // by database
		closed    bool
	}
}

type loopbackListener struct {
	net.Listener
	addr string
}

// NewLoopback makes a Loopback without listeners. Clients will appear as the
// machine with this host number, which must not be Databases.
func NewLoopback(host Host) (*Loopback, error) {
	if host == Databases {
		return nil, errors.New("open loopback: clients can't appear as databases")
	}
	l := &Loopback{host: host}
	l.conns, l.done = make(chan Conn), make(chan struct{})
	l.mu.listeners = make(map[netip.Addr]*loopbackListener)
	return l, nil
}

// Set makes a database answer at one address, host:port, and no other; "" is
// nowhere. When it fails the database answers nowhere.
func (l *Loopback) Set(database netip.Addr, address string) error {
	if address != "" && !IsDatabase(database) {
		return fmt.Errorf("listen for %v: not a database's address", database)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if old := l.mu.listeners[database]; old != nil {
		if old.addr == address {
			return nil
		}
		old.Close()
		delete(l.mu.listeners, database)
	}
	if address == "" || l.mu.closed {
		return nil
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for %v: %w", database, err)
	}
	l.mu.listeners[database] = &loopbackListener{ln, address}
	l.tasks.Go(func() { l.acceptFrom(ln, database) })
	return nil
}

func (l *Loopback) acceptFrom(ln net.Listener, database netip.Addr) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return // closed
		}
		peer, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
		source, destination := l.ends(database, peer)
		c := Conn{Source: source, Destination: destination, FD: -1, Net: conn}
		select {
		case l.conns <- c:
		case <-l.done:
			c.Reset()
			return
		}
	}
}

// Addr is where a database answers now. It is for tests, whose addresses have
// port 0.
func (l *Loopback) Addr(database netip.Addr) netip.AddrPort {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ln := l.mu.listeners[database]; ln != nil {
		addr, _ := netip.ParseAddrPort(ln.Listener.Addr().String())
		return addr
	}
	return netip.AddrPort{}
}

// Serve implements Source.
func (l *Loopback) Serve(ctx context.Context, accept func(Conn)) error {
	for {
		select {
		case c := <-l.conns:
			accept(c)
		case <-ctx.Done():
			return nil
		}
	}
}

// Close closes all listeners. Call it when Serve has returned.
func (l *Loopback) Close() error {
	l.mu.Lock()
	if l.mu.closed {
		l.mu.Unlock()
		return nil
	}
	l.mu.closed = true
	for _, ln := range l.mu.listeners {
		ln.Close()
	}
	close(l.done)
	l.mu.Unlock()
	l.tasks.Wait()
	return nil
}

// resetFD isn't called: this driver's connections have no FD.
func resetFD(int) {}
