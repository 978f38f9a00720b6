package keyspace

import (
	"encoding/binary"

	"vecino/eviction"
	"vecino/slab"
	"vecino/value"
)

// entry is a key and its value: where its record is, and what is needed to
// change it. The record has what is known of the key: kind, seq, deadline,
// when it was used. What its value is, flags say:
//
//	no flag         the bytes of a String, or of a small collection
//	objectFlag      | number (4) |                  a big collection: an object of the space
//	coldFlag        | bytes away (8) | base (8) |   the value is in the tier
//	both            | bytes away (8) | base (8) | number (4) |   some parts of it are; see partly.go
//
// The zero entry is no key. An entry is good until its record is moved by
// another one, so nobody keeps one; only collections that are open have theirs
// kept up to date.
type entry struct {
	slab.Rec
	sp   *space
	hash uint64
}

// The flags of records. The lowest three bits are the storedState.
const (
	storedFlags = 1<<3 - 1
	rawFlagOf   = 1 << 3 // a String that was changed in place, which OBJECT ENCODING shows
	coldFlag    = 1 << 4
	objectFlag  = 1 << 5
	openFlag    = 1 << 6 // the collection is borrowed by the transaction: see opened
	pendingFlag = 1 << 7 // there are effects for a cold key: see space.pending
)

const (
	stubSize   = 16
	numberSize = 4

	// slotSize is what a key takes of the table, on the average.
	slotSize = 11
)

func (e entry) there() bool   { return e.Rec != 0 }
func (e entry) kind() Kind    { return Kind(e.Rec.Kind()) }
func (e entry) raw() bool     { return e.Has(rawFlagOf) }
func (e entry) cold() bool    { return e.Has(coldFlag) }
func (e entry) expire() int64 { return e.Deadline() }

func (e entry) number() uint32 {
	if e.cold() {
		return binary.LittleEndian.Uint32(e.Value()[stubSize:])
	}
	return binary.LittleEndian.Uint32(e.Value())
}

func (e entry) object() *object { return &e.sp.objects.list[e.number()] }

func (e entry) access() eviction.Stamp { return eviction.Stamp(e.Clock()) }

func (e entry) expired(now int64) bool { return expired(e.Rec, now) }

func expired(r slab.Rec, now int64) bool {
	at := r.Deadline()
	return at != 0 && at < now
}

func (e entry) stored() storedState { return storedState(e.Flags() & storedFlags) }

func (e entry) store(s storedState) {
	e.Unmark(storedFlags)
	e.Mark(uint16(s))
}

func (e entry) setRaw(raw bool) {
	e.Unmark(rawFlagOf)
	if raw {
		e.Mark(rawFlagOf)
	}
}

// stub is what is known of the value of a cold key.
type stub struct {
	base uint64 // the seq of the value in the tier
	away int64  // how many bytes are not in memory
}

func (e entry) stub() stub {
	b := e.Value()
	return stub{away: int64(binary.LittleEndian.Uint64(b)), base: binary.LittleEndian.Uint64(b[8:])}
}

// putStub writes a stub to the value of a cold key.
func putStub(b []byte, s stub) {
	binary.LittleEndian.PutUint64(b, uint64(s.away))
	binary.LittleEndian.PutUint64(b[8:], s.base)
}

// pending is effects that wait for the value of a cold key.
type pending struct {
	ops []byte // effects without keys, which the value is to go through
	// lenient says that some of them came by ApplyNewer, so that those that
	// don't fit are left out.
	lenient bool
}

// pending is what is pending on a cold key.
func (e entry) pending() pending {
	if !e.Has(pendingFlag) {
		return pending{}
	}
	return *e.sp.pending[string(e.Key())]
}

// bare is what the record takes, and the key of the table: for a cold key that
// is all that is in memory, but for parts.
func (e entry) bare() int64 { return int64(e.Occupied()) + slotSize }

// size is what a key counts for, wherever its value is.
func (e entry) size() int64 {
	n := e.bare()
	if e.cold() {
		n += e.stub().away
	}
	if e.Has(objectFlag) {
		n += e.object().size
	}
	return n
}

// fit is the size that a key will have when it has come back from the tier: as size,
// but without the room that its value has to grow.
func (e entry) fit() int64 {
	if e.cold() || e.Has(objectFlag) {
		return e.size()
	}
	return int64(slab.Occupies(len(e.Key()), len(e.Value()), e.expire() != 0)) + slotSize
}

