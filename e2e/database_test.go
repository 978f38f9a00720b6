package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"vecino/api"
	"vecino/region"
	"vecino/resp"
)

// database is one that a test has created.
type database struct {
	t    *testing.T
	ctx  context.Context
	up   *up
	name string
	urls map[region.Code]string
}

// create makes a database with the CLI.
func (u *up) create(t *testing.T, primary region.Code, replicas ...region.Code) *database {
	t.Helper()
	args := []string{"redis", "create", "--region", string(primary)}
	if len(replicas) > 0 {
		args = append(args, "--replica-regions", codes(replicas))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	d := &database{t: t, ctx: ctx, up: u}
	var made api.Database
	u.ask(t, &made, args...)
	d.name = made.Name
	d.learn(made)
	return d
}

func (d *database) learn(made api.Database) {
	d.urls = map[region.Code]string{}
	for _, e := range made.Endpoints {
		d.urls[e.Region] = e.URL
	}
}

func codes(list []region.Code) string {
	words := make([]string, len(list))
	for i, r := range list {
		words[i] = string(r)
	}
	return strings.Join(words, ",")
}

// in is a client in a region.
func (d *database) in(r region.Code) *redis.Client {
	d.t.Helper()
	options, err := redis.ParseURL(d.urls[r])
	if err != nil {
		d.t.Fatalf("URL in %s: %v", r, err)
	}
	options.MaxRetries = -1 // each command is sent once, so that what is counted is what was asked
	options.ReadTimeout = patience
	c := redis.NewClient(options)
	d.t.Cleanup(func() { c.Close() })
	return c
}

// connect is one connection in a region.
func (d *database) connect(r region.Code) *redis.Conn {
	d.t.Helper()
	c := d.in(r).Conn()
	d.t.Cleanup(func() { c.Close() })
	must(d.t, c.Ping(d.ctx).Err())
	return c
}

// dial opens a bare connection that has been let in.
func (d *database) dial(r region.Code) net.Conn {
	d.t.Helper()
	options, err := redis.ParseURL(d.urls[r])
	must(d.t, err)
	var dialer net.Dialer
	conn, err := dialer.DialContext(d.ctx, "tcp", options.Addr)
	must(d.t, err)
	d.t.Cleanup(func() { conn.Close() })
	must(d.t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = conn.Write(resp.AppendCommand(nil, "AUTH", options.Password))
	must(d.t, err)
	ok := make([]byte, len("+OK\r\n"))
	_, err = io.ReadFull(conn, ok)
	must(d.t, err)
	equal(d.t, "AUTH", string(ok), "+OK\r\n")
	return conn
}

type asker interface {
	Info(ctx context.Context, sections ...string) *redis.StringCmd
}

// info is INFO vecino and INFO server of a copy.
func (d *database) info(c asker) map[string]string {
	d.t.Helper()
	text, err := c.Info(d.ctx, "server", "vecino").Result()
	must(d.t, err)
	return fields(text)
}

func fields(info string) map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			values[name] = value
		}
	}
	return values
}

// counts is what INFO vecino counts.
type counts struct {
	LocalReads, ForwardedReads, ForwardedWrites, Held, ReleasedLate int
}

func (d *database) counts(c asker) (n counts) {
	d.t.Helper()
	info := d.info(c)
	for name, into := range map[string]*int{
		"local_reads": &n.LocalReads, "forwarded_reads": &n.ForwardedReads, "forwarded_writes": &n.ForwardedWrites,
		"held": &n.Held, "released_late": &n.ReleasedLate,
	} {
		if _, err := fmt.Sscan(info[name], into); err != nil {
			d.t.Fatalf("INFO says %s:%q", name, info[name])
		}
	}
	return n
}

func (n counts) minus(m counts) counts {
	return counts{
		n.LocalReads - m.LocalReads, n.ForwardedReads - m.ForwardedReads, n.ForwardedWrites - m.ForwardedWrites,
		n.Held - m.Held, n.ReleasedLate - m.ReleasedLate,
	}
}

// caughtUp waits until all regions have applied what the primary has.
func (d *database) caughtUp(primary region.Code, replicas ...region.Code) {
	d.t.Helper()
	p := d.in(primary)
	for _, r := range replicas {
		until(d.t, string(r)+" to catch up", func() error {
			c := d.in(r) // each time a new connection: an old one may go elsewhere, and stays there
			defer c.Close()
			there, err := c.Info(d.ctx, "vecino").Result()
			if err != nil {
				return err
			}
			here, want := fields(there), d.info(p)["applied_id"]
			if here["region"] != string(r) || here["live"] != "1" || here["applied_id"] != want {
				return fmt.Errorf("region %s, live %s, at %s of %s", here["region"], here["live"], here["applied_id"], want)
			}
			return nil
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}
