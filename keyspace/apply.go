package keyspace

import (
	"fmt"

	"vecino/slab"
)

// Apply makes the changes of one journal entry, the write seq, as they were
// recorded. ErrNoMemory means that none was made, and that they can be made later.
// Another error means that the effects don't fit what is here, or ErrHalfDone, so
// that this copy has gone wrong and must be replaced.
func (ks *Keyspace) Apply(effects []byte, seq uint64) error {
	return ks.apply(effects, seq, false)
}

// ApplyNewer is Apply for a copy that was loaded from a snapshot taken while
// the database changed, until it has reached the write at which the snapshot
// was complete. Effects on keys that already contain the write are left out.
// A key may pass through states that it never had; at the snapshot's end all
// is right.
func (ks *Keyspace) ApplyNewer(effects []byte, seq uint64) error {
	return ks.apply(effects, seq, true)
}

// AddEffects adds the first key of a write that is about to be applied, if it
// is one of logical database 0, as those of most are.
func (t *Touch) AddEffects(ks *Keyspace, effects []byte) {
	if len(effects) == 0 || effects[0] == opSelect || effects[0] == opFlush {
		return
	}
	in := effectReader{b: effects[1:]}
	if key := in.bytes(); in.err == nil {
		t.Add(ks, key, nil)
	}
}

func (ks *Keyspace) apply(effects []byte, seq uint64, newer bool) error {
	ks.wanted = ks.wanted[:0]
	ks.shutAll()
	for db := range ks.spaces {
		ks.tidySome(db)
	}
	defer ks.settle()
	a := applier{ks: ks, seq: seq, newer: newer, in: effectReader{b: effects}}
	if seq > slab.MaxSeq {
		return fmt.Errorf("apply write %d: no write has that number", seq)
	}
	if err := a.run(); err != nil {
		return fmt.Errorf("apply write %d: %w", seq, err)
	}
	return nil
}

func (a *applier) run() error {
	defer a.leave()
	for len(a.in.b) > 0 && a.in.err == nil {
		if err := a.step(); err != nil && (!a.newer || a.short) {
			return err
		}
	}
	return a.in.err
}

// ready sees to memory for an op that is about to take some, with a value of that
// length. The first one sees to it for all.
func (a *applier) ready(sp *space, length int) error {
	need := slab.Needs(len(a.in.key) + length)
	if all := len(a.in.b); !a.begun && need+all > slab.Modest {
		need += 2 * all
	}
	if !HasRoom() {
		return a.found(ErrNoMemory)
	}
	return a.found(a.ks.prepare(sp, need))
}

// found is the error of looking for memory.
func (a *applier) found(err error) error {
	if err == nil {
		return nil
	}
	a.short = true
	if a.begun {
		return ErrHalfDone
	}
	return err
}

type applier struct {
	ks    *Keyspace
	seq   uint64
	newer bool
	in    effectReader
	last  *opened // the collection that was changed last, and is not yet put back
	begun bool    // something has been changed
	short bool    // there was no memory for the next op
	// fresh is, when newer, the keys that this write has changed here. They
	// carry its number, as those do that the snapshot had after it, but what
	// else the write does to them is still to come.
	fresh map[freshKey]struct{}
}

type freshKey struct {
	db  int
	key string
}

// leave puts the collection back that was last changed.
func (a *applier) leave() {
	if a.last != nil {
		a.ks.putBack(a.last)
		a.ks.desk.clear()
		a.last = nil
	}
}

// enter says that a key is changed.
func (a *applier) enter(e entry) {
	a.begun = true
	e.moved(a.seq)
	if a.newer {
		if a.fresh == nil {
			a.fresh = make(map[freshKey]struct{})
		}
		a.fresh[freshKey{a.in.db, string(e.Key())}] = struct{}{}
	}
}

// contains reports whether a key of a logical database had this write when
// the snapshot was taken.
func (a *applier) contains(db int, e entry) bool {
	if !a.newer || !e.there() || e.Seq() < a.seq {
		return false
	}
	_, fresh := a.fresh[freshKey{db, string(e.Key())}]
	return !fresh
}

