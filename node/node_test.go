package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"vecino/api"
	"vecino/engine"
	"vecino/internal/dirlock"
	"vecino/keyspace"
	"vecino/privnet"
	"vecino/region"
	"vecino/resp"
)

func TestTheAddressNamesTheDatabaseAndThePasswordOpensIt(t *testing.T) {
	c := newCluster(t, "mad")
	a, b := c.create("mad"), c.create("mad")
	one, other := a.client("mad"), b.client("mad")
	one.want("OK", "SET", "k", "of a")
	other.want("(nil)", "GET", "k")

	// A password opens the database whose address was called, and no other.
	conn, err := a.greet("mad")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stranger := &client{t, conn, resp.NewReader(conn)}
	stranger.want("(error) NOAUTH Authentication required.", "GET", "k")
	stranger.want("(error) WRONGPASS invalid username-password pair or user is disabled.", "AUTH", b.password)
	stranger.want("(error) WRONGPASS invalid username-password pair or user is disabled.", "AUTH", "somebody", a.password)
	stranger.want("(error) NOAUTH Authentication required.", "SET", "k", "of b")
	stranger.want("OK", "AUTH", "default", a.password)
	stranger.want(`"of a"`, "GET", "k")
}

func TestConnectionsWithoutAGoodHeaderAreRefusedAndCounted(t *testing.T) {
	c := newCluster(t, "mad")
	db := c.create("mad")
	n := c.nodes["mad"]
	unknown := privnet.Mint(testNetwork, 99)
	machine, foreign := privnet.Machine(testNetwork, 7, 1), privnet.Machine(testNetwork+1, 7, 1)
	for _, refused := range []struct {
		name, header string
		count        func() int64
	}{
		{"none", "*1\r\n$4\r\nPING\r\n", n.refused.missing.Load},
		{"malformed", "PROXY TCP6 nonsense\r\n", n.refused.malformed.Load},
		{"oversized", "PROXY TCP6 " + strings.Repeat("1", 200), n.refused.oversized.Load},
		{"of another family", "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", n.refused.family.Load},
		{"for nobody's address", fmt.Sprintf("PROXY TCP6 %s %s 1 6379\r\n", machine, unknown), n.refused.unknown.Load},
		{"from another network", fmt.Sprintf("PROXY TCP6 %s %s 1 6379\r\n", foreign, db.addr), n.refused.foreign.Load},
	} {
		t.Run(refused.name, func(t *testing.T) {
			before := refused.count()
			conn, err := net.Dial("tcp", n.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			io.WriteString(conn, refused.header)
			if got, err := io.ReadAll(conn); len(got) > 0 || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("answered %q (%v), want the end", got, err)
			}
			if refused.count() != before+1 {
				t.Errorf("counted %d, want %d", refused.count(), before+1)
			}
		})
	}
}

// contents is all that a copy holds, in an order that depends on nothing else.
func (db *database) contents(r region.Code) string {
	db.c.t.Helper()
	return contentOf(db.c.t, db.c.nodes[r], db.up(r).Engine)
}

// contentOf is all that a database holds, values in the tier included.
func contentOf(t *testing.T, n *Node, of *engine.DB) string {
	t.Helper()
	ks := keyspace.New(1)
	if _, err := n.dump(context.Background(), of, ks.Load); err != nil {
		t.Fatal(err)
	}
	var all []byte
	for at := (keyspace.Cursor{}); !at.Done(); {
		all = ks.Dump(all, &at, 1000)
	}
	return string(all)
}

// fill writes keys of all types.
func (cl *client) fill(from, to int) {
	cl.t.Helper()
	for i := from; i < to; i++ {
		n := fmt.Sprint(i)
		for _, words := range [][]string{
			{"SET", "s" + n, "value of " + n}, {"HSET", "h" + n, "f", n, "g", n}, {"RPUSH", "l" + n, n, "x", n}, {"SADD", "t" + n, n, "m"},
			{"ZADD", "z" + n, n, "a", "2", "b"}, {"SET", "e" + n, n, "EX", "1000"}, {"RPUSH", "shared", n},
		} {
			cl.send(words...)
		}
		for range 7 {
			if got := cl.receive(); strings.HasPrefix(got, "(error)") {
				cl.t.Fatal(got)
			}
		}
	}
}

