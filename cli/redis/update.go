package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vecino/api"
	"vecino/cli"
)

// Bounds of waiting for new replicas. A large database takes longer to copy,
// which goes on whether or not somebody watches.
const (
	liveTimeout = 2 * time.Minute
	livePause   = 10 * time.Millisecond
)

func update(s *cli.Session) *cobra.Command {
	var (
		o   settings
		org string
	)
	cmd := &cobra.Command{
		Use:   "update [name]",
		Short: "Change replica regions, plan, eviction or durability",
		Long: `Change the replica regions, the plan, eviction or durability of a database, while
it runs.

--replica-regions is the whole new set: regions left out lose their copy. The
command waits until new replicas are live. What no flag says stays as it is;
without any flag the questions are asked, if there is a terminal.`,
		Example: `  vecino redis update cookherenow-redis
  vecino redis update cookherenow-redis --replica-regions den,gru,jnb,scl
  vecino redis update cookherenow-redis --plan "Fixed 1GB"`,
		Args: cobra.MaximumNArgs(1),
	}
	orgFlag(cmd, &org)
	o.flags(cmd)
	cmd.RunE = run(s, func(v verb) error {
		name, err := v.name(org, "Select a database to update:")
		if err != nil {
			return err
		}
		before, err := v.platform.Database(v, org, name)
		if err != nil {
			return err
		}
		if before.State != "ready" {
			return fmt.Errorf("database %s is %s; try again in a moment", name, before.State)
		}
		req, err := v.askUpdate(cmd, &o, before)
		if err != nil {
			return err
		}
		start := time.Now()
		after, err := v.platform.UpdateDatabase(v, before.Organization, name, req)
		if err != nil {
			return err
		}
		after, live, err := v.untilLive(before, after, start)
		if err != nil {
			return err
		}
		if v.JSON {
			return v.PrintJSON(updatedJSON{after, readyJSON(live)})
		}
		fmt.Fprintf(v.Out, "Your Vecino Redis database %s was updated.\n", name)
		return nil
	})
	return cmd
}

// updatedJSON is the answer of update with --json: the database, and after how
// many milliseconds each new replica was live.
type updatedJSON struct {
	api.Database
	LiveMS map[api.Region]float64 `json:"live_ms"`
}

func (v verb) askUpdate(cmd *cobra.Command, o *settings, d api.Database) (req api.UpdateDatabase, err error) {
	replicas, saidReplicas, err := o.saysReplicas(cmd)
	if err != nil {
		return req, err
	}
	if saidReplicas {
		req.ReplicaRegions = &replicas
	}
	if o.plan != "" {
		req.Plan = &o.plan
	}
	if eviction, said := o.saysEviction(); said {
		if o.enable || o.disable {
			req.Eviction = &eviction
		}
		if o.policy != "" {
			req.EvictionPolicy = &o.policy
		}
	}
	if o.durability != "" {
		req.Durability = new(api.Durability(o.durability))
	}
	if saidReplicas || req.Plan != nil || req.Eviction != nil || req.EvictionPolicy != nil || req.Durability != nil {
		return req, nil
	}
	if !v.Interactive() {
		return req, fmt.Errorf("nothing to change: give --replica-regions, --no-replicas, --plan, --enable-eviction, --disable-eviction, --eviction-policy or --durability")
	}

	regions, err := v.platform.Regions(v)
	if err != nil {
		return req, err
	}
	have := make([]string, len(d.ReplicaRegions))
	for i, r := range d.ReplicaRegions {
		have[i] = string(r)
	}
	answers, err := v.MultiSelect("Choose replica regions, or unselect to remove replica regions:", regionChoices(regions, d.PrimaryRegion), have)
	if err != nil {
		return req, err
	}
	chosen := codes(answers)
	plans, err := v.platform.Plans(v)
	if err != nil {
		return req, err
	}
	present := ""
	for _, p := range plans {
		if p.Name == d.Plan {
			present = p.ID
		}
	}
	plan, err := v.Select("Select a Vecino Redis plan", planChoices(plans), present)
	if err != nil {
		return req, err
	}
	question := "Would you like to enable eviction?"
	if d.Eviction {
		question = "Would you like to disable eviction?"
	}
	toggle, err := v.Confirm(question)
	if err != nil {
		return req, err
	}
	req.ReplicaRegions, req.Plan = &chosen, &plan
	if toggle {
		req.Eviction = new(!d.Eviction)
	}
	return req, nil
}

// untilLive waits for the replicas that were added, and tells what happens.
func (v verb) untilLive(before, after api.Database, start time.Time) (api.Database, cli.Ready, error) {
	names, err := v.titles()
	if err != nil {
		return after, nil, err
	}
	for _, r := range before.ReplicaRegions {
		if !slices.Contains(after.ReplicaRegions, r) {
			fmt.Fprintf(v.Log, "- %s removed\n", title(names, r))
		}
	}
	waiting := map[api.Region]bool{}
	for _, r := range after.ReplicaRegions {
		if !slices.Contains(before.ReplicaRegions, r) {
			waiting[r] = true
			fmt.Fprintf(v.Log, "+ %s …\n", title(names, r))
		}
	}
	live := cli.Ready{}
	deadline := time.NewTimer(liveTimeout)
	defer deadline.Stop()
	pause := time.NewTicker(livePause)
	defer pause.Stop()
	for {
		for _, e := range after.Endpoints {
			if waiting[e.Region] && e.State == "live" {
				live[e.Region] = time.Since(start)
				delete(waiting, e.Region)
				fmt.Fprintf(v.Log, "+ %s live after %s\n", title(names, e.Region), cli.Seconds(live[e.Region]))
			}
		}
		if len(waiting) == 0 {
			return after, live, nil
		}
		select {
		case <-v.Done():
			return after, live, context.Cause(v)
		case <-deadline.C:
			var left []string
			for r := range waiting {
				left = append(left, string(r))
			}
			slices.Sort(left)
			return after, live, fmt.Errorf("the database was updated, but %s not live after %s; look at `vecino redis status %s`", strings.Join(left, ", "), liveTimeout, after.Name)
		case <-pause.C:
		}
		if after, err = v.platform.Database(v, after.Organization, after.Name); err != nil {
			return after, live, err
		}
	}
}
