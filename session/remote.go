package session

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"vecino/catalog"
	"vecino/command"
	"vecino/engine"
	"vecino/journal"
	"vecino/resp"
)

// remoteID names a session of another node. Session numbers are never used
// twice; see Session.send.
type remoteID struct {
	node    string
	session uint64
}

// A remote is the primary's side of a session on a replica: it runs what the
// session forwards, in order and each request once. A request that comes
// again, because the link broke before its reply arrived, gets the same reply
// again.
//
//	            run                 answer
//	(request) ------> idle again <---------- parked
//	    |               |    a key, replicas     ^
//	    |               +------------------------+
//	    +--> behind, while one is parked
//
// Behind stands also a request that has to wait for room in the node's memory; see Room.
//
// While the link is down nothing is parked: whatever would be popped for the
// session might never reach it. It sends the request again when it can.
type remote struct {
	tenant *Tenant
	id     remoteID
	db     int
	proto  int

	last   uint32     // the highest request that was begun
	done   []answered // replies that the session may ask for again
	kept   int        // bytes of those
	behind []waitingRequest
	seen   int64 // when it last asked for something, or was answered
	inExec bool

	// Of the request last, while it waits.
	parked *engine.Parked
	unrun  []byte // the request, if it waits for what is not in memory
	wait   *replicaWait
	timer  Timer
	end    *unblocking // of a request that is to wait no longer

	waitDisk *durableWait
}

type answered struct {
	req  uint32
	body []byte
}

// waitingRequest came while one before it was parked.
type waitingRequest struct {
	req     uint32
	payload []byte
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
	// It is much longer than a session waits for a link to come back; those of a
	// process that is gone go with it.
	remoteIdle = 60_000
)

var (
	errUnknownOutcome = command.Error("UNKNOWNOUTCOME the link to the primary broke; the command may or may not have been carried out")
	errNotPrimary     = command.Error("TRYAGAIN this node is not the primary any more; the command was not carried out")
	errUnblocked      = command.Error("UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)")
)

// forwarded takes a request from a session on another node.
func (t *Tenant) forwarded(node string, payload []byte) error {
	r, err := parseRequest(payload)
	if err != nil {
		return err
	}
	id := remoteID{node, r.session}
	rm := t.remotes[id]
	if rm == nil {
		if t.feed == nil {
			t.answer(id, r.req, errorReply(errNotPrimary))
			return nil
		}
		rm = &remote{tenant: t, id: id}
		if t.remotes == nil {
			t.remotes = make(map[remoteID]*remote)
		}
		t.remotes[id] = rm
	}
	rm.seen = t.Now()
	rm.forget(r.oldest)
	switch n := len(rm.behind); {
	case r.req <= rm.last:
		rm.again(r.req)
	case t.feed == nil: // the catalog moved on; the session hears of it, too
		t.answer(id, r.req, errorReply(errNotPrimary))
	case rm.parked == nil && n == 0:
		rm.run(&r, payload)
	case n == 0 || rm.behind[n-1].req < r.req:
		rm.behind = append(rm.behind, waitingRequest{r.req, append([]byte(nil), payload...)})
		if rm.unrun != nil {
			rm.ahead(&r)
		}
	}
	return nil
}

func errorReply(err command.Error) []byte {
	var w resp.Writer
	w.Error(string(err))
	return w.Buf
}

// again answers a request that was begun before.
func (rm *remote) again(req uint32) {
	if rm.parked != nil && rm.last == req {
		return // it still waits
	}
	for _, a := range rm.done {
		if a.req == req {
			rm.tenant.answer(rm.id, req, a.body)
			return
		}
	}
	rm.tenant.answer(rm.id, req, errorReply(errUnknownOutcome))
}

// forget gives up replies that have arrived.
func (rm *remote) forget(oldest uint32) {
	n := 0
	for n < len(rm.done) && rm.done[n].req < oldest {
		rm.kept -= len(rm.done[n].body)
		n++
	}
	clear(rm.done[:n])
	if rm.done = rm.done[n:]; len(rm.done) == 0 {
		rm.done = nil
	}
}

// ahead has the values fetched of a request that comes behind one which waits for
// its own.
func (rm *remote) ahead(r *request) {
	for _, argv := range r.argvs {
		if row, err := command.Resolve(argv); err == nil {
			rm.tenant.Engine.Ahead(nil, r.db, row, argv)
		}
	}
}

