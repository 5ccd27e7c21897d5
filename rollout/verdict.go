package rollout

import (
	"fmt"
	"strconv"
)

// Evidence is how much is known of the candidate in this epoch.
type Evidence string

// From nothing to enough.
const (
	NoTraffic  Evidence = "no traffic" // fewer than Plan.MinRequests
	Consistent Evidence = "consistent" // no sign of trouble, and too few requests to be sure
	Doubtful   Evidence = "doubtful"   // above a limit, by what may still be chance
	Failing    Evidence = "failing"    // a test rejects it
	Proven     Evidence = "proven"     // the 95 % upper bounds of errors and slow answers are within the limits
)

// Verdict is what one look makes of the counts.
type Verdict struct {
	Evidence Evidence `json:"evidence"`
	// Needed is how many more requests without a failure would prove the limits; 0 if they are proven.
	Needed    int64      `json:"needed,omitempty"`
	Candidate Assessment `json:"candidate"`
	Stable    Assessment `json:"stable"`
	// The candidate against stable: errors and slow answers.
	Errors  Comparison `json:"errors"`
	Slow    Comparison `json:"slow"`
	Missing int        `json:"missing,omitempty"` // Observation.Missing
}

// Assessment is one version on its own.
type Assessment struct {
	Errors       Test   `json:"errors"`
	Slow         Test   `json:"slow"`
	Streak       Streak `json:"streak"`
	FailedProbes int    `json:"failed_probes,omitempty"`
}

// Test is the counts of one version against one limit.
type Test struct {
	Limit   float64 `json:"limit"`
	N       int64   `json:"n"`       // requests, without the failures that do not count
	Failed  int64   `json:"failed"`  // failures of all callers
	Counted int64   `json:"counted"` // of these, after the cap by caller
	Rest    int64   `json:"rest"`    // of these, without the caller that has the most
	Callers int     `json:"callers"` // callers that had a failure
	// P is the chance of Counted or more if the version were exactly at the limit.
	P        float64 `json:"p"`
	Rejected bool    `json:"rejected,omitempty"` // it is above the limit, beyond reasonable doubt
}

// Comparison is Fisher's exact test of the candidate against stable at the same time.
type Comparison struct {
	P     float64 `json:"p"`               // the chance of such a difference if there were none
	Worse bool    `json:"worse,omitempty"` // the candidate fails at least twice as often, and not by chance
}

// How sure is sure, besides Plan.Alpha.
const (
	// restAlpha is for what is left of the failures without the worst caller: with them alone one
	// broken client and one bad request of another would do.
	restAlpha = 0.01
	// stableAlpha is for stable to be suspected too. It is easily suspected, since a hold is undone
	// within minutes and a release blamed for a database is not.
	stableAlpha = 0.01
	// worseRatio is from when a difference that is not chance matters.
	worseRatio = 2
)

// look is the verdict on an observation, but for Needed.
func look(p Plan, o Observation) Verdict {
	v := Verdict{Candidate: assess(p, o.Candidate), Stable: assess(p, o.Stable), Missing: o.Missing}
	v.Errors = compare(p, v.Candidate.Errors, v.Stable.Errors)
	v.Slow = compare(p, v.Candidate.Slow, v.Stable.Slow)
	errors, slow := v.Candidate.Errors, v.Candidate.Slow
	switch {
	case errors.Rejected || slow.Rejected:
		v.Evidence = Failing
	case o.Candidate.Requests < p.MinRequests:
		v.Evidence = NoTraffic
	case errors.proven() && slow.proven():
		v.Evidence = Proven
	case min(errors.P, slow.P) < doubt:
		v.Evidence = Doubtful
	default:
		v.Evidence = Consistent
	}
	return v
}

func assess(p Plan, s Side) Assessment {
	callers := s.Callers.Len()
	return Assessment{
		Errors: test(p, s.Requests, s.Failed, callers, p.MaxErrors),
		Slow:   test(p, s.Requests, s.Slow, callers, p.MaxSlow),
		Streak: s.Streak, FailedProbes: s.FailedProbes,
	}
}

