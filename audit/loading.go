package audit

import (
	"context"
	"fmt"
	"math"
	"net/http"

	"github.com/gantryhq/gantry/audit/load"
)

// OpenLoad sends r at the plan's rate, whatever the answers do, and notes each answer in the timeline of the data path.
// look, when it is not nil, sees the start of every answer's body; many call it at once. When r carries the valid token and
// the run can mint, the load comes from as many users as keep each under the limit that a user should meet.
func (s *Session) OpenLoad(ctx context.Context, plan load.Open, r Request, look func(status int, start []byte)) (load.Result, error) {
	do, done, err := s.loader(ctx, r, plan.Rate, int(plan.Rate*plan.Duration.Seconds()), look)
	if err != nil {
		return load.Result{}, err
	}
	defer done()
	plan.Trust = s.cfg.Trust
	return plan.Run(ctx, do)
}

// crowdRate is the rate for which a crowd's users are minted, in requests per second: how fast it gets is not known before.
const crowdRate = 500

// Crowd sends r from a fixed number of clients, each waiting for its answer; else it is as OpenLoad.
func (s *Session) Crowd(ctx context.Context, plan load.Closed, r Request, look func(status int, start []byte)) (load.Result, error) {
	do, done, err := s.loader(ctx, r, crowdRate, 0, look)
	if err != nil {
		return load.Result{}, err
	}
	defer done()
	plan.Trust = s.cfg.Trust
	return plan.Run(ctx, do)
}

// loader makes the sender of a load. It counts against the load budget: what is expected before the start, when that is
// known, and each request as it leaves.
func (s *Session) loader(ctx context.Context, r Request, rate float64, expected int, look func(int, []byte)) (load.Do, func(), error) {
	if left := int64(s.cfg.Budget.Load) - s.wire.load.Load(); int64(expected) > left {
		return nil, nil, fmt.Errorf("%w: %d requests of load are left, and %d are wanted", ErrBudget, left, expected)
	}
	requests, err := s.loadRequests(ctx, r, rate)
	if err != nil {
		return nil, nil, err
	}
	set(&r.Timeout, defaultTimeout)
	config := load.ClientConfig{Timeout: r.Timeout, TLS: s.wire.tls.Clone()}
	if look != nil {
		config.Look = func(res *http.Response, start []byte) { look(res.StatusCode, start) }
	}
	client := load.NewClient(config)
	do := func(ctx context.Context, i int) load.Answer {
		if s.wire.load.Add(1) > int64(s.cfg.Budget.Load) {
			return load.Answer{Err: ErrBudget}
		}
		a := client.Send(ctx, requests[i%len(requests)])
		if a.Status == http.StatusTooManyRequests {
			s.wire.limited.Store(true)
		}
		if ctx.Err() == nil {
			s.Sampled(false, Sample{At: a.Start, Status: a.Status, Took: a.End.Sub(a.Start)})
		}
		return a
	}
	return do, client.Close, nil
}

// maxCallers bounds the users of one load.
const maxCallers = 2000

// loadRequests is r, once for each user that the load comes from.
func (s *Session) loadRequests(ctx context.Context, r Request, rate float64) ([]*http.Request, error) {
	tokens := []string{r.Token}
	if r.Token != "" && r.Token == s.target.Token {
		minted, err := s.callers(ctx, rate)
		if err != nil {
			return nil, err
		}
		tokens = append(minted, tokens[len(tokens)-1:]...)
	}
	var list []*http.Request
	for _, token := range tokens {
		r.Token = token
		request, err := s.wire.build(ctx, s.wire.begin(s.probe.ID, r))
		if err != nil {
			return nil, err
		}
		list = append(list, request)
	}
	return list, nil
}

// callers mints tokens of users who together may send rate requests a second at half of what each is allowed; none when
// the run cannot mint, or the target does not accept a user that it has not seen.
func (s *Session) callers(ctx context.Context, rate float64) ([]string, error) {
	signer, err := s.Signer()
	if err != nil {
		return nil, nil
	}
	allowed := float64(s.cfg.Policy.RateLimit) / s.cfg.Policy.RateWindow.Seconds() / 2
	n := min(maxCallers, int(math.Ceil(rate/allowed)))
	var list []string
	for i := range n {
		token, err := signer.Mint(s.cfg.Now(), nil, map[string]any{"sub": fmt.Sprintf("user_gantry_load_%d", i), "exp": s.cfg.Now().Unix() + 3600})
		if err != nil {
			return nil, err
		}
		list = append(list, token)
	}
	x, err := s.Do(ctx, Request{Path: s.Calibration().Path, Token: list[0], Label: "a minted user"})
	if err != nil || !s.Accepted(x) {
		return nil, err
	}
	return list, nil
}
