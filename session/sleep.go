package session

import (
	"slices"

	"vecino/engine"
	"vecino/replication"
)

// A database that sleeps is woken by the first command or frame that needs what is
// in it; see engine. Its connections stay, and so does the place of a replica in
// its history: what else a tenant does goes on meanwhile.

// lateFrames are frames that came while the database wasn't in memory. They are
// taken in their order when it is.
type lateFrames struct {
	frames []lateFrame
	bytes  int
	wait   *engine.Parked
}

type lateFrame struct {
	node    string
	kind    uint8
	payload []byte
}

// mostLate is how many bytes of entries wait for a replica to wake. With more it
// subscribes anew, when it is awake.
const mostLate = 4 << 20

func (l *lateFrames) any() bool { return len(l.frames) > 0 }

// lacksContent reports whether a frame can't be taken yet, because the database
// sleeps, or keys are sunk.
func (t *Tenant) lacksContent(kind uint8) bool {
	if t.feed != nil {
		return t.Engine.State() != engine.Awake && (kind == forward || kind == replication.Subscribe)
	}
	return kind == replication.Entries && !t.Engine.Whole()
}

// keep keeps a frame, and has the database woken.
func (l *lateFrames) keep(t *Tenant, node string, kind uint8, payload []byte) {
	l.frames = append(l.frames, lateFrame{node, kind, slices.Clone(payload)})
	l.bytes += len(payload)
	if t.feed == nil && l.bytes > mostLate {
		l.frames = slices.DeleteFunc(l.frames, func(f lateFrame) bool { return f.kind == replication.Entries })
		l.count()
		t.follower.Suspend(t.Now())
	}
	if l.wait == nil {
		await := t.Engine.Await
		if t.feed == nil {
			await = t.Engine.AwaitWhole
		}
		if l.wait = await(lateWaiter{t}); l.wait == nil {
			lateWaiter{t}.Loaded(nil)
		}
	}
}

func (l *lateFrames) count() {
	l.bytes = 0
	for _, f := range l.frames {
		l.bytes += len(f.payload)
	}
}

// drop forgets what a node sent that can't be reached any more.
func (l *lateFrames) drop(node string) {
	l.frames = slices.DeleteFunc(l.frames, func(f lateFrame) bool { return f.node == node })
	l.count()
}

// lateWaiter is the tenant as one who waits for its database.
type lateWaiter struct{ t *Tenant }

// Loaded takes what came. If the database could not be woken, each frame is dealt
// with as far as that goes.
func (w lateWaiter) Loaded(error) {
	t := w.t
	frames := t.late.frames
	t.late = lateFrames{}
	t.markDirty()
	for i := range frames {
		f := &frames[i]
		t.frame(f.node, f.kind, f.payload)
	}
}

// Sleep lets the content go, all of which is in the tier, and reports whether that
// could be. Who waits for room goes on, and wakes it. The lock is held.
func (t *Tenant) Sleep() bool {
	if t.late.any() || !t.Savable() || t.feed == nil && !t.follower.Whole() {
		return false
	}
	for _, s := range t.sessions {
		// A watched key that was deleted is remembered only by the keyspace.
		if len(s.watches) > 0 {
			return false
		}
	}
	if !t.Engine.Sleep() {
		return false
	}
	t.SetRoom(Roomy)
	return true
}
