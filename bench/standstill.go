package main

import (
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A standstill is a time in which no processor of this machine did anything, because its
// hypervisor gave it none: a guest that has used up its share stands still for
// some milliseconds, several times a second. What was under way meanwhile says nothing
// about a server.
//
// It is told by a thread for each processor, before all others in the system's
// order, that sleeps again and again for a moment. A thread that wakes late was kept by
// its processor; when all are late at once, there was none.

// span is a time between two moments, from a common beginning.
type span struct{ from, to time.Duration }

const (
	// wakes is how often the threads wake, and late by how much they count as late.
	wakes = 500 * time.Microsecond
	late  = 500 * time.Microsecond
)

// watchStandstills watches until it is ended, and then tells all standstills, in order. It sees none
// where the system doesn't let it: as root it does.
func watchStandstills(begun time.Time) (end func() []span) {
	var cpus unix.CPUSet
	if unix.SchedGetaffinity(0, &cpus) != nil {
		return func() []span { return nil }
	}
	var (
		over    atomic.Bool
		threads sync.WaitGroup
		mu      sync.Mutex
		kept    [][]span
		blind   bool
	)
	for cpu := range len(cpus) * 64 {
		if !cpus.IsSet(cpu) {
			continue
		}
		threads.Go(func() {
			runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
			spans, ok := lateWakes(cpu, begun, &over)
			mu.Lock()
			defer mu.Unlock()
			kept, blind = append(kept, spans), blind || !ok
		})
	}
	return func() []span {
		over.Store(true)
		threads.Wait()
		if blind || len(kept) == 0 {
			return nil
		}
		all := kept[0]
		for _, other := range kept[1:] {
			all = common(all, other)
		}
		return all
	}
}

// lateWakes is one of the threads: when its processor kept it.
func lateWakes(cpu int, begun time.Time, over *atomic.Bool) (spans []span, ok bool) {
	var mine unix.CPUSet
	mine.Set(cpu)
	if unix.SchedSetaffinity(0, &mine) != nil {
		return nil, false
	}
	if unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0) != nil {
		return nil, false
	}
	pause := unix.NsecToTimespec(int64(wakes))
	for last := time.Since(begun); !over.Load(); {
		unix.Nanosleep(&pause, nil)
		now := time.Since(begun)
		if now-last > wakes+late {
			spans = append(spans, span{last, now})
		}
		last = now
	}
	return spans, true
}

// common is what two lists of spans have in common. Both are in order and don't overlap
// themselves, and so is what they have in common.
func common(a, b []span) (both []span) {
	for len(a) > 0 && len(b) > 0 {
		if s := (span{max(a[0].from, b[0].from), min(a[0].to, b[0].to)}); s.to-s.from > late {
			both = append(both, s)
		}
		if a[0].to < b[0].to {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return both
}

// hit reports whether something that took from one moment to another was under way in a
// standstill.
func hit(still []span, from, to time.Duration) bool {
	i := sort.Search(len(still), func(i int) bool { return still[i].to > from })
	return i < len(still) && still[i].from < to
}
