package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vecino/catalog"
	"vecino/region"
)

// A Handler hears of links and takes their frames. For one node, LinkUp, the
// frames and LinkDown of one incarnation come before LinkUp of the next.
// Frames of different lanes come at the same time, from a goroutine each.
//
// A call that takes long delays its lane, then the peer's writer, then the
// queue there: that is the backpressure. It must not wait for room in a queue
// to the same node (SendWait), or two nodes can wait for each other, nor
// close the hub.
type Handler interface {
	// LinkUp says that all lanes to node stand. The boot differs from the last
	// one when the process there is another. Send works from here on.
	LinkUp(node string, boot uint64)

	// LinkDown comes once for every LinkUp, after the last Frame. What was
	// queued and not delivered is lost.
	LinkDown(node string, cause error)

	// Frame is called in order for each lane and database. The payload is
	// valid until it returns.
	Frame(node string, lane Lane, f Frame)
}

// Config is what a hub needs to know. Node, Listen and Handler are needed;
// the rest has defaults that are right for a first run.
type Config struct {
	Node   string      // this node's name in the catalog, at most 255 bytes
	Region region.Code // where it is; matters with a Distance only
	Boot   uint64      // random for each start of the process; chosen if zero

	// Listen is host:port, where other nodes reach this one.
	Listen string

	// TLS makes the links private, and proves who is at either end: see
	// LoadTLS. Without it they are plain, for one machine or a private wire.
	TLS *tls.Config

	// Token, when set, must be the same on all nodes. It is proven, not sent.
	Token string

	// Distance, when set, is how far apart this hub acts as if the regions were.
	// Each end delays what it writes.
	Distance *Distance

	Handler Handler
	Logger  *slog.Logger

	// Heartbeat is how long a lane is silent before it is pinged. Less finds
	// out sooner, and costs two packets a lane each time. 500 ms if zero.
	Heartbeat time.Duration

	// Silence is for how long, beside a round trip, nothing may be heard before
	// the link is given up. It should be a few heartbeats. 2 s if zero.
	Silence time.Duration

	// Patience is how long dialling and the handshakes may take, all lanes
	// together. 5 s if zero.
	Patience time.Duration

	// QueueBytes bounds what one lane to one node may have queued. More lets a
	// peer be slow for longer before the link is dropped and everybody on it
	// starts from their positions again. A frame is taken while less than this
	// is queued, so one long frame can go over it. 64 MiB if zero.
	QueueBytes int

	// Dial and Listener stand in for TCP, in tests.
	Dial     func(ctx context.Context, address string) (net.Conn, error)
	Listener net.Listener
}

const (
	minRedial = 50 * time.Millisecond
	maxRedial = time.Second

	maxHandshakes = 1024 // at once, so that strangers can't fill the memory
)

// A Hub keeps one link to every peer.
type Hub struct {
	cfg      Config
	log      *slog.Logger
	listener net.Listener
	start    time.Time

	ctx        context.Context
	cancel     context.CancelCauseFunc
	tasks      sync.WaitGroup
	handshakes chan struct{} // one token each

	incarnations atomic.Uint64 // of links that were dialled, to whomever

	peers atomic.Pointer[map[string]*peer] // replaced as a whole, under mu

	mu struct {
		sync.Mutex
		closed  bool
		leaving map[string]<-chan struct{} // peers that were removed, until their last goroutine has ended
		refused map[Refusal]uint64
	}
}

