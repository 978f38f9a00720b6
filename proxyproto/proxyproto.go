// Package proxyproto reads and writes PROXY headers, versions 1 and 2: who was
// called, and by whom.
//
// An edge writes one in front of every connection that it hands to a node, and
// the node learns from the destination which database the client dialled. The
// header is thus the tenant's identity, so Parse is strict: it takes exactly
// what the specification allows of IPv6 over TCP, and names a reason for all
// else. Nothing in here does I/O; the caller keeps the bytes.
//
// Version 1 is one line:
//
//	PROXY TCP6 fdaa:0:1:2::3 fdaa:0:1:0:1::2 51234 6379\r\n
//
// Version 2 is binary, and may carry typed values (TLV) behind the addresses:
//
//	0        12    13     14     16      32      48    50    52
//	signature|ver+cmd|family|length|source|dest   |sport|dport|type,length,value…
//
// Between our own edge and node one of these values is a signature, see Sign.
package proxyproto

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
)

// The sizes at which Parse stops waiting for more. The first is fixed by the
// specification, the second is ours: room for the addresses and 484 bytes of
// values, in the one packet that a header must fit into.
const (
	MaxV1 = 107
	MaxV2 = 536
)

// What is wrong with a header. Each is a reason of its own for a node to count;
// all of them mean that the connection must be refused.
var (
	ErrMissing   = errors.New("no PROXY header")                             // the first bytes are something else
	ErrMalformed = errors.New("PROXY header is malformed")                   // it begins as one and breaks the grammar
	ErrOversized = errors.New("PROXY header is too long")                    // it doesn't end, or says it won't, within MaxV1 or MaxV2
	ErrFamily    = errors.New("PROXY header is not of TCP over IPv6")        // well formed, but of another family
	ErrLocal     = errors.New("PROXY header of command LOCAL")               // a health check: nobody was called
	ErrUnsigned  = errors.New("PROXY header carries no signature")           // Verify: there is no signature at the end of the values
	ErrSignature = errors.New("PROXY header's signature is wrong")           // Verify: made with another key, or the header was changed
	ErrStale     = errors.New("PROXY header's signature is of another time") // Verify: made too long ago, or in the future
)

// Header says who called whom.
type Header struct {
	Version     int // 1 or 2
	Source      netip.AddrPort
	Destination netip.AddrPort
	// TLVs are version 2's typed values as they came, known to be well formed.
	// They alias what was given to Parse.
	TLVs []byte
}

// signature opens every header of version 2.
const signature = "\r\n\r\n\x00\r\nQUIT\n"

const (
	prefixV1 = "PROXY "
	fixedV2  = 16 // bytes up to and including the length
	addrsV2  = 36 // two IPv6 addresses and two ports
)

// Parse reads the header at the head of buf and returns how many bytes of it
// the header takes. When n is 0 and err nil the header isn't all there yet: call
// again with the same bytes and more. At most MaxV2 bytes are ever asked for. An
// error is one of the sentinels above, and is returned as soon as no further
// bytes could mend it; with ErrLocal and ErrFamily n says where the header ends.
func Parse(buf []byte) (h Header, n int, err error) {
	if len(buf) == 0 {
		return h, 0, nil
	}
	switch {
	case buf[0] == prefixV1[0]:
		if !sharesPrefix(buf, prefixV1) {
			return h, 0, ErrMissing
		}
		return parseV1(buf)
	case buf[0] == signature[0]:
		if !sharesPrefix(buf, signature) {
			return h, 0, ErrMissing
		}
		return parseV2(buf)
	}
	return h, 0, ErrMissing
}

// sharesPrefix reports whether buf begins with prefix as far as it goes.
func sharesPrefix(buf []byte, prefix string) bool {
	n := min(len(buf), len(prefix))
	return string(buf[:n]) == prefix[:n]
}

