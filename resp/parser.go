package resp

import "bytes"

// A Parser finds commands in a stream of bytes. The zero value is ready and
// has Redis's limits. It keeps no bytes: the caller does, and offers what has
// come so far until the command at its head is complete.
type Parser struct {
	MaxBulk      int // longest argument; 0 is DefaultMaxBulk
	MaxMultibulk int // most arguments; 0 is DefaultMaxMultibulk
	MaxInline    int // longest inline command or length line; 0 is DefaultMaxInline

	// Unauthenticated is set while the client has yet to give its password.
	// It may then send 10 arguments of 16 KiB, so that a stranger can't make
	// the server keep much for it.
	Unauthenticated bool

	// MaxRequest is the longest request in bytes, as it is on the wire; 0 is no
	// limit. A longer one isn't gathered but swallowed as it comes; see Next.
	MaxRequest int

	// The rest is where the parser was in an incomplete command. It is all
	// zero between commands, and while all commands come whole.
	pos     int    // start of the line or of the bulk string it waits for
	args    int    // arguments still to come, the one at pos included
	bulk    int    // length of the bulk string at pos, plus one; 0 while it waits for its length line
	scanned int    // an inline command or length line has no end before this
	spans   []span // the arguments found

	// Of a request that is being swallowed. args counts as above.
	swallowed int64 // how much of it Next has let go; 0 while none is
	payload   int   // bytes of the bulk string it is in, still to come; 0 at a length line
	refused   int64 // the length of one that has come to its end; see Refused
}

// span is an argument as offsets, which stay right when the caller moves the bytes.
type span struct{ start, end int }

// spansKept is how many spans a Parser holds on to for its next long command.
const spansKept = 64

// Next finds the command at the head of buf. It returns its arguments,
// which alias buf and are appended to argv[:0], and its length n.
//
//   - n > 0: a command. Without arguments (an empty line, an empty array) it
//     is to be skipped without a reply.
//   - n == 0 and err == nil: incomplete. Call again with the same bytes and
//     more behind them; they may have moved. What has been parsed is not parsed
//     again, so a command that comes in many pieces costs no more than one that
//     comes whole.
//   - err is a ProtocolError: answer with it and close.
//
// Of a request that is longer than MaxRequest, and that isn't all in buf, Next
// returns what there is as a command without arguments, piece by piece, so
// that nobody has to keep it. With the last piece Refused tells its length.
//
// An argument of an inline command that had quotes is a copy and doesn't alias buf.
func (p *Parser) Next(buf []byte, argv [][]byte) (args [][]byte, n int, err error) {
	argv = argv[:0]
	if len(buf) == 0 {
		return argv, 0, nil
	}
	if p.swallowed > 0 {
		return p.swallow(buf, argv)
	}
	if buf[0] != '*' {
		return p.inline(buf, argv)
	}
	if p.pos == 0 {
		if args, n = p.whole(buf, argv); n > 0 {
			p.scanned = 0
			return args, n, nil
		}
	}
	return p.pieces(buf, argv)
}

// Reset forgets an incomplete command.
func (p *Parser) Reset() {
	p.pos, p.args, p.bulk, p.scanned = 0, 0, 0, 0
	p.swallowed, p.payload = 0, 0
	if cap(p.spans) > spansKept {
		p.spans = nil
	}
	p.spans = p.spans[:0]
}

// Need is how many bytes the incomplete command has at least, as far as that
// is known, and 0 when nothing is. It is exact when the argument now coming in
// is the last one, so a caller can make room for it once.
func (p *Parser) Need() int {
	if p.bulk == 0 {
		return 0
	}
	return p.pos + p.bulk - 1 + 2
}

// whole is the fast path: a command in the usual form that is all there.
// It returns n == 0 for everything else, and pieces sorts out what it is.
func (p *Parser) whole(buf []byte, argv [][]byte) (_ [][]byte, n int) {
	maxBulk := p.maxBulk()
	count, i := usualLength(buf, 1)
	if i == 0 || count == 0 || count > p.maxMultibulk() {
		return argv, 0
	}
	for ; count > 0; count-- {
		if i+4 > len(buf) || buf[i] != '$' {
			return argv, 0
		}
		var size int
		// One digit is by far the most usual; calling nothing for it is worth it.
		if d := buf[i+1] - '0'; d <= 9 && buf[i+2] == '\r' {
			size, i = int(d), i+4
		} else {
			size, i = usualLength(buf, i+1)
		}
		if i == 0 || size > maxBulk {
			return argv, 0
		}
		end := i + size
		if end+2 > len(buf) {
			return argv, 0
		}
		argv = append(argv, buf[i:end:end])
		i = end + 2
	}
	return argv, i
}

