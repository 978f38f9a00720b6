package command_test

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"vecino/command"
	"vecino/internal/transcript"
	"vecino/keyspace"
	"vecino/pubsub"
	"vecino/resp"
)

// lone plays scripts on nothing but handlers and a keyspace: the smallest
// engine and session there can be, with a clock that stands still. Beside the
// keyspace it keeps a copy that only gets effects, and compares the two.
type lone struct {
	t        *testing.T
	ks, copy *keyspace.Keyspace
	seq      uint64
	now      int64
	rng      *rand.Rand
	hub      pubsub.Hub
	config   map[string]string
	password string
	clients  map[string]*client
	order    []*client // as they were made
	parked   []*client // as they began to wait
}

// birth is when a lone player's clock begins: a second in 2033.
const birth = 2_000_000_000_000

func newLone(t *testing.T) *lone {
	l := &lone{
		t: t, ks: keyspace.New(7), copy: keyspace.New(7), now: birth, rng: rand.New(rand.NewPCG(3, 4)),
		clients: map[string]*client{},
		config:  map[string]string{"maxmemory": "0", "maxmemory-policy": "noeviction", "save": "", "appendonly": "no", "databases": "16", "proto-max-bulk-len": "536870912"},
	}
	t.Cleanup(l.compare)
	return l
}

// compare checks that the effects alone lead to the same keyspace.
func (l *lone) compare() {
	dump := func(ks *keyspace.Keyspace) (records []byte) {
		var c keyspace.Cursor
		for !c.Done() {
			records = ks.Dump(records, &c, 1000)
		}
		return records
	}
	if a, b := dump(l.ks), dump(l.copy); !bytes.Equal(a, b) {
		l.t.Errorf("a copy that was fed effects has other content\n--- original\n%q\n--- copy\n%q", a, b)
	}
	if l.ks.Used() != l.copy.Used() && false { // capacities may differ
		l.t.Errorf("used: %d, of the copy %d", l.ks.Used(), l.copy.Used())
	}
}

func (l *lone) Password(word string) { l.password = word }

func (l *lone) client(name string) *client {
	c := l.clients[name]
	if c == nil {
		c = &client{lone: l, id: int64(len(l.order)) + 1, authenticated: l.password == "", since: l.now}
		c.listener.Open(&l.hub, c)
		l.clients[name] = c
		l.order = append(l.order, c)
	}
	return c
}

func (l *lone) Do(name string, argv []string) transcript.Answer {
	c := l.client(name)
	if c.closed {
		return transcript.Answer{Closed: true}
	}
	words := make([][]byte, len(argv))
	for i, w := range argv {
		words[i] = []byte(w)
	}
	c.last = strings.ToLower(argv[0])
	if c.run(words) {
		l.parked = append(l.parked, c)
	}
	l.unpark()
	return l.Next(name)
}

func (l *lone) Next(name string) transcript.Answer {
	c := l.client(name)
	if len(c.out.Buf) == 0 {
		return transcript.Answer{Waits: !c.closed, Closed: c.closed}
	}
	in := bytes.NewReader(c.out.Buf)
	v, err := resp.NewReader(in).Read()
	if err != nil {
		l.t.Fatalf("%s: %q is no reply: %v", c.last, c.out.Buf, err)
	}
	// The reader reads ahead, so what it used is found by writing v again.
	c.out.Buf = c.out.Buf[valueLen(l.t, c.out.Buf):]
	return transcript.Answer{Value: v}
}

// valueLen is the length of the first value in b.
func valueLen(t *testing.T, b []byte) int {
	line := bytes.Index(b, []byte("\r\n")) + 2
	n, counted := int64(0), line > 2 && strings.IndexByte("$=!*~>%", b[0]) >= 0
	if counted {
		var ok bool
		if n, ok = resp.ParseInt(b[1 : line-2]); !ok {
			t.Fatalf("%q is no reply", b)
		}
	}
	if n < 0 || !counted {
		return line
	}
	if strings.IndexByte("$=!", b[0]) >= 0 {
		return line + int(n) + 2
	}
	if b[0] == '%' {
		n *= 2
	}
	for range n {
		line += valueLen(t, b[line:])
	}
	return line
}

