package api

import (
	"net/netip"

	"vecino/catalog"
	"vecino/region"
)

// Route is what an edge needs to know to serve one database's private address.
type Route struct {
	Address  netip.Addr `json:"address"` // fdaa:<network>:0:1::<n>
	Database catalog.ID `json:"database"`
	Serving  []Serving  `json:"serving"` // live copies only
	// Loopback is where the loopback driver of each region's edge listens for
	// this database: host:port by region. Empty in a real deployment.
	Loopback map[region.Code]string `json:"loopback,omitempty"`
	Revision int64                  `json:"revision"`
}

// Serving is one live copy that an edge may send clients to.
type Serving struct {
	Region region.Code  `json:"region"`
	Node   string       `json:"node"`
	Proxy  string       `json:"proxy"` // host:port of the node's listener for PROXY connections
	Role   catalog.Role `json:"role"`
}

// RouteEvent is one change of the routes. Exactly one of Route, Gone and
// Synced is set.
type RouteEvent struct {
	Revision int64       `json:"revision"`
	Route    *Route      `json:"route,omitempty"`
	Gone     *netip.Addr `json:"gone,omitempty"`
	Synced   bool        `json:"synced,omitempty"`
}
