package platform

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"sigs.k8s.io/yaml"

	"vecino/api"
	"vecino/catalog"
	"vecino/fleet"
	"vecino/region"
)

var ctx = context.Background()

var regions = []region.Code{"mad", "ams", "gru", "scl"}

// world is a fleet and a platform, with nodes and edges that only say that
// they are there.
type world struct {
	*testing.T
	dir      string
	fleet    *fleet.Fleet
	node     *api.Fleet
	wire     *httptest.Server // between platform and fleet
	fault    atomic.Pointer[func(w http.ResponseWriter, r *http.Request, forward http.Handler)]
	platform *Platform
	user     *api.Platform
	edge     *api.Platform
	crashAt  atomic.Pointer[string]
	config   Config
}

func open(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, dir: t.TempDir()}
	f, err := fleet.Open(ctx, fleet.Config{Listen: "127.0.0.1:0", Dir: t.TempDir(), PlatformToken: "fp", NodeToken: "fn"})
	w.must(err)
	w.fleet, w.node = f, api.NewFleet(f.URL(), "fn")
	t.Cleanup(func() { f.Close() })
	for _, r := range regions {
		w.must(w.node.RegisterNode(ctx, catalog.Node{ID: string(r) + "-1", Region: r, Proxy: "127.0.0.1:70" + string(r[0]), Gossip: "[::1]:1"}))
	}

	to, _ := url.Parse(f.URL())
	forward := httputil.NewSingleHostReverseProxy(to)
	forward.FlushInterval = -1
	w.wire = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if fault := w.fault.Load(); fault != nil {
			(*fault)(rw, r, forward)
			return
		}
		forward.ServeHTTP(rw, r)
	}))
	t.Cleanup(func() { w.wire.CloseClientConnections(); w.wire.Close() })
	w.start()
	for _, r := range regions {
		_, err := w.edge.ReportEdge(ctx, api.Edge{ID: "edge-" + string(r), Region: r, Endpoint: "127.0.0.1", Gossip: "[::1]:2"})
		w.must(err)
	}
	return w
}

func (w *world) start() {
	w.Helper()
	w.config = Config{
		Listen: "127.0.0.1:0", Dir: w.dir, Fleet: w.wire.URL, FleetToken: "fp", EdgeToken: "e", UserToken: "u",
		LoopbackPort: 6379, Regions: regions,
		crashAt: func(step string) bool { at := w.crashAt.Load(); return at != nil && *at == step },
	}
	p, err := Open(ctx, w.config)
	w.must(err)
	w.platform, w.user, w.edge = p, api.NewPlatform(p.URL(), "u"), api.NewPlatform(p.URL(), "e")
	w.Cleanup(func() { p.Close() })
}

// restart is a crash and a new start of the platform on the same directory.
func (w *world) restart() {
	w.Helper()
	w.must(w.platform.Close())
	w.crashAt.Store(nil)
	w.start()
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) wantCode(err error, code api.ErrorCode) *api.Error {
	w.Helper()
	if api.CodeOf(err) != code {
		w.Fatalf("error is %v (%s), want code %s", err, api.CodeOf(err), code)
	}
	e, _ := errors.AsType[*api.Error](err)
	return e
}

// settled waits until no intent is left.
func (w *world) settled() []record {
	w.Helper()
	c, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	list, revision, err := w.platform.store.list(c, "")
	w.must(err)
	watch := w.platform.store.etcd.Watch(c, databasePrefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1))
	for slices.ContainsFunc(list, func(r record) bool { return r.Phase != ready || r.Resetting }) {
		if _, ok := <-watch; !ok {
			w.Fatalf("intents are left: %+v", list)
		}
		list, _, err = w.platform.store.list(c, "")
		w.must(err)
	}
	return list
}

// wantNothingLeft checks both services.
func (w *world) wantNothingLeft() {
	w.Helper()
	if list := w.settled(); len(list) != 0 {
		w.Errorf("the platform has %+v", list)
	}
	list, err := api.NewFleet(w.fleet.URL(), "fp").Databases(ctx)
	w.must(err)
	if len(list) != 0 {
		w.Errorf("the fleet has %+v", list)
	}
}

