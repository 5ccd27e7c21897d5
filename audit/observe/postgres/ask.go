package postgres

import (
	"context"
	"errors"

	"github.com/gantryhq/gantry/audit/observe"
)

// Pool sends requests and says whether they share connections: [PoolVerdict].
func (o *Observer) Pool(ctx context.Context, requests int, send func(context.Context) error) (observe.Verdict, error) {
	obs, err := o.during(ctx, o.BeginAtOnce, send)
	return PoolVerdict(obs, requests), err
}

// Growth sends the same number of requests for each size of a page and says whether statements grow with it: [Growth].
func (o *Observer) Growth(ctx context.Context, sizes []int, requests int, send func(ctx context.Context, size int) error) (observe.Verdict, error) {
	bySize := map[int]Observation{}
	for _, size := range sizes {
		obs, err := o.during(ctx, o.BeginAtOnce, func(ctx context.Context) error { return send(ctx, size) })
		if err != nil {
			return observe.Verdict{}, err
		}
		bySize[size] = obs
	}
	return Growth(bySize, requests), nil
}

// Indexes sends requests and says whether they read tables from end to end to find a few rows: [MissingIndexes]. It waits for
// the server's counters before and after, up to 12 s each.
func (o *Observer) Indexes(ctx context.Context, requests int, send func(context.Context) error) (observe.Verdict, error) {
	obs, err := o.during(ctx, o.Begin, send)
	return MissingIndexes(obs, requests), err
}

// Writes sends requests and says whether one ends in several transactions that wrote: [WriteCommitsPerRequest].
func (o *Observer) Writes(ctx context.Context, requests int, send func(context.Context) error) (observe.Verdict, error) {
	obs, err := o.during(ctx, o.BeginAtOnce, send)
	return WriteCommitsPerRequest(obs, requests), err
}

// Trouble says whether, while send ran, sessions were idle in a transaction or the server had to end a deadlock:
// [IdleTransactions], [DeadlockVerdict]. It waits for the server's counters before and after, up to 12 s each.
func (o *Observer) Trouble(ctx context.Context, send func(context.Context) error) (observe.Verdict, error) {
	obs, err := o.during(ctx, o.Begin, send)
	if v := DeadlockVerdict(obs); v.Outcome == observe.Fail {
		return v, err
	}
	return IdleTransactions(obs), err
}

// during ends the window whatever send does; the verdict on an observation that there is none of is Unknown.
func (o *Observer) during(ctx context.Context, begin func(context.Context) (*Window, error), send func(context.Context) error) (Observation, error) {
	w, err := begin(ctx)
	if err != nil {
		return Observation{}, err
	}
	sent := send(ctx)
	obs, err := w.End(ctx)
	return obs, errors.Join(sent, err)
}
