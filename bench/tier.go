package main

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"time"
)

// The section tier fills two nodes with far more than one of them may keep in
// memory, reads mostly what is hot, and compares.

const (
	tierValue  = 1024
	tierHot    = 20   // one key of so many is hot
	tierHotOf  = 0.95 // share of reads that go to hot keys
	aimTier    = 0.7  // throughput, as a share of the node with everything in memory
	aimHotKeys = 2 * time.Millisecond
)

const (
	isHot kind = iota
	isCold
)

// mostlyHot reads keys below n.
func mostlyHot(n int) func(dst []byte, r *rand.Rand) ([]byte, kind) {
	hot := n / tierHot
	return func(dst []byte, r *rand.Rand) ([]byte, kind) {
		if r.Float64() < tierHotOf {
			return appendGet(dst, r.IntN(hot)), isHot
		}
		return appendGet(dst, hot+r.IntN(n-hot)), isCold
	}
}

func (b *bench) tier() (string, error) {
	if err := b.needsFlags("memory"); err != nil {
		return "", err
	}
	data, budget := pick(b, 5<<30, 512<<20), pick(b, 512<<20, 64<<20)
	n := data / tierValue
	if err := b.needsDisk(int64(5 * data)); err != nil { // a journal and a tier of each, and what a compaction takes meanwhile
		return "", err
	}
	ports, err := freePorts(4)
	if err != nil {
		return "", err
	}
	start := func(name string, port, admin int, more ...string) (*rival, error) {
		return b.startNode(filepath.Join(b.dir, name), port, local(admin), more...)
	}
	full, err := start("tier-full", ports[0], ports[1])
	if err != nil {
		return "", err
	}
	defer b.end(full)
	small, err := start("tier-small", ports[2], ports[3], "--memory", fmt.Sprintf("%dmb", budget>>20))
	if err != nil {
		return "", err
	}
	defer b.end(small)
	both := []*rival{full, small}
	filled := map[*rival]time.Duration{}
	for i, s := range both {
		b.say("tier: filling the node with %s: %d keys of %d B", []string{"everything in memory", "a budget"}[i], n, tierValue)
		begun := time.Now()
		if err := fillStrings(s.door(), n, tierValue).run(b.ctx); err != nil {
			return "", err
		}
		filled[s] = time.Since(begun)
		if err := b.compacted(s.admin); err != nil { // or it would keep the disk busy for the next
			return "", err
		}
	}
	b.say("tier: warming up")
	warm := map[*rival]time.Duration{}
	for _, s := range both { // what is hot comes in once, and then proves that it is
		hot := filling{door: s.door(), n: n / tierHot, command: func(dst []byte, i int) []byte {
			return appendCommand(dst, "STRLEN", string(appendKey(nil, i)))
		}}
		if err := hot.run(b.ctx); err != nil {
			return "", err
		}
		load := traffic{door: s.door(), conns: clients, together: 16, lasts: pick(b, 10*time.Second, time.Second), command: mostlyHot(n)}
		if warm[s], err = b.warmed(s, load); err != nil {
			return "", err
		}
		if err := b.compacted(s.admin); err != nil {
			return "", err
		}
	}

	t := &table{head: []string{"GET", "all in memory k/s", "budget k/s", "ratio", "of the rounds", "tier reads per GET", "errors"}}
	profiles := newShares()
	var rate float64
	for _, together := range []int{1, 16} {
		load := traffic{conns: clients, together: together, lasts: pick(b, 4*time.Second, 500*time.Millisecond), command: mostlyHot(n)}
		rps := map[*rival][]float64{}
		failed := 0
		var reads []float64
		for round := range pick(b, 5, 2) {
			load.seed = rand.Uint64() // another one each time: what is cold is read once
			for turn := range both {
				s := both[(turn+round)%2]
				load.door = s.door()
				found, share, err := b.tierReads(s, load)
				if err != nil {
					return "", err
				}
				if s == small {
					reads = append(reads, share)
				}
				failed += found.failed + found.missing + found.unanswered
				rps[s] = append(rps[s], found.rps())
			}
		}
		load.door, load.seed = small.door(), rand.Uint64()
		spent := spending{}
		if err := b.profiled(small.admin, small.process, fmt.Sprintf("tier -P %d", together), spent, func() error { _, err := load.run(b.ctx); return err }); err != nil {
			return "", err
		}
		profiles.add(spent.row(fmt.Sprintf("budget, -P %d", together))...)
		var ratios []float64
		for i := range rps[full] {
			ratios = append(ratios, rps[small][i]/rps[full][i])
		}
		if together == 1 {
			rate = min(median(rps[full]), median(rps[small])) / 2
		}
		t.add(fmt.Sprintf("-c %d -P %d", clients, together), fmt.Sprintf("%.0f", median(rps[full])/1000), fmt.Sprintf("%.0f", median(rps[small])/1000),
			judged(fmt.Sprintf("%.2f", median(ratios)), meets(aimTier, median(ratios))), spread(ratios), fmt.Sprintf("%.3f", median(reads)), judged(fmt.Sprint(failed), failed == 0))
		b.say("tier: -P %d: throughput %.2f of the node with everything in memory, %d errors", together, median(ratios), failed)
	}

	fetchTimes := func() (histogram, error) {
		page, err := get(b.ctx, "http://"+small.admin+"/metrics")
		if err != nil {
			return nil, err
		}
		return histogramOf(page, "vecino_fetch_seconds")
	}
	slow := &table{head: []string{"latency", "at", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "p99 ms with standstills", "stood still"}}
	var reading histogram // at the higher rate
	for i, rate := range []float64{rate, rate / 2} {
		latencies := map[*rival]map[kind][]tails{full: {}, small: {}}
		before, err := fetchTimes()
		if err != nil {
			return "", err
		}
		for round := range pick(b, 3, 1) {
			seed := rand.Uint64()
			for turn := range both {
				s := both[(turn+round)%2]
				load := traffic{door: s.door(), conns: clients, together: 1, rate: rate, lasts: pick(b, 8*time.Second, time.Second), command: mostlyHot(n), seed: seed, watched: true}
				found, err := load.run(b.ctx)
				if err == nil {
					err = found.sound()
				}
				if err != nil {
					return "", err
				}
				for _, k := range []kind{isHot, isCold} {
					latencies[s][k] = append(latencies[s][k], found.tails(k))
				}
			}
		}
		if i == 0 {
			if reading, err = fetchTimes(); err != nil {
				return "", err
			}
			reading = reading.since(before)
		}
		for i, s := range both {
			for _, k := range []kind{isHot, isCold} {
				mid := func(figure func(tails) time.Duration) float64 {
					return median(each(latencies[s][k], func(x tails) float64 { return millis(figure(x)) }))
				}
				p99 := mid(func(x tails) time.Duration { return x.p99 })
				slow.add([]string{"all in memory", "budget"}[i]+", "+[]string{"hot", "cold"}[k]+" keys", fmt.Sprintf("%.0f/s", rate), fmt.Sprintf("%.2f", mid(func(x tails) time.Duration { return x.p50 })),
					judged(fmt.Sprintf("%.2f", p99), s == full || k == isCold || p99 <= millis(aimHotKeys)), fmt.Sprintf("%.2f", mid(func(x tails) time.Duration { return x.p999 })),
					fmt.Sprintf("%.2f", mid(func(x tails) time.Duration { return x.max })), fmt.Sprintf("%.2f", mid(func(x tails) time.Duration { return x.all.p99 })),
					share(median(each(latencies[s][k], func(x tails) float64 { return x.still }))))
			}
		}
	}
	fullRSS, err := full.rss()
	if err != nil {
		return "", err
	}
	smallRSS, err := small.rss()
	if err != nil {
		return "", err
	}
	text := t.String() + "\n\n" + slow.String() + "\n\n" + profiles.String() + fmt.Sprintf("\n\n%d MiB of values of %d B in a budget of %d MiB; one key of %d is hot and gets %.0f %% of the reads. Filling took %.0f s with everything in memory, %.0f s with the budget; "+
		"then the load ran %.0f s and %.0f s until it read no smaller share from the tier any more. RSS at the end: %.0f MiB and %.0f MiB. At the higher rate of the second table, which is half of the top rate at -P 1, the node says that half of the values were read from disk within %s ms, and 99 %% within %s ms (powers of two); "+
		"a hot key that is asked for behind such a one on the same connection waits for it. The aims: throughput at least %.1f, no error, p99 of hot keys at most %s. "+standstills,
		data>>20, tierValue, budget>>20, tierHot, 100*tierHotOf, filled[full].Seconds(), filled[small].Seconds(), warm[full].Seconds(), warm[small].Seconds(), float64(fullRSS)/(1<<20), float64(smallRSS)/(1<<20), ms(reading.quantile(0.5)), ms(reading.quantile(0.99)), aimTier, aimHotKeys)
	return text, nil
}

