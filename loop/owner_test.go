package loop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A stuck is an owner with a handler that echoes lines, and gets stuck in
// "block" until it is released. What it does is in log.
type stuck struct {
	*funcs
	owner   *Owner
	log     []string // for the owner's calls
	during  func(c *Conn)
	entered chan struct{}
	release chan struct{}
}

func newStuck(l *Loop) *stuck {
	s := &stuck{owner: l.NewOwner(nil), entered: make(chan struct{}, 10), release: make(chan struct{})}
	s.funcs = &funcs{
		opened: func(c *Conn) { c.SetOwner(s.owner) },
		data: lines(func(c *Conn, line []byte) {
			s.log = append(s.log, strings.TrimSpace(string(line)))
			if string(line) == "block\n" {
				if s.during != nil {
					s.during(c)
				}
				s.entered <- struct{}{}
				<-s.release
			}
			c.Out = append(c.Out, line...)
		}),
		closed: func(c *Conn, err error) { s.log = append(s.log, "closed") },
	}
	return s
}

// ask sends a line and expects it to come back.
func ask(t *testing.T, conn net.Conn, line string) {
	t.Helper()
	send(t, conn, line+"\n")
	expect(t, conn, line+"\n")
}

// logged is the log once it is complete, for a test that knows how long it gets.
func (s *stuck) logged(t *testing.T, l *Loop, n int) string {
	t.Helper()
	for {
		got := make(chan []string, 1)
		if !s.owner.Post(func() { got <- slices.Clone(s.log) }) {
			t.Fatal("the loop is closed")
		}
		if log := <-got; len(log) >= n {
			return strings.Join(log, " ")
		}
	}
}

func TestStuckCallKeepsOnlyItsOwnerWaiting(t *testing.T) {
	l := startLoop(t, Options{Scratch: func() any { return new(int) }})
	s := newStuck(l)
	var scratch atomic.Value
	s.during = func(c *Conn) {
		scratch.Store(c.Scratch())
		s.owner.After(0, func() { s.log = append(s.log, "timer") })
	}
	neighbour := &funcs{
		opened: func(c *Conn) { c.SetOwner(l.NewOwner(nil)) },
		data: lines(func(c *Conn, line []byte) {
			if string(line) == "meanwhile\n" && c.Scratch() == scratch.Load() {
				t.Error("it uses the memory of a call that goes on")
			}
			c.Out = append(c.Out, line...)
		}),
	}
	slow, other, near := connect(t, l, s), connect(t, l, s), connect(t, l, neighbour)
	ask(t, slow, "first")
	ask(t, other, "second")
	ask(t, near, "before")
	send(t, slow, "third\nblock\nfourth\n")
	<-s.entered
	ask(t, near, "meanwhile")

	// All that concerns the owner waits, in order.
	send(t, slow, "fifth\n")
	send(t, other, "sixth\n")
	s.owner.Post(func() { s.log = append(s.log, "letter") })
	do(t, l, func() {
		if s.owner.Here() {
			t.Error("its owner is said to be here")
		}
		s.owner.Do(func() { s.log = append(s.log, "done") })
	})
	ask(t, near, "meanwhile")
	ask(t, connect(t, l, neighbour), "meanwhile")

	close(s.release)
	expect(t, slow, "third\nblock\nfourth\nfifth\n")
	expect(t, other, "sixth\n")
	log := s.logged(t, l, 9)
	if !strings.HasPrefix(log, "first second third block fourth ") {
		t.Errorf("order %q", log)
	}
	for _, late := range []string{"fifth", "sixth", "letter", "done", "timer"} {
		if strings.Count(log, late) != 1 {
			t.Errorf("%q is not once in %q", late, log)
		}
	}
	if strings.Index(log, "letter") > strings.Index(log, "done") {
		t.Errorf("order %q", log)
	}
	ask(t, slow, "again")
	ask(t, near, "after")
}

