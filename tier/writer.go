package tier

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Writer is one session: what changed in one database, seen whole or not at all
// once it is committed. A database has at most one open session, and it is used
// by one goroutine.
//
// It begins small, in memory, and ends as one batch in Pebble's log. When it
// grows beyond Options.BulkBytes it goes on as tables, some of heads, some of
// bodies and some of parts, which Pebble takes in as they are: no log, no sorting in
// memory, and where the database wasn't yet, no compaction.
//
//	Begin ── Delete*, DeleteSpace* ── ( [BeginParts ── Part*] ── Put )*, sorted ── Meta? ── Commit | Abort
//
// Errors are kept for Commit.
type Writer struct {
	t   *Tier
	db  uint64
	tag uint64
	err error

	clear   []span // to be emptied
	graves  []grave
	meta    []byte
	hasMeta bool

	buf   []byte // of the records below, and of the keys of graves
	puts  []put
	bytes int

	bulk   *bulk
	bodies known // whether the database has bodies in the tier
	parts  known // and parts
	parted *partsOf
	old    oldParts
	key    []byte
	count  int
}

// known is whether something is so, if that is known yet.
type known int8

const (
	unknown known = iota
	yes
	no
)

// partsOf is the record whose parts are being written.
type partsOf struct {
	grave
	old  []uint64 // in the tier, in order, and not to stay there
	last uint64
}

// grave is a record to be removed.
type grave struct {
	space uint8
	hash  uint64
	key   []byte
}

func (g *grave) compare(space uint8, hash uint64, key []byte) int {
	if c := cmp.Compare(g.space, space); c != 0 {
		return c
	}
	if c := cmp.Compare(g.hash, hash); c != 0 {
		return c
	}
	return bytes.Compare(g.key, key)
}

// put is a record in the buffer, or a part of one.
type put struct {
	grave
	head, body []byte
	tag        uint64 // of the body that stays
	part       uint64 // not 0: body is that part, or nil, then it goes
}

// Begin opens a session for a database.
func (t *Tier) Begin(db uint64) *Writer {
	return &Writer{t: t, db: db, tag: t.tag.Add(1)}
}

// Delete removes a record. Graves come first in a session, in any order; a later
// Put of the same key stands.
func (w *Writer) Delete(space uint8, hash uint64, key []byte) {
	if w.bulk != nil {
		w.fail(errors.New("a record was deleted behind many puts"))
		return
	}
	w.graves = append(w.graves, grave{space, hash, w.keep(key)})
	w.bytes += placePart + len(key)
	w.count++
	w.t.count.deletes.Add(1)
}

// DeleteSpace removes all records of a logical database that were there before
// the session.
func (w *Writer) DeleteSpace(space uint8) {
	if w.bulk != nil {
		w.fail(errors.New("a logical database was deleted behind many puts"))
		return
	}
	w.clear = append(w.clear, func(prefix byte) (start, end []byte) { return spaceSpan(prefix, w.db, space) })
	w.count++
}

// DeleteAll removes all records of the database that were there before the
// session.
func (w *Writer) DeleteAll() {
	w.clear = []span{func(prefix byte) (start, end []byte) { return appendDB(nil, prefix, w.db), dbEnd(prefix, w.db) }}
	w.count++
}

// span is where the keys of some records lie, under a prefix.
type span func(prefix byte) (start, end []byte)

// Put writes a record, in place of one that is there. Records come sorted by
// space and hash. body nil: the record has none. What is handed in is the
// caller's again.
func (w *Writer) Put(space uint8, hash uint64, key, head, body []byte) {
	w.count++
	w.t.count.puts.Add(1)
	if w.err != nil {
		return
	}
	w.endParts(&grave{space, hash, key})
	w.put(put{grave: grave{space, hash, key}, head: head, body: body})
}

