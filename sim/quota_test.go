package sim

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"vecino/catalog"
	"vecino/resp"
)

// allows changes what the plan of the scenario's database allows.
func (s *scenario) allows(change func(l *catalog.Limits)) {
	s.revise(func(rec *catalog.Database) { change(&rec.Limits) })
	s.pass(second)
}

// quota is one figure of INFO quotas of a machine.
func (s *scenario) quota(machine int, name string) int {
	s.t.Helper()
	for line := range strings.Lines(s.machines[machine].proc.tenant.Info([]string{"quotas"})) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			n, err := strconv.Atoi(value)
			if err != nil {
				s.t.Fatal(err)
			}
			return n
		}
	}
	s.t.Fatalf("INFO quotas has no %s", name)
	return 0
}

func (s *scenario) wantQuota(machine int, name string, want int) {
	s.t.Helper()
	if got := s.quota(machine, name); got != want {
		s.t.Errorf("on machine %d %s is %d, want %d", machine, name, got, want)
	}
}

func TestARequestThatIsTooLongIsRefusedAndTheConnectionGoesOn(t *testing.T) {
	for machine, where := range []string{"primary", "replica"} {
		t.Run(where, func(t *testing.T) {
			s := newScenario(t, 1, 10*ms, 500)
			s.allows(func(l *catalog.Limits) { l.RequestBytes = 1000 })
			h := s.on("h", machine)
			s.types(h, "SET a 1", "SET k "+strings.Repeat("v", 1000), "INCR a")
			s.pass(100 * ms)
			s.gets(h, "OK", "(error) ERR max request size exceeded. Limit: 1000 bytes, Actual: 1029 bytes. See docs/limits.md for details", "(integer) 2")
			s.types(h, "EXISTS k", "SET k "+strings.Repeat("v", 900))
			s.pass(100 * ms)
			s.gets(h, "(integer) 0", "OK")
			s.wantQuota(machine, "request_rejected", 1)
		})
	}
}

// What is too long isn't kept: after each piece the session has used it all.
func TestARequestThatIsTooLongIsNotGathered(t *testing.T) {
	s := newScenario(t, 0, 10*ms, 500)
	s.allows(func(l *catalog.Limits) { l.RequestBytes = 1000 })
	h := s.on("h", 0)
	h.bring(resp.AppendCommand(nil, "PING"))
	all := bytes.Repeat(resp.AppendCommand(nil, "SET", "k", strings.Repeat("v", 5000)), 2)
	for len(all) > 0 {
		piece := all[:min(100, len(all))]
		all = all[len(piece):]
		h.bring(piece)
		s.pass(ms)
		if len(h.in) > 1016 {
			t.Fatalf("%d bytes are kept", len(h.in))
		}
	}
	refused := "(error) ERR max request size exceeded. Limit: 1000 bytes, Actual: 5029 bytes. See docs/limits.md for details"
	s.gets(h, "PONG", refused, refused)
}

func TestATransactionIsOneRequest(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	s.allows(func(l *catalog.Limits) { l.RequestBytes = 1000 })
	for machine := range 2 {
		h := s.on(fmt.Sprint("h", machine), machine)
		s.types(h, "MULTI", "SET a "+strings.Repeat("v", 600), "SET b "+strings.Repeat("v", 600), "SET c 1", "EXEC", "EXISTS a b c")
		s.pass(100 * ms)
		s.gets(h, "OK", "QUEUED", "(error) ERR max request size exceeded. Limit: 1000 bytes, Actual: 1256 bytes. See docs/limits.md for details",
			"QUEUED", "(error) EXECABORT Transaction discarded because of previous errors.", "(integer) 0")
		s.types(h, "MULTI", "SET a "+strings.Repeat("v", 5000), "EXEC", "MULTI", "SET a 1", "EXEC", "DEL a")
		s.pass(100 * ms)
		s.gets(h, "OK", "(error) ERR max request size exceeded. ...", "(error) EXECABORT ...", "OK", "QUEUED", "1) OK", "(integer) 1")
	}
}

func TestAKeyThatIsTooLongIsRefused(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	s.allows(func(l *catalog.Limits) { l.KeyBytes = 100 })
	long, fits := strings.Repeat("k", 101), strings.Repeat("k", 100)
	refused := "(error) ERR max key size exceeded. Limit: 100 bytes, Actual: 101 bytes"
	for machine := range 2 {
		h := s.on(fmt.Sprint("h", machine), machine)
		for _, c := range []struct{ line, want string }{
			{"SET " + long + " v", refused},
			{"SET " + fits + " v", "OK"},
			{"GET " + long, refused},
			{"MSET a 1 " + long + " 2", refused},
			{"DEL a " + long, refused},
			{"ZUNIONSTORE z 2 a " + long, refused},
			{"SET v " + long, "OK"},
			{"ECHO " + long, `"` + long + `"`},
			{"DEL v " + fits, "(integer) 2"},
		} {
			s.types(h, c.line)
			s.pass(100 * ms)
			s.gets(h, c.want)
		}
		s.wantQuota(machine, "key_rejected", 5)
	}
}

