package value

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

type scored struct {
	member string
	score  float64
}

func byOrder(a, b scored) int {
	return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(a.member, b.member))
}

func TestZSetAgreesWithASortedSlice(t *testing.T) {
	for seed := range uint64(18) {
		rng := random(t, seed)
		members := 1 + rng.IntN([]int{10, 140, 4000}[seed%3])
		scores := []int{1, 5, 1000000}[rng.IntN(3)] // all alike, ties, few ties
		score := func() float64 {
			switch f := float64(rng.IntN(scores)); rng.IntN(40) {
			case 0:
				return math.Inf(1)
			case 1:
				return math.Inf(-1)
			case 2:
				return math.Copysign(0, -1)
			default:
				return (f - float64(scores)/2) / 4
			}
		}
		name := []func(i int) []byte{ // members that have much, little or nothing in common at their beginning
			key,
			func(i int) []byte { return append(bytes.Repeat([]byte("p"), i%35), key(i)...) },
			func(i int) []byte { return append([]byte("a common beginning of 31 bytes:"), key(i)...) },
			func(i int) []byte {
				return append(bytes.Repeat([]byte{'x', 0}, 9+i%2), bytes.Repeat([]byte{0}, i/2%60)...)
			},
		}[seed/3%4]
		z, model := NewZSet(seed), map[string]float64{}
		for step := range 8000 {
			m := name(rng.IntN(members))
			old, was := model[string(m)]
			if got, ok := z.Score(m); ok != was || got != old {
				t.Fatalf("Score(%s) = %v, %v; want %v, %v", m, got, ok, old, was)
			}
			shrink := step/2000%2 == 1
			if p := rng.IntN(10); p == 0 || shrink && p < 8 {
				if z.Del(m) != was {
					t.Fatalf("Del(%s) = %v", m, !was)
				}
				delete(model, string(m))
			} else {
				s := score()
				if was && rng.IntN(2) == 0 {
					s = old + 0.25*float64(rng.IntN(3)) // nearby
				}
				added, changed := z.Set(m, s)
				if added == was || changed != (!was || old != s) {
					t.Fatalf("Set(%s, %v) = %v, %v; had %v, %v", m, s, added, changed, old, was)
				}
				if changed {
					model[string(m)] = s
				}
			}
			if z.Len() != len(model) {
				t.Fatalf("Len %d, want %d", z.Len(), len(model))
			}
			if step%800 == 799 {
				checkZSet(t, rng, z, model)
				loaded, err := LoadZSet(seed, z.AppendDump(nil))
				if err != nil {
					t.Fatal(err)
				}
				if loaded.Encoding() != z.Encoding() {
					t.Fatalf("loaded as %s, was %s", loaded.Encoding(), z.Encoding())
				}
				checkZSet(t, rng, loaded, model)
				if step%1600 == 799 {
					z = loaded
				}
			}
		}
		for from, to := z.Len()/3, z.Len()*2/3; from < to; to -= 5 { // some, in the middle
			want := sortedModel(model)[from:min(from+5, z.Len())]
			var got []scored
			z.RemoveRange(from, from+5, func(m []byte, s float64) { got = append(got, scored{string(m), s}) })
			if !slices.Equal(got, want) {
				t.Fatalf("removed %v, want %v", got, want)
			}
			for _, s := range want {
				delete(model, s.member)
			}
		}
		checkZSet(t, rng, z, model)
		z.RemoveRange(-5, 1<<60, nil)
		clear(model)
		checkZSet(t, rng, z, model)
	}
}

func sortedModel(model map[string]float64) []scored {
	var all []scored
	for m, s := range model {
		all = append(all, scored{m, s})
	}
	slices.SortFunc(all, byOrder)
	return all
}

