package session

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"vecino/catalog"
	"vecino/command"
	"vecino/engine"
	"vecino/eviction"
	"vecino/journal"
	"vecino/keyspace"
	"vecino/link"
	"vecino/loop"
	"vecino/pubsub"
	"vecino/region"
	"vecino/replication"
)

// Mesh is the other nodes, as a tenant reaches them.
type Mesh interface {
	replication.Sender
	// Up reports whether there is a link to a node, and which start of its
	// process is at the other end.
	Up(node string) (boot uint64, up bool)
}

// Host is the node that a tenant lives on.
type Host interface {
	Mesh
	// Node and Region say who this is.
	Node() string
	Region() region.Code
	// Boot is a number that this start of the process drew at random.
	Boot() uint64
	// SendSnapshot sends a tenant as it is now, or newer, to a node, from a
	// goroutine. done is called on the loop, with the lock held.
	SendSnapshot(t *Tenant, node string, snapshot *replication.Snapshot, done func(sent bool))
	// Dirty asks for a call of Flush once the journal has been committed.
	Dirty(t *Tenant)
	// Replaced says that the content was replaced by a snapshot. Until a
	// checkpoint holds it, the journal alone can't bring it back.
	Replaced(t *Tenant)
	// SyncSoon asks for the journal to be synced now, not in its time.
	SyncSoon(t *Tenant)
	// Changed says that the state of a copy changed (it became live, say).
	Changed(t *Tenant)
	// NodeInfo is what INFO shows of the node to every tenant.
	NodeInfo() NodeInfo
}

// NodeInfo is what INFO shows of the node.
type NodeInfo struct {
	Version string
	Started time.Time
	Port    int
	RunID   string
	Debug   bool // DEBUG is allowed
}

// A Tenant is one database on this node with all that belongs to it: the
// engine, the feed or the follower, whoever is connected, and the sessions of
// other regions that forward to it.
//
// It lives on one loop and is an owner there. Its methods run in the owner's
// turns, which Do asks for, or where they say so in the loop's own functions
// while the owner is here; with the engine's lock held where they touch data.
//
//	                 primary here                    primary elsewhere
//	client --> Session --> engine --> journal    client --> Session --> forward
//	                          |                                 ^          |
//	                          v                                 |          v
//	                        Feed --> replicas                 reply     primary's
//	                                                            |       remote --> engine
//	                                           Follower --> engine (apply)
type Tenant struct {
	Host   Host
	Engine *engine.DB
	Owner  *loop.Owner // nil: it has its thread for itself
	Clock  Clock
	Log    *slog.Logger
	Sizes  replication.Sizes // of the feed, should this become the primary
	Lost   bool              // recovery found that the disk doesn't hold the content; a snapshot brings it back

	record    catalog.Database
	feed      *replication.Feed     // on the primary
	follower  *replication.Follower // on a replica
	hub       pubsub.Hub
	elsewhere interests // who listens behind replicas
	replica   replicaCopy
	complete  catalog.Position // the end of the snapshot that the copy began with

	sessions map[int64]*Session
	waiting  map[uint64]*Session // by session number: replies to come
	holding  []*Session          // whose replies may wait for entries
	released []*Session          // spare memory for holding
	remotes  map[remoteID]*remote
	replies  []remoteReply // to be sent when the journal has been committed
	waits    []*replicaWait

	durable  durable
	room     Room
	crowd    []crowded // who waits for room
	active   atomic.Int64
	told     catalog.Position // the head when all copies followed, or were told of it
	late     lateFrames
	dirty    bool
	quota    quota
	counters Counters
	total    uint64 // connections ever
	lag      int64  // of the last entry applied, in ms
	heard    int64  // when the primary was last heard, in ms
	short    int64  // when the log was last told that the primary's entries need more memory than there is
	started  time.Time
	scratch  *Scratch
	enlist   func() // tells the host that it is dirty
	message  []byte // of the one that is being delivered

	inExec    bool
	published [][]byte // by the transaction that runs
}

// NewTenant makes the tenant of a database as recovery found it. complete is
// the end of the snapshot that it began with, if it hasn't come so far, and
// known says whether its copy may be shown before it has heard of the primary.
//
// The loop's Options.Scratch makes Scratches.
func NewTenant(h Host, db *engine.DB, l *loop.Loop, log *slog.Logger, rec catalog.Database, complete catalog.Position, known bool) *Tenant {
	o := l.NewOwner(db.Free)
	t := NewTenantOn(h, db, loopClock{o}, log, rec, complete, known, nil)
	t.Owner = o
	return t
}

