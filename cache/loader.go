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

	mu      sync.Mutex
	flights map[K]*flight[V]        // the load that callers of a key join, and that may be kept
	running map[*flight[V]]struct{} // all loads under way, superseded ones too
	closed  bool
	idle    chan struct{} // closed when closed and nothing is running

	hits, stale, misses, loads, failures atomic.Int64
}

// NewLoader returns an empty Loader. load fetches one value; its context carries the values of the
// request that caused it but not its end, and ends after Config.Timeout. load must depend on the key
// only. It may get other keys from the same Loader, but not its own.
func NewLoader[K comparable, V any](load func(context.Context, K) (V, error), cfg Config) (*Loader[K, V], error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	l := &Loader[K, V]{
		load: load, cfg: cfg, clock: newClock(cfg.Now),
		flights: make(map[K]*flight[V]), running: make(map[*flight[V]]struct{}),
		idle: make(chan struct{}),
	}
	var err error
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
	e, ok := l.entries.GetIfPresent(key)
	now := l.clock.elapsed()
	switch {
	case ok && now < e.fresh:
		l.hits.Add(1)
		return e.value, e.err
	case ok && now < e.until:
		l.stale.Add(1)
		if e.due(now) {
			l.refresh(ctx, key)
		}
		return e.value, e.err
	}
	l.misses.Add(1)
	return l.wait(ctx, key)
}

func (l *Loader[K, V]) wait(ctx context.Context, key K) (none V, err error) {
	if err := ctx.Err(); err != nil {
		return none, err
	}
	f, err := l.join(ctx, key)
	if err != nil {
		return none, err
	}
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// Invalidate forgets keys. When it returns, the values that loads under way will bring are forgotten
// too: they go to those who wait for them already, and to nobody else. Call it after each write,
// also after one whose outcome is unknown.
func (l *Loader[K, V]) Invalidate(keys ...K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		delete(l.flights, key)
		l.entries.Invalidate(key)
	}
}

// Clear forgets everything, as Invalidate of every key would.
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
	Loads, Failures     int64 // loads begun; those that brought no answer
	Entries, Running    int   // about how many entries there are; loads under way
}

// Stats returns the counters.
func (l *Loader[K, V]) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{
		Hits: l.hits.Load(), Stale: l.stale.Load(), Misses: l.misses.Load(),
		Loads: l.loads.Load(), Failures: l.failures.Load(),
		Entries: l.entries.EstimatedSize(), Running: len(l.running),
	}
}
