package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"vecino/catalog"
	"vecino/engine"
	"vecino/journal"
	"vecino/keyspace"
	"vecino/link"
	"vecino/region"
	"vecino/replication"
	"vecino/session"
)

// machine is what survives a process: its disk.
type machine struct {
	w        *world
	index    int
	id       string
	region   region.Code
	boots    uint64
	proc     *process // nil while it is down
	lag      int64    // for replicated frames
	full     bool     // the disk takes no more
	homeless bool     // the disk does not hold the snapshot that was loaded

	disk       []stored // the journal, as far as it was committed and not trimmed
	tail       journal.Offset
	tier       tier
	unreadable bool             // the tier's disk doesn't read
	known      catalog.Database // the last word of the catalog, on disk too
	generation uint64           // of the copy that the disk holds
}

type stored struct {
	off journal.Offset
	raw []byte
}

// process is one start of a machine: a loop, a journal and at most one tenant.
// It is the session.Host and the engine.Log of its tenant.
type process struct {
	machine *machine
	w       *world
	boot    uint64
	dead    bool
	doomed  doom

	inbox  []func()
	waking bool
	time   int64 // of the batch

	tenant  *session.Tenant
	scratch session.Scratch
	dirty   bool
	syncing bool // the disk is at it
	links   map[string]*incarnation
	lagged  []laggedFrame
	conns   []*conn // with something to send, or that close, in this batch
	all     []*conn
	nextID  int64

	log  []stored // appended, not committed
	next journal.Offset

	wantsCheckpoint bool
	saving          bool               // to the tier
	since           uint64             // the last complete sweep began there
	wipe            bool               // the tier holds another content
	requests        map[[2]uint64]bool // that were forwarded here, for the count of those that came again
}

// doom is where in its next batch a process is killed.
type doom uint8

const (
	safe doom = iota
	beforeCommit
	beforeFlush
	amidFlush
	beforeReplies
)

type laggedFrame struct {
	node string
	due  int64
	fn   func()
}

// start starts a process on what the disk holds.
func (m *machine) start() {
	w := m.w
	m.boots++
	p := &process{machine: m, w: w, boot: w.cfg.Seed<<16 + uint64(m.index)<<8 + m.boots, links: map[string]*incarnation{}, requests: map[[2]uint64]bool{}}
	p.next = m.tail
	if p.next == 0 {
		p.next = 1
	}
	m.proc = p
	p.time = w.now
	w.trace("%s: starts", m.id)
	if m.known.ID == 0 {
		m.known = w.record
		m.known.Copies = slices.Clone(m.known.Copies)
	}
	if m.known.CopyOn(m.id) != nil {
		p.place(m.known)
	}
	for _, l := range w.links {
		if l.ends[0] == m || l.ends[1] == m {
			if l.inc == nil {
				l.connect()
			}
		}
	}
	p.after(100*ms, p.tick)
}

func (p *process) tick() {
	if p.tenant != nil {
		p.tenant.Tick()
	}
	p.after(100*ms, p.tick)
}

// learn takes a record from the catalog.
func (m *machine) learn(rec catalog.Database) {
	if rec.Revision <= m.known.Revision {
		return
	}
	m.known = rec
	if p := m.proc; p != nil {
		p.post(func() { p.place(m.known) })
	}
}

// place makes, updates or ends the tenant.
func (p *process) place(rec catalog.Database) {
	m := p.machine
	own := rec.CopyOn(m.id)
	if own == nil || m.generation != 0 && own.Generation != m.generation {
		if p.tenant != nil {
			p.w.trace("%s: copy removed", m.id)
			p.count()
			p.tenant.Close()
			p.tenant = nil
			p.log = nil
		}
		m.disk, m.tier, m.generation, m.homeless = nil, tier{}, 0, false
		p.since, p.wipe = 0, false
	}
	if own == nil {
		return
	}
	m.generation = own.Generation
	if p.tenant == nil {
		db, complete, lost := p.recover()
		p.tenant = session.NewTenantOn(p, db, clock{p}, p.w.log, rec, complete, db.Position().Seq > 0, &p.scratch)
		p.tenant.Lost = lost
		p.tenant.Sizes = replication.Sizes{Ring: 24 << 10, Window: 3 << 10, Nearly: 700, Pinned: 100 << 10}
	}
	p.tenant.Update(rec)
}

