package value

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"unsafe"
)

// ztree keeps the elements of a big sorted set in order: a B+tree that also
// counts, so that an element's rank and the element at a rank are found on the
// way down.
//
// Redis has a skip list here: a pointer or three for each element, and a cache
// miss for each step. A node of this tree has up to 64 elements side by side.
//
//	inner    low | low | low ...        lows[i]: nothing in kids[i] comes before it
//	         kid | kid | kid ...        lows[0] isn't used: kids[0] takes whatever
//	          n  |  n  |  n  ...        comes before lows[1]; n: elements below
//	leaf     item | item | item ...
//
// A low stays when the element that it was taken from goes: it needn't be an
// element, it only has to divide.
//
// Where scores are equal members decide, and a member is in a cell somewhere
// else. So each item has eight bytes of its member beside it: those that come
// behind what all members of the node begin with, since in "user:000123" it is
// not the first eight that tell one from another. Only where these are equal,
// too, a comparison looks at the cell.
//
// A full node splits in two, or, when what
// comes is the last of all, keeps what it has: then sorted input fills nodes to
// the brim. A small node joins its neighbour once both fit in three quarters of
// one, and an empty one goes.
type ztree struct {
	root  *znode
	nodes int
}

// zitem is an element: its score, and the cell with member and score.
type zitem struct {
	score  float64
	prefix uint64 // of the member behind the first skip bytes, as prefixOf has it
	cell   *cell
}

type znode struct {
	items  []zitem  // leaf: elements, inner: lows
	kids   []*znode // nil in a leaf
	counts []int    // elements in each of kids

	// What members of all items (but for lows[0]) begin with.
	common [24]byte
	skip   uint8
}

const (
	fanout = 64
	// What an element of a tree takes with nodes filled as they usually are,
	// and what a node takes besides.
	itemCost = int(unsafe.Sizeof(zitem{})) * 3 / 2
	nodeCost = int(unsafe.Sizeof(znode{})) + 24
)

// before is the order of sorted sets: by score, then by the bytes of members.
func (a zitem) before(score float64, member []byte) bool {
	if a.score != score {
		return a.score < score
	}
	return bytes.Compare(a.cell.key(), member) < 0
}

func (t *ztree) len() int {
	if t.root == nil {
		return 0
	}
	return t.root.len()
}

func (t *ztree) size() int { return t.len()*itemCost + t.nodes*nodeCost }

// insert adds an item that isn't there.
func (t *ztree) insert(item zitem) {
	if t.root == nil {
		t.root = &znode{}
		t.nodes++
	}
	right := t.root.insert(item, item.cell.key(), t)
	if right == nil {
		return
	}
	left := t.root
	t.root = &znode{
		items:  append(make([]zitem, 0, 4), zitem{}),
		kids:   append(make([]*znode, 0, 4), left, right),
		counts: append(make([]int, 0, 4), left.len(), right.len()),
	}
	t.root.put(1, right.items[0])
	t.nodes++
}

// fill makes an empty tree one of these items, in any order: the leaves from
// the sorted items, and then one level after the other. Prefixes are those of
// whole members.
func (t *ztree) fill(items []zitem) {
	if len(items) == 0 {
		return
	}
	slices.SortFunc(items, func(a, b zitem) int {
		switch {
		case a.score != b.score:
			return cmp.Compare(a.score, b.score)
		case a.prefix != b.prefix:
			return cmp.Compare(a.prefix, b.prefix)
		}
		return bytes.Compare(a.cell.key(), b.cell.key())
	})
	var level []*znode
	var lows []zitem // the first item below each
	inGroups(len(items), func(from, to int) {
		n := &znode{items: append(make([]zitem, 0, fanout), items[from:to]...)}
		n.measure()
		level, lows = append(level, n), append(lows, n.items[0])
	})
	t.nodes += len(level)
	for len(level) > 1 {
		var nodes []*znode
		var firsts []zitem
		inGroups(len(level), func(from, to int) {
			n := &znode{
				items:  append(make([]zitem, 0, fanout), lows[from:to]...),
				kids:   append(make([]*znode, 0, fanout), level[from:to]...),
				counts: make([]int, 0, fanout),
			}
			for _, kid := range n.kids {
				n.counts = append(n.counts, kid.len())
			}
			n.items[0] = zitem{}
			n.measure()
			nodes, firsts = append(nodes, n), append(firsts, lows[from])
		})
		level, lows = nodes, firsts
		t.nodes += len(level)
	}
	t.root = level[0]
}

