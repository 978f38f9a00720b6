package world

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"vecino/link"
	"vecino/region"
)

// segmentBytes is the size of a node's journal segments here: a world has
// many nodes on one disk, and keeps a few segments of each.
const segmentBytes = 8 << 20

// nodeName and edgeName are what processes are called, in the fleet and the
// pool too.
func nodeName(r region.Code) string { return string(r) + "-1" }
func edgeName(r region.Code) string { return "edge-" + string(r) }

// daemons makes the processes of this world: their command lines, as
// cmd/vecino takes them apart.
func (w *World) daemons() ([]*process, error) {
	for _, dir := range []string{"logs", "run"} {
		if err := os.MkdirAll(filepath.Join(w.cfg.State, dir), 0o700); err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
	}
	ca, err := link.NewCA(filepath.Join(w.cfg.State, "links"))
	if err != nil {
		return nil, err
	}
	list := []*process{w.fleet(), w.platform()}
	for _, r := range w.record.Regions {
		cert, key, err := ca.Issue(nodeName(r))
		if err != nil {
			return nil, err
		}
		list = append(list, w.node(r, cert, key, ca.CertFile()))
	}
	for _, r := range w.record.Regions {
		list = append(list, w.edge(r))
	}
	w.processes = list
	return list, w.rotateLogs()
}

// daemon makes a process with what all have.
func (w *World) daemon(k Kind, r region.Code, name, admin string, args ...string) *process {
	p := w.newProcess(name, k, r)
	p.admin = w.at(admin)
	p.addresses = append(p.addresses, Address{"admin", p.admin})
	p.args = append([]string{
		string(k), "--state", filepath.Join(w.cfg.State, name), "--admin", p.admin, "--log-level", w.cfg.LogLevel.String(),
	}, args...)
	return p
}

func (p *process) listens(what, addr string) {
	p.addresses = append(p.addresses, Address{what, addr})
}

func (w *World) fleet() *process {
	p := w.daemon(Fleet, "", "fleet", fleetAdminPort, "--listen", w.at(fleetPort))
	p.env = []string{"VECINO_PLATFORM_TOKEN=" + w.record.PlatformToken, "VECINO_NODE_TOKEN=" + w.record.NodeToken}
	p.listens("api", w.at(fleetPort))
	return p
}

func (w *World) platform() *process {
	p := w.daemon(Platform, "", "platform", platformAdminPort,
		"--listen", w.at(platformPort), "--fleet", "http://"+w.at(fleetPort),
		"--loopback-port", strconv.Itoa(w.record.DataPort), "--regions", joined(w.record.Regions))
	p.env = []string{
		"VECINO_FLEET_TOKEN=" + w.record.PlatformToken, "VECINO_EDGE_TOKEN=" + w.record.EdgeToken, "VECINO_USER_TOKEN=" + w.record.Token,
	}
	p.listens("api", w.at(platformPort))
	return p
}

func (w *World) node(r region.Code, cert, key, ca string) *process {
	proxy, link, gossip := w.at(portOf(r, nodeProxyPort)), w.at(portOf(r, nodeLinkPort)), w.gossipAt(portOf(r, nodeGossipPort))
	p := w.daemon(Node, r, nodeName(r), portOf(r, nodeAdminPort),
		"--id", nodeName(r), "--region", string(r), "--listen", proxy, "--link", link, "--gossip", gossip,
		"--fleet", "http://"+w.at(fleetPort), "--cert", cert, "--key", key, "--ca", ca,
		"--loops", "1", "--segment-bytes", strconv.Itoa(segmentBytes), "--world")
	p.args = append(p.args, w.pool(gossip)...)
	p.env = []string{"VECINO_FLEET_TOKEN=" + w.record.NodeToken}
	p.far = true
	p.listens("proxy", proxy)
	p.listens("link", link)
	p.listens("gossip", gossip)
	return p
}

func (w *World) edge(r region.Code) *process {
	gossip := w.gossipAt(portOf(r, edgeGossipPort))
	p := w.daemon(Edge, r, edgeName(r), portOf(r, edgeAdminPort),
		"--id", edgeName(r), "--region", string(r), "--platform", "http://"+w.at(platformPort),
		"--gossip", gossip, "--loops", "1", "--world")
	p.args = append(p.args, w.pool(gossip)...)
	p.env = []string{"VECINO_EDGE_TOKEN=" + w.record.EdgeToken}
	p.far = true
	p.listens("gossip", gossip)
	return p
}

// pool names the others of the pool.
func (w *World) pool(self string) []string {
	var args []string
	for _, r := range w.record.Regions {
		for _, what := range []string{nodeGossipPort, edgeGossipPort} {
			if addr := w.gossipAt(portOf(r, what)); addr != self {
				args = append(args, "--join", addr)
			}
		}
	}
	return args
}
