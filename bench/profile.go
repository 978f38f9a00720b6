package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// takeProfile records what a node spends its CPU on, until the function it
// returns is called. The profile is for `go tool pprof`.
func (b *bench) takeProfile(admin string, p *process, what string) (finish func() error) {
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	type answer struct {
		profile []byte
		err     error
	}
	answered := make(chan answer, 1)
	go func() {
		profile, err := get(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", admin, pick(b, 3, 1)))
		answered <- answer{profile, err}
	}()
	return func() error {
		defer cancel()
		a := <-answered
		if a.err != nil {
			return fmt.Errorf("profile of %s: %w", p.name, a.err)
		}
		name := strings.Join(strings.Fields(strings.ReplaceAll(strings.ToLower(what), "-", "")), "-") + ".pprof"
		return os.WriteFile(filepath.Join(b.profile, name), a.profile, 0o644)
	}
}

// profiled takes a profile of a node while something runs that doesn't count.
// Without -profile it does nothing.
func (b *bench) profiled(r *rival, what string, run func() error) error {
	if b.profile == "" {
		return nil
	}
	finish := b.takeProfile(r.admin, r.process, what)
	return errors.Join(run(), finish())
}
