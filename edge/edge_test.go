package edge

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vecino/api"
	"vecino/gossip"
	"vecino/link"
	"vecino/privnet"
	"vecino/proxyproto"
	"vecino/region"
)

// platform is a Platform that a test speaks through.
type platform struct {
	events  chan api.RouteEvent
	reports chan api.Edge
	gossip  []string
}

func newPlatform() *platform {
	return &platform{events: make(chan api.RouteEvent, 100), reports: make(chan api.Edge, 100)}
}

func (p *platform) WatchRoutes(ctx context.Context, r region.Code, fn func(api.RouteEvent) error) error {
	for {
		select {
		case e := <-p.events:
			if err := fn(e); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *platform) ReportEdge(ctx context.Context, e api.Edge) (api.EdgeSettings, error) {
	select {
	case p.reports <- e:
	default:
	}
	return api.EdgeSettings{Gossip: p.gossip}, nil
}

// echoNode is a node that sends back what it gets. Of each connection it tells
// the header first.
type echoNode struct {
	t        *testing.T
	name     string
	region   region.Code
	listener net.Listener
	calls    chan proxyproto.Header
	probes   chan struct{} // somebody who only looks
	tasks    sync.WaitGroup

	mu    sync.Mutex
	dead  bool
	conns []net.Conn
}

func newEchoNode(t *testing.T, name string, r region.Code) *echoNode {
	t.Helper()
	n := &echoNode{t: t, name: name, region: r, calls: make(chan proxyproto.Header, 100), probes: make(chan struct{}, 100)}
	n.listen(ownLoopback() + ":0")
	t.Cleanup(n.kill)
	return n
}

// ownLoopback is a loopback address that no other process uses, where the system has
// more than one: so that nobody takes the port of a node that was killed.
func ownLoopback() string {
	pid := os.Getpid()
	own := fmt.Sprintf("127.%d.%d.%d", 64+pid>>16&127, pid>>8&255, pid&255)
	l, err := net.Listen("tcp", own+":0")
	if err != nil {
		return "127.0.0.1"
	}
	l.Close()
	return own
}

func (n *echoNode) listen(addr string) {
	n.t.Helper()
	var err error
	if n.listener, err = net.Listen("tcp", addr); err != nil {
		n.t.Fatal(err)
	}
	n.dead = false
	n.tasks.Go(func() {
		for {
			conn, err := n.listener.Accept()
			if err != nil {
				return
			}
			n.mu.Lock()
			n.conns = append(n.conns, conn)
			if n.dead {
				n.reset()
			}
			n.mu.Unlock()
			n.tasks.Go(func() { n.serve(conn) })
		}
	})
}

func (n *echoNode) serve(conn net.Conn) {
	defer conn.Close()
	var buf []byte
	part := make([]byte, 4096)
	for {
		got, err := conn.Read(part)
		if err != nil {
			return
		}
		buf = append(buf, part[:got]...)
		h, used, err := proxyproto.Parse(buf)
		if errors.Is(err, proxyproto.ErrLocal) {
			n.probes <- struct{}{}
			return
		}
		if err != nil {
			n.t.Errorf("node %s gets %q: %v", n.name, buf, err)
			return
		}
		if used > 0 {
			n.calls <- h
			if rest := buf[used:]; len(rest) > 0 {
				conn.Write(rest)
			}
			break
		}
	}
	io.Copy(struct{ io.Writer }{conn}, conn)
}

// kill ends the node as a crash would, with a reset of its connections.
func (n *echoNode) kill() {
	n.listener.Close()
	n.mu.Lock()
	n.dead = true
	n.reset()
	n.mu.Unlock()
	n.tasks.Wait()
}

func (n *echoNode) reset() {
	for _, conn := range n.conns {
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
	n.conns = nil
}

func (n *echoNode) serving() api.Serving {
	return api.Serving{Region: n.region, Node: n.name, Proxy: n.listener.Addr().String()}
}

// rig is an edge in scl with its platform.
type rig struct {
	*testing.T
	*Edge
	platform *platform
	revision int64
}

var database = privnet.Mint(7, 2)

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := &rig{T: t, platform: newPlatform()}
	cfg := Config{ID: "scl-edge", Region: "scl", Platform: r.platform, Admin: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	e, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Edge = e
	t.Cleanup(func() { e.Close() })
	return r
}

// route tells the edge who serves a database, and waits until it knows.
func (r *rig) route(addr netip.Addr, nodes ...*echoNode) {
	r.Helper()
	route := api.Route{Address: addr, Loopback: map[region.Code]string{"scl": "127.0.0.1:0"}}
	for _, n := range nodes {
		route.Serving = append(route.Serving, n.serving())
	}
	r.tell(api.RouteEvent{Route: &route})
}

func (r *rig) tell(e api.RouteEvent) {
	r.Helper()
	r.revision++
	e.Revision = r.revision
	r.platform.events <- e
	for {
		select {
		case report := <-r.platform.reports:
			if report.Applied >= r.revision {
				return
			}
		case <-r.Context().Done():
			r.Fatal("the edge doesn't apply what it is told")
		}
	}
}

type client struct {
	*testing.T
	*net.TCPConn
	r *bufio.Reader
}

func (r *rig) dial() *client {
	r.Helper()
	conn, err := net.Dial("tcp", r.loopback.Addr(database).String())
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { conn.Close() })
	return &client{r.T, conn.(*net.TCPConn), bufio.NewReader(conn)}
}

// echo sends a line and expects it back.
func (c *client) echo(s string) {
	c.Helper()
	if _, err := io.WriteString(c, s+"\n"); err != nil {
		c.Fatal(err)
	}
	if line, err := c.r.ReadString('\n'); line != s+"\n" || err != nil {
		c.Fatalf("sent %q, got back %q, %v", s, line, err)
	}
}

func (c *client) expectReset() {
	c.Helper()
	if _, err := c.r.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		c.Errorf("the client sees %v instead of a reset", err)
	}
}

// expectRefusal dials and expects a reset, which may come before dialling is
// done.
func (r *rig) expectRefusal() {
	r.Helper()
	conn, err := net.Dial("tcp", r.loopback.Addr(database).String())
	if err == nil {
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		r.Errorf("the client sees %v instead of a reset", err)
	}
}

// at is where a call arrives: the name of the node.
func at(t *testing.T, nodes ...*echoNode) string {
	t.Helper()
	// One choice among all: who waited for each apart could take a call that comes later.
	cases := []reflect.SelectCase{{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(t.Context().Done())}}
	for _, n := range nodes {
		cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(n.calls)})
	}
	if i, _, _ := reflect.Select(cases); i > 0 {
		return nodes[i-1].name
	}
	return "nowhere"
}

