package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"vecino/api"
	"vecino/catalog"
	"vecino/internal/etcd"
	"vecino/region"
)

var ctx = context.Background()

// world is a fleet with one node in each of four regions.
type world struct {
	*testing.T
	fleet    *Fleet
	platform *api.Fleet
	node     *api.Fleet
}

func open(t *testing.T) *world {
	t.Helper()
	w := &world{T: t}
	w.start(t.TempDir())
	for _, r := range []region.Code{"mad", "ams", "gru", "scl"} {
		w.must(w.node.RegisterNode(ctx, catalog.Node{ID: string(r) + "-1", Region: r, Proxy: "127.0.0.1:1", Link: "127.0.0.1:2", Gossip: "[::1]:3"}))
	}
	return w
}

func (w *world) start(dir string) {
	w.Helper()
	f, err := Open(ctx, Config{Listen: "127.0.0.1:0", Dir: dir, PlatformToken: "p", NodeToken: "n"})
	if err != nil {
		w.Fatal(err)
	}
	w.fleet, w.platform, w.node = f, api.NewFleet(f.URL(), "p"), api.NewFleet(f.URL(), "n")
	w.Cleanup(func() { f.Close() })
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
	e, _ := err.(*api.Error)
	return e
}

func request(n int) api.FleetCreate {
	return api.FleetCreate{
		Name: "cookherenow-redis", Plan: "Free", PrimaryRegion: "mad", ReplicaRegions: []api.Region{"gru", "scl"},
		Address: netip.AddrFrom16([16]byte{0xfd, 0xaa, 0, 0, 0x47, 0xfb, 0, 0, 0, 1, 14: 0, 15: byte(n)}),
	}
}

func (w *world) create(n int) api.FleetDatabase {
	w.Helper()
	d, err := w.platform.CreateDatabase(ctx, request(n).Address.String(), request(n))
	w.must(err)
	return d
}

func TestCreateRecordsADatabaseAndGivesItsPasswordOnce(t *testing.T) {
	w := open(t)
	d, err := w.platform.CreateDatabase(ctx, "key", request(2))
	w.must(err)
	sum := sha256.Sum256([]byte(d.Password))
	if len(d.Password) != 32 || d.Database.Password != hex.EncodeToString(sum[:]) {
		t.Errorf("password %q has the hash %q", d.Password, d.Database.Password)
	}
	if d.Database.ID == 0 || d.Database.HashSeed == 0 || d.Database.Revision == 0 || d.Database.Limits.DataBytes != 100<<20 {
		t.Errorf("record is not complete: %+v", d.Database)
	}
	if p := d.Database.PrimaryCopy(); p == nil || p.Node != "mad-1" || p.State != catalog.Syncing {
		t.Errorf("primary copy is %+v", p)
	}
	if got := d.Database.ReplicaRegions(); !slices.Equal(got, []region.Code{"gru", "scl"}) {
		t.Errorf("replica regions are %v", got)
	}

	again, err := w.platform.CreateDatabase(ctx, "key", request(2))
	w.must(err)
	if again.Database.ID != d.Database.ID || again.Password != "" {
		t.Errorf("same key again: database %d with password %q, want %d without", again.Database.ID, again.Password, d.Database.ID)
	}
	_, err = w.platform.CreateDatabase(ctx, "key", request(3))
	w.wantCode(err, api.KeyReused)
	_, err = w.platform.CreateDatabase(ctx, "other key", request(2))
	w.wantCode(err, api.Conflict) // the address is taken
}

func TestOneKeyAtOnceIsOneDatabase(t *testing.T) {
	w := open(t)
	var tasks sync.WaitGroup
	ids := make([]catalog.ID, 8)
	for i := range ids {
		tasks.Go(func() {
			d, err := w.platform.CreateDatabase(ctx, "key", request(2))
			if err != nil {
				t.Error(err)
			}
			ids[i] = d.Database.ID
		})
	}
	tasks.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("one key made databases %v", ids)
		}
	}
	all, err := w.platform.Databases(ctx)
	w.must(err)
	if len(all) != 1 {
		t.Errorf("there are %d databases", len(all))
	}
}

