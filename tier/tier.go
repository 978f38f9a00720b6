package tier

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	stateName   = "TIER"
	incomingDir = "incoming"
	pebbleDir   = "db"
)

// Options tune a tier. The zero value is for a node in production.
type Options struct {
	// FS is where the tier lives. Default: the operating system's files.
	FS vfs.FS
	// CacheBytes is how much memory holds blocks of tables. More saves reading
	// and checking a block (5 µs from the page cache, 80 from the disk) when
	// values that were read lately are read again; the values themselves the
	// node keeps. What memory tables occupy comes off it. Default 16 MiB.
	CacheBytes int64
	// MemBytes is how much of what small sessions wrote is held in memory before
	// it becomes a table; up to four times as much while the disk is slow. More
	// saves compactions when databases change a little, often. Default 8 MiB.
	MemBytes int64
	// BulkBytes is how large a session is that is written as tables of its own.
	// Default 256 KiB, see DESIGN.md.
	BulkBytes int
	// Quiet begins with compactions standing still; see Tier.Quiet.
	Quiet bool
	// Log is told what goes wrong, and what was found at open. Default: nobody.
	Log *slog.Logger
}

func (o *Options) setDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 16 << 20
	}
	if o.MemBytes == 0 {
		o.MemBytes = 8 << 20
	}
	if o.BulkBytes == 0 {
		o.BulkBytes = 256 << 10
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Tier is an open tier. All methods may be called from any goroutine; those
// that read or commit may wait for the disk.
type Tier struct {
	dir    string
	opts   Options
	pebble *pebble.Options
	db     *pebble.DB
	cache  *pebble.Cache
	h      *health
	state  *stateFile

	tag      atomic.Uint64 // of the last session that was begun; the first is random
	incoming atomic.Uint64 // number of the last table of an open session
	users    sync.RWMutex  // held for reading by whoever uses db, for writing by Close
	closed   bool          // under users
	commit   struct {
		sync.Mutex
		last uint64 // number of the last small session, as it stands in the log
	}

	compact *scheduler
	wake    chan struct{} // something happened that the minder should look at
	tasks   sync.WaitGroup

	count struct {
		reads, found, heads                atomic.Int64
		small, bulk, puts, deletes         atomic.Int64
		parts, smallBytes, bulkBytes, drop atomic.Int64
	}
}

// Open opens the tier in dir, or makes one.
func Open(dir string, opts Options) (_ *Tier, err error) {
	opts.setDefaults()
	t := &Tier{dir: dir, opts: opts, h: newHealth(opts.Log), wake: make(chan struct{}, 1)}
	t.compact = newScheduler(t.look)
	t.compact.quiet.Store(opts.Quiet)
	defer func() {
		if err != nil {
			if t.state != nil {
				t.state.close()
			}
			err = fmt.Errorf("open tier %s: %w", dir, err)
		}
	}()
	fs := opts.FS
	if err := makeDir(fs, dir); err != nil {
		return nil, err
	}
	var last claim
	if t.state, last, err = openState(fs, dir, opts.Log); err != nil {
		return nil, err
	}
	if err := verifyClaims(fs, dir, last); err != nil {
		return nil, err
	}
	incoming := fs.PathJoin(dir, incomingDir)
	if err := fs.RemoveAll(incoming); err != nil && !isNotExist(err) {
		return nil, err
	}
	if err := makeDir(fs, incoming); err != nil {
		return nil, err
	}
	if err := t.openPebble(); err != nil {
		return nil, explain(err)
	}
	session, err := t.lastSession()
	if err == nil && session < last.session {
		err = &DamageError{fs.PathJoin(dir, pebbleDir), fmt.Sprintf("session %d was on disk, and the last that is there is %d", last.session, session)}
	}
	if err != nil {
		t.db.Close()
		t.cache.Unref()
		return nil, err
	}
	t.commit.last = session
	t.tag.Store(rand.Uint64() >> 1)
	t.h.opened.Store(true)
	t.tasks.Go(t.mind)
	return t, nil
}

// openPebble opens Pebble on a goroutine of its own: when Pebble would have
// ended the process, that is where it hangs.
func (t *Tier) openPebble() error {
	t.cache = pebble.NewCache(t.opts.CacheBytes)
	t.pebble = t.pebbleOptions()
	if err := t.verifyOptions(); err != nil {
		t.cache.Unref()
		return err
	}
	type result struct {
		db  *pebble.DB
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil {
				r.err = fmt.Errorf("%v", p)
			}
			done <- r
		}()
		r.db, r.err = pebble.Open(t.opts.FS.PathJoin(t.dir, pebbleDir), t.pebble)
	}()
	select {
	case r := <-done:
		t.db = r.db
		if r.err != nil {
			t.cache.Unref()
		}
		return r.err
	case <-t.h.broken:
		return t.h.err()
	}
}

