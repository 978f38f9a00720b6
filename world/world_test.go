package world

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vecino/api"
	"vecino/link"
	"vecino/region"
)

// TestMain is also the daemons of the worlds under test: this program, started
// as `fleet`, `platform`, `node` or `edge`, answers on its admin address and
// does nothing else.
func TestMain(m *testing.M) {
	FollowParent()
	if len(os.Args) > 1 && slices.Contains([]string{"fleet", "platform", "node", "edge"}, os.Args[1]) {
		os.Exit(daemon(os.Args[1:]))
	}
	os.Exit(m.Run())
}

func daemon(args []string) int {
	flag := func(name string) string {
		i := slices.Index(args, name)
		if i < 0 {
			return ""
		}
		return args[i+1]
	}
	var (
		mu    sync.Mutex
		table []byte
	)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if slices.Contains(args, "--world") && table == nil {
			http.Error(w, "no distances", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("PUT /world", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		table, _ = io.ReadAll(r.Body)
	})
	mux.HandleFunc("GET /world", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Write(table)
	})
	mux.HandleFunc("POST /exit", func(http.ResponseWriter, *http.Request) {
		fmt.Fprintln(os.Stderr, `time=now level=ERROR msg="told to go"`)
		fmt.Fprintln(os.Stderr, "panic: told to go")
		os.Exit(2)
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe(flag("--admin"), mux))
	return 1
}

// patience is how long anything may take before a test gives up.
const patience = 30 * time.Second

// testWorld is a world of such daemons.
type testWorld struct {
	*World
	*testing.T
	mu   sync.Mutex
	news []Event
}

func open(t *testing.T, state string, regions ...region.Code) *testWorld {
	t.Helper()
	tw := &testWorld{T: t}
	w, err := Open(t.Context(), Config{State: state, Regions: regions, Events: func(e Event) {
		tw.mu.Lock()
		defer tw.mu.Unlock()
		tw.news = append(tw.news, e)
	}})
	if err != nil {
		t.Fatal(err)
	}
	tw.World = w
	t.Cleanup(func() { tw.must(w.Close()) })
	return tw
}

func (w *testWorld) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *testWorld) process(name string) *process {
	for _, p := range w.processes {
		if p.name == name {
			return p
		}
	}
	w.Fatalf("there is no process %s", name)
	return nil
}

// told is the news about a process, of one sort.
func (w *testWorld) told(name string, what What) (list []Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.news {
		if e.Process == name && e.What == what {
			list = append(list, e)
		}
	}
	return list
}

// tables asks every process that has distances for them.
func (w *testWorld) tables() map[string]*link.Distance {
	w.Helper()
	all := map[string]*link.Distance{}
	for _, p := range w.processes {
		if !p.far || !p.is(Running) {
			continue
		}
		resp, err := http.Get("http://" + p.admin + "/world")
		w.must(err)
		all[p.name] = new(link.Distance)
		w.must(json.NewDecoder(resp.Body).Decode(all[p.name]))
		resp.Body.Close()
	}
	return all
}

func TestEveryProcessKnowsTheDistances(t *testing.T) {
	state := t.TempDir()
	w := open(t, state, "mad", "scl")
	ctx := t.Context()
	check := func(want func(d *link.Distance) bool) {
		t.Helper()
		tables := w.tables()
		if len(tables) != 4 {
			t.Errorf("%d processes have distances, want 4", len(tables))
		}
		for name, d := range tables {
			if !want(d) {
				b, _ := json.Marshal(d)
				t.Errorf("%s knows %s", name, b)
			}
		}
	}
	real := region.OneWay("mad", "scl")
	check(func(d *link.Distance) bool { return d.Delay("mad", "scl") == real && !d.Cut("mad", "scl") })
	ms := 12.5
	w.must(w.SetDelay(ctx, "scl", "mad", &ms))
	w.must(w.Cut(ctx, "mad", "scl", true))
	w.must(w.SetLag(ctx, "scl", 900))
	changed := func(d *link.Distance) bool {
		return d.Delay("mad", "scl") == 12500*time.Microsecond && d.Delay("scl", "mad") == 12500*time.Microsecond &&
			d.Cut("mad", "scl") && !d.Cut("scl", "mad") && d.Lag("scl") == 900*time.Millisecond && d.Lag("mad") == 0
	}
	check(changed)

	// One that comes back is told, and so is a whole new world.
	w.must(w.Kill(ctx, Node, "scl"))
	w.must(w.Start(ctx, Node, "scl"))
	check(changed)
	w.must(w.Close())
	w = open(t, state)
	check(changed)

	w.must(w.SetDelay(ctx, "mad", "scl", nil))
	w.must(w.Heal(ctx, "scl", "mad"))
	w.must(w.SetLag(ctx, "scl", 0))
	check(func(d *link.Distance) bool {
		return d.Delay("mad", "scl") == real && !d.Cut("mad", "scl") && d.Lag("scl") == 0
	})
}

