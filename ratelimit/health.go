package ratelimit

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// The rule of this file: a store that fails is left alone, so that no request waits for it, and is
// asked again once a second. With Run nobody's request does the asking.

const (
	tripAfter  = 5 // failures
	tripWithin = time.Second
	askEvery   = time.Second

	// A driver may let requests wait for a connection that a beat is making. So a beat is as short as
	// a request's question while requests may ask, and long enough to connect once they may not.
	beatQuick   = 50 * time.Millisecond
	beatPatient = time.Second
)

// SharedStore is a [Store] whose instances know of each other.
type SharedStore interface {
	Store
	// Beat says that this instance is alive and returns how many are, itself included. It fails
	// when the store could not record an admission.
	Beat(ctx context.Context) (instances int, err error)
}

// Status is how a Limiter fares with its store.
type Status struct {
	// Mode says who decides: Shared when all is well.
	Mode Mode
	// Since is when that began, and Err the store's last failure; zero when all is well.
	Since time.Time
	Err   error
	// Instances is how many processes share the limits, as last known.
	Instances int
}

// health counts a store's failures and opens, like a breaker, after some in a short time.
type health struct {
	instances atomic.Int64
	driven    atomic.Bool // Run asks the store, and no request need
	failing   atomic.Bool // so that a healthy store costs one load

	mu       sync.Mutex
	open     bool
	ask      time.Time // when an open breaker lets a request ask
	since    time.Time
	failures [tripAfter]time.Time // the last ones; next is the oldest of them
	next     int
	err      error
}

// mayAsk says whether a request may ask the store.
func (h *health) mayAsk() bool {
	if !h.failing.Load() {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.open && (h.driven.Load() || now.Before(h.ask)) {
		return false
	}
	h.ask = now.Add(askEvery)
	return true
}

// failed counts a failure and reports whether it is the first of an outage. A beat that fails in an
// outage opens the breaker however few the requests are.
func (h *health) failed(err error, beat bool) (first bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	h.failures[h.next] = now
	h.next = (h.next + 1) % tripAfter
	if oldest := h.failures[h.next]; !h.open && (now.Sub(oldest) < tripWithin || beat && h.failing.Load()) {
		h.open, h.ask = true, now.Add(askEvery)
	}
	h.err = err
	if first = !h.failing.Load(); first {
		h.since = now
		h.failing.Store(true)
	}
	return first
}

// succeeded reports whether an answer ends an outage, and how long it was. While the breaker is
// closed a second without a failure must pass, or a store that fails now and then would be
// declared well at every other request.
func (h *health) succeeded() (lasted time.Duration, ends bool) {
	if !h.failing.Load() {
		return 0, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	last := h.failures[(h.next+tripAfter-1)%tripAfter]
	if !h.failing.Load() || !h.open && now.Sub(last) < tripWithin {
		return 0, false
	}
	lasted = now.Sub(h.since)
	h.open, h.since, h.err, h.failures = false, time.Time{}, nil, [tripAfter]time.Time{}
	h.failing.Store(false)
	return lasted, true
}

// patience is how long a beat may take.
func (h *health) patience() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open {
		return beatPatient
	}
	return beatQuick
}

func (h *health) lastError() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// Status tells who decides now. It never waits for the store.
func (l *Limiter) Status() Status {
	h := l.health
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Status{Since: h.since, Err: h.err, Instances: l.instances()}
	if h.failing.Load() {
		s.Mode = [...]Mode{FallLocal: Local, Refuse: Closed, Allow: Open}[l.cfg.OnStoreFailure]
	}
	return s
}

// instances is how many share the limits: the last count, or what the configuration says.
func (l *Limiter) instances() int {
	if n := l.health.instances.Load(); n > 0 {
		return int(n)
	}
	return l.cfg.Instances
}

// Run keeps in touch with a [SharedStore] until ctx ends: once a second it says that this instance
// is alive, counts the others, and finds out whether a store that failed is back. Without Run a
// request does the last, and waits for it. Run returns nil.
func (l *Limiter) Run(ctx context.Context) error {
	shared, ok := l.cfg.Store.(SharedStore)
	if !ok {
		<-ctx.Done()
		return nil
	}
	l.health.driven.Store(true)
	defer l.health.driven.Store(false)
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for ctx.Err() == nil {
		l.beat(ctx, shared)
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	return nil
}

func (l *Limiter) beat(ctx context.Context, shared SharedStore) {
	short, cancel := context.WithTimeout(ctx, l.health.patience())
	defer cancel()
	n, err := shared.Beat(short)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		l.storeFailed(err, true)
	default:
		l.health.instances.Store(int64(n))
		l.storeAnswered()
	}
}

// storeFailed and storeAnswered log a change of state, not each request.
func (l *Limiter) storeFailed(err error, beat bool) {
	if l.health.failed(err, beat) {
		l.cfg.Logger.Warn("rate limit store fails", "error", err, "mode", l.Status().Mode.String(), "instances", l.instances())
	}
}

func (l *Limiter) storeAnswered() {
	if lasted, ends := l.health.succeeded(); ends {
		l.cfg.Logger.Info("rate limit store is back", "after", lasted.Round(time.Millisecond))
	}
}
