package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"vecino/resp"
)

// A cell is one place in a database that one client writes numbers to: a
// string, a field of a hash, a member of a sorted set, the end of a list, a
// counter. The ledger knows which number a cell must have; after a command
// whose reply never came it allows two, until the cell is read again.
//
//	        begin                    end: answered
//	is ------------> is, maybe ------------------------> is (what maybe was)
//	                     |
//	                     | connection lost
//	                     v
//	                 is, maybe ---- read finds either --> is
type cell struct {
	kind      cellKind
	key, part string
	size      int    // of the value that has the number in it; 0: it is the number
	under     *cell  // of the element at a list's head: the next one
	is        state  // as last answered
	maybe     *state // sent, and not answered
	last      int64  // number given last
}

// state is what a cell holds.
type state struct {
	n     int64     // 0: nothing
	until time.Time // it may be gone from here on; zero: it stays
	over  time.Time // and must be from here on
}

type cellKind uint8

const (
	aString cellKind = iota
	anExpiring
	aField
	aMember
	aCounter
	aListEnd
	anElement // of a list, counted from its end
)

// soakClocks is how far the times of this program and of the node's batches
// may be apart.
const soakClocks = 100 * time.Millisecond

// newSoakDatabase makes the cells of a database: some 1 MiB if all are set.
func newSoakDatabase(number int, evicts bool) *soakDatabase {
	d := &soakDatabase{number: number, evicts: evicts}
	add := func(n int, make func(i int) *cell) {
		for i := range n {
			d.cells = append(d.cells, make(i))
		}
	}
	strings := 600
	if evicts {
		strings = 2000 // more than there is room for
	}
	add(strings, func(i int) *cell {
		size := 32
		switch {
		case i%10 == 0:
			size = 8 << 10
		case i%10 < 4:
			size = 1 << 10
		}
		return &cell{kind: aString, key: fmt.Sprintf("s:%d", i), size: size}
	})
	add(300, func(i int) *cell { return &cell{kind: anExpiring, key: fmt.Sprintf("x:%d", i), size: 100} })
	add(400, func(i int) *cell {
		return &cell{kind: aField, key: fmt.Sprintf("h:%d", i%2*(1+i%20)), part: fmt.Sprintf("field:%d", i)} // one is large
	})
	add(400, func(i int) *cell {
		return &cell{kind: aMember, key: fmt.Sprintf("z:%d", i%2*(1+i%20)), part: fmt.Sprintf("member:%d", i)}
	})
	if !evicts { // their numbers can't be told from others once they were evicted
		add(100, func(i int) *cell { return &cell{kind: aCounter, key: fmt.Sprintf("n:%d", i)} })
		add(100, func(i int) *cell { return &cell{kind: aListEnd, key: fmt.Sprintf("l:%d", i)} })
	}
	d.addCollections()
	return d
}

// act is one command about a cell.
type act struct {
	*cell
	words []string
	to    *state // nil: it reads
	ttl   time.Duration
}

// next draws what to do with a cell.
func (x *cell) next(r *rand.Rand) act {
	p := r.IntN(10)
	switch {
	case x.maybe != nil || p < 4 || !x.settable():
		return x.read()
	case p == 4 && x.removable():
		return act{cell: x, words: x.removal(), to: &state{}}
	}
	return x.write(r)
}

// settable reports whether a command about this cell alone can give it a number:
// in a list that isn't there, nothing can be set.
func (x *cell) settable() bool {
	return x.kind != anElement || x.is.n != 0 || x.under != nil && x.under.is.n != 0
}

// removable reports whether a command can remove this cell alone.
func (x *cell) removable() bool {
	return x.kind != anElement || x.under != nil && x.is.n != 0
}

// write gives a cell a new number.
func (x *cell) write(r *rand.Rand) act {
	a := act{cell: x, to: &state{n: x.last + 1}}
	if x.kind == aCounter {
		a.to.n = x.is.n + 1
	}
	if x.kind == anExpiring {
		a.ttl = time.Duration(50+r.IntN(8000)) * time.Millisecond
	}
	a.words = x.change(a.to.n, a.ttl)
	return a
}

// text is what a cell with a size holds when its number is n.
func (x *cell) text(n int64) string {
	return string(appendValue(append(strconv.AppendInt(nil, n, 10), ':'), int(n)+x.size, x.size))
}

