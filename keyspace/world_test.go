package keyspace

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"vecino/eviction"
	"vecino/slab"
	"vecino/value"
)

// world changes a keyspace at random, keeps the effects, and does the same to
// plain maps.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	ks    *Keyspace
	model [Databases]map[string]*plain
	log   [][]byte // effects of each write, the first is write 1
	now   int64
	db    int
	tx    *Tx
	long  bool // many values are too long for the head of a tier's record
	// load brings the values of Wanted back. It is nil where no key is cold.
	load func()
}

// plain is a value as a test has it.
type plain struct {
	kind     Kind
	str      string
	hash     map[string]string
	list     []string
	set      map[string]bool
	zset     map[string]float64
	deadline int64
}

const testSeed = 99

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 5)), ks: New(testSeed), now: 1_000_000}
	w.ks.SetEviction(eviction.OptimisticVolatile, 0)
	for db := range w.model {
		w.model[db] = map[string]*plain{}
	}
	return w
}

func (p *plain) clone() *plain {
	c := *p
	c.hash, c.set, c.zset, c.list = maps.Clone(p.hash), maps.Clone(p.set), maps.Clone(p.zset), slices.Clone(p.list)
	return &c
}

func (p *plain) empty() bool {
	return p.kind != String && len(p.hash)+len(p.list)+len(p.set)+len(p.zset) == 0
}

// String writes a value so that equal ones are written alike.
func (p *plain) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %d %q %q", p.kind, p.deadline, p.str, p.list)
	for _, f := range slices.Sorted(maps.Keys(p.hash)) {
		fmt.Fprintf(&b, " %q=%q", f, p.hash[f])
	}
	for _, m := range slices.Sorted(maps.Keys(p.set)) {
		fmt.Fprintf(&b, " %q", m)
	}
	for _, m := range slices.Sorted(maps.Keys(p.zset)) {
		fmt.Fprintf(&b, " %q:%v", m, p.zset[m])
	}
	return b.String()
}

// find is the value of a key as a command sees it.
func (w *world) find(key string) *plain {
	w.surface(w.db, key)
	p := w.model[w.db][key]
	if p != nil && p.deadline != 0 && p.deadline < w.now {
		delete(w.model[w.db], key)
		return nil
	}
	return p
}

// surface sees to it that a key isn't sunk that a command is about to change.
func (w *world) surface(db int, key string) {
	if w.ks.Sunk() > 0 {
		w.ks.wanted = w.ks.wanted[:0]
		if w.ks.WantSunk(db, []byte(key)) {
			w.load()
		}
	}
}

// get is find for a command of one type; it may make the value.
func (w *world) get(key string, kind Kind, create bool) (p *plain, wrong bool) {
	p = w.find(key)
	if p != nil {
		return p, p.kind != kind
	}
	if create {
		p = &plain{kind: kind, hash: map[string]string{}, set: map[string]bool{}, zset: map[string]float64{}}
		w.model[w.db][key] = p
	}
	return p, false
}

func (w *world) key() string { return "k" + strconv.Itoa(w.rng.IntN(25)) }

func (w *world) word() string {
	if w.long && w.rng.IntN(3) == 0 {
		return strings.Repeat(strconv.Itoa(w.rng.IntN(10)), MaxInline+w.rng.IntN(3))
	}
	switch w.rng.IntN(40) {
	case 0:
		return strings.Repeat("x", 70+w.rng.IntN(200))
	case 1:
		return ""
	}
	return strconv.Itoa(w.rng.IntN(40))
}

func (w *world) deadline() int64 {
	if w.rng.IntN(2) == 0 {
		return 0
	}
	return w.now + 1 + int64(w.rng.IntN(50))
}

