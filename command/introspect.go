package command

import (
	"slices"
	"strings"

	"vecino/internal/glob"
	"vecino/resp"
)

// COMMAND shows the table to clients. Nothing of what it tells is written
// down a second time: flags, categories and key specifications are derived
// from the rows.

// Flags are the words by which COMMAND INFO tells how a command behaves.
func (r *Row) Flags() []string {
	flags := []string{}
	add := func(set bool, flag string) {
		if set {
			flags = append(flags, flag)
		}
	}
	add(r.Write != nil, "write")
	add(r.Read != nil, "readonly")
	add(r.Has(GrowsMemory), "denyoom")
	add(r.Has(Admin), "admin")
	add(r.Group == PubSub && !r.container() && r.Name != "HELP", "pubsub")
	add(r.Has(NoScript), "noscript")
	add(r.Has(Blocks), "blocking")
	add(r.Has(Loading), "loading")
	add(r.Has(Stale), "stale")
	add(r.Has(Fast), "fast")
	add(r.Has(NoAuth), "no_auth")
	add(r.Has(Movable) || r.Keys.Count > 0, "movablekeys")
	add(r.Has(NoMulti), "no_multi")
	return flags
}

// container reports whether a row only leads to its subcommands.
func (r *Row) container() bool { return r.Read == nil && r.Write == nil && r.Conn == nil }

// Categories are the groups in which access to commands is granted. Their
// names have an @ before them.
func (r *Row) Categories() []string {
	data := r.Read != nil || r.Write != nil
	categories := []string{}
	add := func(set bool, category string) {
		if set {
			categories = append(categories, "@"+category)
		}
	}
	add(r.Group == Generic && data || r.Group == ServerGroup && data && r.Keys == NoKeys, "keyspace")
	add(r.Read != nil, "read")
	add(r.Write != nil, "write")
	add(r.Group == SetGroup, "set")
	add(r.Group == SortedSet, "sortedset")
	add(r.Group == ListGroup, "list")
	add(r.Group == HashGroup, "hash")
	add(r.Group == StringGroup, "string")
	add(r.Group == PubSub && !r.container() && r.Name != "HELP", "pubsub")
	add(r.Has(Admin), "admin")
	add(r.Has(Fast), "fast")
	add(!r.Has(Fast), "slow")
	add(r.Has(Blocks), "blocking")
	add(r.Has(Dangerous), "dangerous")
	add((r.Group == Connection || r.Group == Generic) && r.Conn != nil, "connection")
	add(r.Group == Transactions, "transaction")
	return categories
}

func commandAll(_ Client, args *Args, out *resp.Writer) error {
	if args.More() {
		return unknownSubcommand(args.row, args.Next())
	}
	out.Array(len(all))
	for _, r := range all {
		r.describe(out)
	}
	return nil
}

func commandCount(_ Client, _ *Args, out *resp.Writer) error {
	out.Int(int64(len(all)))
	return nil
}

func commandInfo(_ Client, args *Args, out *resp.Writer) error {
	if !args.More() {
		return commandAll(nil, args, out)
	}
	out.Array(args.Left())
	for args.More() {
		if r := lookup(args.Next()); r != nil {
			r.describe(out)
		} else {
			out.NullArray()
		}
	}
	return nil
}

// lookup finds a row by its full name, "object|encoding", in any case.
func lookup(name []byte) *Row {
	container, sub, divided := strings.Cut(string(name), "|")
	r := Find([]byte(container))
	if r == nil || !divided {
		return r
	}
	for i := range r.Sub {
		if strings.EqualFold(r.Sub[i].Name, sub) {
			return &r.Sub[i]
		}
	}
	return nil
}

// describe writes what COMMAND INFO tells of a command.
func (r *Row) describe(out *resp.Writer) {
	out.Array(10)
	out.BulkString(r.full)
	out.Int(int64(r.Arity))
	words(r.Flags(), out)
	out.Int(int64(r.Keys.First))
	out.Int(int64(r.Keys.Last))
	out.Int(int64(r.Keys.Step))
	words(r.Categories(), out)
	if r.Has(Random) {
		out.Set(1)
		out.BulkString("nondeterministic_output")
	} else {
		out.Set(0)
	}
	r.describeKeys(out)
	if len(r.Sub) == 0 {
		out.Set(0)
		return
	}
	out.Array(len(r.Sub))
	for i := range r.Sub {
		r.Sub[i].describe(out)
	}
}

func words(list []string, out *resp.Writer) {
	out.Set(len(list))
	for _, w := range list {
		out.Simple(w)
	}
}

