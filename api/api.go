// Package api is what platform and fleet are asked and what they answer,
// errors included, with typed clients for both.
//
// Two HTTP/JSON services meet here. The fleet's users are the platform and its
// own nodes; the platform's users are people (cli, console) and its edges.
// The files openapi-fleet.yaml and openapi-platform.yaml describe them for
// everybody else; the servers send them as /v1/openapi.yaml.
//
// What changes is watched: a response of JSON lines that doesn't end, the
// whole state first, then one with "synced", then changes as they happen.
// Blank lines in between only show that the peer is alive. The clients'
// Watch methods reconnect, resume and fill in what was missed, so a caller
// sees one unbroken stream.
package api

import (
	_ "embed"
	"net/netip"
	"time"

	"vecino/catalog"
	"vecino/region"
)

// Region, ID, Position, Role, State and Limits are named again here for those
// who see the API and nothing below it.
type (
	Region   = region.Code
	ID       = catalog.ID
	Position = catalog.Position
	Role     = catalog.Role
	State    = catalog.State
	Limits   = catalog.Limits

	Durability = catalog.Durability
)

// Durabilities lists what a database's durability can be.
var Durabilities = catalog.Durabilities

// FleetSpec and PlatformSpec are the OpenAPI descriptions.
var (
	//go:embed openapi-fleet.yaml
	FleetSpec []byte
	//go:embed openapi-platform.yaml
	PlatformSpec []byte
)

// IdempotencyHeader carries a key of the caller's choice. Two creations under
// one key are one creation: the second is answered with the first's database.
const IdempotencyHeader = "Idempotency-Key"

// RegionInfo is one region a database can live in.
type RegionInfo struct {
	Code Region `json:"code"`
	Name string `json:"name"` // "Madrid, Spain (mad)"
}

// Plan is what a database can be bought as. A zero limit means no limit.
type Plan struct {
	ID          string `json:"id"`           // "free"
	Name        string `json:"name"`         // "Free"
	Description string `json:"description"`  // "100 MB"
	MonthlyCost int64  `json:"monthly_cost"` // US cents
	PerCommands int64  `json:"per_commands"` // US cents for 100,000 commands; 0: not metered
	Limits      Limits `json:"limits"`

	Durability Durability `json:"durability"` // of its databases, unless they are made with another
}

// --- the fleet's API ---

// FleetCreate asks the fleet for a database. The address was minted by the
// platform and is what connections for the database will carry.
type FleetCreate struct {
	Name           string     `json:"name"`
	Address        netip.Addr `json:"address"`
	Plan           string     `json:"plan"`
	PrimaryRegion  Region     `json:"primary_region"`
	ReplicaRegions []Region   `json:"replica_regions"`
	Eviction       bool       `json:"eviction"`
	EvictionPolicy string     `json:"eviction_policy,omitempty"` // implies Eviction unless it is noeviction
	Durability     Durability `json:"durability,omitempty"`      // empty: the plan's
}

// FleetUpdate changes a database; what is nil stays. ReplicaRegions is the
// whole new set.
type FleetUpdate struct {
	ReplicaRegions *[]Region `json:"replica_regions,omitempty"`
	Eviction       *bool     `json:"eviction,omitempty"`
	EvictionPolicy *string   `json:"eviction_policy,omitempty"` // implies Eviction unless it is noeviction
	Plan           *string   `json:"plan,omitempty"`

	Durability *Durability `json:"durability,omitempty"`
}

// FleetDatabase is a database as the fleet answers it.
type FleetDatabase struct {
	Database catalog.Database `json:"database"`
	Password string           `json:"password,omitempty"` // only in the first answer to a creation, and after a reset
	Status   []CopyStatus     `json:"status,omitempty"`   // what its nodes last reported
}

// CopyStatus is what a node says about one copy it holds.
type CopyStatus struct {
	Database     ID       `json:"database"`
	Node         string   `json:"node,omitempty"` // filled in by the fleet
	Generation   uint64   `json:"generation"`     // Copy.Generation of the copy this is about; a report on an older one changes nothing
	Role         Role     `json:"role"`           // what it does now
	State        State    `json:"state"`          // syncing or live; a change of it is recorded in the catalog
	Applied      Position `json:"applied"`        // the last write it shows
	Head         Position `json:"head"`           // the last write of the primary that it knows of
	LagMS        int64    `json:"lag_ms"`         // how old its newest applied write was when it arrived, 0 at the head
	Bytes        int64    `json:"bytes"`          // of data
	Keys         int64    `json:"keys"`
	Connections  int64    `json:"connections"`
	CommandsPerS int64    `json:"commands_per_s"`   // of the clients here, in the last second
	Delayed      int64    `json:"commands_delayed"` // that had to wait because of the plan's rate, since the copy was opened
	Asleep       bool     `json:"asleep,omitempty"` // nothing of it is in memory
	Resident     int64    `json:"resident_bytes"`   // in memory
	ColdKeys     int64    `json:"cold_keys"`        // whose values are on disk only
	ColdBytes    int64    `json:"cold_bytes"`
	HitRatio     float64  `json:"memory_hit_ratio"` // of commands, those that found all in memory
	WakeMS       int64    `json:"last_wake_ms"`     // how long it last took to come back into memory
	AgeMS        int64    `json:"age_ms,omitempty"` // since it was reported; filled in by the fleet
}

