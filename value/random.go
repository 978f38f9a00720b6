package value

import "math/bits"

// Rand is where random choices come from; *rand.Rand of math/rand/v2 is one.
type Rand interface{ Uint64() uint64 }

// below draws a number in [0, n). The bias is n in 2^64.
func below(rng Rand, n int) int {
	hi, _ := bits.Mul64(rng.Uint64(), uint64(n))
	return int(hi)
}

// A lottery chooses some of a number of elements that come one after the
// other, every such choice as likely as any other.
type lottery struct {
	rng     Rand
	winners int // still to be drawn
	tickets int // still to come
}

func newLottery(rng Rand, winners, tickets int) lottery {
	return lottery{rng, max(0, min(winners, tickets)), tickets}
}

// draw says whether the next element is chosen.
func (l *lottery) draw() bool {
	wins := below(l.rng, l.tickets) < l.winners
	l.tickets--
	if wins {
		l.winners--
	}
	return wins
}