// What a call asks of its loop is done when the call has ended, also when the
// loop was taken over in between.
func TestStuckCallAsksForThings(t *testing.T) {
	l := startLoop(t, Options{})
	s := newStuck(l)
	var waiting, doomed *Conn
	s.opened = func(c *Conn) {
		c.SetOwner(s.owner)
		if waiting == nil {
			waiting = c
		} else if doomed == nil {
			doomed = c
		}
	}
	var old *Timer
	do(t, l, func() {
		old = s.owner.After(0, func() { t.Error("a timer that was stopped fired") })
		old.Stop()
		old = s.owner.After(time.Hour, func() { t.Error("a timer that was stopped fired") })
	})
	s.during = func(c *Conn) {
		s.entered <- struct{}{}
		<-s.release // from here on the loop is another's
		waiting.Prepare()
		waiting.Out = append(waiting.Out, "news\n"...)
		waiting.Flush()
		doomed.Close()
		if !old.Stop() || old.Stop() {
			t.Error("Stop tells whether it stopped the timer")
		}
		s.owner.After(0, func() { t.Error("a timer that was stopped fired") }).Stop()
		s.owner.After(0, func() { s.log = append(s.log, "timer") })
		s.owner.Settle(func() { s.owner.Do(func() { s.log = append(s.log, "do") }) })
		s.owner.Settle(func() { s.log = append(s.log, "settle") })
		s.log = append(s.log, "asked")
	}
	listener, victim, slow := connect(t, l, s), connect(t, l, s), connect(t, l, s)
	near := connect(t, l, &funcs{opened: func(c *Conn) { c.SetOwner(l.NewOwner(nil)) }, data: echo.data})
	ask(t, listener, "listener")
	ask(t, victim, "victim")
	send(t, slow, "block\n")
	<-s.entered
	ask(t, near, "meanwhile")
	s.release <- struct{}{}
	<-s.entered
	ask(t, near, "meanwhile")
	s.release <- struct{}{}
	expect(t, listener, "news\n")
	expectEnd(t, victim)
	expect(t, slow, "block\n")
	log := s.logged(t, l, 8)
	if !strings.HasPrefix(log, "listener victim block asked settle ") || !strings.Contains(log, "closed") || !strings.Contains(log, "do") || !strings.Contains(log, "timer") {
		t.Errorf("order %q", log)
	}
}

func TestPeerGoesWhileItsOwnerIsAway(t *testing.T) {
	l := startLoop(t, Options{})
	s := newStuck(l)
	slow, gone := connect(t, l, s), connect(t, l, s)
	near := connect(t, l, &funcs{opened: func(c *Conn) { c.SetOwner(l.NewOwner(nil)) }, data: echo.data})
	ask(t, gone, "one")
	send(t, slow, "block\n")
	<-s.entered
	ask(t, near, "meanwhile")
	gone.Close()
	slow.Close() // the one that is stuck, too
	ask(t, near, "meanwhile")
	close(s.release)
	if log := s.logged(t, l, 4); log != "one block closed closed" {
		t.Errorf("order %q", log)
	}
}

func TestLoopClosesWhileAnOwnerIsAway(t *testing.T) {
	l, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l.Run(context.Background()) }()
	s := newStuck(l)
	s.closed = func(c *Conn, err error) {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("closed with %v", err)
		}
		s.log = append(s.log, "closed")
	}
	nearClosed := make(chan struct{})
	near := connect(t, l, &funcs{
		opened: func(c *Conn) { c.SetOwner(l.NewOwner(nil)) },
		data:   echo.data, closed: func(*Conn, error) { close(nearClosed) },
	})
	slow, other := connect(t, l, s), connect(t, l, s)
	ask(t, other, "one")
	send(t, slow, "block\n")
	<-s.entered
	ask(t, near, "meanwhile")
	send(t, other, "late\n")
	s.owner.Post(func() { s.log = append(s.log, "letter") })
	go l.Close()
	<-nearClosed // neighbours don't wait for it
	select {
	case <-ended:
		t.Error("Run returned while a call went on")
	default:
	}
	close(s.release)
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	log := strings.Join(s.log, " ")
	if !strings.HasPrefix(log, "one block") || strings.Count(log, "closed") != 2 || strings.Count(log, "letter") != 1 {
		t.Errorf("order %q", log)
	}
	expectEnd(t, near)
}

