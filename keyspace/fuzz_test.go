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
		ks.longest = 1 << 16
		a := applier{ks: ks, seq: uint64(len(w.log)) + 1, newer: newer, in: effectReader{b: effects}}
		_ = a.run()
		checkAll(t, ks, nil, true)
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
			if ks.IsCold(db, key) {
				return true
			}
			all[string(key)] = read(t, &view, key)
			return true
		})
	}
	return all
}

// FuzzLoadHead feeds records of a tier that nobody wrote. They may be refused;
// nothing may panic, nor lose its accounts. What is taken is written again as
// something that means the same.
func FuzzLoadHead(f *testing.F) {
	w := newWorldForFuzz()
	w.long = true
	for range 100 {
		w.write()
	}
	c := newCopyOnDisk(nil, w.rng, w.ks, &w.log)
	w.load = c.load
	sweep := func() {
		c.tier.begin(c.ks.TakeGraves())
		for at := (Cursor{}); !at.Done(); {
			w.ks.Sweep(&at, 0, 100, c.tier.put)
		}
		c.tier.commit()
	}
	sweep()
	for _, k := range c.some(60) {
		w.ks.Offload(k.DB, k.Hash, k.Key, k.Seq)
	}
	for seq := uint64(0); seq < 30; seq++ { // heads with effects that wait
		_ = w.ks.ApplyNewer(w.log[uint64(len(w.log))-30+seq], uint64(len(w.log))+seq+1)
	}
	sweep()
	for _, r := range c.tier.records {
		f.Add(r.Head, r.Body)
	}
	f.Fuzz(func(t *testing.T, head, body []byte) {
		ks, key := New(testSeed), []byte("k")
		ks.longest = 1 << 16
		if err := ks.LoadHead(3, key, head); err != nil {
			return
		}
		checkAccounts(t, ks)
		if ks.WantCold(3, key) {
			if w, err := (Stored{Head: head, Body: body}).Thaw(testSeed, nil); err == nil {
				_ = ks.Restore(ks.Wanted()[0], w)
			}
			checkAccounts(t, ks)
		}
		readAll(t, ks)
		e := ks.spaces[3].find(ks.Hash(key), key)
		if e.cold() && e.Seq() == e.stub().base {
			return
		}
		var again Stored
		if !ks.SweepKey(3, ks.Hash(key), key, func(r *Record) {
			again = again.Put(r)
		}) {
			t.Fatal("the key isn't there")
		}
		other := New(testSeed)
		if err := other.LoadHead(3, key, again.Head); err != nil {
			t.Fatal(err)
		}
		if other.WantCold(3, key) && again.Body != nil {
			if err := other.Restore(other.Wanted()[0], thawed(t, again)); err != nil {
				t.Fatal(err)
			}
		}
		if !e.cold() && !bytes.Equal(dump(ks), dump(other)) {
			t.Errorf("written and loaded it is another\n got %q\nwant %q", dump(other), dump(ks))
		}
	})
}
