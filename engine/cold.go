package engine

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"vecino/command"
	"vecino/eviction"
	"vecino/keyspace"
	"vecino/resp"
)

// Storage brings back what is not in memory: the values of cold keys, and the
// databases that sleep. A database without a Storage has all in memory.
//
// Both methods return at once and don't call back: they are called with the lock
// of the database held, in the middle of something.
type Storage interface {
	// Fetch reads values from the tier. For each key Fetched is called later,
	// once, whatever becomes of it. The keys may be kept.
	Fetch(db *DB, keys []keyspace.ColdKey)
	// Wake reads a whole database. Woken is called later, once.
	Wake(db *DB)
}

// A command that meets a cold key, or a sleeping database, has changed nothing
// and answered nothing. It is as if it hadn't come yet:
//
//	Run ── ErrCold ──> Storage.Fetch ── Fetched, for each key ──> Loaded: Run again
//
// Whoever called Run keeps the command where it is, with all that came behind it
// on its connection, and offers it again when Loaded is called. Other connections
// go on. The second command that needs a value joins the first's fetch.
//
// A command finds out that a value is missing by looking for it. Then all keys of
// the command are fetched at once, and those of commands behind it, if Ahead is
// told of them. Only what changes several keys is looked through before it begins:
// half of it must not be done when the other half turns out to be on disk. For the
// same reason EXEC has the keys of all its commands fetched first.
//
// Where keys are sunk (see package keyspace), a write looks first whether any that it
// names is, and a read is run again if it is Unsure. Sunk keys are fetched like values. Those
// of a range come some at a time, and stay for a while so that who asked for all of them
// finds them.

// Loader is told that a command which was not run can be offered again. err, if
// there is one, is what the command is to answer instead. The lock is held.
type Loader interface {
	Loaded(err error)
}

// load is what a command waits for that was not run.
type load struct {
	who  Loader
	left int // values that haven't come
	err  error
	pins []waitKey
}

// fetches is what is on its way from the tier.
type fetches struct {
	under  map[fetchID]*fetch
	pinned map[waitKey]int // keys that commands wait for stay in memory
	now    int64           // of the command or Fetched that runs
	prints map[print]int   // of sunk keys that are asked for
	ranges []*sinkless     // in which no key sinks

	// For values that nobody waits for.
	background int
	backlog    []keyspace.ColdKey
	listed     map[fetchID]struct{} // those in backlog
	failing    bool                 // the last fetch failed, and the log knows
}

type fetchID struct {
	db          int
	seq         uint64
	key         string
	need        string // what of it, if not all
	first, last uint64 // of a range
	names       string
	bare        bool
}

func idOf(k *keyspace.ColdKey) fetchID {
	id := fetchID{db: k.DB, seq: k.Seq, key: string(k.Key), last: k.Last, names: k.Names, bare: k.Bare}
	if k.Last != 0 {
		id.first = k.Hash
	}
	switch {
	case k.Need == nil:
	case k.Need.Empty():
		id.need = "length"
	default:
		id.need = fmt.Sprint(*k.Need)
	}
	return id
}

// print is the hashes that have the same fingerprint.
type print struct {
	db    int
	first uint64
}

func printOf(k *keyspace.ColdKey) print { return print{k.DB, k.SamePrint().Hash} }

// sinkless is a range of hashes in which no key sinks: while it is asked for, and
// then until some time.
type sinkless struct {
	db          int
	first, last uint64
	asked       bool
	until       int64
}

// stay is for how many milliseconds the keys of a range stay that was asked for: much
// longer than it takes until the command is offered again that needs them.
const stay = 1000

// fetch is one value on its way.
type fetch struct {
	who        []fetcher
	background bool
	void       bool // the content that it is for is no more

	all  keyspace.ColdKey // that was asked for; of a range some has come, perhaps
	keep *sinkless        // of a range
}

type fetcher struct {
	p   *Parked
	own bool // not of a command behind p's
}

