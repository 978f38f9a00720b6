package main

import (
	"fmt"
	"os"
	"strings"
)

// A document keeps what is generated between markers, which Markdown doesn't
// show, and the rest of it is written by hand:
//
//	<!-- bench:server -->
//	…
//	<!-- /bench:server -->

// rewriteFile puts a section's new text into a document.
func rewriteFile(file, section, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("document of the figures: %w", err)
	}
	changed, err := rewrite(string(old), section, text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(changed), 0o644)
}

// rewrite replaces what is between the markers of a section.
func rewrite(document, section, text string) (string, error) {
	open, closing := "<!-- bench:"+section+" -->\n", "<!-- /bench:"+section+" -->"
	before, rest, ok := strings.Cut(document, open)
	if !ok {
		return "", fmt.Errorf("there is no line %s", strings.TrimSpace(open))
	}
	_, after, ok := strings.Cut(rest, closing)
	if !ok {
		return "", fmt.Errorf("%s isn't followed by %s", strings.TrimSpace(open), closing)
	}
	return before + open + "\n" + strings.TrimSpace(text) + "\n\n" + closing + after, nil
}

// table is a table in Markdown: the first column reads, the others count.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) String() string {
	var b strings.Builder
	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(t.head)
	rule := []string{"---"}
	for range t.head[1:] {
		rule = append(rule, "---:")
	}
	line(rule)
	for _, r := range t.rows {
		line(r)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// judged shows a figure, and that it misses its aim if it does.
func judged(figure string, ok bool) string {
	if ok {
		return figure
	}
	return "**" + figure + "**"
}
