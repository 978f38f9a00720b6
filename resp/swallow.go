package resp

// A request that is longer than Parser.MaxRequest is let go as it comes, from
// the length line on that said so. The connection can then go on with what
// comes behind it, and nobody has kept it.
//
//	*3 $3 SET $1 k $99999999 .......... *1 $4 PING
//	└─ gathered ──┘└── payload ───────┘
//	                  swallowed

// refuse begins to swallow the request at the head of buf, at the bulk string
// that makes it too long.
func (p *Parser) refuse(buf []byte, argv [][]byte) ([][]byte, int, error) {
	head, payload, args := p.pos, p.bulk-1+2, p.args
	p.Reset()
	p.swallowed, p.payload, p.args = int64(head), payload, args
	argv, n, err := p.swallow(buf[head:], argv)
	return argv, head + n, err
}

// swallow lets go what there is of a request. It returns n == 0 when the
// length line at the head of buf isn't all there.
func (p *Parser) swallow(buf []byte, argv [][]byte) (_ [][]byte, n int, err error) {
	for p.args > 0 {
		if p.payload == 0 {
			line, next, err := p.line(buf, n, errBulkCountTooBig)
			if err != nil {
				return argv, 0, err
			}
			if next == 0 {
				break
			}
			length, err := p.bulkLength(line, buf[n])
			if err != nil {
				return argv, 0, err
			}
			n, p.payload = next, length+2
		}
		part := min(p.payload, len(buf)-n)
		n += part
		if p.payload -= part; p.payload > 0 {
			break
		}
		p.args--
	}
	p.scanned = 0 // of the bytes that are offered next
	p.swallowed += int64(n)
	if p.args == 0 {
		p.refused = p.swallowed
		p.Reset()
	}
	return argv, n, nil
}

// Swallowed is how much has been let go of a request that is too long and
// hasn't come to its end, 0 when there is none.
func (p *Parser) Swallowed() int64 { return p.swallowed }

// Refused is the length of the request that was too long and of which the
// last call of Next returned the last piece. It tells once, else 0.
func (p *Parser) Refused() int64 {
	n := p.refused
	p.refused = 0
	return n
}