// moved says that the write seq has changed a key: what the tier holds of it
// is no longer true.
func (e entry) moved(seq uint64) {
	e.SetSeq(seq)
	if s := e.stored(); s != unstored && s != blind {
		e.store(behind)
	}
}

// set gives a record another value. Whatever it was before has been seen to.
func (ks *Keyspace) set(e *entry, val []byte, room int) {
	e.Rec = must(e.sp.slab.Set(e.hash, e.Rec, val, room))
}

// objects are the big collections of a space, by number.
type objects struct {
	list  []object
	free  []uint32
	bytes int64 // of all
}

type object struct {
	collection
	size int64
}

func (o *objects) add(c collection) (number uint32) {
	if n := len(o.free); n > 0 {
		number = o.free[n-1]
		o.free = o.free[:n-1]
	} else {
		number = uint32(len(o.list))
		o.list = append(o.list, object{})
	}
	o.list[number] = object{c, c.size()}
	o.bytes += o.list[number].size
	return number
}

func (o *objects) remove(number uint32) {
	o.bytes -= o.list[number].size
	o.list[number] = object{}
	o.free = append(o.free, number)
}

// collection is a collection of one kind.
type collection struct {
	h *value.Hash
	l *value.List
	s *value.Set
	z *value.ZSet
}

func (c *collection) len() int {
	switch {
	case c.h != nil:
		return c.h.Len()
	case c.l != nil:
		return c.l.Len()
	case c.s != nil:
		return c.s.Len()
	}
	return c.z.Len()
}

func (c *collection) size() int64 {
	switch {
	case c.h != nil:
		return int64(c.h.Size())
	case c.l != nil:
		return int64(c.l.Size())
	case c.s != nil:
		return int64(c.s.Size())
	}
	return int64(c.z.Size())
}

func (c *collection) encoding() string {
	switch {
	case c.h != nil:
		return c.h.Encoding()
	case c.l != nil:
		return c.l.Encoding()
	case c.s != nil:
		return c.s.Encoding()
	}
	return c.z.Encoding()
}

func (c *collection) appendDump(dst []byte) []byte {
	switch {
	case c.h != nil:
		return c.h.AppendDump(dst)
	case c.l != nil:
		return c.l.AppendDump(dst)
	case c.s != nil:
		return c.s.AppendDump(dst)
	}
	return c.z.AppendDump(dst)
}

// partial is what collections of all kinds can do that are big.
type partial interface {
	HasParts() bool
	Save() *value.Save
	DropParts()
	Partly() bool
	LacksNext(*value.Need)
	Satisfies(*value.Need) bool
}

func (c *collection) partial() partial {
	switch {
	case c.h != nil:
		return c.h
	case c.l != nil:
		return c.l
	case c.s != nil:
		return c.s
	case c.z != nil:
		return c.z
	}
	return nil
}

func (c *collection) hasParts() bool    { return c.partial().HasParts() }
func (c *collection) save() *value.Save { return c.partial().Save() }

func (c *collection) dropParts() {
	if p := c.partial(); p != nil { // else the number is free
		p.DropParts()
	}
}

// small is the bytes of a small collection.
func (c *collection) small() (blob []byte, moved, ok bool) {
	switch {
	case c.h != nil:
		return c.h.Small()
	case c.l != nil:
		return c.l.Small()
	case c.s != nil:
		return c.s.Small()
	}
	return c.z.Small()
}

// big moves a big collection into one of its own.
func (c *collection) big() collection {
	switch {
	case c.h != nil:
		return collection{h: c.h.Big()}
	case c.l != nil:
		return collection{l: c.l.Big()}
	case c.s != nil:
		return collection{s: c.s.Big()}
	}
	return collection{z: c.z.Big()}
}

// shelf is room for a borrowed collection of any kind.
type shelf struct {
	hash value.Hash
	list value.List
	set  value.Set
	zset value.ZSet
}

