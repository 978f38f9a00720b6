// Package world runs all of Vecino on one machine: the fleet, the platform,
// and for each region a node and an edge, every one of them an OS process of
// its own, with the distances between the regions simulated.
//
// A World supervises those processes. It chooses their ports and remembers
// them (ports.go, state.go), starts them again when they die (process.go),
// tells them how far apart they are (distance.go), and listens on a socket in
// its state directory for those who want to change that (control.go). What the
// processes do is not its business: it knows their command lines (daemons.go),
// whether they say that they are well, and nothing else. So it can be killed
// like any of them, and the next World on the same state goes on.
//
//	state/
//	  world.json       where it is reached, its ports, its secrets; see record
//	  distance.json    what is different from the globe; see Distance
//	  control.sock     the control socket
//	  lock             held by the running World; its pid
//	  links/           the authority of the nodes' links, and their certificates
//	  fleet/ platform/ mad-1/ edge-mad/ ...   the state of each process
//	  logs/            their logs; .old is that of the run before
//	  run/             a lock for each process; see process
package world

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"vecino/api"
	"vecino/internal/dirlock"
	"vecino/region"
)

// DefaultRegions are those of a world for which none are named.
var DefaultRegions = []region.Code{"mad", "ams", "dfw", "gru", "jnb", "scl"}

// Config says what world to run.
type Config struct {
	// State is the directory of all that survives.
	State string

	// Regions, when there are any, are those of a new world, or are added to
	// one that was here before. The regions of a world can't be taken away:
	// databases may live there.
	Regions []region.Code

	// BasePort, if not 0, is where the ports of a new world begin. Otherwise
	// they are chosen.
	BasePort int

	// Binary is the program to start: vecino. Default: this one.
	Binary string

	// LogLevel is that of the processes.
	LogLevel slog.Level

	// Events is told what happens, from several goroutines, one at a time. It
	// must not call the World.
	Events func(Event)
}

const (
	// startTimeout bounds how long a world may take until all is well.
	startTimeout = 60 * time.Second
	// stopTimeout is how long processes may take to end before they are killed.
	stopTimeout = 5 * time.Second
)

// World is a running world.
type World struct {
	cfg     Config
	record  record
	lock    *dirlock.Lock
	claims  []net.Listener
	spawner *spawner
	alive   *os.File // the end of the pipe that closes when this process dies
	control *controlServer
	started time.Time
	cancel  context.CancelFunc
	tasks   sync.WaitGroup
	once    sync.Once // for close

	processes []*process
	http      *http.Client // for the admin listeners

	distance struct {
		sync.Mutex
		Distance
		version int
	}
	events sync.Mutex
	ending bool // under events: what processes say now isn't news
}

