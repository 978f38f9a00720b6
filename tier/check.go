package tier

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// Check reads every file and verifies every checksum. It returns all damage that
// it finds. It takes as long as the disk needs to read everything.
func (t *Tier) Check(ctx context.Context) error {
	if err := t.enter(); err != nil {
		return err
	}
	defer t.leave()
	t.state.mu.Lock()
	last := t.state.mu.claim
	t.state.mu.Unlock()
	all := []error{verifyClaims(t.opts.FS, t.dir, last)}
	levels, err := t.db.SSTables()
	if err != nil {
		return t.damaged(err)
	}
	seen := make(map[string]bool)
	for _, level := range levels {
		for _, table := range level {
			name := t.opts.FS.PathJoin(t.dir, pebbleDir, fmt.Sprintf("%s.sst", table.BackingSSTNum))
			if seen[name] {
				continue // two shares of one file
			}
			seen[name] = true
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := t.checkTable(name); err != nil && !isNotExist(err) { // a compaction may have replaced it
				all = append(all, &DamageError{name, err.Error()})
			}
		}
	}
	return t.damaged(errors.Join(all...))
}

func (t *Tier) checkTable(name string) error {
	f, err := t.opts.FS.Open(name)
	if err != nil {
		return err
	}
	readable, err := objstorageprovider.NewFileReadable(f, t.opts.FS, objstorageprovider.NewReadaheadConfig(), name)
	if err != nil {
		f.Close()
		return err
	}
	r, err := sstable.NewReader(context.Background(), readable, t.pebble.MakeReaderOptions())
	if err != nil {
		readable.Close()
		return err
	}
	defer r.Close()
	return r.ValidateBlockChecksums()
}
