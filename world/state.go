package world

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"vecino/internal/dirlock"
	"vecino/region"
)

// record is world.json. The CLI reads its first two fields; it and the state
// are for their owner alone, since whoever reads it has the tokens.
//
// Its versions:
//
//	1  as below
type record struct {
	API     string `json:"api"`
	Token   string `json:"token"`
	Version int    `json:"version"`
	Control string `json:"control"` // path of the control socket

	// Regions are in an order that must not change: it is part of the
	// loopback addresses.
	Regions  []region.Code  `json:"regions"`
	DataPort int            `json:"data_port"`
	Ports    map[string]int `json:"ports"` // by what they are for

	// Secrets among the processes.
	PlatformToken string `json:"platform_token"` // the platform's, at the fleet
	NodeToken     string `json:"node_token"`     // the nodes', at the fleet and among each other
	EdgeToken     string `json:"edge_token"`     // the edges', at the platform
}

const (
	recordVersion = 1
	recordFile    = "world.json"
)

func readRecord(dir string) (r record, err error) {
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s in %s is damaged: %w", recordFile, dir, err)
	}
	if r.Version > recordVersion {
		return r, fmt.Errorf("the world in %s was made by a later version of vecino", dir)
	}
	return r, nil
}

func (r *record) write(dir string) error { return writeJSON(filepath.Join(dir, recordFile), r) }

// writeJSON replaces a file as a whole.
func writeJSON(file string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(file), err)
	}
	if err := os.WriteFile(file+".new", append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// load reads what the last World left in the state, or begins a new one.
func (w *World) load() error {
	r, err := readRecord(w.cfg.State)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if r.Version == 0 {
		r = record{
			Version: recordVersion, Regions: w.cfg.Regions, Ports: map[string]int{},
			Token: rand.Text(), PlatformToken: rand.Text(), NodeToken: rand.Text(), EdgeToken: rand.Text(),
		}
		if len(r.Regions) == 0 {
			r.Regions = DefaultRegions
		}
	}
	for _, have := range r.Regions {
		if len(w.cfg.Regions) > 0 && !slices.Contains(w.cfg.Regions, have) {
			return fmt.Errorf("the world in %s has region %s, and regions can't be taken away: leave --regions out, name all of %s and what is to be added, or use another --state",
				w.cfg.State, have, joined(r.Regions))
		}
	}
	r.Regions = slices.Clone(r.Regions)
	for _, add := range w.cfg.Regions {
		if !slices.Contains(r.Regions, add) {
			r.Regions = append(r.Regions, add)
		}
	}
	w.record = r
	if err := w.choosePorts(); err != nil {
		return err
	}
	w.record.API = "http://" + w.at(platformPort)
	return w.loadDistance()
}

func joined(codes []region.Code) string {
	list := make([]string, len(codes))
	for i, c := range codes {
		list[i] = string(c)
	}
	return strings.Join(list, ",")
}

// A RunningError says that another World has the state.
type RunningError struct {
	State string
	PID   int
}

func (e *RunningError) Error() string {
	flag := ""
	if e.State != "" {
		flag = " --state " + e.State
	}
	return fmt.Sprintf("a world runs in %s already (pid %d): look at it with `vecino world status%s`, create a database in it with `vecino redis create%s`, or end it with `kill %d`",
		e.State, e.PID, flag, flag, e.PID)
}

// lockState makes sure that one World at a time has a state.
func lockState(dir string) (*dirlock.Lock, error) {
	lock, pid, err := dirlock.Take(dir)
	if errors.Is(err, dirlock.ErrHeld) {
		return nil, &RunningError{dir, pid}
	}
	return lock, err
}