// Unrun reports whether the command has not been run, and is to be offered again
// when its Loader is called.
func (p *Parked) Unrun() bool { return p.load != nil }

var (
	errNoStorage = command.Error("ERR a value that this command needs is not in memory, and this node has nothing to read it from; its operator must start it with the directory it was written to")
	errUnread    = command.Error("ERR the value could not be read from disk: try again; if it stays so, the operator's log says why")
)

// cold parks a command that met ErrCold, until the values are there.
func (db *DB) cold(r *Request) (*Parked, error) {
	ks := db.ks
	if r.Row != nil && r.Row.Conn == nil {
		db.want(r.Client.DB(), r.Row, r.Argv)
	}
	keys := ks.Wanted()
	db.fetches.now = r.Now
	if r.Load == nil || db.cfg.Storage == nil || len(keys) == 0 {
		return nil, errNoStorage
	}
	p := db.newLoad(r.Load)
	db.fetch(p, keys, true)
	db.stats.Cold++
	return p, nil
}

func (db *DB) newLoad(who Loader) *Parked {
	db.parked.next++
	return &Parked{load: &load{who: who}, order: db.parked.next}
}

// want adds the keys of a command whose values it needs to those wanted, if they
// are cold, and reports whether any is.
func (db *DB) want(logical int, row *command.Row, argv [][]byte) (any bool) {
	db.lookAt(row, argv)
	db.keys = row.Needs(db.keys[:0], argv)
	for _, key := range db.keys {
		if db.ks.WantCold(logical, key) {
			any = true
		}
	}
	clear(db.keys)
	return db.wantSunk(logical, row, argv) || any
}

// wantSunk adds the keys that a command names to those wanted, if they are perhaps
// sunk, and reports whether any is.
func (db *DB) wantSunk(logical int, row *command.Row, argv [][]byte) (any bool) {
	if db.ks.Sunk() == 0 || row.Blind(argv) {
		return false
	}
	db.keys = row.Keys.Of(db.keys[:0], argv)
	for _, key := range db.keys {
		if db.ks.WantSunk(logical, key) {
			any = true
		}
	}
	if row.Elsewhere != nil && len(db.keys) > 0 {
		if other, ok := row.Elsewhere(argv); ok && db.ks.WantSunk(other, db.keys[len(db.keys)-1]) {
			any = true
		}
	}
	clear(db.keys)
	return any
}

// lookAt says which elements of collections a command looks at, if it says so itself.
func (db *DB) lookAt(row *command.Row, argv [][]byte) {
	if row.Looks == nil || !db.anyCold() {
		db.ks.LookAtAll()
	} else {
		row.Looks(db.ks.LookAt(row.Write != nil), argv)
	}
}

// severalKeys reports whether a write may have changed one key when it finds out
// that another is cold.
func severalKeys(row *command.Row) bool {
	return row.Keys.Last != row.Keys.First || row.Keys.Count > 0
}

// anyCold reports whether any value is not in memory.
func (db *DB) anyCold() bool {
	n, _ := db.ks.Cold()
	return n > 0
}

// Ahead is told what comes behind a command that was not run, so that its values
// are fetched at once with the others. p, if it isn't nil, is run again when all
// are there.
func (db *DB) Ahead(p *Parked, logical int, row *command.Row, argv [][]byte) {
	if row.Conn != nil || !db.anyCold() || p != nil && p.gone || db.cfg.Storage == nil {
		return
	}
	db.ks.View(logical, db.fetches.now, nil) // forgets what was wanted
	if db.want(logical, row, argv) {
		db.stats.Cold++
		db.fetch(p, db.ks.Wanted(), false)
	}
}

