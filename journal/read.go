package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"

	"vecino/internal/vfs"
)

// Read calls fn for each entry from offset from on that was committed when Read
// was called, in order, and returns the offset to read on from. raw is the entry
// as it was appended; it and the effects are valid until fn returns. It reads
// files, so a loop leaves it to a goroutine. TrimBefore may run meanwhile: Read
// either finishes or returns ErrTrimmed.
func (j *Journal) Read(from Offset, fn func(off Offset, raw []byte, e *Entry) error) (next Offset, err error) {
	j.mu.Lock()
	if j.mu.state != ready {
		j.mu.Unlock()
		return from, ErrClosed
	}
	i := sort.Search(len(j.mu.segments), func(i int) bool { return j.mu.segments[i].record.start > from }) - 1
	if i < 0 || j.mu.segments[i].dead {
		j.mu.Unlock()
		return from, fmt.Errorf("read journal from %d: %w", from, ErrTrimmed)
	}
	segments := slices.Clone(j.mu.segments[i:])
	stretches := make([]stretch, len(segments))
	for i, s := range segments {
		s.reads++
		m := max(0, sort.Search(len(s.marks), func(i int) bool { return s.marks[i] > from })-1)
		stretches[i] = stretch{segment: s, from: s.record.start, end: s.end}
		if len(s.marks) > 0 {
			stretches[i].from = s.marks[m]
		}
	}
	end := max(from, j.mu.written)
	j.mu.Unlock()
	defer func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		for _, s := range segments {
			s.reads--
		}
	}()
	for _, st := range stretches {
		if from, err = st.read(j.fs, from, fn); err != nil {
			return from, err
		}
	}
	return end, nil
}

// open opens the segment's file for reading.
func (st stretch) open(fsys vfs.FS) (vfs.File, error) {
	f, err := fsys.Open(st.name)
	if errors.Is(err, fs.ErrNotExist) { // only trimming takes it away
		err = ErrTrimmed
	}
	if err != nil {
		return nil, fmt.Errorf("read journal from %d: %w", st.from, err)
	}
	return f, nil
}

// stretch is a part of a segment that doesn't change any more. It begins and
// ends between frames.
type stretch struct {
	*segment
	from, end Offset
}

// read calls fn for the entries from offset from on, and returns the offset
// behind the last.
func (st stretch) read(fsys vfs.FS, from Offset, fn func(off Offset, raw []byte, e *Entry) error) (Offset, error) {
	if st.from == st.end {
		return from, nil
	}
	f, err := st.open(fsys)
	if err != nil {
		return from, err
	}
	defer f.Close()
	w := window{f: f, name: st.name, size: st.place(st.end), version: st.version}
	var e Entry
	for off := st.from; off < st.end; {
		fr, body, why, err := w.frame(st.serial, st.place(off))
		if err != nil {
			return from, err
		}
		if why != "" {
			return from, &DamageError{st.name, st.place(off), off, string(why)}
		}
		for at := off + frameHead; len(body) > 0; {
			var n int
			e, n, err = decodeEntry(body, false) // its frame was checked
			if err != nil {
				return from, fmt.Errorf("read journal at byte %d of %s: %w", st.place(at), st.name, errors.Join(ErrDamaged, err))
			}
			if at >= from {
				if err := fn(at, body[:n:n], &e); err != nil {
					return from, err
				}
				from = at + Offset(n)
			}
			body, at = body[n:], at+Offset(n)
		}
		off += Offset(fr.size())
	}
	return from, nil
}
