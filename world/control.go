package world

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"vecino/api"
	"vecino/region"
)

// The control socket speaks HTTP. GET /status answers with a Status. POST of an
// Order to /delay, /cut, /heal, /lag, /kill or /start does what the method of
// that name does, and answers with a Status when it is done. Whoever may
// connect, which is the owner of the state, may do all of it.

// Order says what a control request is about.
type Order struct {
	A    region.Code `json:"a,omitempty"`
	B    region.Code `json:"b,omitempty"`
	MS   *float64    `json:"ms,omitempty"`
	Edge bool        `json:"edge,omitempty"`    // for kill and start: the edge, not the node
	One  bool        `json:"one_way,omitempty"` // for cut: from A to B only
}

// orderTimeout bounds how long an order may take; a node's start is the longest.
const orderTimeout = 30 * time.Second

type controlServer struct {
	http  http.Server
	dir   string // made for the socket; "" for none
	tasks sync.WaitGroup
}

// longestSocket is what all systems have room for in the address of a socket.
const longestSocket = 100

func (w *World) serveControl() (*controlServer, error) {
	c := &controlServer{http: http.Server{Handler: w.controlHandler(), ReadHeaderTimeout: orderTimeout}}
	path := filepath.Join(w.cfg.State, "control.sock")
	if len(path) > longestSocket {
		dir, err := os.MkdirTemp("", "vecino-")
		if err != nil {
			return nil, fmt.Errorf("control socket: %w", err)
		}
		c.dir, path = dir, filepath.Join(dir, "control.sock")
	}
	os.Remove(path) // of a world that was killed; it holds the lock no more
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	w.record.Control = path
	c.tasks.Go(func() { c.http.Serve(l) })
	return c, nil
}

func (c *controlServer) close() error {
	err := c.http.Close()
	c.tasks.Wait()
	if c.dir != "" {
		os.RemoveAll(c.dir)
	}
	return err
}

func (w *World) controlHandler() http.Handler {
	log := slog.New(slog.DiscardHandler)
	mux := http.NewServeMux()
	mux.Handle("GET /status", api.Serve(log, http.StatusOK, func(*http.Request) (Status, error) { return w.Status(), nil }))
	order := func(name string, do func(ctx context.Context, o Order) error) {
		mux.Handle("POST /"+name, api.Serve(log, http.StatusOK, func(r *http.Request) (s Status, err error) {
			var o Order
			if err := api.ReadJSON(r, &o); err != nil {
				return s, err
			}
			ctx, cancel := context.WithTimeoutCause(r.Context(), orderTimeout, fmt.Errorf("not done after %s", orderTimeout))
			defer cancel()
			if err := do(ctx, o); err != nil {
				if _, ok := errors.AsType[*api.Error](err); !ok {
					err = api.Errorf(api.Unavailable, "%v", err)
				}
				return s, err
			}
			return w.Status(), nil
		}))
	}
	order("delay", func(ctx context.Context, o Order) error { return w.SetDelay(ctx, o.A, o.B, o.MS) })
	order("cut", func(ctx context.Context, o Order) error { return w.Cut(ctx, o.A, o.B, o.One) })
	order("heal", func(ctx context.Context, o Order) error {
		if o.A == "" && o.B == "" {
			return w.HealAll(ctx)
		}
		return w.Heal(ctx, o.A, o.B)
	})
	order("lag", func(ctx context.Context, o Order) error {
		if o.MS == nil {
			return api.Errorf(api.Invalid, "by how many milliseconds?")
		}
		return w.SetLag(ctx, o.A, *o.MS)
	})
	order("kill", func(ctx context.Context, o Order) error { return w.Kill(ctx, o.kind(), o.A) })
	order("start", func(ctx context.Context, o Order) error { return w.Start(ctx, o.kind(), o.A) })
	return mux
}

func (o *Order) kind() Kind {
	if o.Edge {
		return Edge
	}
	return Node
}

// Client talks to the world that runs on a state.
type Client struct {
	state string
	http  *http.Client
}

// Connect finds the world of a state directory. Whether it runs is seen when
// it is asked something.
func Connect(state string) (*Client, error) {
	r, err := readRecord(state)
	if errors.Is(err, fs.ErrNotExist) || err == nil && r.Control == "" {
		return nil, fmt.Errorf("no world in %s: start one with `vecino up`, or name another with --state", state)
	}
	if err != nil {
		return nil, fmt.Errorf("find the world: %w", err)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", r.Control)
	}
	return &Client{state, &http.Client{Transport: &http.Transport{DialContext: dial}}}, nil
}

// Status asks how the world is.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	err = c.call(ctx, http.MethodGet, "status", nil, &s)
	return s, err
}

// Order has something done, by the name of one of World's verbs, and returns
// how the world is then.
func (c *Client) Order(ctx context.Context, verb string, o Order) (s Status, err error) {
	err = c.call(ctx, http.MethodPost, verb, o, &s)
	return s, err
}

func (c *Client) call(ctx context.Context, method, path string, body, answer any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://world/"+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return fmt.Errorf("the world in %s isn't running: start it with `vecino up`", c.state)
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	d := json.NewDecoder(resp.Body)
	if resp.StatusCode != http.StatusOK {
		var e struct {
			Error *api.Error `json:"error"`
		}
		if err := d.Decode(&e); err != nil || e.Error == nil {
			return fmt.Errorf("the world answers %s", resp.Status)
		}
		return e.Error
	}
	return d.Decode(answer)
}
