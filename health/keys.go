package health

import (
	"context"
	"time"
)

// Keys checks that tokens can be verified. status returns at once, without fetching anything: how
// long ago the oldest issuer's keys were last fetched, and an error when an issuer has none that may
// be used, or a [Fault] that is a Warning when they are getting old. Until every issuer's keys were
// loaded once the process is not ready; /health only warns. The age is observed.
func Keys(status func() (age time.Duration, err error)) Check {
	return Check{
		Name: "keys", Measurement: "age", Health: Warns, Ready: Fails,
		Run: func(context.Context) (Observation, error) {
			age, err := status()
			return Observation{Value: age.Seconds(), Unit: "s"}, err
		},
	}
}