func lovers() api.CreateDatabase {
	return api.CreateDatabase{Name: "redis-for-lovers", PrimaryRegion: "mad", ReplicaRegions: []api.Region{"ams", "gru"}, Eviction: true, Plan: "Free"}
}

func (w *world) create(name string) api.Database {
	w.Helper()
	r := lovers()
	r.Name = name
	d, err := w.user.CreateDatabase(ctx, "", r)
	w.must(err)
	return d
}

func TestCreateAnswersWithWhereTheDatabaseIsReached(t *testing.T) {
	w := open(t)
	d := w.create("redis-for-lovers")
	if d.Address.String() != "fdaa:0:47fb:0:1::2" || d.Organization != "personal" || d.Plan != "Free" || d.State != "ready" || !d.Eviction {
		t.Errorf("answer is %+v", d)
	}
	password := strings.TrimSuffix(strings.TrimPrefix(d.URL, "redis://default:"), "@127.100.0.2:6379")
	if len(password) != 32 {
		t.Fatalf("url is %s", d.URL)
	}
	var got []string
	for _, e := range d.Endpoints {
		got = append(got, fmt.Sprintf("%s %s %s", e.Region, e.Role, strings.TrimPrefix(e.URL, "redis://default:"+password+"@")))
	}
	want := []string{"mad primary 127.100.0.2:6379", "ams replica 127.101.0.2:6379", "gru replica 127.102.0.2:6379", "scl edge 127.103.0.2:6379"}
	if !slices.Equal(got, want) {
		t.Errorf("endpoints are %q\nwant %q", got, want)
	}
	again, err := w.user.Database(ctx, "", "redis-for-lovers")
	w.must(err)
	if again.URL != d.URL || again.ID != d.ID {
		t.Errorf("status says %+v", again)
	}
}

func TestOneKeyIsOneDatabaseAlsoAtOnce(t *testing.T) {
	w := open(t)
	var tasks sync.WaitGroup
	ids := make([]api.ID, 6)
	r := lovers()
	r.Name = "" // generated: the same key must give the same name
	for i := range ids {
		tasks.Go(func() {
			d, err := w.user.CreateDatabase(ctx, "key", r)
			if err != nil {
				t.Error(err)
			}
			ids[i] = d.ID
		})
	}
	tasks.Wait()
	if len(slices.Compact(ids)) != 1 || ids[0] == 0 {
		t.Errorf("one key made %v", ids)
	}
	r.Eviction = false
	_, err := w.user.CreateDatabase(ctx, "key", r)
	w.wantCode(err, api.KeyReused)

	list, err := w.user.Databases(ctx, "")
	w.must(err)
	w.must(w.user.DestroyDatabase(ctx, "", list[0].Name))
	r.Eviction = true
	_, err = w.user.CreateDatabase(ctx, "key", r)
	w.wantCode(err, api.Gone)
	w.wantNothingLeft()
}

