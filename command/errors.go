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
	ErrTimeoutRange    = Error("ERR timeout is out of range")
	ErrCursor          = Error("ERR invalid cursor")
	ErrDBIndex         = Error("ERR DB index is out of range")
	ErrStringTooLong   = Error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")

	ErrNoAuth    = Error("NOAUTH Authentication required.")
	ErrWrongPass = Error("WRONGPASS invalid username-password pair or user is disabled.")
	ErrNoProto   = Error("NOPROTO unsupported protocol version")
	ErrFull      = Error("ERR DB capacity quota exceeded")

	ErrNestedMulti    = Error("ERR MULTI calls can not be nested")
	ErrExecNoMulti    = Error("ERR EXEC without MULTI")
	ErrDiscardNoMulti = Error("ERR DISCARD without MULTI")
	ErrWatchInMulti   = Error("ERR WATCH inside MULTI is not allowed")
	ErrExecAbort      = Error("EXECABORT Transaction discarded because of previous errors.")
)

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

func noInputKeys(r *Row) error {
	return Error("ERR at least 1 input key is needed for '" + r.full + "' command")
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
	}
	return "ERR " + err.Error()
}
