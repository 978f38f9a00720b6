package node

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"sync"

	"vecino/catalog"
	"vecino/region"
)

// records is what the fleet last said about the databases here, kept in a file
// of one event a line, so that a node can start and serve without the fleet.
//
// A node may have a hundred thousand databases that sleep. Of each there is one
// record in memory, which everything shares and nothing changes, and its words
// that others have too (plan, nodes, regions) are shared among all.
type records struct {
	mu    sync.Mutex
	name  string
	f     *os.File
	dbs   map[catalog.ID]*catalog.Database
	words words
	n     int // lines in the file
}

type recordLine struct {
	Database *catalog.Database `json:"database,omitempty"`
	Gone     catalog.ID        `json:"gone,omitempty"`
}

func openRecords(name string) (*records, error) {
	r := &records{name: name, dbs: make(map[catalog.ID]*catalog.Database), words: make(words)}
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
				r.words.share(l.Database)
				r.dbs[l.Database.ID] = l.Database
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
	for _, db := range r.dbs {
		w.Write(encodeRecord(recordLine{Database: db})) // an error stays until Flush
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
// counts, which is not to be changed.
func (r *records) put(d *catalog.Database) (_ *catalog.Database, changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.dbs[d.ID]; ok && old.Revision >= d.Revision {
		return old, false
	}
	d = r.words.share(d)
	r.dbs[d.ID] = d
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

// database returns the record of a database. It is not to be changed.
func (r *records) database(id catalog.ID) (*catalog.Database, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, ok := r.dbs[id]
	return d, ok
}

func (r *records) databases() []*catalog.Database {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*catalog.Database, 0, len(r.dbs))
	for _, d := range r.dbs {
		all = append(all, d)
	}
	return all
}

func (r *records) close() error { return r.f.Close() }

// words are strings that many records have.
type words map[string]string

func (w words) one(s string) string {
	if s == "" {
		return ""
	}
	if old, ok := w[s]; ok {
		return old
	}
	w[s] = s
	return s
}

// share has a record use the words that are known, and no more memory than it
// needs.
func (w words) share(d *catalog.Database) *catalog.Database {
	d.Plan, d.Policy = w.one(d.Plan), w.one(d.Policy)
	d.Durability = catalog.Durability(w.one(string(d.Durability)))
	d.Copies = slices.Clip(slices.Clone(d.Copies))
	for i := range d.Copies {
		c := &d.Copies[i]
		c.Region, c.Node = region.Code(w.one(string(c.Region))), w.one(c.Node)
		c.Role, c.State = catalog.Role(w.one(string(c.Role))), catalog.State(w.one(string(c.State)))
	}
	return d
}