// describeKeys writes where the keys are: a range of words, and those behind
// the word that counts them.
func (r *Row) describeKeys(out *resp.Writer) {
	mark, n := out.Defer(), 0
	if k := r.Keys; k.First > 0 {
		last := k.Last
		if last > 0 {
			last -= k.First
		}
		r.describeSpec(k.First, "range", []string{"lastkey", "keystep", "limit"}, []int{last, k.Step, 0}, out)
		n++
	}
	if r.Keys.Count > 0 {
		r.describeSpec(r.Keys.Count, "keynum", []string{"keynumidx", "firstkey", "keystep"}, []int{0, 1, 1}, out)
		n++
	}
	out.Close(mark, n, resp.KindSet)
}

func (r *Row) describeSpec(begin int, find string, names []string, values []int, out *resp.Writer) {
	out.Map(3)
	out.BulkString("flags")
	switch {
	case r.Write != nil && find == "range":
		words([]string{"RW", "access", "update"}, out)
	default:
		words([]string{"RO", "access"}, out)
	}
	describeStep(out, "begin_search", "index", []string{"index"}, []int{begin})
	describeStep(out, "find_keys", find, names, values)
}

func describeStep(out *resp.Writer, step, kind string, names []string, values []int) {
	out.BulkString(step)
	out.Map(2)
	out.BulkString("type")
	out.BulkString(kind)
	out.BulkString("spec")
	out.Map(len(names))
	for i, name := range names {
		out.BulkString(name)
		out.Int(int64(values[i]))
	}
}

func commandDocs(_ Client, args *Args, out *resp.Writer) error {
	if !args.More() {
		out.Map(len(all))
		for _, r := range all {
			r.document(out)
		}
		return nil
	}
	mark, n := out.Defer(), 0
	for args.More() {
		if r := lookup(args.Next()); r != nil {
			r.document(out)
			n++
		}
	}
	out.Close(mark, n, resp.KindMap)
	return nil
}

// document writes a command's name and what COMMAND DOCS tells of it.
func (r *Row) document(out *resp.Writer) {
	out.BulkString(r.full)
	fields := [][2]string{{"summary", r.Summary}, {"since", r.Since}, {"group", string(r.Group)}, {"complexity", r.Complexity}}
	if len(r.Sub) > 0 {
		out.Map(len(fields) + 1)
	} else {
		out.Map(len(fields))
	}
	for _, f := range fields {
		out.BulkString(f[0])
		out.BulkString(f[1])
	}
	if len(r.Sub) > 0 {
		out.BulkString("subcommands")
		out.Map(len(r.Sub))
		for i := range r.Sub {
			r.Sub[i].document(out)
		}
	}
}

func commandList(_ Client, args *Args, out *resp.Writer) error {
	wanted := func(*Row) bool { return true }
	switch {
	case !args.More():
	case args.Left() != 3 || !args.Option("FILTERBY"):
		return ErrSyntax
	case args.Option("MODULE"):
		wanted = func(*Row) bool { return false }
	case args.Option("ACLCAT"):
		category := "@" + strings.ToLower(string(args.Next()))
		wanted = func(r *Row) bool { return slices.Contains(r.Categories(), category) }
	case args.Option("PATTERN"):
		pattern := []byte(strings.ToLower(string(args.Next())))
		wanted = func(r *Row) bool { return glob.Match(pattern, []byte(r.full)) }
	default:
		return ErrSyntax
	}
	mark, n := out.Defer(), 0
	list := func(r *Row) {
		if wanted(r) {
			out.BulkString(r.full)
			n++
		}
	}
	for _, r := range all {
		list(r)
		for i := range r.Sub {
			list(&r.Sub[i])
		}
	}
	out.Close(mark, n, resp.KindArray)
	return nil
}

func commandGetKeys(_ Client, args *Args, out *resp.Writer) error {
	argv := args.Rest()
	r := Find(argv[0])
	if r != nil && len(r.Sub) > 0 && len(argv) > 1 {
		if s := lookup([]byte(string(argv[0]) + "|" + string(argv[1]))); s != nil {
			r = s
		}
	}
	switch {
	case r == nil:
		return ErrGetKeysCommand
	case r.Keys == NoKeys && !r.Has(Movable):
		return ErrGetKeysNone
	case !r.Arity.Allows(len(argv)):
		return ErrGetKeysArity
	}
	found := r.Keys.Of(nil, argv)
	if len(found) == 0 {
		return ErrGetKeysArgs
	}
	out.Array(len(found))
	for _, key := range found {
		out.Bulk(key)
	}
	return nil
}
