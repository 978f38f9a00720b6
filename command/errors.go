package command

import (
	"errors"
	"fmt"
	"strings"

	"vecino/keyspace"
)

// Error is a reply that says what the client did wrong, worded as Redis 7.0
// words it, its code included.
type Error string

func (e Error) Error() string { return string(e) }

// All errors that handlers answer with. Those a family has for itself stand
// below the common ones, so that the wording of all can be read in one place.
const (
	ErrSyntax          = Error("ERR syntax error")
	ErrNotInteger      = Error("ERR value is not an integer or out of range")
	ErrNotFloat        = Error("ERR value is not a valid float")
	ErrNoKey           = Error("ERR no such key")
	ErrOutOfRange      = Error("ERR index out of range")
	ErrOffset          = Error("ERR offset is out of range")
	ErrNotPositive     = Error("ERR value is out of range, must be positive")
	ErrTimeoutNotFloat = Error("ERR timeout is not a float or out of range")
	ErrTimeoutNegative = Error("ERR timeout is negative")
	ErrCursor          = Error("ERR invalid cursor")
	ErrDBIndex         = Error("ERR DB index is out of range")
	ErrStringTooLong   = Error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")

	ErrNoAuth    = Error("NOAUTH Authentication required.")
	ErrWrongPass = Error("WRONGPASS invalid username-password pair or user is disabled.")
	ErrNoProto   = Error("NOPROTO unsupported protocol version")

	ErrNestedMulti    = Error("ERR MULTI calls can not be nested")
	ErrExecNoMulti    = Error("ERR EXEC without MULTI")
	ErrDiscardNoMulti = Error("ERR DISCARD without MULTI")
	ErrWatchInMulti   = Error("ERR WATCH inside MULTI is not allowed")
	ErrExecAbort      = Error("EXECABORT Transaction discarded because of previous errors.")
)

// Of what a plan allows; keyspace.ErrTooLarge is another. docs/limits.md says
// what is counted.
const (
	ErrFull        = Error("ERR DB capacity quota exceeded")
	ErrConnections = Error("ERR max concurrent connections exceeded")

	// ErrNodeFull is no quota's: the node itself has no memory left.
	ErrNodeFull = Error("OOM this node's memory is full, and nothing more of it can be moved to disk. Reads go on; writes are taken again when there is room. Its operator can raise --memory, or move databases to other nodes")
)

// RequestTooLong refuses a request, or a transaction, for its length.
func RequestTooLong(limit, actual int64) error {
	return Error(fmt.Sprintf("ERR max request size exceeded. Limit: %d bytes, Actual: %d bytes. See docs/limits.md for details", limit, actual))
}

// KeyTooLong refuses a command for the length of a key.
func KeyTooLong(limit, actual int64) error {
	return Error(fmt.Sprintf("ERR max key size exceeded. Limit: %d bytes, Actual: %d bytes", limit, actual))
}

// Of hashes, lists, sets and sorted sets.
const (
	ErrCountRange      = Error("ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807")
	ErrPairsRange      = Error("ERR value is out of range")
	ErrReplyTooLong    = Error("ERR the reply would be longer than 64 MB")
	ErrOverflow        = Error("ERR increment or decrement would overflow")
	ErrSumNotFinite    = Error("ERR increment would produce NaN or Infinity")
	ErrNotFinite       = Error("ERR value is NaN or Infinity")
	ErrHashNotInteger  = Error("ERR hash value is not an integer")
	ErrHashNotFloat    = Error("ERR hash value is not a float")
	ErrNumKeys         = Error("ERR numkeys should be greater than 0")
	ErrNumKeysTooLarge = Error("ERR Number of keys can't be greater than number of args")
	ErrPopCount        = Error("ERR count should be greater than 0")
	ErrLimit           = Error("ERR LIMIT can't be negative")
	ErrRankZero        = Error("ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list")
	ErrPosCount        = Error("ERR COUNT can't be negative")
	ErrPosMaxLen       = Error("ERR MAXLEN can't be negative")
	ErrScoreRange      = Error("ERR min or max is not a float")
	ErrLexRange        = Error("ERR min or max not valid string range item")
	ErrLimitByRank     = Error("ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX")
	ErrScoresByLex     = Error("ERR syntax error, WITHSCORES not supported in combination with BYLEX")
	ErrWeight          = Error("ERR weight value is not a float")
	ErrAddBothExist    = Error("ERR XX and NX options at the same time are not compatible")
	ErrAddCompare      = Error("ERR GT, LT, and/or NX options at the same time are not compatible")
	ErrAddIncr         = Error("ERR INCR option supports a single increment-element pair")
	ErrScoreNaN        = Error("ERR resulting score is not a number (NaN)")
)

// Of keys and strings.
const (
	ErrExpireNX     = Error("ERR NX and XX, GT or LT options at the same time are not compatible")
	ErrExpireGTLT   = Error("ERR GT and LT options at the same time are not compatible")
	ErrIntRange     = Error("ERR value is out of range, value must between -2147483648 and 2147483647")
	ErrSameObject   = Error("ERR source and destination objects are the same")
	ErrLFU          = Error("ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.")
	ErrNoLFU        = Error("ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.")
	ErrDecrOverflow = Error("ERR decrement would overflow")
	ErrLCSBoth      = Error("ERR If you want both the length and indexes, please just use IDX.")
	ErrLCSType      = Error("ERR The specified keys must contain string values")
	ErrLCSMemory    = Error("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len")
)

