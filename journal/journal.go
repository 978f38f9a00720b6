package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vecino/internal/invariant"
	"vecino/internal/vfs"
)

// Offset is a place in a journal, in bytes since it was made. No entry is at
// offset 0.
type Offset uint64

// Options tune a journal. The zero value is for a node in production.
type Options struct {
	// SegmentBytes is the size of a segment file. A larger one is changed less
	// often and holds on to more disk behind the last checkpoint. Default 64 MiB.
	SegmentBytes int64
	// SyncEvery is how long an entry may be in the kernel only. Smaller loses
	// less in a power cut and costs more syncs. Default 1 s; negative: no sync
	// but those that are asked for.
	SyncEvery time.Duration
	// SpareSegments is how many trimmed files are kept to be used again, which
	// spares the file system work and costs their disk space. Default 2;
	// negative: none.
	SpareSegments int
	// OnlyWanted has the background sync cover only what Want has asked for, not
	// all that was appended.
	OnlyWanted bool
	// OnSync, if set, is called after each sync with the offset before which all
	// is on disk now, in order, from whichever goroutine synced. It lets a loop
	// release what it holds until then, and must be quick. It may call
	// KickSync and nothing else of the journal.
	OnSync func(synced Offset)
	// OnSyncFailed, if set, is called when a sync has failed, under the same
	// rules: what waits for it has no end that is known.
	OnSyncFailed func(err error)
	// Log is told of cuts, and of failures in the background and their end.
	// Default: nobody.
	Log *slog.Logger
}

func (o *Options) setDefaults() error {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 64 << 20
	}
	if o.SyncEvery == 0 {
		o.SyncEvery = time.Second
	}
	if o.SpareSegments == 0 {
		o.SpareSegments = 2
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.SegmentBytes < 4*headerBytes || o.SegmentBytes%headerBytes != 0 {
		return fmt.Errorf("journal segments of %d bytes: want a multiple of %d and at least %d", o.SegmentBytes, headerBytes, 4*headerBytes)
	}
	return nil
}

var (
	// ErrClosed is returned once Close has been called.
	ErrClosed = errors.New("journal is closed")
	// ErrSyncFailed is wrapped by what every call returns from when a sync has
	// failed until the background sync has mended the journal; see the package
	// doc. The kernel may have dropped what it couldn't write, so trying the same
	// sync again would prove nothing.
	ErrSyncFailed = errors.New("journal sync failed")
	// ErrTrimmed is returned by Read for an offset that has been trimmed.
	ErrTrimmed = errors.New("journal offset has been trimmed")
)

const (
	// A frame is closed at this size, so that recovery needs no more memory
	// than this or the largest entry. Commit writes many frames at once.
	frameLimit = 1 << 20
	// A write buffer that grew larger than this is not kept.
	keepBuffer = 4 << 20
	// When no segment could be prepared, Err refuses once so much or less of the
	// present one is left, or a quarter of it: more than what is under way will need.
	reserve = 4 << 20
)

// Journal is an open journal. The order of use is Open, Replay, then all else,
// from any goroutine, and Close at the end.
//
// What has been appended goes through three stations, in order:
//
//	buf ──Commit──▶ written: in the kernel ──Sync──▶ synced: on disk
//
// One goroutine at a time writes and one syncs (writing, syncing); the others
// wait on changed and mostly find their work done when they wake. Neither holds
// mu while it does I/O.
type Journal struct {
	fs   vfs.FS
	dir  string
	opts Options

	tasks  sync.WaitGroup // the syncer and the preparer
	cancel context.CancelFunc
	kick   chan struct{} // wakes the syncer; holds one
	trim   sync.Mutex    // held over a whole TrimBefore, taken before mu

	// suspect is set while Err may have something to say. Until then it need not
	// take mu, which whoever changes something would do once more for each entry.
	suspect atomic.Bool

	mu struct {
		sync.Mutex
		state   state
		changed sync.Cond // waits on the above; at every end of a write, sync or preparation

		buf        []byte // frames not yet given to the kernel
		frames     []frame
		frameOpen  bool   // the last of frames takes more entries
		bufStart   Offset // of buf[0]
		spare      []byte // the other buffer, while it isn't being written
		spareMarks []frame
		entriesEnd Offset // behind the last entry appended

		written Offset
		synced  Offset
		proven  Offset // the highest synced that a written frame claims
		wanted  Offset // what the background sync is to have on disk

		writing   bool
		syncing   bool
		preparing bool

		segments []*segment // oldest first; the last is being written
		next     *segment   // prepared
		free     []string   // files to be used again
		full     []string   // those of free that were filled

		failed error // of the last write, until one succeeds
		noRoom error // of the last preparation, until one succeeds
		broken error // wraps ErrSyncFailed

		unmended string // why it could not be mended last time
		stats    Stats
	}
	recovered Recovery
}

