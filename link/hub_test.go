package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vecino/catalog"
)

func TestNodesThatHearOfEachOtherAtOnceMakeOneLink(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.boot("a", 11), w.boot("b", 22)
		w.meet()
		if got := fmt.Sprint(a.take(), b.take()); got != "[up b/22] [up a/11]" {
			t.Fatalf("heard %s", got)
		}
		if n := w.net.dials["a"]; n != 0 {
			t.Errorf("b dialled a %d times; the smaller name dials", n)
		}
		if n := w.net.dials["b"]; n != int(numLanes) {
			t.Errorf("a dialled b %d times, want once a lane", n)
		}
		w.pass(time.Hour) // heartbeats keep it up
		if got := a.links() + ", " + b.links(); got != "up, up" {
			t.Errorf("after an hour: %s", got)
		}
	})
}

func TestFramesOfADatabaseKeepTheirOrderOnEachLane(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.boot("a", 1), w.boot("b", 1)
		w.d.SetDelay("a", "b", 40*time.Millisecond)
		w.d.SetDelay("b", "a", 40*time.Millisecond)
		w.meet()
		w.pass(time.Second)
		type key struct {
			from string
			lane Lane
			db   catalog.ID
		}
		want := map[key][]string{}
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range 3000 {
			from, to := a, b
			if rng.IntN(2) == 0 {
				from, to = b, a
			}
			k := key{from.name, Lane(rng.IntN(int(numLanes))), catalog.ID(rng.IntN(5))}
			payload := fmt.Sprint(i, strings.Repeat("x", rng.IntN(200)))
			if rng.IntN(100) == 0 {
				payload += strings.Repeat("y", rng.IntN(100_000))
			}
			w.mustSend(from, to.name, k.lane, k.db, payload)
			want[k] = append(want[k], payload)
		}
		w.pass(time.Second)
		for k, payloads := range want {
			to := b
			if k.from == "b" {
				to = a
			}
			if got := to.frames(k.lane, k.db); !slices.Equal(got, payloads) {
				t.Errorf("%v: %d frames came, %d were sent, or not in order", k, len(got), len(payloads))
			}
		}
	})
}

func TestHandlerMaySendWhenTheLinkComesUp(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.boot("a", 1), w.boot("b", 1)
		a.onUp = func(node string) { w.mustSend(a, node, Live, 1, "position") }
		b.SetPeers(w.records())
		met := w.records()
		for i := range 1000 { // so that the link is up before the last of them is known
			met = append(met, catalog.Node{ID: fmt.Sprint("z", i), Region: "z", Link: "nowhere"})
		}
		a.SetPeers(met)
		synctest.Wait()
		if got := fmt.Sprint(b.take()); got != "[up a/1 a live db1 position]" {
			t.Errorf("b heard %s", got)
		}
	})
}

func TestSmallFrameOvertakesTheFloodOfAnotherDatabase(t *testing.T) {
	inWorld(t, func(w *world) {
		w.d = nil // distance has a buffer of its own; the queue shall be ahead of a full pipe
		a, b := w.boot("a", 1), w.boot("b", 1)
		w.meet()
		b.hold()
		const flood = 8192
		for range flood {
			w.mustSend(a, "b", Live, 1, strings.Repeat("f", 1000))
		}
		synctest.Wait()
		w.mustSend(a, "b", Live, 2, "small")
		if a.Queued("b", Live, 1) < 4<<20 || a.Queued("b", Live, 2) == 0 {
			t.Fatalf("queued are %d and %d bytes", a.Queued("b", Live, 1), a.Queued("b", Live, 2))
		}
		b.release()
		synctest.Wait()
		all := b.take()
		at := slices.IndexFunc(all, func(e heard) bool { return e.payload == "small" })
		// Before it are what the reader had, and the batch that was being written.
		if limit := (readBuffer + batchSize + 4*quantum) / 1000; at < 0 || at > limit {
			t.Errorf("the small frame came at place %d, want at most %d", at, limit)
		}
		if n := len(b.frames(Live, 1)); n != flood {
			t.Errorf("%d of %d frames of the flood came", n, flood)
		}
	})
}

