package session

import (
	"cmp"
	"math"
	"slices"

	"vecino/catalog"
	"vecino/command"
	"vecino/resp"
)

// A quota is what the plan of a database allows its clients, as far as this
// copy sees to it. docs/limits.md has the whole, for users.
//
//	request, key     where the client is; of what it forwards, at the primary again
//	commands/s       where the client is; see meter
//	connections      where the client is
//	data, record     at the primary, in the engine
//
// Most commands cost it three comparisons: a request that is no longer than
// the shortest of its limits breaks none of them.
type quota struct {
	request int64 // the longest request, MaxInt64 without a limit
	key     int64 // the longest key, likewise
	small   int64 // the lesser of both

	connections int64 // 0: no limit
	meter       meter
	counts      quotaCounts

	keys   [][]byte   // spare memory of check
	idlers []*Session // to be closed for want of room, the longest idle last
	rescan int64      // before this moment nobody else will have been idle for long enough
}

// quotaCounts is how often a quota said no.
type quotaCounts struct {
	Requests, Keys uint64 // commands refused for their length, or that of a key
	Connections    uint64 // refused
	Idle           uint64 // closed to make room for others
}

// setLimits takes the limits of a plan.
func (q *quota) setLimits(l catalog.Limits, t *Tenant) {
	q.request = cmp.Or(l.RequestBytes, math.MaxInt64)
	q.key = cmp.Or(l.KeyBytes, math.MaxInt64)
	q.small = min(q.request, q.key)
	q.connections = l.Connections
	q.meter.setRate(l.CommandsPerS, t)
	for _, s := range t.sessions {
		s.parser.MaxRequest = int(l.RequestBytes)
	}
}

// withinQuota judges a command of size bytes before anything is done about it.
// A transaction is one request, so what MULTI queues adds up.
func (s *Session) withinQuota(row *command.Row, argv [][]byte, size int64, queues bool) error {
	q := &s.tenant.quota
	before := int64(0)
	if queues && !s.multi.aborted {
		before = s.multi.bytes
		s.multi.bytes += size
	}
	if before+size <= q.small {
		return nil
	}
	return q.check(row, argv, before, size)
}

// check judges a command of size bytes behind those of its transaction before
// it, which together are longer than small.
func (q *quota) check(row *command.Row, argv [][]byte, before, size int64) error {
	if before+size > q.request {
		q.counts.Requests++
		return command.RequestTooLong(q.request, before+size)
	}
	if size <= q.key {
		return nil
	}
	q.keys = row.Keys.Of(q.keys[:0], argv)
	defer clear(q.keys)
	for _, key := range q.keys {
		if int64(len(key)) > q.key {
			q.counts.Keys++
			return command.KeyTooLong(q.key, int64(len(key)))
		}
	}
	return nil
}

// checkForwarded is check for a command that came from a replica. The replica
// has checked it by the limits that it knew of. before is what came in the same
// transaction; the command is added to it.
func (q *quota) checkForwarded(row *command.Row, argv [][]byte, before *int64) error {
	if q.small == math.MaxInt64 {
		return nil
	}
	size := int64(resp.CommandLen(argv))
	so := *before
	if *before += size; *before <= q.small {
		return nil
	}
	return q.check(row, argv, so, size)
}

const (
	// minIdle is how long a connection has been silent, in ms, before it may
	// be closed to make room: longer than a pool or a health check is quiet
	// between two commands.
	minIdle = 60_000
	// mostIdlers is how many are chosen to be closed in one look at them all.
	mostIdlers = 256
	// rescanEvery is the least time between two such looks, in ms.
	rescanEvery = 100
)

// softLimit is from how many connections on idle ones are closed.
func softLimit(connections int64) int64 { return connections - connections/10 }

// hasPlace reports whether one more client may connect. From nine tenths of what
// the plan allows on, each that comes has the one closed that has been idle for
// longest.
func (t *Tenant) hasPlace() bool {
	q := &t.quota
	if q.connections == 0 {
		return true
	}
	if int64(len(t.sessions)) >= softLimit(q.connections) {
		if s := q.idlest(t); s != nil {
			q.counts.Idle++
			delete(t.sessions, s.id)
			s.conn.Close()
		}
	}
	if int64(len(t.sessions)) >= q.connections {
		q.counts.Connections++
		return false
	}
	return true
}

// idlest finds the connection that has been idle for longest, nil if none has
// been for long enough. It looks at them all only now and then.
func (q *quota) idlest(t *Tenant) *Session {
	now := t.Now()
	for looked := false; ; looked = true {
		for n := len(q.idlers); n > 0; n = len(q.idlers) {
			s := q.idlers[n-1]
			q.idlers[n-1] = nil
			q.idlers = q.idlers[:n-1]
			if t.sessions[s.id] == s && s.idle(now) {
				return s
			}
		}
		if looked || now < q.rescan {
			return nil
		}
		q.rescan = now + minIdle
		for _, s := range t.sessions {
			if s.idle(now) {
				q.idlers = append(q.idlers, s)
			} else {
				q.rescan = min(q.rescan, s.active+minIdle)
			}
		}
		q.rescan = max(q.rescan, now+rescanEvery)
		slices.SortFunc(q.idlers, func(a, b *Session) int {
			return cmp.Or(cmp.Compare(b.active, a.active), cmp.Compare(b.id, a.id))
		})
		if extra := len(q.idlers) - mostIdlers; extra > 0 {
			q.idlers = slices.Delete(q.idlers, 0, extra)
			q.rescan = now // they are waiting
		}
	}
}

// idle reports whether the connection has been silent for so long, and waits
// for nothing, that it may be closed to make room. Who listens to a channel is
// silent by nature.
func (s *Session) idle(now int64) bool {
	return now-s.active >= minIdle && s.parked == nil && s.loading == nil && !s.metered && !s.quit && !s.inData && !s.track.Busy() && !s.listener.Subscribed()
}

// refuseRequest answers a request that was swallowed because of its length.
func (s *Session) refuseRequest(size int64) {
	q := &s.tenant.quota
	q.counts.Requests++
	if s.multi != nil {
		size += s.multi.bytes
		s.multi.abort()
	}
	s.deny(command.RequestTooLong(q.request, size))
}

// deny answers a command that isn't run.
func (s *Session) deny(err error) {
	s.answer(func(out *resp.Writer) { out.Error(command.Reply(err)) })
}
