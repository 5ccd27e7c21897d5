package audit

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var names = strings.Fields("a b c d e f g h i j k l m n o p q r s t u v w x y z aa bb cc dd")

// randomFindings of a random catalogue: 5 to 30 probes in random roots, severities and categories.
func randomFindings(r *rand.Rand) []Finding {
	list := make([]Finding, 5+r.IntN(25))
	good := r.IntN(101) // from hopeless to nearly perfect
	for i := range list {
		list[i] = Finding{
			Probe: names[i], Root: names[r.IntN(len(list))], Severity: Severity(1 + r.IntN(4)), Outcome: Pass,
			Category: Categories()[r.IntN(len(Categories()))],
		}
		if r.IntN(100) >= good {
			become(&list[i], improvements[r.IntN(3)])
		}
		if r.IntN(100) < 5 {
			become(&list[i], NotApplicable)
		}
		if list[i].Outcome == Fail && r.IntN(4) == 0 {
			list[i].FailedAs = Severity(1 + r.IntN(4))
		}
	}
	return list
}

// improvements in order.
var improvements = []Outcome{Fail, Inconclusive, Attested, Pass}

func become(f *Finding, o Outcome) {
	f.Outcome, f.FailedAs = o, 0
	if o == Fail {
		f.FailedAs = f.Severity
	}
}

func could(list []Finding) float64 {
	return rate(improve(list, func(f Finding) bool { return f.Outcome == Inconclusive || f.Outcome == Attested })).Value
}

// In 100,000 random reports over random catalogues, one probe improved by one or more steps lowers neither the score, nor
// what it could be, nor the verdict.
func TestNoImprovementHurts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := 0; n < 100_000; {
		list := randomFindings(r)
		i := r.IntN(len(list))
		at := slices.Index(improvements, list[i].Outcome)
		if at < 0 || at == 3 {
			continue
		}
		n++
		before, couldBefore := rate(list), could(list)
		better := slices.Clone(list)
		become(&better[i], improvements[at+1+r.IntN(3-at)])
		after, couldAfter := rate(better), could(better)
		if after.Value < before.Value || after.Label < before.Label || couldAfter < couldBefore {
			t.Fatalf("case %d: %+v to %s: %.1f %s (could %.1f) -> %.1f %s (could %.1f)", n, list[i], better[i].Outcome,
				before.Value, before.Label, couldBefore, after.Value, after.Label, couldAfter)
		}
	}
}

func TestVantageFindingsOnlyLowerTheScore(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		list := randomFindings(r)
		p := list[r.IntN(len(list))]
		hole := Finding{Probe: "SRC-x", Root: p.Root, Category: p.Category, Severity: Severity(1 + r.IntN(4)), Vantage: "source"}
		become(&hole, Fail)
		before, after := rate(list), rate(append(slices.Clone(list), hole))
		if after.Value > before.Value || after.Label > before.Label {
			t.Fatalf("%+v beside %+v raised %.1f %s to %.1f %s", hole, p, before.Value, before.Label, after.Value, after.Label)
		}
	}
}

func TestNothingRunIsNothingProven(t *testing.T) {
	if s := Rate(nil); s.Value != 0 || s.Label != NotProven || !s.RangeOnly {
		t.Errorf("an empty report: %.1f %s", s.Value, s.Label)
	}
}

func TestNextStepsEndWhereTheReportSays(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		s := Rate(randomFindings(r))
		last := s.Value
		for _, g := range s.Next {
			if g.After < last-1e-9 {
				t.Fatalf("after fixing %s the score falls from %.1f to %.1f", g.Name, last, g.After)
			}
			last = g.After
		}
	}
}
