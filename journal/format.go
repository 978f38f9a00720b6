package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"vecino/internal/invariant"
)

const (
	magic       = "VECINOJ\n"
	recordAt    = 512  // where the begin record is in a segment
	headerBytes = 4096 // header and begin record; frames follow
	frameHead   = 16
	frameAlign  = 8
	noClaim     = 1<<32 - 1 // a frame's lag that claims nothing

	segmentSuffix = ".seg"
	freePrefix    = "free-"
	tempName      = "new.tmp"
)

func segmentName(number uint64) string {
	return fmt.Sprintf("%016d%s", number, segmentSuffix)
}

func freeName(number uint64) string { return freePrefix + segmentName(number) }

// segmentNumber is the inverse of segmentName.
func segmentNumber(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil
}

// appendHeader appends a segment's first sector.
func appendHeader(dst []byte, number, serial uint64) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, recordAt)...)
	h := dst[at:]
	copy(h, magic)
	binary.LittleEndian.PutUint32(h[8:], Version)
	binary.LittleEndian.PutUint64(h[16:], number)
	binary.LittleEndian.PutUint64(h[24:], serial)
	binary.LittleEndian.PutUint32(h[recordAt-4:], crc32.Checksum(h[:recordAt-4], castagnoli))
	return dst
}

// parseHeader reads a segment's first sector. All versions must keep magic,
// version and check sum where they are, so that they can tell each other.
func parseHeader(h []byte) (version uint32, number, serial uint64, err error) {
	if string(h[:8]) != magic {
		return 0, 0, 0, fmt.Errorf("%w: the segment header has no magic", ErrCorrupt)
	}
	if crc32.Checksum(h[:recordAt-4], castagnoli) != binary.LittleEndian.Uint32(h[recordAt-4:]) {
		return 0, 0, 0, fmt.Errorf("%w: the segment header has a wrong check sum", ErrCorrupt)
	}
	version = binary.LittleEndian.Uint32(h[8:])
	if version < oldestVersion || version > Version {
		return 0, 0, 0, fmt.Errorf("%w: segment version %d, this program knows %d to %d: start a program that knows it, such as the one that wrote it", ErrVersion, version, oldestVersion, Version)
	}
	return version, binary.LittleEndian.Uint64(h[16:]), binary.LittleEndian.Uint64(h[24:]), nil
}

// A beginRecord says where in the journal a segment begins.
type beginRecord struct {
	start   Offset
	prevEnd Offset
	synced  Offset
	timeMS  int64
	follows uint64 // the number of the segment that prevEnd lies in
}

func appendRecord(dst []byte, serial uint64, r beginRecord) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, headerBytes-recordAt)...)
	b := dst[at:]
	binary.LittleEndian.PutUint64(b[0:], uint64(r.start))
	binary.LittleEndian.PutUint64(b[8:], uint64(r.prevEnd))
	binary.LittleEndian.PutUint64(b[16:], uint64(r.synced))
	binary.LittleEndian.PutUint64(b[24:], uint64(r.timeMS))
	binary.LittleEndian.PutUint64(b[32:], r.follows)
	binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.Update(seed(serial, recordAt), castagnoli, b[:len(b)-4]))
	return dst
}

// parseRecord reads a begin record; not ok is a segment that has not begun.
func parseRecord(b []byte, serial uint64) (r beginRecord, ok bool) {
	b = b[:headerBytes-recordAt]
	if crc32.Update(seed(serial, recordAt), castagnoli, b[:len(b)-4]) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return beginRecord{}, false
	}
	r.start = Offset(binary.LittleEndian.Uint64(b[0:]))
	r.prevEnd = Offset(binary.LittleEndian.Uint64(b[8:]))
	r.synced = Offset(binary.LittleEndian.Uint64(b[16:]))
	r.timeMS = int64(binary.LittleEndian.Uint64(b[24:]))
	r.follows = binary.LittleEndian.Uint64(b[32:])
	return r, r.prevEnd <= r.start
}

// sealFrame fills in the head of a frame that lies in b, padding included, with
// a body of length bytes, and will be at pos in its file.
func sealFrame(b []byte, length int, lag uint64, serial uint64, pos int64) {
	binary.LittleEndian.PutUint32(b[0:], uint32(length))
	binary.LittleEndian.PutUint32(b[4:], uint32(min(lag, noClaim)))
	binary.LittleEndian.PutUint32(b[8:], sumHeads(b[frameHead:][:length]))
	binary.LittleEndian.PutUint32(b[12:], crc32.Update(seed(serial, pos), castagnoli, b[:12]))
}

// sumHeads is the check sum of a frame's body: of the first bytes of its
// entries, which have check sums of their own for the rest. So each byte is
// summed up once. The body must be whole entries.
func sumHeads(body []byte) (sum uint32) {
	var heads [64 * entryHead]byte // a call for each would take longer than the sum
	gathered := 0
	for len(body) > 0 {
		n, err := EntryLen(body)
		if err != nil || n > len(body) {
			invariant.That(false, "journal: what was appended is no entry: %v", err)
		}
		if gathered == len(heads) {
			sum = crc32.Update(sum, castagnoli, heads[:])
			gathered = 0
		}
		gathered += copy(heads[gathered:], body[:entryHead])
		body = body[n:]
	}
	return crc32.Update(sum, castagnoli, heads[:gathered])
}

// bodyRight checks a frame's body, padding included, of a segment of that
// version: after it, the entries needn't be checked again.
func (f frameInfo) bodyRight(b []byte, version uint32) bool {
	if version == 1 {
		return crc32.Checksum(b, castagnoli) == f.sum
	}
	for _, p := range b[f.length:] {
		if p != 0 {
			return false
		}
	}
	sum := uint32(0)
	for rest := b[:f.length]; len(rest) > 0; {
		n, err := EntryLen(rest)
		if err != nil || n > len(rest) || !entrySumRight(rest[:n]) {
			return false
		}
		sum = crc32.Update(sum, castagnoli, rest[:entryHead])
		rest = rest[n:]
	}
	return sum == f.sum
}

// frameInfo is what a frame's head says.
type frameInfo struct {
	length int
	lag    uint32
	sum    uint32 // of the body
}

// size is the number of bytes from this frame to the next.
func (f frameInfo) size() int64 { return int64(frameHead + padded(f.length)) }

// parseFrameHead reads a frame's first 16 bytes; room is the number of bytes
// that the file has from there.
func parseFrameHead(b []byte, serial uint64, pos, room int64) (f frameInfo, ok bool) {
	length := binary.LittleEndian.Uint32(b)
	if int64(length)+frameHead > room {
		return f, false
	}
	if crc32.Update(seed(serial, pos), castagnoli, b[:12]) != binary.LittleEndian.Uint32(b[12:]) {
		return f, false
	}
	return frameInfo{int(length), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])}, true
}

func padded(n int) int { return (n + frameAlign - 1) &^ (frameAlign - 1) }

// seed starts a check sum that is right only in one place of one life of one
// file.
func seed(serial uint64, pos int64) uint32 {
	s := fold(serial^k0, uint64(pos)^k1)
	return uint32(s ^ s>>32)
}
