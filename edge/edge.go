// Package edge is the private-network proxy: it accepts connections on
// databases' addresses, picks the nearest node, and splices bytes.
//
// An edge is one process in one region. Connections come from a privnet.Source
// with the address that was dialled; routes from the platform say which nodes
// serve it; gossip says which of those are alive. The nearest is told by a PROXY
// header who called whom, and from then on the edge only moves bytes. It never
// parses Redis, and it doesn't import anything that could.
//
//	Source ─ accept ─ routes ─ pick ─ carrier: relay  ─ node
//	                    │       │            far      ─ node in another region of a simulated world
//	                platform  gossip         (handover: the socket itself, to a node on this machine)
//
// A connection that is on its way to a node is a call (call.go); a carrier dials
// and carries it (relay_linux.go, far.go), and hands it back when the node can't be
// reached, for the next nearest. Routes are kept on disk, so that an edge which
// starts without its platform serves what it last knew.
//
// That source, destination and route are of one network is checked here, and
// again, without trust in this, where packets enter and at the node.
package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vecino/api"
	"vecino/gossip"
	"vecino/internal/httpd"
	"vecino/link"
	"vecino/privnet"
	"vecino/region"
)

// Config is what an edge needs to know.
type Config struct {
	ID     string // its name in the pool and at the platform
	Region region.Code

	// PlatformURL and Token are where routes come from. Without a URL the edge
	// serves the routes in StateDir for ever.
	PlatformURL string
	Token       string

	// GossipBind and GossipJoin are as gossip.Config's Bind and Join; what the
	// platform knows of others is added. Without a bind address every node is
	// taken for alive until it can't be dialled.
	GossipBind string
	GossipJoin []string
	Pool       string // as gossip.Config's

	// Admin is host:port for /healthz, /metrics and, with World, PUT /world.
	// Empty: nowhere.
	Admin string

	// Endpoint is where tenants reach this edge, as it tells the platform.
	Endpoint string

	// ProxyVersion of the headers, 1 or 2; 0 is 1. Any server that speaks PROXY
	// knows 1; 2 is shorter to parse and can be signed.
	ProxyVersion int
	// SignKey signs headers of version 2. The nodes must have it, too.
	SignKey []byte

	// World makes regions as far from each other as they are, or as PUT /world
	// says. It costs goroutines and copies for each connection to another region,
	// and belongs into simulations only.
	World bool

	// StateDir keeps the routes over a restart. Empty: they aren't kept.
	StateDir string

	// SoftLimit and HardLimit are connections to one node. Above the soft one
	// another node in the same region gets new connections; at the hard one the
	// node gets none, and with no other they are reset. 0: 10,000 and 12,500.
	SoftLimit, HardLimit int

	// Loops is how many event loops relay bytes, each on a thread of its own.
	// More of them use more cores; one is enough for some hundred thousand small
	// packets a second. 0: one for every two cores.
	Loops int

	Log *slog.Logger // nil: slog.Default()

	// The following are for tests, and for daemons that bring their own.
	Platform Platform       // instead of PlatformURL
	Source   privnet.Source // instead of the loopback driver
}

// Platform is what an edge asks of the platform; *api.Platform is one.
type Platform interface {
	WatchRoutes(ctx context.Context, r region.Code, fn func(api.RouteEvent) error) error
	ReportEdge(ctx context.Context, e api.Edge) (api.EdgeSettings, error)
}

var _ Platform = (*api.Platform)(nil)

const (
	// holdTime is how long a connection waits for the route it needs: a database
	// that was created this moment may be dialled before its route has come.
	holdTime = 2 * time.Second
	// maxHeld bounds how many do so.
	maxHeld = 1024
	// connectTimeout is how long a node may take to accept before the next one
	// is tried. It is above every round trip on earth and leaves time for the
	// next within a second.
	connectTimeout = 700 * time.Millisecond
	// lingerTime is how long a client may keep its half of a connection open
	// after the node has closed the other.
	lingerTime = 5 * time.Second

	reportPause    = 3 * time.Second       // between reports to the platform
	reportDelay    = 20 * time.Millisecond // after new routes, for more to come
	savePause      = 500 * time.Millisecond
	listenPause    = 250 * time.Millisecond // between attempts to listen where one couldn't
	softLimit      = 10_000
	hardLimit      = 12_500
	requestTimeout = 5 * time.Second
)

