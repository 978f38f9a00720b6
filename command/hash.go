package command

import (
	"math/big"
	"strconv"

	"vecino/keyspace"
	"vecino/resp"
)

var hashRows = []Row{
	{
		Name: "HDEL", Usage: "key field [field ...]", Since: "2.0.0", Group: HashGroup,
		Summary: "Removes fields of a hash, and with its last field the hash.", Complexity: "O(N), N fields",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Fast, Looks: elements(2, 1),
		Write: hdel,
	},
	{
		Name: "HEXISTS", Usage: "key field", Since: "2.0.0", Group: HashGroup,
		Summary: "Tells whether a hash has a field.", Complexity: "O(1)",
		Arity: Exactly(3), Keys: FirstKey, Traits: Fast, Looks: element(2),
		Read: hexists,
	},
	{
		Name: "HGET", Usage: "key field", Since: "2.0.0", Group: HashGroup,
		Summary: "Gives the value of a field.", Complexity: "O(1)",
		Arity: Exactly(3), Keys: FirstKey, Traits: Fast, Looks: element(2),
		Read: hget,
	},
	{
		Name: "HGETALL", Usage: "key", Since: "2.0.0", Group: HashGroup,
		Summary: "Gives all fields of a hash and their values.", Complexity: "O(N), N fields in the hash",
		Arity: Exactly(2), Keys: FirstKey, Traits: Random,
		Read: hgetall,
	},
	{
		Name: "HINCRBY", Usage: "key field increment", Since: "2.0.0", Group: HashGroup,
		Summary: "Adds a whole number to the value of a field, which is 0 if there is none.", Complexity: "O(1)",
		Arity: Exactly(4), Keys: FirstKey, Traits: Fast | GrowsMemory, Looks: element(2),
		Write: hincrby,
	},
	{
		Name: "HINCRBYFLOAT", Usage: "key field increment", Since: "2.6.0", Group: HashGroup,
		Summary: "Adds a number to the value of a field, which is 0 if there is none.", Complexity: "O(1)",
		Arity: Exactly(4), Keys: FirstKey, Traits: Fast | GrowsMemory, Looks: element(2),
		Write: hincrbyfloat,
	},
	{
		Name: "HKEYS", Usage: "key", Since: "2.0.0", Group: HashGroup,
		Summary: "Gives the names of all fields of a hash.", Complexity: "O(N), N fields in the hash",
		Arity: Exactly(2), Keys: FirstKey, Traits: Random,
		Read: hkeys,
	},
	{
		Name: "HLEN", Usage: "key", Since: "2.0.0", Group: HashGroup,
		Summary: "Counts the fields of a hash.", Complexity: "O(1)",
		Arity: Exactly(2), Keys: FirstKey, Traits: Fast, Looks: onlyLength,
		Read: hlen,
	},
	{
		Name: "HMGET", Usage: "key field [field ...]", Since: "2.0.0", Group: HashGroup,
		Summary: "Gives the values of several fields.", Complexity: "O(N), N fields asked for",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Fast, Looks: elements(2, 1),
		Read: hmget,
	},
	{
		Name: "HMSET", Usage: "key field value [field value ...]", Since: "2.0.0", Group: HashGroup,
		Summary: "Sets fields of a hash. HSET does the same and says how many are new.", Complexity: "O(N), N fields",
		Arity: AtLeast(4), Keys: FirstKey, Traits: Fast | GrowsMemory, Looks: elements(2, 2),
		Write: hmset,
	},
	{
		Name: "HRANDFIELD", Usage: "key [count [WITHVALUES]]", Since: "6.2.0", Group: HashGroup,
		Summary: "Gives fields chosen at random; with a negative count the same one may come again.", Complexity: "O(N), N fields given",
		Arity: AtLeast(2), Keys: FirstKey, Traits: Random,
		Read: hrandfield,
	},
	{
		Name: "HSCAN", Usage: "key cursor [MATCH pattern] [COUNT count]", Since: "2.8.0", Group: HashGroup,
		Summary: "Goes through the fields of a hash in steps.", Complexity: "O(1) a step, O(N) for all N fields",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Random,
		Read: hscan,
	},
	{
		Name: "HSET", Usage: "key field value [field value ...]", Since: "2.0.0", Group: HashGroup,
		Summary: "Sets fields of a hash, creating the hash if there is none.", Complexity: "O(N), N fields",
		Arity: AtLeast(4), Keys: FirstKey, Traits: Fast | GrowsMemory, Looks: elements(2, 2),
		Write: hset,
	},
	{
		Name: "HSETNX", Usage: "key field value", Since: "2.0.0", Group: HashGroup,
		Summary: "Sets a field that isn't there yet.", Complexity: "O(1)",
		Arity: Exactly(4), Keys: FirstKey, Traits: Fast | GrowsMemory, Looks: element(2),
		Write: hsetnx,
	},
	{
		Name: "HSTRLEN", Usage: "key field", Since: "3.2.0", Group: HashGroup,
		Summary: "Gives the length of the value of a field.", Complexity: "O(1)",
		Arity: Exactly(3), Keys: FirstKey, Traits: Fast, Looks: element(2),
		Read: hstrlen,
	},
	{
		Name: "HVALS", Usage: "key", Since: "2.0.0", Group: HashGroup,
		Summary: "Gives the values of all fields of a hash.", Complexity: "O(N), N fields in the hash",
		Arity: Exactly(2), Keys: FirstKey, Traits: Random,
		Read: hvals,
	},
}

