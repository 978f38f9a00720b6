package resp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// Bounds on a reply, so that a confused or hostile server can't take all of
// the client's memory or stack.
const (
	maxReplyDepth = 128       // aggregates in aggregates
	maxReplyElems = 1 << 24   // elements of one aggregate
	maxReplyBulk  = 512 << 20 // as long as a value may be
	maxReplyLine  = 64 << 10  // a status, an error or a number

	// What is set aside on the word of a length alone. The rest is, as it comes.
	replyElemsAhead = 1 << 10
	replyBulkAhead  = 1 << 20
)

// ErrReply is wrapped by a Reader's error when what it read is no reply. The
// stream can't be read any further.
var ErrReply = errors.New("malformed reply")

// A Reader reads replies from a stream. It reads ahead.
type Reader struct {
	r *bufio.Reader
}

// NewReader reads from r.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 16<<10)}
}

// Read returns the next value, of any type of version 2 or 3. Pushes are
// values too; attributes are dropped. An error reply is a Value and not an
// error. io.EOF is returned only between values.
func (r *Reader) Read() (Value, error) {
	if _, err := r.r.Peek(1); err != nil {
		return Value{}, err
	}
	v, err := r.value(0)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return v, err
}

// Buffered is how many bytes have been read ahead and not returned as values.
func (r *Reader) Buffered() int { return r.r.Buffered() }

func (r *Reader) value(depth int) (Value, error) {
	if depth > maxReplyDepth {
		return Value{}, malformed("nested more than %d deep", maxReplyDepth)
	}
	line, err := r.line()
	if err != nil {
		return Value{}, err
	}
	if len(line) == 0 {
		return Value{}, malformed("empty line")
	}
	kind, rest := Kind(line[0]), line[1:]
	switch kind {
	case KindSimple, KindError, KindBigNumber:
		return Value{Kind: kind, Str: string(rest)}, nil
	case KindDouble:
		v := Value{Kind: kind, Str: string(rest)}
		if _, err := v.Double(); err != nil {
			return Value{}, malformed("double %q", v.Str)
		}
		return v, nil
	case KindInt:
		n, ok := ParseInt(rest)
		if !ok {
			return Value{}, malformed("integer %q", rest)
		}
		return Value{Kind: kind, Int: n}, nil
	case KindBool:
		switch string(rest) {
		case "t":
			return Value{Kind: kind, Int: 1}, nil
		case "f":
			return Value{Kind: kind}, nil
		}
		return Value{}, malformed("bool %q", rest)
	case KindNull:
		if len(rest) != 0 {
			return Value{}, malformed("null %q", rest)
		}
		return Value{Kind: kind, Null: true}, nil
	case KindBulk, KindVerbatim, '!':
		return r.bulk(kind, rest)
	case KindArray, KindSet, KindPush, KindMap, '|':
		return r.aggregate(kind, rest, depth)
	}
	return Value{}, malformed("type %q", byte(kind))
}

func (r *Reader) bulk(kind Kind, length []byte) (Value, error) {
	n, ok := ParseInt(length)
	if ok && n == -1 && kind == KindBulk {
		return Value{Kind: kind, Null: true}, nil
	}
	if !ok || n < 0 || n > maxReplyBulk {
		return Value{}, malformed("length %q", length)
	}
	text, err := r.bytes(int(n) + 2)
	if err != nil {
		return Value{}, err
	}
	if text[n] != '\r' || text[n+1] != '\n' {
		return Value{}, malformed("a string goes on after its %d bytes", n)
	}
	text = text[:n]
	switch kind {
	case KindVerbatim:
		if len(text) < 4 || text[3] != ':' {
			return Value{}, malformed("verbatim string without a format")
		}
		text = text[4:]
	case '!':
		kind = KindError
	}
	return Value{Kind: kind, Str: string(text)}, nil
}

// bytes reads n bytes, setting memory aside for them as they come.
func (r *Reader) bytes(n int) ([]byte, error) {
	b := make([]byte, 0, min(n, replyBulkAhead))
	for len(b) < n {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		piece := b[len(b):min(cap(b), n)]
		if _, err := io.ReadFull(r.r, piece); err != nil {
			return nil, err
		}
		b = b[:len(b)+len(piece)]
	}
	return b, nil
}

func (r *Reader) aggregate(kind Kind, length []byte, depth int) (Value, error) {
	n, ok := ParseInt(length)
	if ok && n == -1 && kind == KindArray {
		return Value{Kind: kind, Null: true}, nil
	}
	if !ok || n < 0 || n > maxReplyElems {
		return Value{}, malformed("length %q", length)
	}
	if kind == KindMap || kind == '|' {
		n *= 2
	}
	elems := make([]Value, 0, min(n, replyElemsAhead))
	for range n {
		elem, err := r.value(depth + 1)
		if err != nil {
			return Value{}, err
		}
		elems = append(elems, elem)
	}
	if kind == '|' { // an attribute speaks of the value behind it
		return r.value(depth + 1)
	}
	return Value{Kind: kind, Elems: elems}, nil
}

// line reads up to the end of the line, which it leaves out. The bytes are
// good until the next read.
func (r *Reader) line() ([]byte, error) {
	line, err := r.r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		long := append([]byte{}, line...)
		for err == bufio.ErrBufferFull {
			if len(long) > maxReplyLine {
				return nil, malformed("a line of more than %d bytes", maxReplyLine)
			}
			line, err = r.r.ReadSlice('\n')
			long = append(long, line...)
		}
		line = long
	}
	if err != nil {
		return nil, err
	}
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return nil, malformed("a line ends without a carriage return")
	}
	return line[:len(line)-2], nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrReply, fmt.Sprintf(format, args...))
}
