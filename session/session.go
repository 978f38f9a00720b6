// Package session is one client connection: its database, the last write that
// it has seen, and whether a command is answered here or at the primary.
//
// A Session reads commands from its connection and writes replies to it, on
// the loop of its Tenant. On the primary it hands them to the engine. On a
// replica a Tracker says which reads the copy here can answer; all else is
// forwarded, and the primary's remote runs it. Where a client waits (for a
// key, for the primary, for its own write to come back) the connection waits
// as a few fields here, without a goroutine.
package session

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/netip"
	"time"

	"vecino/command"
	"vecino/engine"
	"vecino/journal"
	"vecino/keyspace"
	"vecino/loop"
	"vecino/pubsub"
	"vecino/resp"
)

// Session is one client's connection.
type Session struct {
	tenant *Tenant
	conn   Conn
	id     int64
	client netip.AddrPort
	turns  turns // nil: it has its thread for itself
	parser resp.Parser
	out    resp.Writer
	req    engine.Request

	db       int
	authed   bool
	quit     bool
	inData   bool // Data is running: replies go to out
	inExec   bool
	barrier  bool // the next command waits until the replies before it have left
	metered  bool // the next command waits for its turn in the meter's line
	crowded  bool // or until the node has room for it
	share    int  // tokens of the meter that are for this connection
	mute     muting
	hushed   bool   // a command runs whose reply may be unwanted
	pushed   []byte // what isn't one, meanwhile
	name     string
	libName  string
	libVer   string
	opened   time.Time
	active   int64 // when the last command came, in ms
	lastRow  *command.Row
	multi    *transaction
	watches  []watch
	listener pubsub.Listener

	// Waiting for a key, or for replicas, on the primary.
	parked *engine.Parked
	wait   *replicaWait
	timer  Timer

	// Waiting for what is not in memory: the next command is offered again, and
	// answered with loadErr if there is one.
	loading *engine.Parked
	loadErr error

	// What may not leave before it is on disk; see durable.go.
	waitDisk *durableWait
	wrote    bool // stands in durable.writers
	corked   bool
	gone     bool
	keep     int // bytes of what is queued that are not about its writes
	corkedTo journal.Offset

	// On a replica.
	track    Tracker
	number   uint64     // names the session to the primary; 0: it has forwarded nothing
	unsent   []outgoing // sent or not, but not answered; oldest first
	owed     int        // bytes of those
	listed   bool       // stands in Tenant.holding
	patience Timer
	overdue  Timer
	sub      resp.Writer // for replies that have to queue
	mirror   *mirror     // of a transaction at the primary; nil: none that needs one
}

// transaction is a MULTI whose EXEC hasn't come.
type transaction struct {
	queued  []engine.Queued
	aborted bool
	bytes   int64 // of the commands queued, as they came
}

// abort says that EXEC will fail. Nothing is kept for it any more.
func (m *transaction) abort() { m.aborted, m.queued = true, nil }

// outgoing is a request that may have to be sent again.
type outgoing struct {
	req     uint32
	payload []byte
	what    Sent
	boot    uint64 // to which start of the primary's process it was sent; 0: not sent
	end     *unblocking
}

// primaryPatience is how long a command may be without the primary's answer,
// in milliseconds: then the client hears of it, rather than hang.
const (
	primaryPatience = 4500

	// defaultPatience is how long a write waits for its own entry, in ms.
	defaultPatience = 500
)

// Open makes the session of a connection that is on the tenant's loop, and
// takes its input from now on. client is its address as a PROXY header told
// it; if that isn't valid, the connection's own counts. Where there are too many
// the session is one that has answered with that and ends.
func Open(t *Tenant, conn *loop.Conn, id int64, client netip.AddrPort) *Session {
	return OpenOn(t, loopConn{conn}, id, client)
}

// OpenOn is Open for any kind of connection. Its owner calls Take and Closed.
func OpenOn(t *Tenant, conn Conn, id int64, client netip.AddrPort) *Session {
	s := &Session{tenant: t, conn: conn, id: id, client: client, opened: t.Clock.Now(), active: t.Now()}
	s.out.Proto = 2
	s.authed = t.record.Password == ""
	s.parser.Unauthenticated = !s.authed
	s.track.Patience = t.record.Limits.ReadYourWrite
	if s.track.Patience == 0 {
		s.track.Patience = defaultPatience
	}
	s.listener.Open(&t.hub, s)
	if !t.hasPlace() {
		s.quit = true
		conn.Send(errorReply(command.ErrConnections))
		conn.CloseAfterFlush()
		return s
	}
	t.total++
	s.parser.MaxRequest = int(t.record.Limits.RequestBytes)
	if t.sessions == nil {
		t.sessions = make(map[int64]*Session)
	}
	t.sessions[id] = s
	s.turns, _ = conn.(turns)
	return s
}

