package command

import (
	"math"
	"time"

	"vecino/internal/glob"
	"vecino/keyspace"
	"vecino/resp"
)

var genericRows = []Row{
	{
		Name: "DEL", Usage: "key [key ...]", Since: "1.0.0", Group: Generic,
		Summary: "Deletes keys, and returns how many there were.", Complexity: "O(N), N keys and the elements of their values",
		Arity: AtLeast(2), Keys: AllKeys, Traits: KeyOnly, Write: del,
	},
	{
		Name: "UNLINK", Usage: "key [key ...]", Since: "4.0.0", Group: Generic,
		Summary: "Deletes keys like DEL; their memory is reclaimed behind the scenes.", Complexity: "O(N), N keys",
		Arity: AtLeast(2), Keys: AllKeys, Traits: Fast | KeyOnly, Write: del,
	},
	{
		Name: "EXISTS", Usage: "key [key ...]", Since: "1.0.0", Group: Generic,
		Summary: "Counts which of the keys there are; a key named twice counts twice.", Complexity: "O(N), N keys",
		Arity: AtLeast(2), Keys: AllKeys, Traits: Fast | KeyOnly, Read: exists,
	},
	{
		Name: "TOUCH", Usage: "key [key ...]", Since: "3.2.1", Group: Generic,
		Summary: "Looks at keys, and counts which of them there are.", Complexity: "O(N), N keys",
		Arity: AtLeast(2), Keys: AllKeys, Traits: Fast | KeyOnly, Read: touch,
	},
	{
		Name: "EXPIRE", Usage: "key seconds [NX | XX | GT | LT]", Since: "1.0.0", Group: Generic,
		Summary: "Lets a key expire after some seconds.", Complexity: "O(1)",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Fast | KeyOnly | TakesMemory, Write: expire(inSeconds, false),
	},
	{
		Name: "PEXPIRE", Usage: "key milliseconds [NX | XX | GT | LT]", Since: "2.6.0", Group: Generic,
		Summary: "Lets a key expire after some milliseconds.", Complexity: "O(1)",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Fast | KeyOnly | TakesMemory, Write: expire(inMilliseconds, false),
	},
	{
		Name: "EXPIREAT", Usage: "key unix-time-seconds [NX | XX | GT | LT]", Since: "1.2.0", Group: Generic,
		Summary: "Lets a key expire at a time given in seconds since 1970.", Complexity: "O(1)",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Fast | KeyOnly | TakesMemory, Write: expire(inSeconds, true),
	},
	{
		Name: "PEXPIREAT", Usage: "key unix-time-milliseconds [NX | XX | GT | LT]", Since: "2.6.0", Group: Generic,
		Summary: "Lets a key expire at a time given in milliseconds since 1970.", Complexity: "O(1)",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Fast | KeyOnly | TakesMemory, Write: expire(inMilliseconds, true),
	},
	{
		Name: "TTL", Usage: "key", Since: "1.0.0", Group: Generic,
		Summary: "Returns in how many seconds a key expires.", Complexity: "O(1)",
		Arity: Exactly(2), Keys: FirstKey, Traits: Fast | Random | KeyOnly, Read: ttl(inSeconds, false),
	},
	{
		Name: "PTTL", Usage: "key", Since: "2.6.0", Group: Generic,
		Summary: "Returns in how many milliseconds a key expires.", Complexity: "O(1)",
		Arity: Exactly(2), Keys: FirstKey, Traits: Fast | Random | KeyOnly, Read: ttl(inMilliseconds, false),
	},
	{
		Name: "EXPIRETIME", Usage: "key", Since: "7.0.0", Group: Generic,
		Summary: "Returns when a key expires, in seconds since 1970.", Complexity: "O(1)",
		Arity: Exactly(2), Keys: FirstKey, Traits: Fast | KeyOnly, Read: ttl(inSeconds, true),
	},
	{
		Name: "PEXPIRETIME", Usage: "key", Since: "7.0.0", Group: Generic,
		Summary: "Returns when a key expires, in milliseconds since 1970.", Complexity: "O(1)",
		Arity: Exactly(2), Keys: FirstKey, Traits: Fast | KeyOnly, Read: ttl(inMilliseconds, true),
	},
	{
		Name: "PERSIST", Usage: "key", Since: "2.2.0", Group: Generic,
		Summary: "Lets a key never expire.", Complexity: "O(1)",
		Arity: Exactly(2), Keys: FirstKey, Traits: Fast | KeyOnly, Write: persist,
	},
	{
		Name: "TYPE", Usage: "key", Since: "1.0.0", Group: Generic,
		Summary: "Returns the type of a key's value.", Complexity: "O(1)",
		Arity: Exactly(2), Keys: FirstKey, Traits: Fast | KeyOnly, Read: typeOf,
	},
	{
		Name: "KEYS", Usage: "pattern", Since: "1.0.0", Group: Generic,
		Summary: "Returns all keys that match a pattern.", Complexity: "O(N), N keys in the database",
		Arity: Exactly(2), Traits: WholeKeyspace | Dangerous | Random, Read: keys,
	},
	{
		Name: "SCAN", Usage: "cursor [MATCH pattern] [COUNT count] [TYPE type]", Since: "2.8.0", Group: Generic,
		Summary: "Goes through the keys, some at a time.", Complexity: "O(1) for each call, O(N) for all keys",
		Arity: AtLeast(2), Traits: Random, Read: scan,
	},
	{
		Name: "RANDOMKEY", Since: "1.0.0", Group: Generic,
		Summary: "Returns a key chosen at random.", Complexity: "O(1)",
		Arity: Exactly(1), Traits: Random, Read: randomKey,
	},
	{
		Name: "RENAME", Usage: "key newkey", Since: "1.0.0", Group: Generic,
		Summary: "Gives a value another key, whatever that held before.", Complexity: "O(1)",
		Arity: Exactly(3), Keys: TwoKeys, Traits: TakesMemory, Write: rename,
	},
	{
		Name: "RENAMENX", Usage: "key newkey", Since: "1.0.0", Group: Generic,
		Summary: "Gives a value another key, if there is none of that name.", Complexity: "O(1)",
		Arity: Exactly(3), Keys: TwoKeys, Traits: Fast | TakesMemory, Write: renamenx,
	},
	{
		Name: "COPY", Usage: "source destination [DB destination-db] [REPLACE]", Since: "6.2.0", Group: Generic,
		Summary: "Copies a value to another key.", Complexity: "O(N), N elements of the value",
		Arity: AtLeast(3), Keys: TwoKeys, Traits: GrowsMemory | Replaces, Elsewhere: copiesTo, Write: copyKey,
	},
	{
		Name: "MOVE", Usage: "key db", Since: "1.0.0", Group: Generic,
		Summary: "Moves a key to another logical database.", Complexity: "O(N), N elements of the value",
		Arity: Exactly(3), Keys: FirstKey, Traits: Fast | TakesMemory, Elsewhere: movesTo, Write: moveKey,
	},
	{
		Name: "OBJECT", Since: "2.2.3", Group: Generic,
		Summary: "Shows how a value is kept.", Complexity: "that of the subcommand", Arity: AtLeast(2),
		Sub: []Row{
			{
				Name: "ENCODING", Usage: "key", Since: "2.2.3", Summary: "Returns how a value is encoded.", Complexity: "O(1)",
				Arity: Exactly(3), Keys: secondWord, Traits: Random, Read: objectEncoding,
			},
			{
				Name: "REFCOUNT", Usage: "key", Since: "2.2.3", Summary: "Returns 1, as no two keys share a value.", Complexity: "O(1)",
				Arity: Exactly(3), Keys: secondWord, Traits: Random | KeyOnly, Read: objectNumber(1),
			},
			{
				Name: "IDLETIME", Usage: "key", Since: "2.2.3", Summary: "Returns for how many seconds a key was not used.", Complexity: "O(1)",
				Arity: Exactly(3), Keys: secondWord, Traits: Random | KeyOnly, Read: objectIdleTime,
			},
			{
				Name: "FREQ", Usage: "key", Since: "4.0.0", Summary: "Returns the logarithmic count of a key's uses, under an LFU policy.", Complexity: "O(1)",
				Arity: Exactly(3), Keys: secondWord, Traits: Random | KeyOnly, Read: objectFreq,
			},
			helpRow("6.2.0"),
		},
	},
	{
		Name: "WAIT", Usage: "numreplicas timeout", Since: "3.0.0", Group: Generic,
		Summary: "Waits until replicas have what this connection has written.", Complexity: "O(1)",
		Arity: Exactly(3), Traits: ToPrimary | NoScript, Conn: wait,
	},
	{
		Name: "WAITAOF", Usage: "numlocal numreplicas timeout", Since: "7.2.0", Group: Generic,
		Summary: "Waits until what was written is on disk, at the primary and at replicas.", Complexity: "O(1)",
		Arity: Exactly(4), Traits: ToPrimary | NoScript, Conn: waitAOF,
	},
}

