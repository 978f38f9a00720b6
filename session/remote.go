package session

import (
	"encoding/binary"
	"errors"
	"time"

	"vecino/catalog"
	"vecino/command"
	"vecino/engine"
	"vecino/journal"
	"vecino/resp"
)

// remoteID names a session of another node.
type remoteID struct {
	node    string
	boot    uint64
	session uint64
}

// A remote is the primary's side of a session on a replica: it runs what the
// session forwards, in order and each request once. A request that comes
// again, because the link broke before its reply arrived, gets the same reply
// again.
type remote struct {
	tenant *Tenant
	id     remoteID
	db     int
	proto  int

	last     uint32     // the highest request that was begun
	done     []answered // replies that the session may ask for again
	kept     int        // bytes of those
	parked   *engine.Parked
	parkedAs uint32
	timer    Timer
	behind   [][]byte // requests that came while one was parked
	seen     int64    // when it last asked for something
	inExec   bool
}

type answered struct {
	req  uint32
	body []byte
}

type remoteReply struct {
	node    string
	payload []byte
}

const (
	// keptBytes is how much of its replies a remote keeps for being asked
	// again. A reply that doesn't fit is not kept, and a session that asks for
	// it hears that the outcome isn't known.
	keptBytes = 64 << 10
	// remoteIdle is how long a remote is kept that nobody has heard of, in ms.
	remoteIdle = 60_000
)

var errUnknownOutcome = command.Error("UNKNOWNOUTCOME the link to the primary broke; the command may or may not have been carried out")

// forwarded takes a request from a session on another node.
func (t *Tenant) forwarded(node string, payload []byte) error {
	r, err := parseRequest(payload)
	if err != nil {
		return err
	}
	boot, up := t.Host.Up(node)
	if !up {
		return nil
	}
	id := remoteID{node, boot, r.session}
	if t.feed == nil {
		// The catalog moved on. The session asks again when it has heard, too.
		t.answer(id, r.req, []byte("-TRYAGAIN this node is not the primary any more\r\n"))
		return nil
	}
	rm := t.remotes[id]
	if rm == nil {
		rm = &remote{tenant: t, id: id}
		if t.remotes == nil {
			t.remotes = make(map[remoteID]*remote)
		}
		t.remotes[id] = rm
	}
	rm.seen = t.Now()
	rm.forget(r.oldest)
	if r.req <= rm.last {
		rm.again(r.req)
		return nil
	}
	if rm.parked != nil {
		rm.behind = append(rm.behind, append([]byte(nil), payload...))
		return nil
	}
	rm.run(&r)
	return nil
}

// again answers a request that has been seen before.
func (rm *remote) again(req uint32) {
	if rm.parked != nil && rm.parkedAs == req {
		return // it still waits
	}
	for _, a := range rm.done {
		if a.req == req {
			rm.tenant.answer(rm.id, req, a.body)
			return
		}
	}
	var w resp.Writer
	w.Error(string(errUnknownOutcome))
	rm.tenant.answer(rm.id, req, w.Buf)
}

// forget gives up replies that have arrived.
func (rm *remote) forget(oldest uint32) {
	n := 0
	for n < len(rm.done) && rm.done[n].req < oldest {
		rm.kept -= len(rm.done[n].body)
		rm.done[n].body = nil
		n++
	}
	rm.done = rm.done[n:]
}

// run carries a request out.
func (rm *remote) run(r *request) {
	t := rm.tenant
	rm.last = r.req
	rm.db, rm.proto = r.db, 2
	if r.flags&flagResp3 != 0 {
		rm.proto = 3
	}
	out := resp.Writer{Proto: rm.proto}
	req := engine.Request{
		Client: rm, Now: t.Now(), Out: &out,
		Origin: journal.Origin{Session: r.session, Req: r.req},
	}
	if r.flags&flagExec != 0 {
		rm.inExec = true
		rm.exec(r, &req)
		rm.inExec = false
		rm.finish(r.req, out.Buf)
		return
	}
	row, err := command.Resolve(r.argvs[0])
	if err != nil {
		out.Error(command.Reply(err))
		rm.finish(r.req, out.Buf)
		return
	}
	req.Row, req.Argv, req.Wait = row, r.argvs[0], rm
	if p := t.Engine.Run(&req); p != nil {
		rm.parked, rm.parkedAs = p, r.req
		if p.Timeout > 0 {
			rm.timer = t.after(p.Timeout, rm.timeout)
		}
		return
	}
	rm.finish(r.req, out.Buf)
}

