package engine

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"vecino/command"
	"vecino/journal"
	"vecino/keyspace"
	"vecino/resp"
	"vecino/slab"
)

// rationed is a supply of memory that refuses: the grant after the first few, and
// all that follow if it is over for good.
type rationed struct {
	grants, few int
	forGood     bool
	refused     int
	lifted      bool
}

func (r *rationed) Grant(bytes uint64) bool {
	r.grants++
	if r.lifted || r.grants <= r.few || !r.forGood && r.refused > 0 {
		return true
	}
	r.refused++
	return false
}

// scarce is a script in which all that can take memory does: small records, large
// ones that are made, patched, copied and renamed, tables that grow, deadlines,
// collections that become big, transactions. A line with bars is an EXEC.
func scarce() (script []string) {
	big := func(c string, kib int) string { return strings.Repeat(c, kib<<10) }
	add := func(format string, args ...any) { script = append(script, fmt.Sprintf(format, args...)) }
	for round := range 2 {
		for i := range 60 {
			add("SET k%d:%d %s", round, i, big("s", 1+i%4))
		}
		add("SET big%d %s", round, big("b", 300))
		add("APPEND big%d %s", round, big("a", 270))
		add("SETRANGE far%d %d end", round, 700<<10)
		add("MSET m%d:1 %s m%d:2 small m%d:3 %s", round, big("m", 200), round, round, big("n", 280))
		add("COPY big%d twin%d", round, round)
		add("RENAME twin%d moved%d", round, round)
		add("SET big%d short", round)
		add("EXPIRE moved%d 1000", round)
		for i := range 40 {
			add("EXPIRE k%d:%d %d", round, i, 100+i)
			add("RPUSH list%d %s", round, big("l", 1))
			add("HSET hash%d f%d %s", round, i, big("h", 1))
			add("ZADD zset%d %d m%d", round, i, i)
			add("SADD set%d %d", round, i)
		}
		add("SMOVE set%d other%d 7", round, round)
		add("SUNIONSTORE all set%d all", round)
		add("LMOVE list%d away LEFT RIGHT", round)
		add("SET t%d 1 | APPEND big%d %s | INCR t%d | SET u%d %s | GET t%d", round, round, big("x", 280), round, round, big("y", 270), round)
		add("PERSIST k%d:3", round)
		add("LPOP list%d 30", round)
		add("HDEL hash%d f1 f2 f3", round)
		add("SETRANGE moved%d 900000 z", round)
		add("GETEX k%d:5 PERSIST", round)
		add("STRLEN big%d", round)
		if round == 1 {
			add("DEL big0 far0 moved0 m0:1 m0:3 u0")
		}
	}
	return script
}

// play runs a line and returns its reply.
func (b *bench) play(line string) string {
	parts := strings.Split(line, " | ")
	if len(parts) == 1 {
		return b.do(line)
	}
	var queued []Queued
	for _, p := range parts {
		argv := words(p)
		row, err := command.Resolve(argv)
		if err != nil {
			b.t.Fatal(err)
		}
		queued = append(queued, Queued{row, argv})
	}
	var out resp.Writer
	b.db.RunAll(&Request{Client: &caller{}, Now: b.now, Out: &out}, queued, false)
	return string(out.Buf)
}

func openSeeded(t *testing.T) *bench {
	log := &memoryLog{}
	b := &bench{t: t, log: log, now: 1_000_000}
	b.db = New(Config{ID: 1, HashSeed: 5, Log: log, Rand: rand.New(rand.NewPCG(1, 2))})
	if err := b.db.OpenEpoch(1, b.now); err != nil {
		t.Fatal(err)
	}
	return b
}

// end gives the memory of a database back.
func (b *bench) end() {
	b.db.run(b.request("FLUSHALL", &resp.Writer{}, nil))
	slab.SetSupply(nil)
	slab.Drain()
}

// Whichever grant of memory is refused, the command that needed it answers OOM
// and has done nothing, all others do what they always do, and the journal is
// what was done.
func TestWhicheverGrantIsRefusedNoCommandIsHalfDone(t *testing.T) {
	reserve := slab.SetReserve(2 << 20)
	defer slab.SetReserve(reserve)
	script := scarce()
	whole := &rationed{lifted: true}
	slab.SetSupply(whole)
	b := openSeeded(t)
	for _, line := range script {
		if reply := b.play(line); strings.Contains(reply, "OOM") {
			t.Fatalf("%.40s answers %.60s with all the memory there is", line, reply)
		}
	}
	b.end()
	step := 1
	if testing.Short() {
		step = 7
	}
	oom := 0
	for few := 0; few < whole.grants; few += step {
		for _, forGood := range []bool{false, true} {
			oom += playRationed(t, script, few, forGood)
			if t.Failed() {
				return
			}
		}
	}
	if oom == 0 {
		t.Error("no command was refused")
	}
	t.Logf("%d grants, %d commands refused", whole.grants, oom)
}

