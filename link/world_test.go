package link

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vecino/catalog"
	"vecino/region"
)

// world is a few hubs in one bubble, over pipes, with a distance between them.
type world struct {
	*testing.T
	net   memNet
	d     *Distance
	nodes map[string]*testNode
}

type testNode struct {
	*Hub
	*recorder
	name string
}

func inWorld(t *testing.T, run func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, d: new(Distance), nodes: map[string]*testNode{}}
		w.net.listeners = map[string]*memListener{}
		w.net.dials = map[string]int{}
		run(w)
		for _, n := range w.nodes {
			n.release()
		}
		for _, n := range w.nodes {
			n.Close()
		}
		for _, n := range w.nodes {
			n.checkShape(t)
		}
	})
}

// boot starts a node. Its region has its name.
func (w *world) boot(name string, boot uint64, edit ...func(*Config)) *testNode {
	w.Helper()
	n := w.open(name, boot, edit...)
	w.nodes[name] = n
	return n
}

func (w *world) open(name string, boot uint64, edit ...func(*Config)) *testNode {
	w.Helper()
	r := &recorder{}
	cfg := Config{
		Node: name, Region: region.Code(name), Boot: boot, Distance: w.d, Handler: r,
		Logger: slog.New(slog.DiscardHandler), Dial: w.net.dial, Listener: w.net.listen(name),
	}
	for _, e := range edit {
		e(&cfg)
	}
	h, err := Open(cfg)
	if err != nil {
		w.Fatal(err)
	}
	return &testNode{Hub: h, recorder: r, name: name}
}

// meet tells all nodes of each other, and waits until nothing moves. Who is
// dialled is told first, so that nobody has to dial twice.
func (w *world) meet() {
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(w.nodes))) {
		w.nodes[name].SetPeers(w.records())
	}
	synctest.Wait()
}

func (w *world) records() (all []catalog.Node) {
	for name := range w.nodes {
		all = append(all, catalog.Node{ID: name, Region: region.Code(name), Link: name})
	}
	return all
}

// pass lets time go by, in the bubble.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) cut(from, to region.Code, cut bool) { w.d.SetCut(from, to, cut) }

func (w *world) mustSend(n *testNode, to string, lane Lane, db catalog.ID, payload string) {
	w.Helper()
	if !n.Send(to, lane, Frame{Kind: 7, DB: db, Payload: []byte(payload)}) {
		w.Fatalf("%s can't send to %s on the %v lane", n.name, to, lane)
	}
}

// recorder is a handler that writes down what it hears. Its frames can be held.
type recorder struct {
	mu     sync.Mutex
	events []heard
	gate   chan struct{} // when set, Frame waits for it to be closed
	onUp   func(node string)
}

type heard struct {
	what    string // up, down, frame
	node    string
	boot    uint64
	cause   error
	lane    Lane
	kind    uint8
	db      catalog.ID
	payload string
}

func (e heard) String() string {
	switch e.what {
	case "up":
		return fmt.Sprintf("up %s/%d", e.node, e.boot)
	case "down":
		return fmt.Sprintf("down %s: %v", e.node, e.cause)
	}
	return fmt.Sprintf("%s %v db%d %.20s", e.node, e.lane, e.db, e.payload)
}

func (r *recorder) add(e heard) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) LinkUp(node string, boot uint64) {
	r.add(heard{what: "up", node: node, boot: boot})
	if r.onUp != nil {
		r.onUp(node)
	}
}

func (r *recorder) LinkDown(node string, cause error) {
	r.add(heard{what: "down", node: node, cause: cause})
}

func (r *recorder) Frame(node string, lane Lane, f Frame) {
	r.mu.Lock()
	gate := r.gate
	r.mu.Unlock()
	if gate != nil {
		<-gate
	}
	r.add(heard{what: "frame", node: node, lane: lane, kind: f.Kind, db: f.DB, payload: string(f.Payload)})
}

func (r *recorder) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gate = make(chan struct{})
}

func (r *recorder) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gate != nil {
		close(r.gate)
		r.gate = nil
	}
}

func (r *recorder) take() []heard {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// links is the story of ups and downs, without frames.
func (r *recorder) links() string {
	var all []string
	for _, e := range r.take() {
		if e.what != "frame" {
			all = append(all, e.what)
		}
	}
	return strings.Join(all, " ")
}

func (r *recorder) lastCause() error {
	for _, e := range slices.Backward(r.take()) {
		if e.what == "down" {
			return e.cause
		}
	}
	return nil
}

func (r *recorder) frames(lane Lane, db catalog.ID) (payloads []string) {
	for _, e := range r.take() {
		if e.what == "frame" && e.lane == lane && e.db == db {
			payloads = append(payloads, e.payload)
		}
	}
	return payloads
}

// checkShape holds what was heard to the promise: up, frames, down, for each
// node, again and again, and down at the end.
func (r *recorder) checkShape(t *testing.T) {
	t.Helper()
	up := map[string]bool{}
	for _, e := range r.take() {
		if up[e.node] == (e.what == "up") {
			t.Errorf("%v while up is %v", e, up[e.node])
		}
		if e.what != "frame" {
			up[e.node] = e.what == "up"
		}
	}
	for node, is := range up {
		if is {
			t.Errorf("the link to %s never went down", node)
		}
	}
}

// memNet is a network of pipes.
type memNet struct {
	mu        sync.Mutex
	listeners map[string]*memListener
	dials     map[string]int // by address
	conns     []net.Conn     // of who dialled, in order
}

type memListener struct {
	name   string
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (m *memNet) listen(name string) net.Listener {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &memListener{name: name, conns: make(chan net.Conn), closed: make(chan struct{})}
	m.listeners[name] = l
	return l
}

func (m *memNet) dial(ctx context.Context, address string) (net.Conn, error) {
	m.mu.Lock()
	l := m.listeners[address]
	m.dials[address]++
	m.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("nobody listens at %q", address)
	}
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		m.mu.Lock()
		defer m.mu.Unlock()
		m.conns = append(m.conns, near)
		return near, nil
	case <-l.closed:
		return nil, fmt.Errorf("%q is closed", address)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *memListener) Addr() net.Addr { return memAddr(l.name) }

type memAddr string

func (a memAddr) Network() string { return "mem" }
func (a memAddr) String() string  { return string(a) }
