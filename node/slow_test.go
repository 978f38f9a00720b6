package node

import (
	"fmt"
	"testing"
)

// stuck keeps a database busy in one of its turns until release is called.
func (db *database) stuck(n *Node) (release func()) {
	db.c.t.Helper()
	entered, released := make(chan struct{}), make(chan struct{})
	if !n.find(db.id).Owner.Post(func() { close(entered); <-released }) {
		db.c.t.Fatal("the loop has ended")
	}
	<-entered
	return func() { close(released) }
}

// neighbours makes two databases that share a loop.
func (c *cluster) neighbours() (one, other *database) {
	one, other = c.create("mad", "scl"), c.create("mad")
	for c.nodes["mad"].shardOf(one.id) != c.nodes["mad"].shardOf(other.id) {
		other = c.create("mad")
	}
	return one, other
}

func TestStuckDatabaseKeepsNobodyElseWaiting(t *testing.T) {
	c := newCluster(t, "mad", "scl")
	slow, other := c.neighbours()
	n := c.nodes["mad"]
	here, there, near := slow.client("mad"), slow.client("scl"), other.client("mad")
	here.want("(integer) 1", "INCR", "n")
	near.want("OK", "SET", "k", "before")
	release := slow.stuck(n)
	for i := range 3 {
		here.send("INCR", "n")
		there.send("RPUSH", "forwarded", fmt.Sprint(i))
		near.want("OK", "SET", "k", fmt.Sprint(i))
	}
	late := make(chan *client)
	go func() { late <- other.client("mad") }() // a new connection, too
	(<-late).want(`"2"`, "GET", "k")
	release()
	for i := range 3 {
		if got, want := here.receive(), fmt.Sprintf("(integer) %d", i+2); got != want {
			t.Errorf("reply %s, want %s", got, want)
		}
		if got, want := there.receive(), fmt.Sprintf("(integer) %d", i+1); got != want {
			t.Errorf("reply through the replica %s, want %s", got, want)
		}
	}
	slow.applied("scl", "mad")
	if slow.contents("scl") != slow.contents("mad") {
		t.Error("the copies differ")
	}
	want := slow.contents("mad")
	c.stop("mad")
	c.start("mad")
	slow.live()
	if slow.contents("mad") != want {
		t.Error("the journal has another order")
	}
}

// A checkpoint may hold a database's lock; the loop does without that database.
func TestLockedDatabaseKeepsNobodyElseWaiting(t *testing.T) {
	c := newCluster(t, "mad", "scl")
	slow, other := c.neighbours()
	p := c.nodes["mad"].find(slow.id)
	here, near := slow.client("mad"), other.client("mad")
	for i := range 50 {
		p.Engine.Lock()
		here.send("INCR", "n")
		near.want("OK", "SET", "k", "v")
		p.Engine.Unlock()
		if got, want := here.receive(), fmt.Sprintf("(integer) %d", i+1); got != want {
			t.Errorf("reply %s, want %s", got, want)
		}
	}
}

func TestDatabaseIsDestroyedWhileItIsStuck(t *testing.T) {
	c := newCluster(t, "mad", "scl")
	slow, other := c.neighbours()
	n := c.nodes["mad"]
	here, near := slow.client("mad"), other.client("mad")
	here.want("OK", "SET", "k", "v")
	release := slow.stuck(n)
	near.want("OK", "SET", "k", "v") // so the loop has been taken over
	n.remove(slow.id)
	near.want(`"v"`, "GET", "k")
	release()
	if _, err := here.conn.Read(make([]byte, 1)); err == nil {
		t.Error("a connection to a database that is gone lives on")
	}
	near.want(`"v"`, "GET", "k")
}

func TestNodeEndsWhileADatabaseIsStuck(t *testing.T) {
	c := newCluster(t, "mad", "scl")
	slow, other := c.neighbours()
	here, near := slow.client("mad"), other.client("mad")
	here.want("OK", "SET", "k", "v")
	release := slow.stuck(c.nodes["mad"])
	near.want("OK", "SET", "k", "v")
	here.send("SET", "k", "late")
	ended := make(chan struct{})
	go func() { defer close(ended); c.stop("mad") }()
	near.conn.Read(make([]byte, 1)) // ends: nobody waits for the stuck one but its own
	release()
	<-ended
	c.start("mad")
	slow.live()
	if got := slow.client("mad").do("GET", "k"); got != `"v"` && got != `"late"` {
		t.Errorf("after the restart it is %s", got)
	}
	other.client("mad").want(`"v"`, "GET", "k")
}

func TestDebugSleepsOnlyWhereItIsAllowed(t *testing.T) {
	c := newCluster(t, "mad", "scl")
	slow, other := c.neighbours()
	here, near := slow.client("mad"), other.client("mad")
	if got := here.do("DEBUG", "SLEEP", "0"); got != `(error) ERR DEBUG command not allowed. If the enable-debug-command option is set to "local", you can run it from a local connection, otherwise you need to set this option in the configuration file, and then restart the server.` {
		t.Errorf("DEBUG answers %s", got)
	}
	n := c.nodes["mad"]
	n.shardOf(slow.id).do(func() { n.cfg.Debug = true })
	here.send("DEBUG", "SLEEP", "0.02")
	near.want("OK", "SET", "k", "v")
	if got := here.receive(); got != "OK" {
		t.Errorf("DEBUG SLEEP answers %s", got)
	}
	here.want("(error) ERR unknown subcommand or wrong number of arguments for 'RELOAD'. Try DEBUG HELP.", "DEBUG", "RELOAD")
	here.want("(error) ERR value is not a valid float", "DEBUG", "SLEEP", "x")
}
