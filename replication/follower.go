package replication

import (
	"errors"
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
	// taken while the database changed is complete. After an error the content
	// is worth nothing, but after ErrLater it is as it was.
	Apply(e *journal.Entry, raw []byte, newer bool) error
	// Install throws all away and begins at a position, to be filled by Load. After
	// ErrLater the snapshot is asked for again.
	Install(pos catalog.Position, hash uint64, time int64) error
	Load(records []byte) error
	// Installed says that the snapshot has been loaded; it is complete once
	// the entries up to complete have been applied.
	Installed(complete catalog.Position) error
}

// A Follower is the replica's side of a database.
//
//	            Follow            Continue
//	detached ----------> asking ----------------------------> following
//	   ^                  |  ^  \                                ^
//	   | LinkDown,        |  |   \ SnapshotAhead    SnapshotEnd  |
//	   | Follow another   |  |    v                              |
//	 (any)                |  |  awaiting ------------> loading --+
//	                      +--+            SnapshotBegin
//	              NotPrimary, no answer,
//	              an error in any state
//
// A follower becomes Ready when the primary says that it is live, and stays so
// when its link breaks: what it has is old but consistent. It stops being so
// when it must load a snapshot.
type Follower struct {
	db      catalog.ID
	copy    Copy
	primary string // the node it follows, "" for none

	state    followerState
	number   uint64           // of the subscription; see mark
	ready    bool             // its content may be shown
	complete catalog.Position // entries up to here are applied with newer
	newer    bool
	broken   bool // half of a snapshot, or worse: a prefix of no history
	acked    catalog.Position
	ackDue   bool
	onDisk   catalog.Position // all up to here is
	told     catalog.Position // the primary knows of so much, in this subscription
	asked    int64
	retry    bool
}

type followerState uint8

const (
	detached followerState = iota
	asking
	awaiting
	loading
	following
)

// retryAfter is how long a follower waits, in milliseconds, before it asks
// again a primary that wasn't ready or didn't answer, and beyond that after a
// snapshot that the copy couldn't take: each costs the primary something.
const (
	retryAfter    = 100
	answerAfter   = 3000
	snapshotAfter = 5000
)

// ErrLater is an error of a Copy that can't take what comes now, for want of memory.
// The follower lets a while pass before it asks its primary again.
var ErrLater = errors.New("this copy can't take it now")

// errGap is an entry that doesn't follow the last one.
var errGap = errors.New("entry does not follow the history of this copy")

// NewFollower makes the follower of a copy. known says that the copy has been
// live before, and may be shown until it turns out to be another history.
// complete is the end of the snapshot that the copy began with, zero for none:
// before it is reached nothing can be shown.
func NewFollower(db catalog.ID, c Copy, known bool, complete catalog.Position) *Follower {
	pos, _ := c.Position()
	reached := pos.Covers(complete)
	return &Follower{db: db, copy: c, ready: known && reached, complete: complete, newer: !reached}
}

// Ready reports whether reads may be answered from the copy.
func (f *Follower) Ready() bool { return f.ready }

// Whole reports whether the copy is what some primary once had: not half a
// snapshot.
func (f *Follower) Whole() bool { return !f.broken && !f.newer }

// Broken reports whether the content belongs to no position at all.
func (f *Follower) Broken() bool { return f.broken }

// Connected reports whether entries arrive as they are made.
func (f *Follower) Connected() bool { return f.state == following && f.ready }

// Primary is the node that is followed.
func (f *Follower) Primary() string { return f.primary }

