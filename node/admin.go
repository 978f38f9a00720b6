package node

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"vecino/engine"
	"vecino/internal/httpd"
	"vecino/slab"
)

// adminHandler answers health and metrics, and takes the simulated distances. It
// answers from the beginning of a start, which shows what that does.
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
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// healthy is nil when the node serves and knows what lives here.
func (n *Node) healthy() error {
	if !n.serving.Load() {
		return fmt.Errorf("starting for %s: %d keys loaded, %d writes of the journals read", time.Since(n.started).Round(time.Millisecond), n.loaded.Load(), n.replayed.Load())
	}
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
	if !n.serving.Load() {
		http.Error(w, "the node is starting: try again", http.StatusServiceUnavailable)
		return
	}
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
	descLoaded      = prometheus.NewDesc("vecino_loaded_keys_total", "Keys that came into memory with their database, at the start or when it woke.", nil, nil)
	descReplayed    = prometheus.NewDesc("vecino_replayed_writes_total", "Writes of the journals that the start has read.", nil, nil)
	descRefused     = prometheus.NewDesc("vecino_refused_connections_total", "Connections refused, by reason.", []string{"reason"}, nil)
	descAccepted    = prometheus.NewDesc("vecino_accepted_connections_total", "Connections given to a database.", nil, nil)
	descDatabases   = prometheus.NewDesc("vecino_databases", "Databases on this node.", nil, nil)
	descConnections = prometheus.NewDesc("vecino_connections", "Open client connections.", nil, nil)
	descJournal     = prometheus.NewDesc("vecino_journal_bytes_total", "Bytes appended to the journals.", nil, nil)
	descLink        = prometheus.NewDesc("vecino_link_up", "Whether the link to a node stands.", []string{"node"}, nil)
	descLinkRTT     = prometheus.NewDesc("vecino_link_rtt_seconds", "Round trip of the link to a node.", []string{"node"}, nil)
)

var (
	descMemory      = prometheus.NewDesc("vecino_memory_bytes", "Memory: what the node may take (budget), what databases may hold of it (data), what they hold (resident), what the process takes (process), and slabs (slabs).", []string{"what"}, nil)
	descStates      = prometheus.NewDesc("vecino_database_states", "Databases that are awake, or sleep with their tenant (dozing) or without (asleep).", []string{"state"}, nil)
	descOffloads    = prometheus.NewDesc("vecino_offloaded_values_total", "Values that left memory.", nil, nil)
	descOffloaded   = prometheus.NewDesc("vecino_offloaded_bytes_total", "Bytes of values that left memory.", nil, nil)
	descLeaveRests  = prometheus.NewDesc("vecino_offload_rest_seconds_total", "Time for which whoever lets values leave memory has rested, to leave the processors to clients.", nil, nil)
	descSunk        = prometheus.NewDesc("vecino_sunk_keys_total", "Keys of which not even the record stayed in memory.", nil, nil)
	descStalls      = prometheus.NewDesc("vecino_memory_stalls_total", "Times that writes had to wait for values to leave memory.", nil, nil)
	descFetched     = prometheus.NewDesc("vecino_fetched_bytes_total", "Bytes read from the tier for commands.", nil, nil)
	descFailures    = prometheus.NewDesc("vecino_fetch_failures_total", "Values and databases that could not be read.", nil, nil)
	descSlept       = prometheus.NewDesc("vecino_databases_slept_total", "Times that a database left memory.", nil, nil)
	descFetchTime   = prometheus.NewDesc("vecino_fetch_seconds", "Time from when a command wanted a value until it was read.", nil, nil)
	descWakeTime    = prometheus.NewDesc("vecino_wake_seconds", "Time that reading a database took.", nil, nil)
	descTier        = prometheus.NewDesc("vecino_tier_bytes", "The tier: its files (disk), its block cache (cache), and what isn't in tables yet (writes).", []string{"what"}, nil)
	descSweeps      = prometheus.NewDesc("vecino_checkpoints_total", "Checkpoints of databases that were begun.", nil, nil)
	descSweeping    = prometheus.NewDesc("vecino_checkpoints_under_way", "Checkpoints of databases that are under way.", nil, nil)
	descSweepRests  = prometheus.NewDesc("vecino_checkpoint_rest_seconds_total", "Time for which checkpoints have rested, to leave the processors to clients.", nil, nil)
	descCompactions = prometheus.NewDesc("vecino_tier_compactions_total", "Compactions of the tier.", nil, nil)
	descCompacting  = prometheus.NewDesc("vecino_tier_compacting", "Whether a compaction of the tier is under way.", nil, nil)
	descDebt        = prometheus.NewDesc("vecino_tier_compaction_debt_bytes", "An estimate of what compactions have yet to rewrite.", nil, nil)
)

