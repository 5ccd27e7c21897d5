package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// Upstream checks that the guarded backend answers. Its failure only warns, at both endpoints: taking
// every instance of the front door out of the load balancer would not bring the backend back, and
// clients would get the balancer's error instead of a 502 or 503 that says when to return. Set Ready
// to Fails where each instance has a backend of its own. The reasons are "timeout" and "down".
func Upstream(ping func(context.Context) error) Check {
	return Check{
		Name: "upstream", Health: Warns, Ready: Warns,
		Run: func(ctx context.Context) (Observation, error) {
			err := ping(ctx)
			if err == nil {
				return Observation{}, nil
			}
			return Observation{}, unreachable(ctx, guessed(err))
		},
	}
}

// guessed adds what such an error usually means, for the operator who reads the details.
func guessed(err error) error {
	var name *net.DNSError
	var slow net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (nothing listens there: is the backend running, and on this port?)", err)
	case errors.As(err, &name):
		return fmt.Errorf("%w (the name does not resolve: is it spelt right, and known here?)", err)
	case errors.As(err, &slow) && slow.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w (no answer in time: is it overloaded, or is a firewall in between?)", err)
	default:
		return err
	}
}
