package health

import (
	"math"
	"time"
)

// Report is the state of one endpoint.
type Report struct {
	// Status is the worst of the findings; a process that is starting or draining is not ready.
	Status Status
	// Phase is "starting" or "draining" when that is why the process is not ready, else "".
	Phase string
	// Findings are in the order of Config.Checks.
	Findings []Finding
}

// Finding is what one check means to an endpoint.
type Finding struct {
	Name, Measurement, Type string
	// Status is the check's contribution: a failed cache is only Warn to readiness.
	Status Status
	// Stale says that the newest result is too old to count.
	Stale bool
	// Since is when the newest result's status came up; zero before the first result.
	Since time.Time
	// Streak is how many failures, or successes, there have been in a row.
	Streak int
	// Last is the newest result, Recent the last five, newest first.
	Last   Result
	Recent []Result
}

// endpoint is what tells /health from /health/ready: which checks it shows, how long their results
// are good for, and what a result means.
type endpoint struct {
	impact func(Check) Impact
	maxAge time.Duration
	steady bool // hysteresis applies
}

const forever = time.Duration(math.MaxInt64)

// judge folds the records into a report as of now, and says until when that report holds if
// nothing new is learnt.
func (e endpoint) judge(checks []Check, records []record, now time.Duration) (Report, time.Duration) {
	report, until := Report{Status: Pass}, forever
	for i, c := range checks {
		impact := e.impact(c)
		if impact == Absent {
			continue
		}
		f := e.find(c, records[i], impact, now)
		report.Status = min(report.Status, f.Status)
		report.Findings = append(report.Findings, f)
		if records[i].seen && !f.Stale {
			until = min(until, records[i].looked+e.maxAge)
		}
	}
	return report, until
}

func (e endpoint) find(c Check, r record, impact Impact, now time.Duration) Finding {
	f := Finding{
		Name: c.Name, Measurement: c.Measurement, Type: c.Type,
		Since: r.since, Streak: r.streak, Last: r.last, Recent: r.recent,
		Stale: r.seen && now-r.looked > e.maxAge,
	}
	f.Status = f.Last.Status
	if e.steady && impact == Fails {
		f.Status = steady(r)
	}
	if f.Stale {
		f.Status = Fail
	}
	if impact == Warns {
		f.Status = max(f.Status, Warn)
	}
	return f
}

// steady is a record's status under hysteresis: the first failures only warn, and the first success
// after an outage is not enough.
func steady(r record) Status {
	switch {
	case !r.in:
		return Fail
	case r.last.Status == Pass:
		return Pass
	default:
		return Warn
	}
}
