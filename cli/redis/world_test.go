package redis

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"vecino/api"
	"vecino/catalog"
	"vecino/cli"
	"vecino/fleet"
	"vecino/platform"
	"vecino/region"
)

var regions = []region.Code{"mad", "ams", "dfw", "gru", "jnb", "scl"}

// world is a real platform and a real fleet. Its nodes say at once that their
// copies are live, and its edges answer AUTH and PING, and nothing else.
type world struct {
	*testing.T
	state string
	port  int
	tasks sync.WaitGroup
}

func open(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &world{T: t, state: t.TempDir(), port: freePort(t)}
	f, err := fleet.Open(ctx, fleet.Config{Listen: "127.0.0.1:0", Dir: t.TempDir(), PlatformToken: "fp", NodeToken: "fn"})
	w.must(err)
	p, err := platform.Open(ctx, platform.Config{
		Listen: "127.0.0.1:0", Dir: t.TempDir(), Fleet: f.URL(), FleetToken: "fp", EdgeToken: "e", UserToken: "u",
		LoopbackPort: w.port, Regions: regions,
	})
	w.must(err)
	for _, r := range regions {
		w.must(api.NewFleet(f.URL(), "fn").RegisterNode(ctx, catalog.Node{ID: string(r) + "-1", Region: r, Proxy: "127.0.0.1:1"}))
		_, err := api.NewPlatform(p.URL(), "e").ReportEdge(ctx, api.Edge{ID: "edge-" + string(r), Region: r})
		w.must(err)
		w.tasks.Go(func() { w.node(ctx, api.NewFleet(f.URL(), "fn"), string(r)+"-1") })
		w.tasks.Go(func() { w.edge(ctx, api.NewPlatform(p.URL(), "e"), r) })
	}
	w.must(cli.World{API: p.URL(), Token: "u"}.Write(w.state))
	t.Cleanup(func() {
		cancel()
		w.tasks.Wait()
		p.Close()
		f.Close()
	})
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (w *world) node(ctx context.Context, f *api.Fleet, id string) {
	f.WatchCatalog(ctx, 0, id, func(e catalog.Event) error {
		if e.Database == nil {
			return nil
		}
		c := e.Database.CopyOn(id)
		if c == nil || c.State == catalog.Live {
			return nil
		}
		return f.Report(ctx, id, api.NodeReport{Copies: []api.CopyStatus{{
			Database: e.Database.ID, Generation: c.Generation, Role: c.Role, State: catalog.Live,
			Applied: api.Position{Epoch: 1, Seq: 1234}, Bytes: 1536, Keys: 12, Connections: 1,
		}}})
	})
}

// edge listens where the routes say, as soon as somebody serves.
func (w *world) edge(ctx context.Context, p *api.Platform, r region.Code) {
	open := map[netip.Addr]net.Listener{}
	defer func() {
		for _, l := range open {
			l.Close()
		}
	}()
	p.WatchRoutes(ctx, r, func(e api.RouteEvent) error {
		switch {
		case e.Gone != nil && open[*e.Gone] != nil:
			open[*e.Gone].Close()
			delete(open, *e.Gone)
		case e.Route != nil && open[e.Route.Address] == nil && len(e.Route.Serving) > 0:
			l, err := net.Listen("tcp", e.Route.Loopback[r])
			if err != nil {
				w.Error(err)
				return err
			}
			open[e.Route.Address] = l
			w.tasks.Go(func() { serve(l) })
		}
		return nil
	})
}

// serve answers AUTH and PING until the listener closes.
func serve(l net.Listener) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		tasks.Go(func() {
			defer conn.Close()
			in := bufio.NewReader(conn)
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				switch strings.TrimSpace(line) {
				case "AUTH":
					io.WriteString(conn, "+OK\r\n")
				case "PING":
					io.WriteString(conn, "+PONG\r\n")
				}
			}
		})
	}
}

// run runs a command line without a terminal and returns what it prints, its
// exit status last if it isn't 0.
func (w *world) run(args ...string) string { return w.normal(w.raw(args...)) }

func (w *world) raw(args ...string) string {
	var out bytes.Buffer
	cmd := Command()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetIn(strings.NewReader(""))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append(args, "--state", w.state))
	if run, err := cmd.ExecuteC(); err != nil {
		asJSON, _ := run.Flags().GetBool("json")
		fmt.Fprintf(&out, "exit %d\n", cli.Fail(&out, err, asJSON))
	}
	return out.String()
}

var (
	password = regexp.MustCompile(`[0-9a-f]{32}`)
	seconds  = regexp.MustCompile(`\b\d+\.\d\d s\b`)
	answered = regexp.MustCompile(`(?m)\b\d+ ms$`)
	jsonMS   = regexp.MustCompile(`("(?:total_ms|create_ms|mad|ams|dfw|gru|jnb|scl|age_ms)": )\d+(\.\d+)?`)
	created  = regexp.MustCompile(`"created": "[^"]+"`)
	urlOf    = regexp.MustCompile(`http://127\.0\.0\.1:\d+`)
)

// normal replaces what is different in each run.
func (w *world) normal(s string) string {
	s = password.ReplaceAllString(s, "<password>")
	s = seconds.ReplaceAllString(s, "0.00 s")
	s = answered.ReplaceAllString(s, "0 ms")
	s = jsonMS.ReplaceAllString(s, "${1}0")
	s = created.ReplaceAllString(s, `"created": "<time>"`)
	s = urlOf.ReplaceAllString(s, "<api>")
	s = strings.ReplaceAll(s, w.state, "<state>")
	return strings.ReplaceAll(s, ":"+strconv.Itoa(w.port), ":16379")
}

func TestMain(m *testing.M) {
	for _, name := range []string{cli.StateVariable, cli.APIVariable, cli.TokenVariable} {
		os.Unsetenv(name)
	}
	os.Exit(m.Run())
}
