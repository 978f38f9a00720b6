package value

import (
	"encoding/binary"
	"math"
)

// intset is a sorted sequence of distinct integers in one slice, each as wide
// as the widest so far needs: 2, 4 or 8 bytes, little-endian. It never gets
// narrower. It is read as this; Set changes it (set.go).
type intset struct {
	data  []byte
	width uint8
}

func widthOf(v int64) uint8 {
	switch {
	case v >= math.MinInt16 && v <= math.MaxInt16:
		return 2
	case v >= math.MinInt32 && v <= math.MaxInt32:
		return 4
	}
	return 8
}

func (s intset) len() int { return len(s.data) / int(s.width) }

func (s intset) at(i int) int64 {
	switch b := s.data[i*int(s.width):]; s.width {
	case 2:
		return int64(int16(binary.LittleEndian.Uint16(b)))
	case 4:
		return int64(int32(binary.LittleEndian.Uint32(b)))
	default:
		return int64(binary.LittleEndian.Uint64(b))
	}
}

func (s intset) setAt(i int, v int64) {
	switch b := s.data[i*int(s.width):]; s.width {
	case 2:
		binary.LittleEndian.PutUint16(b, uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(b, uint32(v))
	default:
		binary.LittleEndian.PutUint64(b, uint64(v))
	}
}

// search returns where v is or belongs.
func (s intset) search(v int64) (i int, found bool) {
	low, high := 0, s.len()
	for low < high {
		mid := (low + high) / 2
		if s.at(mid) < v {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low, low < s.len() && s.at(low) == v
}

// asInt reads b if it is a 64-bit integer written the one way that
// strconv.FormatInt writes it, so that the integer can stand for the bytes.
func asInt(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	digits := b
	negative := b[0] == '-'
	if negative {
		digits = b[1:]
	}
	if len(digits) == 0 || (digits[0] == '0' && len(b) > 1) {
		return 0, false
	}
	v := uint64(0)
	for _, c := range digits {
		c -= '0'
		if c > 9 || v > (math.MaxUint64-9)/10 {
			return 0, false
		}
		v = v*10 + uint64(c)
	}
	if negative {
		return -int64(v), v <= 1<<63
	}
	return int64(v), v <= math.MaxInt64
}
