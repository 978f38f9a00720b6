package command_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"vecino/command"
	"vecino/internal/transcript"
	"vecino/keyspace"
	"vecino/resp"
)

// A script is a command's specification, so a row without one isn't finished.
// It lies in any family and is named as the command; of a container it has
// each subcommand.
func TestEveryRowHasAScript(t *testing.T) {
	for _, r := range command.All() {
		paths, _ := filepath.Glob(filepath.Join(scripts, "*", strings.ToLower(r.Name)+".txt"))
		if len(paths) == 0 {
			t.Errorf("%s has no script: want %s/*/%s.txt", r.Name, scripts, strings.ToLower(r.Name))
			continue
		}
		text, err := os.ReadFile(paths[0])
		if err != nil {
			t.Fatal(err)
		}
		used := func(words string) bool {
			return regexp.MustCompile(`(?mi)^[a-z0-9]*> ` + regexp.QuoteMeta(words) + `( |$)`).Match(text)
		}
		if !used(r.Name) {
			t.Errorf("%s doesn't use %s", paths[0], r.Name)
		}
		for i := range r.Sub {
			if words := r.Name + " " + r.Sub[i].Name; !used(words) {
				t.Errorf("%s doesn't use %s", paths[0], words)
			}
		}
	}
}

func TestRowsAreComplete(t *testing.T) {
	check := func(r *command.Row) {
		if r.Since == "" || r.Group == "" || r.Summary == "" || r.Complexity == "" {
			t.Errorf("%s: Since, Group, Summary and Complexity are for the documents", r.FullName())
		}
		if r.Summary != "" && !strings.HasSuffix(r.Summary, ".") {
			t.Errorf("%s: the summary is no sentence: %q", r.FullName(), r.Summary)
		}
		if r.Usage == "" && (r.Arity > 2 || r.Arity > 1 && !strings.Contains(r.FullName(), "|")) {
			t.Errorf("%s has arguments and no Usage", r.FullName())
		}
		if r.Conn != nil && r.Has(command.GrowsMemory) || r.Read != nil && r.Has(command.ToPrimary) {
			t.Errorf("%s has a trait that its column doesn't", r.FullName())
		}
		// The engine looks at one key to see whether its value may grow.
		if r.Has(command.GrowsMemory) && !r.Has(command.Replaces) && r.Keys != command.FirstKey && r.Keys != command.TwoKeys {
			t.Errorf("%s grows a value, and its last key isn't the one", r.FullName())
		}
	}
	for _, r := range command.All() {
		check(r)
		for i := range r.Sub {
			check(&r.Sub[i])
		}
	}
}

// What differs from redis-server in COMMAND, and why.
var (
	// Flags without a meaning here.
	foreignFlags = map[string]string{
		"allow_busy":        "no script can keep the server busy",
		"no_async_loading":  "there is no such state",
		"no_mandatory_keys": "is about scripts",
		"skip_monitor":      "MONITOR shows none of the commands that it is set for",
		"skip_slowlog":      "the same for SLOWLOG",
	}
	// Commands that Redis 7.0 doesn't have.
	later = map[string]bool{"client|setinfo": true, "client|no-touch": true, "waitaof": true}

	accepted = map[string]string{
		"command categories":         commandCategory,
		"command|count categories":   commandCategory,
		"command|info categories":    commandCategory,
		"command|docs categories":    commandCategory,
		"command|list categories":    commandCategory,
		"command|getkeys categories": commandCategory,
		"command|help categories":    commandCategory,
		"lolwut categories":          "it stands among commands that read keys, and shows a street",
		"object|help categories":     "Redis counts it to the keyspace; HELP is the same for all containers here",
	}
)

const commandCategory = "documented as the server's, but counted to connections: here it is one or the other"

