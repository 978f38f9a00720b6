package keyspace

import (
	"slices"

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
	touched  []*entry
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
	for _, e := range tx.touched {
		e.dirty = false
		if e.dead {
			continue
		}
		if e.empty() {
			tx.remove(e, byCommand)
			continue
		}
		tx.ks.settle(tx.ks.spaces[tx.db], e)
		if tx.waking && e.cold == nil && (e.kind == ListKind || e.kind == ZSetKind) {
			tx.woken = append(tx.woken, Woken{tx.db, string(e.key)})
		}
	}
	clear(tx.touched)
	tx.touched = tx.touched[:0]
}

// End ends the transaction and returns its effects, empty if it changed
// nothing, and the keys for which somebody may have waited. Both are valid
// until the next Begin.
func (tx *Tx) End() (effects []byte, woken []Woken) {
	tx.EndCommand()
	tx.ks.inTx = false
	const keep = 1 << 20 // what one huge transaction grew is not kept for ever
	effects = tx.effects
	if cap(tx.effects) > keep {
		tx.effects = nil
	}
	return effects, tx.woken
}

// Changed reports whether anything was changed so far.
func (tx *Tx) Changed() bool { return len(tx.effects) > 0 }

func (e *entry) empty() bool {
	switch v := e.obj.(type) {
	case *value.Hash:
		return v.Len() == 0
	case *value.List:
		return v.Len() == 0
	case *value.Set:
		return v.Len() == 0
	case *value.ZSet:
		return v.Len() == 0
	}
	return false
}

// find looks a key up that may be changed. One whose deadline has passed is
// deleted first, which is an effect of its own.
func (tx *Tx) find(key []byte) *entry {
	sp := tx.ks.spaces[tx.db]
	if sp == nil {
		return nil
	}
	e := sp.table.Find(tx.ks.Hash(key), key)
	if e != nil && e.expired(tx.now) {
		tx.ks.Stats.Expired++
		tx.remove(e, byExpiry)
		return nil
	}
	return e
}

func (tx *Tx) typed(key []byte, kind Kind) (*entry, error) {
	e := tx.find(key)
	if e != nil && e.kind != kind {
		if slices.Contains(tx.forgiven, string(key)) {
			return nil, nil
		}
		return nil, ErrWrongType
	}
	if e == nil {
		return nil, nil
	}
	if e.cold != nil {
		return nil, tx.ks.want(tx.db, e)
	}
	tx.used(e)
	return e, nil
}

// Forgive lets keys that hold another type than a command asks for count as
// missing, until the next Begin: a command that waits for several keys must
// not fail because one of them has become something else.
func (tx *Tx) Forgive(keys []string) { tx.forgiven = keys }

// change says that e is about to be changed by this transaction.
func (tx *Tx) change(e *entry) {
	tx.ks.inTx = true
	e.moved(tx.seq)
	if !e.dirty {
		e.dirty = true
		tx.touched = append(tx.touched, e)
	}
}

// remove takes a key away and records that.
func (tx *Tx) remove(e *entry, why reason) {
	tx.emit(opDel, e.key)
	tx.effects = append(tx.effects, byte(why))
	sp := tx.ks.spaces[tx.db]
	hash := tx.ks.Hash(e.key)
	if why != byExpiry {
		tx.ks.bury(hash, tx.seq)
	}
	if why == byCommand {
		tx.ks.inTx = true
	}
	tx.ks.drop(tx.db, sp, hash, e)
}

// make puts a new key in the table.
func (tx *Tx) make(key []byte, kind Kind) *entry {
	e := tx.ks.add(tx.ks.space(tx.db), tx.ks.Hash(key), key, kind, tx.seq)
	tx.change(e)
	return e
}

// Delete removes a key and reports whether it was there.
func (tx *Tx) Delete(key []byte) bool {
	e := tx.find(key)
	if e == nil {
		return false
	}
	tx.remove(e, byCommand)
	return true
}

// KeepDeadline, given to SetString as deadline, leaves it as it is.
const KeepDeadline = -1

// SetString makes key a string with that value and deadline (0 for none),
// whatever it was before. The value is copied.
func (tx *Tx) SetString(key, val []byte, deadline int64) {
	e := tx.find(key)
	sp := tx.ks.space(tx.db)
	if e == nil {
		e = tx.make(key, String)
	} else {
		tx.ks.forget(sp, e)
		e.kind, e.obj = String, nil
		tx.used(e)
		tx.change(e)
	}
	e.raw = false
	e.str = setBytes(e.str, val)
	if deadline == KeepDeadline {
		deadline = e.expire
	} else if deadline != e.expire {
		sp.setExpire(e, deadline)
	}
	tx.emit(opStrSet, key)
	tx.emitInt(deadline)
	tx.emitBytes(val)
}

