package proxyproto

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	oracle "github.com/pires/go-proxyproto"
)

var (
	source      = netip.MustParseAddrPort("[fdaa:0:1:a7b::3]:51234")
	destination = netip.MustParseAddrPort("[fdaa:0:1:0:1::2]:6379")
)

// v2 builds a header by hand, so that what AppendV2 would never write can be
// written too.
func v2(verCmd, family byte, length int, body ...[]byte) string {
	b := append([]byte(signature), verCmd, family)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	return string(b) + string(bytes.Join(body, nil))
}

func addrs() []byte {
	return AppendV2(nil, source, destination, nil)[fixedV2:]
}

func TestParse(t *testing.T) {
	longest := "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
	withCRC := func(flip byte) string {
		h := AppendV2(nil, source, destination, AppendTLV(AppendTLV(nil, TypeCRC32C, make([]byte, 4)), 0x05, []byte("x")))
		field := h[fixedV2+addrsV2+3:][:4]
		binary.BigEndian.PutUint32(field, checksum(h, field)^uint32(flip))
		return string(h)
	}
	for _, tc := range []struct {
		name string
		in   string
		rest int // bytes behind the header
		err  error
	}{
		{"v1", "PROXY TCP6 fdaa:0:1:a7b::3 fdaa:0:1:0:1::2 51234 6379\r\n", 0, nil},
		{"v1 followed by a command", "PROXY TCP6 fdaa:0:1:a7b::3 fdaa:0:1:0:1::2 51234 6379\r\nPING\r\n", 6, nil},
		{"v1 in capitals and in full", "PROXY TCP6 FDAA:0000:0001:0A7B:0:0:0:3 fdaa:0:1:0:1::2 51234 6379\r\n", 0, nil},
		{"v1 as long as IPv6 gets", longest, 0, nil},
		{"v1 of an unknown family", "PROXY UNKNOWN\r\n", 0, ErrFamily},
		{"v1 of an unknown family with more", "PROXY UNKNOWN ffff::1 what ever\r\nPING", 4, ErrFamily},
		{"v1 of IPv4", "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", 0, ErrFamily},
		{"v1 of no family", "PROXY \r\n", 0, ErrMalformed},
		{"v1 of a family that isn't", "PROXY TCP5 ::1 ::2 1 2\r\n", 0, ErrMalformed},
		{"v1 in small letters", "proxy TCP6 ::1 ::2 1 2\r\n", 0, ErrMissing},
		{"v1 with IPv4 as TCP6", "PROXY TCP6 10.0.0.1 10.0.0.2 1 2\r\n", 0, ErrMalformed},
		{"v1 with IPv4 in IPv6", "PROXY TCP6 ::ffff:10.0.0.1 ::2 1 2\r\n", 0, ErrMalformed},
		{"v1 with a zone", "PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n", 0, ErrMalformed},
		{"v1 with two spaces", "PROXY TCP6  ::1 ::2 1 2\r\n", 0, ErrMalformed},
		{"v1 with a space at the end", "PROXY TCP6 ::1 ::2 1 2 \r\n", 0, ErrMalformed},
		{"v1 with a tab", "PROXY TCP6 ::1\t::2 1 2\r\n", 0, ErrMalformed},
		{"v1 with one port", "PROXY TCP6 ::1 ::2 1\r\n", 0, ErrMalformed},
		{"v1 with an empty second port", "PROXY TCP6 ::1 ::2 1 \r\n", 0, ErrMalformed},
		{"v1 with a third port", "PROXY TCP6 ::1 ::2 1 2 3\r\n", 0, ErrMalformed},
		{"v1 with a port too large", "PROXY TCP6 ::1 ::2 1 65536\r\n", 0, ErrMalformed},
		{"v1 with a port far too large", "PROXY TCP6 ::1 ::2 1 4294967297\r\n", 0, ErrMalformed},
		{"v1 with a leading zero", "PROXY TCP6 ::1 ::2 01 2\r\n", 0, ErrMalformed},
		{"v1 with a sign", "PROXY TCP6 ::1 ::2 +1 2\r\n", 0, ErrMalformed},
		{"v1 with port 0", "PROXY TCP6 ::1 ::2 0 0\r\n", 0, nil},
		{"v1 ended by LF", "PROXY TCP6 ::1 ::2 1 2\n", 0, ErrMalformed},
		{"v1 with CR in the middle", "PROXY TCP6 ::1 ::2\r1 2\r\n", 0, ErrMalformed},
		{"v1 that doesn't end", "PROXY UNKNOWN " + strings.Repeat("x", MaxV1), 0, ErrOversized},
		{"v1 of 107 bytes", "PROXY UNKNOWN " + strings.Repeat("x", MaxV1-16) + "\r\n", 0, ErrFamily},
		{"v1 of 108 bytes", "PROXY UNKNOWN " + strings.Repeat("x", MaxV1-15) + "\r\n", 0, ErrOversized},
		{"a command instead", "PING\r\n", 0, ErrMissing},
		{"RESP instead", "*1\r\n$4\r\nPING\r\n", 0, ErrMissing},
		{"empty lines instead", "\r\n\r\nPING\r\n", 0, ErrMissing},

		{"v2", v2(0x21, 0x21, 36, addrs()), 0, nil},
		{"v2 followed by a command", v2(0x21, 0x21, 36, addrs(), []byte("PING\r\n")), 6, nil},
		{"v2 with a value", v2(0x21, 0x21, 40, addrs(), []byte{5, 0, 1, 'x'}), 0, nil},
		{"v2 with an empty value", v2(0x21, 0x21, 39, addrs(), []byte{4, 0, 0}), 0, nil},
		{"v2 with a checksum", withCRC(0), 0, nil},
		{"v2 with a wrong checksum", withCRC(1), 0, ErrMalformed},
		{"v2 with a short checksum", v2(0x21, 0x21, 40, addrs(), []byte{3, 0, 1, 0}), 0, ErrMalformed},
		{"v2 with a value cut short", v2(0x21, 0x21, 40, addrs(), []byte{5, 0, 2, 'x'}), 0, ErrMalformed},
		{"v2 with a stray byte", v2(0x21, 0x21, 37, addrs(), []byte{5}), 0, ErrMalformed},
		{"v2 too short for its addresses", v2(0x21, 0x21, 35, addrs()), 0, ErrMalformed},
		{"v2 as long as we take", v2(0x21, 0x21, 520, addrs(), AppendTLV(nil, 4, make([]byte, 481))), 0, nil},
		{"v2 longer than that", v2(0x21, 0x21, 521, addrs(), AppendTLV(nil, 4, make([]byte, 482))), 0, ErrOversized},
		{"v2 that promises 64 KiB", v2(0x21, 0x21, 65535), 0, ErrOversized},
		{"v2 LOCAL", v2(0x20, 0x00, 0, []byte("PING")), 4, ErrLocal},
		{"v2 LOCAL with addresses", v2(0x20, 0x21, 36, addrs()), 0, ErrLocal},
		{"v2 LOCAL with a few bytes", v2(0x20, 0x21, 3, []byte("abc")), 0, ErrLocal},
		{"v2 of IPv4", v2(0x21, 0x11, 12, make([]byte, 12)), 0, ErrFamily},
		{"v2 of UDP", v2(0x21, 0x22, 36, addrs()), 0, ErrFamily},
		{"v2 of a unix socket", v2(0x21, 0x31, 216, make([]byte, 216)), 0, ErrFamily},
		{"v2 of no family", v2(0x21, 0x00, 0), 0, ErrFamily},
		{"v2 of a family that isn't", v2(0x21, 0x41, 0), 0, ErrMalformed},
		{"v2 of version 3", v2(0x31, 0x21, 36, addrs()), 0, ErrMalformed},
		{"v2 of a command that isn't", v2(0x22, 0x21, 36, addrs()), 0, ErrMalformed},
		{"v2 with IPv4 in IPv6", v2(0x21, 0x21, 36, netip.MustParseAddr("::ffff:1.2.3.4").AsSlice(), addrs()[16:]), 0, ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, n, err := Parse([]byte(tc.in))
			if !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			if err == nil || err == ErrFamily || err == ErrLocal {
				if n != len(tc.in)-tc.rest {
					t.Errorf("the header takes %d bytes, want %d", n, len(tc.in)-tc.rest)
				}
			} else if n != 0 {
				t.Errorf("takes %d bytes of a header that is refused", n)
			}
			if err == nil && strings.Contains(tc.in, "a7b") && (h.Source != source || h.Destination != destination) {
				t.Errorf("%v → %v, want %v → %v", h.Source, h.Destination, source, destination)
			}
			// Byte by byte it comes to the same, and not a byte later than needed.
			for i := range len(tc.in) {
				_, pn, perr := Parse([]byte(tc.in[:i]))
				if perr == nil && pn == 0 {
					continue
				}
				if perr != err || pn != n {
					t.Fatalf("the first %d bytes give %d, %v; all of them %d, %v", i, pn, perr, n, err)
				}
				break
			}
		})
	}
}

