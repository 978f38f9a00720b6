package keyspace

import (
	"encoding/binary"
	"fmt"

	"vecino/internal/invariant"
	"vecino/value"
)

// A big collection that lies in the tier in parts comes into memory by parts. A command
// that says what it looks at (LookAt) has the parts of these elements read; one that
// doesn't has all. From when the first are there until all are, the key is cold and has
// an object: *partly* cold. Its elements in memory are used and changed as any; its sweeps
// write the parts that have changed; when it leaves memory, all parts do.
//
//	cold ── Restore, some parts ──> partly cold ── Restore, the last ──> in memory
//	  <──────── Offload ────────────────┘  <───────────── Offload ──────────┘
//
// The base of a partly cold key is the write of which the tier's body was when the first
// parts came. Parts that are absent aren't written as long as they are, so they can be
// taken from any record of that write or a later one. A record that is read for a key
// that is wholly cold must be the very one that it left memory with.
//
// An effect on an element that isn't in memory is pending, as on a cold key, until its
// part comes. On a list, all effects are from then on: elements are known by where they
// are.

// Part is what a command looks at of the collections at its keys. One that looks at
// nothing but how long they are has none of it.
type Part struct {
	Elements [][]byte     // fields, or members
	Spans    []value.Span // of a list
	Length   bool         // how long they are
}

// look is what the present command looks at.
type look struct {
	Part
	all    bool // it may look at all
	writes bool
}

// LookAt says that the command that begins, after View or Begin, looks at some elements only
// of what is at its keys, which the caller writes down in what it returns. writes says
// that it may change something. It holds until the next View or Begin, or LookAtAll.
func (ks *Keyspace) LookAt(writes bool) *Part {
	l := &ks.look
	l.all, l.writes = false, writes
	l.Elements, l.Spans, l.Length = l.Elements[:0], l.Spans[:0], false
	return &l.Part
}

// LooksAt is what LookAt returned last, nil if all may be looked at.
func (ks *Keyspace) LooksAt() *Part {
	if ks.look.all {
		return nil
	}
	return &ks.look.Part
}

// LookAtAll says that the command that begins may look at whatever there is.
func (ks *Keyspace) LookAtAll() { ks.look.all = true }

// lacks reports whether something of a cold key isn't in memory that the command looks at,
// and what is to be read for it.
func (ks *Keyspace) lacks(e entry) (need *value.Need, lacks bool) {
	l, list := &ks.look, e.kind() == ListKind
	named := len(l.Elements) > 0
	if list {
		named = len(l.Spans) > 0
	}
	switch {
	case l.all || e.kind() == String || !named && !l.Length:
		return ks.rest(e), true
	case e.Has(pendingFlag) && (list || l.writes || !named): // what is pending may change where elements are, and how many
		return ks.rest(e), true
	}
	need = &value.Need{}
	if e.Has(objectFlag) {
		ks.sync(e).object().lacks(need, &l.Part)
		return need, !need.Empty()
	}
	if list {
		need.Spans = append(need.Spans, l.Spans...)
	} else {
		need.Elements(ks.seed, l.Elements)
	}
	return need, true
}

// rest is what is to be read next, so that at last all of a cold key is in memory. That
// is all at once, to be put in the place of what is there, unless something has changed in
// that: then it is so much that nobody waits long while it is put in.
func (ks *Keyspace) rest(e entry) *value.Need {
	if !e.Has(objectFlag) || e.stored().holds() {
		return nil
	}
	need := new(value.Need)
	e.object().partial().LacksNext(need)
	return need
}

// needOfOp is what an op on a collection needs, nil if that can't be said.
func needOfOp(seed uint64, op byte, operands []byte) *value.Need {
	in := effectReader{b: operands}
	need := &value.Need{}
	switch op {
	case opZSetSet:
		in.score()
		need.Elements(seed, [][]byte{in.bytes()})
	case opHashSet, opHashDel, opSetAdd, opSetDel, opZSetDel:
		need.Elements(seed, [][]byte{in.bytes()})
	case opListPush:
		need.Spans = []value.Span{AtEnd(End(in.byte()), 1)}
	case opListPop:
		need.Spans = []value.Span{AtEnd(End(in.byte()), in.int())}
	case opListSet, opListInsert, opListRemove:
		need.Spans = []value.Span{Around(in.int())}
	case opListTrim:
		need.Spans = []value.Span{Around(in.int()), Around(in.int())}
	default:
		return nil
	}
	if in.err != nil {
		return nil
	}
	return need
}

// AtEnd is so many elements at an end of a list, one at least.
func AtEnd(end End, n int64) value.Span {
	if end == Front {
		return value.Span{From: 0, To: max(n-1, 0)}
	}
	return value.Span{From: -max(n, 1), To: -1}
}

// Around is what a change at an index touches: the element and its neighbours. A negative
// index counts from the end.
func Around(i int64) value.Span {
	s := value.Span{From: i - 1, To: i + 1}
	switch i {
	case 0:
		s.From = 0
	case -1:
		s.To = -1
	}
	return s
}