func parseV1(buf []byte) (Header, int, error) {
	line := buf[:min(len(buf), MaxV1)]
	end := -1
	for i, c := range line {
		if c == '\r' {
			end = i
			break
		}
		if c < ' ' || c > '~' {
			return Header{}, 0, ErrMalformed
		}
	}
	switch {
	case end < 0 && len(line) >= MaxV1-1: // not even a CR where the last one can be
		return Header{}, 0, ErrOversized
	case end < 0 || end+1 == len(buf):
		if end == MaxV1-1 { // the LF would be one byte too far
			return Header{}, 0, ErrOversized
		}
		return Header{}, 0, nil
	case end+2 > MaxV1:
		return Header{}, 0, ErrOversized
	case buf[end+1] != '\n':
		return Header{}, 0, ErrMalformed
	}
	n := end + 2
	family, rest, _ := cut(string(line[len(prefixV1):end]))
	switch family {
	case "TCP6":
	case "TCP4", "UNKNOWN": // what follows UNKNOWN is to be ignored
		return Header{}, n, ErrFamily
	default:
		return Header{}, 0, ErrMalformed
	}
	source, rest, _ := cut(rest)
	destination, rest, _ := cut(rest)
	sport, dport, found := cut(rest)
	h := Header{Version: 1}
	var ok [4]bool
	var from, to netip.Addr
	var fromPort, toPort uint16
	from, ok[0] = parseAddr(source)
	to, ok[1] = parseAddr(destination)
	fromPort, ok[2] = parsePort(sport)
	toPort, ok[3] = parsePort(dport)
	if !found || ok != [4]bool{true, true, true, true} {
		return Header{}, 0, ErrMalformed
	}
	h.Source = netip.AddrPortFrom(from, fromPort)
	h.Destination = netip.AddrPortFrom(to, toPort)
	return h, n, nil
}

// cut splits at the first space; the specification has exactly one between two
// words, so an empty word later fails as an address or a port.
func cut(s string) (word, rest string, found bool) {
	for i := range len(s) {
		if s[i] == ' ' {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// parseAddr takes an IPv6 address in hexadecimal digits and colons only: no
// zone, and no IPv4 address in its tail.
func parseAddr(s string) (netip.Addr, bool) {
	for i := range len(s) {
		if s[i] == '.' || s[i] == '%' {
			return netip.Addr{}, false
		}
	}
	addr, err := netip.ParseAddr(s)
	return addr, err == nil && addr.Is6()
}

// parsePort takes 0 to 65535 without leading zeros or a sign.
func parsePort(s string) (uint16, bool) {
	if len(s) == 0 || len(s) > 5 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	port := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		port = port*10 + int(s[i]-'0')
	}
	return uint16(port), port <= 65535
}

const (
	versionCommandLocal = 0x20
	versionCommandProxy = 0x21
	familyTCP6          = 0x21
)

func parseV2(buf []byte) (Header, int, error) {
	// Each byte is judged as soon as it is there.
	if len(buf) > 12 && buf[12] != versionCommandLocal && buf[12] != versionCommandProxy {
		return Header{}, 0, ErrMalformed
	}
	if len(buf) > 13 {
		switch buf[13] {
		case 0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32:
		default:
			return Header{}, 0, ErrMalformed
		}
	}
	if len(buf) < fixedV2 {
		return Header{}, 0, nil
	}
	n := fixedV2 + int(binary.BigEndian.Uint16(buf[14:]))
	if n > MaxV2 {
		return Header{}, 0, ErrOversized
	}
	local, tcp6 := buf[12] == versionCommandLocal, buf[13] == familyTCP6
	if !local && tcp6 && n < fixedV2+addrsV2 {
		return Header{}, 0, ErrMalformed
	}
	if len(buf) < n {
		return Header{}, 0, nil
	}
	if local { // its addresses, if any, are to be ignored
		return Header{}, n, ErrLocal
	}
	if !tcp6 {
		return Header{}, n, ErrFamily
	}
	b := buf[fixedV2:n]
	h := Header{
		Version:     2,
		Source:      netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[:16])), binary.BigEndian.Uint16(b[32:])),
		Destination: netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[16:32])), binary.BigEndian.Uint16(b[34:])),
		TLVs:        b[addrsV2:],
	}
	// An IPv4 address in IPv6's clothes is refused as in version 1, so that one
	// tuple has one spelling.
	if h.Source.Addr().Is4In6() || h.Destination.Addr().Is4In6() {
		return Header{}, 0, ErrMalformed
	}
	if !validTLVs(buf[:n], h.TLVs) {
		return Header{}, 0, ErrMalformed
	}
	return h, n, nil
}

