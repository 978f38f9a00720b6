package world

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"vecino/region"
)

// Kind is what a process is.
type Kind string

const (
	Fleet    Kind = "fleet"
	Platform Kind = "platform"
	Node     Kind = "node"
	Edge     Kind = "edge"
)

// State is how a process is.
type State string

const (
	Starting State = "starting"
	Running  State = "running" // and well, when it was last asked
	Waiting  State = "waiting" // it died, and is started again soon
	Killed   State = "killed"  // because it was asked for
	Ended    State = "ended"   // with the world
)

// How often a new process is asked whether it is well, and how long one that
// died is left alone: longer each time, until one has lived long enough to
// begin anew.
const (
	askPause    = 15 * time.Millisecond
	minBackoff  = 100 * time.Millisecond
	maxBackoff  = 5 * time.Second
	longEnough  = 10 * time.Second
	lockTimeout = 5 * time.Second
)

// process is one of the world's OS processes.
//
//	            spawned            well
//	Starting ───────────▶ Starting ────▶ Running
//	   ▲ ▲                    │             │
//	   │ │     after a while  │ dies        │ dies
//	   │ └──────── Waiting ◀──┴─────────────┤
//	   │                                    │ kill, from any state
//	   │ start                              ▼
//	   └──────────────────────────────── Killed
//
// and from each of them, when the world ends, to Ended. Only run makes the
// transitions; kill and start say what is wanted.
//
// While it lives it holds the lock of a file that it inherited and knows
// nothing of. So a process that has outlived its world by a moment can't be
// beside its successor on the same state.
type process struct {
	world     *World
	name      string
	kind      Kind
	region    region.Code
	args      []string
	env       []string
	admin     string // host:port of its admin listener
	far       bool   // it takes distances
	addresses []Address

	pushing sync.Mutex // while a table is on its way; before mu and world.distance
	pushed  int        // the version of the table that it has; 0: none

	mu struct {
		sync.Mutex
		state    State
		dead     bool        // it isn't wanted to live
		os       *os.Process // nil: there is none
		restarts int
		changed  chan struct{} // closed when any of these has changed
		tail     []string      // the last lines of its log
	}
}

func (w *World) newProcess(name string, k Kind, r region.Code) *process {
	p := &process{world: w, name: name, kind: k, region: r}
	p.mu.state = Starting
	p.mu.changed = make(chan struct{})
	return p
}

// set changes how the process is and wakes who waits for that.
func (p *process) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	close(p.mu.changed)
	p.mu.changed = make(chan struct{})
}

func (p *process) is(s State) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.state == s
}

// look returns the state, whether the process isn't wanted to live, and the
// channel that closes at the next change.
func (p *process) look() (s State, dead bool, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.state, p.mu.dead, p.mu.changed
}