// value is what a command has to write for n.
func (x *cell) value(n int64) string {
	if x.size == 0 {
		return strconv.FormatInt(n, 10)
	}
	return x.text(n)
}

func (x *cell) change(n int64, ttl time.Duration) []string {
	switch x.kind {
	case aString:
		return []string{"SET", x.key, x.value(n)}
	case anExpiring:
		return []string{"SET", x.key, x.value(n), "PX", strconv.FormatInt(ttl.Milliseconds(), 10)}
	case aField:
		return []string{"HSET", x.key, x.part, x.value(n)}
	case aMember:
		return []string{"ZADD", x.key, x.value(n), x.part}
	case aCounter:
		return []string{"INCR", x.key}
	case anElement:
		if x.is.n == 0 {
			return []string{"LPUSH", x.key, x.value(n)}
		}
		return []string{"LSET", x.key, x.part, x.value(n)}
	default:
		return []string{"RPUSH", x.key, x.value(n)}
	}
}

func (x *cell) removal() []string {
	switch x.kind {
	case aField:
		return []string{"HDEL", x.key, x.part}
	case aMember:
		return []string{"ZREM", x.key, x.part}
	case anElement:
		return []string{"LPOP", x.key}
	default:
		return []string{"DEL", x.key}
	}
}

func (x *cell) read() act {
	a := act{cell: x}
	switch x.kind {
	case aField:
		a.words = []string{"HGET", x.key, x.part}
	case aMember:
		a.words = []string{"ZSCORE", x.key, x.part}
	case aListEnd:
		a.words = []string{"LINDEX", x.key, "-1"}
	case anElement:
		a.words = []string{"LINDEX", x.key, x.part}
	default:
		a.words = []string{"GET", x.key}
	}
	return a
}

// begin notes that an act is on its way.
func (a *act) begin(now time.Time) {
	if a.to == nil {
		return
	}
	if a.ttl > 0 { // until is the earliest that it may be gone; when it must be, only the reply tells
		a.to.until = now.Add(a.ttl - soakClocks)
		a.to.over = now.Add(a.ttl + soakClocks + 3*patience)
	}
	a.last = max(a.last, a.to.n)
	a.maybe = a.to
}

// end compares a reply with the ledger, and writes down what is known now.
func (a *act) end(v resp.Value, evicts bool, sent, now time.Time) error {
	if err := v.Err(); err != nil {
		if a.to != nil {
			a.maybe = nil
		}
		return err
	}
	if a.to != nil {
		if a.ttl > 0 {
			a.to.over = now.Add(a.ttl + soakClocks)
		}
		a.is, a.maybe = *a.to, nil
		return nil
	}
	n, err := a.numberOf(v)
	if err != nil {
		return err
	}
	allowed := []*state{&a.is, a.maybe}
	for _, s := range allowed {
		if s == nil {
			continue
		}
		gone := s.n != 0 && !s.until.IsZero() && now.After(s.until)
		switch {
		case n == 0 && (s.n == 0 || gone || evicts):
			a.is, a.maybe = state{}, nil
			return nil
		case n == s.n && n != 0 && !s.over.IsZero() && sent.After(s.over):
			return fmt.Errorf("it still has %d, which expired %s ago", n, sent.Sub(s.over))
		case n == s.n:
			a.is, a.maybe = *s, nil
			return nil
		}
	}
	if a.maybe != nil {
		return fmt.Errorf("it has %d, and should have %d or %d", n, a.is.n, a.maybe.n)
	}
	return fmt.Errorf("it has %d, and should have %d", n, a.is.n)
}

// numberOf is the number in a reply, 0 if there is none.
func (x *cell) numberOf(v resp.Value) (int64, error) {
	if v.Null {
		return 0, nil
	}
	text := v.Text()
	if x.size == 0 {
		return strconv.ParseInt(text, 10, 64)
	}
	for i := range len(text) {
		if text[i] == ':' {
			n, err := strconv.ParseInt(text[:i], 10, 64)
			if err == nil && text != x.text(n) {
				err = fmt.Errorf("the value of %d is damaged", n)
			}
			return n, err
		}
	}
	return 0, fmt.Errorf("it has %.40q", text)
}
