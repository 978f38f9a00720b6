package resp

// A Writer appends replies to Buf. Its methods never fail and never
// allocate beyond Buf's growth; sending Buf is the caller's business. The zero
// value speaks version 2.
//
// After an aggregate's header (Array, Map, Set, Push) the caller writes that
// many elements; the Writer doesn't count.
type Writer struct {
	Buf   []byte
	Proto int // 2 or 3, as agreed by HELLO
}

// Kind is the type of an aggregate, or of a Value: the byte that starts it on the wire.
type Kind byte

const (
	KindSimple    Kind = '+'
	KindError     Kind = '-'
	KindInt       Kind = ':'
	KindBulk      Kind = '$'
	KindArray     Kind = '*'
	KindNull      Kind = '_'
	KindDouble    Kind = ','
	KindBool      Kind = '#'
	KindBigNumber Kind = '('
	KindVerbatim  Kind = '='
	KindMap       Kind = '%'
	KindSet       Kind = '~'
	KindPush      Kind = '>'
)

// OK is the reply +OK.
func (w *Writer) OK() { w.Buf = append(w.Buf, "+OK\r\n"...) }

// Simple is a status; s has no line breaks.
func (w *Writer) Simple(s string) {
	w.Buf = append(w.Buf, '+')
	w.Buf = append(w.Buf, s...)
	w.Buf = append(w.Buf, '\r', '\n')
}

// Error is an error, its code included: "ERR no such key". Line breaks in s
// become spaces, as it may quote what the client sent.
func (w *Writer) Error(s string) {
	w.Buf = append(w.Buf, '-')
	start := len(w.Buf)
	w.Buf = append(w.Buf, s...)
	for i, c := range w.Buf[start:] {
		if c == '\r' || c == '\n' {
			w.Buf[start+i] = ' '
		}
	}
	w.Buf = append(w.Buf, '\r', '\n')
}

// Int is a whole number.
func (w *Writer) Int(n int64) { w.Buf = appendHeader(w.Buf, ':', n) }

const (
	// bulkFrame is more than what stands around the bytes of a bulk string.
	bulkFrame = 32
	// piece is how much of a reply is moved at a time.
	piece = 256 << 10
)

// room sees to it that n more bytes fit behind a long reply. Behind a short one append
// does it.
func (w *Writer) room(n int) {
	if len(w.Buf) >= piece && cap(w.Buf)-len(w.Buf) < n {
		w.grow(n)
	}
}

func (w *Writer) grow(n int) {
	was := w.Buf
	w.Buf = make([]byte, len(was), len(was)+len(was)/2+n)
	for at := 0; at < len(was); at += piece {
		move(w.Buf[at:], was[at:min(at+piece, len(was))])
	}
}

// move copies a piece. While bytes are being copied Go can't stop a goroutine, and a
// collector that wants to, to look at its stack, waits and sends it signals; whoever needs
// memory meanwhile waits for the collector. To move 64 MiB into fresh memory at once has
// held up a neighbour for a second. A function that isn't inlined can be stopped where it begins.
//
//go:noinline
func move(dst, src []byte) { copy(dst, src) }

// Bulk is a string of any bytes. A nil b is the empty string; see Null.
func (w *Writer) Bulk(b []byte) {
	w.room(len(b) + bulkFrame)
	buf := appendHeader(w.Buf, '$', int64(len(b)))
	buf = append(buf, b...)
	w.Buf = append(buf, '\r', '\n')
}

// BulkString is Bulk of a string.
func (w *Writer) BulkString(s string) {
	w.room(len(s) + bulkFrame)
	buf := appendHeader(w.Buf, '$', int64(len(s)))
	buf = append(buf, s...)
	w.Buf = append(buf, '\r', '\n')
}

// Null is the absence of a value: in version 2 a bulk string of length -1.
func (w *Writer) Null() {
	if w.Proto >= 3 {
		w.Buf = append(w.Buf, "_\r\n"...)
		return
	}
	w.Buf = append(w.Buf, "$-1\r\n"...)
}

// NullArray is the absence of an array: in version 2 an array of length -1,
// in version 3 the same as Null.
func (w *Writer) NullArray() {
	if w.Proto >= 3 {
		w.Buf = append(w.Buf, "_\r\n"...)
		return
	}
	w.Buf = append(w.Buf, "*-1\r\n"...)
}

