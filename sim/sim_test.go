package sim

import (
	"flag"
	"fmt"
	"hash/fnv"
	"regexp"
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
	if *seeds >= 100 {
		for name, n := range total.all() {
			if *n == 0 {
				t.Errorf("no world went through %s", name)
			}
		}
	}
}

func TestASeedReplaysTheWorld(t *testing.T) {
	trace := func() string {
		h := fnv.New64()
		Run(Config{Seed: 11, Trace: func(format string, args ...any) { fmt.Fprintf(h, format, args...) }})
		return fmt.Sprintf("%x", h.Sum(nil))
	}
	if a, b := trace(), trace(); a != b {
		t.Errorf("the same seed made the worlds %s and %s", a, b)
	}
}

// The checkers are worth something only if they find what is there to be
// found.
func TestCheckersFindPlantedBugs(t *testing.T) {
	for _, c := range []struct {
		name  string
		plant Plant
		seeds int
		says  string
	}{
		{"replies forget the primary's head", Plant{ForgetHead: true}, 15, "no state from there on explains"},
		{"a forwarded command is carried out twice", Plant{ForwardTwice: true}, 5, "is there 2 times|increments were answered"},
		{"an entry is applied twice", Plant{ApplyTwice: true}, 10, "has other content|no state from there on explains"},
		{"a restarted primary has lost a commit", Plant{LoseCommit: true}, 10, "the primary made entry|increments were answered|has another history|no state"},
		{"transactions fall apart", Plant{SplitMulti: true}, 10, "sees half of a transaction"},
		{"replies change places", Plant{SwapReplies: true}, 5, "ECHO|answered|explains"},
		{"an unknown outcome is called none", Plant{DenyOutcome: true}, 20, "wasn't carried out|increments were answered"},
		{"the tier is ahead of the journal", Plant{TierAhead: true}, 15, "the primary made entry|no state|isn't behind that|increments were answered|has another history"},
		{"deleted keys stay in the tier", Plant{KeepGraves: true}, 15, "no state|has other content"},
		{"a sweep leaves keys out", Plant{SkipKeys: true}, 20, "no state|has other content|has not|the service logs|isn't behind|increments were answered"},
		{"a reply is lost", Plant{LoseReply: true}, 15, "waits for|no state from there on explains|isn't behind that"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			said := regexp.MustCompile(c.says)
			for seed := range uint64(c.seeds) {
				for _, f := range Run(Config{Seed: seed + 1, Plant: c.plant}).Failures {
					if said.MatchString(f) {
						return
					}
					t.Logf("seed %d: %s", seed+1, f)
				}
			}
			t.Errorf("%d worlds, and it wasn't found", c.seeds)
		})
	}
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
