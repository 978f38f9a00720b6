package node

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"vecino/api"
	"vecino/catalog"
	"vecino/privnet"
)

// A fleet that is slow to answer hears of everything afterwards, and of no more in one
// report than it takes.
func TestReportsHaveABoundedLength(t *testing.T) {
	const sleepers, tenants = copiesAReport + 100, copiesAReport + 100
	var (
		mu      sync.Mutex
		heard   = make(map[catalog.ID]api.CopyStatus)
		longest int
		all     = make(chan struct{})
		hold    = make(chan struct{})
	)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/nodes/mad-1/status", func(w http.ResponseWriter, r *http.Request) {
		<-hold
		var report api.NodeReport
		if err := api.ReadJSON(r, &report); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		longest = max(longest, len(report.Copies))
		before := len(heard)
		for _, c := range report.Copies {
			heard[c.Database] = c
		}
		if len(heard) == sleepers+tenants && before < len(heard) {
			close(all)
		}
		fmt.Fprint(w, "{}")
	})
	fleet := httptest.NewServer(mux)
	defer fleet.Close()

	n, err := Start(Config{
		ID: "mad-1", Region: "mad", State: sleepingState(t, sleepers), Proxy: "127.0.0.1:0", Link: "127.0.0.1:0", Fleet: fleet.URL, Token: "node",
		Loops: 2, SegmentBytes: 1 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for i := range tenants {
		id := sleepers + i + 1
		n.place(&catalog.Database{
			ID: catalog.ID(id), Address: privnet.Mint(testNetwork, uint64(id+1)), HashSeed: 7, Epoch: 1, Revision: int64(id),
			Copies: []catalog.Copy{{Region: "mad", Node: "mad-1", Role: catalog.Primary, State: catalog.Syncing, Generation: 3}},
		})
	}
	close(hold)
	select {
	case <-all:
	case <-time.After(patience):
	}
	mu.Lock()
	defer mu.Unlock()
	if len(heard) != sleepers+tenants {
		t.Errorf("the fleet has heard of %d databases, want %d", len(heard), sleepers+tenants)
	}
	if longest > copiesAReport {
		t.Errorf("a report was of %d copies", longest)
	}
	for id, c := range heard {
		if asleep := id <= sleepers; c.Asleep != asleep || c.State != catalog.Live || !asleep && c.Generation != 3 {
			t.Fatalf("of database %d the fleet has heard %+v", id, c)
		}
	}
}