// NewTenantOn is NewTenant for any kind of clock.
func NewTenantOn(h Host, db *engine.DB, clock Clock, log *slog.Logger, rec catalog.Database, complete catalog.Position, known bool, scratch *Scratch) *Tenant {
	t := &Tenant{Host: h, Engine: db, Clock: clock, Log: log, Sizes: replication.DefaultSizes, started: clock.Now(), scratch: scratch, complete: complete}
	t.enlist = func() { h.Dirty(t) }
	t.active.Store(t.Now())
	t.replica = replicaCopy{tenant: t}
	t.follower = replication.NewFollower(rec.ID, &t.replica, known, complete)
	t.follower.Durable(db.Position(), nil) // what was recovered is on disk
	t.durable.policy = rec.Durability.OrDefault()
	t.record = rec
	t.quota.setLimits(rec.Limits, t)
	t.hub.OnChange = t.tellInterest
	return t
}

// Record is the catalog's word on the database.
func (t *Tenant) Record() *catalog.Database { return &t.record }

// Now is the time of the batch, in milliseconds since 1970.
func (t *Tenant) Now() int64 { return t.Clock.NowMS() }

// IsPrimary reports whether writes are carried out here.
func (t *Tenant) IsPrimary() bool { return t.feed != nil }

// Ready reports whether the copy may be shown to clients.
func (t *Tenant) Ready() bool { return t.feed != nil || t.follower.Ready() }

// Complete is the position at which the content is right that a snapshot
// began; before it some keys may be newer than others.
func (t *Tenant) Complete() catalog.Position { return t.complete }

// Savable reports whether a checkpoint of the content is worth something: not
// while half a snapshot has been loaded, nor after a handler has panicked. The
// lock is held.
func (t *Tenant) Savable() bool {
	return t.Engine.Err() == nil && (t.feed != nil || !t.follower.Broken())
}

// Counters is what became of the commands of this copy's clients.
func (t *Tenant) Counters() Counters { return t.counters }

// Delayed is how many commands had to wait because of the plan's rate, and
// CommandsPerS how many there were of this copy's clients in the last second.
func (t *Tenant) Delayed() uint64     { return t.quota.meter.delayed }
func (t *Tenant) CommandsPerS() int64 { return t.quota.meter.perS }

// Connections is how many clients are connected here.
func (t *Tenant) Connections() int { return len(t.sessions) }

// Lag is how old, in milliseconds, the last entry was when it arrived here;
// while the primary can't be heard it is the time since it last was.
func (t *Tenant) Lag() int64 {
	if t.feed != nil || t.follower.Connected() || t.heard == 0 {
		return t.lag
	}
	return t.Now() - t.heard
}

// Update takes a new record from the catalog.
func (t *Tenant) Update(rec catalog.Database) {
	t.record = rec
	t.durable.policy = rec.Durability.OrDefault()
	t.quota.setLimits(rec.Limits, t)
	t.Engine.Lock()
	t.Engine.SetLimits(rec.Limits, eviction.Of(rec.Eviction, rec.Policy))
	t.Engine.Unlock()
	primary := rec.PrimaryCopy()
	if primary == nil {
		return
	}
	t.Engine.Lock()
	defer t.Engine.Unlock()
	t.markDirty()
	if primary.Node == t.Host.Node() {
		t.becomePrimary(rec.Epoch)
		if t.feed != nil {
			t.feed.Keep(len(rec.Copies) > 1)
		}
		return
	}
	if t.feed != nil {
		t.Log.Warn("primary elsewhere now", "db", uint64(rec.ID), "node", primary.Node)
		t.becomeReplica()
	}
	moved := primary.Node != t.follower.Primary()
	boot, up := t.Host.Up(primary.Node)
	t.follower.Follow(primary.Node, up, t.Now(), t.Host)
	if moved && up {
		t.reached(boot)
	}
}

