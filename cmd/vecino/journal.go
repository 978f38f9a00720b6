package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"vecino/catalog"
	"vecino/internal/vfs"
	"vecino/journal"
)

// journalCommand is how an operator looks at journals on disk.
func journalCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "journal",
		Short: "Look at a node's journals on disk",
	}
	c.AddCommand(journalVerifyCommand(), journalDumpCommand())
	return c
}

func journalVerifyCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "verify DIR ...",
		Short: "Read whole journals and say what is wrong with them",
		Long: `Read every entry of each journal, such as STATE/journal-0 of a node, and check
sums, order and history. Nothing is changed. A torn tail is what a crash leaves
and no damage: the node cuts it when it starts. Damage is reported with the file
and the place, and the exit status is 1.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, dirs []string) error {
			var errs []error
			for _, dir := range dirs {
				report, err := journal.Verify(vfs.OS, dir)
				switch {
				case err != nil:
					if report.Entries > 0 {
						fmt.Fprintf(cmd.OutOrStdout(), "%s: %d entries of %d databases are whole, then it is not\n", dir, report.Entries, report.Databases)
					}
					errs = append(errs, err)
					continue
				case len(report.Breaks) > 0:
					errs = append(errs, fmt.Errorf("%s: %d entries don't follow the one before them", dir, len(report.Breaks)))
				}
				if asJSON {
					b, err := json.MarshalIndent(report, "", "  ")
					if err != nil {
						return err
					}
					fmt.Fprintln(cmd.OutOrStdout(), string(b))
					continue
				}
				printReport(cmd, dir, report)
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	return c
}

func printReport(cmd *cobra.Command, dir string, r *journal.Report) {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s: %d entries of %d databases, up to offset %d; before offset %d all had been synced\n", dir, r.Entries, r.Databases, r.Tail, r.OnDisk)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  Segment\tBegun\tFrom\tTo\tEntries\tFile bytes")
	for _, s := range r.Segments {
		begun := s.Begun.UTC().Format("2006-01-02 15:04:05")
		if s.Superseded {
			begun = "superseded: written again after a failed sync"
		}
		fmt.Fprintf(w, "  %s\t%s\t%d\t%d\t%d\t%d\n", s.Name, begun, s.Start, s.End, s.Entries, s.Bytes)
	}
	w.Flush()
	if r.Cut != nil {
		fmt.Fprintf(out, "  The next start cuts the tail: %s\n", r.Cut)
	}
	for _, b := range r.Breaks {
		fmt.Fprintf(out, "  Offset %d, database %d at %d-%d: %s\n", b.Offset, b.DB, b.Position.Epoch, b.Position.Seq, b.Why)
	}
}

func journalDumpCommand() *cobra.Command {
	var (
		from uint64
		db   uint64
	)
	c := &cobra.Command{
		Use:   "dump DIR",
		Short: "List the entries of a journal, without what tenants stored",
		Long: `List the entries of a journal, one a line: offset, file and byte, database,
position, time, hashes of the history before and after, and size. What tenants stored is
not shown. A damaged journal is listed up to the damage, which is then reported with the
file and the place, and the exit status is 1. Nothing is changed.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return journal.Dump(cmd.OutOrStdout(), vfs.OS, args[0], journal.Offset(from), catalog.ID(db))
		},
	}
	c.Flags().Uint64Var(&from, "from", 0, "offset to begin at")
	c.Flags().Uint64Var(&db, "db", 0, "only entries of this database (0: of all)")
	return c
}
