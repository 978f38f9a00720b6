package loop

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTimersFireInOrder(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	var h timerHeap
	var fired []string
	add := func(ms int, name string) *Timer {
		return h.add(at(ms), func() { fired = append(fired, name) })
	}
	clock := func() time.Time { return at(7) }
	if wait := h.wait(clock); wait >= 0 {
		t.Errorf("no timers: wait %v", wait)
	}
	add(30, "c")
	b := add(20, "b")
	add(10, "a")
	if wait := h.wait(clock); wait != 3*time.Millisecond {
		t.Errorf("next is due at 10, it is 7: wait %v", wait)
	}
	h.run(at(9))
	if len(fired) != 0 {
		t.Errorf("too early: %v", fired)
	}
	h.run(at(10))
	if !b.Stop() || b.Stop() {
		t.Error("Stop tells whether it stopped the timer")
	}
	h.run(at(100))
	if strings.Join(fired, "") != "ac" {
		t.Errorf("fired %v", fired)
	}
	add(50, "d")
	if wait := h.wait(func() time.Time { return at(60) }); wait != 0 {
		t.Errorf("overdue: wait %v", wait)
	}
}

func TestTimersThatTouchTimers(t *testing.T) {
	start := time.Unix(1000, 0)
	var h timerHeap
	var fired []string
	var second *Timer
	h.add(start, func() {
		fired = append(fired, "first")
		if !second.Stop() {
			t.Error("it was due but had not run")
		}
		h.add(start, func() { fired = append(fired, "added") })
	})
	second = h.add(start.Add(1), func() { fired = append(fired, "second") })
	h.run(start.Add(time.Second))
	if fmt.Sprint(fired) != "[first]" {
		t.Errorf("first run: %v", fired)
	}
	h.run(start.Add(time.Second))
	if fmt.Sprint(fired) != "[first added]" {
		t.Errorf("second run: %v", fired)
	}
}

// Against a sorted list, with timers stopped in the middle.
func TestTimersAgainstAModel(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		now := time.Unix(1000, 0)
		var h timerHeap
		live := map[*Timer]bool{}
		var last time.Time
		for range 2000 {
			switch rng.IntN(3) {
			case 0:
				var timer *Timer
				timer = h.add(now.Add(time.Duration(rng.IntN(1000))), func() {
					if !live[timer] {
						t.Fatalf("seed %d: one fired that should not", seed)
					}
					if timer.when.Before(last) {
						t.Fatalf("seed %d: out of order", seed)
					}
					last = timer.when
					delete(live, timer)
				})
				live[timer] = true
			case 1:
				for timer := range live {
					if !timer.Stop() {
						t.Fatalf("seed %d: a live timer can't be stopped", seed)
					}
					delete(live, timer)
					break
				}
			case 2:
				now = now.Add(time.Duration(rng.IntN(50)))
				last = time.Time{}
				h.run(now)
				for timer := range live {
					if !timer.when.After(now) {
						t.Fatalf("seed %d: a due timer did not fire", seed)
					}
				}
			}
			if len(h) != len(live) {
				t.Fatalf("seed %d: %d in the heap, %d live", seed, len(h), len(live))
			}
		}
	}
}

func TestAfterOnALoop(t *testing.T) {
	l := startLoop(t, Options{})
	order := make(chan int, 4)
	do(t, l, func() {
		l.After(3*time.Millisecond, func() { order <- 3 })
		l.After(time.Millisecond, func() { order <- 1 })
		stopped := l.After(2*time.Millisecond, func() { order <- 2 })
		l.After(0, func() { order <- 0 })
		stopped.Stop()
	})
	if got := []int{<-order, <-order, <-order}; !slices.Equal(got, []int{0, 1, 3}) {
		t.Errorf("order %v", got)
	}
}
