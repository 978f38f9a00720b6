package link

import (
	"encoding/binary"
	"errors"
	"fmt"

	"vecino/catalog"
)

// A frame on the wire, version 1, numbers little-endian:
//
//	 0      1       2        4               12
//	+------+-------+--------+---------------+------------------+
//	| kind | flags | length | database      | length bytes ... |
//	+------+-------+--------+---------------+------------------+
//
// A frame that is longer than a chunk is cut in several, which may have
// frames of other databases between them but none of the same database. All
// but the last have flagMore, all but the first flagContinues, and the first
// begins with the length of the whole in four bytes.
//
// A control frame (flagControl) belongs to the lane itself. Its kind is ping
// or pong and its eight bytes are the time on the clock of who pinged.
//
// flagZstd is kept for compressed catch-up and snapshot frames. Version 1
// neither sends nor takes it.
const (
	headerSize = 12
	maxWire    = 1 << 16 // a header and its payload; larger never has to be read at once
	wholeSize  = 4       // the length of the whole, ahead of the first chunk

	flagMore      = 1 << 0
	flagContinues = 1 << 1
	flagControl   = 1 << 2
	flagZstd      = 1 << 3

	ping        = 1
	pong        = 2
	controlSize = headerSize + 8
)

// MaxFrame is the longest payload: the largest value Redis knows, and room
// for what travels with it.
const MaxFrame = 512<<20 + 16<<20

// maxAssembling bounds what all unfinished frames of one lane may come to.
const maxAssembling = int64(4) * MaxFrame

// ErrFrameTooLarge says that a payload is longer than MaxFrame.
var ErrFrameTooLarge = errors.New("frame too large")

// errWire is the cause when the peer sent what is not a frame.
var errWire = errors.New("malformed frame")

// A Frame is one message about one database. Kinds are the caller's, and so is
// the meaning of DB: zero is a queue like any other.
type Frame struct {
	Kind    uint8
	DB      catalog.ID
	Payload []byte
}

func appendHeader(dst []byte, kind, flags uint8, length int, db catalog.ID) []byte {
	dst = append(dst, kind, flags, byte(length), byte(length>>8))
	return binary.LittleEndian.AppendUint64(dst, uint64(db))
}

func appendControl(dst []byte, kind uint8, t int64) []byte {
	dst = appendHeader(dst, kind, flagControl, 8, 0)
	return binary.LittleEndian.AppendUint64(dst, uint64(t))
}

// event is what an assembler found at the head of its input.
type event uint8

const (
	incomplete event = iota // not a whole wire frame yet: call again with more
	kept                    // a chunk of a frame that isn't finished
	whole                   // a frame for the handler
	control                 // a ping or a pong; its time is in DB
)

// An assembler turns the bytes of a lane into frames. Payloads that come in
// one piece are slices of the input; only chunked ones are copied.
type assembler struct {
	partial   map[catalog.ID]*partialFrame
	announced int64 // sum of the announced lengths in partial
	spare     []byte
	delivered []byte // the copied payload that the last call returned
}

type partialFrame struct {
	kind  uint8
	total int
	buf   []byte
}

// keepSpare is the largest buffer an assembler keeps for the next chunked frame.
const keepSpare = 1 << 20

// next looks at the wire frame at the head of b and tells how many bytes it
// took. The frame's payload is valid until the next call and while b is.
func (a *assembler) next(b []byte) (f Frame, what event, n int, err error) {
	if a.delivered != nil {
		if cap(a.delivered) <= keepSpare {
			a.spare = a.delivered[:0]
		}
		a.delivered = nil
	}
	if len(b) < headerSize {
		return f, incomplete, 0, nil
	}
	flags, length := b[1], int(b[2])|int(b[3])<<8
	if length > maxWire-headerSize {
		return f, 0, 0, fmt.Errorf("%w: %d bytes in one chunk", errWire, length)
	}
	f.Kind, f.DB = b[0], catalog.ID(binary.LittleEndian.Uint64(b[4:]))
	n = headerSize + length
	if len(b) < n {
		return f, incomplete, 0, nil
	}
	f.Payload = b[headerSize:n:n]

	switch flags {
	case 0:
		if len(a.partial) > 0 && a.partial[f.DB] != nil {
			return f, 0, 0, fmt.Errorf("%w: a frame inside a chunked one", errWire)
		}
		return f, whole, n, nil

	case flagMore:
		return f, kept, n, a.begin(f)

	case flagMore | flagContinues:
		_, err := a.carryOn(f)
		return f, kept, n, err

	case flagContinues:
		p, err := a.carryOn(f)
		if err == nil && len(p.buf) != p.total {
			err = fmt.Errorf("%w: %d of %d bytes came", errWire, len(p.buf), p.total)
		}
		if err != nil {
			return f, 0, 0, err
		}
		delete(a.partial, f.DB)
		a.announced -= int64(p.total)
		a.delivered, f.Payload = p.buf, p.buf
		return f, whole, n, nil

	case flagControl:
		if length != 8 || f.Kind != ping && f.Kind != pong {
			return f, 0, 0, fmt.Errorf("%w: control kind %d with %d bytes", errWire, f.Kind, length)
		}
		f.DB = catalog.ID(binary.LittleEndian.Uint64(f.Payload))
		return f, control, n, nil
	}
	return f, 0, 0, fmt.Errorf("%w: flags %#x", errWire, flags)
}

// begin keeps the first chunk of a frame. Whatever length is announced, the
// buffer grows as bytes really come, to twice of them at most.
func (a *assembler) begin(f Frame) error {
	if len(f.Payload) < wholeSize {
		return fmt.Errorf("%w: first chunk of %d bytes", errWire, len(f.Payload))
	}
	total := int64(binary.LittleEndian.Uint32(f.Payload))
	if total > MaxFrame || a.announced+total > maxAssembling {
		return fmt.Errorf("%w: %d bytes announced", errWire, total)
	}
	if a.partial[f.DB] != nil {
		return fmt.Errorf("%w: a frame inside a chunked one", errWire)
	}
	p := &partialFrame{kind: f.Kind, total: int(total)}
	p.buf, a.spare = a.spare, nil
	if a.partial == nil {
		a.partial = make(map[catalog.ID]*partialFrame)
	}
	a.partial[f.DB] = p
	a.announced += total
	return p.add(f.Payload[wholeSize:])
}

func (a *assembler) carryOn(f Frame) (*partialFrame, error) {
	p := a.partial[f.DB]
	if p == nil || p.kind != f.Kind {
		return nil, fmt.Errorf("%w: a chunk that continues nothing", errWire)
	}
	return p, p.add(f.Payload)
}

func (p *partialFrame) add(b []byte) error {
	if len(p.buf)+len(b) > p.total {
		return fmt.Errorf("%w: more than the %d bytes announced", errWire, p.total)
	}
	if need := len(p.buf) + len(b); need > cap(p.buf) {
		grown := make([]byte, len(p.buf), min(p.total, 2*need))
		copy(grown, p.buf)
		p.buf = grown
	}
	p.buf = append(p.buf, b...)
	return nil
}