func TestKilledProcessStaysDeadUntilItIsStarted(t *testing.T) {
	w := open(t, t.TempDir(), "mad")
	ctx := t.Context()
	before := w.process("mad-1").status()
	w.must(w.Kill(ctx, Node, "mad"))
	if err := syscall.Kill(before.PID, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the process of the dead is there: %v", err)
	}
	w.must(w.Kill(ctx, Node, "mad")) // it can't be any deader
	w.must(w.HealAll(ctx))           // which a dead process needn't hear
	if s := w.process("mad-1").status(); s.State != Killed || s.PID != 0 {
		t.Errorf("it is %s with pid %d", s.State, s.PID)
	}
	w.must(w.Start(ctx, Node, "mad"))
	w.must(w.Start(ctx, Node, "mad"))
	after := w.process("mad-1").status()
	if after.State != Running || after.PID == before.PID || after.Restarts != 0 {
		t.Errorf("it is %+v", after)
	}
	if n := len(w.told("mad-1", Died)); n > 0 {
		t.Errorf("that it was killed is told as if it had died, %d times", n)
	}
	if w.process("edge-mad").status().State != Running {
		t.Error("the edge died with it")
	}
}

func TestProcessThatDiesIsStartedAgain(t *testing.T) {
	w := open(t, t.TempDir(), "mad")
	p := w.process("fleet")
	for i := 1; i <= 2; i++ {
		resp, err := http.Post("http://"+p.admin+"/exit", "", nil)
		if err == nil {
			resp.Body.Close()
		}
		for {
			_, _, changed := p.look()
			if s := p.status(); s.Restarts == i && s.State == Running {
				break
			}
			select {
			case <-changed:
			case <-time.After(patience):
				t.Fatalf("after %d deaths it is %+v", i, p.status())
			}
		}
	}
	died := w.told("fleet", Died)
	if len(died) != 2 || !strings.Contains(died[0].Detail, "panic: told to go") || died[0].Took >= died[1].Took {
		t.Errorf("told of its deaths: %v", died)
	}
	if said := w.told("fleet", Complains); len(said) != 2 || said[0].Detail != `msg="told to go"` {
		t.Errorf("told of its errors: %v", said)
	}
}

func TestControlSocket(t *testing.T) {
	w := open(t, t.TempDir(), "mad", "scl")
	c, err := Connect(w.State())
	w.must(err)
	ms := 7.0
	s, err := c.Order(t.Context(), "delay", Order{A: "mad", B: "scl", MS: &ms})
	w.must(err)
	if s.RoundTrips[0][1] != 14 || len(s.Processes) != 6 || s.PID != os.Getpid() {
		t.Errorf("status %+v", s)
	}
	for verb, o := range map[string]Order{
		"cut": {A: "mad", B: "xyz"}, "heal": {A: "xyz", B: "mad"}, "lag": {A: "xyz", MS: &ms}, "kill": {A: "xyz"}, "start": {A: ""},
	} {
		_, err := c.Order(t.Context(), verb, o)
		var e *api.Error
		if !errors.As(err, &e) || e.Code != api.Invalid || !slices.Equal(e.Choices, []string{"Madrid, Spain (mad)", "Santiago, Chile (scl)"}) {
			t.Errorf("%s with a region that isn't there: %#v", verb, err)
		}
	}
	over := 60_001.0
	for verb, o := range map[string]Order{"delay": {A: "mad", B: "scl", MS: &over}, "lag": {A: "mad"}, "cut": {A: "mad", B: "mad"}} {
		if _, err := c.Order(t.Context(), verb, o); api.CodeOf(err) != api.Invalid {
			t.Errorf("%s %+v: %v", verb, o, err)
		}
	}
	w.must(w.Close())
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "isn't running") {
		t.Errorf("a world that has ended: %v", err)
	}
	if _, err := Connect(t.TempDir()); err == nil || !strings.Contains(err.Error(), "vecino up") {
		t.Errorf("a state without a world: %v", err)
	}
}