// inGroups divides n into groups that fill nodes as they usually are, none
// much smaller than others.
func inGroups(n int, fn func(from, to int)) {
	groups := (n + fanout*3/4 - 1) / (fanout * 3 / 4)
	for i := range groups {
		fn(n*i/groups, n*(i+1)/groups)
	}
}

// measure finds what members have in common, of a node that was just made.
func (n *znode) measure() {
	keyed := n.keyed()
	if len(keyed) == 0 {
		return
	}
	skip := copy(n.common[:], keyed[0].cell.key())
	for i := range keyed[1:] {
		skip = alike(n.common[:skip], keyed[1+i].cell.key())
	}
	n.setSkip(skip)
}

// remove takes out the item with that score and member, which is there.
func (t *ztree) remove(score float64, member []byte) {
	t.root.remove(score, member, math.NaN(), t)
	t.lower()
}

// lower takes away roots that have but one kid.
func (t *ztree) lower() {
	for len(t.root.kids) == 1 {
		t.root = t.root.kids[0]
		t.nodes--
	}
}

// at returns the item of that rank, which is less than len.
func (t *ztree) at(rank int) zitem {
	n := t.root
	for n.kids != nil {
		i := 0
		for rank >= n.counts[i] {
			rank -= n.counts[i]
			i++
		}
		n = n.kids[i]
	}
	return n.items[rank]
}

// count returns how many items come before a bound: those that below is true
// of, which are the first so many.
func (t *ztree) count(below func(zitem) bool) int {
	if t.root == nil {
		return 0
	}
	rank := 0
	n := t.root
	for n.kids != nil {
		i := n.kidWhere(below)
		for _, c := range n.counts[:i] {
			rank += c
		}
		n = n.kids[i]
	}
	return rank + countWhere(n.items, below)
}

func (t *ztree) rank(score float64, member []byte) int {
	rank := 0
	n := t.root
	for n.kids != nil {
		i := n.kidUpTo(score, member)
		for _, c := range n.counts[:i] {
			rank += c
		}
		n = n.kids[i]
	}
	return rank + n.itemAt(score, member)
}

// rescore gives an item another score if it stays where it is: between the
// same two others of its leaf. Else it takes the item out and reports false.
func (t *ztree) rescore(score float64, member []byte, to float64) (stays bool) {
	stays = t.root.remove(score, member, to, t)
	t.lower()
	return stays
}

// ascend calls fn for items from that rank on until it returns false.
func (t *ztree) ascend(from int, fn func(zitem) bool) {
	if t.root != nil {
		t.root.ascend(max(from, 0), fn)
	}
}

// descend is ascend the other way.
func (t *ztree) descend(from int, fn func(zitem) bool) {
	if t.root != nil && from >= 0 {
		t.root.descend(min(from, t.len()-1), fn)
	}
}

func (n *znode) len() int {
	if n.kids == nil {
		return len(n.items)
	}
	total := 0
	for _, c := range n.counts {
		total += c
	}
	return total
}

