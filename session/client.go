package session

import (
	"time"

	"vecino/command"
	"vecino/engine"
	"vecino/resp"
)

// What follows makes a Session the command.Client of its commands. The lock
// of the database is held.

func (s *Session) ID() int64              { return s.id }
func (s *Session) Name() string           { return s.name }
func (s *Session) SetName(name string)    { s.name = name }
func (s *Session) Authenticated() bool    { return s.authed }
func (s *Session) Proto() int             { return s.out.Proto }
func (s *Session) DB() int                { return s.db }
func (s *Session) Select(db int)          { s.db = db }
func (s *Session) Server() command.Server { return s.tenant }

// Quit closes the connection once its replies have left. No message comes
// behind the last.
func (s *Session) Quit() {
	s.listener.Close()
	s.quit = true
}

// SetLibrary keeps what CLIENT SETINFO says.
func (s *Session) SetLibrary(attribute, value string) {
	if attribute == "lib-name" {
		s.libName = value
	} else {
		s.libVer = value
	}
}

// Authenticate checks a password and remembers that it was right.
func (s *Session) Authenticate(user, password []byte) bool {
	if !s.authenticate(user, password) {
		return false
	}
	s.authed = true
	s.parser.Unauthenticated = false
	return true
}

// SetProto changes the version of the protocol, from this reply on.
func (s *Session) SetProto(version int, out *resp.Writer) {
	out.Proto = version
	s.out.Proto = version
}

// Reset brings the connection back to how it began.
func (s *Session) Reset(out *resp.Writer) {
	s.multi, s.watches = nil, nil
	s.listener.Close()
	s.db, s.name, s.mute = 0, "", loud
	s.authed = s.tenant.record.Password == ""
	s.parser.Unauthenticated = !s.authed
	s.SetProto(2, out)
}

func (s *Session) Multi() error {
	if s.multi != nil {
		return command.ErrNestedMulti
	}
	s.multi = &transaction{}
	return nil
}

func (s *Session) Discard() error {
	if s.multi == nil {
		return command.ErrDiscardNoMulti
	}
	s.multi, s.watches = nil, nil
	return nil
}

// Watch notes the position at which keys were watched: EXEC fails if one was
// changed after it. On a replica that is what the copy shows or, where the
// connection has seen more, what the primary will show it.
func (s *Session) Watch(keys [][]byte) error {
	if s.multi != nil {
		return command.ErrWatchInMulti
	}
	t := s.tenant
	if p := t.Engine.Await(s); p != nil {
		s.loading = p
		return engine.ErrUnrun
	}
	if p := t.Engine.AwaitKeys(s, t.Now(), func(yield func(int, []byte) bool) {
		for _, key := range keys {
			if !yield(s.db, key) {
				return
			}
		}
	}); p != nil {
		s.loading = p
		return engine.ErrUnrun
	}
	since, covered := t.Engine.Position(), true
	if !since.Covers(s.track.W()) {
		since, covered = s.track.W(), false
	}
	for _, key := range keys {
		state := unknown
		switch {
		case !covered:
		case t.Engine.Keyspace().Has(s.db, key, t.Now()):
			state = present
		default:
			state = absent
		}
		s.watches = append(s.watches, watch{s.db, state, since, append([]byte(nil), key...)})
	}
	return nil
}

func (s *Session) Unwatch() { s.watches = nil }

// Exec runs what was queued as one transaction, here or at the primary.
func (s *Session) Exec(out *resp.Writer) error {
	multi := s.multi
	if multi == nil {
		return command.ErrExecNoMulti
	}
	err := s.exec(multi, out)
	if err != engine.ErrUnrun {
		s.multi, s.watches = nil, nil
	}
	return err
}

func (s *Session) exec(multi *transaction, out *resp.Writer) error {
	if multi.aborted {
		return command.ErrExecAbort
	}
	t := s.tenant
	here, reads := s.execHere(multi.queued)
	if !here {
		commands := make([][][]byte, len(multi.queued))
		for i, q := range multi.queued {
			if subscribes(q.Row) {
				return errSubscribeInMulti
			}
			commands[i] = q.Argv
		}
		if len(commands) > 0 {
			what := SentWrite
			if reads {
				what = SentRead
				t.counters.ForwardedReads++
			} else {
				t.counters.ForwardedWrites++
			}
			s.send(what, flagExec, t.Now(), commands...)
			s.reflect(multi.queued)
			return nil
		}
	}
	if s.loading = t.Engine.Await(s); s.loading != nil {
		return engine.ErrUnrun
	}
	if s.loading = t.awaitWatched(s, s.watches); s.loading != nil {
		return engine.ErrUnrun
	}
	for _, w := range s.watches {
		if t.changedSince(w) {
			out.NullArray()
			return nil
		}
	}
	s.inExec = true
	req := engine.Request{Client: s, Now: t.Now(), Out: out, Load: s}
	multiOf := s.multi
	s.multi = nil // commands may look
	s.loading = t.transact(&req, multi.queued, reads)
	s.inExec = false
	if s.loading != nil {
		s.multi = multiOf
		return engine.ErrUnrun
	}
	if t.feed == nil {
		t.counters.LocalReads++
	}
	return nil
}

// errSubscribeInMulti is what a replica answers to a transaction that has to
// be carried out at the primary and subscribes, which only the node of the
// connection can do.
var errSubscribeInMulti = command.Error("EXECABORT Transaction discarded because it subscribes and has to be carried out in the primary region")

func (s *Session) Subscribe(kind command.Channel, channels [][]byte, out *resp.Writer) {
	s.push(out, func(out *resp.Writer) { s.listener.Subscribe(kind, channels, out) })
}

func (s *Session) Unsubscribe(kind command.Channel, channels [][]byte, out *resp.Writer) {
	s.push(out, func(out *resp.Writer) { s.listener.Unsubscribe(kind, channels, out) })
}

// Publish is called on the primary only: elsewhere the command was forwarded.
func (s *Session) Publish(kind command.Channel, channel, message []byte) int {
	return s.tenant.publish(kind, channel, message)
}

// WaitReplicas is called on the primary only.
func (s *Session) WaitReplicas(replicas int, timeout time.Duration, out *resp.Writer) error {
	t := s.tenant
	pos := t.Engine.Position()
	if n := t.acknowledged(pos); n >= replicas || s.inExec {
		out.Int(int64(n))
		return nil
	}
	s.wait = t.waitReplicas(pos, replicas, timeout, func(n int) {
		w := resp.Writer{Proto: s.out.Proto}
		w.Int(int64(n))
		s.served(w.Buf)
	})
	return engine.ErrElsewhere
}

// Subscribed reports whether the connection listens to anything.
func (s *Session) Subscribed() bool { return s.listener.Subscribed() }
