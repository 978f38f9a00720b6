package sim

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"vecino/resp"
	"vecino/session"
)

// Keys that are judged, by what is done with them.
var (
	registers = []string{"r0", "r1", "r2", "r3"}
	counters  = []string{"c0", "c1"}
	logs      = []string{"l0", "l1"}
	queues    = []string{"q0", "q1"}
	pairs     = []string{"pa", "pb"}
	swapped   = []string{"cas"}

	judged = slices.Concat(registers, counters, logs, queues, pairs, swapped)
)

// conn is a connection between a client and a process: the client's end, and
// the session.Conn of the session.
type conn struct {
	client  receiver
	proc    *process
	session *session.Session

	in     []byte
	out    []byte
	paused bool
	corked bool
	marked bool
	ending bool // closes when out has left
	closed bool // on the server's side
	need   int
	gone   bool // on the client's side

	port               uint16
	toServer, toClient int64 // when the last bytes arrive
}

var here = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// receiver is the client's end.
type receiver interface {
	receive(c *conn, b []byte)
	disconnected(c *conn)
}

// Send and what follows make it a session.Conn.
func (c *conn) Send(b []byte)        { c.out = append(c.out, b...); c.mark() }
func (c *conn) Queued() int          { return len(c.out) }
func (c *conn) Expect(n int)         { c.need = n }
func (c *conn) Pause()               { c.paused = true }
func (c *conn) Hold()                { c.paused = true }
func (c *conn) Owe(bool)             {} // clients here don't finish and go on to read
func (c *conn) Close()               { c.closed = true; c.mark() }
func (c *conn) CloseAfterFlush()     { c.ending = true; c.mark() }
func (c *conn) Peer() netip.AddrPort { return netip.AddrPortFrom(here, 40000+c.port) }
func (c *conn) Local() netip.AddrPort {
	return netip.AddrPortFrom(here, 6379)
}

func (c *conn) Replace(from int, b []byte) {
	c.out = append(c.out[:min(from, len(c.out))], b...)
	c.mark()
}

// Cork and Uncork are as in package loop.
func (c *conn) Cork() { c.corked = true }

func (c *conn) Uncork() {
	if c.corked {
		c.corked = false
		c.mark()
		c.proc.post(c.offer)
	}
}

func (c *conn) Resume() {
	if c.paused {
		c.paused = false
		c.proc.post(c.offer)
	}
}

func (c *conn) mark() {
	if !c.marked {
		c.marked = true
		c.proc.conns = append(c.proc.conns, c)
		c.proc.post(func() {})
	}
}

// offer gives the session what came.
func (c *conn) offer() {
	if c.paused || c.corked || c.closed || c.ending || len(c.in) == 0 || len(c.in) < c.need {
		return
	}
	c.need = 0
	out, used := c.session.Take(c.out, c.in)
	c.out = out
	c.in = append([]byte(nil), c.in[used:]...)
	if len(c.out) > 0 || c.closed || c.ending {
		c.mark()
	}
}

// flush ends a batch for the connection.
func (c *conn) flush() {
	if c.corked && !c.closed {
		return
	}
	if len(c.out) > 0 && !c.closed {
		b := c.out
		c.out = nil
		w := c.proc.w
		if w.cfg.Plant.SwapReplies && w.chance(0.05) {
			b = swapReplies(b)
		}
		c.toClient = max(c.toClient, w.now+w.between(50, 500))
		w.at(c.toClient, func() { c.client.receive(c, b) })
	}
	if c.ending {
		c.closed = true
	}
	if c.closed && c.session != nil {
		c.end(io.EOF)
	}
}

// end closes the server's side and lets the client see it.
func (c *conn) end(err error) {
	if c.session == nil {
		return
	}
	s := c.session
	c.session = nil
	s.Closed(nil, err)
	c.toClient = max(c.toClient, c.proc.w.now+300)
	c.proc.w.at(c.toClient, func() { c.client.disconnected(c) })
}

// lost says that the process died.
func (c *conn) lost() {
	c.session = nil
	w := c.proc.w
	w.at(max(c.toClient, w.now+w.between(0, 20*ms)), func() { c.client.disconnected(c) })
}

func swapReplies(b []byte) []byte {
	values, ends := parse(b)
	if len(values) < 2 {
		return b
	}
	return slices.Concat(b[ends[0]:ends[1]], b[:ends[0]], b[ends[1]:])
}

