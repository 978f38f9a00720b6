package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// filling is how a database is filled: many commands, whose replies are one
// line each and no errors, over a few connections.
type filling struct {
	door    door
	n       int // commands
	command func(dst []byte, i int) []byte
}

const (
	fillConns    = 4
	fillTogether = 500
	fillPatience = 2 * time.Minute // for the replies of one batch
)

// run fills.
func (f filling) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make([]error, fillConns)
	var all sync.WaitGroup
	for part := range fillConns {
		all.Go(func() {
			if failed[part] = f.fill(ctx, f.n*part/fillConns, f.n*(part+1)/fillConns); failed[part] != nil {
				cancel()
			}
		})
	}
	all.Wait()
	return errors.Join(failed...)
}

// fill sends some of it over one connection.
func (f filling) fill(ctx context.Context, from, to int) error {
	c, err := f.door.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Conn.Close() })()
	buf := make([]byte, 64<<10)
	for from < to {
		until := min(to, from+fillTogether)
		c.out = c.out[:0]
		for i := from; i < until; i++ {
			c.out = f.command(c.out, i)
		}
		c.SetDeadline(time.Now().Add(fillPatience))
		// Commands may be large, so the replies to the first are read before the last are sent.
		sent := make(chan error, 1)
		go func() {
			_, err := c.Write(c.out)
			sent <- err
		}()
		for want := until - from; want > 0; {
			n, err := c.Read(buf)
			if err != nil {
				return fmt.Errorf("fill %s: %w", f.door.addr, err)
			}
			if at := bytes.IndexByte(buf[:n], '-'); at >= 0 {
				return fmt.Errorf("fill %s: the server said %.100q", f.door.addr, buf[at:n])
			}
			want -= bytes.Count(buf[:n], []byte{'\n'})
		}
		if err := <-sent; err != nil {
			return fmt.Errorf("fill %s: %w", f.door.addr, err)
		}
		from = until
	}
	return nil
}

// Keys of 16 bytes and values of any size, which are how most of the sections
// fill a database. Every value is another, so nothing can be shared.

const shortValue = 32

// appendKey appends the 16 bytes of a key.
func appendKey(dst []byte, i int) []byte {
	dst = append(dst, "key:000000000000"...)
	for at := len(dst) - 1; i > 0; at-- {
		dst[at] = byte('0' + i%10)
		i /= 10
	}
	return dst
}

// appendValue appends a value of a key.
func appendValue(dst []byte, i, size int) []byte {
	x := uint64(i)*0x9e3779b97f4a7c15 + 1
	for ; size > 0; size-- {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		dst = append(dst, 'a'+byte(x>>33)%26)
	}
	return dst
}

// appendSet appends SET of a key to its value.
func appendSet(dst []byte, i, size int) []byte {
	dst = append(dst, "*3\r\n$3\r\nSET\r\n$16\r\n"...)
	dst = appendKey(dst, i)
	dst = append(dst, "\r\n$"...)
	dst = appendInt(dst, size)
	dst = append(dst, "\r\n"...)
	dst = appendValue(dst, i, size)
	return append(dst, "\r\n"...)
}

// appendGet appends GET of a key.
func appendGet(dst []byte, i int) []byte {
	dst = append(dst, "*2\r\n$3\r\nGET\r\n$16\r\n"...)
	dst = appendKey(dst, i)
	return append(dst, "\r\n"...)
}

// fillStrings fills with n keys of 16 bytes.
func fillStrings(to door, n, size int) filling {
	return filling{door: to, n: n, command: func(dst []byte, i int) []byte { return appendSet(dst, i, size) }}
}
