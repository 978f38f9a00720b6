package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"reflect"
	"testing"
)

var entries = map[string]Entry{
	"zero":  {Effects: []byte{}},
	"small": smallSet,
	"full":  {DB: 1, Epoch: 2, Seq: 3, TimeMS: 4, Prev: 5, Origin: Origin{6, 7}, Effects: []byte("effects")},
	"most": {DB: math.MaxUint64, Epoch: math.MaxUint32, Seq: math.MaxUint64, TimeMS: math.MaxInt64, Prev: math.MaxUint64,
		Origin: Origin{math.MaxUint64, math.MaxUint32}, Effects: bytes.Repeat([]byte{255}, 100_000)},
	"before 1970": {TimeMS: -1, Effects: []byte{}},
}

func TestEntryRoundTrip(t *testing.T) {
	for name, e := range entries {
		t.Run(name, func(t *testing.T) {
			b := AppendEntry([]byte("before"), &e)
			if string(b[:6]) != "before" {
				t.Fatal("what was there is gone")
			}
			b = append(b[6:], "behind"...)
			got, n, err := DecodeEntry(b)
			if got.Hash() != Hash(e.Prev, b[:n]) {
				t.Fatal("the decoded entry has another hash")
			}
			got.hash = 0
			if err != nil || n != len(b)-6 || !reflect.DeepEqual(got, e) {
				t.Fatalf("%+v, %d of %d bytes, %v", got, n, len(b)-6, err)
			}
			if m, err := EntryLen(b[:entryHead]); m != n || err != nil {
				t.Fatalf("EntryLen: %d, %v", m, err)
			}
		})
	}
}

func TestEveryPrefixOfAnEntryIsIncomplete(t *testing.T) {
	b := AppendEntry(nil, &smallSet)
	for n := range b {
		if _, _, err := DecodeEntry(b[:n]); err != ErrIncomplete {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

func TestFlippedBitInAnEntryIsFound(t *testing.T) {
	b := AppendEntry(nil, &smallSet)
	whole := Hash(1, b)
	for bit := range len(b) * 8 {
		b[bit/8] ^= 1 << (bit % 8)
		if _, _, err := DecodeEntry(b); err == nil {
			t.Errorf("bit %d of byte %d goes unnoticed", bit%8, bit/8)
		}
		if Hash(1, b) == whole && bit/8 < entryHead { // for the rest the check sum stands, which is in there
			t.Errorf("bit %d of byte %d doesn't change the hash", bit%8, bit/8)
		}
		if bit/8 >= entryHead {
			reseal(b)
			if Hash(1, b) == whole {
				t.Errorf("an entry with bit %d of byte %d flipped has the same hash", bit%8, bit/8)
			}
		}
		b[bit/8] ^= 1 << (bit % 8)
		reseal(b)
	}
}

func TestHashDependsOnTheHistoryAndTheLength(t *testing.T) {
	seen := map[uint64]bool{}
	for n := range 100 {
		for prev := range uint64(100) {
			raw := AppendEntry(nil, &Entry{DB: 1, Seq: 7, Prev: prev, Effects: make([]byte, n)})
			h := Hash(prev, raw)
			if seen[h] || seen[Hash(prev+1000, raw)] {
				t.Fatalf("Hash(%d, an entry with %d zeros) is that of another", prev, n)
			}
			seen[h] = true
			if e, _, err := DecodeEntry(raw); err != nil || e.Hash() != h {
				t.Fatalf("decoded, the entry's hash is %#x, want %#x (%v)", e.Hash(), h, err)
			}
		}
	}
}

// The hash travels between nodes: it may not differ from one version to the
// next.
func TestHashStaysTheSame(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want uint64
	}{
		{"", 0x7f2a7df971e2bf49},
		{"a", 0xe5476a28e7359e67},
		{"four", 0xf770de489f6aa028},
		{"eight by", 0xb08d88b862197156},
		{"sixteen and more than that", 0x76a35b7b7ea29b76},
	} {
		if got := hashWhole(1, []byte(tc.in)); got != tc.want {
			t.Errorf("version 1: hash of %q is %#x", tc.in, got)
		}
	}
	raw := AppendEntry(nil, &smallSet)
	if got := Hash(1, raw); got != 0xbceb640fafc20442 {
		t.Errorf("version 2: %#x", got)
	}
	raw[8] = 1
	if got := Hash(1, raw); got != hashWhole(1, raw) {
		t.Errorf("an entry of version 1 has %#x", got)
	}
}

func TestUnknownEntryVersionIsNotCorrupt(t *testing.T) {
	b := AppendEntry(nil, &smallSet)
	b[8] = 3
	reseal(b)
	if _, _, err := DecodeEntry(b); !errors.Is(err, ErrVersion) || errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
}

// reseal gives an entry the check sum and the length that it should have.
func reseal(b []byte) {
	binary.LittleEndian.PutUint32(b, uint32(len(b)-entryHead))
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[entryHead:], castagnoli))
}

func FuzzDecodeEntry(f *testing.F) {
	for _, e := range entries {
		f.Add(AppendEntry(nil, &e), true)
	}
	f.Add([]byte{15, 0, 0, 0}, false)
	f.Fuzz(func(t *testing.T, b []byte, fix bool) {
		if fix && len(b) >= entryHead {
			reseal(b)
		}
		e, n, err := DecodeEntry(b)
		if err != nil {
			return
		}
		again, m, err := DecodeEntry(AppendEntry(nil, &e))
		e.hash = again.hash // b may be of version 1, or longer than need be
		if err != nil || m > n || !reflect.DeepEqual(again, e) {
			t.Fatalf("%+v becomes %+v, %d bytes %d, %v", e, again, n, m, err)
		}
	})
}