func checkZSet(t *testing.T, rng *rand.Rand, z *ZSet, model map[string]float64) {
	t.Helper()
	want := sortedModel(model)
	var got []scored
	for m, s := range z.All() {
		got = append(got, scored{string(m), s})
	}
	if !slices.Equal(got, want) {
		t.Fatalf("All gave\n%v, want\n%v", got, want)
	}
	for range 30 {
		from := rng.IntN(len(want)+4) - 2
		limit := rng.IntN(100)
		got = got[:0]
		z.Ascend(from, func(m []byte, s float64) bool {
			got = append(got, scored{string(m), s})
			return len(got) < limit
		})
		begin := max(0, min(from, len(want)))
		if up := want[begin:min(len(want), begin+max(limit, 1))]; !slices.Equal(got, up) {
			t.Fatalf("Ascend(%d) %d times gave %v, want %v", from, limit, got, up)
		}
		got = got[:0]
		z.Descend(from, func(m []byte, s float64) bool {
			got = append(got, scored{string(m), s})
			return len(got) < limit
		})
		end := max(-1, min(from, len(want)-1)) + 1
		down := slices.Clone(want[max(0, end-max(limit, 1)):end])
		slices.Reverse(down)
		if !slices.Equal(got, down) {
			t.Fatalf("Descend(%d) %d times gave %v, want %v", from, limit, got, down)
		}
		if len(want) == 0 {
			continue
		}
		i := rng.IntN(len(want))
		if m, s := z.ByRank(i); string(m) != want[i].member || s != want[i].score {
			t.Fatalf("ByRank(%d) = %s, %v; want %v", i, m, s, want[i])
		}
		if rank, ok := z.Rank([]byte(want[i].member)); rank != i || !ok {
			t.Fatalf("Rank(%s) = %d, %v; want %d", want[i].member, rank, ok, i)
		}
		for _, bound := range []float64{want[i].score, want[i].score + 0.1, math.Inf(1), math.Inf(-1)} {
			for _, exclusive := range []bool{false, true} {
				below := 0
				for _, s := range want {
					if s.score < bound || exclusive && s.score == bound {
						below++
					}
				}
				if got := z.RankOfScore(bound, exclusive); got != below {
					t.Fatalf("RankOfScore(%v, %v) = %d, want %d", bound, exclusive, got, below)
				}
			}
		}
	}
	if _, ok := z.Rank([]byte("nobody")); ok {
		t.Fatal("a rank for nobody")
	}
	scanned := map[string]float64{}
	for cursor := uint64(0); ; {
		if cursor = z.Scan(cursor, 7, func(m []byte, s float64) { scanned[string(m)] = s }); cursor == 0 {
			break
		}
	}
	if len(scanned) != len(model) {
		t.Fatalf("Scan gave %d, want %d", len(scanned), len(model))
	}
	if size, least := z.Size(), 9*len(model); size < least || size > 6000+200*len(model) && len(model) > 5 {
		t.Fatalf("size %d for %d members", size, len(model))
	}
	if z.big != nil {
		nodes := 0
		if z.big.tree.root != nil {
			nodes = checkNode(t, z.big.tree.root, nil, nil)
		}
		if nodes != z.big.tree.nodes || z.big.tree.len() != len(model) {
			t.Fatalf("%d nodes, says %d; %d items, want %d", nodes, z.big.tree.nodes, z.big.tree.len(), len(model))
		}
	}
}

// checkNode verifies that all below n is at least low and less than high, and
// counted right, and returns the number of nodes.
func checkNode(t *testing.T, n *znode, low, high *zitem) (nodes int) {
	t.Helper()
	inside := func(i zitem) {
		if low != nil && i.before(low.score, low.cell.key()) || high != nil && !i.before(high.score, high.cell.key()) {
			t.Fatalf("an item out of the bounds of its node")
		}
	}
	if len(n.items) > fanout {
		t.Fatalf("%d items in a node", len(n.items))
	}
	for _, i := range n.keyed() {
		m := i.cell.key()
		if len(m) < int(n.skip) || !bytes.Equal(m[:n.skip], n.common[:n.skip]) || i.prefix != prefixOf(m[n.skip:]) {
			t.Fatalf("%q in a node of %q with %x", m, n.common[:n.skip], i.prefix)
		}
	}
	if n.kids == nil {
		for _, i := range n.items {
			inside(i)
		}
		return 1
	}
	if len(n.kids) == 0 || len(n.kids) != len(n.items) || len(n.kids) != len(n.counts) {
		t.Fatalf("a node of %d kids with %d lows and %d counts", len(n.kids), len(n.items), len(n.counts))
	}
	for i, kid := range n.kids {
		l, h := low, high
		if i > 0 {
			inside(n.items[i])
			l = &n.items[i]
		}
		if i < len(n.kids)-1 {
			h = &n.items[i+1]
		}
		if kid.len() != n.counts[i] {
			t.Fatalf("%d below, says %d", kid.len(), n.counts[i])
		}
		nodes += checkNode(t, kid, l, h)
	}
	return nodes + 1
}

func TestZSetRankOfLex(t *testing.T) {
	for _, n := range []int{0, 10, 128, 1000} {
		z := NewZSet(1)
		var members []string
		for i := range n {
			z.Set(key(2*i), 7)
			members = append(members, string(key(2*i)))
		}
		slices.Sort(members)
		for i := range 2*n + 2 {
			for _, exclusive := range []bool{false, true} {
				want := 0
				for _, m := range members {
					if m < string(key(i)) || exclusive && m == string(key(i)) {
						want++
					}
				}
				if got := z.RankOfLex(key(i), exclusive); got != want {
					t.Fatalf("RankOfLex(%s, %v) of %d = %d, want %d", key(i), exclusive, n, got, want)
				}
			}
		}
	}
}