// Data takes what the client sent. See loop.Handler.
func (s *Session) Data(conn *loop.Conn, in []byte) (used int) {
	s.tenant.scratch = conn.Scratch().(*Scratch)
	conn.Out, used = s.Take(conn.Out, in)
	return used
}

// Take runs the commands in in and appends their replies to out, which it
// returns, with how many bytes it used.
func (s *Session) Take(out, in []byte) (_ []byte, used int) {
	t, conn := s.tenant, s.conn
	t.Engine.Lock()
	s.out.Buf, s.inData = out, true
	queued, tail := len(out), t.Engine.Tail()
	now := t.Now()
	s.active = now
	t.quota.meter.fill(now)
	b := t.scratch
	for used < len(in) && !s.stopped() {
		n, err := b.parse(s, in[used:])
		if n == 0 && err == nil {
			conn.Expect(s.parser.Need())
			break
		}
		if !b.run(s, now, &used) {
			s.parser.Reset() // it may have seen the start of a command that is offered again
			break
		}
		if err != nil {
			s.answer(func(out *resp.Writer) { out.Error(err.Error()) })
			s.quit = true
			used = len(in)
		}
		if n == batchSize && s.turns != nil && s.turns.TurnOver() {
			s.turns.Again()
			break
		}
	}
	out = s.out.Buf
	s.out.Buf, s.inData = nil, false
	if t.Engine.Tail() != tail {
		t.wrote(s, queued)
	}
	t.quota.meter.ended(s)
	if s.number != 0 {
		conn.Owe(s.track.Owes())
	}
	t.Engine.Unlock()
	t.markDirty()
	switch {
	case s.quit && !s.track.Busy():
		conn.CloseAfterFlush()
	case s.quit, s.barrier, s.metered, s.loading != nil:
		conn.Hold()
	case s.parked != nil:
		conn.Pause()
	}
	return out, used
}

// stopped reports whether commands that follow have to wait.
func (s *Session) stopped() bool {
	return s.quit || s.barrier || s.metered || s.parked != nil || s.loading != nil
}

// Scratch is where the commands of a batch are kept, one for each goroutine that
// calls sessions; see loop.Options.
type Scratch struct {
	words [][]byte
	cmds  []parsed
	touch keyspace.Touch
}

// parsed is one command of a batch.
type parsed struct {
	from, to int   // its words
	end      int   // where it ends in the input
	refused  int64 // its length, when it was too long to be gathered
}

// batchSize is how many commands of a pipeline are looked at together. Their
// keys are touched before the first is run, so that cache misses overlap: on a
// large keyspace that halves the time of a pipeline.
const batchSize = 64

// parse reads commands from the head of in, up to batchSize, and touches their
// keys. It returns how many there are.
func (b *Scratch) parse(s *Session, in []byte) (n int, err error) {
	b.words, b.cmds = b.words[:0], b.cmds[:0]
	at := 0
	for len(b.cmds) < batchSize && at < len(in) {
		from := len(b.words)
		words, used, err := s.parser.Next(in[at:], b.words[from:])
		if err != nil || used == 0 {
			return len(b.cmds), err
		}
		at += used
		if cap(words) > cap(b.words)-from || from == 0 {
			b.words = append(b.words[:from], words...)
		} else {
			b.words = b.words[:from+len(words)]
		}
		b.cmds = append(b.cmds, parsed{from: from, to: len(b.words), end: at})
		if len(words) == 0 {
			last := &b.cmds[len(b.cmds)-1]
			if last.refused = s.parser.Refused(); last.refused+s.parser.Swallowed() > 0 {
				if s.parser.Swallowed() > absurdRequest {
					err = command.RequestTooLong(s.tenant.quota.request, s.parser.Swallowed())
				}
				// A batch ends with what is swallowed, so that it need never
				// be offered again.
				return len(b.cmds), err
			}
		}
		if s.parser.Unauthenticated {
			break // what follows may be parsed by other rules
		}
	}
	if len(b.cmds) > 1 {
		ks := s.tenant.Engine.Keyspace()
		for _, c := range b.cmds {
			if c.to-c.from >= 2 {
				b.touch.Add(ks, b.words[c.from+1], b.words[c.from+2:c.to])
			}
		}
		b.touch.Load(ks, s.db)
	}
	return len(b.cmds), nil
}

