package session

import (
	"net/netip"
	"testing"
	"time"

	"vecino/catalog"
	"vecino/engine"
	"vecino/journal"
	"vecino/link"
	"vecino/resp"
)

// lone is a node on which a tenant is alone. What it doesn't have, nobody asks
// it for.
type lone struct{ Host }

func (lone) Send(string, link.Lane, link.Frame) bool { return false }
func (lone) Up(string) (uint64, bool)                { return 0, false }
func (lone) Node() string                            { return "lone" }
func (lone) Dirty(t *Tenant)                         { t.dirty = false }
func (lone) Append([]byte) journal.Offset            { return 1 }
func (lone) Err() error                              { return nil }
func (l lone) Now() time.Time                        { return time.UnixMilli(l.NowMS()) }
func (lone) NowMS() int64                            { return 1_000_000_000 }
func (lone) After(time.Duration, func()) Timer       { return nil }

// deaf is a connection whose client only sends.
type deaf struct{ Conn }

func (deaf) Expect(int) {}

func loneTenant(limits catalog.Limits) *Tenant {
	rec := catalog.Database{ID: 1, Epoch: 1, Revision: 1, Limits: limits, Copies: []catalog.Copy{{Region: "mad", Node: "lone", Role: catalog.Primary, State: catalog.Live}}}
	db := engine.New(engine.Config{ID: 1, HashSeed: 7, Log: lone{}})
	t := NewTenantOn(lone{}, db, lone{}, nil, rec, catalog.Position{}, false, new(Scratch))
	t.Update(rec)
	return t
}

var payg = catalog.Limits{DataBytes: 10 << 30, RequestBytes: 10 << 20, RecordBytes: 100 << 20, KeyBytes: 32 << 10, CommandsPerS: 1 << 40, Connections: 10_000}

func TestLimitsCostNoMemoryForACommand(t *testing.T) {
	s := OpenOn(loneTenant(payg), deaf{}, 1, netip.AddrPort{})
	in := resp.AppendCommand(resp.AppendCommand(nil, "SET", "k", "value"), "GET", "k")
	out := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(200, func() {
		if got, used := s.Take(out, in); used != len(in) || len(got) != len("+OK\r\n$5\r\nvalue\r\n") {
			t.Fatalf("%d of %d bytes used, answer %q", used, len(in), got)
		}
	}); n != 0 {
		t.Errorf("SET and GET allocate %v times", n)
	}
}

// BenchmarkTake is what the session, the engine and the keyspace need for a
// command, with the limits of a plan and without.
func BenchmarkTake(b *testing.B) {
	for _, plan := range []struct {
		name   string
		limits catalog.Limits
	}{{"none", catalog.Limits{}}, {"payg", payg}} {
		for _, c := range []struct {
			name string
			in   []byte
		}{
			{"GET", resp.AppendCommand(nil, "GET", "k")},
			{"SET", resp.AppendCommand(nil, "SET", "k", "value")},
			{"HSET", resp.AppendCommand(nil, "HSET", "h", "field", "value")},
		} {
			b.Run(plan.name+"/"+c.name, func(b *testing.B) {
				s := OpenOn(loneTenant(plan.limits), deaf{}, 1, netip.AddrPort{})
				s.Take(nil, resp.AppendCommand(nil, "SET", "k", "value"))
				out := make([]byte, 0, 1024)
				b.ReportAllocs()
				for b.Loop() {
					s.Take(out, c.in)
				}
			})
		}
	}
}
