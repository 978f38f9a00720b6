// Package keyspace holds the keys of one tenant's database: lookup, expiry,
// memory, and the record of what changed. A View reads it, a Tx changes it.
//
// The engine is the only caller. It owns the lock: a Keyspace, its Views and
// its Txs are used by one goroutine at a time. It also hands in the time and
// the source of random numbers, so that a command is a function of its
// arguments and of what is here.
//
// A Tx writes down each change as an *effect*: typed, absolute (a deadline,
// not a time to live; the member that SPOP chose, not the wish for one), and
// about one key, without reading any. Replicas and recovery apply effects;
// they never run commands. effect.go draws the encoding.
//
// Every key carries the sequence number of its last change. That makes a copy
// of a database that is taken while it changes useful: keys are written out a
// few at a time, each with its number, and whoever loads them then applies
// the log from where the copy began, leaving out for each key the effects
// that it already contains (Loader). Checkpoints and the snapshot for a fresh
// replica are the same thing.
//
// Records lie outside the Go heap, in package slab: the key, what is known of
// it, and as its value the bytes of a string or of a small collection. Only big
// collections are Go objects. record.go draws this and says how a command
// borrows a small one.
package keyspace

import (
	"errors"

	"vecino/eviction"
	"vecino/slab"
	"vecino/value"
)

// Databases is the number of logical databases of a tenant, as SELECT counts
// them.
const Databases = 16

// ErrWrongType is returned when a key holds another type than was asked for.
// Its text is Redis's.
var ErrWrongType = errors.New("WRONGTYPE Operation against a key holding the wrong kind of value")

// Kind is the type of a value.
type Kind uint8

const (
	None Kind = iota
	String
	HashKind
	ListKind
	SetKind
	ZSetKind
)

// String gives the name that TYPE answers.
func (k Kind) String() string {
	switch k {
	case String:
		return "string"
	case HashKind:
		return "hash"
	case ListKind:
		return "list"
	case SetKind:
		return "set"
	case ZSetKind:
		return "zset"
	}
	return "none"
}

// Stats counts what has happened in a keyspace.
type Stats struct {
	Hits, Misses        uint64 // of lookups by reading commands
	Expired, Evicted    uint64 // keys
	Offloaded, Restored uint64 // values let go, and values that came back
	Sunk                uint64 // keys, of which the record was let go, too
	Blind               uint64 // sunk keys that were written without a look at the tier
}

// Keyspace is the keys of one tenant.
type Keyspace struct {
	Stats Stats

	seed    uint64
	spaces  [Databases]*space // nil while never written
	account account           // of all spaces together
	tombs   *tombstones
	flushed [Databases]flushed
	born    uint64
	tx      Tx   // the only one, used again and again
	running bool // it has begun and not ended
	desk    desk

	clock  eviction.Stamp // when the last command ran
	evict  evictor
	large  largeKeys
	wanted []ColdKey // by the last command
	look   look      // what the present one looks at
	// prepared is the space that has memory ready for what is going on.
	prepared *space
	unsure   bool // the last command looked for a key that is perhaps sunk
	drawn    drawn
	rolls    map[rollID]*roll
	// settled says that a command can't be run again: see Settle.
	settled bool
	tier    tierState
	// inTx says that the transaction has changed something, so that its
	// command can't be run again.
	inTx bool
	// longest is how long a patch may make a string. It is all that effects
	// can make this copy allocate beyond their own length.
	longest int64
}

// space is one logical database.
type space struct {
	slab    *slab.Space
	objects objects             // its big collections
	pending map[string]*pending // on cold keys
	account account
	made    uint64 // the last write that made a key
}

// find looks a key up.
func (sp *space) find(hash uint64, key []byte) entry {
	return entry{sp.slab.Find(hash, key), sp, hash}
}

// at is the entry of a record.
func (sp *space) at(r slab.Rec) entry {
	if r == 0 {
		return entry{}
	}
	return entry{r, sp, sp.slab.Hash(r.Key())}
}

