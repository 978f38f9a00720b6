package session

import (
	"vecino/catalog"
	"vecino/engine"
	"vecino/link"
	"vecino/replication"
)

// What a node looks at when it decides which databases leave memory. A database
// rests when nobody has asked for anything, and no entry has come, for some time.

// Active is when a client, another node or an expired key last had the tenant do
// something, in milliseconds since 1970. Any goroutine may ask.
func (t *Tenant) Active() int64 { return t.active.Load() }

// HitRatio is how many of the commands found all in memory, of 1. The lock is held.
func (t *Tenant) HitRatio() float64 { return hitRatio(t.Engine.Stats()) }

// Room is what SetRoom said last. Any goroutine that holds the lock may ask.
func (t *Tenant) Room() Room { return t.room }

// Vacant reports whether nothing would be missed if the tenant itself went, while
// its database sleeps: no connection, no session of another node, and no replica
// that follows. It is for a turn of the tenant, with the lock held.
func (t *Tenant) Vacant() bool {
	if t.Engine.State() != engine.Asleep || len(t.sessions)+len(t.remotes)+len(t.waits)+len(t.durable.waits)+len(t.durable.held)+len(t.replies) > 0 {
		return false
	}
	if t.dirty || t.late.any() || t.Unsynced() != 0 || t.hub.Patterns() > 0 {
		return false
	}
	return t.feed == nil || len(t.feed.Subscribers()) == 0
}

// Rouses reports whether a frame concerns also a database whose tenant is gone
// because it sleeps. Others are about what the tenant no longer knows of.
func Rouses(kind uint8) bool {
	return kind == awake || kind == forward || kind == interested || kind == replication.Subscribe
}

// tellResting tells the nodes whose copies don't follow that there is something
// new. A copy that rests stops following; it wakes, and asks for what it has
// missed. A copy that is not there at all learns nothing new by it.
func (t *Tenant) tellResting() {
	head := t.Engine.Position()
	if head == t.told {
		return
	}
	follows := make(map[string]bool, len(t.record.Copies))
	for _, s := range t.feed.Subscribers() {
		follows[s.Node] = true
	}
	missed := false
	for _, c := range t.record.Copies {
		if c.Role == catalog.Primary || c.Node == t.Host.Node() || follows[c.Node] {
			continue
		}
		if _, up := t.Host.Up(c.Node); !up || !t.Host.Send(c.Node, link.Live, frame(awake, t.record.ID, nil)) {
			missed = true // it is told when it can be reached
		}
	}
	if !missed {
		t.told = head
	}
}