// within reports whether the op that is to be applied next is about parts of a partly cold
// key that are in memory.
func (a *applier) within(op byte, e entry) bool {
	if e.kind() == ListKind && e.Has(pendingFlag) {
		return false
	}
	need := needOfOp(a.ks.seed, op, a.in.b)
	return need != nil && e.object().partial().Satisfies(need)
}

// beginParts gives a cold key an object with the parts of it that were loaded. rest stays
// pending.
func (ks *Keyspace) beginParts(e *entry, l *loaded, rest []byte) {
	was, before := e.stub(), e.bare()
	var b [stubSize + numberSize]byte
	binary.LittleEndian.PutUint32(b[stubSize:], e.sp.objects.add(l.big()))
	ks.set(e, b[:], 0)
	e.Mark(objectFlag)
	grown := e.object().size + e.bare() - before
	ks.charge(e.sp, account{used: grown})
	ks.came(*e, was, grown, rest)
}

// takeParts adds to the object of a partly cold key what it lacks and l has. rest stays
// pending.
func (ks *Keyspace) takeParts(e entry, l *loaded, rest []byte) error {
	if err := e.object().take(&l.collection); err != nil {
		return err
	}
	ks.came(e, e.stub(), ks.weigh(e), rest)
	return nil
}

// came says that so many bytes of a partly cold key have come into memory, whose stub was
// that one before.
func (ks *Keyspace) came(e entry, was stub, bytes int64, rest []byte) {
	now := stub{was.base, max(was.away-bytes, 1)}
	putStub(e.Value(), now)
	ks.charge(e.sp, account{used: now.away - was.away, away: now.away - was.away})
	e.resized(now.away - was.away + bytes)
	ks.leavePending(e, rest)
	ks.settleParts(e)
}

// leavePending says what is still pending on a cold key.
func (ks *Keyspace) leavePending(e entry, rest []byte) {
	if !e.Has(pendingFlag) {
		return
	}
	p := e.sp.pending[string(e.Key())]
	ks.charge(e.sp, account{pending: int64(len(rest) - len(p.ops))})
	if p.ops = rest; len(rest) == 0 {
		delete(e.sp.pending, string(e.Key()))
		e.Unmark(pendingFlag)
	}
}

// settleParts ends that a key is partly cold if no part is absent any more.
func (ks *Keyspace) settleParts(e entry) {
	o := e.object()
	if o.partly() {
		return
	}
	if e.Has(pendingFlag) { // of a list: nothing could be carried out before
		l := loaded{kind: e.kind(), collection: o.collection}
		_, err := l.carryOut(ks, e.Key(), e.pending())
		invariant.That(err == nil, "what is pending on a list doesn't fit: %v", err)
		ks.weigh(e)
		ks.leavePending(e, nil)
	}
	number, was, before := e.number(), e.stub(), e.bare()
	e.Unmark(coldFlag)
	var b [numberSize]byte
	binary.LittleEndian.PutUint32(b[:], number)
	ks.set(&e, b[:], 0)
	grown := e.bare() - before - was.away
	ks.charge(e.sp, account{used: grown, away: -was.away, coldKeys: -1})
	e.resized(grown)
	ks.noteLarge(e)
}

// resized says that a key counts for so much more than before, though no write has changed
// it: what the tier says of its size is to be written again.
func (e entry) resized(by int64) {
	if by != 0 && e.stored().holds() {
		e.store(apart)
	}
}

// dumpParts is the dump of a partly cold key, all of which was loaded, after what is
// pending on it.
func (ks *Keyspace) dumpParts(e entry, l *loaded, pending []byte) (dump []byte, err error) {
	all := ks.sync(e).object().with(&l.collection)
	if all.partly() {
		return nil, fmt.Errorf("%w: parts are missing", errHead)
	}
	if dump = all.appendDump(nil); len(pending) == 0 {
		return dump, nil
	}
	var own loaded // the other shares elements with the one in memory
	if err = own.load(ks.seed, l.form(), dump); err == nil {
		_, err = own.carryOut(ks, e.Key(), e.pending())
	}
	return own.appendDump(nil), err
}

func (c *collection) partly() bool {
	p := c.partial()
	return p != nil && p.Partly()
}

// lacks adds to need what isn't in memory of a part.
func (c *collection) lacks(need *value.Need, p *Part) {
	switch {
	case c.h != nil:
		c.h.Lacks(need, p.Elements)
	case c.l != nil:
		c.l.Lacks(need, p.Spans)
	case c.s != nil:
		c.s.Lacks(need, p.Elements)
	default:
		c.z.Lacks(need, p.Elements)
	}
}

// take adds what c lacks and from, of the same kind, has.
func (c *collection) take(from *collection) error {
	switch {
	case c.h != nil:
		return c.h.Take(from.h)
	case c.l != nil:
		return c.l.Take(from.l)
	case c.s != nil:
		return c.s.Take(from.s)
	}
	return c.z.Take(from.z)
}

// with is what c would be after it took what it lacks.
func (c *collection) with(from *collection) collection {
	switch {
	case c.h != nil:
		return collection{h: c.h.With(from.h)}
	case c.l != nil:
		return collection{l: c.l.With(from.l)}
	case c.s != nil:
		return collection{s: c.s.With(from.s)}
	}
	return collection{z: c.z.With(from.z)}
}
