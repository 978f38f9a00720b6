package tier

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Get reads one record, body included. What it returns is the caller's.
func (t *Tier) Get(k Key) (head, body []byte, found bool, err error) {
	if err := t.enter(); err != nil {
		return nil, nil, false, err
	}
	defer t.leave()
	t.count.reads.Add(1)
	key := appendKey(make([]byte, 0, 64), headPrefix, k.DB, k.Space, k.Hash, k.Key)
	// A session may be committed between the two reads; then the numbers differ.
	for range readTries {
		key[0] = headPrefix
		v, c, err := t.db.Get(key)
		if errors.Is(err, pebble.ErrNotFound) {
			return nil, nil, false, nil
		}
		if err != nil {
			return nil, nil, false, t.damaged(err)
		}
		tag, h, err := parseHead(v)
		head = append(head[:0], h...)
		c.Close()
		if err != nil {
			return nil, nil, false, t.damaged(&DamageError{t.dir, err.Error()})
		}
		if tag == 0 {
			t.count.found.Add(1)
			return head, nil, true, nil
		}
		key[0] = bodyPrefix
		v, c, err = t.db.Get(key)
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, nil, false, t.damaged(err)
		}
		if len(v) >= tagBytes && binary.BigEndian.Uint64(v) == tag {
			body = append(make([]byte, 0, len(v)-tagBytes), v[tagBytes:]...)
			c.Close()
			t.count.found.Add(1)
			return head, body, true, nil
		}
		c.Close()
	}
	return nil, nil, false, t.damaged(&DamageError{t.dir, fmt.Sprintf("a record of database %d has lost its body", k.DB)})
}

// Body reads the body of one record, as its last Put wrote it. found is false if there is no such
// record, or it has none. What it returns is the caller's.
func (t *Tier) Body(k Key) (body []byte, found bool, err error) {
	if err := t.enter(); err != nil {
		return nil, false, err
	}
	defer t.leave()
	t.count.reads.Add(1)
	v, found, err := t.get(appendKey(make([]byte, 0, 64), bodyPrefix, k.DB, k.Space, k.Hash, k.Key))
	if !found {
		return nil, false, err
	}
	if len(v) < tagBytes {
		return nil, false, t.damaged(&DamageError{t.dir, fmt.Sprintf("a body of database %d is cut short", k.DB)})
	}
	t.count.found.Add(1)
	return v[tagBytes:], true, nil
}

// get reads what stands under a key. What it returns is the caller's.
func (t *Tier) get(key []byte) (v []byte, found bool, err error) {
	v, c, err := t.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, t.damaged(err)
	}
	defer c.Close()
	return bytes.Clone(v), true, nil
}

// walk gives fn what stands under the keys from start up to, but not including, end. An
// error of the iterator is reported, if fn has none.
func (t *Tier) walk(start, end []byte, fn func(it *pebble.Iterator) error) (err error) {
	if err := t.enter(); err != nil {
		return err
	}
	defer t.leave()
	it, err := t.db.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end})
	if err != nil {
		return t.damaged(err)
	}
	defer func() {
		if e := it.Close(); err == nil {
			err = t.damaged(e)
		}
	}()
	if err := fn(it); err != nil {
		return err
	}
	return t.damaged(it.Error())
}

// Parts are those of one record. After an error they give nothing more, and whoever
// gave them says so. What they give is valid until they are asked again.
type Parts struct {
	it     *pebble.Iterator
	start  []byte // of the keys of all
	key    []byte
	failed error
}

// From gives the part with the least number that is not below n.
func (p *Parts) From(n uint64) (number uint64, data []byte, ok bool) {
	return p.at(n, p.it.SeekGE)
}

// Before gives the part with the greatest number below n.
func (p *Parts) Before(n uint64) (number uint64, data []byte, ok bool) {
	return p.at(n, p.it.SeekLT)
}

func (p *Parts) at(n uint64, seek func(key []byte) bool) (number uint64, data []byte, ok bool) {
	if p.failed != nil {
		return 0, nil, false
	}
	p.key = binary.BigEndian.AppendUint64(append(p.key[:0], p.start...), n)
	if !seek(p.key) {
		p.failed = p.it.Error()
		return 0, nil, false
	}
	if data, p.failed = p.it.ValueAndErr(); p.failed == nil {
		number, p.failed = partNumber(p.it.Key(), p.start)
	}
	return number, data, p.failed == nil
}

