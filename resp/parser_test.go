package resp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// step is one command, or the error that ended the stream.
type step struct {
	args []string
	err  string
}

func (s step) String() string {
	if s.err != "" {
		return s.err
	}
	return fmt.Sprintf("%q", s.args)
}

// feed gives the parser the stream in pieces of the given sizes (the last
// size repeats), each time in fresh memory, and returns what it found and how
// much was left over.
func feed(p *Parser, stream []byte, sizes ...int) (steps []step, left int) {
	var pending []byte
	var argv [][]byte
	for len(stream) > 0 {
		size := min(sizes[0], len(stream))
		if len(sizes) > 1 {
			sizes = sizes[1:]
		}
		pending = append(bytes.Clone(pending), stream[:size]...)
		stream = stream[size:]
		for {
			args, n, err := p.Next(pending, argv)
			if err != nil {
				return append(steps, step{err: err.Error()}), 0
			}
			if n == 0 {
				break
			}
			s := step{args: []string{}}
			for _, a := range args {
				s.args = append(s.args, string(a))
			}
			steps = append(steps, s)
			pending, argv = pending[n:], args
		}
	}
	return steps, len(pending)
}

func whole(p *Parser, stream string) ([]step, int) {
	return feed(p, []byte(stream), len(stream)+1)
}

func TestParserNext(t *testing.T) {
	long := strings.Repeat("x", 70000)
	for _, tt := range []struct {
		name   string
		stream string
		want   string // the steps
		left   int
	}{
		{name: "one command", stream: "*1\r\n$4\r\nPING\r\n", want: `["PING"]`},
		{name: "pipeline", stream: "*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", want: `["PING"] ["GET" "k"]`},
		{name: "any byte in an argument", stream: "*2\r\n$3\r\nGET\r\n$4\r\n\r\n\x00$\r\n", want: `["GET" "\r\n\x00$"]`},
		{name: "empty argument", stream: "*2\r\n$3\r\nGET\r\n$0\r\n\r\n", want: `["GET" ""]`},
		{name: "two digits", stream: "*2\r\n$4\r\nECHO\r\n$12\r\nhello, world\r\n", want: `["ECHO" "hello, world"]`},
		{name: "empty and null arrays ask for nothing", stream: "*0\r\n*-1\r\n*-7\r\n*1\r\n$4\r\nPING\r\n", want: `[] [] [] ["PING"]`},
		{name: "incomplete count", stream: "*2", left: 2},
		{name: "incomplete length", stream: "*1\r\n$4", left: 6},
		{name: "incomplete argument", stream: "*1\r\n$4\r\nPIN", left: 11},
		{name: "end of an argument missing", stream: "*1\r\n$4\r\nPING\r", left: 13},
		{name: "whatever follows a carriage return or an argument", stream: "*1\rx$4\ryPINGab*1\r\n$4\r\nPING\r\n", want: `["PING"] ["PING"]`},

		{name: "count is no number", stream: "*a\r\n", want: "ERR Protocol error: invalid multibulk length"},
		{name: "count is missing", stream: "*\r\n", want: "ERR Protocol error: invalid multibulk length"},
		{name: "count has a leading zero", stream: "*01\r\n", want: "ERR Protocol error: invalid multibulk length"},
		{name: "count is too large", stream: "*2147483648\r\n", want: "ERR Protocol error: invalid multibulk length"},
		{name: "count line is too long", stream: "*" + long, want: "ERR Protocol error: too big mbulk count string"},
		{name: "no dollar", stream: "*1\r\nxyz\r\n", want: "ERR Protocol error: expected '$', got 'x'"},
		{name: "no dollar but an empty line", stream: "*1\r\n\r\n", want: "ERR Protocol error: expected '$', got ' '"},
		{name: "error in a later argument", stream: "*2\r\n$3\r\nGET\r\n:1\r\n", want: "ERR Protocol error: expected '$', got ':'"},
		{name: "length is no number", stream: "*1\r\n$x\r\n", want: "ERR Protocol error: invalid bulk length"},
		{name: "length has a leading zero", stream: "*1\r\n$04\r\nPING\r\n", want: "ERR Protocol error: invalid bulk length"},
		{name: "length is negative", stream: "*1\r\n$-1\r\n", want: "ERR Protocol error: invalid bulk length"},
		{name: "length is too large", stream: "*1\r\n$536870913\r\n", want: "ERR Protocol error: invalid bulk length"},
		{name: "length as large as may be", stream: "*1\r\n$536870912\r\n", left: 16},
		{name: "length line is too long", stream: "*1\r\n$" + long, want: "ERR Protocol error: too big bulk count string"},

		{name: "inline", stream: "SET  key\tvalue\r\nPING\n", want: `["SET" "key" "value"] ["PING"]`},
		{name: "inline, empty lines", stream: "\r\n\n  \r\nPING\r\n", want: `[] [] [] ["PING"]`},
		{name: "inline, double quotes", stream: `SET "a b\n\x41\q" "" x"y"` + "\r\n", want: `["SET" "a b\nAq" "" "xy"]`},
		{name: "inline, half an escape", stream: `ECHO "\x4"` + "\n", want: `["ECHO" "x4"]`},
		{name: "inline, single quotes", stream: `ECHO 'it\'s \n'` + "\n", want: `["ECHO" "it's \\n"]`},
		{name: "inline, open quote", stream: `ECHO "a` + "\n", want: "ERR Protocol error: unbalanced quotes in request"},
		{name: "inline, quote and then no space", stream: `ECHO "a"b` + "\n", want: "ERR Protocol error: unbalanced quotes in request"},
		{name: "inline, incomplete", stream: "PING", left: 4},
		{name: "inline, too long", stream: long, want: "ERR Protocol error: too big inline request"},
		{name: "inline, too long though it has an end", stream: long + "\n", want: "ERR Protocol error: too big inline request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, size := range []int{len(tt.stream), 1, 7} {
				if size != len(tt.stream) && len(tt.stream) > 1000 {
					size *= 1000
				}
				steps, left := feed(new(Parser), []byte(tt.stream), size)
				var got []string
				for _, s := range steps {
					got = append(got, s.String())
				}
				if strings.Join(got, " ") != tt.want || left != tt.left {
					t.Errorf("in pieces of %d: got %s and %d bytes left, want %s and %d", size, strings.Join(got, " "), left, tt.want, tt.left)
				}
			}
		})
	}
}

