package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"vecino/region"
	"vecino/resp"
)

// The Free plan, as the fleet gives it out: 100 connections, requests of 1 MiB,
// keys of 32 KiB.

func TestAPlanBoundsRequestsAndKeysAlsoThroughAReplica(t *testing.T) {
	c := newCluster(t, "mad", "scl")
	db := c.create("mad", "scl")
	for _, r := range []region.Code{"mad", "scl"} {
		t.Run(string(r), func(t *testing.T) {
			cl := db.client(r)
			cl.t = t
			long := strings.Repeat("v", 5<<20)
			request := resp.AppendCommand(nil, "SET", "k", long)
			refused := fmt.Sprintf("(error) ERR max request size exceeded. Limit: 1048576 bytes, Actual: %d bytes. See docs/limits.md for details", len(request))
			if got := cl.do("SET", "k", long); got != refused {
				t.Errorf("answers %s, want %s", got, refused)
			}
			cl.want("(integer) 0", "EXISTS", "k")

			// In a pipeline each has its answer, and in its place.
			go cl.conn.Write(append(append(resp.AppendCommand(nil, "SET", "n", "1"), request...), resp.AppendCommand(nil, "INCR", "n")...))
			for _, want := range []string{"OK", refused, "(integer) 2"} {
				if got := cl.receive(); got != want {
					t.Errorf("in a pipeline: %s, want %s", got, want)
				}
			}

			cl.want("OK", "MULTI")
			cl.want("QUEUED", "SET", "a", "1")
			if got := cl.do("SET", "k", long); !strings.HasPrefix(got, "(error) ERR max request size exceeded.") {
				t.Errorf("in a transaction: %s", got)
			}
			cl.want("(error) EXECABORT Transaction discarded because of previous errors.", "EXEC")

			key := strings.Repeat("k", 32<<10)
			cl.want("OK", "SET", key, "v")
			cl.want("(error) ERR max key size exceeded. Limit: 32768 bytes, Actual: 32769 bytes", "SET", key+"k", "v")
			cl.want("(integer) 1", "DEL", key)
		})
	}
}

func TestOneConnectionTooManyHearsWhyAndIsClosed(t *testing.T) {
	c := newCluster(t, "mad")
	db := c.create("mad")
	var open []net.Conn
	for range 100 { // some have said nothing yet
		conn, err := db.greet("mad")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		open = append(open, conn)
	}
	connected := func(n int) func() error {
		return func() error {
			p := c.nodes["mad"].find(db.id)
			var have int
			p.shard.do(func() { have = p.Connections() })
			if have != n {
				return fmt.Errorf("%d connections, want %d", have, n)
			}
			return nil
		}
	}
	c.eventually("all connected", connected(100))
	conn, err := db.greet("mad")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if got, err := io.ReadAll(conn); string(got) != "-ERR max concurrent connections exceeded\r\n" || err != nil {
		t.Errorf("one too many gets %q (%v)", got, err)
	}
	open[0].Close()
	c.eventually("one is gone", connected(99))
	db.client("mad").want("PONG", "PING")

	c.eventually("the fleet hears of them", func() error {
		d, err := c.api.Database(context.Background(), db.id)
		if err == nil && (len(d.Status) != 1 || d.Status[0].Connections != 100) {
			err = fmt.Errorf("status %+v", d.Status)
		}
		return err
	})
}

func TestAFloodOverTheRateLeavesANeighbourAlone(t *testing.T) {
	c := newCluster(t, "mad")
	slow := c.place("mad")
	slow.record.Limits.CommandsPerS = 50
	slow.record.Revision++
	slow.publish()
	neighbour := c.place("mad")
	flood := slow.client("mad")
	var pings []byte
	for range 20 {
		pings = resp.AppendCommand(pings, "PING")
	}
	if _, err := flood.conn.Write(pings); err != nil {
		t.Fatal(err)
	}
	neighbour.client("mad").want("PONG", "PING")
	for range 20 {
		if got := flood.receive(); got != "PONG" {
			t.Fatalf("over the rate a command answers %s", got)
		}
	}
	p := c.nodes["mad"].find(slow.id)
	p.shard.do(func() {
		if p.Delayed() == 0 {
			t.Error("nothing was delayed")
		}
	})
}

func TestStandaloneHasTheLimitsItIsGiven(t *testing.T) {
	cfg := Config{Standalone: true, ID: "standalone", State: t.TempDir(), Proxy: "127.0.0.1:0", SegmentBytes: 1 << 20}
	cfg.Limits.Connections, cfg.Limits.RequestBytes = 1, 1000
	n, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	dial := func() *client {
		conn, err := net.Dial("tcp", n.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return &client{t, conn, resp.NewReader(conn)}
	}
	first := dial()
	first.want("PONG", "PING")
	if got := dial().receive(); got != "(error) ERR max concurrent connections exceeded" {
		t.Errorf("the second connection gets %s", got)
	}
	first.want("(error) ERR max request size exceeded. Limit: 1000 bytes, Actual: 2029 bytes. See docs/limits.md for details", "SET", "k", strings.Repeat("v", 2000))
	first.want("OK", "SET", strings.Repeat("k", 900), "v")
}
