package loop

// A connSet holds a loop's connections, each in a slot of its own, which is
// what the poller names it by. A slot is free again once its connection is removed.
type connSet struct {
	slots []*Conn
	free  []int
}

func (s *connSet) add(c *Conn) {
	if n := len(s.free); n > 0 {
		c.slot = s.free[n-1]
		s.free = s.free[:n-1]
		s.slots[c.slot] = c
		return
	}
	c.slot = len(s.slots)
	s.slots = append(s.slots, c)
}

func (s *connSet) remove(c *Conn) {
	s.slots[c.slot] = nil
	s.free = append(s.free, c.slot)
}

func (s *connSet) each(fn func(c *Conn)) {
	for _, c := range s.slots {
		if c != nil {
			fn(c)
		}
	}
}
