package command_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"vecino/internal/transcript"
	"vecino/resp"
)

// TestCollectionsAnswerAsRedisDoes sends random commands about hashes, lists,
// sets and sorted sets, right ones and nonsense, to the handlers and to a real
// redis-server, and wants the same replies and in the end the same keys.
func TestCollectionsAnswerAsRedisDoes(t *testing.T) {
	redis := transcript.StartRedis(t)
	rounds, commands := 8, 1500
	if testing.Short() {
		rounds = 2
	}
	for seed := range uint64(rounds) {
		proto := 2 + int(seed%2)
		t.Run(fmt.Sprintf("seed %d, version %d", seed, proto), func(t *testing.T) {
			redis.Do("FLUSHALL")
			compareWithRedis(t, redis.Addr, proto, commands, rand.New(rand.NewPCG(seed, 1)))
		})
	}
}

func compareWithRedis(t *testing.T, addr string, proto, commands int, rng *rand.Rand) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := resp.NewReader(conn)
	l, g := newLone(t), &commandGenerator{rng}
	hello := []string{"HELLO", strconv.Itoa(proto)}
	l.client("").out.Proto = proto
	if _, err := ask(conn, in, [][]string{hello}); err != nil {
		t.Fatal(err)
	}
	wrong := 0
	for sent := 0; sent < commands && wrong < 20; sent += 100 {
		var batch [][]string
		for range 100 {
			if c := g.command(); !strings.HasPrefix(c[0], "B") {
				batch = append(batch, c)
			} else { // what waits does so inside MULTI, where it can't
				batch = append(batch, []string{"MULTI"}, c, []string{"EXEC"})
			}
		}
		for _, key := range keyPool {
			batch = append(batch, []string{"TYPE", key}, []string{"OBJECT", "ENCODING", key})
		}
		want, err := ask(conn, in, batch)
		if err != nil {
			t.Fatal(err)
		}
		for i, argv := range batch {
			got := l.Do("", argv)
			if a, b := canonical(argv[0], got.Value), canonical(argv[0], want[i]); a != b && a != unfinished && b != unfinished {
				t.Errorf("%q\n--- got\n%s\n--- redis\n%s", argv, a, b)
				wrong++
			}
		}
	}
}

func ask(conn net.Conn, in *resp.Reader, batch [][]string) (replies []resp.Value, err error) {
	var buf []byte
	for _, argv := range batch {
		buf = resp.AppendCommand(buf, argv...)
	}
	if _, err := conn.Write(buf); err != nil {
		return nil, err
	}
	for range batch {
		v, err := in.Read()
		if err != nil {
			return nil, err
		}
		replies = append(replies, v)
	}
	return replies, nil
}

// unfinished is a step of a scan that isn't the last. What comes in which step
// depends on the hash and on the encoding.
const unfinished = "a scan that goes on"

// canonical is a reply as text, with that left out which chance decides. A
// score of -0, which Redis keeps in big sorted sets and loses in small ones,
// is 0.
func canonical(name string, v resp.Value) string {
	text := inOrder(name, v)
	text = strings.ReplaceAll(text, `"-0"`, `"0"`)
	return strings.ReplaceAll(text, "(double) -0\n", "(double) 0\n")
}

func inOrder(name string, v resp.Value) string {
	each := 1
	switch name {
	case "HGETALL", "HSCAN", "ZSCAN":
		each = 2
	case "HKEYS", "HVALS", "SMEMBERS", "SINTER", "SUNION", "SDIFF", "SSCAN":
	case "SPOP", "SRANDMEMBER", "HRANDFIELD", "ZRANDMEMBER":
		if v.Kind != resp.KindError {
			return fmt.Sprintf("%c with %d", v.Kind, len(v.Elems))
		}
	default:
		return v.String() + "\n"
	}
	if strings.HasSuffix(name, "SCAN") && len(v.Elems) == 2 {
		if v.Elems[0].Str != "0" {
			return unfinished
		}
		v = v.Elems[1]
	}
	if v.Kind == resp.KindMap {
		each = 2
	}
	groups := slices.Collect(slices.Chunk(v.Elems, each))
	slices.SortFunc(groups, func(a, b []resp.Value) int { return strings.Compare(a[0].String(), b[0].String()) })
	v.Elems = slices.Concat(groups...)
	return v.String() + "\n"
}

