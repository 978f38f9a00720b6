package link

import (
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestStrangersAreRefusedAndCounted(t *testing.T) {
	hi := hello{min: 1, max: 1, boot: 1, incarnation: 1, node: "a", target: "b"}
	edit := func(f func(*hello)) []byte {
		h := hi
		f(&h)
		return appendMessage(nil, typeHello, h.append(nil))
	}
	for _, c := range []struct {
		reason Refusal
		bytes  []byte
	}{
		{RefusedGarbage, []byte("GET / HTTP/1.1\r\nHost: b\r\n\r\n")},
		{RefusedGarbage, nil}, // and nothing else, for as long as it may
		{RefusedGarbage, appendMessage(nil, typeWelcome, nil)},
		{RefusedGarbage, appendMessage(nil, typeHello, []byte("short"))},
		{RefusedGarbage, appendMessage(nil, typeHello, make([]byte, maxMessage+1))},
		{RefusedGarbage, edit(func(h *hello) { h.lane = numLanes })},
		{RefusedVersion, edit(func(h *hello) { h.min, h.max = 2, 9 })},
		{RefusedVersion, edit(func(h *hello) { h.min, h.max = 0, 0 })},
		{RefusedTarget, edit(func(h *hello) { h.target = "c" })},
		{RefusedUnknown, edit(func(h *hello) { h.node = "d" })},
		{RefusedDirection, edit(func(h *hello) { h.node = "c" })},
	} {
		inWorld(t, func(w *world) {
			w.boot("a", 1)
			b := w.boot("b", 1)
			w.boot("c", 1)
			b.SetPeers(w.records())
			conn, err := w.net.dial(w.Context(), "b")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go conn.Write(c.bytes)
			answer := make(chan error)
			go func() {
				_, err := readMessage(conn, typeWelcome)
				answer <- err
			}()
			err = <-answer
			if polite := c.reason != RefusedGarbage; polite != (err == nil) {
				t.Errorf("%s: the answer is %v", c.reason, err)
			}
			conn.Close()
			synctest.Wait()
			if got := b.Refused(); len(got) != 1 || got[c.reason] != 1 {
				t.Errorf("%q: refused %v, want for %s", c.bytes, got, c.reason)
			}
		})
	}
}

func TestLanesThatStayAloneAreGivenUp(t *testing.T) {
	inWorld(t, func(w *world) {
		w.boot("a", 1)
		b := w.boot("b", 1)
		b.SetPeers(w.records())
		lane := func(l Lane, n uint64) net.Conn {
			conn, err := w.net.dial(w.Context(), "b")
			if err != nil {
				t.Fatal(err)
			}
			_, _, ready, err := dialHandshake(conn, "", hello{lane: l, boot: 1, incarnation: n, node: "a", target: "b"})
			if err != nil {
				t.Fatal(err)
			}
			conn.Write(ready)
			synctest.Wait()
			return conn
		}
		ended := func(conn net.Conn) bool {
			conn.SetReadDeadline(time.Now().Add(time.Nanosecond))
			_, err := conn.Read(make([]byte, 1))
			return !os.IsTimeout(err)
		}
		first := lane(Live, 1)
		if ended(first) {
			t.Fatal("the first lane doesn't wait for the others")
		}
		second := lane(CatchUp, 2)
		if !ended(first) {
			t.Error("a newer link doesn't end the wait of an older one")
		}
		if third := lane(Snapshot, 1); !ended(third) {
			t.Error("a lane of an older link is taken")
		}
		if again := lane(CatchUp, 2); !ended(again) {
			t.Error("a lane is taken twice")
		}
		w.pass(10 * time.Second)
		if !ended(second) {
			t.Error("a lane waits for ever")
		}
		if b.links() != "" || b.Refused()[RefusedStale] != 4 {
			t.Errorf("heard %q, refused %v", b.links(), b.Refused())
		}
	})
}

func TestTLSKnowsWhoIsWho(t *testing.T) {
	ours, theirs := t.TempDir(), t.TempDir()
	with := func(dir, name string) func(*Config) {
		return func(c *Config) {
			t.Helper()
			ca, err := NewCA(dir)
			if err != nil {
				t.Fatal(err)
			}
			cert, key, err := ca.Issue(name)
			if err != nil {
				t.Fatal(err)
			}
			if c.TLS, err = LoadTLS(cert, key, ca.CertFile()); err != nil {
				t.Fatal(err)
			}
		}
	}
	plain := func(*Config) {}
	for _, c := range []struct {
		name    string
		a, b    func(*Config)
		up      bool
		refused Refusal // by b
	}{
		{"both of one authority", with(ours, "a"), with(ours, "b"), true, ""},
		{"who dials has another authority", with(theirs, "a"), with(ours, "b"), false, RefusedTLS},
		{"who dials has another name", with(ours, "x"), with(ours, "b"), false, RefusedIdentity},
		{"who is dialled has another name", with(ours, "a"), with(ours, "x"), false, RefusedTLS},
		{"who dials is plain", plain, with(ours, "b"), false, RefusedTLS},
		{"who is dialled is plain", with(ours, "a"), plain, false, RefusedGarbage},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				a, b := w.boot("a", 1, c.a), w.boot("b", 1, c.b)
				w.meet()
				w.pass(10 * time.Second)
				if up := a.links() == "up" && b.links() == "up"; up != c.up {
					t.Fatalf("heard %q and %q; a says %q", a.links(), b.links(), a.Stats()[0].LastError)
				}
				if c.refused != "" && b.Refused()[c.refused] == 0 {
					t.Errorf("b refused %v, want for %s; a says %q", b.Refused(), c.refused, a.Stats()[0].LastError)
				}
				if !c.up {
					return
				}
				w.mustSend(a, "b", Live, 1, strings.Repeat("secret", 10_000))
				synctest.Wait()
				if n := len(b.frames(Live, 1)); n != 1 {
					t.Errorf("%d frames came", n)
				}
			})
		})
	}
}

func TestCertificatesAreKeptAndKeysArePrivate(t *testing.T) {
	dir := t.TempDir() + "/pki"
	read := func(file string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	var before string
	for range 2 {
		ca, err := NewCA(dir)
		if err != nil {
			t.Fatal(err)
		}
		cert, key, err := ca.Issue("mad-1")
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(key)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the key's mode is %v, %v", info.Mode(), err)
		}
		now := read(cert) + read(key) + read(ca.CertFile())
		if before != "" && now != before {
			t.Error("a second start made other certificates")
		}
		before = now
		for _, bad := range []string{"", "../x", "A", "a b", "a.b", "-a"} {
			if _, _, err := ca.Issue(bad); err == nil {
				t.Errorf("there is a certificate for %q", bad)
			}
		}
	}
}

func FuzzHandshakeMessages(f *testing.F) {
	h := hello{min: 1, max: 1, boot: 1, incarnation: 1, node: "a", target: "b"}
	f.Add(h.append(nil))
	w := welcome{version: 1, node: "b", refusal: RefusedStale, detail: "why"}
	f.Add(append(w.append(nil), make([]byte, 32)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h, again hello
		if h.decode(b) == nil {
			if err := again.decode(h.append(nil)); err != nil || h != again {
				t.Errorf("%+v became %+v, %v", h, again, err)
			}
		}
		var w welcome
		w.decode(b)
	})
}