// Open starts a world and returns when all of it is well. Close ends it.
func Open(ctx context.Context, cfg Config) (_ *World, err error) {
	if cfg.Binary == "" {
		if cfg.Binary, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
	}
	if cfg.State, err = filepath.Abs(cfg.State); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := checkRegions(cfg.Regions); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.State, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	w := &World{
		cfg: cfg, started: time.Now(), cancel: func() {},
		http: &http.Client{Timeout: adminTimeout, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	if err := w.start(ctx); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *World) start(ctx context.Context) (err error) {
	if w.lock, err = lockState(w.cfg.State); err != nil {
		return err
	}
	if err := w.load(); err != nil {
		return err
	}
	if w.processes, err = w.daemons(); err != nil {
		return err
	}
	if w.spawner, w.alive, err = newSpawner(); err != nil {
		return err
	}
	if w.control, err = w.serveControl(); err != nil {
		return err
	}
	if err := w.record.write(w.cfg.State); err != nil {
		return err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w.cancel = cancel
	for _, p := range w.processes {
		w.tasks.Go(func() { p.run(run) })
	}
	ctx, stop := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not all of it was well after %s", startTimeout))
	defer stop()
	for _, p := range w.processes {
		if err := p.await(ctx, Running); err != nil {
			return fmt.Errorf("start %s: %w", p.name, errors.Join(err, p.lastWords()))
		}
	}
	return nil
}

// Close ends all processes: politely, and after a while otherwise. Closing
// again does nothing.
func (w *World) Close() (err error) {
	w.once.Do(func() { err = w.close() })
	return err
}

func (w *World) close() error {
	w.events.Lock()
	w.ending = true
	w.events.Unlock()
	var errs []error
	if w.control != nil {
		errs = append(errs, w.control.close())
	}
	w.cancel()
	w.tasks.Wait()
	if w.spawner != nil {
		w.spawner.close()
		w.alive.Close()
	}
	for _, c := range w.claims {
		c.Close()
	}
	if w.lock != nil {
		w.lock.Close()
	}
	return errors.Join(errs...)
}

// API is where the platform answers, and the token for it.
func (w *World) API() (url, token string) { return w.record.API, w.record.Token }

// State is the state directory.
func (w *World) State() string { return w.cfg.State }

// tell says what has happened.
func (w *World) tell(e Event) {
	w.events.Lock()
	defer w.events.Unlock()
	if w.cfg.Events != nil && !w.ending {
		w.cfg.Events(e)
	}
}

// Status is a world at one moment.
type Status struct {
	PID       int             `json:"pid"`
	State     string          `json:"state"`
	API       string          `json:"api"`
	DataPort  int             `json:"data_port"` // where databases answer, on 127.100.0.0 and up
	Started   time.Time       `json:"started"`
	Regions   []region.Code   `json:"regions"`
	Processes []ProcessStatus `json:"processes"`
	// RoundTrips, in milliseconds, are in the order of Regions both ways: as
	// simulated now, cut or not.
	RoundTrips [][]float64 `json:"round_trips_ms"`
	Changed    Distance    `json:"changed"` // what is not as on the globe
}

// ProcessStatus is one process.
type ProcessStatus struct {
	Name      string      `json:"name"`
	Kind      Kind        `json:"kind"`
	Region    region.Code `json:"region,omitempty"`
	State     State       `json:"state"`
	PID       int         `json:"pid,omitempty"`
	Restarts  int         `json:"restarts"` // since the world was started, not counting those asked for
	Addresses []Address   `json:"addresses"`
	Log       string      `json:"log"`
}

// Address is one thing that a process listens for.
type Address struct {
	For  string `json:"for"` // "api", "proxy", "link", "gossip", "admin"
	Addr string `json:"addr"`
}

// Status tells how the world is.
func (w *World) Status() Status {
	s := Status{
		PID: os.Getpid(), State: w.cfg.State, API: w.record.API, DataPort: w.record.DataPort,
		Started: w.started, Regions: w.record.Regions,
	}
	for _, p := range w.processes {
		s.Processes = append(s.Processes, p.status())
	}
	w.distance.Lock()
	defer w.distance.Unlock()
	s.Changed = w.distance.clone()
	for _, a := range s.Regions {
		var row []float64
		for _, b := range s.Regions {
			row = append(row, milliseconds(s.Changed.RoundTrip(a, b)))
		}
		s.RoundTrips = append(s.RoundTrips, row)
	}
	return s
}

// find is the process of a kind in a region.
func (w *World) find(k Kind, r region.Code) (*process, error) {
	if err := w.check(r); err != nil {
		return nil, err
	}
	for _, p := range w.processes {
		if p.kind == k && p.region == r {
			return p, nil
		}
	}
	return nil, fmt.Errorf("there is no %s in %s", k, r)
}

// check says which regions there are when one is named that isn't.
func (w *World) check(codes ...region.Code) error {
	for _, c := range codes {
		if !slices.Contains(w.record.Regions, c) {
			return api.Unknown("region", string(c), titles(w.record.Regions))
		}
	}
	return nil
}

// Kill ends a process as a crash would; it stays dead until Start.
func (w *World) Kill(ctx context.Context, k Kind, r region.Code) error {
	p, err := w.find(k, r)
	if err != nil {
		return err
	}
	return p.kill(ctx)
}

// Start brings back what Kill has ended, and returns when it is well.
func (w *World) Start(ctx context.Context, k Kind, r region.Code) error {
	p, err := w.find(k, r)
	if err != nil {
		return err
	}
	return p.start(ctx)
}

// checkRegions refuses regions that aren't on the map.
func checkRegions(codes []region.Code) error {
	for i, c := range codes {
		if _, ok := region.Lookup(c); !ok {
			return api.Unknown("region", string(c), titles(region.Codes()))
		}
		if slices.Contains(codes[:i], c) {
			return fmt.Errorf("region %s is named twice", c)
		}
	}
	return nil
}

func titles(codes []region.Code) []string {
	codes = slices.Clone(codes)
	slices.SortFunc(codes, func(a, b region.Code) int { return cmp.Compare(region.Title(a), region.Title(b)) })
	list := make([]string, len(codes))
	for i, c := range codes {
		list[i] = region.Title(c)
	}
	return list
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

// An Event is something that happened to a world. Its String is a line for a
// person.
type Event struct {
	What    What
	Process string // "" when it is about none
	Took    time.Duration
	Detail  string
}

// What happened.
type What int

const (
	Ready     What = iota // a process says that it is well, so long after it was started
	Died                  // by itself; it will be started again
	WasKilled             // because it was asked for
	Complains             // it has logged an error
	PortMoved             // an address is not what it was
)

func (e Event) String() string {
	switch e.What {
	case Ready:
		return fmt.Sprintf("%s is up, after %.2f s", e.Process, e.Took.Seconds())
	case Died:
		return fmt.Sprintf("%s died (%s); it is started again in %s", e.Process, e.Detail, e.Took)
	case WasKilled:
		return e.Process + " was killed"
	case Complains:
		return e.Process + ": " + strings.TrimSpace(e.Detail)
	}
	return strings.TrimSpace(e.Process + " " + e.Detail)
}
