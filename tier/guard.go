package tier

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vecino/internal/pace"
)

// guard stands between Pebble and the file system.
//
// Pebble ends the process, or panics on one of its own goroutines, when it
// can't write its log (the WAL) or its list of tables (the MANIFEST). A node
// lives without its tier: memory and journal serve. So the guard keeps such
// errors from Pebble:
//
//	disk full       the call waits and is tried again until there is room.
//	                Reads don't need it. Nothing is lost: what waits is done
//	                when there is room, and the journal isn't trimmed before.
//	anything else   after a failed sync nobody knows what is on disk, so
//	                trying again would prove nothing. The tier is broken:
//	                the call never returns (its goroutine is parked for good),
//	                sessions are answered with ErrBroken, reads go on. Opening
//	                anew, that is restarting the node, goes by what is on disk.
//
// Errors on tables, also of reading them, are returned, because Pebble tries those
// again; after a pause, because it tries at once.
//
// While the tier is being opened all errors are returned, for Open to return; one
// in the background breaks the tier, because Open would wait for ever.
type guard struct {
	vfs.FS
	h     *health
	state *stateFile
}

// health is what has gone wrong.
type health struct {
	log     *slog.Logger
	opened  atomic.Bool
	waiting atomic.Int32 // calls that wait for room
	hurry   atomic.Bool  // compactions aren't slowed down
	close   func()
	closing chan struct{}
	broken  chan struct{}

	mu struct {
		sync.Mutex
		broken     error
		background error // the last of Pebble's background work, until some succeeds
		damage     error
	}
}

var (
	// ErrBroken is wrapped by what sessions return once the tier's log or list
	// of tables couldn't be written.
	ErrBroken = errors.New("the tier is broken: see that its disk is well, then restart the node")
	// ErrClosed is returned once Close has been called.
	ErrClosed = errors.New("the tier is closed")
)

func newHealth(log *slog.Logger) *health {
	h := &health{log: log, closing: make(chan struct{}), broken: make(chan struct{})}
	h.close = sync.OnceFunc(func() { close(h.closing) })
	return h
}

// fail marks the tier as broken.
func (h *health) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.broken != nil {
		return
	}
	h.mu.broken = fmt.Errorf("%w (%w)", ErrBroken, explain(err))
	close(h.broken)
	h.log.Error("tier is broken", "err", err.Error())
}

func (h *health) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.broken
}

// park never returns.
func (h *health) park() { select {} }

// setBackground notes an error of background work, nil when some succeeded.
func (h *health) setBackground(err error) {
	h.mu.Lock()
	was := h.mu.background
	h.mu.background = err
	h.mu.Unlock()
	switch {
	case err != nil && was == nil:
		h.log.Warn("tier can't work in the background", "err", err.Error())
	case err == nil && was != nil:
		h.log.Info("tier works in the background again")
	}
}

func (h *health) setDamage(err error) {
	h.mu.Lock()
	first := h.mu.damage == nil
	if first {
		h.mu.damage = err
	}
	h.mu.Unlock()
	if first {
		h.log.Error("tier is damaged", "err", err.Error())
	}
}

// pause waits, less long when the tier is being closed, which it reports.
func (h *health) pause(d time.Duration) (closing bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return false
	case <-h.closing:
		return true
	}
}

const (
	firstWait = 50 * time.Millisecond
	lastWait  = time.Second
)

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// must carries out what Pebble can't do without.
func (h *health) must(what, name string, op func() error) error {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := op()
		if err == nil {
			return nil
		}
		err = fmt.Errorf("%s %s: %w", what, filepath.Base(name), err)
		if !h.opened.Load() {
			return err
		}
		if !isFull(err) || h.err() != nil {
			h.fail(err)
			h.park()
		}
		if h.waiting.Add(1) == 1 {
			h.log.Warn("tier waits for room on its disk", "err", err.Error())
		}
		closing := h.pause(wait)
		if h.waiting.Add(-1) == 0 {
			h.log.Info("tier tries again to write")
		}
		if closing {
			h.fail(err)
			h.park()
		}
	}
}

// may carries out what Pebble can live without, but would try again at once.
func (h *health) may(op func() error) error {
	if h.err() != nil {
		h.park()
	}
	err := op()
	if err != nil {
		h.pause(firstWait)
	}
	return err
}

// damagePause is how long the reader waits who found damage.
var damagePause = 50 * time.Millisecond

func isTable(name string) bool { return strings.HasSuffix(name, ".sst") }

// do picks one of the two.
func (g *guard) do(what, name string, op func() error) error {
	if isTable(name) {
		return g.h.may(op)
	}
	return g.h.must(what, name, op)
}

// The parts of vfs.FS that change something.

func (g *guard) Create(name string, category vfs.DiskWriteCategory) (f vfs.File, err error) {
	g.aboutToMake(name)
	err = g.do("create", name, func() error {
		f, err = g.FS.Create(name, category)
		return err
	})
	if err != nil {
		return nil, err
	}
	return g.wrap(f, name, category), nil
}

// aboutToMake claims that a log is the first of this process.
func (g *guard) aboutToMake(name string) {
	if digits, ok := strings.CutSuffix(filepath.Base(name), ".log"); ok && !g.h.opened.Load() {
		g.state.logOpened(number(digits))
	}
}

