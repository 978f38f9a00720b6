// Command bench measures Vecino and writes what it found into
// docs/benchmarks.md.
//
//	go run ./bench                      everything, some thirty-five minutes
//	go run ./bench -quick               the same, short and printed only
//	go run ./bench -only server,edge    some sections
//
// It builds the program, starts what it measures on loopback addresses with
// state in a directory of its own, and ends it again. A section is a file:
//
//	server.go      a lone node against redis-server, in alternating rounds
//	forward.go     writes on replicas against the simulated round trip
//	edge.go        what the hop through an edge costs
//	idle.go        memory of databases that nobody uses
//	latency.go     the tail of latency at half of the top rate, with millions of keys
//	memory.go      bytes per key of the same data
//	density.go     very many small databases, asleep, and waking one
//	tier.go        ten times more data than memory
//	always.go      a sync before each reply
//	recovery.go    starting after kill -9
//	eviction.go    what LRU keeps of the same trace
//	neighbours.go  a light client beside a database that does its worst
//	large.go       what a collection of a million elements holds up
//
// And one is no measurement, but a node under everything at once, for minutes:
//
//	go run ./bench soak -for 10m        see soak.go
//
// The profiles of -profile also are what builds are optimized by: see pgo.go.
//
// Figures are of processes, not of functions: a server's CPU is what its
// process used, system calls and background work included. Where two things
// are compared, their rounds alternate and the median of the rounds' ratios
// is shown, since a machine is never quite the same a minute later.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Children die with the thread that started them; the first one lives as long
// as the process.
func init() { runtime.LockOSThread() }

// section is one part of the benchmarks.
type section struct {
	name  string
	needs []string // programs it runs
	run   func(b *bench) (string, error)
}

var redis = []string{"redis-server", "redis-benchmark"}

var sections = []section{
	{"server", redis, (*bench).server},
	{"forward", nil, (*bench).forward},
	{"edge", nil, (*bench).edge},
	{"idle", nil, (*bench).idle},
	{"latency", redis, (*bench).latency},
	{"memory", redis, (*bench).memory},
	{"density", nil, (*bench).density},
	{"tier", nil, (*bench).tier},
	{"always", redis, (*bench).always},
	{"recovery", redis, (*bench).recovery},
	{"eviction", redis, (*bench).eviction},
	{"neighbours", redis, (*bench).neighbours},
	{"large", nil, (*bench).large},
}

