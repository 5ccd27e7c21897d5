package rollout

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTermsMakeAPlan(t *testing.T) {
	for _, c := range []struct {
		terms Terms
		want  func(*Plan)
	}{
		{Terms{}, func(*Plan) {}},
		{Terms{Steps: "10,50,100"}, func(*Plan) {}},
		{Terms{Hold: "10m"}, func(p *Plan) { p.Steps[0].MinTime = 10 * time.Minute }},
		{Terms{Steps: "1 %, 25@1h, 100", Hold: "2m"}, func(p *Plan) {
			p.Steps = []Step{{100, 2 * time.Minute}, {2500, time.Hour}, {Weight: All}}
		}},
		{Terms{Steps: "100"}, func(p *Plan) { p.Steps = []Step{{Weight: All}} }},
		{Terms{MaxErrors: "1%", MaxSlow: "2.5 %@1.5s", OnInconclusive: "abort", Watch: "1m"}, func(p *Plan) {
			p.MaxErrors, p.MaxSlow, p.SlowAfter, p.OnInconclusive, p.Watch = 0.01, 0.025, 1500*time.Millisecond, GiveUp, time.Minute
		}},
	} {
		want := DefaultPlan()
		c.want(&want)
		got, err := c.terms.Plan()
		if diff := cmp.Diff(got, want); err != nil || diff != "" {
			t.Errorf("%+v: %v (-got +want):\n%s", c.terms, err, diff)
		}
	}
}

func TestBadTermsAreNamed(t *testing.T) {
	for _, c := range []struct {
		terms Terms
		term  string
	}{
		{Terms{Steps: "50,10,100"}, "plan"},
		{Terms{Steps: "10,10,100"}, "plan"},
		{Terms{Steps: "10,50"}, "plan"},
		{Terms{Steps: "10,x"}, "steps"},
		{Terms{Steps: "10,,100"}, "steps"},
		{Terms{Steps: "10@-5m,100"}, "steps"},
		{Terms{Steps: "10,101"}, "steps"},
		{Terms{Hold: "10"}, "steps"},
		{Terms{MaxErrors: "0"}, "max_errors"},
		{Terms{MaxErrors: "0.0%"}, "max_errors"},
		{Terms{MaxErrors: "NaN"}, "max_errors"},
		{Terms{MaxErrors: "101%"}, "max_errors"},
		{Terms{MaxSlow: "5%@"}, "max_slow"},
		{Terms{MaxSlow: "5%@0s"}, "max_slow"},
		{Terms{OnInconclusive: "hope"}, "plan"},
		{Terms{Watch: "-1m"}, "watch"},
	} {
		_, err := c.terms.Plan()
		if fault, ok := errors.AsType[*TermError](err); !ok || fault.Term != c.term {
			t.Errorf("%+v: %v, want a fault of %s", c.terms, err, c.term)
		}
	}
}
