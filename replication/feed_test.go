package replication

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"vecino/catalog"
	"vecino/journal"
	"vecino/link"
)

const db catalog.ID = 9

// wire remembers what was sent, in words.
type wire struct {
	frames []link.Frame
	lanes  []link.Lane
	nodes  []string
}

func (w *wire) Send(node string, lane link.Lane, f link.Frame) bool {
	f.Payload = bytes.Clone(f.Payload)
	w.frames, w.lanes, w.nodes = append(w.frames, f), append(w.lanes, lane), append(w.nodes, node)
	return true
}

// take returns what was sent since the last call.
func (w *wire) take() string {
	var said []string
	for i, f := range w.frames {
		said = append(said, w.nodes[i]+" "+w.lanes[i].String()+" "+tell(f))
	}
	w.frames, w.lanes, w.nodes = nil, nil, nil
	return strings.Join(said, "\n")
}

// tell puts a frame into words.
func tell(f link.Frame) string {
	names := map[uint8]string{
		Durable: "Durable", Subscribe: "Subscribe", Continue: "Continue", Entries: "Entries", SnapshotBegin: "SnapshotBegin", SnapshotData: "SnapshotData",
		SnapshotEnd: "SnapshotEnd", Ack: "Ack", Live: "Live", Unsubscribe: "Unsubscribe", NotPrimary: "NotPrimary", Publish: "Publish",
		SnapshotAhead: "SnapshotAhead",
	}
	switch f.Kind {
	case Publish:
		return fmt.Sprintf("Publish %s", f.Payload)
	case Unsubscribe:
		return "Unsubscribe"
	}
	number, rest, err := splitNumber(f.Payload)
	if err != nil {
		return names[f.Kind]
	}
	text := fmt.Sprintf("%s #%d", names[f.Kind], number)
	switch f.Kind {
	case Entries:
		for len(rest) > 0 {
			e, n, err := journal.DecodeEntry(rest)
			if err != nil {
				return err.Error()
			}
			text += fmt.Sprintf(" %d-%d", e.Epoch, e.Seq)
			rest = rest[n:]
		}
	case SnapshotData:
		text += fmt.Sprintf(" %q", rest)
	case NotPrimary, SnapshotAhead:
	default:
		m, err := parseMark(f.Payload)
		if err != nil {
			return err.Error()
		}
		text += fmt.Sprintf(" %d-%d", m.pos.Epoch, m.pos.Seq)
	}
	return text
}

// history makes entries that follow each other.
type history struct {
	pos    catalog.Position
	hash   uint64
	marks  map[uint64]uint64 // the hash up to each seq
	raw    map[uint64][]byte
	size   int // of each entry's effects
	effect byte
}

func newHistory(size int) *history {
	return &history{size: size, marks: map[uint64]uint64{0: 0}, raw: map[uint64][]byte{}}
}

func (h *history) next(epoch uint32) (catalog.Position, []byte, uint64) {
	h.pos = catalog.Position{Epoch: epoch, Seq: h.pos.Seq + 1}
	raw := journal.AppendEntry(nil, &journal.Entry{DB: db, Epoch: epoch, Seq: h.pos.Seq, Prev: h.hash, Effects: bytes.Repeat([]byte{h.effect}, h.size)})
	h.hash = journal.Hash(h.hash, raw)
	h.marks[h.pos.Seq], h.raw[h.pos.Seq] = h.hash, raw
	return h.pos, raw, h.hash
}

// primary is a feed with its history.
type primary struct {
	t *testing.T
	*Feed
	*history
	out wire
}

func newPrimary(t *testing.T, entries int, sizes Sizes) *primary {
	p := &primary{t: t, history: newHistory(100)}
	p.Feed = NewFeed(db, catalog.Position{}, 0, sizes)
	p.write(entries)
	p.flush("")
	return p
}

func (p *primary) write(n int) {
	for range n {
		p.Feed.Entry(p.next(1))
	}
}

func (p *primary) flush(want string) {
	p.t.Helper()
	p.Feed.Flush(&p.out)
	p.sent(want)
}

func (p *primary) sent(want string) {
	p.t.Helper()
	want = strings.ReplaceAll(strings.TrimSpace(want), "\t", "")
	if got := p.out.take(); got != want {
		p.t.Errorf("sent\n%s\nwant\n%s", got, want)
	}
}

func (p *primary) subscribe(node string, number, seq uint64) *Snapshot {
	p.t.Helper()
	return p.subscribeAs(node, number, seq, p.marks[seq])
}

