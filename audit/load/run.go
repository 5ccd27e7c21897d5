package load

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errEnded         = errors.New("the sending has ended")
	errTooManyFailed = errors.New("too many requests failed")
	errDrained       = errors.New("the answer was not there when the run ended")
)

// grace is how long after its end a run still sends what should have left before.
const grace = time.Second

// engine is what every kind of run has: a tally, and two lives, of the sending and of what is in
// flight. It keeps their contexts because it is no longer lived than the call they came with.
type engine struct {
	tally    *tally
	sending  context.Context // ends when no more may leave
	inFlight context.Context // ends when no more answers are waited for
	end      context.CancelCauseFunc
	abandon  context.CancelCauseFunc
	trust    Trust
	workers  sync.WaitGroup
}

// newEngine starts the clock of a run.
func newEngine(ctx context.Context, duration time.Duration, windows int, stopAt float64) *engine {
	e := new(engine)
	e.inFlight, e.abandon = context.WithCancelCause(ctx)
	e.sending, e.end = context.WithCancelCause(e.inFlight)
	e.tally = newTally(duration, windows, stopAt, e.end)
	return e
}

// finish waits for the end of the sending, then for what is in flight, and sums up.
func (e *engine) finish(ctx context.Context, drain time.Duration) (Result, error) {
	<-e.sending.Done()
	ended := time.Now()
	e.tally.markEnd()
	timer := time.AfterFunc(drain, func() { e.abandon(errDrained) })
	e.workers.Wait()
	timer.Stop()
	e.abandon(nil)
	stopped := ""
	if cause := context.Cause(e.sending); cause != errEnded {
		stopped = cause.Error()
	}
	return e.tally.finish(ended, stopped, e.trust), ctx.Err()
}

// send makes one request and counts it; full says that it took the last place in flight.
func (e *engine) send(intended time.Time, full bool, do func(context.Context) Answer) Answer {
	e.tally.leave(intended, full)
	called := time.Now()
	a := do(e.inFlight)
	if a.Start.IsZero() {
		a.Start = called
	}
	if a.End.IsZero() {
		a.End = time.Now()
	}
	e.tally.arrive(intended, a, e.kind(a.Err))
	return a
}

// kind sorts an error. What failed after the end was ended by it, whatever the error is: net/http
// hands on the cause that a context was cancelled with.
func (e *engine) kind(err error) Kind {
	switch {
	case err == nil:
		return None
	case context.Cause(e.inFlight) == errDrained:
		return Timeout
	case e.inFlight.Err() != nil:
		return Cancelled
	}
	return KindOf(err)
}

// Run puts the load on, waits for the answers and sums up. When ctx ends early the result has what
// there was until then, and the error is ctx's.
func (o Open) Run(ctx context.Context, do Do) (Result, error) {
	o = o.withDefaults()
	if err := o.Validate(); err != nil {
		return Result{}, err
	}
	e := newEngine(ctx, o.Duration, o.Windows, o.StopAt)
	e.trust = o.Trust
	alarm := newAlarm(e.sending)
	defer alarm.close()
	r := &openRun{engine: e, do: do, schedule: newSchedule(o), alarm: alarm, most: o.MaxInFlight, baton: make(chan struct{}, 1)}
	r.baton <- struct{}{}
	r.hire()
	return e.finish(ctx, o.Drain)
}

// openRun sends by turns. Whoever holds the baton waits for the next intended time, hands the baton
// on and sends: nobody has to be woken between the time and the sending, which would cost more than
// a fast server takes to answer.
type openRun struct {
	*engine
	do       Do
	schedule *schedule
	alarm    *alarm
	most     int
	baton    chan struct{}
	idle     atomic.Int64 // workers that wait for the baton

	hired int // only the holder of the baton counts
}

func (r *openRun) hire() {
	r.hired++
	r.workers.Go(func() {
		for r.turn() {
		}
	})
}

// turn waits for the baton, sends one request, and is false when the sending has ended.
func (r *openRun) turn() bool {
	r.idle.Add(1)
	select {
	case <-r.baton:
	case <-r.sending.Done():
		return false
	}
	r.idle.Add(-1)
	i, intended, ok := r.next()
	if !ok {
		return false
	}
	alone := r.idle.Load() == 0
	full := alone && r.hired == r.most
	if alone && !full {
		r.hire()
	}
	r.baton <- struct{}{}
	r.send(intended, full, func(ctx context.Context) Answer { return r.do(ctx, i) })
	return true
}

// next waits until the next request should leave. When there is none left it ends the sending.
func (r *openRun) next() (i int, intended time.Time, ok bool) {
	i, offset, ok := r.schedule.next()
	late := time.Since(r.tally.began) > r.tally.duration+grace
	switch {
	case !ok:
		// The run lasts as long as was asked for, though its last request leaves sooner.
		r.alarm.until(r.sending, r.tally.began.Add(r.tally.duration))
		r.end(errEnded)
		return 0, intended, false
	case late:
		for ; ok; _, offset, ok = r.schedule.next() {
			r.tally.unsent(offset)
		}
		r.end(errEnded)
		return 0, intended, false
	}
	intended = r.tally.began.Add(offset)
	return i, intended, r.alarm.until(r.sending, intended)
}

// Run puts the load on, waits for the answers and sums up. When ctx ends early the result has what
// there was until then, and the error is ctx's.
func (c Closed) Run(ctx context.Context, do Do) (Result, error) {
	c = c.withDefaults()
	if err := c.Validate(); err != nil {
		return Result{}, err
	}
	e := newEngine(ctx, c.Duration, c.Windows, c.StopAt)
	e.trust = c.Trust
	timer := time.AfterFunc(c.Duration, func() { e.end(errEnded) })
	defer timer.Stop()
	var next atomic.Int64
	for range c.Clients {
		e.workers.Go(func() {
			// A client's next request is due when its last answer is there.
			for due := e.tally.began; e.sending.Err() == nil; {
				i := int(next.Add(1) - 1)
				due = e.send(due, false, func(ctx context.Context) Answer { return do(ctx, i) }).End
			}
		})
	}
	return e.finish(ctx, c.Drain)
}
