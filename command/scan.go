package command

import (
	"strconv"

	"vecino/internal/glob"
	"vecino/resp"
)

// Scan is what SCAN, HSCAN, SSCAN and ZSCAN are asked for beside the cursor.
type Scan struct {
	Count   int    // about how many elements to look at
	Pattern []byte // nil: all
	Type    []byte // SCAN alone: the name of a type, nil for all
}

// Cursor reads the cursor of a scan.
func (a *Args) Cursor() uint64 {
	arg := a.Next()
	if a.err != nil {
		return 0
	}
	// Redis reads it with strtoul, for which nothing at all is 0 and which
	// counts negative numbers down from the largest.
	if len(arg) == 0 {
		return 0
	}
	digits, negative := arg, arg[0] == '-'
	if negative || arg[0] == '+' {
		digits = arg[1:]
	}
	n, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil {
		a.Fail(ErrCursor)
	}
	if negative {
		return -n
	}
	return n
}

// Scan reads the options of a scan up to the end. TYPE is one of them if
// typed.
func (a *Args) Scan(typed bool) Scan {
	s := Scan{Count: 10}
	for a.More() {
		switch {
		case a.Left() < 2:
			a.Fail(ErrSyntax)
		case a.Option("COUNT"):
			n := a.Int()
			if n < 1 {
				a.Fail(ErrSyntax)
			}
			s.Count = int(min(n, 1<<30))
		case a.Option("MATCH"):
			s.Pattern = a.Next()
			if string(s.Pattern) == "*" {
				s.Pattern = nil
			}
		case typed && a.Option("TYPE"):
			s.Type = a.Next()
		default:
			a.Fail(ErrSyntax)
		}
	}
	return s
}

// Matches reports whether an element's name is one that is asked for.
func (s *Scan) Matches(name []byte) bool {
	return s.Pattern == nil || glob.Match(s.Pattern, name)
}

// scanReply writes the reply of a scan. The cursor stands before the elements
// but is known after them, so they are written aside first.
func scanReply(out *resp.Writer, scan func(elements *resp.Writer) (next uint64, n int)) {
	elements := resp.Writer{Proto: out.Proto}
	next, n := scan(&elements)
	out.Array(2)
	var digits [20]byte
	out.Bulk(strconv.AppendUint(digits[:0], next, 10))
	out.Array(n)
	out.Raw(elements.Buf)
}

// emptyScan is the reply of a scan of a key that isn't there. Redis gives it
// without a look at the options.
func emptyScan(out *resp.Writer) {
	out.Array(2)
	out.BulkString("0")
	out.Array(0)
}
