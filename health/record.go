package health

import "time"

// kept is how many results of a check are remembered for the details.
const kept = 5

// rule is the hysteresis of readiness: how many failures in a row take a check out, and how many
// successes bring it back.
type rule struct{ failAfter, passAfter int }

// record is all that is remembered of one check. It is a value: next returns the one that follows.
type record struct {
	last   Result
	recent []Result      // newest first, at most kept; never changed once stored
	looked time.Duration // monotonic time, since the epoch, as of which last speaks
	since  time.Time     // wall clock at which last.Status came up
	streak int           // failures, or successes, in a row up to now
	seen   bool          // there is a result
	passed bool          // there was a success, ever
	in     bool          // counts as working for readiness
}

func (r record) next(res Result, looked time.Duration, rule rule) record {
	works := res.Status != Fail
	if !r.seen || works != (r.last.Status != Fail) {
		r.streak = 0
	}
	if !r.seen || res.Status != r.last.Status {
		r.since = res.Time
	}
	r.streak++
	switch {
	case works && (!r.passed || r.streak >= rule.passAfter):
		r.in, r.passed = true, true
	case !works && r.streak >= rule.failAfter:
		r.in = false
	}
	r.last, r.looked, r.seen = res, looked, true
	r.recent = append([]Result{res}, r.recent[:min(len(r.recent), kept-1)]...)
	return r
}
