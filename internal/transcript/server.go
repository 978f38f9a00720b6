package transcript

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vecino/resp"
)

// patience is how long a server may take to answer before a test gives up. It
// is no measure of anything.
const patience = 20 * time.Second

// Client is a Player that talks to servers over the network.
type Client struct {
	// Dial opens the connection of that name.
	Dial func(conn string) (net.Conn, error)
	// Waiting reports whether the server has found that the command last
	// sent on a connection has to wait. It is asked for commands that may.
	Waiting func(c net.Conn) bool
	// Sleep lets time go by at the server.
	Sleep func(d time.Duration)

	t     *testing.T
	conns map[string]*clientConn
}

type clientConn struct {
	net.Conn
	replies chan Answer
}

// NewClient makes a Client without hooks. It closes its connections when the
// test ends.
func NewClient(t *testing.T, dial func(conn string) (net.Conn, error)) *Client {
	c := &Client{Dial: dial, t: t, conns: map[string]*clientConn{}}
	t.Cleanup(c.close)
	return c
}

func (c *Client) close() {
	for _, conn := range c.conns {
		conn.Close()
		for range conn.replies {
		}
	}
}

// Do sends a command and waits for its answer.
func (c *Client) Do(name string, argv []string) Answer {
	conn := c.conn(name)
	if _, err := conn.Write(resp.AppendCommand(nil, argv...)); err != nil {
		return Answer{Closed: true}
	}
	return conn.next(c, mayWait(argv[0]))
}

// Next waits for what comes next on a connection.
func (c *Client) Next(name string) Answer { return c.conn(name).next(c, false) }

// Pass lets time go by.
func (c *Client) Pass(d time.Duration) { c.Sleep(d) }

// mayWait tells the blocking commands by their names.
func mayWait(name string) bool {
	name = strings.ToUpper(name)
	return strings.HasPrefix(name, "BL") || strings.HasPrefix(name, "BR") || strings.HasPrefix(name, "BZ") || name == "WAIT"
}

func (c *Client) conn(name string) *clientConn {
	if conn := c.conns[name]; conn != nil {
		return conn
	}
	raw, err := c.Dial(name)
	if err != nil {
		c.t.Fatalf("connection %q: %v", name, err)
	}
	conn := &clientConn{raw, make(chan Answer, 1024)}
	c.conns[name] = conn
	go conn.read()
	return conn
}

// read hands over what comes until the connection ends.
func (c *clientConn) read() {
	defer close(c.replies)
	r := resp.NewReader(c.Conn)
	for {
		v, err := r.Read()
		if err != nil {
			return
		}
		c.replies <- Answer{Value: v}
	}
}

func (c *clientConn) next(p *Client, mayWait bool) Answer {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for mayWait && p.Waiting != nil {
		select {
		case a, ok := <-c.replies:
			return orClosed(a, ok)
		default:
		}
		if p.Waiting(c.Conn) {
			return Answer{Waits: true}
		}
		select {
		case <-timeout.C:
			return Answer{Value: resp.Value{Kind: resp.KindError, Str: "the server neither answers nor waits"}}
		default:
		}
	}
	select {
	case a, ok := <-c.replies:
		return orClosed(a, ok)
	case <-timeout.C:
		return Answer{Value: resp.Value{Kind: resp.KindError, Str: fmt.Sprintf("no answer within %v", patience)}}
	}
}

func orClosed(a Answer, ok bool) Answer {
	if !ok {
		return Answer{Closed: true}
	}
	return a
}

// Redis is a redis-server that a test has started.
type Redis struct {
	Addr    string
	control *Client
}

// StartRedis starts a redis-server that keeps nothing on disk, and ends it
// with the test. Where the program isn't installed the test is skipped.
func StartRedis(t *testing.T, args ...string) *Redis {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed: nothing to compare with")
	}
	dir := t.TempDir()
	port := freePort(t)
	log := filepath.Join(dir, "log")
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, append([]string{
		"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir, "--logfile", log,
		"--save", "", "--appendonly", "no", "--enable-debug-command", "yes", "--daemonize", "no",
	}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatalf("start redis-server: %v", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		cancel()
		<-exited
	})
	r := &Redis{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	ready := time.Now().Add(patience)
	for {
		conn, err := net.Dial("tcp", r.Addr)
		if err == nil {
			conn.Close()
			break
		}
		select {
		case err := <-exited:
			exited <- err
			text, _ := os.ReadFile(log)
			t.Fatalf("redis-server has ended: %v\n%s", err, text)
		default:
		}
		if time.Now().After(ready) {
			t.Fatalf("redis-server doesn't listen: %v", err)
		}
	}
	r.control = NewClient(t, r.dial)
	return r
}

func (r *Redis) dial(string) (net.Conn, error) { return net.Dial("tcp", r.Addr) }

// Do sends a command on a connection that no script uses. Scripts may have
// closed it all the same.
func (r *Redis) Do(argv ...string) resp.Value {
	answer := r.control.Do("", argv)
	if answer.Closed {
		r.control.close()
		clear(r.control.conns)
		answer = r.control.Do("", argv)
	}
	if answer.Closed {
		r.control.t.Fatalf("%q: the server has closed the connection twice", argv)
	}
	return answer.Value
}

// Player returns a player on the emptied server. Players of one server can't
// be used at the same time.
func (r *Redis) Player(t *testing.T) Player {
	for _, argv := range [][]string{
		{"CONFIG", "SET", "requirepass", ""}, {"FLUSHALL"}, {"CONFIG", "RESETSTAT"}, {"CLIENT", "KILL", "TYPE", "normal"}, {"CLIENT", "KILL", "TYPE", "pubsub"},
	} {
		if v := r.Do(argv...); v.Err() != nil {
			t.Fatalf("%q: %v", argv, v.Err())
		}
	}
	c := NewClient(t, r.dial)
	c.Waiting = r.waiting
	// The server's clock can't be set, so the server waits.
	c.Sleep = func(d time.Duration) { r.Do("DEBUG", "SLEEP", strconv.FormatFloat(d.Seconds(), 'f', 4, 64)) }
	return redisPlayer{c, r}
}

type redisPlayer struct {
	*Client
	redis *Redis
}

func (p redisPlayer) Password(word string) { p.redis.Do("CONFIG", "SET", "requirepass", word) }

// waiting looks for the flag of a blocked client in the server's list.
func (r *Redis) waiting(c net.Conn) bool {
	for _, line := range strings.Split(r.Do("CLIENT", "LIST").Str, "\n") {
		if strings.Contains(line, " addr="+c.LocalAddr().String()+" ") {
			_, flags, _ := strings.Cut(line, " flags=")
			flags, _, _ = strings.Cut(flags, " ")
			return strings.Contains(flags, "b")
		}
	}
	return false
}

// freePort finds a port that nobody listens on. Somebody might take it before
// it is used; then the test fails and says so.
func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
