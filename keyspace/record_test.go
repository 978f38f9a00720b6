package keyspace

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"

	"vecino/slab"
)

// VECINO_SCRAMBLE=1 go test -count=1 runs all tests with records that move
// at each change and leave nothing behind.
func TestMain(m *testing.M) {
	slab.Scramble(os.Getenv("VECINO_SCRAMBLE") != "")
	os.Exit(m.Run())
}

// writer makes writes, one after the other.
type writer struct {
	ks  *Keyspace
	seq uint64
	rng *rand.Rand
	key []byte
}

func newWriter() *writer { return &writer{ks: New(7), rng: rand.New(rand.NewPCG(1, 2))} }

func (w *writer) write(fn func(tx *Tx)) {
	w.seq++
	tx := w.ks.Begin(0, 1000, w.seq, w.rng, false)
	fn(tx)
	tx.End()
}

// numbered is a key of 16 bytes.
func (w *writer) numbered(i int) []byte {
	w.key = append(w.key[:0], "a key : "...)
	w.key = binary.BigEndian.AppendUint64(w.key, uint64(i))
	return w.key
}

func (w *writer) fill(n, length int) {
	val := make([]byte, length)
	for i := range n {
		w.write(func(tx *Tx) { tx.SetString(w.numbered(i), val, 0) })
	}
}

// What one large write has grown doesn't stay with the database.
func TestALargeWriteLeavesNoBuffers(t *testing.T) {
	w := newWriter()
	sweep := func() {
		var c Cursor
		w.ks.Sweep(&c, 0, 100, func(*Record) {})
	}
	w.fill(1, 1<<20)
	sweep()
	if n := cap(w.ks.tx.effects); n > 1<<19 {
		t.Errorf("a buffer for effects of %d bytes is kept", n)
	}
	w.fill(1, 1)
	sweep()
	if n := cap(w.ks.tier.body); n > 1<<19 {
		t.Errorf("a buffer for bodies of %d bytes is kept", n)
	}
}

// A collection gets room to grow when it grows, not when it is made.
func TestANewCollectionHasNoRoomToSpare(t *testing.T) {
	if slab.Scramble(false) {
		defer slab.Scramble(true)
	}
	w := newWriter()
	push := func(n int) {
		w.write(func(tx *Tx) {
			l, _ := tx.List([]byte("list"))
			for range n {
				l.Push(Back, make([]byte, 16))
			}
		})
	}
	push(100)
	e := w.ks.spaces[0].find(w.ks.Hash([]byte("list")), []byte("list"))
	if room := e.Room() - len(e.Value()); room >= 8 {
		t.Errorf("a list that was just made has room for %d bytes", room)
	}
	push(1)
	e = w.ks.spaces[0].find(e.hash, []byte("list"))
	if room := e.Room() - len(e.Value()); room < 32 {
		t.Errorf("a list that grows has room for %d bytes only", room)
	}
}

func TestAKeyTakesFewBytes(t *testing.T) {
	if slab.Scramble(false) {
		defer slab.Scramble(true)
	}
	w, n := newWriter(), 1<<18
	w.fill(n, 32)
	m := w.ks.Memory()
	if held := float64(m.Held) / float64(n); held > 82 {
		t.Errorf("a key of 16 bytes with a value of 32 takes %.1f bytes", held)
	}
	if used := float64(w.ks.Used()); used > float64(m.Held) || used < 0.9*float64(m.Held-m.Idle) {
		t.Errorf("%.0f bytes are used, of %d held, %d of them idle", used, m.Held, m.Idle)
	}
}

