// Package resp is the Redis wire format, versions 2 and 3: it reads requests and writes replies.
//
// A server uses a Parser, which finds one command at the head of a byte slice
// without copying it, and a Writer, which appends a reply to a byte slice.
// Neither touches the network, keeps a lock or allocates for a command of
// ordinary shape. A client (a test, a link between nodes, the command line)
// uses AppendCommand to ask and a Reader to get the answer as a Value.
//
// A request is an array of bulk strings
//
//	*2\r\n $3\r\n GET\r\n $3\r\n key\r\n
//
// or, for a person with a terminal, a line of words ("inline"). Every reply
// starts with a byte that names its type:
//
//	2 and 3:  + simple   - error    : integer   $ bulk         * array
//	3 only:   _ null     , double   # boolean   ( big number   = verbatim
//	          % map      ~ set      > push      | attribute    ! bulk error
//
// What a client speaking version 2 gets for a type of version 3 is told at
// each method of Writer; it is what Redis 7.0 sends.
//
// What a command means, how many arguments it takes and who may call it are
// not known here.
package resp

import (
	"math"
	"strconv"
)

// Limits of a request, as Redis 7.0 has them. The first three can be
// changed by a Parser's fields.
const (
	DefaultMaxBulk      = 512 << 20
	DefaultMaxMultibulk = math.MaxInt32
	DefaultMaxInline    = 64 << 10

	// What a client that has not given its password may send at most.
	unauthenticatedMultibulk = 10
	unauthenticatedBulk      = 16 << 10
)

// A ProtocolError says that the bytes can't be a request. It is worded as
// Redis words it, "ERR" included, so that it can be the reply; the connection
// is to be closed after it, for there is no telling where the next request starts.
type ProtocolError string

func (e ProtocolError) Error() string { return string(e) }

const (
	errMultibulkLength     = ProtocolError("ERR Protocol error: invalid multibulk length")
	errBulkLength          = ProtocolError("ERR Protocol error: invalid bulk length")
	errInlineTooBig        = ProtocolError("ERR Protocol error: too big inline request")
	errMultibulkTooBig     = ProtocolError("ERR Protocol error: too big mbulk count string")
	errBulkCountTooBig     = ProtocolError("ERR Protocol error: too big bulk count string")
	errQuotes              = ProtocolError("ERR Protocol error: unbalanced quotes in request")
	errUnauthMultibulk     = ProtocolError("ERR Protocol error: unauthenticated multibulk length")
	errUnauthBulk          = ProtocolError("ERR Protocol error: unauthenticated bulk length")
	errExpectedBulkPattern = "ERR Protocol error: expected '$', got '"
)

// ParseInt reads a whole number the one way Redis lets it be written: an
// optional minus, no plus, no leading zeros, no spaces, nothing after it,
// within 64 bits.
func ParseInt(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	if len(b) == 1 && b[0] == '0' {
		return 0, true
	}
	digits := b
	negative := b[0] == '-'
	if negative {
		digits = b[1:]
	}
	if len(digits) == 0 || digits[0] == '0' {
		return 0, false
	}
	var n uint64
	for _, c := range digits {
		c -= '0'
		if c > 9 || n > math.MaxUint64/10 {
			return 0, false
		}
		next := n*10 + uint64(c)
		if next < n*10 {
			return 0, false
		}
		n = next
	}
	switch {
	case negative && n <= 1<<63:
		return -int64(n), true // 1<<63 wraps to the smallest number, as it should
	case !negative && n <= math.MaxInt64:
		return int64(n), true
	}
	return 0, false
}

// FormatDouble appends f as Redis 7.0 replies with it: 17 significant digits
// without trailing zeros (so 0.1 is 0.10000000000000001), an exponent below
// 1e-4 and from 1e17 on, and inf, -inf, nan.
func FormatDouble(dst []byte, f float64) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(dst, "inf"...)
	case math.IsInf(f, -1):
		return append(dst, "-inf"...)
	case f != f:
		return append(dst, "nan"...)
	}
	if n := int64(f); float64(n) == f && -1e15 < f && f < 1e15 && !(n == 0 && math.Signbit(f)) {
		return strconv.AppendInt(dst, n, 10)
	}
	return strconv.AppendFloat(dst, f, 'g', 17, 64)
}

// AppendCommand appends the request made of args, as a client sends it.
func AppendCommand(dst []byte, args ...string) []byte {
	dst = appendHeader(dst, '*', int64(len(args)))
	for _, arg := range args {
		dst = appendHeader(dst, '$', int64(len(arg)))
		dst = append(dst, arg...)
		dst = append(dst, '\r', '\n')
	}
	return dst
}

// AppendCommandBytes is AppendCommand for arguments that are byte slices.
func AppendCommandBytes(dst []byte, args ...[]byte) []byte {
	dst = appendHeader(dst, '*', int64(len(args)))
	for _, arg := range args {
		dst = appendHeader(dst, '$', int64(len(arg)))
		dst = append(dst, arg...)
		dst = append(dst, '\r', '\n')
	}
	return dst
}

// CommandLen is how many bytes AppendCommandBytes appends.
func CommandLen(args [][]byte) int {
	n := headerLen(len(args))
	for _, arg := range args {
		n += headerLen(len(arg)) + len(arg) + 2
	}
	return n
}

func headerLen(n int) int {
	digits := 1
	for ; n >= 10; n /= 10 {
		digits++
	}
	return 1 + digits + 2
}

// appendHeader appends a type byte, a number and the end of the line.
func appendHeader(dst []byte, kind byte, n int64) []byte {
	if 0 <= n && n < 10 {
		return append(dst, kind, byte('0'+n), '\r', '\n')
	}
	dst = append(dst, kind)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, '\r', '\n')
}