func (p *primary) subscribeAs(node string, number, seq, hash uint64) *Snapshot {
	p.t.Helper()
	m := mark{number: number, pos: at(seq), hash: hash}
	snapshot, err := p.Feed.Subscribe(node, m.append(nil), &p.out)
	if err != nil {
		p.t.Fatal(err)
	}
	return snapshot
}

func (p *primary) ack(node string, number, seq uint64) {
	p.t.Helper()
	if err := p.Feed.Acked(node, mark{number: number, pos: at(seq)}.append(nil), &p.out); err != nil {
		p.t.Fatal(err)
	}
}

func at(seq uint64) catalog.Position {
	if seq == 0 {
		return catalog.Position{}
	}
	return catalog.Position{Epoch: 1, Seq: seq}
}

var small = Sizes{Ring: 2000, Window: 300, Nearly: 150, Pinned: 8000}

func TestReplicaWithAPrefixGoesOnBehindIt(t *testing.T) {
	p := newPrimary(t, 3, DefaultSizes)
	if p.subscribe("r", 7, 1) != nil {
		t.Error("it gets a snapshot")
	}
	p.sent("r live Continue #7 1-1")
	p.ack("r", 7, 1)
	p.sent("r live Entries #7 1-2 1-3\nr live Live #7 1-3")
	p.ack("r", 7, 3)
	p.write(1)
	p.sent("")
	p.write(1)
	p.flush("r live Entries #7 1-4 1-5")
	p.flush("")
}

func TestReplicaAtTheHeadIsLiveAtOnce(t *testing.T) {
	p := newPrimary(t, 2, DefaultSizes)
	p.subscribe("r", 7, 2)
	p.ack("r", 7, 2)
	p.sent("r live Continue #7 1-2\nr live Live #7 1-2")
}

func TestReplicaOfAnEmptyDatabaseFollowsFromTheBeginning(t *testing.T) {
	p := newPrimary(t, 0, DefaultSizes)
	p.subscribe("r", 7, 0)
	p.ack("r", 7, 0)
	p.sent("r live Continue #7 0-0\nr live Live #7 0-0")
	p.write(1)
	p.flush("r live Entries #7 1-1")
}

func TestReplicaWithAnotherHistoryGetsASnapshot(t *testing.T) {
	for name, c := range map[string]struct{ seq, hash uint64 }{
		"another hash":                  {2, 12345},
		"another hash at the beginning": {0, 12345},
		"more than the primary":         {4, 4},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPrimary(t, 3, DefaultSizes)
			s := p.subscribeAs("r", 7, c.seq, c.hash)
			if s == nil || s.Position != at(3) || s.Number != 7 || s.DB != db {
				t.Fatalf("its snapshot is %+v", s)
			}
			p.sent("r live SnapshotAhead #7")
			p.write(2)
			p.flush("") // nothing before it has the snapshot
			p.SnapshotSent("r", s, true, &p.out)
			p.sent("")
			p.ack("r", 7, 3)
			p.sent("r live Entries #7 1-4 1-5\nr live Live #7 1-5")
		})
	}
}

func TestRingForgetsTheOldestAndKnowsWhatItHas(t *testing.T) {
	p := newPrimary(t, 0, Sizes{Ring: 100 << 10, Window: 1 << 20, Nearly: 1 << 20})
	p.write(2000)
	p.flush("")
	first := uint64(0)
	for seq := range p.pos.Seq + 1 {
		has := p.ring.has(at(seq), p.marks[seq])
		if has && first == 0 {
			first = seq
		}
		if has != (first > 0) {
			t.Fatalf("has %v: %v, though %d is the first", seq, has, first)
		}
		if has && p.ring.has(at(seq), p.marks[seq]+1) {
			t.Fatalf("it takes another history for its own at %d", seq)
		}
	}
	if p.ring.bytes > 100<<10 || p.ring.bytes < 60<<10 {
		t.Errorf("%d bytes are kept", p.ring.bytes)
	}
	if p.subscribe("r", 7, first-1) == nil {
		t.Error("no snapshot for a replica that is too far behind")
	}
	p.out.take()
	p.subscribe("r", 8, first)
	p.ack("r", 8, first)
	if got := p.out.take(); !strings.Contains(got, fmt.Sprintf("Entries #8 1-%d ", first+1)) || !strings.HasSuffix(got, fmt.Sprintf("1-%d", p.pos.Seq)) {
		t.Errorf("sent %.100s", got)
	}
}

