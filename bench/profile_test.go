package main

import (
	"bytes"
	"runtime/pprof"
	"testing"
	"time"

	"vecino/value"
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
	var raw bytes.Buffer
	if err := pprof.StartCPUProfile(&raw); err != nil {
		t.Skip(err) // go test -cpuprofile takes one already
	}
	l := value.NewList()
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
		l.PushBack([]byte("element"))
	}
	pprof.StopCPUProfile()
	s := spending{}
	if err := s.add(raw.Bytes()); err != nil {
		t.Fatal(err)
	}
	if len(s) == 0 {
		t.Skip("the machine was too busy for a sample")
	}
	if s[data] == 0 {
		t.Errorf("a list was filled, and keys and values took nothing: %v", s)
	}
	if err := s.add([]byte("no profile")); err == nil {
		t.Error("nonsense was taken for a profile")
	}
}
