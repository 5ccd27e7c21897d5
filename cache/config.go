package cache

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Config says how long a [Loader] keeps what it loaded. The zero value is the default.
type Config struct {
	// TTL is how long a value is fresh; default 1 min. Each entry gets it with a spread of 10 %
	// either way, so that what was loaded together does not expire together.
	TTL time.Duration
	// Stale is for how long after that a value is still given while it is loaded anew in the
	// background; default 0, not at all.
	Stale time.Duration
	// Absent reports whether an error of the load is an answer, "there is no such thing", that may be
	// kept like a value; nil keeps no error.
	Absent func(error) bool
	// AbsentTTL is how long such an answer is kept, with the same spread; default 5 s.
	AbsentTTL time.Duration
	// Timeout limits one load; default 5 s. Loads do not end with the request that began them.
	Timeout time.Duration
	// MaxEntries bounds the entries; default 10,000. What is used least is dropped.
	MaxEntries int
	// MaxLoads bounds the loads under way, those that overran Timeout included; default 1,024.
	MaxLoads int
	// Now is the clock of expiry; default time.Now, used monotonically.
	Now func() time.Time
	// Logger is told of loads that panic; nil discards.
	Logger *slog.Logger

	// Far is where instances share what they loaded; nil keeps it in this process. Absence is
	// kept by each instance for itself.
	Far Far
	// Name sets the entries of this loader apart from those of others in Far; required with it. Loaders
	// of one name, on all instances, must load the same.
	Name string
	// Relaxed gives what this instance has at once, as long as it is sure to hear of invalidations: what
	// other instances wrote may be missed for about as long as a message from Far takes. Otherwise
	// every hit asks Far, and is never older than the last write that has returned.
	Relaxed bool
	// Codec encodes values for Far; default JSON.
	Codec Codec
}

// Validate returns every fault of the configuration, joined.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	check := func(ok bool, field, want string) {
		if !ok {
			faults = append(faults, fmt.Errorf("%s: %s", field, want))
		}
	}
	check(c.TTL > 0, "TTL", "must be positive")
	check(c.Stale >= 0, "Stale", "must not be negative")
	check(c.AbsentTTL > 0, "AbsentTTL", "must be positive")
	check(c.Timeout > 0, "Timeout", "must be positive")
	check(c.MaxEntries > 0, "MaxEntries", "must be positive")
	check(c.MaxLoads > 0, "MaxLoads", "must be positive")
	check((c.Far == nil) == (c.Name == ""), "Name", "must be given with Far, and only then")
	check((c.Codec.Encode == nil) == (c.Codec.Decode == nil), "Codec", "must encode and decode")
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	c.TTL = or(c.TTL, time.Minute)
	c.AbsentTTL = or(c.AbsentTTL, 5*time.Second)
	c.Timeout = or(c.Timeout, 5*time.Second)
	c.MaxEntries = or(c.MaxEntries, 10_000)
	c.MaxLoads = or(c.MaxLoads, 1024)
	if c.Absent == nil {
		c.Absent = func(error) bool { return false }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
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
