package command

import (
	"math"

	"vecino/resp"
)

// Sample is how many random elements SRANDMEMBER, HRANDFIELD and ZRANDMEMBER
// are asked for.
type Sample struct {
	Many  bool  // a count was given, so the reply is an array
	Count int64 // negative: so many, and the same one may come again
	Pairs bool  // with what belongs to each: its value or score
}

// Sample reads a count, if there is one, and behind it the word that asks for
// pairs; a command that doesn't know pairs gives no word.
func (a *Args) Sample(pairs string) (s Sample) {
	if !a.More() {
		return s
	}
	if pairs == "" && a.Left() > 1 {
		a.Fail(ErrSyntax)
	}
	s.Many = true
	s.Count = a.SignedCount()
	s.Pairs = pairs != "" && a.Option(pairs)
	if a.More() {
		a.Fail(ErrSyntax)
	}
	if s.Pairs && (s.Count < -math.MaxInt64/2 || s.Count > math.MaxInt64/2) {
		a.Fail(ErrPairsRange)
	}
	return s
}

// longestSample bounds the reply to a negative count, which may ask for more
// than there is memory in the world.
const longestSample = 64 << 20

// reply writes the array of elements from a collection of n: any writes one
// chosen at random, some writes so many distinct ones.
func (s *Sample) reply(out *resp.Writer, n int, any func(), some func(n int)) error {
	if n == 0 || s.Count == 0 {
		out.Array(0)
		return nil
	}
	if s.Count > 0 {
		count := int(min(s.Count, int64(n)))
		s.array(out, count)
		some(count)
		return nil
	}
	start := len(out.Buf)
	s.array(out, int(-s.Count))
	for range -s.Count {
		if any(); len(out.Buf)-start > longestSample {
			return ErrReplyTooLong
		}
	}
	return nil
}

// array starts the array of count elements. Pairs are arrays of two in
// version 3 of the protocol, and follow each other in version 2.
func (s *Sample) array(out *resp.Writer, count int) {
	if s.Pairs && out.Proto < 3 {
		count *= 2
	}
	out.Array(count)
}

// pair starts one element.
func (s *Sample) pair(out *resp.Writer) {
	if s.Pairs && out.Proto >= 3 {
		out.Array(2)
	}
}
