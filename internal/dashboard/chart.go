package dashboard

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
	"time"
)

// chart is a small picture of a history: bars for numbers of things, lines for the rest.
type chart struct {
	title  string // of what, for those who hear the page
	wide   bool
	bars   bool
	lines  []line
	limit  float64 // 0: no line
	format func(float64) string
}

type line struct {
	name  string
	value func(Point) (float64, bool) // false: not known here
}

// maxBars is how many bars can still be told apart; points are merged until there are no more.
const maxBars = 60

// draw is the chart of a history as SVG. All text in it is ours, escaped all the same.
func (c chart) draw(h History) template.HTML {
	points := h.Points
	if c.bars {
		points = merged(points, maxBars)
	}
	highest := c.highest(points)
	p := newPlot(c.wide, len(points), max(highest, c.limit*1.25))
	if c.bars {
		p.top = max(p.top, 4) // one bar of one must not look like the end of the world
	}
	p.begin(c.title, c.say(h))
	for i, l := range c.lines {
		if c.bars {
			p.drawBars(points, l)
		} else {
			p.drawLine(points, l, i)
		}
	}
	if c.limit > 0 {
		p.drawLimit(c.limit, c.format)
	}
	if highest > 0 {
		at := p.y(highest) - 2.5
		if c.limit > 0 && math.Abs(p.y(highest)-p.y(c.limit)) < p.label {
			at += p.label // below, and not across the limit
		}
		p.text("high", 0, at, c.format(highest))
	}
	return p.end(ago(h), "now")
}

// say is the chart in words: the last and the highest value of each line.
func (c chart) say(h History) string {
	var parts []string
	for _, l := range c.lines {
		last, highest, known := 0.0, 0.0, false
		for _, p := range h.Points {
			if v, ok := l.value(p); ok {
				last, highest, known = v, max(highest, v), true
			}
		}
		text := "nothing measured"
		if known {
			text = fmt.Sprintf("now %s, at most %s", c.format(last), c.format(highest))
		}
		parts = append(parts, strings.TrimSpace(l.name+" "+text))
	}
	return strings.Join(parts, "; ")
}

func (c chart) highest(points []Point) (highest float64) {
	for _, p := range points {
		for _, l := range c.lines {
			if v, ok := l.value(p); ok {
				highest = max(highest, v)
			}
		}
	}
	return highest
}

// plot collects the SVG and knows where a value is. Sizes are in the units of its viewBox.
type plot struct {
	strings.Builder
	width, height float64
	label         float64 // room below, for the ends of the axis, and above, for the highest value
	top           float64 // value at the upper edge
	n             int     // points from left to right
}

func newPlot(wide bool, n int, top float64) *plot {
	if wide {
		return &plot{width: 560, height: 135, label: 17, top: top, n: n}
	}
	return &plot{width: 240, height: 64, label: 12, top: top, n: n}
}

// y of a value; what is above the picture is at its edge.
func (p *plot) y(v float64) float64 {
	base, room := p.height-p.label, p.height-2*p.label
	if p.top == 0 {
		return base
	}
	return base - room*min(1, v/p.top)
}

func (p *plot) x(i int) float64 {
	if p.n < 2 {
		return p.width
	}
	return p.width * float64(i) / float64(p.n-1)
}

func (p *plot) begin(title, words string) {
	fmt.Fprintf(p, `<svg class="chart" viewBox="0 0 %g %g" role="img" aria-label="%s"><title>%s</title><path class="base" d="M0 %.1fH%g"/>`,
		p.width, p.height, template.HTMLEscapeString(title+", "+words), template.HTMLEscapeString(title), p.y(0), p.width)
}

// end writes what the axis begins and ends with.
func (p *plot) end(left, right string) template.HTML {
	p.text("", 0, p.height-1.5, left)
	p.text("end", p.width, p.height-1.5, right)
	p.WriteString("</svg>")
	return template.HTML(p.String())
}

// text of the class end stands before x.
func (p *plot) text(class string, x, y float64, text string) {
	anchor := "start"
	if strings.HasPrefix(class, "end") {
		anchor = "end"
	}
	fmt.Fprintf(p, `<text class="%s" x="%g" y="%.1f" text-anchor="%s">%s</text>`, class, x, y, anchor, template.HTMLEscapeString(text))
}

func (p *plot) drawLimit(limit float64, format func(float64) string) {
	fmt.Fprintf(p, `<path class="limit" d="M0 %.1fH%g"/>`, p.y(limit), p.width)
	p.text("end limit", p.width, p.y(limit)-2.5, "limit "+format(limit))
}

