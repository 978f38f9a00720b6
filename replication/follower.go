package replication

import (
	"fmt"

	"vecino/catalog"
	"vecino/journal"
	"vecino/link"
)

// A Copy is the content of a replica: what a Follower changes.
type Copy interface {
	// Position is the last entry applied, and the hash of the history up to it.
	Position() (catalog.Position, uint64)
	// Apply carries out the next entry. newer is set until a snapshot that was
	// taken while the database changed is complete.
	Apply(e *journal.Entry, raw []byte, newer bool) error
	// Install throws all away and begins at a position, to be filled by Load.
	Install(pos catalog.Position, hash uint64, time int64) error
	Load(records []byte) error
	// Installed says that the snapshot has been loaded; it is complete once
	// the entries up to complete have been applied.
	Installed(complete catalog.Position) error
}

// A Follower is the replica's side of a database.
//
//	            LinkUp            Continue              Live
//	detached ----------> asking -----------> following -------> live
//	   ^                  |  ^                  ^
//	   | LinkDown         |  | a gap            | SnapshotEnd
//	 (any)                +--+--> loading ------+
//	                   SnapshotBegin
//
// A follower that has been live stays Ready when its link breaks: what it has
// is old but consistent. It stops being so when it must load a snapshot.
type Follower struct {
	db      catalog.ID
	copy    Copy
	primary string // the node it follows, "" for none

	state    followerState
	ready    bool             // its content may be shown
	complete catalog.Position // entries up to here are applied with newer
	newer    bool
	partial  bool // half of a snapshot: a prefix of no history
	acked    catalog.Position
	ackDue   bool
	asked    int64
	retry    bool
}

type followerState uint8

const (
	detached followerState = iota
	asking
	loading
	following
)

// retryAfter is how long a follower waits, in milliseconds, before it asks
// again a primary that wasn't ready or didn't answer.
const (
	retryAfter  = 100
	answerAfter = 3000
)

// NewFollower makes the follower of a copy. ready says that the copy has been
// live before, and may be shown until it turns out to be another history.
// complete is the end of the snapshot that the copy began with, zero for none.
func NewFollower(db catalog.ID, c Copy, ready bool, complete catalog.Position) *Follower {
	pos, _ := c.Position()
	return &Follower{db: db, copy: c, ready: ready, complete: complete, newer: !pos.Covers(complete)}
}

// Ready reports whether reads may be answered from the copy.
func (f *Follower) Ready() bool { return f.ready }

// Connected reports whether entries arrive as they are made.
func (f *Follower) Connected() bool { return f.state == following && f.ready }

// Primary is the node that is followed.
func (f *Follower) Primary() string { return f.primary }

// Follow says which node is the primary; up says whether there is a link.
func (f *Follower) Follow(primary string, up bool, now int64, out Sender) {
	if primary != f.primary && f.primary != "" && f.state != detached {
		out.Send(f.primary, link.Live, link.Frame{Kind: Unsubscribe, DB: f.db})
	}
	if primary != f.primary {
		f.primary = primary
		f.state = detached
	}
	if up && f.state == detached {
		f.ask(now, out)
	}
}

// LinkDown says that the link to the primary is gone.
func (f *Follower) LinkDown() { f.state = detached }

// Tick lets time pass: a question without an answer is asked again.
func (f *Follower) Tick(now int64, out Sender) {
	if f.state == asking && (f.retry && now-f.asked >= retryAfter || now-f.asked >= answerAfter) {
		f.ask(now, out)
	}
}

func (f *Follower) ask(now int64, out Sender) {
	pos, hash := f.copy.Position()
	if f.partial {
		hash = ^hash
	}
	f.state, f.asked, f.retry = asking, now, false
	out.Send(f.primary, link.Live, link.Frame{Kind: Subscribe, DB: f.db, Payload: mark{pos: pos, hash: hash}.append(nil)})
}

// Frame takes a frame from the primary. An error means that this copy can't go
// on as it is; it has asked for a new beginning already.
func (f *Follower) Frame(kind uint8, payload []byte, now int64, out Sender) error {
	if f.state == detached {
		return nil
	}
	err := f.frame(kind, payload, now)
	if err != nil {
		f.ask(now, out)
	}
	return err
}

func (f *Follower) frame(kind uint8, payload []byte, now int64) error {
	switch kind {
	case Entries:
		if f.state != following {
			return nil // sent before the answer to the last question
		}
		return f.entries(payload)
	case NotPrimary:
		f.state, f.retry, f.asked = asking, true, now
		return nil
	case SnapshotData:
		if f.state != loading {
			return nil
		}
		return f.copy.Load(payload)
	}
	m, err := parseMark(payload)
	if err != nil {
		return err
	}
	switch kind {
	case Continue:
		if pos, _ := f.copy.Position(); f.state == asking && pos == m.pos && !f.partial {
			f.state, f.ackDue = following, true
		}
	case SnapshotBegin:
		if f.state == detached {
			return nil
		}
		f.state, f.ready = loading, false
		f.newer, f.partial = true, true
		return f.copy.Install(m.pos, m.hash, m.time)
	case SnapshotEnd:
		if f.state != loading {
			return nil
		}
		f.state, f.complete = following, m.pos
		f.partial, f.ackDue = false, true
		pos, _ := f.copy.Position()
		f.newer = !pos.Covers(f.complete)
		return f.copy.Installed(m.pos)
	case Live:
		if pos, _ := f.copy.Position(); f.state == following && pos.Covers(m.pos) && !f.newer {
			f.ready = true
		}
	default:
		return fmt.Errorf("%w: kind %d", errFrame, kind)
	}
	return nil
}

func (f *Follower) entries(raw []byte) error {
	for len(raw) > 0 {
		e, n, err := journal.DecodeEntry(raw)
		if err != nil {
			return fmt.Errorf("read replicated entry: %w", err)
		}
		if err := f.copy.Apply(&e, raw[:n], f.newer); err != nil {
			return err
		}
		if f.newer && e.Position().Covers(f.complete) {
			f.newer = false
		}
		raw = raw[n:]
	}
	return nil
}

// Flush acknowledges what has been applied, after the journal was committed.
func (f *Follower) Flush(out Sender) {
	pos, _ := f.copy.Position()
	if f.state == following && (f.ackDue || pos != f.acked) {
		f.acked, f.ackDue = pos, false
		out.Send(f.primary, link.Live, link.Frame{Kind: Ack, DB: f.db, Payload: mark{pos: pos}.append(nil)})
	}
}

// SnapshotFrames are the frames around a snapshot, in the order in which a
// primary sends them on the snapshot lane.
func SnapshotBeginFrame(db catalog.ID, pos catalog.Position, hash uint64, time int64) link.Frame {
	return link.Frame{Kind: SnapshotBegin, DB: db, Payload: mark{pos: pos, hash: hash, time: time}.append(nil)}
}

// SnapshotDataFrame carries records.
func SnapshotDataFrame(db catalog.ID, records []byte) link.Frame {
	return link.Frame{Kind: SnapshotData, DB: db, Payload: records}
}

// SnapshotEndFrame ends a snapshot that is complete with the entries up to pos.
func SnapshotEndFrame(db catalog.ID, pos catalog.Position) link.Frame {
	return link.Frame{Kind: SnapshotEnd, DB: db, Payload: mark{pos: pos}.append(nil)}
}
