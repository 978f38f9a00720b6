package eviction

// A Pool holds the best candidates that were seen so far, at most 16. Samples
// alone would make a poor choice: the best of five keys is, on average, no
// better than any sixth of all. With the best of earlier samples kept, a
// choice is nearly as good as one among all keys.
//
// The pool owns copies of the keys: what it holds may be gone or have been
// used meanwhile, and whoever takes a candidate looks again.
type Pool struct {
	items [16]Candidate // the best last
	n     int
	hint  Candidate // the memory of the key last taken
}

// Candidate is a key that may be given up. The greater the score, the sooner.
type Candidate struct {
	DB    int
	Hash  uint64
	Key   []byte
	Score int64
}

// Len is the number of candidates.
func (p *Pool) Len() int { return p.n }

// Clear forgets all candidates: scores of one policy mean nothing to another.
func (p *Pool) Clear() { p.n = 0 }

// Takes reports whether a key of that score would come in.
func (p *Pool) Takes(score int64) bool {
	return p.n < len(p.items) || score > p.items[0].Score
}

// Offer shows the pool a key. It is copied if it is better than what is there,
// or there is room.
func (p *Pool) Offer(db int, hash uint64, key []byte, score int64) {
	for i := range p.items[:p.n] {
		if c := &p.items[i]; c.Hash == hash && c.DB == db && string(c.Key) == string(key) {
			c.Score = score
			p.settle(i)
			return
		}
	}
	at := p.n
	if p.n == len(p.items) {
		if !p.Takes(score) {
			return
		}
		at = 0
	} else {
		p.n++
	}
	c := &p.items[at]
	c.DB, c.Hash, c.Score = db, hash, score
	c.Key = append(c.Key[:0], key...)
	p.settle(at)
}

// settle moves the candidate at i to its place.
func (p *Pool) settle(i int) {
	for ; i > 0 && p.items[i-1].Score > p.items[i].Score; i-- {
		p.items[i-1], p.items[i] = p.items[i], p.items[i-1]
	}
	for ; i+1 < p.n && p.items[i+1].Score < p.items[i].Score; i++ {
		p.items[i+1], p.items[i] = p.items[i], p.items[i+1]
	}
}

// Take removes the best candidate. It is valid until the next call.
func (p *Pool) Take() (c *Candidate, found bool) {
	if p.n == 0 {
		return nil, false
	}
	p.n--
	p.items[p.n], p.hint = p.hint, p.items[p.n]
	return &p.hint, true
}
