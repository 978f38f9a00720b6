package command

import (
	"fmt"
	"slices"
	"strings"

	"vecino/keyspace"
	"vecino/resp"
)

// RedisVersion is the release of Redis whose behaviour is matched. Clients
// choose by it what they use.
const RedisVersion = "7.0.15"

var connectionRows = []Row{
	{
		Name: "AUTH", Usage: "[username] password", Since: "1.0.0", Group: Connection,
		Summary: "Gives the password of the database.", Complexity: "O(1)",
		Arity: AtLeast(2), Traits: Fast | NoAuth | NoScript | Loading | Stale, Conn: auth,
	},
	{
		Name: "HELLO", Usage: "[protover [AUTH username password] [SETNAME clientname]]", Since: "6.0.0", Group: Connection,
		Summary: "Agrees on the version of the protocol, and tells about the server.", Complexity: "O(1)",
		Arity: AtLeast(1), Traits: Fast | NoAuth | NoScript | Loading | Stale, Conn: hello,
	},
	{
		Name: "PING", Usage: "[message]", Since: "1.0.0", Group: Connection,
		Summary: "Answers, to show that somebody is there.", Complexity: "O(1)",
		Arity: AtLeast(1), Traits: Fast | InSubscribe, Conn: ping,
	},
	{
		Name: "ECHO", Usage: "message", Since: "1.0.0", Group: Connection,
		Summary: "Answers with what it is given.", Complexity: "O(1)",
		Arity: Exactly(2), Traits: Fast | Loading | Stale, Conn: echo,
	},
	{
		Name: "SELECT", Usage: "index", Since: "1.0.0", Group: Connection,
		Summary: "Goes to another of the logical databases.", Complexity: "O(1)",
		Arity: Exactly(2), Traits: Fast | Loading | Stale, Conn: selectDB,
	},
	{
		Name: "QUIT", Since: "1.0.0", Group: Connection,
		Summary: "Closes the connection.", Complexity: "O(1)",
		Arity: AtLeast(1), Traits: Fast | NoAuth | Immediate | InSubscribe | NoScript | Loading | Stale, Conn: quit,
	},
	{
		Name: "RESET", Since: "6.2.0", Group: Connection,
		Summary: "Makes the connection as it was when it was new.", Complexity: "O(1)",
		Arity: Exactly(1), Traits: Fast | NoAuth | Immediate | InSubscribe | NoScript | Loading | Stale, Conn: reset,
	},
	{
		Name: "CLIENT", Since: "2.4.0", Group: Connection,
		Summary: "Shows and sets what concerns connections.", Complexity: "that of the subcommand", Arity: AtLeast(2),
		Sub: []Row{
			{
				Name: "ID", Since: "5.0.0", Summary: "Tells the number of the connection.", Complexity: "O(1)",
				Arity: Exactly(2), Traits: NoScript | Loading | Stale,
				Conn: func(c Client, _ *Args, out *resp.Writer) error {
					out.Int(c.ID())
					return nil
				},
			},
			{
				Name: "INFO", Since: "6.2.0", Summary: "Tells all about this connection.", Complexity: "O(1)",
				Arity: Exactly(2), Traits: Random | NoScript | Loading | Stale, Conn: clientInfo,
			},
			{
				Name: "LIST", Usage: "[TYPE NORMAL | MASTER | REPLICA | PUBSUB] [ID client-id [client-id ...]]", Since: "2.4.0",
				Summary: "Tells all about the connections to this database on this node.", Complexity: "O(N), N connections",
				Arity: AtLeast(2), Traits: Admin | Dangerous | Random | NoScript | Loading | Stale, Conn: clientList,
			},
			{
				Name: "GETNAME", Since: "2.6.9", Summary: "Tells the name of the connection.", Complexity: "O(1)",
				Arity: Exactly(2), Traits: NoScript | Loading | Stale, Conn: clientGetName,
			},
			{
				Name: "SETNAME", Usage: "connection-name", Since: "2.6.9", Summary: "Gives the connection a name.", Complexity: "O(1)",
				Arity: Exactly(3), Traits: NoScript | Loading | Stale, Conn: clientSetName,
			},
			{
				Name: "SETINFO", Usage: "LIB-NAME libname | LIB-VER libver", Since: "7.2.0", Summary: "Tells which library the client uses.", Complexity: "O(1)",
				Arity: Exactly(4), Traits: NoScript | Loading | Stale, Conn: clientSetInfo,
			},
			{
				Name:    "KILL",
				Usage:   "ip:port | [ID client-id] [TYPE NORMAL | MASTER | REPLICA | PUBSUB] [USER username] [ADDR ip:port] [LADDR ip:port] [SKIPME YES | NO] ...",
				Since:   "2.4.0",
				Summary: "Closes connections to this database on this node.", Complexity: "O(N), N connections",
				Arity: AtLeast(3), Traits: Admin | Dangerous | NoScript | Loading | Stale, Conn: clientKill,
			},
			{
				Name: "UNBLOCK", Usage: "client-id [TIMEOUT | ERROR]", Since: "5.0.0",
				Summary: "Ends the wait of a connection to this database on this node.", Complexity: "O(log(N)), N connections",
				Arity: AtLeast(3), Traits: Admin | Dangerous | NoScript | Loading | Stale, Conn: clientUnblock,
			},
			{
				Name: "REPLY", Usage: "ON | OFF | SKIP", Since: "3.2.0", Summary: "Says whether replies are wanted: all, none, or all but the next.", Complexity: "O(1)",
				Arity: Exactly(3), Traits: NoScript | Loading | Stale, Conn: clientReply,
			},
			{
				Name: "NO-EVICT", Usage: "ON | OFF", Since: "7.0.0", Summary: "Accepted, without effect: clients are never evicted for their memory.", Complexity: "O(1)",
				Arity: Exactly(3), Traits: Admin | Dangerous | NoScript | Loading | Stale, Conn: clientOnOff,
			},
			{
				Name: "NO-TOUCH", Usage: "ON | OFF", Since: "7.2.0", Summary: "Accepted, without effect: what the client looks at counts as used.", Complexity: "O(1)",
				Arity: Exactly(3), Traits: NoScript | Loading | Stale, Conn: clientOnOff,
			},
			{
				Name: "TRACKING", Usage: "ON | OFF", Since: "6.0.0", Summary: "Client side caching is not supported: only OFF is accepted.", Complexity: "O(1)",
				Arity: AtLeast(3), Traits: NoScript | Loading | Stale, Conn: clientTracking,
			},
			{
				Name: "TRACKINGINFO", Since: "6.2.0", Summary: "Tells that client side caching is off.", Complexity: "O(1)",
				Arity: Exactly(2), Traits: NoScript | Loading | Stale, Conn: clientTrackingInfo,
			},
			{
				Name: "CACHING", Usage: "YES | NO", Since: "6.0.0", Summary: "Refused, as client side caching is off.", Complexity: "O(1)",
				Arity: Exactly(3), Traits: NoScript | Loading | Stale, Conn: clientCaching,
			},
			{
				Name: "GETREDIR", Since: "6.0.0", Summary: "Tells that client side caching is off.", Complexity: "O(1)",
				Arity: Exactly(2), Traits: NoScript | Loading | Stale,
				Conn: func(_ Client, _ *Args, out *resp.Writer) error {
					out.Int(-1)
					return nil
				},
			},
			{
				Name: "PAUSE", Usage: "timeout [WRITE | ALL]", Since: "2.9.50", Summary: "Refused: it would stop other clients.", Complexity: "O(1)",
				Arity: AtLeast(3), Traits: Admin | Dangerous | NoScript | Loading | Stale,
				Conn: func(Client, *Args, *resp.Writer) error { return ErrNoPause },
			},
			{
				Name: "UNPAUSE", Since: "6.2.0", Summary: "Accepted, without effect: nobody is ever paused.", Complexity: "O(1)",
				Arity: Exactly(2), Traits: Admin | Dangerous | NoScript | Loading | Stale,
				Conn: func(_ Client, _ *Args, out *resp.Writer) error {
					out.OK()
					return nil
				},
			},
			helpRow("5.0.0"),
		},
	},
}

