package replication

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"vecino/catalog"
	"vecino/journal"
	"vecino/link"
)

// notes is a Copy that writes down what is done to it.
type notes struct {
	pos  catalog.Position
	hash uint64
	did  []string
	fail error // of the next change
}

func (n *notes) Position() (catalog.Position, uint64) { return n.pos, n.hash }

func (n *notes) note(format string, args ...any) error {
	n.did = append(n.did, fmt.Sprintf(format, args...))
	err := n.fail
	n.fail = nil
	return err
}

func (n *notes) Apply(e *journal.Entry, raw []byte, newer bool) error {
	text := "apply"
	if newer {
		text = "apply newer"
	}
	if err := n.note("%s %d", text, e.Seq); err != nil {
		return err
	}
	n.pos, n.hash = e.Position(), journal.Hash(n.hash, raw)
	return nil
}

func (n *notes) Install(pos catalog.Position, hash uint64, time int64) error {
	n.pos, n.hash = pos, hash
	return n.note("install %d", pos.Seq)
}

func (n *notes) Load(records []byte) error { return n.note("load %s", records) }

func (n *notes) Installed(complete catalog.Position) error {
	return n.note("installed %d", complete.Seq)
}

// replica is a follower with its copy.
type replica struct {
	t *testing.T
	*Follower
	copy *notes
	out  wire
	now  int64
	h    *history
}

func newReplica(t *testing.T, h *history, seq uint64) *replica {
	r := &replica{t: t, copy: &notes{pos: at(seq), hash: h.marks[seq]}, now: 1000, h: h}
	r.Follower = NewFollower(db, r.copy, seq > 0, catalog.Position{})
	return r
}

func (r *replica) sent(want string) {
	r.t.Helper()
	if got := r.out.take(); got != want {
		r.t.Errorf("sent\n%s\nwant\n%s", got, want)
	}
}

func (r *replica) did(want string) {
	r.t.Helper()
	if got := strings.Join(r.copy.did, ", "); got != want {
		r.t.Errorf("did %q, want %q", got, want)
	}
	r.copy.did = nil
}

func (r *replica) get(kind uint8, payload []byte) error {
	return r.Frame(kind, payload, r.now, &r.out)
}

// mark sends a frame that carries a position, for the present subscription.
func (r *replica) mark(kind uint8, seq uint64) {
	r.t.Helper()
	if err := r.get(kind, mark{number: r.number, pos: at(seq), hash: r.h.marks[seq]}.append(nil)); err != nil {
		r.t.Error(err)
	}
}

func (r *replica) entries(seqs ...uint64) error {
	payload := appendNumber(nil, r.number)
	for _, seq := range seqs {
		payload = append(payload, r.h.raw[seq]...)
	}
	return r.get(Entries, payload)
}

// follow lets it agree with a primary that has its history.
func (r *replica) follow() {
	r.t.Helper()
	r.Follow("p", true, r.now, &r.out)
	r.mark(Continue, r.copy.pos.Seq)
	r.Flush(&r.out)
	r.out.take()
}

func long(n int) *history {
	h := newHistory(10)
	for range n {
		h.next(1)
	}
	return h
}

func TestFollowerAsksAgreesAndGoesLive(t *testing.T) {
	r := newReplica(t, long(5), 0)
	r.Follow("p", false, r.now, &r.out)
	r.sent("")
	r.Follow("p", true, r.now, &r.out)
	r.sent("p live Subscribe #1000 0-0")
	r.Flush(&r.out)
	r.sent("") // nothing to acknowledge before the agreement
	r.mark(Continue, 0)
	r.Flush(&r.out)
	r.sent("p live Ack #1000 0-0")
	if err := r.entries(1, 2); err != nil {
		t.Fatal(err)
	}
	if r.Ready() || r.Connected() {
		t.Error("it is shown before it has come to the head")
	}
	r.mark(Live, 2)
	if !r.Ready() || !r.Connected() {
		t.Error("it is not live")
	}
	r.Flush(&r.out)
	r.sent("p live Ack #1000 1-2")
	r.Flush(&r.out)
	r.sent("")
	r.did("apply 1, apply 2")
}

func TestFollowerStaysReadyWithoutALink(t *testing.T) {
	r := newReplica(t, long(5), 2)
	r.follow()
	r.LinkDown()
	if !r.Ready() || r.Connected() {
		t.Error("what it has is old, but consistent")
	}
	if err := r.entries(3); err != nil {
		t.Error(err)
	}
	r.did("") // it came over a link that is gone
	r.Follow("p", true, r.now, &r.out)
	r.sent("p live Subscribe #1001 1-2")
}