func TestOneNameCanBeHadOnce(t *testing.T) {
	w := open(t)
	var tasks sync.WaitGroup
	var made, refused atomic.Int32
	for range 6 {
		tasks.Go(func() {
			_, err := w.user.CreateDatabase(ctx, "", lovers())
			switch api.CodeOf(err) {
			case "":
				made.Add(1)
			case api.Conflict:
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	tasks.Wait()
	if made.Load() != 1 || refused.Load() != 5 {
		t.Errorf("%d were made and %d refused", made.Load(), refused.Load())
	}
}

func TestMistakesListTheChoicesAndLeaveNothing(t *testing.T) {
	w := open(t)
	codes := []string{"ams", "gru", "mad", "scl"}
	names := []string{"Free", "Pay-as-you-go", "Fixed 250MB", "Fixed 1GB", "Fixed 5GB", "Fixed 10GB", "Fixed 50GB"}
	for _, c := range []struct {
		name    string
		mistake func(*api.CreateDatabase)
		message string
		choices []string
	}{
		{"primary region", func(r *api.CreateDatabase) { r.PrimaryRegion = "xyz" }, `region "xyz" not found`, codes},
		{"replica region", func(r *api.CreateDatabase) { r.ReplicaRegions = []api.Region{"ams", "syd"} }, `region "syd" not found`, codes},
		{"replica twice", func(r *api.CreateDatabase) { r.ReplicaRegions = []api.Region{"ams", "ams"} }, `region "ams" is named twice among the replicas`, nil},
		{"primary as replica", func(r *api.CreateDatabase) { r.ReplicaRegions = []api.Region{"mad"} }, `region "mad" is the primary's and can't have a replica too`, nil},
		{"no region", func(r *api.CreateDatabase) { r.PrimaryRegion = "" }, "a primary region is needed", nil},
		{"plan", func(r *api.CreateDatabase) { r.Plan = "gold" }, `plan "gold" not found`, names},
		{"organization", func(r *api.CreateDatabase) { r.Organization = "acme" }, `organization "acme" not found`, []string{"personal"}},
		{"name", func(r *api.CreateDatabase) { r.Name = "Für Dich" }, `name "Für Dich" can't be used: 1 to 63 lower-case letters, digits and hyphens, and no hyphen at either end`, nil},
		{"long name", func(r *api.CreateDatabase) { r.Name = strings.Repeat("x", 64) }, "", nil},
		{"hyphen", func(r *api.CreateDatabase) { r.Name = "-x" }, "", nil},
	} {
		r := lovers()
		c.mistake(&r)
		_, err := w.user.CreateDatabase(ctx, "", r)
		e := w.wantCode(err, api.Invalid)
		if c.message != "" && e.Message != c.message || !slices.Equal(e.Choices, c.choices) {
			t.Errorf("%s: %q, choices %v", c.name, e.Message, e.Choices)
		}
	}
	w.wantNothingLeft()
	if d := w.create("after-all"); d.Address.String() != "fdaa:0:47fb:0:1::2" {
		t.Errorf("refused requests used addresses up: the first database has %s", d.Address)
	}
	_, err := w.user.Database(ctx, "", "nobody")
	if e := w.wantCode(err, api.NotFound); !slices.Equal(e.Choices, []string{"after-all"}) {
		t.Errorf("choices are %v", e.Choices)
	}
}

// Ways in which a call of the fleet can go wrong.
var faults = map[string]func(w http.ResponseWriter, r *http.Request, forward http.Handler){
	"refused": func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		http.Error(w, "out of order", http.StatusInternalServerError)
	},
	"cut before": func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) },
	"answer lost": func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		forward.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	},
}

// failing applies a fault to calls of one method and path.
func (w *world) failing(method, path, fault string) {
	f := func(rw http.ResponseWriter, r *http.Request, forward http.Handler) {
		if r.Method == method && strings.HasPrefix(r.URL.Path, path) {
			faults[fault](rw, r, forward)
			return
		}
		forward.ServeHTTP(rw, r)
	}
	w.fault.Store(&f)
}

func TestFailureAtTheFleetIsUndoneWhole(t *testing.T) {
	for fault := range faults {
		t.Run(fault, func(t *testing.T) {
			w := open(t)
			w.failing("POST", "/v1/databases", fault)
			_, err := w.user.CreateDatabase(ctx, "key", lovers())
			w.wantCode(err, api.Unavailable)
			w.wantNothingLeft()

			w.fault.Store(nil)
			d, err := w.user.CreateDatabase(ctx, "key", lovers())
			w.must(err)
			if d.Address.String() != "fdaa:0:47fb:0:1::3" {
				t.Errorf("address %s follows the one given up, ::2", d.Address)
			}
		})
	}
}

