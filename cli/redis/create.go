package redis

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vecino/api"
	"vecino/cli"
)

func create(s *cli.Session) *cobra.Command {
	var (
		o                      settings
		org, name, region, key string
	)
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create a database",
		Long: `Create a database, and wait until it answers in every region.

What no flag says is asked, if there is a terminal. Without one --region is
needed; the name is generated, there are no replicas, eviction is off and the
plan is Free unless flags say otherwise; durability is the plan's. A database is made whole or not at
all: run it again if it failed.`,
		Example: `  vecino redis create
  vecino redis create --name cookherenow-redis --region cdg --replica-regions den,gru,jnb,scl --enable-eviction
  vecino redis create --region mad --json`,
		Args: cobra.NoArgs,
	}
	orgFlag(cmd, &org)
	cmd.Flags().StringVarP(&name, "name", "n", "", "name; generated when blank")
	cmd.Flags().StringVarP(&region, "region", "r", "", "primary region, which can't be changed later")
	cmd.Flags().StringVar(&key, "idempotency-key", "", "creations under one key are one creation, also in several runs")
	o.flags(cmd)
	cmd.RunE = run(s, func(v verb) error {
		req, err := v.askCreate(cmd, &o, org, name, region)
		if err != nil {
			return err
		}
		if key == "" {
			key = rand.Text()
		}
		start := time.Now()
		d, err := v.platform.CreateDatabase(v, key, req)
		if api.CodeOf(err) == api.Unavailable {
			// The answer may have been lost; under the same key, asking
			// again can't make a second one.
			d, err = v.platform.CreateDatabase(v, key, req)
		}
		if err != nil {
			return err
		}
		answered := time.Now()
		ready, waitErr := cli.WaitReady(v, d.Endpoints, answered)
		if waitErr == nil {
			d, waitErr = v.allLive(d)
		}
		total := time.Since(start)
		if waitErr != nil {
			waitErr = fmt.Errorf("database %s was created, but %w; look at `vecino redis status %s`", d.Name, waitErr, d.Name)
		}
		if v.JSON {
			if err := v.PrintJSON(createdJSON{d, milliseconds(total), milliseconds(answered.Sub(start)), readyJSON(ready)}); err != nil {
				return err
			}
			return waitErr
		}
		if waitErr != nil {
			return waitErr
		}
		names, err := v.titles()
		if err != nil {
			return err
		}
		printCreated(v, d, ready, total, names)
		return nil
	})
	return cmd
}

// allLive waits until each copy of a new database has begun to answer itself,
// and not through another. There is nothing to copy yet, so it is soon.
func (v verb) allLive(d api.Database) (api.Database, error) {
	deadline := time.NewTimer(cli.ReadyTimeout)
	defer deadline.Stop()
	pause := time.NewTicker(livePause)
	defer pause.Stop()
	for {
		now, err := v.platform.Database(v, d.Organization, d.Name)
		if err != nil {
			return d, err
		}
		d = now
		var waiting []string
		for _, e := range d.Endpoints {
			if e.Role != api.ServedByEdge && e.State != "live" {
				waiting = append(waiting, string(e.Region))
			}
		}
		if len(waiting) == 0 {
			return d, nil
		}
		select {
		case <-v.Done():
			return d, context.Cause(v)
		case <-deadline.C:
			return d, fmt.Errorf("%s not live within %s", strings.Join(waiting, ", "), cli.ReadyTimeout)
		case <-pause.C:
		}
	}
}

// createdJSON is the answer of create with --json: the database, and how long
// it took, in milliseconds: all in all, until the platform's answer, and from
// then until each region answered PING.
type createdJSON struct {
	api.Database
	TotalMS  float64                `json:"total_ms"`
	CreateMS float64                `json:"create_ms"`
	ReadyMS  map[api.Region]float64 `json:"ready_ms"`
}

