package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vecino/catalog"
)

// The soak keeps a node busy with everything at once, for minutes: many
// databases under mixed load, more data than its memory budget, keys that
// expire, databases that evict, databases that fall asleep and wake, and
// kill -9 in between. A ledger of what was answered is compared with what is
// read all along, and at the end key by key, once more after a last kill.
//
// The node is killed in the first two fifths of the time. Then it runs on, so
// that its memory can be seen to stay flat.

const (
	soakWorkers = 8
	soakKillsIn = 0.4              // of the time
	soakKill    = 20 * time.Second // there is one about so often, and three at least
	soakIdle    = 2 * time.Second
	soakLimit   = 1 << 20 // bytes of a database that evicts
	soakFlat    = 1.10    // the second half's memory may be so many times the first's
	soakSlack   = 8 << 20 // and so many bytes more
	soakExpired = 30 * time.Second
)

// soakPolicies always find something to evict.
var soakPolicies = []string{"", "allkeys-lru", "allkeys-lfu", "allkeys-random"}

// soak is one run.
type soak struct {
	*bench
	stage     *stage
	databases []*soakDatabase
	favourite *zipf // who is visited how often

	up         atomic.Bool
	generation atomic.Int64 // of the node's process
	commands   atomic.Int64
	visits     atomic.Int64

	mu struct {
		sync.Mutex
		wrong []string // what must not have been
	}
	samples []soakSample
}

type soakSample struct {
	at   time.Duration
	rss  int64
	disk int64
	kill bool // the node was killed before it
}

// soakDatabase is a database and its ledger.
type soakDatabase struct {
	sync.Mutex
	number int
	evicts bool
	cells  []*cell
}

func runSoak(ctx context.Context, args []string) error {
	b := &bench{ctx: ctx, start: time.Now()}
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	lasts := flags.Duration("for", 10*time.Minute, "how long")
	count := flags.Int("databases", 120, "how many")
	memory := flags.String("memory", "64mb", "the node's budget; a database holds about 1 MiB")
	seed := flags.Uint64("seed", uint64(time.Now().UnixNano()), "of what is done")
	flags.StringVar(&b.vecino, "vecino", "", "`program` to run (default: built from this tree)")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	clean, err := b.prepare()
	if err != nil {
		return err
	}
	defer clean()
	b.say("soak of %s, %d databases, a budget of %s, -seed %d", *lasts, *count, *memory, *seed)
	for _, name := range []string{"memory", "idle"} {
		if err := b.needsFlags(name); err != nil {
			b.say("%v; the soak goes on without", err)
		}
	}
	s := &soak{bench: b, favourite: newZipf(*count, 1.1)}
	adjust := func(i int, d *catalog.Database) {
		evicts := i%3 == 2
		if evicts {
			d.Eviction, d.Limits.DataBytes, d.Policy = true, soakLimit, soakPolicies[i/3%len(soakPolicies)]
		}
		if i%10 == 0 {
			d.Durability = catalog.SyncAlways
		}
		s.databases = append(s.databases, newSoakDatabase(i, evicts))
	}
	more := append(b.ifHas("memory", *memory, "idle", soakIdle.String(), "checkpoint-bytes", fmt.Sprint(32<<20), "segment-bytes", fmt.Sprint(8<<20)), "--loops", "2")
	if s.stage, err = b.newStage("soak", *count, adjust, more...); err != nil {
		return err
	}
	defer b.closeStage(s.stage)
	if err := b.startStage(s.stage); err != nil {
		return err
	}
	return s.run(*lasts, *seed)
}

