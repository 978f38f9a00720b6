package node

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"vecino/catalog"
	"vecino/engine"
	"vecino/internal/vfs"
	"vecino/journal"
	"vecino/keyspace"
	"vecino/privnet"
	"vecino/resp"
	"vecino/tier"
)

// sleepingState makes a state directory with so many databases of ten keys.
func sleepingState(tb testing.TB, databases int) (dir string) {
	tb.Helper()
	dir = tb.TempDir()
	must := func(err error) {
		if err != nil {
			tb.Helper()
			tb.Fatal(err)
		}
	}
	const seed = 7
	recs, err := openRecords(filepath.Join(dir, "catalog"))
	must(err)
	t, err := tier.Open(filepath.Join(dir, "tier"), tier.Options{})
	must(err)
	// The journal has been, and was trimmed.
	j, err := journal.Open(vfs.OS, filepath.Join(dir, "journal-0"), journal.Options{SegmentBytes: 1 << 20})
	must(err)
	db := engine.New(engine.Config{ID: 1, HashSeed: seed, Log: j})
	db.Lock()
	ks := db.Keyspace()
	for i := range 10 {
		tx := ks.Begin(0, 1, uint64(i+1), nil, false)
		tx.SetString([]byte(fmt.Sprint("key", i)), []byte(fmt.Sprint("value ", i)), 0)
		tx.End()
	}
	type swept struct {
		hash      uint64
		key, head []byte
	}
	var keys []swept
	for at := (keyspace.Cursor{}); !at.Done(); {
		ks.Sweep(&at, 0, 100, func(r *keyspace.Record) {
			keys = append(keys, swept{r.Hash, slices.Clone(r.Key), slices.Clone(r.Head)})
		})
	}
	used := ks.Used()
	db.Unlock()
	must(j.Close())
	at := catalog.Position{Epoch: 1, Seq: 10}
	for i := range databases {
		id := catalog.ID(i + 1)
		recs.put(&catalog.Database{
			ID: id, Name: fmt.Sprint("database-", i), Address: privnet.Mint(testNetwork, uint64(i+2)), HashSeed: seed, Epoch: 1, Revision: int64(i + 1), Plan: "Free",
			Copies: []catalog.Copy{{Region: "mad", Node: "mad-1", Role: catalog.Primary, State: catalog.Live, Generation: 1}},
		})
		w := t.Begin(uint64(id))
		for _, k := range keys {
			w.Put(0, k.hash, k.key, k.head, nil)
		}
		m := meta{from: at, end: at, shards: 1, keys: 10, used: used}
		w.Meta(m.encode())
		must(w.Commit(false))
	}
	must(t.Close())
	must(recs.close())
	return dir
}

// anonymous is how much memory this process has of its own.
func anonymous() int64 {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "RssAnon:" {
			kb, _ := strconv.ParseInt(words[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}

func startSleeping(tb testing.TB, dir string) *Node {
	tb.Helper()
	n, err := Start(Config{
		ID: "mad-1", Region: "mad", State: dir, Proxy: "127.0.0.1:0", Link: "127.0.0.1:0", Fleet: "http://127.0.0.1:1", Token: "node",
		Loops: 1, SegmentBytes: 1 << 20,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// firstAnswer is how long a sleeper's first command takes, connection included.
func firstAnswer(tb testing.TB, n *Node, i int) time.Duration {
	tb.Helper()
	began := time.Now()
	conn, err := net.Dial("tcp", n.Addr())
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	header := fmt.Sprintf("PROXY TCP6 %s %s 40000 6379\r\n", privnet.Machine(testNetwork, 7, 1), privnet.Mint(testNetwork, uint64(i+2)))
	conn.Write(append([]byte(header), resp.AppendCommand(nil, "GET", "key3")...))
	v, err := resp.NewReader(conn).Read()
	if err != nil || v.String() != `"value 3"` {
		tb.Fatalf("database %d answers %v (%v)", i, v, err)
	}
	return time.Since(began)
}

func TestANodeOfSleepersStartsWithoutTouchingThem(t *testing.T) {
	const databases = 500
	n := startSleeping(t, sleepingState(t, databases))
	defer n.Close()
	if all := n.all(); len(all) != 0 {
		t.Errorf("%d of %d databases are tenants", len(all), databases)
	}
	if heads := n.store.tier.Stats().Heads; heads != 0 {
		t.Errorf("%d records were read", heads)
	}
	firstAnswer(t, n, 77)
	if all := n.all(); len(all) != 1 {
		t.Errorf("%d databases are tenants, one was asked", len(all))
	}
	if heads := n.store.tier.Stats().Heads; heads != 10 {
		t.Errorf("%d records were read, want those of one database", heads)
	}
}

// BenchmarkSleepers tells what a sleeping database costs: memory, time at the start of
// the node, and time to wake.
func BenchmarkSleepers(b *testing.B) {
	const databases = 100_000
	dir := sleepingState(b, databases)
	debug.FreeOSMemory()
	before := anonymous()
	b.ResetTimer()
	began := time.Now()
	n := startSleeping(b, dir)
	defer n.Close()
	b.ReportMetric(time.Since(began).Seconds(), "s/start")
	b.ReportMetric(float64(anonymous()-before)/databases, "B/db-at-start")
	debug.FreeOSMemory()
	b.ReportMetric(float64(anonymous()-before)/databases, "B/db")
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapAlloc)/databases, "heap-B/db")
	var times []time.Duration
	for i := range 1000 {
		times = append(times, firstAnswer(b, n, i*97%databases))
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[500].Microseconds()), "µs/wake-p50")
	b.ReportMetric(float64(times[990].Microseconds()), "µs/wake-p99")
	for range b.N {
	}
}