func (p *process) newEngine() *engine.DB {
	return engine.New(engine.Config{ID: p.w.record.ID, HashSeed: p.w.record.HashSeed, Log: p, Logger: p.w.log, Rand: rand.New(rand.NewPCG(p.boot, 5)), Storage: p})
}

// recover builds the database from disk, as node does.
func (p *process) recover() (db *engine.DB, complete catalog.Position, lost bool) {
	m := p.machine
	db = p.newEngine()
	var from journal.Offset
	if c := m.tier.meta; c != nil {
		ks := db.Install(c.pos, c.hash, c.clock)
		for _, k := range m.tier.keys() {
			if err := ks.LoadHead(k.db, []byte(k.key), m.tier.records[k].Head); err != nil {
				p.w.fail("%s: recovery: %v", m.id, err)
			}
		}
		from, complete = c.from, c.complete
		p.since = c.pos.Seq
	}
	for _, s := range m.disk {
		e, _, err := journal.DecodeEntry(s.raw)
		if err != nil {
			p.w.fail("%s: recovery: %v", m.id, err)
			break
		}
		if s.off < from || db.Position().Covers(e.Position()) {
			continue
		}
		if err := db.Recover(s.off, &e, !db.Position().Covers(complete)); err != nil {
			p.w.trace("%s: copy given up: %v", m.id, err)
			p.since, p.wipe = 0, true
			return p.newEngine(), catalog.Position{}, true
		}
	}
	if db.Position().Seq > 0 {
		p.w.cover.Recoveries++
		p.w.trace("%s: recovered at %v", m.id, db.Position())
	}
	return db, complete, false
}

// post is Loop.Post.
func (p *process) post(fn func()) {
	if p.dead {
		return
	}
	p.inbox = append(p.inbox, fn)
	if p.waking {
		return
	}
	p.waking = true
	w := p.w
	late := w.between(0, 300)
	if w.chance(0.02) {
		late = w.between(0, w.stall)
	}
	w.after(late, p.batch)
}

// batch is one round of the loop.
func (p *process) batch() {
	if p.dead {
		return
	}
	p.waking = false
	p.time = p.w.now
	mail := p.inbox
	if len(mail) > 3 && p.w.chance(0.2) {
		mail = mail[:len(mail)/2]
	}
	p.inbox = p.inbox[len(mail):]
	for _, fn := range mail {
		fn()
	}
	if p.finish() {
		return
	}
	if len(p.inbox) > 0 {
		p.waking = true
		p.w.after(0, p.batch)
	}
}

// finish is what the loop does before it sleeps: make safe, then let be seen.
// It reports whether the process was killed in it.
func (p *process) finish() (killed bool) {
	if p.dirty {
		if p.doomed == beforeCommit {
			if p.w.cfg.Plant.TierAhead {
				p.sweep()
			}
			p.die()
			return true
		}
		err := p.commit()
		if p.doomed == beforeFlush {
			p.die()
			return true
		}
		p.dirty = err != nil
		switch {
		case p.tenant == nil:
		case err != nil && len(p.log) > 0:
			p.tenant.Fail(err)
		default:
			p.tenant.Flush()
			p.sync()
		}
		if p.doomed == beforeReplies || p.doomed == amidFlush {
			p.die()
			return true
		}
	}
	conns := p.conns
	p.conns = nil
	for _, c := range conns {
		c.marked = false
		c.flush()
	}
	return false
}