// Types of values in a header of version 2.
const (
	TypeCRC32C    byte = 0x03 // a checksum of the whole header, checked by Parse
	TypeSignature byte = 0xE0 // ours, see Sign
)

// validTLVs reports whether the values end where the header ends, and whether
// the checksum fits if there is one.
func validTLVs(header, tlvs []byte) bool {
	for len(tlvs) > 0 {
		typ, value, rest, ok := NextTLV(tlvs)
		if !ok {
			return false
		}
		if typ == TypeCRC32C {
			if len(value) != 4 || checksum(header, value) != binary.BigEndian.Uint32(value) {
				return false
			}
		}
		tlvs = rest
	}
	return true
}

// checksum is the CRC of a header with the field that carries it as zeros.
// field is a slice of header, and their capacities tell where in it.
func checksum(header, field []byte) uint32 {
	at := cap(header) - cap(field)
	var zeros [4]byte
	crc := crc32.Update(0, castagnoli, header[:at])
	crc = crc32.Update(crc, castagnoli, zeros[:])
	return crc32.Update(crc, castagnoli, header[at+4:])
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// NextTLV splits the first value off a header's TLVs. ok is false when they are
// empty or cut short, which Parse has excluded.
func NextTLV(tlvs []byte) (typ byte, value, rest []byte, ok bool) {
	if len(tlvs) < 3 {
		return 0, nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(tlvs[1:]))
	if len(tlvs) < 3+n {
		return 0, nil, nil, false
	}
	return tlvs[0], tlvs[3 : 3+n], tlvs[3+n:], true
}

// AppendV1 appends a header of version 1. Both addresses must be IPv6; for any
// other it appends the header of an unknown family, which Parse refuses.
func AppendV1(dst []byte, source, destination netip.AddrPort) []byte {
	if !plain6(source.Addr()) || !plain6(destination.Addr()) {
		return append(dst, "PROXY UNKNOWN\r\n"...)
	}
	dst = append(dst, "PROXY TCP6 "...)
	dst = source.Addr().WithZone("").AppendTo(dst)
	dst = append(dst, ' ')
	dst = destination.Addr().WithZone("").AppendTo(dst)
	dst = append(dst, ' ')
	dst = appendPort(dst, source.Port())
	dst = append(dst, ' ')
	dst = appendPort(dst, destination.Port())
	return append(dst, "\r\n"...)
}

func plain6(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }

func appendPort(dst []byte, port uint16) []byte {
	var digits [5]byte
	i := len(digits)
	for {
		i--
		digits[i] = '0' + byte(port%10)
		if port /= 10; port == 0 {
			return append(dst, digits[i:]...)
		}
	}
}

// AppendV2 appends a header of version 2 with values, as AppendTLV makes them,
// behind the addresses. The values must leave the header within MaxV2. For
// addresses that aren't IPv6 it appends a header of an unspecified family.
func AppendV2(dst []byte, source, destination netip.AddrPort, tlvs []byte) []byte {
	dst = append(dst, signature...)
	if !plain6(source.Addr()) || !plain6(destination.Addr()) {
		return append(dst, versionCommandProxy, 0, 0, 0)
	}
	dst = append(dst, versionCommandProxy, familyTCP6)
	dst = binary.BigEndian.AppendUint16(dst, uint16(addrsV2+len(tlvs)))
	from, to := source.Addr().As16(), destination.Addr().As16()
	dst = append(dst, from[:]...)
	dst = append(dst, to[:]...)
	dst = binary.BigEndian.AppendUint16(dst, source.Port())
	dst = binary.BigEndian.AppendUint16(dst, destination.Port())
	return append(dst, tlvs...)
}

// AppendLocal appends a header of version 2 of somebody who only looks whether
// there is anybody. It is answered, with ErrLocal in mind, by closing.
func AppendLocal(dst []byte) []byte {
	return append(append(dst, signature...), versionCommandLocal, 0, 0, 0)
}

// AppendTLV appends one value to the values of a header of version 2.
func AppendTLV(dst []byte, typ byte, value []byte) []byte {
	dst = append(dst, typ)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(value)))
	return append(dst, value...)
}
