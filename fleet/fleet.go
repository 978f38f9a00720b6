// Package fleet is the provider: plans, databases, where they live and who is
// primary; it publishes the catalog.
//
// One daemon serves an HTTP API (api/openapi-fleet.yaml) to two kinds of
// callers, each with a token: the platform, which creates, changes and destroys
// databases, and the nodes, which register, watch the catalog, report how
// their copies are and ask for epochs. What must not be lost is in etcd, and
// every change of it is a compare-and-swap; how far copies have come is only
// kept in memory, since nodes say it again.
//
// The fleet knows nothing of organisations, and sees an address as a number
// that the platform promises to be unique.
package fleet

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"vecino/api"
	"vecino/catalog"
	"vecino/internal/etcd"
	"vecino/internal/httpd"
	"vecino/placement"
	"vecino/region"
)

// Config is what a fleet needs to be told.
type Config struct {
	// Listen is the host:port of the API. Port 0 chooses a free one.
	Listen string

	// Admin is the host:port of /healthz and /metrics; "" means none.
	Admin string

	// Dir is where the embedded etcd keeps the catalog. It belongs to this
	// daemon alone.
	Dir string

	// Etcd are the endpoints of an external cluster, used instead of Dir.
	Etcd []string

	// PlatformToken and NodeToken are the secrets of the two kinds of callers.
	// A node's token doesn't create databases, a platform's doesn't open
	// epochs.
	PlatformToken, NodeToken string

	// Logger gets one line an event. nil means none.
	Logger *slog.Logger
}

// Fleet is a running fleet daemon.
type Fleet struct {
	log       *slog.Logger
	store     *store
	server    *httpd.Server
	admin     *httpd.Server
	metrics   *prometheus.Registry
	watchers  prometheus.Gauge
	created   prometheus.Counter
	destroyed prometheus.Counter
	epochs    prometheus.Counter
	heartbeat time.Duration
	creating  sync.Mutex // creations take turns, so that placement sees the one before

	reports reports
	cancel  context.CancelFunc
	tasks   sync.WaitGroup
}

// Open starts a fleet. It answers when Open returns.
func Open(ctx context.Context, c Config) (*Fleet, error) {
	switch {
	case c.PlatformToken == "" || c.NodeToken == "":
		return nil, errors.New("fleet: a platform token and a node token are needed")
	case c.PlatformToken == c.NodeToken:
		return nil, errors.New("fleet: platform and nodes must not share a token")
	case c.Dir == "" && len(c.Etcd) == 0:
		return nil, errors.New("fleet: a directory or etcd endpoints are needed")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := etcd.Open(ctx, etcd.Config{Dir: filepath.Join(c.Dir, "etcd"), Endpoints: c.Etcd, Prefix: "/vecino/fleet"})
	if err != nil {
		return nil, fmt.Errorf("open fleet's store: %w", err)
	}
	f := &Fleet{
		log:       c.Logger,
		store:     &store{etcd: s, now: time.Now},
		metrics:   prometheus.NewRegistry(),
		watchers:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "vecino_fleet_catalog_watchers", Help: "Open watches of the catalog."}),
		created:   prometheus.NewCounter(prometheus.CounterOpts{Name: "vecino_fleet_databases_created_total", Help: "Databases created."}),
		destroyed: prometheus.NewCounter(prometheus.CounterOpts{Name: "vecino_fleet_databases_destroyed_total", Help: "Databases destroyed, cancelled creations included."}),
		epochs:    prometheus.NewCounter(prometheus.CounterOpts{Name: "vecino_fleet_epochs_opened_total", Help: "Epochs given to primaries."}),
		heartbeat: api.HeartbeatInterval,
	}
	f.metrics.MustRegister(f.watchers, f.created, f.destroyed, f.epochs)
	ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	f.tasks.Go(func() { f.housekeeping(ctx) })
	if f.server, err = httpd.Start(c.Listen, f.handler(c)); err != nil {
		f.Close()
		return nil, fmt.Errorf("fleet API: %w", err)
	}
	if c.Admin != "" {
		if f.admin, err = httpd.Start(c.Admin, httpd.Admin(f.healthy, f.metrics)); err != nil {
			f.Close()
			return nil, fmt.Errorf("fleet admin: %w", err)
		}
	}
	f.log.Info("fleet started", "api", f.server.Addr())
	return f, nil
}

