package value

import (
	"cmp"
	"slices"
)

// A Save is the writing of a big collection to a store: of the parts that have
// changed since the last one began. It gives them a few at a time, while the
// collection goes on being used. An owner that has a head and parts for each key
// stores it like this, in one batch that is written as a whole or not at all:
//
//	s := h.Save()
//	for s.Next(limit, func(id value.PartID, data []byte, gone bool) {
//		put the part, or delete it
//	}) {
//	}
//	if s.Whole {
//		delete all other parts of the key
//	}
//	put the key's head: s.Head()
//
// From when the Save begins its parts count as stored. If the batch fails, Fail
// takes that back. There is one Save of a collection at a time, and one in a batch. What
// becomes of the collection meanwhile doesn't matter, and between two calls of Next it
// may even be let go.
//
// If the collection doesn't change from the beginning to the end, what is stored is
// the collection. If it does, a hash, set or sorted set is stored with each element as
// it was at some time in between. Whoever then carries out once more, in order, all
// that was done since the Save began has the collection at the end: what is done
// to an element is absolute, whatever the element was. Elements of a list are known by
// where they are, so a list is stored as it was in the beginning: who changes a block
// that hasn't been given yet has it put aside first, some 64 KiB.
type Save struct {
	// Whole says that all parts come. Whatever else is stored under the key's name
	// means nothing.
	Whole bool

	saver
}

type saver interface {
	// Next gives parts in the order of their numbers, and those that are to be deleted
	// among them, and reports whether there are more. Beyond limit bytes it looks at one part at most. fn must
	// not change the collection, nor keep data. Every Save is finished, or failed.
	Next(limit int, fn func(id PartID, data []byte, gone bool)) (more bool)
	// Head is what is stored beside the parts, once all were given.
	Head() []byte
	// Fail says that what was given has not been stored.
	Fail()
}

// stale is parts that are to be deleted, in order.
type stale []PartID

func (s *stale) add(id PartID) {
	if i, found := slices.BinarySearch(*s, id); !found {
		*s = slices.Insert(*s, i, id)
	}
}

// before tells of those before a part, which is about to be stored.
func (s *stale) before(id PartID, fn func(id PartID, data []byte, gone bool)) {
	for len(*s) > 0 && (*s)[0] <= id {
		if (*s)[0] < id {
			fn((*s)[0], nil, true)
		}
		*s = (*s)[1:]
	}
}

// rest tells of all that are left.
func (s *stale) rest(fn func(id PartID, data []byte, gone bool)) {
	for _, id := range *s {
		fn(id, nil, true)
	}
	*s = nil
}

// cellSave is the Save of a hash, set or sorted set.
type cellSave struct {
	c      *cells
	p      *partMap
	kind   partial
	rest   []storedPart // that were not looked at yet
	halves []storedPart // of the one that was looked at last, which is too large; the next one last
	done   []storedPart // what became of the others
	gone   stale
	buf    []byte
	head   []byte
	undo   *partMap // what Fail goes back to; nil if all is given
	forget bool     // the parts are no more the collection's, once this is done
}

func (c *cells) save(kind partial) *Save {
	if c.parts != nil && c.parts.saving != nil { // nobody goes on with it
		c.parts.saving.Fail()
	}
	s := &cellSave{c: c, kind: kind}
	whole := c.parts == nil
	if whole {
		c.parts = newPartMap(c.startDepth())
		c.parts.setGranules(c.table.Len())
		c.parts.markAll(partOf(0, 0))
	} else {
		s.undo = &partMap{parts: slices.Clone(c.parts.parts), dirty: slices.Clone(c.parts.dirty), shift: c.parts.shift}
		c.parts.undo = s.undo
	}
	p := c.parts
	s.p, s.gone = p, p.join()
	s.rest, s.done = p.parts, make([]storedPart, 0, len(p.parts))
	p.saving = s
	p.setGranules(c.len())
	return &Save{Whole: whole, saver: s}
}

func (s *cellSave) Next(limit int, fn func(id PartID, data []byte, gone bool)) (more bool) {
	for looked := 0; looked < limit; {
		part, ok := s.take()
		if !ok {
			s.gone.rest(fn)
			s.finish()
			return false
		}
		if !part.dirty {
			s.done = append(s.done, part)
			continue
		}
		data, elems, large := s.c.appendPart(s.buf[:0], part.id, s.kind, true)
		if s.buf = data; cap(data) > 4*partBytes {
			s.buf = nil
		}
		looked += len(data)
		if (large || elems == 0) && part.stored {
			s.gone.add(part.id)
		}
		switch {
		case large:
			left, right := part.id.halves()
			s.halves = append(s.halves, storedPart{id: right, dirty: true}, storedPart{id: left, dirty: true})
		case elems == 0:
			s.done = append(s.done, storedPart{id: part.id})
		default:
			s.done = append(s.done, storedPart{id: part.id, elems: elems, bytes: len(data), stored: true})
			s.gone.before(part.id, fn)
			fn(part.id, data, false)
		}
	}
	return true
}