var kindOf = [...]Kind{
	opHashSet: HashKind, opHashDel: HashKind, opSetAdd: SetKind, opSetDel: SetKind, opZSetSet: ZSetKind, opZSetDel: ZSetKind,
	opListPush: ListKind, opListPop: ListKind, opListSet: ListKind, opListInsert: ListKind, opListRemove: ListKind, opListTrim: ListKind,
	opListErase: ListKind,
}

// step applies one op.
func (a *applier) step() error {
	in := &a.in
	op := in.op()
	switch op {
	case opSelect:
		in.db = int(in.byte())
		if in.db >= Databases {
			in.fail("no such logical database")
		}
		return nil
	case opFlush:
		a.leave()
		a.flush(in.byte())
		return nil
	case opStrSet, opStrPatch, opDel, opExpire, opRestore:
	default:
		if int(op) >= len(kindOf) || kindOf[op] == None {
			in.fail(fmt.Sprintf("unknown op %d", op))
			return nil
		}
	}
	if in.err != nil {
		return nil
	}
	ks, sp := a.ks, a.ks.space(in.db)
	hash := ks.Hash(in.key)
	e := sp.find(hash, in.key)
	if a.last != nil && a.last.e.Rec != e.Rec || op == opDel || op == opExpire || op == opRestore || op == opStrSet {
		a.leave()
		e = sp.find(hash, in.key)
	}
	skip := a.contains(in.db, e)

	switch op {
	case opDel:
		why := reason(in.byte())
		if skip || in.err != nil {
			return nil
		}
		if why != byExpiry {
			ks.bury(hash, a.seq)
		}
		if !e.there() {
			return errMissing
		}
		a.begun = true
		ks.drop(in.db, e)
		return nil
	case opExpire:
		at := in.int()
		if skip || in.err != nil {
			return nil
		}
		if !e.there() {
			return errMissing
		}
		if at != 0 {
			if err := a.ready(sp, 0); err != nil {
				return err
			}
		}
		a.enter(e)
		ks.setExpire(&e, at)
		return nil
	case opStrSet:
		at, val := in.int(), in.bytes()
		if skip || in.err != nil {
			return nil
		}
		if err := a.ready(sp, len(val)); err != nil {
			return err
		}
		a.put(sp, hash, e, &loaded{kind: String, str: val}, at)
		return nil
	case opStrPatch:
		operands := in.b
		offset, part := in.int(), in.bytes()
		if skip || in.err != nil {
			return nil
		}
		if offset < 0 || offset > a.ks.longest-int64(len(part)) {
			in.fail("a string too long")
			return nil
		}
		if e.there() && e.kind() != String {
			return ErrWrongType
		}
		room := 0
		if !e.there() || !e.cold() {
			err := a.ready(sp, 0)
			if err != nil {
				return err
			}
			if room, err = ks.roomToPatch(sp, in.key, e, int(offset)+len(part)); err != nil {
				return a.found(err)
			}
		}
		if !e.there() {
			e = ks.add(sp, hash, in.key, nil, String, a.seq, 0)
		}
		a.enter(e)
		if e.cold() {
			a.postpone(op, e, operands)
			return nil
		}
		ks.patch(&e, int(offset), part, room)
		return nil
	case opRestore:
		at, kind, dump := in.int(), in.byte(), in.bytes()
		if skip || in.err != nil {
			return nil
		}
		val := new(loaded)
		if err := val.load(ks.seed, kind, dump); err != nil {
			in.fail(err.Error())
			return nil
		}
		if err := a.ready(sp, len(val.str)); err != nil {
			return err
		}
		a.put(sp, hash, e, val, at)
		return nil
	}
	if !skip && (adds(op) || op == opListSet || op == opListInsert) {
		if err := a.ready(sp, 0); err != nil {
			return err
		}
	}
	// What is left changes a collection, and makes it if it isn't there. An op
	// that is cut short, or that takes away, must not leave an empty one.
	if !e.there() && !skip {
		operands := in.b
		if a.change(op, nil, true); in.err != nil {
			return nil
		}
		if !adds(op) {
			return errMissing
		}
		in.b = operands
		e = ks.add(sp, hash, in.key, nil, kindOf[op], a.seq, 0)
	}
	if !skip {
		if e.kind() != kindOf[op] {
			skip = true
			if !a.newer {
				return ErrWrongType
			}
		} else {
			a.enter(e)
		}
	}
	switch {
	case skip:
		return a.change(op, nil, true)
	case !e.cold() || e.Has(objectFlag) && a.within(op, e):
		if a.last == nil {
			a.last = ks.open(e)
		}
		return a.change(op, &a.last.collection, false)
	}
	operands := in.b
	if err := a.change(op, nil, true); err != nil || in.err != nil {
		return err
	}
	a.postpone(op, e, operands)
	return nil
}

