package keyspace

import (
	"iter"

	"vecino/value"
)

// HashView is a hash that is only read. Without a key it is empty, and no
// hash with a key is.
type HashView struct{ h *value.Hash }

var noHash = value.NewHash(0)

// Hash is the hash at key.
func (v *View) Hash(key []byte) (HashView, error) {
	e, err := v.typed(key, HashKind)
	if !e.there() {
		return HashView{noHash}, err
	}
	return HashView{v.ks.open(e).h}, nil
}

func (h HashView) Len() int                                           { return h.h.Len() }
func (h HashView) Get(field []byte) ([]byte, bool)                    { return h.h.Get(field) }
func (h HashView) Has(field []byte) bool                              { return h.h.Has(field) }
func (h HashView) All() iter.Seq2[[]byte, []byte]                     { return h.h.All() }
func (h HashView) Random(r value.Rand) (f, val []byte)                { return h.h.Random(r) }
func (h HashView) Sample(r value.Rand, n int, fn func(f, val []byte)) { h.h.Sample(r, n, fn) }

// Scan is value.Hash.Scan.
func (h HashView) Scan(cursor uint64, count int, fn func(field, val []byte)) (next uint64) {
	return h.h.Scan(cursor, count, fn)
}

// Hash is a hash that may be changed. It comes to be with its first field and
// ends with its last.
type Hash struct {
	HashView
	handle
}

// Hash is the hash at key.
func (tx *Tx) Hash(key []byte) (Hash, error) {
	e, err := tx.typed(key, HashKind)
	if !e.there() {
		return Hash{HashView{noHash}, handle{tx: tx, key: key}}, err
	}
	o := tx.ks.open(e)
	return Hash{HashView{o.h}, handle{tx, key, o}}, nil
}

// Set gives a field a value and reports whether the field is new.
func (h *Hash) Set(field, val []byte) (added bool) {
	if h.own(HashKind) {
		h.h = h.o.h
	}
	added = h.h.Set(field, val)
	h.tx.emit(opHashSet, h.key)
	h.tx.emitBytes(field)
	h.tx.emitBytes(val)
	return added
}

// Del removes a field and reports whether it was there.
func (h *Hash) Del(field []byte) bool {
	if h.o == nil || !h.h.Del(field) {
		return false
	}
	h.tx.change(h.o)
	h.tx.emit(opHashDel, h.key)
	h.tx.emitBytes(field)
	return true
}

// handle is what the changeable collections have in common: whose they are.
type handle struct {
	tx  *Tx
	key []byte
	o   *opened // nil while there is no such key
}

// own says that the collection is about to grow. It reports true if there was
// none, or none any more, and this is another one.
func (h *handle) own(kind Kind) (made bool) {
	if h.o != nil && !h.o.gone {
		h.tx.change(h.o)
		return false
	}
	h.o = h.tx.make(h.key, kind)
	return true
}
