package main

import (
	"math"
	"math/rand/v2"
	"slices"
)

// zipf draws numbers below n so that the k-th most frequent comes up in
// proportion to 1/k^exponent. Which number is how frequent is mixed up, the
// same way every time: neighbours in number aren't neighbours in frequency.
type zipf struct {
	cumulative []float64 // by rank
	stride     int       // has no factor in common with n
}

func newZipf(n int, exponent float64) *zipf {
	z := &zipf{cumulative: make([]float64, n), stride: 0x9e3779b1 % n}
	sum := 0.0
	for k := range n {
		sum += math.Pow(float64(k+1), -exponent)
		z.cumulative[k] = sum
	}
	for z.stride = max(z.stride, 1); gcd(z.stride, n) != 1; z.stride++ {
	}
	return z
}

// draw draws a number.
func (z *zipf) draw(r *rand.Rand) int {
	n := len(z.cumulative)
	rank, _ := slices.BinarySearch(z.cumulative, r.Float64()*z.cumulative[n-1])
	return min(rank, n-1) * z.stride % n
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// lru is a cache of numbers that forgets the one used longest ago: what an
// eviction that samples is measured against.
type lru struct {
	room       int
	prev, next []int32 // by number; the head is number n
	held       []bool
	size       int
}

func newLRU(n, room int) *lru {
	c := &lru{room: room, prev: make([]int32, n+1), next: make([]int32, n+1), held: make([]bool, n)}
	c.prev[n], c.next[n] = int32(n), int32(n)
	return c
}

// use reports whether a number was there, and makes it the one used last.
func (c *lru) use(x int) bool {
	head := int32(len(c.held))
	hit := c.held[x]
	if hit {
		c.unlink(int32(x))
	} else {
		if c.size == c.room {
			oldest := c.prev[head]
			c.unlink(oldest)
			c.held[oldest] = false
			c.size--
		}
		c.held[x] = true
		c.size++
	}
	first := c.next[head]
	c.prev[x], c.next[x] = head, first
	c.next[head], c.prev[first] = int32(x), int32(x)
	return hit
}

func (c *lru) unlink(x int32) {
	c.next[c.prev[x]], c.prev[c.next[x]] = c.next[x], c.prev[x]
}
