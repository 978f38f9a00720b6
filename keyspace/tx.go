package keyspace

import (
	"slices"

	"vecino/internal/invariant"
	"vecino/slab"
	"vecino/value"
)

// A Tx is a View that can change what it sees, and that writes down each
// change as an effect. It belongs to one command, EXEC or script, and becomes
// one entry of the journal, or none if nothing was changed.
//
// What a Tx has done can't be undone: handlers look first, then change.
type Tx struct {
	View
	seq      uint64
	effects  []byte
	recorded int  // the logical database that the effects are about so far
	lastKey  span // of the last op in effects
	touched  []*opened
	woken    []Woken
	waking   bool
	forgiven []string
}

// Woken is a key that commands may have been waiting for: a list or sorted
// set that was changed.
type Woken struct {
	DB  int
	Key string
}

// Begin opens the transaction that makes the write seq. There is one Tx, used
// again: the one before must have ended. waking says whether anybody waits
// for keys, so whether End shall tell which were changed.
func (ks *Keyspace) Begin(db int, now int64, seq uint64, rng value.Rand, waking bool) *Tx {
	tx := &ks.tx
	ks.begin(now)
	ks.tidySome(db)
	ks.running = true
	ks.inTx = false
	tx.View = View{ks: ks, db: db, now: now, rng: rng}
	tx.seq = seq
	tx.effects = tx.effects[:0]
	tx.recorded = 0
	tx.lastKey = span{}
	tx.touched = tx.touched[:0]
	tx.woken = tx.woken[:0]
	tx.waking = waking
	tx.forgiven = nil
	return tx
}

// Select goes on in another logical database. It ends the command before.
func (tx *Tx) Select(db int) {
	tx.EndCommand() // what was touched belongs to one logical database
	tx.db = db
}

// EndCommand ends one of the commands of the transaction: collections that it
// left empty are deleted and the memory that values take is counted.
func (tx *Tx) EndCommand() {
	ks := tx.ks
	for _, o := range tx.touched {
		if o.gone {
			continue
		}
		if o.len() == 0 {
			tx.remove(o.e, byCommand)
			continue
		}
		ks.putBack(o)
		if kind := o.e.kind(); tx.waking && (kind == ListKind || kind == ZSetKind) {
			tx.woken = append(tx.woken, Woken{tx.db, string(o.e.Key())})
		}
	}
	clear(tx.touched)
	tx.touched = tx.touched[:0]
	ks.shutAll()
	ks.settle()
}

// End ends the transaction and returns its effects, empty if it changed
// nothing, and the keys for which somebody may have waited. Both are valid
// until the next Begin.
func (tx *Tx) End() (effects []byte, woken []Woken) {
	tx.EndCommand()
	tx.ks.inTx, tx.ks.running = false, false
	effects = tx.effects
	tx.effects = Spare(effects)
	return effects, tx.woken
}

// Spare is a buffer as it is kept for the next write: not at all when a large one has grown
// it, for each database that is awake has such buffers.
func Spare(buf []byte) []byte {
	if cap(buf) > 64<<10 {
		return nil
	}
	return buf
}

// Changed reports whether anything was changed so far.
func (tx *Tx) Changed() bool { return len(tx.effects) > 0 }

// find looks a key up that may be changed. One whose deadline has passed is
// deleted first, which is an effect of its own.
func (tx *Tx) find(key []byte) entry {
	sp := tx.ks.spaces[tx.db]
	if sp == nil {
		return entry{}
	}
	hash := tx.ks.Hash(key)
	e := tx.findWritten(sp, hash, key)
	invariant.That(e.there() || !tx.ks.maybe(sp, tx.db, hash, key), "a key that is perhaps sunk is changed")
	return e
}

// findWritten is find for what may be written blindly.
func (tx *Tx) findWritten(sp *space, hash uint64, key []byte) entry {
	e := sp.find(hash, key)
	switch {
	case !e.there():
		return entry{}
	case e.expired(tx.now):
		tx.ks.Stats.Expired++
		tx.remove(e, byExpiry)
		return entry{}
	}
	return e
}

func (tx *Tx) typed(key []byte, kind Kind) (entry, error) {
	e := tx.find(key)
	if !e.there() {
		return entry{}, nil
	}
	if e.kind() != kind {
		if slices.Contains(tx.forgiven, string(key)) {
			return entry{}, nil
		}
		return entry{}, ErrWrongType
	}
	if e.cold() {
		if need, lacks := tx.ks.lacks(e); lacks {
			return entry{}, tx.ks.want(tx.db, e, need)
		}
	}
	tx.used(e)
	return e, nil
}

// Forgive lets keys that hold another type than a command asks for count as
// missing, until the next Begin: a command that waits for several keys must
// not fail because one of them has become something else.
func (tx *Tx) Forgive(keys []string) { tx.forgiven = keys }

// change says that an open collection is about to be changed by this
// transaction.
func (tx *Tx) change(o *opened) {
	tx.moved(o.e)
	if !o.dirty {
		o.dirty = true
		tx.touched = append(tx.touched, o)
	}
}

