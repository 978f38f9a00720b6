package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"vecino/api"
	"vecino/region"
)

// deployment is a service on this machine: a fleet, and as asked nodes, a
// platform and edges. `vecino up` runs the same programs; here their processes
// are known one by one, so that each can be measured.
type deployment struct {
	fleet    *api.Fleet
	platform *api.Platform // nil without edges
	nodes    map[region.Code]*nodeProcess
	edges    map[region.Code]*process
}

// nodeProcess is a node, and where it is reached.
type nodeProcess struct {
	*process
	proxy, admin string
}

// deploy starts a node in each region, edges too if asked, with simulated
// distances between the regions.
func (b *bench) deploy(regions []region.Code, edges bool) (*deployment, error) {
	dir := filepath.Join(b.dir, "deployment")
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	ports, err := freePorts(5 + 4*len(regions))
	if err != nil {
		return nil, err
	}
	port := func() (p int) { p, ports = ports[0], ports[1:]; return p }
	fleetToken, nodeToken, edgeToken, userToken := rand.Text(), rand.Text(), rand.Text(), rand.Text()

	b.say("starting a service of %d regions", len(regions))
	fleetURL, admin := "http://"+local(port()), local(port())
	fleet, err := b.launch("fleet", []string{"VECINO_PLATFORM_TOKEN=" + fleetToken, "VECINO_NODE_TOKEN=" + nodeToken},
		b.vecino, "fleet", "--listen", strings.TrimPrefix(fleetURL, "http://"), "--admin", admin, "--state", filepath.Join(dir, "fleet"), "--log-level", "WARN")
	if err != nil {
		return nil, err
	}
	if err := b.healthy(fleet, admin); err != nil {
		return nil, err
	}
	d := &deployment{fleet: api.NewFleet(fleetURL, fleetToken), nodes: map[region.Code]*nodeProcess{}, edges: map[region.Code]*process{}}
	for _, r := range regions {
		n := &nodeProcess{proxy: local(port()), admin: local(port())}
		d.nodes[r] = n
		id := string(r) + "-1"
		n.process, err = b.launch(id, []string{"VECINO_FLEET_TOKEN=" + nodeToken}, b.vecino, "node", "--id", id, "--region", string(r), "--state", filepath.Join(dir, id),
			"--listen", n.proxy, "--link", local(port()), "--admin", n.admin, "--fleet", fleetURL, "--world", "--pprof", "--log-level", "WARN")
		if err != nil {
			return nil, err
		}
	}
	for _, n := range d.nodes {
		if err := b.healthy(n.process, n.admin); err != nil {
			return nil, err
		}
	}
	if !edges {
		return d, nil
	}

	codes := make([]string, len(regions))
	for i, r := range regions {
		codes[i] = string(r)
	}
	platformURL, admin := "http://"+local(port()), local(port())
	platform, err := b.launch("platform", []string{"VECINO_FLEET_TOKEN=" + fleetToken, "VECINO_EDGE_TOKEN=" + edgeToken, "VECINO_USER_TOKEN=" + userToken},
		b.vecino, "platform", "--listen", strings.TrimPrefix(platformURL, "http://"), "--admin", admin, "--state", filepath.Join(dir, "platform"),
		"--fleet", fleetURL, "--loopback-port", strconv.Itoa(port()), "--regions", strings.Join(codes, ","), "--log-level", "WARN")
	if err != nil {
		return nil, err
	}
	if err := b.healthy(platform, admin); err != nil {
		return nil, err
	}
	d.platform = api.NewPlatform(platformURL, userToken)
	for _, r := range regions {
		admin := local(port())
		e, err := b.launch(string(r)+"-edge", []string{"VECINO_EDGE_TOKEN=" + edgeToken}, b.vecino, "edge", "--region", string(r), "--platform", platformURL,
			"--state", filepath.Join(dir, string(r)+"-edge"), "--admin", admin, "--world", "--log-level", "WARN")
		if err != nil {
			return nil, err
		}
		d.edges[r] = e
		if err := b.healthy(e, admin); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// createTimeout is how long a database may take to be live everywhere.
const createTimeout = 20 * time.Second

// create makes a database of the largest plan, and returns how it is reached
// in each region once it answers there itself.
func (d *deployment) create(ctx context.Context, primary region.Code, replicas []region.Code) (api.Database, map[region.Code]door, error) {
	plans, err := d.platform.Plans(ctx)
	if err != nil {
		return api.Database{}, nil, err
	}
	plan := plans[len(plans)-1].ID
	db, err := d.platform.CreateDatabase(ctx, rand.Text(), api.CreateDatabase{PrimaryRegion: primary, ReplicaRegions: replicas, Plan: plan})
	if err != nil {
		return db, nil, fmt.Errorf("create a database: %w", err)
	}
	deadline := time.Now().Add(createTimeout)
	for {
		doors, err := liveDoors(ctx, db, 1+len(replicas))
		if err == nil {
			return db, doors, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return db, nil, fmt.Errorf("database %s: %w", db.Name, err)
		}
		time.Sleep(50 * time.Millisecond)
		if db, err = d.platform.Database(ctx, db.Organization, db.Name); err != nil {
			return db, nil, fmt.Errorf("look at a database: %w", err)
		}
	}
}

// liveDoors is how a database is reached in each of n regions, an error if it
// doesn't serve all of them yet.
func liveDoors(ctx context.Context, db api.Database, n int) (map[region.Code]door, error) {
	doors := map[region.Code]door{}
	for _, e := range db.Endpoints {
		if e.Role == api.ServedByEdge {
			continue
		}
		if e.State != "live" {
			return nil, fmt.Errorf("%s is %s", e.Region, e.State)
		}
		u, err := url.Parse(e.URL)
		if err != nil {
			return nil, err
		}
		to := door{addr: net.JoinHostPort(u.Hostname(), u.Port())}
		to.password, _ = u.User.Password()
		c, err := to.open(ctx)
		if err != nil {
			return nil, err
		}
		c.Close()
		doors[e.Region] = to
	}
	if len(doors) < n {
		return nil, errors.New("not all regions have it yet")
	}
	return doors, nil
}