func TestHeadersWrittenAreReadBack(t *testing.T) {
	tlvs := AppendTLV(AppendTLV(nil, 0x05, []byte("id")), 0xE1, nil)
	for name, header := range map[string][]byte{
		"v1":        AppendV1(nil, source, destination),
		"v2":        AppendV2(nil, source, destination, tlvs),
		"v2 signed": AppendSigned(nil, source, destination, tlvs, []byte("key"), time.UnixMilli(1)),
	} {
		h, n, err := Parse(append(header, "PING"...))
		if err != nil || n != len(header) || h.Source != source || h.Destination != destination {
			t.Errorf("%s: %v → %v in %d bytes, %v", name, h.Source, h.Destination, n, err)
		}
		their, err := oracle.Read(bufio.NewReader(bytes.NewReader(header)))
		if err != nil || their.SourceAddr.String() != source.String() || their.DestinationAddr.String() != destination.String() {
			t.Errorf("%s: another implementation reads %v, %v", name, their, err)
		}
	}
	four := netip.MustParseAddrPort("10.0.0.1:1")
	if _, _, err := Parse(AppendV1(nil, four, destination)); err != ErrFamily {
		t.Errorf("v1 of IPv4 is read as %v", err)
	}
	if _, _, err := Parse(AppendV2(nil, four, destination, nil)); err != ErrFamily {
		t.Errorf("v2 of IPv4 is read as %v", err)
	}
}

