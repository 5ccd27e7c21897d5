package health

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// runner runs one check, one run at a time. It has at most two goroutines: its own, and the one
// that the check is in.
type runner struct {
	check   Check
	timeout time.Duration
	log     *slog.Logger
	wall    func() time.Time

	begun   time.Time     // monotonic start of the newest run
	shown   time.Time     // its wall clock
	overdue <-chan Result // that run, when it was given up on and has not returned since
}

var errOverdue = errors.New("the check has not returned")

// attempt runs the check once and returns within the timeout, come what may.
func (r *runner) attempt(ctx context.Context) Result {
	if r.overdue != nil {
		select {
		case <-r.overdue: // a late answer speaks about the past: drop it and ask again
			r.overdue = nil
		default:
			return r.late()
		}
	}
	r.begun, r.shown = time.Now(), r.wall()
	running := r.start(ctx)
	limit := time.NewTimer(r.timeout)
	defer limit.Stop()
	select {
	case res := <-running:
		return res
	case <-limit.C:
		r.overdue = running
		return r.late()
	}
}

// start runs the check in a goroutine of its own. Its context ends a tenth before the limit, so
// that a check which obeys it can still say what it was waiting for.
func (r *runner) start(ctx context.Context) <-chan Result {
	ctx, cancel := context.WithTimeout(ctx, r.timeout-r.timeout/10)
	running := make(chan Result, 1)
	begun, shown := r.begun, r.shown
	go func() {
		defer cancel()
		r.check.once(ctx, r.log, func(res Result) {
			res.Time, res.Latency = shown, time.Since(begun)
			running <- res
		})
	}()
	return running
}

func (r *runner) late() Result {
	return Result{Reason: "timeout", Err: errOverdue, Time: r.shown, Latency: time.Since(r.begun)}
}
