package keyspace

import (
	"iter"

	"vecino/value"
)

// ZSetView is a sorted set that is only read. Without a key it is empty, and
// no sorted set with a key is.
type ZSetView struct{ z *value.ZSet }

var noZSet = value.NewZSet(0)

// ZSet is the sorted set at key.
func (v *View) ZSet(key []byte) (ZSetView, error) {
	e, err := v.typed(key, ZSetKind)
	if !e.there() {
		return ZSetView{noZSet}, err
	}
	return ZSetView{v.ks.open(e).z}, nil
}

func (z ZSetView) Len() int                            { return z.z.Len() }
func (z ZSetView) Score(member []byte) (float64, bool) { return z.z.Score(member) }
func (z ZSetView) Rank(member []byte) (int, bool)      { return z.z.Rank(member) }
func (z ZSetView) All() iter.Seq2[[]byte, float64]     { return z.z.All() }

// ByRank is the member of a rank, which is in [0, Len).
func (z ZSetView) ByRank(rank int) (member []byte, score float64) { return z.z.ByRank(rank) }

// RankOfScore is value.ZSet.RankOfScore.
func (z ZSetView) RankOfScore(min float64, exclusive bool) int {
	return z.z.RankOfScore(min, exclusive)
}

// RankOfLex is value.ZSet.RankOfLex.
func (z ZSetView) RankOfLex(min []byte, exclusive bool) int { return z.z.RankOfLex(min, exclusive) }

// Ascend calls fn for the members from rank from on, upwards, until it returns
// false.
func (z ZSetView) Ascend(from int, fn func(member []byte, score float64) bool) { z.z.Ascend(from, fn) }

// Descend calls fn for the members from rank from on, downwards, until it
// returns false.
func (z ZSetView) Descend(from int, fn func(member []byte, score float64) bool) {
	z.z.Descend(from, fn)
}

func (z ZSetView) Random(r value.Rand) (member []byte, score float64) { return z.z.Random(r) }

func (z ZSetView) Sample(r value.Rand, n int, fn func(member []byte, score float64)) {
	z.z.Sample(r, n, fn)
}

// Scan is value.ZSet.Scan.
func (z ZSetView) Scan(cursor uint64, count int, fn func(member []byte, score float64)) (next uint64) {
	return z.z.Scan(cursor, count, fn)
}

// ZSet is a sorted set that may be changed. It comes to be with its first
// member and ends with its last.
type ZSet struct {
	ZSetView
	handle
}

// ZSet is the sorted set at key.
func (tx *Tx) ZSet(key []byte) (ZSet, error) {
	e, err := tx.typed(key, ZSetKind)
	if !e.there() {
		return ZSet{ZSetView{noZSet}, handle{tx: tx, key: key}}, err
	}
	o := tx.ks.open(e)
	return ZSet{ZSetView{o.z}, handle{tx, key, o}}, nil
}

// Set gives member a score, which is a number, and reports whether the member
// is new, and whether it is new or has another score than before. A score of
// -0 is kept as 0.
func (z *ZSet) Set(member []byte, score float64) (added, changed bool) {
	score += 0
	if z.o == nil || z.o.gone {
		z.own(ZSetKind)
		z.z = z.o.z
	}
	added, changed = z.z.Set(member, score)
	if changed {
		z.tx.change(z.o)
		z.tx.emit(opZSetSet, z.key)
		z.tx.emitScore(score)
		z.tx.emitBytes(member)
	}
	return added, changed
}

// Del removes a member and reports whether it was there. member is not memory
// that the set gave out.
func (z *ZSet) Del(member []byte) bool {
	if z.o == nil || !z.z.Del(member) {
		return false
	}
	z.tx.change(z.o)
	z.tx.emit(opZSetDel, z.key)
	z.tx.emitBytes(member)
	return true
}

// RemoveRange removes the members with ranks from up to but not including to.
// It calls fn, if there is one, for each before it goes, in order.
func (z *ZSet) RemoveRange(from, to int, fn func(member []byte, score float64)) {
	if from >= to || z.o == nil {
		return
	}
	z.tx.change(z.o)
	z.z.RemoveRange(from, to, func(member []byte, score float64) {
		if fn != nil {
			fn(member, score)
		}
		z.tx.emit(opZSetDel, z.key)
		z.tx.emitBytes(member)
	})
}
