package loop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// funcs is a Handler made of functions. Those left out do nothing; data then
// swallows what it gets.
type funcs struct {
	opened func(c *Conn)
	data   func(c *Conn, in []byte) int
	closed func(c *Conn, err error)
}

func (f *funcs) Opened(c *Conn) {
	if f.opened != nil {
		f.opened(c)
	}
}

func (f *funcs) Data(c *Conn, in []byte) int {
	if f.data != nil {
		return f.data(c, in)
	}
	return len(in)
}

func (f *funcs) Closed(c *Conn, err error) {
	if f.closed != nil {
		f.closed(c, err)
	}
}

// startLoop runs a loop for the length of the test.
func startLoop(t testing.TB, options Options) *Loop {
	t.Helper()
	l, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l.Run(context.Background()) }()
	t.Cleanup(func() {
		l.Close()
		if err := <-ended; err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("Run: %v", err)
		}
	})
	return l
}

// connect gives the loop a connection with the handler and returns its other end.
func connect(t testing.TB, l *Loop, h Handler) *net.TCPConn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	client.SetDeadline(time.Now().Add(time.Minute)) // only so that a broken test ends
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	fd, err := DupFD(server)
	if err != nil {
		t.Fatal(err)
	}
	if !l.Add(fd, h, netip.MustParseAddrPort(client.LocalAddr().String())) {
		t.Fatal("the loop is closed")
	}
	return client.(*net.TCPConn)
}

// do runs fn on the loop's thread and waits for it.
func do(t testing.TB, l *Loop, fn func()) {
	t.Helper()
	done := make(chan struct{})
	if !l.Post(func() { fn(); close(done) }) {
		t.Fatal("the loop is closed")
	}
	<-done
}

// until asks on the loop's thread, batch after batch, until cond holds.
func until(t testing.TB, l *Loop, cond func() bool) {
	t.Helper()
	for held := false; !held; {
		do(t, l, func() { held = cond() })
	}
}

func send(t testing.TB, conn net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(conn, s); err != nil {
		t.Errorf("send: %v", err)
	}
}

func expect(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("received %.100q, %v, want %.100q", got[:n], err, want)
	}
}

func expectEnd(t testing.TB, r io.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Fatalf("received %.100q, %v, want the end", rest, err)
	}
}

// lines is a handler's data for a protocol of lines, each answered by reply.
func lines(reply func(c *Conn, line []byte)) func(c *Conn, in []byte) int {
	return func(c *Conn, in []byte) (used int) {
		for !c.Paused() && !c.Closed() {
			end := bytes.IndexByte(in[used:], '\n')
			if end < 0 {
				break
			}
			line := in[used : used+end+1]
			used += end + 1
			reply(c, line)
		}
		return used
	}
}

var echo = &funcs{data: lines(func(c *Conn, line []byte) { c.Out = append(c.Out, line...) })}

func TestEcho(t *testing.T) {
	l := startLoop(t, Options{})
	for range 3 {
		conn := connect(t, l, echo)
		send(t, conn, "one\ntwo\nthr")
		expect(t, conn, "one\ntwo\n")
		send(t, conn, "ee\n")
		expect(t, conn, "three\n")
	}
}

func TestInputInSmallPiecesIsOfferedWhole(t *testing.T) {
	l := startLoop(t, Options{})
	conn := connect(t, l, echo)
	line := strings.Repeat("0123456789", 100) + "\n"
	for i := range line {
		send(t, conn, line[i:i+1])
		do(t, l, func() {}) // so that it comes as a piece of its own
	}
	expect(t, conn, line)
}

func TestInputLongerThanTheSharedBufferWithoutExpect(t *testing.T) {
	l := startLoop(t, Options{})
	conn := connect(t, l, echo)
	line := strings.Repeat("x", 10*readSize+7) + "\n"
	go send(t, conn, "short\n"+line+"short\n")
	expect(t, conn, "short\n"+line+"short\n")
}

