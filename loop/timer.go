package loop

import "time"

// A Timer is a function to be called on its loop's thread at a time.
type Timer struct {
	when  time.Time
	fn    func()
	heap  *timerHeap
	index int // in the heap; -1 when it isn't there

	owner *Owner // whose turn it fires in; nil: none's
	over  bool   // it has fired or been stopped; for the owner
}

// After has fn called on the loop's thread d after Now: never before that, and
// up to a millisecond and a batch later.
func (l *Loop) After(d time.Duration, fn func()) *Timer {
	return l.timers.add(l.now.Add(d), fn)
}

// Stop keeps the timer from firing. It returns false when it had fired or been stopped.
func (t *Timer) Stop() bool {
	if o := t.owner; o != nil {
		if t.over {
			return false
		}
		t.over = true
		o.ask(op{kind: opUnsetTimer, timer: t})
		return true
	}
	if t.index < 0 {
		return false
	}
	t.heap.remove(t)
	return true
}

// fire is called in the owner's turn.
func (t *Timer) fire() {
	t.over = true
	t.fn()
}

// A timerHeap is a binary heap with the next timer first. Each timer knows
// its place, so that it can be taken out of the middle.
type timerHeap []*Timer

func (h *timerHeap) add(when time.Time, fn func()) *Timer {
	t := &Timer{when: when, fn: fn, heap: h}
	h.insert(t)
	return t
}

func (h *timerHeap) insert(t *Timer) {
	t.index = len(*h)
	*h = append(*h, t)
	h.up(t.index)
}

// due reports whether there is one to be run.
func (h timerHeap) due(now time.Time) bool { return len(h) > 0 && !h[0].when.After(now) }

// run calls all that are due, or has their owners do so. What they add, be it due, is for the next run.
func (h *timerHeap) run(now time.Time) {
	var due []*Timer
	for h.due(now) {
		t := (*h)[0]
		h.remove(t)
		if t.owner != nil {
			t.owner.push(item{timer: t})
			continue
		}
		due = append(due, t)
		t.index = firing
	}
	for _, t := range due {
		if t.index == firing { // one that ran before it may have stopped it
			t.index = -1
			t.fn()
		}
	}
}

// firing is the index of a timer that is due and about to be called.
const firing = 1 << 62

// wait is how long until the next timer, and negative when there is none. The
// clock is only asked when there is one.
func (h timerHeap) wait(now func() time.Time) time.Duration {
	if len(h) == 0 {
		return -1
	}
	return max(h[0].when.Sub(now()), 0)
}

func (h *timerHeap) remove(t *Timer) {
	if t.index == firing || t.index < 0 {
		t.index = -1
		return
	}
	list := *h
	i, last := t.index, len(list)-1
	if i != last {
		list[i] = list[last]
		list[i].index = i
	}
	list[last] = nil
	*h = list[:last]
	if i != last && !h.up(i) {
		h.down(i)
	}
	t.index = -1
}

// up moves a timer towards the head for as long as it is due before its
// parent, and tells whether it has moved.
func (h timerHeap) up(i int) bool {
	start := i
	for i > 0 {
		parent := (i - 1) / 2
		if !h[i].when.Before(h[parent].when) {
			break
		}
		h.swap(i, parent)
		i = parent
	}
	return i != start
}

func (h timerHeap) down(i int) {
	for {
		first := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h); child++ {
			if h[child].when.Before(h[first].when) {
				first = child
			}
		}
		if first == i {
			return
		}
		h.swap(i, first)
		i = first
	}
}

func (h timerHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
