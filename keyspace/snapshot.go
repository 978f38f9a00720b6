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
func (ks *Keyspace) Dump(dst []byte, c *Cursor, count int) []byte {
	for count > 0 && !c.done {
		sp := ks.spaces[c.db]
		if sp != nil {
			c.next = sp.table.ScanFrom(c.next, count, func(e *entry) {
				dst = e.appendRecord(dst, c.db)
				count--
			})
			if c.next != 0 {
				return dst
			}
		}
		c.next = 0
		c.db++
		c.done = c.db == Databases
	}
	return dst
}

func (e *entry) appendRecord(dst []byte, db int) []byte {
	kind := byte(e.kind)
	if e.raw {
		kind |= rawFlag
	}
	dst = append(dst, byte(db), kind)
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
		raw := kind&rawFlag != 0
		kind &^= rawFlag
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
		if e == nil {
			e = sp.add(hash, key, Kind(kind))
		}
		if err := e.load(ks.seed, Kind(kind), dump); err != nil {
			return fmt.Errorf("load snapshot: %w", err)
		}
		e.raw = raw
		e.seq = seq
		sp.setExpire(e, at)
		ks.settle(e)
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

// load gives e the value that appendDump wrote.
func (e *entry) load(seed uint64, kind Kind, dump []byte) (err error) {
	e.kind, e.raw = kind, false
	e.str, e.obj = nil, nil
	switch kind {
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
		err = fmt.Errorf("value of unknown kind %d", kind)
	}
	return err
}
