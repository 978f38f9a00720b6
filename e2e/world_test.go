package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"vecino/api"
	"vecino/region"
	"vecino/world"
)

func must2(t *testing.T) func(any, error) {
	return func(_ any, err error) {
		t.Helper()
		must(t, err)
	}
}

func TestUpShowsWhatRunsAndWhatToTypeNext(t *testing.T) {
	t.Parallel()
	u := newUp(t, "mad", "ams")
	for _, want := range []string{
		"Ready in ", "vecino redis create --state " + u.state, "Madrid, Spain (mad)", "edge-ams", "mad ams 20 ms", "API ",
	} {
		if !strings.Contains(u.out.String(), want) {
			t.Errorf("up doesn't say %q:\n%s", want, &u.out)
		}
	}
	b, err := os.ReadFile(filepath.Join(u.state, "ready.json"))
	must(t, err)
	var s world.Status
	must(t, json.Unmarshal(b, &s))
	equal(t, "pid in the ready file", s.PID, u.cmd.Process.Pid)

	if info, err := os.Stat(filepath.Join(u.state, "world.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("world.json, which holds tokens: %v %v", info, err)
	}

	// A second one on the same state says that, and who it is.
	message := u.refuses(t, "up")
	for _, want := range []string{u.state, fmt.Sprintf("pid %d", s.PID), "vecino world status"} {
		if !strings.Contains(message, want) {
			t.Errorf("the second up doesn't say %q: %s", want, message)
		}
	}

	// Ctrl-C ends all, and the CLI says how to go on.
	must(t, u.stop())
	equal(t, "processes left", len(living(s)), 0)
	if _, err := os.Stat(filepath.Join(u.state, "ready.json")); err == nil {
		t.Error("the ready file is still there")
	}
	for _, verb := range [][]string{{"redis", "list"}, {"world", "status"}} {
		if message := u.refuses(t, verb...); !strings.Contains(message, "vecino up") {
			t.Errorf("vecino %v without a world: %s", verb, message)
		}
	}
}

// living are the processes of a world that still are processes. One that is
// dead but not buried yet counts as dead.
func living(s world.Status) (pids []int) {
	for _, p := range s.Processes {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		if !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X") {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

func TestWorldThatWasKilledComesBackAsItWas(t *testing.T) {
	t.Parallel()
	u := newUp(t, "mad", "ams")
	d := u.create(t, "mad", "ams")
	c := d.connect("ams")
	for i := range 100 {
		must(t, c.Set(d.ctx, fmt.Sprint("k", i), i, 0).Err())
	}
	u.vecino(t, "world", "delay", "mad", "ams", "33")
	u.vecino(t, "world", "lag", "ams", "20")
	before := u.status(t)
	u.away(t, func() {
		u.kill9()
		eventually(t, "children to die with their parent", func() bool { return len(living(before)) == 0 })
	})
	after := u.status(t)
	equal(t, "round trip", after.RoundTrips[0][1], 66)
	equal(t, "lags", fmt.Sprint(after.Changed.Lags), "[{ams 20}]")
	equal(t, "API", after.API, before.API)
	equal(t, "data port", after.DataPort, before.DataPort)
	addresses := func(s world.Status) string {
		var list []string
		for _, p := range s.Processes {
			list = append(list, fmt.Sprint(p.Name, p.Addresses))
		}
		return strings.Join(list, " ")
	}
	equal(t, "addresses", addresses(after), addresses(before))
	for _, r := range []string{"mad", "ams"} {
		c := d.in(region.Code(r)) // the URL of before
		until(t, "all in "+r, func() error {
			n, err := c.DBSize(d.ctx).Result()
			if err == nil && n != 100 {
				err = fmt.Errorf("%d keys", n)
			}
			return err
		})
		equal(t, "k99 in "+r, c.Get(d.ctx, "k99").Val(), "99")
	}
	c = d.connect("ams")
	must(t, c.Set(d.ctx, "after", "all", 0).Err())
	equal(t, "written after", c.Get(d.ctx, "after").Val(), "all")
	equal(t, "the other end of it", u.status(t).Changed.Delays[0].MS, 33)
}

func TestProcessThatDiesByItselfComesBack(t *testing.T) {
	t.Parallel()
	u := newUp(t, "mad", "ams")
	d := u.create(t, "mad", "ams")
	must(t, d.connect("mad").Set(d.ctx, "k", "v", 0).Err())
	for _, name := range []string{"fleet", "platform", "edge-mad", "mad-1"} {
		of := func() world.ProcessStatus {
			s := u.status(t)
			return s.Processes[slices.IndexFunc(s.Processes, func(p world.ProcessStatus) bool { return p.Name == name })]
		}
		before := of()
		must(t, syscall.Kill(before.PID, syscall.SIGKILL))
		eventually(t, name+" to be back", func() bool { p := of(); return p.State == world.Running && p.PID != before.PID })
		equal(t, "restarts of "+name, of().Restarts, 1)
		if !strings.Contains(u.out.String(), name+" died (signal: killed); it is started again in ") {
			t.Errorf("up doesn't say that %s died", name)
		}
	}
	c := d.in("mad")
	until(t, "the database to answer", func() error { return c.Set(d.ctx, "k2", "v", 0).Err() })
	equal(t, "what was there before", c.Get(d.ctx, "k").Val(), "v")
	u.vecino(t, "redis", "create", "--region", "ams")
}

func TestRegionsCanBeAddedToAWorld(t *testing.T) {
	t.Parallel()
	u := newUp(t, "mad")
	d := u.create(t, "mad")
	must(t, d.connect("mad").Set(d.ctx, "k", "v", 0).Err())
	u.away(t, func() {
		must(t, u.stop())
		if message := u.refuses(t, "up", "--regions", "ams"); !strings.Contains(message, "mad") || !strings.Contains(message, "can't be taken away") {
			t.Errorf("a world without one of its regions: %s", message)
		}
		if message := u.refuses(t, "up", "--regions", "mad,atlantis"); !strings.Contains(message, `"atlantis" not found`) || !strings.Contains(message, "Amsterdam, Netherlands (ams)") {
			t.Errorf("a region that doesn't exist: %s", message)
		}
	}, "ams", "mad")
	u.vecino(t, "redis", "update", d.name, "--replica-regions", "ams")
	var now api.Database
	u.ask(t, &now, "redis", "status", d.name)
	old := d.urls["mad"]
	d.learn(now)
	equal(t, "URL in mad", d.urls["mad"], old)
	d.caughtUp("mad", "ams")
	equal(t, "k in ams", d.connect("ams").Get(d.ctx, "k").Val(), "v")
}

func TestWorldVerbsNameTheChoices(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"cut", "cdg", "xyz"}, {"delay", "xyz", "cdg", "5"}, {"lag", "xyz", "5"}, {"heal", "cdg", "xyz"}, {"kill", "xyz"}, {"start", "mad"},
	} {
		message := shared.refuses(t, append([]string{"world"}, args...)...)
		for _, r := range sharedRegions {
			if !strings.Contains(message, region.Title(r)) {
				t.Errorf("world %v doesn't name %s: %s", args, r, message)
			}
		}
	}
	for _, args := range [][]string{{"delay", "cdg", "den", "fast"}, {"delay", "cdg", "den", "-1"}, {"lag", "cdg", "1e9"}, {"cut", "cdg", "cdg"}, {"heal", "cdg"}} {
		shared.refuses(t, append([]string{"world"}, args...)...)
	}
	if s := shared.status(t); len(s.Changed.Delays) > 0 || len(s.Changed.Cuts) > 0 {
		t.Errorf("mistakes have changed the world: %+v", s.Changed)
	}
}

func TestLifeOfADatabase(t *testing.T) {
	t.Parallel()
	name := "life-" + strings.ToLower(t.Name()[6:8]) + "-of-a-database"
	var made api.Database
	shared.ask(t, &made, "redis", "create", "--name", name, "--region", "den", "--replica-regions", "gru,scl", "--enable-eviction", "--plan", "free")
	equal(t, "made", fmt.Sprint(made.Name, made.PrimaryRegion, made.ReplicaRegions, made.Plan, made.Eviction, made.State),
		name+"den[gru scl]Freetrueready")
	equal(t, "endpoints", len(made.Endpoints), len(sharedRegions))
	if !strings.HasPrefix(made.Address.String(), "fdaa:") {
		t.Errorf("its address is %v", made.Address)
	}
	if message := shared.refuses(t, "redis", "create", "--name", name, "--region", "den"); !strings.Contains(message, name) {
		t.Errorf("a second of that name: %s", message)
	}
	if message := shared.refuses(t, "redis", "create", "--region", "den", "--replica-regions", "nowhere"); !strings.Contains(message, "nowhere") || !strings.Contains(message, "jnb") {
		t.Errorf("a replica nowhere: %s", message)
	}

	var list []api.Database
	shared.ask(t, &list, "redis", "list")
	listed := func() bool { return slices.ContainsFunc(list, func(d api.Database) bool { return d.Name == name }) }
	if !listed() {
		t.Errorf("%s isn't listed", name)
	}

	var now api.Database
	shared.vecino(t, "redis", "update", name, "--replica-regions", "scl,jnb", "--disable-eviction")
	shared.ask(t, &now, "redis", "status", name)
	slices.Sort(now.ReplicaRegions)
	equal(t, "after update", fmt.Sprint(now.ReplicaRegions, now.Eviction), "[jnb scl] false")

	shared.vecino(t, "redis", "reset", name)
	var reset api.Database
	shared.ask(t, &reset, "redis", "status", name)
	if reset.URL == made.URL || reset.URL == "" {
		t.Errorf("after a reset the URL is %s, as before", reset.URL)
	}
	old, renewed := &database{t: t, ctx: t.Context()}, &database{t: t, ctx: t.Context()}
	old.learn(made)
	renewed.learn(reset)
	until(t, "the new password", func() error { return renewed.in("scl").Ping(t.Context()).Err() })
	until(t, "the old password to end", func() error {
		if err := old.in("scl").Ping(t.Context()).Err(); err == nil || !strings.HasPrefix(err.Error(), "WRONGPASS") {
			return fmt.Errorf("it is answered %v", err)
		}
		return nil
	})

	if message := shared.refuses(t, "redis", "destroy", name); !strings.Contains(message, "--yes") {
		t.Errorf("destroy without a terminal: %s", message)
	}
	shared.vecino(t, "redis", "destroy", name, "--yes")
	shared.ask(t, &list, "redis", "list")
	if listed() {
		t.Errorf("%s is listed after it was destroyed", name)
	}
	eventually(t, "it to answer no more", func() bool { return renewed.in("scl").Ping(t.Context()).Err() != nil })
	shared.refuses(t, "redis", "status", name)
}
