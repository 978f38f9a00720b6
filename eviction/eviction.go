// Package eviction knows which keys go first when a database is full: the
// policies by name, the clock that says when and how often a key was used, and
// the pool of candidates. It sees no keys' values and no table; package
// keyspace samples keys and asks here which of them to give up.
//
// Redis's documents describe the ideas: sampling with a pool for an
// approximate LRU, and a logarithmic counter that decays for LFU.
package eviction

import (
	"fmt"
	"strings"
)

// Policy is what a database does when it is full.
type Policy uint8

const (
	// NoEviction refuses commands that would grow the database.
	NoEviction Policy = iota
	// The AllKeys policies give up any key: the one that wasn't used for
	// longest, the one used least often, or one at random.
	AllKeysLRU
	AllKeysLFU
	AllKeysRandom
	// The Volatile policies give up only keys with a deadline, the last of
	// them the one that expires first. Without such keys they are NoEviction.
	VolatileLRU
	VolatileLFU
	VolatileRandom
	VolatileTTL
	// OptimisticVolatile gives up keys with a deadline at random while there
	// are some, and then any. It is what "eviction: yes" means.
	OptimisticVolatile

	policies = iota
)

var names = [policies]string{
	"noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random",
	"volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl", "optimistic-volatile",
}

func (p Policy) String() string {
	if int(p) < len(names) {
		return names[p]
	}
	return fmt.Sprintf("policy %d", uint8(p))
}

// Names are the names of all policies.
func Names() []string { return names[:] }

// Parse finds a policy by its name, in any case.
func Parse(name string) (Policy, error) {
	for p, n := range names {
		if strings.EqualFold(n, name) {
			return Policy(p), nil
		}
	}
	return NoEviction, fmt.Errorf("there is no eviction policy %q; choose one of %s", name, strings.Join(names[:], ", "))
}

// Of is the policy of a database whose record says whether it evicts and,
// where that was chosen, by which policy. A name that this version doesn't
// know, from a newer one, counts as none.
func Of(evicts bool, name string) Policy {
	if !evicts {
		return NoEviction
	}
	if p, err := Parse(name); err == nil && p != NoEviction {
		return p
	}
	return OptimisticVolatile
}

// LRU reports whether a policy goes by when keys were used last.
func (p Policy) LRU() bool { return p == AllKeysLRU || p == VolatileLRU }

// LFU reports whether a policy goes by how often keys were used.
func (p Policy) LFU() bool { return p == AllKeysLFU || p == VolatileLFU }

// Volatile reports whether a policy spares keys without a deadline.
func (p Policy) Volatile() bool { return VolatileLRU <= p && p <= VolatileTTL }

// Samples is how many keys are looked at for each key that is given up, if
// nobody says otherwise. More come closer to the policy and cost more.
const (
	Samples    = 5
	MaxSamples = 64
)