// warmed runs a load until it reads no smaller share of its values from the tier any
// more: its last two runs read at most 5 % less than the best before. It returns how
// long that took.
func (b *bench) warmed(s *rival, load traffic) (time.Duration, error) {
	const gain, runs, patience = 0.95, 2, 60
	least, same := math.Inf(1), 0
	for n := 1; ; n++ {
		load.seed = rand.Uint64()
		_, share, err := b.tierReads(s, load)
		if err != nil {
			return 0, err
		}
		if same++; share < least*gain {
			same = 0
		}
		least = min(least, share)
		switch {
		case same == runs:
			return time.Duration(n) * load.lasts, nil
		case n == patience:
			return 0, fmt.Errorf("after %s the load still reads less and less from the tier", time.Duration(n)*load.lasts)
		}
	}
}

// tierReads runs a load, and says how many values it read from the tier for each command.
func (b *bench) tierReads(s *rival, load traffic) (found *seen, share float64, err error) {
	reads := func() (n float64) {
		page, failed := get(b.ctx, "http://"+s.admin+"/metrics")
		if failed == nil {
			n, failed = metric(page, "vecino_fetch_seconds_count")
		}
		err = errors.Join(err, failed)
		return n
	}
	before := reads()
	found, failed := load.run(b.ctx)
	if err = errors.Join(err, failed); err != nil {
		return found, 0, err
	}
	share = (reads() - before) / float64(max(found.commands, 1))
	return found, share, err
}

