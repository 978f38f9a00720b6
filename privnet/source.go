package privnet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
)

// Source is where connections of clients on private networks come from. There
// is one driver for each way of getting a client's packets to an edge; what
// the edge does with a connection is the same for all of them.
//
// Loopback is the driver for a world on one machine.
type Source interface {
	// Serve calls accept with each connection, from one goroutine, until ctx is
	// done. accept must not block; the connection is its own to close.
	Serve(ctx context.Context, accept func(Conn)) error
}

// Conn is one client's connection. A driver that works with the kernel's
// sockets gives FD, so that an event loop can take it; any other gives Net.
type Conn struct {
	Source      netip.AddrPort // the client on its private network, vouched for by the driver
	Destination netip.AddrPort // what it dialled
	FD          int            // a TCP socket in non-blocking mode; -1 when Net is set
	Net         net.Conn
}

// NetConn turns the connection into one of package net's. FD is gone then.
func (c Conn) NetConn() (net.Conn, error) {
	if c.Net != nil {
		return c.Net, nil
	}
	file := os.NewFile(uintptr(c.FD), "client")
	defer file.Close() // FileConn has its own duplicate
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("take over a socket: %w", err)
	}
	return conn, nil
}

// Reset closes the connection so that the client sees a reset, not an end.
func (c Conn) Reset() {
	if c.Net == nil {
		resetFD(c.FD)
		return
	}
	if tcp, ok := c.Net.(interface{ SetLinger(int) error }); ok {
		tcp.SetLinger(0)
	}
	c.Net.Close()
}