// becomePrimary opens the epoch that the catalog gave this node, if it hasn't.
func (t *Tenant) becomePrimary(epoch uint32) {
	db := t.Engine
	if t.feed == nil {
		if t.Lost || !t.follower.Whole() {
			// As the primary it would make all other copies like itself.
			t.Log.Error("a copy whose content is lost can't be the primary", "db", uint64(t.record.ID))
			return
		}
		t.follower.Follow("", false, t.Now(), t.Host)
		t.feed = replication.NewFeed(t.record.ID, db.Position(), db.HistoryHash(), t.Sizes)
		db.SetSink(t.feed)
	}
	if epoch > db.Position().Epoch {
		if err := db.OpenEpoch(epoch, t.Now()); err != nil {
			t.Log.Error("can't open epoch", "db", uint64(t.record.ID), "err", err.Error())
		}
		db.Rouse() // it has made an entry, which is to be saved some time
	}
	for _, s := range t.forwarding() {
		s.giveUp()
	}
}

// becomeReplica ends what only a primary does. Whoever waits here for a key or
// for replicas hears that it waits in vain.
func (t *Tenant) becomeReplica() {
	pos := t.Engine.Position()
	for _, id := range slices.Sorted(maps.Keys(t.sessions)) {
		s := t.sessions[id]
		s.track.Raise(pos)
		if s.parked != nil {
			s.Served(errorReply(errUnblocked))
		}
	}
	for _, rm := range t.remotesOf("") {
		rm.refuse()
	}
	for _, w := range slices.Clone(t.durable.waits) {
		t.endDurable(w)
	}
	t.feed.Close(outbox{t})
	t.Engine.SetSink(nil)
	t.feed = nil
	t.follower = replication.NewFollower(t.record.ID, &t.replica, true, catalog.Position{})
	t.Engine.Raise()
	t.markDurable()
}

// markDirty asks for Flush at the end of this batch.
func (t *Tenant) markDirty() {
	if !t.dirty {
		t.dirty = true
		t.active.Store(t.Now())
		t.settle(t.enlist)
	}
}

// Do has fn called in a turn of the tenant. It is for the loop's thread.
func (t *Tenant) Do(fn func()) {
	if t.Owner == nil {
		fn()
		return
	}
	t.Owner.Do(fn)
}

// settle has fn called where what tenants share may be touched, at the latest
// when what runs now has ended.
func (t *Tenant) settle(fn func()) {
	if t.Owner == nil {
		fn()
		return
	}
	t.Owner.Settle(fn)
}

// Here reports whether the loop's own functions may touch the tenant: none of
// its commands goes on elsewhere.
func (t *Tenant) Here() bool { return t.Owner == nil || t.Owner.Here() }

// Flush sends what this batch made to other nodes. The journal holds it. It is
// for the loop, while the tenant is here.
func (t *Tenant) Flush() {
	t.dirty = false
	t.cork()
	if t.feed != nil {
		t.feed.Flush(outbox{t})
	} else {
		t.markDurable()
		wasReady := t.follower.Ready()
		t.follower.Flush(t.Host)
		if t.follower.Ready() != wasReady {
			t.Host.Changed(t)
		}
	}
	for i := range t.replies {
		r := &t.replies[i]
		outbox{t}.Send(r.node, link.Live, frame(reply, t.record.ID, r.payload))
		r.payload = nil
	}
	t.replies = t.replies[:0]
}

// LinkUp says that a node can be reached again.
func (t *Tenant) LinkUp(node string, boot uint64) {
	t.Engine.Lock()
	defer t.Engine.Unlock()
	if t.feed == nil && node == t.follower.Primary() {
		t.reached(boot)
	}
}

// reached says that there is a link to the primary, or to another one.
func (t *Tenant) reached(boot uint64) {
	t.follower.Follow(t.follower.Primary(), true, t.Now(), t.Host)
	t.hub.Each(t.tellInterest)
	for _, s := range t.forwarding() {
		s.resend(boot)
	}
}

// forwarding lists the sessions that have forwarded something, in an order
// that a simulation can repeat.
func (t *Tenant) forwarding() []*Session {
	return slices.SortedFunc(maps.Values(t.waiting), func(a, b *Session) int { return cmp.Compare(a.number, b.number) })
}

