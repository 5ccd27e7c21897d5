package stat

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func near(got, want, within float64) bool { return math.Abs(got-want) <= within }

func values(t *rapid.T, least, most int) []float64 {
	return rapid.SliceOfN(rapid.Float64Range(-1e6, 1e6), least, most).Draw(t, "values")
}

func TestMedianAndMADOfKnownValues(t *testing.T) {
	// The example of Wikipedia's "Median absolute deviation".
	list := []float64{6, 1, 9, 2, 1, 4, 2}
	if Median(list) != 2 || MAD(list) != 1 || Noise(list) != 1.4826 {
		t.Errorf("median %v, MAD %v, noise %v; want 2, 1, 1.4826", Median(list), MAD(list), Noise(list))
	}
	if list[0] != 6 {
		t.Error("the argument was sorted")
	}
	if Median([]float64{1, 2}) != 1.5 || !math.IsNaN(Median(nil)) || !math.IsNaN(MAD(nil)) {
		t.Error("an even or an empty list")
	}
}

func TestHalfIsOnEachSideOfTheMedian(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := values(t, 1, 100)
		m, below, above := Median(list), 0, 0
		for _, v := range list {
			if v < m {
				below++
			}
			if v > m {
				above++
			}
		}
		if below > len(list)/2 || above > len(list)/2 {
			t.Fatalf("%d below %v and %d above, of %d", below, m, above, len(list))
		}
	})
}

func TestNoiseIsTheStandardDeviationOfNormalValues(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	list := make([]float64, 100_000)
	for i := range list {
		list[i] = 100 + 5*random.NormFloat64()
	}
	if got := Noise(list); !near(got, 5, 0.1) {
		t.Errorf("%v, want 5", got)
	}
	for i := range 1000 { // 1 % of outliers
		list[i] = 1e9
	}
	if got := Noise(list); !near(got, 5, 0.2) {
		t.Errorf("%v with outliers, want 5", got)
	}
}

// Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
func TestWilsonIsThatOfThePaper(t *testing.T) {
	for _, c := range []struct {
		failures, n int64
		low, high   float64
	}{
		{81, 263, 0.2553, 0.3662},
		{15, 148, 0.0624, 0.1605},
		{0, 20, 0, 0.1611},
		{1, 29, 0.0061, 0.1718},
	} {
		low, high := Wilson(c.failures, c.n, 0.95)
		if !near(low, c.low, 5e-5) || !near(high, c.high, 5e-5) {
			t.Errorf("%d of %d: %.4f to %.4f, want %.4f to %.4f", c.failures, c.n, low, high, c.low, c.high)
		}
	}
	if low, high := Wilson(0, 0, 0.95); low != 0 || high != 1 {
		t.Errorf("of nothing: %v to %v, want 0 to 1", low, high)
	}
}

func TestWilsonHoldsTheShareAndNarrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(1, 1_000_000).Draw(t, "n")
		failures := rapid.Int64Range(0, n).Draw(t, "failures")
		confidence := rapid.Float64Range(0.5, 0.999).Draw(t, "confidence")
		low, high := Wilson(failures, n, confidence)
		if p := float64(failures) / float64(n); low < 0 || high > 1 || low > p || high < p {
			t.Fatalf("%v to %v does not hold %v", low, high, p)
		}
		otherLow, otherHigh := Wilson(n-failures, n, confidence)
		if !near(low, 1-otherHigh, 1e-9) || !near(high, 1-otherLow, 1e-9) {
			t.Fatalf("%v to %v of failures, %v to %v of the rest", low, high, otherLow, otherHigh)
		}
		if l, h := Wilson(4*failures, 4*n, confidence); h-l > high-low {
			t.Fatalf("four times as many widen it from %v to %v", high-low, h-l)
		}
	})
}

func TestWilsonCoversTheTrueShare(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, p := range []float64{0.001, 0.01, 0.2} {
		covered := 0
		const rounds, n = 2000, 3000
		for range rounds {
			failures := int64(0)
			for range n {
				if random.Float64() < p {
					failures++
				}
			}
			if low, high := Wilson(failures, n, 0.95); low <= p && p <= high {
				covered++
			}
		}
		if float64(covered) < 0.93*rounds {
			t.Errorf("%d of %d intervals hold %v, want about 95 %%", covered, rounds, p)
		}
	}
}

func TestMannKendallOfPublishedSeries(t *testing.T) {
	for _, c := range []struct {
		source   string
		series   []float64
		s        int
		z, p     float64 // p one-sided
		zUnknown bool
	}{
		// EPA QA/G-9S (2006), the example of the normal approximation, with its ties.
		{"QA/G-9S", []float64{10, 10, 10, 5, 10, 20, 18, 17, 15, 24, 15}, 22, 1.685, 0.046, false},
		// EPA QA/G-9 (2000), the example by hand: S, and of the table its chance.
		{"QA/G-9", []float64{5, 6, 11, 8, 10}, 6, 0, 0.117, true},
	} {
		got := MannKendall(c.series)
		if got.S != c.s || !near(got.P/2, c.p, 5e-4) || !c.zUnknown && !near(got.Z, c.z, 5e-4) {
			t.Errorf("%s: S %d, Z %.3f, one-sided P %.4f; want %d, %v, %v", c.source, got.S, got.Z, got.P/2, c.s, c.z, c.p)
		}
	}
	// Wisconsin's form for the Mann-Kendall statistic, the example of its table A.
	if got := MannKendall([]float64{100, 50, 85, 75, 50}); got.S != -5 {
		t.Errorf("S = %d, want -5", got.S)
	}
}