// fetch has values fetched, which p waits for if it isn't nil.
func (db *DB) fetch(p *Parked, keys []keyspace.ColdKey, own bool) {
	f := &db.fetches
	if f.under == nil {
		f.under, f.pinned = make(map[fetchID]*fetch), make(map[waitKey]int)
	}
	var ask []keyspace.ColdKey
	for i := range keys {
		id := idOf(&keys[i])
		value := f.under[id]
		if value == nil {
			value = &fetch{all: keys[i]}
			f.under[id] = value
			f.asks(value, 1)
			ask = append(ask, keys[i])
		}
		if p != nil {
			p.load.left++
			value.who = append(value.who, fetcher{p, own})
			if keys[i].Last == 0 {
				pin := waitKey{id.db, id.key}
				p.load.pins = append(p.load.pins, pin)
				f.pinned[pin]++
			}
		}
	}
	if len(ask) > 0 {
		db.stats.Fetches += uint64(len(ask))
		db.cfg.Storage.Fetch(db, ask)
	}
}

// asks notes that sunk keys are asked for, or with -1 that the answer has come.
func (f *fetches) asks(value *fetch, by int) {
	switch k := &value.all; {
	case k.Seq != 0 || k.Names != "":
	case k.Last == 0:
		if f.prints == nil {
			f.prints = make(map[print]int)
		}
		p := printOf(k)
		if f.prints[p] += by; f.prints[p] == 0 {
			delete(f.prints, p)
		}
	case by > 0:
		value.keep = &sinkless{db: k.DB, first: k.SamePrint().Hash, last: k.Last, asked: true}
		f.ranges = append(f.ranges, value.keep)
	default:
		value.keep.asked, value.keep.until = false, f.now+stay
	}
}

// Fetched is called by the Storage with what it has read of a key: nil, and no
// error, if the tier has no such record.
func (db *DB) Fetched(now int64, k keyspace.ColdKey, w *keyspace.Warm, err error) {
	f := &db.fetches
	id := idOf(&k)
	value := f.under[id]
	if value == nil {
		return
	}
	delete(f.under, id)
	f.now = now
	if next := w.Next(); next != 0 && err == nil && !value.void && db.failed == nil {
		if err = db.goOn(value, k, w, next); err == nil {
			return
		}
	}
	f.asks(value, -1)
	if value.background {
		f.background--
	}
	var told error
	if !value.void && db.failed == nil {
		told = db.restore(now, &k, &value.all, w, err, !value.background || len(value.who) > 0)
	}
	for _, w := range value.who {
		l := w.p.load
		l.left--
		if w.own && l.err == nil {
			l.err = told
		}
		if l.left == 0 {
			db.loaded(w.p)
		}
	}
	db.catchUp()
}

// goOn takes a part of a range, and asks for the rest.
func (db *DB) goOn(value *fetch, k keyspace.ColdKey, w *keyspace.Warm, next uint64) (err error) {
	defer db.guard(&err)
	if err := db.ks.Restore(k, w); err != nil {
		return err
	}
	if next <= k.Hash || next > k.Last {
		return errOther
	}
	k.Hash = next
	f := &db.fetches
	if other := f.under[idOf(&k)]; other != nil { // somebody else asked for just that
		other.who = append(other.who, value.who...)
		f.asks(value, -1)
		return nil
	}
	f.under[idOf(&k)] = value
	db.cfg.Storage.Fetch(db, []keyspace.ColdKey{k})
	return nil
}

// restore puts a value back, or the last keys of a range, where all is what was asked
// for. The error is what those are told who wait.
func (db *DB) restore(now int64, k, all *keyspace.ColdKey, w *keyspace.Warm, err error, asked bool) (told error) {
	defer db.guard(&told)
	if err == nil {
		if err = db.ks.Restore(*k, w); err == nil && db.ks.Needs(all) {
			err = errOther // asking again would give the same
		}
	}
	f := &db.fetches
	if err == nil || !db.ks.Needs(all) {
		f.failing = false
		if asked && k.Last == 0 { // else it would be the first to go again
			view := db.ks.View(k.DB, now, db.cfg.Rand)
			counted := db.ks.Stats
			view.Touch(k.Key)
			db.ks.Stats = counted
		}
		return nil
	}
	if errors.Is(err, keyspace.ErrNoMemory) {
		return keyspace.ErrNoMemory
	}
	db.stats.FetchErrors++
	if !f.failing {
		f.failing = true
		db.cfg.Logger.Warn("a value can't be read from the tier", "db", uint64(db.id), "err", err.Error())
	}
	return errUnread
}

