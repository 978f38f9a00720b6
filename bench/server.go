package main

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// The section server puts a lone node beside redis-server, both with their
// log written at once and synced every second. Each case starts both afresh;
// then their rounds alternate. Neither compacts its log meanwhile, so that a
// round holds the cost of its commands and not, by chance, that of a rewrite.

// What redis-benchmark is told in every case.
const (
	clients  = 50
	keyspace = 100_000
)

// aims are, by pipeline, the most CPU per command and the least throughput that
// a node should have, as shares of Redis's.
var aims = map[int]struct{ cpu, throughput float64 }{
	1:  {1.0, 0.95}, // redis-benchmark itself is the limit
	16: {0.6, 1.3},
	64: {0.4, 2},
}

var pipelines = []int{1, 16, 64}

// serverCase is one kind of load.
type serverCase struct {
	test     string // as redis-benchmark names it
	pipeline int
	size     int // bytes of a value; 0: the test has none
	conns    int // 0: clients
}

func (c serverCase) String() string {
	s := fmt.Sprintf("%s -P %d", strings.ToUpper(c.test), c.pipeline)
	switch {
	case c.size >= 1024:
		s += fmt.Sprintf(" %d KiB", c.size>>10)
	case c.size > 0:
		s += fmt.Sprintf(" %d B", c.size)
	}
	return s
}

// maxRoundBytes bounds what one round can add to a list.
const maxRoundBytes = 512 << 20

func serverCases() (all []serverCase) {
	for _, pipeline := range pipelines {
		for _, test := range []string{"get", "set", "incr", "lpush", "hset", "zadd"} {
			if test == "incr" || test == "zadd" { // redis-benchmark gives these no value
				all = append(all, serverCase{test: test, pipeline: pipeline})
				continue
			}
			all = append(all, serverCase{test: test, pipeline: pipeline, size: 3})
			if pipeline <= 16 { // more of it measures memory bandwidth
				all = append(all, serverCase{test: test, pipeline: pipeline, size: 1024})
			}
		}
	}
	return all
}

// round is what one run of redis-benchmark found.
type round struct {
	rps float64
	cpu time.Duration // of the server, per command
	p50 float64       // milliseconds
	p99 float64
}

// contender is a rival with its rounds.
type contender struct {
	*rival
	rounds []round
}

func (b *bench) server() (string, error) {
	t := &table{head: []string{"case", "Redis k/s", "Vecino k/s", "ratio", "p99 ms, Redis", "p99 ms, Vecino", "Redis CPU µs", "Vecino CPU µs", "CPU ratio", "of the rounds"}}
	speeds, costs := map[int][]float64{}, map[int][]float64{} // ratios by pipeline
	spent := map[int]spending{}
	for _, pipeline := range pipelines {
		spent[pipeline] = spending{}
	}
	for _, c := range serverCases() {
		if !strings.Contains(c.String(), b.cases) || b.quick && b.cases == "" && c.size >= 1024 {
			continue
		}
		redis, vecino, err := b.serverCase(c, spent[c.pipeline])
		if err != nil {
			return "", fmt.Errorf("%s: %w", c, err)
		}
		var throughput, cpu []float64
		for i := range redis {
			throughput = append(throughput, vecino[i].rps/redis[i].rps)
			cpu = append(cpu, float64(vecino[i].cpu)/float64(redis[i].cpu))
		}
		rps := func(r round) float64 { return r.rps / 1000 }
		p99 := func(r round) float64 { return r.p99 }
		used := func(r round) float64 { return micros(r.cpu) }
		speed, cost, aim := median(throughput), median(cpu), aims[c.pipeline]
		speeds[c.pipeline], costs[c.pipeline] = append(speeds[c.pipeline], speed), append(costs[c.pipeline], cost)
		t.add(c.String(),
			fmt.Sprintf("%.0f", median(each(redis, rps))), fmt.Sprintf("%.0f", median(each(vecino, rps))), judged(fmt.Sprintf("%.2f", speed), meets(aim.throughput, speed)),
			fmt.Sprintf("%.2f", median(each(redis, p99))), fmt.Sprintf("%.2f", median(each(vecino, p99))),
			fmt.Sprintf("%.2f", median(each(redis, used))), fmt.Sprintf("%.2f", median(each(vecino, used))),
			judged(fmt.Sprintf("%.2f", cost), meets(cost, aim.cpu)), spread(cpu))
		b.say("server: %-18s throughput %.2f, CPU per command %.2f of Redis", c, speed, cost)
	}
	if len(t.rows) == 0 {
		return "", fmt.Errorf("no case is named like %q; they are named like \"GET -P 1 3 B\" and \"ZADD -P 16\"", b.cases)
	}
	sum := &table{head: []string{"geometric mean of Redis's", "CPU per command", "aim", "throughput", "aim"}}
	profiles := newShares()
	for _, pipeline := range pipelines {
		if len(costs[pipeline]) > 0 {
			speed, cost, aim := geomean(speeds[pipeline]), geomean(costs[pipeline]), aims[pipeline]
			profiles.add(spent[pipeline].row(fmt.Sprintf("-P %d", pipeline))...)
			sum.add(fmt.Sprintf("-P %d, %d cases", pipeline, len(costs[pipeline])), judged(fmt.Sprintf("%.2f", cost), meets(cost, aim.cpu)), fmt.Sprintf("≤ %.1f", aim.cpu),
				judged(fmt.Sprintf("%.2f", speed), meets(aim.throughput, speed)), fmt.Sprintf("≥ %.2f", aim.throughput))
		}
	}
	return t.String() + "\n\n" + sum.String() + "\n\n" + profiles.String(), nil
}

