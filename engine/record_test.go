package engine

import (
	"fmt"
	"strings"
	"testing"

	"vecino/catalog"
	"vecino/eviction"
	"vecino/resp"
)

const tooLarge = "-ERR max single record size exceeded "

func TestALargeEntryLeavesNoBuffer(t *testing.T) {
	b := open(t)
	b.want("+OK ", "SET key "+strings.Repeat("x", 1<<20))
	if n := cap(b.db.buf); n > 1<<19 {
		t.Errorf("a buffer for entries of %d bytes is kept", n)
	}
}

func TestAValueCannotGrowBeyondARecord(t *testing.T) {
	b := open(t)
	b.db.SetLimits(catalog.Limits{RecordBytes: 10_000}, eviction.NoEviction)
	part := strings.Repeat("x", 900)
	for _, grow := range []struct{ name, line string }{
		{"a string", "APPEND %s " + part},
		{"a string that is patched", "SETRANGE %s %d " + part},
		{"a hash", "HSET %s f%d " + part},
		{"a list", "RPUSH %s " + part},
		{"a set", "SADD %s m%d" + part},
		{"a sorted set", "ZADD %s 1 m%d" + part},
		{"a list that another is moved to", "move"},
	} {
		t.Run(grow.name, func(t *testing.T) {
			b.t = t
			key := strings.ReplaceAll(grow.name, " ", "_")
			next := func(i int) string {
				switch {
				case grow.line == "move":
					b.do("RPUSH source " + part)
					return "LMOVE source " + key + " LEFT RIGHT"
				case strings.HasPrefix(grow.line, "SETRANGE"):
					return fmt.Sprintf(grow.line, key, i*900)
				case strings.Contains(grow.line, "%d"):
					return fmt.Sprintf(grow.line, key, i)
				}
				return fmt.Sprintf(grow.line, key)
			}
			n := 0
			for ; n < 100; n++ {
				if got := b.do(next(n)); got == tooLarge {
					break
				}
			}
			// A string that grows has room to spare, up to as much again.
			if n < 5 || n > 12 {
				t.Errorf("%d times 900 bytes fit into 10,000", n)
			}
			b.want(tooLarge, next(n))
			b.want(":1 ", "EXISTS "+key)
			b.want(":1 ", "EXPIRE "+key+" 100")
			b.want("+OK ", "SET small y")
			b.want(":1 ", "DEL "+key)
			if got := b.do(next(0)); got == tooLarge {
				t.Error("after it was deleted it can't begin again")
			}
			b.do("DEL " + key + " source")
		})
	}
}

func TestANewValueCountsAndNotWhatItReplaces(t *testing.T) {
	b := open(t)
	b.db.SetLimits(catalog.Limits{RecordBytes: 10_000}, eviction.NoEviction)
	nearly, more := strings.Repeat("x", 9000), strings.Repeat("x", 10_001)
	b.want("+OK ", "SET k "+nearly)
	b.want(tooLarge, "APPEND k "+nearly)
	b.want("+OK ", "SET k "+nearly)
	b.want(tooLarge, "SET k "+more)
	b.want("+OK ", "MSET a "+nearly+" b "+nearly)
	b.want(tooLarge, "MSET a 1 b "+more)
	b.want(tooLarge, "SETRANGE far 10000 x")
	b.want(":0 ", "EXISTS far")
	b.want(":1 ", "COPY k copy")

	for i := range 8 {
		b.want(":1 ", fmt.Sprintf("SADD s1 a%d%s", i, strings.Repeat("x", 900)))
		b.want(":1 ", fmt.Sprintf("SADD s2 b%d%s", i, strings.Repeat("x", 900)))
		b.want(":1 ", fmt.Sprintf("ZADD z1 1 a%d%s", i, strings.Repeat("x", 900)))
		b.want(":1 ", fmt.Sprintf("ZADD z2 1 b%d%s", i, strings.Repeat("x", 900)))
	}
	b.want(tooLarge, "SUNIONSTORE union s1 s2")
	b.want(tooLarge, "ZUNIONSTORE union 2 z1 z2")
	b.want(":0 ", "EXISTS union")
	b.want(":8 ", "SUNIONSTORE s1 s1")
	b.want(":8 ", "ZRANGESTORE z1 z2 0 -1")
	if n := b.db.Stats().LargeRecords; n != 6 {
		t.Errorf("%d commands are counted as refused, want 6", n)
	}
}

// What is there when a limit comes is found out as it grows.
func TestALimitThatComesLaterHoldsFromTheNextChangeOn(t *testing.T) {
	b := open(t)
	b.do("SET k " + strings.Repeat("x", 20_000))
	b.db.SetLimits(catalog.Limits{RecordBytes: 10_000}, eviction.NoEviction)
	b.do("APPEND k x")
	b.want(tooLarge, "APPEND k x")
	b.want(":1 ", "DEL k")
	b.want(":1 ", "APPEND k x")
}

func TestTransactionGoesOnBehindAValueThatIsTooLarge(t *testing.T) {
	b := open(t)
	b.db.SetLimits(catalog.Limits{RecordBytes: 10_000}, eviction.NoEviction)
	b.do("SET k " + strings.Repeat("x", 9000))
	var queued []Queued
	for _, line := range []string{"APPEND k " + strings.Repeat("x", 2000), "SET a 1", "STRLEN k"} {
		r := b.request(line, nil, nil)
		queued = append(queued, Queued{r.Row, r.Argv})
	}
	var out resp.Writer
	b.db.RunAll(&Request{Client: &caller{}, Now: b.now, Out: &out}, queued, false)
	if got := strings.ReplaceAll(string(out.Buf), "\r\n", " "); got != "*3 "+tooLarge+"+OK :9000 " {
		t.Errorf("EXEC answers %q", got)
	}
}
