package command_test

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"vecino/command"
	"vecino/keyspace"
	"vecino/resp"
)

// bench runs one command again and again as the engine does.
type bench struct {
	ks   *keyspace.Keyspace
	rng  *rand.Rand
	seq  uint64
	args command.Args
	out  resp.Writer
	view keyspace.View
}

func newBench() *bench {
	return &bench{ks: keyspace.New(7), rng: rand.New(rand.NewPCG(1, 2)), out: resp.Writer{Buf: make([]byte, 0, 1<<16)}}
}

func (b *bench) run(row *command.Row, argv [][]byte) error {
	b.out.Buf = b.out.Buf[:0]
	b.args.Start(row, argv)
	if row.Read != nil {
		b.view = b.ks.View(0, birth, b.rng)
		return row.Read(&b.view, &b.args, &b.out)
	}
	b.seq++
	tx := b.ks.Begin(0, birth, b.seq, b.rng, false)
	err := row.Write(tx, &b.args, &b.out)
	tx.End()
	return err
}

func words(line ...string) [][]byte {
	argv := make([][]byte, len(line))
	for i, w := range line {
		argv[i] = []byte(w)
	}
	return argv
}

var hotCommands = []struct {
	name  string
	setup [][]string
	argv  []string
}{
	{"HSET", nil, []string{"HSET", "h", "field", "value"}},
	{"HGET", [][]string{{"HSET", "h", "field", "value"}}, []string{"HGET", "h", "field"}},
	{"SADD", nil, []string{"SADD", "s", "member"}},
	{"SISMEMBER", [][]string{{"SADD", "s", "member"}}, []string{"SISMEMBER", "s", "member"}},
	{"ZADD", nil, []string{"ZADD", "z", "1.5", "member"}},
	{"ZINCRBY", nil, []string{"ZINCRBY", "z", "1", "member"}},
	{"ZSCORE", [][]string{{"ZADD", "z", "1", "member"}}, []string{"ZSCORE", "z", "member"}},
	{"ZRANGE", [][]string{{"ZADD", "z", "1", "a", "2", "b", "3", "c"}}, []string{"ZRANGE", "z", "0", "-1", "WITHSCORES"}},
	{"LRANGE", [][]string{{"RPUSH", "l", "a", "b", "c", "d", "e", "f"}}, []string{"LRANGE", "l", "0", "-1"}},
	{"LMOVE", [][]string{{"RPUSH", "l", "a", "b", "c"}}, []string{"LMOVE", "l", "l", "LEFT", "RIGHT"}},
}

func TestHotCommandsOnCollectionsDoNotAllocate(t *testing.T) {
	for _, c := range hotCommands {
		b := newBench()
		for _, argv := range append(c.setup, c.argv) {
			if err := b.run(command.Find([]byte(argv[0])), words(argv...)); err != nil {
				t.Fatal(err)
			}
		}
		row, argv := command.Find([]byte(c.argv[0])), words(c.argv...)
		if n := testing.AllocsPerRun(100, func() { _ = b.run(row, argv) }); n > 0 {
			t.Errorf("%s allocates %v times", c.name, n)
		}
	}
}

func TestPushAndPopOnlyGrowTheList(t *testing.T) {
	b := newBench()
	push, pop := command.Find([]byte("LPUSH")), command.Find([]byte("RPOP"))
	pushArgs, popArgs := words("LPUSH", "l", "element"), words("RPOP", "l")
	for range 10 { // so that the list stays
		_ = b.run(push, pushArgs)
	}
	n := testing.AllocsPerRun(1000, func() {
		_ = b.run(push, pushArgs)
		_ = b.run(pop, popArgs)
	})
	if n >= 1 {
		t.Errorf("LPUSH and RPOP together allocate %v times", n)
	}
}

func BenchmarkCollections(b *testing.B) {
	for _, c := range hotCommands {
		b.Run(c.name, func(b *testing.B) {
			r := newBench()
			for i := range 1000 { // big encodings
				_ = r.run(command.Find([]byte("HSET")), words("HSET", "h", strconv.Itoa(i), "value"))
				_ = r.run(command.Find([]byte("SADD")), words("SADD", "s", "m"+strconv.Itoa(i)))
				_ = r.run(command.Find([]byte("ZADD")), words("ZADD", "z", strconv.Itoa(i), "m"+strconv.Itoa(i)))
			}
			if c.name == "ZRANGE" {
				_ = r.run(command.Find([]byte("ZREMRANGEBYRANK")), words("ZREMRANGEBYRANK", "z", "10", "-1"))
			}
			for _, argv := range c.setup {
				_ = r.run(command.Find([]byte(argv[0])), words(argv...))
			}
			row, argv := command.Find([]byte(c.argv[0])), words(c.argv...)
			b.ReportAllocs()
			for b.Loop() {
				_ = r.run(row, argv)
			}
		})
	}
}
