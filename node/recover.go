package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"

	"vecino/catalog"
	"vecino/engine"
	"vecino/journal"
	"vecino/journal/snapshot"
	"vecino/keyspace"
)

// Recovery reads the meta record of each database in the tier, and the journals.
// A database of which the journals have nothing newer stays in the tier and
// sleeps. One of which they have is read when its first entry comes.
//
//	tier: meta records ──> recovered, asleep ──────────────────────> sleepers
//	                            |
//	journal ── read, check ──> apply ──> its heads are read ───────> databases, awake
//	           one goroutine    another

// recovered is a database as recovery found it.
type recovered struct {
	db *engine.DB // nil: it is in the tier as m says, but for pos

	m        meta
	pos      catalog.Position // beyond m.from only if what came has no effects
	hash     uint64
	clock    int64
	unsaved  journal.Offset   // the oldest entry that the tier hasn't, while db is nil
	from     journal.Offset   // entries before it are in the checkpoint, or void
	complete catalog.Position // where the checkpoint is exact
	lost     error            // why its content can't be told any more
}

// recover builds the databases from the tier and the journals.
func (n *Node) recover() error {
	defer n.store.tier.Quiet(false)
	if n.cfg.OwnProcess {
		// What is read is garbage soon, and little of the heap stays: with the usual
		// setting the collector would run all the time.
		defer debug.SetGCPercent(debug.SetGCPercent(400))
	}
	divided := true // among as many shards as when everything was written
	err := n.store.tier.Metas(func(id uint64, b []byte) error {
		m, err := parseMeta(b)
		if err != nil {
			return fmt.Errorf("recover database %d: %w", id, err)
		}
		if !n.records.has(catalog.ID(id)) {
			n.saver.forget(catalog.ID(id)) // it was destroyed
			return nil
		}
		r := &recovered{m: m, pos: m.from, hash: m.hash, clock: m.clock, from: m.offset, complete: m.end}
		if m.shards != len(n.shards) {
			divided = false
			r.from = 0 // offsets of another division; positions tell what is contained
		}
		n.shardOf(catalog.ID(id)).recovered[catalog.ID(id)] = r
		return nil
	})
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	if err := n.loadOld(&divided); err != nil {
		return err
	}
	if err := n.replay(divided); err != nil {
		return err
	}
	for _, s := range n.shards {
		for id, r := range s.recovered {
			if tail := s.journal.Tail(); r.from > tail {
				return fmt.Errorf("recover database %d: its checkpoint was made at offset %d of a journal that ends at %d: put the journal in %s back, or remove %s to begin anew",
					id, r.from, tail, n.journalDir(s.index), n.cfg.State)
			}
			if r.db != nil {
				continue
			}
			if r.unsaved == 0 {
				n.putAsleep(id, sleeper{pos: r.pos, complete: r.complete, hash: r.hash, clock: r.clock, next: r.m.next, keys: r.m.keys, used: r.m.used})
				delete(s.recovered, id)
				continue
			}
			rec, _ := n.records.database(id)
			r.db = s.newEngine(id, rec.HashSeed)
			r.db.Put(r.pos, r.hash, r.clock, r.m.next, r.m.sizes())
			r.db.SetUnsaved(r.unsaved)
		}
	}
	return nil
}

