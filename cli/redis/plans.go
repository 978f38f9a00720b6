package redis

import (
	"fmt"

	"github.com/spf13/cobra"

	"vecino/api"
	"vecino/cli"
)

func plans(s *cli.Session) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plans",
		Short: "List the plans a database can have",
		Args:  cobra.NoArgs,
	}
	cmd.RunE = run(s, func(v verb) error {
		list, err := v.platform.Plans(v)
		if err != nil {
			return err
		}
		if v.JSON {
			return v.PrintJSON(list)
		}
		var rows [][]string
		for _, p := range list {
			rows = append(rows, []string{
				p.Name, cli.Bytes(p.Limits.DataBytes), price(p),
				fmt.Sprint(p.Limits.CommandsPerS), fmt.Sprint(p.Limits.Connections), cli.Bytes(p.Limits.RequestBytes), cli.Bytes(p.Limits.RecordBytes),
			})
		}
		cli.Table(v.Out, []string{"Name", "Max Data Size", "Price", "Commands/s", "Connections", "Max Request", "Max Record"}, rows)
		return nil
	})
	return cmd
}

func price(p api.Plan) string {
	switch {
	case p.MonthlyCost > 0:
		return fmt.Sprintf("$%d.%02d/mo", p.MonthlyCost/100, p.MonthlyCost%100)
	case p.PerCommands > 0:
		return fmt.Sprintf("$%d.%02d per 100K commands", p.PerCommands/100, p.PerCommands%100)
	}
	return "Free"
}
