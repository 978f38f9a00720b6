package link

import (
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"

	"vecino/catalog"
)

// counter is a handler for benchmarks: it counts, and answers frames of kind 1.
type counter struct {
	up     chan struct{}
	hub    *Hub
	frames atomic.Int64
	answer chan struct{}
}

func (c *counter) LinkUp(string, uint64)  { c.up <- struct{}{} }
func (c *counter) LinkDown(string, error) {}
func (c *counter) Frame(node string, lane Lane, f Frame) {
	switch f.Kind {
	case 1:
		c.hub.Send(node, lane, Frame{Kind: 2, DB: f.DB, Payload: f.Payload})
	case 2:
		c.answer <- struct{}{}
	default:
		c.frames.Add(1)
	}
}

// await returns when n frames have come.
func (c *counter) await(n int64) {
	for c.frames.Load() < n {
		runtime.Gosched()
	}
}

// overLoopback opens two hubs with TCP between them. Only the first is used.
func overLoopback(b *testing.B, withTLS bool) (a *Hub, ha, hb *counter) {
	dir := b.TempDir()
	open := func(name string) (*Hub, *counter) {
		c := &counter{up: make(chan struct{}, 1), answer: make(chan struct{}, 1)}
		cfg := Config{Node: name, Listen: "127.0.0.1:0", Handler: c, Logger: slog.New(slog.DiscardHandler)}
		if withTLS {
			ca, err := NewCA(dir)
			if err != nil {
				b.Fatal(err)
			}
			cert, key, err := ca.Issue(name)
			if err != nil {
				b.Fatal(err)
			}
			if cfg.TLS, err = LoadTLS(cert, key, ca.CertFile()); err != nil {
				b.Fatal(err)
			}
		}
		h, err := Open(cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { h.Close() })
		c.hub = h
		return h, c
	}
	a, ha = open("a")
	z, hb := open("b")
	nodes := []catalog.Node{{ID: "a", Link: a.Addr()}, {ID: "b", Link: z.Addr()}}
	z.SetPeers(nodes)
	a.SetPeers(nodes)
	<-ha.up
	<-hb.up
	return a, ha, hb
}

func eachWire(b *testing.B, run func(b *testing.B, withTLS bool)) {
	b.Run("plain", func(b *testing.B) { run(b, false) })
	b.Run("tls", func(b *testing.B) { run(b, true) })
}

// What a frame of 100 bytes costs from queue to handler, with as many under
// way as the queue takes.
func BenchmarkStream(b *testing.B) {
	eachWire(b, func(b *testing.B, withTLS bool) {
		a, _, hb := overLoopback(b, withTLS)
		payload := make([]byte, 100)
		b.SetBytes(int64(len(payload)))
		b.ReportAllocs()
		n := int64(0)
		for b.Loop() {
			if err := a.SendWait(b.Context(), "b", Live, Frame{DB: catalog.ID(n & 15), Payload: payload}); err != nil {
				b.Fatal(err)
			}
			n++
		}
		hb.await(n)
	})
}

// What a frame costs who sends it, in bursts as a loop's batch makes them.
func BenchmarkSend(b *testing.B) {
	for _, c := range []struct {
		name      string
		databases int
	}{{"one database", 1}, {"a hundred databases", 100}} {
		b.Run(c.name, func(b *testing.B) {
			a, _, hb := overLoopback(b, false)
			payload := make([]byte, 100)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if !a.Send("b", Live, Frame{DB: catalog.ID(n % c.databases), Payload: payload}) {
					b.Fatal("not sent")
				}
				if n++; n%4096 == 0 {
					b.StopTimer()
					hb.await(int64(n))
					b.StartTimer()
				}
			}
		})
	}
}

// What a forwarded command waits for beside the distance: there and back.
func BenchmarkRoundTrip(b *testing.B) {
	eachWire(b, func(b *testing.B, withTLS bool) {
		a, ha, _ := overLoopback(b, withTLS)
		payload := make([]byte, 100)
		b.ReportAllocs()
		for b.Loop() {
			a.Send("b", Live, Frame{Kind: 1, DB: 1, Payload: payload})
			<-ha.answer
		}
	})
}
