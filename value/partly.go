package value

import (
	"slices"
)

// A big collection can be in memory in part: some of its parts are, and the rest is
// only stored. What is there can be looked up and changed, and is saved like that of any
// other; its length is known. Whoever uses an element sees to it first that the
// element's part is there:
//
//	h.Lacks(&need, fields)                    what isn't there of these
//	part := LoadParts(..., &need)             a hash that has nothing but that
//	h.Take(part)
//
// All other things, Scan and Random for instance, need all of it: see Partly.
//
// Of a hash, set or sorted set, what is absent is known as ranges of hashes, not by
// the parts that are stored there. Loading finds those, and the emptiness between
// them. Of a list the head tells each block and its length.

// A Source gives what is stored of a collection in parts. What it gives is valid until
// it is asked again. If it fails, it gives nothing more, and whoever made it knows.
type Source interface {
	// From gives the part with the least number that is not below id.
	From(id PartID) (got PartID, data []byte, ok bool)
	// Before gives the part with the greatest number below id.
	Before(id PartID) (got PartID, data []byte, ok bool)
}

// A Need says what is needed of a collection that is stored in parts: one of a list, or
// one of the other kinds. None, nil, is all of it. An empty one is the length.
type Need struct {
	Hashes []uint64 // of elements, in ascending order
	More   int      // parts behind those
	Spans  []Span   // elements of a list
	Blocks []PartID // parts of a list
}

// With is what is needed by two.
func (n *Need) With(m *Need) *Need {
	if n == nil || m == nil {
		return nil
	}
	all := &Need{
		Hashes: slices.Clone(n.Hashes), More: max(n.More, m.More), Spans: slices.Concat(n.Spans, m.Spans), Blocks: slices.Concat(n.Blocks, m.Blocks),
	}
	for _, hash := range m.Hashes {
		all.hash(hash)
	}
	return all
}

// Empty reports whether nothing is needed but the length.
func (n *Need) Empty() bool { return len(n.Hashes)+n.More+len(n.Spans)+len(n.Blocks) == 0 }

// A Span is elements of a list, from one index to another. Negative ones count from the
// end.
type Span struct{ From, To int64 }

// Elements adds elements of a hash, set or sorted set with that seed.
func (n *Need) Elements(seed uint64, keys [][]byte) {
	for _, key := range keys {
		n.hash(Hash64(seed, key))
	}
}

func (n *Need) hash(hash uint64) {
	if i, found := slices.BinarySearch(n.Hashes, hash); !found {
		n.Hashes = slices.Insert(n.Hashes, i, hash)
	}
}

// partly reports whether anything is absent.
func (p *partMap) partly() bool {
	return slices.ContainsFunc(p.parts, func(s storedPart) bool { return s.absent })
}

// at is the part to which a hash belongs.
func (p *partMap) at(hash uint64) *storedPart {
	i, _ := slices.BinarySearchFunc(p.parts, hash, func(s storedPart, hash uint64) int {
		switch {
		case s.id.last() < hash:
			return -1
		case s.id.first() > hash:
			return 1
		}
		return 0
	})
	return &p.parts[i]
}

func (c *cells) partly() bool { return c != nil && c.parts != nil && c.parts.partly() }

// lacks adds to need the elements whose parts aren't in memory.
func (c *cells) lacks(need *Need, keys [][]byte) {
	for _, key := range keys {
		if hash := c.table.Hash(key); c.parts.at(hash).absent {
			need.hash(hash)
		}
	}
}

// lacksNext adds to need the first part that isn't in memory.
func (c *cells) lacksNext(need *Need) {
	for _, s := range c.parts.parts {
		if s.absent {
			need.hash(s.id.first())
			return
		}
	}
}

// has reports whether all that is needed is in memory.
func (c *cells) has(need *Need) bool {
	return !slices.ContainsFunc(need.Hashes, func(hash uint64) bool { return c.parts.at(hash).absent })
}

// take moves what from has of the parts that c lacks to c, with add called for each
// element. Both are as of the same stored state; what c has may have changed since. An
// error means that they aren't, and then nothing has happened.
func (c *cells) take(from *cells, add func(hash uint64, e *cell)) error {
	p, q := c.parts, from.parts
	var r dumpReader
	parts, taken := p.fillFrom(q, p.parts, &r)
	loaded := 0
	for _, t := range taken {
		loaded += t.elems
	}
	if loaded > p.away || loaded < p.away && !(&partMap{parts: parts}).partly() {
		r.fail("%d elements come, and %d are away", loaded, p.away)
	}
	if r.err != nil {
		return r.err
	}
	if s := p.saving; s != nil {
		s.rest, _ = p.fillFrom(q, s.rest, &r)
		s.done, _ = p.fillFrom(q, s.done, &r)
	}
	if p.undo != nil {
		p.undo.parts, _ = p.fillFrom(q, p.undo.parts, &r)
	}
	p.parts = parts
	p.away -= loaded
	for _, t := range taken {
		from.table.InRange(t.id.first(), t.id.last(), func(e *cell) bool {
			add(from.table.Hash(e.key()), e)
			return true
		})
		if q.marked(t.id) { // it has changed since it was loaded
			p.markAll(t.id)
		}
	}
	return nil
}