// write makes one transaction of one or more commands. Those that change
// nothing leave no entry.
func (w *world) write() {
	w.now += int64(w.rng.IntN(3))
	seq := uint64(len(w.log)) + 1
	w.tx = w.ks.Begin(w.db, w.now, seq, w.rng, w.rng.IntN(2) == 0)
	for range 1 + w.rng.IntN(1+w.rng.IntN(4)) {
		if w.rng.IntN(8) == 0 {
			w.db = w.rng.IntN(3) * 7
			w.tx.Select(w.db)
		}
		w.command()
		w.tx.EndCommand()
		for db := range w.model {
			maps.DeleteFunc(w.model[db], func(_ string, p *plain) bool { return p.empty() })
		}
	}
	if effects, _ := w.tx.End(); len(effects) > 0 {
		w.log = append(w.log, bytes.Clone(effects))
	}
}

func (w *world) command() {
	key := w.key()
	k := []byte(key)
	switch n := w.rng.IntN(100); {
	case n < 12:
		w.setString(key)
	case n < 18:
		p, wrong := w.get(key, String, false)
		offset, part := w.rng.IntN(30), w.word()
		length, err := attempt(w, key, func(k []byte) (int, error) { return w.tx.PatchString(k, offset, []byte(part)) })
		if w.same(err, wrong); wrong {
			return
		}
		if p == nil {
			p, _ = w.get(key, String, true)
		}
		b := []byte(p.str)
		for len(b) < offset+len(part) {
			b = append(b, 0)
		}
		copy(b[offset:], part)
		p.str = string(b)
		if length != len(b) {
			w.t.Fatalf("patched to %d bytes, want %d", length, len(b))
		}
	case n < 24:
		had := w.find(key) != nil
		delete(w.model[w.db], key)
		if w.tx.Delete(k) != had {
			w.t.Fatalf("Delete(%s) is not %v", key, had)
		}
	case n < 30:
		w.setDeadline(key)
	case n < 33:
		to := w.key()
		w.surface(w.db, to)
		p := w.find(key)
		if done, err := attempt(w, key, func(k []byte) (bool, error) { return w.tx.Rename(k, []byte(to)) }); err != nil || done != (p != nil) {
			w.t.Fatalf("Rename(%s) is not %v", key, p != nil)
		}
		if p != nil {
			delete(w.model[w.db], key)
			w.model[w.db][to] = p
		}
	case n < 36:
		db, to := w.rng.IntN(3)*7, w.key()
		w.surface(db, to)
		p := w.find(key)
		if done, err := attempt(w, key, func(k []byte) (bool, error) { return w.tx.Copy(k, db, []byte(to)) }); err != nil || done != (p != nil) {
			w.t.Fatalf("Copy(%s) is not %v", key, p != nil)
		}
		if p != nil {
			w.model[db][to] = p.clone()
		}
	case n == 36 && w.rng.IntN(4) == 0:
		w.tx.Flush()
		clear(w.model[w.db])
	case n == 37 && w.rng.IntN(4) == 0:
		w.tx.FlushAll()
		for db := range w.model {
			clear(w.model[db])
		}
	case n < 40:
		w.tx.Expire(1 + w.rng.IntN(3)) // what it deletes has not been there for the model
	case n == 40:
		w.evict()
	case n > 40 && w.load != nil && w.rng.IntN(2) == 0:
		w.named(key, []Kind{HashKind, ListKind, SetKind, ZSetKind}[w.rng.IntN(4)])
	case n < 55:
		w.hash(key)
	case n < 72:
		w.list(key)
	case n < 85:
		w.set(key)
	default:
		w.zset(key)
	}
}

// attempt does what needs the value of a key. If that is cold, it is loaded
// and tried again; where the transaction has changed something it is loaded
// before.
func attempt[T any](w *world, key string, do func(key []byte) (T, error)) (T, error) {
	k := []byte(key)
	for w.ks.inTx {
		w.ks.wanted = w.ks.wanted[:0]
		if !w.ks.WantCold(w.db, k) {
			break
		}
		w.load()
	}
	effects, changed := len(w.tx.effects), w.ks.inTx
	v, err := do(k)
	if err == ErrCold {
		if changed || w.ks.inTx || len(w.tx.effects) != effects && !w.tx.expiredOnly(effects) {
			w.t.Fatalf("write %d: ErrCold for %q after something was changed", len(w.log)+1, key)
		}
		if !slices.ContainsFunc(w.ks.Wanted(), func(c ColdKey) bool { return string(c.Key) == key && c.DB == w.db }) {
			w.t.Fatalf("write %d: ErrCold for %q, wanted are %v", len(w.log)+1, key, w.ks.Wanted())
		}
		for tries := 0; err == ErrCold && tries < 1000; tries++ {
			w.load()
			v, err = do(k)
		}
	}
	return v, err
}

