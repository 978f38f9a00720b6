package command

import (
	"math"
	"strconv"

	"vecino/keyspace"
	"vecino/resp"
)

// Ranges of sorted sets are in zrange.go, unions and their like in zmix.go.
var sortedSetRows = []Row{
	{
		Name: "BZMPOP", Usage: "timeout numkeys key [key ...] MIN|MAX [COUNT count]", Since: "7.0.0", Group: SortedSet,
		Summary: "Takes members from the first sorted set that has any, and waits if none has.", Complexity: "O(K)+O(M*log(N)), K keys, M members taken, N members in the set",
		Arity: AtLeast(5), Keys: Keys{Count: 2}, Traits: Blocks | Movable,
		Write: bzmpop,
	},
	{
		Name: "BZPOPMAX", Usage: "key [key ...] timeout", Since: "5.0.0", Group: SortedSet,
		Summary: "Takes the member with the highest score from the first sorted set that has any, and waits if none has.", Complexity: "O(log(N)), N members in the set",
		Arity: AtLeast(3), Keys: Keys{First: 1, Last: -2, Step: 1}, Traits: Fast | Blocks | NoScript,
		Write: waitsToPopScored(highest),
	},
	{
		Name: "BZPOPMIN", Usage: "key [key ...] timeout", Since: "5.0.0", Group: SortedSet,
		Summary: "Takes the member with the lowest score from the first sorted set that has any, and waits if none has.", Complexity: "O(log(N)), N members in the set",
		Arity: AtLeast(3), Keys: Keys{First: 1, Last: -2, Step: 1}, Traits: Fast | Blocks | NoScript,
		Write: waitsToPopScored(lowest),
	},
	{
		Name: "ZADD", Usage: "key [NX|XX] [GT|LT] [CH] [INCR] score member [score member ...]", Since: "1.2.0", Group: SortedSet,
		Summary: "Gives members their scores, creating the sorted set if there is none.", Complexity: "O(M*log(N)), M members, N members in the set",
		Arity: AtLeast(4), Keys: FirstKey, Traits: Fast | GrowsMemory, Looks: elements(3, 2),
		Write: zadd,
	},
	{
		Name: "ZCARD", Usage: "key", Since: "1.2.0", Group: SortedSet,
		Summary: "Counts the members of a sorted set.", Complexity: "O(1)",
		Arity: Exactly(2), Keys: FirstKey, Traits: Fast, Looks: onlyLength,
		Read: zcard,
	},
	{
		Name: "ZCOUNT", Usage: "key min max", Since: "2.0.0", Group: SortedSet,
		Summary: "Counts the members with scores from min to max.", Complexity: "O(log(N)), N members",
		Arity: Exactly(4), Keys: FirstKey, Traits: Fast,
		Read: zcount,
	},
	{
		Name: "ZDIFF", Usage: "numkeys key [key ...] [WITHSCORES]", Since: "6.2.0", Group: SortedSet,
		Summary: "Gives the members of the first sorted set that no other one has.", Complexity: "O(N*M+K*log(K)), N members of the first of M sets, K members given",
		Arity: AtLeast(3), Keys: Keys{Count: 1}, Traits: Movable,
		Read: mixes(zdifference),
	},
	{
		Name: "ZDIFFSTORE", Usage: "destination numkeys key [key ...]", Since: "6.2.0", Group: SortedSet,
		Summary: "Keeps the members of the first sorted set that no other one has in a key.", Complexity: "O(N*M+K*log(K)), N members of the first of M sets, K members kept",
		Arity: AtLeast(4), Keys: Keys{First: 1, Last: 1, Step: 1, Count: 2}, Traits: GrowsMemory | Replaces | Movable,
		Write: storesMix(zdifference),
	},
	{
		Name: "ZINCRBY", Usage: "key increment member", Since: "1.2.0", Group: SortedSet,
		Summary: "Adds to the score of a member, which is 0 if there is none.", Complexity: "O(log(N)), N members",
		Arity: Exactly(4), Keys: FirstKey, Traits: Fast | GrowsMemory, Looks: element(3),
		Write: zincrby,
	},
	{
		Name: "ZINTER", Usage: "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM|MIN|MAX] [WITHSCORES]", Since: "6.2.0", Group: SortedSet,
		Summary: "Gives the members that all sorted sets have, their scores joined.", Complexity: "O(N*M+K*log(K)), N members of the smallest of M sets, K members given",
		Arity: AtLeast(3), Keys: Keys{Count: 1}, Traits: Movable,
		Read: mixes(zintersection),
	},
	{
		Name: "ZINTERCARD", Usage: "numkeys key [key ...] [LIMIT limit]", Since: "7.0.0", Group: SortedSet,
		Summary: "Counts the members that all sorted sets have, up to a limit.", Complexity: "O(N*M), N members of the smallest of M sets",
		Arity: AtLeast(3), Keys: Keys{Count: 1}, Traits: Movable,
		Read: zintercard,
	},
	{
		Name: "ZINTERSTORE", Usage: "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM|MIN|MAX]", Since: "2.0.0", Group: SortedSet,
		Summary: "Keeps the members that all sorted sets have, their scores joined, in a key.", Complexity: "O(N*M+K*log(K)), N members of the smallest of M sets, K members kept",
		Arity: AtLeast(4), Keys: Keys{First: 1, Last: 1, Step: 1, Count: 2}, Traits: GrowsMemory | Replaces | Movable,
		Write: storesMix(zintersection),
	},
	{
		Name: "ZLEXCOUNT", Usage: "key min max", Since: "2.8.9", Group: SortedSet,
		Summary: "Counts the members from min to max, where all have the same score.", Complexity: "O(log(N)), N members",
		Arity: Exactly(4), Keys: FirstKey, Traits: Fast,
		Read: zlexcount,
	},
	{
		Name: "ZMPOP", Usage: "numkeys key [key ...] MIN|MAX [COUNT count]", Since: "7.0.0", Group: SortedSet,
		Summary: "Takes members from the first sorted set that has any.", Complexity: "O(K)+O(M*log(N)), K keys, M members taken, N members in the set",
		Arity: AtLeast(4), Keys: Keys{Count: 1}, Traits: Movable,
		Write: zmpop,
	},
	{
		Name: "ZMSCORE", Usage: "key member [member ...]", Since: "6.2.0", Group: SortedSet,
		Summary: "Gives the scores of several members.", Complexity: "O(N), N members asked for",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Fast, Looks: elements(2, 1),
		Read: zmscore,
	},
	{
		Name: "ZPOPMAX", Usage: "key [count]", Since: "5.0.0", Group: SortedSet,
		Summary: "Takes the members with the highest scores.", Complexity: "O(M*log(N)), M members taken, N members in the set",
		Arity: AtLeast(2), Keys: FirstKey, Traits: Fast,
		Write: popsScored(highest),
	},
	{
		Name: "ZPOPMIN", Usage: "key [count]", Since: "5.0.0", Group: SortedSet,
		Summary: "Takes the members with the lowest scores.", Complexity: "O(M*log(N)), M members taken, N members in the set",
		Arity: AtLeast(2), Keys: FirstKey, Traits: Fast,
		Write: popsScored(lowest),
	},
	{
		Name: "ZRANDMEMBER", Usage: "key [count [WITHSCORES]]", Since: "6.2.0", Group: SortedSet,
		Summary: "Gives members chosen at random; with a negative count the same one may come again.", Complexity: "O(N), N members given",
		Arity: AtLeast(2), Keys: FirstKey, Traits: Random,
		Read: zrandmember,
	},
	{
		Name: "ZRANGE", Usage: "key start stop [BYSCORE|BYLEX] [REV] [LIMIT offset count] [WITHSCORES]", Since: "1.2.0", Group: SortedSet,
		Summary: "Gives a range of members: by rank, by score or by their bytes.", Complexity: "O(log(N)+M), N members, M of them given",
		Arity: AtLeast(4), Keys: FirstKey,
		Read: ranges(byAny, false),
	},
	{
		Name: "ZRANGEBYLEX", Usage: "key min max [LIMIT offset count]", Since: "2.8.9", Group: SortedSet,
		Summary: "Gives the members from min to max, where all have the same score.", Complexity: "O(log(N)+M), N members, M of them given",
		Arity: AtLeast(4), Keys: FirstKey,
		Read: ranges(byLex, false),
	},
	{
		Name: "ZRANGEBYSCORE", Usage: "key min max [WITHSCORES] [LIMIT offset count]", Since: "1.0.5", Group: SortedSet,
		Summary: "Gives the members with scores from min to max.", Complexity: "O(log(N)+M), N members, M of them given",
		Arity: AtLeast(4), Keys: FirstKey,
		Read: ranges(byScore, false),
	},
	{
		Name: "ZRANGESTORE", Usage: "dst src min max [BYSCORE|BYLEX] [REV] [LIMIT offset count]", Since: "6.2.0", Group: SortedSet,
		Summary: "Keeps a range of members in a key.", Complexity: "O(log(N)+M), N members, M of them kept",
		Arity: AtLeast(5), Keys: TwoKeys, Traits: GrowsMemory | Replaces,
		Write: zrangestore,
	},
	{
		Name: "ZRANK", Usage: "key member", Since: "2.0.0", Group: SortedSet,
		Summary: "Gives the rank of a member, 0 for the lowest score.", Complexity: "O(log(N)), N members",
		Arity: Exactly(3), Keys: FirstKey, Traits: Fast,
		Read: zrank,
	},
	{
		Name: "ZREM", Usage: "key member [member ...]", Since: "1.2.0", Group: SortedSet,
		Summary: "Removes members from a sorted set, and with its last member the set.", Complexity: "O(M*log(N)), M members removed, N members in the set",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Fast, Looks: elements(2, 1),
		Write: zrem,
	},
	{
		Name: "ZREMRANGEBYLEX", Usage: "key min max", Since: "2.8.9", Group: SortedSet,
		Summary: "Removes the members from min to max, where all have the same score.", Complexity: "O(M*log(N)), M members removed, N members in the set",
		Arity: Exactly(4), Keys: FirstKey,
		Write: removesRange(byLex),
	},
	{
		Name: "ZREMRANGEBYRANK", Usage: "key start stop", Since: "2.0.0", Group: SortedSet,
		Summary: "Removes the members with ranks from start to stop.", Complexity: "O(M*log(N)), M members removed, N members in the set",
		Arity: Exactly(4), Keys: FirstKey,
		Write: removesRange(byRank),
	},
	{
		Name: "ZREMRANGEBYSCORE", Usage: "key min max", Since: "1.2.0", Group: SortedSet,
		Summary: "Removes the members with scores from min to max.", Complexity: "O(M*log(N)), M members removed, N members in the set",
		Arity: Exactly(4), Keys: FirstKey,
		Write: removesRange(byScore),
	},
	{
		Name: "ZREVRANGE", Usage: "key start stop [WITHSCORES]", Since: "1.2.0", Group: SortedSet,
		Summary: "Gives a range of members by rank, from the highest score down.", Complexity: "O(log(N)+M), N members, M of them given",
		Arity: AtLeast(4), Keys: FirstKey,
		Read: ranges(byRank, true),
	},
	{
		Name: "ZREVRANGEBYLEX", Usage: "key max min [LIMIT offset count]", Since: "2.8.9", Group: SortedSet,
		Summary: "Gives the members from max down to min, where all have the same score.", Complexity: "O(log(N)+M), N members, M of them given",
		Arity: AtLeast(4), Keys: FirstKey,
		Read: ranges(byLex, true),
	},
	{
		Name: "ZREVRANGEBYSCORE", Usage: "key max min [WITHSCORES] [LIMIT offset count]", Since: "2.2.0", Group: SortedSet,
		Summary: "Gives the members with scores from max down to min.", Complexity: "O(log(N)+M), N members, M of them given",
		Arity: AtLeast(4), Keys: FirstKey,
		Read: ranges(byScore, true),
	},
	{
		Name: "ZREVRANK", Usage: "key member", Since: "2.0.0", Group: SortedSet,
		Summary: "Gives the rank of a member counted from the highest score.", Complexity: "O(log(N)), N members",
		Arity: Exactly(3), Keys: FirstKey, Traits: Fast,
		Read: zrevrank,
	},
	{
		Name: "ZSCAN", Usage: "key cursor [MATCH pattern] [COUNT count]", Since: "2.8.0", Group: SortedSet,
		Summary: "Goes through the members of a sorted set in steps.", Complexity: "O(1) a step, O(N) for all N members",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Random,
		Read: zscan,
	},
	{
		Name: "ZSCORE", Usage: "key member", Since: "1.2.0", Group: SortedSet,
		Summary: "Gives the score of a member.", Complexity: "O(1)",
		Arity: Exactly(3), Keys: FirstKey, Traits: Fast, Looks: element(2),
		Read: zscore,
	},
	{
		Name: "ZUNION", Usage: "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM|MIN|MAX] [WITHSCORES]", Since: "6.2.0", Group: SortedSet,
		Summary: "Gives the members that any of the sorted sets has, their scores joined.", Complexity: "O(N*log(N)), N members of all sets",
		Arity: AtLeast(3), Keys: Keys{Count: 1}, Traits: Movable,
		Read: mixes(zunion),
	},
	{
		Name: "ZUNIONSTORE", Usage: "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE SUM|MIN|MAX]", Since: "2.0.0", Group: SortedSet,
		Summary: "Keeps the members that any of the sorted sets has, their scores joined, in a key.", Complexity: "O(N*log(N)), N members of all sets",
		Arity: AtLeast(4), Keys: Keys{First: 1, Last: 1, Step: 1, Count: 2}, Traits: GrowsMemory | Replaces | Movable,
		Write: storesMix(zunion),
	},
}