// hset answers with the number of fields that were not there before. A field
// named twice counts once and keeps its last value.
func hset(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	added, err := setFields(db, args)
	if err != nil {
		return err
	}
	out.Int(added)
	return nil
}

func hmset(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	if _, err := setFields(db, args); err != nil {
		return err
	}
	out.OK()
	return nil
}

func setFields(db *keyspace.Tx, args *Args) (added int64, err error) {
	key, pairs := args.Next(), args.Pairs()
	if err := args.Err(); err != nil {
		return 0, err
	}
	hash, err := db.Hash(key)
	if err != nil {
		return 0, err
	}
	for i := 0; i < len(pairs); i += 2 {
		if hash.Set(pairs[i], pairs[i+1]) {
			added++
		}
	}
	return added, nil
}

func hsetnx(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key, field, value := args.Next(), args.Next(), args.Next()
	hash, err := db.Hash(key)
	if err != nil {
		return err
	}
	if hash.Has(field) {
		out.Int(0)
		return nil
	}
	hash.Set(field, value)
	out.Int(1)
	return nil
}

func hdel(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	hash, err := db.Hash(args.Next())
	if err != nil {
		return err
	}
	removed := int64(0)
	for _, field := range args.Rest() {
		if hash.Del(field) {
			removed++
		}
	}
	out.Int(removed)
	return nil
}

func hincrby(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key, field, by := args.Next(), args.Next(), args.Int()
	if err := args.Err(); err != nil {
		return err
	}
	hash, err := db.Hash(key)
	if err != nil {
		return err
	}
	n := int64(0)
	if old, found := hash.Get(field); found {
		var ok bool
		if n, ok = resp.ParseInt(old); !ok {
			return ErrHashNotInteger
		}
	}
	sum := n + by
	if by > 0 && sum < n || by < 0 && sum > n {
		return ErrOverflow
	}
	var digits [20]byte
	hash.Set(field, strconv.AppendInt(digits[:0], sum, 10))
	out.Int(sum)
	return nil
}

func hincrbyfloat(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key, field, by := args.Next(), args.Next(), args.LongDouble()
	if err := args.Err(); err != nil {
		return err
	}
	if by.IsInf() {
		return ErrNotFinite
	}
	hash, err := db.Hash(key)
	if err != nil {
		return err
	}
	sum := new(big.Float).SetPrec(longDoubleBits)
	if old, found := hash.Get(field); found {
		var ok bool
		if sum, ok = parseLongDouble(old); !ok {
			return ErrHashNotFloat
		}
	}
	if !addLongDouble(sum, by) {
		return ErrSumNotFinite
	}
	text := appendLongDouble(nil, sum)
	hash.Set(field, text)
	out.Bulk(text)
	return nil
}