func TestUndoingGoesOnWhenTheFleetComesBack(t *testing.T) {
	w := open(t)
	w.fault.Store(new(func(rw http.ResponseWriter, r *http.Request, forward http.Handler) {
		switch {
		case r.Method == "POST":
			faults["answer lost"](rw, r, forward)
		case r.Method == "DELETE":
			faults["cut before"](rw, r, forward)
		default:
			forward.ServeHTTP(rw, r)
		}
	}))
	_, err := w.user.CreateDatabase(ctx, "", lovers())
	w.wantCode(err, api.Unavailable)
	d, err := w.user.Database(ctx, "", "redis-for-lovers")
	w.must(err)
	if d.State != "undoing" || d.URL != "" {
		t.Errorf("meanwhile it is %q with url %q", d.State, d.URL)
	}
	_, err = w.user.CreateDatabase(ctx, "", lovers())
	w.wantCode(err, api.Conflict) // the name is not free yet

	w.fault.Store(nil)
	w.wantNothingLeft()
	w.create("redis-for-lovers")
}

func TestCrashAtAnyStepOfACreationLeavesADatabaseOrNothing(t *testing.T) {
	for _, c := range []struct {
		step string
		made bool
	}{
		{"reserved", false}, {"fleet made it", false}, {"finished", true},
	} {
		t.Run(c.step, func(t *testing.T) {
			w := open(t)
			w.crashAt.Store(&c.step)
			_, err := w.user.CreateDatabase(ctx, "key", lovers())
			if err == nil {
				t.Fatal("the platform didn't crash")
			}
			w.restart()
			if c.made {
				if list := w.settled(); len(list) != 1 {
					t.Fatalf("after the crash there are %+v", list)
				}
			} else {
				w.wantNothingLeft()
			}

			// The client never heard of any of it and asks again.
			d, err := w.user.CreateDatabase(ctx, "key", lovers())
			w.must(err)
			if !strings.HasPrefix(d.URL, "redis://default:") {
				t.Errorf("url is %q", d.URL)
			}
			list, err := api.NewFleet(w.fleet.URL(), "fp").Databases(ctx)
			w.must(err)
			if len(list) != 1 || list[0].Database.ID != d.ID {
				t.Errorf("the fleet has %+v, the user %d", list, d.ID)
			}
		})
	}
}

func TestCrashWhileUndoingOrDestroyingIsCarriedOn(t *testing.T) {
	for _, step := range []string{"undoing", "fleet cancelled"} {
		t.Run(step, func(t *testing.T) {
			w := open(t)
			w.failing("POST", "/v1/databases", "answer lost")
			w.crashAt.Store(&step)
			if _, err := w.user.CreateDatabase(ctx, "", lovers()); err == nil {
				t.Fatal("creation succeeded")
			}
			w.fault.Store(nil)
			w.restart()
			w.wantNothingLeft()
		})
	}
	for _, step := range []string{"destroying", "fleet destroyed"} {
		t.Run(step, func(t *testing.T) {
			w := open(t)
			w.create("redis-for-lovers")
			w.crashAt.Store(&step)
			if err := w.user.DestroyDatabase(ctx, "", "redis-for-lovers"); err == nil {
				t.Fatal("the platform didn't crash")
			}
			w.restart()
			w.wantNothingLeft()
		})
	}
}

func TestPasswordResetSurvivesACrashBetweenFleetAndPlatform(t *testing.T) {
	for _, step := range []string{"none", "resetting", "fleet reset"} {
		t.Run(step, func(t *testing.T) {
			w := open(t)
			before := w.create("redis-for-lovers")
			w.crashAt.Store(&step)
			d, err := w.user.ResetPassword(ctx, "", "redis-for-lovers")
			if step == "none" {
				w.must(err)
			} else if err == nil {
				t.Fatal("the platform didn't crash")
			} else {
				w.restart()
				w.settled()
				d, err = w.user.Database(ctx, "", "redis-for-lovers")
				w.must(err)
			}
			if d.URL == before.URL {
				t.Error("the password is the old one")
			}
			password := strings.Split(strings.Split(d.URL, ":")[2], "@")[0]
			f, err := api.NewFleet(w.fleet.URL(), "fp").Database(ctx, d.ID)
			w.must(err)
			if h := api.HashToken(password); fmt.Sprintf("%x", h) != f.Database.Password {
				t.Error("the platform's password is not the fleet's")
			}
		})
	}
}