// commandGenerator makes up commands.
type commandGenerator struct{ *rand.Rand }

var keyPool = []string{"h1", "h2", "l1", "l2", "s1", "s2", "s3", "z1", "z2", "z3", "str", "none"}

func (g *commandGenerator) of(words ...string) string { return words[g.IntN(len(words))] }

// key is mostly one whose value has the type that the letter says.
func (g *commandGenerator) key(kind string) string {
	if g.IntN(25) == 0 {
		return g.of(keyPool...)
	}
	if g.IntN(15) == 0 {
		return "none"
	}
	n := 2
	if kind == "s" || kind == "z" {
		n = 3
	}
	return kind + strconv.Itoa(1+g.IntN(n))
}

func (g *commandGenerator) word() string {
	switch g.IntN(12) {
	case 0:
		return ""
	case 1:
		return strings.Repeat("long", 17)
	case 2, 3, 4:
		return strconv.Itoa(g.IntN(300) - 20)
	}
	return string(rune('a'+g.IntN(26))) + string(rune('a'+g.IntN(3)))
}

func (g *commandGenerator) int() string {
	if g.IntN(20) == 0 {
		return g.of("", "x", "1.5", "+1", " 1", "01", "-0", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "-9223372036854775807")
	}
	return strconv.Itoa(g.IntN(14) - 5)
}

// few is a number that is no danger as a count of repeats.
func (g *commandGenerator) few() string {
	if g.IntN(20) == 0 {
		return g.of("", "x", "1.5", "9223372036854775807", "-9223372036854775808", "9223372036854775808")
	}
	return strconv.Itoa(g.IntN(20) - 8)
}

func (g *commandGenerator) float() string {
	if g.IntN(12) == 0 {
		return g.of("", "x", "inf", "-inf", "+inf", "Infinity", "nan", "1e400", "-1e400", "1e-400", "1e-320", "0x10", "0x1p4", "1.", ".5", ".", "+5", " 5", "5 ",
			"-0", "1e17", "123456789012345678", "3.0e-7", "1_0", "0b1", "1p3", "1e", "0e-999", "1e5000")
	}
	if g.IntN(2) == 0 {
		return strconv.Itoa(g.IntN(12) - 4)
	}
	return strconv.FormatFloat(float64(g.IntN(1000)-300)/100, 'f', -1, 64)
}

func (g *commandGenerator) scoreBound() string {
	return g.of("", "", "", "(") + g.of(g.float(), g.float(), "-inf", "+inf", "\t3")
}

func (g *commandGenerator) lexBound() string {
	return g.of("-", "+", "[", "(", "x", "", "-a", "["+g.word(), "("+g.word(), "["+g.word(), "("+g.word())
}

func (g *commandGenerator) many(n int, fn func() string) (words []string) {
	for range 1 + g.IntN(n) {
		words = append(words, fn())
	}
	return words
}

func (g *commandGenerator) pairs(a, b func() string) (words []string) {
	n := 1 + g.IntN(4)
	if g.IntN(100) == 0 {
		n = 140 // beyond the small encodings
	}
	for range n {
		words = append(words, a(), b())
	}
	return words
}

// maybe gives the words, or none.
func (g *commandGenerator) maybe(words ...string) []string {
	if g.IntN(3) == 0 {
		return words
	}
	return nil
}

// numbered is some keys behind their number, mostly the right one.
func (g *commandGenerator) numbered(kind string) []string {
	keys := g.many(3, func() string { return g.key(kind) })
	n := strconv.Itoa(len(keys))
	if g.IntN(15) == 0 {
		n = g.int()
	}
	return append([]string{n}, keys...)
}

