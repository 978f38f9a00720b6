package edge

import (
	"slices"
	"time"

	"vecino/api"
	"vecino/region"
)

// standing is what can be expected of a node, best first.
type standing int

const (
	fine      standing = iota // or nothing is known, which is no reason to doubt it
	unwilling                 // it drains, or says that it isn't well
	failing                   // it couldn't be dialled a moment ago
	gone                      // the pool misses it
)

// condition is what an edge knows of a node when it picks one.
type condition struct {
	standing standing
	busy     bool // above its soft limit
	full     bool // at its hard limit
	load     float64
}

// pick returns the index of the copy that a new connection goes to, or -1. The
// better standing counts first, then the shorter round trip, then not being
// busy, then the load; ties are broken by name, so that every edge of a region
// does the same. Nodes that are full or were tried already are left out; those
// that are failing or gone are not, since a doubtful node is better than none.
func pick(serving []api.Serving, roundTrip func(to region.Code) time.Duration, of func(node string) condition, tried []string) int {
	best := -1
	var bestRank rank
	for i, s := range serving {
		if slices.Contains(tried, s.Node) {
			continue
		}
		c := of(s.Node)
		if c.full {
			continue
		}
		r := rank{c.standing, roundTrip(s.Region), c.busy, c.load, s.Node}
		if best < 0 || r.before(bestRank) {
			best, bestRank = i, r
		}
	}
	return best
}

// farAway is further than any two places on the map.
const farAway = time.Hour

type rank struct {
	standing  standing
	roundTrip time.Duration
	busy      bool
	load      float64
	node      string
}

func (r rank) before(s rank) bool {
	switch {
	case r.standing != s.standing:
		return r.standing < s.standing
	case r.roundTrip != s.roundTrip:
		return r.roundTrip < s.roundTrip
	case r.busy != s.busy:
		return !r.busy
	case r.load != s.load:
		return r.load < s.load
	}
	return r.node < s.node
}

// roundTrip is how far another region is: as simulated, or as on the map. One
// that isn't on the map is further than all that are.
func (e *Edge) roundTrip(to region.Code) time.Duration {
	here := e.cfg.Region
	switch {
	case to == here:
		return 0
	case e.distance != nil:
		return e.distance.Delay(here, to) + e.distance.Delay(to, here)
	}
	if rtt := region.RTT(here, to); rtt > 0 {
		return rtt
	}
	return farAway
}
