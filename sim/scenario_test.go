package sim

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vecino/catalog"
	"vecino/internal/transcript"
	"vecino/replication"
	"vecino/resp"
)

// scenario is a world in which nothing happens but what a test does. The
// primary is machine 0, and a region is 10 ms away.
type scenario struct {
	*world
	t     *testing.T
	hands map[string]*hand
}

// hand is a connection whose commands a test types.
type hand struct {
	*conn
	name   string
	got    []resp.Value
	closed bool
}

func (h *hand) receive(_ *conn, b []byte) {
	values, _ := parse(b)
	for _, v := range values {
		h.proc.w.trace("%s< %v", h.name, v)
		h.got = append(h.got, v)
	}
}

func (h *hand) disconnected(*conn) { h.closed = true }

func newScenario(t *testing.T, replicas int, delay, patience int64) *scenario {
	var trace strings.Builder
	s := &scenario{t: t, hands: map[string]*hand{}}
	s.world = newWorld(Config{Seed: 1, Trace: func(format string, args ...any) { fmt.Fprintf(&trace, format+"\n", args...) }})
	s.delay, s.patience, s.calm, s.read, s.hot = delay, patience, true, 100, true
	s.make(replicas, 0)
	for _, l := range s.links {
		l.delay = [2]int64{delay, delay}
	}
	s.pass(2 * second)
	for _, m := range s.machines {
		if !m.proc.tenant.Ready() {
			t.Fatalf("%s isn't ready", m.id)
		}
	}
	t.Cleanup(func() {
		for _, f := range s.failures {
			t.Error(f)
		}
		if t.Failed() && testing.Verbose() {
			t.Log("\n" + trace.String())
		}
	})
	return s
}

func (s *scenario) pass(d int64) { s.run(s.now + d) }

// on opens a connection to a machine, of that name from then on.
func (s *scenario) on(name string, machine int) *hand {
	h := &hand{name: name}
	h.conn = s.dial(s.machines[machine].proc, h)
	s.hands[name] = h
	return h
}

// types sends commands, one a line, in one piece.
func (s *scenario) types(h *hand, lines ...string) {
	var b []byte
	for _, line := range lines {
		s.trace("%s> %s", h.name, line)
		words, _ := resp.SplitWords([]byte(line), nil)
		argv := make([]string, len(words))
		for i, w := range words {
			argv[i] = string(w)
		}
		b = resp.AppendCommand(b, argv...)
	}
	h.bring(b)
}

// gets checks what has come on a connection since the last time.
func (s *scenario) gets(h *hand, want ...string) {
	s.t.Helper()
	var got []string
	for _, v := range h.got {
		got = append(got, strings.ReplaceAll(v.String(), "\n", " "))
	}
	h.got = nil
	if len(got) != len(want) {
		s.t.Fatalf("%s gets %q, want %q", h.name, got, want)
	}
	for i := range got {
		if got[i] != want[i] && !(strings.HasSuffix(want[i], "...") && strings.HasPrefix(got[i], strings.TrimSuffix(want[i], "..."))) {
			s.t.Errorf("%s gets %q, want %q", h.name, got[i], want[i])
		}
	}
}

func (s *scenario) link(a, b int) *wire { return s.wireBetween(s.machines[a], s.machines[b]) }

// breaks breaks a link; it comes back by itself in less than half a second.
func (s *scenario) breaks(a, b int) {
	s.link(a, b).inc.fail(0)
	s.pass(ms)
}

func (s *scenario) cutBoth(a, b int) {
	s.link(a, b).stop(0)
	s.link(a, b).stop(1)
}

func (s *scenario) healBoth(a, b int) {
	s.link(a, b).heal(0)
	s.link(a, b).heal(1)
}

func (s *scenario) kill(machine int) {
	s.machines[machine].proc.die()
}

// restart kills a machine's process and starts another, and lets all connect.
func (s *scenario) restart(machine int) {
	s.kill(machine)
	s.pass(100 * ms)
	s.machines[machine].start()
	s.pass(5 * second)
}

