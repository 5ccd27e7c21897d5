package cache

import (
	"context"
	"errors"
	"time"
)

// ErrAway is what a [Far] returns when it cannot be used now; the loader then asks the source.
var ErrAway = errors.New("cache: the shared cache is away")

// Far is a store that several instances share. Each of its keys has a generation, which ends when any
// instance forgets the key. [github.com/gantryhq/gantry/cache/valkey] is one. All methods return
// soon, whatever happens to the store, and may be called from any goroutine.
type Far interface {
	// Look returns what is kept under key, if anything, and a ticket of the key's present generation.
	// Where there is no generation it begins one, which lasts for hold at least if nothing ends it.
	Look(ctx context.Context, key string, hold time.Duration) (Ticket, Kept, error)
	// Keep stores value for ttl, if the ticket's generation has not ended.
	Keep(ctx context.Context, t Ticket, value []byte, ttl time.Duration) error
	// Proven reports whether the generation has not ended at a moment within the call. It is false when
	// that cannot be said.
	Proven(ctx context.Context, t Ticket) bool
	// Current reports, without asking the store, whether no end of the generation has been heard of. It
	// is false whenever the end might not be heard of.
	Current(t Ticket) bool
	// Forget ends the generations of keys. When it returns no instance gives what was kept under them
	// before. If the store is away it waits until nobody trusts the store either.
	Forget(ctx context.Context, keys ...string)
}

// Ticket names one generation of one key. Only the [Far] that gave it reads it.
type Ticket struct {
	Key, Generation string
	Epoch           string // the store's, of which the generation is
	Heard           uint64 // what had been heard of ends when the ticket was asked for
}

// Kept is what Look found. Life is for how long it is kept yet; zero means that there is nothing.
type Kept struct {
	Value []byte
	Life  time.Duration
}

// Codec turns the values of a loader into the bytes that instances share. Decode gets a pointer.
type Codec struct {
	Encode func(value any) ([]byte, error)
	Decode func(data []byte, into any) error
}
