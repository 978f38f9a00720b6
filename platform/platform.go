// Package platform is the cloud: organisations, networks, tokens, minted
// addresses, routes for the edges.
//
// One daemon serves an HTTP API (api/openapi-platform.yaml) to people, who
// carry a token of their own, and to edges, which share one. It owns who has
// which database under which name and private address; what a database is made
// of it leaves to the fleet, whose API it calls. How a creation stays whole
// across the two is told in create.go, how routes come about in routes.go.
package platform

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"vecino/api"
	"vecino/internal/etcd"
	"vecino/internal/httpd"
	"vecino/region"
)

// Config is what a platform needs to be told.
type Config struct {
	// Listen is the host:port of the API. Port 0 chooses a free one.
	Listen string

	// Admin is the host:port of /healthz and /metrics; "" means none.
	Admin string

	// Dir is where the embedded etcd and the key that seals passwords lie. It
	// belongs to this daemon alone.
	Dir string

	// Etcd are the endpoints of an external cluster, used instead of the
	// embedded one. There must still be only one platform on it: it takes
	// intents it isn't at work on for those of a predecessor that died.
	Etcd []string

	// Fleet is the URL of the fleet's API, FleetToken the platform's secret
	// there.
	Fleet, FleetToken string

	// EdgeToken is the secret of the edges.
	EdgeToken string

	// UserToken is given the personal organisation that every platform starts
	// with. "" means that nobody new gets in.
	UserToken string

	// LoopbackPort, if not 0, gives every database an address of 127.0.0.0/8
	// in each region with an edge, for a world on one machine: addresses are
	// 127.(100+i).…, i being the region's place in Regions, which must
	// therefore not be reordered.
	LoopbackPort int
	Regions      []region.Code

	// Logger gets one line an event. nil means none.
	Logger *slog.Logger

	// crashAt makes tests die at a named step.
	crashAt func(step string) bool
}

// maxLoopbackRegions fits into the second byte of a loopback address.
const maxLoopbackRegions = 256 - 100

func (c *Config) check() error {
	switch {
	case c.Dir == "":
		return errors.New("a directory is needed")
	case c.Fleet == "" || c.FleetToken == "":
		return errors.New("the fleet's URL and token are needed")
	case c.EdgeToken == "":
		return errors.New("an edge token is needed")
	case c.EdgeToken == c.UserToken:
		return errors.New("edges and users must not share a token")
	case c.LoopbackPort < 0 || c.LoopbackPort > 0xffff:
		return fmt.Errorf("loopback port %d is none", c.LoopbackPort)
	case len(c.Regions) > maxLoopbackRegions:
		return fmt.Errorf("at most %d regions can have loopback addresses", maxLoopbackRegions)
	}
	for i, r := range c.Regions {
		if slices.Contains(c.Regions[:i], r) {
			return fmt.Errorf("region %s is listed twice", r)
		}
	}
	return nil
}

// Platform is a running platform daemon.
type Platform struct {
	log    *slog.Logger
	store  *store
	sealer *sealer
	fleet  *api.Fleet
	router *router
	config Config
	server *httpd.Server
	admin  *httpd.Server

	metrics                    *prometheus.Registry
	created, undone, destroyed prometheus.Counter
	watchers                   prometheus.Gauge

	mu struct {
		sync.Mutex
		atWork map[string]int // requests at work, by the UID of the record
	}
	kick   chan struct{} // wakes the mender; holds one
	cancel context.CancelFunc
	tasks  sync.WaitGroup
}

// errCrashed ends a request in a test as a crash would.
var errCrashed = errors.New("crashed")

func (p *Platform) crash(step string) bool {
	return p.config.crashAt != nil && p.config.crashAt(step)
}

// Open starts a platform. It answers when Open returns; the fleet may come
// later.
func Open(ctx context.Context, c Config) (*Platform, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("platform: %w", err)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := etcd.Open(ctx, etcd.Config{Dir: filepath.Join(c.Dir, "etcd"), Endpoints: c.Etcd, Prefix: "/vecino/platform"})
	if err != nil {
		return nil, fmt.Errorf("open platform's store: %w", err)
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	p := &Platform{
		log:       c.Logger,
		store:     &store{etcd: s, now: time.Now},
		fleet:     api.NewFleet(c.Fleet, c.FleetToken),
		router:    newRouter(loopback{c.LoopbackPort, slices.Clone(c.Regions)}),
		config:    c,
		metrics:   prometheus.NewRegistry(),
		created:   counter("vecino_platform_databases_created_total", "Databases created."),
		undone:    counter("vecino_platform_creations_undone_total", "Creations that failed and were undone."),
		destroyed: counter("vecino_platform_databases_destroyed_total", "Databases destroyed."),
		watchers:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "vecino_platform_route_watchers", Help: "Open watches of the routes."}),
		kick:      make(chan struct{}, 1),
	}
	p.mu.atWork = map[string]int{}
	p.metrics.MustRegister(p.created, p.undone, p.destroyed, p.watchers)
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.cancel = cancel
	if err := p.start(ctx, runCtx); err != nil {
		p.Close()
		return nil, fmt.Errorf("platform: %w", err)
	}
	p.log.Info("platform started", "api", p.server.Addr())
	return p, nil
}

