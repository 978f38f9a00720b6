package main

import (
	"errors"
	"fmt"
	"time"

	"vecino/region"
)

// The section edge sends the same load to one node twice: straight, with a
// PROXY header of the client's own, and through the edge in the same region.

// edgeCase is one kind of load.
type edgeCase struct {
	load
	name string
}

func edgeCases() (all []edgeCase) {
	set := load{command: []string{"SET", "KEY", "xxx"}, reply: "+OK\r\n"}
	get := load{command: []string{"GET", "KEY"}, reply: "$3\r\nxxx\r\n"}
	for _, shape := range []struct{ conns, pipeline int }{{1, 1}, {clients, 1}, {clients, 16}} {
		for _, l := range []load{get, set} {
			l.conns, l.pipeline = shape.conns, shape.pipeline
			all = append(all, edgeCase{l, fmt.Sprintf("%s -c %d -P %d", l.command[0], l.conns, l.pipeline)})
		}
	}
	return all
}

// hopRound is one round of a load, and what it cost each process per command.
type hopRound struct {
	*measured
	node, edge time.Duration
}

func (b *bench) edge() (string, error) {
	const here = region.Code("mad")
	d, err := b.deploy([]region.Code{here}, true)
	if err != nil {
		return "", err
	}
	db, doors, err := d.create(b.ctx, here, nil)
	if err != nil {
		return "", err
	}
	node, edge, through := d.nodes[here], d.edges[here], doors[here]
	straight := door{addr: node.proxy, database: db.Address, password: through.password}
	c, err := straight.open(b.ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.pipeline(keyspace, func(i int) []string { return []string{"SET", keyName(i), "xxx"} }); err != nil {
		return "", fmt.Errorf("fill the database: %w", err)
	}

	speed := &table{head: []string{"case", "k/s straight", "k/s by edge", "p50 µs straight", "p50 µs by edge", "added", "p99 µs straight", "p99 µs by edge"}}
	cost := &table{head: []string{"CPU µs per command", "node, straight", "node, by edge", "edge", "both by edge / straight"}}
	for _, c := range edgeCases() {
		probe := c.load
		probe.door, probe.commands = straight, 200*c.conns*c.pipeline
		found, err := probe.run(b.ctx)
		if err != nil {
			return "", fmt.Errorf("%s: %w", c.name, err)
		}
		c.commands = int(found.rps * pick(b, 2*time.Second, 300*time.Millisecond).Seconds())
		measure := func(to door, into *[]hopRound) error {
			l := c.load
			l.door = to
			nodeBefore, err1 := node.cpu()
			edgeBefore, err2 := edge.cpu()
			m, err := l.run(b.ctx)
			nodeAfter, err3 := node.cpu()
			edgeAfter, err4 := edge.cpu()
			if err := errors.Join(err, err1, err2, err3, err4); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			n := time.Duration(len(m.times) * l.pipeline)
			*into = append(*into, hopRound{m, (nodeAfter - nodeBefore) / n, (edgeAfter - edgeBefore) / n})
			return nil
		}
		var direct, hop []hopRound
		for range pick(b, 5, 2) {
			if err := errors.Join(measure(straight, &direct), measure(through, &hop)); err != nil {
				return "", err
			}
		}
		var spare []hopRound // doesn't count
		if err := b.profiled(node.admin, node.process, "edge "+c.name, nil, func() error { return errors.Join(measure(through, &spare), measure(through, &spare)) }); err != nil {
			return "", err
		}
		mid := func(rounds []hopRound, figure func(hopRound) float64) float64 { return median(each(rounds, figure)) }
		rps := func(r hopRound) float64 { return r.rps / 1000 }
		p50 := func(r hopRound) float64 { return r.at(0.5) }
		p99 := func(r hopRound) float64 { return r.at(0.99) }
		nodeCPU := func(r hopRound) float64 { return micros(r.node) }
		edgeCPU := func(r hopRound) float64 { return micros(r.edge) }
		speed.add(c.name,
			fmt.Sprintf("%.0f", mid(direct, rps)), fmt.Sprintf("%.0f", mid(hop, rps)),
			fmt.Sprintf("%.0f", mid(direct, p50)), fmt.Sprintf("%.0f", mid(hop, p50)), fmt.Sprintf("%.0f", mid(hop, p50)-mid(direct, p50)),
			fmt.Sprintf("%.0f", mid(direct, p99)), fmt.Sprintf("%.0f", mid(hop, p99)))
		cost.add(c.name,
			fmt.Sprintf("%.2f", mid(direct, nodeCPU)), fmt.Sprintf("%.2f", mid(hop, nodeCPU)), fmt.Sprintf("%.2f", mid(hop, edgeCPU)),
			fmt.Sprintf("%.2f", (mid(hop, nodeCPU)+mid(hop, edgeCPU))/mid(direct, nodeCPU)))
		b.say("edge: %-16s adds %.0f µs at the median, %.2f µs of the edge's CPU", c.name, mid(hop, p50)-mid(direct, p50), mid(hop, edgeCPU))
	}
	return speed.String() + "\n\n" + cost.String(), nil
}
