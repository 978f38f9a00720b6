package node

import (
	"encoding/binary"
	"encoding/hex"

	"vecino/catalog"
	"vecino/region"
)

// packed is a record of the catalog without its ID, in as few bytes as it takes: some
// 90, where as a struct with its strings it takes 400. It stays in memory only.
//
//	revision | name | address | password | 1 if it is evicted from | seed 8 | epoch | made
//	  | plan, limits, policy, durability: which of those there are
//	  | number of copies | for each: region, node, role, state: which; generation
//
// Numbers are varints, and strings have their length in front. A password is hex of a
// hash as a rule, and packed as the hash.
type packed string

// packer packs records. What many have in common, plans and their limits, nodes,
// regions, it keeps once.
type packer struct {
	words  table[string]
	limits table[catalog.Limits]
	buf    []byte
}

func newPacker() packer {
	return packer{words: newTable[string](), limits: newTable[catalog.Limits]()}
}

// table numbers values that occur often. It only grows: there are as many as plans,
// nodes and regions.
type table[T comparable] struct {
	values []T
	of     map[T]uint64
}

func newTable[T comparable]() table[T] { return table[T]{of: make(map[T]uint64)} }

func (t *table[T]) number(v T) uint64 {
	n, ok := t.of[v]
	if !ok {
		n = uint64(len(t.values))
		t.values = append(t.values, v)
		t.of[v] = n
	}
	return n
}

const (
	passwordPlain = iota // as it is
	passwordHash         // in binary
)

func (p *packer) pack(d *catalog.Database) packed {
	b := binary.AppendVarint(p.buf[:0], d.Revision)
	num := func(n uint64) { b = binary.AppendUvarint(b, n) }
	str := func(s string) {
		num(uint64(len(s)))
		b = append(b, s...)
	}
	str(d.Name)
	address, _ := d.Address.MarshalBinary() // never fails
	str(string(address))
	hash, err := hex.DecodeString(d.Password)
	if err == nil && hex.EncodeToString(hash) == d.Password {
		num(passwordHash)
		str(string(hash))
	} else {
		num(passwordPlain)
		str(d.Password)
	}
	evicts := uint64(0)
	if d.Eviction {
		evicts = 1
	}
	num(evicts)
	b = binary.LittleEndian.AppendUint64(b, d.HashSeed)
	num(uint64(d.Epoch))
	num(d.Made)
	num(p.words.number(d.Plan))
	num(p.limits.number(d.Limits))
	num(p.words.number(d.Policy))
	num(p.words.number(string(d.Durability)))
	num(uint64(len(d.Copies)))
	for _, c := range d.Copies {
		for _, w := range []string{string(c.Region), c.Node, string(c.Role), string(c.State)} {
			num(p.words.number(w))
		}
		num(c.Generation)
	}
	p.buf = b
	return packed(b)
}

// revision is that of the record.
func (r packed) revision() int64 {
	n, _ := binary.Varint([]byte(r[:min(len(r), binary.MaxVarintLen64)]))
	return n
}

// unpack makes the record again.
func (p *packer) unpack(id catalog.ID, r packed) *catalog.Database {
	b := append(p.buf[:0], r...)
	p.buf = b
	revision, n := binary.Varint(b)
	b = b[n:]
	num := func() uint64 {
		v, n := binary.Uvarint(b)
		b = b[n:]
		return v
	}
	str := func() []byte {
		n := num()
		s := b[:n]
		b = b[n:]
		return s
	}
	d := &catalog.Database{ID: id, Revision: revision, Name: string(str())}
	d.Address.UnmarshalBinary(str())
	if num() == passwordHash {
		d.Password = hex.EncodeToString(str())
	} else {
		d.Password = string(str())
	}
	d.Eviction = num() == 1
	d.HashSeed = binary.LittleEndian.Uint64(b)
	b = b[8:]
	d.Epoch, d.Made = uint32(num()), num()
	word := func() string { return p.words.values[num()] }
	d.Plan = word()
	d.Limits = p.limits.values[num()]
	d.Policy, d.Durability = word(), catalog.Durability(word())
	if n := num(); n > 0 {
		d.Copies = make([]catalog.Copy, n)
	}
	for i := range d.Copies {
		d.Copies[i] = catalog.Copy{Region: region.Code(word()), Node: word(), Role: catalog.Role(word()), State: catalog.State(word()), Generation: num()}
	}
	return d
}
