package alert

import (
	"math"
	"time"
)

// Rule is one alert as operators write it:
//
//	# the document's form
//	- name: High Error Rate
//	  condition: error_rate > 1%
//	  severity: high
//	  notify: oncall
//
// with `for`, `window`, `windows` and `runbook` where the defaults do not fit, and burn_rate(error_rate, 99.9%) > 14.4
// for an objective's error budget. docs/alerts.md has every key.
type Rule struct {
	Name      string    `json:"name"`
	Condition Condition `json:"condition"`
	Severity  Severity  `json:"severity"`
	// Notify are the names of receivers: oncall, slack, engineering, email, or one of gantry.yaml's own.
	Notify []string `json:"notify"`
	// For is how long the condition must hold before the alert fires; 0 is at once. Window is over how long the
	// signal is read. [Parse] fills in the signal's own where nothing is written.
	For    time.Duration `json:"for,omitempty"`
	Window time.Duration `json:"window,omitempty"`
	// Short is a burn rate's second window, over which the condition must hold too: it ends the alert soon after the
	// errors end. 0 for all other conditions.
	Short time.Duration `json:"short_window,omitempty"`
	// Runbook is the address of the rule's own instructions; "" is its entry in Gantry's runbook.
	Runbook string `json:"runbook,omitempty"`
	// Disabled takes the default of this name away; nothing else of the rule counts then.
	Disabled bool `json:"-"`
	// Line and Column are where the rule stands in its file; 0 for a default.
	Line   int `json:"-"`
	Column int `json:"-"`
	// NotifyAt is where Notify stands.
	NotifyAt Position `json:"-"`
}

// Position is a place in a file; both count from 1.
type Position struct{ Line, Column int }

// Condition compares a signal with a limit: "p95_latency > 500ms".
type Condition struct {
	Signal   Signal  `json:"signal"`
	Operator string  `json:"operator"` // one of > >= < <= == !=
	Limit    float64 `json:"limit"`    // in the signal's unit: seconds, a share, a number in the rule's window
	// Budget is the share of bad events that a burn rate's objective allows: 0.001 for 99.9 %. Limit is the budget
	// times the burn rate. 0 for all other conditions.
	Budget float64 `json:"budget,omitempty"`
	// Text is the condition as it was written.
	Text string `json:"text"`
}

// Holds says that a value is on the wrong side of the limit. NaN is on neither.
func (c Condition) Holds(v float64) bool {
	switch c.Operator {
	case ">":
		return v > c.Limit
	case ">=":
		return v >= c.Limit
	case "<":
		return v < c.Limit
	case "<=":
		return v <= c.Limit
	case "==":
		return v == c.Limit
	case "!=":
		return v < c.Limit || v > c.Limit
	}
	return false
}

// read reads the signal over the rule's window, of a burn rate's two the one that is better off.
func (r Rule) read(src Source) (Reading, bool) {
	long, ok := src.Read(r.Condition.Signal, r.Window)
	if r.Short > 0 && ok {
		var short Reading
		if short, ok = src.Read(r.Condition.Signal, r.Short); short.Value < long.Value {
			long.Value = short.Value
		}
	}
	return long, ok && !math.IsNaN(long.Value) && !math.IsInf(long.Value, 0)
}

// same says that two rules ask the same, whoever is told and wherever they stand: what one found out counts for the other.
func (r Rule) same(as Rule) bool {
	return r.Name == as.Name && r.Condition == as.Condition && r.For == as.For && r.Window == as.Window && r.Short == as.Short
}
