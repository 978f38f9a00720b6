package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"vecino/internal/vfs"
)

// This file reads a journal as a program before us left it, and decides where
// its history ends. It changes nothing. The package doc says by which rules.

// ErrDamaged is wrapped by the DamageError that Replay, Read and Verify return.
var ErrDamaged = errors.New("journal is damaged")

// A DamageError says that bytes which had been on disk are not there any more.
// It takes an operator to decide what to do: a copy of this database elsewhere
// is whole, or a backup is.
type DamageError struct {
	File   string
	At     int64  // in File
	Offset Offset // in the journal; the history before it is whole
	Why    string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("journal is damaged at byte %d of %s (offset %d): %s", e.At, e.File, e.Offset, e.Why)
}

func (e *DamageError) Unwrap() error { return ErrDamaged }

// A Cut is what the last crash left behind the end of the history and recovery
// gave up: it had never been synced.
type Cut struct {
	File   string
	At     int64 // in File
	Offset Offset
	Why    string
	Frames int // whole ones behind the place, lost with it
}

func (c Cut) String() string {
	return fmt.Sprintf("cut at byte %d of %s (offset %d): %s; %d whole frames behind it given up", c.At, c.File, c.Offset, c.Why, c.Frames)
}

// segment is one segment file.
type segment struct {
	name    string // with its directory
	number  uint64
	version uint32
	serial  uint64
	begun   bool
	record  beginRecord
	end     Offset // behind its last frame
	size    int64  // of the file
	entries int64
	marks   []Offset // of frames, about every markEvery bytes, for Read

	// Only in a live journal, under its lock.
	file    vfs.File // of the segment being written, and of those not yet synced
	dirty   bool     // written to since the last sync
	durable bool     // its begin record is on disk
	filled  bool     // all blocks of its file have been written once
	syncs   int64    // since it was begun
	reads   int      // Reads going on, which keep the file from being used again
	dead    bool     // being trimmed

	superseded bool // a later one has taken its entries over; it begins and ends where that begins
}

const markEvery = 1 << 20

// place returns where in the file an offset is.
func (s *segment) place(off Offset) int64 { return headerBytes + int64(off-s.record.start) }

// mark remembers that a frame begins at off.
func (s *segment) mark(off Offset) {
	if n := len(s.marks); n == 0 || off-s.marks[n-1] >= markEvery {
		s.marks = append(s.marks, off)
	}
}

// history is what walk found.
type history struct {
	segments []*segment // oldest first, without gap, all begun
	lost     []*segment // behind the end: given up, or prepared and not begun
	free     []string   // with the directory
	temp     []string
	tail     Offset
	claimed  Offset // something in it says that all before was on disk
	cut      *Cut
}

// visit is called for each entry of a journal, in order; raw is the entry as
// encoded. What it is given is valid until it returns.
type visit func(s *segment, off Offset, raw []byte, e *Entry) error

// walk reads the journal in dir from its first segment to its end.
func walk(fsys vfs.FS, dir string, fn visit) (*history, error) {
	h, all, err := survey(fsys, dir)
	if err != nil {
		return nil, err
	}
	supersede(all)
	first := true
	for i, s := range all {
		if s.superseded {
			h.segments = append(h.segments, s)
			continue
		}
		if first && !s.begun { // the first one is never a segment whose begin record wasn't synced
			return nil, &DamageError{s.name, recordAt, 0, "the begin record has a wrong check sum"}
		}
		first = false
		limit, ends := Offset(0), false // where the next segment says that s ended
		if next := follower(all[i+1:]); next != nil && next.begun {
			limit, ends = next.record.prevEnd, true
		}
		why, err := h.readSegment(fsys, s, limit, ends, fn)
		if err != nil {
			return nil, err
		}
		if s.begun {
			h.segments = append(h.segments, s)
			h.tail = s.end
		}
		if why == endsHere {
			continue
		}
		rest := slices.DeleteFunc(slices.Clone(all[i:]), func(s *segment) bool { return s.superseded })
		if err := h.endAt(fsys, rest, why); err != nil {
			return nil, err
		}
		if !s.begun {
			h.lost = append(h.lost, s)
		}
		h.lost = append(h.lost, all[i+1:]...)
		break
	}
	return h, nil
}

// supersede marks the segments whose entries a later one has taken over.
func supersede(all []*segment) {
	for i := len(all) - 1; i >= 0; i-- {
		s := all[i]
		if !s.begun || s.superseded || s.record.follows >= s.number {
			continue
		}
		for k := i - 1; k >= 0 && all[k].number > s.record.follows; k-- {
			all[k].supersede(s.record.prevEnd)
		}
	}
}

func (s *segment) supersede(by Offset) {
	s.superseded, s.begun = true, true
	s.record.start, s.end = by, by
}

// follower returns the first of rest that means something.
func follower(rest []*segment) *segment {
	for _, s := range rest {
		if !s.superseded {
			return s
		}
	}
	return nil
}

