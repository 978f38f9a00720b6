// Package fifo is a queue in one array.
package fifo

import "slices"

// A Queue is things in the order in which they came. The zero Queue is empty.
type Queue[T any] struct {
	things []T
	head   int
}

// Len is how many things there are.
func (q *Queue[T]) Len() int { return len(q.things) - q.head }

// First is the first, which must be there.
func (q *Queue[T]) First() T { return q.things[q.head] }

// All are the things, valid until the next change.
func (q *Queue[T]) All() []T { return q.things[q.head:] }

// Push adds a thing at the end. Each is moved once or twice, however long the queue is.
func (q *Queue[T]) Push(thing T) {
	if len(q.things) == cap(q.things) && q.head > len(q.things)/2 {
		n := copy(q.things, q.things[q.head:])
		clear(q.things[n:])
		q.things, q.head = q.things[:n], 0
	}
	q.things = append(q.things, thing)
}

// Pop takes the first away, which must be there.
func (q *Queue[T]) Pop() T {
	var none T
	thing := q.things[q.head]
	q.things[q.head] = none
	if q.head++; q.head == len(q.things) {
		q.restart()
	}
	return thing
}

// restart begins at the front of the memory again, when nothing is left.
func (q *Queue[T]) restart() {
	const kept = 1024
	q.things, q.head = q.things[:0], 0
	if cap(q.things) > kept {
		q.things = nil
	}
}

// Drop takes out what drop says.
func (q *Queue[T]) Drop(drop func(T) bool) {
	q.things = q.things[:q.head+len(slices.DeleteFunc(q.things[q.head:], drop))]
	if q.head == len(q.things) {
		q.restart()
	}
}