func TestHugeFrameComesWholeAndLetsOthersPass(t *testing.T) {
	inWorld(t, func(w *world) {
		w.d = nil
		a, b := w.boot("a", 1), w.boot("b", 1)
		w.meet()
		b.hold()
		w.mustSend(a, "b", CatchUp, 3, "first")
		synctest.Wait()
		huge := make([]byte, 20<<20+17)
		rand.NewChaCha8([32]byte{}).Read(huge)
		w.mustSend(a, "b", CatchUp, 1, string(huge))
		synctest.Wait()
		w.mustSend(a, "b", CatchUp, 2, "small")
		b.release()
		synctest.Wait()
		all := b.take()
		if len(all) != 4 || all[2].payload != "small" || !bytes.Equal([]byte(all[3].payload), huge) {
			t.Errorf("came %v", all)
		}
	})
}

func TestFrameThatIsTooLargeBreaksTheLink(t *testing.T) {
	inWorld(t, func(w *world) {
		a, _ := w.boot("a", 1), w.boot("b", 1)
		w.meet()
		tooLarge := Frame{Payload: make([]byte, MaxFrame+1)}
		if err := a.SendWait(w.Context(), "b", Snapshot, tooLarge); err != ErrFrameTooLarge {
			t.Errorf("SendWait says %v", err)
		}
		if a.links() != "up" {
			t.Errorf("SendWait broke the link")
		}
		if a.Send("b", Live, tooLarge) {
			t.Error("Send says it was sent")
		}
		synctest.Wait()
		if !errors.Is(a.lastCause(), ErrFrameTooLarge) {
			t.Errorf("the link went down with %v", a.lastCause())
		}
	})
}

func TestLinkGoesDownWhenThePairIsCutAndComesBackWhenHealed(t *testing.T) {
	for _, c := range []struct {
		name           string
		there, andBack bool
	}{
		{"both ways", true, true},
		{"from who dials", true, false},
		{"to who dials", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				a, b := w.boot("a", 1), w.boot("b", 1)
				w.d.SetDelay("a", "b", 100*time.Millisecond)
				w.d.SetDelay("b", "a", 100*time.Millisecond)
				w.meet()
				w.pass(10 * time.Second)
				w.cut("a", "b", c.there)
				w.cut("b", "a", c.andBack)
				w.pass(time.Second)
				if got := a.links() + ", " + b.links(); got != "up, up" {
					t.Fatalf("a second after the cut: %s", got)
				}
				w.pass(2500 * time.Millisecond)
				if got := a.links() + ", " + b.links(); got != "up down, up down" {
					t.Fatalf("3.5 seconds after the cut: %s", got)
				}
				silent := errors.Is(a.lastCause(), ErrSilent) || errors.Is(b.lastCause(), ErrSilent)
				if !silent {
					t.Errorf("causes are %v and %v; one should be silence", a.lastCause(), b.lastCause())
				}
				if a.Send("b", Live, Frame{}) {
					t.Error("a can send on a link that is down")
				}
				w.pass(time.Minute)
				if got := a.links() + ", " + b.links(); got != "up down, up down" {
					t.Fatalf("a minute after the cut: %s", got)
				}
				w.cut("a", "b", false)
				w.cut("b", "a", false)
				w.pass(2 * time.Second)
				if got := a.links() + ", " + b.links(); got != "up down up, up down up" {
					t.Fatalf("2 seconds after healing: %s", got)
				}
				w.mustSend(a, "b", Live, 1, "again")
				w.pass(100 * time.Millisecond)
				if got := b.frames(Live, 1); !slices.Equal(got, []string{"again"}) {
					t.Errorf("came %q", got)
				}
			})
		})
	}
}

func TestOneBrokenLaneTakesTheWholeLinkDown(t *testing.T) {
	for lane := range numLanes {
		inWorld(t, func(w *world) {
			a, b := w.boot("a", 1), w.boot("b", 1)
			w.meet()
			w.net.conns[lane].Close() // dialled in no particular order: each is one lane
			synctest.Wait()
			if got := a.links() + ", " + b.links(); got != "up down, up down" {
				t.Fatalf("heard %s", got)
			}
			w.pass(maxRedial)
			if got := a.links() + ", " + b.links(); got != "up down up, up down up" {
				t.Errorf("then heard %s", got)
			}
		})
	}
}

