package tier

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func open(t *testing.T, fs vfs.FS, opts Options) *Tier {
	t.Helper()
	opts.FS = fs
	tier, err := Open("state/tier", opts)
	if err != nil {
		t.Fatal(err)
	}
	return tier
}

func closeTier(t *testing.T, tier *Tier) {
	t.Helper()
	if err := tier.Close(); err != nil {
		t.Fatal(err)
	}
}

// model is what a tier should hold.
type model struct {
	recs  map[string]modelRec // by appendKey of the head
	metas map[uint64]string
}

type modelRec struct {
	head, body string
	hasBody    bool
	parts      string // "number data" of each, in order
}

// writeParts writes parts at random for a record that has those of old in the tier,
// and says what it has then.
func writeParts(w *Writer, space uint8, hash uint64, key []byte, old string, whole bool, rng *rand.Rand) string {
	parts := make(map[uint64]string)
	for line := range strings.Lines(old) {
		var number uint64
		var data string
		fmt.Sscan(line, &number, &data)
		parts[number] = data
	}
	if whole {
		clear(parts)
	}
	w.BeginParts(space, hash, key, whole)
	for number := uint64(1); number < 40; number += 1 + rng.Uint64N(12) {
		if rng.IntN(3) > 0 {
			parts[number] = strings.Repeat(fmt.Sprintf("part-%d", rng.Uint32()), 1+rng.IntN(20))
			w.Part(number, []byte(parts[number]))
		} else if !whole {
			delete(parts, number)
			w.Part(number, nil)
		}
	}
	var all strings.Builder
	for _, number := range slices.Sorted(maps.Keys(parts)) {
		fmt.Fprintf(&all, "%d %s\n", number, parts[number])
	}
	return all.String()
}

func newModel() *model {
	return &model{recs: make(map[string]modelRec), metas: make(map[uint64]string)}
}

func (m *model) clone() *model {
	n := newModel()
	for k, v := range m.recs {
		n.recs[k] = v
	}
	for k, v := range m.metas {
		n.metas[k] = v
	}
	return n
}

// session writes at random to a database, in the tier and in the model.
func (m *model) session(w *Writer, db uint64, rng *rand.Rand, size int) {
	switch rng.IntN(24) {
	case 0:
		w.DeleteAll()
		meta, had := m.metas[db]
		m.drop(db)
		if had {
			m.metas[db] = meta
		}
	case 1, 2:
		space := uint8(rng.IntN(3))
		w.DeleteSpace(space)
		for k := range m.recs {
			if _, d, s, _, _, _ := parseKey([]byte(k)); d == db && s == space {
				delete(m.recs, k)
			}
		}
	}
	place := func() (uint8, uint64, []byte) {
		n := rng.Uint64N(64)
		// Some keys share a hash.
		return uint8(n % 3), n / 2 * 0x0432_1098_7654_3210, fmt.Appendf(nil, "key-%d", n)
	}
	for range rng.IntN(4) {
		space, hash, key := place()
		w.Delete(space, hash, key)
		delete(m.recs, string(appendKey(nil, headPrefix, db, space, hash, key)))
	}
	puts := make(map[string]modelRec)
	for range rng.IntN(size) {
		space, hash, key := place()
		r := modelRec{head: fmt.Sprintf("head-%d", rng.Uint32())}
		if rng.IntN(3) == 0 {
			r.hasBody, r.body = true, strings.Repeat(fmt.Sprintf("body-%d", rng.Uint32()), rng.IntN(30))
		}
		puts[string(appendKey(nil, headPrefix, db, space, hash, key))] = r
	}
	// In the order of hashes, but keys of one hash in any order.
	order := make([]string, 0, len(puts))
	for k := range puts {
		order = append(order, k)
	}
	slices.SortFunc(order, func(a, b string) int { return strings.Compare(a[:placePart], b[:placePart]) })
	before, err := w.t.there(db)
	if err != nil {
		w.fail(err)
	}
	for _, k := range order {
		_, _, space, hash, key, _ := parseKey([]byte(k))
		r := puts[k]
		if old, was := m.recs[k]; was && old.hasBody && before[k] && rng.IntN(3) == 0 {
			r.hasBody, r.body, r.parts = true, old.body, old.parts
			w.PutHead(space, hash, key, []byte(r.head))
			m.recs[k] = r
			continue
		}
		var body []byte
		if r.hasBody {
			body = []byte(r.body)
			if rng.IntN(2) == 0 {
				old, was := m.recs[k]
				r.parts = writeParts(w, space, hash, key, old.parts, !was || !before[k] || rng.IntN(2) == 0, rng)
			}
		}
		w.Put(space, hash, key, []byte(r.head), body)
		m.recs[k] = r
	}
	switch rng.IntN(10) {
	case 0:
		w.Meta(nil)
		delete(m.metas, db)
	case 1, 2, 3, 4:
		meta := fmt.Sprintf("meta-%d", rng.Uint32())
		w.Meta([]byte(meta))
		m.metas[db] = meta
	}
}

