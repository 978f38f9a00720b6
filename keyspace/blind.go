package keyspace

import (
	"cmp"
	"fmt"
	"slices"
)

// SET and its like need not know what a key held before. So a sunk key is written
// *blindly*: it gets a record as a new key would, and its fingerprint stays, since only the tier
// knows for certain that it is this key's, and how large it was. Until the
// tier has been asked the key counts twice, as sunk and by its record; what
// that makes of all keys is known, and of bytes about, so Len and Used leave it out.
//
// The tier is asked by the session that writes such a key, or that deletes it, before
// it commits: what it replaces is there still. Whoever asks for sunk keys meanwhile and
// finds it among them settles it, too.

// blindKey is a key that was written blindly, and has been swept or deleted since.
type blindKey struct {
	db  int
	key string
}

// twice is how much counts twice, because keys were written blindly.
func (a *account) twice() (keys int, bytes int64) {
	if a.blind == 0 || a.sunk == 0 {
		return 0, 0
	}
	keys = min(a.blind, a.sunk) // less are left if one was taken for another
	return keys, int64(float64(keys) / float64(a.sunk) * float64(a.sunkUsed))
}

// writeBlindly says that a new key is perhaps a sunk one.
func (ks *Keyspace) writeBlindly(e entry) {
	e.store(blind)
	ks.charge(e.sp, account{blind: 1})
	ks.Stats.Blind++
}

// isBlind reports whether a key was written blindly and the tier wasn't asked yet.
func (ks *Keyspace) isBlind(sp *space, db int, hash uint64, key []byte) bool {
	if sp.account.blind == 0 {
		return false
	}
	if _, owed := ks.tier.blind[blindKey{db, string(key)}]; owed {
		return true
	}
	e := sp.find(hash, key)
	return e.there() && e.stored() == blind
}

// owe has the tier asked for a key, if it was written blindly, before it is written
// there or deleted.
func (ks *Keyspace) owe(db int, e entry) {
	if e.stored() != blind {
		return
	}
	if ks.tier.blind == nil {
		ks.tier.blind = make(map[blindKey]uint64)
	}
	ks.tier.blind[blindKey{db, string(e.Key())}] = e.hash
	e.store(behind)
}

// Blind lists the keys for which a session asks the tier before it commits, in the order of
// logical databases and hashes. Seen takes what it says.
func (ks *Keyspace) Blind() (keys []ColdKey) {
	for k, hash := range ks.tier.blind {
		keys = append(keys, ColdKey{DB: k.db, Hash: hash, Key: []byte(k.key), Bare: true})
	}
	slices.SortFunc(keys, func(a, b ColdKey) int {
		return cmp.Or(cmp.Compare(a.DB, b.DB), cmp.Compare(a.Hash, b.Hash), slices.Compare(a.Key, b.Key))
	})
	return keys
}

// Seen says what the tier holds of a key that was written blindly: its record's head, nil
// if there is none. It may be said twice.
func (ks *Keyspace) Seen(k ColdKey, b []byte) error {
	sp := ks.spaces[k.DB]
	if sp == nil || !ks.isBlind(sp, k.DB, k.Hash, k.Key) {
		return nil
	}
	var h head
	if b != nil {
		var err error
		if h, err = readHead(b); err != nil {
			return fmt.Errorf("ask for a key of the tier that was written: %w", err)
		}
	}
	delete(ks.tier.blind, blindKey{k.DB, string(k.Key)})
	if e := sp.find(k.Hash, k.Key); e.there() && e.stored() == blind {
		e.store(behind)
	}
	ks.charge(sp, account{blind: -1})
	if b != nil {
		ks.leave(sp, k.Hash, h.sunk(len(k.Key)))
	}
	return nil
}

// dropBlind ends that the tier is to be asked for keys of a logical database.
func (ks *Keyspace) dropBlind(db int) {
	for k := range ks.tier.blind {
		if k.db == db {
			delete(ks.tier.blind, k)
		}
	}
}
