package resp

import (
	"strconv"
	"strings"
)

// A Value is a reply as a client sees it, of either version.
type Value struct {
	Kind  Kind    // a bulk error has KindError
	Str   string  // of a simple string, error, bulk, verbatim (without its format), big number; the digits of a double
	Int   int64   // of an integer; 1 or 0 of a bool
	Elems []Value // of an array, set or push; of a map the keys and values in turn
	Null  bool    // no value: kind Null, or a bulk or array of length -1
}

// Err is the reply as an error, if it is one.
func (v Value) Err() error {
	if v.Kind == KindError {
		return Error(v.Str)
	}
	return nil
}

// Error is an error reply: its code and text.
type Error string

func (e Error) Error() string { return string(e) }

// Code is the first word: ERR, WRONGTYPE, NOAUTH.
func (e Error) Code() string {
	code, _, _ := strings.Cut(string(e), " ")
	return code
}

// Double is the number of a double, or the number that a string spells.
func (v Value) Double() (float64, error) {
	if v.Kind == KindInt {
		return float64(v.Int), nil
	}
	return strconv.ParseFloat(v.Str, 64)
}

// Strings are the elements' texts: of a list of keys, say.
func (v Value) Strings() []string {
	texts := make([]string, len(v.Elems))
	for i, e := range v.Elems {
		texts[i] = e.Text()
	}
	return texts
}

// Text is the value as redis-cli --raw prints it, for one that is no aggregate.
func (v Value) Text() string {
	switch v.Kind {
	case KindInt:
		return strconv.FormatInt(v.Int, 10)
	case KindBool:
		if v.Int != 0 {
			return "true"
		}
		return "false"
	}
	return v.Str
}

// String is the value as redis-cli prints it on a terminal, without the
// last line break.
func (v Value) String() string {
	return string(v.appendTo(nil, ""))
}

func (v Value) appendTo(dst []byte, prefix string) []byte {
	if v.Null {
		return append(dst, "(nil)"...)
	}
	switch v.Kind {
	case KindError:
		dst = append(dst, "(error) "...)
		return append(dst, v.Str...)
	case KindInt:
		dst = append(dst, "(integer) "...)
		return strconv.AppendInt(dst, v.Int, 10)
	case KindDouble:
		dst = append(dst, "(double) "...)
		return append(dst, v.Str...)
	case KindBool:
		dst = append(dst, '(')
		dst = append(dst, v.Text()...)
		return append(dst, ')')
	case KindBulk:
		return AppendQuoted(dst, v.Str)
	case KindArray, KindMap, KindSet, KindPush:
		return v.appendElems(dst, prefix)
	}
	return append(dst, v.Str...)
}

// appendElems numbers the elements, one a line, indented under the parent's number.
func (v Value) appendElems(dst []byte, prefix string) []byte {
	count, separator := len(v.Elems), byte(')')
	empty := "(empty array)"
	switch v.Kind {
	case KindMap:
		count, separator, empty = count/2, '#', "(empty hash)"
	case KindSet:
		separator, empty = '~', "(empty set)"
	case KindPush:
		empty = "(empty push)"
	}
	if count == 0 {
		return append(dst, empty...)
	}
	width := len(strconv.Itoa(count))
	inner := prefix + strings.Repeat(" ", width+2)
	for i := range count {
		if i > 0 {
			dst = append(dst, '\n')
			dst = append(dst, prefix...)
		}
		number := strconv.Itoa(i + 1)
		dst = append(dst, strings.Repeat(" ", width-len(number))...)
		dst = append(dst, number...)
		dst = append(dst, separator, ' ')
		if v.Kind == KindMap {
			dst = v.Elems[2*i].appendTo(dst, inner)
			dst = append(dst, " => "...)
			dst = v.Elems[2*i+1].appendTo(dst, inner)
			continue
		}
		dst = v.Elems[i].appendTo(dst, inner)
	}
	return dst
}

// AppendQuoted appends s in double quotes, with what isn't printable ASCII
// escaped, as redis-cli and MONITOR show strings.
func AppendQuoted(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		case c == '\a':
			dst = append(dst, `\a`...)
		case c == '\b':
			dst = append(dst, `\b`...)
		case c < ' ' || c > '~':
			dst = append(dst, '\\', 'x', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