// TestTableMatchesRedis compares what COMMAND tells with what redis-server
// tells. Summaries and complexities are our own words.
func TestTableMatchesRedis(t *testing.T) {
	redis := transcript.StartRedis(t)
	theirs := map[string]resp.Value{}
	var collect func(v resp.Value)
	collect = func(v resp.Value) {
		theirs[v.Elems[0].Str] = v
		for _, sub := range v.Elems[9].Elems {
			collect(sub)
		}
	}
	for _, v := range redis.Do("COMMAND").Elems {
		collect(v)
	}
	ours := newLone(t)
	docs := func(v resp.Value) map[string]string {
		fields := map[string]string{}
		for i := 0; i+1 < len(v.Elems); i += 2 {
			fields[v.Elems[i].Str] = v.Elems[i+1].Str
		}
		return fields
	}
	compare := func(r *command.Row) {
		name := r.FullName()
		redisInfo, ok := theirs[name]
		if !ok || later[name] {
			if ok != !later[name] {
				t.Errorf("%s: redis-server has it: %v", name, ok)
			}
			return
		}
		us, them := describe(ours.Do("", []string{"COMMAND", "INFO", name}).Elems[0]), describe(redisInfo)
		for _, field := range slices.Sorted(maps.Keys(us)) {
			why, excepted := accepted[name+" "+field]
			switch same := us[field] == them[field]; {
			case same && excepted:
				t.Errorf("%s: %s doesn't differ any more (%s)", name, field, why)
			case !same && !excepted:
				t.Errorf("%s: %s is %s, redis-server has %s", name, field, us[field], them[field])
			}
		}
		// Subcommands are documented below their containers only.
		container, _, isSub := strings.Cut(name, "|")
		a, b := ours.Do("", []string{"COMMAND", "DOCS", container}).Elems[1], redis.Do("COMMAND", "DOCS", container).Elems[1]
		if isSub {
			a, b = subDocs(a, name), subDocs(b, name)
		}
		for _, field := range []string{"since", "group"} {
			if ours, redis := docs(a)[field], docs(b)[field]; ours != redis {
				t.Errorf("%s: %s is %q, redis-server has %q", name, field, ours, redis)
			}
		}
	}
	for _, r := range command.All() {
		compare(r)
		for i := range r.Sub {
			compare(&r.Sub[i])
		}
	}
}

func subDocs(v resp.Value, name string) resp.Value {
	for i := 0; i+1 < len(v.Elems); i += 2 {
		if v.Elems[i].Str != "subcommands" {
			continue
		}
		subs := v.Elems[i+1].Elems
		for j := 0; j+1 < len(subs); j += 2 {
			if subs[j].Str == name {
				return subs[j+1]
			}
		}
	}
	return resp.Value{}
}

// describe takes an element of COMMAND apart into fields that can be compared.
func describe(v resp.Value) map[string]string {
	set := func(v resp.Value, skip map[string]string) string {
		words := slices.DeleteFunc(v.Strings(), func(w string) bool { return skip[w] != "" })
		slices.Sort(words)
		return strings.Join(words, " ")
	}
	e := v.Elems
	return map[string]string{
		"arity":      e[1].Text(),
		"flags":      set(e[2], foreignFlags),
		"keys":       fmt.Sprint(e[3].Int, e[4].Int, e[5].Int),
		"categories": set(e[6], nil),
		"keyspecs":   keySpecs(e[8]),
		"subs":       fmt.Sprint(len(e[9].Elems) > 0),
	}
}

// keySpecs tells which words are keys. Redis has several specifications where
// its flags for the keys differ; here they are taken together.
func keySpecs(v resp.Value) string {
	var specs []string
	single := map[int64]bool{}
	for _, spec := range v.Elems {
		fields := map[string]resp.Value{}
		for i := 0; i+1 < len(spec.Elems); i += 2 {
			fields[spec.Elems[i].Str] = spec.Elems[i+1]
		}
		begin := number(fields["begin_search"], "index")
		switch find := fields["find_keys"]; find.Elems[1].Str {
		case "range":
			last, step := number(find, "lastkey"), number(find, "keystep")
			for i := begin; i <= begin+last; i += step {
				single[i] = true
			}
			if last < 0 {
				for ; single[begin-step]; begin -= step {
					delete(single, begin-step)
				}
				specs = append(specs, fmt.Sprintf("%d to %d by %d", begin, last, step))
			}
		case "keynum":
			specs = append(specs, fmt.Sprintf("counted by %d from %d by %d", begin+number(find, "keynumidx"), begin+number(find, "firstkey"), number(find, "keystep")))
		default:
			specs = append(specs, find.String())
		}
	}
	for i := range single {
		specs = append(specs, fmt.Sprint(i))
	}
	slices.Sort(specs)
	return strings.Join(specs, ", ")
}

