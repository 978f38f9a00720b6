package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"vecino/catalog"
	"vecino/engine"
	"vecino/journal"
	"vecino/journal/snapshot"
	"vecino/keyspace"
)

// checkpointer writes databases to snapshot files in the background, so that
// the journal behind them can be trimmed. It takes a database's lock for a few
// hundred keys at a time; see package keyspace for why the result is right.
type checkpointer struct {
	node *Node
	wake chan struct{}
	mu   struct {
		sync.Mutex
		wanted map[catalog.ID]bool // to be written now
		gone   map[catalog.ID]bool // whose files are to be removed
	}
}

func newCheckpointer(n *Node) *checkpointer {
	c := &checkpointer{node: n, wake: make(chan struct{}, 1)}
	c.mu.wanted = make(map[catalog.ID]bool)
	c.mu.gone = make(map[catalog.ID]bool)
	return c
}

func (c *checkpointer) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// request asks for a checkpoint of one database soon.
func (c *checkpointer) request(id catalog.ID) {
	c.mu.Lock()
	c.mu.wanted[id] = true
	delete(c.mu.gone, id)
	c.mu.Unlock()
	c.poke()
}

// forget asks for the removal of a database's file.
func (c *checkpointer) forget(id catalog.ID) {
	c.mu.Lock()
	c.mu.gone[id] = true
	c.mu.Unlock()
	c.poke()
}

func (c *checkpointer) run(ctx context.Context) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.wake:
		}
		c.round(ctx)
	}
}

func (c *checkpointer) round(ctx context.Context) {
	n := c.node
	c.mu.Lock()
	wanted, gone := c.mu.wanted, c.mu.gone
	c.mu.wanted, c.mu.gone = make(map[catalog.ID]bool), make(map[catalog.ID]bool)
	c.mu.Unlock()
	for id := range gone {
		if err := snapshot.Remove(n.fs, n.snapshotDir(), id); err != nil {
			n.log.Warn("can't remove checkpoint", "db", uint64(id), "err", err.Error())
		}
	}
	for id := range wanted {
		if p := n.find(id); p != nil {
			c.try(ctx, p)
		}
	}
	for _, s := range n.shards {
		c.trim(ctx, s)
	}
}

// trim writes out the databases that hold the journal of a shard up, the one
// with the oldest entry first, until what is left is small.
func (c *checkpointer) trim(ctx context.Context, s *shard) {
	type holder struct {
		p   *placed
		off journal.Offset
	}
	limit := journal.Offset(c.node.cfg.CheckpointBytes)
	var holders []holder
	for _, p := range c.node.all() {
		if p.shard != s {
			continue
		}
		p.Engine.Lock()
		off := p.Engine.FirstUnsaved()
		p.Engine.Unlock()
		if off != 0 {
			holders = append(holders, holder{p, off})
		}
	}
	tail := s.journal.Tail()
	slices.SortFunc(holders, func(a, b holder) int { return cmp.Compare(a.off, b.off) })
	oldest := tail
	saved := false
	for _, h := range holders {
		if tail-h.off <= limit || ctx.Err() != nil || !c.try(ctx, h.p) {
			oldest = h.off
			break
		}
		saved = true
	}
	if !saved && len(holders) > 0 && tail-holders[0].off <= limit {
		oldest = holders[0].off
	}
	if err := s.journal.TrimBefore(oldest); err != nil {
		c.node.log.Warn("can't trim journal", "shard", s.index, "err", err.Error())
	}
}

func (c *checkpointer) try(ctx context.Context, p *placed) bool {
	if err := c.save(ctx, p); err != nil {
		if ctx.Err() == nil && err != errNotSavable {
			c.node.log.Error("checkpoint failed", "db", uint64(p.Engine.ID()), "err", err.Error())
		}
		return false
	}
	return true
}

// errNotSavable is a database whose content is about to be replaced; once it
// has been, a checkpoint is asked for.
var errNotSavable = errors.New("the database holds half a snapshot, or was closed after a panic")

// chunkKeys is how many keys are written out in one go, with the database's
// lock held.
const chunkKeys = 256

// save writes one database out.
func (c *checkpointer) save(ctx context.Context, p *placed) (err error) {
	n, db := c.node, p.Engine
	db.Lock()
	if !p.Savable() {
		db.Unlock()
		return errNotSavable
	}
	unsaved, off := db.FirstUnsaved(), p.shard.journal.Tail()
	h := snapshot.Header{
		DB: db.ID(), Position: db.Position(), JournalOffset: off, TimeMS: time.Now().UnixMilli(),
		Meta: snapshotMeta{db.HistoryHash(), db.Clock(), len(n.shards)}.encode(),
	}
	complete := p.Complete()
	db.SetUnsaved(0)
	db.Unlock()
	defer func() {
		if err != nil && unsaved != 0 { // else what was made meanwhile is the oldest
			db.Lock()
			db.SetUnsaved(unsaved)
			db.Unlock()
		}
	}()
	w, err := snapshot.Create(n.fs, n.snapshotDir(), h)
	if err != nil {
		return err
	}
	end, err := dump(ctx, db, func(records []byte) error {
		return w.Write(append([]byte{recordsChunk}, records...))
	})
	if err == nil {
		if complete.Seq > end.Seq {
			end = complete
		}
		err = w.Write(encodeEnd(end))
	}
	if err == nil {
		// What the file shows must not be newer than what the journal keeps.
		err = p.shard.journal.Sync()
	}
	if err != nil {
		w.Abort()
		return err
	}
	if err = w.Finish(); err == nil {
		p.Owner.Post(func() { p.Saved(h.Position) })
	}
	return err
}

// dump gives the records of a database, a few at a time, and returns the
// position at which they are complete. The database may change meanwhile.
func dump(ctx context.Context, db *engine.DB, write func(records []byte) error) (end catalog.Position, err error) {
	var at keyspace.Cursor
	var buf []byte
	db.Lock()
	from := db.Keyspace()
	db.Unlock()
	for !at.Done() {
		if err := ctx.Err(); err != nil {
			return end, err
		}
		db.Lock()
		if db.Keyspace() != from {
			db.Unlock()
			return end, fmt.Errorf("the content of database %d was replaced", db.ID())
		}
		buf = from.Dump(buf[:0], &at, chunkKeys)
		end = db.Position()
		db.Unlock()
		if len(buf) > 0 {
			if err := write(buf); err != nil {
				return end, err
			}
		}
	}
	return end, nil
}
