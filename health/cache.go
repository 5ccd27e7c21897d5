package health

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"
)

// KV is what [Cache] needs of a cache.
type KV interface {
	// Set stores value under key for ttl.
	Set(ctx context.Context, key string, value []byte, ttl time.Duration) error
	// Get returns what is stored under key, and whether anything is.
	Get(ctx context.Context, key string) (value []byte, found bool, err error)
	// Del removes key; an absent key is no error.
	Del(ctx context.Context, key string) error
}

// Cache checks a cache by writing, reading and deleting a key of its own, which finds what a ping
// does not: a replica that only reads ("read-only") and a full memory ("out-of-memory"). Other reasons
// are "timeout", "down" and "wrong-value". Its failure only warns readiness, because Gantry works,
// slower, without a cache.
func Cache(c KV) Check {
	key := "gantry:health:" + rand.Text() // instances that share a cache must not meet on one key
	return Check{
		Name: "cache", Type: "datastore", Health: Fails, Ready: Warns,
		Run: func(ctx context.Context) (Observation, error) {
			err := roundTrip(ctx, c, key)
			if err == nil {
				return Observation{}, nil
			}
			return Observation{}, cacheFault(ctx, err)
		},
	}
}

// leftover is how long the key lives if the process dies before deleting it.
const leftover = 10 * time.Second

var errWrongValue = errors.New("read back another value than was written")

func roundTrip(ctx context.Context, c KV, key string) error {
	value := []byte(rand.Text())
	if err := writeAndRead(ctx, c, key, value); err != nil {
		return err
	}
	if err := c.Del(ctx, key); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

// writeAndRead tries three times: a cache under pressure may evict a key between the two steps.
func writeAndRead(ctx context.Context, c KV, key string, value []byte) error {
	for range 3 {
		if err := c.Set(ctx, key, value, leftover); err != nil {
			return fmt.Errorf("set: %w", err)
		}
		got, found, err := c.Get(ctx, key)
		if err != nil {
			return fmt.Errorf("get: %w", err)
		}
		if found && bytes.Equal(got, value) {
			return nil
		}
	}
	return errWrongValue
}

// cacheFault reads the error codes of Valkey and Redis, which begin the error's text.
func cacheFault(ctx context.Context, err error) error {
	text := err.Error()
	switch {
	case errors.Is(err, errWrongValue):
		return &Fault{Reason: "wrong-value", Err: err}
	case strings.Contains(text, "READONLY "):
		return &Fault{Reason: "read-only", Err: err}
	case strings.Contains(text, "OOM "):
		return &Fault{Reason: "out-of-memory", Err: err}
	default:
		return unreachable(ctx, err)
	}
}
