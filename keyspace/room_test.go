package keyspace

import (
	"bytes"
	"fmt"
	"testing"

	"vecino/slab"
)

// A string that is appended to moves only a few times on its way to 64 MiB.
func TestAStringThatGrowsIsRarelyCopied(t *testing.T) {
	ks := New(testSeed)
	part := bytes.Repeat([]byte("p"), 64<<10)
	moved, at := 0, slab.Rec(0)
	for i := range 1024 {
		tx := ks.Begin(0, 1, uint64(i+1), nil, false)
		if _, err := tx.PatchString([]byte("log"), i*len(part), part); err != nil {
			t.Fatal(err)
		}
		tx.End()
		e := ks.spaces[0].find(ks.Hash([]byte("log")), []byte("log"))
		if e.Rec != at {
			moved, at = moved+1, e.Rec
		}
		if used, size := ks.Used(), int64((i+1)*len(part)); used > size+size/4+128<<10 {
			t.Fatalf("%d bytes are counted for a string of %d", used, size)
		}
	}
	if moved > 30 {
		t.Errorf("it moved %d times", moved)
	}
	slab.Drain()
	before := slab.Held()
	if before < 64<<20 || before > 80<<20 {
		t.Errorf("%d bytes held for a string of 64 MiB", before)
	}
	ks.Begin(0, 1, 5000, nil, false).FlushAll()
}

// What was prepared for a command and not needed is nobody's after it.
func TestWhatACommandDidNotNeedGoesBack(t *testing.T) {
	ks := New(testSeed)
	slab.Drain()
	before := slab.Held()
	tx := ks.Begin(0, 1, 1, nil, false)
	if err := tx.MayTake([][]byte{[]byte("SETNX"), []byte("k"), make([]byte, 3<<20)}, true); err != nil {
		t.Fatal(err)
	}
	if ks.prepared == nil {
		t.Error("nothing was prepared")
	}
	tx.End()
	if got := slab.Held(); got > before { // what others forgot may have gone meanwhile
		t.Errorf("%d bytes are held for a command that has ended", got-before)
	}
}

// Values go to disk, and so make room, also when there is none for anything else.
func TestValuesCanGoToDiskWithoutMemory(t *testing.T) {
	reserve := slab.SetReserve(1 << 20)
	defer slab.SetReserve(reserve)
	ks := New(testSeed)
	tx := ks.Begin(0, 1, 1, nil, false)
	for i := range 40 {
		tx.SetString(fmt.Appendf(nil, "k%d", i), bytes.Repeat([]byte{byte(i)}, 1000+i*5_000), 0)
	}
	tx.End()
	defer func() { ks.Begin(0, 1, 5000, nil, false).FlushAll() }()
	var keys []ColdKey
	ks.TakeGraves()
	for c := (Cursor{}); !c.Done(); {
		ks.Sweep(&c, 0, 100, func(r *Record) {
			keys = append(keys, ColdKey{DB: r.DB, Hash: r.Hash, Key: bytes.Clone(r.Key), Seq: r.Seq})
		})
	}
	ks.Committed()
	slab.SetSupply(none{})
	defer slab.SetSupply(nil)
	for i := 0; slab.Reserve() != slab.Spent; i++ {
		tx := ks.Begin(0, 1, uint64(2+i), nil, false)
		tx.SetString(fmt.Appendf(nil, "more%d", i), make([]byte, 100<<10), 0)
		tx.End()
	}
	for _, k := range keys {
		if ks.Offload(k.DB, k.Hash, k.Key, k.Seq) == 0 {
			t.Errorf("%q stays in memory", k.Key)
		}
	}
}

// none is a supply without anything.
type none struct{}

func (none) Grant(bytes uint64) bool { return bytes == 0 }