// drawLine breaks where nothing is known.
func (p *plot) drawLine(points []Point, l line, class int) {
	var t trace
	for i, at := range points {
		if v, ok := l.value(at); ok {
			t.to(p.x(i), p.y(v))
		} else {
			t.lift()
		}
	}
	p.ink(&t, class)
}

func (p *plot) ink(t *trace, class int) {
	if t.Len() > 0 {
		fmt.Fprintf(p, `<path class="line s%d" d="%s"/>`, class, t.String())
	}
}

// trace is the d of a path.
type trace struct {
	strings.Builder
	down bool
}

// to draws to a point, or marks the first of a stretch, which may stay alone.
func (t *trace) to(x, y float64) {
	if t.down {
		fmt.Fprintf(t, "L%.1f %.1f", x, y)
	} else {
		fmt.Fprintf(t, "M%.1f %.1fh.1", x, y)
	}
	t.down = true
}

func (t *trace) lift() { t.down = false }

func (p *plot) drawBars(points []Point, l line) {
	var d strings.Builder
	slot := p.slot()
	for i, at := range points {
		if v, ok := l.value(at); ok && v > 0 {
			fmt.Fprintf(&d, "M%.1f %.1fV%.1f", (float64(i)+.5)*slot, p.y(0), min(p.y(v), p.y(0)-1.5))
		}
	}
	if d.Len() > 0 {
		fmt.Fprintf(p, `<path class="bars" stroke-width="%.1f" d="%s"/>`, slot*.75, d.String())
	}
}

func (p *plot) slot() float64 { return p.width / math.Max(1, float64(p.n)) }

// merged adds neighbours until at most n are left. It begins with the newest, so that the group which is still filling is
// whole and the picture does not jump.
func merged(points []Point, n int) []Point {
	group := (len(points) + n - 1) / n
	if group < 2 {
		return points
	}
	out := make([]Point, 0, n)
	for end := len(points); end > 0; end -= group {
		out = append(out, sum(points[max(0, end-group):end]))
	}
	slices.Reverse(out)
	return out
}

// sum is the points as one. The quantiles are the highest of them: those of the whole are not known here.
func sum(points []Point) (s Point) {
	for _, p := range points {
		s.Seconds += p.Seconds
		s.Requests += p.Requests
		s.Errors += p.Errors
		s.RateLimited += p.RateLimited
		s.Timeouts += p.Timeouts
		s.Refusals += p.Refusals
		s.P50, s.P95, s.P99 = max(s.P50, p.P50), max(s.P95, p.P95), max(s.P99, p.P99)
		s.Health = max(s.Health, p.Health)
		s.PoolUsed, s.PoolMax = max(s.PoolUsed, p.PoolUsed), max(s.PoolMax, p.PoolMax)
	}
	return s
}

func ago(h History) string {
	d := time.Duration(h.Step * float64(len(h.Points)) * float64(time.Second)).Round(time.Minute)
	if d >= 2*time.Hour {
		return fmt.Sprintf("−%.0f h", d.Hours())
	}
	return fmt.Sprintf("−%.0f min", d.Minutes())
}

// strip is health over time: green where it was well, red where it was not, empty where nobody knows.
func strip(h History) template.HTML {
	points := merged(h.Points, maxBars)
	p := newPlot(false, len(points), 1)
	slot, bad := p.slot(), 0
	var well, ill strings.Builder
	for i, at := range points {
		rect := fmt.Sprintf("M%.1f 14h%.1fv22h-%.1fz", float64(i)*slot, slot*.86, slot*.86)
		switch {
		case at.Health == 200:
			well.WriteString(rect)
		case at.Health != 0:
			ill.WriteString(rect)
			bad++
		}
	}
	p.begin("health", fmt.Sprintf("ill in %d of %d stretches", bad, len(points)))
	fmt.Fprintf(p, `<path class="well" d="%s"/><path class="ill" d="%s"/>`, well.String(), ill.String())
	return p.end(ago(h), "now")
}

// known takes a value from points that somebody looked at.
func known(get func(Point) float64) func(Point) (float64, bool) {
	return func(p Point) (float64, bool) { return get(p), p.Seconds > 0 }
}

// quantile is unknown where there were no requests.
func quantile(get func(Point) float64) func(Point) (float64, bool) {
	return func(p Point) (float64, bool) { return get(p), p.Requests > 0 }
}

