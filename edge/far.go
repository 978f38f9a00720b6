package edge

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"vecino/link"
)

// far carries calls on goroutines of package net's connections: to nodes in
// other regions of a simulated world, where it adds the distance in both
// directions, and for sources that have no sockets of the kernel's.
//
// The node doesn't know of the distance: the edge delays what it writes to the
// node, and what it passes on to the client. So does the node's side of the
// connection's beginning: dialling takes a round trip, and nothing comes over
// a cut.
type far struct {
	edge  *Edge
	tasks sync.WaitGroup
	mu    struct {
		sync.Mutex
		calls  map[*call]context.CancelCauseFunc
		closed bool
	}
}

var (
	errNodeGone = errors.New("the pool misses the node")
	errClosing  = errors.New("the edge closes")
)

func newFar(e *Edge) *far {
	f := &far{edge: e}
	f.mu.calls = make(map[*call]context.CancelCauseFunc)
	return f
}

func (f *far) carry(c *call) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.closed {
		f.edge.nodes.ended(c.target.Node)
		f.edge.refuse(c, closing)
		return
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	f.mu.calls[c] = cancel
	f.tasks.Go(func() { f.run(ctx, c) })
}

func (f *far) resetNode(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c, cancel := range f.mu.calls {
		if c.target.Node == id {
			cancel(errNodeGone)
		}
	}
}

func (f *far) close() {
	f.mu.Lock()
	f.mu.closed = true
	for _, cancel := range f.mu.calls {
		cancel(errClosing)
	}
	f.mu.Unlock()
	f.tasks.Wait()
}

func (f *far) run(ctx context.Context, c *call) {
	node, err := f.dial(ctx, c)
	if err != nil {
		f.done(c)
		f.edge.failed(c, err)
		return
	}
	client, err := c.conn.NetConn()
	if err != nil { // no more descriptors; the client's is closed
		node.Close()
		f.done(c)
		f.edge.abandoned(c)
		return
	}
	f.edge.connected(c)
	f.relay(ctx, c, client, node)
	f.done(c)
	f.edge.ended(c)
}

// done forgets a call, before anybody else gets it.
func (f *far) done(c *call) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.calls[c](nil)
	delete(f.mu.calls, c)
}

// dial connects to the node, in the time that it takes over the distance.
func (f *far) dial(ctx context.Context, c *call) (net.Conn, error) {
	patience := connectTimeout
	if f.edge.distance != nil { // the simulated one can be any
		patience += f.edge.roundTrip(c.target.Region)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := f.edge.distance.Connect(ctx, f.edge.cfg.Region, c.target.Region); err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", c.target.Proxy)
}

// relay moves bytes until both streams have ended or one side is broken.
func (f *far) relay(ctx context.Context, c *call, client, node net.Conn) {
	here, there := f.edge.cfg.Region, c.target.Region
	toNode := link.Shape(node, here, there, f.edge.distance)
	toClient := link.Shape(client, there, here, f.edge.distance)

	// Whoever finds a reason to reset does it on both below the distance: a
	// reset doesn't wait for what is under way.
	var once sync.Once
	resetBoth := func(why reset) {
		once.Do(func() {
			f.edge.counters.reset[why].Add(1)
			for _, conn := range []net.Conn{client, node} {
				if tcp, ok := conn.(interface{ SetLinger(int) error }); ok {
					tcp.SetLinger(0)
				}
				conn.Close()
			}
		})
	}
	stop := context.AfterFunc(ctx, func() {
		if context.Cause(ctx) == errNodeGone {
			resetBoth(nodeGone)
		} else {
			resetBoth(edgeClosing)
		}
	})
	defer stop()

	var tasks sync.WaitGroup
	tasks.Go(func() {
		if _, err := toNode.Write(f.edge.header(c)); err != nil {
			resetBoth(nodeError)
			return
		}
		read, write := pass(toNode, toClient, &f.edge.counters.toNodes)
		switch {
		case read != nil:
			resetBoth(clientError)
		case write != nil:
			resetBoth(nodeError)
		}
	})
	tasks.Go(func() {
		read, write := pass(toClient, toNode, &f.edge.counters.toClients)
		switch {
		case read != nil:
			resetBoth(nodeError)
		case write != nil:
			resetBoth(clientError)
		default:
			client.SetReadDeadline(time.Now().Add(lingerTime))
		}
	})
	tasks.Wait()
	once.Do(func() {}) // what is under way may still arrive
	toNode.Close()
	toClient.Close()
}

// pass copies one stream to its end and ends the other with it. The error is of
// the side that it happened on.
func pass(to, from net.Conn, bytes *atomic.Int64) (read, write error) {
	buf := make([]byte, 32<<10)
	for {
		got, err := from.Read(buf)
		if got > 0 {
			if _, err := to.Write(buf[:got]); err != nil {
				return nil, err
			}
			bytes.Add(int64(got))
		}
		switch {
		case err == io.EOF:
			if half, ok := to.(interface{ CloseWrite() error }); ok {
				return nil, half.CloseWrite()
			}
			return nil, to.Close()
		case err != nil:
			return err, nil
		}
	}
}
