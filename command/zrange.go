package command

import (
	"bytes"
	"errors"
	"math"
	"strconv"

	"vecino/keyspace"
	"vecino/resp"
)

// A range of a sorted set is asked for by rank, by score or by the bytes of
// members, upwards or downwards, whole or in part. All of these come down to
// ranks: from the first member to the one behind the last, counted upwards.

// by is how the bounds of a range are to be read.
type by uint8

const (
	byAny by = iota // the options tell
	byRank
	byScore
	byLex
)

// zrange is a range that is asked for.
type zrange struct {
	by            by
	down          bool
	scores        bool // are wanted
	offset, limit int64

	start, stop int64 // by rank
	low, high   scoreBound
	first, last lexBound
}

// rangeOf reads the bounds of a range and the options behind them. by and down
// are what the command's name says; one that says nothing leaves both to the
// options. Where the result is stored there is no WITHSCORES.
func (a *Args) rangeOf(by by, down, stored bool) zrange {
	free := by == byAny
	r := zrange{by: by, down: down, limit: -1}
	low, high := a.Next(), a.Next()
	for a.More() {
		switch {
		case !stored && a.Option("WITHSCORES"):
			r.scores = true
		case a.Left() >= 3 && a.Option("LIMIT"):
			r.offset, r.limit = a.Int(), a.Int()
		case free && !r.down && a.Option("REV"):
			r.down = true
		case r.by == byAny && a.Option("BYLEX"):
			r.by = byLex
		case r.by == byAny && a.Option("BYSCORE"):
			r.by = byScore
		default:
			a.Fail(ErrSyntax)
		}
	}
	if r.by == byAny {
		r.by = byRank
	}
	switch {
	case r.by == byRank && r.limit != -1:
		a.Fail(ErrLimitByRank)
	case r.by == byLex && r.scores:
		a.Fail(ErrScoresByLex)
	}
	if r.down && r.by != byRank {
		low, high = high, low
	}
	if a.err == nil {
		a.Fail(r.bounds(low, high))
	}
	return r
}

// bounds reads the words for the lower and the upper bound.
func (r *zrange) bounds(low, high []byte) error {
	var ok1, ok2 bool
	switch r.by {
	case byScore:
		r.low, ok1 = parseScoreBound(low)
		r.high, ok2 = parseScoreBound(high)
		if !ok1 || !ok2 {
			return ErrScoreRange
		}
	case byLex:
		r.first, ok1 = parseLexBound(low)
		r.last, ok2 = parseLexBound(high)
		if !ok1 || !ok2 {
			return ErrLexRange
		}
	default:
		r.start, ok1 = resp.ParseInt(low)
		r.stop, ok2 = resp.ParseInt(high)
		if !ok1 || !ok2 {
			return ErrNotInteger
		}
	}
	return nil
}

// ranks are the ranks of the range in a set. to is never less than from.
func (r *zrange) ranks(set keyspace.ZSetView) (from, to int) {
	n := set.Len()
	switch r.by {
	case byScore:
		from = set.RankOfScore(r.low.score, r.low.exclusive)
		to = set.RankOfScore(r.high.score, !r.high.exclusive)
	case byLex:
		from = r.first.rank(set, r.first.exclusive)
		to = r.last.rank(set, !r.last.exclusive)
	default:
		from, to = span(r.start, r.stop, n)
		if r.down {
			from, to = n-to, n-from
		}
	}
	if from >= to || r.offset < 0 || r.offset >= int64(to-from) {
		return 0, 0
	}
	count := int64(to-from) - r.offset
	if r.limit >= 0 {
		count = min(count, r.limit)
	}
	if r.down {
		to -= int(r.offset)
		return to - int(count), to
	}
	from += int(r.offset)
	return from, from + int(count)
}

// each calls fn for the members of the range, in the order that is asked for.
// from and to are what ranks gave.
func (r *zrange) each(set keyspace.ZSetView, from, to int, fn func(member []byte, score float64)) {
	if from == to {
		return
	}
	left := to - from
	visit := func(member []byte, score float64) bool {
		fn(member, score)
		left--
		return left > 0
	}
	if r.down {
		set.Descend(to-1, visit)
	} else {
		set.Ascend(from, visit)
	}
}

