package platform

import (
	"cmp"
	"context"
	"slices"

	"vecino/api"
	"vecino/catalog"
	"vecino/eviction"
)

// lost is the state of a database that the fleet doesn't have any more, which
// is nobody's intent. It can be destroyed.
const lost = "lost"

// describe puts together what the platform and the fleet know of a database.
func (p *Platform) describe(ctx context.Context, r *record) (api.Database, error) {
	if r.Phase != ready {
		return p.outline(r), nil
	}
	f, err := p.fleet.Database(ctx, r.Database)
	if api.CodeOf(err) == api.NotFound {
		d := p.outline(r)
		d.State = lost
		return d, nil
	}
	if err != nil {
		return api.Database{}, p.fleetError(err)
	}
	plans, err := p.fleet.Plans(ctx)
	if err != nil {
		return api.Database{}, p.fleetError(err)
	}
	return p.join(r, &f, plans), nil
}

// describeAll does the same for many at once.
func (p *Platform) describeAll(ctx context.Context, records []record) ([]api.Database, error) {
	all, err := p.fleet.Databases(ctx)
	if err != nil {
		return nil, p.fleetError(err)
	}
	plans, err := p.fleet.Plans(ctx)
	if err != nil {
		return nil, p.fleetError(err)
	}
	byID := make(map[catalog.ID]*api.FleetDatabase, len(all))
	for i := range all {
		byID[all[i].Database.ID] = &all[i]
	}
	list := make([]api.Database, 0, len(records))
	for _, r := range records {
		f := byID[r.Database]
		d := p.outline(&r)
		switch {
		case r.Phase == ready && f != nil:
			d = p.join(&r, f, plans)
		case r.Phase == ready:
			d.State = lost
		}
		list = append(list, d)
	}
	return list, nil
}

// outline is what the platform knows alone.
func (p *Platform) outline(r *record) api.Database {
	return api.Database{
		ID: r.Database, Name: r.Name, Organization: r.Organization, Address: r.Address,
		Created: r.Created, State: string(r.Phase), ReplicaRegions: []api.Region{},
	}
}

func (p *Platform) join(r *record, f *api.FleetDatabase, plans []api.Plan) api.Database {
	password, err := p.sealer.open(r.Password, r.UID)
	if err != nil {
		// Its URLs stay blank; a reset makes a password that can be read.
		p.log.Error("password can't be unsealed", "database", uint64(r.Database), "error", err)
	}
	d := p.outline(r)
	d.Plan, d.Limits, d.Eviction = f.Database.Plan, f.Database.Limits, f.Database.Eviction
	d.EvictionPolicy = eviction.Of(d.Eviction, f.Database.Policy).String()
	d.Durability = f.Database.Durability.OrDefault()
	if i := slices.IndexFunc(plans, func(plan api.Plan) bool { return plan.ID == f.Database.Plan }); i >= 0 {
		d.Plan = plans[i].Name
	}
	d.PrimaryRegion, d.ReplicaRegions = f.Database.PrimaryCopy().Region, f.Database.ReplicaRegions()

	loopback := p.router.loopbackOf(r)
	private := privateHostPort(r.Address)
	for _, c := range f.Database.Copies {
		e := api.Endpoint{Region: c.Region, Role: string(c.Role), State: c.State, Node: c.Node}
		for _, s := range f.Status {
			if s.Node == c.Node {
				e.Applied, e.LagMS, e.Bytes, e.Keys = s.Applied, s.LagMS, s.Bytes, s.Keys
				e.Connections, e.CommandsPerS, e.Delayed = s.Connections, s.CommandsPerS, s.Delayed
				e.Asleep, e.Resident, e.ColdKeys, e.ColdBytes = s.Asleep, s.Resident, s.ColdKeys, s.ColdBytes
				e.HitRatio, e.WakeMS = s.HitRatio, s.WakeMS
			}
		}
		// In a world on one machine a region without an edge can't be called.
		switch at := loopback[c.Region]; {
		case password == "":
		case p.config.LoopbackPort == 0:
			e.URL = redisURL(password, private)
		case at != "":
			e.URL = redisURL(password, at)
		}
		d.Endpoints = append(d.Endpoints, e)
		delete(loopback, c.Region)
	}
	copies := len(d.Endpoints)
	for region, at := range loopback {
		e := api.Endpoint{Region: region, Role: api.ServedByEdge}
		if password != "" {
			e.URL = redisURL(password, at)
		}
		d.Endpoints = append(d.Endpoints, e)
	}
	slices.SortFunc(d.Endpoints[copies:], func(a, b api.Endpoint) int { return cmp.Compare(a.Region, b.Region) })
	d.URL = d.Endpoints[0].URL
	return d
}