// parse takes whole replies apart, and tells where each ends.
func parse(b []byte) (values []resp.Value, ends []int) {
	for at := 0; at < len(b); {
		r := resp.NewReader(bytes.NewReader(b[at:]))
		v, err := r.Read()
		if err != nil {
			return append(values, resp.Value{Kind: resp.KindError, Str: "no reply: " + err.Error()}), append(ends, len(b))
		}
		at += replyLen(b[at:])
		values, ends = append(values, v), append(ends, at)
	}
	return values, ends
}

// replyLen is the length of the first reply in b, which is a whole one.
func replyLen(b []byte) int {
	line := bytes.Index(b, []byte("\r\n")) + 2
	switch b[0] {
	case '$', '=', '!', '*', '~', '>', '%':
	default:
		return line
	}
	n, _ := resp.ParseInt(b[1 : line-2])
	if n < 0 {
		return line
	}
	switch b[0] {
	case '$', '=', '!':
		return line + int(n) + 2
	case '%':
		n *= 2
	}
	for range n {
		line += replyLen(b[line:])
	}
	return line
}

// client is somebody in a region who keeps sending commands.
type client struct {
	w        *world
	name     string
	machine  int
	rng      *rand.Rand
	conn     *conn
	waiting  []*op // sent, oldest first
	tokens   int
	low      uint64 // see oracle
	busy     bool   // in the middle of a conversation of several commands
	stopping bool
	eager    bool // sends without waiting for answers

	incremented, maybeIncremented map[string]int64
	popped                        []string
	denied                        []seen
}

// op is one or several commands that belong together, and what to make of
// their replies.
type op struct {
	commands [][]string
	got      []resp.Value
	judge    func(got []resp.Value)
	unknown  func() // its outcome will not be known
	at       int64
}

func newClient(w *world, i, machine int) *client {
	return &client{
		w: w, name: fmt.Sprintf("client%d", i), machine: machine, rng: rand.New(rand.NewPCG(w.cfg.Seed, 1000+uint64(i))),
		incremented: map[string]int64{}, maybeIncremented: map[string]int64{}, eager: i%3 == 0,
	}
}

func (c *client) begin() { c.w.after(c.w.between(0, 500*ms), c.act) }

// act does something and comes again.
func (c *client) act() {
	if c.stopping && len(c.waiting) == 0 {
		return
	}
	c.w.after(c.think(), c.act)
	c.impatient()
	switch {
	case c.stopping:
	case c.conn == nil:
		c.connect()
	case c.rng.Float64() < 0.004:
		c.hangUp()
	case c.busy, len(c.waiting) >= 30, len(c.waiting) > 0 && !c.eager:
	default:
		n := 1
		if c.rng.Float64() < 0.4 {
			n += c.rng.IntN(6)
		}
		var batch []*op
		for range n {
			batch = append(batch, c.choose())
			if c.busy {
				break
			}
		}
		c.send(batch...)
	}
}

func (c *client) think() int64 {
	if c.rng.Float64() < 0.1 {
		return int64(c.rng.IntN(400 * ms))
	}
	return int64(c.rng.IntN(30 * ms))
}

// hangs is how long a reply may take. A command may wait five seconds for the
// primary, behind others that do.
const hangs = 12 * second

func (c *client) impatient() {
	if len(c.waiting) > 0 && c.w.now-c.waiting[0].at > hangs {
		c.w.fail("%s waits for %v since %.3f ms", c.name, c.waiting[0].commands, float64(c.waiting[0].at)/ms)
		c.hangUp()
	}
}

// dial opens a connection to a process.
func (w *world) dial(p *process, to receiver) *conn {
	p.nextID++
	k := &conn{client: to, proc: p, port: uint16(p.nextID), toServer: w.now + 100}
	id := p.nextID
	p.all = append(p.all, k)
	w.at(k.toServer, func() {
		p.post(func() {
			if p.tenant == nil {
				to.disconnected(k)
				return
			}
			k.session = session.OpenOn(p.tenant, k, id, netip.AddrPort{})
		})
	})
	return k
}

