package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"vecino/catalog"
	"vecino/engine"
	"vecino/internal/vfs"
	"vecino/journal"
	"vecino/resp"
)

const killedEnv = "VECINO_NODE_KILLED"

// TestMain lets the test binary be the node that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(killedEnv); dir != "" {
		data, _ := strconv.ParseInt(os.Getenv(killedEnv+"_DATA"), 10, 64) // 0 if it isn't set
		n, err := Start(Config{State: dir, data: data, Proxy: "127.0.0.1:0", Standalone: true, Durability: os.Getenv(killedEnv + "_DURABILITY"), Loops: 2, SegmentBytes: 1 << 20, CheckpointBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		fmt.Println(n.Addr())
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		<-ctx.Done()
		stop()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// book is what clients know to have been answered: for each of them how many of
// its keys, which it sets one after the other.
type book struct {
	mu       sync.Mutex
	answered []int
}

func (b *book) snapshot() []int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.answered)
}

// write sets keys, some at a time in one pipeline, and enters them in the book
// as they are answered, until the connection ends.
func (b *book) write(addr string, who int) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	r := rand.New(rand.NewPCG(uint64(who), 1))
	for next := b.snapshot()[who]; ; {
		n := 1 + r.IntN(8)
		var out []byte
		for i := range n {
			out = fmt.Appendf(out, "SET %d:%d %s\r\n", who, next+i, strings.Repeat("v", 1+r.IntN(200)))
		}
		if _, err := conn.Write(out); err != nil {
			return nil
		}
		for range n {
			line, err := in.ReadString('\n')
			if err != nil {
				return nil
			}
			if line != "+OK\r\n" {
				return fmt.Errorf("client %d: SET %d answers %q", who, next, line)
			}
			next++
			b.mu.Lock()
			b.answered[who] = next
			b.mu.Unlock()
		}
	}
}

func dialNode(t *testing.T, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t, conn, resp.NewReader(conn)}
}

// A node that is killed, again and again, has all that it has answered when it is
// started the next time, whatever the durability: it is in the kernel before the
// reply. Checkpoints and trims go on meanwhile.
func TestKilledNodeLosesNothingAnswered(t *testing.T) {
	for _, durability := range catalog.Durabilities {
		t.Run(string(durability), func(t *testing.T) {
			dir := t.TempDir()
			const clients = 8
			b := &book{answered: make([]int, clients)}
			start := func() (*exec.Cmd, string) {
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), killedEnv+"="+dir, killedEnv+"_DURABILITY="+string(durability))
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
			check := func(addr string, answered []int) {
				t.Helper()
				cl := dialNode(t, addr)
				for who, n := range answered {
					for from := 0; from < n; from += 500 {
						words := []string{"EXISTS"}
						for k := from; k < min(n, from+500); k++ {
							words = append(words, fmt.Sprintf("%d:%d", who, k))
						}
						cl.want(fmt.Sprintf("(integer) %d", len(words)-1), words...)
					}
				}
			}
			for round := range 4 {
				cmd, addr := start()
				before := b.snapshot()
				check(addr, before)
				var writers sync.WaitGroup
				errs := make(chan error, clients)
				for who := range clients {
					writers.Go(func() { errs <- b.write(addr, who) })
				}
				total := func(of []int) (n int) {
					for _, k := range of {
						n += k
					}
					return n
				}
				for total(b.snapshot()) < total(before)+1500*(round+1) && len(errs) == 0 {
					time.Sleep(time.Millisecond)
				}
				cmd.Process.Kill()
				writers.Wait()
				if err := cmd.Wait(); err == nil {
					t.Fatal("it ended by itself")
				}
				for range clients {
					if err := <-errs; err != nil {
						t.Fatal(err)
					}
				}
			}
			cmd, addr := start()
			check(addr, b.snapshot())
			cmd.Process.Kill()
			cmd.Wait()
		})
	}
}