func (s *soak) run(lasts time.Duration, seed uint64) error {
	s.say("soak: writing every cell once")
	s.fill(seed)
	s.up.Store(true)
	begun := time.Now()
	ctx, cancel := context.WithTimeout(s.ctx, lasts)
	defer cancel()
	var workers sync.WaitGroup
	for w := range soakWorkers {
		workers.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(w)))
			for ctx.Err() == nil && !s.failed() {
				s.visit(ctx, r)
			}
		})
	}
	killed, err := s.watch(ctx, begun, lasts)
	cancel()
	workers.Wait()
	if err != nil {
		return err
	}
	if s.ctx.Err() != nil {
		return errors.New("interrupted")
	}
	s.say("soak: the load has ended: %d commands in %d visits, %d kills", s.commands.Load(), s.visits.Load(), killed)
	goroutines := s.goroutines()
	s.audit("at the end", false)
	s.report()
	s.say("soak: kill -9, and all of it once more")
	s.kill(s.stage.node)
	if err := s.startStage(s.stage); err != nil {
		return err
	}
	s.audit("after the last kill", true)

	fmt.Printf("\nmemory of the node, MiB; ^ is a kill -9\n\n%s\n", chart(s.samples, 72, 10))
	fmt.Printf("\n%d commands, %d kills, goroutines at the end: %.0f\n", s.commands.Load(), killed+1, goroutines)
	flat := s.flat()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.wrong) > 0 {
		return fmt.Errorf("the soak failed; -seed %d does much of it again:\n  %s", seed, strings.Join(s.mu.wrong, "\n  "))
	}
	return flat
}

// fill writes every cell, so that there is as much from the start as there will
// be later.
func (s *soak) fill(seed uint64) {
	err := s.stage.each(s.ctx, len(s.databases), soakWorkers, func(i int, c *client) error {
		d := s.databases[i]
		r := rand.New(rand.NewPCG(seed, uint64(1000+i)))
		for from := 0; from < len(d.cells); from += 100 {
			var acts []act
			for _, x := range d.cells[from:min(len(d.cells), from+100)] {
				acts = append(acts, x.write(r))
			}
			if err := s.send(c, d, acts); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.complain("writing every cell: %v", err)
	}
}

// watch looks at the node every second, and kills it at its times.
func (s *soak) watch(ctx context.Context, begun time.Time, lasts time.Duration) (killed int, err error) {
	part := time.Duration(float64(lasts) * soakKillsIn)
	kills := max(3, int(part/soakKill))
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return killed, nil
		case <-s.stage.node.ended:
			return killed, fmt.Errorf("the node ended by itself; it said:\n%s", s.stage.node.lastWords())
		case <-tick.C:
		}
		if s.failed() {
			return killed, nil
		}
		at := time.Since(begun)
		sample := soakSample{at: at}
		if killed < kills && at >= part*time.Duration(killed+1)/time.Duration(kills) {
			killed++
			sample.kill = true
			s.up.Store(false)
			s.generation.Add(1)
			s.kill(s.stage.node)
			down := time.Now()
			if err := s.startStage(s.stage); err != nil {
				return killed, err
			}
			s.up.Store(true)
			s.say("soak: kill -9; it was back after %.1f s", time.Since(down).Seconds())
		}
		if sample.rss, err = s.stage.node.rss(); err != nil {
			return killed, err
		}
		sample.disk = diskUsage(s.stage.dir)
		s.samples = append(s.samples, sample)
		if n%15 == 14 {
			s.say("soak: %.0f %%, %d commands, RSS %.0f MiB, disk %.0f MiB", 100*at.Seconds()/lasts.Seconds(), s.commands.Load(), float64(sample.rss)/(1<<20), float64(sample.disk)/(1<<20))
		}
	}
}

// complain notes something that must not have been.
func (s *soak) complain(format string, args ...any) {
	const most = 20
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.wrong) < most {
		s.mu.wrong = append(s.mu.wrong, fmt.Sprintf(format, args...))
		s.say("soak: WRONG: %s", s.mu.wrong[len(s.mu.wrong)-1])
	}
}

func (s *soak) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.wrong) > 0
}

// visit works on one database for a while, over a connection of its own.
func (s *soak) visit(ctx context.Context, r *rand.Rand) {
	if !s.up.Load() {
		time.Sleep(20 * time.Millisecond)
		return
	}
	d := s.databases[s.favourite.draw(r)]
	d.Lock()
	defer d.Unlock()
	before := s.generation.Load()
	err := s.stage.visit(ctx, d.number, func(_ int, c *client) error {
		for range 10 + r.IntN(60) {
			if ctx.Err() != nil {
				return nil
			}
			if err := s.burst(c, d, r); err != nil {
				return err
			}
		}
		return nil
	})
	s.visits.Add(1)
	if err != nil && ctx.Err() == nil && s.generation.Load() == before && s.up.Load() {
		s.complain("database %d: %v", d.number, err)
	}
}

