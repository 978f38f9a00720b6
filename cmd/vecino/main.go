// Command vecino is all of Vecino in one binary: the verbs a person types, and
// the daemons of a deployment.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"vecino/cli"
	"vecino/world"
)

func main() {
	world.FollowParent()
	os.Exit(run(os.Args[1:]))
}

// run picks the subcommand and returns the exit status.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := command()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	asJSON, _ := cmd.Flags().GetBool("json") // not all have it
	return cli.Fail(os.Stderr, err, asJSON)
}

// command is `vecino` with all it can do. A subcommand is listed here and
// lives in a file of its name.
func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "vecino",
		Short: "Redis that lives next door to its users",
		Long: `Vecino is a Redis service that lives next door to its users: one database, a
primary in one region, copies in others, reachable only on private networks.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		redisCommand(),
		fleetCommand(),
		platformCommand(),
		nodeCommand(),
		journalCommand(),
		edgeCommand(),
		upCommand(),
		worldCommand(),
		demoCommand(),
	)
	return root
}
