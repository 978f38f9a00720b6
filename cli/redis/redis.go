// Package redis is the noun `vecino redis`: databases, and a file for each
// verb.
package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vecino/api"
	"vecino/cli"
)

// Command is `vecino redis` with its verbs.
func Command() *cobra.Command {
	s := &cli.Session{}
	cmd := &cobra.Command{
		Use:   "redis",
		Short: "Create and manage Redis databases",
		Long: `Create and manage Redis databases.

A database has a primary region, which takes the writes, and any number of
replica regions, which answer reads nearby and forward writes. Every region
with an edge can be connected from. All verbs answer in JSON with --json, and
every question they ask has a flag.`,
	}
	s.Flags(cmd)
	cmd.AddCommand(
		create(s), list(s), status(s), update(s), connect(s), proxy(s), reset(s), plans(s), destroy(s),
	)
	return cmd
}

// verb is one run of a verb.
type verb struct {
	*cli.Session
	context.Context
	platform *api.Platform
	args     []string
}

// run adapts a verb: it finds the platform, and words errors for people.
func run(s *cli.Session, f func(v verb) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		s.Bind(cmd)
		platform, err := s.Platform()
		if err != nil {
			return err
		}
		return s.Explain(f(verb{s, cmd.Context(), platform, args}))
	}
}

// name is the database the verb is about: its argument, or what the person
// picks.
func (v verb) name(org, title string) (string, error) {
	if len(v.args) == 1 {
		return v.args[0], nil
	}
	databases, err := v.platform.Databases(v, org)
	if err != nil {
		return "", err
	}
	var choices []cli.Choice
	var names []string
	for _, d := range databases {
		choices = append(choices, cli.Choice{Title: fmt.Sprintf("%s (%s) %s", d.Name, d.PrimaryRegion, d.Organization), Value: d.Name})
		names = append(names, d.Name)
	}
	if !v.Interactive() || len(choices) == 0 {
		return "", &api.Error{Code: api.Invalid, Field: "name", Message: "the name of a database must be given", Choices: names}
	}
	return v.Select(title, choices, "")
}

// orgFlag adds --org.
func orgFlag(cmd *cobra.Command, org *string) {
	cmd.Flags().StringVarP(org, "org", "o", "", "organization")
}

// settings are the flags create and update share.
type settings struct {
	replicas   []string
	noReplicas bool
	plan       string
	enable     bool
	disable    bool
	policy     string
	durability string
}

func (o *settings) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&o.replicas, "replica-regions", nil, "replica regions, comma-separated")
	f.BoolVar(&o.noReplicas, "no-replicas", false, "no replica regions")
	f.StringVar(&o.plan, "plan", "", "plan, by name or id")
	f.BoolVar(&o.enable, "enable-eviction", false, "remove keys when the plan's size is reached")
	f.BoolVar(&o.disable, "disable-eviction", false, "refuse writes when the plan's size is reached")
	f.StringVar(&o.policy, "eviction-policy", "", "which keys are removed: allkeys-lru, allkeys-lfu, allkeys-random, volatile-lru, volatile-lfu, volatile-random, volatile-ttl or optimistic-volatile (the default)")
	f.StringVar(&o.durability, "durability", "", "when a write is on disk: no (in time), everysec (within a second) or always (before its reply)")
}

// check refuses flags that contradict each other.
func (o *settings) check(cmd *cobra.Command) error {
	switch {
	case o.noReplicas && cmd.Flags().Changed("replica-regions"):
		return fmt.Errorf("--replica-regions and --no-replicas can't both be given")
	case o.disable && o.policy != "" && !strings.EqualFold(o.policy, "noeviction"):
		return fmt.Errorf("--eviction-policy and --disable-eviction can't both be given")
	case o.enable && o.disable:
		return fmt.Errorf("--enable-eviction and --disable-eviction can't both be given")
	}
	if o.durability = strings.ToLower(o.durability); o.durability != "" && !slices.Contains(api.Durabilities, api.Durability(o.durability)) {
		return fmt.Errorf("--durability is no, everysec or always, not %q", o.durability)
	}
	return nil
}

// saysReplicas reports whether the flags settle the replica regions, and how.
func (o *settings) saysReplicas(cmd *cobra.Command) (regions []api.Region, said bool, err error) {
	if err := o.check(cmd); err != nil {
		return nil, false, err
	}
	if !cmd.Flags().Changed("replica-regions") {
		return []api.Region{}, o.noReplicas, nil
	}
	for _, r := range o.replicas {
		r = strings.ToLower(strings.TrimSpace(r))
		if r == "" {
			return nil, true, fmt.Errorf("--replica-regions has an empty region; say --no-replicas for none")
		}
		regions = append(regions, api.Region(r))
	}
	if len(regions) == 0 {
		return nil, true, fmt.Errorf("--replica-regions is empty; say --no-replicas for none")
	}
	return regions, true, nil
}

// saysEviction reports whether the flags settle eviction, and how. A policy
// alone settles it, too; what it means for eviction is for the fleet to say.
func (o *settings) saysEviction() (eviction, said bool) {
	return o.enable, o.enable || o.disable || o.policy != ""
}

func regionChoices(regions []api.RegionInfo, but api.Region) []cli.Choice {
	var choices []cli.Choice
	for _, r := range regions {
		if r.Code != but {
			choices = append(choices, cli.Choice{Title: r.Name, Value: string(r.Code)})
		}
	}
	return choices
}

func planChoices(plans []api.Plan) []cli.Choice {
	var choices []cli.Choice
	for _, p := range plans {
		choices = append(choices, cli.Choice{Title: p.Name + ": " + p.Description, Value: p.ID})
	}
	return choices
}

func codes(answers []string) []api.Region {
	regions := make([]api.Region, len(answers))
	for i, a := range answers {
		regions[i] = api.Region(a)
	}
	return regions
}

// checkRegions refuses regions that aren't there before any question is
// asked. Without questions the platform does it.
func checkRegions(known []api.RegionInfo, named ...api.Region) error {
	for _, r := range named {
		if !slices.ContainsFunc(known, func(k api.RegionInfo) bool { return k.Code == r }) {
			var choices []string
			for _, k := range known {
				choices = append(choices, string(k.Code))
			}
			slices.Sort(choices)
			return api.Unknown("region", string(r), choices)
		}
	}
	return nil
}

// join lists regions as tables show them.
func join(regions []api.Region) string {
	if len(regions) == 0 {
		return "None"
	}
	list := make([]string, len(regions))
	for i, r := range regions {
		list[i] = string(r)
	}
	return strings.Join(list, ",")
}

// titles maps codes to the regions' names.
func (v verb) titles() (map[api.Region]string, error) {
	regions, err := v.platform.Regions(v)
	if err != nil {
		return nil, err
	}
	names := map[api.Region]string{}
	for _, r := range regions {
		names[r.Code] = r.Name
	}
	return names, nil
}

func title(names map[api.Region]string, r api.Region) string {
	if name := names[r]; name != "" {
		return name
	}
	return string(r)
}
