package link

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vecino/region"
)

// Distance is how far the regions of a simulated world are from each other: for
// each ordered pair the time that bytes take, and whether they get through at
// all; and for each region how much later replicated entries arrive there than
// everything else. It changes while the world runs; [Shape] is what lets
// connections feel it.
//
// All methods may be called from any goroutine, and readers never wait. A nil
// Distance and a zero one have every region in the same place. A pair that was
// never mentioned is at distance zero.
type Distance struct {
	mu    sync.Mutex // held while a new table is made from the old one
	table atomic.Pointer[distances]
}

// distances is one state of a Distance. It is never changed once it can be seen.
type distances struct {
	delay   map[pair]time.Duration
	cut     map[pair]bool
	lag     map[region.Code]time.Duration
	changed chan struct{} // closed when a later state has taken this one's place
}

type pair struct{ from, to region.Code }

// NewDistance returns the table in which each pair of regions is as far apart
// as oneWay says, nothing is cut, and nothing lags.
func NewDistance(regions []region.Code, oneWay func(from, to region.Code) time.Duration) *Distance {
	d := new(Distance)
	d.change(func(t *distances) {
		for _, from := range regions {
			for _, to := range regions {
				if from != to {
					t.delay[pair{from, to}] = oneWay(from, to)
				}
			}
		}
	})
	return d
}

// Delay returns the time that bytes take from one region to another.
func (d *Distance) Delay(from, to region.Code) time.Duration {
	return d.now().delay[pair{from, to}]
}

// Cut reports whether nothing gets from one region to another. The way back may
// be open.
func (d *Distance) Cut(from, to region.Code) bool {
	return d.now().cut[pair{from, to}]
}

// Lag returns how much later replicated entries arrive in a region than other
// frames do.
func (d *Distance) Lag(at region.Code) time.Duration {
	return d.now().lag[at]
}

// Changed returns a channel that is closed at the next change. Ask for it
// before reading what the decision to wait depends on.
func (d *Distance) Changed() <-chan struct{} {
	return d.now().changed
}

// SetDelay sets the time from one region to another, in this direction only.
func (d *Distance) SetDelay(from, to region.Code, delay time.Duration) {
	d.change(func(t *distances) { t.delay[pair{from, to}] = max(0, delay) })
}

// SetCut cuts or heals the way from one region to another, in this direction
// only.
func (d *Distance) SetCut(from, to region.Code, cut bool) {
	d.change(func(t *distances) {
		delete(t.cut, pair{from, to})
		if cut {
			t.cut[pair{from, to}] = true
		}
	})
}

// SetLag sets how much later replicated entries arrive in a region.
func (d *Distance) SetLag(at region.Code, lag time.Duration) {
	d.change(func(t *distances) {
		delete(t.lag, at)
		if lag > 0 {
			t.lag[at] = lag
		}
	})
}

// Connect waits for as long as it takes to set up a connection between two
// regions, one round trip. Cut in either direction it waits for the healing or
// for the context, whose cause it then returns.
func (d *Distance) Connect(ctx context.Context, from, to region.Code) error {
	start := time.Now()
	for {
		changed := d.Changed()
		var due <-chan time.Time
		if !d.Cut(from, to) && !d.Cut(to, from) {
			wait := d.Delay(from, to) + d.Delay(to, from) - time.Since(start)
			if wait <= 0 {
				return nil
			}
			timer := time.NewTimer(wait)
			defer timer.Stop() // changes while one connects are few
			due = timer.C
		}
		select {
		case <-due:
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// nowhere is the state of a nil Distance. It never changes.
var nowhere = &distances{changed: make(chan struct{})}

func (d *Distance) now() *distances {
	if d == nil {
		return nowhere
	}
	if t := d.table.Load(); t != nil {
		return t
	}
	d.table.CompareAndSwap(nil, &distances{changed: make(chan struct{})})
	return d.table.Load()
}

// change puts an edited copy of the present state in its place and wakes who
// waits for that.
func (d *Distance) change(edit func(*distances)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.now()
	next := &distances{
		delay:   cloneMap(old.delay),
		cut:     cloneMap(old.cut),
		lag:     cloneMap(old.lag),
		changed: make(chan struct{}),
	}
	edit(next)
	d.table.Store(next)
	close(old.changed)
}

func cloneMap[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return maps.Clone(m)
}

// The JSON of a Distance, as PUT /world takes it:
//
//	{"pairs": [{"from": "mad", "to": "ams", "delay_ms": 12.3, "cut": true}, …],
//	 "lag":   [{"region": "scl", "ms": 900}, …]}
type (
	distanceJSON struct {
		Pairs []pairJSON `json:"pairs"`
		Lag   []lagJSON  `json:"lag,omitempty"`
	}
	pairJSON struct {
		From    region.Code `json:"from"`
		To      region.Code `json:"to"`
		DelayMS float64     `json:"delay_ms"`
		Cut     bool        `json:"cut,omitempty"`
	}
	lagJSON struct {
		Region region.Code `json:"region"`
		MS     float64     `json:"ms"`
	}
)

// maxDelay is more than any experiment needs, and keeps a slip in a number from
// looking like a hang.
const maxDelay = time.Minute

// MarshalJSON writes the whole table, always in the same order.
func (d *Distance) MarshalJSON() ([]byte, error) {
	t := d.now()
	pairs := make(map[pair]bool)
	for p := range t.delay {
		pairs[p] = true
	}
	for p := range t.cut {
		pairs[p] = true
	}
	out := distanceJSON{Pairs: []pairJSON{}}
	for p := range pairs {
		out.Pairs = append(out.Pairs, pairJSON{p.from, p.to, milliseconds(t.delay[p]), t.cut[p]})
	}
	slices.SortFunc(out.Pairs, func(a, b pairJSON) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	for at, lag := range t.lag {
		out.Lag = append(out.Lag, lagJSON{at, milliseconds(lag)})
	}
	slices.SortFunc(out.Lag, func(a, b lagJSON) int { return cmp.Compare(a.Region, b.Region) })
	return json.Marshal(out)
}

// UnmarshalJSON puts another whole table in the place of this one, at once.
// When it fails, nothing has changed.
func (d *Distance) UnmarshalJSON(b []byte) error {
	var in distanceJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return fmt.Errorf("read distances: %w", err)
	}
	next := distances{
		delay: make(map[pair]time.Duration),
		cut:   make(map[pair]bool),
		lag:   make(map[region.Code]time.Duration),
	}
	for _, p := range in.Pairs {
		delay, ok := duration(p.DelayMS)
		if !ok || p.From == "" || p.To == "" {
			return fmt.Errorf("read distances: %q to %q in %v ms is none", p.From, p.To, p.DelayMS)
		}
		next.delay[pair{p.From, p.To}] = delay
		if p.Cut {
			next.cut[pair{p.From, p.To}] = true
		}
	}
	for _, l := range in.Lag {
		lag, ok := duration(l.MS)
		if !ok || l.Region == "" {
			return fmt.Errorf("read distances: %q lagging by %v ms is none", l.Region, l.MS)
		}
		if lag > 0 {
			next.lag[l.Region] = lag
		}
	}
	d.change(func(t *distances) {
		t.delay, t.cut, t.lag = next.delay, next.cut, next.lag
	})
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func duration(ms float64) (time.Duration, bool) {
	d := ms * float64(time.Millisecond)
	return time.Duration(d), d >= 0 && d <= float64(maxDelay) // false for NaN too
}
