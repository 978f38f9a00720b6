package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
)

// Platform is a client of the platform's API. It is safe for concurrent use.
type Platform struct{ c client }

// NewPlatform makes a client for the platform at an http:// URL.
func NewPlatform(url, token string) *Platform { return &Platform{newClient(url, token)} }

// Organizations lists those the token may use.
func (p *Platform) Organizations(ctx context.Context) (list []Organization, err error) {
	err = p.c.call(ctx, http.MethodGet, "/v1/organizations", "", nil, &list)
	return list, err
}

// CreateOrganization makes an organisation with a network of its own.
func (p *Platform) CreateOrganization(ctx context.Context, slug, name string) (o Organization, err error) {
	err = p.c.call(ctx, http.MethodPost, "/v1/organizations", "", Organization{Slug: slug, Name: name}, &o)
	return o, err
}

// Regions lists where databases can live, by name.
func (p *Platform) Regions(ctx context.Context) (list []RegionInfo, err error) {
	err = p.c.call(ctx, http.MethodGet, "/v1/regions", "", nil, &list)
	return list, err
}

// Plans lists the plans, cheapest first.
func (p *Platform) Plans(ctx context.Context) (list []Plan, err error) {
	err = p.c.call(ctx, http.MethodGet, "/v1/plans", "", nil, &list)
	return list, err
}

// CreateDatabase makes a database or leaves nothing behind. With a key, a
// call that is repeated after a lost answer gets the same database.
func (p *Platform) CreateDatabase(ctx context.Context, key string, r CreateDatabase) (d Database, err error) {
	err = p.c.call(ctx, http.MethodPost, "/v1/databases", key, r, &d)
	return d, err
}

// Databases lists the databases of one organisation, or of all the token may
// use when org is "".
func (p *Platform) Databases(ctx context.Context, org string) (list []Database, err error) {
	err = p.c.call(ctx, http.MethodGet, "/v1/databases?organization="+url.QueryEscape(org), "", nil, &list)
	return list, err
}

// Database answers with one database and its endpoints. org is needed only
// when two organisations of the token have a database of that name.
func (p *Platform) Database(ctx context.Context, org, name string) (d Database, err error) {
	err = p.c.call(ctx, http.MethodGet, namePath(org, name, ""), "", nil, &d)
	return d, err
}

// UpdateDatabase changes replica regions, eviction or plan.
func (p *Platform) UpdateDatabase(ctx context.Context, org, name string, u UpdateDatabase) (d Database, err error) {
	err = p.c.call(ctx, http.MethodPatch, namePath(org, name, ""), "", u, &d)
	return d, err
}

// ResetPassword gives a database a new password; the old one ends at once.
func (p *Platform) ResetPassword(ctx context.Context, org, name string) (d Database, err error) {
	err = p.c.call(ctx, http.MethodPost, namePath(org, name, "/password"), "", nil, &d)
	return d, err
}

// DestroyDatabase destroys a database and its data.
func (p *Platform) DestroyDatabase(ctx context.Context, org, name string) error {
	return p.c.call(ctx, http.MethodDelete, namePath(org, name, ""), "", nil, nil)
}

// ReportEdge says that an edge exists and which routes it serves. It is called
// at start, every few seconds, and when new routes are in force.
func (p *Platform) ReportEdge(ctx context.Context, e Edge) (s EdgeSettings, err error) {
	err = p.c.call(ctx, http.MethodPut, "/v1/edges/"+url.PathEscape(e.ID), "", e, &s)
	return s, err
}

// Edges lists the registered edges, by ID.
func (p *Platform) Edges(ctx context.Context) (list []Edge, err error) {
	err = p.c.call(ctx, http.MethodGet, "/v1/edges", "", nil, &list)
	return list, err
}

// WatchRoutes calls fn with the routes as an edge in a region needs them:
// first all there are, then Synced, then every change. It reconnects by itself
// and returns only when ctx ends, when fn returns an error, or when the token
// is refused. After a reconnection fn hears only what is different: changed
// routes, a Gone for each that vanished, and Synced again.
//
// fn runs on the caller's goroutine. The event is the callee's to keep.
func (p *Platform) WatchRoutes(ctx context.Context, r Region, fn func(RouteEvent) error) error {
	known := map[netip.Addr]*Route{}
	return retry(ctx, func() (progress bool, err error) {
		seen := map[netip.Addr]bool{} // nil once synced
		deliver := func(e RouteEvent) error {
			if err := fn(e); err != nil {
				return stopError{err}
			}
			return nil
		}
		err = p.c.lines(ctx, "/v1/routes/watch?region="+url.QueryEscape(string(r)), func(line []byte) error {
			var e RouteEvent
			if err := json.Unmarshal(line, &e); err != nil {
				return fmt.Errorf("decode route event: %w", err)
			}
			progress = true
			switch {
			case e.Route != nil:
				a := e.Route.Address
				if seen != nil {
					seen[a] = true
				}
				old := known[a]
				known[a] = e.Route
				if old != nil && seen != nil && sameRoute(old, e.Route) {
					return nil
				}
			case e.Gone != nil:
				if known[*e.Gone] == nil {
					return nil
				}
				delete(known, *e.Gone)
				delete(seen, *e.Gone)
			case e.Synced && seen != nil:
				for _, a := range slices.SortedFunc(maps.Keys(known), netip.Addr.Compare) {
					if !seen[a] {
						delete(known, a)
						if err := deliver(RouteEvent{Revision: e.Revision, Gone: &a}); err != nil {
							return err
						}
					}
				}
				seen = nil
			}
			return deliver(e)
		})
		return progress, err
	})
}

// sameRoute reports whether two routes differ in no more than their revision.
func sameRoute(a, b *Route) bool {
	x, y := *a, *b
	x.Revision, y.Revision = 0, 0
	return reflect.DeepEqual(x, y)
}

func namePath(org, name, rest string) string {
	path := "/v1/databases/" + url.PathEscape(name) + rest
	if org != "" {
		path += "?organization=" + url.QueryEscape(org)
	}
	return path
}
