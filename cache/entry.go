package cache

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// entry is an answer that was loaded: a value, or the error that says there is none.
type entry[V any] struct {
	value V
	err   error
	life  time.Duration // from its making until it is dropped
	fresh time.Duration // until when it is fresh, by the loader's clock
	until time.Duration // until when it may be given at all
	again atomic.Int64  // when the next refresh of it may begin

	// With a Far:
	number int64   // of the flight that brought it
	ticket *Ticket // by which it is proved; nil when it cannot be
}

// pause is the least time between two refreshes of an entry, so that a source that fails at once is
// not asked again by every request.
const pause = time.Second

// answer makes an entry of what was loaded at now, and nil of an error that is no answer.
func answer[V any](cfg Config, value V, err error, now time.Duration) *entry[V] {
	ttl, stale := cfg.TTL, cfg.Stale
	if err != nil {
		if !cfg.Absent(err) {
			return nil
		}
		ttl, stale = cfg.AbsentTTL, 0
	}
	ttl = spread(ttl, rand.Float64())
	e := &entry[V]{value: value, err: err, life: ttl + stale, fresh: now + ttl, until: now + ttl + stale}
	e.again.Store(int64(e.fresh))
	return e
}

// received makes an entry of what a Far keeps for life yet. It may be stale already.
func received[V any](cfg Config, value V, life, now time.Duration) *entry[V] {
	e := &entry[V]{value: value, life: life, fresh: now + life - cfg.Stale, until: now + life}
	e.again.Store(int64(e.fresh))
	return e
}

// due reports whether a refresh should begin now, to one caller only.
func (e *entry[V]) due(now time.Duration) bool {
	again := e.again.Load()
	return int64(now) >= again && e.again.CompareAndSwap(again, int64(now+pause))
}

// spread moves d by up to 10 % either way, as r goes from 0 to 1.
func spread(d time.Duration, r float64) time.Duration {
	return d + time.Duration(float64(d)*0.2*(r-0.5))
}