func (p *Platform) start(ctx, runCtx context.Context) (err error) {
	if p.sealer, err = openSealer(filepath.Join(p.config.Dir, "seal.key")); err != nil {
		return err
	}
	if err := p.store.seed(ctx, p.config.UserToken); err != nil {
		return err
	}
	if err := p.loadEdges(ctx); err != nil {
		return err
	}
	p.tasks.Go(func() { p.followRecords(runCtx) })
	p.tasks.Go(func() { p.mender(runCtx) })
	p.tasks.Go(func() {
		if err := p.fleet.WatchCatalog(runCtx, 0, "", p.router.catalogEvent); runCtx.Err() == nil {
			p.log.Error("the fleet refuses to show its catalog", "error", err)
		}
	})
	if p.server, err = httpd.Start(p.config.Listen, p.handler()); err != nil {
		return fmt.Errorf("API: %w", err)
	}
	if p.config.Admin != "" {
		if p.admin, err = httpd.Start(p.config.Admin, httpd.Admin(p.healthy, p.metrics)); err != nil {
			return fmt.Errorf("admin: %w", err)
		}
	}
	return nil
}

// Run is a platform until ctx ends.
func Run(ctx context.Context, c Config) error {
	p, err := Open(ctx, c)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return p.Close()
}

// URL is where the API is found.
func (p *Platform) URL() string { return p.server.URL() }

// Close ends watches and requests and closes the store.
func (p *Platform) Close() error {
	p.cancel()
	if p.admin != nil {
		p.admin.Close()
	}
	if p.server != nil {
		p.server.Close()
	}
	p.tasks.Wait()
	return p.store.etcd.Close()
}

// healthy is nil when the store answers and the routes are complete.
func (p *Platform) healthy() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := p.store.etcd.Get(ctx, serialKey); err != nil {
		return err
	}
	p.router.mu.Lock()
	defer p.router.mu.Unlock()
	if !p.router.readyLocked() {
		return errors.New("the fleet's catalog hasn't been read yet")
	}
	return nil
}

// caller is who makes a request: the organisations a token may use.
type caller struct {
	secret        string
	organizations []organization
}

// who looks the request's token up.
func (p *Platform) who(r *http.Request) (c caller, err error) {
	c.secret = api.Bearer(r)
	var t token
	at := int64(0)
	if c.secret != "" {
		if at, err = p.store.read(r.Context(), tokenKey(c.secret), &t); err != nil {
			return c, err
		}
	}
	if at == 0 {
		return c, api.Errorf(api.Unauthorized, "a valid bearer token is needed")
	}
	for _, slug := range t.Organizations {
		var o organization
		at, err := p.store.read(r.Context(), organizationPrefix+slug, &o)
		if err != nil {
			return c, err
		}
		if at != 0 {
			c.organizations = append(c.organizations, o)
		}
	}
	return c, nil
}

// organization picks one of the caller's. "" will do if there is only one.
func (c caller) organization(slug string) (organization, error) {
	var slugs []string
	for _, o := range c.organizations {
		if o.Slug == slug || slug == "" && len(c.organizations) == 1 {
			return o, nil
		}
		slugs = append(slugs, o.Slug)
	}
	if slug == "" {
		return organization{}, &api.Error{Code: api.Invalid, Field: "organization", Message: "the token has several organizations, so one must be named", Choices: slugs}
	}
	return organization{}, api.Unknown("organization", slug, slugs)
}

// user adapts a call that people make.
func user[T any](p *Platform, code int, f func(r *http.Request, c caller) (T, error)) http.Handler {
	return api.Serve(p.log, code, func(r *http.Request) (v T, err error) {
		c, err := p.who(r)
		if err != nil {
			return v, err
		}
		return f(r, c)
	})
}

