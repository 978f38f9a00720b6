package command

import (
	"strconv"
	"strings"

	"vecino/internal/glob"
	"vecino/keyspace"
	"vecino/resp"
)

var serverRows = []Row{
	{
		Name: "INFO", Usage: "[section [section ...]]", Since: "1.0.0", Group: ServerGroup,
		Summary: "Tells about the server and this database.", Complexity: "O(1)",
		Arity: AtLeast(1), Traits: Dangerous | Random | Loading | Stale, Conn: info,
	},
	{
		Name: "COMMAND", Since: "2.8.13", Group: ServerGroup,
		Summary: "Tells about all commands.", Complexity: "O(N), N commands",
		Arity: AtLeast(1), Traits: Random | Loading | Stale, Conn: commandAll,
		Sub: []Row{
			{
				Name: "COUNT", Since: "2.8.13", Summary: "Counts the commands.", Complexity: "O(1)",
				Arity: Exactly(2), Traits: Loading | Stale, Conn: commandCount,
			},
			{
				Name: "INFO", Usage: "[command-name [command-name ...]]", Since: "2.8.13", Summary: "Tells how commands are called, and their flags.", Complexity: "O(N), N commands named",
				Arity: AtLeast(2), Traits: Random | Loading | Stale, Conn: commandInfo,
			},
			{
				Name: "DOCS", Usage: "[command-name [command-name ...]]", Since: "7.0.0", Summary: "Tells what commands do.", Complexity: "O(N), N commands named",
				Arity: AtLeast(2), Traits: Random | Loading | Stale, Conn: commandDocs,
			},
			{
				Name: "LIST", Usage: "[FILTERBY MODULE module-name | ACLCAT category | PATTERN pattern]", Since: "7.0.0",
				Summary: "Lists the names of commands.", Complexity: "O(N), N commands",
				Arity: AtLeast(2), Traits: Random | Loading | Stale, Conn: commandList,
			},
			{
				Name: "GETKEYS", Usage: "command [arg [arg ...]]", Since: "2.8.13", Summary: "Finds the keys among the words of a command.", Complexity: "O(N), N words",
				Arity: AtLeast(4), Traits: Loading | Stale, Conn: commandGetKeys,
			},
			helpRow("5.0.0"),
		},
	},
	{
		Name: "CONFIG", Since: "2.0.0", Group: ServerGroup,
		Summary: "Shows and sets parameters.", Complexity: "that of the subcommand", Arity: AtLeast(2),
		Sub: []Row{
			{
				Name: "GET", Usage: "parameter [parameter ...]", Since: "2.0.0", Summary: "Shows the parameters that match any of the patterns.", Complexity: "O(N), N patterns",
				Arity: AtLeast(3), Traits: Admin | Dangerous | NoScript | Loading | Stale, Conn: configGet,
			},
			{
				Name: "SET", Usage: "parameter value [parameter value ...]", Since: "2.0.0", Summary: "Sets parameters.", Complexity: "O(N), N parameters",
				Arity: AtLeast(4), Traits: Admin | Dangerous | NoScript | Loading | Stale, Conn: configSet,
			},
			{
				Name: "RESETSTAT", Since: "2.0.0", Summary: "Begins the statistics of INFO anew.", Complexity: "O(1)",
				Arity: Exactly(2), Traits: Admin | Dangerous | NoScript | Loading | Stale,
				Conn: func(c Client, _ *Args, out *resp.Writer) error {
					c.Server().ResetStats()
					out.OK()
					return nil
				},
			},
			{
				Name: "REWRITE", Since: "2.8.0", Summary: "Refused: there is no configuration file.", Complexity: "O(1)",
				Arity: Exactly(2), Traits: Admin | Dangerous | NoScript | Loading | Stale,
				Conn: func(Client, *Args, *resp.Writer) error { return ErrNoConfigFile },
			},
			helpRow("5.0.0"),
		},
	},
	{
		Name: "DBSIZE", Since: "1.0.0", Group: ServerGroup,
		Summary: "Counts the keys.", Complexity: "O(1)",
		Arity: Exactly(1), Traits: Fast,
		Read: func(db *keyspace.View, _ *Args, out *resp.Writer) error {
			out.Int(int64(db.Len()))
			return nil
		},
	},
	{
		Name: "FLUSHDB", Usage: "[ASYNC | SYNC]", Since: "1.0.0", Group: ServerGroup,
		Summary: "Deletes all keys of a logical database.", Complexity: "O(N), N keys",
		Arity: AtLeast(1), Traits: WholeKeyspace | Dangerous, Write: flush((*keyspace.Tx).Flush),
	},
	{
		Name: "FLUSHALL", Usage: "[ASYNC | SYNC]", Since: "1.0.0", Group: ServerGroup,
		Summary: "Deletes all keys of all logical databases.", Complexity: "O(N), N keys",
		Arity: AtLeast(1), Traits: WholeKeyspace | Dangerous, Write: flush((*keyspace.Tx).FlushAll),
	},
	{
		Name: "TIME", Since: "2.6.0", Group: ServerGroup,
		Summary: "Tells the time: seconds since 1970, and microseconds.", Complexity: "O(1)",
		Arity: Exactly(1), Traits: Fast | Random | Loading | Stale, Conn: timeNow,
	},
	{
		Name: "DEBUG", Usage: "SLEEP seconds", Since: "1.0.0", Group: ServerGroup,
		Summary: "Helps to test a deployment, where its operator allows that.", Complexity: "that of what is asked for",
		Arity: AtLeast(2), Traits: Admin | Dangerous | NoScript | Loading | Stale, Conn: debug,
	},
	{
		Name: "LOLWUT", Usage: "[VERSION version]", Since: "5.0.0", Group: ServerGroup,
		Summary: "Shows a street, and the version.", Complexity: "O(1)",
		Arity: AtLeast(1), Traits: Fast, Read: lolwut,
	},
	{
		Name: "MEMORY", Since: "4.0.0", Group: ServerGroup,
		Summary: "Tells about memory.", Complexity: "that of the subcommand", Arity: AtLeast(2),
		Sub: []Row{
			{
				Name: "USAGE", Usage: "key [SAMPLES count]", Since: "4.0.0", Summary: "Tells how many bytes a key and its value take.", Complexity: "O(1)",
				Arity: AtLeast(3), Keys: secondWord, Traits: KeyOnly, Read: memoryUsage,
			},
			helpRow("4.0.0"),
		},
	},
}

