package report

import (
	"fmt"
	"html/template"
	"math"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

// The size of a chart's drawing, and the room for its axes.
const (
	chartWidth  = 640.0
	chartHeight = 220.0
	left        = 56.0
	bottom      = 34.0
	top         = 12.0
	right       = 12.0
)

// scale maps a range of values onto a range of pixels.
type scale struct{ from, to, start, end float64 }

func (s scale) at(v float64) float64 {
	if s.to == s.from {
		return s.start
	}
	return s.start + (v-s.from)/(s.to-s.from)*(s.end-s.start)
}

// drawChart as inline SVG. Titles and names may quote the target; they are escaped here, because the result is marked
// as safe.
func drawChart(c audit.Chart) template.HTML {
	x, y := axes(c)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="chart" viewBox="0 0 %g %g" role="img" aria-label="%s">`, chartWidth, chartHeight, esc(c.Title))
	grid(&b, x, y)
	for _, l := range c.Limits {
		at := y.at(l.Y)
		fmt.Fprintf(&b, `<line class="limit" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/><text class="limit-name" x="%g" y="%.1f" text-anchor="end">%s</text>`,
			left, chartWidth-right, at, at, chartWidth-right-2, at-3, esc(l.Name))
	}
	for i, s := range c.Series {
		series(&b, i, s, x, y)
	}
	fmt.Fprintf(&b, `<text class="axis" x="%g" y="%g" text-anchor="middle">%s</text>`, (left+chartWidth-right)/2, chartHeight-3, esc(c.X))
	fmt.Fprintf(&b, `<text class="axis" transform="translate(11 %g) rotate(-90)" text-anchor="middle">%s</text></svg>`, (top+chartHeight-bottom)/2, esc(c.Y))
	legend(&b, c)
	return template.HTML(b.String())
}

func esc(s string) string { return template.HTMLEscapeString(Plain(s)) }

func axes(c audit.Chart) (x, y scale) {
	x = scale{math.Inf(1), math.Inf(-1), left, chartWidth - right}
	y = scale{0, 0, chartHeight - bottom, top}
	for _, s := range c.Series {
		for i := range min(len(s.X), len(s.Y)) {
			if finite(s.X[i]) && finite(s.Y[i]) {
				x.from, x.to = min(x.from, s.X[i]), max(x.to, s.X[i])
				y.from, y.to = min(y.from, s.Y[i]), max(y.to, s.Y[i])
			}
		}
	}
	for _, l := range c.Limits {
		y.to = max(y.to, l.Y*1.05)
	}
	if x.from > x.to {
		x.from, x.to = 0, 1
	}
	if y.to == y.from {
		y.to = y.from + 1
	}
	return x, y
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func grid(b *strings.Builder, x, y scale) {
	for i := range 5 {
		v := y.from + float64(i)/4*(y.to-y.from)
		fmt.Fprintf(b, `<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/><text class="tick" x="%g" y="%.1f" text-anchor="end">%s</text>`,
			left, chartWidth-right, y.at(v), y.at(v), left-5, y.at(v)+3, short(v))
		h := x.from + float64(i)/4*(x.to-x.from)
		fmt.Fprintf(b, `<text class="tick" x="%.1f" y="%g" text-anchor="middle">%s</text>`, x.at(h), chartHeight-bottom+13, short(h))
	}
}

func short(v float64) string {
	switch {
	case math.Abs(v) >= 1e6:
		return fmt.Sprintf("%.3gM", v/1e6)
	case math.Abs(v) >= 1e4:
		return fmt.Sprintf("%.3gk", v/1e3)
	}
	return fmt.Sprintf("%.3g", v)
}

const palette = 5 // classes s0 to s4 of the style

func series(b *strings.Builder, n int, s audit.Series, x, y scale) {
	var points []string
	for i := range min(len(s.X), len(s.Y), 600) {
		if !finite(s.X[i]) || !finite(s.Y[i]) {
			continue
		}
		px, py := x.at(s.X[i]), y.at(s.Y[i])
		if s.Bars {
			fmt.Fprintf(b, `<line class="bar s%d" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, n%palette, px, px, y.start, py)
			continue
		}
		points = append(points, fmt.Sprintf("%.1f,%.1f", px, py))
	}
	if len(points) == 1 {
		fmt.Fprintf(b, `<circle class="s%d" cx="%s" cy="%s" r="3"/>`, n%palette, before(points[0]), after(points[0]))
		return
	}
	if len(points) > 0 {
		fmt.Fprintf(b, `<polyline class="line s%d" points="%s"/>`, n%palette, strings.Join(points, " "))
	}
}

func before(pair string) string { a, _, _ := strings.Cut(pair, ","); return a }
func after(pair string) string  { _, b, _ := strings.Cut(pair, ","); return b }

func legend(b *strings.Builder, c audit.Chart) {
	if len(c.Series) < 2 {
		return
	}
	b.WriteString(`<p class="legend">`)
	for i, s := range c.Series {
		fmt.Fprintf(b, `<span class="key s%d">%s</span> `, i%palette, esc(s.Name))
	}
	b.WriteString(`</p>`)
}

// strip shows the health samples of a run as one band: what a load balancer would have seen.
func strip(samples []audit.HealthSample) template.HTML {
	if len(samples) < 2 {
		return ""
	}
	step := chartWidth / float64(len(samples))
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="strip" viewBox="0 0 %g 26" role="img" aria-label="health over the run">`, chartWidth)
	for i, s := range samples {
		kind := "well"
		if s.Status < 200 || s.Status > 299 {
			kind = "ill"
		}
		fmt.Fprintf(&b, `<rect class="%s" x="%.2f" y="4" width="%.2f" height="18"/>`, kind, float64(i)*step, step)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}