// die ends the process: what was not committed is gone.
func (p *process) die() {
	if p.dead {
		return
	}
	w, m := p.w, p.machine
	w.cover.Crashes++
	p.count()
	p.dead = true
	m.proc = nil
	w.trace("%s: killed, %d entries were not committed", m.id, len(p.log))
	if p.tenant != nil && p.tenant.IsPrimary() {
		w.cover.PrimaryCrashes++
		if len(p.log) > 0 {
			w.cover.LostTails++
		}
		if w.cfg.Plant.LoseCommit && len(m.disk) > 0 {
			m.disk = m.disk[:len(m.disk)-1]
		}
		w.oracle.cutTo(w.oracle.committed)
	}
	for _, c := range p.all {
		c.lost()
	}
	for _, l := range w.links {
		if l.ends[0] == m || l.ends[1] == m {
			l.died(m)
		}
	}
}

// count adds what the tenant counted.
func (p *process) count() {
	if p.tenant == nil {
		return
	}
	c := p.tenant.Counters()
	p.w.cover.add(Coverage{
		ColdCommands: p.tenant.Engine.Stats().Cold,
		LocalReads:   c.LocalReads, ForwardedReads: c.ForwardedReads, ForwardedWrites: c.ForwardedWrites,
		Held: c.Held, ReleasedLate: c.ReleasedLate, Delayed: p.tenant.Delayed(),
	})
}

// after runs fn on the loop once d has passed.
func (p *process) after(d int64, fn func()) *timer {
	t := &timer{}
	p.w.after(d, func() {
		p.post(func() {
			if !t.stopped {
				t.stopped = true
				fn()
			}
		})
	})
	return t
}

type timer struct{ stopped bool }

func (t *timer) Stop() bool {
	was := !t.stopped
	t.stopped = true
	return was
}

// clock is a process as a session.Clock.
type clock struct{ p *process }

func (c clock) Now() time.Time { return time.UnixMicro(birth + c.p.time).UTC() }
func (c clock) NowMS() int64   { return (birth + c.p.time) / ms }
func (c clock) After(d time.Duration, fn func()) session.Timer {
	return c.p.after(d.Microseconds(), fn)
}

// Append and Err make a process the engine.Log of its database.
func (p *process) Append(raw []byte) journal.Offset {
	s := stored{p.next, append([]byte(nil), raw...)}
	p.next += journal.Offset(len(raw))
	p.log = append(p.log, s)
	if p.tenant != nil && p.tenant.IsPrimary() {
		p.w.oracle.entry(p, s.raw)
	}
	return s.off
}

func (p *process) Err() error {
	if p.machine.full {
		return errFull
	}
	return nil
}

var errFull = errors.New("no space left on device")

// commit is one write of the journal. What it can't write is tried again.
func (p *process) commit() error {
	m := p.machine
	if m.full {
		p.w.cover.FailedCommits++
		return errFull
	}
	m.disk = append(m.disk, p.log...)
	p.log = nil
	m.tail = p.next
	if p.tenant != nil && p.tenant.IsPrimary() {
		p.w.oracle.committed = p.tenant.Engine.Position().Seq
	}
	return nil
}

// sync has what was committed on disk after a while. That a power cut loses what
// isn't is for the tests of package journal.
func (p *process) sync() {
	off := p.machine.tail
	if p.syncing || p.tenant.Unsynced() == 0 {
		return
	}
	p.syncing = true
	p.after(p.w.between(100, 3*ms), func() {
		p.syncing = false
		if p.tenant != nil {
			p.tenant.Synced(off)
			p.sync()
		}
	})
}

// SyncSoon is as soon as it ever is.
func (p *process) SyncSoon(*session.Tenant) {}

// What follows makes a process the session.Host of its tenant.

func (p *process) Node() string        { return p.machine.id }
func (p *process) Region() region.Code { return p.machine.region }
func (p *process) Boot() uint64        { return p.boot << 20 }

