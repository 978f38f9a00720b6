package platform

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"vecino/api"
	"vecino/catalog"
	"vecino/region"
)

// router works out the routes from what three others know: the platform's
// records (which address is whose), the fleet's catalog (which copies are
// live, and how their nodes are reached) and the edges (which regions can be
// called from). Whenever one of them changes, the routes it touches are made
// anew and given to the watchers.
//
// Nothing is sent before the records and the catalog have both been read
// whole: an edge that reconnects to a platform just started must not be told
// that its routes are gone.
type router struct {
	loopback loopback

	mu struct {
		sync.Mutex
		haveRecords, haveCatalog bool
		records                  map[string]record // ready ones, by key in the store
		keys                     map[catalog.ID]string
		databases                map[catalog.ID]catalog.Database
		nodes                    map[string]catalog.Node
		edges                    map[string]api.Edge
		routes                   map[netip.Addr]api.Route
		revision                 int64
		watchers                 map[*routeWatcher]struct{}
	}
}

// loopback is how databases are reached on a machine without private
// networks: an address of its own for each region and database.
type loopback struct {
	port    int           // 0: not at all
	regions []region.Code // their order is part of the addresses
}

// address is 127.(100+region).(serial/256).(serial%256), "" if there is none.
func (l loopback) address(r region.Code, serial uint32) string {
	i := slices.Index(l.regions, r)
	if l.port == 0 || i < 0 || serial > 0xffff {
		return ""
	}
	a := netip.AddrFrom4([4]byte{127, byte(100 + i), byte(serial >> 8), byte(serial)})
	return netip.AddrPortFrom(a, uint16(l.port)).String()
}

// routeWatcher is told which addresses changed; what their routes are it
// looks up when it gets round to it. So a slow watcher costs one entry per
// address, however much changes.
type routeWatcher struct {
	changed map[netip.Addr]bool // under the router's lock
	wake    chan struct{}       // holds one
}

func newRouter(l loopback) *router {
	r := &router{loopback: l}
	r.mu.records = map[string]record{}
	r.mu.keys = map[catalog.ID]string{}
	r.mu.databases = map[catalog.ID]catalog.Database{}
	r.mu.nodes = map[string]catalog.Node{}
	r.mu.edges = map[string]api.Edge{}
	r.mu.routes = map[netip.Addr]api.Route{}
	r.mu.watchers = map[*routeWatcher]struct{}{}
	return r
}

// routeLocked makes the route of one record.
func (r *router) routeLocked(rec *record) api.Route {
	route := api.Route{Address: rec.Address, Database: rec.Database, Serving: []api.Serving{}}
	d := r.mu.databases[rec.Database]
	for _, c := range d.Copies {
		if node, ok := r.mu.nodes[c.Node]; ok && c.State == catalog.Live {
			route.Serving = append(route.Serving, api.Serving{Region: c.Region, Node: c.Node, Proxy: node.Proxy, Role: c.Role})
		}
	}
	route.Loopback = r.loopbackLocked(rec)
	return route
}

// loopbackLocked is where a database is called on this machine: by region,
// for all that have an edge.
func (r *router) loopbackLocked(rec *record) map[region.Code]string {
	var at map[region.Code]string
	for _, e := range r.mu.edges {
		if addr := r.loopback.address(e.Region, rec.Serial); addr != "" {
			if at == nil {
				at = map[region.Code]string{}
			}
			at[e.Region] = addr
		}
	}
	return at
}

// refreshLocked makes the route of one address anew.
func (r *router) refreshLocked(rec *record) {
	old, had := r.mu.routes[rec.Address]
	route := r.routeLocked(rec)
	route.Revision = old.Revision
	if had && reflect.DeepEqual(old, route) {
		return
	}
	route.Revision = r.nextRevisionLocked()
	r.mu.routes[rec.Address] = route
	r.announceLocked(rec.Address)
}

