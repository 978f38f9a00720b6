package main

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"vecino/proxyproto"
	"vecino/resp"
)

func TestRewriteChangesOneSectionOnly(t *testing.T) {
	const document = "# Figures\n\n<!-- bench:a -->\nold a\n<!-- /bench:a -->\n\nnotes\n\n<!-- bench:b -->\nold b\n<!-- /bench:b -->\nend\n"
	got, err := rewrite(document, "a", "new a\n")
	if err != nil {
		t.Fatal(err)
	}
	const want = "# Figures\n\n<!-- bench:a -->\n\nnew a\n\n<!-- /bench:a -->\n\nnotes\n\n<!-- bench:b -->\nold b\n<!-- /bench:b -->\nend\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if again, err := rewrite(got, "a", "new a\n"); err != nil || again != got {
		t.Errorf("the same text again changed it: %q, %v", again, err)
	}
}

func TestRewriteNeedsBothMarkers(t *testing.T) {
	for _, document := range []string{"", "<!-- bench:b -->\n<!-- /bench:b -->\n", "<!-- bench:a -->\n", "<!-- /bench:a -->\n"} {
		if got, err := rewrite(document, "a", "new"); err == nil {
			t.Errorf("%q: got %q, want an error", document, got)
		}
	}
}

func TestTable(t *testing.T) {
	tab := table{head: []string{"case", "k/s"}}
	tab.add("GET", "1")
	if got, want := tab.String(), "| case | k/s |\n| --- | ---: |\n| GET | 1 |"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestParseStat(t *testing.T) {
	const line = "42 (a ) b) S 1 42 42 0 -1 4194560 500 600 0 0 123 77 5 6 20 0 8 0 100 1000 200 184467 1 1 0\n"
	if got, err := parseStat([]byte(line)); err != nil || got != 2*time.Second {
		t.Errorf("got %v, %v, want 2s", got, err)
	}
	for _, bad := range []string{"", "42 (a) S 1", "42 (a) S 1 2 3 4 5 6 7 8 9 10 x y z\n"} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: got %v, want an error", bad, got)
		}
	}
}

func TestParseStatus(t *testing.T) {
	if got, err := parseStatus([]byte("Name:\tx\nVmRSS:\t    1024 kB\nThreads:\t1\n"), "VmRSS"); err != nil || got != 1<<20 {
		t.Errorf("got %d, %v, want %d", got, err, 1<<20)
	}
	if got, err := parseStatus([]byte("Name:\tx\n"), "VmRSS"); err == nil {
		t.Errorf("got %d, want an error", got)
	}
}

func TestParseBenchmark(t *testing.T) {
	const out = `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"SET","98039.22","0.260","0.080","0.255","0.383","0.455","0.719"
`
	r, err := parseBenchmark([]byte(out))
	if err != nil || r.rps != 98039.22 || r.p99 != 0.455 {
		t.Errorf("got %+v, %v", r, err)
	}
	for _, bad := range []string{"", "ERR\n", "\"test\"\n\"SET\"\n", "\"rps\"\n\"many\"\n"} {
		if r, err := parseBenchmark([]byte(bad)); err == nil {
			t.Errorf("%q: got %+v, want an error", bad, r)
		}
	}
}

func TestMetric(t *testing.T) {
	const page = "# HELP up x\nup_total 3\nup{node=\"a\"} 4\nup 1.5e+06\n"
	if got, err := metric([]byte(page), "up"); err != nil || got != 1.5e6 {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := metric([]byte(page), "down"); err == nil {
		t.Errorf("got %v, want an error", got)
	}
}

func TestMedianAndQuantile(t *testing.T) {
	if got := median([]float64{9, 1, 5}); got != 5 {
		t.Errorf("median of three: %v", got)
	}
	if got := median([]float64{4, 1, 2, 9}); got != 3 {
		t.Errorf("median of four: %v", got)
	}
	var times []time.Duration
	for i := range 100 {
		times = append(times, time.Duration(100-i))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := quantile(times, q); got != want {
			t.Errorf("quantile %v: got %d, want %d", q, got, want)
		}
	}
}

func TestCasesOfServerAreNamedApart(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range serverCases() {
		if seen[c.String()] {
			t.Errorf("two cases are named %s", c)
		}
		seen[c.String()] = true
	}
	for _, want := range []string{"GET -P 1 3 B", "SET -P 16 1 KiB", "ZADD -P 16", "INCR -P 1"} {
		if !seen[want] {
			t.Errorf("there is no case %s", want)
		}
	}
}

// fakeServer answers each command with what reply says, after the header that
// it must begin with.
func fakeServer(t *testing.T, reply func(args []string) string) (addr string, header func() string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		serving.Wait() // the clients have closed their connections
	})
	headers := make(chan string, 16)
	serve := func(c net.Conn) {
		defer c.Close()
		var buf []byte
		chunk := make([]byte, 4096)
		var parser resp.Parser
		first := true
		for {
			n, err := c.Read(chunk)
			if err != nil {
				return
			}
			buf = append(buf, chunk[:n]...)
			if first {
				_, n, err := proxyproto.Parse(buf)
				if err != nil || n == 0 {
					return
				}
				headers <- string(buf[:n])
				buf, first = buf[n:], false
			}
			for {
				args, n, err := parser.Next(buf, nil)
				if err != nil || n == 0 {
					break
				}
				words := make([]string, len(args))
				for i, a := range args {
					words[i] = string(a)
				}
				buf = buf[n:]
				if _, err := io.WriteString(c, reply(words)); err != nil {
					return
				}
			}
		}
	}
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(c) })
		}
	})
	return l.Addr().String(), func() string { return <-headers }
}

