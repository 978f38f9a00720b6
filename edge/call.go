package edge

import (
	"net/netip"
	"time"

	"vecino/api"
	"vecino/privnet"
	"vecino/proxyproto"
)

// call is one client's connection on its way to a node, and then at it.
//
//	accept ─▶ held ─▶ dialling ─▶ connected ─▶ ended
//	   │        │        │ ▲ │
//	   │        │        └─┘ │ the next nearest
//	   └────────┴────────────┴──▶ refused
//
// It belongs to one party at a time: the edge, or the carrier it was given to.
type call struct {
	conn   privnet.Conn
	target api.Serving // who is dialled
	tried  []string    // nodes that couldn't be
}

// carrier takes calls to their nodes.
type carrier interface {
	// carry dials the call's target, gives it the header, and moves bytes. It
	// must not block. It says Edge.connected when the node has accepted and
	// Edge.ended when all is over; or, when there is no connection, only Edge.failed,
	// with the client's connection as it was.
	carry(c *call)
	// resetNode resets all connections to a node, at both ends, and gives up
	// dialling it.
	resetNode(id string)
	// close resets all connections. Nothing is carried afterwards.
	close()
}

// accept is called by the source for every new connection.
func (e *Edge) accept(conn privnet.Conn) {
	e.counters.accepted.Add(1)
	c := &call{conn: conn}
	if !privnet.IsDatabase(conn.Destination.Addr()) || !privnet.SameNetwork(conn.Source.Addr(), conn.Destination.Addr()) {
		e.refuse(c, foreign)
		return
	}
	e.connect(c)
}

// connect finds the node for a call and hands it to a carrier. It doesn't block.
func (e *Edge) connect(c *call) {
	for {
		route := e.routes.get(c.conn.Destination.Addr())
		if route == nil || len(route.Serving) == 0 {
			switch e.routes.hold(c, func(c *call) { e.refuse(c, noRoute) }) {
			case routable:
				continue
			case overbooked:
				e.refuse(c, noRoute)
			}
			return
		}
		if !privnet.SameNetwork(c.conn.Source.Addr(), route.Address) {
			e.refuse(c, foreign)
			return
		}
		full := false
		i := pick(route.Serving, e.roundTrip, func(node string) condition {
			state := e.nodes.condition(node, e.cfg.SoftLimit, e.cfg.HardLimit)
			full = full || state.full
			return state
		}, c.tried)
		switch {
		case i < 0 && full:
			e.refuse(c, limited)
			return
		case i < 0:
			e.refuse(c, unreachable)
			return
		}
		c.target = route.Serving[i]
		e.nodes.dialling(c.target.Node)
		e.carrier(c).carry(c)
		return
	}
}

// carrier chooses how a call gets to its target.
func (e *Edge) carrier(c *call) carrier {
	if c.conn.FD < 0 || e.distance != nil && c.target.Region != e.cfg.Region {
		return e.far
	}
	return e.relay
}

// connected is said by a carrier when the node has accepted.
func (e *Edge) connected(c *call) {
	e.counters.connected.Add(1)
	if c.target.Region != e.cfg.Region {
		e.counters.elsewhere.Add(1)
	}
	e.nodes.connected(c.target.Node)
}

// failed is said by a carrier when the node didn't, within its time. The call
// goes to the next nearest.
func (e *Edge) failed(c *call, err error) {
	e.counters.dialFailures.Add(1)
	e.nodes.failed(c.target.Node)
	e.log.Debug("edge can't dial a node", "node", c.target.Node, "err", err)
	c.tried = append(c.tried, c.target.Node)
	if e.ctx.Err() != nil {
		e.refuse(c, closing)
		return
	}
	e.connect(c)
}

// abandoned is said by a carrier instead of failed when the client is gone
// before there was a connection.
func (e *Edge) abandoned(c *call) {
	e.counters.abandoned.Add(1)
	e.nodes.ended(c.target.Node)
}

// ended is said by a carrier when both connections are closed.
func (e *Edge) ended(c *call) { e.nodes.ended(c.target.Node) }

// refuse resets a client's connection.
func (e *Edge) refuse(c *call, why refusal) {
	e.counters.refused[why].Add(1)
	c.conn.Reset()
}

// header is what the node is told about a call.
func (e *Edge) header(c *call) []byte {
	source, destination := c.conn.Source, c.conn.Destination
	switch {
	case e.cfg.ProxyVersion == 1:
		return proxyproto.AppendV1(nil, source, destination)
	case len(e.cfg.SignKey) > 0:
		return proxyproto.AppendSigned(nil, source, destination, nil, e.cfg.SignKey, time.Now())
	}
	return proxyproto.AppendV2(nil, source, destination, nil)
}

// proxy is the target's address; that it is one was checked with the route.
func (c *call) proxy() netip.AddrPort {
	addr, _ := netip.ParseAddrPort(c.target.Proxy)
	return addr
}
