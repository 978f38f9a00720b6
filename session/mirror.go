package session

import (
	"vecino/command"
	"vecino/engine"
	"vecino/resp"
)

// A mirror is what a transaction that is carried out at the primary does to
// the connection here: SELECT, and what CLIENT sets. Whether it does is known
// when EXEC has been answered, as a watched key may have been changed. What
// follows the EXEC waits until then.
type mirror struct {
	req    uint32
	queued []engine.Queued
}

// reflect keeps what the transaction that was just sent is to do here.
func (s *Session) reflect(queued []engine.Queued) {
	var m *mirror
	for _, q := range queued {
		if !mirrors(q.Row) {
			continue
		}
		if m == nil {
			m = &mirror{req: s.unsent[len(s.unsent)-1].req}
		}
		m.queued = append(m.queued, q)
	}
	s.mirror = m
}

// mirrors reports whether a command changes its connection, and nothing else.
func mirrors(row *command.Row) bool {
	switch row.FullName() {
	case "select", "client|setname", "client|setinfo":
		return true
	}
	return false
}

// mirrored does here what the transaction did that was answered with body.
// Each command fails here as it failed there.
func (s *Session) mirrored(body []byte) {
	m := s.mirror
	s.mirror = nil
	if len(body) < 2 || body[0] != '*' || body[1] == '-' {
		return // it was aborted
	}
	nowhere := resp.Writer{Proto: s.out.Proto}
	req := engine.Request{Client: s, Now: s.tenant.Now(), Out: &nowhere}
	for _, q := range m.queued {
		nowhere.Buf = nowhere.Buf[:0]
		req.Row, req.Argv = q.Row, q.Argv
		s.tenant.Engine.Run(&req)
	}
}
