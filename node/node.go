// Package node is a data-plane process: it listens, finds out by the PROXY
// header which database a connection is for, and keeps many databases, each
// on one of its loops.
//
// A Node is made of shards, one a core: a loop with its journal and the
// tenants that are pinned to it. Around them stand the listeners (greet.go),
// the links to other nodes (mesh.go), the fleet that says which databases
// live here (fleet.go), recovery (recover.go) and checkpoints
// (checkpoint.go).
//
//	state/
//	  lock                 held while a node uses the directory
//	  identity             the boot of the machine at the last start
//	  catalog              the last word of the fleet, one event a line
//	  journal-0/ ...       a journal for each loop
//	  snapshots/           checkpoints of the time before the tier
//	  tier/                what is in the databases, up to their checkpoints
//
// In standalone mode there is no header, no fleet and no other node: one
// database answers plain connections, so that any Redis tool or benchmark can
// be pointed at it.
package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"vecino/catalog"
	"vecino/gossip"
	"vecino/internal/dirlock"
	"vecino/internal/httpd"
	"vecino/internal/vfs"
	"vecino/link"
	"vecino/loop"
	"vecino/region"
	"vecino/session"
)

// Config is what a node is started with. ID, Region and State are needed, and
// Fleet unless Standalone is set.
type Config struct {
	ID     string
	Region region.Code
	// State is the directory that holds everything that survives a restart.
	State string

	// Proxy is where edges connect, with a PROXY header. In standalone mode it
	// is where clients connect, without one.
	Proxy string
	// Edges are the addresses from which connections to Proxy are accepted;
	// empty: from this machine only.
	Edges []netip.Prefix
	// Link is where other nodes connect, Gossip the pool's address, Join the
	// addresses of others in the pool, Admin the address for health and metrics.
	Link, Gossip, Admin string
	Join                []string

	Fleet, Token string // URL and bearer token of the fleet

	// Cert, Key and CA are files with this node's identity and who vouches for
	// the others. Without them links are not encrypted.
	Cert, Key, CA string

	// Loops is the number of event loops, 0 for one a core. More than there are
	// busy cores buys nothing; databases are spread over them.
	Loops int
	// CheckpointBytes is how much journal may come together before databases
	// are written out, so that it can be trimmed. More makes a restart slower
	// and writes less. Default 256 MiB.
	CheckpointBytes int64
	// SegmentBytes is the size of the journals' segment files, which are
	// allocated in advance. A larger one is changed less often and takes more of
	// the disk. Default 64 MiB.
	SegmentBytes int64

	// Memory is how much memory the node may take; docs/memory.md says for what.
	// Default: seven tenths of what the machine, the control group or ulimit -v allows.
	Memory Bytes
	data   int64 // what of it is for keys and values, in tests; 0: as Memory is divided
	// Idle is after how long without use a database leaves memory; 0 is never.
	Idle time.Duration
	// OwnProcess lets the node limit the memory of the whole process by Memory.
	OwnProcess bool

	// World makes the node take the simulated distances that PUT /world brings.
	World bool

	// Profile lets who can reach Admin take profiles, under /debug/pprof/. They
	// show what the process does and holds, so leave it off where others can.
	Profile bool

	// Debug lets clients use DEBUG SLEEP, to see what a slow command does to
	// others. It is for tests: a database can be put to sleep by whoever has its password.
	Debug bool

	// Standalone serves one database without a header; Password is its
	// password, empty for none.
	Standalone bool
	Password   string
	// Limits are those of the database in standalone mode, whose zero is none.
	// Elsewhere the fleet says what each database may have.
	Limits catalog.Limits
	// Durability of that database, one of catalog.Durabilities; empty: the default.
	// More loses less in a power cut and answers writes later.
	Durability string

	Version string
	Logger  *slog.Logger

	fs vfs.FS // where journals and checkpoints are; a test's, or the system's
}

// Node is a running node.
type Node struct {
	cfg     Config
	log     *slog.Logger
	fs      vfs.FS
	started time.Time
	boot    uint64
	cancel  context.CancelFunc
	tasks   sync.WaitGroup

	lock     *dirlock.Lock
	shards   []*shard
	listener *loop.Listener
	hub      *link.Hub
	gossip   *gossip.Gossip
	admin    *httpd.Server
	distance *link.Distance
	records  *records
	fleet    *fleetLink
	reports  *reporter
	links    linkStates
	lagged   *delayLine
	saver    *checkpointer
	store    *store
	fetcher  *fetcher
	keeper   *keeper
	slept    atomic.Int64
	loaded   atomic.Int64 // keys that came into memory with their database
	replayed atomic.Int64 // entries of the journals, by the start
	serving  atomic.Bool  // all of the above is there, for the admin address

	leftovers leftovers

	mu struct {
		sync.RWMutex
		byAddr  map[address]catalog.ID // sleepers as well
		byID    map[catalog.ID]*placed
		most    int // there were in byID at a time
		bedroom bedroom
	}

	nextConn atomic.Int64
	refused  refusals
	accepted atomic.Int64
}