// LinkDown says that a node can't be reached.
func (t *Tenant) LinkDown(node string) {
	t.Engine.Lock()
	defer t.Engine.Unlock()
	delete(t.elsewhere, node)
	t.dropHeld(node)
	t.late.drop(node)
	for _, rm := range t.remotesOf(node) {
		rm.interrupt()
	}
	if t.feed != nil {
		t.feed.Unsubscribe(node)
		t.checkWaits()
		return
	}
	if node == t.follower.Primary() {
		t.follower.LinkDown()
		for _, s := range t.waiting {
			s.linkDown()
		}
	}
}

// Tick lets time pass, some ten times a second: keys expire, and whoever got
// no answer asks again.
func (t *Tenant) Tick() {
	now := t.Now()
	t.Engine.Lock()
	defer t.Engine.Unlock()
	t.forgetRemotes(now)
	t.quota.meter.tick(now)
	if t.feed == nil {
		if _, up := t.Host.Up(t.follower.Primary()); up && t.Engine.LogErr() == nil {
			t.follower.Tick(now, t.Host)
		}
		return
	}
	if next := t.Engine.NextExpiry(); next != 0 && next < now {
		t.Engine.Rouse()
	}
	if t.Engine.Expire(now, 200) > 0 {
		t.markDirty()
	}
	t.tellResting()
}

// Frame takes a frame that another node sent about this database.
func (t *Tenant) Frame(node string, kind uint8, payload []byte) {
	t.Engine.Lock()
	defer t.Engine.Unlock()
	t.markDirty()
	if t.late.any() || t.lacksContent(kind) {
		t.late.keep(t, node, kind, payload)
		return
	}
	t.frame(node, kind, payload)
}

// frame is Frame with the lock held, when the content is there that it needs.
func (t *Tenant) frame(node string, kind uint8, payload []byte) {
	var err error
	switch kind {
	case replication.Subscribe:
		err = t.subscribe(node, payload)
	case replication.Ack:
		if t.feed != nil {
			err = t.feed.Acked(node, payload, outbox{t})
			t.checkWaits()
		}
	case replication.Durable:
		if t.feed != nil {
			err = t.feed.HasDurable(node, payload)
			t.checkDurable()
		}
	case replication.Unsubscribe:
		if t.feed != nil {
			t.feed.Unsubscribe(node)
		}
	case forward:
		err = t.forwarded(node, payload)
	case sessionClosed:
		err = t.remoteClosed(node, payload)
	case unblock:
		err = t.unblocked(node, payload)
	case interested:
		err = t.elsewhere.take(node, payload)
	case reply:
		err = t.replied(payload)
	case awake: // it is, by now
	case replication.Publish:
		if kind, channel, message, e := parsePublish(payload); e == nil {
			t.hub.Publish(kind, channel, message)
		}
	default:
		if t.feed == nil && node == t.follower.Primary() {
			if kind == replication.Entries && (t.Engine.LogErr() != nil || !t.Engine.Whole()) {
				// What can't be journaled, or has nothing to be applied to, would only
				// gather in memory. It asks again.
				t.follower.Suspend(t.Now())
				return
			}
			ready := t.follower.Ready()
			err = t.follower.Frame(kind, payload, t.Now(), t.Host)
			if t.follower.Ready() != ready {
				t.Host.Changed(t)
			}
			t.applied(kind)
		}
	}
	if errors.Is(err, replication.ErrLater) {
		now := t.Now()
		if now-t.short < tellShortEvery {
			return
		}
		t.short = now
	}
	if err != nil {
		t.Log.Warn("frame refused", "db", uint64(t.record.ID), "node", node, "kind", kind, "err", err.Error())
	}
}

// tellShortEvery is how often, in milliseconds, the log is told that this copy has no
// memory for what its primary sends, which is sent again and again.
const tellShortEvery = 60_000

// subscribe answers a replica that wants to follow.
func (t *Tenant) subscribe(node string, payload []byte) error {
	if t.feed == nil || t.record.CopyOn(node) == nil || !t.Savable() || t.Engine.State() != engine.Awake {
		t.Host.Send(node, link.Live, frame(replication.NotPrimary, t.record.ID, nil))
		return nil
	}
	feed := t.feed
	snapshot, err := feed.Subscribe(node, payload, outbox{t})
	if err != nil || snapshot == nil {
		return err
	}
	t.Host.SendSnapshot(t, node, snapshot, func(sent bool) {
		if t.feed == feed {
			feed.SnapshotSent(node, snapshot, sent, outbox{t})
		}
	})
	return nil
}

