package main

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"vecino/resp"
)

var (
	okReply   = resp.Value{Kind: resp.KindSimple, Str: "OK"}
	nilReply  = resp.Value{Kind: resp.KindNull, Null: true}
	atTheTime = time.Unix(1_000_000, 0)
)

func bulk(s string) resp.Value { return resp.Value{Kind: resp.KindBulk, Str: s} }

// write has a cell take a number, answered.
func written(t *testing.T, x *cell, ttl time.Duration) {
	t.Helper()
	a := act{cell: x, to: &state{n: x.last + 1}, ttl: ttl}
	a.begin(atTheTime)
	if err := a.end(okReply, false, atTheTime, atTheTime); err != nil {
		t.Fatal(err)
	}
}

func readAt(x *cell, v resp.Value, evicts bool, after time.Duration) error {
	a := x.read()
	a.begin(atTheTime.Add(after))
	return a.end(v, evicts, atTheTime.Add(after), atTheTime.Add(after))
}

func TestLedgerHoldsACellToWhatWasAnswered(t *testing.T) {
	x := &cell{kind: aField, key: "h", part: "f"}
	if err := readAt(x, nilReply, false, 0); err != nil {
		t.Error(err)
	}
	written(t, x, 0)
	written(t, x, 0)
	for _, c := range []struct {
		reply  resp.Value
		evicts bool
		ok     bool
	}{{bulk("2"), false, true}, {bulk("1"), false, false}, {bulk("3"), false, false}, {nilReply, false, false}, {bulk("x"), false, false}, {nilReply, true, true}} {
		if err := readAt(x, c.reply, c.evicts, 0); (err == nil) != c.ok {
			t.Errorf("%+v, evicts %v: %v", c.reply, c.evicts, err)
		}
	}
}

func TestLedgerAllowsTwoAfterALostReplyUntilItIsRead(t *testing.T) {
	for _, applied := range []bool{false, true} {
		x := &cell{kind: aField, key: "h", part: "f"}
		written(t, x, 0)
		lost := act{cell: x, to: &state{n: 2}}
		lost.begin(atTheTime) // and no end
		if next := x.next(rand.New(rand.NewPCG(1, 1))); next.to != nil {
			t.Error("a cell that isn't known is changed before it is read")
		}
		if err := readAt(x, bulk("3"), false, 0); err == nil {
			t.Error("a number that nobody wrote is taken")
		}
		found, other := bulk("1"), bulk("2")
		if applied {
			found, other = other, found
		}
		if err := readAt(x, found, false, 0); err != nil {
			t.Error(err)
		}
		if err := readAt(x, other, false, 0); err == nil {
			t.Error("it changes its mind after it was read")
		}
	}
}

func TestLedgerKnowsWhenAKeyMustBeGone(t *testing.T) {
	fresh := func() *cell {
		x := &cell{kind: anExpiring, key: "x", size: 5}
		written(t, x, time.Second)
		return x
	}
	value := bulk(fresh().text(1))
	for _, c := range []struct {
		after time.Duration
		reply resp.Value
		ok    bool
	}{
		{500 * time.Millisecond, value, true}, {500 * time.Millisecond, nilReply, false},
		{time.Second, value, true}, {time.Second, nilReply, true},
		{2 * time.Second, nilReply, true}, {2 * time.Second, value, false},
	} {
		if err := readAt(fresh(), c.reply, false, c.after); (err == nil) != c.ok {
			t.Errorf("%+v after %s: %v", c.reply.Null, c.after, err)
		}
	}
}

func TestLedgerNoticesDamagedValues(t *testing.T) {
	x := &cell{kind: aString, key: "s", size: 20}
	written(t, x, 0)
	good := x.text(1)
	if err := readAt(x, bulk(good), false, 0); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "1", good[:len(good)-1], good[:5] + "!" + good[6:], "2" + good[1:]} {
		if err := readAt(x, bulk(bad), false, 0); err == nil {
			t.Errorf("%q is taken for %q", bad, good)
		}
	}
}