func TestVerify(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	key := []byte("the key of one edge")
	signed := AppendSigned(nil, source, destination, AppendTLV(nil, 5, []byte("id")), key, now)
	altered := func(i int) []byte {
		b := bytes.Clone(signed)
		b[i] ^= 1
		return b
	}
	// A second value behind the signature would be covered by nothing.
	behind := AppendTLV(bytes.Clone(signed), 5, nil)
	binary.BigEndian.PutUint16(behind[14:], uint16(len(behind)-fixedV2))
	for _, tc := range []struct {
		name   string
		header []byte
		key    string
		at     time.Time
		want   error
	}{
		{"as made", signed, string(key), now, nil},
		{"a little later", signed, string(key), now.Add(5 * time.Second), nil},
		{"by a clock that is behind", signed, string(key), now.Add(-5 * time.Second), nil},
		{"much later", signed, string(key), now.Add(6 * time.Second), ErrStale},
		{"long before", signed, string(key), now.Add(-6 * time.Second), ErrStale},
		{"another key", signed, "another", now, ErrSignature},
		{"another source", altered(31), string(key), now, ErrSignature},
		{"another destination", altered(47), string(key), now, ErrSignature},
		{"another port", altered(49), string(key), now, ErrSignature},
		{"another value", altered(55), string(key), now, ErrSignature},
		{"another time", altered(len(signed) - 33), string(key), now, ErrSignature},
		{"another signature", altered(len(signed) - 1), string(key), now, ErrSignature},
		{"something behind the signature", behind, string(key), now, ErrUnsigned},
		{"no signature", AppendV2(nil, source, destination, nil), string(key), now, ErrUnsigned},
		{"version 1", AppendV1(nil, source, destination), string(key), now, ErrUnsigned},
		{"cut short", signed[:len(signed)-1], string(key), now, ErrUnsigned},
	} {
		if err := Verify(tc.header, []byte(tc.key), tc.at, 5*time.Second); err != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

// FuzzParse holds Parse to its contract on any bytes, whole and in parts, and
// against another implementation: what we take, it takes, and reads the same.
func FuzzParse(f *testing.F) {
	f.Add(AppendV1(nil, source, destination))
	f.Add(AppendV2(nil, source, destination, AppendTLV(nil, 4, []byte("pad"))))
	f.Add(AppendSigned(nil, source, destination, nil, []byte("k"), time.UnixMilli(5)))
	f.Add([]byte(v2(0x20, 0, 0)))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		h, n, err := Parse(in)
		if n > len(in) || n > MaxV2 || err == nil && n > 0 && h.Version == 1 && n > MaxV1 {
			t.Fatalf("%d bytes taken of %d", n, len(in))
		}
		if err == nil && n == 0 && len(in) >= MaxV2 {
			t.Fatal("asks for more than the longest header")
		}
		for i := range min(len(in), MaxV2) {
			ph, pn, perr := Parse(in[:i])
			if perr == nil && pn == 0 {
				continue
			}
			if perr != err || pn != n || ph.Source != h.Source || ph.Destination != h.Destination {
				t.Fatalf("the first %d bytes say %v %d %v, all say %v %d %v", i, ph, pn, perr, h, n, err)
			}
			break
		}
		if err != nil || n == 0 {
			return
		}
		their, oerr := oracle.Read(bufio.NewReader(bytes.NewReader(in[:n])))
		if oerr != nil {
			t.Fatalf("we take what another implementation refuses: %v", oerr)
		}
		if their.SourceAddr.String() != h.Source.String() || their.DestinationAddr.String() != h.Destination.String() {
			t.Fatalf("we read %v → %v, another implementation %v → %v", h.Source, h.Destination, their.SourceAddr, their.DestinationAddr)
		}
		var again []byte
		if h.Version == 1 {
			again = AppendV1(nil, h.Source, h.Destination)
		} else {
			again = AppendV2(nil, h.Source, h.Destination, h.TLVs)
			if !bytes.Equal(again, in[:n]) {
				t.Fatalf("written again it is %x, was %x", again, in[:n])
			}
		}
		if h2, _, err := Parse(again); err != nil || h2.Source != h.Source || h2.Destination != h.Destination {
			t.Fatalf("written again it reads %v, %v", h2, err)
		}
	})
}

func BenchmarkParseV1(b *testing.B) {
	header := AppendV1(nil, source, destination)
	b.ReportAllocs()
	for b.Loop() {
		Parse(header)
	}
}

func TestLocalCallsNobody(t *testing.T) {
	header := AppendLocal(nil)
	_, n, err := Parse(append(header, "PING"...))
	if n != len(header) || !errors.Is(err, ErrLocal) {
		t.Errorf("parsed as %d bytes, %v", n, err)
	}
}
