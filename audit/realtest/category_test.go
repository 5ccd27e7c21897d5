package realtest

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/probes"
)

// auditedIn is audited with the probes of some categories.
func auditedIn(t *testing.T, categories []audit.Category, url string, policy audit.Policy, knobs func(*audit.Target), want table) {
	t.Helper()
	list := slices.DeleteFunc(probes.All(), func(p audit.Probe) bool { return !slices.Contains(categories, p.Category) })
	var runs []table
	for _, run := range []string{"the first run", "the second run"} {
		target, err := audit.ParseTarget(url)
		if err != nil {
			t.Fatal(err)
		}
		knobs(target)
		report, err := audit.Run(t.Context(), target, list, audit.Config{Pace: 200, Policy: policy})
		if err != nil {
			t.Fatal(err)
		}
		compare(t, run, report, want)
		runs = append(runs, outcomes(report, audit.Inconclusive))
	}
	if diff := cmp.Diff(runs[0], runs[1]); diff != "" {
		t.Errorf("the two runs differ (-first +second):\n%s", diff)
	}
}
