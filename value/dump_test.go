package value

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// dumps has each form, with few and with many elements.
func dumps() map[string][]byte {
	out := map[string][]byte{}
	for _, n := range []int{0, 1, 3, 128, 600} {
		h, strs, ints, z, l := NewHash(1), NewSet(1), NewSet(1), NewZSet(1), NewList()
		for i := range n {
			h.Set(short(i), short(i+1))
			strs.Add(short(i))
			ints.Add(strconv.AppendInt(nil, int64(i*i*i), 10))
			z.Set(short(i), float64(i%7)/2)
			l.PushBack(text(i))
		}
		out[fmt.Sprintf("hash of %d", n)] = h.AppendDump(nil)
		out[fmt.Sprintf("strings of %d", n)] = strs.AppendDump(nil)
		out[fmt.Sprintf("integers of %d", n)] = ints.AppendDump(nil)
		out[fmt.Sprintf("sorted set of %d", n)] = z.AppendDump(nil)
		out[fmt.Sprintf("list of %d", n)] = l.AppendDump(nil)
	}
	return out
}

// load reads a dump as each type and returns what it is dumped to again.
func load(dump []byte) (again []byte, err error) {
	h, err1 := LoadHash(1, dump)
	s, err2 := LoadSet(1, dump)
	z, err3 := LoadZSet(1, dump)
	l, err4 := LoadList(dump)
	switch {
	case err1 == nil:
		again = h.AppendDump(nil)
	case err2 == nil:
		again = s.AppendDump(nil)
	case err3 == nil:
		again = z.AppendDump(nil)
	case err4 == nil:
		again = l.AppendDump(nil)
	default:
		return nil, errors.Join(err1, err2, err3, err4)
	}
	return again, nil
}

func TestDumpsComeBackTheSame(t *testing.T) {
	for name, dump := range dumps() {
		if again, err := load(dump); err != nil || !bytes.Equal(again, dump) {
			t.Errorf("%s: %v, %d bytes, want %d", name, err, len(again), len(dump))
		}
	}
}

func TestDumpsAreTheSameWhateverTheHistory(t *testing.T) {
	a, b := NewHash(1), NewHash(1)
	x, y := NewSet(1), NewSet(1)
	for i := range 2000 {
		a.Set(key(i), short(i))
		x.Add(key(i))
	}
	for i := 50000; i >= 0; i-- {
		b.Set(key(i), short(i))
		y.Add(key(i))
	}
	for i := 2000; i <= 50000; i++ {
		b.Del(key(i))
		y.Del(key(i))
	}
	if !bytes.Equal(a.AppendDump(nil), b.AppendDump(nil)) {
		t.Error("two hashes")
	}
	if !bytes.Equal(x.AppendDump(nil), y.AppendDump(nil)) {
		t.Error("two sets")
	}
}

