package loop

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// Listen accepts TCP connections on an address. See Accept.
func (l *Loop) Listen(address string, accept func(fd int, peer netip.AddrPort)) (*Listener, error) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return l.Accept(ln, accept)
}

// Accept takes ln over and has accept called on the loop's thread for each
// connection: it owns fd from then on, and adopts it, adds it to another loop or
// closes it with CloseFD. Listening ends with Listener.Close or with the loop. Any goroutine may
// call it. Out of file descriptors, it leaves clients waiting and tries again.
func (l *Loop) Accept(ln net.Listener, accept func(fd int, peer netip.AddrPort)) (*Listener, error) {
	if unix, ok := ln.(*net.UnixListener); ok {
		unix.SetUnlinkOnClose(false) // the copy goes on listening there
	}
	listener := &Listener{loop: l, addr: ln.Addr(), accept: accept}
	if err := l.startListener(ln, listener); err != nil {
		return nil, fmt.Errorf("accept on %v: %w", listener.addr, err)
	}
	return listener, nil
}

// Addr is where it listens.
func (ln *Listener) Addr() net.Addr { return ln.addr }

// Close ends listening soon, from any goroutine. Connections stay.
func (ln *Listener) Close() { ln.loop.stopListener(ln) }

// CloseFD closes a descriptor that no loop has adopted.
func CloseFD(fd int) { closeFD(fd) }

// DupFD returns a new descriptor, in non-blocking mode, for the socket under a
// net.Conn or net.Listener, so that it can be given to a loop; the original is
// then to be closed.
func DupFD(conn any) (fd int, err error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return -1, errors.New("not a socket of the system's")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("get at a socket: %w", err)
	}
	var dupErr error
	if err := raw.Control(func(original uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		if fd, dupErr = syscall.Dup(int(original)); dupErr == nil {
			syscall.CloseOnExec(fd)
		}
	}); err != nil {
		return -1, fmt.Errorf("get at a socket: %w", err)
	}
	if dupErr != nil {
		return -1, fmt.Errorf("duplicate a socket: %w", dupErr)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		closeFD(fd)
		return -1, fmt.Errorf("duplicate a socket: %w", err)
	}
	return fd, nil
}
