package load

import "time"

// QuantileCI is an interval that holds the true quantile p with at least the given confidence
// (0.95, say), from order statistics: it assumes nothing about how latency is distributed, but it
// does assume that answers are independent, which those of a server with a queue are not; so read
// it as the narrowest interval that can be honest, and judge by the median of several windows.
//
// It is false when so few were recorded that the interval has no end on one side: the 0.99 quantile
// needs 368 for 95 %. That side then is the least or greatest recorded.
func (h Histogram) QuantileCI(p, confidence float64) (low, high time.Duration, ok bool) {
	if h.n == 0 {
		return 0, 0, false
	}
	n := int64(h.n)
	from, to := quantileRanks(n, p, confidence)
	low, _ = h.at(max(from, 1))
	_, high = h.at(min(to, n))
	return low, high, from >= 1 && to <= n
}

// quantileRanks are the narrowest ranks, with equal tails, between which the quantile p of n
// independent values lies with this confidence: how many of the n lie below it is binomial
// (David and Nagaraja, Order Statistics, 7.1). 0 or n+1 mean that no rank will do.
func quantileRanks(n int64, p, confidence float64) (from, to int64) {
	tail := (1 - confidence) / 2
	w := binomialWeights(n, p)
	// The quantile is below value number `from` only if fewer than `from` values are below it.
	from = w.first
	for sum := 0.0; from-w.first < int64(len(w.weight)); from++ {
		if sum += w.weight[from-w.first]; sum > tail*w.total {
			break
		}
	}
	// It is above value number `to` only if `to` or more are.
	last := w.first + int64(len(w.weight)) - 1
	to = last + 1
	for sum := 0.0; to > w.first; to-- {
		if sum += w.weight[to-1-w.first]; sum > tail*w.total {
			break
		}
	}
	return from, to
}

// binomial is a binomial distribution around its mode, as weights that sum to total.
type binomial struct {
	first  int64 // the number that weight[0] belongs to
	weight []float64
	total  float64
}

// binomialWeights leaves out what is too unlikely to matter. It starts at the mode and multiplies
// outwards, so it needs no factorials and loses nothing for a large n.
func binomialWeights(n int64, p float64) binomial {
	p = min(max(p, 0), 1)
	if p == 0 || p == 1 {
		return binomial{first: int64(p) * n, weight: []float64{1}, total: 1}
	}
	const negligible = 1e-18
	odds := p / (1 - p)
	mode := min(int64(float64(n+1)*p), n)
	var left []float64
	for k, w := mode, 1.0; k > 0; k-- {
		if w *= float64(k) / float64(n-k+1) / odds; w < negligible {
			break
		}
		left = append(left, w)
	}
	b := binomial{first: mode - int64(len(left))}
	for i := len(left) - 1; i >= 0; i-- {
		b.weight = append(b.weight, left[i])
	}
	b.weight = append(b.weight, 1)
	for k, w := mode, 1.0; k < n; k++ {
		if w *= float64(n-k) / float64(k+1) * odds; w < negligible {
			break
		}
		b.weight = append(b.weight, w)
	}
	for _, w := range b.weight {
		b.total += w
	}
	return b
}

// Judged is how an interval stands to a limit.
type Judged int

// The zero Judged decides nothing.
const (
	Straddles Judged = iota // the limit is inside: not proven either way
	Below                   // the whole interval is at or below the limit
	Above                   // the whole interval is above the limit
)

func (j Judged) String() string { return [...]string{"straddles", "below", "above"}[j] }

// Judge says on which side of limit quantile p of this histogram is, with the given confidence. Too
// few values prove neither side, save that a bound of which there is certainty still counts.
func (h Histogram) Judge(p, confidence float64, limit time.Duration) Judged {
	if h.n == 0 {
		return Straddles
	}
	n := int64(h.n)
	from, to := quantileRanks(n, p, confidence)
	low, _ := h.at(max(from, 1))
	_, high := h.at(min(to, n))
	switch {
	case from >= 1 && low > limit:
		return Above
	case to <= n && high <= limit:
		return Below
	}
	return Straddles
}
