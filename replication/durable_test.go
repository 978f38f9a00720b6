package replication

import (
	"testing"

	"vecino/catalog"
)

// A replica's word about its disk counts for the subscription it was given in,
// and no further than what it has acknowledged.
func TestFeedCountsReplicasByTheirDisks(t *testing.T) {
	p := newPrimary(t, 3, DefaultSizes)
	p.subscribe("a", 7, 0)
	p.subscribe("b", 8, 3)
	word := func(node string, number, seq uint64) {
		t.Helper()
		if err := p.HasDurable(node, mark{number: number, pos: at(seq)}.append(nil)); err != nil {
			t.Error(err)
		}
	}
	count := func(seq uint64, want int) {
		t.Helper()
		if got := p.Durable(at(seq)); got != want {
			t.Errorf("%d replicas have %d on disk, want %d", got, seq, want)
		}
	}
	p.ack("b", 8, 3)
	count(3, 0) // it has it, but may lose it
	word("b", 8, 2)
	count(2, 1)
	count(3, 0)
	word("b", 8, 3)
	word("a", 7, 3) // which hasn't agreed yet
	count(3, 1)
	word("nobody", 7, 3)
	p.ack("a", 7, 0)
	p.ack("a", 7, 3)
	count(3, 2)
	p.Unsubscribe("b")
	p.subscribe("b", 9, 3)
	p.ack("b", 9, 3)
	word("b", 8, 3) // late, of the subscription before
	count(3, 1)
	if err := p.HasDurable("a", []byte("nonsense")); err == nil {
		t.Error("takes nonsense")
	}
}

func TestFollowerTellsWhatIsOnItsDisk(t *testing.T) {
	r := newReplica(t, long(9), 5)
	r.Durable(at(5), nil) // as recovery found it
	r.Follow("p", true, r.now, &r.out)
	r.mark(Continue, 5)
	r.out.take()
	r.Flush(&r.out)
	r.sent("p live Ack #1000 1-5\np live Durable #1000 1-5")
	if err := r.entries(6, 7); err != nil {
		t.Fatal(err)
	}
	r.Flush(&r.out)
	r.sent("p live Ack #1000 1-7")
	r.Durable(at(7), &r.out)
	r.sent("p live Durable #1000 1-7")

	// A new subscription hears it anew; a snapshot takes it back.
	r.LinkDown()
	r.Durable(at(7), &r.out)
	r.sent("")
	r.Follow("p", true, r.now, &r.out)
	r.mark(Continue, 7)
	r.out.take()
	r.Flush(&r.out)
	r.sent("p live Ack #1001 1-7\np live Durable #1001 1-7")
	r.LinkDown()
	r.Follow("p", true, r.now, &r.out)
	r.mark(SnapshotBegin, 9)
	r.mark(SnapshotEnd, 9)
	r.out.take()
	r.Flush(&r.out)
	r.sent("p live Ack #1002 1-9")
}

// A copy that can't take entries for now asks for them later, and doesn't mind
// those that are on their way.
func TestFollowerThatIsSuspendedAsksAnew(t *testing.T) {
	r := newReplica(t, long(9), 5)
	r.follow()
	r.Suspend(r.now)
	number := r.number
	if err := r.entries(7); err != nil {
		t.Error(err)
	}
	r.did("")
	r.Tick(r.now+retryAfter-1, &r.out)
	r.sent("")
	r.Tick(r.now+retryAfter, &r.out)
	if r.number <= number {
		t.Error("under the old number")
	}
	r.out.take()
	r.mark(Continue, 5)
	if err := r.entries(6, 7); err != nil {
		t.Error(err)
	}
	r.did("apply 6, apply 7")

	detachedOne := newReplica(t, long(1), 0)
	detachedOne.Suspend(r.now)
	detachedOne.Tick(r.now+10*answerAfter, &detachedOne.out)
	detachedOne.sent("")
	if pos, _ := detachedOne.copy.Position(); pos != (catalog.Position{}) {
		t.Error(pos)
	}
}
