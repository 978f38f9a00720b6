package redis

import (
	"fmt"

	"github.com/spf13/cobra"

	"vecino/cli"
)

func reset(s *cli.Session) *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use:   "reset [name]",
		Short: "Give a database a new password",
		Long: `Give a database a new password. The old one ends at once; connections that
have said it already stay open.`,
		Args: cobra.MaximumNArgs(1),
	}
	orgFlag(cmd, &org)
	cmd.RunE = run(s, func(v verb) error {
		name, err := v.name(org, "Select a database to reset the password of:")
		if err != nil {
			return err
		}
		d, err := v.platform.ResetPassword(v, org, name)
		if err != nil {
			return err
		}
		if v.JSON {
			return v.PrintJSON(d)
		}
		fmt.Fprintf(v.Out, "The password of %s was reset. The URL is now\n\n  %s\n", d.Name, d.URL)
		return nil
	})
	return cmd
}
