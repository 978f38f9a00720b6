package world

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
	"time"

	"vecino/region"
)

// Ports are named by what they are for. Those of a region have its code in
// front: "mad.link".
const (
	fleetPort         = "fleet"
	fleetAdminPort    = "fleet-admin"
	platformPort      = "platform"
	platformAdminPort = "platform-admin"

	nodeProxyPort  = "proxy"
	nodeLinkPort   = "link"
	nodeGossipPort = "gossip"
	nodeAdminPort  = "admin"
	edgeGossipPort = "edge-gossip"
	edgeAdminPort  = "edge-admin"
)

var regionPorts = []string{nodeProxyPort, nodeLinkPort, nodeGossipPort, nodeAdminPort, edgeGossipPort, edgeAdminPort}

func portOf(r region.Code, what string) string { return string(r) + "." + what }

// portNames lists the ports a world needs, in the order in which they are
// given out.
func portNames(regions []region.Code) []string {
	names := []string{fleetPort, fleetAdminPort, platformPort, platformAdminPort}
	for _, r := range regions {
		for _, what := range regionPorts {
			names = append(names, portOf(r, what))
		}
	}
	return names
}

// Worlds that don't choose their ports take them in blocks, from below those
// that the kernel gives to clients.
const (
	firstBlock = 20_000
	blockSize  = 100
	blocks     = 120

	// dataPort is where databases answer if nothing else does.
	dataPort = 6379

	// portPatience is how long a port that was ours may be taken: by processes
	// of a world that was killed this moment.
	portPatience = 2 * time.Second
)

// claimHost and claimDataHost are where a world listens, to nobody, for as
// long as it lives, to tell other worlds on this machine which blocks and
// which data port are taken. Databases are on 127.100.0.0 and up.
const (
	claimHost     = "127.99.0.1"
	claimDataHost = "127.99.0.2"
)

// choosePorts makes sure that each port has a number that is free, the one it
// had before if possible.
func (w *World) choosePorts() error {
	r := &w.record
	deadline := time.Now().Add(portPatience)
	var missing []string
	for _, name := range portNames(r.Regions) {
		port := r.Ports[name]
		if port != 0 && !freeBefore(port, deadline) {
			w.tell(Event{What: PortMoved, Process: name, Detail: fmt.Sprintf("can't have port %d any more, which is taken; it gets another", port)})
			port = 0
		}
		if port == 0 {
			missing = append(missing, name)
		}
	}
	if err := w.fillPorts(missing); err != nil {
		return err
	}
	return w.chooseDataPort(deadline)
}

// fillPorts gives numbers to those who have none.
func (w *World) fillPorts(names []string) error {
	if len(names) == 0 {
		return nil
	}
	taken := map[int]bool{}
	for _, p := range w.record.Ports {
		taken[p] = true
	}
	next := func(from, to int) int {
		for ; from < to; from++ {
			if !taken[from] && free(from) {
				return from
			}
		}
		return 0
	}
	if base := w.cfg.BasePort; base != 0 {
		for _, name := range names {
			port := next(base, 1<<16)
			if port == 0 {
				return fmt.Errorf("there are no free ports from %d up", base)
			}
			if port != base {
				w.tell(Event{What: PortMoved, Process: name, Detail: fmt.Sprintf("can't have port %d, which is taken; it gets %d", base, port)})
			}
			w.record.Ports[name] = port
			taken[port] = true
			base = port + 1
		}
		return nil
	}
	for _, i := range rand.Perm(blocks) {
		block := firstBlock + i*blockSize
		if !w.claim(claimHost, block) {
			continue
		}
		at := block
		for len(names) > 0 {
			port := next(at, block+blockSize)
			if port == 0 {
				break
			}
			w.record.Ports[names[0]] = port
			taken[port] = true
			names, at = names[1:], port+1
		}
		if len(names) == 0 {
			return nil
		}
	}
	return errors.New("there are not enough free ports")
}

// claim tells other worlds that a port is taken.
func (w *World) claim(host string, port int) bool {
	l, err := net.Listen("tcp", hostPort(host, port))
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		return true // a system with one loopback address; it will have to go without
	}
	if err != nil {
		return false
	}
	w.claims = append(w.claims, l)
	return true
}

// chooseDataPort picks the port of all databases. Their addresses are their
// own, so one port will do, and it can be the one that Redis has.
func (w *World) chooseDataPort(deadline time.Time) error {
	old := w.record.DataPort
	for old != 0 {
		if w.claim(claimDataHost, old) {
			return nil
		}
		if time.Now().After(deadline) {
			break
		}
		time.Sleep(portPause)
	}
	for port := dataPort; port < firstBlock; port += 1000 {
		if port != old && w.quiet(port) && w.claim(claimDataHost, port) {
			if old != 0 {
				w.tell(Event{What: PortMoved, Detail: fmt.Sprintf("port %d of the databases is taken; it is %d now, so their URLs have changed", old, port)})
			}
			w.record.DataPort = port
			return nil
		}
	}
	return errors.New("there is no free port for databases")
}

// quiet reports whether nothing else listens on the port where databases are
// going to.
func (w *World) quiet(port int) bool {
	for i := range w.record.Regions {
		for number := range 4 {
			l, err := net.Listen("tcp", hostPort(fmt.Sprintf("127.%d.0.%d", 100+i, number), port))
			if errors.Is(err, syscall.EADDRINUSE) {
				return false
			}
			if err == nil {
				l.Close()
			}
		}
	}
	return true
}

const portPause = 20 * time.Millisecond

// freeBefore waits for a port to become free.
func freeBefore(port int, deadline time.Time) bool {
	for !free(port) {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(portPause)
	}
	return true
}

// free reports whether a port can be had where processes listen.
func free(port int) bool {
	for _, host := range []string{"127.0.0.1", gossipHost} {
		l, err := net.Listen("tcp", hostPort(host, port))
		if err != nil {
			return false
		}
		l.Close()
		u, err := net.ListenPacket("udp", hostPort(host, port))
		if err != nil {
			return false
		}
		u.Close()
	}
	return true
}

// gossipHost is where members of the pool listen: on IPv6, as between
// machines, or on IPv4 where the machine has no other.
var gossipHost = func() string {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		return "127.0.0.1"
	}
	l.Close()
	return "::1"
}()

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// at is the address that a port's name stands for.
func (w *World) at(name string) string { return hostPort("127.0.0.1", w.record.Ports[name]) }

func (w *World) gossipAt(name string) string { return hostPort(gossipHost, w.record.Ports[name]) }
