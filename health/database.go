package health

import "context"

// Database checks that a statement runs on a connection of the pool within the limit.
//
// ping takes a pooled connection and runs a statement; it must obey its context, also while it waits
// for a connection. exhausted tells a full pool from a database that is down, by the error or by the
// pool's own counters; nil cannot tell. The reasons are "exhausted", "timeout" and "down".
func Database(ping func(context.Context) error, exhausted func(error) bool) Check {
	return Check{
		Name: "database", Type: "datastore", Health: Fails, Ready: Fails,
		Run: func(ctx context.Context) (Observation, error) {
			err := ping(ctx)
			switch {
			case err == nil:
				return Observation{}, nil
			case exhausted != nil && exhausted(err):
				return Observation{}, &Fault{Reason: "exhausted", Err: err}
			default:
				return Observation{}, unreachable(ctx, err)
			}
		},
	}
}

// unreachable is the fault of something that did not answer, in time or at all.
func unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &Fault{Reason: "timeout", Err: err}
	}
	return &Fault{Reason: "down", Err: err}
}
