// Package engine is one database, live on this node: it runs commands in
// order, writes what they changed to the journal, and parks those that wait
// for a key.
//
// A DB is guarded by one lock. Sessions take it for a batch of commands,
// recovery, replication and checkpoints for a piece of work at a time. The
// usual taker is the loop that the database is pinned to, so the lock is
// hardly ever contended.
//
// The engine does not know whether this copy is the primary: on a replica
// nobody calls Run with a command that writes, and entries come through
// Apply. It does no I/O. Journal.Append only puts the entry in memory; the
// loop commits the journal once for a whole batch, before any of the batch's
// replies leave.
package engine

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"syscall"

	"vecino/catalog"
	"vecino/command"
	"vecino/eviction"
	"vecino/internal/invariant"
	"vecino/journal"
	"vecino/keyspace"
	"vecino/resp"
)

// Log is where entries go: a journal.
type Log interface {
	Append(entry []byte) journal.Offset
	Err() error
}

// Sink hears of every entry as soon as it has been made or applied, with the
// hash of the history up to it. The bytes are valid during the call; the lock
// of the database is held.
type Sink interface {
	Entry(pos catalog.Position, raw []byte, hash uint64)
}

// Config is what a DB is opened with.
type Config struct {
	ID       catalog.ID
	HashSeed uint64
	Log      Log
	Logger   *slog.Logger
	Rand     *rand.Rand // nil: seeded by the system
	Storage  Storage    // nil: all is in memory
}

// DB is one database on this node.
type DB struct {
	id  catalog.ID
	cfg Config

	latch
	ks     *keyspace.Keyspace
	pos    catalog.Position // of the last entry made or applied
	hash   uint64           // of the history up to pos
	clock  int64            // time of the last entry: entries never go back in time
	sink   Sink
	limits catalog.Limits
	evict  struct {
		policy  eviction.Policy
		samples int
	}
	failed error // set when a handler panicked: nothing runs any more
	state  State

	parked  parkedSet
	fetches fetches
	sleep   sleeping
	stats   Stats

	tail         journal.Offset // behind the last entry made or applied here
	firstUnsaved journal.Offset // the oldest entry that no checkpoint holds; 0: none

	// Scratch of the running command, here so that it isn't allocated.
	view keyspace.View
	args command.Args
	buf  []byte
	keys [][]byte
}

// Stats counts what a database did since it was opened.
type Stats struct {
	Commands    uint64
	Writes      uint64 // entries made here
	Applied     uint64 // entries received
	Errors      uint64
	EntryBytes  uint64
	CommandTime int64

	Full         uint64 // commands refused because the database is full
	LargeRecords uint64 // because a value would become too large

	Cold        uint64 // commands whose values weren't all in memory
	Fetches     uint64 // values asked of the tier
	FetchErrors uint64 // and databases, that couldn't be read
	Wakes       uint64
	WakeMS      int64 // how long the last took, as the Storage says
}

