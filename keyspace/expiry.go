package keyspace

// expiryHeap is the keys of one logical database that have a deadline, the
// earliest first. Each entry knows its place, so a deadline that is changed
// or taken away costs a few moves and leaves nothing behind.
type expiryHeap []*entry

// set gives e the deadline at, which isn't 0.
func (h *expiryHeap) set(e *entry, at int64) {
	if e.expire == 0 {
		e.heap = int32(len(*h))
		*h = append(*h, e)
	}
	e.expire = at
	h.fix(int(e.heap))
}

// remove takes e's deadline away, if it has one.
func (h *expiryHeap) remove(e *entry) {
	if e.expire == 0 {
		return
	}
	i, last := int(e.heap), len(*h)-1
	if i != last {
		(*h)[i] = (*h)[last]
		(*h)[i].heap = int32(i)
	}
	(*h)[last] = nil
	*h = (*h)[:last]
	if i != last {
		h.fix(i)
	}
	e.expire = 0
}

func (h expiryHeap) fix(i int) {
	for i > 0 {
		up := (i - 1) / 2
		if h[up].expire <= h[i].expire {
			break
		}
		h.swap(i, up)
		i = up
	}
	for {
		down := 2*i + 1
		if down >= len(h) {
			return
		}
		if r := down + 1; r < len(h) && h[r].expire < h[down].expire {
			down = r
		}
		if h[i].expire <= h[down].expire {
			return
		}
		h.swap(i, down)
		i = down
	}
}

func (h expiryHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heap, h[j].heap = int32(i), int32(j)
}