// there is which records of a database are in the tier.
func (t *Tier) there(db uint64) (map[string]bool, error) {
	all := make(map[string]bool)
	err := t.Heads(db, func(space uint8, hash uint64, key, _ []byte) error {
		all[string(appendKey(nil, headPrefix, db, space, hash, key))] = true
		return nil
	})
	return all, err
}

func (m *model) drop(db uint64) {
	for k := range m.recs {
		if _, d, _, _, _, _ := parseKey([]byte(k)); d == db {
			delete(m.recs, k)
		}
	}
	delete(m.metas, db)
}

// differs says how a tier differs from the model, "" if it doesn't.
func (m *model) differs(tier *Tier, dbs uint64) (string, error) {
	metas := make(map[uint64]string)
	if err := tier.Metas(func(db uint64, meta []byte) error { metas[db] = string(meta); return nil }); err != nil {
		return "", err
	}
	if fmt.Sprint(metas) != fmt.Sprint(m.metas) {
		return fmt.Sprintf("metas are %v, want %v", metas, m.metas), nil
	}
	seen := 0
	for db := range dbs {
		last := ""
		_, want := m.metas[db]
		for k := range m.recs {
			if _, d, _, _, _, _ := parseKey([]byte(k)); d == db {
				want = true
			}
		}
		if has, err := tier.Has(db); err != nil {
			return "", err
		} else if has != want {
			return fmt.Sprintf("Has(%d) is %v", db, has), nil
		}
		err := tier.heads(db, 10, func(space uint8, hash uint64, key, head []byte) error {
			k := string(appendKey(nil, headPrefix, db, space, hash, key))
			if k <= last {
				return fmt.Errorf("heads came unsorted: %q behind %q", k, last)
			}
			last = k
			seen++
			if r, ok := m.recs[k]; !ok || r.head != string(head) {
				return errDiffers(fmt.Sprintf("record %q is %q, want %q (%v)", k, head, r.head, ok))
			}
			return nil
		})
		if err != nil {
			return difference(err)
		}
	}
	if seen != len(m.recs) {
		return fmt.Sprintf("%d records, want %d", seen, len(m.recs)), nil
	}
	if d, err := m.headsDiffer(tier, dbs); d != "" || err != nil {
		return d, err
	}
	for k, r := range m.recs {
		_, db, space, hash, key, _ := parseKey([]byte(k))
		head, body, found, err := tier.Get(Key{db, space, hash, key})
		if err != nil {
			return "", err
		}
		if !found || string(head) != r.head || string(body) != r.body || (body != nil) != r.hasBody {
			return fmt.Sprintf("Get(%q) = %q, %q, %v; want %+v", k, head, body, found, r), nil
		}
		alone, there, err := tier.Body(Key{db, space, hash, key})
		if err != nil {
			return "", err
		}
		if there != r.hasBody || string(alone) != r.body {
			return fmt.Sprintf("Body(%q) = %q, %v; want %+v", k, alone, there, r), nil
		}
		var parts strings.Builder
		last := uint64(0)
		found, err = tier.Parts(Key{db, space, hash, key}, func(h, b []byte, all *Parts) error {
			if !bytes.Equal(h, head) || !bytes.Equal(b, body) {
				return errDiffers(fmt.Sprintf("Parts of %q have head %q and body %q, not %q and %q", k, h, b, head, body))
			}
			for number, data, ok := all.From(0); ok; number, data, ok = all.From(number + 1) {
				fmt.Fprintf(&parts, "%d %s\n", number, data)
				if before, _, ok := all.Before(number); ok != (last > 0) || before != last {
					return errDiffers(fmt.Sprintf("before part %d is %d, not %d", number, before, last))
				}
				last = number
			}
			return nil
		})
		if !found || err != nil {
			return "", fmt.Errorf("parts of %q: %v, %w", k, found, err)
		}
		if parts.String() != r.parts {
			return fmt.Sprintf("record %q has the parts %q, want %q", k, parts.String(), r.parts), nil
		}
	}
	return "", nil
}

