package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// The section memory fills redis-server and a node with the same data, and
// looks at what their processes have grown by.

// dataset is one kind of data.
type dataset struct {
	name    string
	n       int // keys
	quick   int
	aim     float64 // share of Redis's bytes per key
	command func(dst []byte, i int) []byte
}

// elements is what a collection of the data sets has.
const elements = 100

var datasets = []dataset{
	{"string: key of 16 B, value of 32 B", 1_000_000, 50_000, 0.6, func(dst []byte, i int) []byte { return appendSet(dst, i, shortValue) }},
	{"string: key of 16 B, value of 32 B", 5_000_000, 100_000, 0.6, func(dst []byte, i int) []byte { return appendSet(dst, i, shortValue) }},
	{"hash of 5 fields", 200_000, 10_000, 0.8, func(dst []byte, i int) []byte {
		dst = appendHead(dst, "HSET", i, 10)
		for f := range 5 {
			dst = appendBulk(dst, append([]byte("field:"), byte('0'+f)))
			dst = appendBulk(dst, appendValue(nil, i*5+f, 16))
		}
		return dst
	}},
	{"sorted set of 100", 20_000, 1_000, 0.8, func(dst []byte, i int) []byte {
		dst = appendHead(dst, "ZADD", i, 2*elements)
		r := rand.New(rand.NewPCG(uint64(i), 1))
		for m := range elements {
			dst = appendBulk(dst, strconv.AppendInt(nil, int64(r.IntN(1_000_000)), 10))
			dst = appendBulk(dst, appendValue(nil, i*elements+m, 16))
		}
		return dst
	}},
	{"list of 100", 20_000, 1_000, 0.8, func(dst []byte, i int) []byte {
		dst = appendHead(dst, "RPUSH", i, elements)
		for m := range elements {
			dst = appendBulk(dst, appendValue(nil, i*elements+m, 16))
		}
		return dst
	}},
}

// appendHead begins a command of a key and more arguments.
func appendHead(dst []byte, name string, key, more int) []byte {
	dst = append(dst, '*')
	dst = appendInt(dst, 2+more)
	dst = append(dst, "\r\n"...)
	dst = appendBulk(dst, []byte(name))
	return appendBulk(dst, appendKey(nil, key))
}

func appendBulk(dst, b []byte) []byte {
	dst = append(dst, '$')
	dst = appendInt(dst, len(b))
	dst = append(dst, "\r\n"...)
	dst = append(dst, b...)
	return append(dst, "\r\n"...)
}

// weight is what a key takes, in bytes.
type weight struct {
	rss, used float64
}

func (b *bench) memory() (string, error) {
	t := &table{head: []string{"data", "keys", "Redis RSS B", "Vecino RSS B", "of Redis's", "aim", "Redis used_memory B", "Vecino used_memory B", "of Redis's"}}
	for _, d := range datasets {
		if !strings.Contains(d.name, b.cases) {
			continue
		}
		n := pick(b, d.n, d.quick)
		redis, node, err := b.startBoth("memory", nil, nil)
		if err != nil {
			return "", err
		}
		var found [2]weight
		for i, s := range []*rival{redis, node} {
			if found[i], err = b.weigh(s, d, n); err != nil {
				err = fmt.Errorf("%s: %s: %w", d.name, s.name, err)
				break
			}
		}
		b.end(redis, node)
		if err != nil {
			return "", err
		}
		r, v := found[0], found[1]
		t.add(d.name, fmt.Sprint(n), fmt.Sprintf("%.0f", r.rss), fmt.Sprintf("%.0f", v.rss), judged(fmt.Sprintf("%.2f", v.rss/r.rss), meets(v.rss/r.rss, d.aim)), fmt.Sprintf("≤ %.1f", d.aim),
			fmt.Sprintf("%.0f", r.used), fmt.Sprintf("%.0f", v.used), fmt.Sprintf("%.2f", v.used/r.used))
		b.say("memory: %d × %s: %.0f B each, Redis %.0f", n, d.name, v.rss, r.rss)
	}
	if len(t.rows) == 0 {
		return "", fmt.Errorf("no data is named like %q", b.cases)
	}
	return t.String() + "\n\nBytes per key: what the process (RSS), and what INFO's used_memory, has grown by from the empty server to the full one. Both were asked to give back what they don't need before each look.", nil
}

// weigh fills a server.
func (b *bench) weigh(s *rival, d dataset, n int) (w weight, err error) {
	look := func() (rss, used float64, err error) {
		if err := b.settle(s); err != nil {
			return 0, 0, err
		}
		bytes, err := s.rss()
		if err != nil {
			return 0, 0, err
		}
		fields, err := b.info(s.door())
		if err != nil {
			return 0, 0, err
		}
		used, _ = number(fields, "used_memory")
		return float64(bytes), used, nil
	}
	rss, used, err := look()
	if err != nil {
		return w, err
	}
	if err := (filling{door: s.door(), n: n, command: d.command}).run(b.ctx); err != nil {
		return w, err
	}
	size, err := b.ask(s.door(), "DBSIZE")
	if err != nil {
		return w, err
	}
	if size != strconv.Itoa(n) {
		return w, fmt.Errorf("it has %s keys, not %d", size, n)
	}
	fullRSS, fullUsed, err := look()
	return weight{(fullRSS - rss) / float64(n), (fullUsed - used) / float64(n)}, err
}
