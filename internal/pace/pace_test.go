package pace

import (
	"testing"
	"time"
)

// clock is a time that only work and pauses move.
type clock struct {
	now            time.Time
	worked, rested time.Duration
	longest        time.Duration // work without a pause
	stretch        time.Duration
}

func (c *clock) work(d time.Duration) {
	c.now = c.now.Add(d)
	c.worked += d
	c.stretch += d
	c.longest = max(c.longest, c.stretch)
}

func (c *clock) pause(d time.Duration) {
	c.now = c.now.Add(d)
	c.rested += d
	c.stretch = 0
}

func TestWorkTakesItsShareInShortStretches(t *testing.T) {
	for _, share := range []float64{0.25, 0.5, 0.8} {
		var c clock
		p := newPace(share, c.pause, nil, func() time.Time { return c.now })
		for range 10_000 {
			c.work(40 * time.Microsecond)
			p.Rest()
		}
		if got := float64(c.worked) / float64(c.worked+c.rested); got < share-0.02 || got > share+0.02 {
			t.Errorf("share %v: took %.3f", share, got)
		}
		if most := time.Duration(float64(Step)/(1/share-1)) + 40*time.Microsecond; c.longest > most {
			t.Errorf("share %v: worked for %v without a rest, want at most %v", share, c.longest, most)
		}
	}
}

func TestWaitingIsNoWork(t *testing.T) {
	var c clock
	p := newPace(0.5, c.pause, nil, func() time.Time { return c.now })
	c.work(time.Minute) // of which most was the disk's
	p.Rest()
	if c.rested > mostWorked {
		t.Errorf("rested for %v after a wait", c.rested)
	}
}

func TestWhoIsInAHurryDoesNotRest(t *testing.T) {
	var c clock
	hurry := true
	p := newPace(0.5, c.pause, func() bool { return hurry }, func() time.Time { return c.now })
	for range 1000 {
		c.work(Step)
		p.Rest()
	}
	if c.rested != 0 {
		t.Errorf("rested for %v in a hurry", c.rested)
	}
	hurry = false
	c.work(Step)
	p.Rest()
	if c.rested != Step {
		t.Errorf("rested for %v when the hurry was over, want %v: it owes nothing for before", c.rested, Step)
	}
}
