package command

import "vecino/resp"

// helpRow is the row HELP of a container. Its text comes from the table.
func helpRow(since string) Row {
	return Row{
		Name: "HELP", Since: since, Summary: "Shows the subcommands.", Complexity: "O(1)",
		Arity: Exactly(2), Traits: Loading | Stale, Conn: help,
	}
}

func help(_ Client, args *Args, out *resp.Writer) error {
	container := args.row.parent
	out.Array(1 + 2*len(container.Sub))
	out.Simple(container.Name + " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")
	for i := range container.Sub {
		sub := &container.Sub[i]
		if sub.Usage == "" {
			out.Simple(sub.Name)
		} else {
			out.Simple(sub.Name + " " + sub.Usage)
		}
		out.Simple("    " + sub.Summary)
	}
	return nil
}