// bring brings bytes to the session.
func (k *conn) bring(b []byte) {
	w := k.proc.w
	k.toServer = max(k.toServer, w.now+w.between(50, 500))
	w.at(k.toServer, func() {
		k.proc.post(func() {
			if k.session != nil {
				k.in = append(k.in, b...)
				k.offer()
			}
		})
	})
}

// hangUp is the client's end of the connection.
func (k *conn) hangUp() {
	w := k.proc.w
	k.toServer = max(k.toServer, w.now+w.between(50, 500))
	w.at(k.toServer, func() {
		k.proc.post(func() {
			if !k.closed {
				k.closed = true
				k.end(io.EOF)
			}
		})
	})
}

// connect opens a connection to the own region, or as an edge would choose to
// another where there is none.
func (c *client) connect() {
	w := c.w
	for i := range w.machines {
		m := w.machines[(c.machine+i)%len(w.machines)]
		p := m.proc
		if p == nil || p.tenant == nil || i > 0 && !p.tenant.Ready() {
			continue
		}
		c.conn, c.low = w.dial(p, c), 0
		w.trace("%s: connects to %s", c.name, m.id)
		if c.rng.Float64() < 0.3 {
			c.send(c.plain("HELLO", "3"))
		}
		return
	}
}

func (c *client) hangUp() {
	k := c.conn
	if k == nil {
		return
	}
	c.w.trace("%s: hangs up", c.name)
	k.hangUp()
	c.disconnected(k)
}

// disconnected is what the client sees when a connection ends.
func (c *client) disconnected(k *conn) {
	if k.gone {
		return
	}
	k.gone = true
	if c.conn != k {
		return
	}
	c.conn, c.busy = nil, false
	c.w.trace("%s: disconnected, %d answers missing", c.name, len(c.waiting))
	for _, o := range c.waiting {
		if o.unknown != nil {
			o.unknown()
		}
	}
	c.waiting = nil
}

// finish is called in the end.
func (c *client) finish() {
	if len(c.waiting) > 0 {
		c.w.fail("%s still waits for %v, since %.3f ms", c.name, c.waiting[0].commands, float64(c.waiting[0].at)/ms)
	}
}

// send sends commands, in one piece or several.
func (c *client) send(ops ...*op) {
	k := c.conn
	var b []byte
	for _, o := range ops {
		o.at = c.w.now
		c.waiting = append(c.waiting, o)
		for _, words := range o.commands {
			c.w.commands++
			c.w.trace("%s> %s", c.name, strings.Join(words, " "))
			b = resp.AppendCommand(b, words...)
		}
	}
	for len(b) > 0 {
		n := len(b)
		if c.rng.Float64() < 0.1 {
			n = 1 + c.rng.IntN(n)
		}
		part := b[:n]
		b = b[n:]
		k.bring(part)
	}
}

// receive takes replies.
func (c *client) receive(k *conn, b []byte) {
	if k.gone {
		return
	}
	values, _ := parse(b)
	for _, v := range values {
		if k.gone {
			return
		}
		if len(c.waiting) == 0 {
			c.w.fail("%s got a reply to nothing: %v", c.name, v)
			return
		}
		o := c.waiting[0]
		c.w.trace("%s< %s", c.name, strings.ReplaceAll(v.String(), "\n", " | "))
		if v.Kind == resp.KindError && strings.HasPrefix(v.Str, "UNKNOWNOUTCOME") {
			c.w.cover.UnknownOutcome++
			if c.w.cfg.Plant.DenyOutcome {
				v.Str = "TRYAGAIN planted"
			}
		}
		o.got = append(o.got, v)
		if len(o.got) == len(o.commands) {
			c.waiting = c.waiting[1:]
			o.judge(o.got)
		}
	}
}

// failed deals with an error reply and reports whether it was one. denied is
// called when the command certainly had no effect.
func (c *client) failed(o *op, v resp.Value, denied func()) bool {
	if v.Kind != resp.KindError {
		return false
	}
	switch {
	case strings.HasPrefix(v.Str, "TRYAGAIN"):
		c.w.cover.TryAgain++
		if denied != nil {
			denied()
		}
	case strings.HasPrefix(v.Str, "ERR the value could not be read"), strings.HasPrefix(v.Str, "ERR the database could not be read"):
		if denied != nil {
			denied()
		}
	case strings.HasPrefix(v.Str, "MISCONF"), strings.HasPrefix(v.Str, "UNBLOCKED"):
		if denied != nil {
			denied()
		}
	case strings.HasPrefix(v.Str, "UNKNOWNOUTCOME"):
		if o.unknown != nil {
			o.unknown()
		}
	default:
		c.w.fail("%s: %v answered %v", c.name, o.commands, v)
	}
	return true
}

