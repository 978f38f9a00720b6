package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"vecino/cli"
	"vecino/region"
	"vecino/world"
)

// upCommand runs a whole world on this machine.
func upCommand() *cobra.Command {
	var (
		c         world.Config
		regions   []string
		readyFile string
	)
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run a whole world on this machine",
		Long: `Run a whole world on this machine: fleet, platform, and in each region a node
and an edge, every one a process of its own. The distances between the regions
are simulated; see vecino world.

Databases and all else are kept in the state directory, over ctrl-C, crashes and
restarts, and keep their addresses.`,
		Example: `  vecino up
  vecino up --regions cdg,den,gru,jnb,scl --state /tmp/recipes`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringSliceVar(&regions, "regions", nil, "codes of the regions of a new world, or to add to one (default "+codes(world.DefaultRegions)+")")
	f.StringVar(&c.State, "state", stateHome(), "directory for everything that survives a restart (default also from $"+cli.StateVariable+")")
	f.IntVar(&c.BasePort, "base-port", 0, "first port of a new world (default: free ones are chosen)")
	f.StringVar(&readyFile, "ready-file", "", "file that is written when all is ready, and removed at the end")
	f.TextVar(&c.LogLevel, "log-level", c.LogLevel, "least level that the processes log: DEBUG, INFO, WARN or ERROR")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, r := range regions {
			c.Regions = append(c.Regions, region.Code(strings.ToLower(r)))
		}
		p := newPen(cmd.OutOrStdout())
		if readyFile != "" {
			os.Remove(readyFile)
			defer os.Remove(readyFile)
		}
		return up(cmd.Context(), c, p, readyFile)
	}
	return cmd
}

func up(ctx context.Context, c world.Config, p *pen, readyFile string) error {
	began := time.Now()
	news := &newsreader{pen: p}
	c.Events = news.tell
	p.line("Starting a world in %s", c.State)
	w, err := world.Open(ctx, c)
	if err != nil {
		if ctx.Err() != nil {
			return nil // ctrl-C while it started
		}
		return err
	}
	defer w.Close()
	took := time.Since(began)
	s := w.Status()
	p.line("")
	p.processes(s)
	p.line("  API          %s", s.API)
	p.line("  Databases    on port %d of addresses from 127.100.0.0 up, one for each region and database", s.DataPort)
	p.line("  Round trips  %s", someRoundTrips(s))
	p.line("  Logs         %s", w.State()+"/logs")
	p.line("")
	p.line("%s Next:", p.strong.Render("Ready in "+seconds(took)+"."))
	flag := stateFlag(w.State())
	p.line("  vecino redis create%s", flag)
	p.line("  vecino world status%s", flag)
	p.line("%s", p.dim.Render("Ctrl-C ends the world and keeps what is in it."))
	news.up()
	if readyFile != "" {
		if err := writeReady(readyFile, s); err != nil {
			return err
		}
	}
	<-ctx.Done()
	p.line("\nEnding the world. `vecino up%s` brings it back as it is.", flag)
	return w.Close()
}

// stateFlag is the flag that other verbs need to find a world.
func stateFlag(dir string) string {
	if dir == stateHome() {
		return ""
	}
	return " --state " + dir
}

// writeReady writes, at once, what a script may want to know of a world.
func writeReady(file string, s world.Status) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the ready file: %w", err)
	}
	return os.Rename(file+".new", file)
}

// newsreader prints what happens to a world. While it starts, a region counts
// as news only as a whole.
type newsreader struct {
	pen *pen
	mu  struct {
		sync.Mutex
		started bool
		half    map[string]time.Duration // regions of which one process is up
	}
}

// up says that the world has started.
func (n *newsreader) up() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.started = true
}

func (n *newsreader) tell(e world.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.mu.started:
		n.pen.line("%s  %s", n.pen.dim.Render(time.Now().Format(time.TimeOnly)), e)
	case e.What == world.Ready:
		code := strings.TrimSuffix(strings.TrimPrefix(e.Process, "edge-"), "-1")
		where, ok := region.Lookup(region.Code(code))
		if !ok {
			n.pen.line("  %-34s %s", e.Process, seconds(e.Took))
			return
		}
		if n.mu.half == nil {
			n.mu.half = map[string]time.Duration{}
		}
		first, half := n.mu.half[code]
		if n.mu.half[code] = e.Took; half {
			n.pen.line("  %-34s %s", where.Title(), seconds(max(first, e.Took)))
		}
	default:
		n.pen.line("  %s", e)
	}
}

func codes(list []region.Code) string {
	words := make([]string, len(list))
	for i, c := range list {
		words[i] = string(c)
	}
	return strings.Join(words, ",")
}
