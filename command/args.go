package command

import (
	"bytes"
	"math"
	"math/big"
	"strconv"
	"time"

	"vecino/resp"
)

// Args reads the arguments of one command, in order. It latches its first
// error: a handler reads all that it needs and asks Err once.
type Args struct {
	row   *Row
	argv  [][]byte
	next  int
	err   error
	block Block

	scratch []float64 // of floats
}

// Start makes a ready to read the arguments of a command that was resolved to
// row. Args are used again and again.
func (a *Args) Start(row *Row, argv [][]byte) {
	a.row, a.argv, a.next, a.err = row, argv, 1, nil
	if row.parent != nil {
		a.next = 2
	}
}

// Err is the first error met.
func (a *Args) Err() error { return a.err }

// Fail latches an error, unless there is one.
func (a *Args) Fail(err error) {
	if a.err == nil {
		a.err = err
	}
}

// Argv is all words of the command, its name included.
func (a *Args) Argv() [][]byte { return a.argv }

// Left is how many arguments have not been read.
func (a *Args) Left() int { return len(a.argv) - a.next }

// More reports whether there are arguments left to read.
func (a *Args) More() bool { return a.next < len(a.argv) && a.err == nil }

// Next reads an argument. Its bytes are the client's: valid until the handler
// returns, and not to be changed.
func (a *Args) Next() []byte {
	if a.next >= len(a.argv) {
		a.Fail(ErrSyntax)
		return nil
	}
	arg := a.argv[a.next]
	a.next++
	return arg
}

// Peek returns the next argument without reading it, nil at the end.
func (a *Args) Peek() []byte {
	if a.next >= len(a.argv) {
		return nil
	}
	return a.argv[a.next]
}

// Back takes the last Next back.
func (a *Args) Back() { a.next-- }

// Rest reads all arguments that are left.
func (a *Args) Rest() [][]byte {
	rest := a.argv[a.next:]
	a.next = len(a.argv)
	return rest
}

// Take reads n arguments.
func (a *Args) Take(n int) [][]byte {
	if n < 0 || n > a.Left() {
		a.Fail(ErrSyntax)
		return nil
	}
	taken := a.argv[a.next : a.next+n]
	a.next += n
	return taken
}

// Pairs reads what is left as pairs: the first of each stands before the second. An
// odd number is an error of arity.
func (a *Args) Pairs() [][]byte {
	rest := a.Rest()
	if len(rest)%2 != 0 {
		a.Fail(wrongArityOf(a.argv[0]))
		return nil
	}
	return rest
}

// Option reads the next argument if it is the given word, in any case; word
// is in capitals.
func (a *Args) Option(word string) bool {
	if a.next < len(a.argv) && a.err == nil && equalFold(a.argv[a.next], word) {
		a.next++
		return true
	}
	return false
}

// Int reads a whole number of 64 bits.
func (a *Args) Int() int64 { return a.IntOr(ErrNotInteger) }

// IntOr is Int with an error of its own for what isn't a number.
func (a *Args) IntOr(wrong error) int64 {
	arg := a.Next()
	if a.err != nil {
		return 0
	}
	n, ok := resp.ParseInt(arg)
	if !ok {
		a.Fail(wrong)
	}
	return n
}

// IntIn is Int for a number between min and max, with wrong for all others.
func (a *Args) IntIn(min, max int64, wrong error) int64 {
	n := a.IntOr(wrong)
	if a.err == nil && (n < min || n > max) {
		a.Fail(wrong)
	}
	return n
}

// Count reads how many of something are wanted: none or more.
func (a *Args) Count() int64 { return a.IntIn(0, math.MaxInt64, ErrNotPositive) }

// SignedCount reads a count whose sign has a meaning of its own. The smallest
// number of 64 bits is refused, since it has no counterpart.
func (a *Args) SignedCount() int64 {
	n := a.Int()
	if a.err == nil && n == math.MinInt64 {
		a.Fail(ErrCountRange)
	}
	return n
}

// Float reads a number that may be infinite, but not NaN.
func (a *Args) Float() float64 { return a.floatOr(ErrNotFloat) }

func (a *Args) floatOr(wrong error) float64 {
	arg := a.Next()
	if a.err != nil {
		return 0
	}
	f, ok := ParseFloat(arg)
	if !ok {
		a.Fail(wrong)
	}
	return f
}

