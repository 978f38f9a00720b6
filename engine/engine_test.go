package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"vecino/catalog"
	"vecino/command"
	"vecino/eviction"
	"vecino/journal"
	"vecino/keyspace"
	"vecino/resp"
)

// memoryLog is a journal in memory.
type memoryLog struct {
	entries [][]byte
	err     error
}

func (l *memoryLog) Append(entry []byte) journal.Offset {
	l.entries = append(l.entries, append([]byte(nil), entry...))
	return journal.Offset(len(l.entries))
}

func (l *memoryLog) Err() error { return l.err }

// caller is the client of a command; what a test doesn't use isn't there.
type caller struct {
	command.Client
	db int
}

func (c *caller) DB() int       { return c.db }
func (c *caller) Select(db int) { c.db = db }
func (c *caller) Proto() int    { return 2 }

// bench is a database with its journal.
type bench struct {
	t   *testing.T
	db  *DB
	log *memoryLog
	now int64
}

func open(t *testing.T) *bench {
	log := &memoryLog{}
	b := &bench{t: t, db: New(Config{ID: 1, HashSeed: 5, Log: log}), log: log, now: 1_000_000}
	if err := b.db.OpenEpoch(1, b.now); err != nil {
		t.Fatal(err)
	}
	return b
}

func words(line string) (argv [][]byte) {
	for _, w := range strings.Fields(line) {
		argv = append(argv, []byte(w))
	}
	return argv
}

func (b *bench) request(line string, out *resp.Writer, w Waiter) *Request {
	b.t.Helper()
	argv := words(line)
	row, err := command.Resolve(argv)
	if err != nil {
		b.t.Fatal(err)
	}
	return &Request{Client: &caller{}, Row: row, Argv: argv, Now: b.now, Out: out, Wait: w}
}

// do runs a command and returns its reply.
func (b *bench) do(line string) string {
	b.t.Helper()
	var out resp.Writer
	if p := b.db.Run(b.request(line, &out, nil)); p != nil {
		b.t.Fatalf("%s waits", line)
	}
	return strings.ReplaceAll(string(out.Buf), "\r\n", " ")
}

func (b *bench) want(reply, line string) {
	b.t.Helper()
	if got := b.do(line); got != reply {
		b.t.Errorf("%s answers %q, want %q", line, got, reply)
	}
}

// waiter remembers who was served, in order.
type waiter struct {
	name   string
	served *[]string
}

func (w waiter) Served(reply []byte) {
	*w.served = append(*w.served, w.name+":"+strings.ReplaceAll(string(reply), "\r\n", " "))
}

func (b *bench) wait(name, line string, served *[]string) *Parked {
	b.t.Helper()
	var out resp.Writer
	p := b.db.Run(b.request(line, &out, waiter{name, served}))
	if p == nil {
		b.t.Fatalf("%s doesn't wait: %q", line, out.Buf)
	}
	return p
}

