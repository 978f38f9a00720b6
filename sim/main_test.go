package sim

import (
	"os"
	"testing"

	"vecino/value"
)

// Collections of a few hundred elements lie on disk in several parts here.
func TestMain(m *testing.M) {
	value.SetPartBytes(300)
	os.Exit(m.Run())
}
