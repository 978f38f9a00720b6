package replication

import (
	"encoding/binary"
	"fmt"
	"slices"

	"vecino/catalog"
	"vecino/journal"
	"vecino/link"
)

// Sender sends a frame to a node. It never blocks; false means that the link
// is down and whoever is behind it will be told.
type Sender interface {
	Send(node string, lane link.Lane, f link.Frame) bool
}

// A Feed is the primary's side of a database: its recent entries, and how far
// each replica has come.
//
//	       Subscribe           Acked                all acknowledged, little left
//	(none) ---------> agreed ---------> catching up ----------------------------> live
//	   |                ^
//	   +--> snapshot ---+ SnapshotSent
//
// Lanes may overtake each other, so nothing follows an agreement, or a
// snapshot, on another lane before the replica has acknowledged its position.
// A replica that catches up gets one window of entries at a time, on the
// catch-up lane, and the next when it has acknowledged that. When little is
// left the rest goes on the live lane and it is live: it gets whatever is made
// with the batch that made it.
//
// The history behind a snapshot is kept until the replica that gets it is live,
// or else one that is written a lot would never have a second copy.
type Feed struct {
	db     catalog.ID
	ring   ring
	head   catalog.Position
	subs   []*sub // the oldest subscription first
	script []step // what live replicas get at the next Flush, in order
	unsafe bool   // an entry was made since the last Flush
	sizes  Sizes
}

// Sizes are how much a feed keeps and sends, in bytes.
type Sizes struct {
	Ring   int // of the history, kept in memory for replicas that were away
	Window int // that a replica which catches up is sent at a time
	Nearly int // no more than this is left: it becomes live
	Pinned int // of the history, while a replica is sent a snapshot
}

// DefaultSizes are right for a node.
var DefaultSizes = Sizes{Ring: 4 << 20, Window: 256 << 10, Nearly: 64 << 10, Pinned: 256 << 20}

type subState uint8

const (
	wantsSnapshot subState = iota
	agreed
	catchingUp
	live
)

// sub is one replica.
type sub struct {
	node   string
	number uint64 // of its subscription
	state  subState
	sent   catalog.Position // all up to here has been sent
	acked  catalog.Position
	onDisk catalog.Position
	pinned bool // the ring must keep what it hasn't got
}

// step is the payload of a frame. That of entries begins with room for the
// number of a subscription.
type step struct {
	entries bool
	payload []byte
}

// NewFeed makes the feed of a database whose last entry is at pos.
func NewFeed(db catalog.ID, pos catalog.Position, hash uint64, sizes Sizes) *Feed {
	return &Feed{db: db, head: pos, sizes: sizes, ring: ring{keep: sizes.Ring, most: sizes.Pinned, base: pos, baseHash: hash}}
}

// Keep says whether entries are kept: there is no need to in a database without
// replicas.
func (f *Feed) Keep(entries bool) {
	f.ring.keep = 0
	if entries {
		f.ring.keep = f.sizes.Ring
	}
	f.ring.trim()
}

// Head is the position of the last entry.
func (f *Feed) Head() catalog.Position { return f.head }

// Entry takes the entry that was just made. Nothing is sent before Flush.
func (f *Feed) Entry(pos catalog.Position, raw []byte, hash uint64) {
	f.head = pos
	f.unsafe = true
	f.ring.append(pos, raw, hash)
	if len(f.subs) == 0 {
		return
	}
	if n := len(f.script); n == 0 || !f.script[n-1].entries {
		f.script = append(f.script, step{entries: true, payload: make([]byte, numberBytes, numberBytes+len(raw))})
	}
	last := &f.script[len(f.script)-1]
	last.payload = append(last.payload, raw...)
}

// Publish takes a message for the subscribers behind all live replicas. It
// arrives after the entries that were made before it.
func (f *Feed) Publish(payload []byte) {
	if len(f.subs) > 0 {
		f.script = append(f.script, step{payload: append([]byte(nil), payload...)})
	}
}

