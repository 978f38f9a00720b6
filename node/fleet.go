package node

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"vecino/api"
	"vecino/catalog"
	"vecino/gossip"
	"vecino/link"
	"vecino/privnet"
	"vecino/region"
)

// fleetLink is what a node hears from the fleet; see reporter for what it tells.
type fleetLink struct {
	node   *Node
	api    *api.Fleet
	synced chan struct{}
	once   sync.Once

	// For the goroutine that watches the catalog.
	nodes   map[string]catalog.Node
	placing []int               // for each shard, how many databases it was given since the watch began
	seen    map[catalog.ID]bool // said to live here since the watch began; nil once all has been said
	ready   bool
}

// join connects the node to the others: links, gossip, and the catalog.
func (n *Node) join(ctx context.Context) (err error) {
	if n.cfg.World {
		n.distance = link.NewDistance(region.Codes(), region.OneWay)
	}
	n.lagged = newDelayLine(func() time.Duration {
		if n.distance == nil {
			return 0
		}
		return n.distance.Lag(n.cfg.Region)
	})
	n.tasks.Go(func() { n.lagged.run(ctx) })

	cfg := link.Config{
		Node: n.cfg.ID, Region: n.cfg.Region, Boot: n.boot, Listen: n.cfg.Link, Token: n.cfg.Token,
		Distance: n.distance, Handler: n, Logger: n.log,
	}
	if n.cfg.Cert != "" {
		if cfg.TLS, err = link.LoadTLS(n.cfg.Cert, n.cfg.Key, n.cfg.CA); err != nil {
			return fmt.Errorf("link certificates: %w", err)
		}
	}
	if n.hub, err = link.Open(cfg); err != nil {
		return fmt.Errorf("listen for nodes: %w", err)
	}
	n.fleet = &fleetLink{
		node: n, api: api.NewFleet(n.cfg.Fleet, n.cfg.Token), synced: make(chan struct{}),
		nodes: make(map[string]catalog.Node), placing: make([]int, len(n.shards)), seen: make(map[catalog.ID]bool),
	}
	n.reports = newReporter(n, n.fleet.api)
	// What the fleet said last is good until it says something else: a node
	// serves also while the fleet is away.
	for rec := range n.records.databases() {
		if rec.CopyOn(n.cfg.ID) != nil {
			n.placeSoon(rec)
		}
	}
	for _, s := range n.shards {
		s.catchUp()
	}
	return nil
}

// placesAtOnce is how many databases a loop gets to know at a time.
const placesAtOnce = 16

// register tells the fleet that this node is there, and starts to listen to
// what it says. It returns when the node knows what lives here.
func (n *Node) register(ctx context.Context) (err error) {
	f := n.fleet
	if n.cfg.Gossip != "" {
		n.gossip, err = gossip.Open(gossip.Config{
			ID: n.cfg.ID, Kind: gossip.Node, Region: n.cfg.Region, Proxy: n.Addr(), Bind: n.cfg.Gossip, Join: n.cfg.Join, Log: n.log,
		})
		if err != nil {
			return fmt.Errorf("join the pool: %w", err)
		}
	}
	self := catalog.Node{ID: n.cfg.ID, Region: n.cfg.Region, Proxy: n.Addr(), Link: n.hub.Addr(), Gossip: n.cfg.Gossip}
	n.tasks.Go(func() {
		for ctx.Err() == nil {
			if err := f.api.RegisterNode(ctx, self); err == nil {
				break
			}
			wait(ctx, 200*time.Millisecond)
		}
		f.machineRestarted(ctx)
		err := f.api.WatchCatalog(ctx, 0, n.cfg.ID, f.event)
		if err != nil && ctx.Err() == nil {
			n.log.Error("catalog lost", "err", err.Error())
		}
	})
	n.tasks.Go(func() { n.reports.run(ctx) })
	return nil
}

// event takes one change of the catalog.
func (f *fleetLink) event(e catalog.Event) error {
	n := f.node
	switch {
	case e.Node != nil:
		f.nodes[e.Node.ID] = *e.Node
		if f.ready {
			f.setPeers()
		}
	case e.Database != nil:
		if e.Database.CopyOn(n.cfg.ID) == nil {
			n.remove(e.Database.ID)
			break
		}
		if f.seen != nil {
			f.seen[e.Database.ID] = true
		}
		if f.ready {
			n.place(e.Database)
			break
		}
		// At first there may be very many. A loop is given some at a time, so that who
		// is served already doesn't wait long.
		if s := n.placeSoon(e.Database); s != nil {
			if f.placing[s.index]++; f.placing[s.index]%placesAtOnce == 0 {
				s.catchUp()
			}
		}
	case e.Gone != 0:
		n.remove(e.Gone)
	case e.Synced:
		for _, s := range n.shards {
			s.catchUp()
		}
		for _, p := range n.all() {
			// Taken away while this node was off, or else the fleet has lost
			// its catalog: nobody is served, and nothing is deleted.
			if id := p.Engine.ID(); f.seen != nil && !f.seen[id] {
				n.log.Warn("the fleet doesn't know of this copy; it is kept on disk and not served", "db", uint64(id))
				n.retire(id)
			}
		}
		f.seen = nil
		f.ready = true
		f.setPeers()
		f.once.Do(func() { close(f.synced) })
	}
	return nil
}

func (f *fleetLink) setPeers() {
	peers := make([]catalog.Node, 0, len(f.nodes))
	for id, peer := range f.nodes {
		if id != f.node.cfg.ID {
			peers = append(peers, peer)
		}
	}
	f.node.hub.SetPeers(peers)
}

// machineRestarted asks for a new epoch of every database whose primary is
// here if the machine was started since the last time: what was in its memory
// only is gone, and replicas may have what this node has lost. A process that
// merely ended has lost nothing.
func (f *fleetLink) machineRestarted(ctx context.Context) {
	n := f.node
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return
	}
	file := filepath.Join(n.cfg.State, "identity")
	last, err := os.ReadFile(file)
	if err == nil && !bytes.Equal(last, boot) {
		for rec := range n.records.databases() { // also of those that sleep
			if c := rec.PrimaryCopy(); c == nil || c.Node != n.cfg.ID {
				continue
			}
			if d, err := f.api.OpenEpoch(ctx, rec.ID, n.cfg.ID); err == nil {
				n.place(&d)
			}
		}
	}
	if err := os.WriteFile(file, boot, 0o600); err != nil {
		n.log.Warn("can't write identity", "err", err.Error())
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// sameNetwork reports whether a client may call a database: both are of one
// private network.
func sameNetwork(client, database netip.Addr) bool { return privnet.SameNetwork(client, database) }