// borrow makes a collection of a kind around the bytes of a small one.
func (s *shelf) borrow(kind Kind, seed uint64, blob []byte, scratch *value.Scratch) collection {
	switch kind {
	case HashKind:
		s.hash.Borrow(seed, blob, scratch)
		return collection{h: &s.hash}
	case ListKind:
		s.list.Borrow(blob, scratch)
		return collection{l: &s.list}
	case SetKind:
		s.set.Borrow(seed, blob, scratch)
		return collection{s: &s.set}
	}
	s.zset.Borrow(seed, blob, scratch)
	return collection{z: &s.zset}
}

// opened is a collection that a command uses. A small one is borrowed around
// the record's bytes, or changed in the scratch when it has outgrown them, and
// put back when the command ends (close) or when somebody else wants the record
// as it is (sync). All who look the same key up in one transaction get the
// same one.
type opened struct {
	collection
	e     entry
	dirty bool // it stands in Tx.touched
	gone  bool // the key was removed
	given bool // the collection on the shelf is an object now
	shelf shelf
}

// desk is the collections that are open.
type desk struct {
	all     []*opened
	n       int
	scratch value.Scratch
}

const keptOpen = 16

// take returns room for one more.
func (d *desk) take() *opened {
	if d.n == len(d.all) {
		d.all = append(d.all, new(opened))
	}
	d.n++
	o := d.all[d.n-1]
	o.dirty, o.gone = false, false // nor given: see clear
	return o
}

// clear closes all, which have been put back, or are of no interest.
func (d *desk) clear() {
	if d.n == 0 {
		return
	}
	if len(d.all) > keptOpen {
		clear(d.all[keptOpen:])
		d.all = d.all[:keptOpen]
	}
	for i, o := range d.all[:min(d.n, keptOpen)] {
		if o.given {
			d.all[i] = new(opened)
			continue
		}
		o.collection = collection{}
		o.e = entry{}
	}
	d.n = 0
	d.scratch.Reset()
}

// open opens the collection of a key that isn't cold.
func (ks *Keyspace) open(e entry) *opened {
	if e.Has(openFlag) {
		return ks.opened(e.Rec)
	}
	o := ks.desk.take()
	o.e = e
	if ks.running {
		e.Mark(openFlag)
	}
	ks.bind(o)
	return o
}

// opened is the open collection of a record that has openFlag.
func (ks *Keyspace) opened(r slab.Rec) *opened {
	for i := ks.desk.n - 1; i >= 0; i-- { // there are few, but for a union of many keys that are given twice
		if o := ks.desk.all[i]; o.e.Rec == r && !o.gone {
			return o
		}
	}
	panic("keyspace: a key says that it is in use, and nobody uses it")
}

// bind sets an open collection around its record.
func (ks *Keyspace) bind(o *opened) {
	if o.e.Has(objectFlag) {
		o.collection = o.e.object().collection
		return
	}
	o.collection = o.shelf.borrow(o.e.kind(), ks.seed, o.e.Borrow(), &ks.desk.scratch)
}

// putBack gives the record of an open collection the value that it has now.
// What borrows it must be bound again, if it goes on.
func (ks *Keyspace) putBack(o *opened) {
	if o.e.Has(objectFlag) {
		ks.weigh(o.e)
	} else {
		rec, before := o.e.Rec, o.e.bare()
		ks.keep(&o.e, &o.collection)
		if o.e.Rec == rec && !o.e.Has(objectFlag) {
			return // and so it is as large as before
		}
		ks.charge(o.e.sp, account{used: o.e.size() - before})
	}
	ks.noteLarge(o.e)
}

// weigh counts for a big collection what it takes now. It returns by how much that has
// grown.
func (ks *Keyspace) weigh(e entry) (grown int64) {
	o := e.object()
	grown = o.collection.size() - o.size
	o.size += grown
	e.sp.objects.bytes += grown
	ks.charge(e.sp, account{used: grown})
	return grown
}

// putInPlace is putBack where the collection goes on to be used. One that has
// become big, and others know by its address, stays where it is.
func (ks *Keyspace) putInPlace(o *opened) {
	if _, _, small := o.small(); small || o.e.Has(objectFlag) {
		ks.putBack(o)
		ks.bind(o)
		return
	}
	o.given = true
	before := o.e.bare()
	ks.refer(&o.e, o.collection)
	ks.charge(o.e.sp, account{used: o.e.size() - before})
	ks.noteLarge(o.e)
}

