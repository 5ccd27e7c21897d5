package telemetry

import (
	"math"
	"slices"
	"time"
)

// Classes of durations grow by a tenth. One ends at 500 ms exactly, the limit of the success criteria, so
// that judgements about it do not depend on the width of a class. The first ends at 94 µs, the last but one
// at 64.6 s.
const (
	classGrowth  = 1.1
	classAnchor  = 500 * time.Millisecond
	classesBelow = 90 // ends before the anchor
	classesAbove = 51
	classes      = classesBelow + 1 + classesAbove + 1 // the last has no end
)

// classEnds are the ends of all classes but the last, which they include.
var classEnds = func() (ends [classes - 1]time.Duration) {
	for i := range ends {
		ends[i] = time.Duration(math.Round(float64(classAnchor) * math.Pow(classGrowth, float64(i-classesBelow))))
	}
	return ends
}()

// classOf returns the class that d belongs to.
func classOf(d time.Duration) int {
	i, _ := slices.BinarySearch(classEnds[:], d)
	return i
}

// Buckets is a distribution of durations in a fixed number of classes. The zero value is empty.
//
// A quantile between 100 µs and 60 s is off by at most 5 %; whether it is above 500 ms is exact. Shorter
// and longer ones are told as the end of the range.
type Buckets struct{ counts [classes]uint64 }

// Observe counts one duration.
func (b *Buckets) Observe(d time.Duration) { b.counts[classOf(d)]++ }

// Add counts all that other has.
func (b *Buckets) Add(other *Buckets) {
	for i, n := range other.counts {
		b.counts[i] += n
	}
}

// Count is how many durations were counted.
func (b *Buckets) Count() (n uint64) {
	for _, c := range b.counts {
		n += c
	}
	return n
}

// Quantile returns the duration that the share q, 0 to 1, of all does not exceed; 0 when there are none.
func (b *Buckets) Quantile(q float64) time.Duration {
	total := b.Count()
	if total == 0 {
		return 0
	}
	rank := max(1, uint64(math.Ceil(q*float64(total))))
	for i, n := range b.counts {
		if n >= rank {
			return middle(i)
		}
		rank -= n
	}
	return middle(classes - 1)
}

// middle is the geometric one, which is equally far, as a ratio, from both ends.
func middle(class int) time.Duration {
	switch class {
	case 0:
		return classEnds[0]
	case classes - 1:
		return classEnds[class-1]
	}
	return time.Duration(math.Sqrt(float64(classEnds[class-1]) * float64(classEnds[class])))
}

// Over is the share, 0 to 1, of durations longer than d; 0 when there are none. It is exact for 500 ms;
// otherwise the class that d lies in is taken to be evenly filled, on a logarithmic scale.
func (b *Buckets) Over(d time.Duration) float64 {
	total := b.Count()
	if total == 0 {
		return 0
	}
	class := classOf(d)
	above := float64(b.counts[class]) * partAbove(class, d)
	for _, n := range b.counts[class+1:] {
		above += float64(n)
	}
	return above / float64(total)
}

// partAbove is the part of a class that is above d. The first and the last class have one end only and
// count whole.
func partAbove(class int, d time.Duration) float64 {
	if class == 0 || class == classes-1 {
		return 1
	}
	from, to := float64(classEnds[class-1]), float64(classEnds[class])
	return math.Log(to/float64(d)) / math.Log(to/from)
}
