// Package pace has work in the background give way to what clients wait for.
//
// A system's scheduler lets a thread that computes go on for some milliseconds before
// another that has just woken on its processor gets its turn; on few cores that is what a
// client then waits. A thread that often sleeps for a moment is no such obstacle.
package pace

import (
	"runtime"
	"time"
)

// Step is about how long a worker works at a stretch, and rests at least.
const Step = 250 * time.Microsecond

// A Pace is of one goroutine.
type Pace struct {
	share float64
	pause func(time.Duration)
	hurry func() bool
	now   func() time.Time
	last  time.Time
	owed  time.Duration
}

// New makes a pace for a worker that takes up to share of a core, more than 0 and at most 1. pause
// waits; while hurry, which may be nil, reports true, nobody rests.
func New(share float64, pause func(time.Duration), hurry func() bool) *Pace {
	return newPace(share, pause, hurry, time.Now)
}

func newPace(share float64, pause func(time.Duration), hurry func() bool, now func() time.Time) *Pace {
	if hurry == nil {
		hurry = func() bool { return false }
	}
	return &Pace{share: share, pause: pause, hurry: hurry, now: now, last: now()}
}

// mostWorked is the most that counts as work between two calls of Rest. What is longer was
// spent waiting, for a disk or a processor.
const mostWorked = 8 * Step

// Rest is called again and again while there is work, at least once in a Step. It
// pauses when enough has come together, and else lets go on what waits in Go's scheduler,
// also in a hurry: a lock that is let go is for whoever waits for it.
func (p *Pace) Rest() {
	now := p.now()
	if p.hurry() {
		p.last, p.owed = now, 0
		runtime.Gosched()
		return
	}
	worked := min(now.Sub(p.last), mostWorked)
	p.last = now
	if p.owed += time.Duration(float64(worked) * (1/p.share - 1)); p.owed >= Step {
		p.pause(p.owed)
		p.owed = 0
		p.last = p.now()
	} else {
		runtime.Gosched()
	}
}
