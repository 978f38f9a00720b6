// Package catalog says what databases there are: identity, address, limits,
// primary and replica regions, and which node holds which copy.
//
// The fleet owns the catalog and publishes it as a stream of versioned
// changes; nodes keep the part that concerns them, the platform turns it into
// routes for the edges. The types here are what all of them share. They are
// plain data: nothing in this package does I/O.
package catalog

import (
	"net/netip"

	"vecino/region"
)

// ID names one database for ever. It is never used again, also after the
// database was destroyed, so a late message can't reach the wrong one.
type ID uint64

// Position is a place in the history of one database: the write with number
// Seq, made under the ownership Epoch. Positions are ordered by epoch first.
// The zero Position is before every write.
type Position struct {
	Epoch uint32 `json:"epoch"`
	Seq   uint64 `json:"seq"`
}

// Covers reports whether a copy that has applied p shows the write w.
func (p Position) Covers(w Position) bool {
	return p.Epoch > w.Epoch || p.Epoch == w.Epoch && p.Seq >= w.Seq
}

// Role is what a copy of a database does.
type Role string

const (
	Primary Role = "primary"
	Replica Role = "replica"
)

// State is how far a copy has come. Edges send clients to live copies only.
type State string

const (
	Syncing  State = "syncing"  // it receives the snapshot and the log
	Live     State = "live"     // it has reached the head once in this epoch
	Draining State = "draining" // it has been taken out of the database
)

// Copy is one place where a database lives.
type Copy struct {
	Region region.Code `json:"region"`
	Node   string      `json:"node"`
	Role   Role        `json:"role"`
	State  State       `json:"state"`

	// Generation tells this copy from earlier ones of the same database in
	// the same place: a region taken out and put back starts afresh. It grows
	// with every copy added and is never 0.
	Generation uint64 `json:"generation"`
}

// Limits are what a plan allows one database. A zero means no limit.
type Limits struct {
	DataBytes     int64 `json:"data_bytes"`
	RequestBytes  int64 `json:"request_bytes"`
	RecordBytes   int64 `json:"record_bytes"`
	KeyBytes      int64 `json:"key_bytes"`
	CommandsPerS  int64 `json:"commands_per_s"`
	Connections   int64 `json:"connections"`
	ReadYourWrite int64 `json:"ryw_wait_ms"` // how long a write's reply is held for its entry; -1: never
}

// Database is one tenant's database as nodes need to know it.
type Database struct {
	ID         ID         `json:"id"`
	Name       string     `json:"name"`
	Address    netip.Addr `json:"address"`       // its private address; the PROXY header's destination
	Password   string     `json:"password_hash"` // hex of the SHA-256 of the password; the password itself is not stored here
	Plan       string     `json:"plan"`
	Limits     Limits     `json:"limits"`
	Eviction   bool       `json:"eviction"`
	Durability Durability `json:"durability,omitempty"` // empty: the default
	Policy     string     `json:"policy,omitempty"`     // which keys are evicted, optimistic-volatile if empty
	HashSeed   uint64     `json:"hash_seed"`            // keys the hash table, the same on every copy so that SCAN cursors are
	Epoch      uint32     `json:"epoch"`                // of the present primary's ownership
	Copies     []Copy     `json:"copies"`               // the primary first
	Made       uint64     `json:"made"`                 // how many copies it ever had: the highest Generation
	Revision   int64      `json:"revision"`             // of this record; grows with every change
}

// PrimaryCopy returns the copy that takes the writes. Every record has one.
func (d *Database) PrimaryCopy() *Copy {
	for i := range d.Copies {
		if d.Copies[i].Role == Primary {
			return &d.Copies[i]
		}
	}
	return nil
}

// CopyIn returns the copy that lives in a region, or nil.
func (d *Database) CopyIn(r region.Code) *Copy {
	for i := range d.Copies {
		if d.Copies[i].Region == r {
			return &d.Copies[i]
		}
	}
	return nil
}

// ReplicaRegions lists the regions of all copies but the primary, in order of
// the record.
func (d *Database) ReplicaRegions() []region.Code {
	regions := []region.Code{}
	for _, c := range d.Copies {
		if c.Role != Primary {
			regions = append(regions, c.Region)
		}
	}
	return regions
}

// CopyOn returns the copy that lives on a node, or nil.
func (d *Database) CopyOn(node string) *Copy {
	for i := range d.Copies {
		if d.Copies[i].Node == node {
			return &d.Copies[i]
		}
	}
	return nil
}

// Node is a data-plane process as others reach it.
type Node struct {
	ID     string      `json:"id"`
	Region region.Code `json:"region"`
	Proxy  string      `json:"proxy"`  // host:port for edges: connections with a PROXY header
	Link   string      `json:"link"`   // host:port for other nodes
	Gossip string      `json:"gossip"` // host:port for memberlist
}

// Event is one change of the catalog. Exactly one of Node, Database, Gone and
// Synced is set.
type Event struct {
	Revision int64     `json:"revision"`
	Node     *Node     `json:"node,omitempty"`
	Database *Database `json:"database,omitempty"`
	Gone     ID        `json:"gone,omitempty"`   // this database was destroyed
	Synced   bool      `json:"synced,omitempty"` // all that existed when the watch began has been sent
}
