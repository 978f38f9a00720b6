// Benchserver measures loop and resp alone: GET, SET, INCR and PING over a Go
// map, to be compared with redis-server by redis-benchmark.
//
//	go run ./loop/internal/benchserver -addr 127.0.0.1:7400
package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"runtime/pprof"
	"strconv"
	"syscall"

	"vecino/loop"
	"vecino/resp"
)

// A server is one database on one loop, so it has no lock.
type server struct {
	keys map[string][]byte
}

// client is what a connection keeps.
type client struct {
	parser resp.Parser
	argv   [][]byte
}

func (s *server) Opened(c *loop.Conn) { c.Data = &client{} }

func (s *server) Closed(*loop.Conn, error) {}

func (s *server) Data(c *loop.Conn, in []byte) (used int) {
	client := c.Data.(*client)
	w := resp.Writer{Buf: c.Out}
	for used < len(in) {
		argv, n, err := client.parser.Next(in[used:], client.argv)
		client.argv = argv
		if err != nil {
			w.Error(err.Error())
			c.CloseAfterFlush()
			break
		}
		if n == 0 {
			c.Expect(client.parser.Need())
			break
		}
		used += n
		if len(argv) > 0 {
			s.run(argv, &w)
		}
	}
	c.Out = w.Buf
	return used
}

func (s *server) run(argv [][]byte, w *resp.Writer) {
	for i, c := range argv[0] { // a client's buffer is the handler's to change until it returns
		if 'a' <= c && c <= 'z' {
			argv[0][i] = c - 'a' + 'A'
		}
	}
	switch name := string(argv[0]); {
	case name == "GET" && len(argv) == 2:
		if value, ok := s.keys[string(argv[1])]; ok {
			w.Bulk(value)
		} else {
			w.Null()
		}
	case name == "SET" && len(argv) == 3:
		value := s.keys[string(argv[1])]
		if value == nil || cap(value) < len(argv[2]) {
			s.keys[string(argv[1])] = append([]byte{}, argv[2]...)
		} else {
			s.keys[string(argv[1])] = append(value[:0], argv[2]...)
		}
		w.OK()
	case name == "INCR" && len(argv) == 2:
		n, _ := resp.ParseInt(s.keys[string(argv[1])])
		n++
		s.keys[string(argv[1])] = strconv.AppendInt(nil, n, 10)
		w.Int(n)
	case name == "PING":
		w.Simple("PONG")
	default:
		w.Error("ERR unknown command")
	}
}

func main() {
	addr := flag.String("addr", "127.0.0.1:7400", "where to listen")
	profile := flag.String("cpuprofile", "", "write a CPU profile to this file")
	owned := flag.Bool("owned", true, "give the connections to an owner, as a database's are")
	flag.Parse()
	if err := run(*addr, *profile, *owned); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(addr, profile string, owned bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := loop.New(loop.Options{})
	if err != nil {
		return err
	}
	s := &server{keys: map[string][]byte{}}
	owner := l.NewOwner(nil)
	if _, err := l.Listen(addr, func(fd int, peer netip.AddrPort) {
		c, err := l.Adopt(fd, s, peer)
		if err != nil {
			loop.CloseFD(fd)
		} else if owned {
			c.SetOwner(owner)
		}
	}); err != nil {
		return err
	}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	return l.Run(ctx)
}