// countWhere returns how many of items below is true of; it is true of a first
// part of them.
func countWhere(items []zitem, below func(zitem) bool) int {
	low, high := 0, len(items)
	for low < high {
		mid := (low + high) / 2
		if below(items[mid]) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// kidWhere is the kid where the items that below is true of end.
func (n *znode) kidWhere(below func(zitem) bool) int {
	return countWhere(n.items[1:], below)
}

// kidUpTo is the kid that has the item, or where it belongs: behind all lows
// that aren't greater.
func (n *znode) kidUpTo(score float64, member []byte) int {
	return n.search(1, score, member, true) - 1
}

// itemAt is where the item is in a leaf, or belongs.
func (n *znode) itemAt(score float64, member []byte) int {
	return n.search(0, score, member, false)
}

// search returns the first of the items from low on that isn't before that
// score and member, or, if equal, isn't that either.
func (n *znode) search(low int, score float64, member []byte, equal bool) int {
	// As a whole, members here come after the given one, or before it, or
	// begin in the same way.
	skip := int(n.skip)
	side := bytes.Compare(n.common[:skip], member[:min(len(member), skip)])
	prefix := uint64(0)
	if side == 0 {
		prefix = prefixOf(member[skip:])
	}
	items := n.items
	high := len(items)
	for low < high {
		mid := int(uint(low+high) / 2)
		item := &items[mid]
		before := item.score < score
		if item.score == score {
			switch {
			case side != 0:
				before = side < 0
			case item.prefix != prefix:
				before = item.prefix < prefix
			default:
				c := bytes.Compare(item.cell.key(), member)
				before = c < 0 || equal && c == 0
			}
		}
		if before {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// prefixOf is the first eight bytes of s, such that greater ones are greater
// numbers. A shorter s is filled up with zeroes.
func prefixOf(s []byte) uint64 {
	if len(s) >= 8 {
		return binary.BigEndian.Uint64(s)
	}
	v := uint64(0)
	for i, b := range s {
		v |= uint64(b) << (56 - 8*i)
	}
	return v
}

// alike is the number of bytes that a and b have in common at their beginning.
func alike(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if x := load64(a[i:]) ^ load64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// keyed is the items that have members: not lows[0].
func (n *znode) keyed() []zitem {
	if n.kids == nil {
		return n.items
	}
	return n.items[1:]
}

// put puts an item in at i, and takes it into account in what members have in
// common.
func (n *znode) put(i int, item zitem) {
	member := item.cell.key()
	if keyed := n.keyed(); len(keyed) == 0 {
		n.skip = uint8(copy(n.common[:], member))
	} else if skip := alike(n.common[:n.skip], member); skip < int(n.skip) {
		n.setSkip(skip)
	}
	item.prefix = prefixOf(member[n.skip:])
	n.items = slices.Insert(n.items, i, item)
}

// setSkip says anew how many bytes members have in common. It looks at all of
// them.
func (n *znode) setSkip(skip int) {
	keyed := n.keyed()
	n.skip = uint8(skip)
	if len(keyed) > 0 {
		copy(n.common[:skip], keyed[0].cell.key())
	}
	for i := range keyed {
		keyed[i].prefix = prefixOf(keyed[i].cell.key()[skip:])
	}
}

// narrowed is to be called when n has lost many items, or got many from
// another node: members may have more in common now. Where scores differ that
// would take looking at all members, and hardly matters. The same goes for
// little more.
func (n *znode) narrowed() {
	keyed := n.keyed()
	if len(keyed) == 0 {
		return
	}
	first, last := keyed[0], keyed[len(keyed)-1]
	if first.score != last.score {
		return
	}
	if skip := min(alike(first.cell.key(), last.cell.key()), len(n.common)); skip >= int(n.skip)+4 {
		n.setSkip(skip)
	}
}

// insert returns a new node that comes right after n if n had to split.
func (n *znode) insert(item zitem, member []byte, t *ztree) (right *znode) {
	if n.kids == nil {
		i := n.itemAt(item.score, member)
		if len(n.items) < fanout {
			n.put(i, item)
			return nil
		}
		t.nodes++
		if i == fanout {
			right = &znode{items: make([]zitem, 0, fanout)}
			right.put(0, item)
			return right
		}
		right = n.half(fanout / 2)
		if i <= fanout/2 {
			n.put(i, item)
		} else {
			right.put(i-fanout/2, item)
		}
		return right
	}
	i := n.kidUpTo(item.score, member)
	split := n.kids[i].insert(item, member, t)
	n.counts[i]++
	if split == nil {
		return nil
	}
	count := split.len()
	n.counts[i] -= count
	i++
	n.put(i, split.items[0])
	n.kids = slices.Insert(n.kids, i, split)
	n.counts = slices.Insert(n.counts, i, count)
	if len(n.kids) <= fanout {
		return nil
	}
	keep := len(n.kids) / 2
	if i == fanout {
		keep = fanout
	}
	t.nodes++
	return n.half(keep)
}

// half takes the items from keep on away, and the kids, and returns a node of
// them.
func (n *znode) half(keep int) (right *znode) {
	right = &znode{
		items:  append(make([]zitem, 0, fanout), n.items[keep:]...),
		common: n.common,
		skip:   n.skip,
	}
	clear(n.items[keep:])
	n.items = n.items[:keep]
	if n.kids != nil {
		right.kids = append(make([]*znode, 0, fanout), n.kids[keep:]...)
		right.counts = append(make([]int, 0, fanout), n.counts[keep:]...)
		clear(n.kids[keep:])
		n.kids, n.counts = n.kids[:keep], n.counts[:keep]
	}
	n.narrowed()
	right.narrowed()
	return right
}

// remove takes out the item with that score and member, or gives it the score to,
// if that isn't NaN and lets it stay where it is.
func (n *znode) remove(score float64, member []byte, to float64, t *ztree) (stays bool) {
	if n.kids == nil {
		i := n.itemAt(score, member)
		if n.stays(i, member, to, n == t.root) {
			n.items[i].score = to
			return true
		}
		n.items = slices.Delete(n.items, i, i+1)
		return false
	}
	i := n.kidUpTo(score, member)
	kid := n.kids[i]
	if kid.remove(score, member, to, t) {
		return true
	}
	n.counts[i]--
	if n.counts[i] == 0 && len(n.kids) > 1 {
		n.drop(i)
		t.nodes--
		for ; kid.kids != nil; kid = kid.kids[0] { // what is below went one by one, but for the last
			t.nodes--
		}
		return false
	}
	if len(kid.items) > fanout/4 {
		return false
	}
	if i > 0 && n.join(i-1) || i < len(n.kids)-1 && n.join(i) {
		t.nodes--
	}
	return false
}

// stays reports whether an item of a leaf is between the same two others with
// another score; at the ends of a leaf that isn't alone nobody looks further.
func (n *znode) stays(i int, member []byte, to float64, alone bool) bool {
	last := len(n.items) - 1
	switch {
	case to != to, !alone && (i == 0 || i == last):
		return false
	case i > 0 && !n.items[i-1].before(to, member):
		return false
	}
	return i == last || !n.items[i+1].before(to, member)
}

// join puts kids i and i+1 together if they fit, with room to spare.
func (n *znode) join(i int) bool {
	left, right := n.kids[i], n.kids[i+1]
	if len(left.items)+len(right.items) > fanout*3/4 {
		return false
	}
	if right.kids != nil {
		right.items[0] = n.items[i+1]
	}
	skip := alike(left.common[:left.skip], right.common[:right.skip])
	if right.kids != nil {
		skip = alike(left.common[:skip], right.items[0].cell.key())
	}
	left.items = append(left.items, right.items...)
	left.setSkip(skip)
	left.narrowed()
	left.kids = append(left.kids, right.kids...)
	left.counts = append(left.counts, right.counts...)
	n.counts[i] += n.counts[i+1]
	n.drop(i + 1)
	return true
}

func (n *znode) drop(i int) {
	n.items = slices.Delete(n.items, i, i+1)
	n.kids = slices.Delete(n.kids, i, i+1)
	n.counts = slices.Delete(n.counts, i, i+1)
}

func (n *znode) ascend(from int, fn func(zitem) bool) bool {
	if n.kids == nil {
		for _, item := range n.items[min(from, len(n.items)):] {
			if !fn(item) {
				return false
			}
		}
		return true
	}
	for i, kid := range n.kids {
		if from >= n.counts[i] {
			from -= n.counts[i]
			continue
		}
		if !kid.ascend(from, fn) {
			return false
		}
		from = 0
	}
	return true
}

// descend goes down from rank from, which may be beyond the last.
func (n *znode) descend(from int, fn func(zitem) bool) bool {
	if n.kids == nil {
		for i := min(from, len(n.items)-1); i >= 0; i-- {
			if !fn(n.items[i]) {
				return false
			}
		}
		return true
	}
	begin := n.len() // rank of the first of the kids after i
	for i := len(n.kids) - 1; i >= 0; i-- {
		begin -= n.counts[i]
		if from >= begin && !n.kids[i].descend(from-begin, fn) {
			return false
		}
	}
	return true
}
