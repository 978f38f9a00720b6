package sim

import "testing"

func TestATransactionAtThePrimaryChangesTheConnectionOnlyIfItIsCarriedOut(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	h, other := s.on("h", 1), s.on("other", 0)
	s.types(h, "MULTI", "SELECT 3", "CLIENT SETNAME her", "SET k in3", "SELECT 99", "EXEC", "GET k", "CLIENT GETNAME", "SET l also3")
	s.pass(200 * ms)
	s.gets(h, "OK", "QUEUED", "QUEUED", "QUEUED", "QUEUED", "1) OK 2) OK 3) OK 4) (error) ERR DB index is out of range", `"in3"`, `"her"`, "OK")

	s.types(h, "WATCH k")
	s.pass(100 * ms)
	s.gets(h, "OK")
	s.types(other, "SELECT 3", "SET k changed")
	s.pass(100 * ms)
	s.types(h, "MULTI", "SELECT 5", "CLIENT SETNAME nobody", "SET k in5", "EXEC", "GET k", "CLIENT GETNAME", "GET l")
	s.pass(200 * ms)
	s.gets(h, "OK", "QUEUED", "QUEUED", "QUEUED", "(nil)", `"changed"`, `"her"`, `"also3"`)
}

func TestATransactionThatNobodyAnswersLeavesTheConnectionAsItWas(t *testing.T) {
	s := newScenario(t, 1, 10*ms, 500)
	h := s.on("h", 1)
	s.types(h, "SET k in0")
	s.pass(100 * ms)
	s.cutBoth(0, 1)
	s.types(h, "MULTI", "SELECT 3", "SET k in3", "EXEC")
	s.pass(5 * second)
	s.gets(h, "OK", "OK", "QUEUED", "QUEUED", "(error) ...")
	s.healBoth(0, 1)
	s.pass(2 * second)
	s.types(h, "GET k")
	s.pass(100 * ms)
	s.gets(h, `"in0"`)
}