func TestNodeIsToldWhoCallsWhom(t *testing.T) {
	key := []byte("a key of the edge and the node")
	for _, tc := range []struct {
		name   string
		change func(*Config)
	}{
		{"version 1", func(c *Config) { c.ProxyVersion = 1 }},
		{"version 2", func(c *Config) { c.ProxyVersion = 2 }},
		{"version 2, signed", func(c *Config) { c.ProxyVersion = 2; c.SignKey = key }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, tc.change)
			node := newEchoNode(t, "scl-1", "scl")
			r.route(database, node)
			c := r.dial()
			c.echo("hello")
			h := <-node.calls
			if h.Destination != netip.AddrPortFrom(database, 6379) {
				t.Errorf("destination %v", h.Destination)
			}
			source, _ := privnet.Parse(h.Source.Addr())
			if source.Network != 7 || source.Host == privnet.Databases || int(h.Source.Port()) != c.LocalAddr().(*net.TCPAddr).Port {
				t.Errorf("source %v", h.Source)
			}
			if signed := bytes.Contains(h.TLVs, []byte{proxyproto.TypeSignature, 0, 41}); signed != strings.Contains(tc.name, "signed") {
				t.Errorf("values %x", h.TLVs)
			}
		})
	}
}

func TestBytesArriveWhateverTheirNumber(t *testing.T) {
	for name, where := range map[string]region.Code{"by the relay": "scl", "over a distance": "gru"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.World = true })
			r.distance.SetDelay("scl", "gru", time.Millisecond)
			r.distance.SetDelay("gru", "scl", time.Millisecond)
			r.route(database, newEchoNode(t, "a", where))
			c := r.dial()
			sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // 8 MiB, more than all buffers hold
			done := make(chan error)
			go func() {
				_, err := c.Write(sent)
				if err == nil {
					err = c.CloseWrite()
				}
				done <- err
			}()
			got, err := io.ReadAll(c.r)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d bytes of %d came back, %v", len(got), len(sent), err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSlowClientHoldsUpItsNodeOnly(t *testing.T) {
	r := newRig(t, nil)
	// This node sends as much as it can, and tells when it can't any more.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	const total = 32 << 20
	wrote := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			conn.Read(make([]byte, proxyproto.MaxV1)) // the header; unread, closing would be a reset
			_, err = conn.Write(make([]byte, total))
			conn.Close()
		}
		wrote <- err
	}()
	route := api.Route{Address: database, Loopback: map[region.Code]string{"scl": "127.0.0.1:0"},
		Serving: []api.Serving{{Region: "scl", Node: "flood", Proxy: listener.Addr().String()}}}
	r.tell(api.RouteEvent{Route: &route})
	slow := r.dial()
	// Once the relay is blocked, somebody else is served.
	waitFor(t, func() bool { return r.counters.blocked.Load() > 0 })
	other := newEchoNode(t, "scl-1", "scl")
	r.route(database, other)
	quick := r.dial()
	for i := range 100 {
		quick.echo(fmt.Sprint(i))
	}
	if n := r.counters.toClients.Load(); n >= total {
		t.Errorf("%d bytes were taken for a client that doesn't read", n)
	}
	if n, err := io.Copy(io.Discard, slow.r); n != total || err != nil {
		t.Errorf("the slow client got %d bytes, %v", n, err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

// waitFor polls what no event tells. It has no time limit of its own.
func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !what() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("it never came true")
		}
	}
}

