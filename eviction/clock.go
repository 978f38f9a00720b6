package eviction

// A Stamp tells when a key was last used and, under an LFU policy, how often:
//
//	LRU | time, 16 ms, 32 bits                             |
//	LFU | time, 4.096 s, 24 bits       | counter, 8 bits    |
//
// The time is that of the command, in milliseconds since 1970, shifted; it
// wraps after 2.2 years. The LFU form is the LRU form with its low byte put to
// another use, so when a database changes its policy, times stay right to
// within seconds, and nothing needs to be walked.
//
// The counter is logarithmic: a key that is used when the counter stands at c
// adds one with a probability of 1 / ((c - 5) × 10 + 1). It loses one for each
// minute without use. A new key begins with 5, so that it isn't the first to
// go before it had a chance.
type Stamp uint32

const (
	unitBits    = 4 // of a time in milliseconds, that a Stamp drops
	counterBits = 8
	logFactor   = 10 // lfu-log-factor
	decayTime   = 1  // lfu-decay-time, in minutes
	fresh       = 5  // the counter of a new key
	unitMS      = 1 << unitBits
	coarseMS    = unitMS << counterBits
)

// At is the stamp of a time in milliseconds since 1970: that of a key used
// then, under an LRU policy.
func At(now int64) Stamp { return Stamp(uint64(now) >> unitBits) }

// NewLFU is the stamp of a key that comes to be at the time now, under an LFU
// policy.
func NewLFU(now Stamp) Stamp { return now&^0xff | fresh }

// Used is the stamp after one more use at the time now, under an LFU policy.
// random is a number evenly spread over all.
func (s Stamp) Used(now Stamp, random uint64) Stamp {
	c := s.Count(now)
	if c < 0xff {
		base := uint64(max(c, fresh) - fresh)
		if random>>32*(base*logFactor+1) < 1<<32 {
			c++
		}
	}
	return now&^0xff | Stamp(c)
}

// Count is the counter at the time now, under an LFU policy.
func (s Stamp) Count(now Stamp) int {
	last, present := uint64(s>>counterBits), uint64(now>>counterBits)
	if present < last { // it wrapped, or the clock was put back
		if last-present < 1<<(31-counterBits) {
			present = last
		} else {
			present += 1 << (32 - counterBits)
		}
	}
	minutes := int(present*coarseMS/60_000 - last*coarseMS/60_000)
	return max(0, int(s&0xff)-minutes/decayTime)
}

// Idle is for how many milliseconds a key wasn't used, at the time now. A
// clock that was put back counts as no time.
func (s Stamp) Idle(now Stamp) int64 {
	d := uint32(now - s)
	if d >= 1<<31 {
		return 0
	}
	return int64(d) * unitMS
}

// IdleLFU is Idle under an LFU policy.
func (s Stamp) IdleLFU(now Stamp) int64 { return (s &^ 0xff).Idle(now &^ 0xff) }
