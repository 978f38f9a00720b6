package slab

import "sync"

// The reaper gives back what would hold its owner up: the chunks of a space
// that was closed or forgotten, and large blocks. It is a goroutine that is
// there while there is work. Drain waits for it.
var reaper struct {
	mu      sync.Mutex
	queue   []*holdings
	running bool
	working sync.Mutex // held while memory is given back
}

// reap gives all that h holds back, later. The caller has no use of it any
// more.
func reap(h *holdings) {
	reaper.mu.Lock()
	defer reaper.mu.Unlock()
	reaper.queue = append(reaper.queue, h)
	if !reaper.running {
		reaper.running = true
		go func() {
			for reapOne(true) {
			}
		}()
	}
}

// Drain returns when all memory that was let go so far has been given back.
// Whoever ends the process, or measures it, calls it.
func Drain() {
	for reapOne(false) {
	}
	reaper.working.Lock() // what another goroutine is at
	defer reaper.working.Unlock()
}

func reapOne(owner bool) bool {
	reaper.working.Lock()
	defer reaper.working.Unlock()
	reaper.mu.Lock()
	if len(reaper.queue) == 0 {
		reaper.queue = nil
		if owner {
			reaper.running = false
		}
		reaper.mu.Unlock()
		return false
	}
	h := reaper.queue[0]
	reaper.queue[0] = nil
	reaper.queue = reaper.queue[1:]
	reaper.mu.Unlock()
	h.giveAll()
	return true
}
