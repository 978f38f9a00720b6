package keyspace

import "errors"

// ErrTooLarge is returned when a value would become larger than the plan lets
// a record be. Its text is what the client is told.
var ErrTooLarge = errors.New("ERR max single record size exceeded")

// largeKeys is the keys whose records may be so large that one more command
// could make them too large. Nearly always there are none, and then nobody has
// to look a key up to find out whether it may grow. It is a hint: a key in it
// may have become small since, or be one of another logical database.
type largeKeys struct {
	limit int64 // of a record; 0: none
	from  int   // larger records are noted
	keys  map[string]struct{}
	any   bool // there are too many to be noted: any key may be
}

const (
	// largeFrom is where records begin to be noted that are loaded before the
	// limit is known.
	largeFrom = 16 << 20
	// mostLarge is how many are noted.
	mostLarge = 1024
)

// SetRecordLimit says how large a record may become, 0 for any size. Of
// records larger than half of it and smaller than 16 MiB that are there
// already, it hears when they are changed.
func (ks *Keyspace) SetRecordLimit(bytes int64) {
	ks.large.limit = bytes
	if bytes > 0 {
		ks.large.from = int(min(bytes/2, largeFrom))
	}
}

func (l *largeKeys) note(key []byte) {
	if _, noted := l.keys[string(key)]; noted || l.any {
		return
	}
	switch {
	case len(l.keys) >= mostLarge:
		l.keys, l.any = nil, true
	default:
		if l.keys == nil {
			l.keys = make(map[string]struct{})
		}
		l.keys[string(key)] = struct{}{}
	}
}

// MayGrow reports whether the record of a key may grow by so many bytes: the
// error is ErrTooLarge.
func (tx *Tx) MayGrow(key []byte, by int) error {
	l := &tx.ks.large
	if l.limit == 0 {
		return nil
	}
	if by <= l.from && !l.any {
		if len(l.keys) == 0 {
			return nil
		}
		if _, noted := l.keys[string(key)]; !noted {
			return nil
		}
	}
	size, _ := tx.Size(key)
	if size <= l.from {
		delete(l.keys, string(key))
	}
	return tx.Fits(size + by)
}

// Fits reports whether a record may have that size: the error is ErrTooLarge.
func (tx *Tx) Fits(size int) error {
	if limit := tx.ks.large.limit; limit > 0 && int64(size) > limit {
		return ErrTooLarge
	}
	return nil
}
