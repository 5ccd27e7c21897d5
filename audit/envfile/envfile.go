// Package envfile finds what is wrong for production in a .env file of any framework: keys that can be
// guessed, debug pages on, open hosts, test keys, connections in clear text, names that are missing.
// Begin with [Check]. The surprise: a [Fault] never holds a value, so it may be printed anywhere; who
// can read the file itself is for the caller to look at.
package envfile

import (
	"cmp"
	"fmt"
	"io"
	"slices"
)

// MaxBytes is the largest file that Check reads. Real ones have a few KiB.
const MaxBytes = 1 << 20

// The severities, as the audit's probes have them.
const (
	Critical = "critical"
	High     = "high"
	Medium   = "medium"
	Low      = "low"
)

// Fault is one thing that is wrong. It never holds the value, nor any part of one.
type Fault struct {
	ID       string // what kind: one of the constants below
	Severity string // critical, high, medium or low
	Name     string // of the variable; "" when a line has none
	Line     int    // in the file, from 1; 0 when the name is absent
	What     string // the finding, to be read after the name
	Fix      string // what to do, as an order
	Probe    string // the audit's probe with the same concern; "" when none has it
}

// The kinds of fault. An id is never used again for another meaning.
const (
	WeakSecret    = "env-weak-secret"    // a key that signs or encrypts can be guessed
	Debug         = "env-debug"          // debug pages are on
	Wildcard      = "env-wildcard"       // any host or origin
	TestKey       = "env-test-key"       // a provider's test key in production
	PlainDatabase = "env-plain-database" // no TLS to a database elsewhere
	PlainCache    = "env-plain-cache"    // no TLS to a cache elsewhere
	ExamplePass   = "env-example-pass"   // a password everyone tries first
	Placeholder   = "env-placeholder"    // still the example of a document
	Missing       = "env-missing"        // absent or empty
	NotProduction = "env-not-production" // ENVIRONMENT says something else
	NearMiss      = "env-near-miss"      // a name nobody reads
	Duplicate     = "env-duplicate"      // one name, two values
	Unreadable    = "env-unreadable"     // a line that is not NAME=value
)

// The audit's probes whose concern a fault has.
const (
	probeSecret    = "JWT-06" // root "secret"
	probeDefault   = "CFG-03" // the same root: a default that everyone knows
	probeDebug     = "CFG-01"
	probeCORS      = "TRN-03"
	probePlaintext = "TRN-01"
	probeAlert     = "LCH-05"
	probeBinding   = "JWT-17" // root "jwt-binding": tokens of another issuer
)

const maxFaults = 1000 // a hostile file must not fill a report

// Check reads a .env file and returns its faults in the order of its lines, absent names first. The
// name is only for errors. It fails when the file cannot be read or is larger than [MaxBytes]; a line
// that makes no sense is a fault, not an error.
func Check(r io.Reader, name string) ([]Fault, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, err)
	case len(text) > MaxBytes:
		return nil, fmt.Errorf("read %s: larger than %d bytes", name, MaxBytes)
	}
	f, faults := parse(string(text))
	for _, rule := range rules {
		faults = append(faults, rule(f)...)
	}
	slices.SortStableFunc(faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return faults[:min(len(faults), maxFaults)], nil
}
