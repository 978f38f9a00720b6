package session

import (
	"vecino/command"
	"vecino/resp"
)

// muting is what CLIENT REPLY has set: which replies the client doesn't want.
// Messages that it subscribed to come all the same, and what SUBSCRIBE says.
//
//	        OFF                        ON, RESET
//	loud ----------> off ------------------------------> loud
//	     \  SKIP                next command       its reply
//	      +----------> skipNext -----------> skipping ----> loud
type muting uint8

const (
	loud muting = iota
	off
	skipNext
	skipping
)

// muted reports whether the reply of the command that runs, or waits, is unwanted.
func (s *Session) muted() bool { return s.mute == off || s.mute == skipping }

var errReplyInExec = command.Error("ERR CLIENT REPLY OFF and SKIP are not possible in a transaction, whose reply would miss an element")

// SetReplies says which replies are wanted.
func (s *Session) SetReplies(r command.Replies) error {
	switch {
	case r == command.RepliesOn:
		s.mute = loud
	case s.inExec:
		return errReplyInExec
	case r == command.RepliesOff:
		s.mute = off
	case s.mute != off:
		s.mute = skipNext
	}
	return nil
}

// quietly is command for a connection that doesn't want its reply. Whether it does is
// seen when the command has run: CLIENT REPLY ON is answered.
func (s *Session) quietly(argv [][]byte, size int, now int64) bool {
	if s.mute == skipNext {
		s.mute = skipping
	}
	mark := len(s.out.Buf)
	s.hushed = true
	done := s.command(argv, size, now)
	s.hushed = false
	if done && s.muted() {
		s.out.Buf = s.out.Buf[:mark]
	}
	s.out.Buf = append(s.out.Buf, s.pushed...)
	s.pushed = nil
	if done && s.parked == nil {
		s.spoken()
	}
	return done
}

// spoken says that a command has been answered, or would have been.
func (s *Session) spoken() {
	if s.mute == skipping {
		s.mute = loud
	}
}

// push has write write what is no reply: it is wanted in any case.
func (s *Session) push(out *resp.Writer, write func(out *resp.Writer)) {
	if !s.hushed {
		write(out)
		return
	}
	w := resp.Writer{Buf: s.pushed, Proto: out.Proto}
	write(&w)
	s.pushed = w.Buf
}