func TestReplyOfAStuckCallWaitsForBeforeFlush(t *testing.T) {
	var s *stuck
	written, flushed := 0, 0
	l := startLoop(t, Options{BeforeFlush: func(*Loop) {
		if s != nil && s.owner.Here() {
			flushed = written
		}
	}})
	s = newStuck(l)
	data := s.data
	s.data = func(c *Conn, in []byte) int {
		before := len(c.Out)
		used := data(c, in)
		if before > 0 && flushed < written {
			t.Error("given data while replies that aren't safe are on their way")
		}
		written++
		return used
	}
	slow := connect(t, l, s)
	near := connect(t, l, &funcs{opened: func(c *Conn) { c.SetOwner(l.NewOwner(nil)) }, data: echo.data})
	go func() {
		<-s.entered
		ask(t, near, "meanwhile")
		close(s.release)
	}()
	send(t, slow, "block\n")
	expect(t, slow, "block\n")
	s.logged(t, l, 1)
	do(t, l, func() {
		if flushed != 1 || written != 1 {
			t.Errorf("%d written, %d flushed", written, flushed)
		}
	})
}

// While BeforeFlush waits too long, the others are served, and what it waited for
// is brought to it again before it leaves.
func TestLoopIsTakenOverWhileItWaits(t *testing.T) {
	waiting, release, lost := make(chan struct{}), make(chan struct{}), make(chan struct{})
	unsafe, safe := false, false // for the loop
	l := startLoop(t, Options{BeforeFlush: func(l *Loop) {
		switch {
		case !unsafe:
		case waiting == nil:
			safe = true
		default:
			entered := waiting
			waiting = nil
			if l.Wait(func() { close(entered); <-release }) {
				t.Error("not taken over")
			}
			close(lost)
		}
	}})
	entered := waiting
	owner := l.NewOwner(nil)
	slow := connect(t, l, &funcs{opened: func(c *Conn) { c.SetOwner(owner) }, data: lines(func(c *Conn, line []byte) {
		unsafe = true
		c.Out = append(c.Out, line...)
	})})
	near := connect(t, l, &funcs{opened: func(c *Conn) { c.SetOwner(l.NewOwner(nil)) }, data: echo.data})
	ask(t, near, "before")
	send(t, slow, "write\n")
	<-entered
	ask(t, near, "meanwhile")
	expect(t, slow, "write\n")
	do(t, l, func() {
		if !safe || !owner.Here() {
			t.Errorf("it has left, safe: %v, its owner here: %v", safe, owner.Here())
		}
		unsafe = false
	})
	close(release)
	<-lost
	ask(t, near, "after")
	ask(t, slow, "after")
	if n := guard.away.Load(); n != 0 {
		t.Errorf("%d are away", n)
	}
}

// A letter to a connection that moves arrives after it, also when the loop is taken over
// before the connection has gone.
func TestConnectionMovesWhileTheLoopIsTakenOver(t *testing.T) {
	moved, entered, release := false, make(chan struct{}), make(chan struct{})
	l := startLoop(t, Options{BeforeFlush: func(l *Loop) {
		if moved {
			moved = false
			l.Wait(func() { close(entered); <-release })
		}
	}})
	other := startLoop(t, Options{})
	owner := other.NewOwner(nil)
	read := make(chan *Loop, 1)
	mover := connect(t, l, &funcs{data: func(c *Conn, in []byte) int {
		if c.Loop() == l {
			moved = true
			c.SetHandler(echo)
			c.GiveTo(owner)
			c.Post(func() { read <- c.Loop() })
		}
		return len(in)
	}})
	near := connect(t, l, &funcs{opened: func(c *Conn) { c.SetOwner(l.NewOwner(nil)) }, data: echo.data})
	ask(t, near, "before")
	send(t, mover, "go\n")
	<-entered
	ask(t, near, "meanwhile")
	close(release)
	if at := <-read; at != other {
		t.Error("the letter was read before the connection had moved")
	}
	ask(t, mover, "after")
}

// Replies vary in size, so the size of a connection's buffer for them sinks by steps.
func TestBufferForRepliesSinksBySteps(t *testing.T) {
	l := startLoop(t, Options{})
	var conn *Conn
	peer := connect(t, l, &funcs{data: func(c *Conn, in []byte) int {
		conn = c
		c.Out = append(c.Out, make([]byte, smallest*len(in))...)
		return len(in)
	}})
	for _, step := range []struct {
		replies int // of the smallest size
		usual   uint8
	}{{8, 3}, {1, 2}, {4, 2}, {1, 1}, {1, 0}, {1, 0}, {2, 1}} {
		send(t, peer, strings.Repeat("x", step.replies))
		expect(t, peer, string(make([]byte, smallest*step.replies)))
		do(t, l, func() {
			if conn.usual != step.usual {
				t.Errorf("class %d after a reply of %d, want %d", conn.usual, step.replies, step.usual)
			}
		})
	}
}

