package session

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"vecino/command"
	"vecino/engine"
	"vecino/eviction"
	"vecino/keyspace"
	"vecino/replication"
)

// What follows makes a Tenant the command.Server of its clients: it shows what
// is theirs and nothing of a neighbour.

// Time is the time of the batch.
func (t *Tenant) Time() time.Time { return t.Clock.Now() }

// section is one part of INFO.
type section struct {
	name  string
	write func(t *Tenant, w *infoWriter)
}

var sections = []section{
	{name: "Server", write: (*Tenant).infoServer},
	{name: "Clients", write: (*Tenant).infoClients},
	{name: "Memory", write: (*Tenant).infoMemory},
	{name: "Persistence", write: (*Tenant).infoPersistence},
	{name: "Stats", write: (*Tenant).infoStats},
	{name: "Replication", write: (*Tenant).infoReplication},
	{name: "CPU", write: func(*Tenant, *infoWriter) {}},
	{name: "Cluster", write: func(_ *Tenant, w *infoWriter) { w.put("cluster_enabled", 0) }},
	{name: "Keyspace", write: (*Tenant).infoKeyspace},
	{name: "Quotas", write: (*Tenant).infoQuotas},
	{name: "Vecino", write: (*Tenant).infoVecino},
}

// Info is the text of INFO.
func (t *Tenant) Info(asked []string) string {
	var w infoWriter
	for _, s := range sections {
		name := strings.ToLower(s.name)
		wanted := len(asked) == 0
		for _, a := range asked {
			switch a = strings.ToLower(a); a {
			case "all", "everything", "default", name:
				wanted = true
			}
		}
		if wanted {
			if w.Len() > 0 {
				w.WriteString("\r\n")
			}
			w.WriteString("# " + s.name + "\r\n")
			s.write(t, &w)
		}
	}
	return w.String()
}

type infoWriter struct{ strings.Builder }

func (w *infoWriter) put(name string, value any) { fmt.Fprintf(w, "%s:%v\r\n", name, value) }

func (t *Tenant) infoServer(w *infoWriter) {
	n := t.Host.NodeInfo()
	up := t.Clock.Now().Sub(n.Started)
	w.put("redis_version", command.RedisVersion)
	w.put("vecino_version", n.Version)
	w.put("redis_mode", "standalone")
	w.put("os", "Linux")
	w.put("arch_bits", 64)
	w.put("run_id", n.RunID)
	w.put("tcp_port", n.Port)
	w.put("server_time_usec", t.Clock.Now().UnixMicro())
	w.put("uptime_in_seconds", int64(up.Seconds()))
	w.put("uptime_in_days", int64(up.Hours()/24))
	w.put("hz", 10)
}

func (t *Tenant) infoClients(w *infoWriter) {
	blocked, pubsub := 0, 0
	for _, s := range t.sessions {
		if s.parked != nil {
			blocked++
		}
		if s.listener.Subscribed() {
			pubsub++
		}
	}
	w.put("connected_clients", len(t.sessions))
	w.put("maxclients", cmp.Or(t.record.Limits.Connections, 10000))
	w.put("blocked_clients", blocked)
	w.put("pubsub_clients", pubsub)
	w.put("forwarding_sessions", len(t.remotes))
}

func (t *Tenant) infoMemory(w *infoWriter) {
	size, stats := t.Engine.Sizes(), t.Engine.Stats()
	w.put("used_memory", size.Used)
	w.put("used_memory_human", human(size.Used))
	w.put("used_memory_dataset", size.Used)
	w.put("state", t.Engine.State())
	w.put("resident_bytes", size.Resident)
	held := t.Engine.Keyspace().Memory() // none while the database sleeps
	w.put("used_memory_rss", held.Held+held.Objects)
	w.put("mem_fragmentation_ratio", fmt.Sprintf("%.2f", fragmentation(held)))
	w.put("mem_fragmentation_bytes", held.Idle)
	w.put("cold_keys", size.ColdKeys)
	w.put("sunk_keys", size.Sunk)
	w.put("cold_bytes", size.ColdBytes)
	w.put("cold_commands", stats.Cold)
	w.put("memory_hit_ratio", fmt.Sprintf("%.4f", hitRatio(stats)))
	w.put("last_wake_ms", stats.WakeMS)
	w.put("maxmemory", t.record.Limits.DataBytes)
	w.put("maxmemory_human", human(t.record.Limits.DataBytes))
	w.put("maxmemory_policy", t.evictionPolicy())
	w.put("mem_allocator", "slab")
}

// fragmentation is how much memory is held for each byte that is in use.
func fragmentation(m keyspace.Memory) float64 {
	if m.Held == m.Idle {
		return 1
	}
	return float64(m.Held) / float64(m.Held-m.Idle)
}

// hitRatio is how many of all commands had all that they needed in memory.
func hitRatio(s *engine.Stats) float64 {
	if s.Commands == 0 {
		return 1
	}
	return 1 - min(1, float64(s.Cold)/float64(s.Commands))
}

func (t *Tenant) evictionPolicy() string {
	return eviction.Of(t.record.Eviction, t.record.Policy).String()
}

