package health

import (
	"encoding/json"
	"math"
	"time"
)

// ContentType is the media type of every answer (draft-inadarei-api-health-check-06 section 2).
const ContentType = "application/health+json"

// body is draft-inadarei-api-health-check-06 section 3. "checks" is an object of arrays, keyed by
// component:measurement (section 4).
type body struct {
	Status string                 `json:"status"`
	Output string                 `json:"output,omitempty"`
	Checks map[string][]component `json:"checks,omitempty"`
}

// component is section 4 of the draft with a few members of our own, which section 4 permits. The
// second half is for those who may see details.
type component struct {
	Status    string   `json:"status"`
	Time      string   `json:"time,omitempty"`
	LatencyMS *float64 `json:"latencyMs,omitempty"`

	Type          string   `json:"componentType,omitempty"`
	ObservedValue *float64 `json:"observedValue,omitempty"`
	ObservedUnit  string   `json:"observedUnit,omitempty"`
	Output        string   `json:"output,omitempty"`
	Reason        string   `json:"reason,omitempty"`
	Since         string   `json:"since,omitempty"`
	Streak        int      `json:"streak,omitempty"`
	Recent        []sample `json:"recent,omitempty"`
}

// sample is one of the newest results.
type sample struct {
	Status    string  `json:"status"`
	Time      string  `json:"time"`
	LatencyMS float64 `json:"latencyMs"`
	Output    string  `json:"output,omitempty"`
}

// encode writes a report: for strangers each check with status, latency and time; with details
// also what was observed, since when, and why not.
func encode(report Report, details bool) []byte {
	b := body{Status: report.Status.String(), Output: report.Phase}
	if len(report.Findings) > 0 {
		b.Checks = make(map[string][]component, len(report.Findings))
	}
	for _, f := range report.Findings {
		key := f.Name + ":" + f.Measurement
		b.Checks[key] = append(b.Checks[key], describe(f, details))
	}
	// Strings, integers and finite numbers always encode.
	text, _ := json.Marshal(b)
	return append(text, '\n')
}

func describe(f Finding, details bool) component {
	c := component{Status: f.Status.String()}
	seen := f.Streak > 0
	if seen {
		latency := millis(f.Last.Latency)
		c.Time, c.LatencyMS = stamp(f.Last.Time), &latency
	}
	if !details {
		return c
	}
	c.Type = f.Type
	if !seen {
		c.Reason, c.Output = "pending", "not checked yet"
		return c
	}
	c.ObservedValue, c.ObservedUnit = observed(f.Last)
	c.Reason, c.Output = reason(f)
	c.Since, c.Streak = stamp(f.Since), f.Streak
	for _, r := range f.Recent {
		c.Recent = append(c.Recent, sample{r.Status.String(), stamp(r.Time), millis(r.Latency), output(r)})
	}
	return c
}

// observed is what the check measured or, where it measured nothing, the time it took.
func observed(r Result) (value *float64, unit string) {
	seen := r.Observed
	switch {
	case r.Status == Fail && seen.Unit == "":
		return nil, ""
	case seen.Unit == "":
		seen = Observation{millis(r.Latency), "ms"}
	case math.IsNaN(seen.Value) || math.IsInf(seen.Value, 0):
		return nil, ""
	}
	return &seen.Value, seen.Unit
}

func reason(f Finding) (word, text string) {
	switch {
	case f.Stale:
		return "stale", "the newest result is too old to count"
	case f.Last.Status == Pass && f.Status == Fail:
		return "recovering", "working again, for too short a time to count"
	default:
		return f.Last.Reason, output(f.Last)
	}
}

// output is the error's text, nothing for a pass, cut where it is long.
func output(r Result) string {
	const most = 500
	if r.Err == nil {
		return ""
	}
	text := r.Err.Error()
	if len(text) > most {
		text = text[:most] + "..."
	}
	return text
}

func millis(d time.Duration) float64 { return math.Round(float64(d.Nanoseconds())/1e3) / 1e3 }

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
