package command

import (
	"math"
	"strconv"

	"vecino/keyspace"
	"vecino/resp"
)

var stringRows = []Row{
	{
		Name: "GET", Usage: "key", Since: "1.0.0", Group: StringGroup,
		Summary: "Returns the value of a string.", Complexity: "O(1)",
		Arity: Exactly(2), Keys: FirstKey, Traits: Fast, Read: get,
	},
	{
		Name: "SET", Usage: "key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
		Since: "1.0.0", Group: StringGroup,
		Summary: "Sets a key to a string, whatever it held before.", Complexity: "O(1)",
		Arity: AtLeast(3), Keys: FirstKey, Traits: GrowsMemory | Replaces | KeyOnly | Overwrites, Write: set,
	},
	{
		Name: "SETNX", Usage: "key value", Since: "1.0.0", Group: StringGroup,
		Summary: "Sets a key to a string if there is no such key.", Complexity: "O(1)",
		Arity: Exactly(3), Keys: FirstKey, Traits: Fast | GrowsMemory | Replaces | KeyOnly, Write: setnx,
	},
	{
		Name: "SETEX", Usage: "key seconds value", Since: "2.0.0", Group: StringGroup,
		Summary: "Sets a key to a string that expires after some seconds.", Complexity: "O(1)",
		Arity: Exactly(4), Keys: FirstKey, Traits: GrowsMemory | Replaces | KeyOnly | Overwrites, Write: setex(inSeconds),
	},
	{
		Name: "PSETEX", Usage: "key milliseconds value", Since: "2.6.0", Group: StringGroup,
		Summary: "Sets a key to a string that expires after some milliseconds.", Complexity: "O(1)",
		Arity: Exactly(4), Keys: FirstKey, Traits: GrowsMemory | Replaces | KeyOnly | Overwrites, Write: setex(inMilliseconds),
	},
	{
		Name: "GETSET", Usage: "key value", Since: "1.0.0", Group: StringGroup,
		Summary: "Sets a key to a string and returns the one it held before.", Complexity: "O(1)",
		Arity: Exactly(3), Keys: FirstKey, Traits: Fast | GrowsMemory | Replaces, Write: getset,
	},
	{
		Name: "GETDEL", Usage: "key", Since: "6.2.0", Group: StringGroup,
		Summary: "Returns the value of a string and deletes its key.", Complexity: "O(1)",
		Arity: Exactly(2), Keys: FirstKey, Traits: Fast, Write: getdel,
	},
	{
		Name: "GETEX", Usage: "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]",
		Since: "6.2.0", Group: StringGroup,
		Summary: "Returns the value of a string and changes when it expires.", Complexity: "O(1)",
		Arity: AtLeast(2), Keys: FirstKey, Traits: Fast | TakesMemory, Write: getex,
	},
	{
		Name: "MGET", Usage: "key [key ...]", Since: "1.0.0", Group: StringGroup,
		Summary: "Returns the values of several strings.", Complexity: "O(N), N keys",
		Arity: AtLeast(2), Keys: AllKeys, Traits: Fast, Read: mget,
	},
	{
		Name: "MSET", Usage: "key value [key value ...]", Since: "1.0.1", Group: StringGroup,
		Summary: "Sets several keys to strings at once.", Complexity: "O(N), N keys",
		Arity: AtLeast(3), Keys: Keys{First: 1, Last: -1, Step: 2}, Traits: GrowsMemory | Replaces | KeyOnly | Overwrites, Write: mset,
	},
	{
		Name: "MSETNX", Usage: "key value [key value ...]", Since: "1.0.1", Group: StringGroup,
		Summary: "Sets several keys to strings if there are none of these keys.", Complexity: "O(N), N keys",
		Arity: AtLeast(3), Keys: Keys{First: 1, Last: -1, Step: 2}, Traits: GrowsMemory | Replaces | KeyOnly, Write: msetnx,
	},
	{
		Name: "APPEND", Usage: "key value", Since: "2.0.0", Group: StringGroup,
		Summary: "Adds to the end of a string, and returns its length.", Complexity: "O(1), amortised",
		Arity: Exactly(3), Keys: FirstKey, Traits: Fast | GrowsMemory, Write: appendTo,
	},
	{
		Name: "STRLEN", Usage: "key", Since: "2.2.0", Group: StringGroup,
		Summary: "Returns the length of a string in bytes.", Complexity: "O(1)",
		Arity: Exactly(2), Keys: FirstKey, Traits: Fast, Read: strlen,
	},
	{
		Name: "GETRANGE", Usage: "key start end", Since: "2.4.0", Group: StringGroup,
		Summary: "Returns part of a string.", Complexity: "O(N), N bytes returned",
		Arity: Exactly(4), Keys: FirstKey, Read: getrange,
	},
	{
		Name: "SUBSTR", Usage: "key start end", Since: "1.0.0", Group: StringGroup,
		Summary: "Is the old name of GETRANGE.", Complexity: "O(N), N bytes returned",
		Arity: Exactly(4), Keys: FirstKey, Read: getrange,
	},
	{
		Name: "SETRANGE", Usage: "key offset value", Since: "2.2.0", Group: StringGroup,
		Summary: "Overwrites part of a string, and returns its length.", Complexity: "O(N), N bytes written",
		Arity: Exactly(4), Keys: FirstKey, Traits: GrowsMemory, Write: setrange,
	},
	{
		Name: "INCR", Usage: "key", Since: "1.0.0", Group: StringGroup,
		Summary: "Adds one to a whole number.", Complexity: "O(1)",
		Arity: Exactly(2), Keys: FirstKey, Traits: Fast | GrowsMemory, Write: incr,
	},
	{
		Name: "DECR", Usage: "key", Since: "1.0.0", Group: StringGroup,
		Summary: "Takes one from a whole number.", Complexity: "O(1)",
		Arity: Exactly(2), Keys: FirstKey, Traits: Fast | GrowsMemory, Write: decr,
	},
	{
		Name: "INCRBY", Usage: "key increment", Since: "1.0.0", Group: StringGroup,
		Summary: "Adds to a whole number.", Complexity: "O(1)",
		Arity: Exactly(3), Keys: FirstKey, Traits: Fast | GrowsMemory, Write: incrby,
	},
	{
		Name: "DECRBY", Usage: "key decrement", Since: "1.0.0", Group: StringGroup,
		Summary: "Takes from a whole number.", Complexity: "O(1)",
		Arity: Exactly(3), Keys: FirstKey, Traits: Fast | GrowsMemory, Write: decrby,
	},
	{
		Name: "INCRBYFLOAT", Usage: "key increment", Since: "2.6.0", Group: StringGroup,
		Summary: "Adds to a number that may have decimals.", Complexity: "O(1)",
		Arity: Exactly(3), Keys: FirstKey, Traits: Fast | GrowsMemory, Write: incrbyfloat,
	},
	{
		Name: "LCS", Usage: "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]", Since: "7.0.0", Group: StringGroup,
		Summary: "Finds the longest common subsequence of two strings.", Complexity: "O(N*M), N and M the lengths",
		Arity: AtLeast(3), Keys: TwoKeys, Read: lcs,
	},
}