// Pass lets time go by, in steps at which waiting commands give up.
func (l *lone) Pass(d time.Duration) {
	end := l.now + d.Milliseconds()
	for {
		var first *client
		for _, c := range l.parked {
			if c.until != 0 && c.until <= end && (first == nil || c.until < first.until) {
				first = c
			}
		}
		if first == nil {
			break
		}
		l.now = first.until
		l.parked = slices.DeleteFunc(l.parked, func(c *client) bool { return c == first })
		first.giveUp()
	}
	l.now = end
}

// transact runs fn in a transaction and applies its effects to the copy.
func (l *lone) transact(db int, fn func(tx *keyspace.Tx)) {
	tx := l.ks.Begin(db, l.now, l.seq+1, l.rng, true)
	fn(tx)
	effects, woken := tx.End()
	if len(effects) > 0 {
		l.seq++
		if err := l.copy.Apply(effects, l.seq); err != nil {
			l.t.Errorf("effects of write %d: %v", l.seq, err)
		}
	}
	l.woken(woken)
}

// woken marks the parked clients whose keys were changed.
func (l *lone) woken(keys []keyspace.Woken) {
	for _, w := range keys {
		for _, c := range l.parked {
			if c.db == w.DB && slices.ContainsFunc(c.argv, func(arg []byte) bool { return string(arg) == w.Key }) {
				c.awake = true
			}
		}
	}
}

// unpark runs the commands again that were woken, in the order in which they
// came, until nothing moves.
func (l *lone) unpark() {
	for {
		i := slices.IndexFunc(l.parked, func(c *client) bool { return c.awake })
		if i < 0 {
			return
		}
		c := l.parked[i]
		c.awake = false
		until := c.until
		if c.call(c.row, c.argv) {
			c.until = until
			continue
		}
		l.parked = slices.DeleteFunc(l.parked, func(p *client) bool { return p == c })
	}
}

// client is a connection.
type client struct {
	lone          *lone
	id, since     int64
	name          string
	library       [2]string
	authenticated bool
	closed        bool
	db            int
	out           resp.Writer
	listener      pubsub.Listener
	last          string

	multi, dirty bool
	queue        []queued
	watched      []watched

	// Of a command that waits.
	row     *command.Row
	argv    [][]byte
	until   int64
	null    bool
	awake   bool
	inMulti *keyspace.Tx // while EXEC runs
}

type queued struct {
	row  *command.Row
	argv [][]byte
}

type watched struct {
	db     int
	key    []byte
	seq    uint64
	exists bool
}

// run does what a session does with a command: refuse, queue, or run it. It
// reports whether the command waits.
func (c *client) run(argv [][]byte) (waits bool) {
	row, err := command.Resolve(argv)
	switch {
	case err != nil:
	case !c.authenticated && !row.Has(command.NoAuth):
		err = command.ErrNoAuth
	case c.multi && row.Has(command.NoMulti):
		err = command.Error("ERR Command not allowed inside a transaction")
	case c.listener.Subscribed() && c.out.Proto < 3 && !row.Has(command.InSubscribe):
		err = command.NotWhileSubscribed(row)
	case c.multi && !row.Has(command.Immediate):
		c.queue = append(c.queue, queued{row, argv})
		c.out.Simple("QUEUED")
		return false
	default:
		return c.call(row, argv)
	}
	switch {
	case strings.EqualFold(string(argv[0]), "EXEC"):
		_ = c.Discard()
		err = command.ExecRefused(err)
	case c.multi:
		c.dirty = true
	}
	c.out.Error(command.Reply(err))
	return false
}

