package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The section neighbours has a light client ask database A, while a neighbour
// on the same loop does its worst, and compares with the time before.

const (
	lightRate     = 1000 // commands a second
	aimNeighbour  = 3.0  // times the quiet p99
	slowFor       = 5 * time.Second
	floodConns    = 500
	floodPipeline = 64
)

// disturbance is what database B does meanwhile.
type disturbance struct {
	name string
	// start begins it; the function that it returns ends it, and says what it did.
	start func() (finish func() (string, error), err error)
	aimed bool // false: only shown
}

func (b *bench) neighbours() (string, error) {
	s, err := b.newStage("neighbours", 2, nil, "--loops", "1")
	if err != nil {
		return "", err
	}
	defer b.closeStage(s)
	if err := b.startStage(s); err != nil {
		return "", err
	}
	const lightKeys = 1000
	heavyKeys := pick(b, 5_000_000, 200_000)
	light, heavy := s.door(0), s.door(1)
	b.say("neighbours: filling the neighbour with %d keys", heavyKeys)
	if err := errors.Join(fillStrings(light, lightKeys, shortValue).run(b.ctx), fillStrings(heavy, heavyKeys, shortValue).run(b.ctx)); err != nil {
		return "", err
	}
	control, err := b.newControl(heavyKeys)
	if err != nil {
		return "", err
	}
	defer b.end(control)
	slow, err := b.slowCommand(heavy)
	if err != nil {
		return "", err
	}

	lasts := pick(b, slowFor-500*time.Millisecond, 1500*time.Millisecond)
	quiet := func(seed uint64) (tails, error) {
		found, err := traffic{door: light, conns: 2, together: 1, rate: lightRate, lasts: lasts, command: halfWrites(lightKeys, shortValue), seed: seed, watched: true}.run(b.ctx)
		if err == nil {
			err = found.sound()
		}
		if err != nil {
			return tails{}, fmt.Errorf("the light client: %w", err)
		}
		return found.tails(), nil
	}
	flood := func(to door) func() (func() (string, error), error) {
		return func() (func() (string, error), error) { return b.flood(to, heavyKeys) }
	}
	keysOf := func(to door) func() (func() (string, error), error) {
		return func() (func() (string, error), error) { return b.nuisance(to, "-command", "KEYS *") }
	}
	keys := fmt.Sprintf("KEYS * on %d keys, again and again", heavyKeys)
	pipelines := fmt.Sprintf("%d connections with %d-deep pipelines", floodConns, floodPipeline)
	disturbances := []disturbance{
		{"a command of " + slowFor.String(), slow, true},
		{keys, keysOf(heavy), true},
		{pipelines, flood(heavy), true},
		{"another process: " + keys, keysOf(control.door()), false},
		{"another process: " + pipelines, flood(control.door()), false},
	}
	disturbances = slices.DeleteFunc(disturbances, func(d disturbance) bool { return !strings.Contains(d.name, b.cases) })
	if len(disturbances) == 0 {
		return "", fmt.Errorf("nothing that a neighbour does is named like %q", b.cases)
	}
	t := &table{head: []string{"database B runs", "p50 ms quiet", "p50 ms", "p99 ms quiet", "p99 ms", "ratio", "of the rounds", "max ms", "with standstills: p99 ms quiet", "p99 ms", "stood still quiet", "stood still", "meanwhile on B"}}
	before, during, did := make([][]tails, len(disturbances)), make([][]tails, len(disturbances)), make([]string, len(disturbances))
	for round := range pick(b, 5, 1) {
		for i, d := range disturbances {
			x, err := quiet(uint64(round))
			if err != nil {
				return "", err
			}
			before[i] = append(before[i], x)
			finish, err := d.start()
			if err != nil {
				return "", fmt.Errorf("%s: %w", d.name, err)
			}
			x, err = quiet(uint64(round))
			what, failed := finish()
			if err = errors.Join(err, failed); err != nil {
				return "", fmt.Errorf("%s: %w", d.name, err)
			}
			during[i], did[i] = append(during[i], x), what
			q := before[i][round]
			b.say("neighbours: %s: p99 %s ms, quiet %s ms; with standstills %s and %s ms (%s and %s of the time); B: %s", d.name, ms(x.p99), ms(q.p99), ms(x.all.p99), ms(q.all.p99), share(x.still), share(q.still), what)
		}
	}
	for i, d := range disturbances {
		var ratios []float64
		for r := range during[i] {
			ratios = append(ratios, float64(during[i][r].p99)/float64(before[i][r].p99))
		}
		mid := func(of []tails, figure func(tails) time.Duration) string {
			return fmt.Sprintf("%.2f", median(each(of, func(x tails) float64 { return millis(figure(x)) })))
		}
		still := func(of []tails) string { return share(median(each(of, func(x tails) float64 { return x.still }))) }
		p50, p99, all := func(x tails) time.Duration { return x.p50 }, func(x tails) time.Duration { return x.p99 }, func(x tails) time.Duration { return x.all.p99 }
		t.add(d.name, mid(before[i], p50), mid(during[i], p50), mid(before[i], p99), mid(during[i], p99),
			judged(fmt.Sprintf("%.1f", median(ratios)), !d.aimed || median(ratios) <= aimNeighbour), spread(ratios), mid(during[i], func(x tails) time.Duration { return x.max }),
			mid(before[i], all), mid(during[i], all), still(before[i]), still(during[i]), did[i])
	}
	return t.String() + fmt.Sprintf("\n\nOne node with one loop. The light client sends %d commands a second, half of them writes, on two connections to database A, first alone and then beside database B; %d rounds, medians. "+
		"What loads B comes from a process of its own with `nice 19`; \"another process\" is a redis-server that gets the same load in the node's stead. The aim is at most %.0f times the quiet p99. "+standstills, lightRate, len(before[len(before)-1]), aimNeighbour), nil
}

