package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"time"
)

// This file makes segment files, begins them, and takes them away.

// adopt makes the journal that walk has read the present one: it cuts what lies
// behind the tail, has all before it on disk, and begins a new segment. If it
// fails, or the process dies on the way, the next walk finds the same history.
func (j *Journal) adopt(h *history) error {
	for _, name := range h.temp {
		if err := j.fs.Remove(name); err != nil {
			return err
		}
	}
	for i, s := range h.segments {
		if err := j.settle(s, i == len(h.segments)-1); err != nil {
			return err
		}
	}
	j.mu.Lock()
	j.mu.free = h.free
	j.mu.Unlock()
	// The newest first and each made durable, so that never one is missing
	// between two that are there.
	for _, s := range slices.Backward(h.lost) {
		if err := j.discard(s); err != nil {
			return err
		}
	}

	kept, number := h.segments, uint64(1)
	if n := len(kept); n > 0 {
		number = kept[n-1].number + 1
		if kept[n-1].entries == 0 { // nothing is lost when the new one takes its place
			kept, number = kept[:n-1], number-1
		}
	}
	r := beginRecord{start: h.tail, synced: h.tail}
	for _, s := range kept {
		if !s.superseded {
			r.follows, r.prevEnd = s.number, s.end
		}
	}
	s, err := j.makeSegment(number, &r)
	if err != nil {
		return err
	}

	j.mu.Lock()
	defer j.mu.Unlock()
	j.mu.segments = append(kept, s)
	j.mu.bufStart, j.mu.entriesEnd = h.tail, h.tail
	j.mu.written, j.mu.synced, j.mu.proven = h.tail, h.tail, h.tail
	j.mu.state = ready
	j.recovered.Segments, j.recovered.First, j.recovered.Tail = len(kept), j.mu.segments[0].record.start, h.tail
	return nil
}

// settle makes durable what recovery has found in a segment and, in the last
// one, gives back the room behind it.
func (j *Journal) settle(s *segment, last bool) error {
	f, err := j.fs.OpenRW(s.name)
	if err != nil {
		return err
	}
	if end := s.place(s.end); last && s.size > end {
		if err = f.Truncate(end); err == nil {
			s.size = end
		}
	}
	if err == nil {
		err = f.Sync()
	}
	s.durable = true
	return errors.Join(err, f.Close())
}

// makeSegment makes a segment file of that number, from a free file if there is
// one, and begins it at once if it is given a record. When it returns, header
// and name are durable.
func (j *Journal) makeSegment(number uint64, begin *beginRecord) (*segment, error) {
	s := &segment{name: j.path(segmentName(number)), version: Version, number: number, serial: rand.Uint64()}
	from := j.path(tempName)
	j.mu.Lock()
	if n := len(j.mu.free); n > 0 {
		from = j.mu.free[n-1]
		j.mu.free = j.mu.free[:n-1]
		if i := slices.Index(j.mu.full, from); i >= 0 {
			j.mu.full = slices.Delete(j.mu.full, i, i+1)
			s.filled = true
		}
	}
	fill := !s.filled && len(j.mu.segments) > 0 && j.pays(j.mu.segments[len(j.mu.segments)-1])
	j.mu.Unlock()

	var err error
	if from == j.path(tempName) {
		s.file, err = j.fs.Create(from)
	} else {
		s.file, err = j.fs.OpenRW(from)
	}
	if err != nil {
		return nil, fmt.Errorf("make journal segment: %w", err)
	}
	if err = j.format(s, begin, fill); err == nil {
		if err = j.fs.Rename(from, s.name); err == nil {
			from = s.name
			err = j.fs.SyncDir(j.dir)
		}
	}
	if err != nil {
		s.file.Close()
		j.fs.Remove(from) // if that fails too it will be overwritten later, or removed at the next open
		return nil, fmt.Errorf("make journal segment: %w", err)
	}
	return s, nil
}

// format gives a segment's file its size and header, and syncs them.
func (j *Journal) format(s *segment, begin *beginRecord, fill bool) error {
	head := appendHeader(make([]byte, 0, headerBytes), s.number, s.serial)
	if begin != nil {
		s.begun, s.durable, s.record, s.end = true, true, *begin, begin.start
		s.record.timeMS = time.Now().UnixMilli()
		head = appendRecord(head, s.serial, s.record)
	}
	size, err := s.file.Size()
	if err == nil && size > j.opts.SegmentBytes { // a long commit made it so
		err = s.file.Truncate(j.opts.SegmentBytes)
	}
	if err == nil {
		err = s.file.Preallocate(j.opts.SegmentBytes)
	}
	if err == nil && fill {
		err = j.fill(s)
	}
	if err == nil {
		_, err = s.file.WriteAt(head[:headerBytes], 0)
	}
	if err == nil {
		err = s.file.Sync()
	}
	s.size = j.opts.SegmentBytes
	return err
}

// A sync of room that has only been allocated must also have the file system
// note that it isn't any more: on ext4 that is half of its cost, and filling the room with
// zeros beforehand spares it. It pays when a segment is synced so often as it is written.
const (
	paysFrom  = 1000 // syncs a segment
	paysAfter = 64   // as many have been seen
)

// pays reports whether segments like s should be filled beforehand.
func (j *Journal) pays(s *segment) bool {
	return s.syncs >= paysAfter && s.syncs*j.opts.SegmentBytes >= paysFrom*s.place(s.end)
}

var zeros [256 << 10]byte

