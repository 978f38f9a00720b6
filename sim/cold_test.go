package sim

import (
	"fmt"
	"strings"
	"testing"

	"vecino/engine"
	"vecino/keyspace"
)

// freeze has all values leave memory.
func (p *process) freeze() {
	wr := p.sweep()
	if wr == nil {
		return
	}
	for at := (keyspace.Cursor{}); !at.Done(); { // those that were swept before, too
		wr.ks.Sweep(&at, 0, 1000, wr.put)
	}
	wr.offload(1)
}

func (s *scenario) stats(machine int) *engine.Stats {
	return s.machines[machine].proc.tenant.Engine.Stats()
}

func TestAPipelineWaitsForItsValuesOnce(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	s.read = 20 * ms
	h, other := s.on("h", 0), s.on("other", 0)
	var sets, gets, answers []string
	for i := range 40 {
		sets = append(sets, fmt.Sprintf("SET k%d v%d", i, i))
		gets = append(gets, fmt.Sprintf("GET k%d", i))
		answers = append(answers, fmt.Sprintf("%q", fmt.Sprintf("v%d", i)))
	}
	s.types(h, sets...)
	s.pass(100 * ms)
	h.got = nil
	s.machines[0].proc.freeze()
	s.types(h, append(gets, "SELECT 3", "GET k0", "SELECT 0", "DEL k0", "GET k0")...)
	s.pass(5 * ms)
	s.gets(h)
	s.types(other, "PING", "SET x 1") // others go on
	s.pass(1 * ms)
	s.gets(other, "PONG", "OK")
	s.pass(100 * ms)
	s.gets(h, append(answers, "OK", "(nil)", "OK", "(integer) 1", "(nil)")...)
	if st := s.stats(0); st.Cold != 41 || st.Fetches != 40 {
		t.Errorf("%d commands on cold keys, %d values fetched", st.Cold, st.Fetches)
	}
}

func TestForwardedCommandsKeepTheirOrderWhereOneWaitsForAValue(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	s.read = 30 * ms
	h := s.on("h", 1)
	s.types(h, "RPUSH a 1", "RPUSH b 1")
	s.pass(200 * ms)
	s.gets(h, "(integer) 1", "(integer) 1")
	s.machines[0].proc.freeze()
	s.types(h, "RPUSH a 2", "SET c 1", "RPUSH b 2", "LRANGE a 0 -1", "MULTI", "RPUSH a 3", "RPUSH b 3", "EXEC")
	s.pass(400 * ms)
	s.gets(h, "(integer) 2", "OK", "(integer) 2", `1) "1" 2) "2"`, "OK", "QUEUED", "QUEUED", "1) (integer) 3 2) (integer) 3")
}

func TestAWatchedKeyThatIsOnDisk(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	s.read = 20 * ms
	h, other := s.on("h", 0), s.on("other", 0)
	s.types(h, "SET k 1", "SET n 1", "WATCH k")
	s.pass(10 * ms)
	s.machines[0].proc.freeze()
	s.types(h, "MULTI", "INCR k", "INCR n", "EXEC")
	s.pass(100 * ms)
	s.gets(h, "OK", "OK", "OK", "OK", "QUEUED", "QUEUED", "1) (integer) 2 2) (integer) 2")
	s.types(h, "WATCH k")
	s.pass(10 * ms)
	s.machines[0].proc.freeze()
	s.types(h, "MULTI", "INCR n", "EXEC")
	s.pass(1 * ms) // it waits for n
	s.types(other, "SET k 5")
	s.pass(100 * ms)
	s.gets(h, "OK", "OK", "QUEUED", "(nil)")
	s.gets(other, "OK")
	s.types(h, "GET n")
	s.pass(100 * ms)
	s.gets(h, `"2"`)
}

