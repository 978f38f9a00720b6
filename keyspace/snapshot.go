package keyspace

import (
	"encoding/binary"
	"fmt"

	"vecino/slab"
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
// Cold keys, and the ranges where sunk ones are, it leaves out and adds to Wanted,
// which it empties first: whoever dumps gets their values from the tier and calls
// DumpCold.
func (ks *Keyspace) Dump(dst []byte, c *Cursor, count int) []byte {
	ks.wanted = ks.wanted[:0]
	from, keys := *c, 0
	ks.walk(c, count, func(db int, e entry) {
		keys++
		if e.cold() {
			ks.note(db, e, nil)
			return
		}
		dst = ks.appendRecord(dst, db, e)
	})
	ks.noteSunk(from, *c, keys)
	return dst
}

// noteSunk adds the ranges of sunk keys between two places to Wanted: of many
// one range, which has also the names of the keys between them, as few as these are.
func (ks *Keyspace) noteSunk(from, to Cursor, few int) {
	defer func() { ks.unsure = false }()
	const drop = 64 - value.CursorBits
	for ; from.db < to.db || from.db == to.db && from.next < to.next; from = (Cursor{db: from.db + 1}) {
		first, last := from.next<<drop, ^uint64(0)
		if from.db == to.db {
			last = to.next<<drop - 1
		}
		sp := ks.spaces[from.db]
		if sp == nil || !sp.printed(first, last) {
			continue
		}
		n := len(ks.wanted)
		sp.slab.EachPrint(printOf(first), func(h uint64) bool {
			if h > last {
				return false
			}
			ks.wantRange(from.db, max(h, first), min(samePrint(h), last))
			return len(ks.wanted)-n <= few
		})
		if len(ks.wanted)-n > few {
			ks.wanted = ks.wanted[:n]
			ks.wantRange(from.db, first, last)
		}
	}
}

// walk calls fn for about count keys in the order of logical databases and
// hashes, and moves the cursor on.
func (ks *Keyspace) walk(c *Cursor, count int, fn func(db int, e entry)) {
	for count > 0 && !c.done {
		if sp := ks.spaces[c.db]; sp != nil {
			c.next = sp.slab.ScanFrom(c.next, count, func(hash uint64, r slab.Rec) {
				fn(c.db, entry{r, sp, hash})
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

// appendRecord appends the record of a key that isn't cold.
func (ks *Keyspace) appendRecord(dst []byte, db int, e entry) []byte {
	e = ks.sync(e)
	if e.kind() == String {
		dst = e.appendHead(dst, db, form(String, e.raw()))
		dst = binary.AppendUvarint(dst, uint64(len(e.Value())))
		return append(dst, e.Value()...)
	}
	dump := ks.appendDump(nil, e)
	dst = e.appendHead(dst, db, byte(e.kind()))
	dst = binary.AppendUvarint(dst, uint64(len(dump)))
	return append(dst, dump...)
}

// appendHead appends what comes before a value.
func (e entry) appendHead(dst []byte, db int, form byte) []byte {
	return appendRecordHead(dst, db, form, e.Seq(), e.expire(), e.Key())
}

func appendRecordHead(dst []byte, db int, form byte, seq uint64, deadline int64, key []byte) []byte {
	dst = append(dst, byte(db), form)
	dst = binary.LittleEndian.AppendUint64(dst, seq)
	dst = binary.AppendUvarint(dst, uint64(deadline))
	dst = binary.AppendUvarint(dst, uint64(len(key)))
	return append(dst, key...)
}

// Load reads records into a keyspace. Records must not be cut apart between
// calls. A key that stands in several records has the value of the newest. After
// an error, ErrNoMemory too, what is here is half of something.
func (ks *Keyspace) Load(records []byte) error {
	r := effectReader{b: records}
	val := &ks.tier.coming
	defer val.clear()
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
		e := sp.find(hash, key)
		if e.there() && e.Seq() >= seq {
			continue
		}
		val.clear()
		if err := val.load(ks.seed, kind, dump); err != nil {
			return fmt.Errorf("load snapshot: %w", err)
		}
		if seq > slab.MaxSeq {
			r.fail("a number that no write has")
			break
		}
		if err := ks.mayTake(sp, len(key)+len(val.str)); err != nil {
			return fmt.Errorf("load snapshot: %w", err)
		}
		if !e.there() {
			ks.create(sp, hash, key, val, seq, at)
			continue
		}
		ks.forget(e)
		ks.install(&e, val)
		e.moved(seq)
		ks.setExpire(&e, at)
	}
	ks.settle()
	if r.err != nil {
		return fmt.Errorf("load snapshot: %w", r.err)
	}
	return nil
}

// appendDump appends the value of a key that isn't cold.
func (ks *Keyspace) appendDump(dst []byte, e entry) []byte {
	e = ks.sync(e)
	switch {
	case e.kind() == String:
		return append(dst, e.Value()...)
	case e.Has(objectFlag):
		return e.sp.objects.list[e.number()].appendDump(dst)
	}
	var s shelf
	c := s.borrow(e.kind(), ks.seed, e.Value(), nil)
	return c.appendDump(dst)
}

// form is a kind of value and its flags in a byte.
func form(kind Kind, raw bool) byte {
	if raw {
		return byte(kind) | rawFlag
	}
	return byte(kind)
}

// load makes l the value of that form whose dump appendDump wrote, and which it
// may go on to use. An empty collection isn't one that can be there.
func (l *loaded) load(seed uint64, form byte, dump []byte) (err error) {
	l.kind, l.raw = Kind(form&^rawFlag), form&rawFlag != 0
	switch l.kind {
	case String:
		l.str = dump
	case HashKind:
		l.h = &l.shelf.hash
		err = l.h.Load(seed, dump, nil)
	case ListKind:
		l.l = &l.shelf.list
		err = l.l.Load(dump, nil)
	case SetKind:
		l.s = &l.shelf.set
		err = l.s.Load(seed, dump, nil)
	case ZSetKind:
		l.z = &l.shelf.zset
		err = l.z.Load(seed, dump, nil)
	default:
		err = fmt.Errorf("value of unknown kind %d", l.kind)
	}
	if err == nil && l.kind != String && (l.raw || l.collection.len() == 0) {
		err = fmt.Errorf("value of kind %v that is empty or has the flag of a string", l.kind)
	}
	return err
}
