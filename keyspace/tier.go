package keyspace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"vecino/eviction"
	"vecino/slab"
	"vecino/value"
)

// The tier holds a record for each key, as of some write; together with the
// journal from the last complete sweep on, it is the database. A record has
// two parts. The head is enough to have the key here:
//
//	version and flags (1) | kind and raw flag (1) | seq | access (4)
//	  | deadline                       with headDeadline
//	  | size                           without headInline
//	  | base | length of effects       with headApart
//	  | value, or the effects          to the end
//
// where seq, deadline, size, base and length are varints. A value whose dump
// is at most 256 bytes stands in the head (headInline). Otherwise it is in the
// body:
//
//	version and flag (1)
//	  | kind and raw flag (1) | access (4) | deadline | size     with bodyWhole
//	  | seq | dump
//
// with varints as above. With bodyWhole it has also what the head has, so that who looks for
// a value needn't read the head; a deadline of 0 is none.
//
// A big collection that is large, or was until now, has parts beside the body, and as
// its body, with bodyParts, what package value calls their head. Of these only what
// has changed is written again. See PartID and Save in package value. Elements may be
// newer than the record's seq; if they are, the key is, and the effects since then
// come from the journal once more.
//
// Usually a record's seq is that of its body. A cold key, however, can move on
// without its value: it is given a deadline, or effects become pending. Then
// only the head is written again (headApart); base is the seq of the body,
// and the effects are those that the value is still to go through. The byte
// before them says whether any came by ApplyNewer.
//
// The rules of writing: there is one session at a time. It begins with
// TakeGraves and deletes these from the tier, then puts what it sweeps, then
// commits. If it fails, it calls Rebury. The first seq that the next complete
// sweep looks at is where the last successful one began. Only what is
// committed may be offloaded.
const (
	tierVersion  = 1 << 4 // of heads and bodies, in the upper half of the first byte
	headInline   = 1
	headDeadline = 2
	headApart    = 4
	bodyParts    = 1
	bodyWhole    = 2

	// MaxInline is how long a dump may be that stands in the head.
	MaxInline = 256

	// A collection is stored in parts when it is larger than partsFrom, until it
	// isn't larger than partsUpTo: to write up to that at once is cheaper.
	partsFrom = 256 << 10
	partsUpTo = 64 << 10
)

// storedState is what the tier holds of a key.
type storedState uint8

const (
	unstored storedState = iota // nothing, for certain
	behind                      // what it once was, perhaps
	held                        // exactly this, value in the body: it can be offloaded
	inlined                     // exactly this, value in the head
	apart                       // this, but the value and effects apart, or only until the next session: it is to be swept again
	joining                     // this, if the session that swept it succeeds: the present one, or the last
	blind                       // another value, perhaps, of which nothing is known: see blind.go
	sure                        // as held, and committed: it came from there
)

// holds reports whether the tier holds exactly this, value in the body, if the session that
// swept it was committed.
func (s storedState) holds() bool { return s == held || s == sure }

// clean reports whether it was, for certain. since is the write from which the next complete
// sweep goes on.
func (e entry) clean(since uint64) bool {
	return e.stored() == sure || e.stored() == held && e.Seq() <= since
}

// Record is a key for the tier.
type Record struct {
	DB        int
	Hash, Seq uint64
	Key       []byte
	Head      []byte
	Body      []byte // nil when the value is in the head
	// KeepBody says that the body is the one that the tier has, and parts. Where a
	// head can't be put alone, it is read there and put again.
	KeepBody bool
	// Parts is what the tier is to have beside the body, behind which the head of
	// Parts is put when all were given. It is to be finished, or failed, in turns of
	// the keyspace; that may be after the call. It is failed when the session fails,
	// even if it was finished.
	Parts *value.Save
}

// tierState is what a keyspace remembers about its tier.
type tierState struct {
	graves Graves
	// flushing are the logical databases that this session, or the last, empties
	// first.
	flushing [Databases]bool
	// taken are the graves of this session, or the last. They aren't changed.
	taken Graves
	// joined are keys that this session, or the last, has swept, and of which the
	// tier holds something else, or soon nothing, if it fails.
	joined []joined
	blind  map[blindKey]uint64 // to their hashes, of which the tier is to be asked
	hand   Cursor              // of Sink
	guests guests
	coming loaded // of LoadHead and Load, empty in between
	ghosts ghosts
	head   []byte
	body   []byte
	record Record
	apart  bool
}

