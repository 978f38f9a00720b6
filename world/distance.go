package world

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"vecino/api"
	"vecino/link"
	"vecino/region"
)

// Distance is in what a world differs from the globe. The zero Distance is the
// globe.
type Distance struct {
	Delays []Delay `json:"delays,omitempty"`
	Cuts   []Cut   `json:"cuts,omitempty"`
	Lags   []Lag   `json:"lags,omitempty"`
}

// Delay is how long bytes take between two regions, either way, where that
// isn't as on the globe.
type Delay struct {
	A  region.Code `json:"a"`
	B  region.Code `json:"b"`
	MS float64     `json:"ms"`
}

// Cut is a way on which nothing gets through.
type Cut struct {
	From region.Code `json:"from"`
	To   region.Code `json:"to"`
}

// Lag is by how much replicated entries, and nothing else, arrive later in a
// region.
type Lag struct {
	Region region.Code `json:"region"`
	MS     float64     `json:"ms"`
}

func (d *Distance) clone() Distance {
	return Distance{slices.Clone(d.Delays), slices.Clone(d.Cuts), slices.Clone(d.Lags)}
}

// SetDelay makes bytes take so many milliseconds, each way; nil is what it is
// on the globe.
func (d *Distance) SetDelay(a, b region.Code, ms *float64) {
	d.Delays = slices.DeleteFunc(d.Delays, func(x Delay) bool { return x.A == a && x.B == b || x.A == b && x.B == a })
	if ms != nil {
		d.Delays = append(d.Delays, Delay{a, b, *ms})
	}
}

// SetCut cuts the way from one region to another.
func (d *Distance) SetCut(from, to region.Code) {
	if !d.IsCut(from, to) {
		d.Cuts = append(d.Cuts, Cut{from, to})
	}
}

// Heal opens the ways between two regions again, in both directions.
func (d *Distance) Heal(a, b region.Code) {
	d.Cuts = slices.DeleteFunc(d.Cuts, func(c Cut) bool { return c == Cut{a, b} || c == Cut{b, a} })
}

// IsCut reports whether the way from one region to another is cut.
func (d *Distance) IsCut(from, to region.Code) bool { return slices.Contains(d.Cuts, Cut{from, to}) }

// SetLag makes entries arrive so much later in a region.
func (d *Distance) SetLag(at region.Code, ms float64) {
	d.Lags = slices.DeleteFunc(d.Lags, func(l Lag) bool { return l.Region == at })
	if ms > 0 {
		d.Lags = append(d.Lags, Lag{at, ms})
	}
}

// RoundTrip is how long bytes take there and back, were nothing cut.
func (d *Distance) RoundTrip(a, b region.Code) time.Duration {
	for _, x := range d.Delays {
		if x.A == a && x.B == b || x.A == b && x.B == a {
			return 2 * fromMS(x.MS)
		}
	}
	return region.RTT(a, b)
}

// table is what the processes are told.
func (d *Distance) table(regions []region.Code) ([]byte, error) {
	t := link.NewDistance(regions, func(a, b region.Code) time.Duration { return d.RoundTrip(a, b) / 2 })
	for _, c := range d.Cuts {
		t.SetCut(c.From, c.To, true)
	}
	for _, l := range d.Lags {
		t.SetLag(l.Region, fromMS(l.MS))
	}
	return json.Marshal(t)
}

func fromMS(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// maxMS bounds delays and lags, as package link does.
const maxMS = 60_000

func checkMS(ms float64) error {
	if !(ms >= 0 && ms <= maxMS) {
		return &api.Error{Code: api.Invalid, Field: "ms", Message: fmt.Sprintf("%v ms must be from 0 to %d", ms, maxMS)}
	}
	return nil
}

func (w *World) distanceFile() string { return filepath.Join(w.cfg.State, "distance.json") }

func (w *World) loadDistance() error {
	b, err := os.ReadFile(w.distanceFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &w.distance.Distance)
	}
	if err != nil {
		return fmt.Errorf("read the distances: %w", err)
	}
	return nil
}

