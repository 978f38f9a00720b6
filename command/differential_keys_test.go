package command_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"

	"vecino/internal/transcript"
	"vecino/resp"
)

// TestStringsAndKeysAnswerAsRedisDoes does for strings and keys what
// TestCollectionsAnswerAsRedisDoes does for the rest.
func TestStringsAndKeysAnswerAsRedisDoes(t *testing.T) {
	redis := transcript.StartRedis(t)
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	for seed := range uint64(rounds) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			redis.Do("FLUSHALL")
			conn, err := net.Dial("tcp", redis.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			in, l := resp.NewReader(conn), newLone(t)
			g := keyGenerator{rand.New(rand.NewPCG(seed, 2))}
			for range 20 {
				var batch [][]string
				for range 100 {
					batch = append(batch, g.command())
				}
				for _, key := range stringPool {
					batch = append(batch, []string{"TYPE", key}, []string{"OBJECT", "ENCODING", key}, []string{"EXPIRETIME", key})
				}
				want, err := ask(conn, in, batch)
				if err != nil {
					t.Fatal(err)
				}
				for i, argv := range batch {
					a, b := g.canonical(argv, l.Do("", argv).Value), g.canonical(argv, want[i])
					if a != b {
						t.Fatalf("%q\n--- got\n%s\n--- redis\n%s", argv, a, b)
					}
				}
			}
		})
	}
}

var stringPool = []string{"a", "b", "c", "n1", "n2", "f1", "f2", "list"}

type keyGenerator struct{ *rand.Rand }

// canonical is a reply without what time and chance decide.
func (g keyGenerator) canonical(argv []string, v resp.Value) string {
	switch argv[0] {
	case "TTL", "PTTL":
		if v.Int >= 0 {
			return "some time"
		}
	case "EXPIRETIME", "PEXPIRETIME":
		if v.Int > 1e9 && v.Int < 33e9 || v.Int > 1e12 && v.Int < 33e12 { // relative, once
			return "some time"
		}
	case "KEYS", "SCAN":
		return inOrder("SSCAN", resp.Value{Kind: resp.KindArray, Elems: []resp.Value{{Kind: resp.KindBulk, Str: "0"}, v}})
	case "RANDOMKEY":
		return strconv.FormatBool(v.Null)
	case "OBJECT":
		// A sum of INCRBYFLOAT stays text in Redis, and what COPY makes of a
		// string that was changed in place is short again.
		return strconv.FormatBool(v.Null)
	}
	return v.String()
}

func (g keyGenerator) of(words ...string) string { return words[g.IntN(len(words))] }

func (g keyGenerator) key() string { return g.of(stringPool...) }

func (g keyGenerator) number() string {
	switch g.IntN(12) {
	case 0:
		return g.of("", "x", " 1", "1 ", "01", "-0", "+1", "1.5", "9223372036854775808", "-9223372036854775809", "0x10")
	case 1:
		return g.of("9223372036854775807", "-9223372036854775808", "4611686018427387904", "2147483648", "-2147483649")
	}
	return strconv.Itoa(g.IntN(40) - 15)
}

func (g keyGenerator) float() string {
	switch g.IntN(10) {
	case 0:
		return g.of("", "x", "inf", "-inf", "nan", "1e400", " 1", "1e", "0x1p3", "-")
	case 1:
		return g.of("1e17", "-1e15", "1e-10", "3.0e3", "123456789.123456789", "0.1e1", ".5", "5.", "+3")
	}
	return strconv.FormatFloat(float64(g.IntN(20000)-10000)/1000, 'f', -1, 64)
}

func (g keyGenerator) value() string {
	switch g.IntN(6) {
	case 0:
		return g.number()
	case 1:
		return g.float()
	case 2:
		return strings.Repeat(g.of("ab", "x", "hello"), g.IntN(40))
	case 3:
		return ""
	}
	return g.of("v", "value", "abcdef", "fedcba", "abcabc", "\x00\xff")
}