// expiredOnly reports whether the effects from some byte on only delete
// expired keys.
func (tx *Tx) expiredOnly(from int) bool {
	r := effectReader{b: tx.effects[from:], key: []byte{}}
	for len(r.b) > 0 {
		switch r.op() {
		case opSelect:
			r.byte()
		case opDel:
			if reason(r.byte()) != byExpiry {
				return false
			}
		default:
			return false
		}
	}
	return r.err == nil
}

// same checks the error of a command of one type.
func (w *world) same(err error, wrong bool) {
	if (err != nil) != wrong {
		w.t.Fatalf("the key holds another type: %v, the error: %v", wrong, err)
	}
}

func (w *world) setString(key string) {
	val, deadline := w.word(), w.deadline()
	p := w.model[w.db][key]
	if p != nil && p.deadline != 0 && p.deadline < w.now {
		p = nil
	}
	if w.rng.IntN(3) == 0 { // else a sunk key is written blindly
		p = w.find(key)
	}
	now := &plain{kind: String, str: val, deadline: deadline}
	if w.rng.IntN(4) == 0 {
		deadline, now.deadline = KeepDeadline, 0
		if p != nil {
			now.deadline = p.deadline
		}
	}
	w.tx.SetString([]byte(key), []byte(val), deadline)
	w.model[w.db][key] = now
}

func (w *world) setDeadline(key string) {
	at := w.deadline()
	if w.rng.IntN(6) == 0 {
		at = w.now - int64(w.rng.IntN(3))
	}
	p := w.find(key)
	if w.tx.SetDeadline([]byte(key), at) != (p != nil) {
		w.t.Fatalf("SetDeadline(%s) is not %v", key, p != nil)
	}
	switch {
	case p == nil:
	case at != 0 && at <= w.now:
		delete(w.model[w.db], key)
	default:
		p.deadline = at
	}
}

// evict lets the keyspace choose, and checks that it chose one key.
func (w *world) evict() {
	for db := range w.model { // it chooses among keys with a record
		if w.ks.SunkIn(db) > 0 {
			w.ks.wanted = append(w.ks.wanted[:0], WantAll(db))
			w.load()
		}
	}
	before := w.ks.Keys()
	if w.tx.Evict() != (before > 0) {
		w.t.Fatalf("Evict with %d keys", before)
	}
	if before > 0 && w.ks.Keys() != before-1 {
		w.t.Fatalf("Evict leaves %d keys of %d", w.ks.Keys(), before)
	}
	for db := range w.model {
		view := w.ks.View(db, 0, w.rng)
		maps.DeleteFunc(w.model[db], func(key string, _ *plain) bool { return view.Kind([]byte(key)) == None })
	}
}

func (w *world) hash(key string) {
	p, wrong := w.get(key, HashKind, false)
	h, err := attempt(w, key, w.tx.Hash)
	if w.same(err, wrong); wrong {
		return
	}
	if w.rng.IntN(3) > 0 {
		n := 1 + w.rng.IntN(3)
		if w.rng.IntN(40) == 0 {
			n = 200
		}
		p, _ = w.get(key, HashKind, true)
		for i := range n {
			field, val := w.word(), w.word()
			if n == 200 {
				field = strconv.Itoa(i)
			}
			_, had := p.hash[field]
			if h.Set([]byte(field), []byte(val)) == had {
				w.t.Fatalf("Set of field %q: added is %v", field, !had)
			}
			p.hash[field] = val
		}
	}
	for range w.rng.IntN(4) {
		field, had := w.word(), false
		if p != nil {
			_, had = p.hash[field]
			delete(p.hash, field)
		}
		if h.Del([]byte(field)) != had {
			w.t.Fatalf("Del of field %q is not %v", field, had)
		}
	}
}

