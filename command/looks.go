package command

import (
	"vecino/keyspace"
	"vecino/resp"
	"vecino/value"
)

// What commands look at of big collections, for their rows: of one that lies on disk no
// more is read than that. It may be too much, never too little; a command whose words are
// wrong fails whatever is said here.

// element is the field or member that is the word at i.
func element(i int) func(*keyspace.Part, [][]byte) {
	return func(p *keyspace.Part, argv [][]byte) {
		if i < len(argv) {
			p.Elements = append(p.Elements, argv[i])
		}
	}
}

// elements are the words from the last one backwards, in steps, to the one at first.
func elements(first, step int) func(*keyspace.Part, [][]byte) {
	return func(p *keyspace.Part, argv [][]byte) {
		from := len(argv) - 1
		if step == 2 && first == 2 { // pairs of a field and its value
			from--
		}
		for i := from; i >= first; i -= step {
			p.Elements = append(p.Elements, argv[i])
		}
	}
}

// onlyLength is for what asks how long a collection is.
func onlyLength(p *keyspace.Part, _ [][]byte) { p.Length = true }

var (
	front = looksAt(keyspace.AtEnd(keyspace.Front, 1))
	back  = looksAt(keyspace.AtEnd(keyspace.Back, 1))

	// ends is for what takes an element from an end of a list, and then puts one to an
	// end, perhaps of the same list.
	ends = looksAt(keyspace.AtEnd(keyspace.Front, 2), keyspace.AtEnd(keyspace.Back, 2))
)

// looksAt is always the same elements of a list.
func looksAt(spans ...value.Span) func(*keyspace.Part, [][]byte) {
	return func(p *keyspace.Part, _ [][]byte) { p.Spans = append(p.Spans, spans...) }
}

// counted is as many elements from an end as the word behind the key says.
func counted(end keyspace.End) func(*keyspace.Part, [][]byte) {
	return func(p *keyspace.Part, argv [][]byte) {
		n := int64(1)
		if len(argv) > 2 {
			n, _ = resp.ParseInt(argv[2])
		}
		p.Spans = append(p.Spans, keyspace.AtEnd(end, n))
	}
}

// at is the elements at the indexes that are the words behind the key, so many, and their
// neighbours.
func at(indexes int) func(*keyspace.Part, [][]byte) {
	return func(p *keyspace.Part, argv [][]byte) {
		for i := 2; i < 2+indexes && i < len(argv); i++ {
			n, ok := resp.ParseInt(argv[i])
			if !ok {
				return
			}
			p.Spans = append(p.Spans, keyspace.Around(n))
		}
	}
}

// between is the elements between the indexes that are the words behind the key.
func between(p *keyspace.Part, argv [][]byte) {
	if len(argv) < 4 {
		return
	}
	from, ok1 := resp.ParseInt(argv[2])
	to, ok2 := resp.ParseInt(argv[3])
	if ok1 && ok2 {
		p.Spans = append(p.Spans, value.Span{From: from, To: to})
	}
}
