package command_test

import (
	"os"
	"testing"

	"vecino/slab"
)

// VECINO_SCRAMBLE=1 go test -count=1 finds handlers that keep what a keyspace
// gave them longer than they may.
func TestMain(m *testing.M) {
	slab.Scramble(os.Getenv("VECINO_SCRAMBLE") != "")
	os.Exit(m.Run())
}