// replay applies the journals to what the tier has, those of all shards at once if
// no database can stand in two.
func (n *Node) replay(divided bool) error {
	if !divided {
		for _, s := range n.shards {
			if err := s.replay(); err != nil {
				return err
			}
		}
		return nil
	}
	errs := make([]error, len(n.shards))
	var tasks sync.WaitGroup
	for i, s := range n.shards {
		tasks.Go(func() { errs[i] = s.replay() })
	}
	tasks.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// stretch is entries on their way from the goroutine that reads them to the one
// that applies them.
type stretch struct {
	entries []journal.Entry
	offsets []journal.Offset
	effects []byte
	touch   keyspace.Touch
}

const (
	stretchEntries = 1024
	stretchBytes   = 256 << 10
	stretches      = 4
	touchEntries   = 64
)

// replay applies the journal of one shard.
func (s *shard) replay() error {
	full, empty := make(chan *stretch, stretches), make(chan *stretch, stretches)
	for range stretches {
		empty <- &stretch{}
	}
	var failed error
	done := make(chan struct{}) // closed when nothing is applied any more
	go func() {
		defer close(done)
		for st := range full {
			if failed = s.reapplyAll(st); failed != nil {
				return
			}
			empty <- st
		}
	}()
	var st *stretch
	err := s.journal.Replay(func(off journal.Offset, e *journal.Entry) error {
		if st == nil {
			select {
			case st = <-empty:
			case <-done:
				return errNoUse
			}
			st.entries, st.offsets, st.effects = st.entries[:0], st.offsets[:0], st.effects[:0]
		}
		at := len(st.effects)
		st.effects = append(st.effects, e.Effects...) // when it moves, what was taken before stays where it was
		copied := *e
		copied.Effects = st.effects[at:len(st.effects):len(st.effects)]
		st.entries, st.offsets = append(st.entries, copied), append(st.offsets, off)
		if len(st.entries) >= stretchEntries || len(st.effects) >= stretchBytes {
			full <- st // never waits: there are as many as fit
			st = nil
		}
		return nil
	})
	if st != nil && err == nil {
		full <- st
	}
	close(full)
	<-done
	if failed != nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("recover shard %d: %w", s.index, err)
	}
	return nil
}

// errNoUse ends the reading of a journal whose entries can't be applied.
var errNoUse = fmt.Errorf("an entry can't be applied")

