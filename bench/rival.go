package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// rival is a server in a case: redis-server, or a node.
type rival struct {
	*process
	port  int
	admin string // of a node
	dir   string
	again func() (*rival, error) // starts it on the same state
}

func (r *rival) door() door { return door{addr: local(r.port)} }

// startRedis starts redis-server with its log synced every second and never
// rewritten, unless more options say otherwise.
func (b *bench) startRedis(dir string, port int, more ...string) (*rival, error) {
	return b.startRedisIn(dir, port, b.answers, more...)
}

// startRedisIn starts it and waits for what it should.
func (b *bench) startRedisIn(dir string, port int, wait func(*process, int) error, more ...string) (*rival, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	args := append([]string{"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir,
		"--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--auto-aof-rewrite-percentage", "0"}, more...)
	p, err := b.launch("redis-server", nil, "redis-server", args...)
	if err != nil {
		return nil, err
	}
	r := &rival{process: p, port: port, dir: dir}
	r.again = func() (*rival, error) {
		return b.startRedisIn(dir, port, func(*process, int) error { return nil }, more...)
	}
	return r, wait(p, port)
}

// startNode starts a node that serves one database without a header.
func (b *bench) startNode(dir string, port int, admin string, more ...string) (*rival, error) {
	r, err := b.launchNode(dir, port, admin, more...)
	if err != nil {
		return nil, err
	}
	return r, b.answers(r.process, port)
}

// launchNode is startNode without waiting.
func (b *bench) launchNode(dir string, port int, admin string, more ...string) (*rival, error) {
	args := append([]string{"node", "--standalone", "--port", strconv.Itoa(port), "--state", dir, "--admin", admin, "--pprof", "--log-level", "WARN"}, more...)
	p, err := b.launch("vecino-standalone", nil, b.vecino, args...)
	if err != nil {
		return nil, err
	}
	r := &rival{process: p, port: port, admin: admin, dir: dir}
	r.again = func() (*rival, error) { return b.launchNode(dir, port, admin, more...) }
	return r, nil
}

// startBoth starts a redis-server and a node, empty.
func (b *bench) startBoth(name string, redisMore, nodeMore []string) (redis, node *rival, err error) {
	dir := filepath.Join(b.dir, name)
	if err := os.RemoveAll(dir); err != nil {
		return nil, nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, nil, err
	}
	if redis, err = b.startRedis(filepath.Join(dir, "redis"), ports[0], redisMore...); err != nil {
		return nil, nil, err
	}
	if node, err = b.startNode(filepath.Join(dir, "vecino"), ports[1], local(ports[2]), nodeMore...); err != nil {
		b.stop(redis.process)
		return nil, nil, err
	}
	return redis, node, nil
}

// end stops servers and removes what they wrote.
func (b *bench) end(servers ...*rival) {
	for _, s := range servers {
		if s != nil {
			b.stop(s.process)
			os.RemoveAll(s.dir)
		}
	}
}

// kill ends a server as a power cut ends a process: kill -9.
func (b *bench) kill(p *process) {
	p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.ended
	b.stop(p)
}

// answers waits for PONG.
func (b *bench) answers(p *process, port int) error {
	return b.until(p, "answer to PING", func(ctx context.Context) error {
		c, err := dial(ctx, local(port))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.do("PING")
		return err
	})
}

// ask sends one command on a connection of its own.
func (b *bench) ask(to door, args ...string) (string, error) {
	c, err := to.open(b.ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	v, err := c.do(args...)
	if err != nil {
		return "", err
	}
	return v.Text(), nil
}

// info is what INFO says of a server.
func (b *bench) info(to door) (map[string]string, error) {
	text, err := b.ask(to, "INFO", "everything")
	return infoFields(text), err
}

// number finds the first of some fields of INFO that there is.
func number(fields map[string]string, names ...string) (float64, bool) {
	for _, name := range names {
		if n, err := strconv.ParseFloat(strings.TrimSuffix(fields[name], "%"), 64); err == nil {
			return n, true
		}
	}
	return 0, false
}

// settle has a server give back the memory it doesn't need.
func (b *bench) settle(r *rival) error {
	if r.admin == "" {
		_, err := b.ask(r.door(), "MEMORY", "PURGE")
		time.Sleep(pick(b, time.Second, 200*time.Millisecond))
		return err
	}
	return b.collect(r.admin)
}

// collect has a node collect its garbage, and waits until what was freed has
// gone back to the system.
func (b *bench) collect(admin string) error {
	for range 2 { // what a finalizer or a pool held is free at the second
		if _, err := get(b.ctx, "http://"+admin+"/debug/pprof/heap?gc=1"); err != nil {
			return err
		}
	}
	time.Sleep(pick(b, 5*time.Second, time.Second))
	return nil
}

// notAvailable is why a section can't run with this program. It is no failure
// of the others.
type notAvailable string

func (n notAvailable) Error() string { return "not available: " + string(n) }

var flagName = regexp.MustCompile(`(?m)^\s+(?:-\w, )?--([a-z-]+)`)

// nodeFlags are the flags that the node of the program has.
func (b *bench) nodeFlags() (map[string]bool, error) {
	if b.flags == nil {
		out, err := exec.CommandContext(b.ctx, b.vecino, "node", "--help").Output()
		if err != nil {
			return nil, fmt.Errorf("ask %s what a node can do: %w", b.vecino, err)
		}
		b.flags = parseFlags(string(out))
	}
	return b.flags, nil
}

func parseFlags(help string) map[string]bool {
	flags := map[string]bool{}
	for _, m := range flagName.FindAllStringSubmatch(help, -1) {
		flags[m[1]] = true
	}
	return flags
}

// needsFlags is an error if the node lacks one of some flags.
func (b *bench) needsFlags(names ...string) error {
	have, err := b.nodeFlags()
	if err != nil {
		return err
	}
	for _, name := range names {
		if !have[name] {
			return notAvailable(fmt.Sprintf("this program's `vecino node` has no --%s", name))
		}
	}
	return nil
}

// ifHas leaves out flags that the node doesn't have.
func (b *bench) ifHas(pairs ...string) (args []string) {
	have, err := b.nodeFlags()
	if err != nil {
		return nil
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if have[pairs[i]] {
			args = append(args, "--"+pairs[i], pairs[i+1])
		}
	}
	return args
}

// neverCheckpoint keeps a node from writing checkpoints while it is measured.
func (b *bench) neverCheckpoint() []string {
	return b.ifHas("checkpoint-bytes", strconv.Itoa(1<<40))
}
