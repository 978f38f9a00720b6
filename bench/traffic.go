package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"vecino/internal/epoll"
	"vecino/loop"
)

// Traffic is commands of several kinds, sent for a while over some
// connections.
//
// Closed, a connection sends its next batch when the last is answered, so a
// slow server is asked less often: that finds how much it can do. Open, the
// batches have their times, at a fixed rate, whether or not earlier ones have
// been answered, and a reply's latency counts from the time its batch was due.
// A server that stalls for 100 ms then has all that came meanwhile in its
// tail, and not one request for each connection ("coordinated omission").
//
// One thread does it all, and sleeps in the kernel to the microsecond, so that
// the server has the other core.
type traffic struct {
	door     door
	conns    int
	together int           // commands in a batch
	rate     float64       // batches a second, over all connections; 0: closed
	lasts    time.Duration // how long batches are sent
	// command appends one command, and says what kind it is. A batch is of the
	// highest kind in it.
	command func(dst []byte, r *rand.Rand) ([]byte, kind)
	seed    uint64
	ready   func() // called when all connections stand; may be nil
	forget  bool   // keep no latencies
	watched bool   // tell what standstills of the machine hit; only open traffic can
}

// kind is what a command is told apart by; each traffic has its own.
type kind uint8

const maxKinds = 4

// traffic ends at the latest so long after its last batch.
const lastReply = 20 * time.Second

// seen is what traffic found.
type seen struct {
	took       time.Duration
	commands   int // answered
	failed     int // answered with an error
	failure    string
	missing    int // answered with nothing, as GET of no key
	unanswered int // commands without an answer at the end
	times      [maxKinds][]time.Duration
	calm       [maxKinds][]time.Duration // without those that a standstill hit; of open traffic
	still      time.Duration             // how long the machine stood still
}

func (s *seen) rps() float64 { return float64(s.commands) / s.took.Seconds() }

// tails is the latencies of some kinds, or of all, with and without what standstills hit.
func (s *seen) tails(kinds ...kind) (t tails) {
	var all, calm []time.Duration
	for k := range kind(maxKinds) {
		if len(kinds) == 0 || slices.Contains(kinds, k) {
			all, calm = append(all, s.times[k]...), append(calm, s.calm[k]...)
		}
	}
	return tails{tailOf(calm), tailOf(all), s.still.Seconds() / s.took.Seconds()}
}

// sound is an error if not all was answered well.
func (s *seen) sound() error {
	switch {
	case s.failed > 0:
		return fmt.Errorf("%d of %d commands failed, such as with %q", s.failed, s.commands, s.failure)
	case s.unanswered > 0:
		return fmt.Errorf("%d commands weren't answered within %s", s.unanswered, lastReply)
	}
	return nil
}

// wire is one connection of traffic.
type wire struct {
	fd      int
	out     []byte // not yet taken by the kernel
	in      []byte // an unfinished reply
	waiting []asked
	first   int // of waiting: those before it are answered
	blocked bool
	queued  bool // stands among those to be flushed
}

// asked is a batch on its way.
type asked struct {
	due  time.Duration
	left int // replies
	kind kind
}

// run sends it. When the context ends it, it says also what was found so far.
func (t traffic) run(ctx context.Context) (*seen, error) {
	wires, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, w := range wires {
			epoll.Close(w.fd)
		}
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_TIMERSLACK, 1, 0) // to the nanosecond, not to 50 µs
	ep, errno := epoll.Create()
	if errno != 0 {
		return nil, fmt.Errorf("load: %w", errno)
	}
	defer epoll.Close(ep)
	for i, w := range wires {
		if errno := epoll.Add(ep, w.fd, epoll.Readable, int32(i)); errno != 0 {
			return nil, fmt.Errorf("load: %w", errno)
		}
	}
	d := &driver{traffic: t, wires: wires, ep: ep, random: rand.New(rand.NewPCG(t.seed, 2)), buf: make([]byte, 256<<10)}
	endWatch := func(time.Time) ([]span, error) { return nil, nil }
	if t.watched {
		if endWatch, err = watchStandstills(); err != nil {
			return nil, err
		}
	}
	d.begun = time.Now()
	if t.rate > 0 {
		each := int(t.rate*t.lasts.Seconds()) + 16
		for k := range d.times[:2] {
			d.times[k], d.dues[k] = make([]time.Duration, 0, each), make([]time.Duration, 0, each)
		}
	}
	if t.ready != nil {
		t.ready()
	}
	err = d.run(ctx)
	still, failed := endWatch(d.begun)
	d.sortOut(still)
	if err = errors.Join(err, failed); err != nil {
		return &d.seen, fmt.Errorf("load on %s: %w", t.door.addr, err)
	}
	return &d.seen, nil
}

