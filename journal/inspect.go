package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"vecino/catalog"
	"vecino/internal/vfs"
)

// This file is for operators: it looks at journals that nobody has open, and
// changes nothing.

// Report is what Verify found.
type Report struct {
	Segments  []SegmentReport
	Unused    int // files prepared or waiting to be used again
	Entries   int64
	Databases int
	Tail      Offset
	OnDisk    Offset       // all before it had been synced, says the journal itself; the rest may have been
	Cut       *Cut         // what the next open will cut; nil: nothing
	Breaks    []ChainBreak // the first hundred
}

// SegmentReport is one file of a journal.
type SegmentReport struct {
	Name       string
	Begun      time.Time
	Start, End Offset
	Entries    int64
	Bytes      int64  // of the file
	Version    uint32 // of the format
	Superseded bool   // a later one holds what was in it, written again after a failed sync
}

// A ChainBreak is an entry that doesn't follow the one before it of the same
// database. Its bytes are as they were written; so a node wrote two histories
// into one journal. A new epoch may leave out entries that were never
// acknowledged, so a gap there is not a break.
type ChainBreak struct {
	Offset   Offset
	DB       catalog.ID
	Position catalog.Position
	Why      string
}

const maxBreaks = 100

// ErrNoJournal is returned for a directory without a journal.
var ErrNoJournal = errors.New("no journal is there")

// inspect is walk for those who expect to find something.
func inspect(fsys vfs.FS, dir string, fn visit) (*history, error) {
	names, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !slices.ContainsFunc(names, func(name string) bool {
		_, ok := segmentNumber(name)
		return ok
	}) {
		return nil, fmt.Errorf("look at %s: %w; name the journal's own directory, such as STATE/journal-0 of a node", dir, ErrNoJournal)
	}
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", dir, err)
	}
	return walk(fsys, dir, fn)
}

// Verify reads all of the journal in dir. A damaged journal gives a *DamageError,
// and the report counts what comes before the damage; if the error is nil it is
// whole.
func Verify(fsys vfs.FS, dir string) (*Report, error) {
	type head struct {
		pos  catalog.Position
		hash uint64
	}
	r := &Report{}
	heads := map[catalog.ID]head{}
	h, err := inspect(fsys, dir, func(_ *segment, off Offset, raw []byte, e *Entry) error {
		r.Entries++
		last, known := heads[e.DB]
		heads[e.DB] = head{e.Position(), Hash(e.Prev, raw)}
		why := ""
		switch {
		case !known:
		case e.Epoch < last.pos.Epoch:
			why = fmt.Sprintf("epoch %d follows %d", e.Epoch, last.pos.Epoch)
		case e.Epoch == last.pos.Epoch && e.Seq != last.pos.Seq+1:
			why = fmt.Sprintf("seq %d follows %d", e.Seq, last.pos.Seq)
		case e.Epoch == last.pos.Epoch && e.Prev != last.hash:
			why = "it continues another history"
		}
		if why != "" && len(r.Breaks) < maxBreaks {
			r.Breaks = append(r.Breaks, ChainBreak{off, e.DB, e.Position(), why})
		}
		return nil
	})
	r.Databases = len(heads)
	if err != nil {
		return r, err
	}
	for _, s := range h.segments {
		r.Segments = append(r.Segments, SegmentReport{filepath.Base(s.name), time.UnixMilli(s.record.timeMS), s.record.start, s.end, s.entries, s.size, s.version, s.superseded})
	}
	r.Unused = len(h.free) + len(h.lost)
	r.Tail, r.OnDisk = h.tail, h.claimed
	r.Cut = h.cut
	return r, nil
}

// Dump writes a line for each entry from offset from on, of one database or, if
// db is 0, of all, and one about the end. It shows what an entry is and never what
// is in it, since that is the tenant's. Of a damaged journal it writes what comes
// before the damage.
func Dump(out io.Writer, fsys vfs.FS, dir string, from Offset, db catalog.ID) error {
	w := bufio.NewWriter(out)
	h, err := inspect(fsys, dir, func(s *segment, off Offset, raw []byte, e *Entry) error {
		if off < from || db != 0 && e.DB != db {
			return nil
		}
		_, err := fmt.Fprintf(w, "%d %s:%d db=%d epoch=%d seq=%d time=%s prev=%016x hash=%016x origin=%x/%d effects=%d\n",
			off, filepath.Base(s.name), s.place(off), e.DB, e.Epoch, e.Seq, time.UnixMilli(e.TimeMS).UTC().Format("2006-01-02T15:04:05.000Z"),
			e.Prev, Hash(e.Prev, raw), e.Origin.Session, e.Origin.Req, len(e.Effects))
		return err
	})
	if err == nil {
		fmt.Fprintf(w, "# the end, at offset %d; before offset %d all had been synced\n", h.tail, h.claimed)
		if h.cut != nil {
			fmt.Fprintf(w, "# the next start cuts the tail: %s\n", h.cut)
		}
	}
	if flushErr := w.Flush(); err == nil {
		err = flushErr
	}
	return err
}
