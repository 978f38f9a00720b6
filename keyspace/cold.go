package keyspace

import (
	"errors"
	"fmt"

	"vecino/eviction"
	"vecino/internal/invariant"
	"vecino/value"
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
// A key whose record isn't here either is sunk: see sunk.go.
//
// An effect on a cold key, on a replica or in recovery, doesn't wait: the
// record moves on (seq, deadline, whether it is there), and what it does to
// the value is kept as *pending* until the value comes. Restore then carries it
// out. An effect that doesn't look at the value throws away what is pending.

// Of a collection that is stored in parts, some may be in memory: partly.go.

// ErrCold is returned where the value of a cold key is needed. Wanted says of
// which keys.
var ErrCold = errors.New("the value is on disk")

// ColdKey is a key whose value lies in the tier; one that is sunk, perhaps, which has
// no Seq; or, with Last and without Key, all sunk keys with hashes from Hash to Last.
type ColdKey struct {
	DB   int
	Hash uint64
	Key  []byte
	Seq  uint64 // of the value in the tier; the key's own may have moved on
	// Need is what of it is needed, if it lies in parts; nil for all. Any other value
	// is needed as a whole.
	Need *value.Need
	Last uint64
	Bare bool // of one that is sunk: its record alone
	// Names is set where only the names are asked for of a range: see Names.
	Names string
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
	ks.look.all = true
	ks.unsure = false
}

// Wanted are the keys whose values the last command, or the last Apply, needs.
// It is valid until the next; the keys in it may be kept.
func (ks *Keyspace) Wanted() []ColdKey { return ks.wanted }

// want notes a cold key, and what is needed of it, and returns ErrCold.
func (ks *Keyspace) want(db int, e entry, need *value.Need) error {
	invariant.That(!ks.inTx, "a command needs a cold value after its transaction has changed something")
	ks.note(db, e, need)
	return ErrCold
}

func (ks *Keyspace) note(db int, e entry, need *value.Need) {
	if len(ks.wanted) < fewWanted {
		for i := range ks.wanted {
			k := &ks.wanted[i]
			if k.Seq != 0 && k.Hash == e.hash && k.DB == db && string(k.Key) == string(e.Key()) {
				k.Need = k.Need.With(need)
				return
			}
		}
	}
	ks.wanted = append(ks.wanted, ColdKey{DB: db, Hash: e.hash, Key: append([]byte(nil), e.Key()...), Seq: e.stub().base, Need: need})
}

// fewWanted is up to how many keys are looked through for one that is wanted already.
// Beyond, twice the same is cheaper.
const fewWanted = 64

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

// WantCold adds a key to Wanted if it is cold, and something of it that is looked at (see
// LookAt) is not in memory, or if it is perhaps sunk. It reports whether that is so.
func (ks *Keyspace) WantCold(db int, key []byte) bool {
	if ks.account.coldKeys > 0 {
		if e := ks.findCold(db, ks.Hash(key), key); e.there() {
			need, lacks := ks.lacks(e)
			if lacks {
				ks.note(db, e, need)
			}
			return lacks
		}
	}
	return ks.wantSunk(db, key, true)
}

// Needs reports whether what was wanted is still lacking: something of a key, a sunk key,
// any of a range, or their names.
func (ks *Keyspace) Needs(k *ColdKey) bool {
	sp := ks.spaces[k.DB]
	switch {
	case sp == nil:
		return false
	case k.Names != "":
		r := ks.rolls[rollID{k.DB, k.Names}]
		return r == nil || !r.whole
	case k.Last != 0:
		return sp.printed(k.Hash, k.Last)
	case k.Seq == 0:
		return sp.slab.Find(k.Hash, k.Key) == 0 && ks.maybe(sp, k.DB, k.Hash, k.Key)
	}
	e := ks.findCold(k.DB, k.Hash, k.Key)
	if !e.there() || e.stub().base != k.Seq {
		return false
	}
	return k.Need == nil || !e.Has(objectFlag) || !e.object().partial().Satisfies(k.Need)
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
	if !e.there() || e.Seq() != seq || !e.stored().holds() || e.cold() && !e.Has(objectFlag) || e.Has(openFlag) {
		return 0
	}
	if len(e.Value()) < stubSize && !HasRoom() { // else the stub fits where the value is
		return 0
	}
	size, away := e.fit(), int64(0)
	if e.cold() {
		away = e.stub().away
		ks.forget(e)
	} else {
		ks.dropObject(e)
	}
	ks.Stats.Offloaded++
	return max(ks.chill(&e, size, seq)-away, 1) // as short as its stub a value is in tests only
}

// chill makes a key cold, which has no object, and counts for size bytes with
// the value that the tier has since the write base. It returns how many bytes
// that keeps out of memory.
func (ks *Keyspace) chill(e *entry, size int64, base uint64) (away int64) {
	before := e.bare()
	var b [stubSize]byte
	ks.set(e, b[:], stubSize)
	away = size - e.bare()
	putStub(e.Value(), stub{base, away})
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
	ks.dropObject(e)
	ks.leavePending(e, nil)
	away := e.stub().away
	ks.charge(e.sp, account{used: -away, away: -away, coldKeys: -1})
	e.Unmark(coldFlag)
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
	a.ks.note(a.in.db, e, needOfOp(a.ks.seed, op, operands))
}

// Restore brings back the value of a key that was wanted, or some parts of it, or a sunk
// key, as the tier gave it; nil if the tier has none. Whatever happened to the key meanwhile
// has been right: if it was deleted, overwritten or restored, nothing happens; what is
// pending is carried out.
// An error means that the tier's record isn't the key's, that effects don't fit
// it, or ErrNoMemory; the key is then as it was. A large value isn't copied. w is used up.
func (ks *Keyspace) Restore(k ColdKey, w *Warm) error {
	if k.Seq == 0 {
		return ks.surfaceAll(k, w)
	}
	back, err := ks.restore(k, w)
	if back {
		ks.welcome(k.DB, k.Hash, k.Key, false)
	}
	return err
}

// restore is Restore for a cold key, and reports whether its value is back.
func (ks *Keyspace) restore(k ColdKey, w *Warm) (back bool, err error) {
	e := ks.findCold(k.DB, k.Hash, k.Key)
	if !e.there() || e.stub().base != k.Seq {
		return false, nil
	}
	fits, rest, err := ks.thaw(e, w)
	if fits {
		if err := ks.mayTake(e.sp, len(k.Key)+len(w.loaded.str)); err != nil {
			return false, err
		}
		defer ks.settle()
	}
	switch {
	case err != nil || !fits:
	case e.Has(objectFlag) && (w.loaded.partly() || w.base != e.Seq()):
		err = ks.takeParts(e, w.loaded, rest)
	case w.loaded.partly():
		e.back(w)
		ks.beginParts(&e, w.loaded, rest)
	default:
		ks.forget(e)
		ks.install(&e, w.loaded)
		e.back(w)
		back = true
	}
	if err != nil {
		return false, fmt.Errorf("restore a key of database %d: %w", k.DB, err)
	}
	if fits {
		ks.Stats.Restored++
	}
	return back, nil
}

// back says that w is in memory again, or parts of it. If that counts for another size
// than the tier says it is to be swept again, so that a sunk key comes back as large as
// it was.
func (e entry) back(w *Warm) {
	switch {
	case e.stored() == unstored:
	case w.base == e.Seq() && w.size == e.fit():
		e.store(sure)
	default:
		e.store(apart)
	}
}

// thaw makes w the value that a cold key has now, or what w has of it. It reports false if
// w is of another write than the one that e needs. rest is what is pending on what w
// hasn't got.
func (ks *Keyspace) thaw(e entry, w *Warm) (fits bool, rest []byte, err error) {
	switch {
	case w == nil || w.loaded == nil:
		return false, nil, fmt.Errorf("%w: no record", errHead)
	case w.base != e.stub().base && !(e.Has(objectFlag) && w.base > e.stub().base): // see partly.go
		return false, nil, nil
	case w.loaded.kind != e.kind():
		return false, nil, fmt.Errorf("it is a %v and should be a %v", w.loaded.kind, e.kind())
	}
	p := e.pending()
	if e.Has(objectFlag) && e.kind() == ListKind {
		return true, p.ops, nil // it is about the list that both are together
	}
	rest, err = w.loaded.carryOut(ks, e.Key(), p)
	return err == nil, rest, err
}

// carryOut does to a value what is pending, and returns what is about parts that it
// hasn't got.
func (l *loaded) carryOut(ks *Keyspace, key []byte, p pending) (rest []byte, err error) {
	a := applier{ks: ks, in: effectReader{b: p.ops, key: key}}
	partly := l.partly()
	for len(a.in.b) > 0 && a.in.err == nil {
		if partly {
			whole := a.in.b
			op := a.in.op()
			if need := needOfOp(ks.seed, op, a.in.b); need == nil || l.kind == ListKind || !l.partial().Satisfies(need) {
				a.change(op, nil, true)
				rest = append(rest, whole[:len(whole)-len(a.in.b)]...)
				continue
			}
			a.in.b = whole
		}
		if err := a.pending(l); err != nil && !p.lenient {
			return nil, err
		}
	}
	return rest, a.in.err
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
