package rollout

import (
	"math"
	"sort"
)

// atLeast is P(X >= k) of a binomial X with n trials of chance p, to a relative error of 1e-8 for n up
// to a million, however small it is. The smaller of the two tails is summed, since the difference of
// 1 and a number near it has no digits left.
func atLeast(n, k int64, p float64) float64 {
	switch {
	case k <= 0:
		return 1
	case k > n || p <= 0:
		return 0
	case p >= 1:
		return 1
	case float64(k) > float64(n)*p:
		return sum(logBinomial(n, k, p), n-k, func(i int64) float64 {
			return float64(n-k-i) / float64(k+i+1) * p / (1 - p)
		})
	}
	return 1 - atMost(n, k-1, p)
}

// atMost is P(X <= k), likewise.
func atMost(n, k int64, p float64) float64 {
	switch {
	case k < 0:
		return 0
	case k >= n || p <= 0:
		return 1
	case p >= 1:
		return 0
	case float64(k) <= float64(n)*p:
		return sum(logBinomial(n, k, p), k, func(i int64) float64 {
			return float64(k-i) / float64(n-k+i+1) * (1 - p) / p
		})
	}
	return 1 - atLeast(n, k+1, p)
}

// sum is exp(first) times 1 + ratio(0) + ratio(0) ratio(1) + ..., at most more ratios, which must fall.
// It ends when what is left cannot be seen any more.
func sum(first float64, more int64, ratio func(i int64) float64) float64 {
	total, term := 1.0, 1.0
	for i := range more {
		r := ratio(i)
		term *= r
		total += term
		if r < 1 && term/(1-r) < 1e-12*total {
			break
		}
	}
	return min(math.Exp(first+math.Log(total)), 1)
}

func logBinomial(n, k int64, p float64) float64 {
	return logChoose(n, k) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p)
}

func logChoose(n, k int64) float64 { return logFactorial(n) - logFactorial(k) - logFactorial(n-k) }

func logFactorial(n int64) float64 {
	l, _ := math.Lgamma(float64(n) + 1)
	return l
}

// fisher is the chance that a of m or more failures fall to the candidate, if its rate is that of stable
// and a+b failures fell to m+n requests (Fisher's exact test, one-sided).
func fisher(a, m, b, n int64) float64 {
	if a <= 0 || m <= 0 || n <= 0 {
		return 1
	}
	if float64(a)*float64(n) <= float64(b)*float64(m) {
		return 1 // no more than its share: some half, and nobody asks how much exactly
	}
	all := a + b
	first := logChoose(m, a) + logChoose(n, b) - logChoose(m+n, all)
	return sum(first, min(b, m-a), func(i int64) float64 {
		return float64(m-a-i) / float64(a+i+1) * float64(b-i) / float64(n-b+i+1)
	})
}

// doubt is what is left of the confidence of "proven".
const doubt = 0.05

// upperBound is the rate above which k or fewer failures in n would have been seen by a chance of 5 %
// only (Clopper and Pearson 1934); 1 if nothing was seen.
func upperBound(n, k int64) float64 {
	if k >= n {
		return 1
	}
	low, high := float64(k)/float64(n), 1.0
	for range 60 {
		middle := (low + high) / 2
		if atMost(n, k, middle) > doubt {
			low = middle
		} else {
			high = middle
		}
	}
	return high
}

// CleanRequests is how many more requests without a failure, after n of which k failed, show at 95 % that
// the rate is below limit: at first 299 for 1 %, 598 for 0.5 %, 2,995 for 0.1 %.
func CleanRequests(n, k int64, limit float64) int64 {
	if limit >= 1 || atMost(n, k, limit) <= doubt {
		return 0
	}
	enough := func(more int) bool { return atMost(n+int64(more), k, limit) <= doubt }
	bound := 1
	for !enough(bound) {
		bound *= 2
	}
	return int64(sort.Search(bound, enough))
}