// applied lets go what was waiting for entries to be applied here.
func (t *Tenant) applied(kind uint8) {
	t.heard = t.Now()
	if kind == replication.Entries {
		t.lag = max(0, t.heard-t.Engine.Clock())
	}
	holding := t.holding
	t.holding = t.released[:0]
	for i, s := range holding {
		holding[i] = nil
		s.listed = false
		s.release()
	}
	t.released = holding[:0]
}

// publish delivers a message to the subscribers here and behind the replicas,
// and counts them.
func (t *Tenant) publish(kind command.Channel, channel, message []byte) (receivers int) {
	if t.feed != nil {
		t.published = append(t.published, appendPublish(nil, kind, channel, message))
		if !t.inExec {
			t.sendPublished()
		}
	}
	return t.hub.Publish(kind, channel, message) + t.elsewhere.receivers(kind, channel)
}

// sendPublished has the messages follow the entries that were made before.
func (t *Tenant) sendPublished() {
	for i, message := range t.published {
		if t.feed != nil {
			t.feed.Publish(message)
			t.markDirty()
		}
		t.published[i] = nil
	}
	t.published = t.published[:0]
}

// transact runs the commands of an EXEC. What they publish follows their
// entry, so that whoever hears of it in another region sees what they wrote.
func (t *Tenant) transact(req *engine.Request, commands []engine.Queued, reads bool) (unrun *engine.Parked) {
	t.inExec = true
	unrun = t.Engine.RunAll(req, commands, reads)
	t.inExec = false
	t.sendPublished()
	return unrun
}

// after calls fn on the loop in so many milliseconds.
func (t *Tenant) after(ms int64, fn func()) Timer {
	return t.Clock.After(time.Duration(ms)*time.Millisecond, fn)
}

// Fail says that the journal could not be written. Whoever wrote in this batch
// is told, in place of their replies, and disconnected; those who only read are
// not concerned. What goes to other nodes waits: Flush is called when the journal
// has taken all, and if it never does, the link breaks with this process.
func (t *Tenant) Fail(err error) {
	t.dirty = false
	d := &t.durable
	for i, s := range d.writers {
		d.writers[i] = nil
		s.wrote = false
		s.fail(err)
	}
	d.writers = d.writers[:0]
}

func (t *Tenant) disconnect() {
	for _, id := range slices.Sorted(maps.Keys(t.sessions)) {
		t.sessions[id].conn.Close()
	}
}

// Close ends the tenant.
func (t *Tenant) Close() {
	t.Engine.Lock()
	defer t.Engine.Unlock()
	t.disconnect()
	t.quota.meter.stop()
	for _, rm := range t.remotesOf("") {
		t.dropRemote(rm)
	}
	if t.feed != nil {
		t.feed.Close(outbox{t})
	} else {
		t.follower.Follow("", false, t.Now(), t.Host)
	}
}

// replicaCopy is the content of a replica, as its follower changes it.
type replicaCopy struct {
	tenant *Tenant
	into   *keyspace.Keyspace
}

func (c *replicaCopy) Position() (catalog.Position, uint64) {
	return c.tenant.Engine.Position(), c.tenant.Engine.HistoryHash()
}

func (c *replicaCopy) Apply(e *journal.Entry, raw []byte, newer bool) error {
	return later(c.tenant.Engine.Apply(e, raw, newer))
}

// later says of an error whether it is over when there is memory again.
func later(err error) error {
	if errors.Is(err, keyspace.ErrNoMemory) {
		return fmt.Errorf("%w: %w", replication.ErrLater, err)
	}
	return err
}

func (c *replicaCopy) Install(pos catalog.Position, hash uint64, clock int64) error {
	c.into = c.tenant.Engine.Install(pos, hash, clock)
	c.tenant.durable.loose, c.tenant.durable.mark = true, 0
	return nil
}

func (c *replicaCopy) Load(records []byte) error {
	err := later(c.into.Load(records))
	if errors.Is(err, replication.ErrLater) {
		c.into.Clear() // it comes anew, and what was loaded of it takes the room
	}
	return err
}

func (c *replicaCopy) Installed(complete catalog.Position) error {
	c.into = nil
	c.tenant.complete, c.tenant.Lost = complete, false
	c.tenant.Host.Replaced(c.tenant)
	return nil
}
