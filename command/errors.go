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
