package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"vecino/api"
	"vecino/privnet"
	"vecino/region"
)

// The section idle makes many databases on one node and looks at what the
// node's process has grown by.

// aimIdle is the memory of a database that nobody uses.
const aimIdle = 20 << 10

// idleDatabases is how many are made, idleKeys how many keys each is given.
const (
	idleDatabases = 1000
	idleKeys      = 10
)

// footprint is a process's memory, in bytes.
type footprint struct {
	rss  int64
	heap float64 // live, after a collection
}

func (b *bench) idle() (string, error) {
	const here = region.Code("mad")
	d, err := b.deploy([]region.Code{here}, false)
	if err != nil {
		return "", err
	}
	node := d.nodes[here]
	empty, err := b.footprint(node)
	if err != nil {
		return "", err
	}
	n := pick(b, idleDatabases, 200)
	b.say("idle: creating %d databases", n)
	start := time.Now()
	doors, err := b.createMany(d, node, here, n)
	if err != nil {
		return "", err
	}
	took := time.Since(start)
	t := &table{head: []string{"", "RSS MiB", "Go heap MiB", "RSS per database KiB", "heap per database KiB", "CPU of a core, idle"}}
	row := func(name string) error {
		now, err := b.footprint(node)
		if err != nil {
			return err
		}
		busy, err := b.idleCPU(node)
		if err != nil {
			return err
		}
		each := float64(now.rss-empty.rss) / float64(n)
		t.add(name, mib(float64(now.rss)), mib(now.heap), judged(fmt.Sprintf("%.1f", each/1024), each < aimIdle), fmt.Sprintf("%.1f", (now.heap-empty.heap)/float64(n)/1024), busy)
		b.say("idle: %s: %.1f KiB of RSS each", name, each/1024)
		return nil
	}
	t.add("no databases", mib(float64(empty.rss)), mib(empty.heap), "", "", "")
	if err := row(fmt.Sprintf("%d empty databases", n)); err != nil {
		return "", err
	}
	for _, to := range doors {
		c, err := to.open(b.ctx)
		if err != nil {
			return "", err
		}
		err = c.pipeline(idleKeys, func(i int) []string { return []string{"SET", keyName(i), "a value of some twenty bytes"} })
		c.Close()
		if err != nil {
			return "", fmt.Errorf("fill a database: %w", err)
		}
	}
	if err := row(fmt.Sprintf("with %d keys each", idleKeys)); err != nil {
		return "", err
	}
	return t.String() + fmt.Sprintf("\n\nAn idle database's aim is %d KiB of RSS. The fleet and the node took %.1f ms for each creation, eight at a time.", aimIdle>>10, millis(took)/float64(n)), nil
}

func mib(bytes float64) string { return fmt.Sprintf("%.1f", bytes/(1<<20)) }

// createMany makes n databases at the fleet and returns when the node has
// them all, and how they are reached.
func (b *bench) createMany(d *deployment, node *nodeProcess, where region.Code, n int) ([]door, error) {
	const network = privnet.Network(0x2f)
	doors := make([]door, n)
	failed := make([]error, n)
	next := make(chan int)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for i := range next {
				address := privnet.Mint(network, privnet.FirstNumber+uint64(i))
				made, err := d.fleet.CreateDatabase(b.ctx, rand.Text(), api.FleetCreate{
					Name: fmt.Sprintf("idle-%d", i), Address: address, Plan: "free", PrimaryRegion: where, ReplicaRegions: []region.Code{},
				})
				doors[i], failed[i] = door{addr: node.proxy, database: address, password: made.Password}, err
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
	if err := errors.Join(failed...); err != nil {
		return nil, fmt.Errorf("create databases: %w", err)
	}
	deadline := time.Now().Add(createTimeout)
	for {
		page, err := get(b.ctx, "http://"+node.admin+"/metrics")
		if err != nil {
			return nil, err
		}
		there, err := metric(page, "vecino_databases")
		if err != nil {
			return nil, err
		}
		if int(there) == n {
			return doors, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the node has %.0f of %d databases", there, n)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// footprint looks at a node after a collection, when the memory that it has
// freed has gone back to the system.
func (b *bench) footprint(node *nodeProcess) (f footprint, err error) {
	if err := b.collect(node.admin); err != nil {
		return f, err
	}
	page, err := get(b.ctx, "http://"+node.admin+"/metrics")
	if err != nil {
		return f, err
	}
	if f.heap, err = metric(page, "go_memstats_heap_alloc_bytes"); err != nil {
		return f, err
	}
	f.rss, err = node.rss()
	return f, err
}

// idleCPU is the share of a core that a process takes for doing nothing.
func (b *bench) idleCPU(node *nodeProcess) (string, error) {
	start := time.Now()
	before, err := node.cpu()
	if err != nil {
		return "", err
	}
	time.Sleep(pick(b, 10*time.Second, 2*time.Second))
	after, err := node.cpu()
	return fmt.Sprintf("%.1f %%", 100*(after-before).Seconds()/time.Since(start).Seconds()), err
}
