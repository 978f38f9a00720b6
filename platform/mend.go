package platform

import (
	"context"
	"fmt"
	"time"

	"vecino/api"
)

// begin says that a request is at work on a record, and returns what says
// that it has ended.
func (p *Platform) begin(uid string) (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.atWork[uid]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.mu.atWork[uid]--; p.mu.atWork[uid] == 0 {
			delete(p.mu.atWork, uid)
		}
	}
}

func (p *Platform) isAtWork(uid string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.atWork[uid] > 0
}

// Bounds of the waits between two tries to mend.
const (
	mendFirst = 100 * time.Millisecond
	mendLast  = 5 * time.Second
	mendIdle  = time.Hour // to forget old idempotency keys
)

// mender carries intents to their end that nobody is at work on: those of a
// platform that died, and those whose request couldn't reach the fleet.
func (p *Platform) mender(ctx context.Context) {
	wait := mendFirst
	for {
		left, err := p.mend(ctx)
		if err == nil && left == 0 {
			err = p.store.sweep(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			p.log.Warn("intents are not carried out yet", "left", left, "error", err)
		}
		next := mendIdle
		if err != nil || left > 0 {
			next, wait = wait, min(2*wait, mendLast)
		} else {
			wait = mendFirst
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-p.kick:
			timer.Stop()
		}
	}
}

func (p *Platform) wakeMender() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// mend looks at all records once and returns how many intents are left.
func (p *Platform) mend(ctx context.Context) (left int, err error) {
	list, _, err := p.store.list(ctx, "")
	if err != nil {
		return 0, err
	}
	for _, r := range list {
		if r.Phase == ready && !r.Resetting || p.isAtWork(r.UID) {
			continue
		}
		if mendErr := p.mendOne(ctx, r); mendErr != nil {
			left++
			err = fmt.Errorf("%s: %w", r.Phase, mendErr)
			continue
		}
		p.log.Info("intent of an earlier request carried out", "phase", r.Phase)
	}
	return left, err
}

// mendOne carries out one intent, unless its request came to its end since the
// record was listed.
func (p *Platform) mendOne(ctx context.Context, listed record) error {
	defer p.begin(listed.UID)()
	ctx, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	r, found, err := p.store.get(ctx, listed.Organization, listed.Name)
	if err != nil || !found || r.revision != listed.revision {
		return err
	}
	switch {
	case r.Phase == creating || r.Phase == undoing:
		return p.undo(ctx, &r)
	case r.Phase == destroying:
		return p.destroyIt(ctx, &r)
	default:
		return p.resetIt(ctx, &r)
	}
}

// destroy ends a database. Once the intent is recorded it isn't routed any
// more, and will be gone even if the platform dies.
func (p *Platform) destroy(ctx context.Context, r *record) error {
	if r.Phase != ready && r.Phase != destroying {
		return busy(r)
	}
	defer p.begin(r.UID)()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	if err := p.destroyIt(ctx, r); err != nil {
		p.wakeMender()
		if api.CodeOf(err) == api.Conflict {
			return err
		}
		return p.fleetError(err)
	}
	p.destroyed.Inc()
	p.log.Info("database destroyed", "database", uint64(r.Database))
	return nil
}

func (p *Platform) destroyIt(ctx context.Context, r *record) error {
	if r.Phase != destroying {
		r.Phase = destroying
		if err := p.store.put(ctx, r); err != nil {
			return err
		}
	}
	if p.crash("destroying") {
		return errCrashed
	}
	if err := p.fleet.DeleteDatabase(ctx, r.Database); err != nil {
		return fmt.Errorf("destroy at the fleet: %w", err)
	}
	if p.crash("fleet destroyed") {
		return errCrashed
	}
	return p.store.drop(ctx, r)
}

// resetPassword gives a database a new password. If the platform dies between
// the fleet's new password and its own record of it, it resets once more.
func (p *Platform) resetPassword(ctx context.Context, r *record) error {
	if r.Phase != ready {
		return busy(r)
	}
	defer p.begin(r.UID)()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	if err := p.resetIt(ctx, r); err != nil {
		p.wakeMender()
		if api.CodeOf(err) == api.Conflict {
			return err
		}
		return p.fleetError(err)
	}
	p.log.Info("password reset", "database", uint64(r.Database))
	return nil
}

func (p *Platform) resetIt(ctx context.Context, r *record) error {
	if !r.Resetting {
		r.Resetting = true
		if err := p.store.put(ctx, r); err != nil {
			return err
		}
	}
	if p.crash("resetting") {
		return errCrashed
	}
	d, err := p.fleet.ResetPassword(ctx, r.Database)
	if err != nil {
		return fmt.Errorf("reset at the fleet: %w", err)
	}
	if p.crash("fleet reset") {
		return errCrashed
	}
	r.Password, r.Resetting = p.sealer.seal(d.Password, r.UID), false
	return p.store.put(ctx, r)
}

// busy is the answer to a request for a database that is coming or going.
func busy(r *record) error {
	return api.Errorf(api.Conflict, "database %q is %s; try again in a moment", r.Name, r.Phase)
}
