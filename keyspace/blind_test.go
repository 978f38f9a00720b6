package keyspace

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"vecino/eviction"
)

// sunkWorld is a keyspace with some keys, all of which are sunk.
type sunkWorld struct {
	*testing.T
	ks   *Keyspace
	tier fakeTier
	seq  uint64
	now  int64
	used int64 // by the keys
}

func newSunkWorld(t *testing.T, keys ...string) *sunkWorld {
	w := &sunkWorld{T: t, ks: New(testSeed), tier: fakeTier{records: map[tierKey]Stored{}}, now: 1000}
	w.ks.SetEviction(eviction.NoEviction, 0)
	for _, key := range keys {
		w.write(func(tx *Tx) { tx.SetString([]byte(key), bytes.Repeat([]byte("v"), MaxInline+1), 0) })
	}
	w.sweep()
	for i, key := range keys {
		w.ks.Offload(0, w.ks.Hash([]byte(key)), []byte(key), uint64(i+1))
	}
	w.used = w.ks.Used()
	if n, _ := w.ks.Sink(Sinking{Looks: 1000, Part: 1, Since: w.seq}); n != len(keys) {
		t.Fatalf("%d of %d keys sink", n, len(keys))
	}
	return w
}

func (w *sunkWorld) write(fn func(tx *Tx)) {
	w.seq++
	tx := w.ks.Begin(0, w.now, w.seq, nil, false)
	fn(tx)
	tx.End()
}

func (w *sunkWorld) set(key, val string) {
	w.write(func(tx *Tx) { tx.SetString([]byte(key), []byte(val), 0) })
}

func (w *sunkWorld) see() (asked []string) {
	w.Helper()
	for _, k := range w.ks.Blind() {
		asked = append(asked, string(k.Key))
		for range 2 { // the second time it says nothing new
			if err := w.ks.Seen(k, w.tier.get(k).Head); err != nil {
				w.Fatal(err)
			}
		}
	}
	return asked
}

// sweep writes all to the tier, and returns for which keys it was asked before.
func (w *sunkWorld) sweep() (asked []string) {
	w.Helper()
	w.tier.begin(w.ks.TakeGraves())
	for at := (Cursor{}); !at.Done(); {
		w.ks.Sweep(&at, 0, 100, w.tier.put)
	}
	asked = w.see()
	w.tier.commit()
	w.ks.Committed()
	checkAll(w.T, w.ks, &w.tier, false)
	return asked
}

func (w *sunkWorld) want(what string, keys, sunk, blind int) {
	w.Helper()
	if w.ks.Len(0) != keys || w.ks.Sunk() != sunk || w.ks.account.blind != blind {
		w.Errorf("%s: %d keys of which %d are sunk and %d blind, want %d, %d, %d", what, w.ks.Len(0), w.ks.Sunk(), w.ks.account.blind, keys, sunk, blind)
	}
	checkAll(w.T, w.ks, &w.tier, false)
}

// A sunk key that is written without a look at the tier counts once, and exactly
// when the tier has been asked.
func TestSunkKeysAreWrittenBlindly(t *testing.T) {
	w := newSunkWorld(t, "a", "b", "c", "d")
	w.set("a", strings.Repeat("w", MaxInline+1))
	w.set("b", "short")
	w.want("two are written", 4, 4, 2)
	if used := w.ks.Used(); used < w.used*3/4 || used > w.used {
		t.Errorf("they count for %d bytes, and for %d before", used, w.used)
	}
	w.set("a", strings.Repeat("x", MaxInline+1)) // and again
	w.write(func(tx *Tx) {
		if _, err := tx.PatchString([]byte("b"), 5, []byte("er")); err != nil {
			t.Fatal(err)
		}
	})
	w.want("they are changed", 4, 4, 2)
	if asked := w.sweep(); fmt.Sprint(len(asked)) != "2" {
		t.Errorf("the tier is asked for %q", asked)
	}
	w.want("they are in the tier", 4, 2, 0)
	view := w.ks.View(0, 1000, nil)
	if s, _, err := view.String([]byte("b")); err != nil || string(s) != "shorter" {
		t.Errorf("b is %q, %v", s, err)
	}
	a, _ := view.Size([]byte("a"))
	b, _ := view.Size([]byte("b"))
	if got, want := w.ks.Used(), w.used/2+int64(a+b); got != want {
		t.Errorf("all count for %d bytes, want %d", got, want)
	}
}