func TestUpdateAndDestroy(t *testing.T) {
	w := open(t)
	w.create("redis-for-lovers")
	d, err := w.user.UpdateDatabase(ctx, "", "redis-for-lovers", api.UpdateDatabase{ReplicaRegions: &[]api.Region{"scl"}, Plan: new("fixed 1gb")})
	w.must(err)
	if !slices.Equal(d.ReplicaRegions, []api.Region{"scl"}) || d.Plan != "Fixed 1GB" || !d.Eviction {
		t.Errorf("after the update: %+v", d)
	}
	_, err = w.user.UpdateDatabase(ctx, "", "redis-for-lovers", api.UpdateDatabase{ReplicaRegions: &[]api.Region{"xyz"}})
	if e := w.wantCode(err, api.Invalid); len(e.Choices) != 4 {
		t.Errorf("choices are %v", e.Choices)
	}
	w.must(w.user.DestroyDatabase(ctx, "", "redis-for-lovers"))
	w.wantCode(w.user.DestroyDatabase(ctx, "", "redis-for-lovers"), api.NotFound)
	w.wantNothingLeft()
	if again := w.create("redis-for-lovers"); again.Address == d.Address || again.ID == d.ID {
		t.Errorf("address %s or id %d came back", again.Address, again.ID)
	}
}

func TestOrganizationsSeeOnlyTheirOwn(t *testing.T) {
	w := open(t)
	o, err := w.user.CreateOrganization(ctx, "acme", "")
	w.must(err)
	if o.Network != "fdaa:0:47fc::/48" {
		t.Errorf("second organization has the network %s", o.Network)
	}
	_, err = w.user.CreateOrganization(ctx, "acme", "")
	w.wantCode(err, api.Conflict)
	_, err = w.user.CreateDatabase(ctx, "", lovers())
	if e := w.wantCode(err, api.Invalid); !slices.Equal(e.Choices, []string{"personal", "acme"}) {
		t.Errorf("choices are %v", e.Choices)
	}
	r := lovers()
	for _, r.Organization = range []string{"acme", "personal"} {
		_, err = w.user.CreateDatabase(ctx, "", r)
		w.must(err)
	}
	_, err = w.user.Database(ctx, "", "redis-for-lovers")
	w.wantCode(err, api.Invalid)
	a, err := w.user.Database(ctx, "acme", "redis-for-lovers")
	w.must(err)
	b, err := w.user.Database(ctx, "personal", "redis-for-lovers")
	w.must(err)
	if a.Address.String() != "fdaa:0:47fc:0:1::2" || b.Address.String() != "fdaa:0:47fb:0:1::2" {
		t.Errorf("addresses are %s and %s", a.Address, b.Address)
	}
	if a.URL[len(a.URL)-16:] == b.URL[len(b.URL)-16:] {
		t.Errorf("two organizations share the loopback address of %s", a.URL)
	}

	stranger := encode(token{Organizations: []string{"acme"}})
	_, err = w.platform.store.etcd.Put(ctx, tokenKey("s"), stranger)
	w.must(err)
	list, err := api.NewPlatform(w.platform.URL(), "s").Databases(ctx, "")
	w.must(err)
	if len(list) != 1 || list[0].Organization != "acme" {
		t.Errorf("a stranger sees %+v", list)
	}
	_, err = api.NewPlatform(w.platform.URL(), "s").Database(ctx, "personal", "redis-for-lovers")
	w.wantCode(err, api.Invalid)
	_, err = api.NewPlatform(w.platform.URL(), "x").Databases(ctx, "")
	w.wantCode(err, api.Unauthorized)
	_, err = w.edge.Databases(ctx, "")
	w.wantCode(err, api.Unauthorized)
	_, err = w.user.ReportEdge(ctx, api.Edge{ID: "edge-x", Region: "mad"})
	w.wantCode(err, api.Unauthorized)
}

// follow collects the events of a route watch.
func (w *world) follow() <-chan api.RouteEvent {
	events := make(chan api.RouteEvent, 100)
	c, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	client := w.edge
	tasks.Go(func() {
		client.WatchRoutes(c, "mad", func(e api.RouteEvent) error { events <- e; return nil })
	})
	w.Cleanup(func() { cancel(); tasks.Wait() })
	return events
}

