package command

import (
	"iter"
	"time"

	"vecino/resp"
)

// Client is the connection that a command came on, as its handler sees it.
// The session is the real one; where a command was forwarded from another
// region, the primary has a smaller one in its place. Byte slices that it is
// given are the client's words: it copies what it keeps.
type Client interface {
	// ID is a number that no other connection of this node has or had.
	ID() int64
	Name() string
	SetName(name string)
	// SetLibrary is CLIENT SETINFO: attribute is "lib-name" or "lib-ver".
	SetLibrary(attribute, value string)

	// Authenticate checks a password of this tenant. User is "default" where
	// the client named none.
	Authenticate(user, password []byte) bool
	Authenticated() bool

	// Proto is the version of the protocol in which replies are written.
	// SetProto holds from the reply to this command on.
	Proto() int
	SetProto(version int, out *resp.Writer)

	DB() int
	Select(db int)

	// SetReplies is CLIENT REPLY.
	SetReplies(r Replies) error

	// Quit closes the connection once the replies are written.
	Quit()
	// Reset brings the connection back to how it was when it was new.
	Reset(out *resp.Writer)

	Multi() error
	Exec(out *resp.Writer) error
	Discard() error
	Watch(keys [][]byte) error
	Unwatch()

	// Subscribe and Unsubscribe write their own replies, one for each
	// channel. Unsubscribe without channels means all of that kind.
	Subscribe(kind Channel, channels [][]byte, out *resp.Writer)
	Unsubscribe(kind Channel, channels [][]byte, out *resp.Writer)
	// Subscribed reports whether the connection listens to anything.
	Subscribed() bool
	// Publish sends a message and counts who got it.
	Publish(kind Channel, channel, message []byte) (receivers int)

	// WaitReplicas answers with the number of replicas that have the last
	// write of this connection, once there are so many or the time is up.
	WaitReplicas(replicas int, timeout time.Duration, out *resp.Writer) error
	// WaitDurable answers with two numbers: of copies here, 0 or 1, and of
	// replicas that have the last write on disk, once there are as many as asked
	// for or the timeout is over (0: never).
	WaitDurable(local, replicas int, timeout time.Duration, out *resp.Writer) error

	// Server is the tenant's server, as far as it can be seen.
	Server() Server
}

// Replies says which replies a client wants.
type Replies uint8

const (
	RepliesOn  Replies = iota
	RepliesOff         // none from now on
	ReplySkip          // not the next one
)

// Channel is a kind of channel: plain, by pattern, or sharded.
type Channel uint8

const (
	PlainChannel Channel = iota
	PatternChannel
	ShardChannel
)

// Server is what a tenant may know of the server behind its connection. It
// never shows anything of another tenant.
type Server interface {
	// Info is the text of INFO, for sections in lower case; none means the
	// default ones.
	Info(sections []string) string
	// Config is every configuration parameter and its value, by name.
	Config() iter.Seq2[string, string]
	// SetConfig changes a parameter; the error is the reply.
	SetConfig(name, value string) error
	ResetStats()
	// Clients is the tenant's connections on this node, oldest first.
	Clients() []ClientInfo
	// Kill closes the connection with that ID and reports whether it was there.
	Kill(id int64) bool
	// Unblock ends the wait of the connection with that ID, as if its time were up
	// or, failing, with ErrUnblocked, and reports whether it was waiting.
	Unblock(id int64, failing bool) bool

	// Channels lists the channels of a kind with subscribers that match a
	// pattern, nil for all.
	Channels(kind Channel, pattern []byte) [][]byte
	// Subscribers counts those of one channel.
	Subscribers(kind Channel, channel []byte) int
	// Patterns counts the patterns that anybody listens to.
	Patterns() int

	// Time is what the clock of this node shows.
	Time() time.Time
}

// ClientInfo is one line of CLIENT LIST. Fields that are always the same are
// written by the command.
type ClientInfo struct {
	ID                int64
	Addr, LocalAddr   string
	Name              string
	Library, Version  string
	Age, Idle         time.Duration
	DB                int
	Sub, PSub, SSub   int
	Multi             int // commands queued, -1 outside MULTI
	Watched           int
	Proto             int
	LastCommand       string
	QueryBuf, OutList int
	Blocked           bool
	Flags             string
}