// exec runs a forwarded transaction.
func (rm *remote) exec(r *request, req *engine.Request) {
	for _, w := range r.watches {
		if rm.tenant.changedSince(w) {
			req.Out.NullArray()
			return
		}
	}
	queued := make([]engine.Queued, 0, len(r.argvs))
	for _, argv := range r.argvs {
		row, err := command.Resolve(argv)
		if err != nil {
			req.Out.Error(command.Reply(command.ErrExecAbort))
			return
		}
		queued = append(queued, engine.Queued{Row: row, Argv: argv})
	}
	rm.tenant.Engine.RunAll(req, queued, false)
}

// changedSince reports whether a watched key may have been changed.
func (t *Tenant) changedSince(w watch) bool {
	head := t.Engine.Position()
	if !head.Covers(w.since) {
		return true // it was watched in a history that isn't ours
	}
	ks := t.Engine.Keyspace()
	if w.state == present && !ks.Has(w.db, w.key, t.Now()) {
		return true
	}
	return ks.ChangedSince(w.db, w.key, w.since.Seq)
}

// finish answers a request and goes on with what came behind it.
func (rm *remote) finish(req uint32, body []byte) {
	if rm.kept+len(body) <= keptBytes {
		rm.done = append(rm.done, answered{req, body})
		rm.kept += len(body)
	}
	rm.tenant.answer(rm.id, req, body)
	for rm.parked == nil && len(rm.behind) > 0 {
		next := rm.behind[0]
		rm.behind = rm.behind[1:]
		if r, err := parseRequest(next); err == nil {
			rm.run(&r)
		}
	}
}

// answer sends a reply behind the entries that were made up to now.
func (t *Tenant) answer(id remoteID, req uint32, body []byte) {
	t.replies = append(t.replies, remoteReply{id.node, appendReply(nil, id.session, req, t.Engine.Position(), body)})
	t.markDirty()
}

// Served is the reply of the command that waited.
func (rm *remote) Served(body []byte) {
	if rm.timer != nil {
		rm.timer.Stop()
		rm.timer = nil
	}
	rm.parked = nil
	rm.finish(rm.parkedAs, append([]byte(nil), body...))
}

// timeout ends the wait of a command whose time is up.
func (rm *remote) timeout() {
	t := rm.tenant
	t.Engine.Lock()
	defer t.Engine.Unlock()
	rm.timer = nil
	if rm.parked == nil || !t.Engine.Unpark(rm.parked) {
		return
	}
	out := resp.Writer{Proto: rm.proto}
	rm.parked.TimedOut(&out)
	rm.parked = nil
	rm.finish(rm.parkedAs, out.Buf)
}

// remoteClosed says that nobody waits for a session any more.
func (t *Tenant) remoteClosed(node string, payload []byte) error {
	if len(payload) != 8 {
		return errForward
	}
	boot, _ := t.Host.Up(node)
	t.dropRemote(remoteID{node, boot, binary.LittleEndian.Uint64(payload)})
	return nil
}

func (t *Tenant) dropRemote(id remoteID) {
	rm := t.remotes[id]
	if rm == nil {
		return
	}
	if rm.timer != nil {
		rm.timer.Stop()
	}
	if rm.parked != nil {
		t.Engine.Unpark(rm.parked)
	}
	delete(t.remotes, id)
}

// forgetRemotes drops those whose node hasn't been heard of.
func (t *Tenant) forgetRemotes(now int64) {
	for id, rm := range t.remotes {
		if now-rm.seen > remoteIdle {
			if boot, up := t.Host.Up(id.node); !up || boot != id.boot {
				t.dropRemote(id)
			}
		}
	}
}

