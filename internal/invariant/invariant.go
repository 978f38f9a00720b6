// Package invariant states what must be true, and stops next to the bug when
// it isn't.
//
// It is for mistakes of ours only. What a client or the world can cause is an
// error and is returned. The engine is the one place that recovers from these
// panics: it closes the database concerned and leaves its neighbours running.
package invariant

import "fmt"

// Violation is what a broken invariant panics with, so that who recovers can
// tell it from other panics.
type Violation string

func (v Violation) Error() string { return "invariant broken: " + string(v) }

// That panics with a Violation unless cond holds. The arguments are evaluated
// also when it does, so on hot paths keep them to values at hand.
func That(cond bool, format string, args ...any) {
	if !cond {
		panic(Violation(fmt.Sprintf(format, args...)))
	}
}