func TestIdleConnectionHoldsNoBuffers(t *testing.T) {
	l := startLoop(t, Options{})
	var c *Conn
	conn := connect(t, l, &funcs{opened: func(opened *Conn) { c = opened }, data: echo.data})
	send(t, conn, "one\ntwo")
	expect(t, conn, "one\n")
	do(t, l, func() {
		if c.InPending() != 3 || cap(c.inBuf) != smallest {
			t.Errorf("incomplete command: %d bytes in a buffer of %d", c.InPending(), cap(c.inBuf))
		}
	})
	send(t, conn, "\n")
	expect(t, conn, "two\n")
	do(t, l, func() {
		if c.Out != nil || c.in != nil || c.inBuf != nil {
			t.Errorf("idle: out %d, in %d, buffer %d", cap(c.Out), cap(c.in), cap(c.inBuf))
		}
	})
}

func TestRepliesLeaveAfterBeforeFlush(t *testing.T) {
	pending := map[*Conn]int{} // replies not yet flushed, by connection
	var flushes, early int
	l := startLoop(t, Options{BeforeFlush: func(*Loop) {
		flushes++
		for c, want := range pending {
			if c.OutPending() != want {
				early++
			}
			c.Out = append(c.Out, "safe\n"...)
			c.Flush()
		}
		clear(pending)
	}})
	h := &funcs{data: lines(func(c *Conn, line []byte) {
		c.Out = append(c.Out, line...)
		pending[c] = c.OutPending()
	})}
	a, b := connect(t, l, h), connect(t, l, h)
	for i := range 100 {
		line := fmt.Sprintf("line %d\n", i)
		send(t, a, line)
		send(t, b, line)
		expect(t, a, line+"safe\n")
		expect(t, b, line+"safe\n")
	}
	do(t, l, func() {
		if flushes == 0 || early > 0 {
			t.Errorf("%d flushes, before which %d replies had left", flushes, early)
		}
	})
}

func TestFlushWithoutInput(t *testing.T) {
	l := startLoop(t, Options{})
	var c *Conn
	conn := connect(t, l, &funcs{opened: func(opened *Conn) { c = opened }})
	do(t, l, func() {
		c.Prepare()
		c.Out = append(c.Out, "news\n"...)
		c.Flush()
	})
	expect(t, conn, "news\n")
}

func TestSlowReaderIsNotReadUntilItReads(t *testing.T) {
	l := startLoop(t, Options{})
	const replies, size = 600, 100 << 10
	reply := bytes.Repeat([]byte("x"), size-1)
	reply = append(reply, '\n')
	var c *Conn
	most := 0
	conn := connect(t, l, &funcs{
		opened: func(opened *Conn) { c = opened },
		data: func(c *Conn, in []byte) int { // one request a batch
			c.Out = append(c.Out, reply...)
			most = max(most, c.OutPending())
			if len(in) > 1 {
				c.Again()
			}
			return 1
		},
	})
	go send(t, conn, strings.Repeat("r", replies))
	until(t, l, func() bool { return c != nil && c.throttled })
	for i := range replies {
		got := make([]byte, size)
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, reply) {
			t.Fatalf("reply %d is not as sent: %v", i, err)
		}
	}
	do(t, l, func() {
		if most > softOutput+2*size {
			t.Errorf("%d bytes were waiting to be read, want at most %d", most, softOutput+2*size)
		}
	})
	send(t, conn, "r")
	expect(t, conn, string(reply))
}

func TestClientThatNeverReadsIsClosed(t *testing.T) {
	l := startLoop(t, Options{})
	closed := make(chan error, 1)
	conn := connect(t, l, &funcs{
		opened: func(c *Conn) { c.OutLimit = 1 << 20 },
		data: func(c *Conn, in []byte) int {
			c.Out = append(c.Out, make([]byte, 64<<20)...)
			return len(in)
		},
		closed: func(c *Conn, err error) { closed <- err },
	})
	send(t, conn, "r")
	if err := <-closed; !errors.Is(err, ErrOutputLimit) {
		t.Errorf("closed with %v, want %v", err, ErrOutputLimit)
	}
}

