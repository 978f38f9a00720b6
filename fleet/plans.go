package fleet

import (
	"strings"

	"vecino/api"
	"vecino/catalog"
	"vecino/eviction"
)

const (
	mb = 1 << 20
	gb = 1 << 30
)

// What all plans share: the longest a write's reply is held for its entry, the
// sustained rate, and the longest key.
const (
	rywWaitMS    = 500
	commandsPerS = 10_000
	keyBytes     = 32 << 10
)

// plans, cheapest first. Data, connection and request limits of Free are
// those it was launched with; its rate is today's, because 300 commands a
// second is too slow to try anything with. The others are as sold today.
var plans = []api.Plan{
	{ID: "free", Name: "Free", Description: "100 MB", Durability: catalog.SyncEverySec, Limits: limits(100*mb, 1*mb, 100*mb, 100)},
	{ID: "payg", Name: "Pay-as-you-go", Description: "10 GB, $0.20 per 100K commands", PerCommands: 20, Durability: catalog.SyncEverySec, Limits: limits(10*gb, 10*mb, 100*mb, 10_000)},
	{ID: "fixed_250mb", Name: "Fixed 250MB", Description: "250 MB, $10 a month", MonthlyCost: 10_00, Durability: catalog.SyncEverySec, Limits: limits(250*mb, 10*mb, 100*mb, 10_000)},
	{ID: "fixed_1gb", Name: "Fixed 1GB", Description: "1 GB, $20 a month", MonthlyCost: 20_00, Durability: catalog.SyncEverySec, Limits: limits(1*gb, 10*mb, 200*mb, 10_000)},
	{ID: "fixed_5gb", Name: "Fixed 5GB", Description: "5 GB, $100 a month", MonthlyCost: 100_00, Durability: catalog.SyncEverySec, Limits: limits(5*gb, 20*mb, 300*mb, 10_000)},
	{ID: "fixed_10gb", Name: "Fixed 10GB", Description: "10 GB, $200 a month", MonthlyCost: 200_00, Durability: catalog.SyncEverySec, Limits: limits(10*gb, 30*mb, 400*mb, 10_000)},
	{ID: "fixed_50gb", Name: "Fixed 50GB", Description: "50 GB, $400 a month", MonthlyCost: 400_00, Durability: catalog.SyncEverySec, Limits: limits(50*gb, 50*mb, 500*mb, 10_000)},
}

func limits(data, request, record, connections int64) api.Limits {
	return api.Limits{
		DataBytes: data, RequestBytes: request, RecordBytes: record, KeyBytes: keyBytes,
		CommandsPerS: commandsPerS, Connections: connections, ReadYourWrite: rywWaitMS,
	}
}

// durabilityOf is what a new database gets: what was asked for, or else what its
// plan has.
func durabilityOf(asked api.Durability, plan api.Plan) (api.Durability, error) {
	if asked == "" {
		return plan.Durability.OrDefault(), nil
	}
	d, err := catalog.ParseDurability(string(asked))
	if err != nil {
		var choices []string
		for _, c := range api.Durabilities {
			choices = append(choices, string(c))
		}
		return "", api.Unknown("durability", string(asked), choices)
	}
	return d, nil
}

// evictionOf settles whether a database evicts, and by which policy; empty is
// the usual one. had is the policy it has.
func evictionOf(evicts *bool, asked, had string) (evict bool, policy string, err error) {
	if asked == "" {
		return evicts != nil && *evicts, had, nil
	}
	p, err := eviction.Parse(asked)
	if err != nil {
		return false, "", api.Unknown("eviction_policy", asked, eviction.Names())
	}
	evict = p != eviction.NoEviction
	if evicts != nil && *evicts != evict {
		return false, "", &api.Error{Code: api.Invalid, Field: "eviction_policy", Message: "eviction and the policy " + p.String() + " contradict each other; leave one of them out"}
	}
	if !evict {
		return false, had, nil
	}
	return true, p.String(), nil
}

// findPlan finds a plan by its ID or its name, in any case.
func findPlan(s string) (api.Plan, error) {
	var names []string
	for _, p := range plans {
		if strings.EqualFold(s, p.ID) || strings.EqualFold(s, p.Name) {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return api.Plan{}, api.Unknown("plan", s, names)
}
