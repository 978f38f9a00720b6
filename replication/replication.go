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
//	                             <------   SnapshotAhead            too far behind, or another history
//	                             <------   SnapshotBegin{position}  snapshot lane
//	                             <------   SnapshotData ...
//	                             <------   SnapshotEnd{position}
//	                             <------   Entries ...              from SnapshotBegin's position on
//
// A replica numbers its subscriptions, and every frame but Publish carries the
// number: what was sent for an earlier one, on whichever lane or link, is
// nothing to the present one. A primary that gives a subscription up says
// NotPrimary, and the replica asks again.
//
// An Ack says that a replica has applied and journaled all up to a position, so
// that the end of its process doesn't lose it. Durable says the same of its disk;
// it comes later, as the replica's journal is synced.
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
	NotPrimary    = 10 // the asked node is not, or not yet, the primary; or must be asked again
	Publish       = 11 // a message for subscribers; see package session
	SnapshotAhead = 12 // a snapshot will be sent
	Durable       = 13 // position: all up to it is on the replica's disk; a primary of before doesn't look at it
)

// errFrame is a payload that can't be read.
var errFrame = errors.New("malformed replication frame")

// mark is the payload of most frames: a position, and what goes with it.
//
//	subscription 8 | epoch 4 | seq 8 | hash 8 | time 8
//
// Those without a position end after the subscription; Entries and
// SnapshotData go on with what they carry.
type mark struct {
	number uint64
	pos    catalog.Position
	hash   uint64
	time   int64
}

const (
	numberBytes = 8
	markBytes   = 36
)

func (m mark) append(dst []byte) []byte {
	dst = appendNumber(dst, m.number)
	dst = binary.LittleEndian.AppendUint32(dst, m.pos.Epoch)
	dst = binary.LittleEndian.AppendUint64(dst, m.pos.Seq)
	dst = binary.LittleEndian.AppendUint64(dst, m.hash)
	return binary.LittleEndian.AppendUint64(dst, uint64(m.time))
}

func parseMark(b []byte) (m mark, err error) {
	if len(b) != markBytes {
		return m, errFrame
	}
	m.number = binary.LittleEndian.Uint64(b)
	m.pos.Epoch = binary.LittleEndian.Uint32(b[8:])
	m.pos.Seq = binary.LittleEndian.Uint64(b[12:])
	m.hash = binary.LittleEndian.Uint64(b[20:])
	m.time = int64(binary.LittleEndian.Uint64(b[28:]))
	return m, nil
}

func appendNumber(dst []byte, number uint64) []byte {
	return binary.LittleEndian.AppendUint64(dst, number)
}

// splitNumber takes the subscription off a payload.
func splitNumber(b []byte) (number uint64, rest []byte, err error) {
	if len(b) < numberBytes {
		return 0, nil, errFrame
	}
	return binary.LittleEndian.Uint64(b), b[numberBytes:], nil
}