// account is what is known without counting.
type account struct {
	used     int64 // bytes of keys and values, wherever they are
	away     int64 // of these, bytes that are only in the tier
	pending  int64 // bytes of effects that wait for values
	coldKeys int
	sunk     int   // keys without a record
	sunkUsed int64 // what these count for in used
	blind    int   // of these, keys that have been written since: see blind.go
}

func (a *account) add(b account, sign int64) {
	a.used += sign * b.used
	a.away += sign * b.away
	a.pending += sign * b.pending
	a.coldKeys += int(sign) * b.coldKeys
	a.sunk += int(sign) * b.sunk
	a.sunkUsed += sign * b.sunkUsed
	a.blind += int(sign) * b.blind
}

// resident is how many bytes are in memory.
func (a *account) resident() int64 { return a.used - a.away + a.pending }

// charge changes the account of a space, and of all.
func (ks *Keyspace) charge(sp *space, by account) {
	sp.account.add(by, 1)
	ks.account.add(by, 1)
}

// New makes an empty keyspace. The seed keys its hashes; all copies of a
// database share it, so that a SCAN cursor means the same on each.
func New(seed uint64) *Keyspace {
	return &Keyspace{seed: seed, longest: MaxString, large: largeKeys{from: largeFrom}}
}

// Used is how many bytes keys and values take, wherever they are. The plan's
// limit is about this.
func (ks *Keyspace) Used() int64 {
	_, bytes := ks.account.twice()
	return ks.account.used - bytes
}

// Resident is how many bytes are in memory.
func (ks *Keyspace) Resident() int64 {
	return ks.account.resident()
}

// Cold is how many keys have their value only in the tier, sunk ones among them, and
// how many bytes that saves.
func (ks *Keyspace) Cold() (keys int, bytes int64) {
	keys, bytes = ks.account.twice()
	return ks.account.coldKeys + ks.account.sunk - keys, ks.account.away - bytes
}

// Stubs is how many keys have their record in memory and their value only in the
// tier.
func (ks *Keyspace) Stubs() int { return ks.account.coldKeys }

// Tick tells the time, in milliseconds since 1970, where no command does:
// what is applied and loaded counts as used then.
func (ks *Keyspace) Tick(now int64) { ks.clock = eviction.At(now) }

// Hash is the hash by which key is looked up.
func (ks *Keyspace) Hash(key []byte) uint64 { return value.Hash64(ks.seed, key) }

// Touch is the keys of a pipeline that are about to be looked up.
type Touch struct {
	hashes  [64]uint64
	found   [64]slab.Rec
	members [64]member
	lookups [64]value.Lookup
	n       int
	sink    uint64
}

// member is what a command may look up in a big collection: its first word behind
// the key, which is a field of a hash or a member of a set, and its last, which is
// a member of a sorted set.
type member struct{ first, last []byte }

// Add adds a key; there is room for 64. words is what comes behind it in the
// command, and kept until Load.
func (t *Touch) Add(ks *Keyspace, key []byte, words [][]byte) {
	if t.n < len(t.hashes) {
		t.hashes[t.n] = ks.Hash(key)
		t.members[t.n] = member{}
		if n := len(words); n > 0 {
			t.members[t.n] = member{words[0], words[n-1]}
		}
		t.n++
	}
}

// Load loads what the lookups will need, in steps: the slots of all keys, then
// the entries, then keys and values, then the same for elements of big collections.
// The cache misses of a step overlap, where lookups one after the other would wait for
// each. Then it is empty again.
func (t *Touch) Load(ks *Keyspace, db int) {
	n := t.n
	t.n = 0
	sp := ks.spaces[db]
	if sp == nil || n < 2 {
		return
	}
	hashes, found := t.hashes[:n], t.found[:n]
	sum := t.sink
	for _, hash := range hashes {
		sum += sp.slab.Approach(hash)
	}
	for i, hash := range hashes {
		found[i] = sp.slab.Touch(hash)
	}
	for i, r := range found {
		if r != 0 {
			sum += r.Seq()
		} else {
			sum += sp.slab.ApproachInsert(hashes[i])
		}
	}
	for _, r := range found {
		if r == 0 {
			continue
		}
		if key := r.Key(); len(key) > 0 {
			sum += uint64(key[0])
		}
		if val := r.Value(); len(val) > 0 {
			sum += uint64(val[0])
		}
	}
	if len(sp.objects.list) > 0 {
		sum += t.loadMembers(sp, found)
	}
	t.sink = sum
}

