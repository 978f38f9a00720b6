package session

import (
	"slices"
	"time"

	"vecino/catalog"
	"vecino/command"
	"vecino/engine"
	"vecino/journal"
	"vecino/link"
	"vecino/resp"
)

// This file is about what happens between a write and the moment at which it is
// on disk.
//
// Under the durability "always" nobody hears of a write before that: the replies
// of the connections that wrote in a batch are corked, and all that goes to other
// nodes, entries, replies and messages alike, queues here in its order. The loop
// goes on; when the journal's sync has covered them, Synced lets them go. One
// sync covers all that was written up to its begin, of all databases. Where nobody is
// kept from anything by it, the loop waits for the sync itself, and OnDisk says so before Flush:
// then nothing is held.
//
//	Take, Served       BeforeFlush: Commit, Flush            Synced
//	wrote ------------> corked, sent to t.held --------------> on their way
//	                         |
//	                         +--> SyncFailed: told so, and closed
//
// What others read meanwhile is not held: a read may show a write that is not on
// disk yet, as it may under the other durabilities. Whoever wrote it hasn't been
// answered.
//
// A copy also tells its primary how far it is on disk, for WAITAOF.
type durable struct {
	policy  catalog.Durability
	synced  journal.Offset // all before it is on disk, as far as was heard
	writers []*Session     // wrote in this batch
	corked  []corked       // the oldest first
	held    []heldFrame    // the oldest first

	// A replica's: what it can tell when the journal is on disk so far. loose is
	// set while its content is a snapshot's, which no journal holds.
	mark  journal.Offset
	at    catalog.Position
	loose bool

	waits []*durableWait
}

type corked struct {
	s   *Session
	off journal.Offset
}

type heldFrame struct {
	node  string
	lane  link.Lane
	frame link.Frame
	off   journal.Offset
}

// Durability is the database's.
func (t *Tenant) Durability() catalog.Durability { return t.durable.policy }

// Unsynced is the offset that must be on disk before all that was written is, 0
// if it is.
func (t *Tenant) Unsynced() journal.Offset {
	if off := t.Engine.Tail(); off > t.durable.synced {
		return off
	}
	return 0
}

// wrote notes that a session has written, or has heard of a write in its reply.
// Of what is queued for its client, from keep on nothing may leave before that is
// safe.
func (t *Tenant) wrote(s *Session, keep int) {
	if !s.corked && !s.wrote {
		s.keep = keep
	}
	if !s.wrote {
		s.wrote = true
		t.durable.writers = append(t.durable.writers, s)
	}
}

// cork holds the replies of those who wrote in this batch, if they have to be.
// The journal has been committed.
func (t *Tenant) cork() {
	d := &t.durable
	off := t.Unsynced()
	for i, s := range d.writers {
		d.writers[i] = nil
		s.wrote = false
		if off == 0 || d.policy != catalog.SyncAlways || s.gone {
			continue
		}
		if !s.corked {
			s.corked = true
			s.conn.Cork()
		}
		s.corkedTo = off
		d.corked = append(d.corked, corked{s, off})
	}
	d.writers = d.writers[:0]
}

// outbox is a tenant as the sender of what must not be heard of before it is on
// disk.
type outbox struct{ t *Tenant }

func (o outbox) Send(node string, lane link.Lane, f link.Frame) bool {
	t := o.t
	d := &t.durable
	off := t.Unsynced()
	if len(d.held) == 0 && (off == 0 || d.policy != catalog.SyncAlways) {
		return t.Host.Send(node, lane, f)
	}
	_, up := t.Host.Up(node)
	if up {
		f.Payload = slices.Clone(f.Payload) // it may be used again
		d.held = append(d.held, heldFrame{node, lane, f, off})
	}
	return up
}

// dropHeld forgets what was for a node that can't be reached any more.
func (t *Tenant) dropHeld(node string) {
	t.durable.held = slices.DeleteFunc(t.durable.held, func(h heldFrame) bool { return h.node == node })
}

// Waiters is how many connections have written in this batch and wait for a sync.
// It is not ok if something was written that nobody waits for so. Waiters and OnDisk are for the loop,
// before Flush.
func (t *Tenant) Waiters() (n int, ok bool) {
	d := &t.durable
	if t.Unsynced() == 0 {
		return 0, true
	}
	return len(d.writers), d.policy == catalog.SyncAlways && t.feed != nil
}

// OnDisk says that the journal is on disk up to an offset, so that what a batch
// has made can leave with Flush. Where something waits for an earlier sync it changes nothing, and Synced
// must say so.
func (t *Tenant) OnDisk(off journal.Offset) {
	if d := &t.durable; len(d.corked)+len(d.held)+len(d.waits) == 0 && t.feed != nil {
		d.synced = max(d.synced, off)
	}
}

// Synced says that the journal is on disk up to an offset.
func (t *Tenant) Synced(off journal.Offset) {
	t.Engine.Lock()
	defer t.Engine.Unlock()
	d := &t.durable
	if off <= d.synced {
		return
	}
	d.synced = off
	n := 0
	for n < len(d.held) && d.held[n].off <= off {
		h := &d.held[n]
		t.Host.Send(h.node, h.lane, h.frame)
		n++
	}
	d.held = slices.Delete(d.held, 0, n)
	n = 0
	for n < len(d.corked) && d.corked[n].off <= off {
		n++
	}
	for _, c := range d.corked[:n] {
		if c.s.corkedTo <= off { // else it has heard of a write since
			c.s.uncork()
		}
	}
	d.corked = slices.Delete(d.corked, 0, n)
	t.tellDurable()
	t.checkDurable()
}

