// Package observe holds what the vantage points of an audit have in common: each looks at a server that
// stands behind the audited API while requests are sent, and says what the requests did there.
//
// Begin with one of them: audit/observe/postgres or audit/observe/valkey.
//
// The surprise: a verdict is Unknown until something is shown. A counter that could not be read, or that nobody
// touched, proves nothing, and never passes.
package observe

import (
	"fmt"
	"strings"
)

// Outcome is what was shown.
type Outcome int

// The zero Outcome is Unknown.
const (
	Unknown Outcome = iota
	Pass
	Fail
)

// String is the outcome's name, in lower case.
func (o Outcome) String() string {
	switch o {
	case Unknown:
		return "unknown"
	case Pass:
		return "pass"
	case Fail:
		return "fail"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// Verdict is an outcome and why. Nothing in it holds a literal of the audited API's statements.
type Verdict struct {
	Outcome Outcome
	// Reason is a sentence with the figures, also of a Pass.
	Reason string
	// Evidence is what was measured, the most telling first; at most [MaxEvidence] lines.
	Evidence []string
	// Fix is what to do about a Fail, or what would make an Unknown known; "" after a Pass.
	Fix string
}

// MaxEvidence bounds the lines of a Verdict's Evidence.
const MaxEvidence = 10

// Capability is one thing that a vantage point may or may not be able to see.
type Capability struct {
	// Name is a word or two, such as "statements".
	Name      string
	Available bool
	// Why says what is missing, and Fix what to run to get it; both are "" when it is available.
	Why, Fix string
}

// Redact returns the text of err without the secret, for errors of drivers that may quote what they were
// given.
func Redact(err error, secret string) string {
	if secret == "" {
		return err.Error()
	}
	return strings.ReplaceAll(err.Error(), secret, "[redacted]")
}
