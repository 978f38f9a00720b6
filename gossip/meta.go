package gossip

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hashicorp/memberlist"

	"vecino/region"
)

// meta is what a member says of itself. It travels with every word of its being
// alive, so it has to stay within 512 bytes: a version byte and JSON with short
// names. Fields may be added without a new version.
//
// History of the format: 1 is the first.
type meta struct {
	Kind     Kind        `json:"k"`
	Region   region.Code `json:"r"`
	Proxy    string      `json:"p,omitempty"`
	Load     float64     `json:"l,omitempty"`
	Healthy  bool        `json:"h,omitempty"`
	Draining bool        `json:"d,omitempty"`
}

const metaVersion = 1

// metaSpare is left free in a new member's meta for what numbers may grow by.
const metaSpare = 64

func (m *meta) encode() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode what we are: %w", err)
	}
	if len(b)+1+metaSpare > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("encode what we are: %d bytes are too many", len(b))
	}
	return append([]byte{metaVersion}, b...), nil
}

func (m *meta) decode(b []byte) error {
	if len(b) == 0 || b[0] != metaVersion {
		return errors.New("meta of another version")
	}
	if err := json.Unmarshal(b[1:], m); err != nil {
		return fmt.Errorf("decode meta: %w", err)
	}
	return nil
}
