package command

import (
	"errors"
	"math/big"
	"strconv"
)

// INCRBYFLOAT and HINCRBYFLOAT add numbers of C's type long double, which has
// 64 bits for the digits where float64 has 53. That is seen in their replies:
// 0.1 added to 3.0 makes 3.1 there, not 3.1000000000000001. So the same width
// is used here.
const longDoubleBits = 64

// Exponents of two that a long double has; beyond is infinite or zero.
const (
	maxLongDoubleExp = 16384
	minLongDoubleExp = -16445
)

// LongDouble reads a number that may be infinite.
func (a *Args) LongDouble() *big.Float {
	arg := a.Next()
	if a.err != nil {
		return new(big.Float)
	}
	f, ok := parseLongDouble(arg)
	if !ok {
		a.Fail(ErrNotFloat)
		return new(big.Float)
	}
	return f
}

func parseLongDouble(b []byte) (*big.Float, bool) {
	near, err := parseFloat(b)
	if errors.Is(err, strconv.ErrSyntax) || near != near {
		return nil, false
	}
	f := new(big.Float).SetPrec(longDoubleBits)
	if err == nil && near-near != 0 { // it says inf
		return f.SetInf(near < 0), true
	}
	if _, _, err = f.Parse(string(b), 0); err != nil {
		return nil, false
	}
	if f.IsInf() || f.MantExp(nil) > maxLongDoubleExp || f.Sign() != 0 && f.MantExp(nil) < minLongDoubleExp {
		return nil, false
	}
	return f, f.Sign() != 0 || isZero(b)
}

// addLongDouble adds b to a. It reports false if the sum isn't finite.
func addLongDouble(a, b *big.Float) bool {
	if a.IsInf() || b.IsInf() {
		return false
	}
	a.Add(a, b)
	return a.MantExp(nil) <= maxLongDoubleExp
}

// appendLongDouble appends f with up to 17 decimals, no exponent and no
// zeroes at the end.
func appendLongDouble(dst []byte, f *big.Float) []byte {
	start := len(dst)
	dst = f.Append(dst, 'f', 17)
	for dst[len(dst)-1] == '0' {
		dst = dst[:len(dst)-1]
	}
	if dst[len(dst)-1] == '.' {
		dst = dst[:len(dst)-1]
	}
	if string(dst[start:]) == "-0" {
		dst = append(dst[:start], '0')
	}
	return dst
}
