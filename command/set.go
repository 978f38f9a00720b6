package command

import (
	"iter"
	"math"

	"vecino/keyspace"
	"vecino/resp"
	"vecino/value"
)

var setRows = []Row{
	{
		Name: "SADD", Usage: "key member [member ...]", Since: "1.0.0", Group: SetGroup,
		Summary: "Adds members to a set, creating the set if there is none.", Complexity: "O(N), N members",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Fast | GrowsMemory, Looks: elements(2, 1),
		Write: sadd,
	},
	{
		Name: "SCARD", Usage: "key", Since: "1.0.0", Group: SetGroup,
		Summary: "Counts the members of a set.", Complexity: "O(1)",
		Arity: Exactly(2), Keys: FirstKey, Traits: Fast, Looks: onlyLength,
		Read: scard,
	},
	{
		Name: "SDIFF", Usage: "key [key ...]", Since: "1.0.0", Group: SetGroup,
		Summary: "Gives the members of the first set that no other set has.", Complexity: "O(N*M), N members of the first of M sets",
		Arity: AtLeast(2), Keys: AllKeys, Traits: Random,
		Read: combines(difference),
	},
	{
		Name: "SDIFFSTORE", Usage: "destination key [key ...]", Since: "1.0.0", Group: SetGroup,
		Summary: "Keeps the members of the first set that no other set has in a key.", Complexity: "O(N*M), N members of the first of M sets",
		Arity: AtLeast(3), Keys: AllKeys, Traits: GrowsMemory | Replaces,
		Write: stores(difference),
	},
	{
		Name: "SINTER", Usage: "key [key ...]", Since: "1.0.0", Group: SetGroup,
		Summary: "Gives the members that all sets have.", Complexity: "O(N*M), N members of the smallest of M sets",
		Arity: AtLeast(2), Keys: AllKeys, Traits: Random,
		Read: combines(intersection),
	},
	{
		Name: "SINTERCARD", Usage: "numkeys key [key ...] [LIMIT limit]", Since: "7.0.0", Group: SetGroup,
		Summary: "Counts the members that all sets have, up to a limit.", Complexity: "O(N*M), N members of the smallest of M sets",
		Arity: AtLeast(3), Keys: Keys{Count: 1}, Traits: Movable,
		Read: sintercard,
	},
	{
		Name: "SINTERSTORE", Usage: "destination key [key ...]", Since: "1.0.0", Group: SetGroup,
		Summary: "Keeps the members that all sets have in a key.", Complexity: "O(N*M), N members of the smallest of M sets",
		Arity: AtLeast(3), Keys: AllKeys, Traits: GrowsMemory | Replaces,
		Write: stores(intersection),
	},
	{
		Name: "SISMEMBER", Usage: "key member", Since: "1.0.0", Group: SetGroup,
		Summary: "Tells whether a set has a member.", Complexity: "O(1)",
		Arity: Exactly(3), Keys: FirstKey, Traits: Fast, Looks: element(2),
		Read: sismember,
	},
	{
		Name: "SMEMBERS", Usage: "key", Since: "1.0.0", Group: SetGroup,
		Summary: "Gives all members of a set.", Complexity: "O(N), N members",
		Arity: Exactly(2), Keys: FirstKey, Traits: Random,
		Read: smembers,
	},
	{
		Name: "SMISMEMBER", Usage: "key member [member ...]", Since: "6.2.0", Group: SetGroup,
		Summary: "Tells for each of several members whether a set has it.", Complexity: "O(N), N members asked for",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Fast, Looks: elements(2, 1),
		Read: smismember,
	},
	{
		Name: "SMOVE", Usage: "source destination member", Since: "1.0.0", Group: SetGroup,
		Summary: "Moves a member from one set to another.", Complexity: "O(1)",
		Arity: Exactly(4), Keys: TwoKeys, Traits: Fast | TakesMemory, Looks: element(3),
		Write: smove,
	},
	{
		Name: "SPOP", Usage: "key [count]", Since: "1.0.0", Group: SetGroup,
		Summary: "Takes members chosen at random out of a set.", Complexity: "O(N), N members taken",
		Arity: AtLeast(2), Keys: FirstKey, Traits: Fast | Random,
		Write: spop,
	},
	{
		Name: "SRANDMEMBER", Usage: "key [count]", Since: "1.0.0", Group: SetGroup,
		Summary: "Gives members chosen at random; with a negative count the same one may come again.", Complexity: "O(N), N members given",
		Arity: AtLeast(2), Keys: FirstKey, Traits: Random,
		Read: srandmember,
	},
	{
		Name: "SREM", Usage: "key member [member ...]", Since: "1.0.0", Group: SetGroup,
		Summary: "Removes members from a set, and with its last member the set.", Complexity: "O(N), N members",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Fast, Looks: elements(2, 1),
		Write: srem,
	},
	{
		Name: "SSCAN", Usage: "key cursor [MATCH pattern] [COUNT count]", Since: "2.8.0", Group: SetGroup,
		Summary: "Goes through the members of a set in steps.", Complexity: "O(1) a step, O(N) for all N members",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Random,
		Read: sscan,
	},
	{
		Name: "SUNION", Usage: "key [key ...]", Since: "1.0.0", Group: SetGroup,
		Summary: "Gives the members that any of the sets has.", Complexity: "O(N), N members of all sets",
		Arity: AtLeast(2), Keys: AllKeys, Traits: Random,
		Read: combines(union),
	},
	{
		Name: "SUNIONSTORE", Usage: "destination key [key ...]", Since: "1.0.0", Group: SetGroup,
		Summary: "Keeps the members that any of the sets has in a key.", Complexity: "O(N), N members of all sets",
		Arity: AtLeast(3), Keys: AllKeys, Traits: GrowsMemory | Replaces,
		Write: stores(union),
	},
}

