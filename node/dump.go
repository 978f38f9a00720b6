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
			if buf, err = n.dumpCold(buf, db, from, k, still); err != nil {
				return end, err
			}
			if len(buf) >= coldBytes {
				if err := write(buf); err != nil {
					return end, err
				}
				buf = buf[:0]
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

// coldBytes is about how much of values from the tier is sent at a time.
const coldBytes = 256 << 10

// dumpTries is how often a value may have gone to the tier anew before its record
// was read there.
const dumpTries = 100

func (n *Node) dumpCold(buf []byte, db *engine.DB, from *keyspace.Keyspace, k keyspace.ColdKey, still func() error) ([]byte, error) {
	for range dumpTries {
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
