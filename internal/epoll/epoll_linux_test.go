package epoll

import (
	"bytes"
	"net"
	"syscall"
	"testing"
)

func TestEventFDWakesAWait(t *testing.T) {
	ep, errno := Create()
	if errno != 0 {
		t.Fatal(errno)
	}
	defer Close(ep)
	wake, errno := EventFD()
	if errno != 0 {
		t.Fatal(errno)
	}
	defer Close(wake)
	if errno := Add(ep, wake, Readable, 7); errno != 0 {
		t.Fatal(errno)
	}
	events := make([]Event, 4)
	if n, errno := Poll(ep, events); n != 0 || errno != 0 {
		t.Errorf("before: %d ready, %v", n, errno)
	}
	Notify(wake)
	Notify(wake)
	if n, errno := Wait(ep, events, -1); n != 1 || errno != 0 || int(events[0].Fd) != wake || events[0].Pad != 7 {
		t.Errorf("notified: %d ready, %v, %+v", n, errno, events[0])
	}
	Drain(wake)
	if n, errno := Poll(ep, events); n != 0 || errno != 0 {
		t.Errorf("drained: %d ready, %v", n, errno)
	}
}

func TestAcceptReadWrite(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("%s: %v", address, err)
			continue
		}
		defer ln.Close()
		file, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		listener := int(file.Fd())
		if err := SetNonblock(listener); err != nil {
			t.Fatal(err)
		}
		if _, _, errno := Accept(listener); errno != syscall.EAGAIN {
			t.Errorf("nobody there: %v, want EAGAIN", errno)
		}
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		fd, peer, errno := Accept(listener)
		if errno != 0 {
			t.Fatal(errno)
		}
		defer Close(fd)
		Tune(fd)
		if peer.String() != client.LocalAddr().String() {
			t.Errorf("peer %v, want %v", peer, client.LocalAddr())
		}
		if local := LocalAddr(fd); local.String() != ln.Addr().String() {
			t.Errorf("local address %v, want %v", local, ln.Addr())
		}
		b := make([]byte, 16)
		if _, errno := Read(fd, b); errno != syscall.EAGAIN {
			t.Errorf("nothing sent: %v, want EAGAIN", errno)
		}
		if n, errno := Write(fd, []byte("hello")); n != 5 || errno != 0 {
			t.Errorf("write: %d, %v", n, errno)
		}
		if n, err := client.Read(b); err != nil || !bytes.Equal(b[:n], []byte("hello")) {
			t.Errorf("client read %q, %v", b[:n], err)
		}
		if errno := SocketError(fd); errno != 0 {
			t.Errorf("socket error %v", errno)
		}
	}
}