func (p *Platform) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range p.calls() {
		mux.Handle(pattern, h)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		api.WriteError(w, p.log, api.Errorf(api.NotFound, "%s %s is no call of this API", r.Method, r.URL.Path))
	})
	return mux
}

// calls are all calls of the API, as its OpenAPI file has them.
func (p *Platform) calls() map[string]http.Handler {
	edge := func(h http.Handler) http.Handler { return api.RequireToken(p.log, h, p.config.EdgeToken) }
	return map[string]http.Handler{
		"GET /v1/organizations":              user(p, http.StatusOK, p.handleOrganizations),
		"POST /v1/organizations":             user(p, http.StatusCreated, p.handleCreateOrganization),
		"GET /v1/regions":                    user(p, http.StatusOK, p.handleRegions),
		"GET /v1/plans":                      user(p, http.StatusOK, p.handlePlans),
		"POST /v1/databases":                 user(p, http.StatusCreated, p.handleCreate),
		"GET /v1/databases":                  user(p, http.StatusOK, p.handleList),
		"GET /v1/databases/{name}":           user(p, http.StatusOK, p.handleGet),
		"PATCH /v1/databases/{name}":         user(p, http.StatusOK, p.handleUpdate),
		"DELETE /v1/databases/{name}":        user(p, http.StatusOK, p.handleDestroy),
		"POST /v1/databases/{name}/password": user(p, http.StatusOK, p.handleReset),
		"GET /v1/edges":                      user(p, http.StatusOK, p.handleEdges),
		"PUT /v1/edges/{edge}":               edge(api.Serve(p.log, http.StatusOK, p.handleEdge)),
		"GET /v1/routes/watch":               edge(http.HandlerFunc(p.watchRoutes)),
		"GET /v1/openapi.yaml":               api.Spec(api.PlatformSpec),
	}
}

type none struct{}

func (o organization) answer() api.Organization {
	return api.Organization{Slug: o.Slug, Name: o.Name, Type: o.Type, Network: o.Network.String()}
}

func (p *Platform) handleOrganizations(r *http.Request, c caller) ([]api.Organization, error) {
	list := make([]api.Organization, len(c.organizations))
	for i, o := range c.organizations {
		list[i] = o.answer()
	}
	return list, nil
}

func (p *Platform) handleCreateOrganization(r *http.Request, c caller) (answer api.Organization, err error) {
	var req api.Organization
	if err := api.ReadJSON(r, &req); err != nil {
		return answer, err
	}
	if err := checkName("organization", req.Slug); err != nil {
		return answer, err
	}
	o, err := p.store.addOrganization(r.Context(), organization{Slug: req.Slug, Name: cmp.Or(req.Name, req.Slug), Type: "shared"}, c.secret)
	if err != nil {
		return answer, err
	}
	return o.answer(), nil
}

func (p *Platform) handleRegions(r *http.Request, _ caller) ([]api.RegionInfo, error) {
	list, err := p.fleet.Regions(r.Context())
	if err != nil {
		return nil, p.fleetError(err)
	}
	return list, nil
}

func (p *Platform) handlePlans(r *http.Request, _ caller) ([]api.Plan, error) {
	list, err := p.fleet.Plans(r.Context())
	if err != nil {
		return nil, p.fleetError(err)
	}
	return list, nil
}

// maxKey bounds a client's idempotency key, which becomes part of a record's.
const maxKey = 200

func (p *Platform) handleCreate(r *http.Request, c caller) (d api.Database, err error) {
	var req api.CreateDatabase
	if err := api.ReadJSON(r, &req); err != nil {
		return d, err
	}
	key := r.Header.Get(api.IdempotencyHeader)
	if len(key) > maxKey {
		return d, api.Errorf(api.Invalid, "%s is longer than %d bytes", api.IdempotencyHeader, maxKey)
	}
	o, err := c.organization(req.Organization)
	if err != nil {
		return d, err
	}
	return p.create(r.Context(), o, key, req)
}

func (p *Platform) handleList(r *http.Request, c caller) ([]api.Database, error) {
	var records []record
	if slug := r.FormValue("organization"); slug != "" {
		o, err := c.organization(slug)
		if err != nil {
			return nil, err
		}
		c.organizations = []organization{o}
	}
	for _, o := range c.organizations {
		list, _, err := p.store.list(r.Context(), o.Slug)
		if err != nil {
			return nil, err
		}
		records = append(records, list...)
	}
	return p.describeAll(r.Context(), records)
}

