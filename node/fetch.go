package node

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"vecino/engine"
	"vecino/keyspace"
)

// fetcher reads from the tier what commands wait for: single values, and whole
// databases that slept. Loops ask and go on; a few goroutines read, and what
// they found is told in the turns of the database that asked.
//
// Databases are served in turn, a value each, so that who asks for a lot waits
// for that himself.
//
//	loop --Fetch--> queue of the database --+
//	loop --Fetch--> queue of the database --+--> readers --> found --Post--> turn of the database
//	                                        turns
type fetcher struct {
	node  *Node
	read  func(db *engine.DB, k keyspace.ColdKey) (w *keyspace.Warm, bytes int, err error)
	whole func(db *engine.DB) (*keyspace.Keyspace, error)

	mu     sync.Mutex
	work   sync.Cond
	queues map[*engine.DB]*fetchQueue
	turns  []*fetchQueue // with something to read
	waking []*engine.DB
	closed bool
	tasks  sync.WaitGroup

	fetches, fetchedBytes, failures, wakes atomic.Int64
	fetchTime, wakeTime                    latencies
}

// fetchQueue is what one database waits for.
type fetchQueue struct {
	db      *engine.DB
	asked   []asked
	found   []found
	telling bool // the database will look at found
}

type asked struct {
	key keyspace.ColdKey
	at  time.Time
}

type found struct {
	key   keyspace.ColdKey
	value *keyspace.Warm
	bytes int // that were read
	err   error
}

// readersFor is how many values are read at a time: enough to keep a disk busy,
// few beside the loops.
func readersFor(cores int) int { return min(max(2*cores, 2), 8) }

func newFetcher(n *Node, readers int) *fetcher {
	f := &fetcher{node: n, queues: make(map[*engine.DB]*fetchQueue)}
	f.work.L = &f.mu
	f.read, f.whole = n.store.read, n.store.whole
	for range readers {
		f.tasks.Go(f.run)
	}
	return f
}

// Fetch is called with the lock of the database held. See engine.Storage.
func (f *fetcher) Fetch(db *engine.DB, keys []keyspace.ColdKey) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	q := f.queues[db]
	if q == nil {
		q = &fetchQueue{db: db}
		f.queues[db] = q
	}
	if len(q.asked) == 0 {
		f.turns = append(f.turns, q)
	}
	for _, k := range keys {
		q.asked = append(q.asked, asked{k, now})
	}
	f.work.Signal()
}

// Wake is called with the lock of the database held. See engine.Storage.
func (f *fetcher) Wake(db *engine.DB) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waking = append(f.waking, db)
	f.work.Signal()
}

// close ends the readers. What they haven't read is not read any more.
func (f *fetcher) close() {
	f.mu.Lock()
	f.closed = true
	f.work.Broadcast()
	f.mu.Unlock()
	f.tasks.Wait()
}

// readsATurn is after how many values a reader lets others have its processor: some
// 0.1 ms.
const readsATurn = 4

// run is a reader. Every other thing that it does is to wake a database, if
// there is one to be woken, so that neither waits for the other. One that leaves something
// to be done wakes the next, so that as many are awake as there is work for.
func (f *fetcher) run() {
	wakeFirst := false
	for n := 1; ; n++ {
		f.mu.Lock()
		for len(f.turns) == 0 && len(f.waking) == 0 && !f.closed {
			f.work.Wait()
		}
		if f.closed {
			f.mu.Unlock()
			return
		}
		if len(f.waking) > 0 && (wakeFirst || len(f.turns) == 0) {
			wakeFirst = false
			db := f.waking[0]
			f.waking = f.waking[1:]
			f.wakeNext()
			f.mu.Unlock()
			f.wake(db)
		} else {
			wakeFirst = true
			q := f.turns[0]
			f.turns = f.turns[1:]
			a := q.asked[0]
			q.asked[0] = asked{}
			if q.asked = q.asked[1:]; len(q.asked) > 0 {
				f.turns = append(f.turns, q)
			}
			f.wakeNext()
			f.mu.Unlock()
			f.fetch(q, a)
		}
		// A reader that always finds something to do would keep its processor
		// from a loop until the scheduler takes it away, which is long.
		if n%readsATurn == 0 {
			runtime.Gosched()
		}
	}
}

