package journal

import (
	"bufio"
	"fmt"
	"io"
	"path/filepath"
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
	Cut       *Cut         // what the next open will cut; nil: nothing
	Breaks    []ChainBreak // the first hundred
}

// SegmentReport is one file of a journal.
type SegmentReport struct {
	Name       string
	Begun      time.Time
	Start, End Offset
	Entries    int64
	Bytes      int64 // of the file
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

// Verify reads all of the journal in dir. The report is whole if the error is
// nil; a damaged journal gives a *DamageError.
func Verify(fs vfs.FS, dir string) (*Report, error) {
	type head struct {
		pos  catalog.Position
		hash uint64
	}
	r := &Report{}
	heads := map[catalog.ID]head{}
	h, err := walk(fs, dir, func(_ *segment, off Offset, raw []byte, e *Entry) error {
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
	if err != nil {
		return nil, err
	}
	for _, s := range h.segments {
		r.Segments = append(r.Segments, SegmentReport{filepath.Base(s.name), time.UnixMilli(s.record.timeMS), s.record.start, s.end, s.entries, s.size})
	}
	r.Unused = len(h.free) + len(h.lost)
	r.Databases = len(heads)
	r.Tail = h.tail
	r.Cut = h.cut
	return r, nil
}

// Dump writes a line for each entry from offset from on, of one database or, if
// db is 0, of all. It shows what an entry is and never what is in it, since that
// is the tenant's.
func Dump(out io.Writer, fs vfs.FS, dir string, from Offset, db catalog.ID) error {
	w := bufio.NewWriter(out)
	_, err := walk(fs, dir, func(s *segment, off Offset, raw []byte, e *Entry) error {
		if off < from || db != 0 && e.DB != db {
			return nil
		}
		_, err := fmt.Fprintf(w, "%d %s:%d db=%d epoch=%d seq=%d time=%s prev=%016x hash=%016x origin=%x/%d effects=%d\n",
			off, filepath.Base(s.name), s.place(off), e.DB, e.Epoch, e.Seq, time.UnixMilli(e.TimeMS).UTC().Format("2006-01-02T15:04:05.000Z"),
			e.Prev, Hash(e.Prev, raw), e.Origin.Session, e.Origin.Req, len(e.Effects))
		return err
	})
	if flushErr := w.Flush(); err == nil {
		err = flushErr
	}
	return err
}