// A long command is announced by its length, like a bulk string.
func TestLongCommandIsGatheredOnce(t *testing.T) {
	const size = 200 << 20
	if testing.Short() {
		t.Skip("moves a lot of bytes")
	}
	l := startLoop(t, Options{})
	type seen struct {
		calls int
		sum   [32]byte
		room  int
	}
	results := make(chan seen, 1)
	calls := 0
	conn := connect(t, l, &funcs{data: func(c *Conn, in []byte) int {
		calls++
		if len(in) < size {
			c.Expect(size)
			return 0
		}
		results <- seen{calls, sha256.Sum256(in[:size]), cap(c.inBuf)}
		calls = 0
		return size
	}})
	value := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(value)
	want := sha256.Sum256(value)
	for range 2 {
		go func() { conn.Write(value) }()
		got := <-results
		if got.sum != want {
			t.Error("it has arrived changed")
		}
		if got.calls > 2 {
			t.Errorf("its handler was called %d times, want 2", got.calls)
		}
		if got.room > size+(64<<10) {
			t.Errorf("it took a buffer of %d for %d", got.room, size)
		}
	}
}

func TestPauseKeepsInputAndResumeOffersIt(t *testing.T) {
	l := startLoop(t, Options{})
	var c *Conn
	paused := make(chan struct{}, 10)
	conn := connect(t, l, &funcs{
		opened: func(opened *Conn) { c = opened },
		data: lines(func(c *Conn, line []byte) {
			if string(line) == "wait\n" {
				c.Pause()
				paused <- struct{}{}
				return
			}
			if c.Paused() {
				t.Error("given data while paused")
			}
			c.Out = append(c.Out, line...)
		}),
	})
	send(t, conn, "one\nwait\ntwo\nwait\nth")
	expect(t, conn, "one\n")
	<-paused
	send(t, conn, "ree\nfour\n") // comes while it is paused
	until(t, l, func() bool { return c.seen&canRead != 0 })
	do(t, l, func() { c.Out = append(c.Out, "waited\n"...); c.Flush(); c.Resume() })
	expect(t, conn, "waited\ntwo\n")
	<-paused
	do(t, l, func() { c.Resume() })
	expect(t, conn, "three\nfour\n")
	send(t, conn, "five\n")
	expect(t, conn, "five\n")
}

func TestPeerClosesWhilePaused(t *testing.T) {
	for _, tt := range []struct {
		name string
		sent string // what it leaves unread
	}{
		{"with nothing unread", "wait\n"},
		{"with unread input", "wait\nmore\nand more\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := startLoop(t, Options{})
			paused, closed := make(chan struct{}), make(chan error, 2)
			conn := connect(t, l, &funcs{
				data:   lines(func(c *Conn, line []byte) { c.Pause(); close(paused) }),
				closed: func(c *Conn, err error) { closed <- err },
			})
			send(t, conn, tt.sent)
			<-paused
			conn.Close()
			if err := <-closed; !errors.Is(err, io.EOF) {
				t.Errorf("closed with %v, want EOF", err)
			}
			l.Close()
			if len(closed) > 0 {
				t.Error("closed twice")
			}
		})
	}
}

func TestPeerFinishesSendingWhileHeld(t *testing.T) {
	l := startLoop(t, Options{})
	held, closed := make(chan *Conn, 1), make(chan error, 1)
	conn := connect(t, l, &funcs{
		data: lines(func(c *Conn, line []byte) {
			if string(line) == "forward\n" {
				c.Hold()
				held <- c
				return
			}
			c.Out = append(c.Out, line...)
		}),
		closed: func(c *Conn, err error) { closed <- err },
	})
	send(t, conn, "forward\n")
	c := <-held
	send(t, conn, "after\n")
	conn.CloseWrite()
	until(t, l, func() bool { return c.seen&canRead != 0 })
	do(t, l, func() { c.Out = append(c.Out, "forwarded\n"...); c.Flush(); c.Resume() })
	expect(t, conn, "forwarded\nafter\n")
	expectEnd(t, conn)
	if err := <-closed; !errors.Is(err, io.EOF) {
		t.Errorf("closed with %v, want EOF", err)
	}
}