// burst sends a few commands at once, of different cells. The error is the
// connection's.
func (s *soak) burst(c *client, d *soakDatabase, r *rand.Rand) error {
	acts := make([]act, 0, 16)
	for _, i := range distinct(r, len(d.cells), cap(acts)) {
		acts = append(acts, d.cells[i].next(r))
	}
	return s.send(c, d, acts)
}

// send carries out some acts, and compares the replies with the ledger.
func (s *soak) send(c *client, d *soakDatabase, acts []act) error {
	c.out = c.out[:0]
	for _, a := range acts {
		c.out = appendCommand(c.out, a.words...)
	}
	c.SetDeadline(time.Now().Add(3 * patience))
	sent := time.Now()
	for i := range acts {
		acts[i].begin(sent)
	}
	if _, err := c.Write(c.out); err != nil {
		return err
	}
	for i := range acts {
		v, err := c.replies.Read()
		if err != nil {
			return err
		}
		s.commands.Add(1)
		if err := acts[i].end(v, d.evicts, sent, time.Now()); err != nil {
			s.complain("database %d: %s: %v", d.number, strings.Join(shorten(acts[i].words), " "), err)
		}
	}
	return nil
}

// distinct draws k different numbers below n.
func distinct(r *rand.Rand, n, k int) []int {
	drawn := map[int]bool{}
	list := make([]int, 0, k)
	for len(list) < min(k, n) {
		if i := r.IntN(n); !drawn[i] {
			drawn[i] = true
			list = append(list, i)
		}
	}
	return list
}

func shorten(words []string) []string {
	short := make([]string, len(words))
	for i, w := range words {
		short[i] = fmt.Sprintf("%.24s", w)
	}
	return short
}

