package main

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// The section latency asks redis-server and a node for reads and writes at a
// fixed rate: half of what the slower of the two can do. Both hold millions of
// keys, write their log and go on as they do in service, with the node's
// checkpoints under way.

// latencyShape is one kind of traffic.
type latencyShape struct {
	name     string
	together int
}

var latencyShapes = []latencyShape{{"single commands", 1}, {"pipelines of 16", 16}}

const (
	isRead kind = iota
	isWrite
)

// halfWrites is as many reads as writes, of random keys below n.
func halfWrites(n, size int) func(dst []byte, r *rand.Rand) ([]byte, kind) {
	return func(dst []byte, r *rand.Rand) ([]byte, kind) {
		i := r.IntN(n)
		if r.Uint32()&1 == 0 {
			return appendGet(dst, i), isRead
		}
		return appendSet(dst, i, size), isWrite
	}
}

// tail is the latencies of one round.
type tail struct{ p50, p99, p999, max time.Duration }

// tails is a tail without what standstills of the machine hit, and with it.
type tails struct {
	tail
	all   tail
	still float64 // the share of the time in which the machine stood still
}

// standstills says in a section what the figures leave out.
const standstills = "What was under way while the machine itself stood still is left out, but for the columns that say so: a hypervisor takes a guest's processors from it for milliseconds when it has used its share. " +
	"It is seen by a thread of the highest priority on each processor, for which this must run as root (else nothing is left out), and counts when all of them are late at once, or when the kernel says that the time was stolen."

// share is a share as a percentage.
func share(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) }

func tailOf(times []time.Duration) tail {
	return tail{quantile(times, 0.5), quantile(times, 0.99), quantile(times, 0.999), quantile(times, 1)}
}

func (b *bench) latency() (string, error) {
	n := pick(b, 5_000_000, 100_000)
	redis, node, err := b.startBoth("latency", nil, nil)
	if err != nil {
		return "", err
	}
	defer b.end(redis, node)
	both := []*rival{redis, node}
	for _, s := range both {
		b.say("latency: filling %s with %d keys", s.name, n)
		if err := fillStrings(s.door(), n, shortValue).run(b.ctx); err != nil {
			return "", err
		}
	}
	t := &table{head: []string{"", "batches/s", "rounds", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "p99.9 of Redis's", "of the rounds", "p99.9 ms with standstills", "stood still"}}
	for _, shape := range latencyShapes {
		load := traffic{conns: clients, together: shape.together, command: halfWrites(n, shortValue), lasts: pick(b, 2*time.Second, 300*time.Millisecond)}
		top := map[*rival]float64{}
		for range 2 { // the first warms up
			for _, s := range both {
				load.door = s.door()
				found, err := load.run(b.ctx)
				if err == nil {
					err = found.sound()
				}
				if err != nil {
					return "", fmt.Errorf("top rate of %s: %w", s.name, err)
				}
				top[s] = found.rps() / float64(shape.together)
			}
		}
		load.rate, load.watched = min(top[redis], top[node])/2, true
		load.lasts = pick(b, 8*time.Second, time.Second)
		b.say("latency: %s: top rates %.0f and %.0f batches/s", shape.name, top[redis], top[node])
		found := map[*rival][]tails{}
		for round := range pick(b, 5, 2) {
			for turn := range both {
				s := both[(turn+round)%2] // who comes second finds a warmer machine
				load.door, load.seed = s.door(), uint64(round)
				saw, err := load.run(b.ctx)
				if err == nil {
					err = saw.sound()
				}
				if err != nil {
					return "", fmt.Errorf("%s: %w", s.name, err)
				}
				found[s] = append(found[s], saw.tails())
			}
		}
		load.door = node.door()
		if err := b.profiled(node.admin, node.process, "latency "+shape.name, nil, func() error { _, err := load.run(b.ctx); return err }); err != nil {
			return "", err
		}
		var ratios []float64
		for i := range found[redis] {
			ratios = append(ratios, float64(found[node][i].p999)/float64(found[redis][i].p999))
		}
		row := func(name string, s *rival, ratio, rounds string) {
			mid := func(figure func(tails) time.Duration) string {
				return fmt.Sprintf("%.2f", median(each(found[s], func(x tails) float64 { return millis(figure(x)) })))
			}
			t.add(name+", "+shape.name, fmt.Sprintf("%.0f", load.rate), fmt.Sprint(len(found[s])), mid(func(x tails) time.Duration { return x.p50 }),
				mid(func(x tails) time.Duration { return x.p99 }), mid(func(x tails) time.Duration { return x.p999 }), mid(func(x tails) time.Duration { return x.max }), ratio, rounds,
				mid(func(x tails) time.Duration { return x.all.p999 }), share(median(each(found[s], func(x tails) float64 { return x.still }))))
		}
		row("Redis", redis, "", "")
		row("Vecino", node, judged(fmt.Sprintf("%.2f", median(ratios)), meets(median(ratios), aimTail)), spread(ratios))
		b.say("latency: %s: p99.9 is %.2f of Redis's", shape.name, median(ratios))
	}
	return t.String() + fmt.Sprintf("\n\n%d keys of 16 bytes with values of %d; %d connections; as many GET as SET. The rate is half of what the slower of the two does with the same load when it isn't held back. "+
		"Latency counts from the time a batch was due. Medians of the rounds; the aim is a p99.9 of at most %.1f of Redis's. "+standstills, n, shortValue, clients, aimTail), nil
}

const aimTail = 1.0