// run carries a request out, which payload is.
func (rm *remote) run(r *request, payload []byte) {
	if !rm.hasRoom(r, payload) {
		return
	}
	t := rm.tenant
	rm.last = r.req
	rm.db, rm.proto = r.db, 2
	if r.flags&flagResp3 != 0 {
		rm.proto = 3
	}
	out := resp.Writer{Proto: rm.proto}
	req := engine.Request{
		Client: rm, Now: t.Now(), Out: &out,
		Origin: journal.Origin{Session: r.session, Req: r.req}, Load: rm,
	}
	if r.flags&flagExec != 0 {
		rm.inExec = true
		p := rm.exec(r, &req)
		rm.inExec = false
		if p != nil {
			rm.parked, rm.unrun = p, append([]byte(nil), payload...)
			return
		}
		rm.answer(r.req, out.Buf)
		return
	}
	row, err := command.Resolve(r.argvs[0])
	if err == nil {
		err = t.quota.checkForwarded(row, r.argvs[0], new(int64))
	}
	if err != nil {
		out.Error(command.Reply(err))
		rm.answer(r.req, out.Buf)
		return
	}
	req.Row, req.Argv, req.Wait = row, r.argvs[0], rm
	if p := t.Engine.Run(&req); p != nil {
		rm.parked = p
		if p.Unrun() {
			rm.unrun = append([]byte(nil), payload...)
			return
		}
		if rm.end != nil && rm.end.req == r.req {
			rm.unblock(*rm.end)
			return
		}
		if p.Timeout > 0 {
			rm.timer = t.after(p.Timeout, rm.timeout)
		}
		return
	}
	rm.answer(r.req, out.Buf)
}

// Loaded runs the request that could not be run.
func (rm *remote) Loaded(err error) {
	payload := rm.unrun
	rm.parked, rm.unrun = nil, nil
	if err != nil {
		var out resp.Writer
		out.Error(command.Reply(err))
		rm.answer(rm.last, out.Buf)
	} else if r, err := parseRequest(payload); err == nil {
		rm.run(&r, payload)
	}
	rm.goOn()
}

// exec runs a forwarded transaction. It returns what that waits as, if it can't be
// run yet.
func (rm *remote) exec(r *request, req *engine.Request) *engine.Parked {
	if p := rm.tenant.Engine.Await(rm); p != nil {
		return p
	}
	if p := rm.tenant.awaitWatched(rm, r.watches); p != nil {
		return p
	}
	for _, w := range r.watches {
		if rm.tenant.changedSince(w) {
			req.Out.NullArray()
			return nil
		}
	}
	queued := make([]engine.Queued, 0, len(r.argvs))
	size := int64(0)
	for _, argv := range r.argvs {
		row, err := command.Resolve(argv)
		if err == nil {
			err = rm.tenant.quota.checkForwarded(row, argv, &size)
		}
		if err != nil {
			req.Out.Error(command.Reply(command.ErrExecAbort))
			return nil
		}
		queued = append(queued, engine.Queued{Row: row, Argv: argv})
	}
	return rm.tenant.transact(req, queued, false)
}

// awaitWatched has who told when it is known which of the watched keys are there. It
// returns nil if it is.
func (t *Tenant) awaitWatched(who engine.Loader, watches []watch) *engine.Parked {
	return t.Engine.AwaitKeys(who, t.Now(), func(yield func(int, []byte) bool) {
		for i := range watches {
			if !yield(watches[i].db, watches[i].key) {
				return
			}
		}
	})
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
	if w.state == absent {
		return ks.AppearedSince(w.db, w.key, w.since.Seq)
	}
	return ks.ChangedSince(w.db, w.key, w.since.Seq)
}

// answer replies to a request, and keeps the reply.
func (rm *remote) answer(req uint32, body []byte) {
	if rm.kept+len(body) <= keptBytes {
		rm.done = append(rm.done, answered{req, body})
		rm.kept += len(body)
	}
	rm.seen = rm.tenant.Now()
	rm.tenant.answer(rm.id, req, body)
}

// answer sends a reply behind the entries that were made up to now.
func (t *Tenant) answer(id remoteID, req uint32, body []byte) {
	t.replies = append(t.replies, remoteReply{id.node, appendReply(nil, id.session, req, t.Engine.Position(), body)})
	t.markDirty()
}

// Served is the reply of the command that waited.
func (rm *remote) Served(body []byte) {
	rm.unpark()
	rm.answer(rm.last, append([]byte(nil), body...))
	rm.goOn()
}

// unpark ends the wait, whoever ended it.
func (rm *remote) unpark() {
	if rm.timer != nil {
		rm.timer.Stop()
		rm.timer = nil
	}
	if rm.wait != nil {
		rm.tenant.cancelWait(rm.wait)
		rm.wait = nil
	}
	if rm.waitDisk != nil {
		rm.tenant.cancelDurable(rm.waitDisk)
		rm.waitDisk = nil
	}
	if rm.parked != nil {
		rm.tenant.Engine.Unpark(rm.parked)
		rm.parked, rm.unrun = nil, nil
	}
}

