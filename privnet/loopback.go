package privnet

import (
	"net/netip"
)

// RedisPort is the port of every database at its private address.
const RedisPort = 6379

// Loopback is the Source for a world on one machine: it listens on a loopback
// address for each database, which stands for the database's private address
// as seen from one region. So it can tell by the listener what a client meant
// to dial, needs no privilege, and any Redis client can use it.
//
// Who dials is not known; all clients appear as one machine of the network they
// dialled into, whose host number stands for the region.
//
// On Linux all listeners share one epoll instance and one goroutine, since there
// are as many as databases.
//
//	Set opens and closes listeners, any time, from any goroutine
//	Serve accepts from them
//	Close closes all
type Loopback struct {
	host Host
	loopbackState
}

// ends are the two addresses of a connection to a database.
func (l *Loopback) ends(database netip.Addr, peer netip.AddrPort) (source, destination netip.AddrPort) {
	a, _ := Parse(database)
	machine := Machine(a.Network, l.host, 1)
	return netip.AddrPortFrom(machine, peer.Port()), netip.AddrPortFrom(database, RedisPort)
}
