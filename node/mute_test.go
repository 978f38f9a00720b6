package node

import (
	"bytes"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"vecino/internal/transcript"
)

// TestRepliesThatAreNotWanted sends pipelines with CLIENT REPLY and compares every byte
// that comes back, on the primary, on a replica that forwards, and on a redis-server.
func TestRepliesThatAreNotWanted(t *testing.T) {
	type place struct {
		name string
		dial func() (net.Conn, error)
	}
	db := newCluster(t, "mad", "scl").place("mad", "scl")
	places := []place{
		{"primary", func() (net.Conn, error) { return db.dial("mad") }},
		{"replica", func() (net.Conn, error) { return db.dial("scl") }},
	}
	if _, err := exec.LookPath("redis-server"); err == nil {
		redis := transcript.StartRedis(t)
		places = append(places, place{"redis-server", func() (net.Conn, error) { return net.Dial("tcp", redis.Addr) }})
	}
	for _, c := range []struct{ name, send, want string }{
		{"off", "CLIENT REPLY OFF|SET k v|GET k|NONSENSE|CLIENT REPLY ON|GET k", "+OK|$1|v"},
		{"skip", "CLIENT REPLY SKIP|SET k w|GET k", "$1|w"},
		{"skip and again", "CLIENT REPLY SKIP|CLIENT REPLY SKIP|PING 1|PING 2", "$1|2"},
		{"reads and writes in turn", "SET k 1|CLIENT REPLY SKIP|GET k|SET k 2|CLIENT REPLY SKIP|SET k 3|GET k|CLIENT REPLY SKIP|GET k|GET k", "+OK|+OK|$1|3|$1|3"},
		{"skip while off", "CLIENT REPLY OFF|CLIENT REPLY SKIP|PING 1|CLIENT REPLY ON|PING 2", "+OK|$1|2"},
		{"skip, then on", "CLIENT REPLY SKIP|CLIENT REPLY ON|PING", "+OK|+PONG"},
		{"skip, then off", "CLIENT REPLY SKIP|CLIENT REPLY OFF|PING|CLIENT REPLY ON", "+OK"},
		{"an error is skipped", "CLIENT REPLY SKIP|NONSENSE|PING|CLIENT REPLY SKIP|CLIENT REPLY FOO|PING|CLIENT REPLY SKIP|LPUSH k x|PING", "+PONG|+PONG|+PONG"},
		{"a command that waits", "CLIENT REPLY SKIP|BLPOP none 0.01|PING 2|CLIENT REPLY OFF|BLPOP none 0.01|CLIENT REPLY ON", "$1|2|+OK"},
		{"reset", "CLIENT REPLY OFF|RESET|PING 2", "+RESET|$1|2"},
		{"a transaction", "CLIENT REPLY OFF|MULTI|SET k 4|INCR k|EXEC|CLIENT REPLY ON|GET k|CLIENT REPLY SKIP|MULTI|GET k|EXEC", "+OK|$1|5|+QUEUED|*1|$1|5"},
		{"on in a transaction", "MULTI|CLIENT REPLY ON|EXEC", "+OK|+QUEUED|*1|+OK"},
		{"what is subscribed to comes", "CLIENT REPLY OFF|SUBSCRIBE a|UNSUBSCRIBE a|CLIENT REPLY ON", "*3|$9|subscribe|$1|a|:1|*3|$11|unsubscribe|$1|a|:0|+OK"},
	} {
		for _, at := range places {
			conn, err := at.dial()
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(patience))
			lines := strings.NewReplacer("|", "\r\n")
			const end = "$3\r\nend\r\n"
			conn.Write([]byte(lines.Replace(c.send + "|ECHO end|")))
			var got []byte
			for buf := make([]byte, 1024); err == nil && !bytes.HasSuffix(got, []byte(end)); {
				var n int
				n, err = conn.Read(buf)
				got = append(got, buf[:n]...)
			}
			conn.Close()
			if want := lines.Replace(c.want+"|") + end; string(got) != want {
				t.Errorf("%s, %s: got %q (%v), want %q", c.name, at.name, got, err, want)
			}
		}
	}
}