// placed is a tenant and the shard that it is pinned to.
type placed struct {
	*session.Tenant
	shard *shard

	room atomic.Uint32 // the session.Room that the keeper wants the tenant to have
}

// Start opens a node: it recovers what the state directory holds and begins to
// serve. Close ends it.
func Start(cfg Config) (*Node, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Loops <= 0 {
		cfg.Loops = defaultLoops()
	}
	if cfg.CheckpointBytes <= 0 {
		cfg.CheckpointBytes = 256 << 20
	}
	if cfg.Memory == 0 {
		cfg.Memory = Bytes(defaultMemory())
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.fs == nil {
		cfg.fs = vfs.OS
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &Node{cfg: cfg, log: cfg.Logger, fs: cfg.fs, started: time.Now(), boot: rand.Uint64() | 1, cancel: cancel}
	n.saver = newCheckpointer(n)
	n.mu.byAddr = make(map[address]catalog.ID)
	n.mu.bedroom.sleepers = make(map[catalog.ID]sleeper)
	n.mu.byID = make(map[catalog.ID]*placed)
	if err := n.open(ctx); err != nil {
		n.Close()
		return nil, err
	}
	n.log.Info("node started", "node", cfg.ID, "region", string(cfg.Region), "proxy", n.Addr(), "recovered_ms", time.Since(n.started).Milliseconds())
	return n, nil
}

func (n *Node) open(ctx context.Context) (err error) {
	if err := os.MkdirAll(n.cfg.State, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if n.lock, _, err = dirlock.Take(n.cfg.State); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if n.cfg.Admin != "" { // first of all: it shows how the start goes on
		if n.admin, err = httpd.Start(n.cfg.Admin, n.adminHandler()); err != nil {
			return fmt.Errorf("admin: %w", err)
		}
	}
	if err := n.openShards(ctx); err != nil {
		return err
	}
	if n.cfg.Standalone {
		n.place(n.standaloneRecord())
	} else if err := n.join(ctx); err != nil {
		return err
	}
	n.tasks.Go(func() { n.saver.run(ctx) })
	n.tasks.Go(func() { n.keeper.watch(ctx) })
	n.tasks.Go(func() { n.keeper.relieve(ctx) })
	n.tasks.Go(func() { n.hibernate(ctx) })
	n.tasks.Go(func() { n.ring(ctx) })
	if n.listener, err = n.shards[0].loop.Listen(n.cfg.Proxy, n.accept); err != nil {
		return fmt.Errorf("listen for clients: %w", err)
	}
	if !n.cfg.Standalone {
		if err := n.register(ctx); err != nil {
			return err
		}
	}
	n.serving.Store(true)
	return nil
}

func (c *Config) check() error {
	switch {
	case c.State == "":
		return errors.New("a node needs a state directory: --state DIR")
	case c.Proxy == "":
		return errors.New("a node needs an address to listen on: --listen HOST:PORT, or --port with --standalone")
	case c.Memory < leastMemory:
		least := Bytes(leastMemory)
		return fmt.Errorf("a node needs some memory: --memory %s or more", &least)
	case c.Standalone:
		if _, err := catalog.ParseDurability(c.Durability); err != nil {
			return fmt.Errorf("--durability: %w", err)
		}
		return nil
	case c.Durability != "":
		return errors.New("--durability goes with --standalone; other databases have theirs from the fleet")
	case c.ID == "" || c.Region == "":
		return errors.New("a node needs an identity: --id and --region")
	case c.Fleet == "":
		return errors.New("a node needs a fleet: --fleet URL, or --standalone to serve one database without")
	case c.Link == "":
		return errors.New("a node needs an address for other nodes: --link HOST:PORT")
	}
	return nil
}

// Addr is where clients, or edges, connect.
func (n *Node) Addr() string { return n.listener.Addr().String() }

// AdminAddr is the address of health and metrics.
func (n *Node) AdminAddr() string {
	if n.admin == nil {
		return ""
	}
	return n.admin.Addr()
}

// Close ends the node: it answers nobody any more, and what was answered is on
// disk.
func (n *Node) Close() error {
	if n.listener != nil {
		n.listener.Close()
	}
	n.cancel()
	var errs []error
	if n.admin != nil {
		errs = append(errs, n.admin.Close())
	}
	if n.gossip != nil {
		errs = append(errs, n.gossip.Close())
	}
	if n.hub != nil {
		errs = append(errs, n.hub.Close())
	}
	n.tasks.Wait()
	if n.fetcher != nil {
		n.fetcher.close()
	}
	for _, s := range n.shards {
		errs = append(errs, s.close())
	}
	if n.store != nil {
		errs = append(errs, n.store.close())
	}
	if n.records != nil {
		errs = append(errs, n.records.close())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}

// openShards recovers the databases and starts the loops.
func (n *Node) openShards(ctx context.Context) (err error) {
	if n.records, err = openRecords(filepath.Join(n.cfg.State, "catalog")); err != nil {
		return err
	}
	n.keeper = newKeeper(n, int64(n.cfg.Memory))
	if n.store, err = openStore(n, n.keeper.budget); err != nil {
		return err
	}
	n.fetcher = newFetcher(n, readersFor(runtime.GOMAXPROCS(0)))
	for i := range n.cfg.Loops {
		s, err := newShard(n, i)
		if err != nil {
			return err
		}
		n.shards = append(n.shards, s)
	}
	if err := n.recover(); err != nil {
		return err
	}
	for _, s := range n.shards {
		n.tasks.Go(func() { s.run(ctx) })
	}
	return nil
}

// shardOf is where a database is pinned.
func (n *Node) shardOf(id catalog.ID) *shard { return n.shards[uint64(id)%uint64(len(n.shards))] }

// find returns a tenant by ID.
func (n *Node) find(id catalog.ID) *placed {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.mu.byID[id]
}

// all returns all tenants.
func (n *Node) all() []*placed {
	n.mu.RLock()
	defer n.mu.RUnlock()
	list := make([]*placed, 0, len(n.mu.byID))
	for _, p := range n.mu.byID {
		list = append(list, p)
	}
	return list
}

// standaloneRecord is the one database of standalone mode.
func (n *Node) standaloneRecord() *catalog.Database {
	rec := &catalog.Database{
		ID: 1, Name: "standalone", Epoch: 1, Revision: 1, Limits: n.cfg.Limits,
		Copies: []catalog.Copy{{Region: n.cfg.Region, Node: n.cfg.ID, Role: catalog.Primary, State: catalog.Live}},
	}
	rec.Durability, _ = catalog.ParseDurability(n.cfg.Durability) // checked at the start
	if n.cfg.Password != "" {
		sum := sha256.Sum256([]byte(n.cfg.Password))
		rec.Password = hex.EncodeToString(sum[:])
	}
	if old, ok := n.records.database(rec.ID); ok {
		rec.HashSeed, rec.Revision = old.HashSeed, old.Revision+1 // what it was started with may differ
	} else {
		rec.HashSeed = rand.Uint64()
	}
	return rec
}

// What follows makes a Node the session.Host of its tenants, together with
// mesh.go.

func (n *Node) Node() string        { return n.cfg.ID }
func (n *Node) Region() region.Code { return n.cfg.Region }

// NodeInfo is what INFO shows of the node.
func (n *Node) NodeInfo() session.NodeInfo {
	port := 0
	if n.listener != nil {
		if a, ok := n.listener.Addr().(*net.TCPAddr); ok {
			port = a.Port
		}
	}
	return session.NodeInfo{Version: n.cfg.Version, Started: n.started, Port: port, RunID: fmt.Sprintf("%040x", n.boot), Debug: n.cfg.Debug}
}

// Dirty puts a tenant on its shard's list.
func (n *Node) Dirty(t *session.Tenant) {
	s := n.shardOf(t.Record().ID)
	s.dirty = append(s.dirty, t)
}

// Replaced has the tenant written out.
func (n *Node) Replaced(t *session.Tenant) { n.saver.request(t.Record().ID) }

// SyncSoon has the tenant's journal synced once this batch is committed.
func (n *Node) SyncSoon(t *session.Tenant) {
	s := n.shardOf(t.Record().ID)
	s.kick = true
	n.Dirty(t)
}

// Changed tells the fleet soon.
func (n *Node) Changed(t *session.Tenant) {
	if n.reports != nil {
		n.reports.changed(t.Record().ID)
	}
}

// journalDir is where a shard's journal is.
func (n *Node) journalDir(i int) string {
	return filepath.Join(n.cfg.State, fmt.Sprintf("journal-%d", i))
}

func (n *Node) snapshotDir() string { return filepath.Join(n.cfg.State, "snapshots") }

var _ session.Host = (*Node)(nil)
