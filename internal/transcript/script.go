package transcript

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"vecino/resp"
)

// Script is a file taken apart.
type Script struct {
	Steps []*Step
	NotOn map[string]string // players that don't play it, and why

	lines []string
}

// Step is one command with its answer, something received, or a directive
// that does something.
type Step struct {
	Line    int // counted from 1
	Conn    string
	Argv    []string
	Receive bool
	Want    string

	Sorted int // 1 by elements, 2 by pairs
	About  int64
	Like   bool
	Except map[string]string

	Time     time.Duration
	Password string

	end int // index of the line behind the answer
}

var (
	prompt    = regexp.MustCompile(`^([a-z][a-z0-9]*)?([<>])(?: (.*))?$`)
	directive = regexp.MustCompile(`^# (sorted|sorted pairs|like|about (\d+)|time \+(\d+)|password (\S+)|(except|not on) (\w+): (.+))$`)
	// A comment that begins like this is a directive with a mistake in it.
	mistaken = regexp.MustCompile(`^# *(sorted|like|about|time|password|except|not on)\b`)
)

// Parse takes the text of a script apart.
func Parse(text string) (*Script, error) {
	s := &Script{NotOn: map[string]string{}, lines: strings.Split(strings.TrimSuffix(text, "\n"), "\n")}
	step := &Step{}
	for i := 0; i < len(s.lines); i++ {
		line := s.lines[i]
		at := func(format string, args ...any) error {
			return fmt.Errorf("line %d: %s", i+1, fmt.Sprintf(format, args...))
		}
		if line == "" {
			continue
		}
		if strings.HasPrefix(line, "#") {
			d := directive.FindStringSubmatch(line)
			if d == nil && mistaken.MatchString(line) {
				return nil, at("unknown directive %q", line)
			}
			if d == nil {
				continue
			}
			if done := s.direct(step, d); done {
				step.Line, step.end = i+1, i+1
				s.Steps = append(s.Steps, step)
				step = &Step{}
			}
			continue
		}
		m := prompt.FindStringSubmatch(line)
		if m == nil {
			return nil, at("an answer to no command: %q", line)
		}
		step.Line, step.Conn, step.Receive = i+1, m[1], m[2] == "<"
		words, ok := resp.SplitWords([]byte(m[3]), nil)
		if !ok || (len(words) == 0) != step.Receive {
			return nil, at("words of a command expected behind >, none behind <: %q", line)
		}
		for _, w := range words {
			step.Argv = append(step.Argv, string(w))
		}
		from := i + 1
		for i+1 < len(s.lines) && s.lines[i+1] != "" && !prompt.MatchString(s.lines[i+1]) && !strings.HasPrefix(s.lines[i+1], "#") {
			i++
		}
		step.end = i + 1
		step.Want = strings.Join(s.lines[from:step.end], "\n")
		s.Steps = append(s.Steps, step)
		step = &Step{}
	}
	return s, nil
}

// direct obeys a directive and reports whether it is a step by itself.
func (s *Script) direct(step *Step, d []string) (done bool) {
	number := func(text string) int64 { n, _ := strconv.ParseInt(text, 10, 64); return n }
	switch word, _, _ := strings.Cut(d[1], " "); word {
	case "sorted":
		step.Sorted = 1 + strings.Count(d[1], "pairs")
	case "like":
		step.Like = true
	case "about":
		step.About = number(d[2])
	case "time":
		step.Time = time.Duration(number(d[3])) * time.Millisecond
		return true
	case "password":
		step.Password = d[4]
		return true
	case "except":
		if step.Except == nil {
			step.Except = map[string]string{}
		}
		step.Except[d[6]] = d[7]
	case "not":
		s.NotOn[d[6]] = d[7]
	}
	return false
}

func (s *Script) locks() bool {
	return slices.ContainsFunc(s.Steps, func(s *Step) bool { return s.Password != "" })
}

// command is the line of a step that asks for an answer.
func (s *Step) command() string {
	if s.Receive {
		return s.Conn + "<"
	}
	return s.Conn + "> " + strings.Join(s.Argv, " ")
}

// sorted puts the elements of v, or of the array inside [cursor, array], in
// order: single ones, or pairs.
func sorted(v resp.Value, each int) resp.Value {
	if len(v.Elems) == 2 && v.Elems[0].Kind == resp.KindBulk && v.Elems[1].Kind == resp.KindArray {
		v.Elems = []resp.Value{v.Elems[0], sorted(v.Elems[1], each)}
		return v
	}
	if v.Kind == resp.KindMap {
		each = 2
	}
	groups := slices.Collect(slices.Chunk(v.Elems, each))
	slices.SortStableFunc(groups, func(a, b []resp.Value) int {
		return strings.Compare(a[0].String(), b[0].String())
	})
	v.Elems = slices.Concat(groups...)
	return v
}
