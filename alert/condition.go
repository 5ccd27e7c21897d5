package alert

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/token"
)

var comparison = regexp.MustCompile(`^([A-Za-z0-9_-]+)(\s*\(([^()]*)\))?\s*([<>=!]+)\s*(.*)$`)

const (
	conditionExample = "error_rate > 1%"
	burnExample      = "burn_rate(error_rate, 99.9%) > 14.4"
)

// condition reads condition, for, window and windows, which belong together: a limit that is a rate is over a window.
func (p *reader) condition(r *Rule, values map[string]value) {
	v, ok := values["condition"]
	if !ok {
		return
	}
	part := comparison.FindStringSubmatchIndex(v.text)
	if part == nil {
		p.fault(v.at, "condition", "is not a signal, a comparison and a limit", conditionExample)
		return
	}
	sub := func(i int) value {
		if part[2*i] < 0 {
			return value{at: v.at}
		}
		// The text of a plain scalar stands in the file as it is, so that its parts can be pointed at.
		return value{at: at{v.Line, v.Column + quote(v) + part[2*i]}, text: v.text[part[2*i]:part[2*i+1]]}
	}
	r.Condition.Text = strings.Join(strings.Fields(v.text), " ")
	if part[4] >= 0 || sub(1).text == "burn_rate" {
		p.burn(r, values, sub(1), sub(3), sub(4), sub(5))
		return
	}
	p.plain(r, values, sub(1), sub(4), sub(5))
}

// quote is how many letters stand before the text of a scalar.
func quote(v value) int {
	switch v.node.GetToken().Type {
	case token.SingleQuoteType, token.DoubleQuoteType:
		return 1
	}
	return 0
}

// plain reads error_rate > 1%, and rate_limit_hits > 100/hour: more than so many in a window that is, where nothing
// else is written, what the rate is per.
func (p *reader) plain(r *Rule, values map[string]value, signal, op, limit value) {
	m, known := p.signal(signal)
	sound := p.operator(r, op)
	if !known {
		return
	}
	if w, ok := values["windows"]; ok {
		p.fault(w.at, "windows", "is for burn rates; write window", "window: 5m")
	}
	r.Condition.Signal = m.signal
	r.For = p.duration(values, "for", m.hold, 0)
	number, per, ok := p.limit(m, limit)
	if !ok {
		return
	}
	window, times := m.window, 1.0
	if per > 0 {
		window = max(per, MinWindow)
	}
	if r.Window = p.duration(values, "window", window, MinWindow); r.Window == 0 {
		return
	}
	if per > 0 {
		times = float64(r.Window) / float64(per)
	}
	if r.Condition.Limit = number * times; sound {
		p.sense(*r, m, signal.at, per > 0)
	}
}

func (p *reader) signal(v value) (measure, bool) {
	m, ok := measureOf(Signal(v.text))
	if !ok {
		p.fault(v.at, "condition", fmt.Sprintf("%q is not a signal%s", clip(v.text, maxName), near(v.text, signalNames())), conditionExample)
	}
	return m, ok
}

func (p *reader) operator(r *Rule, v value) bool {
	r.Condition.Operator = v.text
	switch v.text {
	case ">", ">=", "<", "<=", "==", "!=":
		return true
	}
	problem := fmt.Sprintf("%q is not a comparison", clip(v.text, maxName))
	if v.text == "=" {
		problem += "; did you mean ==?"
	}
	p.fault(v.at, "condition", problem, "> >= < <= == !=")
	return false
}

// limit reads a limit in the signal's unit, and for a number the time that it is per.
func (p *reader) limit(m measure, v value) (limit float64, per time.Duration, ok bool) {
	text, rate, isRate := strings.Cut(v.text, "/")
	written, limit, ok := quantity(text)
	if !ok {
		p.fault(v.at, "condition", fmt.Sprintf("%q is not a limit", clip(v.text, maxName)), m.example())
		return 0, 0, false
	}
	if written != m.unit && (written != count || m.unit != status) {
		p.fault(v.at, "condition", fmt.Sprintf("%s is %v, and %s is %v", m.signal, m.unit, clip(v.text, maxName), written), m.example())
		return 0, 0, false
	}
	if !isRate {
		return limit, 0, true
	}
	if per, ok = perTime(rate); !ok || m.unit != count {
		p.fault(v.at, "condition", fmt.Sprintf("%s is not counted per %q", m.signal, clip(rate, maxName)), m.example())
		return 0, 0, false
	}
	return limit, per, true
}