func TestWriteOnAReplicaTakesOneRoundTripAndIsReadThere(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	h := s.on("h", 1)
	s.types(h, "SET k v")
	s.pass(19 * ms)
	s.gets(h)
	s.pass(20 * ms)
	s.gets(h, "OK")
	s.types(h, "GET k")
	s.pass(2 * ms)
	s.gets(h, `"v"`)
	if c := s.machines[1].proc.tenant.Counters(); c.LocalReads != 1 || c.ForwardedWrites != 1 || c.Held != 0 {
		t.Errorf("counted %+v", c)
	}
}

func TestWriteWhoseEntryIsLateIsReleasedAfterPatienceAndReadAtThePrimary(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	s.machines[1].lag = 900 * ms
	h, other := s.on("h", 1), s.on("other", 1)
	s.types(h, "SET k v")
	s.pass(490 * ms)
	s.gets(h)
	s.pass(30 * ms)
	s.gets(h, "OK")
	s.types(h, "GET k")
	s.types(other, "GET k")
	s.pass(2 * ms)
	s.gets(other, "(nil)")
	s.pass(40 * ms)
	s.gets(h, `"v"`)
	if c := s.machines[1].proc.tenant.Counters(); c.Held != 1 || c.ReleasedLate != 1 || c.ForwardedReads != 1 || c.LocalReads != 1 {
		t.Errorf("counted %+v", c)
	}
}

func TestRequestsBehindAParkedOneRunOnceWhenTheyComeAgain(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	h, p := s.on("h", 1), s.on("p", 0)
	s.types(h, "BLPOP q 0", "RPUSH l x", "INCR n")
	s.pass(100 * ms)
	s.breaks(0, 1)
	s.pass(second)
	s.types(p, "RPUSH q job", "LLEN l")
	s.pass(100 * ms)
	s.gets(p, "(integer) 1", "(integer) 1")
	s.gets(h, `1) "q" 2) "job"`, "(integer) 1", "(integer) 1")
	s.types(p, "LLEN l", "GET n")
	s.pass(100 * ms)
	s.gets(p, "(integer) 1", `"1"`)
}

func TestRequestWhoseReplyWasLostGetsTheSameReplyAgain(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	h := s.on("h", 1)
	s.types(h, "INCR n", "INCR n")
	s.pass(12 * ms) // carried out, and the reply is on its way
	s.breaks(0, 1)
	s.pass(second)
	s.gets(h, "(integer) 1", "(integer) 2")
	if s.cover.Retried == 0 {
		t.Error("nothing came twice")
	}
}

func TestNothingIsPoppedForASessionWhoseLinkIsDown(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	h, p := s.on("h", 1), s.on("p", 0)
	s.types(h, "BLPOP q 0")
	s.pass(50 * ms)
	s.cutBoth(0, 1)
	s.pass(3 * second)
	s.types(p, "RPUSH q job", "LLEN q")
	s.pass(50 * ms)
	s.gets(p, "(integer) 1", "(integer) 1")
	s.healBoth(0, 1)
	s.pass(second)
	s.gets(h, `1) "q" 2) "job"`)
}

func TestACommandThatIsUnblockedOnAReplicaEndsAlsoWhenTheLinkBreaks(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	h, other, p := s.on("h", 1), s.on("other", 1), s.on("p", 0)
	s.types(h, "CLIENT ID", "BLPOP q 0", "INCR n")
	s.pass(50 * ms)
	number := strings.TrimPrefix(h.got[0].String(), "(integer) ")
	h.got = nil
	s.types(other, "CLIENT UNBLOCK "+number+" ERROR")
	s.pass(2 * ms) // it is on its way
	s.breaks(0, 1)
	s.pass(second)
	s.gets(other, "(integer) 1")
	s.gets(h, "(error) UNBLOCKED ...", "(integer) 1")
	s.types(p, "RPUSH q job")
	s.pass(50 * ms)
	s.gets(h)
	s.types(h, "BLPOP q 0")
	s.pass(50 * ms)
	s.gets(h, `1) "q" 2) "job"`)
}