func TestADiskThatCannotBeReadIsToldAndTheNextCommandTriesAgain(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	h, far := s.on("h", 0), s.on("far", 1)
	s.types(h, "SET k 1", "SET other 1")
	s.pass(100 * ms)
	s.gets(h, "OK", "OK")
	s.machines[0].proc.freeze()
	s.machines[0].unreadable = true
	s.types(h, "GET k", "SET other 2", "INCR other", "MULTI", "INCR k", "EXEC", "PING")
	s.types(far, "INCR k")
	s.pass(200 * ms)
	s.gets(h, "(error) ERR the value could not be read from disk: ...", "OK", "(integer) 3", "OK", "QUEUED", "(error) ERR the value could not be read from disk: ...", "PONG")
	s.gets(far, "(error) ERR the value could not be read from disk: ...")
	s.machines[0].unreadable = false
	s.types(h, "INCR k")
	s.types(far, "INCR k")
	s.pass(200 * ms)
	s.gets(h, "(integer) 2")
	s.gets(far, "(integer) 3")
	s.machines[0].proc.hibernate()
	s.machines[0].unreadable = true
	s.types(h, "GET k", "PING")
	s.pass(100 * ms)
	s.gets(h, "(error) ERR the database could not be read from disk: ...", "PONG")
	s.machines[0].unreadable = false
	s.types(h, "GET k")
	s.pass(100 * ms)
	s.gets(h, `"3"`)
}

func TestAClientThatLeavesWhileItsValueIsFetched(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	s.read = 20 * ms
	h, far := s.on("h", 0), s.on("far", 1)
	s.types(h, "SET k 1")
	s.pass(100 * ms)
	s.machines[0].proc.freeze()
	s.types(h, "INCR k")
	s.types(far, "INCR k")
	s.pass(11 * ms)
	h.conn.Close()
	far.conn.Close()
	s.pass(200 * ms)
	next := s.on("next", 0)
	s.types(next, "GET k")
	s.pass(100 * ms)
	if len(next.got) != 1 || s.machines[0].proc.tenant.Engine.Loading() != 0 {
		t.Errorf("answered %v", next.got)
	}
}

// A command that waited for a key goes on when a value comes: what it does then is
// as safe as anything.
func TestAWaitingCommandGoesOnWhenAValueComes(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	s.read = 20 * ms
	h, other := s.on("h", 0), s.on("other", 0)
	s.types(h, "BLMOVE from to LEFT LEFT 0")
	s.pass(10 * ms)
	s.types(other, "RPUSH to x")
	s.pass(100 * ms)
	p := s.machines[0].proc
	wr := p.sweep()
	for _, k := range wr.swept {
		wr.ks.Offload(k.DB, k.Hash, k.Key, k.Seq) // whoever may need it
	}
	if n, _ := wr.ks.Cold(); n != 1 {
		t.Fatalf("%d cold keys", n)
	}
	s.types(other, "RPUSH from y")
	s.pass(1 * ms)
	s.gets(h)
	s.gets(other, "(integer) 1", "(integer) 1")
	for i := 0; len(h.got) == 0 && i < 1000; i++ {
		s.pass(100)
	}
	s.gets(h, `"y"`)
	s.restart(0)
	next := s.on("next", 0)
	s.types(next, "LRANGE to 0 -1", "EXISTS from")
	s.pass(100 * ms)
	s.gets(next, `1) "y" 2) "x"`, "(integer) 0")
}

// The primary changes while commands wait for values at the old one.
func TestThePrimaryMovesWhileAValueIsFetched(t *testing.T) {
	s := newScenario(t, 1, 5*ms, 500)
	s.read = 200 * ms
	h, far := s.on("h", 0), s.on("far", 1)
	s.types(h, "SET k 1")
	s.pass(200 * ms)
	s.gets(h, "OK")
	s.machines[0].proc.freeze()
	s.types(h, "INCR k")
	s.types(far, "INCR k")
	s.pass(8 * ms) // both wait
	s.handOver(s.machines[0], s.machines[1])
	s.pass(3 * second)
	if len(h.got) != 1 || len(far.got) != 1 {
		t.Fatalf("answered %v and %v", h.got, far.got)
	}
	want := 1
	for _, v := range []string{h.got[0].String(), far.got[0].String()} {
		if !strings.HasPrefix(v, "(error)") {
			want++
		}
	}
	h.got, far.got = nil, nil
	s.types(h, "GET k")
	s.pass(second)
	s.gets(h, fmt.Sprintf(`"%d"`, want))
}

