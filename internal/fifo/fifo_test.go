package fifo

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestQueueIsAList(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var q Queue[int]
	var list []int
	for i := range 20_000 {
		most := []int{5, 3000}[i/10_000]
		switch {
		case rng.IntN(500) == 0:
			odd := func(n int) bool { return n%2 == 1 }
			q.Drop(odd)
			list = slices.DeleteFunc(list, odd)
		case len(list) < most && rng.IntN(3) > 0 || len(list) == 0:
			q.Push(i)
			list = append(list, i)
		default:
			if first := q.First(); first != list[0] || q.Pop() != first {
				t.Fatalf("the first is %d, want %d", first, list[0])
			}
			list = list[1:]
		}
		if q.Len() != len(list) || !slices.Equal(q.All(), list) {
			t.Fatalf("step %d: %v, want %v", i, q.All(), list)
		}
	}
}

// What has been taken is not held on to, and a long queue that is full most of the time
// stays in its array.
func TestQueueKeepsNothing(t *testing.T) {
	var q Queue[*int]
	for range 5000 {
		q.Push(new(int))
	}
	room := 0
	for range 50_000 {
		q.Pop()
		q.Push(new(int))
		room = max(room, cap(q.things))
	}
	if room > 4*5000 {
		t.Errorf("room for %d", room)
	}
	for _, p := range q.things[:q.head] {
		if p != nil {
			t.Fatal("one that was taken is there still")
		}
	}
	for q.Len() > 0 {
		q.Pop()
	}
	if cap(q.things) > 1024 {
		t.Errorf("an empty queue has room for %d", cap(q.things))
	}
}