// Run is a fleet until ctx ends.
func Run(ctx context.Context, c Config) error {
	f, err := Open(ctx, c)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return f.Close()
}

// URL is where the API is found.
func (f *Fleet) URL() string { return f.server.URL() }

// Close ends watches and requests and closes the store.
func (f *Fleet) Close() error {
	f.cancel()
	if f.admin != nil {
		f.admin.Close()
	}
	if f.server != nil {
		f.server.Close()
	}
	f.tasks.Wait()
	return f.store.etcd.Close()
}

// healthy reads the store, which only answers with a quorum.
func (f *Fleet) healthy() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := f.store.etcd.Get(ctx, lastKey)
	return err
}

// housekeeping forgets old idempotency keys and reports of destroyed
// databases.
func (f *Fleet) housekeeping(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := f.store.sweep(ctx); err != nil && ctx.Err() == nil {
			f.log.Warn("old idempotency keys were not forgotten", "error", err)
		}
		if all, err := f.store.databases(ctx); err == nil {
			f.reports.keepOnly(all)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (f *Fleet) handler(c Config) http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range f.calls(c) {
		mux.Handle(pattern, h)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		api.WriteError(w, f.log, api.Errorf(api.NotFound, "%s %s is no call of this API", r.Method, r.URL.Path))
	})
	return mux
}

// calls are all calls of the API, as its OpenAPI file has them.
func (f *Fleet) calls(c Config) map[string]http.Handler {
	platform := func(h http.Handler) http.Handler { return api.RequireToken(f.log, h, c.PlatformToken) }
	node := func(h http.Handler) http.Handler { return api.RequireToken(f.log, h, c.NodeToken) }
	either := func(h http.Handler) http.Handler { return api.RequireToken(f.log, h, c.PlatformToken, c.NodeToken) }
	return map[string]http.Handler{
		"POST /v1/databases":               platform(api.Serve(f.log, http.StatusCreated, f.create)),
		"DELETE /v1/creations/{key}":       platform(api.Serve(f.log, http.StatusOK, f.cancelCreate)),
		"GET /v1/databases":                platform(api.Serve(f.log, http.StatusOK, f.list)),
		"GET /v1/databases/{id}":           platform(api.Serve(f.log, http.StatusOK, f.get)),
		"PATCH /v1/databases/{id}":         platform(api.Serve(f.log, http.StatusOK, f.update)),
		"DELETE /v1/databases/{id}":        platform(api.Serve(f.log, http.StatusOK, f.destroy)),
		"POST /v1/databases/{id}/password": platform(api.Serve(f.log, http.StatusOK, f.resetPassword)),
		"POST /v1/databases/{id}/epoch":    node(api.Serve(f.log, http.StatusOK, f.openEpoch)),
		"PUT /v1/nodes/{node}":             node(api.Serve(f.log, http.StatusOK, f.registerNode)),
		"POST /v1/nodes/{node}/status":     node(api.Serve(f.log, http.StatusOK, f.report)),
		"GET /v1/nodes":                    either(api.Serve(f.log, http.StatusOK, f.listNodes)),
		"GET /v1/regions":                  either(api.Serve(f.log, http.StatusOK, f.listRegions)),
		"GET /v1/plans":                    either(api.Serve(f.log, http.StatusOK, f.listPlans)),
		"GET /v1/catalog/watch":            either(http.HandlerFunc(f.watchCatalog)),
		"GET /v1/openapi.yaml":             api.Spec(api.FleetSpec),
	}
}

// none is the answer of calls that have nothing to say.
type none struct{}

// maxKey bounds an idempotency key, which becomes part of a record's key.
const maxKey = 200