// joined is a key, as of a write, and its state if the session succeeds.
type joined struct {
	db    int
	hash  uint64
	key   string
	seq   uint64
	state storedState
}

// KeepApart has every value stand in a body, however short it is, so that all can
// leave memory, and every big collection in parts. It is for tests.
func (ks *Keyspace) KeepApart() { ks.tier.apart = true }

// DropParts says that the tier has nothing of what it had of big collections. They
// are written whole again.
func (ks *Keyspace) DropParts() {
	for _, sp := range ks.spaces {
		if sp != nil {
			for i := range sp.objects.list {
				sp.objects.list[i].dropParts()
			}
		}
	}
}

// Sweep calls fn for the keys that changed after the write since, in the order
// of logical databases and hashes, and moves the cursor on by about count
// keys. Cold keys are left out unless they moved on. The record is valid
// during the call. What fn was given counts as stored.
func (ks *Keyspace) Sweep(c *Cursor, since uint64, count int, fn func(*Record)) {
	ks.Tidy(64)
	ks.walk(c, count, func(db int, e entry) {
		if e.Seq() <= since && e.stored() != apart || e.cold() && e.Seq() == e.stub().base {
			return
		}
		fn(ks.store(db, e))
	})
}

// SweepKey calls fn for one key, if it is there and the tier may not have it
// as it is, and reports that.
func (ks *Keyspace) SweepKey(db int, hash uint64, key []byte, fn func(*Record)) bool {
	sp := ks.spaces[db]
	if sp == nil {
		return false
	}
	e := sp.find(hash, key)
	if !e.there() || e.cold() && e.Seq() == e.stub().base {
		return false
	}
	fn(ks.store(db, e))
	return true
}

// store makes the record of a key and marks it as stored.
func (ks *Keyspace) store(db int, e entry) *Record {
	t := &ks.tier
	r := &t.record
	seq := e.Seq()
	*r = Record{DB: db, Hash: e.hash, Seq: seq, Key: e.Key()}
	h := head{
		form: form(e.kind(), e.raw()), seq: seq, base: seq, access: e.access(), deadline: e.expire(), size: int(e.fit()),
	}
	state := held
	ks.owe(db, e)
	if e.cold() {
		p := e.pending()
		h.lenient, h.pending = p.lenient, p.ops
		if e.Has(objectFlag) {
			if len(h.pending) > 0 { // on parts that aren't here
				h.base, state = seq-1, behind
			}
			r.Parts = ks.sync(e).object().save()
			t.body = append(t.body[:0], tierVersion|bodyParts)
			t.body = binary.AppendUvarint(t.body, h.base)
			r.Body = t.body
		} else {
			h.base = e.stub().base
			r.KeepBody, state = true, behind
		}
	} else {
		t.body = Spare(t.body)
		if r.Parts = ks.saveParts(db, e); r.Parts != nil {
			t.body = append(t.body[:0], tierVersion|bodyParts)
			t.body = binary.AppendUvarint(t.body, seq)
			r.Body = t.body
		} else {
			t.body = h.appendToBody(t.body[:0])
			from := len(t.body)
			t.body = ks.appendDump(t.body, e)
			if dump := t.body[from:]; len(dump) <= MaxInline && !t.apart {
				h.inline, h.value = true, dump
				state = inlined
			} else {
				r.Body = t.body
			}
		}
	}
	t.head = h.append(t.head[:0])
	r.Head = t.head
	if t.graves.flushed[db] {
		state = apart // the next session flushes before it puts this again
	}
	if was := e.stored(); (was == apart || was == joining || t.flushing[db]) && (state == held || state == inlined) {
		// Going by its seq, it would seem to be stored like this already.
		t.joined = append(t.joined, joined{db, e.hash, string(e.Key()), seq, state})
		state = joining
	}
	e.store(state)
	t.graves.fill(db, e.hash, e.Key())
	return r
}

