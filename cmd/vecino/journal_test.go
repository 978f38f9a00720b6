package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vecino/internal/vfs"
	"vecino/journal"
)

func TestJournalVerifyTellsDamageFromHealth(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(vfs.OS, dir, journal.Options{SegmentBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Replay(nil); err != nil {
		t.Fatal(err)
	}
	var prev uint64
	for seq := range uint64(100) {
		raw := journal.AppendEntry(nil, &journal.Entry{DB: 7, Epoch: 1, Seq: seq + 1, Prev: prev, Effects: bytes.Repeat([]byte{'x'}, 50)})
		prev = journal.Hash(prev, raw)
		j.Append(raw)
		if err := j.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	verify := func() (string, error) {
		c := journalCommand()
		var out bytes.Buffer
		c.SetOut(&out)
		c.SetErr(&out)
		c.SilenceUsage = true
		c.SetArgs([]string{"verify", dir})
		err := c.Execute()
		return out.String(), err
	}
	out, err := verify()
	if err != nil || !strings.Contains(out, "100 entries of 1 databases") {
		t.Errorf("a healthy journal: %v\n%s", err, out)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.seg"))
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, []byte("xxxxxxxxxx"))+20] ^= 1
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	var damage *journal.DamageError
	if out, err := verify(); !errors.As(err, &damage) {
		t.Errorf("a flipped bit: %v\n%s", err, out)
	}
}
