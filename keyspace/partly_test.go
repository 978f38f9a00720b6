package keyspace

import (
	"slices"
	"strconv"
	"testing"

	"vecino/slab"
	"vecino/value"
)

// partlyCold is how many keys are.
func partlyCold(ks *Keyspace) (n int) {
	for _, sp := range ks.spaces {
		if sp != nil {
			sp.slab.Range(func(r slab.Rec) bool {
				if e := sp.at(r); e.cold() && e.Has(objectFlag) {
					n++
				}
				return true
			})
		}
	}
	return n
}

// element is a field or member that is there more often than a word.
func (w *world) element() string {
	switch w.rng.IntN(3) {
	case 0:
		return w.word()
	case 1:
		return "m" + strconv.Itoa(w.rng.IntN(220))
	}
	return strconv.Itoa(w.rng.IntN(220))
}

// named is a command that says which elements it looks at.
func (w *world) named(key string, kind Kind) {
	part := w.ks.LookAt(true)
	defer w.ks.LookAtAll()
	p, wrong := w.get(key, kind, false)
	var names []string
	for range 1 + w.rng.IntN(3) {
		names = append(names, w.element())
		part.Elements = append(part.Elements, []byte(names[len(names)-1]))
	}
	length := func(n int) {
		want := 0
		if p != nil {
			want = len(p.hash) + len(p.set) + len(p.zset) + len(p.list)
		}
		if n != want {
			w.t.Fatalf("%q has a length of %d, and should have %d", key, n, want)
		}
	}
	if w.rng.IntN(4) == 0 {
		part.Elements, names, part.Length = part.Elements[:0], nil, true
	}
	switch kind {
	case HashKind:
		h, err := attempt(w, key, w.tx.Hash)
		if w.same(err, wrong); wrong {
			return
		}
		length(h.Len())
		for _, name := range names {
			if w.rng.IntN(2) == 0 {
				had := p != nil && has(p.hash, name)
				if h.Del([]byte(name)) != had {
					w.t.Fatalf("Del of field %q is not %v", name, had)
				}
				if had {
					delete(p.hash, name)
				}
				continue
			}
			val := w.word()
			p, _ = w.get(key, kind, true)
			if h.Set([]byte(name), []byte(val)) == has(p.hash, name) {
				w.t.Fatalf("Set of field %q: it was there: %v", name, has(p.hash, name))
			}
			p.hash[name] = val
		}
	case SetKind:
		s, err := attempt(w, key, w.tx.Set)
		if w.same(err, wrong); wrong {
			return
		}
		length(s.Len())
		for _, name := range names {
			had := p != nil && p.set[name]
			if w.rng.IntN(2) == 0 {
				if s.Del([]byte(name)) != had {
					w.t.Fatalf("Del of %q is not %v", name, had)
				}
				if had {
					delete(p.set, name)
				}
				continue
			}
			p, _ = w.get(key, kind, true)
			if s.Add([]byte(name)) == had {
				w.t.Fatalf("Add of %q is %v", name, had)
			}
			p.set[name] = true
		}
	case ZSetKind:
		z, err := attempt(w, key, w.tx.ZSet)
		if w.same(err, wrong); wrong {
			return
		}
		length(z.Len())
		for _, name := range names {
			had := p != nil && has(p.zset, name)
			if w.rng.IntN(2) == 0 {
				if z.Del([]byte(name)) != had {
					w.t.Fatalf("Del of %q is not %v", name, had)
				}
				if had {
					delete(p.zset, name)
				}
				continue
			}
			score := float64(w.rng.IntN(9))
			p, _ = w.get(key, kind, true)
			if added, _ := z.Set([]byte(name), score); added == had {
				w.t.Fatalf("Set of %q: added is %v", name, added)
			}
			p.zset[name] = score
		}
	case ListKind:
		w.namedList(key, part, length)
	}
}

func has[V any](m map[string]V, key string) bool {
	_, there := m[key]
	return there
}

// namedList is named of a list, with one change.
func (w *world) namedList(key string, part *Part, length func(int)) {
	p, wrong := w.get(key, ListKind, false)
	n := 0
	if p != nil {
		n = len(p.list)
	}
	op, val, i := w.rng.IntN(6), w.word(), 0
	if n > 0 {
		i = w.rng.IntN(n)
	} else {
		op = 0
	}
	end := End(w.rng.IntN(2))
	part.Length = false
	switch op {
	case 0:
		part.Spans = append(part.Spans, AtEnd(end, 1))
	case 1:
		part.Spans = append(part.Spans, AtEnd(end, int64(i)))
	case 2:
		part.Spans = append(part.Spans, Around(int64(i)), Around(int64(n-1)))
	default:
		part.Spans = append(part.Spans, Around(int64(i)))
	}
	l, err := attempt(w, key, w.tx.List)
	if w.same(err, wrong); wrong {
		return
	}
	length(l.Len())
	switch op {
	case 0:
		p, _ = w.get(key, ListKind, true)
		if l.Push(end, []byte(val)); end == Front {
			p.list = slices.Insert(p.list, 0, val)
		} else {
			p.list = append(p.list, val)
		}
	case 1:
		if l.Pop(end, i); end == Front {
			p.list = slices.Clone(p.list[i:])
		} else {
			p.list = p.list[:n-i]
		}
	case 2:
		l.Trim(i, n-1)
		p.list = slices.Clone(p.list[i:])
	case 3:
		l.SetAt(i, []byte(val))
		p.list[i] = val
	case 4:
		l.InsertAt(i, []byte(val))
		p.list = slices.Insert(p.list, i, val)
	case 5:
		l.RemoveAt(i)
		p.list = slices.Delete(p.list, i, i+1)
	}
}