func TestZSetLeavesListpackWhereRedisDoes(t *testing.T) {
	z := NewZSet(1)
	for i := range 128 {
		z.Set(key(i), 1)
	}
	z.Set(key(5), 2)
	if z.Encoding() != "listpack" {
		t.Errorf("128 members: %s", z.Encoding())
	}
	z.Set(key(128), 1)
	if z.Encoding() != "skiplist" || z.Len() != 129 {
		t.Errorf("129 members: %s", z.Encoding())
	}
	for size, want := range map[int]string{64: "listpack", 65: "skiplist"} {
		z := NewZSet(1)
		z.Set(bytes.Repeat([]byte("x"), size), 1)
		if z.Encoding() != want {
			t.Errorf("%d bytes: %s", size, z.Encoding())
		}
	}
}

func TestZSetTakesNoNaN(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("it did")
		}
	}()
	NewZSet(1).Set([]byte("a"), math.NaN())
}

// As when times are scores: what is new comes last, what is old goes first.
func TestZSetAsAWindowStaysSmall(t *testing.T) {
	z := NewZSet(1)
	for i := range 50000 {
		z.Set(key(i), float64(i))
		if i >= 1000 {
			if m, _ := z.ByRank(0); string(m) != string(key(i-1000)) {
				t.Fatalf("first is %s", m)
			}
			z.RemoveRange(0, 1, nil)
		}
	}
	if nodes := checkNode(t, z.big.tree.root, nil, nil); nodes > 40 || nodes != z.big.tree.nodes {
		t.Errorf("%d nodes for 1000 items, says %d", nodes, z.big.tree.nodes)
	}
}

// A tree of some height, emptied in three ways.
func TestZSetOfManyComesDownWell(t *testing.T) {
	const n = 60000
	for name, next := range map[string]func(i int) int{
		"from the front": func(i int) int { return i },
		"from the back":  func(i int) int { return n - 1 - i },
		"here and there": func(i int) int { return i * 7919 % n },
	} {
		t.Run(name, func(t *testing.T) {
			z := NewZSet(1)
			for i := range n {
				z.Set(key(i), float64(i))
			}
			full := z.Size()
			for i := range n - 10 {
				if !z.Del(key(next(i))) {
					t.Fatalf("%d is lost", next(i))
				}
				if i%(n/20) == 0 {
					if nodes := checkNode(t, z.big.tree.root, nil, nil); nodes != z.big.tree.nodes {
						t.Fatalf("%d nodes, says %d", nodes, z.big.tree.nodes)
					}
				}
			}
			if nodes := checkNode(t, z.big.tree.root, nil, nil); nodes > 12 || z.Size() > full/20 {
				t.Errorf("%d nodes and %d of %d bytes for 10 items", nodes, z.Size(), full)
			}
			for i := n - 10; i < n; i++ {
				z.Del(key(next(i)))
			}
			if z.Len() != 0 || z.RankOfScore(1, true) != 0 {
				t.Error("not empty")
			}
			z.Set(key(1), 1)
			if rank, ok := z.Rank(key(1)); rank != 0 || !ok {
				t.Error("doesn't begin anew")
			}
		})
	}
}

func TestZSetReadsDoNotAllocate(t *testing.T) {
	z := NewZSet(1)
	for i := range 10000 {
		z.Set(key(i), float64(i))
	}
	m, sum := key(77), 0.0
	if n := testing.AllocsPerRun(100, func() {
		rank, _ := z.Rank(m)
		z.RankOfScore(500, true)
		z.RankOfLex(m, true)
		z.Set(m, 77)
		z.Set(m, 77.25)
		z.Set(m, 77)
		z.Ascend(rank, func(_ []byte, s float64) bool { sum += s; return false })
		z.Descend(rank, func(_ []byte, s float64) bool { sum += s; return false })
	}); n > 4 { // the two walks' closures
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkZSet(b *testing.B) {
	for _, n := range []int{5, 100, 1000000} {
		z := NewZSet(1)
		rng := rand.New(rand.NewPCG(1, 1))
		var members [][]byte
		for i := range n {
			members = append(members, key(i))
			z.Set(members[i], float64(rng.IntN(n)))
		}
		run := func(name string, fn func(m []byte)) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					fn(members[rng.IntN(n)])
				}
			})
		}
		run("Rescore", func(m []byte) { z.Set(m, float64(rng.IntN(n))) })
		run("Same", func(m []byte) { s, _ := z.Score(m); z.Set(m, s) })
		run("Rank", func(m []byte) { z.Rank(m) })
		run("ByRank", func([]byte) { z.ByRank(rng.IntN(n)) })
		run("Count", func([]byte) { z.RankOfScore(float64(rng.IntN(n)), true) })
		run("DelSet", func(m []byte) { z.Del(m); z.Set(m, float64(rng.IntN(n))) })
		b.Run(fmt.Sprintf("Size/%d", n), func(b *testing.B) {
			for b.Loop() {
				z.Size()
			}
			b.ReportMetric(float64(z.Size())/float64(n), "B/member")
		})
	}
}
