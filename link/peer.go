package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"vecino/catalog"
)

// A peer is another node, whether there is a link to it or not. One goroutine
// runs it, and so one incarnation of the link at a time:
//
//	              dialled, or three
//	+---> down ---- lanes came -----> up ---+
//	|                                       |
//	+------------ link.serve ended ---------+
type peer struct {
	hub    *Hub
	id     string
	dials  bool            // we do; else we are dialled
	after  <-chan struct{} // an earlier peer of this name ends first; may be nil
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{}

	record atomic.Pointer[catalog.Node]
	link   atomic.Pointer[link] // that is up
	poke   chan struct{}        // one token: dial now, or: three lanes came

	bytesIn, bytesOut atomic.Uint64
	ups               atomic.Uint64
	rtt               atomic.Int64
	lastError         atomic.Pointer[string]

	mu struct { // of who is dialled
		sync.Mutex
		gone      bool        // run has ended
		newest    incarnation // that was seen
		gathering *gathering
		next      *gathering // all its lanes are there
		current   *link
	}
}

// An incarnation of a link is named by who dials it.
type incarnation struct{ boot, n uint64 }

// A gathering collects the lanes of one incarnation. Each waits in the
// goroutine that accepted it, until all are there or it is given up.
type gathering struct {
	incarnation
	conns    [numLanes]laneConn
	have     int
	rtt      time.Duration
	complete bool // valid when done is closed
	done     chan struct{}
}

var errGivenUp = errors.New("the other lanes didn't come")

func newPeer(h *Hub, n catalog.Node) *peer {
	p := &peer{hub: h, id: n.ID, dials: h.cfg.Node < n.ID, done: make(chan struct{}), poke: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancelCause(h.ctx)
	p.record.Store(&n)
	return p
}

func (p *peer) update(n catalog.Node) {
	if *p.record.Load() != n {
		p.record.Store(&n)
		p.wake()
	}
}

func (p *peer) wake() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

func (p *peer) cause() error { return context.Cause(p.ctx) }

func (p *peer) run() {
	defer close(p.done)
	if p.after != nil {
		<-p.after
	}
	if p.dials {
		p.runDialler()
	} else {
		p.runDialled()
	}
}

func (p *peer) serve(l *link, rtt time.Duration) {
	p.rtt.Store(int64(rtt))
	p.ups.Add(1)
	l.serve()
	p.note(l.cause)
}

func (p *peer) note(err error) {
	s := err.Error()
	p.lastError.Store(&s)
}

// runDialler dials until there is a link, and again when it has gone down.
func (p *peer) runDialler() {
	wait, failures := minRedial, 0
	for p.ctx.Err() == nil {
		if l, rtt, err := p.dial(); err == nil {
			p.serve(l, rtt)
			failures = 0
			if time.Since(l.since) > maxRedial {
				wait = minRedial
			}
		} else if p.ctx.Err() == nil {
			p.note(err)
			if failures++; failures == 1 {
				p.hub.log.Info("link can't be made, trying on", "node", p.id, "err", err)
			}
		}
		// Half of the wait is chance: nodes that lost a peer at the same moment
		// don't come back at the same moment.
		timer := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-timer.C:
			wait = min(2*wait, maxRedial)
		case <-p.poke:
			wait = minRedial
		case <-p.ctx.Done():
		}
		timer.Stop()
	}
}

// dial makes the three lanes of a new link, all at once.
func (p *peer) dial() (*link, time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(p.ctx, p.hub.cfg.Patience, errors.New("dialling took too long"))
	defer cancel()
	name := incarnation{p.hub.cfg.Boot, p.hub.incarnations.Add(1)}
	var (
		lanes [numLanes]dialled
		tasks sync.WaitGroup
	)
	for i := range lanes {
		tasks.Go(func() {
			d := &lanes[i]
			if *d = p.dialLane(ctx, name, Lane(i)); d.err != nil {
				cancel() // the others needn't go on; the first error is the one that isn't a cancellation
			}
		})
	}
	tasks.Wait()

	var conns [numLanes]laneConn
	err := firstCause(lanes[:])
	for i := range lanes {
		d := &lanes[i]
		if err == nil && d.boot != lanes[0].boot {
			err = errors.New("the peer was restarted meanwhile")
		}
		if err == nil {
			if _, werr := d.conn.Write(d.ready); werr != nil {
				err = fmt.Errorf("say ready on %s lane: %w", Lane(i), werr)
			}
		}
		conns[i] = d.laneConn
	}
	for i := range lanes {
		d := &lanes[i]
		if d.raw == nil {
			continue
		}
		if !d.stop() && err == nil {
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		for _, c := range conns {
			if c.raw != nil {
				c.raw.Close()
			}
		}
		return nil, 0, fmt.Errorf("dial %s: %w", p.id, err)
	}
	return newLink(p, lanes[0].boot, conns), lanes[Live].rtt, nil
}

// dialled is a lane that was welcomed, or why not.
type dialled struct {
	laneConn
	boot  uint64
	rtt   time.Duration
	ready []byte      // to be said when all lanes are there
	stop  func() bool // ends the guard that closes raw with the context
	err   error
}

func (p *peer) dialLane(ctx context.Context, name incarnation, lane Lane) (d dialled) {
	h, record := p.hub, p.record.Load()
	err := h.cfg.Distance.Connect(ctx, h.cfg.Region, record.Region)
	if err != nil {
		d.err = err
		return d
	}
	conn, err := h.cfg.Dial(ctx, record.Link)
	if err != nil {
		d.err = because(ctx, err)
		return d
	}
	tune(conn)
	conn = Shape(conn, h.cfg.Region, record.Region, h.cfg.Distance)
	d.conn, d.raw = conn, conn
	d.stop = context.AfterFunc(ctx, func() { conn.Close() })
	if h.cfg.TLS != nil {
		cfg := h.cfg.TLS.Clone()
		cfg.ServerName = p.id
		t := tls.Client(conn, cfg)
		if err := t.HandshakeContext(ctx); err != nil {
			d.err = because(ctx, fmt.Errorf("TLS: %w", err))
			return d
		}
		d.conn = t
	}
	d.boot, d.rtt, d.ready, err = dialHandshake(d.conn, h.cfg.Token, hello{
		lane: lane, boot: name.boot, incarnation: name.n, node: h.cfg.Node, target: p.id,
	})
	if err != nil {
		d.err = because(ctx, fmt.Errorf("%s lane: %w", lane, err))
	}
	return d
}

// because prefers the context's cause to what it made of a connection.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// firstCause returns the error that made the others give up.
func firstCause(lanes []dialled) (first error) {
	for i := range lanes {
		if err := lanes[i].err; err != nil && (first == nil || errors.Is(first, context.Canceled)) {
			first = err
		}
	}
	return first
}

// runDialled serves one complete gathering after the other.
func (p *peer) runDialled() {
	defer p.leave()
	for {
		select {
		case <-p.poke:
		case <-p.ctx.Done():
			return
		}
		p.mu.Lock()
		g := p.mu.next
		if g == nil {
			p.mu.Unlock()
			continue
		}
		l := newLink(p, g.boot, g.conns)
		p.mu.next, p.mu.current = nil, l
		p.mu.Unlock()
		p.serve(l, g.rtt)
	}
}

// leave gives up what is still coming.
func (p *peer) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.gone = true
	p.giveUpLocked()
	p.dropNextLocked()
}

