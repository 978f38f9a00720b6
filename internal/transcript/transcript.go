// Package transcript plays conversations with a Redis server and compares
// what is answered with what stands in a file.
//
// The files are the specification of the commands (command/testdata). The same
// file is played on whatever answers commands, a Player each: handlers on a
// keyspace alone, a node, a replica that forwards, a real redis-server. This
// package knows none of them.
//
// A script reads like a terminal with redis-cli:
//
//	# Comments, and blank lines, are free.
//	> SET greeting "hello, world"
//	OK
//	> STRLEN greeting
//	(integer) 12
//
// Words are split and quoted as in redis-cli. A name before the sign is
// another connection, made when it is first named:
//
//	a> BLPOP jobs 0
//	(waits)
//	b> RPUSH jobs sweep
//	(integer) 1
//	a<
//	1) "jobs"
//	2) "sweep"
//
// "(waits)" says that no answer came, and NAME< is what arrives later: the
// answer after all, a message of a channel, the second answer of SUBSCRIBE.
// "(closed)" is the end of a connection, by the server.
//
// A word {a} is the number of connection a: what CLIENT ID answered there.
//
// Some comments are directives. These are about the next command:
//
//	# sorted           the elements come in any order; they stand here in order
//	# sorted pairs     the same for fields and values in turn
//	# about N          whole numbers may be off by up to N
//	# like             the reply is a regular expression, one line for each line
//	# except NAME: WHY the player of that name answers otherwise, for that reason
//
// A reply of the form [cursor, [elements]] is sorted within the inner array.
// An exception that is none any more fails. The others stand for themselves:
//
//	# time +N          N milliseconds go by
//	# password WORD    from now on, connections begin without authentication
//	# not on NAME: WHY that player doesn't play this script at all
//
// Tests that import this package have a flag -update, which writes what the
// player answered into the file. Read the difference before you believe it.
package transcript

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"vecino/resp"
)

var update = flag.Bool("update", false, "write what was answered into the scripts and golden files")

// Update reports whether the flag -update was given. Tests with golden files
// of other kinds use the same flag.
func Update() bool { return *update }

// A Player answers the commands of one script.
type Player interface {
	// Do sends a command on a connection and returns its first answer.
	Do(conn string, argv []string) Answer
	// Next is what comes on a connection without having been asked for now.
	Next(conn string) Answer
	// Pass lets time go by.
	Pass(d time.Duration)
}

// Locked is a Player for which scripts may set a password. Others skip the
// scripts that do.
type Locked interface {
	Player
	Password(word string)
}

// Answer is a reply, or why there is none.
type Answer struct {
	resp.Value
	Waits  bool // the command is waiting for something
	Closed bool // the server has closed the connection
}

// String is how a script writes the answer.
func (a Answer) String() string {
	switch {
	case a.Waits:
		return "(waits)"
	case a.Closed:
		return "(closed)"
	}
	return a.Value.String()
}

// Options say how scripts are played.
type Options struct {
	Name   string // of the player, as exceptions name it
	Golden bool   // its answers are those that -update writes
}

// RunDir plays all scripts below a directory, each as a test of its own with
// a player of its own.
func RunDir(t *testing.T, dir string, opts Options, player func(t *testing.T) Player) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*", "*.txt"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts below %s (%v)", dir, err)
	}
	for _, path := range paths {
		name, _ := filepath.Rel(dir, path)
		t.Run(filepath.ToSlash(strings.TrimSuffix(name, ".txt")), func(t *testing.T) {
			Run(t, path, opts, player)
		})
	}
}

// Run plays one script.
func Run(t *testing.T, path string, opts Options, player func(t *testing.T) Player) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	script, err := Parse(string(text))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if why, ok := script.NotOn[opts.Name]; ok {
		t.Skip("not on " + opts.Name + ": " + why)
	}
	p := player(t)
	if _, ok := p.(Locked); !ok && script.locks() {
		t.Skip("this player has no password to set")
	}
	p = &numbering{p, map[string]string{}}
	if *update && opts.Golden {
		if err := os.WriteFile(path, []byte(script.rewritten(p, opts)), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	failed := 0
	for _, s := range script.Steps {
		if wrong := s.play(p, opts); wrong != "" {
			t.Errorf("%s:%d: %s", path, s.Line, wrong)
			if failed++; failed == 10 {
				t.Fatal("and so on")
			}
		}
	}
}

// play does one step and tells what is wrong with the answer, if anything is.
func (s *Step) play(p Player, opts Options) (wrong string) {
	if s.Argv == nil && !s.Receive {
		s.act(p)
		return ""
	}
	answer := s.ask(p)
	same, err := s.matches(answer)
	if err != nil {
		return err.Error()
	}
	if why, ok := s.Except[opts.Name]; ok {
		if same {
			return fmt.Sprintf("%s\nanswers alike now; take the exception for %s away (%s)", s.command(), opts.Name, why)
		}
		return ""
	}
	if same {
		return ""
	}
	return fmt.Sprintf("%s\n--- got\n%s\n--- want\n%s", s.command(), s.text(answer), s.Want)
}

func (s *Step) act(p Player) {
	if s.Time > 0 {
		p.Pass(s.Time)
	}
	if s.Password != "" {
		p.(Locked).Password(s.Password)
	}
}

func (s *Step) ask(p Player) Answer {
	if s.Receive {
		return p.Next(s.Conn)
	}
	return p.Do(s.Conn, s.Argv)
}

// text is the answer as it would stand in the script.
func (s *Step) text(a Answer) string {
	if s.Sorted > 0 {
		a.Value = sorted(a.Value, s.Sorted)
	}
	return a.String()
}

var integer = regexp.MustCompile(`\(integer\) (-?\d+)`)

func (s *Step) matches(a Answer) (bool, error) {
	got := s.text(a)
	switch {
	case s.Like:
		re, err := regexp.Compile(`\A(?:` + s.Want + `)\z`)
		if err != nil {
			return false, fmt.Errorf("%s: %w", s.command(), err)
		}
		return re.MatchString(got), nil
	case s.About > 0:
		return integer.ReplaceAllString(got, "#") == integer.ReplaceAllString(s.Want, "#") && s.close(got), nil
	}
	return got == s.Want, nil
}

// close reports whether the integers in got differ little from those wanted.
func (s *Step) close(got string) bool {
	want := integer.FindAllStringSubmatch(s.Want, -1)
	for i, m := range integer.FindAllStringSubmatch(got, -1) {
		g, _ := resp.ParseInt([]byte(m[1]))
		w, _ := resp.ParseInt([]byte(want[i][1]))
		if g-w > s.About || w-g > s.About {
			return false
		}
	}
	return true
}

// rewritten plays the script and returns its text with the player's answers.
func (s *Script) rewritten(p Player, opts Options) string {
	var out strings.Builder
	next := 0
	for _, step := range s.Steps {
		for ; next < step.Line; next++ { // the lines before it and its own
			out.WriteString(s.lines[next] + "\n")
		}
		if step.Argv == nil && !step.Receive {
			step.act(p)
			continue
		}
		answer := step.ask(p)
		text := step.text(answer)
		_, excepted := step.Except[opts.Name]
		if same, _ := step.matches(answer); same || excepted {
			text = step.Want
		}
		out.WriteString(text + "\n")
		next = step.end
	}
	for ; next < len(s.lines); next++ {
		out.WriteString(s.lines[next] + "\n")
	}
	return out.String()
}
