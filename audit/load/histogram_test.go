package load

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const longest = 137 * time.Second

func durations(t *rapid.T, label string) []time.Duration {
	// Of every size, not mostly the greatest.
	one := rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.Int64Range(0, int64(longest)).Draw(t, "ns") >> rapid.IntRange(0, 37).Draw(t, "shift"))
	})
	return rapid.SliceOfN(one, 1, 300).Draw(t, label)
}

func histogramOf(list []time.Duration) (h Histogram) {
	for _, d := range list {
		h.Record(d)
	}
	return h
}

func TestQuantileIsWithinOnePercent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := durations(t, "list")
		p := rapid.Float64Range(0, 1).Draw(t, "p")
		got := histogramOf(list).Quantile(p)
		slices.Sort(list)
		want := list[nearestRank(int64(len(list)), p)-1]
		if off := (got - want).Abs(); float64(off) > 0.008*float64(want) {
			t.Fatalf("Quantile(%v) = %v, want %v within 0.8 %%", p, got, want)
		}
	})
}

func TestBucketsTileTheDurations(t *testing.T) {
	next := time.Duration(0)
	for i := range buckets {
		low, high := boundsOf(i)
		if low != next {
			t.Fatalf("bucket %d begins at %d, want %d", i, low, next)
		}
		if bucketOf(low) != i || bucketOf(high) != i {
			t.Fatalf("the ends of bucket %d are in %d and %d", i, bucketOf(low), bucketOf(high))
		}
		next = high + 1
	}
	if next != 1<<topBits || next < 120*time.Second {
		t.Errorf("the buckets end at %v, want 2^37 ns", next)
	}
}

func TestMergeIsTheUnion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := durations(t, "a"), durations(t, "b")
		merged := histogramOf(a)
		merged.Merge(histogramOf(b))
		whole := histogramOf(append(a, b...))
		if merged.Count() != whole.Count() || merged.Min() != whole.Min() || merged.Max() != whole.Max() {
			t.Fatalf("merged %d, %v to %v; want %d, %v to %v", merged.Count(), merged.Min(), merged.Max(), whole.Count(), whole.Min(), whole.Max())
		}
		for p := 0.0; p <= 1; p += 0.01 {
			if merged.Quantile(p) != whole.Quantile(p) {
				t.Fatalf("Quantile(%v) = %v merged, want %v", p, merged.Quantile(p), whole.Quantile(p))
			}
		}
		if off := math.Abs(float64(merged.Mean() - whole.Mean())); off > 1e-9*float64(whole.Mean())+1 {
			t.Fatalf("mean %v merged, want %v", merged.Mean(), whole.Mean())
		}
	})
}

func TestMergeIntoAnEmptyOneLeavesTheOtherAlone(t *testing.T) {
	other := histogramOf([]time.Duration{time.Second})
	var h Histogram
	h.Merge(other)
	h.Record(time.Minute)
	if other.Count() != 1 || other.Quantile(1) != time.Second {
		t.Errorf("the merged one has %d, up to %v; want 1, up to 1s", other.Count(), other.Quantile(1))
	}
}

func TestEmptyHistogramHasNothingToSay(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Mean() != 0 || h.Max() != 0 || h.Count() != 0 || h.Above(0) != 0 {
		t.Error("an empty histogram is not all zero")
	}
	if _, _, ok := h.QuantileCI(0.5, 0.95); ok {
		t.Error("an empty histogram has an interval")
	}
}

func TestWhatIsTooLongIsCountedAtTheTop(t *testing.T) {
	h := histogramOf([]time.Duration{time.Hour, -time.Second})
	if h.Max() != time.Hour || h.Quantile(1) > time.Hour || h.Quantile(1) < longest || h.Min() != 0 {
		t.Errorf("from %v, top %v, max %v", h.Min(), h.Quantile(1), h.Max())
	}
}

func TestAboveCountsWhatExceedsTheLimit(t *testing.T) {
	h := histogramOf([]time.Duration{time.Millisecond, time.Second, 2 * time.Second})
	if got := h.Above(500 * time.Millisecond); got != 2 {
		t.Errorf("Above(500ms) = %d, want 2", got)
	}
}

func TestHistogramStaysSmall(t *testing.T) {
	var h Histogram
	for i := range 1_000_000 {
		h.Record(time.Duration(i) * 137 * time.Microsecond)
	}
	if size := 8 * cap(h.buckets); size > 16<<10+64 {
		t.Errorf("a million durations take %d bytes", size)
	}
}

