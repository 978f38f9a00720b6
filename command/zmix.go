package command

import (
	"math"
	"slices"

	"vecino/keyspace"
	"vecino/resp"
	"vecino/value"
)

// mix is what ZUNION, ZINTER and ZDIFF, and those that store, are asked for.
type mix struct {
	sources []mixSource
	join    func(a, b float64) float64
	scores  bool // are wanted
}

// mixSource is a sorted set, or a set whose members all have the score 1.
type mixSource struct {
	key    []byte
	scored keyspace.ZSetView
	plain  keyspace.SetView
	isSet  bool
	weight float64
}

func (s *mixSource) len() int {
	if s.isSet {
		return s.plain.Len()
	}
	return s.scored.Len()
}

// score is that of a member, with the weight in it.
func (s *mixSource) score(member []byte) (score float64, found bool) {
	if s.isSet {
		return s.weight, s.plain.Has(member)
	}
	score, found = s.scored.Score(member)
	return score * s.weight, found
}

// each calls fn for the members until it returns false.
func (s *mixSource) each(fn func(member []byte, score float64) bool) {
	if !s.isSet {
		s.scored.Ascend(0, func(member []byte, score float64) bool { return fn(member, number(score*s.weight)) })
		return
	}
	for member := range s.plain.All() {
		if !fn(member, number(s.weight)) {
			return
		}
	}
}

// number is f, or 0 where infinity was multiplied by 0 or taken from itself.
func number(f float64) float64 {
	if math.IsNaN(f) {
		return 0
	}
	return f
}

func joinSum(a, b float64) float64 { return number(a + b) }

// Of a number and NaN, Redis keeps the one that stood there first.

func joinMin(a, b float64) float64 {
	if b < a {
		return b
	}
	return a
}

func joinMax(a, b float64) float64 {
	if b > a {
		return b
	}
	return a
}

// mixKind is which options a command has.
type mixKind uint8

const (
	mixAnswers mixKind = iota
	mixStores
	mixCounts
)

// mix reads a number of keys, looks them up and reads the options. Redis
// complains about the keys first, so this takes the database.
func (a *Args) mix(db *keyspace.View, m mixer, kind mixKind) (x mix, limit int64) {
	x.join = joinSum
	n := a.Int()
	if a.err == nil && n < 1 {
		a.Fail(noInputKeys(a.argv[0]))
	}
	keys := a.Take(int(min(n, math.MaxInt32)))
	for _, key := range keys {
		source, err := mixSourceAt(db, key)
		if err != nil {
			a.Fail(err)
			return x, 0
		}
		x.sources = append(x.sources, source)
	}
	if kind == mixCounts {
		return x, a.limit()
	}
	for a.More() {
		switch {
		case m.joins && a.Left() > len(keys) && a.Option("WEIGHTS"):
			for i := range x.sources {
				x.sources[i].weight = a.floatOr(ErrWeight)
			}
		case m.joins && a.Left() >= 2 && a.Option("AGGREGATE"):
			x.join = a.joinFunc()
		case kind == mixAnswers && a.Option("WITHSCORES"):
			x.scores = true
		default:
			a.Fail(ErrSyntax)
		}
	}
	return x, 0
}

// joinFunc reads how scores of the same member become one.
func (a *Args) joinFunc() func(a, b float64) float64 {
	switch {
	case a.Option("SUM"):
		return joinSum
	case a.Option("MIN"):
		return joinMin
	case a.Option("MAX"):
		return joinMax
	}
	a.Fail(ErrSyntax)
	return joinSum
}

func mixSourceAt(db *keyspace.View, key []byte) (s mixSource, err error) {
	s = mixSource{key: key, weight: 1, isSet: db.Kind(key) == keyspace.SetKind}
	if s.isSet {
		s.plain, err = db.Set(key)
	} else {
		s.scored, err = db.ZSet(key)
	}
	return s, err
}

// A mixer gives the members of a mix and their scores until yield returns
// false, each once, in no order.
type mixer struct {
	joins bool // scores of several sources, so there are WEIGHTS and AGGREGATE
	run   func(x *mix, yield func(member []byte, score float64) bool)
}

