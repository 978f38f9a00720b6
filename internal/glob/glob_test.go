package glob

import (
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true},
		{"", "a", false},
		{"a", "", false},
		{"*", "", true},
		{"**", "anything", true},
		{"a*", "a", true},
		{"*a", "ba", true},
		{"*a", "ab", false},
		{"a*b*c", "axxbyyc", true},
		{"a*b*c", "axxbyy", false},
		{"*ab", "aab", true},
		{"h?llo", "hello", true},
		{"h?llo", "hllo", false},
		{"?", "", false},
		{"h[ae]llo", "hallo", true},
		{"h[ae]llo", "hillo", false},
		{"h[^e]llo", "hallo", true},
		{"h[^e]llo", "hello", false},
		{"h[a-c]llo", "hbllo", true},
		{"h[c-a]llo", "hbllo", true},
		{"[a-]", "a", true},
		{"[a-]", "-", false}, // a range from ] to a
		{"[a-]", "_", true},
		{"[]a", "a", false}, // an empty class matches nothing
		{"[^]", "x", true},
		{"[abc", "b", true}, // never closed
		{"[", "x", false},
		{`[\]]`, "]", true},
		{`[a\-z]`, "-", true},
		{`[a\-z]`, "m", false},
		{`a\*b`, "a*b", true},
		{`a\*b`, "axb", false},
		{`a\`, `a\`, true},
		{`\\`, `\`, true},
		{"*[0-9]", "key7", true},
		{"A", "a", false},
		{"\xff?", "\xff\x00", true},
	} {
		if got := Match([]byte(c.pattern), []byte(c.s)); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.pattern, c.s, got)
		}
	}
}

func TestManyStarsTakeNoTimeToSpeakOf(t *testing.T) {
	pattern := strings.Repeat("a*", 200) + "b"
	if Match([]byte(pattern), []byte(strings.Repeat("a", 5000))) {
		t.Error("there is no b")
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a*[b-d]?", "axbc")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		Match([]byte(pattern), []byte(s))
		quoted := make([]byte, 0, 2*len(s))
		for i := range len(s) {
			quoted = append(quoted, '\\', s[i])
		}
		if !Match(quoted, []byte(s)) {
			t.Errorf("%q doesn't match itself", s)
		}
	})
}
