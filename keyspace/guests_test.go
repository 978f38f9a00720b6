package keyspace

import (
	"fmt"
	"strings"
	"testing"

	"vecino/eviction"
)

// ask has a key of a sunkWorld come back at a time, and uses it.
func (w *sunkWorld) ask(key string, now int64) {
	w.Helper()
	w.now = now
	for range 2 {
		v := w.ks.View(0, now, nil)
		if s, found, err := v.String([]byte(key)); err == nil && !w.ks.Unsure() {
			if !found || len(s) <= MaxInline {
				w.Fatalf("%s is %q, %v", key, s, found)
			}
			return
		}
		for _, k := range w.ks.Wanted() {
			answer, err := Answer(testSeed, k, w.tier.of(0))
			if err == nil {
				err = w.ks.Restore(k, answer)
			}
			if err != nil {
				w.Fatal(err)
			}
		}
	}
	w.Fatalf("%s doesn't come back", key)
}

// leave has guests leave, and sink, and says which.
func (w *sunkWorld) leave(n int) (left string) {
	w.Helper()
	w.ks.Leave(n, 0, func(c *Candidate, sunk bool) {
		if !c.Clean || !sunk {
			w.Errorf("guest %s was sunk: %v, is clean: %v", c.Key, sunk, c.Clean)
		}
		if w.ks.Offload(0, c.Hash, c.Key, c.Seq) <= 0 || w.ks.SinkKey(Sinking{Since: ^uint64(0)}, 0, c.Hash, c.Key) <= 0 {
			w.Errorf("%s doesn't leave", c.Key)
		}
		left += string(c.Key)
	})
	checkAll(w.T, w.ks, &w.tier, false)
	return left
}

// What came back and was used once leaves first, in the order in which it came.
func TestGuestsLeaveInTheOrderInWhichTheyCame(t *testing.T) {
	w := newSunkWorld(t, "a", "b", "c", "d")
	for i, key := range []string{"c", "a", "d", "b"} {
		w.ask(key, 1000+int64(i))
	}
	if n := w.ks.Guests(); n < 4*MaxInline {
		t.Errorf("four guests take %d bytes", n)
	}
	if left := w.leave(3); left != "cad" {
		t.Errorf("%s leave", left)
	}
	if left := w.leave(3); left != "b" || w.ks.Guests() != 0 {
		t.Errorf("then %s leave, and %d bytes are left", left, w.ks.Guests())
	}
	w.want("all have left", 4, 4, 0)
}

// Who is used again stays, as does who comes back while its ghost is there; who was changed
// isn't let go.
func TestGuestsThatStay(t *testing.T) {
	w := newSunkWorld(t, "a", "b", "c")
	for _, key := range []string{"a", "b", "c"} {
		w.ask(key, 1000)
	}
	w.write(func(tx *Tx) { // while it is still its first visit
		if _, err := tx.PatchString([]byte("c"), 0, []byte("new")); err != nil {
			t.Fatal(err)
		}
	})
	w.ask("b", 1500) // who asked for it gets to it half a second later
	w.ask("a", 1000+oneVisit*3)
	if left := w.leave(10); left != "b" {
		t.Errorf("%s leave", left)
	}
	w.ask("b", 1000+oneVisit*4)
	if left := w.leave(10); left != "" || w.ks.Guests() != 0 {
		t.Errorf("%s leaves again", left)
	}
	w.want("who stays", 3, 0, 0)
}

// Where there is room for all, what came back is not remembered for ever.
func TestGuestsAreForgottenWhereThereIsRoom(t *testing.T) {
	w := newSunkWorld(t, "a")
	w.ask("a", 1000)
	one := w.ks.Guests()
	for range 3 * fewGuests {
		w.ks.welcome(0, w.ks.Hash([]byte("a")), []byte("a"), true)
	}
	if n := w.ks.tier.guests.queue.Len(); n != fewGuests || w.ks.Guests() != int64(fewGuests)*one {
		t.Errorf("%d guests of %d bytes are remembered", n, w.ks.Guests())
	}
}

// Where the access stamp counts uses, nobody is a guest.
func TestNoGuestsUnderLFU(t *testing.T) {
	w := newSunkWorld(t, "a")
	w.ks.SetEviction(eviction.AllKeysLFU, 0)
	w.ask("a", 1000)
	if n := w.ks.Guests(); n != 0 {
		t.Errorf("guests of %d bytes", n)
	}
}

func TestGhostsTakeEachOthersPlaces(t *testing.T) {
	var g ghosts
	if g.take(1 << 60) {
		t.Error("a ghost of nobody")
	}
	for i := range uint64(4 * fewestGhosts) {
		g.add(i<<50|i, 10)
	}
	if len(g.slots) != fewestGhosts {
		t.Errorf("places for %d", len(g.slots))
	}
	last := uint64(4*fewestGhosts - 1)
	if !g.take(last<<50|last) || g.take(last<<50|last) {
		t.Error("the last is taken not once")
	}
	g.add(5, 100_000)
	if len(g.slots) != 1<<17 || !g.take(5) {
		t.Errorf("places for %d of 100,000", len(g.slots))
	}
	g.add(5, 10)
	if len(g.slots) != fewestGhosts {
		t.Errorf("places for %d where few are left", len(g.slots))
	}
}

// Among values that are read all the time others are read once each, far more than there is
// room for. Those that are read all the time stay.
func TestWhatIsReadOnceDoesNotPushOutWhatIsReadAlways(t *testing.T) {
	var keys []string
	for i := range 400 {
		keys = append(keys, fmt.Sprint("key", i))
	}
	w := newSunkWorld(t, keys...)
	hot, now := keys[:20], int64(1000)
	for range 3 { // they come as guests, leave, come again, and stay
		for _, key := range hot {
			now += 2 * oneVisit
			w.ask(key, now)
		}
		w.leave(10)
	}
	w.leave(100)
	before := w.ks.Stats.Restored
	for i, key := range keys[20:] {
		now += 2 * oneVisit
		w.ask(key, now)
		w.ask(hot[i%20], now)
		if w.ks.Guests() > 5*int64(MaxInline) {
			if left := w.leave(1); strings.Contains(strings.Join(hot, " ")+" ", left+" ") {
				t.Errorf("%s leaves", left)
			}
		}
	}
	if n := w.ks.Stats.Restored - before; n != uint64(len(keys)-20) {
		t.Errorf("%d values came back, and %d were read once", n, len(keys)-20)
	}
}
