package stat

import (
	"math"
	"slices"
)

// Trend is what the Mann-Kendall test says of a series over time.
type Trend struct {
	S     int     // pairs that rise less pairs that fall
	Tau   float64 // S of the pairs there are, -1 to 1
	Z     float64 // S in standard deviations, with continuity correction
	P     float64 // the chance of an S as far from 0, either way, without a trend
	Slope float64 // the median slope between two points (Theil and Sen), per step
}

// maxExact is the longest series without ties whose P is counted and not approximated.
const maxExact = 40

// MannKendall tests whether a series rises or falls, whatever the shape of that, with the correction
// for ties (Mann 1945; Kendall 1975; Gilbert 1987, 16.4). It takes time and memory by the square of
// the length, so give it points and not requests. Fewer than 4 values have no trend: P is 1.
func MannKendall(series []float64) Trend {
	n := len(series)
	if n < 2 {
		return Trend{P: 1}
	}
	slopes := make([]float64, 0, n*(n-1)/2)
	t := Trend{P: 1}
	for i, earlier := range series {
		for j, later := range series[i+1:] {
			t.S += sign(later - earlier)
			slopes = append(slopes, (later-earlier)/float64(j+1))
		}
	}
	t.Slope = Median(slopes)
	t.Tau = float64(t.S) / float64(len(slopes))
	variance, tied := varianceOfS(series)
	if variance > 0 && t.S != 0 {
		t.Z = float64(t.S-sign(float64(t.S))) / math.Sqrt(variance)
	}
	switch {
	case n < 4:
	case n <= maxExact && !tied:
		t.P = min(1, 2*chanceOfS(n, max(t.S, -t.S)))
	default:
		t.P = 2 * normalAbove(math.Abs(t.Z))
	}
	return t
}

func sign(x float64) int {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return 0
}

// varianceOfS is that of a series in random order, and whether some of its values are equal.
func varianceOfS(series []float64) (variance float64, tied bool) {
	term := func(n int) float64 { return float64(n) * float64(n-1) * float64(2*n+5) }
	variance = term(len(series))
	sorted := slices.Sorted(slices.Values(series))
	for from := 0; from < len(sorted); {
		to := from + 1
		for to < len(sorted) && sorted[to] == sorted[from] {
			to++
		}
		variance -= term(to - from)
		tied = tied || to-from > 1
		from = to
	}
	return variance / 18, tied
}

// chanceOfS is the chance that n different values in random order have an S of s or more, s >= 0. An
// order with k pairs that fall has an S of n(n-1)/2 - 2k; how many orders have k is counted by
// putting in one value after the other, each of which can fall behind 0 to all of those before it.
func chanceOfS(n, s int) float64 {
	pairs := n * (n - 1) / 2
	chance := make([]float64, pairs+1)
	chance[0] = 1
	for size := 2; size <= n; size++ {
		next := make([]float64, pairs+1)
		for k := range next {
			for back := range min(size, k+1) {
				next[k] += chance[k-back] / float64(size)
			}
		}
		chance = next
	}
	sum := 0.0
	for k := 0; pairs-2*k >= s; k++ {
		sum += chance[k]
	}
	return sum
}