func (w *world) list(key string) {
	p, wrong := w.get(key, ListKind, false)
	l, err := attempt(w, key, w.tx.List)
	if w.same(err, wrong); wrong {
		return
	}
	push := func() {
		p, _ = w.get(key, ListKind, true)
		val := w.word()
		if w.rng.IntN(2) == 0 {
			l.Push(Front, []byte(val))
			p.list = slices.Insert(p.list, 0, val)
		} else {
			l.Push(Back, []byte(val))
			p.list = append(p.list, val)
		}
	}
	if w.rng.IntN(2) == 0 {
		n := 1 + w.rng.IntN(4)
		if w.rng.IntN(30) == 0 {
			n = 300 // several chunks
		}
		for range n {
			push()
		}
	}
	if p == nil || len(p.list) == 0 {
		return
	}
	n := len(p.list)
	i, val := w.rng.IntN(n), w.word()
	switch w.rng.IntN(9) {
	case 0:
		l.SetAt(i, []byte(val))
		p.list[i] = val
	case 1:
		l.InsertAt(i, []byte(val))
		p.list = slices.Insert(p.list, i, val)
	case 2:
		l.RemoveAt(i)
		p.list = slices.Delete(p.list, i, i+1)
	case 3:
		stop := i + w.rng.IntN(n-i)
		l.Trim(i, stop)
		p.list = slices.Clone(p.list[i : stop+1])
	case 4:
		count := w.rng.IntN(5) - 2
		kept := without(p.list, val, count)
		if removed := l.Remove([]byte(val), count); removed != n-len(kept) {
			w.t.Fatalf("Remove of %q, %d removes %d, want %d", val, count, removed, n-len(kept))
		}
		p.list = kept
	case 5:
		l.Pop(Front, i)
		p.list = slices.Clone(p.list[i:])
	case 6:
		l.Pop(Back, i)
		p.list = p.list[:n-i]
	case 7: // it ends, and may be filled again before the command has ended
		l.Pop(Front, n)
		p.list = nil
		if w.rng.IntN(2) == 0 {
			push()
		}
	}
}

// without is what LREM leaves.
func without(list []string, val string, count int) []string {
	list = slices.Clone(list)
	limit := len(list)
	if count != 0 {
		limit = max(count, -count)
	}
	if count < 0 {
		slices.Reverse(list)
	}
	list = slices.DeleteFunc(list, func(other string) bool {
		if other != val || limit == 0 {
			return false
		}
		limit--
		return true
	})
	if count < 0 {
		slices.Reverse(list)
	}
	return list
}

func (w *world) set(key string) {
	p, wrong := w.get(key, SetKind, false)
	s, err := attempt(w, key, w.tx.Set)
	if w.same(err, wrong); wrong {
		return
	}
	if w.rng.IntN(3) > 0 {
		p, _ = w.get(key, SetKind, true)
		n := 1 + w.rng.IntN(4)
		if w.rng.IntN(40) == 0 {
			n = 200
		}
		for i := range n {
			member := w.word()
			if n == 200 {
				member = "m" + strconv.Itoa(i)
			}
			if s.Add([]byte(member)) == p.set[member] {
				w.t.Fatalf("Add of %q is %v", member, !p.set[member])
			}
			p.set[member] = true
		}
	}
	if w.rng.IntN(3) == 0 && s.Len() > 0 {
		member := s.Random(w.rng) // memory of the set's own
		chosen := string(member)
		if !p.set[chosen] || !s.Del(member) {
			w.t.Fatalf("Random gives %q, which is no member", chosen)
		}
		delete(p.set, chosen)
	}
	for range w.rng.IntN(3) {
		member, had := w.word(), false
		if p != nil {
			had = p.set[member]
			delete(p.set, member)
		}
		if s.Del([]byte(member)) != had {
			w.t.Fatalf("Del of %q is not %v", member, had)
		}
	}
}

