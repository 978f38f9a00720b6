package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// The section density gives one node very many small databases, lets them
// fall asleep, and looks at what they take and how long one needs to wake.

const (
	densityKeys = 10
	aimAsleep   = 1024 // bytes of memory each
	aimStart    = 5 * time.Second
	aimWake     = 5 * time.Millisecond
	fallAsleep  = 3 * time.Second // after the last command
)

func (b *bench) density() (string, error) {
	n := pick(b, 100_000, 2_000)
	sleeps := b.needsFlags("idle") == nil
	more := b.ifHas("idle", fallAsleep.String())

	empty, err := b.newStage("density-empty", 0, nil, more...)
	if err != nil {
		return "", err
	}
	if err := b.startStage(empty); err != nil {
		return "", err
	}
	if err := b.collect(empty.admin); err != nil {
		return "", err
	}
	base, err := empty.node.rss()
	b.closeStage(empty)
	if err != nil {
		return "", err
	}

	s, err := b.newStage("density", n, nil, more...)
	if err != nil {
		return "", err
	}
	defer b.closeStage(s)
	b.say("density: a node learns of %d databases", n)
	begun := time.Now()
	if err := b.startStage(s); err != nil {
		return "", err
	}
	learned := time.Since(begun)
	b.say("density: filling each with %d keys", densityKeys)
	begun = time.Now()
	err = s.each(b.ctx, n, 8, func(_ int, c *client) error {
		return c.pipeline(densityKeys, func(i int) []string { return []string{"SET", keyName(i), "a value of some twenty bytes"} })
	})
	if err != nil {
		return "", fmt.Errorf("fill: %w; the node said:\n%s", err, s.node.lastWords())
	}
	filled := time.Since(begun)

	t := &table{head: []string{fmt.Sprintf("%d databases of %d keys", n, densityKeys), "RSS MiB", "bytes each"}}
	t.add("a node without databases", mib(float64(base)), "")
	weigh := func(name string, judge bool) error {
		if err := b.collect(s.admin); err != nil {
			return err
		}
		rss, err := s.node.rss()
		if err != nil {
			return err
		}
		each := float64(rss-base) / float64(n)
		t.add(name, mib(float64(rss)), judged(fmt.Sprintf("%.0f", each), !judge || each <= aimAsleep))
		b.say("density: %s: %.0f bytes each", name, each)
		return nil
	}
	if sleeps {
		if err := b.allAsleep(s); err != nil {
			return "", err
		}
		err = weigh("all asleep after "+fallAsleep.String()+" without traffic", true)
	} else {
		err = weigh("all awake (not available: this program's node has no --idle)", true)
	}
	if err != nil {
		return "", err
	}

	starts := &table{head: []string{"start of the node", "first GET answered s", "knows all its databases s"}}
	for _, how := range []string{"after kill -9", "after it was ended"} {
		if how == "after kill -9" {
			b.kill(s.node)
		} else {
			b.stop(s.node)
		}
		first, ready, err := b.timeStart(s, n)
		if err != nil {
			return "", fmt.Errorf("start %s: %w", how, err)
		}
		starts.add(how, judged(fmt.Sprintf("%.2f", first.Seconds()), first <= aimStart), judged(fmt.Sprintf("%.2f", ready.Seconds()), ready <= aimStart))
		b.say("density: %s it answers after %.2f s", how, first.Seconds())
	}
	if sleeps {
		if err := weigh("all asleep after a start", true); err != nil {
			return "", err
		}
	}

	wakes := &table{head: []string{"one command to a database", "p50 ms", "p99 ms", "max ms"}}
	sample := min(n, pick(b, 4000, 400))
	var asleep, awake []time.Duration
	order := rand.New(rand.NewPCG(1, 1)).Perm(n)[:sample]
	for _, i := range order {
		err := s.visit(b.ctx, i, func(_ int, c *client) error {
			for turn := range 2 {
				start := time.Now()
				v, err := c.do("GET", keyName(i%densityKeys))
				if err != nil {
					return err
				}
				if v.Text() != "a value of some twenty bytes" {
					return fmt.Errorf("it has %q for a key", v.Text())
				}
				if took := time.Since(start); turn == 0 {
					asleep = append(asleep, took)
				} else {
					awake = append(awake, took)
				}
			}
			return nil
		})
		if err != nil {
			return "", fmt.Errorf("wake database %d: %w", i, err)
		}
	}
	wakes.add("asleep", ms(quantile(asleep, 0.5)), judged(ms(quantile(asleep, 0.99)), quantile(asleep, 0.99) <= aimWake), ms(quantile(asleep, 1)))
	wakes.add("awake", ms(quantile(awake, 0.5)), ms(quantile(awake, 0.99)), ms(quantile(awake, 1)))
	text := t.String() + "\n\n" + starts.String() + "\n\n" + wakes.String() + fmt.Sprintf("\n\nThe catalog is this program's own; the node is real. It took %.1f s to learn of its databases the first time, and %.0f s to be filled over a connection for each database. "+
		"%d databases were woken, one after the other. The aims: %d bytes each asleep, a start in %s, waking at p99 in %s.", learned.Seconds(), filled.Seconds(), sample, aimAsleep, aimStart, aimWake)
	if refused := s.refused.Load(); refused > 0 {
		text += fmt.Sprintf(" A fleet would have refused %d of the node's reports, for being too long.", refused)
	}
	return text, nil
}

// allAsleep waits until the node says so, or if it doesn't tell, until its
// memory doesn't shrink any more.
func (b *bench) allAsleep(s *stage) error {
	time.Sleep(fallAsleep)
	deadline := time.Now().Add(pick(b, 5*time.Minute, 20*time.Second))
	least, since := int64(1<<62), time.Now()
	for time.Now().Before(deadline) {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		page, err := get(b.ctx, "http://"+s.admin+"/metrics")
		if err != nil {
			return err
		}
		if awake, err := awakeDatabases(string(page)); err == nil {
			if awake == 0 {
				return nil
			}
		} else {
			rss, err := s.node.rss()
			if err != nil {
				return err
			}
			if rss < least-least/100 {
				least, since = rss, time.Now()
			}
			if time.Since(since) > 8*time.Second {
				return nil
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
	b.say("density: not all fell asleep in time")
	return nil
}

// awakeDatabases finds in a page of /metrics how many databases still hold memory:
// those that are awake, and those that sleep with their tenant.
func awakeDatabases(page string) (float64, error) {
	awake, err := metric([]byte(page), `vecino_database_states{state="awake"}`)
	if err != nil {
		return 0, err
	}
	dozing, err := metric([]byte(page), `vecino_database_states{state="dozing"}`)
	return awake + dozing, err
}

// timeStart starts a stage's node, and tells when it first answered a command
// to a random database, and when it was ready.
func (b *bench) timeStart(s *stage, n int) (first, ready time.Duration, err error) {
	begun := time.Now()
	if err := b.launchStage(s); err != nil {
		return 0, 0, err
	}
	err = b.until(s.node, "first answer", func(ctx context.Context) error {
		i := rand.IntN(n)
		c, err := dialFrom(ctx, i, s.proxy)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write(s.door(i).header()); err != nil {
			return err
		}
		v, err := c.do("GET", keyName(0))
		if err == nil && !strings.HasPrefix(v.Text(), "a value") {
			err = fmt.Errorf("database %d has %q for a key", i, v.Text())
		}
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	first = time.Since(begun)
	err = b.healthy(s.node, s.admin)
	return first, time.Since(begun), err
}
