package link

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"vecino/region"
)

const (
	// shapeBuffer is how much one connection may have under way. A write beyond
	// it waits, as it would for a full socket buffer: it is more than a long fat
	// pipe holds, so that simulated distance costs no bandwidth.
	shapeBuffer = 16 << 20
	// shapeLinger is how long Close lets what is under way arrive.
	shapeLinger = 2 * time.Second
)

// Shape returns a connection whose writes take as long from one region to
// another as d says, and stand still while the way is cut. Order is kept, and
// bandwidth is unlimited. A change of d holds at once, also for bytes that are
// under way. Reads aren't touched: the other end shapes what it writes.
//
// Write returns when the bytes are copied into a buffer, and waits, within the
// write deadline, while shapeBuffer bytes are under way. CloseWrite, where the
// connection has it, travels behind the bytes. Close unblocks all readers and
// writers at once, gives what is under way up to shapeLinger to arrive, unless
// the way is cut, and returns when the connection is closed.
//
// With a nil d conn is returned as it is.
func Shape(conn net.Conn, from, to region.Code, d *Distance) net.Conn {
	if d == nil {
		return conn
	}
	s := &shaped{
		Conn: conn,
		from: from,
		to:   to,
		d:    d,
		wake: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
	s.mu.changed = make(chan struct{})
	go s.deliver() // ends in Close
	return s
}

// shaped is a connection with a distance. What was written waits in a queue for
// one goroutine to write it to the connection below when it is due.
type shaped struct {
	net.Conn // what is below
	from, to region.Code
	d        *Distance

	writing sync.Mutex    // held by a Write, so that two don't mix
	wake    chan struct{} // tells deliver of the first parcel, and of Close
	done    chan struct{} // closed when deliver has ended and the connection is closed

	mu struct {
		sync.Mutex
		queue    []parcel
		bytes    int // in queue, and being written
		deadline time.Time
		changed  chan struct{} // closed and renewed when a waiting Write should look again
		err      error         // what the connection below answered; later writes get it too
		fin      bool          // CloseWrite was called
		closing  time.Time     // when Close was called
		closed   error         // what closing the connection below gave
	}
}

// parcel is what one Write left: its bytes, and when. It is due when the delay,
// as it is by then, has passed since.
type parcel struct {
	at  time.Time
	b   []byte
	fin bool // no bytes: the end of the stream
}

func (s *shaped) Write(b []byte) (n int, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	for {
		s.mu.Lock()
		if err := s.unwritableLocked(); err != nil {
			s.mu.Unlock()
			return n, err
		}
		if room := shapeBuffer - s.mu.bytes; room > 0 || len(b) == 0 {
			part := b[:min(room, len(b))]
			n, b = n+len(part), b[len(part):]
			if len(part) > 0 {
				s.sendLocked(parcel{at: time.Now(), b: append([]byte(nil), part...)})
			}
			if len(b) == 0 {
				s.mu.Unlock()
				return n, nil
			}
		}
		changed, deadline := s.mu.changed, s.mu.deadline
		s.mu.Unlock()
		waitChange(changed, deadline)
	}
}

// waitChange waits for a change or the deadline, if there is one.
func waitChange(changed <-chan struct{}, deadline time.Time) {
	var expired <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-changed:
	case <-expired:
	}
}

func (s *shaped) unwritableLocked() error {
	switch {
	case !s.mu.closing.IsZero(), s.mu.fin:
		return net.ErrClosed
	case s.mu.err != nil:
		return s.mu.err
	case !s.mu.deadline.IsZero() && !time.Now().Before(s.mu.deadline):
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (s *shaped) sendLocked(p parcel) {
	s.mu.queue = append(s.mu.queue, p)
	s.mu.bytes += len(p.b)
	if len(s.mu.queue) == 1 {
		s.wakeUp()
	}
}

func (s *shaped) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default: // it has been told and hasn't looked yet
	}
}

// notifyLocked makes every waiting Write look again.
func (s *shaped) notifyLocked() {
	close(s.mu.changed)
	s.mu.changed = make(chan struct{})
}

