package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// The section large has a light client use a database in which somebody grows
// one collection of a million elements, changes it everywhere and deletes it, while
// it is written to the tier again and again. The light client shows what that
// holds up. Then the database falls asleep, so that the collection lies on disk, and
// commands look at one element of it, at its length, and at all.

const (
	largeTogether = 100  // elements in a command that fills
	largeRate     = 1000 // commands a second of the light client
	largeJournal  = 16 << 20
)

// largeKind is a kind of collection, and its commands.
type largeKind struct {
	name string
	add  string                  // adds elements
	word func(n int) []string    // that this command has for an element
	any  func(n, i int) []string // changes an element; i is how many were before

	one, length, all []string // look at one element, the length, and all
}

var largeKinds = []largeKind{
	{"hash", "HSET", func(n int) []string { return []string{largeElement(n), "value of " + largeElement(n)} },
		func(n, i int) []string {
			return []string{"HSET", "large", largeElement(n), "changed " + strconv.Itoa(i)}
		}, []string{"HGET", "large", largeElement(4711)}, []string{"HLEN", "large"}, []string{"HRANDFIELD", "large"}},
	{"sorted set", "ZADD", func(n int) []string { return []string{strconv.Itoa(n), largeElement(n)} },
		func(n, i int) []string { return []string{"ZADD", "large", strconv.Itoa(i), largeElement(n)} },
		[]string{"ZSCORE", "large", largeElement(4711)}, []string{"ZCARD", "large"}, []string{"ZRANK", "large", largeElement(4711)}},
	{"list", "RPUSH", func(n int) []string { return []string{largeElement(n)} },
		func(n, i int) []string {
			return []string{"LSET", "large", strconv.Itoa(n), "changed " + strconv.Itoa(i)}
		}, []string{"LINDEX", "large", "4711"}, []string{"LLEN", "large"}, []string{"LPOS", "large", "none"}},
}

func largeElement(n int) string { return fmt.Sprintf("element:%08d", n) }

// fill is the i-th command that adds elements.
func (k *largeKind) fill(i int) []string {
	args := []string{k.add, "large"}
	for n := range largeTogether {
		args = append(args, k.word(i*largeTogether+n)...)
	}
	return args
}

func (b *bench) large() (string, error) {
	cold := &table{head: []string{"of one on disk", "length: ms", "KiB read", "one element: ms", "KiB read", "all: ms", "KiB read"}}
	n := pick(b, 1_000_000, 100_000)
	t := &table{head: []string{"collection of " + strconv.Itoa(n), "filled in s", "p99 ms quiet", "while it is filled", "while it is changed", "DEL ms", "max ms quiet", "filled", "changed", "behind DEL"}}
	for _, kind := range largeKinds {
		ports, err := freePorts(2)
		if err != nil {
			return "", err
		}
		node, err := b.startNode(filepath.Join(b.dir, "large"), ports[0], local(ports[1]), "--checkpoint-bytes", strconv.Itoa(largeJournal), "--idle", "1s")
		if err != nil {
			return "", err
		}
		row, err := b.largeCase(node.door(), kind, n)
		if err != nil {
			return "", fmt.Errorf("a large %s: %w", kind.name, err)
		}
		t.add(row...)
		if row, err = b.largeColdCase(node, kind, n); err != nil {
			return "", fmt.Errorf("a large %s on disk: %w", kind.name, err)
		}
		cold.add(row...)
		b.end(node)
	}
	return t.String() + "\n\n" + cold.String() + fmt.Sprintf("\n\nOne node. A light client sends %d SETs a second on a connection of its own to the same database. Somebody else adds %d elements to one key, %d in each command and one command at a time, then changes %d of them at random, then deletes the key. "+
		"The database is written to the tier whenever %d MiB of journal have come together, so all the time. "+
		"The second table is of commands on a collection like that of a database that has slept, one after the other: what they took, and what was read from the tier for them. "+standstills, largeRate, n, largeTogether, n/10, largeJournal>>20), nil
}

