package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"vecino/fleet"
)

func fleetCommand() *cobra.Command {
	var c fleet.Config
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Run the fleet daemon: plans, databases, placement, primaries",
		Long: `Run the fleet daemon: plans, databases, placement, primaries.

The platform's token is read from $` + platformTokenVariable + `, the nodes' from
$` + nodeTokenVariable + `.`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&c.Listen, "listen", "127.0.0.1:7100", "host:port of the API")
	f.StringVar(&c.Admin, "admin", "", "host:port of /healthz and /metrics")
	f.StringVar(&c.Dir, "state", filepath.Join(stateHome(), "fleet"), "directory of the embedded etcd")
	f.StringSliceVar(&c.Etcd, "etcd", nil, "endpoints of an external etcd, instead of the embedded one")
	logFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if c.PlatformToken, err = secret(platformTokenVariable); err != nil {
			return err
		}
		if c.NodeToken, err = secret(nodeTokenVariable); err != nil {
			return err
		}
		c.Logger = logger()
		return fleet.Run(cmd.Context(), c)
	}
	return cmd
}