// collectMemory gives the figures about memory and what isn't in it.
func (m nodeMetrics) collectMemory(ch chan<- prometheus.Metric) {
	n, k, f := m.n, m.n.keeper, m.n.fetcher
	gauge := func(desc *prometheus.Desc, value int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), labels...)
	}
	count := func(desc *prometheus.Desc, value int64) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value))
	}
	gauge(descMemory, k.total, "budget")
	gauge(descMemory, k.target.Load(), "data")
	gauge(descMemory, k.resident.Load(), "resident")
	gauge(descMemory, k.process.Load(), "process")
	gauge(descMemory, slab.Held(), "slabs")
	var states [3]int64
	for _, p := range n.all() {
		p.Engine.Lock()
		states[p.Engine.State()]++
		p.Engine.Unlock()
	}
	n.mu.RLock()
	asleep := len(n.mu.bedroom.sleepers)
	n.mu.RUnlock()
	gauge(descStates, states[engine.Awake], "awake")
	gauge(descStates, states[engine.Asleep]+states[engine.Waking], "dozing")
	gauge(descStates, int64(asleep), "asleep")
	count(descOffloads, k.offloads.Load())
	count(descOffloaded, k.offloaded.Load())
	ch <- prometheus.MustNewConstMetric(descLeaveRests, prometheus.CounterValue, time.Duration(k.rested.Load()).Seconds())
	count(descSunk, k.sunk.Load())
	count(descStalls, k.stalls.Load())
	count(descFetched, f.fetchedBytes.Load())
	count(descFailures, f.failures.Load())
	count(descSlept, n.slept.Load())
	for _, h := range []struct {
		desc *prometheus.Desc
		of   *latencies
	}{{descFetchTime, &f.fetchTime}, {descWakeTime, &f.wakeTime}} {
		total, seconds, buckets := h.of.cumulative()
		ch <- prometheus.MustNewConstHistogram(h.desc, total, seconds, buckets)
	}
	t := n.store.tier.Stats()
	gauge(descTier, t.DiskBytes, "disk")
	gauge(descTier, t.CacheBytes, "cache")
	gauge(descTier, t.MemBytes, "writes")
	count(descCompactions, t.Compactions)
	compacting := int64(0)
	if t.Compacting {
		compacting = 1
	}
	gauge(descCompacting, compacting)
	gauge(descDebt, t.CompactionDebt)
	count(descSweeps, n.store.sweeps.Load())
	gauge(descSweeping, n.store.sweeping.Load())
	ch <- prometheus.MustNewConstMetric(descSweepRests, prometheus.CounterValue, time.Duration(n.store.rested.Load()).Seconds())
}

// Describe is left to Collect.
func (m nodeMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- descDatabases }

// Collect gives the figures of this moment.
func (m nodeMetrics) Collect(ch chan<- prometheus.Metric) {
	n := m.n
	ch <- prometheus.MustNewConstMetric(descLoaded, prometheus.CounterValue, float64(n.loaded.Load()))
	ch <- prometheus.MustNewConstMetric(descReplayed, prometheus.CounterValue, float64(n.replayed.Load()))
	if !n.serving.Load() {
		return
	}
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
	databases := len(n.mu.byID) + len(n.mu.bedroom.sleepers)
	n.mu.RUnlock()
	m.collectMemory(ch)
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
