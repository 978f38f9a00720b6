package keyspace

import (
	"bytes"
	"fmt"
	"testing"
)

func TestTransactionsChangeWhatPlainMapsWouldHold(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			for i := range 600 {
				w.write()
				if i%10 == 0 {
					w.check()
				}
			}
			w.check()
		})
	}
}

func TestEffectsMakeACopy(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			copy := New(testSeed)
			applied := 0
			for range 400 {
				w.write()
				for ; applied < len(w.log); applied++ {
					if err := copy.Apply(w.log[applied], uint64(applied)+1); err != nil {
						t.Fatal(err)
					}
				}
				if want, got := dump(w.ks), dump(copy); !bytes.Equal(want, got) {
					t.Fatalf("write %d: effects %q\n got %q\nwant %q", applied, w.log[applied-1], got, want)
				}
			}
			checkAccounts(t, copy)
		})
	}
}

// A snapshot is taken a few keys at a time while writes go on. Loaded, and
// brought forward by the writes since it began, it is the original.
func TestASnapshotTakenWhileKeysChangeBecomesACopy(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			for range w.rng.IntN(300) {
				w.write()
			}
			begin := len(w.log)
			var records [][]byte
			for c := (Cursor{}); !c.Done(); {
				records = append(records, w.ks.Dump(nil, &c, 1+w.rng.IntN(4)))
				for range w.rng.IntN(5) {
					w.write()
				}
			}
			end := len(w.log)
			copy := New(testSeed)
			for _, r := range records {
				if err := copy.Load(r); err != nil {
					t.Fatal(err)
				}
			}
			for seq := begin + 1; seq <= end; seq++ {
				if err := copy.ApplyNewer(w.log[seq-1], uint64(seq)); err != nil {
					t.Fatal(err)
				}
			}
			compare := func() {
				t.Helper()
				if want, got := dump(w.ks), dump(copy); !bytes.Equal(want, got) {
					t.Fatalf("snapshot from write %d to %d, now %d\n got %q\nwant %q", begin, end, len(w.log), got, want)
				}
				checkAccounts(t, copy)
			}
			compare()
			for seq := end + 1; seq < end+100; seq++ {
				for len(w.log) < seq {
					w.write()
				}
				if err := copy.Apply(w.log[seq-1], uint64(seq)); err != nil {
					t.Fatal(err)
				}
			}
			compare()
		})
	}
}