// moved says that a key is changed by this transaction.
func (tx *Tx) moved(e entry) {
	tx.ks.inTx = true
	e.moved(tx.seq)
}

// remove takes a key away and records that.
func (tx *Tx) remove(e entry, why reason) {
	tx.emit(opDel, e.Key())
	tx.effects = append(tx.effects, byte(why))
	if why != byExpiry {
		tx.ks.bury(e.hash, tx.seq)
	}
	if why == byCommand {
		tx.ks.inTx = true
	}
	tx.ks.drop(tx.db, e)
}

// make makes a collection.
func (tx *Tx) make(key []byte, kind Kind) *opened {
	e := tx.ks.add(tx.ks.space(tx.db), tx.ks.Hash(key), key, nil, kind, tx.seq, 0)
	o := tx.ks.open(e)
	tx.change(o)
	return o
}

// Delete removes a key and reports whether it was there.
func (tx *Tx) Delete(key []byte) bool {
	e := tx.find(key)
	if !e.there() {
		return false
	}
	tx.remove(e, byCommand)
	return true
}

// KeepDeadline, given to SetString as deadline, leaves it as it is.
const KeepDeadline = -1

// SetString makes key a string with that value and deadline (0 for none),
// whatever it was before, even if it is sunk. The value is copied.
func (tx *Tx) SetString(key, val []byte, deadline int64) {
	ks := tx.ks
	sp, hash := ks.space(tx.db), ks.Hash(key)
	e := tx.findWritten(sp, hash, key)
	if !e.there() {
		deadline = max(deadline, 0) // a sunk key has none
		sunk := ks.maybe(sp, tx.db, hash, key)
		e = ks.add(sp, hash, key, val, String, tx.seq, deadline)
		if sunk {
			ks.writeBlindly(e)
		}
		tx.ks.inTx = true
		if len(val) > ks.large.from-len(key) {
			ks.noteLarge(e)
		}
	} else {
		if e.Flags()&^storedFlags != 0 || e.kind() != String {
			ks.shut(e)
			ks.forget(e)
			ks.dropObject(e)
			e.SetKind(uint8(String))
			e.setRaw(false)
		}
		tx.used(e)
		tx.moved(e)
		rec, before := e.Rec, e.bare()
		ks.set(&e, val, len(val))
		if after := e.bare(); e.Rec != rec || after != before {
			ks.charge(e.sp, account{used: after - before})
			ks.noteLarge(e)
		}
		if deadline == KeepDeadline {
			deadline = e.expire()
		} else {
			ks.setExpire(&e, deadline)
		}
	}
	tx.emit(opStrSet, key)
	tx.emitInt(deadline)
	tx.emitBytes(val)
}

// MaxString is how long a string may become.
const MaxString = 512 << 20

// PatchString writes part of a string in place, as SETRANGE and APPEND do. A
// gap between the old end and the offset is filled with zeroes, and a missing
// key begins empty. The caller has seen to it that the string doesn't get longer
// than MaxString. It returns the new length. The error is ErrWrongType, ErrCold or
// ErrNoMemory.
func (tx *Tx) PatchString(key []byte, offset int, part []byte) (length int, err error) {
	e, err := tx.typed(key, String)
	if err != nil {
		return 0, err
	}
	sp := tx.ks.space(tx.db)
	room, err := tx.ks.roomToPatch(sp, key, e, offset+len(part))
	if err != nil {
		return 0, err
	}
	if !e.there() {
		e = tx.ks.add(sp, tx.ks.Hash(key), key, nil, String, tx.seq, 0)
	}
	tx.moved(e)
	tx.ks.patch(&e, offset, part, room)
	tx.emit(opStrPatch, key)
	tx.emitInt(int64(offset))
	tx.emitBytes(part)
	return len(e.Value()), nil
}

// roomToPatch is for how many bytes there shall be room in a string that is about
// to be patched up to end, which may be not there yet; the memory for it is ready.
// It grows by a share of what it is, so that however often it grows, each byte is
// copied a few times. The error is ErrNoMemory.
func (ks *Keyspace) roomToPatch(sp *space, key []byte, e entry, end int) (room int, err error) {
	if e.there() && end <= e.Room() {
		return end, nil
	}
	if e.there() && len(e.Value()) > 0 {
		room = min(end+max(min(end, 1<<20), end/4), max(end, MaxString))
		if ks.prepare(sp, slab.Needs(len(key)+room)) == nil {
			return room, nil
		}
	}
	return end, ks.prepare(sp, slab.Needs(len(key)+end))
}

// patch writes part of a string, which isn't cold and for which roomToPatch has
// found room.
func (ks *Keyspace) patch(e *entry, offset int, part []byte, room int) {
	before := e.bare()
	if end := offset + len(part); end > len(e.Value()) {
		e.Rec = must(e.sp.slab.Resize(e.hash, e.Rec, end, room))
	}
	copy(e.Value()[offset:], part)
	e.setRaw(true)
	ks.charge(e.sp, account{used: e.bare() - before})
	ks.noteLarge(*e)
}