// loadMembers is Load for elements of the big collections that were found.
func (t *Touch) loadMembers(sp *space, found []slab.Rec) (sum uint64) {
	lookups := t.lookups[:0]
	for i, r := range found {
		if r != 0 && r.Has(objectFlag) {
			lookups = append(lookups, t.members[i].lookup(&sp.objects.list[entry{Rec: r}.number()].collection))
		}
	}
	for _, l := range lookups {
		sum += uint64(l.Approach())
	}
	for _, l := range lookups {
		sum += uint64(l.Touch())
	}
	clear(lookups) // nobody's collection is held on to
	return sum
}

// lookup is the look-up of a member in a big collection.
func (m *member) lookup(c *collection) value.Lookup {
	switch {
	case m.first == nil:
	case c.h != nil:
		return c.h.Lookup(m.first)
	case c.s != nil:
		return c.s.Lookup(m.first)
	case c.z != nil:
		return c.z.Lookup(m.last)
	}
	return value.Lookup{}
}

// Len is the number of keys of a logical database, expired ones that nobody
// has looked at yet included, as DBSIZE has it.
func (ks *Keyspace) Len(db int) int {
	if sp := ks.spaces[db]; sp != nil {
		twice, _ := sp.account.twice()
		return sp.slab.Len() + sp.account.sunk - twice
	}
	return 0
}

// Has reports whether a key is there at a time.
func (ks *Keyspace) Has(db int, key []byte, now int64) bool {
	v := View{ks: ks, db: db, now: now}
	return v.find(key).there()
}

// Keys is the number of keys in all logical databases.
func (ks *Keyspace) Keys() int {
	n := 0
	for db := range ks.spaces {
		n += ks.Len(db)
	}
	return n
}

// Expires is the number of keys of a logical database that have a deadline.
func (ks *Keyspace) Expires(db int) int {
	if sp := ks.spaces[db]; sp != nil {
		return sp.slab.Timed()
	}
	return 0
}

// NextExpiry is the earliest deadline of all keys, or 0 when none has one.
func (ks *Keyspace) NextExpiry() int64 {
	next := int64(0)
	for _, sp := range ks.spaces {
		if sp == nil {
			continue
		}
		if r, at := sp.slab.Next(); r != 0 && (next == 0 || at < next) {
			next = at
		}
	}
	return next
}

func (ks *Keyspace) space(db int) *space {
	sp := ks.spaces[db]
	if sp == nil {
		sp = &space{slab: slab.New(ks.seed)}
		ks.spaces[db] = sp
	}
	return sp
}

// Clear lets all keys go, as if there had never been any: what has been loaded
// is half of something, and its memory is wanted at once.
func (ks *Keyspace) Clear() {
	for db, sp := range ks.spaces {
		if sp != nil {
			sp.slab.Close()
			ks.spaces[db] = nil
		}
	}
	ks.account = account{}
	ks.tier.blind, ks.tier.guests, ks.tier.ghosts = nil, guests{}, ghosts{}
	ks.prepared = nil
}

// Expect readies an empty logical database for about so many keys.
func (ks *Keyspace) Expect(db, keys int) {
	if db >= 0 && db < Databases {
		ks.space(db).slab.Expect(keys)
	}
}

// add puts a new key, made by the write seq, in the table. key and val are
// copied.
func (ks *Keyspace) add(sp *space, hash uint64, key, val []byte, kind Kind, seq uint64, deadline int64) entry {
	e := entry{must(sp.slab.Insert(hash, key, val, len(val), uint8(kind), deadline)), sp, hash}
	e.SetSeq(seq)
	e.SetClock(uint32(ks.newStamp()))
	sp.made = max(sp.made, seq)
	ks.charge(sp, account{used: e.bare()})
	return e
}

