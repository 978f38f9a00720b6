package keyspace

import (
	"math/bits"

	"vecino/eviction"
	"vecino/internal/fifo"
)

// What comes back from the tier because somebody asked for it is a *guest*: as far as
// is known it is used this once. Guests leave in the order in which they came, and
// before anything else, unless they are used again; so what is read once doesn't push
// out what is read always, however much of it there is, and nobody looks for it. Of those that
// have left some bits stay, their *ghosts*. Who comes back while its ghost is there stays as
// long as it is used, like any other key. (The small queue and the ghosts of S3-FIFO, Yang
// et al., SOSP 2023.)
//
// A guest is known by its key, and that it was used again by its record's access stamp.
// Where that counts uses (LFU) there are no guests.

type guest struct {
	db    int
	hash  uint64
	key   []byte
	seq   uint64         // of the write that it came as of
	stamp eviction.Stamp // when it came
	bytes int            // that it takes
	sunk  bool           // it was, before it came
}

// oneVisit is for how many milliseconds after a guest has come its uses count as one. A
// command further ahead in the pipeline, or on a busy node, may have it wait that long, and
// who uses a value twice in a moment hasn't used it again.
const oneVisit = 1000

// guests are in the order in which they came.
type guests struct {
	queue fifo.Queue[guest]
	bytes int64
}

func (g *guests) push(last guest) {
	g.queue.Push(last)
	g.bytes += int64(last.bytes)
}

func (g *guests) pop() guest {
	first := g.queue.Pop()
	g.bytes -= int64(first.bytes)
	return first
}

// ghosts are guests that have left: of each sixteen bits of its hash, where others stand
// for its place. New ones take the places of old ones.
type ghosts struct{ slots []uint16 }

// fewestGhosts is how many there are places for at least. There are as many as records.
const fewestGhosts = 1 << 10

func (g *ghosts) place(hash uint64) (at int, print uint16) {
	return int(hash >> (65 - bits.Len(uint(len(g.slots))))), uint16(hash) | 1
}

// add adds a ghost where there are so many records.
func (g *ghosts) add(hash uint64, records int) {
	if want := 1 << bits.Len(uint(max(records, fewestGhosts)-1)); want > len(g.slots) || want < len(g.slots)/4 {
		g.slots = make([]uint16, want)
	}
	at, print := g.place(hash)
	g.slots[at] = print
}

// take removes a ghost, and reports whether it was there.
func (g *ghosts) take(hash uint64) bool {
	if len(g.slots) == 0 {
		return false
	}
	at, print := g.place(hash)
	if g.slots[at] != print {
		return false
	}
	g.slots[at] = 0
	return true
}

// welcome makes a key a guest that has just come, unless its ghost is there. The key is kept.
func (ks *Keyspace) welcome(db int, hash uint64, key []byte, sunk bool) {
	sp := ks.spaces[db]
	if sp == nil || ks.evict.policy.LFU() {
		return
	}
	e := sp.find(hash, key)
	if !e.there() || ks.tier.ghosts.take(hash) {
		return
	}
	bytes := e.size()
	if e.cold() {
		bytes -= e.stub().away
	}
	g := &ks.tier.guests
	g.push(guest{db, hash, key, e.Seq(), ks.clock, int(bytes), sunk})
	for g.queue.Len() > max(fewGuests, sp.slab.Len()/16) { // nobody needs their room
		g.pop()
	}
}

// fewGuests are always remembered, of more one for each sixteen records: each takes some
// 130 bytes, which no budget counts. Who came before them stays.
const fewGuests = 64

// Guests is how many bytes those take, about, that came back from the tier and may not
// have been used again.
func (ks *Keyspace) Guests() int64 { return ks.tier.guests.bytes }

// Leave calls fn for up to n guests, those first that came first, that weren't used again.
// They are guests no more. since is the write from which the next complete sweep goes on.
// fn may call Offload and SinkKey; sunk says that a guest was sunk before it came.
func (ks *Keyspace) Leave(n int, since uint64, fn func(c *Candidate, sunk bool)) {
	for ; n > 0 && ks.tier.guests.queue.Len() > 0; n-- {
		g := ks.tier.guests.pop()
		sp := ks.spaces[g.db]
		if sp == nil {
			continue
		}
		e := sp.find(g.hash, g.key)
		if !e.there() || e.Seq() != g.seq || e.Has(openFlag) || e.access().Idle(ks.clock) < g.stamp.Idle(ks.clock)-oneVisit {
			continue
		}
		ks.tier.ghosts.add(g.hash, sp.slab.Len())
		fn(&Candidate{
			DB: g.db, Hash: g.hash, Key: g.key, Seq: g.seq, Bytes: e.bytes(), Idle: e.access().Idle(ks.clock),
			Clean: e.clean(since),
		}, g.sunk)
	}
}

// SinkKey is Sink for one key, and reports how many bytes of memory it frees, none if it
// may not sink.
func (ks *Keyspace) SinkKey(s Sinking, db int, hash uint64, key []byte) (freed int64) {
	sp := ks.spaces[db]
	if sp == nil || ks.tier.graves.flushed[db] || ks.tier.flushing[db] {
		return 0
	}
	e := sp.find(hash, key)
	if !e.there() || !e.sinkable(s) || !ks.maySink(s, db, e) {
		return 0
	}
	return ks.sink(e)
}
