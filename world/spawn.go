package world

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
)

// spawner starts processes that end with this one, whatever ends it.
//
// Two things see to that. The kernel kills a child when the *thread* that
// started it ends, so all are started by one that lives as long as the
// spawner. And the standard input of all is a pipe into which nobody writes:
// when this process is gone it is at its end, and FollowParent notices.
type spawner struct {
	leash    *os.File // the children's end of the pipe
	requests chan func()
	tasks    sync.WaitGroup
}

func newSpawner() (s *spawner, alive *os.File, err error) {
	s = &spawner{requests: make(chan func())}
	if s.leash, alive, err = os.Pipe(); err != nil {
		return nil, nil, fmt.Errorf("start processes: %w", err)
	}
	s.tasks.Go(func() {
		runtime.LockOSThread() // and never unlock: the thread ends here
		for f := range s.requests {
			f()
		}
	})
	return s, alive, nil
}

// start starts a command.
func (s *spawner) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = attributes()
	cmd.Env = append(cmd.Env, LeashVariable+"=stdin")
	done := make(chan error, 1)
	s.requests <- func() { done <- cmd.Start() }
	return <-done
}

// close ends the spawner. All that it started must have ended.
func (s *spawner) close() {
	close(s.requests)
	s.tasks.Wait()
	s.leash.Close()
}

// LeashVariable, set to "stdin", tells a process that its standard input is a
// leash: that it has to end when nobody holds the other end any more.
const LeashVariable = "VECINO_LEASH"

// FollowParent ends this process when the World that started it is gone. In
// any other process it does nothing.
func FollowParent() {
	if os.Getenv(LeashVariable) != "stdin" {
		return
	}
	os.Unsetenv(LeashVariable)
	go func() { // for as long as the process lives
		io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
}
