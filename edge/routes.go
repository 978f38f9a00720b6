package edge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"vecino/api"
)

// routes is the table of what is served where, and the calls that wait for an
// entry of it.
type routes struct {
	log *slog.Logger
	dir string // where the table is kept; "" nowhere

	patience time.Duration // how long a call is held

	mu struct {
		sync.RWMutex
		byAddr map[netip.Addr]*api.Route // never changed once in here
		held   map[netip.Addr][]*heldCall
		nheld  int
		deaf   map[netip.Addr]bool // listening for them has failed
		closed bool
	}
}

type heldCall struct {
	*call
	timer *time.Timer
}

func newRoutes(log *slog.Logger, dir string) *routes {
	r := &routes{log: log, dir: dir, patience: holdTime}
	r.mu.byAddr = make(map[netip.Addr]*api.Route)
	r.mu.held = make(map[netip.Addr][]*heldCall)
	r.mu.deaf = make(map[netip.Addr]bool)
	return r
}

// get returns the route of an address, or nil. It isn't to be changed.
func (r *routes) get(addr netip.Addr) *api.Route {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.mu.byAddr[addr]
}

func (r *routes) len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.mu.byAddr)
}

func (r *routes) addresses() []netip.Addr {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]netip.Addr, 0, len(r.mu.byAddr))
	for addr := range r.mu.byAddr {
		list = append(list, addr)
	}
	return list
}

// set puts a route in place and returns the calls that waited for it.
func (r *routes) set(route api.Route) (waiting []*call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.byAddr[route.Address] = &route
	if len(route.Serving) == 0 {
		return nil
	}
	return r.releaseLocked(route.Address)
}

func (r *routes) releaseLocked(addr netip.Addr) (calls []*call) {
	for _, h := range r.mu.held[addr] {
		h.timer.Stop()
		calls = append(calls, h.call)
	}
	delete(r.mu.held, addr)
	r.mu.nheld -= len(calls)
	return calls
}

func (r *routes) drop(addr netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.byAddr, addr)
}

// What became of a call that was to be held.
type holding int

const (
	held       holding = iota
	routable           // meanwhile there is a route
	overbooked         // too many are held
)

// hold keeps a call until its address has a route that leads somewhere, or
// until the time is up, when it calls expired.
func (r *routes) hold(c *call, expired func(*call)) holding {
	addr := c.conn.Destination.Addr()
	r.mu.Lock()
	defer r.mu.Unlock()
	if route := r.mu.byAddr[addr]; route != nil && len(route.Serving) > 0 {
		return routable
	}
	if r.mu.nheld >= maxHeld || r.mu.closed {
		return overbooked
	}
	h := &heldCall{call: c}
	h.timer = time.AfterFunc(r.patience, func() {
		if r.unhold(addr, h) {
			expired(c)
		}
	})
	r.mu.held[addr] = append(r.mu.held[addr], h)
	r.mu.nheld++
	return held
}

// unhold takes a call out, if nobody else has.
func (r *routes) unhold(addr netip.Addr, h *heldCall) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.mu.held[addr]
	i := slices.Index(list, h)
	if i < 0 {
		return false
	}
	r.mu.nheld--
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(r.mu.held, addr)
	} else {
		r.mu.held[addr] = list
	}
	return true
}

func (r *routes) holding() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.mu.nheld
}

// noteListening remembers where listening has failed; the answer is whether
// that is news.
func (r *routes) noteListening(addr netip.Addr, err error) (news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.mu.deaf, addr)
		return false
	}
	news = !r.mu.deaf[addr]
	r.mu.deaf[addr] = true
	return news
}

func (r *routes) unheard() []netip.Addr {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]netip.Addr, 0, len(r.mu.deaf))
	for addr := range r.mu.deaf {
		list = append(list, addr)
	}
	return list
}

// close returns the calls still held, and holds no more.
func (r *routes) close() (calls []*call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.closed = true
	for addr := range r.mu.held {
		calls = append(calls, r.releaseLocked(addr)...)
	}
	return calls
}

// The routes on disk are a file of JSON, written anew as a whole.
//
// History of the format: 1 is the first.
type routesFile struct {
	Version int          `json:"version"`
	Routes  []*api.Route `json:"routes"`
}

const routesVersion = 1

func (r *routes) path() string { return filepath.Join(r.dir, "routes.json") }

// load returns the routes that were saved. A file that can't be read is
// reported and means none: the platform has them all.
func (r *routes) load() (list []api.Route) {
	if r.dir == "" {
		return nil
	}
	b, err := os.ReadFile(r.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var file routesFile
	if err == nil {
		err = json.Unmarshal(b, &file)
	}
	if err == nil && file.Version != routesVersion {
		err = fmt.Errorf("version %d is unknown", file.Version)
	}
	if err != nil {
		r.log.Warn("edge starts without its saved routes", "err", err)
		return nil
	}
	for _, route := range file.Routes {
		if route == nil {
			continue
		}
		if err := checkRoute(*route); err != nil {
			r.log.Warn("edge leaves out a saved route", "database", route.Database, "err", err)
			continue
		}
		list = append(list, *route)
	}
	return list
}

func (r *routes) save() error {
	file := routesFile{Version: routesVersion, Routes: []*api.Route{}}
	r.mu.RLock()
	for _, route := range r.mu.byAddr {
		file.Routes = append(file.Routes, route)
	}
	r.mu.RUnlock()
	slices.SortFunc(file.Routes, func(a, b *api.Route) int { return a.Address.Compare(b.Address) })
	b, err := json.Marshal(file)
	if err != nil {
		return fmt.Errorf("encode routes: %w", err)
	}
	// Not synced: after a power cut the platform tells them again.
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return fmt.Errorf("save routes: %w", err)
	}
	part := r.path() + ".part"
	if err := os.WriteFile(part, b, 0o600); err != nil {
		return fmt.Errorf("save routes: %w", err)
	}
	if err := os.Rename(part, r.path()); err != nil {
		return fmt.Errorf("save routes: %w", err)
	}
	return nil
}
