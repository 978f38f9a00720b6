package engine

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"vecino/command"
	"vecino/journal"
	"vecino/keyspace"
	"vecino/resp"
)

// storage is a tier in a map that answers when it is told to.
type storage struct {
	db      *DB
	records map[string]keyspace.Stored
	asked   []keyspace.ColdKey // not answered
	wakes   int
}

func (s *storage) Fetch(_ *DB, keys []keyspace.ColdKey) { s.asked = append(s.asked, keys...) }
func (s *storage) Wake(*DB)                             { s.wakes++ }

// answer gives the oldest that was asked for.
func (s *storage) answer(now int64, err error) {
	k := s.asked[0]
	s.asked = s.asked[1:]
	w, bad := keyspace.Answer(s.db.HashSeed(), k, maps.All(s.records))
	if err == nil {
		err = bad
	}
	s.db.Fetched(now, k, w, err)
}

// sweep writes all keys to the tier.
func (s *storage) sweep() (swept []keyspace.ColdKey) {
	ks := s.db.ks
	ks.KeepApart()
	g := ks.TakeGraves()
	for grave := range g.Keys() {
		delete(s.records, string(grave.Key))
	}
	for at := (keyspace.Cursor{}); !at.Done(); {
		ks.Sweep(&at, 0, 100, func(r *keyspace.Record) {
			s.records[string(r.Key)] = s.records[string(r.Key)].Put(r)
			swept = append(swept, keyspace.ColdKey{DB: r.DB, Hash: r.Hash, Key: bytes.Clone(r.Key), Seq: r.Seq})
		})
	}
	return swept
}

// freeze has all values leave memory, and returns how many did.
func (s *storage) freeze() (n int) {
	for _, k := range s.sweep() {
		if s.db.Offload(k.DB, k.Hash, k.Key, k.Seq) > 0 {
			n++
		}
	}
	return n
}

// sink has all keys sink that have no deadline, and returns how many did.
func (s *storage) sink() (n int) {
	s.freeze()
	n, _ = s.db.Sink(keyspace.Sinking{Looks: 1000, Part: 1}, s.db.fetches.now)
	return n
}

// answerAll gives all that is asked for, and what that leads to.
func (s *storage) answerAll(now int64) {
	for len(s.asked) > 0 {
		s.answer(now, nil)
	}
}

func (s *storage) wanted() string {
	var keys []string
	for _, k := range s.asked {
		switch {
		case k.Last != 0:
			keys = append(keys, "range")
		case k.Bare:
			keys = append(keys, string(k.Key)+"(bare)")
		default:
			keys = append(keys, string(k.Key))
		}
	}
	return strings.Join(keys, " ")
}

// coldBench is a bench with a tier.
type coldBench struct {
	*bench
	tier *storage
}

func openCold(t *testing.T) *coldBench {
	b := open(t)
	s := &storage{db: b.db, records: map[string]keyspace.Stored{}}
	b.db.cfg.Storage = s
	return &coldBench{b, s}
}

// offered is a command that is offered again when it can be run.
type offered struct {
	b      *coldBench
	line   string
	p      *Parked
	reply  string
	served []string
}

func (o *offered) Loaded(err error) {
	if err != nil {
		o.reply = "-" + command.Reply(err)
		return
	}
	o.run()
}

func (o *offered) Served(reply []byte) { o.reply = strings.ReplaceAll(string(reply), "\r\n", " ") }

func (o *offered) run() {
	var out resp.Writer
	o.p = nil
	if lines := strings.Split(o.line, "; "); len(lines) > 1 {
		var queued []Queued
		for _, line := range lines {
			r := o.b.request(line, &out, nil)
			queued = append(queued, Queued{r.Row, r.Argv})
		}
		o.p = o.b.db.RunAll(&Request{Client: &caller{}, Now: o.b.now, Out: &out, Load: o}, queued, false)
	} else {
		r := o.b.request(o.line, &out, o)
		r.Load = o
		o.p = o.b.db.Run(r)
	}
	if o.p == nil {
		o.reply = strings.ReplaceAll(string(out.Buf), "\r\n", " ")
	} else if len(out.Buf) > 0 {
		o.b.t.Errorf("%s waits and answers %q", o.line, out.Buf)
	}
}

