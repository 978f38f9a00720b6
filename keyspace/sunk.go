package keyspace

import (
	"cmp"
	"fmt"
	"slices"

	"vecino/eviction"
	"vecino/internal/invariant"
	"vecino/slab"
	"vecino/value"
)

// A cold key that nobody uses can *sink*: its record leaves memory as well, and what
// stays is the fingerprint of its hash (see prints in package slab). Some six bytes
// instead of sixty.
//
//	         Offload              Sink
//	hot ───────────────> cold ───────────────> sunk
//	 ^                   |  ^                    |
//	 └───── Restore ─────┘  └──── Restore ───────┘  or to hot, where the value comes along
//
// A key with neither record nor fingerprint is not there, and that is certain. One
// without record whose fingerprint is here is *perhaps* there: whoever looks it up
// is told that there is none, the key is noted in Wanted, and Unsure says that the
// answer may be wrong. So a command that only reads is run, and if Unsure then, run
// again when the tier has been asked. A command that changes something must not
// find out in the middle: all keys that it names are asked for before (WantSunk), unless it
// puts new strings there without looking (SetString): see blind.go.
//
// The tier is asked for the key by its name. If it has none of that name, another
// key has the same fingerprint: the tier is asked for all that have, and they
// surface, after which there is no fingerprint any more.
//
// What makes that right:
//
//   - Only a key sinks that the tier holds exactly and for certain, and while no
//     other with that fingerprint is sunk. It changes no more until it surfaces.
//   - No key sinks whose fingerprint is being asked for. So if the fingerprint is here
//     when the answer comes, it was here all the time, and the answer is what the
//     tier holds of the key that it belongs to.
//   - A key that was deleted, and that the tier may hold still, is known by its
//     grave: it is not there.
//
// A sunk key counts in Len and Used as it did before. It has no deadline, since
// nobody would know. The copies that apply effects have no sunk keys: an effect
// must know its key at once. Who chooses keys to be evicted chooses among
// those with a record, so keys shouldn't sink where keys are evicted.

// printCost is about how many bytes a sunk key takes in memory.
const printCost = 6

// blur is the bits of a hash that its fingerprint doesn't have. There are more in
// tests, so that keys are taken for each other.
var blur = uint64(1)<<(64-value.CursorBits) - 1

func printOf(hash uint64) uint64 { return hash &^ blur }

// samePrint is the last of the hashes that have the fingerprint of one.
func samePrint(hash uint64) uint64 { return hash | blur }

// Head is a record's head as the tier holds it.
type Head struct {
	Hash      uint64
	Key, Head []byte
}

// sunk is what a sunk key counts for, going by its record's head.
func (h *head) sunk(key int) account {
	size := int64(h.size)
	if h.inline {
		size = inlineSize(key, len(h.value))
	}
	return sunkAccount(size)
}

func sunkAccount(size int64) account {
	return account{used: size, away: size - printCost, sunk: 1, sunkUsed: size}
}

// inlineSize is what a sunk key counts for whose value, of so many bytes, stands in
// the head.
func inlineSize(key, dump int) int64 { return int64(slab.Cost(key, dump, false)) + slotSize }

// Sunk is how many keys are sunk.
func (ks *Keyspace) Sunk() int { return ks.account.sunk }

// SunkIn is how many keys of a logical database are sunk.
func (ks *Keyspace) SunkIn(db int) int {
	if sp := ks.spaces[db]; sp != nil {
		return sp.account.sunk
	}
	return 0
}

// Settle says whether commands from now on are part of something that can't be run
// again. Their keys were looked for before; those that look for any key take
// one that is here.
func (ks *Keyspace) Settle(on bool) { ks.settled = on }

// Unsure reports whether the last command looked for a key that is perhaps sunk, so
// that its answer may be wrong. Wanted says which.
func (ks *Keyspace) Unsure() bool { return ks.unsure }

// maybe reports whether a key that has no record is perhaps sunk.
func (ks *Keyspace) maybe(sp *space, db int, hash uint64, key []byte) bool {
	return sp.account.sunk > 0 && sp.slab.Imprinted(printOf(hash)) && !ks.buried(db, key)
}

