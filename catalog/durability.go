package catalog

import (
	"fmt"
	"slices"
	"strings"
)

// Durability says when what a database has answered is on disk. Whatever it
// is, a write is in the kernel before its reply leaves, so the end of the process
// alone loses nothing.
type Durability string

const (
	// SyncNo leaves it to the system when a write reaches the disk, or to others
	// in the same journal. A power cut loses what hadn't.
	SyncNo Durability = "no"
	// SyncEverySec has it on disk a second later: a power cut loses that much.
	SyncEverySec Durability = "everysec"
	// SyncAlways has it on disk before the reply leaves.
	SyncAlways Durability = "always"
)

// Durabilities lists them, from least to most.
var Durabilities = []Durability{SyncNo, SyncEverySec, SyncAlways}

// ParseDurability reads one; the empty string is the default.
func ParseDurability(s string) (Durability, error) {
	if s == "" {
		return SyncEverySec, nil
	}
	d := Durability(strings.ToLower(s))
	if !slices.Contains(Durabilities, d) {
		return "", fmt.Errorf("durability %q not found; choose from: no, everysec, always", s)
	}
	return d, nil
}

// OrDefault is the durability that counts where none was said.
func (d Durability) OrDefault() Durability {
	if d == "" {
		return SyncEverySec
	}
	return d
}
