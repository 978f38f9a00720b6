package keyspace

import (
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

// stub is what is known of a cold key beside its entry.
type stub struct {
	base    uint64 // the seq of the value in the tier
	away    int64  // how many bytes are not in memory
	pending []byte // effects without keys, which the value is to go through
	// lenient says that some of them came by ApplyNewer, so that those that
	// don't fit are left out.
	lenient bool
}

// begin begins a command at a time.
func (ks *Keyspace) begin(now int64) {
	ks.clock = eviction.At(now)
	if len(ks.wanted) > 0 {
		clear(ks.wanted)
		ks.wanted = ks.wanted[:0]
	}
}

// Wanted are the keys whose values the last command, or the last Apply, needs.
// It is valid until the next; the keys in it may be kept.
func (ks *Keyspace) Wanted() []ColdKey { return ks.wanted }

// want notes a cold key and returns ErrCold.
func (ks *Keyspace) want(db int, e *entry) error {
	invariant.That(!ks.inTx, "a command needs a cold value after its transaction has changed something")
	ks.note(db, e)
	return ErrCold
}

func (ks *Keyspace) note(db int, e *entry) {
	hash := ks.Hash(e.key)
	const few = 64 // beyond, twice the same key is cheaper than looking for it
	if len(ks.wanted) < few {
		for _, k := range ks.wanted {
			if k.Hash == hash && k.DB == db && string(k.Key) == string(e.key) {
				return
			}
		}
	}
	ks.wanted = append(ks.wanted, ColdKey{db, hash, append([]byte(nil), e.key...), e.cold.base})
}

func (ks *Keyspace) findCold(db int, hash uint64, key []byte) (*space, *entry) {
	sp := ks.spaces[db]
	if sp == nil || sp.account.coldKeys == 0 {
		return nil, nil
	}
	e := sp.table.Find(hash, key)
	if e == nil || e.cold == nil {
		return nil, nil
	}
	return sp, e
}

// IsCold reports whether a key is cold. It costs nothing where no key is.
func (ks *Keyspace) IsCold(db int, key []byte) bool {
	if ks.account.coldKeys == 0 {
		return false
	}
	_, e := ks.findCold(db, ks.Hash(key), key)
	return e != nil
}

// WantCold adds a key to Wanted if it is cold, and reports whether it is.
func (ks *Keyspace) WantCold(db int, key []byte) bool {
	if ks.account.coldKeys == 0 {
		return false
	}
	_, e := ks.findCold(db, ks.Hash(key), key)
	if e != nil {
		ks.note(db, e)
	}
	return e != nil
}

// Offload lets go the value of a key of which the tier holds, for certain,
// what it was after the write seq. It returns how many bytes that frees: none
// if the key has changed since or has its value in the record's head.
func (ks *Keyspace) Offload(db int, hash uint64, key []byte, seq uint64) (freed int64) {
	sp := ks.spaces[db]
	if sp == nil {
		return 0
	}
	e := sp.table.Find(hash, key)
	if e == nil || e.seq != seq || e.stored != held || e.cold != nil || e.dirty {
		return 0
	}
	e.str, e.obj = nil, nil
	ks.chill(sp, e, &stub{base: seq, away: int64(e.size - e.bare())})
	ks.Stats.Offloaded++
	return e.cold.away
}

// bare is what a key counts for without its value.
func (e *entry) bare() int { return entryOverhead + len(e.key) }

// chill makes a key cold.
func (ks *Keyspace) chill(sp *space, e *entry, s *stub) {
	e.cold = s
	ks.charge(sp, account{away: s.away, pending: int64(len(s.pending)), coldKeys: 1})
}

// forget ends that a key is cold: its value is back, or is of no interest any
// more.
func (ks *Keyspace) forget(sp *space, e *entry) {
	if s := e.cold; s != nil {
		ks.charge(sp, account{away: -s.away, pending: -int64(len(s.pending)), coldKeys: -1})
		e.cold = nil
	}
}

// postpone keeps an op whose operands have just been read until the value of
// e is there.
func (a *applier) postpone(op byte, sp *space, e *entry, operands []byte) {
	if a.in.err != nil {
		return
	}
	operands = operands[:len(operands)-len(a.in.b)]
	s := e.cold
	s.pending = append(append(s.pending, op|sameKey), operands...)
	s.lenient = s.lenient || a.newer
	a.ks.charge(sp, account{pending: int64(1 + len(operands))})
	a.ks.note(a.in.db, e)
}

// Restore brings back the value of a key that was wanted, as the tier gave it.
// Whatever happened to the key meanwhile has been right: if it was deleted,
// overwritten or restored, nothing happens; what is pending is carried out.
// An error means that the tier's record is damaged, or that effects don't fit
// it; the key is then as it was.
func (ks *Keyspace) Restore(k ColdKey, head, body []byte) error {
	sp, e := ks.findCold(k.DB, k.Hash, k.Key)
	if e == nil || e.cold.base != k.Seq {
		return nil
	}
	warm, fits, err := ks.thaw(e, head, body)
	if err != nil {
		return fmt.Errorf("restore a key of database %d: %w", k.DB, err)
	}
	if !fits {
		return nil
	}
	exact := e.cold.base == e.seq
	ks.forget(sp, e)
	e.take(warm)
	switch {
	case e.stored == unstored:
	case exact:
		e.stored = held
	default:
		e.stored = apart
	}
	ks.settle(sp, e)
	ks.Stats.Restored++
	return nil
}

// thaw makes an entry, with no place in the table, that has the value of the
// cold key e. It reports false if head and body are of another write than the
// one e needs.
func (ks *Keyspace) thaw(e *entry, head, body []byte) (warm *entry, fits bool, err error) {
	h, err := readHead(head)
	if err != nil {
		return nil, false, err
	}
	seq, dump, err := readBody(body)
	if err != nil {
		return nil, false, err
	}
	if h.base != e.cold.base || seq != h.base {
		return nil, false, nil
	}
	loaded, err := load(ks.seed, h.form, dump)
	if err != nil {
		return nil, false, err
	}
	if loaded.kind != e.kind {
		return nil, false, fmt.Errorf("it is a %v and should be a %v", loaded.kind, e.kind)
	}
	loaded.key, loaded.seq, loaded.expire = e.key, e.seq, e.expire
	if err := loaded.carryOut(ks, e.cold); err != nil {
		return nil, false, err
	}
	return &loaded, true, nil
}

// carryOut does to e's value what is pending.
func (e *entry) carryOut(ks *Keyspace, s *stub) error {
	a := applier{ks: ks, in: effectReader{b: s.pending, key: e.key}}
	for len(a.in.b) > 0 && a.in.err == nil {
		if err := a.pending(e); err != nil && !s.lenient {
			return err
		}
	}
	return a.in.err
}

// pending applies one op that was postponed.
func (a *applier) pending(e *entry) error {
	in := &a.in
	op := in.op()
	if op != opStrPatch {
		if int(op) >= len(kindOf) || kindOf[op] == None || kindOf[op] != e.kind {
			in.fail(fmt.Sprintf("op %d can't be pending on a %v", op, e.kind))
			return nil
		}
		return a.change(op, e, false)
	}
	offset, part := in.int(), in.bytes()
	if in.err != nil || e.kind != String || offset < 0 || offset > a.ks.longest-int64(len(part)) {
		in.fail("a patch that doesn't fit")
		return nil
	}
	e.patch(int(offset), part)
	return nil
}
