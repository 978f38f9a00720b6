package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"slices"

	"vecino/catalog"
	"vecino/internal/invariant"
)

// Entry is one change of one database: all that one command, EXEC or script
// did.
type Entry struct {
	DB      catalog.ID
	Epoch   uint32
	Seq     uint64 // 1, 2, 3… within DB
	TimeMS  int64  // the primary's clock, Unix milliseconds
	Prev    uint64 // Hash of the entry before, 0 at the first
	Origin  Origin
	Effects []byte // opaque here

	hash uint64 // of the history up to here, if the entry was decoded
}

// Hash is the hash of the history up to and including an entry that was
// decoded: what function Hash says of its encoding, at no cost.
func (e *Entry) Hash() uint64 { return e.hash }

// Origin says which request of which session a forwarded write was, so that the
// primary can tell when it is asked twice. Zero for others.
type Origin struct {
	Session uint64
	Req     uint32
}

// Position returns the entry's place in its database's history.
func (e *Entry) Position() catalog.Position {
	return catalog.Position{Epoch: e.Epoch, Seq: e.Seq}
}

const (
	entryVersion = 2      // 1 differs in Hash only
	entryHead    = 8      // length and CRC
	entryMin     = 17 + 6 // the shortest whole entry: no effects, uvarints of one byte
	entryHeadMax = 17 + 6*binary.MaxVarintLen64

	// MaxEntryBytes bounds an encoded entry. It lies above what a request may
	// carry at all, and lets a reader refuse a nonsensical length early.
	MaxEntryBytes = 2 << 30
)

var (
	// ErrIncomplete is returned by DecodeEntry when b ends within the entry.
	ErrIncomplete = errors.New("journal entry is incomplete")
	// ErrCorrupt is returned for an entry whose check sum or form is wrong.
	ErrCorrupt = errors.New("journal entry is corrupt")
	// ErrVersion is returned for an entry or a segment of a format that this
	// version of Vecino doesn't know.
	ErrVersion = errors.New("unknown journal format version")
)

// AppendEntry appends the encoded entry to dst and returns the longer slice. It
// allocates only when dst is too short.
func AppendEntry(dst []byte, e *Entry) []byte {
	at := len(dst)
	dst = slices.Grow(dst, entryHeadMax+len(e.Effects))
	b := dst[at : at+entryHeadMax]
	b[8] = entryVersion
	binary.LittleEndian.PutUint64(b[9:], e.Prev)
	n := 17
	n += binary.PutUvarint(b[n:], uint64(e.DB))
	n += binary.PutUvarint(b[n:], uint64(e.Epoch))
	n += binary.PutUvarint(b[n:], e.Seq)
	n += binary.PutUvarint(b[n:], uint64(e.TimeMS))
	n += binary.PutUvarint(b[n:], e.Origin.Session)
	n += binary.PutUvarint(b[n:], uint64(e.Origin.Req))
	dst = append(dst[:at+n], e.Effects...)

	made := dst[at:]
	if len(made) > MaxEntryBytes {
		invariant.That(false, "a journal entry has %d bytes", len(made))
	}
	binary.LittleEndian.PutUint32(made[0:], uint32(len(made)-entryHead))
	binary.LittleEndian.PutUint32(made[4:], crc32.Checksum(made[entryHead:], castagnoli))
	return dst
}

// EntryLen returns how many bytes the entry at the head of b has, also when b
// holds only the first 8 of them; with fewer it returns ErrIncomplete. Its check
// sum is not looked at.
func EntryLen(b []byte) (int, error) {
	if len(b) < entryHead {
		return 0, ErrIncomplete
	}
	n := uint64(binary.LittleEndian.Uint32(b)) + entryHead
	if n < entryMin || n > MaxEntryBytes {
		return 0, fmt.Errorf("%w: its length is %d", ErrCorrupt, n)
	}
	return int(n), nil
}

// DecodeEntry reads the entry at the head of b and returns it with the number
// of bytes that it has. The entry's effects alias b.
func DecodeEntry(b []byte) (Entry, int, error) { return decodeEntry(b, true) }

// decodeEntry is DecodeEntry; check is not set if the check sum has been looked
// at already.
func decodeEntry(b []byte, check bool) (Entry, int, error) {
	n, err := EntryLen(b)
	if err != nil {
		return Entry{}, 0, err
	}
	if n > len(b) {
		return Entry{}, 0, ErrIncomplete
	}
	b = b[:n]
	if check && !entrySumRight(b) {
		return Entry{}, 0, fmt.Errorf("%w: wrong check sum", ErrCorrupt)
	}
	if b[8] == 0 || b[8] > entryVersion {
		return Entry{}, 0, fmt.Errorf("%w: entry version %d", ErrVersion, b[8])
	}
	e := Entry{Prev: binary.LittleEndian.Uint64(b[9:])}
	d := varints{b: b[17:]}
	e.DB = catalog.ID(d.next(1<<64 - 1))
	e.Epoch = uint32(d.next(1<<32 - 1))
	e.Seq = d.next(1<<64 - 1)
	e.TimeMS = int64(d.next(1<<64 - 1))
	e.Origin.Session = d.next(1<<64 - 1)
	e.Origin.Req = uint32(d.next(1<<32 - 1))
	if d.bad {
		return Entry{}, 0, fmt.Errorf("%w: malformed number", ErrCorrupt)
	}
	e.Effects = d.b
	e.hash = Hash(e.Prev, b)
	return e, n, nil
}

// entrySumRight looks at the check sum of the entry that b is.
func entrySumRight(b []byte) bool {
	return crc32.Checksum(b[entryHead:], castagnoli) == binary.LittleEndian.Uint32(b[4:])
}

// varints reads uvarints off a slice and latches its first failure.
type varints struct {
	b   []byte
	bad bool
}

func (d *varints) next(most uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > most {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// Hash returns what the entry after this one carries as Prev: a digest of the
// database's history up to and including the entry encoded in b, whose own Prev
// is prev. Two copies of a database with the same hash have the same history;
// it detects divergence and is no defence against malice.
//
// It chains the entry's length and check sum, so it doesn't look at the effects
// again. Two histories that part at an entry are taken for one if both entries
// there have the same length and check sum, by chance one time in 2^32. An entry
// of version 1 is hashed whole, as ever: what follows it carries that.
func Hash(prev uint64, b []byte) uint64 {
	if len(b) < entryHead+1 || b[entryHead] == 1 {
		return hashWhole(prev, b)
	}
	return fold(fold(prev^k0, binary.LittleEndian.Uint64(b)^k1)^k1, k0)
}

const k0, k1 = 0x9e3779b97f4a7c15, 0xd6e8feb86659fd93

// hashWhole is the hash of version 1.
func hashWhole(prev uint64, b []byte) uint64 {
	h := prev ^ uint64(len(b))*k0
	for len(b) >= 16 {
		h = fold(h^binary.LittleEndian.Uint64(b)^k0, binary.LittleEndian.Uint64(b[8:])^k1)
		b = b[16:]
	}
	var x, y uint64
	switch {
	case len(b) >= 8: // the two words may overlap; the length is in h
		x, y = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[len(b)-8:])
	case len(b) >= 4:
		x, y = uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[len(b)-4:]))
	case len(b) > 0:
		x, y = uint64(b[0])|uint64(b[len(b)/2])<<8, uint64(b[len(b)-1])
	}
	h = fold(h^x^k0, y^k1)
	return fold(h^k1, k0)
}

// fold multiplies to 128 bits and adds the halves without carry.
func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
