package edge

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// refusal is why a client's connection was reset before it reached a node.
type refusal int

const (
	foreign     refusal = iota // source and destination aren't of one network
	noRoute                    // nothing was known of the address in time
	unreachable                // every node was tried
	limited                    // the nodes that are left are at their hard limit
	closing                    // the edge closes
	numRefusals
)

var refusals = [numRefusals]string{"foreign", "no_route", "unreachable", "limited", "closing"}

// reset is why a connection to a node was reset.
type reset int

const (
	clientError reset = iota // the client's connection broke
	nodeError                // the node's did
	nodeGone                 // the pool misses the node
	edgeClosing              // the edge closes
	numResets
)

var resets = [numResets]string{"client", "node", "node_gone", "closing"}

// counters are what an edge counts.
type counters struct {
	accepted     atomic.Int64
	connected    atomic.Int64
	elsewhere    atomic.Int64 // connected to another region
	abandoned    atomic.Int64
	dialFailures atomic.Int64
	refused      [numRefusals]atomic.Int64
	reset        [numResets]atomic.Int64
	toNodes      atomic.Int64 // bytes
	toClients    atomic.Int64
	blocked      atomic.Int64 // times that one side had to wait for the other
}

var (
	acceptedDesc     = prometheus.NewDesc("vecino_edge_accepted_total", "Connections accepted from clients.", nil, nil)
	connectedDesc    = prometheus.NewDesc("vecino_edge_connected_total", "Connections that reached a node.", nil, nil)
	elsewhereDesc    = prometheus.NewDesc("vecino_edge_connected_elsewhere_total", "Connections that reached a node in another region.", nil, nil)
	abandonedDesc    = prometheus.NewDesc("vecino_edge_abandoned_total", "Connections whose client left before a node had accepted.", nil, nil)
	dialFailuresDesc = prometheus.NewDesc("vecino_edge_dial_failures_total", "Nodes that could not be dialled.", nil, nil)
	refusedDesc      = prometheus.NewDesc("vecino_edge_refused_total", "Connections of clients reset before they reached a node.", []string{"reason"}, nil)
	resetDesc        = prometheus.NewDesc("vecino_edge_resets_total", "Connections to nodes that were reset.", []string{"reason"}, nil)
	bytesDesc        = prometheus.NewDesc("vecino_edge_bytes_total", "Bytes moved.", []string{"to"}, nil)
	blockedDesc      = prometheus.NewDesc("vecino_edge_blocked_total", "Times that one side of a connection had to wait for the other.", nil, nil)
	connectionsDesc  = prometheus.NewDesc("vecino_edge_connections", "Connections to nodes now.", nil, nil)
	heldDesc         = prometheus.NewDesc("vecino_edge_held", "Connections that wait for a route now.", nil, nil)
	routesDesc       = prometheus.NewDesc("vecino_edge_routes", "Routes known now.", nil, nil)
)

// Describe and Collect make an Edge a prometheus.Collector.
func (e *Edge) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(e, ch) }

func (e *Edge) Collect(ch chan<- prometheus.Metric) {
	count := func(desc *prometheus.Desc, v *atomic.Int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(v.Load()), labels...)
	}
	gauge := func(desc *prometheus.Desc, v int) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(v))
	}
	c := &e.counters
	count(acceptedDesc, &c.accepted)
	count(connectedDesc, &c.connected)
	count(elsewhereDesc, &c.elsewhere)
	count(abandonedDesc, &c.abandoned)
	count(dialFailuresDesc, &c.dialFailures)
	for i, name := range refusals {
		count(refusedDesc, &c.refused[i], name)
	}
	for i, name := range resets {
		count(resetDesc, &c.reset[i], name)
	}
	count(bytesDesc, &c.toNodes, "nodes")
	count(bytesDesc, &c.toClients, "clients")
	count(blockedDesc, &c.blocked)
	gauge(connectionsDesc, e.nodes.connections())
	gauge(heldDesc, e.routes.holding())
	gauge(routesDesc, e.routes.len())
}
