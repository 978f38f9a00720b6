package main

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"time"

	"vecino/catalog"
)

// The section eviction plays the same trace of requests to redis-server and a
// node that both have room for a part of the keys: a GET, and if it finds
// nothing the SET of that key. Beside them a cache counts that evicts exactly
// what was used longest ago.

const (
	evictionExponent = 0.99
	evictionTogether = 32
	evictionRate     = 70_000 // requests a second: redis-server's clock for this ticks once a second
	aimHits          = 1.0    // points below redis-server's hit ratio
)

func (b *bench) eviction() (string, error) {
	n := pick(b, 1_000_000, 100_000)
	room, warm, counted := n/5, n, pick(b, 3*n, 2*n)
	redis, node, end, err := b.startEvicting(room)
	if err != nil {
		return "", err
	}
	defer end()
	players := make([]*player, 0, 2)
	for i, to := range []door{redis, node} {
		c, err := to.open(b.ctx)
		if err != nil {
			return "", err
		}
		defer c.Close()
		players = append(players, &player{client: c, name: []string{"redis-server", "node"}[i]})
	}
	b.say("eviction: %d requests", warm+counted)
	z := newZipf(n, evictionExponent)
	r := rand.New(rand.NewPCG(3, 7))
	trace := make([]int32, warm+counted)
	for i := range trace {
		trace[i] = int32(z.draw(r))
	}
	begun := time.Now()
	rate := pick(b, evictionRate, 4*evictionRate)
	for at := 0; at < len(trace); at += evictionTogether {
		if err := b.ctx.Err(); err != nil {
			return "", err
		}
		batch := trace[at:min(len(trace), at+evictionTogether)]
		for _, p := range players {
			if err := p.play(batch, at >= warm); err != nil {
				return "", fmt.Errorf("%s: %w", p.name, err)
			}
		}
		if at >= warm && at/evictionTogether%1000 == 0 {
			for _, p := range players {
				if err := p.count(); err != nil {
					return "", err
				}
			}
		}
		if ahead := time.Duration(at)*time.Second/time.Duration(rate) - time.Since(begun); ahead > time.Millisecond {
			time.Sleep(ahead)
		}
	}
	t := &table{head: []string{"allkeys-lru", "keys held", "hit ratio %", "exact LRU of as many keys %", "below it, points", "against Redis, points"}}
	base, baseLoss := 0.0, 0.0
	for i, p := range players {
		held := int(median(p.held))
		if held > 2*room {
			return "", notAvailable(fmt.Sprintf("%s holds %d keys, with room for %d: it doesn't evict by allkeys-lru", p.name, held, room))
		}
		ratio := 100 * float64(p.hits) / float64(p.asked)
		exact := 100 * exactLRU(trace, warm, n, held)
		loss, beside := exact-ratio, ""
		if i == 0 {
			base, baseLoss = ratio, loss
		} else {
			beside = fmt.Sprintf("%+.2f", ratio-base)
		}
		t.add([]string{"Redis, maxmemory-samples 10", "Vecino"}[i], fmt.Sprint(held), fmt.Sprintf("%.2f", ratio), fmt.Sprintf("%.2f", exact),
			judged(fmt.Sprintf("%.2f", loss), i == 0 || loss <= baseLoss+aimHits), beside)
		b.say("eviction: %s: %.2f %% of the requests hit, exact LRU %.2f %%", p.name, ratio, exact)
	}
	return t.String() + fmt.Sprintf("\n\n%d keys of 16 B with values of %d B, drawn by Zipf's law with exponent %.2f; room for about %d; %d requests to warm up, %d counted, %d a second. "+
		"Each server's limit is what it says that %d of these keys take. Redis's clock of last use ticks once a second. So that who holds more keys has no advantage, what is judged is how far each is below an exact LRU of as many keys: the aim is at most %.0f point more than Redis.",
		n, shortValue, evictionExponent, room, warm, counted, rate, room, aimHits), nil
}

