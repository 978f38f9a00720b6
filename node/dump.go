package node

import (
	"context"
	"fmt"
	"slices"

	"vecino/catalog"
	"vecino/engine"
	"vecino/keyspace"
)

// chunkKeys is how many keys are written out in one go, with the database's
// lock held.
const chunkKeys = 256

// dump gives the records of a database, a few at a time, and returns the
// position at which they are complete. The database may change meanwhile. Values
// that are not in memory are read from the tier and don't come into memory by that.
func (n *Node) dump(ctx context.Context, db *engine.DB, write func(records []byte) error) (end catalog.Position, err error) {
	var at keyspace.Cursor
	var buf []byte
	db.Lock()
	from := db.Keyspace()
	db.Unlock()
	still := func() error {
		if db.Keyspace() != from {
			return fmt.Errorf("the content of database %d was replaced", db.ID())
		}
		return ctx.Err()
	}
	for !at.Done() {
		db.Lock()
		if err := still(); err != nil {
			db.Unlock()
			return end, err
		}
		buf = from.Dump(buf[:0], &at, chunkKeys)
		cold := slices.Clone(from.Wanted())
		end = db.Position()
		db.Unlock()
		for _, k := range cold {
			if err := n.eachNamed(db, k, func(k keyspace.ColdKey) (err error) {
				if buf, err = n.dumpCold(buf, db, from, k, still); err == nil && len(buf) >= coldBytes {
					err = write(buf)
					buf = buf[:0]
				}
				return err
			}); err != nil {
				return end, err
			}
		}
		if len(buf) > 0 {
			if err := write(buf); err != nil {
				return end, err
			}
		}
	}
	// Values that were read from the tier may be newer than the last chunk.
	db.Lock()
	defer db.Unlock()
	return db.Position(), still()
}

// eachNamed calls fn for k or, if it is a range, for all keys of the tier in it.
func (n *Node) eachNamed(db *engine.DB, k keyspace.ColdKey, fn func(k keyspace.ColdKey) error) error {
	for k.Last != 0 {
		w, _, err := n.store.heads(db, k)
		if err != nil {
			return err
		}
		for hash, key := range w.Heads() {
			if err := fn(keyspace.ColdKey{DB: k.DB, Hash: hash, Key: key}); err != nil {
				return err
			}
		}
		if k.Hash = w.Next(); k.Hash == 0 {
			return nil
		}
	}
	return fn(k)
}

// coldBytes is about how much of values from the tier is sent at a time.
const coldBytes = 256 << 10

// dumpTries is how often a value may have gone to the tier anew before its record
// was read there.
const dumpTries = 100

func (n *Node) dumpCold(buf []byte, db *engine.DB, from *keyspace.Keyspace, k keyspace.ColdKey, still func() error) ([]byte, error) {
	for range dumpTries {
		if k.Seq == 0 { // its name alone is known: perhaps the tier needn't be read
			db.Lock()
			err := still()
			here := err == nil && !from.IsCold(k.DB, k.Key) && !from.Needs(&k)
			if here {
				buf, _, err = from.DumpCold(buf, k, nil)
			}
			db.Unlock()
			if here || err != nil {
				return buf, err
			}
		}
		w, _, err := n.store.read(db, k)
		if err != nil {
			return buf, err
		}
		db.Lock()
		var ok bool
		if err = still(); err == nil {
			buf, ok, err = from.DumpCold(buf, k, w)
		}
		db.Unlock()
		if ok || err != nil {
			return buf, err
		}
	}
	return buf, fmt.Errorf("a value of database %d can't be caught in the tier", db.ID())
}
