package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

type junitSuites struct {
	XMLName xml.Name     `xml:"testsuites"`
	Name    string       `xml:"name,attr"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string   `xml:"name,attr"`
	Class   string   `xml:"classname,attr"`
	Time    string   `xml:"time,attr"`
	Failure *message `xml:"failure"`
	Error   *message `xml:"error"`
	Skipped *message `xml:"skipped"`
}

type message struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr,omitempty"`
	Text    string `xml:",chardata"`
}

// JUnit is the report as test results: a suite a category, a case a probe. What is not proven is skipped, or an error
// when o.Strict.
func JUnit(w io.Writer, r audit.Report, o Options) error {
	all := junitSuites{Name: "gantry audit " + Plain(r.Target)}
	for _, c := range audit.Categories() {
		s := junitSuite{Name: string(c)}
		for _, f := range r.Findings {
			if f.Category == c {
				s.add(f, o)
			}
		}
		if s.Tests > 0 {
			all.Suites = append(all.Suites, s)
		}
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (s *junitSuite) add(f audit.Finding, o Options) {
	c := junitCase{Name: f.Probe + " " + Plain(f.Title), Class: "gantry." + string(f.Category), Time: fmt.Sprintf("%.3f", f.Took.Seconds())}
	s.Tests++
	switch f.Outcome {
	case audit.Fail:
		s.Failures++
		c.Failure = &message{Message: Plain(f.Message), Type: f.FailedAs.String(), Text: details(f, find(o.Probes, f.Probe))}
	case audit.Inconclusive, audit.Attested, audit.NotApplicable:
		m := &message{Message: strings.TrimSpace(f.Outcome.String() + ": " + Plain(f.Message) + " " + Plain(f.Hint))}
		if o.Strict && f.Outcome == audit.Inconclusive {
			s.Errors++
			c.Error = m
			break
		}
		s.Skipped++
		c.Skipped = m
	}
	s.Cases = append(s.Cases, c)
}

func details(f audit.Finding, p audit.Probe) string {
	var b strings.Builder
	for _, e := range f.Evidence {
		fmt.Fprintf(&b, "%s %s [%s] -> %d %s\n", Plain(e.Method), Plain(e.URL), Plain(e.Label), e.Status, Plain(e.Error))
	}
	if p.Fix != "" {
		fmt.Fprintf(&b, "fix: %s\n", p.Fix)
	}
	return b.String()
}
