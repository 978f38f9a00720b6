package main

import (
	"github.com/spf13/cobra"

	"vecino/fleet"
)

// Variables that carry the daemons' secrets.
const (
	fleetTokenVariable = "VECINO_FLEET_TOKEN" // the platform's, at the fleet
	nodeTokenVariable  = "VECINO_NODE_TOKEN"  // the nodes', at the fleet
	edgeTokenVariable  = "VECINO_EDGE_TOKEN"  // the edges', at the platform
	userTokenVariable  = "VECINO_USER_TOKEN"  // the first user's, at the platform
)

func fleetCommand() *cobra.Command {
	var c fleet.Config
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Run the fleet daemon: plans, databases, placement, primaries",
		Long: `Run the fleet daemon: plans, databases, placement, primaries.

The platform's token is read from $` + fleetTokenVariable + `, the nodes' from
$` + nodeTokenVariable + `.`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&c.Listen, "listen", "127.0.0.1:7100", "host:port of the API")
	f.StringVar(&c.Admin, "admin", "", "host:port of /healthz and /metrics")
	f.StringVar(&c.Dir, "state", "", "directory of the embedded etcd")
	f.StringSliceVar(&c.Etcd, "etcd", nil, "endpoints of an external etcd, instead of the embedded one")
	logger := logFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if c.PlatformToken, err = secret(fleetTokenVariable); err != nil {
			return err
		}
		if c.NodeToken, err = secret(nodeTokenVariable); err != nil {
			return err
		}
		c.Logger = logger(cmd.ErrOrStderr())
		return fleet.Run(cmd.Context(), c)
	}
	return cmd
}
