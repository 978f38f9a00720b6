package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a program that this one has started.
type process struct {
	name  string
	log   string // file with what it said
	cmd   *exec.Cmd
	ended chan struct{}
}

// startTimeout is how long a server may take to answer.
const startTimeout = 2 * time.Minute

// launch starts a program. It dies with this one at the latest.
func (b *bench) launch(name string, env []string, program string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(b.dir, name+".log"), cmd: exec.Command(program, args...), ended: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Dir = b.dir
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // ctrl-C is for us to pass on
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	b.running = append(b.running, p)
	return p, nil
}

// stop ends it, by force if it takes its time.
func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		p.cmd.Process.Kill()
		<-p.ended
	}
}

// stopAll ends all that runs.
func (b *bench) stopAll() {
	var all sync.WaitGroup
	for _, p := range b.running {
		all.Go(p.stop)
	}
	all.Wait()
	b.running = nil
}

// stop ends some of what runs.
func (b *bench) stop(some ...*process) {
	var all sync.WaitGroup
	for _, p := range some {
		all.Go(p.stop)
	}
	all.Wait()
	b.running = slices.DeleteFunc(b.running, func(p *process) bool { return slices.Contains(some, p) })
}

// until waits for a condition of a process that has just been started.
func (b *bench) until(p *process, what string, ok func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(b.ctx, startTimeout)
	defer cancel()
	for {
		err := ok(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended before %s; it said:\n%s", p.name, what, p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("%s: no %s within %s: %w; it said:\n%s", p.name, what, startTimeout, err, p.lastWords())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// lastWords is the end of its log.
func (p *process) lastWords() string {
	b, _ := os.ReadFile(p.log)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// healthy waits until an admin address says so.
func (b *bench) healthy(p *process, admin string) error {
	return b.until(p, "health", func(ctx context.Context) error {
		_, err := get(ctx, "http://"+admin+"/healthz")
		return err
	})
}

// get fetches what an admin listener has.
func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return body.Bytes(), nil
}

// metric finds one figure without labels in a page of /metrics.
func metric(page []byte, name string) (float64, error) {
	for line := range strings.Lines(string(page)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("there is no metric %s", name)
}

// histogram is how many values of a metric are at most so large, in seconds.
type histogram map[float64]float64

// histogramOf finds one without other labels in a page of /metrics.
func histogramOf(page []byte, name string) (h histogram, err error) {
	h = histogram{}
	for line := range strings.Lines(string(page)) {
		var le, n float64
		rest, ok := strings.CutPrefix(line, name+"_bucket{le=\"")
		if !ok {
			continue
		}
		bound, count, _ := strings.Cut(rest, "\"} ")
		if le, err = strconv.ParseFloat(bound, 64); err == nil {
			n, err = strconv.ParseFloat(strings.TrimSpace(count), 64)
		}
		if err != nil {
			return nil, fmt.Errorf("metric %s: %q: %w", name, line, err)
		}
		h[le] = n
	}
	if len(h) == 0 {
		return nil, fmt.Errorf("there is no histogram %s", name)
	}
	return h, nil
}

// since is what has been added to a histogram.
func (h histogram) since(before histogram) histogram {
	added := histogram{}
	for le, n := range h {
		added[le] = n - before[le]
	}
	return added
}

// quantile is the smallest bound that a share q of the values doesn't exceed.
func (h histogram) quantile(q float64) time.Duration {
	bounds := slices.Sorted(maps.Keys(h))
	for _, le := range bounds {
		if all := h[bounds[len(bounds)-1]]; all > 0 && h[le] >= q*all && !math.IsInf(le, 1) {
			return time.Duration(le * float64(time.Second))
		}
	}
	return 0
}

// freePorts finds TCP ports that nobody listens on.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close() // not before all are found, or one would be found twice
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// userHZ is the unit of times in /proc, the same on every Linux.
const userHZ = 100

// cpu is how long a process has been on a CPU, of its own and in the kernel,
// threads included.
func (p *process) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("CPU of %s: %w", p.name, err)
	}
	return parseStat(b)
}

func parseStat(stat []byte) (time.Duration, error) {
	// The name, in brackets, may hold anything.
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, errors.New("/proc/PID/stat can't be read")
	}
	fields := strings.Fields(string(stat[i+1:]))
	if len(fields) < 13 {
		return 0, errors.New("/proc/PID/stat is too short")
	}
	ticks := int64(0)
	for _, f := range fields[11:13] { // utime, stime: fields 14 and 15 of the line
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/PID/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / userHZ), nil
}

// rss is how much memory of a process is in RAM, in bytes.
func (p *process) rss() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("memory of %s: %w", p.name, err)
	}
	return parseStatus(b, "VmRSS")
}

// memory is rss, and how much of it isn't mapped from a file.
func (p *process) memory() (rss, own float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, fmt.Errorf("memory of %s: %w", p.name, err)
	}
	all, err := parseStatus(b, "VmRSS")
	if err != nil {
		return 0, 0, err
	}
	files, err := parseStatus(b, "RssFile")
	return float64(all), float64(all - files), err
}

// parseStatus finds an amount of memory in a process's status.
func parseStatus(status []byte, name string) (int64, error) {
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/PID/status has no %s", name)
}
