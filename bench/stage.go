package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"vecino/api"
	"vecino/catalog"
	"vecino/privnet"
	"vecino/region"
)

// A stage is one real node whose fleet is played by this program: a catalog
// that was there from the start, served as the fleet's API serves it. Creating
// a hundred thousand databases at a real fleet takes a quarter of an hour of
// commits, none of which the node sees.
type stage struct {
	databases []catalog.Database
	events    []byte // the catalog as a watch sends it: in service another machine does that work
	server    *http.Server
	url       string
	refused   atomic.Int64 // reports that a real fleet would have refused

	mu struct {
		sync.Mutex
		nodes []catalog.Node
	}

	node         *process
	dir          string
	proxy, admin string
	more         []string // flags of the node
}

const (
	stageNode    = "mad-1"
	stageRegion  = region.Code("mad")
	stageNetwork = privnet.Network(0x2f)
	stageToken   = "stage"
)

// newStage makes a catalog of n databases without passwords, and serves it.
// adjust may change each before anybody sees it.
func (b *bench) newStage(name string, n int, adjust func(i int, d *catalog.Database), more ...string) (*stage, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	s := &stage{dir: filepath.Join(b.dir, name), proxy: local(ports[0]), admin: local(ports[1]), more: more}
	for i := range n {
		d := catalog.Database{
			ID: catalog.ID(i + 1), Name: fmt.Sprintf("db-%d", i), Address: privnet.Mint(stageNetwork, privnet.FirstNumber+uint64(i)), Plan: "free",
			HashSeed: rand.Uint64(), Epoch: 1, Made: 1, Revision: int64(i + 1),
			Copies: []catalog.Copy{{Region: stageRegion, Node: stageNode, Role: catalog.Primary, State: catalog.Live, Generation: 1}},
		}
		if adjust != nil {
			adjust(i, &d)
		}
		s.databases = append(s.databases, d)
		line, err := json.Marshal(catalog.Event{Revision: d.Revision, Database: &d})
		if err != nil {
			return nil, err
		}
		s.events = append(append(s.events, line...), '\n')
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.url = "http://" + l.Addr().String()
	s.server = &http.Server{Handler: s.routes()}
	go s.server.Serve(l)
	return s, nil
}

// closeStage ends the node and its fleet.
func (b *bench) closeStage(s *stage) {
	if s.node != nil {
		b.stop(s.node)
	}
	s.server.Close()
}

// routes is what a node asks of a fleet.
func (s *stage) routes() http.Handler {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	mux := http.NewServeMux()
	mux.Handle("PUT /v1/nodes/{node}", api.Serve(log, http.StatusOK, func(r *http.Request) (struct{}, error) {
		var n catalog.Node
		if err := api.ReadJSON(r, &n); err != nil {
			return struct{}{}, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mu.nodes = append(slices.DeleteFunc(s.mu.nodes, func(old catalog.Node) bool { return old.ID == n.ID }), n)
		return struct{}{}, nil
	}))
	mux.Handle("POST /v1/nodes/{node}/status", api.Serve(log, http.StatusOK, func(r *http.Request) (struct{}, error) {
		err := api.ReadJSON(r, &api.NodeReport{})
		if err != nil {
			s.refused.Add(1)
		}
		return struct{}{}, err
	}))
	mux.Handle("POST /v1/databases/{id}/epoch", api.Serve(log, http.StatusOK, func(r *http.Request) (catalog.Database, error) {
		id, err := strconv.Atoi(r.PathValue("id"))
		if err != nil || id < 1 || id > len(s.databases) {
			return catalog.Database{}, api.Errorf(api.NotFound, "no such database")
		}
		d := s.databases[id-1]
		d.Epoch++
		return d, nil
	}))
	mux.HandleFunc("GET /v1/catalog/watch", s.watch)
	return mux
}

// watch sends the whole catalog, and then nothing but signs of life.
func (s *stage) watch(w http.ResponseWriter, r *http.Request) {
	lines := api.StartLines(w)
	s.mu.Lock()
	nodes := slices.Clone(s.mu.nodes)
	s.mu.Unlock()
	last := int64(len(s.databases) + 1)
	for i := range nodes {
		if lines.Send(catalog.Event{Revision: last, Node: &nodes[i]}) != nil {
			return
		}
	}
	if _, err := w.Write(s.events); err != nil {
		return
	}
	if lines.Send(catalog.Event{Revision: last, Synced: true}) != nil {
		return
	}
	tick := time.NewTicker(api.HeartbeatInterval)
	defer tick.Stop()
	for lines.Flush() == nil {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
			if lines.Send(nil) != nil {
				return
			}
		}
	}
}

// launchStage starts the node without waiting for it.
func (b *bench) launchStage(s *stage) (err error) {
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	args := append([]string{"node", "--id", stageNode, "--region", string(stageRegion), "--state", s.dir, "--listen", s.proxy, "--link", local(ports[0]),
		"--admin", s.admin, "--fleet", s.url, "--pprof", "--log-level", "WARN"}, s.more...)
	s.node, err = b.launch(stageNode, []string{"VECINO_FLEET_TOKEN=" + stageToken}, b.vecino, args...)
	return err
}

// startStage starts the node, and waits until it knows its databases.
func (b *bench) startStage(s *stage) error {
	if err := b.launchStage(s); err != nil {
		return err
	}
	return b.healthy(s.node, s.admin)
}

// door is the way to one of the databases.
func (s *stage) door(i int) door { return door{addr: s.proxy, database: s.databases[i].Address} }

// each visits databases over short connections, some at a time. They come
// from many loopback addresses, or their ports would run out.
func (s *stage) each(ctx context.Context, n, atOnce int, visit func(i int, c *client) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var next atomic.Int64
	failed := make([]error, atOnce)
	var all sync.WaitGroup
	for worker := range atOnce {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return
				}
				if err := s.visit(ctx, i, visit); err != nil {
					failed[worker] = fmt.Errorf("database %d: %w", i, err)
					cancel()
					return
				}
			}
		})
	}
	all.Wait()
	return errors.Join(failed...)
}

func (s *stage) visit(ctx context.Context, i int, visit func(i int, c *client) error) error {
	c, err := s.enter(ctx, i)
	if err != nil {
		return err
	}
	defer c.Close()
	return visit(i, c)
}

// enter opens a connection to one of the databases.
func (s *stage) enter(ctx context.Context, i int) (*client, error) {
	c, err := dialFrom(ctx, i, s.proxy)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(s.door(i).header()); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