// largeCase measures one kind.
func (b *bench) largeCase(to door, kind largeKind, n int) (row []string, err error) {
	c, err := to.open(b.ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	one := func(args []string) error {
		_, err := c.do(args...)
		return err
	}
	// beside runs what while the light client runs, and returns what that saw.
	beside := func(seed uint64, what func() error) (tail, error) {
		var ended atomic.Bool
		failed := make(chan error, 1)
		go func() {
			failed <- what()
			ended.Store(true)
		}()
		var times []time.Duration
		for first := true; first || !ended.Load(); first = false {
			light := traffic{door: to, conns: 1, together: 1, rate: largeRate, lasts: 500 * time.Millisecond, command: halfWrites(1000, shortValue), seed: seed, watched: true}
			found, err := light.run(b.ctx)
			if err != nil {
				return tail{}, err
			}
			times = append(times, slices.Concat(found.calm[:]...)...)
		}
		return tailOf(times), <-failed
	}
	quiet, err := beside(1, func() error { time.Sleep(pick(b, 2*time.Second, 200*time.Millisecond)); return b.ctx.Err() })
	if err != nil {
		return nil, err
	}
	began := time.Now()
	var took time.Duration
	filled, err := beside(2, func() error {
		defer func() { took = time.Since(began) }()
		for i := range n / largeTogether {
			if err := one(kind.fill(i)); err != nil {
				return err
			}
		}
		return b.ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	changed, err := beside(3, func() error {
		r := rand.New(rand.NewPCG(1, 1))
		for i := range n / 10 {
			if err := one(kind.any(r.IntN(n), i)); err != nil {
				return err
			}
		}
		return b.ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	var del time.Duration
	gone, err := beside(4, func() error {
		began := time.Now()
		err := one([]string{"DEL", "large"})
		del = time.Since(began)
		return err
	})
	if err != nil {
		return nil, err
	}
	b.say("large: %s: max %v quiet, %v while it is filled, %v while it is changed", kind.name, quiet.max, filled.max, changed.max)
	return []string{kind.name, fmt.Sprintf("%.1f", took.Seconds()), ms(quiet.p99), ms(filled.p99), ms(changed.p99), ms(del),
		ms(quiet.max), ms(filled.max), ms(changed.max), ms(gone.max)}, nil
}

// largeColdCase fills the collection again, waits until the database sleeps, and looks at
// what then lies on disk.
func (b *bench) largeColdCase(node *rival, kind largeKind, n int) (row []string, err error) {
	c, err := node.door().open(b.ctx)
	if err != nil {
		return nil, err
	}
	for i := range n / largeTogether {
		if _, err := c.do(kind.fill(i)...); err != nil {
			return nil, err
		}
	}
	c.Close()
	err = b.until(node.process, "sleep of its database", func(ctx context.Context) error {
		page, err := get(ctx, "http://"+node.admin+"/metrics")
		if err != nil {
			return err
		}
		awake, err := metric(page, `vecino_database_states{state="awake"}`)
		if err == nil && awake > 0 {
			err = fmt.Errorf("%v databases are awake", awake)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if c, err = node.door().open(b.ctx); err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := c.do("EXISTS", "large"); err != nil { // wakes the database
		return nil, err
	}
	read := func() (float64, error) {
		page, err := get(b.ctx, "http://"+node.admin+"/metrics")
		if err != nil {
			return 0, err
		}
		return metric(page, "vecino_fetched_bytes_total")
	}
	row = []string{kind.name}
	for _, look := range [][]string{kind.length, kind.one, kind.all} {
		before, err := read()
		if err != nil {
			return nil, err
		}
		began := time.Now()
		if _, err := c.do(look...); err != nil {
			return nil, err
		}
		took := time.Since(began)
		after, err := read()
		if err != nil {
			return nil, err
		}
		row = append(row, ms(took), fmt.Sprintf("%.1f", (after-before)/1024))
	}
	return row, nil
}
