package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"vecino/region"
)

// The section forward writes on replicas, through their regions' edges, and
// reads what was written on the same connection. The distances are simulated,
// so that how long a write should take is known: one round trip to the
// primary.

// aimOver is how much longer than one round trip a forwarded write may take,
// at p99.
const aimOver = 2 * time.Millisecond

var (
	forwardPrimary  = region.Code("mad")
	forwardReplicas = []region.Code{"ams", "dfw", "gru", "jnb", "scl"}
)

// forwarded is what the connections of one region found.
type forwarded struct {
	sets, gets []time.Duration
	counters   map[string]int64 // of INFO's section vecino, what was added
}

func (b *bench) forward() (string, error) {
	replicas := pick(b, forwardReplicas, []region.Code{"ams", "scl"})
	d, err := b.deploy(append([]region.Code{forwardPrimary}, replicas...), true)
	if err != nil {
		return "", err
	}
	_, doors, err := d.create(b.ctx, forwardPrimary, replicas)
	if err != nil {
		return "", err
	}
	conns, samples := pick(b, 4, 2), pick(b, 125, 30)
	b.say("forward: %d connections in each region, %d writes on each", conns, samples)
	found := make([]forwarded, len(replicas))
	failed := make([]error, len(replicas))
	var all sync.WaitGroup
	for i, r := range replicas {
		all.Go(func() {
			found[i], failed[i] = b.forwardFrom(doors[r], r, conns, samples)
			if failed[i] != nil {
				failed[i] = fmt.Errorf("%s: %w", r, failed[i])
			}
		})
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		return "", err
	}
	t := &table{head: []string{"region", "round trip ms", "SET p50 ms", "SET p99 ms", "over at p50", "over at p99", "GET p50 ms", "GET p99 ms", "GETs local", "replies held", "released late"}}
	for i, r := range replicas {
		f := found[i]
		rtt := region.RTT(r, forwardPrimary)
		over := quantile(f.sets, 0.99) - rtt
		c := f.counters
		t.add(region.Title(r), ms(rtt), ms(quantile(f.sets, 0.5)), ms(quantile(f.sets, 0.99)), ms(quantile(f.sets, 0.5)-rtt), judged(ms(over), over <= aimOver),
			ms(quantile(f.gets, 0.5)), ms(quantile(f.gets, 0.99)),
			fmt.Sprintf("%.1f %%", 100*float64(c["local_reads"])/float64(max(1, c["local_reads"]+c["forwarded_reads"]))), fmt.Sprint(c["held"]), fmt.Sprint(c["released_late"]))
		b.say("forward: %s: %s ms over one round trip at p50, %s at p99", r, ms(quantile(f.sets, 0.5)-rtt), ms(over))
	}
	return t.String() + fmt.Sprintf("\n\nThe primary is in %s. Each region: %d connections through its edge, %d times a SET, the GET of the same key, and a pause of 20 to 40 ms.", region.Title(forwardPrimary), conns, samples), nil
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", millis(d)) }

// forwardFrom is one region's part.
func (b *bench) forwardFrom(to door, r region.Code, conns, samples int) (f forwarded, err error) {
	before, err := b.counters(to)
	if err != nil {
		return f, err
	}
	found := make([]forwarded, conns)
	failed := make([]error, conns)
	var all sync.WaitGroup
	for i := range conns {
		all.Go(func() { found[i], failed[i] = b.readOwnWrites(to, fmt.Sprintf("%s:%d", r, i), samples) })
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		return f, err
	}
	for _, x := range found {
		f.sets, f.gets = append(f.sets, x.sets...), append(f.gets, x.gets...)
	}
	if f.counters, err = b.counters(to); err != nil {
		return f, err
	}
	for name, n := range before {
		f.counters[name] -= n
	}
	return f, nil
}

// readOwnWrites is what one connection does. The first few writes only warm
// everything up.
func (b *bench) readOwnWrites(to door, key string, samples int) (f forwarded, err error) {
	const warm = 3
	c, err := to.open(b.ctx)
	if err != nil {
		return f, err
	}
	defer c.Close()
	for i := range warm + samples {
		if err := b.ctx.Err(); err != nil {
			return f, err
		}
		time.Sleep(20*time.Millisecond + rand.N(20*time.Millisecond))
		value := strconv.Itoa(i)
		start := time.Now()
		if _, err := c.do("SET", key, value); err != nil {
			return f, err
		}
		set := time.Since(start)
		start = time.Now()
		got, err := c.do("GET", key)
		if err != nil {
			return f, err
		}
		if got.Text() != value {
			return f, fmt.Errorf("a connection wrote %s and then read %s", value, got)
		}
		if i >= warm {
			f.sets, f.gets = append(f.sets, set), append(f.gets, time.Since(start))
		}
	}
	return f, nil
}

// counters of the copy in a region.
func (b *bench) counters(to door) (map[string]int64, error) {
	c, err := to.open(b.ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	text, err := c.do("INFO", "vecino")
	if err != nil {
		return nil, err
	}
	fields := infoFields(text.Text())
	counters := map[string]int64{}
	for _, name := range []string{"local_reads", "forwarded_reads", "forwarded_writes", "held", "released_late"} {
		if counters[name], err = strconv.ParseInt(fields[name], 10, 64); err != nil {
			return nil, fmt.Errorf("INFO vecino: %s: %w", name, err)
		}
	}
	return counters, nil
}
