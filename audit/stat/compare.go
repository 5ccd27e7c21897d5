package stat

import "math"

// MinSamples is how many of each series a comparison needs before it says anything.
const MinSamples = 7

// Comparison is how one series stands to another. Take the two in turns (one, other, other, one),
// so that what else the machine does falls on both.
type Comparison struct {
	Base, Other float64 // medians
	Ratio       float64 // Other / Base; infinite if Base is 0 and Other is not
	Difference  float64 // Other - Base
	Noise       float64 // of the noisier of the two
	N           int     // samples of the shorter
}

// Compare measures other against base.
func Compare(base, other []float64) Comparison {
	c := Comparison{
		Base: Median(base), Other: Median(other),
		Noise: max(Noise(base), Noise(other)), N: min(len(base), len(other)),
	}
	c.Ratio, c.Difference = c.Other/c.Base, c.Other-c.Base
	if c.Other == c.Base {
		c.Ratio = 1
	}
	return c
}

// Verdict is an answer that may be missing.
type Verdict int

// The zero Verdict proves nothing.
const (
	Unsure Verdict = iota
	No
	Yes
)

func (v Verdict) String() string { return [...]string{"unsure", "no", "yes"}[v] }

// Exceeds is whether other is above base by a factor of ratio, and by difference, and by more than
// three times the noise. All three must hold for a Yes: a ratio alone makes 3 ms out of 0.3 ms a
// fault, a difference alone a busy machine. It is No when one of the first two does not hold, and
// Unsure when only the noise, or too few samples, stand against it.
func (c Comparison) Exceeds(ratio, difference float64) Verdict {
	switch {
	case c.N < MinSamples, math.IsNaN(c.Difference), math.IsNaN(c.Ratio), math.IsNaN(c.Noise):
		return Unsure
	case c.Ratio < ratio || c.Difference < difference:
		return No
	case c.Difference <= 3*c.Noise:
		return Unsure
	}
	return Yes
}
