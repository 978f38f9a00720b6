package keyspace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Effects are encoded one behind the other:
//
//	op (1) | key: length (varint), bytes | operands of the op
//
// An op with the bit sameKey set has no key: it is about the key of the op
// before it. The logical database is 0 until an opSelect says otherwise.
// Strings are a varint length and the bytes, integers are varints, deadlines
// are milliseconds since 1970 with 0 for none, scores are 8 bytes IEEE 754,
// little-endian. Whoever carries effects (journal, link) has a version; an op
// once given out never changes its meaning.
const (
	opSelect     = 1  // db
	opStrSet     = 2  // key, deadline, value: a string, whatever was there before
	opStrPatch   = 3  // key, offset, bytes: a string changed in place, padded with zeroes
	opDel        = 4  // key, reason
	opExpire     = 5  // key, deadline
	opHashSet    = 6  // key, field, value
	opHashDel    = 7  // key, field
	opSetAdd     = 8  // key, member
	opSetDel     = 9  // key, member
	opZSetSet    = 10 // key, score, member
	opZSetDel    = 11 // key, member
	opListPush   = 12 // key, side, value
	opListPop    = 13 // key, side, count
	opListSet    = 14 // key, index, value
	opListInsert = 15 // key, index, value
	opListRemove = 16 // key, index
	opListTrim   = 17 // key, start, stop
	opRestore    = 18 // key, deadline, kind and flags, dump: a whole value, as in a snapshot
	opFlush      = 19 // db, or allDatabases
	opListErase  = 20 // key, count, value: as LREM has them

	sameKey      = 0x80
	allDatabases = 255
)

// reason says why a key was deleted.
type reason byte

const (
	byCommand reason = iota
	byExpiry
	byEviction
)

// emit writes an op and its key.
func (tx *Tx) emit(op byte, key []byte) {
	if tx.recorded != tx.db {
		tx.effects = append(tx.effects, opSelect, byte(tx.db))
		tx.recorded = tx.db
		tx.lastKey = span{}
	}
	last := tx.effects[tx.lastKey.from:tx.lastKey.to]
	if len(last) > 0 && string(last) == string(key) {
		tx.effects = append(tx.effects, op|sameKey)
		return
	}
	tx.effects = append(tx.effects, op)
	tx.effects = binary.AppendUvarint(tx.effects, uint64(len(key)))
	from := len(tx.effects)
	tx.effects = append(tx.effects, key...)
	tx.lastKey = span{from, len(tx.effects)}
}

type span struct{ from, to int }

func (tx *Tx) emitBytes(b []byte) {
	tx.effects = binary.AppendUvarint(tx.effects, uint64(len(b)))
	tx.effects = append(tx.effects, b...)
}

func (tx *Tx) emitInt(n int64) {
	tx.effects = binary.AppendUvarint(tx.effects, uint64(n))
}

func (tx *Tx) emitScore(f float64) {
	tx.effects = binary.LittleEndian.AppendUint64(tx.effects, math.Float64bits(f))
}

// errEffect is a sequence of effects that can't be read.
var errEffect = errors.New("damaged effect")

// effectReader takes effects apart. It latches its first error.
type effectReader struct {
	b   []byte
	key []byte
	db  int
	err error
}

func (r *effectReader) op() (op byte) {
	if len(r.b) == 0 || r.err != nil {
		return 0
	}
	op = r.b[0]
	r.b = r.b[1:]
	switch {
	case op == opSelect || op == opFlush:
	case op&sameKey != 0:
		op &^= sameKey
		if r.key == nil {
			r.fail("no key before it")
		}
	default:
		r.key = r.bytes()
		if r.key == nil {
			r.key = []byte{}
		}
	}
	return op
}

func (r *effectReader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errEffect, what)
	}
	r.b = nil
}

func (r *effectReader) int() int64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail("integer cut short")
		return 0
	}
	r.b = r.b[size:]
	return int64(n)
}

func (r *effectReader) byte() byte {
	if len(r.b) == 0 {
		r.fail("byte missing")
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *effectReader) bytes() []byte {
	n := r.int()
	if n < 0 || n > int64(len(r.b)) {
		r.fail("string cut short")
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *effectReader) score() float64 {
	if len(r.b) < 8 {
		r.fail("score cut short")
		return 0
	}
	f := math.Float64frombits(binary.LittleEndian.Uint64(r.b))
	r.b = r.b[8:]
	if f != f {
		r.fail("score is not a number")
	}
	return f
}
