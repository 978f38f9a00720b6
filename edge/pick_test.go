package edge

import (
	"testing"
	"time"

	"vecino/api"
	"vecino/gossip"
	"vecino/region"
)

func TestPick(t *testing.T) {
	serving := []api.Serving{
		{Region: "cdg", Node: "cdg-1"},
		{Region: "gru", Node: "gru-1"},
		{Region: "gru", Node: "gru-2"},
		{Region: "scl", Node: "scl-1"},
	}
	// Seen from scl.
	far := map[region.Code]time.Duration{"scl": 0, "gru": 36 * time.Millisecond, "cdg": 163 * time.Millisecond}
	for _, tc := range []struct {
		name  string
		nodes map[string]condition
		tried []string
		want  string
	}{
		{"same region first", nil, nil, "scl-1"},
		{"next region when there is none", nil, []string{"scl-1"}, "gru-1"},
		{"farthest when it is the last", nil, []string{"scl-1", "gru-1", "gru-2"}, "cdg-1"},
		{"nobody when all were tried", nil, []string{"scl-1", "gru-1", "gru-2", "cdg-1"}, ""},
		{"not one that is gone", map[string]condition{"scl-1": {standing: gone}}, nil, "gru-1"},
		{"not one that can't be dialled", map[string]condition{"scl-1": {standing: failing}, "gru-1": {standing: failing}}, nil, "gru-2"},
		{"not one that drains", map[string]condition{"scl-1": {standing: unwilling}}, nil, "gru-1"},
		{"one that drains before one that fails", map[string]condition{
			"scl-1": {standing: failing}, "gru-1": {standing: failing}, "gru-2": {standing: gone}, "cdg-1": {standing: unwilling}}, nil, "cdg-1"},
		{"one that is gone when there is no other", map[string]condition{
			"scl-1": {standing: gone}, "gru-1": {standing: gone}, "gru-2": {standing: gone}, "cdg-1": {standing: gone}}, nil, "scl-1"},
		{"a busy one here before an idle one elsewhere", map[string]condition{"scl-1": {busy: true, load: 9}}, nil, "scl-1"},
		{"the idle one of two", map[string]condition{"scl-1": {full: true}, "gru-1": {busy: true}}, nil, "gru-2"},
		{"the less loaded of two", map[string]condition{"scl-1": {full: true}, "gru-1": {load: 0.5}, "gru-2": {load: 0.4}}, nil, "gru-2"},
		{"not one that is full, even so", map[string]condition{
			"scl-1": {full: true}, "gru-1": {standing: gone}, "gru-2": {standing: gone}, "cdg-1": {standing: gone}}, nil, "gru-1"},
		{"nobody when all are full", map[string]condition{
			"scl-1": {full: true}, "gru-1": {full: true}, "gru-2": {full: true}, "cdg-1": {full: true}}, nil, ""},
	} {
		i := pick(serving,
			func(to region.Code) time.Duration { return far[to] },
			func(node string) condition { return tc.nodes[node] },
			tc.tried)
		got := ""
		if i >= 0 {
			got = serving[i].Node
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
	if pick(nil, nil, nil, nil) != -1 {
		t.Error("somebody serves what nobody serves")
	}
}

func TestRoundTripsByTheMap(t *testing.T) {
	e := &Edge{cfg: Config{Region: "scl"}}
	if e.roundTrip("scl") != 0 || e.roundTrip("gru") >= e.roundTrip("cdg") || e.roundTrip("nowhere") <= e.roundTrip("syd") {
		t.Errorf("scl %v, gru %v, cdg %v, syd %v, nowhere %v", e.roundTrip("scl"), e.roundTrip("gru"), e.roundTrip("cdg"), e.roundTrip("syd"), e.roundTrip("nowhere"))
	}
	e.distance = newWorld()
	if e.roundTrip("scl") != 0 || e.roundTrip("gru") != region.RTT("scl", "gru") {
		t.Errorf("in a simulated world gru is %v away", e.roundTrip("gru"))
	}
	e.distance.SetDelay("gru", "scl", time.Second)
	if e.roundTrip("gru") < time.Second {
		t.Error("a new delay isn't seen")
	}
}

func TestNodesAreAvoidedAfterFailures(t *testing.T) {
	now := time.Unix(0, 0)
	n := newNodes()
	n.now = func() time.Time { return now }
	expect := func(when string, want standing) {
		t.Helper()
		if got := n.condition("a", 1, 2).standing; got != want {
			t.Errorf("%s: standing %d, want %d", when, got, want)
		}
	}
	expect("unknown", fine)
	n.dialling("a")
	n.failed("a")
	expect("after a failure", failing)
	now = now.Add(minPenalty)
	expect("a while later", fine)
	n.dialling("a")
	expect("while one tries", failing)
	n.failed("a")
	now = now.Add(minPenalty)
	expect("after the first penalty for the second failure", failing)
	now = now.Add(minPenalty)
	expect("after twice the penalty", fine)
	for range 10 {
		n.dialling("a")
		n.failed("a")
	}
	now = now.Add(maxPenalty)
	expect("after the longest penalty", fine)
	n.dialling("a")
	n.connected("a")
	expect("connected", fine)

	// What the pool says counts more, and its good news ends a penalty.
	n.heard(gossip.Change{What: gossip.Gone, Member: gossip.Member{ID: "a", Healthy: true}})
	expect("gone", gone)
	n.dialling("a")
	n.failed("a")
	n.heard(gossip.Change{What: gossip.Joined, Member: gossip.Member{ID: "a", Healthy: true}})
	expect("back", fine)
	n.heard(gossip.Change{What: gossip.Updated, Member: gossip.Member{ID: "a", Healthy: true, Draining: true}})
	expect("draining", unwilling)
	n.heard(gossip.Change{What: gossip.Updated, Member: gossip.Member{ID: "a"}})
	expect("not well", unwilling)

	// One connection is left, from above.
	if c := n.condition("a", 1, 2); !c.busy || c.full || n.connections() != 1 {
		t.Errorf("with one connection: %+v, %d", c, n.connections())
	}
	n.dialling("a")
	if c := n.condition("a", 1, 2); !c.busy || !c.full {
		t.Errorf("with two: %+v", c)
	}
	n.ended("a")
	n.ended("a")
	if c := n.condition("a", 1, 2); c.busy || c.full || n.connections() != 0 {
		t.Errorf("with none: %+v, %d", c, n.connections())
	}
}