// audit reads every cell of every database. The last time it also looks whether
// what expired has gone by itself.
func (s *soak) audit(when string, last bool) {
	s.say("soak: reading all that the ledger holds, %s", when)
	var cells, present atomic.Int64
	err := s.stage.each(s.ctx, len(s.databases), 4, func(i int, c *client) error {
		d := s.databases[i]
		d.Lock()
		defer d.Unlock()
		for from := 0; from < len(d.cells); from += 100 {
			var acts []act
			for _, x := range d.cells[from:min(len(d.cells), from+100)] {
				acts = append(acts, x.read())
			}
			if err := s.send(c, d, acts); err != nil {
				return err
			}
		}
		for _, x := range d.cells {
			cells.Add(1)
			if x.is.n > 0 {
				present.Add(1)
			}
		}
		return nil
	})
	if err != nil {
		s.complain("reading all, %s: %v", when, err)
	}
	s.say("soak: %d cells compared, %d with a value", cells.Load(), present.Load())
	if !last {
		return
	}
	deadline := time.Now().Add(soakExpired)
	err = s.stage.each(s.ctx, len(s.databases), 4, func(i int, c *client) error {
		d := s.databases[i]
		if d.evicts {
			return nil
		}
		for {
			v, err := c.do("DBSIZE")
			if err != nil {
				return err
			}
			want, soon := d.keys(time.Now())
			if int(v.Int) == want {
				return nil
			}
			if time.Now().After(deadline) && !soon {
				return fmt.Errorf("DBSIZE is %d, the ledger has %d keys: what expired isn't removed, or keys are counted wrongly", v.Int, want)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	if err != nil {
		s.complain("counting, %s: %v", when, err)
	}
}

// keys counts the keys that the ledger has, and says whether some of them are
// about to expire.
func (d *soakDatabase) keys(now time.Time) (n int, soon bool) {
	names := map[string]bool{}
	for _, x := range d.cells {
		switch {
		case x.is.n == 0:
		case x.is.until.IsZero():
			names[x.key] = true
		case now.Before(x.is.until):
			names[x.key] = true
			soon = true
		}
	}
	return len(names), soon
}

// report says what the databases say they have been through.
func (s *soak) report() {
	sums := map[string]float64{}
	s.stage.each(s.ctx, len(s.databases), 4, func(_ int, c *client) error {
		v, err := c.do("INFO", "everything")
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		fields := infoFields(v.Text())
		for _, name := range []string{"expired_keys", "evicted_keys", "memory_hits", "memory_misses", "cold_keys", "cold_bytes", "resident_bytes", "wakes"} {
			if n, ok := number(fields, name); ok {
				sums[name] += n
			}
		}
		return nil
	})
	var parts []string
	for _, name := range []string{"expired_keys", "evicted_keys", "memory_hits", "memory_misses", "cold_keys", "cold_bytes", "resident_bytes", "wakes"} {
		if n, ok := sums[name]; ok {
			parts = append(parts, fmt.Sprintf("%s %.0f", name, n))
		}
	}
	s.say("soak: INFO of all databases, since the last kill: %s", strings.Join(parts, ", "))
	if sums["evicted_keys"] == 0 {
		s.complain("nothing was evicted: the soak proves less than it should")
	}
	if sums["expired_keys"] == 0 {
		s.complain("nothing expired: the soak proves less than it should")
	}
}

func (s *soak) goroutines() float64 {
	page, _ := get(s.ctx, "http://"+s.stage.admin+"/metrics")
	n, _ := metric(page, "go_goroutines")
	return n
}

// flat compares the two halves of the time after the last kill, without its
// first fifth.
func (s *soak) flat() error {
	first, second := halves(s.samples)
	if len(first) == 0 {
		return errors.New("the soak was too short to tell whether memory is flat: -for 1m or more")
	}
	rss := func(x soakSample) float64 { return float64(x.rss) }
	disk := func(x soakSample) float64 { return float64(x.disk) }
	a, z := median(each(first, rss)), median(each(second, rss))
	fmt.Printf("RSS, median: %s MiB in the first half after the last kill, %s MiB in the second; disk %s and %s MiB\n", mib(a), mib(z), mib(median(each(first, disk))), mib(median(each(second, disk))))
	if z > a*soakFlat+soakSlack {
		return fmt.Errorf("memory isn't flat: %s MiB, then %s MiB", mib(a), mib(z))
	}
	if a, z := median(each(first, disk)), median(each(second, disk)); z > 2*a+256<<20 {
		return fmt.Errorf("the state directory grows: %s MiB, then %s MiB", mib(a), mib(z))
	}
	return nil
}

func halves(samples []soakSample) (first, second []soakSample) {
	from := 0
	for i, x := range samples {
		if x.kill {
			from = i
		}
	}
	rest := samples[from:]
	rest = rest[len(rest)/5:]
	if len(rest) < 10 {
		return nil, nil
	}
	return rest[:len(rest)/2], rest[len(rest)/2:]
}

// chart draws memory over time.
func chart(samples []soakSample, width, height int) string {
	if len(samples) == 0 {
		return ""
	}
	width = min(width, len(samples))
	columns, kills, top := make([]int64, width), make([]bool, width), int64(1)
	for i, x := range samples {
		c := i * width / len(samples)
		columns[c] = max(columns[c], x.rss)
		kills[c] = kills[c] || x.kill
		top = max(top, x.rss)
	}
	var b strings.Builder
	for row := height; row > 0; row-- {
		line := make([]byte, width)
		for c, v := range columns {
			if line[c] = ' '; v*int64(height) > top*int64(row-1) {
				line[c] = '#'
			}
		}
		label := "       "
		if row == height {
			label = fmt.Sprintf("%6.0f ", float64(top)/(1<<20))
		}
		b.WriteString(strings.TrimRight(label+"|"+string(line), " ") + "\n")
	}
	marks := make([]byte, width)
	for c := range marks {
		if marks[c] = '-'; kills[c] {
			marks[c] = '^'
		}
	}
	fmt.Fprintf(&b, "     0 +%s %s", marks, samples[len(samples)-1].at.Round(time.Second))
	return b.String()
}

// diskUsage is what a directory's files take on the disk.
func diskUsage(dir string) (bytes int64) {
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if i, err := d.Info(); err == nil {
				bytes += i.Size()
			}
		}
		return nil // files come and go meanwhile
	})
	return bytes
}