func TestEndsAndResetsArePassedOn(t *testing.T) {
	r := newRig(t, nil)
	node := newEchoNode(t, "scl-1", "scl")
	r.route(database, node)

	c := r.dial()
	c.echo("one")
	c.CloseWrite()
	if b, err := io.ReadAll(c.r); len(b) > 0 || err != nil {
		t.Errorf("after its end the client reads %q, %v", b, err)
	}
	waitFor(t, func() bool { return r.nodes.connections() == 0 })

	// The client's reset reaches the node, which is done with it then.
	c = r.dial()
	c.echo("two")
	c.SetLinger(0)
	c.Close()
	waitFor(t, func() bool { return r.nodes.connections() == 0 })
	if r.counters.reset[clientError].Load() != 1 {
		t.Error("the client's reset isn't counted")
	}

	// The node's reaches the client.
	c = r.dial()
	c.echo("three")
	node.kill()
	c.expectReset()
	if r.counters.reset[nodeError].Load() != 1 {
		t.Error("the node's reset isn't counted")
	}
}

func TestNextNearestWhenANodeDiesAndBackWhenItRecovers(t *testing.T) {
	for name, world := range map[string]bool{"by the relay": false, "in a simulated world": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.World = world })
			if world {
				for _, to := range []region.Code{"gru", "cdg"} {
					r.distance.SetDelay("scl", to, r.distance.Delay("scl", to)/20)
					r.distance.SetDelay(to, "scl", r.distance.Delay(to, "scl")/20)
				}
			}
			near, next, last := newEchoNode(t, "scl-1", "scl"), newEchoNode(t, "gru-1", "gru"), newEchoNode(t, "cdg-1", "cdg")
			r.route(database, last, next, near)
			call := func(want string) *client {
				t.Helper()
				c := r.dial()
				c.echo("hello")
				if got := at(t, near, next, last); got != want {
					t.Errorf("arrived at %s, want %s", got, want)
				}
				return c
			}
			addr := near.listener.Addr().String()
			c := call("scl-1")
			near.kill()
			c.expectReset()
			call("gru-1")
			next.kill()
			call("cdg-1")

			near.listen(addr)
			// The penalty is over at some time, and no event tells when.
			waitFor(t, func() bool {
				c := r.dial()
				c.echo("hello")
				return at(t, near, last) == "scl-1"
			})
			near.kill()
			last.kill()
			r.expectRefusal()
			if r.counters.refused[unreachable].Load() != 1 {
				t.Error("a call that no node takes isn't counted")
			}
		})
	}
}

