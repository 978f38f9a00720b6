package node

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"

	"vecino/catalog"
)

// records is what the fleet last said about the databases here, kept in a file
// of one event a line, so that a node can start and serve without the fleet.
//
// A node may have a hundred thousand databases that sleep. Of each there is one
// record in memory, packed to a third; see packer.
type records struct {
	mu   sync.Mutex
	name string
	f    *os.File
	dbs  map[catalog.ID]packed
	pack packer
	n    int // lines in the file
}

type recordLine struct {
	Database *catalog.Database `json:"database,omitempty"`
	Gone     catalog.ID        `json:"gone,omitempty"`
}

func openRecords(name string) (*records, error) {
	r := &records{name: name, dbs: make(map[catalog.ID]packed), pack: newPacker()}
	whole, err := r.read()
	if err != nil {
		return nil, fmt.Errorf("read catalog: %w", err)
	}
	if !whole || r.stale() {
		err = r.rewrite()
	} else {
		r.f, err = os.OpenFile(name, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("write catalog: %w", err)
	}
	return r, nil
}

// linesAtOnce is how many lines of the file one goroutine reads at a time.
const linesAtOnce = 512

// read takes the file, which may have very many lines, a few at a time and on
// all cores. It reports whether it could be read to its end: the last line may
// be torn.
func (r *records) read() (whole bool, err error) {
	f, err := os.Open(r.name)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	type batch struct {
		text   []byte
		lines  []recordLine
		broken bool
	}
	in := bufio.NewReaderSize(f, 1<<20)
	batches := make([]batch, runtime.GOMAXPROCS(0))
	for whole = true; ; {
		used := 0
		for used < len(batches) && err == nil {
			b := &batches[used]
			b.text, b.lines, b.broken = b.text[:0], b.lines[:0], false
			for n := 0; n < linesAtOnce && err == nil; {
				var part []byte
				part, err = in.ReadSlice('\n')
				b.text = append(b.text, part...)
				if err == bufio.ErrBufferFull {
					err = nil
					continue
				}
				n++
			}
			used++
		}
		if err != nil && err != io.EOF {
			return false, err
		}
		var tasks sync.WaitGroup
		for i := range batches[:used] {
			b := &batches[i]
			tasks.Go(func() { b.lines, b.broken = readLines(b.text, b.lines) })
		}
		tasks.Wait()
		for i := range batches[:used] {
			for _, l := range batches[i].lines {
				r.n++
				if l.Database == nil {
					delete(r.dbs, l.Gone)
					continue
				}
				r.dbs[l.Database.ID] = r.pack.pack(l.Database)
			}
			if batches[i].broken {
				return false, nil
			}
		}
		if err == io.EOF {
			return whole, nil
		}
	}
}

func readLines(text []byte, lines []recordLine) (_ []recordLine, broken bool) {
	for len(text) > 0 {
		end := bytes.IndexByte(text, '\n')
		var l recordLine
		if end < 0 || json.Unmarshal(text[:end], &l) != nil {
			return lines, true
		}
		lines = append(lines, l)
		text = text[end+1:]
	}
	return lines, false
}

// stale reports whether most of the file is about what is no more.
func (r *records) stale() bool { return r.n > 1000+4*len(r.dbs) }

// rewrite begins the file anew with what is known.
func (r *records) rewrite() error {
	f, err := os.OpenFile(r.name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	for id, p := range r.dbs {
		w.Write(encodeRecord(recordLine{Database: r.pack.unpack(id, p)})) // an error stays until Flush
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(r.name+".new", r.name); err != nil {
		return err
	}
	if r.f != nil {
		r.f.Close()
	}
	r.f, err = os.OpenFile(r.name, os.O_APPEND|os.O_WRONLY, 0o600)
	r.n = len(r.dbs)
	return err
}

func encodeRecord(l recordLine) []byte {
	line, err := json.Marshal(l)
	if err != nil {
		panic(err)
	}
	return append(line, '\n')
}

func (r *records) add(l recordLine) {
	r.f.Write(encodeRecord(l)) // if it fails the fleet will say it again at the next start
	if r.n++; r.stale() {
		r.rewrite()
	}
}

// put keeps a record, unless there is a newer one, and returns the one that
// counts.
func (r *records) put(d *catalog.Database) (_ *catalog.Database, changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.dbs[d.ID]; ok && p.revision() >= d.Revision {
		return r.pack.unpack(d.ID, p), false
	}
	r.dbs[d.ID] = r.pack.pack(d)
	r.add(recordLine{Database: d})
	return d, true
}

func (r *records) remove(id catalog.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.dbs[id]; ok {
		delete(r.dbs, id)
		r.add(recordLine{Gone: id})
	}
}

// database returns the record of a database. It is the caller's.
func (r *records) database(id catalog.ID) (*catalog.Database, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.dbs[id]
	if !ok {
		return nil, false
	}
	return r.pack.unpack(id, p), true
}

// has reports whether there is a record of a database.
func (r *records) has(id catalog.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.dbs[id]
	return ok
}

// databases yields all records there are when it begins, but for those that are
// removed meanwhile. They are the caller's.
func (r *records) databases() iter.Seq[*catalog.Database] {
	r.mu.Lock()
	ids := slices.Collect(maps.Keys(r.dbs))
	r.mu.Unlock()
	return func(yield func(*catalog.Database) bool) {
		for _, id := range ids {
			if d, ok := r.database(id); ok && !yield(d) {
				return
			}
		}
	}
}

func (r *records) close() error { return r.f.Close() }
