// Package sim is one database of the service in one goroutine under one seed:
// a primary, its replicas, the links between them and clients in every region,
// with faults, and checkers that judge what the clients saw.
//
// What runs is the service's own: session.Tenant with its sessions, the
// replication between them, engine, keyspace and commands. What this package
// stands in for is what has goroutines, sockets, files or clocks: loops, links,
// the journal's disk and node's recovery from it. Time is virtual, and every
// choice comes from the seed, so a seed replays the world.
//
// A world has these faults: links slow, lag entries, break and are cut, in one
// direction too; lanes overtake each other; processes are killed, between two
// steps of a batch as well, and come back with what their journal had
// committed; regions are added, with a snapshot that is taken while the
// database is written, and taken out; values leave memory and databases fall
// asleep at any time, and what brings them back is slow or fails (tier.go).
//
// Judged is, per connection, that it reads its own writes, never goes back in
// time, and that its writes come in order (oracle.go); that replies come in
// order and at all; that a command has one effect at most, and none when the
// client was told so; that a transaction is seen whole; and that in the end
// all copies are equal and nothing answered is missing.
package sim

import (
	"container/heap"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"

	"vecino/catalog"
	"vecino/region"
)

// Config says which world a seed makes.
type Config struct {
	Seed  uint64
	Trace func(format string, args ...any) // nil: no trace
	Plant Plant
}

// Plant is bugs that the harness puts in, so that the checkers can be seen to
// find them. They are in what carries frames and clients, not in the service.
type Plant struct {
	ForgetHead   bool // replies say that the primary's head is at the beginning
	ForwardTwice bool // a forwarded command also arrives under another session's name
	ApplyTwice   bool // a replica's copy gets the effects of an entry twice
	LoseCommit   bool // a primary that restarts has lost its last committed entry
	SplitMulti   bool // the commands of a transaction are sent without MULTI and EXEC
	SwapReplies  bool // two replies change places
	DenyOutcome  bool // UNKNOWNOUTCOME becomes TRYAGAIN
	LoseReply    bool // a reply of the primary is lost while the link stands
	TierAhead    bool // the tier is written before the journal
	KeepGraves   bool // deleted keys stay in the tier
	SkipKeys     bool // a sweep leaves a key out now and then
}

// Report is what became of a world.
type Report struct {
	Seed     uint64
	Failures []string
	Coverage Coverage
	Commands int
	Entries  uint64
}

// Coverage counts what a world went through.
type Coverage struct {
	LocalReads, ForwardedReads, ForwardedWrites, Held, ReleasedLate uint64
	Retried                                                         uint64 // forwarded commands that arrived twice
	CaughtUp                                                        uint64 // replicas that went on with a prefix of our history
	Windows                                                         uint64 // of entries on the catch-up lane
	Snapshots                                                       uint64 // loaded to the end
	Resubscribed                                                    uint64 // after a gap or another error
	TryAgain, UnknownOutcome                                        uint64
	Crashes, PrimaryCrashes, LostTails                              uint64
	Checkpoints, Recoveries                                         uint64
	FailedCommits, Moves                                            uint64
	Aborted                                                         uint64 // transactions with a watched key that had changed
	Delayed                                                         uint64 // commands over the rate
	Offloaded, Fetched, UnreadValues                                uint64 // values
	Sunk, Blind                                                     uint64 // keys
	ColdCommands                                                    uint64 // that waited for values
	Slept, Woken                                                    uint64 // databases
}

// all names the counters.
func (c *Coverage) all() map[string]*uint64 {
	return map[string]*uint64{
		"local reads": &c.LocalReads, "forwarded reads": &c.ForwardedReads, "forwarded writes": &c.ForwardedWrites,
		"held replies": &c.Held, "late replies": &c.ReleasedLate, "retries": &c.Retried, "continued histories": &c.CaughtUp,
		"windows of catching up": &c.Windows, "snapshots": &c.Snapshots, "subscriptions after a gap": &c.Resubscribed,
		"TRYAGAIN": &c.TryAgain, "UNKNOWNOUTCOME": &c.UnknownOutcome, "crashes": &c.Crashes, "crashes of the primary": &c.PrimaryCrashes,
		"lost tails": &c.LostTails, "checkpoints": &c.Checkpoints, "recoveries": &c.Recoveries, "failed commits": &c.FailedCommits, "moves of the primary": &c.Moves, "aborted transactions": &c.Aborted,
		"delayed commands": &c.Delayed, "values offloaded": &c.Offloaded, "keys sunk": &c.Sunk, "keys written blindly": &c.Blind, "values fetched": &c.Fetched, "values that couldn't be read": &c.UnreadValues,
		"commands that waited for values": &c.ColdCommands, "databases put to sleep": &c.Slept, "databases woken": &c.Woken,
	}
}

