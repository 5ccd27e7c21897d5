package dashboard

import (
	"fmt"
	"io"
	"strings"

	"github.com/gantryhq/gantry/audit/report"
)

// Text draws the view for a terminal of so many columns, as `gantry top` shows it: the same verdict, numbers and
// order as the page. Every line ends where it stands, so that a caller who draws over the last one may clear the rest of it.
func Text(w io.Writer, v View, columns int, colour bool) error {
	p := &screen{w: w, columns: columns, colour: colour}
	p.head(v)
	p.traffic(v)
	p.metrics(v)
	p.health(v)
	p.rollout(v)
	p.refusals(v)
	return p.err
}

// screen writes lines that are cut at the right edge.
type screen struct {
	w       io.Writer
	columns int
	colour  bool
	err     error
}

// paint is a colour by what it means; numbers are SGR codes (ECMA-48 section 8.3.117).
type paint int

const (
	none  paint = 0
	bold  paint = 1
	faint paint = 2
	red   paint = 31
	green paint = 32
	amber paint = 33
)

// part is a stretch of a line in one colour.
type part struct {
	text  string
	paint paint
}

func (s *screen) line(parts ...part) {
	var b strings.Builder
	left := s.columns
	for _, p := range parts {
		text := []rune(report.Plain(p.text))
		if len(text) > left {
			text = text[:left]
		}
		left -= len(text)
		if s.colour && p.paint != none && len(text) > 0 {
			fmt.Fprintf(&b, "\x1b[%dm%s\x1b[0m", p.paint, string(text))
		} else {
			b.WriteString(string(text))
		}
	}
	if s.err == nil {
		_, s.err = io.WriteString(s.w, strings.TrimRight(b.String(), " ")+"\n")
	}
}

func (s *screen) title(text string) {
	s.line()
	s.line(part{text, bold})
}

var levelPaint = map[Level]paint{Wrong: red, Look: amber, Well: green}

func (s *screen) head(v View) {
	s.line(part{"gantry ", bold}, part{strings.Join([]string{v.Instance, v.Environment, v.Version}, "  ") + "  " + v.At.UTC().Format("15:04:05") + " UTC", faint})
	s.line(part{v.Verdict.Headline, levelPaint[v.Verdict.Level]})
	const most = 6
	for i, p := range v.Verdict.Problems {
		switch {
		case i == 0:
		case i > most:
			s.line(part{fmt.Sprintf("  and %d more", len(v.Verdict.Problems)-i), faint})
			return
		default:
			s.line(part{"  " + p.Text, levelPaint[p.Level]})
		}
	}
}

func (s *screen) traffic(v View) {
	n, l := v.Now, v.Limits
	s.title("traffic, last minute")
	s.line(part{"requests/s " + pad(rate(n.Rate()), 8), none},
		part{"errors " + pad(percent(n.ErrorRate()), 10), over(n.ErrorRate(), l.ErrorRate)},
		part{"p50 " + pad(took(n.P50), 9), none}, part{"p95 " + pad(took(n.P95), 9), over(n.P95, l.P95)},
		part{"p99 " + pad(took(n.P99), 9), none}, part{"in flight " + count(v.InFlight), none})
}

func over(value, limit float64) paint {
	if limit > 0 && value > limit {
		return red
	}
	return none
}

func (s *screen) metrics(v View) {
	const label = 34
	width := max(1, s.columns-label)
	all := sum(v.Short.Points)
	s.title(fmt.Sprintf("%-*s%s", label, "15 minutes", "now ▸"))
	row := func(name, now string, p paint, get func(Point) float64) {
		s.line(part{pad(name, 18) + pad(now, label-18), p}, part{sparkline(v.Short.Points, width, get), faint})
	}
	row("requests/s", rate(v.Now.Rate()), none, Point.Rate)
	row("p95", took(v.Now.P95), over(v.Now.P95, v.Limits.P95), func(p Point) float64 { return p.P95 })
	row("health", status(v.Health.Status), map[bool]paint{true: green, false: red}[v.Health.Status == 200], func(p Point) float64 {
		return map[int]float64{200: 1, 503: .1}[p.Health]
	})
	row("rate limit hits", count(all.RateLimited), none, func(p Point) float64 { return float64(p.RateLimited) })
	row("timeouts", count(all.Timeouts), none, func(p Point) float64 { return float64(p.Timeouts) })
	row("token refusals", count(all.Refusals), none, func(p Point) float64 { return float64(p.Refusals) })
	if v.Now.PoolMax > 0 {
		row("database pool", percent(v.Now.PoolShare()), over(v.Now.PoolShare(), v.Limits.Pool), Point.PoolShare)
	}
}

// sparkline is the points in so many characters, the highest as a whole block.
func sparkline(points []Point, width int, get func(Point) float64) string {
	blocks := []rune(" ▁▂▃▄▅▆▇█")
	points = merged(points, width)
	highest := 0.0
	for _, p := range points {
		highest = max(highest, get(p))
	}
	out := make([]rune, len(points))
	for i, p := range points {
		level := 0
		if v := get(p); v > 0 {
			level = max(1, int(v/highest*float64(len(blocks)-1)))
		}
		out[i] = blocks[level]
	}
	return string(out)
}

var statePaint = map[string]paint{"pass": green, "warn": amber, "fail": red}

func (s *screen) health(v View) {
	s.title("health")
	for _, c := range v.Health.Checks {
		state, since := c.Status, age(c.Age)
		if state == "" {
			state, since = "not yet", ""
		}
		s.line(part{pad(c.Name, 22), none}, part{pad(state, 9), statePaint[c.Status]}, part{pad(since, 8), faint}, part{strings.TrimSpace(c.Observed + "  " + c.Reason), none})
	}
}

func (s *screen) rollout(v View) {
	r := v.Rollout
	if r == nil {
		return
	}
	s.title("rollout " + r.ID)
	tone := green
	if r.Trouble {
		tone = red
	}
	s.line(part{pad(r.Phase, 10), tone}, part{bar(r.Weight, 20) + " " + percent(r.Weight) + " to " + r.To, none})
	if r.Reason != "" {
		s.line(part{r.Reason, none})
	}
	for _, one := range r.Versions {
		failed, slow := ratio(float64(one.Failed), float64(one.Requests)), ratio(float64(one.Slow), float64(one.Requests))
		s.line(part{pad(one.Name, 11) + pad(count(one.Requests)+" requests", 18), none},
			part{pad("failed "+percent(failed)+" of "+percent(one.MaxFailed), 26), over(failed, one.MaxFailed)},
			part{"slow " + percent(slow) + " of " + percent(one.MaxSlow), over(slow, one.MaxSlow)})
	}
	if r.Needed > 0 {
		s.line(part{count(r.Needed) + " more requests prove this step", faint})
	}
}

func bar(share float64, width int) string {
	full := min(width, max(0, int(share*float64(width)+.5)))
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", width-full) + "]"
}

func (s *screen) refusals(v View) {
	if len(v.Refusals) == 0 {
		return
	}
	s.title("last refusals")
	for _, r := range v.Refusals {
		s.line(part{r.At.UTC().Format("15:04:05") + fmt.Sprintf(" %d ", r.Status), none}, part{pad(r.Reason, 24) + " ", none}, part{r.Method + " " + r.Path + " ", none}, part{r.RequestID, faint})
	}
}

// pad fills up with blanks, by characters.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-len([]rune(s))))
}
