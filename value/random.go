package value

import "math/bits"

// Rand is where random choices come from; *rand.Rand of math/rand/v2 is one.
type Rand interface{ Uint64() uint64 }

// below draws a number in [0, n). The bias is n in 2^64.
func below(rng Rand, n int) int {
	hi, _ := bits.Mul64(rng.Uint64(), uint64(n))
	return int(hi)
}
