//go:build linux && !portableloop

package loop

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

func TestListenerOutOfDescriptors(t *testing.T) {
	refused := make(chan error, 100)
	l := startLoop(t, Options{AcceptError: func(err error) { refused <- err }})
	ln, err := l.Listen("127.0.0.1:0", func(fd int, from netip.AddrPort) { l.Add(fd, echo, from) })
	if err != nil {
		t.Fatal(err)
	}
	do(t, l, func() {})
	// The next descriptor, for the client, is to be the last.
	next, err := syscall.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(next)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	tight := syscall.Rlimit{Cur: uint64(next) + 1, Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &tight); err != nil {
		t.Skip(err)
	}
	restored := false
	restore := func() {
		if !restored {
			restored = true
			syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
		}
	}
	defer restore()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := <-refused; !errors.Is(err, syscall.EMFILE) {
		t.Errorf("told %v, want %v", err, syscall.EMFILE)
	}
	restore()
	send(t, conn, "one\n")
	expect(t, conn, "one\n")
}