// frame is one frame in the buffer.
type frame struct {
	at     int // of its head in the buffer
	length int // of its body
}

type state int

const (
	opened state = iota // Replay has not been called
	ready
	closed
)

// Stats are counters since Open, and sizes now.
type Stats struct {
	Entries  int64 // Append calls
	Bytes    int64 // written, frames and padding included
	Commits  int64 // writes that Commit made
	Syncs    int64
	Failures int64 // of writes and syncs
	Mended   int64 // failed syncs that were made up for
	Segments int   // live
	Spare    int   // files waiting to be used again
	First    Offset
	Tail     Offset
	Written  Offset
	Synced   Offset
}

// Recovery is what Replay found.
type Recovery struct {
	Entries  int64
	Segments int
	First    Offset // of the oldest segment kept
	Tail     Offset // where the journal goes on
	Cut      *Cut   // nil: it ended well
}

// Open looks at the journal in dir, which is made if it doesn't exist. Nothing
// is changed before Replay.
func Open(fs vfs.FS, dir string, opts Options) (*Journal, error) {
	if err := opts.setDefaults(); err != nil {
		return nil, err
	}
	if err := fs.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("open journal %s: %w", dir, err)
	}
	j := &Journal{fs: fs, dir: dir, opts: opts, kick: make(chan struct{}, 1)}
	j.mu.changed.L = &j.mu
	return j, nil
}

// Replay calls fn for each entry, oldest first, and makes the journal ready to
// append. It must be called once, also if nothing is to be replayed; fn may be
// nil. What the last crash has torn off is cut, see Recovered. A damaged journal
// is left as it is, and the error is a *DamageError; fn has then been called for
// all that lies before the damage. The entry's effects are valid until fn
// returns. If fn returns an error, so does Replay, and it may be called again.
func (j *Journal) Replay(fn func(off Offset, e *Entry) error) error {
	invariant.That(j.is(opened), "journal: Replay is called once, after Open")
	h, err := walk(j.fs, j.dir, func(_ *segment, off Offset, _ []byte, e *Entry) error {
		if fn == nil {
			return nil
		}
		return fn(off, e)
	})
	if err != nil {
		return err
	}
	if err := j.adopt(h); err != nil {
		return fmt.Errorf("recover journal %s: %w", j.dir, err)
	}
	for _, s := range h.segments {
		j.recovered.Entries += s.entries
	}
	j.recovered.Cut = h.cut
	if h.cut != nil {
		j.opts.Log.Info("journal tail cut", "file", h.cut.File, "at", h.cut.At, "offset", uint64(h.cut.Offset), "why", h.cut.Why, "frames", h.cut.Frames)
	}

	ctx, cancel := context.WithCancel(context.Background())
	j.cancel = cancel
	j.tasks.Go(func() { j.syncLoop(ctx) })
	return nil
}

// Recovered returns what Replay found.
func (j *Journal) Recovered() Recovery { return j.recovered }

func (j *Journal) is(s state) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.mu.state == s
}