func TestFollowerAsksAgain(t *testing.T) {
	r := newReplica(t, long(5), 2)
	r.Follow("p", true, r.now, &r.out)
	r.out.take()
	r.now += answerAfter - 1
	r.Tick(r.now, &r.out)
	r.sent("")
	r.now++
	r.Tick(r.now, &r.out)
	r.sent("p live Subscribe #4000 1-2")

	for _, numbered := range []bool{false, true} {
		var payload []byte
		if numbered {
			payload = appendNumber(nil, r.number)
		}
		if err := r.get(NotPrimary, payload); err != nil {
			t.Error(err)
		}
		r.now += retryAfter - 1
		r.Tick(r.now, &r.out)
		r.sent("")
		r.now++
		r.Tick(r.now, &r.out)
		r.sent(fmt.Sprintf("p live Subscribe #%d 1-2", r.now))
	}
}

func TestFollowerToldOfASnapshotWaitsForIt(t *testing.T) {
	r := newReplica(t, long(5), 0)
	r.Follow("p", true, r.now, &r.out)
	r.out.take()
	_ = r.get(SnapshotAhead, appendNumber(nil, r.number))
	r.now += 100 * answerAfter
	r.Tick(r.now, &r.out)
	r.sent("")
}

func TestGapMakesTheFollowerAskFromWhereItIs(t *testing.T) {
	h := long(6)
	other := newHistory(10)
	other.effect = 'x'
	for range 6 {
		other.next(1)
	}
	for name, payload := range map[string][]byte{
		"an entry is missing":  h.raw[4],
		"an entry comes twice": h.raw[2],
		"another history":      other.raw[3],
	} {
		t.Run(name, func(t *testing.T) {
			r := newReplica(t, h, 2)
			r.follow()
			err := r.get(Entries, append(appendNumber(nil, r.number), payload...))
			if !errors.Is(err, errGap) {
				t.Errorf("error %v", err)
			}
			r.sent("p live Subscribe #1001 1-2")
			r.did("")
			if !r.Ready() || !r.Whole() {
				t.Error("what it has is as good as before")
			}
			if err := r.entries(3); err != nil { // on their way when it asked, now of an earlier subscription
				t.Error(err)
			}
			r.mark(Continue, 2)
			if err := r.entries(3); err != nil {
				t.Error(err)
			}
			r.did("apply 3")
		})
	}
}

func TestEntryThatCannotBeAppliedCostsTheCopy(t *testing.T) {
	r := newReplica(t, long(6), 2)
	r.follow()
	r.copy.fail = errors.New("it changes what is not here")
	if err := r.entries(3); err == nil {
		t.Fatal("no error")
	}
	if r.Ready() || r.Whole() {
		t.Error("a copy that has gone wrong is shown")
	}
	last := r.out.frames[len(r.out.frames)-1]
	if m, _ := parseMark(last.Payload); last.Kind != Subscribe || m.hash == r.h.marks[2] {
		t.Error("it doesn't ask for another copy")
	}
	r.mark(Continue, 2) // from a primary that can't be: its history is no prefix
	if r.state != asking {
		t.Error("it goes on as if nothing had happened")
	}
}

// snapshot sends it a snapshot that begins at a position.
func (r *replica) snapshot(from uint64, chunks ...string) {
	r.mark(SnapshotBegin, from)
	for _, c := range chunks {
		if err := r.get(SnapshotData, append(appendNumber(nil, r.number), c...)); err != nil {
			r.t.Error(err)
		}
	}
}

func TestSnapshotIsLoadedAndCompletedByEntries(t *testing.T) {
	r := newReplica(t, long(9), 2)
	r.Follow("p", true, r.now, &r.out)
	r.out.take()
	_ = r.get(SnapshotAhead, appendNumber(nil, r.number))
	if !r.Ready() {
		t.Error("until the snapshot comes the old content can be shown")
	}
	r.snapshot(5, "a", "b")
	if r.Ready() || r.Whole() || !r.Broken() {
		t.Error("half a snapshot is shown")
	}
	if err := r.entries(6); err != nil {
		t.Error(err) // can't be: they come behind the end
	}
	r.Flush(&r.out)
	r.sent("")
	r.mark(SnapshotEnd, 7)
	r.Flush(&r.out)
	r.sent("p live Ack #1000 1-5")
	if r.Whole() || r.Broken() {
		t.Error("it is whole only at the snapshot's end, but belongs to a position now")
	}
	r.mark(Live, 5)
	if r.Ready() {
		t.Error("some keys are still newer than others")
	}
	_ = r.entries(6, 7, 8)
	r.mark(Live, 8)
	if !r.Ready() || !r.Whole() {
		t.Error("it is not live")
	}
	r.did("install 5, load a, load b, installed 7, apply newer 6, apply newer 7, apply 8")
}

