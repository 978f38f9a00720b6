package engine

import (
	"errors"

	"vecino/catalog"
	"vecino/command"
	"vecino/keyspace"
)

// State is whether a database is in memory.
type State uint8

const (
	Awake State = iota
	Asleep
	Waking // the Storage reads it
)

func (s State) String() string { return [...]string{"awake", "asleep", "waking"}[s] }

// A database that nobody uses sleeps: its keys are in the tier, every one, and
// here is only what a stranger may ask of it without waking it: where its history
// stands, when its next key expires, how large it is.
//
//	awake ── Sleep ──> asleep ── a command, Rouse ──> waking ── Woken ──> awake
//	                      ^                             |
//	                      +────────── an error ─────────+
//
// What wants more waits, as for a value. Entries must not come before it is awake:
// whoever has some calls Rouse and waits.

// sleeping is what is known of a database that isn't awake.
type sleeping struct {
	waiting []*Parked
	next    int64 // deadline
	sizes   Sizes
}

// Sizes is how large a database is, also while it sleeps.
type Sizes struct {
	Keys      int64
	Used      int64 // bytes of keys and values, wherever they are
	Resident  int64 // bytes in memory
	ColdKeys  int
	Sunk      int // of these, keys of which not even the record is in memory
	ColdBytes int64
	Spaces    []Space // the logical databases that have keys
}

// Space is the size of a logical database.
type Space struct{ DB, Keys, Expires int }

var (
	errAsleep   = command.Error("ERR this database is not in memory, and this node has nothing to read it from; its operator must start it with the directory it was written to")
	errNotWoken = command.Error("ERR the database could not be read from disk: try again; if it stays so, the operator's log says why")
)

// State says whether the database is in memory. While it isn't, Keyspace is empty.
func (db *DB) State() State { return db.state }

// NewKeyspace makes an empty keyspace for the database, for Woken. It can be called
// without the lock.
func (db *DB) NewKeyspace() *keyspace.Keyspace { return keyspace.New(db.cfg.HashSeed) }

// HashSeed is the seed of the database's hashes, for keyspace.Thaw.
func (db *DB) HashSeed() uint64 { return db.cfg.HashSeed }

// Sleep lets all keys go, of which the tier holds what they are now, and reports
// whether that could be: not while commands wait, or while the journal has what the
// tier hasn't.
func (db *DB) Sleep() bool {
	if db.state != Awake || db.cfg.Storage == nil || db.failed != nil || db.firstUnsaved != 0 || db.parked.any() || len(db.unrun()) > 0 {
		return false
	}
	db.void()
	db.sleep = sleeping{next: db.ks.NextExpiry(), sizes: db.Sizes()}
	db.sleep.sizes.ColdKeys, db.sleep.sizes.ColdBytes = int(db.sleep.sizes.Keys), db.sleep.sizes.Used
	db.sleep.sizes.Resident, db.sleep.sizes.Sunk = 0, 0
	counted := db.ks.Stats
	db.ks = db.NewKeyspace()
	db.ks.Stats = counted
	db.state = Asleep
	db.view, db.args = keyspace.View{}, command.Args{}
	db.buf, db.keys = nil, nil
	return true
}

// Put makes the database one that sleeps, as the tier holds it: what a start of the
// node begins with.
func (db *DB) Put(pos catalog.Position, hash uint64, clock, next int64, sizes Sizes) {
	db.Install(pos, hash, clock)
	db.sleep = sleeping{next: next, sizes: sizes}
	db.state = Asleep
}

// NextExpiry is the earliest deadline of all keys, 0 when none has one. Whoever put
// the database to sleep calls Rouse when it has come.
func (db *DB) NextExpiry() int64 {
	if db.state != Awake {
		return db.sleep.next
	}
	return db.ks.NextExpiry()
}

// Sizes is how large the database is.
func (db *DB) Sizes() Sizes {
	if db.state != Awake {
		return db.sleep.sizes
	}
	ks := db.ks
	s := Sizes{Keys: int64(ks.Keys()), Used: ks.Used(), Resident: ks.Resident()}
	s.ColdKeys, s.ColdBytes = ks.Cold()
	s.Sunk = ks.Sunk()
	for n := range keyspace.Databases {
		if keys := ks.Len(n); keys > 0 {
			s.Spaces = append(s.Spaces, Space{n, keys, ks.Expires(n)})
		}
	}
	return s
}

// Rouse wakes the database if it sleeps.
func (db *DB) Rouse() {
	if db.state == Asleep && db.cfg.Storage != nil {
		db.state = Waking
		db.cfg.Storage.Wake(db)
	}
}

// Await has who told when the database is awake, or couldn't be woken. It returns
// nil if it is awake.
func (db *DB) Await(who Loader) *Parked {
	if db.state == Awake {
		return nil
	}
	db.Rouse()
	p := db.newLoad(who)
	db.sleep.waiting = append(db.sleep.waiting, p)
	return p
}

// Woken is called by the Storage with what it has read: the keys of the tier, in a
// keyspace that NewKeyspace made.
func (db *DB) Woken(now int64, ks *keyspace.Keyspace, err error) {
	if db.state != Waking {
		return
	}
	db.fetches.now = now
	var told error
	if err != nil {
		db.state = Asleep
		if told = errNotWoken; errors.Is(err, keyspace.ErrNoMemory) {
			told = keyspace.ErrNoMemory
		}
		db.stats.FetchErrors++
		db.cfg.Logger.Warn("a database can't be read from the tier", "db", uint64(db.id), "err", err.Error())
	} else {
		db.state = Awake
		ks.Stats = db.ks.Stats
		db.adopt(ks, db.pos.Seq)
		db.stats.Wakes++
	}
	waiting := db.sleep.waiting
	db.sleep.waiting = nil
	if err == nil {
		db.sleep = sleeping{}
	}
	for _, p := range waiting {
		p.load.err = told
		db.loaded(p)
	}
}

// adopt makes ks the content.
func (db *DB) adopt(ks *keyspace.Keyspace, born uint64) {
	ks.SetEviction(db.evict.policy, db.evict.samples)
	ks.SetRecordLimit(db.limits.RecordBytes)
	ks.BornAt(born)
	db.ks = ks
}