// startOn starts a standalone node whose journal is on a file system of ours.
func startOn(t *testing.T, fs vfs.FS, d catalog.Durability) *Node {
	t.Helper()
	dir := t.TempDir()
	if err := fs.MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	n, err := Start(Config{
		State: dir, Proxy: "127.0.0.1:0", Standalone: true, Durability: string(d), Loops: 1,
		SegmentBytes: 256 << 10, Logger: slog.New(slog.DiscardHandler), fs: fs,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// kept is how many keys of each client the journal of a node holds on a disk.
func kept(t *testing.T, n *Node, fs vfs.FS, clients int) []int {
	t.Helper()
	j, err := journal.Open(fs, n.journalDir(0), journal.Options{SegmentBytes: 256 << 10, SyncEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	db := engine.New(engine.Config{ID: 1, HashSeed: n.standaloneRecord().HashSeed, Log: j})
	if err := j.Replay(func(off journal.Offset, e *journal.Entry) error { return db.Recover(off, e, false) }); err != nil {
		t.Fatal(err)
	}
	held := make([]int, clients)
	for who := range held {
		for db.Keyspace().Has(0, fmt.Appendf(nil, "%d:%d", who, held[who]), time.Now().UnixMilli()) {
			held[who]++
		}
	}
	return held
}

// Under "always", what was answered is there after a power cut that keeps nothing
// which was not synced; under the others, the same test shows that it isn't.
func TestPowerCutLosesNothingAnsweredAlways(t *testing.T) {
	const clients = 16
	lost := map[catalog.Durability]bool{}
	for _, d := range catalog.Durabilities {
		mem := vfs.NewMem()
		n := startOn(t, mem, d)
		b := &book{answered: make([]int, clients)}
		var writers sync.WaitGroup
		for who := range clients {
			writers.Go(func() {
				if err := b.write(n.Addr(), who); err != nil {
					t.Error(err)
				}
			})
		}
		for cut := 0; cut < 12; {
			answered := b.snapshot()
			if slices.Min(answered) < 10*(cut+1) {
				time.Sleep(100 * time.Microsecond)
				continue
			}
			cut++
			held := kept(t, n, mem.CrashClone(nil), clients)
			for who := range answered {
				if held[who] < answered[who] {
					lost[d] = true
					if d == catalog.SyncAlways {
						t.Errorf("client %d was answered %d times, the disk holds %d", who, answered[who], held[who])
					}
				}
			}
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		writers.Wait()
	}
	if !lost[catalog.SyncNo] || !lost[catalog.SyncEverySec] {
		t.Error("nothing is ever lost: the test doesn't test")
	}
}

// syncs counts the syncs of a file system.
func syncs(fs vfs.FS, n *atomic.Int64) vfs.FS {
	return vfs.Hooked(fs, func(op vfs.Op, _ string) error {
		if op == vfs.OpSync {
			n.Add(1)
		}
		return nil
	})
}

// A database of durability "no" has nothing synced. WAITAOF does, once, because
// its client asked for it.
func TestNoSyncBecauseOfADatabaseThatWantsNone(t *testing.T) {
	var n atomic.Int64
	node := startOn(t, syncs(vfs.NewMem(), &n), catalog.SyncNo)
	cl := dialNode(t, node.Addr())
	before := n.Load()
	for i := range 100 {
		cl.want("OK", "SET", strconv.Itoa(i), "v")
	}
	// What the journal's own goroutine would do each second, had it been asked.
	if j := node.shards[0].journal; j.Stats().Synced == j.Stats().Written || n.Load() != before {
		t.Errorf("%d syncs", n.Load()-before)
	}
	cl.want("1) (integer) 1\n2) (integer) 0", "WAITAOF", "1", "0", "0")
	if n.Load() == before {
		t.Error("WAITAOF answers without a sync")
	}
}

// Many writers share their syncs, and a pipeline keeps its order.
func TestOneSyncCoversManyWriters(t *testing.T) {
	var n atomic.Int64
	node := startOn(t, syncs(vfs.NewMem(), &n), catalog.SyncAlways)
	before := n.Load()
	const clients, each = 32, 200
	var all sync.WaitGroup
	for who := range clients {
		cl := dialNode(t, node.Addr())
		all.Go(func() {
			for i := range each {
				cl.send("INCR", fmt.Sprint(who))
				cl.send("GET", fmt.Sprint(who))
				if got := cl.receive(); got != fmt.Sprintf("(integer) %d", i+1) {
					t.Errorf("INCR answers %s", got)
				}
				if got := cl.receive(); got != fmt.Sprintf("%q", fmt.Sprint(i+1)) {
					t.Errorf("GET answers %s", got)
				}
			}
		})
	}
	all.Wait()
	if got := n.Load() - before; got > clients*each*3/4 {
		t.Errorf("%d syncs for %d writes of %d connections", got, clients*each, clients)
	}
}

// A disk hangs in the middle of a sync. If somebody else than writers was there lately, it goes
// on in the background, else the loop itself waits for it. Either way whoever comes is served, and the
// writer's reply leaves when the disk is back.
func TestSyncThatHangsKeepsOnlyItsWriterWaiting(t *testing.T) {
	var hang atomic.Bool
	hangs, back := make(chan struct{}, 1), make(chan struct{})
	n := startOn(t, vfs.Hooked(vfs.NewMem(), func(op vfs.Op, name string) error {
		if op == vfs.OpSync && strings.Contains(name, "journal-0") && hang.CompareAndSwap(true, false) {
			hangs <- struct{}{}
			<-back
		}
		return nil
	}), catalog.SyncAlways)
	s := n.shards[0]
	writer, reader := dialNode(t, n.Addr()), dialNode(t, n.Addr())
	for i := range 4 {
		s.do(func() { s.crowded = 0 })
		alone := i%2 == 0
		if !alone {
			reader.want(fmt.Sprintf("%q", strconv.Itoa(i-1)), "GET", "k")
			s.do(func() {
				if s.crowded == 0 {
					t.Error("a reader isn't noticed")
				}
				s.crowded += time.Hour.Milliseconds()
			})
		}
		hang.Store(true)
		writer.send("SET", "k", strconv.Itoa(i))
		<-hangs
		reader.want(fmt.Sprintf("%q", strconv.Itoa(i)), "GET", "k")
		s.do(func() {
			if s.waiting != alone {
				t.Errorf("only writers there: %v, the loop waits: %v", alone, s.waiting)
			}
		})
		writer.conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if n, err := writer.conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the writer hears %d bytes, %v, before its write is on disk", n, err)
		}
		writer.conn.SetReadDeadline(time.Time{})
		back <- struct{}{}
		if got := writer.receive(); got != "OK" {
			t.Fatalf("the writer hears %s", got)
		}
	}
}

// While the disk is full writes are refused and reads go on, on the same
// connection; then there is room, and nothing that was answered is missing.
func TestDiskFullRefusesWritesUntilThereIsRoom(t *testing.T) {
	for _, d := range []catalog.Durability{catalog.SyncEverySec, catalog.SyncAlways} {
		mem := vfs.NewMem()
		var full atomic.Bool
		n := startOn(t, vfs.Hooked(mem, func(op vfs.Op, _ string) error {
			if full.Load() && (op == vfs.OpPreallocate || op == vfs.OpCreate) {
				return &os.PathError{Op: "fallocate", Path: "/secret/path", Err: syscall.ENOSPC}
			}
			return nil
		}), d)
		cl := dialNode(t, n.Addr())
		full.Store(true)
		answered, reply := 0, ""
		for ; ; answered++ {
			if reply = cl.do("SET", fmt.Sprintf("0:%d", answered), strings.Repeat("v", 1000)); reply != "OK" {
				break
			}
		}
		if !strings.HasPrefix(reply, "(error) MISCONF writes are refused: the disk of this node is full") || strings.Contains(reply, "secret") || answered < 50 {
			t.Fatalf("after %d writes: %s", answered, reply)
		}
		cl.want("(integer) 1", "EXISTS", "0:0")
		if info := cl.do("INFO", "persistence"); !strings.Contains(info, "aof_last_write_status:err") {
			t.Errorf("INFO says %s", info)
		}
		full.Store(false)
		deadline := time.Now().Add(20 * time.Second)
		for cl.do("SET", fmt.Sprintf("0:%d", answered), "v") != "OK" {
			if time.Now().After(deadline) {
				t.Fatal("it doesn't recover")
			}
			time.Sleep(10 * time.Millisecond)
		}
		answered++
		cl.want("1) (integer) 1\n2) (integer) 0", "WAITAOF", "1", "0", "0")
		if held := kept(t, n, mem.CrashClone(nil), 1); held[0] != answered {
			t.Errorf("%s: %d writes were answered, the disk holds %d", d, answered, held[0])
		}
	}
}

// A sync fails. Who waits for it is told that the outcome isn't known, writes are
// refused, reads go on, and a second later all is well again: what had been
// written is on disk, though nobody synced that file again.
func TestFailedSyncIsToldAndMended(t *testing.T) {
	mem := vfs.NewMem()
	var fail atomic.Bool
	n := startOn(t, vfs.Hooked(mem, func(op vfs.Op, _ string) error {
		if op == vfs.OpSync && fail.Load() {
			return errors.New("input/output error")
		}
		return nil
	}), catalog.SyncAlways)
	cl, other := dialNode(t, n.Addr()), dialNode(t, n.Addr())
	cl.want("OK", "SET", "0:0", "v")
	fail.Store(true)
	if got := cl.do("SET", "0:1", "v"); !strings.HasPrefix(got, "(error) MISCONF the disk of this node failed to keep what was written; whether this write is kept can't be known") {
		t.Errorf("the writer hears %s", got)
	}
	if got := other.do("SET", "0:2", "v"); !strings.HasPrefix(got, "(error) MISCONF writes are refused") {
		t.Errorf("another writer hears %s", got)
	}
	other.want(`"v"`, "GET", "0:0")
	fail.Store(false)
	deadline := time.Now().Add(20 * time.Second)
	for other.do("SET", "0:2", "v") != "OK" {
		if time.Now().After(deadline) {
			t.Fatal("it doesn't recover")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if held := kept(t, n, mem.CrashClone(nil), 1); held[0] != 3 {
		t.Errorf("the disk holds %d writes", held[0])
	}
	if st := n.shards[0].journal.Stats(); st.Mended == 0 {
		t.Errorf("%+v", st)
	}
}

// WAITAOF counts replicas by what is on their disks.
func TestWaitAOFCountsReplicasByTheirDisks(t *testing.T) {
	c := newCluster(t, "mad", "scl")
	db := c.create("mad", "scl")
	cl := db.client("mad")
	cl.want("OK", "SET", "k", "v")
	cl.want("1) (integer) 1\n2) (integer) 1", "WAITAOF", "1", "1", "0")
	far := db.client("scl")
	far.want("OK", "SET", "k", "w")
	far.want("1) (integer) 1\n2) (integer) 1", "WAITAOF", "1", "1", "0")
	if got := far.do("WAITAOF", "1", "2", "50"); got != "1) (integer) 1\n2) (integer) 1" {
		t.Errorf("with one replica: %s", got)
	}
}