// saveParts begins to write a value in parts, if it is one that is stored so.
func (ks *Keyspace) saveParts(db int, e entry) *value.Save {
	if !e.Has(objectFlag) {
		return nil
	}
	e = ks.sync(e)
	o := &e.sp.objects.list[e.number()]
	if _, _, small := o.small(); small {
		return nil // a list that was empty for a moment is small again
	}
	least := int64(partsFrom)
	if o.hasParts() {
		least = partsUpTo
	}
	if o.size <= least && !ks.tier.apart {
		o.dropParts()
		return nil
	}
	save := o.save()
	if ks.tier.graves.flushed[db] {
		o.dropParts() // the next session flushes before it puts them again
	}
	return save
}

// head is a record's head, taken apart.
type head struct {
	form     byte
	access   eviction.Stamp
	seq      uint64
	deadline int64
	size     int
	base     uint64 // seq of the value
	inline   bool
	value    []byte // if inline
	lenient  bool
	pending  []byte
}

func (h *head) append(dst []byte) []byte {
	first := byte(tierVersion)
	if h.inline {
		first |= headInline
	}
	if h.deadline != 0 {
		first |= headDeadline
	}
	if h.base != h.seq {
		first |= headApart
	}
	dst = append(dst, first, h.form)
	dst = binary.AppendUvarint(dst, h.seq)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.access))
	if h.deadline != 0 {
		dst = binary.AppendUvarint(dst, uint64(h.deadline))
	}
	if h.inline {
		return append(dst, h.value...)
	}
	dst = binary.AppendUvarint(dst, uint64(h.size))
	if h.base != h.seq {
		dst = binary.AppendUvarint(dst, h.base)
		lenient := byte(0)
		if h.lenient {
			lenient = 1
		}
		dst = append(append(dst, lenient), h.pending...)
	}
	return dst
}

// appendToBody begins a body with what the head has.
func (h *head) appendToBody(dst []byte) []byte {
	dst = append(dst, tierVersion|bodyWhole, h.form)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.access))
	dst = binary.AppendUvarint(dst, uint64(h.deadline))
	dst = binary.AppendUvarint(dst, uint64(h.size))
	return binary.AppendUvarint(dst, h.base)
}

var errHead = errors.New("damaged record of the tier")

// readHead takes a head apart. It keeps slices of b.
func readHead(b []byte) (h head, err error) {
	if len(b) == 0 || b[0]&0xf0 != tierVersion || b[0]&^0xf0 > headInline|headDeadline|headApart {
		return h, versionError("head", b)
	}
	r := effectReader{b: b[1:]}
	flags := b[0]
	h.form = r.byte()
	h.seq = uint64(r.int())
	h.access, h.base = r.stamp(), h.seq
	if flags&headDeadline != 0 {
		if h.deadline = r.int(); h.deadline == 0 {
			r.fail("no deadline")
		}
	}
	switch {
	case flags&headInline != 0:
		h.inline, h.value = true, r.b
		if flags&headApart != 0 || len(h.value) > MaxInline {
			r.fail("flags that don't go together")
		}
	default:
		h.size = r.size()
		if flags&headApart != 0 {
			h.base = uint64(r.int())
			lenient := r.byte()
			h.lenient, h.pending = lenient == 1, r.b
			if h.base >= h.seq || lenient > 1 {
				r.fail("base out of range")
			}
		} else if len(r.b) > 0 {
			r.fail("more than a head")
		}
	}
	if r.err != nil {
		return h, fmt.Errorf("%w: %w", errHead, r.err)
	}
	return h, nil
}

// stamp is the access time of a record.
func (r *effectReader) stamp() eviction.Stamp {
	if len(r.b) < 4 {
		r.fail("access time cut short")
		return 0
	}
	s := eviction.Stamp(binary.LittleEndian.Uint32(r.b))
	r.b = r.b[4:]
	return s
}

// size is what a record's key counts for.
func (r *effectReader) size() int {
	n := int(r.int())
	if n < 0 || n > 1<<48 {
		r.fail("size out of range")
	}
	return n
}