// usualLength reads a length without sign or leading zeros at buf[i:] and
// skips the end of its line; next is 0 when it is anything else or isn't all there.
func usualLength(buf []byte, i int) (n, next int) {
	const mostDigits = 9
	start := i
	for ; i < len(buf); i++ {
		d := buf[i] - '0'
		if d > 9 {
			break
		}
		n = n*10 + int(d)
	}
	digits := i - start
	if digits == 0 || digits > mostDigits || (buf[start] == '0' && digits > 1) || i+2 > len(buf) || buf[i] != '\r' {
		return 0, 0
	}
	return n, i + 2
}

// pieces parses a command in any form from where it was left, noting what
// it finds as offsets.
func (p *Parser) pieces(buf []byte, argv [][]byte) ([][]byte, int, error) {
	if p.pos == 0 {
		line, next, err := p.line(buf, 0, errMultibulkTooBig)
		if err != nil || next == 0 {
			return argv, 0, err
		}
		n, ok := ParseInt(line[1:])
		switch {
		case !ok || n > int64(p.maxMultibulk()):
			if ok && p.Unauthenticated && n > unauthenticatedMultibulk && n <= DefaultMaxMultibulk {
				return argv, 0, errUnauthMultibulk
			}
			return argv, 0, errMultibulkLength
		case n <= 0:
			p.Reset()
			return argv, next, nil
		}
		p.pos, p.args = next, int(n)
	}
	for p.args > 0 {
		if p.bulk == 0 {
			line, next, err := p.line(buf, p.pos, errBulkCountTooBig)
			if err != nil || next == 0 {
				return argv, 0, err
			}
			n, err := p.bulkLength(line, buf[p.pos])
			if err != nil {
				return argv, 0, err
			}
			p.pos, p.bulk = next, n+1
			if p.MaxRequest > 0 && p.Need() > p.MaxRequest {
				return p.refuse(buf, argv)
			}
		}
		end := p.pos + p.bulk - 1
		if end+2 > len(buf) {
			return argv, 0, nil
		}
		p.spans = append(p.spans, span{p.pos, end})
		p.pos, p.bulk = end+2, 0
		p.args--
	}
	for _, s := range p.spans {
		argv = append(argv, buf[s.start:s.end:s.end])
	}
	n := p.pos
	p.Reset()
	return argv, n, nil
}

// bulkLength reads the length line of a bulk string, which starts with first.
func (p *Parser) bulkLength(line []byte, first byte) (int, error) {
	if first != '$' {
		return 0, expectedBulk(first)
	}
	n, ok := ParseInt(line[1:])
	if !ok || n < 0 || n > int64(p.maxBulk()) {
		if ok && p.Unauthenticated && n > unauthenticatedBulk && n <= int64(limit(p.MaxBulk, DefaultMaxBulk)) {
			return 0, errUnauthBulk
		}
		return 0, errBulkLength
	}
	return int(n), nil
}

// line finds the line that starts at buf[start:]: without its end, and where
// the next one starts. As in Redis it ends at a carriage return, and whatever
// byte comes after that is taken for the line feed. next is 0 when it isn't all there.
func (p *Parser) line(buf []byte, start int, tooBig ProtocolError) (line []byte, next int, err error) {
	from := max(start, p.scanned)
	end := bytes.IndexByte(buf[from:], '\r')
	if end < 0 {
		p.scanned = len(buf)
		end = len(buf)
	} else {
		end += from
		p.scanned = end
	}
	if end-start > limit(p.MaxInline, DefaultMaxInline) {
		return nil, 0, tooBig
	}
	if end+2 > len(buf) {
		return nil, 0, nil
	}
	return buf[start:end], end + 2, nil
}

func expectedBulk(got byte) ProtocolError {
	if got == '\r' || got == '\n' {
		got = ' ' // an error reply is one line
	}
	return ProtocolError(errExpectedBulkPattern + string([]byte{got}) + "'")
}

func (p *Parser) maxBulk() int {
	if p.Unauthenticated {
		return min(unauthenticatedBulk, limit(p.MaxBulk, DefaultMaxBulk))
	}
	return limit(p.MaxBulk, DefaultMaxBulk)
}

func (p *Parser) maxMultibulk() int {
	if p.Unauthenticated {
		return min(unauthenticatedMultibulk, limit(p.MaxMultibulk, DefaultMaxMultibulk))
	}
	return limit(p.MaxMultibulk, DefaultMaxMultibulk)
}

func limit(set, otherwise int) int {
	if set > 0 {
		return set
	}
	return otherwise
}
