package report

import (
	"crypto/sha256"
	_ "embed" // the page and its style
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"time"

	"github.com/gantryhq/gantry/audit"
)

//go:embed report.html
var page string

//go:embed report.css
var style string

// HTML is the report as one page: no script, nothing loaded from elsewhere, dark and light as the reader's system is, and
// fit to print. Every byte that came from the target passes html/template's escaping, and the page's own content
// security policy allows nothing but its style.
func HTML(w io.Writer, r audit.Report, o Options) error {
	t, err := template.New("report").Funcs(pageFuncs()).Parse(page)
	if err != nil {
		return fmt.Errorf("report page: %w", err)
	}
	return t.Execute(w, pageData(r, o))
}

func pageFuncs() template.FuncMap {
	return template.FuncMap{
		"plain": Plain, "lines": lines, "tenth": func(v float64) string { return fmt.Sprintf("%.1f", tenth(v)) }, "percent": func(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) },
		"date": func(t time.Time) string { return t.UTC().Format("2 Jan 2006 15:04 UTC") }, "join": strings.Join,
		"day":   func(t time.Time) string { return t.AddDate(0, 0, -1).Format(time.DateOnly) },
		"round": func(d time.Duration) string { return d.Round(100 * time.Millisecond).String() },
		"width": func(v float64) string { return fmt.Sprintf("%.1f", max(0, min(100, v*10))) },
		"gauge": gauge, "chart": drawChart, "strip": strip, "lower": strings.ToLower,
	}
}

// pageView is what the page shows.
type pageView struct {
	Report   audit.Report
	Style    template.CSS
	Policy   string
	Grade    string
	Tone     string // of the verdict: bad, open, fair, good
	Blockers []holeView
	Others   []holeView
	Open     []openView
	Charts   []chartView
	Passed   []audit.Finding
	Set      []audit.Finding // declared or attested
	NotHere  []audit.Finding // not applicable by evidence
	Changes  []changeView
	Base     *audit.Report
	Gate     string
}

type holeView struct {
	Severity string
	Root     string
	First    audit.Finding
	Others   []audit.Finding
	Why, Fix string
	Refs     []string
	Gain     string
}

type openView struct {
	Why, Hint string
	Findings  []audit.Finding
}

type chartView struct {
	Probe string
	Chart audit.Chart
}

type changeView struct{ Probe, Title, Old, New string }

func pageData(r audit.Report, o Options) pageView {
	sum := sha256.Sum256([]byte(style))
	v := pageView{
		Report: r, Style: template.CSS(style), Grade: grade(r.Score), Tone: tone(r.Score.Label), Base: o.Baseline, Gate: o.Gate,
		Policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'",
		Passed: with(r, audit.Pass),
	}
	gains := map[string]string{}
	for _, g := range r.Score.Next {
		gains[g.Name] = fmt.Sprintf("%.1f once fixed with those above", g.After)
	}
	for _, h := range holes(r, o) {
		hv := holeView{
			Severity: h.severity.String(), Root: h.root, First: h.first, Others: h.others, Why: h.probe.Why, Fix: h.probe.Fix,
			Refs: h.probe.Refs, Gain: gains[h.root],
		}
		if h.severity == audit.Critical {
			v.Blockers = append(v.Blockers, hv)
		} else {
			v.Others = append(v.Others, hv)
		}
	}
	for _, g := range unproven(r) {
		v.Open = append(v.Open, openView{g.why, g.hint, g.findings})
	}
	for _, f := range r.Findings {
		for _, c := range f.Charts {
			v.Charts = append(v.Charts, chartView{f.Probe, c})
		}
		switch {
		case f.Declared, f.Outcome == audit.Attested:
			v.Set = append(v.Set, f)
		case f.Outcome == audit.NotApplicable:
			v.NotHere = append(v.NotHere, f)
		}
	}
	for _, c := range changes(r, o.Baseline) {
		v.Changes = append(v.Changes, changeView{c.probe, c.title, c.old.String(), c.new.String()})
	}
	return v
}

func tone(l audit.Label) string {
	return map[audit.Label]string{audit.DoNotLaunch: "bad", audit.NotProven: "open", audit.ControlledLaunch: "fair", audit.Ready: "good"}[l]
}

// gauge is a half circle filled to the score, with a mark where it could be.
func gauge(s audit.Score) template.HTML {
	arc := func(to float64) string {
		angle := math.Pi * (1 - to/10)
		return fmt.Sprintf("M 20 110 A 90 90 0 0 1 %.1f %.1f", 110+90*math.Cos(angle), 110-90*math.Sin(angle))
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 220 124" role="img" aria-label="score %.1f of 10, could be %.1f">`, s.Value, s.CouldBe)
	fmt.Fprintf(&b, `<path class="rail" d="%s"/>`, arc(10))
	if s.CouldBe > s.Value {
		fmt.Fprintf(&b, `<path class="could" d="%s"/>`, arc(s.CouldBe))
	}
	if s.Value > 0 {
		fmt.Fprintf(&b, `<path class="fill" d="%s"/>`, arc(s.Value))
	}
	label := fmt.Sprintf("%.1f", s.Value)
	if s.RangeOnly {
		label = fmt.Sprintf("%.1f–%.1f", s.Value, s.CouldBe)
	}
	fmt.Fprintf(&b, `<text x="110" y="98" text-anchor="middle">%s</text><text class="of" x="110" y="118" text-anchor="middle">of 10</text></svg>`, label)
	return template.HTML(b.String()) // numbers only
}