// verifyOptions checks the file in which Pebble keeps its options. It has no
// checksum; but what Pebble compares of it can only differ by damage, since one
// Version of the tier always has the same.
func (t *Tier) verifyOptions() error {
	fs, dir := t.opts.FS, t.opts.FS.PathJoin(t.dir, pebbleDir)
	desc, err := pebble.Peek(dir, fs)
	if isNotExist(err) || err == nil && desc.OptionsFilename == "" {
		return nil
	}
	if err != nil {
		return err
	}
	b, err := readFile(fs, desc.OptionsFilename)
	if err != nil {
		return err
	}
	if err := t.pebble.CheckCompatibility(dir, string(b)); err != nil {
		return &DamageError{desc.OptionsFilename, err.Error()}
	}
	return nil
}

func (t *Tier) pebbleOptions() *pebble.Options {
	o := &pebble.Options{
		FS:                          &guard{FS: t.opts.FS, h: t.h, state: t.state},
		Cache:                       t.cache,
		Logger:                      logger{t.h},
		FormatMajorVersion:          formatMajorVersion,
		MemTableSize:                uint64(t.opts.MemBytes),
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0CompactionFileThreshold:   500,
		L0StopWritesThreshold:       200, // nobody waits for sessions; reads go through bloom filters
		LBaseMaxBytes:               64 << 20,
		MaxOpenFiles:                500,
		BytesPerSync:                1 << 20,
		WALBytesPerSync:             1 << 20,
		CompactionConcurrencyRange:  func() (lower, upper int) { return 1, 1 },
		FlushDelayDeleteRange:       10 * time.Second,
	}
	o.Experimental.CompactionScheduler = t.compact
	o.Experimental.IngestSplit = func() bool { return true }
	o.Experimental.ReadSamplingMultiplier = -1 // no compactions because of reads
	o.Experimental.FileCacheShards = 2
	for i := range o.Levels {
		o.Levels[i].BlockSize = blockSize
		o.Levels[i].IndexBlockSize = 64 << 10
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].FilterType = pebble.TableFilter
	}
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return compression })
	for i := range o.TargetFileSizes {
		o.TargetFileSizes[i] = min(int64(4<<20)<<i, tableBytes)
	}
	o.EventListener = t.listener()
	o.EnsureDefaults()
	return o
}

const (
	formatMajorVersion = pebble.FormatTableFormatV6
	blockSize          = 8 << 10
	tableBytes         = 64 << 20
)

var compression = pebble.DBCompressionNone

// listener is told by Pebble what happens. It must not call Pebble.
func (t *Tier) listener() *pebble.EventListener {
	var flushed atomic.Pointer[error] // of the last flush; flushes come one at a time
	l := &pebble.EventListener{
		BackgroundError: func(err error) {
			if flush := flushed.Load(); flush != nil && err == *flush && !t.h.opened.Load() {
				t.h.fail(err)
			}
			t.h.setBackground(explain(err))
		},
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			t.h.setDamage(&DamageError{info.Path, fmt.Sprint(info.Details)})
			t.h.pause(damagePause) // Pebble reads again at once what it wants to know of a table
		},
		FlushEnd: func(info pebble.FlushInfo) {
			flushed.Store(&info.Err)
			if info.Err == nil {
				t.h.setBackground(nil)
			}
			t.look()
		},
		CompactionEnd: func(info pebble.CompactionInfo) {
			if info.Err == nil {
				t.h.setBackground(nil)
			}
			t.look()
		},
		TableIngested: func(pebble.TableIngestInfo) { t.look() },
	}
	l.EnsureDefaults(nil)
	return l
}

// look wakes the minder.
func (t *Tier) look() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// mind watches over compactions: those that fall behind aren't slowed down. And
// it sees to it that claims don't stay in memory for long.
func (t *Tier) mind() {
	tick := time.NewTicker(claimSyncEvery)
	defer tick.Stop()
	for {
		select {
		case <-t.h.closing:
			return
		case <-t.h.broken:
			return
		case <-tick.C:
			t.state.sync()
			t.compact.grant()
			continue
		case <-t.wake:
		}
		t.compact.grant()
		m := t.db.Metrics()
		behind := m.ReadAmp() > hurryReadAmp || m.Compact.EstimatedDebt > max(hurryDebt, uint64(m.DiskSpaceUsage()/4))
		t.h.hurry.Store(behind)
	}
}

// claimSyncEvery is for how long damage may go unnoticed that comes together
// with a power cut.
const claimSyncEvery = time.Second

// Compactions are behind when a read may have to look into more tables than
// hurryReadAmp, or when a quarter of the disk, and more than hurryDebt, waits to
// be tidied up.
const (
	hurryReadAmp = 24
	hurryDebt    = 1 << 30
)

// enter begins a use of db; leave ends it.
func (t *Tier) enter() error {
	t.users.RLock()
	if t.closed {
		t.users.RUnlock()
		return ErrClosed
	}
	return nil
}

