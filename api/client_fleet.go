package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"vecino/catalog"
)

// Fleet is a client of the fleet's API. It is safe for concurrent use.
type Fleet struct{ c client }

// NewFleet makes a client for the fleet at an http:// URL.
func NewFleet(url, token string) *Fleet { return &Fleet{newClient(url, token)} }

// CreateDatabase makes a database. Calling it again with the same key and the
// same request answers with the same database, without the password.
func (f *Fleet) CreateDatabase(ctx context.Context, key string, r FleetCreate) (d FleetDatabase, err error) {
	err = f.c.call(ctx, http.MethodPost, "/v1/databases", key, r, &d)
	return d, err
}

// CancelCreate undoes the creation under a key whatever became of it: the
// database is destroyed if there is one, and if the request is still on its
// way it will be refused.
func (f *Fleet) CancelCreate(ctx context.Context, key string) error {
	return f.c.call(ctx, http.MethodDelete, "/v1/creations/"+url.PathEscape(key), "", nil, nil)
}

// Database answers with one database and what its nodes report.
func (f *Fleet) Database(ctx context.Context, id ID) (d FleetDatabase, err error) {
	err = f.c.call(ctx, http.MethodGet, databasePath(id), "", nil, &d)
	return d, err
}

// Databases lists all databases, by ID.
func (f *Fleet) Databases(ctx context.Context) (list []FleetDatabase, err error) {
	err = f.c.call(ctx, http.MethodGet, "/v1/databases", "", nil, &list)
	return list, err
}

// UpdateDatabase changes replica regions, eviction or plan.
func (f *Fleet) UpdateDatabase(ctx context.Context, id ID, u FleetUpdate) (d FleetDatabase, err error) {
	err = f.c.call(ctx, http.MethodPatch, databasePath(id), "", u, &d)
	return d, err
}

// ResetPassword gives a database a new password; the old one ends at once.
func (f *Fleet) ResetPassword(ctx context.Context, id ID) (d FleetDatabase, err error) {
	err = f.c.call(ctx, http.MethodPost, databasePath(id)+"/password", "", nil, &d)
	return d, err
}

// DeleteDatabase destroys a database and its data. One that is gone already
// is no error.
func (f *Fleet) DeleteDatabase(ctx context.Context, id ID) error {
	err := f.c.call(ctx, http.MethodDelete, databasePath(id), "", nil, nil)
	if CodeOf(err) == NotFound {
		return nil
	}
	return err
}

// OpenEpoch begins a new ownership of a database: the answer is its record
// with an epoch nobody had before. Only the primary's node is given one.
func (f *Fleet) OpenEpoch(ctx context.Context, id ID, node string) (d catalog.Database, err error) {
	err = f.c.call(ctx, http.MethodPost, databasePath(id)+"/epoch", "", EpochRequest{Node: node}, &d)
	return d, err
}

// Plans lists the plans, cheapest first.
func (f *Fleet) Plans(ctx context.Context) (list []Plan, err error) {
	err = f.c.call(ctx, http.MethodGet, "/v1/plans", "", nil, &list)
	return list, err
}

// Regions lists the regions that have a node, by name.
func (f *Fleet) Regions(ctx context.Context) (list []RegionInfo, err error) {
	err = f.c.call(ctx, http.MethodGet, "/v1/regions", "", nil, &list)
	return list, err
}

// Nodes lists the registered nodes, by ID.
func (f *Fleet) Nodes(ctx context.Context) (list []catalog.Node, err error) {
	err = f.c.call(ctx, http.MethodGet, "/v1/nodes", "", nil, &list)
	return list, err
}

// RegisterNode says that a node exists and how it is reached. It is called at
// start, and again whenever an address changes; more often does no harm.
func (f *Fleet) RegisterNode(ctx context.Context, n catalog.Node) error {
	return f.c.call(ctx, http.MethodPut, "/v1/nodes/"+url.PathEscape(n.ID), "", n, nil)
}

// Report says how the copies on a node are. A copy's change of state is in the
// catalog when it returns.
func (f *Fleet) Report(ctx context.Context, node string, r NodeReport) error {
	return f.c.call(ctx, http.MethodPost, "/v1/nodes/"+url.PathEscape(node)+"/status", "", r, nil)
}

// WatchCatalog calls fn with the catalog: first everything there is, in no
// particular order, then Synced, then every change. It reconnects and resumes
// by itself and returns only when ctx ends, when fn returns an error, or when
// the token is refused.
//
// from is the revision of an Event seen before, to be resumed after; 0 starts
// with everything. node limits databases to those that have, or just had, a
// copy on that node (a change that takes the copy away is sent); "" means all.
//
// An event may come twice, and between two events of one database others may
// have been skipped: what counts is the latest record. If the fleet can't say
// any more what happened meanwhile, everything is sent again, and a database
// that vanished without an event gets its Gone before the next Synced.
//
// fn runs on the caller's goroutine. The event is the callee's to keep.
func (f *Fleet) WatchCatalog(ctx context.Context, from int64, node string, fn func(catalog.Event) error) error {
	known := map[catalog.ID]bool{}
	var seen map[catalog.ID]bool // not nil while everything is being sent
	return retry(ctx, func() (progress bool, err error) {
		if from == 0 {
			seen = map[catalog.ID]bool{}
		} else {
			seen = nil
		}
		deliver := func(e catalog.Event) error {
			if err := fn(e); err != nil {
				return stopError{err}
			}
			return nil
		}
		path := fmt.Sprintf("/v1/catalog/watch?from=%d&node=%s", from, url.QueryEscape(node))
		err = f.c.lines(ctx, path, func(line []byte) error {
			var e catalog.Event
			if err := json.Unmarshal(line, &e); err != nil {
				return fmt.Errorf("decode catalog event: %w", err)
			}
			progress = true
			switch {
			case e.Synced && seen != nil:
				for _, id := range slices.Sorted(maps.Keys(known)) {
					if !seen[id] {
						if err := deliver(catalog.Event{Revision: e.Revision, Gone: id}); err != nil {
							return err
						}
					}
				}
				known, seen = seen, nil
			case e.Database != nil:
				known[e.Database.ID] = true
				if seen != nil {
					seen[e.Database.ID] = true
				}
			case e.Gone != 0:
				delete(known, e.Gone)
				delete(seen, e.Gone)
			}
			if seen == nil {
				// Several records can share a revision, so a resumed watch
				// begins with the last one seen, not after it.
				from = max(from, e.Revision-1)
			}
			return deliver(e)
		})
		if e, ok := errors.AsType[*Error](err); ok && e.Code == Gone {
			from = 0
			return true, err
		}
		return progress, err
	})
}

func databasePath(id ID) string { return fmt.Sprintf("/v1/databases/%d", id) }
