package node

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"vecino/internal/httpd"
)

// adminHandler answers health and metrics, and takes the simulated distances.
func (n *Node) adminHandler() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), nodeMetrics{n})
	mux := http.NewServeMux()
	mux.Handle("/", httpd.Admin(n.healthy, reg))
	if n.cfg.World {
		mux.HandleFunc("PUT /world", n.putWorld)
	}
	if n.cfg.Profile {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	}
	return mux
}

// healthy is nil when the node serves and knows what lives here.
func (n *Node) healthy() error {
	if n.fleet != nil {
		select {
		case <-n.fleet.synced:
		default:
			return fmt.Errorf("waiting for the fleet at %s", n.cfg.Fleet)
		}
	}
	return nil
}

func (n *Node) putWorld(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
	if err == nil {
		err = json.Unmarshal(b, n.distance)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

// nodeMetrics counts what happens on a node. Nothing in it is about what
// tenants store.
type nodeMetrics struct{ n *Node }

var (
	descRefused     = prometheus.NewDesc("vecino_refused_connections_total", "Connections refused, by reason.", []string{"reason"}, nil)
	descAccepted    = prometheus.NewDesc("vecino_accepted_connections_total", "Connections given to a database.", nil, nil)
	descDatabases   = prometheus.NewDesc("vecino_databases", "Databases on this node.", nil, nil)
	descConnections = prometheus.NewDesc("vecino_connections", "Open client connections.", nil, nil)
	descJournal     = prometheus.NewDesc("vecino_journal_bytes_total", "Bytes appended to the journals.", nil, nil)
	descLink        = prometheus.NewDesc("vecino_link_up", "Whether the link to a node stands.", []string{"node"}, nil)
	descLinkRTT     = prometheus.NewDesc("vecino_link_rtt_seconds", "Round trip of the link to a node.", []string{"node"}, nil)
)

// Describe is left to Collect.
func (m nodeMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- descDatabases }

// Collect gives the figures of this moment.
func (m nodeMetrics) Collect(ch chan<- prometheus.Metric) {
	n := m.n
	r := &n.refused
	for _, c := range []struct {
		reason string
		count  *atomic.Int64
	}{
		{"stranger", &r.stranger}, {"missing", &r.missing}, {"malformed", &r.malformed}, {"oversized", &r.oversized}, {"family", &r.family},
		{"unknown", &r.unknown}, {"foreign", &r.foreign}, {"slow", &r.slow}, {"health", &r.health},
	} {
		ch <- prometheus.MustNewConstMetric(descRefused, prometheus.CounterValue, float64(c.count.Load()), c.reason)
	}
	connections := 0
	for _, s := range n.shards {
		connections += s.loop.Len()
	}
	var bytes uint64
	for _, s := range n.shards {
		bytes += uint64(s.journal.Tail())
	}
	n.mu.RLock()
	databases := len(n.mu.byID)
	n.mu.RUnlock()
	ch <- prometheus.MustNewConstMetric(descAccepted, prometheus.CounterValue, float64(n.accepted.Load()))
	ch <- prometheus.MustNewConstMetric(descDatabases, prometheus.GaugeValue, float64(databases))
	ch <- prometheus.MustNewConstMetric(descConnections, prometheus.GaugeValue, float64(connections))
	ch <- prometheus.MustNewConstMetric(descJournal, prometheus.CounterValue, float64(bytes))
	if n.hub == nil {
		return
	}
	for _, l := range n.hub.Stats() {
		up := 0.0
		if l.Up {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(descLink, prometheus.GaugeValue, up, l.Node)
		ch <- prometheus.MustNewConstMetric(descLinkRTT, prometheus.GaugeValue, l.RTT.Seconds(), l.Node)
	}
}