// BeginParts begins a record that has parts; a Put of the same key with a body ends
// it. With whole, parts that it has in the tier and that aren't among those that come
// are removed.
func (w *Writer) BeginParts(space uint8, hash uint64, key []byte, whole bool) {
	if w.parted != nil {
		w.fail(errors.New("parts of one record were begun among those of another"))
		return
	}
	w.parted = &partsOf{grave: grave{space, hash, bytes.Clone(key)}}
	if whole {
		w.parted.old = w.partsThere(&w.parted.grave)
	}
}

// Part writes a part of the record that was begun, or removes it with data nil.
// They come in the order of their numbers, which aren't 0.
func (w *Writer) Part(number uint64, data []byte) {
	p := w.parted
	if p == nil || number <= p.last {
		w.fail(fmt.Errorf("part %d of no record, or out of order", number))
	}
	if w.err != nil {
		return
	}
	p.last = number
	w.removeParts(p, number)
	if data != nil {
		w.t.count.parts.Add(1)
	}
	w.put(put{grave: p.grave, part: number, body: data})
}

// removeParts removes old parts of a record with numbers up to, but not including,
// before. The one with that number is written anew.
func (w *Writer) removeParts(p *partsOf, before uint64) {
	for len(p.old) > 0 && p.old[0] <= before && w.err == nil {
		if p.old[0] < before {
			w.put(put{grave: p.grave, part: p.old[0]})
		}
		p.old = p.old[1:]
	}
}

// endParts ends the parts of a record. One for which none were begun has none.
func (w *Writer) endParts(g *grave) {
	p := w.parted
	switch {
	case p == nil:
		p = &partsOf{grave: *g, old: w.partsThere(g)}
	case p.compare(g.space, g.hash, g.key) != 0:
		w.fail(errors.New("parts of one record were begun, and another was put"))
	}
	for _, number := range p.old {
		if w.err == nil {
			w.put(put{grave: p.grave, part: number})
		}
	}
	w.parted = nil
}

// partsThere is the numbers of the parts that the tier holds of a record, from
// before the session, in order. Where records come sorted, and none has parts, it
// only compares.
func (w *Writer) partsThere(g *grave) (numbers []uint64) {
	if some, err := w.holds(partPrefix, &w.parts); !some {
		if err != nil {
			w.fail(err)
		}
		return nil
	}
	start := appendParts(nil, w.db, g.space, g.hash, g.key)
	it := w.old.it
	if it == nil {
		var err error
		if it, err = w.t.db.NewIter(&pebble.IterOptions{LowerBound: appendDB(nil, partPrefix, w.db), UpperBound: dbEnd(partPrefix, w.db)}); err != nil {
			w.fail(w.t.damaged(err))
			return nil
		}
		w.old.it = it
		it.First()
	}
	if bytes.Compare(start, w.old.start) < 0 || it.Valid() && bytes.Compare(it.Key(), start) < 0 {
		it.SeekGE(start)
	}
	w.old.start = start
	for ; it.Valid() && bytes.HasPrefix(it.Key(), start); it.Next() {
		number, err := partNumber(it.Key(), start)
		if err != nil {
			w.fail(w.t.damaged(err))
			break
		}
		numbers = append(numbers, number)
	}
	if err := it.Error(); err != nil {
		w.fail(w.t.damaged(err))
	}
	return numbers
}

// oldParts walks the parts that the database has from before the session.
type oldParts struct {
	it    *pebble.Iterator
	start []byte // where it was asked for last
}

func (o *oldParts) close() error {
	if o.it == nil {
		return nil
	}
	it := o.it
	o.it = nil
	return it.Close()
}

// PutHead writes a record's head anew and leaves its body and parts as they are. It
// is sorted among the Puts.
func (w *Writer) PutHead(space uint8, hash uint64, key, head []byte) {
	w.count++
	w.t.count.puts.Add(1)
	if w.err != nil {
		return
	}
	tag, err := w.t.tagOf(w.place(headPrefix, &grave{space, hash, key}))
	if err != nil {
		w.fail(err)
		return
	}
	w.put(put{grave: grave{space, hash, key}, head: head, tag: tag})
}