// run runs the commands of a batch and moves used behind the last that was
// run. It reports false if some were left.
func (b *Scratch) run(s *Session, now int64, used *int) bool {
	start, begin := *used, 0
	meter := &s.tenant.quota.meter
	for i, c := range b.cmds {
		switch {
		case s.stopped():
			return false
		case c.refused > 0:
			s.refuseRequest(c.refused)
		case c.to == c.from:
		case !meter.admit(s):
			return false
		case s.mute == loud && !s.command(b.words[c.from:c.to:c.to], c.end-begin, now),
			s.mute != loud && !s.quietly(b.words[c.from:c.to:c.to], c.end-begin, now):
			meter.takeBack()
			if s.loading != nil {
				b.ahead(s, b.cmds[i+1:])
			} else {
				s.barrier = !s.crowded
			}
			return false
		}
		begin = c.end
		*used = start + begin
	}
	return true
}

// ahead has the values of commands fetched that stand behind one which waits for
// its own: else they would wait one after the other.
func (b *Scratch) ahead(s *Session, cmds []parsed) {
	db, t := s.db, s.tenant
	for _, c := range cmds {
		if c.to == c.from {
			continue
		}
		argv := b.words[c.from:c.to:c.to]
		row, err := command.Resolve(argv)
		switch {
		case err != nil, t.feed == nil && row.Read == nil:
		case row == selectRow:
			if n, ok := resp.ParseInt(argv[1]); ok && 0 <= n && n < keyspace.Databases {
				db = int(n)
			}
		default:
			t.Engine.Ahead(s.loading, db, row, argv)
		}
	}
}

var selectRow = command.Find([]byte("SELECT"))

// absurdRequest is how much of a request is swallowed before the connection is
// closed. Without a limit Redis, too, closes one that sends so much.
const absurdRequest = 1 << 30

// command runs one command of size bytes, or sends it to where it is run. It reports false
// for a command that must be offered again: when the replies before it have left or,
// where loading is set, when what it needs is in memory.
func (s *Session) command(argv [][]byte, size int, now int64) bool {
	row, err := command.Resolve(argv)
	if err == nil {
		err = s.allowed(row)
	}
	queues := s.multi != nil && err == nil && !row.Has(command.Immediate)
	if err == nil {
		err = s.withinQuota(row, argv, int64(size), queues)
	}
	if err != nil {
		switch {
		case command.Find(argv[0]) == execRow: // of words that aren't EXEC's
			s.multi, s.watches = nil, nil
			err = command.ExecRefused(err)
		case s.multi != nil:
			s.multi.abort()
		}
		s.deny(err)
		return true
	}
	s.lastRow = row
	if queues {
		s.queue(row, argv)
		return true
	}
	if s.tenant.room != Roomy {
		if ok, err := s.hasRoom(row); err != nil {
			s.deny(err)
			return true
		} else if !ok {
			return false
		}
	}
	if s.loadErr != nil {
		s.unread(row)
		return true
	}
	if s.tenant.feed == nil {
		return s.onReplica(row, argv, now)
	}
	s.run(row, argv, now, &s.out)
	return s.loading == nil
}

// unread answers a command that was offered again although what it needs can't be
// had.
func (s *Session) unread(row *command.Row) {
	err := s.loadErr
	s.loadErr = nil
	if row == execRow {
		s.multi, s.watches = nil, nil
	}
	s.deny(err)
}

// Loaded has the command offered again that could not be run.
func (s *Session) Loaded(err error) {
	s.loading, s.loadErr = nil, err
	s.conn.Resume()
}

var execRow = command.Find([]byte("EXEC"))

// allowed says whether the connection may use a command as it stands.
func (s *Session) allowed(row *command.Row) error {
	switch {
	case !s.authed && !row.Has(command.NoAuth):
		return command.ErrNoAuth
	case s.out.Proto == 2 && !row.Has(command.InSubscribe) && s.listener.Subscribed():
		return command.NotWhileSubscribed(row)
	case s.multi != nil && row.Has(command.NoMulti):
		return command.Error("ERR Command not allowed inside a transaction")
	}
	return nil
}

