package keyspace

import (
	"encoding/binary"
	"errors"
	"fmt"

	"vecino/eviction"
	"vecino/internal/invariant"
)

// A cold key has its record here (key, kind, seq, deadline, size) and its
// value in the tier. What asks only for the record works as ever: DBSIZE, SCAN,
// KEYS, RANDOMKEY, EXISTS, TYPE, TTL, MEMORY USAGE; so does what puts
// something else in the place of the value, or nothing: SET, DEL, EXPIRE,
// expiry, eviction.
//
// What needs the value gets ErrCold, and the key is noted in Wanted. Whoever
// ran the command loads the value from the tier without holding up anybody,
// gives it to Restore, and runs the command again.
//
// Running again is right because of a rule: a command that gets ErrCold has
// not changed anything yet. Handlers look first, then change, so for one
// command it is enough to try. Where several commands are one transaction,
// whoever runs it loads the values of all their keys before (WantCold); the
// keys stay in memory, since only Offload makes keys cold, and nothing calls
// that while a transaction runs. That keys have expired or were evicted before
// ErrCold came doesn't matter: that stays so.
//
// An effect on a cold key, on a replica or in recovery, doesn't wait: the
// record moves on (seq, deadline, whether it is there), and what it does to
// the value is kept as *pending* until the value comes. Restore then carries it
// out. An effect that doesn't look at the value throws away what is pending.

// ErrCold is returned where the value of a cold key is needed. Wanted says of
// which keys.
var ErrCold = errors.New("the value is on disk")

// ColdKey is a key whose value lies in the tier.
type ColdKey struct {
	DB   int
	Hash uint64
	Key  []byte
	Seq  uint64 // of the value in the tier; the key's own may have moved on
}

// begin begins a command at a time.
func (ks *Keyspace) begin(now int64) {
	ks.clock = eviction.At(now)
	if ks.desk.n > 0 {
		ks.shutAll()
	}
	if len(ks.wanted) > 0 {
		clear(ks.wanted)
		ks.wanted = ks.wanted[:0]
	}
}

// Wanted are the keys whose values the last command, or the last Apply, needs.
// It is valid until the next; the keys in it may be kept.
func (ks *Keyspace) Wanted() []ColdKey { return ks.wanted }

// want notes a cold key and returns ErrCold.
func (ks *Keyspace) want(db int, e entry) error {
	invariant.That(!ks.inTx, "a command needs a cold value after its transaction has changed something")
	ks.note(db, e)
	return ErrCold
}

func (ks *Keyspace) note(db int, e entry) {
	const few = 64 // beyond, twice the same key is cheaper than looking for it
	if len(ks.wanted) < few {
		for _, k := range ks.wanted {
			if k.Hash == e.hash && k.DB == db && string(k.Key) == string(e.Key()) {
				return
			}
		}
	}
	ks.wanted = append(ks.wanted, ColdKey{db, e.hash, append([]byte(nil), e.Key()...), e.stub().base})
}

// findCold is the entry of a key that is cold, else of none.
func (ks *Keyspace) findCold(db int, hash uint64, key []byte) entry {
	sp := ks.spaces[db]
	if sp == nil || sp.account.coldKeys == 0 {
		return entry{}
	}
	if e := sp.find(hash, key); e.there() && e.cold() {
		return e
	}
	return entry{}
}

// IsCold reports whether a key is cold. It costs nothing where no key is.
func (ks *Keyspace) IsCold(db int, key []byte) bool {
	if ks.account.coldKeys == 0 {
		return false
	}
	return ks.findCold(db, ks.Hash(key), key).there()
}

// WantCold adds a key to Wanted if it is cold, and reports whether it is.
func (ks *Keyspace) WantCold(db int, key []byte) bool {
	if ks.account.coldKeys == 0 {
		return false
	}
	e := ks.findCold(db, ks.Hash(key), key)
	if e.there() {
		ks.note(db, e)
	}
	return e.there()
}

// Offload lets go the value of a key of which the tier holds, for certain,
// what it was after the write seq. It returns how many bytes that frees: none
// if the key has changed since or has its value in the record's head.
func (ks *Keyspace) Offload(db int, hash uint64, key []byte, seq uint64) (freed int64) {
	sp := ks.spaces[db]
	if sp == nil {
		return 0
	}
	e := sp.find(hash, key)
	if !e.there() || e.Seq() != seq || e.stored() != held || e.cold() || e.Has(openFlag) {
		return 0
	}
	if len(e.Value()) < stubSize && !HasRoom() { // else the stub fits where the value is
		return 0
	}
	size := e.size()
	ks.dropObject(e)
	ks.Stats.Offloaded++
	return ks.chill(&e, size, seq)
}