var errOther = errors.New("the tier holds another value of a key than the one that was put there last")

// loaded has a command offered again, unless its client is gone.
func (db *DB) loaded(p *Parked) {
	if p.gone {
		return
	}
	db.unload(p)
	p.load.who.Loaded(p.load.err)
}

// unload ends a wait for values.
func (db *DB) unload(p *Parked) {
	p.gone = true
	pinned := db.fetches.pinned
	for _, pin := range p.load.pins {
		if pinned[pin]--; pinned[pin] == 0 {
			delete(pinned, pin)
		}
	}
	p.load.pins = nil
}

// unrun lists the commands that wait for values or for the database, in the order
// in which they came.
func (db *DB) unrun() []*Parked {
	waiting := make(map[*Parked]struct{})
	for _, value := range db.fetches.under {
		for _, w := range value.who {
			if !w.p.gone {
				waiting[w.p] = struct{}{}
			}
		}
	}
	for _, p := range db.sleep.waiting {
		if !p.gone {
			waiting[p] = struct{}{}
		}
	}
	return slices.SortedFunc(maps.Keys(waiting), func(a, b *Parked) int { return cmp.Compare(a.order, b.order) })
}

// void says that the content is another now. What is on its way is for none of
// it; those who wait look again.
func (db *DB) void() {
	f := &db.fetches
	f.backlog, f.listed = nil, nil
	if len(f.under)+len(db.sleep.waiting) == 0 {
		return
	}
	waiting := db.unrun()
	for _, value := range f.under {
		value.who, value.void = nil, true
	}
	db.sleep.waiting = nil
	for _, p := range waiting {
		db.loaded(p)
	}
}

// Offload is Keyspace.Offload, for keys that nobody waits for.
func (db *DB) Offload(logical int, hash uint64, key []byte, seq uint64) (freed int64) {
	if db.state != Awake {
		return 0
	}
	if len(db.fetches.pinned) > 0 && db.fetches.pinned[waitKey{logical, string(key)}] > 0 {
		return 0
	}
	if db.parked.n > 0 && db.parked.needs[waitKey{logical, string(key)}] > 0 {
		return 0
	}
	return db.ks.Offload(logical, hash, key, seq)
}

// Sink is Keyspace.Sink, for keys that nobody waits for or asks for. The keeper of a
// primary calls it: see Raise.
func (db *DB) Sink(s keyspace.Sinking, now int64) (keys int, freed int64) {
	if db.state != Awake || db.failed != nil || !db.MaySink() {
		return 0, 0
	}
	db.endRanges(now)
	s.May = db.maySink
	return db.ks.Sink(s)
}

// Leave has guests leave memory, of the first n that came those that weren't used again, and
// returns how many values and how many keys left, and how many bytes that frees. Those
// that were sunk before sink again, at a primary, where keys may sink. See Keyspace.Leave.
func (db *DB) Leave(n int, since uint64, primary bool, now int64) (values, keys int, freed int64) {
	if db.state != Awake || db.failed != nil {
		return 0, 0, 0
	}
	db.endRanges(now)
	sinks := primary && db.MaySink()
	// A guest has come from the tier as it is, however late it was written.
	sinking := keyspace.Sinking{Since: ^uint64(0), Small: true, May: db.maySink}
	db.ks.Leave(n, since, func(c *keyspace.Candidate, sunk bool) {
		if c.Clean {
			if bytes := db.Offload(c.DB, c.Hash, c.Key, c.Seq); bytes > 0 {
				freed += bytes
				values++
			}
		}
		if sunk && sinks {
			if bytes := db.ks.SinkKey(sinking, c.DB, c.Hash, c.Key); bytes > 0 {
				freed += bytes
				keys++
			}
		}
	})
	return values, keys, freed
}