// buried reports whether a key was deleted, and the tier may not know.
func (ks *Keyspace) buried(db int, key []byte) bool {
	_, waits := ks.tier.graves.keys[db][string(key)]
	_, taken := ks.tier.taken.keys[db][string(key)]
	return waits || taken
}

// missing is called where a key has no record. If it is perhaps sunk, it is wanted,
// with its value if deep.
func (v *View) missing(sp *space, hash uint64, key []byte, deep bool) {
	if v.ks.maybe(sp, v.db, hash, key) {
		invariant.That(!v.ks.inTx, "a command looks for a sunk key after its transaction has changed something")
		v.ks.unsure = true
		v.ks.ask(v.db, hash, key, deep)
	}
}

// ask adds a sunk key to Wanted, with its value if deep. If that lies in parts, it is asked
// for when the key is there.
func (ks *Keyspace) ask(db int, hash uint64, key []byte, deep bool) {
	for i := range ks.wanted[:min(len(ks.wanted), fewWanted)] {
		w := &ks.wanted[i]
		if w.Seq == 0 && w.Last == 0 && w.Hash == hash && w.DB == db && string(w.Key) == string(key) {
			w.Bare = w.Bare && !deep
			return
		}
	}
	ks.wanted = append(ks.wanted, ColdKey{DB: db, Hash: hash, Key: append([]byte(nil), key...), Bare: !deep, Need: new(value.Need)})
}

// Want adds to Wanted what was wanted before.
func (ks *Keyspace) Want(k ColdKey) { ks.wanted = append(ks.wanted, k) }

// WantSunk adds a key to Wanted if it is perhaps sunk, and reports whether it is.
// Its record is enough then; WantCold asks for its value, too.
func (ks *Keyspace) WantSunk(db int, key []byte) bool { return ks.wantSunk(db, key, false) }

func (ks *Keyspace) wantSunk(db int, key []byte, deep bool) bool {
	sp := ks.spaces[db]
	if sp == nil || sp.account.sunk == 0 {
		return false
	}
	hash := ks.Hash(key)
	// Its record first: most have one, and what it lies on is needed soon.
	if sp.slab.Find(hash, key) != 0 || !sp.slab.Imprinted(printOf(hash)) || ks.buried(db, key) {
		return false
	}
	ks.ask(db, hash, key, deep)
	return true
}

// WantAll is what brings all sunk keys of a logical database back, without values.
func WantAll(db int) ColdKey { return ColdKey{DB: db, Last: ^uint64(0)} }

// wantRange notes the sunk keys between two hashes.
func (ks *Keyspace) wantRange(db int, first, last uint64) {
	ks.unsure = true
	ks.wanted = append(ks.wanted, ColdKey{DB: db, Hash: first, Last: last})
}

// SamePrint is what a tier is asked for that has no record of a sunk key: whichever
// keys have its fingerprint.
func (k ColdKey) SamePrint() ColdKey {
	return ColdKey{DB: k.DB, Hash: printOf(k.Hash), Last: samePrint(k.Hash)}
}

// printed reports whether a key with a hash from first to last is sunk.
func (sp *space) printed(first, last uint64) (any bool) {
	sp.slab.EachPrint(printOf(first), func(h uint64) bool { any = h <= last; return false })
	return any
}

// surfaceAll has those surface that the tier was asked for.
func (ks *Keyspace) surfaceAll(k ColdKey, w *Warm) error {
	if w == nil {
		return fmt.Errorf("%w: no record", errHead)
	}
	if k.Names != "" {
		ks.enroll(k, w)
		return nil
	}
	if w.loaded == nil {
		for i := range w.heads {
			h := &w.heads[i]
			new, err := ks.surface(k.DB, h.Hash, h.Key, h.Head)
			if err != nil {
				return err
			}
			if new {
				ks.welcome(k.DB, h.Hash, h.Key, true)
			}
		}
		return nil
	}
	new, err := ks.surface(k.DB, k.Hash, k.Key, w.head)
	if err == nil {
		_, err = ks.restore(ColdKey{DB: k.DB, Hash: k.Hash, Key: k.Key, Seq: w.base}, w)
	}
	if new {
		ks.welcome(k.DB, k.Hash, k.Key, true)
	}
	return err
}

