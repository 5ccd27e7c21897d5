package audit

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Algorithm names the scoring rule. Scores of another name cannot be compared with it.
const Algorithm = "gantry-score/1"

// Label is the verdict in words. The zero value is DoNotLaunch.
type Label uint8

// The labels, worst first.
const (
	DoNotLaunch      Label = iota
	NotProven              // nothing critical or high failed, and too little was shown
	ControlledLaunch       // score >= 7, no critical failure, nothing critical unproven
	Ready                  // score >= 8.5, neither critical nor high failures, 90 % of the weight passed
)

var labelNames = []string{"DO NOT LAUNCH", "NOT PROVEN", "READY FOR CONTROLLED LAUNCH", "READY"}

func (l Label) String() string { return name(labelNames, l) }

// MarshalText writes the label as printed.
func (l Label) MarshalText() ([]byte, error) { return marshalName(labelNames, l) }

// UnmarshalText reads it back.
func (l *Label) UnmarshalText(text []byte) (err error) {
	*l, err = parseName[Label]("verdict", labelNames, text)
	return err
}

// Score is the verdict in numbers: a pure function of the findings, see [Rate].
type Score struct {
	Algorithm  string          `json:"algorithm"`
	Value      float64         `json:"score"`     // 0 to 10, never rounded up
	Base       float64         `json:"base"`      // before the cap, not rounded
	Cap        float64         `json:"cap"`       // 10 when nothing caps
	Reasons    []string        `json:"reasons"`   // of every cap that holds, the lowest first
	CouldBe    float64         `json:"couldBe"`   // were all that is unproven a pass
	Proof      float64         `json:"proof"`     // share of the weight that passed or failed, 0 to 1
	RangeOnly  bool            `json:"rangeOnly"` // under half is proven: show Value to CouldBe, no grade
	Label      Label           `json:"verdict"`
	Because    string          `json:"because,omitempty"`
	Categories []CategoryScore `json:"categories"`
	Next       []Gain          `json:"next"`   // what to fix, in order
	Unlock     []Gain          `json:"unlock"` // what to give the audit, best first
	Counts     Counts          `json:"counts"`
}

// CategoryScore is the score of a category, 0 to 10.
type CategoryScore struct {
	Category   Category `json:"category"`
	Score      float64  `json:"score"`
	Weight     float64  `json:"weight"`
	Applicable bool     `json:"applicable"`
	Passed     int      `json:"passed"` // probes
	Failed     int      `json:"failed"`
	Unproven   int      `json:"unproven"`
}

// Gain is what one step would bring, found by scoring again with it taken.
type Gain struct {
	Name   string   `json:"name"`   // a root, or the flags to give
	Probes []string `json:"probes"` // that it turns to pass
	Gain   float64  `json:"gain"`   // of the score by this step alone
	After  float64  `json:"after"`  // the score once this step and those before it are taken
}

// Counts of findings.
type Counts struct {
	Critical      int `json:"critical"` // failures, by their own severity
	High          int `json:"high"`
	Medium        int `json:"medium"`
	Low           int `json:"low"`
	Passed        int `json:"passed"`
	Unproven      int `json:"unproven"`
	Attested      int `json:"attested"`
	NotApplicable int `json:"notApplicable"`
}

// The thresholds of gantry-score/1. They are tuned to one document's 3/10 and 7/10, not calibrated on incidents.
const (
	readyScore      = 8.5
	controlledScore = 7.0
	readyProof      = 0.9
	rangeProof      = 0.5
	provenCredit    = 0.75 // mean credit of a root's critical members from which it counts as proven
	unprovenCap     = 6.9
	highCap         = 8.4 // with one high root failed; 0.2 less for each more, not under 7
	highCapStep     = 0.2
	highCapFloor    = 7.0
)

var criticalCaps = []float64{4.9, 4.4, 3.9, 3.4, 3.0} // with 1, 2, 3, 4, 5 or more critical roots failed

// Rate scores findings by gantry-score/1. The order of findings decides a root's category: its first member's.
func Rate(findings []Finding) Score {
	s := rate(findings)
	s.CouldBe = rate(improve(findings, func(f Finding) bool { return f.Outcome == Inconclusive || f.Outcome == Attested })).Value
	s.Next = next(findings, s.Value)
	s.Unlock = unlock(findings, s.Value)
	return s
}

// root is a hole with what was found about it.
type root struct {
	name     string
	category Category
	severity Severity // the gravest of its probes
	members  []*Finding
	worst    Severity // the gravest failure; 0 when nothing failed
}

func rate(findings []Finding) Score {
	roots := rootsOf(findings)
	s := Score{Algorithm: Algorithm, Cap: 10, Counts: count(findings)}
	s.Categories, s.Base = categories(roots, findings)
	s.Cap, s.Reasons = capOf(roots)
	s.Value = floor(min(s.Base, s.Cap))
	passed, failed, all := weights(findings)
	if all > 0 {
		s.Proof = (passed + failed) / all
	}
	s.RangeOnly = s.Proof < rangeProof
	s.Label, s.Because = label(s, roots, all > 0 && passed/all >= readyProof)
	return s
}

