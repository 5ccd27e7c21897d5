package cache

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// What Get returns besides the errors of the load itself and of the caller's context.
var (
	// ErrTimeout says that the load took longer than Config.Timeout.
	ErrTimeout = errors.New("cache: the load took too long")
	// ErrBusy says that Config.MaxLoads loads are under way.
	ErrBusy = errors.New("cache: too many loads are under way")
	// ErrClosed says that the loader was closed.
	ErrClosed = errors.New("cache: the loader is closed")
)

// Loader gives values by key, and loads what it does not have: once, however many ask.
//
// A value is shared between all callers of its key, so callers must not change it, and the key must
// name all that the answer depends on: whatever belongs to one user or tenant has that user or
// tenant in its key. All methods may be called from any goroutine.
type Loader[K comparable, V any] struct {
	load    func(context.Context, K) (V, error)
	cfg     Config
	clock   *clock
	entries *otter.Cache[K, *entry[V]]
	far     *shared[K, V] // nil without one

	mu      sync.Mutex
	flights map[K]*flight[V]        // the load that callers of a key join, and that may be kept
	running map[*flight[V]]struct{} // all loads under way, superseded ones too
	closed  bool
	idle    chan struct{} // closed when closed and nothing is running

	begun atomic.Int64 // flights

	hits, stale, misses, loads, failures, doubted, received atomic.Int64
}

// NewLoader returns an empty Loader. load fetches one value; its context carries the values of the
// request that caused it but not its end, and ends after Config.Timeout. load must depend on the key
// only. It may get other keys from the same Loader, but not its own.
func NewLoader[K comparable, V any](load func(context.Context, K) (V, error), cfg Config) (*Loader[K, V], error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	far, err := newShared[K, V](cfg)
	if err != nil {
		return nil, err
	}
	l := &Loader[K, V]{
		load: load, cfg: cfg, clock: newClock(cfg.Now), far: far,
		flights: make(map[K]*flight[V]), running: make(map[*flight[V]]struct{}),
		idle: make(chan struct{}),
	}
	l.entries, err = otter.New(&otter.Options[K, *entry[V]]{
		MaximumSize:      cfg.MaxEntries,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[K, *entry[V]]) time.Duration { return e.Value.life }),
		Clock:            l.clock,
		Executor:         inline,
		Logger:           &otter.NoopLogger{},
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Get returns the value of key. It waits for a load when there is none, until ctx ends: that fails this
// call only, the load goes on for the others. What the load returns, an error too, goes to all who
// waited for it.
func (l *Loader[K, V]) Get(ctx context.Context, key K) (V, error) {
	seen := l.begun.Load()
	e, ok := l.entries.GetIfPresent(key)
	now := l.clock.elapsed()
	switch {
	case !ok || now >= e.until:
	case !l.good(ctx, e.ticket):
		l.doubted.Add(1)
	case now < e.fresh:
		l.hits.Add(1)
		return e.value, e.err
	default:
		l.stale.Add(1)
		if e.due(now) {
			l.refresh(ctx, key)
		}
		return e.value, e.err
	}
	l.misses.Add(1)
	return l.wait(ctx, key, seen)
}

// wait returns what the next flight brings. A flight that began before the caller came may bring what
// another instance has overwritten since: then it waits for one more.
func (l *Loader[K, V]) wait(ctx context.Context, key K, seen int64) (none V, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return none, err
		}
		f, err := l.join(ctx, key, seen)
		if err != nil {
			return none, err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return none, ctx.Err()
		}
		if f.number > seen || l.good(ctx, f.ticket) {
			return f.value, f.err
		}
	}
}

// Invalidate forgets keys, on all instances that share a Far. When it returns, the values that loads under
// way will bring are forgotten too: they go to those who wait for them already, and to nobody
// else. Call it after each write and before the writer is answered, also after a write whose outcome is
// unknown.
//
// Without a Far it returns at once. With one it goes on when ctx ends, since the write is done; it takes
// one round trip, and up to some seconds when the store has just gone away: see [Far].
func (l *Loader[K, V]) Invalidate(ctx context.Context, keys ...K) {
	l.drop(keys)
	if l.far == nil || len(keys) == 0 {
		return
	}
	l.far.far.Forget(context.WithoutCancel(ctx), l.far.texts(keys)...)
	l.drop(keys) // what came from Far meanwhile
}

func (l *Loader[K, V]) drop(keys []K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		delete(l.flights, key)
		l.entries.Invalidate(key)
	}
}

// Clear forgets everything this instance has, as Invalidate of every key would without a Far.
func (l *Loader[K, V]) Clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.flights)
	l.entries.InvalidateAll()
}

// Close ends the loads under way and waits for them until ctx ends. Later Gets return what is there,
// and [ErrClosed] for what is not.
func (l *Loader[K, V]) Close(ctx context.Context) error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		for f := range l.running {
			f.cancel(ErrClosed)
		}
		l.closeIfIdle()
	}
	l.mu.Unlock()
	select {
	case <-l.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// closeIfIdle is called under mu, at Close and after the end of each load.
func (l *Loader[K, V]) closeIfIdle() {
	if l.closed && len(l.running) == 0 {
		close(l.idle)
	}
}

// Stats are totals since the start, and how much is kept now.
type Stats struct {
	Hits, Stale, Misses int64 // what Get found
	Loads, Failures     int64 // loads begun; flights that brought no answer
	Received            int64 // values that came from Far instead of a load
	Doubted             int64 // misses of what was there but could not be proved
	Entries, Running    int   // about how many entries there are; loads under way
}

// Stats returns the counters.
func (l *Loader[K, V]) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{
		Hits: l.hits.Load(), Stale: l.stale.Load(), Misses: l.misses.Load(),
		Loads: l.loads.Load(), Failures: l.failures.Load(),
		Received: l.received.Load(), Doubted: l.doubted.Load(),
		Entries: l.entries.EstimatedSize(), Running: len(l.running),
	}
}