// Append takes b, one or more whole entries as AppendEntry makes them, and
// returns the offset of the first. It only copies them to memory: nothing is
// written before Commit. Entries come out in the order in which they were
// appended. b is the caller's again.
//
// When Err is not nil, the disk doesn't take what was appended before; a caller
// should refuse to change anything rather than append more.
func (j *Journal) Append(b []byte) Offset {
	j.mu.Lock()
	if j.mu.state != ready {
		j.mu.Unlock()
		invariant.That(false, "journal: Append before Replay or after Close")
	}
	if !j.mu.frameOpen {
		j.openFrameLocked()
	}
	off := j.mu.bufStart + Offset(len(j.mu.buf))
	j.mu.buf = append(j.mu.buf, b...)
	j.mu.entriesEnd = off + Offset(len(b))
	j.mu.stats.Entries++
	if len(j.mu.buf)-j.mu.frames[len(j.mu.frames)-1].at >= frameLimit {
		j.closeFrameLocked()
	}
	j.mu.Unlock()
	return off
}

func (j *Journal) openFrameLocked() {
	j.mu.frames = append(j.mu.frames, frame{at: len(j.mu.buf)})
	j.mu.buf = append(j.mu.buf, make([]byte, frameHead)...)
	j.mu.frameOpen = true
}

func (j *Journal) closeFrameLocked() {
	f := &j.mu.frames[len(j.mu.frames)-1]
	f.length = len(j.mu.buf) - f.at - frameHead
	j.mu.buf = append(j.mu.buf, make([]byte, padded(f.length)-f.length)...)
	j.mu.frameOpen = false
}

// Commit returns when all that was appended before the call is in the kernel.
// It takes one write, whatever was appended; concurrent calls share it. After an
// error nothing is lost or half done: what was not written is tried again by the
// next Commit of anybody, the background sync's among them.
func (j *Journal) Commit() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.commitLocked()
}

func (j *Journal) commitLocked() error {
	for target := j.mu.bufStart + Offset(len(j.mu.buf)); j.mu.written < target; {
		if err := j.usableLocked(); err != nil {
			return err
		}
		if j.mu.writing {
			j.mu.changed.Wait()
			continue
		}
		if err := j.writeLocked(); err != nil {
			return err
		}
	}
	return nil
}

// usableLocked says why nothing can be written, if so.
func (j *Journal) usableLocked() error {
	if j.mu.state == closed {
		return ErrClosed
	}
	return j.mu.broken
}

// writeLocked writes the whole buffer. It gives up the lock meanwhile.
func (j *Journal) writeLocked() error {
	if j.mu.frameOpen {
		j.closeFrameLocked()
	}
	out, frames, start, synced := j.mu.buf, j.mu.frames, j.mu.bufStart, j.mu.synced
	s := j.mu.segments[len(j.mu.segments)-1]
	leave := !s.filled && j.mu.next != nil && j.mu.next.filled
	j.mu.buf, j.mu.frames = j.mu.spare[:0], j.mu.spareMarks[:0]
	j.mu.spare, j.mu.spareMarks = nil, nil
	j.mu.bufStart += Offset(len(out))
	j.mu.writing = true
	j.mu.Unlock()

	s, err := j.room(s, start, len(out), synced, leave)
	if err == nil {
		err = write(s, out, frames, start, synced)
	}

	j.mu.Lock()
	j.mu.writing = false
	j.mu.changed.Broadcast()
	if err != nil {
		// Back in front of what came in meanwhile. What did reach the file lies
		// behind its end, and will be overwritten or lie behind where the next
		// segment says that this one ended.
		for _, f := range j.mu.frames {
			frames = append(frames, frame{f.at + len(out), f.length})
		}
		j.mu.buf, j.mu.frames, j.mu.bufStart = append(out, j.mu.buf...), frames, start
		j.mu.stats.Failures++
		if j.mu.failed == nil {
			j.opts.Log.Error("journal write failed", "err", err)
		}
		j.blameLocked(&j.mu.failed, fmt.Errorf("write journal: %w", err))
		return j.mu.failed
	}
	if j.mu.failed != nil {
		j.opts.Log.Info("journal writes again", "tail", uint64(s.end))
		j.blameLocked(&j.mu.failed, nil)
	}
	s.mark(start)
	s.end = start + Offset(len(out))
	s.dirty = true
	j.mu.written = s.end
	j.mu.proven = synced
	j.mu.stats.Commits++
	j.mu.stats.Bytes += int64(len(out))
	if cap(out) <= keepBuffer {
		j.mu.spare, j.mu.spareMarks = out[:0], frames[:0]
	}
	if s.place(s.end) > j.opts.SegmentBytes/2 || !s.filled && j.mu.noRoom == nil && j.pays(s) {
		j.startPreparingLocked()
	}
	return nil
}