// Gilbert 1987, table A18: chances of the Mann-Kendall statistic.
func TestChancesOfSAreThoseOfTheTable(t *testing.T) {
	for _, c := range []struct {
		n, s int
		want float64
	}{
		{4, 6, 0.042}, {5, 6, 0.117}, {5, 8, 0.042}, {5, 10, 0.0083}, {8, 16, 0.031}, {10, 21, 0.036}, {10, 27, 0.0083},
	} {
		if got := chanceOfS(c.n, c.s); !near(got, c.want, 0.0005) {
			t.Errorf("S >= %d of %d: %.4f, want %v", c.s, c.n, got, c.want)
		}
	}
}

func TestChanceOfSIsItsShareOfAllOrders(t *testing.T) {
	const n = 6
	count, total := map[int]int{}, 0
	var permute func([]float64, []float64)
	permute = func(done, left []float64) {
		if len(left) == 0 {
			count[MannKendall(done).S]++
			total++
		}
		for i := range left {
			permute(append(slices.Clone(done), left[i]), slices.Delete(slices.Clone(left), i, i+1))
		}
	}
	permute(nil, []float64{1, 2, 3, 4, 5, 6})
	for s := 0; s <= n*(n-1)/2; s++ {
		atLeast := 0
		for other, k := range count {
			if other >= s {
				atLeast += k
			}
		}
		if want := float64(atLeast) / float64(total); !near(chanceOfS(n, s), want, 1e-12) {
			t.Errorf("S >= %d: %v, want %v of all orders", s, chanceOfS(n, s), want)
		}
	}
}

func TestTrendTurnsWithTheSeries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := values(t, 2, 60)
		if rapid.Bool().Draw(t, "ties") {
			for i := range list {
				list[i] = math.Trunc(list[i] / 2e5)
			}
		}
		got := MannKendall(list)
		if got.P < 0 || got.P > 1 || got.Tau < -1 || got.Tau > 1 {
			t.Fatalf("P %v, tau %v", got.P, got.Tau)
		}
		back := slices.Clone(list)
		slices.Reverse(back)
		if b := MannKendall(back); b.S != -got.S || b.Z != -got.Z || b.P != got.P {
			t.Fatalf("%+v forwards, %+v backwards", got, b)
		}
		grown := slices.Clone(list)
		for i := range grown { // only the order counts
			grown[i] = math.Cbrt(grown[i])
		}
		if g := MannKendall(grown); g.S != got.S {
			t.Fatalf("S %d, and %d of the cube roots", got.S, g.S)
		}
	})
}

func TestSteadyGrowthIsATrendOfItsSlope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(10, 80).Draw(t, "n")
		slope := rapid.Float64Range(0.01, 100).Draw(t, "slope")
		series := make([]float64, n)
		for i := range series {
			series[i] = 50 + slope*float64(i)
		}
		series[n/2] *= 10 // one outlier
		got := MannKendall(series)
		if got.S < n*(n-1)/2-2*n || got.P > 0.01 || !near(got.Slope, slope, 1e-6*slope) {
			t.Fatalf("%+v, want a rise by %v", got, slope)
		}
	})
}

func TestNoiseHasATrendAsSeldomAsItSays(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for _, n := range []int{10, 60} { // counted and approximated
		found := 0
		const rounds = 2000
		for range rounds {
			series := make([]float64, n)
			for i := range series {
				series[i] = random.ExpFloat64()
			}
			if MannKendall(series).P < 0.05 {
				found++
			}
		}
		if found > rounds*6/100 || found < rounds*3/100 {
			t.Errorf("%d values: %d of %d have a trend, want at most about 5 %%", n, found, rounds)
		}
	}
}

func TestTooFewHaveNoTrend(t *testing.T) {
	for _, series := range [][]float64{nil, {1}, {1, 2}, {1, 2, 3}, {4, 4, 4, 4, 4}} {
		if got := MannKendall(series); got.P != 1 {
			t.Errorf("%v: P %v, want 1", series, got.P)
		}
	}
}