func (g *commandGenerator) zoptions() (words []string) {
	if g.IntN(3) == 0 {
		words = append(words, "WEIGHTS", g.float(), g.float())
	}
	if g.IntN(3) == 0 {
		words = append(words, "AGGREGATE", g.of("SUM", "min", "max", "avg"))
	}
	if g.IntN(4) == 0 {
		words = append(words, "WITHSCORES")
	}
	return words
}

func (g *commandGenerator) command() []string {
	argv := g.sensible()
	if argv[0] == "SPOP" { // what it takes must not depend on chance
		return argv
	}
	switch g.IntN(30) {
	case 0: // a word too many
		at := 1 + g.IntN(len(argv))
		argv = slices.Insert(argv, at, g.of("NX", "XX", "GT", "LT", "CH", "INCR", "WITHSCORES", "WITHVALUES", "LIMIT", "BYSCORE", "BYLEX", "REV", "COUNT", "MATCH",
			"WEIGHTS", "AGGREGATE", "LEFT", "right", "BEFORE", "RANK", "MAXLEN", "1", "x"))
	case 1: // one too few
		if len(argv) > 1 {
			at := 1 + g.IntN(len(argv)-1)
			argv = slices.Delete(argv, at, at+1)
		}
	}
	// Nobody should be asked for 2^63 random members.
	if strings.Contains(argv[0], "RAND") {
		for i, w := range argv {
			if n, err := strconv.ParseInt(w, 10, 64); err == nil && n < -1000 && n != -1<<63 {
				argv[i] = "-5"
			}
		}
	}
	return argv
}

