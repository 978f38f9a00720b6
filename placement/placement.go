// Package placement says which nodes hold which database: a pure function of
// the catalog and its nodes.
//
// The fleet asks it at every change of a database's regions. Copies that are
// still wanted stay where they are; a new one goes to the node of its region
// that holds the fewest, so that a region fills evenly.
package placement

import (
	"fmt"
	"slices"

	"vecino/catalog"
	"vecino/region"
)

// NoNode is returned when a region has no node to put a copy on.
type NoNode struct{ Region region.Code }

func (e NoNode) Error() string { return fmt.Sprintf("no node in region %s", e.Region) }

// Repeated is returned when a region is named twice: a database has at most
// one copy in each.
type Repeated struct{ Region region.Code }

func (e Repeated) Error() string { return fmt.Sprintf("region %s is named twice", e.Region) }

// Load counts the copies each node holds.
func Load(databases []catalog.Database) map[string]int {
	load := map[string]int{}
	for i := range databases {
		for _, c := range databases[i].Copies {
			load[c.Node]++
		}
	}
	return load
}

// Place returns d with the copies it should have: the primary's region first,
// then the replicas' in the order given. New copies are syncing and have a
// generation of their own. d itself is not changed, nor is what its Copies
// point to.
func Place(d catalog.Database, primary region.Code, replicas []region.Code, nodes []catalog.Node, load map[string]int) (catalog.Database, error) {
	wanted := append([]region.Code{primary}, replicas...)
	copies := make([]catalog.Copy, 0, len(wanted))
	for i, r := range wanted {
		if slices.Contains(wanted[:i], r) {
			return d, Repeated{r}
		}
		role := catalog.Replica
		if i == 0 {
			role = catalog.Primary
		}
		if old := d.CopyIn(r); old != nil {
			kept := *old
			kept.Role = role
			copies = append(copies, kept)
			continue
		}
		node, ok := emptiest(r, nodes, load)
		if !ok {
			return d, NoNode{r}
		}
		d.Made++
		copies = append(copies, catalog.Copy{Region: r, Node: node, Role: role, State: catalog.Syncing, Generation: d.Made})
	}
	d.Copies = copies
	return d, nil
}

// emptiest is the node of a region with the fewest copies, ties by ID.
func emptiest(r region.Code, nodes []catalog.Node, load map[string]int) (id string, ok bool) {
	for _, n := range nodes {
		if n.Region != r {
			continue
		}
		if !ok || load[n.ID] < load[id] || load[n.ID] == load[id] && n.ID < id {
			id, ok = n.ID, true
		}
	}
	return id, ok
}
