package edge

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"vecino/internal/httpd"
)

// maxWorld bounds the body of PUT /world: some 200 bytes for each pair of all
// regions are far less.
const maxWorld = 4 << 20

// adminHandler answers on the admin listener.
func (e *Edge) adminHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(e)
	mux := http.NewServeMux()
	mux.Handle("/", httpd.Admin(e.Healthy, registry))
	if e.distance != nil {
		mux.HandleFunc("PUT /world", e.putWorld)
	}
	return mux
}

// Healthy is nil when the edge serves what there is to serve.
func (e *Edge) Healthy() error {
	if e.cfg.Platform != nil && !e.synced.Load() && e.routes.len() == 0 {
		return errors.New("no routes from the platform yet")
	}
	return nil
}

// putWorld replaces the simulated distances.
func (e *Edge) putWorld(w http.ResponseWriter, r *http.Request) {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxWorld)).Decode(e.distance); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
