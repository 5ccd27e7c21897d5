// Package stat is the statistics by which measurements become verdicts: what is typical, how much of
// it is noise, whether one thing is slower than another, and whether something grows.
//
// Begin with [Compare] for two series taken in turns, and [MannKendall] for one over time. All of it
// is arithmetic on values in any unit, and none of it changes its arguments.
//
// The surprise: medians and ranks do the work instead of means and normal distributions, because
// latencies have tails in which one pause outweighs a hundred answers.
package stat

import (
	"math"
	"slices"
)

// Median is the value in the middle, or the mean of the two there; NaN of nothing.
func Median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	if n%2 == 1 {
		return sorted[n/2]
	}
	return sorted[n/2-1] + (sorted[n/2]-sorted[n/2-1])/2
}

// MAD is the median absolute deviation from the median; NaN of nothing.
func MAD(values []float64) float64 {
	middle := Median(values)
	deviations := make([]float64, len(values))
	for i, v := range values {
		deviations[i] = math.Abs(v - middle)
	}
	return Median(deviations)
}

// Noise is the MAD in the units of a standard deviation: for normal values the two are the same, and
// a few outliers do not move it (Rousseeuw and Croux 1993, 1.4826).
func Noise(values []float64) float64 { return 1.4826 * MAD(values) }

// Wilson is the interval of a share of which `failures` in n were seen (Wilson 1927, without
// continuity correction): unlike the usual one it is right when failures are few or none. With
// nothing seen it is everything, 0 to 1. confidence is 0.95, say.
func Wilson(failures, n int64, confidence float64) (low, high float64) {
	if n <= 0 {
		return 0, 1
	}
	z := normalQuantile((1 + confidence) / 2)
	p, size := float64(failures)/float64(n), float64(n)
	middle := p + z*z/(2*size)
	half := z * math.Sqrt(p*(1-p)/size+z*z/(4*size*size))
	scale := 1 + z*z/size
	low, high = (middle-half)/scale, (middle+half)/scale
	// The ends are exact where rounding would put them a hair beside.
	if failures <= 0 {
		low = 0
	}
	if failures >= n {
		high = 1
	}
	return low, high
}

// normalQuantile is where the standard normal distribution has a share p below.
func normalQuantile(p float64) float64 { return math.Sqrt2 * math.Erfinv(2*p-1) }

// normalAbove is the share of the standard normal distribution above z.
func normalAbove(z float64) float64 { return math.Erfc(z/math.Sqrt2) / 2 }
