package keyspace

import (
	"encoding/binary"
	"errors"

	"vecino/eviction"
	"vecino/slab"
)

// Who needs the names of all keys, as KEYS does, needs those of sunk keys from the
// tier, but not the keys: a roll gathers the names, some at a time, while the
// database goes on. Keys that sink meanwhile, and until the roll is read, are added
// by themselves. Of those in it that have surfaced or gone nothing is said when it
// is read. So it is exact when it is read, however long it took.

// roll is the names of sunk keys that somebody looks for.
type roll struct {
	match func(key []byte) bool
	names []byte              // a varint length and the bytes, each
	late  map[string]struct{} // that sank since the roll was begun
	whole bool                // all have been gathered
	over  bool                // they are too many
	at    eviction.Stamp
}

type rollID struct {
	db   int
	what string
}

const (
	// mostNames is how many bytes of names are gathered for one command.
	mostNames = 64 << 20
	// rollStays is for how many milliseconds a roll stays that nobody reads.
	rollStays = 10_000
)

// ErrManyNames is returned where so many names are needed that memory shouldn't be
// asked to hold them. Its text is what the client is told.
var ErrManyNames = errors.New("ERR too many keys of this database are on disk for this. SCAN gives them, some at a time")

// Names calls fn for the name of each key that matches. what stands for match: who
// asks with the same wants the same. If keys are sunk, their names are wanted, or
// the error is ErrManyNames.
func (v *View) Names(what string, match func(key []byte) bool, fn func(key []byte)) error {
	sp := v.ks.spaces[v.db]
	if sp == nil {
		return nil
	}
	r := (*roll)(nil)
	if sp.account.sunk > 0 {
		v.ks.dropRolls()
		if r = v.ks.rolls[rollID{v.db, what}]; r == nil || !r.whole {
			v.ks.beginRoll(v.db, what, match)
			return nil
		}
		if r.over {
			return ErrManyNames
		}
	}
	sp.slab.Range(func(rec slab.Rec) bool {
		if !expired(rec, v.now) && match(rec.Key()) {
			fn(rec.Key())
		}
		return true
	})
	if r != nil {
		v.ks.read(r, sp, v.db, fn)
	}
	return nil
}

func (ks *Keyspace) beginRoll(db int, what string, match func(key []byte) bool) {
	id := rollID{db, what}
	if ks.rolls[id] == nil {
		if ks.rolls == nil {
			ks.rolls = make(map[rollID]*roll)
		}
		ks.rolls[id] = &roll{match: match, late: make(map[string]struct{}), at: ks.clock}
	}
	ks.unsure = true
	ks.wanted = append(ks.wanted, ColdKey{DB: db, Last: ^uint64(0), Names: what})
}

// enroll takes names that the tier gave.
func (ks *Keyspace) enroll(k ColdKey, w *Warm) {
	r := ks.rolls[rollID{k.DB, k.Names}]
	if r == nil || r.whole {
		return
	}
	if k.Hash == 0 {
		r.names = r.names[:0] // it is begun anew
	}
	held := 0
	for _, other := range ks.rolls {
		held += len(other.names)
	}
	for i := range w.heads {
		if key := w.heads[i].Key; !r.over && r.match(key) {
			r.names = binary.AppendUvarint(r.names, uint64(len(key)))
			r.names = append(r.names, key...)
			if held += len(key); held > mostNames {
				r.over, r.names = true, nil
			}
		}
	}
	r.whole, r.at = w.next == 0, ks.clock
}

// sank adds a key that sinks to the rolls.
func (ks *Keyspace) sank(sp *space, key []byte) {
	for id, r := range ks.rolls {
		if ks.spaces[id.db] == sp && r.match(key) {
			r.late[string(key)] = struct{}{}
		}
	}
}

// read gives the names of a roll whose keys are sunk.
func (ks *Keyspace) read(r *roll, sp *space, db int, fn func(key []byte)) {
	give := func(key []byte) {
		if hash := ks.Hash(key); sp.slab.Find(hash, key) == 0 && ks.maybe(sp, db, hash, key) {
			fn(key)
		}
	}
	for b := r.names; len(b) > 0; {
		n, size := binary.Uvarint(b)
		key := b[size : size+int(n)]
		b = b[size+int(n):]
		if _, late := r.late[string(key)]; !late {
			give(key)
		}
	}
	for key := range r.late {
		give([]byte(key))
	}
}

// dropRolls lets go what nobody has read.
func (ks *Keyspace) dropRolls() {
	for id, r := range ks.rolls {
		if r.whole && r.at.Idle(ks.clock) > rollStays {
			delete(ks.rolls, id)
		}
	}
}