func (c *client) token() string {
	c.tokens++
	return fmt.Sprintf("%s:%d:%s", c.name, c.tokens, strings.Repeat("x", c.rng.IntN(40)))
}

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

// shows judges an answer that shows values.
func (c *client) shows(o *op, all ...seen) {
	state, ok := c.w.oracle.explain(c.low, all...)
	if !ok {
		c.w.fail("%s has seen write %d; no state from there on explains that %v shows %v (write %d of %v)",
			c.name, c.low, o.commands, all, c.w.oracle.head, c.w.oracle.tell(all))
		return
	}
	c.low = state
}

// wrote judges the answer to a write, which must stand behind all that the
// connection has seen.
func (c *client) wrote(o *op, key string, is func(value string) bool) uint64 {
	seq, ok := c.w.oracle.made(c.low, key, is)
	if !ok {
		c.w.fail("%s has seen write %d; its %v isn't behind that (%v)", c.name, c.low, o.commands, c.w.oracle.tell([]seen{{key: key}}))
		return 0
	}
	c.low = seq
	return seq
}

func text(v resp.Value) string {
	switch {
	case v.Null:
		return absent
	case v.Kind == resp.KindInt:
		return strconv.FormatInt(v.Int, 10)
	case v.Kind == resp.KindArray:
		words := make([]string, 0, len(v.Elems))
		for _, e := range v.Elems {
			words = append(words, text(e))
		}
		if len(words) == 0 {
			return absent
		}
		return strings.Join(words, " ")
	}
	return v.Str
}

// choose makes up what to do next.
func (c *client) choose() *op {
	switch n := c.rng.IntN(100); {
	case n < 12:
		return c.set(pick(c.rng, registers))
	case n < 34:
		return c.get(pick(c.rng, slices.Concat(registers, counters, pairs, swapped)))
	case n < 42:
		return c.incr(pick(c.rng, counters))
	case n < 48:
		return c.push(pick(c.rng, logs))
	case n < 55:
		return c.lrange(pick(c.rng, logs))
	case n < 61:
		return c.writePair()
	case n < 69:
		return c.readPair()
	case n < 74:
		return c.swap()
	case n < 79:
		return c.push(pick(c.rng, queues))
	case n < 82:
		return c.pop()
	case n < 84:
		return c.del(pick(c.rng, registers))
	case n < 86:
		return c.echo()
	case n < 87:
		return c.plain("WAIT", "1", strconv.Itoa(1+c.rng.IntN(300)))
	case n < 88:
		return c.move()
	}
	return c.other()
}

// plain is a command whose answer only must not be an error.
func (c *client) plain(words ...string) *op {
	o := &op{commands: [][]string{words}}
	o.judge = func(got []resp.Value) { c.failed(o, got[0], nil) }
	return o
}

func (c *client) echo() *op {
	word := c.token()
	o := &op{commands: [][]string{{"ECHO", word}}}
	o.judge = func(got []resp.Value) {
		if got[0].Str != word {
			c.w.fail("%s: ECHO %s answered %v", c.name, word, got[0])
		}
	}
	return o
}

func (c *client) deny(key, value string) func() {
	return func() { c.denied = append(c.denied, seen{key, value}) }
}

func (c *client) set(key string) *op {
	value := c.token()
	o := &op{commands: [][]string{{"SET", key, value}}}
	o.judge = func(got []resp.Value) {
		if !c.failed(o, got[0], c.deny(key, value)) {
			c.wrote(o, key, func(v string) bool { return v == value })
		}
	}
	return o
}

func (c *client) get(key string) *op {
	o := &op{commands: [][]string{{"GET", key}}}
	o.judge = func(got []resp.Value) {
		if !c.failed(o, got[0], nil) {
			c.shows(o, seen{key, text(got[0])})
		}
	}
	return o
}

func (c *client) del(key string) *op {
	o := &op{commands: [][]string{{"DEL", key}}}
	o.judge = func(got []resp.Value) {
		if !c.failed(o, got[0], nil) && got[0].Int == 1 {
			c.wrote(o, key, func(v string) bool { return v == absent })
		}
	}
	return o
}