// offer runs a command, or has it wait.
func (b *coldBench) offer(line string) *offered {
	b.t.Helper()
	o := &offered{b: b, line: line}
	o.run()
	return o
}

func (o *offered) want(reply string) {
	o.b.t.Helper()
	if o.reply != reply {
		o.b.t.Errorf("%s answers %q, want %q", o.line, o.reply, reply)
	}
}

func TestAValueIsFetchedOnceForAllWhoNeedIt(t *testing.T) {
	b := openCold(t)
	b.do("SET a 1")
	b.do("SET b 2")
	if b.tier.freeze() != 2 {
		t.Fatal("not all values are on disk")
	}
	entries := len(b.log.entries)
	first, second, both := b.offer("GET a"), b.offer("INCR a"), b.offer("MGET a b none")
	for _, o := range []*offered{first, second, both} {
		if o.p == nil || !o.p.Unrun() {
			t.Fatalf("%s is answered: %q", o.line, o.reply)
		}
	}
	if b.tier.wanted() != "a b" {
		t.Errorf("asked for %q", b.tier.wanted())
	}
	b.want(":1 ", "EXISTS b") // others go on
	b.want("+OK ", "SET c 3")
	b.tier.answer(b.now, nil)
	first.want("$1 1 ")
	second.want(":2 ")
	both.want("")
	b.tier.answer(b.now, nil)
	both.want("*3 $1 2 $1 2 $-1 ")
	if n, _ := b.db.ks.Cold(); n != 0 || b.db.Loading() != 0 || len(b.db.fetches.pinned) != 0 {
		t.Errorf("%d keys cold, %d on their way, pinned %v", n, b.db.Loading(), b.db.fetches.pinned)
	}
	if len(b.log.entries) != entries+2 {
		t.Errorf("%d entries by two writes", len(b.log.entries)-entries)
	}
	if s := b.db.stats; s.Cold != 3 || s.Fetches != 2 {
		t.Errorf("stats: %+v", s)
	}
}

func TestWhatCannotBeReadIsToldAndNothingIsLost(t *testing.T) {
	b := openCold(t)
	b.do("RPUSH l x")
	b.tier.freeze()
	o := b.offer("RPUSH l y")
	b.tier.answer(b.now, errors.New("bad sector"))
	if !strings.HasPrefix(o.reply, "-ERR the value could not be read from disk") {
		t.Errorf("it answers %q", o.reply)
	}
	o = b.offer("RPUSH l y")
	record := b.tier.records["l"]
	b.tier.records["l"] = keyspace.Stored{Head: record.Head, Body: record.Body[:1]} // damaged
	b.tier.answer(b.now, nil)
	if !strings.HasPrefix(o.reply, "-ERR the value could not be read from disk") {
		t.Errorf("a damaged value: it answers %q", o.reply)
	}
	o = b.offer("RPUSH l y")
	b.tier.records["l"] = record
	b.tier.answer(b.now, nil)
	o.want(":2 ")
	if b.db.stats.FetchErrors != 2 || b.db.Err() != nil {
		t.Errorf("%d errors counted, closed: %v", b.db.stats.FetchErrors, b.db.Err())
	}
	// An error is none for who doesn't need the value any more.
	b.tier.freeze()
	o = b.offer("LRANGE l 0 -1")
	b.do("DEL l")
	b.do("RPUSH l z")
	b.tier.answer(b.now, errors.New("bad sector"))
	o.want("*1 $1 z ")
}

