package session

import (
	"encoding/binary"

	"vecino/command"
	"vecino/internal/glob"
	"vecino/link"
)

// interests is who listens behind each replica, so that PUBLISH can count
// receivers in other regions. Replicas tell of every change; since that goes
// the way of forwarded commands, a connection that subscribes and then
// publishes through one replica counts itself. Messages go to all replicas
// whatever is known here: somebody may have subscribed a moment ago.
type interests map[string]map[interest]int // by node

type interest struct {
	kind command.Channel
	name string
}

// interested is a frame's payload: kind 1 | listeners 4 | name.
func appendInterested(dst []byte, kind command.Channel, name []byte, listeners int) []byte {
	dst = append(dst, byte(kind))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(listeners))
	return append(dst, name...)
}

// take notes what a replica says.
func (in *interests) take(node string, payload []byte) error {
	if len(payload) < 5 {
		return errForward
	}
	i := interest{command.Channel(payload[0]), string(payload[5:])}
	n := int(binary.LittleEndian.Uint32(payload[1:]))
	if n == 0 {
		delete((*in)[node], i)
		return nil
	}
	if *in == nil {
		*in = make(interests)
	}
	if (*in)[node] == nil {
		(*in)[node] = make(map[interest]int)
	}
	(*in)[node][i] = n
	return nil
}

// receivers counts those who will get a message.
func (in interests) receivers(kind command.Channel, channel []byte) (n int) {
	for _, of := range in {
		n += of[interest{kind, string(channel)}]
		if kind != command.PlainChannel {
			continue
		}
		for i, listeners := range of {
			if i.kind == command.PatternChannel && glob.Match([]byte(i.name), channel) {
				n += listeners
			}
		}
	}
	return n
}

// tellInterest tells the primary that the number of those who listen here has
// changed.
func (t *Tenant) tellInterest(kind command.Channel, name []byte, listeners int) {
	if t.feed == nil && t.follower.Primary() != "" {
		t.Host.Send(t.follower.Primary(), link.Live, frame(interested, t.record.ID, appendInterested(nil, kind, name, listeners)))
	}
}
