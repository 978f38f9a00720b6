package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vecino/engine"
	"vecino/internal/pace"
	"vecino/region"
	"vecino/resp"
	"vecino/session"
)

// layDown puts a copy to sleep as if it had been idle for long, and reports whether
// its content left memory.
func (db *database) layDown(r region.Code) bool {
	n := db.c.nodes[r]
	p := n.find(db.id)
	return p != nil && n.layDown(context.Background(), p, time.Now().Add(time.Hour).UnixMilli())
}

// asleep puts a copy to sleep, tenant and all, whose connections are closed.
func (db *database) asleep(r region.Code) {
	db.c.t.Helper()
	db.c.eventually("a sleeper in "+string(r), func() error {
		db.layDown(r)
		if !db.c.nodes[r].sleeps(db.id) {
			return errors.New("still a tenant")
		}
		return nil
	})
}

func TestADatabaseSleepsUnderItsConnectionsAndWithoutThem(t *testing.T) {
	c := newCluster(t, "mad")
	db := c.create("mad")
	n := c.nodes["mad"]
	cl := db.client("mad")
	cl.fill(0, 100)
	want, head := db.contents("mad"), db.position("mad")

	c.eventually("asleep", func() error {
		if !db.layDown("mad") {
			return errors.New("awake")
		}
		return nil
	})
	p := n.find(db.id)
	if p == nil {
		t.Fatal("the tenant went although a client is connected")
	}
	p.Engine.Lock()
	state, sizes := p.Engine.State(), p.Engine.Sizes()
	p.Engine.Unlock()
	if state != engine.Asleep || sizes.Keys != 601 || sizes.Resident != 0 {
		t.Errorf("it is %v, with %d keys and %d bytes in memory", state, sizes.Keys, sizes.Resident)
	}
	cl.want(`"value of 7"`, "GET", "s7")

	cl.conn.Close()
	for round := range 3 {
		db.asleep("mad")
		if p := n.find(db.id); p != nil {
			t.Fatal("both a tenant and a sleeper")
		}
		cl := db.client("mad")
		cl.want(`"value of 8"`, "GET", "s8")
		cl.want("(integer) 601", "DBSIZE")
		if got := db.contents("mad"); got != want {
			t.Fatalf("round %d: the content is another", round)
		}
		if got := db.position("mad"); got != head {
			t.Errorf("round %d: at %v, was at %v", round, got, head)
		}
		cl.conn.Close()
	}

	// It begins as a sleeper when the node starts.
	db.asleep("mad")
	c.stop("mad")
	c.start("mad")
	if n = c.nodes["mad"]; !n.sleeps(db.id) {
		t.Error("awake after a start, although nobody asked for it")
	}
	if got := db.contents("mad"); got != want {
		t.Error("the content is another after a start")
	}
	cl = db.client("mad")
	cl.want("OK", "SET", "s8", "new")
	cl.conn.Close()
	db.asleep("mad")
	db.client("mad").want(`"new"`, "GET", "s8")
}

// setRoom tells a tenant how much room there is, and returns when it has heard it.
func setRoom(p *placed, r session.Room) {
	heard := make(chan struct{})
	p.Owner.Post(func() {
		p.Engine.Lock()
		defer p.Engine.Unlock()
		p.SetRoom(r)
		close(heard)
	})
	<-heard
}

// TestWhoWaitsForRoomIsServedWhenTheDatabaseFallsAsleep: a database that sleeps holds
// nothing, so there is room for it, and nobody else would tell those who wait.
func TestWhoWaitsForRoomIsServedWhenTheDatabaseFallsAsleep(t *testing.T) {
	c := newCluster(t, "mad")
	db := c.create("mad")
	cl := db.client("mad")
	cl.fill(0, 10)
	p := c.nodes["mad"].find(db.id)
	setRoom(p, session.Crowded)
	cl.conn.Write(resp.AppendCommand(resp.AppendCommand(nil, "PING"), "SET", "waits", "for room"))
	if got := cl.receive(); got != "PONG" { // and behind it SET stands in line
		t.Fatal(got)
	}
	c.eventually("asleep", func() error {
		if !db.layDown("mad") {
			return errors.New("awake")
		}
		return nil
	})
	if got := cl.receive(); got != "OK" {
		t.Error(got)
	}
}

