package keyspace

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"

	"vecino/value"
)

// Warm is a value as the tier gave it, made ready to be given to Restore. To make
// one needs no keyspace, and so holds up nobody, however large the value is.
type Warm struct {
	base   uint64 // the write that it is as of
	size   int64  // that its key has by the head
	head   []byte
	loaded *loaded

	heads []Head // of sunk keys, instead of one with its value
	next  uint64
}

// Surfacing is what a tier answers that was asked for sunk keys without their values:
// the heads of all records of these hashes, which are kept. next is where to
// go on, if that isn't all, else 0.
func Surfacing(heads []Head, next uint64) *Warm { return &Warm{heads: heads, next: next} }

// Heads are the keys that Surfacing was given.
func (w *Warm) Heads() iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		for i := range w.heads {
			if !yield(w.heads[i].Hash, w.heads[i].Key) {
				return
			}
		}
	}
}

// Next is the hash with which to go on, 0 if this is all that was asked for.
func (w *Warm) Next() uint64 {
	if w == nil {
		return 0
	}
	return w.next
}

// NextPart gives a part of a collection, in the order of their numbers, until there
// is none. What it gives is valid until it is called again.
type NextPart func() (id value.PartID, data []byte, ok bool)

// InParts reports whether a record with that body has parts beside it.
func InParts(body []byte) bool { return len(body) > 0 && body[0] == tierVersion|bodyParts }

// Thaw makes the value of a record, under the seed of its keyspace, or what is needed of
// it if the record has parts, which src gives. The head is kept. An error means that the
// record is damaged.
func Thaw(seed uint64, head, body []byte, src value.Source, need *value.Need) (*Warm, error) {
	h, err := readHead(head)
	if err != nil {
		return nil, err
	}
	w := &Warm{base: h.base, size: int64(h.size), head: head, loaded: new(loaded)}
	if h.inline {
		return w, w.loaded.load(seed, h.form, h.value)
	}
	b, dump, err := readBody(body)
	if err != nil {
		return nil, err
	}
	w.base = b.base
	if InParts(body) {
		return w, w.loaded.loadParts(seed, h.form, dump, src, need)
	}
	return w, w.loaded.load(seed, h.form, dump)
}

// ThawBody is Thaw of a body alone. ok is false if it is one to which the head, or parts,
// are needed.
func ThawBody(seed uint64, body []byte) (w *Warm, ok bool, err error) {
	h, dump, err := readBody(body)
	if err != nil || body[0]&bodyWhole == 0 {
		return nil, false, err
	}
	w = &Warm{base: h.base, size: int64(h.size), head: h.append(nil), loaded: new(loaded)}
	return w, true, w.loaded.load(seed, h.form, dump)
}

// readBody takes a body apart: what it has of the head, at least the write, and a dump or
// the head of parts.
func readBody(b []byte) (h head, dump []byte, err error) {
	if len(b) == 0 || b[0]&0xf0 != tierVersion || b[0]&^0xf0 > bodyWhole {
		return h, nil, versionError("body", b)
	}
	r := effectReader{b: b[1:]}
	if b[0]&bodyWhole != 0 {
		h.form, h.access, h.deadline, h.size = r.byte(), r.stamp(), r.int(), r.size()
	}
	h.base = uint64(r.int())
	h.seq = h.base
	if r.err != nil {
		return h, nil, fmt.Errorf("%w: body: %w", errHead, r.err)
	}
	return h, r.b, nil
}

// loadParts makes l the collection of that form which is stored as head and parts.
func (l *loaded) loadParts(seed uint64, form byte, head []byte, src value.Source, need *value.Need) (err error) {
	l.kind = Kind(form)
	switch l.kind {
	case HashKind:
		l.h = &l.shelf.hash
		err = l.h.LoadParts(seed, head, src, need)
	case ListKind:
		l.l = &l.shelf.list
		err = l.l.LoadParts(head, src, need)
	case SetKind:
		l.s = &l.shelf.set
		err = l.s.LoadParts(seed, head, src, need)
	case ZSetKind:
		l.z = &l.shelf.zset
		err = l.z.LoadParts(seed, head, src, need)
	default:
		err = fmt.Errorf("%w: parts of a value of form %#x", errHead, form)
	}
	if err == nil && l.len() == 0 {
		err = fmt.Errorf("%w: an empty %v", errHead, l.kind)
	}
	return err
}