func (c *Coverage) add(o Coverage) {
	from := o.all()
	for name, n := range c.all() {
		*n += *from[name]
	}
}

// Times are in microseconds of virtual time.
const (
	ms     = 1000
	second = 1000 * ms

	birth = 2_000_000_000 * second // when a world begins, on its own clocks
)

// world is one run.
type world struct {
	cfg      Config
	rng      *rand.Rand
	now      int64
	events   eventHeap
	order    uint64
	machines []*machine
	links    []*wire // one a pair
	clients  []*client
	oracle   oracle
	cover    Coverage
	failures []string
	record   catalog.Database
	log      *slog.Logger

	calm     bool                     // no more faults
	observe  func(p *process, s sent) // hears of frames before their tenant, in scenarios
	commands int

	// What this seed's world is like.
	delay, jitter int64
	patience      int64
	stall         int64 // how long a batch may be late
	read          int64 // how long the tier may take
	hot           bool  // all stays in memory
}

type event struct {
	at    int64
	order uint64
	fn    func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].order < h[j].order
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = event{}
	*h = (*h)[:last]
	return e
}

// at has fn run at a time, or now if that has passed.
func (w *world) at(when int64, fn func()) {
	w.order++
	heap.Push(&w.events, event{max(when, w.now), w.order, fn})
}

func (w *world) after(d int64, fn func()) { w.at(w.now+d, fn) }

// between is a random number in [from, to].
func (w *world) between(from, to int64) int64 {
	if to <= from {
		return from
	}
	return from + w.rng.Int64N(to-from+1)
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) trace(format string, args ...any) {
	if w.cfg.Trace != nil {
		w.cfg.Trace("%9.3f  %s", float64(w.now)/ms, fmt.Sprintf(format, args...))
	}
}

// mostFailures is enough to see what is wrong.
const mostFailures = 10

func (w *world) fail(format string, args ...any) {
	text := fmt.Sprintf("at %.3f ms: %s", float64(w.now)/ms, fmt.Sprintf(format, args...))
	if len(w.failures) < mostFailures {
		w.failures = append(w.failures, text)
	}
	w.trace("FAILURE %s", text)
}

var regions = []region.Code{"cdg", "den", "gru", "jnb", "scl"}

// Run makes the world of a seed and lets it live.
func Run(cfg Config) Report {
	w := newWorld(cfg)
	w.build()
	w.live()
	w.settle()
	return Report{
		Seed: cfg.Seed, Failures: w.failures, Coverage: w.cover, Commands: w.commands, Entries: w.oracle.head,
	}
}

func newWorld(cfg Config) *world {
	w := &world{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x5eed))}
	w.log = slog.New(&logHandler{w: w})
	return w
}

// run lets time pass until a moment.
func (w *world) run(until int64) {
	for len(w.events) > 0 && w.events[0].at <= until && len(w.failures) < mostFailures {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.fn()
	}
	w.now = max(w.now, until)
}

// build makes machines, links and clients.
func (w *world) build() {
	w.delay = w.between(2, 120) * ms
	w.jitter = w.between(0, 20) * ms
	w.stall = w.between(1, 40) * ms
	w.read = w.between(100, 30*ms)
	w.hot = w.cfg.Seed%5 == 4
	w.patience = []int64{0, 0, 50, 200, -1}[w.rng.IntN(5)]
	replicas := 2 + w.rng.IntN(2)
	w.make(replicas, 1) // the last is of a region that may be added
	for i := range w.machines {
		for range 2 + w.rng.IntN(2) {
			w.clients = append(w.clients, newClient(w, len(w.clients), i))
		}
	}
	w.trace("world of seed %d: %d replicas, delay %d ms, jitter %d ms, patience %d ms", w.cfg.Seed, replicas, w.delay/ms, w.jitter/ms, w.patience)
}

