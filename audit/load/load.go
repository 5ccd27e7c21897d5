// Package load puts a measured load on a server and says what it saw, and whether it may be believed.
//
// Begin with [Open]: requests leave at their intended times whatever the answers do.
//
//	client := load.NewClient(load.ClientConfig{Timeout: 10 * time.Second})
//	plan := load.Open{Rate: 20, Duration: 3 * time.Minute, Windows: 3}
//	result, err := plan.Run(ctx, client.Repeat(request))
//	if result.Bottleneck == "" { // the generator kept up, so the figures are the server's
//		low, high, ok := result.Median(0.99).Latency.QuantileCI(0.99, 0.95)
//	}
//
// [Closed] is a fixed crowd of clients, each waiting for its answer, and [Burst] is one volley.
//
// The surprise: latency runs from the moment a request was meant to leave, not from the moment it
// left, because a request that a stalled server kept from leaving has waited too (Gil Tene's
// "coordinated omission"). Service is the same without that correction; where the two differ, either
// the server stalled or the generator did, and Bottleneck tells which.
package load

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Do sends request i, counted from 0, and waits for the whole answer. Run calls it from many
// goroutines at once. It must return soon after ctx ends.
type Do func(ctx context.Context, i int) Answer

// Answer is what became of one request.
type Answer struct {
	Status int   // of HTTP; 0 when none arrived
	Bytes  int64 // of the body, as read
	Err    error // why there is no answer, or not a whole one
	Shed   bool  // refused on purpose and in order: 429, or 503 with Retry-After
	Resent bool  // the transport sent it twice, since the first connection was closed under it

	Start     time.Time // the first byte was about to leave; zero is the call of Do
	FirstByte time.Time // of the answer; zero is unknown
	End       time.Time // the last byte was read; zero is the return of Do
}

// Open is an open model: the world does not wait for the server.
type Open struct {
	Rate     float64       // requests per second, above 0
	Duration time.Duration // of the sending, above 0

	// Windows is how many equal parts of Duration are measured apart, 1 to 100. Default 1.
	Windows int
	// MaxInFlight bounds the requests that wait for an answer. Default: as many as leave in five
	// seconds, 64 to 8192. A run that reaches it is no longer open, and its Bottleneck says so.
	MaxInFlight int
	// Poisson draws the gaps between requests at random, as strangers make them, instead of
	// keeping them even. The same Seed draws the same gaps.
	Poisson bool
	Seed    uint64
	// StopAt ends the sending when more than this share of a Point's requests failed, given 50 of
	// them. 0 never stops.
	StopAt float64
	// Drain is how long answers are waited for after the sending. Default 30 s.
	Drain time.Duration
	Trust Trust
}

// Validate names every fault of the plan at once.
func (o Open) Validate() error {
	var faults []error
	if !(o.Rate > 0 && o.Rate*o.Duration.Seconds() <= maxRequests) {
		faults = append(faults, fmt.Errorf("rate: %v is not above 0 and at most %d requests in all", o.Rate, int(maxRequests)))
	}
	if o.MaxInFlight < 0 {
		faults = append(faults, fmt.Errorf("max in flight: %d is below 0", o.MaxInFlight))
	}
	faults = append(faults, validateSpan(o.Duration, o.Windows, o.StopAt, o.Drain))
	return errors.Join(faults...)
}

func (o Open) withDefaults() Open {
	if o.Windows == 0 {
		o.Windows = 1
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = int(min(max(5*o.Rate, 64), 8192))
	}
	if o.Drain == 0 {
		o.Drain = defaultDrain
	}
	return o
}

// Closed is a closed model: each of a fixed number of clients sends its next request when the last one
// is answered. It measures what a server can do at a given concurrency; since a slow server is
// asked less, its latencies flatter, and only an Open run may be judged by them.
type Closed struct {
	Clients  int           // 1 to 8192
	Duration time.Duration // of the sending, above 0
	Windows  int           // as Open's
	StopAt   float64       // as Open's
	Drain    time.Duration // as Open's
	Trust    Trust         // as Open's
}

// Validate names every fault of the plan at once.
func (c Closed) Validate() error {
	var faults []error
	if c.Clients < 1 || c.Clients > 8192 {
		faults = append(faults, fmt.Errorf("clients: %d is not between 1 and 8192", c.Clients))
	}
	faults = append(faults, validateSpan(c.Duration, c.Windows, c.StopAt, c.Drain))
	return errors.Join(faults...)
}

func (c Closed) withDefaults() Closed {
	if c.Windows == 0 {
		c.Windows = 1
	}
	if c.Drain == 0 {
		c.Drain = defaultDrain
	}
	return c
}

const (
	defaultDrain = 30 * time.Second
	maxRequests  = 1e8
)

func validateSpan(duration time.Duration, windows int, stopAt float64, drain time.Duration) error {
	var faults []error
	if duration <= 0 || duration > 24*time.Hour {
		faults = append(faults, fmt.Errorf("duration: %v is not above 0 and at most 24h", duration))
	}
	if windows < 0 || windows > 100 {
		faults = append(faults, fmt.Errorf("windows: %d is not between 0 and 100", windows))
	}
	if !(stopAt >= 0 && stopAt <= 1) {
		faults = append(faults, fmt.Errorf("stop at: %v is not a share between 0 and 1", stopAt))
	}
	if drain < 0 {
		faults = append(faults, fmt.Errorf("drain: %v is below 0", drain))
	}
	return errors.Join(faults...)
}