// A replica may not have heard of a plan that has become smaller.
func TestThePrimaryHasTheLastWordOnWhatIsForwarded(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	rec := s.record
	rec.Revision++
	rec.Limits.RequestBytes, rec.Limits.KeyBytes = 1000, 100
	s.machines[0].learn(rec)
	s.pass(second)
	h := s.on("h", 1)
	s.types(h, "SET k "+strings.Repeat("v", 1000), "SET "+strings.Repeat("k", 101)+" v", "MULTI", "SET a "+strings.Repeat("v", 600), "SET b "+strings.Repeat("v", 600), "EXEC", "SET a 1")
	s.pass(100 * ms)
	s.gets(h, "(error) ERR max request size exceeded. Limit: 1000 bytes, Actual: 1029 bytes. See docs/limits.md for details",
		"(error) ERR max key size exceeded. Limit: 100 bytes, Actual: 101 bytes",
		"OK", "QUEUED", "QUEUED", "(error) EXECABORT ...", "OK")
	s.wantQuota(0, "request_rejected", 2)
	s.wantQuota(0, "key_rejected", 1)
	s.wantQuota(1, "request_rejected", 0)
}

func TestCommandsOverTheRateWaitAndKeepTheirOrder(t *testing.T) {
	for machine, where := range []string{"primary", "replica"} {
		t.Run(where, func(t *testing.T) {
			s := newScenario(t, 1, 10*ms, 500)
			s.allows(func(l *catalog.Limits) { l.CommandsPerS = 100 }) // ten at once
			h := s.on("h", machine)
			var lines, want []string
			for i := range 60 {
				lines = append(lines, "INCR n")
				want = append(want, fmt.Sprintf("(integer) %d", i+1))
			}
			s.types(h, lines...)
			s.pass(100 * ms)
			if n := len(h.got); n < 10 || n > 20 {
				t.Errorf("after 0.1 s there are %d answers, want those of the burst and of 0.1 s", n)
			}
			s.pass(200 * ms)
			if n := len(h.got); n < 25 || n > 40 {
				t.Errorf("after 0.3 s there are %d answers, want about 40", n)
			}
			s.pass(400 * ms)
			s.gets(h, want...)
			if s.quota(machine, "commands_delayed") == 0 {
				t.Error("no command is counted as delayed")
			}
			if machine == 1 {
				s.wantQuota(0, "commands_delayed", 0)
			}
			s.wantQuota(machine, "connections_delayed", 0)
		})
	}
}

// One who sends without end gets no more than one who asks now and then.
func TestConnectionsOverTheRateTakeTurns(t *testing.T) {
	s := newScenario(t, 0, 10*ms, 500)
	s.allows(func(l *catalog.Limits) { l.CommandsPerS = 1000 })
	greedy, modest := s.on("greedy", 0), s.on("modest", 0)
	var flood []string
	for range 5000 {
		flood = append(flood, "PING")
	}
	s.types(greedy, flood...)
	s.pass(50 * ms)
	for range 20 {
		s.types(modest, "PING")
		s.pass(45 * ms)
		s.gets(modest, "PONG")
	}
	if n := len(greedy.got); n < 900 || n > 1100 {
		t.Errorf("beside a modest one, the greedy has %d answers after a second, want about 1000", n)
	}
	s.allows(func(l *catalog.Limits) { l.CommandsPerS = 0 })
	if n := len(greedy.got); n != 5000 {
		t.Errorf("without a limit it has %d answers, want all", n)
	}
}

func TestAConnectionThatEndsWhileItWaitsLeavesTheLine(t *testing.T) {
	s := newScenario(t, 0, 10*ms, 500)
	s.allows(func(l *catalog.Limits) { l.CommandsPerS = 10 })
	a, b := s.on("a", 0), s.on("b", 0)
	s.types(a, "PING", "PING", "PING", "PING")
	s.types(b, "PING")
	s.pass(5 * ms)
	s.wantQuota(0, "connections_delayed", 2)
	a.hangUp()
	s.pass(5 * ms)
	s.wantQuota(0, "connections_delayed", 1)
	s.pass(300 * ms)
	s.gets(b, "PONG")
	s.wantQuota(0, "connections_delayed", 0)
}

func TestConnectionsThatIdleLongestMakeRoom(t *testing.T) {
	s := newScenario(t, 0, 10*ms, 500)
	s.allows(func(l *catalog.Limits) { l.Connections = 10 })
	var all []*hand
	open := func() *hand {
		h := s.on(fmt.Sprint("h", len(all)), 0)
		all = append(all, h)
		s.types(h, "PING")
		s.pass(5 * ms)
		return h
	}
	for range 9 {
		open()
	}
	listener, waiter := all[0], all[1]
	s.types(listener, "SUBSCRIBE news")
	s.types(waiter, "BLPOP q 0")
	s.pass(61 * second)
	s.types(all[2], "PING")
	s.pass(5 * ms)
	s.types(all[3], "PING")
	s.pass(100 * ms)

	// Nine tenths are reached: each that comes has the longest idle one closed.
	for i := range 3 {
		open()
		for j, h := range all {
			if want := j >= 4 && j < 5+i; h.closed != want {
				t.Errorf("after %d more, connection %d is closed: %v, want %v", i+1, j, h.closed, want)
			}
		}
	}
	s.wantQuota(0, "connections", 9)
	s.wantQuota(0, "connections_closed_idle", 3)

	// None of those that are left is idle enough; there is room for one.
	s.types(all[7], "PING")
	s.types(all[8], "PING")
	s.pass(100 * ms)
	last := open()
	refused := s.on("refused", 0)
	s.pass(5 * ms)
	s.gets(refused, "(error) ERR max concurrent connections exceeded")
	if last.closed || !refused.closed {
		t.Errorf("the last that fits is closed: %v; the one too many: %v", last.closed, refused.closed)
	}
	s.wantQuota(0, "connections", 10)
	s.wantQuota(0, "connections_rejected", 1)

	// The refused one has left nothing behind, and room comes back.
	last.hangUp()
	s.pass(5 * ms)
	if h := open(); h.closed {
		t.Error("there is room again, and a connection is refused")
	}
}
