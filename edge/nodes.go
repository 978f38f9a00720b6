package edge

import (
	"sync"
	"time"

	"vecino/gossip"
)

// After a node couldn't be dialled it is avoided for a while, which doubles
// with each further failure and ends when the pool hears of it. When it is over
// one connection tries, and the others wait for how that goes.
const (
	minPenalty = 250 * time.Millisecond
	maxPenalty = time.Second
)

// nodes is what an edge knows of the nodes: what the pool says, how dialling
// them went, and how many connections they have from here.
type nodes struct {
	now func() time.Time
	mu  struct {
		sync.Mutex
		byID map[string]*node
		all  int // connections
	}
}

type node struct {
	conns        int
	unwilling    bool
	gone         bool
	load         float64
	penalty      time.Duration // of the last failure; 0 when dialling succeeds
	avoidedUntil time.Time
}

func newNodes() *nodes {
	n := &nodes{now: time.Now}
	n.mu.byID = make(map[string]*node)
	return n
}

func (n *nodes) getLocked(id string) *node {
	known := n.mu.byID[id]
	if known == nil {
		known = &node{}
		n.mu.byID[id] = known
	}
	return known
}

// heard takes in what the pool says.
func (n *nodes) heard(c gossip.Change) {
	n.mu.Lock()
	defer n.mu.Unlock()
	node := n.getLocked(c.Member.ID)
	node.gone = c.What == gossip.Gone
	node.unwilling = c.Member.Draining || !c.Member.Healthy
	node.load = c.Member.Load
	if c.What == gossip.Joined { // it has come back
		node.penalty, node.avoidedUntil = 0, time.Time{}
	}
}

// condition is what pick wants to know, given the limits of connections.
func (n *nodes) condition(id string, soft, hard int) condition {
	n.mu.Lock()
	defer n.mu.Unlock()
	node := n.getLocked(id)
	c := condition{busy: node.conns >= soft, full: node.conns >= hard, load: node.load}
	switch {
	case node.gone:
		c.standing = gone
	case n.now().Before(node.avoidedUntil):
		c.standing = failing
	case node.unwilling:
		c.standing = unwilling
	}
	return c
}

// dialling counts a connection that is about to be made.
func (n *nodes) dialling(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	node := n.getLocked(id)
	node.conns++
	n.mu.all++
	if node.penalty > 0 {
		node.avoidedUntil = n.now().Add(connectTimeout) // until we know more
	}
}

// connected says that dialling went well.
func (n *nodes) connected(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	node := n.getLocked(id)
	node.penalty, node.avoidedUntil = 0, time.Time{}
}

// failed says that it didn't. The connection is ended, too.
func (n *nodes) failed(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	node := n.getLocked(id)
	node.penalty = min(max(2*node.penalty, minPenalty), maxPenalty)
	node.avoidedUntil = n.now().Add(node.penalty)
	node.conns--
	n.mu.all--
}

// ended counts a connection that is no more.
func (n *nodes) ended(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.getLocked(id).conns--
	n.mu.all--
}

// connections is how many there are to all nodes.
func (n *nodes) connections() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.all
}
