package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"vecino/catalog"
	"vecino/engine"
	"vecino/journal"
	"vecino/journal/snapshot"
)

// recovered is a database as recovery found it.
type recovered struct {
	db       *engine.DB
	from     journal.Offset   // entries before it are in the snapshot, or void
	complete catalog.Position // the snapshot's end
	lost     error            // why its content can't be told any more
}

// recover builds the databases from their checkpoints and the journals.
func (n *Node) recover() error {
	if err := snapshot.Sweep(n.fs, n.snapshotDir()); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	headers, err := snapshot.List(n.fs, n.snapshotDir())
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	for _, h := range headers {
		if err := n.load(h); err != nil {
			return fmt.Errorf("recover database %d: %w", h.DB, err)
		}
	}
	for _, s := range n.shards {
		if err := s.replay(); err != nil {
			return fmt.Errorf("recover shard %d: %w", s.index, err)
		}
		for id, r := range s.recovered {
			if tail := s.journal.Tail(); r.from > tail {
				return fmt.Errorf("recover database %d: its checkpoint was made at offset %d of a journal that ends at %d: put the journal in %s back, or remove %s to begin anew",
					id, r.from, tail, n.journalDir(s.index), n.cfg.State)
			}
		}
	}
	return nil
}

// load reads one checkpoint.
func (n *Node) load(h snapshot.Header) error {
	rec, ok := n.records.database(h.DB)
	if !ok {
		return nil // it was destroyed; the checkpointer removes the file
	}
	meta, err := parseMeta(h.Meta)
	if err != nil {
		return err
	}
	r, err := snapshot.Open(n.fs, n.snapshotDir(), h.DB)
	if err != nil {
		return err
	}
	defer r.Close()
	s := n.shardOf(h.DB)
	found := &recovered{db: s.newEngine(h.DB, rec.HashSeed), from: h.JournalOffset}
	ks := found.db.Install(h.Position, meta.hash, meta.clock)
	found.complete = h.Position
	for {
		chunk, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		switch chunk[0] {
		case recordsChunk:
			err = ks.Load(chunk[1:])
		case endChunk:
			found.complete, err = parseEnd(chunk[1:])
		default:
			err = fmt.Errorf("unknown chunk %d", chunk[0])
		}
		if err != nil {
			return err
		}
	}
	if meta.shards != len(n.shards) {
		found.from = 0 // offsets of another division; positions tell what is contained
	}
	s.recovered[h.DB] = found
	return nil
}

// replay applies the journal to what the checkpoints gave.
func (s *shard) replay() error {
	return s.journal.Replay(func(off journal.Offset, e *journal.Entry) error {
		home := s.node.shardOf(e.DB)
		r := home.recovered[e.DB]
		if r == nil {
			rec, ok := s.node.records.database(e.DB)
			if !ok {
				return nil
			}
			r = &recovered{db: home.newEngine(e.DB, rec.HashSeed)}
			home.recovered[e.DB] = r
		}
		if r.lost != nil || off < r.from || r.db.Position().Covers(e.Position()) {
			return nil
		}
		err := r.db.Recover(off, e, !r.db.Position().Covers(r.complete))
		if err != nil {
			// The content was replaced by a snapshot whose checkpoint wasn't
			// finished. The primary has it.
			s.node.log.Warn("copy given up", "db", uint64(e.DB), "err", err.Error())
			rec, _ := s.node.records.database(e.DB)
			*r = recovered{db: home.newEngine(e.DB, rec.HashSeed), lost: err}
		}
		return nil
	})
}

// Chunks of a checkpoint begin with what they are.
const (
	recordsChunk = 'r' // records of keyspace.Dump
	endChunk     = 'e' // the position at which the checkpoint was complete
)

// snapshotMeta is what a checkpoint's header holds beside the position.
type snapshotMeta struct {
	hash   uint64
	clock  int64
	shards int
}

func (m snapshotMeta) encode() []byte {
	b := binary.LittleEndian.AppendUint64(nil, m.hash)
	b = binary.LittleEndian.AppendUint64(b, uint64(m.clock))
	return binary.LittleEndian.AppendUint32(b, uint32(m.shards))
}

var errMeta = errors.New("the header of the checkpoint can't be read")

func parseMeta(b []byte) (m snapshotMeta, err error) {
	if len(b) != 20 {
		return m, errMeta
	}
	m.hash = binary.LittleEndian.Uint64(b)
	m.clock = int64(binary.LittleEndian.Uint64(b[8:]))
	m.shards = int(binary.LittleEndian.Uint32(b[16:]))
	return m, nil
}

func encodeEnd(p catalog.Position) []byte {
	b := []byte{endChunk}
	b = binary.LittleEndian.AppendUint32(b, p.Epoch)
	return binary.LittleEndian.AppendUint64(b, p.Seq)
}

func parseEnd(b []byte) (p catalog.Position, err error) {
	if len(b) != 12 {
		return p, errMeta
	}
	return catalog.Position{Epoch: binary.LittleEndian.Uint32(b), Seq: binary.LittleEndian.Uint64(b[4:])}, nil
}
