package session

import (
	"encoding/binary"
	"errors"

	"vecino/catalog"
	"vecino/command"
	"vecino/keyspace"
	"vecino/link"
)

// Kinds of frames between the sessions of a replica and the primary. Those of
// replication are below 20. Their numbers are part of the protocol between
// nodes.
const (
	forward       = 20 // replica to primary: commands of one request
	reply         = 21 // primary to replica
	sessionClosed = 22 // replica to primary: nobody waits for this session any more
	interested    = 23 // replica to primary: so many listen to a channel here
	awake         = 24 // primary to a replica that doesn't follow: there is something new
	unblock       = 25 // replica to primary: a command is to wait no longer
)

// A forwarded request:
//
//	session 8 | request 4 | oldest request in flight 4 | logical db 1 | flags 1
//	watches: count, each  db 1 | state 1 | epoch 4 | seq 8 | key
//	commands: count, each  words: count, each a word
//
// with counts and lengths as varints. An EXEC is a request of several
// commands with the flag flagExec; any other has one.
//
// Its reply:
//
//	session 8 | request 4 | the primary's head: epoch 4, seq 8 | reply
const (
	flagExec  = 1
	flagResp3 = 2

	forwardHead = 18
	replyHead   = 24
)

var errForward = errors.New("malformed forwarded request")

// request is a forwarded request, decoded. Its slices alias the frame.
type request struct {
	session uint64
	req     uint32
	oldest  uint32
	db      int
	flags   byte
	watches []watch
	argvs   [][][]byte
}

// watch is a key that must not have been changed by a write after since.
type watch struct {
	db    int
	state watched
	since catalog.Position
	key   []byte
}

// watched is what was known of a key when it was watched. A key that was there
// and has expired since makes its transaction fail.
type watched byte

const (
	unknown watched = iota // the copy was behind what the connection had seen
	absent
	present
)

func (r *request) append(dst []byte, commands ...[][]byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, r.session)
	dst = binary.LittleEndian.AppendUint32(dst, r.req)
	dst = binary.LittleEndian.AppendUint32(dst, r.oldest)
	dst = append(dst, byte(r.db), r.flags)
	dst = binary.AppendUvarint(dst, uint64(len(r.watches)))
	for _, w := range r.watches {
		dst = append(dst, byte(w.db), byte(w.state))
		dst = appendPosition(dst, w.since)
		dst = appendWord(dst, w.key)
	}
	dst = binary.AppendUvarint(dst, uint64(len(commands)))
	for _, argv := range commands {
		dst = binary.AppendUvarint(dst, uint64(len(argv)))
		for _, word := range argv {
			dst = appendWord(dst, word)
		}
	}
	return dst
}

func appendWord(dst, word []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(word)))
	return append(dst, word...)
}

func appendPosition(dst []byte, p catalog.Position) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, p.Epoch)
	return binary.LittleEndian.AppendUint64(dst, p.Seq)
}

func position(b []byte) catalog.Position {
	return catalog.Position{Epoch: binary.LittleEndian.Uint32(b), Seq: binary.LittleEndian.Uint64(b[4:])}
}

// reader takes a payload apart. It latches failure.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) count() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || n > uint64(len(r.b)) { // each thing counted takes a byte at least
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) word() []byte { return r.take(r.count()) }

func parseRequest(b []byte) (r request, err error) {
	if len(b) < forwardHead {
		return r, errForward
	}
	r.session = binary.LittleEndian.Uint64(b)
	r.req = binary.LittleEndian.Uint32(b[8:])
	r.oldest = binary.LittleEndian.Uint32(b[12:])
	r.db, r.flags = int(b[16]), b[17]
	in := reader{b: b[forwardHead:]}
	for range in.count() {
		head := in.take(14)
		if in.bad {
			return r, errForward
		}
		if head[0] >= keyspace.Databases {
			return r, errForward
		}
		r.watches = append(r.watches, watch{db: int(head[0]), state: watched(head[1]), since: position(head[2:]), key: in.word()})
	}
	for range in.count() {
		n := in.count()
		argv := make([][]byte, 0, n)
		for range n {
			argv = append(argv, in.word())
		}
		if in.bad || len(argv) == 0 {
			return r, errForward
		}
		r.argvs = append(r.argvs, argv)
	}
	if in.bad || len(r.argvs) == 0 || len(r.argvs) > 1 && r.flags&flagExec == 0 || r.db >= keyspace.Databases {
		return r, errForward
	}
	return r, nil
}

func appendReply(dst []byte, session uint64, req uint32, head catalog.Position, body []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, session)
	dst = binary.LittleEndian.AppendUint32(dst, req)
	dst = appendPosition(dst, head)
	return append(dst, body...)
}

func parseReply(b []byte) (session uint64, req uint32, head catalog.Position, body []byte, err error) {
	if len(b) < replyHead {
		return 0, 0, head, nil, errForward
	}
	return binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:]), position(b[12:]), b[replyHead:], nil
}

// A published message: kind 1 | channel | message.
func appendPublish(dst []byte, kind command.Channel, channel, message []byte) []byte {
	dst = append(dst, byte(kind))
	dst = appendWord(dst, channel)
	return append(dst, message...)
}

func parsePublish(b []byte) (kind command.Channel, channel, message []byte, err error) {
	in := reader{b: b}
	k := in.take(1)
	channel = in.word()
	if in.bad || k[0] > byte(command.ShardChannel) {
		return 0, nil, nil, errForward
	}
	return command.Channel(k[0]), channel, in.b, nil
}

func frame(kind uint8, db catalog.ID, payload []byte) link.Frame {
	return link.Frame{Kind: kind, DB: db, Payload: payload}
}