var secondWord = Keys{First: 2, Last: 2, Step: 1}

func del(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	deleted := int64(0)
	for args.More() {
		if db.Delete(args.Next()) {
			deleted++
		}
	}
	out.Int(deleted)
	return nil
}

func exists(db *keyspace.View, args *Args, out *resp.Writer) error {
	n := int64(0)
	for args.More() {
		if db.Exists(args.Next()) {
			n++
		}
	}
	out.Int(n)
	return nil
}

func touch(db *keyspace.View, args *Args, out *resp.Writer) error {
	n := int64(0)
	for args.More() {
		if db.Touch(args.Next()) {
			n++
		}
	}
	out.Int(n)
	return nil
}

// expire makes the handler of one of the four commands.
func expire(unit timeUnit, absolute bool) func(*keyspace.Tx, *Args, *resp.Writer) error {
	return func(db *keyspace.Tx, args *Args, out *resp.Writer) error {
		key, arg := args.Next(), args.Next()
		when, err := expireConditions(args)
		if err != nil {
			return err
		}
		n, ok := resp.ParseInt(arg)
		if !ok {
			return ErrNotInteger
		}
		base := db.Now()
		if absolute {
			base = 0
		}
		if n > math.MaxInt64/int64(unit) || n < math.MinInt64/int64(unit) || n*int64(unit) > math.MaxInt64-base {
			return invalidExpire(args.row)
		}
		at := base + n*int64(unit)
		old, found := db.Deadline(key)
		switch {
		case !found || !when.hold(old, at):
			out.Int(0)
			return nil
		case at <= db.Now():
			db.Delete(key)
		default:
			db.SetDeadline(key, at)
		}
		out.Int(1)
		return nil
	}
}