// Array starts an array of n elements.
func (w *Writer) Array(n int) { w.Buf = appendHeader(w.Buf, '*', int64(n)) }

// Map starts a map of n pairs: in version 2 an array of 2n elements.
func (w *Writer) Map(n int) {
	kind, n := w.onWire(KindMap, n)
	w.Buf = appendHeader(w.Buf, kind, int64(n))
}

// Set starts a set of n elements: in version 2 an array.
func (w *Writer) Set(n int) {
	kind, n := w.onWire(KindSet, n)
	w.Buf = appendHeader(w.Buf, kind, int64(n))
}

// Push starts a message that answers no request: in version 2 an array.
func (w *Writer) Push(n int) {
	kind, n := w.onWire(KindPush, n)
	w.Buf = appendHeader(w.Buf, kind, int64(n))
}

// onWire is the header that an aggregate has in the protocol spoken.
func (w *Writer) onWire(kind Kind, n int) (byte, int) {
	if w.Proto >= 3 {
		return byte(kind), n
	}
	if kind == KindMap {
		n *= 2
	}
	return byte(KindArray), n
}

// Double is a number as FormatDouble has it: in version 2 a bulk string.
func (w *Writer) Double(f float64) {
	if w.Proto >= 3 {
		w.Buf = append(w.Buf, ',')
		w.Buf = FormatDouble(w.Buf, f)
		w.Buf = append(w.Buf, '\r', '\n')
		return
	}
	var scratch [32]byte
	w.Bulk(FormatDouble(scratch[:0], f))
}

// Bool is true or false: in version 2 the integer 1 or 0.
func (w *Writer) Bool(b bool) {
	switch {
	case w.Proto >= 3 && b:
		w.Buf = append(w.Buf, "#t\r\n"...)
	case w.Proto >= 3:
		w.Buf = append(w.Buf, "#f\r\n"...)
	case b:
		w.Buf = append(w.Buf, ":1\r\n"...)
	default:
		w.Buf = append(w.Buf, ":0\r\n"...)
	}
}

// BigNumber is a whole number of any size in decimal: in version 2 a bulk string.
func (w *Writer) BigNumber(s string) {
	if w.Proto < 3 {
		w.BulkString(s)
		return
	}
	w.Buf = append(w.Buf, '(')
	w.Buf = append(w.Buf, s...)
	w.Buf = append(w.Buf, '\r', '\n')
}

// Verbatim is text to be shown as it is, with a format of three letters
// ("txt", "mkd"): in version 2 a bulk string without the format.
func (w *Writer) Verbatim(format, text string) {
	if w.Proto < 3 {
		w.BulkString(text)
		return
	}
	w.Buf = appendHeader(w.Buf, '=', int64(len(format)+1+len(text)))
	w.Buf = append(w.Buf, format...)
	w.Buf = append(w.Buf, ':')
	w.Buf = append(w.Buf, text...)
	w.Buf = append(w.Buf, '\r', '\n')
}

// Raw appends a reply that is already in the wire format.
func (w *Writer) Raw(b []byte) { w.Buf = append(w.Buf, b...) }

// Defer leaves room for the header of an aggregate whose length isn't known
// yet. Close with the returned mark, once the elements are written, fills it
// in. Deferred aggregates may be nested; the inner one is closed first.
func (w *Writer) Defer() (mark int) {
	mark = len(w.Buf)
	w.Buf = append(w.Buf, "*0\r\n"...)
	return mark
}

// Close writes the header left open by Defer: n elements of an array, set or
// push, or n pairs of a map. The elements move up if the number needs more
// than the one digit that Defer left room for.
func (w *Writer) Close(mark, n int, kind Kind) {
	const reserved = len("*0\r\n")
	wire, n := w.onWire(kind, n)
	var scratch [24]byte
	header := appendHeader(scratch[:0], wire, int64(n))
	if extra := len(header) - reserved; extra > 0 {
		end := len(w.Buf)
		w.room(extra)
		w.Buf = append(w.Buf, header[:extra]...) // only to grow it
		for end > mark+reserved {
			from := max(end-piece, mark+reserved)
			move(w.Buf[from+extra:], w.Buf[from:end])
			end = from
		}
	}
	copy(w.Buf[mark:], header)
}

// Cancel takes away a deferred aggregate and what was written into it.
func (w *Writer) Cancel(mark int) { w.Buf = w.Buf[:mark] }
