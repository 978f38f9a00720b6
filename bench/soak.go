package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vecino/catalog"
)

// The soak keeps a node busy with everything at once, for minutes: many
// databases under mixed load, more data than its memory budget, so that values
// leave and come back all the time, large collections in parts, keys that
// expire, databases that evict, databases that are emptied, databases that fall
// asleep, with clients connected and without, and wake, and kill -9 in between.
// A ledger of what was answered is compared with what is read all along, and at
// the end key by key, once more after a last kill. Then all is deleted, and
// nothing may be left.
//
// The node is killed in the first two fifths of the time. Then it runs on, so
// that what it takes can be seen to stay flat (flat.go).

const (
	soakWorkers  = 8
	soakKillsIn  = 0.4              // of the time
	soakKill     = 20 * time.Second // there is one about so often, and three at least
	soakIdle     = 2 * time.Second
	soakLimit    = 1 << 20 // bytes of a database that evicts
	soakEmptied  = 40      // one visit of so many begins with FLUSHDB
	soakTogether = 100     // commands at once where all cells are written or read
	soakSweep    = 16      // one burst of so many is about a whole collection
	soakExpired  = 30 * time.Second
	soakCleared  = 60 * time.Second
)

// soakPolicies always find something to evict.
var soakPolicies = []string{"", "allkeys-lru", "allkeys-lfu", "allkeys-random"}

// soak is one run.
type soak struct {
	*bench
	stage     *stage
	memory    string // the node's budget
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
	filled  float64 // commands before the first sample
}

// soakDatabase is a database and its ledger.
type soakDatabase struct {
	sync.Mutex
	number      int
	evicts      bool
	cells       []*cell
	collections []*collection // of some of the cells

	stays bool    // its client stays connected between visits
	line  *client // that client's connection
	since int64   // generation that the connection is of
}

func runSoak(ctx context.Context, args []string) error {
	b := &bench{ctx: ctx, start: time.Now()}
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	lasts := flags.Duration("for", 10*time.Minute, "how long")
	count := flags.Int("databases", 120, "how many")
	memory := flags.String("memory", "48mb", "the node's budget; a database holds about 1 MiB")
	seed := flags.Uint64("seed", uint64(time.Now().UnixNano()), "of what is done")
	out := flags.String("o", "", "`file` whose section soak is rewritten")
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
	about := describeMachine()
	s := &soak{bench: b, memory: *memory, favourite: newZipf(*count, 0.9)}
	adjust := func(i int, d *catalog.Database) {
		evicts := i%3 == 2
		if evicts {
			d.Eviction, d.Limits.DataBytes, d.Policy = true, soakLimit, soakPolicies[i/3%len(soakPolicies)]
		}
		if i%10 == 0 {
			d.Durability = catalog.SyncAlways
		}
		visited := newSoakDatabase(i, evicts)
		visited.stays = i%3 == 1
		s.databases = append(s.databases, visited)
	}
	if s.stage, err = b.newStage("soak", *count, adjust, "--memory", *memory, "--idle", soakIdle.String(),
		"--checkpoint-bytes", fmt.Sprint(32<<20), "--segment-bytes", fmt.Sprint(8<<20), "--loops", "2"); err != nil {
		return err
	}
	defer b.closeStage(s.stage)
	if err := b.startStage(s.stage); err != nil {
		return err
	}
	text, err := s.run(*lasts, *seed)
	if text != "" {
		text = fmt.Sprintf("`go run ./bench soak -for %s`\n%s\n\n%s", *lasts, about, text)
		fmt.Printf("\n%s\n", text)
	}
	if err == nil && *out != "" {
		err = rewriteFile(*out, "soak", text)
	}
	return err
}

// run soaks, and returns what is to be told of it, also when it failed.
func (s *soak) run(lasts time.Duration, seed uint64) (text string, err error) {
	s.say("soak: writing every cell once")
	s.fill(seed)
	s.filled = float64(s.commands.Load())
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
		return "", err
	}
	if s.ctx.Err() != nil {
		return "", errors.New("interrupted")
	}
	s.say("soak: the load has ended: %d commands in %d visits, %d kills", s.commands.Load(), s.visits.Load(), killed)
	work, err := s.work()
	if err != nil {
		return "", err
	}
	cells := s.audit("at the end")
	s.say("soak: kill -9, and all of it once more")
	s.hangUp()
	s.kill(s.stage.node)
	if err := s.startStage(s.stage); err != nil {
		return "", err
	}
	s.audit("after the last kill")
	s.count()
	left, err := s.clear()
	if err != nil {
		return "", err
	}
	judged, err := flat(s.samples)
	if err != nil {
		s.complain("%v", err)
	}
	text = fmt.Sprintf("%s\n\n```\nRSS, MiB; ^ is a kill -9\n\n%s\n```\n\n%s\n\n", tableOf(s.samples, soakRows, s.filled), chart(s.samples, 72, 10), judged) +
		fmt.Sprintf("%d databases in a budget of %s, idle after %s; %d commands, %d kills; %d cells of the ledger were compared at the end, and again after a last kill. Between the last two kills %s. When all was deleted, %s.",
			len(s.databases), s.memory, soakIdle, s.commands.Load(), killed+1, cells, work, left)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.wrong) > 0 {
		return text, fmt.Errorf("the soak failed; -seed %d does much of it again:\n  %s", seed, strings.Join(s.mu.wrong, "\n  "))
	}
	return text, nil
}