func TestEveryWriteHasAnAnswerWhenThePrimaryIsRestarted(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	h := s.on("h", 1)
	s.types(h, "GET a", "SET a 1", "GET a", "SET b 1", "SET c 1", "GET c")
	s.pass(10 * ms)
	s.restart(0)
	// What stands ahead of a write that may have been carried out isn't read
	// afterwards; what stands behind the last can be.
	unknown, again := "(error) UNKNOWNOUTCOME ...", "(error) TRYAGAIN ..."
	got := len(h.got)
	if got != 6 {
		t.Fatalf("%d answers", got)
	}
	if h.got[0].Str == "" && h.got[0].Null { // it was answered before the end
		s.gets(h, "(nil)", unknown, again, unknown, unknown, `...`)
		return
	}
	s.gets(h, again, unknown, again, unknown, unknown, "...")
}

func TestWritesWithoutAPrimaryFailInTime(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	h := s.on("h", 1)
	s.types(h, "SET k old")
	s.pass(100 * ms)
	s.gets(h, "OK")
	s.kill(0)
	s.pass(3 * second)
	s.types(h, "GET k", "SET k new", "GET k")
	s.pass(4400 * ms)
	s.gets(h, `"old"`)
	s.pass(500 * ms)
	s.gets(h, "(error) TRYAGAIN ...", "(error) TRYAGAIN ...")
	s.types(h, "GET k")
	s.pass(5 * ms)
	s.gets(h, `"old"`)
}

func TestWAITEndsWithItsConnection(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	for i := range 2 {
		h := s.on(fmt.Sprint("h", i), i)
		s.types(h, "SET k v", "WAIT 9 0")
		s.pass(100 * ms)
		s.gets(h, "OK")
		h.hangUp()
		s.pass(100 * ms)
	}
	if info := s.machines[0].proc.tenant.Info([]string{"clients"}); strings.Contains(info, "blocked_clients:1") {
		t.Error("a client that is gone is waiting")
	}
	h := s.on("after", 1)
	s.types(h, "SET k v", "WAIT 1 0", "PING")
	s.pass(100 * ms)
	s.gets(h, "OK", "(integer) 1", "PONG")
}

func TestMessageOfATransactionFollowsItsEntry(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	listener, p := s.on("listener", 1), s.on("p", 0)
	s.types(listener, "SUBSCRIBE news")
	s.pass(100 * ms)
	s.gets(listener, `1) "subscribe" 2) "news" 3) (integer) 1`)
	applied := uint64(0) // when the message came
	s.observe = func(p *process, f sent) {
		if f.kind == replication.Publish {
			applied = p.tenant.Engine.Position().Seq
		}
	}
	s.types(p, "MULTI", "PUBLISH news changed", "SET k new", "EXEC")
	s.pass(100 * ms)
	s.gets(listener, `1) "message" 2) "news" 3) "changed"`)
	if applied != s.oracle.head {
		t.Errorf("the message came when the replica had write %d of %d", applied, s.oracle.head)
	}
}

func TestPublishesThroughAReplicaArePipelined(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	h := s.on("h", 1)
	s.types(h, "PUBLISH a 1", "PUBLISH a 2", "PUBLISH a 3")
	s.pass(30 * ms)
	s.gets(h, "(integer) 0", "(integer) 0", "(integer) 0")
}

func TestErrorOfTheProtocolComesBehindTheRepliesAhead(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	h := s.on("h", 1)
	h.bring(append(resp.AppendCommand(nil, "SET", "k", "v"), "*1\r\n$x\r\n"...))
	s.pass(100 * ms)
	s.gets(h, "OK", "(error) ERR Protocol error: invalid bulk length")
	if !h.closed {
		t.Error("the connection is open")
	}
}

func TestTransactionThatSubscribesIsNotForwarded(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	h := s.on("h", 1)
	s.types(h, "MULTI", "SET k v", "SUBSCRIBE news", "EXEC", "GET k")
	s.pass(100 * ms)
	s.gets(h, "OK", "QUEUED", "QUEUED", "(error) EXECABORT ...", "(nil)")
}

// moves makes a replica the primary.
func (s *scenario) moves(to int) {
	s.t.Helper()
	if !movable(s.primary(), s.machines[to]) {
		s.t.Fatal("it hasn't all that the primary has")
	}
	s.handOver(s.primary(), s.machines[to])
}