// fill writes all of a segment's file, and has it on disk by and by, so that
// nobody's sync has to wait for much of it.
func (j *Journal) fill(s *segment) error {
	const together = 4 << 20
	for at := int64(0); at < j.opts.SegmentBytes; {
		n := min(j.opts.SegmentBytes-at, int64(len(zeros)))
		if _, err := s.file.WriteAt(zeros[:n], at); err != nil {
			return err
		}
		if at += n; at%together == 0 {
			if err := s.file.Sync(); err != nil {
				return err
			}
		}
	}
	s.filled = true
	return nil
}

// room returns the segment to write n bytes at start to: s, or a new one if
// they don't fit or it is to be left. Only the goroutine that is writing calls it. More bytes than
// a segment has get one of their own, which is then longer than others.
func (j *Journal) room(s *segment, start Offset, n int, synced Offset, leave bool) (*segment, error) {
	if at := s.place(start); at+int64(n) <= j.opts.SegmentBytes && !leave || at == headerBytes {
		return s, nil
	}
	next, err := j.takeNext(s.number + 1)
	if err != nil {
		return nil, err
	}
	r := beginRecord{start: start, prevEnd: s.end, synced: synced, timeMS: time.Now().UnixMilli(), follows: s.number}
	if _, err := next.file.WriteAt(appendRecord(nil, next.serial, r), recordAt); err != nil {
		return nil, fmt.Errorf("begin journal segment: %w", err)
	}
	next.begun, next.record, next.end = true, r, start
	j.mu.Lock()
	defer j.mu.Unlock()
	j.mu.next = nil
	next.dirty = true
	j.mu.segments = append(j.mu.segments, next)
	return next, nil
}

// takeNext returns the prepared segment and leaves it in j.mu.next. It waits
// for one being prepared, and prepares one if there is none.
func (j *Journal) takeNext(number uint64) (*segment, error) {
	j.mu.Lock()
	for j.mu.preparing {
		j.mu.changed.Wait()
	}
	next := j.mu.next
	j.mu.Unlock()
	if next != nil {
		return next, nil
	}
	next, err := j.makeSegment(number, nil)
	if err != nil {
		return nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.mu.next = next
	j.blameLocked(&j.mu.noRoom, nil)
	return next, nil
}

// startPreparingLocked has the next segment made in the background, so that no
// Commit waits for that. If it fails, Err says so in time, and the background
// sync tries again; so does a Commit that needs the segment.
func (j *Journal) startPreparingLocked() {
	if j.mu.next != nil || j.mu.preparing || j.mu.state != ready {
		return
	}
	j.mu.preparing = true
	number := j.mu.segments[len(j.mu.segments)-1].number + 1
	j.tasks.Go(func() {
		next, err := j.makeSegment(number, nil)
		j.mu.Lock()
		defer j.mu.Unlock()
		if err != nil && j.mu.noRoom == nil {
			j.opts.Log.Warn("journal segment not prepared", "err", err)
		}
		j.mu.next, j.mu.preparing = next, false
		j.blameLocked(&j.mu.noRoom, err)
		j.mu.changed.Broadcast()
	})
}

// TrimBefore takes away the segments all of whose entries lie before off. What
// lies at off or later stays, and often something before it. It syncs first: a
// segment is only let go when the one that becomes the first is on disk.
func (j *Journal) TrimBefore(off Offset) error {
	j.trim.Lock()
	defer j.trim.Unlock()
	if err := j.Sync(); err != nil {
		return err
	}
	for {
		s, reading := j.oldestBefore(off)
		if s == nil {
			return nil
		}
		var err error
		if reading { // whoever reads has it open and may finish, so it isn't used again
			err = j.remove(s.name)
		} else {
			err = j.discard(s)
		}
		if err != nil {
			return fmt.Errorf("trim journal: %w", err) // it stays first in line, so there can't be a gap
		}
		j.mu.Lock()
		j.mu.segments = j.mu.segments[1:]
		j.mu.Unlock()
	}
}

// oldestBefore returns the first segment, marked dead, if all in it lies before
// off and it may go.
func (j *Journal) oldestBefore(off Offset) (s *segment, reading bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.mu.state != ready || len(j.mu.segments) < 2 {
		return nil, false
	}
	s, second := j.mu.segments[0], j.mu.segments[1]
	if s.end > min(off, j.mu.synced) || s.dirty || !second.durable {
		return nil, false
	}
	if s.file != nil {
		s.file.Close() // all in it is on disk; there is nothing to lose
		s.file = nil
	}
	s.dead = true
	return s, s.reads > 0 || s.superseded
}

// discard takes a segment out of the journal, durably: its file is kept to be
// used again, or removed if there are enough. After an error it may be called
// again.
func (j *Journal) discard(s *segment) error {
	to := j.path(freeName(s.number))
	j.mu.Lock()
	keep := len(j.mu.free) < j.opts.SpareSegments && !slices.Contains(j.mu.free, to)
	j.mu.Unlock()
	if !keep {
		return j.remove(s.name)
	}
	err := j.fs.Rename(s.name, to)
	gone := errors.Is(err, fs.ErrNotExist) // by an earlier try
	if err != nil && !gone {
		return err
	}
	if err := j.fs.SyncDir(j.dir); err != nil || gone {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.mu.free = append(j.mu.free, to)
	if s.filled {
		j.mu.full = append(j.mu.full, to)
	}
	return nil
}

func (j *Journal) remove(name string) error {
	if err := j.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return j.fs.SyncDir(j.dir)
}
