package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"vecino/command"
	"vecino/value"
)

// What each command that names what it looks at may be followed by. KEY is a key of the
// command's kind, E an element, I an index, N a small number.
var lookers = []string{
	"HDEL hash E E", "HEXISTS hash E", "HGET hash E", "HINCRBY hash n:E N", "HINCRBYFLOAT hash n:E 1.5", "HLEN hash", "HMGET hash E E E", "HMSET hash E v E w",
	"HSET hash E v", "HSET hash E long:E E w", "HSETNX hash E x", "HSTRLEN hash E",
	"SADD set E E", "SCARD set", "SISMEMBER set E", "SMISMEMBER set E E", "SMOVE set other E", "SMOVE other set E", "SREM set E",
	"ZADD zset N E", "ZADD zset GT CH N E N E", "ZADD zset NX INCR N E", "ZCARD zset", "ZINCRBY zset N E", "ZMSCORE zset E E", "ZREM zset E E", "ZSCORE zset E",
	"LINDEX list I", "LLEN list", "LMOVE list queue LEFT RIGHT", "LMOVE queue list RIGHT LEFT", "LMOVE list list LEFT RIGHT", "LPOP list", "LPOP list N", "LPUSH list E E",
	"LPUSHX list E", "LRANGE list I I", "LSET list I E", "LTRIM list 1 -1", "LTRIM list 0 -2", "LTRIM list N -1", "RPOP list", "RPOP list N", "RPOPLPUSH list queue",
	"RPOPLPUSH queue list", "RPUSH list E E E E E", "RPUSHX list long:E", "BLPOP list 0", "BRPOP list 0", "BLMOVE list queue RIGHT LEFT 0", "BRPOPLPUSH list queue 0",
}

// Others, which need all, and come now and then.
var others = []string{
	"HGETALL hash", "HVALS hash", "SMEMBERS set", "SINTER set other", "ZRANGE zset 0 -1 WITHSCORES", "ZRANK zset E", "ZREMRANGEBYRANK zset 0 1", "LINSERT list BEFORE E x",
	"LREM list 1 E", "LPOS list E", "COPY hash copy REPLACE", "RENAME zset z2", "RENAME z2 zset", "EXPIRE set 1000", "OBJECT ENCODING hash", "DEL copy",
	"HGET zset E", "LPUSH hash E", "SADD list E", "TYPE zset", "DEL queue",
}

// Large collections leave memory and come back in parts, as commands name them, alone and
// in transactions. They answer as one that is in memory.
func TestCommandsOnPartlyColdCollections(t *testing.T) {
	defer value.SetPartBytes(value.SetPartBytes(300))
	used := map[string]bool{}
	partly := 0
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		b, hot := openCold(t), openCold(t)
		line := func() string {
			template := lookers[rng.IntN(len(lookers))]
			if rng.IntN(20) == 0 {
				template = others[rng.IntN(len(others))]
			}
			words := strings.Fields(template)
			used[words[0]] = true
			for i, w := range words {
				switch w = strings.ReplaceAll(w, "long:", strings.Repeat("long:", rng.IntN(20))); {
				case w == "I":
					words[i] = fmt.Sprint(rng.IntN(500) - 250)
				case w == "N":
					words[i] = fmt.Sprint(1 + rng.IntN(9))
				case w == "E" || strings.HasSuffix(w, ":E"):
					words[i] = strings.TrimSuffix(w, "E") + fmt.Sprint(rng.IntN(400))
				}
			}
			return strings.Join(words, " ")
		}
		both := func(line string) {
			t.Helper()
			if !strings.Contains(line, ";") && strings.HasPrefix(line, "B") && hot.offer("EXISTS list").reply == ":0 " {
				return // it would wait
			}
			o, want := b.offer(line), hot.offer(line)
			rounds := 0
			for ; len(b.tier.asked) > 0; rounds++ {
				if rounds > 5000 {
					t.Fatalf("%s asks without end: %+v", line, b.tier.asked)
				}
				partly += min(1, rounds)
				b.tier.answer(b.now, nil)
			}
			if o.p != nil || canonical(line, o.reply) != canonical(line, want.reply) {
				t.Fatalf("seed %d: %s answers\n%.300q (waits: %v), want\n%.300q", seed, line, o.reply, o.p != nil, want.reply)
			}
		}
		for i := range 250 {
			both(fmt.Sprintf("HSET hash %d v%d n:%d %d", i, i, i, i))
			both(fmt.Sprintf("SADD set %d", i))
			both(fmt.Sprintf("ZADD zset %d %d", i, i))
			both(fmt.Sprintf("RPUSH list %d", i))
		}
		both("SADD other x")
		for i := range 600 {
			if rng.IntN(12) == 0 {
				b.tier.freeze()
			}
			if rng.IntN(40) == 0 {
				both("RPUSH list" + strings.Repeat(" x", 200))
			}
			one := line()
			for rng.IntN(5) == 0 {
				one += "; " + line()
			}
			both(one)
			if b.db.Err() != nil {
				t.Fatalf("seed %d, command %d: %s: %v", seed, i, one, b.db.Err())
			}
		}
		for _, all := range []string{"HGETALL hash", "SMEMBERS set", "ZRANGE zset 0 -1 WITHSCORES", "LRANGE list 0 -1", "LRANGE queue 0 -1"} {
			both(all)
		}
	}
	for _, row := range command.All() {
		if row.Looks != nil && !used[row.Name] {
			t.Errorf("%s names what it looks at, and is not among the commands here", row.Name)
		}
	}
	if partly == 0 {
		t.Error("nothing was read in more than one part: the test doesn't test")
	}
}

