package main

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCutReplyFindsTheEndOfTheFirst(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		what answer
	}{
		{"+OK\r\n", 5, isValue}, {"+OK\r\n+OK\r\n", 5, isValue}, {":12\r\n", 5, isValue}, {"-ERR no\r\n", 9, isError},
		{"$3\r\na\nb\r\n", 9, isValue}, {"$0\r\n\r\n", 6, isValue}, {"$-1\r\n", 5, isNothing}, {"_\r\n", 3, isNothing},
		{"", 0, isValue}, {"+OK", 0, isValue}, {"$3\r\nabc", 0, isValue}, {"$3\r\nabc\r", 0, isValue},
	} {
		if n, what, err := cutReply([]byte(c.in)); n != c.n || n > 0 && what != c.what || err != nil {
			t.Errorf("%q: %d, %v, %v, want %d, %v", c.in, n, what, err, c.n, c.what)
		}
	}
	for _, bad := range []string{"*1\r\n", "$x\r\n", "nonsense\r\n"} {
		if n, _, err := cutReply([]byte(bad)); err == nil {
			t.Errorf("%q: %d bytes, want an error", bad, n)
		}
	}
}

var testDoor = door{database: netip.MustParseAddr("fdaa:0:2f:0:1::2")}

func TestClosedTrafficCountsWhatIsAnswered(t *testing.T) {
	addr, _ := fakeServer(t, func(args []string) string {
		switch {
		case args[0] == "SET" && args[1] == "key:000000000007":
			return "-ERR seven\r\n"
		case args[0] == "SET":
			return "+OK\r\n"
		}
		return "$-1\r\n"
	})
	to := testDoor
	to.addr = addr
	i := 0
	load := traffic{door: to, conns: 2, together: 10, lasts: time.Millisecond, command: func(dst []byte, _ *rand.Rand) ([]byte, kind) {
		if i++; i%10 == 0 {
			return appendSet(dst, 7, 3), isWrite
		}
		return appendGet(dst, i), isRead
	}}
	found, err := load.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if found.commands == 0 || found.commands%10 != 0 || found.failed*10 != found.commands || found.missing != found.commands-found.failed || found.unanswered != 0 {
		t.Errorf("%d commands, %d failed, %d missing, %d unanswered", found.commands, found.failed, found.missing, found.unanswered)
	}
	if len(found.times[isWrite])*10 != found.commands || len(found.times[isRead]) != 0 {
		t.Errorf("%d batches with a write and %d without", len(found.times[isWrite]), len(found.times[isRead]))
	}
	if err := found.sound(); err == nil || !strings.Contains(err.Error(), "seven") {
		t.Errorf("got %v, want what the server said", err)
	}
}

func TestOpenTrafficGoesOnWhileTheServerStalls(t *testing.T) {
	const rate, lasts = 2000, 50 * time.Millisecond
	release := make(chan struct{})
	addr, _ := fakeServer(t, func([]string) string {
		<-release
		return "+OK\r\n"
	})
	to := testDoor
	to.addr = addr
	load := traffic{door: to, conns: 2, together: 1, rate: rate, lasts: lasts, command: func(dst []byte, _ *rand.Rand) ([]byte, kind) { return appendSet(dst, 1, 1), isWrite }}
	load.ready = func() { time.AfterFunc(2*lasts, func() { close(release) }) }
	found, err := load.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	times := found.times[isWrite]
	if len(times) != 100 {
		t.Fatalf("%d commands were sent, want 100", len(times))
	}
	// All waited for the end of the stall, from the time when each was due.
	slices.Sort(times)
	if times[0] < lasts || times[99] < 2*lasts-time.Millisecond {
		t.Errorf("latencies from %s to %s: they don't count from when the commands were due", times[0], times[99])
	}
}

func TestWhatAStandstillHitIsLeftOut(t *testing.T) {
	const ms = time.Millisecond
	// Three processors that were late, each at its own times.
	still := common(common([]span{{0, 5 * ms}, {8 * ms, 20 * ms}, {30 * ms, 40 * ms}}, []span{{2 * ms, 4 * ms}, {10 * ms, 12 * ms}, {14 * ms, 50 * ms}}), []span{{3 * ms, 11 * ms}, {20*ms - late/2, 60 * ms}})
	want := []span{{3 * ms, 4 * ms}, {10 * ms, 11 * ms}, {30 * ms, 40 * ms}} // too short: what is common before 20 ms
	if !slices.Equal(still, want) {
		t.Fatalf("all stood still at %v, want %v", still, want)
	}
	if got, want := joined([]span{{30 * ms, 40 * ms}, {0, 5 * ms}, {35 * ms, 45 * ms}, {5 * ms, 6 * ms}, {8 * ms, 9 * ms}}), []span{{0, 6 * ms}, {8 * ms, 9 * ms}, {30 * ms, 45 * ms}}; !slices.Equal(got, want) {
		t.Errorf("joined to %v, want %v", got, want)
	}
	d := &driver{}
	for _, c := range []struct {
		due, took time.Duration
		hit       bool
	}{
		{0, 2 * ms, false}, {2 * ms, ms, false}, {2 * ms, 2 * ms, true}, {3 * ms, ms / 2, true}, {4 * ms, 6 * ms, false}, {4 * ms, 7 * ms, true},
		{10 * ms, ms / 2, true}, {12 * ms, 18 * ms, false}, {12 * ms, 40 * ms, true}, {35 * ms, 100 * ms, true}, {41 * ms, 100 * ms, false},
	} {
		d.dues[isWrite], d.times[isWrite] = []time.Duration{c.due}, []time.Duration{c.took}
		d.calm[isWrite] = nil
		d.sortOut(still)
		if got := len(d.calm[isWrite]) == 0; got != c.hit {
			t.Errorf("due at %v, took %v: left out %v, want %v", c.due, c.took, got, c.hit)
		}
	}
	d.took, d.still = 100*ms, 12*ms
	d.times[isRead], d.calm[isRead] = []time.Duration{ms, 9 * ms}, []time.Duration{ms}
	if got := d.tails(isRead); got.max != ms || got.all.max != 9*ms || got.still != 0.12 {
		t.Errorf("got %+v, want the figures with and without, and how long it stood still", got)
	}
}