// survey lists the journal's files and reads the heads of its segments.
func survey(fsys vfs.FS, dir string) (*history, []*segment, error) {
	names, err := fsys.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("list journal %s: %w", dir, err)
	}
	h := &history{}
	var all []*segment
	for _, name := range names {
		path := filepath.Join(dir, name)
		if number, ok := segmentNumber(name); ok {
			all = append(all, &segment{name: path, number: number})
		} else if name == tempName {
			h.temp = append(h.temp, path)
		} else if rest, ok := strings.CutPrefix(name, freePrefix); ok {
			if _, ok := segmentNumber(rest); ok {
				h.free = append(h.free, path)
			}
		}
	}
	slices.SortFunc(all, func(a, b *segment) int {
		if a.number < b.number {
			return -1
		}
		return 1 // names are unique
	})
	for i, s := range all {
		if i > 0 && s.number != all[i-1].number+1 {
			return nil, nil, &DamageError{filepath.Join(dir, segmentName(all[i-1].number+1)), 0, 0, "the file is missing"}
		}
		if err := s.readHead(fsys); err != nil {
			return nil, nil, err
		}
	}
	return h, all, nil
}

// readHead reads header and begin record.
func (s *segment) readHead(fsys vfs.FS) error {
	f, err := fsys.Open(s.name)
	if err != nil {
		return fmt.Errorf("open journal segment: %w", err)
	}
	defer f.Close()
	if s.size, err = f.Size(); err != nil {
		return fmt.Errorf("open journal segment: %w", err)
	}
	if s.size < headerBytes {
		return &DamageError{s.name, s.size, 0, "the file ends within its header"}
	}
	head := make([]byte, headerBytes)
	if _, err := f.ReadAt(head, 0); err != nil {
		return fmt.Errorf("read journal segment header: %w", err)
	}
	version, number, serial, err := parseHeader(head)
	if errors.Is(err, ErrVersion) {
		return fmt.Errorf("open journal segment %s: %w", s.name, err)
	}
	if err != nil { // the header was synced before the file got its name
		return &DamageError{s.name, 0, 0, err.Error()}
	}
	if number != s.number {
		return &DamageError{s.name, 16, 0, fmt.Sprintf("the header says that it is segment %d", number)}
	}
	s.version, s.serial = version, serial
	s.record, s.begun = parseRecord(head[recordAt:], serial)
	if version == 1 {
		s.record.follows = number - 1
	}
	s.end = s.record.start
	return nil
}

// ending says why frames stop in a segment.
type ending string

const (
	endsHere ending = "" // it is full; the next one continues
	notBegun ending = "the segment is not begun"
	noFrame  ending = "no frame follows" // the usual end of the last segment
	missing  ending = "frames are missing, later ones are there"
	tornHead ending = "the file ends within a frame's head"
	tornBody ending = "a frame is incomplete"
)

// readSegment visits the entries of s up to limit, if ends, or to the first
// invalid frame, and sets s.end.
func (h *history) readSegment(fsys vfs.FS, s *segment, limit Offset, ends bool, fn visit) (ending, error) {
	if !s.begun {
		return notBegun, nil
	}
	h.claimed = max(h.claimed, s.record.synced)
	f, err := fsys.Open(s.name)
	if err != nil {
		return "", fmt.Errorf("read journal: %w", err)
	}
	defer f.Close()
	w := window{f: f, name: s.name, size: s.size, version: s.version}
	var scratch Entry
	for !ends || s.end < limit {
		fr, body, why, err := w.frame(s.serial, s.place(s.end))
		if err != nil || why != "" {
			return why, err
		}
		s.mark(s.end)
		if fr.lag != noClaim && s.end >= Offset(fr.lag) {
			h.claimed = max(h.claimed, s.end-Offset(fr.lag))
		}
		if err := eachEntry(s, s.end, body, &scratch, fn); err != nil {
			return "", err
		}
		s.end += Offset(fr.size())
	}
	if s.end > limit {
		return "", &DamageError{s.name, s.place(limit), limit, "the last frame is longer than the segment"}
	}
	return endsHere, nil
}

// eachEntry visits the entries in the body of the frame at off. It decodes them
// into e, one after the other, to spare an allocation each.
func eachEntry(s *segment, off Offset, body []byte, e *Entry, fn visit) error {
	off += frameHead
	for len(body) > 0 {
		var n int
		var err error
		*e, n, err = decodeEntry(body, false) // its frame was checked
		if errors.Is(err, ErrVersion) {
			return fmt.Errorf("read journal at byte %d of %s: %w", s.place(off), s.name, err)
		}
		if err != nil { // the frame's check sum was right: it was written so
			return &DamageError{s.name, s.place(off), off, err.Error()}
		}
		s.entries++
		if fn != nil {
			if err := fn(s, off, body[:n:n], e); err != nil {
				return err
			}
		}
		body = body[n:]
		off += Offset(n)
	}
	return nil
}

