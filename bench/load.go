package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"

	"vecino/loop"
)

// A load is commands sent over some connections, on each a pipeline of them,
// and the next when all of it is answered, as redis-benchmark does. Unlike
// that it can say a PROXY header first, so that the same client reaches a node
// with and without an edge in between. Every reply is checked.
type load struct {
	door     door
	conns    int
	pipeline int
	commands int      // in all
	command  []string // "KEY" in it stands for a random key
	reply    string   // the one reply it must have
}

// measured is what a load found.
type measured struct {
	rps   float64
	times []time.Duration // from a pipeline's first byte to its last reply, sorted
}

func (m *measured) at(q float64) float64 { return micros(quantile(m.times, q)) }

// run sends it all.
func (g load) run(ctx context.Context) (*measured, error) {
	l, err := loop.New(loop.Options{})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	batches := max(1, g.commands/g.pipeline/g.conns) // of each connection
	s := &sending{loop: l, want: bytes.Repeat([]byte(g.reply), g.pipeline), ended: make(chan error, g.conns)}
	s.times = make([]time.Duration, 0, batches*g.conns)
	fds, err := g.connect(ctx)
	if err != nil {
		return nil, err
	}
	running := make(chan error, 1)
	go func() { running <- l.Run(ctx) }()
	start := time.Now()
	for _, fd := range fds {
		caller := &caller{sending: s, left: batches}
		caller.request, caller.keys = g.request()
		l.Add(fd, caller, netip.AddrPort{})
	}
	for range fds {
		select {
		case failed := <-s.ended:
			err = errors.Join(err, failed)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	took := time.Since(start)
	l.Close()
	if err = errors.Join(err, <-running); err != nil {
		return nil, fmt.Errorf("load on %s: %w", g.door.addr, err)
	}
	return &measured{rps: float64(len(s.times)*g.pipeline) / took.Seconds(), times: s.times}, nil
}

// connect opens the connections, signed in.
func (g load) connect(ctx context.Context) (fds []int, err error) {
	defer func() {
		if err != nil {
			for _, fd := range fds {
				loop.CloseFD(fd)
			}
		}
	}()
	for range g.conns {
		c, err := g.door.open(ctx)
		if err != nil {
			return fds, err
		}
		fd, err := loop.DupFD(c.Conn)
		c.Close()
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// keyDigits is how a random key ends; every key is as long.
const keyDigits = 12

// request is a pipeline's bytes, and where the digits of its keys are.
func (g load) request() (request []byte, keys []int) {
	args := make([]string, len(g.command))
	for i, a := range g.command {
		if args[i] = a; a == "KEY" {
			args[i] = keyName(0)
		}
	}
	one := appendCommand(nil, args...)
	at := bytes.Index(one, []byte(keyName(0)))
	for i := range g.pipeline {
		if at >= 0 {
			keys = append(keys, i*len(one)+at+len(keyName(0))-keyDigits)
		}
		request = append(request, one...)
	}
	return request, keys
}

func keyName(n int) string { return fmt.Sprintf("key:%0*d", keyDigits, n) }

// sending is what the callers of a load share, on the loop's thread.
type sending struct {
	loop  *loop.Loop
	want  []byte // the replies of a pipeline
	times []time.Duration
	ended chan error // has room for one of each caller
}

// caller is one connection of a load.
type caller struct {
	*sending
	request []byte
	keys    []int
	left    int // pipelines
	got     int // bytes of the replies
	sent    time.Time
	err     error
}

// Opened sends the first pipeline.
func (c *caller) Opened(conn *loop.Conn) { c.send(conn) }

func (c *caller) send(conn *loop.Conn) {
	for _, at := range c.keys {
		digits := c.request[at : at+keyDigits]
		n := strconv.AppendInt(digits[:0:0], int64(rand.IntN(keyspace)), 10)
		clear0(digits)
		copy(digits[keyDigits-len(n):], n)
	}
	conn.Out = append(conn.Out, c.request...)
	conn.Flush()
	c.sent = time.Now()
	c.left--
}

// Data checks the replies, and sends the next when all are there.
func (c *caller) Data(conn *loop.Conn, in []byte) int {
	if len(in) > len(c.want)-c.got || !bytes.Equal(in, c.want[c.got:c.got+len(in)]) {
		c.err = fmt.Errorf("unexpected reply %.60q", in)
		conn.Close()
		return len(in)
	}
	if c.got += len(in); c.got == len(c.want) {
		c.got = 0
		c.times = append(c.times, time.Since(c.sent))
		if c.left > 0 {
			c.send(conn)
		} else {
			conn.Close()
		}
	}
	return len(in)
}

// Closed tells how it ended.
func (c *caller) Closed(_ *loop.Conn, err error) {
	if c.err == nil && err != nil {
		c.err = fmt.Errorf("connection lost: %w", err)
	}
	c.ended <- c.err
}

// clear0 writes zeros as digits.
func clear0(digits []byte) {
	for i := range digits {
		digits[i] = '0'
	}
}