// checkLength refuses a string that would be longer than a reply can be.
func checkLength(n int64) error {
	if n > keyspace.MaxString {
		return ErrStringTooLong
	}
	return nil
}

func get(db *keyspace.View, args *Args, out *resp.Writer) error {
	s, found, err := db.String(args.Next())
	if err != nil {
		return err
	}
	bulkOrNull(out, s, found)
	return nil
}

func bulkOrNull(out *resp.Writer, s []byte, found bool) {
	if found {
		out.Bulk(s)
	} else {
		out.Null()
	}
}

// deadlineOption is an option about when a key expires: one of EX and its
// like, given once or, as Redis lets it, several times.
type deadlineOption struct {
	word     string // as it was given; empty for none
	arg      []byte // of those that have one
	unit     timeUnit
	absolute bool
}

// timeUnit is how many milliseconds one has.
type timeUnit int64

const (
	inMilliseconds timeUnit = 1
	inSeconds      timeUnit = 1000
)

// read takes an option if it is one, and reports false if it isn't. lasting
// is the word without an argument that the command knows: KEEPTTL or PERSIST.
func (o *deadlineOption) read(args *Args, lasting string) bool {
	was := o.word
	switch {
	case args.Option("EX"):
		o.word, o.unit = "EX", inSeconds
	case args.Option("PX"):
		o.word, o.unit = "PX", inMilliseconds
	case args.Option("EXAT"):
		o.word, o.unit, o.absolute = "EXAT", inSeconds, true
	case args.Option("PXAT"):
		o.word, o.unit, o.absolute = "PXAT", inMilliseconds, true
	case args.Option(lasting):
		o.word = lasting
	default:
		return false
	}
	if o.word != lasting {
		o.arg = args.Next()
	}
	if was != "" && was != o.word {
		args.Fail(ErrSyntax)
	}
	return true
}

