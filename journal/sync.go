package journal

import (
	"context"
	"fmt"
	"time"
)

// Sync commits, and returns when all that was appended before the call is on
// disk.
func (j *Journal) Sync() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.commitLocked(); err != nil {
		return err
	}
	return j.syncLocked(j.mu.written)
}

// CommitSync commits, and returns when the entry at off, as Append returned it,
// is on disk. All who wait at the same time share one sync, or two: one that
// was under way when their entries came and one that covers them.
func (j *Journal) CommitSync(off Offset) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.mu.written <= off {
		if err := j.commitLocked(); err != nil {
			return err
		}
	}
	return j.syncLocked(off + 1)
}

// KickSync has all that is committed synced now, on the journal's own goroutine.
// It returns at once: OnSync tells when it is done. So a loop that never waits can
// hold replies until they are durable. While a sync is under way a kick is
// remembered, so one more sync covers all that was kicked for meanwhile.
func (j *Journal) KickSync() {
	select {
	case j.kick <- struct{}{}:
	default: // one is due already, and it begins later than now
	}
}

// Want asks the background sync to have all before off on disk, where
// OnlyWanted is set.
func (j *Journal) Want(off Offset) {
	j.mu.Lock()
	j.mu.wanted = max(j.mu.wanted, off)
	j.mu.Unlock()
}

// Written returns the offset before which all is in the kernel.
func (j *Journal) Written() Offset {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.mu.written
}

// Synced returns the offset before which all is on disk.
func (j *Journal) Synced() Offset {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.mu.synced
}

// syncLocked returns when all before target, which has been written, is on
// disk. It gives up the lock meanwhile.
func (j *Journal) syncLocked(target Offset) error {
	for j.mu.synced < target {
		if err := j.usableLocked(); err != nil {
			return err
		}
		if j.mu.syncing {
			j.mu.changed.Wait()
			continue
		}
		j.mu.syncing = true
		upTo := j.mu.written
		var dirty []*segment
		for _, s := range j.mu.segments {
			if s.dirty {
				dirty = append(dirty, s)
				s.dirty = false // of what is written from now on, the next sync takes care
			}
		}
		j.mu.Unlock()
		var err error
		for _, s := range dirty {
			if err = s.file.Sync(); err != nil {
				break
			}
		}
		if err == nil && j.opts.OnSync != nil {
			j.opts.OnSync(upTo)
		}
		j.mu.Lock()
		j.mu.syncing = false
		j.mu.changed.Broadcast()
		if err != nil {
			j.blameLocked(&j.mu.broken, fmt.Errorf("%w: %w", ErrSyncFailed, err))
			j.mu.stats.Failures++
			j.opts.Log.Error("journal sync failed; what was written since the last one will be written again", "synced", uint64(j.mu.synced), "err", err)
			if j.opts.OnSyncFailed != nil {
				j.opts.OnSyncFailed(j.mu.broken)
			}
			return j.mu.broken
		}
		for _, s := range dirty {
			s.durable = true
			s.syncs++
		}
		j.mu.synced = upTo
		j.mu.stats.Syncs++
		j.closeFullLocked()
	}
	return nil
}

// closeFullLocked closes the files of segments that will not be written or
// synced again.
func (j *Journal) closeFullLocked() {
	for _, s := range j.mu.segments[:len(j.mu.segments)-1] {
		if s.file != nil && !s.dirty {
			s.file.Close() // all in it is on disk; there is nothing to lose
			s.file = nil
		}
	}
}

// syncLoop syncs every SyncEvery and when kicked. It also tries again to write
// what a failed Commit has left, so a journal whose disk was full recovers also
// if nobody writes.
func (j *Journal) syncLoop(ctx context.Context) {
	var tick <-chan time.Time
	if j.opts.SyncEvery > 0 {
		ticker := time.NewTicker(j.opts.SyncEvery)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-j.kick:
			_ = j.syncWritten() // logged where it happened, and Err has it
		case <-tick:
			_ = j.syncBackground()
		}
	}
}

// syncWritten is what a kick asks for. It leaves writing to whoever commits: a
// loop would have to wait for it.
func (j *Journal) syncWritten() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.syncLocked(j.mu.written)
}

func (j *Journal) syncBackground() error {
	j.mu.Lock()
	err := j.mendLocked()
	if err == nil && j.mu.noRoom != nil {
		j.startPreparingLocked()
		for j.mu.preparing {
			j.mu.changed.Wait()
		}
	}
	if err == nil {
		err = j.commitLocked()
	}
	if err == nil {
		target := min(j.mu.entriesEnd, j.mu.written)
		if j.opts.OnlyWanted {
			target = min(target, j.mu.wanted)
		}
		err = j.syncLocked(target)
	}
	j.mu.Unlock()
	if err != nil {
		return err
	}
	return j.prove()
}

// prove has the journal say that it is on disk, if it is and nothing that was
// written since says so: see the package doc on damage.
func (j *Journal) prove() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.mu.buf) > 0 || j.mu.proven >= j.mu.entriesEnd || j.mu.synced < j.mu.entriesEnd {
		return nil
	}
	j.openFrameLocked()
	return j.commitLocked()
}
