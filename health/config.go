package health

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// Config says what to check and how often. The zero value checks nothing, and is ready once opened.
type Config struct {
	// Checks run side by side, each on its own.
	Checks []Check
	// Interval is the time from one start of a check to its next; default 1 s.
	Interval time.Duration
	// Timeout is the limit of one run; default 1 s.
	Timeout time.Duration
	// StaleAfter is the age, counted from the start of the run, from which on a result no longer
	// counts for /health. At least Interval + Timeout, which is the default.
	StaleAfter time.Duration
	// FailAfter is how many failures in a row make a check count as failed for readiness; default 3.
	FailAfter int
	// PassAfter is how many successes in a row bring it back; default 2. At start one is enough.
	PassAfter int
	// Details says whether this request may see error texts, observed values and recent results. It
	// should be true for the admin listener and for holders of the admin token only; nil is never.
	Details func(*http.Request) bool
	// Now is the wall clock that results are labelled with; default time.Now. Ages are measured
	// with the monotonic clock, so a jump of the wall clock makes nothing stale.
	Now func() time.Time
	// Logger is told when a check changes its status; nil discards.
	Logger *slog.Logger
}

// Validate returns every fault of the configuration, joined, each with its field.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	check := func(ok bool, field, want string) {
		if !ok {
			faults = append(faults, fmt.Errorf("%s: %s", field, want))
		}
	}
	check(c.Interval > 0, "Interval", "must be positive")
	check(c.Timeout > 0, "Timeout", "must be positive")
	check(c.FailAfter > 0, "FailAfter", "must be positive")
	check(c.PassAfter > 0, "PassAfter", "must be positive")
	check(c.StaleAfter >= c.Interval+c.Timeout, "StaleAfter", "must be at least Interval and Timeout together")
	names := make(map[string]bool, len(c.Checks))
	for i, one := range c.Checks {
		field := fmt.Sprintf("Checks[%d]", i)
		check(one.Name != "", field+".Name", "is required")
		check(one.Run != nil, field+".Run", "is required")
		check(!names[one.key()], field, "has the name and measurement of another check")
		names[one.key()] = true
	}
	return errors.Join(faults...)
}

// withDefaults fills in what was left out, in a copy.
func (c Config) withDefaults() Config {
	c.Interval = or(c.Interval, time.Second)
	c.Timeout = or(c.Timeout, time.Second)
	c.StaleAfter = or(c.StaleAfter, c.Interval+c.Timeout)
	c.FailAfter = or(c.FailAfter, 3)
	c.PassAfter = or(c.PassAfter, 2)
	if c.Details == nil {
		c.Details = func(*http.Request) bool { return false }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Checks = append([]Check(nil), c.Checks...)
	for i := range c.Checks {
		c.Checks[i].Measurement = or(c.Checks[i].Measurement, "responseTime")
		c.Checks[i].Type = or(c.Checks[i].Type, "component")
	}
	return c
}

func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}
