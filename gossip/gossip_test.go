package gossip

import (
	"log/slog"
	"strings"
	"testing"
)

// member is a Gossip on ::1 and what it has told its subscriber.
type member struct {
	*Gossip
	changes chan Change
}

func open(t *testing.T, id, bind string, join ...string) *member {
	t.Helper()
	g, err := Open(Config{
		ID: id, Kind: Node, Region: "mad", Proxy: "[::1]:7000", Bind: bind, Join: join, Pool: t.Name(),
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	m := &member{g, make(chan Change, 1000)}
	g.Subscribe(func(c Change) { m.changes <- c })
	t.Cleanup(func() { g.Close() })
	return m
}

// await reads changes until one fits. It is the test's own time limit that ends
// a wait for nothing.
func (m *member) await(t *testing.T, what What, id string) Member {
	t.Helper()
	for {
		select {
		case c := <-m.changes:
			if c.What == what && c.Member.ID == id {
				return c.Member
			}
		case <-t.Context().Done():
			t.Fatalf("%s never saw that %s %s", m.cfg.ID, id, what)
		}
	}
}

// crash ends a member without a goodbye.
func (m *member) crash(t *testing.T) {
	if err := m.end(false); err != nil {
		t.Fatal(err)
	}
}

func TestThreeMembersMeetAndMissEachOther(t *testing.T) {
	t.Parallel()
	a := open(t, "a", "[::1]:0")
	b := open(t, "b", "[::1]:0", a.Addr())
	c := open(t, "c", "[::1]:0", a.Addr())
	for _, m := range []*member{a, b, c} {
		for _, id := range []string{"a", "b", "c"} {
			if m.Alive(id) {
				continue // it may have been told in any order
			}
			m.await(t, Joined, id)
		}
	}
	got := a.Members()
	if len(got) != 3 || got[0].ID != "a" || got[1].ID != "b" || got[2].ID != "c" {
		t.Fatalf("a sees %v", got)
	}
	want := Member{ID: "b", Kind: Node, Region: "mad", Proxy: "[::1]:7000", Addr: b.Addr(), Healthy: true}
	got[1].RTT = 0
	if got[1] != want {
		t.Errorf("a sees b as %+v, want %+v", got[1], want)
	}

	b.UpdateLoad(0.75)
	for c.await(t, Updated, "b").Load != 0.75 {
	}
	b.SetDraining(true)
	b.SetHealthy(false)
	for m := c.await(t, Updated, "b"); !m.Draining || m.Healthy || m.Load != 0.75; m = c.await(t, Updated, "b") {
	}

	// A member that dies is missed, and welcome again in its old place.
	addr := b.Addr()
	b.crash(t)
	a.await(t, Gone, "b")
	c.await(t, Gone, "b")
	if a.Alive("b") || len(a.Members()) != 2 {
		t.Errorf("a still sees %v", a.Members())
	}
	b = open(t, "b", addr, a.Addr(), c.Addr())
	a.await(t, Joined, "b")
	if m := c.await(t, Joined, "b"); m.Draining || !m.Healthy {
		t.Errorf("its new life begins as %+v", m)
	}

	// One that leaves says so.
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	a.await(t, Gone, "c")
	b.await(t, Gone, "c")
}

func TestMemberFindsOthersThatStartLater(t *testing.T) {
	t.Parallel()
	// Take an address that nobody listens on, for b to come up at.
	probe := open(t, "probe", "[::1]:0")
	addr := probe.Addr()
	probe.Close()
	a := open(t, "a", "[::1]:0", addr, "[::1]:1")
	open(t, "b", addr)
	a.await(t, Joined, "b")
}

func TestJoinListCanChange(t *testing.T) {
	t.Parallel()
	a, b := open(t, "a", "[::1]:0"), open(t, "b", "[::1]:0")
	a.SetJoin([]string{b.Addr()})
	a.await(t, Joined, "b")
	b.await(t, Joined, "a")
}

func TestPoolsAreKeptApart(t *testing.T) {
	t.Parallel()
	a := open(t, "a", "[::1]:0")
	stranger, err := Open(Config{ID: "s", Kind: Edge, Bind: "[::1]:0", Join: []string{a.Addr()}, Pool: "another", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := stranger.list.Join([]string{a.Addr()}); err == nil {
		t.Error("a member of another pool could join")
	}
	if a.Alive("s") {
		t.Error("a member of another pool is taken for one of this")
	}
}

func TestSubscriberHearsOfThoseAlreadyThere(t *testing.T) {
	t.Parallel()
	a := open(t, "a", "[::1]:0")
	a.await(t, Joined, "a")
	late := make(chan Change, 10)
	cancel := a.Subscribe(func(c Change) { late <- c })
	if c := <-late; c.What != Joined || c.Member.ID != "a" {
		t.Errorf("hears %v", c)
	}
	cancel()
	b := open(t, "b", "[::1]:0", a.Addr())
	a.await(t, Joined, "b")
	b.await(t, Joined, "a")
	select {
	case c := <-late:
		t.Errorf("hears %v after it was cancelled", c)
	default:
	}
}

func TestOpenChecksItsConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no ID":          {Bind: "[::1]:0"},
		"no port":        {ID: "a", Bind: "::1"},
		"a name as port": {ID: "a", Bind: "[::1]:redis"},
		"too much meta":  {ID: "a", Bind: "[::1]:0", Proxy: strings.Repeat("x", 500)},
		"a bad key":      {ID: "a", Bind: "[::1]:0", Key: []byte("short")},
	} {
		cfg.Log = slog.New(slog.DiscardHandler)
		if g, err := Open(cfg); err == nil {
			g.Close()
			t.Errorf("%s is taken", name)
		}
	}
}

func TestMetaIsReadBack(t *testing.T) {
	m := meta{Kind: Edge, Region: "scl", Proxy: "[::1]:1", Load: 0.5, Healthy: true, Draining: true}
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	var got meta
	if err := got.decode(b); err != nil || got != m {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "\x02{}", "\x01{", "{}"} {
		if err := got.decode([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
