package main

import (
	"bytes"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

func TestCPUIsCountedWhereItIsSpent(t *testing.T) {
	for _, c := range []struct {
		want  part
		stack []string // the innermost first
	}{
		{kernel, []string{"internal/runtime/syscall/linux.Syscall6", "syscall.RawSyscall6", "vecino/internal/epoll.Write", "vecino/loop.(*Conn).write"}},
		{kernel, []string{"runtime.futex", "runtime.futexwakeup", "runtime.wakep"}},
		{sockets, []string{"vecino/internal/epoll.Write", "vecino/loop.(*Conn).write"}},
		{protocol, []string{"runtime.memmove", "vecino/resp.(*Writer).Bulk", "vecino/command.get", "vecino/engine.(*DB).run"}},
		{data, []string{"runtime.mallocgc", "vecino/value.(*bigList).makeRoom", "vecino/keyspace.push"}},
		{log, []string{"hash/crc32.update", "vecino/journal.sumHeads"}},
		{tables, []string{"github.com/cockroachdb/pebble/v2/sstable.(*Reader).readDataBlock", "vecino/tier.(*Tier).get"}},
		{otherwise, []string{"vecino/node.(*keeper).take"}},
		{goRuntime, []string{"runtime.scanobject", "runtime.gcDrain", "runtime.gcBgMarkWorker"}},
		{goRuntime, nil},
	} {
		if got := partOf(c.stack); got != c.want {
			t.Errorf("%v counts for %s", c.stack, partNames[got])
		}
	}
}

func TestProfileIsRead(t *testing.T) {
	made := &profile.Profile{SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}}}
	spent := func(ns int64, stack ...string) {
		sample := &profile.Sample{Value: []int64{1, ns}}
		for _, name := range stack {
			f := &profile.Function{ID: uint64(len(made.Function) + 1), Name: name}
			at := &profile.Location{ID: f.ID, Line: []profile.Line{{Function: f}}}
			made.Function, made.Location = append(made.Function, f), append(made.Location, at)
			sample.Location = append(sample.Location, at)
		}
		made.Sample = append(made.Sample, sample)
	}
	spent(30, "vecino/value.(*bigList).makeRoom", "vecino/command.push")
	spent(20, "runtime.futex", "vecino/loop.(*Loop).once")
	spent(4, "vecino/slab.(*Slab).Find")
	var raw bytes.Buffer
	if err := made.Write(&raw); err != nil {
		t.Fatal(err)
	}
	s := spending{kernel: 100}
	if err := s.add(raw.Bytes()); err != nil {
		t.Fatal(err)
	}
	if want := (spending{kernel: 120, data: 34}); !maps.Equal(s, want) {
		t.Errorf("got %v, want %v", s, want)
	}
	if err := s.add([]byte("no profile")); err == nil {
		t.Error("nonsense was taken for a profile")
	}
}

func TestAHistogramTellsWhatWasAdded(t *testing.T) {
	page := func(a, b, all int) []byte {
		return fmt.Appendf(nil, "# HELP vecino_x_seconds It.\nvecino_x_seconds_bucket{le=\"0.001\"} %d\nvecino_x_seconds_bucket{le=\"0.002\"} %d\nvecino_x_seconds_bucket{le=\"+Inf\"} %d\nvecino_x_seconds_sum 5\n", a, b, all)
	}
	before, err := histogramOf(page(1000, 1000, 1000), "vecino_x_seconds")
	if err != nil {
		t.Fatal(err)
	}
	after, err := histogramOf(page(1001, 1099, 1100), "vecino_x_seconds")
	if err != nil {
		t.Fatal(err)
	}
	h := after.since(before)
	for q, want := range map[float64]time.Duration{0.01: time.Millisecond, 0.02: 2 * time.Millisecond, 0.99: 2 * time.Millisecond, 1: 0} {
		if got := h.quantile(q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if _, err := histogramOf(page(1, 1, 1), "vecino_y_seconds"); err == nil {
		t.Error("a histogram that isn't there was found")
	}
}
