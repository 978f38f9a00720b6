package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"vecino/cli"
	"vecino/region"
	"vecino/world"
)

// worldCommand changes a world while it runs.
func worldCommand() *cobra.Command {
	v := &worldVerbs{}
	cmd := &cobra.Command{
		Use:   "world",
		Short: "Change the world on this machine while it runs",
		Long: `Change the world on this machine while it runs: how far its regions are from
each other, which of them can't hear each other, and which of its nodes live.
What was changed stays so over a restart of the world.`,
	}
	f := cmd.PersistentFlags()
	f.StringVar(&v.state, "state", "", "directory of the world (default $"+cli.StateVariable+" or the user's state directory)")
	f.BoolVar(&v.json, "json", false, "answer with the world's status in JSON")
	cmd.AddCommand(v.status(), v.delay(), v.cut(), v.heal(), v.lag(), v.kill(), v.start())
	return cmd
}

type worldVerbs struct {
	state string
	json  bool
}

// run asks the world, and prints its status or what was done.
func (v *worldVerbs) run(cmd *cobra.Command, verb string, o world.Order, done string) error {
	c, err := world.Connect(cmp.Or(v.state, stateHome()))
	if err != nil {
		return err
	}
	var s world.Status
	if verb == "status" {
		s, err = c.Status(cmd.Context())
	} else {
		s, err = c.Order(cmd.Context(), verb, o)
	}
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	switch {
	case v.json:
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(s)
	case verb == "status":
		p := newPen(out)
		p.line("%s (pid %d), up since %s", s.State, s.PID, s.Started.Format("2 Jan 15:04:05"))
		p.processes(s)
		p.roundTrips(s)
	default:
		fmt.Fprintln(out, done)
	}
	return nil
}

func (v *worldVerbs) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what runs, and how far the regions are from each other",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return v.run(cmd, "status", world.Order{}, "") },
	}
}

func (v *worldVerbs) delay() *cobra.Command {
	return &cobra.Command{
		Use:   "delay REGION REGION [MS]",
		Short: "Set how long bytes take between two regions, each way; without MS, as on the globe",
		Args:  cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := pair(args)
			done := fmt.Sprintf("Between %s and %s it takes %s each way, as on the globe.", o.A, o.B, millis(float64(region.OneWay(o.A, o.B).Microseconds())/1000))
			if len(args) == 3 {
				ms, err := milliseconds(args[2])
				if err != nil {
					return err
				}
				o.MS = &ms
				done = fmt.Sprintf("Between %s and %s it takes %s each way.", o.A, o.B, millis(ms))
			}
			return v.run(cmd, "delay", o, done)
		},
	}
}

func (v *worldVerbs) cut() *cobra.Command {
	oneWay := false
	cmd := &cobra.Command{
		Use:   "cut REGION REGION",
		Short: "Let nothing through between two regions",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := pair(args)
			done := fmt.Sprintf("Nothing gets through between %s and %s.", o.A, o.B)
			if o.One = oneWay; oneWay {
				done = fmt.Sprintf("Nothing gets from %s to %s; the way back is open.", o.A, o.B)
			}
			return v.run(cmd, "cut", o, done)
		},
	}
	cmd.Flags().BoolVar(&oneWay, "one-way", false, "only from the first region to the second")
	return cmd
}

func (v *worldVerbs) heal() *cobra.Command {
	return &cobra.Command{
		Use:   "heal [REGION REGION]",
		Short: "Undo a cut, or all of them",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return fmt.Errorf("two regions are needed, or none to heal all; got %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return v.run(cmd, "heal", world.Order{}, "Nothing is cut any more.")
			}
			o := pair(args)
			return v.run(cmd, "heal", o, fmt.Sprintf("%s and %s hear each other.", o.A, o.B))
		},
	}
}

func (v *worldVerbs) lag() *cobra.Command {
	return &cobra.Command{
		Use:   "lag REGION MS",
		Short: "Let replicated entries, and nothing else, arrive later in a region; 0 ends it",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ms, err := milliseconds(args[1])
			if err != nil {
				return err
			}
			o := world.Order{A: code(args[0]), MS: &ms}
			return v.run(cmd, "lag", o, fmt.Sprintf("Replicated entries reach %s %s later.", o.A, millis(ms)))
		},
	}
}

func (v *worldVerbs) kill() *cobra.Command {
	return v.process("kill", "End a region's node, as kill -9 does", "is dead; `vecino world start` brings it back")
}

func (v *worldVerbs) start() *cobra.Command {
	return v.process("start", "Bring back what kill has ended", "is up")
}

// process is a verb about one process.
func (v *worldVerbs) process(verb, short, done string) *cobra.Command {
	edge := false
	cmd := &cobra.Command{
		Use:   verb + " REGION",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := world.Order{A: code(args[0]), Edge: edge}
			what := "node"
			if edge {
				what = "edge"
			}
			return v.run(cmd, verb, o, fmt.Sprintf("The %s in %s %s.", what, o.A, done))
		},
	}
	cmd.Flags().BoolVar(&edge, "edge", false, "the edge instead of the node")
	return cmd
}

func code(s string) region.Code { return region.Code(strings.ToLower(s)) }

func pair(args []string) world.Order { return world.Order{A: code(args[0]), B: code(args[1])} }

func milliseconds(s string) (float64, error) {
	ms, err := strconv.ParseFloat(strings.TrimSuffix(s, "ms"), 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number of milliseconds", s)
	}
	return ms, nil
}
