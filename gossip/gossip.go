// Package gossip knows which nodes and edges are alive, where they are, and how
// far away.
//
// Every node and edge opens one [Gossip] and so joins one pool, in which each
// member probes some others and passes on what it hears. Edges choose nodes by
// it and drop the connections of a dead one; the fleet sees who is there. What
// must be agreed on, positions and ownership, is never in it: a pool is a hint,
// and two members may see different ones for a second.
//
// The probing, suspicion and spreading are hashicorp/memberlist's (SWIM with
// Lifeguard), over IPv6 and set to notice a death within about a second on a
// local network. What this package adds is what a member says about itself
// (meta.go), a member list that can be read without a lock inside the pool's,
// changes in order, and joining again: a pool that was split stays split unless
// somebody dials across.
package gossip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"vecino/region"
)

// Config is what a member says of itself and how it finds the others.
type Config struct {
	// ID names the member in the pool. Two with the same one fight for it.
	ID     string
	Kind   Kind
	Region region.Code
	Proxy  string // a node's listener for edges, host:port

	// Bind is the address for the pool's UDP and TCP, "[::1]:7946". Port 0 takes
	// any, which Addr tells; a member that restarts should come back to its own.
	Bind string
	// Join lists the Bind addresses of others, all that are known. None of them
	// needs to be up: those that aren't in the pool are dialled again from time
	// to time, so more of them cost a refused connection now and then and buy a
	// pool that grows together after a split.
	Join []string
	// Pool keeps pools apart that can reach each other: packets of another one
	// are dropped. Empty is a pool as well.
	Pool string
	// Key, of 16, 24 or 32 bytes, encrypts the pool. Empty: it isn't.
	Key []byte

	Log *slog.Logger // nil: slog.Default()
}

// Member is one of the pool as it was last heard of.
type Member struct {
	ID       string
	Kind     Kind
	Region   region.Code
	Proxy    string // a node's listener for edges
	Addr     string // its Bind address
	Load     float64
	Healthy  bool // its own judgement
	Draining bool // it wants no new connections
	// RTT is the last measured round trip to it, 0 if it wasn't measured yet.
	RTT time.Duration
}

// Kind is what a member does.
type Kind string

const (
	Node Kind = "node"
	Edge Kind = "edge"
)

// Change is one thing that happened to the pool.
type Change struct {
	What   What
	Member Member // as it is after the change; of one that is gone, as it was
}

// What happened to a member.
type What string

const (
	Joined  What = "joined"
	Updated What = "updated" // it says something else about itself
	Gone    What = "gone"    // it doesn't answer, or has said goodbye
)

// How the pool is tuned. A death is noticed when somebody's turn comes to probe
// the dead (on average 1.5 probe intervals in a small pool), the probe has
// failed (one interval), and the suspicion was not denied (three).
const (
	probeInterval  = 200 * time.Millisecond
	probeTimeout   = 120 * time.Millisecond
	suspicionMult  = 3
	gossipInterval = 100 * time.Millisecond
	tcpTimeout     = time.Second

	// joinPause is between two attempts to reach those that aren't in the pool;
	// a member that is alone tries four times as often.
	joinPause    = 2 * time.Second
	joinsAtOnce  = 3
	publishPause = 500 * time.Millisecond // between two new loads
	leaveTimeout = 500 * time.Millisecond
)

// Gossip is a membership in the pool.
type Gossip struct {
	cfg    Config
	log    *slog.Logger
	list   *memberlist.Memberlist
	addr   string // where the others reach this member
	cancel context.CancelFunc
	done   <-chan struct{}
	tasks  sync.WaitGroup
	once   sync.Once     // for end
	kick   chan struct{} // tells publishLoop that self has changed
	rejoin chan struct{} // tells joinLoop that the list has changed
	news   chan struct{} // tells dispatchLoop of changes

	mu struct {
		sync.Mutex
		self    meta // what we say of ourselves
		join    []string
		members map[string]Member // the living, ourselves included
		rtt     map[string]time.Duration
		changes []Change // not dispatched yet
	}

	subscribers struct {
		sync.Mutex // held while one is called, so that a cancelled one isn't running
		next       int
		fn         map[int]func(Change)
	}
}

