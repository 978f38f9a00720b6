package command

import (
	"bytes"
	"math"

	"vecino/keyspace"
	"vecino/resp"
)

var listRows = []Row{
	{
		Name: "BLMOVE", Usage: "source destination LEFT|RIGHT LEFT|RIGHT timeout", Since: "6.2.0", Group: ListGroup,
		Summary: "Moves an element from an end of a list to an end of another, and waits for one if there is none.", Complexity: "O(1)",
		Arity: Exactly(6), Keys: TwoKeys, Traits: Blocks | GrowsMemory | NoScript, Looks: ends,
		Write: blmove,
	},
	{
		Name: "BLMPOP", Usage: "timeout numkeys key [key ...] LEFT|RIGHT [COUNT count]", Since: "7.0.0", Group: ListGroup,
		Summary: "Takes elements from the first list that has any, and waits if none has.", Complexity: "O(N+M), N keys, M elements taken",
		Arity: AtLeast(5), Keys: Keys{Count: 2}, Traits: Blocks | Movable,
		Write: blmpop,
	},
	{
		Name: "BLPOP", Usage: "key [key ...] timeout", Since: "2.0.0", Group: ListGroup,
		Summary: "Takes the first element of the first list that has any, and waits if none has.", Complexity: "O(N), N keys",
		Arity: AtLeast(3), Keys: Keys{First: 1, Last: -2, Step: 1}, Traits: Blocks | NoScript, Looks: front,
		Write: waitsToPop(keyspace.Front),
	},
	{
		Name: "BRPOP", Usage: "key [key ...] timeout", Since: "2.0.0", Group: ListGroup,
		Summary: "Takes the last element of the first list that has any, and waits if none has.", Complexity: "O(N), N keys",
		Arity: AtLeast(3), Keys: Keys{First: 1, Last: -2, Step: 1}, Traits: Blocks | NoScript, Looks: back,
		Write: waitsToPop(keyspace.Back),
	},
	{
		Name: "BRPOPLPUSH", Usage: "source destination timeout", Since: "2.2.0", Group: ListGroup,
		Summary: "Moves the last element of a list to the front of another, and waits for one if there is none. BLMOVE is the newer name.", Complexity: "O(1)",
		Arity: Exactly(4), Keys: TwoKeys, Traits: Blocks | GrowsMemory | NoScript, Looks: ends,
		Write: brpoplpush,
	},
	{
		Name: "LINDEX", Usage: "key index", Since: "1.0.0", Group: ListGroup,
		Summary: "Gives one element of a list; -1 is the last.", Complexity: "O(N), N elements between it and the nearer end",
		Arity: Exactly(3), Keys: FirstKey, Looks: at(1),
		Read: lindex,
	},
	{
		Name: "LINSERT", Usage: "key BEFORE|AFTER pivot element", Since: "2.2.0", Group: ListGroup,
		Summary: "Puts an element beside the first one that equals the pivot.", Complexity: "O(N), N elements before the pivot",
		Arity: Exactly(5), Keys: FirstKey, Traits: GrowsMemory,
		Write: linsert,
	},
	{
		Name: "LLEN", Usage: "key", Since: "1.0.0", Group: ListGroup,
		Summary: "Counts the elements of a list.", Complexity: "O(1)",
		Arity: Exactly(2), Keys: FirstKey, Traits: Fast, Looks: onlyLength,
		Read: llen,
	},
	{
		Name: "LMOVE", Usage: "source destination LEFT|RIGHT LEFT|RIGHT", Since: "6.2.0", Group: ListGroup,
		Summary: "Moves an element from an end of a list to an end of another, or of the same.", Complexity: "O(1)",
		Arity: Exactly(5), Keys: TwoKeys, Traits: GrowsMemory, Looks: ends,
		Write: lmove,
	},
	{
		Name: "LMPOP", Usage: "numkeys key [key ...] LEFT|RIGHT [COUNT count]", Since: "7.0.0", Group: ListGroup,
		Summary: "Takes elements from the first list that has any.", Complexity: "O(N+M), N keys, M elements taken",
		Arity: AtLeast(4), Keys: Keys{Count: 1}, Traits: Movable,
		Write: lmpop,
	},
	{
		Name: "LPOP", Usage: "key [count]", Since: "1.0.0", Group: ListGroup,
		Summary: "Takes elements from the front of a list.", Complexity: "O(N), N elements taken",
		Arity: AtLeast(2), Keys: FirstKey, Traits: Fast, Looks: counted(keyspace.Front),
		Write: pops(keyspace.Front),
	},
	{
		Name: "LPOS", Usage: "key element [RANK rank] [COUNT num-matches] [MAXLEN len]", Since: "6.0.6", Group: ListGroup,
		Summary: "Finds where in a list an element stands.", Complexity: "O(N), N elements in the list",
		Arity: AtLeast(3), Keys: FirstKey,
		Read: lpos,
	},
	{
		Name: "LPUSH", Usage: "key element [element ...]", Since: "1.0.0", Group: ListGroup,
		Summary: "Puts elements in front of a list, one after the other, creating the list if there is none.", Complexity: "O(N), N elements",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Fast | GrowsMemory, Looks: front,
		Write: pushes(keyspace.Front, false),
	},
	{
		Name: "LPUSHX", Usage: "key element [element ...]", Since: "2.2.0", Group: ListGroup,
		Summary: "Puts elements in front of a list that is there already.", Complexity: "O(N), N elements",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Fast | GrowsMemory, Looks: front,
		Write: pushes(keyspace.Front, true),
	},
	{
		Name: "LRANGE", Usage: "key start stop", Since: "1.0.0", Group: ListGroup,
		Summary: "Gives the elements from start to stop, both included.", Complexity: "O(S+N), S elements between start and the nearer end, N elements given",
		Arity: Exactly(4), Keys: FirstKey, Looks: between,
		Read: lrange,
	},
	{
		Name: "LREM", Usage: "key count element", Since: "1.0.0", Group: ListGroup,
		Summary: "Removes the first count elements of a value; a negative count begins at the end, 0 removes all.", Complexity: "O(N), N elements in the list",
		Arity: Exactly(4), Keys: FirstKey,
		Write: lrem,
	},
	{
		Name: "LSET", Usage: "key index element", Since: "1.0.0", Group: ListGroup,
		Summary: "Changes one element of a list.", Complexity: "O(N), N elements between it and the nearer end",
		Arity: Exactly(4), Keys: FirstKey, Traits: GrowsMemory, Looks: at(1),
		Write: lset,
	},
	{
		Name: "LTRIM", Usage: "key start stop", Since: "1.0.0", Group: ListGroup,
		Summary: "Keeps the elements from start to stop, both included, and removes all others.", Complexity: "O(N), N elements removed",
		Arity: Exactly(4), Keys: FirstKey, Looks: at(2),
		Write: ltrim,
	},
	{
		Name: "RPOP", Usage: "key [count]", Since: "1.0.0", Group: ListGroup,
		Summary: "Takes elements from the end of a list.", Complexity: "O(N), N elements taken",
		Arity: AtLeast(2), Keys: FirstKey, Traits: Fast, Looks: counted(keyspace.Back),
		Write: pops(keyspace.Back),
	},
	{
		Name: "RPOPLPUSH", Usage: "source destination", Since: "1.2.0", Group: ListGroup,
		Summary: "Moves the last element of a list to the front of another. LMOVE is the newer name.", Complexity: "O(1)",
		Arity: Exactly(3), Keys: TwoKeys, Traits: GrowsMemory, Looks: ends,
		Write: rpoplpush,
	},
	{
		Name: "RPUSH", Usage: "key element [element ...]", Since: "1.0.0", Group: ListGroup,
		Summary: "Puts elements at the end of a list, creating the list if there is none.", Complexity: "O(N), N elements",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Fast | GrowsMemory, Looks: back,
		Write: pushes(keyspace.Back, false),
	},
	{
		Name: "RPUSHX", Usage: "key element [element ...]", Since: "2.2.0", Group: ListGroup,
		Summary: "Puts elements at the end of a list that is there already.", Complexity: "O(N), N elements",
		Arity: AtLeast(3), Keys: FirstKey, Traits: Fast | GrowsMemory, Looks: back,
		Write: pushes(keyspace.Back, true),
	},
}