// NodeReport lists copies whose status changed, or all of them. Copies not
// listed keep what was reported before.
type NodeReport struct {
	Copies []CopyStatus `json:"copies"`
}

// EpochRequest asks for a new ownership of a database by its primary's node.
type EpochRequest struct {
	Node string `json:"node"`
}

// --- the platform's API ---

// Organization owns databases and the private network they are reached on.
type Organization struct {
	Slug    string `json:"slug"`
	Name    string `json:"name"`
	Type    string `json:"type"`    // "personal" or "shared"
	Network string `json:"network"` // "fdaa:0:47fb::/48"
}

// CreateDatabase asks the platform for a database.
type CreateDatabase struct {
	Organization   string   `json:"organization,omitempty"` // needed when the token has more than one
	Name           string   `json:"name,omitempty"`         // generated when empty
	PrimaryRegion  Region   `json:"primary_region"`
	ReplicaRegions []Region `json:"replica_regions,omitempty"`
	Eviction       bool     `json:"eviction"`
	EvictionPolicy string   `json:"eviction_policy,omitempty"` // implies Eviction unless it is noeviction
	Plan           string   `json:"plan,omitempty"`            // by id or name; Free when empty

	Durability Durability `json:"durability,omitempty"` // empty: the plan's
}

// UpdateDatabase changes a database; what is nil stays. ReplicaRegions is the
// whole new set.
type UpdateDatabase struct {
	ReplicaRegions *[]Region `json:"replica_regions,omitempty"`
	Eviction       *bool     `json:"eviction,omitempty"`
	EvictionPolicy *string   `json:"eviction_policy,omitempty"` // implies Eviction unless it is noeviction
	Plan           *string   `json:"plan,omitempty"`

	Durability *Durability `json:"durability,omitempty"`
}

// Database is a database as its user sees it.
type Database struct {
	ID             ID         `json:"id"`
	Name           string     `json:"name"`
	Organization   string     `json:"organization"`
	Plan           string     `json:"plan"` // the plan's name
	Limits         Limits     `json:"limits"`
	Eviction       bool       `json:"eviction"`
	EvictionPolicy string     `json:"eviction_policy"` // by which keys are chosen; noeviction without Eviction
	Durability     Durability `json:"durability"`
	PrimaryRegion  Region     `json:"primary_region"`
	ReplicaRegions []Region   `json:"replica_regions"`
	Address        netip.Addr `json:"address"` // on the organisation's network
	Created        time.Time  `json:"created"`
	State          string     `json:"state"` // "ready", or what is being done to it
	URL            string     `json:"url,omitempty"`
	Endpoints      []Endpoint `json:"endpoints,omitempty"`
}

// ServedByEdge is the role of an endpoint in a region that has an edge but no
// copy: its connections go to the nearest region that has one.
const ServedByEdge = "edge"

// Endpoint is a database seen from one region.
type Endpoint struct {
	Region       Region   `json:"region"`
	Role         string   `json:"role"`          // primary, replica or edge
	URL          string   `json:"url,omitempty"` // what a client in that region connects to
	State        State    `json:"state,omitempty"`
	Node         string   `json:"node,omitempty"`
	Applied      Position `json:"applied"`
	LagMS        int64    `json:"lag_ms"`
	Bytes        int64    `json:"bytes"`
	Keys         int64    `json:"keys"`
	Connections  int64    `json:"connections"`
	CommandsPerS int64    `json:"commands_per_s"`
	Delayed      int64    `json:"commands_delayed"`
	Asleep       bool     `json:"asleep,omitempty"` // nothing of it is in memory
	Resident     int64    `json:"resident_bytes"`   // in memory
	ColdKeys     int64    `json:"cold_keys"`        // whose values are on disk only
	ColdBytes    int64    `json:"cold_bytes"`
	HitRatio     float64  `json:"memory_hit_ratio"` // of commands, those that found all in memory
	WakeMS       int64    `json:"last_wake_ms"`     // how long it last took to come back into memory
}

// Edge is what an edge tells the platform about itself, at start, every few
// seconds, and when it has applied new routes.
type Edge struct {
	ID       string `json:"id"`
	Region   Region `json:"region"`
	Endpoint string `json:"endpoint"` // host or host:port where it accepts connections of tenants
	Gossip   string `json:"gossip,omitempty"`
	Applied  int64  `json:"applied"` // revision of the last route it serves
}

// EdgeSettings is the answer to an edge's report.
type EdgeSettings struct {
	Gossip []string `json:"gossip"` // where nodes and other edges can be met
}