func (c *client) incr(key string) *op {
	o := &op{commands: [][]string{{"INCR", key}}}
	o.unknown = func() { c.maybeIncremented[key]++ }
	o.judge = func(got []resp.Value) {
		if !c.failed(o, got[0], nil) {
			c.incremented[key]++
			c.wrote(o, key, func(v string) bool { return v == text(got[0]) })
		}
	}
	return o
}

func (c *client) push(key string) *op {
	value := c.token()
	o := &op{commands: [][]string{{"RPUSH", key, value}}}
	o.judge = func(got []resp.Value) {
		if c.failed(o, got[0], c.deny(key, value)) {
			return
		}
		c.wrote(o, key, func(v string) bool {
			words := strings.Fields(v)
			return words[len(words)-1] == value && int64(len(words)) == got[0].Int
		})
	}
	return o
}

func (c *client) lrange(key string) *op {
	o := &op{commands: [][]string{{"LRANGE", key, "0", "-1"}}}
	o.judge = func(got []resp.Value) {
		if !c.failed(o, got[0], nil) {
			c.shows(o, seen{key, text(got[0])})
		}
	}
	return o
}

func (c *client) pop() *op {
	key := pick(c.rng, queues)
	o := &op{commands: [][]string{{"BLPOP", key, fmt.Sprintf("%.3f", 0.01+c.rng.Float64()*1.5)}}}
	o.judge = func(got []resp.Value) {
		if c.failed(o, got[0], nil) || got[0].Null {
			return
		}
		if len(got[0].Elems) != 2 || got[0].Elems[0].Str != key {
			c.w.fail("%s: %v answered %v", c.name, o.commands, got[0])
			return
		}
		c.popped = append(c.popped, got[0].Elems[1].Str)
	}
	return o
}

func (c *client) move() *op {
	return c.plain("BLMOVE", queues[0], queues[1], "LEFT", "RIGHT", fmt.Sprintf("%.3f", 0.01+c.rng.Float64()*0.5))
}

func (c *client) writePair() *op {
	value := c.token()
	a, b := []string{"SET", pairs[0], value}, []string{"SET", pairs[1], value}
	if c.w.cfg.Plant.SplitMulti {
		o := &op{commands: [][]string{a, b}}
		o.judge = func(got []resp.Value) {
			if !c.failed(o, got[0], nil) && !c.failed(o, got[1], nil) {
				c.wrote(o, pairs[1], func(v string) bool { return v == value })
			}
		}
		return o
	}
	o := &op{commands: [][]string{{"MULTI"}, a, b, {"EXEC"}}}
	o.judge = func(got []resp.Value) {
		if c.failed(o, got[3], c.deny(pairs[0], value)) {
			return
		}
		if v := got[3]; len(v.Elems) != 2 || v.Elems[0].Str != "OK" || v.Elems[1].Str != "OK" {
			c.w.fail("%s: %v answered %v", c.name, o.commands, got)
			return
		}
		from := c.low
		seq := c.wrote(o, pairs[0], func(v string) bool { return v == value })
		c.low = from
		if other := c.wrote(o, pairs[1], func(v string) bool { return v == value }); other != seq {
			c.w.fail("%s: a transaction became the writes %d and %d", c.name, seq, other)
		}
	}
	return o
}

func (c *client) readPair() *op {
	if c.rng.IntN(2) == 0 {
		o := &op{commands: [][]string{{"MGET", pairs[0], pairs[1]}}}
		o.judge = func(got []resp.Value) {
			if !c.failed(o, got[0], nil) {
				c.sawPair(o, got[0])
			}
		}
		return o
	}
	o := &op{commands: [][]string{{"MULTI"}, {"GET", pairs[0]}, {"GET", pairs[1]}, {"EXEC"}}}
	o.judge = func(got []resp.Value) {
		if !c.failed(o, got[3], nil) {
			c.sawPair(o, got[3])
		}
	}
	return o
}

func (c *client) sawPair(o *op, v resp.Value) {
	if len(v.Elems) != 2 {
		c.w.fail("%s: %v answered %v", c.name, o.commands, v)
		return
	}
	a, b := text(v.Elems[0]), text(v.Elems[1])
	if a != b {
		c.w.fail("%s sees half of a transaction: %v answered %v", c.name, o.commands, v)
	}
	c.shows(o, seen{pairs[0], a}, seen{pairs[1], b})
}

