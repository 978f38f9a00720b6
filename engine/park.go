package engine

import (
	"cmp"
	"errors"
	"maps"
	"slices"

	"vecino/command"
	"vecino/keyspace"
	"vecino/resp"
)

// Waiter is told the reply of a command that had to wait, with the lock of
// the database held. The bytes are valid during the call.
type Waiter interface {
	Served(reply []byte)
}

// Parked is a command that waits for one of its keys to change. It is run
// again when one does, in the order in which commands came to wait; whoever
// parked it ends the wait by Unpark when the time is up.
type Parked struct {
	Timeout int64 // milliseconds, 0 for ever

	db    int
	keys  []string
	req   Request
	out   resp.Writer
	order uint64 // the larger, the later it came
	gone  bool
	null  bool
	load  *load // of one that waits for values, else nil
}

// parkedSet is who waits for which key.
type parkedSet struct {
	byKey map[waitKey][]*Parked
	needs map[waitKey]int // keys that they name: these stay in memory
	n     int
	next  uint64
}

type waitKey struct {
	db  int
	key string
}

func (s *parkedSet) any() bool { return s.n > 0 }

// Waiting is how many commands wait.
func (db *DB) Waiting() int { return db.parked.n }

// park keeps a command until a key changes. Everything that the client may
// change meanwhile is copied.
func (db *DB) park(r *Request, block *command.Block) *Parked {
	p := &Parked{Timeout: block.Timeout.Milliseconds(), db: r.Client.DB(), req: *r, null: block.Null}
	p.out.Proto = r.Out.Proto
	p.req.Out = &p.out
	p.req.Argv = make([][]byte, len(r.Argv))
	for i, arg := range r.Argv {
		p.req.Argv[i] = append([]byte(nil), arg...)
	}
	s := &db.parked
	if s.byKey == nil {
		s.byKey, s.needs = make(map[waitKey][]*Parked), make(map[waitKey]int)
	}
	for _, key := range block.Keys {
		k := waitKey{p.db, string(key)}
		s.byKey[k] = append(s.byKey[k], p)
		p.keys = append(p.keys, k.key)
	}
	s.name(p, 1)
	s.n++
	s.next++
	p.order = s.next
	return p
}

// name counts the keys that a command names.
func (s *parkedSet) name(p *Parked, by int) {
	for _, key := range p.req.Row.Keys.Of(nil, p.req.Argv) {
		k := waitKey{p.db, string(key)}
		if s.needs[k] += by; s.needs[k] == 0 {
			delete(s.needs, k)
		}
	}
}

// abandon answers all that wait: the database is closed.
func (db *DB) abandon() {
	waiting := make(map[*Parked]struct{})
	for _, list := range db.parked.byKey {
		for _, p := range list {
			waiting[p] = struct{}{}
		}
	}
	byAge := func(a, b *Parked) int { return cmp.Compare(a.order, b.order) }
	for _, p := range slices.SortedFunc(maps.Keys(waiting), byAge) {
		if !p.gone { // whoever was told before may have ended others' waits
			db.parked.remove(p)
			db.fail(&p.out, 0, errClosed)
			p.req.Wait.Served(p.out.Buf)
		}
	}
	for _, p := range db.unrun() {
		if !p.gone {
			p.load.err = nil // it will hear when it is offered again
			db.loaded(p)
		}
	}
	clear(db.fetches.under)
	db.fetches.prints, db.fetches.ranges = nil, nil
	db.fetches.background, db.sleep.waiting = 0, nil
}

// Unpark ends a wait without an answer. It reports false if the command has
// been answered.
func (db *DB) Unpark(p *Parked) bool {
	switch {
	case p.gone:
		return false
	case p.load != nil:
		db.unload(p)
	default:
		db.parked.remove(p)
	}
	return true
}

// TimedOut is what a command answers whose time is up.
func (p *Parked) TimedOut(out *resp.Writer) { out.NullArray() }

func (s *parkedSet) remove(p *Parked) {
	p.gone = true
	s.n--
	s.name(p, -1)
	for _, key := range p.keys {
		k := waitKey{p.db, key}
		list := s.byKey[k]
		kept := list[:0]
		for _, other := range list {
			if other != p {
				kept = append(kept, other)
			}
		}
		clear(list[len(kept):])
		if len(kept) == 0 {
			delete(s.byKey, k)
		} else {
			s.byKey[k] = kept
		}
	}
}

// wake runs the commands that wait for keys that were changed. What they
// change may wake more.
func (db *DB) wake(woken []keyspace.Woken, now int64) {
	queue := append([]keyspace.Woken(nil), woken...)
	for len(queue) > 0 && db.failed == nil {
		k := waitKey{queue[0].DB, queue[0].Key}
		queue = queue[1:]
		for _, p := range append([]*Parked(nil), db.parked.byKey[k]...) {
			if p.gone {
				continue
			}
			queue = append(queue, db.retry(p, now)...)
		}
	}
}

// retry runs a waiting command again. A key of another type is to it as good
// as none.
func (db *DB) retry(p *Parked, now int64) (woken []keyspace.Woken) {
	p.out.Buf = p.out.Buf[:0]
	p.req.Now = now
	tx := db.ks.Begin(p.db, now, db.pos.Seq+1, db.cfg.Rand, true)
	tx.Forgive(p.keys)
	db.lookAt(p.req.Row, p.req.Argv)
	var err error
	switch {
	case db.wantSunk(p.db, p.req.Row, p.req.Argv):
		err = keyspace.ErrCold
	case p.req.Row.Has(command.GrowsMemory):
		err = tx.MayTake(p.req.Argv, false) // it only moves what is there
	}
	if err == nil {
		db.args.Start(p.req.Row, p.req.Argv)
		err = p.req.Row.Write(tx, &db.args, &p.out)
		db.settled()
	}
	effects, changed := tx.End()
	if len(effects) > 0 {
		woken = append(woken, changed...)
		db.make(effects, p.req.Origin, now)
	}
	var block *command.Block
	switch {
	case err == keyspace.ErrCold:
		db.want(p.db, p.req.Row, p.req.Argv)
		if db.cfg.Storage != nil {
			db.fetch(db.newLoad(retrier{db, p}), db.ks.Wanted(), true)
			return woken
		}
		db.fail(&p.out, 0, errNoStorage)
	case errors.As(err, &block):
		return woken
	case err != nil:
		db.fail(&p.out, 0, err)
	}
	db.parked.remove(p)
	p.req.Wait.Served(p.out.Buf)
	return woken
}