// adding is what ZADD's options ask for.
type adding struct {
	onlyNew, onlyOld         bool // NX, XX
	onlyGreater, onlyLess    bool // GT, LT: of a member that is there
	countChanged, increments bool // CH, INCR
}

// adding reads the options of ZADD and leaves the scores and members to be
// read. The order of the errors is Redis's.
func (a *Args) adding() (o adding) {
options:
	for {
		switch {
		case a.Option("NX"):
			o.onlyNew = true
		case a.Option("XX"):
			o.onlyOld = true
		case a.Option("GT"):
			o.onlyGreater = true
		case a.Option("LT"):
			o.onlyLess = true
		case a.Option("CH"):
			o.countChanged = true
		case a.Option("INCR"):
			o.increments = true
		default:
			break options
		}
	}
	switch {
	case a.Left() == 0 || a.Left()%2 != 0:
		a.Fail(ErrSyntax)
	case o.onlyNew && o.onlyOld:
		a.Fail(ErrAddBothExist)
	case o.onlyGreater && o.onlyNew, o.onlyLess && o.onlyNew, o.onlyGreater && o.onlyLess:
		a.Fail(ErrAddCompare)
	case o.increments && a.Left() > 2:
		a.Fail(ErrAddIncr)
	}
	return o
}

// zadd checks all scores before it adds the first member.
func zadd(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key, o := args.Next(), args.adding()
	pairs := args.Rest()
	scores := args.floats(pairs, 2)
	if err := args.Err(); err != nil {
		return err
	}
	set, err := db.ZSet(key)
	if err != nil {
		return err
	}
	if o.increments {
		return increment(&set, o, pairs[1], scores[0], out)
	}
	count := int64(0)
	for i, score := range scores {
		added, changed, _, err := o.set(&set, pairs[2*i+1], score)
		if err != nil {
			return err
		}
		if added || changed && o.countChanged {
			count++
		}
	}
	out.Int(count)
	return nil
}