func TestParserLimits(t *testing.T) {
	bulk := func(n int) string { return "$" + strconv.Itoa(n) + "\r\n" + strings.Repeat("x", n) + "\r\n" }
	many := func(n int) string { return "*" + strconv.Itoa(n) + "\r\n" + strings.Repeat("$1\r\nx\r\n", n) }
	for _, tt := range []struct {
		name   string
		parser Parser
		stream string
		want   string // the error
	}{
		{name: "a stranger's ten arguments", parser: Parser{Unauthenticated: true}, stream: many(10)},
		{name: "a stranger's eleven", parser: Parser{Unauthenticated: true}, stream: many(11), want: string(errUnauthMultibulk)},
		{name: "a stranger's argument of 16 KiB", parser: Parser{Unauthenticated: true}, stream: "*1\r\n" + bulk(16384)},
		{name: "a stranger's argument of more", parser: Parser{Unauthenticated: true}, stream: "*1\r\n" + bulk(16385), want: string(errUnauthBulk)},
		{name: "a stranger's impossible argument", parser: Parser{Unauthenticated: true}, stream: "*1\r\n$536870913\r\n", want: string(errBulkLength)},
		{name: "a stranger's impossible count", parser: Parser{Unauthenticated: true}, stream: "*2147483648\r\n", want: string(errMultibulkLength)},
		{name: "eleven of a known client", stream: many(11)},
		{name: "a million arguments", stream: many(1 << 20)},
		{name: "own limit of arguments", parser: Parser{MaxMultibulk: 3}, stream: many(4), want: string(errMultibulkLength)},
		{name: "own limit of an argument", parser: Parser{MaxBulk: 3}, stream: "*1\r\n" + bulk(4), want: string(errBulkLength)},
		{name: "within both", parser: Parser{MaxMultibulk: 3, MaxBulk: 3}, stream: "*3\r\n" + bulk(3) + bulk(2) + bulk(3)},
		{name: "own limit of a line", parser: Parser{MaxInline: 3}, stream: "PING\r\n", want: string(errInlineTooBig)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := tt.parser
			steps, left := whole(&p, tt.stream)
			if left != 0 || len(steps) != 1 || steps[0].err != tt.want {
				t.Errorf("got %.200v and %d bytes left, want error %q", steps, left, tt.want)
			}
		})
	}
}

func TestParserTellsHowMuchACommandNeeds(t *testing.T) {
	command := AppendCommand(nil, "SET", "key", strings.Repeat("v", 100000))
	var p Parser
	if p.Need() != 0 {
		t.Errorf("between commands: need %d, want 0", p.Need())
	}
	if _, n, err := p.Next(command[:40], nil); n != 0 || err != nil {
		t.Fatalf("incomplete command: n %d, err %v", n, err)
	}
	if p.Need() != len(command) {
		t.Errorf("with the last length read: need %d, want %d", p.Need(), len(command))
	}
	if _, n, err := p.Next(command, nil); n != len(command) || err != nil {
		t.Errorf("complete: n %d, err %v", n, err)
	}
	if p.Need() != 0 {
		t.Errorf("after the command: need %d, want 0", p.Need())
	}
}