func TestASnapshotLoadsAsItWas(t *testing.T) {
	w := newWorld(t, 3)
	for range 500 {
		w.write()
	}
	copy := New(testSeed)
	if err := copy.Load(dump(w.ks)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(dump(copy), dump(w.ks)) {
		t.Error("the copy has other content")
	}
	view, copied := w.ks.View(0, w.now, w.rng), copy.View(0, w.now, w.rng)
	view.Range(func(key []byte, kind Kind) bool {
		a, _ := view.Encoding(key)
		if b, _ := copied.Encoding(key); a != b {
			t.Errorf("key %q has encoding %s, the copy %s", key, a, b)
		}
		return true
	})
	checkAccounts(t, copy)
}

func TestAWatchedKeyIsChangedByWhatTouchesIt(t *testing.T) {
	k, other := []byte("k"), []byte("other")
	for name, change := range map[string]func(tx *Tx){
		"set":            func(tx *Tx) { tx.SetString(k, []byte("w"), 0) },
		"patch":          func(tx *Tx) { _, _ = tx.PatchString(k, 0, []byte("w")) },
		"delete":         func(tx *Tx) { tx.Delete(k) },
		"deadline":       func(tx *Tx) { tx.SetDeadline(k, 99) },
		"deadline over":  func(tx *Tx) { tx.SetDeadline(k, 1) },
		"rename from":    func(tx *Tx) { _, _ = tx.Rename(k, other) },
		"rename to":      func(tx *Tx) { tx.SetString(other, nil, 0); _, _ = tx.Rename(other, k) },
		"copy to":        func(tx *Tx) { tx.SetString(other, nil, 0); _, _ = tx.Copy(other, 0, k) },
		"flush":          func(tx *Tx) { tx.Flush() },
		"flush all":      func(tx *Tx) { tx.FlushAll() },
		"delete and set": func(tx *Tx) { tx.Delete(k); tx.SetString(k, []byte("v"), 0) },
	} {
		ks := New(testSeed)
		for seq := range uint64(2) {
			tx := ks.Begin(0, 10, seq+1, nil, false)
			tx.SetString(k, []byte("v"), 0)
			tx.End()
		}
		if ks.ChangedSince(0, k, 2) {
			t.Errorf("%s: changed before the change", name)
		}
		if !ks.ChangedSince(0, k, 1) {
			t.Errorf("%s: the second write is not seen", name)
		}
		tx := ks.Begin(0, 10, 3, nil, false)
		change(tx)
		tx.End()
		if !ks.ChangedSince(0, k, 2) {
			t.Errorf("%s is not seen", name)
		}
		if ks.ChangedSince(0, k, 3) {
			t.Errorf("%s is seen by who watches afterwards", name)
		}
	}
}

func TestWhatASnapshotNoLongerHoldsMayHaveBeenChanged(t *testing.T) {
	ks := New(testSeed)
	ks.BornAt(7)
	k := []byte("k")
	if !ks.ChangedSince(0, k, 6) {
		t.Error("a key that isn't there may have been deleted by a write before the snapshot")
	}
	if ks.ChangedSince(0, k, 7) {
		t.Error("it was not there in the snapshot, and nothing happened since")
	}
}

func TestKeysThatSomebodyWaitsForAreTold(t *testing.T) {
	ks := New(testSeed)
	tx := ks.Begin(3, 10, 1, nil, true)
	for _, key := range []string{"pushed", "emptied"} {
		l, err := tx.List([]byte(key))
		if err != nil {
			t.Fatal(err)
		}
		l.Push(Back, []byte("a"))
	}
	tx.EndCommand()
	l, _ := tx.List([]byte("emptied"))
	l.Pop(Front, 1)
	z, _ := tx.ZSet([]byte("scored"))
	z.Set([]byte("m"), 1)
	tx.SetString([]byte("string"), []byte("v"), 0)
	tx.EndCommand()
	_, _ = tx.Copy([]byte("scored"), 5, []byte("copied"))
	_, woken := tx.End()
	got := fmt.Sprint(woken)
	if want := "[{3 pushed} {3 emptied} {3 scored} {5 copied}]"; got != want {
		t.Errorf("woken: %s, want %s", got, want)
	}
}

// The deadline itself is still time to live.
func TestADeadlineHidesAKeyAndAWriteDeletesIt(t *testing.T) {
	ks := New(testSeed)
	k := []byte("k")
	tx := ks.Begin(0, 10, 1, nil, false)
	tx.SetString(k, []byte("v"), 20)
	tx.End()
	for now, there := range map[int64]bool{19: true, 20: true, 21: false} {
		view := ks.View(0, now, nil)
		if _, found, _ := view.String(k); found != there {
			t.Errorf("at %d found is %v", now, found)
		}
	}
	if ks.Keys() != 1 || ks.NextExpiry() != 20 {
		t.Errorf("a view deletes: %d keys, next expiry %d", ks.Keys(), ks.NextExpiry())
	}
	tx = ks.Begin(0, 21, 2, nil, false)
	if h, err := tx.Hash(k); err != nil || h.Len() != 0 {
		t.Errorf("an expired string is in the way of a hash: %v", err)
	}
	if effects, _ := tx.End(); len(effects) == 0 || ks.Keys() != 0 || ks.Stats.Expired != 1 {
		t.Errorf("effects %q, %d keys, %d expired", effects, ks.Keys(), ks.Stats.Expired)
	}
}
