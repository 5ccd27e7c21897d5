package telemetry

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Other is the label of what a metric has no series of its own for, as OpenTelemetry has it for methods.
const Other = "_OTHER"

// limited keeps what belongs to each key, for at most limit keys; the rest belongs to all other keys.
// Reading is one look into a map that never changes: a new key, of which there are few, makes a new map.
type limited[K comparable, V any] struct {
	known atomic.Pointer[map[K]V]
	mu    sync.Mutex // for making new ones
	limit int
	open  func(K) V
	rest  func(K) V
}

func newLimited[K comparable, V any](limit int, open, rest func(K) V) *limited[K, V] {
	l := &limited[K, V]{limit: limit, open: open, rest: rest}
	l.known.Store(&map[K]V{})
	return l
}

func (l *limited[K, V]) get(k K) V {
	known := *l.known.Load()
	if v, ok := known[k]; ok {
		return v
	}
	if len(known) >= l.limit {
		return l.rest(k)
	}
	return l.add(k)
}

func (l *limited[K, V]) add(k K) V {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := *l.known.Load()
	if v, ok := known[k]; ok {
		return v
	}
	if len(known) >= l.limit {
		return l.rest(k)
	}
	next := maps.Clone(known)
	next[k] = l.open(k)
	l.known.Store(&next)
	return next[k]
}
