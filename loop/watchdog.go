package loop

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A loop's calls must not take long, and some do: KEYS over millions of keys,
// a script, a lock that somebody holds. The watchdog looks at all loops of the
// process every few milliseconds, and when one is in a call then, a millisecond later
// once more. When it is the same call, it takes the loop over from the runner and
// gives it to another, which goes on with everybody but the owner whose call it is.
// While there are slow calls about, it looks every millisecond.
//
//	             enter                      exit
//	idle ────────────────────► in a call ─────────► idle
//	                               │
//	                               │ the watchdog, by compare and swap, against exit
//	                               ▼
//	                            taken ──► the new runner: idle, in a call, …
//	                               └────► the old one: ends its call and posts Owner.home
//
// What there is of a loop at that moment is whole, because a runner is in a
// call only inside Loop.call and Conn.data, which leave nothing half done before they enter and touch
// nothing when they couldn't exit. The memory that a call uses, the buffer with its input above all,
// is the runner's and stays with it.
//
// What can't be taken over: Options.BeforeFlush (the write of a journal) but for
// what it does in Loop.Wait (its sync), functions given to Loop.Post and Loop.After, and calls for connections that have no
// owner. They serve all alike and must not take long.
//
// The stuck call goes on computing, so it takes a processor from whoever
// else would have it, as far as the system's scheduler allows; but not from Go's, which would
// give a loop its turn after 10 ms only. So Go is allowed one goroutine more for each call that is
// away, and one for the watchdog itself.
var guard = watchdog{roused: make(chan struct{}, 1)}

// watched is what the watchdog sees of a loop.
type watched struct {
	call  atomic.Uint64 // odd while in a call; each has a number of its own
	last  uint64        // the number of the last call; for the runner
	owner *Owner        // whose call it is; nil: it is Loop.Wait's

	shared atomic.Uint32 // the look at which another owner was served than before

	seen  uint64 // call, when the watchdog last looked
	again int    // how often it has seen it since
}

// enter begins a call. What is the loop's is not the caller's to touch until
// exit has returned true.
func (l *Loop) enter(r *runner, o *Owner) (call uint64) {
	o.calling, o.runner, o.now = true, r, l.now
	if l.ending {
		return 0
	}
	return l.watched.begin(o)
}

// exit ends a call. It returns false when the loop has been taken from the
// runner meanwhile.
func (l *Loop) exit(call uint64) bool {
	return call == 0 || l.watched.call.CompareAndSwap(call, call+1)
}

// Wait calls fn, which may wait for a disk and touches nothing of the loop's. It
// is for BeforeFlush. When fn takes long the loop is taken over, as from a call, and goes on
// without the batch's replies: BeforeFlush is called anew before any of them leaves. Then
// Wait returns false, in its time, and so must BeforeFlush, without touching what is the
// loop's.
func (l *Loop) Wait(fn func()) (mine bool) {
	if l.ending {
		fn()
		return true
	}
	r := l.runner
	call := l.watched.begin(nil)
	fn()
	if r.lost = !l.exit(call); r.lost {
		guard.away.Add(-1)
	}
	return !r.lost
}

// begin notes that a call begins; w isn't the runner's any more.
func (w *watched) begin(o *Owner) (call uint64) {
	w.last += 2
	w.owner = o
	call = w.last + 1
	w.call.Store(call)
	if guard.asleep.Load() {
		guard.rouse()
	}
	return call
}

const (
	// shortLook is how long after it has seen a call the watchdog looks
	// whether that has ended, and how often it looks at all for a while after it has seen a slow one.
	shortLook = time.Millisecond
	// longLook is how often it looks else. Each look costs ten microseconds of
	// processor.
	longLook = 5 * time.Millisecond
	// alertFor is how many looks that while is.
	alertFor = 1000
	// aloneFor is after how many looks an owner counts as alone on its loop that
	// nobody else was served with, and aloneLenience how many looks its calls may then take: there
	// is hardly anybody to be kept waiting, and on a busy machine a call may look slow
	// because its thread had to wait.
	aloneFor      = 200
	aloneLenience = 10
	// idleLooks is how often it looks without seeing anything before it sleeps.
	idleLooks = 10
	// mostAway bounds how many more goroutines Go is allowed.
	mostAway = 32
)

// A watchdog is one goroutine, for as long as there are loops in the process.
type watchdog struct {
	asleep atomic.Bool
	roused chan struct{}

	life sync.Mutex // held while the goroutine is started or awaited; before mu
	mu   struct {
		sync.Mutex
		loops []*Loop
		ended chan struct{} // of the goroutine
		procs int           // what Go was allowed at first
		more  int           // and is allowed beyond it
	}
	away  atomic.Int32  // calls that have been taken over and have not ended
	looks atomic.Uint32 // how often it has looked
	alert atomic.Int32  // how many more looks will be short
}

