package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/pprof/profile"
)

// runPGO makes of the profiles in a directory (see -profile) the one by which builds are
// optimized: Go takes default.pgo beside a main package, see https://go.dev/doc/pgo.
func runPGO(_ context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("pgo wants a directory of profiles, such as -profile leaves, and the file to write")
	}
	names, err := filepath.Glob(filepath.Join(args[0], "*.pprof"))
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("there are no profiles in %s: take some with -only server -profile %[1]s", args[0])
	}
	var profiles []*profile.Profile
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		p, err := profile.ParseData(b)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		profiles = append(profiles, p)
	}
	p, err := mergeForBuild(profiles)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := p.Write(&out); err != nil {
		return err
	}
	return os.WriteFile(args[1], out.Bytes(), 0o644)
}

// mergeForBuild leaves of profiles what the compiler looks at, functions and lines within
// them: not the machine's paths, nor when it was.
func mergeForBuild(profiles []*profile.Profile) (*profile.Profile, error) {
	p, err := profile.Merge(profiles)
	if err != nil {
		return nil, err
	}
	p.TimeNanos, p.DurationNanos, p.Comments = 0, 0, nil
	for _, f := range p.Function {
		f.Filename = ""
	}
	for _, l := range p.Location {
		l.Mapping, l.Address = nil, 0
	}
	p.Mapping = nil
	for _, s := range p.Sample {
		s.Label, s.NumLabel, s.NumUnit = nil, nil, nil
	}
	return p.Compact(), p.CheckValid()
}
