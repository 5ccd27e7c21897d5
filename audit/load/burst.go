package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Burst is one volley: all requests are made ready, and then released at one moment.
type Burst struct {
	Requests int // 1 to 8192
	// Connections is how many are released together; each then sends its share one after the other.
	// Default: as many as there are requests.
	Connections int
	// Drain bounds the making ready, and then the wait for answers. Default 30 s.
	Drain time.Duration
}

// Arm makes request i ready, on a connection with all but its last byte sent, say, and returns what
// sends the rest and waits for the answer.
type Arm func(ctx context.Context, i int) (release func(context.Context) Answer, err error)

// Arm is the Arm of a request that needs nothing made ready.
func (do Do) Arm(_ context.Context, i int) (func(context.Context) Answer, error) {
	return func(ctx context.Context) Answer { return do(ctx, i) }, nil
}

// Validate names every fault of the plan at once.
func (b Burst) Validate() error {
	var faults []error
	if b.Requests < 1 || b.Requests > 8192 {
		faults = append(faults, fmt.Errorf("requests: %d is not between 1 and 8192", b.Requests))
	}
	if b.Connections < 0 {
		faults = append(faults, fmt.Errorf("connections: %d is below 0", b.Connections))
	}
	if b.Drain < 0 {
		faults = append(faults, fmt.Errorf("drain: %v is below 0", b.Drain))
	}
	return errors.Join(faults...)
}

// Run fires the volley. A request that could not be armed counts as one that failed. The Lag of the
// result is how far the first request of each connection was behind the release.
func (b Burst) Run(ctx context.Context, arm Arm) (Result, error) {
	if err := b.Validate(); err != nil {
		return Result{}, err
	}
	if b.Connections == 0 || b.Connections > b.Requests {
		b.Connections = b.Requests
	}
	if b.Drain == 0 {
		b.Drain = defaultDrain
	}
	arming, cancel := context.WithTimeout(ctx, b.Drain)
	defer cancel()
	var armed, fired sync.WaitGroup
	var e *engine
	gate := make(chan struct{})
	armed.Add(b.Connections)
	for c := range b.Connections {
		fired.Go(func() {
			release := ready(arming, c, arm)
			armed.Done()
			<-gate
			if ctx.Err() == nil {
				b.volley(e, c, release, arm)
			}
		})
	}
	armed.Wait()
	e = newEngine(ctx, time.Second, 1, 0)
	close(gate)
	timer := time.AfterFunc(b.Drain, func() { e.abandon(errDrained) })
	fired.Wait()
	timer.Stop()
	e.tally.endNow()
	e.end(errEnded)
	return e.finish(ctx, 0)
}

// volley sends the share of connection c, the first of which is ready.
func (b Burst) volley(e *engine, c int, release func(context.Context) Answer, arm Arm) {
	due := e.send(e.tally.began, false, release).End
	for i := c + b.Connections; i < b.Requests; i += b.Connections {
		due = e.send(due, false, ready(e.inFlight, i, arm)).End
	}
}

// ready arms one request; a fault comes out as its answer.
func ready(ctx context.Context, i int, arm Arm) func(context.Context) Answer {
	release, err := arm(ctx, i)
	if err != nil {
		return func(context.Context) Answer { return Answer{Err: err} }
	}
	return release
}
