package main

import (
	"math"
	"slices"
	"time"
)

// median of some figures; of an even number the mean of the two in the middle.
func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// geomean is the mean of ratios.
func geomean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += math.Log(x)
	}
	return math.Exp(sum / float64(len(v)))
}

// quantile is the smallest of some times that a share q of them doesn't
// exceed. It sorts them.
func quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	i := int(math.Ceil(q*float64(len(times)))) - 1
	return times[min(max(i, 0), len(times)-1)]
}

// each takes one figure of every element.
func each[T any](of []T, figure func(T) float64) []float64 {
	v := make([]float64, len(of))
	for i, x := range of {
		v[i] = figure(x)
	}
	return v
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