// compacted waits until the tier of a node has no more work that filling it has left
// behind.
func (b *bench) compacted(admin string) error {
	const quiet, patience, every = 5 * time.Second, 15 * time.Minute, 30 * time.Second
	began := time.Now()
	last, told := began, began
	for ; time.Since(last) < quiet; time.Sleep(100 * time.Millisecond) {
		page, err := get(b.ctx, "http://"+admin+"/metrics")
		if err != nil {
			return err
		}
		busy, err := metric(page, "vecino_tier_compacting")
		if err != nil {
			return err
		}
		writes, err := metric(page, "vecino_checkpoints_under_way") // which gives it more
		if err != nil {
			return err
		}
		if busy+writes > 0 {
			last = time.Now()
		}
		if time.Since(told) > every {
			told = time.Now()
			debt, err := metric(page, "vecino_tier_compaction_debt_bytes")
			if err != nil {
				return err
			}
			b.say("tier: it still compacts, some %.1f GiB are left", debt/(1<<30))
		}
		if time.Since(began) > patience {
			return fmt.Errorf("the tier of %s goes on compacting for more than %s", admin, patience)
		}
	}
	return nil
}

// needsDisk is an error if there is less room where the servers write.
func (b *bench) needsDisk(bytes int64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(b.dir, &fs); err != nil {
		return fmt.Errorf("room in %s: %w", b.dir, err)
	}
	if have := int64(fs.Bavail) * fs.Bsize; have < bytes {
		return notAvailable(fmt.Sprintf("%s has room for %d GiB, and it needs %d: set TMPDIR to where there is more", b.dir, have>>30, bytes>>30))
	}
	return nil
}
