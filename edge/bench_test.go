package edge

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"testing"

	"vecino/api"
	"vecino/privnet"
	"vecino/proxyproto"
	"vecino/region"
)

// BenchmarkHop shows what the relay adds to a round trip: one client that sends
// so many commands at once, and a node that answers each, directly and through
// an edge. Both ends and the relay share this process, so the difference is the
// hop's time on an idle machine, and its CPU on a busy one.
func BenchmarkHop(b *testing.B) {
	for _, size := range []struct {
		name     string
		commands int
	}{{"pipeline 1", 1}, {"pipeline 16", 16}} {
		b.Run(size.name+"/direct", func(b *testing.B) {
			ping(b, pongs(b, false), size.commands)
		})
		b.Run(size.name+"/edge", func(b *testing.B) {
			p := newPlatform()
			e, err := Open(Config{ID: "scl-edge", Region: "scl", Platform: p, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			address := privnet.Mint(7, 2)
			p.events <- api.RouteEvent{Revision: 1, Route: &api.Route{
				Address:  address,
				Serving:  []api.Serving{{Region: "scl", Node: "scl-1", Proxy: pongs(b, true)}},
				Loopback: map[region.Code]string{"scl": "127.0.0.1:0"},
			}}
			for (<-p.reports).Applied < 1 {
			}
			ping(b, e.loopback.Addr(address).String(), size.commands)
		})
	}
}

const pingCommand, pong = "*1\r\n$4\r\nPING\r\n", "+PONG\r\n"

// pongs answers as many PINGs as come, with or without a header in front.
func pongs(b *testing.B, header bool) (address string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		buf, have := make([]byte, 64<<10), 0
		answers := bytes.Repeat([]byte(pong), len(buf)/len(pingCommand))
		for {
			n, err := conn.Read(buf[have:])
			if err != nil {
				return
			}
			have += n
			if header {
				_, n, err := proxyproto.Parse(buf[:have])
				if err != nil {
					return
				}
				if n == 0 {
					continue
				}
				header, have = false, copy(buf, buf[n:have])
			}
			commands := have / len(pingCommand)
			have %= len(pingCommand)
			conn.Write(answers[:commands*len(pong)])
		}
	}()
	return listener.Addr().String()
}

func ping(b *testing.B, address string, commands int) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	request := bytes.Repeat([]byte(pingCommand), commands)
	reply := make([]byte, commands*len(pong))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, reply); err != nil {
			b.Fatal(err)
		}
	}
}
