// Package report writes an audit's report for people and for machines.
//
// Begin with [Format], which gives the writer of a format by its name. The surprise: everything that came from the
// target is hostile until it is escaped for the place where it will stand: a terminal, a page, a table, a URL. JSON is
// the source of all other forms; each is a func of a report and nothing else, so that a stored report prints the same.
package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/gantryhq/gantry/audit"
)

// Options say how to print. The zero value prints plain ASCII without colour.
type Options struct {
	Colour  bool
	Verbose bool // text: every finding in full
	Strict  bool // JUnit: what is not proven is an error
	// SARIFAll adds what passed.
	SARIFAll bool
	// Probes explain findings: why it matters, how to fix it. Findings of unknown probes print without.
	Probes []audit.Probe
	// Baseline is an older report to compare with; nil compares with nothing.
	Baseline *audit.Report
	Gate     string // the line that says what the gate made of it; empty prints none
	// Operations and Anchor place findings in files for code scanning: the operation's line, else line 1 of Anchor.
	Operations []audit.Operation
	Anchor     string
}

// Writer prints a report.
type Writer func(io.Writer, audit.Report, Options) error

var formats = map[string]Writer{
	"text": Text, "json": JSON, "markdown": Markdown, "sarif": SARIF, "junit": JUnit, "checklist": Checklist, "badge": Badge, "html": HTML,
}

// Format finds a writer by name.
func Format(name string) (Writer, error) {
	if w := formats[name]; w != nil {
		return w, nil
	}
	return nil, fmt.Errorf("there is no format %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(formats)), ", "))
}

// JSON is the report itself, indented. Whatever a terminal would act on stands there as an escape.
func JSON(w io.Writer, r audit.Report, _ Options) error { return writeJSON(w, r) }

// writeJSON writes v indented, with every invisible character as an escape: outside of strings JSON has none.
func writeJSON(w io.Writer, v any) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	var b strings.Builder
	for _, r := range text.String() {
		if r == '\n' || !audit.Hidden(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Badge is a JSON endpoint for badge services: label, message and colour.
func Badge(w io.Writer, r audit.Report, _ Options) error {
	colour := map[audit.Label]string{
		audit.DoNotLaunch: "red", audit.NotProven: "lightgrey", audit.ControlledLaunch: "yellow", audit.Ready: "brightgreen",
	}[r.Score.Label]
	return json.NewEncoder(w).Encode(map[string]any{
		"schemaVersion": 1, "label": "production readiness", "message": grade(r.Score), "color": colour,
	})
}

// grade is the number, or the range when under half is proven.
func grade(s audit.Score) string {
	if s.RangeOnly {
		return fmt.Sprintf("%.1f to %.1f", s.Value, s.CouldBe)
	}
	return fmt.Sprintf("%.1f / 10", s.Value)
}

// hole is a failed root: what the reader has to fix as one thing.
type hole struct {
	root     string
	severity audit.Severity
	first    audit.Finding   // the one that shows it best
	others   []audit.Finding // that failed too
	probe    audit.Probe     // of first; zero when unknown
}

// holes groups failures by root, the gravest first, then in the order of the catalogue.
func holes(r audit.Report, o Options) []hole {
	var list []*hole
	byRoot := map[string]*hole{}
	for _, f := range r.Findings {
		if f.Outcome != audit.Fail {
			continue
		}
		h := byRoot[f.Root]
		if h == nil {
			h = &hole{root: f.Root, first: f, severity: f.FailedAs}
			byRoot[f.Root] = h
			list = append(list, h)
			continue
		}
		if f.FailedAs > h.severity {
			h.first, f, h.severity = f, h.first, f.FailedAs
		}
		h.others = append(h.others, f)
	}
	slices.SortStableFunc(list, func(a, b *hole) int { return cmp.Compare(b.severity, a.severity) })
	out := make([]hole, len(list))
	for i, h := range list {
		h.probe = find(o.Probes, h.first.Probe)
		out[i] = *h
	}
	return out
}

func find(probes []audit.Probe, id string) audit.Probe {
	for _, p := range probes {
		if p.ID == id {
			return p
		}
	}
	return audit.Probe{}
}

// with selects findings by outcome.
func with(r audit.Report, outcomes ...audit.Outcome) []audit.Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f audit.Finding) bool { return !slices.Contains(outcomes, f.Outcome) })
}

// unproven groups inconclusive findings by what would prove them, in the order of the report.
func unproven(r audit.Report) []group {
	var list []*group
	byHint := map[string]*group{}
	for _, f := range with(r, audit.Inconclusive) {
		key := cmp.Or(f.Hint, f.Message)
		g := byHint[key]
		if g == nil {
			g = &group{hint: f.Hint, why: f.Message}
			byHint[key] = g
			list = append(list, g)
		}
		g.findings = append(g.findings, f)
	}
	out := make([]group, len(list))
	for i, g := range list {
		out[i] = *g
	}
	return out
}

// group of findings that one thing would prove.
type group struct {
	hint, why string
	findings  []audit.Finding
}

func (g group) ids() string {
	var ids []string
	for _, f := range g.findings {
		ids = append(ids, f.Probe)
	}
	return strings.Join(ids, " ")
}

// change of a probe since the baseline.
type change struct {
	probe    string
	title    string
	old, new audit.Outcome
}

// changes since the baseline, worse ones first.
func changes(r audit.Report, base *audit.Report) []change {
	if base == nil {
		return nil
	}
	var list []change
	for _, f := range r.Findings {
		if old, ok := base.Find(f.Probe); ok && old.Outcome != f.Outcome {
			list = append(list, change{f.Probe, f.Title, old.Outcome, f.Outcome})
		}
	}
	slices.SortStableFunc(list, func(a, b change) int { return cmp.Compare(rank(a.new), rank(b.new)) })
	return list
}

func rank(o audit.Outcome) int {
	return []int{audit.Fail: 0, audit.Inconclusive: 1, audit.Attested: 2, audit.NotApplicable: 3, audit.Pass: 4}[o]
}