var defaultUser = []byte("default")

func auth(c Client, args *Args, out *resp.Writer) error {
	if args.Left() > 2 {
		return ErrSyntax
	}
	user := defaultUser
	if args.Left() == 2 {
		user = args.Next()
	}
	if !c.Authenticate(user, args.Next()) {
		return ErrWrongPass
	}
	out.OK()
	return nil
}

// hello changes nothing unless all of its words are right.
func hello(c Client, args *Args, out *resp.Writer) error {
	proto := c.Proto()
	if args.More() {
		n := args.IntOr(ErrProtoNotInteger)
		if err := args.Err(); err != nil {
			return err
		}
		if n != 2 && n != 3 {
			return ErrNoProto
		}
		proto = int(n)
	}
	var user, password, name []byte
	for args.More() {
		switch {
		case args.Left() >= 3 && args.Option("AUTH"):
			user, password = args.Next(), args.Next()
		case args.Left() >= 2 && args.Option("SETNAME"):
			name = args.Next()
			if !validName(name) {
				return ErrClientName
			}
		default:
			return helloOption(args.Next())
		}
	}
	if user != nil && !c.Authenticate(user, password) {
		return ErrWrongPass
	}
	if !c.Authenticated() {
		return ErrHelloNoAuth
	}
	if name != nil {
		c.SetName(string(name))
	}
	if proto != c.Proto() {
		c.SetProto(proto, out)
	}
	out.Map(7)
	out.BulkString("server")
	out.BulkString("redis")
	out.BulkString("version")
	out.BulkString(RedisVersion)
	out.BulkString("proto")
	out.Int(int64(proto))
	out.BulkString("id")
	out.Int(c.ID())
	out.BulkString("mode")
	out.BulkString("standalone")
	out.BulkString("role")
	out.BulkString("master") // every copy takes writes, if not by itself
	out.BulkString("modules")
	out.Array(0)
	return nil
}