func TestPortsStayUnlessTheyAreTaken(t *testing.T) {
	state := t.TempDir()
	w := open(t, state, "mad")
	before, token := w.Status(), w.record.Token
	w.must(w.Close())
	w = open(t, state)
	after := w.Status()
	if !slices.Equal(addresses(after), addresses(before)) || after.API != before.API || after.DataPort != before.DataPort || w.record.Token != token {
		t.Errorf("what was at %v is at %v", before, after)
	}
	kept := w.record
	w.must(w.Close())

	thief, err := net.Listen("tcp", w.at(platformPort))
	w.must(err)
	defer thief.Close()
	w = open(t, state)
	for name, port := range w.record.Ports {
		if moved := port != kept.Ports[name]; moved != (name == platformPort) {
			t.Errorf("%s was at %d and is at %d", name, kept.Ports[name], port)
		}
	}
	if len(w.told(platformPort, PortMoved)) != 1 {
		t.Errorf("that the platform's port is another wasn't told: %v", w.news)
	}
	if url, _ := w.API(); url != "http://"+w.at(platformPort) {
		t.Errorf("the API is said to be at %s", url)
	}
}

func addresses(s Status) (list []string) {
	for _, p := range s.Processes {
		for _, a := range p.Addresses {
			list = append(list, a.Addr)
		}
	}
	return list
}

func TestTwoWorldsShareNothing(t *testing.T) {
	a, b := open(t, t.TempDir(), "mad"), open(t, t.TempDir(), "mad")
	if a.record.DataPort == b.record.DataPort {
		t.Errorf("both have databases on port %d", a.record.DataPort)
	}
	for name, port := range a.record.Ports {
		for other, taken := range b.record.Ports {
			if port == taken {
				t.Errorf("%s and %s of the other are on port %d", name, other, port)
			}
		}
	}
	_, err := Open(t.Context(), Config{State: a.State()})
	var running *RunningError
	if !errors.As(err, &running) || running.PID != os.Getpid() {
		t.Errorf("a second world on a state: %v", err)
	}
}

func TestRegionsOfAWorld(t *testing.T) {
	state := t.TempDir()
	w := open(t, state, "mad")
	w.must(w.Close())
	for _, tc := range []struct {
		regions []region.Code
		want    string // of the error; "" for none
	}{
		{[]region.Code{"scl"}, "can't be taken away"},
		{[]region.Code{"mad", "mad"}, "named twice"},
		{[]region.Code{"mad", "xyz"}, `"xyz" not found`},
		{[]region.Code{"ams", "mad"}, ""},
	} {
		w, err := Open(t.Context(), Config{State: state, Regions: tc.regions})
		if err == nil {
			// The order of before is part of the addresses.
			if got := w.Status().Regions; !slices.Equal(got, []region.Code{"mad", "ams"}) {
				t.Errorf("the regions are %v", got)
			}
			err = w.Close()
		}
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("regions %v: %v", tc.regions, err)
		}
	}
}

func TestBasePort(t *testing.T) {
	// A hole somewhere is enough for the test, and the first choice is one.
	base := 0
	for p := 12_000; base == 0; p += 50 {
		if free(p) && free(p+1) && free(p+2) {
			base = p
		}
	}
	taken, err := net.Listen("tcp", hostPort("127.0.0.1", base+1))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	w, err := Open(t.Context(), Config{State: t.TempDir(), Regions: []region.Code{"mad"}, BasePort: base})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if got := []int{w.record.Ports[fleetPort], w.record.Ports[fleetAdminPort]}; !slices.Equal(got, []int{base, base + 2}) {
		t.Errorf("from %d up, the second of them taken, ports are %v", base, got)
	}
}
