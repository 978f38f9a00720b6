package loop

import (
	"io"
	"testing"
)

// What is corked leaves when it is uncorked, all in order, and no input is
// offered meanwhile.
func TestCorkKeepsRepliesUntilUncork(t *testing.T) {
	corked := make(map[*Conn]string)
	l := startLoop(t, Options{BeforeFlush: func(*Loop) {
		for c := range corked {
			c.Cork()
		}
	}})
	var c *Conn
	conn := connect(t, l, &funcs{opened: func(opened *Conn) { c = opened }, data: lines(func(c *Conn, line []byte) {
		c.Out = append(c.Out, line...)
		if string(line) == "write\n" {
			corked[c] += string(line)
		}
	})})
	other := connect(t, l, echo)
	send(t, conn, "read\nwrite\nread\n")
	until(t, l, func() bool { return corked[c] != "" })
	send(t, conn, "late\n")
	send(t, other, "one\n")
	expect(t, other, "one\n")
	do(t, l, func() {
		if got := string(c.Out[c.sent:]); got != "read\nwrite\nread\n" {
			t.Errorf("%q is corked", got)
		}
		delete(corked, c)
		c.Uncork()
	})
	expect(t, conn, "read\nwrite\nread\nlate\n")
}

// A connection that is to be closed when all is sent waits for its cork, and a
// peer that has finished sending still gets its replies.
func TestCorkOutlastsTheEndOfInput(t *testing.T) {
	var c *Conn
	corked := false
	l := startLoop(t, Options{})
	conn := connect(t, l, &funcs{opened: func(opened *Conn) { c = opened }, data: lines(func(c *Conn, line []byte) {
		c.Out = append(c.Out, line...)
		if string(line) == "last\n" {
			c.CloseAfterFlush()
		}
		c.Cork()
		corked = true
	})})
	send(t, conn, "first\nlast\n")
	conn.CloseWrite()
	until(t, l, func() bool { return corked })
	do(t, l, func() {
		if c.Closed() {
			t.Error("closed before its replies have left")
		}
		c.Uncork()
	})
	expect(t, conn, "first\nlast\n")
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("then %v", err)
	}
}