var (
	zunion        = mixer{true, (*mix).union}
	zintersection = mixer{true, (*mix).intersection}
	zdifference   = mixer{false, (*mix).difference}
)

// bySize puts the sources with the fewest members first, as Redis does: sums
// of floating-point numbers depend on the order.
func (x *mix) bySize() {
	slices.SortStableFunc(x.sources, func(a, b mixSource) int { return a.len() - b.len() })
}

func (x *mix) union(yield func(member []byte, score float64) bool) {
	x.bySize()
	sum := value.NewZSet(0)
	for i := range x.sources {
		x.sources[i].each(func(member []byte, score float64) bool {
			if old, found := sum.Score(member); found {
				score = x.join(old, score)
			}
			sum.Set(member, score)
			return true
		})
	}
	sum.Ascend(0, yield)
}

func (x *mix) intersection(yield func(member []byte, score float64) bool) {
	x.bySize()
	x.sources[0].each(func(member []byte, score float64) bool {
		for i := range x.sources[1:] {
			other, found := x.sources[1+i].score(member)
			if !found {
				return true
			}
			score = x.join(score, other)
		}
		return yield(member, score)
	})
}

func (x *mix) difference(yield func(member []byte, score float64) bool) {
	x.sources[0].each(func(member []byte, score float64) bool {
		for i := range x.sources[1:] {
			if _, found := x.sources[1+i].score(member); found {
				return true
			}
		}
		return yield(member, score)
	})
}

// mixes makes the handler that answers with a mix.
func mixes(m mixer) func(*keyspace.View, *Args, *resp.Writer) error {
	return func(db *keyspace.View, args *Args, out *resp.Writer) error {
		x, _ := args.mix(db, m, mixAnswers)
		if err := args.Err(); err != nil {
			return err
		}
		sorted := value.NewZSet(0)
		m.run(&x, func(member []byte, score float64) bool {
			sorted.Set(member, score)
			return true
		})
		pairs := x.scores && out.Proto >= 3
		if x.scores && !pairs {
			out.Array(2 * sorted.Len())
		} else {
			out.Array(sorted.Len())
		}
		for member, score := range sorted.All() {
			if pairs {
				out.Array(2)
			}
			out.Bulk(member)
			if x.scores {
				out.Double(score)
			}
		}
		return nil
	}
}

// storesMix makes the handler that puts a mix in the place of whatever a key
// held.
func storesMix(m mixer) func(*keyspace.Tx, *Args, *resp.Writer) error {
	return func(db *keyspace.Tx, args *Args, out *resp.Writer) error {
		key := args.Next()
		x, _ := args.mix(&db.View, m, mixStores)
		if err := args.Err(); err != nil {
			return err
		}
		var result scoredMembers
		m.run(&x, func(member []byte, score float64) bool {
			result.add(member, score)
			return true
		})
		return result.store(db, key, out)
	}
}

func zintercard(db *keyspace.View, args *Args, out *resp.Writer) error {
	x, limit := args.mix(db, zintersection, mixCounts)
	if err := args.Err(); err != nil {
		return err
	}
	count := int64(0)
	x.intersection(func([]byte, float64) bool {
		count++
		return count != limit
	})
	out.Int(count)
	return nil
}

// scoredMembers are members and scores on their way from some keys to
// another, which may be one of those. They are copies.
type scoredMembers struct {
	bytes  []byte
	ends   []int
	scores []float64
}

func (m *scoredMembers) add(member []byte, score float64) {
	m.bytes = append(m.bytes, member...)
	m.ends = append(m.ends, len(m.bytes))
	m.scores = append(m.scores, score)
}

// store makes them the sorted set at key and answers with their number. None
// is no key.
func (m *scoredMembers) store(db *keyspace.Tx, key []byte, out *resp.Writer) error {
	if err := db.Fits(len(key) + len(m.bytes) + 8*len(m.scores)); err != nil {
		return err
	}
	db.Delete(key)
	set, err := db.ZSet(key)
	if err != nil {
		return err
	}
	begin := 0
	for i, end := range m.ends {
		set.Set(m.bytes[begin:end], m.scores[i])
		begin = end
	}
	out.Int(int64(len(m.ends)))
	return nil
}