// pushes makes the handler that pushes at an end, if exists is set only to a
// list that has elements. It answers with the list's length.
func pushes(end keyspace.End, exists bool) func(*keyspace.Tx, *Args, *resp.Writer) error {
	return func(db *keyspace.Tx, args *Args, out *resp.Writer) error {
		list, err := db.List(args.Next())
		if err != nil {
			return err
		}
		if elements := args.Rest(); !exists || list.Len() > 0 {
			for _, element := range elements {
				list.Push(end, element)
			}
		}
		out.Int(int64(list.Len()))
		return nil
	}
}

// pops makes the handler that pops from an end: one element or, if a count is
// given, an array.
func pops(end keyspace.End) func(*keyspace.Tx, *Args, *resp.Writer) error {
	return func(db *keyspace.Tx, args *Args, out *resp.Writer) error {
		if args.Left() > 2 {
			return wrongArityOf(args.Argv()[0])
		}
		key, many, count := args.Next(), args.More(), int64(1)
		if many {
			count = args.Count()
		}
		if err := args.Err(); err != nil {
			return err
		}
		list, err := db.List(key)
		switch {
		case err != nil:
			return err
		case list.Len() == 0 && many:
			out.NullArray()
		case list.Len() == 0:
			out.Null()
		case many:
			pop(&list, end, count, out)
		default:
			out.Bulk(list.Index(last(&list, end)))
			list.Pop(end, 1)
		}
		return nil
	}
}