// fillFrom is a list of parts with those of q in the place of what is absent. It tells
// which those are.
func (p *partMap) fillFrom(q *partMap, list []storedPart, r *dumpReader) (filled, taken []storedPart) {
	filled = make([]storedPart, 0, len(list)+8)
	for _, s := range list {
		if !s.absent {
			filled = append(filled, s)
			continue
		}
		i, _ := slices.BinarySearchFunc(q.parts, s.id.first(), func(t storedPart, first uint64) int {
			if t.id.last() < first {
				return -1
			}
			return 1
		})
		for ; i < len(q.parts) && q.parts[i].id.first() <= s.id.last(); i++ {
			t := q.parts[i]
			if t.id.depth() < s.id.depth() {
				if t.stored {
					r.fail("part %x, where only some of it is away", t.id)
				}
				t.id = s.id
			}
			if filled = append(filled, t); !t.absent {
				taken = append(taken, t)
			}
		}
	}
	return filled, taken
}

// with is c and, of what c lacks, what from has: all of it. Neither is changed.
func (c *cells) with(from *cells) *cells {
	all := newCells(c.table.seed)
	put := func(hash uint64, e *cell) {
		all.table.Insert(hash, e)
		all.bytes += e.size()
	}
	c.table.Range(func(e *cell) bool {
		put(c.table.Hash(e.key()), e)
		return true
	})
	for _, s := range c.parts.parts {
		if s.absent {
			from.table.InRange(s.id.first(), s.id.last(), func(e *cell) bool {
				put(c.table.Hash(e.key()), e)
				return true
			})
		}
	}
	return all
}

// Partly reports whether some parts of the hash aren't in memory.
func (h *Hash) Partly() bool { return h.big.partly() }

// Lacks adds to need what isn't in memory of these fields, of a hash of which some isn't.
func (h *Hash) Lacks(need *Need, fields [][]byte) { h.big.lacks(need, fields) }

// LacksNext adds to need something that isn't in memory.
func (h *Hash) LacksNext(need *Need) { h.big.lacksNext(need) }

// Satisfies reports whether all that is needed is in memory.
func (h *Hash) Satisfies(need *Need) bool { return h.big.has(need) }

// Take moves to h what it lacks and from has, which was loaded from what h is stored as.
// After an error h is as it was.
func (h *Hash) Take(from *Hash) error { return h.big.takeCells(from.big) }

// With is the hash that h would be after it took from another all that it lacks. It shares
// elements with both.
func (h *Hash) With(from *Hash) *Hash { return &Hash{seed: h.seed, big: h.big.with(from.big)} }

// takeCells is take of what is nothing but cells.
func (c *cells) takeCells(from *cells) error {
	return c.take(from, func(hash uint64, e *cell) {
		c.table.Insert(hash, e)
		c.bytes += e.size()
	})
}

// Partly is Hash.Partly of a set.
func (s *Set) Partly() bool { return s.big.partly() }

// Lacks is Hash.Lacks of a set.
func (s *Set) Lacks(need *Need, members [][]byte) { s.big.lacks(need, members) }

// LacksNext is Hash.LacksNext of a set.
func (s *Set) LacksNext(need *Need) { s.big.lacksNext(need) }

// Satisfies is Hash.Satisfies of a set.
func (s *Set) Satisfies(need *Need) bool { return s.big.has(need) }

// Take is Hash.Take of a set.
func (s *Set) Take(from *Set) error { return s.big.takeCells(from.big) }

// With is Hash.With of a set.
func (s *Set) With(from *Set) *Set { return &Set{seed: s.seed, big: s.big.with(from.big)} }

// Partly is Hash.Partly of a sorted set.
func (z *ZSet) Partly() bool { return z.big != nil && z.big.index.partly() }

// Lacks is Hash.Lacks of a sorted set.
func (z *ZSet) Lacks(need *Need, members [][]byte) { z.big.index.lacks(need, members) }

// LacksNext is Hash.LacksNext of a sorted set.
func (z *ZSet) LacksNext(need *Need) { z.big.index.lacksNext(need) }

// Satisfies is Hash.Satisfies of a sorted set.
func (z *ZSet) Satisfies(need *Need) bool { return z.big.index.has(need) }

// Take is Hash.Take of a sorted set.
func (z *ZSet) Take(from *ZSet) error {
	index, tree := &z.big.index, &z.big.tree
	return index.take(&from.big.index, func(hash uint64, e *cell) {
		index.table.Insert(hash, e)
		index.bytes += e.size()
		tree.insert(zitem{score: e.score(), cell: e})
	})
}

// With is Hash.With of a sorted set.
func (z *ZSet) With(from *ZSet) *ZSet {
	all := newBigZSet(z.seed)
	all.index = *z.big.index.with(&from.big.index)
	var items []zitem
	all.index.table.Range(func(c *cell) bool {
		items = append(items, zitem{c.score(), prefixOf(c.key()), c})
		return true
	})
	all.tree.fill(items)
	return &ZSet{seed: z.seed, big: all}
}