func (w *world) zset(key string) {
	p, wrong := w.get(key, ZSetKind, false)
	z, err := attempt(w, key, w.tx.ZSet)
	if w.same(err, wrong); wrong {
		return
	}
	if w.rng.IntN(3) > 0 {
		p, _ = w.get(key, ZSetKind, true)
		n := 1 + w.rng.IntN(4)
		if w.rng.IntN(40) == 0 {
			n = 200
		}
		for i := range n {
			member, score := w.word(), float64(w.rng.IntN(9))/2-1
			switch w.rng.IntN(30) {
			case 0:
				score = math.Inf(1 - 2*w.rng.IntN(2))
			case 1:
				score = math.Copysign(0, -1)
			}
			if n == 200 {
				member = "m" + strconv.Itoa(i)
			}
			old, had := p.zset[member]
			if added, changed := z.Set([]byte(member), score); added == had || changed == (had && old == score) {
				w.t.Fatalf("Set of %q from %v (%v) to %v: added %v, changed %v", member, old, had, score, added, changed)
			}
			if !had || old != score {
				p.zset[member] = score + 0
			}
		}
	}
	if z.Len() > 0 && w.rng.IntN(3) == 0 {
		from := w.rng.IntN(z.Len())
		to := from + w.rng.IntN(min(5, z.Len()-from+1))
		z.RemoveRange(from, to, func(member []byte, score float64) {
			if got, had := p.zset[string(member)]; !had || got != score {
				w.t.Fatalf("RemoveRange gives %q %v, want %v", member, score, got)
			}
			delete(p.zset, string(member))
		})
	}
	for range w.rng.IntN(3) {
		member, had := w.word(), false
		if p != nil {
			_, had = p.zset[member]
			delete(p.zset, member)
		}
		if z.Del([]byte(member)) != had {
			w.t.Fatalf("Del of %q is not %v", member, had)
		}
	}
}

// check compares the keyspace with the model and with its own accounts.
func (w *world) check() {
	w.t.Helper()
	for db := range w.model {
		view := w.ks.View(db, w.now, w.rng)
		seen := map[string]bool{}
		view.Range(func(key []byte, kind Kind) bool {
			seen[string(key)] = true
			want := w.model[db][string(key)]
			if want == nil {
				w.t.Fatalf("write %d: key %q of database %d should not be there", len(w.log), key, db)
			}
			if got := read(w.t, &view, key); got.String() != want.String() {
				w.t.Fatalf("write %d: key %q\n got %v\nwant %v", len(w.log), key, got, want)
			}
			return true
		})
		for key, p := range w.model[db] {
			if !seen[key] && (p.deadline == 0 || p.deadline >= w.now) {
				w.t.Fatalf("write %d: key %q of database %d is missing: %v", len(w.log), key, db, p)
			}
		}
	}
	checkAccounts(w.t, w.ks)
}

// read takes a value out of a view.
func read(t *testing.T, v *View, key []byte) *plain {
	t.Helper()
	p := &plain{kind: v.Kind(key)}
	p.deadline, _ = v.Deadline(key)
	var err error
	switch p.kind {
	case String:
		var s []byte
		s, _, err = v.String(key)
		p.str = string(s)
	case HashKind:
		var h HashView
		h, err = v.Hash(key)
		p.hash = map[string]string{}
		for f, val := range h.All() {
			p.hash[string(f)] = string(val)
		}
	case ListKind:
		var l ListView
		l, err = v.List(key)
		l.Range(0, func(e []byte) bool { p.list = append(p.list, string(e)); return true })
	case SetKind:
		var s SetView
		s, err = v.Set(key)
		p.set = map[string]bool{}
		for m := range s.All() {
			p.set[string(m)] = true
		}
	case ZSetKind:
		var z ZSetView
		z, err = v.ZSet(key)
		p.zset = map[string]float64{}
		for m, score := range z.All() {
			p.zset[string(m)] = score
		}
	}
	if err != nil {
		t.Fatalf("key %q of kind %v: %v", key, p.kind, err)
	}
	return p
}

// checkAccounts checks what a keyspace knows without counting.
func checkAccounts(t *testing.T, ks *Keyspace) { t.Helper(); checkAll(t, ks, nil, false) }