// refer gives a record, which has no object, a big collection.
func (ks *Keyspace) refer(e *entry, c collection) {
	var number [numberSize]byte
	binary.LittleEndian.PutUint32(number[:], e.sp.objects.add(c))
	ks.set(e, number[:], 0)
	e.Mark(objectFlag)
}

// keep gives a record, which has no object, the value of a collection.
func (ks *Keyspace) keep(e *entry, c *collection) {
	blob, moved, ok := c.small()
	if !ok {
		ks.refer(e, c.big())
		return
	}
	room := len(blob)
	if moved && len(e.Value()) > 0 { // it has outgrown its place; one that is new may never grow
		room += value.Reserve(len(blob))
	}
	ks.set(e, blob, room)
}

// sync sees to it that the record of an open collection has the value that
// the collection has.
func (ks *Keyspace) sync(e entry) entry {
	if !e.there() || !e.Has(openFlag) {
		return e
	}
	o := ks.opened(e.Rec)
	if o.dirty {
		ks.putInPlace(o)
	}
	return o.e
}

// loaded is a value that is not of any record yet.
type loaded struct {
	kind Kind
	raw  bool
	str  []byte // of a String
	collection
	shelf shelf
}

// clear makes it empty again. What was kept of it isn't touched: a big collection has
// moved out, and of all others the bytes were copied.
func (l *loaded) clear() {
	if l.kind == String {
		l.kind, l.raw, l.str = None, false, nil
		return
	}
	*l = loaded{}
}

func (l *loaded) form() byte { return form(l.kind, l.raw) }

func (l *loaded) appendDump(dst []byte) []byte {
	if l.kind == String {
		return append(dst, l.str...)
	}
	return l.collection.appendDump(dst)
}

// install puts a value in the place of the one that a record has. Whether the
// key is cold has been seen to.
func (ks *Keyspace) install(e *entry, l *loaded) {
	ks.dropObject(*e)
	before := e.size()
	e.SetKind(uint8(l.kind))
	e.setRaw(l.raw)
	if l.kind == String {
		ks.set(e, l.str, len(l.str))
	} else {
		ks.keep(e, &l.collection)
	}
	ks.charge(e.sp, account{used: e.size() - before})
	ks.noteLarge(*e)
}

// create makes a new key with a value, written by the write seq.
func (ks *Keyspace) create(sp *space, hash uint64, key []byte, l *loaded, seq uint64, deadline int64) entry {
	val := l.str
	if l.kind != String {
		blob, _, ok := l.small()
		if !ok {
			e := ks.add(sp, hash, key, nil, l.kind, seq, deadline)
			ks.install(&e, l)
			return e
		}
		val = blob
	}
	e := ks.add(sp, hash, key, val, l.kind, seq, deadline)
	e.setRaw(l.raw)
	ks.noteLarge(e)
	return e
}

// dropObject lets the object of a big collection go, and leaves a record
// without a meaning.
func (ks *Keyspace) dropObject(e entry) {
	if !e.Has(objectFlag) {
		return
	}
	ks.charge(e.sp, account{used: -e.object().size})
	e.sp.objects.remove(e.number())
	e.Unmark(objectFlag)
}

// setExpire gives a key a deadline, or takes it away with 0.
func (ks *Keyspace) setExpire(e *entry, at int64) {
	if at == e.expire() {
		return
	}
	var o *opened
	if e.Has(openFlag) {
		*e = ks.sync(*e)
		o = ks.opened(e.Rec)
	}
	before := e.bare()
	e.Rec = must(e.sp.slab.SetDeadline(e.hash, e.Rec, at))
	ks.charge(e.sp, account{used: e.bare() - before})
	if o != nil {
		o.e = *e
		ks.bind(o)
	}
}

// shut ends that the collection of a key is open: the key goes, or gets
// another value.
func (ks *Keyspace) shut(e entry) {
	if e.Has(openFlag) {
		ks.opened(e.Rec).gone = true
		e.Unmark(openFlag)
	}
}

// shutAll ends that collections are open that nobody will put back. Outside of
// a transaction no record knows of it, and records may be gone.
func (ks *Keyspace) shutAll() {
	if !ks.running {
		ks.desk.clear()
		return
	}
	for _, o := range ks.desk.all[:ks.desk.n] {
		if !o.gone {
			o.e.Unmark(openFlag)
		}
	}
	ks.desk.clear()
}