// call runs a command.
func (c *client) call(row *command.Row, argv [][]byte) (waits bool) {
	l, start := c.lone, len(c.out.Buf)
	var args command.Args
	args.Start(row, argv)
	var err error
	switch {
	case c.inMulti != nil && row.Write != nil:
		c.inMulti.Select(c.db)
		err = row.Write(c.inMulti, &args, &c.out)
		c.inMulti.EndCommand()
	case row.Write != nil:
		l.transact(c.db, func(tx *keyspace.Tx) { err = row.Write(tx, &args, &c.out) })
	case row.Read != nil:
		view := l.ks.View(c.db, l.now, l.rng)
		err = row.Read(&view, &args, &c.out)
	default:
		err = row.Conn(c, &args, &c.out)
	}
	if err == nil {
		return false
	}
	c.out.Buf = c.out.Buf[:start]
	var block *command.Block
	if !errors.As(err, &block) {
		c.out.Error(command.Reply(err))
		return false
	}
	c.row, c.argv, c.null, c.until = row, argv, block.Null, 0
	if block.Timeout > 0 {
		c.until = l.now + block.Timeout.Milliseconds()
	}
	if c.inMulti != nil {
		c.giveUp()
		return false
	}
	return true
}

func (c *client) giveUp() {
	if c.null {
		c.out.Null()
	} else {
		c.out.NullArray()
	}
}

// Deliver is how messages come.
func (c *client) Deliver(m *pubsub.Message) { m.Append(&c.out) }

func (c *client) ID() int64           { return c.id }
func (c *client) Name() string        { return c.name }
func (c *client) SetName(name string) { c.name = name }

func (c *client) SetLibrary(attribute, value string) {
	if attribute == "lib-name" {
		c.library[0] = value
	} else {
		c.library[1] = value
	}
}

// SetReplies does nothing: a script has an answer to each command.
func (c *client) SetReplies(command.Replies) error { return nil }

func (c *client) Authenticate(user, password []byte) bool {
	if string(user) != "default" || c.lone.password != "" && string(password) != c.lone.password {
		return false
	}
	c.authenticated = true
	return true
}

func (c *client) Authenticated() bool { return c.authenticated }

func (c *client) Proto() int { return max(2, c.out.Proto) }

func (c *client) SetProto(version int, out *resp.Writer) { c.out.Proto = version }

func (c *client) DB() int { return c.db }

func (c *client) Select(db int) { c.db = db }

func (c *client) Quit() {
	c.closed = true
	c.listener.Close()
}

func (c *client) Reset(out *resp.Writer) {
	if c.multi {
		_ = c.Discard()
	}
	c.Unwatch()
	c.listener.Close()
	c.db, c.name, c.out.Proto, c.authenticated = 0, "", 2, c.lone.password == ""
}

func (c *client) Multi() error {
	if c.multi {
		return command.ErrNestedMulti
	}
	c.multi = true
	return nil
}

func (c *client) Discard() error {
	if !c.multi {
		return command.ErrDiscardNoMulti
	}
	c.multi, c.dirty, c.queue, c.watched = false, false, nil, nil
	return nil
}

func (c *client) Exec(out *resp.Writer) error {
	if !c.multi {
		return command.ErrExecNoMulti
	}
	queue, dirty, changed := c.queue, c.dirty, slices.ContainsFunc(c.watched, c.changed)
	_ = c.Discard()
	switch {
	case dirty:
		return command.ErrExecAbort
	case changed:
		out.NullArray()
		return nil
	}
	out.Array(len(queue))
	c.lone.transact(c.db, func(tx *keyspace.Tx) {
		c.inMulti = tx
		for _, q := range queue {
			c.call(q.row, q.argv)
		}
		c.inMulti = nil
	})
	return nil
}

func (c *client) Watch(keys [][]byte) error {
	if c.multi {
		return command.ErrWatchInMulti
	}
	view := c.lone.ks.View(c.db, c.lone.now, c.lone.rng)
	for _, key := range keys {
		c.watched = append(c.watched, watched{c.db, key, c.lone.seq, view.Kind(key) != keyspace.None})
	}
	return nil
}

