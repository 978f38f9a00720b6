package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"vecino/journal"
	"vecino/keyspace"
	"vecino/resp"
)

// sunken is a bench all of whose keys are sunk.
func sunken(t *testing.T, lines ...string) *coldBench {
	b := openCold(t)
	for _, line := range lines {
		b.do(line)
	}
	if n := b.tier.sink(); n != b.db.ks.Keys() || n != b.db.ks.Sunk() {
		t.Fatalf("%d of %d keys have sunk", n, b.db.ks.Keys())
	}
	return b
}

func TestCommandsOnSunkKeys(t *testing.T) {
	for _, c := range []struct{ line, asks, reply string }{
		{"GET a", "a", "$1 1 "},
		{"GET none", "", "$-1 "},
		{"MGET a none b", "a b", "*3 $1 1 $-1 $1 2 "},
		{"EXISTS a b none", "a(bare) b(bare)", ":2 "},
		{"TYPE l", "l(bare)", "+list "},
		{"TTL a", "a(bare)", ":-1 "},
		{"OBJECT ENCODING a", "a", "$3 int "},
		{"LRANGE a 0 -1", "a", "-WRONGTYPE Operation against a key holding the wrong kind of value "},
		{"SET a 5", "", "+OK "},
		{"SET a 5 EX 100", "", "+OK "},
		{"SET a 5 KEEPTTL", "", "+OK "},
		{"SETEX a 100 5", "", "+OK "},
		{"PSETEX a 100000 5", "", "+OK "},
		{"MSET a 5 none 6 b 7", "", "+OK "},
		{"SET a 5 PXAT 1", "a(bare)", "+OK "},
		{"SET a 5 XX", "a(bare)", "+OK "},
		{"SET a 5 NX", "a(bare)", "$-1 "},
		{"SETNX a 5", "a(bare)", ":0 "},
		{"MSETNX none 6 a 5", "a(bare)", ":0 "},
		{"GETSET a 5", "a", "$1 1 "},
		{"SET a 5 GET", "a", "$1 1 "},
		{"SET none 5 NX", "", "+OK "},
		{"INCR a", "a", ":2 "},
		{"INCR none", "", ":1 "},
		{"APPEND none x", "", ":1 "},
		{"DEL a none b", "a(bare) b(bare)", ":2 "},
		{"EXPIRE a 10", "a(bare)", ":1 "},
		{"PERSIST a", "a(bare)", ":0 "},
		{"RENAME a b", "a b", "+OK "},
		{"RENAMENX a b", "a b", ":0 "},
		{"COPY a c", "a", ":1 "},
		{"COPY a b", "a b", ":0 "},
		{"COPY a other DB 3", "a other(bare)", ":0 "},
		{"COPY a other DB 3 REPLACE", "a other(bare)", ":1 "},
		{"MOVE a 3", "a", ":1 "},
		{"RPUSH l y", "l", ":2 "},
		{"LMOVE l none LEFT LEFT", "l", "$1 x "},
		{"BLPOP none l 0", "l", "*2 $1 l $1 x "},
		{"SUNIONSTORE b s", "b s", ":1 "},
		{"DBSIZE", "", ":6 "},
		{"FLUSHDB", "", "+OK "},
	} {
		t.Run(c.line, func(t *testing.T) {
			b := sunken(t, "SET a 1", "SET b 2", "RPUSH l x", "SADD s m", "ZADD z 1 m", "HSET h f v")
			if strings.Contains(c.line, "other") {
				b.inDB3("SET other 1")
				b.tier.sink()
			}
			used := b.db.ks.Used()
			o := b.offer(c.line)
			if got := b.tier.wanted(); got != c.asks {
				t.Errorf("it asks for %q, not %q", got, c.asks)
			}
			if (o.p != nil) != (c.asks != "") {
				t.Errorf("it waits: %v", o.p != nil)
			}
			if b.db.ks.Used() != used && c.asks != "" {
				t.Error("it has changed something before it waits")
			}
			b.tier.answerAll(b.now)
			o.want(c.reply)
			if len(b.db.fetches.under)+len(b.db.fetches.prints)+len(b.db.fetches.pinned) > 0 {
				t.Errorf("something is left: %+v", b.db.fetches)
			}
			again := b.do("EXISTS a b none")
			b.db.ks.View(0, b.now, nil)
			b.want(again, "EXISTS a b none")
		})
	}
}

// inDB3 runs a command in logical database 3.
func (b *coldBench) inDB3(line string) {
	var queued []Queued
	for _, l := range []string{"SELECT 3", line, "SELECT 0"} {
		r := b.request(l, new(resp.Writer), nil)
		queued = append(queued, Queued{r.Row, r.Argv})
	}
	r := b.request(line, new(resp.Writer), nil)
	if p := b.db.RunAll(r, queued, false); p != nil {
		b.t.Fatalf("%s waits", line)
	}
}

