package sim

import (
	"flag"
	"fmt"
	"runtime"
	"sync"
	"testing"
)

var (
	seeds = flag.Int("seeds", 120, "how many worlds to try")
	seed  = flag.Uint64("seed", 0, "the one world to replay, with its trace")
	first = flag.Uint64("first", 1, "the first seed to try")
)

func TestWorlds(t *testing.T) {
	if *seed != 0 {
		r := Run(Config{Seed: *seed, Trace: func(format string, args ...any) { fmt.Printf(format+"\n", args...) }})
		report(t, r)
		t.Logf("%d commands, %d writes, %+v", r.Commands, r.Entries, r.Coverage)
		return
	}
	var total Coverage
	commands := 0
	for r := range runAll(*first, *seeds, Plant{}) {
		report(t, r)
		total.add(r.Coverage)
		commands += r.Commands
	}
	t.Logf("%d worlds, %d commands, %+v", *seeds, commands, total)
}

func report(t *testing.T, r Report) {
	t.Helper()
	for _, f := range r.Failures {
		t.Errorf("seed %d: %s", r.Seed, f)
	}
	if len(r.Failures) > 0 {
		t.Logf("replay with: go test ./sim -run TestWorlds -seed %d", r.Seed)
	}
}

// runAll runs the worlds of some seeds, a few at a time.
func runAll(from uint64, n int, plant Plant) <-chan Report {
	out := make(chan Report)
	next := make(chan uint64)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for s := range next {
				out <- Run(Config{Seed: s, Plant: plant})
			}
		})
	}
	go func() {
		for i := range n {
			next <- from + uint64(i)
		}
		close(next)
		workers.Wait()
		close(out)
	}()
	return out
}