func TestRestartBringsEverythingBackFromCheckpointAndJournal(t *testing.T) {
	c := newCluster(t, "mad")
	db := c.create("mad")
	cl := db.client("mad")
	cl.fill(0, 500)
	p := db.up("mad")
	if err := c.nodes["mad"].saver.save(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	cl.fill(400, 700)
	cl.want("(integer) 2", "DEL", "s1", "h2")
	for round := range 3 {
		want, head := db.contents("mad"), db.position("mad")
		c.stop("mad")
		c.start("mad")
		db.live()
		if got := db.contents("mad"); got != want {
			t.Fatalf("round %d: the content is another: %d bytes, was %d", round, len(got), len(want))
		}
		if got := db.position("mad"); got != head {
			t.Errorf("round %d: at %v, was at %v", round, got, head)
		}
		cl = db.client("mad")
		cl.want(`"value of 600"`, "GET", "s600")
		cl.fill(700, 720)
	}
}

func TestJournalThatIsGoneIsNoticed(t *testing.T) {
	c := newCluster(t, "mad")
	db := c.create("mad")
	n := c.nodes["mad"]
	db.client("mad").fill(0, 10)
	if err := n.saver.save(context.Background(), db.up("mad")); err != nil {
		t.Fatal(err)
	}
	c.stop("mad")
	if err := os.RemoveAll(n.journalDir(n.shardOf(db.id).index)); err != nil {
		t.Fatal(err)
	}
	again, err := Start(n.cfg)
	if err == nil {
		again.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "put the journal") {
		t.Errorf("started without its journal: %v", err)
	}
}

func TestJournalIsTrimmedBehindCheckpoints(t *testing.T) {
	c := newCluster(t, "mad")
	db := c.create("mad")
	n := c.nodes["mad"]
	n.cfg.CheckpointBytes = 1 << 20
	cl := db.client("mad")
	big := strings.Repeat("x", 100_000)
	for i := range 60 {
		cl.want("OK", "SET", fmt.Sprint("k", i%7), big)
	}
	n.saver.round(context.Background())
	s := n.shardOf(db.id)
	if st := s.journal.Stats(); st.Segments > 4 {
		t.Errorf("%d segments of 1 MiB are kept after a checkpoint", st.Segments)
	}
	want := db.contents("mad")
	c.stop("mad")
	c.start("mad")
	db.live()
	if db.contents("mad") != want {
		t.Error("the content is another after the restart")
	}
}

func TestFreshRegionGetsACopyWhileWritesGoOn(t *testing.T) {
	c := newCluster(t, "mad", "scl")
	db := c.create("mad")
	cl := db.client("mad")
	cl.fill(0, 2000)
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		w := db.client("mad")
		for i := 2000; ; i++ {
			select {
			case <-stop:
				return
			default:
				w.fill(i%2500, i%2500+1)
			}
		}
	})
	if _, err := c.api.UpdateDatabase(context.Background(), db.id, api.FleetUpdate{ReplicaRegions: &[]api.Region{"scl"}}); err != nil {
		t.Fatal(err)
	}
	db.live()
	close(stop)
	writer.Wait()
	db.applied("scl", "mad")
	if db.contents("scl") != db.contents("mad") {
		t.Error("the copies differ")
	}

	// It goes on from where it was after a restart, and after the primary's.
	for _, r := range []region.Code{"scl", "mad"} {
		c.stop(r)
		c.start(r)
		c.eventually("serving again", func() error {
			conn, err := db.dial("mad")
			if err == nil {
				conn.Close()
			}
			return err
		})
		db.client("mad").fill(0, 50)
		c.eventually("copy in scl", func() error {
			db.up("scl")
			return nil
		})
		db.applied("scl", "mad")
		if db.contents("scl") != db.contents("mad") {
			t.Errorf("the copies differ after a restart of %s", r)
		}
	}
}

func TestRegionTakenAwayForgetsTheData(t *testing.T) {
	c := newCluster(t, "mad", "scl")
	db := c.create("mad", "scl")
	db.client("mad").fill(0, 10)
	db.applied("scl", "mad")
	if _, err := c.api.UpdateDatabase(context.Background(), db.id, api.FleetUpdate{ReplicaRegions: &[]api.Region{}}); err != nil {
		t.Fatal(err)
	}
	n := c.nodes["scl"]
	c.eventually("copy gone", func() error {
		if n.find(db.id) != nil {
			return errors.New("still there")
		}
		return nil
	})
	c.eventually("record gone", func() error {
		if _, ok := n.records.database(db.id); ok {
			return errors.New("still there")
		}
		return nil
	})
	if conn, err := db.dial("scl"); err == nil {
		conn.Close()
		t.Error("the node still answers")
	}
}

