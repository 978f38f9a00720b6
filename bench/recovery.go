package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// The section recovery ends servers with kill -9 while they hold millions of
// keys, and looks at how soon they answer again.

const (
	aimRecovery  = 1.0 / 3 // of the time of redis-server
	aimManySoon  = 2 * time.Second
	manyCount    = 100 // databases
	recoveryMore = 200_000
)

// restart is how long one took.
type restart struct{ first, loaded time.Duration }

func (b *bench) recovery() (string, error) {
	one, err := b.recoverOne()
	if err != nil {
		return "", err
	}
	many, err := b.recoverMany()
	if err != nil {
		return "", err
	}
	return one + "\n\n" + many, nil
}

// recoverOne is about one large database, beside redis-server.
func (b *bench) recoverOne() (string, error) {
	n := pick(b, 5_000_000, 200_000)
	ports, err := freePorts(4)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(b.dir, "recovery")
	plain, err := b.startRedis(filepath.Join(dir, "aof"), ports[0])
	if err != nil {
		return "", err
	}
	defer func() { b.end(plain) }()
	rewritten, err := b.startRedis(filepath.Join(dir, "base"), ports[1])
	if err != nil {
		return "", err
	}
	defer func() { b.end(rewritten) }()
	node, err := b.startNode(filepath.Join(dir, "vecino"), ports[2], local(ports[3]))
	if err != nil {
		return "", err
	}
	defer func() { b.end(node) }()
	servers := []**rival{&plain, &rewritten, &node}
	for i, s := range servers {
		b.say("recovery: filling %s with %d keys, %d of %d", (*s).name, n, i+1, len(servers))
		if err := fillStrings((*s).door(), n, shortValue).run(b.ctx); err != nil {
			return "", err
		}
	}
	if err := b.rewriteLog(rewritten); err != nil {
		return "", err
	}
	names := []string{"Redis, AOF of commands", "Redis, AOF with a rewritten base", "Vecino"}
	found := make([][]restart, len(servers))
	// What came since the last checkpoint or rewrite.
	writeMore := func(s *rival) error {
		from := rand.IntN(n)
		more := filling{door: s.door(), n: min(recoveryMore, n/10), command: func(dst []byte, i int) []byte { return appendSet(dst, (from+i*7)%n, shortValue) }}
		return more.run(b.ctx)
	}
	for range pick(b, 3, 1) {
		for i, s := range servers {
			if err := writeMore(*s); err != nil {
				return "", err
			}
			b.kill((*s).process)
			r, err := b.comeBack(s, n)
			if err != nil {
				return "", fmt.Errorf("%s after kill -9: %w", (*s).name, err)
			}
			found[i] = append(found[i], r)
			b.say("recovery: %s: first answer after %.2f s, loaded after %.2f s", names[i], r.first.Seconds(), r.loaded.Seconds())
		}
	}
	t := &table{head: []string{fmt.Sprintf("%d keys", n), "rounds", "first GET s", "all loaded s", "first GET, of Redis's", "all loaded, of Redis's", "of Redis's with a base"}}
	mid := func(i int, figure func(restart) time.Duration) float64 {
		return median(each(found[i], func(r restart) float64 { return figure(r).Seconds() }))
	}
	first, loaded := func(r restart) time.Duration { return r.first }, func(r restart) time.Duration { return r.loaded }
	for i, name := range names[:2] {
		t.add(name, fmt.Sprint(len(found[i])), fmt.Sprintf("%.2f", mid(i, first)), fmt.Sprintf("%.2f", mid(i, loaded)), "", "", "")
	}
	toFirst, toAll := mid(2, first)/mid(0, loaded), mid(2, loaded)/mid(0, loaded)
	t.add(names[2], fmt.Sprint(len(found[2])), fmt.Sprintf("%.2f", mid(2, first)), fmt.Sprintf("%.2f", mid(2, loaded)),
		judged(fmt.Sprintf("%.2f", toFirst), meets(toFirst, aimRecovery)), judged(fmt.Sprintf("%.2f", toAll), meets(toAll, aimRecovery)), fmt.Sprintf("%.2f", mid(2, loaded)/mid(1, loaded)))
	// Once more, for a profile from the first moment until about when all is loaded.
	if err := writeMore(node); err != nil {
		return "", err
	}
	b.kill(node.process)
	spent := spending{}
	if err := b.profileStart(&node, n, int(math.Ceil(mid(2, loaded))), spent); err != nil {
		return "", err
	}
	profile := newShares()
	profile.add(spent.row("start")...)
	return t.String() + "\n\n" + profile.String() + fmt.Sprintf("\n\nFrom the start of the process to the first GET that found its key, and until DBSIZE is right and INFO says that nothing is being loaded. "+
		"Before each kill %d keys were written again. The second table is of one more start, that isn't counted. The files are in the page cache. The aim is a third of redis-server's time with a log of commands.", min(recoveryMore, n/10)), nil
}