// Open joins the pool. It returns when the member can be heard; others are met
// in the background.
func Open(cfg Config) (*Gossip, error) {
	g := &Gossip{
		cfg:    cfg,
		log:    cmp.Or(cfg.Log, slog.Default()),
		kick:   make(chan struct{}, 1),
		rejoin: make(chan struct{}, 1),
		news:   make(chan struct{}, 1),
	}
	g.mu.self = meta{Kind: cfg.Kind, Region: cfg.Region, Proxy: cfg.Proxy, Healthy: true}
	g.mu.join = slices.Clone(cfg.Join)
	g.mu.members = make(map[string]Member)
	g.mu.rtt = make(map[string]time.Duration)
	g.subscribers.fn = make(map[int]func(Change))
	if _, err := g.mu.self.encode(); err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	mc, err := g.memberlistConfig()
	if err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	if g.list, err = memberlist.Create(mc); err != nil {
		return nil, fmt.Errorf("open gossip on %s: %w", cfg.Bind, err)
	}
	g.addr = g.list.LocalNode().Address() // later it may be being written to
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel, g.done = cancel, ctx.Done()
	g.tasks.Go(g.joinLoop)
	g.tasks.Go(g.publishLoop)
	g.tasks.Go(g.dispatchLoop)
	return g, nil
}