// A connection that comes to an owner in a call leaves alone what is the call's.
func TestConnectionComesWhileItsOwnerIsAway(t *testing.T) {
	l, other := startLoop(t, Options{}), startLoop(t, Options{})
	s := newStuck(l)
	slow := connect(t, l, s)
	var comers []net.Conn
	for _, from := range []*Loop{l, other} {
		comers = append(comers, connect(t, from, &funcs{data: func(c *Conn, in []byte) int {
			c.SetHandler(s)
			c.GiveTo(s.owner)
			return 0
		}}))
	}
	send(t, slow, "block\n")
	<-s.entered
	for _, c := range comers {
		send(t, c, "come\n")
	}
	until(t, l, func() bool {
		asked := !s.owner.Here() && len(s.owner.ops) > 0
		if asked {
			t.Error("the loop has written what the call may be writing")
		}
		return asked || s.owner.Backlog() == len(comers)
	})
	close(s.release)
	expect(t, slow, "block\n")
	for _, c := range comers {
		expect(t, c, "come\n")
	}
}

// Owner whose lock somebody holds is passed over.
func TestOwnerThatIsNotReady(t *testing.T) {
	l := startLoop(t, Options{})
	var note func()
	busy := true
	asked := 0
	o := l.NewOwner(func(n func()) bool { asked++; note = n; return !busy })
	conn := connect(t, l, &funcs{opened: func(c *Conn) { c.SetOwner(o) }, data: echo.data})
	near := connect(t, l, &funcs{opened: func(c *Conn) { c.SetOwner(l.NewOwner(nil)) }, data: echo.data})
	send(t, conn, "one\n")
	until(t, l, func() bool { return note != nil })
	ask(t, near, "meanwhile")
	do(t, l, func() {
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
		busy = false
		go note()
	})
	expect(t, conn, "one\n")
}

// A flood takes its slice at every call. A neighbour whose request comes during
// one is served before the flood's backlog has been.
func TestNeighbourOfAFlood(t *testing.T) {
	const flooding = 40
	l := startLoop(t, Options{})
	flood, other := l.NewOwner(nil), l.NewOwner(nil)
	var calls, held atomic.Int32
	var near *net.TCPConn
	conns := make(chan *Conn, flooding)
	h := &funcs{opened: func(c *Conn) { c.SetOwner(flood); conns <- c }}
	h.data = func(c *Conn, in []byte) int {
		if held.Load() < flooding {
			held.Add(1)
			c.Hold()
			return 0
		}
		if calls.Add(1) == 5 {
			send(t, near, "now\n")
		}
		for !c.TurnOver() {
		}
		return len(in)
	}
	served := make(chan int32, 1)
	near = connect(t, l, &funcs{
		opened: func(c *Conn) { c.SetOwner(other) },
		data: lines(func(c *Conn, line []byte) {
			served <- calls.Load()
			c.Out = append(c.Out, line...)
		}),
	})
	for range flooding {
		send(t, connect(t, l, h), "work\n")
	}
	for held.Load() < flooding {
		do(t, l, func() {})
	}
	flood.Post(func() {
		for range flooding {
			(<-conns).Resume()
		}
	})
	// How soon the portable poller's goroutines bring a request is Go's affair.
	if n := <-served; n > 5+unhurried/lightest+1 && !portableLoop {
		t.Errorf("served after %d calls of the flood, the request came in the 5th", n)
	}
	expect(t, near, "now\n")
	for calls.Load() < flooding {
		do(t, l, func() {})
	}
}

