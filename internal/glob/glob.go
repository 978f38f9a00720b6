// Package glob matches patterns of keys and channels as Redis does.
//
//   - any bytes, or none
//     ?      one byte
//     [a-c]  one of these bytes; [^a-c] any other; ranges may stand either way round
//     \x     the byte x
//
// An open bracket that is never closed reaches to the end of the pattern.
// Bytes are compared as they are: there are no letters here, only bytes.
package glob

// Match reports whether all of s matches pattern.
//
// It goes on with the last star whenever it is stuck: what an earlier star
// swallowed can't help, as the later one could have swallowed it as well. So
// the time is at most the product of the lengths, for any pattern.
func Match(pattern, s []byte) bool {
	p, i := 0, 0
	star, resume := -1, 0 // behind the last star, and where in s it was tried up to
	for {
		if p < len(pattern) && pattern[p] == '*' {
			for p < len(pattern) && pattern[p] == '*' {
				p++
			}
			if p == len(pattern) {
				return true
			}
			star, resume = p, i
			continue
		}
		if i == len(s) {
			return p == len(pattern)
		}
		if p < len(pattern) {
			if n, ok := one(pattern[p:], s[i]); ok {
				p += n
				i++
				continue
			}
		}
		if star < 0 {
			return false
		}
		resume++
		p, i = star, resume
	}
}

// one matches one byte with the element at the head of a pattern, which isn't
// a star, and tells how long the element is.
func one(pattern []byte, c byte) (n int, ok bool) {
	switch pattern[0] {
	case '?':
		return 1, true
	case '[':
		return class(pattern, c)
	case '\\':
		if len(pattern) >= 2 {
			return 2, pattern[1] == c
		}
	}
	return 1, pattern[0] == c
}

func class(pattern []byte, c byte) (n int, ok bool) {
	p := 1
	not := p < len(pattern) && pattern[p] == '^'
	if not {
		p++
	}
	for ; p < len(pattern) && pattern[p] != ']'; p++ {
		switch rest := pattern[p:]; {
		case rest[0] == '\\' && len(rest) >= 2:
			p++
			ok = ok || rest[1] == c
		case len(rest) >= 3 && rest[1] == '-':
			p += 2
			low, high := min(rest[0], rest[2]), max(rest[0], rest[2])
			ok = ok || low <= c && c <= high
		default:
			ok = ok || rest[0] == c
		}
	}
	return min(p+1, len(pattern)), ok != not
}
