package session

import (
	"slices"

	"vecino/command"
	"vecino/engine"
)

// Room is how much memory the node has left for what a tenant adds.
type Room uint8

const (
	// Roomy: enough.
	Roomy Room = iota
	// Crowded: values are on their way out of memory, and come in faster than
	// they leave. Connections that would add something wait a moment.
	Crowded
	// Full: nothing more can leave. Who would add something is refused.
	Full
)

// SetRoom says how much room there is; for a database that sleeps there is enough,
// since it holds nothing. It is called in a turn of the tenant, with the lock held.
func (t *Tenant) SetRoom(r Room) {
	if t.Engine.State() != engine.Awake {
		r = Roomy
	}
	if t.room == r {
		return
	}
	t.room = r
	if r == Crowded {
		return
	}
	line := t.crowd
	t.crowd = nil
	for _, w := range line {
		w.roomAgain()
	}
}

// crowded is who stands in line until there is room.
type crowded interface {
	roomAgain()
}

func (s *Session) roomAgain() {
	if s.crowded {
		s.crowded, s.metered = false, false
		s.conn.Resume()
	}
}

func (rm *remote) roomAgain() {
	t := rm.tenant
	t.after(0, func() { // the database may be about to fall asleep
		t.Engine.Lock()
		defer t.Engine.Unlock()
		rm.goOn()
	})
}

// hasRoom reports whether a command may be run as far as the node's memory
// goes. Else its connection stands in line until there is room.
func (s *Session) hasRoom(row *command.Row) (ok bool, err error) {
	t := s.tenant
	if t.feed == nil || !s.adds(row) {
		return true, nil
	}
	if t.room == Full {
		return false, command.ErrNodeFull
	}
	s.crowded, s.metered = true, true
	t.crowd = append(t.crowd, s)
	return false, nil
}

// adds reports whether a command may make the database larger.
func (s *Session) adds(row *command.Row) bool {
	if row == execRow && s.multi != nil {
		for _, q := range s.multi.queued {
			if q.Row.Has(command.GrowsMemory) {
				return true
			}
		}
	}
	return row.Has(command.GrowsMemory)
}

// hasRoom reports whether a request may be run as far as the node's memory goes. Else it
// was refused, or stands before those that came behind it until there is room.
func (rm *remote) hasRoom(r *request, payload []byte) bool {
	t := rm.tenant
	if t.room == Roomy || !slices.ContainsFunc(r.argvs, addsWords) {
		return true
	}
	if t.room == Full {
		rm.last = r.req
		rm.answer(r.req, errorReply(command.ErrNodeFull))
		return false
	}
	rm.last = min(rm.last, r.req-1) // it hasn't begun
	rm.behind = slices.Insert(rm.behind, 0, waitingRequest{r.req, slices.Clone(payload)})
	t.crowd = append(t.crowd, rm)
	return false
}

// addsWords reports whether the command that argv is may make a database larger.
func addsWords(argv [][]byte) bool {
	row, err := command.Resolve(argv)
	return err == nil && row.Has(command.GrowsMemory)
}