func (g *guard) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (f vfs.File, err error) {
	err = g.do("open", name, func() error {
		f, err = g.FS.OpenReadWrite(name, category, opts...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return g.wrap(f, name, category), nil
}

func (g *guard) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (f vfs.File, err error) {
	g.aboutToMake(newname)
	err = g.do("reuse", newname, func() error {
		f, err = g.FS.ReuseForWrite(oldname, newname, category)
		return err
	})
	if err != nil {
		return nil, err
	}
	return g.wrap(f, newname, category), nil
}

func (g *guard) OpenDir(name string) (f vfs.File, err error) {
	err = g.h.must("open directory", name, func() error {
		f, err = g.FS.OpenDir(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &guardedFile{File: f, g: g, name: name}, nil
}

func (g *guard) Link(oldname, newname string) error {
	return g.do("link", newname, func() error { return g.FS.Link(oldname, newname) })
}

func (g *guard) Rename(oldname, newname string) error {
	return g.do("rename", newname, func() error { return g.FS.Rename(oldname, newname) })
}

func (g *guard) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := g.FS.Open(name, opts...)
	if err != nil || !isTable(name) {
		if err != nil && !isNotExist(err) {
			g.h.pause(firstWait)
		}
		return f, err
	}
	return &tableFile{f, g.h}, nil
}

func (g *guard) Unwrap() vfs.FS { return g.FS }

func (g *guard) wrap(f vfs.File, name string, category vfs.DiskWriteCategory) vfs.File {
	gf := &guardedFile{File: f, g: g, name: name, table: isTable(name)}
	base := filepath.Base(name)
	if n, ok := strings.CutPrefix(base, "MANIFEST-"); ok {
		gf.number, gf.claim = number(n), g.state.manifestSynced
	} else if n, ok := strings.CutSuffix(base, ".log"); ok {
		gf.number, gf.claim = number(n), g.state.logSynced
	}
	if category == compactionCategory {
		gf.pace = pace.New(compactionShare, func(d time.Duration) { g.h.pause(d) }, g.h.hurry.Load)
	}
	return gf
}

func number(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// guardedFile is a file that Pebble writes, or a directory that it syncs.
type guardedFile struct {
	vfs.File
	g       *guard
	name    string
	table   bool
	number  uint64
	written atomic.Int64
	claim   func(number uint64, length int64)
	pace    *pace.Pace // of a compaction
}

func (f *guardedFile) do(what string, op func() error) error {
	if f.table {
		return f.g.h.may(op)
	}
	return f.g.h.must(what, f.name, op)
}

func (f *guardedFile) Write(p []byte) (n int, err error) {
	err = f.do("write", func() error {
		m, err := f.File.Write(p[n:])
		n += m
		return err
	})
	f.written.Add(int64(n))
	if f.pace != nil && err == nil {
		f.pace.Rest()
	}
	return n, err
}

func (f *guardedFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.do("write", func() error {
		n, err = f.File.WriteAt(p, off)
		return err
	})
	return n, err
}

// Preallocate is a wish: the write will find out.
func (f *guardedFile) Preallocate(offset, length int64) error {
	_ = f.File.Preallocate(offset, length)
	return nil
}

func (f *guardedFile) Sync() error { return f.sync(f.File.Sync) }

func (f *guardedFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *guardedFile) SyncTo(length int64) (full bool, err error) {
	err = f.do("sync", func() error {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

// sync is not tried again, also when the disk is full: the kernel reports once
// what it couldn't write, and forgets it.
func (f *guardedFile) sync(op func() error) error {
	length := f.written.Load()
	err := op()
	switch {
	case err == nil:
		if f.claim != nil {
			f.claim(f.number, length)
		}
		return nil
	case f.table || !f.g.h.opened.Load():
		return err
	}
	f.g.h.fail(fmt.Errorf("sync %s: %w", filepath.Base(f.name), err))
	f.g.h.park()
	return nil
}

func (f *guardedFile) Close() error {
	err := f.File.Close()
	if err != nil && !f.table && f.g.h.opened.Load() {
		f.g.h.fail(fmt.Errorf("close %s: %w", filepath.Base(f.name), err))
		f.g.h.park()
	}
	return err
}

// tableFile is a table that is read.
type tableFile struct {
	vfs.File
	h *health
}

func (f *tableFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	if err != nil && err != io.EOF {
		f.h.pause(firstWait)
	}
	return n, err
}

// compactionCategory is how Pebble marks what compactions write.
const compactionCategory = "pebble-compaction"

// compactionShare is how much of one core compactions take, unless tidying falls behind (hurry): a node has
// better things to do on few cores. More gives back disk sooner, less leaves more to the clients.
const compactionShare = 0.5

// logger hands on what Pebble says.
type logger struct{ h *health }

var _ pebble.Logger = logger{}

func (l logger) Infof(string, ...any) {}

func (l logger) Errorf(format string, args ...any) {
	l.h.log.Warn("pebble", "says", fmt.Sprintf(format, args...))
}

// Fatalf is called when Pebble would end the process. The goroutine may hold
// locks, so it can't go on and can't end.
func (l logger) Fatalf(format string, args ...any) {
	l.h.fail(fmt.Errorf(format, args...))
	l.h.park()
}