// NIST StRD, linear regression, "Norris", with its certified values.
func TestRegressionMeetsNISTsCertifiedValues(t *testing.T) {
	points := []float64{ // y, x
		0.1, 0.2, 338.8, 337.4, 118.1, 118.2, 888.0, 884.6, 9.2, 10.1, 228.1, 226.5, 668.5, 666.3, 998.5, 996.3,
		449.1, 448.6, 778.9, 777.0, 559.2, 558.2, 0.3, 0.4, 0.1, 0.6, 778.1, 775.5, 668.8, 666.9, 339.3, 338.0,
		448.9, 447.5, 10.8, 11.6, 557.7, 556.0, 228.3, 228.1, 998.0, 995.8, 888.8, 887.6, 119.6, 120.2, 0.3, 0.3,
		0.6, 0.3, 557.6, 556.8, 339.3, 339.1, 888.0, 887.2, 998.5, 999.0, 778.9, 779.0, 10.2, 11.1, 117.6, 118.3,
		228.9, 229.2, 668.4, 669.1, 449.2, 448.9, 0.2, 0.5,
	}
	var xs, ys []float64
	for i := 0; i < len(points); i += 2 {
		ys, xs = append(ys, points[i]), append(xs, points[i+1])
	}
	got, _ := Regress(xs, ys)
	if !near(got.Slope, 1.00211681802045, 1e-12) || !near(got.Intercept, -0.262323073774029, 1e-11) || !near(got.R2, 0.999993745883712, 1e-12) {
		t.Errorf("%+v, want 1.00211681802045, -0.262323073774029, 0.999993745883712", got)
	}
}

// Anscombe 1973: four sets, one line.
func TestRegressionOfAnscombesFirstSet(t *testing.T) {
	xs := []float64{10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5}
	ys := []float64{8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68}
	got, _ := Regress(xs, ys)
	if !near(got.Slope, 0.5, 0.001) || !near(got.Intercept, 3, 0.001) || !near(got.R2, 0.667, 0.001) {
		t.Errorf("%+v, want 0.5, 3, 0.667", got)
	}
}

func TestRegressionLeavesNothingThatALineExplains(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ys := values(t, 2, 50)
		xs := make([]float64, len(ys))
		for i := range xs {
			xs[i] = float64(i)
		}
		fit, found := Regress(xs, ys)
		if !found || fit.R2 < 0 || fit.R2 > 1 {
			t.Fatalf("%+v, %v", fit, found)
		}
		rest := make([]float64, len(ys))
		for i := range ys {
			rest[i] = ys[i] - fit.Intercept - fit.Slope*xs[i]
		}
		if again, _ := Regress(xs, rest); !near(again.Slope, 0, 1e-6) || !near(again.Intercept, 0, 1e-5) {
			t.Fatalf("the rest has %+v", again)
		}
	})
	if _, found := Regress([]float64{1, 1}, []float64{1, 2}); found {
		t.Error("points above one another have a line")
	}
	if fit, _ := Regress([]float64{1, 2, 3}, []float64{5, 5, 5}); fit != (Fit{0, 5, 1}) {
		t.Errorf("level points have %+v", fit)
	}
}

func TestExceedsNeedsRatioDifferenceAndQuiet(t *testing.T) {
	quiet := func(middle float64) []float64 {
		return []float64{middle, middle * 1.01, middle * 0.99, middle, middle * 1.02, middle * 0.98, middle}
	}
	noisy := []float64{100, 2500, 300, 1900, 1200, 5000, 10}
	for _, c := range []struct {
		name        string
		base, other []float64
		want        Verdict
	}{
		{"ten times and far apart", quiet(20), quiet(300), Yes},
		{"ten times, but 3 ms", quiet(0.3), quiet(3), No},
		{"far apart, but not in proportion", quiet(1000), quiet(1300), No},
		{"within the noise", quiet(20), noisy, Unsure},
		{"too few", quiet(20)[:6], quiet(300), Unsure},
		{"none", nil, nil, Unsure},
		{"faster", quiet(300), quiet(20), No},
		{"from nothing", make([]float64, 7), quiet(300), Yes},
		{"nothing from nothing", make([]float64, 7), make([]float64, 7), No},
	} {
		if got := Compare(c.base, c.other).Exceeds(10, 200); got != c.want {
			t.Errorf("%s: %v, want %v: %+v", c.name, got, c.want, Compare(c.base, c.other))
		}
	}
}

func TestTheSameIsSeldomSlower(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	wrong := 0
	for range 5000 {
		var a, b []float64
		for range MinSamples {
			a = append(a, math.Exp(random.NormFloat64()))
			b = append(b, math.Exp(random.NormFloat64()))
		}
		if Compare(a, b).Exceeds(1.5, 0) == Yes {
			wrong++
		}
	}
	if wrong > 50 {
		t.Errorf("%d of 5000 pairs of the same are found different, want at most 1 %%", wrong)
	}
}

func TestComparisonDoesNotDependOnTheUnit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		series := rapid.SliceOfN(rapid.Float64Range(0.001, 1000), 7, 15)
		base, other := series.Draw(t, "base"), series.Draw(t, "other")
		scale := func(list []float64) []float64 {
			out := slices.Clone(list)
			for i := range out {
				out[i] *= 1024 // exact
			}
			return out
		}
		if got, want := Compare(scale(base), scale(other)).Exceeds(2, 1024), Compare(base, other).Exceeds(2, 1); got != want {
			t.Fatalf("%v in the smaller unit, want %v", got, want)
		}
	})
}