// expireWhen is under which conditions a deadline is changed.
type expireWhen struct{ nx, xx, gt, lt bool }

func expireConditions(args *Args) (w expireWhen, err error) {
	for args.More() {
		switch {
		case args.Option("NX"):
			w.nx = true
		case args.Option("XX"):
			w.xx = true
		case args.Option("GT"):
			w.gt = true
		case args.Option("LT"):
			w.lt = true
		default:
			return w, unsupportedOption(args.Next())
		}
	}
	switch {
	case w.nx && (w.xx || w.gt || w.lt):
		return w, ErrExpireNX
	case w.gt && w.lt:
		return w, ErrExpireGTLT
	}
	return w, nil
}

// hold compares with the old deadline, where none at all is later than any.
func (w expireWhen) hold(old, at int64) bool {
	switch {
	case w.nx && old != 0, w.xx && old == 0:
		return false
	case w.gt && (old == 0 || at <= old), w.lt && old != 0 && at >= old:
		return false
	}
	return true
}

// ttl makes the handler of TTL and the like: -2 without a key, -1 without a
// deadline. Seconds are rounded.
func ttl(unit timeUnit, absolute bool) func(*keyspace.View, *Args, *resp.Writer) error {
	return func(db *keyspace.View, args *Args, out *resp.Writer) error {
		at, found := db.Deadline(args.Next())
		switch {
		case !found:
			out.Int(-2)
			return nil
		case at == 0:
			out.Int(-1)
			return nil
		}
		if !absolute {
			at = max(0, at-db.Now())
		}
		out.Int(at/int64(unit) + at%int64(unit)*2/int64(unit))
		return nil
	}
}