// endAt decides whether the history may end at h.tail, which lies in the first
// of rest, for the reason given. If anything in rest claims that the tail was on
// disk, that is damage.
func (h *history) endAt(fsys vfs.FS, rest []*segment, why ending) error {
	at, frames, inFirst := int64(recordAt), 0, 0
	if rest[0].begun {
		at = rest[0].place(rest[0].end)
	}
	damage := func(s *segment, pos int64) error {
		if len(rest) > 1 && !rest[1].begun && s != rest[0] && inFirst == 0 {
			// The first has ended where the second is to go on. So it is the
			// second's begin record that is gone.
			return &DamageError{rest[1].name, recordAt, h.tail,
				fmt.Sprintf("the begin record has a wrong check sum, but byte %d of %s says that it had been on disk", pos, filepath.Base(s.name))}
		}
		return &DamageError{rest[0].name, at, h.tail,
			fmt.Sprintf("%s, but byte %d of %s says that this had been on disk", why, pos, filepath.Base(s.name))}
	}
	for i, s := range rest {
		from := int64(headerBytes)
		if i == 0 {
			from = max(from, at)
		} else if s.begun && s.record.synced > h.tail {
			return damage(s, recordAt)
		}
		claimed := int64(-1)
		n, err := s.scan(fsys, from, func(pos int64, fr frameInfo) {
			if claimed >= 0 || fr.lag == noClaim {
				return
			}
			// How far into the segment the journal was on disk. If the
			// segment's start is not known, it is h.tail or later.
			into := pos - headerBytes - int64(fr.lag)
			if s.begun && int64(s.record.start)+into > int64(h.tail) || !s.begun && into > 0 {
				claimed = pos
			}
		})
		if err != nil {
			return err
		}
		if claimed >= 0 {
			return damage(s, claimed)
		}
		if frames += n; i == 0 {
			inFirst = n
		}
		if (n > 0 || i > 0 && s.begun) && (why == noFrame || why == notBegun) {
			why = missing
		}
	}
	if why != noFrame && why != notBegun {
		h.cut = &Cut{rest[0].name, at, h.tail, string(why), frames}
	}
	return nil
}

// scan looks for frames at every place behind from, calls fn for each whose
// head is valid, and returns how many are whole.
func (s *segment) scan(fsys vfs.FS, from int64, fn func(pos int64, fr frameInfo)) (whole int, err error) {
	f, err := fsys.Open(s.name)
	if err != nil {
		return 0, fmt.Errorf("read journal: %w", err)
	}
	defer f.Close()
	w := window{f: f, name: s.name, size: s.size, version: s.version}
	for pos := from; pos+frameHead <= s.size; pos += frameAlign {
		head, err := w.bytes(pos, frameHead)
		if err != nil {
			return whole, err
		}
		if binary.LittleEndian.Uint64(head[8:]) == 0 { // a quick way over zeros
			continue
		}
		fr, ok := parseFrameHead(head, s.serial, pos, s.size-pos)
		if !ok {
			continue
		}
		fn(pos, fr)
		_, _, why, err := w.frame(s.serial, pos)
		if err != nil {
			return whole, err
		}
		if why == "" {
			whole++
			pos += fr.size() - frameAlign
		}
	}
	return whole, nil
}

// window reads a file through a buffer of its own.
type window struct {
	f    vfs.File
	name string
	size int64
	at   int64 // of buf in the file
	buf  []byte

	version uint32 // of the segment
}

const windowBytes = 256 << 10

// bytes returns n bytes of the file; they must exist. The slice is valid until
// the next call.
func (w *window) bytes(pos int64, n int) ([]byte, error) {
	if pos < w.at || pos+int64(n) > w.at+int64(len(w.buf)) {
		want := int(min(int64(max(n, windowBytes)), w.size-pos))
		if cap(w.buf) < want || cap(w.buf) > 4*windowBytes && want <= windowBytes {
			w.buf = make([]byte, want)
		}
		w.buf = w.buf[:want]
		w.at = pos
		if got, err := w.f.ReadAt(w.buf, pos); got < want {
			w.buf = w.buf[:0]
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("read %d bytes at %d of %s: %w", want, pos, w.name, err)
		}
	}
	return w.buf[pos-w.at:][:n:n], nil
}

// frame reads the frame at pos; why is empty if it is valid.
func (w *window) frame(serial uint64, pos int64) (fr frameInfo, body []byte, why ending, err error) {
	room := w.size - pos
	if room < frameHead {
		if room > 0 {
			return fr, nil, tornHead, nil
		}
		return fr, nil, noFrame, nil
	}
	head, err := w.bytes(pos, frameHead)
	if err != nil {
		return fr, nil, "", err
	}
	fr, ok := parseFrameHead(head, serial, pos, 1<<62)
	if !ok {
		return fr, nil, noFrame, nil
	}
	if fr.size() > room {
		return fr, nil, tornBody, nil
	}
	all, err := w.bytes(pos, int(fr.size()))
	if err != nil {
		return fr, nil, "", err
	}
	if !fr.bodyRight(all[frameHead:], w.version) {
		return fr, nil, tornBody, nil
	}
	return fr, all[frameHead:][:fr.length:fr.length], "", nil
}