// A Stored is a record as a tier holds it. Tiers in memory, of tests and of the
// simulation, keep these.
type Stored struct {
	Head, Body []byte
	Parts      map[value.PartID][]byte
}

// Put is what is stored after r was put over s. It writes r's parts, all that are
// left.
func (s Stored) Put(r *Record) Stored {
	now := Stored{Head: bytes.Clone(r.Head), Body: bytes.Clone(r.Body)}
	switch {
	case r.KeepBody:
		now.Body, now.Parts = s.Body, s.Parts
	case r.Parts != nil:
		now.Parts = map[value.PartID][]byte{}
		if !r.Parts.Whole {
			now.Parts = maps.Clone(s.Parts)
		}
		for r.Parts.Next(1, func(id value.PartID, data []byte, gone bool) {
			if delete(now.Parts, id); !gone {
				now.Parts[id] = bytes.Clone(data)
			}
		}) {
		}
		now.Body = append(now.Body, r.Parts.Head()...)
	}
	return now
}

// Answer is what a tier in memory answers to k. records are those that it has of the
// logical database.
func Answer(seed uint64, k ColdKey, records iter.Seq2[string, Stored]) (*Warm, error) {
	if k.Seq != 0 {
		for key, s := range records {
			if key == string(k.Key) {
				return s.Thaw(seed, k.Need)
			}
		}
		return nil, nil
	}
	var heads []Head
	for key, s := range records {
		hash := value.Hash64(seed, []byte(key))
		switch {
		case k.Last != 0 && (hash < k.Hash || hash > k.Last) || k.Last == 0 && key != string(k.Key):
		case k.Last == 0 && !k.Bare:
			return s.Thaw(seed, k.Need)
		default:
			heads = append(heads, Head{hash, []byte(key), bytes.Clone(s.Head)})
		}
	}
	if len(heads) == 0 && k.Last == 0 {
		return Answer(seed, k.SamePrint(), records)
	}
	slices.SortFunc(heads, func(a, b Head) int { return cmp.Compare(a.Hash, b.Hash) })
	const some = 3 // so that there is something to go on with
	if len(heads) > some {
		return Surfacing(heads[:some], heads[some].Hash), nil
	}
	return Surfacing(heads, 0), nil
}

// Thaw is Thaw of what is stored, or ThawBody if that suffices; nil if nothing is stored.
func (s Stored) Thaw(seed uint64, need *value.Need) (*Warm, error) {
	switch {
	case s.Head == nil:
		return nil, nil
	case s.Body != nil:
		if w, ok, err := ThawBody(seed, bytes.Clone(s.Body)); ok || err != nil {
			return w, err
		}
	}
	return Thaw(seed, bytes.Clone(s.Head), bytes.Clone(s.Body), storedParts{s.Parts, slices.Sorted(maps.Keys(s.Parts))}, need)
}

// storedParts is the value.Source of what is stored.
type storedParts struct {
	parts map[value.PartID][]byte
	ids   []value.PartID // in order
}

func (s storedParts) From(id value.PartID) (got value.PartID, data []byte, ok bool) {
	i, _ := slices.BinarySearch(s.ids, id)
	if i == len(s.ids) {
		return 0, nil, false
	}
	return s.ids[i], s.parts[s.ids[i]], true
}

func (s storedParts) Before(id value.PartID) (got value.PartID, data []byte, ok bool) {
	i, _ := slices.BinarySearch(s.ids, id)
	if i == 0 {
		return 0, nil, false
	}
	return s.ids[i-1], s.parts[s.ids[i-1]], true
}