// New makes an empty database, as it is before its first write.
func New(cfg Config) *DB {
	if cfg.Rand == nil {
		cfg.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &DB{id: cfg.ID, cfg: cfg, ks: keyspace.New(cfg.HashSeed)}
}

// ID is the database's identity. It doesn't change.
func (db *DB) ID() catalog.ID { return db.id }

// All methods below expect the lock held.

// Position is the last write that this copy has.
func (db *DB) Position() catalog.Position { return db.pos }

// HistoryHash stands for the history up to Position: copies with the same
// position and hash have the same content.
func (db *DB) HistoryHash() uint64 { return db.hash }

// Keyspace is for looking, between commands.
func (db *DB) Keyspace() *keyspace.Keyspace { return db.ks }

// Stats are what was counted so far.
func (db *DB) Stats() *Stats { return &db.stats }

// SetSink says who hears of entries from now on, nil for nobody.
func (db *DB) SetSink(s Sink) { db.sink = s }

// SetLimits says how large the database may become, and which keys are evicted
// when it would grow beyond.
func (db *DB) SetLimits(l catalog.Limits, policy eviction.Policy) {
	db.limits, db.evict.policy = l, policy
	db.ks.SetRecordLimit(l.RecordBytes)
	db.ks.SetEviction(policy, db.evict.samples)
	if !db.MaySink() {
		db.Raise()
	}
}

// Samples is of how many keys each that is evicted is chosen.
func (db *DB) Samples() int { return cmp.Or(db.evict.samples, eviction.Samples) }

// SetSamples says of how many keys each that is evicted is chosen, 0 for the
// usual number.
func (db *DB) SetSamples(n int) {
	db.evict.samples = n
	db.ks.SetEviction(db.evict.policy, n)
}

// Err is why the database is closed, nil while it runs.
func (db *DB) Err() error { return db.failed }

// Request is one command to be run.
type Request struct {
	Client command.Client
	Row    *command.Row
	Argv   [][]byte
	Origin journal.Origin // of a command that was forwarded here
	Now    int64          // milliseconds since 1970
	Out    *resp.Writer

	// Wait is told the reply of a command that had to wait. Without it the
	// command answers as it would inside MULTI.
	Wait Waiter
	// Load is told when a command can be run that couldn't, because of what is
	// not in memory. Without it the command fails.
	Load Loader
}

var errClosed = command.Error("ERR this database was closed after an internal error; the operator's log has the details")

// Run runs a command and appends its reply to r.Out, unless the command waits
// for a key: then it returns what it waits as, and r.Wait will be told. Or it
// returns something Unrun.
func (db *DB) Run(r *Request) *Parked {
	start := len(r.Out.Buf)
	db.stats.Commands++
	err := db.run(r)
	if err == nil {
		return nil
	}
	if err == keyspace.ErrCold || err == errSleeps {
		r.Out.Buf = r.Out.Buf[:start]
		db.stats.Commands-- // it counts when it is run
		return db.unrunnable(r, err)
	}
	var block *command.Block
	if err == ErrElsewhere || err == ErrUnrun {
		r.Out.Buf = r.Out.Buf[:start]
		if err == ErrUnrun {
			db.stats.Commands--
		}
		return elsewhere
	}
	if errors.As(err, &block) {
		r.Out.Buf = r.Out.Buf[:start]
		if r.Wait == nil {
			noWait(block, r.Out)
			return nil
		}
		return db.park(r, block)
	}
	db.fail(r.Out, start, err)
	return nil
}

// ErrElsewhere is returned by a Client whose command waits for something that
// isn't a key, such as WAIT for replicas. The client sees to the reply.
var ErrElsewhere = errors.New("the client waits for something else than a key")

// ErrUnrun is returned by a Client whose command needs what isn't in memory, as
// RunAll or Await have told it. The client offers the command again.
var ErrUnrun = errors.New("the command could not be run yet")

// errSleeps is ErrCold for the whole database.
var errSleeps = errors.New("the database is not in memory")

// unrunnable parks a command that needs what isn't in memory, or has it fail.
func (db *DB) unrunnable(r *Request, why error) *Parked {
	if why == errSleeps {
		if r.Load != nil && db.cfg.Storage != nil {
			return db.Await(r.Load)
		}
		db.fail(r.Out, len(r.Out.Buf), errAsleep)
		return nil
	}
	p, err := db.cold(r)
	if err != nil {
		db.fail(r.Out, len(r.Out.Buf), err)
	}
	return p
}

// elsewhere is what Run returns for ErrElsewhere and ErrUnrun. It can't be unparked.
var elsewhere = &Parked{gone: true}

// fail takes back what a handler wrote and answers with its error.
func (db *DB) fail(out *resp.Writer, start int, err error) {
	db.stats.Errors++
	switch err {
	case command.ErrFull:
		db.stats.Full++
	case keyspace.ErrTooLarge:
		db.stats.LargeRecords++
	}
	out.Buf = out.Buf[:start]
	out.Error(command.Reply(err))
}

// noWait is the answer of a command that would wait but can't.
func noWait(b *command.Block, out *resp.Writer) {
	if b.Null {
		out.Null()
	} else {
		out.NullArray()
	}
}

// run runs one command as a transaction of its own.
func (db *DB) run(r *Request) (err error) {
	defer db.guard(&err)
	if db.failed != nil {
		return errClosed
	}
	row := r.Row
	if db.state != Awake && row.Conn == nil {
		return errSleeps
	}
	switch {
	case row.Read != nil:
		db.view = db.ks.View(r.Client.DB(), r.Now, db.cfg.Rand)
		db.lookAt(row, r.Argv)
		db.args.Start(row, r.Argv)
		if db.ks.Sunk() > 0 {
			return db.readDeep(r)
		}
		return row.Read(&db.view, &db.args, r.Out)
	case row.Write != nil:
		tx, err := db.begin(r)
		if err != nil {
			return err
		}
		db.lookAt(row, r.Argv)
		if db.wantSunk(r.Client.DB(), row, r.Argv) || severalKeys(row) && db.anyCold() && db.want(r.Client.DB(), row, r.Argv) {
			err = keyspace.ErrCold
		} else if err = db.admit(tx, row, r.Argv); err == nil {
			db.args.Start(row, r.Argv)
			err = row.Write(tx, &db.args, r.Out)
			db.settled()
		}
		if err == keyspace.ErrCold {
			// That keys have expired, or were evicted, stays so. It isn't yet
			// what the client has asked for.
			db.end(tx, journal.Origin{}, r.Now)
			return err
		}
		db.end(tx, r.Origin, r.Now)
		return err
	default:
		db.args.Start(row, r.Argv)
		return row.Conn(r.Client, &db.args, r.Out)
	}
}

// readDeep runs a command that reads where keys are sunk.
func (db *DB) readDeep(r *Request) error {
	counted := db.ks.Stats
	err := r.Row.Read(&db.view, &db.args, r.Out)
	if db.ks.Unsure() {
		db.ks.Stats = counted // it will be looked up again
		return keyspace.ErrCold
	}
	return err
}

// settled checks that a command knew of all keys whether they are there: it can't be
// run again.
func (db *DB) settled() {
	invariant.That(!db.ks.Unsure(), "a command looked up a key that it doesn't name, and which is perhaps sunk")
}

// begin opens the transaction that will be the next write.
func (db *DB) begin(r *Request) (*keyspace.Tx, error) {
	if err := db.cfg.Log.Err(); err != nil {
		return nil, command.Error("MISCONF writes are refused: " + Trouble(err) + ". Reads go on, and writes are taken again once its operator has seen to it; nothing need be restarted")
	}
	return db.ks.Begin(r.Client.DB(), r.Now, db.pos.Seq+1, db.cfg.Rand, db.parked.any()), nil
}

// Trouble words an error of the journal for a tenant, who has nothing to do with
// the names of this node's files.
func Trouble(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return "the disk of this node is full"
	case errors.Is(err, journal.ErrSyncFailed):
		return "the disk of this node failed to keep what was written"
	default:
		return "the journal of this node can't be written"
	}
}

