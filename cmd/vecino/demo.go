package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"vecino/api"
	"vecino/cli"
	"vecino/region"
	"vecino/world"
)

// The story's regions: a primary in Paris, copies far away.
const (
	storyPrimary = region.Code("cdg")
	storyWriter  = region.Code("scl")
)

var storyReplicas = []region.Code{"den", "gru", "jnb", "scl"}

// demoCommand tells the story of Isa's recipe, on a world of its own.
func demoCommand() *cobra.Command {
	var (
		state   string
		noPause bool
	)
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch how a write travels the world and comes back to its author",
		Long: `Watch how a write travels the world and comes back to its author: an HTML cache
with its primary in Paris and copies in Denver, São Paulo, Johannesburg and
Santiago, written to from Santiago. What is shown is measured while you watch.

It starts a world of its own and takes it away again; with --state it uses one
that runs.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&state, "state", "", "use the world that runs on this state")
	cmd.Flags().BoolVar(&noPause, "no-pause", false, "don't leave time to read")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		t := &teller{pen: newPen(cmd.OutOrStdout()), pause: !noPause}
		err := t.tell(cmd.Context(), state)
		if cmd.Context().Err() != nil {
			return nil // ctrl-C
		}
		return err
	}
	return cmd
}

// teller tells the story.
type teller struct {
	*pen
	pause bool
	began time.Time

	platform *api.Platform
	control  *world.Client
	clients  map[region.Code]*redis.Client
}

// say prints a paragraph and leaves time to read it.
func (t *teller) say(ctx context.Context, text string) {
	t.line("%s", text)
	if !t.pause {
		return
	}
	select {
	case <-time.After(time.Duration(len(text)) * 14 * time.Millisecond):
	case <-ctx.Done():
	}
}

func (t *teller) tell(ctx context.Context, state string) (err error) {
	t.began = time.Now()
	if state == "" {
		if state, err = os.MkdirTemp("", "vecino-demo-"); err != nil {
			return err
		}
		defer os.RemoveAll(state)
		t.line("Starting a small world: Paris, Denver, São Paulo, Johannesburg, Santiago …")
		w, err := world.Open(ctx, world.Config{State: state, Regions: append([]region.Code{storyPrimary}, storyReplicas...)})
		if err != nil {
			return err
		}
		defer w.Close()
	}
	if t.control, err = world.Connect(state); err != nil {
		return err
	}
	s := &cli.Session{State: state, Out: io.Discard, Log: io.Discard}
	if t.platform, err = s.Platform(); err != nil {
		return err
	}
	database, undo, err := t.create(ctx)
	if err != nil {
		return s.Explain(err)
	}
	defer undo()
	defer t.control.Order(context.WithoutCancel(ctx), "lag", world.Order{A: storyWriter, MS: new(float64)})
	t.clients = map[region.Code]*redis.Client{}
	for _, e := range database.Endpoints {
		options, err := redis.ParseURL(e.URL)
		if err != nil {
			return err
		}
		t.clients[e.Region] = redis.NewClient(options)
		defer t.clients[e.Region].Close()
	}
	if err := t.goodDay(ctx); err != nil {
		return err
	}
	if err := t.badDay(ctx); err != nil {
		return err
	}
	t.line("")
	t.say(ctx, "Two ways, one promise: who wrote it reads it back. Others may see it a moment\nlater.")
	t.line("%s", t.dim.Render("That took "+seconds(time.Since(t.began))+" in all. `vecino up` starts a world to try things in."))
	return nil
}

// create makes the story's database; undo destroys it.
func (t *teller) create(ctx context.Context) (d api.Database, undo func(), err error) {
	began := time.Now()
	d, err = t.platform.CreateDatabase(ctx, "", api.CreateDatabase{PrimaryRegion: storyPrimary, ReplicaRegions: storyReplicas})
	if err != nil {
		return d, nil, err
	}
	undo = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cli.ReadyTimeout)
		defer cancel()
		t.platform.DestroyDatabase(ctx, d.Organization, d.Name)
	}
	for live := 0; live < 1+len(storyReplicas); {
		if err := ctx.Err(); err != nil {
			undo()
			return d, nil, err
		}
		if d, err = t.platform.Database(ctx, d.Organization, d.Name); err != nil {
			return d, undo, err
		}
		live = 0
		for _, e := range d.Endpoints {
			if e.State == "live" {
				live++
			}
		}
	}
	if _, err := cli.WaitReady(ctx, d.Endpoints, began); err != nil {
		undo()
		return d, nil, err
	}
	t.line("Created %s: primary in Paris, copies in four regions. Ready in %s.\n", t.strong.Render(d.Name), seconds(time.Since(began)))
	return d, undo, nil
}

const (
	recipeKey = "page:/recetas/humitas-chilenas"
	spicy     = "<h1>Humitas Chilenas</h1><p>Choclo, albahaca, y New Mexico green chiles.</p>"
	mild      = "<h1>Humitas Chilenas</h1><p>Choclo, albahaca, cebolla. Nada más.</p>"
	milder    = "<h1>Humitas Chilenas</h1><p>Choclo, albahaca. La cebolla, en pebre.</p>"
)

// name is a region as the story calls it: "Santiago".
func place(r region.Code) string {
	known, _ := region.Lookup(r)
	city, _, _ := strings.Cut(known.Name, ",")
	return city
}

// goodDay shows a write on a line as it should be.
func (t *teller) goodDay(ctx context.Context) error {
	trip := region.RTT(storyWriter, storyPrimary)
	t.say(ctx, t.strong.Render("1. A clear day on the internet"))
	t.say(ctx, fmt.Sprintf("A cache of recipe pages. Isa, who edits them in Santiago, finds chiles in the\n"+
		"humitas, and saves the page without. The primary is in Paris: %s there and\nback.", millis(ms(trip))))
	isa, err := t.author(ctx)
	if err != nil {
		return err
	}
	defer isa.Close()
	if err := isa.Set(ctx, recipeKey, spicy, 0).Err(); err != nil {
		return err
	}
	if err := t.everywhere(ctx, spicy); err != nil {
		return err
	}
	before, err := counters(ctx, isa)
	if err != nil {
		return err
	}
	seen, wait := t.watch(ctx, mild)
	start := time.Now()
	if err := isa.Set(ctx, recipeKey, mild, 0).Err(); err != nil {
		return err
	}
	set := time.Since(start)
	start2 := time.Now()
	page, err := isa.Get(ctx, recipeKey).Result()
	get := time.Since(start2)
	if err != nil {
		return err
	}
	after, err := counters(ctx, isa)
	if err != nil {
		return err
	}
	if err := wait(); err != nil {
		return err
	}
	rows := [][]string{
		{"Isa's SET", millis(ms(set)), millis(ms(trip)), "to Paris and back: " + where(before, after, true)},
		{"Isa's GET", millis(ms(get)), "0 ms", "next door: " + where(before, after, false) + ", " + t.fresh(page == mild)},
	}
	for _, r := range storyReplicas {
		if r != storyWriter {
			late := seen[r].Sub(seen[storyPrimary])
			rows = append(rows, []string{"in " + place(r), "+" + millis(ms(late)), "+" + millis(ms(region.OneWay(storyPrimary, r))), "after Paris, one way"})
		}
	}
	t.table([]string{"", "took", "expected", "how"}, rows)
	return nil
}

// badDay shows a write while replication to its author lags.
func (t *teller) badDay(ctx context.Context) error {
	const lag = 900.0
	trip := region.RTT(storyWriter, storyPrimary)
	t.line("")
	t.say(ctx, t.strong.Render("2. A bad line"))
	t.say(ctx, fmt.Sprintf("Now what is replicated to Santiago comes %.0f ms late. Isa takes the onions out,\n"+
		"too. Her SET can't wait for ever: after 500 ms it returns. The copy next door\n"+
		"still has onions; but her connection knows what it wrote, so its GET goes to\nParis. A neighbour's needn't.", lag))
	by := lag
	if _, err := t.control.Order(ctx, "lag", world.Order{A: storyWriter, MS: &by}); err != nil {
		return err
	}
	isa, err := t.author(ctx)
	if err != nil {
		return err
	}
	defer isa.Close()
	other, err := t.author(ctx)
	if err != nil {
		return err
	}
	defer other.Close()
	before, err := counters(ctx, isa)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := isa.Set(ctx, recipeKey, milder, 0).Err(); err != nil {
		return err
	}
	set := time.Since(start)
	written, err := counters(ctx, isa)
	if err != nil {
		return err
	}
	start = time.Now()
	page, err := isa.Get(ctx, recipeKey).Result()
	get := time.Since(start)
	if err != nil {
		return err
	}
	read, err := counters(ctx, isa)
	if err != nil {
		return err
	}
	start = time.Now()
	old, err := other.Get(ctx, recipeKey).Result()
	get2 := time.Since(start)
	if err != nil {
		return err
	}
	last, err := counters(ctx, isa)
	if err != nil {
		return err
	}
	t.table([]string{"", "took", "expected", "how"}, [][]string{
		{"Isa's SET", millis(ms(set)), "500 ms", where(before, written, true)},
		{"Isa's GET", millis(ms(get)), millis(ms(trip)), "to Paris and back: " + where(written, read, false) + ", " + t.fresh(page == milder)},
		{"a neighbour's GET", millis(ms(get2)), "0 ms", "next door: " + where(read, last, false) + ", " + t.fresh(old == milder)},
	})
	return nil
}

// author opens one connection in the writer's region and keeps it.
func (t *teller) author(ctx context.Context) (*redis.Conn, error) {
	conn := t.clients[storyWriter].Conn()
	if err := conn.Ping(ctx).Err(); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (t *teller) fresh(yes bool) string {
	if yes {
		return t.strong.Render("fresh")
	}
	return t.bad.Render("old")
}

// everywhere waits until all regions have a page.
func (t *teller) everywhere(ctx context.Context, page string) error {
	_, wait := t.watch(ctx, page)
	return wait()
}

// watch notes when a page is seen in each region; wait returns when it was
// seen in all.
func (t *teller) watch(ctx context.Context, page string) (seen map[region.Code]time.Time, wait func() error) {
	ctx, cancel := context.WithTimeout(ctx, cli.ReadyTimeout)
	seen = map[region.Code]time.Time{}
	var (
		mu    sync.Mutex
		errs  []error
		tasks sync.WaitGroup
	)
	for r, client := range t.clients {
		tasks.Go(func() {
			for {
				got, err := client.Get(ctx, recipeKey).Result()
				if errors.Is(err, redis.Nil) {
					err = nil
				}
				if err == nil && got != page {
					continue
				}
				mu.Lock()
				defer mu.Unlock()
				if seen[r] = time.Now(); err != nil {
					errs = append(errs, fmt.Errorf("read in %s: %w", r, err))
				}
				return
			}
		})
	}
	return seen, func() error {
		defer cancel()
		tasks.Wait()
		return errors.Join(errs...)
	}
}

// counters reads what INFO counts about a copy, by name.
func counters(ctx context.Context, conn *redis.Conn) (map[string]int, error) {
	text, err := conn.Info(ctx, "vecino").Result()
	if err != nil {
		return nil, err
	}
	values := map[string]int{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			if n, err := strconv.Atoi(value); err == nil {
				values[name] = n
			}
		}
	}
	return values, nil
}

// where says what became of a command, by what was counted meanwhile.
func where(before, after map[string]int, write bool) string {
	grew := func(name string) bool { return after[name] > before[name] }
	switch {
	case write && grew("released_late"):
		return "forwarded, held, released late"
	case write && grew("held"):
		return "forwarded, held for its entry"
	case write && grew("forwarded_writes"):
		return "forwarded, not held"
	case !write && grew("forwarded_reads"):
		return "forwarded"
	case !write && grew("local_reads"):
		return "local"
	}
	return "?"
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
