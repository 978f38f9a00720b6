package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"vecino/platform"
	"vecino/region"
)

func platformCommand() *cobra.Command {
	var (
		c       platform.Config
		regions []string
	)
	cmd := &cobra.Command{
		Use:   "platform",
		Short: "Run the platform daemon: organisations, addresses, routes, the users' API",
		Long: `Run the platform daemon: organisations, addresses, routes, the users' API.

Its token at the fleet is read from $` + fleetTokenVariable + `, the edges' from
$` + edgeTokenVariable + `. A token in $` + userTokenVariable + ` is given the personal organisation.`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&c.Listen, "listen", "127.0.0.1:7200", "host:port of the API")
	f.StringVar(&c.Admin, "admin", "", "host:port of /healthz and /metrics")
	f.StringVar(&c.Dir, "state", filepath.Join(stateHome(), "platform"), "directory of the embedded etcd and of the key that seals passwords")
	f.StringSliceVar(&c.Etcd, "etcd", nil, "endpoints of an external etcd, instead of the embedded one")
	f.StringVar(&c.Fleet, "fleet", "http://127.0.0.1:7100", "URL of the fleet's API")
	f.IntVar(&c.LoopbackPort, "loopback-port", 0, "give databases loopback addresses with this port (a world on one machine)")
	f.StringSliceVar(&regions, "regions", nil, "regions with loopback addresses, in an order that must not change")
	logFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if c.FleetToken, err = secret(fleetTokenVariable); err != nil {
			return err
		}
		if c.EdgeToken, err = secret(edgeTokenVariable); err != nil {
			return err
		}
		c.UserToken = os.Getenv(userTokenVariable)
		for _, r := range regions {
			c.Regions = append(c.Regions, region.Code(r))
		}
		c.Logger = logger()
		return platform.Run(cmd.Context(), c)
	}
	return cmd
}
