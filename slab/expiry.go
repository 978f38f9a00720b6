package slab

import "vecino/value"

// expiry is the records that have a deadline, the earliest first: a heap with
// four children a node, in pages that are blocks. A record knows its place, so a
// deadline that is changed or taken away costs a few moves and leaves nothing behind.
// The deadline stands in the heap as well, so that a move reads only the heap.
//
//	page     word 0  | kind | small | number of the page 48 |
//	         word 1  | block/8 11 | 0 |
//	         items   | deadline 64 | record 64 |
//
// The first page grows by doubling, so that a few deadlines cost little.
type expiry struct {
	pages []uint64
	n     int
	room  int
}

const (
	perPage  = 127
	pageHead = 16
)

type item struct {
	at  int64
	rec Rec
}

func (h *expiry) item(i int) *item {
	return (*item)(mem(h.pages[i/perPage] + pageHead + uint64(i%perPage)*16))
}

// reserve sees to room for one more.
func (h *expiry) reserve(s *Space) error {
	if h.n < h.room {
		return nil
	}
	items, grow := perPage, h.room > 0 && h.room < perPage
	if h.room < perPage {
		items = max(7, 2*h.room+1) // 7, 15, 31, 63, 127
	}
	size := pageHead + 16*items
	addr, small, err := s.alloc(size)
	if err != nil {
		return err
	}
	*word(addr) = kindPage<<kindShift | small
	*word(addr + 8) = uint64(size/8) << 53
	if grow {
		old := h.pages[0]
		copy(bytesAt(addr+pageHead, 16*h.n), bytesAt(old+pageHead, 16*h.n))
		h.pages[0] = addr
		s.dealloc(old, blockSize(old))
		h.room = items
		return nil
	}
	*word(addr) |= uint64(len(h.pages))
	h.pages = append(h.pages, addr)
	h.room += items
	return nil
}

// add puts a record that is marked as timed into the heap, in which reserve
// has made room.
func (h *expiry) add(r Rec, deadline int64) {
	*r.deadline() = deadline
	h.n++
	h.up(h.n-1, item{deadline, r})
}

func (h *expiry) change(r Rec, deadline int64) {
	*r.deadline() = deadline
	h.fix(int(*r.place()), item{deadline, r})
}

// remove takes the item at a place out.
func (h *expiry) remove(s *Space, i int) {
	h.n--
	last := *h.item(h.n)
	if i < h.n {
		h.fix(i, last)
	}
	if keep := (len(h.pages) - 2) * perPage; keep >= 0 && h.n <= keep || h.n == 0 && h.room > 7 {
		p := len(h.pages) - 1
		size := blockSize(h.pages[p])
		s.dealloc(h.pages[p], size)
		h.pages = h.pages[:p]
		h.room -= (size - pageHead) / 16
	}
}

// moved says that a timed record has another address.
func (h *expiry) moved(r Rec) { h.item(int(*r.place())).rec = r }

func (h *expiry) set(i int, it item) {
	*h.item(i) = it
	*it.rec.place() = uint32(i)
}

func (h *expiry) fix(i int, it item) {
	if i > 0 && h.item((i-1)/4).at > it.at {
		h.up(i, it)
	} else {
		h.down(i, it)
	}
}

// up puts an item at i or above it.
func (h *expiry) up(i int, it item) {
	for i > 0 {
		parent := (i - 1) / 4
		p := *h.item(parent)
		if p.at <= it.at {
			break
		}
		h.set(i, p)
		i = parent
	}
	h.set(i, it)
}

// down puts an item at i or below it.
func (h *expiry) down(i int, it item) {
	for {
		first := 4*i + 1
		if first >= h.n {
			break
		}
		least := *h.item(first)
		child := first
		for c := first + 1; c < min(first+4, h.n); c++ {
			if x := h.item(c); x.at < least.at {
				least, child = *x, c
			}
		}
		if least.at >= it.at {
			break
		}
		h.set(i, least)
		i = child
	}
	h.set(i, it)
}

// Timed is the number of records with a deadline.
func (s *Space) Timed() int { return s.expiry.n }

// Next is the record with the earliest deadline, 0 if none has one.
func (s *Space) Next() (r Rec, deadline int64) {
	if s.expiry.n == 0 {
		return 0, 0
	}
	it := s.expiry.item(0)
	return it.rec, it.at
}

// RandomTimed returns a record with a deadline, each as likely as any other,
// or 0 if there is none.
func (s *Space) RandomTimed(rng value.Rand) Rec {
	if s.expiry.n == 0 {
		return 0
	}
	return s.expiry.item(int(rng.Uint64() % uint64(s.expiry.n))).rec
}
