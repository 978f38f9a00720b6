package keyspace

import (
	"bytes"
	"testing"
)

// FuzzApply feeds effects that nobody made to a copy with something in it. It
// may refuse them; it may not panic, nor lose its accounts.
func FuzzApply(f *testing.F) {
	w := newWorldForFuzz()
	for _, effects := range w.log {
		f.Add(effects, false)
		f.Add(effects, true)
	}
	base := dump(w.ks)
	f.Fuzz(func(t *testing.T, effects []byte, newer bool) {
		ks := New(testSeed)
		if err := ks.Load(base); err != nil {
			t.Fatal(err)
		}
		a := applier{ks: ks, seq: uint64(len(w.log)) + 1, newer: newer, longest: 1 << 16, in: effectReader{b: effects}}
		_ = a.run()
		checkAccounts(t, ks)
		dump(ks)
		readAll(t, ks)
	})
}

// FuzzLoad does the same with the records of a snapshot. What it takes, it
// dumps as something that it takes again.
func FuzzLoad(f *testing.F) {
	w := newWorldForFuzz()
	for c := (Cursor{}); !c.Done(); {
		f.Add(w.ks.Dump(nil, &c, 3))
	}
	f.Fuzz(func(t *testing.T, records []byte) {
		ks := New(testSeed)
		err := ks.Load(records)
		checkAccounts(t, ks)
		for key, p := range readAll(t, ks) {
			if p.empty() {
				t.Errorf("key %q is an empty %v", key, p.kind)
			}
		}
		if err != nil {
			return
		}
		again := New(testSeed)
		if err := again.Load(dump(ks)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(dump(ks), dump(again)) {
			t.Error("loaded from its own dump it is another")
		}
	})
}

func newWorldForFuzz() *world {
	w := newWorld(nil, 1)
	for range 200 {
		w.write()
	}
	return w
}

func readAll(t *testing.T, ks *Keyspace) map[string]*plain {
	all := map[string]*plain{}
	for db := range Databases {
		view := ks.View(db, 0, nil)
		view.Range(func(key []byte, kind Kind) bool {
			all[string(key)] = read(t, &view, key)
			return true
		})
	}
	return all
}