// Owners get stuck again and again, each until a neighbour on its loop has
// been served, and everything keeps its order.
func TestTakeOverUnderTraffic(t *testing.T) {
	const owners, clients, count = 4, 3, 300
	l := startLoop(t, Options{Scratch: func() any { return new([]byte) }})
	ticket := make(chan struct{}) // handed over by whoever is served while another is stuck
	type tenant struct {
		owner *Owner
		calls int
		rng   *rand.Rand
		timer *Timer
	}
	var all sync.WaitGroup
	stop := make(chan struct{})
	free := l.NewOwner(nil)
	freeConn := connect(t, l, &funcs{opened: func(c *Conn) { c.SetOwner(free) }, data: func(c *Conn, in []byte) int {
		select {
		case ticket <- struct{}{}:
		default:
		}
		c.Out = append(c.Out, in...)
		return len(in)
	}})
	all.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				ask(t, freeConn, "tick")
			}
		}
	})
	var work sync.WaitGroup
	for i := range owners {
		tn := &tenant{owner: l.NewOwner(nil), rng: rand.New(rand.NewPCG(uint64(i), 1))}
		h := &funcs{opened: func(c *Conn) { c.SetOwner(tn.owner) }}
		h.data = lines(func(c *Conn, line []byte) {
			tn.calls++
			scratch := c.Scratch().(*[]byte)
			*scratch = append((*scratch)[:0], line...)
			switch tn.rng.IntN(60) {
			case 0:
				<-ticket
			case 1:
				c.Hold()
				tn.owner.After(0, c.Resume)
			case 2:
				c.Again()
			case 3:
				if tn.timer != nil {
					tn.timer.Stop()
				}
				tn.timer = tn.owner.After(time.Millisecond, func() { tn.calls++ })
			}
			c.Out = append(c.Out, *scratch...)
		})
		for range clients {
			conn := connect(t, l, h)
			work.Go(func() {
				w := bufio.NewWriter(conn)
				for i := range count {
					fmt.Fprintf(w, "line %d\n", i)
					if i%7 == 0 {
						w.Flush()
					}
				}
				w.Flush()
				conn.CloseWrite()
			})
			work.Go(func() {
				r := bufio.NewReader(conn)
				for i := range count {
					if line, err := r.ReadString('\n'); err != nil || line != fmt.Sprintf("line %d\n", i) {
						t.Errorf("received %q, %v, want line %d", line, err, i)
						return
					}
				}
				if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
					t.Errorf("received %.100q, %v, want the end", rest, err)
				}
			})
		}
	}
	work.Wait()
	close(stop)
	all.Wait()
}

func TestOwnedRoundTripAllocatesNothing(t *testing.T) {
	if raceEnabled || portableLoop {
		t.Skip("they allocate")
	}
	l := startLoop(t, Options{})
	o := l.NewOwner(nil)
	conn := connect(t, l, &funcs{opened: func(c *Conn) { c.SetOwner(o) }, data: echo.data})
	request, reply := []byte("one\ntwo\n"), make([]byte, 8)
	round := func() {
		conn.Write(request)
		io.ReadFull(conn, reply)
	}
	round()
	if allocs := testing.AllocsPerRun(200, round); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// After a call that was slow, the next ones are made elsewhere at once: the
// loop has them behind it before they end, without the watchdog.
func TestCallsOfASlowOwnerAreMadeElsewhere(t *testing.T) {
	l := startLoop(t, Options{Scratch: func() any { return new(int) }})
	s := newStuck(l)
	slow, other := connect(t, l, s), connect(t, l, s)
	near := connect(t, l, &funcs{opened: func(c *Conn) { c.SetOwner(l.NewOwner(nil)) }, data: echo.data})
	send(t, slow, "block\n")
	<-s.entered
	ask(t, near, "taken over")
	s.release <- struct{}{}
	expect(t, slow, "block\n")
	var runner *runner
	do(t, l, func() { runner = l.runner })
	for range 2 { // no more: it may be quick enough to be trusted again
		send(t, slow, "a\nblock\nb\n")
		<-s.entered
		send(t, other, "c\n")
		ask(t, near, "meanwhile")
		s.release <- struct{}{}
		expect(t, slow, "a\nblock\nb\n")
		expect(t, other, "c\n")
	}
	do(t, l, func() {
		if l.runner != runner {
			t.Error("the loop was taken over again")
		}
		if len(l.spare) == 0 || len(l.spare) > 4 {
			t.Errorf("%d runners are kept", len(l.spare))
		}
	})
	for range 2 * suspicion { // until its calls are trusted again
		ask(t, slow, "quick")
	}
	do(t, l, func() {
		if s.owner.slow > suspicion {
			t.Errorf("its next %d calls are made elsewhere", s.owner.slow)
		}
	})
}