// tagOf is the tag of the body that a head in the tier has.
func (t *Tier) tagOf(key []byte) (tag uint64, err error) {
	if err := t.enter(); err != nil {
		return 0, err
	}
	defer t.leave()
	v, c, err := t.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, errNoBody
	}
	if err != nil {
		return 0, t.damaged(err)
	}
	defer c.Close()
	if tag, _, err = parseHead(v); err == nil && tag == 0 {
		err = errNoBody
	}
	return tag, err
}

var errNoBody = errors.New("a head was to be written anew, but the record has no body")

func (w *Writer) put(p put) {
	if w.bulk != nil {
		w.err = w.bulk.put(p)
		return
	}
	// The buffer may move: what points into it stays valid, the old bytes don't
	// change.
	w.bytes += 2*placePart + len(p.key) + len(p.head) + len(p.body)
	p.key, p.head = w.keep(p.key), w.keep(p.head)
	if p.body != nil {
		p.body = w.keep(p.body)
	}
	w.puts = append(w.puts, p)
	if w.bytes > w.t.opts.BulkBytes {
		w.startBulk()
	}
}

// keep copies b into the buffer. It isn't nil.
func (w *Writer) keep(b []byte) []byte {
	if cap(w.buf)-len(w.buf) < len(b) {
		w.buf = make([]byte, 0, max(len(b), min(max(2*cap(w.buf), 4<<10), 256<<10)))
	}
	at := len(w.buf)
	w.buf = append(w.buf, b...)
	return w.buf[at:len(w.buf):len(w.buf)]
}

// Meta replaces the database's meta record, with nil it removes it.
func (w *Writer) Meta(b []byte) {
	w.meta, w.hasMeta = bytes.Clone(b), true
	w.count++
}

