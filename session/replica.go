package session

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"vecino/catalog"
	"vecino/command"
	"vecino/engine"
	"vecino/link"
	"vecino/resp"
)

// onReplica answers a command of a connection on a replica: here if the copy
// can, else through the primary. It reports false for a command that has to
// wait for the replies before it.
func (s *Session) onReplica(row *command.Row, argv [][]byte, now int64) bool {
	t := s.tenant
	switch {
	case s.track.Queued() >= mostQueued, s.owed >= mostOwed, s.mirror != nil, s.track.Busy() && waitsForReplies(row):
		return false
	case row.Read != nil:
		if t.Ready() && s.track.ReadHere(t.Engine.Position()) {
			s.run(row, argv, now, &s.out)
			if s.loading == nil {
				t.counters.LocalReads++
			}
			return s.loading == nil
		}
		t.counters.ForwardedReads++
		s.send(SentRead, 0, now, argv)
	case row.ToPrimary():
		t.counters.ForwardedWrites++
		what := SentWrite
		if row.Has(command.Blocks) {
			what = SentBlocking
		}
		s.send(what, 0, now, argv)
	default:
		s.here(row, argv, now)
	}
	return s.loading == nil
}

// mostQueued and mostOwed bound how many replies of one connection may have
// yet to leave, and how many bytes of commands are kept for being sent again.
// One command more is always taken.
const (
	mostQueued = 4096
	mostOwed   = 8 << 20
)

// waitsForReplies reports whether a command about the connection can't be
// carried out before what was sent to the primary has been answered: WATCH
// would take the connection's own writes for somebody else's, and messages
// would come between replies.
func waitsForReplies(row *command.Row) bool {
	return row.Name == "WATCH" || subscribes(row)
}

// subscribes reports whether a command changes what the connection listens to.
func subscribes(row *command.Row) bool {
	return row.Group == command.PubSub && strings.HasSuffix(row.Name, "SUBSCRIBE")
}

// here runs a command that is about the connection. Its reply queues behind
// those that are still to come from the primary.
func (s *Session) here(row *command.Row, argv [][]byte, now int64) {
	if !s.track.Busy() {
		s.run(row, argv, now, &s.out)
		return
	}
	s.sub.Buf, s.sub.Proto = nil, s.out.Proto
	s.run(row, argv, now, &s.sub)
	if len(s.sub.Buf) > 0 && !s.muted() {
		s.track.Answered(s.sub.Buf)
	}
	s.sub.Buf = nil
}

// answer writes a reply that is known at once, in its order.
func (s *Session) answer(write func(out *resp.Writer)) {
	if s.muted() {
		return
	}
	if !s.track.Busy() {
		write(&s.out)
		return
	}
	out := resp.Writer{Proto: s.out.Proto}
	write(&out)
	s.track.Answered(out.Buf)
}

// send sends a request to the primary.
func (s *Session) send(what Sent, flags byte, now int64, commands ...[][]byte) {
	t := s.tenant
	if s.number == 0 {
		// Unlike the id it is not used again when this process has been
		// restarted, so no late reply can come to the wrong session.
		s.number = t.Host.Boot() + uint64(s.id)
		if t.waiting == nil {
			t.waiting = make(map[uint64]*Session)
		}
		t.waiting[s.number] = s
	}
	oldest := s.track.Oldest()
	req := s.track.Send(what, now)
	if s.muted() {
		s.track.Mute(req)
	}
	r := request{session: s.number, req: req, oldest: oldest, db: s.db, flags: flags}
	if flags&flagExec != 0 {
		r.watches = s.watches
	}
	if s.out.Proto == 3 {
		r.flags |= flagResp3
	}
	o := outgoing{req: req, payload: r.append(nil, commands...), what: what}
	s.transmit(&o)
	s.unsent = append(s.unsent, o)
	s.owed += len(o.payload)
	if s.overdue == nil {
		s.overdue = t.after(primaryPatience, s.checkOverdue)
	}
}

// transmit sends a request, if there is a link.
func (s *Session) transmit(o *outgoing) {
	t := s.tenant
	primary := t.follower.Primary()
	boot, up := t.Host.Up(primary)
	if up && t.Host.Send(primary, link.Live, frame(forward, t.record.ID, o.payload)) {
		o.boot = boot
	}
}

// resend sends again what the primary hasn't answered, after a link to it came
// up. A primary that was restarted meanwhile doesn't know what it answered
// before, so a write that was sent to it then isn't sent again; nor is a read
// ahead of such a write, which it must not see.
func (s *Session) resend(boot uint64) {
	wrote := false
	for i := len(s.unsent) - 1; i >= 0; i-- {
		o := &s.unsent[i]
		if o.boot == 0 || o.boot == boot {
			continue
		}
		if o.what != SentRead {
			wrote = true
		}
		if wrote {
			s.refuse(o.req, o.what != SentRead)
		}
	}
	s.settleAnswered()
	for i := range s.unsent {
		s.transmit(&s.unsent[i])
		s.transmitEnd(&s.unsent[i])
	}
	s.release()
}

// giveUp answers all that the primary hasn't: there is no primary elsewhere any
// more.
func (s *Session) giveUp() {
	for i := range s.unsent {
		o := &s.unsent[i]
		s.refuse(o.req, o.boot != 0 && o.what != SentRead)
	}
	s.settleAnswered()
	s.release()
}

