package rollout

import (
	"errors"
	"fmt"
	"time"
)

// Plan is how a launch goes: its steps, what it tolerates, and what it does when nothing is known. The
// zero value of a field is its default; durations are nanoseconds in JSON.
type Plan struct {
	// Steps rise to 100 %. Default: 10 % for 5 minutes, 50 % for 10 minutes, 100 %.
	Steps []Step `json:"steps"`
	// MaxErrors is the share of requests that may fail, MaxSlow the share that may take longer than
	// SlowAfter to the first byte of the answer. Defaults: 0.001, 0.05 and 500 ms, which is "p95 at most
	// 500 ms". 1 switches a limit off.
	MaxErrors float64       `json:"max_errors"`
	MaxSlow   float64       `json:"max_slow"`
	SlowAfter time.Duration `json:"slow_after"`
	// Alpha is the chance that one look rejects a candidate that is exactly at its limit. Default 0.001.
	Alpha float64 `json:"alpha"`
	// MinRequests to the candidate are seen before a test may reject it (20), and its failures must come
	// from MinCallers callers (2).
	MinRequests int64 `json:"min_requests"`
	MinCallers  int   `json:"min_callers"`
	// CallerCap is how many failures of one caller count in a step (3), until a third of what the limit
	// allows is more.
	CallerCap int64 `json:"caller_cap"`
	// MaxStreak is how many failures in a row, and MaxProbes how many failed health probes in a row, end
	// a launch without any test (5 and 3).
	MaxStreak int `json:"max_streak"`
	MaxProbes int `json:"max_probes"`
	// OnInconclusive is what happens when a step took three times its minimum time and nothing is
	// proven. Default: wait.
	OnInconclusive Policy `json:"on_inconclusive"`
	// Watch is how long the candidate is judged, and stable kept warm, after 100 % (15 minutes).
	Watch time.Duration `json:"watch"`
}

// Step is one weight of a plan.
type Step struct {
	Weight BasisPoints `json:"weight"`
	// MinTime is the least time at this weight; at the last step it is Plan.Watch.
	MinTime time.Duration `json:"min_time"`
}

// Policy is what a launch does when the evidence does not come.
type Policy string

// Wait leaves the weight where it is until there is evidence or a word from an operator.
// PromoteIfConsistent goes on if there was traffic and no sign of trouble. GiveUp goes back to stable.
const (
	Wait                Policy = "pause"
	PromoteIfConsistent Policy = "promote-if-consistent"
	GiveUp              Policy = "abort"
)

// DefaultPlan is the zero Plan with its defaults.
func DefaultPlan() Plan { return Plan{}.withDefaults() }

func (p Plan) withDefaults() Plan {
	fill(&p.MaxErrors, 0.001)
	fill(&p.MaxSlow, 0.05)
	fill(&p.SlowAfter, 500*time.Millisecond)
	fill(&p.Alpha, 0.001)
	fill(&p.MinRequests, 20)
	fill(&p.MinCallers, 2)
	fill(&p.CallerCap, 3)
	fill(&p.MaxStreak, 5)
	fill(&p.MaxProbes, 3)
	fill(&p.OnInconclusive, Wait)
	fill(&p.Watch, 15*time.Minute)
	if len(p.Steps) == 0 {
		p.Steps = []Step{{1000, 5 * time.Minute}, {5000, 10 * time.Minute}, {Weight: All}}
	}
	return p
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// A plan beyond these is a slip of the pen.
const (
	maxSteps = 100
	maxTime  = 30 * 24 * time.Hour
	minLimit = 1e-6 // three million clean requests prove it
)

// Validate returns every fault at once, each with the name of its field.
func (p Plan) Validate() error {
	p = p.withDefaults()
	var faults []error
	require := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	require(len(p.Steps) <= maxSteps, "steps: %d are more than %d", len(p.Steps), maxSteps)
	last := BasisPoints(0)
	for i, s := range p.Steps {
		require(s.Weight > last, "steps[%d]: %v is not above the %v before it", i, s.Weight, last)
		require(s.Weight <= All, "steps[%d]: %v is above 100 %%", i, s.Weight)
		require(s.MinTime >= 0 && s.MinTime <= maxTime, "steps[%d].min_time: %v is not from 0 to %v", i, s.MinTime, maxTime)
		last = s.Weight
	}
	require(last == All, "steps: the last is %v, it must be 100 %%", last)
	require(p.MaxErrors >= minLimit && p.MaxErrors <= 1, "max_errors: %v is not from %v to 1", p.MaxErrors, minLimit)
	require(p.MaxSlow >= minLimit && p.MaxSlow <= 1, "max_slow: %v is not from %v to 1", p.MaxSlow, minLimit)
	require(p.SlowAfter > 0, "slow_after: %v is not above 0", p.SlowAfter)
	require(p.Alpha >= 1e-9 && p.Alpha <= 0.05, "alpha: %v is not from 1e-9 to 0.05", p.Alpha)
	require(p.MinRequests > 0, "min_requests: %d is not above 0", p.MinRequests)
	require(p.MinCallers > 0, "min_callers: %d is not above 0", p.MinCallers)
	require(p.CallerCap > 0, "caller_cap: %d is not above 0", p.CallerCap)
	require(p.MaxStreak > 1, "max_streak: %d is not above 1", p.MaxStreak)
	require(p.MaxProbes > 0, "max_probes: %d is not above 0", p.MaxProbes)
	require(p.Watch >= 0 && p.Watch <= maxTime, "watch: %v is not from 0 to %v", p.Watch, maxTime)
	switch p.OnInconclusive {
	case Wait, PromoteIfConsistent, GiveUp:
	default:
		require(false, "on_inconclusive: %q is not pause, promote-if-consistent or abort", p.OnInconclusive)
	}
	return errors.Join(faults...)
}