// endRanges lets keys sink again that are in ranges which nobody asks for any more.
func (db *DB) endRanges(now int64) {
	f := &db.fetches
	f.ranges = slices.DeleteFunc(f.ranges, func(r *sinkless) bool { return !r.asked && r.until <= now })
}

func (db *DB) maySink(logical int, hash uint64, key []byte) bool {
	f, k := &db.fetches, keyspace.ColdKey{DB: logical, Hash: hash}
	if len(f.prints) > 0 && f.prints[printOf(&k)] > 0 {
		return false
	}
	for _, r := range f.ranges {
		if r.db == logical && r.first <= hash && hash <= r.last {
			return false
		}
	}
	w := waitKey{logical, string(key)}
	return f.pinned[w] == 0 && db.parked.needs[w] == 0
}

// MaySink reports whether keys may sink at all: not where others are evicted, which
// are chosen among those with a record.
func (db *DB) MaySink() bool {
	return db.cfg.Storage != nil && (db.limits.DataBytes == 0 || db.evict.policy == eviction.NoEviction)
}

// Raise has all sunk keys surface. A copy that applies entries has none.
func (db *DB) Raise() {
	if keys := db.sunk(); len(keys) > 0 {
		db.fetch(nil, keys, false)
	}
}

// sunk is what to ask for where all sunk keys are to surface.
func (db *DB) sunk() (keys []keyspace.ColdKey) {
	if db.state != Awake || db.failed != nil || db.cfg.Storage == nil || db.ks.Sunk() == 0 {
		return nil
	}
	for logical := range keyspace.Databases {
		if db.ks.SunkIn(logical) > 0 {
			keys = append(keys, keyspace.WantAll(logical))
		}
	}
	return keys
}

// Whole reports whether the database is awake and no key is sunk, so that entries can
// be applied.
func (db *DB) Whole() bool { return db.state == Awake && db.ks.Sunk() == 0 }

// AwaitWhole has who told when the database is Whole, or couldn't be made so. It
// returns nil if it is.
func (db *DB) AwaitWhole(who Loader) *Parked {
	if keys := db.sunk(); len(keys) > 0 {
		p := db.newLoad(who)
		db.fetch(p, keys, true)
		return p
	}
	return db.Await(who)
}

// AwaitKeys has who told when it can be said for certain whether keys are there, of
// logical databases. It returns nil if it can.
func (db *DB) AwaitKeys(who Loader, now int64, keys iter.Seq2[int, []byte]) *Parked {
	if db.state != Awake || db.ks.Sunk() == 0 || db.cfg.Storage == nil {
		return nil
	}
	db.fetches.now = now
	db.ks.View(0, now, nil) // forgets what was wanted
	for logical, key := range keys {
		db.ks.WantSunk(logical, key)
	}
	if len(db.ks.Wanted()) == 0 {
		return nil
	}
	p := db.newLoad(who)
	db.fetch(p, db.ks.Wanted(), true)
	db.stats.Cold++
	return p
}

// mostBackground is how many values are on their way at a time that nobody waits
// for.
const mostBackground = 32

// follow fetches the values of keys that effects were applied to, so that these
// don't gather.
func (db *DB) follow(keys []keyspace.ColdKey) {
	if db.cfg.Storage == nil {
		return
	}
	f := &db.fetches
	for i := range keys {
		id := idOf(&keys[i])
		if _, listed := f.listed[id]; listed || f.under[id] != nil {
			continue
		}
		if f.listed == nil {
			f.listed = make(map[fetchID]struct{})
		}
		f.listed[id] = struct{}{}
		f.backlog = append(f.backlog, keys[i])
	}
	db.catchUp()
}

