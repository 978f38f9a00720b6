package session

import (
	"net/netip"
	"time"

	"vecino/loop"
)

// Clock is the time by which a tenant lives: its loop's, or a simulator's.
type Clock interface {
	Now() time.Time
	NowMS() int64
	// After calls fn once, on the goroutine that runs the tenant.
	After(d time.Duration, fn func()) Timer
}

// Timer is one call that Clock.After will make.
type Timer interface {
	// Stop prevents the call and reports whether it was still to come.
	Stop() bool
}

// Conn is a client's connection as its session uses it: one on a loop, or a
// simulated one. loop.Conn says what the methods mean.
type Conn interface {
	// Send queues b, which it copies, for the client. It is for what comes
	// outside of Take.
	Send(b []byte)
	// Queued is how many bytes are queued, those included that have left in
	// part. Replace drops what is queued behind the first from and queues b.
	Queued() int
	Replace(from int, b []byte)
	Cork()
	Uncork()
	Expect(n int)
	Pause()
	Hold()
	Resume()
	Owe(replies bool)
	Close()
	CloseAfterFlush()
	Peer() netip.AddrPort
	Local() netip.AddrPort
}

// loopClock is an owner on a loop as a Clock.
type loopClock struct{ *loop.Owner }

func (c loopClock) After(d time.Duration, fn func()) Timer { return c.Owner.After(d, fn) }

// turns is a connection whose tenant shares a thread with others.
type turns interface {
	TurnOver() bool
	Again()
}

// loopConn is a connection on a loop.
type loopConn struct{ *loop.Conn }

func (c loopConn) Queued() int { return len(c.Out) }

func (c loopConn) Replace(from int, b []byte) {
	c.Prepare()
	c.Out = append(c.Out[:min(from, len(c.Out))], b...)
	c.Flush()
}

func (c loopConn) Send(b []byte) {
	c.Prepare()
	c.Out = append(c.Out, b...)
	c.Flush()
}
