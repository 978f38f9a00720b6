package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"vecino/node"
	"vecino/region"
)

// nodeCommand is the data-plane process.
func nodeCommand() *cobra.Command {
	cfg := node.Config{Version: version, OwnProcess: true}
	var (
		code  string
		port  int
		edges []string
	)
	c := &cobra.Command{
		Use:   "node",
		Short: "Run a node: the process that keeps databases and answers their clients",
		Long: `Run a node. It registers with the fleet, keeps the databases that the fleet
places here, and answers connections that edges bring with a PROXY header.

With --standalone it serves one database to plain connections instead, so that
any Redis tool can be pointed at it:

  vecino node --standalone --port 6379 --state DIR`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Region = region.Code(code)
			if cfg.Standalone {
				if cfg.Proxy == "" {
					cfg.Proxy = fmt.Sprintf("127.0.0.1:%d", port)
				}
				if cfg.ID == "" {
					cfg.ID = "standalone"
				}
			} else if _, ok := region.Lookup(cfg.Region); !ok {
				return fmt.Errorf("region %q not found; see vecino node --help", code)
			}
			for _, e := range edges {
				prefix, err := netip.ParsePrefix(e)
				if err != nil {
					return fmt.Errorf("--edges: %w", err)
				}
				cfg.Edges = append(cfg.Edges, prefix)
			}
			cfg.Logger = logger()
			n, err := node.Start(cfg)
			if err != nil {
				return err
			}
			<-cmd.Context().Done()
			return n.Close()
		},
	}
	logFlag(c)
	f := c.Flags()
	f.StringVar(&cfg.ID, "id", "", "name of this node in the fleet, such as mad-1")
	f.StringVar(&code, "region", "", "code of the region that it is in, such as mad")
	f.StringVar(&cfg.State, "state", filepath.Join(stateHome(), "node"), "directory for everything that survives a restart")
	f.StringVar(&cfg.Proxy, "listen", "", "host:port for edges, with PROXY headers; with --standalone for clients")
	f.IntVar(&port, "port", 6379, "with --standalone: port on 127.0.0.1")
	f.StringVar(&cfg.Link, "link", "", "host:port for other nodes")
	f.StringVar(&cfg.Gossip, "gossip", "", "host:port of this node in the pool")
	f.StringSliceVar(&cfg.Join, "join", nil, "host:port of others in the pool")
	f.StringVar(&cfg.Admin, "admin", "", "host:port for /healthz and /metrics")
	f.StringVar(&cfg.Fleet, "fleet", "", "URL of the fleet")
	f.StringVar(&cfg.Token, "token", os.Getenv(fleetTokenVariable), "token for the fleet (default $"+fleetTokenVariable+")")
	f.StringSliceVar(&edges, "edges", nil, "address prefixes from which PROXY headers are taken (default: this machine)")
	f.StringVar(&cfg.Cert, "cert", "", "certificate of this node for links to others")
	f.StringVar(&cfg.Key, "key", "", "its private key")
	f.StringVar(&cfg.CA, "ca", "", "who vouches for the certificates of other nodes")
	f.IntVar(&cfg.Loops, "loops", 0, "event loops (default: one a core)")
	f.Int64Var(&cfg.CheckpointBytes, "checkpoint-bytes", 256<<20, "journal that may come together before databases are written out in the background, which hurries at four times as much")
	f.Int64Var(&cfg.SegmentBytes, "segment-bytes", 64<<20, "size of the journal's files, which are allocated in advance")
	f.Var(&cfg.Memory, "memory", "how much memory the node may take, such as 512mb; beyond it values that are not in use are on disk only (default: 70% of the machine's, the control group's or ulimit -v's)")
	f.DurationVar(&cfg.Idle, "idle", 10*time.Minute, "after how long without use a database leaves memory until its next command; 0 is never")
	f.BoolVar(&cfg.World, "world", false, "take simulated distances from PUT /world on the admin address")
	f.BoolVar(&cfg.Profile, "pprof", false, "offer profiles under /debug/pprof/ on the admin address")
	f.BoolVar(&cfg.Debug, "enable-debug-command", false, "answer DEBUG SLEEP, which is for tests")
	f.BoolVar(&cfg.Standalone, "standalone", false, "serve one database to plain connections")
	f.StringVar(&cfg.Durability, "durability", "", "with --standalone: when a write is on disk: no, everysec (default) or always")
	f.StringVar(&cfg.Password, "password", "", "with --standalone: the database's password")
	f.Int64Var(&cfg.Limits.DataBytes, "max-data-bytes", 0, "with --standalone: how much data the database may hold (default: any)")
	f.Int64Var(&cfg.Limits.Connections, "max-clients", 0, "with --standalone: how many clients may be connected (default: any)")
	f.Int64Var(&cfg.Limits.CommandsPerS, "max-commands", 0, "with --standalone: commands a second, beyond which they are slowed down (default: any)")
	f.Int64Var(&cfg.Limits.RequestBytes, "max-request-bytes", 0, "with --standalone: how long a request may be (default: 1 GiB)")
	f.Int64Var(&cfg.Limits.RecordBytes, "max-record-bytes", 0, "with --standalone: how large a key with its value may become (default: any)")
	return c
}