// TestRoomThatComesBackBeforeTheLoopHeardThatThereIsNone: the loop hears of both late, and
// nobody waits for ever.
func TestRoomThatComesBackBeforeTheLoopHeardThatThereIsNone(t *testing.T) {
	c := newCluster(t, "mad")
	db := c.create("mad")
	cl := db.client("mad")
	cl.want("OK", "SET", "key", "1")
	p := c.nodes["mad"].find(db.id)
	busy, goOn := make(chan struct{}), make(chan struct{})
	p.Owner.Post(func() {
		close(busy)
		<-goOn
	})
	<-busy
	p.wantRoom(session.Crowded)
	p.wantRoom(session.Roomy)
	close(goOn)
	heard := make(chan struct{})
	p.Owner.Post(func() { close(heard) })
	<-heard
	cl.want("OK", "SET", "key", "2")
}

// TestWritesOfReplicasWaitForRoom: what other nodes forward waits as what the node's own
// clients write does, in order, and is refused when nothing more can leave.
func TestWritesOfReplicasWaitForRoom(t *testing.T) {
	c := newCluster(t, "mad", "scl")
	db := c.place("mad", "scl")
	first, second := db.client("scl"), db.client("scl")
	first.want("OK", "SET", "there", "1")
	p := db.up("mad")
	setRoom(p, session.Crowded)
	first.send("SET", "waits", "1")
	first.send("DEL", "there") // behind it
	first.send("MULTI")
	first.send("APPEND", "waits", "2")
	first.send("EXEC")
	second.want("(integer) 0", "DEL", "none") // what makes nothing larger doesn't wait,
	second.want("(integer) 1", "EXISTS", "there")
	setRoom(p, session.Roomy)
	for _, want := range []string{"OK", "(integer) 1", "OK", "QUEUED", "1) (integer) 2"} {
		if got := first.receive(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}

	setRoom(p, session.Crowded)
	first.send("SET", "waits", "1")
	second.want("(integer) 0", "DEL", "none")
	busy, come, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	p.Owner.Post(func() {
		close(busy)
		<-come
		p.Engine.Lock()
		defer p.Engine.Unlock()
		p.SetRoom(session.Roomy)
		close(done)
	})
	<-busy
	first.send("APPEND", "waits", "2") // comes before the turn in which SET goes on
	c.eventually("a request for a tenant that is away", func() (err error) {
		p.shard.do(func() {
			if p.Owner.Backlog() == 0 {
				err = errors.New("nothing waits for its turn")
			}
		})
		return err
	})
	close(come)
	<-done
	for _, want := range []string{"OK", "(integer) 2"} {
		if got := first.receive(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}

	setRoom(p, session.Crowded)
	first.send("SET", "goes", "1")
	second.want("(integer) 0", "DEL", "none")
	first.conn.Close() // and nobody waits for it any more
	setRoom(p, session.Full)
	if got := second.do("SET", "large", "1"); !strings.HasPrefix(got, "(error) OOM ") {
		t.Error(got)
	}
	second.want("(integer) 1", "DEL", "waits")
	setRoom(p, session.Roomy)
	second.want("OK", "SET", "large", "1")
	db.applied("scl", "mad")
	if db.contents("scl") != db.contents("mad") {
		t.Error("the copies differ")
	}
}

func TestKeysOfSleepersExpire(t *testing.T) {
	c := newCluster(t, "mad")
	db := c.create("mad")
	n := c.nodes["mad"]
	cl := db.client("mad")
	cl.want("OK", "SET", "stays", "1")
	cl.want("OK", "SET", "soon", "1", "PX", "300")
	head := db.position("mad")
	cl.conn.Close()
	db.asleep("mad")
	c.eventually("a deletion that nobody asked for", func() error {
		p := n.find(db.id)
		if p == nil {
			return errors.New("asleep")
		}
		p.Engine.Lock()
		defer p.Engine.Unlock()
		if p.Engine.Position() == head {
			return errors.New("not yet")
		}
		return nil
	})
	cl = db.client("mad")
	cl.want("(integer) 1", "DBSIZE")
}

func TestCopiesOfOneDatabaseWakeEachOther(t *testing.T) {
	c := newCluster(t, "mad", "scl")
	db := c.create("mad", "scl")
	cl := db.client("mad")
	cl.fill(0, 50)
	db.applied("scl", "mad")
	cl.conn.Close()
	rest := func() {
		t.Helper()
		c.eventually("both asleep", func() error {
			db.layDown("scl") // it stops following
			db.layDown("mad") // which the primary has seen, or it would stay
			// One may have woken the other once more.
			for _, r := range []region.Code{"scl", "mad"} {
				if !c.nodes[r].sleeps(db.id) {
					return fmt.Errorf("there is a tenant in %s", r)
				}
			}
			return nil
		})
	}
	rest()

	// A write through the replica wakes both, and is read there.
	far := db.client("scl")
	far.want("OK", "SET", "s1", "from far")
	far.want(`"from far"`, "GET", "s1")
	far.conn.Close()
	rest()

	// A write at the primary wakes the replica, which nobody is connected to.
	near := db.client("mad")
	near.want("OK", "SET", "s1", "from near")
	head := db.position("mad")
	c.eventually("the replica has heard of it", func() error {
		p := c.nodes["scl"].find(db.id)
		if p == nil {
			return errors.New("it sleeps")
		}
		p.Engine.Lock()
		defer p.Engine.Unlock()
		if at := p.Engine.Position(); at != head {
			return fmt.Errorf("it is at %v of %v", at, head)
		}
		return nil
	})
	if near, far := db.contents("mad"), db.contents("scl"); near != far {
		t.Error("the copies differ")
	}
}

// TestNothingIsLostWhileFallingAsleep has clients count, on connections that stay
// and on new ones, while the database is put to sleep all the time.
func TestNothingIsLostWhileFallingAsleep(t *testing.T) {
	c := newCluster(t, "mad")
	db := c.create("mad")
	const clients, rounds = 6, 60
	var tasks sync.WaitGroup
	done := make(chan struct{})
	turns := make(chan struct{}, clients) // one for each command: there is a pause between them, now and then
	tasks.Go(func() {
		for {
			db.layDown("mad")
			for range clients {
				select {
				case <-done:
					return
				case turns <- struct{}{}:
				default:
				}
			}
		}
	})
	var counting sync.WaitGroup
	errs := make([]error, clients)
	for i := range clients {
		counting.Go(func() {
			var conn net.Conn
			var r *resp.Reader
			for n := 1; n <= rounds; n++ {
				<-turns
				if conn == nil {
					var err error
					if conn, err = db.dial("mad"); err != nil {
						errs[i] = err
						return
					}
					r = resp.NewReader(conn)
				}
				conn.SetDeadline(time.Now().Add(patience))
				conn.Write(resp.AppendCommand(nil, "INCR", fmt.Sprint("n", i)))
				v, err := r.Read()
				if want := fmt.Sprintf("(integer) %d", n); err != nil || v.String() != want {
					errs[i] = fmt.Errorf("answers %v (%v), want %s", v, err, want)
					return
				}
				if i%2 == 0 && n%3 == 0 {
					conn.Close()
					conn = nil
				}
			}
			if conn != nil {
				conn.Close()
			}
		})
	}
	counting.Wait()
	close(done)
	tasks.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	cl := db.client("mad")
	for i := range clients {
		cl.want(fmt.Sprintf(`"%d"`, rounds), "GET", fmt.Sprint("n", i))
	}
	if c.nodes["mad"].slept.Load() == 0 {
		t.Error("it never slept")
	}
}

func TestNodesEndWhileDatabasesWake(t *testing.T) {
	c := newCluster(t, "mad")
	db := c.create("mad")
	cl := db.client("mad")
	cl.fill(0, 200)
	cl.conn.Close()
	for range 5 {
		db.asleep("mad")
		conn, err := db.greet("mad")
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(append(resp.AppendCommand(nil, "AUTH", db.password), resp.AppendCommand(nil, "GET", "s1")...))
		c.stop("mad")
		conn.SetDeadline(time.Now().Add(patience))
		io.Copy(io.Discard, conn) // ends, with or without replies
		conn.Close()
		c.start("mad")
		cl := db.client("mad")
		cl.want(`"value of 1"`, "GET", "s1")
		cl.conn.Close()
	}
}

// small starts a node for one database that has little memory, whose shares are as
// given.
func small(t *testing.T, data int64) *Node {
	t.Helper()
	n, err := Start(Config{Standalone: true, ID: "mad-1", State: t.TempDir(), Proxy: "127.0.0.1:0", Loops: 2, Memory: leastMemory, data: data, SegmentBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func plain(t *testing.T, n *Node) *client {
	t.Helper()
	conn, err := net.Dial("tcp", n.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t, conn, resp.NewReader(conn)}
}

// TestMoreThanFitsInMemory has clients write many times what the node may keep, and
// read it back while others write: every value is what was last answered.
func TestMoreThanFitsInMemory(t *testing.T) {
	const data = 2 << 20
	n := small(t, data)
	const clients, keys, ops = 4, 1200, 3000
	var tasks sync.WaitGroup
	errs := make([]error, clients)
	for i := range clients {
		tasks.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			ledger := make(map[int]int)
			conn, err := net.Dial("tcp", n.Addr())
			if err != nil {
				errs[i] = err
				return
			}
			defer conn.Close()
			r := resp.NewReader(conn)
			value := func(k, v int) string {
				return fmt.Sprintf("%d of %d of %d:", v, k, i) + strings.Repeat("x", 600+k%1000)
			}
			for op := range ops + keys {
				k := rng.IntN(keys)
				if op >= ops {
					k = op - ops // and in the end all of them
				}
				v, known := ledger[k]
				write := op < ops && (op < ops/2 || rng.IntN(3) == 0)
				words := []string{"GET", fmt.Sprintf("%d:%d", i, k)}
				want := "(nil)"
				if known {
					want = fmt.Sprintf("%q", value(k, v))
				}
				if write {
					ledger[k] = op
					words, want = []string{"SET", words[1], value(k, op)}, "OK"
				}
				conn.SetDeadline(time.Now().Add(patience))
				conn.Write(resp.AppendCommand(nil, words...))
				got, err := r.Read()
				if err != nil || got.String() != want {
					errs[i] = fmt.Errorf("%s %s answers %.60s (%v), want %.60s", words[0], words[1], got, err, want)
					return
				}
			}
		})
	}
	tasks.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	p, k := n.find(1), n.keeper
	c := &cluster{t: t}
	c.eventually("no more in memory than may be", func() error {
		p.Engine.Lock()
		defer p.Engine.Unlock()
		sizes := p.Engine.Sizes()
		if sizes.Used < 2*data {
			t.Fatalf("%d bytes are too few to prove anything", sizes.Used)
		}
		if sizes.Resident > k.target.Load() {
			return fmt.Errorf("%d of %d bytes are in memory", sizes.Resident, sizes.Used)
		}
		return nil
	})
	if k.offloads.Load() == 0 || n.fetcher.fetches.Load() == 0 {
		t.Errorf("%d values left, %d came back", k.offloads.Load(), n.fetcher.fetches.Load())
	}
}

// TestFewValuesThatTheTierHasNotGotLeave has values leave of a database in which few are
// large, and none of these is in the tier: they are written, though it isn't many of them.
func TestFewValuesThatTheTierHasNotGotLeave(t *testing.T) {
	n := small(t, 1<<20)
	cl := plain(t, n)
	const large = 3
	for i := range 50 {
		cl.want("OK", "SET", fmt.Sprint("small", i), "x")
	}
	for i := range large {
		cl.want("OK", "SET", fmt.Sprint("large", i), strings.Repeat("x", 10_000))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	freed, err := n.keeper.take(ctx, n.keeper.newPace(ctx), n.find(1), 1<<20)
	if err != nil || ctx.Err() != nil || freed < large*10_000 {
		t.Errorf("%d bytes left memory: %v, %v", freed, err, ctx.Err())
	}
}

// Values that leave don't take a loop's processor for long, unless they fall behind.
func TestWhoLetsValuesLeaveRests(t *testing.T) {
	n := small(t, 8<<20)
	cl := plain(t, n)
	const keys, each = 3000, 1000
	for i := range keys {
		cl.want("OK", "SET", fmt.Sprint("k", i), strings.Repeat("x", each))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	k, pauses := n.keeper, 0
	freed, err := k.take(ctx, pace.New(relieveShare, func(time.Duration) { pauses++ }, nil), n.find(1), keys*each/2)
	if err != nil || freed < keys*each/2 || pauses == 0 {
		t.Errorf("%d bytes left with %d rests: %v", freed, pauses, err)
	}

	k = &keeper{}
	k.target.Store(100 << 20)
	for bytes, want := range map[int64]bool{90 << 20: false, 101 << 20: false, 103 << 20: true} {
		if k.resident.Store(bytes); k.hurried() != want {
			t.Errorf("with %d bytes of %d in memory it hurries: %v", bytes, k.target.Load(), !want)
		}
	}
}

// TestKilledWhileValuesLeave kills a node that has much more than fits in its memory,
// again and again: what was answered is there.
func TestKilledWhileValuesLeave(t *testing.T) {
	const clients, keys, each = 4, 400, 1500
	dir := t.TempDir()
	start := func() (*exec.Cmd, string) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killedEnv+"="+dir, killedEnv+"_DATA=500000")
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		addr, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || strings.HasPrefix(addr, "failed") {
			t.Fatalf("the node says %q, %v", addr, err)
		}
		return cmd, strings.TrimSpace(addr)
	}
	value := func(v int) string { return fmt.Sprint(v, ":", strings.Repeat("x", 700)) }
	// What each client was answered last of each key, and what it asked and wasn't.
	var answered [clients][keys]int
	var asked [clients]struct{ k, v int }
	written := 0
	for round := range 4 {
		cmd, addr := start()
		cl := dialNode(t, addr)
		for i := range clients {
			for k := range keys {
				got := cl.do("GET", fmt.Sprintf("%d:%d", i, k))
				want := "(nil)"
				if v := answered[i][k]; v > 0 {
					want = fmt.Sprintf("%q", value(v))
				}
				if a := asked[i]; got != want && a.k == k && got == fmt.Sprintf("%q", value(a.v)) {
					answered[i][k] = a.v // it was carried out, and the answer was lost
				} else if got != want {
					t.Fatalf("round %d: key %d of %d is %.20s, want %.20s", round, k, i, got, want)
				}
			}
			asked[i] = struct{ k, v int }{-1, 0}
		}
		var tasks sync.WaitGroup
		var count atomic.Int64
		limit := int64(each * (round + 2))
		for i := range clients {
			tasks.Go(func() {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					return
				}
				defer conn.Close()
				r := resp.NewReader(conn)
				for n := 1; ; n++ {
					k, v := n*7919%keys, round*1_000_000+n
					asked[i].k, asked[i].v = k, v
					conn.SetDeadline(time.Now().Add(patience))
					conn.Write(resp.AppendCommand(nil, "SET", fmt.Sprintf("%d:%d", i, k), value(v)))
					if got, err := r.Read(); err != nil || got.String() != "OK" {
						return
					}
					answered[i][k] = v
					asked[i].k = -1
					if count.Add(1) == limit {
						cmd.Process.Kill()
					}
				}
			})
		}
		tasks.Wait()
		cmd.Process.Kill()
		cmd.Wait()
		written += int(count.Load())
	}
	if written < 4*each {
		t.Errorf("only %d values were written", written)
	}
}

// TestKeysThatCannotLeaveAreRefusedInTheEnd has keys of which nothing can leave
// fill the memory: writes are refused, reads and deletions go on, and when there is
// room, so do writes.
func TestKeysThatCannotLeaveAreRefusedInTheEnd(t *testing.T) {
	n := small(t, 256<<10)
	cl := plain(t, n)
	refused := -1
	c := &cluster{t: t}
	i := 0
	c.eventually("a write that is refused", func() error {
		got := cl.do("SET", fmt.Sprint("key", i), "short", "EX", "100000")
		if strings.HasPrefix(got, "(error) OOM ") {
			refused = i
			return nil
		}
		if got != "OK" {
			t.Fatal(got)
		}
		for range 200 { // no reply is looked at before all are sent
			i++
			cl.send("SET", fmt.Sprint("key", i), "short", "EX", "100000") // one that expires doesn't sink
		}
		for range 200 {
			if got := cl.receive(); strings.HasPrefix(got, "(error)") && !strings.HasPrefix(got, "(error) OOM ") {
				t.Fatal(got)
			}
		}
		return errors.New("none is")
	})
	cl.want(`"short"`, "GET", "key0")
	cl.want("OK", "FLUSHALL")
	c.eventually("a write that is taken again", func() error {
		if got := cl.do("SET", "a", "b"); got != "OK" {
			return errors.New(got)
		}
		return nil
	})
	if refused < 100 {
		t.Errorf("refused after %d keys already", refused)
	}
}
