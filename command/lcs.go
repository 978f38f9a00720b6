package command

import (
	"vecino/keyspace"
	"vecino/resp"
)

// lcs finds the longest common subsequence by the textbook's table: at (i, j)
// stands how long it is for the first i bytes of a and the first j of b. The
// way back from the corner to the origin is read off the table, and gives the
// subsequence and its matching ranges from the last to the first.
//
// The table is what it costs: four bytes for each pair of bytes, up to as much
// as a value may be long.
func lcs(db *keyspace.View, args *Args, out *resp.Writer) error {
	a, _, errA := db.String(args.Next())
	b, _, errB := db.String(args.Next())
	switch {
	case errA == keyspace.ErrWrongType, errB == keyspace.ErrWrongType:
		return ErrLCSType
	case errA != nil, errB != nil:
		return keyspace.ErrCold
	}
	var wantLen, wantRanges, withLen bool
	minLen := int64(0)
	for args.More() {
		switch {
		case args.Option("IDX"):
			wantRanges = true
		case args.Option("LEN"):
			wantLen = true
		case args.Option("WITHMATCHLEN"):
			withLen = true
		case args.Left() >= 2 && args.Option("MINMATCHLEN"):
			minLen = max(0, args.Int())
		default:
			return ErrSyntax
		}
	}
	if err := args.Err(); err != nil {
		return err
	}
	if wantLen && wantRanges {
		return ErrLCSBoth
	}
	if int64(len(a)+1)*int64(len(b)+1)*4 > keyspace.MaxString {
		return ErrLCSMemory
	}
	table := newLCSTable(a, b)
	length := int64(table.at(len(a), len(b)))
	switch {
	case wantLen:
		out.Int(length)
	case wantRanges:
		out.Map(2)
		out.BulkString("matches")
		mark, n := out.Defer(), 0
		table.walk(a, b, func(i, j, match int) {
			if int64(match) < minLen {
				return
			}
			n++
			if withLen {
				out.Array(3)
			} else {
				out.Array(2)
			}
			for _, start := range []int{i, j} {
				out.Array(2)
				out.Int(int64(start))
				out.Int(int64(start + match - 1))
			}
			if withLen {
				out.Int(int64(match))
			}
		})
		out.Close(mark, n, resp.KindArray)
		out.BulkString("len")
		out.Int(length)
	default:
		common := make([]byte, length)
		end := len(common)
		table.walk(a, b, func(i, _, match int) {
			end -= match
			copy(common[end:], a[i:i+match])
		})
		out.Bulk(common)
	}
	return nil
}

type lcsTable struct {
	width int
	cells []uint32
}

func newLCSTable(a, b []byte) lcsTable {
	t := lcsTable{len(b) + 1, make([]uint32, (len(a)+1)*(len(b)+1))}
	for i := range a {
		above, row := t.cells[i*t.width:], t.cells[(i+1)*t.width:]
		for j := range b {
			if a[i] == b[j] {
				row[j+1] = above[j] + 1
			} else {
				row[j+1] = max(above[j+1], row[j])
			}
		}
	}
	return t
}

func (t lcsTable) at(i, j int) uint32 { return t.cells[i*t.width+j] }

// walk calls fn for each stretch of the subsequence that stands together in
// both strings, from the last to the first.
func (t lcsTable) walk(a, b []byte, fn func(i, j, match int)) {
	i, j, match := len(a), len(b), 0
	flush := func() {
		if match > 0 {
			fn(i, j, match)
		}
		match = 0
	}
	for i > 0 && j > 0 {
		if a[i-1] == b[j-1] {
			i, j, match = i-1, j-1, match+1
			continue
		}
		flush()
		if t.at(i-1, j) > t.at(i, j-1) {
			i--
		} else {
			j--
		}
	}
	flush()
}