func TestErrorLeavesTheCellAsItWas(t *testing.T) {
	x := &cell{kind: aField, key: "h", part: "f"}
	written(t, x, 0)
	a := act{cell: x, to: &state{n: 2}}
	a.begin(atTheTime)
	if err := a.end(resp.Value{Kind: resp.KindError, Str: "OOM no"}, false, atTheTime, atTheTime); err == nil {
		t.Error("an error is taken for an answer")
	}
	if err := readAt(x, bulk("1"), false, 0); err != nil {
		t.Error(err)
	}
}

func TestCellsOfADatabaseAreApart(t *testing.T) {
	for _, evicts := range []bool{false, true} {
		seen := map[string]bool{}
		for _, x := range newSoakDatabase(0, evicts).cells {
			name := x.key + " " + x.part
			if seen[name] {
				t.Errorf("two cells are %s", name)
			}
			seen[name] = true
		}
	}
}

func TestKeysOfTheLedgerCountACollectionOnce(t *testing.T) {
	d := &soakDatabase{cells: []*cell{
		{kind: aField, key: "h", part: "a", is: state{n: 1}}, {kind: aField, key: "h", part: "b", is: state{n: 1}}, {kind: aString, key: "s"},
		{kind: anExpiring, key: "x", is: state{n: 1, until: atTheTime.Add(time.Second)}}, {kind: anExpiring, key: "y", is: state{n: 1, until: atTheTime.Add(-time.Second)}},
	}}
	if n, soon := d.keys(atTheTime); n != 2 || !soon {
		t.Errorf("%d keys, soon %v, want 2, true", n, soon)
	}
}

func samplesOf(rss ...int64) (all []soakSample) {
	for i, x := range rss {
		all = append(all, soakSample{at: time.Duration(i) * time.Second, rss: float64(x << 20)})
	}
	return all
}

func TestMemoryIsJudgedAfterTheLastKill(t *testing.T) {
	growing, steady := make([]int64, 160), make([]int64, 160)
	for i := range growing {
		growing[i], steady[i] = int64(100+3*i), 100+int64(i%3)
	}
	if _, err := flat(samplesOf(growing...)); err == nil {
		t.Error("memory that grows is taken for flat")
	}
	if _, err := flat(samplesOf(steady...)); err != nil {
		t.Error(err)
	}
	restarted := append(samplesOf(growing...), samplesOf(steady...)...)
	restarted[160].kill = true
	if _, err := flat(restarted); err != nil {
		t.Error(err)
	}
	if _, err := flat(samplesOf(growing[:20]...)); err != nil {
		t.Errorf("twenty samples are taken for enough: %v", err)
	}
}