// checkAll is checkAccounts where keys may be sunk, of which the tier has the records;
// with empty, collections may be empty, as effects leave them that nobody made.
func checkAll(t *testing.T, ks *Keyspace, tier *fakeTier, empty bool) {
	t.Helper()
	next := int64(0)
	var all account
	for db, sp := range ks.spaces {
		if sp == nil {
			continue
		}
		deadlines := 0
		var sum account
		objects := map[uint32]bool{}
		waiting := 0
		var bytes int64
		sp.slab.Range(func(r slab.Rec) bool {
			e := sp.at(r)
			if e.Has(openFlag) {
				t.Fatalf("key %q is in use", e.Key())
			}
			sum.used += e.size()
			switch {
			case e.cold():
				s, p := e.stub(), e.pending()
				sum.away += s.away
				sum.pending += int64(len(p.ops))
				sum.coldKeys++
				if partly := e.Has(objectFlag); e.Seq() < s.base || e.stored() == unstored || !partly && len(e.Value()) != stubSize || partly && !e.object().partly() {
					t.Fatalf("key %q is cold and %+v", e.Key(), s)
				}
				if e.Has(pendingFlag) {
					waiting++
				}
			}
			switch {
			case e.Has(objectFlag):
				if objects[e.number()] {
					t.Fatalf("key %q has the object of another", e.Key())
				}
				objects[e.number()] = true
				o := sp.objects.list[e.number()]
				if bytes += o.size; o.size != o.collection.size() {
					t.Fatalf("key %q has an object of %d bytes and says %d", e.Key(), o.collection.size(), o.size)
				}
			case e.cold() || e.kind() == String:
			default:
				if o := ks.open(e); o.len() == 0 && !empty {
					t.Fatalf("key %q is an empty %v", e.Key(), e.kind())
				}
				ks.desk.clear()
			}
			if at := e.expire(); at != 0 {
				deadlines++
				if next == 0 || at < next {
					next = at
				}
			}
			return true
		})
		if n := len(sp.objects.list) - len(sp.objects.free); n != len(objects) || bytes != sp.objects.bytes {
			t.Fatalf("database %d has %d objects of %d bytes, and says %d of %d", db, len(objects), bytes, n, sp.objects.bytes)
		}
		if waiting != len(sp.pending) {
			t.Fatalf("database %d has %d keys that wait for their values, and says %d", db, waiting, len(sp.pending))
		}
		count := func(k tierKey, s Stored) {
			if k.db != db {
				return
			}
			h, err := readHead(s.Head)
			if err != nil {
				t.Fatal(err)
			}
			sum.add(h.sunk(len(k.key)), 1)
		}
		eachSunk(ks, tier, count)
		eachBlind(ks, db, func(k tierKey) {
			sum.blind++
			if s, there := tier.records[k]; there {
				count(k, s)
			}
		})
		if sum != sp.account || sum.sunk != sp.slab.Prints() {
			t.Fatalf("database %d has %+v and says %+v", db, sum, sp.account)
		}
		all.add(sum, 1)
		if deadlines != ks.Expires(db) {
			t.Fatalf("database %d has %d deadlines and says %d", db, deadlines, ks.Expires(db))
		}
	}
	if all != ks.account || next != ks.NextExpiry() {
		t.Fatalf("account %+v, next expiry %d; it says %+v and %d", all, next, ks.account, ks.NextExpiry())
	}
}

// eachBlind calls fn for the keys of a logical database that were written blindly.
func eachBlind(ks *Keyspace, db int, fn func(k tierKey)) {
	for k, hash := range ks.tier.blind {
		if k.db == db {
			fn(tierKey{db, hash, k.key})
		}
	}
	ks.spaces[db].slab.Range(func(r slab.Rec) bool {
		if e := ks.spaces[db].at(r); e.stored() == blind {
			fn(tierKey{db, e.hash, string(e.Key())})
		}
		return true
	})
}

// dump is the whole content, with sequence numbers.
func dump(ks *Keyspace) (records []byte) {
	var c Cursor
	for !c.Done() {
		records = ks.Dump(records, &c, 1<<20)
	}
	return records
}

var _ value.Rand = (*rand.Rand)(nil)