// What looks at all keys has those surface that it needs, and tells of each once.
func TestScansOfSunkKeys(t *testing.T) {
	b := openCold(t)
	for i := range 200 {
		b.do(fmt.Sprintf("SET k%d v", i))
	}
	b.tier.sink()
	for i := range 100 {
		b.do(fmt.Sprintf("SET hot%d v", i))
	}
	seen := map[string]bool{}
	cursor := "0"
	for first := true; first || cursor != "0"; first = false {
		o := b.offer("SCAN " + cursor + " COUNT 7")
		b.tier.answerAll(b.now)
		words := strings.Fields(o.reply) // *2 $n cursor *n $n key $n key ...
		cursor = words[2]
		for i := 5; i < len(words); i += 2 {
			if seen[words[i]] {
				t.Errorf("%s comes twice", words[i])
			}
			seen[words[i]] = true
		}
		if n, freed := b.db.Sink(sinkAll, b.now+1<<20); n == 0 && freed != 0 {
			t.Error("it frees memory by nothing")
		}
	}
	if len(seen) != 300 {
		t.Errorf("SCAN gives %d keys", len(seen))
	}
	b.tier.sink()
	o := b.offer("KEYS k1?")
	b.tier.answerAll(b.now)
	if n := len(strings.Fields(o.reply)); n != 21 {
		t.Errorf("KEYS answers %s", o.reply)
	}
	if n := b.db.ks.Sunk(); n != 300 {
		t.Errorf("%d keys are sunk after KEYS", n)
	}
	o = b.offer("KEYS *") // while keys come and go, and sink
	for i := 0; len(b.tier.asked) > 0; i++ {
		b.tier.answer(b.now, nil)
		switch i {
		case 3:
			get := b.offer("MGET k1 k2 k3")
			for range 4 {
				b.tier.answer(b.now, nil)
			}
			get.want("*3 $1 v $1 v $1 v ")
			b.do("DEL k1")
			b.do("SET new v")
		case 10:
			b.tier.sink()
		}
	}
	if n := len(strings.Fields(o.reply)); n != 1+2*300 {
		t.Errorf("KEYS gives %d keys", n/2)
	}
	b.tier.sink()
	o = b.offer("SCAN 0 COUNT 30")
	b.tier.answerAll(b.now)
	b.do("SET hot v")
	was := b.db.ks.Sunk()
	if b.tier.sink(); b.db.ks.Sunk() > was+1 {
		t.Errorf("%d keys sink before who asked for them has been told", b.db.ks.Sunk()-was)
	}
	if n, _ := b.db.Sink(sinkAll, b.now+stay); n < 20 {
		t.Error("no keys sink any more")
	}
	b.tier.sink()
	for range 20 {
		o := b.offer("RANDOMKEY")
		b.tier.answerAll(b.now)
		words := strings.Fields(o.reply) // $n key
		if len(words) != 2 {
			t.Fatalf("RANDOMKEY answers %q", o.reply)
		}
		there := b.offer("EXISTS " + words[1])
		b.tier.answerAll(b.now)
		there.want(":1 ")
	}
}

func TestTransactionsOnSunkKeys(t *testing.T) {
	for line, reply := range map[string]string{
		"INCR a; INCR b; INCR none":            "*3 :2 :3 :1 ",
		"DEL a; EXISTS a; SET b 1 NX":          "*3 :1 :0 $-1 ",
		"SET x 1; KEYS *; DEL x":               "*3 +OK *3 $1 x $1 b $1 a :1 ",
		"DEL a; SCAN 0":                        "*2 :1 *2 $1 0 *1 $1 b ",
		"DEL a; SCAN 0 COUNT 1; RANDOMKEY":     "",
		"RANDOMKEY; RANDOMKEY; RANDOMKEY":      "",
		"SET c 1; SELECT 3; DBSIZE; RANDOMKEY": "*4 +OK +OK :0 $-1 ",
		"COPY a b DB 3; DEL b; MOVE a 5":       "*3 :1 :1 :1 ",
	} {
		b := sunken(t, "SET a 1", "SET b 2")
		o := b.offer(line)
		b.tier.answerAll(b.now)
		if o.p != nil || b.db.Err() != nil || strings.Contains(o.reply, "-ERR") {
			t.Errorf("%s: waits %v, %v, answers %q", line, o.p != nil, b.db.Err(), o.reply)
		}
		if reply != "" {
			o.want(reply)
		}
	}
}

// A key that is not there, but has the fingerprint of one that is sunk, or had a
// record until now.
func TestWhatIsPerhapsThereAndIsNot(t *testing.T) {
	b := sunken(t, "SET a 1", "SET b 2")
	o := b.offer("GET a")
	delete(b.tier.records, "a") // as if another had a's fingerprint
	b.tier.answer(b.now, nil)
	if !strings.HasPrefix(o.reply, "-ERR the value could not be read") {
		t.Errorf("it answers %q, and the tier has lost a key", o.reply)
	}

	b = sunken(t, "SET a 1", "SET b 2")
	record := b.tier.records["a"]
	o = b.offer("DEL a")
	b.tier.answerAll(b.now)
	o.want(":1 ")
	b.want("$-1 ", "GET a")
	b.want("+OK ", "SET a 3 NX")
	b.want(":1 ", "DEL a")
	_ = b.db.ks.TakeGraves() // a session has begun, and the tier still has it
	b.tier.records["a"] = record
	b.want("$-1 ", "GET a")
	if n := len(b.tier.asked); n != 0 {
		t.Errorf("%d keys are asked for", n)
	}
}