// swap changes a key only if nobody else has changed it since it was read.
func (c *client) swap() *op {
	key := swapped[0]
	c.busy = true
	read := &op{commands: [][]string{{"WATCH", key}, {"GET", key}}}
	read.judge = func(got []resp.Value) {
		if c.failed(read, got[0], nil) || c.failed(read, got[1], nil) {
			c.busy = false
			c.send(c.plain("UNWATCH"))
			return
		}
		before := text(got[1])
		c.shows(read, seen{key, before})
		value := c.token()
		o := &op{commands: [][]string{{"MULTI"}, {"SET", key, value}, {"EXEC"}}}
		o.judge = func(got []resp.Value) {
			c.busy = false
			switch v := got[2]; {
			case c.failed(o, v, c.deny(key, value)):
			case v.Null:
				c.w.cover.Aborted++
				c.deny(key, value)()
			default:
				seq := c.wrote(o, key, func(v string) bool { return v == value })
				if was := c.w.oracle.at(key, seq-1); was != before {
					c.w.fail("%s: a transaction that watched %s while it was %s was carried out when it was %s", c.name, key, before, was)
				}
			}
		}
		c.send(o)
	}
	return read
}

// other is commands of all kinds, whose effects only the copies' equality
// judges.
func (c *client) other() *op {
	n := func(most int) string { return strconv.Itoa(c.rng.IntN(most)) }
	words := pick(c.rng, [][]string{
		{"HSET", "h" + n(3), "f" + n(20), c.token(), "g" + n(5), n(100)},
		{"HDEL", "h" + n(3), "f" + n(20)},
		{"HINCRBY", "h" + n(3), "n", n(100)},
		{"SADD", "s" + n(3), n(50), n(1000), c.token()},
		{"SPOP", "s" + n(3)},
		{"SREM", "s" + n(3), n(50)},
		{"SUNIONSTORE", "s3", "s0", "s1"},
		{"ZADD", "z" + n(3), n(100), "m" + n(30)},
		{"ZINCRBY", "z" + n(3), "1.5", "m" + n(30)},
		{"ZREM", "z" + n(3), "m" + n(30)},
		{"ZPOPMIN", "z" + n(3)},
		{"SETRANGE", "str" + n(3), n(60), c.token()},
		{"APPEND", "str" + n(3), n(1000)},
		{"SET", "e" + n(5), c.token(), "PX", strconv.Itoa(1 + c.rng.IntN(3000))},
		{"PEXPIRE", "h" + n(3), strconv.Itoa(200 + c.rng.IntN(5000))},
		{"PERSIST", "h" + n(3)},
		{"LPUSH", "x" + n(2), n(10), n(10), c.token()},
		{"RPOP", "x" + n(2), n(3)},
		{"LREM", "x" + n(2), "1", n(10)},
		{"LTRIM", "x" + n(2), "0", "20"},
		{"LINSERT", "x" + n(2), "BEFORE", n(10), "between"},
		{"COPY", "h0", "hcopy", "REPLACE"},
		{"COPY", "z1", "zcopy", "REPLACE"},
		{"SET", "ren", n(1000)},
		{"DEL", "h" + n(3)},
		{"HGETALL", "h" + n(3)},
		{"ZRANGE", "z" + n(3), "0", "-1"},
		{"DBSIZE"},
		{"SCAN", "0"},
		{"PUBLISH", "news", n(100)},
	})
	return c.plain(words...)
}

// tell lists the last writes of keys, for a failure's text.
func (o *oracle) tell(all []seen) string {
	var b strings.Builder
	for _, s := range all {
		versions := o.history[s.key]
		fmt.Fprintf(&b, " %s:", s.key)
		for _, v := range versions[max(0, len(versions)-4):] {
			fmt.Fprintf(&b, " %d=%.60s", v.seq, v.value)
		}
	}
	return b.String()
}

func requestOf(b []byte) [2]uint64 {
	if len(b) < 12 {
		return [2]uint64{}
	}
	return [2]uint64{binary.LittleEndian.Uint64(b), uint64(binary.LittleEndian.Uint32(b[8:]))}
}
