package rollout

import (
	"fmt"
	"strconv"
	"strings"
)

// Version is one of the two sides of a launch. The zero Version is the stable one.
type Version uint8

// Stable is what served before the launch, Candidate what is being launched.
const (
	Stable Version = iota
	Candidate
)

// String is "stable" or "candidate", as in the header Gantry-Version.
func (v Version) String() string { return [...]string{"stable", "candidate"}[v&1] }

// BasisPoints is a share in hundredths of a percent: 1000 is 10 %. It is also a caller's bucket, then
// 0 to 9999.
type BasisPoints int32

// All is 100 %, and the number of buckets.
const All BasisPoints = 10_000

// String is the share in percent without needless zeros: "10 %", "0.25 %".
func (b BasisPoints) String() string {
	return strconv.FormatFloat(float64(b)/100, 'f', -1, 64) + " %"
}

// ParsePercent reads "10", "10%" or "0.25 %" as basis points. It refuses a third decimal and what
// is not between 0 and 100.
func ParsePercent(s string) (BasisPoints, error) {
	digits := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(s), "%"))
	whole, fraction, _ := strings.Cut(digits, ".")
	n, err := strconv.ParseUint(whole, 10, 8)
	hundredths := uint64(0)
	if err == nil && fraction != "" {
		hundredths, err = strconv.ParseUint((fraction + "0")[:max(2, len(fraction))], 10, 8)
	}
	b := BasisPoints(n*100 + hundredths)
	if err != nil || len(fraction) > 2 || b > All {
		return 0, fmt.Errorf("%q is not a percentage from 0 to 100 with at most two decimals", s)
	}
	return b, nil
}

// Choose sends a bucket to the candidate if it is below weight. Since the buckets do not move, who is
// in at one weight is in at every higher one; weight 0 is nobody and [All] everybody.
func Choose(weight, bucket BasisPoints) Version {
	if bucket < weight {
		return Candidate
	}
	return Stable
}
