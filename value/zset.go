package value

import (
	"bytes"
	"encoding/binary"
	"iter"
	"math"
	"unsafe"
)

// ZSet is a set of members with scores, in the order of scores and, where they
// are equal, of the members' bytes.
//
// Ranks count from 0 in that order, and every range is one of ranks: RankOfScore
// and RankOfLex turn a bound into the rank where it falls. What ZCOUNT counts,
// say, is the difference of two of them.
//
// While it is small it is packed in order (zsmall.go).
type ZSet struct {
	small small
	big   *bigZSet // nil while small
	seed  uint64
}

// bigZSet has each member in a cell, whose value is the score, and the cells
// in order in a tree.
type bigZSet struct {
	index cells
	tree  ztree
}

const scoreSize = 8

// NewZSet makes an empty sorted set whose scans are ordered under that seed.
func NewZSet(seed uint64) *ZSet { return &ZSet{seed: seed} }

// Borrow sets z around the bytes of a small sorted set, or around none, to be
// an empty one. It changes them in place as far as their capacity goes, and
// goes on in the scratch if that isn't enough.
func (z *ZSet) Borrow(seed uint64, blob []byte, scratch *Scratch) {
	z.small.borrow(blob, scratch)
	z.big, z.seed = nil, seed
}

// Small is the bytes of a small sorted set, and whether they are other ones
// than it was borrowed around. ok is false if it has become big.
func (z *ZSet) Small() (blob []byte, moved, ok bool) {
	return z.small.b, z.small.moved, z.big == nil
}

// Big moves a big sorted set, which z no longer is then, into one of its own.
func (z *ZSet) Big() *ZSet {
	big := &ZSet{big: z.big, seed: z.seed}
	*z = ZSet{}
	return big
}

// Len is the number of members.
func (z *ZSet) Len() int {
	if z.big != nil {
		return z.big.index.len()
	}
	return z.small.count()
}

// Encoding is the name of the form the sorted set has.
func (z *ZSet) Encoding() string {
	if z.big != nil {
		return encodingTree
	}
	return encodingPacked
}

// Size is the memory that the sorted set takes, in bytes.
func (z *ZSet) Size() int {
	size := int(unsafe.Sizeof(*z)) + cap(z.small.b)
	if z.big != nil {
		size += z.big.index.size() + z.big.tree.size()
	}
	return size
}

// Lookup is the look-up of member that is about to be made, if it needs one: a small
// collection doesn't.
func (z *ZSet) Lookup(member []byte) Lookup {
	if z.big != nil {
		return z.big.index.lookup(member)
	}
	return Lookup{}
}

// Score returns the score of member.
func (z *ZSet) Score(member []byte) (float64, bool) {
	if z.big != nil {
		if c := z.big.index.find(member); c != nil {
			return c.score(), true
		}
		return 0, false
	}
	_, at, ok := z.small.b.findScored(member, firstScored)
	if !ok {
		return 0, false
	}
	return z.small.b.element(at).score, true
}

// Set gives member a score, which is not NaN, and reports whether the member
// is new, and whether it is new or its score changed.
func (z *ZSet) Set(member []byte, score float64) (added, changed bool) {
	if math.IsNaN(score) {
		panic("value: a score that is not a number")
	}
	if z.big != nil {
		return z.big.set(member, score)
	}
	was, at, found := z.small.b.placeScored(member, score)
	if found {
		e := z.small.b.element(was)
		if e.score == score {
			return false, false
		}
		z.small.moveScored(&e, at, score)
		return false, true
	}
	if z.small.count() == maxPackedLen || len(member) > maxPackedBytes {
		z.grow()
		return z.big.set(member, score)
	}
	z.small.begin(formZSet, 0, len(member)+2)
	z.small.insertScored(at, member, score)
	return true, true
}

// Del removes member and reports whether it was there.
func (z *ZSet) Del(member []byte) bool {
	if z.big != nil {
		c := z.big.index.remove(member)
		if c == nil {
			return false
		}
		z.big.tree.remove(c.score(), member)
		return true
	}
	_, at, ok := z.small.b.findScored(member, firstScored)
	if ok {
		e := z.small.b.element(at)
		z.small.cutScored(at, &e, 1)
	}
	return ok
}

// RemoveRange removes the members of ranks from up to but not including to,
// in order, calling fn, if there is one, for each before it goes.
func (z *ZSet) RemoveRange(from, to int, fn func(member []byte, score float64)) {
	from, to = max(from, 0), min(to, z.Len())
	if from >= to {
		return
	}
	if z.big == nil {
		first := z.small.b.scoredByRank(from)
		e := z.small.b.element(first)
		for i := from; ; i++ {
			if fn != nil {
				fn(z.small.b.member(&e), e.score)
			}
			if i == to-1 {
				break
			}
			e.follow()
			e.read(z.small.b)
		}
		z.small.cutScored(first, &e, to-from)
		return
	}
	for range to - from {
		member, score := z.ByRank(from)
		if fn != nil {
			fn(member, score)
		}
		z.Del(member)
	}
}

// Rank returns the rank of member.
func (z *ZSet) Rank(member []byte) (int, bool) {
	if z.big != nil {
		c := z.big.index.find(member)
		if c == nil {
			return 0, false
		}
		return z.big.tree.rank(c.score(), member), true
	}
	rank, _, ok := z.small.b.findScored(member, firstScored)
	return rank, ok
}