func (p *peer) giveUpLocked() {
	if g := p.mu.gathering; g != nil {
		p.mu.gathering = nil
		close(g.done)
	}
}

func (p *peer) dropNextLocked() {
	if g := p.mu.next; g != nil {
		p.mu.next = nil
		for _, c := range g.conns {
			c.raw.Close()
		}
	}
}

// gather takes a lane whose handshake is over, and returns when the link has
// all of them or won't have. A newer incarnation takes the place of an older
// one, of the link that is up too: who dials knows best that it is gone.
func (p *peer) gather(ctx context.Context, name incarnation, lane Lane, c laneConn, rtt time.Duration) error {
	p.mu.Lock()
	if p.mu.gone {
		p.mu.Unlock()
		return refuse(RefusedUnknown, "%q has just been removed", p.id)
	}
	g := p.mu.gathering
	if g == nil || g.incarnation != name {
		if n := p.mu.newest; name.boot == n.boot && name.n <= n.n {
			p.mu.Unlock()
			return refuse(RefusedStale, "link %d of %q, and %d has been seen", name.n, p.id, n.n)
		}
		p.giveUpLocked()
		g = &gathering{incarnation: name, done: make(chan struct{})}
		p.mu.gathering, p.mu.newest = g, name
	}
	if g.conns[lane].conn != nil {
		p.mu.Unlock()
		return refuse(RefusedStale, "%s lane of %q came twice", lane, p.id)
	}
	g.conns[lane] = c
	if lane == Live {
		g.rtt = rtt
	}
	var replaced *link
	g.have++
	last := g.have == int(numLanes)
	if last {
		g.complete = true
		p.giveUpLocked() // this one: it is no longer gathered, and done
		p.dropNextLocked()
		p.mu.next, replaced = g, p.mu.current
	}
	p.mu.Unlock()
	if last {
		if replaced != nil {
			replaced.fail(ErrReplaced)
		}
		p.wake()
	}

	select {
	case <-g.done:
	case <-ctx.Done():
		p.mu.Lock()
		if p.mu.gathering == g {
			p.giveUpLocked()
		}
		p.mu.Unlock()
		<-g.done
	}
	if !g.complete {
		return refuse(RefusedStale, "%s lane of %q: %v", lane, p.id, errGivenUp)
	}
	return nil
}

// measured takes a round trip into account. What can't be true is left out:
// the silence that we bear hangs on it.
func (p *peer) measured(d time.Duration) {
	if d <= 0 || d > time.Minute {
		return
	}
	old := p.rtt.Load()
	p.rtt.CompareAndSwap(old, (3*old+int64(d))/4)
}

func (p *peer) roundTrip() time.Duration { return time.Duration(p.rtt.Load()) }

func (p *peer) stats() Stats {
	s := Stats{
		Node:     p.id,
		Region:   p.record.Load().Region,
		RTT:      p.roundTrip(),
		Ups:      p.ups.Load(),
		BytesIn:  p.bytesIn.Load(),
		BytesOut: p.bytesOut.Load(),
	}
	if e := p.lastError.Load(); e != nil {
		s.LastError = *e
	}
	if l := p.link.Load(); l != nil {
		s.Up, s.Boot, s.Since, s.LastHeard = true, l.boot, l.since, time.Now()
		if t := l.lanes[Live].waiting.Load(); t != 0 {
			s.LastHeard = p.hub.start.Add(time.Duration(t))
		}
		for i, lane := range l.lanes {
			s.Queued[i] = lane.queuedAll()
		}
	}
	return s
}