func (t *Tier) leave() { t.users.RUnlock() }

// write runs an operation that may end in Pebble wanting to end the process.
func (t *Tier) write(op func() error) error {
	if err := t.h.err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				t.h.fail(fmt.Errorf("%v", p))
			}
		}()
		done <- op()
	}()
	select {
	case err := <-done:
		return explain(err)
	case <-t.h.broken:
		return t.h.err()
	}
}

// Quiet has compactions stand still, or go on: while a node starts, it has better
// use for its cores.
func (t *Tier) Quiet(quiet bool) {
	t.compact.quiet.Store(quiet)
	t.look()
}

// lastSession reads the number of the last session.
func (t *Tier) lastSession() (uint64, error) {
	v, c, err := t.db.Get(sessionKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, explain(err)
	}
	defer c.Close()
	if len(v) != 8 {
		return 0, &DamageError{t.dir, "the number of the last session can't be read"}
	}
	return binary.BigEndian.Uint64(v), nil
}

// explain turns Pebble's errors on damage into ours.
func explain(err error) error {
	if err == nil || !pebble.IsCorruptionError(err) {
		return err
	}
	if info := pebble.ExtractDataCorruptionInfo(err); info != nil {
		return &DamageError{info.Path, err.Error()}
	}
	return &DamageError{"(named behind)", err.Error()}
}

// Stats are sizes now, and counters since Open.
type Stats struct {
	DiskBytes      int64 // of all files
	Tables         int64
	MemBytes       int64 // not yet in tables
	CacheBytes     int64
	CacheHits      int64 // blocks
	CacheMisses    int64
	CompactionDebt int64 // bytes that wait to be compacted
	ReadAmp        int   // tables that a read may have to look into
	Compactions    int64
	Compacting     bool
	WrittenBytes   int64 // to tables, compactions included
	Reads          int64 // Get calls
	Found          int64
	Heads          int64 // records that Heads gave
	SmallSessions  int64
	BulkSessions   int64
	Puts           int64
	Parts          int64 // written
	Deletes        int64
	Full           bool  // something waits for room on the disk
	Background     error // why flushes or compactions fail at the moment
	Damage         error // the first that was found
	Broken         error // why no session is taken any more
}

// Stats returns the tier's counters.
func (t *Tier) Stats() Stats {
	s := Stats{
		Reads: t.count.reads.Load(), Found: t.count.found.Load(), Heads: t.count.heads.Load(),
		SmallSessions: t.count.small.Load(), BulkSessions: t.count.bulk.Load(),
		Puts: t.count.puts.Load(), Parts: t.count.parts.Load(), Deletes: t.count.deletes.Load(),
		Full: t.h.waiting.Load() > 0,
	}
	t.h.mu.Lock()
	s.Background, s.Damage, s.Broken = t.h.mu.background, t.h.mu.damage, t.h.mu.broken
	t.h.mu.Unlock()
	if s.Broken != nil || t.enter() != nil {
		return s
	}
	defer t.leave()
	m := t.db.Metrics()
	s.DiskBytes = int64(m.DiskSpaceUsage())
	for _, l := range m.Levels {
		s.Tables += l.TablesCount
		s.WrittenBytes += int64(l.TableBytesFlushed + l.TableBytesCompacted + l.TableBytesIngested)
	}
	s.MemBytes = int64(m.MemTable.Size)
	s.CacheBytes, s.CacheHits, s.CacheMisses = m.BlockCache.Size, m.BlockCache.Hits, m.BlockCache.Misses
	s.CompactionDebt = int64(m.Compact.EstimatedDebt)
	s.ReadAmp = m.ReadAmp()
	s.Compactions, s.Compacting = m.Compact.Count, m.Compact.NumInProgress > 0
	return s
}

// Flush makes tables of what is in memory.
func (t *Tier) Flush() error {
	if err := t.enter(); err != nil {
		return err
	}
	defer t.leave()
	return t.write(t.db.Flush)
}

// Compact tidies up all there is. For measuring and tests.
func (t *Tier) Compact() error {
	if err := t.enter(); err != nil {
		return err
	}
	defer t.leave()
	return t.write(func() error {
		return t.db.Compact(context.Background(), []byte{0}, []byte{0xff}, false)
	})
}

// Close ends the tier. Sessions that were committed without sync are synced.
// It waits for calls that are under way, and must not be called while a Writer
// is open.
func (t *Tier) Close() error {
	t.h.close() // ends waits for room
	t.users.Lock()
	defer t.users.Unlock()
	if t.closed {
		return ErrClosed
	}
	t.closed = true
	err := t.write(func() error {
		t.tasks.Wait()
		if err := t.db.LogData(nil, pebble.Sync); err != nil {
			return err
		}
		return t.db.Close()
	})
	if !errors.Is(err, ErrBroken) {
		t.cache.Unref()
	}
	if e := t.state.close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("close tier %s: %w", t.dir, err)
	}
	return nil
}
