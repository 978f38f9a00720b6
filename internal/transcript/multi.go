package transcript

import (
	"fmt"
	"time"

	"vecino/resp"
)

// InMulti is a Player that puts each command into a transaction of its own on
// another player. Its name in exceptions is "multi".
func InMulti(p Player) Player { return multiPlayer{p} }

type multiPlayer struct{ p Player }

func (m multiPlayer) Do(conn string, argv []string) Answer {
	m.p.Do(conn, []string{"MULTI"})
	queued := m.p.Do(conn, argv)
	if queued.Kind == resp.KindError {
		m.p.Do(conn, []string{"DISCARD"})
		return queued
	}
	answer := m.p.Do(conn, []string{"EXEC"})
	if answer.Kind != resp.KindArray || len(answer.Elems) != 1 {
		return Answer{Value: resp.Value{Kind: resp.KindError, Str: fmt.Sprintf("EXEC gives %v", answer)}}
	}
	return Answer{Value: answer.Elems[0]}
}

func (m multiPlayer) Next(conn string) Answer { return m.p.Next(conn) }

func (m multiPlayer) Pass(d time.Duration) { m.p.Pass(d) }