// expiry is far off, so that the clocks of the two don't matter.
func (g keyGenerator) expiry() []string {
	switch g.IntN(8) {
	case 0:
		return []string{"EX", g.of("1000", "0", "-1", "x", "9223372036854775807", "9223372036854775")}
	case 1:
		return []string{"PX", g.of("1000000", "0", "-1", "x", "9223372036854775807")}
	case 2:
		return []string{"EXAT", g.of("33177117420", "1", "0", "9223372036854776")}
	case 3:
		return []string{"PXAT", g.of("33177117420123", "1", "-5")}
	case 4:
		return []string{g.of("KEEPTTL", "PERSIST", "NX", "XX", "GET", "keepttl", "EX", "FOO")}
	}
	return nil
}

func (g keyGenerator) command() []string {
	c := func(words ...string) []string { return words }
	switch g.IntN(34) {
	case 0, 1, 2, 3:
		set := c("SET", g.key(), g.value())
		for range g.IntN(3) {
			set = append(set, g.of("NX", "XX", "GET", "KEEPTTL"))
		}
		if g.IntN(2) == 0 {
			return c("SET", g.key(), g.value())
		}
		return append(set, g.expiry()...)
	case 4, 5:
		return c("GET", g.key())
	case 6:
		return append(c("GETEX", g.key()), g.expiry()...)
	case 7:
		return c(g.of("GETDEL", "STRLEN", "TYPE", "PERSIST", "DEL", "UNLINK"), g.key())
	case 8:
		return c(g.of("GETSET", "APPEND", "SETNX"), g.key(), g.value())
	case 9, 10:
		return c(g.of("GETRANGE", "SUBSTR"), g.key(), g.number(), g.number())
	case 11, 12:
		return c("SETRANGE", g.key(), g.of("0", "1", "5", "70", g.number()), g.of("", "x", "hello"))
	case 13, 14:
		return c(g.of("INCR", "DECR"), g.of("n1", "n2", "a"))
	case 15, 16:
		return c(g.of("INCRBY", "DECRBY"), g.of("n1", "n2", "a"), g.number())
	case 17, 18, 19:
		return c("INCRBYFLOAT", g.of("f1", "f2", "n1"), g.float())
	case 20:
		return c("MGET", g.key(), g.key(), g.key())
	case 21:
		return c(g.of("MSET", "MSETNX"), g.key(), g.value(), g.key(), g.value())
	case 22:
		return c(g.of("SETEX", "PSETEX"), g.key(), g.of("100000", "0", "-1", "x"), g.value())
	case 23, 24:
		expire := c(g.of("EXPIRE", "PEXPIRE"), g.key(), g.of("-1", "x", "9223372036854775807", "-9223372036854775808"))
		if g.IntN(4) > 0 { // never the same twice: only one of the clocks stands still
			expire[2] = strconv.Itoa(1_000_000 + g.IntN(1_000_000_000))
		}
		for range g.IntN(3) {
			expire = append(expire, g.of("NX", "XX", "GT", "LT", "FOO"))
		}
		return expire
	case 25:
		return c(g.of("EXPIREAT", "PEXPIREAT"), g.key(), g.of("33177117420123", "33177117421123", "0", "-3"), g.of("NX", "XX", "GT", "LT"))
	case 26:
		return c(g.of("TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"), g.key())
	case 27:
		return c(g.of("RENAME", "RENAMENX"), g.key(), g.key())
	case 28:
		cp := c("COPY", g.key(), g.key())
		for range g.IntN(3) {
			cp = append(cp, g.of("REPLACE", "DB", "0", "1", "16"))
		}
		return cp
	case 29:
		return c("MOVE", g.key(), g.of("0", "1", "2", "16", "x"))
	case 30:
		return c("LCS", g.key(), g.key(), g.of("LEN", "IDX", "WITHMATCHLEN", "FOO"), g.of("LEN", "IDX", "WITHMATCHLEN"))
	case 31:
		return c("KEYS", g.of("*", "[a-c]", "n?", "f*", "[^a]*"))
	case 32:
		return c("RPUSH", "list", g.value())
	}
	return c(g.of("EXISTS", "TOUCH"), g.key(), g.key())
}