// SetDelay makes bytes take so many milliseconds between a and b, each way; nil
// makes it what it is on the globe.
func (w *World) SetDelay(ctx context.Context, a, b region.Code, ms *float64) error {
	if ms != nil {
		if err := checkMS(*ms); err != nil {
			return err
		}
	}
	return w.changePair(ctx, a, b, func(d *Distance) { d.SetDelay(a, b, ms) })
}

// Cut lets nothing through from a to b, nor back unless oneWay.
func (w *World) Cut(ctx context.Context, a, b region.Code, oneWay bool) error {
	return w.changePair(ctx, a, b, func(d *Distance) {
		d.SetCut(a, b)
		if !oneWay {
			d.SetCut(b, a)
		}
	})
}

// Heal undoes Cut, in both directions.
func (w *World) Heal(ctx context.Context, a, b region.Code) error {
	return w.changePair(ctx, a, b, func(d *Distance) { d.Heal(a, b) })
}

// HealAll undoes every Cut.
func (w *World) HealAll(ctx context.Context) error {
	return w.change(ctx, func(d *Distance) { d.Cuts = nil })
}

// SetLag makes replicated entries arrive so much later in a region.
func (w *World) SetLag(ctx context.Context, at region.Code, ms float64) error {
	if err := errors.Join(w.check(at), checkMS(ms)); err != nil {
		return err
	}
	return w.change(ctx, func(d *Distance) { d.SetLag(at, ms) })
}

func (w *World) changePair(ctx context.Context, a, b region.Code, edit func(*Distance)) error {
	if err := w.check(a, b); err != nil {
		return err
	}
	if a == b {
		return &api.Error{Code: api.Invalid, Field: "region", Message: "two regions are needed, not one twice"}
	}
	return w.change(ctx, edit)
}

// change edits the distances, keeps them, and returns when all processes that
// live have them.
func (w *World) change(ctx context.Context, edit func(*Distance)) error {
	w.distance.Lock()
	edit(&w.distance.Distance)
	w.distance.version++
	err := writeJSON(w.distanceFile(), &w.distance.Distance)
	w.distance.Unlock()
	if err != nil {
		return fmt.Errorf("keep the distances: %w", err)
	}
	errs := make([]error, len(w.processes))
	var tasks sync.WaitGroup
	for i, p := range w.processes {
		tasks.Go(func() {
			// One that is starting gets the table before it counts as running,
			// and one that dies meanwhile when it is back.
			if err := p.pushDistance(ctx); err != nil && p.is(Running) {
				errs[i] = fmt.Errorf("tell %s: %w", p.name, err)
			}
		})
	}
	tasks.Wait()
	return errors.Join(errs...)
}

// adminTimeout bounds a request to a process.
const adminTimeout = 2 * time.Second

// pushDistance gives the table to a process that takes it and hasn't got it.
func (p *process) pushDistance(ctx context.Context) error {
	if !p.far {
		return nil
	}
	p.pushing.Lock()
	defer p.pushing.Unlock()
	w := p.world
	w.distance.Lock()
	version := w.distance.version
	table, err := w.distance.table(w.record.Regions)
	w.distance.Unlock()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+p.admin+"/world", bytes.NewReader(table))
	if err != nil {
		return err
	}
	if err := p.world.admin(req); err != nil {
		return err
	}
	p.pushed = version
	return nil
}

// hasDistance reports whether the process knows the table as it is.
func (p *process) hasDistance() bool {
	if !p.far {
		return true
	}
	p.pushing.Lock()
	defer p.pushing.Unlock()
	p.world.distance.Lock()
	defer p.world.distance.Unlock()
	return p.pushed == p.world.distance.version
}

// admin makes a request of an admin listener and wants success.
func (w *World) admin(req *http.Request) error {
	resp, err := w.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(b))
	}
	return nil
}