func TestTrafficThatIsEndedSaysWhatItFound(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	addr, _ := fakeServer(t, func([]string) string {
		cancel()
		return "+OK\r\n"
	})
	to := testDoor
	to.addr = addr
	load := traffic{door: to, conns: 1, together: 1, lasts: time.Hour, command: func(dst []byte, _ *rand.Rand) ([]byte, kind) { return appendSet(dst, 1, 1), isWrite }}
	found, err := load.run(ctx)
	if err == nil || found == nil || found.took <= 0 {
		t.Errorf("got %+v, %v", found, err)
	}
}

func TestFillSendsEveryCommandOnce(t *testing.T) {
	seen := make(chan string, 5000)
	addr, _ := fakeServer(t, func(args []string) string {
		seen <- args[1]
		return "+OK\r\n"
	})
	to := testDoor
	to.addr = addr
	if err := fillStrings(to, 2100, 5).run(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(seen)
	keys := map[string]bool{}
	for key := range seen {
		if len(key) != 16 || keys[key] {
			t.Fatalf("key %q twice, or not of 16 bytes", key)
		}
		keys[key] = true
	}
	if len(keys) != 2100 || !keys["key:000000002099"] {
		t.Errorf("%d keys", len(keys))
	}

	addr, _ = fakeServer(t, func([]string) string { return "-OOM no room\r\n" })
	to.addr = addr
	if err := fillStrings(to, 10, 5).run(t.Context()); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("got %v, want what the server said", err)
	}
}

func TestCommandsAreOfTheSizesThatTheySay(t *testing.T) {
	want := appendCommand(nil, "SET", "key:000000000042", string(appendValue(nil, 42, 32)))
	if got := appendSet(nil, 42, 32); !bytes.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := appendGet(nil, 123456789012), appendCommand(nil, "GET", "key:123456789012"); !bytes.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if a, z := appendValue(nil, 1, 32), appendValue(nil, 2, 32); bytes.Equal(a, z) || len(a) != 32 {
		t.Errorf("values %q and %q", a, z)
	}
	for _, d := range datasets {
		n := 0
		for rest := d.command(nil, 3); len(rest) > 0; n++ {
			if n > 0 {
				t.Errorf("%s: more than one command", d.name)
				break
			}
			rest = rest[commandLength(t, rest):]
		}
	}
}

// commandLength is how long the first command in b is.
func commandLength(t *testing.T, b []byte) int {
	t.Helper()
	head := bytes.IndexByte(b, '\n') + 1
	words, at := 0, head
	for _, c := range bytes.TrimRight(b[1:head], "\r\n") {
		words = words*10 + int(c-'0')
	}
	for range words {
		n, _, err := cutReply(b[at:])
		if err != nil || n == 0 {
			t.Fatalf("%.60q has no %d words", b, words)
		}
		at += n
	}
	return at
}

func TestZipfDrawsByItsLaw(t *testing.T) {
	const n, draws = 1000, 200_000
	z := newZipf(n, 1)
	r := rand.New(rand.NewPCG(1, 2))
	count := make([]int, n)
	for range draws {
		count[z.draw(r)]++
	}
	drawn := 0
	for _, c := range count {
		if c > 0 {
			drawn++
		}
	}
	if drawn < n*9/10 {
		t.Errorf("only %d of %d numbers were drawn", drawn, n)
	}
	slices.SortFunc(count, func(a, b int) int { return b - a })
	for _, k := range []int{1, 2, 10, 100} {
		if want := draws / z.cumulative[n-1] / float64(k); math.Abs(float64(count[k-1])-want) > want/5 {
			t.Errorf("the number of rank %d was drawn %d times, want about %.0f", k, count[k-1], want)
		}
	}
	again := rand.New(rand.NewPCG(1, 2))
	if newZipf(n, 1).draw(again) != z.draw(rand.New(rand.NewPCG(1, 2))) {
		t.Error("the same seed draws another number")
	}
}

func TestLRUForgetsWhatWasUsedLongestAgo(t *testing.T) {
	c := newLRU(10, 3)
	for i, step := range []struct {
		x   int
		hit bool
	}{{1, false}, {2, false}, {3, false}, {1, true}, {4, false}, {2, false}, {1, true}, {3, false}, {4, false}, {1, true}} {
		if got := c.use(step.x); got != step.hit {
			t.Errorf("step %d: %d was there: %v", i, step.x, got)
		}
	}
	if got := exactLRU([]int32{1, 2, 1, 2, 3, 1}, 2, 4, 2); got != 0.5 {
		t.Errorf("hit ratio %v, want 0.5", got)
	}
}