func (s *Session) linkDown() { s.track.LinkDown(s.tenant.Now()) }

// replied takes the primary's reply to one request.
func (s *Session) replied(req uint32, head catalog.Position, body []byte) {
	s.settle(req)
	if s.mirror != nil && s.mirror.req == req && s.track.Waits(req) {
		s.mirrored(body)
	}
	if bytes.HasPrefix(body, unknownPrefix) && s.track.Sent(req) == SentRead {
		s.refuse(req, false) // it wouldn't have mattered
		s.release()
		return
	}
	if s.track.Reply(req, head, append([]byte(nil), body...)) {
		s.release()
	}
}

var unknownPrefix = []byte("-UNKNOWNOUTCOME ")

// settle forgets a request that needn't be sent again.
func (s *Session) settle(req uint32) {
	i := slices.IndexFunc(s.unsent, func(o outgoing) bool { return o.req == req })
	if i < 0 {
		return
	}
	s.owed -= len(s.unsent[i].payload)
	if i == 0 && len(s.unsent) > 1 { // nearly always: replies come in order
		s.unsent[0] = outgoing{}
		s.unsent = s.unsent[1:]
		return
	}
	s.unsent = slices.Delete(s.unsent, i, i+1)
}

// settleAnswered forgets the requests that have been answered.
func (s *Session) settleAnswered() {
	s.unsent = slices.DeleteFunc(s.unsent, func(o outgoing) bool {
		waits := s.track.Waits(o.req)
		if !waits {
			s.owed -= len(o.payload)
		}
		return !waits
	})
}

// release lets the replies go whose time has come.
func (s *Session) release() {
	t := s.tenant
	var buf []byte
	buf, until := s.track.Release(nil, t.Engine.Position(), t.Now(), &t.counters)
	if len(buf) > 0 {
		s.write(buf)
	}
	s.conn.Owe(s.track.Owes())
	if until > 0 {
		if !s.listed {
			s.listed = true
			t.holding = append(t.holding, s)
		}
		if s.patience == nil {
			s.patience = t.after(until-t.Now(), s.impatient)
		}
		return
	}
	if s.patience != nil {
		s.patience.Stop()
		s.patience = nil
	}
	if !s.track.Busy() {
		if s.overdue != nil && len(s.unsent) == 0 {
			s.overdue.Stop()
			s.overdue = nil
		}
		if s.quit {
			s.conn.CloseAfterFlush()
		}
	}
	if s.barrier && !s.track.Busy() {
		s.barrier = false
		s.conn.Resume()
	}
}

// impatient ends the hold of a reply.
func (s *Session) impatient() {
	db := s.tenant.Engine
	db.Lock()
	defer db.Unlock()
	s.patience = nil
	s.release()
}

// checkOverdue answers for the primary what it hasn't answered in time.
func (s *Session) checkOverdue() {
	t := s.tenant
	t.Engine.Lock()
	defer t.Engine.Unlock()
	s.overdue = nil
	_, up := t.Host.Up(t.follower.Primary())
	next := s.track.Overdue(t.Now()-primaryPatience, !up, func(req uint32, what Sent) {
		sent := slices.ContainsFunc(s.unsent, func(o outgoing) bool { return o.req == req && o.boot != 0 })
		s.refuse(req, sent && what != SentRead)
	})
	s.settleAnswered()
	if s.track.InFlight() > 0 {
		wait := int64(primaryPatience)
		if next > 0 {
			wait = max(1, next+primaryPatience-t.Now())
		}
		s.overdue = t.after(wait, s.checkOverdue)
	}
	s.release()
}

// refuse answers a request that the primary didn't. maybe says that it may
// have been carried out.
func (s *Session) refuse(req uint32, maybe bool) {
	t := s.tenant
	if s.mirror != nil && s.mirror.req == req {
		s.mirror = nil
	}
	out := resp.Writer{Proto: s.out.Proto}
	if maybe {
		out.Error(string(errUnknownOutcome))
	} else {
		out.Error("TRYAGAIN the primary in " + t.primaryRegion() + " can't be reached; the command was not carried out")
	}
	t.counters.Failed++
	s.track.Reply(req, s.track.W(), out.Buf)
}

func (t *Tenant) primaryRegion() string {
	if p := t.record.PrimaryCopy(); p != nil {
		return string(p.Region)
	}
	return "?"
}

// leaveReplica forgets what a closed session waited for.
func (s *Session) leaveReplica() {
	t := s.tenant
	if s.listed {
		t.holding = slices.DeleteFunc(t.holding, func(other *Session) bool { return other == s })
	}
	if s.number == 0 {
		return
	}
	delete(t.waiting, s.number)
	if t.feed == nil {
		var id [8]byte
		binary.LittleEndian.PutUint64(id[:], s.number)
		t.Host.Send(t.follower.Primary(), link.Live, frame(sessionClosed, t.record.ID, id[:]))
	}
}

// execHere reports whether a transaction can be answered by this copy.
func (s *Session) execHere(queued []engine.Queued) (here, reads bool) {
	reads = true
	toPrimary := false
	for _, q := range queued {
		if q.Row.Write != nil {
			reads = false
		}
		toPrimary = toPrimary || q.Row.ToPrimary()
	}
	t := s.tenant
	if t.feed != nil {
		return true, reads
	}
	return !toPrimary && t.Ready() && s.track.ReadHere(t.Engine.Position()), reads
}