// last is the index of the element that a pop at an end takes.
func last(list *keyspace.List, end keyspace.End) int {
	if end == keyspace.Front {
		return 0
	}
	return list.Len() - 1
}

// pop takes up to count elements from an end and writes them as an array.
func pop(list *keyspace.List, end keyspace.End, count int64, out *resp.Writer) {
	n := int(min(count, int64(list.Len())))
	out.Array(n)
	if n == 0 {
		return
	}
	left := n
	write := func(element []byte) bool {
		out.Bulk(element)
		left--
		return left > 0 // behind the last there may be elements that aren't in memory
	}
	if end == keyspace.Front {
		list.Range(0, write)
	} else {
		list.RangeBack(list.Len()-1, write)
	}
	list.Pop(end, n)
}

// waitsToPop makes the handler that pops from the first list that has
// elements, and waits for one.
func waitsToPop(end keyspace.End) func(*keyspace.Tx, *Args, *resp.Writer) error {
	return func(db *keyspace.Tx, args *Args, out *resp.Writer) error {
		keys, timeout := args.Take(args.Left()-1), args.Timeout()
		if err := args.Err(); err != nil {
			return err
		}
		for _, key := range keys {
			list, err := db.List(key)
			if err != nil {
				return err
			}
			if list.Len() > 0 {
				out.Array(2)
				out.Bulk(key)
				out.Bulk(list.Index(last(&list, end)))
				list.Pop(end, 1)
				return nil
			}
		}
		return args.Wait(timeout, keys)
	}
}

// End reads LEFT or RIGHT.
func (a *Args) End() keyspace.End {
	switch {
	case a.Option("LEFT"):
		return keyspace.Front
	case a.Option("RIGHT"):
		return keyspace.Back
	}
	a.Fail(ErrSyntax)
	return keyspace.Front
}

// NumKeys reads a number of keys and the keys.
func (a *Args) NumKeys() [][]byte {
	n := a.IntIn(1, math.MaxInt64, ErrNumKeys)
	if a.err != nil {
		return nil
	}
	return a.Take(int(n))
}

// popCount reads the COUNT of LMPOP and ZMPOP, with which the command ends.
func (a *Args) popCount() int64 {
	count := int64(1)
	if a.Left() >= 2 && a.Option("COUNT") {
		count = a.IntIn(1, math.MaxInt64, ErrPopCount)
	}
	if a.More() {
		a.Fail(ErrSyntax)
	}
	return count
}

func lmpop(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	keys, end, count := args.NumKeys(), args.End(), args.popCount()
	if err := args.Err(); err != nil {
		return err
	}
	found, err := popFirst(db, keys, end, count, out)
	if !found && err == nil {
		out.NullArray()
	}
	return err
}

func blmpop(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	wait := args.Next()
	keys, end, count := args.NumKeys(), args.End(), args.popCount()
	timeout := args.timeoutOf(wait) // what is wrong with it is said last
	if err := args.Err(); err != nil {
		return err
	}
	found, err := popFirst(db, keys, end, count, out)
	if !found && err == nil {
		return args.Wait(timeout, keys)
	}
	return err
}

