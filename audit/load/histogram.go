package load

import (
	"math"
	"math/bits"
	"time"
)

// Histogram counts durations in log-linear buckets: each power of two has 64 of them, so that a value
// read back is within 0.8 % of the one recorded, from nothing to 137 s; what is longer is counted as
// that long. It takes at most 16 KiB however much is recorded. The zero value is empty and ready;
// copies share their buckets, so record into one of them only.
type Histogram struct {
	buckets  []uint64 // as long as the highest bucket in use needs
	n        uint64
	sum      float64 // nanoseconds
	min, max time.Duration
}

const (
	subBits   = 6  // 64 buckets for each power of two
	topBits   = 37 // 2^37 ns are 137 s
	buckets   = (topBits - subBits + 1) << subBits
	firstHalf = 1 << subBits // values below it have buckets of their own
)

// bucketOf finds a value's bucket: the position of its highest bit and the six bits below that.
func bucketOf(d time.Duration) int {
	if d < firstHalf {
		return int(max(d, 0))
	}
	shift := bits.Len64(uint64(d)) - 1 - subBits
	return min((shift+1)<<subBits+int(d>>shift)-firstHalf, buckets-1)
}

// boundsOf is the least and the greatest value of a bucket, in whole nanoseconds.
func boundsOf(bucket int) (low, high time.Duration) {
	if bucket < firstHalf {
		return time.Duration(bucket), time.Duration(bucket)
	}
	shift := bucket>>subBits - 1
	low = time.Duration(firstHalf+bucket&(firstHalf-1)) << shift
	return low, low + 1<<shift - 1
}

// Record counts d; a negative one counts as 0.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	h.reach(bucketOf(d))
	h.buckets[bucketOf(d)]++
	if h.n == 0 || d < h.min {
		h.min = d
	}
	h.max = max(h.max, d)
	h.n++
	h.sum += float64(d)
}

// Merge counts everything that other counted, as if it had been recorded here.
func (h *Histogram) Merge(other Histogram) {
	if other.n == 0 {
		return
	}
	h.reach(len(other.buckets) - 1)
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
	if h.n == 0 || other.min < h.min {
		h.min = other.min
	}
	h.max = max(h.max, other.max)
	h.n += other.n
	h.sum += other.sum
}

// reach makes room for a bucket, by doubling, so that short values take little.
func (h *Histogram) reach(bucket int) {
	if bucket < len(h.buckets) {
		return
	}
	grown := make([]uint64, min(max(bucket+1, 2*len(h.buckets), 4*firstHalf), buckets))
	copy(grown, h.buckets)
	h.buckets = grown
}

// Count is how many durations were recorded.
func (h Histogram) Count() int64 { return int64(h.n) }

// Min, Max and Mean are exact; 0 when nothing was recorded.
func (h Histogram) Min() time.Duration { return h.min }

// Max is the longest duration recorded, exactly.
func (h Histogram) Max() time.Duration { return h.max }

// Mean is the arithmetic mean, exact but for the rounding of a float64.
func (h Histogram) Mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return time.Duration(h.sum / float64(h.n))
}

// Quantile is the least recorded duration that a share p of all does not exceed (nearest rank), to
// within 0.8 %. p is 0 (the least) to 1 (the greatest). 0 when nothing was recorded.
func (h Histogram) Quantile(p float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	low, high := h.at(nearestRank(int64(h.n), p))
	return low + (high-low)/2
}

// Above is how many recorded durations exceed limit, to within a bucket's width.
func (h Histogram) Above(limit time.Duration) int64 {
	var n uint64
	for i := bucketOf(limit) + 1; i < len(h.buckets); i++ {
		n += h.buckets[i]
	}
	return int64(n)
}

// at is where the value of a rank lies, 1 to n, no wider than what was really recorded.
func (h Histogram) at(rank int64) (low, high time.Duration) {
	var seen uint64
	for i, n := range h.buckets {
		if seen += n; seen >= uint64(rank) {
			low, high = boundsOf(i)
			if i == buckets-1 {
				high = h.max
			}
			return max(low, h.min), min(high, h.max)
		}
	}
	return h.max, h.max
}

// nearestRank is the rank of quantile p among n, 1 to n. The sliver keeps 0.95 x 20, which a float64
// holds as a little more than 19, from becoming rank 20.
func nearestRank(n int64, p float64) int64 {
	exact := p * float64(n)
	return min(max(int64(math.Ceil(exact-1e-9*exact)), 1), n)
}