// tidyAtOnce is how many pieces of memory a tick looks at.
const tidyAtOnce = 1000

// evictAtOnce is how many keys one command evicts at most, so that none waits
// long where a limit was lowered. The next go on, and so does Expire.
const evictAtOnce = 400

// admit makes room for a command that may take memory, or refuses it.
func (db *DB) admit(tx *keyspace.Tx, row *command.Row, argv [][]byte) error {
	if row.Traits&(command.GrowsMemory|command.TakesMemory) == 0 {
		return nil
	}
	grows := row.Has(command.GrowsMemory)
	if grows {
		if err := db.withinLimits(tx, row, argv); err != nil {
			return err
		}
	}
	return tx.MayTake(argv, grows)
}

// withinLimits evicts for a command that may grow the database, or refuses it.
func (db *DB) withinLimits(tx *keyspace.Tx, row *command.Row, argv [][]byte) error {
	if db.limits.RecordBytes > 0 {
		if err := mayGrow(tx, row, argv); err != nil {
			return err
		}
	}
	limit := db.limits.DataBytes
	if limit == 0 {
		return nil
	}
	for n := 0; db.ks.Used() >= limit && n < evictAtOnce; n++ {
		if !tx.Evict() {
			return command.ErrFull
		}
	}
	return nil
}

// mayGrow refuses a command by which a value would become larger than a record
// may be, judged by what is there and by what the command carries. Where it
// puts a value in the place of another only the new one counts; what it takes
// from other keys its handler judges.
func mayGrow(tx *keyspace.Tx, row *command.Row, argv [][]byte) error {
	total, longest := 0, 0
	for _, word := range argv {
		total += len(word)
		longest = max(longest, len(word))
	}
	if row.Has(command.Replaces) {
		return tx.Fits(longest)
	}
	return tx.MayGrow(argv[row.Keys.Last], total)
}

// end closes a transaction: what it changed becomes an entry, and commands
// that waited for a key are run.
func (db *DB) end(tx *keyspace.Tx, origin journal.Origin, now int64) {
	effects, woken := tx.End()
	if len(effects) == 0 {
		return
	}
	db.make(effects, origin, now)
	if len(woken) > 0 {
		db.wake(woken, now)
	}
}

