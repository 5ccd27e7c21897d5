package rollout

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Terms is a plan in the words of a command line or a form. What is empty is its default.
type Terms struct {
	// Steps are rising percentages, the last of them 100, each with its own least time or that of Hold:
	// "10,50,100" or "10@5m,50@10m,100".
	Steps string `json:"steps,omitempty"`
	// Hold is the least time of a step below 100 % that names none. Default: 5 minutes below 50 %, and 10
	// minutes from there.
	Hold           string `json:"hold,omitempty"`
	MaxErrors      string `json:"max_errors,omitempty"` // "0.1%"
	MaxSlow        string `json:"max_slow,omitempty"`   // "5%@500ms"
	OnInconclusive string `json:"on_inconclusive,omitempty"`
	Watch          string `json:"watch,omitempty"` // "15m"
}

// TermError is what is wrong with one of the [Terms], or with the plan that they make.
type TermError struct {
	Term string // its name in JSON; "plan" for the whole
	Err  error
}

// Error implements error.
func (e *TermError) Error() string { return e.Term + ": " + e.Err.Error() }

// Unwrap is the cause.
func (e *TermError) Unwrap() error { return e.Err }

// Plan returns the plan with its defaults, or every fault at once, each a [*TermError].
func (t Terms) Plan() (Plan, error) {
	var faults []error
	note := func(term string, err error) {
		if err != nil {
			faults = append(faults, &TermError{term, err})
		}
	}
	p := Plan{OnInconclusive: Policy(t.OnInconclusive)}
	var err error
	p.Steps, err = steps(t.Steps, t.Hold)
	note("steps", err)
	p.MaxErrors, err = limit(t.MaxErrors)
	note("max_errors", err)
	share, after, timed := strings.Cut(t.MaxSlow, "@")
	p.MaxSlow, err = limit(share)
	note("max_slow", err)
	if timed {
		p.SlowAfter, err = positive(after)
		note("max_slow", err)
	}
	if t.Watch != "" {
		p.Watch, err = positive(t.Watch)
		note("watch", err)
	}
	p = p.withDefaults()
	if len(faults) == 0 {
		note("plan", p.Validate())
	}
	return p, errors.Join(faults...)
}

// steps reads the steps, nil for none.
func steps(text, hold string) ([]Step, error) {
	least, err := time.Duration(0), error(nil)
	if hold != "" {
		if least, err = positive(hold); err != nil {
			return nil, fmt.Errorf("hold: %w", err)
		}
	}
	switch {
	case text == "" && hold == "":
		return nil, nil
	case text == "":
		text = "10,50,100"
	}
	var all []Step
	for part := range strings.SplitSeq(text, ",") {
		percent, own, named := strings.Cut(part, "@")
		s := Step{MinTime: least}
		if s.Weight, err = ParsePercent(percent); err != nil {
			return nil, err
		}
		switch {
		case named:
			if s.MinTime, err = positive(own); err != nil {
				return nil, err
			}
		case s.Weight == All:
			s.MinTime = 0 // that of the watch
		case hold == "":
			s.MinTime = usualTime(s.Weight)
		}
		all = append(all, s)
	}
	return all, nil
}

// usualTime is the least time of a step for which nobody has said any.
func usualTime(weight BasisPoints) time.Duration {
	if weight < All/2 {
		return 5 * time.Minute
	}
	return 10 * time.Minute
}

// limit reads a share in percent, 0 for an empty text. 0 % is no limit: nothing ever proves it.
func limit(text string) (float64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "%")), 64)
	if err != nil || !(n > 0 && n <= 100) {
		return 0, fmt.Errorf("%q is no limit such as 0.1%%: it must be above 0 and at most 100", text)
	}
	return n / 100, nil
}

func positive(text string) (time.Duration, error) {
	d, err := time.ParseDuration(strings.TrimSpace(text))
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is no time such as 10m", text)
	}
	return d, nil
}