func zincrby(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key, by, member := args.Next(), args.Float(), args.Next()
	if err := args.Err(); err != nil {
		return err
	}
	set, err := db.ZSet(key)
	if err != nil {
		return err
	}
	return increment(&set, adding{increments: true}, member, by, out)
}

// increment adds to the score of one member and answers with the sum, or with
// null if the options forbid it.
func increment(set *keyspace.ZSet, o adding, member []byte, by float64, out *resp.Writer) error {
	_, _, score, err := o.set(set, member, by)
	switch {
	case err != nil:
		return err
	case score != score:
		out.Null()
	default:
		out.Double(score)
	}
	return nil
}

// set gives a member a score, if the options allow it. now is the score that
// it has afterwards, NaN if they didn't.
func (o *adding) set(set *keyspace.ZSet, member []byte, score float64) (added, changed bool, now float64, err error) {
	if o.onlyNew || o.onlyOld || o.onlyGreater || o.onlyLess || o.increments {
		old, found := set.Score(member)
		if found && o.increments {
			if score += old; score != score {
				return false, false, 0, ErrScoreNaN
			}
		}
		if found && (o.onlyNew || o.onlyGreater && score <= old || o.onlyLess && score >= old) || !found && o.onlyOld {
			return false, false, math.NaN(), nil
		}
	}
	added, changed = set.Set(member, score)
	return added, changed, score, nil
}

