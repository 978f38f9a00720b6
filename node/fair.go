package node

import "time"

// demand is one database in memory, as the choice of who gives sees it.
type demand struct {
	resident int64         // bytes in memory
	fixed    int64         // of them, those that can't leave: keys and small values
	idle     time.Duration // since its last command
}

// halfShare is after how long without a command a database has a right to half
// of what it had.
const halfShare = time.Minute

// shares says how many bytes each database is to let go, so that together they
// take no more than target, as far as that is possible.
//
// Every database has the same right to memory, less the longer it was idle.
// There is a level to which all are cut that stand above it; whoever is below
// keeps all, however little room others have. So a database that grows beyond
// its share pays for that itself, in its own values, and what nobody uses goes
// before what somebody does.
func shares(all []demand, target int64) (give []int64) {
	give = make([]int64, len(all))
	rights := make([]float64, len(all))
	total, highest := int64(0), 0.0
	for i, d := range all {
		rights[i] = 1 / (1 + float64(max(d.idle, 0))/float64(halfShare))
		total += d.resident
		highest = max(highest, float64(d.resident)/rights[i])
	}
	if total <= target {
		return give
	}
	keep := func(i int, level float64) int64 {
		return min(all[i].resident, max(all[i].fixed, int64(level*rights[i])))
	}
	low, high := 0.0, highest
	for range 48 {
		level, sum := (low+high)/2, int64(0)
		for i := range all {
			sum += keep(i, level)
		}
		if sum > target {
			high = level
		} else {
			low = level
		}
	}
	for i, d := range all {
		give[i] = d.resident - keep(i, low)
	}
	return give
}
