package sim

import (
	"encoding/binary"

	"vecino/catalog"
	"vecino/link"
	"vecino/replication"
)

// wire is the link between two machines: three lanes each way in one
// incarnation after the other. It keeps what package link promises. Frames of
// a lane arrive in order; those of different lanes overtake each other. Before
// a side hears that the link is down it may send into nothing.
type wire struct {
	w     *world
	ends  [2]*machine
	delay [2]int64 // by direction: 0 is from ends[0]
	cut   [2]bool
	inc   *incarnation
	tries int // so that an old attempt to connect is void
}

// incarnation is one standing of a link.
type incarnation struct {
	wire   *wire
	procs  [2]*process
	told   [2]bool // LinkUp was called
	ended  [2]bool // LinkDown was called, or the process is gone
	broken bool
	lanes  [2][3]laneState
}

type laneState struct {
	last int64 // when the last frame arrives
	held []sent
}

type sent struct {
	lane  link.Lane
	kind  uint8
	db    catalog.ID
	bytes []byte
}

func newWire(w *world, a, b *machine) *wire {
	l := &wire{w: w, ends: [2]*machine{a, b}}
	d := w.between(w.delay/2, w.delay*3/2)
	l.delay = [2]int64{d, d + w.between(0, w.jitter)}
	return l
}

func (w *world) wireBetween(a, b *machine) *wire {
	for _, l := range w.links {
		if l.ends[0] == a && l.ends[1] == b || l.ends[0] == b && l.ends[1] == a {
			return l
		}
	}
	return nil
}

func (l *wire) side(m *machine) int {
	if l.ends[0] == m {
		return 0
	}
	return 1
}

// connect tries to bring the link up soon.
func (l *wire) connect() {
	l.tries++
	this := l.tries
	l.w.after(l.w.between(20*ms, 400*ms), func() {
		if this != l.tries || l.inc != nil {
			return
		}
		a, b := l.ends[0].proc, l.ends[1].proc
		if a == nil || b == nil {
			return // whoever starts connects
		}
		if l.cut[0] || l.cut[1] {
			l.connect()
			return
		}
		inc := &incarnation{wire: l, procs: [2]*process{a, b}}
		l.inc = inc
		for side, p := range inc.procs {
			other := inc.procs[1-side]
			up := l.w.now + l.w.between(0, 2*ms)
			for lane := range inc.lanes[1-side] {
				inc.lanes[1-side][lane].last = up // nothing arrives before
			}
			l.w.at(up, func() {
				if inc.ended[side] {
					return
				}
				inc.told[side] = true
				l.w.trace("%s: link to %s up", p.machine.id, other.machine.id)
				p.linkUp(other.machine.id, inc, other.boot)
			})
		}
	})
}

// send is Hub.Send of one side.
func (inc *incarnation) send(from int, lane link.Lane, f link.Frame) bool {
	if inc.ended[from] {
		return false
	}
	if inc.broken {
		return true // it doesn't know yet
	}
	s := sent{lane, f.Kind, f.DB, append([]byte(nil), f.Payload...)}
	if inc.wire.cut[from] {
		inc.lanes[from][lane].held = append(inc.lanes[from][lane].held, s)
		return true
	}
	inc.carry(from, s)
	return true
}

// carry brings a frame over.
func (inc *incarnation) carry(from int, s sent) {
	l, w := inc.wire, inc.wire.w
	state := &inc.lanes[from][s.lane]
	late := w.between(0, l.w.jitter)
	if s.lane != link.Live && w.chance(0.2) {
		late += w.between(0, 300*ms)
	}
	state.last = max(state.last, w.now+l.delay[from]+late)
	to := 1 - from
	if w.cfg.Plant.apply(w, inc, from, &s) {
		return
	}
	times := 1
	if s.kind == replication.Entries && w.chance(0.0005) {
		times = 2 // a link doesn't do that, but a follower must live through it
		w.trace("entries for %s come twice", l.ends[to].id)
	}
	w.at(state.last, func() {
		if inc.broken || inc.ended[to] {
			return
		}
		for range times {
			inc.procs[to].frame(inc.procs[from].machine.id, s)
		}
	})
}