// Dirty reports whether Flush has something to do.
func (f *Feed) Dirty() bool { return len(f.script) > 0 }

// Subscribe is a replica's request. If the replica needs a snapshot, that is
// returned for the caller to send; then SnapshotSent follows.
func (f *Feed) Subscribe(node string, payload []byte, out Sender) (*Snapshot, error) {
	m, err := parseMark(payload)
	if err != nil {
		return nil, err
	}
	f.Unsubscribe(node)
	s := &sub{node: node, number: m.number}
	f.subs = append(f.subs, s)
	if f.ring.has(m.pos, m.hash) {
		s.state, s.sent = agreed, m.pos
		f.send(s, out, link.Live, Continue, mark{number: s.number, pos: m.pos}.append(nil))
		return nil, nil
	}
	s.pinned = true
	f.ring.pins++
	f.send(s, out, link.Live, SnapshotAhead, appendNumber(nil, s.number))
	return &Snapshot{DB: f.db, Number: s.number, Position: f.head}, nil
}

// A Snapshot is a copy of a database for a replica, as the database is after
// Position or, where it is changed meanwhile, newer. Its methods make the
// frames, which go on the snapshot lane in that order.
type Snapshot struct {
	DB       catalog.ID
	Number   uint64 // of the subscription
	Position catalog.Position
}

// Begin tells the position, the hash of the history up to it, and the time of
// the last write.
func (s *Snapshot) Begin(hash uint64, time int64) link.Frame {
	return link.Frame{Kind: SnapshotBegin, DB: s.DB, Payload: mark{s.Number, s.Position, hash, time}.append(nil)}
}

// Data carries records of keyspace.Dump.
func (s *Snapshot) Data(records []byte) link.Frame {
	payload := append(appendNumber(make([]byte, 0, numberBytes+len(records)), s.Number), records...)
	return link.Frame{Kind: SnapshotData, DB: s.DB, Payload: payload}
}

// End says that all records have been sent, and are right together with the
// entries up to complete.
func (s *Snapshot) End(complete catalog.Position) link.Frame {
	return link.Frame{Kind: SnapshotEnd, DB: s.DB, Payload: mark{number: s.Number, pos: complete}.append(nil)}
}

// SnapshotSent says whether a snapshot was sent to a node to its end. The
// replica goes on with the entries after it once it has acknowledged it.
func (f *Feed) SnapshotSent(node string, snapshot *Snapshot, sent bool, out Sender) {
	s := f.sub(node)
	if s == nil || s.number != snapshot.Number || s.state != wantsSnapshot {
		return
	}
	if !sent {
		f.giveUp(s, out)
		return
	}
	s.state, s.sent = agreed, snapshot.Position
	if s.acked == s.sent {
		s.state = catchingUp // it was quicker than whoever told us
		f.advance(s, out)
	}
}

// sub finds the subscription of a node.
func (f *Feed) sub(node string) *sub {
	for _, s := range f.subs {
		if s.node == node {
			return s
		}
	}
	return nil
}

// Unsubscribe forgets a replica, whose link went down or which left.
func (f *Feed) Unsubscribe(node string) {
	if s := f.sub(node); s != nil {
		f.unpin(s)
		f.subs = slices.DeleteFunc(f.subs, func(other *sub) bool { return other == s })
	}
}

// giveUp has a replica ask again.
func (f *Feed) giveUp(s *sub, out Sender) {
	f.Unsubscribe(s.node)
	f.send(s, out, link.Live, NotPrimary, appendNumber(nil, s.number))
}

// Close tells all replicas that this isn't the primary any more.
func (f *Feed) Close(out Sender) {
	for len(f.subs) > 0 {
		f.giveUp(f.subs[0], out)
	}
	f.script = nil
}

// unpin lets the ring give up what only s kept in it.
func (f *Feed) unpin(s *sub) {
	if s.pinned {
		s.pinned = false
		f.ring.pins--
		f.ring.trim()
	}
}

