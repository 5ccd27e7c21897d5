package rollout

import (
	"fmt"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

// exactAtLeast sums the tail with 300 bits, one term after the other.
func exactAtLeast(n, k int64, p float64) float64 {
	number := func(f float64) *big.Float { return new(big.Float).SetPrec(300).SetFloat64(f) }
	x := number(p)
	y := number(1)
	y.Sub(y, x)
	term, total := number(1), number(0)
	for range n {
		term.Mul(term, y)
	}
	x.Quo(x, y)
	for i := int64(0); i <= n; i++ {
		if i >= k {
			total.Add(total, term)
		}
		term.Mul(term, x).Mul(term, number(float64(n-i))).Quo(term, number(float64(i+1)))
	}
	sum, _ := total.Float64()
	return sum
}

func near(got, want float64) bool { return math.Abs(got-want) <= 1e-9*want+1e-300 }

func TestTailsAreThoseOfExactSums(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(1, 400).Draw(t, "n")
		k := rapid.Int64Range(0, n).Draw(t, "k")
		p := rapid.Float64Range(1e-4, 0.999).Draw(t, "p")
		if got, want := atLeast(n, k, p), exactAtLeast(n, k, p); !near(got, want) {
			t.Fatalf("atLeast(%d, %d, %v) = %v, want %v", n, k, p, got, want)
		}
		// P(X <= k) of the failures is P(X >= n-k) of the rest.
		if got, want := atMost(n, k, p), exactAtLeast(n, n-k, 1-p); !near(got, want) {
			t.Fatalf("atMost(%d, %d, %v) = %v, want %v", n, k, p, got, want)
		}
	})
}

func TestTailsOfLargeCountsKeepTheirDigits(t *testing.T) {
	for _, c := range []struct {
		n, k int64
		p    float64
	}{{10_000, 19, 0.001}, {10_000, 200, 0.01}, {10_000, 60, 0.01}, {20_000, 900, 0.05}} {
		if got, want := atLeast(c.n, c.k, c.p), exactAtLeast(c.n, c.k, c.p); !near(got, want) {
			t.Errorf("atLeast(%d, %d, %v) = %v, want %v", c.n, c.k, c.p, got, want)
		}
	}
	// The two tails of a million meet.
	if got := atLeast(1_000_000, 1_001, 0.001) + atMost(1_000_000, 1_000, 0.001); math.Abs(got-1) > 1e-8 {
		t.Errorf("both tails of a million = %v, want 1", got)
	}
}

func TestFisherIsTheExactSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, n := rapid.Int64Range(1, 200).Draw(t, "m"), rapid.Int64Range(1, 200).Draw(t, "n")
		a, b := rapid.Int64Range(0, m).Draw(t, "a"), rapid.Int64Range(0, n).Draw(t, "b")
		if a*n <= b*m {
			if got := fisher(a, m, b, n); got != 1 {
				t.Fatalf("fisher(%d/%d, %d/%d) = %v, want 1", a, m, b, n, got)
			}
			return
		}
		ways := new(big.Int)
		for i := a; i <= min(m, a+b); i++ {
			ways.Add(ways, new(big.Int).Mul(new(big.Int).Binomial(m, i), choose(n, a+b-i)))
		}
		want, _ := new(big.Rat).SetFrac(ways, choose(m+n, a+b)).Float64()
		if got := fisher(a, m, b, n); !near(got, want) {
			t.Fatalf("fisher(%d/%d, %d/%d) = %v, want %v", a, m, b, n, got, want)
		}
	})
}

func choose(n, k int64) *big.Int {
	if k < 0 || k > n {
		return new(big.Int)
	}
	return new(big.Int).Binomial(n, k)
}

// How many failures in one look reject a limit at 1 %.
func TestAbortCountsOfOneLook(t *testing.T) {
	for _, c := range []struct {
		limit   float64
		n, want int64
	}{
		{0.001, 20, 2},
		{0.001, 100, 2},
		{0.001, 200, 3},
		{0.001, 500, 4},
		{0.001, 1000, 5},
		{0.001, 10_000, 19},
		{0.01, 20, 3},
		{0.01, 50, 4},
		{0.01, 100, 5},
		{0.01, 200, 7},
		{0.01, 500, 12},
		{0.01, 1000, 19},
		{0.05, 20, 5},
		{0.05, 50, 8},
		{0.05, 100, 12},
		{0.05, 200, 19},
		{0.05, 500, 38},
		{0.05, 1000, 68},
	} {
		got := int64(0)
		for atLeast(c.n, got, c.limit) >= 0.01 {
			got++
		}
		if got != c.want {
			t.Errorf("limit %v: %d failures in %d reject it, want %d", c.limit, got, c.n, c.want)
		}
	}
}

func TestCleanRequestsNeeded(t *testing.T) {
	for _, c := range []struct {
		n, k  int64
		limit float64
		want  int64
	}{
		{0, 0, 0.01, 299},
		{0, 0, 0.005, 598},
		{0, 0, 0.001, 2995},
		{0, 0, 0.05, 59},
		{299, 0, 0.01, 0},
		{298, 0, 0.01, 1},
		{100, 1, 0.01, 373}, // one failure takes 473
		{0, 0, 1, 0},
	} {
		t.Run(fmt.Sprint(c.k, " of ", c.n, " at ", c.limit), func(t *testing.T) {
			got := CleanRequests(c.n, c.k, c.limit)
			if got != c.want {
				t.Fatalf("CleanRequests() = %d, want %d", got, c.want)
			}
			if total := c.n + got; total > 0 && c.limit < 1 && upperBound(total, c.k) >= c.limit {
				t.Errorf("upper bound of %d in %d = %v, want it below %v", c.k, total, upperBound(total, c.k), c.limit)
			}
		})
	}
}