// Open listens, and waits for peers to be set.
func Open(cfg Config) (*Hub, error) {
	switch {
	case cfg.Node == "" || len(cfg.Node) > 255:
		return nil, fmt.Errorf("open links: %q can't be a node's name", cfg.Node)
	case cfg.Handler == nil:
		return nil, errors.New("open links: no handler")
	}
	setDefault(&cfg.Boot, rand.Uint64())
	setDefault(&cfg.Heartbeat, 500*time.Millisecond)
	setDefault(&cfg.Silence, 2*time.Second)
	setDefault(&cfg.Patience, 5*time.Second)
	setDefault(&cfg.QueueBytes, 64<<20)
	setDefault(&cfg.Logger, slog.Default())
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	if cfg.TLS != nil {
		cfg.TLS = cfg.TLS.Clone()
		cfg.TLS.MinVersion = tls.VersionTLS13
		cfg.TLS.ClientAuth = tls.RequireAndVerifyClientCert
		cfg.TLS.SessionTicketsDisabled = true // a resumed session would save nothing here
	}
	listener := cfg.Listener
	if listener == nil {
		var err error
		if listener, err = net.Listen("tcp", cfg.Listen); err != nil {
			return nil, fmt.Errorf("open links: %w", err)
		}
	}
	h := &Hub{
		cfg:        cfg,
		log:        cfg.Logger,
		listener:   listener,
		start:      time.Now(),
		handshakes: make(chan struct{}, maxHandshakes),
	}
	h.ctx, h.cancel = context.WithCancelCause(context.Background())
	h.peers.Store(&map[string]*peer{})
	h.mu.leaving = make(map[string]<-chan struct{})
	h.mu.refused = make(map[Refusal]uint64)
	h.tasks.Go(h.acceptAll)
	return h, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Addr is where the hub listens.
func (h *Hub) Addr() string { return h.listener.Addr().String() }

// Close takes all links down, tells the handler, and waits until the last
// goroutine has ended.
func (h *Hub) Close() error {
	h.mu.Lock()
	h.mu.closed = true
	h.mu.Unlock()
	h.cancel(ErrClosed)
	h.listener.Close() // it was closed by its owner, or closes now
	h.tasks.Wait()
	return nil
}

// SetPeers says which nodes there are. New ones are dialled, or awaited; links
// to those left out go down; one whose record has changed is dialled again at
// once if it is down. This node itself may be among them.
func (h *Hub) SetPeers(nodes []catalog.Node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.closed {
		return
	}
	for id, done := range h.mu.leaving {
		select {
		case <-done:
			delete(h.mu.leaving, id)
		default:
		}
	}
	before, after := *h.peers.Load(), make(map[string]*peer, len(nodes))
	var joined []*peer
	for _, n := range nodes {
		if n.ID == "" || n.ID == h.cfg.Node || after[n.ID] != nil {
			continue
		}
		p := before[n.ID]
		if p == nil {
			p = newPeer(h, n)
			p.after = h.mu.leaving[n.ID]
			joined = append(joined, p)
		} else {
			p.update(n)
		}
		after[n.ID] = p
	}
	for id, p := range before {
		if after[id] == nil {
			h.mu.leaving[id] = p.done
			p.cancel(ErrRemoved)
		}
	}
	h.peers.Store(&after)
	for _, p := range joined { // not before: who hears of a link may send on it at once
		h.tasks.Go(p.run)
	}
}

// lane returns a lane of the link to node that is up now, or nil.
func (h *Hub) lane(node string, lane Lane) *lane {
	p := (*h.peers.Load())[node]
	if p == nil {
		return nil
	}
	l := p.link.Load()
	if l == nil {
		return nil
	}
	return l.lanes[lane]
}

// Send queues a copy of f and never waits. It is false when there is no link,
// and when the lane's queue is full or the frame too large: the link is broken
// then, so that a frame that wasn't sent is never followed by one that was.
func (h *Hub) Send(node string, lane Lane, f Frame) bool {
	l := h.lane(node, lane)
	if l == nil {
		return false
	}
	err := l.send(f)
	if err != nil && err != ErrDown {
		l.link.fail(fmt.Errorf("send on %s lane: %w", lane, err))
	}
	return err == nil
}

// SendWait queues a copy of f, after waiting until the queue of its database
// and that of the lane have room. The error is ErrDown, ErrFrameTooLarge, or
// the context's.
func (h *Hub) SendWait(ctx context.Context, node string, lane Lane, f Frame) error {
	l := h.lane(node, lane)
	if l == nil {
		return ErrDown
	}
	return l.sendWait(ctx, f)
}

// Queued tells how many bytes of a database wait to be written to a node.
func (h *Hub) Queued(node string, lane Lane, db catalog.ID) int {
	if l := h.lane(node, lane); l != nil {
		return l.queued(db)
	}
	return 0
}

// now is the hub's clock: nanoseconds since it was opened, never zero.
func (h *Hub) now() int64 { return int64(time.Since(h.start)) + 1 }

// Stats is what is known of one peer.
type Stats struct {
	Node      string        `json:"node"`
	Region    region.Code   `json:"region"`
	Up        bool          `json:"up"`
	Boot      uint64        `json:"boot,omitempty"`
	Since     time.Time     `json:"since,omitzero"`      // when the link came up
	LastHeard time.Time     `json:"last_heard,omitzero"` // on the live lane, while the link is up
	RTT       time.Duration `json:"rtt_ns"`              // round trip, smoothed; the last known when down
	Ups       uint64        `json:"ups"`                 // how often the link came up
	BytesIn   uint64        `json:"bytes_in"`            // of frames, over all links to this peer
	BytesOut  uint64        `json:"bytes_out"`
	Queued    [numLanes]int `json:"queued_bytes"`
	LastError string        `json:"last_error,omitempty"` // why it went down or couldn't come up
}

// Stats returns what is known of all peers, by name.
func (h *Hub) Stats() []Stats {
	peers := *h.peers.Load()
	all := make([]Stats, 0, len(peers))
	for _, id := range slices.Sorted(maps.Keys(peers)) {
		all = append(all, peers[id].stats())
	}
	return all
}

// Refused counts connections that were turned away, by reason.
func (h *Hub) Refused() map[Refusal]uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.mu.refused)
}

