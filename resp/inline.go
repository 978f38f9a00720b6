package resp

import "bytes"

// inline finds a command that is a line of words, ended by a line feed with
// or without a carriage return before it.
func (p *Parser) inline(buf []byte, argv [][]byte) ([][]byte, int, error) {
	end := bytes.IndexByte(buf[p.scanned:], '\n')
	whole := end >= 0
	if whole {
		end += p.scanned
	} else {
		end = len(buf)
		p.scanned = end
	}
	if end > limit(p.MaxInline, DefaultMaxInline) {
		return argv, 0, errInlineTooBig
	}
	if !whole {
		return argv, 0, nil
	}
	p.Reset()
	line := buf[:end]
	if end > 0 && line[end-1] == '\r' {
		line = line[:end-1]
	}
	argv, ok := SplitWords(line, argv)
	if !ok {
		return argv, 0, errQuotes
	}
	return argv, end + 1, nil
}

// SplitWords appends the words of a line to argv, as Redis splits an inline
// command and redis-cli what a person types. Words are parted by white space.
// Within "double quotes" the escapes \n \r \t \b \a \xHH and backslash with
// any other byte are known, within 'single quotes' only \'. After a closing
// quote the word must end. It returns false when the quotes don't match.
// A word with quotes is a copy, any other aliases line.
func SplitWords(line []byte, argv [][]byte) ([][]byte, bool) {
	i := 0
	for {
		for i < len(line) && isSpace(line[i]) {
			i++
		}
		if i == len(line) {
			return argv, true
		}
		start := i
		for i < len(line) && !endsWord(line[i]) && line[i] != '"' && line[i] != '\'' {
			i++
		}
		if i == len(line) || endsWord(line[i]) {
			argv = append(argv, line[start:i:i])
			continue
		}
		word, next, ok := quotedWord(line, i, append([]byte{}, line[start:i]...))
		if !ok {
			return argv, false
		}
		argv = append(argv, word)
		i = next
	}
}

// quotedWord goes on with a word from the quote at line[i].
func quotedWord(line []byte, i int, word []byte) (_ []byte, next int, ok bool) {
	quote := line[i]
	for i++; i < len(line); i++ {
		c := line[i]
		switch {
		case c == quote:
			i++
			return word, i, i == len(line) || isSpace(line[i])
		case c != '\\' || i+1 == len(line):
			word = append(word, c)
		case quote == '\'':
			if line[i+1] == '\'' {
				i++
			}
			word = append(word, line[i])
		case line[i+1] == 'x' && i+3 < len(line) && isHex(line[i+2]) && isHex(line[i+3]):
			word = append(word, unhex(line[i+2])<<4|unhex(line[i+3]))
			i += 3
		default:
			i++
			word = append(word, unescape(line[i]))
		}
	}
	return nil, i, false
}

func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	case 'a':
		return '\a'
	}
	return c
}

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// endsWord is narrower than isSpace: \v and \f part words only where one
// could start, which is how Redis has it.
func endsWord(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	}
	return c - 'A' + 10
}