func TestWhatDoesNotExistIsRefusedWithTheChoices(t *testing.T) {
	w := open(t)
	for _, c := range []struct {
		name    string
		mistake func(*api.FleetCreate)
		choices []string
	}{
		{"primary region", func(r *api.FleetCreate) { r.PrimaryRegion = "xyz" }, []string{"ams", "gru", "mad", "scl"}},
		{"region without a node", func(r *api.FleetCreate) { r.ReplicaRegions = []api.Region{"syd"} }, []string{"ams", "gru", "mad", "scl"}},
		{"plan", func(r *api.FleetCreate) { r.Plan = "gold" }, []string{"Free", "Pay-as-you-go", "Fixed 250MB", "Fixed 1GB", "Fixed 5GB", "Fixed 10GB", "Fixed 50GB"}},
		{"primary among replicas", func(r *api.FleetCreate) { r.ReplicaRegions = []api.Region{"mad"} }, nil},
		{"replica twice", func(r *api.FleetCreate) { r.ReplicaRegions = []api.Region{"gru", "gru"} }, nil},
		{"no address", func(r *api.FleetCreate) { r.Address = netip.Addr{} }, nil},
	} {
		r := request(2)
		c.mistake(&r)
		_, err := w.platform.CreateDatabase(ctx, "key "+c.name, r)
		if e := w.wantCode(err, api.Invalid); !slices.Equal(e.Choices, c.choices) {
			t.Errorf("%s: choices %v, want %v", c.name, e.Choices, c.choices)
		}
	}
	if all, _ := w.platform.Databases(ctx); len(all) != 0 {
		t.Errorf("refused requests left %d databases", len(all))
	}
}

func TestCancelledCreationLeavesNothingWhenItArrivesLate(t *testing.T) {
	w := open(t)
	w.must(w.platform.CancelCreate(ctx, "late"))
	_, err := w.platform.CreateDatabase(ctx, "late", request(2))
	w.wantCode(err, api.Gone)

	_, err = w.platform.CreateDatabase(ctx, "early", request(2))
	w.must(err)
	w.must(w.platform.CancelCreate(ctx, "early"))
	w.must(w.platform.CancelCreate(ctx, "early"))
	if all, _ := w.platform.Databases(ctx); len(all) != 0 {
		t.Errorf("cancelled creation left %d databases", len(all))
	}
	d, err := w.platform.CreateDatabase(ctx, "new", request(2)) // the address is free again
	w.must(err)
	if d.Database.ID != 2 {
		t.Errorf("database has the id %d; 1 was used and 2 is next", d.Database.ID)
	}
}

func TestIDsAreNotUsedAgainAfterARestart(t *testing.T) {
	w := open(t)
	dir := t.TempDir()
	w.start(dir)
	w.must(w.node.RegisterNode(ctx, catalog.Node{ID: "mad-1", Region: "mad", Proxy: "127.0.0.1:1"}))
	r := request(2)
	r.ReplicaRegions = nil
	d, err := w.platform.CreateDatabase(ctx, "a", r)
	w.must(err)
	w.must(w.platform.DeleteDatabase(ctx, d.Database.ID))
	w.must(w.fleet.Close())

	w.start(dir)
	again, err := w.platform.CreateDatabase(ctx, "b", r)
	w.must(err)
	if again.Database.ID <= d.Database.ID {
		t.Errorf("id %d came after %d", again.Database.ID, d.Database.ID)
	}
	_, err = w.platform.CreateDatabase(ctx, "a", r)
	w.wantCode(err, api.Gone)
}

func TestOnlyThePrimarysNodeGetsEpochsAndNoEpochTwice(t *testing.T) {
	w := open(t)
	id := w.create(2).Database.ID
	var mu sync.Mutex
	var got []uint32
	var tasks sync.WaitGroup
	for range 8 {
		tasks.Go(func() {
			d, err := w.node.OpenEpoch(ctx, id, "mad-1")
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			got = append(got, d.Epoch)
		})
	}
	tasks.Wait()
	slices.Sort(got)
	if !slices.Equal(got, []uint32{2, 3, 4, 5, 6, 7, 8, 9}) {
		t.Errorf("epochs given: %v", got)
	}
	_, err := w.node.OpenEpoch(ctx, id, "gru-1")
	w.wantCode(err, api.Conflict)
	_, err = w.platform.OpenEpoch(ctx, id, "mad-1")
	w.wantCode(err, api.Unauthorized)
	_, err = w.node.OpenEpoch(ctx, 99, "mad-1")
	w.wantCode(err, api.NotFound)
}