func versionError(what string, b []byte) error {
	if len(b) == 0 {
		return fmt.Errorf("%w: no %s", errHead, what)
	}
	return fmt.Errorf("%w: a %s that begins with %#x; if a newer version of vecino wrote it, run that version", errHead, what, b[0])
}

// LoadHead makes a key from a record's head: with its value if that stands in
// the head, else cold. The head is copied. A key that is here in a newer state
// stays as it is.
func (ks *Keyspace) LoadHead(db int, key, b []byte) error {
	if db < 0 || db >= Databases {
		return fmt.Errorf("load a key of the tier: %w: logical database %d", errHead, db)
	}
	h, err := readHead(b)
	if err != nil {
		return fmt.Errorf("load a key of the tier: %w", err)
	}
	val := &ks.tier.coming
	defer val.clear()
	if h.inline {
		err = val.load(ks.seed, h.form, h.value)
	} else {
		val.kind, val.raw, err = coldForm(h.form)
	}
	if err == nil && h.seq > slab.MaxSeq {
		err = fmt.Errorf("%w: the number %d, which no write has", errHead, h.seq)
	}
	if err != nil {
		return fmt.Errorf("load a key of the tier: %w", err)
	}
	sp, hash := ks.space(db), ks.Hash(key)
	if !HasRoom() {
		return fmt.Errorf("load a key of the tier: %w", ErrNoMemory)
	}
	e := sp.find(hash, key)
	fresh := !e.there()
	switch {
	case !fresh:
		if e.Seq() >= h.seq {
			return nil
		}
		ks.forget(e)
	case h.inline:
		e = ks.create(sp, hash, key, val, h.seq, h.deadline)
	default:
		e = ks.add(sp, hash, key, make([]byte, stubSize), val.kind, h.seq, h.deadline)
	}
	e.SetSeq(h.seq)
	e.SetClock(uint32(h.access))
	if h.inline {
		if !fresh {
			ks.install(&e, val)
		}
		e.store(inlined)
	} else {
		ks.dropObject(e)
		e.SetKind(uint8(val.kind))
		e.setRaw(val.raw)
		ks.chill(&e, int64(h.size), h.base)
		if len(h.pending) > 0 {
			ks.await(e, h.pending, h.lenient)
		}
		e.store(held)
	}
	ks.setExpire(&e, h.deadline)
	return nil
}

// coldForm is a form without a value.
func coldForm(form byte) (kind Kind, raw bool, err error) {
	kind, raw = Kind(form&^rawFlag), form&rawFlag != 0
	if kind == None || kind > ZSetKind || raw && kind != String {
		return kind, raw, fmt.Errorf("%w: form %#x", errHead, form)
	}
	return kind, raw, nil
}

// DumpCold appends the record of a key that Dump left out, with the value that
// the tier gave, which doesn't come back into memory by that. Of sunk keys that Dump has
// as a range, whoever dumps asks the tier for the names. It reports false
// if w is too old, so that the tier must be asked again: the key is cold still,
// with another value. A key that is gone, or in memory, is written as it is. w is
// used up.
func (ks *Keyspace) DumpCold(dst []byte, k ColdKey, w *Warm) (_ []byte, ok bool, err error) {
	sp := ks.spaces[k.DB]
	if sp == nil {
		return dst, true, nil
	}
	e := sp.find(k.Hash, k.Key)
	switch {
	case !e.there():
		if w != nil && w.loaded != nil && ks.maybe(sp, k.DB, k.Hash, k.Key) {
			h, err := readHead(w.head)
			if err != nil {
				return dst, false, fmt.Errorf("dump a key of database %d: %w", k.DB, err)
			}
			dst = appendRecordHead(dst, k.DB, w.loaded.form(), h.seq, h.deadline, k.Key)
			return appendValue(dst, w.loaded.dump()), true, nil
		}
		return dst, true, nil
	case !e.cold():
		return ks.appendRecord(dst, k.DB, e), true, nil
	}
	fits, rest, err := ks.thaw(e, w)
	if err != nil {
		return dst, false, fmt.Errorf("dump a key of database %d: %w", k.DB, err)
	}
	if !fits || w.loaded.partly() {
		return dst, false, nil
	}
	val := w.loaded.dump()
	if e.Has(objectFlag) {
		if val, err = ks.dumpParts(e, w.loaded, rest); err != nil {
			return dst, false, fmt.Errorf("dump a key of database %d: %w", k.DB, err)
		}
	}
	return appendValue(e.appendHead(dst, k.DB, w.loaded.form()), val), true, nil
}