// SetDeadline gives an existing key a deadline in milliseconds since 1970, or
// with 0 takes it away, and reports whether the key is there. A deadline that
// has passed deletes the key.
func (tx *Tx) SetDeadline(key []byte, at int64) bool {
	e := tx.find(key)
	if !e.there() {
		return false
	}
	if at != 0 && at <= tx.now {
		tx.remove(e, byCommand)
		return true
	}
	tx.used(e)
	if e.expire() == at {
		return true
	}
	tx.moved(e)
	tx.ks.setExpire(&e, at)
	tx.emit(opExpire, key)
	tx.emitInt(at)
	return true
}

// Rename moves a value, with its deadline, to another key, whatever that held
// before. It reports whether there was a value. The error is ErrCold or ErrNoMemory.
func (tx *Tx) Rename(from, to []byte) (bool, error) {
	e := tx.find(from)
	if !e.there() {
		return false, nil
	}
	tx.used(e)
	if string(from) == string(to) {
		return true, nil
	}
	if e.cold() {
		return false, tx.ks.want(tx.db, e, tx.ks.rest(e))
	}
	if err := tx.put(tx.db, to, from, true); err != nil {
		return false, err
	}
	tx.remove(tx.find(from), byCommand)
	return true, nil
}

// Copy copies a value, with its deadline, to a key of a logical database,
// whatever that held before. It reports whether there was a value. The error
// is ErrCold or ErrNoMemory.
func (tx *Tx) Copy(from []byte, db int, to []byte) (bool, error) {
	e := tx.find(from)
	if !e.there() {
		return false, nil
	}
	if e.cold() {
		return false, tx.ks.want(tx.db, e, tx.ks.rest(e))
	}
	tx.used(e)
	if err := tx.put(db, to, from, false); err != nil {
		return false, err
	}
	return true, nil
}

// put gives a key the value of another: a copy of it or, when that is about to
// be removed, perhaps the value itself.
func (tx *Tx) put(db int, key, from []byte, leaves bool) error {
	home, ks := tx.db, tx.ks
	tx.EndCommand() // what is open belongs to one logical database
	src := tx.find(from)
	if src.kind() == String {
		if err := ks.prepare(ks.space(db), slab.Needs(len(key)+len(src.Value()))); err != nil {
			return err
		}
	}
	dump, deadline := ks.appendDump(nil, src), src.expire()
	var val loaded
	if leaves && src.Has(objectFlag) {
		val.kind, val.collection = src.kind(), src.sp.objects.list[src.number()].collection
		val.dropParts() // they are stored under the old name
		ks.dropObject(src)
	} else if err := val.load(ks.seed, form(src.kind(), src.raw()), dump); err != nil {
		panic("keyspace: a value can't read its own dump: " + err.Error())
	}
	tx.db = db
	defer func() { tx.db = home }()
	e := tx.find(key)
	if !e.there() {
		e = ks.create(ks.space(db), ks.Hash(key), key, &val, tx.seq, deadline)
		ks.inTx = true
	} else {
		ks.forget(e)
		tx.moved(e)
		ks.install(&e, &val)
		ks.setExpire(&e, deadline)
	}
	if tx.waking && (val.kind == ListKind || val.kind == ZSetKind) {
		tx.woken = append(tx.woken, Woken{db, string(key)})
	}
	tx.emit(opRestore, key)
	tx.emitInt(deadline)
	tx.effects = append(tx.effects, val.form())
	tx.emitBytes(dump)
	return nil
}

// Flush deletes all keys of this logical database.
func (tx *Tx) Flush() {
	tx.EndCommand()
	tx.ks.inTx = true
	tx.ks.flush(tx.db, tx.seq)
	tx.effects = append(tx.effects, opFlush, byte(tx.db))
}

// FlushAll deletes all keys of all logical databases.
func (tx *Tx) FlushAll() {
	tx.EndCommand()
	tx.ks.inTx = true
	for db := range tx.ks.spaces {
		tx.ks.flush(db, tx.seq)
	}
	tx.effects = append(tx.effects, opFlush, allDatabases)
}

// flush lets go all keys at once. None is looked at, however many there are.
func (ks *Keyspace) flush(db int, seq uint64) {
	sp := ks.spaces[db]
	if sp == nil || ks.Len(db) == 0 {
		return
	}
	ks.account.add(sp.account, -1)
	ks.flushed[db] = flushed{seq: seq, made: max(sp.made, ks.flushed[db].made)}
	ks.tier.graves.flush(db)
	ks.dropBlind(db)
	sp.slab.Close()
	ks.spaces[db] = nil
}

// Expire deletes up to most keys of any logical database whose deadline has
// passed, and returns how many it deleted.
func (tx *Tx) Expire(most int) (deleted int) {
	home := tx.db
	for db, sp := range tx.ks.spaces {
		if sp == nil {
			continue
		}
		tx.db = db
		for deleted < most {
			r, at := sp.slab.Next()
			if r == 0 || at >= tx.now {
				break
			}
			tx.ks.Stats.Expired++
			tx.remove(sp.at(r), byExpiry)
			deleted++
		}
	}
	tx.db = home
	return deleted
}
