package platform

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"vecino/api"
)

// A creation touches two services, and either may die at any point of it.
//
//  1. Everything the client said is checked; a mistake ends here and leaves
//     nothing.
//  2. reserve: one transaction takes the name, mints the address and records
//     the intent (phase creating) with a random UID.
//  3. The fleet is asked, with the UID as the key of its creation. Asked
//     twice, it makes one database.
//  4. finish: the record gets the fleet's ID and the sealed password and is
//     ready, from which moment it is routed.
//
// If 3 or 4 fails, or the platform finds an intent when it starts, the
// creation is undone: the phase becomes undoing, the fleet is told to cancel
// what came or is still to come under the UID, and then the record goes. An
// address is never minted twice, also not one of a creation undone.
//
// The client's own idempotency key is recorded in 2 and goes when a creation
// is undone. So a client that repeats a request until it has an answer ends
// with exactly one database.

// finishTimeout bounds what happens between reserve and the end. It doesn't
// depend on the client, who may hang up meanwhile.
const finishTimeout = 20 * time.Second

// settleTimeout bounds how long a repeated request waits for the first one.
const settleTimeout = 15 * time.Second

func (p *Platform) create(ctx context.Context, o organization, key string, req api.CreateDatabase) (api.Database, error) {
	plan, err := p.check(ctx, &req)
	if err != nil {
		return api.Database{}, err
	}
	hash := requestHash(req)
	for range maxTries {
		name := req.Name
		if name == "" {
			name = generateName()
		}
		uid := newUID()
		done := p.begin(uid)
		r, before, err := p.store.reserve(ctx, o, uid, name, key, hash)
		if before != nil {
			done()
			if before.Request != hash {
				return api.Database{}, api.Errorf(api.KeyReused, "this idempotency key was used for a different database")
			}
			d, undone, err := p.repeat(ctx, o, key, before)
			if undone {
				continue
			}
			return d, err
		}
		if t, ok := errors.AsType[taken](err); ok {
			done()
			if req.Name == "" {
				continue
			}
			message := t.Error()
			if t.record.Phase != ready {
				message = fmt.Sprintf("%s and is %s", message, t.record.Phase)
			}
			return api.Database{}, &api.Error{Code: api.Conflict, Field: "name", Message: message}
		}
		if err != nil {
			done()
			return api.Database{}, err
		}
		d, err := p.finish(ctx, &r, req, plan)
		done()
		return d, err
	}
	return api.Database{}, errContended
}

// repeat answers a request whose key was used before. undone means that the
// creation came to nothing and the request is to be begun anew.
func (p *Platform) repeat(ctx context.Context, o organization, key string, c *creation) (d api.Database, undone bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	r, found, err := p.store.settle(ctx, o.Slug, c)
	if err != nil {
		return d, false, err
	}
	if found {
		d, err = p.describe(ctx, &r)
		return d, false, err
	}
	var still creation
	at, err := p.store.read(ctx, creationKey(o.Slug, key), &still)
	if err != nil {
		return d, false, err
	}
	if at == 0 || still.UID != c.UID {
		return d, true, nil
	}
	return d, false, api.Errorf(api.Gone, "the database made under this idempotency key was destroyed")
}

// finish makes what was reserved, or undoes it.
func (p *Platform) finish(ctx context.Context, r *record, req api.CreateDatabase, plan api.Plan) (api.Database, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	made, err := p.makeIt(ctx, r, req)
	if err == nil {
		p.created.Inc()
		p.log.Info("database created", "database", uint64(r.Database))
		return p.join(r, &made, []api.Plan{plan}), nil
	}
	if errors.Is(err, errCrashed) {
		return api.Database{}, err
	}
	p.undone.Inc()
	if undoErr := p.undo(ctx, r); undoErr != nil {
		if errors.Is(undoErr, errCrashed) {
			return api.Database{}, undoErr
		}
		p.log.Warn("creation is not undone yet", "error", undoErr)
		p.wakeMender()
	}
	if e, ok := errors.AsType[*api.Error](err); ok && e.Code == api.Invalid {
		return api.Database{}, e
	}
	p.log.Error("creation failed", "error", err)
	return api.Database{}, api.Errorf(api.Unavailable, "the database couldn't be made and what was begun is undone; try again")
}

