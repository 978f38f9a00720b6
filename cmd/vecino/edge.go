package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"vecino/edge"
	"vecino/region"
)

// edgeCommand is the private-network proxy of one region.
func edgeCommand() *cobra.Command {
	var (
		c       edge.Config
		code    string
		keyFile string
	)
	cmd := &cobra.Command{
		Use:   "edge",
		Short: "Run an edge: the proxy that takes clients to the nearest node",
		Long: `Run an edge. It learns from the platform which databases there are, accepts
connections on their addresses, and takes each to the nearest node that serves
the database, with a PROXY header in front.

The platform's token is read from $` + edgeTokenVariable + `.`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&c.ID, "id", "", "name of this edge in the pool (default: its region, and -edge)")
	f.StringVar(&code, "region", "", "code of the region that it is in, such as mad")
	f.StringVar(&c.PlatformURL, "platform", "", "URL of the platform (default: none, and the routes in --state are served)")
	f.StringVar(&c.Endpoint, "endpoint", "", "where tenants reach this edge, as the platform tells them")
	f.StringVar(&c.StateDir, "state", filepath.Join(stateHome(), "edge"), "directory that keeps the routes over a restart")
	f.StringVar(&c.GossipBind, "gossip", "", "host:port of this edge in the pool, such as [::1]:7946 (default: it isn't in one)")
	f.StringSliceVar(&c.GossipJoin, "join", nil, "host:port of others in the pool")
	f.StringVar(&c.Pool, "pool", "", "name of the pool; packets of others are dropped")
	f.StringVar(&c.Admin, "admin", "", "host:port of /healthz and /metrics")
	f.IntVar(&c.ProxyVersion, "proxy-version", 1, "version of the PROXY header, 1 or 2")
	f.StringVar(&keyFile, "proxy-key-file", "", "file with the key that signs PROXY headers of version 2")
	f.BoolVar(&c.World, "world", false, "simulate distances, as PUT /world on the admin address says")
	f.IntVar(&c.SoftLimit, "soft-limit", 0, "connections to one node above which another in its region is preferred (default 10000)")
	f.IntVar(&c.HardLimit, "hard-limit", 0, "connections to one node at which it gets no more (default 12500)")
	f.IntVar(&c.Loops, "loops", 0, "event loops that move bytes (default: one for two cores)")
	logFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		c.Region = region.Code(code)
		if _, ok := region.Lookup(c.Region); !ok {
			return fmt.Errorf("--region: there is no region %q", code)
		}
		if c.ID == "" {
			c.ID = code + "-edge"
		}
		if c.PlatformURL != "" {
			if c.Token, err = secret(edgeTokenVariable); err != nil {
				return err
			}
		}
		if keyFile != "" {
			key, err := os.ReadFile(keyFile)
			if err != nil {
				return fmt.Errorf("read the key for PROXY headers: %w", err)
			}
			if c.SignKey = []byte(strings.TrimSpace(string(key))); len(c.SignKey) == 0 {
				return errors.New("the key for PROXY headers is empty")
			}
		}
		c.Log = logger()
		return edge.Run(cmd.Context(), c)
	}
	return cmd
}