func hget(db *keyspace.View, args *Args, out *resp.Writer) error {
	hash, err := db.Hash(args.Next())
	if err != nil {
		return err
	}
	if value, found := hash.Get(args.Next()); found {
		out.Bulk(value)
	} else {
		out.Null()
	}
	return nil
}

func hmget(db *keyspace.View, args *Args, out *resp.Writer) error {
	hash, err := db.Hash(args.Next())
	if err != nil {
		return err
	}
	out.Array(args.Left())
	for _, field := range args.Rest() {
		if value, found := hash.Get(field); found {
			out.Bulk(value)
		} else {
			out.Null()
		}
	}
	return nil
}

func hexists(db *keyspace.View, args *Args, out *resp.Writer) error {
	hash, err := db.Hash(args.Next())
	if err != nil {
		return err
	}
	out.Int(oneIf(hash.Has(args.Next())))
	return nil
}

func hlen(db *keyspace.View, args *Args, out *resp.Writer) error {
	hash, err := db.Hash(args.Next())
	if err != nil {
		return err
	}
	out.Int(int64(hash.Len()))
	return nil
}

func hstrlen(db *keyspace.View, args *Args, out *resp.Writer) error {
	hash, err := db.Hash(args.Next())
	if err != nil {
		return err
	}
	value, _ := hash.Get(args.Next())
	out.Int(int64(len(value)))
	return nil
}

func hgetall(db *keyspace.View, args *Args, out *resp.Writer) error {
	hash, err := db.Hash(args.Next())
	if err != nil {
		return err
	}
	out.Map(hash.Len())
	for field, value := range hash.All() {
		out.Bulk(field)
		out.Bulk(value)
	}
	return nil
}

func hkeys(db *keyspace.View, args *Args, out *resp.Writer) error {
	hash, err := db.Hash(args.Next())
	if err != nil {
		return err
	}
	out.Array(hash.Len())
	for field := range hash.All() {
		out.Bulk(field)
	}
	return nil
}

func hvals(db *keyspace.View, args *Args, out *resp.Writer) error {
	hash, err := db.Hash(args.Next())
	if err != nil {
		return err
	}
	out.Array(hash.Len())
	for _, value := range hash.All() {
		out.Bulk(value)
	}
	return nil
}

func hrandfield(db *keyspace.View, args *Args, out *resp.Writer) error {
	key, sample := args.Next(), args.Sample("WITHVALUES")
	if err := args.Err(); err != nil {
		return err
	}
	hash, err := db.Hash(key)
	if err != nil {
		return err
	}
	if !sample.Many {
		if field, _ := hash.Random(db.Rand()); field != nil {
			out.Bulk(field)
		} else {
			out.Null()
		}
		return nil
	}
	write := func(field, value []byte) {
		sample.pair(out)
		out.Bulk(field)
		if sample.Pairs {
			out.Bulk(value)
		}
	}
	return sample.reply(out, hash.Len(),
		func() { write(hash.Random(db.Rand())) },
		func(n int) { hash.Sample(db.Rand(), n, write) })
}

func hscan(db *keyspace.View, args *Args, out *resp.Writer) error {
	key, cursor := args.Next(), args.Cursor()
	if err := args.Err(); err != nil {
		return err
	}
	hash, err := db.Hash(key)
	if err != nil {
		return err
	}
	if hash.Len() == 0 {
		emptyScan(out)
		return nil
	}
	scan := args.Scan(false)
	if err := args.Err(); err != nil {
		return err
	}
	scanReply(out, func(elements *resp.Writer) (next uint64, n int) {
		next = hash.Scan(cursor, scan.Count, func(field, value []byte) {
			if scan.Matches(field) {
				elements.Bulk(field)
				elements.Bulk(value)
				n += 2
			}
		})
		return next, n
	})
	return nil
}
