package node

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"vecino/catalog"
	"vecino/link"
	"vecino/replication"
	"vecino/session"
)

// linkStates is which nodes there is a link to. Loops ask for every forwarded
// command, so asking takes no lock.
type linkStates struct {
	mu    sync.Mutex
	state atomic.Pointer[map[string]uint64] // node: boot of its process
}

func (l *linkStates) set(node string, boot uint64, up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := make(map[string]uint64)
	if old := l.state.Load(); old != nil {
		for k, v := range *old {
			next[k] = v
		}
	}
	if up {
		next[node] = boot
	} else {
		delete(next, node)
	}
	l.state.Store(&next)
}

// Up reports whether there is a link to a node.
func (n *Node) Up(node string) (boot uint64, up bool) {
	m := n.links.state.Load()
	if m == nil {
		return 0, false
	}
	boot, up = (*m)[node]
	return boot, up
}

// Boot is what this start of the process is known by to others.
func (n *Node) Boot() uint64 { return n.boot }

// Send sends a frame to a node. See replication.Sender.
func (n *Node) Send(node string, lane link.Lane, f link.Frame) bool {
	if n.hub == nil {
		return false
	}
	return n.hub.Send(node, lane, f)
}

// LinkUp tells every tenant. See link.Handler.
func (n *Node) LinkUp(node string, boot uint64) {
	n.links.set(node, boot, true)
	n.eachShard(func(s *shard) {
		for _, t := range s.tenants {
			t.Do(func() { t.LinkUp(node, boot) })
		}
	})
}

// LinkDown tells every tenant.
func (n *Node) LinkDown(node string, _ error) {
	n.links.set(node, 0, false)
	n.lagged.forget(node)
	n.eachShard(func(s *shard) {
		for _, t := range s.tenants {
			t.Do(func() { t.LinkDown(node) })
		}
	})
}

// eachShard runs fn on every loop, soon.
func (n *Node) eachShard(fn func(s *shard)) {
	for _, s := range n.shards {
		s.loop.Post(func() { fn(s) })
	}
}

// Frame takes a frame about a database to the loop of that database.
func (n *Node) Frame(node string, lane link.Lane, f link.Frame) {
	payload := append([]byte(nil), f.Payload...)
	if replicated(f.Kind) && n.lagged.delay(node, func() { n.deliver(node, lane, f.DB, f.Kind, payload) }) {
		return
	}
	n.deliver(node, lane, f.DB, f.Kind, payload)
}

func (n *Node) deliver(node string, lane link.Lane, id catalog.ID, kind uint8, payload []byte) {
	s := n.shardOf(id)
	if lane == link.Live {
		s.loop.Post(func() { s.take(node, id, kind, payload, func() {}) })
		return
	}
	// Bulk waits for the loop, and its sender for bulk. But a tenant that is away
	// keeps its neighbours' bulk waiting only when a lot of its own has come together.
	taken := make(chan struct{})
	done := sync.OnceFunc(func() { close(taken) })
	if s.loop.Post(func() {
		s.take(node, id, kind, payload, done)
		if t := s.tenants[id]; t != nil && !t.Here() && t.Owner.Backlog() < mostBacklog {
			done()
		}
	}) {
		<-taken
	}
}

// mostBacklog is how much may wait for a tenant that is away before bulk does.
const mostBacklog = 64

// take gives a frame to its tenant, which has it in one of its turns.
func (s *shard) take(node string, id catalog.ID, kind uint8, payload []byte, done func()) {
	t := s.tenants[id]
	if t == nil && session.Rouses(kind) && s.rouse(id) != nil {
		t = s.tenants[id]
	}
	if t != nil {
		t.Do(func() { t.Frame(node, kind, payload); done() })
		return
	}
	if kind == replication.Subscribe {
		// The catalog hasn't told this node yet.
		s.node.Send(node, link.Live, link.Frame{Kind: replication.NotPrimary, DB: id})
	}
	done()
}