func perTime(text string) (time.Duration, bool) {
	switch strings.TrimSpace(text) {
	case "s", "sec", "second":
		return time.Second, true
	case "m", "min", "minute":
		return time.Minute, true
	case "h", "hour":
		return time.Hour, true
	case "d", "day":
		return day, true
	}
	return 0, false
}

// quantity reads 100, 1%, 500ms or 14d; a share is from 0 to 1, a time in seconds.
func quantity(text string) (unit, float64, bool) {
	text = strings.TrimSpace(text)
	if d, ok := duration(text); ok {
		return seconds, d.Seconds(), true
	}
	number, isShare := strings.CutSuffix(text, "%")
	if !plainNumber.MatchString(strings.TrimSpace(number)) {
		return 0, 0, false
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if isShare {
		return share, f / 100, err == nil
	}
	return count, f, err == nil
}

var (
	plainNumber = regexp.MustCompile(`^-?[0-9]{1,15}(\.[0-9]{1,15})?$`)
	timePart    = regexp.MustCompile(`([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d|w)`)
	timeText    = regexp.MustCompile(`^(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d|w)){1,6}$`)
)

// duration reads a Go duration, with d for days and w for weeks.
func duration(text string) (time.Duration, bool) {
	if !timeText.MatchString(text) {
		return 0, false
	}
	units := map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": day, "w": 7 * day}
	total := 0.0
	for _, m := range timePart.FindAllStringSubmatch(text, -1) {
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0, false
		}
		total += n * float64(units[m[2]])
	}
	return time.Duration(math.Round(total)), total < float64(100*365*day)
}

// duration returns the time under key, or the fallback where none is written; 0 after a fault.
func (p *reader) duration(values map[string]value, key string, fallback, least time.Duration) time.Duration {
	v, ok := values[key]
	if !ok {
		return fallback
	}
	return p.within(v, key, least)
}

func (p *reader) within(v value, key string, least time.Duration) time.Duration {
	d, ok := duration(v.text)
	if v.text == "0" {
		d, ok = 0, true
	}
	switch {
	case !ok:
		p.fault(v.at, key, fmt.Sprintf("%q is not a time", clip(v.text, maxName)), key+": 5m")
	case d < least:
		p.fault(v.at, key, fmt.Sprintf("is less than %s, and measurements are kept in steps of 5s", least), key+": 5m")
	case d > MaxWindow:
		p.fault(v.at, key, "is more than a day, and measurements are kept for a day", key+": 5m")
	default:
		return d
	}
	return 0
}

// sense refuses what is written well and makes no alert: one that never ends, never begins, or tells that all is well.
func (p *reader) sense(r Rule, m measure, where at, isRate bool) {
	c := r.Condition
	some, all := false, true
	for _, v := range m.samples(c.Limit) {
		some, all = some || c.Holds(v), all && c.Holds(v)
	}
	switch {
	case (c.Operator == "==" || c.Operator == "!=") && m.unit != status:
		p.fault(where, "condition", fmt.Sprintf("%s is hardly ever exactly a value: compare with %s", m.signal, m.worse()), m.example())
	case isRate && c.Limit < 1 && c.Limit > 0:
		p.fault(where, "condition", fmt.Sprintf("the limit is less than one in a window of %s", span(r.Window)), "window: 1h")
	case all:
		p.fault(where, "condition", fmt.Sprintf("always holds: %s", m.bounds()), "")
	case !some:
		p.fault(where, "condition", fmt.Sprintf("never holds: %s", m.bounds()), "")
	case c.Holds(m.best):
		p.fault(where, "condition", fmt.Sprintf("holds while all is well: compare with %s", m.worse()), m.example())
	}
}

