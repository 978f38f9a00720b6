package redis

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vecino/api"
	"vecino/cli"
)

func connect(s *cli.Session) *cobra.Command {
	var org, region string
	cmd := &cobra.Command{
		Use:   "connect [name] [-- redis-cli arguments]",
		Short: "Open redis-cli on a database",
		Long: `Open redis-cli on a database, as seen from one region: that of the primary
unless --region names another. What follows -- goes to redis-cli, whose exit
status is this command's.`,
		Example: `  vecino redis connect cookherenow-redis --region scl
  vecino redis connect cookherenow-redis -- GET recipe:1`,
		Args: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); n > 1 || n < 0 && len(args) > 1 {
				return fmt.Errorf("only one database can be named; arguments of redis-cli come after --")
			}
			return nil
		},
	}
	orgFlag(cmd, &org)
	cmd.Flags().StringVarP(&region, "region", "r", "", "region to connect from")
	cmd.RunE = run(s, func(v verb) error {
		program, err := exec.LookPath("redis-cli")
		if err != nil {
			return fmt.Errorf("redis-cli is not installed; any Redis client will do with the URL from `vecino redis status`")
		}
		var rest []string // for redis-cli
		if n := cmd.ArgsLenAtDash(); n >= 0 {
			v.args, rest = v.args[:n], v.args[n:]
		}
		u, err := v.endpoint(org, region)
		if err != nil {
			return err
		}
		host, port, err := net.SplitHostPort(u.Host)
		if err != nil {
			return fmt.Errorf("read the database's URL: %w", err)
		}
		password, _ := u.User.Password()
		// Not bound to the context: ctrl-C is redis-cli's to understand.
		c := exec.Command(program, append([]string{"-h", host, "-p", port}, rest...)...)
		c.Env = append(os.Environ(), "REDISCLI_AUTH="+password)
		c.Stdin, c.Stdout, c.Stderr = v.In, v.Out, v.Log
		err = c.Run()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
			return cli.ExitError(exit.ExitCode())
		}
		return err
	})
	return cmd
}

// endpoint is where the named database is called from a region.
func (v verb) endpoint(org, region string) (*url.URL, error) {
	name, err := v.name(org, "Select a database to connect to")
	if err != nil {
		return nil, err
	}
	d, err := v.platform.Database(v, org, name)
	if err != nil {
		return nil, err
	}
	if d.State != "ready" {
		return nil, fmt.Errorf("database %s is %s", name, d.State)
	}
	var choices []string
	for _, e := range d.Endpoints {
		if e.URL == "" {
			continue
		}
		if region == "" && e.Region == d.PrimaryRegion || strings.EqualFold(region, string(e.Region)) {
			return url.Parse(e.URL)
		}
		choices = append(choices, string(e.Region))
	}
	if region == "" {
		return nil, &api.Error{Code: api.Unavailable, Field: "region", Message: fmt.Sprintf("the primary region %s has no edge to connect from; name another with --region", d.PrimaryRegion), Choices: choices}
	}
	slices.Sort(choices)
	return nil, api.Unknown("region", region, choices)
}