func TestSessionsWhosePrimaryMovesGetTheirAnswers(t *testing.T) {
	s := newScenario(t, 2, 10*ms, 500)
	a, b, c := s.on("a", 0), s.on("b", 1), s.on("c", 2)
	s.types(a, "RPUSH seen a", "BLPOP q 0")
	s.types(b, "BLPOP q 0")
	s.types(c, "BLPOP q 0")
	s.pass(200 * ms)
	s.gets(a, "(integer) 1")
	s.moves(1)
	s.pass(3 * second)
	s.gets(a, "(error) UNBLOCKED ...")
	s.gets(b, "(error) UNKNOWNOUTCOME ...")
	if len(c.got) != 1 || c.got[0].Kind != resp.KindError {
		t.Errorf("c gets %v", c.got)
	}
	c.got = nil
	// Writes from everywhere reach the new one, and everybody reads them.
	s.types(a, "RPUSH seen again", "LRANGE seen 0 -1")
	s.pass(100 * ms)
	s.gets(a, "(integer) 2", `1) "a" 2) "again"`)
	s.types(b, "LRANGE seen 0 -1")
	s.types(c, "LRANGE seen 0 -1")
	s.pass(100 * ms)
	s.gets(b, `1) "a" 2) "again"`)
	s.gets(c, `1) "a" 2) "again"`)
	// And back again.
	s.moves(0)
	s.pass(3 * second)
	s.types(b, "RPUSH seen back", "LLEN seen")
	s.pass(100 * ms)
	s.gets(b, "(integer) 3", "(integer) 3")
	for _, m := range s.machines {
		if !m.proc.tenant.Ready() || m.proc.tenant.Engine.Position() != (catalog.Position{Epoch: 3, Seq: s.oracle.head}) {
			t.Errorf("%s is at %v", m.id, m.proc.tenant.Engine.Position())
		}
	}
}

func TestSessionIsNotTakenForOneOfTheProcessBefore(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	h := s.on("h", 1)
	s.types(h, "INCR n")
	s.pass(50 * ms)
	s.gets(h, "(integer) 1")
	s.restart(1)
	next := s.on("next", 1) // the first session of its process, as h was
	s.types(next, "INCR n")
	s.pass(50 * ms)
	s.gets(next, "(integer) 2")
}

func TestWatchedKeyThatWasDeletedBeforeARestartIsNotForgotten(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	h, p := s.on("h", 1), s.on("p", 0)
	s.types(p, "SET k 1")
	s.pass(100 * ms)
	s.types(h, "WATCH k", "GET k")
	s.pass(100 * ms)
	s.gets(h, "OK", `"1"`)
	s.types(p, "DEL k", "SET other 1")
	s.pass(100 * ms)
	s.machines[0].proc.save()
	s.pass(second)
	s.restart(0)
	s.types(h, "MULTI", "SET won 1", "EXEC")
	s.pass(100 * ms)
	s.gets(h, "OK", "QUEUED", "(nil)")
}

// player plays scripts on connections in a region.
type player struct {
	*scenario
	machine int
	behind  bool            // each command comes behind another one that was forwarded
	inMulti map[string]bool // by connection
	cold    coldMode
}

// coldMode is what leaves memory after each command.
type coldMode int

const (
	allHot coldMode = iota
	valuesCold
	keysSunk
	asleep
)

// freeze has all values, or the whole database, leave memory on each machine.
func (p player) freeze() {
	if p.cold == allHot {
		return
	}
	for _, m := range p.machines {
		if p.cold == asleep {
			m.proc.hibernate()
		} else {
			m.proc.freeze()
			if p.cold == keysSunk {
				m.proc.sink(1)
			}
		}
	}
}

func newPlayer(t *testing.T, lag int64, behind bool) player {
	s := newScenario(t, 1, 20, -1)
	s.machines[1].lag = lag
	return player{s, 1, behind, map[string]bool{}, allHot}
}

func (p player) hand(name string) *hand {
	if h := p.hands[name]; h != nil {
		return h
	}
	return p.on(name, p.machine)
}