// await waits for a state.
func (p *process) await(ctx context.Context, want State) error {
	for {
		s, _, changed := p.look()
		if s == want {
			return nil
		}
		if s == Ended {
			return errors.New("the world has ended")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// kill ends the process as a crash would, and returns when it is dead.
func (p *process) kill(ctx context.Context) error {
	p.set(func() {
		p.mu.dead = true
		if p.mu.os != nil {
			p.mu.os.Kill()
		}
	})
	return p.await(ctx, Killed)
}

// start undoes kill, and returns when the process is well.
func (p *process) start(ctx context.Context) error {
	p.set(func() {
		p.mu.dead = false
		if p.mu.state == Killed {
			p.mu.state = Starting
		}
	})
	return p.await(ctx, Running)
}

// signal sends a signal to the process, if there is one.
func (p *process) signal(s os.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.os != nil {
		p.mu.os.Signal(s) // its error is that it has ended meanwhile
	}
}

// run keeps the process alive until ctx ends, and then ends it.
func (p *process) run(ctx context.Context) {
	defer p.set(func() { p.mu.state = Ended })
	backoff := minBackoff
	for ctx.Err() == nil {
		if _, dead, changed := p.look(); dead {
			p.set(func() { p.mu.state = Killed })
			p.world.tell(Event{What: WasKilled, Process: p.name})
			for dead && ctx.Err() == nil {
				select {
				case <-changed:
				case <-ctx.Done():
				}
				_, dead, changed = p.look()
			}
			continue
		}
		began := time.Now()
		err := p.live(ctx)
		if _, dead, _ := p.look(); dead || ctx.Err() != nil {
			continue
		}
		if time.Since(began) > longEnough {
			backoff = minBackoff
		}
		p.set(func() {
			p.mu.state = Waiting // also when it could not be started
			p.mu.restarts++
		})
		_, _, changed := p.look()
		detail := err.Error()
		if last := p.lastWords(); last != nil {
			detail += "; " + last.Error()
		}
		p.world.tell(Event{What: Died, Process: p.name, Detail: detail, Took: backoff})
		select {
		case <-time.After(backoff):
		case <-changed:
		case <-ctx.Done():
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// live is one life of the process. The error says how it ended.
func (p *process) live(ctx context.Context) error {
	p.pushing.Lock()
	p.pushed = -1 // a new process knows nothing
	p.pushing.Unlock()
	lock, err := p.lockRun(ctx)
	if err != nil {
		return err
	}
	log, err := p.openLog()
	if err != nil {
		lock.Close()
		return err
	}
	defer log.Close()
	out, in, err := os.Pipe()
	if err != nil {
		lock.Close()
		return err
	}
	defer out.Close()
	cmd := exec.Command(p.world.cfg.Binary, p.args...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.world.spawner.leash, in, in
	cmd.ExtraFiles = []*os.File{lock}
	began := time.Now()
	err = p.world.spawner.start(cmd)
	in.Close()
	lock.Close()
	if err != nil {
		return err
	}
	p.set(func() {
		p.mu.state, p.mu.os, p.mu.tail = Starting, cmd.Process, nil
		if p.mu.dead { // since a moment ago
			p.mu.os.Kill()
		}
	})

	var tasks sync.WaitGroup
	alive, died := context.WithCancel(ctx)
	dead := make(chan struct{})
	tasks.Go(func() { p.copyLog(log, out) })
	tasks.Go(func() { p.greet(alive, began) })
	tasks.Go(func() { p.end(ctx, dead) })
	err = cmd.Wait()
	close(dead)
	died()
	tasks.Wait()
	p.set(func() { p.mu.os, p.mu.state = nil, Waiting })
	if err == nil {
		err = errors.New("it ended without an error")
	}
	return err
}

// end ends the process with the world: politely, and after a while otherwise.
func (p *process) end(ctx context.Context, dead <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-dead:
		return
	}
	p.signal(syscall.SIGTERM)
	select {
	case <-time.After(stopTimeout):
		p.signal(syscall.SIGKILL)
	case <-dead:
	}
}

// greet waits until a new process is well.
func (p *process) greet(ctx context.Context, began time.Time) {
	tick := time.NewTicker(askPause)
	defer tick.Stop()
	for {
		if p.pushDistance(ctx) == nil && p.healthy(ctx) == nil && p.hasDistance() {
			p.set(func() { p.mu.state = Running })
			p.world.tell(Event{What: Ready, Process: p.name, Took: time.Since(began)})
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (p *process) healthy(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+"/healthz", nil)
	if err != nil {
		return err
	}
	return p.world.admin(req)
}

// lockRun takes the lock that the process is going to hold, when the one
// before it has let go.
func (p *process) lockRun(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(p.world.cfg.State, "run", p.name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockTimeout); ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if err != syscall.EWOULDBLOCK || time.Now().After(deadline) || ctx.Err() != nil {
			f.Close()
			return nil, fmt.Errorf("lock run/%s, which a process of an earlier world may hold: %w", p.name, cmp.Or(ctx.Err(), err))
		}
		time.Sleep(askPause)
	}
}

func (p *process) logFile() string { return filepath.Join(p.world.cfg.State, "logs", p.name+".log") }

// openLog opens the log. Each World begins a new one and keeps the one before.
func (p *process) openLog() (*os.File, error) {
	return os.OpenFile(p.logFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// rotateLogs puts the logs of the run before aside.
func (w *World) rotateLogs() error {
	for _, p := range w.processes {
		if err := os.Rename(p.logFile(), p.logFile()+".old"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// tailLines is how much of a log is kept to tell of what a process died.
const tailLines = 200

// copyLog writes what a process says to its log, and passes errors on.
func (p *process) copyLog(log io.Writer, from io.Reader) {
	in := bufio.NewReaderSize(from, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && len(line) == 0 {
			return
		}
		log.Write(line)
		text := strings.TrimRight(string(line), "\n")
		p.mu.Lock()
		p.mu.tail = append(p.mu.tail, text)
		if len(p.mu.tail) > tailLines {
			p.mu.tail = p.mu.tail[1:]
		}
		p.mu.Unlock()
		if bytes.Contains(line, []byte("level=ERROR")) {
			_, rest, _ := strings.Cut(text, "level=ERROR ")
			p.world.tell(Event{What: Complains, Process: p.name, Detail: rest})
		}
	}
}

// lastWords is what a process said last that sounds like a reason to die, nil
// if it said nothing.
func (p *process) lastWords() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.mu.tail {
		for _, sign := range []string{"panic: ", "fatal error: ", "Error: ", "WARNING: DATA RACE"} {
			if strings.HasPrefix(line, sign) {
				return fmt.Errorf("%s (more in %s)", line, p.logFile())
			}
		}
	}
	return nil
}

func (p *process) status() ProcessStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := ProcessStatus{
		Name: p.name, Kind: p.kind, Region: p.region, State: p.mu.state, Restarts: p.mu.restarts,
		Addresses: p.addresses, Log: p.logFile(),
	}
	if p.mu.os != nil {
		s.PID = p.mu.os.Pid
	}
	return s
}