// surface makes a sunk key from its record's head, and reports whether it did. If it is
// none it stays as it is.
func (ks *Keyspace) surface(db int, hash uint64, key, b []byte) (new bool, err error) {
	sp := ks.spaces[db]
	if sp == nil {
		return false, nil
	}
	if ks.isBlind(sp, db, hash, key) {
		return false, ks.Seen(ColdKey{DB: db, Hash: hash, Key: key}, b)
	}
	if sp.slab.Find(hash, key) != 0 || !ks.maybe(sp, db, hash, key) {
		return false, nil
	}
	made := sp.made
	h, err := readHead(b)
	if err == nil {
		err = ks.LoadHead(db, key, b)
	}
	if err != nil {
		return false, fmt.Errorf("a key surfaces: %w", err)
	}
	sp.made = made // it is no new key
	ks.leave(sp, hash, h.sunk(len(key)))
	return true, nil
}

// leave ends that a key is sunk, which counted for so much.
func (ks *Keyspace) leave(sp *space, hash uint64, counted account) {
	sp.slab.Erase(printOf(hash))
	by := account{}
	by.add(counted, -1)
	ks.charge(sp, by)
}

// LoadSunk is LoadHead for a key that is not to have a record, and reports whether
// that could be: not if its value stands in the head. Else nothing has been done.
func (ks *Keyspace) LoadSunk(db int, hash uint64, key, b []byte) bool {
	h, err := readHead(b)
	if err != nil || db < 0 || db >= Databases || h.deadline != 0 || h.base != h.seq || h.inline {
		return false
	}
	if _, _, err := coldForm(h.form); err != nil {
		return false
	}
	sp := ks.space(db)
	if sp.slab.Find(hash, key) != 0 || !sp.slab.Imprint(printOf(hash)) {
		return false
	}
	ks.charge(sp, h.sunk(len(key)))
	return true
}

// Sinking says which keys are to sink.
type Sinking struct {
	Looks int     // about how many keys are looked at
	Part  float64 // which part of those that may sink does, those not used for longest
	Since uint64  // the write from which the next complete sweep goes on
	Small bool    // also those whose values stand in the head, which memory holds until then
	// May reports whether a key that could sink may.
	May func(db int, hash uint64, key []byte) bool
}

// Sink has keys sink, and returns how many, and how many bytes of memory that frees.
// It goes on where it ended the last time, round and round.
func (ks *Keyspace) Sink(s Sinking) (keys int, freed int64) {
	ks.Tidy(512)
	ks.dropRolls()
	type candidate struct {
		e    entry
		db   int
		idle int64
	}
	var found []candidate
	t := &ks.tier
	if t.hand.done {
		t.hand = Cursor{}
	}
	lfu := ks.evict.policy.LFU()
	ks.walk(&t.hand, s.Looks, func(db int, e entry) {
		if t.graves.flushed[db] || t.flushing[db] || !e.sinkable(s) {
			return // the tier may be about to forget it
		}
		idle := eviction.Stamp.Idle
		if lfu {
			idle = func(a, now eviction.Stamp) int64 { return a.IdleLFU(now) }
		}
		found = append(found, candidate{e, db, idle(e.access(), ks.clock)})
	})
	slices.SortFunc(found, func(a, b candidate) int { return cmp.Compare(b.idle, a.idle) })
	most := int(s.Part*float64(len(found)) + 0.999)
	for _, c := range found {
		if keys >= most {
			break
		}
		if !ks.maySink(s, c.db, c.e) {
			continue
		}
		if bytes := ks.sink(c.e); bytes > 0 {
			keys++
			freed += bytes
		}
	}
	return keys, freed
}

