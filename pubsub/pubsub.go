// Package pubsub keeps the channels and patterns of one database, and who
// listens.
//
// A Hub belongs to a database, a Listener to a connection. Nothing is kept
// for a channel without subscribers nor for a connection without
// subscriptions: the zero Hub and the zero Listener cost nothing but their
// own few words.
//
// There is no lock: the caller holds the database's for every call, and a
// Subscriber is called with it held. How a message reaches other regions is the
// caller's business too; here it is delivered to those who listen on this
// node.
package pubsub

import (
	"bytes"
	"slices"

	"vecino/command"
	"vecino/internal/glob"
	"vecino/resp"
)

// A Subscriber is told the messages. It takes what it needs during the call,
// and neither waits nor calls back.
type Subscriber interface {
	Deliver(m *Message)
}

// Message is something published, as it comes to one subscriber.
type Message struct {
	Kind    command.Channel
	Pattern []byte // that the channel matched, for PatternChannel
	Channel []byte
	Payload []byte
}

// Append writes the message as its subscriber reads it.
func (m *Message) Append(out *resp.Writer) {
	switch m.Kind {
	case command.PatternChannel:
		out.Push(4)
		out.BulkString("pmessage")
		out.Bulk(m.Pattern)
	case command.ShardChannel:
		out.Push(3)
		out.BulkString("smessage")
	default:
		out.Push(3)
		out.BulkString("message")
	}
	out.Bulk(m.Channel)
	out.Bulk(m.Payload)
}

// kinds is how many kinds of channel there are.
const kinds = 3

// A Hub is the channels of one database. The zero Hub is empty.
type Hub struct {
	// OnChange, if set, is told how many listen to a channel or pattern
	// whenever that has changed.
	OnChange func(kind command.Channel, name []byte, listeners int)

	rooms [kinds]map[string]*room // nil while there are none of the kind
}

func (h *Hub) changed(kind command.Channel, r *room) {
	if h.OnChange != nil {
		h.OnChange(kind, r.name, len(r.listeners))
	}
}

// Each calls fn for every channel and pattern that anybody listens to.
func (h *Hub) Each(fn func(kind command.Channel, name []byte, listeners int)) {
	for kind := range h.rooms {
		for _, r := range h.rooms[kind] {
			fn(command.Channel(kind), r.name, len(r.listeners))
		}
	}
}

// room is one channel, or one pattern, and its listeners.
type room struct {
	name      []byte
	listeners []*Listener
}

// Empty reports whether nobody listens to anything.
func (h *Hub) Empty() bool {
	for kind := range h.rooms {
		if len(h.rooms[kind]) > 0 {
			return false
		}
	}
	return true
}

// Publish delivers a message on a plain channel or a sharded one, and counts
// the deliveries: a connection whose patterns match as well gets it several
// times.
func (h *Hub) Publish(kind command.Channel, channel, payload []byte) (receivers int) {
	if r := h.rooms[kind][string(channel)]; r != nil {
		m := Message{Kind: kind, Channel: channel, Payload: payload}
		for _, l := range r.listeners {
			l.to.Deliver(&m)
		}
		receivers += len(r.listeners)
	}
	if kind != command.PlainChannel {
		return receivers
	}
	for _, r := range h.rooms[command.PatternChannel] {
		if !glob.Match(r.name, channel) {
			continue
		}
		m := Message{Kind: command.PatternChannel, Pattern: r.name, Channel: channel, Payload: payload}
		for _, l := range r.listeners {
			l.to.Deliver(&m)
		}
		receivers += len(r.listeners)
	}
	return receivers
}

// Channels lists the channels of a kind that have subscribers and match a
// pattern, all if that is nil, in order.
func (h *Hub) Channels(kind command.Channel, pattern []byte) [][]byte {
	channels := [][]byte{}
	for _, r := range h.rooms[kind] {
		if pattern == nil || glob.Match(pattern, r.name) {
			channels = append(channels, r.name)
		}
	}
	slices.SortFunc(channels, bytes.Compare)
	return channels
}

// Subscribers counts those who listen to one channel by its name.
func (h *Hub) Subscribers(kind command.Channel, channel []byte) int {
	if r := h.rooms[kind][string(channel)]; r != nil {
		return len(r.listeners)
	}
	return 0
}

// Patterns counts the patterns that anybody listens to.
func (h *Hub) Patterns() int { return len(h.rooms[command.PatternChannel]) }

// A Listener is the subscriptions of one connection.
type Listener struct {
	hub   *Hub
	to    Subscriber
	rooms [kinds]map[string]place
}