func (c *client) changed(w watched) bool {
	view := c.lone.ks.View(w.db, c.lone.now, c.lone.rng)
	if !w.exists {
		return c.lone.ks.AppearedSince(w.db, w.key, w.seq)
	}
	return c.lone.ks.ChangedSince(w.db, w.key, w.seq) || view.Kind(w.key) == keyspace.None
}

func (c *client) Unwatch() { c.watched = nil }

func (c *client) Subscribe(kind command.Channel, channels [][]byte, out *resp.Writer) {
	c.listener.Subscribe(kind, channels, out)
}

func (c *client) Unsubscribe(kind command.Channel, channels [][]byte, out *resp.Writer) {
	c.listener.Unsubscribe(kind, channels, out)
}

func (c *client) Publish(kind command.Channel, channel, message []byte) int {
	return c.lone.hub.Publish(kind, channel, message)
}

func (c *client) WaitReplicas(replicas int, timeout time.Duration, out *resp.Writer) error {
	out.Int(0)
	return nil
}

func (c *client) WaitDurable(local, replicas int, timeout time.Duration, out *resp.Writer) error {
	out.Array(2)
	out.Int(int64(local))
	out.Int(0)
	return nil
}

func (c *client) Server() command.Server { return (*server)(c.lone) }

// server is the lone player as its clients may see it.
type server lone

func (s *server) Info(sections []string) string {
	return fmt.Sprintf("# Server\r\nredis_version:7.0.15\r\nsections:%s\r\n", strings.Join(sections, ","))
}

func (s *server) Config() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, name := range slices.Sorted(maps.Keys(s.config)) {
			if !yield(name, s.config[name]) {
				return
			}
		}
	}
}

func (s *server) SetConfig(name, value string) error {
	if _, ok := s.config[name]; !ok {
		return command.UnknownConfig(name)
	}
	s.config[name] = value
	return nil
}

func (s *server) ResetStats() { s.ks.Stats = keyspace.Stats{} }

func (s *server) Clients() []command.ClientInfo {
	var list []command.ClientInfo
	for _, c := range s.order {
		if c.closed {
			continue
		}
		multi := -1
		if c.multi {
			multi = len(c.queue)
		}
		list = append(list, command.ClientInfo{
			ID: c.id, Addr: fmt.Sprintf("127.0.0.1:%d", 40000+c.id), LocalAddr: "127.0.0.1:6379", Name: c.name, Library: c.library[0], Version: c.library[1],
			Age: time.Duration(s.now-c.since) * time.Millisecond, DB: c.db, Sub: c.listener.Count(command.PlainChannel),
			PSub: c.listener.Count(command.PatternChannel), SSub: c.listener.Count(command.ShardChannel), Multi: multi, Watched: len(c.watched),
			Proto: c.Proto(), LastCommand: c.last, Blocked: slices.Contains(s.parked, c),
		})
	}
	return list
}

func (s *server) Kill(id int64) bool {
	for _, c := range s.order {
		if c.id == id && !c.closed {
			c.closed = true
			c.listener.Close()
			return true
		}
	}
	return false
}

func (s *server) Unblock(id int64, failing bool) bool {
	i := slices.IndexFunc(s.parked, func(c *client) bool { return c.id == id })
	if i < 0 {
		return false
	}
	c := s.parked[i]
	s.parked = slices.Delete(s.parked, i, i+1)
	if failing {
		c.out.Error(string(command.ErrUnblocked))
	} else {
		c.giveUp()
	}
	return true
}

func (s *server) Channels(kind command.Channel, pattern []byte) [][]byte {
	return s.hub.Channels(kind, pattern)
}

func (s *server) Subscribers(kind command.Channel, channel []byte) int {
	return s.hub.Subscribers(kind, channel)
}

func (s *server) Patterns() int { return s.hub.Patterns() }

func (s *server) Time() time.Time { return time.UnixMilli(s.now) }

func (c *client) Subscribed() bool { return c.listener.Subscribed() }