func TestPoolTellsOfDeadNodes(t *testing.T) {
	open := func(id string) *gossip.Gossip {
		t.Helper()
		g, err := gossip.Open(gossip.Config{ID: id, Kind: gossip.Node, Region: "scl", Bind: "[::1]:0", Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { g.Close() })
		return g
	}
	member := open("scl-1")
	for name, world := range map[string]bool{"relay": false, "far": true} {
		t.Run(name, func(t *testing.T) {
			at := region.Code("scl")
			if world {
				at = "gru"
			}
			r := newRig(t, func(c *Config) {
				c.World = world
				c.ID += name
				c.GossipBind = "[::1]:0"
				c.GossipJoin = []string{member.Addr()}
			})
			waitFor(t, func() bool { return r.gossip.Alive("scl-1") })
			node := newEchoNode(t, "scl-1", at)
			r.route(database, node)
			c := r.dial()
			c.echo("hello")
			// The process hangs: its sockets are open, but the pool misses it.
			r.memberChanged(gossip.Change{What: gossip.Gone, Member: gossip.Member{ID: "scl-1", Kind: gossip.Node}})
			c.expectReset()
			if r.counters.reset[nodeGone].Load() != 1 {
				t.Error("it isn't counted")
			}
		})
	}
	t.Run("wrongly", func(t *testing.T) {
		r := newRig(t, nil)
		node := newEchoNode(t, "scl-1", "scl")
		r.route(database, node)
		c := r.dial()
		c.echo("hello")
		// It is asked, and answers; so its connections stay.
		r.memberChanged(gossip.Change{What: gossip.Gone, Member: gossip.Member{ID: "scl-1", Kind: gossip.Node, Proxy: node.serving().Proxy}})
		<-node.probes
		c.echo("still here")
		// And one that accepts and says nothing doesn't live.
		hung, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer hung.Close()
		r.memberChanged(gossip.Change{What: gossip.Gone, Member: gossip.Member{ID: "scl-1", Kind: gossip.Node, Proxy: hung.Addr().String()}})
		c.expectReset()
	})
	t.Run("for real", func(t *testing.T) {
		r := newRig(t, func(c *Config) {
			c.GossipBind = "[::1]:0"
			c.Platform.(*platform).gossip = []string{member.Addr()} // the platform tells where to join
		})
		waitFor(t, func() bool { return r.gossip.Alive("scl-1") })
		r.route(database, newEchoNode(t, "scl-1", "scl"))
		c := r.dial()
		c.echo("hello")
		if err := member.Close(); err != nil {
			t.Fatal(err)
		}
		c.expectReset()
	})
}

func TestCutRegionIsAvoided(t *testing.T) {
	r := newRig(t, func(c *Config) { c.World = true })
	for _, to := range []region.Code{"gru", "cdg"} {
		r.distance.SetDelay("scl", to, time.Millisecond)
		r.distance.SetDelay(to, "scl", time.Millisecond)
	}
	r.distance.SetDelay("scl", "cdg", 2*time.Millisecond)
	near, next := newEchoNode(t, "gru-1", "gru"), newEchoNode(t, "cdg-1", "cdg")
	r.route(database, near, next)
	r.distance.SetCut("gru", "scl", true)
	c := r.dial()
	c.echo("hello")
	if got := at(t, near, next); got != "cdg-1" {
		t.Errorf("arrived at %s", got)
	}
	// What is connected stands still when its way is cut, and goes on afterwards.
	r.distance.SetCut("cdg", "scl", true)
	io.WriteString(c, "held up\n")
	r.distance.SetCut("cdg", "scl", false)
	if line, err := c.r.ReadString('\n'); line != "held up\n" || err != nil {
		t.Errorf("after the healing comes %q, %v", line, err)
	}
}

func TestNetworksAreKeptApart(t *testing.T) {
	source := make(chan privnet.Conn)
	r := newRig(t, func(c *Config) { c.Source = sourceOf(source) })
	node := newEchoNode(t, "scl-1", "scl")
	route := api.Route{Address: database, Serving: []api.Serving{node.serving()}}
	r.tell(api.RouteEvent{Route: &route})
	for _, tc := range []struct {
		name         string
		source, dest netip.Addr
		ok           bool
	}{
		{"its own network", privnet.Machine(7, 9, 1), database, true},
		{"another database of it", privnet.Mint(7, 9), database, true},
		{"another network", privnet.Machine(8, 9, 1), database, false},
		{"no private network", netip.MustParseAddr("::1"), database, false},
		{"IPv4", netip.MustParseAddr("127.0.0.1"), database, false},
		{"a machine of its network", privnet.Machine(7, 9, 1), privnet.Machine(7, 9, 2), false},
	} {
		// A pipe is no socket of the kernel's, so the goroutines carry it.
		near, far := net.Pipe()
		source <- privnet.Conn{FD: -1, Net: far, Source: netip.AddrPortFrom(tc.source, 5000), Destination: netip.AddrPortFrom(tc.dest, 6379)}
		if tc.ok {
			c := &client{T: t, r: bufio.NewReader(near)}
			go io.WriteString(near, "hello\n")
			if line, err := c.r.ReadString('\n'); line != "hello\n" || err != nil {
				t.Errorf("from %s: %q, %v", tc.name, line, err)
			}
			if h := <-node.calls; h.Source.Addr() != tc.source || h.Destination.Addr() != tc.dest {
				t.Errorf("from %s: the node is told %v", tc.name, h)
			}
		} else if n, err := near.Read(make([]byte, 10)); n > 0 || err == nil {
			t.Errorf("from %s: the node answers", tc.name)
		}
		near.Close()
	}
	if n := r.counters.refused[foreign].Load(); n != 4 {
		t.Errorf("%d are counted", n)
	}
}

// sourceOf is a Source of whatever a test sends.
type sourceOf chan privnet.Conn

func (s sourceOf) Serve(ctx context.Context, accept func(privnet.Conn)) error {
	for {
		select {
		case c := <-s:
			accept(c)
		case <-ctx.Done():
			return nil
		}
	}
}

func TestConnectionWaitsForItsRoute(t *testing.T) {
	r := newRig(t, nil)
	r.route(database) // nobody serves it yet
	c := r.dial()
	waitFor(t, func() bool { return r.routes.holding() == 1 })
	node := newEchoNode(t, "scl-1", "scl")
	r.route(database, node)
	c.echo("hello")

	// It doesn't wait for ever.
	r.route(database)
	r.routes.patience = time.Millisecond
	r.expectRefusal()
	if r.counters.refused[noRoute].Load() != 1 {
		t.Error("it isn't counted")
	}
}

func TestRoutesComeAndGo(t *testing.T) {
	r := newRig(t, nil)
	node := newEchoNode(t, "scl-1", "scl")
	r.route(database, node)
	c := r.dial()
	c.echo("hello")
	at := r.loopback.Addr(database).String()
	r.tell(api.RouteEvent{Gone: &database})
	if conn, err := net.Dial("tcp", at); err == nil {
		conn.Close()
		t.Error("a destroyed database is listened for")
	}
	c.echo("those there are the node's business")
	// A route that makes no sense leaves what there is.
	r.tell(api.RouteEvent{Route: &api.Route{Address: netip.MustParseAddr("::1")}})
	r.tell(api.RouteEvent{Route: &api.Route{Address: database, Serving: []api.Serving{{Proxy: "nowhere"}}}})
	if r.routes.len() != 0 {
		t.Error("a bad route is taken")
	}
}

func TestAddressInUseIsTriedAgain(t *testing.T) {
	r := newRig(t, nil)
	squatter, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	node := newEchoNode(t, "scl-1", "scl")
	route := api.Route{Address: database, Serving: []api.Serving{node.serving()}, Loopback: map[region.Code]string{"scl": squatter.Addr().String()}}
	r.tell(api.RouteEvent{Route: &route})
	squatter.Close()
	waitFor(t, func() bool { return r.loopback.Addr(database).IsValid() })
	c := r.dial()
	c.echo("hello")
}

func TestHardLimit(t *testing.T) {
	r := newRig(t, func(c *Config) { c.SoftLimit, c.HardLimit = 1, 2 })
	near, next := newEchoNode(t, "scl-1", "scl"), newEchoNode(t, "gru-1", "gru")
	r.route(database, near, next)
	var all []*client
	for _, want := range []string{"scl-1", "scl-1", "gru-1", "gru-1"} {
		c := r.dial()
		c.echo("hello")
		if got := at(t, near, next); got != want {
			t.Errorf("arrived at %s, want %s", got, want)
		}
		all = append(all, c)
	}
	r.expectRefusal()
	if r.counters.refused[limited].Load() != 1 {
		t.Error("it isn't counted")
	}
	all[0].Close()
	waitFor(t, func() bool { return r.nodes.connections() == 3 })
	c := r.dial()
	c.echo("hello")
}

func TestRoutesSurviveARestartWithoutThePlatform(t *testing.T) {
	dir := t.TempDir()
	node := newEchoNode(t, "scl-1", "scl")
	r := newRig(t, func(c *Config) { c.StateDir = dir })
	r.route(database, node)
	other := privnet.Mint(7, 3)
	r.route(other, node)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	r = newRig(t, func(c *Config) { c.StateDir = dir })
	if err := r.Healthy(); err != nil {
		t.Errorf("with routes from before it isn't healthy: %v", err)
	}
	c := r.dial()
	c.echo("hello")
	// The platform is back, and one of the databases is no more.
	r.route(other, node)
	r.tell(api.RouteEvent{Synced: true})
	if r.routes.get(database) != nil || r.routes.get(other) == nil {
		t.Errorf("routes of %v are left", r.routes.addresses())
	}
	r.Close()

	r = newRig(t, func(c *Config) { c.StateDir = dir; c.Platform = nil })
	if r.routes.len() != 1 {
		t.Errorf("%d routes were kept", r.routes.len())
	}
}

func TestAdmin(t *testing.T) {
	r := newRig(t, func(c *Config) { c.World = true })
	url := "http://" + r.AdminAddr()
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if code, body := get("/healthz"); code != http.StatusServiceUnavailable {
		t.Errorf("before any routes: %d %s", code, body)
	}
	r.tell(api.RouteEvent{Synced: true})
	if code, body := get("/healthz"); code != http.StatusOK {
		t.Errorf("synced: %d %s", code, body)
	}
	node := newEchoNode(t, "scl-1", "scl")
	r.route(database, node)
	c := r.dial()
	c.echo("hello")
	_, metrics := get("/metrics")
	for _, want := range []string{
		"vecino_edge_accepted_total 1", "vecino_edge_connections 1", "vecino_edge_routes 1",
		`vecino_edge_bytes_total{to="clients"} 6`, `vecino_edge_refused_total{reason="foreign"} 0`,
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("metrics lack %q", want)
		}
	}
	put := func(body string) int {
		t.Helper()
		req, _ := http.NewRequest("PUT", url+"/world", strings.NewReader(body))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if code := put("nonsense"); code != http.StatusBadRequest {
		t.Errorf("a bad world: %d", code)
	}
	want := link.NewDistance([]region.Code{"scl", "gru"}, func(_, _ region.Code) time.Duration { return 5 * time.Second })
	b, _ := want.MarshalJSON()
	if code := put(string(b)); code != http.StatusNoContent || r.distance.Delay("scl", "gru") != 5*time.Second {
		t.Errorf("a new world: %d, gru at %v", code, r.distance.Delay("scl", "gru"))
	}
}

func TestCloseResetsAll(t *testing.T) {
	r := newRig(t, func(c *Config) { c.World = true })
	near, far := newEchoNode(t, "scl-1", "scl"), newEchoNode(t, "gru-1", "gru")
	r.distance.SetDelay("scl", "gru", time.Millisecond)
	r.distance.SetDelay("gru", "scl", time.Millisecond)
	var all []*client
	for _, n := range []*echoNode{near, far} {
		r.route(database, n)
		c := r.dial()
		c.echo("hello")
		all = append(all, c)
	}
	r.route(database)
	all = append(all, r.dial())
	waitFor(t, func() bool { return r.routes.holding() == 1 })
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	for _, c := range all {
		c.expectReset()
	}
}

func TestOpenChecksItsConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no ID":            {Region: "scl", Platform: newPlatform()},
		"no region":        {ID: "a", Platform: newPlatform()},
		"no routes":        {ID: "a", Region: "scl"},
		"version 3":        {ID: "a", Region: "scl", Platform: newPlatform(), ProxyVersion: 3},
		"signed version 1": {ID: "a", Region: "scl", Platform: newPlatform(), SignKey: []byte("k")},
		"hard below soft":  {ID: "a", Region: "scl", Platform: newPlatform(), SoftLimit: 2, HardLimit: 1},
		"bad admin":        {ID: "a", Region: "scl", Platform: newPlatform(), Admin: "nowhere"},
		"bad gossip":       {ID: "a", Region: "scl", Platform: newPlatform(), GossipBind: "nowhere"},
	} {
		cfg.Log = slog.New(slog.DiscardHandler)
		if e, err := Open(cfg); err == nil {
			e.Close()
			t.Errorf("%s is taken", name)
		}
	}
}