func (f *Fleet) create(r *http.Request) (answer api.FleetDatabase, err error) {
	var req api.FleetCreate
	if err := api.ReadJSON(r, &req); err != nil {
		return answer, err
	}
	key := r.Header.Get(api.IdempotencyHeader)
	if key == "" || len(key) > maxKey {
		return answer, api.Errorf(api.Invalid, "%s of 1 to %d bytes is needed", api.IdempotencyHeader, maxKey)
	}
	if req.Name == "" {
		return answer, &api.Error{Code: api.Invalid, Field: "name", Message: "a name is needed"}
	}
	if !req.Address.Is6() {
		return answer, &api.Error{Code: api.Invalid, Field: "address", Message: "a private IPv6 address is needed"}
	}
	plan, err := findPlan(req.Plan)
	if err != nil {
		return answer, err
	}
	durability, err := durabilityOf(req.Durability, plan)
	if err != nil {
		return answer, err
	}
	evicts := &req.Eviction
	if !req.Eviction && req.EvictionPolicy != "" {
		evicts = nil // the policy says it
	}
	eviction, policy, err := evictionOf(evicts, req.EvictionPolicy, "")
	if err != nil {
		return answer, err
	}
	password, hash := newPassword()
	seed := newSeed()

	f.creating.Lock()
	defer f.creating.Unlock()
	d, again, err := f.store.create(r.Context(), key, req, func(id catalog.ID) (catalog.Database, error) {
		return f.place(r.Context(), catalog.Database{
			ID: id, Name: req.Name, Address: req.Address, Password: hash,
			Plan: plan.ID, Limits: plan.Limits, Eviction: eviction, Policy: policy, Durability: durability, HashSeed: seed, Epoch: 1,
		}, req.PrimaryRegion, req.ReplicaRegions)
	})
	if err != nil {
		return answer, err
	}
	answer = api.FleetDatabase{Database: d}
	if !again {
		answer.Password = password
		f.created.Inc()
		f.log.Info("database created", "database", uint64(d.ID), "plan", d.Plan, "primary", req.PrimaryRegion, "replicas", len(req.ReplicaRegions))
	}
	return answer, nil
}

// place puts copies on nodes, and words what can't be done as the caller's
// mistake with the regions there are.
func (f *Fleet) place(ctx context.Context, d catalog.Database, primary region.Code, replicas []region.Code) (catalog.Database, error) {
	nodes, err := f.store.nodes(ctx)
	if err != nil {
		return d, err
	}
	all, err := f.store.databases(ctx)
	if err != nil {
		return d, err
	}
	placed, err := placement.Place(d, primary, replicas, nodes, placement.Load(all))
	if missing, ok := errors.AsType[placement.NoNode](err); ok {
		var codes []string
		for _, r := range regionsOf(nodes) {
			codes = append(codes, string(r.Code))
		}
		slices.Sort(codes)
		return d, api.Unknown("region", string(missing.Region), codes)
	}
	if repeated, ok := errors.AsType[placement.Repeated](err); ok {
		message := fmt.Sprintf("region %q is named twice among the replicas", repeated.Region)
		if repeated.Region == primary {
			message = fmt.Sprintf("region %q is the primary's and can't have a replica too", primary)
		}
		return d, &api.Error{Code: api.Invalid, Field: "region", Message: message}
	}
	return placed, err
}

func (f *Fleet) cancelCreate(r *http.Request) (none, error) {
	key := r.PathValue("key")
	if key == "" || len(key) > maxKey {
		return none{}, api.Errorf(api.Invalid, "an idempotency key of 1 to %d bytes is needed", maxKey)
	}
	return none{}, f.store.cancel(r.Context(), key)
}

func (f *Fleet) list(r *http.Request) ([]api.FleetDatabase, error) {
	all, err := f.store.databases(r.Context())
	if err != nil {
		return nil, err
	}
	list := make([]api.FleetDatabase, len(all))
	for i, d := range all {
		list[i] = api.FleetDatabase{Database: d, Status: f.reports.of(&d)}
	}
	return list, nil
}

func (f *Fleet) get(r *http.Request) (answer api.FleetDatabase, err error) {
	id, err := pathID(r)
	if err != nil {
		return answer, err
	}
	d, err := f.store.database(r.Context(), id)
	if err != nil {
		return answer, err
	}
	return api.FleetDatabase{Database: d, Status: f.reports.of(&d)}, nil
}