// Follow says which node is the primary; up says whether there is a link.
func (f *Follower) Follow(primary string, up bool, now int64, out Sender) {
	if primary != f.primary {
		if f.state != detached {
			f.send(out, Unsubscribe, nil)
		}
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

// Suspend gives the subscription up for now: what would come can't be taken.
// Tick asks anew.
func (f *Follower) Suspend(now int64) {
	if f.state == detached {
		return
	}
	f.state, f.asked, f.retry = asking, now, true
	f.number++
}

func (f *Follower) ask(now int64, out Sender) {
	pos, hash := f.copy.Position()
	if f.broken {
		hash = ^hash // so that it is nobody's
	}
	f.number = max(f.number+1, uint64(now)) // also larger than those before a restart
	f.state, f.asked, f.retry = asking, now, false
	f.send(out, Subscribe, mark{number: f.number, pos: pos, hash: hash}.append(nil))
}

func (f *Follower) send(out Sender, kind uint8, payload []byte) {
	out.Send(f.primary, link.Live, link.Frame{Kind: kind, DB: f.db, Payload: payload})
}

// Frame takes a frame from the primary. An error means that this copy can't go
// on as it is; it has asked for a new beginning already.
func (f *Follower) Frame(kind uint8, payload []byte, now int64, out Sender) error {
	if f.state == detached {
		return nil
	}
	err := f.frame(kind, payload, now)
	switch {
	case errors.Is(err, ErrLater):
		f.Suspend(now)
		if kind == SnapshotData {
			f.asked += snapshotAfter
		}
	case err != nil:
		f.ask(now, out)
	}
	return err
}

func (f *Follower) frame(kind uint8, payload []byte, now int64) error {
	if kind == NotPrimary && len(payload) == 0 { // from a node that doesn't know the database
		if f.state == asking {
			f.asked, f.retry = now, true
		}
		return nil
	}
	number, rest, err := splitNumber(payload)
	if err != nil {
		return err
	}
	if number != f.number {
		return nil // it belongs to an earlier subscription
	}
	switch kind {
	case NotPrimary:
		f.state, f.asked, f.retry = asking, now, true
		f.number++ // what is still on its way on other lanes comes to nothing
		return nil
	case SnapshotAhead:
		if f.state == asking {
			f.state = awaiting
		}
		return nil
	case Entries:
		if f.state != following {
			return nil
		}
		return f.entries(rest)
	case SnapshotData:
		if f.state != loading {
			return nil
		}
		return f.copy.Load(rest)
	}
	m, err := parseMark(payload)
	if err != nil {
		return err
	}
	switch pos, _ := f.copy.Position(); kind {
	case Continue:
		if f.state == asking && pos == m.pos && !f.broken {
			f.state, f.ackDue = following, true
			f.told = catalog.Position{}
		}
	case SnapshotBegin:
		if f.state == asking || f.state == awaiting { // lanes may overtake each other
			f.state, f.ready = loading, false
			f.newer, f.broken = true, true
			f.onDisk, f.told = catalog.Position{}, catalog.Position{} // of another history, maybe
			return f.copy.Install(m.pos, m.hash, m.time)
		}
	case SnapshotEnd:
		if f.state == loading {
			f.state, f.complete = following, m.pos
			f.broken, f.ackDue = false, true
			f.newer = !pos.Covers(f.complete)
			return f.copy.Installed(m.pos)
		}
	case Live:
		if f.state == following && pos.Covers(m.pos) && !f.newer {
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
		if pos, hash := f.copy.Position(); e.Seq != pos.Seq+1 || e.Epoch < pos.Epoch || e.Prev != hash {
			return fmt.Errorf("%w: it has %v, the entry is %v", errGap, pos, e.Position())
		}
		switch err := f.copy.Apply(&e, raw[:n], f.newer); {
		case errors.Is(err, ErrLater):
			return err
		case err != nil:
			f.broken, f.ready = true, false
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
		f.send(out, Ack, mark{number: f.number, pos: pos}.append(nil))
		f.tellDurable(out)
	}
}

// Durable says that all up to a position is on disk here. Without out it is told
// to the primary with the next acknowledgement.
func (f *Follower) Durable(pos catalog.Position, out Sender) {
	f.onDisk = pos
	if out != nil && f.state == following && !f.ackDue {
		f.tellDurable(out)
	}
}

func (f *Follower) tellDurable(out Sender) {
	if f.onDisk != f.told {
		f.told = f.onDisk
		f.send(out, Durable, mark{number: f.number, pos: f.onDisk}.append(nil))
	}
}
