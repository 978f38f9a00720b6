package node

import (
	"context"
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"time"

	"vecino/api"
	"vecino/catalog"
	"vecino/engine"
	"vecino/session"
)

// reporter tells the fleet how the copies here are. However many there are, a report
// has a bounded length and a second a bounded amount of work:
//
//   - of a copy that changed its state the fleet hears at once;
//   - tenants are looked at in turn, tenantsASecond at most: with fewer than that each
//     is, every second. Of one that is other than was last told, or wasn't told of for
//     repeatReport, the fleet hears, so that one that was started anew soon knows all;
//   - so are sleepers, those first that just became some, sleepersASecond at most, then
//     the others again, remindersASecond.
//
// A loop is asked for lookAtOnce of its tenants at a time, and serves others in between.
type reporter struct {
	node *Node
	api  *api.Fleet
	soon chan struct{}

	mu      sync.Mutex
	pending map[catalog.ID]struct{} // copies whose state changed

	// For run.
	turns []int // for each shard, how far down its list
	told  map[catalog.ID]told
}

// told is what the fleet was last told of a copy.
type told struct {
	sum uint64 // of the status
	at  int64  // in ms
}

const (
	tenantsASecond  = 4000
	sleepersASecond = 1000
	copiesAReport   = 500 // some 250 KB; the fleet takes 8 MB
	lookAtOnce      = 128
	repeatReport    = 10 * time.Second
)

func newReporter(n *Node, fleet *api.Fleet) *reporter {
	return &reporter{
		node: n, api: fleet, soon: make(chan struct{}, 1), pending: make(map[catalog.ID]struct{}),
		turns: make([]int, len(n.shards)), told: make(map[catalog.ID]told),
	}
}

// changed has the fleet hear of a copy soon. It is for any goroutine.
func (r *reporter) changed(id catalog.ID) {
	r.mu.Lock()
	r.pending[id] = struct{}{}
	r.mu.Unlock()
	select {
	case r.soon <- struct{}{}:
	default:
	}
}

// run reports until ctx ends.
func (r *reporter) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		whole := false
		select {
		case <-ctx.Done():
			return
		case <-r.soon:
		case <-tick.C:
			whole = true
		}
		r.round(ctx, whole)
	}
}

// round reports what changed its state, and if it is a whole one whose turn it is.
func (r *reporter) round(ctx context.Context, whole bool) {
	r.mu.Lock()
	pending := r.pending
	r.pending = make(map[catalog.ID]struct{})
	r.mu.Unlock()
	list := r.lookAt(pending)
	if whole {
		share := tenantsASecond / len(r.node.shards)
		for _, s := range r.node.shards {
			list = r.lookAtNext(list, s, share)
		}
		list = append(list, r.node.statusOfSleepers(sleepersASecond)...)
	}
	for some := range slices.Chunk(list, copiesAReport) {
		if !r.send(ctx, some) {
			r.again(pending)
			break
		}
	}
	if whole {
		r.tidy()
	}
}

// again keeps what the fleet couldn't be told for the next round.
func (r *reporter) again(pending map[catalog.ID]struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range pending {
		r.pending[id] = struct{}{}
	}
}

func (r *reporter) send(ctx context.Context, list []api.CopyStatus) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := r.api.Report(ctx, r.node.cfg.ID, api.NodeReport{Copies: list}); err != nil {
		if ctx.Err() == nil {
			r.node.log.Debug("report refused", "err", err.Error())
		}
		return false
	}
	now := time.Now().UnixMilli()
	for i := range list {
		r.told[list[i].Database] = told{sumOf(&list[i]), now}
	}
	return true
}

// tidy forgets what was told of copies that are no tenants any more: sleepers, of which
// there may be very many, have a turn of their own.
func (r *reporter) tidy() {
	n := r.node
	n.mu.RLock()
	defer n.mu.RUnlock()
	if len(r.told) <= 2*len(n.mu.byID)+1000 {
		return
	}
	kept := make(map[catalog.ID]told, len(n.mu.byID))
	for id := range n.mu.byID {
		if t, ok := r.told[id]; ok {
			kept[id] = t
		}
	}
	r.told = kept
}

// lookAt lists how some tenants are.
func (r *reporter) lookAt(ids map[catalog.ID]struct{}) (list []api.CopyStatus) {
	if len(ids) == 0 {
		return nil
	}
	of := make([][]catalog.ID, len(r.node.shards))
	for id := range ids {
		i := r.node.shardOf(id).index
		of[i] = append(of[i], id)
	}
	for i, s := range r.node.shards {
		for some := range slices.Chunk(of[i], lookAtOnce) {
			s.do(func() {
				for _, id := range some {
					t := s.tenants[id]
					if t == nil {
						continue
					}
					if st, ok := s.status(t); ok {
						list = append(list, st)
					} else {
						r.again(map[catalog.ID]struct{}{id: {}})
					}
				}
			})
		}
	}
	return list
}

// lookAtNext adds those of a shard's next tenants that the fleet is to hear of.
func (r *reporter) lookAtNext(list []api.CopyStatus, s *shard, most int) []api.CopyStatus {
	now, at := time.Now().UnixMilli(), r.turns[s.index]
	for looked, more := 0, true; more && looked < most; looked += lookAtOnce {
		more = false // if the loop has ended
		s.do(func() {
			for range min(lookAtOnce, len(s.order)-looked) {
				if at >= len(s.order) {
					at = 0
				}
				st, ok := s.status(s.order[at])
				at++
				if !ok {
					continue // the next round tells
				}
				if old := r.told[st.Database]; now-old.at >= repeatReport.Milliseconds() || old.sum != sumOf(&st) {
					list = append(list, st)
				}
			}
			more = looked+lookAtOnce < len(s.order)
		})
	}
	r.turns[s.index] = at
	return list
}

// status is how a copy is, unless one of its commands holds it. It is for the loop's
// thread.
func (s *shard) status(t *session.Tenant) (st api.CopyStatus, ok bool) {
	if !t.Here() || !t.Engine.TryLock() {
		return st, false
	}
	rec, sizes, pos := t.Record(), t.Engine.Sizes(), t.Engine.Position()
	st = api.CopyStatus{
		Database: rec.ID, Role: catalog.Replica, State: catalog.Syncing, Applied: pos, Head: pos, LagMS: t.Lag(),
		Bytes: sizes.Used, Keys: sizes.Keys, Connections: int64(t.Connections()), CommandsPerS: t.CommandsPerS(), Delayed: int64(t.Delayed()),
		Asleep: t.Engine.State() != engine.Awake, Resident: sizes.Resident, ColdKeys: int64(sizes.ColdKeys), ColdBytes: sizes.ColdBytes,
		HitRatio: math.Round(1000*t.HitRatio()) / 1000, WakeMS: t.Engine.Stats().WakeMS,
	}
	t.Engine.Unlock()
	if c := rec.CopyOn(s.node.cfg.ID); c != nil {
		st.Generation = c.Generation
	}
	if t.IsPrimary() {
		st.Role = catalog.Primary
	}
	if t.Ready() {
		st.State = catalog.Live
	}
	return st, true
}

var statusSeed = maphash.MakeSeed()

// sumOf tells statuses apart, short of a coincidence that the next repetition mends.
func sumOf(st *api.CopyStatus) uint64 { return maphash.Comparable(statusSeed, *st) }
