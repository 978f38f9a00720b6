package resp

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// take plays a stream to a parser that keeps what isn't used, in pieces of a
// size. It tells what came of it and the most bytes that were kept.
func take(t *testing.T, p *Parser, stream []byte, size int) (got []string, kept int) {
	t.Helper()
	var in []byte
	for len(stream) > 0 {
		n := min(size, len(stream))
		in = append(in, stream[:n]...)
		stream = stream[n:]
		for len(in) > 0 {
			argv, n, err := p.Next(in, nil)
			if err != nil {
				return append(got, err.Error()), kept
			}
			if n == 0 {
				break
			}
			in = in[n:]
			switch refused := p.Refused(); {
			case refused > 0:
				got = append(got, fmt.Sprintf("%d bytes refused", refused))
			case len(argv) > 0:
				got = append(got, string(slices.Concat(argv...)))
			}
		}
		kept = max(kept, len(in))
	}
	return got, kept
}

func TestARequestThatIsTooLongIsSwallowedAndWhatFollowsIsRead(t *testing.T) {
	large := AppendCommand(nil, "SET", "k", strings.Repeat("v", 5000))
	many := AppendCommand(nil, slices.Repeat([]string{"x"}, 700)...)
	between := AppendCommand(nil, "MSET", "a", strings.Repeat("v", 900), "b", strings.Repeat("v", 200), "c", "d")
	just := AppendCommand(nil, "SET", "k", strings.Repeat("v", 972))
	if len(just) != 1000 {
		t.Fatalf("the request that just fits has %d bytes", len(just))
	}
	for _, tt := range []struct {
		name   string
		stream []byte
		want   string
	}{
		{"its last argument", large, fmt.Sprintf("%d bytes refused", len(large))},
		{"many small arguments", many, fmt.Sprintf("%d bytes refused", len(many))},
		{"an argument in the middle", between, fmt.Sprintf("%d bytes refused", len(between))},
		{"just fits", just, "SETk" + strings.Repeat("v", 972)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stream := slices.Concat(AppendCommand(nil, "PING"), tt.stream, tt.stream, AppendCommand(nil, "ECHO", "x"))
			want := []string{"PING", tt.want, tt.want, "ECHOx"}
			for _, size := range []int{1, 2, 3, 7, 64, 999, len(stream) - 1} {
				p := Parser{MaxRequest: 1000}
				got, kept := take(t, &p, stream, size)
				if len(tt.stream) > 1000 && size == len(stream)-1 && len(got) == 4 && !strings.Contains(got[1], "refused") {
					continue // it came whole
				}
				if !slices.Equal(got, want) {
					t.Errorf("in pieces of %d: got %.300q, want %.300q", size, got, want)
				}
				if kept > 1000+16 { // with the length line that says so
					t.Errorf("in pieces of %d: %d bytes had to be kept", size, kept)
				}
				if p.Swallowed() != 0 || p.Need() != 0 {
					t.Errorf("in pieces of %d: the parser is left with %d swallowed and needs %d", size, p.Swallowed(), p.Need())
				}
			}
		})
	}
}

func TestWhatIsSwallowedHasToBeARequestToo(t *testing.T) {
	head := "*3\r\n$3\r\nSET\r\n$2000\r\n" + strings.Repeat("v", 2000) + "\r\n"
	for _, tt := range []struct{ name, rest, want string }{
		{"no bulk string", "PING\r\n", "ERR Protocol error: expected '$', got 'P'"},
		{"an impossible length", fmt.Sprintf("$%d\r\n", math.MaxInt32), "ERR Protocol error: invalid bulk length"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, size := range []int{1, 100, 2000} {
				if got, _ := take(t, &Parser{MaxRequest: 1000}, []byte(head+tt.rest), size); !slices.Equal(got, []string{tt.want}) {
					t.Errorf("in pieces of %d: got %q, want %q", size, got, tt.want)
				}
			}
		})
	}
}

func TestAParserThatIsResetForgetsWhatItSwallowed(t *testing.T) {
	p := Parser{MaxRequest: 100}
	if _, n, err := p.Next([]byte("*2\r\n$3\r\nGET\r\n$500\r\nxxx"), nil); n == 0 || err != nil || p.Swallowed() == 0 {
		t.Fatalf("begun: n %d, err %v, swallowed %d", n, err, p.Swallowed())
	}
	p.Reset()
	argv, n, err := p.Next([]byte("*1\r\n$4\r\nPING\r\n"), nil)
	if len(argv) != 1 || n != 14 || err != nil {
		t.Errorf("after a reset: %q, n %d, err %v", argv, n, err)
	}
}