// number finds a number in {"type": …, "spec": {…}}.
func number(v resp.Value, name string) int64 {
	spec := v.Elems[3]
	for i := 0; i+1 < len(spec.Elems); i += 2 {
		if spec.Elems[i].Str == name {
			return spec.Elems[i+1].Int
		}
	}
	return -1000
}

const documents = "../docs/commands.md"

// The page about commands is made of the table; -update writes it.
func TestDocumentOfCommandsIsFresh(t *testing.T) {
	var page strings.Builder
	page.WriteString(`# Commands

What Vecino answers. Every command behaves as in Redis ` + command.RedisVersion + `, and each has a script in
command/testdata that says so by examples, its errors included. This page is made
from the command table: ` + "`go test ./command -run Document -update`" + ` writes it.

*At the primary* says where a replica sends the command; all others are answered in
the region where they arrive, as long as the connection's own writes are there.
`)
	var group command.Group
	for _, r := range command.All() {
		if r.Group != group {
			group = r.Group
			fmt.Fprintf(&page, "\n## %s\n\n| command | since | what it does | takes | |\n|---|---|---|---|---|\n", heading(group))
		}
		if r.Conn != nil || r.Read != nil || r.Write != nil {
			line(&page, r)
		}
		for i := range r.Sub {
			line(&page, &r.Sub[i])
		}
	}
	if transcript.Update() {
		if err := os.WriteFile(documents, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(documents)
	if err != nil || string(have) != page.String() {
		t.Errorf("%s isn't what the table says (%v); go test ./command -run Document -update writes it", documents, err)
	}
}

func heading(g command.Group) string {
	words := strings.ReplaceAll(string(g), "-", " ")
	return strings.ToUpper(words[:1]) + words[1:]
}

func line(page *strings.Builder, r *command.Row) {
	escape := strings.NewReplacer("|", `\|`)
	name := strings.ToUpper(strings.ReplaceAll(r.FullName(), "|", " "))
	note := ""
	if r.ToPrimary() {
		note = "at the primary"
	}
	fmt.Fprintf(page, "| `%s` | %s | %s | %s | %s |\n",
		strings.TrimSpace(name+" "+escape.Replace(r.Usage)), r.Since, escape.Replace(r.Summary), escape.Replace(r.Complexity), note)
}

// runner runs one command over and over, as the engine does.
func runner(tb testing.TB, words ...string) func() {
	ks := keyspace.New(1)
	rng := rand.New(rand.NewPCG(1, 2))
	argv := make([][]byte, len(words))
	for i, w := range words {
		argv[i] = []byte(w)
	}
	row, err := command.Resolve(argv)
	if err != nil {
		tb.Fatal(err)
	}
	var (
		args command.Args
		out  resp.Writer
		view keyspace.View
		seq  uint64
	)
	return func() {
		out.Buf = out.Buf[:0]
		args.Start(row, argv)
		if row.Read != nil {
			view = ks.View(0, birth, rng)
			err = row.Read(&view, &args, &out)
		} else {
			seq++
			tx := ks.Begin(0, birth, seq, rng, false)
			err = row.Write(tx, &args, &out)
			tx.End()
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
}

var hot = [][]string{
	{"GET", "key"}, {"SET", "key", "some value"}, {"INCR", "counter"}, {"EXISTS", "key"}, {"TTL", "key"},
	{"SET", "key", "value", "EX", "100"}, {"MGET", "a", "b"}, {"GETRANGE", "key", "0", "1"},
}

func TestHotPathsDoNotAllocate(t *testing.T) {
	for _, words := range hot {
		run := runner(t, words...)
		run()
		if n := testing.AllocsPerRun(1000, run); n != 0 {
			t.Errorf("%q allocates %v times", words, n)
		}
	}
}

func BenchmarkCommand(b *testing.B) {
	for _, words := range hot {
		b.Run(strings.Join(words, "_"), func(b *testing.B) {
			run := runner(b, words...)
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
		})
	}
}
