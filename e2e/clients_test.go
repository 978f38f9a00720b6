package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"vecino/region"
)

func TestGoRedisFeelsAtHome(t *testing.T) {
	t.Parallel()
	d := shared.create(t, "den", "scl")
	for r := range d.urls {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			for _, protocol := range []int{2, 3} {
				options, err := redis.ParseURL(d.urls[r])
				must(t, err)
				options.Protocol, options.ClientName = protocol, "tester"
				options.OnConnect = func(ctx context.Context, c *redis.Conn) error {
					name, err := c.ClientGetName(ctx).Result()
					if err == nil && name != "tester" {
						err = fmt.Errorf("the connection is called %q", name)
					}
					return err
				}
				c := redis.NewClient(options)
				defer c.Close()
				must(t, c.Ping(d.ctx).Err())
				key := fmt.Sprintf("{%s:%d}", r, protocol)
				commands(t, d.ctx, c, key)
			}
		})
	}
}

// commands tries one of each sort. All is done on one connection's pool, so it
// must be read back through one connection.
func commands(t *testing.T, ctx context.Context, client *redis.Client, key string) {
	t.Helper()
	c := client.Conn()
	defer c.Close()
	must(t, c.Set(ctx, key, "v", 0).Err())
	if _, err := c.Get(ctx, key+"none").Result(); !errors.Is(err, redis.Nil) {
		t.Errorf("GET of nothing: %v", err)
	}
	must(t, c.HSet(ctx, key+"h", "a", 1, "b", 2).Err())
	hash, err := c.HGetAll(ctx, key+"h").Result()
	must(t, err)
	equal(t, "hash", fmt.Sprint(hash), "map[a:1 b:2]")
	must(t, c.ZAdd(ctx, key+"z", redis.Z{Score: 2, Member: "two"}, redis.Z{Score: 1.5, Member: "one"}).Err())
	ranked, err := c.ZRangeWithScores(ctx, key+"z", 0, -1).Result()
	must(t, err)
	equal(t, "sorted set", fmt.Sprint(ranked), "[{1.5 one} {2 two}]")
	must(t, c.SAdd(ctx, key+"s", "x", "y").Err())
	members, err := c.SMembersMap(ctx, key+"s").Result()
	must(t, err)
	equal(t, "set", len(members), 2)
	must(t, c.RPush(ctx, key+"l", 1, 2, 3).Err())
	list, err := c.LRange(ctx, key+"l", 0, -1).Result()
	must(t, err)
	equal(t, "list", fmt.Sprint(list), "[1 2 3]")

	// A pipeline keeps its order, reads and writes mixed.
	var got []*redis.StringCmd
	_, err = c.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range 50 {
			p.Set(ctx, key+"p", i, 0)
			got = append(got, p.Get(ctx, key+"p"))
		}
		return nil
	})
	must(t, err)
	for i, g := range got {
		equal(t, "GET in a pipeline", g.Val(), fmt.Sprint(i))
	}

	var n *redis.IntCmd
	_, err = c.TxPipelined(ctx, func(p redis.Pipeliner) error {
		n = p.Incr(ctx, key+"n")
		p.IncrBy(ctx, key+"n", 9)
		return nil
	})
	must(t, err)
	equal(t, "INCR in MULTI", n.Val(), 1)
	value, err := c.Get(ctx, key+"n").Int()
	must(t, err)
	equal(t, "after EXEC", value, 10)

	// WATCH sees what somebody else does.
	err = client.Watch(ctx, func(tx *redis.Tx) error {
		if err := tx.Get(ctx, key+"n").Err(); err != nil {
			return err
		}
		if err := c.Set(ctx, key+"n", 99, 0).Err(); err != nil {
			return err
		}
		_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error { return p.Set(ctx, key+"n", 0, 0).Err() })
		return err
	}, key+"n")
	if !errors.Is(err, redis.TxFailedErr) {
		t.Errorf("a transaction whose key was changed: %v", err)
	}
}

func TestRedisCLIHasNoComplaints(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("redis-cli"); err != nil {
		t.Skip("there is no redis-cli here")
	}
	d := shared.create(t, "den", "gru")
	for r, url := range d.urls {
		for _, protocol := range []string{"-2", "-3"} {
			cli := func(args ...string) string {
				t.Helper()
				cmd := exec.CommandContext(d.ctx, "redis-cli", append([]string{"-u", url, "--no-auth-warning", protocol}, args...)...)
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("redis-cli %v in %s: %v\n%s", args, r, err, out)
				}
				return strings.TrimSpace(string(out))
			}
			equal(t, "PING", cli("PING"), "PONG")
			equal(t, "SET", cli("SET", "k"+protocol, "v"), "OK")
			eventually(t, "GET", func() bool { return cli("GET", "k"+protocol) == "v" })
			if out := cli("INFO"); !strings.Contains(out, "redis_version:7.") || !strings.Contains(out, "# Vecino") {
				t.Errorf("INFO in %s:\n%s", r, out)
			}
			if out := cli("COMMAND", "DOCS", "GET"); !strings.Contains(out, "summary") {
				t.Errorf("COMMAND DOCS in %s:\n%s", r, out)
			}
			if out := cli("NOSUCH"); !strings.HasPrefix(out, "ERR unknown command") {
				t.Errorf("an unknown command in %s: %s", r, out)
			}
		}
	}
}

