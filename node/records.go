package node

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"vecino/catalog"
)

// records is what the fleet last said about the databases here, kept in a file
// of one event a line, so that a node can start and serve without the fleet.
type records struct {
	mu   sync.Mutex
	name string
	f    *os.File
	dbs  map[catalog.ID]catalog.Database
	n    int // lines in the file
}

type recordLine struct {
	Database *catalog.Database `json:"database,omitempty"`
	Gone     catalog.ID        `json:"gone,omitempty"`
}

func openRecords(name string) (*records, error) {
	r := &records{name: name, dbs: make(map[catalog.ID]catalog.Database)}
	old, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read catalog: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(old))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l recordLine
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			break // the last line may be torn
		}
		if l.Database != nil {
			r.dbs[l.Database.ID] = *l.Database
		} else {
			delete(r.dbs, l.Gone)
		}
	}
	if err := r.rewrite(); err != nil {
		return nil, fmt.Errorf("write catalog: %w", err)
	}
	return r, nil
}

// rewrite begins the file anew with what is known.
func (r *records) rewrite() error {
	var b bytes.Buffer
	for id := range r.dbs {
		db := r.dbs[id]
		r.encode(&b, recordLine{Database: &db})
	}
	if err := os.WriteFile(r.name+".new", b.Bytes(), 0o600); err != nil {
		return err
	}
	if err := os.Rename(r.name+".new", r.name); err != nil {
		return err
	}
	if r.f != nil {
		r.f.Close()
	}
	var err error
	r.f, err = os.OpenFile(r.name, os.O_APPEND|os.O_WRONLY, 0o600)
	r.n = len(r.dbs)
	return err
}

func (r *records) encode(b *bytes.Buffer, l recordLine) {
	line, err := json.Marshal(l)
	if err != nil {
		panic(err)
	}
	b.Write(line)
	b.WriteByte('\n')
}

func (r *records) add(l recordLine) {
	var b bytes.Buffer
	r.encode(&b, l)
	r.f.Write(b.Bytes()) // if it fails the fleet will say it again at the next start
	if r.n++; r.n > 1000+4*len(r.dbs) {
		r.rewrite()
	}
}

func (r *records) put(d catalog.Database) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.dbs[d.ID]; ok && old.Revision >= d.Revision {
		return
	}
	r.dbs[d.ID] = d
	r.add(recordLine{Database: &d})
}

func (r *records) remove(id catalog.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.dbs[id]; ok {
		delete(r.dbs, id)
		r.add(recordLine{Gone: id})
	}
}

func (r *records) database(id catalog.ID) (catalog.Database, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, ok := r.dbs[id]
	return d, ok
}

func (r *records) databases() (all []catalog.Database) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.dbs {
		all = append(all, d)
	}
	return all
}

func (r *records) close() error { return r.f.Close() }