func rootsOf(findings []Finding) []*root {
	var list []*root
	byName := map[string]*root{}
	for i := range findings {
		f := &findings[i]
		if f.Outcome == NotApplicable {
			continue
		}
		r := byName[f.Root]
		if r == nil {
			r = &root{name: f.Root, category: f.Category}
			byName[f.Root] = r
			list = append(list, r)
		}
		r.members = append(r.members, f)
		r.severity = max(r.severity, f.Severity)
		if f.Outcome == Fail {
			r.worst = max(r.worst, f.FailedAs)
		}
	}
	return list
}

func credit(o Outcome) float64 {
	switch o {
	case Pass:
		return 1
	case Attested:
		return 0.5
	}
	return 0
}

// credit of a root: the weighted mean of its members, which a grave failure limits.
func (r *root) credit() float64 {
	sum, all := 0.0, 0.0
	for _, m := range r.members {
		sum += m.Severity.Weight() * credit(m.Outcome)
		all += m.Severity.Weight()
	}
	mean := sum / all
	switch {
	case r.worst == Critical, r.worst == High && r.severity <= High:
		return 0
	case r.worst == High:
		return min(mean, 0.5)
	}
	return mean
}

// unproven says whether a critical root lacks the proof of its critical members.
func (r *root) unproven() bool {
	sum, n := 0.0, 0.0
	for _, m := range r.members {
		if m.Severity == Critical {
			sum += credit(m.Outcome)
			n++
		}
	}
	return n > 0 && sum/n < provenCredit
}

func categories(roots []*root, findings []Finding) ([]CategoryScore, float64) {
	list := make([]CategoryScore, 0, len(Categories()))
	total, weight := 0.0, 0.0
	for _, c := range Categories() {
		cs := CategoryScore{Category: c, Weight: c.Weight()}
		cs.Score, cs.Applicable = scoreOf(c, roots)
		tally(&cs, findings)
		if cs.Applicable {
			total += cs.Weight * cs.Score
			weight += cs.Weight
		}
		list = append(list, cs)
	}
	if weight == 0 {
		return list, 0
	}
	return list, total / weight
}

// scoreOf a category: the weighted mean of its roots' credits.
func scoreOf(c Category, roots []*root) (score float64, applicable bool) {
	got, all := 0.0, 0.0
	for _, r := range roots {
		if r.category == c {
			got += r.severity.Weight() * r.credit()
			all += r.severity.Weight()
		}
	}
	if all == 0 {
		return 0, false
	}
	return 10 * got / all, true
}

func tally(cs *CategoryScore, findings []Finding) {
	for i := range findings {
		if findings[i].Category != cs.Category {
			continue
		}
		switch findings[i].Outcome {
		case Pass:
			cs.Passed++
		case Fail:
			cs.Failed++
		case Inconclusive, Attested:
			cs.Unproven++
		}
	}
}