func TestDatabaseWithoutReplicasKeepsNoEntries(t *testing.T) {
	p := newPrimary(t, 5, DefaultSizes)
	p.Keep(false)
	p.write(5)
	p.flush("")
	if len(p.ring.chunks) != 0 || p.ring.bytes != 0 {
		t.Errorf("%d bytes are kept", p.ring.bytes)
	}
	p.Keep(true)
	p.write(1)
	p.flush("")
	p.subscribe("r", 7, 10)
	p.ack("r", 7, 10)
	p.sent("r live Continue #7 1-10\nr live Entries #7 1-11\nr live Live #7 1-11")
}

func TestReplicaFarBehindGetsWindowsOnTheirOwnLane(t *testing.T) {
	p := newPrimary(t, 8, small) // of some 130 bytes each
	p.subscribe("r", 7, 0)
	p.sent("r live Continue #7 0-0")
	p.ack("r", 7, 0)
	p.sent("r catch-up Entries #7 1-1 1-2")
	p.write(1)
	p.flush("") // it isn't live: what is made now comes when it is its turn
	p.ack("r", 7, 1)
	p.sent("") // half of the window
	p.ack("r", 7, 2)
	p.sent("r catch-up Entries #7 1-3 1-4")
	p.ack("r", 7, 4)
	p.sent("r catch-up Entries #7 1-5 1-6")
	p.ack("r", 7, 6)
	p.sent("r catch-up Entries #7 1-7 1-8")
	p.ack("r", 7, 8)
	// The ring only knows how much its chunks hold, so the last entry may come
	// on either lane; what counts is that it is live only behind it.
	got := p.out.take()
	if got == "r catch-up Entries #7 1-9" {
		p.ack("r", 7, 9)
		got = p.out.take()
		if got != "r live Live #7 1-9" {
			t.Errorf("sent %s", got)
		}
	} else if got != "r live Entries #7 1-9\nr live Live #7 1-9" {
		t.Errorf("sent %s", got)
	}
}

func TestNothingIsSentBeforeItIsCommitted(t *testing.T) {
	p := newPrimary(t, 2, DefaultSizes)
	p.write(1)
	p.subscribe("r", 7, 2)
	p.ack("r", 7, 2)
	p.sent("r live Continue #7 1-2")
	p.flush("r live Entries #7 1-3\nr live Live #7 1-3")
}

func TestMessagesComeBetweenTheEntriesBetweenWhichTheyWerePublished(t *testing.T) {
	p := newPrimary(t, 1, DefaultSizes)
	p.Publish([]byte("nobody hears this"))
	p.flush("")
	for i, node := range []string{"a", "b"} {
		p.subscribe(node, uint64(i), 1)
		p.ack(node, uint64(i), 1)
	}
	p.subscribe("late", 5, 1)
	p.out.take()
	p.write(1)
	p.Publish([]byte("one"))
	p.Publish([]byte("two"))
	p.write(2)
	p.Publish([]byte("three"))
	p.flush(`
		a live Entries #0 1-2
		a live Publish one
		a live Publish two
		a live Entries #0 1-3 1-4
		a live Publish three
		b live Entries #1 1-2
		b live Publish one
		b live Publish two
		b live Entries #1 1-3 1-4
		b live Publish three`)
}

func TestAcknowledgementsAreCounted(t *testing.T) {
	p := newPrimary(t, 3, DefaultSizes)
	for i, node := range []string{"a", "b", "c"} {
		p.subscribe(node, uint64(i), 3)
	}
	p.ack("a", 0, 3)
	p.ack("b", 1, 3)
	p.write(2)
	p.flush(p.expect())
	p.ack("a", 0, 5)
	p.ack("b", 1, 4)
	for seq, want := range map[uint64]int{3: 2, 4: 2, 5: 1, 6: 0} {
		if got := p.Acknowledged(at(seq)); got != want {
			t.Errorf("%d have %d, want %d", got, seq, want)
		}
	}
	p.Unsubscribe("a")
	if got := p.Acknowledged(at(5)); got != 0 {
		t.Errorf("%d have 5 after the one that had it left", got)
	}
}

// expect flushes early and says what that sent, where a test doesn't care.
func (p *primary) expect() string {
	p.Feed.Flush(&p.out)
	p.out.take()
	return ""
}

