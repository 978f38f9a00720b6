package resp

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
)

func TestWriter(t *testing.T) {
	for _, tt := range []struct {
		name       string
		write      func(w *Writer)
		two, three string
	}{
		{"ok", func(w *Writer) { w.OK() }, "+OK\r\n", "+OK\r\n"},
		{"simple", func(w *Writer) { w.Simple("PONG") }, "+PONG\r\n", "+PONG\r\n"},
		{"error", func(w *Writer) { w.Error("ERR a\r\nb") }, "-ERR a  b\r\n", "-ERR a  b\r\n"},
		{"small integer", func(w *Writer) { w.Int(7) }, ":7\r\n", ":7\r\n"},
		{"integer", func(w *Writer) { w.Int(-1234) }, ":-1234\r\n", ":-1234\r\n"},
		{"bulk", func(w *Writer) { w.Bulk([]byte("a\r\n")) }, "$3\r\na\r\n\r\n", "$3\r\na\r\n\r\n"},
		{"empty bulk", func(w *Writer) { w.Bulk(nil) }, "$0\r\n\r\n", "$0\r\n\r\n"},
		{"long bulk", func(w *Writer) { w.BulkString("hello, world") }, "$12\r\nhello, world\r\n", "$12\r\nhello, world\r\n"},
		{"null", func(w *Writer) { w.Null() }, "$-1\r\n", "_\r\n"},
		{"null array", func(w *Writer) { w.NullArray() }, "*-1\r\n", "_\r\n"},
		{"array", func(w *Writer) { w.Array(2) }, "*2\r\n", "*2\r\n"},
		{"map", func(w *Writer) { w.Map(6) }, "*12\r\n", "%6\r\n"},
		{"set", func(w *Writer) { w.Set(2) }, "*2\r\n", "~2\r\n"},
		{"push", func(w *Writer) { w.Push(2) }, "*2\r\n", ">2\r\n"},
		{"double", func(w *Writer) { w.Double(0.1) }, "$19\r\n0.10000000000000001\r\n", ",0.10000000000000001\r\n"},
		{"whole double", func(w *Writer) { w.Double(3) }, "$1\r\n3\r\n", ",3\r\n"},
		{"infinite double", func(w *Writer) { w.Double(math.Inf(-1)) }, "$4\r\n-inf\r\n", ",-inf\r\n"},
		{"true", func(w *Writer) { w.Bool(true) }, ":1\r\n", "#t\r\n"},
		{"false", func(w *Writer) { w.Bool(false) }, ":0\r\n", "#f\r\n"},
		{"big number", func(w *Writer) { w.BigNumber("123") }, "$3\r\n123\r\n", "(123\r\n"},
		{"verbatim", func(w *Writer) { w.Verbatim("txt", "hi") }, "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"},
		{"deferred array", func(w *Writer) { m := w.Defer(); w.Int(1); w.Close(m, 1, KindArray) }, "*1\r\n:1\r\n", "*1\r\n:1\r\n"},
		{"deferred map", func(w *Writer) { m := w.Defer(); w.OK(); w.OK(); w.Close(m, 1, KindMap) }, "*2\r\n+OK\r\n+OK\r\n", "%1\r\n+OK\r\n+OK\r\n"},
		{"deferred and empty", func(w *Writer) { w.Close(w.Defer(), 0, KindSet) }, "*0\r\n", "~0\r\n"},
		{"deferred and cancelled", func(w *Writer) { m := w.Defer(); w.Int(1); w.Cancel(m); w.Null() }, "$-1\r\n", "_\r\n"},
		{"deferred and long, nested", func(w *Writer) {
			outer := w.Defer()
			inner := w.Defer()
			for range 100 {
				w.Int(1)
			}
			w.Close(inner, 100, KindArray)
			w.Close(outer, 1, KindPush)
		}, "*1\r\n*100\r\n" + strings.Repeat(":1\r\n", 100), ">1\r\n*100\r\n" + strings.Repeat(":1\r\n", 100)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, proto := range []int{0, 2, 3} {
				want := "before" + tt.two
				if proto == 3 {
					want = "before" + tt.three
				}
				w := Writer{Buf: []byte("before"), Proto: proto}
				tt.write(&w)
				if string(w.Buf) != want {
					t.Errorf("version %d: got %q, want %q", proto, w.Buf, want)
				}
			}
		})
	}
}

func TestFormatDouble(t *testing.T) {
	for _, tt := range []struct {
		in   float64
		want string
	}{
		{0, "0"}, {math.Copysign(0, -1), "-0"}, {1, "1"}, {-17, "-17"}, {0.1, "0.10000000000000001"}, {0.5, "0.5"},
		{3.0000000000000004, "3.0000000000000004"}, {1e15, "1000000000000000"}, {1e16, "10000000000000000"},
		{1e17, "1e+17"}, {1e21, "1e+21"}, {123456789012345678, "1.2345678901234568e+17"}, {0.0001, "0.0001"},
		{1e-5, "1.0000000000000001e-05"}, {5e-324, "4.9406564584124654e-324"}, {math.MaxFloat64, "1.7976931348623157e+308"},
		{math.Inf(1), "inf"}, {math.Inf(-1), "-inf"}, {math.NaN(), "nan"}, {120, "120"}, {100.5, "100.5"},
	} {
		if got := string(FormatDouble(nil, tt.in)); got != tt.want {
			t.Errorf("FormatDouble(%g) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestWriterAllocatesNothing(t *testing.T) {
	w := Writer{Buf: make([]byte, 0, 4096)}
	bulk := bytes.Repeat([]byte("x"), 100)
	if allocs := testing.AllocsPerRun(100, func() {
		w.Buf = w.Buf[:0]
		mark := w.Defer()
		w.Int(1 << 40)
		w.Bulk(bulk)
		w.Double(0.1)
		w.Error("ERR no such key")
		w.Close(mark, 12345, KindMap)
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkWriter(b *testing.B) {
	w := Writer{Buf: make([]byte, 0, 4096)}
	value := []byte("xxx")
	b.ReportAllocs()
	for b.Loop() {
		w.Buf = w.Buf[:0]
		w.Bulk(value)
		w.Int(123456)
	}
}

// A long reply is moved in pieces, when it grows and when the length is put before it.
func TestLongRepliesAreMovedWhole(t *testing.T) {
	var w Writer
	w.Simple("before")
	mark := w.Defer()
	want := []byte("+before\r\n*30000\r\n")
	for i := range 30000 {
		b := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, i%97)
		if i%2 == 0 {
			w.Bulk(b)
		} else {
			w.BulkString(string(b))
		}
		want = append(fmt.Appendf(want, "$%d\r\n", len(b)), b...)
		want = append(want, "\r\n"...)
	}
	w.Close(mark, 30000, KindArray)
	if len(want) < 5*piece || !bytes.Equal(w.Buf, want) {
		t.Errorf("%d bytes, want %d, at least %d; equal: %v", len(w.Buf), len(want), 5*piece, bytes.Equal(w.Buf, want))
	}
}
