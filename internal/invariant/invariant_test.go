package invariant

import (
	"errors"
	"testing"
)

func TestThatPanicsWithAViolation(t *testing.T) {
	That(1 < 2, "never said")
	defer func() {
		var v Violation
		err, _ := recover().(error)
		if !errors.As(err, &v) || err.Error() != "invariant broken: 3 of 2" {
			t.Fatalf("panicked with %v", err)
		}
	}()
	That(false, "%d of %d", 3, 2)
}
