package main

import (
	"errors"
	"fmt"
)

// The section always puts a node that syncs before each reply beside a
// redis-server that does.

const alwaysWriters = 64

func (b *bench) always() (string, error) {
	if err := b.needsFlags("durability"); err != nil {
		return "", err
	}
	redis, node, err := b.startBoth("always", []string{"--appendfsync", "always"}, append(b.neverCheckpoint(), "--durability", "always"))
	if err != nil {
		return "", err
	}
	defer b.end(redis, node)
	r, v := &contender{rival: redis}, &contender{rival: node}
	t := &table{head: []string{"SET, 64 writers", "Redis k/s", "Vecino k/s", "ratio", "of the rounds", "p50 ms, Redis", "p50 ms, Vecino", "p99 ms, Redis", "p99 ms, Vecino", "Redis CPU µs", "Vecino CPU µs", "CPU ratio"}}
	for _, size := range []int{32, 1024} {
		c := serverCase{test: "set", pipeline: 1, size: size, conns: alwaysWriters}
		n, err := b.roundLength(redis, c)
		if err != nil {
			return "", err
		}
		r.rounds, v.rounds = nil, nil
		for range pick(b, 7, 2) {
			for _, s := range []*contender{r, v} {
				if err := b.round(s, c, n); err != nil {
					return "", err
				}
			}
		}
		spare := &contender{rival: node} // its rounds don't count
		if err := b.profiled(node.admin, node.process, fmt.Sprintf("always %d B", size), nil, func() error { return errors.Join(b.round(spare, c, n), b.round(spare, c, n)) }); err != nil {
			return "", err
		}
		var speed, cpu []float64
		for i := range r.rounds {
			speed = append(speed, v.rounds[i].rps/r.rounds[i].rps)
			cpu = append(cpu, float64(v.rounds[i].cpu)/float64(r.rounds[i].cpu))
		}
		mid := func(s *contender, figure func(round) float64, format string) string {
			return fmt.Sprintf(format, median(each(s.rounds, figure)))
		}
		rps := func(x round) float64 { return x.rps / 1000 }
		p50 := func(x round) float64 { return x.p50 }
		p99 := func(x round) float64 { return x.p99 }
		used := func(x round) float64 { return micros(x.cpu) }
		t.add(fmt.Sprintf("value of %d B", size), mid(r, rps, "%.1f"), mid(v, rps, "%.1f"), judged(fmt.Sprintf("%.2f", median(speed)), meets(aimAlways, median(speed))), spread(speed),
			mid(r, p50, "%.2f"), mid(v, p50, "%.2f"), mid(r, p99, "%.2f"), mid(v, p99, "%.2f"), mid(r, used, "%.2f"), mid(v, used, "%.2f"), fmt.Sprintf("%.2f", median(cpu)))
		b.say("always: %d B: throughput %.2f of Redis", size, median(speed))
	}
	return t.String() + fmt.Sprintf("\n\nEach reply after its log is on the disk: `appendfsync always`, `--durability always`. The aim is a throughput of at least %.1f of Redis's.", aimAlways), nil
}

const aimAlways = 1.0