// canonical is a reply in which no order is promised.
func canonical(line, reply string) string {
	for _, unordered := range []string{"HGETALL", "HVALS", "SMEMBERS", "SINTER"} {
		if strings.Contains(line, unordered) {
			return strings.Join(slices.Sorted(strings.FieldsSeq(reply)), " ")
		}
	}
	return reply
}

// Where a command says that it looks at a list, the ones before it in a transaction, or
// it itself, may have moved something else.
func TestElementsOfAListThatHaveMoved(t *testing.T) {
	defer value.SetPartBytes(value.SetPartBytes(300))
	for _, lines := range [][]string{
		{"LPOP list 200; LINDEX list 0; RPUSH list x; LRANGE list 0 3"},
		{"RPOPLPUSH list queue; LTRIM list 100 -100; LPOP list 90; LSET list 0 y; LINDEX queue 0"},
		{"LPOP list 9; LMOVE list list LEFT LEFT; LPOP list 1"},
		{"LTRIM list 0 0", "LMOVE list list LEFT LEFT", "LMOVE list list RIGHT LEFT"},
		{"LPOP list 99", "LMOVE list list LEFT LEFT", "LMOVE list list LEFT RIGHT"},
	} {
		for pops := range 40 { // so that each element has its turn to be the last of a block
			b, hot := openCold(t), openCold(t)
			for _, b := range []*coldBench{b, hot} {
				for i := range 400 {
					b.do(fmt.Sprintf("RPUSH list %d", i))
				}
				b.do(fmt.Sprintf("LPOP list %d", 1+pops))
			}
			for _, line := range append(lines, "LRANGE list 0 -1") {
				b.tier.freeze()
				o := b.offer(line)
				for len(b.tier.asked) > 0 {
					b.tier.answer(b.now, nil)
				}
				o.want(hot.offer(line).reply)
			}
		}
	}
}

// Of a large collection one part is read for one element.
func TestOneElementNeedsOnePart(t *testing.T) {
	defer value.SetPartBytes(value.SetPartBytes(1000))
	b := openCold(t)
	for i := range 1000 {
		b.do(fmt.Sprintf("HSET h %d value-of-%d", i, i))
		b.do(fmt.Sprintf("RPUSH l value-of-%d", i))
	}
	b.tier.freeze()
	resident := b.db.ks.Resident()
	for _, c := range []struct{ line, reply string }{
		{"HGET h 77", "$11 value-of-77 "}, {"HLEN h", ":1000 "}, {"HSET h 77 changed", ":0 "}, {"HGET h 77", "$7 changed "},
		{"LINDEX l 500", "$12 value-of-500 "}, {"LPOP l", "$10 value-of-0 "}, {"RPUSH l last", ":1000 "}, {"LLEN l", ":1000 "},
	} {
		o := b.offer(c.line)
		for len(b.tier.asked) > 0 {
			b.tier.answer(b.now, nil)
		}
		o.want(c.reply)
	}
	whole := b.db.ks.Used() - resident
	if came := b.db.ks.Resident() - resident; came <= 0 || came > whole/5 {
		t.Errorf("%d of %d bytes came into memory for one field and three elements", came, whole)
	}
	if n, _ := b.db.ks.Cold(); n != 2 {
		t.Errorf("%d keys are cold in part, want 2", n)
	}
}
