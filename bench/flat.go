package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// What a node takes is looked at every second of a soak. Judged is the time after
// the last kill, without its first fifth, in which caches fill: the medians of its
// two halves may differ by no more than chance.

// soakSample is what the node takes at a moment.
type soakSample struct {
	at       time.Duration
	kill     bool // the node was killed before it
	commands float64

	rss, own              float64 // resident; of it without what is mapped from files, such as the program
	heap, slabs           float64 // Go's, and outside of it
	resident, data        float64 // of keys and values, and how much of them may be
	disk                  float64
	awake, dozing, asleep float64 // databases
	goroutines            float64
}

const soakRows = 10

// leastJudged is how many samples are enough: a node is warm after a minute or two.
const leastJudged = 120

// soakGauges are the figures that must be flat: the median of the second half is at
// most so many times the first's, and so much more.
var soakGauges = []struct {
	name  string
	of    func(soakSample) float64
	times float64
	more  float64
	unit  float64
}{
	{"RSS, MiB", func(x soakSample) float64 { return x.rss }, 1.10, 8 << 20, 1 << 20},
	{"of it no file's", func(x soakSample) float64 { return x.own }, 1.10, 8 << 20, 1 << 20},
	{"Go's heap", func(x soakSample) float64 { return x.heap }, 1.10, 4 << 20, 1 << 20},
	{"slabs", func(x soakSample) float64 { return x.slabs }, 1.10, 4 << 20, 1 << 20},
	{"keys and values in memory", func(x soakSample) float64 { return x.resident }, 1.10, 4 << 20, 1 << 20},
	{"on disk", func(x soakSample) float64 { return x.disk }, 1.25, 64 << 20, 1 << 20},
	{"goroutines", func(x soakSample) float64 { return x.goroutines }, 1.10, 16, 1},
}

// look takes a sample.
func (s *soak) look() (x soakSample, err error) {
	page, err := get(s.ctx, "http://"+s.stage.admin+"/metrics")
	if err != nil {
		return x, err
	}
	for name, to := range map[string]*float64{
		"go_memstats_heap_inuse_bytes": &x.heap, "go_goroutines": &x.goroutines,
		`vecino_memory_bytes{what="slabs"}`: &x.slabs, `vecino_memory_bytes{what="resident"}`: &x.resident, `vecino_memory_bytes{what="data"}`: &x.data,
		`vecino_database_states{state="awake"}`: &x.awake, `vecino_database_states{state="dozing"}`: &x.dozing, `vecino_database_states{state="asleep"}`: &x.asleep,
	} {
		if *to, err = metric(page, name); err != nil {
			return x, err
		}
	}
	x.commands = float64(s.commands.Load())
	x.disk = float64(diskUsage(s.stage.dir))
	x.rss, x.own, err = s.stage.node.memory()
	return x, err
}

// flat shows what was judged, and is an error if something isn't flat.
func flat(samples []soakSample) (*table, error) {
	t := &table{head: []string{"after the last kill, medians", "first half", "second half", "at most"}}
	first, second := halves(samples)
	if len(first) == 0 {
		t.add("too short to tell: -for 5m or more", "", "", "")
		return t, nil
	}
	var grows []error
	for _, g := range soakGauges {
		a, z := median(each(first, g.of)), median(each(second, g.of))
		most := a*g.times + g.more
		t.add(g.name, fmt.Sprintf("%.1f", a/g.unit), judged(fmt.Sprintf("%.1f", z/g.unit), z <= most), fmt.Sprintf("%.1f", most/g.unit))
		if z > most {
			grows = append(grows, fmt.Errorf("%s: %.1f, then %.1f: it grows", g.name, a/g.unit, z/g.unit))
		}
	}
	return t, errors.Join(grows...)
}

// halves are those of the time after the last kill, without its first fifth.
func halves(samples []soakSample) (first, second []soakSample) {
	from := 0
	for i, x := range samples {
		if x.kill {
			from = i
		}
	}
	rest := samples[from:]
	rest = rest[len(rest)/5:]
	if len(rest) < leastJudged {
		return nil, nil
	}
	return rest[:len(rest)/2], rest[len(rest)/2:]
}

// tableOf shows the samples in so many stretches of time: the medians of each. There
// were so many commands before the first.
func tableOf(samples []soakSample, rows int, before float64) *table {
	t := &table{head: []string{"until", "commands/s", "kill -9", "RSS MiB", "of it no file's", "Go's heap", "slabs", "keys and values in memory", "on disk", "awake", "asleep with clients", "without"}}
	rows = min(rows, len(samples))
	last := soakSample{commands: before}
	for row := range rows {
		some := samples[row*len(samples)/rows : (row+1)*len(samples)/rows]
		kills := 0
		for _, x := range some {
			if x.kill {
				kills++
			}
		}
		end := some[len(some)-1]
		cells := []string{end.at.Round(time.Second).String(), fmt.Sprintf("%.0f", (end.commands-last.commands)/(end.at-last.at).Seconds()), fmt.Sprint(kills)}
		for _, of := range []func(soakSample) float64{
			func(x soakSample) float64 { return x.rss }, func(x soakSample) float64 { return x.own }, func(x soakSample) float64 { return x.heap }, func(x soakSample) float64 { return x.slabs },
			func(x soakSample) float64 { return x.resident }, func(x soakSample) float64 { return x.disk },
		} {
			cells = append(cells, fmt.Sprintf("%.0f", median(each(some, of))/(1<<20)))
		}
		for _, of := range []func(soakSample) float64{func(x soakSample) float64 { return x.awake }, func(x soakSample) float64 { return x.dozing }, func(x soakSample) float64 { return x.asleep }} {
			cells = append(cells, fmt.Sprintf("%.0f", median(each(some, of))))
		}
		t.add(cells...)
		last = end
	}
	return t
}

// chart draws memory over time.
func chart(samples []soakSample, width, height int) string {
	if len(samples) == 0 {
		return ""
	}
	width = min(width, len(samples))
	columns, kills, top := make([]float64, width), make([]bool, width), 1.0
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
			if line[c] = ' '; v*float64(height) > top*float64(row-1) {
				line[c] = '#'
			}
		}
		label := "       "
		if row == height {
			label = fmt.Sprintf("%6.0f ", top/(1<<20))
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
