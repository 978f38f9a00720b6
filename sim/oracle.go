package sim

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"vecino/engine"
	"vecino/journal"
	"vecino/keyspace"
)

// oracle knows what the primary's history was: of each key that is judged,
// the values that it had and since which write. A state of the database is a
// number, the seq of its last write.
//
// The judgement of a connection is one number, too: the earliest state that
// can explain all that it was told so far. An answer is right if some state
// from there on explains it, and the earliest of those becomes the number. So a
// connection that misses its own write, goes back in time, or sees half of a
// transaction has no state left that explains its answer.
type oracle struct {
	head      uint64
	committed uint64
	history   map[string][]version
}

type version struct {
	seq   uint64
	value string
}

// absent is the value of a key that isn't there.
const absent = "(absent)"

// entry is called for each entry that the primary makes, when its changes are
// there.
func (o *oracle) entry(p *process, raw []byte) {
	e, _, err := journal.DecodeEntry(raw)
	if err != nil {
		p.w.fail("an entry that can't be read: %v", err)
		return
	}
	if o.history == nil {
		o.history = make(map[string][]version)
	}
	if e.Seq != o.head+1 {
		p.w.fail("the primary made entry %d after %d", e.Seq, o.head)
	}
	o.head = e.Seq
	if p.tenant.Engine.State() != engine.Awake {
		return // the entry of an epoch
	}
	ks := p.tenant.Engine.Keyspace()
	view := ks.View(0, 0, rand.New(rand.NewPCG(1, 1)))
	for _, key := range judged {
		if ks.IsCold(0, []byte(key)) || ks.WantSunk(0, []byte(key)) {
			continue // so it isn't what was written
		}
		value := valueOf(&view, key)
		versions := o.history[key]
		if n := len(versions); n == 0 && value == absent || n > 0 && versions[n-1].value == value {
			continue
		}
		o.history[key] = append(versions, version{e.Seq, value})
	}
}

// cutTo forgets the writes after seq: the primary died before they were safe.
func (o *oracle) cutTo(seq uint64) {
	o.head = seq
	for key, versions := range o.history {
		n := len(versions)
		for n > 0 && versions[n-1].seq > seq {
			n--
		}
		o.history[key] = versions[:n]
	}
}

// valueOf is what a key holds, in words.
func valueOf(view *keyspace.View, key string) string {
	switch view.Kind([]byte(key)) {
	case keyspace.String:
		s, _, _ := view.String([]byte(key))
		return string(s)
	case keyspace.ListKind:
		l, err := view.List([]byte(key))
		if err != nil {
			return err.Error()
		}
		var words []string
		l.Range(0, func(v []byte) bool { words = append(words, string(v)); return true })
		return strings.Join(words, " ")
	}
	return absent
}

// at is what key held after the write seq.
func (o *oracle) at(key string, seq uint64) string {
	versions := o.history[key]
	i, _ := slices.BinarySearchFunc(versions, seq+1, func(v version, s uint64) int {
		switch {
		case v.seq < s:
			return -1
		case v.seq > s:
			return 1
		}
		return 0
	})
	if i == 0 {
		return absent
	}
	return versions[i-1].value
}

// seen is one key's value in an answer.
type seen struct{ key, value string }

// explain finds the earliest state from low on in which all of seen is true.
func (o *oracle) explain(low uint64, all ...seen) (state uint64, ok bool) {
	candidates := []uint64{low}
	for _, s := range all {
		for _, v := range o.history[s.key] {
			if v.seq > low && v.value == s.value {
				candidates = append(candidates, v.seq)
			}
			if v.seq > low && s.value == absent && v.value == absent {
				candidates = append(candidates, v.seq)
			}
		}
	}
	slices.Sort(candidates)
	for _, c := range candidates {
		if !slices.ContainsFunc(all, func(s seen) bool { return o.at(s.key, c) != s.value }) {
			return c, true
		}
	}
	return low, false
}

// made finds the first write after low that gave a key a value.
func (o *oracle) made(low uint64, key string, is func(value string) bool) (seq uint64, ok bool) {
	for _, v := range o.history[key] {
		if v.seq > low && is(v.value) {
			return v.seq, true
		}
	}
	return 0, false
}

// judge looks at the whole history in the end.
func (o *oracle) judge(w *world) {
	for _, key := range logs {
		count := map[string]int{}
		if versions := o.history[key]; len(versions) > 0 {
			for _, word := range strings.Fields(versions[len(versions)-1].value) {
				count[word]++
			}
		}
		for word, n := range count {
			if n > 1 {
				w.fail("%s was pushed to %s once and is there %d times", word, key, n)
			}
		}
	}
	for _, key := range counters {
		final := int64(0)
		if versions := o.history[key]; len(versions) > 0 {
			fmt.Sscan(versions[len(versions)-1].value, &final)
		}
		acked, unknown := int64(0), int64(0)
		for _, c := range w.clients {
			acked += c.incremented[key]
			unknown += c.maybeIncremented[key]
		}
		if final < acked || final > acked+unknown {
			w.fail("%s is %d in the end; %d increments were answered and of %d more it isn't known", key, final, acked, unknown)
		}
	}
	popped := map[string]int{}
	for _, c := range w.clients {
		for _, word := range c.popped {
			popped[word]++
			if popped[word] == 2 {
				w.fail("%s was popped twice", word)
			}
		}
	}
	for _, key := range queues {
		versions := o.history[key]
		if len(versions) == 0 {
			continue
		}
		for _, word := range strings.Fields(versions[len(versions)-1].value) {
			if popped[word] > 0 {
				w.fail("%s was popped and is there in the end", word)
			}
		}
	}
	// What a client was told hadn't been carried out is nowhere.
	for _, c := range w.clients {
		for _, d := range c.denied {
			if seq, ok := o.made(0, d.key, func(value string) bool { return slices.Contains(strings.Fields(value), d.value) }); ok {
				w.fail("%s was told that its write of %s to %s wasn't carried out; it is write %d", c.name, d.value, d.key, seq)
			}
		}
	}
}

// content is all keys of a copy, a line each.
func content(p *process) string {
	var records []byte
	var at keyspace.Cursor
	for !at.Done() {
		records = append(records, p.dump(p.tenant.Engine.Keyspace(), &at, 1000)...)
	}
	var lines []string
	for len(records) > 0 {
		n := recordLen(records)
		lines = append(lines, fmt.Sprintf("%q", records[:n]))
		records = records[n:]
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// recordLen is the length of the first record in b; package keyspace draws it.
func recordLen(b []byte) int {
	n := 10
	_, size := binary.Uvarint(b[n:]) // the deadline
	n += size
	for range 2 { // key and value
		length, size := binary.Uvarint(b[n:])
		n += size + int(length)
	}
	return n
}