// find is the record the path and the organisation, if given, name.
func (p *Platform) find(r *http.Request, c caller) (rec record, err error) {
	name := r.PathValue("name")
	if slug := r.FormValue("organization"); slug != "" {
		o, err := c.organization(slug)
		if err != nil {
			return rec, err
		}
		c.organizations = []organization{o}
	}
	var (
		found []string // organisations that have one of that name
		names []string
	)
	for _, o := range c.organizations {
		list, _, err := p.store.list(r.Context(), o.Slug)
		if err != nil {
			return rec, err
		}
		for _, have := range list {
			names = append(names, have.Name)
			if have.Name == name {
				rec, found = have, append(found, o.Slug)
			}
		}
	}
	switch len(found) {
	case 0:
		slices.Sort(names)
		return rec, &api.Error{Code: api.NotFound, Field: "name", Message: fmt.Sprintf("database %q not found", name), Choices: slices.Compact(names)}
	case 1:
		return rec, nil
	}
	return rec, &api.Error{Code: api.Invalid, Field: "organization", Message: fmt.Sprintf("several organizations have a database %q, so one must be named", name), Choices: found}
}

func (p *Platform) handleGet(r *http.Request, c caller) (d api.Database, err error) {
	rec, err := p.find(r, c)
	if err != nil {
		return d, err
	}
	return p.describe(r.Context(), &rec)
}

func (p *Platform) handleUpdate(r *http.Request, c caller) (d api.Database, err error) {
	var req api.UpdateDatabase
	if err := api.ReadJSON(r, &req); err != nil {
		return d, err
	}
	rec, err := p.find(r, c)
	if err != nil {
		return d, err
	}
	if rec.Phase != ready {
		return d, busy(&rec)
	}
	if _, err := p.fleet.UpdateDatabase(r.Context(), rec.Database, api.FleetUpdate(req)); err != nil {
		return d, p.fleetError(err)
	}
	return p.describe(r.Context(), &rec)
}

func (p *Platform) handleDestroy(r *http.Request, c caller) (none, error) {
	rec, err := p.find(r, c)
	if err != nil {
		return none{}, err
	}
	return none{}, p.destroy(r.Context(), &rec)
}

func (p *Platform) handleReset(r *http.Request, c caller) (d api.Database, err error) {
	rec, err := p.find(r, c)
	if err != nil {
		return d, err
	}
	if err := p.resetPassword(r.Context(), &rec); err != nil {
		return d, err
	}
	return p.describe(r.Context(), &rec)
}

func (p *Platform) handleEdges(*http.Request, caller) ([]api.Edge, error) {
	return p.router.edges(), nil
}

// handleEdge takes in an edge's report. Where it is, is kept across restarts,
// so that a platform just started knows all regions that can be called from.
func (p *Platform) handleEdge(r *http.Request) (s api.EdgeSettings, err error) {
	var e api.Edge
	if err := api.ReadJSON(r, &e); err != nil {
		return s, err
	}
	if err := checkName("edge id", e.ID); err != nil {
		return s, err
	}
	if e.ID != r.PathValue("edge") {
		return s, &api.Error{Code: api.Invalid, Field: "id", Message: fmt.Sprintf("edge id %q is not the path's", e.ID)}
	}
	if _, ok := region.Lookup(e.Region); !ok {
		return s, api.Unknown("region", string(e.Region), nil)
	}
	if p.router.setEdge(e) {
		place := e
		place.Applied = 0
		if _, err := p.store.etcd.Put(r.Context(), edgePrefix+e.ID, encode(place)); err != nil {
			return s, fmt.Errorf("record edge: %w", err)
		}
		p.log.Info("edge registered", "edge", e.ID, "region", e.Region)
	}
	return api.EdgeSettings{Gossip: p.router.gossip(e.ID)}, nil
}

func (p *Platform) loadEdges(ctx context.Context) error {
	got, err := p.store.etcd.Get(ctx, edgePrefix, clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("read edges: %w", err)
	}
	for _, kv := range got.Kvs {
		var e api.Edge
		if err := json.Unmarshal(kv.Value, &e); err != nil {
			return fmt.Errorf("decode %s: %w", kv.Key, err)
		}
		p.router.setEdge(e)
	}
	return nil
}

// redisPort is where databases listen on their private addresses.
const redisPort = 6379

func redisURL(password, hostport string) string {
	return "redis://default:" + password + "@" + hostport
}

// privateHostPort is a database on its organisation's network: the same in
// every region.
func privateHostPort(a netip.Addr) string {
	return netip.AddrPortFrom(a, redisPort).String()
}
