package replication

import (
	"fmt"

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
type Feed struct {
	db     catalog.ID
	ring   ring
	head   catalog.Position
	subs   map[string]*sub
	script []step // what live replicas get at the next Flush, in order
	sizes  Sizes
}

// Sizes are how much a feed keeps and sends, in bytes.
type Sizes struct {
	Ring   int // of the history, kept in memory for replicas that were away
	Window int // that a replica which catches up is sent at a time
	Nearly int // no more than this is left: it becomes live
}

// DefaultSizes are right for a node.
var DefaultSizes = Sizes{Ring: 4 << 20, Window: 256 << 10, Nearly: 64 << 10}

type subState uint8

const (
	wantsSnapshot subState = iota
	agreed
	catchingUp
	live
)

// sub is one replica.
type sub struct {
	state subState
	sent  catalog.Position // all up to here has been sent
	acked catalog.Position
}

// step is entries of the ring, or a frame of another kind.
type step struct {
	entries bool
	frame   []byte
}

// NewFeed makes the feed of a database whose last entry is at pos.
func NewFeed(db catalog.ID, pos catalog.Position, hash uint64, sizes Sizes) *Feed {
	return &Feed{db: db, head: pos, sizes: sizes, ring: ring{keep: sizes.Ring, base: pos, baseHash: hash}, subs: make(map[string]*sub)}
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
	f.ring.append(pos, raw, hash)
	if len(f.subs) == 0 {
		return
	}
	if n := len(f.script); n == 0 || !f.script[n-1].entries {
		f.script = append(f.script, step{entries: true})
	}
	last := &f.script[len(f.script)-1]
	last.frame = append(last.frame, raw...)
}

// Publish takes a message for the subscribers behind all live replicas. It
// arrives after the entries that were made before it.
func (f *Feed) Publish(payload []byte) {
	if len(f.subs) > 0 {
		f.script = append(f.script, step{frame: append([]byte(nil), payload...)})
	}
}

// Dirty reports whether Flush has something to do.
func (f *Feed) Dirty() bool { return len(f.script) > 0 }

// Subscribe is a replica's request. It reports whether the caller must send a
// snapshot: then SnapshotSent follows, and until then nothing is sent.
func (f *Feed) Subscribe(node string, payload []byte, out Sender) (snapshot bool, err error) {
	m, err := parseMark(payload)
	if err != nil {
		return false, err
	}
	s := &sub{}
	f.subs[node] = s
	if !f.ring.has(m.pos, m.hash) {
		return true, nil
	}
	s.state, s.sent = agreed, m.pos
	f.send(node, out, link.Live, Continue, mark{pos: m.pos}.append(nil))
	return false, nil
}

// Pin keeps all entries from now on until Unpin, for a snapshot that is begun
// at the present head.
func (f *Feed) Pin()   { f.ring.pins++ }
func (f *Feed) Unpin() { f.ring.pins--; f.ring.trim() }

// SnapshotSent says that a snapshot begun at pos was sent to a node, which
// goes on with the entries after it once it has acknowledged pos.
func (f *Feed) SnapshotSent(node string, pos catalog.Position) {
	if s := f.subs[node]; s != nil && s.state == wantsSnapshot {
		s.state, s.sent = agreed, pos
	}
}

// Unsubscribe forgets a replica, whose link went down or which left.
func (f *Feed) Unsubscribe(node string) { delete(f.subs, node) }

// Acked is a replica's word that it has applied and journaled all up to a
// position.
func (f *Feed) Acked(node string, payload []byte, out Sender) error {
	m, err := parseMark(payload)
	if err != nil {
		return err
	}
	s := f.subs[node]
	if s == nil || s.state == wantsSnapshot || s.state == agreed && m.pos != s.sent {
		return nil
	}
	if s.state == agreed {
		s.state = catchingUp
	}
	s.acked = m.pos
	f.advance(node, s, out)
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

// Subscriber is what is known of one replica.
type Subscriber struct {
	Node  string
	Live  bool
	Acked catalog.Position
}

// Subscribers lists the replicas that are connected.
func (f *Feed) Subscribers() []Subscriber {
	var all []Subscriber
	for node, s := range f.subs {
		all = append(all, Subscriber{Node: node, Live: s.state == live, Acked: s.acked})
	}
	return all
}

// Flush sends what was made since the last Flush to the live replicas. The
// journal has been committed: what is sent can't be lost by this process.
func (f *Feed) Flush(out Sender) {
	for node, s := range f.subs {
		if s.state != live {
			continue
		}
		for _, step := range f.script {
			kind := uint8(Publish)
			if step.entries {
				kind = Entries
			}
			f.send(node, out, link.Live, kind, step.frame)
		}
		s.sent = f.head
	}
	clear(f.script)
	f.script = f.script[:0]
	for node, s := range f.subs {
		f.advance(node, s, out)
	}
}

// advance sends a replica that catches up its next window, or the rest.
func (f *Feed) advance(node string, s *sub, out Sender) {
	if s.state != catchingUp || s.acked != s.sent {
		return
	}
	if len(f.script) > 0 {
		return // not committed yet; Flush comes, and calls again
	}
	lane, most := link.CatchUp, f.sizes.Window
	left := f.ring.bytesAfter(s.sent)
	if left <= f.sizes.Nearly {
		lane, most = link.Live, f.sizes.Nearly
	}
	if left > 0 {
		raw, to, ok := f.ring.after(s.sent, most)
		if !ok { // it fell out of the ring meanwhile
			delete(f.subs, node)
			f.send(node, out, link.Live, NotPrimary, nil)
			return
		}
		f.send(node, out, lane, Entries, raw)
		s.sent = to
	}
	if s.sent == f.head && lane == link.Live {
		s.state = live
		f.send(node, out, link.Live, Live, mark{pos: f.head}.append(nil))
	}
}

func (f *Feed) send(node string, out Sender, lane link.Lane, kind uint8, payload []byte) {
	out.Send(node, lane, link.Frame{Kind: kind, DB: f.db, Payload: payload})
}

// ring is the last entries of a database, in chunks, the oldest of which are
// given up when there are too many bytes.
type ring struct {
	keep     int
	pins     int
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
	for r.pins == 0 && r.bytes > r.keep && len(r.chunks) > 0 && (r.keep == 0 || len(r.chunks) > 1) {
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

// after returns entries that follow pos, up to about most bytes but at least
// one, and the position of the last. ok is false if the first isn't here any
// more.
func (r *ring) after(pos catalog.Position, most int) (raw []byte, to catalog.Position, ok bool) {
	if !pos.Covers(r.base) {
		return nil, pos, false
	}
	to = pos
	for i := range r.chunks {
		c := &r.chunks[i]
		if pos.Covers(c.last) {
			continue
		}
		for rest := c.raw; len(rest) > 0; {
			e, n := mustDecode(rest)
			if p := e.Position(); !pos.Covers(p) {
				if len(raw) > 0 && len(raw)+n > most {
					return raw, to, true
				}
				raw = append(raw, rest[:n]...)
				to = p
			}
			rest = rest[n:]
		}
	}
	return raw, to, true
}

// mustDecode reads an entry that this process encoded.
func mustDecode(raw []byte) (journal.Entry, int) {
	e, n, err := journal.DecodeEntry(raw)
	if err != nil {
		panic(fmt.Sprintf("replication: an entry in the ring can't be read: %v", err))
	}
	return e, n
}
