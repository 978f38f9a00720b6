package node

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"vecino/catalog"
	"vecino/loop"
	"vecino/proxyproto"
	"vecino/session"
)

// refusals counts connections that were refused, by reason.
type refusals struct {
	stranger  atomic.Int64 // not from an edge
	missing   atomic.Int64 // no header
	malformed atomic.Int64
	oversized atomic.Int64
	family    atomic.Int64 // not TCP over IPv6
	unknown   atomic.Int64 // no database has the destination address
	foreign   atomic.Int64 // source and destination are of different networks
	slow      atomic.Int64 // no whole header in time
	health    atomic.Int64 // LOCAL: an edge that only looks
}

// headerPatience is how long a header may take to arrive.
const headerPatience = time.Second

// accept takes a connection from an edge, or in standalone mode from a client.
func (n *Node) accept(fd int, peer netip.AddrPort) {
	s := n.shards[0]
	if n.cfg.Standalone {
		p := n.find(1)
		if p.shard != s {
			p.shard.loop.Add(fd, &arrival{node: n, to: p}, peer)
			return
		}
		n.adopt(s, fd, peer, &arrival{node: n, to: p})
		return
	}
	if !n.fromEdge(peer.Addr()) {
		n.refused.stranger.Add(1)
		loop.CloseFD(fd)
		return
	}
	g := &greeter{node: n}
	if c := n.adopt(s, fd, peer, g); c != nil {
		g.timer = s.loop.After(headerPatience, func() { g.giveUp(c) })
	}
}

func (n *Node) adopt(s *shard, fd int, peer netip.AddrPort, h loop.Handler) *loop.Conn {
	c, err := s.loop.Adopt(fd, h, peer)
	if err != nil {
		n.log.Warn("connection not taken", "err", err.Error())
		return nil
	}
	return c
}

// fromEdge reports whether an address may bring PROXY headers.
func (n *Node) fromEdge(addr netip.Addr) bool {
	addr = addr.Unmap()
	if len(n.cfg.Edges) == 0 {
		return addr.IsLoopback()
	}
	for _, p := range n.cfg.Edges {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// greeter reads the PROXY header of a connection and gives it to the tenant
// whose address it names. The password is none of its business.
type greeter struct {
	node  *Node
	timer *loop.Timer
}

// Data waits for the header. See loop.Handler.
func (g *greeter) Data(c *loop.Conn, in []byte) (used int) {
	h, n, err := proxyproto.Parse(in)
	if err == nil && n == 0 {
		return 0
	}
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil
	}
	if err != nil {
		g.node.refuse(err)
		c.Close()
		return len(in)
	}
	p, sleeps, count := g.node.called(h)
	if sleeps != 0 {
		g.node.moveIn(c, sleeps, h.Source)
		return n
	}
	if p == nil {
		count.Add(1)
		c.Close()
		return len(in)
	}
	a := &arrival{node: g.node, to: p, client: h.Source}
	c.SetHandler(a)
	c.GiveTo(p.Owner)
	c.Post(func() { a.open(c) })
	return n
}

// giveUp closes a connection whose header didn't come in time. It may have come and
// not been read, if the loop has much to do: then that isn't held against it.
func (g *greeter) giveUp(c *loop.Conn) {
	if c.Unread() {
		g.timer = c.Loop().After(headerPatience, func() { g.giveUp(c) })
		return
	}
	g.timer = nil
	g.node.refused.slow.Add(1)
	c.Close()
}

// Closed is called when the client went before it was known.
func (g *greeter) Closed(*loop.Conn, error) {
	if g.timer != nil {
		g.timer.Stop()
	}
}

// called finds the tenant that a header names, or the sleeper, or the counter of
// why not.
func (n *Node) called(h proxyproto.Header) (p *placed, sleeps catalog.ID, count *atomic.Int64) {
	n.mu.RLock()
	id, known := n.mu.byAddr[h.Destination.Addr().As16()]
	p = n.mu.byID[id]
	n.mu.RUnlock()
	switch {
	case !known:
		return nil, 0, &n.refused.unknown
	case !sameNetwork(h.Source.Addr(), h.Destination.Addr()):
		return nil, 0, &n.refused.foreign
	case p == nil:
		return nil, id, nil
	}
	return p, 0, nil
}

// refuse counts a header that can't be taken.
func (n *Node) refuse(err error) {
	switch {
	case errors.Is(err, proxyproto.ErrMissing):
		n.refused.missing.Add(1)
	case errors.Is(err, proxyproto.ErrOversized):
		n.refused.oversized.Add(1)
	case errors.Is(err, proxyproto.ErrFamily):
		n.refused.family.Add(1)
	case errors.Is(err, proxyproto.ErrLocal):
		n.refused.health.Add(1)
	default:
		n.refused.malformed.Add(1)
	}
}

// arrival is a connection whose tenant is known, on its way to the tenant's
// loop. There it becomes a session, before it has said anything: also one that
// never does counts as a connection of its database.
type arrival struct {
	node   *Node
	to     *placed
	client netip.AddrPort // as the header says
}

// Opened is called where there is no header to wait for. See loop.Opener.
func (a *arrival) Opened(c *loop.Conn) {
	c.SetOwner(a.to.Owner)
	a.to.Do(func() { a.open(c) })
}

// open makes the session of a connection, in a turn of its tenant, unless it
// has one, and returns it. It is nil when the tenant isn't here any more.
func (a *arrival) open(c *loop.Conn) *session.Session {
	if c.Closed() || c.Handler() != loop.Handler(a) {
		return nil
	}
	if a.node.find(a.to.Engine.ID()) != a.to {
		a.follow(c)
		return nil
	}
	a.node.accepted.Add(1)
	s := session.Open(a.to.Tenant, c, a.node.nextConn.Add(1), a.client)
	c.SetHandler(s)
	return s
}

// follow goes on where the tenant is now: it may have become a sleeper while the
// connection was on its way.
func (a *arrival) follow(c *loop.Conn) {
	old := a.to
	c.Hold()
	old.Owner.Settle(func() {
		switch p := old.shard.rouse(old.Engine.ID()); {
		case c.Closed():
		case p == nil:
			c.Close()
		default:
			a.to = p
			c.Resume() // while it is its old owner's: the new one may be away
			c.SetOwner(p.Owner)
			p.Do(func() { a.open(c) })
		}
	})
}

// Data opens the session, if it comes before its turn to be, and lets it have
// the bytes.
func (a *arrival) Data(c *loop.Conn, in []byte) (used int) {
	if s := a.open(c); s != nil {
		return s.Data(c, in)
	}
	if !c.Closed() {
		return 0 // it is on its way
	}
	return len(in)
}

// Closed is called when the client went before there was a session.
func (a *arrival) Closed(*loop.Conn, error) {}