// drop takes a key out of the table and out of the account.
func (ks *Keyspace) drop(db int, e entry) {
	ks.shut(e)
	ks.forget(e)
	if e.stored() != unstored {
		ks.tier.graves.dig(db, e.hash, e.Key())
	}
	ks.owe(db, e)
	ks.dropObject(e)
	ks.charge(e.sp, account{used: -e.bare()})
	e.sp.slab.Remove(e.hash, e.Rec)
}

// noteLarge takes note of a key whose value has become large.
func (ks *Keyspace) noteLarge(e entry) {
	if size := e.size(); size > int64(ks.large.from) {
		ks.large.note(e.Key())
	}
}

// Tidy puts records together where much of the memory lies in pieces, if no
// transaction runs, and reports whether there is more to do. It looks at about so many
// pieces, of which a thousand take some 100 µs. What views have given is void afterwards.
func (ks *Keyspace) Tidy(pieces int) (more bool) {
	if ks.running {
		return false
	}
	for _, sp := range ks.spaces {
		if sp != nil && sp.slab.Compact(pieces) {
			more = true
		}
	}
	return more
}

// tidySome does some of what Tidy does, where something changes.
func (ks *Keyspace) tidySome(db int) {
	if sp := ks.spaces[db]; sp != nil && sp.slab.Loose() {
		sp.slab.Compact(16)
	}
}

// Memory is what a keyspace takes of the process, in bytes.
type Memory struct {
	Held    int64 // by records, keys and tables, with what lies idle between them
	Idle    int64 // of which so much waits for records, or for Tidy
	Objects int64 // by big collections
}

// Memory tells what memory is taken, which Used and Resident know by key.
func (ks *Keyspace) Memory() (m Memory) {
	for _, sp := range ks.spaces {
		if sp == nil {
			continue
		}
		s := sp.slab.Stats()
		m.Held += s.Held
		m.Idle += s.Held - s.Live
		m.Objects += sp.objects.bytes
	}
	return m
}

// tombstones remember when keys were last deleted, by a few bits of their
// hash. WATCH needs it: a watched key that is gone must have been gone when
// it was watched. Two keys in one place can only make a transaction fail that
// might have passed.
type tombstones struct {
	seq [256]uint64
}

func (ks *Keyspace) bury(hash, seq uint64) {
	if ks.tombs == nil {
		ks.tombs = new(tombstones)
	}
	ks.tombs.seq[hash>>56] = seq
}

// flushed remembers the last FLUSHDB of a logical database, in place of a
// tombstone for each of its keys: those would have to be looked at one by one.
type flushed struct {
	seq  uint64 // of the flush
	made uint64 // the last write before it that made a key
}

// ChangedSince reports whether a key may have been changed, made or deleted
// by a write after seq. It is never wrong in saying no. That a key has expired
// doesn't count: Redis forgives it to a transaction that watched a key whose
// time was up already. Whoever cares remembers whether the key was there; if
// it wasn't, AppearedSince tells more.
func (ks *Keyspace) ChangedSince(db int, key []byte, seq uint64) bool {
	changed, there := ks.changedSince(db, key, seq)
	return changed || !there && ks.flushed[db].seq > seq
}

// AppearedSince is ChangedSince for a key of which it is known that it was not
// there after the write seq. To flush what isn't there doesn't change it.
func (ks *Keyspace) AppearedSince(db int, key []byte, seq uint64) bool {
	changed, there := ks.changedSince(db, key, seq)
	return changed || !there && ks.flushed[db].made > seq
}

func (ks *Keyspace) changedSince(db int, key []byte, seq uint64) (changed, there bool) {
	hash := ks.Hash(key)
	if sp := ks.spaces[db]; sp != nil {
		if r := sp.slab.Find(hash, key); r != 0 {
			return r.Seq() > seq, true
		}
	}
	return seq < ks.born || ks.tombs != nil && ks.tombs.seq[hash>>56] > seq, false
}

// BornAt says that this keyspace begins with what a snapshot, or the tier,
// holds of all writes up to seq: of what they deleted it knows nothing.
func (ks *Keyspace) BornAt(seq uint64) { ks.born = seq }
