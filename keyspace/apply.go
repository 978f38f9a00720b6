package keyspace

import (
	"fmt"

	"vecino/value"
)

// Apply makes the changes of one journal entry, the write seq, as they were
// recorded. An error means that the effects don't fit what is here, so that
// this copy has gone wrong and must be replaced.
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

func (ks *Keyspace) apply(effects []byte, seq uint64, newer bool) error {
	ks.wanted = ks.wanted[:0]
	a := applier{ks: ks, seq: seq, newer: newer, in: effectReader{b: effects}}
	if err := a.run(); err != nil {
		return fmt.Errorf("apply write %d: %w", seq, err)
	}
	return nil
}

func (a *applier) run() error {
	defer a.leave()
	for len(a.in.b) > 0 && a.in.err == nil {
		if err := a.step(); err != nil && !a.newer {
			return err
		}
	}
	return a.in.err
}

type applier struct {
	ks    *Keyspace
	seq   uint64
	newer bool
	in    effectReader
	last  *entry // changed, but not yet settled
	space *space // of last
	// fresh is, when newer, the keys that this write has changed here. They
	// carry its number, as those do that the snapshot had after it, but what
	// else the write does to them is still to come.
	fresh map[*entry]struct{}
}

// leave settles the account of the key that was last changed.
func (a *applier) leave() {
	if a.last != nil && !a.last.dead {
		a.ks.settle(a.space, a.last)
	}
	a.last = nil
}

func (a *applier) enter(sp *space, e *entry) {
	if a.last != e {
		a.leave()
		a.last, a.space = e, sp
	}
	e.moved(a.seq)
	if a.newer {
		if a.fresh == nil {
			a.fresh = make(map[*entry]struct{})
		}
		a.fresh[e] = struct{}{}
	}
}

// contains reports whether e had this write when the snapshot was taken.
func (a *applier) contains(e *entry) bool {
	if !a.newer || e == nil || e.seq < a.seq {
		return false
	}
	_, fresh := a.fresh[e]
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
	e := sp.table.Find(hash, in.key)
	skip := a.contains(e)

	switch op {
	case opDel:
		why := reason(in.byte())
		if skip || in.err != nil {
			return nil
		}
		if why != byExpiry {
			ks.bury(hash, a.seq)
		}
		if e == nil {
			return errMissing
		}
		ks.drop(in.db, sp, hash, e)
		return nil
	case opExpire:
		at := in.int()
		if skip || in.err != nil {
			return nil
		}
		if e == nil {
			return errMissing
		}
		a.enter(sp, e)
		sp.setExpire(e, at)
		return nil
	case opStrSet:
		at, val := in.int(), in.bytes()
		if skip || in.err != nil {
			return nil
		}
		if e == nil {
			e = ks.add(sp, hash, in.key, String, a.seq)
		}
		ks.forget(sp, e)
		a.enter(sp, e)
		e.kind, e.obj, e.raw = String, nil, false
		e.str = setBytes(e.str, val)
		sp.setExpire(e, at)
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
		if e == nil {
			e = ks.add(sp, hash, in.key, String, a.seq)
		} else if e.kind != String {
			return ErrWrongType
		}
		a.enter(sp, e)
		if e.cold != nil {
			a.postpone(op, sp, e, operands)
			return nil
		}
		e.patch(int(offset), part)
		return nil
	case opRestore:
		at, kind, dump := in.int(), in.byte(), in.bytes()
		if skip || in.err != nil {
			return nil
		}
		loaded, err := load(ks.seed, kind, dump)
		if err != nil {
			in.fail(err.Error())
			return nil
		}
		if e == nil {
			e = ks.add(sp, hash, in.key, loaded.kind, a.seq)
		}
		ks.forget(sp, e)
		a.enter(sp, e)
		e.take(&loaded)
		sp.setExpire(e, at)
		return nil
	}
	// What is left changes a collection, and makes it if it isn't there.
	if e == nil && !skip {
		e = ks.add(sp, hash, in.key, kindOf[op], a.seq)
		e.obj = newValue(kindOf[op], ks.seed)
	}
	if !skip {
		if e.kind != kindOf[op] {
			skip = true
			if !a.newer {
				return ErrWrongType
			}
		} else {
			a.enter(sp, e)
		}
	}
	if e == nil || e.cold == nil || skip {
		return a.change(op, e, skip)
	}
	operands := in.b
	if err := a.change(op, e, true); err != nil || in.err != nil {
		return err
	}
	a.postpone(op, sp, e, operands)
	return nil
}