func (f *Fleet) update(r *http.Request) (answer api.FleetDatabase, err error) {
	id, err := pathID(r)
	if err != nil {
		return answer, err
	}
	var req api.FleetUpdate
	if err := api.ReadJSON(r, &req); err != nil {
		return answer, err
	}
	var plan *api.Plan
	if req.Plan != nil {
		p, err := findPlan(*req.Plan)
		if err != nil {
			return answer, err
		}
		plan = &p
	}
	var durability api.Durability
	if req.Durability != nil {
		if durability, err = durabilityOf(*req.Durability, api.Plan{}); err != nil {
			return answer, err
		}
	}
	policy := ""
	if req.EvictionPolicy != nil {
		policy = *req.EvictionPolicy
	}
	if _, _, err := evictionOf(req.Eviction, policy, ""); err != nil {
		return answer, err
	}
	d, err := f.store.change(r.Context(), id, func(d *catalog.Database) error {
		if plan != nil {
			d.Plan, d.Limits = plan.ID, plan.Limits
		}
		if req.Eviction != nil || policy != "" {
			d.Eviction, d.Policy, _ = evictionOf(req.Eviction, policy, d.Policy) // no error, as before
		}
		if durability != "" {
			d.Durability = durability
		}
		if req.ReplicaRegions == nil {
			return nil
		}
		placed, err := f.place(r.Context(), *d, d.PrimaryCopy().Region, *req.ReplicaRegions)
		*d = placed
		return err
	})
	if err != nil {
		return answer, err
	}
	f.log.Info("database changed", "database", uint64(id), "plan", d.Plan, "replicas", len(d.Copies)-1)
	return api.FleetDatabase{Database: d, Status: f.reports.of(&d)}, nil
}

func (f *Fleet) destroy(r *http.Request) (none, error) {
	id, err := pathID(r)
	if err != nil {
		return none{}, err
	}
	if err := f.store.remove(r.Context(), id); err != nil {
		return none{}, err
	}
	f.reports.forget(id)
	f.destroyed.Inc()
	f.log.Info("database destroyed", "database", uint64(id))
	return none{}, nil
}

func (f *Fleet) resetPassword(r *http.Request) (answer api.FleetDatabase, err error) {
	id, err := pathID(r)
	if err != nil {
		return answer, err
	}
	password, hash := newPassword()
	d, err := f.store.change(r.Context(), id, func(d *catalog.Database) error {
		d.Password = hash
		return nil
	})
	if err != nil {
		return answer, err
	}
	f.log.Info("password reset", "database", uint64(id))
	return api.FleetDatabase{Database: d, Password: password}, nil
}

// openEpoch begins a new ownership. Two processes that both believe to be the
// primary's node get different epochs, and only the higher one's log counts.
func (f *Fleet) openEpoch(r *http.Request) (d catalog.Database, err error) {
	id, err := pathID(r)
	if err != nil {
		return d, err
	}
	var req api.EpochRequest
	if err := api.ReadJSON(r, &req); err != nil {
		return d, err
	}
	d, err = f.store.change(r.Context(), id, func(d *catalog.Database) error {
		if p := d.PrimaryCopy(); req.Node == "" || p.Node != req.Node {
			return api.Errorf(api.Conflict, "node %q is not the primary of database %d", req.Node, id)
		}
		d.Epoch++
		return nil
	})
	if err != nil {
		return d, err
	}
	f.epochs.Inc()
	f.log.Info("epoch opened", "database", uint64(id), "node", req.Node, "epoch", d.Epoch)
	return d, nil
}

func (f *Fleet) listPlans(*http.Request) ([]api.Plan, error) { return plans, nil }

func (f *Fleet) listNodes(r *http.Request) ([]catalog.Node, error) { return f.store.nodes(r.Context()) }

func (f *Fleet) listRegions(r *http.Request) ([]api.RegionInfo, error) {
	nodes, err := f.store.nodes(r.Context())
	if err != nil {
		return nil, err
	}
	return regionsOf(nodes), nil
}

func pathID(r *http.Request) (catalog.ID, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		return 0, api.Errorf(api.NotFound, "no database has the id %q", r.PathValue("id"))
	}
	return catalog.ID(id), nil
}

// newPassword is 128 random bits in hex, and what is stored of them.
func newPassword() (password, hash string) {
	var b [16]byte
	rand.Read(b[:])
	password = hex.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(password))
	return password, hex.EncodeToString(sum[:])
}

// newSeed keys a database's hash table. Tenants must not be able to guess it.
func newSeed() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}
