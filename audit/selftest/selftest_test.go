package selftest

import (
	"testing"

	"github.com/gantryhq/gantry/audit/probes"
)

func TestEveryProbeTellsFaultyFromFixed(t *testing.T) {
	all := probes.All()
	cases := byProbe()
	for _, p := range all {
		t.Run(p.ID, func(t *testing.T) {
			if !cases[p.ID].Alone {
				t.Parallel()
			}
			r := one(t.Context(), all, p, cases[p.ID])
			t.Logf("%v; faulty: %s (%s), want fail; fixed: %s (%s), want pass",
				r.Err, r.Faulty.Outcome, r.Faulty.Message, r.Fixed.Outcome, r.Fixed.Message)
			if !r.Tells() {
				t.Fail()
			}
		})
	}
}