// meets reports whether a figure is no greater than another once both are
// rounded as tables show them.
func meets(figure, most float64) bool { return math.Round(figure*100) <= math.Round(most*100) }

// spread is the least and the greatest of some ratios.
func spread(v []float64) string {
	lo, hi := v[0], v[0]
	for _, x := range v {
		lo, hi = min(lo, x), max(hi, x)
	}
	return fmt.Sprintf("%.2f–%.2f", lo, hi)
}

// serverCase measures one case, and returns the rounds of both. What the node spent its
// CPU on in further rounds it adds to into.
func (b *bench) serverCase(c serverCase, into spending) (redis, vecino []round, err error) {
	redisServer, node, err := b.startBoth("server", nil, b.neverCheckpoint())
	if err != nil {
		return nil, nil, err
	}
	defer b.end(redisServer, node)
	r, v := &contender{rival: redisServer}, &contender{rival: node}
	for _, s := range []*contender{r, v} {
		if err := b.warm(s.rival, c); err != nil {
			return nil, nil, err
		}
	}
	n, err := b.roundLength(r.rival, c)
	if err != nil {
		return nil, nil, err
	}
	for range pick(b, 5, 1) {
		for _, s := range []*contender{r, v} {
			if err := b.round(s, c, n); err != nil {
				return nil, nil, err
			}
		}
	}
	spare := &contender{rival: v.rival} // its rounds don't count
	if err := b.profiled(v.admin, v.process, "server "+c.String(), into, func() error { return errors.Join(b.round(spare, c, n), b.round(spare, c, n)) }); err != nil {
		return nil, nil, err
	}
	return r.rounds, v.rounds, nil
}

// warm fills the keyspace, so that every round finds it in the same state.
func (b *bench) warm(s *rival, c serverCase) error {
	conn, err := dial(b.ctx, local(s.port))
	if err != nil {
		return err
	}
	defer conn.Close()
	if c.test == "get" { // as redis-benchmark names them, so that every GET finds its key
		value := strings.Repeat("x", c.size)
		if err := conn.pipeline(keyspace, func(i int) []string { return []string{"SET", fmt.Sprintf("key:%012d", i), value} }); err != nil {
			return fmt.Errorf("fill %s: %w", s.name, err)
		}
		return nil
	}
	fast := c
	fast.pipeline = 64
	n := 3 * keyspace // reaches 95 % of the keys
	if c.test == "lpush" {
		n = keyspace
	}
	_, err = b.redisBenchmark(s, fast, n)
	return err
}

// roundLength finds how many commands keep Redis busy for the length of a
// round.
func (b *bench) roundLength(r *rival, c serverCase) (int, error) {
	long := pick(b, 1500*time.Millisecond, 200*time.Millisecond)
	probe, err := b.redisBenchmark(r, c, pick(b, 20_000, 8_000)*c.pipeline)
	if err != nil {
		return 0, err
	}
	// The CPU is counted in hundredths of a second: a busy machine mustn't make
	// a round too short for that.
	n := max(int(probe.rps*long.Seconds()), 20_000*min(c.pipeline, 10))
	if c.test == "lpush" {
		n = min(n, maxRoundBytes/c.size)
	}
	return n / 1000 * 1000, nil
}

// round runs one round against a server and notes what it cost.
func (b *bench) round(s *contender, c serverCase, n int) error {
	if c.test == "lpush" { // begins with an empty list
		conn, err := dial(b.ctx, local(s.port))
		if err != nil {
			return err
		}
		_, err = conn.do("DEL", "mylist")
		conn.Close()
		if err != nil {
			return err
		}
	}
	r, err := b.redisBenchmark(s.rival, c, n)
	s.rounds = append(s.rounds, r)
	return err
}

// redisBenchmark runs redis-benchmark once.
func (b *bench) redisBenchmark(s *rival, c serverCase, n int) (r round, err error) {
	args := []string{"-h", "127.0.0.1", "-p", strconv.Itoa(s.port), "-t", c.test, "-n", strconv.Itoa(n), "-c", strconv.Itoa(cmp.Or(c.conns, clients)),
		"-P", strconv.Itoa(c.pipeline), "-r", strconv.Itoa(keyspace), "--csv"}
	if c.size > 0 {
		args = append(args, "-d", strconv.Itoa(c.size))
	}
	before, err := s.cpu()
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(b.ctx, "redis-benchmark", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("redis-benchmark against %s: %w %s", s.name, err, stderr.Bytes())
	}
	after, err := s.cpu()
	if err != nil {
		return r, fmt.Errorf("%w; %s said:\n%s", err, s.name, s.lastWords())
	}
	if r, err = parseBenchmark(out); err != nil {
		return r, fmt.Errorf("redis-benchmark against %s: %w", s.name, err)
	}
	r.cpu = (after - before) / time.Duration(n)
	return r, nil
}

// parseBenchmark reads what redis-benchmark prints with --csv.
func parseBenchmark(out []byte) (r round, err error) {
	lines := csv.NewReader(bytes.NewReader(out))
	lines.FieldsPerRecord = -1
	all, err := lines.ReadAll()
	if err != nil || len(all) < 2 {
		return r, fmt.Errorf("can't read %q", out)
	}
	for i, name := range all[0] {
		if i >= len(all[1]) {
			break
		}
		switch name {
		case "rps":
			r.rps, err = strconv.ParseFloat(all[1][i], 64)
		case "p50_latency_ms":
			r.p50, err = strconv.ParseFloat(all[1][i], 64)
		case "p99_latency_ms":
			r.p99, err = strconv.ParseFloat(all[1][i], 64)
		}
		if err != nil {
			return r, fmt.Errorf("can't read %q", out)
		}
	}
	if r.rps == 0 {
		return r, fmt.Errorf("no throughput in %q", out)
	}
	return r, nil
}