func (w *Writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// Abort drops the session.
func (w *Writer) Abort() {
	if w.bulk != nil {
		w.bulk.abort()
		w.bulk = nil
	}
	w.old.close()
	w.fail(errors.New("the session was given up"))
}

// Commit makes the session's changes visible. With sync it returns when they and
// all that was committed before are on disk. After an error nothing of the
// session is in the tier, unless the error is ErrBroken: then that is known only
// when the tier is opened anew. While the disk is full it waits for room, or
// fails; see guard.go.
func (w *Writer) Commit(sync bool) (err error) {
	defer func() {
		if err != nil {
			w.Abort()
			err = fmt.Errorf("write database %d to the tier: %w", w.db, err)
		}
		w.old.close()
		w.fail(errors.New("the session was committed"))
		w.puts, w.graves, w.buf = nil, nil, nil
	}()
	if w.err == nil && w.parted != nil {
		w.fail(errors.New("parts of a record were begun, and it wasn't put"))
	}
	if w.err != nil {
		return w.err
	}
	t := w.t
	if err := t.enter(); err != nil {
		return err
	}
	defer t.leave()
	if w.bulk != nil {
		return w.commitBulk()
	}
	return w.commitSmall(sync)
}

func (w *Writer) commitSmall(sync bool) error {
	t := w.t
	how := pebble.NoSync
	if sync {
		how = pebble.Sync
	}
	if w.count == 0 {
		if !sync {
			return nil
		}
		return t.write(func() error { return t.db.LogData(nil, how) })
	}
	size := w.bytes + 64 + len(w.meta)
	b := t.db.NewBatchWithSize(size)
	for _, span := range w.clear {
		for _, prefix := range []byte{bodyPrefix, partPrefix, headPrefix} {
			start, end := span(prefix)
			if err := b.DeleteRange(start, end, nil); err != nil {
				return err
			}
		}
	}
	for i := range w.graves {
		g := &w.graves[i]
		if err := b.Delete(w.place(headPrefix, g), nil); err != nil {
			return err
		}
		if there, err := w.bodyIsThere(g); err != nil {
			return err
		} else if there {
			if err := b.Delete(w.place(bodyPrefix, g), nil); err != nil {
				return err
			}
		}
		for _, number := range w.partsThere(g) {
			if err := b.Delete(w.placePart(g, number), nil); err != nil {
				return err
			}
		}
		if w.err != nil {
			return w.err
		}
	}
	for i := range w.puts {
		p := &w.puts[i]
		if p.part != 0 {
			key, err := w.placePart(&p.grave, p.part), error(nil)
			if p.body != nil {
				err = b.Set(key, p.body, nil)
			} else {
				err = b.Delete(key, nil)
			}
			if err != nil {
				return err
			}
			continue
		}
		key := w.place(headPrefix, &p.grave)
		tag := w.tagFor(p)
		op := b.SetDeferred(len(key), headLen(tag, p.head))
		copy(op.Key, key)
		appendHead(op.Value[:0], tag, p.head)
		if err := op.Finish(); err != nil {
			return err
		}
		switch {
		case p.body != nil:
			key := w.place(bodyPrefix, &p.grave)
			op := b.SetDeferred(len(key), tagBytes+len(p.body))
			copy(op.Key, key)
			binary.BigEndian.PutUint64(op.Value, w.tag)
			copy(op.Value[tagBytes:], p.body)
			if err := op.Finish(); err != nil {
				return err
			}
		case p.tag == 0:
			if there, err := w.bodyIsThere(&p.grave); err != nil {
				return err
			} else if there {
				if err := b.Delete(w.place(bodyPrefix, &p.grave), nil); err != nil {
					return err
				}
			}
		}
	}
	if w.hasMeta {
		key, err := appendDB(nil, metaPrefix, w.db), error(nil)
		if w.meta != nil {
			err = b.Set(key, w.meta, nil)
		} else {
			err = b.Delete(key, nil)
		}
		if err != nil {
			return err
		}
	}
	err := t.write(func() error {
		number, err := t.apply(b, how)
		if err == nil && sync {
			if err = b.SyncWait(); err == nil {
				t.state.sessionSynced(number)
			}
		}
		b.Close()
		return err
	})
	if err != nil {
		return err
	}
	t.count.small.Add(1)
	return nil
}

// tagFor is the tag that a record's head is to have.
func (w *Writer) tagFor(p *put) uint64 {
	if p.body != nil {
		return w.tag
	}
	return p.tag
}

// apply puts a batch into Pebble's log, with its number in it. The numbers stand
// in the log in order.
func (t *Tier) apply(b *pebble.Batch, how *pebble.WriteOptions) (number uint64, err error) {
	t.commit.Lock()
	defer t.commit.Unlock()
	number = t.commit.last + 1
	if err := b.Set(sessionKey, binary.BigEndian.AppendUint64(nil, number), nil); err != nil {
		return 0, err
	}
	if how.Sync {
		err = t.db.ApplyNoSyncWait(b, how)
	} else {
		err = t.db.Apply(b, how)
	}
	if err == nil {
		t.commit.last = number
	}
	return number, err
}

// place makes a key, valid until the next call.
func (w *Writer) place(prefix byte, g *grave) []byte {
	w.key = appendKey(w.key[:0], prefix, w.db, g.space, g.hash, g.key)
	return w.key
}

// placePart makes the key of a part, valid until the next call.
func (w *Writer) placePart(g *grave, number uint64) []byte {
	w.key = binary.BigEndian.AppendUint64(appendParts(w.key[:0], w.db, g.space, g.hash, g.key), number)
	return w.key
}

// bodyIsThere reports whether the tier holds a body of a key, from before the
// session. Mostly a bloom filter answers.
func (w *Writer) bodyIsThere(g *grave) (bool, error) {
	if some, err := w.holds(bodyPrefix, &w.bodies); !some {
		return false, err
	}
	_, c, err := w.t.db.Get(w.place(bodyPrefix, g))
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, explain(err)
	}
	c.Close()
	return true, nil
}

