package redis

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/creack/pty"

	"vecino/cli"
)

// terminal is a person at a terminal: waits for words on the screen, and types.
type terminal struct {
	*testing.T
	far  *os.File
	near *os.File
	seen bytes.Buffer
	read chan []byte // what comes on the screen; closed at the end
	done chan error
}

// endOfText is what comes on the screen when a command has ended.
const endOfText = "\x04"

// sit runs a command line at a terminal.
func (w *world) sit(args ...string) *terminal {
	w.Helper()
	far, near, err := pty.Open()
	w.must(err)
	w.must(pty.Setsize(far, &pty.Winsize{Rows: 40, Cols: 120}))
	t := &terminal{T: w.T, far: far, near: near, read: make(chan []byte), done: make(chan error, 1)}
	cmd := Command()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetIn(near)
	cmd.SetOut(near)
	cmd.SetErr(near)
	cmd.SetArgs(append(args, "--state", w.state))
	go func() {
		err := cmd.Execute()
		// Not closed: who read keys for the command may not have noticed its end yet.
		io.WriteString(near, endOfText)
		t.done <- err
	}()
	go func() {
		defer close(t.read)
		for {
			buf := make([]byte, 4096)
			n, err := far.Read(buf)
			if err != nil {
				return // the test is over
			}
			text, ended := bytes.CutSuffix(buf[:n], []byte(endOfText))
			t.read <- text
			if ended {
				return
			}
		}
	}()
	w.Cleanup(func() {
		far.Close() // which ends a command that is still running
		for range t.read {
		}
	})
	return t
}

// expect waits until words appear behind what was expected before.
func (t *terminal) expect(words string) *terminal {
	t.Helper()
	hang := time.After(20 * time.Second)
	for {
		text := ansi.Strip(t.seen.String())
		if i := strings.Index(text, words); i >= 0 {
			rest := text[i+len(words):]
			t.seen.Reset()
			t.seen.WriteString(rest)
			return t
		}
		select {
		case b, ok := <-t.read:
			if !ok {
				t.Fatalf("the screen ended before %q:\n%s", words, ansi.Strip(t.seen.String()))
			}
			t.seen.Write(b)
		case <-hang:
			t.Fatalf("%q doesn't come:\n%s", words, ansi.Strip(t.seen.String()))
		}
	}
}

func (t *terminal) enter(keys string) *terminal {
	t.Helper()
	if _, err := io.WriteString(t.far, keys); err != nil {
		t.Fatal(err)
	}
	return t
}

// end reads to the end and returns what the command did.
func (t *terminal) end() error {
	t.Helper()
	for b := range t.read {
		t.seen.Write(b)
	}
	return <-t.done
}

const (
	enter = "\r"
	down  = "\x1b[B"
	space = " "
	ctrlC = "\x03"
)

func TestCreateAsksWhatTheArticleShowsInThatOrder(t *testing.T) {
	w := open(t)
	p := w.sit("create")
	p.expect("automatically selected personal organization: Personal")
	p.expect("Choose a Redis database name (leave blank to generate one):").enter("redis-for-lovers" + enter)
	p.expect("? Choose a Redis database name (leave blank to generate one): redis-for-lovers")
	p.expect("Choose a primary region:").expect("Madrid, Spain (mad)").enter(down + down + down + enter) // Amsterdam, Dallas, Johannesburg, Madrid
	p.expect("? Choose a primary region: Madrid, Spain (mad)")
	p.expect("Would you like to enable eviction?").enter("y")
	p.expect("? Would you like to enable eviction? Yes")
	p.expect("Optionally, choose one or more replica regions:").expect("Amsterdam, Netherlands (ams)")
	p.enter(space + down + space + down + space + enter)
	p.expect("? Optionally, choose one or more replica regions: Amsterdam, Netherlands (ams), Dallas, Texas (US) (dfw), Johannesburg, South Africa (jnb)")
	p.expect("Select a Vecino Redis plan").expect("Free: 100 MB").enter(enter)
	p.expect("? Select a Vecino Redis plan: Free: 100 MB")
	p.expect("Your Vecino Redis database redis-for-lovers is ready in ").expect(" s.")
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	out := w.run("list")
	if want := "redis-for-lovers  personal  Free  Enabled   mad             ams,dfw,jnb"; !strings.Contains(out, want) {
		t.Errorf("list is\n%swant\n%s", out, want)
	}
}

func TestReplicasAreFilteredByTyping(t *testing.T) {
	w := open(t)
	p := w.sit("create", "--name", "a", "--region", "mad", "--disable-eviction", "--plan", "free")
	p.expect("Optionally, choose one or more replica regions:").expect("São Paulo (gru)").enter("/")
	p.expect("/").enter("Jo") // what is typed shows in place of the title
	p.expect("Jo").expect("Johannesburg, South Africa (jnb)").enter(enter)
	p.expect("Optionally, choose one or more replica regions:").enter(space + enter)
	p.expect("? Optionally, choose one or more replica regions: Johannesburg, South Africa (jnb)")
	p.expect("is ready in")
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
}

func TestUpdateStartsFromThePresentReplicas(t *testing.T) {
	w := open(t)
	w.raw("create", "--name", "a", "--region", "mad", "--replica-regions", "ams,dfw")
	p := w.sit("update", "a")
	p.expect("Choose replica regions, or unselect to remove replica regions:").expect("Amsterdam").enter(space + down + down + space + enter)
	p.expect("? Choose replica regions, or unselect to remove replica regions: Dallas, Texas (US) (dfw), Johannesburg, South Africa (jnb)")
	p.expect("Select a Vecino Redis plan").expect("Fixed 1GB").enter(enter)
	p.expect("? Select a Vecino Redis plan: Free: 100 MB")
	p.expect("Would you like to enable eviction?").enter(enter)
	p.expect("- Amsterdam, Netherlands (ams) removed")
	p.expect("+ Johannesburg, South Africa (jnb) live after")
	p.expect("Your Vecino Redis database a was updated.")
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	if out := w.run("list"); !strings.Contains(out, "Disabled  mad             dfw,jnb") {
		t.Errorf("list is\n%s", out)
	}
}

func TestLeavingAQuestionChangesNothing(t *testing.T) {
	w := open(t)
	p := w.sit("create", "--region", "mad")
	p.expect("Choose a Redis database name").enter(ctrlC)
	if err := p.end(); !errors.Is(err, cli.ErrAborted) {
		t.Errorf("error is %v", err)
	}
	p = w.sit("create", "--region", "xyz")
	if err := p.end(); err == nil || strings.Contains(p.seen.String(), "Choose") {
		t.Errorf("an unknown region was not refused before the first question: %v", err)
	}

	w.raw("create", "--name", "a", "--region", "mad")
	p = w.sit("destroy", "a")
	p.expect("Destroying a Redis database is not reversible.").expect("Destroy Redis database a?").enter(enter)
	if err := p.end(); !errors.Is(err, cli.ErrAborted) {
		t.Errorf("error is %v", err)
	}
	if out := w.run("list"); !slices.Contains(strings.Fields(out), "a") {
		t.Errorf("list is\n%s", out)
	}
	p = w.sit("destroy")
	p.expect("Select a database to destroy:").expect("a (mad) personal").enter(enter)
	p.expect("Destroy Redis database a?").enter("y")
	p.expect("Your Redis database a was destroyed.")
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
}