// setBytes copies val to buf, reusing its memory if that fits well.
func setBytes(buf, val []byte) []byte {
	if c := cap(buf); c < len(val) || c > 2*len(val)+16 {
		buf = make([]byte, 0, len(val))
	}
	return append(buf[:0], val...)
}

// MaxString is how long a string may become.
const MaxString = 512 << 20

// PatchString writes part of a string in place, as SETRANGE and APPEND do. A
// gap between the old end and the offset is filled with zeroes, and a missing
// key begins empty. The caller has seen to it that the string doesn't get longer
// than MaxString. It returns the new length.
func (tx *Tx) PatchString(key []byte, offset int, part []byte) (length int, err error) {
	e, err := tx.typed(key, String)
	if err != nil {
		return 0, err
	}
	if e == nil {
		e = tx.make(key, String)
	} else {
		tx.change(e)
	}
	e.patch(offset, part)
	tx.emit(opStrPatch, key)
	tx.emitInt(int64(offset))
	tx.emitBytes(part)
	return len(e.str), nil
}

func (e *entry) patch(offset int, part []byte) {
	length, end := len(e.str), offset+len(part)
	switch {
	case end > cap(e.str):
		room := end
		if length > 0 {
			room = end + min(end, 1<<20) // as Redis: twice, then a MiB more
		}
		grown := make([]byte, end, room)
		copy(grown, e.str)
		e.str = grown
	case end > length:
		e.str = e.str[:end]
		clear(e.str[length:max(length, offset)]) // what it was when it was longer
	}
	copy(e.str[offset:], part)
	e.raw = true
}

// SetDeadline gives an existing key a deadline in milliseconds since 1970, or
// with 0 takes it away, and reports whether the key is there. A deadline that
// has passed deletes the key.
func (tx *Tx) SetDeadline(key []byte, at int64) bool {
	e := tx.find(key)
	if e == nil {
		return false
	}
	if at != 0 && at <= tx.now {
		tx.remove(e, byCommand)
		return true
	}
	tx.used(e)
	if e.expire == at {
		return true
	}
	tx.change(e)
	tx.ks.space(tx.db).setExpire(e, at)
	tx.emit(opExpire, key)
	tx.emitInt(at)
	return true
}

// Rename moves a value, with its deadline, to another key, whatever that held
// before. It reports whether there was a value. The error is ErrCold.
func (tx *Tx) Rename(from, to []byte) (bool, error) {
	e := tx.find(from)
	if e == nil {
		return false, nil
	}
	tx.used(e)
	if string(from) == string(to) {
		return true, nil
	}
	if e.cold != nil {
		return false, tx.ks.want(tx.db, e)
	}
	tx.put(tx.db, to, e, false)
	tx.remove(e, byCommand)
	return true, nil
}

// Copy copies a value, with its deadline, to a key of a logical database,
// whatever that held before. It reports whether there was a value. The error
// is ErrCold.
func (tx *Tx) Copy(from []byte, db int, to []byte) (bool, error) {
	e := tx.find(from)
	if e == nil {
		return false, nil
	}
	if e.cold != nil {
		return false, tx.ks.want(tx.db, e)
	}
	tx.used(e)
	tx.put(db, to, e, true)
	return true, nil
}

// put gives a key the value of src: a copy of it or, when src is about to
// be removed, the value itself.
func (tx *Tx) put(db int, key []byte, src *entry, copied bool) {
	home := tx.db
	tx.EndCommand() // touched entries belong to one logical database
	tx.db = db
	defer func() { tx.EndCommand(); tx.db = home }()

	e := tx.find(key)
	if e == nil {
		e = tx.make(key, src.kind)
	} else {
		tx.ks.forget(tx.ks.spaces[db], e)
		tx.change(e)
	}
	dump := src.appendDump(nil)
	deadline := src.expire
	if copied {
		loaded, err := load(tx.ks.seed, src.form(), dump)
		if err != nil {
			panic("keyspace: a value can't read its own dump: " + err.Error())
		}
		e.take(&loaded)
	} else {
		e.take(src)
	}
	tx.ks.space(db).setExpire(e, deadline)
	tx.emit(opRestore, key)
	tx.emitInt(deadline)
	tx.effects = append(tx.effects, e.form())
	tx.emitBytes(dump)
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
	if sp == nil || sp.table.Len() == 0 {
		return
	}
	ks.account.add(sp.account, -1)
	ks.flushed[db] = flushed{seq: seq, made: max(sp.made, ks.flushed[db].made)}
	ks.tier.graves.flush(db)
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
		for len(sp.expiry) > 0 && sp.expiry[0].expired(tx.now) && deleted < most {
			tx.ks.Stats.Expired++
			tx.remove(sp.expiry[0], byExpiry)
			deleted++
		}
	}
	tx.db = home
	return deleted
}
