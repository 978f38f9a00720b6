package e2e

import (
	"os"
	"path/filepath"
	"testing"

	// Not used here, but by the program under test: with them go test knows
	// that a result is out of date when they change.
	_ "vecino/cli/redis"
	_ "vecino/edge"
	_ "vecino/fleet"
	_ "vecino/node"
	_ "vecino/platform"
)

// TestProgramIsPartOfTheTest reads the program's own files, for the same
// reason: what a test has read is part of what its result depends on.
func TestProgramIsPartOfTheTest(t *testing.T) {
	files, err := filepath.Glob("../cmd/vecino/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("the program has no files: %v", err)
	}
	for _, file := range files {
		if _, err := os.ReadFile(file); err != nil {
			t.Error(err)
		}
	}
}
