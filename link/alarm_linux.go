package link

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// An alarm wakes its one waiter on time. A time.Timer is up to a millisecond
// late in an idle process, since the runtime sleeps in epoll by whole
// milliseconds; of two such delays a simulated round trip would come out up to
// 2 ms too long. So only the bulk of a wait is the timer's, and the rest is a
// timerfd's, which is some 0.1 ms late. It can't be interrupted, but it's short.
type alarm struct {
	timer *time.Timer
	fd    *os.File // nil: there is none, and the timer has to do
}

// rest is what is left to the timerfd, above the worst lateness of the timer.
const rest = 1500 * time.Microsecond

func newAlarm() *alarm {
	a := &alarm{timer: time.NewTimer(time.Hour)}
	a.timer.Stop()
	if !clockIsReal() {
		return a
	}
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return a
	}
	a.fd = os.NewFile(uintptr(fd), "timerfd")
	return a
}

// clockIsReal reports whether this goroutine sees the machine's clock. In a
// testing/synctest bubble it doesn't, and a kernel's timer must not be used.
func clockIsReal() bool {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return true
	}
	return time.Since(time.Unix(ts.Unix())).Abs() < time.Hour
}

// wait returns after d, which is positive, or when one of the channels has
// something, or sooner; the caller looks at the clock again in any case.
func (a *alarm) wait(d time.Duration, changed, wake <-chan struct{}) {
	if a.fd != nil {
		if d <= rest {
			a.waitPrecisely(d)
			return
		}
		d -= rest
	}
	a.timer.Reset(d)
	select {
	case <-a.timer.C:
	case <-changed:
	case <-wake:
	}
	a.timer.Stop()
}

func (a *alarm) waitPrecisely(d time.Duration) {
	var b [8]byte
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	raw, err := a.fd.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { unix.TimerfdSettime(int(fd), 0, &spec, nil) })
	}
	if err == nil {
		_, err = a.fd.Read(b[:])
	}
	if err != nil { // it never has been seen; the timer does it then
		a.fd.Close()
		a.fd = nil
	}
}

func (a *alarm) close() {
	a.timer.Stop()
	if a.fd != nil {
		a.fd.Close()
	}
}
