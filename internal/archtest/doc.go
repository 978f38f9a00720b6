// Package archtest holds the tree to its map: which package may import which,
// and that each says what it is for.
package archtest