// exactLRU is the hit ratio of a cache that evicts exactly what was used
// longest ago, after so many requests to warm up.
func exactLRU(trace []int32, warm, n, room int) float64 {
	cache := newLRU(n, max(room, 1))
	hits := 0
	for i, key := range trace {
		if cache.use(int(key)) && i >= warm {
			hits++
		}
	}
	return float64(hits) / float64(len(trace)-warm)
}

// startEvicting starts redis-server, and a node with one database, with room
// for a number of keys each: what they say that so many take. end ends both.
func (b *bench) startEvicting(room int) (redis, node door, end func(), err error) {
	var ends []func()
	end = func() {
		for _, f := range ends {
			f()
		}
	}
	defer func() {
		if err != nil {
			end()
		}
	}()
	ports, err := freePorts(1)
	if err != nil {
		return redis, node, end, err
	}
	r, err := b.startRedis(filepath.Join(b.dir, "eviction-redis"), ports[0])
	if err != nil {
		return redis, node, end, err
	}
	ends = append(ends, func() { b.end(r) })
	redis = r.door()
	limit, err := b.sizeOf(redis, room)
	if err != nil {
		return redis, node, end, err
	}
	for _, words := range [][2]string{{"maxmemory-policy", "allkeys-lru"}, {"maxmemory-samples", "10"}, {"maxmemory", strconv.Itoa(limit)}} {
		if _, err := b.ask(redis, "CONFIG", "SET", words[0], words[1]); err != nil {
			return redis, node, end, err
		}
	}
	for turn := range 2 { // first without a limit, to see what the keys take
		s, err := b.newStage(fmt.Sprintf("eviction-%d", turn), 1, func(_ int, d *catalog.Database) {
			if turn == 1 {
				d.Eviction, d.Policy, d.Limits.DataBytes = true, "allkeys-lru", int64(limit)
			}
		})
		if err != nil {
			return redis, node, end, err
		}
		if turn == 1 {
			ends = append(ends, func() { b.closeStage(s) })
		}
		if err := b.startStage(s); err != nil {
			return redis, node, end, err
		}
		if node = s.door(0); turn == 0 {
			limit, err = b.sizeOf(node, room)
			b.closeStage(s)
			if err != nil {
				return redis, node, end, err
			}
		}
	}
	return redis, node, end, nil
}

// sizeOf is what a server says that so many keys take. It is empty afterwards.
func (b *bench) sizeOf(to door, keys int) (int, error) {
	if err := fillStrings(to, keys, shortValue).run(b.ctx); err != nil {
		return 0, err
	}
	fields, err := b.info(to)
	if err != nil {
		return 0, err
	}
	used, ok := number(fields, "used_memory")
	if !ok {
		return 0, fmt.Errorf("INFO of %s has no used_memory", to.addr)
	}
	_, err = b.ask(to, "FLUSHALL")
	return int(used), err
}

// player plays the trace to one server.
type player struct {
	*client
	name        string
	asked, hits int
	held        []float64
	missed      []int32
}

// play asks for some keys, and sets those that aren't there.
func (p *player) play(batch []int32, count bool) error {
	p.out = p.out[:0]
	for _, key := range batch {
		p.out = appendGet(p.out, int(key))
	}
	p.SetDeadline(time.Now().Add(patience))
	if _, err := p.Write(p.out); err != nil {
		return err
	}
	p.out, p.missed = p.out[:0], p.missed[:0]
	for _, key := range batch {
		v, err := p.replies.Read()
		if err == nil {
			err = v.Err()
		}
		if err != nil {
			return err
		}
		if v.Text() == "" {
			p.missed = append(p.missed, key)
			p.out = appendSet(p.out, int(key), shortValue)
		}
	}
	if count {
		p.asked += len(batch)
		p.hits += len(batch) - len(p.missed)
	}
	if len(p.missed) == 0 {
		return nil
	}
	if _, err := p.Write(p.out); err != nil {
		return err
	}
	for range p.missed {
		v, err := p.replies.Read()
		if err == nil {
			err = v.Err()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// count notes how many keys the server holds.
func (p *player) count() error {
	v, err := p.do("DBSIZE")
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(v.Text())
	p.held = append(p.held, float64(n))
	return err
}
