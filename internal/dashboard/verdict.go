package dashboard

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Level says how the whole stands. The zero Level is not Well: a view that nobody judged is not green.
type Level string

// The levels, the worst first.
const (
	Wrong Level = "wrong" // users notice, or soon will
	Look  Level = "look"  // somebody should, today
	Well  Level = "well"
)

// Verdict is the first thing on the page.
type Verdict struct {
	Level    Level     `json:"level"`
	Headline string    `json:"headline"`
	Problems []Problem `json:"problems,omitempty"` // the worst first; the headline is the first of them
}

// Problem is one reason not to be well.
type Problem struct {
	Level   Level  `json:"level"`
	Text    string `json:"text"`
	Section string `json:"section"` // id of the part of the page that shows more
}

// enough requests to judge a rate or a quantile by: of fewer, one failure is five percent or more.
const enough = 20

// judge says what is wrong with a view, of which it reads everything but the verdict.
func judge(v View) Verdict {
	var all []Problem
	for _, find := range []func(View) []Problem{judgeAlerts, judgeHealth, judgeTraffic, judgeRollout, judgeProcess} {
		all = append(all, find(v)...)
	}
	slices.SortStableFunc(all, func(a, b Problem) int { return cmp.Compare(rank(a.Level), rank(b.Level)) })
	switch {
	case len(all) > 0:
		return Verdict{Level: all[0].Level, Headline: all[0].Text, Problems: all}
	case v.Now.Requests == 0:
		return Verdict{Level: Well, Headline: "All well, no requests in the last minute"}
	}
	return Verdict{Level: Well, Headline: "All well"}
}

func rank(l Level) int { return slices.Index([]Level{Wrong, Look, Well}, l) }

// judgeAlerts counts an alert that somebody has in hand as something to look at, no more.
func judgeAlerts(v View) (out []Problem) {
	for _, a := range v.Alerts {
		if a.State != "firing" {
			continue
		}
		p := Problem{Look, a.Name, "alerts"}
		if a.Reading != "" {
			p.Text += ": " + a.Reading
		}
		switch {
		case a.Silenced(v.At):
			p.Text += " (silenced)"
		case a.AcknowledgedBy != "":
			p.Text += " (acknowledged)"
		case a.Severity == "critical" || a.Severity == "high":
			p.Level = Wrong
		}
		out = append(out, p)
	}
	return out
}

func judgeHealth(v View) (out []Problem) {
	for _, c := range v.Health.Checks {
		switch c.Status {
		case "pass":
		case "warn":
			out = append(out, Problem{Look, named(c.Name, c.Reason, "warns"), "health"})
		case "fail":
			out = append(out, Problem{Wrong, named(c.Name, c.Reason, "fails"), "health"})
		default:
			out = append(out, Problem{Look, c.Name + " was not checked yet", "health"})
		}
	}
	if len(out) == 0 && v.Health.Status != 200 {
		out = append(out, Problem{Look, "health is not known yet", "health"})
	}
	return out
}

func named(name, reason, otherwise string) string {
	if reason == "" {
		return name + " " + otherwise
	}
	return name + ": " + reason
}

// judgeTraffic looks at the limit lines, unless an alert already speaks of the same.
func judgeTraffic(v View) (out []Problem) {
	now, l := v.Now, v.Limits
	if now.Requests >= enough {
		if r := now.ErrorRate(); l.ErrorRate > 0 && r > l.ErrorRate && !v.fires("error_rate") {
			out = append(out, Problem{Wrong, fmt.Sprintf("%s of requests fail", percent(r)), "traffic"})
		}
		if l.P95 > 0 && now.P95 > l.P95 && !v.fires("p95_latency") {
			out = append(out, Problem{Look, fmt.Sprintf("5 %% of requests take over %s", took(now.P95)), "traffic"})
		}
	}
	if s := now.PoolShare(); l.Pool > 0 && s > l.Pool && !v.fires("pool_utilization") {
		out = append(out, Problem{Look, fmt.Sprintf("%s of the database pool is in use", percent(s)), "metrics"})
	}
	return out
}

func judgeRollout(v View) []Problem {
	if v.Rollout == nil || !v.Rollout.Trouble {
		return nil
	}
	return []Problem{{Look, strings.TrimSuffix("rollout "+v.Rollout.Phase+": "+v.Rollout.Reason, ": "), "rollout"}}
}

func judgeProcess(v View) (out []Problem) {
	for _, d := range v.Degraded {
		out = append(out, Problem{Look, d.Text, "health"})
	}
	if v.Config.Refused != "" {
		out = append(out, Problem{Look, "the last reload was refused", "config"})
	}
	if v.Draining {
		out = append(out, Problem{Look, "this instance is draining", "health"})
	}
	return out
}

// What follows says numbers the way people read them; the page and `gantry top` share it.

// percent of a share, with as many digits as tell something.
func percent(share float64) string {
	p := share * 100
	switch {
	case p == 0:
		return "0 %"
	case p < 0.01:
		return "< 0.01 %"
	case p < 1:
		return fmt.Sprintf("%.2f %%", p)
	case p < 10:
		return fmt.Sprintf("%.1f %%", p)
	}
	return fmt.Sprintf("%.0f %%", p)
}

// took is a latency in seconds.
func took(s float64) string {
	switch {
	case s == 0:
		return "–"
	case s < 0.001:
		return fmt.Sprintf("%.0f µs", s*1e6)
	case s < 0.01:
		return fmt.Sprintf("%.1f ms", s*1e3)
	case s < 1:
		return fmt.Sprintf("%.0f ms", s*1e3)
	}
	return fmt.Sprintf("%.1f s", s)
}

// age of something, in seconds.
func age(s float64) string {
	switch d := time.Duration(s * float64(time.Second)); {
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", max(0, d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	default:
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	}
}

// count of things, with a thin space at the thousands.
func count(n uint64) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return count(n/1000) + "\u202f" + fmt.Sprintf("%03d", n%1000)
}

// rate is a number per second.
func rate(perSecond float64) string {
	switch {
	case perSecond == 0:
		return "0"
	case perSecond < 10:
		return fmt.Sprintf("%.1f", perSecond)
	}
	return count(uint64(perSecond + 0.5))
}