// popFirst pops from the first of several lists that has elements, and writes
// its key and what was popped.
func popFirst(db *keyspace.Tx, keys [][]byte, end keyspace.End, count int64, out *resp.Writer) (found bool, err error) {
	for _, key := range keys {
		list, err := db.List(key)
		if err != nil {
			return false, err
		}
		if list.Len() > 0 {
			out.Array(2)
			out.Bulk(key)
			pop(&list, end, count, out)
			return true, nil
		}
	}
	return false, nil
}

func lmove(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	from, to := args.Next(), args.Next()
	take, put := args.End(), args.End()
	if err := args.Err(); err != nil {
		return err
	}
	return moveOrNull(db, from, to, take, put, out)
}

func rpoplpush(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	from, to := args.Next(), args.Next()
	return moveOrNull(db, from, to, keyspace.Back, keyspace.Front, out)
}

func moveOrNull(db *keyspace.Tx, from, to []byte, take, put keyspace.End, out *resp.Writer) error {
	moved, err := move(db, from, to, take, put, out)
	if !moved && err == nil {
		out.Null()
	}
	return err
}

func blmove(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	keys := args.Take(2)
	take, put, timeout := args.End(), args.End(), args.Timeout()
	if err := args.Err(); err != nil {
		return err
	}
	moved, err := move(db, keys[0], keys[1], take, put, out)
	if !moved && err == nil {
		return args.WaitForValue(timeout, keys[:1])
	}
	return err
}

func brpoplpush(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	keys, timeout := args.Take(2), args.Timeout()
	if err := args.Err(); err != nil {
		return err
	}
	moved, err := move(db, keys[0], keys[1], keyspace.Back, keyspace.Front, out)
	if !moved && err == nil {
		return args.WaitForValue(timeout, keys[:1])
	}
	return err
}

// move takes an element from one list and puts it into another, which may be
// the same, and answers with the element. It reports false if there is none.
func move(db *keyspace.Tx, from, to []byte, take, put keyspace.End, out *resp.Writer) (moved bool, err error) {
	source, err := db.List(from)
	if err != nil || source.Len() == 0 {
		return false, err
	}
	target, err := db.List(to)
	if err != nil {
		return false, err
	}
	element := source.Index(last(&source, take))
	out.Bulk(element)
	// From here on the element is that of the reply: lists move their memory.
	end := len(out.Buf) - len("\r\n")
	element = out.Buf[end-len(element) : end]
	source.Pop(take, 1)
	target.Push(put, element)
	return true, nil
}

func llen(db *keyspace.View, args *Args, out *resp.Writer) error {
	list, err := db.List(args.Next())
	if err != nil {
		return err
	}
	out.Int(int64(list.Len()))
	return nil
}

// lindex answers null for a missing key whatever the index is, a number or
// not.
func lindex(db *keyspace.View, args *Args, out *resp.Writer) error {
	list, err := db.List(args.Next())
	if err != nil {
		return err
	}
	if list.Len() == 0 {
		out.Null()
		return nil
	}
	i, ok := fromEnd(args.Int(), list.Len())
	if err := args.Err(); err != nil {
		return err
	}
	if !ok {
		out.Null()
		return nil
	}
	out.Bulk(list.Index(i))
	return nil
}

// fromEnd turns an index that may count from the end, -1 being the last of n,
// into one from 0. It reports false for one that is outside.
func fromEnd(i int64, n int) (int, bool) {
	if i < 0 {
		i += int64(n)
	}
	return int(i), 0 <= i && i < int64(n)
}

// span turns a start and a stop that may count from the end, both included,
// into indexes from 0 to n, the second excluded. If there is nothing between
// them, they are equal.
func span(start, stop int64, n int) (from, to int) {
	size := int64(n)
	if start < 0 {
		start = max(start+size, 0)
	}
	if stop < 0 {
		stop += size
	}
	stop = min(stop, size-1)
	if start > stop {
		return 0, 0
	}
	return int(start), int(stop) + 1
}

func lrange(db *keyspace.View, args *Args, out *resp.Writer) error {
	key, start, stop := args.Next(), args.Int(), args.Int()
	if err := args.Err(); err != nil {
		return err
	}
	list, err := db.List(key)
	if err != nil {
		return err
	}
	from, to := span(start, stop, list.Len())
	out.Array(to - from)
	if from == to {
		return nil
	}
	left := to - from
	list.Range(from, func(element []byte) bool {
		out.Bulk(element)
		left--
		return left > 0
	})
	return nil
}