func TestRestartedPeerHasANewBoot(t *testing.T) {
	for _, restarted := range []string{"a", "b"} {
		t.Run(restarted, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.boot("a", 1)
				w.boot("b", 1)
				w.meet()
				old := w.nodes[restarted]
				old.Close()
				old.checkShape(t)
				if !errors.Is(old.lastCause(), ErrClosed) {
					t.Errorf("its own cause is %v", old.lastCause())
				}
				w.boot(restarted, 2)
				w.meet()
				w.pass(2 * maxRedial)
				other := w.nodes[map[string]string{"a": "b", "b": "a"}[restarted]]
				all := other.take()
				if len(all) != 3 || all[0].boot != 1 || all[1].what != "down" || all[2].boot != 2 {
					t.Errorf("the other heard %v", all)
				}
			})
		})
	}
}

func TestNewLinkReplacesOneThatDidntSeeItsEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		old, b := w.boot("a", 1), w.boot("b", 1)
		w.meet()
		b.hold()
		w.mustSend(old, "b", Live, 1, "last words")
		synctest.Wait()
		// The machine of a went away without a word, and is back.
		w.boot("a", 2)
		w.meet()
		if got := b.links(); got != "up" {
			t.Fatalf("b heard %s while it still handles a frame of the old link", got)
		}
		b.release()
		synctest.Wait()
		if got := fmt.Sprint(b.take()); got != "[up a/1 a live db1 last words down a: replaced by a newer link up a/2]" {
			t.Errorf("b heard %s", got)
		}
		old.Close()
		old.checkShape(t)
		w.pass(time.Minute)
		if got := b.links(); got != "up down up" {
			t.Errorf("b heard %s", got)
		}
	})
}

func TestFullQueueBreaksTheLink(t *testing.T) {
	inWorld(t, func(w *world) {
		w.d = nil
		a, b := w.boot("a", 1, func(c *Config) { c.QueueBytes = 1 << 20 }), w.boot("b", 1)
		w.meet()
		b.hold()
		sent := 0
		for a.Send("b", Live, Frame{DB: 1, Payload: make([]byte, 1000)}) {
			if sent++; sent > 2000 {
				t.Fatal("the queue has no bound")
			}
		}
		if sent < 1000 {
			t.Errorf("the queue took %d frames of 1000 bytes", sent)
		}
		synctest.Wait()
		if !errors.Is(a.lastCause(), ErrQueueFull) {
			t.Errorf("a's link went down with %v", a.lastCause())
		}
		b.release()
		w.pass(maxRedial)
		if got := a.links() + ", " + b.links(); got != "up down up, up down up" {
			t.Errorf("heard %s", got)
		}
	})
}

func TestSendWaitBlocksWhileItsDatabaseHasTooMuchQueued(t *testing.T) {
	inWorld(t, func(w *world) {
		w.d = nil
		a, b := w.boot("a", 1), w.boot("b", 1)
		w.meet()
		b.hold()
		const frames, size = 300, 10_000
		sent := 0
		done := make(chan error)
		go func() {
			for i := range frames {
				if err := a.SendWait(w.Context(), "b", Snapshot, Frame{DB: 1, Payload: make([]byte, size)}); err != nil {
					done <- fmt.Errorf("frame %d: %w", i, err)
					return
				}
				sent++
			}
			done <- nil
		}()
		synctest.Wait()
		if most := (waitBytes + 2*batchSize + readBuffer) / size; sent < waitBytes/size || sent > most {
			t.Errorf("%d frames were taken, want %d to %d", sent, waitBytes/size, most)
		}
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		if err := a.SendWait(ctx, "b", Snapshot, Frame{DB: 1}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a full queue and a deadline: %v", err)
		}
		if err := a.SendWait(ctx, "b", Snapshot, Frame{DB: 2}); err != nil {
			t.Errorf("another database has to wait too: %v", err)
		}
		b.release()
		if err := <-done; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := len(b.frames(Snapshot, 1)); n != frames {
			t.Errorf("%d of %d frames came", n, frames)
		}
		if a.links() != "up" {
			t.Errorf("a heard %s", a.links())
		}
	})
}

func TestSendWaitEndsWithTheLink(t *testing.T) {
	inWorld(t, func(w *world) {
		w.d = nil
		a, b := w.boot("a", 1), w.boot("b", 1)
		w.meet()
		b.hold()
		done := make(chan error)
		go func() {
			for {
				if err := a.SendWait(w.Context(), "b", CatchUp, Frame{Payload: make([]byte, 50_000)}); err != nil {
					done <- err
					return
				}
			}
		}()
		synctest.Wait()
		a.SetPeers(nil)
		if err := <-done; err != ErrDown {
			t.Errorf("SendWait says %v", err)
		}
	})
}

