package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"
)

// takeProfile records what a node spends its CPU on, for some whole seconds from now. The
// function it returns waits for the end and adds it to a spending. With -profile it is also kept, for
// `go tool pprof`.
func (b *bench) takeProfile(admin string, p *process, what string, seconds int, into spending) (finish func() error) {
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute+time.Duration(seconds)*time.Second)
	type answer struct {
		profile []byte
		err     error
	}
	answered := make(chan answer, 1)
	go func() {
		profile, err := get(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", admin, seconds))
		answered <- answer{profile, err}
	}()
	return func() error {
		defer cancel()
		a := <-answered
		if a.err == nil && into != nil {
			a.err = into.add(a.profile)
		}
		if a.err != nil {
			return fmt.Errorf("profile of %s: %w", p.name, a.err)
		}
		if b.profile == "" {
			return nil
		}
		name := strings.Join(strings.Fields(strings.ReplaceAll(strings.ToLower(what), "-", "")), "-") + ".pprof"
		return os.WriteFile(filepath.Join(b.profile, name), a.profile, 0o644)
	}
}

// profiled takes a profile of a node while something runs that doesn't count.
// With neither -profile nor a spending it does nothing.
func (b *bench) profiled(admin string, p *process, what string, into spending, run func() error) error {
	if b.profile == "" && into == nil {
		return nil
	}
	finish := b.takeProfile(admin, p, what, pick(b, 3, 1), into)
	return errors.Join(run(), finish())
}

// spending is what profiles of a node show of its CPU, in nanoseconds by part.
type spending map[part]int64

type part int

const (
	kernel part = iota // system calls, those of Go's runtime too
	sockets
	protocol
	commands
	data
	log
	tables
	otherwise // of the node
	goRuntime // where nothing of the node's called it
	parts
)

var partNames = [parts]string{"kernel", "loops", "protocol, sessions", "commands", "keys, values", "journal", "tier, Pebble", "rest of the node", "Go's runtime"}

// packages are those of the parts, without "vecino/" before them.
var packages = map[string]part{
	"loop": sockets, "internal": sockets,
	"resp": protocol, "session": protocol,
	"command": commands, "engine": commands,
	"keyspace": data, "slab": data, "value": data, "eviction": data,
	"journal": log,
	"tier":    tables,
}

// systemCalls are where a thread stands while the kernel works for it.
var systemCalls = []string{"internal/runtime/syscall/linux.Syscall6", "runtime.futex", "runtime.madvise", "runtime.usleep", "runtime.write1", "runtime.tgkill"}

// add adds what a profile shows, as /debug/pprof/profile makes it. What the runtime and
// the standard library do is their caller's.
func (s spending) add(raw []byte) error {
	p, err := profile.Parse(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	for _, sample := range p.Sample {
		s[partOf(functions(sample))] += sample.Value[len(sample.Value)-1]
	}
	return nil
}

// functions are those on the stack of a sample, the innermost first.
func functions(sample *profile.Sample) (names []string) {
	for _, at := range sample.Location {
		for _, line := range at.Line {
			names = append(names, line.Function.Name)
		}
	}
	return names
}

func partOf(stack []string) part {
	if len(stack) > 0 && slices.Contains(systemCalls, stack[0]) {
		return kernel
	}
	for _, name := range stack {
		if strings.HasPrefix(name, "github.com/cockroachdb/") {
			return tables
		}
		if own, ok := strings.CutPrefix(name, "vecino/"); ok {
			if p, ok := packages[own[:strings.IndexAny(own, "./")]]; ok {
				return p
			}
			return otherwise
		}
	}
	return goRuntime
}

// newShares is a table of what parts take of a node's CPU, in percent.
func newShares() *table {
	return &table{head: append([]string{"% of the node's CPU"}, partNames[:]...)}
}

// row is a spending's in such a table.
func (s spending) row(name string) []string {
	var total int64
	for _, ns := range s {
		total += ns
	}
	row := []string{name}
	for p := range parts {
		row = append(row, fmt.Sprintf("%.0f", 100*float64(s[p])/float64(max(total, 1))))
	}
	return row
}