func TestEntriesAreOnesThatAnotherCopyCanFollow(t *testing.T) {
	b := open(t)
	for i := range 50 {
		b.do(fmt.Sprintf("SET k%d v EX 100", i%7))
		b.do(fmt.Sprintf("RPUSH l %d", i))
		b.do("GET k1")
		b.do(fmt.Sprintf("SPOP s%d", i)) // changes nothing
	}
	if len(b.log.entries) != 101 {
		t.Errorf("%d entries, want the epoch's and one for each of 100 writes", len(b.log.entries))
	}
	other := New(Config{ID: 1, HashSeed: 5, Log: &memoryLog{}})
	for _, raw := range b.log.entries {
		e, _, err := journal.DecodeEntry(raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Apply(&e, raw, false); err != nil {
			t.Fatal(err)
		}
	}
	if other.Position() != b.db.Position() || other.HistoryHash() != b.db.HistoryHash() {
		t.Errorf("the copy is at %v", other.Position())
	}
	if contents(other) != contents(b.db) {
		t.Error("the copy has another content")
	}
}

func contents(db *DB) string {
	var at keyspace.Cursor
	var all []byte
	for !at.Done() {
		all = db.Keyspace().Dump(all, &at, 100)
	}
	return string(all)
}

func TestEntryThatDoesNotFollowIsRefused(t *testing.T) {
	b := open(t)
	b.do("SET a 1")
	b.do("SET a 2")
	fresh := func() *DB { return New(Config{ID: 1, HashSeed: 5, Log: &memoryLog{}}) }
	entry := func(i int) journal.Entry {
		e, _, err := journal.DecodeEntry(b.log.entries[i])
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	gap := entry(1)
	if err := fresh().Apply(&gap, b.log.entries[1], false); !errors.Is(err, ErrGap) {
		t.Errorf("an entry was left out: %v", err)
	}
	other, first := fresh(), entry(0)
	if err := other.Apply(&first, b.log.entries[0], false); err != nil {
		t.Fatal(err)
	}
	diverged := entry(1)
	diverged.Prev ^= 1
	if err := other.Apply(&diverged, b.log.entries[1], false); !errors.Is(err, ErrGap) {
		t.Errorf("an entry of another history: %v", err)
	}
	old := entry(1)
	old.Epoch = 0
	if err := other.Apply(&old, b.log.entries[1], false); !errors.Is(err, ErrGap) {
		t.Errorf("an entry of an older epoch: %v", err)
	}
	if err := b.db.OpenEpoch(1, b.now); err == nil {
		t.Error("an epoch was opened twice")
	}
}

func TestExecIsOneEntry(t *testing.T) {
	b := open(t)
	before := len(b.log.entries)
	var queued []Queued
	for _, line := range []string{"SET a 1", "INCR a", "LPUSH a x", "SET b 2", "GET a", "BLPOP none 0"} {
		argv := words(line)
		row, err := command.Resolve(argv)
		if err != nil {
			t.Fatal(err)
		}
		queued = append(queued, Queued{row, argv})
	}
	var out resp.Writer
	b.db.RunAll(&Request{Client: &caller{}, Now: b.now, Out: &out}, queued, false)
	want := "*6\r\n+OK\r\n:2\r\n-WRONGTYPE Operation against a key holding the wrong kind of value\r\n+OK\r\n$1\r\n2\r\n*-1\r\n"
	if string(out.Buf) != want {
		t.Errorf("answers %q", out.Buf)
	}
	if n := len(b.log.entries) - before; n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
}

func TestWaitersAreServedInTheOrderTheyCame(t *testing.T) {
	b := open(t)
	var served []string
	b.wait("first", "BLPOP q 0", &served)
	b.wait("second", "BRPOP other q 0", &served)
	b.wait("third", "BLPOP q 0", &served)
	b.want(":2 ", "RPUSH q 1 2")
	if got := strings.Join(served, " | "); got != "first:*2 $1 q $1 1  | second:*2 $1 q $1 2 " {
		t.Errorf("served %s", got)
	}
	if b.db.Waiting() != 1 {
		t.Errorf("%d wait", b.db.Waiting())
	}
	b.want(":0 ", "EXISTS q")
}

func TestServedCommandWakesTheNext(t *testing.T) {
	b := open(t)
	var served []string
	b.wait("mover", "BLMOVE a b LEFT RIGHT 0", &served)
	b.wait("taker", "BLPOP b 0", &served)
	b.want(":1 ", "RPUSH a x")
	if got := strings.Join(served, " | "); got != "mover:$1 x  | taker:*2 $1 b $1 x " {
		t.Errorf("served %s", got)
	}
	b.want(":0 ", "EXISTS a b")
}

func TestWaitThatEndedIsNotServed(t *testing.T) {
	b := open(t)
	var served []string
	p := b.wait("gone", "BLPOP q 1.5", &served)
	if p.Timeout != (1500 * time.Millisecond).Milliseconds() {
		t.Errorf("times out after %d ms", p.Timeout)
	}
	if !b.db.Unpark(p) || b.db.Unpark(p) {
		t.Error("a wait ends once")
	}
	b.do("RPUSH q 1")
	if served != nil || b.db.Waiting() != 0 {
		t.Errorf("served %v", served)
	}
	b.want(":1 ", "LLEN q")
}

func TestWaitingForAListIgnoresOtherTypes(t *testing.T) {
	b := open(t)
	var served []string
	b.wait("one", "BLPOP q 0", &served)
	b.do("SET q text")
	b.do("DEL q")
	b.do("ZADD q 1 m")
	if served != nil {
		t.Fatalf("served %v by another type", served)
	}
	b.do("DEL q")
	b.do("RPUSH q 1")
	if len(served) != 1 {
		t.Errorf("served %v", served)
	}
}

func TestWaitingForSeveralKeysOneOfWhichIsOfAnotherType(t *testing.T) {
	b := open(t)
	var served []string
	b.wait("popper", "BLPOP k1 k2 0", &served)
	b.do("SET k1 text")
	b.do("RPUSH k2 x")
	if got := strings.Join(served, ""); got != "popper:*2 $2 k2 $1 x " {
		t.Errorf("served %q", got)
	}
	served = nil
	b.wait("mover", "BLMOVE from to LEFT LEFT 0", &served)
	b.do("SET to text")
	b.do("RPUSH from x")
	if got := strings.Join(served, ""); got != "mover:-WRONGTYPE Operation against a key holding the wrong kind of value " {
		t.Errorf("with a destination of another type: served %q", got)
	}
	b.want(":1 ", "LLEN from")
}

func TestFullDatabaseRefusesGrowthAndNothingElse(t *testing.T) {
	b := open(t)
	b.db.SetLimits(catalog.Limits{DataBytes: 20_000}, eviction.NoEviction)
	value := strings.Repeat("x", 1000)
	full := ""
	for i := range 100 {
		if got := b.do(fmt.Sprintf("SET k%d %s", i, value)); got != "+OK " {
			full = got
			break
		}
	}
	if full != "-ERR DB capacity quota exceeded " {
		t.Fatalf("a full database answers %q", full)
	}
	b.want("$1000 "+value+" ", "GET k0")
	b.want(":1 ", "EXPIRE k0 100")
	b.want(":2 ", "DEL k0 k1")
	b.want("+OK ", "SET small y")
}

func TestFullDatabaseEvictsWhereThatIsWanted(t *testing.T) {
	b := open(t)
	b.db.SetLimits(catalog.Limits{DataBytes: 20_000}, eviction.OptimisticVolatile)
	value := strings.Repeat("x", 1000)
	for i := range 10 {
		b.want("+OK ", fmt.Sprintf("SET keep%d %s", i, value))
	}
	for i := range 100 {
		b.want("+OK ", fmt.Sprintf("SET cache%d %s EX 100", i, value))
	}
	for i := range 10 {
		b.want(":1 ", fmt.Sprintf("EXISTS keep%d", i)) // those with a deadline go first
	}
	if used := b.db.Keyspace().Used(); used > 22_000 {
		t.Errorf("%d bytes used of 20000", used)
	}
	if b.db.Keyspace().Stats.Evicted == 0 {
		t.Error("nothing was evicted")
	}
}

func TestPoliciesThatSpareAllKeysRefuseGrowth(t *testing.T) {
	b := open(t)
	b.db.SetLimits(catalog.Limits{DataBytes: 20_000}, eviction.VolatileLRU)
	value := strings.Repeat("x", 1000)
	for i := range 100 {
		b.do(fmt.Sprintf("SET k%d %s", i, value))
	}
	b.want("-ERR DB capacity quota exceeded ", "SET one-more "+value)
	b.want(":1 ", "PEXPIRE k3 100000")
	b.want("+OK ", "SET one-more "+value)
	b.want(":0 ", "EXISTS k3")
}

func TestLRUEvictsWhatNobodyAsksFor(t *testing.T) {
	b := open(t)
	b.db.SetLimits(catalog.Limits{DataBytes: 200_000}, eviction.AllKeysLRU)
	b.db.SetSamples(10)
	value := strings.Repeat("x", 1000)
	for i := range 1000 {
		b.now += 100
		b.want("+OK ", fmt.Sprintf("SET k%d %s", i, value))
		for hot := range min(i, 10) {
			b.want("$1000 "+value+" ", fmt.Sprintf("GET k%d", hot))
		}
	}
	b.want(":10 ", "EXISTS k0 k1 k2 k3 k4 k5 k6 k7 k8 k9")
}

// A limit that was lowered far must not make one command pay for all.
func TestALoweredLimitIsReachedInSteps(t *testing.T) {
	b := open(t)
	for i := range 3000 {
		b.do(fmt.Sprintf("SET k%d v", i))
	}
	size := b.db.Keyspace().Used() / 3000
	b.db.SetLimits(catalog.Limits{DataBytes: 100 * size}, eviction.AllKeysRandom)
	b.want("+OK ", "SET another v")
	if n := b.db.Keyspace().Keys(); n != 3000-evictAtOnce+1 {
		t.Errorf("after one command there are %d keys", n)
	}
	before := b.db.Keyspace().Keys()
	if n := b.db.Expire(b.now, 200); n != 200 || b.db.Keyspace().Keys() != before-200 {
		t.Errorf("meanwhile %d keys are evicted", n)
	}
	for range 100 {
		b.db.Expire(b.now, 200)
	}
	if n := b.db.Keyspace().Keys(); n < 90 || n > 100 {
		t.Errorf("%d keys are left", n)
	}
}

func TestExpiredKeysAreDeletedByEntries(t *testing.T) {
	b := open(t)
	for i := range 30 {
		b.do(fmt.Sprintf("SET k%d v PX %d", i, 10+i))
	}
	b.now += 25
	before := len(b.log.entries)
	if n := b.db.Expire(b.now, 10); n != 10 {
		t.Errorf("deleted %d at most 10", n)
	}
	if n := b.db.Expire(b.now, 10); n != 5 {
		t.Errorf("deleted %d, want the other 5", n)
	}
	if n := len(b.log.entries) - before; n != 2 {
		t.Errorf("%d entries", n)
	}
	b.want(":15 ", "DBSIZE")
	if n := b.db.Expire(b.now, 10); n != 0 || len(b.log.entries)-before != 2 {
		t.Errorf("deleted %d more", n)
	}
}

func TestNothingIsWrittenThatTheJournalCanNotKeep(t *testing.T) {
	b := open(t)
	b.do("SET a 1")
	b.log.err = &fs.PathError{Op: "write", Path: "/journal-0/1.seg", Err: syscall.ENOSPC}
	if got := b.do("SET a 2"); !strings.HasPrefix(got, "-MISCONF ") || !strings.Contains(got, "disk of this node is full") || strings.Contains(got, "/journal") {
		t.Errorf("answers %q", got)
	}
	b.want("$1 1 ", "GET a")
	b.log.err = nil
	b.want("+OK ", "SET a 2")
}

func TestPanicClosesThisDatabaseOnly(t *testing.T) {
	b, neighbour := open(t), open(t)
	row := &command.Row{Name: "BOOM", Read: func(*keyspace.View, *command.Args, *resp.Writer) error { panic("a bug") }}
	var out resp.Writer
	b.db.Run(&Request{Client: &caller{}, Row: row, Argv: words("BOOM"), Now: b.now, Out: &out})
	if !strings.HasPrefix(string(out.Buf), "-ERR this database was closed") || b.db.Err() == nil {
		t.Errorf("answers %q, err %v", out.Buf, b.db.Err())
	}
	if got := b.do("GET a"); !strings.HasPrefix(got, "-ERR this database was closed") {
		t.Errorf("afterwards it answers %q", got)
	}
	neighbour.want("+OK ", "SET a 1")
}

func TestPanicAnswersThoseWhoWait(t *testing.T) {
	b := open(t)
	var served []string
	b.wait("first", "BLPOP a b 0", &served)
	b.wait("second", "BLPOP b 0", &served)
	row := &command.Row{Name: "BOOM", Write: func(*keyspace.Tx, *command.Args, *resp.Writer) error { panic("a bug") }}
	b.db.Run(&Request{Client: &caller{}, Row: row, Argv: words("BOOM"), Now: b.now, Out: &resp.Writer{}})
	if len(served) != 2 || !strings.HasPrefix(served[0], "first:-ERR this database was closed") || !strings.HasPrefix(served[1], "second:-ERR") {
		t.Errorf("told: %q", served)
	}
	if b.db.Waiting() != 0 {
		t.Errorf("%d still wait", b.db.Waiting())
	}
}

func TestPanicOfAWaitingCommandClosesTheDatabase(t *testing.T) {
	b := open(t)
	tries := 0
	row := &command.Row{Name: "BOOM", Write: func(_ *keyspace.Tx, args *command.Args, _ *resp.Writer) error {
		if tries++; tries > 1 {
			panic("a bug")
		}
		return args.Wait(0, args.Rest())
	}}
	var served []string
	var out resp.Writer
	if b.db.Run(&Request{Client: &caller{}, Row: row, Argv: words("BOOM a"), Now: b.now, Out: &out, Wait: waiter{"it", &served}}) == nil {
		t.Fatal("doesn't wait")
	}
	if got := b.do("RPUSH a 1"); !strings.HasPrefix(got, "-ERR this database was closed") {
		t.Errorf("RPUSH answers %q", got)
	}
	if len(served) != 1 || b.db.Err() == nil {
		t.Errorf("told: %q, err %v", served, b.db.Err())
	}
}

func TestRecoveryReplaysEntriesAndKnowsTheFirstThatIsNotSaved(t *testing.T) {
	b := open(t)
	b.do("SET a 1")
	b.do("RPUSH l x y z")
	b.do("LPOP l")
	again := New(Config{ID: 1, HashSeed: 5, Log: &memoryLog{}})
	for i, raw := range b.log.entries {
		e, _, err := journal.DecodeEntry(raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Recover(journal.Offset(100+i), &e, false); err != nil {
			t.Fatal(err)
		}
	}
	if again.Position() != b.db.Position() || again.HistoryHash() != b.db.HistoryHash() || again.Clock() != b.db.Clock() {
		t.Errorf("recovered %v, want %v", again.Position(), b.db.Position())
	}
	if again.FirstUnsaved() != 100 {
		t.Errorf("the first entry that isn't saved is at %d", again.FirstUnsaved())
	}
	if dumpOf(again) != dumpOf(b.db) {
		t.Error("the content is another")
	}
	e, _, _ := journal.DecodeEntry(b.log.entries[1])
	if err := again.Recover(1, &e, false); !errors.Is(err, ErrGap) {
		t.Errorf("an old entry: %v", err)
	}
}

func dumpOf(db *DB) string {
	var at keyspace.Cursor
	var records []byte
	for !at.Done() {
		records = db.Keyspace().Dump(records, &at, 100)
	}
	return string(records)
}

// The commands of a forwarding session go on from within Served.
type chained struct {
	b    *bench
	line string
	got  *[]string
}

func (c chained) Served(reply []byte) {
	*c.got = append(*c.got, strings.ReplaceAll(string(reply), "\r\n", " "), c.b.do(c.line))
}

func TestServedMayRunCommands(t *testing.T) {
	b := open(t)
	var first, second []string
	var out resp.Writer
	b.db.Run(b.request("BLPOP a 0", &out, chained{b, "RPUSH b 2", &first}))
	b.db.Run(b.request("BLPOP b 0", &out, chained{b, "INCR n", &second}))
	var exec resp.Writer
	queued := []Queued{}
	for _, line := range []string{"RPUSH a 1", "SET x 1", "RPUSH a 2"} {
		row, _ := command.Resolve(words(line))
		queued = append(queued, Queued{row, words(line)})
	}
	b.db.RunAll(&Request{Client: &caller{}, Now: b.now, Out: &exec}, queued, false)
	if got := strings.ReplaceAll(string(exec.Buf), "\r\n", " "); got != "*3 :1 +OK :2 " {
		t.Errorf("EXEC answers %q", got)
	}
	if fmt.Sprint(first, second) != "[*2 $1 a $1 1  :1 ] [*2 $1 b $1 2  :1 ]" {
		t.Errorf("told: %q %q", first, second)
	}
	b.want("*1 $1 2 ", "LRANGE a 0 -1")
	b.want(":0 ", "LLEN b")
	// The epoch, the transaction, then pop and what came of it.
	if n := len(b.log.entries); n != 6 {
		t.Errorf("%d entries", n)
	}
}
