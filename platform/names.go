package platform

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"vecino/api"
)

// maxName is the longest name, which is also the longest label in DNS.
const maxName = 63

// checkName is nil for a name that can stand in a host name.
func checkName(field, name string) error {
	if len(name) >= 1 && len(name) <= maxName && !strings.ContainsFunc(name, notInNames) && name[0] != '-' && name[len(name)-1] != '-' {
		return nil
	}
	return &api.Error{Code: api.Invalid, Field: field, Message: fmt.Sprintf(
		"%s %q can't be used: 1 to %d lower-case letters, digits and hyphens, and no hyphen at either end", field, name, maxName)}
}

func notInNames(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-') }

// generateName makes a name like late-waterfall-1133.
func generateName() string {
	return fmt.Sprintf("%s-%s-%d", adjectives[rand.IntN(len(adjectives))], nouns[rand.IntN(len(nouns))], rand.IntN(9999))
}

var adjectives = strings.Fields(`
	aged ample autumn azure bold bright brisk calm clear cool crimson crisp dapper dawn deep dry dusty early eager
	even fair fleet floral fond fresh frosty gentle gilded glad golden grand green hardy hazel hidden high humble
	icy jolly keen kind late lean light lively long lucid lush mellow merry mild misty neat nimble noble open orange
	pale patient plain polished proud quick quiet ready red rosy round rustic safe sandy scarlet serene shady
	silent silver sleek slow small smooth snowy soft solar spry steady still sunny swift tidy tranquil true twilight
	vivid warm wandering white wide wild winter wise young`)

var nouns = strings.Fields(`
	acorn alley anchor arch bay beacon birch bird bloom branch breeze bridge brook canyon cape cedar cherry cliff
	cloud coast comet coral cove creek dawn delta dew dune dust echo ember fern field fire fjord flower fog forest
	fountain frost garden glade grove harbour haze heron hill island ivy lagoon lake lantern leaf lichen light lily
	maple marsh meadow mist moon morning moss mountain night oak orchard otter palm path peak pebble pine plain pond
	poppy prairie quarry rain reef ridge river road rock rose sea shadow shore sky smoke snow sound spring star
	stone storm stream summit sun surf swallow thunder tide trail tree valley village violet water waterfall wave
	willow wind wood`)
