package value

// Where small forms end, as Redis 7.0 has it by default. Beyond any of these
// a value changes to its big form and never back.
const (
	maxPackedLen   = 128 // fields of a hash, members of a sorted set or of a set of strings
	maxPackedBytes = 64  // in one field, value or member
	maxIntsLen     = 512 // members of a set of integers

	// A list has one name in both forms, so where the small one ends is ours
	// to choose. In bytes it is where Redis begins another node; elements are
	// as many as can be walked through in half a microsecond.
	maxListBytes = 8 << 10
	maxListLen   = 255
)

// The names that OBJECT ENCODING has for the forms.
const (
	encodingPacked = "listpack"
	encodingTable  = "hashtable"
	encodingInts   = "intset"
	encodingTree   = "skiplist" // it is a B+tree, but clients know this name
	encodingList   = "quicklist"
)