func TestFollowerWithHalfASnapshotWantsAnother(t *testing.T) {
	r := newReplica(t, long(9), 0)
	r.Follow("p", true, r.now, &r.out)
	r.snapshot(5, "a")
	r.LinkDown()
	r.out.take()
	r.Follow("p", true, r.now, &r.out)
	m, _ := parseMark(r.out.frames[0].Payload)
	if m.hash == r.h.marks[5] {
		t.Error("it claims to have what the snapshot begins with")
	}
	r.mark(Continue, 5)
	if r.state != asking {
		t.Error("it goes on with half a snapshot")
	}
	if err := r.get(SnapshotData, append(appendNumber(nil, r.number-1), "rest of the first"...)); err != nil {
		t.Error(err)
	}
	r.snapshot(6, "c")
	_ = r.get(SnapshotData, append(appendNumber(nil, r.number-1), "still the first"...))
	_ = r.get(SnapshotEnd, mark{number: r.number - 1, pos: at(5)}.append(nil))
	r.mark(SnapshotEnd, 6)
	r.mark(Live, 6)
	r.did("install 5, load a, install 6, load c, installed 6")
	if !r.Ready() {
		t.Error("it is not live")
	}
}

func TestSnapshotThatWasGivenUpIsNotBegun(t *testing.T) {
	r := newReplica(t, long(9), 0)
	r.Follow("p", true, r.now, &r.out)
	given := r.number
	_ = r.get(NotPrimary, appendNumber(nil, given))
	_ = r.get(SnapshotBegin, mark{number: given, pos: at(5)}.append(nil)) // slower, on its own lane
	r.did("")
	r.out.take()
	r.now += retryAfter
	r.Tick(r.now, &r.out)
	r.sent("p live Subscribe #1100 0-0")
}

func TestRecordsThatCannotBeLoaded(t *testing.T) {
	r := newReplica(t, long(9), 0)
	r.Follow("p", true, r.now, &r.out)
	r.mark(SnapshotBegin, 5)
	r.out.take()
	r.copy.fail = errors.New("damaged")
	if err := r.get(SnapshotData, appendNumber(nil, r.number)); err == nil {
		t.Error("no error")
	}
	r.sent("p live Subscribe #1001 1-5")
	if r.Whole() {
		t.Error("it is whole")
	}
}

// A copy without memory for an entry stays what it was, and asks again soon.
func TestEntryForWhichThereIsNoMemoryComesAgain(t *testing.T) {
	r := newReplica(t, long(6), 2)
	r.follow()
	r.copy.fail = fmt.Errorf("no memory: %w", ErrLater)
	if err := r.entries(3, 4); !errors.Is(err, ErrLater) {
		t.Fatal(err)
	}
	r.did("apply 3")
	r.sent("")
	if !r.Ready() || !r.Whole() {
		t.Error("it isn't shown though it is what it was")
	}
	_ = r.entries(4) // was on its way
	r.did("")
	r.now += retryAfter
	r.Tick(r.now, &r.out)
	r.sent("p live Subscribe #1100 1-2")
	r.mark(Continue, 2)
	_ = r.entries(3, 4)
	r.did("apply 3, apply 4")
}

// One without memory for a snapshot waits longer, since to begin anew isn't cheap.
func TestSnapshotForWhichThereIsNoMemoryComesAgain(t *testing.T) {
	r := newReplica(t, long(9), 0)
	r.Follow("p", true, r.now, &r.out)
	r.mark(SnapshotBegin, 5)
	r.out.take()
	r.copy.fail = ErrLater
	_ = r.get(SnapshotData, appendNumber(nil, r.number))
	if r.Whole() {
		t.Error("it is whole")
	}
	r.now += answerAfter
	r.Tick(r.now, &r.out)
	r.sent("")
	r.now += snapshotAfter
	r.Tick(r.now, &r.out)
	if m, _ := parseMark(r.out.frames[0].Payload); m.hash == r.h.marks[5] {
		t.Error("it claims to have what the snapshot begins with")
	}
}