// ByRank returns the member of that rank, which is in [0, Len).
func (z *ZSet) ByRank(rank int) (member []byte, score float64) {
	if z.big != nil {
		item := z.big.tree.at(rank)
		return item.cell.key(), item.score
	}
	e := z.small.b.element(z.small.b.scoredByRank(rank))
	return z.small.b.member(&e), e.score
}

// RankOfScore returns the number of members below a bound: with a score less
// than min or, if exclusive, not greater. A range of scores begins at the rank
// of its lower bound and ends before RankOfScore(max, !maxExclusive).
func (z *ZSet) RankOfScore(min float64, exclusive bool) int {
	if z.big != nil {
		return z.big.tree.count(func(i zitem) bool {
			return i.score < min || exclusive && i.score == min
		})
	}
	ties := tieNone
	if exclusive {
		ties = tieAll
	}
	rank, _ := z.small.b.seekScored(firstScored, min, ties, nil)
	return rank
}

// RankOfLex is RankOfScore for a bound on the bytes of members. It means
// something only if all members have the same score.
func (z *ZSet) RankOfLex(min []byte, exclusive bool) int {
	below := func(member []byte) bool {
		c := bytes.Compare(member, min)
		return c < 0 || exclusive && c == 0
	}
	if z.big != nil {
		return z.big.tree.count(func(i zitem) bool { return below(i.cell.key()) })
	}
	rank := 0
	for member := range z.All() {
		if !below(member) {
			break
		}
		rank++
	}
	return rank
}

// Ascend calls fn for the members from rank from on, upwards, until it returns
// false.
func (z *ZSet) Ascend(from int, fn func(member []byte, score float64) bool) {
	if z.big != nil {
		z.big.tree.ascend(from, func(i zitem) bool { return fn(i.cell.key(), i.score) })
		return
	}
	if from >= z.Len() {
		return
	}
	e := z.small.b.element(z.small.b.scoredByRank(max(from, 0)))
	for ; e.off < len(z.small.b); e.follow() {
		e.read(z.small.b)
		if !fn(z.small.b.member(&e), e.score) {
			return
		}
	}
}

// Descend calls fn for the members from rank from on, downwards, until it
// returns false.
func (z *ZSet) Descend(from int, fn func(member []byte, score float64) bool) {
	if z.big != nil {
		z.big.tree.descend(from, func(i zitem) bool { return fn(i.cell.key(), i.score) })
		return
	}
	var all [maxPackedLen]struct {
		begin, end uint16
		score      float64
	}
	n := 0
	for e := (scoredAt{off: headSize}); e.off < len(z.small.b) && n <= from; e.follow() {
		e.read(z.small.b)
		all[n].begin, all[n].end, all[n].score = uint16(e.begin), uint16(e.end), e.score
		n++
	}
	for n--; n >= 0; n-- {
		at := &all[n]
		if !fn(z.small.b[at.begin:at.end:at.end], at.score) {
			return
		}
	}
}

// All gives the members and their scores in order.
func (z *ZSet) All() iter.Seq2[[]byte, float64] {
	return func(yield func(member []byte, score float64) bool) { z.Ascend(0, yield) }
}

// Scan calls fn for some members, about count, from cursor on (0 to begin),
// and returns the cursor to go on with, 0 at the end. A member that is there
// from the first call to the last is given. A small set is given whole.
func (z *ZSet) Scan(cursor uint64, count int, fn func(member []byte, score float64)) (next uint64) {
	if z.big != nil {
		return z.big.index.table.ScanFrom(cursor, count, func(c *cell) { fn(c.key(), c.score()) })
	}
	for member, score := range z.All() {
		fn(member, score)
	}
	return 0
}

// Random returns a member and its score, or nil if there is none.
func (z *ZSet) Random(rng Rand) (member []byte, score float64) {
	if z.Len() == 0 {
		return nil, 0
	}
	if z.big != nil {
		c := z.big.index.table.Random(rng)
		return c.key(), c.score()
	}
	return z.ByRank(below(rng, z.Len()))
}

// Sample calls fn for n members, none twice, or all if there are fewer.
func (z *ZSet) Sample(rng Rand, n int, fn func(member []byte, score float64)) {
	if z.big != nil {
		z.big.index.sample(rng, n, func(c *cell) { fn(c.key(), c.score()) })
		return
	}
	left := newLottery(rng, n, z.Len())
	for member, score := range z.All() {
		if left.winners == 0 {
			return
		}
		if left.draw() {
			fn(member, score)
		}
	}
}

// grow changes the sorted set to its big form.
func (z *ZSet) grow() {
	big := newBigZSet(z.seed)
	for member, score := range z.All() {
		big.set(member, score)
	}
	z.small, z.big = small{}, big
}

func newBigZSet(seed uint64) *bigZSet { return &bigZSet{index: *newCells(seed)} }

func (b *bigZSet) set(member []byte, score float64) (added, changed bool) {
	hash := b.index.table.Hash(member)
	if c := b.index.table.Find(hash, member); c != nil {
		old := c.score()
		if old == score {
			return false, false
		}
		if !b.tree.rescore(old, member, score) {
			b.tree.insert(zitem{score: score, cell: c})
		}
		putScore(c.value(), score)
		b.index.mark(hash)
		return false, true
	}
	var room [scoreSize]byte
	putScore(room[:], score)
	b.tree.insert(zitem{score: score, cell: b.index.addHashed(hash, member, room[:])})
	return true, true
}

// score is the value of the cell of a sorted set.
func (c *cell) score() float64 { return getScore(c.value()) }

func getScore(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) }

func putScore(b []byte, score float64) {
	binary.LittleEndian.PutUint64(b, math.Float64bits(score))
}