// make turns effects that have been carried out into the next entry.
func (db *DB) make(effects []byte, origin journal.Origin, now int64) {
	db.clock = max(db.clock, now)
	db.pos.Seq++
	db.buf = journal.AppendEntry(db.buf[:0], &journal.Entry{
		DB: db.id, Epoch: db.pos.Epoch, Seq: db.pos.Seq, TimeMS: db.clock, Prev: db.hash, Origin: origin, Effects: effects,
	})
	db.stats.Writes++
	db.store(db.buf)
	db.buf = keyspace.Spare(db.buf)
}

// store hands the entry of pos to the journal and to whoever listens.
func (db *DB) store(raw []byte) {
	off := db.cfg.Log.Append(raw)
	db.tail = off + journal.Offset(len(raw))
	if db.firstUnsaved == 0 {
		db.firstUnsaved = off
	}
	db.hash = journal.Hash(db.hash, raw)
	db.stats.EntryBytes += uint64(len(raw))
	if db.sink != nil {
		db.sink.Entry(db.pos, raw, db.hash)
	}
}

// OpenEpoch makes this copy the primary of a new epoch. The epoch begins with
// an entry without effects, so that a copy that has it covers all that was
// ever written before.
func (db *DB) OpenEpoch(epoch uint32, now int64) error {
	if epoch <= db.pos.Epoch {
		return fmt.Errorf("open epoch %d of database %d: it has seen epoch %d", epoch, db.id, db.pos.Epoch)
	}
	db.pos.Epoch = epoch
	db.make(nil, journal.Origin{}, now)
	return nil
}

// RunAll runs the commands of an EXEC as one transaction, which becomes one
// entry, and appends the array of their replies. reads says that none of them
// may change data. If values are missing it runs none, and returns something
// Unrun.
func (db *DB) RunAll(r *Request, commands []Queued, reads bool) *Parked {
	start := len(r.Out.Buf)
	err := db.runAll(r, commands, reads)
	switch err {
	case nil:
		return nil
	case keyspace.ErrCold, errSleeps:
		return db.unrunnable(r, err)
	}
	db.fail(r.Out, start, err)
	return nil
}

// Queued is a command that waits for its EXEC.
type Queued struct {
	Row  *command.Row
	Argv [][]byte
}

func (db *DB) runAll(r *Request, commands []Queued, reads bool) (err error) {
	defer db.guard(&err)
	if db.failed != nil {
		return errClosed
	}
	if db.state != Awake {
		return errSleeps
	}
	if db.anyCold() {
		if db.wantAll(r, commands); len(db.ks.Wanted()) > 0 {
			return keyspace.ErrCold
		}
	}
	var tx *keyspace.Tx
	if !reads {
		if tx, err = db.begin(r); err != nil {
			return err
		}
	}
	db.ks.Settle(true)
	defer db.ks.Settle(false)
	r.Out.Array(len(commands))
	for _, q := range commands {
		db.stats.Commands++
		start := len(r.Out.Buf)
		err := db.runOne(r, tx, q)
		db.settled()
		var block *command.Block
		switch {
		case errors.As(err, &block):
			r.Out.Buf = r.Out.Buf[:start]
			noWait(block, r.Out)
		case err != nil:
			db.fail(r.Out, start, err)
		}
		if tx != nil {
			tx.EndCommand()
		}
	}
	if tx != nil {
		db.end(tx, r.Origin, r.Now)
	}
	return nil
}

// runOne runs a command inside a transaction, tx, which is nil when nothing
// can be changed.
func (db *DB) runOne(r *Request, tx *keyspace.Tx, q Queued) error {
	row := q.Row
	db.args.Start(row, q.Argv)
	switch {
	case row.Write != nil:
		tx.Select(r.Client.DB())
		if err := db.admit(tx, row, q.Argv); err != nil {
			return err
		}
		db.lookAt(row, q.Argv)
		return row.Write(tx, &db.args, r.Out)
	case row.Read != nil:
		db.view = db.ks.View(r.Client.DB(), r.Now, db.cfg.Rand)
		db.lookAt(row, q.Argv)
		return row.Read(&db.view, &db.args, r.Out)
	default:
		return row.Conn(r.Client, &db.args, r.Out)
	}
}

// guard turns a panic of a handler into an error and closes the database:
// what it left behind can't be trusted. Other databases go on.
func (db *DB) guard(err *error) {
	p := recover()
	if p == nil {
		return
	}
	db.failed = fmt.Errorf("panic: %v", p)
	db.cfg.Logger.Error("database closed", "db", uint64(db.id), "cause", fmt.Sprint(p), "stack", string(debug.Stack()))
	*err = errClosed
	db.abandon()
}