// wakeNext wakes another reader if there is something left for it.
func (f *fetcher) wakeNext() {
	if len(f.turns)+len(f.waking) > 0 {
		f.work.Signal()
	}
}

func (f *fetcher) fetch(q *fetchQueue, a asked) {
	value, bytes, err := f.read(q.db, a.key)
	f.fetches.Add(1)
	f.fetchedBytes.Add(int64(bytes))
	if err != nil {
		f.failures.Add(1)
		f.node.log.Error("value can't be read", "db", uint64(q.db.ID()), "err", err.Error())
	}
	f.fetchTime.add(time.Since(a.at))
	f.mu.Lock()
	q.found = append(q.found, found{a.key, value, bytes, err})
	tell := !q.telling
	q.telling = true
	f.mu.Unlock()
	if tell {
		f.tell(q)
	}
}

// tell has the database look at what was found in a turn of its.
func (f *fetcher) tell(q *fetchQueue) {
	p := f.node.find(q.db.ID())
	if p == nil || p.Engine != q.db || !p.Owner.Post(func() { f.deliver(q, p) }) {
		f.mu.Lock()
		delete(f.queues, q.db) // nobody is there to hear it
		f.mu.Unlock()
	}
}

// A turn takes so many values, or bytes of values, and leaves the rest to the
// next, so that nobody on the loop waits long.
const (
	valuesATurn = 64
	bytesATurn  = 256 << 10
)

func (f *fetcher) deliver(q *fetchQueue, p *placed) {
	f.mu.Lock()
	n, bytes := 0, 0
	for n < len(q.found) && n < valuesATurn && bytes < bytesATurn {
		bytes += q.found[n].bytes
		n++
	}
	batch := q.found[:n:n]
	q.found = q.found[n:]
	f.mu.Unlock()

	q.db.Lock()
	now := p.Now()
	for i := range batch {
		b := &batch[i]
		q.db.Fetched(now, b.key, b.value, b.err)
		*b = found{}
	}
	q.db.Unlock()

	f.mu.Lock()
	more := len(q.found) > 0
	if !more {
		q.telling, q.found = false, nil
		if len(q.asked) == 0 && f.queues[q.db] == q {
			delete(f.queues, q.db)
		}
	}
	f.mu.Unlock()
	if more {
		f.tell(q)
	}
}

func (f *fetcher) wake(db *engine.DB) {
	began := time.Now()
	ks, err := f.whole(db)
	f.wakes.Add(1)
	f.wakeTime.add(time.Since(began))
	if err != nil {
		f.failures.Add(1)
		f.node.log.Error("database can't be woken", "db", uint64(db.ID()), "err", err.Error())
	}
	p := f.node.find(db.ID())
	if p == nil || p.Engine != db {
		return
	}
	p.Owner.Post(func() {
		db.Lock()
		defer db.Unlock()
		db.Stats().WakeMS = time.Since(began).Milliseconds()
		db.Woken(p.Now(), ks, err)
	})
}

// latencies counts how long something took, in powers of two of a microsecond.
type latencies struct {
	buckets [32]atomic.Int64
	sum     atomic.Int64 // nanoseconds
}

func (l *latencies) add(d time.Duration) {
	i := 0
	for us := d.Microseconds(); us > 0 && i < len(l.buckets)-1; us >>= 1 {
		i++
	}
	l.buckets[i].Add(1)
	l.sum.Add(int64(d))
}

// cumulative is what a histogram of Prometheus wants.
func (l *latencies) cumulative() (count uint64, seconds float64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(l.buckets))
	for i := range l.buckets {
		count += uint64(l.buckets[i].Load())
		buckets[float64(uint64(1)<<i)/1e6] = count
	}
	return count, float64(l.sum.Load()) / 1e9, buckets
}
