package transcript

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vecino/resp"
)

// parrot answers every command with what stands behind its name, in the
// order in which they are asked.
type parrot struct {
	answers map[string][]Answer
	passed  time.Duration
}

func (p *parrot) Do(conn string, argv []string) Answer { return p.pop(conn + argv[0]) }
func (p *parrot) Next(conn string) Answer              { return p.pop(conn + "<") }
func (p *parrot) Pass(d time.Duration)                 { p.passed += d }

func (p *parrot) pop(key string) Answer {
	list := p.answers[key]
	if len(list) == 0 {
		return Answer{Closed: true}
	}
	p.answers[key] = list[1:]
	return list[0]
}

func bulk(s string) resp.Value { return resp.Value{Kind: resp.KindBulk, Str: s} }

func array(elems ...resp.Value) resp.Value { return resp.Value{Kind: resp.KindArray, Elems: elems} }

func reply(v resp.Value) []Answer { return []Answer{{Value: v}} }

const script = `# A comment.
> GET
"x"

# time +1500
# sorted
> KEYS
1) "a"
2) "b"
# sorted pairs
> HGETALL
1) "a"
2) "2"
3) "b"
4) "1"
# sorted
> SCAN
1) "0"
2) 1) "a"
   2) "b"
# about 5
> PTTL
(integer) 100
# like
> ID
\(integer\) \d+
# except other: a reason
> ODD
"x"
a> BLPOP 'two words' ""
(waits)
a<
"late"
a> END
(closed)
`

func newParrot() *parrot {
	return &parrot{answers: map[string][]Answer{
		"GET":     reply(bulk("x")),
		"KEYS":    reply(array(bulk("b"), bulk("a"))),
		"HGETALL": reply(array(bulk("b"), bulk("1"), bulk("a"), bulk("2"))),
		"SCAN":    reply(array(bulk("0"), array(bulk("b"), bulk("a")))),
		"PTTL":    reply(resp.Value{Kind: resp.KindInt, Int: 96}),
		"ID":      reply(resp.Value{Kind: resp.KindInt, Int: 7}),
		"ODD":     reply(bulk("x")),
		"aBLPOP":  {{Waits: true}},
		"a<":      reply(bulk("late")),
	}}
}

// wrongs plays a script and returns what is wrong with the answers.
func wrongs(t *testing.T, text string, p Player, opts Options) (list []string) {
	t.Helper()
	s, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range s.Steps {
		if wrong := step.play(p, opts); wrong != "" {
			list = append(list, wrong)
		}
	}
	return list
}

func TestRightAnswersPass(t *testing.T) {
	p := newParrot()
	if got := wrongs(t, script, p, Options{Name: "one"}); got != nil {
		t.Errorf("%q", got)
	}
	if p.passed != 1500*time.Millisecond {
		t.Errorf("%v went by", p.passed)
	}
}

func TestWrongAnswersFail(t *testing.T) {
	for name, change := range map[string]func(p *parrot){
		"another value":               func(p *parrot) { p.answers["GET"] = reply(bulk("y")) },
		"another element":             func(p *parrot) { p.answers["KEYS"] = reply(array(bulk("b"), bulk("c"))) },
		"another pair":                func(p *parrot) { p.answers["HGETALL"] = reply(array(bulk("b"), bulk("2"), bulk("a"), bulk("1"))) },
		"another cursor":              func(p *parrot) { p.answers["SCAN"] = reply(array(bulk("1"), array(bulk("b"), bulk("a")))) },
		"a number too far off":        func(p *parrot) { p.answers["PTTL"] = reply(resp.Value{Kind: resp.KindInt, Int: 94}) },
		"a string for a number":       func(p *parrot) { p.answers["PTTL"] = reply(bulk("100")) },
		"not like the pattern":        func(p *parrot) { p.answers["ID"] = reply(bulk("7")) },
		"an answer instead of a wait": func(p *parrot) { p.answers["aBLPOP"] = reply(bulk("x")) },
		"nothing where much comes":    func(p *parrot) { p.answers["a<"] = nil },
		"a connection that lives":     func(p *parrot) { p.answers["aEND"] = reply(bulk("x")) },
	} {
		p := newParrot()
		change(p)
		if got := wrongs(t, script, p, Options{Name: "one"}); len(got) != 1 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestExceptionMustBeOne(t *testing.T) {
	p := newParrot()
	p.answers["ODD"] = reply(bulk("other"))
	if got := wrongs(t, script, p, Options{Name: "other"}); got != nil {
		t.Errorf("%q", got)
	}
	if got := wrongs(t, script, newParrot(), Options{Name: "other"}); len(got) != 1 || !strings.Contains(got[0], "take the exception") {
		t.Errorf("a stale exception passes: %q", got)
	}
}

func TestUpdateKeepsWhatIsRight(t *testing.T) {
	s, err := Parse(script)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.rewritten(newParrot(), Options{Name: "one"}); got != script {
		t.Errorf("--- rewritten\n%s\n--- script\n%s", got, script)
	}
	p := newParrot()
	p.answers["KEYS"] = reply(array(bulk("z"), bulk("q")))
	want := strings.Replace(script, "1) \"a\"\n2) \"b\"\n#", "1) \"q\"\n2) \"z\"\n#", 1)
	if got := s.rewritten(p, Options{Name: "one"}); got != want {
		t.Errorf("--- rewritten\n%s\n--- want\n%s", got, want)
	}
}

func TestScriptsWithMistakesAreRefused(t *testing.T) {
	for _, text := range []string{
		"OK",
		"# about five\n> GET\nx",
		"# time 100",
		"# time +1s",
		"# except redis",
		"# sorted by name",
		">",
		"> GET \"x",
		"a< GET",
	} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
	if _, err := Parse("# timely comments are comments"); err != nil {
		t.Error(err)
	}
}

func TestScriptThatIsNotForAPlayerIsSkipped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.txt")
	if err := os.WriteFile(path, []byte("# not on one: it can't\n> GET\nwrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	skipped := true
	t.Run("skips", func(t *testing.T) {
		Run(t, path, Options{Name: "one"}, func(*testing.T) Player {
			skipped = false
			return newParrot()
		})
	})
	if !skipped {
		t.Error("it was played")
	}
}

func TestInMultiUnwrapsTheAnswer(t *testing.T) {
	p := &parrot{answers: map[string][]Answer{
		"GET":     reply(resp.Value{Kind: resp.KindSimple, Str: "QUEUED"}),
		"EXEC":    reply(array(bulk("x"))),
		"SET":     reply(resp.Value{Kind: resp.KindError, Str: "ERR arity"}),
		"DISCARD": reply(resp.Value{Kind: resp.KindSimple, Str: "OK"}),
	}}
	m := InMulti(p)
	if got := m.Do("", []string{"GET", "k"}).String(); got != `"x"` {
		t.Errorf("got %s", got)
	}
	if got := m.Do("", []string{"SET"}).String(); got != "(error) ERR arity" {
		t.Errorf("got %s", got)
	}
	if len(p.answers["DISCARD"]) != 0 {
		t.Error("the transaction of a command that was refused is left open")
	}
}
