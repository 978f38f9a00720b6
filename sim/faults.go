package sim

import (
	"slices"
	"strings"

	"vecino/catalog"
)

// scheduleFaults lets things go wrong, one after the other, until it is calm.
func (w *world) scheduleFaults() {
	w.after(w.between(300*ms, 1500*ms), w.fault)
	w.after(w.between(1*second, 4*second), func() { w.addRegion() })
	w.after(w.between(500*ms, 2*second), w.checkpoints)
	if !w.hot {
		w.after(w.between(500*ms, 2*second), w.cold)
	}
	if w.chance(0.4) {
		w.after(w.between(1*second, 8*second), w.move)
	}
	if w.chance(0.5) {
		w.after(w.between(5*second, 8*second), w.removeRegion)
	}
}

func (w *world) fault() {
	if w.calm {
		return
	}
	w.after(w.between(50*ms, 1200*ms), w.fault)
	l := pick(w.rng, w.links)
	if w.chance(0.6) { // mostly between the primary and a replica
		l = w.links[w.rng.IntN(len(w.machines)-1)]
	}
	switch n := w.rng.IntN(100); {
	case n < 25:
		if l.inc != nil {
			l.inc.fail(w.between(0, 300*ms))
		}
	case n < 40: // cut one way
		direction := w.rng.IntN(2)
		l.stop(direction)
		w.after(w.between(50*ms, 7*second), func() { l.heal(direction) })
	case n < 50: // cut both ways
		l.stop(0)
		l.stop(1)
		w.after(w.between(50*ms, 8*second), func() { l.heal(0); l.heal(1) })
	case n < 70:
		m := pick(w.rng, w.machines)
		m.lag = w.between(0, 1200*ms)
		w.trace("%s: lag %d ms", m.id, m.lag/ms)
		w.after(w.between(100*ms, 4*second), func() { m.lag = 0 })
	case n < 75:
		m := pick(w.rng, w.machines)
		m.full = true
		w.trace("%s: disk full", m.id)
		w.after(w.between(1*ms, 800*ms), func() { m.full = false })
	case n < 90:
		w.kill(pick(w.rng, w.machines))
	default:
		w.kill(w.primary())
	}
}

// kill ends a process, somewhere in its next batch or between two, and starts
// it again later.
func (w *world) kill(m *machine) {
	p := m.proc
	if p == nil || p.doomed != safe {
		return
	}
	p.doomed = doom(1 + w.rng.IntN(4))
	w.after(w.between(0, 30*ms), func() {
		p.die()
		w.after(w.between(50*ms, 3*second), func() {
			if m.proc == nil {
				m.start()
			}
		})
	})
}

func (w *world) checkpoints() {
	if w.calm {
		return
	}
	w.after(w.between(100*ms, 2*second), w.checkpoints)
	if p := pick(w.rng, w.machines).proc; p != nil {
		p.save()
	}
}

// cold has values, or a whole database, leave memory.
func (w *world) cold() {
	if w.calm {
		return
	}
	w.after(w.between(20*ms, 600*ms), w.cold)
	p := pick(w.rng, w.machines).proc
	switch {
	case p == nil:
	case w.chance(0.7):
		p.chill(w.rng.Float64())
		p.sink(w.rng.Float64())
	default:
		p.hibernate()
	}
}

// addRegion puts the last machine into the record, so that it loads a
// snapshot while clients write.
func (w *world) addRegion() {
	m := w.machines[len(w.machines)-1]
	if w.calm || w.record.CopyOn(m.id) != nil {
		return
	}
	w.trace("%s is added", m.id)
	w.revise(func(*catalog.Database) { w.addCopy(m) })
}

// removeRegion takes it out again, and may put it back.
func (w *world) removeRegion() {
	m := w.machines[len(w.machines)-1]
	if w.calm || w.record.CopyOn(m.id) == nil {
		return
	}
	w.trace("%s is removed", m.id)
	w.revise(func(rec *catalog.Database) {
		rec.Copies = slices.DeleteFunc(slices.Clone(rec.Copies), func(c catalog.Copy) bool { return c.Node == m.id })
	})
	if w.chance(0.7) {
		w.after(w.between(50*ms, 3*second), w.addRegion)
	}
}

// move makes a replica the primary, when it has all that the old one has: what
// the fleet will see to. The two hear of it at once, all others in their own time.
func (w *world) move() {
	if w.calm {
		return
	}
	again := int64(5 * ms)
	old := w.primary()
	for _, m := range w.machines[:len(w.machines)-1] {
		if m == old || !movable(old, m) {
			continue
		}
		w.handOver(old, m)
		again = w.between(20*ms, 3*second)
		break
	}
	w.after(again, w.move)
}

// handOver makes another machine the primary.
func (w *world) handOver(old, m *machine) {
	w.trace("the primary moves from %s to %s", old.id, m.id)
	w.cover.Moves++
	w.revise(func(rec *catalog.Database) {
		rec.Epoch++
		rec.Copies = slices.Clone(rec.Copies)
		for i := range rec.Copies {
			c := &rec.Copies[i]
			c.Role = catalog.Replica
			if c.Node == m.id {
				c.Role = catalog.Primary
			}
		}
		slices.SortStableFunc(rec.Copies, func(a, b catalog.Copy) int { return strings.Compare(string(a.Role), string(b.Role)) })
	})
	for _, of := range []*machine{old, m} {
		of.known = w.record
		of.proc.time = w.now
		of.proc.place(w.record)
	}
}

// movable reports whether a replica has all that the primary has, and keeps it.
func movable(from, to *machine) bool {
	a, b := from.proc, to.proc
	if a == nil || b == nil || a.tenant == nil || b.tenant == nil || !a.tenant.IsPrimary() || !b.tenant.Ready() || a.doomed+b.doomed != safe || to.homeless {
		return false
	}
	x, y := a.tenant.Engine, b.tenant.Engine
	return len(a.log) == 0 && len(b.log) == 0 && x.Position() == y.Position() && x.HistoryHash() == y.HistoryHash()
}