func TestMemoryIsGivenBack(t *testing.T) {
	before := func() int64 { runtime.GC(); slab.Drain(); return slab.Held() }()
	w, n := newWriter(), 20_000
	w.fill(n, 100)
	for i := range n {
		if i%10 > 0 {
			w.write(func(tx *Tx) { tx.Delete(w.numbered(i)) })
		}
	}
	for w.ks.Tidy(1000) {
	}
	if m := w.ks.Memory(); m.Idle*3 > m.Held {
		t.Errorf("after nine of ten keys were deleted, %d of %d bytes are idle", m.Idle, m.Held)
	}
	for i := 0; i < n; i += 10 {
		w.write(func(tx *Tx) {
			if s, ok, _ := tx.String(w.numbered(i)); !ok || len(s) != 100 {
				t.Fatalf("key %d has %d bytes", i, len(s))
			}
		})
	}
	w.write(func(tx *Tx) { tx.FlushAll() })
	slab.Drain()
	if held := slab.Held(); held > before {
		t.Errorf("an empty database holds %d bytes", held-before)
	}
	w.fill(n, 100)
	w = nil // as one whose handler panicked
	for range 100 {
		runtime.GC()
		slab.Drain()
		if slab.Held() <= before {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("a database that is gone holds %d bytes", slab.Held()-before)
}

func TestSmallWritesDoNotAllocate(t *testing.T) {
	w := newWriter()
	w.fill(1000, 32)
	val, member := make([]byte, 20), []byte("member 0")
	n := 0
	for _, op := range []struct {
		name string
		do   func(tx *Tx)
	}{
		{"SET", func(tx *Tx) { tx.SetString(w.numbered(n%1000), val, 0) }},
		{"SET of a new key", func(tx *Tx) { tx.SetString(w.numbered(1000+n), val, 0) }},
		{"DEL", func(tx *Tx) { tx.Delete(w.numbered(1000 + n)) }},
		{"EXPIRE", func(tx *Tx) { tx.SetDeadline(w.numbered(n%1000), int64(10_000+n)) }},
		{"APPEND", func(tx *Tx) { _, _ = tx.PatchString(w.numbered(n%1000), n/1000, val) }},
		{"HSET", func(tx *Tx) { h, _ := tx.Hash(w.numbered(1<<20 + n%50)); h.Set(member, val) }},
		{"LPUSH", func(tx *Tx) { l, _ := tx.List(w.numbered(2<<20 + n%50)); l.Push(Front, val) }},
		{"RPOP", func(tx *Tx) { l, _ := tx.List(w.numbered(2<<20 + n%50)); l.Pop(Back, 1) }},
		{"SADD", func(tx *Tx) { s, _ := tx.Set(w.numbered(3<<20 + n%50)); s.Add(member) }},
		{"ZADD", func(tx *Tx) { z, _ := tx.ZSet(w.numbered(4<<20 + n%50)); z.Set(member, float64(n)) }},
	} {
		n = 0
		run := func() {
			n++
			member[7] = byte(n % 90)
			w.write(op.do)
		}
		if allocs := testing.AllocsPerRun(2000, run); allocs > 0 {
			t.Errorf("%s allocates %v times", op.name, allocs)
		}
	}
	checkAccounts(t, w.ks)
}

// A collection that a command has open goes on, whatever the command does to
// its key meanwhile.
func TestACollectionInUseFollowsItsRecord(t *testing.T) {
	for _, size := range []int{1, 100, 300} { // small, about to grow, big
		w, key := newWriter(), []byte("key")
		field := func(i int) []byte { return fmt.Append(nil, "field", i) }
		w.write(func(tx *Tx) {
			h, _ := tx.Hash(key)
			for i := range size {
				h.Set(field(i), field(i))
			}
			same, _ := tx.Hash(key)
			if same.Len() != size {
				t.Errorf("who looks again finds %d fields of %d", same.Len(), size)
			}
			same.Set([]byte("again"), nil)
			tx.SetDeadline(key, 5000)
			h.Set([]byte("late"), []byte("value"))
			if n, _ := tx.Size(key); n < size*4 {
				t.Errorf("%d fields take %d bytes", size, n)
			}
			h.Set([]byte("later"), []byte("value"))
		})
		checkAccounts(t, w.ks)
		w.write(func(tx *Tx) {
			h, _ := tx.Hash(key)
			if _, ok := h.Get([]byte("later")); h.Len() != size+3 || !ok {
				t.Errorf("of %d fields %d are there", size+3, h.Len())
			}
			if found, err := tx.Rename(key, []byte("other")); !found || err != nil {
				t.Error("it can't be renamed")
			}
			h, _ = tx.Hash([]byte("other"))
			if at, _ := tx.Deadline([]byte("other")); h.Len() != size+3 || at != 5000 {
				t.Errorf("under its new name it has %d fields, and the deadline %d", h.Len(), at)
			}
			tx.Delete([]byte("other"))
			h.Set([]byte("new"), nil)
		})
		checkAccounts(t, w.ks)
		view := w.ks.View(0, 1000, nil)
		if h, _ := view.Hash([]byte("other")); h.Len() != 1 {
			t.Errorf("made again it has %d fields", h.Len())
		}
	}
}

// What a view had open may be gone when the next command begins.
func TestAViewLeavesNoTrace(t *testing.T) {
	w := newWriter()
	w.write(func(tx *Tx) { h, _ := tx.Hash([]byte("h")); h.Set([]byte("f"), []byte("v")) })
	view := w.ks.View(0, 1000, nil)
	if _, err := view.Hash([]byte("h")); err != nil {
		t.Fatal(err)
	}
	r := w.ks.spaces[0].slab.Find(w.ks.Hash([]byte("h")), []byte("h"))
	r.Mark(openFlag) // as what comes to be at this place might look
	w.ks.View(0, 1000, nil)
	if !r.Has(openFlag) {
		t.Error("it was written to")
	}
	r.Unmark(openFlag)
}
