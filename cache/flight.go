package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
)

// flight is one load and those who wait for it. It belongs to nobody's request: it goes on when
// the caller who began it goes away, and ends by its own timeout.
type flight[V any] struct {
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when value and err are settled
	over   bool          // settled; guarded by the loader's mu
	number int64         // of all flights of the loader, in the order in which they began
	anew   bool          // must ask the source, as it is to replace what is stale
	value  V
	err    error
	ticket *Ticket // with a Far, of the generation the load belongs to
}

// join returns the flight to wait for, and begins one where there is none. With a Far, of flights that
// have landed it takes those with a number above seen only.
func (l *Loader[K, V]) join(ctx context.Context, key K, seen int64) (*flight[V], error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f, ok := l.flights[key]; ok {
		return f, nil
	}
	// A flight may have landed since the caller looked.
	if e, ok := l.entries.GetIfPresent(key); ok && l.clock.elapsed() < e.fresh && (l.far == nil || e.number > seen) {
		return landed(e), nil
	}
	return l.begin(ctx, key, false)
}

func landed[V any](e *entry[V]) *flight[V] {
	f := &flight[V]{done: make(chan struct{}), number: e.number, value: e.value, err: e.err, ticket: e.ticket}
	close(f.done)
	return f
}

// refresh begins a flight nobody waits for, unless there is one. If it fails, the old value stays.
func (l *Loader[K, V]) refresh(ctx context.Context, key K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.flights[key]; !ok {
		_, _ = l.begin(ctx, key, true) // when busy or closed, the old value has to do
	}
}

// begin starts the load of key. The caller holds mu.
func (l *Loader[K, V]) begin(ctx context.Context, key K, anew bool) (*flight[V], error) {
	switch {
	case l.closed:
		return nil, ErrClosed
	case len(l.running) >= l.cfg.MaxLoads:
		return nil, ErrBusy
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	f := &flight[V]{cancel: cancel, done: make(chan struct{}), number: l.begun.Add(1), anew: anew}
	l.flights[key] = f
	l.running[f] = struct{}{}
	go l.fly(ctx, key, f)
	return f, nil
}

// fly runs the load. Should it ignore the end of its context, those who wait are let go on time, and
// its late answer is dropped.
func (l *Loader[K, V]) fly(ctx context.Context, key K, f *flight[V]) {
	defer l.leave(f)
	defer f.cancel(nil)
	ctx, cancel := context.WithTimeoutCause(ctx, l.cfg.Timeout, ErrTimeout)
	defer cancel()
	abandon := context.AfterFunc(ctx, func() { l.settle(key, f, outcome[V]{err: context.Cause(ctx)}) })
	defer abandon()
	l.call(ctx, key, f)
}

// outcome is how a flight ends.
type outcome[V any] struct {
	value  V
	err    error
	entry  *entry[V] // nil when it is no answer
	ticket *Ticket   // with a Far: nil when it was away
}

// call settles the flight by what Far has or the load returns, also when that panics or ends its
// goroutine.
func (l *Loader[K, V]) call(ctx context.Context, key K, f *flight[V]) {
	ticket, e := l.look(ctx, key, f.anew)
	if e != nil {
		l.settle(key, f, outcome[V]{value: e.value, entry: e, ticket: ticket})
		return
	}
	o := outcome[V]{err: errors.New("cache: the load ended its goroutine"), ticket: ticket}
	defer func() {
		if v := recover(); v != nil {
			o.err = fmt.Errorf("cache: the load panicked: %v", v)
			l.cfg.Logger.Error("cache load panicked", slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		}
		if o.err != nil && ctx.Err() != nil {
			o.err = context.Cause(ctx)
		}
		o.entry = answer(l.cfg, o.value, o.err, l.clock.elapsed())
		l.share(ctx, o)
		l.settle(key, f, o)
	}()
	l.loads.Add(1)
	o.value, o.err = l.load(ctx, key)
}

// settle gives the outcome to those who wait, and keeps it if it is an answer and nothing has
// invalidated the key since the flight began: then the flight is still the one to join.
func (l *Loader[K, V]) settle(key K, f *flight[V], o outcome[V]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.over {
		return
	}
	f.over, f.value, f.err, f.ticket = true, o.value, o.err, o.ticket
	if o.entry == nil {
		l.failures.Add(1)
	}
	if l.flights[key] == f {
		delete(l.flights, key)
		if o.entry != nil && (l.far == nil || o.ticket != nil) {
			o.entry.number, o.entry.ticket = f.number, o.ticket
			l.entries.Set(key, o.entry)
		}
	}
	close(f.done)
}

func (l *Loader[K, V]) leave(f *flight[V]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.running, f)
	l.closeIfIdle()
}