// headsDiffer asks for the heads of all records, and of as many that aren't there.
func (m *model) headsDiffer(tier *Tier, dbs uint64) (string, error) {
	sorted := slices.Sorted(maps.Keys(m.recs))
	for db := range dbs {
		var keys []Key
		var want []string
		for _, k := range sorted {
			_, of, space, hash, key, _ := parseKey([]byte(k))
			if of == db {
				keys = append(keys, Key{db, space, hash, key}, Key{db, space, hash, append(slices.Clip(key), 0)})
				want = append(want, m.recs[k].head, "(none)")
			}
		}
		n := 0
		err := tier.HeadsOf(db, keys, func(i int, head []byte) error {
			got := "(none)"
			if head != nil {
				got = string(head)
			}
			if i != n || got != want[i] {
				return errDiffers(fmt.Sprintf("the head of %v is %q, want %q", keys[i], got, want[i]))
			}
			n++
			return nil
		})
		if err != nil {
			return difference(err)
		}
		if n != len(keys) {
			return fmt.Sprintf("%d heads, want %d", n, len(keys)), nil
		}
	}
	return "", nil
}

type errDiffers string

func (e errDiffers) Error() string { return string(e) }

// difference tells one that was found from an error of the tier.
func difference(err error) (string, error) {
	var d errDiffers
	if errors.As(err, &d) {
		return string(d), nil
	}
	return "", err
}

func (m *model) check(t *testing.T, tier *Tier, dbs uint64) {
	t.Helper()
	if d, err := m.differs(tier, dbs); err != nil {
		t.Fatal(err)
	} else if d != "" {
		t.Fatal(d)
	}
}

func TestContentIsWhatSessionsWroteSmallAndBulkAndOverRestarts(t *testing.T) {
	const dbs = 4
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		fs := vfs.NewMem()
		opts := Options{BulkBytes: []int{1, 600, 1 << 20}[seed%3], MemBytes: 64 << 10}
		tier := open(t, fs, opts)
		m := newModel()
		for range 60 {
			switch db := rng.Uint64N(dbs); rng.IntN(20) {
			case 0:
				closeTier(t, tier)
				tier = open(t, fs, opts)
			case 1:
				if err := tier.Drop(db); err != nil {
					t.Fatal(err)
				}
				m.drop(db)
			case 2:
				if err := tier.Compact(); err != nil {
					t.Fatal(err)
				}
			case 3:
				if err := tier.Flush(); err != nil {
					t.Fatal(err)
				}
			case 4:
				w := tier.Begin(db)
				m.clone().session(w, db, rng, 40)
				w.Abort()
				if w.Commit(true) == nil {
					t.Fatal("a session that was given up was committed")
				}
			default:
				w := tier.Begin(db)
				m.session(w, db, rng, 40)
				if err := w.Commit(rng.IntN(4) == 0); err != nil {
					t.Fatal(err)
				}
			}
			m.check(t, tier, dbs)
		}
		if err := tier.Check(context.Background()); err != nil {
			t.Fatal(err)
		}
		if names, _ := fs.List("state/tier/incoming"); len(names) != 0 {
			t.Fatalf("tables were left in incoming: %v", names)
		}
		closeTier(t, tier)
	}
}