func (w *world) until(events <-chan api.RouteEvent, what string, fits func(api.RouteEvent) bool) api.RouteEvent {
	w.Helper()
	for {
		select {
		case e := <-events:
			if fits(e) {
				return e
			}
		case <-time.After(10 * time.Second):
			w.Fatalf("%s didn't come", what)
		}
	}
}

func (w *world) live(d api.Database, node string) {
	w.Helper()
	f, err := api.NewFleet(w.fleet.URL(), "fp").Database(ctx, d.ID)
	w.must(err)
	c := f.Database.CopyOn(node)
	w.must(w.node.Report(ctx, node, api.NodeReport{Copies: []api.CopyStatus{{Database: d.ID, Generation: c.Generation, Role: c.Role, State: catalog.Live}}}))
}

func TestRoutesHaveLiveCopiesOnlyAndAllRegionsToCallFrom(t *testing.T) {
	w := open(t)
	events := w.follow()
	w.until(events, "synced", func(e api.RouteEvent) bool { return e.Synced })
	d := w.create("redis-for-lovers")
	e := w.until(events, "the route", func(e api.RouteEvent) bool { return e.Route != nil })
	if e.Route.Address != d.Address || len(e.Route.Serving) != 0 || len(e.Route.Loopback) != 4 || e.Route.Loopback["scl"] != "127.103.0.2:6379" {
		t.Errorf("route before any copy is live: %+v", e.Route)
	}
	first := e.Route.Revision
	w.live(d, "mad-1")
	e = w.until(events, "the primary", func(e api.RouteEvent) bool { return e.Route != nil && len(e.Route.Serving) > 0 })
	if want := (api.Serving{Region: "mad", Node: "mad-1", Proxy: "127.0.0.1:70m", Role: catalog.Primary}); e.Route.Serving[0] != want || e.Route.Revision <= first {
		t.Errorf("route is %+v", e.Route)
	}
	w.live(d, "gru-1")
	w.until(events, "the replica", func(e api.RouteEvent) bool { return e.Route != nil && len(e.Route.Serving) == 2 })
	status, err := w.user.Database(ctx, "", d.Name)
	w.must(err)
	if status.Endpoints[2].State != catalog.Live || status.Endpoints[1].State != catalog.Syncing {
		t.Errorf("endpoints are %+v", status.Endpoints)
	}
	_, err = w.user.UpdateDatabase(ctx, "", d.Name, api.UpdateDatabase{ReplicaRegions: &[]api.Region{}})
	w.must(err)
	w.until(events, "the replica's end", func(e api.RouteEvent) bool { return e.Route != nil && len(e.Route.Serving) == 1 })
	w.must(w.user.DestroyDatabase(ctx, "", d.Name))
	e = w.until(events, "the end", func(e api.RouteEvent) bool { return e.Gone != nil })
	if *e.Gone != d.Address {
		t.Errorf("%s is gone, want %s", e.Gone, d.Address)
	}
}

func TestEdgeKeepsItsRoutesWhileThePlatformRestartsWithoutAFleet(t *testing.T) {
	w := open(t)
	kept, lost := w.create("kept"), w.create("lost")
	w.live(kept, "mad-1")
	w.live(lost, "mad-1")
	var addr atomic.Pointer[string]
	addr.Store(new(w.platform.URL()))
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		to, _ := url.Parse(*addr.Load())
		proxy := httputil.NewSingleHostReverseProxy(to)
		proxy.FlushInterval = -1
		proxy.ServeHTTP(rw, r)
	}))
	t.Cleanup(front.Close)
	w.edge = api.NewPlatform(front.URL, "e")
	events := w.follow()
	t.Cleanup(front.CloseClientConnections)
	w.until(events, "synced", func(e api.RouteEvent) bool { return e.Synced })

	w.must(w.user.DestroyDatabase(ctx, "", "lost"))
	w.until(events, "the end of one", func(e api.RouteEvent) bool { return e.Gone != nil && *e.Gone == lost.Address })

	// The platform comes back while the fleet is away: no news at all.
	w.failing("GET", "/v1/catalog/watch", "cut before")
	w.wire.CloseClientConnections()
	w.restart()
	w.edge = api.NewPlatform(front.URL, "e")
	addr.Store(new(w.platform.URL()))
	if w.platform.healthy() == nil {
		t.Error("a platform without a catalog says it is well")
	}
	w.fault.Store(nil)
	for e := range events {
		if e.Gone != nil {
			t.Fatalf("%s was taken away", e.Gone)
		}
		if e.Synced {
			break
		}
		t.Logf("heard %+v", e)
	}
	edges, err := w.user.Edges(ctx)
	w.must(err)
	if len(edges) != 4 {
		t.Errorf("edges known after the restart: %+v", edges)
	}
}

