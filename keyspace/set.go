package keyspace

import (
	"iter"

	"vecino/value"
)

// SetView is a set that is only read. Without a key it is empty, and no set
// with a key is.
type SetView struct{ s *value.Set }

var noSet = value.NewSet(0)

// Set is the set at key.
func (v *View) Set(key []byte) (SetView, error) {
	e, err := v.typed(key, SetKind)
	if !e.there() {
		return SetView{noSet}, err
	}
	return SetView{v.ks.open(e).s}, nil
}

func (s SetView) Len() int                                           { return s.s.Len() }
func (s SetView) Has(member []byte) bool                             { return s.s.Has(member) }
func (s SetView) All() iter.Seq[[]byte]                              { return s.s.All() }
func (s SetView) Random(r value.Rand) []byte                         { return s.s.Random(r) }
func (s SetView) Sample(r value.Rand, n int, fn func(member []byte)) { s.s.Sample(r, n, fn) }

// Scan is value.Set.Scan.
func (s SetView) Scan(cursor uint64, count int, fn func(member []byte)) (next uint64) {
	return s.s.Scan(cursor, count, fn)
}

// Set is a set that may be changed. It comes to be with its first member and
// ends with its last.
type Set struct {
	SetView
	handle
}

// Set is the set at key.
func (tx *Tx) Set(key []byte) (Set, error) {
	e, err := tx.typed(key, SetKind)
	if !e.there() {
		return Set{SetView{noSet}, handle{tx: tx, key: key}}, err
	}
	o := tx.ks.open(e)
	return Set{SetView{o.s}, handle{tx, key, o}}, nil
}

// Add puts a member in and reports whether it is new.
func (s *Set) Add(member []byte) (added bool) {
	if s.o != nil && s.s.Has(member) {
		return false
	}
	if s.own(SetKind) {
		s.s = s.o.s
	}
	s.s.Add(member)
	s.tx.emit(opSetAdd, s.key)
	s.tx.emitBytes(member)
	return true
}

// Del removes a member and reports whether it was there. member may be memory
// that the set gave out.
func (s *Set) Del(member []byte) bool {
	if s.o == nil || !s.s.Has(member) {
		return false
	}
	s.tx.change(s.o)
	s.tx.emit(opSetDel, s.key)
	s.tx.emitBytes(member)
	s.s.Del(member)
	return true
}