// take takes the next part.
func (s *cellSave) take() (part storedPart, ok bool) {
	if n := len(s.halves); n > 0 {
		part, s.halves = s.halves[n-1], s.halves[:n-1]
		return part, true
	}
	if len(s.rest) == 0 {
		return part, false
	}
	part, s.rest = s.rest[0], s.rest[1:]
	return part, true
}

// finish makes what became of the parts the collection's.
func (s *cellSave) finish() {
	elems := s.p.away
	for _, part := range s.done {
		elems += part.elems
	}
	s.head = appendHead(nil, s.kind.form, elems)
	if s.p.saving != s {
		return
	}
	s.p.parts, s.p.saving = s.done, nil
	if s.forget && s.c.parts == s.p {
		s.c.parts = nil
	}
}

func (s *cellSave) Head() []byte { return s.head }

func (s *cellSave) Fail() {
	p := s.p
	switch {
	case s.c.parts != p || p.undo != s.undo: // it isn't stored like this any more, or this has failed before
	case s.undo == nil || s.forget:
		s.c.parts = nil
	default: // what was to be written still is
		p.parts = s.undo.parts
		p.markLike(s.undo)
		p.undo, p.saving = nil, nil
	}
}

// dropParts says that nothing that is stored is of use. All of it is in memory.
func (c *cells) dropParts() {
	switch {
	case c.parts == nil:
	case c.parts.saving != nil:
		c.parts.saving.forget = true
	default:
		c.parts = nil
	}
}

// listSave is the Save of a list.
type listSave struct {
	l      *bigList
	head   []byte
	due    []dueBlock // in the order of their numbers
	next   int        // the first that was not given
	gone   stale
	lost   []PartID // all that gone began with
	whole  bool
	moved  int // by how much the last block was away from where it had been
	buf    []byte
	forget bool
}

// dueBlock is a block to be written.
type dueBlock struct {
	id    PartID
	at    int  // where it was when the Save began
	aside bool // data has it
	data  []byte
}

func (l *bigList) save() *Save {
	if l.saving != nil { // nobody goes on with it
		l.saving.Fail()
	}
	s := &listSave{l: l, head: l.head(nil)}
	whole := !l.parts
	for i := range l.blocks {
		if b := &l.blocks[i]; b.dirty || whole {
			b.dirty, b.due = false, true
			s.due = append(s.due, dueBlock{id: b.part, at: i})
		}
	}
	slices.SortFunc(s.due, func(a, b dueBlock) int { return cmp.Compare(a.id, b.id) })
	if !whole {
		slices.Sort(l.gone)
		s.gone = slices.Compact(l.gone)
	}
	s.whole, s.lost = whole, s.gone
	l.gone, l.parts, l.saving = nil, true, s
	return &Save{Whole: whole, saver: s}
}

func (s *listSave) Next(limit int, fn func(id PartID, data []byte, gone bool)) (more bool) {
	for given := 0; s.next < len(s.due) && given < limit; s.next++ {
		d := &s.due[s.next]
		data := d.data
		if !d.aside {
			b := s.find(d)
			b.due = false
			s.buf = b.appendPart(s.buf[:0])
			data = s.buf
		}
		s.gone.before(d.id, fn)
		fn(d.id, data, false)
		given += len(data)
		d.data = nil
	}
	if s.next < len(s.due) {
		return true
	}
	s.gone.rest(fn)
	if s.l.saving == s {
		s.l.saving = nil
		if s.forget {
			s.l.parts = false
		}
	}
	s.buf = nil
	return false
}

// find finds a block that is still to be given, so that it is still there. It looks
// near where it was, moved by as much as the last one.
func (s *listSave) find(d *dueBlock) *block {
	blocks := s.l.blocks
	at := min(max(d.at+s.moved, 0), len(blocks)-1)
	for far := 0; ; far++ {
		for _, i := range [2]int{at - far, at + far} {
			if i >= 0 && i < len(blocks) && blocks[i].part == d.id {
				s.moved = i - d.at
				return &blocks[i]
			}
		}
	}
}

// at tells where in due a part is, if it was due.
func (s *listSave) at(id PartID) (i int, found bool) {
	return slices.BinarySearchFunc(s.due, id, func(d dueBlock, id PartID) int { return cmp.Compare(d.id, id) })
}

// keep puts a block aside that is about to change.
func (s *listSave) keep(b *block) {
	b.due = false
	i, _ := s.at(b.part)
	s.due[i].aside, s.due[i].data = true, b.appendPart(nil)
}

func (s *listSave) Head() []byte { return s.head }

func (s *listSave) Fail() {
	l := s.l
	if l.saving == s {
		l.saving = nil
		for i := range l.blocks {
			l.blocks[i].due = false
		}
	}
	if s.whole || s.forget {
		l.parts = false
		return
	}
	// What was to be written still is, but for blocks that are gone.
	l.gone = append(l.gone, s.lost...)
	for i := range l.blocks {
		if _, was := s.at(l.blocks[i].part); was {
			l.blocks[i].dirty = true
		}
	}
}

func (l *bigList) dropParts() {
	if l.saving != nil {
		l.saving.forget = true
	} else {
		l.parts = false
	}
}