// bench is one run of the command.
type bench struct {
	ctx     context.Context
	vecino  string // the program that is measured
	dir     string // everything a section writes
	profile string // where profiles go; empty: none are taken
	cases   string // substring of the cases of server to run
	quick   bool
	start   time.Time
	running []*process
	flags   map[string]bool // of the program's node; nil until asked
	floods  int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	args := os.Args[1:]
	do := run
	if len(args) > 0 {
		switch args[0] {
		case "soak":
			do, args = runSoak, args[1:]
		case "flood": // what neighbours starts as a process of its own
			do, args = runFlood, args[1:]
		case "pgo": // what builds are optimized by
			do, args = runPGO, args[1:]
		case "watch": // what traffic starts
			do, args = runWatch, args[1:]
		}
	}
	err := do(ctx, args)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	b := &bench{ctx: ctx, start: time.Now()}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("only", "", "`sections` to run, of "+strings.Join(names(), ",")+" (default all)")
	out := flags.String("o", "docs/benchmarks.md", "`file` whose marked sections are rewritten; empty: none. A -quick run only prints unless this is given")
	flags.BoolVar(&b.quick, "quick", false, "fewer and shorter rounds: to see that it works, not to quote")
	flags.StringVar(&b.vecino, "vecino", "", "`program` to measure (default: built from this tree)")
	flags.StringVar(&b.profile, "profile", "", "also take CPU profiles of the node in server, edge, latency, tier and always, into `directory`")
	flags.StringVar(&b.cases, "case", "", "of server, memory and neighbours only cases whose name contains `text`, such as \"ZADD\", \"-P 16\", \"hash\" or \"KEYS\"; prints only; without -only it is of server")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	given := false
	flags.Visit(func(f *flag.Flag) { given = given || f.Name == "o" })
	if (b.quick || b.cases != "") && !given {
		*out = ""
	}
	if b.cases != "" && *only == "" {
		*only = "server"
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	if b.profile != "" {
		if b.profile, err = filepath.Abs(b.profile); err == nil {
			err = os.MkdirAll(b.profile, 0o755)
		}
		if err != nil {
			return fmt.Errorf("directory for profiles: %w", err)
		}
	}
	clean, err := b.prepare()
	if err != nil {
		return err
	}
	defer clean()
	about := describeMachine()
	b.say("on %s", about)
	var failed []error
	for _, s := range chosen {
		text, err := s.run(b)
		b.stopAll()
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if not, ok := errors.AsType[notAvailable](err); ok {
			b.say("%s: %s", s.name, not)
			fmt.Printf("\n`%s`\n\n%s\n", command(s.name, b.quick), not)
			continue
		}
		if err != nil { // the others are still worth having
			err = fmt.Errorf("%s: %w", s.name, err)
			b.say("%v", err)
			failed = append(failed, err)
			continue
		}
		text = fmt.Sprintf("`%s`\n%s\n\n%s", command(s.name, b.quick), about, text)
		fmt.Printf("\n%s\n", text)
		if *out != "" {
			if err := rewriteFile(*out, s.name, text); err != nil {
				return err
			}
			b.say("%s: written to %s", s.name, *out)
		}
	}
	return errors.Join(failed...)
}

// prepare makes a directory for everything that is written, and the program if
// none was given.
func (b *bench) prepare() (clean func(), err error) {
	if b.dir, err = os.MkdirTemp("", "vecino-bench-"); err != nil {
		return nil, err
	}
	clean = func() {
		b.stopAll()
		os.RemoveAll(b.dir)
	}
	if err := b.build(); err != nil {
		clean()
		return nil, err
	}
	return clean, nil
}

// build finds or builds the program.
func (b *bench) build() (err error) {
	if b.vecino != "" {
		b.vecino, err = filepath.Abs(b.vecino)
		return err
	}
	b.vecino = filepath.Join(b.dir, "vecino")
	b.say("building vecino")
	if msg, err := exec.CommandContext(b.ctx, "go", "build", "-o", b.vecino, "./cmd/vecino").CombinedOutput(); err != nil {
		return fmt.Errorf("build vecino: %w\n%s", err, msg)
	}
	return nil
}

// command is how to get one section's figures again.
func command(section string, quick bool) string {
	c := "go run ./bench -only " + section
	if quick {
		c += " -quick"
	}
	return c
}

// names of the sections.
func names() []string {
	all := make([]string, len(sections))
	for i, s := range sections {
		all[i] = s.name
	}
	return all
}

// choose finds the sections of a list, and sees that what they need is
// installed.
func choose(only string) (chosen []section, err error) {
	wanted := strings.FieldsFunc(only, func(r rune) bool { return r == ',' })
	for _, name := range wanted {
		if !slices.ContainsFunc(sections, func(s section) bool { return s.name == name }) {
			return nil, fmt.Errorf("there is no section %q; there are %s", name, strings.Join(names(), ", "))
		}
	}
	for _, s := range sections {
		if len(wanted) > 0 && !slices.Contains(wanted, s.name) {
			continue
		}
		for _, program := range s.needs {
			if _, err := exec.LookPath(program); err != nil {
				return nil, fmt.Errorf("section %s needs %s, which isn't installed: on Debian, apt-get install redis-server", s.name, program)
			}
		}
		chosen = append(chosen, s)
	}
	if runtime.GOOS != "linux" {
		return nil, errors.New("it reads the CPU and memory of processes from /proc, so it needs Linux")
	}
	return chosen, nil
}

// say tells how far it has come.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%7s  %s\n", fmt.Sprintf("%.1fs", time.Since(b.start).Seconds()), fmt.Sprintf(format, args...))
}

// pick chooses by -quick.
func pick[T any](b *bench, full, quick T) T {
	if b.quick {
		return quick
	}
	return full
}
