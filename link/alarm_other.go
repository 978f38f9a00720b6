//go:build !linux

package link

import "time"

// An alarm wakes its one waiter; on Linux more precisely than this.
type alarm struct{ timer *time.Timer }

func newAlarm() *alarm {
	a := &alarm{timer: time.NewTimer(time.Hour)}
	a.timer.Stop()
	return a
}

// wait returns after d, or when one of the channels has something.
func (a *alarm) wait(d time.Duration, changed, wake <-chan struct{}) {
	a.timer.Reset(d)
	select {
	case <-a.timer.C:
	case <-changed:
	case <-wake:
	}
	a.timer.Stop()
}

func (a *alarm) close() { a.timer.Stop() }
