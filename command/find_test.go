package command

import (
	"strings"
	"testing"
)

func TestCommandsAreFoundByNameInAnyCase(t *testing.T) {
	for _, r := range All() {
		for _, name := range []string{r.Name, strings.ToLower(r.Name), r.Name[:1] + strings.ToLower(r.Name[1:])} {
			if got := Find([]byte(name)); got != r {
				t.Errorf("%q is %v", name, got)
			}
		}
		if got := Find([]byte(r.Name + "X")); got != nil && got.Name != r.Name+"X" {
			t.Errorf("%q is %s", r.Name+"X", got.Name)
		}
	}
	for _, name := range []string{"", "G", "NOSUCHCOMMAND", strings.Repeat("X", longestName+1)} {
		if got := Find([]byte(name)); got != nil {
			t.Errorf("%q is %s", name, got.Name)
		}
	}
}

func BenchmarkFind(b *testing.B) {
	name := []byte("get")
	for b.Loop() {
		Find(name)
	}
}