// validName reports whether a client may have that name: it must be readable
// in CLIENT LIST.
func validName(name []byte) bool {
	for _, b := range name {
		if b < '!' || b > '~' {
			return false
		}
	}
	return true
}

func ping(c Client, args *Args, out *resp.Writer) error {
	if args.Left() > 1 {
		return wrongArity(args.row)
	}
	if c.Proto() == 2 && c.Subscribed() { // where all that comes looks like a message
		out.Array(2)
		out.BulkString("pong")
		out.Bulk(args.Peek())
		return nil
	}
	if args.More() {
		out.Bulk(args.Next())
	} else {
		out.Simple("PONG")
	}
	return nil
}

func echo(_ Client, args *Args, out *resp.Writer) error {
	out.Bulk(args.Next())
	return nil
}

func selectDB(c Client, args *Args, out *resp.Writer) error {
	db, err := args.logicalDB(), args.Err()
	if err != nil {
		return err
	}
	c.Select(db)
	out.OK()
	return nil
}

// logicalDB reads the number of a logical database.
func (a *Args) logicalDB() int {
	n := a.Int()
	if a.err == nil && int64(int32(n)) != n {
		a.Fail(ErrIntRange)
	}
	if n < 0 || n >= keyspace.Databases {
		a.Fail(ErrDBIndex)
	}
	return int(n)
}

func quit(c Client, _ *Args, out *resp.Writer) error {
	c.Quit()
	out.OK()
	return nil
}

func reset(c Client, _ *Args, out *resp.Writer) error {
	c.Reset(out)
	out.Simple("RESET")
	return nil
}