// watch adds a loop that is about to run.
func (w *watchdog) watch(l *Loop) {
	w.life.Lock()
	defer w.life.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.loops = append(w.mu.loops, l)
	if len(w.mu.loops) == 1 {
		w.mu.procs, w.mu.more = runtime.GOMAXPROCS(0), 0
		w.mu.ended = make(chan struct{})
		w.allowLocked(1)
		go w.run(w.mu.ended)
	}
}

// leave takes a loop off the list that has ended, and waits for the goroutine
// if it was the last.
func (w *watchdog) leave(l *Loop) {
	w.life.Lock()
	defer w.life.Unlock()
	w.mu.Lock()
	w.mu.loops = slices.DeleteFunc(w.mu.loops, func(other *Loop) bool { return other == l })
	ended := w.mu.ended
	last := len(w.mu.loops) == 0
	w.mu.Unlock()
	if last {
		w.rouse()
		<-ended
		runtime.GOMAXPROCS(w.mu.procs)
	}
}

// rouse wakes the watchdog.
func (w *watchdog) rouse() {
	if w.asleep.CompareAndSwap(true, false) {
		w.roused <- struct{}{}
	}
}

func (w *watchdog) run(ended chan struct{}) {
	defer close(ended)
	idle := 0
	pause := longLook
	for {
		loops, moved, suspect := w.look(pause)
		if loops == 0 {
			return
		}
		if idle++; moved {
			idle = 0
		}
		alert := w.alert.Load()
		if away := w.away.Load(); away > 0 {
			w.alert.Store(alertFor)
			w.allow(1 + int(away))
		} else if alert > 0 && w.alert.CompareAndSwap(alert, alert-1) && alert == 1 {
			w.calm()
		}
		switch {
		case idle >= idleLooks && alert == 0:
		case suspect || alert > 0:
			pause = shortLook
			time.Sleep(pause)
			continue
		default:
			pause = longLook
			time.Sleep(pause)
			continue
		}
		// Whoever enters a call from here on sees that it is to be told.
		w.asleep.Store(true)
		if loops, moved, suspect = w.look(pause); loops == 0 || moved || suspect {
			if w.asleep.CompareAndSwap(true, false) {
				idle = 0
				continue
			}
		}
		<-w.roused
		idle = 0
	}
}

// look looks at all loops, after a pause. It returns how many there are, whether
// one of them has been in a call since the last time, and whether one is in a call that is to be
// looked at again soon. A call that began in a short pause isn't: if it is slow, it
// will be seen again in time after a long one.
func (w *watchdog) look(pause time.Duration) (loops int, moved, suspect bool) {
	w.looks.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.mu.loops {
		call := l.watched.call.Load()
		fresh := call != l.watched.seen
		moved = moved || fresh
		switch {
		case call&1 == 0:
		case fresh:
			l.watched.again = 0
			suspect = suspect || pause > shortLook
		default:
			if l.watched.again++; l.watched.again >= w.lenience(l) {
				w.takeOverLocked(l, call)
			} else {
				suspect = true
			}
		}
		l.watched.seen = call
	}
	return len(w.mu.loops), moved, suspect
}

// lenience is at how many looks after the first the same call is too slow.
func (w *watchdog) lenience(l *Loop) int {
	if w.looks.Load()-l.watched.shared.Load() > aloneFor {
		return aloneLenience
	}
	return 1
}

// takeOverLocked takes a loop from its runner if that is still in its call.
func (w *watchdog) takeOverLocked(l *Loop, call uint64) {
	if !l.watched.call.CompareAndSwap(call, call+1) {
		return
	}
	// The loop is nobody's now but ours.
	w.allowLocked(1 + int(w.away.Add(1)))
	if o := l.watched.owner; o != nil {
		o.state = away
		o.slow = suspicion
		l.missing++
	}
	l.start(l.newRunner())
}

// allow says how many goroutines Go may run at once, beside what it could at
// first.
func (w *watchdog) allow(more int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.allowLocked(more)
}

// calm takes back what allow has allowed.
func (w *watchdog) calm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.more > 1 {
		w.mu.more = 0
		w.allowLocked(1)
	}
}

func (w *watchdog) allowLocked(more int) {
	if more = min(more, mostAway); more > w.mu.more {
		w.mu.more = more
		runtime.GOMAXPROCS(w.mu.procs + more)
	}
}