// human is a number of bytes as INFO writes it for people.
func human(n int64) string {
	f, unit := float64(n), 0
	for f >= 1024 && unit < 4 {
		f /= 1024
		unit++
	}
	if unit == 0 {
		return fmt.Sprintf("%dB", n)
	}
	return fmt.Sprintf("%.2f%c", f, "BKMGT"[unit])
}

func (t *Tenant) infoPersistence(w *infoWriter) {
	w.put("loading", 0)
	w.put("async_loading", 0)
	w.put("aof_enabled", 1)
	w.put("aof_rewrite_in_progress", 0)
	status := "ok"
	if err := t.Engine.LogErr(); err != nil {
		status = "err"
		w.put("aof_last_write_error", engine.Trouble(err))
	}
	w.put("aof_last_write_status", status)
	w.put("durability", t.durable.policy)
	w.put("all_on_disk", btoi(t.Unsynced() == 0))
	w.put("waiting_for_disk", len(t.durable.corked)+len(t.durable.waits))
}

func (t *Tenant) infoStats(w *infoWriter) {
	s, ks := t.Engine.Stats(), t.Engine.Keyspace().Stats
	w.put("total_connections_received", t.total)
	w.put("total_commands_processed", s.Commands)
	w.put("instantaneous_ops_per_sec", t.quota.meter.perS)
	w.put("rejected_connections", t.quota.counts.Connections)
	w.put("total_error_replies", s.Errors)
	w.put("expired_keys", ks.Expired)
	w.put("evicted_keys", ks.Evicted)
	w.put("keyspace_hits", ks.Hits)
	w.put("keyspace_misses", ks.Misses)
	w.put("pubsub_channels", len(t.hub.Channels(command.PlainChannel, nil)))
	w.put("pubsub_patterns", t.hub.Patterns())
	w.put("pubsubshard_channels", len(t.hub.Channels(command.ShardChannel, nil)))
}

// infoReplication answers "master" everywhere: any copy takes writes, so a
// client that looks for a master has found one.
func (t *Tenant) infoReplication(w *infoWriter) {
	w.put("role", "master")
	replicas := 0
	for _, c := range t.record.Copies {
		if c.Node != t.Host.Node() {
			replicas++
		}
	}
	if t.feed == nil {
		replicas = 0
	}
	w.put("connected_slaves", replicas)
	w.put("master_repl_offset", t.Engine.Position().Seq)
}

func (t *Tenant) infoKeyspace(w *infoWriter) {
	for _, s := range t.Engine.Sizes().Spaces {
		fmt.Fprintf(w, "db%d:keys=%d,expires=%d,avg_ttl=0\r\n", s.DB, s.Keys, s.Expires)
	}
}

// infoQuotas is what the plan allows and how much of it is used: of the data
// everywhere, of what concerns clients here. A limit of 0 is none. What is
// refused for the size of the data or of a record, the primary counts.
func (t *Tenant) infoQuotas(w *infoWriter) {
	l, q, s := t.record.Limits, &t.quota, t.Engine.Stats()
	if t.record.Plan != "" {
		w.put("plan", t.record.Plan)
	}
	w.put("data_bytes", t.Engine.Sizes().Used)
	w.put("data_bytes_limit", l.DataBytes)
	w.put("data_rejected", s.Full)
	w.put("record_bytes_limit", l.RecordBytes)
	w.put("record_rejected", s.LargeRecords)
	w.put("request_bytes_limit", l.RequestBytes)
	w.put("request_rejected", q.counts.Requests)
	w.put("key_bytes_limit", l.KeyBytes)
	w.put("key_rejected", q.counts.Keys)
	w.put("commands_per_s", q.meter.perS)
	w.put("commands_per_s_limit", l.CommandsPerS)
	w.put("commands_delayed", q.meter.delayed)
	w.put("connections_delayed", len(q.meter.line))
	w.put("connections", len(t.sessions))
	w.put("connections_limit", l.Connections)
	w.put("connections_closed_idle", q.counts.Idle)
	w.put("connections_rejected", q.counts.Connections)
}