func clientGetName(c Client, _ *Args, out *resp.Writer) error {
	if name := c.Name(); name != "" {
		out.BulkString(name)
	} else {
		out.Null()
	}
	return nil
}

func clientSetName(c Client, args *Args, out *resp.Writer) error {
	name := args.Next()
	if !validName(name) {
		return ErrClientName
	}
	c.SetName(string(name))
	out.OK()
	return nil
}

func clientSetInfo(c Client, args *Args, out *resp.Writer) error {
	attribute, value := strings.ToLower(string(args.Next())), args.Next()
	if attribute != "lib-name" && attribute != "lib-ver" {
		return Error("ERR Unrecognized option '" + attribute + "'")
	}
	if !validName(value) {
		return Error("ERR " + attribute + " cannot contain spaces, newlines or special characters.")
	}
	c.SetLibrary(attribute, string(value))
	out.OK()
	return nil
}

func clientUnblock(c Client, args *Args, out *resp.Writer) error {
	word, failing := args.Next(), false
	switch {
	case !args.More():
	case args.Left() > 1:
		return wrongSubcommandUse(args.argv[0], args.argv[1])
	case args.Option("ERROR"):
		failing = true
	case !args.Option("TIMEOUT"):
		return ErrUnblockReason
	}
	id, ok := resp.ParseInt(word)
	if !ok {
		return ErrNotInteger
	}
	n := int64(0)
	if c.Server().Unblock(id, failing) {
		n = 1
	}
	out.Int(n)
	return nil
}

// clientReply is answered only when it asks for replies.
func clientReply(c Client, args *Args, out *resp.Writer) error {
	switch {
	case args.Option("ON"):
		out.OK()
		return c.SetReplies(RepliesOn)
	case args.Option("OFF"):
		return c.SetReplies(RepliesOff)
	case args.Option("SKIP"):
		return c.SetReplies(ReplySkip)
	}
	return ErrSyntax
}

func clientOnOff(_ Client, args *Args, out *resp.Writer) error {
	if !args.Option("ON") && !args.Option("OFF") {
		return ErrSyntax
	}
	out.OK()
	return nil
}

func clientTracking(_ Client, args *Args, out *resp.Writer) error {
	switch {
	case args.Option("OFF"):
		out.OK()
		return nil
	case args.Option("ON"):
		return ErrNoTracking
	}
	return ErrSyntax
}

func clientTrackingInfo(_ Client, _ *Args, out *resp.Writer) error {
	out.Map(3)
	out.BulkString("flags")
	out.Set(1)
	out.BulkString("off")
	out.BulkString("redirect")
	out.Int(-1)
	out.BulkString("prefixes")
	out.Array(0)
	return nil
}

func clientCaching(Client, *Args, *resp.Writer) error { return ErrCaching }

func clientInfo(c Client, _ *Args, out *resp.Writer) error {
	var line strings.Builder
	for _, info := range c.Server().Clients() {
		if info.ID == c.ID() {
			info.write(&line)
		}
	}
	out.Verbatim("txt", line.String())
	return nil
}

func clientList(c Client, args *Args, out *resp.Writer) error {
	var kind string
	var ids []int64
	switch {
	case !args.More():
	case args.Left() == 2 && args.Option("TYPE"):
		kind = args.clientType()
	case args.Left() >= 2 && args.Option("ID"):
		for args.More() {
			ids = append(ids, args.IntOr(ErrClientID))
		}
	default:
		return ErrSyntax
	}
	if err := args.Err(); err != nil {
		return err
	}
	var list strings.Builder
	for _, info := range c.Server().Clients() {
		if (kind == "" || info.kind() == kind) && (ids == nil || slices.Contains(ids, info.ID)) {
			info.write(&list)
		}
	}
	out.Verbatim("txt", list.String())
	return nil
}

