// Package value has Redis's data types as plain Go: Hash, List, Set and ZSet, and the Table that big ones are indexed by.
//
// The keyspace keeps one of these per key and hands it to commands; snapshots and effects carry them as dumps. There
// are no locks here, no clock, no reply format and no randomness of its own: a caller that shares a value guards it,
// and a caller that wants a random member brings the source (Rand).
//
// Each type has two forms. A small collection is one run of bytes, searched from the front, because most collections
// are small and a pointer for each element would cost more than the element. These bytes say by themselves what they
// are, so a record can hold them, and the Go object is only borrowed around them while a command runs (small.go). Past
// Redis's own thresholds (limits.go) a collection changes, once and for good, to a big form, a Go object whose every
// operation is at most logarithmic and moves no more than some kilobytes. Encoding tells the form by the name that
// OBJECT ENCODING has for it in Redis 7.0.
//
//	Hash   packed field, value, field, value ...    | Table of cells (field and value in one allocation)
//	Set    sorted integers, or packed members       | Table of cells
//	ZSet   packed score, member in order            | Table of cells (member, score) and a counted B+tree over them
//	List   packed elements, up to 8 KiB             | chunks of packed elements, in blocks
//
// What all four keep to:
//
//   - Bytes given to a value are copied. Bytes that it returns are its own memory: read them before the next change.
//   - All and Scan see a value that nobody changes meanwhile; between two calls of Scan anything may change.
//   - Scan cursors are positions in the order of Hash64 under the seed given at construction. They say nothing about
//     one table's shape, so they hold on every copy of a database that was made with the same seed.
//   - Size is the memory held, as an estimate, known without counting.
//   - A big collection is stored in parts (parts.go), of which a change makes one dirty. Save writes those, a few at
//     a time, while the collection goes on changing (save.go).
//   - AppendDump writes a form that Load reads back with order and encoding kept (dump.go). Load trusts nothing. Of a
//     small collection both are a copy, and a check.
package value