func TestChart(t *testing.T) {
	samples := samplesOf(1, 2, 4, 4)
	samples[2].kill = true
	want := strings.Join([]string{
		"     4 |  ##",
		"       |  ##",
		"       | ###",
		"       |####",
		"     0 +--^- 3s"}, "\n")
	if got := chart(samples, 72, 4); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// played is a database that does what the soak's commands say, for one collection:
// what a right server answers.
type played struct {
	fields map[string]string
	list   []string
}

func (p *played) do(words []string) resp.Value {
	at := func(i string) int {
		n, _ := strconv.Atoi(i)
		return n + len(p.list) // they count from the end
	}
	value := func(s string, ok bool) resp.Value {
		if !ok {
			return nilReply
		}
		return bulk(s)
	}
	all := resp.Value{Kind: resp.KindArray}
	switch words[0] {
	case "HSET":
		for i := 2; i < len(words); i += 2 {
			p.fields[words[i]] = words[i+1]
		}
	case "ZADD":
		for i := 2; i < len(words); i += 2 {
			p.fields[words[i+1]] = words[i]
		}
	case "HDEL", "ZREM":
		delete(p.fields, words[2])
	case "RPUSH":
		p.list = append(p.list, words[2:]...)
	case "LPUSH":
		p.list = slices.Insert(p.list, 0, words[2])
	case "LPOP":
		p.list = p.list[1:]
	case "LSET":
		p.list[at(words[2])] = words[3]
	case "LINDEX":
		i := at(words[2])
		if i < 0 {
			return nilReply
		}
		return bulk(p.list[i])
	case "HGET", "ZSCORE":
		s, ok := p.fields[words[2]]
		return value(s, ok)
	case "LRANGE":
		for _, e := range p.list {
			all.Elems = append(all.Elems, bulk(e))
		}
		return all
	case "HGETALL", "ZRANGE":
		for f, v := range p.fields {
			all.Elems = append(all.Elems, bulk(f), bulk(v))
		}
		return all
	case "DEL":
		p.fields, p.list = map[string]string{}, nil
	default:
		panic(words[0])
	}
	return okReply
}

// end carries a deed out at a server.
func (p *played) end(d deed) error {
	d.begin(atTheTime)
	return d.end(p.do(d.words), false, atTheTime, atTheTime)
}

func TestCollectionsAreHeldToWhatWasAnswered(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, l := range newSoakDatabase(0, false).collections {
		p := &played{fields: map[string]string{}}
		fills, removals := 0, 0
		for step := range 1500 {
			d := l.cells[r.IntN(len(l.cells))].next(r).deed()
			if step%20 == 0 {
				d = l.next(r)
			}
			switch d.words[0] {
			case "HSET", "ZADD", "RPUSH":
				fills++
			case "DEL":
				removals++
			}
			if err := p.end(d); err != nil {
				t.Fatalf("step %d: %.60q: %v", step, d.words, err)
			}
		}
		if fills < 5 || removals < 5 {
			t.Errorf("%s was filled %d times and removed %d times", l.key, fills, removals)
		}
		p.end(remove(l.cells, "DEL", l.key))
		p.end(l.fill())

		// Whatever differs is noticed by a look at all.
		wrong := []func(){func() { p.list = p.list[:len(p.list)-1] }, func() { p.list = append(p.list, "1") }, func() { slices.Reverse(p.list) }}
		if l.kind != anElement {
			some := l.cells[7].part
			wrong = []func(){func() { delete(p.fields, some) }, func() { p.fields["other"] = "1" }, func() { p.fields[some] = p.fields[l.cells[8].part] + "9" }}
		}
		for i, spoil := range wrong {
			fields, list := maps.Clone(p.fields), slices.Clone(p.list)
			spoil()
			if err := p.end(l.read()); err == nil {
				t.Errorf("%s: damage %d isn't noticed", l.key, i)
			}
			p.fields, p.list = fields, list
			if err := p.end(l.read()); err != nil {
				t.Errorf("%s: %v", l.key, err)
			}
		}
	}
}

func TestADeedWithoutItsReplyLeavesAllItsCellsInDoubt(t *testing.T) {
	for _, l := range newSoakDatabase(0, false).collections {
		for _, applied := range []bool{false, true} {
			p := &played{fields: map[string]string{}}
			if err := p.end(l.fill()); err != nil {
				t.Fatal(err)
			}
			lost := remove(l.cells, "DEL", l.key)
			lost.begin(atTheTime) // and no end
			if applied {
				p.do(lost.words)
			}
			if err := p.end(l.read()); err != nil {
				t.Error(err)
			}
			for _, x := range l.cells {
				if x.maybe != nil || x.is.n == 0 != applied {
					t.Fatalf("%s: carried out %v, and it is %d now", l.key, applied, x.is.n)
				}
			}
			p.end(remove(l.cells, "DEL", l.key))
		}
	}
}

func TestCollectionsAreLargeEnoughToLieInParts(t *testing.T) {
	const parts = 256 << 10
	for _, l := range newSoakDatabase(0, false).collections {
		size := 0
		for _, w := range l.fill().words {
			size += len(w)
		}
		if size < parts*5/4 {
			t.Errorf("%s has %d bytes", l.key, size)
		}
	}
}
