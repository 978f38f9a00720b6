package archtest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// order is the map of ARCHITECTURE.md, lowest first. A package may import
// those before it.
var order = []string{
	"internal", "resp", "proxyproto", "region", "catalog", "privnet", "value", "slab", "eviction", "keyspace", "journal", "tier", "command", "pubsub",
	"engine", "loop", "link", "replication", "session", "gossip", "placement", "api", "node", "edge", "fleet", "platform",
	"cli", "world", "bench", "e2e", "cmd", "sim",
}

// forbidden are arrows that the order would allow, with the reason why they
// must not be.
var forbidden = []struct{ from, to, why string }{
	{"keyspace", "resp", "a keyspace gives values, not replies"},
	{"command", "slab", "a handler sees a View or a Tx: what lies beneath may move"},
	{"engine", "slab", "the engine sees a keyspace: what lies beneath may move"},
	{"journal", "keyspace", "the journal sees bytes and offsets, never a key's meaning"},
	{"journal", "value", "the journal sees bytes and offsets, never a key's meaning"},
	{"tier", "keyspace", "the tier sees bytes, never a key's meaning, so that it can be crash-tested alone"},
	{"tier", "value", "the tier sees bytes, never a key's meaning, so that it can be crash-tested alone"},
	{"tier", "journal", "what of both is newer is for the node to know"},
	{"command", "tier", "a handler can't tell where a value lies"},
	{"command", "journal", "a handler can't tell whether and how its changes are kept"},
	{"command", "link", "a handler can't tell in which region it runs"},
	{"engine", "link", "the engine does no I/O"},
	{"engine", "loop", "the engine does no I/O"},
	{"link", "journal", "a frame is bytes to a link"},
	{"link", "engine", "a frame is bytes to a link"},
	{"edge", "node", "daemons meet in api and catalog only"},
	{"edge", "fleet", "daemons meet in api and catalog only"},
	{"edge", "platform", "daemons meet in api and catalog only"},
	{"node", "fleet", "daemons meet in api and catalog only"},
	{"node", "platform", "daemons meet in api and catalog only"},
	{"node", "edge", "daemons meet in api and catalog only"},
	{"fleet", "node", "daemons meet in api and catalog only"},
	{"fleet", "edge", "daemons meet in api and catalog only"},
	{"fleet", "platform", "daemons meet in api and catalog only"},
	{"platform", "fleet", "daemons meet in api and catalog only"},
	{"platform", "node", "daemons meet in api and catalog only"},
	{"platform", "edge", "daemons meet in api and catalog only"},
	{"edge", "resp", "a tenant's traffic is only bytes to an edge"},
	{"edge", "command", "a tenant's traffic is only bytes to an edge"},
	{"edge", "keyspace", "a tenant's traffic is only bytes to an edge"},
	{"edge", "engine", "a tenant's traffic is only bytes to an edge"},
	{"edge", "session", "a tenant's traffic is only bytes to an edge"},
	{"edge", "loop", "a tenant's traffic is only bytes to an edge"},
}

// onlyInternal are packages that import nothing of ours but internal, so that
// they can be fuzzed alone.
var onlyInternal = []string{"resp", "proxyproto", "value", "region", "eviction"}

// onlyAPI see api and nothing below it: whatever they do, any HTTP caller can
// do.
var onlyAPI = []string{"cli"}

// forTests are helpers that only tests import, so that no arrow of the program
// goes through them.
var forTests = map[string]bool{"internal/transcript": true}

func TestImportsGoUpTheMap(t *testing.T) {
	place := map[string]int{}
	for i, p := range order {
		place[p] = i
	}
	for from, imports := range packages(t) {
		at, known := place[top(from)]
		if !known {
			t.Errorf("%s is not on the map: give it a place in order, in ARCHITECTURE.md, and a reason", from)
			continue
		}
		for _, to := range imports {
			if top(to) == top(from) || top(to) == "internal" || forTests[from] {
				continue
			}
			if place[top(to)] >= at {
				t.Errorf("%s imports %s, which stands above it on the map: an import goes from a package to lower ones", from, to)
			}
		}
	}
}

func TestForbiddenImports(t *testing.T) {
	all := packages(t)
	for from, imports := range all {
		for _, to := range imports {
			for _, f := range forbidden {
				if top(from) == f.from && top(to) == f.to {
					t.Errorf("%s imports %s: %s", from, to, f.why)
				}
			}
			if slices.Contains(onlyInternal, top(from)) && top(to) != "internal" && top(to) != top(from) {
				t.Errorf("%s imports %s: it must stand alone, to be fuzzed alone", from, to)
			}
			if slices.Contains(onlyAPI, top(from)) && top(to) != "api" && top(to) != "internal" && top(to) != top(from) {
				t.Errorf("%s imports %s: what it does, any caller of the API must be able to do", from, to)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	root := filepath.Join("..", "..")
	for dir := range packages(t) {
		documented := false
		names, _ := filepath.Glob(filepath.Join(root, dir, "*.go"))
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			documented = documented || f.Doc != nil
		}
		if !documented {
			t.Errorf("%s has no package comment: its first line says what the package is for", dir)
		}
	}
}

// top is the first part of a package's path.
func top(pkg string) string {
	first, _, _ := strings.Cut(pkg, "/")
	return first
}

// packages is what every package imports of ours, tests left out.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	root := filepath.Join("..", "..")
	all := map[string][]string{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && name != root || d.Name() == "testdata" || d.Name() == "bin") && d.Name() != ".." {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir, _ := filepath.Rel(root, filepath.Dir(name))
		if _, ok := all[dir]; !ok {
			all[dir] = nil
		}
		for _, i := range f.Imports {
			if p, ok := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), "vecino/"); ok && !slices.Contains(all[dir], p) {
				all[dir] = append(all[dir], p)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