// catchUp fetches what is in the backlog, some at a time.
func (db *DB) catchUp() {
	f := &db.fetches
	if len(f.backlog) == 0 || db.failed != nil || db.state != Awake {
		return
	}
	n, room := 0, mostBackground-f.background
	var next []keyspace.ColdKey
	for n < len(f.backlog) && len(next) < room {
		k := f.backlog[n]
		n++
		delete(f.listed, idOf(&k))
		if db.ks.Needs(&k) && f.under[idOf(&k)] == nil {
			next = append(next, k)
		}
	}
	f.backlog = f.backlog[n:]
	if len(f.backlog) == 0 {
		f.backlog = nil
	}
	if len(next) > 0 {
		db.fetch(nil, next, false)
		for i := range next {
			f.under[idOf(&next[i])].background = true
		}
		f.background += len(next)
	}
}

// Loading is how many values are on their way from the tier.
func (db *DB) Loading() int { return len(db.fetches.under) }

// retrier runs a command again that waits for a key, when the values that it met
// on the way are there.
type retrier struct {
	db *DB
	p  *Parked
}

func (r retrier) Loaded(err error) {
	db, p := r.db, r.p
	switch {
	case p.gone:
	case err != nil:
		db.parked.remove(p)
		db.fail(&p.out, 0, err)
		p.req.Wait.Served(p.out.Buf)
	default:
		now := db.fetches.now
		db.wake(db.retry(p, now), now)
	}
}

// wantAll adds the keys of a transaction's commands to those wanted. Where several of
// them are about a list, all of it is: where they say that they look, the ones before may
// have moved something else.
func (db *DB) wantAll(r *Request, commands []Queued) {
	var found []keyspace.ColdKey
	if db.ks.Sunk() > 0 {
		found = db.tryAll(r, commands)
	}
	lists := make(map[waitKey]struct{})
	db.ks.View(r.Client.DB(), r.Now, nil) // forgets what was wanted
	eachQueued(r, commands, func(logical int, q *Queued) {
		if q.Row.Conn != nil {
			return
		}
		db.want(logical, q.Row, q.Argv)
		if p := db.ks.LooksAt(); p == nil || len(p.Spans) == 0 {
			return
		}
		db.ks.LookAtAll()
		for _, key := range q.Row.Keys.Of(nil, q.Argv) {
			k := waitKey{logical, string(key)}
			if _, again := lists[k]; again {
				db.ks.WantCold(logical, key)
			}
			lists[k] = struct{}{}
		}
	})
	for _, k := range found {
		db.ks.Want(k)
	}
}

// tryAll runs those of a transaction's commands that name no keys, to find out which
// they need.
func (db *DB) tryAll(r *Request, commands []Queued) (wanted []keyspace.ColdKey) {
	eachQueued(r, commands, func(logical int, q *Queued) {
		if q.Row.Read == nil || q.Row.Keys != command.NoKeys || db.ks.SunkIn(logical) == 0 {
			return
		}
		out := resp.Writer{Proto: r.Out.Proto}
		db.view = db.ks.View(logical, r.Now, db.cfg.Rand)
		db.args.Start(q.Row, q.Argv)
		_ = q.Row.Read(&db.view, &db.args, &out)
		wanted = append(wanted, db.ks.Wanted()...)
	})
	return wanted
}

// eachQueued calls fn for the commands of a transaction, each with the logical
// database that it will run in.
func eachQueued(r *Request, commands []Queued, fn func(logical int, q *Queued)) {
	logical := r.Client.DB()
	for i := range commands {
		q := &commands[i]
		if q.Row == selectRow && len(q.Argv) == 2 {
			if n, ok := resp.ParseInt(q.Argv[1]); ok && n >= 0 && n < keyspace.Databases {
				logical = int(n)
			}
		}
		fn(logical, q)
	}
}

var selectRow = command.Find([]byte("SELECT"))