// deadline is when the key expires.
func (o *deadlineOption) deadline(args *Args, now int64) (int64, error) {
	n, ok := resp.ParseInt(o.arg)
	if !ok {
		return 0, ErrNotInteger
	}
	if o.absolute {
		now = 0
	}
	if n <= 0 || n > math.MaxInt64/int64(o.unit) || n*int64(o.unit) > math.MaxInt64-now {
		return 0, invalidExpire(args.row)
	}
	return now + n*int64(o.unit), nil
}

// put sets a key to a string, unless its time has passed already.
func put(db *keyspace.Tx, key, val []byte, deadline int64) {
	if deadline > 0 && deadline < db.Now() {
		db.Delete(key)
		return
	}
	db.SetString(key, val, deadline)
}

func set(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key, val := args.Next(), args.Next()
	if args.More() {
		return setWithOptions(db, key, val, args, out)
	}
	db.SetString(key, val, 0)
	out.OK()
	return nil
}

func setWithOptions(db *keyspace.Tx, key, val []byte, args *Args, out *resp.Writer) error {
	var nx, xx, get bool
	var expire deadlineOption
	for args.More() {
		switch {
		case expire.read(args, "KEEPTTL"):
		case !xx && args.Option("NX"):
			nx = true
		case !nx && args.Option("XX"):
			xx = true
		case args.Option("GET"):
			get = true
		default:
			return ErrSyntax
		}
	}
	if err := args.Err(); err != nil {
		return err
	}
	deadline := int64(0)
	switch expire.word {
	case "":
	case "KEEPTTL":
		deadline = keyspace.KeepDeadline
	default:
		var err error
		if deadline, err = expire.deadline(args, db.Now()); err != nil {
			return err
		}
	}
	exists := (nx || xx) && db.Kind(key) != keyspace.None
	if get {
		s, found, err := db.String(key)
		if err != nil {
			return err
		}
		bulkOrNull(out, s, found)
	}
	switch {
	case !(nx && exists || xx && !exists):
		put(db, key, val, deadline)
		if !get {
			out.OK()
		}
	case !get:
		out.Null()
	}
	return nil
}

func setnx(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key, val := args.Next(), args.Next()
	if db.Kind(key) != keyspace.None {
		out.Int(0)
		return nil
	}
	db.SetString(key, val, 0)
	out.Int(1)
	return nil
}

func setex(unit timeUnit) func(*keyspace.Tx, *Args, *resp.Writer) error {
	return func(db *keyspace.Tx, args *Args, out *resp.Writer) error {
		key := args.Next()
		expire := deadlineOption{unit: unit, arg: args.Next()}
		deadline, err := expire.deadline(args, db.Now())
		if err != nil {
			return err
		}
		db.SetString(key, args.Next(), deadline)
		out.OK()
		return nil
	}
}

func getset(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key, val := args.Next(), args.Next()
	s, found, err := db.String(key)
	if err != nil {
		return err
	}
	bulkOrNull(out, s, found)
	db.SetString(key, val, 0)
	return nil
}

func getdel(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key := args.Next()
	s, found, err := db.String(key)
	if err != nil {
		return err
	}
	bulkOrNull(out, s, found)
	db.Delete(key)
	return nil
}

func getex(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key := args.Next()
	var expire deadlineOption
	for args.More() {
		if !expire.read(args, "PERSIST") {
			return ErrSyntax
		}
	}
	if err := args.Err(); err != nil {
		return err
	}
	s, found, err := db.String(key)
	if err != nil {
		return err
	}
	if !found {
		out.Null()
		return nil
	}
	deadline := int64(0)
	if expire.word != "" && expire.word != "PERSIST" {
		if deadline, err = expire.deadline(args, db.Now()); err != nil {
			return err
		}
	}
	out.Bulk(s)
	if expire.word != "" {
		db.SetDeadline(key, deadline)
	}
	return nil
}

func mget(db *keyspace.View, args *Args, out *resp.Writer) error {
	out.Array(args.Left())
	var cold error
	for args.More() {
		s, found, err := db.String(args.Next())
		if err == keyspace.ErrCold {
			cold = err // the next may be, too
		} // else the key is of another type, so has no string
		bulkOrNull(out, s, found)
	}
	return cold
}

func mset(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	pairs := args.Pairs()
	if err := args.Err(); err != nil {
		return err
	}
	for i := 0; i < len(pairs); i += 2 {
		db.SetString(pairs[i], pairs[i+1], 0)
	}
	out.OK()
	return nil
}

