// Package command is the command table and its handlers, one file a family.
//
// A command is one Row and one handler. Exactly one of the row's columns
// Read, Write and Conn is set, and what their handlers are given differs: a
// keyspace.View, in which nothing can be changed; a keyspace.Tx, which
// records every change; the Client, for what is about the connection. All
// that hangs on the difference (locking, quota, journal, forwarding from a
// replica, ACL category) is derived from the column by whoever runs the
// command: the engine for data, the session for the connection.
//
// A handler sees no network, no replica and no session, so it can't tell in
// which region it runs. It appends one reply to out, or returns an error and
// has whatever it wrote taken back.
package command

import (
	"fmt"
	"strings"

	"vecino/keyspace"
	"vecino/resp"
)

// Row is one command, or one subcommand of a container such as OBJECT.
type Row struct {
	Name       string // in capitals; of a subcommand the second word alone
	Usage      string // arguments as COMMAND DOCS and the documents write them
	Since      string // the Redis version that had it first
	Group      Group
	Summary    string
	Complexity string
	Arity      Arity
	Keys       Keys
	Traits     Traits

	// Looks says which elements of the collections at its keys the command looks at. One
	// that has none may look at all.
	Looks func(p *keyspace.Part, argv [][]byte)
	// Elsewhere tells which logical database the command looks its last key up in,
	// if it does so in another.
	Elsewhere func(argv [][]byte) (db int, ok bool)

	Read  func(db *keyspace.View, args *Args, out *resp.Writer) error
	Write func(db *keyspace.Tx, args *Args, out *resp.Writer) error
	Conn  func(c Client, args *Args, out *resp.Writer) error
	Sub   []Row // of a container; then none of the columns above need be set

	parent *Row
	full   string // "object|encoding", as COMMAND names it
}

// Group is the chapter of the documents that a command stands in.
type Group string

const (
	Generic      Group = "generic"
	StringGroup  Group = "string"
	HashGroup    Group = "hash"
	ListGroup    Group = "list"
	SetGroup     Group = "set"
	SortedSet    Group = "sorted-set"
	PubSub       Group = "pubsub"
	Transactions Group = "transactions"
	Connection   Group = "connection"
	ServerGroup  Group = "server"
)

// Arity is how many words a command has, its name included, in the way of
// COMMAND INFO: negative means at least.
type Arity int

// Exactly n words.
func Exactly(n int) Arity { return Arity(n) }

// AtLeast n words.
func AtLeast(n int) Arity { return Arity(-n) }

// Allows reports whether a command of n words fits.
func (a Arity) Allows(n int) bool {
	if a < 0 {
		return n >= int(-a)
	}
	return n == int(a)
}

// Keys says which of a command's words are keys: First to Last in steps of
// Step, Last counted from the end when negative, as COMMAND INFO has it. A
// command that names the number of its keys sets Count to the place of that
// word, and its keys follow it; First may stand before it for a destination.
type Keys struct {
	First, Last, Step int
	Count             int
}

var (
	NoKeys   = Keys{}
	FirstKey = Keys{First: 1, Last: 1, Step: 1}
	TwoKeys  = Keys{First: 1, Last: 2, Step: 1}
	AllKeys  = Keys{First: 1, Last: -1, Step: 1}
)

// Of appends the keys of a command to dst. Words that are missing or wrong
// give fewer keys, never an error: the handler complains.
func (k Keys) Of(dst, argv [][]byte) [][]byte {
	if k.First > 0 {
		last := k.Last
		if last < 0 {
			last += len(argv)
		}
		for i := k.First; i <= last && i < len(argv); i += k.Step {
			dst = append(dst, argv[i])
		}
	}
	if k.Count > 0 && k.Count < len(argv) {
		n, ok := resp.ParseInt(argv[k.Count])
		if rest := argv[k.Count+1:]; ok && n > 0 && n <= int64(len(rest)) {
			dst = append(dst, rest[:n]...)
		}
	}
	return dst
}

// Needs appends the keys of a command whose values it may look at. It gives
// too many rather than too few.
func (r *Row) Needs(dst, argv [][]byte) [][]byte {
	if r.Has(KeyOnly) && (r.Arity > 0 || !hasOption(argv, "GET")) {
		return dst
	}
	return r.Keys.Of(dst, argv)
}

// Blind reports whether a command writes all its keys without looking whether they are
// there. It is rather not said than said too often.
func (r *Row) Blind(argv [][]byte) bool {
	return r.Has(Overwrites) && (r.Arity > 0 || !hasOption(argv, "GET", "NX", "XX", "EXAT", "PXAT"))
}

// hasOption reports whether there is one of some words behind key and value.
func hasOption(argv [][]byte, words ...string) bool {
	for _, word := range argv[min(3, len(argv)):] {
		for _, option := range words {
			if equalFold(word, option) {
				return true
			}
		}
	}
	return false
}

// Traits are what else is to be known about a command.
type Traits uint32

