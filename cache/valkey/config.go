package valkey

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Config says how a [Store] uses the server. The zero value is the default.
type Config struct {
	// Prefix begins every key; default "gantry:cache:". It parts deployments that share a server.
	Prefix string
	// Timeout limits one operation; default 50 ms. A read then goes to the source.
	Timeout time.Duration
	// Lease is how long an instance may go without hearing from the server before the others stop
	// using the cache; default 1 s. It must be the same on all instances.
	Lease time.Duration
	// MaxValue is the size in bytes from which values are not shared; default 1 MiB.
	MaxValue int
	// Logger is told when the store goes away and comes back; nil discards.
	Logger *slog.Logger
}

// Validate returns every fault of the configuration, joined.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	if c.Timeout < time.Millisecond {
		faults = append(faults, errors.New("Timeout: must be at least 1 ms"))
	}
	if c.Lease < 4*c.Timeout {
		faults = append(faults, fmt.Errorf("Lease: must be at least four times Timeout, %v", 4*c.Timeout))
	}
	if c.MaxValue < 0 {
		faults = append(faults, errors.New("MaxValue: must not be negative"))
	}
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	if c.Prefix == "" {
		c.Prefix = "gantry:cache:"
	}
	if c.Timeout == 0 {
		c.Timeout = 50 * time.Millisecond
	}
	if c.Lease == 0 {
		c.Lease = time.Second
	}
	if c.MaxValue == 0 {
		c.MaxValue = 1 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// grace is how long a new epoch is not used, so that the windows of the old one are over and those
// who were cut off with everybody else are back.
func (c Config) grace() time.Duration { return c.Lease + c.Lease/2 }

// late is how long after it was sent a renewal may still be carried out by a server that hung.
func (c Config) late() time.Duration { return 2 * c.Timeout }

// slack covers that the server counts in milliseconds, and clocks that run unevenly.
const slack = 10 * time.Millisecond