// replied takes the primary's reply to a session here.
func (t *Tenant) replied(payload []byte) error {
	session, req, head, body, err := parseReply(payload)
	if err != nil {
		return err
	}
	if s := t.waiting[session]; s != nil {
		s.replied(req, head, body)
	}
	return nil
}

// replicaWait is a WAIT that isn't satisfied.
type replicaWait struct {
	pos      catalog.Position
	replicas int
	timer    Timer
	done     func(n int)
}

// waitReplicas calls done with the number of replicas that have pos once there
// are enough, or the time is up; 0 is for ever. It may call it at once.
func (t *Tenant) waitReplicas(pos catalog.Position, replicas int, timeout time.Duration, done func(n int)) *replicaWait {
	w := &replicaWait{pos: pos, replicas: replicas, done: done}
	if timeout > 0 {
		w.timer = t.after(timeout.Milliseconds(), func() {
			t.Engine.Lock()
			defer t.Engine.Unlock()
			w.timer = nil
			t.endWait(w)
		})
	}
	t.waits = append(t.waits, w)
	return w
}

func (t *Tenant) acknowledged(pos catalog.Position) int {
	if t.feed == nil {
		return 0
	}
	return t.feed.Acknowledged(pos)
}

func (t *Tenant) endWait(w *replicaWait) {
	for i, other := range t.waits {
		if other == w {
			t.waits = append(t.waits[:i], t.waits[i+1:]...)
			if w.timer != nil {
				w.timer.Stop()
			}
			w.done(t.acknowledged(w.pos))
			return
		}
	}
}

// checkWaits ends the waits that acknowledgements have satisfied.
func (t *Tenant) checkWaits() {
	for i := 0; i < len(t.waits); {
		if w := t.waits[i]; t.acknowledged(w.pos) >= w.replicas {
			t.endWait(w)
		} else {
			i++
		}
	}
}

// What follows makes a remote the command.Client of what it runs. Commands
// about a connection are answered by the session itself, so only the few that
// are forwarded, or that stand inside a transaction, come here.

var errNotForwarded = errors.New("this command can't be forwarded")

func (rm *remote) ID() int64                                           { return int64(rm.id.session) }
func (rm *remote) Name() string                                        { return "" }
func (rm *remote) SetName(string)                                      {}
func (rm *remote) SetLibrary(string, string)                           {}
func (rm *remote) Authenticate([]byte, []byte) bool                    { return true }
func (rm *remote) Authenticated() bool                                 { return true }
func (rm *remote) Proto() int                                          { return rm.proto }
func (rm *remote) SetProto(int, *resp.Writer)                          {}
func (rm *remote) DB() int                                             { return rm.db }
func (rm *remote) Select(db int)                                       { rm.db = db }
func (rm *remote) Quit()                                               {}
func (rm *remote) Reset(*resp.Writer)                                  {}
func (rm *remote) Multi() error                                        { return errNotForwarded }
func (rm *remote) Exec(*resp.Writer) error                             { return errNotForwarded }
func (rm *remote) Discard() error                                      { return errNotForwarded }
func (rm *remote) Watch([][]byte) error                                { return errNotForwarded }
func (rm *remote) Unwatch()                                            {}
func (rm *remote) Server() command.Server                              { return rm.tenant }
func (rm *remote) Subscribe(command.Channel, [][]byte, *resp.Writer)   {}
func (rm *remote) Unsubscribe(command.Channel, [][]byte, *resp.Writer) {}

func (rm *remote) Publish(kind command.Channel, channel, message []byte) int {
	return rm.tenant.publish(kind, channel, message)
}

// WaitReplicas counts at the present position: the session has seen nothing
// newer.
func (rm *remote) WaitReplicas(replicas int, timeout time.Duration, out *resp.Writer) error {
	t := rm.tenant
	pos := t.Engine.Position()
	if n := t.acknowledged(pos); n >= replicas || rm.inExec {
		out.Int(int64(n))
		return nil
	}
	t.waitReplicas(pos, replicas, timeout, func(n int) {
		var w resp.Writer
		w.Int(int64(n))
		rm.Served(w.Buf)
	})
	return engine.ErrElsewhere
}

// Subscribed is false: messages go to the session, not through here.
func (rm *remote) Subscribed() bool { return false }