func TestSlowHandlerIsNotADeadPeer(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.boot("a", 1), w.boot("b", 1)
		w.meet()
		b.hold()
		w.mustSend(a, "b", Snapshot, 1, "a long one")
		w.pass(time.Minute)
		b.release()
		w.pass(time.Minute)
		if got := a.links() + ", " + b.links(); got != "up, up" {
			t.Errorf("heard %s", got)
		}
	})
}

func TestPeerThatIsRemovedAndComesBack(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.boot("a", 1), w.boot("b", 1)
		w.meet()
		a.hold()
		w.mustSend(b, "a", Live, 1, "held")
		synctest.Wait()
		a.SetPeers(nil)
		a.SetPeers(w.records()) // while the old link still ends
		synctest.Wait()
		if got := a.links(); got != "up" {
			t.Fatalf("a heard %s", got)
		}
		a.release()
		w.pass(2 * maxRedial)
		if got := fmt.Sprint(a.take()); got != "[up b/1 b live db1 held down b: node is no longer a peer up b/1]" {
			t.Errorf("a heard %s", got)
		}
		if got := b.links(); got != "up down up" {
			t.Errorf("b heard %s", got)
		}
	})
}

func TestNodeIsAcceptedOnceItIsKnown(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.boot("a", 1), w.boot("b", 1)
		a.SetPeers(w.records())
		w.pass(time.Minute)
		if n := b.Refused()[RefusedUnknown]; n == 0 {
			t.Error("b refused nobody")
		}
		if s := a.Stats()[0]; s.Up || !strings.Contains(s.LastError, "unknown") {
			t.Errorf("a knows %+v", s)
		}
		b.SetPeers(w.records())
		w.pass(maxRedial)
		if got := a.links() + ", " + b.links(); got != "up, up" {
			t.Errorf("heard %s", got)
		}
	})
}

func TestChangedRecordIsDialledAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.boot("a", 1)
		a.SetPeers([]catalog.Node{{ID: "b", Link: "nowhere"}})
		w.pass(time.Minute) // the wait is long by now
		b := w.boot("b", 1)
		b.SetPeers(w.records())
		a.SetPeers(w.records())
		synctest.Wait()
		if got := a.links(); got != "up" {
			t.Errorf("a heard %q", got)
		}
	})
}

func TestTokenMustBeTheSame(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.boot("a", 1, func(c *Config) { c.Token = "one" })
		b := w.boot("b", 1, func(c *Config) { c.Token = "two" })
		w.meet()
		w.pass(time.Second)
		if a.links()+b.links() != "" {
			t.Errorf("heard %s, %s", a.links(), b.links())
		}
		if s := a.Stats()[0].LastError; !strings.Contains(s, "token") {
			t.Errorf("a says %q", s)
		}
	})
}

func TestRoundTripIsMeasured(t *testing.T) {
	inWorld(t, func(w *world) {
		w.d.SetDelay("a", "b", 30*time.Millisecond)
		w.d.SetDelay("b", "a", 70*time.Millisecond)
		a, b := w.boot("a", 1), w.boot("b", 1)
		w.meet()
		w.pass(time.Second)
		for _, n := range []*testNode{a, b} {
			if s := n.Stats()[0]; s.RTT.Round(time.Millisecond) != 100*time.Millisecond || !s.Up || s.BytesIn == 0 {
				t.Errorf("%s knows %+v", n.name, s)
			}
		}
		w.d.SetDelay("a", "b", 130*time.Millisecond)
		w.pass(time.Minute)
		if rtt := a.Stats()[0].RTT.Round(time.Millisecond); rtt != 200*time.Millisecond {
			t.Errorf("after the way got longer it is %v", rtt)
		}
	})
}

func TestCloseWhileDiallingInVain(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.boot("a", 1)
		w.boot("b", 1)
		w.cut("b", "a", true)
		w.meet()
		w.pass(300 * time.Millisecond)
		start := time.Now()
		a.Close()
		if took := time.Since(start); took != 0 {
			t.Errorf("Close took %v", took)
		}
		a.SetPeers(w.records()) // is no use, and does no harm
		if a.Send("b", Live, Frame{}) {
			t.Error("Send on a closed hub says yes")
		}
	})
}
