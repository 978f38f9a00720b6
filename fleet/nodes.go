package fleet

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"vecino/api"
	"vecino/catalog"
	"vecino/region"
)

// maxNodeID bounds the name of a node.
const maxNodeID = 64

func (f *Fleet) registerNode(r *http.Request) (none, error) {
	var n catalog.Node
	if err := api.ReadJSON(r, &n); err != nil {
		return none{}, err
	}
	if n.ID != r.PathValue("node") || n.ID == "" || len(n.ID) > maxNodeID {
		return none{}, &api.Error{Code: api.Invalid, Field: "id", Message: fmt.Sprintf("node id %q is not the path's, or not of 1 to %d bytes", n.ID, maxNodeID)}
	}
	if _, ok := region.Lookup(n.Region); !ok {
		var codes []string
		for _, r := range region.All() {
			codes = append(codes, string(r.Code))
		}
		return none{}, api.Unknown("region", string(n.Region), codes)
	}
	for field, addr := range map[string]string{"proxy": n.Proxy, "link": n.Link, "gossip": n.Gossip} {
		if addr == "" && field != "proxy" {
			continue // a node alone needs no neighbours
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return none{}, &api.Error{Code: api.Invalid, Field: field, Message: fmt.Sprintf("%s is no host:port: %v", field, err)}
		}
	}
	occupied := func() bool {
		all, err := f.store.databases(r.Context())
		return err != nil || slices.ContainsFunc(all, func(d catalog.Database) bool { return d.CopyOn(n.ID) != nil })
	}
	if err := f.store.putNode(r.Context(), n, occupied); err != nil {
		return none{}, err
	}
	f.log.Debug("node registered", "node", n.ID, "region", n.Region)
	return none{}, nil
}

// regionsOf lists the regions that have a node, by name.
func regionsOf(nodes []catalog.Node) []api.RegionInfo {
	list := []api.RegionInfo{}
	for _, n := range nodes {
		if !slices.ContainsFunc(list, func(r api.RegionInfo) bool { return r.Code == n.Region }) {
			list = append(list, api.RegionInfo{Code: n.Region, Name: region.Title(n.Region)})
		}
	}
	slices.SortFunc(list, func(a, b api.RegionInfo) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// report takes in how a node's copies are. The figures stay in memory. A
// copy's new state is recorded before the answer, and so reaches whoever
// watches the catalog.
func (f *Fleet) report(r *http.Request) (none, error) {
	var req api.NodeReport
	if err := api.ReadJSON(r, &req); err != nil {
		return none{}, err
	}
	node := r.PathValue("node")
	for _, c := range req.Copies {
		if c.State != catalog.Syncing && c.State != catalog.Live {
			return none{}, &api.Error{Code: api.Invalid, Field: "state", Message: fmt.Sprintf("state %q is not one a node can report", c.State), Choices: []string{string(catalog.Syncing), string(catalog.Live)}}
		}
	}
	now := time.Now()
	var changed []api.CopyStatus
	for _, c := range req.Copies {
		c.Node = node
		if f.reports.put(c, now) {
			changed = append(changed, c)
		}
	}
	return none{}, f.recordStates(r.Context(), changed)
}

// statesAtOnce bounds how many records a report changes side by side, so that
// a node with a thousand databases that starts doesn't wait for a thousand
// commits one after the other.
const statesAtOnce = 32

// recordStates writes new states into the catalog. What failed is reported
// by the node again, so it must not be remembered as done.
func (f *Fleet) recordStates(ctx context.Context, changed []api.CopyStatus) error {
	var (
		tasks sync.WaitGroup
		slots = make(chan struct{}, statesAtOnce)
		errs  = make([]error, len(changed))
	)
	for i, c := range changed {
		slots <- struct{}{}
		tasks.Go(func() {
			defer func() { <-slots }()
			errs[i] = f.recordState(ctx, c)
		})
	}
	tasks.Wait()
	var first error
	for i, err := range errs {
		if err != nil {
			f.reports.unrecorded(changed[i])
			first = cmp.Or(first, err)
		}
	}
	return first
}

// recordState writes the state of one copy, if the report is about the copy
// the record has. One that was taken out meanwhile is no error.
func (f *Fleet) recordState(ctx context.Context, c api.CopyStatus) error {
	recorded := false
	_, err := f.store.change(ctx, c.Database, func(d *catalog.Database) error {
		mine := d.CopyOn(c.Node)
		recorded = mine != nil && mine.Generation == c.Generation && mine.State != c.State
		if recorded {
			mine.State = c.State
		}
		return nil
	})
	if api.CodeOf(err) == api.NotFound {
		f.reports.forget(c.Database)
		return nil
	}
	if err == nil && recorded {
		f.log.Info("copy changed state", "database", uint64(c.Database), "node", c.Node, "state", c.State)
	}
	return err
}

// reports is what nodes last said about their copies.
type reports struct {
	mu struct {
		sync.Mutex
		copies map[catalog.ID]map[string]reported // by node
	}
}

type reported struct {
	api.CopyStatus
	at       time.Time
	recorded bool // the state is in the catalog, or was seen not to belong there
}

// put keeps a report and says whether its state may be new to the catalog.
func (r *reports) put(c api.CopyStatus, now time.Time) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.copies == nil {
		r.mu.copies = map[catalog.ID]map[string]reported{}
	}
	if r.mu.copies[c.Database] == nil {
		r.mu.copies[c.Database] = map[string]reported{}
	}
	old := r.mu.copies[c.Database][c.Node]
	changed = !old.recorded || old.State != c.State || old.Generation != c.Generation
	r.mu.copies[c.Database][c.Node] = reported{CopyStatus: c, at: now, recorded: true}
	return changed
}

// unrecorded makes the next report try again.
func (r *reports) unrecorded(c api.CopyStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.mu.copies[c.Database][c.Node]; ok {
		old.recorded = false
		r.mu.copies[c.Database][c.Node] = old
	}
}

func (r *reports) forget(id catalog.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.copies, id)
}

// keepOnly forgets databases that are not in the catalog, in case a report
// came after the end.
func (r *reports) keepOnly(databases []catalog.Database) {
	there := make(map[catalog.ID]bool, len(databases))
	for _, d := range databases {
		there[d.ID] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.mu.copies, func(id catalog.ID, _ map[string]reported) bool { return !there[id] })
}

// of lists what is known of a database's copies, in the record's order.
// Reports on copies it doesn't have any more are left out.
func (r *reports) of(d *catalog.Database) (list []api.CopyStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range d.Copies {
		if s, ok := r.mu.copies[d.ID][c.Node]; ok && s.Generation == c.Generation {
			s.AgeMS = time.Since(s.at).Milliseconds()
			list = append(list, s.CopyStatus)
		}
	}
	return list
}