// fill writes every cell, so that there is as much from the start as there will
// be later.
func (s *soak) fill(seed uint64) {
	err := s.stage.each(s.ctx, len(s.databases), soakWorkers, func(i int, c *client) error {
		d := s.databases[i]
		r := rand.New(rand.NewPCG(seed, uint64(1000+i)))
		for _, l := range d.collections {
			if err := s.send(c, d, []deed{l.fill()}); err != nil {
				return err
			}
		}
		for some := range slices.Chunk(d.cells, soakTogether) {
			var deeds []deed
			for _, x := range some {
				if x.is.n == 0 {
					deeds = append(deeds, x.write(r).deed())
				}
			}
			if err := s.send(c, d, deeds); err != nil {
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
		kill := false
		if killed < kills && at >= part*time.Duration(killed+1)/time.Duration(kills) {
			killed++
			kill = true
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
		sample, err := s.look()
		if err != nil {
			return killed, err
		}
		sample.at, sample.kill = at, kill
		s.samples = append(s.samples, sample)
		if n%15 == 14 {
			s.say("soak: %.0f %%, %d commands, RSS %s MiB, disk %s MiB", 100*at.Seconds()/lasts.Seconds(), s.commands.Load(), mib(sample.rss), mib(sample.disk))
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

// visit works on one database for a while, over a connection of its own or the
// one that stays.
func (s *soak) visit(ctx context.Context, r *rand.Rand) {
	if !s.up.Load() {
		time.Sleep(20 * time.Millisecond)
		return
	}
	d := s.databases[s.favourite.draw(r)]
	d.Lock()
	defer d.Unlock()
	before := s.generation.Load()
	err := s.connect(ctx, d, before)
	if err == nil {
		err = s.stay(ctx, d, r)
	}
	if err != nil || !d.stays {
		d.hangUp()
	}
	s.visits.Add(1)
	if err != nil && ctx.Err() == nil && s.generation.Load() == before && s.up.Load() {
		s.complain("database %d: %v", d.number, err)
	}
}

// connect gives a database a connection to the node's process of this generation.
func (s *soak) connect(ctx context.Context, d *soakDatabase, generation int64) (err error) {
	if d.line != nil && d.since == generation {
		return nil
	}
	d.hangUp()
	d.since = generation
	d.line, err = s.stage.enter(ctx, d.number)
	return err
}

func (d *soakDatabase) hangUp() {
	if d.line != nil {
		d.line.Close()
		d.line = nil
	}
}

func (s *soak) hangUp() {
	for _, d := range s.databases {
		d.hangUp()
	}
}

// stay is what is done in a visit. Its error is the connection's.
func (s *soak) stay(ctx context.Context, d *soakDatabase, r *rand.Rand) error {
	doubtful := slices.DeleteFunc(slices.Clone(d.cells), func(x *cell) bool { return x.maybe == nil })
	if err := s.readAll(d.line, d, doubtful); err != nil {
		return err
	}
	if r.IntN(soakEmptied) == 0 {
		if err := s.send(d.line, d, []deed{remove(d.cells, "FLUSHDB")}); err != nil {
			return err
		}
	}
	for range 4 + r.IntN(24) {
		if ctx.Err() != nil {
			return nil
		}
		if err := s.burst(d.line, d, r); err != nil {
			return err
		}
	}
	return nil
}

// burst sends a few commands at once, of different cells, or one of a collection.
func (s *soak) burst(c *client, d *soakDatabase, r *rand.Rand) error {
	if len(d.collections) > 0 && r.IntN(soakSweep) == 0 {
		return s.send(c, d, []deed{d.collections[r.IntN(len(d.collections))].next(r)})
	}
	deeds := make([]deed, 0, 16)
	for _, i := range distinct(r, len(d.cells), cap(deeds)) {
		deeds = append(deeds, d.cells[i].next(r).deed())
	}
	return s.send(c, d, deeds)
}

// readAll reads some cells.
func (s *soak) readAll(c *client, d *soakDatabase, cells []*cell) error {
	for some := range slices.Chunk(cells, soakTogether) {
		var deeds []deed
		for _, x := range some {
			deeds = append(deeds, x.read().deed())
		}
		if err := s.send(c, d, deeds); err != nil {
			return err
		}
	}
	return nil
}

// send carries out some deeds, and compares the replies with the ledger. The
// error is the connection's.
func (s *soak) send(c *client, d *soakDatabase, deeds []deed) error {
	c.out = c.out[:0]
	for i := range deeds {
		c.out = appendCommand(c.out, deeds[i].words...)
	}
	c.SetDeadline(time.Now().Add(3 * patience))
	sent := time.Now()
	for i := range deeds {
		deeds[i].begin(sent)
	}
	if _, err := c.Write(c.out); err != nil {
		return err
	}
	for i := range deeds {
		v, err := c.replies.Read()
		if err != nil {
			return err
		}
		s.commands.Add(1)
		if err := deeds[i].end(v, d.evicts, sent, time.Now()); err != nil {
			s.complain("database %d: %s: %v", d.number, strings.Join(shorten(deeds[i].words), " "), err)
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
	short := make([]string, min(len(words), 6))
	for i, w := range words[:len(short)] {
		short[i] = fmt.Sprintf("%.24s", w)
	}
	return short
}

// audit reads every cell of every database, and every collection as a whole.
func (s *soak) audit(when string) (compared int64) {
	s.say("soak: reading all that the ledger holds, %s", when)
	var cells, present atomic.Int64
	err := s.stage.each(s.ctx, len(s.databases), 4, func(i int, c *client) error {
		d := s.databases[i]
		d.Lock()
		defer d.Unlock()
		if err := s.readAll(c, d, d.cells); err != nil {
			return err
		}
		for _, l := range d.collections {
			if err := s.send(c, d, []deed{l.read()}); err != nil {
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
	return cells.Load()
}

// count looks whether there are as many keys as the ledger has, so whether what
// expired has gone by itself.
func (s *soak) count() {
	deadline := time.Now().Add(soakExpired)
	err := s.stage.each(s.ctx, len(s.databases), 4, func(i int, c *client) error {
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
		s.complain("counting: %v", err)
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

// work says what the node has been through since the last kill. What a soak is for must
// have happened.
func (s *soak) work() (string, error) {
	sums := map[string]float64{}
	err := s.stage.each(s.ctx, len(s.databases), 4, func(_ int, c *client) error {
		v, err := c.do("INFO", "everything")
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		fields := infoFields(v.Text())
		for _, name := range []string{"expired_keys", "evicted_keys"} {
			n, _ := number(fields, name)
			sums[name] += n
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	page, err := get(s.ctx, "http://"+s.stage.admin+"/metrics")
	if err != nil {
		return "", err
	}
	var parts []string
	for _, w := range []struct{ name, what string }{
		{"vecino_offloaded_values_total", "%.0f values left memory"}, {"vecino_fetch_seconds_count", "%.0f came back"}, {"vecino_databases_slept_total", "databases fell asleep %.0f times"},
		{"vecino_wake_seconds_count", "and woke %.0f times"}, {"expired_keys", "at least %.0f keys expired"}, {"evicted_keys", "and %.0f were evicted"},
	} {
		n, ok := sums[w.name]
		if !ok {
			if n, err = metric(page, w.name); err != nil {
				return "", err
			}
		}
		parts = append(parts, fmt.Sprintf(w.what, n))
		if n == 0 {
			s.complain("%s is 0: the soak proves less than it should", w.name)
		}
	}
	if n, err := metric(page, "vecino_fetch_failures_total"); err != nil || n > 0 {
		s.complain("%.0f values could not be read (%v); the node said:\n%s", n, err, s.stage.node.lastWords())
	}
	text := strings.Join(parts, ", ")
	s.say("soak: since the last kill %s", text)
	return text, nil
}

// clear deletes everything, and waits until all sleep. What is counted then is
// counted wrongly, and slabs that are held have leaked.
func (s *soak) clear() (left string, err error) {
	s.say("soak: deleting everything")
	err = s.stage.each(s.ctx, len(s.databases), 4, func(_ int, c *client) error {
		if _, err := c.do("FLUSHALL"); err != nil {
			return err
		}
		v, err := c.do("INFO", "memory")
		if err != nil {
			return err
		}
		fields := infoFields(v.Text())
		for _, name := range []string{"used_memory", "resident_bytes", "cold_keys", "cold_bytes"} {
			if n, ok := number(fields, name); !ok || n != 0 {
				return fmt.Errorf("%s is %s after FLUSHALL", name, fields[name])
			}
		}
		return nil
	})
	if err != nil {
		s.complain("deleting everything: %v", err)
	}
	for deadline := time.Now().Add(soakCleared); ; time.Sleep(100 * time.Millisecond) {
		x, err := s.look()
		if err != nil {
			return "", err
		}
		late := time.Now().After(deadline)
		if late {
			s.complain("%s after FLUSHALL of all %.0f databases are awake, and there are %s MiB of slabs", soakCleared, x.awake+x.dozing, mib(x.slabs))
		}
		if late || x.awake+x.dozing+x.slabs == 0 {
			return fmt.Sprintf("%s MiB of Go's heap and %s MiB of slabs were left", mib(x.heap), mib(x.slabs)), nil
		}
	}
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