// rewriteLog has redis-server make a base of what it holds.
func (b *bench) rewriteLog(r *rival) error {
	if _, err := b.ask(r.door(), "BGREWRITEAOF"); err != nil {
		return err
	}
	for range 1200 {
		fields, err := b.info(r.door())
		if err != nil {
			return err
		}
		if fields["aof_rewrite_in_progress"] == "0" && fields["aof_rewrite_scheduled"] == "0" {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("%s doesn't come to the end of a rewrite", r.name)
}

// comeBack starts a server again, and waits until it has everything.
func (b *bench) comeBack(s **rival, n int) (r restart, err error) {
	begun := time.Now()
	if *s, err = (*s).again(); err != nil {
		return r, err
	}
	return b.recovered(*s, n, begun)
}

// recovered waits until a server that was started at a time has everything.
func (b *bench) recovered(s *rival, n int, begun time.Time) (r restart, err error) {
	err = b.until(s.process, "answer to GET", func(ctx context.Context) error {
		return b.hasKey(ctx, s.door(), rand.IntN(n))
	})
	if err != nil {
		return r, err
	}
	r.first = time.Since(begun)
	err = b.until(s.process, "end of loading", func(context.Context) error {
		size, err := b.ask(s.door(), "DBSIZE")
		if err != nil {
			return err
		}
		if size != strconv.Itoa(n) {
			return fmt.Errorf("it has %s keys, not %d", size, n)
		}
		fields, err := b.info(s.door())
		if err == nil && fields["loading"] == "1" {
			err = fmt.Errorf("it still loads")
		}
		return err
	})
	r.loaded = time.Since(begun)
	for i := 0; i < 1000 && err == nil; i++ {
		err = b.hasKey(b.ctx, s.door(), rand.IntN(n))
	}
	return r, err
}

// profileStart is comeBack of a node with a profile, from when its admin address answers.
func (b *bench) profileStart(s **rival, n, seconds int, into spending) (err error) {
	begun := time.Now()
	if *s, err = (*s).again(); err != nil {
		return err
	}
	err = b.until((*s).process, "answer on its admin address", func(ctx context.Context) error {
		_, err := get(ctx, "http://"+(*s).admin+"/metrics")
		return err
	})
	if err != nil {
		return err
	}
	finish := b.takeProfile((*s).admin, (*s).process, "recovery", seconds, into)
	_, err = b.recovered(*s, n, begun)
	return errors.Join(err, finish())
}

// hasKey is an error if a key hasn't its value.
func (b *bench) hasKey(ctx context.Context, to door, i int) error {
	c, err := to.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	key := string(appendKey(nil, i))
	v, err := c.do("GET", key)
	if err != nil {
		return err
	}
	if want := string(appendValue(nil, i, shortValue)); v.Text() != want {
		return fmt.Errorf("%s is %q, not %q", key, v.Text(), want)
	}
	return nil
}

// recoverMany is about many databases on one node.
func (b *bench) recoverMany() (string, error) {
	n := pick(b, 1_000_000, 100_000) / manyCount
	s, err := b.newStage("recovery-many", manyCount, nil)
	if err != nil {
		return "", err
	}
	defer b.closeStage(s)
	if err := b.startStage(s); err != nil {
		return "", err
	}
	b.say("recovery: filling %d databases with %d keys each", manyCount, n)
	for i := range manyCount {
		if err := fillStrings(s.door(i), n, shortValue).run(b.ctx); err != nil {
			return "", err
		}
	}
	var found []restart
	for range pick(b, 3, 1) {
		b.kill(s.node)
		begun := time.Now()
		if err := b.launchStage(s); err != nil {
			return "", err
		}
		var r restart
		err := b.until(s.node, "answer to GET", func(ctx context.Context) error {
			return b.hasKey(ctx, s.door(rand.IntN(manyCount)), rand.IntN(n))
		})
		if err != nil {
			return "", err
		}
		r.first = time.Since(begun)
		failed := make([]error, manyCount)
		var all sync.WaitGroup
		for i := range manyCount {
			all.Go(func() {
				failed[i] = b.until(s.node, "answers of all databases", func(ctx context.Context) error {
					if err := b.hasKey(ctx, s.door(i), rand.IntN(n)); err != nil {
						return err
					}
					size, err := b.ask(s.door(i), "DBSIZE")
					if err == nil && size != strconv.Itoa(n) {
						err = fmt.Errorf("database %d has %s keys, not %d", i, size, n)
					}
					return err
				})
			})
		}
		all.Wait()
		for _, err := range failed {
			if err != nil {
				return "", err
			}
		}
		r.loaded = time.Since(begun)
		found = append(found, r)
	}
	first := median(each(found, func(r restart) float64 { return r.first.Seconds() }))
	loaded := median(each(found, func(r restart) float64 { return r.loaded.Seconds() }))
	t := &table{head: []string{"Vecino", "rounds", "first GET s", "all have answered s"}}
	t.add(fmt.Sprintf("%d keys in %d databases", n*manyCount, manyCount), fmt.Sprint(len(found)), judged(fmt.Sprintf("%.2f", first), first <= aimManySoon.Seconds()), fmt.Sprintf("%.2f", loaded))
	b.say("recovery: %d databases: first answer after %.2f s, all after %.2f s", manyCount, first, loaded)
	return t.String() + fmt.Sprintf("\n\nThe first answer is of a random database, and the aim for it is %s; then all are asked at once.", aimManySoon), nil
}