func sadd(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	set, err := db.Set(args.Next())
	if err != nil {
		return err
	}
	added := int64(0)
	for _, member := range args.Rest() {
		if set.Add(member) {
			added++
		}
	}
	out.Int(added)
	return nil
}

func srem(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	set, err := db.Set(args.Next())
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

func scard(db *keyspace.View, args *Args, out *resp.Writer) error {
	set, err := db.Set(args.Next())
	if err != nil {
		return err
	}
	out.Int(int64(set.Len()))
	return nil
}

func sismember(db *keyspace.View, args *Args, out *resp.Writer) error {
	set, err := db.Set(args.Next())
	if err != nil {
		return err
	}
	out.Int(oneIf(set.Has(args.Next())))
	return nil
}

func smismember(db *keyspace.View, args *Args, out *resp.Writer) error {
	set, err := db.Set(args.Next())
	if err != nil {
		return err
	}
	out.Array(args.Left())
	for _, member := range args.Rest() {
		out.Int(oneIf(set.Has(member)))
	}
	return nil
}

func smembers(db *keyspace.View, args *Args, out *resp.Writer) error {
	set, err := db.Set(args.Next())
	if err != nil {
		return err
	}
	out.Set(set.Len())
	for member := range set.All() {
		out.Bulk(member)
	}
	return nil
}

func smove(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	from, to, member := args.Next(), args.Next(), args.Next()
	source, err := db.Set(from)
	if err != nil {
		return err
	}
	if source.Len() == 0 {
		out.Int(0)
		return nil
	}
	target, err := db.Set(to)
	if err != nil {
		return err
	}
	moved := source.Has(member)
	if moved && string(from) != string(to) {
		source.Del(member)
		target.Add(member)
	}
	out.Int(oneIf(moved))
	return nil
}

func spop(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	if args.Left() > 2 {
		return ErrSyntax
	}
	key, many, count := args.Next(), args.More(), int64(0)
	if many {
		count = args.Count()
	}
	if err := args.Err(); err != nil {
		return err
	}
	set, err := db.Set(key)
	switch n := int64(set.Len()); {
	case err != nil:
		return err
	case !many && n == 0:
		out.Null()
	case !many:
		member := set.Random(db.Rand())
		out.Bulk(member)
		set.Del(member)
	case count >= n:
		out.Set(int(n))
		for member := range set.All() {
			out.Bulk(member)
		}
		db.Delete(key)
	default:
		out.Set(int(count))
		popMembers(db, &set, int(count), out)
	}
	return nil
}

// popMembers takes n members chosen at random out of a set and writes them.
// They are chosen before the first goes, and copied, since the set moves its
// memory.
func popMembers(db *keyspace.Tx, set *keyspace.Set, n int, out *resp.Writer) {
	var bytes []byte
	ends := make([]int, 0, n)
	set.Sample(db.Rand(), n, func(member []byte) {
		out.Bulk(member)
		bytes = append(bytes, member...)
		ends = append(ends, len(bytes))
	})
	begin := 0
	for _, end := range ends {
		set.Del(bytes[begin:end])
		begin = end
	}
}

func srandmember(db *keyspace.View, args *Args, out *resp.Writer) error {
	key, sample := args.Next(), args.Sample("")
	if err := args.Err(); err != nil {
		return err
	}
	set, err := db.Set(key)
	if err != nil {
		return err
	}
	if !sample.Many {
		if member := set.Random(db.Rand()); member != nil {
			out.Bulk(member)
		} else {
			out.Null()
		}
		return nil
	}
	return sample.reply(out, set.Len(),
		func() { out.Bulk(set.Random(db.Rand())) },
		func(n int) { set.Sample(db.Rand(), n, out.Bulk) })
}

func sscan(db *keyspace.View, args *Args, out *resp.Writer) error {
	key, cursor := args.Next(), args.Cursor()
	if err := args.Err(); err != nil {
		return err
	}
	set, err := db.Set(key)
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
	scanReply(out, func(elements *resp.Writer) (next uint64, n int) {
		next = set.Scan(cursor, scan.Count, func(member []byte) {
			if scan.Matches(member) {
				elements.Bulk(member)
				n++
			}
		})
		return next, n
	})
	return nil
}

// A combination of sets gives each member of its result once. It reads the
// sets as they are when it is ranged over.
type combination func(sets []keyspace.SetView) iter.Seq[[]byte]

// combines makes the handler that answers with a combination of sets.
func combines(combine combination) func(*keyspace.View, *Args, *resp.Writer) error {
	return func(db *keyspace.View, args *Args, out *resp.Writer) error {
		sets, err := setsAt(db, args.Rest())
		if err != nil {
			return err
		}
		mark, n := out.Defer(), 0
		for member := range combine(sets) {
			out.Bulk(member)
			n++
		}
		out.Close(mark, n, resp.KindSet)
		return nil
	}
}

// stores makes the handler that puts a combination of sets in the place of
// whatever a key held, and answers with the number of members. Nothing is no
// key.
func stores(combine combination) func(*keyspace.Tx, *Args, *resp.Writer) error {
	return func(db *keyspace.Tx, args *Args, out *resp.Writer) error {
		key := args.Next()
		sets, err := setsAt(&db.View, args.Rest())
		if err != nil {
			return err
		}
		// The key may be one of those that are combined.
		result := value.NewSet(0)
		for member := range combine(sets) {
			result.Add(member)
		}
		if err := db.Fits(len(key) + result.Size()); err != nil {
			return err
		}
		db.Delete(key)
		set, err := db.Set(key)
		if err != nil {
			return err
		}
		for member := range result.All() {
			set.Add(member)
		}
		out.Int(int64(result.Len()))
		return nil
	}
}

// setsAt looks several sets up. One that isn't there is empty, and a key of
// another type is an error, whether or not it would have been looked at.
func setsAt(db *keyspace.View, keys [][]byte) ([]keyspace.SetView, error) {
	sets := make([]keyspace.SetView, len(keys))
	for i, key := range keys {
		var err error
		if sets[i], err = db.Set(key); err != nil {
			return nil, err
		}
	}
	return sets, nil
}

// intersection goes through the smallest set and asks the others.
func intersection(sets []keyspace.SetView) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		smallest := 0
		for i, set := range sets {
			if set.Len() < sets[smallest].Len() {
				smallest = i
			}
		}
	members:
		for member := range sets[smallest].All() {
			for i, set := range sets {
				if i != smallest && !set.Has(member) {
					continue members
				}
			}
			if !yield(member) {
				return
			}
		}
	}
}