// Of connections and the server.
const (
	ErrProtoNotInteger  = Error("ERR Protocol version is not an integer or out of range")
	ErrHelloNoAuth      = Error("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time")
	ErrClientName       = Error("ERR Client names cannot contain spaces, newlines or special characters.")
	ErrClientID         = Error("ERR Invalid client ID")
	ErrClientIDPositive = Error("ERR client-id should be greater than 0")
	ErrNoClient         = Error("ERR No such client")
	ErrUnblocked        = Error("UNBLOCKED client unblocked via CLIENT UNBLOCK")
	ErrUnblockReason    = Error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
	ErrCaching          = Error("ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled")
	ErrRange01          = Error("ERR value is out of range, value must between 0 and 1")
	ErrTimeoutNotInt    = Error("ERR timeout is not an integer or out of range")
	ErrNoConfigFile     = Error("ERR The server is running without a config file")
	ErrGetKeysCommand   = Error("ERR Invalid command specified")
	ErrGetKeysArity     = Error("ERR Invalid number of arguments specified for command")
	ErrGetKeysNone      = Error("ERR The command has no key arguments")
	ErrGetKeysArgs      = Error("ERR Invalid arguments specified for command")

	// Redis can do these. Vecino says that it can't, and doesn't pretend.
	ErrNoTracking = Error("ERR client side caching (CLIENT TRACKING) is not supported")
	ErrNoPause    = Error("ERR CLIENT PAUSE is not supported: a database is not one client's to stop")
)

func invalidExpire(r *Row) error {
	return Error("ERR invalid expire time in '" + r.full + "' command")
}

func unsupportedOption(option []byte) error {
	return Error("ERR Unsupported option " + string(option))
}

func helloOption(option []byte) error {
	return Error("ERR Syntax error in HELLO option '" + string(option) + "'")
}

func unknownClientType(name []byte) error {
	return Error("ERR Unknown client type '" + string(name) + "'")
}

func noSuchUser(name []byte) error { return Error("ERR No such user '" + string(name) + "'") }

// NotWhileSubscribed refuses a command in version 2 of the protocol, on a
// connection that listens to channels.
func NotWhileSubscribed(r *Row) error {
	return Error("ERR Can't execute '" + r.full + "': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context")
}

// ExecRefused is the reply to an EXEC that was refused for itself: it ends the
// transaction.
func ExecRefused(err error) error {
	return Error("EXECABORT Transaction discarded because of: " + strings.TrimPrefix(Reply(err), "ERR "))
}

// ErrDebugRefused is the reply to DEBUG where it isn't allowed.
const ErrDebugRefused = Error(`ERR DEBUG command not allowed. If the enable-debug-command option is set to "local", you can run it from a local connection, otherwise you need to set this option in the configuration file, and then restart the server.`)

// UnknownConfig is the reply to CONFIG SET of a parameter that there isn't.
func UnknownConfig(name string) error {
	return Error("ERR Unknown option or number of arguments for CONFIG SET - '" + name + "'")
}

// ConfigFailed is the reply to CONFIG SET of a value that can't be.
func ConfigFailed(name, why string) error {
	return Error("ERR CONFIG SET failed (possibly related to argument '" + name + "') - " + why)
}

// wrongSubcommandUse is the reply of a subcommand that Redis checks for
// itself, after its arity.
func wrongSubcommandUse(container, word []byte) error {
	return Error(fmt.Sprintf("ERR unknown subcommand or wrong number of arguments for '%s'. Try %s HELP.", cut(word, 128), strings.ToUpper(string(container))))
}

func noInputKeys(name []byte) error {
	return Error("ERR at least 1 input key is needed for '" + strings.ToLower(string(name)) + "' command")
}

func unknownCommand(argv [][]byte) error {
	var args strings.Builder
	for _, arg := range argv[1:] {
		if args.Len() >= 128 {
			break
		}
		fmt.Fprintf(&args, "'%s' ", cut(arg, 128-args.Len()))
	}
	return Error(fmt.Sprintf("ERR unknown command '%s', with args beginning with: %s", cut(argv[0], 128), args.String()))
}

func unknownSubcommand(container *Row, word []byte) error {
	return Error(fmt.Sprintf("ERR unknown subcommand '%s'. Try %s HELP.", cut(word, 128), container.Name))
}

func wrongArity(r *Row) error {
	return Error("ERR wrong number of arguments for '" + r.full + "' command")
}

func wrongArityOf(name []byte) error {
	return Error("ERR wrong number of arguments for '" + strings.ToLower(string(cut(name, 128))) + "' command")
}

func cut(b []byte, n int) []byte { return b[:min(len(b), n)] }

// Reply gives the text with which an error of a handler is answered.
func Reply(err error) string {
	var e Error
	switch {
	case errors.As(err, &e):
		return string(e)
	case errors.Is(err, keyspace.ErrWrongType):
		return keyspace.ErrWrongType.Error()
	case errors.Is(err, keyspace.ErrTooLarge):
		return keyspace.ErrTooLarge.Error()
	case errors.Is(err, keyspace.ErrNoMemory):
		return keyspace.ErrNoMemory.Error()
	}
	return "ERR " + err.Error()
}