// replicated reports whether a frame is part of the stream of entries.
func replicated(kind uint8) bool {
	switch kind {
	case replication.Continue, replication.Entries, replication.SnapshotBegin, replication.SnapshotData, replication.SnapshotEnd,
		replication.Live, replication.Publish:
		return true
	}
	return false
}

// SendSnapshot streams a tenant to a node. See session.Host. It is called on
// the tenant's loop with its lock held, so the position is exact.
func (n *Node) SendSnapshot(t *session.Tenant, node string, snapshot *replication.Snapshot, done func(sent bool)) {
	db, s := t.Engine, n.shardOf(t.Record().ID)
	begin := snapshot.Begin(db.HistoryHash(), db.Clock())
	n.tasks.Go(func() {
		err := n.sendSnapshot(s, t, node, snapshot, begin)
		if err != nil {
			n.log.Warn("snapshot not sent", "db", uint64(snapshot.DB), "node", node, "err", err.Error())
		}
		t.Owner.Post(func() {
			t.Engine.Lock()
			defer t.Engine.Unlock()
			done(err == nil)
		})
	})
}

func (n *Node) sendSnapshot(s *shard, t *session.Tenant, node string, snapshot *replication.Snapshot, begin link.Frame) error {
	ctx, cancel := context.WithTimeout(context.Background(), snapshotPatience)
	defer cancel()
	send := func(f link.Frame) error { return n.hub.SendWait(ctx, node, link.Snapshot, f) }
	if err := send(begin); err != nil {
		return err
	}
	end, err := n.dump(ctx, t.Engine, func(records []byte) error {
		return send(snapshot.Data(records))
	})
	if err != nil {
		return err
	}
	// A replica must not have what this node could lose by a crash, nor by a power
	// cut, if the database's durability says that it can't.
	safe := s.journal.Commit
	if t.Durability() == catalog.SyncAlways {
		safe = s.journal.Sync
	}
	if err := safe(); err != nil {
		return err
	}
	return send(snapshot.End(end))
}

// snapshotPatience bounds how long a snapshot may take.
const snapshotPatience = 30 * time.Minute

// delayLine holds back replicated entries, and nothing else, by the lag that
// the simulated world has for this region.
type delayLine struct {
	lag   func() time.Duration
	wake  chan struct{}
	mu    sync.Mutex
	queue []delayed
}

type delayed struct {
	node string
	due  time.Time
	fn   func()
}

func newDelayLine(lag func() time.Duration) *delayLine {
	return &delayLine{lag: lag, wake: make(chan struct{}, 1)}
}

// delay keeps fn for later and reports true, or false if there is no lag and
// nothing that it would overtake.
func (d *delayLine) delay(node string, fn func()) bool {
	lag := d.lag()
	d.mu.Lock()
	defer d.mu.Unlock()
	if lag == 0 && len(d.queue) == 0 {
		return false
	}
	due := time.Now().Add(lag)
	if n := len(d.queue); n > 0 && d.queue[n-1].due.After(due) {
		due = d.queue[n-1].due // what came before is not overtaken
	}
	d.queue = append(d.queue, delayed{node, due, fn})
	select {
	case d.wake <- struct{}{}:
	default:
	}
	return true
}

// forget drops what came over a link that is gone.
func (d *delayLine) forget(node string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := d.queue[:0]
	for _, q := range d.queue {
		if q.node != node {
			kept = append(kept, q)
		}
	}
	clear(d.queue[len(kept):])
	d.queue = kept
}

func (d *delayLine) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		d.mu.Lock()
		wait := time.Hour
		for len(d.queue) > 0 {
			if wait = time.Until(d.queue[0].due); wait > 0 {
				break
			}
			d.queue[0].fn() // posts to a loop; with the lock held order is kept
			d.queue[0] = delayed{}
			d.queue = d.queue[1:]
			wait = time.Hour
		}
		d.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		case <-timer.C:
		}
	}
}