func TestLoadSendsItsCommandsAndChecksReplies(t *testing.T) {
	database := netip.MustParseAddr("fdaa:0:2f:0:1::2")
	addr, header := fakeServer(t, func(args []string) string {
		if args[0] == "GET" && (len(args[1]) != len(keyName(0)) || !strings.HasPrefix(args[1], "key:0000000")) {
			return "-ERR wrong key\r\n"
		}
		if args[0] == "AUTH" && args[1] != "secret" {
			return "-WRONGPASS\r\n"
		}
		return "+OK\r\n"
	})
	g := load{
		door: door{addr: addr, database: database, password: "secret"}, conns: 3, pipeline: 4, commands: 120,
		command: []string{"GET", "KEY"}, reply: "+OK\r\n",
	}
	m, err := g.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(m.times) != 30 || m.rps <= 0 {
		t.Errorf("got %d pipelines at %v/s, want 30", len(m.times), m.rps)
	}
	if h := header(); !strings.HasPrefix(h, "PROXY TCP6 fdaa:0:2f:") || !strings.Contains(h, " "+database.String()+" ") {
		t.Errorf("header %q", h)
	}

	g.reply = "$1\r\nx\r\n"
	if _, err := g.run(t.Context()); err == nil {
		t.Error("wrong replies went unnoticed")
	}
	g.door.password = "guess"
	if _, err := g.run(t.Context()); err == nil {
		t.Error("a refused password went unnoticed")
	}
}

func TestLoadEndsWithItsContext(t *testing.T) {
	asked := make(chan struct{}, 1)
	addr, _ := fakeServer(t, func(args []string) string {
		if args[0] == "AUTH" {
			return "+OK\r\n"
		}
		select {
		case asked <- struct{}{}:
		default:
		}
		return "" // never
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	g := load{door: door{addr: addr, database: netip.MustParseAddr("fdaa:0:2f:0:1::2")}, conns: 2, pipeline: 1, commands: 10, command: []string{"PING"}, reply: "+PONG\r\n"}
	if _, err := g.run(ctx); err == nil {
		t.Error("a load that isn't answered ended well")
	}
}

func TestFlagsOfAProgram(t *testing.T) {
	const help = `Usage:
  vecino node [flags]

Flags:
      --admin string   host:port, see --world
  -h, --help           help for node
      --idle duration  time
`
	got := parseFlags(help)
	for flag, want := range map[string]bool{"admin": true, "help": true, "idle": true, "world": false, "node": false} {
		if got[flag] != want {
			t.Errorf("--%s: %v, want %v", flag, got[flag], want)
		}
	}
}

func TestMeetsAsTheTableShowsIt(t *testing.T) {
	for _, c := range []struct {
		figure, most float64
		want         bool
	}{{0.6, 0.6, true}, {0.604, 0.6, true}, {0.606, 0.6, false}, {0.1, 0.6, true}} {
		if got := meets(c.figure, c.most); got != c.want {
			t.Errorf("%v of %v: %v", c.figure, c.most, got)
		}
	}
}

func TestEverySectionHasItsPlaceInTheDocument(t *testing.T) {
	document, err := os.ReadFile("../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names() {
		if _, err := rewrite(string(document), name, "x"); err != nil {
			t.Errorf("docs/benchmarks.md: %v", err)
		}
	}
}

func TestNumberInInfo(t *testing.T) {
	fields := infoFields("# Memory\r\nused_memory:12\r\nratio:93.5%\r\nname:x\r\n")
	for _, c := range []struct {
		names []string
		want  float64
		ok    bool
	}{{[]string{"used_memory"}, 12, true}, {[]string{"none", "ratio"}, 93.5, true}, {[]string{"name"}, 0, false}} {
		if got, ok := number(fields, c.names...); got != c.want || ok != c.ok {
			t.Errorf("%v: %v, %v", c.names, got, ok)
		}
	}
}

func TestAwakeDatabases(t *testing.T) {
	page := "vecino_databases 10\n"
	if got, err := awakeDatabases(page); err == nil {
		t.Errorf("got %v of a node that doesn't tell", got)
	}
	page += "vecino_database_states{state=\"asleep\"} 7\nvecino_database_states{state=\"awake\"} 2\nvecino_database_states{state=\"dozing\"} 1\n"
	if got, err := awakeDatabases(page); err != nil || got != 3 {
		t.Errorf("%v, %v", got, err)
	}
}
