package pubsub

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"vecino/command"
	"vecino/resp"
)

// mailbox is a subscriber that keeps what it is told.
type mailbox struct {
	Listener
	got []string
}

func (m *mailbox) Deliver(msg *Message) {
	out := resp.Writer{Proto: 3}
	msg.Append(&out)
	v, err := resp.NewReader(strings.NewReader(string(out.Buf))).Read()
	if err != nil || v.Kind != resp.KindPush {
		panic(fmt.Sprintf("no push: %q %v", out.Buf, err))
	}
	m.got = append(m.got, strings.Join(v.Strings(), " "))
}

func newMailbox(h *Hub) *mailbox {
	m := &mailbox{}
	m.Open(h, m)
	return m
}

func words(s string) (list [][]byte) {
	for _, w := range strings.Fields(s) {
		list = append(list, []byte(w))
	}
	return list
}

func (m *mailbox) on(kind command.Channel, channels string) {
	m.Subscribe(kind, words(channels), &resp.Writer{})
}

func (m *mailbox) off(kind command.Channel, channels string) {
	m.Unsubscribe(kind, words(channels), &resp.Writer{})
}

func TestMessageReachesThoseWhoListenToItsChannelOrToAPatternOfIt(t *testing.T) {
	var h Hub
	a, b, c := newMailbox(&h), newMailbox(&h), newMailbox(&h)
	a.on(command.PlainChannel, "news sport")
	b.on(command.PatternChannel, "n*")
	b.on(command.PlainChannel, "news")
	c.on(command.ShardChannel, "news")

	if n := h.Publish(command.PlainChannel, []byte("news"), []byte("rain")); n != 3 {
		t.Errorf("delivered %d times", n)
	}
	if n := h.Publish(command.ShardChannel, []byte("news"), []byte("sun")); n != 1 {
		t.Errorf("delivered %d times in the shard", n)
	}
	if n := h.Publish(command.PlainChannel, []byte("weather"), []byte("x")); n != 0 {
		t.Errorf("delivered %d times where nobody listens", n)
	}
	for _, want := range []struct {
		who *mailbox
		got []string
	}{
		{a, []string{"message news rain"}},
		{b, []string{"message news rain", "pmessage n* news rain"}},
		{c, []string{"smessage news sun"}},
	} {
		if !slices.Equal(want.who.got, want.got) {
			t.Errorf("got %q, want %q", want.who.got, want.got)
		}
	}
}

func TestNothingIsKeptOnceTheLastSubscriptionIsGone(t *testing.T) {
	var h Hub
	a, b := newMailbox(&h), newMailbox(&h)
	a.on(command.PlainChannel, "x y")
	a.on(command.PatternChannel, "*")
	b.on(command.PlainChannel, "x")
	b.on(command.ShardChannel, "x")
	a.off(command.PlainChannel, "x nobody")
	if n := h.Subscribers(command.PlainChannel, []byte("x")); n != 1 {
		t.Errorf("%d subscribers of x", n)
	}
	b.Close()
	if got := h.Channels(command.PlainChannel, nil); len(got) != 1 || string(got[0]) != "y" {
		t.Errorf("channels %q", got)
	}
	a.off(command.PlainChannel, "")
	if a.Count(command.PlainChannel) != 0 || !a.Subscribed() || h.Patterns() != 1 {
		t.Error("taking all plain channels away took a pattern away")
	}
	a.Close()
	if !h.Empty() || a.Subscribed() {
		t.Errorf("left behind: %v", h.rooms)
	}
}

// TestAgainstAModel does what connections do, at random, and compares who
// gets what with a table of who listens to what.
func TestAgainstAModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var h Hub
	people := make([]*mailbox, 6)
	for i := range people {
		people[i] = newMailbox(&h)
	}
	model := map[string]bool{}
	for range 20_000 {
		who, kind := rng.IntN(len(people)), command.Channel(rng.IntN(2)*2) // plain or sharded
		channel := string(rune('a' + rng.IntN(4)))
		key := fmt.Sprint(who, kind, channel)
		switch rng.IntN(5) {
		case 0, 1:
			people[who].on(kind, channel)
			model[key] = true
		case 2:
			people[who].off(kind, channel)
			delete(model, key)
		case 3:
			if rng.IntN(10) == 0 {
				people[who].Close()
				for k := range model {
					if strings.HasPrefix(k, fmt.Sprint(who)+" ") {
						delete(model, k)
					}
				}
			}
		case 4:
			n := h.Publish(kind, []byte(channel), []byte("m"))
			for i, p := range people {
				want := 0
				if model[fmt.Sprint(i, kind, channel)] {
					want = 1
					n--
				}
				if len(p.got) != want {
					t.Fatalf("%d got %q of %d:%s", i, p.got, kind, channel)
				}
				p.got = nil
			}
			if n != 0 {
				t.Fatalf("count of deliveries is off by %d", n)
			}
		}
	}
}

func BenchmarkPublishToNobody(b *testing.B) {
	var h Hub
	channel, payload := []byte("news"), []byte("rain")
	b.ReportAllocs()
	for b.Loop() {
		h.Publish(command.PlainChannel, channel, payload)
	}
}
