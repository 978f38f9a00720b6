package privnet

import (
	"net/netip"
	"testing"
)

func TestMintIsReadBack(t *testing.T) {
	for _, c := range []struct {
		network Network
		n       uint64
		want    string
	}{
		{0x47fb, 0x16, "fdaa:0:47fb:0:1::16"},
		{0, 2, "fdaa:0:0:0:1::2"},
		{0xffffffff, 0x10000, "fdaa:ffff:ffff:0:1:0:1:0"},
		{0x10002, maxNumber, "fdaa:1:2:0:1:ffff:ffff:ffff"},
	} {
		addr := Mint(c.network, c.n)
		if addr != netip.MustParseAddr(c.want) {
			t.Errorf("Mint(%x, %x) = %s, want %s", c.network, c.n, addr, c.want)
		}
		got, ok := Parse(addr)
		if !ok || got != (Address{c.network, Databases, c.n}) {
			t.Errorf("Parse(%s) = %+v, %v", addr, got, ok)
		}
		if !IsDatabase(addr) {
			t.Errorf("%s is not seen as a database", addr)
		}
	}
	if s := Network(0x47fb).String(); s != "fdaa:0:47fb::/48" {
		t.Errorf("network prints as %s", s)
	}
}

func TestWhatIsNoDatabaseOrNotOfOneNetwork(t *testing.T) {
	for _, s := range []string{
		"::", "::1", "127.0.0.1", "::ffff:127.0.0.1", "fdab:0:47fb:0:1::16", "fd00::1",
		"fdaa:0:47fb:0:1::", "fdaa:0:47fb:0:1::1", // no database has these numbers
		"fdaa:0:47fb:0:2::16", "fdaa:0:47fb:1:1::16", "fdaa:0:47fb::16", // machines
		"fdaa:0:47fb:0:1::16%eth0",
	} {
		if IsDatabase(netip.MustParseAddr(s)) {
			t.Errorf("%s is seen as a database", s)
		}
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"fdaa:0:47fb:0:1::16", "fdaa:0:47fb:a7b::19", true},
		{"fdaa:0:47fb:0:1::16", "fdaa:0:47fc:0:1::16", false},
		{"fdaa:0:47fb:0:1::16", "fdaa:1:47fb:0:1::16", false},
		{"fdaa:0:47fb:0:1::16", "fdab:0:47fb:0:1::16", false},
		{"::1", "::1", false},
		{"10.0.0.1", "10.0.0.1", false},
	} {
		a, b := netip.MustParseAddr(c.a), netip.MustParseAddr(c.b)
		if SameNetwork(a, b) != c.want || SameNetwork(b, a) != c.want {
			t.Errorf("SameNetwork(%s, %s) is not %v", a, b, c.want)
		}
	}
}

func TestMintAndMachinePanicOnNumbersNobodyMayHave(t *testing.T) {
	for name, f := range map[string]func(){
		"number 0":              func() { Mint(1, 0) },
		"number 1":              func() { Mint(1, 1) },
		"number over 48 bits":   func() { Mint(1, 1<<48) },
		"machine as a database": func() { Machine(1, Databases, 5) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s did not panic", name)
				}
			}()
			f()
		}()
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"fdaa:0:47fb:0:1::16", "fdaa:0:47fb:a7b:1::19", "::1", "::ffff:1.2.3.4", "1.2.3.4", "fdaa::%z"} {
		b, _ := netip.MustParseAddr(s).MarshalBinary()
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var addr netip.Addr
		if addr.UnmarshalBinary(b) != nil {
			return
		}
		a, ok := Parse(addr)
		if !ok {
			if IsDatabase(addr) || SameNetwork(addr, addr) {
				t.Fatalf("%s doesn't parse and yet has a network", addr)
			}
			return
		}
		if a.Addr() != addr {
			t.Fatalf("%s is taken apart as %+v, which makes %s", addr, a, a.Addr())
		}
		if !a.Network.Prefix().Contains(addr) {
			t.Fatalf("%s is not within its own network %s", addr, a.Network)
		}
		if IsDatabase(addr) != (a.Host == Databases && a.Number >= FirstNumber) {
			t.Fatalf("IsDatabase(%s) = %v", addr, IsDatabase(addr))
		}
	})
}