func TestBadDumpsAreRefused(t *testing.T) {
	one := make([]byte, 8)
	putScore(one, 1)
	two := make([]byte, 8)
	putScore(two, 2)
	half := make([]byte, 8)
	putScore(half, 0.5)
	nan := make([]byte, 8)
	putScore(nan, math.NaN())
	join := func(parts ...any) (b []byte) {
		for _, p := range parts {
			switch p := p.(type) {
			case string:
				b = append(b, p...)
			case []byte:
				b = append(b, p...)
			case int:
				b = append(b, byte(p))
			}
		}
		return b
	}
	long := bytes.Repeat([]byte("x"), 65)
	for name, dump := range map[string][]byte{
		"nothing":                    nil,
		"only a version":             join(1),
		"no count":                   join(1, "h"),
		"another version":            join(3, "h", 0),
		"another form":               join(1, "?", 0),
		"too many":                   join(1, "h", 200, 200, 200, 200, 1),
		"count over 64 bits":         join(1, "l", 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, "xxx"),
		"cut short":                  join(1, "h", 1, 1, "a", 9, "b"),
		"something left":             join(1, "h", 1, 1, "a", 1, "b", 0),
		"a field twice":              join(1, "h", 2, 1, "a", 1, "b", 1, "a", 1, "c"),
		"a field twice in a table":   join(1, "H", 2, 1, "a", 1, "b", 1, "a", 1, "c"),
		"a packed value of 65":       join(1, "h", 1, 1, "a", 65, long),
		"a packed member of 65":      join(1, "s", 1, 65, long),
		"a packed sorted one of 65":  join(1, "z", 1, 65, long, one),
		"a member twice":             join(1, "s", 2, 1, "a", 1, "a"),
		"129 packed members":         join(1, "s", 129, 1, bytes.Repeat([]byte{1, 'a'}, 129)),
		"a width of 3":               join(1, "i", 1, 3, "abc"),
		"integers out of order":      join(1, "i", 2, 2, 2, 0, 1, 0),
		"integers twice":             join(1, "i", 2, 2, 1, 0, 1, 0),
		"integers cut short":         join(1, "i", 2, 2, 1, 0, 2),
		"513 integers":               join(1, "i", 129, 4, 2, make([]byte, 1026)),
		"a score of NaN":             join(1, "z", 1, 1, "a", nan),
		"scores out of order":        join(1, "z", 2, 1, "a", two, 1, "b", one),
		"members out of order":       join(1, "Z", 2, 1, "b", one, 1, "a", one),
		"a sorted member twice":      join(1, "Z", 2, 1, "a", one, 1, "a", two),
		"a score cut short":          join(1, "z", 1, 1, "a", one[:7]),
		"a list cut short":           join(1, "l", 2, 1, "a"),
		"a list with something left": join(1, "l", 1, 1, "a", 0),

		"small, no count":               join(2, "h"),
		"small, cut short":              join(2, "h", 1, 1, "a", 9, "b"),
		"small, something left":         join(2, "h", 1, 1, "a", 1, "b", 0),
		"small, a field twice":          join(2, "h", 2, 1, "a", 1, "b", 1, "a", 1, "c"),
		"small, a field twice of many":  join(2, "h", 10, bytes.Repeat([]byte{1, 'a', 0}, 10)),
		"small, a value of 65":          join(2, "h", 1, 1, "a", 65, long),
		"small, a member of 65":         join(2, "s", 1, 65, long),
		"small, a member twice":         join(2, "s", 2, 1, "a", 1, "a"),
		"small, 129 members":            join(2, "s", 129, bytes.Repeat([]byte{1, 'a'}, 129)),
		"small, a width of 3":           join(2, "i", 3, "abc"),
		"small, a width of 0":           join(2, "i", 0, "abc"),
		"small, integers out of order":  join(2, "i", 2, 2, 0, 1, 0),
		"small, integers cut short":     join(2, "i", 2, 1, 0, 2),
		"small, 513 integers":           join(2, "i", 2, make([]byte, 1026)),
		"small, a score of NaN":         join(2, "z", 1, 0xc1, 0, nan, "a"),
		"small, 1 told in eight bytes":  join(2, "z", 1, 0xc1, 0, one, "a"),
		"small, 1 told in a varint":     join(2, "z", 1, 0xc1, 3, "a"),
		"small, a score too far":        join(2, "z", 1, 0xc1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, "a"),
		"small, scores out of order":    join(2, "z", 2, 0x41, "a", 0xc1, 2, "b"),
		"small, members out of order":   join(2, "z", 2, 0x41, "b", 0x01, "a"),
		"small, a sorted member twice":  join(2, "z", 2, 0x01, "a", 0x41, "a"),
		"small, a sorted member of 65":  join(2, "z", 1, 0x3f, 2, long),
		"small, a score cut short":      join(2, "z", 1, 0xc1, 0, half[:7]),
		"small, a list cut short":       join(2, "l", 2, 1, "a"),
		"small, a list, something left": join(2, "l", 1, 1, "a", 0),
		"small, a list, a wide length":  join(2, "l", 1, 0x80, 0),
		"small, a list beyond 8 KiB":    join(2, "l", 1, 0xff, 0x3f, make([]byte, 8191)),
		"a big list of none":            join(2, "L", 0),
		"an old form now":               join(2, "I", 1, 2, 0, 0),
	} {
		if _, err := load(dump); !errors.Is(err, ErrBadDump) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Whatever is cut off or changed, nothing panics.
	rng := random(t, 1)
	for name, dump := range dumps() {
		for i := range min(len(dump), 60) {
			// Integers are as many as there are: their number isn't said.
			if _, err := load(dump[:i]); err == nil && dump[1] != formInts {
				t.Errorf("%s, cut at %d of %d, is read", name, i, len(dump))
			}
			broken := bytes.Clone(dump)
			broken[i] ^= byte(1 + rng.IntN(255))
			if again, err := load(broken); err == nil {
				if _, err := load(again); err != nil {
					t.Errorf("%s, changed at %d, is read, but not a second time: %v", name, i, err)
				}
			}
		}
	}
}

// Version 1 stays readable: dumps that it wrote are kept in a file, and are the
// same values as those of today, in the same order.
func TestDumpsOfVersion1AreRead(t *testing.T) {
	lines := func(name string) [][]byte {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Fields(b)
	}
	now := lines("dump.txt")
	for i, line := range lines("dump1.txt") {
		old, _ := hex.DecodeString(string(line))
		again, err := load(old)
		if got := hex.AppendEncode(nil, again); err != nil || !bytes.Equal(got, now[i]) {
			t.Errorf("%s is read as\n%s (%v), want\n%s", line, got, err, now[i])
		}
	}
}

// What a version looks like doesn't change: it is kept in a file.
func TestDumpGolden(t *testing.T) {
	var got bytes.Buffer
	z, h, s := NewZSet(1), NewHash(1), NewSet(1)
	z.Set([]byte("b"), 1)
	z.Set([]byte("a"), math.Inf(1))
	h.Set([]byte("field"), []byte("value"))
	s.Add([]byte("-3"))
	s.Add([]byte("70000"))
	fmt.Fprintf(&got, "%x\n%x\n%x\n", z.AppendDump(nil), h.AppendDump(nil), s.AppendDump(nil))
	s.Add([]byte("member"))
	z.Set(bytes.Repeat([]byte("x"), 65), 2)
	h.Set([]byte("large"), bytes.Repeat([]byte("x"), 65))
	h.Set([]byte("small"), nil)
	l := NewList()
	l.PushBack([]byte("first"))
	l.PushBack(nil)
	fmt.Fprintf(&got, "%x\n%x\n%x\n%x\n", z.AppendDump(nil), h.AppendDump(nil), s.AppendDump(nil), l.AppendDump(nil))
	golden(t, "dump.txt", got.Bytes())
}

// A dump that is read is dumped to something that reads the same, and the
// value that it makes works.
func FuzzLoad(f *testing.F) {
	for _, dump := range dumps() {
		if len(dump) < 4000 {
			f.Add(dump)
		}
	}
	f.Fuzz(func(t *testing.T, dump []byte) {
		again, err := load(dump)
		if err != nil {
			return
		}
		if third, err := load(again); err != nil || !bytes.Equal(third, again) {
			t.Fatalf("%x\nis dumped as\n%x\nthen as\n%x (%v)", dump, again, third, err)
		}
		// Around the dump itself it is the same, and goes on elsewhere.
		var scratch Scratch
		var h Hash
		var z ZSet
		if held := append(bytes.Clone(dump), 0xa5); h.Load(1, held[:len(dump)], &scratch) == nil {
			h.Set([]byte("new"), []byte("value"))
			if held[len(dump)] != 0xa5 {
				t.Fatal("it wrote behind the dump")
			}
		} else if z.Load(1, held[:len(dump)], &scratch) == nil {
			for i := range 5 {
				z.Set([]byte{'n', byte(i)}, float64(i*i)-0.5*float64(i%2))
			}
			if blob, _, ok := z.Small(); ok && packed(blob).checkScored() != "" || held[len(dump)] != 0xa5 {
				t.Fatalf("%x: %s", blob, packed(blob).checkScored())
			}
		}
		rng := rand.New(rand.NewPCG(1, 1))
		if h, err := LoadHash(1, dump); err == nil {
			field, _ := h.Random(rng)
			h.Set(append([]byte("new"), field...), field)
			for h.Len() > 0 {
				field, _ := h.Random(rng)
				if !h.Del(bytes.Clone(field)) {
					t.Fatal("a field isn't there")
				}
			}
		}
		if s, err := LoadSet(1, dump); err == nil {
			s.Add([]byte("new"))
			for s.Len() > 0 {
				if !s.Del(bytes.Clone(s.Random(rng))) {
					t.Fatal("a member isn't there")
				}
			}
		}
		if z, err := LoadZSet(1, dump); err == nil {
			z.Set([]byte("new"), 5)
			for z.Len() > 0 {
				m, s := z.Random(rng)
				m = bytes.Clone(m)
				rank, ok := z.Rank(m)
				if at, score := z.ByRank(rank); !ok || !bytes.Equal(at, m) || score != s {
					t.Fatal("ranks don't agree")
				}
				z.Del(m)
			}
		}
		if l, err := LoadList(dump); err == nil {
			l.InsertAt(l.Len()/2, []byte("new"))
			for l.Len() > 0 {
				l.RemoveAt(l.Len() / 2)
			}
		}
	})
}