// write seals the frames of out and writes them at start.
func write(s *segment, out []byte, frames []frame, start, synced Offset) error {
	for i, f := range frames {
		end := len(out)
		if i+1 < len(frames) {
			end = frames[i+1].at
		}
		off := start + Offset(f.at)
		sealFrame(out[f.at:end], f.length, uint64(off-synced), s.serial, s.place(off))
	}
	_, err := s.file.WriteAt(out, s.place(start))
	return err
}

// Err says why nothing should be appended now, if so: the last write failed and
// no later one succeeded, the disk is full and little room left, or a sync has
// failed. Whoever changes something asks before, so that nothing is changed that
// may not be kept. While all is well it costs next to nothing.
func (j *Journal) Err() error {
	if !j.suspect.Load() {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usableLocked(); err != nil {
		return err
	}
	if j.mu.noRoom != nil && j.mu.failed == nil {
		s := j.mu.segments[len(j.mu.segments)-1]
		if left := j.opts.SegmentBytes - s.place(j.tailLocked()); left < min(reserve, j.opts.SegmentBytes/4) {
			return j.mu.noRoom
		}
	}
	return j.mu.failed
}

// blameLocked sets one of the errors that Err judges by, or takes it away.
func (j *Journal) blameLocked(which *error, err error) {
	*which = err
	j.suspect.Store(j.mu.failed != nil || j.mu.noRoom != nil || j.mu.broken != nil || j.mu.state == closed)
}

// Tail returns the offset that comes behind all that was appended. A checkpoint
// of everything appended so far needs nothing that lies before it.
func (j *Journal) Tail() Offset {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.tailLocked()
}

func (j *Journal) tailLocked() Offset { return j.mu.bufStart + Offset(len(j.mu.buf)) }

// Stats returns the journal's counters.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	st := j.mu.stats
	st.Segments, st.Spare = len(j.mu.segments), len(j.mu.free)
	st.Tail, st.Written, st.Synced = j.tailLocked(), j.mu.written, j.mu.synced
	if len(j.mu.segments) > 0 {
		st.First = j.mu.segments[0].record.start
	}
	return st
}

// Close commits, syncs and closes. It returns when the journal's goroutines
// have ended. An error says that not all of it reached the disk.
func (j *Journal) Close() error {
	j.mu.Lock()
	was := j.mu.state
	j.mu.Unlock()
	if was == closed {
		return nil
	}
	var err error
	if was == ready {
		j.cancel()
		j.mu.Lock()
		_ = j.mendLocked() // if it fails, Sync says why
		j.mu.Unlock()
		if err = j.Sync(); err == nil {
			if err = j.prove(); err == nil {
				err = j.Sync() // the claim itself, so that a later flipped bit in it is the only one not noticed
			}
		}
	}
	j.mu.Lock()
	j.mu.state = closed
	j.suspect.Store(true)
	j.mu.changed.Broadcast()
	j.mu.Unlock()
	j.tasks.Wait()

	j.mu.Lock()
	defer j.mu.Unlock()
	for j.mu.writing || j.mu.syncing {
		j.mu.changed.Wait()
	}
	for _, s := range append(slices.Clone(j.mu.segments), j.mu.next) {
		if s != nil && s.file != nil {
			err = errors.Join(err, s.file.Close())
			s.file = nil
		}
	}
	return err
}

func (j *Journal) path(name string) string { return filepath.Join(j.dir, name) }
