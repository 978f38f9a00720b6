package e2e

import (
	"testing"
)

// TestRecipeStory is the story that vecino demo tells: an HTML cache with its
// primary in Paris, written to from Santiago.
func TestRecipeStory(t *testing.T) {
	d := shared.create(t, "cdg", "den", "gru", "jnb", "scl")
	const (
		key    = "page:/recetas/humitas-chilenas"
		spicy  = "<h1>Humitas</h1><p>New Mexico green chiles"
		mild   = "<h1>Humitas</h1><p>Cebolla"
		milder = "<h1>Humitas</h1><p>Choclo"
	)
	isa, neighbour := d.connect("scl"), d.connect("scl")
	equal(t, "Isa's region", d.info(isa)["region"], "scl")
	must(t, isa.Set(d.ctx, key, spicy, 0).Err())

	// On a clear day the reply comes behind its entry: nothing has to be held,
	// and the copy next door is fresh.
	before := d.counts(isa)
	must(t, isa.Set(d.ctx, key, mild, 0).Err())
	page, err := isa.Get(d.ctx, key).Result()
	must(t, err)
	equal(t, "Isa reads", page, mild)
	equal(t, "SET and GET cost", d.counts(isa).minus(before), counts{ForwardedWrites: 1, LocalReads: 1})

	// It is at the primary before it is anywhere else, and soon everywhere.
	primary := d.connect("cdg")
	page, err = primary.Get(d.ctx, key).Result()
	must(t, err)
	equal(t, "the primary has", page, mild)
	for r := range d.urls {
		c := d.connect(r)
		eventually(t, "the page in "+string(r), func() bool { return c.Get(d.ctx, key).Val() == mild })
		equal(t, string(r)+" is served in", d.info(c)["region"], string(r))
	}

	// With a bad line the SET is released without its entry. The connection
	// knows, and reads at the primary; another one reads what is here. The lag
	// is longer than the story's, so that a slow machine tells the same one.
	shared.vecino(t, "world", "lag", "scl", "3000")
	defer shared.vecino(t, "world", "lag", "scl", "0")
	before = d.counts(isa)
	must(t, isa.Set(d.ctx, key, milder, 0).Err())
	equal(t, "SET costs", d.counts(isa).minus(before), counts{ForwardedWrites: 1, Held: 1, ReleasedLate: 1})
	page, err = isa.Get(d.ctx, key).Result()
	must(t, err)
	equal(t, "Isa reads", page, milder)
	equal(t, "SET and GET cost", d.counts(isa).minus(before), counts{ForwardedWrites: 1, Held: 1, ReleasedLate: 1, ForwardedReads: 1})
	page, err = neighbour.Get(d.ctx, key).Result()
	must(t, err)
	if page != mild && page != milder {
		t.Errorf("the neighbour reads %q, which was never written, or long ago", page)
	}
	equal(t, "the neighbour's GET costs", d.counts(isa).minus(before), counts{ForwardedWrites: 1, Held: 1, ReleasedLate: 1, ForwardedReads: 1, LocalReads: 1})

	// When the entry has come, reads are local again.
	d.caughtUp("cdg", "scl")
	before = d.counts(isa)
	page, err = isa.Get(d.ctx, key).Result()
	must(t, err)
	equal(t, "Isa reads", page, milder)
	equal(t, "her GET costs", d.counts(isa).minus(before), counts{LocalReads: 1})
}