// place is where a listener stands in a room, so that it can leave a crowded
// one without being looked for.
type place struct {
	room *room
	at   int
}

// Open makes l, the zero Listener or a closed one, ready to subscribe at h.
func (l *Listener) Open(h *Hub, to Subscriber) { l.hub, l.to = h, to }

// Subscribe adds subscriptions and writes the reply, one part for each.
func (l *Listener) Subscribe(kind command.Channel, channels [][]byte, out *resp.Writer) {
	for _, channel := range channels {
		l.join(kind, channel)
		l.confirm(subscribed[kind], channel, kind, out)
	}
}

// Unsubscribe takes subscriptions away, all of the kind if none is named, and
// writes the reply, one part for each and at least one.
func (l *Listener) Unsubscribe(kind command.Channel, channels [][]byte, out *resp.Writer) {
	if len(channels) == 0 {
		channels = l.Channels(kind)
		if len(channels) == 0 {
			l.confirm(unsubscribed[kind], nil, kind, out)
			return
		}
	}
	for _, channel := range channels {
		l.leave(kind, channel)
		l.confirm(unsubscribed[kind], channel, kind, out)
	}
}

// Close takes all subscriptions away without a word.
func (l *Listener) Close() {
	for kind := range l.rooms {
		for name := range l.rooms[kind] {
			l.leave(command.Channel(kind), []byte(name))
		}
	}
}

// Count is the number of subscriptions of a kind.
func (l *Listener) Count(kind command.Channel) int { return len(l.rooms[kind]) }

// Subscribed reports whether there are subscriptions of any kind. In version
// 2 of the protocol such a connection can do little else.
func (l *Listener) Subscribed() bool {
	return len(l.rooms[0])+len(l.rooms[1])+len(l.rooms[2]) > 0
}

// Channels lists the subscriptions of a kind, in order.
func (l *Listener) Channels(kind command.Channel) [][]byte {
	channels := make([][]byte, 0, len(l.rooms[kind]))
	for _, p := range l.rooms[kind] {
		channels = append(channels, p.room.name)
	}
	slices.SortFunc(channels, bytes.Compare)
	return channels
}

var (
	subscribed   = [kinds]string{command.PlainChannel: "subscribe", command.PatternChannel: "psubscribe", command.ShardChannel: "ssubscribe"}
	unsubscribed = [kinds]string{command.PlainChannel: "unsubscribe", command.PatternChannel: "punsubscribe", command.ShardChannel: "sunsubscribe"}
)

// confirm writes one part of a reply: what happened, to which channel, and
// how many subscriptions there are now. Sharded ones are counted apart.
func (l *Listener) confirm(what string, channel []byte, kind command.Channel, out *resp.Writer) {
	out.Push(3)
	out.BulkString(what)
	if channel == nil {
		out.Null()
	} else {
		out.Bulk(channel)
	}
	if kind == command.ShardChannel {
		out.Int(int64(l.Count(command.ShardChannel)))
	} else {
		out.Int(int64(l.Count(command.PlainChannel) + l.Count(command.PatternChannel)))
	}
}

func (l *Listener) join(kind command.Channel, channel []byte) {
	if _, ok := l.rooms[kind][string(channel)]; ok {
		return
	}
	r := l.hub.rooms[kind][string(channel)]
	if r == nil {
		r = &room{name: bytes.Clone(channel)}
		if r.name == nil {
			r.name = []byte{}
		}
		if l.hub.rooms[kind] == nil {
			l.hub.rooms[kind] = map[string]*room{}
		}
		l.hub.rooms[kind][string(channel)] = r
	}
	if l.rooms[kind] == nil {
		l.rooms[kind] = map[string]place{}
	}
	l.rooms[kind][string(channel)] = place{r, len(r.listeners)}
	r.listeners = append(r.listeners, l)
	l.hub.changed(kind, r)
}

func (l *Listener) leave(kind command.Channel, channel []byte) {
	p, ok := l.rooms[kind][string(channel)]
	if !ok {
		return
	}
	r, last := p.room, len(p.room.listeners)-1
	if moved := r.listeners[last]; moved != l {
		r.listeners[p.at] = moved
		moved.rooms[kind][string(channel)] = place{r, p.at}
	}
	r.listeners[last] = nil
	r.listeners = r.listeners[:last]
	l.hub.changed(kind, r)
	delete(l.rooms[kind], string(channel))
	if len(l.rooms[kind]) == 0 {
		l.rooms[kind] = nil
	}
	if last == 0 {
		delete(l.hub.rooms[kind], string(channel))
		if len(l.hub.rooms[kind]) == 0 {
			l.hub.rooms[kind] = nil
		}
	}
}
