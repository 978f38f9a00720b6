package journal

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"vecino/internal/vfs"
)

const killDirEnv = "VECINO_JOURNAL_KILL_DIR"

// TestMain lets the test binary be the program that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(killDirEnv); dir != "" {
		fmt.Println("failed:", writeUntilKilled(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeUntilKilled appends entry after entry and says so on standard output
// after each commit, which is its ledger.
func writeUntilKilled(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	j, seqs, err := tryOpen(vfs.OS, Options{SegmentBytes: testSegment})
	if err != nil {
		return err
	}
	seq := uint64(0)
	if len(seqs) > 0 {
		seq = seqs[len(seqs)-1]
	}
	var offs []Offset
	for {
		for range 1 + seq%5 {
			seq++
			offs = append(offs, appendSeq(j, seq))
		}
		if err := j.Commit(); err != nil {
			return err
		}
		if _, err := fmt.Println(seq); err != nil {
			return err
		}
		if len(offs) > 500 {
			if err := j.TrimBefore(offs[250]); err != nil {
				return err
			}
			offs = offs[251:]
		}
	}
}

// A process that is killed loses nothing that it has committed, however often.
func TestKilledProcessLosesNothingCommitted(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	last := uint64(0)
	for round := range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killDirEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			seq, err := strconv.ParseUint(lines.Text(), 10, 64)
			if err != nil {
				t.Fatalf("round %d: it says %q", round, lines.Text())
			}
			last = seq
			if n == 150*(round+1) {
				cmd.Process.Kill() // what it has said since is still read
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("it ended by itself")
		}
		seqs, h, err := walkSeqs(vfs.OS)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if len(seqs) == 0 || seqs[len(seqs)-1] < last || seqs[len(seqs)-1] > last+5 {
			t.Fatalf("round %d: %d was committed, the journal ends with %d entries, cut %v", round, last, len(seqs), h.cut)
		}
		wantSeqs(t, seqs, seqs[0], seqs[len(seqs)-1])
	}
	if _, h, _ := walkSeqs(vfs.OS); h.segments[0].number == 1 {
		t.Fatal("nothing was trimmed: too small to test that")
	}
}