// CloseWrite ends the stream behind what has been written.
func (s *shaped) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.closing.IsZero() || s.mu.fin {
		return net.ErrClosed
	}
	s.mu.fin = true
	s.sendLocked(parcel{at: time.Now(), fin: true})
	s.notifyLocked()
	return s.mu.err
}

func (s *shaped) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.mu.Lock()
		if !s.mu.closing.IsZero() {
			err = net.ErrClosed
		}
		s.mu.Unlock()
	}
	return n, err
}

// Close may be called more than once; each call returns when all is closed.
func (s *shaped) Close() error {
	s.mu.Lock()
	if s.mu.closing.IsZero() {
		s.mu.closing = time.Now()
		s.Conn.SetReadDeadline(longAgo)
		s.Conn.SetWriteDeadline(s.mu.closing.Add(shapeLinger))
		s.notifyLocked()
		s.wakeUp()
	}
	s.mu.Unlock()
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.closed
}

var longAgo = time.Unix(1, 0)

func (s *shaped) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

func (s *shaped) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.closing.IsZero() {
		return net.ErrClosed // or a reader that Close woke would sleep again
	}
	return s.Conn.SetReadDeadline(t)
}

func (s *shaped) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.closing.IsZero() {
		return net.ErrClosed
	}
	s.mu.deadline = t
	s.notifyLocked()
	return nil
}

// deliver writes each parcel when it is due, until the connection is closed.
func (s *shaped) deliver() {
	defer close(s.done)
	alarm := newAlarm()
	defer alarm.close()
	for {
		changed := s.d.Changed()
		batch, bytes, fin, next := s.due(s.d.Delay(s.from, s.to), s.d.Cut(s.from, s.to))
		switch {
		case bytes > 0 || fin:
			s.written(bytes, s.write(batch, fin))
		case next == over:
			s.mu.Lock()
			s.mu.closed = s.Conn.Close()
			s.mu.Unlock()
			return
		case next > 0:
			alarm.wait(next, changed, s.wake)
		default:
			select {
			case <-changed:
			case <-s.wake:
			}
		}
	}
}

// over is due's word that all is done and the connection can be closed.
const over time.Duration = -1

// due takes what is due now off the queue. If nothing is, next says when to
// look again: 0 is when something has changed.
func (s *shaped) due(delay time.Duration, cut bool) (batch net.Buffers, bytes int, fin bool, next time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	closing := !s.mu.closing.IsZero()
	if closing && (cut || s.mu.err != nil || len(s.mu.queue) == 0) {
		return nil, 0, false, over
	}
	if cut || len(s.mu.queue) == 0 || s.mu.err != nil {
		return nil, 0, false, 0
	}
	taken := 0
	for _, p := range s.mu.queue {
		if now.Sub(p.at) < delay || bytes > 0 && bytes+len(p.b) > maxBatch {
			break
		}
		taken++
		if fin = p.fin; fin {
			break
		}
		batch = append(batch, p.b)
		bytes += len(p.b)
	}
	if taken == 0 {
		next = s.mu.queue[0].at.Add(delay).Sub(now)
		if closing && next > s.mu.closing.Add(shapeLinger).Sub(now) {
			return nil, 0, false, over // it would arrive too late
		}
		return nil, 0, false, next
	}
	clear(s.mu.queue[:taken])
	if s.mu.queue = s.mu.queue[taken:]; len(s.mu.queue) == 0 {
		s.mu.queue = nil
	}
	return batch, bytes, fin, 0
}

// maxBatch is how much is written at once, so that room is made as it goes.
const maxBatch = 1 << 20

func (s *shaped) write(batch net.Buffers, fin bool) error {
	if len(batch) > 0 {
		if _, err := batch.WriteTo(s.Conn); err != nil {
			return err
		}
	}
	if below, ok := s.Conn.(interface{ CloseWrite() error }); ok && fin {
		return below.CloseWrite()
	}
	return nil
}

// written makes room for what was written, or lets the connection fail.
func (s *shaped) written(bytes int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.bytes -= bytes
	if err != nil {
		s.mu.err = err
		s.mu.queue, s.mu.bytes = nil, 0
	}
	s.notifyLocked()
}