func (c *Config) check() error {
	switch {
	case c.ID == "" || c.Region == "":
		return errors.New("an edge needs an ID and a region")
	case c.ProxyVersion != 1 && c.ProxyVersion != 2:
		return fmt.Errorf("there is no PROXY header of version %d", c.ProxyVersion)
	case len(c.SignKey) > 0 && c.ProxyVersion != 2:
		return errors.New("only PROXY headers of version 2 can be signed")
	case c.SoftLimit < 1 || c.HardLimit < c.SoftLimit:
		return fmt.Errorf("connection limits %d and %d don't make sense", c.SoftLimit, c.HardLimit)
	case c.Platform == nil && c.StateDir == "":
		return errors.New("an edge needs a platform, or a state directory with routes")
	}
	return nil
}

// Edge is a running edge.
type Edge struct {
	cfg    Config
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	routes   *routes
	nodes    *nodes
	distance *link.Distance // nil without World
	counters counters
	relay    carrier // the usual way to a node
	far      *far    // across a simulated distance

	source   privnet.Source
	loopback *privnet.Loopback // source, if it is that one
	gossip   *gossip.Gossip    // nil without a bind address
	admin    *httpd.Server     // nil without an address

	synced  atomic.Bool   // the platform has told all routes there are
	applied atomic.Int64  // revision of the last route in use
	unsaved chan struct{} // tells saveLoop that routes have changed
	news    chan struct{} // tells reportLoop the same
	deaf    chan struct{} // tells listenLoop that some address couldn't be listened on
}

// Run runs an edge until ctx is done.
func Run(ctx context.Context, cfg Config) error {
	e, err := Open(cfg)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return e.Close()
}

// Open starts an edge. It serves at once what it knows from before.
func Open(cfg Config) (_ *Edge, err error) {
	cfg.ProxyVersion = cmp.Or(cfg.ProxyVersion, 1)
	cfg.SoftLimit = cmp.Or(cfg.SoftLimit, softLimit)
	cfg.HardLimit = cmp.Or(cfg.HardLimit, max(hardLimit, cfg.SoftLimit))
	cfg.Loops = cmp.Or(cfg.Loops, max(1, runtime.GOMAXPROCS(0)/2))
	if cfg.Platform == nil && cfg.PlatformURL != "" {
		cfg.Platform = api.NewPlatform(cfg.PlatformURL, cfg.Token)
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("open edge: %w", err)
	}
	e := &Edge{
		cfg:     cfg,
		log:     cmp.Or(cfg.Log, slog.Default()),
		nodes:   newNodes(),
		unsaved: make(chan struct{}, 1),
		news:    make(chan struct{}, 1),
		deaf:    make(chan struct{}, 1),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.routes = newRoutes(e.log, cfg.StateDir)
	if cfg.World {
		e.distance = newWorld()
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open edge: %w", errors.Join(err, e.Close()))
		}
	}()
	e.far = newFar(e)
	if e.relay, err = newRelay(e, cfg.Loops); err != nil {
		return nil, err
	}
	if e.source = cfg.Source; e.source == nil {
		if e.loopback, err = privnet.NewLoopback(clientHost(cfg.Region)); err != nil {
			return nil, err
		}
		e.source = e.loopback
	}
	if cfg.GossipBind != "" {
		if err = e.openGossip(); err != nil {
			return nil, err
		}
	}
	for _, r := range e.routes.load() {
		e.routes.set(r)
		e.listen(r.Address)
	}
	if cfg.Admin != "" {
		if e.admin, err = httpd.Start(cfg.Admin, e.adminHandler()); err != nil {
			return nil, err
		}
	}
	e.tasks.Go(func() {
		if err := e.source.Serve(e.ctx, e.accept); err != nil {
			e.log.Error("edge accepts no more connections", "err", err)
		}
	})
	e.tasks.Go(e.listenLoop)
	if cfg.StateDir != "" {
		e.tasks.Go(e.saveLoop)
	}
	if cfg.Platform != nil {
		e.tasks.Go(e.watchRoutes)
		e.tasks.Go(e.reportLoop)
	}
	e.log.Info("edge is up", "edge", cfg.ID, "region", cfg.Region, "routes", e.routes.len())
	return e, nil
}