func (p *process) Up(node string) (boot uint64, up bool) {
	inc := p.links[node]
	if inc == nil {
		return 0, false
	}
	return inc.procs[1-inc.wire.side(p.machine)].boot, true
}

func (p *process) Send(node string, lane link.Lane, f link.Frame) bool {
	if p.dead || p.doomed == amidFlush && p.w.chance(0.5) {
		return true
	}
	inc := p.links[node]
	if inc == nil {
		return false
	}
	return p.sendOn(inc, lane, f)
}

func (p *process) sendOn(inc *incarnation, lane link.Lane, f link.Frame) bool {
	return inc.send(inc.wire.side(p.machine), lane, f)
}

func (p *process) Dirty(*session.Tenant) {
	p.dirty = true
	p.post(func() {}) // so that there is a batch
}

func (p *process) Changed(*session.Tenant) {}

func (p *process) NodeInfo() session.NodeInfo { return session.NodeInfo{Version: "sim"} }

// linkUp and linkDown are called when they are heard of; the loop hears later.
func (p *process) linkUp(node string, inc *incarnation, boot uint64) {
	p.links[node] = inc
	p.post(func() {
		if p.tenant != nil {
			p.tenant.LinkUp(node, boot)
		}
	})
}

func (p *process) linkDown(node string, inc *incarnation) {
	delete(p.links, node)
	p.lagged = slices.DeleteFunc(p.lagged, func(f laggedFrame) bool { return f.node == node })
	p.post(func() {
		if p.tenant != nil {
			p.tenant.LinkDown(node)
		}
	})
}

// frame takes what came over a link.
func (p *process) frame(node string, s sent) {
	deliver := func() {
		p.post(func() {
			switch {
			case p.tenant != nil:
				p.look(node, s)
				p.tenant.Frame(node, s.kind, s.bytes)
				if p.w.cfg.Plant.ApplyTwice && s.kind == replication.Entries && p.w.chance(0.1) {
					p.applyAgain(s.bytes[8:])
				}
			case s.kind == replication.Subscribe:
				p.Send(node, link.Live, link.Frame{Kind: replication.NotPrimary, DB: s.db})
			}
		})
	}
	if !replicated(s.kind) || p.machine.lag == 0 && len(p.lagged) == 0 {
		deliver()
		return
	}
	due := p.w.now + p.machine.lag
	if n := len(p.lagged); n > 0 {
		due = max(due, p.lagged[n-1].due)
	}
	p.lagged = append(p.lagged, laggedFrame{node, due, deliver})
	p.w.at(due, func() {
		for !p.dead && len(p.lagged) > 0 && p.lagged[0].due <= p.w.now {
			f := p.lagged[0]
			p.lagged = p.lagged[1:]
			f.fn()
		}
	})
}

// applyAgain is a planted bug.
func (p *process) applyAgain(raw []byte) {
	e, _, err := journal.DecodeEntry(raw)
	if err == nil && p.tenant.Engine.Position() == e.Position() {
		_ = p.tenant.Engine.Keyspace().Apply(e.Effects, e.Seq)
	}
}

// look counts what a frame tells about the world.
func (p *process) look(node string, s sent) {
	w := p.w
	if w.observe != nil {
		w.observe(p, s)
	}
	switch s.kind {
	case forward:
		id := requestOf(s.bytes)
		if p.requests[id] {
			w.cover.Retried++
			w.trace("%s: request %d of session %x again", p.machine.id, id[1], id[0])
		}
		p.requests[id] = true
	case replication.Continue:
		w.cover.CaughtUp++
	case replication.Entries:
		if s.lane == link.CatchUp {
			w.cover.Windows++
		}
	case replication.Subscribe, replication.SnapshotBegin, replication.SnapshotEnd, replication.NotPrimary, replication.Live:
		w.trace("%s: from %s %s", p.machine.id, node, [...]string{
			replication.Subscribe: "Subscribe", replication.SnapshotBegin: "SnapshotBegin", replication.SnapshotEnd: "SnapshotEnd",
			replication.NotPrimary: "NotPrimary", replication.Live: "Live",
		}[s.kind])
	}
}

