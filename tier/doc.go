// Package tier keeps the content of databases on disk, one store for all
// databases of a node, on Pebble.
//
// The node writes what changed in a database in sessions (Writer) and reads it
// back when the database wakes (Heads), or a value at a time when a command
// needs one that memory has let go (Get). To the tier everything is bytes: it
// knows a database's number, a key's place in the order of hashes, and that a
// record has a head, which waking reads, and perhaps a body, which only who
// needs the value reads, and parts, of which one can be written anew alone. What stands in them is package keyspace's business,
// and what stands in a database's meta record the node's.
//
// # What is promised
//
// A session is seen whole or not at all. What is found after a crash is the
// content after some session, the last one committed with sync or a later one;
// of several databases it is the same moment. A sync covers all that was
// committed before it, whoever did.
//
// The journal is what makes an answered write durable; the tier only has to
// be right about what it holds, so that the journal behind it may be trimmed.
//
// # On disk
//
//	TIER       format version, and claims (see state.go)
//	incoming/  tables being written; emptied at open
//	db/        Pebble
//
// Keys in Pebble, integers big-endian, so that a database's records lie
// together and in the order (space, hash, key):
//
//	'b' | database, 8 | space, 1 | hash, 8 | key    a body
//	'p' | database, 8 | space, 1 | hash, 8 | length of key, 4 | key | number, 8    a part
//	'h' | database, 8 | space, 1 | hash, 8 | key    a head
//	'm' | database, 8                               a database's meta record
//	's'                                             number of the last small session
//
// and values
//
//	body   tag, 8 | the body
//	head   0 | the head              a record without body
//	       1 | tag, 8 | the head     the body is the one with that tag
//	meta   as handed in
//
// The value of a part is what was handed in. Only records with a body have parts.
//
// Heads and bodies are apart so that waking a database reads only heads. The
// session's number in both ties them together: a body that an older head left
// behind is never taken for the record's.
//
// # Damage
//
// Every block has a checksum, Pebble's. What Pebble can't tell from a crash,
// the end of a log or of the list of tables gone bad, TIER's claims tell: they
// say how much of both was on disk once. So a flipped bit is reported, by Open,
// Get, Heads or Check, as a *DamageError with the file's name.
//
// # A disk that is full, or fails
//
// See guard.go. Full: whatever Pebble can't do without waits for room, reads go
// on, Stats.Full tells. A log that can't be synced: the tier is broken, every
// session fails with ErrBroken, reads go on as far as they can, and the node
// must be restarted. The process is never ended.
//
// # History of the format
//
//	1  without parts
//	2  as above
package tier

// Version is the version of the format that this package writes. It reads this
// one and those that upgrades knows.
const Version = 2