func msetnx(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	pairs := args.Pairs()
	if err := args.Err(); err != nil {
		return err
	}
	for i := 0; i < len(pairs); i += 2 {
		if db.Kind(pairs[i]) != keyspace.None {
			out.Int(0)
			return nil
		}
	}
	for i := 0; i < len(pairs); i += 2 {
		db.SetString(pairs[i], pairs[i+1], 0)
	}
	out.Int(1)
	return nil
}

// appendTo is append, which is a word of Go.
func appendTo(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key, part := args.Next(), args.Next()
	s, found, err := db.String(key)
	if err != nil {
		return err
	}
	length := len(s) + len(part)
	if err := checkLength(int64(length)); err != nil {
		return err
	}
	if !found {
		db.SetString(key, part, 0)
	} else if _, err := db.PatchString(key, len(s), part); err != nil {
		return err
	}
	out.Int(int64(length))
	return nil
}

func strlen(db *keyspace.View, args *Args, out *resp.Writer) error {
	s, _, err := db.String(args.Next())
	if err != nil {
		return err
	}
	out.Int(int64(len(s)))
	return nil
}

func getrange(db *keyspace.View, args *Args, out *resp.Writer) error {
	key, start, end := args.Next(), args.Int(), args.Int()
	if err := args.Err(); err != nil {
		return err
	}
	s, _, err := db.String(key)
	if err != nil {
		return err
	}
	out.Bulk(slice(s, start, end))
	return nil
}

// slice is s from start to end, both included, negative ones counted from
// the end.
func slice(s []byte, start, end int64) []byte {
	n := int64(len(s))
	if start < 0 && end < 0 && start > end {
		return nil
	}
	if start < 0 {
		start = max(start+n, 0)
	}
	if end < 0 {
		end = max(end+n, 0)
	}
	end = min(end, n-1)
	if start > end {
		return nil
	}
	return s[start : end+1]
}

func setrange(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key, offset, part := args.Next(), args.Int(), args.Next()
	if offset < 0 {
		args.Fail(ErrOffset)
	}
	if err := args.Err(); err != nil {
		return err
	}
	s, _, err := db.String(key)
	if err != nil {
		return err
	}
	if len(part) == 0 { // which doesn't make the string longer either
		out.Int(int64(len(s)))
		return nil
	}
	if offset > keyspace.MaxString {
		return ErrStringTooLong
	}
	if err := checkLength(offset + int64(len(part))); err != nil {
		return err
	}
	if err := db.Fits(len(key) + int(offset) + len(part)); err != nil {
		return err
	}
	length, err := db.PatchString(key, int(offset), part)
	if err != nil {
		return err
	}
	out.Int(int64(length))
	return nil
}

func incr(db *keyspace.Tx, args *Args, out *resp.Writer) error { return add(db, args.Next(), 1, out) }

func decr(db *keyspace.Tx, args *Args, out *resp.Writer) error { return add(db, args.Next(), -1, out) }

func incrby(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key, n := args.Next(), args.Int()
	if err := args.Err(); err != nil {
		return err
	}
	return add(db, key, n, out)
}

func decrby(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key, n := args.Next(), args.Int()
	if err := args.Err(); err != nil {
		return err
	}
	if n == math.MinInt64 {
		return ErrDecrOverflow
	}
	return add(db, key, -n, out)
}

// add adds to the whole number at key, 0 if there is none.
func add(db *keyspace.Tx, key []byte, n int64, out *resp.Writer) error {
	s, found, err := db.String(key)
	if err != nil {
		return err
	}
	old := int64(0)
	if found {
		var ok bool
		if old, ok = resp.ParseInt(s); !ok {
			return ErrNotInteger
		}
	}
	if n > 0 && old > math.MaxInt64-n || n < 0 && old < math.MinInt64-n {
		return ErrOverflow
	}
	var digits [20]byte
	db.SetString(key, strconv.AppendInt(digits[:0], old+n, 10), keyspace.KeepDeadline)
	out.Int(old + n)
	return nil
}

func incrbyfloat(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key, arg := args.Next(), args.Next()
	s, found, err := db.String(key)
	if err != nil {
		return err
	}
	if !found {
		s = []byte("0")
	}
	sum, ok := parseLongDouble(s)
	by, okBy := parseLongDouble(arg)
	if !ok || !okBy {
		return ErrNotFloat
	}
	if !addLongDouble(sum, by) {
		return ErrSumNotFinite
	}
	text := appendLongDouble(nil, sum)
	db.SetString(key, text, keyspace.KeepDeadline)
	out.Bulk(text)
	return nil
}