const (
	Fast        Traits = 1 << iota // takes constant or logarithmic time
	GrowsMemory                    // refused when the database is full: DENYOOM
	TakesMemory                    // grows nothing, but needs some memory to be carried out
	Replaces                       // grows no value: puts a new one in the place of what its key held
	Blocks                         // may wait for a key
	NoAuth                         // allowed before AUTH
	NoMulti                        // refused inside MULTI
	Immediate                      // inside MULTI it runs at once and isn't queued
	ToPrimary                      // a Conn command that a replica sends to the primary
	Admin                          // an operator's command
	Dangerous
	Loading       // allowed while the database is loaded
	Stale         // allowed on a replica that lost its primary
	InSubscribe   // allowed in RESP2 while subscribed
	WholeKeyspace // looks at all keys: may take long
	Random        // the reply depends on chance
	NoScript
	Movable    // keys can't be told from Keys alone
	KeyOnly    // needs no value of its keys, or only with the option GET: it works where they are on disk
	Overwrites // puts strings at its keys whatever they hold, but for options that ask, or a deadline that may have passed: see Blind
)

// Has reports whether all of the given traits are there.
func (r *Row) Has(t Traits) bool { return r.Traits&t == t }

// FullName is the name that COMMAND gives: "get", "object|encoding".
func (r *Row) FullName() string { return r.full }

// ToPrimary reports whether a replica must send the command to the primary:
// because it may change data, or must be known there.
func (r *Row) ToPrimary() bool { return r.Write != nil || r.Has(ToPrimary) }

// table is all commands by name; all is the same, by family, in the order of
// the files. They are built once, when the program starts, and not by their
// declaration: there are handlers that look into the table.
var (
	table index
	all   []*Row
)

// index finds a row by its name, in capitals: at the place that the hash of the name
// says, or at one of those behind it up to the first that is empty. Every command is
// looked up, so it is simpler than a map can be.
type index [1024]*Row

// step continues the hash of a name.
func step(hash uint32, c byte) uint32 { return hash*31 + uint32(c) }

func (t *index) put(r *Row) {
	hash := uint32(0)
	for _, c := range []byte(r.Name) {
		hash = step(hash, c)
	}
	for t[hash%uint32(len(t))] != nil {
		hash++
	}
	t[hash%uint32(len(t))] = r
}

func (t *index) find(hash uint32, name []byte) *Row {
	for {
		r := t[hash%uint32(len(t))]
		if r == nil || r.Name == string(name) {
			return r
		}
		hash++
	}
}

func init() {
	build(
		connectionRows, serverRows, genericRows, stringRows, hashRows, listRows, setRows, sortedSetRows, pubsubRows, transactionRows,
	)
}

// All returns every command, without subcommands, in the order of the table.
func All() []*Row { return all }

func build(families ...[]Row) {
	for _, family := range families {
		for i := range family {
			r := &family[i]
			if Find([]byte(r.Name)) != nil {
				panic("command: two rows for " + r.Name)
			}
			table.put(r)
			if all = append(all, r); 2*len(all) > len(table) {
				panic("command: the index is too small")
			}
			r.check()
			r.full = strings.ToLower(r.Name)
			for j := range r.Sub {
				s := &r.Sub[j]
				s.parent = r
				s.full = r.full + "|" + strings.ToLower(s.Name)
				s.Group = r.Group
				s.check()
			}
		}
	}
}

// check panics on a row that can't be right: the program doesn't start with
// one.
func (r *Row) check() {
	columns := 0
	for _, set := range []bool{r.Read != nil, r.Write != nil, r.Conn != nil} {
		if set {
			columns++
		}
	}
	if columns != 1 && !(columns == 0 && len(r.Sub) > 0) {
		panic(fmt.Sprintf("command: %s has %d of Read, Write and Conn", r.Name, columns))
	}
	if r.Name != strings.ToUpper(r.Name) || r.Arity == 0 {
		panic("command: row " + r.Name + " is not complete")
	}
}

// longestName is as long as the name of a command gets.
const longestName = 32

// Find returns the row of a command by its name in any case, nil if there is
// none.
func Find(name []byte) *Row {
	if len(name) > longestName {
		return nil
	}
	var upper [longestName]byte
	hash := uint32(0)
	for i, c := range name {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		upper[i] = c
		hash = step(hash, c)
	}
	return table.find(hash, upper[:len(name)])
}

// Resolve finds the row that answers a command, of a container the
// subcommand's, and checks the number of words. The error is the reply.
func Resolve(argv [][]byte) (*Row, error) {
	r := Find(argv[0])
	if r == nil {
		return nil, unknownCommand(argv)
	}
	if len(r.Sub) > 0 && len(argv) > 1 {
		for i := range r.Sub {
			if s := &r.Sub[i]; equalFold(argv[1], s.Name) {
				if !s.Arity.Allows(len(argv)) {
					return nil, wrongArity(s)
				}
				return s, nil
			}
		}
		if r.Read == nil && r.Write == nil && r.Conn == nil {
			return nil, unknownSubcommand(r, argv[1])
		}
	}
	if !r.Arity.Allows(len(argv)) || r.Read == nil && r.Write == nil && r.Conn == nil {
		return nil, wrongArity(r)
	}
	return r, nil
}

// equalFold reports whether word, in any case, is the capital letters of name.
func equalFold(word []byte, name string) bool {
	if len(word) != len(name) {
		return false
	}
	for i := range word {
		c := word[i]
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != name[i] {
			return false
		}
	}
	return true
}