// clientHost is the host number under which clients of a region appear. All
// have the first bit set, and so none is that of the databases.
func clientHost(r region.Code) privnet.Host {
	h := fnv.New32a()
	h.Write([]byte(r))
	return privnet.Host(h.Sum32() | 1<<31)
}

// newWorld is the world as it is on the map.
func newWorld() *link.Distance {
	var codes []region.Code
	for _, r := range region.All() {
		codes = append(codes, r.Code)
	}
	return link.NewDistance(codes, region.OneWay)
}

func (e *Edge) openGossip() (err error) {
	e.gossip, err = gossip.Open(gossip.Config{
		ID:     e.cfg.ID,
		Kind:   gossip.Edge,
		Region: e.cfg.Region,
		Bind:   e.cfg.GossipBind,
		Join:   e.cfg.GossipJoin,
		Pool:   e.cfg.Pool,
		Log:    e.log,
	})
	if err != nil {
		return err
	}
	e.gossip.Subscribe(e.memberChanged)
	return nil
}

// memberChanged notes how a node is. The connections to one that has died are
// reset: a client that hangs is worse off than one that dials again. But a pool
// on busy machines misses the living now and then, so the node is asked first;
// meanwhile new connections go elsewhere.
func (e *Edge) memberChanged(c gossip.Change) {
	if c.Member.Kind != gossip.Node {
		return
	}
	e.nodes.heard(c)
	if c.What == gossip.Gone {
		e.tasks.Go(func() {
			if answers(e.ctx, c.Member.Proxy) {
				e.log.Info("the pool misses a node that answers", "node", c.Member.ID, "region", c.Member.Region)
				return
			}
			e.log.Info("node is gone", "node", c.Member.ID, "region", c.Member.Region)
			e.resetNode(c.Member.ID)
		})
	}
}

func (e *Edge) resetNode(id string) {
	e.relay.resetNode(id)
	e.far.resetNode(id)
}

// Close stops the edge and resets its connections.
func (e *Edge) Close() error {
	e.cancel()
	var errs []error
	if e.admin != nil {
		errs = append(errs, e.admin.Close())
	}
	if e.gossip != nil {
		errs = append(errs, e.gossip.Close()) // and with it the calls of memberChanged
	}
	e.tasks.Wait()
	if e.loopback != nil {
		errs = append(errs, e.loopback.Close())
	}
	for _, c := range e.routes.close() {
		e.refuse(c, closing)
	}
	if e.far != nil {
		e.far.close()
	}
	if e.relay != nil {
		e.relay.close()
	}
	return errors.Join(errs...)
}

// AdminAddr is where the admin listener is.
func (e *Edge) AdminAddr() string { return e.admin.Addr() }

// Gossip is where other members of the pool reach the edge, or "".
func (e *Edge) Gossip() string {
	if e.gossip == nil {
		return ""
	}
	return e.gossip.Addr()
}

// watchRoutes applies the platform's routes until the edge closes.
func (e *Edge) watchRoutes() {
	// What was loaded from disk and isn't confirmed by the first Synced is gone.
	unconfirmed := make(map[netip.Addr]bool)
	for _, addr := range e.routes.addresses() {
		unconfirmed[addr] = true
	}
	err := e.cfg.Platform.WatchRoutes(e.ctx, e.cfg.Region, func(ev api.RouteEvent) error {
		switch {
		case ev.Route != nil:
			delete(unconfirmed, ev.Route.Address)
			e.setRoute(*ev.Route)
		case ev.Gone != nil:
			e.dropRoute(*ev.Gone)
		case ev.Synced:
			for addr := range unconfirmed {
				e.dropRoute(addr)
			}
			clear(unconfirmed)
			e.synced.Store(true)
		}
		e.applied.Store(max(e.applied.Load(), ev.Revision))
		signal(e.unsaved)
		signal(e.news)
		return nil
	})
	if err != nil && e.ctx.Err() == nil {
		e.log.Error("edge gets no more routes", "err", err)
	}
}