func lset(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	list, err := db.List(args.Next())
	if err != nil {
		return err
	}
	if list.Len() == 0 {
		return ErrNoKey
	}
	i, ok := fromEnd(args.Int(), list.Len())
	element := args.Next()
	if err := args.Err(); err != nil {
		return err
	}
	if !ok {
		return ErrOutOfRange
	}
	list.SetAt(i, element)
	out.OK()
	return nil
}

// linsert answers with the length of the list, 0 if there is no list and -1 if
// it hasn't the pivot.
func linsert(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key := args.Next()
	after := args.Option("AFTER")
	if !after && !args.Option("BEFORE") {
		return ErrSyntax
	}
	pivot, element := args.Next(), args.Next()
	list, err := db.List(key)
	if err != nil {
		return err
	}
	if list.Len() == 0 {
		out.Int(0)
		return nil
	}
	at, found := 0, false
	list.Range(0, func(other []byte) bool {
		if found = bytes.Equal(other, pivot); !found {
			at++
		}
		return !found
	})
	if !found {
		out.Int(-1)
		return nil
	}
	if after {
		at++
	}
	list.InsertAt(at, element)
	out.Int(int64(list.Len()))
	return nil
}

func lrem(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key, count, element := args.Next(), args.Int(), args.Next()
	if err := args.Err(); err != nil {
		return err
	}
	list, err := db.List(key)
	if err != nil {
		return err
	}
	out.Int(int64(list.Remove(element, int(max(count, -math.MaxInt64)))))
	return nil
}

func ltrim(db *keyspace.Tx, args *Args, out *resp.Writer) error {
	key, start, stop := args.Next(), args.Int(), args.Int()
	if err := args.Err(); err != nil {
		return err
	}
	list, err := db.List(key)
	if err != nil {
		return err
	}
	if n := list.Len(); n > 0 {
		if from, to := span(start, stop, n); from < to {
			list.Trim(from, to-1)
		} else {
			list.Pop(keyspace.Front, n)
		}
	}
	out.OK()
	return nil
}

// position is what LPOS is asked for.
type position struct {
	rank   int64 // of the first match that counts, from the end if negative
	count  int64 // of matches, 0 for all; -1: the first, not as an array
	maxLen int64 // how many elements are compared, 0 for all
}

// Position reads the options of LPOS.
func (a *Args) position() position {
	p := position{rank: 1, count: -1}
	for a.More() {
		switch {
		case a.Left() < 2:
			a.Fail(ErrSyntax)
		case a.Option("RANK"):
			if p.rank = a.Int(); p.rank == 0 {
				a.Fail(ErrRankZero)
			}
		case a.Option("COUNT"):
			p.count = a.IntIn(0, math.MaxInt64, ErrPosCount)
		case a.Option("MAXLEN"):
			p.maxLen = a.IntIn(0, math.MaxInt64, ErrPosMaxLen)
		default:
			a.Fail(ErrSyntax)
		}
	}
	return p
}

func lpos(db *keyspace.View, args *Args, out *resp.Writer) error {
	key, element, p := args.Next(), args.Next(), args.position()
	if err := args.Err(); err != nil {
		return err
	}
	list, err := db.List(key)
	if err != nil {
		return err
	}
	if p.count >= 0 {
		mark, n := out.Defer(), 0
		p.find(list, element, func(i int) {
			out.Int(int64(i))
			n++
		})
		out.Close(mark, n, resp.KindArray)
		return nil
	}
	found := false
	p.count = 1
	p.find(list, element, func(i int) {
		out.Int(int64(i))
		found = true
	})
	if !found {
		out.Null()
	}
	return nil
}

// find calls fn for the places of element that are asked for.
func (p *position) find(list keyspace.ListView, element []byte, fn func(i int)) {
	i, step, skip := 0, 1, p.rank-1
	if p.rank < 0 {
		i, step, skip = list.Len()-1, -1, -p.rank-1
	}
	compared, given := int64(0), int64(0)
	look := func(other []byte) bool {
		if bytes.Equal(other, element) {
			if skip > 0 {
				skip--
			} else {
				fn(i)
				given++
			}
		}
		i += step
		compared++
		return compared != p.maxLen && (p.count == 0 || given < p.count)
	}
	if step > 0 {
		list.Range(0, look)
	} else {
		list.RangeBack(i, look)
	}
}