func zrem(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	set, err := db.ZSet(args.Next())
	if err != nil {
		return err
	}
	removed := int64(0)
	for _, member := range args.Rest() {
		if set.Del(member) {
			removed++
		}
	}
	out.Int(removed)
	return nil
}

func zcard(db *keyspace.View, args *Args, out *resp.Writer) error {
	set, err := db.ZSet(args.Next())
	if err != nil {
		return err
	}
	out.Int(int64(set.Len()))
	return nil
}

func zscore(db *keyspace.View, args *Args, out *resp.Writer) error {
	set, err := db.ZSet(args.Next())
	if err != nil {
		return err
	}
	writeScore(set, args.Next(), out)
	return nil
}

func zmscore(db *keyspace.View, args *Args, out *resp.Writer) error {
	set, err := db.ZSet(args.Next())
	if err != nil {
		return err
	}
	out.Array(args.Left())
	for _, member := range args.Rest() {
		writeScore(set, member, out)
	}
	return nil
}

func writeScore(set keyspace.ZSetView, member []byte, out *resp.Writer) {
	if score, found := set.Score(member); found {
		out.Double(score)
	} else {
		out.Null()
	}
}

func zrank(db *keyspace.View, args *Args, out *resp.Writer) error {
	set, err := db.ZSet(args.Next())
	if err != nil {
		return err
	}
	if rank, found := set.Rank(args.Next()); found {
		out.Int(int64(rank))
	} else {
		out.Null()
	}
	return nil
}