func TestNoKeySinksThatIsAskedForOrWaitedFor(t *testing.T) {
	b := sunken(t, "SET a 1", "SET b 2")
	o, other := b.offer("MGET a b"), b.offer("GET a")
	b.tier.answer(b.now, nil) // a is here, b isn't yet
	other.want("$1 1 ")
	if b.tier.sink() != 0 || b.db.ks.Sunk() != 1 {
		t.Errorf("%d keys are sunk", b.db.ks.Sunk())
	}
	b.tier.answer(b.now, nil)
	o.want("*2 $1 1 $1 2 ")
	if b.tier.sink() != 2 {
		t.Error("they don't sink again")
	}
	waits := b.offer("BLPOP x y 0")
	b.do("RPUSH x 1")
	waits.want("*2 $1 x $1 1 ")
}

// Guests leave as they came: at a primary those that were sunk sink, elsewhere their values
// leave. One that somebody waits for stays.
func TestGuestsLeaveAsTheyCame(t *testing.T) {
	ask := func() (*coldBench, *offered) {
		b := sunken(t, "SET a 1", "SET b 2")
		o := b.offer("MGET a b")
		b.tier.answer(b.now, nil) // a is here, b isn't yet
		return b, o
	}
	b, o := ask()
	if values, keys, _ := b.db.Leave(10, 0, true, b.now); values+keys != 0 {
		t.Errorf("%d values and %d keys leave that are waited for", values, keys)
	}
	b.tier.answer(b.now, nil)
	o.want("*2 $1 1 $1 2 ")
	if values, keys, freed := b.db.Leave(10, 0, true, b.now); values != 1 || keys != 1 || freed <= 0 || b.db.ks.Sunk() != 1 {
		t.Errorf("%d values and %d keys leave, %d bytes; %d are sunk", values, keys, freed, b.db.ks.Sunk())
	}
	b = sunken(t, "SET a 1", "SET b 2") // and the same of keys without their values
	o = b.offer("EXISTS a b")
	b.tier.answer(b.now, nil)
	if _, keys, _ := b.db.Leave(10, 0, true, b.now); keys != 0 {
		t.Errorf("%d keys sink that are waited for", keys)
	}
	b.tier.answer(b.now, nil)
	o.want(":2 ")
	b, o = ask()
	b.tier.answerAll(b.now)
	o.want("*2 $1 1 $1 2 ")
	if values, keys, freed := b.db.Leave(10, 0, false, b.now); values != 2 || keys != 0 || freed <= 0 || b.db.ks.Stubs() != 2 {
		t.Errorf("at a replica %d values and %d keys leave, %d bytes; %d are cold", values, keys, freed, b.db.ks.Stubs())
	}
}

func TestAReadErrorOfASunkKey(t *testing.T) {
	b := sunken(t, "SET a 1", "SET b 2")
	for _, line := range []string{"GET a", "DEL a", "SCAN 0", "KEYS *", "INCR a; INCR b"} {
		o := b.offer(line)
		for len(b.tier.asked) > 0 {
			b.tier.answer(b.now, errors.New("bad sector"))
		}
		if !strings.HasPrefix(o.reply, "-ERR the value could not be read from disk") {
			t.Errorf("%s answers %q", line, o.reply)
		}
	}
	o := b.offer("INCR a")
	b.tier.answerAll(b.now)
	o.want(":2 ")
}

// A copy that applies entries has no sunk keys.
func TestEntriesWaitUntilAllKeysHaveSurfaced(t *testing.T) {
	b := openCold(t)
	for i := range 50 {
		b.do(fmt.Sprintf("SET k%d v", i))
	}
	b.tier.sink()
	if err := b.db.Apply(&journal.Entry{Seq: 51, Prev: b.db.hash}, nil, false); err != errSunk {
		t.Errorf("an entry is applied: %v", err)
	}
	told := &toldWhole{}
	p := b.db.AwaitWhole(told)
	if p == nil || b.db.Whole() {
		t.Fatal("it doesn't wait")
	}
	b.db.Raise() // again
	b.tier.answerAll(b.now)
	if !told.told || !b.db.Whole() || b.db.ks.Keys() != 50 || b.db.ks.Stubs() != 50 {
		t.Errorf("told %v, %d keys sunk", told.told, b.db.ks.Sunk())
	}
	if b.db.AwaitWhole(told) != nil {
		t.Error("it waits when there is nothing to wait for")
	}
}

type toldWhole struct{ told bool }

func (w *toldWhole) Loaded(err error) { w.told = err == nil }

var sinkAll = keyspace.Sinking{Looks: 1000, Part: 1}