// fail breaks the link. Each side hears of it in its own time, at most within.
func (inc *incarnation) fail(within int64) {
	if inc.broken {
		return
	}
	l := inc.wire
	inc.broken = true
	l.w.trace("link %s-%s breaks", l.ends[0].id, l.ends[1].id)
	for side := range inc.procs {
		l.w.after(l.w.between(0, within), func() { inc.end(side) })
	}
}

// end tells one side that the link is down.
func (inc *incarnation) end(side int) {
	if inc.ended[side] {
		return
	}
	l := inc.wire
	inc.ended[side] = true
	other := l.ends[1-side]
	if p := inc.procs[side]; inc.told[side] && !p.dead {
		l.w.trace("%s: link to %s down", p.machine.id, other.id)
		p.linkDown(other.id, inc)
	}
	if inc.ended[0] && inc.ended[1] && l.inc == inc {
		l.inc = nil
		l.connect()
	}
}

// died says that the process at one end is gone.
func (l *wire) died(m *machine) {
	inc := l.inc
	if inc == nil {
		return
	}
	side := l.side(m)
	within := l.delay[side] + l.w.between(0, 20*ms)
	if l.w.chance(0.3) {
		within = 2 * second // the machine went with it: silence tells
	}
	inc.fail(within)
	inc.end(side)
}

// stop cuts one direction. What is sent is held back by the kernel, until the
// link is given up for its silence.
func (l *wire) stop(direction int) {
	if l.cut[direction] {
		return
	}
	l.cut[direction] = true
	l.w.trace("%s -> %s cut", l.ends[direction].id, l.ends[1-direction].id)
	inc := l.inc
	if inc == nil {
		return
	}
	l.w.after(2*second+l.w.between(0, 200*ms), func() {
		if l.cut[direction] {
			inc.fail(l.delay[1-direction] + 500*ms)
		}
	})
}

func (l *wire) heal(direction int) {
	if !l.cut[direction] {
		return
	}
	l.cut[direction] = false
	l.w.trace("%s -> %s healed", l.ends[direction].id, l.ends[1-direction].id)
	inc := l.inc
	if inc == nil || inc.broken {
		return
	}
	for lane := range inc.lanes[direction] {
		held := inc.lanes[direction][lane].held
		inc.lanes[direction][lane].held = nil
		for _, s := range held {
			inc.carry(direction, s)
		}
	}
}

// Kinds of frames that the harness looks into; see package session.
const (
	forward = 20
	reply   = 21
)

// apply puts the bugs in that are in what carries frames. It reports whether
// the frame is lost.
func (p *Plant) apply(w *world, inc *incarnation, from int, s *sent) bool {
	switch {
	case p.ForgetHead && s.kind == reply:
		clear(s.bytes[12:24])
	case p.LoseReply && s.kind == reply && w.chance(0.01):
		return true
	case p.ForwardTwice && s.kind == forward && w.chance(0.05):
		again := sent{s.lane, s.kind, s.db, append([]byte(nil), s.bytes...)}
		binary.LittleEndian.PutUint64(again.bytes, 1<<60+binary.LittleEndian.Uint64(again.bytes)+uint64(w.order))
		w.at(inc.lanes[from][s.lane].last, func() {
			if !inc.broken && !inc.ended[1-from] {
				inc.procs[1-from].frame(inc.procs[from].machine.id, again)
			}
		})
	}
	return false
}

// replicated reports whether a frame is part of the stream of entries, which
// lag holds back. See node.
func replicated(kind uint8) bool {
	switch kind {
	case replication.Continue, replication.Entries, replication.SnapshotBegin, replication.SnapshotData, replication.SnapshotEnd,
		replication.Live, replication.Publish:
		return true
	}
	return false
}