// holds reports whether the database has anything in the tier, from before the
// session, under a prefix.
func (w *Writer) holds(prefix byte, answer *known) (bool, error) {
	if *answer == unknown {
		has, err := w.t.hasAny(prefix, w.db)
		if err != nil {
			return false, err
		}
		if *answer = no; has {
			*answer = yes
		}
	}
	return *answer == yes, nil
}

// Has reports whether the tier holds anything of a database.
func (t *Tier) Has(db uint64) (bool, error) {
	if err := t.enter(); err != nil {
		return false, err
	}
	defer t.leave()
	for _, prefix := range []byte{headPrefix, bodyPrefix} {
		if has, err := t.hasAny(prefix, db); has || err != nil {
			return has, err
		}
	}
	_, c, err := t.db.Get(appendDB(nil, metaPrefix, db))
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, t.damaged(err)
	}
	return true, c.Close()
}

// hasAny reports whether there is anything of a database under a prefix.
func (t *Tier) hasAny(prefix byte, db uint64) (bool, error) {
	it, err := t.db.NewIter(&pebble.IterOptions{LowerBound: appendDB(nil, prefix, db), UpperBound: dbEnd(prefix, db)})
	if err != nil {
		return false, explain(err)
	}
	has := it.First()
	err = it.Error()
	if e := it.Close(); err == nil {
		err = e
	}
	return has, explain(err)
}

// bulk is a session that became large.
type bulk struct {
	w      *Writer
	heads  tables
	bodies tables
	parts  tables
	graves []grave // sorted, those still to be written
	// The records of the last hash, held back because those of one hash may
	// come in any order of keys.
	held    []put
	heldBuf []byte
	value   []byte
}

// startBulk turns the session into one that writes tables.
func (w *Writer) startBulk() {
	if err := w.t.enter(); err != nil {
		w.fail(err)
		return
	}
	defer w.t.leave()
	w.bulk = &bulk{w: w}
	w.bulk.heads = tables{w: w, prefix: headPrefix}
	w.bulk.bodies = tables{w: w, prefix: bodyPrefix}
	w.bulk.parts = tables{w: w, prefix: partPrefix}
	slices.SortFunc(w.graves, func(a, b grave) int { return a.compare(b.space, b.hash, b.key) })
	w.graves = slices.CompactFunc(w.graves, func(a, b grave) bool { return a.compare(b.space, b.hash, b.key) == 0 })
	w.bulk.graves = w.graves
	slices.SortStableFunc(w.puts, func(a, b put) int {
		return cmp.Or(cmp.Compare(a.space, b.space), cmp.Compare(a.hash, b.hash))
	})
	for i := range w.puts {
		p := &w.puts[i]
		if w.err = w.bulk.put(*p); w.err != nil {
			return
		}
	}
	w.puts, w.buf = nil, nil
}

func (b *bulk) put(p put) error {
	if err := b.arrive(&p.grave); err != nil {
		return err
	}
	if p.part != 0 {
		return b.putPart(&p)
	}
	keep := func(v []byte) []byte {
		at := len(b.heldBuf)
		b.heldBuf = append(b.heldBuf, v...)
		return b.heldBuf[at:len(b.heldBuf):len(b.heldBuf)]
	}
	p.key, p.head = keep(p.key), keep(p.head)
	if p.body != nil {
		p.body = keep(p.body)
	}
	b.held = append(b.held, p)
	return nil
}

// arrive writes what is held back of another hash than that of the next record.
func (b *bulk) arrive(g *grave) error {
	n := len(b.held)
	if n == 0 {
		return nil
	}
	last := &b.held[n-1]
	if last.space == g.space && last.hash == g.hash {
		return nil
	}
	if last.space > g.space || last.space == g.space && last.hash > g.hash {
		return errors.New("records came unsorted")
	}
	return b.release()
}

