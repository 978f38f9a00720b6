// Package cli is what the verbs a person types have in common: finding the
// platform, asking, printing, and knowing when a database answers.
//
// A noun is a package below, a verb a file in it. Everything they do goes
// through package api, so that any HTTP caller can do the same.
package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"vecino/api"
)

// Environment variables the CLI reads.
const (
	StateVariable = "VECINO_STATE" // directory of a world on this machine
	APIVariable   = "VECINO_API"   // URL of another platform
	TokenVariable = "VECINO_TOKEN" // token for it
)

// World is what a world running on this machine leaves in its state directory
// so that the CLI finds it.
type World struct {
	API   string `json:"api"`
	Token string `json:"token"`
}

const worldFile = "world.json"

// Write leaves the world in a state directory, readable by its owner alone.
func (w World) Write(dir string) error {
	b, err := json.Marshal(w)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, worldFile)
	if err := os.WriteFile(file+".new", append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write world: %w", err)
	}
	return os.Rename(file+".new", file)
}

// DefaultState is the state directory when none is named: $VECINO_STATE, or
// vecino in the user's state directory.
func DefaultState() string {
	if dir := os.Getenv(StateVariable); dir != "" {
		return dir
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "vecino")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "."
	}
	return filepath.Join(home, ".local", "state", "vecino")
}

// Session is one run of a verb: where the platform is and how to talk to the
// person.
type Session struct {
	State string // --state
	API   string // --api
	JSON  bool   // --json

	In  io.Reader
	Out io.Writer // what was asked for
	Log io.Writer // progress and remarks
}

// Flags adds the flags every verb has.
func (s *Session) Flags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&s.State, "state", "", "directory of the world on this machine (default $"+StateVariable+" or the user's state directory)")
	f.StringVar(&s.API, "api", os.Getenv(APIVariable), "URL of another platform, with the token in $"+TokenVariable)
	f.BoolVar(&s.JSON, "json", false, "answer in JSON")
}

// Bind takes input and output from a command.
func (s *Session) Bind(cmd *cobra.Command) {
	s.In, s.Out, s.Log = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
}

// Platform finds the platform.
func (s *Session) Platform() (*api.Platform, error) {
	if s.API != "" {
		token := os.Getenv(TokenVariable)
		if token == "" {
			return nil, fmt.Errorf("a platform at %s needs a token: set $%s", s.API, TokenVariable)
		}
		return api.NewPlatform(s.API, token), nil
	}
	dir := cmp.Or(s.State, DefaultState())
	b, err := os.ReadFile(filepath.Join(dir, worldFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no world in %s: start one with `vecino up`, or name another with --state, or a platform with --api", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("find the world: %w", err)
	}
	var w World
	if err := json.Unmarshal(b, &w); err != nil || w.API == "" {
		return nil, fmt.Errorf("%s in %s is damaged: start the world again with `vecino up`", worldFile, dir)
	}
	return api.NewPlatform(w.API, cmp.Or(w.Token, os.Getenv(TokenVariable))), nil
}

// Explain makes an error of a call one a person can act on.
func (s *Session) Explain(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		if s.API != "" {
			return fmt.Errorf("no platform answers at %s: %w", s.API, op.Err)
		}
		return fmt.Errorf("the world in %s isn't running: start it with `vecino up`", cmp.Or(s.State, DefaultState()))
	}
	return err
}

// Interactive reports whether there is somebody to ask.
func (s *Session) Interactive() bool {
	in, ok := s.In.(*os.File)
	out, ok2 := s.Out.(*os.File)
	return !s.JSON && ok && ok2 && term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(out.Fd()))
}

// PrintJSON answers a verb with --json.
func (s *Session) PrintJSON(v any) error {
	e := json.NewEncoder(s.Out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// ExitError carries the exit status of a program that was run for the person,
// who has seen its output.
type ExitError int

func (e ExitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Fail prints an error as the last thing a run does, and returns the exit
// status. With --json it is the API's error object, whatever its origin.
func Fail(w io.Writer, err error, asJSON bool) int {
	if exit, ok := errors.AsType[ExitError](err); ok {
		return int(exit)
	}
	e, ok := errors.AsType[*api.Error](err)
	if asJSON {
		if !ok {
			e = &api.Error{Code: "failed", Message: err.Error()}
		}
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		enc.Encode(map[string]*api.Error{"error": e})
		return 1
	}
	if !ok {
		fmt.Fprintf(w, "Error: %v\n", err)
		return 1
	}
	fmt.Fprintf(w, "Error: %s\n", e.Message)
	if len(e.Choices) > 0 {
		fmt.Fprintln(w, "Choose from:")
		for _, c := range e.Choices {
			fmt.Fprintf(w, "  %s\n", c)
		}
	}
	return 1
}