func TestAValueOfAnotherTimeIsNotAskedForAgainAndAgain(t *testing.T) {
	b := openCold(t)
	b.do("SET a 1")
	b.tier.freeze()
	old := b.tier.records["a"]
	o := b.offer("INCR a")
	b.tier.answer(b.now, nil)
	o.want(":2 ")
	b.tier.freeze()
	now := b.tier.records["a"]
	b.tier.records["a"] = old // the tier has gone back
	o = b.offer("GET a")
	b.tier.answer(b.now, nil)
	if !strings.HasPrefix(o.reply, "-ERR the value could not be read from disk") || len(b.tier.asked) > 0 {
		t.Errorf("it answers %q and asks for %q", o.reply, b.tier.wanted())
	}
	// What was asked for, and was put there anew meanwhile, is asked for as it is.
	b.tier.records["a"] = now
	o = b.offer("GET a")
	b.do("SET a 3")
	b.tier.sweep()
	for _, k := range b.tier.sweep() {
		b.db.ks.Offload(k.DB, k.Hash, k.Key, k.Seq)
	}
	asked := b.tier.asked[0]
	b.tier.asked = nil
	w, err := now.Thaw(b.db.HashSeed(), nil)
	b.db.Fetched(b.now, asked, w, err)
	o.want("")
	b.tier.answer(b.now, nil)
	o.want("$1 3 ")
}

func TestAClientThatIsGoneIsNotOfferedAgain(t *testing.T) {
	b := openCold(t)
	b.do("SET a 1")
	b.tier.freeze()
	gone, stays := b.offer("INCR a"), b.offer("INCR a")
	if !b.db.Unpark(gone.p) || b.db.Unpark(gone.p) {
		t.Error("it isn't told that the command was waiting")
	}
	b.tier.answer(b.now, nil)
	gone.want("")
	stays.want(":2 ")
}

// A transaction runs when the values of all its commands are there, not before.
func TestATransactionHasAllItNeedsBeforeItBegins(t *testing.T) {
	b := openCold(t)
	b.do("SET a 1")
	b.do("RPUSH l x")
	b.do("SET blind 1")
	b.do("SET get 1")
	b.tier.freeze()
	o := b.offer("INCR a; SET blind 2; SET get 2 GET; SELECT 3; INCR a; SELECT 0; LPOP l")
	if b.tier.wanted() != "a get l" {
		t.Errorf("asked for %q", b.tier.wanted())
	}
	before := len(b.log.entries)
	b.tier.answer(b.now, nil)
	b.tier.answer(b.now, nil)
	if len(b.log.entries) != before || o.reply != "" {
		t.Error("it began without all values")
	}
	// What it waits for stays in memory.
	for _, k := range b.tier.sweep() {
		if string(k.Key) == "a" && b.db.Offload(k.DB, k.Hash, k.Key, k.Seq) != 0 {
			t.Error("a value leaves memory that a command waits with")
		}
	}
	b.tier.answer(b.now, nil)
	o.want("*7 :2 +OK $1 1 +OK :1 +OK $1 x ")
	if len(b.log.entries) != before+1 {
		t.Errorf("%d entries", len(b.log.entries)-before)
	}
}

func TestWhatStandsBehindIsFetchedAtOnce(t *testing.T) {
	b := openCold(t)
	for _, key := range []string{"a", "b", "c"} {
		b.do("SET " + key + " " + key)
	}
	b.tier.freeze()
	o := b.offer("GET a")
	for _, line := range []string{"GET b", "DEL c", "GET a", "PING", "GET none"} {
		r := b.request(line, nil, nil)
		b.db.Ahead(o.p, 0, r.Row, r.Argv)
	}
	if b.tier.wanted() != "a b" {
		t.Errorf("asked for %q", b.tier.wanted())
	}
	b.tier.answer(b.now, nil)
	o.want("") // it comes with the others
	b.tier.answer(b.now, errors.New("bad sector"))
	o.want("$1 a ") // not its value
}

func TestAParkedCommandFindsItsDestinationOnDisk(t *testing.T) {
	b := openCold(t)
	o := b.offer("BLMOVE from to LEFT LEFT 0")
	if o.p == nil || o.p.Unrun() {
		t.Fatal("it doesn't wait for an element")
	}
	b.do("RPUSH to x")
	if b.tier.freeze() != 0 {
		t.Error("what a waiting command names leaves memory")
	}
	for _, k := range b.tier.sweep() { // a host that doesn't care
		b.db.ks.Offload(k.DB, k.Hash, k.Key, k.Seq)
	}
	b.do("RPUSH from y")
	o.want("")
	b.tier.answer(b.now, nil)
	o.want("$1 y ")
	b.want("*2 $1 y $1 x ", "LRANGE to 0 -1")
	if b.db.Waiting() != 0 || len(b.db.parked.needs) != 0 {
		t.Errorf("%d wait, needs %v", b.db.Waiting(), b.db.parked.needs)
	}
}