// One that was deleted before the tier was asked is not there, and the tier forgets it.
func TestASunkKeyIsWrittenBlindlyAndDeleted(t *testing.T) {
	for _, again := range []bool{false, true} {
		w := newSunkWorld(t, "a", "b")
		w.set("a", "new")
		w.write(func(tx *Tx) {
			if !tx.Delete([]byte("a")) {
				t.Error("a is not there")
			}
		})
		w.want("it is deleted", 1, 2, 1)
		if view := w.ks.View(0, 1000, nil); view.Exists([]byte("a")) || w.ks.Unsure() {
			t.Error("it is there, perhaps")
		}
		keys := 1
		if again {
			w.set("a", "newer")
			keys = 2
			w.want("it is made again", 2, 2, 1)
		}
		if asked := w.sweep(); len(asked) != 1 || asked[0] != "a" {
			t.Errorf("the tier is asked for %q", asked)
		}
		w.want("the tier has been asked", keys, 1, 0)
		if _, there := w.tier.records[tierKey{0, w.ks.Hash([]byte("a")), "a"}]; there != again {
			t.Errorf("the tier has it: %v", there)
		}
	}
}

// Who asks for sunk keys finds it among them.
func TestABlindWriteIsSeenByWhoAsks(t *testing.T) {
	for name, ask := range map[string]func(w *sunkWorld) ColdKey{
		"for all":                func(*sunkWorld) ColdKey { return WantAll(0) },
		"for its fingerprint":    func(w *sunkWorld) ColdKey { return ColdKey{Hash: w.ks.Hash([]byte("a"))}.SamePrint() },
		"before it was written":  func(w *sunkWorld) ColdKey { return ColdKey{Hash: w.ks.Hash([]byte("a")), Key: []byte("a"), Bare: true} },
		"and needed it, as well": func(w *sunkWorld) ColdKey { return ColdKey{Hash: w.ks.Hash([]byte("a")), Key: []byte("a")} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newSunkWorld(t, "a")
			w.set("a", "new")
			k := ask(w)
			answer, err := Answer(testSeed, k, w.tier.of(0))
			if err != nil {
				t.Fatal(err)
			}
			if err := w.ks.Restore(k, answer); err != nil || w.ks.Needs(&k) {
				t.Fatalf("%v, it is needed still: %v", err, w.ks.Needs(&k))
			}
			w.want("it was asked for", 1, 0, 0)
			if s, _, err := (&View{ks: w.ks, now: 1000}).String([]byte("a")); err != nil || string(s) != "new" {
				t.Errorf("it is %q, %v", s, err)
			}
			if asked := w.sweep(); asked != nil {
				t.Errorf("the tier is asked for %q", asked)
			}
		})
	}
}

// A new key that has the fingerprint of a sunk one is told from it by the tier.
func TestAKeyThatLooksLikeASunkOneIsWritten(t *testing.T) {
	defer func(was uint64) { blur = was }(blur)
	blur = ^uint64(0)
	w := newSunkWorld(t, "a")
	w.set("b", "new")
	if n := w.ks.Len(0); n != 1 {
		t.Errorf("%d keys, as far as is known", n)
	}
	if asked := w.sweep(); len(asked) != 1 || asked[0] != "b" {
		t.Errorf("the tier is asked for %q", asked)
	}
	w.want("the tier has been asked", 2, 1, 0)
	if !w.ks.WantSunk(0, []byte("a")) {
		t.Error("a is not there any more")
	}
}

func TestAFlushForgetsBlindWrites(t *testing.T) {
	w := newSunkWorld(t, "a", "b")
	w.set("a", "new")
	w.set("b", "new")
	w.write(func(tx *Tx) { tx.Delete([]byte("b")) })
	w.write(func(tx *Tx) { tx.Flush() })
	w.want("flushed", 0, 0, 0)
	w.set("a", "newer")
	if asked := w.sweep(); asked != nil {
		t.Errorf("the tier is asked for %q", asked)
	}
	w.want("written again", 1, 0, 0)
}

func TestADamagedHeadOfWhatWasWrittenBlindly(t *testing.T) {
	w := newSunkWorld(t, "a")
	w.set("a", "new")
	w.write(func(tx *Tx) { tx.Delete([]byte("a")) })
	k := w.ks.Blind()[0]
	if err := w.ks.Seen(k, []byte("nonsense")); err == nil {
		t.Error("nonsense is taken")
	}
	w.want("nothing has been said", 0, 1, 1)
}
