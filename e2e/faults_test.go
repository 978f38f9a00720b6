package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"vecino/region"
)

// Tests in this file break the shared world, so they don't run in parallel with
// anything. Each mends it before it ends.

func TestCutReplicaCatchesUpWhenHealed(t *testing.T) {
	d := shared.create(t, "den", "gru", "scl")
	for _, cut := range [][]string{{"den", "gru"}, {"den", "gru", "--one-way"}, {"gru", "den", "--one-way"}} {
		t.Run(strings.Join(cut, " "), func(t *testing.T) {
			shared.vecino(t, append([]string{"world", "cut"}, cut...)...)
			defer shared.vecino(t, "world", "heal")
			primary, away := d.connect("den"), d.connect("gru")
			for i := range 200 {
				must(t, primary.Set(d.ctx, fmt.Sprint(cut, i), i, 0).Err())
			}
			d.caughtUp("den", "scl") // which isn't cut
			eventually(t, "gru to miss the primary", func() bool { return d.info(away)["link_up"] == "0" })
			if got := d.info(away)["applied_id"]; got == d.info(primary)["applied_id"] && cut[0] == "den" {
				t.Errorf("gru is at %s although nothing gets there", got)
			}
			shared.vecino(t, "world", "heal", "den", "gru")
			d.caughtUp("den", "gru")
			last, err := away.Get(d.ctx, fmt.Sprint(cut, 199)).Result()
			must(t, err)
			equal(t, "the last write, in gru", last, "199")
		})
	}
}

func TestReplicaWithoutItsPrimarySaysSoAndStillReads(t *testing.T) {
	d := shared.create(t, "cdg", "jnb")
	c := d.connect("jnb")
	must(t, c.Set(d.ctx, "k", "v", 0).Err())
	shared.vecino(t, "world", "cut", "cdg", "jnb")
	defer shared.vecino(t, "world", "heal")
	other := d.connect("jnb")
	err := c.Set(d.ctx, "k", "w", 0).Err()
	if err == nil || !strings.HasPrefix(err.Error(), "TRYAGAIN ") && !strings.HasPrefix(err.Error(), "UNKNOWNOUTCOME ") {
		t.Errorf("a write that can't reach the primary is answered %v", err)
	}
	got, err := other.Get(d.ctx, "k").Result()
	must(t, err)
	equal(t, "read meanwhile", got, "v")
	shared.vecino(t, "world", "heal", "cdg", "jnb")
	until(t, "a write after it was healed", func() error { return c.Set(d.ctx, "k", "x", 0).Err() })
}

func TestConnectionsOfADeadNodeGoToTheNextNearest(t *testing.T) {
	d := shared.create(t, "cdg", "gru", "scl")
	must(t, d.connect("scl").Set(d.ctx, "k", "v", 0).Err())
	d.caughtUp("cdg", "gru")
	raw := d.dial("scl")
	shared.vecino(t, "world", "kill", "scl")
	defer shared.vecino(t, "world", "start", "scl")
	if _, err := raw.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
		t.Errorf("a connection to a node that died sees %v", err)
	}
	servedFrom := func(want string) func() bool {
		return func() bool {
			fresh := d.in("scl")
			defer fresh.Close()
			text, err := fresh.Info(d.ctx, "vecino").Result()
			return err == nil && fields(text)["region"] == want
		}
	}
	eventually(t, "scl to be served from gru", servedFrom("gru"))
	got, err := d.connect("scl").Get(d.ctx, "k").Result()
	must(t, err)
	equal(t, "read from there", got, "v")
	shared.vecino(t, "world", "start", "scl")
	eventually(t, "scl to serve itself again", servedFrom("scl"))
	d.caughtUp("cdg", "scl")
}

// TestNothingAnsweredIsLost kills a primary's node again and again while
// clients write to it, in its region and through a replica, and checks what
// they were told against what is there.
func TestNothingAnsweredIsLost(t *testing.T) {
	const rounds, writers = 4, 4
	d := shared.create(t, "gru", "scl")
	ctx, cancel := context.WithCancel(d.ctx)
	defer cancel()
	var tasks sync.WaitGroup
	ledgers := make([]*ledger, writers)
	for i := range ledgers {
		l := &ledger{key: fmt.Sprint("log:", i)}
		ledgers[i] = l
		client := d.in(region.Code([]string{"gru", "scl"}[i%2]))
		tasks.Go(func() { l.write(ctx, client) })
	}
	for range rounds {
		for _, l := range ledgers {
			target := l.answered.Load() + 10
			eventually(t, "answers to "+l.key, func() bool { return l.answered.Load() >= target })
		}
		shared.vecino(t, "world", "kill", "gru")
		shared.vecino(t, "world", "start", "gru")
	}
	cancel()
	tasks.Wait()
	d.caughtUp("gru", "scl")
	for _, r := range []string{"gru", "scl"} {
		c := d.connect(region.Code(r))
		for _, l := range ledgers {
			have, err := c.LRange(d.ctx, l.key, 0, -1).Result()
			must(t, err)
			l.check(t, r, have)
		}
	}
}

// ledger is what one writer was told: each entry is pushed to a list once,
// whatever becomes of it.
type ledger struct {
	key      string
	told     []bool // by entry: whether it was answered; else nobody knows
	answered atomic.Int64
}

func (l *ledger) write(ctx context.Context, client *redis.Client) {
	for ctx.Err() == nil {
		n, err := client.RPush(ctx, l.key, len(l.told)).Result()
		l.told = append(l.told, err == nil && n > 0)
		if err == nil {
			l.answered.Add(1)
		}
	}
}

// check wants every answered entry once, no other twice, and all in order.
func (l *ledger) check(t *testing.T, where string, have []string) {
	t.Helper()
	at := map[string]int{}
	for i, entry := range have {
		if before, twice := at[entry]; twice {
			t.Errorf("%s in %s: entry %s is there twice, at %d and %d", l.key, where, entry, before, i)
		}
		at[entry] = i
	}
	last := -1
	for entry, told := range l.told {
		i, there := at[fmt.Sprint(entry)]
		switch {
		case told && !there:
			t.Errorf("%s in %s: entry %d of %d was answered and is lost", l.key, where, entry, len(l.told))
		case there && i < last:
			t.Errorf("%s in %s: entry %d stands before an earlier one", l.key, where, entry)
		}
		if there {
			last = i
		}
	}
	if len(at) > len(l.told) {
		t.Errorf("%s in %s has %d entries of %d written", l.key, where, len(at), len(l.told))
	}
}
