package loop

import (
	"testing"
)

// The watchdog looks again soon at a call that it sees for the first time after a long
// pause, and at one that it sees again; a busy loop, which is in another call at each
// look, doesn't keep it at short pauses.
func TestWatchdogLooksOnceMoreAndNotForEver(t *testing.T) {
	l := &Loop{}
	var w watchdog
	w.mu.loops = []*Loop{l}
	w.looks.Store(2 * aloneFor) // alone, so that nothing is taken over yet
	for i, step := range []struct {
		call       uint64
		pauseShort bool
		moved      bool
		suspect    bool
	}{
		{call: 0},
		{call: 3, moved: true, suspect: true}, // fresh, after a long pause
		{call: 5, pauseShort: true, moved: true, suspect: false}, // another one
		{call: 5, suspect: true},                                 // it is still there
		{call: 5, pauseShort: true, suspect: true},
		{call: 6, pauseShort: true, moved: true},
	} {
		l.watched.call.Store(step.call)
		pause := longLook
		if step.pauseShort {
			pause = shortLook
		}
		loops, moved, suspect := w.look(pause)
		if loops != 1 || moved != step.moved || suspect != step.suspect {
			t.Errorf("look %d: %d loops, moved %t, suspect %t; want 1, %t, %t", i, loops, moved, suspect, step.moved, step.suspect)
		}
	}
}