// adds reports whether an op can be the first of a collection.
func adds(op byte) bool {
	switch op {
	case opHashSet, opSetAdd, opZSetSet, opListPush:
		return true
	}
	return false
}

// put gives a key a value, whatever it held.
func (a *applier) put(sp *space, hash uint64, e entry, val *loaded, at int64) {
	if !e.there() {
		e = a.ks.create(sp, hash, a.in.key, val, a.seq, at)
		a.enter(e)
		return
	}
	a.ks.forget(e)
	a.enter(e)
	a.ks.install(&e, val)
	a.ks.setExpire(&e, at)
}

// change applies one op to a collection; with skip it only reads it.
func (a *applier) change(op byte, c *collection, skip bool) error {
	in := &a.in
	switch op {
	case opHashSet:
		field, val := in.bytes(), in.bytes()
		if !skip && in.err == nil {
			c.h.Set(field, val)
		}
	case opHashDel:
		field := in.bytes()
		if !skip && in.err == nil && !c.h.Del(field) {
			return errMissing
		}
	case opSetAdd:
		member := in.bytes()
		if !skip && in.err == nil {
			c.s.Add(member)
		}
	case opSetDel:
		member := in.bytes()
		if !skip && in.err == nil && !c.s.Del(member) {
			return errMissing
		}
	case opZSetSet:
		score, member := in.score(), in.bytes()
		if !skip && in.err == nil {
			c.z.Set(member, score)
		}
	case opZSetDel:
		member := in.bytes()
		if !skip && in.err == nil && !c.z.Del(member) {
			return errMissing
		}
	case opListPush:
		side, val := End(in.byte()), in.bytes()
		if !skip && in.err == nil {
			push(c.l, side, val)
		}
	case opListPop:
		side, count := End(in.byte()), in.int()
		if skip || in.err != nil {
			return nil
		}
		l := c.l
		if count < 0 || count > int64(l.Len()) {
			return errMissing
		}
		popMany(l, side, int(count))
	case opListSet:
		i, val := in.int(), in.bytes()
		if skip || in.err != nil {
			return nil
		}
		l := c.l
		if i < 0 || i >= int64(l.Len()) {
			return errMissing
		}
		l.SetAt(int(i), val)
	case opListInsert:
		i, val := in.int(), in.bytes()
		if skip || in.err != nil {
			return nil
		}
		l := c.l
		if i < 0 || i > int64(l.Len()) {
			return errMissing
		}
		l.InsertAt(int(i), val)
	case opListRemove:
		i := in.int()
		if skip || in.err != nil {
			return nil
		}
		l := c.l
		if i < 0 || i >= int64(l.Len()) {
			return errMissing
		}
		l.RemoveAt(int(i))
	case opListTrim:
		start, stop := in.int(), in.int()
		if skip || in.err != nil {
			return nil
		}
		l := c.l
		if start < 0 || stop >= int64(l.Len()) || start > stop {
			return errMissing
		}
		l.TrimTo(int(start), int(stop))
	case opListErase:
		count, val := in.int(), in.bytes()
		if !skip && in.err == nil && c.l.RemoveValue(val, int(count)) == 0 {
			return errMissing
		}
	}
	return nil
}

// flush applies opFlush. After a snapshot only what the flush found goes.
func (a *applier) flush(which byte) {
	a.begun = true
	for db, sp := range a.ks.spaces {
		if sp == nil || which != allDatabases && int(which) != db {
			continue
		}
		if !a.newer {
			a.ks.flush(db, a.seq)
			continue
		}
		var gone []entry
		sp.slab.Range(func(r slab.Rec) bool {
			if e := sp.at(r); !a.contains(db, e) {
				gone = append(gone, e)
			}
			return true
		})
		for _, e := range gone {
			a.ks.bury(e.hash, a.seq)
			a.ks.drop(db, e)
		}
	}
}

var errMissing = fmt.Errorf("%w: it changes what is not here", errEffect)
