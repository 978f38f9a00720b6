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
// While it is small it is packed in order, each member followed by the eight
// bytes of its score.
type ZSet struct {
	small packed
	big   *bigZSet // nil while small
	seed  uint64
	n     uint16 // members while small
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

// Len is the number of members.
func (z *ZSet) Len() int {
	if z.big != nil {
		return z.big.index.table.Len()
	}
	return int(z.n)
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
	size := int(unsafe.Sizeof(*z)) + cap(z.small)
	if z.big != nil {
		size += z.big.index.size() + z.big.tree.size()
	}
	return size
}

// Score returns the score of member.
func (z *ZSet) Score(member []byte) (float64, bool) {
	if z.big != nil {
		if c := z.big.index.find(member); c != nil {
			return c.score(), true
		}
		return 0, false
	}
	_, off, ok := z.findSmall(member)
	if !ok {
		return 0, false
	}
	_, score, _ := z.smallAt(off)
	return score, true
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
	_, off, found := z.findSmall(member)
	if found {
		_, old, end := z.smallAt(off)
		if old == score {
			return false, false
		}
		z.small = z.small.open(off, end, 0)
		z.n--
	} else if z.n == maxPackedLen || len(member) > maxPackedBytes {
		z.grow()
		return z.big.set(member, score)
	}
	_, off = z.countSmall(func(m []byte, s float64) bool {
		return s < score || s == score && bytes.Compare(m, member) < 0
	})
	z.insertSmall(off, member, score)
	return !found, true
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
	_, off, ok := z.findSmall(member)
	if !ok {
		return false
	}
	_, _, end := z.smallAt(off)
	z.small = z.small.open(off, end, 0)
	z.n--
	return true
}

// RemoveRange removes the members of ranks from up to but not including to,
// in order, calling fn, if there is one, for each before it goes.
func (z *ZSet) RemoveRange(from, to int, fn func(member []byte, score float64)) {
	from, to = max(from, 0), min(to, z.Len())
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
	rank, _, ok := z.findSmall(member)
	return rank, ok
}

// ByRank returns the member of that rank, which is in [0, Len).
func (z *ZSet) ByRank(rank int) (member []byte, score float64) {
	if z.big != nil {
		item := z.big.tree.at(rank)
		return item.cell.key(), item.score
	}
	off := 0
	for ; rank > 0; rank-- {
		_, _, off = z.smallAt(off)
	}
	member, score, _ = z.smallAt(off)
	return member, score
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
	rank, _ := z.countSmall(func(_ []byte, score float64) bool {
		return score < min || exclusive && score == min
	})
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
	rank, _ := z.countSmall(func(member []byte, _ float64) bool { return below(member) })
	return rank
}

// Ascend calls fn for the members from rank from on, upwards, until it returns
// false.
func (z *ZSet) Ascend(from int, fn func(member []byte, score float64) bool) {
	if z.big != nil {
		z.big.tree.ascend(from, func(i zitem) bool { return fn(i.cell.key(), i.score) })
		return
	}
	for off := 0; off < len(z.small); from-- {
		var member []byte
		var score float64
		member, score, off = z.smallAt(off)
		if from <= 0 && !fn(member, score) {
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
	var offs [maxPackedLen]uint16
	n := 0
	for off := 0; off < len(z.small); n++ {
		offs[n] = uint16(off)
		_, _, off = z.smallAt(off)
	}
	for i := min(from, n-1); i >= 0; i-- {
		if member, score, _ := z.smallAt(int(offs[i])); !fn(member, score) {
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

func (z *ZSet) smallAt(off int) (member []byte, score float64, next int) {
	member, off = z.small.at(off)
	return member, getScore(z.small[off:]), off + scoreSize
}

// findSmall returns the rank and the offset of member.
func (z *ZSet) findSmall(member []byte) (rank, off int, ok bool) {
	for off < len(z.small) {
		begin, n := z.small.head(off)
		if n == len(member) && same(z.small[begin:begin+n], member) {
			return rank, off, true
		}
		off = begin + n + scoreSize
		rank++
	}
	return rank, off, false
}

// countSmall returns how many members come before the first of which below is
// false, and the offset of that one.
func (z *ZSet) countSmall(below func(member []byte, score float64) bool) (rank, off int) {
	for off < len(z.small) {
		member, score, next := z.smallAt(off)
		if !below(member, score) {
			break
		}
		off = next
		rank++
	}
	return rank, off
}

func (z *ZSet) insertSmall(off int, member []byte, score float64) {
	z.small = z.small.open(off, off, packedSize(len(member))+scoreSize)
	putScore(z.small[z.small.put(off, member):], score)
	z.n++
}

// grow changes the sorted set to its big form.
func (z *ZSet) grow() {
	big := newBigZSet(z.seed)
	for member, score := range z.All() {
		big.set(member, score)
	}
	z.small, z.n, z.big = nil, 0, big
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
			b.tree.remove(old, member)
			b.tree.insert(zitem{score, c})
		}
		putScore(c.value(), score)
		return false, true
	}
	var room [scoreSize]byte
	putScore(room[:], score)
	b.tree.insert(zitem{score, b.index.addHashed(hash, member, room[:])})
	return true, true
}

// score is the value of the cell of a sorted set.
func (c *cell) score() float64 { return getScore(c.value()) }

func getScore(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) }

func putScore(b []byte, score float64) {
	binary.LittleEndian.PutUint64(b, math.Float64bits(score))
}
