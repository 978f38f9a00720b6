package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"vecino/cli"
)

// version is Vecino's own, beside the Redis version whose behaviour it has.
const version = "0.1.0"

// Variables that carry secrets. On the command line every user of the machine
// could read them. Each is named after who shows it, but for the fleet's,
// which is what platform and nodes show there: each has its own.
const (
	fleetTokenVariable    = "VECINO_FLEET_TOKEN"
	platformTokenVariable = "VECINO_PLATFORM_TOKEN" // what the fleet expects of the platform
	nodeTokenVariable     = "VECINO_NODE_TOKEN"     // what the fleet expects of nodes
	edgeTokenVariable     = "VECINO_EDGE_TOKEN"     // what the platform expects of edges
	userTokenVariable     = "VECINO_USER_TOKEN"     // what the platform expects of its first user
)

// secret reads a token from the environment.
func secret(variable string) (string, error) {
	token := os.Getenv(variable)
	if token == "" {
		return "", fmt.Errorf("a token is needed in $%s", variable)
	}
	return token, nil
}

// logLevel is what --log-level sets.
var logLevel slog.LevelVar

// logFlag adds --log-level to a daemon.
func logFlag(cmd *cobra.Command) {
	cmd.Flags().TextVar(&logLevel, "log-level", &logLevel, "least level that is logged: DEBUG, INFO, WARN or ERROR")
}

// logger writes a daemon's events to its standard error.
func logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: &logLevel}))
}

// stateHome is where daemons keep state when no directory is named.
func stateHome() string { return cli.DefaultState() }