// connect opens the connections, greeted and signed in.
func (t traffic) connect(ctx context.Context) (wires []*wire, err error) {
	defer func() {
		if err != nil {
			for _, w := range wires {
				epoll.Close(w.fd)
			}
		}
	}()
	for range t.conns {
		c, err := t.door.open(ctx)
		if err != nil {
			return wires, err
		}
		fd, err := loop.DupFD(c.Conn)
		c.Close()
		if err != nil {
			return wires, err
		}
		wires = append(wires, &wire{fd: fd})
	}
	return wires, nil
}

// driver is traffic under way.
type driver struct {
	traffic
	seen
	wires  []*wire
	ep     int
	random *rand.Rand
	buf    []byte
	begun  time.Time
	dirty  []*wire                   // have something to send
	batch  int                       // number of the next
	open   int                       // batches on their way
	dues   [maxKinds][]time.Duration // when those of times were due; of open traffic
}

// sortOut tells what standstills hit from the rest.
func (d *driver) sortOut(still []span) {
	for _, s := range still {
		d.still += s.to - s.from
	}
	for k, dues := range d.dues {
		for i, due := range dues {
			if took := d.times[k][i]; !hit(still, due, due+took) {
				d.calm[k] = append(d.calm[k], took)
			}
		}
	}
}

func (d *driver) now() time.Duration { return time.Since(d.begun) }

func (d *driver) run(ctx context.Context) error {
	var events [256]epoll.Event
	if d.rate == 0 {
		for _, w := range d.wires {
			d.ask(w, 0)
		}
	}
	for {
		now := d.now()
		if d.rate > 0 {
			for at := d.due(d.batch); at <= now && at < d.lasts; at = d.due(d.batch) {
				d.ask(d.wires[d.batch%len(d.wires)], at)
			}
		}
		for _, w := range d.dirty {
			w.queued = false
			if err := d.flush(w); err != nil {
				return err
			}
		}
		d.dirty = d.dirty[:0]
		if now >= d.lasts && d.open == 0 || now > d.lasts+lastReply {
			break
		}
		wait := 100 * time.Millisecond
		if at := d.due(d.batch); d.rate > 0 && at < d.lasts {
			wait = max(0, min(wait, at-d.now()))
		}
		n, errno := waitFor(d.ep, events[:], wait)
		if errno != 0 && errno != syscall.EINTR {
			return errno
		}
		if err := ctx.Err(); err != nil {
			d.took = d.now()
			return err
		}
		for _, e := range events[:n] {
			w := d.wires[e.Pad]
			if e.Events&epoll.Writable != 0 {
				if err := d.flush(w); err != nil {
					return err
				}
			}
			if e.Events&^epoll.Writable != 0 {
				if err := d.receive(w); err != nil {
					return err
				}
			}
		}
	}
	d.took = d.now()
	for _, w := range d.wires {
		for _, a := range w.waiting[w.first:] {
			d.unanswered += a.left
		}
	}
	return nil
}

// due is when a batch is to be sent.
func (d *driver) due(batch int) time.Duration {
	return time.Duration(float64(batch) / d.rate * float64(time.Second))
}

// ask makes the next batch.
func (d *driver) ask(w *wire, due time.Duration) {
	a := asked{due: due, left: d.together}
	for range d.together {
		var k kind
		w.out, k = d.command(w.out, d.random)
		a.kind = max(a.kind, k)
	}
	if w.first == len(w.waiting) {
		w.waiting, w.first = w.waiting[:0], 0
	}
	w.waiting = append(w.waiting, a)
	d.batch++
	d.open++
	if !w.queued {
		w.queued = true
		d.dirty = append(d.dirty, w)
	}
}

