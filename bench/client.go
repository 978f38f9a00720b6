package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"vecino/privnet"
	"vecino/proxyproto"
	"vecino/resp"
)

// client is one connection that does one thing after the other.
type client struct {
	net.Conn
	replies *resp.Reader
	out     []byte
}

// patience is how long a client waits for one reply.
const patience = 10 * time.Second

func dial(ctx context.Context, addr string) (*client, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{Conn: c, replies: resp.NewReader(c)}, nil
}

// dialFrom is dial from one of many loopback addresses, chosen by a number.
func dialFrom(ctx context.Context, i int, addr string) (*client, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+i/200%50), byte(1+i%200))}}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{Conn: c, replies: resp.NewReader(c)}, nil
}

// a door is a way to a database.
type door struct {
	addr     string
	database netip.Addr // if the address is a node's: what to put into a PROXY header
	password string
}

// open dials a database, and signs in if it has a password.
func (d door) open(ctx context.Context) (*client, error) {
	c, err := dial(ctx, d.addr)
	if err != nil {
		return nil, err
	}
	if d.database.IsValid() {
		_, err = c.Write(d.header())
	}
	if err == nil && d.password != "" {
		_, err = c.do("AUTH", d.password)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("connect to %s: %w", d.addr, err)
	}
	return c, nil
}

// header is what an edge would say of a machine on the database's network.
func (d door) header() []byte {
	a, _ := privnet.Parse(d.database)
	machine := privnet.Machine(a.Network, 1<<31, 1)
	return proxyproto.AppendV1(nil, netip.AddrPortFrom(machine, 40_000), netip.AddrPortFrom(d.database, privnet.RedisPort))
}

// do sends a command and waits for its reply. An error reply is an error.
func (c *client) do(args ...string) (resp.Value, error) { return c.within(patience, args...) }

// slowly is do with a lot of patience.
func (c *client) slowly(args ...string) (resp.Value, error) { return c.within(12*patience, args...) }

func (c *client) within(d time.Duration, args ...string) (resp.Value, error) {
	c.out = appendCommand(c.out[:0], args...)
	c.SetDeadline(time.Now().Add(d))
	if _, err := c.Write(c.out); err != nil {
		return resp.Value{}, fmt.Errorf("%s: %w", args[0], err)
	}
	v, err := c.replies.Read()
	if err == nil {
		err = v.Err()
	}
	if err != nil {
		return v, fmt.Errorf("%s: %w", args[0], err)
	}
	return v, nil
}

// discard sends a command that is answered with an array of strings, and counts
// the bytes of its reply without keeping them.
func (c *client) discard(args ...string) (n int64, err error) {
	c.out = appendCommand(c.out[:0], args...)
	c.SetDeadline(time.Now().Add(12 * patience))
	if _, err := c.Write(c.out); err != nil {
		return 0, err
	}
	in := bufio.NewReaderSize(c.Conn, 256<<10)
	header := func(kind byte) (int, error) {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		n += int64(len(line))
		if line[0] != kind {
			return 0, fmt.Errorf("%s: unexpected reply %.60q", args[0], line)
		}
		return strconv.Atoi(string(bytes.TrimRight(line[1:], "\r\n")))
	}
	elements, err := header('*')
	if err != nil {
		return n, err
	}
	for range elements {
		size, err := header('$')
		if err != nil {
			return n, err
		}
		if _, err := in.Discard(size + 2); err != nil {
			return n, err
		}
		n += int64(size + 2)
	}
	return n, nil
}

// pipeline sends n commands, a few hundred at a time.
func (c *client) pipeline(n int, command func(i int) []string) error {
	const together = 200
	for from := 0; from < n; from += together {
		to := min(n, from+together)
		c.out = c.out[:0]
		for i := from; i < to; i++ {
			c.out = appendCommand(c.out, command(i)...)
		}
		c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write(c.out); err != nil {
			return err
		}
		for range to - from {
			v, err := c.replies.Read()
			if err == nil {
				err = v.Err()
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// appendCommand appends a command as clients send it.
func appendCommand(dst []byte, args ...string) []byte {
	dst = append(dst, '*')
	dst = strconv.AppendInt(dst, int64(len(args)), 10)
	for _, a := range args {
		dst = append(dst, "\r\n$"...)
		dst = strconv.AppendInt(dst, int64(len(a)), 10)
		dst = append(dst, "\r\n"...)
		dst = append(dst, a...)
	}
	return append(dst, "\r\n"...)
}

func appendInt(dst []byte, n int) []byte { return strconv.AppendInt(dst, int64(n), 10) }

// infoFields takes a reply of INFO apart.
func infoFields(text string) map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields
}