// Replies that come from elsewhere reach a peer that has finished sending, each
// as it comes; then the connection ends.
func TestPeerFinishesSendingWhileRepliesAreOwed(t *testing.T) {
	l := startLoop(t, Options{})
	owed, closed := make(chan *Conn, 2), make(chan error, 1)
	conn := connect(t, l, &funcs{
		data:   lines(func(c *Conn, line []byte) { c.Owe(true); owed <- c }),
		closed: func(c *Conn, err error) { closed <- err },
	})
	send(t, conn, "forward\nforward\n")
	conn.CloseWrite()
	c := <-owed
	until(t, l, func() bool { return c.finished })
	for _, reply := range []string{"one\n", "two\n"} {
		do(t, l, func() { c.Prepare(); c.Out = append(c.Out, reply...); c.Flush(); c.Owe(reply == "one\n") })
		expect(t, conn, reply)
	}
	expectEnd(t, conn)
	if err := <-closed; !errors.Is(err, io.EOF) {
		t.Errorf("closed with %v, want EOF", err)
	}
}

func TestPeerBreaksTheConnectionWhileRepliesAreOwed(t *testing.T) {
	l := startLoop(t, Options{})
	owed, closed := make(chan *Conn, 1), make(chan error, 1)
	conn := connect(t, l, &funcs{
		data:   lines(func(c *Conn, line []byte) { c.Owe(true); owed <- c }),
		closed: func(c *Conn, err error) { closed <- err },
	})
	send(t, conn, "forward\n")
	conn.CloseWrite()
	c := <-owed
	until(t, l, func() bool { return c.finished })
	conn.SetLinger(0)
	conn.Close()
	if err := <-closed; err == nil {
		t.Error("closed without an error")
	}
}

func TestPeerBreaksTheConnectionWhileHeld(t *testing.T) {
	l := startLoop(t, Options{})
	held, closed := make(chan struct{}), make(chan error, 1)
	conn := connect(t, l, &funcs{
		data:   lines(func(c *Conn, line []byte) { c.Hold(); close(held) }),
		closed: func(c *Conn, err error) { closed <- err },
	})
	send(t, conn, "forward\n")
	<-held
	conn.SetLinger(0) // closing resets
	conn.Close()
	if err := <-closed; err == nil {
		t.Error("closed without an error")
	}
}

func TestPeerFinishesSendingBeforeItReads(t *testing.T) {
	l := startLoop(t, Options{})
	const size = 32 << 20
	closed := make(chan error, 1)
	conn := connect(t, l, &funcs{
		data: func(c *Conn, in []byte) int {
			c.Out = append(c.Out, bytes.Repeat([]byte("x"), size)...)
			return len(in)
		},
		closed: func(c *Conn, err error) { closed <- err },
	})
	send(t, conn, "r")
	conn.CloseWrite()
	if n, err := io.Copy(io.Discard, conn); n != size || err != nil {
		t.Errorf("received %d bytes, %v, want %d", n, err, size)
	}
	if err := <-closed; !errors.Is(err, io.EOF) {
		t.Errorf("closed with %v, want EOF", err)
	}
}

func TestCloseAfterFlush(t *testing.T) {
	l := startLoop(t, Options{})
	const size = 32 << 20
	closed := make(chan error, 1)
	calls := 0
	conn := connect(t, l, &funcs{
		data: func(c *Conn, in []byte) int {
			calls++
			c.Out = append(c.Out, bytes.Repeat([]byte("x"), size)...)
			c.CloseAfterFlush()
			return 0
		},
		closed: func(c *Conn, err error) { closed <- err },
	})
	send(t, conn, "r")
	got := make([]byte, 1000)
	if _, err := io.ReadFull(conn, got); err != nil {
		t.Fatal(err)
	}
	send(t, conn, "more") // that nobody will read
	if n, err := io.Copy(io.Discard, conn); n != size-1000 || err != nil {
		t.Errorf("received %d more bytes, %v, want %d", n, err, size-1000)
	}
	if err := <-closed; err != nil {
		t.Errorf("closed with %v, want nil", err)
	}
	do(t, l, func() {
		if calls != 1 {
			t.Errorf("given data %d times, want once", calls)
		}
	})
}

