package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vecino/region"
	"vecino/world"
)

var (
	// binary is the program under test, built by TestMain.
	binary string
	// shared is the world that most tests use.
	shared *up
)

var sharedRegions = []region.Code{"cdg", "den", "gru", "jnb", "scl"}

// patience is how long anything may take before a test gives up. It is no
// measure of anything.
const patience = 60 * time.Second

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "vecino-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"VECINO_STATE", "VECINO_API", "VECINO_TOKEN"} {
		os.Unsetenv(name)
	}
	binary = filepath.Join(dir, "vecino")
	build := exec.Command("go", "build", "-o", binary, "vecino/cmd/vecino")
	if os.Getenv("VECINO_E2E_RACE") != "" { // slow, so not by default
		os.Setenv("GORACE", "halt_on_error=1")
		build.Args = append(build.Args[:2:2], append([]string{"-race"}, build.Args[2:]...)...)
	}
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
		return 1
	}
	shared = &up{state: filepath.Join(dir, "shared")}
	defer func() {
		if err := shared.stop(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		if code != 0 {
			fmt.Fprintf(os.Stderr, "the shared world said:\n%s\n", &shared.out)
			shared.dumpLogs(os.Stderr)
		}
	}()
	if err := shared.start(sharedRegions...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// up is a running `vecino up`.
type up struct {
	state string
	out   output
	cmd   *exec.Cmd
	leash *os.File // when this end closes, up ends, so none is left behind
	exit  chan struct{}
	err   error // after exit
}

// output collects what a process prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// newUp starts a world for one test.
func newUp(t *testing.T, regions ...region.Code) *up {
	t.Helper()
	u := &up{state: t.TempDir()}
	t.Cleanup(func() {
		if err := u.stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("up said:\n%s", &u.out)
			u.dumpLogs(t.Output())
		}
	})
	choosing.Lock()
	defer choosing.Unlock()
	if err := u.start(regions...); err != nil {
		t.Fatal(err)
	}
	return u
}

// choosing is held while a new world chooses its ports, and while one is away that wants
// its own again.
var choosing sync.Mutex

// away takes the world down, and starts it again before any new one takes its ports.
func (u *up) away(t *testing.T, down func(), regions ...region.Code) {
	t.Helper()
	choosing.Lock()
	defer choosing.Unlock()
	down()
	must(t, u.start(regions...))
}

// start runs `vecino up` and returns when it is ready.
func (u *up) start(regions ...region.Code) error {
	ready := filepath.Join(u.state, "ready.json")
	args := []string{"up", "--state", u.state, "--ready-file", ready}
	if len(regions) > 0 {
		list := make([]string, len(regions))
		for i, r := range regions {
			list[i] = string(r)
		}
		args = append(args, "--regions", strings.Join(list, ","))
	}
	if err := os.MkdirAll(u.state, 0o700); err != nil {
		return err
	}
	os.Remove(ready) // of a world that was killed
	leash, held, err := os.Pipe()
	if err != nil {
		return err
	}
	defer leash.Close()
	u.leash = held
	u.cmd = exec.Command(binary, args...)
	u.cmd.Env = append(os.Environ(), world.LeashVariable+"=stdin")
	u.cmd.Stdin, u.cmd.Stdout, u.cmd.Stderr = leash, &u.out, &u.out
	if err := u.cmd.Start(); err != nil {
		return err
	}
	u.exit = make(chan struct{})
	go func() {
		u.err = u.cmd.Wait()
		close(u.exit)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		if _, err := os.Stat(ready); err == nil {
			return nil
		}
		select {
		case <-tick():
		case <-u.exit:
			return fmt.Errorf("up ended before it was ready: %v\n%s", u.err, &u.out)
		case <-ctx.Done():
			return fmt.Errorf("up isn't ready after %s:\n%s", patience, &u.out)
		}
	}
}

// tick is the pause between two looks at something.
func tick() <-chan time.Time { return time.After(5 * time.Millisecond) }

// stop ends the world as ctrl-C does. A world that has ended already is fine.
func (u *up) stop() error {
	if u.cmd == nil || u.exit == nil {
		return nil
	}
	u.cmd.Process.Signal(syscall.SIGINT)
	err := u.wait()
	if err != nil {
		err = fmt.Errorf("up ended with %w:\n%s", err, &u.out)
	}
	u.cmd = nil
	return err
}

// wait returns when up has ended.
func (u *up) wait() error {
	defer u.leash.Close()
	select {
	case <-u.exit:
		return u.err
	case <-time.After(patience):
		u.cmd.Process.Kill()
		return fmt.Errorf("no end after %s", patience)
	}
}

// kill9 ends up as a crash would.
func (u *up) kill9() {
	u.cmd.Process.Kill()
	u.wait()
	u.cmd = nil
}

// dumpLogs prints the last lines of what the processes have logged.
func (u *up) dumpLogs(w interface{ Write([]byte) (int, error) }) {
	files, _ := filepath.Glob(filepath.Join(u.state, "logs", "*.log"))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		fmt.Fprintf(w, "--- %s\n%s\n", filepath.Base(f), strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
}

// command runs the CLI on this world.
func (u *up) command(args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append(args, "--state", u.state)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// vecino runs the CLI and wants success.
func (u *up) vecino(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, err := u.command(args...)
	if err != nil {
		t.Fatalf("vecino %s: %v\n%s%s", strings.Join(args, " "), err, out, errs)
	}
	return out
}

// refuses runs the CLI and wants an error.
func (u *up) refuses(t *testing.T, args ...string) (message string) {
	t.Helper()
	out, errs, err := u.command(args...)
	if err == nil {
		t.Fatalf("vecino %s succeeds:\n%s", strings.Join(args, " "), out)
	}
	return errs
}

// ask runs a verb with --json.
func (u *up) ask(t *testing.T, answer any, args ...string) {
	t.Helper()
	out := u.vecino(t, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), answer); err != nil {
		t.Fatalf("vecino %s: %v in\n%s", strings.Join(args, " "), err, out)
	}
}

func (u *up) status(t *testing.T) (s world.Status) {
	t.Helper()
	u.ask(t, &s, "world", "status")
	return s
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	until(t, what, func() error {
		if !holds() {
			return fmt.Errorf("not yet")
		}
		return nil
	})
}

// until waits until something succeeds.
func until(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.After(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick():
		case <-deadline:
			t.Fatalf("%s: still %v after %s", what, err, patience)
		}
	}
}