// test is one version against one limit. What a caller has beyond the cap is neither a failure nor a
// request. The cap is lifted when half of the callers have reached it: that is no broken client.
func test(p Plan, requests int64, failures Tally, callers int, limit float64) Test {
	t := Test{Limit: limit, Failed: failures.Sum(), Callers: len(failures)}
	requests = max(requests, t.Failed)
	// A fixed cap would blind the test to few callers with many requests each: their natural failures
	// use it up, and nothing that comes later counts.
	limited := max(p.CallerCap, int64(limit*float64(requests)/3))
	var worst, worstCapped int64
	atCap := 0
	for _, n := range failures {
		n = max(n, 0)
		t.Counted += min(n, limited)
		worst, worstCapped = max(worst, n), max(worstCapped, min(n, limited))
		if n >= limited {
			atCap++
		}
	}
	t.Rest = t.Counted - worstCapped
	if p.MinCallers == 1 || atCap >= p.MinCallers && 2*atCap >= callers {
		t.Counted, t.Rest = t.Failed, t.Failed-worst
	}
	t.N = requests - (t.Failed - t.Counted)
	t.P = atLeast(t.N, t.Counted, limit)
	t.Rejected = t.N >= p.MinRequests && t.Callers >= p.MinCallers && t.P < p.Alpha &&
		(p.MinCallers == 1 || atLeast(t.N, t.Rest, limit) < restAlpha)
	return t
}

func (t Test) proven() bool {
	return t.Limit >= 1 || t.N > 0 && atMost(t.N, t.Counted, t.Limit) <= doubt
}

// Rate is the share of failures that count; 0 without requests.
func (t Test) Rate() float64 { return float64(t.Counted) / max(float64(t.N), 1) }

// Upper is the 95 % upper bound of the rate (Clopper and Pearson 1934); 1 without requests.
func (t Test) Upper() float64 { return upperBound(t.N, t.Counted) }

// String is "7 of 150 failed (4.67 %), limit 1 %, p = 0.00093".
func (t Test) String() string {
	return fmt.Sprintf("%d of %d (%s), limit %s, p = %.2g", t.Counted, t.N, percent(t.Rate()), percent(t.Limit), t.P)
}

func percent(share float64) string { return strconv.FormatFloat(100*share, 'g', 3, 64) + " %" }

func compare(p Plan, candidate, stable Test) Comparison {
	c := Comparison{P: fisher(candidate.Counted, candidate.N, stable.Counted, stable.N)}
	c.Worse = c.P < p.Alpha && candidate.Callers >= p.MinCallers && candidate.Rate() >= worseRatio*stable.Rate() &&
		(p.MinCallers == 1 || fisher(candidate.Rest, candidate.N, stable.Counted, stable.N) < restAlpha)
	return c
}

// troubled is whether stable does badly in errors, for the candidate to be excused for them.
func (a Assessment) troubled(p Plan) bool {
	return a.Errors.suspect(p) || a.Streak.Failures >= p.MaxStreak/2+1 || a.unreachable()
}

func (a Assessment) unreachable() bool { return a.Streak.Unreachable >= 2 || a.FailedProbes > 0 }

func (t Test) suspect(p Plan) bool { return t.N >= p.MinRequests && t.P < stableAlpha }

// gone is whether there is nothing to go back to.
func (a Assessment) gone(p Plan) bool {
	return a.FailedProbes >= p.MaxProbes || a.Streak.Unreachable >= p.MaxStreak
}

// answers is whether its requests are well, whatever its probes.
func (a Assessment) answers(p Plan) bool {
	return a.Errors.N >= p.MinRequests && !a.Errors.suspect(p) && a.Streak.Unreachable == 0 && a.Streak.Failures < p.MaxStreak
}

// fault is a reason to go back.
type fault struct {
	reason string
	trip   bool // it needs no test
	shared bool // stable has it as well
}

// faults are those of the candidate, each compared with the same of stable: one that is slow does not
// excuse one that is down.
func (v Verdict) faults(p Plan) []fault {
	c, s := v.Candidate, v.Stable
	var all []fault
	if n := c.Streak.Unreachable; n >= p.MaxStreak {
		all = append(all, fault{fmt.Sprintf("%d attempts in a row did not reach it", n), true, s.unreachable()})
	}
	if n := c.FailedProbes; n >= p.MaxProbes {
		all = append(all, fault{fmt.Sprintf("%d health probes in a row failed", n), true, s.FailedProbes > 0})
	}
	sharedErrors := s.troubled(p) && !v.Errors.Worse
	if n := c.Streak.Failures; n >= p.MaxStreak {
		all = append(all, fault{fmt.Sprintf("%d requests in a row failed", n), true, sharedErrors})
	}
	if c.Errors.Rejected {
		all = append(all, fault{"errors: " + c.Errors.String(), false, sharedErrors})
	}
	if c.Slow.Rejected {
		all = append(all, fault{"slow: " + c.Slow.String(), false, s.Slow.suspect(p) && !v.Slow.Worse})
	}
	return all
}

// Tripped is whether the candidate is so plainly down that an instance goes back to stable by itself,
// on its own counts, also when it is cut off from the others and no judge answers.
func (p Plan) Tripped(o Observation) (reason string, tripped bool) {
	v := look(p, o)
	if v.Stable.gone(p) {
		return "", false
	}
	for _, f := range v.faults(p) {
		if f.trip && !f.shared {
			return f.reason, true
		}
	}
	return "", false
}