// run runs a command on this copy, unless that needs what isn't in memory: then
// loading is set.
func (s *Session) run(row *command.Row, argv [][]byte, now int64, out *resp.Writer) {
	s.req.Client, s.req.Row, s.req.Argv, s.req.Now, s.req.Out, s.req.Wait = s, row, argv, now, out, s
	s.req.Load = s
	p := s.tenant.Engine.Run(&s.req)
	s.req.Argv = nil
	if p == nil || s.loading != nil {
		return
	}
	if p.Unrun() {
		s.loading = p
		return
	}
	s.parked = p
	if p.Timeout > 0 {
		s.timer = s.tenant.after(p.Timeout, s.timeout)
	}
}

// Served is the reply of the command that this connection waited for, which has
// been carried out by now.
func (s *Session) Served(reply []byte) {
	queued := len(s.out.Buf)
	if !s.inData {
		queued = s.conn.Queued()
	}
	s.tenant.wrote(s, queued)
	s.tenant.markDirty() // it may be a value that came which had it go on
	s.served(reply)
}

// served is Served where nothing was changed.
func (s *Session) served(reply []byte) {
	if !s.muted() {
		s.write(reply)
	}
	s.spoken()
	s.unpark()
}

// unpark lets the connection go on, whoever ended its wait.
func (s *Session) unpark() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if s.wait != nil {
		s.tenant.cancelWait(s.wait)
		s.wait = nil
	}
	if s.waitDisk != nil {
		s.tenant.cancelDurable(s.waitDisk)
		s.waitDisk = nil
	}
	if s.parked != nil {
		s.tenant.Engine.Unpark(s.parked)
		s.parked = nil
		s.conn.Resume()
	}
}

func (s *Session) timeout() {
	db := s.tenant.Engine
	db.Lock()
	defer db.Unlock()
	s.timer = nil
	if s.parked != nil {
		s.timeUp()
	}
}

// write appends to what is sent to the client, at any time.
func (s *Session) write(b []byte) {
	if s.inData {
		s.out.Buf = append(s.out.Buf, b...)
		return
	}
	s.conn.Send(b)
}

// Deliver is a message for this subscriber.
func (s *Session) Deliver(m *pubsub.Message) {
	switch {
	case s.hushed:
		s.push(&s.out, m.Append)
		return
	case s.inData:
		m.Append(&s.out)
		return
	}
	out := resp.Writer{Buf: s.tenant.message[:0], Proto: s.out.Proto}
	m.Append(&out)
	s.conn.Send(out.Buf)
	s.tenant.message = out.Buf
}

// queue keeps a command for EXEC.
func (s *Session) queue(row *command.Row, argv [][]byte) {
	if s.multi.aborted { // EXEC won't ask for it
		s.answer(func(out *resp.Writer) { out.Simple("QUEUED") })
		return
	}
	kept := make([][]byte, len(argv))
	size := 0
	for _, word := range argv {
		size += len(word)
	}
	words := make([]byte, 0, size)
	for i, word := range argv {
		from := len(words)
		words = append(words, word...)
		kept[i] = words[from:len(words):len(words)]
	}
	s.multi.queued = append(s.multi.queued, engine.Queued{Row: row, Argv: kept})
	s.answer(func(out *resp.Writer) { out.Simple("QUEUED") })
}

// Closed ends the session. See loop.Handler.
func (s *Session) Closed(_ *loop.Conn, _ error) {
	t := s.tenant
	t.Engine.Lock()
	defer t.Engine.Unlock()
	s.gone = true
	delete(t.sessions, s.id)
	t.quota.meter.leave(s)
	s.listener.Close()
	s.unpark()
	if s.loading != nil {
		t.Engine.Unpark(s.loading)
		s.loading = nil
	}
	for _, timer := range []Timer{s.patience, s.overdue} {
		if timer != nil {
			timer.Stop()
		}
	}
	s.leaveReplica()
}

// authenticate checks a password against the tenant's.
func (s *Session) authenticate(user, password []byte) bool {
	want := s.tenant.record.Password
	if string(user) != "default" {
		return false
	}
	if want == "" {
		return true
	}
	sum := sha256.Sum256(password)
	var got [64]byte
	hex.Encode(got[:], sum[:])
	return subtle.ConstantTimeCompare(got[:], []byte(want)) == 1
}
