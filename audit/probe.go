package audit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Probe is one question to a running API, with everything a reader of its answer needs. It is a value:
// the catalogue is a list of them, and its documentation is generated from them.
type Probe struct {
	ID       string // JWT-01; stable for ever
	Title    string // what is asked, as a noun phrase
	Severity Severity
	Mode     Mode
	Category Category
	Root     string // the hole it measures; several probes may measure one. Empty means the ID.

	Sends        string // what goes over the wire
	Passes       string // what must come back
	Fails        string // what proves the fault
	Inconclusive string // when it cannot tell; empty when only the general rules apply
	Guard        string // what keeps it from a false alarm, or from harm
	Knobs        []string
	Refs         []string // RFC, CWE, OWASP, ASVS 5.0, CVE
	Why          string   // what happens to the team that ships this, in a sentence or two
	Fix          string

	// Background probes mostly wait; they run beside the others from the start of their stage.
	Background bool
	// Confirms says that Run repeats what it found by itself ([Session.Repeats], several windows, two
	// sockets). Otherwise the engine runs a failing probe once more, with a control request between.
	Confirms bool
	// NeedsCredential makes the engine skip the probe unless calibration told a valid credential from a
	// missing and a garbage one, and check after it that the valid one still works.
	NeedsCredential bool

	// Run asks. An error means "could not tell" and becomes an inconclusive finding with its text.
	Run func(context.Context, *Session) (Verdict, error)
}

// RootName is the root that the probe measures.
func (p Probe) RootName() string {
	if p.Root != "" {
		return p.Root
	}
	return p.ID
}

// Note is a part of a probe's documentation.
type Note struct{ Name, Text string }

// Notes are the parts that are not empty, in the order in which they are read.
func (p Probe) Notes() []Note {
	all := []Note{
		{"sends", p.Sends},
		{"passes", p.Passes},
		{"fails", p.Fails},
		{"cannot tell", p.Inconclusive},
		{"guard", p.Guard},
		{"why", p.Why},
		{"fix", p.Fix},
		{"flags", strings.Join(p.Knobs, ", ")},
		{"see", strings.Join(p.Refs, ", ")},
	}
	return slices.DeleteFunc(all, func(n Note) bool { return n.Text == "" })
}

// Verdict is what a probe's Run concludes.
type Verdict struct {
	Outcome Outcome
	// Severity of a failure when it differs from the probe's own (a public metrics page is high, a bare
	// line feed low); zero means the probe's.
	Severity Severity
	Message  string      // one line, what was found, in the reader's words
	Hint     string      // what would have made an inconclusive probe tell: flags, declarations
	Evidence []*Exchange // the exchanges that show it, at most a handful
	Charts   []Chart
	Data     map[string]any // measured figures for the JSON report
}

// Passed concludes that the API does the right thing.
func Passed(format string, args ...any) Verdict {
	return Verdict{Outcome: Pass, Message: fmt.Sprintf(format, args...)}
}

// Failed concludes that the API has the fault, as the message says and the evidence shows.
func Failed(format string, args ...any) Verdict {
	return Verdict{Outcome: Fail, Message: fmt.Sprintf(format, args...)}
}

// Unproven concludes that the probe could not tell.
func Unproven(format string, args ...any) Verdict {
	return Verdict{Outcome: Inconclusive, Message: fmt.Sprintf(format, args...)}
}

// DoesNotApply concludes that there is nothing to judge, for a reason that was observed or declared.
func DoesNotApply(format string, args ...any) Verdict {
	return Verdict{Outcome: NotApplicable, Message: fmt.Sprintf(format, args...)}
}

// With adds evidence.
func (v Verdict) With(evidence ...*Exchange) Verdict {
	v.Evidence = append(v.Evidence[:len(v.Evidence):len(v.Evidence)], evidence...)
	return v
}

// As sets the severity of a failure.
func (v Verdict) As(s Severity) Verdict {
	v.Severity = s
	return v
}

// Unlock says what would have made the probe tell: "--token-b and --object-b".
func (v Verdict) Unlock(format string, args ...any) Verdict {
	v.Hint = fmt.Sprintf(format, args...)
	return v
}

// Measured adds a figure to the JSON report.
func (v Verdict) Measured(name string, value any) Verdict {
	data := map[string]any{name: value}
	for k, old := range v.Data {
		data[k] = old
	}
	v.Data = data
	return v
}

// Drawn adds a chart to the HTML report.
func (v Verdict) Drawn(c Chart) Verdict {
	v.Charts = append(v.Charts[:len(v.Charts):len(v.Charts)], c)
	return v
}

// Chart is a picture that makes a finding convincing: a few named series over one axis.
type Chart struct {
	Title  string   `json:"title"`
	X      string   `json:"xAxis"` // axis titles with units
	Y      string   `json:"yAxis"`
	Series []Series `json:"series"`
	Limits []Limit  `json:"limits,omitempty"`
}

// Series is one line of a chart; X and Y have the same length, at most 600.
type Series struct {
	Name string    `json:"name"`
	X    []float64 `json:"x"`
	Y    []float64 `json:"y"`
	Bars bool      `json:"bars,omitempty"`
}

// Limit is a horizontal line of a chart.
type Limit struct {
	Name string  `json:"name"`
	Y    float64 `json:"y"`
}

// Finding is a verdict of a probe that the engine has confirmed.
type Finding struct {
	Probe    string         `json:"probe"`
	Title    string         `json:"title"`
	Root     string         `json:"root"`
	Category Category       `json:"category"`
	Severity Severity       `json:"severity"` // the probe's: its weight in the score
	Mode     Mode           `json:"mode"`
	Outcome  Outcome        `json:"outcome"`
	FailedAs Severity       `json:"failedAs,omitempty"` // the failure's own severity, when failed
	Message  string         `json:"message"`
	Hint     string         `json:"hint,omitempty"`
	Declared bool           `json:"declared,omitempty"` // not applicable because somebody said so
	Vantage  string         `json:"vantage,omitempty"`  // what saw it, when not the wire: source, environment file
	Where    string         `json:"where,omitempty"`    // file:line of a vantage finding
	Evidence []Evidence     `json:"evidence,omitempty"`
	Charts   []Chart        `json:"charts,omitempty"`
	Data     map[string]any `json:"data,omitempty"`
	Took     time.Duration  `json:"took"` // nanoseconds
	Requests int            `json:"requests"`
}

func finding(p Probe, v Verdict) Finding {
	f := Finding{
		Probe: p.ID, Title: p.Title, Root: p.RootName(), Category: p.Category, Severity: p.Severity, Mode: p.Mode,
		Outcome: v.Outcome, Message: clean(v.Message), Hint: v.Hint, Charts: v.Charts, Data: v.Data,
	}
	if v.Outcome == Fail {
		f.FailedAs = p.Severity
		if v.Severity != 0 {
			f.FailedAs = v.Severity
		}
	}
	return f
}

// clean makes one printable line of a message, which may quote the target.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if Hidden(r) {
			return ' '
		}
		return r
	}, s)
	return cut(s, 600)
}

// cut shortens s to at most n bytes at a rune's boundary.
func cut(s string, n int) string {
	if len(s) <= n {
		return strings.ToValidUTF8(s, "\ufffd")
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
