package probes

import (
	"slices"
	"strings"
	"testing"

	"github.com/gantryhq/gantry/audit"
)

// modelled makes findings of the whole catalogue: everything passes but what is named.
func modelled(named map[audit.Outcome]string) []audit.Finding {
	var list []audit.Finding
	for _, p := range All() {
		f := audit.Finding{Probe: p.ID, Root: p.RootName(), Category: p.Category, Severity: p.Severity, Mode: p.Mode, Outcome: audit.Pass}
		for o, ids := range named {
			if slices.Contains(strings.Fields(ids), p.ID) {
				set(&f, o)
			}
		}
		list = append(list, f)
	}
	return list
}

func set(f *audit.Finding, o audit.Outcome) {
	f.Outcome, f.FailedAs = o, 0
	if o == audit.Fail {
		f.FailedAs = f.Severity
	}
}

// except names every probe that is not in ids.
func except(ids string) string {
	var list []string
	for _, p := range All() {
		if !slices.Contains(strings.Fields(ids), p.ID) {
			list = append(list, p.ID)
		}
	}
	return strings.Join(list, " ")
}

func ofMode(modes ...audit.Mode) string {
	var list []string
	for _, p := range All() {
		if slices.Contains(modes, p.Mode) {
			list = append(list, p.ID)
		}
	}
	return strings.Join(list, " ")
}

func wholeCatalogue() string { return except("") }

// TestWorkedExamplesGiveTheirNumbers holds gantry-score/1 to the table of its definition. The outcomes are modelled, not
// measured: what is fixed by the table is the number of critical and high roots that fail.
func TestWorkedExamplesGiveTheirNumbers(t *testing.T) {
	const (
		fail = audit.Fail
		open = audit.Inconclusive
	)
	for _, c := range []struct {
		name                         string
		given                        map[audit.Outcome]string
		base, limit, score, could    float64
		proof                        int
		label                        audit.Label
		criticalRoots, highRootsFail int
	}{
		{
			"A: the document's backend before", map[audit.Outcome]string{
				fail: "JWT-01 JWT-02 JWT-03 JWT-07 JWT-14 JWT-17 JWT-18 JWT-06 CFG-03 CFG-01 CFG-05 LIM-01 LIM-03 LIM-06 LIM-07 " +
					"DAT-01 DAT-02 DAT-03 DAT-04 DAT-05 DAT-06 DAT-07 DAT-08 RL-01 RL-02 RL-03 RL-04 RL-05 HLT-02 HLT-03 HLT-04 HLT-05 " +
					"JWT-19 JWT-20 JWT-29 VAL-01 VAL-02 VAL-05 ERR-01 ERR-02 ERR-03 TRN-04 OBS-01 OBS-02 OBS-03 OBS-04 PERF-01 PERF-02",
				open: "PERF-03 PERF-04 LCH-01 LCH-02 LCH-03 LCH-04 LCH-05",
			}, 3.1, 3.0, 3.0, 3.0, 95, audit.DoNotLaunch, 13, 22,
		},
		{
			"B: all criticals fixed, the document's P1 list failing", map[audit.Outcome]string{
				fail: "VAL-01 VAL-02 VAL-05 ERR-03 DAT-06 DAT-07 DAT-08 TRN-04 PERF-01 PERF-02 PERF-03", open: "PERF-04 OBS-02 RL-03",
			}, 8.6, 7.0, 7.0, 7.0, 99, audit.ControlledLaunch, 0, 10,
		},
		{
			"C: criticals fixed, 20 high roots fail, no observability, no launch proof", map[audit.Outcome]string{
				fail: "LIM-06 LIM-02 DAT-02 DAT-06 DAT-07 RL-02 RL-04 RL-05 HLT-04 HLT-05 VAL-01 VAL-02 VAL-05 ERR-01 ERR-03 TRN-04 " +
					"OBS-01 OBS-02 OBS-03 OBS-04 PERF-01 PERF-02 PERF-04",
				open: "LCH-02 LCH-03 LCH-04 LCH-05",
			}, 6.8, 7.0, 6.8, 7.0, 97, audit.DoNotLaunch, 0, 20,
		},
		{"D: perfect but for alg none", map[audit.Outcome]string{fail: "JWT-03"}, 9.8, 4.9, 4.9, 4.9, 100, audit.DoNotLaunch, 1, 0},
		{
			"E: perfect, no fault hook",
			map[audit.Outcome]string{open: "HLT-03 " + ofMode(audit.Fault)},
			8.9, 6.9, 6.9, 10, 92, audit.NotProven, 0, 0,
		},
		{"F: perfect but for one high", map[audit.Outcome]string{fail: "LIM-04"}, 9.8, 8.4, 8.4, 8.4, 100, audit.ControlledLaunch, 0, 1},
		{"G: only low and medium fail", map[audit.Outcome]string{fail: "JWT-26 JWT-20 OBS-01"}, 9.9, 10, 9.9, 9.9, 100, audit.Ready, 0, 0},
		{
			"H: a good service, the URL only",
			map[audit.Outcome]string{open: except("CFG-01 CFG-02 CFG-03 CFG-04 CFG-05 CFG-06 LIM-02 " +
				"LIM-04 LIM-05 TRN-01 TRN-02 TRN-03 TRN-05 TRN-06 VAL-01 ERR-01 ERR-02 ERR-03 OBS-01 JWT-28")},
			2.4, 6.9, 2.4, 10, 19, audit.NotProven, 0, 0,
		},
		{
			"I: a good service, safe mode, every knob",
			map[audit.Outcome]string{open: ofMode(audit.Active, audit.Load, audit.Fault)},
			6.6, 6.9, 6.6, 10, 76, audit.NotProven, 0, 0,
		},
		{"J: everything fails", map[audit.Outcome]string{fail: wholeCatalogue()}, 0, 3.0, 0, 0, 100, audit.DoNotLaunch, 24, 37},
		{"J: everything inconclusive", map[audit.Outcome]string{open: wholeCatalogue()}, 0, 6.9, 0, 10, 0, audit.NotProven, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := audit.Rate(modelled(c.given))
			if tenth(s.Base) != c.base || s.Cap != c.limit || s.Value != c.score || s.CouldBe != c.could {
				t.Errorf("base %.2f cap %.1f score %.1f could be %.1f, want %.1f %.1f %.1f %.1f",
					s.Base, s.Cap, s.Value, s.CouldBe, c.base, c.limit, c.score, c.could)
			}
			if got := int(100*s.Proof + 0.5); got != c.proof {
				t.Errorf("proof %d %%, want %d %%", got, c.proof)
			}
			if s.Label != c.label {
				t.Errorf("label %s, want %s", s.Label, c.label)
			}
			if s.RangeOnly != (c.proof < 50) {
				t.Errorf("range only = %v with proof %d %%", s.RangeOnly, c.proof)
			}
			if critical, high := failedRoots(modelled(c.given)); critical != c.criticalRoots || high != c.highRootsFail {
				t.Errorf("the example has %d critical and %d high failed roots, want %d and %d", critical, high, c.criticalRoots, c.highRootsFail)
			}
		})
	}
}

func tenth(v float64) float64 { return float64(int(v*10+1e-9)) / 10 }

func failedRoots(list []audit.Finding) (critical, high int) {
	worst := map[string]audit.Severity{}
	for _, f := range list {
		worst[f.Root] = max(worst[f.Root], f.FailedAs)
	}
	for _, s := range worst {
		switch s {
		case audit.Critical:
			critical++
		case audit.High:
			high++
		}
	}
	return critical, high
}