// Acked is a replica's word that it has applied and journaled all up to a
// position.
func (f *Feed) Acked(node string, payload []byte, out Sender) error {
	m, err := parseMark(payload)
	if err != nil {
		return err
	}
	s := f.sub(node)
	if s == nil || s.number != m.number || s.state == agreed && m.pos != s.sent {
		return nil
	}
	s.acked = m.pos
	switch s.state {
	case wantsSnapshot:
		return nil
	case agreed:
		s.state = catchingUp
	}
	f.advance(s, out)
	return nil
}

// Acknowledged counts the live replicas that have all up to pos.
func (f *Feed) Acknowledged(pos catalog.Position) (n int) {
	for _, s := range f.subs {
		if s.acked.Covers(pos) && (s.state == live || s.state == catchingUp) {
			n++
		}
	}
	return n
}

// HasDurable is a replica's word that all up to a position is on its disk.
func (f *Feed) HasDurable(node string, payload []byte) error {
	m, err := parseMark(payload)
	if err != nil {
		return err
	}
	if s := f.sub(node); s != nil && s.number == m.number {
		s.onDisk = m.pos
	}
	return nil
}

// Durable counts the live replicas that have all up to pos on disk.
func (f *Feed) Durable(pos catalog.Position) (n int) {
	for _, s := range f.subs {
		if s.onDisk.Covers(pos) && s.acked.Covers(pos) && (s.state == live || s.state == catchingUp) {
			n++
		}
	}
	return n
}

// Subscriber is what is known of one replica.
type Subscriber struct {
	Node  string
	Live  bool
	Acked catalog.Position
}

// Subscribers lists the replicas that are connected.
func (f *Feed) Subscribers() []Subscriber {
	var all []Subscriber
	for _, s := range f.subs {
		all = append(all, Subscriber{Node: s.node, Live: s.state == live, Acked: s.acked})
	}
	return all
}

// Flush sends what was made since the last Flush to the live replicas. The
// journal has been committed: what is sent can't be lost by this process.
func (f *Feed) Flush(out Sender) {
	for _, s := range f.subs {
		if s.state != live {
			continue
		}
		for _, step := range f.script {
			kind := uint8(Publish)
			if step.entries {
				kind = Entries
				binary.LittleEndian.PutUint64(step.payload, s.number)
			}
			f.send(s, out, link.Live, kind, step.payload)
		}
		s.sent = f.head
	}
	clear(f.script)
	f.script = f.script[:0]
	f.unsafe = false
	for _, s := range slices.Clone(f.subs) {
		f.advance(s, out)
	}
}

// advance sends a replica that catches up its next window, or the rest.
func (f *Feed) advance(s *sub, out Sender) {
	if s.state != catchingUp || s.acked != s.sent {
		return
	}
	if f.unsafe {
		return // not committed yet; Flush comes, and calls again
	}
	lane, most := link.CatchUp, f.sizes.Window
	left := f.ring.bytesAfter(s.sent)
	if left <= f.sizes.Nearly {
		lane, most = link.Live, f.sizes.Nearly
	}
	if s.sent != f.head {
		payload, to, ok := f.ring.after(s.sent, most, appendNumber(nil, s.number))
		if !ok { // it fell out of the ring meanwhile
			f.giveUp(s, out)
			return
		}
		f.send(s, out, lane, Entries, payload)
		s.sent = to
	}
	if s.sent == f.head && lane == link.Live {
		s.state = live
		f.unpin(s)
		f.send(s, out, link.Live, Live, mark{number: s.number, pos: f.head}.append(nil))
	}
}

func (f *Feed) send(s *sub, out Sender, lane link.Lane, kind uint8, payload []byte) {
	out.Send(s.node, lane, link.Frame{Kind: kind, DB: f.db, Payload: payload})
}

