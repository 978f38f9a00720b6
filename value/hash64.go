package value

import (
	"encoding/binary"
	"math/bits"
)

// The digits of the square roots of 2, 3, 5 and 7 after the point: constants
// that nobody chose, with about as many ones as zeroes.
const (
	root2 = 0x6a09e667f3bcc908
	root3 = 0xbb67ae8584caa73b
	root5 = 0x3c6ef372fe94f82b
	root7 = 0xa54ff53a5f1d36f1
)

// Hash64 is the hash that tables and scan cursors are ordered by. Its values are part of what copies of a database
// share, so they never change between versions or machines (testdata holds examples). Whoever doesn't know the seed
// can't find keys that collide.
//
// It folds 128-bit products, as wyhash and its relatives do: sixteen bytes at a time are masked with two secrets and
// multiplied, and the halves of the product are joined. A product forgets one factor when the other is zero; both
// masks depend on the seed, so nobody outside can steer into that.
func Hash64(seed uint64, key []byte) uint64 {
	n := len(key)
	state := seed ^ root2
	mask := bits.RotateLeft64(seed, 32) ^ root3
	var a, b uint64
	switch {
	case n > 16:
		tail := key
		if n > 48 {
			second, third := state, state
			for len(tail) > 48 {
				state = fold(load64(tail)^mask, load64(tail[8:])^state)
				second = fold(load64(tail[16:])^mask^root5, load64(tail[24:])^second)
				third = fold(load64(tail[32:])^mask^root7, load64(tail[40:])^third)
				tail = tail[48:]
			}
			state ^= second ^ bits.RotateLeft64(third, 32)
		}
		for len(tail) > 16 {
			state = fold(load64(tail)^mask, load64(tail[8:])^state)
			tail = tail[16:]
		}
		a, b = load64(key[n-16:]), load64(key[n-8:]) // may overlap what was read before
	case n >= 8:
		a, b = load64(key), load64(key[n-8:])
	case n >= 4:
		a, b = uint64(binary.LittleEndian.Uint32(key)), uint64(binary.LittleEndian.Uint32(key[n-4:]))
	case n > 0:
		a = uint64(key[0])<<16 | uint64(key[n>>1])<<8 | uint64(key[n-1])
	}
	hi, lo := bits.Mul64(a^mask, b^state)
	return fold(lo^root5^uint64(n), hi^mask^root7)
}

func load64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