func (e *Edge) setRoute(r api.Route) {
	if err := checkRoute(r); err != nil {
		e.log.Error("edge refuses a route", "database", r.Database, "err", err)
		return
	}
	waiting := e.routes.set(r)
	e.listen(r.Address)
	for _, c := range waiting {
		e.connect(c)
	}
}

// dropRoute lets no new connections to an address begin. Those there are end
// with the database, at its nodes.
func (e *Edge) dropRoute(addr netip.Addr) {
	e.routes.drop(addr)
	e.listen(addr)
}

func checkRoute(r api.Route) error {
	if !privnet.IsDatabase(r.Address) {
		return fmt.Errorf("%v is not a database's address", r.Address)
	}
	for _, s := range r.Serving {
		if _, err := netip.ParseAddrPort(s.Proxy); err != nil {
			return fmt.Errorf("node %s: %w", s.Node, err)
		}
	}
	return nil
}

// listen opens or closes the loopback listener of a database as its present
// route says. Where it fails, listenLoop tries again.
func (e *Edge) listen(addr netip.Addr) {
	if e.loopback == nil {
		return
	}
	want := ""
	if r := e.routes.get(addr); r != nil {
		want = r.Loopback[e.cfg.Region]
	}
	err := e.loopback.Set(addr, want)
	if e.routes.noteListening(addr, err) {
		e.log.Warn("edge can't listen for a database, and tries again", "err", err)
	}
	if err != nil {
		signal(e.deaf)
	}
}

func (e *Edge) listenLoop() {
	for {
		select {
		case <-e.deaf:
		case <-e.ctx.Done():
			return
		}
		if !e.pause(listenPause) {
			return
		}
		for _, addr := range e.routes.unheard() {
			e.listen(addr)
		}
	}
}

// reportLoop tells the platform which routes are in use, and learns where
// others can be met.
func (e *Edge) reportLoop() {
	failing := false
	for {
		if e.gossip != nil {
			e.gossip.UpdateLoad(float64(e.nodes.connections()))
		}
		ctx, cancel := context.WithTimeout(e.ctx, requestTimeout)
		settings, err := e.cfg.Platform.ReportEdge(ctx, api.Edge{
			ID:       e.cfg.ID,
			Region:   e.cfg.Region,
			Endpoint: e.cfg.Endpoint,
			Gossip:   e.Gossip(),
			Applied:  e.applied.Load(),
		})
		cancel()
		if err != nil && e.ctx.Err() == nil && !failing {
			e.log.Warn("edge can't report to the platform, and tries again", "err", err)
		}
		failing = err != nil
		if err == nil && e.gossip != nil {
			all := slices.Concat(e.cfg.GossipJoin, settings.Gossip)
			slices.Sort(all)
			e.gossip.SetJoin(slices.DeleteFunc(slices.Compact(all), func(addr string) bool { return addr == e.Gossip() }))
		}
		timer := time.NewTimer(reportPause)
		select {
		case <-e.news:
			timer.Stop()
			if !e.pause(reportDelay) {
				return
			}
		case <-timer.C:
		case <-e.ctx.Done():
			timer.Stop()
			return
		}
	}
}

// saveLoop keeps the routes on disk up to date.
func (e *Edge) saveLoop() {
	for open := true; open; {
		select {
		case <-e.unsaved:
			if err := e.routes.save(); err != nil {
				e.log.Warn("edge can't keep its routes", "err", err)
			}
			open = e.pause(savePause)
		case <-e.ctx.Done():
			open = false
		}
	}
	select {
	case <-e.unsaved: // since the last time
		if err := e.routes.save(); err != nil {
			e.log.Warn("edge can't keep its routes", "err", err)
		}
	default:
	}
}

// pause waits, and reports whether the edge is still open.
func (e *Edge) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-e.ctx.Done():
		return false
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