func readyJSON(ready cli.Ready) map[api.Region]float64 {
	ms := map[api.Region]float64{}
	for r, d := range ready {
		ms[r] = milliseconds(d)
	}
	return ms
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

// askCreate puts the request together from flags and, if somebody is there,
// questions.
func (v verb) askCreate(cmd *cobra.Command, o *settings, org, name, region string) (req api.CreateDatabase, err error) {
	req = api.CreateDatabase{Organization: org, Name: name, PrimaryRegion: api.Region(strings.ToLower(region)), Plan: o.plan}
	replicas, saidReplicas, err := o.saysReplicas(cmd)
	if err != nil {
		return req, err
	}
	eviction, saidEviction := o.saysEviction()
	req.ReplicaRegions, req.Durability = replicas, api.Durability(o.durability)
	req.Eviction, req.EvictionPolicy = eviction, o.policy
	if !v.Interactive() {
		if region == "" {
			return req, fmt.Errorf("--region must be given when there is no terminal to ask on; see `vecino redis create --help`")
		}
		return req, nil
	}

	regions, err := v.platform.Regions(v)
	if err != nil {
		return req, err
	}
	named := req.ReplicaRegions
	if region != "" {
		named = append([]api.Region{req.PrimaryRegion}, named...)
	}
	if err := checkRegions(regions, named...); err != nil {
		return req, err
	}
	if req.Organization == "" {
		if req.Organization, err = v.askOrganization(); err != nil {
			return req, err
		}
	}
	if !cmd.Flags().Changed("name") {
		if req.Name, err = v.Input("Choose a Redis database name (leave blank to generate one):", nil); err != nil {
			return req, err
		}
	}
	if region == "" {
		answer, err := v.Select("Choose a primary region:", regionChoices(regions, ""), "")
		if err != nil {
			return req, err
		}
		req.PrimaryRegion = api.Region(answer)
	}
	if !saidEviction {
		if req.Eviction, err = v.Confirm("Would you like to enable eviction?"); err != nil {
			return req, err
		}
	}
	if choices := regionChoices(regions, req.PrimaryRegion); !saidReplicas && len(choices) > 0 {
		answers, err := v.MultiSelect("Optionally, choose one or more replica regions:", choices, nil)
		if err != nil {
			return req, err
		}
		req.ReplicaRegions = codes(answers)
	}
	if req.Plan == "" {
		plans, err := v.platform.Plans(v)
		if err != nil {
			return req, err
		}
		if req.Plan, err = v.Select("Select a Vecino Redis plan", planChoices(plans), ""); err != nil {
			return req, err
		}
	}
	return req, nil
}

// askOrganization asks which, if there is a choice.
func (v verb) askOrganization() (string, error) {
	list, err := v.platform.Organizations(v)
	if err != nil {
		return "", err
	}
	if len(list) == 1 {
		fmt.Fprintf(v.Log, "automatically selected %s organization: %s\n", list[0].Type, list[0].Name)
		return list[0].Slug, nil
	}
	var choices []cli.Choice
	for _, o := range list {
		choices = append(choices, cli.Choice{Title: fmt.Sprintf("%s (%s)", o.Name, o.Slug), Value: o.Slug})
	}
	return v.Select("Select Organization:", choices, "")
}

func printCreated(v verb, d api.Database, ready cli.Ready, total time.Duration, names map[api.Region]string) {
	when := "."
	if len(ready) > 0 {
		when = " in " + cli.Seconds(total) + "."
	}
	fmt.Fprintf(v.Out, "\nYour Vecino Redis database %s is ready%s\n\n  %s\n\n", d.Name, when, d.URL)
	var rows [][]string
	for _, e := range d.Endpoints {
		answered := "-"
		if t, ok := ready[e.Region]; ok {
			answered = fmt.Sprintf("%.0f ms", milliseconds(t))
		}
		rows = append(rows, []string{"  " + title(names, e.Region), e.Role, hostOf(e.URL), answered})
	}
	cli.Table(v.Out, []string{"  Region", "Role", "Address", "Answered"}, rows)
	fmt.Fprintf(v.Out, "\nNext:\n  vecino redis connect %s\n  vecino redis status %s\n", d.Name, d.Name)
}

// hostOf is a URL without its password.
func hostOf(url string) string {
	if i := strings.LastIndex(url, "@"); i >= 0 {
		return url[i+1:]
	}
	return "-"
}