func persist(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key := args.Next()
	if at, _ := db.Deadline(key); at == 0 {
		out.Int(0)
		return nil
	}
	db.SetDeadline(key, 0)
	out.Int(1)
	return nil
}

func typeOf(db *keyspace.View, args *Args, out *resp.Writer) error {
	out.Simple(db.Kind(args.Next()).String())
	return nil
}

func keys(db *keyspace.View, args *Args, out *resp.Writer) error {
	pattern := append([]byte("="), args.Next()...)
	match := func([]byte) bool { return true }
	if string(pattern) != "=*" {
		match = func(key []byte) bool { return glob.Match(pattern[1:], key) }
	}
	mark, n := out.Defer(), 0
	err := db.Names(string(pattern), match, func(key []byte) {
		out.Bulk(key)
		n++
	})
	if err != nil {
		return err
	}
	out.Close(mark, n, resp.KindArray)
	return nil
}

func scan(db *keyspace.View, args *Args, out *resp.Writer) error {
	cursor, opts := args.Cursor(), args.Scan(true)
	if err := args.Err(); err != nil {
		return err
	}
	scanReply(out, func(elements *resp.Writer) (next uint64, n int) {
		next = db.Scan(cursor, opts.Count, func(key []byte, kind keyspace.Kind) {
			if opts.Matches(key) && (opts.Type == nil || equalFoldLower(opts.Type, kind.String())) {
				elements.Bulk(key)
				n++
			}
		})
		return next, n
	})
	return nil
}

// equalFoldLower reports whether word, in any case, is the small letters of
// name.
func equalFoldLower(word []byte, name string) bool {
	if len(word) != len(name) {
		return false
	}
	for i, c := range word {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != name[i] {
			return false
		}
	}
	return true
}

func randomKey(db *keyspace.View, _ *Args, out *resp.Writer) error {
	key := db.Random()
	bulkOrNull(out, key, key != nil)
	return nil
}

func rename(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	found, err := db.Rename(args.Next(), args.Next())
	if err != nil {
		return err
	}
	if !found {
		return ErrNoKey
	}
	out.OK()
	return nil
}

func renamenx(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	from, to := args.Next(), args.Next()
	switch {
	case db.Kind(from) == keyspace.None:
		return ErrNoKey
	case db.Kind(to) != keyspace.None:
		out.Int(0)
	default:
		if _, err := db.Rename(from, to); err != nil {
			return err
		}
		out.Int(1)
	}
	return nil
}

func copyKey(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	from, to := args.Next(), args.Next()
	home, target, replace := db.DB(), db.DB(), false
	for args.More() {
		switch {
		case args.Option("REPLACE"):
			replace = true
		case args.Left() >= 2 && args.Option("DB"):
			target = args.logicalDB()
		default:
			return ErrSyntax
		}
	}
	if err := args.Err(); err != nil {
		return err
	}
	if home == target && string(from) == string(to) {
		return ErrSameObject
	}
	copied := false
	if replace || !taken(db, target, to) {
		var err error
		if copied, err = db.Copy(from, target, to); err != nil {
			return err
		}
	}
	if !copied {
		out.Int(0)
		return nil
	}
	out.Int(1)
	return nil
}