func TestFollowerOfAnotherPrimary(t *testing.T) {
	r := newReplica(t, long(9), 2)
	r.follow()
	r.Follow("q", true, r.now, &r.out)
	r.sent("p live Unsubscribe\nq live Subscribe #1001 1-2")
	r.Follow("q", true, r.now, &r.out)
	r.sent("")
	r.Follow("", false, r.now, &r.out)
	r.sent("q live Unsubscribe")
	r.Follow("q", true, r.now, &r.out)
	r.sent("q live Subscribe #1002 1-2")
}

func TestCopyThatBeganWithASnapshotIsShownOnlyWhenItIsComplete(t *testing.T) {
	h := long(9)
	copy := &notes{pos: at(5), hash: h.marks[5]}
	r := &replica{t: t, copy: copy, now: 1000, h: h, Follower: NewFollower(db, copy, true, at(7))}
	if r.Ready() || r.Whole() {
		t.Error("the journal doesn't reach the end of the checkpoint, yet it is shown")
	}
	r.follow()
	_ = r.entries(6, 7, 8)
	r.did("apply newer 6, apply newer 7, apply 8")
	r.mark(Live, 8)
	if !r.Ready() {
		t.Error("it is not live")
	}
}

func TestEntriesOfANewEpochFollow(t *testing.T) {
	h := long(3)
	h.next(4)
	r := newReplica(t, h, 3)
	r.follow()
	if err := r.entries(4); err != nil || r.copy.pos != (catalog.Position{Epoch: 4, Seq: 4}) {
		t.Errorf("it is at %v, %v", r.copy.pos, err)
	}
}

func FuzzFollower(f *testing.F) {
	h := long(4)
	f.Add(uint8(Entries), append(appendNumber(nil, 1000), h.raw[3]...), uint8(Live), []byte{})
	f.Add(uint8(SnapshotBegin), mark{number: 1000, pos: at(9)}.append(nil), uint8(SnapshotEnd), mark{number: 1000, pos: at(9)}.append(nil))
	f.Fuzz(func(t *testing.T, kind uint8, payload []byte, kind2 uint8, payload2 []byte) {
		r := newReplica(t, long(4), 0)
		r.Follow("p", true, r.now, &r.out)
		_ = r.get(kind, payload)
		_ = r.get(kind2, payload2)
		r.Flush(&r.out)
		if r.Ready() {
			t.Error("two frames can't make it live")
		}
	})
}

// Frames go between a feed and a follower, those of a lane in their order and
// the lanes in any.
func TestFeedAndFollowerAgreeWhateverTheLanesDo(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		p := newPrimary(t, int(rng.Uint64()%30), small)
		r := newReplica(t, p.history, 0)
		var lanes [3][]link.Frame
		var back []link.Frame
		var snapshot *Snapshot
		r.Follow("p", true, r.now, &r.out)
		for step := range 3000 {
			back = append(back, r.out.frames...)
			r.out.take()
			for i, f := range p.out.frames {
				lanes[p.out.lanes[i]] = append(lanes[p.out.lanes[i]], f)
			}
			p.out.take()
			switch n := rng.Uint64() % 10; {
			case n < 2 && step < 200:
				p.write(1 + int(rng.Uint64()%4))
			case n < 3:
				p.Feed.Flush(&p.out)
			case n < 5:
				r.Flush(&r.out)
			case n < 7 && len(back) > 0:
				f := back[0]
				back = back[1:]
				if f.Kind == Ack {
					_ = p.Feed.Acked("r", f.Payload, &p.out)
				} else if s, _ := p.Feed.Subscribe("r", f.Payload, &p.out); s != nil {
					p.out.Send("r", link.Snapshot, s.Begin(p.marks[s.Position.Seq], 0))
					p.out.Send("r", link.Snapshot, s.Data([]byte("x")))
					p.out.Send("r", link.Snapshot, s.End(s.Position))
					snapshot = s
				}
			case n < 8 && snapshot != nil:
				p.SnapshotSent("r", snapshot, true, &p.out)
				snapshot = nil
			default:
				l := &lanes[rng.Uint64()%3]
				if len(*l) > 0 {
					f := (*l)[0]
					*l = (*l)[1:]
					if err := r.get(f.Kind, f.Payload); err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
				}
			}
		}
		if !r.Ready() || r.copy.pos != p.pos || r.copy.hash != p.hash {
			t.Fatalf("seed %d: the follower is at %v (ready: %v), the primary at %v", seed, r.copy.pos, r.Ready(), p.pos)
		}
	}
}