func (g *Gossip) memberlistConfig() (*memberlist.Config, error) {
	host, port, err := net.SplitHostPort(g.cfg.Bind)
	if err != nil {
		return nil, fmt.Errorf("bind address: %w", err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("bind address: %w", err)
	}
	if g.cfg.ID == "" {
		return nil, errors.New("a member needs an ID")
	}
	mc := memberlist.DefaultLANConfig()
	mc.Name = g.cfg.ID
	mc.BindAddr, mc.BindPort = host, int(number)
	mc.AdvertisePort = int(number)
	mc.Label = g.cfg.Pool
	mc.SecretKey = g.cfg.Key
	mc.TCPTimeout = tcpTimeout
	mc.ProbeInterval, mc.ProbeTimeout = probeInterval, probeTimeout
	mc.SuspicionMult, mc.SuspicionMaxTimeoutMult = suspicionMult, 2
	mc.AwarenessMaxMultiplier = 4 // how much slower a member gets that finds itself overloaded
	mc.GossipInterval = gossipInterval
	mc.GossipToTheDeadTime = 10 * time.Second // so that those who were wrongly called dead can deny it
	mc.PushPullInterval = 10 * time.Second
	mc.DeadNodeReclaimTime = time.Second // a restarted member may come back elsewhere
	mc.UDPBufferSize = 1232              // fits the smallest MTU of IPv6
	mc.EnableCompression = false         // of messages of a hundred bytes it costs more than it saves
	mc.Delegate = delegate{g}
	mc.Events = delegate{g}
	mc.Ping = delegate{g}
	mc.Logger = log.New(logWriter{g.log}, "", 0)
	mc.LogOutput = nil
	return mc, nil
}

// Addr is where the others reach this member: Bind with the port filled in.
func (g *Gossip) Addr() string { return g.addr }

// Members returns the living, this one included, by ID.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := slices.Collect(maps.Values(g.mu.members))
	for i := range list {
		list[i].RTT = g.mu.rtt[list[i].ID]
	}
	slices.SortFunc(list, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Alive reports whether a member is in the pool. One that was never heard of
// isn't.
func (g *Gossip) Alive(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.mu.members[id]
	return ok
}

// Subscribe calls fn with every member there is, as Joined, and with every
// change from then on, in order, on a goroutine of this Gossip's. fn must not
// block for long, nor call Subscribe or its cancel. After cancel has returned
// fn isn't called any more.
func (g *Gossip) Subscribe(fn func(Change)) (cancel func()) {
	// With mu held too, no change falls between the list and the subscription;
	// those not dispatched yet are in both, and come twice.
	g.subscribers.Lock()
	defer g.subscribers.Unlock()
	g.mu.Lock()
	members := slices.Collect(maps.Values(g.mu.members))
	g.mu.Unlock()
	id := g.subscribers.next
	g.subscribers.next++
	g.subscribers.fn[id] = fn
	for _, m := range members {
		fn(Change{Joined, m})
	}
	return func() {
		g.subscribers.Lock()
		defer g.subscribers.Unlock()
		delete(g.subscribers.fn, id)
	}
}

// UpdateLoad tells the pool how busy this member is; the number's meaning is up
// to those who write and read it. It returns at once.
func (g *Gossip) UpdateLoad(load float64) { g.update(func(m *meta) { m.Load = load }) }

// SetHealthy tells the pool whether this member can do its work.
func (g *Gossip) SetHealthy(healthy bool) { g.update(func(m *meta) { m.Healthy = healthy }) }

// SetDraining tells the pool whether this member wants no new connections.
func (g *Gossip) SetDraining(draining bool) { g.update(func(m *meta) { m.Draining = draining }) }

func (g *Gossip) update(change func(*meta)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.mu.self
	change(&g.mu.self)
	if g.mu.self != before {
		signal(g.kick)
	}
}

// SetJoin replaces the addresses of Config.Join.
func (g *Gossip) SetJoin(addrs []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !slices.Equal(g.mu.join, addrs) {
		g.mu.join = slices.Clone(addrs)
		signal(g.rejoin)
	}
}

// Close says goodbye to the pool and leaves it.
func (g *Gossip) Close() error { return g.end(true) }

// end stops everything, with a goodbye or as a crash would, once.
func (g *Gossip) end(goodbye bool) (err error) {
	g.once.Do(func() {
		g.cancel()
		g.tasks.Wait()
		if goodbye {
			g.list.Leave(leaveTimeout) // its error is that not everybody heard it in time
		}
		if err = g.list.Shutdown(); err != nil {
			err = fmt.Errorf("close gossip: %w", err)
		}
	})
	return err
}

// joinLoop dials those of the join list that aren't in the pool, a few at a
// time, for ever: all at first, then in turns.
func (g *Gossip) joinLoop() {
	turn := 0
	for first := true; ; first = false {
		missing, alone := g.missing()
		if n := len(missing); n > joinsAtOnce && !first {
			turn %= n
			missing = slices.Concat(missing[turn:], missing[:turn])[:joinsAtOnce]
			turn += joinsAtOnce
		}
		for _, addr := range missing {
			if g.closing() {
				return
			}
			if _, err := g.list.Join([]string{addr}); err != nil {
				g.log.Debug("gossip could not join", "addr", addr, "err", err)
			}
		}
		pause := joinPause
		if alone {
			pause /= 4
		}
		select {
		case <-time.After(pause):
		case <-g.rejoin:
			first = true
		case <-g.done:
			return
		}
	}
}

func (g *Gossip) closing() bool {
	select {
	case <-g.done:
		return true
	default:
		return false
	}
}

// missing returns those of the join list that aren't in the pool, and whether
// this member is alone in it.
func (g *Gossip) missing() (addrs []string, alone bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	here := make(map[string]bool)
	for _, m := range g.mu.members {
		here[m.Addr] = true
	}
	for _, addr := range g.mu.join {
		if !here[canonical(addr)] {
			addrs = append(addrs, addr)
		}
	}
	return addrs, len(g.mu.members) <= 1
}

// canonical spells an address as the pool does, if it is one of numbers.
func canonical(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && ip != nil {
		return net.JoinHostPort(ip.String(), port)
	}
	return addr
}

// publishLoop tells the pool what this member says of itself, when it has
// changed and not too often.
func (g *Gossip) publishLoop() {
	for {
		select {
		case <-g.kick:
		case <-g.done:
			return
		}
		// The error is that not everybody has been told in time; they will be.
		g.list.UpdateNode(leaveTimeout)
		select {
		case <-time.After(publishPause):
		case <-g.done:
			return
		}
	}
}

// dispatchLoop hands changes to the subscribers.
func (g *Gossip) dispatchLoop() {
	for {
		select {
		case <-g.news:
		case <-g.done:
			return
		}
		g.mu.Lock()
		changes := g.mu.changes
		g.mu.changes = nil
		g.mu.Unlock()
		g.subscribers.Lock()
		for _, c := range changes {
			for _, fn := range g.subscribers.fn {
				fn(c)
			}
		}
		g.subscribers.Unlock()
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// delegate is what memberlist calls. It may hold its own lock then, so nothing
// here calls back into it.
type delegate struct{ g *Gossip }

var (
	_ memberlist.Delegate      = delegate{}
	_ memberlist.EventDelegate = delegate{}
	_ memberlist.PingDelegate  = delegate{}
)

func (d delegate) NodeMeta(limit int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	b, err := d.g.mu.self.encode()
	if err != nil { // excluded by Open; only numbers have changed since
		return nil
	}
	return b
}

func (d delegate) NotifyJoin(n *memberlist.Node)   { d.heard(n, Joined) }
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.heard(n, Updated) }

// heard notes a member. One whose meta can't be read, say of a later version,
// isn't one until it can.
func (d delegate) heard(n *memberlist.Node, what What) {
	var said meta
	if err := said.decode(n.Meta); err != nil {
		d.g.log.Warn("gossip: unreadable member", "member", n.Name, "err", err)
		d.NotifyLeave(n)
		return
	}
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	m := Member{
		ID:       n.Name,
		Kind:     said.Kind,
		Region:   said.Region,
		Proxy:    said.Proxy,
		Addr:     n.Address(),
		Load:     said.Load,
		Healthy:  said.Healthy,
		Draining: said.Draining,
	}
	if _, ok := d.g.mu.members[n.Name]; !ok {
		what = Joined
	}
	d.g.mu.members[n.Name] = m
	d.g.noteLocked(Change{what, m})
}

func (d delegate) NotifyLeave(n *memberlist.Node) {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	m, ok := d.g.mu.members[n.Name]
	if !ok {
		return
	}
	delete(d.g.mu.members, n.Name)
	delete(d.g.mu.rtt, n.Name)
	d.g.noteLocked(Change{Gone, m})
}

func (g *Gossip) noteLocked(c Change) {
	g.mu.changes = append(g.mu.changes, c)
	signal(g.news)
}

func (d delegate) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, payload []byte) {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	d.g.mu.rtt[n.Name] = rtt
}

// The rest of memberlist's interfaces isn't used.
func (delegate) NotifyMsg([]byte)                {}
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (delegate) LocalState(bool) []byte          { return nil }
func (delegate) MergeRemoteState([]byte, bool)   {}
func (delegate) AckPayload() []byte              { return nil }

// logWriter turns memberlist's lines into events. It is talkative about what is
// the normal life of a pool, so all but its errors are for debugging.
type logWriter struct{ log *slog.Logger }

var _ io.Writer = logWriter{}

func (w logWriter) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	level := slog.LevelDebug
	// A failed push or pull with a member that has just died is an error to
	// memberlist, too; that it died is said once, by those who watch the pool.
	if strings.HasPrefix(text, "[ERR]") && !strings.Contains(text, "ush/pull") && !strings.Contains(text, "refused") {
		level = slog.LevelWarn
	}
	if _, rest, ok := strings.Cut(text, "] "); ok {
		text = rest
	}
	w.log.Log(context.Background(), level, "gossip", "event", strings.TrimPrefix(text, "memberlist: "))
	return len(line), nil
}
