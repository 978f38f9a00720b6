package dirlock

import (
	"errors"
	"os"
	"testing"
)

func TestOneAtATime(t *testing.T) {
	dir := t.TempDir()
	first, _, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, pid, err := Take(dir); !errors.Is(err, ErrHeld) || pid != os.Getpid() {
		t.Errorf("a second time: %v, pid %d", err, pid)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, _, err := Take(dir)
	if err != nil {
		t.Fatalf("after it was let go: %v", err)
	}
	again.Close()
}
