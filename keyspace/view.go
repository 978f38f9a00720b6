package keyspace

import (
	"strconv"

	"vecino/slab"
	"vecino/value"
)

// A View reads one logical database at one moment. Nothing it returns can
// change anything; slices are valid until the next change of the keyspace.
//
// A key whose deadline has passed is not there for a View, whether or not
// anybody has deleted it yet.
type View struct {
	ks  *Keyspace
	db  int
	now int64
	rng value.Rand
}

// View opens a view of a logical database at the time now, in milliseconds
// since 1970.
func (ks *Keyspace) View(db int, now int64, rng value.Rand) View {
	if ks.running {
		ks.tx.EndCommand() // it may look at what the transaction has open
	}
	ks.begin(now)
	return View{ks: ks, db: db, now: now, rng: rng}
}

// DB is the logical database that is looked at.
func (v *View) DB() int { return v.db }

// Now is the time of the command in milliseconds since 1970.
func (v *View) Now() int64 { return v.now }

// Rand is the source of random choices.
func (v *View) Rand() value.Rand { return v.rng }

// Keyspace leads to what is not about one logical database.
func (v *View) Keyspace() *Keyspace { return v.ks }

func (v *View) find(key []byte) entry { return v.look(key, false) }

// look is find, where deep says that the value is needed.
func (v *View) look(key []byte, deep bool) entry {
	sp := v.ks.spaces[v.db]
	if sp == nil {
		return entry{}
	}
	e := sp.find(v.ks.Hash(key), key)
	if !e.there() {
		v.missing(sp, e.hash, key, deep)
		return entry{}
	}
	if e.expired(v.now) {
		return entry{}
	}
	return e
}

// lookup is find for commands whose lookups count as hits and misses.
func (v *View) lookup(key []byte) entry {
	e := v.find(key)
	if !e.there() {
		v.ks.Stats.Misses++
	} else {
		v.ks.Stats.Hits++
	}
	return e
}

// typed looks a key up that must hold kind, if it is there.
func (v *View) typed(key []byte, kind Kind) (entry, error) {
	e := v.look(key, true)
	if !e.there() {
		v.ks.Stats.Misses++
		return entry{}, nil
	}
	if e.cold() && e.kind() == kind {
		if need, lacks := v.ks.lacks(e); lacks {
			return entry{}, v.ks.want(v.db, e, need) // it counts when it is looked up again
		}
	}
	v.ks.Stats.Hits++
	v.used(e)
	if e.kind() != kind {
		return entry{}, ErrWrongType
	}
	return e, nil
}

// used says that a command uses a key.
func (v *View) used(e entry) {
	if !v.ks.evict.policy.LFU() {
		e.SetClock(uint32(v.ks.clock))
	} else if v.rng != nil {
		e.SetClock(uint32(v.ks.stamp(e.Rec).Used(v.ks.clock, v.rng.Uint64())))
	}
}

// Touch says that a key is used, and reports whether it is there.
func (v *View) Touch(key []byte) bool {
	e := v.lookup(key)
	if e.there() {
		v.used(e)
	}
	return e.there()
}

// Idle is for how many milliseconds a key wasn't used.
func (v *View) Idle(key []byte) (ms int64, found bool) {
	e := v.find(key)
	if !e.there() {
		return 0, false
	}
	if v.ks.evict.policy.LFU() {
		return e.access().IdleLFU(v.ks.clock), true
	}
	return e.access().Idle(v.ks.clock), true
}

// Freq is the logarithmic count of a key's uses. It means something under an
// LFU policy.
func (v *View) Freq(key []byte) (count int, found bool) {
	e := v.find(key)
	if !e.there() {
		return 0, false
	}
	return v.ks.stamp(e.Rec).Count(v.ks.clock), true
}

// Exists reports whether the key is there.
func (v *View) Exists(key []byte) bool { return v.lookup(key).there() }

// Kind is the type of a key's value, None if there is no such key.
func (v *View) Kind(key []byte) Kind {
	if e := v.find(key); e.there() {
		return e.kind()
	}
	return None
}

