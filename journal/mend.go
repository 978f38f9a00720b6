package journal

import (
	"fmt"
	"slices"
	"time"
)

// This file makes up for a sync that failed; the package doc says how.

// mendLocked makes the journal good after a failed sync, if it needs it. It gives
// up the lock meanwhile. If it fails, all stays as it is.
func (j *Journal) mendLocked() error {
	for j.mu.broken != nil && j.mu.state == ready && (j.mu.writing || j.mu.syncing) {
		j.mu.changed.Wait()
	}
	if j.mu.broken == nil || j.mu.state != ready {
		return nil
	}
	j.mu.writing, j.mu.syncing = true, true
	from, end := j.mu.synced, j.mu.written
	old := slices.Clone(j.mu.segments)
	j.mu.Unlock()
	s, err := j.writeAgain(old, from, end)
	if err == nil && j.opts.OnSync != nil {
		j.opts.OnSync(end)
	}
	j.mu.Lock()
	j.mu.writing, j.mu.syncing = false, false
	j.mu.changed.Broadcast()
	if err != nil {
		if msg := err.Error(); msg != j.mu.unmended {
			j.mu.unmended = msg
			j.opts.Log.Error("journal can't be mended yet", "err", err)
		}
		return j.mu.broken
	}
	for i, was := range j.mu.segments {
		if was.superseded || was.end <= from && was.record.start < from {
			continue
		}
		if was.file != nil {
			was.file.Close() // it has failed, and is not relied upon
			was.file = nil
		}
		was.dirty = false
		if was.record.start < from {
			was.end = from
			was.marks = slices.DeleteFunc(slices.Clone(was.marks), func(off Offset) bool { return off >= from })
			continue
		}
		// Readers may be in it, so it is another one that has changed. Its file
		// is not used again.
		void := &segment{name: was.name, number: was.number, version: was.version, serial: was.serial, size: was.size, durable: true}
		void.supersede(from)
		j.mu.segments[i] = void
	}
	j.mu.segments = append(j.mu.segments, s)
	j.mu.next = nil
	j.mu.synced, j.mu.proven = end, from
	j.blameLocked(&j.mu.broken, nil)
	j.mu.unmended = ""
	j.mu.stats.Syncs++
	j.mu.stats.Mended++
	j.opts.Log.Info("journal mended", "from", uint64(from), "to", uint64(end), "segment", s.number)
	return nil
}

// writeAgain makes a segment of what the old ones hold from from to end, and has
// it on disk before it counts.
func (j *Journal) writeAgain(old []*segment, from, end Offset) (*segment, error) {
	last := old[len(old)-1]
	s, err := j.takeNext(last.number + 1)
	if err != nil {
		return nil, err
	}
	r := beginRecord{start: from, prevEnd: from, synced: from, timeMS: time.Now().UnixMilli()}
	s.record, s.marks = r, nil
	for _, o := range old {
		if o.superseded {
			continue
		}
		if o.record.start < from {
			r.follows = o.number
		}
		if o.end > from {
			if err := j.copyFrames(s, o, max(from, o.record.start), from); err != nil {
				return nil, fmt.Errorf("write journal again from %d: %w", from, err)
			}
		}
	}
	if err = s.file.Sync(); err == nil {
		_, err = s.file.WriteAt(appendRecord(nil, s.serial, r), recordAt)
	}
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil { // it may be the next one's fault now; a fresh file is tried
		s.file.Close()
		j.mu.Lock()
		j.mu.next = nil
		j.mu.Unlock()
		return nil, fmt.Errorf("write journal again from %d: %w", from, err)
	}
	s.begun, s.durable, s.record, s.end = true, true, r, end
	return s, nil
}

// copyFrames copies the frames of from that begin at off or later into s.
func (j *Journal) copyFrames(s, from *segment, off, synced Offset) error {
	f, err := j.fs.Open(from.name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := window{f: f, name: from.name, size: from.place(from.end), version: from.version}
	for off < from.end {
		fr, body, why, err := w.frame(from.serial, from.place(off))
		if err != nil {
			return err
		}
		if why != "" { // the kernel has dropped it
			return &DamageError{from.name, from.place(off), off, string(why)}
		}
		b := make([]byte, fr.size())
		copy(b[frameHead:], body)
		sealFrame(b, fr.length, uint64(off-synced), s.serial, s.place(off))
		if _, err := s.file.WriteAt(b, s.place(off)); err != nil {
			return err
		}
		s.mark(off)
		off += Offset(fr.size())
	}
	return nil
}
