package realtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/probes"
)

// outcome is what a probe must find: "pass", or "fail" and the severity of the failure. A probe that is on no list must be
// inconclusive or not applicable, and say why.
type outcome string

const (
	passes       outcome = "pass"
	failsLow     outcome = "fail low"
	failsMedium  outcome = "fail medium"
	failsHigh    outcome = "fail high"
	failCritical outcome = "fail critical"
)

// table of what is true of a server, by probe.
type table map[string]outcome

// audited audits the server twice, holds each run to the table, and both to each other.
func audited(t *testing.T, url string, policy audit.Policy, knobs func(*audit.Target), want table) []audit.Report {
	t.Helper()
	first := once(t, url, policy, knobs)
	compare(t, "the first run", first, want)
	second := once(t, url, policy, knobs)
	compare(t, "the second run", second, want)
	if diff := cmp.Diff(outcomes(first, audit.Inconclusive), outcomes(second, audit.Inconclusive)); diff != "" {
		t.Errorf("the two runs differ (-first +second):\n%s", diff)
	}
	return []audit.Report{first, second}
}

func once(t *testing.T, url string, policy audit.Policy, knobs func(*audit.Target)) audit.Report {
	t.Helper()
	target, err := audit.ParseTarget(url)
	if err != nil {
		t.Fatal(err)
	}
	if knobs != nil {
		knobs(target)
	}
	report, err := audit.Run(t.Context(), target, probes.All(), audit.Config{Pace: 200, Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	if report.Incomplete != "" {
		t.Errorf("the run did not reach its end: %s", report.Incomplete)
	}
	return report
}

// outcomes of a report by probe, without those below least in the order of the outcomes.
func outcomes(r audit.Report, _ audit.Outcome) table {
	all := table{}
	for _, f := range r.Findings {
		all[f.Probe] = of(f)
	}
	return all
}

func of(f audit.Finding) outcome {
	if f.Outcome == audit.Fail {
		return outcome(fmt.Sprintf("fail %s", f.FailedAs))
	}
	return outcome(f.Outcome.String())
}

// compare names every probe that says something else than the table, with its message.
func compare(t *testing.T, run string, r audit.Report, want table) {
	t.Helper()
	for _, f := range r.Findings {
		got, listed := of(f), want[f.Probe]
		t.Logf("%s: %-7s %-13s %s", run, f.Probe, got, f.Message)
		switch {
		case listed != "" && got != listed:
			t.Errorf("%s: %s is %q, want %q: %s%s", run, f.Probe, got, listed, f.Message, shown(f))
		case listed == "" && f.Outcome != audit.Inconclusive && f.Outcome != audit.NotApplicable:
			t.Errorf("%s: %s is %q, and nothing was to be told: %s%s", run, f.Probe, got, f.Message, shown(f))
		case listed == "" && strings.TrimSpace(f.Message) == "":
			t.Errorf("%s: %s is %q without a reason", run, f.Probe, got)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(want)) {
		if _, asked := r.Find(id); !asked {
			t.Errorf("%s: no finding of %s", run, id)
		}
	}
}

// shown is the evidence of a finding in a few lines.
func shown(f audit.Finding) string {
	var b strings.Builder
	for _, e := range f.Evidence {
		fmt.Fprintf(&b, "\n\t%s %s (%s) → %d %s %.300q", e.Method, e.URL, e.Label, e.Status, e.Note, e.Body+e.Raw)
	}
	return b.String()
}