// Of the median of 10 and of 100 the ranks are in every table of distribution-free intervals; the
// p99 of 368 is the first with an upper end, since 0.99 to the 368th is below 0.025.
func TestRanksAreThoseOfTheBooks(t *testing.T) {
	for _, c := range []struct {
		n          int64
		p          float64
		confidence float64
		from, to   int64
	}{
		{10, 0.5, 0.95, 2, 9},
		{6, 0.5, 0.95, 1, 6},
		{5, 0.5, 0.95, 0, 6}, // five are not enough
		{100, 0.5, 0.95, 40, 61},
		{367, 0.99, 0.95, 359, 368}, // one too few: no upper end
		{368, 0.99, 0.95, 360, 368},
	} {
		from, to := quantileRanks(c.n, c.p, c.confidence)
		if diff := cmp.Diff([]int64{from, to}, []int64{c.from, c.to}); diff != "" {
			t.Errorf("ranks of %d at %v: %s", c.n, c.p, diff)
		}
	}
}

// The law itself, by the exact binomial: no less than the confidence, and one rank less would be.
func TestRanksHoldTheConfidenceAndNoMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(1, 60).Draw(t, "n")
		p := rapid.Float64Range(0.01, 0.99).Draw(t, "p")
		confidence := rapid.Float64Range(0.5, 0.99).Draw(t, "confidence")
		from, to := quantileRanks(n, p, confidence)
		tail := (1 - confidence) / 2
		if below := binomialBelow(n, p, from); below > tail+1e-12 {
			t.Fatalf("the quantile is below rank %d with %v, want at most %v", from, below, tail)
		}
		if below := binomialBelow(n, p, from+1); below <= tail-1e-12 {
			t.Fatalf("rank %d would do, got %d", from+1, from)
		}
		if above := 1 - binomialBelow(n, p, to); above > tail+1e-12 {
			t.Fatalf("the quantile is above rank %d with %v, want at most %v", to, above, tail)
		}
		if above := 1 - binomialBelow(n, p, to-1); above <= tail-1e-12 {
			t.Fatalf("rank %d would do, got %d", to-1, to)
		}
	})
}

// binomialBelow is the chance of fewer than k successes, by Pascal's triangle.
func binomialBelow(n int64, p float64, k int64) float64 {
	row := make([]float64, n+1)
	row[0] = 1
	for i := range n {
		for j := i + 1; j > 0; j-- {
			row[j] = row[j]*(1-p) + row[j-1]*p
		}
		row[0] *= 1 - p
	}
	sum := 0.0
	for j := int64(0); j < min(k, n+1); j++ {
		sum += row[j]
	}
	return sum
}

func TestIntervalCoversTheTrueQuantile(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		p    float64
		n    int
		want float64 // of the lognormal, in milliseconds
	}{
		{0.50, 100, 20},
		{0.95, 500, 20 * math.Exp(1.6448536)},
		{0.99, 2000, 20 * math.Exp(2.3263479)},
	} {
		const rounds = 2000
		covered := 0
		for range rounds {
			var h Histogram
			for range c.n {
				h.Record(time.Duration(20e6 * math.Exp(random.NormFloat64())))
			}
			low, high, ok := h.QuantileCI(c.p, 0.95)
			want := time.Duration(c.want * 1e6)
			if ok && low <= want && want <= high {
				covered++
			}
		}
		if float64(covered) < 0.94*rounds {
			t.Errorf("p%v of %d: %d of %d intervals hold it, want 95 %%", 100*c.p, c.n, covered, rounds)
		}
	}
}

func TestJudgeNeedsTheWholeInterval(t *testing.T) {
	var h Histogram
	for i := range 1000 {
		h.Record(time.Duration(i+1) * time.Millisecond)
	}
	for _, c := range []struct {
		limit time.Duration
		want  Judged
	}{{600 * time.Millisecond, Below}, {500 * time.Millisecond, Straddles}, {400 * time.Millisecond, Above}} {
		if got := h.Judge(0.5, 0.95, c.limit); got != c.want {
			t.Errorf("the median is %v of %v, want %v", got, c.limit, c.want)
		}
	}
}

func TestJudgeSaysNothingOfTooFew(t *testing.T) {
	h := histogramOf(slices.Repeat([]time.Duration{time.Millisecond}, 100))
	if got := h.Judge(0.99, 0.95, time.Second); got != Straddles {
		t.Errorf("the p99 of 100 is %v of the limit, want %v", got, Straddles)
	}
	// That it is slow needs fewer.
	h = histogramOf(slices.Repeat([]time.Duration{time.Minute}, 100))
	if got := h.Judge(0.99, 0.95, time.Second); got != Above {
		t.Errorf("the p99 of 100 is %v of the limit, want %v", got, Above)
	}
	if got := (Histogram{}).Judge(0.5, 0.95, 0); got != Straddles {
		t.Errorf("nothing is %v of the limit, want %v", got, Straddles)
	}
}
