package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A standstill is a time in which no processor of this machine did anything, or one of them didn't, because its
// hypervisor gave it none: a guest that has used up its share stands still for
// some milliseconds, several times a second. What was under way meanwhile says nothing
// about a server.
//
// It is told by a thread for each processor, before all others in the system's
// order, that sleeps again and again for a moment. A thread that wakes late was kept by
// its processor; when all are late at once, there was none. Where only one is late, the kernel may have
// been busy there; so that counts only when it says that the time was stolen (proc_stat(5)), which it does in ticks
// of 10 ms.

// The threads are of a process of their own: in that of the load they would stand in the way of
// its scheduler.

// span is a time between two moments, from a common beginning.
type span struct{ from, to time.Duration }

const (
	// wakes is how often the threads wake, and late by how much they count as late.
	wakes = 500 * time.Microsecond
	late  = 500 * time.Microsecond
	// tick is the unit of the time that was stolen, and lookAgain after how many wakes it is looked up at
	// least: what was stolen before is not of this time.
	tick      = 10 * time.Millisecond
	lookAgain = 100

	watching = "watching" // what the process says first
)

// watchStandstills watches until it is ended, and then tells all standstills, in order, from begun on. It sees
// none where the system doesn't let it: as root it does.
func watchStandstills() (end func(begun time.Time) ([]span, error), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	watcher := exec.Command(self, "watch")
	watcher.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	watcher.Stderr = os.Stderr
	stop, err := watcher.StdinPipe()
	if err != nil {
		return nil, err
	}
	says, err := watcher.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := watcher.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(says)
	if !lines.Scan() || lines.Text() != watching {
		stop.Close()
		return nil, fmt.Errorf("watch for standstills: it said %q: %w", lines.Text(), watcher.Wait())
	}
	return func(begun time.Time) (still []span, err error) {
		now, since := monotonic(), time.Since(begun) // what stands between the two clocks
		stop.Close()
		for lines.Scan() {
			var s span
			if _, err := fmt.Sscan(lines.Text(), &s.from, &s.to); err != nil {
				return nil, fmt.Errorf("watch for standstills: %q: %w", lines.Text(), err)
			}
			still = append(still, span{s.from - now + since, s.to - now + since})
		}
		return still, watcher.Wait()
	}, nil
}

// monotonic is the time of a clock that all processes have in common.
func monotonic() time.Duration {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return time.Duration(t.Nano())
}

// runWatch is the process that watches, until its input ends. Then it writes a line for each
// standstill.
func runWatch(context.Context, []string) error {
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		return fmt.Errorf("watch for standstills: %w", err)
	}
	var (
		over           atomic.Bool
		ready, threads sync.WaitGroup
		mu             sync.Mutex
		kept           [][]span
		stolen         []span
		blind          bool
	)
	runtime.GOMAXPROCS(cpus.Count() + 1) // the threads don't tell Go's scheduler that they sleep
	for cpu := range len(cpus) * 64 {
		if !cpus.IsSet(cpu) {
			continue
		}
		ready.Add(1)
		threads.Go(func() {
			runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
			var spans, robbed []span
			ok := riseAbove(cpu)
			ready.Done()
			if ok {
				spans, robbed = lateWakes(cpu, &over)
			}
			mu.Lock()
			defer mu.Unlock()
			kept, stolen, blind = append(kept, spans), append(stolen, robbed...), blind || !ok
		})
	}
	ready.Wait()
	fmt.Println(watching)
	io.Copy(io.Discard, os.Stdin)
	over.Store(true)
	threads.Wait()
	if blind {
		return nil
	}
	all := kept[0]
	for _, other := range kept[1:] {
		all = common(all, other)
	}
	for _, s := range joined(append(all, stolen...)) {
		fmt.Println(int64(s.from), int64(s.to))
	}
	return nil
}

// riseAbove puts the thread on one processor, before all others there, if it may.
func riseAbove(cpu int) bool {
	var mine unix.CPUSet
	mine.Set(cpu)
	return unix.SchedSetaffinity(0, &mine) == nil &&
		unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0) == nil
}

// lateWakes sleeps again and again until it is over, and returns when it woke late, and which of
// that the kernel says was stolen from the processor.
func lateWakes(cpu int, over *atomic.Bool) (spans, stolen []span) {
	stat, err := os.Open("/proc/stat")
	if err == nil {
		defer stat.Close()
	}
	pause := unix.NsecToTimespec(int64(wakes))
	page := make([]byte, 16<<10)
	before := stolenFrom(stat, cpu, page)
	n := 0
	for last := monotonic(); !over.Load(); n++ {
		syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0)
		now := monotonic()
		kept := now - last - wakes
		if kept > late {
			spans = append(spans, span{last, now})
		}
		if kept > tick || n%lookAgain == 0 {
			robbed := stolenFrom(stat, cpu, page)
			if kept > tick && robbed-before > 0 && robbed-before >= kept-2*tick {
				stolen = append(stolen, span{last, now})
			}
			before = robbed
		}
		last = now
	}
	return spans, stolen
}

// stolenFrom is the time that was stolen from a processor, in ticks that have passed, 0 where the system
// doesn't say.
func stolenFrom(stat *os.File, cpu int, page []byte) time.Duration {
	if stat == nil {
		return 0
	}
	n, _ := stat.ReadAt(page, 0)
	name := fmt.Sprintf("cpu%d", cpu)
	for line := range strings.Lines(string(page[:n])) {
		const steal = 8
		if f := strings.Fields(line); len(f) > steal && f[0] == name {
			ticks, _ := strconv.ParseInt(f[steal], 10, 64)
			return time.Duration(ticks) * tick
		}
	}
	return 0
}

// joined is spans in order, those that overlap made one.
func joined(spans []span) (all []span) {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	for _, s := range spans {
		if n := len(all); n > 0 && s.from <= all[n-1].to {
			all[n-1].to = max(all[n-1].to, s.to)
			continue
		}
		all = append(all, s)
	}
	return all
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