// floats reads every step-th of words as Float does. The slice is valid until
// the next command.
func (a *Args) floats(words [][]byte, step int) []float64 {
	const keep = 1 << 10 // what one huge command grew is not kept for ever
	if cap(a.scratch) > keep {
		a.scratch = nil
	}
	a.scratch = a.scratch[:0]
	for i := 0; i < len(words) && a.err == nil; i += step {
		f, ok := ParseFloat(words[i])
		if !ok {
			a.Fail(ErrNotFloat)
		}
		a.scratch = append(a.scratch, f)
	}
	return a.scratch
}

// ParseFloat reads a number as Redis does, which leaves it to C's strtod:
// decimal or hexadecimal, inf in any case, no spaces, no NaN, nothing that is
// too large or too small.
func ParseFloat(b []byte) (float64, bool) {
	f, err := parseFloat(b)
	return f, err == nil && f == f && !(f == 0 && !isZero(b))
}

// parseFloat is ParseFloat without its judgement: NaN is a number, too large
// is infinite with strconv.ErrRange, and too small is 0.
func parseFloat(b []byte) (float64, error) {
	if len(b) > maxNumber || bytes.IndexByte(b, '_') >= 0 {
		return 0, strconv.ErrSyntax
	}
	if bytes.ContainsAny(b, "xX") && !bytes.ContainsAny(b, "pP") {
		return strconv.ParseFloat(string(b)+"p0", 64) // Go wants the exponent, C doesn't
	}
	return strconv.ParseFloat(string(b), 64)
}

// maxNumber is more than anybody needs to write a number.
const maxNumber = 5 << 10

// isZero reports whether the number that b spells has no digit but 0.
func isZero(b []byte) bool {
	hex := bytes.ContainsAny(b, "xX")
	for _, c := range b {
		switch {
		case c == 'p' || c == 'P' || !hex && (c == 'e' || c == 'E'):
			return true
		case '1' <= c && c <= '9', hex && 'a' <= c|0x20 && c|0x20 <= 'f':
			return false
		}
	}
	return true
}

// Timeout reads a number of seconds, 0 for no limit, as blocking commands
// have it.
func (a *Args) Timeout() time.Duration { return a.timeoutOf(a.Next()) }

// timeoutOf is Timeout for an argument that was read before.
func (a *Args) timeoutOf(arg []byte) time.Duration {
	if a.err != nil {
		return 0
	}
	f, ok := ParseFloat(arg)
	if !ok {
		// Redis reads it as a long double, which may be larger or smaller.
		var wide *big.Float
		if wide, ok = parseLongDouble(arg); !ok {
			a.Fail(ErrTimeoutNotFloat)
			return 0
		}
		if f, _ = wide.Float64(); f == 0 {
			f = math.Copysign(math.SmallestNonzeroFloat64, float64(wide.Sign()))
		}
	}
	// Redis counts in whole milliseconds and never rounds down to "no limit".
	// What doesn't fit in 64 bits is negative there.
	ms := math.Ceil(f * 1000)
	if ms < 0 || ms >= 1<<63 {
		a.Fail(ErrTimeoutNegative)
		return 0
	}
	return time.Duration(min(ms, maxTimeout)) * time.Millisecond
}

// maxTimeout is the longest wait in milliseconds that a time.Duration can
// tell, 292 years.
const maxTimeout = math.MaxInt64 / 1_000_000

// A Block is the error of a command that can't be answered yet. It is run
// again when one of the keys changes, in the order in which commands came to
// wait, until it answers or the time is up.
type Block struct {
	Keys    [][]byte
	Timeout time.Duration // 0: for ever
	// Null is set by commands whose answer is a single value: where waiting
	// isn't possible, inside MULTI, they answer with a null bulk string and
	// not with a null array.
	Null bool
}

func (b *Block) Error() string { return "the command waits for a key" }

// Wait returns the error with which a handler says that it waits for keys.
func (a *Args) Wait(timeout time.Duration, keys [][]byte) error {
	a.block = Block{Keys: keys, Timeout: timeout}
	return &a.block
}

// WaitForValue is Wait for a command that answers with a single value.
func (a *Args) WaitForValue(timeout time.Duration, keys [][]byte) error {
	a.block = Block{Keys: keys, Timeout: timeout, Null: true}
	return &a.block
}

func oneIf(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}