func rateChart() chart {
	return chart{title: "requests per second", wide: true, format: rate, lines: []line{
		{"all", known(Point.Rate)},
		{"5xx", known(func(p Point) float64 { return ratio(float64(p.Errors), p.Seconds) })},
	}}
}

func latencyChart(limit float64) chart {
	return chart{title: "latency", wide: true, format: took, limit: limit, lines: []line{
		{"p50", quantile(func(p Point) float64 { return p.P50 })},
		{"p95", quantile(func(p Point) float64 { return p.P95 })},
		{"p99", quantile(func(p Point) float64 { return p.P99 })},
	}}
}

// metric is one of the document's five.
type metric struct {
	Name, Now, Watch string
	Bad              bool
	Short, Long      template.HTML
}

// keyMetrics are the document's five, in its order. Numbers are of the last 15 minutes.
func keyMetrics(v View) []metric {
	all := sum(v.Short.Points)
	counted := func(name, watch, signal string, get func(Point) uint64) metric {
		c := chart{title: name, bars: true, format: func(f float64) string { return count(uint64(f + .5)) }, lines: []line{
			{"", known(func(p Point) float64 { return float64(get(p)) })},
		}}
		return metric{Name: name, Now: count(get(all)), Watch: watch, Bad: v.fires(signal), Short: c.draw(v.Short), Long: c.draw(v.Long)}
	}
	pool := chart{title: "database pool in use", format: percent, limit: v.Limits.Pool, lines: []line{
		{"", func(p Point) (float64, bool) { return p.PoolShare(), p.PoolMax > 0 }},
	}}
	used := "not known"
	if v.Now.PoolMax > 0 {
		used = percent(v.Now.PoolShare())
	}
	return []metric{
		{Name: "Health", Now: status(v.Health.Status), Watch: "should always be 200", Bad: v.Health.Status != 200, Short: strip(v.Short), Long: strip(v.Long)},
		counted("Rate limit hits", "429 answers in 15 min", "rate_limit_hits", func(p Point) uint64 { return p.RateLimited }),
		counted("Timeouts", "504 answers in 15 min", "timeouts", func(p Point) uint64 { return p.Timeouts }),
		counted("Token refusals", "in 15 min", "token_refusals", func(p Point) uint64 { return p.Refusals }),
		{Name: "Database pool", Now: used, Watch: "in use, at most, last minute", Bad: v.Limits.Pool > 0 && v.Now.PoolShare() > v.Limits.Pool, Short: pool.draw(v.Short), Long: pool.draw(v.Long)},
	}
}

func status(code int) string {
	if code == 0 {
		return "not known"
	}
	return fmt.Sprint(code)
}

// spark is the trend of the last audits.
func spark(audits []Audit) template.HTML {
	if len(audits) < 2 {
		return ""
	}
	first, last := audits[0], audits[len(audits)-1]
	p := newPlot(false, len(audits), 10)
	p.begin("score", fmt.Sprintf("of the last %d audits, from %.1f to %.1f", len(audits), first.Score, last.Score))
	var t trace
	for i, a := range audits {
		t.to(p.x(i), p.y(a.Score))
	}
	p.ink(&t, 0)
	const day = "2 Jan"
	return p.end(first.At.UTC().Format(day), last.At.UTC().Format(day))
}

// curve is the rollout's evidence: the failure rate seen, and what it may still be, falling to the limit as requests come in.
func curve(r *Rollout) template.HTML {
	if len(r.Curve) < 2 {
		return ""
	}
	limit := 0.0
	for _, v := range r.Versions {
		limit = max(limit, v.MaxFailed)
	}
	last := r.Curve[len(r.Curve)-1]
	// The first few requests prove next to nothing: the scale is that of the interesting part.
	p := newPlot(true, int(last.Requests)+1, max(limit*4, last.Upper*2))
	p.begin("evidence", fmt.Sprintf("after %s requests %s fail, and at most %s can", count(last.Requests), percent(last.Rate), percent(last.Upper)))
	for i, get := range []func(Proof) float64{func(q Proof) float64 { return q.Rate }, func(q Proof) float64 { return q.Upper }} {
		var t trace
		for _, q := range r.Curve {
			t.to(p.x(int(q.Requests)), p.y(get(q)))
		}
		p.ink(&t, i)
	}
	p.drawLimit(limit, percent)
	return p.end("0", count(last.Requests)+" requests")
}