// goOn runs what came behind the request that waited.
func (rm *remote) goOn() {
	for rm.parked == nil && len(rm.behind) > 0 {
		next := rm.behind[0]
		rm.behind[0] = waitingRequest{}
		rm.behind = rm.behind[1:]
		if r, err := parseRequest(next.payload); err == nil {
			rm.run(&r, next.payload)
		}
		if len(rm.behind) > 0 && rm.behind[0].req == next.req {
			return // there is no room for it
		}
	}
}

// timeout ends the wait of a command whose time is up.
func (rm *remote) timeout() {
	t := rm.tenant
	t.Engine.Lock()
	defer t.Engine.Unlock()
	rm.timer = nil
	if rm.parked != nil {
		rm.timeUp()
	}
}

// interrupt says that the link is down: what waits is as if it had never
// been begun, and comes again when the link is up.
func (rm *remote) interrupt() {
	if rm.parked != nil {
		rm.unpark()
		rm.last--
	}
	rm.behind = nil
}

// refuse answers what waits: this isn't the primary any more.
func (rm *remote) refuse() {
	if rm.parked != nil {
		rm.unpark()
		rm.answer(rm.last, errorReply(errNotPrimary))
	}
	for _, w := range rm.behind {
		rm.last = w.req
		rm.answer(w.req, errorReply(errNotPrimary))
	}
	rm.behind = nil
}

// remoteClosed says that nobody waits for a session any more.
func (t *Tenant) remoteClosed(node string, payload []byte) error {
	if len(payload) != 8 {
		return errForward
	}
	t.dropRemote(t.remotes[remoteID{node, binary.LittleEndian.Uint64(payload)}])
	return nil
}

func (t *Tenant) dropRemote(rm *remote) {
	if rm != nil {
		rm.unpark()
		rm.behind = nil
		delete(t.remotes, rm.id)
	}
}

// remotesOf lists the sessions of a node, "" for all, oldest first.
func (t *Tenant) remotesOf(node string) []*remote {
	var all []*remote
	for id, rm := range t.remotes {
		if node == "" || id.node == node {
			all = append(all, rm)
		}
	}
	slices.SortFunc(all, func(a, b *remote) int {
		return cmp.Or(cmp.Compare(a.id.node, b.id.node), cmp.Compare(a.id.session, b.id.session))
	})
	return all
}

// forgetRemotes drops those that have asked for nothing in a long time. A
// session that comes again begins anew; what it could ask for once more, it has
// given up long ago.
func (t *Tenant) forgetRemotes(now int64) {
	for _, rm := range t.remotes {
		if now-rm.seen > remoteIdle && rm.parked == nil && len(rm.behind) == 0 {
			t.dropRemote(rm)
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
// are enough, or the time is up; 0 is for ever. It doesn't call it at once.
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

// cancelWait forgets a WAIT without an answer.
func (t *Tenant) cancelWait(w *replicaWait) {
	if i := slices.Index(t.waits, w); i >= 0 {
		t.waits = slices.Delete(t.waits, i, i+1)
	}
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

func (t *Tenant) acknowledged(pos catalog.Position) int {
	if t.feed == nil {
		return 0
	}
	return t.feed.Acknowledged(pos)
}

// endWait answers a WAIT.
func (t *Tenant) endWait(w *replicaWait) {
	t.cancelWait(w)
	w.done(t.acknowledged(w.pos))
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

var errNotForwarded = command.Error("ERR this command can't be forwarded to the primary")

func (rm *remote) ID() int64                                           { return int64(rm.id.session) }
func (rm *remote) Name() string                                        { return "" }
func (rm *remote) SetName(string)                                      {}
func (rm *remote) SetLibrary(string, string)                           {}
func (rm *remote) SetReplies(command.Replies) error                    { return errNotForwarded }
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
func (rm *remote) Unsubscribe(command.Channel, [][]byte, *resp.Writer) {}

// Subscribe is only reached by a primary of another version: a session doesn't
// forward it.
func (rm *remote) Subscribe(_ command.Channel, _ [][]byte, out *resp.Writer) {
	out.Error(command.Reply(errNotForwarded))
}

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
	rm.wait = t.waitReplicas(pos, replicas, timeout, func(n int) {
		var w resp.Writer
		w.Int(int64(n))
		rm.Served(w.Buf)
	})
	return engine.ErrElsewhere
}

// Subscribed is false: messages go to the session, not through here.
func (rm *remote) Subscribed() bool { return false }