func (r *router) removeLocked(a netip.Addr) {
	if _, ok := r.mu.routes[a]; ok {
		delete(r.mu.routes, a)
		r.nextRevisionLocked()
		r.announceLocked(a)
	}
}

// nextRevisionLocked grows also across restarts, as long as there are fewer
// than a million changes a second: it is at least the time in microseconds.
func (r *router) nextRevisionLocked() int64 {
	r.mu.revision = max(r.mu.revision+1, time.Now().UnixMicro())
	return r.mu.revision
}

func (r *router) announceLocked(a netip.Addr) {
	if !r.readyLocked() {
		return // those who wait for the first state get it whole
	}
	for w := range r.mu.watchers {
		w.changed[a] = true
		w.poke()
	}
}

func (w *routeWatcher) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (r *router) readyLocked() bool { return r.mu.haveRecords && r.mu.haveCatalog }

// refreshAllLocked makes all routes anew.
func (r *router) refreshAllLocked() {
	for _, rec := range r.mu.records {
		r.refreshLocked(&rec)
	}
}

// becomeReadyLocked notes that one of the sources was read whole, and lets the
// watchers begin when it was the last.
func (r *router) becomeReadyLocked(have *bool) {
	was := r.readyLocked()
	*have = true
	if !was && r.readyLocked() {
		for w := range r.mu.watchers {
			w.poke()
		}
	}
}

// catalogEvent takes in one change of the fleet's catalog.
func (r *router) catalogEvent(e catalog.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case e.Node != nil:
		if r.mu.nodes[e.Node.ID] != *e.Node {
			r.mu.nodes[e.Node.ID] = *e.Node
			r.refreshAllLocked()
		}
	case e.Database != nil:
		r.mu.databases[e.Database.ID] = *e.Database
		r.refreshDatabaseLocked(e.Database)
	case e.Gone != 0:
		d := r.mu.databases[e.Gone]
		delete(r.mu.databases, e.Gone)
		r.refreshDatabaseLocked(&d)
	case e.Synced:
		r.becomeReadyLocked(&r.mu.haveCatalog)
	}
	return nil
}

// refreshDatabaseLocked makes the route of one of the fleet's databases anew.
func (r *router) refreshDatabaseLocked(d *catalog.Database) {
	if rec, ok := r.mu.records[r.mu.keys[d.ID]]; ok {
		r.refreshLocked(&rec)
	}
}

// setRecordLocked takes in a record, or that it is gone (nil).
func (r *router) setRecordLocked(key string, rec *record) {
	if rec == nil || rec.Phase != ready {
		if old, ok := r.mu.records[key]; ok {
			delete(r.mu.records, key)
			delete(r.mu.keys, old.Database)
			r.removeLocked(old.Address)
		}
		return
	}
	if old, ok := r.mu.records[key]; ok && old.UID != rec.UID {
		delete(r.mu.keys, old.Database)
		r.removeLocked(old.Address)
	}
	r.mu.records[key], r.mu.keys[rec.Database] = *rec, key
	r.refreshLocked(rec)
}

// setEdge takes in an edge and says whether it is new or has moved.
func (r *router) setEdge(e api.Edge) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, had := r.mu.edges[e.ID]
	r.mu.edges[e.ID] = e
	old.Applied = e.Applied
	if had && old == e {
		return false
	}
	r.refreshAllLocked()
	return true
}

func (r *router) edges() []api.Edge {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.mu.edges), func(a, b api.Edge) int { return strings.Compare(a.ID, b.ID) })
}

// gossip lists where other nodes and edges than one can be met.
func (r *router) gossip(but string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := []string{}
	for _, n := range r.mu.nodes {
		if n.Gossip != "" {
			list = append(list, n.Gossip)
		}
	}
	for _, e := range r.mu.edges {
		if e.Gossip != "" && e.ID != but {
			list = append(list, e.Gossip)
		}
	}
	slices.Sort(list)
	return list
}