func TestAReplicaThatSleepsIsWokenByEntriesAndTakesThemInOrder(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	s.read = 50 * ms
	h, far := s.on("h", 0), s.on("far", 1)
	s.types(h, "RPUSH l 0")
	s.pass(100 * ms)
	s.machines[1].proc.hibernate()
	replica := s.machines[1].proc.tenant.Engine
	if replica.State() != engine.Asleep {
		t.Fatal("it doesn't sleep")
	}
	s.types(far, "INFO replication")
	s.pass(10 * ms)
	if replica.State() != engine.Asleep {
		t.Error("INFO wakes it")
	}
	far.got, h.got = nil, nil
	for i := range 20 {
		s.types(h, fmt.Sprintf("RPUSH l %d", i+1))
		s.pass(3 * ms)
	}
	s.types(far, "LLEN l", "WAIT 0 1")
	s.pass(300 * ms)
	s.gets(far, "(integer) 21", "(integer) 1")
	if replica.State() != engine.Awake || replica.Position() != s.machines[0].proc.tenant.Engine.Position() || s.cover.Resubscribed > 0 {
		t.Errorf("%v at %v", replica.State(), replica.Position())
	}
}

// More entries than can wait are asked for again.
func TestAReplicaThatWakesSlowlyFollowsAnew(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	s.read = 2 * second
	h := s.on("h", 0)
	s.types(h, "SET k 0")
	s.pass(100 * ms)
	s.machines[1].proc.hibernate()
	s.types(h, "SET k 1")
	s.pass(30 * ms)
	big := strings.Repeat("x", 300_000)
	for i := range 20 {
		s.types(h, fmt.Sprintf("SET big%d %s", i%3, big))
		s.pass(10 * ms)
	}
	s.read = 10 * ms
	s.pass(15 * second)
	a, b := s.machines[0].proc.tenant.Engine, s.machines[1].proc.tenant.Engine
	if b.State() != engine.Awake || a.Position() != b.Position() || content(s.machines[0].proc) != content(s.machines[1].proc) {
		t.Errorf("%v at %v, the primary at %v", b.State(), b.Position(), a.Position())
	}
}

func TestASleepingPrimaryWakesForItsDeadlinesAndItsReplicas(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	h := s.on("h", 0)
	s.types(h, "SET k 1 PX 3000", "SET stays 1")
	s.pass(100 * ms)
	s.machines[0].proc.hibernate()
	db := s.machines[0].proc.tenant.Engine
	s.pass(2 * second)
	if db.State() != engine.Asleep {
		t.Fatal("something woke it")
	}
	s.pass(2 * second)
	if db.State() != engine.Awake || db.Sizes().Keys != 1 {
		t.Errorf("%v with %d keys", db.State(), db.Sizes().Keys)
	}
	s.machines[0].proc.hibernate()
	s.machines[1].disk, s.machines[1].tier = nil, tier{}
	s.restart(1)
	if db.State() != engine.Awake || content(s.machines[0].proc) != content(s.machines[1].proc) {
		t.Error("a replica without content isn't brought up")
	}
}

func TestASnapshotHasWhatIsOnDisk(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	h := s.on("h", 0)
	for i := range 30 {
		s.types(h, fmt.Sprintf("RPUSH l%d a %d %s", i, i, strings.Repeat("x", 2000))) // more than the feed remembers
	}
	s.pass(100 * ms)
	s.machines[0].proc.freeze()
	s.kill(1)
	s.machines[1].disk, s.machines[1].tier = nil, tier{}
	s.pass(10 * ms)
	s.machines[1].start()
	s.pass(5 * second)
	if n, _ := s.machines[0].proc.tenant.Engine.Keyspace().Cold(); n != 30 {
		t.Errorf("%d keys are cold: a snapshot needn't bring values back", n)
	}
	if s.cover.Snapshots != 1 {
		t.Errorf("%d snapshots", s.cover.Snapshots)
	}
	if content(s.machines[0].proc) != content(s.machines[1].proc) {
		t.Error("the copy has another content")
	}
}