// samples are values on both sides of a limit and at the ends of what can be measured.
func (m measure) samples(limit float64) []float64 {
	all := []float64{m.best, m.worst}
	if m.unit == status {
		return all
	}
	step := max(1e-9, math.Abs(limit)*1e-9)
	for _, v := range []float64{limit - step, limit, limit + step} {
		if v >= min(m.best, m.worst) && v <= max(m.best, m.worst) {
			all = append(all, v)
		}
	}
	return all
}

// worse is the comparison that trouble is on the right side of.
func (m measure) worse() string {
	switch {
	case m.unit == status:
		return "!="
	case m.worst < m.best:
		return "<"
	}
	return ">"
}

// example is a condition that makes sense.
func (m measure) example() string { return fmt.Sprintf("%s %s %s", m.signal, m.worse(), m.limit) }

func (m measure) bounds() string {
	switch m.unit {
	case status:
		return string(m.signal) + " is 200 or 503"
	case share:
		return string(m.signal) + " is from 0% to 100%"
	}
	return string(m.signal) + " is never negative"
}

// burn reads burn_rate(error_rate, 99.9%) > 14.4: the share of bad events over both windows is more than so many times
// what the objective allows (Google's SRE workbook, chapter 5, "Multiwindow, Multi-Burn-Rate Alerts").
func (p *reader) burn(r *Rule, values map[string]value, name, args, op, limit value) {
	if name.text != "burn_rate" {
		p.fault(name.at, "condition", fmt.Sprintf("%q is not a function%s", clip(name.text, maxName), near(name.text, []string{"burn_rate"})), burnExample)
		return
	}
	signal, objective, _ := strings.Cut(args.text, ",")
	m, known := p.signal(value{at: args.at, text: strings.TrimSpace(signal)})
	if known && !m.signal.burns() {
		p.fault(args.at, "condition", fmt.Sprintf("%s has no error budget: error_rate and slow_rate have", m.signal), burnExample)
	}
	u, good, ok := quantity(objective)
	if !ok || u != share || good < 0.5 || good >= 1 {
		p.fault(args.at, "condition", "the objective is not a share from 50% to less than 100%", burnExample)
		return
	}
	budget := math.Round((1-good)*1e12) / 1e12
	if p.operator(r, op) && op.text != ">" && op.text != ">=" {
		p.fault(op.at, "condition", "a burn rate is compared with > or >=", burnExample)
	}
	u, times, ok := quantity(limit.text)
	switch {
	case !ok || u != count || times <= 0:
		p.fault(limit.at, "condition", fmt.Sprintf("%q is not a burn rate", clip(limit.text, maxName)), burnExample)
	case times*budget >= 1:
		p.fault(limit.at, "condition", fmt.Sprintf("never holds: with this objective no burn rate is more than %.4g", 1/budget), burnExample)
	}
	r.Condition.Signal, r.Condition.Budget, r.Condition.Limit = m.signal, budget, math.Round(times*budget*1e12)/1e12
	r.For = p.duration(values, "for", 2*time.Minute, 0)
	p.windows(r, values)
}

// windows reads the two windows of a burn rate.
func (p *reader) windows(r *Rule, values map[string]value) {
	if w, ok := values["window"]; ok {
		p.fault(w.at, "window", "a burn rate has two: write windows", "windows: 1h, 5m")
	}
	v, ok := values["windows"]
	if !ok {
		r.Window, r.Short = time.Hour, 5*time.Minute
		return
	}
	words := p.words("windows", v.node)
	if len(words) != 2 {
		p.fault(v.at, "windows", "must be two, the long one first", "windows: 1h, 5m")
		return
	}
	r.Window, r.Short = p.within(words[0], "windows", time.Minute), p.within(words[1], "windows", time.Minute)
	if r.Short > 0 && r.Window > 0 && r.Short >= r.Window {
		p.fault(v.at, "windows", "the first must be the longer one", "windows: 1h, 5m")
	}
}