// clientType reads a type of client. Masters and replicas are none of a
// tenant's clients here, but they can be asked for.
func (a *Args) clientType() string {
	word := a.Next()
	name := strings.ToLower(string(word))
	switch name {
	case "normal", "pubsub", "master", "replica":
		return name
	case "slave":
		return "replica"
	}
	a.Fail(unknownClientType(word))
	return ""
}

// clientKill is one of two: with an address alone it complains when there is
// no such client, with filters it counts.
func clientKill(c Client, args *Args, out *resp.Writer) error {
	filter := killFilter{skip: c.ID()}
	if args.Left() == 1 {
		filter = killFilter{addr: string(args.Next())}
		if filter.kill(c) == 0 {
			return ErrNoClient
		}
		out.OK()
		return nil
	}
	for args.More() {
		switch {
		case args.Left() < 2:
			return ErrSyntax
		case args.Option("ID"):
			filter.id = args.IntIn(1, 1<<63-1, ErrClientIDPositive)
		case args.Option("TYPE"):
			filter.kind = args.clientType()
		case args.Option("ADDR"):
			filter.addr = string(args.Next())
		case args.Option("LADDR"):
			filter.localAddr = string(args.Next())
		case args.Option("USER"):
			if user := args.Next(); string(user) != "default" {
				args.Fail(noSuchUser(user))
			}
		case args.Option("SKIPME"):
			switch {
			case args.Option("YES"):
				filter.skip = c.ID()
			case args.Option("NO"):
				filter.skip = 0
			default:
				return ErrSyntax
			}
		default:
			return ErrSyntax
		}
	}
	if err := args.Err(); err != nil {
		return err
	}
	out.Int(filter.kill(c))
	return nil
}

// killFilter says which clients to close: those that are all that is set.
type killFilter struct {
	id, skip              int64
	kind, addr, localAddr string
}

func (f *killFilter) kill(c Client) (killed int64) {
	server := c.Server()
	for _, info := range server.Clients() {
		switch {
		case f.id != 0 && info.ID != f.id, f.skip == info.ID, f.kind != "" && info.kind() != f.kind,
			f.addr != "" && info.Addr != f.addr, f.localAddr != "" && info.LocalAddr != f.localAddr:
		case info.ID == c.ID():
			c.Quit() // after the reply
			killed++
		case server.Kill(info.ID):
			killed++
		}
	}
	return killed
}

// kind is the type of a client, as CLIENT LIST TYPE names it.
func (i *ClientInfo) kind() string {
	if i.Sub+i.PSub+i.SSub > 0 {
		return "pubsub"
	}
	return "normal"
}

// flags are the letters that CLIENT LIST shows.
func (i *ClientInfo) flags() string {
	flags := i.Flags
	if i.Sub+i.PSub+i.SSub > 0 {
		flags += "P"
	}
	if i.Multi >= 0 {
		flags += "x"
	}
	if i.Blocked {
		flags += "b"
	}
	if flags == "" {
		return "N"
	}
	return flags
}

// write adds the line of CLIENT LIST about a connection. The fields are those
// of Redis 7.0, and the library's name and version as later ones have them.
func (i *ClientInfo) write(to *strings.Builder) {
	fmt.Fprintf(to, "id=%d addr=%s laddr=%s fd=%d name=%s age=%d idle=%d flags=%s db=%d sub=%d psub=%d ssub=%d multi=%d "+
		"qbuf=%d qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=%d oll=0 omem=%d tot-mem=%d events=r cmd=%s user=default redir=-1 resp=%d lib-name=%s lib-ver=%s\n",
		i.ID, i.Addr, i.LocalAddr, i.ID, i.Name, int64(i.Age.Seconds()), int64(i.Idle.Seconds()), i.flags(), i.DB, i.Sub, i.PSub, i.SSub, i.Multi,
		i.QueryBuf, i.OutList, i.OutList, i.QueryBuf+i.OutList, i.LastCommand, i.Proto, i.Library, i.Version)
}
