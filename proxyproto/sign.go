package proxyproto

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"
)

// A signature is the last value of a header of version 2:
//
//	0       1               9          41
//	version | time, ms UTC | HMAC-SHA256
//
// The HMAC is over a fixed prefix and every byte of the header before it: the
// tuple, the values in front and the time. A header that was copied from another
// connection fits no other tuple, source port included, and not for long.
//
// History of the format: 1 is the first.
const (
	signatureVersion = 1
	signatureSize    = 1 + 8 + sha256.Size
	signaturePrefix  = "vecino PROXY signature\x00"
)

// AppendSigned appends a header of version 2 that carries, behind the values
// given, a signature made with key at a time. A checksum among the values would
// not be right, for it can't know the signature.
func AppendSigned(dst []byte, source, destination netip.AddrPort, tlvs, key []byte, now time.Time) []byte {
	var value [signatureSize]byte
	value[0] = signatureVersion
	binary.BigEndian.PutUint64(value[1:], uint64(now.UnixMilli()))
	at := len(dst)
	all := append(make([]byte, 0, len(tlvs)+3+signatureSize), tlvs...)
	dst = AppendV2(dst, source, destination, AppendTLV(all, TypeSignature, value[:]))
	header := dst[at:]
	if len(header) < fixedV2+addrsV2 { // of no family that could be signed
		return dst
	}
	copy(header[len(header)-sha256.Size:], sign(header[:len(header)-sha256.Size], key))
	return dst
}

// Verify checks the signature at the end of a header, given as the n bytes that
// Parse found it in, and that it was made within skew of now, before or after.
// The error is ErrUnsigned, ErrSignature or ErrStale.
func Verify(header, key []byte, now time.Time, skew time.Duration) error {
	h, n, err := Parse(header)
	if err != nil || n != len(header) || h.Version != 2 {
		return ErrUnsigned
	}
	var value []byte
	for tlvs := h.TLVs; len(tlvs) > 0; {
		var typ byte
		typ, value, tlvs, _ = NextTLV(tlvs)
		if typ != TypeSignature || len(tlvs) > 0 { // only the last one counts
			value = nil
		}
	}
	if len(value) != signatureSize || value[0] != signatureVersion {
		return ErrUnsigned
	}
	if !hmac.Equal(value[9:], sign(header[:n-sha256.Size], key)) {
		return ErrSignature
	}
	age := now.Sub(time.UnixMilli(int64(binary.BigEndian.Uint64(value[1:]))))
	if age > skew || age < -skew {
		return ErrStale
	}
	return nil
}

func sign(header, key []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(signaturePrefix))
	mac.Write(header)
	return mac.Sum(nil)
}