// reapplyAll carries out entries of the journal. What a run of them on one
// database will look up is touched before, so that cache misses overlap.
func (s *shard) reapplyAll(st *stretch) error {
	s.node.replayed.Add(int64(len(st.entries)))
	for from := 0; from < len(st.entries); {
		id := st.entries[from].DB
		to := from + 1
		for to < len(st.entries) && to < from+touchEntries && st.entries[to].DB == id {
			to++
		}
		home := s.node.shardOf(id)
		home.recovering.Lock()
		if r := home.recovered[id]; r != nil && r.db != nil && to-from > 1 {
			ks := r.db.Keyspace()
			for i := from; i < to; i++ {
				st.touch.AddEffects(ks, st.entries[i].Effects)
			}
			st.touch.Load(ks, 0)
		}
		var err error
		for ; from < to && err == nil; from++ {
			err = home.reapply(st.offsets[from], &st.entries[from])
		}
		home.recovering.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// reapply carries out one entry of the journal on a database that lives here. The
// shard's recovering is held.
func (s *shard) reapply(off journal.Offset, e *journal.Entry) error {
	r := s.recovered[e.DB]
	if r == nil {
		rec, ok := s.node.records.database(e.DB)
		if !ok {
			return nil
		}
		r = &recovered{db: s.newEngine(e.DB, rec.HashSeed)}
		s.recovered[e.DB] = r
	}
	if r.db != nil {
		r.pos = r.db.Position()
	}
	if r.lost != nil || off < r.from || r.pos.Covers(e.Position()) {
		return nil
	}
	if r.db == nil {
		if len(e.Effects) == 0 && r.moveOn(off, e) {
			return nil
		}
		if err := s.loadRecovered(e.DB, r); err != nil {
			return err
		}
	}
	err := r.db.Recover(off, e, !r.pos.Covers(r.complete))
	if errors.Is(err, keyspace.ErrNoMemory) || errors.Is(err, keyspace.ErrHalfDone) {
		return fmt.Errorf("recover database %d: %w", e.DB, err) // nothing is lost: start again with more
	}
	if err != nil {
		// The content was replaced by a snapshot whose checkpoint wasn't
		// finished. The primary has it.
		s.node.log.Warn("copy given up", "db", uint64(e.DB), "err", err.Error())
		rec, _ := s.node.records.database(e.DB)
		s.node.store.forget(r.db)
		*r = recovered{db: s.newEngine(e.DB, rec.HashSeed), lost: err}
	}
	return nil
}

// moveOn takes an entry that changes no key, such as the first of an epoch, and
// leaves the database in the tier.
func (r *recovered) moveOn(off journal.Offset, e *journal.Entry) bool {
	if e.Seq != r.pos.Seq+1 || e.Epoch < r.pos.Epoch || e.Prev != r.hash {
		return false
	}
	r.pos, r.hash, r.clock = e.Position(), e.Hash(), max(r.clock, e.TimeMS)
	if r.unsaved == 0 {
		r.unsaved = off
	}
	return true
}

// loadRecovered reads a database from the tier.
func (s *shard) loadRecovered(id catalog.ID, r *recovered) error {
	rec, _ := s.node.records.database(id)
	r.db = s.newEngine(id, rec.HashSeed)
	ks := r.db.Install(r.pos, r.hash, r.clock)
	r.db.SetUnsaved(r.unsaved)
	if err := s.node.store.load(r.db, ks, false); err != nil {
		return fmt.Errorf("recover database %d: %w", id, err)
	}
	d := s.node.store.of(r.db)
	d.of, d.since = ks, r.m.from.Seq
	return nil
}

// What follows reads the checkpoints of the time before the tier: a file for each
// database. They are read once. The checkpointer writes the databases to the tier
// and then removes the files.

func (n *Node) loadOld(divided *bool) error {
	if err := snapshot.Sweep(n.fs, n.snapshotDir()); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	headers, err := snapshot.List(n.fs, n.snapshotDir())
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	for _, h := range headers {
		n.saver.old[h.DB] = true
		rec, ok := n.records.database(h.DB)
		if !ok {
			n.saver.forget(h.DB) // it was destroyed
			continue
		}
		s := n.shardOf(h.DB)
		if s.recovered[h.DB] != nil {
			continue // the tier has it, and newer
		}
		r, err := n.readOld(s.newEngine(h.DB, rec.HashSeed), h)
		if err != nil {
			return fmt.Errorf("recover database %d: %w", h.DB, err)
		}
		if r.m.shards != len(n.shards) {
			*divided = false
			r.from = 0
		}
		s.recovered[h.DB] = r
	}
	return nil
}

// Chunks of an old checkpoint begin with what they are.
const (
	oldRecords = 'r' // records of keyspace.Dump
	oldEnd     = 'e' // the position at which the checkpoint was complete
)

func (n *Node) readOld(db *engine.DB, h snapshot.Header) (*recovered, error) {
	if len(h.Meta) != 20 {
		return nil, snapshot.ErrDamaged
	}
	file, err := snapshot.Open(n.fs, n.snapshotDir(), h.DB)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r := &recovered{db: db, from: h.JournalOffset, complete: h.Position}
	r.m.shards = int(binary.LittleEndian.Uint32(h.Meta[16:]))
	ks := db.Install(h.Position, binary.LittleEndian.Uint64(h.Meta), int64(binary.LittleEndian.Uint64(h.Meta[8:])))
	for {
		chunk, err := file.Next()
		switch {
		case err == io.EOF:
			return r, nil
		case err != nil:
			return nil, err
		case chunk[0] == oldRecords:
			err = ks.Load(chunk[1:])
		case chunk[0] == oldEnd && len(chunk) == 13:
			r.complete = catalog.Position{Epoch: binary.LittleEndian.Uint32(chunk[1:]), Seq: binary.LittleEndian.Uint64(chunk[5:])}
		default:
			err = snapshot.ErrDamaged
		}
		if err != nil {
			return nil, err
		}
	}
}
