package stat

import "math"

// Fit is the line y = Intercept + Slope x nearest to a set of points.
type Fit struct {
	Slope, Intercept float64
	R2               float64 // the share of y's variance that the line explains, 0 to 1
}

// Regress fits a line by least squares. It is false when there are fewer than two points or all have
// the same x. It panics if xs and ys differ in length. Where y does not vary R2 is 1: the line is exact.
func Regress(xs, ys []float64) (Fit, bool) {
	if len(xs) != len(ys) {
		panic("stat: as many xs as ys are needed")
	}
	if len(xs) < 2 {
		return Fit{}, false
	}
	// About the means, since the sums of squares of large values would leave nothing of small ones.
	meanX, meanY := mean(xs), mean(ys)
	var xx, xy, yy float64
	for i := range xs {
		x, y := xs[i]-meanX, ys[i]-meanY
		xx += x * x
		xy += x * y
		yy += y * y
	}
	if xx == 0 || math.IsNaN(xx) || math.IsNaN(yy) {
		return Fit{}, false
	}
	f := Fit{Slope: xy / xx, R2: 1}
	f.Intercept = meanY - f.Slope*meanX
	if yy > 0 {
		f.R2 = min(xy/xx*xy/yy, 1)
	}
	return f, true
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}