func TestTokensOpenOnlyTheirOwnDoors(t *testing.T) {
	w := open(t)
	_, err := w.node.CreateDatabase(ctx, "k", request(2))
	w.wantCode(err, api.Unauthorized)
	w.wantCode(w.platform.RegisterNode(ctx, catalog.Node{ID: "x"}), api.Unauthorized)
	_, err = api.NewFleet(w.fleet.URL(), "").Plans(ctx)
	w.wantCode(err, api.Unauthorized)
	err = api.NewFleet(w.fleet.URL(), "x").WatchCatalog(ctx, 0, "", func(catalog.Event) error { return nil })
	w.wantCode(err, api.Unauthorized)
}

func TestNodeThatHoldsDatabasesCannotMove(t *testing.T) {
	w := open(t)
	moved := catalog.Node{ID: "mad-1", Region: "ams", Proxy: "127.0.0.1:1"}
	w.create(2)
	w.wantCode(w.node.RegisterNode(ctx, moved), api.Conflict)
	moved.ID = "ams-2"
	w.must(w.node.RegisterNode(ctx, moved))
	moved.Region = "xyz"
	if e := w.wantCode(w.node.RegisterNode(ctx, moved), api.Invalid); len(e.Choices) != len(region.All()) {
		t.Errorf("choices are %v", e.Choices)
	}
}

// follow collects events of a watch into a channel.
func (w *world) follow(from int64, node string) <-chan catalog.Event {
	events := make(chan catalog.Event, 100)
	c, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	tasks.Go(func() {
		w.node.WatchCatalog(c, from, node, func(e catalog.Event) error { events <- e; return nil })
	})
	w.Cleanup(func() { cancel(); tasks.Wait() })
	return events
}

