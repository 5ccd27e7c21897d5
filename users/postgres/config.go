package postgres

import (
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Config of a Store. The zero value of every field but URL is its default.
type Config struct {
	// URL of the database: postgres://user:password@host:port/name?sslmode=verify-full. Several hosts,
	// and every parameter of libpq that pgx knows, may stand in it. Required.
	URL string
	// Min is how many idle connections are kept at hand; default 2.
	Min int
	// Max is the size of the pool; default 10.
	Max int
	// Lifetime is how old a connection gets; default 10 min. Each one ends at a moment of its own in the
	// last quarter of it, so that connections made together do not end together.
	Lifetime time.Duration
	// AcquireTimeout is how long a call waits for a free connection before it is users.ErrExhausted;
	// default 2 s.
	AcquireTimeout time.Duration
	// ConnectTimeout is how long making a connection may take; default 5 s.
	ConnectTimeout time.Duration
	// StatementTimeout is when the server ends a statement by itself; default 25 s, below the
	// 30 s that a request may take. A context that ends earlier ends the statement earlier.
	StatementTimeout time.Duration
	// LockTimeout is how long a statement waits for another transaction; default 5 s.
	LockTimeout time.Duration
	// ApplicationName is what the server's views show; default "gantry".
	ApplicationName string
	// Prepare says whether statements are prepared on the server by name; default PrepareAuto.
	Prepare Prepare
	// Trace, if not nil, hears of the statements of every round trip before they are sent. Tests
	// count with it.
	Trace func(statements []string)
}

// Prepare is whether statements are prepared on the server by name, which saves it parsing and planning.
type Prepare int

const (
	// PrepareAuto prepares on connections to the server itself, and does not through a pooler: in its
	// transaction mode the next statement may run on a server connection that knows no such name.
	PrepareAuto Prepare = iota
	// PrepareAlways is for a pooler that carries names over, as PgBouncer does from 1.21 on with
	// max_prepared_statements above 0. There StatementTimeout and LockTimeout bound every statement
	// but its first preparation on a connection, which the context alone bounds.
	PrepareAlways
	// PrepareNever sends every statement whole.
	PrepareNever
)

// Validate returns every fault of the configuration, joined. None shows the password.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	check := func(ok bool, field, want string) {
		if !ok {
			faults = append(faults, fmt.Errorf("%s: %s", field, want))
		}
	}
	if _, err := pgx.ParseConfig(c.URL); c.URL == "" || err != nil {
		faults = append(faults, errors.New("URL: must be like postgres://user:password@host:5432/name"))
	}
	check(c.Max > 0 && c.Max <= 10_000, "Max", "must be in 1..10000")
	check(c.Min >= 0 && c.Min <= c.Max, "Min", "must not be negative or above Max")
	check(c.Lifetime > 0, "Lifetime", "must be positive")
	check(c.AcquireTimeout > 0, "AcquireTimeout", "must be positive")
	check(c.ConnectTimeout > 0, "ConnectTimeout", "must be positive")
	check(c.StatementTimeout >= time.Millisecond, "StatementTimeout", "must be at least 1 ms")
	check(c.LockTimeout >= time.Millisecond, "LockTimeout", "must be at least 1 ms")
	check(c.Prepare >= PrepareAuto && c.Prepare <= PrepareNever, "Prepare", "must be one of the three")
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	c.Max = or(c.Max, 10)
	c.Min = or(c.Min, min(2, c.Max))
	c.Lifetime = or(c.Lifetime, 10*time.Minute)
	c.AcquireTimeout = or(c.AcquireTimeout, 2*time.Second)
	c.ConnectTimeout = or(c.ConnectTimeout, 5*time.Second)
	c.StatementTimeout = or(c.StatementTimeout, 25*time.Second)
	c.LockTimeout = or(c.LockTimeout, 5*time.Second)
	c.ApplicationName = or(c.ApplicationName, "gantry")
	return c
}

func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}
