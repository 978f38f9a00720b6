package resp

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReaderAndString(t *testing.T) {
	for _, tt := range []struct {
		name, wire, want string
	}{
		{"simple", "+OK\r\n", "OK"},
		{"error", "-ERR no\r\n", "(error) ERR no"},
		{"bulk error", "!7\r\nERR\r\nno\r\n", "(error) ERR\r\nno"},
		{"integer", ":-2\r\n", "(integer) -2"},
		{"bulk", "$7\r\na\"\\\n\x00\xffb\r\n", `"a\"\\\n\x00\xffb"`},
		{"empty bulk", "$0\r\n\r\n", `""`},
		{"null bulk", "$-1\r\n", "(nil)"},
		{"null array", "*-1\r\n", "(nil)"},
		{"null", "_\r\n", "(nil)"},
		{"double", ",0.10000000000000001\r\n", "(double) 0.10000000000000001"},
		{"true", "#t\r\n", "(true)"},
		{"false", "#f\r\n", "(false)"},
		{"big number", "(12345678901234567890\r\n", "12345678901234567890"},
		{"verbatim", "=10\r\ntxt:a\nb\r\nc\r\n", "a\nb\r\nc"},
		{"empty array", "*0\r\n", "(empty array)"},
		{"empty map", "%0\r\n", "(empty hash)"},
		{"empty set", "~0\r\n", "(empty set)"},
		{"empty push", ">0\r\n", "(empty push)"},
		{"array", "*2\r\n:1\r\n$1\r\na\r\n", "1) (integer) 1\n2) \"a\""},
		{"nested array", "*2\r\n*2\r\n:1\r\n:2\r\n*1\r\n:3\r\n", "1) 1) (integer) 1\n   2) (integer) 2\n2) 1) (integer) 3"},
		{"map", "%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n:2\r\n:3\r\n", "1# a => (integer) 1\n2# b => 1) (integer) 2\n   2) (integer) 3"},
		{"set", "~1\r\n:1\r\n", "1~ (integer) 1"},
		{"push", ">2\r\n+message\r\n+x\r\n", "1) message\n2) x"},
		{"attribute before a value", "|1\r\n+ttl\r\n:1\r\n:7\r\n", "(integer) 7"},
		{"long array", "*10\r\n" + strings.Repeat(":1\r\n", 10), " 1) (integer) 1\n 2) (integer) 1\n 3) (integer) 1\n 4) (integer) 1\n 5) (integer) 1\n 6) (integer) 1\n 7) (integer) 1\n 8) (integer) 1\n 9) (integer) 1\n10) (integer) 1"},
		{"long line", "+" + strings.Repeat("x", 40000) + "\r\n", strings.Repeat("x", 40000)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := NewReader(iotest.OneByteReader(strings.NewReader(tt.wire + tt.wire)))
			for range 2 {
				v, err := r.Read()
				if err != nil {
					t.Fatal(err)
				}
				if v.String() != tt.want {
					t.Errorf("got\n%s\nwant\n%s", v, tt.want)
				}
			}
			if _, err := r.Read(); err != io.EOF {
				t.Errorf("at the end: %v, want EOF", err)
			}
		})
	}
}

func TestReaderRefusesWhatIsNoReply(t *testing.T) {
	for _, tt := range []struct {
		wire string
		want error
	}{
		{"\r\n", ErrReply}, {"PING\r\n", ErrReply}, {":x\r\n", ErrReply}, {":1\n", ErrReply}, {"$-2\r\n", ErrReply},
		{"$536870913\r\n", ErrReply}, {"*-2\r\n", ErrReply}, {"*16777217\r\n", ErrReply}, {"~-1\r\n", ErrReply},
		{"$1\r\nabc\r\n", ErrReply}, {"#x\r\n", ErrReply}, {"_x\r\n", ErrReply}, {",x\r\n", ErrReply}, {"=2\r\nab\r\n", ErrReply},
		{strings.Repeat("*1\r\n", 200) + ":1\r\n", ErrReply}, {strings.Repeat("|0\r\n", 200) + ":1\r\n", ErrReply},
		{"+" + strings.Repeat("x", 100000) + "\r\n", ErrReply},
		{"$5\r\nab", io.ErrUnexpectedEOF}, {"*2\r\n:1\r\n", io.ErrUnexpectedEOF}, {":1", io.ErrUnexpectedEOF},
		{"$536870912\r\n", io.ErrUnexpectedEOF}, {"*16777216\r\n", io.ErrUnexpectedEOF},
	} {
		if v, err := NewReader(strings.NewReader(tt.wire)).Read(); !errors.Is(err, tt.want) {
			t.Errorf("%.40q: got %v and error %v, want %v", tt.wire, v, err, tt.want)
		}
	}
}

func TestReaderReadsWhatWriterWrites(t *testing.T) {
	for _, proto := range []int{2, 3} {
		w := Writer{Proto: proto}
		big := bytes.Repeat([]byte("0123456789"), 300000)
		w.Map(1)
		w.Bulk(big)
		w.Double(2.5)
		v, err := NewReader(bytes.NewReader(w.Buf)).Read()
		if err != nil {
			t.Fatal(err)
		}
		if len(v.Elems) != 2 || v.Elems[0].Str != string(big) || v.Elems[1].Str != "2.5" {
			t.Errorf("version %d: %.100v", proto, v)
		}
	}
}

func TestValueHelpers(t *testing.T) {
	e := Value{Kind: KindError, Str: "WRONGTYPE Operation"}
	var err Error
	if !errors.As(e.Err(), &err) || err.Code() != "WRONGTYPE" {
		t.Errorf("error %v with code %q", e.Err(), err.Code())
	}
	if (Value{Kind: KindSimple, Str: "OK"}).Err() != nil {
		t.Error("a status is no error")
	}
	list := Value{Kind: KindArray, Elems: []Value{{Kind: KindBulk, Str: "a"}, {Kind: KindInt, Int: 7}, {Kind: KindBool, Int: 1}}}
	if got := list.Strings(); !reflect.DeepEqual(got, []string{"a", "7", "true"}) {
		t.Errorf("Strings: %q", got)
	}
}

func FuzzReader(f *testing.F) {
	for _, s := range []string{"+OK\r\n", "*2\r\n:1\r\n$1\r\na\r\n", "%1\r\n+a\r\n,1.5\r\n", "|1\r\n+a\r\n+b\r\n_\r\n", "=7\r\ntxt:abc\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		values := func(r io.Reader) (all []Value, last error) {
			reader := NewReader(r)
			for {
				v, err := reader.Read()
				if err != nil {
					return all, err
				}
				_ = v.String()
				all = append(all, v)
			}
		}
		want, wantErr := values(bytes.NewReader(wire))
		got, gotErr := values(iotest.OneByteReader(bytes.NewReader(wire)))
		if !reflect.DeepEqual(got, want) || gotErr.Error() != wantErr.Error() {
			t.Errorf("in pieces %v, %v, whole %v, %v", got, gotErr, want, wantErr)
		}
	})
}