// make makes the machines of a primary, of its replicas, and some more.
func (w *world) make(replicas, more int) {
	w.record = catalog.Database{ID: 7, Name: "sim", HashSeed: 99, Epoch: 1, Revision: 1}
	w.record.Limits.ReadYourWrite = w.patience
	if w.cfg.Seed%4 == 3 {
		w.record.Limits.CommandsPerS = 60
	}
	if w.cfg.Seed%3 == 2 {
		w.record.Durability = catalog.SyncAlways
	}
	if w.cfg.Seed%3 == 2 {
		w.record.Durability = catalog.SyncAlways
	}
	for i := range 1 + replicas + more {
		m := &machine{w: w, index: i, id: fmt.Sprintf("n%d", i), region: regions[i]}
		w.machines = append(w.machines, m)
		if i <= replicas {
			w.addCopy(m)
		}
	}
	for i, a := range w.machines {
		for _, b := range w.machines[i+1:] {
			w.links = append(w.links, newWire(w, a, b))
		}
	}
	for _, m := range w.machines {
		m.start()
	}
}

func (w *world) addCopy(m *machine) {
	role := catalog.Replica
	if len(w.record.Copies) == 0 {
		role = catalog.Primary
	}
	w.record.Made++
	w.record.Copies = append(w.record.Copies, catalog.Copy{Region: m.region, Node: m.id, Role: role, State: catalog.Live, Generation: w.record.Made})
}

// revise tells all machines of a new record, each in its own time.
func (w *world) revise(change func(rec *catalog.Database)) {
	change(&w.record)
	w.record.Revision++
	rec := w.record
	rec.Copies = append([]catalog.Copy(nil), rec.Copies...)
	for _, m := range w.machines {
		w.after(w.between(0, 300*ms), func() { m.learn(rec) })
	}
}

// live is the time of clients and faults.
func (w *world) live() {
	for _, c := range w.clients {
		c.begin()
	}
	w.scheduleFaults()
	w.run(w.now + w.between(8, 16)*second)
}

// settle heals all, waits until the clients have their answers, and judges
// what is left.
func (w *world) settle() {
	if len(w.failures) >= mostFailures {
		return
	}
	w.trace("settling")
	w.calm = true
	for _, m := range w.machines {
		m.lag, m.full = 0, false
		if m.proc == nil {
			m.start()
		}
	}
	for _, l := range w.links {
		l.heal(0)
		l.heal(1)
	}
	for _, c := range w.clients {
		c.stopping = true
	}
	w.run(w.now + 20*second)
	for _, m := range w.machines {
		if p := m.proc; p != nil && p.tenant != nil {
			p.tenant.Engine.Rouse()
		}
	}
	w.run(w.now + 5*second)
	for _, c := range w.clients {
		c.finish()
	}
	w.compare()
	w.oracle.judge(w)
	for _, m := range w.machines {
		if m.proc != nil {
			m.proc.count()
		}
	}
}

// primary is the machine that the record names.
func (w *world) primary() *machine {
	for _, m := range w.machines {
		if m.id == w.record.PrimaryCopy().Node {
			return m
		}
	}
	return nil
}

// compare checks that all copies are equal.
func (w *world) compare() {
	primary := w.primary().proc.tenant.Engine
	want := content(w.primary().proc)
	for _, m := range w.machines {
		if w.record.CopyOn(m.id) == nil {
			if m.proc.tenant != nil {
				w.fail("%s still has a copy", m.id)
			}
			continue
		}
		t := m.proc.tenant
		switch db := t.Engine; {
		case !t.Ready() || db.Err() != nil:
			w.fail("the copy on %s is not ready in the end (%v)", m.id, db.Err())
		case db.Position() != primary.Position():
			w.fail("the copy on %s is at %v in the end, the primary at %v", m.id, db.Position(), primary.Position())
		case db.HistoryHash() != primary.HistoryHash():
			w.fail("the copy on %s has another history", m.id)
		default:
			if got := content(m.proc); got != want {
				w.fail("the copy on %s has other content: %s", m.id, difference(got, want))
			}
		}
	}
	if n := primary.Loading(); n != 0 {
		w.fail("%d values are on their way at the primary in the end", n)
	}
	if primary.Waiting() != 0 {
		w.fail("%d commands wait at the primary for nobody", primary.Waiting())
	}
}

func difference(got, want string) string {
	g, h := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(h)) {
		a, b := "nothing", "nothing"
		if i < len(g) {
			a = g[i]
		}
		if i < len(h) {
			b = h[i]
		}
		if a != b {
			return fmt.Sprintf("it has %s, the primary %s", a, b)
		}
	}
	return "none"
}
