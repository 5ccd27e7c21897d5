package audit

import (
	"encoding"
	"fmt"
	"slices"
)

// Severity is how much a failing probe hurts. The zero value is not a severity.
type Severity uint8

// The severities, mildest first.
const (
	Low Severity = iota + 1
	Medium
	High
	Critical
)

var severityNames = []string{"", "low", "medium", "high", "critical"}

func (s Severity) String() string { return name(severityNames, s) }

// MarshalText writes the lower-case name.
func (s Severity) MarshalText() ([]byte, error) { return marshalName(severityNames, s) }

// UnmarshalText reads the lower-case name.
func (s *Severity) UnmarshalText(text []byte) (err error) {
	*s, err = parseName[Severity]("severity", severityNames, text)
	return err
}

// Weight of the severity in the score (gantry-score/1, step 1).
func (s Severity) Weight() float64 {
	switch s {
	case Low:
		return 0.5
	case Medium:
		return 2
	case High:
		return 5
	case Critical:
		return 10
	}
	return 0
}

// Outcome is what a probe found out. The zero value is Inconclusive, never Pass.
type Outcome uint8

// The outcomes.
const (
	Inconclusive  Outcome = iota // could not tell; the finding says why, and what would tell
	Fail                         // shown, twice
	Attested                     // somebody vouches for it, with a date and an expiry
	Pass                         // shown
	NotApplicable                // there is nothing to judge; the finding says why
)

var outcomeNames = []string{"inconclusive", "fail", "attested", "pass", "n/a"}

func (o Outcome) String() string { return name(outcomeNames, o) }

// MarshalText writes the lower-case name.
func (o Outcome) MarshalText() ([]byte, error) { return marshalName(outcomeNames, o) }

// UnmarshalText reads the lower-case name.
func (o *Outcome) UnmarshalText(text []byte) (err error) {
	*o, err = parseName[Outcome]("outcome", outcomeNames, text)
	return err
}

// Mode is how much a probe may do to the target.
type Mode uint8

// The modes, gentlest first. Passive and Safe run by default.
const (
	Passive Mode = iota + 1 // looks only at what other probes fetched
	Safe                    // reads, at the polite pace
	Active                  // writes to objects of its own, or sends costly tokens
	Load                    // sends traffic
	Fault                   // breaks something through a hook, and restores it
)

var modeNames = []string{"", "P", "S", "A", "L", "X"}

func (m Mode) String() string { return name(modeNames, m) }

// MarshalText writes the letter: P, S, A, L or X.
func (m Mode) MarshalText() ([]byte, error) { return marshalName(modeNames, m) }

// UnmarshalText reads the letter.
func (m *Mode) UnmarshalText(text []byte) (err error) {
	*m, err = parseName[Mode]("mode", modeNames, text)
	return err
}

// Flag is the option that allows the mode; empty when it always runs.
func (m Mode) Flag() string {
	return map[Mode]string{Active: "--active", Load: "--load", Fault: "--fault-cmd"}[m]
}

// Category groups roots for the score and the report.
type Category string

// The categories with their weights out of 100 (gantry-score/1, step 2).
const (
	Identity      Category = "identity"
	Limits        Category = "limits"
	Data          Category = "data"
	Configuration Category = "config"
	Health        Category = "health"
	Abuse         Category = "abuse"
	Validation    Category = "validation"
	Transport     Category = "transport"
	Performance   Category = "performance"
	Errors        Category = "errors"
	Observability Category = "observability"
	Launch        Category = "launch"
)

// Categories returns all, in the order of the report: heaviest first.
func Categories() []Category {
	return []Category{
		Identity, Limits, Data, Configuration, Health, Abuse, Validation, Transport, Performance,
		Errors, Observability, Launch,
	}
}

// Weight of the category in the score; all of them sum to 100.
func (c Category) Weight() float64 {
	switch c {
	case Identity:
		return 20
	case Limits, Data:
		return 12
	case Configuration, Health:
		return 10
	case Abuse:
		return 8
	case Validation:
		return 7
	case Transport, Performance:
		return 5
	case Errors, Observability:
		return 4
	case Launch:
		return 3
	}
	return 0
}

func name[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("unknown(%d)", v)
}

func marshalName[T ~uint8](names []string, v T) ([]byte, error) {
	if int(v) >= len(names) {
		return nil, fmt.Errorf("no name for %d", v)
	}
	return []byte(names[v]), nil
}

func parseName[T ~uint8](what string, names []string, text []byte) (T, error) {
	if i := slices.Index(names, string(text)); i >= 0 {
		return T(i), nil
	}
	return 0, fmt.Errorf("%q is not a %s", text, what)
}

var (
	_ encoding.TextMarshaler   = Severity(0)
	_ encoding.TextUnmarshaler = (*Outcome)(nil)
)
