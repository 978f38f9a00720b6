package redis

import (
	"fmt"

	"github.com/spf13/cobra"

	"vecino/cli"
)

func list(s *cli.Session) *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List databases",
		Args:    cobra.NoArgs,
	}
	orgFlag(cmd, &org)
	cmd.RunE = run(s, func(v verb) error {
		databases, err := v.platform.Databases(v, org)
		if err != nil {
			return err
		}
		if v.JSON {
			return v.PrintJSON(databases)
		}
		if len(databases) == 0 {
			fmt.Fprintln(v.Out, "No databases yet. Create one with `vecino redis create`.")
			return nil
		}
		var rows [][]string
		for _, d := range databases {
			if d.State != "ready" {
				rows = append(rows, []string{d.Name, d.Organization, "(" + d.State + ")"})
				continue
			}
			rows = append(rows, []string{d.Name, d.Organization, d.Plan, cli.Yes(d.Eviction), string(d.PrimaryRegion), join(d.ReplicaRegions)})
		}
		cli.Table(v.Out, []string{"Name", "Org", "Plan", "Eviction", "Primary Region", "Read Regions"}, rows)
		return nil
	})
	return cmd
}
