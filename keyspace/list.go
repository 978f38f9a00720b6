package keyspace

import (
	"vecino/value"
)

// End is one of the two ends of a list.
type End byte

const (
	Front End = iota // LEFT, the head
	Back             // RIGHT, the tail
)

// ListView is a list that is only read. Without a key it is empty, and no
// list with a key is.
type ListView struct{ l *value.List }

var noList = value.NewList()

// List is the list at key.
func (v *View) List(key []byte) (ListView, error) {
	e, err := v.typed(key, ListKind)
	if !e.there() {
		return ListView{noList}, err
	}
	return ListView{v.ks.open(e).l}, nil
}

func (l ListView) Len() int { return l.l.Len() }

// Index is the element at i, nil if the list isn't that long.
func (l ListView) Index(i int) []byte {
	element, _ := l.l.Index(i)
	return element
}

// Range calls fn for the elements from start on until it returns false.
func (l ListView) Range(start int, fn func(element []byte) bool) { l.l.Range(start, fn) }

// RangeBack calls fn for the elements from start towards the front.
func (l ListView) RangeBack(start int, fn func(element []byte) bool) { l.l.RangeBack(start, fn) }

// List is a list that may be changed. It comes to be with its first element
// and ends with its last.
type List struct {
	ListView
	handle
}

// List is the list at key.
func (tx *Tx) List(key []byte) (List, error) {
	e, err := tx.typed(key, ListKind)
	if !e.there() {
		return List{ListView{noList}, handle{tx: tx, key: key}}, err
	}
	o := tx.ks.open(e)
	return List{ListView{o.l}, handle{tx, key, o}}, nil
}

func push(l *value.List, end End, element []byte) {
	if end == Front {
		l.PushFront(element)
	} else {
		l.PushBack(element)
	}
}

func popMany(l *value.List, end End, count int) {
	for range count {
		if end == Front {
			l.PopFront()
		} else {
			l.PopBack()
		}
	}
}

// Push puts an element at an end.
func (l *List) Push(end End, element []byte) {
	if l.own(ListKind) {
		l.l = l.o.l
	}
	push(l.l, end, element)
	l.tx.emit(opListPush, l.key)
	l.tx.effects = append(l.tx.effects, byte(end))
	l.tx.emitBytes(element)
}

// Pop removes count elements, which are there, from an end.
func (l *List) Pop(end End, count int) {
	if count == 0 {
		return
	}
	l.tx.change(l.o)
	l.tx.emit(opListPop, l.key)
	l.tx.effects = append(l.tx.effects, byte(end))
	l.tx.emitInt(int64(count))
	popMany(l.l, end, count)
}

// SetAt changes the element at i, which is in the list.
func (l *List) SetAt(i int, element []byte) {
	l.tx.change(l.o)
	l.tx.emit(opListSet, l.key)
	l.tx.emitInt(int64(i))
	l.tx.emitBytes(element)
	l.l.SetAt(i, element)
}

// InsertAt puts an element before the one at i, or at the end if i is Len, in
// a list that has elements.
func (l *List) InsertAt(i int, element []byte) {
	l.tx.change(l.o)
	l.tx.emit(opListInsert, l.key)
	l.tx.emitInt(int64(i))
	l.tx.emitBytes(element)
	l.l.InsertAt(i, element)
}

// RemoveAt removes the element at i, which is in the list.
func (l *List) RemoveAt(i int) {
	l.tx.change(l.o)
	l.tx.emit(opListRemove, l.key)
	l.tx.emitInt(int64(i))
	l.l.RemoveAt(i)
}

// Trim keeps the elements from start to stop, both in the list, start not
// behind stop.
func (l *List) Trim(start, stop int) {
	if start == 0 && stop == l.Len()-1 {
		return
	}
	l.tx.change(l.o)
	l.tx.emit(opListTrim, l.key)
	l.tx.emitInt(int64(start))
	l.tx.emitInt(int64(stop))
	l.l.TrimTo(start, stop)
}

// Remove removes elements that are equal to the given one: the first count of
// them, the last -count, or all if count is 0. It returns how many there were.
func (l *List) Remove(element []byte, count int) (removed int) {
	if l.o == nil {
		return 0
	}
	if removed = l.l.RemoveValue(element, count); removed > 0 {
		l.tx.change(l.o)
		l.tx.emit(opListErase, l.key)
		l.tx.emitInt(int64(count))
		l.tx.emitBytes(element)
	}
	return removed
}