// ring is the last entries of a database, in chunks, the oldest of which are
// given up when there are too many bytes.
type ring struct {
	keep     int
	pins     int              // who needs more to be kept
	most     int              // that they can have
	base     catalog.Position // before the first entry
	baseHash uint64
	chunks   []chunk
	bytes    int
}

type chunk struct {
	raw  []byte
	last catalog.Position
	hash uint64 // of the history up to last
}

const chunkBytes = 32 << 10

func (r *ring) append(pos catalog.Position, raw []byte, hash uint64) {
	if r.keep == 0 && r.pins == 0 {
		r.base, r.baseHash = pos, hash
		return
	}
	n := len(r.chunks)
	if n == 0 || len(r.chunks[n-1].raw)+len(raw) > chunkBytes {
		size := min(chunkBytes, max(512, 2*r.bytes)) // a database that is hardly written keeps little
		r.chunks = append(r.chunks, chunk{raw: make([]byte, 0, max(size, len(raw)))})
		n++
	}
	c := &r.chunks[n-1]
	c.raw = append(c.raw, raw...)
	c.last, c.hash = pos, hash
	r.bytes += len(raw)
	if r.bytes > r.keep {
		r.trim()
	}
}

func (r *ring) trim() {
	keep := r.keep
	if r.pins > 0 {
		keep = max(keep, r.most)
	}
	for r.bytes > keep && len(r.chunks) > 0 && (keep == 0 || len(r.chunks) > 1) {
		c := &r.chunks[0]
		r.base, r.baseHash = c.last, c.hash
		r.bytes -= len(c.raw)
		r.chunks[0] = chunk{}
		r.chunks = r.chunks[1:]
	}
}

// has reports whether the history up to pos, which hash stands for, is a
// prefix of ours after which all entries are here.
func (r *ring) has(pos catalog.Position, hash uint64) bool {
	if pos == r.base {
		return hash == r.baseHash
	}
	found := false
	r.walk(pos, func(h uint64) { found = h == hash })
	return found
}

// walk finds the entry at pos and gives the hash up to it.
func (r *ring) walk(pos catalog.Position, at func(hash uint64)) {
	hash := r.baseHash
	for i := range r.chunks {
		c := &r.chunks[i]
		if !c.last.Covers(pos) {
			hash = c.hash
			continue
		}
		for raw := c.raw; len(raw) > 0; {
			e, n := mustDecode(raw)
			hash = journal.Hash(hash, raw[:n])
			if e.Position() == pos {
				at(hash)
				return
			}
			raw = raw[n:]
		}
		return
	}
}

// bytesAfter is about how many bytes of entries come after pos: exact when
// none do.
func (r *ring) bytesAfter(pos catalog.Position) (n int) {
	for i := len(r.chunks) - 1; i >= 0 && !pos.Covers(r.chunks[i].last); i-- {
		n += len(r.chunks[i].raw)
	}
	return n
}

// after appends to dst entries that follow pos, up to about most bytes but at
// least one, and returns the position of the last. ok is false if the first
// isn't here any more.
func (r *ring) after(pos catalog.Position, most int, dst []byte) (_ []byte, to catalog.Position, ok bool) {
	if !pos.Covers(r.base) {
		return nil, pos, false
	}
	to = pos
	start := len(dst)
	for i := range r.chunks {
		c := &r.chunks[i]
		if pos.Covers(c.last) {
			continue
		}
		for rest := c.raw; len(rest) > 0; {
			e, n := mustDecode(rest)
			if p := e.Position(); !pos.Covers(p) {
				if len(dst) > start && len(dst)-start+n > most {
					return dst, to, true
				}
				dst = append(dst, rest[:n]...)
				to = p
			}
			rest = rest[n:]
		}
	}
	return dst, to, true
}

// mustDecode reads an entry that this process encoded.
func mustDecode(raw []byte) (journal.Entry, int) {
	e, n, err := journal.DecodeEntry(raw)
	if err != nil {
		panic(fmt.Sprintf("replication: an entry in the ring can't be read: %v", err))
	}
	return e, n
}