// infoVecino is what Redis has no word for: where this copy is, how far it has
// come, and what the distance cost.
func (t *Tenant) infoVecino(w *infoWriter) {
	role := "replica"
	if t.IsPrimary() {
		role = "primary"
	}
	pos, c := t.Engine.Position(), t.counters
	w.put("region", t.Host.Region())
	w.put("node", t.Host.Node())
	w.put("role", role)
	w.put("primary_region", t.primaryRegion())
	if p := t.record.PrimaryCopy(); p != nil {
		w.put("primary_node", p.Node)
	}
	w.put("live", btoi(t.Ready()))
	w.put("link_up", btoi(t.IsPrimary() || t.follower.Connected()))
	w.put("applied_id", fmt.Sprintf("%d-%d", pos.Epoch, pos.Seq))
	w.put("lag_ms", t.Lag())
	w.put("ryw_wait_ms", cmp.Or(t.record.Limits.ReadYourWrite, defaultPatience))
	w.put("local_reads", c.LocalReads)
	w.put("forwarded_reads", c.ForwardedReads)
	w.put("forwarded_writes", c.ForwardedWrites)
	w.put("held", c.Held)
	w.put("released_late", c.ReleasedLate)
	w.put("forward_failures", c.Failed)
	if t.feed == nil {
		return
	}
	subs := t.feed.Subscribers()
	slices.SortFunc(subs, func(a, b replication.Subscriber) int { return cmp.Compare(a.Node, b.Node) })
	for i, s := range subs {
		fmt.Fprintf(w, "replica%d:node=%s,live=%d,applied_id=%d-%d\r\n", i, s.Node, btoi(s.Live), s.Acked.Epoch, s.Acked.Seq)
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Config is the parameters that CONFIG GET shows: what tools and libraries
// look at, truthfully.
func (t *Tenant) Config() iter.Seq2[string, string] {
	params := [][2]string{
		{"appendfsync", string(t.durable.policy)},
		{"appendonly", "yes"},
		{"enable-debug-command", yesNo(t.Host.NodeInfo().Debug)},
		{"databases", fmt.Sprint(keyspace.Databases)},
		{"maxclients", fmt.Sprint(cmp.Or(t.record.Limits.Connections, 10000))},
		{"maxmemory", fmt.Sprint(t.record.Limits.DataBytes)},
		{"maxmemory-policy", t.evictionPolicy()},
		{"maxmemory-samples", fmt.Sprint(t.Engine.Samples())},
		{"notify-keyspace-events", ""},
		{"proto-max-bulk-len", "536870912"},
		{"save", ""},
		{"slowlog-log-slower-than", "10000"},
		{"slowlog-max-len", "128"},
		{"tcp-keepalive", "300"},
		{"timeout", "0"},
		{"hash-max-listpack-entries", "128"},
		{"hash-max-listpack-value", "64"},
		{"list-max-listpack-size", "-2"},
		{"set-max-intset-entries", "512"},
		{"zset-max-listpack-entries", "128"},
		{"zset-max-listpack-value", "64"},
	}
	return func(yield func(string, string) bool) {
		for _, p := range params {
			if !yield(p[0], p[1]) {
				return
			}
		}
	}
}

// SetConfig refuses: what a tenant may change is changed through its plan. But
// how hard this copy tries to follow the eviction policy can be set, until it
// starts anew.
func (t *Tenant) SetConfig(name, value string) error {
	if strings.EqualFold(name, "maxmemory-samples") {
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > eviction.MaxSamples {
			return command.ConfigFailed(name, fmt.Sprintf("argument must be between 1 and %d inclusive", eviction.MaxSamples))
		}
		t.Engine.SetSamples(n)
		return nil
	}
	for known := range t.Config() {
		if strings.EqualFold(name, known) {
			return command.ConfigFailed(name, "it belongs to the plan; see vecino redis update")
		}
	}
	return command.UnknownConfig(name)
}

// ResetStats is CONFIG RESETSTAT.
func (t *Tenant) ResetStats() {
	*t.Engine.Stats() = engine.Stats{}
	t.Engine.Keyspace().Stats = keyspace.Stats{}
	t.counters = Counters{}
	t.quota.counts, t.quota.meter.delayed = quotaCounts{}, 0
	t.total = 0
}

// Clients is the connections, oldest first.
func (t *Tenant) Clients() []command.ClientInfo {
	all := make([]command.ClientInfo, 0, len(t.sessions))
	for _, s := range t.sessions {
		all = append(all, s.info())
	}
	slices.SortFunc(all, func(a, b command.ClientInfo) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

func (s *Session) info() command.ClientInfo {
	now := s.tenant.Clock.Now()
	addr := s.client
	if !addr.IsValid() {
		addr = s.conn.Peer()
	}
	i := command.ClientInfo{
		ID: s.id, Addr: addr.String(), LocalAddr: s.conn.Local().String(), Name: s.name, Library: s.libName, Version: s.libVer,
		Age: now.Sub(s.opened), Idle: time.Duration(now.UnixMilli()-s.active) * time.Millisecond,
		DB: s.db, Multi: -1, Watched: len(s.watches), Proto: s.out.Proto, Blocked: s.blocked(),
		Sub: s.listener.Count(command.PlainChannel), PSub: s.listener.Count(command.PatternChannel), SSub: s.listener.Count(command.ShardChannel),
	}
	if s.multi != nil {
		i.Multi = len(s.multi.queued)
	}
	if s.lastRow != nil {
		i.LastCommand = s.lastRow.FullName()
	}
	return i
}

// Kill closes a connection.
func (t *Tenant) Kill(id int64) bool {
	s := t.sessions[id]
	if s == nil {
		return false
	}
	if s.inData { // its own reply is still to leave
		s.quit = true
	} else {
		s.conn.Close()
	}
	return true
}

func (t *Tenant) Channels(kind command.Channel, pattern []byte) [][]byte {
	return t.hub.Channels(kind, pattern)
}

func (t *Tenant) Subscribers(kind command.Channel, channel []byte) int {
	return t.hub.Subscribers(kind, channel)
}

func (t *Tenant) Patterns() int { return t.hub.Patterns() }