func (p *Platform) makeIt(ctx context.Context, r *record, req api.CreateDatabase) (made api.FleetDatabase, err error) {
	if p.crash("reserved") {
		return made, errCrashed
	}
	made, err = p.fleet.CreateDatabase(ctx, r.UID, api.FleetCreate{
		Name: r.Name, Address: r.Address, Plan: req.Plan,
		PrimaryRegion: req.PrimaryRegion, ReplicaRegions: req.ReplicaRegions, Eviction: req.Eviction, EvictionPolicy: req.EvictionPolicy,
		Durability: req.Durability,
	})
	if err != nil {
		return made, err
	}
	if p.crash("fleet made it") {
		return made, errCrashed
	}
	if made.Password == "" {
		return made, fmt.Errorf("fleet made database %d before and doesn't tell its password again", made.Database.ID)
	}
	r.Database, r.Password, r.Phase = made.Database.ID, p.sealer.seal(made.Password, r.UID), ready
	if err := p.store.put(ctx, r); err != nil {
		return made, err
	}
	if p.crash("finished") {
		return made, errCrashed
	}
	return made, nil
}

// undo takes a creation back, whatever had become of it. It can be repeated.
func (p *Platform) undo(ctx context.Context, r *record) error {
	// The record is read again: a write that failed may have succeeded.
	now, found, err := p.store.get(ctx, r.Organization, r.Name)
	if err != nil {
		return err
	}
	if !found || now.UID != r.UID {
		return nil
	}
	if now.Phase != undoing {
		now.Phase = undoing
		if err := p.store.put(ctx, &now); err != nil {
			return err
		}
	}
	if p.crash("undoing") {
		return errCrashed
	}
	if err := p.fleet.CancelCreate(ctx, now.UID); err != nil {
		return fmt.Errorf("cancel at the fleet: %w", err)
	}
	if p.crash("fleet cancelled") {
		return errCrashed
	}
	return p.store.drop(ctx, &now)
}

// check is the client's part: what is left blank is filled in, what can't be
// is refused with the choices, before anything is written.
func (p *Platform) check(ctx context.Context, req *api.CreateDatabase) (plan api.Plan, err error) {
	if req.Name != "" {
		if err := checkName("name", req.Name); err != nil {
			return plan, err
		}
	}
	if req.PrimaryRegion == "" {
		return plan, &api.Error{Code: api.Invalid, Field: "primary_region", Message: "a primary region is needed"}
	}
	if plan, err = p.plan(ctx, cmp.Or(req.Plan, defaultPlan)); err != nil {
		return plan, err
	}
	req.Plan = plan.ID
	return plan, p.checkRegions(ctx, req.PrimaryRegion, req.ReplicaRegions)
}

// defaultPlan is what a database is made with when nothing is said.
const defaultPlan = "free"

// plan finds a plan by ID or name.
func (p *Platform) plan(ctx context.Context, s string) (api.Plan, error) {
	plans, err := p.fleet.Plans(ctx)
	if err != nil {
		return api.Plan{}, p.fleetError(err)
	}
	var names []string
	for _, plan := range plans {
		if strings.EqualFold(s, plan.ID) || strings.EqualFold(s, plan.Name) {
			return plan, nil
		}
		names = append(names, plan.Name)
	}
	return api.Plan{}, api.Unknown("plan", s, names)
}

// checkRegions refuses regions nobody can have, and those named twice.
func (p *Platform) checkRegions(ctx context.Context, primary api.Region, replicas []api.Region) error {
	regions, err := p.fleet.Regions(ctx)
	if err != nil {
		return p.fleetError(err)
	}
	codes := make([]string, len(regions))
	for i, r := range regions {
		codes[i] = string(r.Code)
	}
	slices.Sort(codes)
	for i, r := range append([]api.Region{primary}, replicas...) {
		switch {
		case !slices.Contains(codes, string(r)):
			return api.Unknown("region", string(r), codes)
		case i > 0 && r == primary:
			return &api.Error{Code: api.Invalid, Field: "replica_regions", Message: fmt.Sprintf("region %q is the primary's and can't have a replica too", r)}
		case i > 0 && slices.Contains(replicas[:i-1], r):
			return &api.Error{Code: api.Invalid, Field: "replica_regions", Message: fmt.Sprintf("region %q is named twice among the replicas", r)}
		}
	}
	return nil
}

// fleetError is what the platform's client hears of an error of the fleet's:
// a refusal as it is, and of anything else that the fleet is the problem.
func (p *Platform) fleetError(err error) error {
	if e, ok := errors.AsType[*api.Error](err); ok {
		switch e.Code {
		case api.Invalid, api.Conflict, api.Unavailable:
			return e
		}
	}
	p.log.Error("fleet call failed", "error", err)
	return api.Errorf(api.Unavailable, "the Redis fleet can't be reached; try again")
}
