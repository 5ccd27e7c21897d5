package valkey

import (
	"context"
	"errors"

	"github.com/gantryhq/gantry/audit/observe"
)

// Hits sends the same read again and again and says whether it is answered from here: [HitRatioVerdict].
func (o *Observer) Hits(ctx context.Context, requests int, send func(context.Context) error) (observe.Verdict, error) {
	obs, err := o.during(ctx, send)
	return HitRatioVerdict(obs, requests), err
}

// Commands sends requests and says whether they make too many round trips, or stop the server: [CommandsVerdict].
func (o *Observer) Commands(ctx context.Context, requests int, send func(context.Context) error) (observe.Verdict, error) {
	obs, err := o.during(ctx, send)
	return CommandsVerdict(obs, requests), err
}

func (o *Observer) during(ctx context.Context, send func(context.Context) error) (Observation, error) {
	w, err := o.Begin(ctx)
	if err != nil {
		return Observation{}, err
	}
	sent := send(ctx)
	obs, err := w.End(ctx)
	return obs, errors.Join(sent, err)
}
