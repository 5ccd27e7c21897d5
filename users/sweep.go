package users

import (
	"context"
	"time"
)

// sweepPage bounds what one statement removes, so that it does not hold up writers.
const sweepPage = 1000

// sweepEvery is the time between two sweeps.
const sweepEvery = 10 * time.Minute

// Sweep removes the idempotency keys, message ids and revocations that have expired, and returns how
// many there were.
func (s *Service) Sweep(ctx context.Context) (total int, err error) {
	for {
		n, err := s.store.Sweep(ctx, s.time(), sweepPage)
		total += n
		if err != nil || n == 0 {
			return total, err
		}
	}
}

// Run sweeps now and every ten minutes until ctx ends, and then returns nil. Several instances may do
// so beside one another. What fails is logged, and tried again the next time.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if _, err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Warn("sweeping what has expired", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
