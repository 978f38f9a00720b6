package node

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vecino/catalog"
	"vecino/journal"
	"vecino/journal/snapshot"
)

// checkpointer has databases swept into the tier in the background, so that the
// journal behind them can be trimmed. See store.
type checkpointer struct {
	node    *Node
	wake    chan struct{}
	failing atomic.Bool         // the last checkpoint failed
	old     map[catalog.ID]bool // of which there are files of the time before the tier; for run alone once it runs
	mu      struct {
		sync.Mutex
		wanted map[catalog.ID]bool // to be written now
		gone   map[catalog.ID]bool // to be removed
	}
}

func newCheckpointer(n *Node) *checkpointer {
	c := &checkpointer{node: n, wake: make(chan struct{}, 1), old: make(map[catalog.ID]bool)}
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

// forget asks for the removal of what is kept of a database.
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
		if n.records.has(id) {
			continue // it is back
		}
		err := n.store.tier.Drop(uint64(id))
		if err == nil {
			err = c.removeOld(id)
		}
		if err != nil {
			n.log.Warn("can't remove what is kept of a database", "db", uint64(id), "err", err.Error())
		}
	}
	for id := range wanted {
		if p := n.find(id); p != nil {
			c.try(ctx, p)
		}
	}
	for id := range c.old {
		if p := n.find(id); p != nil && ctx.Err() == nil && c.try(ctx, p) {
			if err := c.removeOld(id); err != nil {
				n.log.Warn("can't remove old checkpoint", "db", uint64(id), "err", err.Error())
			}
		}
	}
	for _, s := range n.shards {
		c.trim(ctx, s)
	}
}

// removeOld removes a database's file of the time before the tier.
func (c *checkpointer) removeOld(id catalog.ID) error {
	if !c.old[id] {
		return nil
	}
	err := snapshot.Remove(c.node.fs, c.node.snapshotDir(), id)
	if err == nil {
		delete(c.old, id)
	}
	return err
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
		off := c.node.store.holds(p.Engine)
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
	err := c.save(ctx, p)
	if err != nil && (ctx.Err() != nil || errors.Is(err, errNotSavable)) {
		return false
	}
	// Where the disk is full this goes on every two seconds; it is told once.
	if failing := err != nil; c.failing.Swap(failing) != failing {
		if failing {
			c.node.log.Error("checkpoint failed; the journal is kept until one succeeds", "db", uint64(p.Engine.ID()), "err", err.Error())
		} else {
			c.node.log.Info("checkpoints succeed again")
		}
	}
	return err == nil
}

// errNotSavable is a database whose content is about to be replaced; once it
// has been, a checkpoint is asked for.
var errNotSavable = errors.New("the database holds half a snapshot, is just being read, or was closed after a panic")

// save writes one database out.
func (c *checkpointer) save(ctx context.Context, p *placed) error { return c.node.store.sweep(ctx, p) }