// lookAtSome reads some elements of a key of a copy that has all writes.
func (w *world) lookAtSome(c *copyOnDisk) {
	w.t.Helper()
	db := w.rng.IntN(3) * 7
	keys := slices.Sorted(func(yield func(string) bool) {
		for key := range w.model[db] {
			if !yield(key) {
				return
			}
		}
	})
	if len(keys) == 0 {
		return
	}
	key := keys[w.rng.IntN(len(keys))]
	p, name := w.model[db][key], w.element()
	if p.deadline != 0 && p.deadline < w.now {
		return
	}
	at := 0
	if len(p.list) > 0 {
		at = w.rng.IntN(len(p.list))
	}
	for tries := 0; ; tries++ {
		v := c.ks.View(db, w.now, w.rng)
		part := c.ks.LookAt(false)
		part.Elements = append(part.Elements, []byte(name))
		part.Spans = append(part.Spans, value.Span{From: int64(at), To: int64(at)})
		got, want, err := "", "", error(nil)
		switch p.kind {
		case HashKind:
			var h HashView
			h, err = v.Hash([]byte(key))
			val, _ := h.Get([]byte(name))
			got, want = string(val), p.hash[name]
		case SetKind:
			var s SetView
			s, err = v.Set([]byte(key))
			got, want = strconv.FormatBool(s.Has([]byte(name))), strconv.FormatBool(p.set[name])
		case ZSetKind:
			var z ZSetView
			z, err = v.ZSet([]byte(key))
			score, there := z.Score([]byte(name))
			got, want = strconv.FormatBool(there), strconv.FormatBool(has(p.zset, name))
			if there && score != p.zset[name] {
				got += " with another score"
			}
		case ListKind:
			var l ListView
			if l, err = v.List([]byte(key)); err == nil && !c.ks.Unsure() {
				got, want = string(l.Index(at)), p.list[at]
			}
		default:
			return
		}
		if (err == ErrCold || c.ks.Unsure()) && tries < 1000 {
			c.load()
			continue
		}
		if err != nil || got != want {
			w.t.Fatalf("write %d: %q of %q is %q, and should be %q: %v", len(w.log), name, key, got, want, err)
		}
		c.ks.LookAtAll()
		return
	}
}

// On a list of which some is in memory, effects wait from the first one on that is about
// what isn't, and are carried out on the list as a whole.
func TestEffectsWaitOnAPartlyColdList(t *testing.T) {
	defer value.SetPartBytes(value.SetPartBytes(400))
	primary, replica := New(testSeed), New(testSeed)
	replica.KeepApart()
	tier := &fakeTier{records: map[tierKey]Stored{}}
	seq := uint64(0)
	write := func(do func(l *List)) {
		t.Helper()
		seq++
		tx := primary.Begin(0, 1, seq, nil, false)
		l, err := tx.List([]byte("l"))
		if err != nil {
			t.Fatal(err)
		}
		do(&l)
		effects, _ := tx.End()
		if err := replica.Apply(effects, seq); err != nil {
			t.Fatal(err)
		}
	}
	write(func(l *List) {
		for i := range 300 {
			l.Push(Back, []byte("element "+strconv.Itoa(i)))
		}
	})
	tier.begin(replica.TakeGraves())
	for c := (Cursor{}); !c.Done(); {
		replica.Sweep(&c, 0, 100, tier.put)
	}
	tier.commit()
	k := ColdKey{DB: 0, Hash: replica.Hash([]byte("l")), Key: []byte("l"), Seq: seq}
	if replica.Offload(k.DB, k.Hash, k.Key, k.Seq) == 0 {
		t.Fatal("it stays in memory")
	}
	restore := func(need *value.Need) {
		t.Helper()
		w, err := tier.get(k).Thaw(testSeed, need)
		if err == nil {
			err = replica.Restore(k, w)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	restore(&value.Need{Spans: []value.Span{AtEnd(Front, 1)}})
	write(func(l *List) { l.Pop(Front, 1) })
	if replica.account.pending != 0 || partlyCold(replica) != 1 {
		t.Fatal("what is about elements in memory waits, or all are: the test doesn't test")
	}
	write(func(l *List) { l.RemoveAt(150) })
	write(func(l *List) { l.Push(Front, []byte("first")) })
	write(func(l *List) { l.SetAt(100, []byte("changed")) })
	if replica.account.pending == 0 {
		t.Fatal("nothing waits")
	}
	want := content(t, primary, nil)
	compareContent(t, "with effects that wait", content(t, replica, tier), want)
	restore(nil)
	if replica.account.pending != 0 || replica.IsCold(0, k.Key) {
		t.Error("it isn't in memory")
	}
	compareContent(t, "with all in memory", content(t, replica, tier), want)
	checkAccounts(t, replica)
}