func (r *router) loopbackOf(rec *record) map[region.Code]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loopbackLocked(rec)
}

// followRecords keeps the records up to date until ctx ends.
func (p *Platform) followRecords(ctx context.Context) {
	for ctx.Err() == nil {
		if err := p.readRecords(ctx); err != nil && ctx.Err() == nil {
			p.log.Error("records can't be followed", "error", err)
			timer := time.NewTimer(time.Second)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			timer.Stop()
		}
	}
}

// readRecords reads all records and then what changes, until the watch ends.
func (p *Platform) readRecords(ctx context.Context) error {
	list, revision, err := p.store.list(ctx, "")
	if err != nil {
		return err
	}
	r := p.router
	r.mu.Lock()
	there := map[string]bool{}
	for _, rec := range list {
		there[rec.key()] = true
		r.setRecordLocked(rec.key(), &rec)
	}
	for key := range r.mu.records {
		if !there[key] {
			r.setRecordLocked(key, nil)
		}
	}
	r.becomeReadyLocked(&r.mu.haveRecords)
	r.mu.Unlock()

	watchCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	for change := range p.store.etcd.Watch(watchCtx, databasePrefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1)) {
		if err := change.Err(); err != nil {
			return err
		}
		r.mu.Lock()
		for _, ev := range change.Events {
			var rec *record
			if ev.Kv.Value != nil {
				rec = &record{}
				if err := json.Unmarshal(ev.Kv.Value, rec); err != nil {
					r.mu.Unlock()
					return fmt.Errorf("decode %s: %w", ev.Kv.Key, err)
				}
			}
			r.setRecordLocked(string(ev.Kv.Key), rec)
		}
		r.mu.Unlock()
	}
	return ctx.Err()
}

// watchRoutes answers GET /v1/routes/watch.
func (p *Platform) watchRoutes(w http.ResponseWriter, req *http.Request) {
	if code := region.Code(req.FormValue("region")); code != "" {
		if _, ok := region.Lookup(code); !ok {
			api.WriteError(w, p.log, api.Unknown("region", string(code), nil))
			return
		}
	}
	r := p.router
	watcher := &routeWatcher{changed: map[netip.Addr]bool{}, wake: make(chan struct{}, 1)}
	r.mu.Lock()
	r.mu.watchers[watcher] = struct{}{}
	r.mu.Unlock()
	p.watchers.Inc()
	defer func() {
		p.watchers.Dec()
		r.mu.Lock()
		delete(r.mu.watchers, watcher)
		r.mu.Unlock()
	}()
	watcher.poke()

	lines := api.StartLines(w)
	if lines.Flush() != nil {
		return
	}
	heartbeat := time.NewTicker(api.HeartbeatInterval)
	defer heartbeat.Stop()
	begun := false
	for {
		select {
		case <-req.Context().Done():
			return
		case <-heartbeat.C:
			if lines.Send(nil) != nil {
				return
			}
		case <-watcher.wake:
			for _, e := range r.news(watcher, &begun) {
				if lines.Send(e) != nil {
					return
				}
			}
		}
		if lines.Flush() != nil {
			return
		}
	}
}

// news is what a watcher hasn't been told: everything at first, later the
// present state of what changed.
func (r *router) news(w *routeWatcher, begun *bool) (events []api.RouteEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.readyLocked() {
		return nil
	}
	addresses := maps.Keys(w.changed)
	if !*begun {
		addresses = maps.Keys(r.mu.routes)
	}
	for _, a := range slices.SortedFunc(addresses, netip.Addr.Compare) {
		if route, ok := r.mu.routes[a]; ok {
			events = append(events, api.RouteEvent{Revision: route.Revision, Route: &route})
		} else {
			events = append(events, api.RouteEvent{Revision: r.mu.revision, Gone: &a})
		}
	}
	if !*begun {
		events = append(events, api.RouteEvent{Revision: r.mu.revision, Synced: true})
		*begun = true
	}
	clear(w.changed)
	return events
}
