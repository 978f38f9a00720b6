package tier

import (
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// scheduler says when Pebble may compact: as often as Pebble itself finds right,
// but not at all while it is to be quiet. Pebble asks it, with locks held, when a
// compaction has become worth while; when it was refused, it waits to be called.
//
// Pebble's own scheduler looks ten times a second whether something waits; this one
// when something happened, and each second, in grant.
type scheduler struct {
	quiet atomic.Bool
	poke  func() // has grant called soon

	mu struct {
		sync.Mutex
		db       pebble.DBForCompaction
		running  int
		granting bool
		gone     bool
		changed  sync.Cond // granting ended
	}
}

var (
	_ pebble.CompactionScheduler   = (*scheduler)(nil)
	_ pebble.CompactionGrantHandle = (*scheduler)(nil)
)

func newScheduler(poke func()) *scheduler {
	s := &scheduler{poke: poke}
	s.mu.changed.L = &s.mu
	return s
}

func (s *scheduler) Register(_ int, db pebble.DBForCompaction) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.db = db
}

// Unregister returns when no compaction will be granted any more.
func (s *scheduler) Unregister() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.gone = true
	for s.mu.granting {
		s.mu.changed.Wait()
	}
}

func (s *scheduler) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.gone || s.quiet.Load() || s.mu.running >= s.mu.db.GetAllowedWithoutPermission() {
		return false, nil
	}
	s.mu.running++
	return true, s
}

func (s *scheduler) UpdateGetAllowedWithoutPermission() { s.poke() }

// grant starts compactions that wait. No lock of Pebble's is held.
func (s *scheduler) grant() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.granting || s.mu.db == nil {
		return
	}
	s.mu.granting = true
	for !s.mu.gone && !s.quiet.Load() && s.mu.running < s.mu.db.GetAllowedWithoutPermission() {
		s.mu.Unlock()
		waiting, _ := s.mu.db.GetWaitingCompaction()
		granted := waiting && s.mu.db.Schedule(s)
		s.mu.Lock()
		if !granted {
			break
		}
		s.mu.running++
	}
	s.mu.granting = false
	s.mu.changed.Broadcast()
}

// What follows is the handle of a compaction that was granted.

func (s *scheduler) Started()                                          {}
func (s *scheduler) MeasureCPU(pebble.CompactionGoroutineKind)         {}
func (s *scheduler) CumulativeStats(pebble.CompactionGrantHandleStats) {}

func (s *scheduler) Done() {
	s.mu.Lock()
	s.mu.running--
	s.mu.Unlock()
	s.grant()
}