func TestWhatBelongsToAnEarlierSubscriptionIsIgnored(t *testing.T) {
	p := newPrimary(t, 3, DefaultSizes)
	old := p.subscribeAs("r", 7, 3, 1)
	fresh := p.subscribeAs("r", 8, 3, 1)
	p.out.take()
	p.SnapshotSent("r", old, true, &p.out)
	p.SnapshotSent("r", old, false, &p.out)
	p.ack("r", 7, 3)
	p.sent("")
	p.SnapshotSent("r", fresh, true, &p.out)
	p.ack("r", 7, 3)
	p.sent("")
	p.ack("r", 8, 3)
	p.sent("r live Live #8 1-3")
}

func TestAcknowledgementMayComeBeforeTheWordThatTheSnapshotWasSent(t *testing.T) {
	p := newPrimary(t, 3, DefaultSizes)
	s := p.subscribeAs("r", 7, 3, 1)
	p.out.take()
	p.ack("r", 7, 3)
	p.sent("")
	p.SnapshotSent("r", s, true, &p.out)
	p.sent("r live Live #7 1-3")
}

func TestReplicaWhoseSnapshotFailedIsToldToAskAgain(t *testing.T) {
	p := newPrimary(t, 3, DefaultSizes)
	s := p.subscribeAs("r", 7, 3, 1)
	p.out.take()
	p.SnapshotSent("r", s, false, &p.out)
	p.sent("r live NotPrimary #7")
	if len(p.Subscribers()) != 0 || p.ring.pins != 0 {
		t.Error("it is still thought of")
	}
}

func TestHistoryBehindASnapshotIsKeptUntilTheReplicaIsLive(t *testing.T) {
	p := newPrimary(t, 3, Sizes{Ring: 2000, Window: 64 << 10, Nearly: 1000, Pinned: 1 << 20})
	s := p.subscribeAs("r", 7, 3, 1)
	p.out.take()
	p.write(1000) // much more than the ring keeps
	p.flush("")
	p.SnapshotSent("r", s, true, &p.out)
	for acked := uint64(3); ; {
		p.ack("r", 7, acked)
		said := p.out.take()
		if said == "" || strings.Contains(said, "NotPrimary") {
			t.Fatalf("at %d it hears %q", acked, said)
		}
		if strings.Contains(said, "Live") {
			break
		}
		var epoch int
		if _, err := fmt.Sscanf(said[strings.LastIndex(said, " ")+1:], "%d-%d", &epoch, &acked); err != nil {
			t.Fatal(said)
		}
	}
	p.write(400)
	p.Feed.Flush(&p.out)
	if p.ring.bytes > 40<<10 {
		t.Errorf("%d bytes are kept afterwards", p.ring.bytes)
	}
}

func TestReplicaThatTakesTooLongForASnapshotStartsAnew(t *testing.T) {
	p := newPrimary(t, 3, Sizes{Ring: 1000, Window: 1000, Nearly: 500, Pinned: 50 << 10})
	s := p.subscribeAs("r", 7, 3, 1)
	p.out.take()
	p.write(2000)
	p.flush("")
	if p.ring.bytes > 90<<10 {
		t.Errorf("%d bytes are kept", p.ring.bytes)
	}
	p.SnapshotSent("r", s, true, &p.out)
	p.ack("r", 7, 3)
	p.sent("r live NotPrimary #7")
	if p.ring.pins != 0 {
		t.Error("the history is still kept for it")
	}
}

func TestFeedThatClosesTellsItsReplicas(t *testing.T) {
	p := newPrimary(t, 3, DefaultSizes)
	p.subscribe("a", 1, 3)
	p.ack("a", 1, 3)
	p.subscribeAs("b", 2, 3, 1)
	p.out.take()
	p.write(1)
	p.Feed.Close(&p.out)
	p.sent("a live NotPrimary #1\nb live NotPrimary #2")
	p.flush("")
}

func FuzzFeed(f *testing.F) {
	f.Add([]byte{}, uint8(0))
	f.Add(mark{number: 7, pos: at(2)}.append(nil), uint8(1))
	f.Fuzz(func(t *testing.T, payload []byte, kind uint8) {
		p := newPrimary(t, 3, small)
		p.subscribe("r", 7, 2)
		p.out.take()
		if kind%2 == 0 {
			snapshot, err := p.Feed.Subscribe("r", payload, &p.out)
			if err == nil && (snapshot == nil) != strings.Contains(p.out.take(), "Continue") {
				t.Error("neither a snapshot nor an agreement")
			}
		} else {
			_ = p.Feed.Acked("r", payload, &p.out)
		}
		p.write(1)
		p.Feed.Flush(&p.out)
	})
}