func (p player) Do(name string, argv []string) transcript.Answer {
	h := p.hand(name)
	if h.closed {
		return transcript.Answer{Closed: true}
	}
	p.freeze()
	command := resp.AppendCommand(nil, argv...)
	if !p.behind || p.inMulti[name] {
		h.bring(command)
	} else {
		p.pass(3 * ms) // for what is still to come
		h.bring(append(resp.AppendCommand(nil, "DEL", "\x00 nothing"), command...))
		reply := func() int {
			return slices.IndexFunc(h.got, func(v resp.Value) bool { return v.Kind != resp.KindPush })
		}
		waiting := h.got // messages that nobody has asked for yet
		h.got = nil
		for range 40 {
			if reply() >= 0 {
				break
			}
			p.pass(100)
		}
		if i := reply(); i >= 0 {
			h.got = slices.Delete(h.got, i, i+1)
		}
		h.got = slices.Concat(waiting, h.got)
	}
	switch strings.ToUpper(argv[0]) {
	case "MULTI":
		p.inMulti[name] = true
	case "EXEC", "DISCARD", "RESET":
		p.inMulti[name] = false
	}
	return p.Next(name)
}

// Next waits a little: nothing takes longer here that doesn't wait.
func (p player) Next(name string) transcript.Answer {
	h := p.hand(name)
	for range 40 {
		if len(h.got) > 0 {
			v := h.got[0]
			h.got = h.got[1:]
			return transcript.Answer{Value: v}
		}
		if h.closed {
			return transcript.Answer{Closed: true}
		}
		p.pass(200)
	}
	return transcript.Answer{Waits: true}
}

func (p player) Pass(d time.Duration) { p.pass(d.Microseconds()) }

const scripts = "../command/testdata"

func TestScriptsThroughAReplica(t *testing.T) {
	transcript.RunDir(t, scripts, transcript.Options{Name: "replica"}, func(t *testing.T) transcript.Player {
		return newPlayer(t, 0, false)
	})
}

// All is forwarded: each command is pipelined behind one that was.
func TestScriptsBehindCommandsInFlight(t *testing.T) {
	transcript.RunDir(t, scripts, transcript.Options{Name: "replica"}, func(t *testing.T) transcript.Player {
		return newPlayer(t, 0, true)
	})
}

func TestScriptsInsideMultiThroughAReplica(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(scripts, "*", "*.txt"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts (%v)", err)
	}
	for _, path := range paths {
		if filepath.Base(path) == "config.txt" {
			continue // a node has more to say to it than the player called multi
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			transcript.Run(t, path, transcript.Options{Name: "multi"}, func(t *testing.T) transcript.Player {
				return transcript.InMulti(newPlayer(t, 0, false))
			})
		})
	}
}

// Before each command all values are on disk, or at the primary keys as well, or the
// whole database is: at the primary and at its replica.
func TestScriptsOnColdKeys(t *testing.T) {
	for _, where := range []struct {
		name    string
		machine int
		cold    coldMode
	}{{"node", 0, valuesCold}, {"replica", 1, valuesCold}, {"node", 0, keysSunk}, {"replica", 1, keysSunk}, {"node", 0, asleep}, {"replica", 1, asleep}} {
		for _, inMulti := range []bool{false, true} {
			name := fmt.Sprintf("%s/%v/%v", where.name, where.cold, inMulti)
			t.Run(name, func(t *testing.T) {
				var cold uint64
				play := func(t *testing.T, path string) {
					opts := transcript.Options{Name: where.name}
					if inMulti {
						opts.Name = "multi"
					}
					transcript.Run(t, path, opts, func(t *testing.T) transcript.Player {
						p := newPlayer(t, 0, false)
						p.machine, p.cold = where.machine, where.cold
						t.Cleanup(func() {
							for _, m := range p.machines {
								s := m.proc.tenant.Engine.Stats()
								cold += s.Cold + s.Wakes
								if s.FetchErrors > 0 {
									t.Errorf("%d values couldn't be read", s.FetchErrors)
								}
							}
						})
						if inMulti {
							return transcript.InMulti(p)
						}
						return p
					})
				}
				paths, err := filepath.Glob(filepath.Join(scripts, "*", "*.txt"))
				if err != nil || len(paths) == 0 {
					t.Fatalf("no scripts (%v)", err)
				}
				for _, path := range paths {
					if inMulti && filepath.Base(path) == "config.txt" {
						continue // a node has more to say to it than the player called multi
					}
					t.Run(filepath.Base(path), func(t *testing.T) { play(t, path) })
				}
				t.Logf("%d waits", cold)
				if cold < 200 {
					t.Errorf("commands waited %d times in all scripts", cold)
				}
			})
		}
	}
}