// maySink reports whether a key that could sink may.
func (ks *Keyspace) maySink(s Sinking, db int, e entry) bool {
	_, dug := ks.tier.taken.keys[db][string(e.Key())]
	return !dug && (s.May == nil || s.May(db, e.hash, e.Key()))
}

// sinkable reports whether the tier holds, for certain, what a key is, and that
// would be found again.
func (e entry) sinkable(s Sinking) bool {
	if e.Has(openFlag|pendingFlag) || e.expire() != 0 {
		return false
	}
	switch e.stored() {
	case held, sure:
		return e.cold() && !e.Has(objectFlag) && e.Seq() == e.stub().base
	case inlined:
		return s.Small && e.Seq() <= s.Since
	}
	return false
}

// sink takes away the record of a key, and returns how many bytes of memory that
// frees, none if it couldn't.
func (ks *Keyspace) sink(e entry) (freed int64) {
	sp, size := e.sp, e.size()
	if !e.cold() {
		dump := len(e.Value())
		if e.kind() != String {
			ks.tier.body = ks.appendDump(ks.tier.body[:0], e)
			dump = len(ks.tier.body)
		}
		size = inlineSize(len(e.Key()), dump)
	}
	if !sp.slab.Imprint(printOf(e.hash)) {
		return 0
	}
	ks.sank(sp, e.Key())
	before := sp.account
	ks.forget(e)
	ks.dropObject(e)
	ks.charge(sp, account{used: -e.bare()})
	sp.slab.Remove(e.hash, e.Rec)
	ks.charge(sp, sunkAccount(size))
	ks.Stats.Sunk++
	return before.resident() - sp.account.resident()
}

// scanSunk is Scan where keys are sunk. It gives those before the first sunk one; if
// these are fewer than count, so many more are wanted. What is settled goes without
// them: who runs it has looked before, so that there are some.
func (v *View) scanSunk(sp *space, cursor uint64, count int, fn func(key []byte, kind Kind)) (next uint64) {
	const drop = 64 - value.CursorBits
	if cursor >= 1<<value.CursorBits {
		return 0
	}
	first, any := uint64(0), false
	sp.slab.EachPrint(cursor<<drop, func(h uint64) bool { first, any = h, true; return false })
	if !any {
		return v.scan(sp, cursor, count, ^uint64(0), fn)
	}
	if first > cursor<<drop {
		next = v.scan(sp, cursor, count, first-1, func(key []byte, kind Kind) {
			count--
			fn(key, kind)
		})
		if next != 0 && next <= first>>drop {
			return next
		}
	}
	if count > 0 && !v.ks.settled {
		last := first
		sp.slab.EachPrint(first, func(h uint64) bool { last = samePrint(h); count--; return count > 0 })
		v.ks.wantRange(v.db, first, last)
	}
	return first >> drop
}

// randomSunk is Random where keys are sunk: one of these, if chance has it. It is
// wanted then, and taken when it is there.
func (v *View) randomSunk(sp *space) (key []byte, chosen bool) {
	d := &v.ks.drawn
	if d.waits && d.db == v.db {
		if sp.slab.Imprinted(d.hash) {
			if v.ks.settled {
				return nil, false
			}
			v.ks.wantRange(v.db, d.hash, samePrint(d.hash))
			return nil, true
		}
		d.waits = false
		v.scan(sp, d.hash>>(64-value.CursorBits), 1, samePrint(d.hash), func(k []byte, _ Kind) { key = k })
		if key != nil {
			return key, true
		}
	}
	if v.ks.settled || v.rng.Uint64()%uint64(sp.slab.Len()+sp.account.sunk) < uint64(sp.slab.Len()) {
		return nil, false
	}
	hash, ok := sp.slab.RandomPrint(v.rng)
	if !ok {
		return nil, false
	}
	*d = drawn{db: v.db, hash: hash, waits: true}
	v.ks.wantRange(v.db, hash, samePrint(hash))
	return nil, true
}

// drawn is the sunk key that chance has chosen for RANDOMKEY.
type drawn struct {
	db    int
	hash  uint64
	waits bool
}