func TestCloseOfAConnection(t *testing.T) {
	l := startLoop(t, Options{})
	var count atomic.Int32
	closed := make(chan error, 1)
	conn := connect(t, l, &funcs{
		data: func(c *Conn, in []byte) int { c.Close(); c.Close(); c.CloseAfterFlush(); c.Resume(); return len(in) },
		closed: func(c *Conn, err error) {
			count.Add(1)
			c.Close()
			c.Flush()
			closed <- err
		},
	})
	send(t, conn, "r")
	expectEnd(t, conn)
	if err := <-closed; err != nil {
		t.Errorf("closed with %v, want nil", err)
	}
	l.Close()
	if count.Load() != 1 {
		t.Errorf("Closed was called %d times", count.Load())
	}
	if l.Len() != 0 {
		t.Errorf("%d connections left", l.Len())
	}
}

func TestAgainSharesTheLoop(t *testing.T) {
	l := startLoop(t, Options{})
	const n = 200
	var order []string
	arrived := make(chan *Conn, 2)
	handler := func(name string) *funcs {
		first := true
		return &funcs{data: func(c *Conn, in []byte) int { // one byte a batch
			if first {
				first = false
				c.Hold()
				arrived <- c
				return 0
			}
			order = append(order, name)
			if len(in) > 1 {
				c.Again()
			} else {
				c.Out = append(c.Out, "end"...)
			}
			return 1
		}}
	}
	a, b := connect(t, l, handler("a")), connect(t, l, handler("b"))
	send(t, a, strings.Repeat("x", n))
	send(t, b, strings.Repeat("x", n))
	first, second := <-arrived, <-arrived
	until(t, l, func() bool { return first.InPending() == n && second.InPending() == n })
	do(t, l, func() { first.Resume(); second.Resume() })
	expect(t, a, "end")
	expect(t, b, "end")
	do(t, l, func() {
		if got := strings.Join(order, ""); len(got) != 2*n || !strings.Contains(got, strings.Repeat("ab", n/2)) && !strings.Contains(got, strings.Repeat("ba", n/2)) {
			t.Errorf("order of turns: %.100s", got)
		}
	})
}

func TestPeerFinishesSendingBeforeItsInputIsUsed(t *testing.T) {
	l := startLoop(t, Options{})
	const n = 500
	held := make(chan *Conn, 1)
	first := true
	conn := connect(t, l, &funcs{data: func(c *Conn, in []byte) int { // one byte a batch
		if first {
			first = false
			c.Hold()
			held <- c
			return 0
		}
		c.Out = append(c.Out, in[0])
		if len(in) > 1 {
			c.Again()
		}
		return 1
	}})
	send(t, conn, strings.Repeat("x", n))
	c := <-held
	conn.CloseWrite()
	until(t, l, func() bool { return c.seen&canRead != 0 })
	do(t, l, func() { c.Resume() })
	expect(t, conn, strings.Repeat("x", n))
	expectEnd(t, conn)
}

func TestPostRunsInOrder(t *testing.T) {
	l := startLoop(t, Options{})
	const senders, each = 4, 2000
	var got [senders][]int
	var all sync.WaitGroup
	for s := range senders {
		all.Go(func() {
			for i := range each {
				l.Post(func() { got[s] = append(got[s], i) })
			}
		})
	}
	all.Wait()
	do(t, l, func() {
		for s := range senders {
			if len(got[s]) != each || !slices.IsSorted(got[s]) {
				t.Errorf("of sender %d: %d of %d, sorted %v", s, len(got[s]), each, slices.IsSorted(got[s]))
			}
		}
	})
}

func TestPostFromTheLoopIsForTheNextBatch(t *testing.T) {
	var log []string
	done := make(chan struct{})
	l := startLoop(t, Options{BeforeFlush: func(*Loop) { log = append(log, "flush") }})
	l.Post(func() {
		log = append(log[:0], "first")
		l.Post(func() { log = append(log, "second"); close(done) })
	})
	<-done
	do(t, l, func() {
		if len(log) < 3 || strings.Join(log[:3], " ") != "first flush second" {
			t.Errorf("order %v", log)
		}
	})
}