func TestAReplicaFetchesWhatItsEntriesNeed(t *testing.T) {
	b := openCold(t)
	const keys = 3 * mostBackground
	for i := range keys {
		b.do(fmt.Sprintf("RPUSH l%d x", i))
	}
	other := New(Config{ID: 1, HashSeed: 5, Log: &memoryLog{}})
	tier := &storage{db: other, records: map[string]keyspace.Stored{}}
	other.cfg.Storage = tier
	applied := 0
	apply := func() {
		t.Helper()
		for ; applied < len(b.log.entries); applied++ {
			e, _, err := journal.DecodeEntry(b.log.entries[applied])
			if err == nil {
				err = other.Apply(&e, b.log.entries[applied], false)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	apply()
	if tier.freeze() != keys {
		t.Fatal("not all is on disk")
	}
	for i := range keys {
		b.do(fmt.Sprintf("RPUSH l%d y", i))
		b.do(fmt.Sprintf("RPUSH l%d z", i))
	}
	apply()
	if len(tier.asked) != mostBackground {
		t.Errorf("%d values asked for", len(tier.asked))
	}
	b.do("FLUSHALL")
	b.do("RPUSH l0 new")
	apply()
	for n := 0; len(tier.asked) > 0; n++ {
		if n > keys {
			t.Fatal("it asks again and again")
		}
		tier.answer(b.now, nil)
	}
	if contents(other) != contents(b.db) || other.Loading() != 0 || other.fetches.background != 0 {
		t.Error("the copy has another content")
	}
}

func TestADatabaseSleepsAndIsWokenByACommand(t *testing.T) {
	b := openCold(t)
	b.do("SET a 1 PX 5000")
	b.do("SADD s x y")
	size := b.db.Sizes()
	if b.db.Sleep() {
		t.Fatal("it sleeps with entries that only the journal has")
	}
	b.tier.sweep()
	b.db.SetUnsaved(0)
	if !b.db.Sleep() || b.db.State() != Asleep {
		t.Fatal("it doesn't sleep")
	}
	if got := b.db.Sizes(); got.Used != size.Used || got.Keys != 2 || got.Resident != 0 || b.db.NextExpiry() != b.now+5000 {
		t.Errorf("asleep: %+v, next expiry %d", got, b.db.NextExpiry())
	}
	if b.db.Expire(b.now+1_000_000, 10) != 0 {
		t.Error("it expires keys asleep")
	}
	get, exec := b.offer("GET a"), b.offer("SCARD s; GET a")
	if b.tier.wakes != 1 || b.db.State() != Waking {
		t.Fatalf("woken %d times", b.tier.wakes)
	}
	b.db.Woken(b.now, nil, errors.New("bad sector"))
	for _, o := range []*offered{get, exec} {
		if !strings.HasPrefix(o.reply, "-ERR the database could not be read from disk") {
			t.Errorf("%s answers %q", o.line, o.reply)
		}
	}
	get, exec = b.offer("INCR a"), b.offer("SCARD s; GET a")
	ks := b.db.NewKeyspace()
	for key, r := range b.tier.records {
		if err := ks.LoadHead(0, []byte(key), r.Head); err != nil {
			t.Fatal(err)
		}
	}
	pos := b.db.Position()
	b.db.Woken(b.now, ks, nil)
	for len(b.tier.asked) > 0 {
		b.tier.answer(b.now, nil)
	}
	get.want(":2 ")
	exec.want("*2 :2 $1 2 ")
	if b.db.Position().Seq != pos.Seq+1 || b.db.State() != Awake || b.db.Sizes().Keys != 2 || b.db.stats.Wakes != 1 {
		t.Errorf("awake: at %v, %+v", b.db.Position(), b.db.Sizes())
	}
}

// What is on its way for a content that is no more, comes to nothing.
func TestASnapshotComesWhileValuesAreFetched(t *testing.T) {
	b := openCold(t)
	b.do("SET a 1")
	b.tier.freeze()
	o := b.offer("GET a")
	ks := b.db.Install(b.db.Position(), b.db.HistoryHash(), b.now)
	o.want("$-1 ") // run on the new content, which is empty so far
	old := b.tier.records["a"]
	if err := ks.LoadHead(0, []byte("a"), old.Head); err != nil { // the same key and seq, of another history
		t.Fatal(err)
	}
	again := b.offer("GET a")
	if len(b.tier.asked) != 1 {
		t.Errorf("%d on their way", len(b.tier.asked))
	}
	b.tier.answer(b.now, nil)
	again.want("")
	b.tier.answer(b.now, nil)
	again.want("$1 1 ")
}

func TestADatabaseThatIsClosedAnswersThoseWhoWait(t *testing.T) {
	b := openCold(t)
	b.do("SET a 1")
	b.tier.freeze()
	o := b.offer("GET a")
	row := command.Row{Name: "PANIC", Write: func(*keyspace.Tx, *command.Args, *resp.Writer) error { panic("planted") }}
	var out resp.Writer
	b.db.Run(&Request{Client: &caller{}, Row: &row, Argv: words("PANIC"), Now: b.now, Out: &out})
	o.want("-" + string(errClosed) + " ")
	b.tier.answer(b.now, nil)
	if b.db.Loading() != 0 {
		t.Error("something is on its way")
	}
}

// What a row says of the values that it needs is so.
func TestRowsThatNeedNoValueWorkOnColdKeys(t *testing.T) {
	run := map[string]string{
		"del": "DEL k", "unlink": "UNLINK k", "exists": "EXISTS k", "touch": "TOUCH k", "type": "TYPE k", "persist": "PERSIST k",
		"expire": "EXPIRE k 100", "pexpire": "PEXPIRE k 100", "expireat": "EXPIREAT k 99999", "pexpireat": "PEXPIREAT k 99999999",
		"ttl": "TTL k", "pttl": "PTTL k", "expiretime": "EXPIRETIME k", "pexpiretime": "PEXPIRETIME k",
		"object|refcount": "OBJECT REFCOUNT k", "object|idletime": "OBJECT IDLETIME k", "object|freq": "OBJECT FREQ k", "memory|usage": "MEMORY USAGE k",
		"set": "SET k v KEEPTTL", "setnx": "SETNX k v", "setex": "SETEX k 100 v", "psetex": "PSETEX k 100 v", "mset": "MSET k v j w", "msetnx": "MSETNX j w k v",
	}
	var rows []*command.Row
	for _, row := range command.All() {
		rows = append(rows, row)
		for i := range row.Sub {
			rows = append(rows, &row.Sub[i])
		}
	}
	for _, row := range rows {
		line, listed := run[row.FullName()]
		if !row.Has(command.KeyOnly) {
			if listed {
				t.Errorf("%s is not in the table as one that needs no value", row.FullName())
			}
			continue
		}
		if !listed {
			t.Errorf("%s: want a command to try", row.FullName())
			continue
		}
		for _, set := range []string{"SET k v", "HSET k f v", "RPUSH k v", "SADD k v", "ZADD k 1 v"} {
			b := openCold(t)
			b.do(set)
			b.do("PEXPIRE k 5000")
			if b.tier.freeze() != 1 {
				t.Fatalf("%s isn't on disk", set)
			}
			for _, o := range []*offered{b.offer(line + "; EXISTS k"), b.offer(line)} {
				if o.p != nil || len(b.tier.asked) > 0 {
					t.Errorf("%s, then %s: asks for %q", set, o.line, b.tier.wanted())
				}
			}
		}
	}
	b := openCold(t)
	b.do("SET k v")
	b.tier.freeze()
	if o := b.offer("SET k w GET"); o.p == nil || !slices.Equal([]string{"k"}, strings.Fields(b.tier.wanted())) {
		t.Errorf("SET with GET asks for %q", b.tier.wanted())
	}
}