// dump is the dump of a value. That of a string is the string itself.
func (l *loaded) dump() []byte {
	if l.kind == String {
		return l.str
	}
	return l.appendDump(nil)
}

func appendValue(dst, dump []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(dump))), dump...)
}

// Graves are the keys that the tier may hold and that are no more.
type Graves struct {
	flushed [Databases]bool
	keys    [Databases]map[string]uint64 // to the hash
	n       int
}

// Grave is a deleted key.
type Grave struct {
	DB   int
	Hash uint64
	Key  []byte
}

// Empty reports whether there is nothing to delete.
func (g *Graves) Empty() bool { return g.n == 0 && g.flushed == [Databases]bool{} }

// Len is the number of keys.
func (g *Graves) Len() int { return g.n }

// Flushed yields the logical databases of which all must be deleted, before
// anything is put in again.
func (g *Graves) Flushed() iter.Seq[int] {
	return func(yield func(int) bool) {
		for db, flushed := range g.flushed {
			if flushed && !yield(db) {
				return
			}
		}
	}
}

// Keys yields the keys to be deleted.
func (g *Graves) Keys() iter.Seq[Grave] {
	return func(yield func(Grave) bool) {
		for db, keys := range g.keys {
			for key, hash := range keys {
				if !yield(Grave{db, hash, []byte(key)}) {
					return
				}
			}
		}
	}
}

func (g *Graves) dig(db int, hash uint64, key []byte) {
	if g.keys[db] == nil {
		g.keys[db] = make(map[string]uint64)
	}
	if _, had := g.keys[db][string(key)]; !had {
		g.keys[db][string(key)] = hash
		g.n++
	}
}

// fill removes the grave of a key that is written to the tier again.
func (g *Graves) fill(db int, _ uint64, key []byte) {
	if _, had := g.keys[db][string(key)]; had {
		delete(g.keys[db], string(key))
		g.n--
	}
}

func (g *Graves) flush(db int) {
	g.n -= len(g.keys[db])
	g.keys[db], g.flushed[db] = nil, true
}

// Buried is how many keys wait to be deleted from the tier.
func (ks *Keyspace) Buried() int { return ks.tier.graves.n }

// TakeGraves begins a session of writing to the tier, and gives what it must
// delete first. The graves may be read without the lock.
func (ks *Keyspace) TakeGraves() Graves {
	g := ks.tier.graves
	ks.tier.graves, ks.tier.taken, ks.tier.flushing = Graves{}, g, g.flushed
	ks.join(true)
	return g
}

// join says what became of the keys that the last session joined.
func (ks *Keyspace) join(success bool) {
	for _, k := range ks.tier.joined {
		if sp := ks.spaces[k.db]; sp != nil {
			if e := sp.find(k.hash, []byte(k.key)); e.there() && e.Seq() == k.seq && e.stored() == joining {
				if !success {
					k.state = apart
				}
				e.store(k.state)
			}
		}
	}
	ks.tier.joined = nil
}

// Committed says that the session has succeeded. The next one's TakeGraves says so, too.
func (ks *Keyspace) Committed() {
	ks.tier.flushing, ks.tier.taken = [Databases]bool{}, Graves{}
	ks.join(true)
}

// Rebury ends a session that failed: its graves are there again, and what it
// swept counts as not stored.
func (ks *Keyspace) Rebury(g Graves) {
	now := &ks.tier.graves
	ks.tier.taken = Graves{}
	for db := range Databases {
		if now.flushed[db] {
			continue // what was there before is covered
		}
		now.flushed[db] = g.flushed[db]
		for key, hash := range g.keys[db] {
			now.dig(db, hash, []byte(key))
		}
	}
	ks.join(false)
}