// Parts reads one record with its parts, all as of one moment. fn is called with what
// is there. found is false, and fn not called, if there is no such record.
func (t *Tier) Parts(k Key, fn func(head, body []byte, parts *Parts) error) (found bool, err error) {
	if err := t.enter(); err != nil {
		return false, err
	}
	defer t.leave()
	t.count.reads.Add(1)
	now := t.db.NewSnapshot()
	defer now.Close()
	get := func(prefix byte) ([]byte, error) {
		v, c, err := now.Get(appendKey(nil, prefix, k.DB, k.Space, k.Hash, k.Key))
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return bytes.Clone(v), nil
	}
	v, err := get(headPrefix)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, t.damaged(err)
	}
	tag, head, err := parseHead(v)
	if err != nil {
		return false, t.damaged(&DamageError{t.dir, err.Error()})
	}
	var body []byte
	if tag != 0 {
		b, err := get(bodyPrefix)
		if err == nil && (len(b) < tagBytes || binary.BigEndian.Uint64(b) != tag) || errors.Is(err, pebble.ErrNotFound) {
			err = &DamageError{t.dir, fmt.Sprintf("a record of database %d has lost its body", k.DB)}
		}
		if err != nil {
			return false, t.damaged(err)
		}
		body = b[tagBytes:]
	}
	start, end := partsSpan(k.DB, k.Space, k.Hash, k.Key)
	it, err := now.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end})
	if err != nil {
		return false, t.damaged(err)
	}
	parts := &Parts{it: it, start: start}
	defer func() {
		e := it.Close()
		if parts.failed == nil {
			parts.failed = e
		}
		if parts.failed != nil { // what fn made of half of it means nothing
			err = t.damaged(parts.failed)
		}
	}()
	err = fn(head, body, parts)
	t.count.found.Add(1)
	return true, err
}

// readTries is how often a read may meet a session being committed.
const readTries = 100

// damaged notes damage that a read found.
func (t *Tier) damaged(err error) error {
	err = explain(err)
	var d *DamageError
	if errors.As(err, &d) {
		t.h.setDamage(err)
	}
	return err
}

// Heads calls fn for each record of a database, in the order (space, hash, key),
// as it was when Heads was called. key and head are valid until fn returns. A
// large database is read ahead on another goroutine. If fn returns an error, so
// does Heads.
func (t *Tier) Heads(db uint64, fn func(space uint8, hash uint64, key, head []byte) error) error {
	return t.heads(db, headsInline, fn)
}

// headsInline is how many records are read without another goroutine: a database
// of a few keys wakes in less time than one takes to start.
const headsInline = 512

func (t *Tier) heads(db uint64, inline int, fn func(space uint8, hash uint64, key, head []byte) error) error {
	return t.walk(appendDB(nil, headPrefix, db), dbEnd(headPrefix, db), func(it *pebble.Iterator) error {
		n := 0
		more := it.First()
		for ; more && n < inline; more = it.Next() {
			space, hash, key, head, err := headAt(it)
			if err != nil {
				return t.damaged(err)
			}
			if err := fn(space, hash, key, head); err != nil {
				return err
			}
			n++
		}
		if more {
			m, err := t.readAhead(it, fn)
			n += m
			if err != nil {
				return err
			}
		}
		t.count.heads.Add(int64(n))
		return nil
	})
}

// headAt returns the record that the iterator stands on.
func headAt(it *pebble.Iterator) (space uint8, hash uint64, key, head []byte, err error) {
	v, err := it.ValueAndErr()
	if err != nil {
		return 0, 0, nil, nil, err
	}
	_, _, space, hash, key, err = parseKey(it.Key())
	if err == nil {
		_, head, err = parseHead(v)
	}
	if err != nil {
		err = &DamageError{"", err.Error()}
	}
	return space, hash, key, head, err
}

// chunk is some records on their way from one goroutine to the other.
type chunk struct {
	recs []chunkRec
	data []byte // keys and heads
	err  error
}

type chunkRec struct {
	hash     uint64
	at       uint32 // of the key in data; the head follows it
	key, len uint32 // lengths
	space    uint8
}

const (
	chunkRecs  = 1024
	chunkCount = 4
)