// putPart writes a part at once: those of a record come before it, and aren't held
// back. Of two records with parts and the same hash the one with the lesser key has to come first.
func (b *bulk) putPart(p *put) error {
	if err := b.bury(p); err != nil {
		return err
	}
	key := b.w.placePart(&p.grave, p.part)
	if p.body == nil {
		return b.parts.delete(key)
	}
	return b.parts.set(key, p.body)
}

// release writes the records of one hash, and the graves before them.
func (b *bulk) release() error {
	if len(b.held) > 1 {
		slices.SortStableFunc(b.held, func(x, y put) int { return bytes.Compare(x.key, y.key) })
	}
	for i := range b.held {
		p := &b.held[i]
		if i+1 < len(b.held) && bytes.Equal(p.key, b.held[i+1].key) {
			continue // put twice: the last one stands
		}
		if err := b.bury(p); err != nil {
			return err
		}
		b.value = appendHead(b.value[:0], b.w.tagFor(p), p.head)
		if err := b.heads.set(b.w.place(headPrefix, &p.grave), b.value); err != nil {
			return err
		}
		if p.body != nil {
			b.value = binary.BigEndian.AppendUint64(b.value[:0], b.w.tag)
			b.value = append(b.value, p.body...)
			if err := b.bodies.set(b.w.place(bodyPrefix, &p.grave), b.value); err != nil {
				return err
			}
		} else if p.tag == 0 {
			if err := b.removeBody(&p.grave); err != nil {
				return err
			}
		}
	}
	b.held, b.heldBuf = b.held[:0], b.heldBuf[:0]
	return nil
}

func (b *bulk) removeBody(g *grave) error {
	there, err := b.w.bodyIsThere(g)
	if err != nil || !there {
		return err
	}
	return b.bodies.delete(b.w.place(bodyPrefix, g))
}

// bury writes the graves before p, and drops one of the same key; all of them if
// p is nil.
func (b *bulk) bury(p *put) error {
	for len(b.graves) > 0 {
		g := &b.graves[0]
		if p != nil {
			c := g.compare(p.space, p.hash, p.key)
			if c > 0 {
				return nil
			}
			if c == 0 {
				b.graves = b.graves[1:]
				return nil
			}
		}
		if err := b.heads.delete(b.w.place(headPrefix, g)); err != nil {
			return err
		}
		if err := b.removeBody(g); err != nil {
			return err
		}
		for _, number := range b.w.partsThere(g) {
			if err := b.parts.delete(b.w.placePart(g, number)); err != nil {
				return err
			}
		}
		b.graves = b.graves[1:]
	}
	return nil
}

// abort removes what was written.
func (b *bulk) abort() {
	b.heads.abort()
	b.bodies.abort()
	b.parts.abort()
}

func (w *Writer) commitBulk() error {
	t, b := w.t, w.bulk
	err := b.release()
	if err == nil {
		err = b.bury(nil)
	}
	if err == nil {
		err = b.heads.finish()
	}
	if err == nil {
		err = b.bodies.finish()
	}
	if err == nil {
		err = b.parts.finish()
	}
	if err == nil {
		err = w.err
	}
	if err != nil {
		return explain(err)
	}
	paths := slices.Concat(b.heads.paths, b.bodies.paths, b.parts.paths)
	if w.hasMeta {
		meta := tables{w: w, prefix: metaPrefix}
		key, err := appendDB(nil, metaPrefix, w.db), error(nil)
		if w.meta != nil {
			err = meta.set(key, w.meta)
		} else {
			err = meta.delete(key) // from before the session
		}
		if err == nil {
			err = meta.finish()
		}
		if err != nil {
			meta.abort()
			return err
		}
		paths = append(paths, meta.paths...)
		b.heads.paths = paths // so that all are removed on failure
	}
	err = t.write(func() error {
		// Tables are durable when they are taken in. What was committed before
		// must not be missing then.
		if err := t.db.LogData(nil, pebble.Sync); err != nil {
			return err
		}
		return t.db.Ingest(context.Background(), paths)
	})
	if err != nil {
		return err
	}
	t.count.bulk.Add(1)
	w.bulk = nil
	return nil
}