func TestEdgesAreToldWhereOthersCanBeMet(t *testing.T) {
	w := open(t)
	until := w.follow() // the catalog is read once this has begun
	w.until(until, "synced", func(e api.RouteEvent) bool { return e.Synced })
	s, err := w.edge.ReportEdge(ctx, api.Edge{ID: "edge-mad", Region: "mad", Gossip: "[::1]:3"})
	w.must(err)
	if want := slices.Concat(slices.Repeat([]string{"[::1]:1"}, 4), slices.Repeat([]string{"[::1]:2"}, 3)); !slices.Equal(s.Gossip, want) {
		t.Errorf("gossip is at %v", s.Gossip)
	}
	_, err = w.edge.ReportEdge(ctx, api.Edge{ID: "edge-mad", Region: "xyz"})
	w.wantCode(err, api.Invalid)
}

func TestSealedPasswordIsReadWithItsOwnKeyAndRecordOnly(t *testing.T) {
	dir := t.TempDir()
	s, err := openSealer(dir + "/a")
	if err != nil {
		t.Fatal(err)
	}
	sealed := s.seal("secret", "uid")
	again, err := openSealer(dir + "/a")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.open(sealed, "uid"); got != "secret" || err != nil {
		t.Errorf("unsealed %q, %v", got, err)
	}
	if _, err := again.open(sealed, "other"); err == nil {
		t.Error("it opens for another record")
	}
	if strings.Contains(string(sealed), "secret") {
		t.Error("it isn't sealed")
	}
	other, err := openSealer(dir + "/b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.open(sealed, "uid"); err == nil {
		t.Error("it opens with another key")
	}
	if _, err := s.open(sealed[:5], "uid"); err == nil {
		t.Error("a stump opens")
	}
}

func TestGeneratedNamesAreValid(t *testing.T) {
	for range 1000 {
		if err := checkName("name", generateName()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoopbackAddresses(t *testing.T) {
	l := loopback{6379, []region.Code{"mad", "gru"}}
	for _, c := range []struct {
		region region.Code
		serial uint32
		want   string
	}{
		{"mad", 2, "127.100.0.2:6379"}, {"gru", 258, "127.101.1.2:6379"}, {"gru", 65535, "127.101.255.255:6379"},
		{"gru", 65536, ""}, {"scl", 2, ""},
	} {
		if got := l.address(c.region, c.serial); got != c.want {
			t.Errorf("address(%s, %d) = %q, want %q", c.region, c.serial, got, c.want)
		}
	}
	if got := (loopback{0, l.regions}).address("mad", 2); got != "" {
		t.Errorf("without a port there is %q", got)
	}
}

func TestOpenAPIFileHasAllCalls(t *testing.T) {
	var spec struct {
		Paths map[string]map[string]any
	}
	if err := yaml.Unmarshal(api.PlatformSpec, &spec); err != nil {
		t.Fatal(err)
	}
	var documented []string
	for path, methods := range spec.Paths {
		for method := range methods {
			documented = append(documented, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(documented)
	if served := slices.Sorted(maps.Keys(new(Platform).calls())); !slices.Equal(served, documented) {
		t.Errorf("served:\n%v\nin openapi-platform.yaml:\n%v", served, documented)
	}
}
