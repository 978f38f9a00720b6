package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"vecino/catalog"
	"vecino/engine"
)

// TestMoreKeysThanFitInMemory has keys sink, and does with them all that one can do
// with keys, before and after the database has slept.
func TestMoreKeysThanFitInMemory(t *testing.T) {
	for name, value := range map[string]string{"values on disk": strings.Repeat("x", 400), "values in heads": strings.Repeat("y", 60)} {
		t.Run(name, func(t *testing.T) {
			const keys = 8000
			n := small(t, 256<<10)
			cl := plain(t, n)
			for i := 0; i < keys; {
				for range 100 {
					cl.send("SET", fmt.Sprint("key", i), fmt.Sprint(i, value))
					i++
				}
				for range 100 {
					if got := cl.receive(); got != "OK" {
						t.Fatal(got)
					}
				}
			}
			p, c := n.find(1), &cluster{t: t}
			sizes := func() engine.Sizes {
				p.Engine.Lock()
				defer p.Engine.Unlock()
				return p.Engine.Sizes()
			}
			c.eventually("keys that sink", func() error {
				if s := sizes(); s.Sunk < keys/2 || s.Resident > n.keeper.target.Load() || s.Keys != keys {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
			rng := rand.New(rand.NewPCG(1, 1))
			left := map[int]bool{}
			for i := range keys {
				left[i] = true
			}
			try := func() {
				t.Helper()
				for range 500 {
					i := rng.IntN(keys)
					key, want, there := fmt.Sprint("key", i), "(nil)", 0
					if left[i] {
						want, there = fmt.Sprintf("%q", fmt.Sprint(i, value)), 1
					}
					switch rng.IntN(8) {
					case 0:
						cl.want(fmt.Sprintf("(integer) %d", there), "DEL", key)
						delete(left, i)
					case 1:
						cl.want(fmt.Sprintf("(integer) %d", there), "EXISTS", key, "none"+key)
					case 2:
						cl.want(want, "SET", key, fmt.Sprint(i, value), "GET")
						left[i] = true
					case 4:
						cl.want("OK", "SET", key, fmt.Sprint(i, value))
						left[i] = true
					case 3:
						cl.want("OK", "WATCH", key)
						cl.want("OK", "MULTI")
						cl.want("QUEUED", "GET", key)
						cl.want("1) "+want, "EXEC")
					default:
						cl.want(want, "GET", key)
					}
				}
				cl.want(fmt.Sprintf("(integer) %d", len(left)), "DBSIZE")
				seen, cursor := map[string]bool{}, "0"
				for first := true; first || cursor != "0"; first = false {
					words := strings.Split(cl.do("SCAN", cursor, "COUNT", "50"), `"`)
					cursor = words[1]
					for i := 3; i < len(words); i += 2 {
						seen[words[i]] = true
					}
				}
				if len(seen) != len(left) {
					t.Fatalf("SCAN gives %d keys of %d", len(seen), len(left))
				}
				if got := strings.Count(cl.do("KEYS", "key*"), `"`) / 2; got != len(left) {
					t.Fatalf("KEYS gives %d keys of %d", got, len(left))
				}
				if key := strings.Trim(cl.do("RANDOMKEY"), `"`); !seen[key] {
					t.Errorf("RANDOMKEY gives %q", key)
				}
			}
			try()
			before := n.slept.Load()
			c.eventually("a database that sleeps", func() error {
				n.layDown(context.Background(), p, time.Now().Add(time.Hour).UnixMilli())
				if n.slept.Load() == before {
					return errors.New("it is awake")
				}
				return nil
			})
			try()
			if s := sizes(); s.Keys != int64(len(left)) {
				t.Errorf("%d keys: %+v", len(left), s)
			}
			cl.want("OK", "FLUSHALL")
			cl.want("(nil)", "GET", "key1")
			cl.want("(integer) 0", "DBSIZE")
		})
	}
}

// A primary with sunk keys becomes a replica: all keys surface before it applies
// anything.
func TestThePrimaryMovesWhileKeysAreSunk(t *testing.T) {
	c := newCluster(t, "mad", "scl")
	db := c.place("mad", "scl")
	cl := db.client("mad")
	for i := range 300 {
		cl.want("OK", "SET", fmt.Sprint("large", i), strings.Repeat(fmt.Sprint(i), 200))
	}
	db.applied("scl", "mad")
	p := db.up("mad")
	offload(t, c.nodes["mad"], p)
	p.Engine.Lock()
	sunk := p.Engine.Keyspace().Sunk()
	p.Engine.Unlock()
	if sunk < 50 {
		t.Fatalf("only %d keys are sunk: the test doesn't test", sunk)
	}
	db.record.Copies = slices.Clone(db.record.Copies) // the nodes have the old ones
	for i := range db.record.Copies {
		db.record.Copies[i].Role = []catalog.Role{catalog.Replica, catalog.Primary}[i]
	}
	db.record.Epoch++
	db.record.Revision++
	db.publish()
	there := db.client("scl")
	for i := range 300 {
		there.want("(integer) 1", "DEL", fmt.Sprint("large", i))
		if i == 150 {
			there.want("OK", "SET", "last", "1")
			break
		}
	}
	db.applied("mad", "scl")
	p.Engine.Lock()
	sunk = p.Engine.Keyspace().Sunk()
	p.Engine.Unlock()
	if sunk != 0 || db.contents("scl") != db.contents("mad") {
		t.Errorf("%d keys are sunk, the copies are equal: %v", sunk, db.contents("scl") == db.contents("mad"))
	}
}