// change applies one op to a collection; with skip it only reads it.
func (a *applier) change(op byte, e *entry, skip bool) error {
	in := &a.in
	switch op {
	case opHashSet:
		field, val := in.bytes(), in.bytes()
		if !skip && in.err == nil {
			e.obj.(*value.Hash).Set(field, val)
		}
	case opHashDel:
		field := in.bytes()
		if !skip && in.err == nil && !e.obj.(*value.Hash).Del(field) {
			return errMissing
		}
	case opSetAdd:
		member := in.bytes()
		if !skip && in.err == nil {
			e.obj.(*value.Set).Add(member)
		}
	case opSetDel:
		member := in.bytes()
		if !skip && in.err == nil && !e.obj.(*value.Set).Del(member) {
			return errMissing
		}
	case opZSetSet:
		score, member := in.score(), in.bytes()
		if !skip && in.err == nil {
			e.obj.(*value.ZSet).Set(member, score)
		}
	case opZSetDel:
		member := in.bytes()
		if !skip && in.err == nil && !e.obj.(*value.ZSet).Del(member) {
			return errMissing
		}
	case opListPush:
		side, val := End(in.byte()), in.bytes()
		if !skip && in.err == nil {
			push(e.obj.(*value.List), side, val)
		}
	case opListPop:
		side, count := End(in.byte()), in.int()
		if skip || in.err != nil {
			return nil
		}
		l := e.obj.(*value.List)
		if count < 0 || count > int64(l.Len()) {
			return errMissing
		}
		popMany(l, side, int(count))
	case opListSet:
		i, val := in.int(), in.bytes()
		if skip || in.err != nil {
			return nil
		}
		l := e.obj.(*value.List)
		if i < 0 || i >= int64(l.Len()) {
			return errMissing
		}
		l.SetAt(int(i), val)
	case opListInsert:
		i, val := in.int(), in.bytes()
		if skip || in.err != nil {
			return nil
		}
		l := e.obj.(*value.List)
		if i < 0 || i > int64(l.Len()) {
			return errMissing
		}
		l.InsertAt(int(i), val)
	case opListRemove:
		i := in.int()
		if skip || in.err != nil {
			return nil
		}
		l := e.obj.(*value.List)
		if i < 0 || i >= int64(l.Len()) {
			return errMissing
		}
		l.RemoveAt(int(i))
	case opListTrim:
		start, stop := in.int(), in.int()
		if skip || in.err != nil {
			return nil
		}
		l := e.obj.(*value.List)
		if start < 0 || stop >= int64(l.Len()) || start > stop {
			return errMissing
		}
		l.TrimTo(int(start), int(stop))
	case opListErase:
		count, val := in.int(), in.bytes()
		if !skip && in.err == nil && e.obj.(*value.List).RemoveValue(val, int(count)) == 0 {
			return errMissing
		}
	}
	return nil
}

// flush applies opFlush. After a snapshot only what the flush found goes.
func (a *applier) flush(which byte) {
	for db, sp := range a.ks.spaces {
		if sp == nil || which != allDatabases && int(which) != db {
			continue
		}
		if !a.newer {
			a.ks.flush(db, a.seq)
			continue
		}
		var gone []*entry
		sp.table.Range(func(e *entry) bool {
			if !a.contains(e) {
				gone = append(gone, e)
			}
			return true
		})
		for _, e := range gone {
			hash := a.ks.Hash(e.key)
			a.ks.bury(hash, a.seq)
			a.ks.drop(db, sp, hash, e)
		}
	}
}

var errMissing = fmt.Errorf("%w: it changes what is not here", errEffect)

func newValue(kind Kind, seed uint64) any {
	switch kind {
	case HashKind:
		return value.NewHash(seed)
	case ListKind:
		return value.NewList()
	case SetKind:
		return value.NewSet(seed)
	case ZSetKind:
		return value.NewZSet(seed)
	}
	return nil
}
