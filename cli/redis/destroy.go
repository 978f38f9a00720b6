package redis

import (
	"fmt"

	"github.com/spf13/cobra"

	"vecino/cli"
)

func destroy(s *cli.Session) *cobra.Command {
	var (
		org string
		yes bool
	)
	cmd := &cobra.Command{
		Use:     "destroy [name]",
		Aliases: []string{"delete"},
		Short:   "Destroy a database and its data",
		Args:    cobra.MaximumNArgs(1),
	}
	orgFlag(cmd, &org)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	cmd.RunE = run(s, func(v verb) error {
		name, err := v.name(org, "Select a database to destroy:")
		if err != nil {
			return err
		}
		d, err := v.platform.Database(v, org, name)
		if err != nil {
			return err
		}
		if !yes {
			if !v.Interactive() {
				return fmt.Errorf("--yes must be given when there is no terminal to ask on: destroying %s is not reversible", name)
			}
			fmt.Fprintln(v.Out, "Destroying a Redis database is not reversible.")
			sure, err := v.Confirm(fmt.Sprintf("Destroy Redis database %s?", name))
			if err != nil {
				return err
			}
			if !sure {
				return cli.ErrAborted
			}
		}
		if err := v.platform.DestroyDatabase(v, d.Organization, name); err != nil {
			return err
		}
		if v.JSON {
			return v.PrintJSON(map[string]string{"destroyed": name})
		}
		fmt.Fprintf(v.Out, "Your Redis database %s was destroyed.\n", name)
		return nil
	})
	return cmd
}