func (h *Hub) countRefusal(r Refusal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.refused[r]++
}

func (h *Hub) acceptAll() {
	for {
		conn, err := h.listener.Accept()
		if h.ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return
		}
		if err != nil {
			h.log.Warn("accept link", "err", err)
			select { // out of descriptors, most likely
			case <-time.After(minRedial):
			case <-h.ctx.Done():
			}
			continue
		}
		select {
		case h.handshakes <- struct{}{}:
			h.tasks.Go(func() {
				h.accept(conn)
				<-h.handshakes
			})
		default:
			h.countRefusal(RefusedBusy)
			conn.Close()
		}
	}
}

// accept brings one incoming lane to its peer, or refuses it.
func (h *Hub) accept(conn net.Conn) {
	ctx, cancel := context.WithTimeoutCause(h.ctx, h.cfg.Patience, errors.New("handshake took too long"))
	defer cancel()
	tune(conn)
	raw := new(laterShaped)
	raw.shape(conn)
	stop := context.AfterFunc(ctx, func() { raw.Close() })

	err := h.admit(ctx, conn, raw)
	if stop(); err == nil {
		return // it is the peer's now
	}
	raw.Close()
	h.countRefusal(refusalOf(err))
	h.log.Debug("link refused", "remote", conn.RemoteAddr().String(), "err", err)
}

func (h *Hub) admit(ctx context.Context, conn net.Conn, raw *laterShaped) error {
	c := laneConn{conn: raw, raw: raw}
	if h.cfg.TLS != nil {
		t := tls.Server(raw, h.cfg.TLS)
		if err := t.HandshakeContext(ctx); err != nil {
			return refuse(RefusedTLS, "%v", err)
		}
		c.conn = t
	}
	hi, said, err := readHello(c.conn)
	if err != nil {
		return err
	}
	p, why := h.check(c.conn, &hi)
	if p != nil && h.cfg.Distance != nil {
		raw.shape(Shape(conn, h.cfg.Region, p.record.Load().Region, h.cfg.Distance))
	}
	rtt, err := answerHello(c.conn, h.cfg.Token, said, hi, h.cfg.Node, h.cfg.Boot, why)
	if err != nil {
		return err
	}
	return p.gather(ctx, incarnation{hi.boot, hi.incarnation}, hi.lane, c, rtt)
}

// check tells who says hello, or why we don't talk to them.
func (h *Hub) check(conn net.Conn, hi *hello) (*peer, error) {
	if t, ok := conn.(*tls.Conn); ok {
		if err := t.ConnectionState().PeerCertificates[0].VerifyHostname(hi.node); err != nil {
			return nil, refuse(RefusedIdentity, "%v", err)
		}
	}
	if hi.target != h.cfg.Node {
		return nil, refuse(RefusedTarget, "this is %q, not %q", h.cfg.Node, hi.target)
	}
	p := (*h.peers.Load())[hi.node]
	if p == nil {
		return nil, refuse(RefusedUnknown, "%q is not a peer of %q", hi.node, h.cfg.Node)
	}
	if p.dials {
		return p, refuse(RefusedDirection, "%q dials %q", h.cfg.Node, hi.node)
	}
	return p, nil
}

// laterShaped is an accepted connection. How far away the other end is becomes
// known when it has said hello; what is written from then on takes its time.
type laterShaped struct{ now atomic.Pointer[net.Conn] }

func (c *laterShaped) shape(s net.Conn) { c.now.Store(&s) }
func (c *laterShaped) conn() net.Conn   { return *c.now.Load() }

func (c *laterShaped) Read(b []byte) (int, error)         { return c.conn().Read(b) }
func (c *laterShaped) Write(b []byte) (int, error)        { return c.conn().Write(b) }
func (c *laterShaped) Close() error                       { return c.conn().Close() }
func (c *laterShaped) LocalAddr() net.Addr                { return c.conn().LocalAddr() }
func (c *laterShaped) RemoteAddr() net.Addr               { return c.conn().RemoteAddr() }
func (c *laterShaped) SetDeadline(t time.Time) error      { return c.conn().SetDeadline(t) }
func (c *laterShaped) SetReadDeadline(t time.Time) error  { return c.conn().SetReadDeadline(t) }
func (c *laterShaped) SetWriteDeadline(t time.Time) error { return c.conn().SetWriteDeadline(t) }