// capOf finds the lowest cap, and the reasons of all that hold.
func capOf(roots []*root) (float64, []string) {
	critical, unproven, high := 0, []string{}, 0
	for _, r := range roots {
		switch {
		case r.worst == Critical:
			critical++
		case r.worst == High:
			high++
		}
		if r.worst != Critical && r.unproven() {
			unproven = append(unproven, r.name)
		}
	}
	lowest, reasons := 10.0, []string{}
	hold := func(limit float64, format string, args ...any) {
		lowest = min(lowest, limit)
		reasons = append(reasons, fmt.Sprintf("capped at %.1f: ", limit)+fmt.Sprintf(format, args...))
	}
	if critical > 0 {
		hold(criticalCaps[min(critical, len(criticalCaps))-1], "%s failed", plural(critical, "critical root cause"))
	}
	if len(unproven) > 0 {
		hold(unprovenCap, "%s not proven (%s)", plural(len(unproven), "critical root cause"), some(unproven, 4))
	}
	if high > 0 {
		hold(max(highCapFloor, highCap-highCapStep*float64(high-1)), "%s failed", plural(high, "high root cause"))
	}
	return lowest, reasons
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func some(names []string, n int) string {
	text := ""
	for i, name := range names[:min(n, len(names))] {
		if i > 0 {
			text += ", "
		}
		text += name
	}
	if len(names) > n {
		text += fmt.Sprintf(" and %d more", len(names)-n)
	}
	return text
}

// label decides. READY asks that 90 % of the weight passed, not that it passed or failed: turning a
// failure into an open question must never make the verdict better or worse than the question itself.
func label(s Score, roots []*root, mostlyPassed bool) (Label, string) {
	unproven := slices.ContainsFunc(roots, func(r *root) bool { return r.worst != Critical && r.unproven() })
	critical := slices.ContainsFunc(roots, func(r *root) bool { return r.worst == Critical })
	high := slices.ContainsFunc(roots, func(r *root) bool { return r.worst == High })
	switch {
	case s.Value >= readyScore && !critical && !high && !unproven && mostlyPassed:
		return Ready, ""
	case s.Value >= controlledScore && !critical && !unproven:
		return ControlledLaunch, ""
	case critical || high:
		return DoNotLaunch, "failures"
	}
	return NotProven, "not proven"
}

func weights(findings []Finding) (passed, failed, all float64) {
	for i := range findings {
		if findings[i].Outcome == NotApplicable {
			continue
		}
		w := findings[i].Severity.Weight()
		all += w
		switch findings[i].Outcome {
		case Pass:
			passed += w
		case Fail:
			failed += w
		}
	}
	return passed, failed, all
}

func count(findings []Finding) Counts {
	var c Counts
	for i := range findings {
		switch findings[i].Outcome {
		case Pass:
			c.Passed++
		case Inconclusive:
			c.Unproven++
		case Attested:
			c.Attested++
		case NotApplicable:
			c.NotApplicable++
		case Fail:
			c.failed(findings[i].FailedAs)
		}
	}
	return c
}

func (c *Counts) failed(s Severity) {
	switch s {
	case Low:
		c.Low++
	case Medium:
		c.Medium++
	case High:
		c.High++
	case Critical:
		c.Critical++
	}
}

// floor to a tenth. The small constant undoes binary fractions just under a tenth.
func floor(v float64) float64 { return math.Floor(v*10+1e-9) / 10 }

// improve turns the findings that which selects into passes.
func improve(findings []Finding, which func(Finding) bool) []Finding {
	better := slices.Clone(findings)
	for i := range better {
		if which(better[i]) {
			better[i].Outcome, better[i].FailedAs = Pass, 0
		}
	}
	return better
}

// Waived turns failures into passes that somebody has accepted and whose waiver has not expired at now. It decides
// exit codes; a score is never computed from it.
func Waived(findings []Finding, waivers []Waiver, now time.Time) []Finding {
	return improve(findings, func(f Finding) bool {
		return f.Outcome == Fail && slices.ContainsFunc(waivers, func(w Waiver) bool {
			return (w.ID == f.Probe || w.ID == f.Root) && now.Before(w.Expires)
		})
	})
}

// maxGains is how many steps the report suggests.
const maxGains = 8

// next orders failed roots: the gravest first, then by what the base gains; and scores along the way.
func next(findings []Finding, now float64) []Gain {
	var failed []*root
	gain := map[string]float64{}
	base := rate(findings).Base
	for _, r := range rootsOf(findings) {
		if r.worst > 0 {
			failed = append(failed, r)
			gain[r.name] = rate(improve(findings, failedOf(r))).Base - base
		}
	}
	slices.SortStableFunc(failed, func(a, b *root) int {
		return cmp.Or(cmp.Compare(b.worst, a.worst), cmp.Compare(gain[b.name], gain[a.name]))
	})
	var list []Gain
	path := findings
	for _, r := range failed[:min(len(failed), maxGains)] {
		path = improve(path, failedOf(r))
		g := Gain{Name: r.name, Gain: rate(improve(findings, failedOf(r))).Value - now, After: rate(path).Value}
		for _, m := range r.members {
			if m.Outcome == Fail {
				g.Probes = append(g.Probes, m.Probe)
			}
		}
		list = append(list, g)
	}
	return list
}

func failedOf(r *root) func(Finding) bool {
	return func(f Finding) bool { return f.Root == r.name && f.Outcome == Fail }
}

// unlock groups what is unproven by what would prove it.
func unlock(findings []Finding, now float64) []Gain {
	byHint := map[string]*Gain{}
	var hints []string
	for _, f := range findings {
		if f.Outcome != Inconclusive || f.Hint == "" {
			continue
		}
		if byHint[f.Hint] == nil {
			byHint[f.Hint] = &Gain{Name: f.Hint}
			hints = append(hints, f.Hint)
		}
		byHint[f.Hint].Probes = append(byHint[f.Hint].Probes, f.Probe)
	}
	base := rate(findings).Base
	gain := map[string]float64{}
	for _, h := range hints {
		proven := rate(improve(findings, unprovenWith(h)))
		byHint[h].Gain, gain[h] = proven.Value-now, proven.Base-base
	}
	slices.SortStableFunc(hints, func(a, b string) int { return cmp.Compare(gain[b], gain[a]) })
	var list []Gain
	path := findings
	for _, h := range hints[:min(len(hints), maxGains)] {
		path = improve(path, unprovenWith(h))
		byHint[h].After = rate(path).Value
		list = append(list, *byHint[h])
	}
	return list
}

func unprovenWith(hint string) func(Finding) bool {
	return func(f Finding) bool { return f.Outcome == Inconclusive && f.Hint == hint }
}