// readAhead calls fn for the records from where it stands, while another
// goroutine moves on. It returns when both are done.
func (t *Tier) readAhead(it *pebble.Iterator, fn func(space uint8, hash uint64, key, head []byte) error) (n int, err error) {
	full, empty := make(chan *chunk, chunkCount), make(chan *chunk, chunkCount)
	for range chunkCount {
		empty <- &chunk{recs: make([]chunkRec, 0, chunkRecs)}
	}
	stop := make(chan struct{})
	go func() {
		defer close(full)
		for more := true; more; {
			var c *chunk
			select {
			case c = <-empty:
			case <-stop:
				return
			}
			c.recs, c.data = c.recs[:0], c.data[:0]
			for len(c.recs) < chunkRecs {
				space, hash, key, head, err := headAt(it)
				if err != nil {
					c.err, more = err, false
					break
				}
				at := uint32(len(c.data))
				c.data = append(append(c.data, key...), head...)
				c.recs = append(c.recs, chunkRec{hash, at, uint32(len(key)), uint32(len(head)), space})
				if more = it.Next(); !more {
					break
				}
			}
			full <- c
		}
	}()
	for c := range full {
		for i := range c.recs {
			r := &c.recs[i]
			if err = fn(r.space, r.hash, c.data[r.at:r.at+r.key], c.data[r.at+r.key:r.at+r.key+r.len]); err != nil {
				break
			}
			n++
		}
		if err == nil {
			err = t.damaged(c.err)
		}
		if err != nil {
			break
		}
		empty <- c
	}
	close(stop)
	for range full {
	}
	return n, err
}

// Meta returns a database's meta record, nil if it has none.
func (t *Tier) Meta(db uint64) ([]byte, error) {
	if err := t.enter(); err != nil {
		return nil, err
	}
	defer t.leave()
	v, _, err := t.get(appendDB(nil, metaPrefix, db))
	return v, err
}

// Metas calls fn for the meta record of each database, in the order of their
// numbers. meta is valid until fn returns.
func (t *Tier) Metas(fn func(db uint64, meta []byte) error) error {
	return t.walk([]byte{metaPrefix}, []byte{metaPrefix + 1}, func(it *pebble.Iterator) error {
		for more := it.First(); more; more = it.Next() {
			v, err := it.ValueAndErr()
			if err != nil {
				return t.damaged(err)
			}
			if len(it.Key()) != dbPart {
				return t.damaged(&DamageError{t.dir, "the key of a meta record can't be read"})
			}
			if err := fn(binary.BigEndian.Uint64(it.Key()[1:]), v); err != nil {
				return err
			}
		}
		return nil
	})
}

// Head reads the head of one record. What it returns is the caller's.
func (t *Tier) Head(k Key) (head []byte, found bool, err error) {
	if err := t.enter(); err != nil {
		return nil, false, err
	}
	defer t.leave()
	t.count.reads.Add(1)
	v, found, err := t.get(appendKey(make([]byte, 0, 64), headPrefix, k.DB, k.Space, k.Hash, k.Key))
	if !found {
		return nil, false, err
	}
	_, h, err := parseHead(v)
	if err != nil {
		return nil, false, t.damaged(&DamageError{t.dir, err.Error()})
	}
	t.count.found.Add(1)
	return h, true, nil
}

// HeadsOf calls fn for each of some keys of a database, which are in the order (space,
// hash, key), with the head of its record; nil if it has none. head is valid until fn
// returns.
func (t *Tier) HeadsOf(db uint64, keys []Key, fn func(i int, head []byte) error) error {
	t.count.reads.Add(int64(len(keys)))
	return t.walk(appendDB(nil, headPrefix, db), dbEnd(headPrefix, db), func(it *pebble.Iterator) error {
		var at []byte
		for i, k := range keys {
			at = appendKey(at[:0], headPrefix, db, k.Space, k.Hash, k.Key)
			var head []byte
			if it.SeekGE(at) && bytes.Equal(it.Key(), at) {
				var err error
				if _, _, _, head, err = headAt(it); err != nil {
					return t.damaged(err)
				}
				t.count.found.Add(1)
			} else if err := it.Error(); err != nil {
				return t.damaged(err)
			}
			if err := fn(i, head); err != nil {
				return err
			}
		}
		return nil
	})
}

// HeadsBetween calls fn for the records of a space with hashes from first to last, in
// their order, until it returns false. key and head are valid until fn returns.
func (t *Tier) HeadsBetween(db uint64, space uint8, first, last uint64, fn func(hash uint64, key, head []byte) bool) error {
	t.count.reads.Add(1)
	_, end := spaceSpan(headPrefix, db, space)
	if last != ^uint64(0) {
		end = appendKey(nil, headPrefix, db, space, last+1, nil)
	}
	return t.walk(appendKey(nil, headPrefix, db, space, first, nil), end, func(it *pebble.Iterator) error {
		n := int64(0)
		for more := it.First(); more; more = it.Next() {
			_, hash, key, head, err := headAt(it)
			if err != nil {
				return t.damaged(err)
			}
			n++
			if !fn(hash, key, head) {
				break
			}
		}
		t.count.heads.Add(n)
		return nil
	})
}
