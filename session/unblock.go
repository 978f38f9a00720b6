package session

import (
	"encoding/binary"

	"vecino/command"
	"vecino/link"
	"vecino/resp"
)

// unblocking is CLIENT UNBLOCK on its way to where the command waits. On a replica
// that is the primary, and the answer to CLIENT UNBLOCK is what the replica knows: that
// the command has been sent and not answered. Its frame:
//
//	session 8 | request 4 | failing 1
type unblocking struct {
	session uint64
	req     uint32
	failing bool
}

const unblockingBytes = 13

func (u *unblocking) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, u.session)
	dst = binary.LittleEndian.AppendUint32(dst, u.req)
	if u.failing {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func parseUnblocking(b []byte) (u unblocking, err error) {
	if len(b) != unblockingBytes {
		return u, errForward
	}
	return unblocking{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:]), b[12] != 0}, nil
}

// Unblock ends the wait of a connection to this node; see command.Server.
func (t *Tenant) Unblock(id int64, failing bool) bool {
	s := t.sessions[id]
	switch {
	case s == nil:
		return false
	case s.parked != nil:
		if failing {
			s.served(errorReply(command.ErrUnblocked))
		} else {
			s.timeUp()
		}
		return true
	}
	req, ok := s.track.Blocked()
	if !ok {
		return false
	}
	for i := range s.unsent {
		if o := &s.unsent[i]; o.req == req {
			o.end = &unblocking{s.number, req, failing}
			s.transmitEnd(o)
		}
	}
	return true
}

// blocked reports whether the connection waits for something to happen.
func (s *Session) blocked() bool {
	_, elsewhere := s.track.Blocked()
	return s.parked != nil || elsewhere
}

// transmitEnd has the primary end the wait of a request that was sent to it.
func (s *Session) transmitEnd(o *outgoing) {
	if t := s.tenant; o.end != nil {
		t.Host.Send(t.follower.Primary(), link.Live, frame(unblock, t.record.ID, o.end.append(nil)))
	}
}

// timeUp answers as if the time of what the connection waits for were up.
func (s *Session) timeUp() {
	switch t := s.tenant; {
	case s.wait != nil:
		t.endWait(s.wait)
	case s.waitDisk != nil:
		t.endDurable(s.waitDisk)
	default:
		out := resp.Writer{Proto: s.out.Proto}
		s.parked.TimedOut(&out)
		s.served(out.Buf)
	}
}

// unblocked takes an unblocking from a node.
func (t *Tenant) unblocked(node string, payload []byte) error {
	u, err := parseUnblocking(payload)
	if err != nil {
		return err
	}
	if rm := t.remotes[remoteID{node, u.session}]; rm != nil {
		rm.unblock(u)
	}
	return nil
}

// unblock ends the wait of a request. If it hasn't been begun, or waits for what isn't in
// memory, its wait will end when it begins.
func (rm *remote) unblock(u unblocking) {
	if rm.parked == nil || rm.unrun != nil || rm.last != u.req {
		rm.end = &u
		return
	}
	rm.end = nil
	if u.failing {
		rm.Served(errorReply(command.ErrUnblocked))
	} else {
		rm.timeUp()
	}
}

// timeUp answers as if the time of what the request waits for were up.
func (rm *remote) timeUp() {
	switch t := rm.tenant; {
	case rm.wait != nil:
		t.endWait(rm.wait)
	case rm.waitDisk != nil:
		t.endDurable(rm.waitDisk)
	default:
		out := resp.Writer{Proto: rm.proto}
		rm.parked.TimedOut(&out)
		rm.Served(out.Buf)
	}
}
