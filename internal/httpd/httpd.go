// Package httpd runs the HTTP servers of a daemon: its API, and the admin
// listener that answers whether it is well and what it has counted.
package httpd

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bounds of a server. Answers have none: a watch is an answer without end.
const (
	headerTimeout = 5 * time.Second
	bodyTimeout   = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	drainTimeout  = 2 * time.Second
	maxHeader     = 64 << 10
)

// Server is a running HTTP server.
type Server struct {
	http   http.Server
	addr   string
	cancel context.CancelFunc
	tasks  sync.WaitGroup
}

// Start listens on an address and serves h in the background until Close.
func Start(addr string, h http.Handler) (*Server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	// Requests end with this context, so that Close doesn't wait for watches.
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{addr: l.Addr().String(), cancel: cancel}
	s.http = http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	s.tasks.Go(func() { s.http.Serve(l) })
	return s, nil
}

// Addr is the host:port it listens on.
func (s *Server) Addr() string { return s.addr }

// URL is where clients find it.
func (s *Server) URL() string { return "http://" + s.addr }

// Close lets running requests end, for a moment, and stops.
func (s *Server) Close() error {
	s.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	s.tasks.Wait()
	return err
}

// Admin answers GET /healthz, by whether healthy returns nil, and
// GET /metrics.
func Admin(healthy func() error, metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := healthy(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return mux
}
