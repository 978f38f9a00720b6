package engine

import (
	"sync"
	"sync/atomic"
)

// A latch is a mutex that can be asked for without waiting: who finds it taken
// leaves a note.
type latch struct {
	sync.Mutex
	note atomic.Pointer[func()]
}

// Unlock lets go, and calls the note that was left meanwhile.
func (l *latch) Unlock() {
	l.Mutex.Unlock()
	if l.note.Load() != nil {
		if note := l.note.Swap(nil); note != nil {
			(*note)()
		}
	}
}

// Free reports whether nobody holds the lock. If somebody does, note is called
// soon after they let go; only the last note counts. It may also be called
// when Free has returned true.
func (l *latch) Free(note func()) bool {
	if l.TryLock() {
		l.Mutex.Unlock()
		return true
	}
	l.note.Store(&note)
	if l.TryLock() { // they may have let go before they could see it
		l.note.Store(nil)
		l.Mutex.Unlock()
		return true
	}
	return false
}
