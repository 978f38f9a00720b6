package keyspace

import (
	"encoding/binary"
	"fmt"

	"vecino/value"
)

// A snapshot is the keys of a database, written a few at a time while the
// database changes. Records follow each other:
//
//	db (1) | kind and flags (1) | seq (8) | deadline (varint) | key | value
//
// where key and value are a varint length and the bytes, and a value is the
// dump of package value, or the bytes of a string. A flag tells a string that
// was changed in place, which OBJECT ENCODING shows.
const rawFlag = 0x80

// A Cursor is how far a snapshot has come. The zero Cursor is its beginning.
type Cursor struct {
	db   int
	next uint64
	done bool
}

// Done reports whether the snapshot is complete.
func (c Cursor) Done() bool { return c.done }

// Dump appends records of about count keys to dst and moves the cursor on.
// Cold keys it leaves out and adds to Wanted, which it empties first: whoever
// dumps gets their values from the tier and calls DumpCold.
func (ks *Keyspace) Dump(dst []byte, c *Cursor, count int) []byte {
	ks.wanted = ks.wanted[:0]
	ks.walk(c, count, func(db int, _ *space, e *entry) {
		if e.cold != nil {
			ks.note(db, e)
			return
		}
		dst = e.appendRecord(dst, db)
	})
	return dst
}

// walk calls fn for about count keys in the order of logical databases and
// hashes, and moves the cursor on.
func (ks *Keyspace) walk(c *Cursor, count int, fn func(db int, sp *space, e *entry)) {
	for count > 0 && !c.done {
		if sp := ks.spaces[c.db]; sp != nil {
			c.next = sp.table.ScanFrom(c.next, count, func(e *entry) {
				fn(c.db, sp, e)
				count--
			})
			if c.next != 0 {
				return
			}
		}
		c.next = 0
		c.db++
		c.done = c.db == Databases
	}
}

func (e *entry) appendRecord(dst []byte, db int) []byte {
	dst = append(dst, byte(db), e.form())
	dst = binary.LittleEndian.AppendUint64(dst, e.seq)
	dst = binary.AppendUvarint(dst, uint64(e.expire))
	dst = binary.AppendUvarint(dst, uint64(len(e.key)))
	dst = append(dst, e.key...)
	if e.kind == String {
		dst = binary.AppendUvarint(dst, uint64(len(e.str)))
		return append(dst, e.str...)
	}
	dump := e.appendDump(nil)
	dst = binary.AppendUvarint(dst, uint64(len(dump)))
	return append(dst, dump...)
}

// Load reads records into a keyspace. Records must not be cut apart between
// calls. A key that stands in several records has the value of the newest.
func (ks *Keyspace) Load(records []byte) error {
	r := effectReader{b: records}
	for len(r.b) > 0 {
		db, kind := r.byte(), r.byte()
		if len(r.b) < 8 {
			r.fail("record cut short")
			break
		}
		seq := binary.LittleEndian.Uint64(r.b)
		r.b = r.b[8:]
		at, key, dump := r.int(), r.bytes(), r.bytes()
		if r.err != nil {
			break
		}
		if int(db) >= Databases {
			r.fail("no such logical database")
			break
		}
		sp := ks.space(int(db))
		hash := ks.Hash(key)
		e := sp.table.Find(hash, key)
		if e != nil && e.seq >= seq {
			continue
		}
		loaded, err := load(ks.seed, kind, dump)
		if err != nil {
			return fmt.Errorf("load snapshot: %w", err)
		}
		if e == nil {
			e = ks.add(sp, hash, key, loaded.kind, seq)
		}
		ks.forget(sp, e)
		e.take(&loaded)
		e.moved(seq)
		sp.setExpire(e, at)
		ks.settle(sp, e)
	}
	if r.err != nil {
		return fmt.Errorf("load snapshot: %w", r.err)
	}
	return nil
}

// appendDump appends the value of e alone.
func (e *entry) appendDump(dst []byte) []byte {
	switch v := e.obj.(type) {
	case *value.Hash:
		return v.AppendDump(dst)
	case *value.List:
		return v.AppendDump(dst)
	case *value.Set:
		return v.AppendDump(dst)
	case *value.ZSet:
		return v.AppendDump(dst)
	}
	return append(dst, e.str...)
}

// form is the kind of e's value and the flags.
func (e *entry) form() byte {
	if e.raw {
		return byte(e.kind) | rawFlag
	}
	return byte(e.kind)
}

// load makes an entry without a key, with the value of that form whose dump
// appendDump wrote. An empty collection isn't one that can be there.
func load(seed uint64, form byte, dump []byte) (e entry, err error) {
	e.kind, e.raw = Kind(form&^rawFlag), form&rawFlag != 0
	switch e.kind {
	case String:
		e.str = append(make([]byte, 0, len(dump)), dump...)
	case HashKind:
		e.obj, err = value.LoadHash(seed, dump)
	case ListKind:
		e.obj, err = value.LoadList(dump)
	case SetKind:
		e.obj, err = value.LoadSet(seed, dump)
	case ZSetKind:
		e.obj, err = value.LoadZSet(seed, dump)
	default:
		err = fmt.Errorf("value of unknown kind %d", e.kind)
	}
	if err == nil && (e.empty() || e.raw && e.kind != String) {
		err = fmt.Errorf("value of kind %v that is empty or has the flag of a string", e.kind)
	}
	return e, err
}

// take gives e the value of other, which loses it.
func (e *entry) take(other *entry) {
	e.kind, e.raw, e.str, e.obj = other.kind, other.raw, other.str, other.obj
	other.str, other.obj = nil, nil
}
