package placement

import (
	"reflect"
	"testing"

	"vecino/catalog"
	"vecino/region"
)

var nodes = []catalog.Node{
	{ID: "mad-2", Region: "mad"}, {ID: "mad-1", Region: "mad"},
	{ID: "gru-1", Region: "gru"}, {ID: "scl-1", Region: "scl"},
}

func TestPlace(t *testing.T) {
	three := catalog.Database{Made: 3, Copies: []catalog.Copy{
		{Region: "mad", Node: "mad-2", Role: catalog.Primary, State: catalog.Live, Generation: 1},
		{Region: "gru", Node: "gru-1", Role: catalog.Replica, State: catalog.Live, Generation: 2},
		{Region: "scl", Node: "scl-1", Role: catalog.Replica, State: catalog.Syncing, Generation: 3},
	}}
	for _, c := range []struct {
		name     string
		have     catalog.Database
		primary  region.Code
		replicas []region.Code
		load     map[string]int
		want     []catalog.Copy
		made     uint64
		err      error
	}{
		{
			name: "a new database goes to the emptiest nodes", primary: "mad", replicas: []region.Code{"scl"},
			load: map[string]int{"mad-1": 2, "mad-2": 1},
			want: []catalog.Copy{
				{Region: "mad", Node: "mad-2", Role: catalog.Primary, State: catalog.Syncing, Generation: 1},
				{Region: "scl", Node: "scl-1", Role: catalog.Replica, State: catalog.Syncing, Generation: 2},
			}, made: 2,
		},
		{
			name: "equally full nodes are taken by name", primary: "mad",
			want: []catalog.Copy{{Region: "mad", Node: "mad-1", Role: catalog.Primary, State: catalog.Syncing, Generation: 1}}, made: 1,
		},
		{
			name: "copies that stay are left alone, also on a full node", have: three, primary: "mad", replicas: []region.Code{"scl", "gru"},
			load: map[string]int{"mad-2": 100},
			want: []catalog.Copy{three.Copies[0], three.Copies[2], three.Copies[1]}, made: 3,
		},
		{
			name: "a region left out loses its copy", have: three, primary: "mad",
			want: three.Copies[:1], made: 3,
		},
		{
			name: "a region put back gets a new generation",
			have: catalog.Database{Made: 3, Copies: three.Copies[:1]}, primary: "mad", replicas: []region.Code{"gru"},
			want: []catalog.Copy{three.Copies[0], {Region: "gru", Node: "gru-1", Role: catalog.Replica, State: catalog.Syncing, Generation: 4}}, made: 4,
		},
		{name: "a region without a node", primary: "syd", err: NoNode{"syd"}},
		{name: "a region named twice", primary: "mad", replicas: []region.Code{"gru", "gru"}, err: Repeated{"gru"}},
		{name: "the primary's region among the replicas", primary: "mad", replicas: []region.Code{"mad"}, err: Repeated{"mad"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := append([]catalog.Copy(nil), c.have.Copies...)
			got, err := Place(c.have, c.primary, c.replicas, nodes, c.load)
			if err != c.err {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err != nil {
				return
			}
			if !reflect.DeepEqual(got.Copies, c.want) || got.Made != c.made {
				t.Errorf("placed %+v (%d made)\nwant %+v (%d made)", got.Copies, got.Made, c.want, c.made)
			}
			if !reflect.DeepEqual(before, append([]catalog.Copy(nil), c.have.Copies...)) {
				t.Error("the old record's copies were changed")
			}
		})
	}
}

func TestLoadCountsCopies(t *testing.T) {
	got := Load([]catalog.Database{
		{Copies: []catalog.Copy{{Node: "a"}, {Node: "b"}}},
		{Copies: []catalog.Copy{{Node: "a"}}},
	})
	if !reflect.DeepEqual(got, map[string]int{"a": 2, "b": 1}) {
		t.Errorf("Load = %v", got)
	}
}
