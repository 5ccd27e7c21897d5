package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
)

// Status is an outcome. The zero value is Fail: what was never checked is not healthy.
type Status int

// The outcomes of draft-inadarei-api-health-check-06 section 3.1, worst first.
const (
	Fail Status = iota
	Warn
	Pass
)

// String returns "pass", "warn" or "fail".
func (s Status) String() string {
	switch s {
	case Pass:
		return "pass"
	case Warn:
		return "warn"
	default:
		return "fail"
	}
}

// Impact says what the failure of a check means to one endpoint.
type Impact int

const (
	// Absent checks are not part of the endpoint.
	Absent Impact = iota
	// Warns checks turn the endpoint's status to "warn", which is still 200.
	Warns
	// Fails checks turn it to "fail", which is 503.
	Fails
)

// Check is one thing to look at. The ready-made ones ([Database], [Cache], [Disk], [Keys],
// [Upstream]) are values too: change their fields as you like before [New].
type Check struct {
	// Name is the component: "database". Required, unique together with Measurement. Strangers
	// read it, so it names a role and never a host or a product.
	Name string
	// Measurement is what is observed of it: "responseTime", the default.
	Measurement string
	// Type is the kind of component, shown in details: "component" (the default), "datastore" or
	// "system".
	Type string
	// Health and Ready say what a failure means to /health and to /health/ready.
	Health, Ready Impact
	// Run looks once. It should return when ctx ends, which it does a little before
	// Config.Timeout; one that does not is given up on and reported as failed, and is not started
	// again before it has returned. A nil error is a pass; see [Fault] for saying more than "failed".
	Run func(ctx context.Context) (Observation, error)
}

func (c Check) key() string { return c.Name + ":" + c.Measurement }

// Observation is what a check measured, shown in details. The zero value stands for the time the
// check took.
type Observation struct {
	Value float64
	Unit  string // "B", "s", "percent"
}

// Fault is an error that says more than "failed".
type Fault struct {
	// Reason is a stable word for logs, metrics and details: "exhausted", "read-only", "no-space".
	Reason string
	// Err is the cause; operators see its text, strangers never do.
	Err error
	// Warning makes the result a warning at every endpoint: working, but not as it should.
	Warning bool
}

// Error returns the reason and the cause.
func (f *Fault) Error() string {
	if f.Err == nil {
		return f.Reason
	}
	return f.Reason + ": " + f.Err.Error()
}

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

// Result is what one run of a check came to.
type Result struct {
	Status   Status
	Time     time.Time     // wall clock when the run began
	Latency  time.Duration // how long it took, or has been running so far
	Reason   string        // "" for a pass; otherwise a stable word such as "timeout"
	Err      error         // the cause, for operators
	Observed Observation
}

// verdict judges what a check returned.
func verdict(seen Observation, err error) Result {
	res := Result{Observed: seen, Err: err}
	fault, ok := errors.AsType[*Fault](err)
	switch {
	case err == nil:
		res.Status = Pass
	case ok:
		res.Reason = fault.Reason
		if fault.Warning {
			res.Status = Warn
		}
	case errors.Is(err, context.DeadlineExceeded):
		res.Reason = "timeout"
	default:
		res.Reason = "error"
	}
	return res
}

// once runs the check in this goroutine. A check that panics, or ends its goroutine, has failed.
func (c Check) once(ctx context.Context, log *slog.Logger, deliver func(Result)) {
	res := Result{Reason: "panic", Err: errors.New("the check ended its goroutine")}
	defer func() {
		if v := recover(); v != nil {
			res.Err = fmt.Errorf("panic: %v", v)
			log.Error("health check panicked", slog.String("check", c.key()),
				slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		}
		deliver(res)
	}()
	res = verdict(c.Run(ctx))
}