func TestBulkSessionsSpanTables(t *testing.T) {
	// Several tables, and a logical database emptied across them.
	old := tableLimit
	tableLimit = 8 << 10
	defer func() { tableLimit = old }()
	fs := vfs.NewMem()
	tier := open(t, fs, Options{BulkBytes: 1})
	m := newModel()
	write := func(from, to, step int, body string) {
		w := tier.Begin(1)
		w.DeleteSpace(0)
		m.drop(1)
		for i := from; i < to; i += step {
			key := fmt.Appendf(nil, "k%d", i)
			w.Put(0, uint64(i)<<40, key, fmt.Appendf(nil, "h%d", i), []byte(body))
			m.recs[string(appendKey(nil, headPrefix, 1, 0, uint64(i)<<40, key))] = modelRec{fmt.Sprintf("h%d", i), body, true, ""}
		}
		if n := len(w.bulk.heads.paths) + len(w.bulk.bodies.paths); n < 4 {
			t.Fatalf("only %d tables", n)
		}
		if err := w.Commit(false); err != nil {
			t.Fatal(err)
		}
	}
	write(0, 4000, 1, "first")
	m.check(t, tier, 2)
	write(500, 3000, 3, "second")
	m.check(t, tier, 2)
	closeTier(t, tier)
	tier = open(t, fs, Options{})
	m.check(t, tier, 2)
	closeTier(t, tier)
}

func TestRecordsThatComeUnsortedAreRefused(t *testing.T) {
	tier := open(t, vfs.NewMem(), Options{BulkBytes: 1})
	defer closeTier(t, tier)
	w := tier.Begin(1)
	w.Put(0, 2, []byte("b"), []byte("h"), nil)
	w.Put(0, 1, []byte("a"), []byte("h"), nil)
	if err := w.Commit(false); err == nil {
		t.Fatal("unsorted records were taken")
	}
	newModel().check(t, tier, 2)
}

// Parts of a record that is begun, and then isn't put, or of none, or out of order.
func TestPartsThatBelongNowhereAreRefused(t *testing.T) {
	tier := open(t, vfs.NewMem(), Options{})
	defer closeTier(t, tier)
	for what, write := range map[string]func(w *Writer){
		"of no record":     func(w *Writer) { w.Part(1, []byte("p")) },
		"no record behind": func(w *Writer) { w.BeginParts(0, 1, []byte("k"), true); w.Part(1, []byte("p")) },
		"out of order": func(w *Writer) {
			w.BeginParts(0, 1, []byte("k"), true)
			w.Part(2, []byte("p"))
			w.Part(1, []byte("p"))
			w.Put(0, 1, []byte("k"), nil, []byte("b"))
		},
		"of another record": func(w *Writer) {
			w.BeginParts(0, 1, []byte("k"), true)
			w.Put(0, 1, []byte("l"), nil, []byte("b"))
		},
	} {
		w := tier.Begin(1)
		write(w)
		if err := w.Commit(false); err == nil {
			t.Errorf("%s: it was taken", what)
		}
	}
	newModel().check(t, tier, 2)
}

// Version 1 had no parts.
func TestVersion1IsUpgraded(t *testing.T) {
	fs := vfs.NewMem()
	tier := open(t, fs, Options{})
	w := tier.Begin(1)
	w.Put(0, 1, []byte("k"), []byte("h"), []byte("b"))
	if err := w.Commit(true); err != nil {
		t.Fatal(err)
	}
	closeTier(t, tier)
	setVersion(t, fs, 1)
	tier = open(t, fs, Options{})
	if _, body, _, err := tier.Get(Key{1, 0, 1, []byte("k")}); err != nil || string(body) != "b" {
		t.Fatalf("Get = %q, %v", body, err)
	}
	closeTier(t, tier)
	b, err := readFile(fs, "state/tier/TIER")
	if err != nil || !stateIsGood(b) || binary.LittleEndian.Uint32(b[8:]) != Version {
		t.Fatalf("the head is %x, %v", b[:stateHead], err)
	}
}

