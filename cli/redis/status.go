package redis

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vecino/api"
	"vecino/cli"
)

func status(s *cli.Session) *cobra.Command {
	var org string
	cmd := &cobra.Command{
		Use:   "status [name]",
		Short: "Show a database and how it is in each region",
		Long: `Show a database and how it is in each region.

Position is the last write a region shows, as epoch:number; lag is how far it
is behind the primary. Delayed is how many commands had to wait because their
region was over the commands a second of the plan. In Memory is how much of the
data is not on disk alone, and how many of the commands found all they needed there; a database
that nobody has used for some time is asleep, and its next command wakes it. An edge has no copy of its own: its connections go to
the nearest region that has one.`,
		Args: cobra.MaximumNArgs(1),
	}
	orgFlag(cmd, &org)
	cmd.RunE = run(s, func(v verb) error {
		name, err := v.name(org, "Select a database:")
		if err != nil {
			return err
		}
		d, err := v.platform.Database(v, org, name)
		if err != nil {
			return err
		}
		if v.JSON {
			return v.PrintJSON(d)
		}
		names, err := v.titles()
		if err != nil {
			return err
		}
		printStatus(v, d, names)
		return nil
	})
	return cmd
}

func printStatus(v verb, d api.Database, names map[api.Region]string) {
	fields := [][2]string{
		{"ID", fmt.Sprint(d.ID)},
		{"Name", d.Name},
		{"Organization", d.Organization},
	}
	if d.State != "ready" {
		cli.Fields(v.Out, append(fields, [2]string{"State", d.State}))
		return
	}
	cli.Fields(v.Out, append(fields, [][2]string{
		{"Plan", fmt.Sprintf("%s (%s)", d.Plan, cli.Bytes(d.Limits.DataBytes))},
		{"Data", used(d)},
		{"Each Region", each(d.Limits)},
		{"Primary Region", title(names, d.PrimaryRegion)},
		{"Read Regions", join(d.ReplicaRegions)},
		{"Eviction", evicts(d)},
		{"Durability", string(d.Durability)},
		{"Private Address", d.Address.String()},
		{"URL", d.URL},
	}...))
	var rows [][]string
	for _, e := range d.Endpoints {
		row := []string{title(names, e.Region), e.Role, "-", hostOf(e.URL), "-", "-", "-", "-", "-", "-", "-", "-", "-"}
		if e.Role != api.ServedByEdge {
			row = []string{
				title(names, e.Region), e.Role, e.Node, hostOf(e.URL), string(e.State),
				fmt.Sprintf("%d:%d", e.Applied.Epoch, e.Applied.Seq), fmt.Sprintf("%d ms", e.LagMS),
				cli.Bytes(e.Bytes), inMemory(e), fmt.Sprint(e.Keys), fmt.Sprint(e.Connections),
				fmt.Sprint(e.CommandsPerS), fmt.Sprint(e.Delayed),
			}
		}
		rows = append(rows, row)
	}
	fmt.Fprintln(v.Out)
	cli.Table(v.Out, []string{"Region", "Role", "Node", "Address", "State", "Position", "Lag", "Size", "In Memory", "Keys", "Connections", "Commands/s", "Delayed"}, rows)
}

// inMemory says how much of a copy is in memory, and how often that sufficed.
func inMemory(e api.Endpoint) string {
	switch {
	case e.Asleep:
		return "asleep"
	case e.ColdKeys == 0:
		return "all"
	}
	return fmt.Sprintf("%s (%.0f%% hits)", cli.Bytes(e.Resident), 100*e.HitRatio)
}

// evicts says whether keys are evicted, and which.
func evicts(d api.Database) string {
	if !d.Eviction || d.EvictionPolicy == "" {
		return cli.Yes(d.Eviction)
	}
	return cli.Yes(true) + " (" + d.EvictionPolicy + ")"
}

// used says how much of the plan's data is in use: what the primary has, whose
// size decides.
func used(d api.Database) string {
	for _, e := range d.Endpoints {
		if e.Role != "primary" {
			continue
		}
		if limit := d.Limits.DataBytes; limit > 0 {
			return fmt.Sprintf("%s of %s (%d %%)", cli.Bytes(e.Bytes), cli.Bytes(limit), e.Bytes*100/limit)
		}
		return cli.Bytes(e.Bytes)
	}
	return "-"
}

// each says what the plan allows the clients of each region.
func each(l api.Limits) string {
	var parts []string
	for _, limit := range []struct {
		n    int64
		text string
	}{{l.Connections, fmt.Sprintf("%d connections", l.Connections)}, {l.CommandsPerS, fmt.Sprintf("%d commands/s", l.CommandsPerS)}} {
		if limit.n > 0 {
			parts = append(parts, limit.text)
		}
	}
	if len(parts) == 0 {
		return "no limits"
	}
	return "up to " + strings.Join(parts, ", ")
}