// chill makes a key cold, which has no object, and counts for size bytes with
// the value that the tier has since the write base. It returns how many bytes
// that keeps out of memory.
func (ks *Keyspace) chill(e *entry, size int64, base uint64) (away int64) {
	before := e.bare()
	var b [stubSize]byte
	ks.set(e, b[:], stubSize)
	away = max(size-e.bare(), 1) // as short as its stub a value is in tests only
	binary.LittleEndian.PutUint64(e.Value(), uint64(away))
	binary.LittleEndian.PutUint64(e.Value()[8:], base)
	e.Mark(coldFlag)
	ks.charge(e.sp, account{used: e.bare() + away - before, away: away, coldKeys: 1})
	return away
}

// forget ends that a key is cold: its value is back, or is of no interest any
// more. The record's own is without a meaning then.
func (ks *Keyspace) forget(e entry) {
	if !e.cold() {
		return
	}
	away := e.stub().away
	ks.charge(e.sp, account{used: -away, away: -away, pending: -int64(len(e.pending().ops)), coldKeys: -1})
	if e.Has(pendingFlag) {
		delete(e.sp.pending, string(e.Key()))
	}
	e.Unmark(coldFlag | pendingFlag)
}

// await lets effects be pending on a cold key.
func (ks *Keyspace) await(e entry, ops []byte, lenient bool) *pending {
	if !e.Has(pendingFlag) {
		if e.sp.pending == nil {
			e.sp.pending = make(map[string]*pending)
		}
		e.sp.pending[string(e.Key())] = new(pending)
		e.Mark(pendingFlag)
	}
	p := e.sp.pending[string(e.Key())]
	p.ops = append(p.ops, ops...)
	p.lenient = p.lenient || lenient
	ks.charge(e.sp, account{pending: int64(len(ops))})
	return p
}

// postpone keeps an op whose operands have just been read until the value of
// e is there.
func (a *applier) postpone(op byte, e entry, operands []byte) {
	if a.in.err != nil {
		return
	}
	operands = operands[:len(operands)-len(a.in.b)]
	a.ks.await(e, []byte{op | sameKey}, a.newer)
	a.ks.await(e, operands, a.newer)
	a.ks.note(a.in.db, e)
}

// Restore brings back the value of a key that was wanted, as the tier gave it; nil if
// the tier has none. Whatever happened to the key meanwhile has been right: if it was
// deleted, overwritten or restored, nothing happens; what is pending is carried out.
// An error means that the tier's record isn't the key's, that effects don't fit
// it, or ErrNoMemory; the key is then as it was. A large value isn't copied. w is used up.
func (ks *Keyspace) Restore(k ColdKey, w *Warm) error {
	e := ks.findCold(k.DB, k.Hash, k.Key)
	if !e.there() || e.stub().base != k.Seq {
		return nil
	}
	fits, err := ks.thaw(e, w)
	if err != nil {
		return fmt.Errorf("restore a key of database %d: %w", k.DB, err)
	}
	if !fits {
		return nil
	}
	if err := ks.mayTake(e.sp, len(k.Key)+len(w.loaded.str)); err != nil {
		return err
	}
	defer ks.settle()
	exact := e.stub().base == e.Seq()
	ks.forget(e)
	ks.install(&e, w.loaded)
	switch {
	case e.stored() == unstored:
	case exact:
		e.store(held)
	default:
		e.store(apart)
	}
	ks.Stats.Restored++
	return nil
}

// thaw makes w the value that a cold key has now. It reports false if w is of another
// write than the one that e needs.
func (ks *Keyspace) thaw(e entry, w *Warm) (fits bool, err error) {
	switch {
	case w == nil:
		return false, fmt.Errorf("%w: no record", errHead)
	case w.base != e.stub().base:
		return false, nil
	case w.loaded.kind != e.kind():
		return false, fmt.Errorf("it is a %v and should be a %v", w.loaded.kind, e.kind())
	}
	return true, w.loaded.carryOut(ks, e.Key(), e.pending())
}

// carryOut does to a value what is pending.
func (l *loaded) carryOut(ks *Keyspace, key []byte, p pending) error {
	a := applier{ks: ks, in: effectReader{b: p.ops, key: key}}
	for len(a.in.b) > 0 && a.in.err == nil {
		if err := a.pending(l); err != nil && !p.lenient {
			return err
		}
	}
	return a.in.err
}

// pending applies one op that was postponed.
func (a *applier) pending(l *loaded) error {
	in := &a.in
	op := in.op()
	if op != opStrPatch {
		if int(op) >= len(kindOf) || kindOf[op] == None || kindOf[op] != l.kind {
			in.fail(fmt.Sprintf("op %d can't be pending on a %v", op, l.kind))
			return nil
		}
		return a.change(op, &l.collection, false)
	}
	offset, part := in.int(), in.bytes()
	if in.err != nil || l.kind != String || offset < 0 || offset > a.ks.longest-int64(len(part)) {
		in.fail("a patch that doesn't fit")
		return nil
	}
	if end := int(offset) + len(part); end > len(l.str) {
		l.str = append(l.str, make([]byte, end-len(l.str))...)
	}
	copy(l.str[offset:], part)
	l.raw = true
	return nil
}