// tellDurable tells the primary how far a replica is on disk, if it is further.
func (t *Tenant) tellDurable() {
	if d := &t.durable; t.feed == nil && !d.loose && d.mark != 0 && d.mark <= d.synced {
		if t.Unsynced() == 0 {
			d.at = t.Engine.Position()
		}
		t.follower.Durable(d.at, t.Host)
		d.mark = 0
		t.markDurable()
	}
}

func (s *Session) uncork() {
	if s.corked && !s.gone {
		s.conn.Uncork()
	}
	s.corked = false
}

// markDurable remembers which position a replica can call durable when the
// journal is on disk up to here.
func (t *Tenant) markDurable() {
	if d := &t.durable; t.feed == nil && d.mark == 0 {
		if off := t.Unsynced(); off != 0 {
			d.mark, d.at = off, t.Engine.Position()
		}
	}
}

// Saved says that a checkpoint is on disk which holds the content at a position,
// and more: also what a snapshot brought is on disk.
func (t *Tenant) Saved(pos catalog.Position) {
	t.Engine.Lock()
	defer t.Engine.Unlock()
	if d := &t.durable; d.loose {
		d.loose = false
		if t.feed == nil {
			t.follower.Durable(pos, t.Host)
			t.tellDurable()
		}
	}
}

// SyncFailed says that the journal couldn't be synced. Those who wait for it are
// told that they won't know. What goes to other nodes waits on: the journal will
// be mended, or this process ends.
func (t *Tenant) SyncFailed(err error) {
	t.Engine.Lock()
	defer t.Engine.Unlock()
	for _, c := range t.durable.corked {
		if c.s.corked {
			c.s.fail(err)
		}
	}
	t.durable.corked = nil
}

// fail tells a client that it can't be known whether what it wrote last is kept,
// instead of the replies that it would have had, and closes its connection.
func (s *Session) fail(err error) {
	if s.gone {
		return
	}
	out := resp.Writer{Proto: s.out.Proto}
	out.Error("MISCONF " + engine.Trouble(err) + "; whether this write is kept can't be known. Connect again: reads go on, and writes are taken again once the disk is well")
	s.conn.Replace(s.keep, out.Buf)
	s.conn.CloseAfterFlush()
	s.uncork()
}

// durableWait is a WAITAOF that isn't satisfied.
type durableWait struct {
	pos      catalog.Position
	off      journal.Offset // of the entry at pos, here
	local    int
	replicas int
	timer    Timer
	done     func(local, replicas int)
}

// durableAt counts the copies that have a position on disk: this one, and
// replicas.
func (t *Tenant) durableAt(pos catalog.Position, off journal.Offset) (local, replicas int) {
	if off <= t.durable.synced {
		local = 1
	}
	if t.feed != nil {
		replicas = t.feed.Durable(pos)
	}
	return local, replicas
}

// waitDurable answers WAITAOF: at once, if enough copies have the present
// position on disk or at is nil, else when they have or the time is up.
func (t *Tenant) waitDurable(local, replicas int, timeout time.Duration, out *resp.Writer, wait func(*durableWait), served func([]byte)) error {
	pos, off := t.Engine.Position(), t.Engine.Tail()
	l, r := t.durableAt(pos, off)
	if l >= local && r >= replicas || wait == nil {
		appendDurable(out, l, r)
		return nil
	}
	w := &durableWait{pos: pos, off: off, local: local, replicas: replicas}
	proto := out.Proto
	w.done = func(l, r int) {
		reply := resp.Writer{Proto: proto}
		appendDurable(&reply, l, r)
		served(reply.Buf)
	}
	if timeout > 0 {
		w.timer = t.after(timeout.Milliseconds(), func() {
			t.Engine.Lock()
			defer t.Engine.Unlock()
			w.timer = nil
			t.endDurable(w)
		})
	}
	t.durable.waits = append(t.durable.waits, w)
	if l < local {
		t.settle(func() { t.Host.SyncSoon(t) })
	}
	wait(w)
	return engine.ErrElsewhere
}

func appendDurable(out *resp.Writer, local, replicas int) {
	out.Array(2)
	out.Int(int64(local))
	out.Int(int64(replicas))
}

// cancelDurable forgets a WAITAOF without an answer.
func (t *Tenant) cancelDurable(w *durableWait) {
	d := &t.durable
	if i := slices.Index(d.waits, w); i >= 0 {
		d.waits = slices.Delete(d.waits, i, i+1)
	}
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

func (t *Tenant) endDurable(w *durableWait) {
	t.cancelDurable(w)
	w.done(t.durableAt(w.pos, w.off))
}

// checkDurable ends the waits that a sync, here or at a replica, has satisfied.
func (t *Tenant) checkDurable() {
	for i := 0; i < len(t.durable.waits); {
		w := t.durable.waits[i]
		if l, r := t.durableAt(w.pos, w.off); l >= w.local && r >= w.replicas {
			t.endDurable(w)
		} else {
			i++
		}
	}
}

// WaitDurable is called on the primary only.
func (s *Session) WaitDurable(local, replicas int, timeout time.Duration, out *resp.Writer) error {
	wait := func(w *durableWait) { s.waitDisk = w }
	if s.inExec {
		wait = nil
	}
	return s.tenant.waitDurable(local, replicas, timeout, out, wait, s.served)
}

// WaitDurable waits for the present position: the session has seen nothing
// newer.
func (rm *remote) WaitDurable(local, replicas int, timeout time.Duration, out *resp.Writer) error {
	wait := func(w *durableWait) { rm.waitDisk = w }
	if rm.inExec {
		wait = nil
	}
	return rm.tenant.waitDurable(local, replicas, timeout, out, wait, rm.Served)
}

var _ command.Client = (*remote)(nil)