func TestClosedLoop(t *testing.T) {
	l, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l.Run(context.Background()) }()
	closed := make(chan error, 10)
	h := &funcs{data: echo.data, closed: func(c *Conn, err error) { closed <- err }}
	conns := []net.Conn{connect(t, l, h), connect(t, l, h), connect(t, l, h)}
	for _, conn := range conns {
		send(t, conn, "one\n")
		expect(t, conn, "one\n")
	}
	ran := make(chan string, 10)
	l.Post(func() {
		l.Post(func() { ran <- "posted before the end" })
		l.askToStop()
	})
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	l.Close()
	if len(ran) != 1 {
		t.Error("a function posted in time did not run")
	}
	for _, conn := range conns {
		expectEnd(t, conn)
		if err := <-closed; !errors.Is(err, ErrClosed) {
			t.Errorf("closed with %v, want %v", err, ErrClosed)
		}
	}
	if len(closed) > 0 {
		t.Error("closed more than once")
	}
	if l.Post(func() { ran <- "too late" }) {
		t.Error("a closed loop takes mail")
	}
	if err := l.Run(context.Background()); err == nil {
		t.Error("a closed loop runs")
	}
}

func TestCloseOfALoopThatNeverRan(t *testing.T) {
	l, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	conn := connect(t, l, &funcs{closed: func(c *Conn, err error) { closed <- err }})
	l.Close()
	l.Close()
	expectEnd(t, conn)
	if err := <-closed; !errors.Is(err, ErrClosed) {
		t.Errorf("closed with %v", err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	l, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	do(t, l, func() {})
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	l.Close()
}

func TestListener(t *testing.T) {
	l, other := startLoop(t, Options{}), startLoop(t, Options{})
	accepted := 0
	var peer netip.AddrPort
	ln, err := l.Listen("127.0.0.1:0", func(fd int, from netip.AddrPort) {
		accepted++
		peer = from
		if accepted%2 == 0 {
			other.Add(fd, echo, from)
			return
		}
		if _, err := l.Adopt(fd, echo, from); err != nil {
			t.Error(err)
			CloseFD(fd)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		send(t, conn, "one\n")
		expect(t, conn, "one\n")
		do(t, l, func() {
			if peer.String() != conn.LocalAddr().String() {
				t.Errorf("peer %v, want %v", peer, conn.LocalAddr())
			}
		})
	}
	if l.Len() != 2 || other.Len() != 2 {
		t.Errorf("%d and %d connections, want 2 and 2", l.Len(), other.Len())
	}
	ln.Close()
	do(t, l, func() {})
	if conn, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		conn.Close()
		t.Error("a closed listener accepts")
	}
}

func TestUnixListener(t *testing.T) {
	dir, err := os.MkdirTemp("", "loop") // short, for a socket's name is
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ln, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	l := startLoop(t, Options{})
	if _, err := l.Accept(ln, func(fd int, from netip.AddrPort) { l.Add(fd, echo, from) }); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send(t, conn, "one\n")
	expect(t, conn, "one\n")
}

// Clients send numbered lines and check that they come back in order, while
// their connections wander between loops, pause, and are posted to.
func TestMoveUnderTraffic(t *testing.T) {
	const clients, count = 8, 3000
	var loops []*Loop
	visits := make([]int, 3) // each written by one loop only, which the race detector checks
	for range visits {
		loops = append(loops, startLoop(t, Options{}))
	}
	type wanderer struct {
		rng    *rand.Rand
		posted int
	}
	var closings atomic.Int32
	h := &funcs{
		opened: func(c *Conn) { c.Data = &wanderer{rng: rand.New(rand.NewPCG(uint64(c.Peer().Port()), 1))} },
		closed: func(c *Conn, err error) {
			closings.Add(1)
			visits[slices.Index(loops, c.Loop())]++
		},
	}
	h.data = lines(func(c *Conn, line []byte) {
		w := c.Data.(*wanderer)
		here := slices.Index(loops, c.Loop())
		visits[here]++
		c.Out = append(c.Out, line...)
		switch w.rng.IntN(20) {
		case 0:
			c.Move(loops[w.rng.IntN(len(loops))])
		case 1:
			c.Hold()
			go c.Post(func() { c.Post(c.Resume) })
			c.Move(loops[w.rng.IntN(len(loops))]) // still held there
		case 2:
			go c.Post(func() {
				w.posted++
				visits[slices.Index(loops, c.Loop())]++
				if w.posted%3 == 0 {
					c.Move(loops[w.posted%len(loops)])
				}
			})
		}
	})
	var all sync.WaitGroup
	for i := range clients {
		conn := connect(t, loops[i%len(loops)], h)
		all.Go(func() {
			w := bufio.NewWriter(conn)
			for i := range count {
				fmt.Fprintf(w, "line %d\n", i)
				if i%17 == 0 {
					w.Flush()
				}
			}
			w.Flush()
			conn.CloseWrite()
		})
		all.Go(func() {
			r := bufio.NewReader(conn)
			for i := range count {
				if line, err := r.ReadString('\n'); err != nil || line != fmt.Sprintf("line %d\n", i) {
					t.Errorf("received %q, %v, want line %d", line, err, i)
					return
				}
			}
			expectEnd(t, r)
		})
	}
	all.Wait()
	for _, l := range loops {
		l.Close()
	}
	if closings.Load() != clients {
		t.Errorf("%d connections were closed, want %d", closings.Load(), clients)
	}
	for i, n := range visits {
		if n == 0 {
			t.Errorf("nothing happened on loop %d", i)
		}
	}
}

func TestMoveToAClosedLoop(t *testing.T) {
	l := startLoop(t, Options{})
	other, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	closed := make(chan error, 1)
	conn := connect(t, l, &funcs{
		data:   func(c *Conn, in []byte) int { c.Out = append(c.Out, in...); c.Move(other); return len(in) },
		closed: func(c *Conn, err error) { closed <- err },
	})
	send(t, conn, "one")
	expect(t, conn, "one")
	expectEnd(t, conn)
	if err := <-closed; !errors.Is(err, ErrClosed) {
		t.Errorf("closed with %v", err)
	}
}

func TestMoveWithUnsentOutput(t *testing.T) {
	l, other := startLoop(t, Options{}), startLoop(t, Options{})
	const size = 32 << 20
	var c *Conn
	conn := connect(t, l, &funcs{
		opened: func(opened *Conn) { c = opened },
		data: lines(func(c *Conn, line []byte) {
			if string(line) == "go\n" {
				c.Out = append(c.Out, bytes.Repeat([]byte("x"), size)...)
				c.Move(other)
				c.Hold() // the rest of the input is for the other loop
				return
			}
			c.Out = append(c.Out, line...)
		}),
	})
	send(t, conn, "go\nafter\n")
	do(t, l, func() {})
	for c.Loop() != other {
		do(t, l, func() {})
	}
	do(t, other, func() { c.Resume() })
	if n, err := io.CopyN(io.Discard, conn, size); err != nil {
		t.Fatalf("received %d: %v", n, err)
	}
	expect(t, conn, "after\n")
}

func TestInputIsUnreadUntilItsTurn(t *testing.T) {
	if portableLoop {
		t.Skip("a goroutine of its own brings it, in its time")
	}
	l := startLoop(t, Options{})
	var c *Conn
	conn := connect(t, l, &funcs{opened: func(opened *Conn) { c = opened }, data: echo.data})
	unread := make(chan bool, 3)
	do(t, l, func() {
		unread <- c.Unread()
		send(t, conn, "one\n")
		l.Post(func() { unread <- c.Unread() }) // mail comes before the connections' turns
	})
	expect(t, conn, "one\n")
	do(t, l, func() { unread <- c.Unread() })
	if before, between, after := <-unread, <-unread, <-unread; before || !between || after {
		t.Errorf("unread %v before it came, %v when it had come, %v when it was read", before, between, after)
	}
}

func TestRoundTripAllocatesNothing(t *testing.T) {
	if raceEnabled || portableLoop {
		t.Skip("they allocate")
	}
	l := startLoop(t, Options{})
	conn := connect(t, l, echo)
	request, reply := []byte("one\ntwo\nthr"), make([]byte, 8)
	rest, restReply := []byte("ee\n"), make([]byte, 6)
	round := func() {
		conn.Write(request)
		io.ReadFull(conn, reply)
		conn.Write(rest)
		io.ReadFull(conn, restReply)
	}
	round()
	if allocs := testing.AllocsPerRun(200, round); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
