package tier

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// A Key is the place of a record: a database, a logical database in it, the
// key's hash and the key.
type Key struct {
	DB    uint64
	Space uint8
	Hash  uint64
	Key   []byte
}

const (
	bodyPrefix = 'b'
	headPrefix = 'h'
	partPrefix = 'p'
	metaPrefix = 'm'
)

var sessionKey = []byte{'s'}

const (
	dbPart    = 1 + 8          // prefix and database
	placePart = dbPart + 1 + 8 // and space and hash
	tagBytes  = 8
	withBody  = 1
	noBody    = 0
	lastSpace = 255
)

func appendDB(dst []byte, prefix byte, db uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, prefix), db)
}

func appendKey(dst []byte, prefix byte, db uint64, space uint8, hash uint64, key []byte) []byte {
	dst = append(appendDB(dst, prefix, db), space)
	dst = binary.BigEndian.AppendUint64(dst, hash)
	return append(dst, key...)
}

// appendParts is what the keys of a record's parts begin with. The number follows.
func appendParts(dst []byte, db uint64, space uint8, hash uint64, key []byte) []byte {
	dst = append(appendDB(dst, partPrefix, db), space)
	dst = binary.BigEndian.AppendUint64(dst, hash)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(key)))
	return append(dst, key...)
}

// partsSpan is where the parts of a record are.
func partsSpan(db uint64, space uint8, hash uint64, key []byte) (start, end []byte) {
	start = appendParts(nil, db, space, hash, key)
	return start, append(bytes.Clone(start), 255, 255, 255, 255, 255, 255, 255, 255, 255)
}

// partNumber is the number in a part's key, which begins with start.
func partNumber(key, start []byte) (uint64, error) {
	if len(key) != len(start)+8 {
		return 0, &DamageError{"", fmt.Sprintf("the key of a part has %d bytes", len(key))}
	}
	return binary.BigEndian.Uint64(key[len(start):]), nil
}

// dbEnd is the first key behind those of a database under a prefix.
func dbEnd(prefix byte, db uint64) []byte {
	if db == ^uint64(0) {
		return []byte{prefix + 1}
	}
	return appendDB(nil, prefix, db+1)
}

// spaceSpan is the keys of one space of a database under a prefix.
func spaceSpan(prefix byte, db uint64, space uint8) (start, end []byte) {
	start = append(appendDB(nil, prefix, db), space)
	if space == lastSpace {
		return start, dbEnd(prefix, db)
	}
	return start, append(appendDB(nil, prefix, db), space+1)
}

// parseKey reads what appendKey wrote; key points into b.
func parseKey(b []byte) (prefix byte, db uint64, space uint8, hash uint64, key []byte, err error) {
	if len(b) < placePart || b[0] != headPrefix && b[0] != bodyPrefix {
		return 0, 0, 0, 0, nil, fmt.Errorf("a key of %d bytes that is neither a head's nor a body's", len(b))
	}
	return b[0], binary.BigEndian.Uint64(b[1:]), b[dbPart], binary.BigEndian.Uint64(b[dbPart+1:]), b[placePart:], nil
}

var errHead = errors.New("the value of a head can't be read")

// parseHead splits a head's value. tag is 0 when the record has no body.
func parseHead(v []byte) (tag uint64, head []byte, err error) {
	switch {
	case len(v) >= 1 && v[0] == noBody:
		return 0, v[1:], nil
	case len(v) >= 1+tagBytes && v[0] == withBody:
		return binary.BigEndian.Uint64(v[1:]), v[1+tagBytes:], nil
	}
	return 0, nil, errHead
}

// appendHead appends a head's value. tag is 0 when the record has no body.
func appendHead(dst []byte, tag uint64, head []byte) []byte {
	if tag == 0 {
		return append(append(dst, noBody), head...)
	}
	dst = binary.BigEndian.AppendUint64(append(dst, withBody), tag)
	return append(dst, head...)
}

func headLen(tag uint64, head []byte) int {
	if tag == 0 {
		return 1 + len(head)
	}
	return 1 + tagBytes + len(head)
}
