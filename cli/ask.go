package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/huh"
	"golang.org/x/term"
)

// ErrAborted is returned when the person leaves a question with ctrl-C.
var ErrAborted = errors.New("aborted; nothing was changed")

// Choice is one answer of a question: what is shown and what it stands for.
type Choice struct{ Title, Value string }

// tallest is how many choices are shown at once; the rest scrolls.
const tallest = 12

// Input asks for a line of text.
func (s *Session) Input(title string, check func(string) error) (answer string, err error) {
	field := huh.NewInput().Title(title).Value(&answer)
	if check != nil {
		field = field.Validate(check)
	}
	err = s.ask(field)
	answer = strings.TrimSpace(answer)
	s.answered(title, answer, err)
	return answer, err
}

// Select asks for one of some choices; preset is where it starts.
func (s *Session) Select(title string, choices []Choice, preset string) (answer string, err error) {
	answer = preset
	err = s.ask(huh.NewSelect[string]().Title(title).Options(options(choices)...).Height(min(len(choices), tallest) + 1).Value(&answer))
	s.answered(title, titles(choices, []string{answer}), err)
	return answer, err
}

// MultiSelect asks for any of some choices; preset are those ticked at first.
func (s *Session) MultiSelect(title string, choices []Choice, preset []string) (answer []string, err error) {
	answer = preset
	field := huh.NewMultiSelect[string]().Title(title).
		Description("space selects, / filters, enter confirms").
		Options(options(choices)...).Filterable(true).Height(min(len(choices), tallest) + 3).Value(&answer)
	err = s.ask(field)
	s.answered(title, titles(choices, answer), err)
	return answer, err
}

// Confirm asks yes or no; no is preset.
func (s *Session) Confirm(title string) (answer bool, err error) {
	err = s.ask(huh.NewConfirm().Title(title).Value(&answer))
	word := "No"
	if answer {
		word = "Yes"
	}
	s.answered(title, word, err)
	return answer, err
}

// ask shows one question. A terminal that can't draw, or doesn't know how
// large it is, gets plain lines.
func (s *Session) ask(field huh.Field) error {
	plain := os.Getenv("TERM") == "dumb"
	if f, ok := s.Out.(*os.File); ok {
		width, height, err := term.GetSize(int(f.Fd()))
		plain = plain || err != nil || width == 0 || height == 0
	}
	// The sixteen colours of the terminal's own palette suit any background.
	form := huh.NewForm(huh.NewGroup(field)).WithInput(s.In).WithOutput(s.Out).WithShowHelp(false).
		WithTheme(huh.ThemeBase16()).WithAccessible(plain)
	if plain {
		err := form.Run()
		if errors.Is(err, huh.ErrUserAborted) {
			return ErrAborted
		}
		return err
	}
	// Not Run: when a question is left, that ends the program without waiting for who
	// reads keys, and closes what that reads from.
	form.SubmitCmd, form.CancelCmd = tea.Quit, tea.Quit
	_, err := tea.NewProgram(form, tea.WithInput(s.In), tea.WithOutput(s.Out), tea.WithReportFocus()).Run()
	if form.State == huh.StateAborted || errors.Is(err, tea.ErrInterrupted) {
		return ErrAborted
	}
	return err
}

// answered leaves a line of the question behind, since a form vanishes.
func (s *Session) answered(title, answer string, err error) {
	if err != nil {
		return
	}
	if !strings.HasSuffix(title, "?") {
		title = strings.TrimSuffix(title, ":") + ":"
	}
	fmt.Fprintln(s.Out, strings.TrimRight("? "+title+" "+answer, " "))
}

func options(choices []Choice) []huh.Option[string] {
	list := make([]huh.Option[string], len(choices))
	for i, c := range choices {
		list[i] = huh.NewOption(c.Title, c.Value)
	}
	return list
}

func titles(choices []Choice, values []string) string {
	var list []string
	for _, c := range choices {
		for _, v := range values {
			if c.Value == v {
				list = append(list, c.Title)
			}
		}
	}
	return strings.Join(list, ", ")
}
