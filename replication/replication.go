// Package replication streams a primary's journal to its replicas, snapshots
// included.
//
// Its two halves are state machines without goroutines, clocks or I/O: Feed on
// the primary, one a database, and Follower on each replica. Whoever owns them
// (session.Tenant in a node, the simulator in tests) carries frames between
// them and calls them from one goroutine.
//
// What a replica asks and gets, all on the live lane unless said otherwise:
//
//	replica                                primary
//	  Subscribe{position, hash}  ------>
//	                             <------   Continue{position}       its history is a prefix of ours
//	                             <------   Entries ...              catch-up lane while far behind, see Feed
//	  Ack{position}              ------>
//	                             <------   Live{position}           it has reached the head
//	                             <------   Entries, Publish ...     from now on as they are made
//
//	                             <------   SnapshotBegin{position}  too far behind, or another history:
//	                             <------   SnapshotData ...         snapshot lane
//	                             <------   SnapshotEnd{position}
//	                             <------   Entries ...              from SnapshotBegin's position on
//
// A snapshot is taken while the database changes, so the entries made
// meanwhile are sent after it, and the replica leaves out what a key already
// contains (see package keyspace). It serves nobody before it is live.
package replication

import (
	"encoding/binary"
	"errors"

	"vecino/catalog"
)

// Kinds of frames. Their numbers are part of the protocol between nodes.
const (
	Subscribe     = 1 // position, hash
	Continue      = 2 // position
	Entries       = 3 // journal entries, one behind the other
	SnapshotBegin = 4 // position, hash, time of the last write
	SnapshotData  = 5 // records of keyspace.Dump
	SnapshotEnd   = 6 // position
	Ack           = 7 // position
	Live          = 8 // position
	Unsubscribe   = 9
	NotPrimary    = 10 // the asked node is not, or not yet, the primary
	Publish       = 11 // a message for subscribers; see package session
)

// errFrame is a payload that can't be read.
var errFrame = errors.New("malformed replication frame")

// mark is the payload of most frames: a position, and what goes with it.
type mark struct {
	pos  catalog.Position
	hash uint64
	time int64
}

func (m mark) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, m.pos.Epoch)
	dst = binary.LittleEndian.AppendUint64(dst, m.pos.Seq)
	dst = binary.LittleEndian.AppendUint64(dst, m.hash)
	return binary.LittleEndian.AppendUint64(dst, uint64(m.time))
}

func parseMark(b []byte) (m mark, err error) {
	if len(b) != 28 {
		return m, errFrame
	}
	m.pos.Epoch = binary.LittleEndian.Uint32(b)
	m.pos.Seq = binary.LittleEndian.Uint64(b[4:])
	m.hash = binary.LittleEndian.Uint64(b[12:])
	m.time = int64(binary.LittleEndian.Uint64(b[20:]))
	return m, nil
}