// tables writes sorted records of one prefix to tables of about tableBytes.
type tables struct {
	w      *Writer
	prefix byte
	table  *sstable.Writer
	first  []byte // lower end of the open table's share of the keys; nil: all
	last   []byte
	paths  []string
	began  bool
}

func (s *tables) set(key, value []byte) error {
	if err := s.room(key); err != nil {
		return err
	}
	return s.table.Set(key, value)
}

func (s *tables) delete(key []byte) error {
	if err := s.room(key); err != nil {
		return err
	}
	return s.table.Delete(key)
}

// room sees to it that there is a table for key.
func (s *tables) room(key []byte) error {
	if s.table != nil && s.table.Raw().EstimatedSize() >= tableLimit {
		if err := s.closeTable(bytes.Clone(key)); err != nil {
			return err
		}
	}
	if s.table == nil {
		return s.openTable()
	}
	return nil
}

func (s *tables) openTable() error {
	t := s.w.t
	name := t.opts.FS.PathJoin(t.dir, incomingDir, fmt.Sprintf("%d.sst", t.incoming.Add(1)))
	f, err := t.opts.FS.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	s.paths = append(s.paths, name)
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: 1 << 20})
	// Not as for the lowest level, where removals count as done.
	s.table = sstable.NewWriter(objstorageprovider.NewFileWritable(f), t.pebble.MakeWriterOptions(0, t.db.TableFormat()))
	return nil
}

// closeTable ends the open table, whose share of the keys ends at end (nil: it is
// the last), with the spaces that the session empties.
func (s *tables) closeTable(end []byte) error {
	if s.prefix != metaPrefix {
		for _, span := range s.w.clear {
			from, to := span(s.prefix)
			if s.first != nil && bytes.Compare(from, s.first) < 0 {
				from = s.first
			}
			if end != nil && bytes.Compare(to, end) > 0 {
				to = end
			}
			if bytes.Compare(from, to) < 0 {
				if err := s.table.DeleteRange(from, to); err != nil {
					return err
				}
			}
		}
	}
	err := s.table.Close()
	s.table, s.first = nil, end
	return err
}

func (s *tables) finish() error {
	if s.table == nil && len(s.w.clear) > 0 && s.prefix != metaPrefix {
		if err := s.openTable(); err != nil {
			return err
		}
	}
	if s.table == nil {
		return nil
	}
	return s.closeTable(nil)
}

func (s *tables) abort() {
	if s.table != nil {
		s.table.Close()
		s.table = nil
	}
	for _, name := range s.paths {
		s.w.t.opts.FS.Remove(name)
	}
}

// Drop removes a database. It is a session of its own.
func (t *Tier) Drop(db uint64) error {
	if err := t.enter(); err != nil {
		return err
	}
	defer t.leave()
	b := t.db.NewBatch()
	for _, prefix := range []byte{bodyPrefix, partPrefix, headPrefix, metaPrefix} {
		if err := b.DeleteRange(appendDB(nil, prefix, db), dbEnd(prefix, db), nil); err != nil {
			return err
		}
	}
	err := t.write(func() error {
		_, err := t.apply(b, pebble.NoSync)
		b.Close()
		return err
	})
	if err != nil {
		return fmt.Errorf("drop database %d from the tier: %w", db, err)
	}
	t.count.drop.Add(1)
	return nil
}

// tableLimit is tableBytes, but in tests.
var tableLimit uint64 = tableBytes