func union(sets []keyspace.SetView) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		seen := value.NewSet(0)
		for i, set := range sets {
			for member := range set.All() {
				// What the last set adds need not be remembered.
				fresh := false
				if i < len(sets)-1 {
					fresh = seen.Add(member)
				} else {
					fresh = !seen.Has(member)
				}
				if fresh && !yield(member) {
					return
				}
			}
		}
	}
}

func difference(sets []keyspace.SetView) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
	members:
		for member := range sets[0].All() {
			for _, set := range sets[1:] {
				if set.Has(member) {
					continue members
				}
			}
			if !yield(member) {
				return
			}
		}
	}
}

// limit reads the LIMIT of SINTERCARD and ZINTERCARD; 0 is no limit.
func (a *Args) limit() int64 {
	limit := int64(0)
	for a.More() {
		if a.Left() < 2 || !a.Option("LIMIT") {
			a.Fail(ErrSyntax)
			break
		}
		limit = a.IntIn(0, math.MaxInt64, ErrLimit)
	}
	return limit
}

func sintercard(db *keyspace.View, args *Args, out *resp.Writer) error {
	n := args.IntIn(1, math.MaxInt64, ErrNumKeys)
	if n > int64(args.Left()) {
		args.Fail(ErrNumKeysTooLarge)
	}
	keys := args.Take(int(n))
	limit := args.limit()
	if err := args.Err(); err != nil {
		return err
	}
	sets, err := setsAt(db, keys)
	if err != nil {
		return err
	}
	count := int64(0)
	for range intersection(sets) {
		if count++; count == limit {
			break
		}
	}
	out.Int(count)
	return nil
}
