// Package region knows the regions, their names, and how far apart they are.
package region

// Code is the three-letter code of a region, as airports have them: "mad".
type Code string
