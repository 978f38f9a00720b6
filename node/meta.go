package node

import (
	"encoding/binary"
	"errors"
	"fmt"

	"vecino/catalog"
	"vecino/engine"
	"vecino/journal"
	"vecino/keyspace"
)

// meta is the record that the tier keeps of each database. It is written with
// each session, so that the two always go together.
//
// The records were swept from position from to position end, while the database
// changed. Who loads them applies the journal from from on, leaving out for each
// key what it already contains; at end they are exact. Where both are the same,
// and the journal has nothing behind it, they are the database.
type meta struct {
	from, end catalog.Position
	hash      uint64         // of the history up to from
	clock     int64          // of the database at from
	offset    journal.Offset // where the entries behind from begin, at the earliest
	shards    int            // among which databases were divided then; offsets are of that division
	next      int64          // earliest deadline at the end, 0 for none
	keys      int64          // at the end
	used      int64          // bytes of keys and values, at the end
	spaces    []engine.Space // the logical databases that have keys, at the end
}

// sizes is how large the database is while it sleeps.
func (m *meta) sizes() engine.Sizes {
	return engine.Sizes{Keys: m.keys, Used: m.used, ColdKeys: int(m.keys), ColdBytes: m.used, Spaces: m.spaces}
}

// measure notes how a database is now. Its lock is held.
func (m *meta) measure(db *engine.DB) {
	sizes := db.Sizes()
	m.next, m.keys, m.used, m.spaces = db.NextExpiry(), sizes.Keys, sizes.Used, sizes.Spaces
}

// The record, little-endian:
//
//	version 1 | from: epoch 4, seq 8 | end: epoch 4, seq 8 | hash 8 | clock 8
//	  | offset 8 | shards 4 | next 8 | keys 8 | used 8
//	  | for each of spaces: logical database 1, keys 8, those with a deadline 8
const (
	metaVersion = 1
	metaBytes   = 1 + 12 + 12 + 8 + 8 + 8 + 4 + 8 + 8 + 8
	spaceBytes  = 1 + 8 + 8
)

func (m *meta) encode() []byte {
	b := make([]byte, 0, metaBytes+spaceBytes*len(m.spaces))
	b = append(b, metaVersion)
	for _, p := range []catalog.Position{m.from, m.end} {
		b = binary.LittleEndian.AppendUint32(b, p.Epoch)
		b = binary.LittleEndian.AppendUint64(b, p.Seq)
	}
	b = binary.LittleEndian.AppendUint64(b, m.hash)
	b = binary.LittleEndian.AppendUint64(b, uint64(m.clock))
	b = binary.LittleEndian.AppendUint64(b, uint64(m.offset))
	b = binary.LittleEndian.AppendUint32(b, uint32(m.shards))
	b = binary.LittleEndian.AppendUint64(b, uint64(m.next))
	b = binary.LittleEndian.AppendUint64(b, uint64(m.keys))
	b = binary.LittleEndian.AppendUint64(b, uint64(m.used))
	for _, s := range m.spaces {
		b = append(b, byte(s.DB))
		b = binary.LittleEndian.AppendUint64(b, uint64(s.Keys))
		b = binary.LittleEndian.AppendUint64(b, uint64(s.Expires))
	}
	return b
}

var errMeta = errors.New("the record of a database in the tier can't be read")

func parseMeta(b []byte) (m meta, err error) {
	if len(b) > 0 && b[0] != metaVersion {
		return m, fmt.Errorf("%w: it has version %d, this program reads %d: run the version of vecino that wrote it", errMeta, b[0], metaVersion)
	}
	if len(b) < metaBytes || (len(b)-metaBytes)%spaceBytes != 0 || len(b) > metaBytes+spaceBytes*keyspace.Databases {
		return m, errMeta
	}
	b = b[1:]
	u64 := func() uint64 {
		v := binary.LittleEndian.Uint64(b)
		b = b[8:]
		return v
	}
	u32 := func() uint32 {
		v := binary.LittleEndian.Uint32(b)
		b = b[4:]
		return v
	}
	for _, p := range []*catalog.Position{&m.from, &m.end} {
		p.Epoch = u32()
		p.Seq = u64()
	}
	m.hash = u64()
	m.clock = int64(u64())
	m.offset = journal.Offset(u64())
	m.shards = int(u32())
	m.next, m.keys, m.used = int64(u64()), int64(u64()), int64(u64())
	for len(b) > 0 {
		n := int(b[0])
		b = b[1:]
		if n >= keyspace.Databases {
			return m, errMeta
		}
		m.spaces = append(m.spaces, engine.Space{DB: n, Keys: int(u64()), Expires: int(u64())})
	}
	return m, nil
}