// Deadline is when the key expires, in milliseconds since 1970, 0 for never.
// found is false if there is no such key.
func (v *View) Deadline(key []byte) (at int64, found bool) {
	e := v.find(key)
	if !e.there() {
		return 0, false
	}
	return e.expire(), true
}

// Len is the number of keys, as DBSIZE counts them.
func (v *View) Len() int { return v.ks.Len(v.db) }

// String is the value of a string. found is false if there is no such key.
func (v *View) String(key []byte) (s []byte, found bool, err error) {
	e, err := v.typed(key, String)
	if !e.there() {
		return nil, false, err
	}
	return e.Value(), true, nil
}

// Encoding is how the value of a key is kept, in the words of OBJECT
// ENCODING; empty if there is no such key. The error is ErrCold.
func (v *View) Encoding(key []byte) (string, error) {
	e := v.look(key, true)
	if !e.there() {
		return "", nil
	}
	if e.cold() {
		return "", v.ks.want(v.db, e, v.ks.rest(e))
	}
	return v.ks.encoding(e), nil
}

func (ks *Keyspace) encoding(e entry) string {
	if e.kind() != String {
		return ks.open(e).encoding()
	}
	switch s := e.Value(); {
	case e.raw():
		return "raw"
	case isInt(s):
		return "int"
	case len(s) <= 44: // OBJ_ENCODING_EMBSTR_SIZE_LIMIT of Redis
		return "embstr"
	}
	return "raw"
}

// isInt reports whether s is a number exactly as an int64 would be printed.
func isInt(s []byte) bool {
	if len(s) == 0 || len(s) > 20 {
		return false
	}
	n, err := strconv.ParseInt(string(s), 10, 64)
	if err != nil {
		return false
	}
	var buf [20]byte
	return string(strconv.AppendInt(buf[:0], n, 10)) == string(s)
}

// Size is how many bytes a key and its value take, or would if it were in
// memory.
func (v *View) Size(key []byte) (bytes int, found bool) {
	e := v.find(key)
	if !e.there() {
		return 0, false
	}
	return int(v.ks.sync(e).size()), true
}

// Random is a key chosen at random, nil if there is none. Redis's RANDOMKEY
// gives up likewise after it met a hundred expired keys.
func (v *View) Random() []byte {
	sp := v.ks.spaces[v.db]
	if sp == nil {
		return nil
	}
	if sp.account.sunk > 0 {
		if key, chosen := v.randomSunk(sp); chosen {
			return key
		}
	}
	for range 100 {
		r := sp.slab.Random(v.rng)
		if r == 0 {
			return nil
		}
		if !expired(r, v.now) {
			return r.Key()
		}
	}
	return nil
}

// Scan calls fn for keys in the order of their hashes, beginning at cursor,
// about count of them, and returns where to go on, 0 at the end. Every key
// that is there from the first call to the last is given. The cursor holds no
// state on this node and means the same on every copy of the database.
func (v *View) Scan(cursor uint64, count int, fn func(key []byte, kind Kind)) (next uint64) {
	sp := v.ks.spaces[v.db]
	if sp == nil {
		return 0
	}
	if sp.account.sunk > 0 {
		return v.scanSunk(sp, cursor, count, fn)
	}
	return v.scan(sp, cursor, count, ^uint64(0), fn)
}

// scan is Scan for records with hashes up to last.
func (v *View) scan(sp *space, cursor uint64, count int, last uint64, fn func(key []byte, kind Kind)) (next uint64) {
	return sp.slab.ScanFrom(cursor, count, func(hash uint64, r slab.Rec) {
		if hash <= last && !expired(r, v.now) {
			fn(r.Key(), Kind(r.Kind()))
		}
	})
}

// Range calls fn for every key that has a record here, until it returns false. Names
// gives all.
func (v *View) Range(fn func(key []byte, kind Kind) bool) {
	sp := v.ks.spaces[v.db]
	if sp == nil {
		return
	}
	sp.slab.Range(func(r slab.Rec) bool {
		return expired(r, v.now) || fn(r.Key(), Kind(r.Kind()))
	})
}
