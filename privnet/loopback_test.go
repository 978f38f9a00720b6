package privnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

var _ Source = (*Loopback)(nil)

// serve runs a Loopback for the length of a test.
func serve(t *testing.T) (l *Loopback, conns chan Conn) {
	t.Helper()
	l, err := NewLoopback(0x80000001)
	if err != nil {
		t.Fatal(err)
	}
	conns = make(chan Conn, 10)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.Serve(ctx, func(c Conn) { conns <- c }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		l.Close()
	})
	return l, conns
}

func dial(t *testing.T, addr netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestLoopbackTellsWhatWasDialled(t *testing.T) {
	l, conns := serve(t)
	for _, tc := range []struct {
		database netip.Addr
		address  string
	}{
		{Mint(7, 2), "127.0.0.1:0"},
		{Mint(9, 2), "127.0.0.1:0"},
		{Mint(9, 3), "[::1]:0"},
	} {
		if err := l.Set(tc.database, tc.address); err != nil {
			t.Fatal(err)
		}
		client := dial(t, l.Addr(tc.database))
		got := <-conns
		network, _ := Parse(tc.database)
		port := client.LocalAddr().(*net.TCPAddr).Port
		if want := netip.AddrPortFrom(Machine(network.Network, 0x80000001, 1), uint16(port)); got.Source != want {
			t.Errorf("source %v, want %v", got.Source, want)
		}
		if want := netip.AddrPortFrom(tc.database, 6379); got.Destination != want {
			t.Errorf("destination %v, want %v", got.Destination, want)
		}
		conn, err := got.NetConn()
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte("hello"))
		conn.Close()
		if b, err := io.ReadAll(client); string(b) != "hello" || err != nil {
			t.Errorf("client reads %q, %v", b, err)
		}
	}
}

func TestLoopbackListenersComeAndGo(t *testing.T) {
	l, conns := serve(t)
	a, b := Mint(7, 2), Mint(7, 3)
	set := func(database netip.Addr, address string) netip.AddrPort {
		t.Helper()
		if err := l.Set(database, address); err != nil {
			t.Fatal(err)
		}
		return l.Addr(database)
	}
	at := set(a, "127.0.0.1:0")
	if again := set(a, "127.0.0.1:0"); again != at {
		t.Errorf("it moved from %v to %v without being told to", at, again)
	}
	if err := l.Set(b, at.String()); err == nil {
		t.Error("two databases answer at one address")
	}
	set(a, "")
	if conn, err := net.Dial("tcp", at.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a database that answers nowhere is reached: %v, %v", conn, err)
	}
	// Its address is another's now, with the same descriptor, probably.
	set(b, at.String())
	dial(t, at)
	c := <-conns
	if c.Destination.Addr() != b {
		t.Errorf("reached %v, want %v", c.Destination, b)
	}
	c.Reset()

	moved := set(b, "[::1]:0")
	dial(t, moved)
	(<-conns).Reset()
	if _, err := net.Dial("tcp", at.String()); err == nil {
		t.Error("a database that has moved answers at its old address, too")
	}
}

func TestLoopbackChecksWhatItIsTold(t *testing.T) {
	l, _ := serve(t)
	for address, database := range map[string]netip.Addr{
		"127.0.0.1":       Mint(7, 2),
		"localhost:1":     Mint(7, 2),
		"127.0.0.1:0":     Machine(7, 8, 9),
		"[2001:db8::1]:1": Mint(7, 2), // not an address of this machine
	} {
		if err := l.Set(database, address); err == nil {
			t.Errorf("%v answers at %q", database, address)
		}
	}
	if err := l.Set(Mint(7, 4), ""); err != nil {
		t.Errorf("nowhere is nowhere: %v", err)
	}
	if _, err := NewLoopback(Databases); err == nil {
		t.Error("clients can appear as databases")
	}
}

func TestResetIsAReset(t *testing.T) {
	l, conns := serve(t)
	if err := l.Set(Mint(7, 2), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	client := dial(t, l.Addr(Mint(7, 2)))
	(<-conns).Reset()
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client sees %v", err)
	}
}

func TestManyListenersNeedNoGoroutines(t *testing.T) {
	l, conns := serve(t)
	const many = 1000
	for i := range uint64(many) {
		if err := l.Set(Mint(7, FirstNumber+i), "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range []uint64{0, 500, many - 1} {
		database := Mint(7, FirstNumber+i)
		dial(t, l.Addr(database))
		c := <-conns
		if c.Destination.Addr() != database {
			t.Errorf("reached %v, want %v", c.Destination, database)
		}
		c.Reset()
	}
}