// SendSnapshot sends a snapshot in many steps, while the database goes on.
func (p *process) SendSnapshot(t *session.Tenant, node string, snapshot *replication.Snapshot, done func(sent bool)) {
	db, w := t.Engine, p.w
	begin := snapshot.Begin(db.HistoryHash(), db.Clock())
	end := func(ok bool) {
		p.post(func() {
			db.Lock()
			defer db.Unlock()
			done(ok)
		})
	}
	send := func(f link.Frame) bool { return p.Send(node, link.Snapshot, f) }
	from := db.Keyspace()
	var at keyspace.Cursor
	var last catalog.Position
	var step func()
	step = func() {
		switch {
		case p.dead:
			return
		case at.Done():
			end(p.commit() == nil && send(snapshot.End(last)))
			return
		case db.Keyspace() != from:
			end(false)
			return
		}
		records := p.dump(from, &at, int(w.between(1, 6)))
		last = db.Position()
		if len(records) > 0 && !send(snapshot.Data(records)) {
			end(false)
			return
		}
		w.after(w.between(0, 30*ms), step)
	}
	w.after(w.between(0, 20*ms), func() {
		if p.dead {
			return
		}
		if !send(begin) {
			end(false)
			return
		}
		step()
	})
}

// Replaced asks for a checkpoint soon.
func (p *process) Replaced(*session.Tenant) {
	p.w.cover.Snapshots++
	p.machine.homeless = true
	p.since, p.wipe = 0, true
	p.wantsCheckpoint = true
	p.w.after(p.w.between(0, 400*ms), p.save)
}

// save sweeps the database into the tier in many steps, and trims the journal.
func (p *process) save() {
	wr := p.beginWriting()
	if wr == nil {
		return
	}
	p.wantsCheckpoint = false
	w, m, t := p.w, p.machine, p.tenant
	db := t.Engine
	unsaved := db.FirstUnsaved()
	c := &tierMeta{pos: db.Position(), complete: t.Complete(), hash: db.HistoryHash(), clock: db.Clock(), from: p.next}
	db.SetUnsaved(0)
	failed := func() {
		if unsaved != 0 {
			db.SetUnsaved(unsaved)
		}
	}
	var at keyspace.Cursor
	var step func()
	step = func() {
		switch {
		case p.dead:
		case !wr.valid():
			w.trace("%s: checkpoint given up", m.id)
			wr.abort()
			failed()
			if p.wantsCheckpoint {
				w.after(w.between(0, 400*ms), p.save)
			}
		case !at.Done():
			wr.ks.Sweep(&at, p.since, int(w.between(2, 20)), wr.put)
			w.after(w.between(0, 30*ms), step)
		case !wr.commit(c):
			failed()
		default:
			m.homeless = false
			w.trace("%s: checkpoint at %v, complete at %v", m.id, c.pos, c.complete)
			p.trim()
			if !w.hot {
				wr.offload(0.5)
			}
		}
	}
	step()
}

// trim lets go of the journal what the tier has.
func (p *process) trim() {
	oldest := p.next
	if off := p.tenant.Engine.FirstUnsaved(); off != 0 {
		oldest = off
	}
	p.machine.disk = slices.DeleteFunc(p.machine.disk, func(s stored) bool { return s.off < oldest })
}

// logHandler takes what the service logs into the trace.
type logHandler struct {
	w *world
}

func (h *logHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		return true
	})
	if r.Message == "frame refused" {
		h.w.cover.Resubscribed++
	}
	if r.Level >= slog.LevelError {
		h.w.fail("the service logs: %s", text)
	}
	h.w.trace("log: %s", text)
	return nil
}

func (h *logHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h *logHandler) WithGroup(string) slog.Handler      { return h }
