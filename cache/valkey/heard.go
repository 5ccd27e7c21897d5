package valkey

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// heard is what this instance has heard of ended generations: a counter for each of many groups of keys, and one
// for all, which a lost connection moves. A ticket is current while the counters stand as they stood when it
// was asked for. That two keys share a counter costs a load now and then.
type heard struct {
	groups [1 << 14]atomic.Uint32
	all    atomic.Uint32
}

var seed = maphash.MakeSeed()

func (h *heard) group(key string) *atomic.Uint32 {
	return &h.groups[maphash.String(seed, key)%uint64(len(h.groups))]
}

func (h *heard) of(key string) uint64 {
	return uint64(h.all.Load())<<32 | uint64(h.group(key).Load())
}

func (h *heard) end(key string) { h.group(key).Add(1) }
func (h *heard) endAll()        { h.all.Add(1) }

// breaker counts failures. From the fifth in a second nobody tries until a renewal has succeeded.
type breaker struct {
	mu    sync.Mutex
	since time.Time
	n     int
}

const (
	maxFailures   = 5
	failureWindow = time.Second
)

func (b *breaker) failed(now time.Time) (open bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.since) > failureWindow {
		b.since, b.n = now, 0
	}
	b.n++
	return b.n >= maxFailures
}

func (b *breaker) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n = 0
}
