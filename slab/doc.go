// Package slab keeps the records of a database outside the Go heap: keys,
// their values as bytes, and the table by which they are found. The collector
// never sees them, a small record costs some 30 bytes beside its key and
// value, and nothing here takes a millisecond at a time, however many there
// are.
//
// Package keyspace is the caller. What the bytes of a value mean, what is
// logged and what expires is its business; slab finds, stores and moves.
//
//	Space   the records of one logical database: Find, Insert, Set, Remove,
//	        scans, deadlines                               space.go, expiry.go
//	        fingerprints of keys without a record          prints.go
//	Rec     a record: what is in it, read and written      record.go
//	arena   the memory of a Space, cut into blocks         arena.go
//	pool    the memory of the process, cut into chunks     pool.go
//	stock   what is kept back for changes that have begun  reserve.go
//
// # Who may see what
//
// A chunk belongs to one space until it is given back, and is zeroed before
// it is anybody's again. So what a tenant deletes can come up again only in that
// tenant's own memory.
//
// # Moving
//
// A Rec is an address. It is good until this record is moved: by Set, Resize
// or SetDeadline, which return where it has gone, by Remove, or by Compact, after
// which all Recs are void. Changes of other records don't move it. So a
// transaction may hold Recs from its beginning to its end, if it takes note of what those
// calls return; and its owner calls Compact between transactions.
// The table and the heap of deadlines follow a record by themselves.
//
// # Lengths of time
//
// An insertion may split a segment, some 500 records, or double the
// directory, 8 bytes for some 400 records. Compact does as much as it is told to.
// Large blocks, and all of a space that is closed or forgotten, are given back by a
// goroutine (reaper.go). Setting or moving a large value copies it.
//
// # Without memory
//
// Insert, Set, Resize and SetDeadline return ErrNoMemory and have changed
// nothing. Removing, taking a deadline away and setting a value that isn't longer need
// no memory. So that a change of several records doesn't come to a stop in its
// middle, some memory is kept back for it: reserve.go. A system that
// overcommits doesn't say that there is none, but kills; Limit is for that.
//
// # Not for everyone
//
// A Space and its Recs are for one goroutine at a time. A slice of a key or value must not
// outlive the last use of its Space: it is not the collector that decides
// when that memory goes.
package slab
