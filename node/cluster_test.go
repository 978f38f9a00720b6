package node

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"vecino/api"
	"vecino/catalog"
	"vecino/engine"
	"vecino/fleet"
	"vecino/internal/transcript"
	"vecino/privnet"
	"vecino/region"
	"vecino/resp"
)

// cluster is a fleet and a node in each of some regions, in this process.
type cluster struct {
	t     *testing.T
	fleet *fleet.Fleet
	api   *api.Fleet
	nodes map[region.Code]*Node
	dirs  map[region.Code]string
	next  uint64
}

const testNetwork = privnet.Network(0x47fb)

func newCluster(t *testing.T, regions ...region.Code) *cluster {
	t.Helper()
	f, err := fleet.Open(context.Background(), fleet.Config{Listen: "127.0.0.1:0", Dir: t.TempDir(), PlatformToken: "platform", NodeToken: "node"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	c := &cluster{
		t: t, fleet: f, api: api.NewFleet(f.URL(), "platform"),
		nodes: map[region.Code]*Node{}, dirs: map[region.Code]string{}, next: 2,
	}
	for _, r := range regions {
		c.dirs[r] = t.TempDir()
		c.start(r)
	}
	t.Cleanup(func() {
		for r := range c.nodes {
			c.stop(r)
		}
	})
	for _, n := range c.nodes {
		<-n.fleet.synced
	}
	c.eventually("regions known", func() error {
		known, err := c.api.Regions(context.Background())
		if err == nil && len(known) < len(regions) {
			err = fmt.Errorf("%d of %d regions", len(known), len(regions))
		}
		return err
	})
	return c
}

func (c *cluster) start(r region.Code) {
	c.t.Helper()
	n, err := Start(Config{
		ID: string(r) + "-1", Region: r, State: c.dirs[r], Proxy: "127.0.0.1:0", Link: "127.0.0.1:0",
		Fleet: c.fleet.URL(), Token: "node", Loops: 2, SegmentBytes: 1 << 20,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes[r] = n
}

func (c *cluster) stop(r region.Code) {
	c.t.Helper()
	if n := c.nodes[r]; n != nil {
		delete(c.nodes, r)
		if err := n.Close(); err != nil {
			c.t.Errorf("close node in %s: %v", r, err)
		}
	}
}

// database is one that all its copies serve.
type database struct {
	c        *cluster
	id       catalog.ID
	addr     netip.Addr
	password string
	record   catalog.Database // of one that the fleet doesn't know
}

func (c *cluster) create(primary region.Code, replicas ...region.Code) *database {
	c.t.Helper()
	addr := privnet.Mint(testNetwork, c.next)
	c.next++
	req := api.FleetCreate{Name: fmt.Sprintf("db-%d", c.next), Plan: "Free", PrimaryRegion: primary, Address: addr, ReplicaRegions: replicas}
	d, err := c.api.CreateDatabase(context.Background(), addr.String(), req)
	if err != nil {
		c.t.Fatal(err)
	}
	db := &database{c: c, id: d.Database.ID, addr: addr, password: d.Password}
	db.live()
	return db
}

// place puts a database on the nodes without asking the fleet, as one without
// a password.
func (c *cluster) place(primary region.Code, replicas ...region.Code) *database {
	c.t.Helper()
	db := &database{c: c, id: catalog.ID(1_000_000 + c.next), addr: privnet.Mint(testNetwork, c.next)}
	c.next++
	db.record = catalog.Database{ID: db.id, Address: db.addr, HashSeed: uint64(db.id), Epoch: 1, Revision: 1}
	for i, r := range append([]region.Code{primary}, replicas...) {
		role := catalog.Replica
		if i == 0 {
			role = catalog.Primary
		}
		db.record.Copies = append(db.record.Copies, catalog.Copy{Region: r, Node: string(r) + "-1", Role: role, State: catalog.Live})
	}
	db.publish()
	for _, r := range replicas {
		p := db.up(r)
		c.eventually("copy live in "+string(r), func() (err error) {
			p.shard.do(func() {
				if !p.Ready() {
					err = errors.New("not ready")
				}
			})
			return err
		})
	}
	return db
}

// publish gives the nodes the record as it is now.
func (db *database) publish() {
	for _, copy := range db.record.Copies {
		rec := db.record
		db.c.nodes[copy.Region].place(&rec)
	}
}

// setPassword changes the password, for connections that come.
func (db *database) setPassword(word string) {
	sum := sha256.Sum256([]byte(word))
	db.record.Password = hex.EncodeToString(sum[:])
	db.record.Revision++
	db.publish()
}

// live waits until every copy is.
func (db *database) live() {
	db.c.t.Helper()
	db.c.eventually("copies live", func() error {
		d, err := db.c.api.Database(context.Background(), db.id)
		if err != nil {
			return err
		}
		for _, copy := range d.Database.Copies {
			if copy.State != catalog.Live {
				return fmt.Errorf("copy in %s is %s", copy.Region, copy.State)
			}
		}
		return nil
	})
}

// dial opens a connection as an edge does, and gives the password.
func (db *database) dial(r region.Code) (net.Conn, error) {
	conn, err := db.greet(r)
	if err != nil || db.password == "" {
		return conn, err
	}
	if _, err := conn.Write(resp.AppendCommand(nil, "AUTH", db.password)); err != nil {
		return nil, err
	}
	line, err := bufio.NewReaderSize(conn, 16).ReadString('\n')
	if err != nil || line != "+OK\r\n" {
		return nil, fmt.Errorf("AUTH answers %q: %v", line, err)
	}
	return conn, nil
}

// greet opens a connection with its PROXY header alone.
func (db *database) greet(r region.Code) (net.Conn, error) {
	conn, err := net.Dial("tcp", db.c.nodes[r].Addr())
	if err != nil {
		return nil, err
	}
	header := fmt.Sprintf("PROXY TCP6 %s %s 40000 6379\r\n", privnet.Machine(testNetwork, 7, 1), db.addr)
	_, err = conn.Write([]byte(header))
	return conn, err
}

// client is a connection on which commands are asked one by one.
type client struct {
	t    *testing.T
	conn net.Conn
	r    *resp.Reader
}

func (db *database) client(r region.Code) *client {
	db.c.t.Helper()
	conn, err := db.dial(r)
	if err != nil {
		db.c.t.Fatal(err)
	}
	db.c.t.Cleanup(func() { conn.Close() })
	return &client{db.c.t, conn, resp.NewReader(conn)}
}

// do asks one command and returns the reply as redis-cli prints it.
func (cl *client) do(words ...string) string {
	cl.t.Helper()
	cl.send(words...)
	return cl.receive()
}

func (cl *client) send(words ...string) {
	cl.t.Helper()
	if _, err := cl.conn.Write(resp.AppendCommand(nil, words...)); err != nil {
		cl.t.Fatal(err)
	}
}

func (cl *client) receive() string {
	cl.t.Helper()
	cl.conn.SetReadDeadline(time.Now().Add(patience))
	v, err := cl.r.Read()
	if err != nil {
		cl.t.Fatalf("no reply: %v", err)
	}
	return v.String()
}

// want asks a command and compares the reply.
func (cl *client) want(reply string, words ...string) {
	cl.t.Helper()
	if got := cl.do(words...); got != reply {
		cl.t.Errorf("%q answers %s, want %s", words, got, reply)
	}
}

// patience bounds waits that end by an event. It measures nothing.
const patience = 20 * time.Second

// eventually asks again and again until there is no error.
func (c *cluster) eventually(what string, ask func() error) {
	c.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			c.t.Fatalf("%s: %v", what, err)
		case <-again.C:
		}
	}
}

// applied waits until the copy in a region has all that the primary has now.
func (db *database) applied(r, primary region.Code) {
	db.c.t.Helper()
	head := db.position(primary)
	db.c.eventually("applied in "+string(r), func() error {
		if p := db.position(r); !p.Covers(head) {
			return fmt.Errorf("at %v of %v", p, head)
		}
		p := db.up(r)
		p.Engine.Lock()
		defer p.Engine.Unlock()
		if !p.Savable() || !p.Engine.Position().Covers(p.Complete()) {
			return errors.New("half a snapshot has been loaded")
		}
		return nil
	})
}

// up is the tenant of a region's copy, its content in memory.
func (db *database) up(r region.Code) *placed {
	db.c.t.Helper()
	n := db.c.nodes[r]
	var p *placed
	db.c.eventually("awake in "+string(r), func() error {
		s := n.shardOf(db.id)
		s.do(func() { p = s.rouse(db.id) })
		if p == nil {
			return errors.New("not there")
		}
		p.Engine.Lock()
		defer p.Engine.Unlock()
		if p.Engine.Rouse(); p.Engine.State() != engine.Awake {
			return errors.New(p.Engine.State().String())
		}
		return nil
	})
	return p
}

func (db *database) position(r region.Code) (p catalog.Position) {
	t := db.up(r)
	t.Engine.Lock()
	defer t.Engine.Unlock()
	return t.Engine.Position()
}

// TestScripts plays the scripts of the commands through real sockets: on the
// primary, and through a replica that forwards.
func TestScripts(t *testing.T) {
	c := newCluster(t, "mad", "scl")
	for _, where := range []struct {
		name string
		r    region.Code
	}{{"node", "mad"}, {"replica", "scl"}} {
		t.Run(where.name, func(t *testing.T) {
			transcript.RunDir(t, "../command/testdata", transcript.Options{Name: where.name}, func(t *testing.T) transcript.Player {
				db := c.place("mad", "scl")
				p := transcript.NewClient(t, func(string) (net.Conn, error) { return db.dial(where.r) })
				p.Waiting = func(net.Conn) bool { return db.waiting() > 0 }
				p.Sleep = func(d time.Duration) { db.wait(d) }
				return player{p, db}
			})
		})
	}
}

// player is a client for which scripts can set a password.
type player struct {
	*transcript.Client
	db *database
}

func (p player) Password(word string) { p.db.setPassword(word) }

// waiting is how many commands wait for a key at the primary.
func (db *database) waiting() int {
	p := db.up("mad")
	p.Engine.Lock()
	defer p.Engine.Unlock()
	return p.Engine.Waiting()
}

// wait lets time go by: scripts need that deadlines pass.
func (db *database) wait(d time.Duration) {
	<-time.After(d + 5*time.Millisecond)
}