func info(c Client, args *Args, out *resp.Writer) error {
	var sections []string
	for args.More() {
		sections = append(sections, strings.ToLower(string(args.Next())))
	}
	out.Verbatim("txt", c.Server().Info(sections))
	return nil
}

func configGet(c Client, args *Args, out *resp.Writer) error {
	var patterns [][]byte
	for args.More() {
		patterns = append(patterns, []byte(strings.ToLower(string(args.Next()))))
	}
	mark, n := out.Defer(), 0
	for name, value := range c.Server().Config() {
		for _, pattern := range patterns {
			if glob.Match(pattern, []byte(name)) {
				out.BulkString(name)
				out.BulkString(value)
				n++
				break
			}
		}
	}
	out.Close(mark, n, resp.KindMap)
	return nil
}

// configSet looks at all names first. A parameter that refuses its value
// leaves those before it set.
func configSet(c Client, args *Args, out *resp.Writer) error {
	if args.Left()%2 != 0 {
		return ErrSyntax
	}
	server := c.Server()
	known := map[string]bool{} // and whether it was named before
	for name := range server.Config() {
		known[name] = false
	}
	words := args.Rest()
	for i := 0; i < len(words); i += 2 {
		name := strings.ToLower(string(words[i]))
		named, ok := known[name]
		switch {
		case !ok:
			return UnknownConfig(string(words[i]))
		case named:
			return ConfigFailed(name, "duplicate parameter")
		}
		known[name] = true
	}
	for i := 0; i < len(words); i += 2 {
		if err := server.SetConfig(strings.ToLower(string(words[i])), string(words[i+1])); err != nil {
			return err
		}
	}
	out.OK()
	return nil
}

// flush makes a handler. Whether the memory is reclaimed at once or behind the
// scenes, the keys are gone when it answers.
func flush(do func(*keyspace.Tx)) func(*keyspace.Tx, *Args, *resp.Writer) error {
	return func(db *keyspace.Tx, args *Args, out *resp.Writer) error {
		_ = args.Option("ASYNC") || args.Option("SYNC")
		if args.More() {
			return ErrSyntax
		}
		do(db)
		out.OK()
		return nil
	}
}

func timeNow(c Client, _ *Args, out *resp.Writer) error {
	now := c.Server().Time()
	out.Array(2)
	var digits [20]byte
	out.Bulk(strconv.AppendInt(digits[:0], now.Unix(), 10))
	out.Bulk(strconv.AppendInt(digits[:0], int64(now.Nanosecond()/1000), 10))
	return nil
}

const street = `
    /\      ____      /\
   /  \    |_[]_|    /  \
  /_[]_\___|_[]_|___/_[]_\
  |  _ |   |  _ |   | _  |
  |_|_||___|_|_||___||_|_|
 ==========================
 The one next door. Redis ver. ` + RedisVersion + "\n"

func lolwut(_ *keyspace.View, args *Args, out *resp.Writer) error {
	if args.Left() >= 2 && args.Option("VERSION") {
		args.Int()
		if err := args.Err(); err != nil {
			return err
		}
	}
	out.Verbatim("txt", street)
	return nil
}

func memoryUsage(db *keyspace.View, args *Args, out *resp.Writer) error {
	key := args.Next()
	for args.More() {
		if args.Left() < 2 || !args.Option("SAMPLES") { // all elements are counted anyway
			return ErrSyntax
		}
		if samples := args.Int(); args.Err() == nil && samples < 0 {
			return ErrSyntax
		}
	}
	if err := args.Err(); err != nil {
		return err
	}
	bytes, found := db.Size(key)
	if !found {
		out.Null()
		return nil
	}
	out.Int(int64(bytes))
	return nil
}