// until returns the first event that fits.
func until(t *testing.T, events <-chan catalog.Event, fits func(catalog.Event) bool) catalog.Event {
	t.Helper()
	for {
		select {
		case e := <-events:
			if fits(e) {
				return e
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the event didn't come")
		}
	}
}

func synced(e catalog.Event) bool { return e.Synced }

func TestStateReportedByANodeReachesThoseWhoWatch(t *testing.T) {
	w := open(t)
	d := w.create(2).Database
	events := w.follow(0, "")
	until(t, events, synced)

	report := api.CopyStatus{Database: d.ID, Generation: d.CopyOn("gru-1").Generation, Role: catalog.Replica, State: catalog.Live, Bytes: 7, Applied: api.Position{Epoch: 1, Seq: 9}}
	w.must(w.node.Report(ctx, "gru-1", api.NodeReport{Copies: []api.CopyStatus{report}}))
	e := until(t, events, func(e catalog.Event) bool { return e.Database != nil })
	if e.Database.CopyOn("gru-1").State != catalog.Live || e.Database.CopyOn("scl-1").State != catalog.Syncing {
		t.Errorf("copies are %+v", e.Database.Copies)
	}
	got, err := w.platform.Database(ctx, d.ID)
	w.must(err)
	if len(got.Status) != 1 || got.Status[0].Node != "gru-1" || got.Status[0].Bytes != 7 {
		t.Errorf("status is %+v", got.Status)
	}
	report.State = "dancing"
	w.wantCode(w.node.Report(ctx, "gru-1", api.NodeReport{Copies: []api.CopyStatus{report}}), api.Invalid)
}

func TestLateReportOnAFormerCopyDoesNotMakeTheNewOneLive(t *testing.T) {
	w := open(t)
	d := w.create(2).Database
	old := d.CopyOn("gru-1").Generation
	none, back := []api.Region{}, []api.Region{"gru"}
	_, err := w.platform.UpdateDatabase(ctx, d.ID, api.FleetUpdate{ReplicaRegions: &none})
	w.must(err)
	_, err = w.platform.UpdateDatabase(ctx, d.ID, api.FleetUpdate{ReplicaRegions: &back})
	w.must(err)

	report := api.CopyStatus{Database: d.ID, Generation: old, State: catalog.Live}
	w.must(w.node.Report(ctx, "gru-1", api.NodeReport{Copies: []api.CopyStatus{report}}))
	got, err := w.platform.Database(ctx, d.ID)
	w.must(err)
	if c := got.Database.CopyOn("gru-1"); c.State != catalog.Syncing || len(got.Status) != 0 {
		t.Fatalf("copy is %+v with status %+v after a report on generation %d", c, got.Status, old)
	}
	report.Generation = got.Database.CopyOn("gru-1").Generation
	w.must(w.node.Report(ctx, "gru-1", api.NodeReport{Copies: []api.CopyStatus{report}}))
	got, err = w.platform.Database(ctx, d.ID)
	w.must(err)
	if c := got.Database.CopyOn("gru-1"); c.State != catalog.Live {
		t.Errorf("copy is %+v after a report on it", c)
	}
}

func TestUpdateChangesOnlyWhatIsNamed(t *testing.T) {
	w := open(t)
	d := w.create(2).Database
	yes, plan, regions := true, "fixed_1gb", []api.Region{"scl", "ams"}
	got, err := w.platform.UpdateDatabase(ctx, d.ID, api.FleetUpdate{Eviction: &yes})
	w.must(err)
	if !got.Database.Eviction || got.Database.Plan != "free" || len(got.Database.Copies) != 3 {
		t.Errorf("after eviction: %+v", got.Database)
	}
	got, err = w.platform.UpdateDatabase(ctx, d.ID, api.FleetUpdate{Plan: &plan, ReplicaRegions: &regions})
	w.must(err)
	if !got.Database.Eviction || got.Database.Limits.DataBytes != 1<<30 || !slices.Equal(got.Database.ReplicaRegions(), []region.Code{"scl", "ams"}) {
		t.Errorf("after plan and regions: %+v", got.Database)
	}
	bad := []api.Region{"ams", "xyz"}
	_, err = w.platform.UpdateDatabase(ctx, d.ID, api.FleetUpdate{ReplicaRegions: &bad, Plan: new("free")})
	w.wantCode(err, api.Invalid)
	same, err := w.platform.Database(ctx, d.ID)
	w.must(err)
	if same.Database.Revision != got.Database.Revision {
		t.Error("a refused change was recorded in part")
	}
}

func TestEvictionIsSettledByFlagAndPolicy(t *testing.T) {
	w := open(t)
	d := w.create(1).Database
	yes, no := true, false
	for _, c := range []struct {
		evicts *bool
		policy string
		want   string // "" for a refusal
	}{
		{nil, "Allkeys-LFU", "true allkeys-lfu"},
		{&no, "", "false allkeys-lfu"},
		{&yes, "", "true allkeys-lfu"}, // as it was
		{nil, "noeviction", "false allkeys-lfu"},
		{&no, "noeviction", "false allkeys-lfu"},
		{&yes, "volatile-ttl", "true volatile-ttl"},
		{&yes, "noeviction", ""},
		{&no, "volatile-ttl", ""},
		{nil, "lru", ""},
		{nil, "optimistic-volatile", "true optimistic-volatile"},
	} {
		u := api.FleetUpdate{Eviction: c.evicts}
		if c.policy != "" {
			u.EvictionPolicy = &c.policy
		}
		got, err := w.platform.UpdateDatabase(ctx, d.ID, u)
		if c.want == "" {
			w.wantCode(err, api.Invalid)
			continue
		}
		w.must(err)
		if is := fmt.Sprint(got.Database.Eviction, " ", got.Database.Policy); is != c.want {
			t.Errorf("policy %q: %s, want %s", c.policy, is, c.want)
		}
	}
}

func TestResetPasswordReplacesTheHash(t *testing.T) {
	w := open(t)
	d := w.create(2)
	got, err := w.platform.ResetPassword(ctx, d.Database.ID)
	w.must(err)
	if got.Password == d.Password || len(got.Password) != 32 || got.Database.Password == d.Database.Password {
		t.Errorf("reset gave %q after %q", got.Password, d.Password)
	}
}

func TestWatchOfANodeHearsOnlyWhatConcernsIt(t *testing.T) {
	w := open(t)
	alone := request(3)
	alone.ReplicaRegions = nil
	_, err := w.platform.CreateDatabase(ctx, "alone", alone) // mad only
	w.must(err)
	d := w.create(2).Database
	events := w.follow(0, "gru-1")
	var ids []catalog.ID
	until(t, events, func(e catalog.Event) bool {
		if e.Database != nil {
			ids = append(ids, e.Database.ID)
		}
		return e.Synced
	})
	if !slices.Equal(ids, []catalog.ID{d.ID}) {
		t.Errorf("node was told of databases %v, want %d only", ids, d.ID)
	}

	// It hears that its copy is taken away, and then nothing more of it.
	rest := []api.Region{"scl"}
	_, err = w.platform.UpdateDatabase(ctx, d.ID, api.FleetUpdate{ReplicaRegions: &rest})
	w.must(err)
	e := until(t, events, func(e catalog.Event) bool { return e.Database != nil })
	if e.Database.CopyOn("gru-1") != nil {
		t.Errorf("copy is still there: %+v", e.Database.Copies)
	}
	w.must(w.platform.DeleteDatabase(ctx, d.ID))
	back := request(4)
	back.ReplicaRegions = []api.Region{"gru"}
	next, err := w.platform.CreateDatabase(ctx, "next", back)
	w.must(err)
	e = until(t, events, func(catalog.Event) bool { return true })
	if e.Database == nil || e.Database.ID != next.Database.ID {
		t.Errorf("heard %+v, want database %d", e, next.Database.ID)
	}
}

func TestWatchResumesAfterTheFleetWasRestarted(t *testing.T) {
	dir := t.TempDir()
	w := &world{T: t}
	w.start(dir)
	addr := w.fleet.server.Addr()
	w.must(w.node.RegisterNode(ctx, catalog.Node{ID: "mad-1", Region: "mad", Proxy: "127.0.0.1:1"}))
	events := w.follow(0, "")
	until(t, events, synced)

	w.must(w.fleet.Close())
	f, err := Open(ctx, Config{Listen: addr, Dir: dir, PlatformToken: "p", NodeToken: "n"})
	w.must(err)
	t.Cleanup(func() { f.Close() })
	r := request(2)
	r.ReplicaRegions = nil
	d, err := w.platform.CreateDatabase(ctx, "k", r)
	w.must(err)
	e := until(t, events, func(e catalog.Event) bool {
		if e.Synced {
			t.Error("the watch started over instead of resuming")
		}
		return e.Database != nil
	})
	if e.Database.ID != d.Database.ID {
		t.Errorf("heard of database %d, want %d", e.Database.ID, d.Database.ID)
	}
}

func TestWatchStartsOverWhenHistoryIsGoneAndSaysWhatVanished(t *testing.T) {
	dir := t.TempDir()
	w := &world{T: t}
	w.start(dir)
	addr := w.fleet.server.Addr()
	w.must(w.node.RegisterNode(ctx, catalog.Node{ID: "mad-1", Region: "mad", Proxy: "127.0.0.1:1"}))
	r := request(2)
	r.ReplicaRegions = nil
	d, err := w.platform.CreateDatabase(ctx, "k", r)
	w.must(err)
	events := w.follow(0, "")
	until(t, events, synced)

	// While nobody listens: the database goes, and history with it.
	w.must(w.fleet.Close())
	s, err := etcd.Open(ctx, etcd.Config{Dir: dir + "/etcd", Prefix: "/vecino/fleet"})
	w.must(err)
	st := &store{etcd: s, now: time.Now}
	w.must(st.remove(ctx, d.Database.ID))
	put, err := s.Put(ctx, "/elsewhere", "x")
	w.must(err)
	_, err = s.Compact(ctx, put.Header.Revision)
	w.must(err)
	w.must(s.Close())

	f, err := Open(ctx, Config{Listen: addr, Dir: dir, PlatformToken: "p", NodeToken: "n"})
	w.must(err)
	t.Cleanup(func() { f.Close() })
	gone := until(t, events, func(e catalog.Event) bool { return e.Gone != 0 })
	if gone.Gone != d.Database.ID {
		t.Errorf("heard that %d is gone, want %d", gone.Gone, d.Database.ID)
	}
	until(t, events, synced)
}

func TestOldIdempotencyKeysAreForgotten(t *testing.T) {
	w := open(t)
	w.create(2)
	now := time.Now()
	w.fleet.store.now = func() time.Time { return now.Add(keepCreations - time.Minute) }
	w.must(w.fleet.store.sweep(ctx))
	_, err := w.platform.CreateDatabase(ctx, request(2).Address.String(), request(2))
	w.must(err) // still the same one
	w.fleet.store.now = func() time.Time { return now.Add(keepCreations + time.Minute) }
	w.must(w.fleet.store.sweep(ctx))
	_, err = w.platform.CreateDatabase(ctx, request(2).Address.String(), request(2))
	w.wantCode(err, api.Conflict) // a new request, whose address is taken
}

func TestOpenAPIFileHasAllCalls(t *testing.T) {
	var spec struct {
		Paths map[string]map[string]any
	}
	if err := yaml.Unmarshal(api.FleetSpec, &spec); err != nil {
		t.Fatal(err)
	}
	var documented []string
	for path, methods := range spec.Paths {
		for method := range methods {
			documented = append(documented, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(documented)
	if served := slices.Sorted(maps.Keys(new(Fleet).calls(Config{}))); !slices.Equal(served, documented) {
		t.Errorf("served:\n%v\nin openapi-fleet.yaml:\n%v", served, documented)
	}
}
