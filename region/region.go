// Package region knows the regions, their names, and how far apart they are.
//
// Distance is geography: a great circle between two airports, covered by light
// in glass, made longer because cables take detours. It is what the simulated
// network uses, and what an edge goes by until it has measured.
package region

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Code is the three-letter code of a region, as airports have them: "mad".
type Code string

// Region is a place where databases can live.
type Region struct {
	Code Code
	Name string  // "Madrid, Spain"
	Lat  float64 // degrees north
	Lon  float64 // degrees east
}

// Title is the name and the code, as lists and prompts show a region:
// "Madrid, Spain (mad)".
func (r Region) Title() string { return r.Name + " (" + string(r.Code) + ")" }

// regions is ordered by code.
var regions = []Region{
	{"ams", "Amsterdam, Netherlands", 52.31, 4.76},
	{"arn", "Stockholm, Sweden", 59.65, 17.93},
	{"atl", "Atlanta, Georgia (US)", 33.64, -84.43},
	{"bog", "Bogotá, Colombia", 4.70, -74.15},
	{"bom", "Mumbai, India", 19.09, 72.87},
	{"bos", "Boston, Massachusetts (US)", 42.36, -71.01},
	{"cdg", "Paris, France", 49.01, 2.55},
	{"den", "Denver, Colorado (US)", 39.86, -104.67},
	{"dfw", "Dallas, Texas (US)", 32.90, -97.04},
	{"ewr", "Secaucus, NJ (US)", 40.69, -74.17},
	{"eze", "Ezeiza, Argentina", -34.82, -58.54},
	{"fra", "Frankfurt, Germany", 50.03, 8.56},
	{"gdl", "Guadalajara, Mexico", 20.52, -103.31},
	{"gig", "Rio de Janeiro, Brazil", -22.81, -43.25},
	{"gru", "São Paulo", -23.43, -46.47},
	{"hkg", "Hong Kong, Hong Kong", 22.31, 113.91},
	{"iad", "Ashburn, Virginia (US)", 38.95, -77.46},
	{"jnb", "Johannesburg, South Africa", -26.13, 28.24},
	{"lax", "Los Angeles, California (US)", 33.94, -118.41},
	{"lhr", "London, United Kingdom", 51.47, -0.46},
	{"maa", "Chennai (Madras), India", 12.99, 80.17},
	{"mad", "Madrid, Spain", 40.47, -3.56},
	{"mia", "Miami, Florida (US)", 25.79, -80.29},
	{"nrt", "Tokyo, Japan", 35.76, 140.39},
	{"ord", "Chicago, Illinois (US)", 41.98, -87.90},
	{"otp", "Bucharest, Romania", 44.57, 26.09},
	{"phx", "Phoenix, Arizona (US)", 33.43, -112.01},
	{"qro", "Querétaro, Mexico", 20.62, -100.19},
	{"scl", "Santiago, Chile", -33.39, -70.79},
	{"sea", "Seattle, Washington (US)", 47.45, -122.31},
	{"sin", "Singapore, Singapore", 1.36, 103.99},
	{"sjc", "San Jose, California (US)", 37.36, -121.93},
	{"syd", "Sydney, Australia", -33.95, 151.18},
	{"waw", "Warsaw, Poland", 52.17, 20.97},
	{"yul", "Montreal, Canada", 45.47, -73.74},
	{"yyz", "Toronto, Canada", 43.68, -79.63},
}

// All returns the known regions by code. The slice is the caller's.
func All() []Region { return slices.Clone(regions) }

// Codes returns the codes of all regions, in the order of All.
func Codes() []Code {
	codes := make([]Code, len(regions))
	for i, r := range regions {
		codes[i] = r.Code
	}
	return codes
}

// Lookup returns the region with a code.
func Lookup(c Code) (Region, bool) {
	i, ok := slices.BinarySearchFunc(regions, c, func(r Region, c Code) int { return cmp.Compare(r.Code, c) })
	if !ok {
		return Region{}, false
	}
	return regions[i], true
}

// Title is the title of the region with a code; of an unknown one, the code.
func Title(c Code) string {
	if r, ok := Lookup(c); ok {
		return r.Title()
	}
	return string(c)
}

const (
	earthRadiusKM = 6371.0
	lightKMPerMS  = 299.792458 * 2 / 3 // in glass
	detour        = 1.4                // cables against the great circle
)

// OneWay is how long a byte takes from a to b: half of RTT. It is the same in
// both directions, and 0 within a region and where either is unknown.
func OneWay(a, b Code) time.Duration { return RTT(a, b) / 2 }

// RTT is how long a byte takes from a to b and another back.
func RTT(a, b Code) time.Duration {
	x, ok := Lookup(a)
	y, ok2 := Lookup(b)
	if a == b || !ok || !ok2 {
		return 0
	}
	ms := 2 * kilometres(x, y) / lightKMPerMS * detour
	return time.Duration(ms * float64(time.Millisecond)).Round(time.Microsecond)
}

// kilometres is the great-circle distance, by the haversine formula.
func kilometres(a, b Region) float64 {
	const degree = math.Pi / 180
	sinLat := math.Sin((b.Lat - a.Lat) * degree / 2)
	sinLon := math.Sin((b.Lon - a.Lon) * degree / 2)
	h := sinLat*sinLat + math.Cos(a.Lat*degree)*math.Cos(b.Lat*degree)*sinLon*sinLon
	return 2 * earthRadiusKM * math.Asin(math.Sqrt(min(h, 1)))
}

// Nearest returns the regions of a list ordered by their distance to from,
// ties by code. The list itself is left as it is.
func Nearest(from Code, of []Code) []Code {
	sorted := slices.Clone(of)
	slices.SortFunc(sorted, func(a, b Code) int {
		return cmp.Or(cmp.Compare(distance(from, a), distance(from, b)), cmp.Compare(a, b))
	})
	return sorted
}

// distance is RTT, but unknown regions are far away instead of here.
func distance(a, b Code) time.Duration {
	if a != b {
		if _, ok := Lookup(a); !ok {
			return math.MaxInt64
		}
		if _, ok := Lookup(b); !ok {
			return math.MaxInt64
		}
	}
	return RTT(a, b)
}