// full reports whether keys are to be evicted although no command asks for
// room, as after a limit was lowered.
func (db *DB) full() bool {
	limit := db.limits.DataBytes
	return limit > 0 && db.ks.Used() > limit && db.evict.policy != eviction.NoEviction
}

// Expire deletes up to most keys whose deadline has passed, or that a full
// database evicts, on the primary. Memory that lies in pieces it puts together,
// some at a time.
func (db *DB) Expire(now int64, most int) (deleted int) {
	if db.failed != nil {
		return 0
	}
	var err error // told by the log
	defer db.guard(&err)
	db.ks.Tidy(tidyAtOnce)
	next := db.ks.NextExpiry()
	if (next == 0 || next >= now) && !db.full() || db.cfg.Log.Err() != nil {
		return 0
	}
	tx := db.ks.Begin(0, now, db.pos.Seq+1, db.cfg.Rand, false)
	for deleted = tx.Expire(most); deleted < most && db.full() && tx.Evict(); {
		deleted++
	}
	db.end(tx, journal.Origin{}, now)
	return deleted
}

// ErrGap is returned by Apply for an entry that doesn't follow the last one:
// this copy has missed something, or its history is another.
var ErrGap = errors.New("entry does not follow the history of this copy")

// Apply carries out an entry that came from the primary or from the journal.
// raw is its encoding. keyspace.ErrNoMemory means that it can be applied later.
// newer is set while a copy that was loaded from a snapshot has not come to the
// snapshot's end; see Keyspace.ApplyNewer.
func (db *DB) Apply(e *journal.Entry, raw []byte, newer bool) error {
	if err := db.replay(e, newer); err != nil {
		return err
	}
	db.stats.Applied++
	db.store(raw)
	if wanted := db.ks.Wanted(); len(wanted) > 0 {
		db.follow(wanted)
	}
	return nil
}

// errSunk is an entry that came before the database was Whole.
var errSunk = errors.New("an entry can't be applied while keys are sunk")

func (db *DB) replay(e *journal.Entry, newer bool) (err error) {
	defer db.guard(&err)
	if db.state != Awake {
		return errSleeps
	}
	if db.ks.Sunk() > 0 {
		return errSunk
	}
	if e.Seq != db.pos.Seq+1 || e.Epoch < db.pos.Epoch || e.Prev != db.hash {
		return fmt.Errorf("%w: it has %v, the entry is %v", ErrGap, db.pos, e.Position())
	}
	db.ks.Tick(e.TimeMS)
	if newer {
		err = db.ks.ApplyNewer(e.Effects, e.Seq)
	} else {
		err = db.ks.Apply(e.Effects, e.Seq)
	}
	if err != nil {
		return err
	}
	db.pos = e.Position()
	db.clock = max(db.clock, e.TimeMS)
	return nil
}

// Recover is Apply for an entry that was read from the journal at off.
func (db *DB) Recover(off journal.Offset, e *journal.Entry, newer bool) error {
	if err := db.replay(e, newer); err != nil {
		return err
	}
	db.hash = e.Hash() // of its encoding: not of what this version would make of it
	if db.firstUnsaved == 0 {
		db.firstUnsaved = off
	}
	return nil
}

// Install throws the content away and begins at another place of the history,
// with the keys of a snapshot to be loaded into the keyspace it returns.
func (db *DB) Install(pos catalog.Position, hash uint64, clock int64) *keyspace.Keyspace {
	db.adopt(db.NewKeyspace(), pos.Seq)
	db.pos, db.hash = pos, hash
	db.clock = max(db.clock, clock)
	db.firstUnsaved = 0
	db.failed = nil
	db.state = Awake
	db.void()
	db.sleep = sleeping{}
	return db.ks
}

// Clock is the time of the last write, in milliseconds since 1970.
func (db *DB) Clock() int64 { return db.clock }

// Tail is the offset in the journal behind the last entry that was made or
// applied since the start, 0 if none was: when all before it is on disk, so is
// all of this database.
func (db *DB) Tail() journal.Offset { return db.tail }

// LogErr is why the journal takes nothing now, nil while it does.
func (db *DB) LogErr() error { return db.cfg.Log.Err() }

// FirstUnsaved is where in the journal the oldest entry stands that no
// checkpoint holds, 0 if there is none.
func (db *DB) FirstUnsaved() journal.Offset { return db.firstUnsaved }

// SetUnsaved is called with 0 when a checkpoint begins, which will hold all
// that was written before, and with what FirstUnsaved was if it failed.
func (db *DB) SetUnsaved(off journal.Offset) { db.firstUnsaved = off }
