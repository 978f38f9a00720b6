// Package privnet knows the private IPv6 networks: one for each organisation,
// and how an address in it is minted and read.
//
// An address is 128 bits:
//
//	fdaa : nnnn:nnnn : hhhh:hhhh : dddd:dddd:dddd
//	16     32          32          48              bits
//
//	fdaa   every private network begins like this
//	n      the network: one organisation's
//	h      who the address belongs to: 0:1 to a database, whatever region it
//	       is reached from; anything else to one machine of the organisation
//	d      a database: its number on the network; 2 is the first and none is
//	       given out twice. A machine: its own choice.
//
// So a database's address reads fdaa:<network>:0:1::<number>, and that two
// addresses are of one organisation is seen by their first 48 bits alone.
//
// The platform mints, the edge checks source against destination, the node
// looks the destination up. Where connections come from is the drivers' part.
package privnet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Network is the number of one organisation's network.
type Network uint32

// Host says who within a network an address belongs to.
type Host uint32

// Databases is the Host of every database.
const Databases Host = 1

// FirstNumber is the number of the first database of a network.
const FirstNumber = 2

// maxNumber fits the 48 bits of an address behind network and host.
const maxNumber = 1<<48 - 1

// prefix is how every private address begins.
const prefix = 0xfdaa

// Address is a private address taken apart.
type Address struct {
	Network Network
	Host    Host
	Number  uint64 // of the database; a machine's own choice
}

// Mint makes the address of database n of a network. A number outside of
// FirstNumber to 2^48-1 is a bug of the caller's.
func Mint(network Network, n uint64) netip.Addr {
	if n < FirstNumber || n > maxNumber {
		panic(fmt.Sprintf("privnet: database number %d out of range", n))
	}
	return Address{network, Databases, n}.Addr()
}

// Machine makes an address of a machine. The host must not be that of the
// databases, or a client could claim to be one.
func Machine(network Network, host Host, n uint64) netip.Addr {
	if host == Databases || n > maxNumber {
		panic(fmt.Sprintf("privnet: machine %x number %d out of range", uint32(host), n))
	}
	return Address{network, host, n}.Addr()
}

// Addr puts an address together.
func (a Address) Addr() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint16(b[0:], prefix)
	binary.BigEndian.PutUint32(b[2:], uint32(a.Network))
	binary.BigEndian.PutUint32(b[6:], uint32(a.Host))
	binary.BigEndian.PutUint16(b[10:], uint16(a.Number>>32))
	binary.BigEndian.PutUint32(b[12:], uint32(a.Number))
	return netip.AddrFrom16(b)
}

// Parse takes an address apart. It is false for one that is not private, also
// for IPv4, IPv4 in IPv6, and an address with a zone.
func Parse(addr netip.Addr) (Address, bool) {
	if !addr.Is6() || addr.Zone() != "" {
		return Address{}, false
	}
	b := addr.As16()
	if binary.BigEndian.Uint16(b[0:]) != prefix {
		return Address{}, false
	}
	return Address{
		Network: Network(binary.BigEndian.Uint32(b[2:])),
		Host:    Host(binary.BigEndian.Uint32(b[6:])),
		Number:  uint64(binary.BigEndian.Uint16(b[10:]))<<32 | uint64(binary.BigEndian.Uint32(b[12:])),
	}, true
}

// SameNetwork reports whether both addresses are private and of one
// organisation.
func SameNetwork(a, b netip.Addr) bool {
	x, ok := Parse(a)
	y, ok2 := Parse(b)
	return ok && ok2 && x.Network == y.Network
}

// IsDatabase reports whether an address is one that Mint can make.
func IsDatabase(addr netip.Addr) bool {
	a, ok := Parse(addr)
	return ok && a.Host == Databases && a.Number >= FirstNumber
}

// Prefix is the part that all addresses of a network begin with.
func (n Network) Prefix() netip.Prefix {
	return netip.PrefixFrom(Address{Network: n}.Addr(), 48)
}

func (n Network) String() string { return n.Prefix().String() }
