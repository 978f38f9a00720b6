package link

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

var (
	// ErrDown is why a frame wasn't queued: there is no link to that node now.
	ErrDown = errors.New("link is down")

	// ErrClosed is the cause of LinkDown when this hub was closed.
	ErrClosed = errors.New("hub closed")

	// ErrRemoved is the cause of LinkDown when SetPeers left the node out.
	ErrRemoved = errors.New("node is no longer a peer")

	// ErrReplaced is the cause of LinkDown when the peer has made a new link: it
	// was restarted, or it saw the old one break first.
	ErrReplaced = errors.New("replaced by a newer link")

	// ErrQueueFull is the cause of LinkDown when Send found no room.
	ErrQueueFull = errors.New("queue full")

	// ErrSilent is the cause of LinkDown when nothing was heard for too long.
	ErrSilent = errors.New("nothing heard")
)

// laneConn is the connection of a lane after its handshake.
type laneConn struct {
	conn net.Conn
	raw  net.Conn
}

// A link is one incarnation of the link to a peer, from the end of the
// handshakes to the end of its last goroutine:
//
//	        newLink                  fail, from any goroutine
//	(lanes) -------> up: send works -------------------------> broken
//	                 LinkUp, Frame*                            all have ended
//	                                                           LinkDown
type link struct {
	hub   *Hub
	peer  *peer
	boot  uint64
	since time.Time
	lanes [numLanes]*lane

	once   sync.Once
	broken chan struct{}
	cause  error // set before broken is closed
	tasks  sync.WaitGroup
}

func newLink(p *peer, boot uint64, conns [numLanes]laneConn) *link {
	l := &link{hub: p.hub, peer: p, boot: boot, since: time.Now(), broken: make(chan struct{})}
	for i, c := range conns {
		l.lanes[i] = newLane(Lane(i), l, c)
	}
	return l
}

// fail breaks the link; the first cause counts. It doesn't wait for anything:
// send calls it too.
func (l *link) fail(cause error) {
	l.once.Do(func() {
		l.cause = cause
		close(l.broken)
		for _, lane := range l.lanes {
			lane.close()
		}
	})
}

// serve runs the link until it breaks. Writers run before LinkUp so that the
// handler may already send in it, readers after it so that it is the first
// thing the handler hears. LinkDown comes when the last reader has ended.
func (l *link) serve() {
	h, p := l.hub, l.peer
	for _, lane := range l.lanes {
		l.tasks.Go(lane.write)
	}
	l.tasks.Go(l.watch)
	p.link.Store(l)

	h.log.Info("link up", "node", p.id, "boot", l.boot)
	h.cfg.Handler.LinkUp(p.id, l.boot)
	for _, lane := range l.lanes {
		l.tasks.Go(lane.read)
	}

	select {
	case <-l.broken:
	case <-p.ctx.Done():
		l.fail(p.cause())
	}
	l.tasks.Wait()
	p.link.Store(nil)
	h.log.Info("link down", "node", p.id, "boot", l.boot, "cause", l.cause.Error())
	h.cfg.Handler.LinkDown(p.id, l.cause)
}

// watch sends heartbeats and listens for those of the peer. A lane is pinged
// when nothing was written to it for a heartbeat, the live lane in any case,
// since its pongs are what round trips are measured with. Silence counts only
// while the reader waits: a handler that takes its time isn't a dead peer.
func (l *link) watch() {
	defer l.closeAll()
	beat := l.hub.cfg.Heartbeat
	tick := time.NewTicker(beat / 2)
	defer tick.Stop()
	for even := true; ; even = !even {
		now := l.hub.now()
		for _, lane := range l.lanes {
			if lane.id == Live && even || now-lane.written.Load() >= int64(beat) {
				lane.control(ping, now)
			}
			limit := l.hub.cfg.Silence + l.peer.roundTrip()
			if since := lane.waiting.Load(); since != 0 && now-since > int64(limit) {
				l.fail(fmt.Errorf("read %s lane: %w for %v", lane.id, ErrSilent, time.Duration(now-since)))
				return
			}
		}
		select {
		case <-tick.C:
		case <-l.broken:
			return
		}
	}
}

// closeAll ends what reads from the connections or is stuck writing to them.
// To close one can take as long as what it has under way takes to arrive.
func (l *link) closeAll() {
	for _, lane := range l.lanes {
		l.tasks.Go(func() { lane.raw.Close() })
	}
}