func TestBlockingPopHearsOfAPushFarAway(t *testing.T) {
	t.Parallel()
	d := shared.create(t, "den", "gru", "scl")
	popper, pusher, primary := d.connect("scl"), d.connect("gru"), d.connect("den")
	for i := range 3 {
		popped := make(chan string, 1)
		go func() {
			got, err := popper.BLPop(d.ctx, 0, "queue").Result()
			popped <- fmt.Sprint(got, err)
		}()
		eventually(t, "the pop to wait at the primary", func() bool {
			text, err := primary.Info(d.ctx, "clients").Result()
			return err == nil && fields(text)["forwarding_sessions"] != "0"
		})
		must(t, pusher.RPush(d.ctx, "queue", i).Err())
		equal(t, "popped", <-popped, fmt.Sprintf("[queue %d] <nil>", i))
	}
}

func TestMessagesCrossTheWorld(t *testing.T) {
	t.Parallel()
	d := shared.create(t, "den", "gru", "scl")
	for _, where := range []struct{ sub, pub string }{{"scl", "den"}, {"den", "scl"}, {"gru", "scl"}, {"scl", "scl"}} {
		client := d.in(region.Code(where.sub))
		sub := client.PSubscribe(d.ctx, where.pub+"-"+where.sub+":*")
		defer sub.Close()
		must2(t)(sub.Receive(d.ctx)) // its confirmation
		publisher := d.connect(region.Code(where.pub))
		for i := range 10 {
			must(t, publisher.Publish(d.ctx, where.pub+"-"+where.sub+":news", fmt.Sprint(where.pub, i)).Err())
		}
		for i := range 10 {
			m, err := sub.ReceiveMessage(d.ctx)
			must(t, err)
			equal(t, "message from "+where.pub+" in "+where.sub, m.Channel+" "+m.Payload, fmt.Sprint(where.pub, "-", where.sub, ":news ", where.pub, i))
		}
		sub.Close()
	}
}

func TestTenantsSeeNothingOfEachOther(t *testing.T) {
	t.Parallel()
	a, b := shared.create(t, "den", "gru"), shared.create(t, "den", "gru")
	ca, cb := a.connect("gru"), b.connect("gru")
	must(t, ca.Set(a.ctx, "k", "mine", 0).Err())
	if got, err := cb.Get(b.ctx, "k").Result(); !errors.Is(err, redis.Nil) {
		t.Errorf("another database's key: %q, %v", got, err)
	}
	keys, err := cb.Keys(b.ctx, "*").Result()
	must(t, err)
	equal(t, "keys of the other", len(keys), 0)
	clients, err := cb.Do(b.ctx, "CLIENT", "LIST").Text()
	must(t, err)
	equal(t, "connections that the other sees", strings.Count(strings.TrimSpace(clients), "\n"), 0)
	// A password is checked inside a database and never picks one.
	passwordOf := func(d *database) string {
		o, err := redis.ParseURL(d.urls["gru"])
		must(t, err)
		return o.Password
	}
	if err := cb.AuthACL(b.ctx, "default", passwordOf(a)).Err(); err == nil || !strings.HasPrefix(err.Error(), "WRONGPASS") {
		t.Errorf("the neighbour's password: %v", err)
	}
}

func TestCopyMadeWhileItIsWrittenToIsWhole(t *testing.T) {
	t.Parallel()
	d := shared.create(t, "den")
	c := d.connect("den")
	write := func(from, to int) {
		for i := from; i < to; i += 100 {
			_, err := c.Pipelined(d.ctx, func(p redis.Pipeliner) error {
				for j := i; j < i+100; j++ {
					p.Set(d.ctx, fmt.Sprint("k", j), j, 0)
					p.SAdd(d.ctx, "set", j)
				}
				return nil
			})
			must(t, err)
		}
	}
	write(0, 5000)
	written := make(chan struct{})
	go func() {
		defer close(written)
		write(5000, 8000)
	}()
	d.up.vecino(t, "redis", "update", d.name, "--replica-regions", "scl,gru")
	<-written
	d.caughtUp("den", "scl", "gru")
	for _, r := range []string{"scl", "gru"} {
		copied := d.in(region.Code(r))
		size, err := copied.DBSize(d.ctx).Result()
		must(t, err)
		equal(t, "keys in "+r, size, 8001)
		members, err := copied.SMembers(d.ctx, "set").Result()
		must(t, err)
		slices.Sort(members)
		equal(t, "members in "+r, len(slices.Compact(members)), 8000)
		equal(t, "read in "+r, d.info(copied)["region"], r)
	}
	// And taken away again: its region is served from elsewhere.
	d.up.vecino(t, "redis", "update", d.name, "--replica-regions", "gru")
	eventually(t, "scl to be served from gru", func() bool {
		fresh := d.in("scl")
		defer fresh.Close()
		text, err := fresh.Info(d.ctx, "vecino").Result()
		return err == nil && fields(text)["region"] == "gru"
	})
}
