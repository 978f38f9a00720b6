package slab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"vecino/value"
)

func random(t testing.TB, seed uint64) *rand.Rand {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

func key(i int) []byte { return fmt.Appendf(nil, "key:%d", i) }

// check verifies all that the comments promise about the shape of a space:
// table, heap, chunks and free lists.
func (s *Space) check() error {
	n, index, deep := 0, int64(0), 0
	inUse := map[uint64]int{} // block: size
	timed := 0
	for i := 0; i < len(s.dir); {
		e := s.dir[i]
		depth := uint8(e >> entryDepth)
		span := 1 << (s.depth - depth)
		if i&(span-1) != 0 {
			return fmt.Errorf("segment of depth %d begins at %d of %d", depth, i, len(s.dir))
		}
		if depth == s.depth {
			deep++
		}
		for j := range span {
			if s.dir[i+j] != e {
				return fmt.Errorf("directory entry %d is not that of %d", i+j, i)
			}
		}
		for head := true; e != 0; e, head = chained(e), false {
			ref := e & refMask
			if segEntry(ref) != e {
				return fmt.Errorf("entry %x, segment says %x", e, segEntry(ref))
			}
			if int(*word(ref)<<16>>(64-s.depth))&^(span-1) != i {
				return fmt.Errorf("segment of entry %d says it is of hash %x", i, *word(ref)<<16)
			}
			inUse[ref] = blockSize(ref)
			index += int64(blockSize(ref))
			here, slots := 0, slotsOf(e)
			if !head && slots != maxSlots {
				return fmt.Errorf("a chain of %d slots", slots)
			}
			for at := range slots {
				v := *slot(e, at)
				if v == 0 {
					continue
				}
				here++
				r := Rec(v & refMask)
				inUse[uint64(r)] = r.Size()
				if r.Size() != blockSize(uint64(r)) {
					return fmt.Errorf("record of %d bytes in a block of %d", r.Size(), blockSize(uint64(r)))
				}
				if d := r.Deadline(); d != 0 {
					timed++
					if it := *s.expiry.item(int(*r.place())); it.rec != r || it.at != d {
						return fmt.Errorf("record %x of deadline %d has item %v in the heap", r, d, it)
					}
				}
				h := s.Hash(r.Key())
				if int(h>>(64-s.depth))&^(span-1) != i {
					return fmt.Errorf("hash %x in the segment of directory entry %d", h, i)
				}
				away := (at - home(e, h) + slots) % slots
				if want := tagOf(h) + uint64(away)*oneFurther; v>>tagShift != want {
					return fmt.Errorf("slot %d: tag %x, want %x", at, v>>tagShift, want)
				}
				if prev := *slot(e, (at+slots-1)%slots) >> tagShift; away > 0 && prev < v>>tagShift-oneFurther {
					return fmt.Errorf("slot %d: tag %x after %x", at, v>>tagShift, prev)
				}
			}
			if here != segCount(ref) || here > slots-1 {
				return fmt.Errorf("segment has %d records, says %d, of %d slots", here, segCount(ref), slots)
			}
			n += here
		}
		i += span
	}
	if n != s.n || index != s.index || timed != s.expiry.n || s.dir != nil && (deep != s.deep || len(s.dir) != 1<<s.depth) {
		return fmt.Errorf("%d records, %d bytes of table, %d deep, %d timed; says %d, %d, %d, %d", n, index, deep, timed, s.n, s.index, s.deep, s.expiry.n)
	}
	for i := 1; i < s.expiry.n; i++ {
		if s.expiry.item((i-1)/4).at > s.expiry.item(i).at {
			return fmt.Errorf("heap: item %d is earlier than its parent", i)
		}
	}
	for _, p := range s.expiry.pages {
		inUse[p] = blockSize(p)
	}
	if err := s.checkPrints(inUse); err != nil {
		return err
	}
	return s.checkBlocks(inUse)
}

func (s *Space) checkPrints(inUse map[uint64]int) error {
	p, n, bytes := &s.prints, 0, int64(0)
	if (p.dir == nil) != (p.n == 0) || p.dir != nil && len(p.dir) != 1<<p.depth {
		return fmt.Errorf("%d fingerprints in a directory of %d, of depth %d", p.n, len(p.dir), p.depth)
	}
	for i := 0; i < len(p.dir); {
		e := p.dir[i]
		depth, ref := uint8(e>>printDepth), e&refMask
		span := 1 << (p.depth - depth)
		for j := range span {
			if i&(span-1) != 0 || p.dir[i+j] != e {
				return fmt.Errorf("fingerprints: entry %d of depth %d is not that of %d", i+j, depth, i)
			}
		}
		if (ref == 0) != (printCount(e) == 0) {
			return fmt.Errorf("fingerprints: entry %x", e)
		}
		if ref != 0 {
			inUse[ref] = blockSize(ref)
			bytes += int64(blockSize(ref))
			if printCount(e) > printRoom(e) || printCount(e) > mostPrints {
				return fmt.Errorf("%d fingerprints where there is room for %d", printCount(e), printRoom(e))
			}
		}
		for j := range printCount(e) {
			v := printAt(ref, j)
			if j > 0 && v <= printAt(ref, j-1) {
				return fmt.Errorf("fingerprint %x after %x", v, printAt(ref, j-1))
			}
			if got := v << printDrop << printTop >> (64 - (p.depth - printTop)) &^ uint64(span-1); got != uint64(i)&(1<<(p.depth-printTop)-1) {
				return fmt.Errorf("fingerprint %x stands at %d", v, i)
			}
		}
		n += printCount(e)
		i += span
	}
	if n != p.n || bytes != p.bytes {
		return fmt.Errorf("%d fingerprints of %d bytes, says %d of %d", n, bytes, p.n, p.bytes)
	}
	return nil
}

func (s *Space) checkBlocks(inUse map[uint64]int) error {
	listed := map[uint64]int{}
	for c, addr := range s.free {
		if (addr != 0) != (s.some[c/64]>>(c%64)&1 == 1) {
			return fmt.Errorf("free list %d begins with %x", c, addr)
		}
		for prev := uint64(0); addr != 0; prev, addr = addr, *word(addr)&refMask {
			if *word(addr)>>kindShift != kindFree || *word(addr + 8)&refMask != prev || freeSize(addr) != classSize(c) {
				return fmt.Errorf("free block %x of list %d: %x %x", addr, c, *word(addr), *word(addr + 8))
			}
			listed[addr] = c
		}
	}
	total, live := int64(unitSize*len(s.held.spares)), int64(0)
	for i, chunks := range [2][]chunk{s.held.units, s.held.small} {
		for j, c := range chunks {
			pos, here := c.base, 0
			small := uint64(smallBit)
			if i == 0 {
				pos, here, small = pos+chunkHead, chunkHead, 0
				if *word(c.base) != uint64(j) {
					return fmt.Errorf("unit %d says it is %d", j, *word(c.base))
				}
			}
			for pos < c.base+uint64(c.size) {
				if pos == s.cur && s.end > s.cur {
					if s.curSmall != small || s.curChunk != j {
						return fmt.Errorf("the bump region is in chunk %d, says %d", j, s.curChunk)
					}
					pos = s.end
					continue
				}
				size := blockSize(pos)
				if *word(pos)&smallBit != small {
					return fmt.Errorf("block %x of a chunk of %d: %x", pos, c.size, *word(pos))
				}
				kind := *word(pos) >> kindShift
				_, isFree := listed[pos]
				if isFree != (kind == kindFree) {
					return fmt.Errorf("block %x of kind %d: listed is %v", pos, kind, isFree)
				}
				if kind != kindFree && kind != kindDead && kind != kindPad {
					here += size
					if inUse[pos] != size {
						return fmt.Errorf("block %x of kind %d and %d bytes, in use %d", pos, kind, size, inUse[pos])
					}
					delete(inUse, pos)
				}
				delete(listed, pos)
				pos += uint64(size)
			}
			if pos != c.base+uint64(c.size) || here != int(c.live) {
				return fmt.Errorf("chunk of %d: ends at %d, %d live, says %d", c.size, pos-c.base, here, c.live)
			}
			total += int64(c.size)
			live += int64(here)
		}
	}
	large := int64(0)
	for addr, o := range s.held.owns {
		if inUse[addr] != int(o.span) {
			return fmt.Errorf("a large block of %d at %x, in use %d", o.span, addr, inUse[addr])
		}
		delete(inUse, addr)
		large += int64(o.used)
	}
	if len(listed) > 0 || len(inUse) > 0 || total != s.total || live != s.live || large != s.large {
		return fmt.Errorf("left %v %v; total %d live %d large %d, says %d %d %d", listed, inUse, total, live, large, s.total, s.live, s.large)
	}
	return nil
}

type modelled struct {
	val      []byte
	deadline int64
	seq      uint64
	clock    uint32
	flags    uint16
	kind     uint8
}

func (m *modelled) differs(r Rec) string {
	switch {
	case !bytes.Equal(r.Value(), m.val):
		return fmt.Sprintf("value of %d bytes, want %d", len(r.Value()), len(m.val))
	case r.Deadline() != m.deadline:
		return fmt.Sprintf("deadline %d, want %d", r.Deadline(), m.deadline)
	case r.Seq() != m.seq || r.Clock() != m.clock || r.Flags() != m.flags || r.Kind() != m.kind:
		return fmt.Sprintf("seq %d clock %d flags %x kind %d, want %+v", r.Seq(), r.Clock(), r.Flags(), r.Kind(), m)
	case r.Room() < len(m.val):
		return "no room"
	}
	return ""
}

func fill(b []byte, rng *rand.Rand) []byte {
	x := rng.Uint64()
	for i := range b {
		b[i] = byte(x >> (i % 8 * 8))
		if i%8 == 7 {
			x = x*6364136223846793005 + 1
		}
	}
	return b
}

// play runs random operations on a space and on a map.
func play(t *testing.T, seed uint64, keys, ops, most int) {
	rng := random(t, seed)
	s, model := New(seed), map[string]*modelled{}
	defer s.Close()
	length := func() int {
		switch rng.IntN(20) {
		case 0:
			return 0
		case 1:
			return rng.IntN(most + 1)
		case 2:
			return rng.IntN(min(most, 5000) + 1)
		}
		return rng.IntN(min(most, 100) + 1)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range ops {
		grow := i*6/ops%2 == 0 // fill, then empty, and again
		k := key(rng.IntN(keys))
		if len(k)%2 == 0 && rng.IntN(30) != 0 {
			k = append(k, bytes.Repeat([]byte("x"), int(value.Hash64(1, k)%600))...) // wide ones
		}
		h := s.Hash(k)
		r, m := s.Find(h, k), model[string(k)]
		if (r == 0) != (m == nil) {
			t.Fatalf("op %d: Find(%s) = %x, want %v", i, k, r, m)
		}
		s.Approach(h)
		if touched := s.Touch(h); r != 0 && touched == 0 {
			t.Fatalf("op %d: Touch finds nothing", i)
		}
		if m != nil {
			if d := m.differs(r); d != "" {
				t.Fatalf("op %d: %s: %s", i, k, d)
			}
		}
		var err error
		switch {
		case m == nil && (grow || rng.IntN(4) == 0):
			m = &modelled{val: fill(make([]byte, length()), rng), kind: uint8(1 + rng.IntN(MaxKind))}
			if rng.IntN(3) == 0 {
				m.deadline = rng.Int64N(1e12) + 1
			}
			r, err = s.Insert(h, k, m.val, len(m.val)*rng.IntN(3), m.kind, m.deadline)
			must(err)
			model[string(k)] = m
		case m == nil:
		case !grow && rng.IntN(4) > 0:
			s.Remove(h, r)
			delete(model, string(k))
		default:
			switch rng.IntN(6) {
			case 0:
				m.val = fill(make([]byte, length()), rng)
				r, err = s.Set(h, r, m.val, rng.IntN(2)*2*len(m.val))
			case 1:
				n := length()
				grown := make([]byte, n)
				copy(grown, m.val)
				m.val = grown
				r, err = s.Resize(h, r, n, rng.IntN(2)*2*n)
			case 2:
				from := rng.IntN(len(m.val) + 1)
				r, err = s.Set(h, r, r.Value()[from:], 0)
				m.val = m.val[from:]
			case 3:
				m.deadline = rng.Int64N(1e12) * int64(rng.IntN(3))
				r, err = s.SetDeadline(h, r, m.deadline)
			case 4:
				m.seq, m.clock, m.kind = rng.Uint64()&MaxSeq, rng.Uint32(), uint8(1+rng.IntN(MaxKind))
				r.SetSeq(m.seq)
				r.SetClock(m.clock)
				r.SetKind(m.kind)
			case 5:
				f := uint16(1) << rng.IntN(9)
				if rng.IntN(2) == 0 {
					r.Mark(f)
					m.flags |= f
				} else {
					r.Unmark(f)
					m.flags &^= f
				}
				if r.Has(f) != (m.flags&f != 0) {
					t.Fatal("Has is wrong")
				}
			}
			must(err)
			if d := m.differs(r); d != "" {
				t.Fatalf("op %d: %s after a change: %s", i, k, d)
			}
		}
		if rng.IntN(10) == 0 {
			s.Compact(1 + rng.IntN(50))
		}
		if i%(ops/20+1) == 0 {
			if err := s.check(); err != nil {
				t.Fatalf("op %d: %v", i, err)
			}
		}
	}
	if s.Len() != len(model) {
		t.Fatalf("Len %d, want %d", s.Len(), len(model))
	}
	seen := 0
	s.Range(func(r Rec) bool {
		seen++
		if d := model[string(r.Key())].differs(r); d != "" {
			t.Fatalf("%s: %s", r.Key(), d)
		}
		return true
	})
	if seen != len(model) {
		t.Fatalf("Range gave %d, want %d", seen, len(model))
	}
	for last := int64(0); ; { // all with a deadline, in order
		r, at := s.Next()
		if r == 0 {
			break
		}
		if at < last || at != r.Deadline() {
			t.Fatalf("deadline %d after %d", at, last)
		}
		last = at
		delete(model, string(r.Key()))
		s.Remove(s.Hash(r.Key()), r)
	}
	for k, m := range model {
		if m.deadline != 0 {
			t.Fatalf("%s was not in the heap", k)
		}
		s.Remove(s.Hash([]byte(k)), s.Find(s.Hash([]byte(k)), []byte(k)))
	}
	for s.Compact(1000) {
	}
	if err := s.check(); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Dead > deadFloor || st.Held > 64<<10 {
		t.Errorf("emptied, it has %+v", st)
	}
}

func TestSpaceAgreesWithAMap(t *testing.T) {
	for _, c := range []struct{ keys, ops, most int }{
		{3, 2000, 100}, {10, 5000, 1000}, {100, 20000, 300 << 10}, {700, 30000, 10000}, {5000, 100000, 70000}, {40000, 400000, 3000}, {20, 300, 20 << 20},
	} {
		t.Run(fmt.Sprintf("%d keys up to %d bytes", c.keys, c.most), func(t *testing.T) {
			for seed := range uint64(2) {
				play(t, seed, c.keys, c.ops, c.most)
			}
		})
	}
}

func FuzzSpace(f *testing.F) {
	f.Add(uint64(1), uint16(20), uint16(200), uint32(1000))
	f.Fuzz(func(t *testing.T, seed uint64, keys, ops uint16, most uint32) {
		play(t, seed, int(keys)+1, int(ops), int(most%(1<<20)))
	})
}

type word8 struct{ key []byte }

// A cursor of value.Table goes on here and the other way round, and both give
// all in the same order.
func TestScanIsThatOfATable(t *testing.T) {
	for _, n := range []int{1, 5, 60, 400, 3000, 30000} {
		rng := random(t, uint64(n))
		table := value.NewTable(7, func(w *word8) []byte { return w.key })
		s := New(7)
		for i := range n {
			k := key(i)
			table.Insert(table.Hash(k), &word8{k})
			if _, err := s.Insert(s.Hash(k), k, nil, 0, 1, 0); err != nil {
				t.Fatal(err)
			}
		}
		var want, got []string
		table.InOrder(func(w *word8) { want = append(want, string(w.key)) })
		for cursor := uint64(0); ; {
			count := 1 + rng.IntN(20)
			if rng.IntN(2) == 0 {
				cursor = table.ScanFrom(cursor, count, func(w *word8) { got = append(got, string(w.key)) })
			} else {
				before := len(got)
				cursor = s.ScanFrom(cursor, count, func(h uint64, r Rec) {
					if h != s.Hash(r.Key()) {
						t.Fatal("another hash")
					}
					got = append(got, string(r.Key()))
				})
				if len(got)-before > count+8 {
					t.Fatalf("%d records for a count of %d", len(got)-before, count)
				}
			}
			if cursor == 0 {
				break
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%d keys: another order: %d, want %d", n, len(got), len(want))
		}
	}
}

// Records come and go between the calls of a scan, and from inside them.
func TestScanMissesNothingThatStays(t *testing.T) {
	for seed := range uint64(10) {
		rng := random(t, seed)
		copies := []*Space{New(9), New(9), New(9)}
		insert := func(k []byte, val int) {
			for _, c := range copies {
				if c.Find(c.Hash(k), k) == 0 {
					if _, err := c.Insert(c.Hash(k), k, make([]byte, val), 0, 1, 0); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		remove := func(k []byte) {
			for _, c := range copies {
				if r := c.Find(c.Hash(k), k); r != 0 {
					c.Remove(c.Hash(k), r)
				}
			}
		}
		for i := range 30000 { // the last was large once
			copies[2].Insert(copies[2].Hash(key(-i)), key(-i), nil, 0, 1, 0)
		}
		stays := map[string]int{}
		for i := range 1 + rng.IntN(3000) {
			insert(key(i), 5)
			stays[string(key(i))] = 0
		}
		for i := range 30000 {
			if _, ok := stays[string(key(-i))]; !ok {
				c := copies[2]
				c.Remove(c.Hash(key(-i)), c.Find(c.Hash(key(-i)), key(-i)))
			}
		}
		calls := 0
		for cursor := uint64(0); ; {
			if calls++; calls > 100000 {
				t.Fatal("scan doesn't end")
			}
			for range rng.IntN(400) {
				k := key(10000 + rng.IntN(20000))
				if rng.IntN(2000) < copies[0].Len()/4 {
					remove(k)
				} else {
					insert(k, rng.IntN(300))
				}
			}
			for _, c := range copies {
				c.Compact(rng.IntN(500))
			}
			c := copies[rng.IntN(3)]
			cursor = c.ScanFrom(cursor, 1+rng.IntN(200), func(h uint64, r Rec) {
				k := string(r.Key())
				if n, ok := stays[k]; ok {
					stays[k] = n + 1
					if rng.IntN(3) == 0 {
						if _, err := c.Resize(h, r, rng.IntN(500), 0); err != nil {
							t.Fatal(err)
						}
					}
				} else if rng.IntN(2) == 0 {
					remove([]byte(k))
				} else {
					insert(key(10000+rng.IntN(20000)), 8)
				}
			})
			if cursor == 0 {
				break
			}
		}
		for k, n := range stays {
			if n != 1 {
				t.Fatalf("%s was given %d times", k, n)
			}
		}
		for _, c := range copies {
			if err := c.check(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestScanStopsThoughRecordsAreRemovedInIt(t *testing.T) {
	s := New(1)
	for i := range 5000 {
		s.Insert(s.Hash(key(i)), key(i), nil, 0, 1, 0)
	}
	n := 0
	s.ScanFrom(0, 10, func(h uint64, r Rec) { n++; s.Remove(h, r) })
	if n > 18 {
		t.Errorf("%d records for a count of 10", n)
	}
}

func TestScanOfNothingAndBeyondTheEnd(t *testing.T) {
	s := New(1)
	none := func(uint64, Rec) { t.Error("gave a record") }
	if s.ScanFrom(0, 10, none) != 0 || s.ScanFrom(77, 10, none) != 0 {
		t.Error("an empty space has more")
	}
	s.Insert(s.Hash([]byte("a")), []byte("a"), nil, 0, 1, 0)
	for _, cursor := range []uint64{1 << value.CursorBits, 1<<64 - 1} {
		if s.ScanFrom(cursor, 10, none) != 0 {
			t.Error("there is something beyond the end")
		}
	}
	n := 0
	if next := s.ScanFrom(0, 1<<62, func(uint64, Rec) { n++ }); next != 0 || n != 1 {
		t.Errorf("next %d after %d records", next, n)
	}
}

// Keys whose hashes are all the same, which takes the seed to find, or begin
// alike, must make the table slow, not large or wrong.
func TestSpaceSurvivesUnevenHashes(t *testing.T) {
	const seed, root3 = 1, 0xbb67ae8584caa73b
	same := binary.LittleEndian.AppendUint64(nil, seed<<32^root3) // the mask, which makes a product of zero
	keys := map[string]func(i int) []byte{
		"all the same": func(i int) []byte { return fmt.Appendf(same[:8:8], "%8d", i) },
		"begin alike": func(i int) []byte {
			for j := i << 32; ; j++ {
				if k := key(j); value.Hash64(seed, k)>>55 == 77 {
					return k
				}
			}
		},
	}
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			s := New(seed)
			var all [][]byte
			for i := range 3000 {
				k := key(i)
				all = append(all, k)
				if _, err := s.Insert(s.Hash(k), k, k, 0, 1, 0); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.check(); err != nil {
				t.Fatal(err)
			}
			if len(s.dir) > 512 || len(s.dir) < 2 {
				t.Errorf("directory of %d for %d records", len(s.dir), len(all))
			}
			for range 20 {
				if s.Random(random(t, 1)) == 0 {
					t.Error("no random record")
				}
			}
			n := 0
			for cursor := uint64(0); ; {
				if cursor = s.ScanFrom(cursor, 10, func(uint64, Rec) { n++ }); cursor == 0 {
					break
				}
			}
			if n != len(all) {
				t.Errorf("scan gave %d of %d", n, len(all))
			}
			for i, k := range all {
				h := s.Hash(k)
				r := s.Find(h, k)
				if r == 0 || !bytes.Equal(r.Value(), k) {
					t.Fatalf("%s is lost", k)
				}
				s.Remove(h, r)
				if i%50 == 0 {
					s.Compact(300)
					if err := s.check(); err != nil {
						t.Fatal(err)
					}
				}
			}
			for s.Compact(1000) {
			}
			if err := s.check(); err != nil {
				t.Fatal(err)
			}
			if st := s.Stats(); st.Held > 64<<10 {
				t.Errorf("an emptied space keeps %+v", st)
			}
		})
	}
}

func TestSpaceThatKnowsWhatToExpect(t *testing.T) {
	rng := random(t, 3)
	for _, expected := range []int{0, 100, 466, 467, 1000, 5000, 70_000} {
		for _, n := range []int{0, 10, expected / 3, expected, 3 * expected} {
			s := New(rng.Uint64())
			s.Expect(expected)
			if err := s.check(); err != nil {
				t.Fatalf("expecting %d: %v", expected, err)
			}
			for _, i := range rng.Perm(n) {
				if _, err := s.Insert(s.Hash(key(i)), key(i), []byte("v"), 0, 1, 0); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.check(); err != nil || s.Len() != n {
				t.Fatalf("expected %d, got %d, has %d: %v", expected, n, s.Len(), err)
			}
			if expected > 1000 && n == expected {
				grown := New(s.seed)
				for i := range n {
					grown.Insert(grown.Hash(key(i)), key(i), []byte("v"), 0, 1, 0)
				}
				if s.index > grown.index*5/4 {
					t.Errorf("expected %d: %d bytes of slots, %d if they come unexpected", expected, s.index, grown.index)
				}
			}
			for i := range n {
				hash := s.Hash(key(i))
				r := s.Find(hash, key(i))
				if r == 0 {
					t.Fatalf("expected %d, got %d: record %d is missing", expected, n, i)
				}
				s.Remove(hash, r)
			}
			if err := s.check(); err != nil || s.Len() != 0 {
				t.Fatalf("expected %d, all %d removed, has %d: %v", expected, n, s.Len(), err)
			}
			s.Close()
		}
	}
}

func TestRandomIsEven(t *testing.T) {
	for _, n := range []int{1, 2, 10, 900, 5000} {
		rng := random(t, uint64(n))
		s := New(5)
		for i := range n {
			s.Insert(s.Hash(key(i)), key(i), nil, 0, 1, 1)
		}
		for name, pick := range map[string]func() Rec{"Random": func() Rec { return s.Random(rng) }, "RandomTimed": func() Rec { return s.RandomTimed(rng) }} {
			const each = 200
			counts := map[Rec]int{}
			for range n * each {
				counts[pick()]++
			}
			if len(counts) != n {
				t.Errorf("%s: %d of %d were ever chosen", name, len(counts), n)
			}
			chi := 0.0
			for _, c := range counts {
				chi += float64((c-each)*(c-each)) / each
			}
			if n > 100 && (chi/float64(n) < 0.8 || chi/float64(n) > 1.2) {
				t.Errorf("%s of %d: chi-square %.2f a degree of freedom", name, n, chi/float64(n))
			}
		}
	}
}

func TestTinySpaceIsTiny(t *testing.T) {
	s := New(1)
	for i := range 10 {
		s.Insert(s.Hash(key(i)), fmt.Appendf(nil, "user:%011d", i), make([]byte, 32), 0, 1, 0)
	}
	if st := s.Stats(); st.Held > 1900 {
		t.Errorf("ten keys: %+v", st)
	}
}

func TestWhatWastesMemoryIsMoved(t *testing.T) {
	s := New(1)
	rng := random(t, 1)
	bound := func(when string) {
		t.Helper()
		for s.Compact(1 << 20) {
		}
		if st := s.Stats(); st.Dead*4 > st.Held+4*deadFloor {
			t.Errorf("%s: %+v", when, st)
		}
		if err := s.check(); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	const n = 60000
	for round := range 4 { // each round has values of another size, which fit in no hole of the one before
		size := 20 + 50*round
		for i := range n {
			k := key(i)
			h := s.Hash(k)
			r := s.Find(h, k)
			var err error
			if r == 0 {
				_, err = s.Insert(h, k, make([]byte, size), 0, 1, int64(i%2)*int64(1+i))
			} else {
				_, err = s.Set(h, r, make([]byte, size), 0)
			}
			if err != nil {
				t.Fatal(err)
			}
			if i%100 == 0 {
				s.Compact(300)
			}
		}
		bound(fmt.Sprint("filled with ", size))
	}
	full := s.Stats().Held
	for i := range n {
		if rng.IntN(20) > 0 {
			h := s.Hash(key(i))
			s.Remove(h, s.Find(h, key(i)))
		}
	}
	bound("one in twenty left")
	if st := s.Stats(); st.Held*8 > full {
		t.Errorf("of %d bytes %d are still held for a twentieth", full, st.Held)
	}
}

func TestMemoryComesZeroedToAnother(t *testing.T) {
	for _, size := range []int{100, 700, 3000, 100 << 10, 300 << 10, 3 << 20} {
		for range 4 {
			s := New(1)
			for i := range 1 + (4<<20)/size {
				s.Insert(s.Hash(key(i)), key(i), bytes.Repeat([]byte{0xee}, size), 0, 1, 0)
			}
			s.Close()
			Drain()
		}
		for _, want := range []uint64{512, 4096, 64 << 10, 512 << 10, 1 << 20, 5 << 20} {
			addr, err := process.take(want, false)
			if err != nil {
				t.Fatal(err)
			}
			for i, b := range bytesAt(addr, int(want)) {
				if b != 0 {
					t.Fatalf("byte %d of %d is %x", i, want, b)
				}
			}
			process.give(addr, want)
		}
	}
}

func TestAForgottenSpaceGivesItsMemoryBack(t *testing.T) {
	Drain()
	before := Held()
	func() {
		s := New(1)
		for i := range 10000 {
			s.Insert(s.Hash(key(i)), key(i), make([]byte, 1000), 0, 1, 0)
		}
		s.Insert(s.Hash(key(-1)), key(-1), make([]byte, 10<<20), 0, 1, 0)
		if Held() < before+20<<20 {
			t.Errorf("holds %d", Held()-before)
		}
	}()
	for i := 0; Held() > before+1<<20; i++ {
		if i > 1000 {
			t.Fatalf("%d bytes are still held", Held()-before)
		}
		runtime.GC()
		runtime.Gosched()
		Drain()
	}
}

func TestACutUnitBecomesWholeAgain(t *testing.T) {
	p := &pool{cut: map[uint64]*unit{}}
	rng := random(t, 1)
	type span struct{ addr, size uint64 }
	var out []span
	for i := range 20000 {
		if rng.IntN(2) == 0 || i > 15000 {
			if len(out) > 0 {
				j := rng.IntN(len(out))
				for _, b := range bytesAt(out[j].addr, 16) {
					if b != byte(out[j].addr>>9) {
						t.Fatal("somebody else wrote here")
					}
				}
				p.give(out[j].addr, out[j].size)
				out[j] = out[len(out)-1]
				out = out[:len(out)-1]
			}
			continue
		}
		size := spanSize(1 << rng.IntN(22))
		addr, err := p.take(size, false)
		if err != nil {
			t.Fatal(err)
		}
		if addr%min(size, unitSize) != 0 || *word(addr) != 0 {
			t.Fatalf("%d bytes at %x hold %x", size, addr, *word(addr))
		}
		for i := range bytesAt(addr, 16) {
			bytesAt(addr, 16)[i] = byte(addr >> 9)
		}
		out = append(out, span{addr, size})
	}
	for _, s := range out {
		p.give(s.addr, s.size)
	}
	if len(p.cut) != 0 || p.out != 0 {
		t.Errorf("%d units are cut, %d bytes out", len(p.cut), p.out)
	}
	for _, r := range p.regions {
		for i := range r.units {
			if r.free[i/64]>>(i%64)&1 == 0 {
				t.Fatalf("unit %d is not free", i)
			}
		}
	}
}

// Whatever fails for want of memory leaves all as it was, and it goes on when
// there is some. What makes nothing larger doesn't fail.
func TestWithoutMemoryNothingChanges(t *testing.T) {
	withReserve(t, 0)
	rng := random(t, 3)
	s, model := New(3), map[string][]byte{}
	defer func() { Limit(0) }()
	failed := 0
	for i := range 100000 {
		if i%500 == 0 {
			Limit(0)
			if rng.IntN(3) > 0 {
				Limit(Held() + int64(rng.IntN(100<<10)))
			}
		}
		k := key(rng.IntN(20000))
		h := s.Hash(k)
		r := s.Find(h, k)
		if (r == 0) != (model[string(k)] == nil) || r != 0 && !bytes.Equal(r.Value(), model[string(k)]) {
			t.Fatalf("op %d: %s is wrong", i, k)
		}
		val := fill(make([]byte, 1+rng.IntN(200)), rng)
		if rng.IntN(1000) == 0 {
			val = fill(make([]byte, 300<<10), rng)
		}
		var err error
		switch {
		case r == 0:
			if _, err = s.Insert(h, k, val, 0, 1, int64(rng.IntN(2))); err == nil {
				model[string(k)] = val
			}
		case rng.IntN(3) == 0:
			s.Remove(h, r)
			delete(model, string(k))
		case rng.IntN(2) == 0:
			var to Rec
			at := int64(rng.IntN(2))
			if to, err = s.SetDeadline(h, r, at); err != nil && (to != r || at == 0) {
				t.Fatalf("deadline %d: moved though it failed, or failed though it need not", at)
			}
		default:
			before := len(r.Value())
			if _, err = s.Set(h, r, val, 0); err == nil {
				model[string(k)] = val
			} else if len(val) <= before {
				t.Fatalf("a value of %d bytes can't become one of %d: %v", before, len(val), err)
			}
		}
		if err != nil {
			if failed++; !errors.Is(err, ErrNoMemory) {
				t.Fatal(err)
			}
		}
		s.Compact(3)
		if i%5000 == 0 {
			if err := s.check(); err != nil {
				t.Fatalf("op %d: %v", i, err)
			}
		}
	}
	if failed == 0 {
		t.Error("nothing failed")
	}
	if s.Len() != len(model) {
		t.Errorf("%d records, want %d", s.Len(), len(model))
	}
}

// Spaces of several goroutines share the pool, and get each only their own.
func TestSpacesOfManyGoroutines(t *testing.T) {
	var done sync.WaitGroup
	for g := range 4 {
		done.Go(func() {
			for round := range 20 {
				s := New(uint64(g))
				want := bytes.Repeat([]byte{byte(g)}, 10<<(round%12))
				for i := range 300 {
					if _, err := s.Insert(s.Hash(key(i)), key(i), want, 0, 1, 0); err != nil {
						t.Error(err)
					}
				}
				s.Range(func(r Rec) bool {
					if !bytes.Equal(r.Value(), want) {
						t.Error("holds what another has written")
					}
					return true
				})
				if round%2 == 0 {
					s.Close()
				}
				runtime.KeepAlive(s)
			}
		})
	}
	done.Wait()
	Drain()
}

func TestLookupsDontAllocate(t *testing.T) {
	s := New(1)
	for i := range 1000 {
		s.Insert(s.Hash(key(i)), key(i), key(i), 0, 1, 0)
	}
	k, rng := key(500), random(t, 1)
	sum := 0
	if n := testing.AllocsPerRun(100, func() {
		h := s.Hash(k)
		s.Touch(h)
		r := s.Find(h, k)
		r, _ = s.Set(h, r, k, 100)
		r, _ = s.SetDeadline(h, r, 77)
		s.Remove(h, r)
		s.Insert(h, k, k, 0, 1, 5)
		s.ScanFrom(100, 10, func(_ uint64, r Rec) { sum += len(r.Key()) })
		sum += len(s.Random(rng).Key())
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