func (g *commandGenerator) sensible() []string {
	cmd := func(name string, parts ...any) []string {
		argv := []string{name}
		for _, p := range parts {
			switch p := p.(type) {
			case string:
				argv = append(argv, p)
			case []string:
				argv = append(argv, p...)
			}
		}
		return argv
	}
	h, l, s, z, w := g.key("h"), g.key("l"), g.key("s"), g.key("z"), g.word()
	end := func() string { return g.of("LEFT", "RIGHT", "left", "right") }
	switch families := g.IntN(100); {
	case families < 2:
		return g.of2(cmd("SET", "str", w), cmd("DEL", g.of(keyPool...)), cmd("EXISTS", g.of(keyPool...)))
	case families < 22:
		return g.of2(
			cmd("HSET", h, g.pairs(g.word, g.word)), cmd("HSET", h, g.pairs(g.word, g.float)), cmd("HMSET", h, g.pairs(g.word, g.word)), cmd("HSETNX", h, w, g.word()),
			cmd("HDEL", h, g.many(4, g.word)), cmd("HEXISTS", h, w), cmd("HGET", h, w), cmd("HGETALL", h), cmd("HINCRBY", h, w, g.int()),
			cmd("HINCRBYFLOAT", h, w, g.float()), cmd("HINCRBYFLOAT", h, w, g.float()), cmd("HKEYS", h), cmd("HLEN", h), cmd("HMGET", h, g.many(4, g.word)),
			cmd("HRANDFIELD", h, g.maybe(g.few()), g.maybe("WITHVALUES")), cmd("HRANDFIELD", h, g.few(), "WITHVALUES"), cmd("HSTRLEN", h, w), cmd("HVALS", h),
			cmd("HSCAN", h, g.of("0", "0", "x", ""), g.maybe("COUNT", "1000"), g.maybe("MATCH", g.of("*", "a*", "?a", "[a-f]?")), g.maybe("COUNT", g.int())),
		)
	case families < 45:
		return g.of2(
			cmd("LPUSH", l, g.many(4, g.word)), cmd("RPUSH", l, g.many(9, g.word)), cmd("RPUSH", l, g.many(9, g.word)), cmd("LPUSHX", l, g.many(3, g.word)), cmd("RPUSHX", l, w),
			cmd("LPOP", l, g.maybe(g.int())), cmd("RPOP", l, g.maybe(g.int())), cmd("LLEN", l), cmd("LINDEX", l, g.int()), cmd("LRANGE", l, g.int(), g.int()),
			cmd("LRANGE", l, "0", "-1"), cmd("LSET", l, g.int(), w), cmd("LINSERT", l, g.of("BEFORE", "after", "x"), g.word(), w), cmd("LREM", l, g.int(), w),
			cmd("LTRIM", l, g.of("0", g.int()), g.of("-1", g.int())), cmd("LPOS", l, w, g.maybe("RANK", g.of("1", "-1", "2", "-2", "0", "x", "")), g.maybe("COUNT", g.int()), g.maybe("MAXLEN", g.int())),
			cmd("RPOPLPUSH", l, g.key("l")), cmd("LMOVE", l, g.key("l"), end(), end()), cmd("LMPOP", g.numbered("l"), end(), g.maybe("COUNT", g.int())),
			cmd("BLPOP", l, g.key("l"), g.of("0", g.float())), cmd("BRPOP", l, g.of("0", g.float())), cmd("BLMOVE", l, g.key("l"), end(), end(), g.of("0", g.float())),
			cmd("BRPOPLPUSH", l, g.key("l"), g.of("0", g.float())), cmd("BLMPOP", g.of("0", g.float()), g.numbered("l"), end(), g.maybe("COUNT", g.int())),
		)
	case families < 62:
		keys := g.many(3, func() string { return g.key("s") })
		return g.of2(
			cmd("SADD", s, g.many(5, g.word)), cmd("SADD", s, g.many(5, g.word)), cmd("SADD", s, g.many(8, g.int)), cmd("SREM", s, g.many(4, g.word)), cmd("SCARD", s),
			cmd("SISMEMBER", s, w), cmd("SMEMBERS", s), cmd("SMISMEMBER", s, g.many(4, g.word)), cmd("SMOVE", s, g.key("s"), w),
			cmd("SRANDMEMBER", s, g.maybe(g.few())), cmd("SPOP", "never", g.maybe(g.few())), cmd("SPOP", s, g.of("1000", "0", "-1", "x")),
			cmd("SDIFF", keys), cmd("SINTER", keys), cmd("SUNION", keys), cmd("SDIFFSTORE", s, keys), cmd("SINTERSTORE", s, keys), cmd("SUNIONSTORE", s, keys),
			cmd("SINTERCARD", g.numbered("s"), g.maybe("LIMIT", g.int())), cmd("SSCAN", s, g.of("0", "0", "x"), g.maybe("COUNT", "1000"), g.maybe("MATCH", "*a")),
		)
	}
	scores, members := g.maybe("WITHSCORES"), func() string { return g.word() }
	limit := g.maybe("LIMIT", g.int(), g.int())
	switch g.IntN(3) {
	case 0:
		return g.of2(
			cmd("ZADD", z, g.maybe(g.of("NX", "xx")), g.maybe(g.of("GT", "LT")), g.maybe("CH"), g.pairs(g.float, members)),
			cmd("ZADD", z, g.pairs(g.float, members)), cmd("ZADD", z, g.pairs(g.float, members)), cmd("ZADD", z, g.pairs(func() string { return "1" }, members)),
			cmd("ZADD", z, g.maybe(g.of("NX", "xx", "GT", "LT")), "INCR", g.float(), w), cmd("ZINCRBY", z, g.float(), w), cmd("ZREM", z, g.many(4, g.word)),
			cmd("ZCARD", z), cmd("ZSCORE", z, w), cmd("ZMSCORE", z, g.many(4, g.word)), cmd("ZRANK", z, w), cmd("ZREVRANK", z, w),
			cmd("ZCOUNT", z, g.scoreBound(), g.scoreBound()), cmd("ZRANGE", z, "0", "-1", "WITHSCORES"),
			cmd("ZRANDMEMBER", z, g.maybe(g.few()), g.maybe("WITHSCORES")), cmd("ZSCAN", z, "0", g.maybe("COUNT", "1000"), g.maybe("MATCH", "a*")),
			cmd("ZREMRANGEBYRANK", z, g.int(), g.int()), cmd("ZREMRANGEBYSCORE", z, g.scoreBound(), g.scoreBound()),
		)
	case 1:
		return g.of2(
			cmd("ZPOPMIN", z, g.maybe(g.int())), cmd("ZPOPMAX", z, g.maybe(g.int())), cmd("ZMPOP", g.numbered("z"), g.of("MIN", "max", "x"), g.maybe("COUNT", g.int())),
			cmd("BZPOPMIN", z, g.key("z"), g.of("0", g.float())), cmd("BZPOPMAX", z, g.of("0", g.float())), cmd("BZMPOP", g.of("0", g.float()), g.numbered("z"), g.of("MIN", "max"), g.maybe("COUNT", g.int())),
			cmd("ZRANGE", z, g.int(), g.int(), scores, g.maybe("REV")), cmd("ZRANGE", z, g.scoreBound(), g.scoreBound(), "BYSCORE", g.maybe("REV"), limit, scores),
			cmd("ZRANGE", z, g.lexBound(), g.lexBound(), g.maybe("REV"), "byscore", limit), cmd("ZREVRANGE", z, g.int(), g.int(), scores, g.maybe("LIMIT", "0", "-1")),
			cmd("ZRANGEBYSCORE", z, g.scoreBound(), g.scoreBound(), scores, limit), cmd("ZREVRANGEBYSCORE", z, g.scoreBound(), g.scoreBound(), limit, scores),
			cmd("ZRANGESTORE", g.key("z"), z, g.int(), g.int(), g.maybe("REV"), g.maybe("WITHSCORES")),
			cmd("ZRANGESTORE", g.key("z"), z, g.scoreBound(), g.scoreBound(), "BYSCORE", limit),
		)
	}
	// By bytes, only where all scores are the same, else nothing is promised.
	lex := "same"
	return g.of2(
		cmd("ZADD", lex, "1", w, "1", g.word(), "1", g.word()), cmd("ZADD", lex, "1", w, "1", g.word(), "1", g.word()), cmd("ZRANGEBYLEX", lex, g.lexBound(), g.lexBound(), limit, g.maybe("WITHSCORES")),
		cmd("ZREVRANGEBYLEX", lex, g.lexBound(), g.lexBound(), limit), cmd("ZRANGE", lex, g.lexBound(), g.lexBound(), "BYLEX", g.maybe("REV"), limit, g.maybe("WITHSCORES")),
		cmd("ZLEXCOUNT", lex, g.lexBound(), g.lexBound()), cmd("ZREMRANGEBYLEX", lex, g.lexBound(), g.lexBound()), cmd("ZRANGESTORE", "z1", lex, g.lexBound(), g.lexBound(), "BYLEX", limit),
		cmd("ZUNION", g.numbered(g.of("z", "z", "s")), g.zoptions()), cmd("ZINTER", g.numbered(g.of("z", "z", "s")), g.zoptions()), cmd("ZDIFF", g.numbered("z"), g.maybe("WITHSCORES"), g.maybe("WEIGHTS", "1", "2")),
		cmd("ZINTER", "2", "z1", "s1", g.zoptions()), cmd("ZUNION", "3", "s1", "z2", "z3", g.zoptions()),
		cmd("ZUNIONSTORE", z, g.numbered("z"), g.zoptions()), cmd("ZINTERSTORE", z, g.numbered("z"), g.zoptions()), cmd("ZDIFFSTORE", z, g.numbered("z")),
		cmd("ZINTERCARD", g.numbered("z"), g.maybe("LIMIT", g.int())),
	)
}

func (g *commandGenerator) of2(commands ...[]string) []string { return commands[g.IntN(len(commands))] }