func TestParserForgetsOnReset(t *testing.T) {
	var p Parser
	if _, n, err := p.Next([]byte("*2\r\n$3\r\nGET\r\n$9\r\nabc"), nil); n != 0 || err != nil {
		t.Fatalf("incomplete command: n %d, err %v", n, err)
	}
	p.Reset()
	if steps, left := whole(&p, "*1\r\n$4\r\nPING\r\n"); len(steps) != 1 || left != 0 || steps[0].String() != `["PING"]` {
		t.Errorf("after Reset: %v and %d left", steps, left)
	}
}

// A command that comes in n pieces must not be parsed n times over. Counting
// what is looked at shows it: the parser never goes back before pos.
func TestParserDoesNotStartAgain(t *testing.T) {
	const args = 1000
	command := AppendCommand(nil, strings.Fields(strings.Repeat("word ", args))...)
	var p Parser
	found := 0
	for end := 1; end <= len(command); end++ {
		if end < len(command) {
			copy(command[:p.pos], bytes.Repeat([]byte{'?'}, p.pos)) // it has no business there
			if p.pos > 0 {
				command[0] = '*'
			}
		}
		got, n, err := p.Next(command[:end], nil)
		if err != nil {
			t.Fatalf("at %d: %v", end, err)
		}
		if n > 0 {
			found = len(got)
		}
	}
	if found != args {
		t.Errorf("found %d arguments, want %d", found, args)
	}
}

func TestParserAllocatesNothing(t *testing.T) {
	stream := AppendCommand(nil, "SET", "key:000000000001", "a value of some length")
	half := len(stream) / 2
	var p Parser
	argv := make([][]byte, 0, 8)
	if allocs := testing.AllocsPerRun(100, func() {
		argv, _, _ = p.Next(stream, argv)
	}); allocs != 0 {
		t.Errorf("whole command: %v allocations", allocs)
	}
	if allocs := testing.AllocsPerRun(100, func() {
		argv, _, _ = p.Next(stream[:half], argv)
		argv, _, _ = p.Next(stream, argv)
	}); allocs != 0 {
		t.Errorf("command in two pieces: %v allocations", allocs)
	}
}

func TestParseInt(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want int64
		ok   bool
	}{
		{"0", 0, true}, {"1", 1, true}, {"-1", -1, true}, {"1234567890", 1234567890, true},
		{"9223372036854775807", 1<<63 - 1, true}, {"-9223372036854775808", -1 << 63, true},
		{"9223372036854775808", 0, false}, {"-9223372036854775809", 0, false},
		{"18446744073709551615", 0, false}, {"18446744073709551616", 0, false}, {"99999999999999999999", 0, false},
		{"", 0, false}, {"-", 0, false}, {"+1", 0, false}, {"01", 0, false}, {"-0", 0, false}, {"-01", 0, false},
		{" 1", 0, false}, {"1 ", 0, false}, {"1.0", 0, false}, {"a", 0, false}, {"100000000000000000000", 0, false},
	} {
		if got, ok := ParseInt([]byte(tt.in)); got != tt.want || ok != tt.ok {
			t.Errorf("ParseInt(%q) = %d, %v, want %d, %v", tt.in, got, ok, tt.want, tt.ok)
		}
	}
}

func FuzzParser(f *testing.F) {
	for _, s := range []string{
		"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n", "SET \"a b\" 'c'\r\nPING\r\n", "*-1\r\n*0\r\n\r\n",
		"*1\r\n$99999999\r\n", "*12\r\n$12\r\nhello, world\r\n", "*1\rx$4\ryPINGab",
	} {
		f.Add([]byte(s), uint64(1), false)
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64, stranger bool) {
		parser := Parser{Unauthenticated: stranger, MaxInline: 50, MaxBulk: 1 << 20}
		one, rest := parser, parser
		want, wantLeft := feed(&one, stream, len(stream)+1)
		rng := rand.New(rand.NewPCG(seed, 1))
		sizes := make([]int, len(stream)+1)
		for i := range sizes {
			sizes[i] = 1 + rng.IntN(8)
		}
		got, left := feed(&rest, stream, sizes...)
		if fmt.Sprint(got) != fmt.Sprint(want) || left != wantLeft {
			t.Errorf("in pieces %v and %d left, whole %v and %d left", got, left, want, wantLeft)
		}
	})
}

func BenchmarkParser(b *testing.B) {
	for _, bb := range []struct {
		name string
		args []string
	}{
		{"GET", []string{"GET", "key:000000000001"}},
		{"SET", []string{"SET", "key:000000000001", "xxx"}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			stream := AppendCommand(nil, bb.args...)
			var p Parser
			argv := make([][]byte, 0, 8)
			b.ReportAllocs()
			for b.Loop() {
				argv, _, _ = p.Next(stream, argv)
			}
		})
	}
}