func zrevrank(db *keyspace.View, args *Args, out *resp.Writer) error {
	set, err := db.ZSet(args.Next())
	if err != nil {
		return err
	}
	if rank, found := set.Rank(args.Next()); found {
		out.Int(int64(set.Len() - 1 - rank))
	} else {
		out.Null()
	}
	return nil
}

func zrandmember(db *keyspace.View, args *Args, out *resp.Writer) error {
	key, sample := args.Next(), args.Sample("WITHSCORES")
	if err := args.Err(); err != nil {
		return err
	}
	set, err := db.ZSet(key)
	if err != nil {
		return err
	}
	if !sample.Many {
		if member, _ := set.Random(db.Rand()); member != nil {
			out.Bulk(member)
		} else {
			out.Null()
		}
		return nil
	}
	write := func(member []byte, score float64) {
		sample.pair(out)
		out.Bulk(member)
		if sample.Pairs {
			out.Double(score)
		}
	}
	return sample.reply(out, set.Len(),
		func() { write(set.Random(db.Rand())) },
		func(n int) { set.Sample(db.Rand(), n, write) })
}

func zscan(db *keyspace.View, args *Args, out *resp.Writer) error {
	key, cursor := args.Next(), args.Cursor()
	if err := args.Err(); err != nil {
		return err
	}
	set, err := db.ZSet(key)
	if err != nil {
		return err
	}
	if set.Len() == 0 {
		emptyScan(out)
		return nil
	}
	scan := args.Scan(false)
	if err := args.Err(); err != nil {
		return err
	}
	encoding, err := db.Encoding(key)
	if err != nil {
		return err
	}
	small := encoding == "listpack"
	scanReply(out, func(elements *resp.Writer) (next uint64, n int) {
		var digits [32]byte
		next = set.Scan(cursor, scan.Count, func(member []byte, score float64) {
			if scan.Matches(member) {
				elements.Bulk(member)
				elements.Bulk(scannedScore(digits[:0], score, small)) // a string in both protocols
				n += 2
			}
		})
		return next, n
	})
	return nil
}