// newControl is a redis-server to be loaded in the node's stead.
func (b *bench) newControl(keys int) (*rival, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	control, err := b.startRedis(b.dir+"/neighbours-control", ports[0])
	if err != nil {
		return nil, err
	}
	return control, fillStrings(control.door(), keys, shortValue).run(b.ctx)
}

// slowCommand finds a command that keeps a database busy for so long: one big
// set against another, in one EXEC, as many times as it takes.
func (b *bench) slowCommand(to door) (start func() (func() (string, error), error), err error) {
	const members = 200_000
	c, err := to.open(b.ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for _, key := range []string{"slow:a", "slow:b"} {
		args := make([]string, 0, 1002)
		for from := 0; from < members; from += 1000 {
			args = append(args[:0], "SADD", key)
			for m := range 1000 {
				args = append(args, fmt.Sprintf("%s:%d", key, from+m))
			}
			if _, err := c.do(args...); err != nil {
				return nil, err
			}
		}
	}
	// Nothing is in both, so all of one is looked up in the other.
	one := []string{"SINTERCARD", "2", "slow:a", "slow:b"}
	begun := time.Now()
	for range 5 {
		if _, err := c.do(one...); err != nil {
			return nil, err
		}
	}
	times := max(1, int(slowFor/(time.Since(begun)/5)))
	if b.quick {
		times = max(1, times/4)
	}
	return func() (func() (string, error), error) {
		c, err := to.open(b.ctx)
		if err != nil {
			return nil, err
		}
		if _, err := c.do("MULTI"); err != nil {
			c.Close()
			return nil, err
		}
		if err := c.pipeline(times, func(int) []string { return one }); err != nil {
			c.Close()
			return nil, err
		}
		type ended struct {
			took time.Duration
			err  error
		}
		done := make(chan ended, 1)
		go func() {
			defer c.Close()
			begun := time.Now()
			_, err := c.slowly("EXEC")
			done <- ended{time.Since(begun), err}
		}()
		return func() (string, error) {
			e := <-done
			return fmt.Sprintf("one EXEC of %.1f s", e.took.Seconds()), e.err
		}, nil
	}, nil
}

// flood lets many pipelining connections loose.
func (b *bench) flood(to door, keys int) (finish func() (string, error), err error) {
	return b.nuisance(to, "-keys", fmt.Sprint(keys), "-conns", fmt.Sprint(floodConns), "-pipeline", fmt.Sprint(floodPipeline))
}

// nuisance starts a process that loads a database until it is ended. It gives
// way to all others: between machines it wouldn't share their cores.
func (b *bench) nuisance(to door, how ...string) (finish func() (string, error), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b.floods++
	args := append([]string{"-n", "19", self, "flood", "-addr", to.addr}, how...)
	if to.database.IsValid() {
		args = append(args, "-database", to.database.String())
	}
	p, err := b.launch(fmt.Sprintf("flood-%d", b.floods), nil, "nice", args...)
	if err != nil {
		return nil, err
	}
	err = b.until(p, "its connections", func(context.Context) error {
		if !strings.Contains(p.lastWords(), floodReady) {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	time.Sleep(200 * time.Millisecond) // until it is in full flow
	return func() (string, error) {
		p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.ended:
		case <-time.After(time.Minute): // a reply of a hundred MiB may be under way
		}
		b.stop(p)
		_, did, ok := strings.Cut(p.lastWords(), floodReady+"\n")
		if !ok || did == "" {
			return "", fmt.Errorf("the load on B failed: %s", p.lastWords())
		}
		return did, nil
	}, nil
}

const floodReady = "flowing"

// runFlood is the process of a nuisance: a load until it is told to stop, and
// then a line of what it did.
func runFlood(ctx context.Context, args []string) error {
	var (
		to       door
		database string
		load     traffic
		keys     int
		command  string
	)
	flags := flag.NewFlagSet("flood", flag.ContinueOnError)
	flags.StringVar(&to.addr, "addr", "", "")
	flags.StringVar(&database, "database", "", "")
	flags.StringVar(&command, "command", "", "answered with an array, and sent again and again")
	flags.IntVar(&keys, "keys", 1, "")
	flags.IntVar(&load.conns, "conns", 1, "")
	flags.IntVar(&load.together, "pipeline", 1, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if database != "" {
		a, err := netip.ParseAddr(database)
		if err != nil {
			return err
		}
		to.database = a
	}
	ready := func() { fmt.Println(floodReady) }
	if command != "" {
		did, err := repeat(ctx, to, ready, strings.Fields(command)...)
		fmt.Println(did)
		return err
	}
	load.door, load.command, load.ready = to, halfWrites(keys, shortValue), ready
	load.lasts, load.seed, load.forget = time.Hour, rand.Uint64(), true
	found, err := load.run(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	if found.failed > 0 {
		return found.sound()
	}
	fmt.Printf("%.0f k commands/s\n", found.rps()/1000)
	return nil
}

// repeat sends a command again and again, and doesn't keep the replies.
func repeat(ctx context.Context, to door, ready func(), args ...string) (did string, err error) {
	c, err := to.open(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	ready()
	begun, times, bytes := time.Now(), 0, int64(0)
	for ctx.Err() == nil {
		n, err := c.discard(args...)
		if err != nil {
			return "", err
		}
		times, bytes = times+1, bytes+n
	}
	return fmt.Sprintf("%d of %.1f s, %d MiB each", times, time.Since(begun).Seconds()/float64(times), bytes/int64(times)>>20), nil
}
