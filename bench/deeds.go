package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"vecino/resp"
)

// A deed is a command and the cells that it is about: one, all those of a
// collection, or all of a database.
type deed struct {
	words []string
	acts  []act
	// split says of a reply about several cells what each of them has; nil when
	// the reply is of one.
	split func(v resp.Value) ([]resp.Value, error)
}

// deed is the deed that is this act alone.
func (a act) deed() deed { return deed{words: a.words, acts: []act{a}} }

func (d *deed) begin(now time.Time) {
	for i := range d.acts {
		d.acts[i].begin(now)
	}
}

// end compares a reply with the ledger, and writes down what is known now.
func (d *deed) end(v resp.Value, evicts bool, sent, now time.Time) (wrong error) {
	var each []resp.Value
	if d.split != nil && v.Err() == nil {
		if each, wrong = d.split(v); wrong != nil {
			return wrong
		}
	}
	for i := range d.acts {
		of := v
		if each != nil {
			of = each[i]
		}
		if err := d.acts[i].end(of, evicts, sent, now); err != nil && wrong == nil {
			wrong = fmt.Errorf("%.24s %.24s: %w", d.acts[i].key, d.acts[i].part, err)
		}
	}
	return wrong
}

// A collection is cells of one key that are also written, read and removed
// together. It is large: the tier has it in parts.
type collection struct {
	kind   cellKind
	key    string
	cells  []*cell
	places map[string]int // of cells, by part
}

// What a large collection holds: more than the 256 KiB from which one is kept in parts.
const (
	soakFields, soakFieldBytes     = 300, 1500
	soakMembers, soakMemberBytes   = 1500, 250
	soakElements, soakElementBytes = 300, 1500
)

// addCollections gives a database its large collections: every third has one of
// each kind, and those that evict have a hash.
func (d *soakDatabase) addCollections() {
	hash := &collection{kind: aField, key: "H"}
	for i := range soakFields {
		hash.add(&cell{part: fmt.Sprintf("field:%d", i), size: soakFieldBytes})
	}
	zset := &collection{kind: aMember, key: "Z"}
	for i := range soakMembers {
		zset.add(&cell{part: fmt.Sprintf("member:%d:%s", i, appendValue(nil, i, soakMemberBytes))})
	}
	list := &collection{kind: anElement, key: "L"}
	for i := range soakElements {
		list.add(&cell{part: strconv.Itoa(-1 - i), size: soakElementBytes})
	}
	list.cells[soakElements-1].under = list.cells[soakElements-2]
	switch {
	case d.evicts:
		d.collections = []*collection{hash}
	case d.number%3 == 0:
		d.collections = []*collection{hash, zset, list}
	}
	for _, l := range d.collections {
		d.cells = append(d.cells, l.cells...)
	}
}

func (l *collection) add(x *cell) {
	x.kind, x.key = l.kind, l.key
	if l.places == nil {
		l.places = make(map[string]int)
	}
	l.places[x.part] = len(l.cells)
	l.cells = append(l.cells, x)
}

// next draws what to do with all of a collection. No cell of it may be in doubt.
func (l *collection) next(r *rand.Rand) deed {
	p := r.IntN(10)
	empty := !slices.ContainsFunc(l.cells, func(x *cell) bool { return x.is.n != 0 })
	switch {
	case empty && p < 7, l.kind != anElement && p == 0: // elements would be added to those of a list
		return l.fill()
	case p < 3:
		return remove(l.cells, "DEL", l.key)
	}
	return l.read()
}

// fill gives each cell a new number; a list must not be there.
func (l *collection) fill() (d deed) {
	d.words = []string{map[cellKind]string{aField: "HSET", aMember: "ZADD", anElement: "RPUSH"}[l.kind], l.key}
	for _, x := range l.cells {
		d.acts = append(d.acts, act{cell: x, to: &state{n: x.last + 1}})
	}
	for i := range d.acts {
		switch a := d.acts[i]; l.kind {
		case aField:
			d.words = append(d.words, a.part, a.value(a.to.n))
		case aMember:
			d.words = append(d.words, a.value(a.to.n), a.part)
		default: // the last cell is the head
			a = d.acts[len(d.acts)-1-i]
			d.words = append(d.words, a.value(a.to.n))
		}
	}
	return d
}

// read reads all of a collection.
func (l *collection) read() deed {
	d := deed{words: strings.Fields(map[cellKind]string{aField: "HGETALL", aMember: "ZRANGE 0 -1 WITHSCORES", anElement: "LRANGE 0 -1"}[l.kind]), split: l.split}
	d.words = slices.Insert(d.words, 1, l.key)
	for _, x := range l.cells {
		d.acts = append(d.acts, act{cell: x})
	}
	return d
}

// split says what each cell has by a reply that lists all.
func (l *collection) split(v resp.Value) ([]resp.Value, error) {
	each := slices.Repeat([]resp.Value{{Null: true}}, len(l.cells))
	if l.kind == anElement {
		if len(v.Elems) > len(each) {
			return nil, fmt.Errorf("it has %d elements, and should have at most %d", len(v.Elems), len(each))
		}
		for i, e := range v.Elems {
			each[len(v.Elems)-1-i] = e
		}
		return each, nil
	}
	for i := 0; i+1 < len(v.Elems); i += 2 {
		part := v.Elems[i].Text()
		at, ok := l.places[part]
		if !ok || !each[at].Null {
			return nil, fmt.Errorf("it has %.24q twice, or nobody wrote it", part)
		}
		each[at] = v.Elems[i+1]
	}
	return each, nil
}

// remove is a command that removes cells, none of which may be in doubt.
func remove(cells []*cell, words ...string) deed {
	d := deed{words: words}
	for _, x := range cells {
		d.acts = append(d.acts, act{cell: x, to: &state{}})
	}
	return d
}