func setVersion(t *testing.T, fs vfs.FS, version uint32) {
	t.Helper()
	f, err := fs.OpenReadWrite("state/tier/TIER", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	head := binary.LittleEndian.AppendUint32([]byte(stateMagic), version)
	head = binary.LittleEndian.AppendUint32(head, checksum(head))
	if _, err := f.WriteAt(head, 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestGetMeetsSessionsBeingCommitted(t *testing.T) {
	tier := open(t, vfs.NewMem(), Options{})
	defer closeTier(t, tier)
	put := func(n int) error {
		w := tier.Begin(1)
		v := bytes.Repeat(binary.BigEndian.AppendUint32(nil, uint32(n)), 100)
		w.Put(0, 1, []byte("k"), v[:4], v)
		return w.Commit(false)
	}
	if err := put(0); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		var err error
		for n := 1; n < 2000 && err == nil; n++ {
			err = put(n)
		}
		done <- err
	}()
	for {
		head, body, found, err := tier.Get(Key{1, 0, 1, []byte("k")})
		if err != nil || !found || len(body) != 400 || !bytes.Equal(body[:4], head) || !bytes.Equal(body[:396], body[4:]) {
			t.Fatalf("Get = %x, %x, %v, %v", head, body, found, err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

func TestUnknownVersionIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	closeTier(t, open(t, fs, Options{}))
	setVersion(t, fs, 9)
	_, err := Open("state/tier", Options{FS: fs})
	if err == nil || !strings.Contains(err.Error(), "has format version 9") || !strings.Contains(err.Error(), "run the version of vecino that wrote it") {
		t.Fatalf("Open = %v", err)
	}
}

func TestClosedTierSaysSo(t *testing.T) {
	tier := open(t, vfs.NewMem(), Options{})
	w := tier.Begin(1)
	w.Put(0, 0, nil, nil, nil)
	closeTier(t, tier)
	_, _, _, err := tier.Get(Key{})
	for _, err := range []error{err, w.Commit(true), tier.Heads(1, nil), tier.Drop(1), tier.Close()} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("error %v, want ErrClosed", err)
		}
	}
}

func FuzzKeys(f *testing.F) {
	f.Add(uint64(1), uint8(2), uint64(3), []byte("key"), uint64(1), uint8(2), uint64(3), []byte("key2"))
	f.Add(^uint64(0), uint8(255), ^uint64(0), []byte{0xff}, uint64(0), uint8(0), uint64(0), []byte{})
	f.Fuzz(func(t *testing.T, db uint64, space uint8, hash uint64, key []byte, db2 uint64, space2 uint8, hash2 uint64, key2 []byte) {
		a := appendKey(nil, headPrefix, db, space, hash, key)
		b := appendKey(nil, headPrefix, db2, space2, hash2, key2)
		p, d, s, h, k, err := parseKey(a)
		if err != nil || p != headPrefix || d != db || s != space || h != hash || !bytes.Equal(k, key) {
			t.Fatalf("parseKey(%x) = %c %d %d %d %x %v", a, p, d, s, h, k, err)
		}
		// Keys sort as (database, space, hash, key).
		want := 0
		for _, c := range []int{compare(db, db2), compare(uint64(space), uint64(space2)), compare(hash, hash2), bytes.Compare(key, key2)} {
			if c != 0 {
				want = c
				break
			}
		}
		if got := bytes.Compare(a, b); got != want {
			t.Fatalf("Compare(%x, %x) = %d, want %d", a, b, got, want)
		}
		// And lie within their database and space, and nobody else's.
		start, end := spaceSpan(headPrefix, db, space)
		inside := func(k []byte) bool { return bytes.Compare(k, start) >= 0 && bytes.Compare(k, end) < 0 }
		if !inside(a) || inside(b) != (db == db2 && space == space2) {
			t.Fatalf("span %x to %x: %x %v, %x %v", start, end, a, inside(a), b, inside(b))
		}
		if bytes.Compare(a, dbEnd(headPrefix, db)) >= 0 || bytes.Compare(a, appendDB(nil, headPrefix, db)) < 0 {
			t.Fatalf("%x is outside of its database", a)
		}
		_, _, _, _, _, _ = parseKey(key)
		for _, want := range []uint64{0, 7} {
			v := appendHead(nil, want, key)
			if tag, head, err := parseHead(v); err != nil || !bytes.Equal(head, key) || tag != want || len(v) != headLen(tag, key) {
				t.Fatalf("parseHead = %d, %x, %v", tag, head, err)
			}
		}
		_, _, _ = parseHead(key)
		parseClaim(key)
	})
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
