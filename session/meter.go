package session

// A bucket is a number of tokens that fills with time, up to a burst, and that
// each command takes one of. It has no clock: its owner says what time it is.
type bucket struct {
	rate  int64 // tokens a second; 0: there is always one
	burst int64 // the most tokens in it
	level int64 // thousandths of tokens in it
	at    int64 // when it was last filled, in ms
}

// set changes the rate. A bucket that had none begins full.
func (b *bucket) set(rate, now int64) {
	full := b.rate == 0
	b.fill(now)
	b.rate, b.burst = rate, max(1, rate/burstsPerS)
	if full {
		b.level = b.burst * 1000
	}
	b.level = min(b.level, b.burst*1000)
}

// burstsPerS says how much may be saved up: the commands of a tenth of a second.
const burstsPerS = 10

// fill adds what has come since it was last filled. A clock that was put back
// adds nothing.
func (b *bucket) fill(now int64) {
	passed := now - b.at
	b.at = now
	if passed > 0 { // a second fills any bucket
		b.level = min(b.level+min(passed, 1000)*b.rate, b.burst*1000)
	}
}

// take takes one token, if there is one.
func (b *bucket) take() bool {
	if b.level < 1000 {
		return b.rate == 0
	}
	b.level -= 1000
	return true
}

// has is how many whole tokens are in it.
func (b *bucket) has() int64 { return b.level / 1000 }

// wait is in how many milliseconds n tokens will be in it, n being no more
// than burst.
func (b *bucket) wait(n int64) int64 {
	if missing := n*1000 - b.level; missing > 0 && b.rate > 0 {
		return (missing + b.rate - 1) / b.rate
	}
	return 0
}

// A meter makes the connections of one database share the commands a second
// that its plan has. A command over it is not refused: its connection isn't
// read until there are tokens again, so its client feels a slower server and
// nobody else anything. All who wait are in one line, with one timer for the
// database.
//
//	running ── no token ──> in line ── timer: a share of tokens ──> running
//
// A share is what is there by the number of those in line, so that one that
// sends much can't keep out one that sends little; what it doesn't use it gives
// back at the end of its turn. Who isn't in line takes no token while others are.
type meter struct {
	bucket
	line  []*Session
	timer Timer

	commands uint64 // ever
	delayed  uint64 // of those, that had to wait

	perS    int64 // commands in the last second, about
	counted uint64
	since   int64 // when counted was commands
}

const (
	// slicesPerS is how often in a second those in line get their shares.
	slicesPerS = 100
	// mostShare is the most tokens that one connection in line gets at once.
	mostShare = 64
)

// admit takes a token for the next command of a connection. It reports false
// when there is none: then the connection stands in line.
func (m *meter) admit(s *Session) bool {
	switch {
	case m.rate == 0:
	case s.share > 0:
		s.share--
	case len(m.line) > 0 || !m.take():
		m.delayed++
		s.metered = true
		m.line = append(m.line, s)
		m.schedule(s.tenant)
		return false
	}
	m.commands++
	return true
}

// takeBack says that the command that was last admitted wasn't run after all,
// and will be offered again.
func (m *meter) takeBack() {
	m.commands--
	m.level = min(m.level+1000, m.burst*1000)
}

// ended is the end of a connection's turn.
func (m *meter) ended(s *Session) {
	if s.share > 0 {
		m.level = min(m.level+int64(s.share)*1000, m.burst*1000)
		s.share = 0
	}
}

func (m *meter) schedule(t *Tenant) {
	if m.timer == nil {
		ms := m.wait(min(max(1, m.rate/slicesPerS), m.burst))
		m.timer = t.after(max(1, ms), func() {
			t.Engine.Lock()
			defer t.Engine.Unlock()
			m.timer = nil
			m.serve(t)
		})
	}
}

// serve lets those at the head of the line go on.
func (m *meter) serve(t *Tenant) {
	if len(m.line) == 0 {
		return
	}
	m.fill(t.Now())
	share := min(max(1, m.has()/int64(len(m.line))), mostShare)
	n := 0
	for n < len(m.line) && (m.has() >= share || m.rate == 0) {
		s := m.line[n]
		if m.rate > 0 {
			m.level -= share * 1000
			s.share = int(share)
		}
		m.release(s)
		n++
	}
	m.line = shift(m.line, n)
	if len(m.line) > 0 {
		m.schedule(t)
	}
}

func (m *meter) release(s *Session) {
	s.metered = false
	s.conn.Resume()
}

// shift drops the first n.
func shift(line []*Session, n int) []*Session {
	rest := copy(line, line[n:])
	clear(line[rest:])
	return line[:rest]
}

// leave takes a connection that is closed out of the line.
func (m *meter) leave(s *Session) {
	if !s.metered {
		return
	}
	s.metered = false
	for i, other := range m.line {
		if other == s {
			copy(m.line[i:], m.line[i+1:])
			m.line[len(m.line)-1] = nil
			m.line = m.line[:len(m.line)-1]
			return
		}
	}
}

// setRate changes the rate. Without one nobody waits.
func (m *meter) setRate(rate int64, t *Tenant) {
	if rate == m.rate {
		return
	}
	m.set(rate, t.Now())
	if m.rate == 0 {
		m.level = 0
		m.serve(t)
	}
}

// tick brings the count of the last second up to date.
func (m *meter) tick(now int64) {
	if passed := now - m.since; passed >= 1000 || passed < 0 {
		if passed > 0 {
			m.perS = int64(m.commands-m.counted) * 1000 / passed
		}
		m.counted, m.since = m.commands, now
	}
}

// stop ends the timer.
func (m *meter) stop() {
	if m.timer != nil {
		m.timer.Stop()
		m.timer = nil
	}
}