// scannedScore appends a score as ZSCAN shows it. Redis keeps whole numbers as
// such in small sorted sets, so there they never come with an exponent.
func scannedScore(dst []byte, score float64, small bool) []byte {
	if small && math.Abs(score) <= 1<<62 && score == math.Trunc(score) {
		return strconv.AppendInt(dst, int64(score), 10)
	}
	return resp.FormatDouble(dst, score)
}

// side is one of the two sides of a sorted set.
type side bool

const (
	lowest  side = false
	highest side = true
)

// side reads MIN or MAX.
func (a *Args) side() side {
	switch {
	case a.Option("MIN"):
		return lowest
	case a.Option("MAX"):
		return highest
	}
	a.Fail(ErrSyntax)
	return lowest
}

// popsScored makes the handler that takes members from a side. What was taken
// follows each other flat; with a count, version 3 of the protocol has pairs.
func popsScored(from side) func(*keyspace.Tx, *Args, *resp.Writer) error {
	return func(db *keyspace.Tx, args *Args, out *resp.Writer) error {
		if args.Left() > 2 {
			return ErrSyntax
		}
		key, many, count := args.Next(), args.More(), int64(1)
		if many {
			count = args.Count()
		}
		if err := args.Err(); err != nil {
			return err
		}
		set, err := db.ZSet(key)
		if err != nil {
			return err
		}
		n := int(min(count, int64(set.Len())))
		pairs := many && out.Proto >= 3
		if pairs {
			out.Array(n)
		} else {
			out.Array(2 * n)
		}
		popScored(&set, from, n, pairs, out)
		return nil
	}
}

// popScored takes n members from a side and writes them and their scores, as
// arrays of two if pairs is set.
func popScored(set *keyspace.ZSet, from side, n int, pairs bool, out *resp.Writer) {
	if n == 0 {
		return
	}
	left := n
	write := func(member []byte, score float64) bool {
		if pairs {
			out.Array(2)
		}
		out.Bulk(member)
		out.Double(score)
		left--
		return left > 0
	}
	if length := set.Len(); from == lowest {
		set.Ascend(0, write)
		set.RemoveRange(0, n, nil)
	} else {
		set.Descend(length-1, write)
		set.RemoveRange(length-n, length, nil)
	}
}

// waitsToPopScored makes the handler that takes a member from the first sorted
// set that has any, and waits for one.
func waitsToPopScored(from side) func(*keyspace.Tx, *Args, *resp.Writer) error {
	return func(db *keyspace.Tx, args *Args, out *resp.Writer) error {
		keys, timeout := args.Take(args.Left()-1), args.Timeout()
		if err := args.Err(); err != nil {
			return err
		}
		for _, key := range keys {
			set, err := db.ZSet(key)
			if err != nil {
				return err
			}
			if set.Len() > 0 {
				out.Array(3)
				out.Bulk(key)
				popScored(&set, from, 1, false, out)
				return nil
			}
		}
		return args.Wait(timeout, keys)
	}
}

func zmpop(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	keys, from, count := args.NumKeys(), args.side(), args.popCount()
	if err := args.Err(); err != nil {
		return err
	}
	found, err := popFirstScored(db, keys, from, count, out)
	if !found && err == nil {
		out.NullArray()
	}
	return err
}

func bzmpop(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	wait := args.Next()
	keys, from, count := args.NumKeys(), args.side(), args.popCount()
	timeout := args.timeoutOf(wait) // what is wrong with it is said last
	if err := args.Err(); err != nil {
		return err
	}
	found, err := popFirstScored(db, keys, from, count, out)
	if !found && err == nil {
		return args.Wait(timeout, keys)
	}
	return err
}

// popFirstScored takes members from the first of several sorted sets that has
// any, and writes its key and what was taken.
func popFirstScored(db *keyspace.Tx, keys [][]byte, from side, count int64, out *resp.Writer) (found bool, err error) {
	for _, key := range keys {
		set, err := db.ZSet(key)
		if err != nil {
			return false, err
		}
		if set.Len() > 0 {
			n := int(min(count, int64(set.Len())))
			out.Array(2)
			out.Bulk(key)
			out.Array(n)
			popScored(&set, from, n, true, out)
			return true, nil
		}
	}
	return false, nil
}