// copiesTo is the logical database that COPY names, the last if it names several.
func copiesTo(argv [][]byte) (db int, ok bool) {
	for i := 3; i+1 < len(argv); i++ {
		if equalFold(argv[i], "DB") {
			db, ok = logicalDB(argv[i+1])
			i++
		}
	}
	return db, ok
}

// movesTo is the logical database that MOVE names.
func movesTo(argv [][]byte) (db int, ok bool) { return logicalDB(argv[2]) }

func logicalDB(word []byte) (db int, ok bool) {
	n, ok := resp.ParseInt(word)
	if !ok || n < 0 || n >= keyspace.Databases {
		return 0, false
	}
	return int(n), true
}

func moveKey(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key, target := args.Next(), args.logicalDB()
	if err := args.Err(); err != nil {
		return err
	}
	if target == db.DB() {
		return ErrSameObject
	}
	moved := false
	if !taken(db, target, key) {
		var err error
		if moved, err = db.Copy(key, target, key); err != nil {
			return err
		}
	}
	if !moved {
		out.Int(0)
		return nil
	}
	db.Delete(key)
	out.Int(1)
	return nil
}

// taken reports whether a logical database has a key.
func taken(db *keyspace.Tx, in int, key []byte) bool {
	home := db.DB()
	db.Select(in)
	defer db.Select(home)
	return db.Kind(key) != keyspace.None
}

func objectEncoding(db *keyspace.View, args *Args, out *resp.Writer) error {
	encoding, err := db.Encoding(args.Next())
	if err != nil {
		return err
	}
	if encoding != "" {
		out.BulkString(encoding)
	} else {
		out.Null()
	}
	return nil
}

func objectNumber(n int64) func(*keyspace.View, *Args, *resp.Writer) error {
	return func(db *keyspace.View, args *Args, out *resp.Writer) error {
		if db.Kind(args.Next()) == keyspace.None {
			out.Null()
		} else {
			out.Int(n)
		}
		return nil
	}
}

func objectIdleTime(db *keyspace.View, args *Args, out *resp.Writer) error {
	idle, found := db.Idle(args.Next())
	switch {
	case !found:
		out.Null()
	case db.Keyspace().Eviction().LFU():
		return ErrLFU
	default:
		out.Int(idle / 1000)
	}
	return nil
}

func objectFreq(db *keyspace.View, args *Args, out *resp.Writer) error {
	count, found := db.Freq(args.Next())
	switch {
	case !found:
		out.Null()
	case !db.Keyspace().Eviction().LFU():
		return ErrNoLFU
	default:
		out.Int(int64(count))
	}
	return nil
}

func wait(c Client, args *Args, out *resp.Writer) error {
	replicas := args.Int()
	timeout := args.IntOr(ErrTimeoutNotInt)
	if timeout < 0 {
		args.Fail(ErrTimeoutNegative)
	}
	if err := args.Err(); err != nil {
		return err
	}
	return c.WaitReplicas(int(min(replicas, 1<<20)), time.Duration(min(timeout, maxTimeout))*time.Millisecond, out)
}

// waitAOF answers how many copies have the last write on disk: the primary's, 0
// or 1, and replicas'.
func waitAOF(c Client, args *Args, out *resp.Writer) error {
	local := args.Int()
	replicas := args.Int()
	timeout := args.IntOr(ErrTimeoutNotInt)
	switch {
	case local < 0 || local > 1:
		args.Fail(ErrRange01)
	case replicas < 0:
		args.Fail(ErrNotPositive)
	case timeout < 0:
		args.Fail(ErrTimeoutNegative)
	}
	if err := args.Err(); err != nil {
		return err
	}
	return c.WaitDurable(int(local), int(min(replicas, 1<<20)), time.Duration(min(timeout, maxTimeout))*time.Millisecond, out)
}
