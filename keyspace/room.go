package keyspace

import (
	"errors"

	"vecino/slab"
)

// Memory for records can run out: the system gives no more, or slab.Limit
// doesn't. What a Tx has done can't be undone, so it is found out before a change
// begins. slab keeps a reserve on which every change may draw that is small; who
// begins a change asks whether the reserve is there, and has memory prepared for
// one that isn't small. So a change that has begun goes to its end:
//
//	a command       Tx.MayTake, for what it carries; PatchString, Copy and Rename
//	                for the values that they move
//	an entry        Apply, before each op
//	what is read    Load, LoadHead and Restore, for each key
//
// Whatever makes nothing larger needs no memory.

// ErrNoMemory is returned, in place of a change, when there is no memory for
// it. Its text is what the client is told.
var ErrNoMemory = errors.New("OOM this node gets no more memory from its system. Reads and deletes go on; writes are taken again when there is room. Its operator can give it more (the machine's, the container's, or ulimit -v), or move databases to other nodes")

// ErrHalfDone is returned by Apply where memory ran out in the middle of a write
// of several large values. The content is worth nothing then.
var ErrHalfDone = errors.New("memory ran out in the middle of a write")

// HasRoom reports whether anything may be begun that takes memory.
func HasRoom() bool { return slab.Reserve() != slab.Spent }

// MayTake is asked before a command is run that may take memory: argv is what it
// carries, grows says that it may make the database larger. The error is
// ErrNoMemory, and then nothing has been changed.
func (tx *Tx) MayTake(argv [][]byte, grows bool) error {
	need, bytes := 0, 0
	for _, word := range argv {
		need += slab.Needs(len(word))
		bytes += len(word)
	}
	reserve := slab.Reserve()
	if need <= slab.Modest && reserve == slab.Ample {
		return nil
	}
	sp := tx.ks.space(tx.db)
	if reserve == slab.Spent || reserve == slab.Drawn && grows && !sp.slab.Fits(bytes) {
		return ErrNoMemory
	}
	return tx.ks.prepare(sp, need)
}

// mayTake is asked before a record comes in that isn't a command's, with so many
// bytes of key and value.
func (ks *Keyspace) mayTake(sp *space, length int) error {
	if !HasRoom() {
		return ErrNoMemory
	}
	return ks.prepare(sp, slab.Needs(length))
}

// prepare sees to memory for a change in a space, n bytes by the sum of slab.Needs.
// The error is ErrNoMemory.
func (ks *Keyspace) prepare(sp *space, n int) error {
	if n <= slab.Modest {
		return nil
	}
	if ks.prepared != sp {
		ks.settle()
	}
	if sp.slab.Prepare(n) != nil {
		return ErrNoMemory
	}
	ks.prepared = sp
	return nil
}

// settle gives back what a change was given and didn't need.
func (ks *Keyspace) settle() {
	if ks.prepared != nil {
		ks.prepared.slab.Release()
		ks.prepared = nil
	}
}

// must is what a space gives to a change that has begun.
func must(r slab.Rec, err error) slab.Rec {
	if err != nil {
		panic(err) // nobody asked, or asked for too little
	}
	return r
}