func (d *driver) flush(w *wire) error {
	for len(w.out) > 0 {
		n, errno := epoll.Write(w.fd, w.out)
		if errno == syscall.EAGAIN {
			break
		}
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return fmt.Errorf("connection lost: %w", errno)
		}
		w.out = append(w.out[:0], w.out[n:]...)
	}
	if blocked := len(w.out) > 0; blocked != w.blocked {
		w.blocked = blocked
		watch := uint32(epoll.Readable)
		if blocked {
			watch |= epoll.Writable
		}
		for i := range d.wires {
			if d.wires[i] == w {
				epoll.Modify(d.ep, w.fd, watch, int32(i))
			}
		}
	}
	return nil
}

// receive takes what has come.
func (d *driver) receive(w *wire) error {
	n, errno := epoll.Read(w.fd, d.buf)
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		return nil
	case errno != 0:
		return fmt.Errorf("connection lost: %w", errno)
	case n == 0:
		return errors.New("connection lost: the server closed it")
	}
	got := d.buf[:n]
	if len(w.in) > 0 {
		w.in = append(w.in, got...)
		got = w.in
	}
	now := d.now()
	for {
		n, answer, err := cutReply(got)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		if err := d.answered(w, answer, got[:n], now); err != nil {
			return err
		}
		got = got[n:]
	}
	w.in = append(w.in[:0], got...)
	return nil
}

func (d *driver) answered(w *wire, answer answer, reply []byte, now time.Duration) error {
	if w.first == len(w.waiting) {
		return fmt.Errorf("a reply that nobody asked for: %.60q", reply)
	}
	d.commands++
	switch answer {
	case isError:
		if d.failed == 0 {
			d.failure = string(bytes.TrimSpace(reply))
		}
		d.failed++
	case isNothing:
		d.missing++
	}
	a := &w.waiting[w.first]
	if a.left--; a.left > 0 {
		return nil
	}
	if !d.forget {
		d.times[a.kind] = append(d.times[a.kind], now-a.due)
		if d.rate > 0 {
			d.dues[a.kind] = append(d.dues[a.kind], a.due)
		}
	}
	w.first++
	d.open--
	if d.rate == 0 && now < d.lasts {
		d.ask(w, now)
	}
	return nil
}

// waitFor waits for events for as long as it says, to the nanosecond.
func waitFor(ep int, events []epoll.Event, d time.Duration) (n int, errno syscall.Errno) {
	const epollPwait2 = 441
	if d == 0 {
		return epoll.Poll(ep, events)
	}
	t := syscall.NsecToTimespec(int64(d))
	r, _, errno := syscall.Syscall6(epollPwait2, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(unsafe.Pointer(&t)), 0, 0)
	if errno == syscall.ENOSYS { // Linux before 5.11
		return epoll.Wait(ep, events, int((d+time.Millisecond-1)/time.Millisecond))
	}
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// answer is what sort of reply it is.
type answer uint8

const (
	isValue answer = iota
	isError
	isNothing
)

// cutReply finds the end of the first reply in b: a line or one string, which
// is all that the commands of traffic are answered with. n is 0 when it isn't
// all there.
func cutReply(b []byte) (n int, a answer, err error) {
	end := bytes.IndexByte(b, '\n') + 1
	if end == 0 {
		return 0, a, nil
	}
	switch b[0] {
	case '+', ':', ',':
		return end, isValue, nil
	case '-':
		return end, isError, nil
	case '_':
		return end, isNothing, nil
	case '$':
		size, err := strconv.Atoi(string(bytes.TrimRight(b[1:end], "\r\n")))
		if err != nil {
			break
		}
		if size < 0 {
			return end, isNothing, nil
		}
		if len(b) < end+size+2 {
			return 0, a, nil
		}
		return end + size + 2, isValue, nil
	}
	return 0, a, fmt.Errorf("unexpected reply %.60q", b)
}