// scoreBound is one end of a range of scores.
type scoreBound struct {
	score     float64
	exclusive bool
}

// parseScoreBound reads a number, behind a parenthesis if it is excluded
// itself. Redis is more liberal here than elsewhere: spaces may precede the
// number, none at all is 0, and too large a number is infinite.
func parseScoreBound(b []byte) (s scoreBound, ok bool) {
	if len(b) > 0 && b[0] == '(' {
		s.exclusive = true
		b = b[1:]
	}
	if len(b) == 0 {
		return s, true
	}
	f, err := parseFloat(bytes.TrimLeft(b, " \t\n\v\f\r"))
	if err != nil && !errors.Is(err, strconv.ErrRange) || math.IsNaN(f) {
		return s, false
	}
	s.score = f
	return s, true
}

// lexBound is one end of a range of members.
type lexBound struct {
	member    []byte
	end       int8 // -1: before all members, 1: behind all; then member is nothing
	exclusive bool
}

func parseLexBound(b []byte) (l lexBound, ok bool) {
	switch {
	case len(b) == 0:
		return l, false
	case b[0] == '(':
		return lexBound{member: b[1:], exclusive: true}, true
	case b[0] == '[':
		return lexBound{member: b[1:]}, true
	case string(b) == "-":
		return lexBound{end: -1}, true
	case string(b) == "+":
		return lexBound{end: 1}, true
	}
	return l, false
}

// rank is the number of members below the bound, or up to it if upTo is set.
func (l *lexBound) rank(set keyspace.ZSetView, upTo bool) int {
	switch {
	case l.end < 0:
		return 0
	case l.end > 0:
		return set.Len()
	}
	return set.RankOfLex(l.member, upTo)
}

// ranges makes the handler that answers with a range.
func ranges(by by, down bool) func(*keyspace.View, *Args, *resp.Writer) error {
	return func(db *keyspace.View, args *Args, out *resp.Writer) error {
		key, r := args.Next(), args.rangeOf(by, down, false)
		if err := args.Err(); err != nil {
			return err
		}
		set, err := db.ZSet(key)
		if err != nil {
			return err
		}
		from, to := r.ranks(set)
		pairs := r.scores && out.Proto >= 3
		if r.scores && !pairs {
			out.Array(2 * (to - from))
		} else {
			out.Array(to - from)
		}
		r.each(set, from, to, func(member []byte, score float64) {
			if pairs {
				out.Array(2)
			}
			out.Bulk(member)
			if r.scores {
				out.Double(score)
			}
		})
		return nil
	}
}

func zrangestore(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key, source, r := args.Next(), args.Next(), args.rangeOf(byAny, false, true)
	if err := args.Err(); err != nil {
		return err
	}
	set, err := db.View.ZSet(source)
	if err != nil {
		return err
	}
	var result scoredMembers
	from, to := r.ranks(set)
	r.each(set, from, to, result.add)
	return result.store(db, key, out)
}

// removesRange makes the handler that removes a range and answers with the
// number of members it had.
func removesRange(by by) func(*keyspace.Tx, *Args, *resp.Writer) error {
	return func(db *keyspace.Tx, args *Args, out *resp.Writer) error {
		key, r := args.Next(), args.rangeOf(by, false, true)
		if err := args.Err(); err != nil {
			return err
		}
		set, err := db.ZSet(key)
		if err != nil {
			return err
		}
		from, to := r.ranks(set.ZSetView)
		set.RemoveRange(from, to, nil)
		out.Int(int64(to - from))
		return nil
	}
}

func zcount(db *keyspace.View, args *Args, out *resp.Writer) error {
	return countRange(db, args, byScore, out)
}

func zlexcount(db *keyspace.View, args *Args, out *resp.Writer) error {
	return countRange(db, args, byLex, out)
}

func countRange(db *keyspace.View, args *Args, by by, out *resp.Writer) error {
	key, r := args.Next(), args.rangeOf(by, false, true)
	if err := args.Err(); err != nil {
		return err
	}
	set, err := db.ZSet(key)
	if err != nil {
		return err
	}
	from, to := r.ranks(set)
	out.Int(int64(to - from))
	return nil
}
