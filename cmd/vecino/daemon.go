package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
)

// secret reads a token from the environment. On the command line every user
// of the machine could read it.
func secret(variable string) (string, error) {
	token := os.Getenv(variable)
	if token == "" {
		return "", fmt.Errorf("a token is needed in $%s", variable)
	}
	return token, nil
}

// logFlag adds --log-level to a daemon and returns what makes its logger.
func logFlag(cmd *cobra.Command) func(w io.Writer) *slog.Logger {
	level := new(slog.LevelVar)
	cmd.Flags().TextVar(level, "log-level", level, "least level that is logged: DEBUG, INFO, WARN or ERROR")
	return func(w io.Writer) *slog.Logger {
		return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})).With("part", cmd.Name())
	}
}