func TestEveryRegionReadsItsWrites(t *testing.T) {
	c := newCluster(t, "mad", "scl")
	db := c.create("mad", "scl")
	cl := db.client("scl")
	for i := range 300 {
		n := fmt.Sprint(i)
		cl.want("OK", "SET", "k", n)
		cl.want(`"`+n+`"`, "GET", "k")
	}
	info := cl.do("INFO", "vecino")
	for _, want := range []string{"role:replica", "forwarded_writes:300", "local_reads:300", "forwarded_reads:0"} {
		if !strings.Contains(info, want) {
			t.Errorf("INFO lacks %s:\n%s", want, info)
		}
	}
}

// As in printf '...' | nc -N: who has only finished sending gets all replies, also
// those of the primary far away, but waits for no key.
func TestRepliesReachWhoHasFinishedSending(t *testing.T) {
	c := newCluster(t, "mad", "scl")
	db := c.create("mad", "scl")
	cl := db.client("scl")
	var all []byte
	for i := range 200 {
		all = resp.AppendCommand(all, "SET", fmt.Sprint(i), "v")
		all = resp.AppendCommand(all, "PING")
	}
	all = resp.AppendCommand(all, "BLPOP", "nothing", "0")
	all = resp.AppendCommand(all, "SET", "behind", "v")
	if _, err := cl.conn.Write(all); err != nil {
		t.Fatal(err)
	}
	if err := cl.conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		if set, ping := cl.receive(), cl.receive(); set != "OK" || ping != "PONG" {
			t.Fatalf("replies %d are %s and %s", i, set, ping)
		}
	}
	if v, err := cl.r.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the last reply comes %v, %v", v, err)
	}
	c.eventually("nobody waits", func() error {
		if n := db.waiting(); n > 0 {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	})
}

func TestBlockedInOneRegionServedFromAnother(t *testing.T) {
	c := newCluster(t, "mad", "scl")
	db := c.create("mad", "scl")
	waiting, giving := db.client("scl"), db.client("mad")
	waiting.send("BLPOP", "jobs", "0")
	c.eventually("parked at the primary", func() error {
		if db.waiting() == 0 {
			return errors.New("nobody waits")
		}
		return nil
	})
	giving.want("(integer) 1", "RPUSH", "jobs", "sweep")
	if got := waiting.receive(); got != "1) \"jobs\"\n2) \"sweep\"" {
		t.Errorf("got %s", got)
	}
	waiting.want("(integer) 0", "LLEN", "jobs")

	// A client that goes while it waits takes nothing.
	waiting.send("BLPOP", "jobs", "0")
	c.eventually("parked again", func() error {
		if db.waiting() == 0 {
			return errors.New("nobody waits")
		}
		return nil
	})
	waiting.conn.Close()
	c.eventually("unparked", func() error {
		if db.waiting() > 0 {
			return errors.New("it still waits")
		}
		return nil
	})
	giving.want("(integer) 1", "RPUSH", "jobs", "stay")
	giving.want("(integer) 1", "LLEN", "jobs")
}

func TestStandaloneServesPlainConnections(t *testing.T) {
	dir := t.TempDir()
	start := func() *Node {
		n, err := Start(Config{ID: "standalone", State: dir, Proxy: "127.0.0.1:0", Standalone: true, Password: "secret", Loops: 1, SegmentBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	ask := func(n *Node, words ...string) string {
		conn, err := net.Dial("tcp", n.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		cl := &client{t, conn, resp.NewReader(conn)}
		cl.want("OK", "AUTH", "secret")
		return cl.do(words...)
	}
	n := start()
	if got := ask(n, "SET", "k", "v"); got != "OK" {
		t.Error(got)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = start()
	defer n.Close()
	if got := ask(n, "GET", "k"); got != `"v"` {
		t.Errorf("after a restart: %s", got)
	}
	if _, err := Start(Config{State: dir, Proxy: "127.0.0.1:0", Standalone: true}); !errors.Is(err, dirlock.ErrHeld) {
		t.Errorf("two nodes in one directory: %v", err)
	}
	if _, err := Start(Config{State: t.TempDir(), Proxy: n.Addr(), Standalone: true}); err == nil {
		t.Error("two nodes on one address")
	}
}