// playRationed plays a script while memory is refused, and what wasn't refused
// again where it isn't. It returns how many commands were refused.
func playRationed(t *testing.T, script []string, few int, forGood bool) (oom int) {
	r := &rationed{few: few, forGood: forGood}
	slab.SetSupply(r)
	b := openSeeded(t)
	var done, replies []string
	for _, line := range script {
		entries := len(b.log.entries)
		reply := b.play(line)
		name, _, _ := strings.Cut(line, " ")
		if strings.HasPrefix(reply, "-OOM ") {
			oom++
			if len(b.log.entries) != entries {
				t.Errorf("grant %d refused: %.40s answers OOM and makes an entry", few, line)
			}
			switch name {
			case "DEL", "LPOP", "HDEL", "STRLEN", "PERSIST":
				t.Errorf("grant %d refused: %.40s needs no memory and is refused", few, line)
			}
			continue
		}
		if strings.Contains(reply, "closed") {
			t.Errorf("grant %d refused: %.40s answers %.100s", few, line, reply)
			return oom
		}
		if strings.Contains(line, " | ") { // which of its commands were refused is in the reply
			parts, kept := strings.Split(line, " | "), []string(nil)
			for i, answer := range splitReplies(reply) {
				if !strings.HasPrefix(answer, "-OOM ") {
					kept = append(kept, parts[i])
				} else {
					oom++
				}
			}
			done, replies = append(done, strings.Join(kept, " | ")), append(replies, "")
			continue
		}
		done, replies = append(done, line), append(replies, reply)
	}
	r.lifted = true
	if got := b.do("SET again " + strings.Repeat("x", 400<<10)); got != "+OK " {
		t.Errorf("grant %d refused: with memory again SET answers %.60s", few, got)
	}
	b.do("DEL again")
	held := contents(b.db)

	slab.SetSupply(nil)
	model := openSeeded(t)
	for i, line := range done {
		if line == "" {
			continue
		}
		if got := model.play(line); replies[i] != "" && got != replies[i] {
			t.Errorf("grant %d refused: %.40s answered %.60q, should %.60q", few, line, replies[i], got)
		}
	}
	if contents(model.db) != held {
		t.Errorf("grant %d refused, for good %v: the content is not that of the commands that weren't", few, forGood)
	}
	copied := New(Config{ID: 1, HashSeed: 5, Log: &memoryLog{}})
	for _, raw := range b.log.entries {
		e, _, err := journal.DecodeEntry(raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := copied.Apply(&e, raw, false); err != nil {
			t.Fatal(err)
		}
	}
	if contents(copied) != held {
		t.Errorf("grant %d refused: a copy has another content", few)
	}
	copied.ks.Begin(0, b.now, copied.pos.Seq+1, nil, false).FlushAll()
	model.end()
	b.end()
	return oom
}

// splitReplies cuts the array that an EXEC of commands with replies of one line, or
// bulks, answers.
func splitReplies(reply string) (all []string) {
	lines := strings.Split(strings.TrimSuffix(reply, "\r\n"), "\r\n")[1:]
	for i := 0; i < len(lines); i++ {
		all = append(all, lines[i])
		if lines[i][0] == '$' && lines[i] != "$-1" {
			i++
		}
	}
	return all
}

// A copy that has no memory for an entry is as it was, and applies it later.
func TestAnEntryWithoutMemoryIsAppliedLater(t *testing.T) {
	b := openSeeded(t)
	for _, line := range scarce() {
		b.play(line)
	}
	want := contents(b.db)
	defer b.end()
	r := &rationed{}
	slab.SetSupply(r)
	copied := New(Config{ID: 1, HashSeed: 5, Log: &memoryLog{}})
	later := 0
	for i, raw := range b.log.entries {
		e, _, err := journal.DecodeEntry(raw)
		if err != nil {
			t.Fatal(err)
		}
		r.few, r.grants, r.refused, r.forGood, r.lifted = 0, 0, 0, true, i%3 == 0
		err = copied.Apply(&e, raw, false)
		if err == keyspace.ErrHalfDone { // several large values in one entry: it begins anew
			t.Fatalf("entry %d of %d bytes is half applied", i, len(raw))
		}
		if err != nil {
			later++
			if pos := copied.Position(); pos.Seq != e.Seq-1 {
				t.Fatalf("entry %d was refused and is applied: %v", i, err)
			}
			r.lifted = true
			err = copied.Apply(&e, raw, false)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if later == 0 {
		t.Error("no entry had to wait")
	}
	if contents(copied) != want {
		t.Error("the copy has another content")
	}
	copied.ks.Begin(0, b.now, copied.pos.Seq+1, nil, false).FlushAll()
}
