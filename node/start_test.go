package node

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"vecino/internal/vfs"
)

// A start that takes long shows what it does: the admin address answers before the
// first byte of a journal is read.
func TestTheAdminAddressAnswersWhileANodeStarts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin := l.Addr().String()
	l.Close()
	ask := func(method, path string) (code int, body string) {
		req, err := http.NewRequest(method, "http://"+admin+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	expect := func(path string, code int, has, lacks string) {
		t.Helper()
		if got, body := ask("GET", path); got != code || !strings.Contains(body, has) || lacks != "" && strings.Contains(body, lacks) {
			t.Errorf("%s: %d, not %d with %q and without %q:\n%s", path, got, code, has, lacks, body)
		}
	}

	// One key is in the tier, one in the journal only.
	mem := vfs.NewMem()
	n := startOn(t, mem, "")
	cfg := n.cfg
	plain(t, n).want("OK", "SET", "k", "v")
	if err := n.store.sweep(t.Context(), n.find(1)); err != nil {
		t.Fatal(err)
	}
	plain(t, n).want("OK", "SET", "k2", "v2")
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	reading, goOn := make(chan struct{}), make(chan struct{})
	first := true // the journal of one loop is read by one goroutine
	cfg.fs = vfs.Hooked(mem, func(op vfs.Op, name string) error {
		if op == vfs.OpRead && first && filepath.Dir(name) == n.journalDir(0) {
			first = false
			close(reading)
			<-goOn
		}
		return nil
	})
	cfg.Admin, cfg.Profile, cfg.World, cfg.Logger = admin, true, true, slog.New(slog.DiscardHandler)
	started := make(chan *Node)
	go func() {
		defer close(started)
		n, err := Start(cfg)
		if err != nil {
			t.Error(err)
			return
		}
		started <- n
	}()
	<-reading
	expect("/healthz", http.StatusServiceUnavailable, "starting for ", "")
	expect("/metrics", http.StatusOK, "vecino_replayed_writes_total 0\n", "vecino_databases ")
	expect("/debug/pprof/", http.StatusOK, "goroutine", "")
	if code, body := ask("PUT", "/world"); code != http.StatusServiceUnavailable {
		t.Errorf("distances while the node starts: %d %s", code, body)
	}
	close(goOn)
	if n = <-started; n == nil {
		t.FailNow()
	}
	defer n.Close()
	expect("/healthz", http.StatusOK, "ok", "starting")
	expect("/metrics", http.StatusOK, "vecino_databases 1\n", "vecino_replayed_writes_total 0\n")
	expect("/metrics", http.StatusOK, "vecino_loaded_keys_total 1\n", "")
	plain(t, n).want(`"v"`, "GET", "k")
	plain(t, n).want(`"v2"`, "GET", "k2")
}
